//! One message as one line.
//!
//! `{"id":"…","offset":3,"ts":1758865780.036983,"msg":"Hello","crc":"9f2a11c0"}`: the prototype's
//! four members first, then what there is of `"enc":"base64"` and further members, and the crc last:
//! the CRC-32C of the topic's name, the offset as eight little-endian bytes, and the line before
//! `,"crc":`. So each line can be verified alone, and one in the wrong place fails.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::{DerivedId, Offset, TopicName, write_hex};
use crate::planted::{self, Bug};
use crate::text;
use crate::time::{Timestamp, read_decimal, write_decimal};

/// `,"crc":"9f2a11c0"}`
const CRC_BYTES: usize = 18;

const CRC_MEMBER: &[u8] = b",\"crc\":\"";

/// A message to be appended.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// When it was published.
    pub ts: Timestamp,
    /// Its id; derived from topic, offset and time if not given.
    pub id: Option<&'a str>,
    /// Its bytes.
    pub message: &'a [u8],
    /// Further JSON members, rendered, without a comma before or behind; or empty.
    pub extra: &'a str,
}

/// A line that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// The message's id.
    pub id: Cow<'a, str>,
    /// Its offset.
    pub offset: Offset,
    /// When it was published, as it is written.
    pub ts_text: &'a str,
    /// Its bytes.
    pub message: Cow<'a, [u8]>,
    /// The whole line, without its end.
    pub raw: &'a [u8],
    /// Whether it has a crc, which then was right.
    pub is_checked: bool,
    /// Whether the message is known to be UTF-8 without control characters: it stands in the line as
    /// it is, and the crc says that the line is as it was written.
    pub is_plain: bool,
}

impl Line<'_> {
    /// When it was published.
    pub fn ts(&self) -> Timestamp {
        // It was looked at when the line was read.
        Timestamp::parse(self.ts_text).unwrap_or_default()
    }
}

/// Why a line is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineError {
    /// It stands for a message that was lost.
    #[error("it was lost before a repair; `wiber check` put what there was into the quarantine")]
    Lost,
    /// It is no JSON object with id, offset, ts and msg.
    #[error("the line is no record: {0}")]
    NoRecord(String),
    /// It is not what was written, or not where it was written.
    #[error("the checksum is {computed:08x} where {stored} is written")]
    Checksum {
        /// Of what is there.
        computed: u32,
        /// What stands in the line.
        stored: String,
    },
}

/// What stands in the place of a message that is lost: `{"lost":17   }`, with as many blanks as make
/// it as long as what was there. Only a repair writes it; readers name the message and go on.
const LOST: &str = "{\"lost\":";

/// The offset of the lost message in whose place this line stands; `None` for any other line.
pub fn parse_lost(raw: &[u8]) -> Option<Offset> {
    let digits = raw.strip_prefix(LOST.as_bytes())?.strip_suffix(b"}")?.trim_ascii_end();
    let offset = Offset::new(std::str::from_utf8(digits).ok()?.parse().ok()?);
    check_offset(offset).is_ok().then_some(offset)
}

/// Appends the line for a lost message, with its end: `padding` bytes longer than it has to be.
pub(crate) fn write_lost(out: &mut Vec<u8>, offset: Offset, padding: usize) {
    out.extend_from_slice(LOST.as_bytes());
    write_decimal(out, offset.get());
    out.resize(out.len() + padding, b' ');
    out.extend_from_slice(b"}\n");
}

fn no_record(why: impl ToString) -> LineError {
    LineError::NoRecord(why.to_string())
}

