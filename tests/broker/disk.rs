//! Damaged files and full disks, as clients and operators see them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread;

use crate::support::{Nc, Setup, data_dir, wait_for};

/// `HISTORY`: the offsets that come, and the line at the end.
fn history(nc: &mut Nc, topic: &str, count: usize) -> (Vec<u64>, String) {
    nc.send(&format!("HISTORY {topic} {count}"));
    let mut offsets = Vec::new();
    loop {
        let line = nc.line();
        match line.strip_prefix(&format!("HISTORY {topic} ")) {
            Some(rest) => offsets.push(rest.split(' ').nth(1).unwrap().parse().unwrap()),
            None => return (offsets, line),
        }
    }
}

#[test]
fn a_directory_is_checked_while_a_broker_serves_it_and_repaired_only_after() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).set("STORAGE__SEGMENT", "64KiB").start();
    let mut nc = broker.connect();
    let filling = "x".repeat(1000);
    for n in 1..=100 {
        nc.publish("chat", &format!("message {n} {filling}"));
    }
    let check = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
        command.env_clear().arg("check").arg("--data-dir").arg(&dir).args(args);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    };
    let (code, text) = check(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("1 topic, 100 messages, "), "{text}");
    assert!(text.ends_with(": all whole, beside a running broker\n"), "{text}");

    let sealed = dir.join("chat@00000000000000000001.log");
    let mut bytes = fs::read(&sealed).unwrap();
    let at = bytes.windows(10).position(|window| window == b"message 7 ").unwrap();
    bytes[at] ^= 1;
    fs::write(&sealed, bytes).unwrap();
    let (code, text) = check(&[]);
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("message 7: "), "{text}");
    assert!(text.ends_with("stop the broker, make a copy of it, then run wiber check --repair\n"));
    let (code, text) = check(&["--json"]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((code, &last["served"]), (Some(10), &true.into()), "{text}");

    let (code, text) = check(&["--repair"]);
    assert_eq!(code, Some(5), "{text}");
    assert!(
        text.contains("a wiber broker serves this directory") && text.contains("stop it first"),
        "{text}"
    );
    nc.publish("chat", "the broker goes on");
    assert_eq!(broker.stop(), Some(0));
    let (code, text) = check(&["--repair", "--json"]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((code, &last["served"]), (Some(0), &false.into()), "{text}");
}

/// Opened anew for each checkpoint, it knew nothing of a write that had failed if somebody else had synced the
/// file system before, and was told of it: what was not on disk counted as being there.
#[test]
fn the_folder_by_which_all_is_synced_is_open_from_the_start() {
    let (_temp, dir) = data_dir();
    for _ in 0..2 {
        let broker = Setup::new(&dir).start();
        let open = broker.open_files();
        assert!(open.contains(&dir), "{open:?}");
        assert_eq!(broker.stop(), Some(0));
    }
}

/// A check once kept a broker out until it was done.
#[test]
fn a_broker_that_starts_while_its_directory_is_checked_is_let_in() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir).set("STORAGE__SEGMENT", "1MiB").set("LIMITS__MESSAGE", "1MiB");
    let broker = setup.start();
    let mut nc = broker.connect();
    let filling = "x".repeat(500_000);
    for n in 1..=100 {
        nc.publish("chat", &format!("message {n} {filling}"));
    }
    assert_eq!(broker.stop(), Some(0));

    let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
    command.env_clear().args(["check", "--json", "--data-dir"]).arg(&dir);
    let check = command.stdout(Stdio::piped()).spawn().unwrap();
    let signal = |signal: &str| {
        let pid = check.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    let lock = || fs::read_to_string(dir.join(".wiber/LOCK")).unwrap();
    wait_for(|| lock() == "wiber check\n", || format!("the check in {:?}", lock()));
    signal("-STOP");
    let starting = thread::spawn(move || setup.start());
    wait_for(|| lock().ends_with("a broker waits for it\n"), || format!("in {:?}", lock()));
    signal("-CONT");
    let broker = starting.join().unwrap();
    assert!(broker.started.ends_with("clean start"), "{}", broker.started);
    broker.wait_logged("waits_for_reader");
    broker.connect().publish("chat", "meanwhile");
    let output = check.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    let all: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(
        (output.status.code(), &all["whole"], &all["served"]),
        (Some(0), &true.into(), &true.into()),
        "{text}"
    );
    assert!(all["messages"].as_u64() >= Some(100), "{text}");
    assert_eq!(lock(), "", "it is the broker's");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(broker.stop(), Some(0));
}

