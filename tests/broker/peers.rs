//! Peers that mean no good or are broken: the broker's memory and descriptors stay bounded, and
//! others are served all the while.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{Broker, Msg, Nc, Setup, data_dir, quick, wait_for};

/// The broker's descriptors come back to what they were.
#[track_caller]
fn gives_back(broker: &Broker, before: usize) {
    let is_back = || broker.open_files().len() <= before;
    wait_for(is_back, || format!("no more than {before} descriptors: {:?}", broker.open_files()));
}

/// Publishes and is answered: the broker is there for others.
#[track_caller]
fn serves(nc: &mut Nc) {
    nc.publish("others", "still here");
    nc.send("HISTORY others 1");
    assert!(nc.line().ends_with(" still here"));
    nc.expect("OK history end");
}

#[test]
fn three_hundred_who_send_a_byte_at_a_time_cost_a_few_kilobytes_each() {
    const PEERS: usize = 300;
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut other = broker.connect();
    serves(&mut other);
    let before = broker.memory();
    let mut slow: Vec<Nc> = (0..PEERS).map(|_| broker.connect()).collect();
    let line = b"PUB slow one byte at a time\n";
    let (last, first) = line.split_last().unwrap();
    for byte in first {
        for nc in &mut slow {
            nc.raw(&[*byte]);
        }
        serves(&mut other);
    }
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 32 * PEERS as u64, "{grown} KiB for {PEERS} slow connections");
    for nc in &mut slow {
        nc.raw(&[*last]);
        assert!(nc.line().starts_with("OK published "));
    }
}

/// Writes until the broker takes no more; gives how much it took.
fn write_until_stuck(stream: &mut TcpStream, piece: &[u8], bytes_max: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while sent < bytes_max {
        match stream.write(piece) {
            Ok(count) => sent += count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(e) => panic!("{e}"),
        }
    }
    sent
}

#[test]
fn those_who_ask_and_never_read_are_not_read_any_more() {
    const PEERS: usize = 8;
    const ENOUGH: usize = 64 << 20;
    const PIECE_BYTES: usize = 1 << 17;
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut other = broker.connect();
    let body = "y".repeat(10_000);
    for _ in 0..100 {
        other.publish("big", &body);
    }
    serves(&mut other);
    let before = broker.memory();
    // An empty line is the shortest command, and its answer is forty times as long.
    let asks = ["\n", "HISTORY big 100\n", "PUB many x\n", "PING\n"];
    let mut all = Vec::new();
    for number in 0..PEERS {
        let ask = asks[number % asks.len()];
        let mut nc = broker.connect();
        // What the system holds for both sides is no part of the question.
        set_socket_recv_buffer_size(&nc.stream, 1 << 14).unwrap();
        set_socket_send_buffer_size(&nc.stream, 1 << 14).unwrap();
        let piece = ask.repeat(PIECE_BYTES / ask.len());
        let sent = write_until_stuck(&mut nc.stream, piece.as_bytes(), ENOUGH);
        assert!(sent < ENOUGH, "{ask:?}: everything was taken, though no answer was read");
        all.push(nc);
    }
    serves(&mut other);
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 6 * 1024 * PEERS as u64, "{grown} KiB for {PEERS} who don't read");
}

#[test]
fn a_member_who_never_reads_holds_its_credit_and_no_more() {
    const MESSAGES: u64 = 2_000;
    let (_temp, dir) = data_dir();
    let broker = quick(&dir).set("DELIVERY__ACK_TIMEOUT", "1h").start();
    let mut stuck = broker.connect();
    stuck.ask("SUB work g");
    let mut member = broker.connect();
    member.ask("SUB work g");
    let mut publisher = broker.connect();
    let body = "z".repeat(2_000);
    for _ in 0..MESSAGES {
        publisher.publish("work", &body);
    }
    // The default credit is five.
    work(&mut member, "work", MESSAGES - 5);
    drop(stuck);
    work(&mut member, "work", 5);
}

/// Acknowledges so many messages as they come; gives their offsets.
fn work(member: &mut Nc, topic: &str, count: u64) -> Vec<u64> {
    let (mut seen, mut acked) = (Vec::new(), 0);
    while acked < count {
        let line = member.line();
        if line == "OK ack_received" {
            acked += 1;
            continue;
        }
        let msg = Msg::parse("MSG", topic, &line);
        seen.push(msg.offset);
        member.send(&format!("ACK {}", msg.id));
    }
    seen
}

