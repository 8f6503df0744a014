//! A small directory, every byte of it flipped in turn: the check names the file, and after the
//! repair the broker starts and has every message that was not hit.

mod crash;
mod many;
mod shape;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::broker::commit::WalStats;
use crate::broker::gate::PublishGate;
use crate::broker::layout::Layout;
use crate::broker::open::{self, OpenError, Opened};
use crate::broker::settings::Settings;
use crate::broker::shard::ALL_TOPICS;
use crate::config::{Fsync, MinFree};
use crate::delivery::{Change, Policy};
use crate::disk::Open;
use crate::disk::sim::SimDisk;
use crate::ids::GroupName;
use crate::log::{self, LogSettings, Paths, Reader, Retention, TailBudget};
use crate::time::{Moment, Now, Timestamp};
use crate::topic::Commands;
use crate::wal::{self, Entry};

const DIR: &str = "/srv/data";
const ROUNDS: u64 = 3;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn settings() -> Settings {
    Settings {
        data_dir: PathBuf::from(DIR),
        shards: 1,
        node_seed: 7,
        wal_secret: 8,
        fsync: Fsync::Always,
        wal: wal::Settings { segment_bytes: 8192 },
        log: LogSettings { segment_bytes: 700 },
        checkpoint_bytes: 0,
        checkpoint_interval: Duration::ZERO,
        retention: Retention::default(),
        min_free: MinFree::Auto,
        policy: Policy {
            ack_timeout: Duration::from_secs(10),
            max_retries: 1,
            backoff: vec![Duration::from_secs(1)],
            dead_letters: true,
            unsettled_max: 1000,
        },
        prefetch: 4,
        tail: Arc::new(TailBudget::new(1 << 20)),
        open_logs_max: 8,
        topics_written_max: 64,
        gate: Arc::new(PublishGate::default()),
        ahead: Arc::default(),
    }
}

fn start(disk: &SimDisk) -> Result<Opened, OpenError> {
    let wall = Timestamp::from_micros(1_700_000_000_000_000);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    open::open(&shared, &settings(), Now { moment: Moment::from_millis(0), wall })
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name.as_bytes()).unwrap()
}

/// One round of a broker's life: two records in the log, applied by the start after it, and a
/// checkpoint unless it is the last.
fn round(disk: &SimDisk, round: u64) {
    let mut opened = start(disk).unwrap();
    let last = opened.wal.last();
    let index = opened.shards[0].part(last, ALL_TOPICS).unwrap().unwrap().applied.index;
    for batch in 1..=2 {
        let mut commands = Commands::default();
        for name in ["a", "b"] {
            commands.topic(&topic(name));
            commands.time(Timestamp::from_micros(1_000_000 * (round * 10 + batch)));
            commands.group(&GroupName::parse(b"g").unwrap());
            commands.create_group();
            for n in 0..3 {
                commands.append(format!("{name} {round} {batch} {n}").as_bytes());
            }
            let offset = Offset::new(6 * round + 3 * (batch - 1) + 1);
            commands.change(&Change::Settled { offset });
        }
        let payload = commands.into_bytes();
        let entry = Entry { shard: 0, term: 0, index: index + batch, payload: &payload };
        opened.wal.append(&[entry]).unwrap();
    }
    opened.wal.sync().unwrap();
    drop(opened);
    let mut opened = start(disk).unwrap();
    if round + 1 < ROUNDS {
        let last = opened.wal.last();
        let parts =
            opened.shards.iter_mut().map(|shard| shard.part(last, ALL_TOPICS).unwrap().unwrap());
        let wall = Timestamp::from_micros(5);
        let now = Now { moment: Moment::from_millis(0), wall };
        let stats = WalStats::default();
        opened.checkpoints.write(parts.collect(), false, &stats, now).unwrap();
    }
}

fn example() -> Files {
    let disk = SimDisk::new();
    (0..ROUNDS).for_each(|n| round(&disk, n));
    // Whoever goes to a message in a sealed segment makes its index.
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    for name in ["a", "b"] {
        let mut reader = Reader::offline(Arc::clone(&shared), Path::new(DIR), topic(name)).unwrap();
        reader.seek(Offset::new(2)).unwrap();
    }
    disk.files()
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new();
    for (path, bytes) in files {
        disk.create_dir(path.parent().unwrap()).unwrap();
        disk.open(path, Open::Create).unwrap().write_at(bytes, 0).unwrap();
    }
    disk
}

