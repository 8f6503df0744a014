//! The log on a disk that forgets, tears, rots and fills up.

mod crash;
mod damage;
mod os;
mod spares;

use std::collections::BTreeMap;

use super::*;
use crate::disk::sim::{Crash, SimDisk};
use crate::disk::{Disk, Open};

const DIR: &str = "/data/wal";
const WE: Identity = Identity { node: 77, secret: 0x5ec2e7 };
const SMALL: Settings = Settings { segment_bytes: 8192 };

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn create(disk: &SimDisk) -> Wal {
    Wal::create(arc(disk), Path::new(DIR), WE, SMALL).unwrap()
}

fn look(disk: &SimDisk, from: u64) -> Result<Examined, WalError> {
    examine(arc(disk), Path::new(DIR), SMALL, Lsn::new(from))
}

fn segment_file(seq: u64) -> PathBuf {
    segment::path(Path::new(DIR), seq)
}

/// Appends payloads to shard 0 whose index is the lsn.
fn append(wal: &mut Wal, payloads: &[&[u8]]) -> Result<Lsn, WalError> {
    let first = wal.last().get() + 1;
    let entry = |(index, payload)| Entry { shard: 0, term: 1, index, payload };
    let entries: Vec<_> = (first..).zip(payloads.iter().copied()).map(entry).collect();
    wal.append(&entries)
}

fn replayed(examined: &Examined) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Vec::new();
    examined
        .replay::<WalError>(&mut |record| {
            assert_eq!(record.index, record.lsn.get());
            seen.push((record.lsn.get(), record.payload.to_vec()));
            Ok(())
        })
        .unwrap();
    seen
}

fn finish(disk: &SimDisk, from: u64) -> (Vec<(u64, Vec<u8>)>, Wal) {
    let examined = look(disk, from).unwrap();
    (replayed(&examined), examined.finish().unwrap())
}

#[test]
fn what_is_appended_is_recovered_in_order() {
    let disk = new_disk();
    let mut wal = create(&disk);
    assert_eq!((wal.last(), wal.durable()), (Lsn::ZERO, Lsn::ZERO));
    assert_eq!(append(&mut wal, &[b"a", b"", b"ccc"]).unwrap(), Lsn::new(3));
    assert_eq!((wal.last(), wal.durable()), (Lsn::new(3), Lsn::ZERO));
    assert_eq!(wal.sync().unwrap(), Lsn::new(3));
    append(&mut wal, &[b"never synced"]).unwrap();
    assert_eq!((wal.last(), wal.durable()), (Lsn::new(4), Lsn::new(3)));
    assert_eq!(wal.bytes_written(), 64 + 56 + 64 + 72);

    let disk = disk.crash(Crash::LoseUnsynced);
    let examined = look(&disk, 0).unwrap();
    assert_eq!((examined.node(), examined.last(), examined.torn()), (77, Lsn::new(3), None));
    let expected: [(u64, &[u8]); 3] = [(1, b"a"), (2, b""), (3, b"ccc")];
    let expected = expected.map(|(lsn, payload)| (lsn, payload.to_vec()));
    assert_eq!(replayed(&examined), expected);
    let mut wal = examined.finish().unwrap();
    assert_eq!((wal.last(), wal.durable()), (Lsn::new(3), Lsn::new(3)));
    append(&mut wal, &[b"d"]).unwrap();
    wal.sync().unwrap();
    let (seen, _) = finish(&disk.crash(Crash::LoseUnsynced), 2);
    assert_eq!(seen, [(3, b"ccc".to_vec()), (4, b"d".to_vec())]);
}

#[test]
fn an_append_is_one_write_and_a_sync_is_one_sync() {
    use crate::disk::sim::Op;
    let disk = new_disk();
    let mut wal = create(&disk);
    let before = [Op::Write, Op::Sync, Op::SyncDir].map(|op| disk.count(op));
    append(&mut wal, &[b"a", b"b", b"c"]).unwrap();
    wal.sync().unwrap();
    wal.sync().unwrap();
    append(&mut wal, &[]).unwrap();
    let after = [Op::Write, Op::Sync, Op::SyncDir].map(|op| disk.count(op));
    assert_eq!([after[0] - before[0], after[1] - before[1], after[2] - before[2]], [1, 1, 0]);
}