/// Appends the line of a record of the topic with this tag, with its end.
pub fn write_line(out: &mut Vec<u8>, tag: u32, offset: Offset, record: &NewRecord<'_>) {
    let start = out.len();
    out.extend_from_slice(b"{\"id\":\"");
    match record.id {
        Some(id) => escape(out, id.as_bytes()),
        None => DerivedId::new(tag, offset, record.ts).write_to(out),
    }
    out.extend_from_slice(b"\",\"offset\":");
    write_decimal(out, offset.get());
    out.extend_from_slice(b",\"ts\":");
    record.ts.write_to(out);
    out.extend_from_slice(b",\"msg\":\"");
    if text::is_utf8(record.message) {
        escape(out, record.message);
        out.push(b'"');
    } else {
        out.extend_from_slice(BASE64.encode(record.message).as_bytes());
        out.extend_from_slice(b"\",\"enc\":\"base64\"");
    }
    if !record.extra.is_empty() {
        out.push(b',');
        out.extend_from_slice(record.extra.as_bytes());
    }
    let crc = checksum(tag, offset, &out[start..]);
    out.extend_from_slice(CRC_MEMBER);
    out.extend_from_slice(&text::hex(crc));
    out.extend_from_slice(b"\"}\n");
}

/// The checksum of a line of the topic with this tag, which is the checksum of its name.
fn checksum(tag: u32, offset: Offset, line: &[u8]) -> u32 {
    if planted::has(Bug::CaseUnsummed) {
        return checksum_of(tag, offset, &planted::in_small_letters(line));
    }
    checksum_of(tag, offset, line)
}

fn checksum_of(tag: u32, offset: Offset, line: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(tag, &offset.get().to_le_bytes()), line)
}

/// How many bytes are escaped at once.
const PIECE_BYTES: usize = 256;

/// Bytes of a word.
const WORD_BYTES: usize = size_of::<u64>();

/// What stands in a JSON string for each byte: itself, or a backslash and this; [`AS_NUMBER`] where it
/// has no letter.
const LETTERS: [u8; 256] = {
    let mut letters = [AS_NUMBER; 256];
    let mut byte = 0x20u8;
    loop {
        letters[byte as usize] = byte;
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    let mut at = 0;
    while at < SHORT.len() {
        let (byte, letter) = SHORT[at];
        letters[byte as usize] = letter;
        at += 1;
    }
    letters
};

/// Bytes with an escape of two characters, and the second of those.
const SHORT: [(u8, u8); 7] = [
    (b'"', b'"'),
    (b'\\', b'\\'),
    (b'\n', b'n'),
    (b'\r', b'r'),
    (b'\t', b't'),
    (0x08, b'b'),
    (0x0c, b'f'),
];

/// Of a byte that is escaped by its number.
const AS_NUMBER: u8 = 0;

/// Appends text as the inside of a JSON string.
fn escape(out: &mut Vec<u8>, inside: &[u8]) {
    // Whole pieces without anything to escape are copied at once.
    for piece in inside.chunks(PIECE_BYTES) {
        if text::is_plain_json(piece) {
            out.extend_from_slice(piece);
        } else {
            escape_piece(out, piece);
        }
    }
}

/// The same for a piece in which something has to be, a word at a time: what is before, between and
/// behind the odd bytes of a word is written as a whole word, of which the rest is overwritten.
fn escape_piece(out: &mut Vec<u8>, piece: &[u8]) {
    let mut buffer = [0; 2 * PIECE_BYTES + WORD_BYTES];
    let mut len = 0;
    let (words, rest) = piece.as_chunks::<WORD_BYTES>();
    let mut last = [b'x'; WORD_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some((&last, rest.len()));
    for (word, count) in words.iter().map(|word| (word, WORD_BYTES)).chain(last) {
        let mut word = u64::from_le_bytes(*word);
        let mut left = count;
        while let Some(plain) = text::plain_json(word).filter(|plain| *plain < left) {
            buffer[len..len + WORD_BYTES].copy_from_slice(&word.to_le_bytes());
            len += plain;
            let [byte, ..] = (word >> (8 * plain)).to_le_bytes();
            match LETTERS[usize::from(byte)] {
                AS_NUMBER => {
                    out.extend_from_slice(&buffer[..len]);
                    len = 0;
                    out.extend_from_slice(b"\\u");
                    write_hex(out, u64::from(byte), 4);
                }
                letter => {
                    buffer[len..len + 2].copy_from_slice(&[b'\\', letter]);
                    len += 2;
                }
            }
            left -= plain + 1;
            // In two steps: a shift by the whole width is none.
            word = word >> (8 * plain) >> 8;
        }
        buffer[len..len + WORD_BYTES].copy_from_slice(&word.to_le_bytes());
        len += left;
    }
    out.extend_from_slice(&buffer[..len]);
}

/// The text in the inside of a JSON string, if it has no escapes but those that [`escape`] makes.
fn unescape(inside: &[u8]) -> Option<Vec<u8>> {
    if !text::is_utf8(inside) {
        return None;
    }
    let mut out = vec![0; inside.len()];
    let (mut at, mut len) = (0, 0);
    while let Some(&byte) = inside.get(at) {
        at += 1;
        out[len] = match byte {
            b'\\' => {
                let letter = *inside.get(at)?;
                at += 1;
                match letter {
                    b'"' | b'\\' => letter,
                    b'u' => {
                        let number = crate::ids::read_hex(inside.get(at..at + 4)?)?;
                        at += 4;
                        u8::try_from(number).ok().filter(u8::is_ascii)?
                    }
                    _ => SHORT.iter().find(|(_, known)| *known == letter)?.0,
                }
            }
            0..0x20 | b'"' => return None,
            _ => byte,
        };
        len += 1;
    }
    out.truncate(len);
    Some(out)
}

/// Reads a line, without its end, of `topic`. A crc is verified where there is one; lines of the
/// prototype have none.
///
/// # Errors
/// [`LineError`].
pub fn parse_line<'a>(topic: &TopicName, raw: &'a [u8]) -> Result<Line<'a>, LineError> {
    Found::in_line(topic.tag(), raw)?.line(raw)
}

