//! The transcripts of docs/protocol.md, against the real daemon.

use std::collections::HashMap;

use crate::support::{Broker, Nc, data_dir};

/// Names that were bound to what a placeholder met: `<id:job>`.
type Bound = HashMap<String, String>;

/// Whether `real` is `pattern`, in which `<id>`, `<ts>` and bound names stand for one word each.
fn fits(pattern: &str, real: &str, bound: &mut Bound) -> bool {
    let is_id = |word: &str| word.strip_prefix("msg_").is_some_and(|rest| rest.contains('_'));
    let is_ts = |word: &str| {
        let parts = word.split_once('.');
        parts.is_some_and(|(s, f)| s.len() == 10 && f.len() == 6 && s.parse::<u64>().is_ok())
    };
    let (mut patterns, mut words) = (pattern.split(' '), real.split(' '));
    loop {
        match (patterns.next(), words.next()) {
            (None, None) => return true,
            (Some("<id>"), Some(word)) if is_id(word) => {}
            (Some("<ts>"), Some(word)) if is_ts(word) => {}
            (Some(name), Some(word)) if name.starts_with("<id:") => {
                let known = bound.entry(name.to_owned()).or_insert_with(|| word.to_owned());
                if known != word || !is_id(word) {
                    return false;
                }
            }
            (Some(pattern), Some(word)) if pattern == word => {}
            _ => return false,
        }
    }
}

fn run(broker: &Broker, transcript: &[&str]) {
    let mut nc = Nc::dial(broker.addr);
    let mut bound = Bound::new();
    let mut lines = transcript.iter().peekable();
    while let Some(line) = lines.next() {
        if let Some(sent) = line.strip_prefix("> ") {
            let sent = bound.iter().fold(sent.to_owned(), |s, (name, id)| s.replace(name, id));
            nc.send(&sent);
        } else if let Some(expected) = line.strip_prefix("< ") {
            let real = nc.line();
            assert!(fits(expected, &real, &mut bound), "{expected}\n{real}\nin {transcript:#?}");
        } else {
            let mut open = vec![line.strip_prefix("<~ ").expect("a line of a transcript")];
            while let Some(more) = lines.next_if(|line| line.starts_with("<~ ")) {
                open.push(&more[3..]);
            }
            while !open.is_empty() {
                let real = nc.line();
                let at = open.iter().position(|expected| fits(expected, &real, &mut bound));
                open.remove(at.unwrap_or_else(|| panic!("{real}\nin {transcript:#?}")));
            }
        }
    }
}

#[test]
fn the_transcripts_of_the_protocol_are_real() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_temp, dir) = data_dir();
    let broker = Broker::quick(&dir);
    let mut count = 0;
    for block in text.split("```transcript\n").skip(1) {
        let (block, _) = block.split_once("\n```").unwrap();
        run(&broker, &block.lines().collect::<Vec<_>>());
        count += 1;
    }
    assert!(count >= 9, "{count} transcripts were found");
}
