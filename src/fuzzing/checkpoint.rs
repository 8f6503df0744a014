//! A checkpoint in a directory that is otherwise whole. With a first byte that is odd, its checksum
//! is mended; the rest is the file.
//!
//! * The directory opens, or the answer says what is wrong and nothing was changed.
//! * What was read and is written again reads the same.
//! * Groups restored from it hold together, and go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Script;
use crate::broker::checkpoint::{Checkpoint, CheckpointError};
use crate::broker::gate::PublishGate;
use crate::broker::layout::Layout;
use crate::broker::open;
use crate::broker::settings::Settings;
use crate::config::{Fsync, MinFree};
use crate::delivery::{Group, Policy};
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, Open};
use crate::ids::TopicName;
use crate::log::{LogSettings, NewRecord, Retention, TailBudget, TopicLog};
use crate::time::{Moment, Now, Timestamp};
use crate::wal;

const DIR: &str = "/data";

/// The checkpoint that the bytes become; the first start writes number 1.
const FILE: &str = "0000000000000002.json";

const NOW: Now = Now { moment: Moment::from_millis(5), wall: Timestamp::from_micros(5) };

pub(super) fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let is_mended = script.u8() & 1 == 1;
    let file = if is_mended { with_checksum(script.0) } else { script.0.to_vec() };
    let disk = directory(&file);
    let dir = Layout::new(Path::new(DIR)).checkpoints();
    match Checkpoint::newest(&disk, &dir) {
        Ok(Some(checkpoint)) => {
            groups(&checkpoint);
            again(&checkpoint);
        }
        Ok(None) => unreachable!("there is one"),
        Err(CheckpointError::Damaged { at, .. }) => assert!(at <= file.len()),
        Err(error) => panic!("the disk is well: {error}"),
    }
    opens(&disk);
}

/// The file with the checksum that its last line has to have.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let start = memchr::memrchr(b'\n', whole).map_or(0, |at| at + 1);
    let Some((line, _)) =
        std::str::from_utf8(&bytes[start..]).ok().and_then(|line| line.rsplit_once("\"crc\":\""))
    else {
        return bytes.to_vec();
    };
    let crc = crc32c::crc32c(&bytes[..start]);
    let mut mended = bytes[..start].to_vec();
    mended.extend_from_slice(format!("{line}\"crc\":\"{crc:08x}\"}}\n").as_bytes());
    mended
}

fn settings() -> Settings {
    Settings {
        data_dir: PathBuf::from(DIR),
        shards: 1,
        node_seed: 7,
        wal_secret: 8,
        fsync: Fsync::Always,
        wal: wal::Settings { segment_bytes: 8192 },
        log: LogSettings { segment_bytes: 300 },
        checkpoint_bytes: 0,
        checkpoint_interval: Duration::ZERO,
        retention: Retention::default(),
        min_free: MinFree::Auto,
        policy: policy(),
        prefetch: 4,
        open_logs_max: 8,
        topics_written_max: 64,
        tail: Arc::new(TailBudget::new(0)),
        gate: Arc::new(PublishGate::default()),
        ahead: Arc::default(),
    }
}

fn policy() -> Policy {
    Policy {
        ack_timeout: Duration::from_secs(10),
        max_retries: 1,
        backoff: vec![Duration::from_secs(1)],
        dead_letters: true,
        unsettled_max: 1000,
    }
}

/// A directory that was served once and has a topic, `chat`, with three messages in one file.
fn directory(checkpoint: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = open::open(&arc, &settings(), NOW).expect("an empty directory opens");
    drop(opened);
    let chat = TopicName::parse(b"chat").expect("a good name");
    let tail = Arc::new(TailBudget::new(0));
    let mut log = TopicLog::create(arc, Path::new(DIR), chat, settings().log, tail);
    for message in [&b"one"[..], b"two", b"three"] {
        let ts = Timestamp::from_micros(1_000_000);
        log.append(&NewRecord { ts, id: None, message, extra: "" });
    }
    log.flush().expect("the disk takes all");
    let path = Layout::new(Path::new(DIR)).checkpoints().join(FILE);
    let file = disk.open(&path, Open::Create).expect("the disk takes all");
    file.write_at(checkpoint, 0).expect("the disk takes all");
    disk
}

fn groups(checkpoint: &Checkpoint) {
    for (_, state) in &checkpoint.topics {
        for progress in state.groups.values() {
            let group = Group::new(Arc::new(policy()), progress.clone());
            group.check();
            assert_eq!(&group.into_progress(), progress);
        }
    }
}

/// Written and read again, it is the same.
fn again(checkpoint: &Checkpoint) {
    let disk = SimDisk::new();
    checkpoint.write(&disk, Path::new("/"), NOW.wall).expect("the disk takes all");
    let same = Checkpoint::newest(&disk, Path::new("/")).expect("it was just written");
    let same = same.expect("it was just written");
    assert_eq!((same.number, same.is_clean), (checkpoint.number, checkpoint.is_clean));
    assert_eq!((same.lsn(), &same.topics), (checkpoint.lsn(), &checkpoint.topics));
}

/// The directory opens, and once more with the same outcome; or nothing is changed.
fn opens(disk: &SimDisk) {
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let before = disk.files();
    match open::open(&arc, &settings(), NOW) {
        Ok(opened) => {
            drop(opened);
            let files = disk.files();
            drop(open::open(&arc, &settings(), NOW).expect("what was opened opens again"));
            assert_eq!(disk.files(), files, "opened again, it is the same");
        }
        Err(error) => {
            assert!(error.is_damage(), "{error}");
            assert_eq!(disk.files(), before, "what is refused is not changed");
        }
    }
}
