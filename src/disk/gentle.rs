//! A disk that is read, and freed, a little at a time, so that others who use it do not wait long.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{DirEntry, Disk, File, Lock, Open, Space};
use crate::time::Moment;

/// How much is read at a time. What others want of the disk waits for no more than that, and for what
/// the system reads ahead.
const PIECE_BYTES: usize = 128 << 10;

/// A piece that takes longer came from the disk, not from the system's memory.
const FROM_MEMORY: Duration = Duration::from_micros(150);

/// So many times as long as it took the disk to read or to free a piece is left to others.
const REST_TIMES: u32 = 3;

/// How much of a file is freed at a time.
const FREED_BYTES: u64 = 1 << 20;

/// A reader without a pause held up syncs by 25 to 60 ms, one with pauses by 8 to 19; to remove a file of
/// 64 MiB at once took 6 to 28 ms, and a piece of it 0.2 to 0.4.
#[derive(Debug)]
pub struct Gentle(pub Arc<dyn Disk>);

impl Disk for Gentle {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(GentleFile(self.0.open(path, how)?)))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        // By another name somebody keeps all of it. Whatever hinders this says so again below.
        if self.0.is_only_name(path).is_ok_and(|is_only| is_only)
            && let Ok(file) = self.0.open(path, Open::Write)
        {
            let mut len = file.len()?;
            while len > FREED_BYTES {
                let begin = Moment::read();
                len -= FREED_BYTES;
                file.truncate(len)?;
                thread::sleep(Moment::read().since(begin) * REST_TIMES);
            }
        }
        self.0.remove(path)
    }
    fn is_only_name(&self, path: &Path) -> io::Result<bool> {
        self.0.is_only_name(path)
    }

    fn hold_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.hold_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_all(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.0.lock(path)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }
}

#[derive(Debug)]
struct GentleFile(Arc<dyn File>);

impl File for GentleFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut got = 0;
        for piece in buf.chunks_mut(PIECE_BYTES) {
            let begin = Moment::read();
            let count = self.0.read_at(piece, at + got as u64)?;
            got += count;
            let took = Moment::read().since(begin);
            if took > FROM_MEMORY {
                thread::sleep(took * REST_TIMES);
            }
            if count < piece.len() {
                break;
            }
        }
        Ok(got)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_at(bytes, at)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::os::OsDisk;
    use crate::disk::sim::SimDisk;

    #[test]
    fn a_file_is_removed_whatever_its_length() {
        let disk = SimDisk::new();
        let gentle = Gentle(Arc::new(disk.clone()));
        for len in [0, 1, FREED_BYTES, 3 * FREED_BYTES + 5] {
            let file = gentle.open(Path::new("/file"), Open::Create).unwrap();
            file.write_at(&vec![1; usize::try_from(len).unwrap()], 0).unwrap();
            gentle.remove(Path::new("/file")).unwrap();
            assert!(disk.files().is_empty(), "{len}");
        }
        let again = gentle.remove(Path::new("/file")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::NotFound);
    }

    /// A copy made with `cp -al` lost all but a mebibyte of the file, too.
    #[test]
    fn a_file_that_has_another_name_keeps_all_it_has_under_that() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let disk = Arc::new(OsDisk::default());
        let gentle = Gentle(Arc::clone(&disk) as Arc<dyn Disk>);
        let len = 3 * FREED_BYTES + 5;
        for link in [fs::hard_link as fn(_, _) -> _, std::os::unix::fs::symlink] {
            let file = gentle.open(&at("copy"), Open::Create).unwrap();
            file.truncate(len).unwrap();
            link(at("copy"), at("file")).unwrap();
            gentle.remove(&at("file")).unwrap();
            let left = disk.list(folder.path()).unwrap();
            assert_eq!(
                left,
                [DirEntry { name: "copy".to_owned(), is_dir: false, len, is_link: false }]
            );
        }
    }

    #[test]
    fn pieces_make_the_whole_and_no_more_is_read_than_there_is() {
        let bytes: Vec<u8> = (0u8..251).cycle().take(3 * PIECE_BYTES + 5).collect();
        let disk = Gentle(Arc::new(SimDisk::new()));
        let file = disk.open(Path::new("/file"), Open::Create).unwrap();
        file.write_at(&bytes, 0).unwrap();
        for (at, len) in [(0, bytes.len()), (7, 2 * PIECE_BYTES), (9, PIECE_BYTES), (11, 4 << 17)] {
            let mut buf = vec![0; len];
            let got = file.read_at(&mut buf, at as u64).unwrap();
            assert_eq!(got, len.min(bytes.len() - at), "{len} at {at}");
            assert!(buf[..got] == bytes[at..at + got], "{len} at {at}");
        }
    }
}
