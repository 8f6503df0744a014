//! Messages for one group, as the lines its members get: from the tail cache when the group keeps
//! up, from the files when it is behind.

use std::sync::Arc;

use crate::ids::{DerivedId, Offset, TopicName};
use crate::log::{Chunk, Line, LogError, Reader, TopicLog};

use super::decide::raw_number;
use super::lines;

/// The group's place in the tail cache and in the files.
#[derive(Debug)]
pub(super) struct Feed {
    chunk: Option<Arc<Chunk>>,
    reader: Reader,
    /// What the reader will give next.
    next: Offset,
}

/// How the id of a message that was handed out leads back to its offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FedId {
    /// By itself; these are its milliseconds.
    Derived(u64),
    /// Only by a table: the id is a prototype's or the publisher's own.
    Given(Box<[u8]>),
}

impl FedId {
    fn read(id: &[u8], tag: u32, offset: Offset) -> Self {
        match DerivedId::parse(id) {
            Some(derived) if derived.tag == tag && derived.offset == offset => {
                Self::Derived(derived.millis)
            }
            _ => Self::Given(id.into()),
        }
    }

    /// What the group remembers of it. Milliseconds stay below the number of a given one.
    pub(super) fn mark(&self) -> u64 {
        match self {
            Self::Derived(millis) => *millis,
            Self::Given(_) => u64::MAX,
        }
    }
}

/// What a dead letter tells of its original.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) id: String,
    pub(super) ts: Box<serde_json::value::RawValue>,
    pub(super) message: Vec<u8>,
}

impl Default for Original {
    fn default() -> Self {
        Self { id: String::new(), ts: raw_number("0"), message: Vec::new() }
    }
}

impl Feed {
    pub(super) fn new(reader: Reader) -> Self {
        Self { chunk: None, reader, next: Offset::ZERO }
    }

    /// Appends the message's line to `out` and returns its id.
    pub(super) fn write(
        &mut self,
        topic: &TopicName,
        tag: u32,
        log: &TopicLog,
        offset: Offset,
        out: &mut Vec<u8>,
    ) -> Result<FedId, LogError> {
        if let Some(line) = self.cached(log, offset) {
            out.extend_from_slice(line);
            let id_at = b"MSG ".len() + topic.as_str().len() + 1;
            let id = line[id_at..].split(|b| *b == b' ').next().unwrap_or_default();
            let id = FedId::read(id, tag, offset);
            // Whoever keeps up needs no file.
            self.rest();
            return Ok(id);
        }
        let line = self.stored(offset)?;
        lines::write_msg(out, topic, &line);
        Ok(FedId::read(line.id.as_bytes(), tag, offset))
    }

    /// What a dead letter tells of the message at `offset`.
    pub(super) fn original(&mut self, offset: Offset) -> Result<Original, LogError> {
        let line = self.stored(offset)?;
        Ok(Original {
            id: line.id.to_string(),
            ts: raw_number(line.ts_text),
            message: line.message.to_vec(),
        })
    }

    /// Keeps no file open until it is needed again.
    pub(super) fn rest(&mut self) {
        self.reader.rest();
    }

    fn cached(&mut self, log: &TopicLog, offset: Offset) -> Option<&[u8]> {
        if !self.chunk.as_ref().is_some_and(|chunk| chunk.holds(offset)) {
            self.chunk = log.tail().chunk_at(offset);
        }
        self.chunk.as_ref().map(|chunk| chunk.line(offset))
    }

    fn stored(&mut self, offset: Offset) -> Result<Line<'_>, LogError> {
        // Unless it succeeds, nobody knows where the reader stands.
        if std::mem::take(&mut self.next) != offset {
            self.reader.seek(offset)?;
        }
        match self.reader.next()? {
            Some(line) => {
                self.next = offset.next();
                Ok(line)
            }
            None => unreachable!("a group is told the log's end, and asks only up to it"),
        }
    }
}
