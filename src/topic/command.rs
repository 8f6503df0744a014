//! The durable commands and their bytes: what a WAL record of a shard holds.
//!
//! A batch is one record. Its payload is a version byte and then commands, each a tag byte and its
//! fields. Names and times are said once and hold for what follows ("the topic is now chat"), so a
//! batch of small messages to one topic costs three bytes a message besides the messages.
//!
//! | tag | command | fields |
//! |---|---|---|
//! | 1 | topic | name length `u8`, name |
//! | 2 | time | microseconds since the Unix epoch `u64` |
//! | 3 | append | message length varint, message |
//! | 4 | append with more | id length `u8`, id, extra length varint, extra, message length varint, message |
//! | 5 | group | name length `u8`, name |
//! | 6 | create the group | (none): it starts behind the present end of the topic |
//! | 7 | settled | first offset `u64`, count `u32` |
//! | 8 | attempt failed | offset `u64`, JSON length varint, the attempt as JSON |
//! | 9 | dead-lettered | as 8: the last attempt |
//! | 10 | seal | (none): the topic's active segment ends here |
//! | 11 | trim | first offset `u64`: segments whose messages are all before it are no longer kept |
//!
//! Numbers are little endian; a varint is LEB128. Nothing here reads a clock or draws a number: a
//! command carries all that applying it needs, which is what makes recovery, a follower and a
//! simulation the same code.

use crate::delivery::{Attempt, Change};
use crate::ids::{BadName, GroupName, Offset, TopicName};
use crate::time::Timestamp;

/// The first byte of every batch.
const FORMAT: u8 = 1;

const TOPIC: u8 = 1;
const TIME: u8 = 2;
const APPEND: u8 = 3;
const APPEND_MORE: u8 = 4;
const GROUP: u8 = 5;
const CREATE_GROUP: u8 = 6;
const SETTLED: u8 = 7;
const FAILED: u8 = 8;
const DEAD_LETTERED: u8 = 9;
const SEAL: u8 = 10;
const TRIM: u8 = 11;

/// Bytes of a `settled` command behind its tag.
const SETTLED_BYTES: usize = 12;

/// Writes the commands of one batch.
#[derive(Debug, Default)]
pub struct Commands {
    bytes: Vec<u8>,
    topic: Option<TopicName>,
    group: Option<GroupName>,
    time: Option<Timestamp>,
    appends: usize,
    /// Where the last command is, if it was `settled`: a neighbour extends it in place.
    settled_at: Option<usize>,
}