fn checked(disk: &SimDisk) -> Report {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    check(&shared, Path::new(DIR), &mut |_, _| {}).unwrap()
}

fn repaired(disk: &SimDisk, report: &Report) -> Vec<Done> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let seeds = Seeds { node: 70, secret: 80 };
    repair(&shared, Path::new(DIR), report, Timestamp::from_micros(9), seeds).unwrap()
}

/// All messages that can be read, and how many can't.
fn messages(disk: &SimDisk) -> (BTreeMap<(String, u64), String>, u64) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut all, mut lost) = (BTreeMap::new(), 0);
    for name in ["a", "b"] {
        let mut reader = Reader::offline(Arc::clone(&shared), Path::new(DIR), topic(name)).unwrap();
        loop {
            match reader.next() {
                Ok(Some(line)) => {
                    let message = String::from_utf8(line.message.to_vec()).unwrap();
                    all.insert((name.to_owned(), line.offset.get()), message);
                }
                Ok(None) => break,
                Err(_) => lost += 1,
            }
        }
    }
    (all, lost)
}

fn tell(report: &Report) -> String {
    format!("{:#?}", report.findings)
}

#[test]
fn a_directory_in_order_is_whole_and_stays_as_it_is() {
    let files = example();
    let disk = disk_of(&files);
    let report = checked(&disk);
    assert_eq!(report.findings, [], "{}", tell(&report));
    assert_eq!((report.topics, report.messages), (2, 36));
    assert_eq!(disk.files(), files);
    let kinds = ["a.log", "a@", "b.log", "node.json", ".idx", "2.json", "3.json", ".wal"];
    for kind in kinds {
        let is_there = files.keys().any(|path| path.to_str().unwrap().contains(kind));
        assert!(is_there, "{kind} is tried too: {:?}", files.keys());
    }
}

/// Flips bits of all files whose names contain `part`, and repairs.
fn flip_all(part: &str, step: usize, lost_max: u64) {
    let files = example();
    let (before, _) = messages(&disk_of(&files));
    assert_eq!(before.len(), 36);
    let tried = files.iter().filter(|(path, _)| path.to_str().unwrap().contains(part));
    for (path, bytes) in tried {
        for at in (0..bytes.len()).step_by(step) {
            let disk = disk_of(&files);
            let bit = u8::try_from(at % 8).unwrap();
            disk.flip_bit(path, at as u64, bit).unwrap();
            let place = format!("{} byte {at} bit {bit}", path.display());
            flip(&disk, path, &place, &before, lost_max);
        }
    }
}

fn flip(
    disk: &SimDisk,
    path: &Path,
    place: &str,
    before: &BTreeMap<(String, u64), String>,
    lost_max: u64,
) {
    let harmed = disk.files();
    let report = checked(disk);
    assert_eq!(disk.files(), harmed, "{place}: checking changes nothing");
    let refused = start(&disk_of(&harmed)).is_err_and(|error| error.is_damage());
    assert!(!refused || report.damages() > 0, "{place}: the start refuses it");
    let is_spare = harmed[path].len() == 8192;
    let is_named = report.findings.iter().any(|finding| finding.file == path);
    // What lies behind the checkpoint is made again by the next start, whatever it is now.
    let is_made_again = report.findings.is_empty() && !refused;
    assert!(is_named || is_spare || is_made_again, "{place}: {}", tell(&report));
    if report.damages() > 0 {
        let done = repaired(disk, &report);
        assert!(!done.is_empty(), "{place}");
        let kept = |bytes: &Vec<u8>| {
            let kept = |(at, now): (&PathBuf, &Vec<u8>)| {
                now == bytes || at.to_str().unwrap().contains("quarantine")
            };
            disk.files().iter().any(kept)
        };
        assert!(harmed.values().all(kept), "{place}");
    }
    let after = checked(disk);
    assert_eq!(after.damages(), 0, "{place}: {} after {}", tell(&after), tell(&report));
    drop(start(disk).unwrap_or_else(|error| panic!("{place}: {error}")));
    let (there, lost) = messages(disk);
    assert!(lost <= lost_max, "{place}: {lost} lost; {}", tell(&report));
    for (key, message) in &there {
        assert_eq!(before.get(key), Some(message), "{place}: nothing is invented");
    }
    // The last batch of a log is vouched for by nothing: damaged, it is a torn tail.
    let is_torn = report.findings.iter().any(|found| found.level == Level::Torn);
    let all = there.len() as u64 + lost;
    assert!(all == 36 || is_torn && all >= 24, "{place}: {all}; {}", tell(&report));
}

