//! What the prototype's README shows, by hand with `nc`, against the real daemon.

use std::time::Duration;

use crate::support::{Broker, Msg, Setup, data_dir, published, quick, wait_for};

#[test]
fn publish_subscribe_history() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut subscriber = broker.connect();
    assert_eq!(subscriber.ask("SUB chat"), "OK subscribed chat");
    let mut publisher = broker.connect();
    let (id, offset) = publisher.publish("chat", "Hello, distributed world!");
    assert_eq!(offset, 1);
    let msg = subscriber.message("chat");
    assert_eq!((msg.id.as_str(), msg.offset), (id.as_str(), 1));
    assert_eq!(msg.body, "Hello, distributed world!");
    let late = publisher.publish("chat", " spaces  stay ");
    assert_eq!(subscriber.message("chat").body, " spaces  stay ");
    publisher.send("HISTORY chat 5");
    let lines: Vec<_> = (0..2).map(|_| Msg::parse("HISTORY", "chat", &publisher.line())).collect();
    publisher.expect("OK history end");
    assert_eq!(lines[0], msg);
    assert_eq!((lines[1].id.as_str(), lines[1].offset), (late.0.as_str(), 2));
    publisher.send("HISTORY chat 1");
    assert_eq!(Msg::parse("HISTORY", "chat", &publisher.line()).offset, 2);
    publisher.expect("OK history end");
    assert_eq!(publisher.ask("HISTORY chat 0"), "OK history end");
    assert_eq!(publisher.ask("HISTORY nothing 5"), "OK history end");
    assert_eq!(publisher.ask("quit"), "OK bye");
    assert!(publisher.is_closed());
}

#[test]
fn the_file_has_a_line_for_each_message_as_soon_as_it_is_acknowledged() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    let (id, _) = nc.publish("chat", "Hello \"you\" \\ ü");
    let text = std::fs::read_to_string(dir.join("chat.log")).unwrap();
    let prefix = format!("{{\"id\":\"{id}\",\"offset\":1,\"ts\":");
    assert!(text.starts_with(&prefix), "{text}");
    let line = &broker.file("chat.log")[0];
    assert_eq!(line["msg"], "Hello \"you\" \\ ü");
    assert!(line["ts"].as_f64().unwrap() > 1.7e9);
    assert_eq!(line["crc"].as_str().unwrap().len(), 8);
}

/// Lines of many topics at once may come a little later; nobody who asks the broker can tell, and none is
/// lost.
#[test]
fn the_files_of_many_topics_have_their_lines_in_a_moment() {
    const TOPICS: usize = 300;
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    let round = |n: u32| (0..TOPICS).map(|t| format!("PUB t{t} round {n}\n")).collect::<String>();
    let mut offsets = |broker: &Broker, n: u32| {
        nc = broker.connect();
        nc.raw(round(n).as_bytes());
        (0..TOPICS).map(|_| published(&nc.line()).1).collect::<Vec<_>>()
    };
    assert_eq!(offsets(&broker, 1), [1; TOPICS]);
    let mut reader = broker.connect();
    let mut history = |broker: &Broker, t: usize| {
        reader = broker.connect();
        reader.send(&format!("HISTORY t{t} 9"));
        let lines =
            std::iter::from_fn(|| Some(reader.line()).filter(|line| !line.starts_with("OK")));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(history(&broker, TOPICS - 1), ["1"]);
    let has_line = |t| {
        std::fs::read_to_string(dir.join(format!("t{t}.log")))
            .is_ok_and(|text| text.ends_with('\n') && text.contains("round 1"))
    };
    wait_for(|| (0..TOPICS).all(has_line), || "lines are missing".to_owned());
    assert_eq!(offsets(&broker, 2), [2; TOPICS]);
    broker.kill();
    let broker = Broker::quick(&dir);
    for t in 0..TOPICS {
        assert_eq!(history(&broker, t), ["1", "2"]);
    }
}

#[test]
fn three_members_share_four_messages_one_two_three_one() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut members: Vec<_> = (0..3).map(|_| broker.connect()).collect();
    for member in &mut members {
        assert_eq!(member.ask("SUB chat processors"), "OK subscribed chat in group processors");
    }
    let mut publisher = broker.connect();
    for n in 1..=4 {
        publisher.publish("chat", &format!("Message {n}"));
    }
    let mut ids = Vec::new();
    for (member, n) in [(0, 1), (1, 2), (2, 3), (0, 4)] {
        let msg = members[member].message("chat");
        assert_eq!((msg.body, msg.offset), (format!("Message {n}"), n));
        ids.push((member, msg.id));
    }
    for (member, id) in ids {
        assert_eq!(members[member].ask(&format!("ACK {id}")), "OK ack_received");
    }
}

