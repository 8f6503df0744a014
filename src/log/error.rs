//! What can go wrong with a topic's files.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::ids::{Offset, TopicName};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk says no.
    #[error("failed to use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A file or folder could not be synced: nothing is known about what is on the disk of it, and
    /// the process has to end, whatever the reason.
    #[error("failed to sync {}: {source}", path.display())]
    Sync {
        /// The file or folder.
        path: PathBuf,
        /// What the disk says.
        source: io::Error,
    },
    /// One message is not what was written; reading can go on behind it.
    #[error("message {offset} of topic {topic} is damaged: {} at byte {at}: {why}", path.display())]
    Corrupt {
        /// The topic.
        topic: TopicName,
        /// The message.
        offset: Offset,
        /// The file.
        path: PathBuf,
        /// Where the line begins.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Messages that were wanted are no longer kept; reading goes on with the first that is.
    #[error("messages {offset} to {} of topic {topic} are no longer kept", first.prev())]
    Gone {
        /// The topic.
        topic: TopicName,
        /// The first of them.
        offset: Offset,
        /// The first message that is kept.
        first: Offset,
    },
    /// The files are not what the checkpoint says.
    #[error("{} is damaged at byte {at}: {why}; run wiber check", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
}

impl LogError {
    /// Whether stored data are damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, LogError::Corrupt { .. } | LogError::Damaged { .. })
    }

    /// What the disk said, if that is why.
    pub fn system(&self) -> Option<&io::Error> {
        match self {
            LogError::Io { source, .. } | LogError::Sync { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether there was no room or no file descriptor for something, nothing is in doubt, and it may be
    /// tried again.
    pub fn is_shortage(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if disk::is_shortage(source))
    }

    pub(super) fn sync(path: &Path, source: io::Error) -> Self {
        LogError::Sync { path: path.to_owned(), source }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        LogError::Io { path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, at: u64, why: impl Into<String>) -> Self {
        LogError::Damaged { path: path.to_owned(), at, why: why.into() }
    }
}
