//! `kill -9` and what is there afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use crate::support::{Broker, Msg, Nc, Setup, data_dir, published, wait_for};

const PUBLISHERS: usize = 8;
const WINDOW: usize = 50;

/// What a publisher was told: message → (id, offset).
pub(crate) type Told = BTreeMap<String, (String, u64)>;

/// Pipelines messages until the connection breaks; returns what was answered `OK`.
fn publish_until_broken(
    addr: std::net::SocketAddr,
    name: &str,
    answered: &mpsc::Sender<()>,
) -> Told {
    let mut told = Told::new();
    let Ok(mut stream) = TcpStream::connect(addr) else { return told };
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    if lines.next().is_none_or(|line| line.is_err()) {
        return told;
    }
    let mut sent = 0;
    let mut open = VecDeque::new();
    loop {
        let mut burst = String::new();
        while open.len() < WINDOW {
            let message = format!("{name}-{sent}");
            burst.push_str(&format!("PUB chat {message}\n"));
            open.push_back(message);
            sent += 1;
        }
        if stream.write_all(burst.as_bytes()).is_err() {
            return told;
        }
        for _ in 0..WINDOW / 2 {
            let Some(Ok(line)) = lines.next() else { return told };
            told.insert(open.pop_front().unwrap(), published(&line));
            answered.send(()).unwrap();
        }
    }
}

/// One life of the broker: eight publishers, two groups whose members acknowledge, and a sudden end
/// after `answers` answers.
fn live_and_die(
    broker: Broker,
    round: usize,
    answers: usize,
    told: &mut Told,
    groups: &mut Groups,
) {
    let (answered, count) = mpsc::channel();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|n| {
            let (addr, answered) = (broker.addr, answered.clone());
            thread::spawn(move || publish_until_broken(addr, &format!("r{round}p{n}"), &answered))
        })
        .collect();
    let names = groups.keys().copied().flat_map(|group| [group, group]);
    let member = |group| (group, thread::spawn(consume(broker.addr, group)));
    let members: Vec<_> = names.map(member).collect();
    for _ in 0..answers {
        count.recv().unwrap();
    }
    broker.kill();
    for publisher in publishers {
        told.extend(publisher.join().unwrap());
    }
    for (group, member) in members {
        let (answered, open) = member.join().unwrap();
        let acks = groups.get_mut(group).unwrap();
        acks.answered.extend(answered);
        acks.open.extend(open);
    }
}

/// What each group acknowledged.
type Groups = BTreeMap<&'static str, Acks>;

/// Acknowledgements of a group's members, by offset.
#[derive(Default)]
struct Acks {
    answered: BTreeSet<u64>,
    /// Sent, but the broker died before it answered.
    open: BTreeSet<u64>,
}

/// A member that acknowledges one message after the other; returns the offsets whose
/// acknowledgement was answered, and those whose was not.
fn consume(
    addr: std::net::SocketAddr,
    group: &'static str,
) -> impl FnOnce() -> (Vec<u64>, VecDeque<u64>) {
    move || {
        let (mut acked, mut waiting) = (Vec::new(), VecDeque::new());
        let Ok(mut stream) = TcpStream::connect(addr) else { return (acked, waiting) };
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        if stream.write_all(format!("SUB chat {group}\n").as_bytes()).is_err() {
            return (acked, waiting);
        }
        while let Some(Ok(line)) = lines.next() {
            if line == "OK ack_received" {
                acked.extend(waiting.pop_front());
            } else if line.starts_with("MSG ") {
                let words: Vec<_> = line.split(' ').collect();
                waiting.push_back(words[3].parse().unwrap());
                if stream.write_all(format!("ACK {}\n", words[2]).as_bytes()).is_err() {
                    break;
                }
            }
        }
        (acked, waiting)
    }
}

/// The topic's files, read further each time.
pub(crate) struct Reading {
    dir: PathBuf,
    /// The segment that is read, by its first offset, and how much of it was.
    segment: u64,
    at: usize,
    next: u64,
    found: BTreeMap<String, (String, u64)>,
}

impl Reading {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), segment: 1, at: 0, next: 1, found: BTreeMap::new() }
    }

    /// Reads what is new. Offsets have no gap, and nothing is there twice.
    fn go_on(&mut self) {
        loop {
            let sealed = self.dir.join(format!("chat@{:020}.log", self.segment));
            let is_sealed = sealed.exists();
            let path = if is_sealed { sealed } else { self.dir.join("chat.log") };
            let Ok(bytes) = fs::read(path) else { return };
            for line in bytes[self.at..].lines() {
                let line = line.unwrap();
                self.at += line.len() + 1;
                let record: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(record["offset"], self.next, "no gap");
                let message = record["msg"].as_str().unwrap().to_owned();
                let place = (record["id"].as_str().unwrap().to_owned(), self.next);
                assert_eq!(self.found.insert(message, place), None, "nothing twice");
                self.next += 1;
            }
            if !is_sealed {
                return;
            }
            (self.segment, self.at) = (self.next, 0);
        }
    }

    /// What was answered is there, and is forgotten: it will not change any more.
    pub(crate) fn check(&mut self, told: &mut Told) {
        self.go_on();
        for (message, place) in std::mem::take(told) {
            assert_eq!(self.found.get(&message), Some(&place), "{message} was acknowledged");
        }
    }
}