/// A history that somebody had open in a pager once kept a broker out for as long.
#[test]
fn a_broker_that_starts_while_its_files_are_read_is_let_in() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir).set("STORAGE__SEGMENT", "1MiB").set("LIMITS__MESSAGE", "1MiB");
    let broker = setup.start();
    let mut nc = broker.connect();
    let filling = "x".repeat(300_000);
    for n in 1..=18 {
        nc.publish("chat", &format!("message {n} {filling}"));
    }
    broker.kill();

    let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
    command.env_clear().args(["history", "chat", "18", "--data-dir"]).arg(&dir);
    // Nobody reads what it prints for now: it waits with most of it unread.
    let history = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lock = || fs::read_to_string(dir.join(".wiber/LOCK")).unwrap();
    wait_for(|| lock() == "wiber history\n", || format!("the history in {:?}", lock()));
    let broker = setup.start();
    broker.wait_logged("waits_for_reader");
    let mut nc = broker.connect();
    // What was the active segment has another name now.
    for n in 19..=30 {
        nc.publish("chat", &format!("message {n} {filling}"));
    }
    let output = history.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
    let numbers = text.lines().map(|line| line.split(' ').nth(3).unwrap().parse::<u64>().unwrap());
    assert_eq!(numbers.collect::<Vec<_>>(), (1..=18).collect::<Vec<_>>());
    assert_eq!(lock(), "", "it is the broker's");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_bad_line_in_a_sealed_segment_costs_that_line_only() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir).set("STORAGE__SEGMENT", "64KiB");
    let broker = setup.start();
    let mut nc = broker.connect();
    let filling = "x".repeat(1000);
    for n in 1..=100 {
        nc.publish("chat", &format!("message {n} {filling}"));
    }
    nc.ask("SUB chat group");
    assert_eq!(broker.stop(), Some(0));
    let sealed = dir.join("chat@00000000000000000001.log");
    let mut bytes = fs::read(&sealed).unwrap();
    let at = bytes.windows(10).position(|window| window == b"message 7 ").unwrap();
    bytes[at] ^= 1;
    fs::write(&sealed, bytes).unwrap();

    let broker = setup.start();
    let mut nc = broker.connect();
    let (offsets, end) = history(&mut nc, "chat", 100);
    assert_eq!(offsets, (1..=100).filter(|n| *n != 7).collect::<Vec<u64>>());
    assert!(end.starts_with("ERR CORRUPT message 7 of topic chat is damaged"), "{end}");
    assert!(end.contains("topic=chat offset=7"), "{end}");
    assert!(end.contains("chat@00000000000000000001.log"), "{end}");
    // What is not asked for is found all the same.
    broker.wait_logged("segment_damaged");
    let (offsets, end) = history(&mut nc, "chat", 10);
    assert_eq!((offsets.len(), end.as_str()), (10, "OK history end"));
    nc.publish("chat", "it goes on");
}

/// The command line passes over what the broker passes over.
#[test]
fn damaged_messages_cost_whoever_reads_them_no_others() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut nc = broker.connect();
    for n in 1..=10 {
        nc.publish("chat", &format!("message {n} of ten"));
    }
    // The newest, too: a start would refuse that.
    let path = dir.join("chat.log");
    let bytes = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for message in ["message 5 of", "message 10 of"] {
        let is_it = |window: &[u8]| window == message.as_bytes();
        let at = bytes.windows(message.len()).position(is_it).unwrap();
        file.write_all_at(b"M", at as u64).unwrap();
    }

    let addr = broker.addr.to_string();
    let wiber = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
        command.env_clear().args(args).arg("--addr").arg(&addr);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let output = wiber(&["history", "chat"]).wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let told = text(output.stderr);
    assert_eq!(
        (output.status.code(), text(output.stdout).lines().count()),
        (Some(10), 8),
        "{told}"
    );
    assert!(told.contains("message 5 of topic chat is damaged"), "{told}");

    // Its history is printed once it is subscribed: what is published then is pushed.
    let mut sub = wiber(&["sub", "chat", "--history", "10", "--count", "1"]);
    let mut out = BufReader::new(sub.stdout.take().unwrap());
    let mut lines = String::new();
    for _ in 0..8 {
        assert!(out.read_line(&mut lines).unwrap() > 0, "{lines}");
    }
    nc.publish("chat", "it goes on");
    out.read_to_string(&mut lines).unwrap();
    let output = sub.wait_with_output().unwrap();
    let told = text(output.stderr);
    assert_eq!((output.status.code(), lines.lines().count()), (Some(0), 9), "{told}");
    assert!(lines.ends_with(" it goes on\n"), "{lines}");
    assert!(told.contains("message 5 of topic chat is damaged"), "{told}");
}