#[test]
fn a_new_log_is_empty_and_is_not_made_over_an_old_one() {
    let disk = new_disk();
    assert!(look(&disk, 0).is_err(), "no folder");
    drop(create(&disk));
    let again = Wal::create(arc(&disk), Path::new(DIR), WE, SMALL);
    assert!(matches!(again, Err(WalError::Exists { .. })));
    let (seen, wal) = finish(&disk.crash(Crash::LoseUnsynced), 0);
    assert!(seen.is_empty() && wal.last() == Lsn::ZERO);
}

#[test]
fn an_empty_folder_is_no_log() {
    let disk = new_disk();
    disk.create_dir(Path::new(DIR)).unwrap();
    assert!(matches!(look(&disk, 0), Err(WalError::Missing { .. })));
}

#[test]
fn creation_survives_a_power_cut_at_every_step_or_can_be_done_again() {
    let changes = {
        let disk = new_disk();
        let before = disk.changes();
        create(&disk);
        disk.changes() - before
    };
    for cut in 0..=changes {
        for seed in 0..10 {
            let disk = new_disk();
            disk.cut_power_after(cut);
            let done = Wal::create(arc(&disk), Path::new(DIR), WE, SMALL).is_ok();
            let disk = disk.crash(Crash::Random { seed });
            match look(&disk, 0) {
                Ok(examined) => assert_eq!(examined.finish().unwrap().last(), Lsn::ZERO),
                Err(WalError::Missing { .. } | WalError::Io { .. }) if !done => {
                    create(&disk);
                }
                Err(other) => panic!("cut {cut}, seed {seed}: {other}"),
            }
        }
    }
}

#[test]
fn shards_share_the_log_and_keep_their_own_indexes() {
    let disk = new_disk();
    let mut wal = create(&disk);
    let entry = |shard, index| Entry { shard, term: 1, index, payload: b"x" };
    wal.append(&[entry(0, 5), entry(1, 1), entry(0, 6), entry(1, 2)]).unwrap();
    wal.sync().unwrap();
    let examined = look(&disk.crash(Crash::LoseUnsynced), 0).unwrap();
    let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut note = |record: Record<'_>| {
        seen.entry(record.shard).or_default().push(record.index);
        Ok::<(), WalError>(())
    };
    examined.replay(&mut note).unwrap();
    assert_eq!(seen, BTreeMap::from([(0, vec![5, 6]), (1, vec![1, 2])]));
    let mut wal = examined.finish().unwrap();
    wal.append(&[entry(1, 3), entry(0, 7)]).unwrap();
    // A new leader may replace entries that were never committed.
    wal.append(&[Entry { shard: 1, term: 2, index: 2, payload: b"y" }]).unwrap();
}

#[test]
#[should_panic(expected = "does not follow the one before of shard 3")]
fn an_index_left_out_is_a_mistake_of_ours() {
    let mut wal = create(&new_disk());
    let entry = |index| Entry { shard: 3, term: 1, index, payload: b"x" };
    wal.append(&[entry(1), entry(3)]).unwrap();
}

#[test]
fn a_roll_makes_the_full_segment_durable_first() {
    let disk = new_disk();
    let mut wal = create(&disk);
    append(&mut wal, &[&[1; 3000], &[2; 3000]]).unwrap();
    assert_eq!(wal.durable(), Lsn::new(1), "the first segment was full after one record");
    let (seen, wal) = finish(&disk.crash(Crash::LoseUnsynced), 0);
    assert_eq!(seen, [(1, vec![1; 3000])]);
    drop(wal);
}

#[test]
fn a_record_larger_than_a_segment_gets_its_own() {
    let disk = new_disk();
    let mut wal = create(&disk);
    wal.spare_job().unwrap().run().unwrap();
    append(&mut wal, &[b"small", &[7; 20_000], b"after", &[8; 9000], &[9; 100]]).unwrap();
    wal.sync().unwrap();
    let disk = disk.crash(Crash::LoseUnsynced);
    let (seen, mut wal) = finish(&disk, 0);
    let lens: Vec<usize> = seen.iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(lens, [5, 20_000, 5, 9000, 100]);
    wal.free_through(Lsn::new(5));
    while let Some(job) = wal.spare_job() {
        job.run().unwrap();
    }
    let lens: Vec<usize> = disk.files().values().map(Vec::len).collect();
    // The second, too small for the large record and left empty; the active one; the spare, which
    // was the first. The large one is gone.
    assert_eq!(lens, [8192, 16_384, 8192]);
    append(&mut wal, &[&[10; 4000]]).unwrap();
    wal.spare_job().unwrap().run().unwrap();
    assert!(!disk.files().contains_key(&segment_file(2)), "the empty one is recycled too");
    finish(&disk.crash(Crash::LoseUnsynced), 5);
}

