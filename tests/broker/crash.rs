//! `kill -9` and what is there afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use crate::support::{Broker, Setup, data_dir, published, wait_for};

const PUBLISHERS: usize = 8;
const WINDOW: usize = 50;

/// What a publisher was told: message → (id, offset).
type Told = BTreeMap<String, (String, u64)>;

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

/// One life of the broker: eight publishers, two members that acknowledge, and a sudden end after
/// `answers` answers.
fn live_and_die(setup: &Setup, round: usize, answers: usize, told: &mut Told, acks: &mut Acks) {
    let broker = setup.start();
    let (answered, count) = mpsc::channel();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|n| {
            let (addr, answered) = (broker.addr, answered.clone());
            thread::spawn(move || publish_until_broken(addr, &format!("r{round}p{n}"), &answered))
        })
        .collect();
    let members: Vec<_> = (0..2).map(|_| thread::spawn(consume(broker.addr))).collect();
    for _ in 0..answers {
        count.recv().unwrap();
    }
    broker.kill();
    for publisher in publishers {
        told.extend(publisher.join().unwrap());
    }
    for member in members {
        let (answered, open) = member.join().unwrap();
        acks.answered.extend(answered);
        acks.open.extend(open);
    }
}

/// Acknowledgements of a group's members, by offset.
#[derive(Default)]
struct Acks {
    answered: BTreeSet<u64>,
    /// Sent, but the broker died before it answered.
    open: BTreeSet<u64>,
}

/// A member that acknowledges one message after the other; returns the offsets whose
/// acknowledgement was answered, and those whose was not.
fn consume(addr: std::net::SocketAddr) -> impl FnOnce() -> (Vec<u64>, VecDeque<u64>) {
    move || {
        let (mut acked, mut waiting) = (Vec::new(), VecDeque::new());
        let Ok(mut stream) = TcpStream::connect(addr) else { return (acked, waiting) };
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        if stream.write_all(b"SUB chat g\n").is_err() {
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

fn check_log(broker: &Broker, told: &Told) -> u64 {
    let records = broker.file("chat.log");
    let mut by_message = BTreeMap::new();
    for (offset, record) in (1u64..).zip(&records) {
        assert_eq!(record["offset"], offset, "no gap");
        let message = record["msg"].as_str().unwrap().to_owned();
        let place = (record["id"].as_str().unwrap().to_owned(), offset);
        assert_eq!(by_message.insert(message, place), None, "nothing twice");
    }
    for (message, place) in told {
        assert_eq!(by_message.get(message), Some(place), "{message} was acknowledged");
    }
    records.len() as u64
}

#[test]
fn what_was_acknowledged_survives_kill_9_with_eight_publishers() {
    let (_temp, dir) = data_dir();
    let setup =
        Setup::new(&dir).set("STORAGE__CHECKPOINT_BYTES", "256KiB").set("DELIVERY__PREFETCH", "20");
    let (mut told, mut acks) = (Told::new(), Acks::default());
    for (round, answers) in [2_000, 500, 4_000, 1, 3_000].into_iter().enumerate() {
        live_and_die(&setup, round, answers, &mut told, &mut acks);
        let broker = setup.start();
        check_log(&broker, &told);
        broker.kill();
    }
    // The group goes on where it was: what was acknowledged does not come again, the rest does.
    let broker = setup.start();
    let end = check_log(&broker, &told);
    let mut member = broker.connect();
    member.ask("SUB chat g");
    let mut missing: BTreeSet<u64> =
        (1..=end).filter(|n| !acks.answered.contains(n) && !acks.open.contains(n)).collect();
    // The group may have been created behind the first messages of the first round.
    let first = member.message("chat");
    missing.retain(|n| *n >= first.offset);
    let mut next = Some(first);
    while let Some(msg) = next {
        assert!(!acks.answered.contains(&msg.offset), "{} was acknowledged", msg.offset);
        missing.remove(&msg.offset);
        member.send(&format!("ACK {}", msg.id));
        next = loop {
            if missing.is_empty() {
                break None;
            }
            let line = member.line();
            if line.starts_with("MSG ") {
                break Some(crate::support::Msg::parse("MSG", "chat", &line));
            }
        };
    }
    assert!(missing.is_empty());
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
    let told = publisher.join().unwrap();
    let broker = setup.start();
    assert!(broker.started.ends_with("clean start"), "{}", broker.started);
    check_log(&broker, &told);
}

#[test]
fn one_daemon_a_directory_and_one_a_port() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir);
    let broker = setup.start();
    let second = setup.command().output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(5), "{error}");
    assert!(error.contains("another wiber broker serves this directory"), "{error}");
    let elsewhere = Setup::new(&dir.with_extension("other"));
    let third =
        elsewhere.command().env("WIBER_PORT", broker.addr.port().to_string()).output().unwrap();
    let error = String::from_utf8(third.stderr).unwrap();
    assert_eq!(third.status.code(), Some(4), "{error}");
    assert!(error.contains("failed to listen on 127.0.0.1:"), "{error}");
    // A killed daemon's lock is free.
    broker.kill();
    let broker = setup.start();
    wait_for(|| dir.join(".wiber/LOCK").exists(), || "the lock file".to_owned());
    drop(broker);
}
