//! What some bytes of a client ask for, gathered into as few letters as the order of the answers
//! allows.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::broker::letter::{Item, Span};
use crate::ids::TopicName;
use crate::proto::Tag;

/// A letter up to this size, in bytes, has its bytes for itself.
const COPY_BYTES_MAX: usize = 2 << 10;

/// What some bytes ask for, in order: letters while they are being filled, and ready lines.
#[derive(Default)]
pub(super) struct Drafts(pub(super) Vec<Draft>);

/// One of them.
pub(super) enum Draft {
    Letter { shard: u32, items: Vec<Item>, joins: usize, is_open: bool },
    History { shard: u32, tag: Option<Tag>, topic: TopicName, count: u64 },
    Lines(Vec<u8>),
}

impl Drafts {
    /// Adds an item to the last letter, or to a new one if that goes elsewhere or is closed.
    pub(super) fn item(&mut self, to: u32, item: Item) {
        match self.0.last_mut() {
            Some(Draft::Letter { shard, items, is_open: true, .. }) if *shard == to => {
                items.push(item);
            }
            _ => {
                let items = vec![item];
                self.0.push(Draft::Letter { shard: to, items, joins: 0, is_open: true });
            }
        }
    }

    /// Adds a message, to the run of messages before it if it is one of them.
    pub(super) fn publish(&mut self, to: u32, tag: Option<Tag>, topic: TopicName, message: Span) {
        if tag.is_none()
            && let Some(Draft::Letter { shard, items, is_open: true, .. }) = self.0.last_mut()
            && *shard == to
            && let Some(Item::Publish { tag: None, topic: last, messages }) = items.last_mut()
            && *last == topic
        {
            messages.push(message);
            return;
        }
        self.item(to, Item::Publish { tag, topic, messages: vec![message] });
    }

    /// Adds a ready line: into the open letter, so that the answers come as one.
    pub(super) fn line(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match self.0.last_mut() {
            Some(Draft::Letter { items, is_open: true, .. }) => match items.last_mut() {
                Some(Item::Line(line)) => write(line),
                _ => {
                    let mut line = Vec::new();
                    write(&mut line);
                    items.push(Item::Line(line));
                }
            },
            Some(Draft::Lines(lines)) => write(lines),
            _ => {
                let mut lines = Vec::new();
                write(&mut lines);
                self.0.push(Draft::Lines(lines));
            }
        }
    }

    /// The last letter takes no more: what follows is answered by another one.
    pub(super) fn close(&mut self, joining: bool) {
        if let Some(Draft::Letter { is_open, joins, .. }) = self.0.last_mut() {
            *is_open &= joining;
            *joins += usize::from(joining);
        }
    }
}

/// The first `len` bytes of a buffer. Few of them are copied: a letter would keep the whole buffer as
/// long as it waits, and the buffer can be used again.
pub(super) fn take(buf: &mut BytesMut, len: usize) -> Bytes {
    if len > COPY_BYTES_MAX {
        return buf.split_to(len).freeze();
    }
    let bytes = Bytes::copy_from_slice(&buf[..len]);
    buf.advance(len);
    bytes
}

pub(super) fn span(base: usize, bytes: &[u8]) -> Span {
    let start = bytes.as_ptr().addr() - base;
    let fits = "a session's buffer is far below 4 GiB";
    Span {
        start: u32::try_from(start).expect(fits),
        end: u32::try_from(start + bytes.len()).expect(fits),
    }
}
