//! A file system in memory that forgets what was not synced.
//!
//! ```text
//!            write, truncate            File::sync
//!   live ◀──────────────── caller ────────────────▶ durable     the same for the names in a folder,
//!    └── pending: what lies between the two, in order ──┘        with Disk::sync_dir
//!
//!   crash(how):  durable + none, all, or any part of what was pending  ──▶ the disk found afterwards
//! ```
//!
//! Invariants:
//! * What was synced survives every crash; what was not may survive in any part: some writes and
//!   not others, single 512-byte sectors of a write, a length without its contents.
//! * Names and contents are durable apart from each other, as POSIX has it: a synced file without a
//!   synced folder is gone.
//! * After a failed sync, the writes it was for are never made durable by a later one that succeeds.
//! * Deterministic: the same calls and the same seed give the same bytes.
//!
//! What it deliberately does not do: hard links, folders that are renamed or removed, permissions,
//! time, and a disk that lies about a sync.

mod faults;
mod file;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use faults::{Failure, Fault, Hit, Op};
use faults::{Faults, Rng};
use file::{Contents, SimFile};
use tree::{Change, Dir, Entry, Node, Tree, key, reachable, split};

use super::{DirEntry, Disk, File, Lock, Open, Space};

/// What the machine finds on its disk after a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// Only what was synced.
    LoseUnsynced,
    /// Everything (a process that was killed, on a machine that went on).
    KeepAll,
    /// What was synced, and any part of the rest.
    Random {
        /// Decides which part; the same seed, the same part.
        seed: u64,
    },
}

/// A simulated file system. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<World>,
}

/// What the disk and all handles to its files share.
struct World {
    tree: Mutex<Tree>,
    faults: Mutex<Faults>,
    dead: AtomicBool,
    unwatched: AtomicBool,
    next_id: AtomicU64,
    /// Held by whoever lets syncs wait.
    syncing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Counts an operation and says how it is to fail, if it is.
    fn begin(&self, op: Op, key: &str) -> io::Result<Option<Failure>> {
        if self.dead.load(Ordering::Acquire) {
            return Err(power_is_off());
        }
        if self.unwatched.load(Ordering::Acquire) {
            return Ok(None);
        }
        let mut faults = lock(&self.faults);
        match faults.begin(op, key) {
            Ok(failure) => Ok(failure),
            Err(faults::PowerCut) => {
                self.dead.store(true, Ordering::Release);
                Err(power_is_off())
            }
        }
    }

    /// A write to this file failed just now.
    fn name_hit(&self, node: &Arc<Node>) {
        let name = lock(&self.tree).name(node);
        name.into_iter().for_each(|name| lock(&self.faults).name_hit(name));
    }

    /// [`World::begin`] for an operation that is done wholly or not at all.
    fn begin_whole(&self, op: Op, key: &str) -> io::Result<()> {
        self.begin(op, key)?.map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// The tree, unless the power went off meanwhile.
    fn tree(&self) -> io::Result<MutexGuard<'_, Tree>> {
        let tree = lock(&self.tree);
        if self.dead.load(Ordering::Acquire) { Err(power_is_off()) } else { Ok(tree) }
    }

