//! A broker's line → meaning, for clients.

use memchr::memchr;

use crate::ids::Offset;

/// One line of a broker, borrowed from the bytes that it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerLine<'a> {
    /// The tag, without its `@`, of the command that the line answers.
    pub tag: Option<&'a str>,
    /// What the line says.
    pub kind: Kind<'a>,
}

/// What a broker's line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind<'a> {
    /// `OK …`: the command was carried out. Final.
    Ok(&'a str),
    /// `ERR <CODE> <text>`: the command was refused. Final.
    Err {
        /// The code, which may be one that this version does not know.
        code: &'a str,
        /// The text for people and the fields behind it.
        text: &'a str,
    },
    /// `MSG …`: pushed because of a subscription.
    Msg(Record<'a>),
    /// `HISTORY …`: part of the answer to a `HISTORY`.
    History(Record<'a>),
    /// A line that this version has no meaning for. Nothing is waiting for it.
    Other,
}

/// A message as a `MSG` or `HISTORY` line shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its place in the topic.
    pub offset: Offset,
    /// When it was published, in Unix seconds with a fraction.
    pub ts: &'a str,
    /// The rest of the line, verbatim.
    pub body: &'a [u8],
}

impl<'a> ServerLine<'a> {
    /// Reads a line, given without its LF.
    pub fn parse(line: &'a [u8]) -> ServerLine<'a> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(tagged) = line.strip_prefix(b"@")
            && let Some((tag, rest)) = text_word(tagged)
        {
            return ServerLine { tag: Some(tag), kind: Kind::parse(rest) };
        }
        ServerLine { tag: None, kind: Kind::parse(line) }
    }
}

impl<'a> Kind<'a> {
    fn parse(line: &'a [u8]) -> Kind<'a> {
        Kind::known(line).unwrap_or(Kind::Other)
    }

    fn known(line: &'a [u8]) -> Option<Kind<'a>> {
        let (verb, rest) = word(line);
        match verb {
            b"OK" => Some(Kind::Ok(std::str::from_utf8(rest).ok()?)),
            b"MSG" => Record::parse(rest).map(Kind::Msg),
            b"HISTORY" => Record::parse(rest).map(Kind::History),
            b"ERR" => {
                let rest = std::str::from_utf8(rest).ok()?;
                let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
                Some(Kind::Err { code, text })
            }
            _ => None,
        }
    }

    /// Whether this is the line that ends the answer to a command.
    pub fn is_final(&self) -> bool {
        matches!(self, Kind::Ok(_) | Kind::Err { .. })
    }

    /// The id and offset of `OK published <id> <offset>`.
    pub fn published(&self) -> Option<(&'a str, Offset)> {
        let Kind::Ok(text) = *self else { return None };
        let (id, offset) = text.strip_prefix("published ")?.split_once(' ')?;
        Some((id, parse_offset(offset.as_bytes())?))
    }
}

impl<'a> Record<'a> {
    fn parse(rest: &'a [u8]) -> Option<Record<'a>> {
        let (topic, rest) = text_word(rest)?;
        let (id, rest) = text_word(rest)?;
        let (offset, rest) = word(rest);
        let (ts, body) = text_word(rest)?;
        Some(Record { topic, id, offset: parse_offset(offset)?, ts, body })
    }
}

/// The bytes of a message that was shown as a JSON string literal, or `None` if `body` is none.
///
/// A message that happens to be a JSON string literal itself is shown verbatim, and a level-1
/// reader cannot tell the two apart: use this where publishers send no such literals.
pub fn unquote(body: &[u8]) -> Option<Vec<u8>> {
    let text: String = serde_json::from_slice(body).ok()?;
    if !has_byte_escape(body) {
        return Some(text.into_bytes());
    }
    text.chars().map(|c| u8::try_from(c).ok()).collect()
}

/// Whether a JSON string literal has an escape from `\u0080` to `\u00ff`.
fn has_byte_escape(literal: &[u8]) -> bool {
    let mut rest = literal;
    while let Some(at) = memchr(b'\\', rest) {
        rest = &rest[at + 1..];
        if rest.starts_with(b"u00") && rest.get(3).is_some_and(|&b| b >= b'8') {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// The text up to the one space that divides, and what is behind it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}

fn text_word(text: &[u8]) -> Option<(&str, &[u8])> {
    let (word, rest) = word(text);
    let word = std::str::from_utf8(word).ok().filter(|word| !word.is_empty())?;
    Some((word, rest))
}

fn parse_offset(digits: &[u8]) -> Option<Offset> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n.checked_mul(10)?.checked_add(u64::from(b - b'0'))).flatten()
    })?;
    Some(Offset::new(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(line: &str) -> Kind<'_> {
        ServerLine::parse(line.as_bytes()).kind
    }

    #[test]
    fn lines_of_a_broker_are_read() {
        assert_eq!(kind("OK connected"), Kind::Ok("connected"));
        assert_eq!(kind("OK history end\r"), Kind::Ok("history end"));
        assert_eq!(kind("OK"), Kind::Ok(""));
        assert_eq!(kind("OK published msg_1_ab 7").published(), Some(("msg_1_ab", Offset::new(7))));
        assert_eq!(
            kind("ERR BAD_ARGS usage: PING"),
            Kind::Err { code: "BAD_ARGS", text: "usage: PING" }
        );
        assert_eq!(kind("ERR ODD"), Kind::Err { code: "ODD", text: "" });
        for other in ["", "WARN x", "MSG", "MSG t id x 1.0 body", "MSG t id 1", "OKAY", "ok pong"] {
            assert_eq!(kind(other), Kind::Other, "{other:?}");
        }
        let body = b"  two  OK pong ".as_slice();
        let record = Record { topic: "t", id: "i", offset: Offset::new(9), ts: "1.5", body };
        assert_eq!(kind("MSG t i 9 1.5   two  OK pong "), Kind::Msg(record));
        assert_eq!(kind("HISTORY t i 9 1.5   two  OK pong "), Kind::History(record));
        let empty = Record { body: b"", ..record };
        assert_eq!(kind("MSG t i 9 1.5 "), Kind::Msg(empty));
        assert!(
            kind("OK x").is_final()
                && kind("ERR x").is_final()
                && !kind("MSG t i 9 1.5 ").is_final()
        );
    }

    #[test]
    fn a_tag_is_split_off() {
        let line = ServerLine::parse(b"@a-1 OK pong");
        assert_eq!(line, ServerLine { tag: Some("a-1"), kind: Kind::Ok("pong") });
        assert_eq!(ServerLine::parse(b"@ OK pong").kind, Kind::Other);
    }

    #[test]
    fn offsets_that_are_no_numbers_of_their_type_are_refused() {
        assert_eq!(parse_offset(b"18446744073709551615"), Some(Offset::new(u64::MAX)));
        for bad in ["", "-1", "+1", "1.0", "18446744073709551616", "000000000000000000001"] {
            assert_eq!(parse_offset(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_literal_says_whether_it_is_text_or_bytes() {
        assert_eq!(unquote(br#""\u00e4\n""#), Some(b"\xe4\n".to_vec()));
        assert_eq!(unquote("\"ä\\n\"".as_bytes()), Some("ä\n".as_bytes().to_vec()));
        assert_eq!(unquote(br#""\\u00e4\n""#), Some(b"\\u00e4\n".to_vec()));
        assert_eq!(unquote(r#""\\u00e4ä""#.as_bytes()), Some(r"\u00e4ä".as_bytes().to_vec()));
        assert_eq!(unquote(br#""\u0000""#), Some(b"\0".to_vec()));
        assert_eq!(unquote("\"\\u00ffž\"".as_bytes()), None, "bytes have no such character");
        for no in ["", "plain", "\"open", "{}", "1"] {
            assert_eq!(unquote(no.as_bytes()), None, "{no:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_a_broker_sends_panics(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            ServerLine::parse(&line);
            unquote(&line);
        }
    }
}
