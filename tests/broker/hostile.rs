//! Bad input over a real socket: an error or a close as documented, and nobody else notices.

use std::io::{Read as _, Write};
#[cfg(target_os = "linux")]
use std::net::{Shutdown, TcpStream};
#[cfg(target_os = "linux")]
use std::time::Duration;

use crate::support::{Broker, Msg, Nc, Setup, data_dir, published, quick, wait_for};

#[test]
fn bad_lines_are_answered_and_the_connection_goes_on() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut other = broker.connect();
    other.ask("SUB chat");
    let mut nc = broker.connect();
    for (line, code) in [
        ("PUB ../../etc/x y", "BAD_NAME"),
        ("", "UNKNOWN_COMMAND"),
        ("nonsense", "UNKNOWN_COMMAND"),
        ("SUB", "BAD_ARGS"),
        ("SUB chat g extra", "BAD_ARGS"),
        ("PUB chat", "BAD_ARGS"),
        ("PUB chat.dlq x", "RESERVED_NAME"),
        ("HISTORY chat many", "BAD_ARGS"),
        ("ACK", "BAD_ARGS"),
        ("ACK nothing", "NOT_PENDING"),
        ("@bad! PING", "BAD_ARGS"),
        (&"x".repeat(5000), "LINE_TOO_LONG"),
    ] {
        let answer = nc.ask(line);
        assert!(answer.starts_with(&format!("ERR {code} ")), "{line:.20}: {answer}");
    }
    nc.raw(b"\xff\xfe\x00\x01\n");
    assert!(nc.line().starts_with("ERR UNKNOWN_COMMAND "));
    assert_eq!(nc.ask("pInG"), "OK pong");
    nc.publish("chat", "still here");
    assert_eq!(other.message("chat").body, "still here");
    assert!(!dir.parent().unwrap().join("etc").exists());
}

/// A dead letter of a topic like `a.` once ended the broker, and every start after it.
#[test]
fn a_topic_of_any_name_that_is_allowed_has_its_dead_letters_before_and_after_a_restart() {
    let (_temp, dir) = data_dir();
    let names = ["a.", "a.dlq.", "b-_.", &"x".repeat(200)];
    let mut broker = quick(&dir).set("DELIVERY__MAX_RETRIES", "0").start();
    for name in names {
        let mut member = broker.connect();
        member.ask(&format!("SUB {name} g"));
        member.publish(name, "poison");
        wait_for(|| broker.file(&format!("{name}.dlq.log")).len() == 1, || name.to_owned());
    }
    for is_killed in [true, false] {
        if is_killed {
            broker.kill();
        } else {
            broker.stop();
        }
        broker = quick(&dir).start();
        for name in names {
            let dead_letters = format!("{name}.dlq");
            let mut reader = broker.connect();
            reader.send(&format!("HISTORY {dead_letters} 1"));
            let letter = Msg::parse("HISTORY", &dead_letters, &reader.line());
            assert!(letter.body.contains("\"poison\""), "{}", letter.body);
        }
    }
}

#[test]
fn payloads_come_back_byte_for_byte() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    let mut sub = broker.connect();
    sub.ask("SUB chat");
    for body in ["", " ", "  two  ", "tab\tquote\" back\\slash", "--id a=b", "ünïcödé 🎉", "\u{7f}"]
    {
        let (_, offset) = nc.publish("chat", body);
        let msg = sub.message("chat");
        assert_eq!((msg.body.as_str(), msg.offset), (body, offset));
    }
    // What a line can't carry is a JSON string literal; on disk nothing is lost.
    nc.raw(b"PUB chat nul\0cr\rend\n");
    nc.line();
    assert_eq!(sub.message("chat").body, r#""nul\u0000cr\rend""#);
    nc.raw(b"PUB chat half \xc3\n");
    nc.line();
    assert_eq!(sub.message("chat").body, r#""half \u00c3""#);
    let record = broker.file("chat.log").pop().unwrap();
    assert_eq!((&record["msg"], &record["enc"]), (&"aGFsZiDD".into(), &"base64".into()));
    nc.send("HISTORY chat 1");
    assert_eq!(Msg::parse("HISTORY", "chat", &nc.line()).body, r#""half \u00c3""#);
}

#[test]
fn replies_come_in_the_order_of_the_commands() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    nc.raw(b"PING\n@t1 PUB a one\nPING\nHISTORY a 5\nnonsense\nPUB b two\r\n@t2 history a 5\nQUIT\nPING\n");
    nc.expect("OK pong");
    let line = nc.line();
    let rest = line.strip_prefix("@t1 ").expect("the tag");
    let (id, _) = crate::support::published(rest);
    nc.expect("OK pong");
    assert_eq!(Msg::parse("HISTORY", "a", &nc.line()).id, id);
    nc.expect("OK history end");
    nc.expect("ERR UNKNOWN_COMMAND unknown command: nonsense");
    assert!(nc.line().starts_with("OK published msg_"));
    assert!(nc.line().starts_with("@t2 HISTORY a "));
    nc.expect("@t2 OK history end");
    nc.expect("OK bye");
    assert!(nc.is_closed());
}

#[test]
fn commands_before_a_half_close_are_answered() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    let mut all = String::new();
    for n in 0..2000 {
        all.push_str(&format!("PUB chat {n}\nHISTORY chat 1\n"));
    }
    nc.raw(all.as_bytes());
    nc.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for n in 0..2000 {
        assert!(nc.line().starts_with("OK published "));
        assert_eq!(Msg::parse("HISTORY", "chat", &nc.line()).body, n.to_string());
        nc.expect("OK history end");
    }
    assert_eq!(nc.next(), None);
}