    fn new_node(&self, bytes: Vec<u8>) -> Arc<Node> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Arc::new(Node { id, contents: Mutex::new(Contents::durable(bytes)) })
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the simulated machine has no power")
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        let space = Space { free: 1 << 40, total: 1 << 40 };
        let dirs = BTreeMap::from([(String::new(), Dir::default())]);
        SimDisk { world: Arc::new(World::new(Tree { dirs, locked: BTreeSet::new(), space })) }
    }

    /// The disk as it is found after a power cut now. This one, its clones and every handle to one
    /// of its files give errors from here on. Faults and counts do not carry over.
    pub fn crash(&self, how: Crash) -> SimDisk {
        self.world.dead.store(true, Ordering::Release);
        self.copy(how)
    }

    /// The disk as [`SimDisk::crash`] would leave it; this one goes on.
    pub fn copy(&self, how: Crash) -> SimDisk {
        let tree = lock(&self.world.tree);
        let empty = Tree { dirs: BTreeMap::new(), locked: BTreeSet::new(), space: tree.space };
        let world = World::new(empty);
        let mut rng = Rng::new(if let Crash::Random { seed } = how { seed } else { 0 });
        let names = tree.names_after(how, &mut rng);
        let mut moved: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
        let mut dirs = BTreeMap::new();
        for (key, entries) in &names {
            if !reachable(&names, key) {
                continue;
            }
            let mut durable = BTreeMap::new();
            for (name, entry) in entries {
                let entry = match entry {
                    Entry::Dir => Entry::Dir,
                    Entry::File(node) => {
                        Entry::File(Arc::clone(moved.entry(node.id).or_insert_with(|| {
                            world.new_node(lock(&node.contents).after(how, &mut rng))
                        })))
                    }
                };
                durable.insert(name.clone(), entry);
            }
            let dir = Dir { live: durable.clone(), durable, pending: Vec::new() };
            dirs.insert(key.clone(), dir);
        }
        lock(&world.tree).dirs = dirs;
        SimDisk { world: Arc::new(world) }
    }

    /// Injects a fault.
    pub fn fail(&self, fault: Fault) {
        lock(&self.world.faults).add(fault);
    }

    /// Makes the `nth` operation of this kind from now on fail once (1 is the next).
    pub fn fail_next(&self, op: Op, nth: u64, failure: Failure) {
        self.fail(Fault {
            op: Some(op),
            path_has: String::new(),
            skip: nth - 1,
            times: 1,
            failure,
        });
    }

    /// Lets the syncs of other threads wait until this is dropped. They are counted before.
    #[cfg(test)]
    pub(crate) fn hold_syncs(&self) -> MutexGuard<'_, ()> {
        lock(&self.world.syncing)
    }

    /// The faults that came since this was asked last.
    pub fn take_hits(&self) -> Vec<Hit> {
        lock(&self.world.faults).take_hits()
    }

    /// Takes back all faults that are still to come.
    pub fn heal(&self) {
        lock(&self.world.faults).heal();
    }

    /// Turns the power off before the change after the next `changes` (see [`SimDisk::changes`]).
    /// [`SimDisk::crash`] then says what is left.
    pub fn cut_power_after(&self, changes: u64) {
        lock(&self.world.faults).cut_power_after(changes);
    }

    /// From now on (or no longer) operations are neither counted nor failed: whoever looks on must
    /// not change what happens.
    pub fn set_unwatched(&self, is_unwatched: bool) {
        self.world.unwatched.store(is_unwatched, Ordering::Release);
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.world.dead.load(Ordering::Acquire)
    }

    /// How many operations of this kind there were, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        lock(&self.world.faults).count(op)
    }

    /// How many operations there were of all kinds, failed ones included.
    pub fn operations(&self) -> u64 {
        lock(&self.world.faults).operations()
    }

    /// How many operations there were that change something or sync it.
    pub fn changes(&self) -> u64 {
        lock(&self.world.faults).changes()
    }

    /// Flips one bit (0 to 7) of the byte at `at`, in what is live, pending and durable: rot on
    /// the medium.
    ///
    /// # Errors
    /// If there is no such file, or it is shorter.
    pub fn flip_bit(&self, path: &Path, at: u64, bit: u8) -> io::Result<()> {
        let node = lock(&self.world.tree).node(&key(path)?)?;
        lock(&node.contents).flip_bit(at, bit)
    }

    /// Every file and its live contents, in path order: to compare two disks byte by byte.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for (key, dir) in &lock(&self.world.tree).dirs {
            for (name, entry) in &dir.live {
                if let Entry::File(node) = entry {
                    let path = Path::new("/").join(key).join(name);
                    files.insert(path, lock(&node.contents).live().to_vec());
                }
            }
        }
        files
    }

    /// Sets what [`Disk::space`] answers. Writes do not change it.
    pub fn set_space(&self, space: Space) {
        lock(&self.world.tree).space = space;
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("off", &self.is_off()).finish_non_exhaustive()
    }
}

impl World {
    fn new(tree: Tree) -> World {
        World {
            tree: Mutex::new(tree),
            faults: Mutex::default(),
            dead: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            syncing: Mutex::default(),
        }
    }
}

