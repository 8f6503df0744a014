//! A check beside a broker: whatever the broker does between any two reads of the check, nothing is
//! taken for damage that is none, and nothing that is damaged is passed over.
//!
//! The two are threads that take turns: each time the check asks the disk for something, the broker may
//! make so many changes to it, and then waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::journal::Journal;
use super::node::{DIR, Node, Plan};
use crate::broker::layout::Layout;
use crate::broker::lock_file::{self, Held, Holder};
use crate::check::{self, Guest, Level, Report};
use crate::disk::sim::{Crash, SimDisk};
use crate::disk::{DirEntry, Disk, File, Lock, Open, Space};
use crate::log::Retention;
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
    /// A check with no broker there, until one comes.
    Guest(Arc<Arrival>),
}

/// A broker that comes at one of the steps of a check.
#[derive(Debug)]
struct Arrival {
    at: u64,
    steps: AtomicU64,
    /// The check's user may not write to the directory.
    is_read_only: bool,
    /// The lock of a broker that need not ask.
    came: Mutex<Option<Held>>,
}

impl Arrival {
    fn step(&self, disk: &SimDisk) {
        if self.steps.fetch_add(1, Ordering::Relaxed) != self.at {
            return;
        }
        let layout = Layout::new(Path::new(DIR));
        if !self.is_read_only {
            return lock_file::ask(disk, &layout).unwrap();
        }
        live(Arc::new(disk.clone()), &|step| step <= 40, Ways::default());
        *self.came.lock().unwrap() = Some(lock_file::take(disk, &layout, Holder::Broker).unwrap());
    }
}

#[derive(Clone, Debug)]
struct Shared {
    disk: SimDisk,
    turns: Arc<Turns>,
    who: Who,
}

impl Shared {
    fn reads(&self) {
        match &self.who {
            Who::Broker => {}
            Who::Check(changes) => self.turns.give(*changes),
            Who::Guest(arrival) => arrival.step(&self.disk),
        }
    }

    fn changes(&self) {
        match self.who {
            Who::Broker => self.turns.take(),
            Who::Check(_) | Who::Guest(_) => panic!("a check changes nothing"),
        }
    }
}

impl Disk for Shared {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        match (how, &self.who) {
            (Open::Create, _) => self.changes(),
            // The lock file.
            (Open::Write, Who::Guest(arrival)) if arrival.is_read_only => {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            (Open::Write, Who::Guest(_)) => return self.disk.open(path, how),
            (Open::Write | Open::Read, _) => self.reads(),
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
    fn is_only_name(&self, path: &Path) -> io::Result<bool> {
        self.disk.is_only_name(path)
    }

    fn hold_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.hold_dir(dir)
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

/// What a broker does besides its work.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// It starts again now and then, in order or not.
    starts_again: bool,
    /// It keeps no more of a topic than it has to.
    keeps_little: bool,
}

/// A broker's life, as long as it `goes_on` with the next step: messages to topics old and new, segments
/// of both kinds that end, checkpoints, and what its ways are besides.
fn live(disk: Arc<dyn Disk>, goes_on: &dyn Fn(u64) -> bool, ways: Ways) {
    let Ways { starts_again, keeps_little } = ways;
    let retention = Retention { age: None, bytes: keeps_little.then_some(0) };
    let plan = Plan { seed: 5, retention, ..Plan::PLAIN };
    let wall = |step: u64| Timestamp::from_micros(1_700_000_000_000_000 + step * 1000);
    let now = |step: u64| Now { moment: Moment::from_millis(step * 10), wall: wall(step) };
    let start = |step| Node::start_on(Arc::clone(&disk), plan, now(step)).unwrap().0;
    let mut journal = Journal::default();
    let mut node = start(0);
    let mut conn = 0;
    for step in (1..).take_while(|step| goes_on(*step)) {
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
}

/// The same on a thread, until told to end.
fn live_in_turns(shared: Shared, ways: Ways) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let turns = Arc::clone(&shared.turns);
        live(Arc::new(shared), &|_| !turns.state().is_told_to_end, ways);
        turns.state().has_ended = true;
        turns.changed.notify_all();
    })
}