/// Closes with a reset, as a process that dies with unread bytes does.
fn reset(stream: &TcpStream) {
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_thousand_connections_opened_and_dropped_leave_nothing_behind() {
    let (_temp, dir) = data_dir();
    let broker = quick(&dir).set("DELIVERY__ACK_TIMEOUT", "1h").start();
    let mut other = broker.connect();
    serves(&mut other);
    let storm = || {
        for number in 0..1000 {
            let mut stream = TcpStream::connect(broker.addr).unwrap();
            let start: &[u8] = match number % 5 {
                0 => b"PUB half",
                1 => b"SUB chat\n",
                2 => b"SUB chat g\nPUB chat x\n",
                3 => b"PING\nHISTORY chat 5\n",
                _ => b"",
            };
            // The broker may have closed already, and then there is nobody to write to.
            drop(stream.write_all(start));
            if number % 2 == 0 {
                reset(&stream);
            }
        }
    };
    let descriptors = broker.open_files().len();
    storm();
    // The topic's files are new, and few.
    gives_back(&broker, descriptors + 4);
    let before = broker.memory();
    storm();
    gives_back(&broker, descriptors + 4);
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more after another thousand");
    serves(&mut other);
}

#[test]
fn out_of_descriptors_it_waits_and_accepts_when_some_are_free() {
    // Several segments of the topic and of the log.
    const MORE: usize = 300;
    let (_temp, dir) = data_dir();
    let setup = quick(&dir).set("STORAGE__CHECKPOINT_INTERVAL", "300ms");
    let broker = setup.set("STORAGE__SEGMENT", "64KiB").start();
    let mut other = broker.connect();
    serves(&mut other);
    // Eight more can be opened: the limit is on their numbers, and some in between may be free.
    let open = broker.descriptors();
    let limit = (0..).filter(|number| !open.contains(number)).nth(8).unwrap();
    let pid = Pid::from_child(&broker.child);
    let limits = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(Some(pid), Resource::Nofile, limits).unwrap();
    // The system takes them all; the broker can greet only some.
    let all: Vec<Nc> = (0..40).map(|_| Nc::dial(broker.addr)).collect();
    broker.wait_logged("accept_failed");
    let free = || {
        let open = broker.descriptors();
        (0..limit).filter(|number| !open.contains(number)).count()
    };
    wait_for(|| free() == 0, || format!("all descriptors to be taken, {} are free", free()));
    other.publish("others", "still here");
    // To read it from its file needs a descriptor: nothing is lost, so nothing is said to be. The
    // broker's own files come and go at first; one of forty that wait takes what they leave.
    let busy = || {
        let answer = other.ask("HISTORY others 1");
        if answer.starts_with("HISTORY others ") {
            other.expect("OK history end");
        }
        answer.starts_with("ERR BUSY ") && answer.ends_with(" retry_after=1s")
    };
    wait_for(busy, || "no descriptor to be left for reading".to_owned());
    // Neither a checkpoint nor a segment that is full ends it.
    broker.wait_logged("checkpoint_failed");
    let large = format!("large {}", "x".repeat(10_000));
    (0..7).for_each(|_| drop(other.publish("others", &large)));
    let sealed = dir.join("others@00000000000000000001.log");
    wait_for(|| sealed.exists(), || "a segment to be full".to_owned());
    // Whoever is faster has the descriptors that become free, and takes the messages or refuses them.
    other.raw(format!("PUB others {large}\n").repeat(MORE).as_bytes());
    // Each that leaves makes room for one that waits.
    for mut nc in all {
        nc.expect("OK connected");
    }
    let answers: Vec<String> = (0..MORE).map(|_| other.line()).collect();
    let published = answers.iter().filter(|line| line.starts_with("OK published ")).count();
    let refused = answers.iter().filter(|line| line.starts_with("ERR DISK_FULL ")).count();
    assert_eq!(published + refused, MORE, "{answers:?}");
    wait_for(
        || other.ask("PUB others at last").starts_with("OK published "),
        || "a topic's file to be opened".to_owned(),
    );
    serves(&mut other);
    broker.connect();
    other.send("HISTORY others 1000");
    let lines = std::iter::from_fn(|| Some(other.line()).filter(|line| line != "OK history end"));
    assert_eq!(lines.filter(|line| line.contains(" large ")).count(), 7 + published);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn with_few_descriptors_some_are_kept_for_files() {
    let (_temp, dir) = data_dir();
    let setup = quick(&dir);
    let mut command = std::process::Command::new("sh");
    let plain = setup.command();
    command.arg("-c").arg("ulimit -n 64; exec \"$0\" \"$@\"").arg(plain.get_program());
    command.args(plain.get_args()).current_dir(plain.get_current_dir().unwrap()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let broker = setup.start_by(command);
    broker.wait_logged("connections_bounded");
    let mut all: Vec<Nc> = (0..100).map(|_| Nc::dial(broker.addr)).collect();
    let lines: Vec<String> = all.iter_mut().map(Nc::line).collect();
    let taken = lines.iter().filter(|line| *line == "OK connected").count();
    let refused = lines.iter().filter(|line| line.starts_with("ERR LIMIT too many ")).count();
    assert_eq!((taken, refused), (32, 68));
    // Files can still be opened: for a new topic, and for what is read from disk.
    serves(&mut all[0]);
    drop(all);
    wait_for(
        || Nc::dial(broker.addr).line() == "OK connected",
        || "room for a connection".to_owned(),
    );
}

/// Sends a line for each of these names, a thousand at a time; every answer begins with `answer`.
fn ask_for(nc: &mut Nc, names: Range<usize>, line: impl Fn(usize) -> String, answer: &str) {
    for start in names.clone().step_by(1000) {
        let piece = start..(start + 1000).min(names.end);
        nc.raw(piece.clone().map(&line).collect::<String>().as_bytes());
        for _ in piece {
            let got = nc.line();
            assert!(got.starts_with(answer), "{got}");
        }
    }
}

#[test]
fn a_hundred_thousand_names_that_nothing_is_published_to_are_forgotten() {
    const NAMES: usize = 100_000;
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut other = broker.connect();
    serves(&mut other);
    let before = broker.memory();
    let mut nc = broker.connect();
    ask_for(&mut nc, 0..NAMES, |n| format!("HISTORY topic.{n} 5\n"), "OK history end");
    ask_for(&mut nc, 0..NAMES, |n| format!("ACK msg_{n}_{n:08x}1\n"), "ERR NOT_PENDING ");
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more for names that were only asked for");
    let follow = |wave: &str| {
        let mut all: Vec<Nc> = (0..NAMES / 1000).map(|_| broker.connect()).collect();
        for (number, nc) in all.iter_mut().enumerate() {
            let names = number * 1000..(number + 1) * 1000;
            ask_for(nc, names, |n| format!("SUB {wave}.{n}\n"), "OK subscribed ");
        }
        serves(&mut broker.connect());
        broker.memory()
    };
    let descriptors = broker.open_files().len();
    let once = follow("one").saturating_sub(before);
    assert!(once * 1024 / (NAMES as u64) < 4096, "{once} KiB for {NAMES} followed topics");
    gives_back(&broker, descriptors);
    let twice = follow("two").saturating_sub(before);
    // Topics that were not forgotten would make it twice as much.
    assert!(twice < once + once / 2, "{twice} KiB for other names, {once} for the first");
    serves(&mut other);
}

#[test]
fn many_topics_with_a_message_each_need_little_memory_and_few_descriptors() {
    // With WIBER_SOAK a hundred thousand, which takes a minute where nothing is optimised.
    let names = if std::env::var_os("WIBER_SOAK").is_some() { 100_000 } else { 10_000 };
    let (_temp, dir) = data_dir();
    let broker = Setup::new(&dir).set("STORAGE__WAL_SEGMENT", "32MiB").start();
    let mut nc = broker.connect();
    serves(&mut nc);
    let before = broker.memory();
    ask_for(&mut nc, 0..names, |n| format!("PUB topic.{n} x\n"), "OK published ");
    let each = broker.memory().saturating_sub(before) * 1024 / names as u64;
    let descriptors = broker.descriptors().len();
    assert!(descriptors < 1200, "{descriptors} descriptors");
    assert!(each < 4096, "{each} bytes a topic");
    serves(&mut nc);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn ten_thousand_who_join_and_leave_leave_no_member_behind() {
    let (_temp, dir) = data_dir();
    // A message that went to a ghost would not come back before the end of the test.
    let broker = quick(&dir).set("DELIVERY__ACK_TIMEOUT", "1h").start();
    let mut other = broker.connect();
    serves(&mut other);
    let descriptors = broker.open_files().len();
    let join = |count: usize| {
        for number in 0..count {
            let mut stream = TcpStream::connect(broker.addr).unwrap();
            // Some are gone before they are answered.
            let lines: &[u8] = match number % 3 {
                0 => b"SUB work g\n",
                1 => b"SUB work\nSUB work g\nSUB work g2\n",
                _ => b"SUB work g\nHEARTBEAT\n",
            };
            stream.write_all(lines).unwrap();
            if number % 4 == 0 {
                reset(&stream);
            }
            // Those who came before this one are accepted: no more wait than the system lets wait,
            // which would have the rest try again a second later.
            if number % 100 == 0 {
                drop(broker.connect());
            }
        }
        gives_back(&broker, descriptors);
        broker.memory()
    };
    let before = join(1000);
    let grown = join(9000).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more after nine thousand");
    let mut member = broker.connect();
    member.ask("SUB work g");
    for n in 1..=200 {
        let body = format!("job {n}");
        other.publish("work", &body);
    }
    let seen = work(&mut member, "work", 200);
    assert_eq!(seen, (1..=200).collect::<Vec<_>>(), "nothing went to anybody else");
}
