//! What is kept of a topic, as its users see it: files that go, and messages that stay while a group needs
//! them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Broker, Msg, Nc, Setup, data_dir, published, wait_for};

const MESSAGES: u64 = 600;

/// Small files and many checkpoints, so that a test need not wait.
fn keeping(dir: &Path, key: &str, value: &str) -> Setup {
    Setup::new(dir)
        .set("STORAGE__SEGMENT", "64KiB")
        .set("STORAGE__CHECKPOINT_INTERVAL", "10ms")
        .set(key, value)
}

fn publish(nc: &mut Nc, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    let filling = "x".repeat(1000);
    let lines: String = numbers.clone().map(|n| format!("PUB {topic} {n} {filling}\n")).collect();
    nc.raw(lines.as_bytes());
    numbers.for_each(|n| assert_eq!(published(&nc.line()).1, n));
}

/// All that there is of a topic, by `HISTORY`.
fn history(nc: &mut Nc, topic: &str) -> Vec<u64> {
    nc.send(&format!("HISTORY {topic} 100000"));
    let mut offsets = Vec::new();
    loop {
        let line = nc.line();
        if !line.starts_with("HISTORY") {
            assert_eq!(line, "OK history end");
            return offsets;
        }
        let message = Msg::parse("HISTORY", topic, &line);
        assert!(message.body.starts_with(&format!("{} ", message.offset)), "{}", message.body);
        offsets.push(message.offset);
    }
}

/// The topic's files and how long they are.
fn files(dir: &Path, topic: &str) -> Vec<(String, u64)> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let entries = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let is_its = name == format!("{topic}.log") || name.starts_with(&format!("{topic}@"));
        is_its.then(|| Some((name, entry.metadata().ok()?.len()))).flatten()
    });
    let mut files: Vec<_> = entries.collect();
    files.sort();
    files
}

fn bytes(dir: &Path, topic: &str) -> u64 {
    files(dir, topic).iter().map(|(_, len)| len).sum()
}

fn check(dir: &Path) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_wiber"));
    let output = check.env_clear().arg("check").arg("--data-dir").arg(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_is_too_much_goes_and_what_a_group_has_not_handled_stays() {
    let (_temp, dir) = data_dir();
    let setup = keeping(&dir, "RETENTION__BYTES", "128KiB");
    let broker = setup.start();
    let mut nc = broker.connect();
    let mut member = broker.connect();
    assert_eq!(member.ask("SUB jobs workers"), "OK subscribed jobs in group workers");
    publish(&mut nc, "chat", 1..=MESSAGES);
    publish(&mut nc, "jobs", 1..=MESSAGES);
    // Two segments and the one that is written.
    let size = || format!("chat to become small: {:?}", files(&dir, "chat"));
    wait_for(|| bytes(&dir, "chat") <= 128 << 10, size);
    let kept = history(&mut nc, "chat");
    let first = kept[0];
    assert!(first > MESSAGES / 2, "{first}");
    assert_eq!(kept, (first..=MESSAGES).collect::<Vec<_>>());
    assert_eq!(files(&dir, "chat")[0].0, format!("chat@{first:020}.log"));
    check(&dir);
    // Nothing of the other topic has gone, and it is said why.
    broker.wait_logged("since group workers has not handled message 1");
    assert_eq!(history(&mut nc, "jobs"), (1..=MESSAGES).collect::<Vec<_>>());
    let mut acked = 0;
    while acked < MESSAGES {
        let line = member.line();
        if line == "OK ack_received" {
            acked += 1;
        } else {
            member.send(&format!("ACK {}", Msg::parse("MSG", "jobs", &line).id));
        }
    }
    wait_for(|| bytes(&dir, "jobs") <= 128 << 10, || format!("jobs: {:?}", files(&dir, "jobs")));

    // It is the same after a crash, and offsets go on.
    broker.kill();
    check(&dir);
    let broker = setup.start();
    let mut nc = broker.connect();
    assert_eq!(history(&mut nc, "chat"), kept);
    assert!(history(&mut nc, "jobs")[0] > MESSAGES / 2);
    publish(&mut nc, "chat", MESSAGES + 1..=MESSAGES + 1);
    assert_eq!(history(&mut nc, "chat"), (first..=MESSAGES + 1).collect::<Vec<_>>());
    assert_eq!(broker.stop(), Some(0));
    check(&dir);
}

#[test]
fn what_is_too_old_goes_to_the_last_message_and_offsets_go_on() {
    let (_temp, dir) = data_dir();
    let broker = keeping(&dir, "RETENTION__AGE", "1s").start();
    let mut nc = broker.connect();
    publish(&mut nc, "chat", 1..=100);
    wait_for(|| files(&dir, "chat").is_empty(), || format!("{:?}", files(&dir, "chat")));
    assert!(history(&mut nc, "chat").is_empty());
    broker.wait_logged("messages_expired");
    assert_eq!(broker.stop(), Some(0));
    check(&dir);
    let broker = keeping(&dir, "RETENTION__AGE", "1h").start();
    let mut nc = broker.connect();
    publish(&mut nc, "chat", 101..=101);
    assert_eq!(history(&mut nc, "chat"), [101]);
}

/// A subscriber that does not read misses what is no longer kept; that shows in the offsets, and in the log.
#[test]
fn a_subscriber_that_reads_too_late_goes_on_with_what_is_kept() {
    let (_temp, dir) = data_dir();
    let broker: Broker = keeping(&dir, "RETENTION__BYTES", "64KiB").start();
    let mut subscriber = broker.connect();
    assert_eq!(subscriber.ask("SUB chat"), "OK subscribed chat");
    let mut nc = broker.connect();
    // More than the tail cache, and all buffers on the way, can hold.
    let mut last = 0;
    let filling = "x".repeat(1_000_000);
    for _ in 0..100 {
        last += 1;
        nc.raw(format!("PUB chat {last} {filling}\n").as_bytes());
        assert_eq!(published(&nc.line()).1, last);
    }
    // Each of them fills a file of its own, and all of those go.
    wait_for(|| files(&dir, "chat").is_empty(), || format!("{:?}", files(&dir, "chat")));
    last += 1;
    nc.raw(b"PUB chat the last one\n");
    assert_eq!(published(&nc.line()).1, last);
    let (mut next, mut missed) = (1, 0);
    while next <= last {
        let message = subscriber.message("chat");
        assert!(message.offset >= next, "in their order");
        missed += message.offset - next;
        next = message.offset + 1;
    }
    assert!(missed > 0);
    broker.wait_logged("are no longer kept");
}