impl Commands {
    /// An empty batch that writes into `buffer` (its contents are dropped, its room is kept).
    pub fn reusing(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { bytes: buffer, ..Self::default() }
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many messages it appends so far.
    pub fn appends(&self) -> usize {
        self.appends
    }

    /// Adds commands that were encoded before to a batch that has none of its own yet, for
    /// [`crate::planted::Bug::DeadLetterApart`].
    pub(crate) fn append_raw(&mut self, commands: &[u8]) {
        let format = usize::from(!self.bytes.is_empty());
        self.bytes.extend_from_slice(&commands[format..]);
    }

    /// The payload of the WAL record.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The topic is now `topic`; applying creates it if there is none.
    pub fn topic(&mut self, topic: &TopicName) {
        if self.topic.as_ref() == Some(topic) {
            return;
        }
        self.tag(TOPIC);
        self.short(topic.as_str().as_bytes());
        self.topic = Some(topic.clone());
        self.group = None;
    }

    /// The time is now `wall`.
    pub fn time(&mut self, wall: Timestamp) {
        if self.time != Some(wall) {
            self.tag(TIME);
            self.bytes.extend_from_slice(&wall.as_micros().to_le_bytes());
            self.time = Some(wall);
        }
    }

    /// Appends a message to the topic.
    pub fn append(&mut self, message: &[u8]) {
        self.tag(APPEND);
        self.appends += 1;
        self.long(message);
    }

    /// Appends a message with an id of its own (or an empty one) and further JSON members.
    pub fn append_more(&mut self, id: &str, extra: &str, message: &[u8]) {
        self.tag(APPEND_MORE);
        self.appends += 1;
        self.short(id.as_bytes());
        self.long(extra.as_bytes());
        self.long(message);
    }

    /// The group is now `group` of the present topic.
    pub fn group(&mut self, group: &GroupName) {
        if self.group.as_ref() != Some(group) {
            self.tag(GROUP);
            self.short(group.as_str().as_bytes());
            self.group = Some(group.clone());
        }
    }

    /// Creates the group behind the end of the topic, unless it exists.
    pub fn create_group(&mut self) {
        self.tag(CREATE_GROUP);
    }

    /// A change of the group.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Settled { offset } => self.settled(*offset),
            Change::Failed { offset, attempt } => self.attempt(FAILED, *offset, attempt),
            Change::DeadLettered { offset, attempt } => {
                self.attempt(DEAD_LETTERED, *offset, attempt);
            }
        }
    }

    /// The topic's active segment ends here.
    pub fn seal(&mut self) {
        self.tag(SEAL);
    }

    /// Segments of the topic whose messages are all before `first` are no longer kept.
    pub fn trim(&mut self, first: Offset) {
        self.tag(TRIM);
        self.bytes.extend_from_slice(&first.get().to_le_bytes());
    }

    fn settled(&mut self, offset: Offset) {
        if let Some(at) = self.settled_at {
            let (first, count) = read_settled(&self.bytes[at..]);
            if first + u64::from(count) == offset.get() && count < u32::MAX {
                self.bytes[at + 8..at + SETTLED_BYTES].copy_from_slice(&(count + 1).to_le_bytes());
                return;
            }
        }
        self.tag(SETTLED);
        self.settled_at = Some(self.bytes.len());
        self.bytes.extend_from_slice(&offset.get().to_le_bytes());
        self.bytes.extend_from_slice(&1u32.to_le_bytes());
    }

    fn attempt(&mut self, tag: u8, offset: Offset, attempt: &Attempt) {
        self.tag(tag);
        self.bytes.extend_from_slice(&offset.get().to_le_bytes());
        let json = serde_json::to_vec(attempt).expect("an attempt has no map with odd keys");
        self.long(&json);
    }

    fn tag(&mut self, tag: u8) {
        if self.bytes.is_empty() {
            self.bytes.push(FORMAT);
        }
        self.settled_at = None;
        self.bytes.push(tag);
    }

    fn short(&mut self, bytes: &[u8]) {
        self.bytes.push(u8::try_from(bytes.len()).expect("names and ids have at most 255 bytes"));
        self.bytes.extend_from_slice(bytes);
    }

    fn long(&mut self, bytes: &[u8]) {
        let mut len = bytes.len();
        loop {
            let low = u8::try_from(len & 0x7f).expect("seven bits");
            len >>= 7;
            self.bytes.push(if len == 0 { low } else { low | 0x80 });
            if len == 0 {
                break;
            }
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// One command of a batch.
#[derive(Clone, PartialEq, Debug)]
pub enum Command<'a> {
    /// What follows is about this topic.
    Topic(TopicName),
    /// What follows happened at this time.
    Time(Timestamp),
    /// A message; `id` is empty when it is derived from topic, offset and time.
    Append {
        /// The id that was given, or empty.
        id: &'a str,
        /// Further JSON members of the record, rendered, or empty.
        extra: &'a str,
        /// The message, byte for byte.
        message: &'a [u8],
    },
    /// What follows is about this group of the topic.
    Group(GroupName),
    /// The group is created behind the end of the topic, unless it exists.
    CreateGroup,
    /// These messages of the group were acknowledged.
    Settled {
        /// The first of them.
        first: Offset,
        /// How many, one after the other.
        count: u32,
    },
    /// Another change of the group.
    Change(Change),
    /// The topic's active segment ends here.
    Seal,
    /// Segments of the topic whose messages are all before this one are no longer kept.
    Trim {
        /// Where the first segment begins that is kept.
        first: Offset,
    },
}

/// Why the bytes of a batch are none: they passed their checksum, so another version wrote them or
/// the code is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("failed to read a command at byte {at} of a batch: {why}")]
pub struct BadCommand {
    /// Where in the batch.
    pub at: usize,
    /// What is wrong there.
    pub why: String,
}

/// Reads the commands of a batch, in order.
#[derive(Debug)]
pub struct CommandReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> CommandReader<'a> {
    /// Reads `payload`, the payload of a WAL record.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { bytes: payload, at: 0 }
    }

    /// The next command; `None` at the end.
    ///
    /// # Errors
    /// [`BadCommand`] if the bytes are no command.
    #[expect(clippy::should_implement_trait, reason = "the first error ends it")]
    pub fn next(&mut self) -> Result<Option<Command<'a>>, BadCommand> {
        if self.at == 0 && !self.bytes.is_empty() {
            let format = self.byte()?;
            if format != FORMAT {
                return Err(self.bad(format!("unknown batch format {format}")));
            }
        }
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.byte()?;
        self.command(tag).map(Some)
    }

    fn command(&mut self, tag: u8) -> Result<Command<'a>, BadCommand> {
        Ok(match tag {
            TOPIC => Command::Topic(self.name(TopicName::parse)?),
            TIME => Command::Time(Timestamp::from_micros(self.u64()?)),
            APPEND => Command::Append { id: "", extra: "", message: self.long()? },
            APPEND_MORE => Command::Append {
                id: self.text(Self::short)?,
                extra: self.text(Self::long)?,
                message: self.long()?,
            },
            GROUP => Command::Group(self.name(GroupName::parse)?),
            CREATE_GROUP => Command::CreateGroup,
            SETTLED => {
                let (first, count) = read_settled(self.take(SETTLED_BYTES)?);
                Command::Settled { first: Offset::new(first), count }
            }
            FAILED => {
                let (offset, attempt) = self.attempt()?;
                Command::Change(Change::Failed { offset, attempt })
            }
            DEAD_LETTERED => {
                let (offset, attempt) = self.attempt()?;
                Command::Change(Change::DeadLettered { offset, attempt })
            }
            SEAL => Command::Seal,
            TRIM => Command::Trim { first: Offset::new(self.u64()?) },
            other => return Err(self.bad(format!("unknown command {other}"))),
        })
    }

    fn attempt(&mut self) -> Result<(Offset, Attempt), BadCommand> {
        let offset = Offset::new(self.u64()?);
        let json = self.long()?;
        let attempt = serde_json::from_slice(json).map_err(|e| self.bad(e.to_string()))?;
        Ok((offset, attempt))
    }

    fn name<T>(&mut self, parse: impl Fn(&[u8]) -> Result<T, BadName>) -> Result<T, BadCommand> {
        let name = self.short()?;
        parse(name).map_err(|e| self.bad(e.to_string()))
    }

    fn text(
        &mut self,
        read: impl Fn(&mut Self) -> Result<&'a [u8], BadCommand>,
    ) -> Result<&'a str, BadCommand> {
        let bytes = read(self)?;
        std::str::from_utf8(bytes).map_err(|e| self.bad(e.to_string()))
    }

    fn byte(&mut self) -> Result<u8, BadCommand> {
        Ok(self.take(1)?[0])
    }

    fn u64(&mut self) -> Result<u64, BadCommand> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn short(&mut self) -> Result<&'a [u8], BadCommand> {
        let len = self.byte()?;
        self.take(usize::from(len))
    }

    fn long(&mut self) -> Result<&'a [u8], BadCommand> {
        let mut len = 0usize;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            len |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return self.take(len);
            }
        }
        Err(self.bad("a length is too long".to_owned()))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], BadCommand> {
        let Some(bytes) = self.bytes.get(self.at..).and_then(|rest| rest.get(..len)) else {
            return Err(self.bad("the batch ends too early".to_owned()));
        };
        self.at += len;
        Ok(bytes)
    }

    fn bad(&self, why: String) -> BadCommand {
        BadCommand { at: self.at, why }
    }
}

