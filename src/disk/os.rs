//! Real files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::{DirEntry, Disk, File, Lock, Open, Space};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile(fs::File);

/// Held while the daemon runs; the operating system releases it when the process ends, however.
#[expect(dead_code, reason = "the file is the lock")]
struct OsLock(fs::File);

impl Lock for OsLock {}

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::Write => {
                options.write(true);
            }
            Open::Create => {
                options.write(true).create(true);
            }
        }
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A link is what it leads to: that is opened by its name. One that leads nowhere is there, too.
            let meta = match fs::metadata(entry.path()).or_else(|_| entry.metadata()) {
                Ok(meta) => meta,
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
                Err(other) => return Err(other),
            };
            // No file of ours has a name that is no text.
            let name = entry.file_name().to_string_lossy().into_owned();
            let len = if meta.is_dir() { 0 } else { meta.len() };
            entries.push(DirEntry { name, is_dir: meta.is_dir(), len });
        }
        entries.sort();
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn is_only_name(&self, path: &Path) -> io::Result<bool> {
        let meta = fs::symlink_metadata(path)?;
        Ok(meta.is_file() && meta.nlink() == 1)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    #[cfg(target_os = "linux")]
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        // Linux tells of writes that failed since version 5.8 only: man 2 syncfs.
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version < (5, 8) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(rustix::fs::syncfs(fs::File::open(dir)?)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self, _dir: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut options = fs::OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = match options.open(path) {
            // To see whether somebody has it, it need not be written to.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                fs::OpenOptions::new().read(true).open(path)?
            }
            file => file?,
        };
        file.try_lock().map_err(|refused| match refused {
            fs::TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Box::new(OsLock(file)))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Space { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
    }
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read_at(&mut buf[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A device of the system that was written to, open until this is dropped.
#[derive(Debug)]
pub struct HeldDevice {
    _file: fs::File,
}

/// Writes to a device of the system, and keeps it open.
///
/// # Errors
/// What the system says: there is no such device, or this process may not write to it.
pub fn hold_device(device: &Path, bytes: &[u8]) -> io::Result<HeldDevice> {
    let mut file = fs::File::options().write(true).open(device)?;
    file.write_all(bytes)?;
    Ok(HeldDevice { _file: file })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::disk::{read_all, replace};

    #[test]
    fn a_lock_is_one_holders_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        let held = OsDisk.lock(&path).unwrap();
        assert_eq!(OsDisk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(OsDisk.lock(&path).is_ok());
    }

    #[test]
    fn replace_leaves_the_new_contents_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for bytes in [&b"a longer first one"[..], b"second"] {
            replace(&OsDisk, &path, bytes).unwrap();
            assert_eq!(read_all(&OsDisk, &path).unwrap(), bytes);
        }
        assert_eq!(OsDisk.list(folder.path()).unwrap().len(), 1);
    }

    /// The length was that of the link itself, and a start cut the file that it leads to.
    #[test]
    fn a_link_is_listed_as_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("file"), "a message").unwrap();
        let link = |to: &Path, name| symlink(to, folder.path().join(name)).unwrap();
        link(&other.path().join("file"), "1");
        link(other.path(), "2");
        link(Path::new("gone"), "3");
        link(Path::new("4"), "4");
        let entry = |name: &str, is_dir, len| DirEntry { name: name.to_owned(), is_dir, len };
        // What leads nowhere is there all the same: it must not be taken for a free name.
        let listed =
            [entry("1", false, 9), entry("2", true, 0), entry("3", false, 4), entry("4", false, 1)];
        assert_eq!(OsDisk.list(folder.path()).unwrap(), listed);
    }

    #[test]
    fn space_is_what_the_file_system_has() {
        let folder = tempfile::tempdir().unwrap();
        let space = OsDisk.space(folder.path()).unwrap();
        assert!(space.free <= space.total && space.total > 0);
    }
}
