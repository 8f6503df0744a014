//! Replies and message lines → bytes, appended to a buffer without allocating.
//!
//! Every function appends whole lines. A reply takes the tag of the command that it answers.

use super::{Tag, WireError};
use crate::ids::{DerivedId, GroupName, Offset, TopicName, write_hex};
use crate::text;
use crate::time::{Timestamp, write_decimal};

fn reply(out: &mut Vec<u8>, tag: Option<&Tag>, words: &[&[u8]]) {
    start(out, tag);
    for word in words {
        out.extend_from_slice(word);
    }
    out.push(b'\n');
}

fn start(out: &mut Vec<u8>, tag: Option<&Tag>) {
    if let Some(tag) = tag {
        out.push(b'@');
        out.extend_from_slice(tag.as_bytes());
        out.push(b' ');
    }
}

/// `OK connected`, the greeting.
pub fn connected(out: &mut Vec<u8>) {
    reply(out, None, &[b"OK connected"]);
}

/// `OK subscribed <topic>` or `OK subscribed <topic> in group <group>`.
pub fn subscribed(
    out: &mut Vec<u8>,
    tag: Option<&Tag>,
    topic: &TopicName,
    group: Option<&GroupName>,
) {
    let topic = topic.as_str().as_bytes();
    match group {
        None => reply(out, tag, &[b"OK subscribed ", topic]),
        Some(group) => {
            let group = group.as_str().as_bytes();
            reply(out, tag, &[b"OK subscribed ", topic, b" in group ", group]);
        }
    }
}

/// `OK published <id> <offset>`.
pub fn published(out: &mut Vec<u8>, tag: Option<&Tag>, id: impl AsText, offset: Offset) {
    start(out, tag);
    out.extend_from_slice(b"OK published ");
    id.append_to(out);
    out.push(b' ');
    write_decimal(out, offset.get());
    out.push(b'\n');
}

/// `OK ack_received`.
pub fn ack_received(out: &mut Vec<u8>, tag: Option<&Tag>) {
    reply(out, tag, &[b"OK ack_received"]);
}

/// `OK heartbeat_received`.
pub fn heartbeat_received(out: &mut Vec<u8>, tag: Option<&Tag>) {
    reply(out, tag, &[b"OK heartbeat_received"]);
}

/// `OK history end`, behind the lines of a `HISTORY`.
pub fn history_end(out: &mut Vec<u8>, tag: Option<&Tag>) {
    reply(out, tag, &[b"OK history end"]);
}

/// `OK pong`.
pub fn pong(out: &mut Vec<u8>, tag: Option<&Tag>) {
    reply(out, tag, &[b"OK pong"]);
}

/// `OK bye`, the last line of a connection.
pub fn bye(out: &mut Vec<u8>, tag: Option<&Tag>) {
    reply(out, tag, &[b"OK bye"]);
}

/// `ERR <CODE> <text> name=value…`.
pub fn error(out: &mut Vec<u8>, tag: Option<&Tag>, error: &WireError) {
    start(out, tag);
    error.write_to(out);
    out.push(b'\n');
}

/// An id or a timestamp that can write itself: the text that a record has in its file, or what it
/// is made from.
pub trait AsText {
    /// Appends the text. It has no blank and no control character.
    fn append_to(&self, out: &mut Vec<u8>);
}

impl AsText for DerivedId {
    fn append_to(&self, out: &mut Vec<u8>) {
        self.write_to(out);
    }
}

impl AsText for Timestamp {
    fn append_to(&self, out: &mut Vec<u8>) {
        self.write_to(out);
    }
}

