//! Real files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirEntry, Disk, File, Lock, Open, Space};

/// The operating system's file system.
#[derive(Debug, Default)]
pub struct OsDisk {
    held: Mutex<BTreeMap<PathBuf, Arc<OpenDir>>>,
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    syncs: Syncs,
}

/// A folder that is open for its syncs.
#[derive(Debug)]
struct OpenDir {
    dir: fs::File,
    /// Of the folder.
    own: Syncs,
    /// Of its whole file system, whose failures Linux counts apart.
    #[cfg(target_os = "linux")]
    all: Syncs,
}

/// Syncs of what is open, one at a time. Linux tells it of a write that failed once: whoever else
/// syncs it, later or at the same time, has to hear of that too.
#[derive(Debug, Default)]
struct Syncs {
    has_failed: Mutex<bool>,
}

impl Syncs {
    fn run(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut has_failed = lock(&self.has_failed);
        if *has_failed {
            return Err(io::Error::other("a sync of it has failed before"));
        }
        sync().inspect_err(|_| *has_failed = true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while the daemon runs; the operating system releases it when the process ends, however.
#[expect(dead_code, reason = "the file is the lock")]
struct OsLock(fs::File);

impl Lock for OsLock {}

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        if how == Open::Read {
            ensure_file(path)?;
        }
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
        Ok(Arc::new(OsFile { file: options.open(path)?, syncs: Syncs::default() }))
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
            let is_link = entry.file_type()?.is_symlink();
            entries.push(DirEntry { name, is_dir: meta.is_dir(), len, is_link });
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

    fn hold_dir(&self, dir: &Path) -> io::Result<()> {
        let open = OpenDir::open(dir)?;
        lock(&self.held).insert(dir.to_owned(), Arc::new(open));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let open = self.dir(dir)?;
        open.own.run(|| open.dir.sync_all())
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        // Linux tells of writes that failed since version 5.8 only: man 2 syncfs.
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version < (5, 8) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let open = self.dir(dir)?;
        open.all.run(|| Ok(rustix::fs::syncfs(&open.dir)?))
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

impl OsDisk {
    /// The folder that is held, or one that is opened now.
    fn dir(&self, dir: &Path) -> io::Result<Arc<OpenDir>> {
        let held = lock(&self.held).get(dir).cloned();
        held.map_or_else(|| OpenDir::open(dir).map(Arc::new), Ok)
    }
}

impl OpenDir {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            dir: fs::File::open(dir)?,
            own: Syncs::default(),
            #[cfg(target_os = "linux")]
            all: Syncs::default(),
        })
    }
}

/// A pipe would be waited for until somebody writes to it, and a folder can be opened, but not read.
fn ensure_file(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is no file");
    kind.is_file().then_some(()).ok_or_else(no_file)
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.run(|| self.file.sync_data())
    }
}

/// A device of the system that was written to, open until this is dropped.
#[derive(Debug)]
pub struct HeldDevice {
    _file: fs::File,
}

/// What the system says of itself in one of its own files, such as those below `/sys`.
///
/// # Errors
/// What the system says: there is no such file, or it is no text.
pub fn system_text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
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
        let disk = OsDisk::default();
        let held = disk.lock(&path).unwrap();
        assert_eq!(disk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(disk.lock(&path).is_ok());
    }

    #[test]
    fn replace_leaves_the_new_contents_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let disk = OsDisk::default();
        for bytes in [&b"a longer first one"[..], b"second"] {
            replace(&disk, &path, bytes).unwrap();
            assert_eq!(read_all(&disk, &path).unwrap(), bytes);
        }
        assert_eq!(disk.list(folder.path()).unwrap().len(), 1);
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
        let entry = |name: &str, is_dir, len| DirEntry {
            name: name.to_owned(),
            is_dir,
            len,
            is_link: true,
        };
        // What leads nowhere is there all the same: it must not be taken for a free name.
        let listed =
            [entry("1", false, 9), entry("2", true, 0), entry("3", false, 4), entry("4", false, 1)];
        assert_eq!(OsDisk::default().list(folder.path()).unwrap(), listed);
    }

    #[test]
    fn space_is_what_the_file_system_has() {
        let folder = tempfile::tempdir().unwrap();
        let space = OsDisk::default().space(folder.path()).unwrap();
        assert!(space.free <= space.total && space.total > 0);
    }

    /// Opened anew for each sync, a folder's descriptor was not told of what had failed before, and of
    /// which somebody else had been told.
    #[test]
    fn a_folder_that_is_held_is_not_opened_again_to_be_synced() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, dir) = (OsDisk::default(), folder.path().join("data"));
        disk.create_dir(&dir).unwrap();
        disk.hold_dir(&dir).unwrap();
        disk.rename(&dir, &folder.path().join("elsewhere")).unwrap();
        disk.sync_dir(&dir).unwrap();
        if let Err(error) = disk.sync_all(&dir) {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
        let other = folder.path().join("other");
        assert_eq!(disk.sync_dir(&other).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn after_a_failed_sync_nobody_is_told_that_a_later_one_went_well() {
        let syncs = Syncs::default();
        syncs.run(|| Ok(())).unwrap();
        assert!(syncs.run(|| Err(io::ErrorKind::StorageFull.into())).is_err());
        let again = syncs.run(|| Ok(())).unwrap_err();
        assert_eq!(again.to_string(), "a sync of it has failed before");
        assert!(!crate::disk::is_shortage(&again), "it will not be better later");
    }
}
