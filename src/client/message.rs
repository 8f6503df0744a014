//! A message as a client gets it.

use std::fmt;

use bytes::Bytes;
use memchr::memchr;

use crate::ids::Offset;
use crate::proto::Record;

/// A message of a topic, cheap to clone.
///
/// It keeps the line that it came in, and with it up to a few hundred KiB that were read together;
/// copy what you keep for long.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    line: Bytes,
    offset: Offset,
    topic: (u32, u32),
    id: (u32, u32),
    ts: (u32, u32),
    body: u32,
}

impl Message {
    /// The message of a whole line, `record` being what was read from it.
    pub(super) fn new(line: &Bytes, record: &Record<'_>) -> Message {
        let place = |at: usize| u32::try_from(at).expect("a line is shorter than 4 GiB");
        let line = line.slice(..line.strip_suffix(b"\r").unwrap_or(line).len());
        let skip_word = |from: usize| {
            memchr(b' ', &line[from..]).map_or(line.len(), |at| (from + at + 1).min(line.len()))
        };
        let topic = skip_word(0);
        let id = topic + record.topic.len() + 1;
        let ts = skip_word(id + record.id.len() + 1);
        Message {
            offset: record.offset,
            topic: (place(topic), place(topic + record.topic.len())),
            id: (place(id), place(id + record.id.len())),
            ts: (place(ts), place(ts + record.ts.len())),
            body: place(line.len() - record.body.len()),
            line,
        }
    }

    fn text(&self, (start, end): (u32, u32)) -> &str {
        std::str::from_utf8(&self.line[start as usize..end as usize])
            .expect("the parser has checked these words")
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        self.text(self.topic)
    }

    /// Its id, to acknowledge it.
    pub fn id(&self) -> &str {
        self.text(self.id)
    }

    /// Its place in the topic.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was published, in Unix seconds with a fraction.
    pub fn ts(&self) -> &str {
        self.text(self.ts)
    }

    /// The message as the line shows it. See [`crate::proto::unquote`] for messages that a line
    /// cannot carry as they are.
    pub fn body(&self) -> &[u8] {
        &self.line[self.body as usize..]
    }

    /// As [`Message::body`], shared instead of borrowed.
    pub fn body_bytes(&self) -> Bytes {
        self.line.slice(self.body as usize..)
    }

    /// The whole line, without its line end.
    pub fn line(&self) -> &[u8] {
        &self.line
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Kind, ServerLine};

    impl Message {
        /// The message of a line.
        pub(crate) fn parse(line: &'static [u8]) -> Message {
            let line = Bytes::from_static(line);
            match ServerLine::parse(&line).kind {
                Kind::Msg(record) | Kind::History(record) => Message::new(&line, &record),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_message_shows_the_parts_of_its_line() {
        for (line, body) in [
            (&b"MSG chat msg_1_a 7 1.5 hello world"[..], &b"hello world"[..]),
            (b"HISTORY chat msg_1_a 7 1.5  x \r", b" x "),
            (b"MSG chat msg_1_a 7 1.5 ", b""),
            (b"MSG chat msg_1_a 7 1.5", b""),
            (b"MSG chat msg_1_a 7 1.5 \xff", b"\xff"),
        ] {
            let message = Message::parse(line);
            assert_eq!((message.topic(), message.id()), ("chat", "msg_1_a"));
            assert_eq!((message.offset().get(), message.ts()), (7, "1.5"));
            assert_eq!(message.body(), body);
            assert_eq!(message.body_bytes(), body);
            assert!(line.starts_with(message.line()));
        }
    }
}
