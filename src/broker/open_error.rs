//! Why a data directory is not served.

use std::io;
use std::path::PathBuf;

use crate::log::LogError;
use crate::wal::WalError;

use super::casing::Clash;
use super::checkpoint::CheckpointError;
use super::lock_file::Holder;
use super::open::FORMAT;
use super::shard::ShardError;

/// Why a directory can't be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory can't be used at all.
    #[error("failed to use {}: {source}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Topics whose names differ in capital letters only would write to the same file.
    #[error(
        "failed to use {}: topic {} would share its file with {}, since this file system does not tell \
         capital letters from small ones", path.display(), clash.wanted, clash.taken
    )]
    FoldsCase {
        /// The directory.
        path: PathBuf,
        /// Which.
        clash: Clash,
    },
    /// A topic's file could not be made.
    #[error("failed to use {}: it is a folder, and has the name of a topic's file", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody else has it.
    #[error("failed to lock {}: {holder}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// Something in it is not what was written.
    #[error("{} is damaged: {why}; run wiber check", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A later version wrote it.
    #[error("{} has format {format}, and this version knows {FORMAT}; use a newer wiber", path.display())]
    Newer {
        /// The identity file.
        path: PathBuf,
        /// What it says.
        format: u32,
    },
    /// The write-ahead log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A topic's log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log's records could not be applied.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

impl OpenError {
    /// What the system said, if that is why.
    pub fn system(&self) -> Option<&io::Error> {
        match self {
            OpenError::Unusable { source, .. }
            | OpenError::Checkpoint(CheckpointError::Io { source, .. }) => Some(source),
            OpenError::Wal(WalError::Io { source, .. } | WalError::Shortage { source, .. }) => {
                Some(source)
            }
            OpenError::Log(error)
            | OpenError::Checkpoint(CheckpointError::Sync(error))
            | OpenError::Shard(ShardError::Log(error)) => error.system(),
            _ => None,
        }
    }

    /// Whether stored data are damaged, which no retry and no setting mends.
    pub fn is_damage(&self) -> bool {
        match self {
            OpenError::Damaged { .. } | OpenError::Checkpoint(CheckpointError::Damaged { .. }) => {
                true
            }
            OpenError::Wal(error) => error.is_damage(),
            OpenError::Log(error) | OpenError::Shard(ShardError::Log(error)) => error.is_damage(),
            OpenError::Shard(ShardError::Command(_)) => true,
            _ => false,
        }
    }
}
