//! Checked names and numbers: a value of one of these types has passed its check, so nothing
//! further in has to check it again, and a name can become a file name without fear.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::NAME_BYTES_MAX;
use crate::planted::{self, Bug};
use crate::text;
use crate::time::{Timestamp, write_decimal};

/// The ending of dead-letter topics. Clients may read them, not publish to them.
pub const DEAD_LETTER_SUFFIX: &str = ".dlq";

/// Why a name was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a name has 1 to 200 of A-Z a-z 0-9 . _ -, starts with a letter or digit, and has no \"..\""
)]
pub struct BadName;

fn checked(name: &[u8], bytes_max: usize) -> Result<&str, BadName> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let first_ok = name.first().is_some_and(u8::is_ascii_alphanumeric);
    let ok = first_ok
        && name.len() <= bytes_max
        && name.iter().all(plain)
        && !name.windows(2).any(|w| w == b"..");
    if !ok {
        return Err(BadName);
    }
    std::str::from_utf8(name).map_err(|_not_ascii| BadName)
}

/// The name of a topic. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`BadName`] unless it has 1 to 200 of `A-Z a-z 0-9 . _ -`, starts with a letter or digit and has
    /// no `..`, or is such a name with the ending `.dlq`: a dead-letter topic, whatever the name before
    /// it ends with.
    pub fn parse(name: &[u8]) -> Result<Self, BadName> {
        checked(name.strip_suffix(DEAD_LETTER_SUFFIX.as_bytes()).unwrap_or(name), NAME_BYTES_MAX)?;
        let name = std::str::from_utf8(name).map_err(|_not_ascii| BadName)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the dead-letter topic of another.
    pub fn is_dead_letter(&self) -> bool {
        self.0.ends_with(DEAD_LETTER_SUFFIX)
    }

    /// The dead-letter topic of this one, or `None` if it is one itself.
    pub fn dead_letter(&self) -> Option<TopicName> {
        (!self.is_dead_letter())
            .then(|| TopicName(format!("{}{DEAD_LETTER_SUFFIX}", self.0).into()))
    }

    /// The name without the ending `.dlq`: a topic and its dead-letter topic have it in common,
    /// and live on the same shard because of it.
    pub fn family(&self) -> &str {
        self.0.strip_suffix(DEAD_LETTER_SUFFIX).unwrap_or(&self.0)
    }

    /// A number that tells topics apart in message ids: the CRC-32C of the name.
    pub fn tag(&self) -> u32 {
        crc32c::crc32c(self.0.as_bytes())
    }
}

/// The name of a consumer group. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Checks `name`, by the rules of topics.
    ///
    /// # Errors
    /// [`BadName`] unless it has 1 to 200 of `A-Z a-z 0-9 . _ -`, starts with a letter or digit
    /// and has no `..`.
    pub fn parse(name: &[u8]) -> Result<Self, BadName> {
        checked(name, NAME_BYTES_MAX).map(|name| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! name_traits {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
name_traits!(TopicName);
name_traits!(GroupName);

/// The place of a record in its topic: 1, 2, 3 … without a gap. Zero stands for "before the first".
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Offset(u64);

impl Offset {
    /// Before the first record of a topic; also the end of an empty one.
    pub const ZERO: Offset = Offset(0);
    /// The first record of a topic.
    pub const FIRST: Offset = Offset(1);

    /// The offset with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next offset.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset before this one; zero stays zero.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection of this process's life, and the member that it is in its groups. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id the broker gives to a record: `msg_<unix ms>_<hex>`, where the hex digits are the tag of
/// the topic (eight digits) and the offset.
///
/// It is unique in its topic for ever because the offset is: no clock step, restart, number of
/// messages a second or change of leader can make one twice. It also leads back to its record
/// without a table: see `docs/decisions/0002-ids-from-offsets.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DerivedId {
    /// Unix milliseconds of the record's timestamp.
    pub millis: u64,
    /// [`TopicName::tag`] of the record's topic.
    pub tag: u32,
    /// The record's offset.
    pub offset: Offset,
}

impl DerivedId {
    /// The id of the record at `offset` of the topic with `tag`, published at `ts`.
    pub fn new(tag: u32, offset: Offset, ts: Timestamp) -> Self {
        Self { millis: ts.as_millis(), tag, offset }
    }

    /// Appends the id to `out`, without allocation.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"msg_");
        write_decimal(out, self.millis);
        out.push(b'_');
        out.extend_from_slice(&text::hex(self.tag));
        let offset = if planted::has(Bug::IdReused) { 1 } else { self.offset.get() };
        write_hex(out, offset, 1);
    }

    /// Reads an id of this form; `None` if it is of another (a prototype's, or a publisher's own).
    pub fn parse(id: &[u8]) -> Option<DerivedId> {
        let rest = id.strip_prefix(b"msg_")?;
        let cut = memchr::memchr(b'_', rest)?;
        let (millis, hex) = (&rest[..cut], &rest[cut + 1..]);
        let canonical =
            |digits: &[u8]| !digits.is_empty() && (digits.len() == 1 || digits[0] != b'0');
        if !canonical(millis) || millis.len() > 19 || hex.len() < 9 || hex.len() > 24 {
            return None;
        }
        let millis = millis
            .iter()
            .try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))?;
        let (tag, offset) = hex.split_at(8);
        if !canonical(offset) {
            return None;
        }
        let tag = u32::try_from(read_hex(tag)?).ok()?;
        Some(DerivedId { millis, tag, offset: Offset::new(read_hex(offset)?) })
    }
}

