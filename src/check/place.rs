//! Whether a directory is one of wiber's at all. Nothing is damaged in one that is not, so that a path with
//! a mistake in it would be whole for ever.

use std::io;
use std::path::{Path, PathBuf};

use super::{CheckError, Finding, Kind, Level, Mend, Report};
use crate::broker::layout::Layout;
use crate::disk::{Disk, Open};
use crate::log;

/// So many folders are looked into for one that may be meant.
const LOOKS_MAX: usize = 1000;

/// Fails if the directory has neither files of topics nor a folder `.wiber`.
///
/// # Errors
/// [`CheckError::Elsewhere`], or [`CheckError::Log`] if it can't be read.
pub fn ensure_data_dir(disk: &dyn Disk, dir: &Path) -> Result<(), CheckError> {
    let meta = disk.list(&Layout::new(dir).meta);
    // What this user may not look into is there.
    let is_none = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    };
    let is_served = !meta.is_err_and(|error| is_none(&error));
    if is_served || !log::scan(disk, dir)?.topics.is_empty() {
        return Ok(());
    }
    Err(CheckError::Elsewhere { dir: dir.to_owned(), below: below(disk, dir) })
}

/// A data directory in this one.
fn below(disk: &dyn Disk, dir: &Path) -> Option<PathBuf> {
    let entries = disk.list(dir).unwrap_or_default();
    let folders = entries.into_iter().filter(|entry| entry.is_dir).take(LOOKS_MAX);
    let mut paths = folders.map(|folder| dir.join(folder.name));
    paths.find(|path| disk.open(&Layout::new(path).node(), Open::Read).is_ok())
}

/// Tells that no broker has served the directory, which is one, or that this is not known any more.
pub(super) fn note_unserved(layout: &Layout, report: &mut Report) {
    let what = if report.topics == 0 {
        "it is not there: no broker has served this directory yet"
    } else {
        "it is not there: no broker has served this directory, or its .wiber was taken away; the next \
         start takes the messages over, and groups begin anew"
    };
    let (level, kind, mend) = (Level::Note, Kind::Identity, Mend::Nothing);
    report.add(Finding { level, kind, file: layout.node(), byte: None, what: what.into(), mend });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::{Failure, Op, SimDisk};

    #[test]
    fn a_directory_whose_dot_wiber_can_not_be_looked_into_is_one() {
        let (disk, dir) = (SimDisk::new(), Path::new("/data"));
        disk.create_dir(dir).unwrap();
        assert!(matches!(ensure_data_dir(&disk, dir), Err(CheckError::Elsewhere { .. })));
        disk.fail_next(Op::List, 1, Failure::Other(rustix::io::Errno::ACCESS));
        assert!(ensure_data_dir(&disk, dir).is_ok());
    }
}
