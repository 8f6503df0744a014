//! The folders of a data directory.

use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The data directory.
    pub data: PathBuf,
    /// `.wiber`
    pub meta: PathBuf,
}

impl Layout {
    /// The folders below `data`.
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), meta: data.join(".wiber") }
    }

    /// The write-ahead log.
    pub fn wal(&self) -> PathBuf {
        self.meta.join("wal")
    }

    /// Checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.meta.join("checkpoint")
    }

    /// What was put aside.
    pub fn quarantine(&self) -> PathBuf {
        self.meta.join("quarantine")
    }

    /// What is no longer needed, while it is removed.
    pub fn trash(&self) -> PathBuf {
        self.meta.join("trash")
    }

    /// Who has the directory.
    pub fn lock(&self) -> PathBuf {
        self.meta.join("LOCK")
    }

    /// The identity.
    pub fn node(&self) -> PathBuf {
        self.meta.join("node.json")
    }
}