/// What was found in a good line, without the line: [`Found::line`] puts both together. It is handed
/// on for every line that is read, so it is small and its fields are of a size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) offset: Offset,
    id_end: u32,
    ts_start: u32,
    ts_end: u32,
    message_end: u32,
    form: Form,
}

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Form {
    /// As [`write_line`] writes it, but for base64 and further members.
    Own,
    /// The same, and its message has escapes.
    Escaped,
    /// Any other: it has to be read again.
    Other,
}

/// How a line begins that [`write_line`] wrote.
const ID: &[u8] = b"{\"id\":\"";
const OFFSET: &[u8] = b"\",\"offset\":";
const TS: &[u8] = b",\"ts\":";
const MSG: &[u8] = b",\"msg\":\"";

impl Found {
    /// A line of another form than our own.
    fn other(offset: Offset) -> Self {
        let form = Form::Other;
        Self { offset, id_end: 0, ts_start: 0, ts_end: 0, message_end: 0, form }
    }

    /// Looks for a record of the topic with this tag in a line, and verifies its crc.
    #[inline]
    pub(super) fn in_line(tag: u32, raw: &[u8]) -> Result<Self, LineError> {
        if !raw.starts_with(ID) && parse_lost(raw).is_some() {
            return Err(LineError::Lost);
        }
        if let Some(found) = own_form(tag, raw) {
            return found;
        }
        // The prototype puts a blank behind its colons. What begins as our own lines do is one of
        // them, and has lost its checksum.
        if raw.starts_with(ID) {
            return Err(no_record("its checksum is missing"));
        }
        Ok(Self::other(any_form(raw)?.offset))
    }

    /// The record. `raw` is the line in which it was found.
    #[inline]
    pub(super) fn line(self, raw: &[u8]) -> Result<Line<'_>, LineError> {
        if self.form == Form::Other {
            return any_form(raw);
        }
        let (ts_end, message_end) = (self.ts_end as usize, self.message_end as usize);
        let head = std::str::from_utf8(&raw[..ts_end]).map_err(no_record)?;
        let message_start = ts_end + MSG.len();
        let message = if self.form == Form::Escaped {
            Cow::Owned(match unescape(&raw[message_start..message_end]) {
                Some(message) => message,
                None => {
                    let literal = &raw[message_start - 1..=message_end];
                    serde_json::from_slice::<String>(literal).map_err(no_record)?.into_bytes()
                }
            })
        } else {
            Cow::Borrowed(&raw[message_start..message_end])
        };
        Ok(Line {
            id: Cow::Borrowed(&head[ID.len()..self.id_end as usize]),
            offset: self.offset,
            ts_text: &head[self.ts_start as usize..],
            message,
            raw,
            is_checked: true,
            is_plain: self.form == Form::Own,
        })
    }
}

