//! The table of bad inputs: each has its answer, memory stays where it was, and others notice
//! nothing.

use std::io::Read;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Broker, Nc, data_dir, quick};

/// One line of the table.
struct Case {
    /// As it stands there.
    line: &'static str,
    input: Vec<u8>,
    /// How the lines begin that answer it.
    answers: Vec<Vec<u8>>,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Open,
    Closed,
    Half,
}

impl Case {
    fn parse(line: &'static str) -> Case {
        let (input, outcome) = line.split_once(" -> ").unwrap_or_else(|| panic!("{line}"));
        let mut answers: Vec<_> = outcome.split(" | ").collect();
        let end = match answers.last() {
            Some(&"closed") => End::Closed,
            Some(&"half") => End::Half,
            _ => End::Open,
        };
        if end != End::Open {
            answers.pop();
        }
        let answers = answers.into_iter().map(bytes).collect();
        Case { line, input: bytes(input), answers, end }
    }

    /// Sends it and compares what comes back.
    fn run(&self, broker: &Broker) {
        let mut nc = broker.connect();
        nc.raw(&self.input);
        match self.end {
            End::Open => nc.raw(b"@end PING\n"),
            End::Half => nc.stream.shutdown(Shutdown::Write).unwrap(),
            End::Closed => {}
        }
        for answer in &self.answers {
            let line = nc.next().unwrap_or_else(|| panic!("{}: closed too early", self.line));
            let is_it = line.as_bytes().starts_with(answer);
            assert!(is_it, "{}\ngot {line:?}", self.line);
        }
        match self.end {
            End::Open => assert_eq!(nc.line(), "@end OK pong", "{}", self.line),
            End::Closed | End::Half => assert_eq!(nc.next(), None, "{}", self.line),
        }
    }
}

/// The bytes that a text of the table stands for.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some((piece, behind)) = repeated(rest) {
            out.extend(piece);
            rest = behind;
        } else {
            let (byte, behind) = one(rest);
            out.extend(byte);
            rest = behind;
        }
    }
    out
}

/// `{x*9}`: nine times x.
fn repeated(text: &str) -> Option<(Vec<u8>, &str)> {
    let (piece, rest) = one(text.strip_prefix('{')?);
    let (count, rest) = rest.strip_prefix('*')?.split_once('}')?;
    Some((piece.repeat(count.parse().ok()?), rest))
}

/// A character, or the byte of an escape.
fn one(text: &str) -> (Vec<u8>, &str) {
    let first = text.chars().next().expect("something is left");
    let (escape, rest) = (text.as_bytes().get(1), text.get(2..).unwrap_or_default());
    if first != '\\' {
        let (taken, rest) = text.split_at(first.len_utf8());
        return (taken.as_bytes().to_vec(), rest);
    }
    match escape {
        Some(b'n') => (vec![b'\n'], rest),
        Some(b'r') => (vec![b'\r'], rest),
        Some(b't') => (vec![b'\t'], rest),
        Some(b'0') => (vec![0], rest),
        Some(b'\\') => (vec![b'\\'], rest),
        Some(b'x') => (vec![u8::from_str_radix(&rest[..2], 16).unwrap()], &rest[2..]),
        _ => panic!("{text:?} begins with no escape"),
    }
}

fn table() -> Vec<Case> {
    let lines = include_str!("bad_inputs.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Case::parse).collect()
}

/// Publishes and reads back without a pause until it is told to stop; gives the count.
fn undisturbed(mut nc: Nc, topic: &str, is_over: &AtomicBool) -> u64 {
    nc.ask(&format!("SUB {topic}"));
    let mut offset = 0;
    while !is_over.load(Ordering::Relaxed) {
        offset += 1;
        nc.send(&format!("PUB {topic} message {offset}"));
        // The push may come before the answer or after it.
        let mut lines = [nc.line(), nc.line()];
        lines.sort();
        assert!(lines[0].starts_with(&format!("MSG {topic} ")), "{}", lines[0]);
        assert!(lines[0].ends_with(&format!(" message {offset}")), "{}", lines[0]);
        assert!(lines[1].ends_with(&format!(" {offset}")), "{}", lines[1]);
    }
    offset
}

#[test]
fn every_bad_input_has_its_answer_and_nobody_else_notices() {
    let cases = table();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let (temp, dir) = data_dir();
    let broker = quick(&dir).set("LIMITS__MESSAGE", "5000").start();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let other = broker.connect();
        let other = threads.spawn(|| undisturbed(other, "others", &is_over));
        let outcome = std::panic::catch_unwind(|| {
            cases.iter().for_each(|case| case.run(&broker));
            // What is made once has been made: more of the same takes no more.
            let before = broker.memory();
            cases.iter().for_each(|case| case.run(&broker));
            let grown = broker.memory().saturating_sub(before);
            assert!(grown < 8 << 10, "{grown} KiB more, from {before}");
        });
        is_over.store(true, Ordering::Relaxed);
        let count = other.join().unwrap();
        outcome.unwrap();
        assert!(count > 10, "the other client came to only {count} messages");
    });
    for name in ["a.log", "odd.log"] {
        let text = std::fs::read(dir.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains("never") && (name != "a.log" || text.is_empty()), "{name}: {text}");
    }
    let beside = std::fs::read_dir(temp.path()).unwrap().count();
    assert_eq!(beside, 2, "nothing is beside the data directory and the broker's log");
}

#[test]
fn the_tables_own_language_is_read() {
    assert_eq!(bytes(r"a\n\x00\\{}{x*3}{\xff*2}{y*"), b"a\n\0\\{}xxx\xff\xff{y*");
    let case = Case::parse(r"GET -> ERR X | closed");
    assert!(case.end == End::Closed && case.answers == [b"ERR X"]);
}

#[test]
fn bytes_that_come_one_by_one_are_the_same_commands() {
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut nc = broker.connect();
    for byte in b"@a PUB chat slow\r\nSUB\nHISTORY chat 1\nQUIT\nPING\n" {
        // Each in a packet of its own, or some in one: the broker sees cuts everywhere.
        if std::io::Write::write_all(&mut nc.stream, &[*byte]).is_err() {
            break;
        }
    }
    assert!(nc.line().starts_with("@a OK published "));
    nc.expect("ERR BAD_ARGS usage: SUB <topic> [group]");
    assert!(nc.line().starts_with("HISTORY chat "));
    nc.expect("OK history end");
    nc.expect("OK bye");
    let mut rest = Vec::new();
    drop(nc.stream.read_to_end(&mut rest));
    assert!(rest.is_empty());
}