#[test]
fn http_is_shown_the_door() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    nc.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(nc.is_closed());
    broker.wait_logged("http_refused");
    broker.wait_logged(&nc.stream.local_addr().unwrap().to_string());
}

#[test]
fn a_line_of_100_mb_is_answered_once_and_takes_no_memory() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    nc.publish("chat", "before");
    let before = broker.memory();
    for (start, answer) in [
        ("PUB chat ", "ERR MSG_TOO_BIG message of 104857600 bytes "),
        ("PUB chat.dlq ", "ERR RESERVED_NAME "),
        ("x", "ERR LINE_TOO_LONG "),
    ] {
        nc.raw(start.as_bytes());
        let block = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            nc.stream.write_all(&block).unwrap();
        }
        nc.raw(b"\n");
        assert!(nc.line().starts_with(answer));
    }
    assert_eq!(nc.ask("PING"), "OK pong");
    assert!(broker.memory() < before + 20_000, "{} KiB, before {before}", broker.memory());
}

#[test]
fn a_message_over_the_limit_names_limit_value_and_setting() {
    let (_temp, dir) = data_dir();
    let broker = quick(&dir).set("LIMITS__MESSAGE", "1000").start();
    let mut nc = broker.connect();
    nc.publish("chat", &"x".repeat(1000));
    assert_eq!(
        nc.ask(&format!("PUB chat {}", "x".repeat(1001))),
        "ERR MSG_TOO_BIG message of 1001 bytes is over the limit \
         size=1001 max=1000 setting=limits.message"
    );
    assert_eq!(nc.publish("chat", "next").1, 2);
}

/// More than may wait for a shard: it has to be the only one, and does not wait for ever.
#[test]
fn the_largest_messages_come_through_beside_small_ones() {
    let (_temp, dir) = data_dir();
    let broker = quick(&dir).set("LIMITS__MESSAGE", "16MiB").start();
    let (mut large, mut small) = ([broker.connect(), broker.connect()], broker.connect());
    let body = "x".repeat(16 << 20);
    for n in 1..=3 {
        for nc in &mut large {
            nc.send(&format!("PUB large {body}"));
        }
        assert_eq!(small.publish("small", "next").1, n);
    }
    let mut offsets = Vec::new();
    for _ in 0..3 {
        offsets.extend(large.iter_mut().map(|nc| published(&nc.line()).1));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6]);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_memory_of_a_burst_is_given_back_when_it_is_over() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let before = broker.memory();
    let lines = format!("PUB chat {}\n", "z".repeat(1000)).repeat(2000);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let mut nc = broker.connect();
            let lines = lines.as_bytes();
            scope.spawn(move || {
                nc.raw(lines);
                (0..2000).for_each(|_| drop(published(&nc.line())));
            });
        }
    });
    let grown = || broker.memory().saturating_sub(before);
    // Some of it is the cache of recent lines. 9 to 14 MB were seen, and 20 to 29 with nothing given back.
    wait_for(|| grown() < 16_000, || format!("{} KiB more than {before}", grown()));
}

/// What was neither written nor sent did not count as a burst.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_memory_of_messages_that_never_were_whole_is_given_back() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let before = broker.memory();
    let part = format!("PUB chat {}", "z".repeat(30_000));
    let mut ncs: Vec<_> = (0..800).map(|_| broker.connect()).collect();
    ncs.iter_mut().for_each(|nc| nc.raw(part.as_bytes()));
    let grown = || broker.memory().saturating_sub(before);
    wait_for(|| grown() > 22_000, || format!("only {} KiB more than {before}", grown()));
    // Those who stay are all over the memory of those who go.
    let mut number = 0;
    ncs.retain(|_| {
        number += 1;
        number % 10 == 0
    });
    wait_for(|| grown() < 10_000, || format!("{} KiB more than {before}", grown()));
}

