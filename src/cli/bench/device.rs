//! What a disk was given to write, as Linux tells it. What it says of one process counts whole
//! folios of the page cache, which may be a hundred times of what is written.

use std::path::{Path, PathBuf};

use super::process::read;

/// The kernel counts in these, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// The disk that holds a directory, or the part of it that does.
#[derive(Clone, Debug)]
pub(super) struct Device(PathBuf);

impl Device {
    /// `None` if there is no such disk, as for a directory in memory.
    pub(super) fn of(dir: &Path) -> Option<Device> {
        let device = rustix::fs::stat(dir).ok()?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let device = Device(PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat")));
        device.written().is_some().then_some(device)
    }

    /// Bytes written to it since the machine started, by everyone.
    pub(super) fn written(&self) -> Option<u64> {
        sectors_written(&read(&self.0)?).map(|sectors| sectors * SECTOR_BYTES)
    }
}

fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_written_are_the_seventh_number() {
        let stat = "    8422        2   431642      925     7710    21373  1130472    12024\n";
        assert_eq!(sectors_written(stat), Some(1_130_472));
        assert_eq!(sectors_written(""), None);
    }
}