/// A line as [`write_line`] writes it; `None` if it is another.
#[inline]
fn own_form(tag: u32, raw: &[u8]) -> Option<Result<Found, LineError>> {
    let cut = raw.len().checked_sub(CRC_BYTES)?;
    let (body, end) = raw.split_at(cut);
    let stored = end.strip_prefix(CRC_MEMBER)?.strip_suffix(b"\"}")?.first_chunk::<8>()?;
    let id = body.strip_prefix(ID)?;
    let (id_len, has_escapes) = string_end(id)?;
    let rest = id[id_len..].strip_prefix(OFFSET)?;
    let (offset, digits) = read_decimal(rest)?;
    let offset = Offset::new(offset);
    let rest = rest[digits..].strip_prefix(TS)?;
    let computed = checksum(tag, offset, body);
    if *stored != text::hex(computed) {
        let stored = String::from_utf8_lossy(stored).into_owned();
        return Some(Err(LineError::Checksum { computed, stored }));
    }
    if let Err(error) = check_offset(offset) {
        return Some(Err(error));
    }
    // From here on it is as it was written.
    if !has_escapes && let Some(found) = own_parts(body, offset, id_len, rest) {
        return Some(Ok(found));
    }
    Some(any_form(raw).map(|_| Found::other(offset)))
}

/// The parts of a line's `body`, given what stands behind `,"ts":` in it; `None` if it is not as
/// simple as most are.
#[inline]
fn own_parts(body: &[u8], offset: Offset, id_len: usize, rest: &[u8]) -> Option<Found> {
    let id_end = ID.len() + id_len;
    let ts_start = body.len() - rest.len();
    let ts_len = memchr::memchr(b',', rest)?;
    if !is_timestamp(&rest[..ts_len]) {
        return None;
    }
    let message = rest[ts_len..].strip_prefix(MSG)?;
    let first = memchr::memchr2(b'"', b'\\', message)?;
    let has_escapes = message[first] == b'\\';
    let message_len = if has_escapes { only_string(message, first)? } else { first };
    let message_end = ts_start + ts_len + MSG.len() + message_len;
    let ts_end = ts_start + ts_len;
    let is_last = message_end + 1 == body.len();
    let place = |at: usize| u32::try_from(at).ok();
    is_last.then_some(Found {
        offset,
        id_end: place(id_end)?,
        ts_start: place(ts_start)?,
        ts_end: place(ts_end)?,
        message_end: place(message_end)?,
        form: if has_escapes { Form::Escaped } else { Form::Own },
    })
}

/// Whether this is a timestamp as [`write_line`] writes it: up to twelve digits, a point, six digits.
fn is_timestamp(text: &[u8]) -> bool {
    let Some((seconds, fraction)) = text.split_last_chunk::<7>() else { return false };
    let digits = |text: &[u8]| text.iter().fold(true, |all, byte| all & byte.is_ascii_digit());
    (1..=12).contains(&seconds.len())
        && digits(seconds)
        && fraction[0] == b'.'
        && digits(&fraction[1..])
}

/// How long the inside of a JSON string is that ends where `text` does, given that its first escape or
/// end is at `first`; `None` if it ends before.
fn only_string(text: &[u8], first: usize) -> Option<usize> {
    let (end, inside) = text.split_last()?;
    let mut at = first;
    while let Some(byte) = inside.get(at) {
        if *byte == b'"' {
            return None;
        }
        at += 1 + usize::from(*byte == b'\\');
    }
    (*end == b'"' && at == inside.len()).then_some(inside.len())
}