/// Only what was written once counted as a burst.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_memory_of_readers_is_given_back_when_they_are_done() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut nc = broker.connect();
    nc.raw(format!("PUB chat {}\n", "z".repeat(1000)).repeat(20_000).as_bytes());
    (0..20_000).for_each(|_| drop(published(&nc.line())));
    assert_eq!(broker.stop(), Some(0));
    let broker = Setup::new(&dir).start();
    let before = broker.memory();
    let done = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut nc = broker.connect();
            let done = &done;
            scope.spawn(move || {
                nc.send("HISTORY chat 20000");
                // All of them are at it before the first is done.
                nc.line();
                done.wait();
                while nc.line() != "OK history end" {}
            });
        }
    });
    let grown = || broker.memory().saturating_sub(before);
    wait_for(|| grown() < 15_000, || format!("{} KiB more than {before}", grown()));
}

#[test]
fn a_reader_that_never_reads_holds_up_nobody_and_takes_no_memory() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut stuck = broker.connect();
    stuck.ask("SUB chat");
    let mut reader = broker.connect();
    reader.ask("SUB chat");
    let mut nc = broker.connect();
    let body = "y".repeat(10_000);
    nc.publish("chat", &body);
    reader.message("chat");
    let before = broker.memory();
    for n in 2..=9_000u64 {
        nc.send(&format!("PUB chat {body}"));
        if n % 100 == 0 {
            for _ in 0..if n == 100 { 99 } else { 100 } {
                nc.line();
                reader.message("chat");
            }
        }
    }
    // 90 MB went by; the cache of recent lines may have taken its 64 MiB.
    assert!(broker.memory() < before + 110_000, "{} KiB, before {before}", broker.memory());
    // The stuck one reads at last, and has missed nothing.
    for n in 1..=9_000u64 {
        assert_eq!(stuck.message("chat").offset, n);
    }
}

/// It was sent all of them, which the broker had to keep, and nobody else got any.
#[test]
fn a_member_that_reads_nothing_leaves_the_rest_to_others() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).set("DELIVERY__PREFETCH", "1000").start();
    let (mut deaf, mut reader) = (broker.connect(), broker.connect());
    deaf.ask("SUB chat g");
    let mut nc = broker.connect();
    let body = "y".repeat(100_000);
    let before = broker.memory();
    for _ in 0..400 {
        nc.publish("chat", &body);
    }
    // 40 MB, of which the cache of recent lines may have 16 MiB.
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 32_000, "{grown} KiB more than {before}");
    reader.ask("SUB chat g");
    for _ in 0..300 {
        reader.message("chat");
    }
    // When the other one reads at last, all were delivered, each to one of them.
    let mut count = 300;
    while count < 400 {
        for nc in [&mut deaf, &mut reader] {
            nc.send("PING");
            count +=
                std::iter::from_fn(|| Some(nc.line()).filter(|line| line != "OK pong")).count();
        }
    }
    assert_eq!(count, 400);
}

/// Each of them had a mebibyte and a half of the broker.
#[cfg(target_os = "linux")]
#[test]
fn what_many_who_read_nothing_hold_is_bounded() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let before = broker.memory();
    let pings = b"PING\n".repeat(13_000);
    let connect = |_| {
        let stream = TcpStream::connect(broker.addr).unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, 0)
    };
    let mut all: Vec<(TcpStream, usize)> = (0..300).map(connect).collect();
    // Until the broker takes no more from any of them.
    let mut quiet = 0;
    while quiet < 5 {
        let before = all.iter().map(|(_, sent)| sent).sum::<usize>();
        for (stream, sent) in &mut all {
            while let Ok(count) = stream.write(&pings[*sent % 5..]) {
                *sent += count;
            }
        }
        let is_quiet = all.iter().map(|(_, sent)| sent).sum::<usize>() == before;
        quiet = if is_quiet { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(20));
    }
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 160_000, "{grown} KiB more than {before}");
    // Whoever reads at last gets every answer.
    let (mut stream, sent) = all.pop().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("OK pong").count(), sent / 5);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let (_temp, dir) = data_dir();
    let broker = quick(&dir).set("LIMITS__CONNECTIONS", "2").start();
    let (_a, b) = (broker.connect(), broker.connect());
    let mut third = crate::support::Nc::dial(broker.addr);
    let answer = third.line();
    assert!(answer.starts_with("ERR LIMIT too many connections max=2 "), "{answer}");
    assert!(third.is_closed());
    drop(b);
    crate::support::wait_for(
        || crate::support::Nc::dial(broker.addr).line() == "OK connected",
        || "a free place".to_owned(),
    );
}