struct SimLock {
    world: Arc<World>,
    key: String,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        lock(&self.world.tree).locked.remove(&self.key);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let key = key(path)?;
        let op = if how == Open::Create { Op::Create } else { Op::Open };
        self.world.begin_whole(op, &key)?;
        let mut tree = self.world.tree()?;
        let node = match tree.node(&key) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && how == Open::Create => {
                let (dir, name) = split(&key);
                let dir = tree.dir(dir)?;
                let node = self.world.new_node(Vec::new());
                let entry = Entry::File(Arc::clone(&node));
                dir.change(Change::Link { name: name.to_owned(), entry, moved_by: 0 });
                node
            }
            other => other?,
        };
        drop(tree);
        let world = Arc::clone(&self.world);
        Ok(Arc::new(SimFile { world, node, key, writable: how != Open::Read }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let key = key(dir)?;
        self.world.begin_whole(Op::List, &key)?;
        let mut tree = self.world.tree()?;
        let entry = |(name, entry): (&String, &Entry)| {
            let (is_dir, len) = match entry {
                Entry::Dir => (true, 0),
                Entry::File(node) => (false, lock(&node.contents).live().len() as u64),
            };
            DirEntry { name: name.clone(), is_dir, len, is_link: false }
        };
        Ok(tree.dir(&key)?.live.iter().map(entry).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let key = key(dir)?;
        self.world.begin_whole(Op::CreateDir, &key)?;
        let mut tree = self.world.tree()?;
        let ends = key.match_indices('/').map(|(at, _)| at).chain([key.len()]);
        for path in ends.map(|end| &key[..end]).filter(|path| !path.is_empty()) {
            let (above, name) = split(path);
            let parent = tree.dir(above)?;
            match parent.live.get(name) {
                Some(Entry::Dir) => continue,
                Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => {}
            }
            parent.change(Change::Link { name: name.to_owned(), entry: Entry::Dir, moved_by: 0 });
            tree.dirs.insert(path.to_owned(), Dir::default());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (key(from)?, key(to)?);
        self.world.begin_whole(Op::Rename, &from)?;
        let mut tree = self.world.tree()?;
        let entry = Entry::File(tree.node(&from)?);
        let ((from_dir, from_name), (to_dir, to_name)) = (split(&from), split(&to));
        if matches!(tree.dir(to_dir)?.live.get(to_name), Some(Entry::Dir)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (from_name, to_name) = (from_name.to_owned(), to_name.to_owned());
        if from == to {
            return Ok(());
        }
        if from_dir == to_dir {
            tree.dir(to_dir)?.change(Change::Rename { from: from_name, to: to_name, entry });
            return Ok(());
        }
        let moved_by = self.world.next_id.fetch_add(1, Ordering::Relaxed);
        tree.dir(to_dir)?.change(Change::Link { name: to_name, entry, moved_by });
        let to = to_dir.to_owned();
        tree.dir(from_dir)?.change(Change::MoveOut { name: from_name, to, moved_by });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let key = key(path)?;
        self.world.begin_whole(Op::Remove, &key)?;
        let mut tree = self.world.tree()?;
        tree.node(&key)?;
        let (dir, name) = split(&key);
        tree.dir(dir)?.change(Change::Unlink { name: name.to_owned() });
        Ok(())
    }

    fn is_only_name(&self, path: &Path) -> io::Result<bool> {
        self.world.tree()?.node(&key(path)?).map(|_| true)
    }

    fn hold_dir(&self, dir: &Path) -> io::Result<()> {
        self.world.tree()?.dir(&key(dir)?).map(drop)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let key = key(dir)?;
        self.world.begin_whole(Op::SyncDir, &key)?;
        let mut tree = self.world.tree()?;
        // A move is never durable at its origin before it is at its destination.
        let moves: Vec<(String, u64)> = (tree.dir(&key)?.pending.iter())
            .filter_map(|change| match change {
                Change::MoveOut { to, moved_by, .. } => Some((to.clone(), *moved_by)),
                Change::Link { .. } | Change::Rename { .. } | Change::Unlink { .. } => None,
            })
            .collect();
        for (to, number) in moves {
            let to = tree.dir(&to)?;
            let is_it =
                |c: &Change| matches!(c, Change::Link { moved_by, .. } if *moved_by == number);
            if let Some(at) = to.pending.iter().position(is_it) {
                to.make_durable(at + 1);
            }
        }
        let dir = tree.dir(&key)?;
        dir.make_durable(dir.pending.len());
        Ok(())
    }

    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        let failure = self.world.begin(Op::Sync, &key(dir)?)?;
        let mut tree = self.world.tree()?;
        for dir in tree.dirs.values_mut() {
            for entry in dir.live.values() {
                if let Entry::File(node) = entry {
                    let mut contents = lock(&node.contents);
                    if failure.is_some() { contents.sync_failed() } else { contents.sync() }
                }
            }
            if failure.is_none() {
                dir.make_durable(dir.pending.len());
            }
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let key = key(path)?;
        self.world.begin_whole(Op::Lock, &key)?;
        self.open(path, Open::Create)?;
        if !self.world.tree()?.locked.insert(key.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { world: Arc::clone(&self.world), key }))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let key = key(dir)?;
        self.world.begin_whole(Op::Space, &key)?;
        Ok(self.world.tree()?.space)
    }
}