impl AsText for [u8] {
    fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl AsText for str {
    fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl<T: AsText + ?Sized> AsText for &T {
    fn append_to(&self, out: &mut Vec<u8>) {
        (**self).append_to(out);
    }
}

/// What stands in a message line behind the timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// The bytes of a message: verbatim when a line can carry them, else as a JSON string literal.
    Message(&'a [u8]),
    /// Bytes for which the caller knows that [`line_safe`] holds: a message that was looked at
    /// before, or the whole record of a dead letter.
    Verbatim(&'a [u8]),
}

/// A message on its way to a client.
#[derive(Clone, Copy, Debug)]
pub struct MessageLine<'a, I, T> {
    /// Its topic.
    pub topic: &'a TopicName,
    /// Its id.
    pub id: I,
    /// Its place in the topic.
    pub offset: Offset,
    /// When it was published.
    pub ts: T,
    /// The message.
    pub body: Body<'a>,
}

impl<I: AsText, T: AsText> MessageLine<'_, I, T> {
    /// Appends `MSG <topic> <id> <offset> <ts> <message>`: pushed, so without a tag.
    pub fn write_msg(&self, out: &mut Vec<u8>) {
        self.write(b"MSG ", out);
    }

    /// Appends `HISTORY <topic> <id> <offset> <ts> <message>`: part of the answer to a `HISTORY`.
    pub fn write_history(&self, out: &mut Vec<u8>, tag: Option<&Tag>) {
        start(out, tag);
        self.write(b"HISTORY ", out);
    }

    fn write(&self, verb: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(verb);
        out.extend_from_slice(self.topic.as_str().as_bytes());
        out.push(b' ');
        self.id.append_to(out);
        out.push(b' ');
        write_decimal(out, self.offset.get());
        out.push(b' ');
        self.ts.append_to(out);
        out.push(b' ');
        match self.body {
            Body::Verbatim(bytes) => {
                debug_assert!(line_safe(bytes), "the caller vouches for one line of UTF-8");
                out.extend_from_slice(bytes);
            }
            Body::Message(bytes) if line_safe(bytes) => out.extend_from_slice(bytes),
            Body::Message(bytes) => quote(out, bytes),
        }
        out.push(b'\n');
    }
}

/// Whether a level-1 line can carry `bytes` as they are: UTF-8 without LF, CR and NUL.
pub fn line_safe(bytes: &[u8]) -> bool {
    text::is_line(bytes)
}

/// Appends `bytes` as one JSON string literal.
///
/// Text is written as text; only what JSON demands is escaped. Bytes that are not UTF-8 have no
/// text: each byte becomes the code point of its number, those from 128 on always as `\u0080` to
/// `\u00ff`. Text never has such an escape and bytes that are not UTF-8 always have one, so the
/// literal says which of the two it is, and nothing is lost. [`super::unquote`] reads it back.
fn quote(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    match std::str::from_utf8(bytes) {
        Ok(text) => text.bytes().for_each(|byte| escape(out, byte, byte < 0x20)),
        Err(_) => bytes.iter().for_each(|&byte| escape(out, byte, !(0x20..0x80).contains(&byte))),
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8, as_number: bool) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ if as_number => {
            out.extend_from_slice(b"\\u");
            write_hex(out, u64::from(byte), 4);
        }
        _ => out.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::unquote;
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_have_the_words_of_the_contract() {
        let topic = TopicName::parse(b"chat").unwrap();
        let group = GroupName::parse(b"workers").unwrap();
        let tag = Tag::parse(b"t-1").unwrap();
        let id = DerivedId { millis: 12, tag: 0xab, offset: Offset::new(31) };
        let both = |write: &dyn Fn(&mut Vec<u8>, Option<&Tag>), line: &str| {
            assert_eq!(text(|out| write(out, None)), format!("{line}\n"));
            assert_eq!(text(|out| write(out, Some(&tag))), format!("@t-1 {line}\n"));
        };
        assert_eq!(text(connected), "OK connected\n");
        both(&|out, tag| subscribed(out, tag, &topic, None), "OK subscribed chat");
        both(
            &|out, tag| subscribed(out, tag, &topic, Some(&group)),
            "OK subscribed chat in group workers",
        );
        both(
            &|out, tag| published(out, tag, id, Offset::new(31)),
            "OK published msg_12_000000ab1f 31",
        );
        both(&|out, tag| published(out, tag, &b"own"[..], Offset::FIRST), "OK published own 1");
        both(&ack_received, "OK ack_received");
        both(&heartbeat_received, "OK heartbeat_received");
        both(&history_end, "OK history end");
        both(&pong, "OK pong");
        both(&bye, "OK bye");
        both(
            &|out, tag| error(out, tag, &WireError::not_pending(b"x")),
            "ERR NOT_PENDING message x not found in pending messages",
        );
    }

    fn shown(body: Body<'_>) -> String {
        let topic = TopicName::parse(b"chat").unwrap();
        let ts = Timestamp::from_micros(1_500_000);
        let line = MessageLine { topic: &topic, id: "id", offset: Offset::new(3), ts, body };
        let (msg, history) =
            (text(|out| line.write_msg(out)), text(|out| line.write_history(out, None)));
        let tagged = text(|out| line.write_history(out, Some(&Tag::parse(b"x").unwrap())));
        let body = msg.strip_prefix("MSG chat id 3 1.500000 ").unwrap();
        assert_eq!(history, format!("HISTORY chat id 3 1.500000 {body}"));
        assert_eq!(tagged, format!("@x {history}"));
        let body = body.strip_suffix('\n').unwrap();
        assert!(!body.contains(['\n', '\r', '\0']), "one line: {body:?}");
        body.to_owned()
    }

    #[test]
    fn a_body_is_verbatim_where_a_line_can_carry_it() {
        for body in ["", " ", "hello", "  two  ", "\"quoted\\n\"", "grüße 你好 🦀", "a\tb\x1b\x7f"]
        {
            assert_eq!(shown(Body::Message(body.as_bytes())), body);
            assert_eq!(shown(Body::Verbatim(body.as_bytes())), body);
        }
    }

    #[test]
    fn any_other_body_is_one_json_string_literal() {
        for (body, literal) in [
            (&b"a\nb"[..], r#""a\nb""#),
            (b"a\r", r#""a\r""#),
            (b"\0\x1f", r#""\u0000\u001f""#),
            (b"say \"hi\"\\\n", r#""say \"hi\"\\\n""#),
            ("ä\n".as_bytes(), "\"ä\\n\""),
            (b"\xff\xfe\n\"A", r#""\u00ff\u00fe\n\"A""#),
            (b"\xc3\n", r#""\u00c3\n""#),
            ("ä\u{80}".as_bytes(), "ä\u{80}"),
        ] {
            assert_eq!(shown(Body::Message(body)), literal);
        }
    }

    #[test]
    #[should_panic(expected = "the caller vouches")]
    #[cfg(debug_assertions)]
    fn a_false_promise_is_caught_in_tests() {
        shown(Body::Verbatim(b"a\nOK forged"));
    }

    proptest! {
        #[test]
        fn line_safe_is_what_it_says(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let naive = std::str::from_utf8(&bytes).is_ok()
                && !bytes.iter().any(|b| matches!(b, b'\n' | b'\r' | 0));
            prop_assert_eq!(line_safe(&bytes), naive);
        }

        #[test]
        fn line_safe_holds_for_lines(line in "[^\n\r\0]{0,300}") {
            prop_assert!(line_safe(line.as_bytes()));
            let broken = line + "\n";
            prop_assert!(!line_safe(broken.as_bytes()));
        }

        #[test]
        fn a_literal_reads_back_to_the_bytes(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..50),
                "\\PC{0,20}\n\\PC{0,20}".prop_map(String::into_bytes),
            ],
        ) {
            let mut literal = Vec::new();
            quote(&mut literal, &bytes);
            prop_assert!(serde_json::from_slice::<String>(&literal).is_ok());
            prop_assert_eq!(unquote(&literal), Some(bytes));
        }
    }
}