#[test]
fn every_group_gets_every_message_and_so_does_a_plain_subscriber() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut plain = broker.connect();
    plain.ask("SUB chat");
    let mut groups: Vec<_> = ["processors", "processors", "analyzers", "analyzers"]
        .map(|group| {
            let mut member = broker.connect();
            member.ask(&format!("SUB chat {group}"));
            member
        })
        .into();
    let mut publisher = broker.connect();
    for n in 1..=4 {
        publisher.publish("chat", &n.to_string());
    }
    let mut offsets =
        |at: usize| -> Vec<u64> { (0..2).map(|_| groups[at].message("chat").offset).collect() };
    assert_eq!([offsets(0), offsets(1)], [[1, 3], [2, 4]]);
    assert_eq!([offsets(2), offsets(3)], [[1, 3], [2, 4]]);
    let seen: Vec<u64> = (0..4).map(|_| plain.message("chat").offset).collect();
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn several_topics_and_groups_on_one_connection() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    for (topic, group) in [("a", "g"), ("b", "g"), ("a", "h")] {
        nc.ask(&format!("SUB {topic} {group}"));
    }
    let mut publisher = broker.connect();
    // One read, one time: both topics' first messages have the same milliseconds and offset.
    publisher.raw(b"PUB a 1\nPUB b 1\n");
    published(&publisher.line());
    published(&publisher.line());
    let mut ids = Vec::new();
    for _ in 0..3 {
        let line = nc.line();
        ids.push(line.split(' ').nth(2).unwrap().to_owned());
    }
    for id in &ids {
        assert_eq!(nc.ask(&format!("ACK {id}")), "OK ack_received");
    }
    for id in ids {
        let answer = nc.ask(&format!("ACK {id}"));
        assert_eq!(answer, format!("ERR NOT_PENDING message {id} not found in pending messages"));
    }
}

#[test]
fn a_member_gets_five_messages_and_then_one_for_each_acknowledgement() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut member = broker.connect();
    member.ask("SUB chat g");
    let mut publisher = broker.connect();
    for n in 1..=8 {
        publisher.publish("chat", &n.to_string());
    }
    let held: Vec<_> = (0..5).map(|_| member.message("chat")).collect();
    assert!(member.is_quiet(Duration::from_millis(100)));
    member.send(&format!("ACK {}", held[2].id));
    let mut lines = [member.line(), member.line()];
    lines.sort();
    assert_eq!(Msg::parse("MSG", "chat", &lines[0]).offset, 6);
    assert_eq!(lines[1], "OK ack_received");
}

#[test]
fn a_message_that_is_never_acknowledged_is_sent_four_times_and_then_a_dead_letter() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut member = broker.connect();
    member.ask("SUB chat g");
    let mut publisher = broker.connect();
    let (id, _) = publisher.publish("chat", "poison");
    for _ in 0..4 {
        assert_eq!(member.message("chat").id, id);
    }
    wait_for(|| broker.file("chat.dlq.log").len() == 1, || "the dead letter".to_owned());
    let letter = &broker.file("chat.dlq.log")[0];
    assert_eq!(letter["msg"], "poison");
    assert_eq!(letter["original_topic"], "chat");
    assert_eq!(letter["original_id"], id.as_str());
    assert_eq!(letter["original_offset"], 1);
    assert_eq!(letter["group"], "g");
    assert_eq!(letter["retry_count"], 3);
    assert_eq!(letter["failure_reason"], "ack timeout");
    let attempts = letter["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 4);
    for (n, attempt) in (1..).zip(attempts) {
        assert_eq!((&attempt["n"], &attempt["outcome"]), (&n.into(), &"timeout".into()));
    }
    let ended = |n: usize| attempts[n]["ended"].as_f64().unwrap();
    let sent = |n: usize| attempts[n]["sent"].as_f64().unwrap();
    for (n, delay) in [0.050, 0.100, 0.200].into_iter().enumerate() {
        assert!(sent(n + 1) - ended(n) >= delay - 0.001, "retry {n}");
    }
    // It can be read, whole, and it is not delivered again.
    let mut reader = broker.connect();
    reader.send("HISTORY chat.dlq 1");
    let line = Msg::parse("HISTORY", "chat.dlq", &reader.line());
    let record: serde_json::Value = serde_json::from_str(&line.body).unwrap();
    assert_eq!(&record, letter);
    reader.expect("OK history end");
    assert!(member.is_quiet(Duration::from_millis(100)));
    broker.wait_logged("dead_lettered");
    broker.wait_logged("3/3");
}

