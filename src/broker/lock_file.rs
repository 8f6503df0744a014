//! Who has a data directory: the file `.wiber/LOCK`.
//!
//! The system's lock on it says whether somebody has the directory. Its contents say who, unless that
//! is a broker: a line for people, and for a broker that starts. A check that only reads is a guest,
//! and so is a history: a broker that finds one writes another line behind it, and the guest lets it in.

use std::io;
use std::sync::Arc;

use super::layout::Layout;
use crate::disk::{self, Disk, File, Lock, Open};

/// Behind the line of who has the directory: a broker waits for it.
const WANTED: &[u8] = b"a broker waits for it\n";

/// Who has, or wants, a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Holder {
    /// Serves it.
    #[error("a wiber broker serves this directory")]
    Broker,
    /// Reads all of it, and lets a broker in.
    #[error("a wiber check reads this directory")]
    Check,
    /// Mends it.
    #[error("a wiber check --repair works on this directory")]
    Repair,
    /// Reads a topic, and lets a broker in.
    #[error("a wiber history reads this directory")]
    History,
}

impl Holder {
    /// What stands in the file; nothing for a broker.
    fn line(self) -> &'static [u8] {
        match self {
            Holder::Broker => b"",
            Holder::Check => b"wiber check\n",
            Holder::Repair => b"wiber check --repair\n",
            Holder::History => b"wiber history\n",
        }
    }

    fn of(line: &[u8]) -> Holder {
        let others = [Holder::Check, Holder::Repair, Holder::History];
        others.into_iter().find(|holder| line == holder.line()).unwrap_or(Holder::Broker)
    }
}

/// A directory that nobody else has; until it is dropped, or the process ends. If it is dropped its line
/// goes away, unless a broker waits: that one clears it.
pub struct Held {
    #[expect(dead_code, reason = "held, not read")]
    lock: Box<dyn Lock>,
    file: Arc<dyn File>,
    line: u64,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Held {
    /// Whether a broker waits for it.
    pub fn is_wanted(&self) -> bool {
        self.file.len().is_ok_and(|len| len > self.line)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.line > 0 && !self.is_wanted() {
            // Left there, it is cleared by the next who takes the lock.
            self.file.truncate(0).ok();
        }
    }
}

/// Why a directory could not be had.
#[derive(Debug)]
pub enum Refused {
    /// Somebody else has it.
    Held(Holder),
    /// The file can't be locked or written.
    Io(io::Error),
}

/// Takes the directory.
///
/// # Errors
/// [`Refused`].
pub fn take(disk: &dyn Disk, layout: &Layout, holder: Holder) -> Result<Held, Refused> {
    let path = layout.lock();
    let lock = match disk.lock(&path) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(Refused::Held(held_by(disk, layout).0));
        }
        lock => lock.map_err(Refused::Io)?,
    };
    let file = disk.open(&path, Open::Write).map_err(Refused::Io)?;
    // Whoever had it before may have been killed, and has left its line.
    if file.len().map_err(Refused::Io)? > 0 {
        file.truncate(0).map_err(Refused::Io)?;
    }
    let line = holder.line();
    if !line.is_empty() {
        file.write_at(line, 0).map_err(Refused::Io)?;
    }
    Ok(Held { lock, file, line: line.len() as u64 })
}

/// Who has the directory, for those who don't want it. Whoever does may be refused at this moment.
pub fn look(disk: &dyn Disk, layout: &Layout) -> Option<Holder> {
    match disk.lock(&layout.lock()) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(held_by(disk, layout).0),
        _ => None,
    }
}

/// A broker wants the directory that a guest has.
///
/// # Errors
/// What the disk says.
pub fn ask(disk: &dyn Disk, layout: &Layout) -> io::Result<()> {
    let (_, line) = held_by(disk, layout);
    disk.open(&layout.lock(), Open::Write)?.write_at(WANTED, line)
}

/// Who has it, by the file, and how long that line is.
fn held_by(disk: &dyn Disk, layout: &Layout) -> (Holder, u64) {
    let bytes = disk::read_all(disk, &layout.lock()).unwrap_or_default();
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    (Holder::of(line), line.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn whoever_has_it_is_known_and_a_guest_hears_that_a_broker_waits() {
        let disk = SimDisk::new();
        let layout = Layout::new(Path::new("/srv"));
        disk.create_dir(&layout.meta).unwrap();
        let holders = [Holder::Repair, Holder::Broker, Holder::History, Holder::Check];
        for holder in holders {
            assert_eq!(look(&disk, &layout), None, "before {holder:?}");
            let held = take(&disk, &layout, holder).unwrap();
            assert_eq!(look(&disk, &layout), Some(holder));
            for other in holders {
                let refused = take(&disk, &layout, other).unwrap_err();
                assert!(matches!(refused, Refused::Held(by) if by == holder), "{refused:?}");
            }
            assert!(!held.is_wanted());
            ask(&disk, &layout).unwrap();
            assert!(held.is_wanted());
            let refused = take(&disk, &layout, Holder::Broker).unwrap_err();
            assert!(matches!(refused, Refused::Held(by) if by == holder), "{refused:?}");
        }
        let held = take(&disk, &layout, Holder::Check).unwrap();
        assert!(!held.is_wanted(), "what was asked of others is forgotten");
        drop(held);
        let left = disk::read_all(&disk, &layout.lock()).unwrap();
        assert!(left.is_empty(), "nobody has it");
    }
}
