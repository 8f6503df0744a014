//! The same on real files.

use super::*;
use crate::disk::os::OsDisk;

#[test]
fn it_works_on_real_files() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let settings = Settings { segment_bytes: 64 << 10 };
    let mut wal = Wal::create(Arc::clone(&disk), &dir, WE, settings).unwrap();
    for round in 0..100u8 {
        append(&mut wal, &[&[round; 3000], b"", &[round; 50]]).unwrap();
        wal.sync().unwrap();
        if let Some(job) = wal.spare_job() {
            job.run().unwrap();
        }
        if round == 50 {
            wal.free_through(Lsn::new(100));
        }
    }
    drop(wal);
    let examined = examine(disk, &dir, settings, Lsn::new(100)).unwrap();
    assert_eq!(examined.torn(), None);
    let seen = replayed(&examined);
    assert_eq!(seen.len(), 200);
    assert_eq!(examined.finish().unwrap().last(), Lsn::new(300));
}