#[test]
fn a_checkpoint_frees_whole_segments_and_never_the_last_durable_record() {
    let disk = new_disk();
    let mut wal = create(&disk);
    for n in 0..6 {
        append(&mut wal, &[&[n; 3000]]).unwrap();
    }
    assert_eq!((wal.last(), wal.durable()), (Lsn::new(6), Lsn::new(5)));
    // Record 6 may be lost yet: the segment of record 5 has to stay.
    wal.free_through(Lsn::new(5));
    wal.spare_job().unwrap().run().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    let disk = disk.crash(Crash::LoseUnsynced);
    let (seen, mut wal) = finish(&disk, 5);
    assert!(seen.is_empty());
    assert_eq!(wal.last(), Lsn::new(5));
    append(&mut wal, &[b"six"]).unwrap();
    wal.sync().unwrap();
    assert_eq!(finish(&disk.crash(Crash::KeepAll), 5).0, [(6, b"six".to_vec())]);
}

#[test]
fn after_the_process_died_alone_what_was_found_is_made_durable() {
    let disk = new_disk();
    let mut wal = create(&disk);
    append(&mut wal, &[b"written, not synced"]).unwrap();
    let mut job = wal.spare_job();
    disk.fail_next(crate::disk::sim::Op::SyncDir, 1, crate::disk::sim::Failure::Io);
    assert!(job.take().unwrap().run().is_err(), "the spare has its name, but not for good");
    drop(wal);
    let (seen, mut wal) = finish(&disk, 0);
    assert_eq!((seen.len(), wal.durable()), (1, Lsn::new(1)));
    append(&mut wal, &[&[2; 4000]]).unwrap();
    wal.sync().unwrap();
    assert_eq!(segment_file(2), *disk.files().last_key_value().unwrap().0);
    let (seen, _) = finish(&disk.crash(Crash::LoseUnsynced), 1);
    assert_eq!(seen, [(2, vec![2; 4000])]);

    let disk = new_disk();
    append(&mut create(&disk), &[b"written, not synced"]).unwrap();
    drop(finish(&disk, 0));
    assert_eq!(finish(&disk.crash(Crash::LoseUnsynced), 0).0.len(), 1);
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_before_it_is_believed() {
    let disk = new_disk();
    let mut wal = create(&disk);
    append(&mut wal, &[b"durable"]).unwrap();
    wal.sync().unwrap();
    append(&mut wal, &[b"its sync fails", &[7; 3000]]).unwrap();
    disk.fail_next(crate::disk::sim::Op::Sync, 1, crate::disk::sim::Failure::Io);
    wal.sync().unwrap_err();
    drop(wal);
    // The machine goes on: the bytes are there to be read, and no sync will ever write them.
    let (seen, mut wal) = finish(&disk, 0);
    assert_eq!((seen.len(), wal.durable()), (3, Lsn::new(3)));
    append(&mut wal, &[b"vouches for all before it", &[8; 4000]]).unwrap();
    wal.sync().unwrap();
    assert_eq!(finish(&disk.crash(Crash::LoseUnsynced), 0).0.len(), 5);
}

#[test]
#[should_panic(expected = "which is not durable")]
fn a_checkpoint_must_not_run_ahead_of_the_log() {
    let mut wal = create(&new_disk());
    append(&mut wal, &[b"x"]).unwrap();
    wal.free_through(Lsn::new(1));
}

#[test]
fn files_it_does_not_know_are_reported_and_left() {
    let disk = new_disk();
    drop(create(&disk));
    for name in ["notes.txt", "1.wal", "0000000000000000.wal", "0000000000000001.wal.bak"] {
        disk.open(&Path::new(DIR).join(name), Open::Create).unwrap();
    }
    disk.open(&Path::new(DIR).join("0000000000000002.5.new"), Open::Create).unwrap();
    let examined = look(&disk, 0).unwrap();
    let names: Vec<_> = examined.unknown().iter().map(|p| p.file_name().unwrap()).collect();
    let expected = ["0000000000000000.wal", "0000000000000001.wal.bak", "1.wal", "notes.txt"];
    assert_eq!(names, expected);
    examined.finish().unwrap();
    assert_eq!(disk.files().len(), 5, "only the interrupted preparation is removed");
}