#[test]
fn any_flipped_bit_of_a_topics_file_costs_that_message_at_most() {
    flip_all(".log", 13, 1);
}

#[test]
fn any_flipped_bit_of_an_index_costs_nothing() {
    flip_all(".idx", 3, 0);
}

#[test]
fn any_flipped_bit_of_a_checkpoint_costs_nothing() {
    flip_all("checkpoint/", 11, 0);
}

#[test]
fn any_flipped_bit_of_the_identity_costs_no_message() {
    flip_all("node.json", 3, 0);
}

#[test]
fn any_flipped_bit_of_the_write_ahead_log_costs_no_message() {
    flip_all(".wal", 61, 0);
}

#[test]
fn a_file_that_is_missing_or_cut_costs_what_was_in_it() {
    let files = example();
    let (before, _) = messages(&disk_of(&files));
    for (path, bytes) in &files {
        for keep in [None, Some(0), Some(bytes.len() / 2)] {
            let mut harmed = files.clone();
            match keep {
                None => drop(harmed.remove(path)),
                Some(len) => harmed.get_mut(path).unwrap().truncate(len),
            }
            let place = format!("{} cut to {keep:?}", path.display());
            let disk = disk_of(&harmed);
            let report = checked(&disk);
            let refused = start(&disk_of(&harmed)).is_err_and(|error| error.is_damage());
            assert!(!refused || report.damages() > 0, "{place}: the start refuses it");
            repaired(&disk, &report);
            let after = checked(&disk);
            assert_eq!(after.damages(), 0, "{place}: {} after {}", tell(&after), tell(&report));
            drop(start(&disk).unwrap_or_else(|error| panic!("{place}: {error}")));
            let (there, lost) = messages(&disk);
            let is_log = path.extension().is_some_and(|end| end == "log");
            assert!(lost == 0 || is_log, "{place}: {lost} lost");
            let is_torn = report.findings.iter().any(|found| found.level == Level::Torn);
            let all = there.len() as u64 + lost;
            assert!(all == 36 || is_torn && all >= 24, "{place}: {all}; {}", tell(&report));
            assert!(there.iter().all(|(key, message)| before.get(key) == Some(message)));
        }
    }
}

#[test]
fn without_any_checkpoint_the_messages_are_what_the_files_have() {
    let files = example();
    let (before, _) = messages(&disk_of(&files));
    let disk = disk_of(&files);
    for path in files.keys().filter(|path| path.to_str().unwrap().contains("checkpoint/")) {
        disk.flip_bit(path, 30, 1).unwrap();
    }
    let report = checked(&disk);
    assert_eq!(report.damages(), 2, "{}", tell(&report));
    repaired(&disk, &report);
    assert_eq!(checked(&disk).damages(), 0, "{}", tell(&checked(&disk)));
    drop(start(&disk).unwrap());
    assert_eq!(messages(&disk), (before, 0));
}

/// Beside a broker the active segment is opened before the folder is listed: if it was sealed between
/// the two, it is there under both names.
#[test]
fn a_segment_that_is_sealed_when_it_is_open_is_read_once() {
    let disk = disk_of(&example());
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let layout = Layout::new(Path::new(DIR));
    let (state, found) = beside::state(&shared, &layout).unwrap();
    assert_eq!(found.findings, [], "{}", tell(&found));
    let name = topic("a");
    let paths = Paths { dir: layout.data.clone(), topic: name.clone() };
    let active = disk.open(&paths.active(), Open::Read).unwrap();
    let bytes = crate::disk::read_all(&disk, &paths.active()).unwrap();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
    let (first, _) = log::record_in(&name, line).unwrap();
    disk.rename(&paths.active(), &paths.sealed(first)).unwrap();
    disk.open(&paths.active(), Open::Create).unwrap();
    let mut files = log::scan(&disk, &layout.data).unwrap().topics.remove(&name).unwrap();
    files.last_mut().unwrap().len = active.len().unwrap();
    let (disk, layout, state, name, files) = (&disk, &layout, &state, &name, &files);
    let beside = Some(Some(active));
    let look = logs::Look { disk, layout, state, name, files, beside };
    let report = logs::topic(look, &mut logs::Meter::new(0, &mut |_, _| true)).unwrap();
    assert_eq!((report.findings, report.messages), (vec![], 18));
}
