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
use crate::time::{Timestamp, write_decimal};

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
    /// When it was published.
    pub ts: Timestamp,
    /// The same as it is written.
    pub ts_text: &'a str,
    /// Its bytes.
    pub message: Cow<'a, [u8]>,
    /// The whole line, without its end.
    pub raw: &'a [u8],
    /// Whether it has a crc, which then was right.
    pub is_checked: bool,
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

/// Appends the line of a record, with its end.
pub fn write_line(
    out: &mut Vec<u8>,
    topic: &TopicName,
    tag: u32,
    offset: Offset,
    record: &NewRecord<'_>,
) {
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
    if is_text(record.message) {
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
    let crc = checksum(topic, offset, &out[start..]);
    out.extend_from_slice(CRC_MEMBER);
    write_hex(out, u64::from(crc), 8);
    out.extend_from_slice(b"\"}\n");
}

fn checksum(topic: &TopicName, offset: Offset, line: &[u8]) -> u32 {
    let crc = crc32c::crc32c(topic.as_str().as_bytes());
    let crc = crc32c::crc32c_append(crc, &offset.get().to_le_bytes());
    crc32c::crc32c_append(crc, line)
}

fn is_text(message: &[u8]) -> bool {
    message.is_ascii() || std::str::from_utf8(message).is_ok()
}

/// Appends text as the inside of a JSON string.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    // Whole pieces without anything to escape are found with SIMD and copied at once.
    while !rest.is_empty() {
        let piece = rest.len().min(64);
        let (head, tail) = rest.split_at(piece);
        let plain =
            head.iter().fold(true, |ok, b| ok & (*b >= 0x20) & (*b != b'"') & (*b != b'\\'));
        if plain {
            out.extend_from_slice(head);
        } else {
            head.iter().for_each(|byte| escape_byte(out, *byte));
        }
        rest = tail;
    }
}

fn escape_byte(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        0..0x20 => {
            out.extend_from_slice(b"\\u");
            return write_hex(out, u64::from(byte), 4);
        }
        _ => return out.push(byte),
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Reads a line, without its end, of `topic`. A crc is verified where there is one; lines of the
/// prototype have none.
///
/// # Errors
/// [`LineError`].
pub fn parse_line<'a>(topic: &TopicName, raw: &'a [u8]) -> Result<Line<'a>, LineError> {
    read_line(Some(topic), raw)
}

/// Reads a line that [`parse_line`] has found good a moment ago.
pub(super) fn parse_again(raw: &[u8]) -> Result<Line<'_>, LineError> {
    read_line(None, raw)
}

fn read_line<'a>(topic: Option<&TopicName>, raw: &'a [u8]) -> Result<Line<'a>, LineError> {
    let text = std::str::from_utf8(raw).map_err(no_record)?;
    if parse_lost(raw).is_some() {
        return Err(LineError::Lost);
    }
    match own_form(topic, text) {
        Some(line) => line,
        // The prototype puts a blank behind its colons. What begins as our own lines do is one of
        // them, and has lost its checksum.
        None if text.starts_with("{\"id\":\"") => Err(no_record("its checksum is missing")),
        None => any_form(text),
    }
}

/// A line as [`write_line`] writes it; `None` if it is another. Verified if the topic is given.
fn own_form<'a>(topic: Option<&TopicName>, text: &'a str) -> Option<Result<Line<'a>, LineError>> {
    let cut = text.len().checked_sub(CRC_BYTES)?;
    let stored = text.get(cut..)?.strip_prefix(",\"crc\":\"")?.strip_suffix("\"}")?;
    let body = &text[..cut];
    let (id, rest) = body.strip_prefix("{\"id\":\"")?.split_once("\",\"offset\":")?;
    let (offset, rest) = rest.split_once(",\"ts\":")?;
    let (ts_text, rest) = rest.split_once(",\"msg\":\"")?;
    let offset = Offset::new(offset.parse().ok()?);
    if let Some(topic) = topic {
        let computed = checksum(topic, offset, body.as_bytes());
        if crate::ids::read_hex(stored.as_bytes()) != Some(u64::from(computed)) {
            return Some(Err(LineError::Checksum { computed, stored: stored.to_owned() }));
        }
    }
    if let Err(error) = check_offset(offset) {
        return Some(Err(error));
    }
    if id.contains('\\') {
        return Some(any_form(text));
    }
    let end = rest.find(['"', '\\'])?;
    let message = match &rest[end..] {
        "\"" => Cow::Borrowed(&rest.as_bytes()[..end]),
        _ => return Some(any_form(text)),
    };
    let ts = Timestamp::parse(ts_text)?;
    let raw = text.as_bytes();
    Some(Ok(Line { id: Cow::Borrowed(id), offset, ts, ts_text, message, raw, is_checked: true }))
}

/// Offsets begin with 1, and there is always one more behind them.
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
fn any_form(text: &str) -> Result<Line<'_>, LineError> {
    let members: Members<'_> = serde_json::from_str(text).map_err(no_record)?;
    let ts_text = members.ts.get();
    let ts = Timestamp::parse(ts_text).ok_or_else(|| no_record("its ts is no time"))?;
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
    Ok(Line {
        id: members.id,
        offset,
        ts,
        ts_text,
        message,
        raw: text.as_bytes(),
        is_checked: members.crc.is_some(),
    })
}