/// How long a JSON string is whose inside begins here, and whether it has escapes; `None` if it has
/// no end.
fn string_end(inside: &[u8]) -> Option<(usize, bool)> {
    let mut at = memchr::memchr2(b'"', b'\\', inside)?;
    let has_escapes = inside[at] == b'\\';
    while inside[at] == b'\\' {
        let behind = at + 2;
        at = behind + memchr::memchr2(b'"', b'\\', inside.get(behind..)?)?;
    }
    Some((at, has_escapes))
}

/// Offsets begin with 1, and there is always one more behind them.
/// Where a line may begin within one, because the end of the one before is damaged.
pub(crate) fn record_starts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memmem::find_iter(bytes, b"{\"id\":\"").filter(|at| *at > 0).take(64)
}

/// The first good record in a line, and how many begin in it before that one.
pub(crate) fn record_in(topic: &TopicName, bytes: &[u8]) -> Option<(Offset, u64)> {
    let record = |bytes| parse_line(topic, bytes).ok();
    let whole = record(bytes).map(|line| line.offset).or_else(|| parse_lost(bytes));
    let within = || {
        (1..).zip(record_starts(bytes)).find_map(|(before, at)| {
            let line = record(&bytes[at..]).filter(|line| line.is_checked)?;
            Some((line.offset, before))
        })
    };
    whole.map(|offset| (offset, 0)).or_else(within)
}

fn check_offset(offset: Offset) -> Result<(), LineError> {
    match offset.get() {
        0 | u64::MAX => Err(no_record(format!("its offset is {offset}"))),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    offset: u64,
    #[serde(borrow)]
    ts: &'a RawValue,
    #[serde(borrow)]
    msg: Cow<'a, str>,
    #[serde(borrow, default)]
    enc: Option<Cow<'a, str>>,
    #[serde(default)]
    crc: Option<String>,
}

/// Any JSON object with the members of a record. Its crc, if it has one in the right place, was
/// verified or is verified by the caller.
fn any_form(raw: &[u8]) -> Result<Line<'_>, LineError> {
    let members: Members<'_> = serde_json::from_slice(raw).map_err(no_record)?;
    let ts_text = members.ts.get();
    Timestamp::parse(ts_text).ok_or_else(|| no_record("its ts is no time"))?;
    let message = match members.enc.as_deref() {
        None => match members.msg {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        Some("base64") => Cow::Owned(BASE64.decode(members.msg.as_bytes()).map_err(no_record)?),
        Some(other) => return Err(no_record(format!("its enc is {other:?}"))),
    };
    let offset = Offset::new(members.offset);
    check_offset(offset)?;
    let is_checked = members.crc.is_some();
    Ok(Line { id: members.id, offset, ts_text, message, raw, is_checked, is_plain: false })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_escaped_is_what_serde_escapes_and_reads_back(
            text in prop_oneof![
                proptest::collection::vec(any::<char>(), 0..700).prop_map(String::from_iter),
                "[\"\\\\a\n\r\t\u{0}-\u{20}]{0,600}",
                "[{}\",:a-z0-9 ]{0,600}",
            ],
        ) {
            let mut out = Vec::new();
            escape(&mut out, text.as_bytes());
            let literal = [b"\"", &out[..], b"\""].concat();
            prop_assert_eq!(&literal, &serde_json::to_vec(&text).unwrap());
            prop_assert_eq!(unescape(&out), Some(text.into_bytes()));
            if let Some(first) = out.iter().position(|byte| *byte == b'\\') {
                prop_assert_eq!(only_string(&literal[1..], first), Some(out.len()));
            }
        }

        #[test]
        fn what_is_unescaped_is_what_serde_reads(
            inside in prop_oneof![
                "[\"\\\\a\nu0bfä/]{0,20}".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..20),
            ],
        ) {
            let literal = [b"\"", &inside[..], b"\""].concat();
            let read = serde_json::from_slice::<String>(&literal).ok().map(String::into_bytes);
            if let Some(message) = unescape(&inside) {
                prop_assert_eq!(Some(message), read.clone());
            }
            if let Some(first) = inside.iter().position(|byte| *byte == b'\\') {
                let end = only_string(&literal[1..], first);
                if read.is_some() {
                    prop_assert_eq!(end, Some(inside.len()));
                }
            }
        }
    }
}
