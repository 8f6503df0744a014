//! What stands in the way of publishing while the disk is full.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::proto::{ErrorCode, WireError};

/// Who found that there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// Housekeeping: less is free than `storage.min_free` keeps.
    Reserve,
    /// The write-ahead log: there is no room, or no file descriptor, for its next segment. What it has
    /// left is for acknowledgements.
    Wal,
    /// A topic's file could not be written, for want of room or of file descriptors. Its messages
    /// are safe in the write-ahead log.
    Topic {
        /// The shard that could not.
        shard: u32,
    },
}

impl Full {
    fn bit(self) -> u64 {
        match self {
            Full::Reserve => 1,
            Full::Wal => 2,
            // A process has a handful of shards.
            Full::Topic { shard } => 4 << (shard % 60),
        }
    }
}

/// Whether publishing is possible: told by whoever writes, asked for every letter. Everything else
/// goes on: acknowledgements, deliveries and reading make room, and need little.
#[derive(Debug, Default)]
pub struct PublishGate(AtomicU64);

impl PublishGate {
    /// Says whether there is room. What changes is logged, and returned.
    pub fn set(&self, full: Full, is_full: bool) -> bool {
        let bit = full.bit();
        let before = if is_full {
            self.0.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.0.fetch_and(!bit, Ordering::Relaxed)
        };
        let changed = (before & bit != 0) != is_full;
        if changed && is_full {
            tracing::error!(event = "disk_full", what = ?full,
                "the disk is full: publishing is refused until there is room again");
        } else if changed {
            tracing::info!(event = "disk_has_room", what = ?full, "the disk has room again");
        }
        changed
    }

    /// Why nothing can be published now, or `None`.
    pub fn refusal(&self) -> Option<WireError> {
        let bits = self.0.load(Ordering::Relaxed);
        (bits != 0).then(|| {
            let text = if bits == Full::Reserve.bit() {
                "the disk has less room than storage.min_free keeps free"
            } else {
                "the disk is full"
            };
            WireError::new(ErrorCode::DiskFull, text).with("retry_after", "1s")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_is_possible_when_everybody_has_room_again() {
        let gate = PublishGate::default();
        assert_eq!(gate.refusal(), None);
        assert!(gate.set(Full::Reserve, true));
        assert!(!gate.set(Full::Reserve, true), "it is known already");
        assert!(gate.refusal().unwrap().to_string().contains("storage.min_free"));
        gate.set(Full::Topic { shard: 0 }, true);
        gate.set(Full::Topic { shard: 1 }, true);
        gate.set(Full::Reserve, false);
        let refusal = gate.refusal().unwrap();
        assert_eq!(refusal.code(), ErrorCode::DiskFull);
        assert!(refusal.to_string().contains("retry_after=1s"), "{refusal}");
        gate.set(Full::Topic { shard: 1 }, false);
        assert!(gate.refusal().is_some(), "the other shard has none");
        gate.set(Full::Topic { shard: 0 }, false);
        assert_eq!(gate.refusal(), None);
    }
}
