//! A check beside a broker: whatever the broker does between any two reads of the check, nothing is
//! taken for damage that is none, and nothing that is damaged is passed over.
//!
//! The two are threads that take turns: each time the check asks the disk for something, the broker may
//! make so many changes to it, and then waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::journal::Journal;
use super::node::{DIR, Node, Plan};
use crate::check::{self, Level, Report};
use crate::config::Fsync;
use crate::disk::sim::SimDisk;
use crate::disk::{DirEntry, Disk, File, Lock, Open, Space};
use crate::time::{Moment, Now, Timestamp};

/// Who may go on.
#[derive(Debug, Default)]
struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Changes that the broker may still make.
    given: u64,
    is_waiting: bool,
    is_told_to_end: bool,
    has_ended: bool,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker makes a change, when it may.
    fn take(&self) {
        let mut state = self.state();
        while state.given == 0 {
            state.is_waiting = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_waiting = false;
        state.given -= 1;
    }

    /// The broker makes so many.
    fn give(&self, changes: u64) {
        let mut state = self.state();
        state.given += changes;
        self.changed.notify_all();
        while !(state.has_ended || state.is_waiting && state.given == 0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self) {
        let mut state = self.state();
        (state.is_told_to_end, state.given) = (true, u64::MAX);
        self.changed.notify_all();
    }
}

/// Whose disk it is.
#[derive(Clone, Debug)]
enum Who {
    Broker,
    /// For each of its steps the broker makes so many changes.
    Check(u64),
}

#[derive(Clone, Debug)]
struct Shared {
    disk: SimDisk,
    turns: Arc<Turns>,
    who: Who,
}

impl Shared {
    fn reads(&self) {
        if let Who::Check(changes) = self.who {
            self.turns.give(changes);
        }
    }

    fn changes(&self) {
        match self.who {
            Who::Broker => self.turns.take(),
            Who::Check(_) => panic!("a check changes nothing"),
        }
    }
}

impl Disk for Shared {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        if how == Open::Create {
            self.changes()
        } else {
            self.reads()
        }
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(SharedFile { file, shared: self.clone() }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.reads();
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changes();
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.changes();
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_all(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }
}

#[derive(Debug)]
struct SharedFile {
    file: Arc<dyn File>,
    shared: Shared,
}

impl File for SharedFile {
    fn len(&self) -> io::Result<u64> {
        self.shared.reads();
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.shared.reads();
        self.file.read_at(buf, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        // Somebody who reads meanwhile sees a part of it.
        let half = bytes.len() / 2;
        self.shared.changes();
        self.file.write_at(&bytes[..half], at)?;
        self.shared.changes();
        self.file.write_at(&bytes[half..], at + half as u64)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.shared.changes();
        self.file.truncate(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// A broker's life, until told to end: messages to topics old and new, segments of both kinds that
/// end, checkpoints, and now and then a new start, in order or not, if it `starts_again`.
fn live(disk: &Shared, starts_again: bool) {
    let plan = Plan { seed: 5, fsync: Fsync::Always, unsettled_max: 100 };
    let wall = |step: u64| Timestamp::from_micros(1_700_000_000_000_000 + step * 1000);
    let now = |step: u64| Now { moment: Moment::from_millis(step * 10), wall: wall(step) };
    let start = |step| Node::start_on(Arc::new(disk.clone()), plan, now(step)).unwrap().0;
    let mut journal = Journal::default();
    let mut node = start(0);
    let mut conn = 0;
    for step in 1.. {
        if disk.turns.state().is_told_to_end {
            break;
        }
        if step % 70 == 1 {
            if starts_again && step % 140 == 1 {
                node.stop(now(step), &mut journal).unwrap();
                node = start(step);
            } else if starts_again {
                drop(node);
                node = start(step);
            }
            conn += 1;
            node.connect(conn, now(step).moment);
        }
        let long = "x".repeat(usize::try_from(step % 200).unwrap());
        let input = format!("PUB a {step} {long}\nPUB b {step}\nPUB t{} {step}\n", step / 20);
        let sent = node.session_turn(conn, now(step), input.as_bytes(), 100_000);
        assert!(!sent.is_finished);
        for turn in 0..2 {
            (0..node.shards()).for_each(|shard| node.shard_turn(shard, now(step)).unwrap());
            if turn == 0 {
                node.log_turn(now(step), &mut journal).unwrap();
            }
        }
        node.spare_turn();
        node.keeper_turn(now(step)).unwrap();
    }
    let mut state = disk.turns.state();
    state.has_ended = true;
    disk.turns.changed.notify_all();
}

/// What a check finds that begins after so many changes, in each of whose steps the broker makes
/// `each` more. `harm` sees the disk before.
fn checked(
    begin: u64,
    each: u64,
    starts_again: bool,
    harm: impl FnOnce(&SimDisk),
) -> (Report, SimDisk) {
    let (disk, turns) = (SimDisk::new(), Arc::new(Turns::default()));
    let shared = |who| Shared { disk: disk.clone(), turns: Arc::clone(&turns), who };
    let broker = shared(Who::Broker);
    let life = thread::spawn(move || live(&broker, starts_again));
    turns.give(begin);
    harm(&disk);
    let reading: Arc<dyn Disk> = Arc::new(shared(Who::Check(each)));
    let report = check::check_beside(&reading, Path::new(DIR), &mut |_, _| {}).unwrap();
    turns.end();
    life.join().unwrap();
    (report, disk)
}

/// A checkpoint is made, and segments end, every hundred changes or so, and to read the log takes some
/// twenty steps.
const EACH: [u64; 5] = [0, 1, 2, 3, 5];

#[test]
fn nothing_that_a_broker_does_is_taken_for_damage() {
    for starts_again in [false, true] {
        for begin in (60..3200).step_by(193) {
            for each in EACH {
                let mut there = 0;
                let harm = |disk: &SimDisk| {
                    let still: Arc<dyn Disk> = Arc::new(disk.clone());
                    there = check::check(&still, Path::new(DIR), &mut |_, _| {}).unwrap().messages;
                };
                let (report, _) = checked(begin, each, starts_again, harm);
                let place = format!("after {begin}, {each} each, starts again: {starts_again}");
                assert_eq!(report.findings, [], "{place}");
                let count = report.messages;
                assert!(starts_again || count >= there, "{place}: {count} of {there} were read");
            }
        }
    }
}

#[test]
fn what_is_damaged_is_found_whatever_the_broker_does() {
    for each in [0, 2, 5] {
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        drop(checked(2000, 0, false, |disk| files.extend(disk.files())));
        let is_harmed = |path: &Path| {
            let name = path.to_str().unwrap();
            name.contains('@') && !name.ends_with(".idx") || name.ends_with("node.json")
        };
        let mut tried = 0;
        for (path, bytes) in files.iter().filter(|(path, _)| is_harmed(path)) {
            tried += 1;
            let at = bytes.len() as u64 / 2;
            let (report, _) = checked(2000, each, false, |disk| {
                disk.flip_bit(path, at, 2).unwrap();
            });
            let damage = report.findings.iter().filter(|found| found.level == Level::Damage);
            let damaged: Vec<_> = damage.map(|found| &found.file).collect();
            assert_eq!(damaged, [path], "{each} each");
        }
        assert!(tried > 5, "{tried}");
    }
}
