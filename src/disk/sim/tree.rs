//! The folders: what they hold, what of it is durable, and the changes that lie between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex};

use super::Crash;
use super::faults::Rng;
use super::file::Contents;
use crate::disk::Space;

pub(super) struct Tree {
    /// By path without a leading slash; the root is "".
    pub(super) dirs: BTreeMap<String, Dir>,
    pub(super) locked: BTreeSet<String>,
    pub(super) space: Space,
}

#[derive(Default)]
pub(super) struct Dir {
    pub(super) live: BTreeMap<String, Entry>,
    pub(super) durable: BTreeMap<String, Entry>,
    pub(super) pending: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Entry {
    Dir,
    File(Arc<Node>),
}

/// A file, under whatever name.
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) contents: Mutex<Contents>,
}

/// A change of a folder that is not durable yet.
pub(super) enum Change {
    Link {
        name: String,
        entry: Entry,
        moved_by: u64,
    },
    Rename {
        from: String,
        to: String,
        entry: Entry,
    },
    Unlink {
        name: String,
    },
    /// The other half of a `Link` into another folder.
    MoveOut {
        name: String,
        to: String,
        moved_by: u64,
    },
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Change::Link { name, entry, .. } => {
                names.insert(name.clone(), entry.clone());
            }
            Change::Rename { from, to, entry } => {
                names.remove(from);
                forget_other_names(names, entry);
                names.insert(to.clone(), entry.clone());
            }
            Change::Unlink { name } | Change::MoveOut { name, .. } => {
                names.remove(name);
            }
        }
    }
}

/// A file has one name; a later rename that survives without an earlier one must not give it two.
fn forget_other_names(names: &mut BTreeMap<String, Entry>, entry: &Entry) {
    if let Entry::File(node) = entry {
        names.retain(|_, other| !matches!(other, Entry::File(o) if o.id == node.id));
    }
}

impl Dir {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    pub(super) fn make_durable(&mut self, count: usize) {
        for change in self.pending.drain(..count) {
            change.apply(&mut self.durable);
        }
    }
}

impl Tree {
    pub(super) fn dir(&mut self, key: &str) -> io::Result<&mut Dir> {
        self.dirs.get_mut(key).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn node(&mut self, key: &str) -> io::Result<Arc<Node>> {
        let (dir, name) = split(key);
        match self.dir(dir)?.live.get(name) {
            Some(Entry::File(node)) => Ok(Arc::clone(node)),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The name of a file, unless it was removed.
    pub(super) fn name(&self, node: &Arc<Node>) -> Option<String> {
        let is_it = |entry: &Entry| matches!(entry, Entry::File(other) if other.id == node.id);
        self.dirs.iter().find_map(|(key, dir)| {
            let (name, _) = dir.live.iter().find(|(_, entry)| is_it(entry))?;
            Some(if key.is_empty() { name.clone() } else { format!("{key}/{name}") })
        })
    }

    /// What each folder holds after a crash.
    pub(super) fn names_after(
        &self,
        how: Crash,
        rng: &mut Rng,
    ) -> BTreeMap<String, BTreeMap<String, Entry>> {
        let mut lost_moves = BTreeSet::new();
        let mut survivors: BTreeMap<&String, Vec<bool>> = BTreeMap::new();
        for (key, dir) in &self.dirs {
            let kept = rng.subset(how, dir.pending.len());
            for (change, kept) in dir.pending.iter().zip(&kept) {
                if let Change::Link { moved_by, .. } = change
                    && !kept
                {
                    lost_moves.insert(*moved_by);
                }
            }
            survivors.insert(key, kept);
        }
        let mut names = BTreeMap::new();
        for (key, dir) in &self.dirs {
            let mut entries = dir.durable.clone();
            for (change, kept) in dir.pending.iter().zip(&survivors[key]) {
                let kept = match change {
                    // One transaction of the file system's journal with the other half.
                    Change::MoveOut { moved_by, .. } => !lost_moves.contains(moved_by),
                    Change::Link { .. } | Change::Rename { .. } | Change::Unlink { .. } => *kept,
                };
                if kept {
                    change.apply(&mut entries);
                }
            }
            names.insert(key.clone(), entries);
        }
        names
    }
}

/// Whether all folders above `key` are there.
pub(super) fn reachable(names: &BTreeMap<String, BTreeMap<String, Entry>>, key: &str) -> bool {
    let mut key = key;
    while !key.is_empty() {
        let (above, name) = split(key);
        if !names.get(above).is_some_and(|dir| matches!(dir.get(name), Some(Entry::Dir))) {
            return false;
        }
        key = above;
    }
    true
}

/// Path components joined by `/`, without a leading one.
pub(super) fn key(path: &Path) -> io::Result<String> {
    let mut key = String::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
                if !key.is_empty() {
                    key.push('/');
                }
                key.push_str(name);
            }
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidFilename.into());
            }
        }
    }
    Ok(key)
}

/// The folder and the name in it.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}