#[test]
fn nobody_online_is_no_failure() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut member = broker.connect();
    member.ask("SUB chat g");
    drop(member);
    let mut publisher = broker.connect();
    for n in 1..=3 {
        publisher.publish("chat", &n.to_string());
    }
    std::thread::sleep(Duration::from_millis(1200));
    let mut member = broker.connect();
    member.ask("SUB chat g");
    for n in 1..=3 {
        assert_eq!(member.message("chat").offset, n);
    }
    assert!(!dir.join("chat.dlq.log").exists());
}

#[test]
fn a_closed_connection_gives_its_messages_to_others_at_once() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut first = broker.connect();
    first.ask("SUB chat g");
    let mut publisher = broker.connect();
    for n in 1..=5 {
        publisher.publish("chat", &n.to_string());
    }
    for n in 1..=5 {
        assert_eq!(first.message("chat").offset, n);
    }
    let mut second = broker.connect();
    second.ask("SUB chat g");
    drop(first);
    for n in 1..=5 {
        assert_eq!(second.message("chat").offset, n);
    }
}

#[test]
fn a_silent_member_is_dead_and_lives_again_when_heard() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).set("DELIVERY__DEAD_AFTER", "1500ms").start();
    let mut silent = broker.connect();
    silent.ask("SUB chat g");
    let mut plain = broker.connect();
    plain.ask("SUB chat");
    let mut publisher = broker.connect();
    publisher.publish("chat", "one");
    let held = silent.message("chat");
    let mut other = broker.connect();
    other.ask("SUB chat g");
    // The other one keeps saying something.
    while other.is_quiet(Duration::from_millis(100)) {
        other.send("HEARTBEAT");
        other.expect("OK heartbeat_received");
    }
    assert_eq!(other.message("chat"), held, "what the silent one held");
    broker.wait_logged("consumer_dead");
    // Both were silent; the plain subscriber may be so for ever.
    assert_eq!(plain.message("chat"), held);
    assert_eq!(silent.ask("HEARTBEAT"), "OK heartbeat_received");
    // It is a member again: the next messages are shared.
    publisher.raw(b"PUB chat two\nPUB chat three\n");
    let mut shared = [silent.message("chat").offset, other.message("chat").offset];
    shared.sort_unstable();
    assert_eq!(shared, [2, 3]);
    assert_eq!([plain.message("chat").offset, plain.message("chat").offset], [2, 3]);
}

#[test]
fn a_late_acknowledgement_counts() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir)
        .set("DELIVERY__ACK_TIMEOUT", "200ms")
        .set("DELIVERY__BACKOFF", "30s")
        .start();
    let mut member = broker.connect();
    member.ask("SUB chat g");
    let (id, _) = broker.connect().publish("chat", "slow work");
    assert_eq!(member.message("chat").id, id);
    broker.wait_logged("retry");
    assert_eq!(member.ask(&format!("ACK {id}")), "OK ack_received");
    assert!(member.ask(&format!("ACK {id}")).starts_with("ERR NOT_PENDING"));
}

#[test]
fn groups_and_messages_survive_a_restart() {
    let (_temp, dir) = data_dir();
    let setup = quick(&dir);
    let broker = setup.start();
    assert!(broker.started.ends_with("new directory"), "{}", broker.started);
    let mut member = broker.connect();
    member.ask("SUB chat g");
    let mut publisher = broker.connect();
    let ids: Vec<_> = (1..=3).map(|n| publisher.publish("chat", &n.to_string()).0).collect();
    for id in &ids[..2] {
        assert_eq!(&member.message("chat").id, id);
    }
    assert_eq!(member.message("chat").id, ids[2]);
    assert_eq!(member.ask(&format!("ACK {}", ids[0])), "OK ack_received");
    assert_eq!(member.ask(&format!("ACK {}", ids[2])), "OK ack_received");
    assert_eq!(broker.stop(), Some(0));
    let broker = setup.start();
    assert!(broker.started.ends_with("clean start"), "{}", broker.started);
    let mut publisher = broker.connect();
    assert_eq!(publisher.publish("chat", "4").1, 4);
    let mut member = broker.connect();
    member.ask("SUB chat g");
    assert_eq!(member.message("chat").id, ids[1]);
    assert_eq!(member.message("chat").offset, 4);
}

