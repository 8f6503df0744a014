//! What one line of a topic's file is, given what was before it.

use std::path::Path;
use std::sync::Arc;

use super::{CheckError, unusable};
use crate::disk::File;
use crate::ids::{Offset, TopicName};
use crate::log::{Lines, RawLine, parse_line, parse_lost, record_starts};
use crate::time::Timestamp;

/// How much is read at a time to see what comes next.
const FOLLOWER_BYTES: usize = 4 << 10;

/// More messages than these are not missing in a row: what says so is wrong.
pub(super) const MISSING_MAX: u64 = 1 << 26;

/// What a line is.
pub(super) enum Seen {
    Good(Offset, Timestamp),
    /// A repair wrote it.
    Lost(Offset),
    /// Two lines between which the line end at this byte is damaged.
    Merged(u64),
    /// A line without a checksum that does not stand where it belongs, if what is before it is whole.
    Doubtful(Offset, Timestamp, String),
    Bad(String),
}

/// What a line is, the next one considered.
pub(super) fn look(
    topic: &TopicName,
    raw: &RawLine<'_>,
    (next, in_bad): (Offset, u64),
    (file, path): (&Arc<dyn File>, &Path),
) -> Result<Seen, CheckError> {
    let (offset, ts, why) = match see(topic, raw, next, in_bad) {
        Seen::Doubtful(offset, ts, why) => (offset, ts, why),
        seen => return Ok(seen),
    };
    let len = file.len().map_err(unusable(path))?;
    let behind = raw.at + raw.bytes.len() as u64 + 1;
    let mut lines = Lines::new(Arc::clone(file), path, behind, FOLLOWER_BYTES);
    let follower = lines.next(len)?.and_then(|raw| Some(parse_line(topic, raw.bytes).ok()?.offset));
    let is_believed = raw.is_whole
        && offset.get() - next.get() < MISSING_MAX
        && follower.is_some_and(|follower| follower == offset.next());
    Ok(if is_believed { Seen::Good(offset, ts) } else { Seen::Bad(why) })
}

/// What a line is by itself.
pub(super) fn see(topic: &TopicName, raw: &RawLine<'_>, next: Offset, in_bad: u64) -> Seen {
    if let Some(offset) = parse_lost(raw.bytes)
        && offset >= next
    {
        return Seen::Lost(offset);
    }
    match parse_line(topic, raw.bytes) {
        // A line without a checksum is believed where it belongs, or if the next one agrees.
        Ok(line) if line.offset >= next => {
            let expected = Offset::new(next.get() + in_bad);
            if line.is_checked || line.offset == expected || line.offset == next {
                Seen::Good(line.offset, line.ts())
            } else {
                let why = format!("offset {} where {expected} belongs", line.offset);
                Seen::Doubtful(line.offset, line.ts(), why)
            }
        }
        Ok(line) => Seen::Bad(format!("offset {} where {next} belongs", line.offset)),
        Err(error) => match merged(topic, raw, next) {
            Some(at) => Seen::Merged(at),
            None => Seen::Bad(error.to_string()),
        },
    }
}

/// Where in the bytes of two good lines, the first of which is `next`, the line end between is
/// damaged.
fn merged(topic: &TopicName, raw: &RawLine<'_>, next: Offset) -> Option<u64> {
    let is = |bytes: &[u8], offset| {
        parse_line(topic, bytes).is_ok_and(|line| line.offset == offset && line.is_checked)
    };
    let found = record_starts(raw.bytes)
        .find(|at| is(&raw.bytes[..at - 1], next) && is(&raw.bytes[*at..], next.next()))?;
    Some(raw.at + found as u64 - 1)
}

/// A last line without an end: its last byte may be what became of it.
pub(super) fn cut(topic: &TopicName, raw: &RawLine<'_>, next: Offset) -> Seen {
    let bytes = raw.bytes.split_last().map(|(_, rest)| rest).unwrap_or_default();
    match parse_line(topic, bytes) {
        Ok(line) if line.offset == next && line.is_checked => {
            Seen::Merged(raw.at + bytes.len() as u64)
        }
        _ => Seen::Bad("the line has no end".to_owned()),
    }
}