impl fmt::Display for DerivedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msg_{}_{:08x}{:x}", self.millis, self.tag, self.offset.get())
    }
}

/// Appends `number` in lower-case hex, with at least `digits_min` digits.
pub fn write_hex(out: &mut Vec<u8>, number: u64, digits_min: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if let Ok(number) = u32::try_from(number) {
        let needed = (8 - number.leading_zeros() as usize / 4).max(digits_min);
        if needed <= 8 {
            return out.extend_from_slice(&text::hex(number)[8 - needed..]);
        }
    }
    let needed = (16 - number.leading_zeros() as usize / 4).max(digits_min).min(16);
    let mut digits = [b'0'; 16];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest & 15) as usize];
        rest >>= 4;
    }
    out.extend_from_slice(&digits[16 - needed..]);
}

/// Reads lower-case hex digits; `None` for anything else or more than 16 of them.
pub fn read_hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_they_can_become_a_path() {
        for good in ["chat", "A", "9", "a.b", "a-b_c", "chat.dlq", &"x".repeat(200)] {
            assert!(TopicName::parse(good.as_bytes()).is_ok(), "{good:?}");
        }
        let long = "x".repeat(201);
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            ".a",
            "a..b",
            "a/b",
            "../../etc",
            "a b",
            "a\0",
            "ä",
            "a=b",
            &long,
        ] {
            assert!(TopicName::parse(bad.as_bytes()).is_err(), "{bad:?}");
            assert!(GroupName::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_topic_and_its_dead_letter_topic_are_one_family() {
        for name in ["chat", "a.", "a.dlq.", "a._.", &"x".repeat(200)] {
            let topic = TopicName::parse(name.as_bytes()).unwrap();
            let dlq = topic.dead_letter().unwrap();
            assert_eq!(TopicName::parse(dlq.as_str().as_bytes()), Ok(dlq.clone()));
            assert_eq!(dlq.family(), topic.family());
            assert!(dlq.is_dead_letter() && dlq.dead_letter().is_none());
        }
        for none in [".dlq", "..dlq", "a..b.dlq", "a...dlq", &format!("{}.dlq", "x".repeat(201))] {
            assert!(TopicName::parse(none.as_bytes()).is_err(), "{none:?}");
        }
    }

    #[test]
    fn a_derived_id_leads_back_to_its_record() {
        let topic = TopicName::parse(b"chat").unwrap();
        for (offset, micros) in [(1, 1_758_865_780_036_983), (u64::MAX, 0), (255, 1000)] {
            let id =
                DerivedId::new(topic.tag(), Offset::new(offset), Timestamp::from_micros(micros));
            let mut text = Vec::new();
            id.write_to(&mut text);
            assert_eq!(String::from_utf8(text.clone()).unwrap(), id.to_string());
            assert_eq!(DerivedId::parse(&text), Some(id));
        }
        for other in [
            "msg_1758865780040_e10628bb",
            "msg_1_000000001x",
            "order-7",
            "msg__",
            "",
            "msg_01_000000001",
            "msg_1_000000001\n",
            "msg_1_000000000A",
        ] {
            assert_eq!(DerivedId::parse(other.as_bytes()), None, "{other:?}");
        }
        assert!(DerivedId::parse(b"msg_1_000000001").is_some());
        assert!(DerivedId::parse(b"msg_1_0000000001").is_none(), "one number, one spelling");
    }
}