/// Kills: 60, or as many as `WIBER_SOAK_KILLS` says.
fn kills() -> usize {
    std::env::var("WIBER_SOAK_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(60)
}

#[test]
fn what_was_acknowledged_survives_kill_9_with_eight_publishers() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir)
        .set("STORAGE__CHECKPOINT_BYTES", "64KiB")
        .set("STORAGE__SEGMENT", "256KiB")
        .set("STORAGE__WAL_SEGMENT", "1MiB")
        .set("DELIVERY__PREFETCH", "20");
    let mut told = Told::new();
    let mut groups = Groups::from([("g", Acks::default()), ("h", Acks::default())]);
    let mut reading = Reading::new(&dir);
    let mut answered = 0;
    // The groups are there before the first message.
    let broker = setup.start();
    for group in groups.keys() {
        broker.connect().ask(&format!("SUB chat {group}"));
    }
    broker.kill();
    for round in 0..kills() {
        if round % 6 == 5 {
            // It dies while it starts, too.
            let mut starting =
                setup.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            starting.kill().unwrap();
            starting.wait().unwrap();
        }
        let broker = setup.start();
        answered += told.len();
        reading.check(&mut told);
        let answers = [900, 1, 300, 40, 1500, 120][round % 6];
        live_and_die(broker, round, answers, &mut told, &mut groups);
    }
    let broker = setup.start();
    answered += told.len();
    reading.check(&mut told);
    for (group, acks) in &groups {
        let mut member = broker.connect();
        goes_on(&mut member, group, acks, reading.next - 1);
    }
    let acked: usize = groups.values().map(|acks| acks.answered.len()).sum();
    println!(
        "{} kills: {answered} messages answered, {acked} acknowledged; 0 lost, 0 twice",
        kills()
    );
}

/// The group goes on where it was: what was acknowledged does not come again, the rest does.
fn goes_on(member: &mut Nc, group: &str, acks: &Acks, end: u64) {
    member.ask(&format!("SUB chat {group}"));
    let mut missing: BTreeSet<u64> =
        (1..=end).filter(|n| !acks.answered.contains(n) && !acks.open.contains(n)).collect();
    let mut next = (!missing.is_empty()).then(|| member.message("chat"));
    while let Some(msg) = next {
        assert!(!acks.answered.contains(&msg.offset), "{} was acknowledged", msg.offset);
        missing.remove(&msg.offset);
        member.send(&format!("ACK {}", msg.id));
        next = None;
        while !missing.is_empty() && next.is_none() {
            let line = member.line();
            if line.starts_with("MSG ") {
                next = Some(Msg::parse("MSG", "chat", &line));
            } else {
                assert_eq!(line, "OK ack_received");
            }
        }
    }
}

#[test]
fn a_broker_that_was_killed_says_what_it_recovered() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir);
    let broker = setup.start();
    broker.connect().publish("chat", "hello");
    broker.kill();
    let broker = setup.start();
    assert!(broker.started.contains("recovered: 1 log records"), "{}", broker.started);
    assert_eq!(broker.stop(), Some(0));
    let broker = setup.start();
    assert!(broker.started.ends_with("clean start"), "{}", broker.started);
}

#[test]
fn sigterm_finishes_what_was_taken() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir);
    let broker = setup.start();
    let (answered, count) = mpsc::channel();
    let addr = broker.addr;
    let publisher = thread::spawn(move || publish_until_broken(addr, "p", &answered));
    for _ in 0..1_000 {
        count.recv().unwrap();
    }
    assert_eq!(broker.stop(), Some(0));
    let mut told = publisher.join().unwrap();
    let broker = setup.start();
    assert!(broker.started.ends_with("clean start"), "{}", broker.started);
    Reading::new(&dir).check(&mut told);
}

#[test]
fn one_daemon_a_directory_and_one_a_port() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir);
    let broker = setup.start();
    let second = setup.command().output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(5), "{error}");
    assert!(error.contains("a wiber broker serves this directory"), "{error}");
    let elsewhere = Setup::new(&dir.with_extension("other"));
    let third =
        elsewhere.command().env("WIBER_PORT", broker.addr.port().to_string()).output().unwrap();
    let error = String::from_utf8(third.stderr).unwrap();
    assert_eq!(third.status.code(), Some(4), "{error}");
    assert!(error.contains("failed to listen on 127.0.0.1:"), "{error}");
    // With the same port as well, as two that were given no settings have, it is the directory that counts:
    // another port would not help.
    let fourth =
        setup.command().env("WIBER_PORT", broker.addr.port().to_string()).output().unwrap();
    let error = String::from_utf8(fourth.stderr).unwrap();
    assert_eq!(fourth.status.code(), Some(5), "{error}");
    assert!(error.contains("a wiber broker serves this directory"), "{error}");
    // A killed daemon's lock is free.
    broker.kill();
    let broker = setup.start();
    wait_for(|| dir.join(".wiber/LOCK").exists(), || "the lock file".to_owned());
    drop(broker);
}