fn read_settled(bytes: &[u8]) -> (u64, u32) {
    let first = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let count = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
    (first, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Outcome;

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name.as_bytes()).unwrap()
    }

    fn group(name: &str) -> GroupName {
        GroupName::parse(name.as_bytes()).unwrap()
    }

    fn read(bytes: &[u8]) -> Vec<Command<'_>> {
        let mut reader = CommandReader::new(bytes);
        let mut all = Vec::new();
        while let Some(command) = reader.next().unwrap() {
            all.push(command);
        }
        all
    }

    fn attempt() -> Attempt {
        Attempt {
            n: 1,
            consumer: "w1".into(),
            sent: Timestamp::from_micros(1_000_001),
            ended: Timestamp::from_micros(2_000_002),
            outcome: Outcome::Timeout,
            reason: None,
            uncounted: false,
            error: Some("late".into()),
        }
    }

    #[test]
    fn a_batch_reads_back_and_says_nothing_twice() {
        let mut commands = Commands::default();
        let now = Timestamp::from_micros(7);
        for message in [&b"a"[..], b"", &[0xff; 300]] {
            commands.topic(&topic("chat"));
            commands.time(now);
            commands.append(message);
        }
        commands.topic(&topic("chat.dlq"));
        commands.append_more("", "\"k\":1", b"x");
        commands.topic(&topic("chat"));
        commands.group(&group("g"));
        commands.create_group();
        for offset in [1, 2, 3, 5] {
            commands.change(&Change::Settled { offset: Offset::new(offset) });
        }
        let failed = Change::Failed { offset: Offset::new(9), attempt: attempt() };
        let dead = Change::DeadLettered { offset: Offset::new(9), attempt: attempt() };
        commands.change(&failed);
        commands.change(&dead);
        let bytes = commands.into_bytes();
        let plain = |message| Command::Append { id: "", extra: "", message };
        assert_eq!(
            read(&bytes),
            [
                Command::Topic(topic("chat")),
                Command::Time(now),
                plain(b"a"),
                plain(b""),
                plain(&[0xff; 300]),
                Command::Topic(topic("chat.dlq")),
                Command::Append { id: "", extra: "\"k\":1", message: b"x" },
                Command::Topic(topic("chat")),
                Command::Group(group("g")),
                Command::CreateGroup,
                Command::Settled { first: Offset::new(1), count: 3 },
                Command::Settled { first: Offset::new(5), count: 1 },
                Command::Change(failed),
                Command::Change(dead),
            ]
        );
    }

    #[test]
    fn a_group_is_said_again_after_another_topic() {
        let mut commands = Commands::default();
        for name in ["a", "b", "a"] {
            commands.topic(&topic(name));
            commands.group(&group("g"));
            commands.change(&Change::Settled { offset: Offset::new(1) });
        }
        let bytes = commands.into_bytes();
        let groups = read(&bytes).iter().filter(|c| matches!(c, Command::Group(_))).count();
        assert_eq!(groups, 3);
    }

    #[test]
    fn cut_or_foreign_bytes_are_an_error_and_never_a_panic() {
        let mut commands = Commands::default();
        commands.topic(&topic("chat"));
        commands.append(b"hello");
        commands.change(&Change::Failed { offset: Offset::new(9), attempt: attempt() });
        let bytes = commands.into_bytes();
        for end in 0..bytes.len() {
            let mut reader = CommandReader::new(&bytes[..end]);
            while let Ok(Some(_)) = reader.next() {}
        }
        let error = CommandReader::new(&[9]).next().unwrap_err();
        assert_eq!(error.why, "unknown batch format 9");
        let error = CommandReader::new(&[1, 200]).next().unwrap_err();
        assert_eq!(error.why, "unknown command 200");
    }
}