/// What a check finds that begins after so many changes, in each of whose steps the broker makes
/// `each` more. `harm` sees the disk before.
fn checked(begin: u64, each: u64, ways: Ways, harm: impl FnOnce(&SimDisk)) -> (Report, SimDisk) {
    let (disk, turns) = (SimDisk::new(), Arc::new(Turns::default()));
    let shared = |who| Shared { disk: disk.clone(), turns: Arc::clone(&turns), who };
    let life = live_in_turns(shared(Who::Broker), ways);
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
    for number in 0..4 {
        let ways = Ways { starts_again: number & 1 > 0, keeps_little: number & 2 > 0 };
        for begin in (60..3200).step_by(193) {
            for each in EACH {
                let mut there = 0;
                let harm = |disk: &SimDisk| {
                    let still: Arc<dyn Disk> = Arc::new(disk.clone());
                    there = check::check(&still, Path::new(DIR), &mut |_, _| {}).unwrap().messages;
                };
                let (report, disk) = checked(begin, each, ways, harm);
                let place = format!("after {begin}, {each} each, {ways:?}");
                assert_eq!(report.findings, [], "{place}");
                let oldest = Path::new(DIR).join("a@00000000000000000001.log");
                let is_gone = !disk.files().contains_key(&oldest);
                assert!(begin < 2000 || is_gone == ways.keeps_little, "{place}");
                let count = report.messages;
                let may_be_less = ways.starts_again || ways.keeps_little;
                assert!(may_be_less || count >= there, "{place}: {count} of {there} were read");
            }
        }
    }
}

#[test]
fn what_is_damaged_is_found_whatever_the_broker_does() {
    for each in [0, 2, 5] {
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        drop(checked(2000, 0, Ways::default(), |disk| files.extend(disk.files())));
        let is_harmed = |path: &Path| {
            let name = path.to_str().unwrap();
            name.contains('@') && !name.ends_with(".idx") || name.ends_with("node.json")
        };
        let mut tried = 0;
        for (path, bytes) in files.iter().filter(|(path, _)| is_harmed(path)) {
            tried += 1;
            let at = bytes.len() as u64 / 2;
            let (report, _) = checked(2000, each, Ways::default(), |disk| {
                disk.flip_bit(path, at, 2).unwrap();
            });
            let damage = report.findings.iter().filter(|found| found.level == Level::Damage);
            let damaged: Vec<_> = damage.map(|found| &found.file).collect();
            assert_eq!(damaged, [path], "{each} each");
        }
        assert!(tried > 5, "{tried}");
    }
}

/// What a check finds in the directory of a broker that was killed, when another one comes at its step
/// `at`, if it has so many. `harm` sees the disk before.
fn checked_as_guest(at: u64, is_read_only: bool, harm: impl FnOnce(&SimDisk)) -> Report {
    let (disk, turns) = (SimDisk::new(), Arc::new(Turns::default()));
    let who = Who::Broker;
    let life = live_in_turns(
        Shared { disk: disk.clone(), turns: Arc::clone(&turns), who },
        Ways::default(),
    );
    turns.give(1507);
    let left = disk.copy(Crash::KeepAll);
    turns.end();
    life.join().unwrap();
    harm(&left);

    let turns = Arc::new(Turns::default());
    let came = Mutex::default();
    let arrival = Arrival { at, steps: AtomicU64::new(0), is_read_only, came };
    let shared = |who| Shared { disk: left.clone(), turns: Arc::clone(&turns), who };
    let reading: Arc<dyn Disk> = Arc::new(shared(Who::Guest(Arc::new(arrival))));
    let guest = Guest::enter(&reading, Path::new(DIR)).unwrap();
    let mut life = None;
    let mut beside = || -> Arc<dyn Disk> {
        if is_read_only {
            return Arc::new(left.clone());
        }
        life = Some(live_in_turns(shared(Who::Broker), Ways::default()));
        turns.give(0);
        Arc::new(shared(Who::Check(3)))
    };
    let report = check::check_as_guest(guest, &mut beside, &mut |_, _| {}).unwrap();
    turns.end();
    life.into_iter().for_each(|life| life.join().unwrap());
    report
}

#[test]
fn a_broker_that_comes_while_its_directory_is_checked_is_let_in() {
    for is_read_only in [false, true] {
        let (mut beside, mut alone) = (0, 0);
        for at in (0..600).step_by(7) {
            let mut there = 0;
            let report = checked_as_guest(at, is_read_only, |disk| {
                let still: Arc<dyn Disk> = Arc::new(disk.clone());
                there = check::check(&still, Path::new(DIR), &mut |_, _| {}).unwrap().messages;
            });
            let damage = report.findings.iter().filter(|found| found.level == Level::Damage);
            assert_eq!(damage.count(), 0, "at {at}: {:?}", report.findings);
            let count = report.messages;
            // The broker may just be making again what lies behind the checkpoint.
            let is_all = there > 200 && count + 40 >= there;
            assert!(is_all, "at {at}: {count} of {there} were read");
            if report.is_beside { beside += 1 } else { alone += 1 }
        }
        assert!(beside > 20 && alone > 2, "{beside} beside, {alone} alone");
    }
}