#[test]
fn without_its_reserve_publishing_is_refused_and_the_rest_goes_on() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut nc = broker.connect();
    nc.ask("SUB work group");
    let (id, _) = nc.publish("work", "to be done");
    assert!(nc.message("work").id == id);
    assert_eq!(broker.stop(), Some(0));

    // More than any disk has free.
    let broker = Setup::new(&dir).set("STORAGE__MIN_FREE", "1000000GiB").start();
    broker.wait_logged("disk_full");
    let mut nc = broker.connect();
    let refusal = nc.ask("PUB work more");
    assert!(refusal.starts_with("ERR DISK_FULL "), "{refusal}");
    assert!(refusal.contains("storage.min_free") && refusal.contains("retry_after="), "{refusal}");
    nc.ask("SUB work group");
    assert_eq!(nc.message("work").id, id);
    nc.send(&format!("ACK {id}"));
    nc.expect("OK ack_received");
    assert_eq!(history(&mut nc, "work", 5), (vec![1], "OK history end".to_owned()));
    assert_eq!(broker.stop(), Some(0), "a stop in order needs no room of the reserve");

    let broker = Setup::new(&dir).start();
    let mut nc = broker.connect();
    assert_eq!(nc.publish("work", "more").1, 2);
}

#[test]
fn a_second_signal_ends_it_at_once_and_nothing_is_lost() {
    let (_temp, dir) = data_dir();
    let mut broker = Setup::new(&dir).start();
    let mut nc = broker.connect();
    nc.publish("chat", &"x".repeat(900_000));
    // It waits for this one to take its answers, which it does not.
    let mut deaf = broker.connect();
    deaf.raw("HISTORY chat 1\n".repeat(40).as_bytes());
    // One has begun to arrive: the broker has read what was asked.
    deaf.line();
    broker.signal("-TERM");
    broker.wait_logged("stopping in order");
    broker.signal("-TERM");
    assert_eq!(broker.child.wait().unwrap().code(), Some(130));
    assert!(broker.logged().contains("the next start will recover"), "{}", broker.logged());
    assert_eq!(Setup::new(&dir).start().connect().publish("chat", "next").1, 2);
}

/// A file that somebody had taken a line out of could not be repaired, and every start was refused.
#[test]
fn a_file_that_lost_a_line_is_repaired_and_served() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir);
    let broker = setup.start();
    let mut nc = broker.connect();
    for n in 1..=20 {
        nc.publish("chat", &format!("message {n}"));
    }
    assert_eq!(broker.stop(), Some(0));
    let path = dir.join("chat.log");
    let whole = fs::read_to_string(&path).unwrap();
    let without: Vec<_> =
        whole.split_inclusive('\n').filter(|l| !l.contains("message 5\"")).collect();
    fs::write(&path, without.concat()).unwrap();
    let refused = setup.command().output().unwrap();
    assert_eq!(refused.status.code(), Some(10));
    let check = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
        command.env_clear().arg("check").arg("--data-dir").arg(&dir).args(args);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check(&["--repair"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("message 5 is missing"), "{text}");
    assert!(text.ends_with(": whole, but for 1 lost before a repair\n"), "{text}");
    assert_eq!(fs::read(&path).unwrap().len(), whole.len(), "the checkpoint knows how long it is");
    let broker = setup.start();
    let (offsets, _) = history(&mut broker.connect(), "chat", 20);
    assert_eq!(offsets, (1..=20).filter(|n| *n != 5).collect::<Vec<_>>());
    assert_eq!(broker.stop(), Some(0));
}

/// A check spoke of byte 4096 of the folder, and a repair failed at it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a file is moved as an operator does it")]
fn a_folder_in_the_place_of_a_topics_file_is_told() {
    let (_temp, dir) = data_dir();
    let setup = Setup::new(&dir);
    let broker = setup.start();
    broker.connect().publish("chat", "message");
    assert_eq!(broker.stop(), Some(0));
    fs::rename(dir.join("chat.log"), dir.join("moved")).unwrap();
    fs::create_dir(dir.join("chat.log")).unwrap();
    let check = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
        command.env_clear().arg("check").arg("--data-dir").arg(&dir).args(args);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for args in [&[][..], &["--repair"]] {
        let (code, text) = check(args);
        assert_eq!(code, Some(10), "{text}");
        let told =
            "damage  chat.log\n        it is a folder, and the file of this name held messages";
        assert!(text.contains(told), "{text}");
        assert!(text.ends_with("\nmove away what is in a file's place first\n"), "{text}");
    }
    fs::remove_dir(dir.join("chat.log")).unwrap();
    fs::rename(dir.join("moved"), dir.join("chat.log")).unwrap();
    let (code, text) = check(&[]);
    assert_eq!(code, Some(0), "{text}");
}
