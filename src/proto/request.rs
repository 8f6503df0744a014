//! What a client can ask for, and how a client writes it.

use std::fmt;

use crate::ids::{GroupName, TopicName};
use crate::limits::TAG_BYTES_MAX;
use crate::time::write_decimal;

/// The first word of a command. Upper or lower case makes no difference.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// Subscribe to a topic, alone or as a member of a group.
    Sub,
    /// Publish a message.
    Pub,
    /// Acknowledge a message.
    Ack,
    /// Say that this member is alive.
    Heartbeat,
    /// Read the last messages of a topic.
    History,
    /// Ask for an answer.
    Ping,
    /// End the connection.
    Quit,
}

impl Verb {
    /// Every verb.
    pub const ALL: &'static [Verb] =
        &[Verb::Sub, Verb::Pub, Verb::Ack, Verb::Heartbeat, Verb::History, Verb::Ping, Verb::Quit];

    /// The command's form, which begins with the verb.
    pub const fn usage(self) -> &'static str {
        match self {
            Verb::Sub => "SUB <topic> [group]",
            Verb::Pub => "PUB <topic> <message>",
            Verb::Ack => "ACK <id>",
            Verb::Heartbeat => "HEARTBEAT",
            Verb::History => "HISTORY <topic> <n>",
            Verb::Ping => "PING",
            Verb::Quit => "QUIT",
        }
    }

    /// The verb that `word` is.
    pub fn parse(word: &[u8]) -> Option<Verb> {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        match word.len() {
            3 if is(b"PUB") => Some(Verb::Pub),
            3 if is(b"ACK") => Some(Verb::Ack),
            3 if is(b"SUB") => Some(Verb::Sub),
            4 if is(b"PING") => Some(Verb::Ping),
            4 if is(b"QUIT") => Some(Verb::Quit),
            7 if is(b"HISTORY") => Some(Verb::History),
            9 if is(b"HEARTBEAT") => Some(Verb::Heartbeat),
            _ => None,
        }
    }
}

/// A command of a client, checked. Borrows from the bytes that it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// `SUB <topic> [group]`
    Sub {
        /// The topic to read.
        topic: TopicName,
        /// The group to be a member of; without one the subscriber gets every message.
        group: Option<GroupName>,
    },
    /// `PUB <topic> <message>`
    Pub {
        /// The topic, never a dead-letter topic.
        topic: TopicName,
        /// The message: any bytes but LF, at most the limit, maybe none.
        message: &'a [u8],
    },
    /// `ACK <id>`
    Ack {
        /// The id of a message: 1 to 200 bytes of printable ASCII.
        id: &'a [u8],
    },
    /// `HEARTBEAT`
    Heartbeat,
    /// `HISTORY <topic> <n>`
    History {
        /// The topic to read.
        topic: TopicName,
        /// How many messages, counted from the end.
        count: u64,
    },
    /// `PING`
    Ping,
    /// `QUIT`
    Quit,
}

impl Request<'_> {
    /// Appends the command as one line, as a client sends it.
    ///
    /// A message is written as it is. One that holds an LF or ends in a CR cannot be sent at
    /// level 1, which is for the caller to check.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Request::Sub { topic, group } => {
                out.extend_from_slice(b"SUB ");
                out.extend_from_slice(topic.as_str().as_bytes());
                if let Some(group) = group {
                    out.push(b' ');
                    out.extend_from_slice(group.as_str().as_bytes());
                }
            }
            Request::Pub { topic, message } => {
                out.extend_from_slice(b"PUB ");
                out.extend_from_slice(topic.as_str().as_bytes());
                out.push(b' ');
                out.extend_from_slice(message);
            }
            Request::Ack { id } => {
                out.extend_from_slice(b"ACK ");
                out.extend_from_slice(id);
            }
            Request::Heartbeat => out.extend_from_slice(b"HEARTBEAT"),
            Request::History { topic, count } => {
                out.extend_from_slice(b"HISTORY ");
                out.extend_from_slice(topic.as_str().as_bytes());
                out.push(b' ');
                write_decimal(out, *count);
            }
            Request::Ping => out.extend_from_slice(b"PING"),
            Request::Quit => out.extend_from_slice(b"QUIT"),
        }
        out.push(b'\n');
    }
}

/// The `@tag` that a client put before a command, and that every line of its answer begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    len: u8,
    bytes: [u8; TAG_BYTES_MAX],
}

/// Why a tag was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a tag has 1 to 32 of A-Z a-z 0-9 _ -")]
pub struct BadTag;

impl Tag {
    /// Checks `tag`, given without its `@`.
    ///
    /// # Errors
    /// [`BadTag`] unless it has 1 to 32 of `A-Z a-z 0-9 _ -`.
    pub fn parse(tag: &[u8]) -> Result<Self, BadTag> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if tag.is_empty() || tag.len() > TAG_BYTES_MAX || !tag.iter().all(plain) {
            return Err(BadTag);
        }
        let mut bytes = [0; TAG_BYTES_MAX];
        bytes[..tag.len()].copy_from_slice(tag);
        Ok(Self { len: u8::try_from(tag.len()).expect("at most 32 bytes"), bytes })
    }

    /// The tag without its `@`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The tag as text, without its `@`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a tag is ASCII")
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_reads_in_any_case_and_stands_in_the_documentation() {
        let docs = include_str!("../../docs/protocol.md");
        for &verb in Verb::ALL {
            let name = verb.usage().split(' ').next().unwrap();
            assert_eq!(Verb::parse(name.as_bytes()), Some(verb));
            assert_eq!(Verb::parse(name.to_lowercase().as_bytes()), Some(verb));
            let usage = format!("ERR BAD_ARGS usage: {}", verb.usage());
            assert!(docs.contains(&usage), "docs/protocol.md lacks {usage}");
        }
        for other in ["", "SU", "SUBS", "PONG", "HELLO", "\u{17f}UB"] {
            assert_eq!(Verb::parse(other.as_bytes()), None);
        }
    }

    #[test]
    fn tags_are_checked() {
        let longest = "x".repeat(32);
        for good in ["1", "a-B_9", &longest] {
            assert_eq!(Tag::parse(good.as_bytes()).unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a b", "@a", "ä", "a\n", &"x".repeat(33)] {
            assert_eq!(Tag::parse(bad.as_bytes()), Err(BadTag), "{bad:?}");
        }
    }
}