/// A line of the log that could not be written once ended the thread that had something to say, and with
/// it the broker.
#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_costs_its_lines_and_nothing_else() {
    use std::process::Stdio;

    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for stderr in [full(), Stdio::from(writer)] {
        let (_temp, dir) = data_dir();
        let broker = quick(&dir).start_to(stderr);
        let mut member = broker.connect();
        member.ask("SUB chat g");
        broker.connect().publish("chat", "hello");
        assert_eq!(member.message("chat").body, "hello");
        drop(member);
        broker.connect().raw(b"GET / HTTP/1.1\r\n\r\n");
        broker.connect().publish("chat", "hello again");
        assert_eq!(broker.stop(), Some(0));
    }
}

/// To close with bytes unread resets a connection, and the peer loses what it had not read yet.
#[test]
fn a_publisher_that_is_just_sending_gets_all_its_answers_when_the_broker_stops() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = Nc::dial_narrow(broker.addr);
    nc.expect("OK connected");
    let mut writer = nc.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let lines = format!("PUB chat {}\n", "x".repeat(60)).repeat(1000);
        // Until the broker takes no more: it has stopped.
        while writer.write_all(lines.as_bytes()).is_ok() {}
    });
    assert!(published(&nc.line()).1 == 1);
    // Of a file that grows, the last line may be there in part.
    let stored = || std::fs::metadata(dir.join("chat.log")).is_ok_and(|file| file.len() > 1 << 20);
    wait_for(stored, || "messages".to_owned());
    broker.signal("-TERM");
    let mut answers = 1;
    while let Some(line) = nc.next() {
        answers += 1;
        assert_eq!(published(&line).1, answers);
    }
    flood.join().unwrap();
    broker.wait_logged("stopped in order");
    assert_eq!(broker.file("chat.log").len() as u64, answers);
}

/// Whoever reads more slowly than others publish was not closed at all, and each of them held up a stop.
#[test]
fn a_subscriber_that_is_far_behind_is_closed_when_it_quits_and_when_the_broker_stops() {
    const MESSAGES: u64 = 300;
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).start();
    let mut quits = Nc::dial_narrow(broker.addr);
    let mut stays = Nc::dial_narrow(broker.addr);
    for nc in [&mut quits, &mut stays] {
        nc.expect("OK connected");
        nc.ask("SUB chat");
    }
    let mut nc = broker.connect();
    let body = "y".repeat(100_000);
    for _ in 0..MESSAGES {
        nc.publish("chat", &body);
    }
    quits.send("QUIT");
    let rest = |nc: &mut Nc| std::iter::from_fn(|| nc.next()).collect::<Vec<_>>();
    let lines = rest(&mut quits);
    assert!(lines.iter().any(|line| line == "OK bye"));
    assert!(lines.len() < 200, "{} messages that it no longer wanted", lines.len());
    broker.signal("-TERM");
    let lines = rest(&mut stays);
    assert!(lines.len() < 200, "{} messages while the broker stops", lines.len());
    broker.wait_logged("stopped in order");
    assert!(!broker.logged().contains("drain_cut_short"), "{}", broker.logged());
}

/// Its message was given to it again and again, held back behind the history each time until it was a dead
/// letter.
#[test]
fn a_member_gets_nothing_before_its_subscription_is_answered_behind_a_history() {
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).set("LOG__LEVEL", "debug").start();
    let mut other = broker.connect();
    for _ in 0..60 {
        other.publish("big", &"y".repeat(100_000));
    }
    // The group is there, and nobody is in it.
    let mut first = broker.connect();
    first.ask("SUB jobs g");
    first.send("QUIT");
    first.expect("OK bye");
    assert!(first.is_closed());
    other.publish("jobs", "one");
    let mut slow = Nc::dial_narrow(broker.addr);
    slow.expect("OK connected");
    slow.raw(b"HISTORY big 60\nSUB jobs g\n");
    broker.wait_logged("member_paused");
    for _ in 0..60 {
        Msg::parse("HISTORY", "big", &slow.line());
    }
    slow.expect("OK history end");
    slow.expect("OK subscribed jobs in group g");
    let message = slow.message("jobs");
    assert_eq!(message.body, "one");
    assert_eq!(slow.ask(&format!("ACK {}", message.id)), "OK ack_received");
}