#[test]
fn a_backlog_of_a_hundred_thousand_waits_in_the_log_and_not_in_memory() {
    const COUNT: u64 = 100_000;
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut member = broker.connect();
    member.ask("SUB chat g");
    let mut publisher = broker.connect();
    let before = broker.memory();
    let body = "x".repeat(100);
    for _ in 0..COUNT / 1000 {
        publisher.raw(format!("PUB chat {body}\n").repeat(1000).as_bytes());
        for _ in 0..1000 {
            published(&publisher.line());
        }
    }
    // 20 MB of lines went by; what stays is the cache of recent lines, which has a bound.
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 80_000, "{grown} KiB");
    // Nothing is skipped, and the order of first delivery is the order of the offsets.
    let mut expected = 1;
    while expected <= COUNT {
        let line = member.line();
        if line == "OK ack_received" {
            continue;
        }
        let msg = Msg::parse("MSG", "chat", &line);
        assert_eq!(msg.offset, expected);
        member.send(&format!("ACK {}", msg.id));
        expected += 1;
    }
}

#[test]
fn a_member_that_is_killed_or_stopped_loses_nothing() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).set("DELIVERY__DEAD_AFTER", "1s").start();
    let mut publisher = broker.connect();
    let consumer = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_wiber"))
            .args(["sub", "chat", "--group", "g", "--no-ack", "--addr", &broker.addr.to_string()])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut next = 1;
    for signal in ["-KILL", "-STOP"] {
        let mut child = consumer();
        wait_for(
            || broker.logged().matches("member_joined").count() as u64 >= next,
            || "the member".to_owned(),
        );
        next += 2;
        for n in 0..5 {
            publisher.publish("chat", &n.to_string());
        }
        let pid = child.id().to_string();
        std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        let mut other = broker.connect();
        other.ask("SUB chat g");
        let mut seen = Vec::new();
        while seen.len() < 5 {
            if other.is_quiet(Duration::from_millis(100)) {
                other.send("HEARTBEAT");
            } else {
                let line = other.line();
                if line.starts_with("MSG ") {
                    let msg = Msg::parse("MSG", "chat", &line);
                    other.send(&format!("ACK {}", msg.id));
                    seen.push(msg.offset);
                }
            }
        }
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{signal}: {seen:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_directory_of_the_prototype_is_taken_over() {
    let (_temp, dir) = data_dir();
    std::fs::create_dir(&dir).unwrap();
    let old = "{\"id\": \"msg_1758865780040_e10628bb\", \"offset\": 1, \"ts\": 1758865780.0369835, \
               \"msg\": \"Hello, distributed world! \\u00fc\"}\n";
    std::fs::write(dir.join("chat.log"), old).unwrap();
    let setup = quick(&dir);
    let broker = setup.start();
    assert!(broker.started.ends_with("adopted 1 messages in 1 topics"), "{}", broker.started);
    let mut nc = broker.connect();
    assert_eq!(nc.publish("chat", "new").1, 2);
    nc.send("HISTORY chat 2");
    nc.expect(
        "HISTORY chat msg_1758865780040_e10628bb 1 1758865780.0369835 Hello, distributed world! ü",
    );
    nc.line();
    nc.expect("OK history end");
    broker.kill();
    let broker = setup.start();
    assert!(std::fs::read_to_string(dir.join("chat.log")).unwrap().starts_with(old));
    assert_eq!(broker.connect().publish("chat", "newer").1, 3);
}

#[test]
fn every_durability_setting_keeps_what_was_written_in_order() {
    for fsync in ["always", "interval:20ms", "never"] {
        let (_temp, dir) = data_dir();
        let setup = quick(&dir).set("STORAGE__FSYNC", fsync);
        let broker = setup.start();
        assert!(broker.started.contains(&format!("fsync {fsync} ")), "{}", broker.started);
        let mut nc = broker.connect();
        for n in 1..=100 {
            assert_eq!(nc.publish("chat", &n.to_string()).1, n);
        }
        // The process dies, the machine does not.
        broker.kill();
        let broker = setup.start();
        assert_eq!(broker.file("chat.log").len(), 100, "{fsync}");
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn small_segments_roll_and_history_reads_across_them() {
    let (_temp, dir) = data_dir();
    let setup =
        quick(&dir).set("STORAGE__SEGMENT", "64KiB").set("STORAGE__CHECKPOINT_BYTES", "128KiB");
    let broker = setup.start();
    let mut nc = broker.connect();
    let body = "y".repeat(1000);
    for n in 1..=500 {
        assert_eq!(nc.publish("chat", &body).1, n);
    }
    let sealed = |dir: &std::path::Path| {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("chat@")).count()
    };
    assert!(sealed(&dir) > 5);
    nc.send("HISTORY chat 500");
    for n in 1..=500 {
        assert_eq!(Msg::parse("HISTORY", "chat", &nc.line()).offset, n);
    }
    nc.expect("OK history end");
    broker.kill();
    let broker = setup.start();
    let mut nc = broker.connect();
    nc.send("HISTORY chat 300");
    assert_eq!(Msg::parse("HISTORY", "chat", &nc.line()).offset, 201);
}

/// Where the system does not allow it, that is said, and all else goes on.
#[cfg(target_os = "linux")]
#[test]
fn processors_are_kept_awake_while_messages_are_written() {
    let device = std::path::Path::new("/dev/cpu_dma_latency");
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).set("SERVER__KEEP_AWAKE", "busy").start();
    let mut nc = broker.connect();
    if std::fs::File::options().write(true).open(device).is_err() {
        broker.wait_logged("keep_awake_failed");
        nc.publish("chat", "all the same");
        return;
    }
    let is_held = || broker.open_files().iter().any(|file| file == device);
    assert!(!is_held(), "nobody has published");
    let publishes = || {
        nc.publish("chat", "hello");
        is_held()
    };
    wait_for(publishes, || "kept awake".to_owned());
    wait_for(|| !is_held(), || "let asleep".to_owned());
}

/// Nobody has asked for it, so on a machine with many processors nothing is done, and nothing is said
/// where the system does not allow it.
#[cfg(target_os = "linux")]
#[test]
fn processors_are_kept_awake_while_the_log_is_synced_without_a_pause() {
    let device = std::path::Path::new("/dev/cpu_dma_latency");
    // Nothing is synced sooner than in memory, of which a container may have little for files.
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let setup = Setup::new(&temp.path().join("data"));
    let setup = setup.set("STORAGE__WAL_SEGMENT", "1MiB").set("STORAGE__MIN_FREE", "1MiB");
    let broker = setup.start();
    let mut nc = broker.connect();
    let is_held = || broker.open_files().iter().any(|file| file == device);
    let mut publish = |count: u32| (0..count).for_each(|_| drop(nc.publish("chat", "hello")));
    publish(100);
    assert!(!is_held(), "a hundred are not enough");
    if std::fs::File::options().write(true).open(device).is_err() {
        publish(5000);
        assert!(!is_held());
        return;
    }
    // As in "0-3".
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let last: u32 = online.trim().rsplit(['-', ',']).next().unwrap().parse().unwrap();
    if last > 3 {
        return;
    }
    let publishes = || {
        publish(500);
        is_held()
    };
    wait_for(publishes, || "kept awake".to_owned());
    wait_for(|| !is_held(), || "let asleep".to_owned());
}

/// A subscriber whose broker was gone looked like one of a quiet topic.
#[test]
fn a_subscriber_says_that_its_broker_is_gone_and_that_it_is_back() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let addr = broker.addr;
    let mut sub = Command::new(env!("CARGO_BIN_EXE_wiber"))
        .env_clear()
        .args(["sub", "chat", "--addr", &addr.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(sub.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = BufReader::new(sub.stderr.take().unwrap()).lines().map(Result::unwrap);
    let (sender, printed) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
    let mut publisher = broker.connect();
    // It is subscribed when it has one.
    let is_there = || {
        publisher.publish("chat", "is it there");
        printed.try_recv().is_ok()
    };
    wait_for(is_there, || "a message".to_owned());
    broker.kill();
    let lost = told.next().unwrap();
    assert!(lost.starts_with("wiber: the connection to the broker was lost: "), "{lost}");
    assert!(lost.ends_with("; trying again"), "{lost}");
    let broker = Setup::new(&dir).set("PORT", &addr.port().to_string()).start();
    assert_eq!(told.next().unwrap(), "wiber: subscribed again");
    broker.connect().publish("chat", "here again");
    assert!(printed.iter().any(|line| line.ends_with(" here again")));
    sub.kill().unwrap();
    sub.wait().unwrap();
    reading.join().unwrap();
}
