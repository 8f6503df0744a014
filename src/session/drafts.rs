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
pub(super) struct Drafts {
    pub(super) list: Vec<Draft>,
    /// Bytes of ready lines.
    pub(super) ready: usize,
}

/// One of them.
pub(super) enum Draft {
    Letter { shard: u32, items: Vec<Item>, joins: usize, is_open: bool },
    History { shard: u32, tag: Option<Tag>, topic: TopicName, count: u64 },
    Lines(Vec<u8>),
}

impl Drafts {
    /// Adds an item to the last letter, or to a new one if that goes elsewhere or is closed.
    pub(super) fn item(&mut self, to: u32, item: Item) {
        match self.list.last_mut() {
            Some(Draft::Letter { shard, items, is_open: true, .. }) if *shard == to => {
                items.push(item);
            }
            _ => {
                let items = vec![item];
                self.list.push(Draft::Letter { shard: to, items, joins: 0, is_open: true });
            }
        }
    }

    /// Adds a message, to the run of messages before it if it is one of them.
    pub(super) fn publish(&mut self, to: u32, tag: Option<Tag>, topic: TopicName, message: Span) {
        if tag.is_none()
            && let Some(Draft::Letter { shard, items, is_open: true, .. }) = self.list.last_mut()
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
        let ready = &mut self.ready;
        let write = |line: &mut Vec<u8>| {
            let before = line.len();
            write(line);
            *ready += line.len() - before;
        };
        match self.list.last_mut() {
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
                self.list.push(Draft::Lines(lines));
            }
        }
    }

    /// The last letter takes no more: what follows is answered by another one.
    pub(super) fn close(&mut self, joining: bool) {
        if let Some(Draft::Letter { is_open, joins, .. }) = self.list.last_mut() {
            *is_open &= joining;
            *joins += usize::from(joining);
        }
    }
}

/// The first `len` bytes of a buffer. Few of them are copied: a letter would keep the whole buffer as
/// long as it waits, and the buffer can be used again. If there are many, a shorter rest is copied: it
/// would keep all of it as long as more of it has not come.
pub(super) fn take(buf: &mut BytesMut, len: usize) -> Bytes {
    if len > COPY_BYTES_MAX {
        let bytes = buf.split_to(len).freeze();
        if !buf.is_empty() && buf.len() < len {
            *buf = BytesMut::from(&buf[..]);
        }
        return bytes;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection kept the memory of a large message for the one byte that came behind it.
    #[test]
    fn what_is_left_keeps_no_more_memory_than_it_needs() {
        for (rest, keeps) in [(1, false), (COPY_BYTES_MAX + 1, false), (200_000, true)] {
            let mut buf = BytesMut::from(&[b'x'; 200_000][..]);
            let len = buf.len() - rest.min(100_000);
            let place = buf.as_ptr().addr() + len;
            let bytes = take(&mut buf, len);
            assert_eq!(bytes.len() + buf.len(), 200_000);
            assert_eq!(buf.as_ptr().addr() == place, keeps, "{rest}");
        }
        let mut buf = BytesMut::from("PING\nP");
        assert_eq!((&take(&mut buf, 5)[..], &buf[..]), (&b"PING\n"[..], &b"P"[..]));
    }
}
