//! Messages made beforehand: `PUB` lines in a ring, of which a stamp is all that changes.

use crate::time::Moment;

/// Bytes of a stamp at the front of a message: a moment in nanoseconds, in hex.
pub(super) const STAMP_BYTES: usize = 16;

/// Most bytes of one ring, unless it takes more to have a line for each topic.
const RING_BYTES_MAX: usize = 4 << 20;

/// A ring of `PUB` lines, all of one length, to some topics in turn.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Vec<u8>,
    line_bytes: usize,
    /// Where in a line the stamp stands, if the message has room for one.
    stamp_at: Option<usize>,
    /// Where the next line stands that is added, and the next byte that is written.
    head: usize,
    tail: usize,
    /// Bytes between the two.
    unsent: usize,
}

impl Ring {
    /// Room for `window` lines with messages of `size` bytes, and for one to each of the topics, whose
    /// names are of one length.
    pub(super) fn new(topics: &[&str], size: usize, window: u32) -> Self {
        let words: Vec<String> = topics.iter().map(|topic| format!("PUB {topic} ")).collect();
        let words_bytes = words[0].len();
        let line_bytes = words_bytes + size + 1;
        let ring_bytes = Self::bytes(topics.len(), line_bytes, window);
        let rounds = ring_bytes / line_bytes / topics.len();
        let mut bytes = Vec::with_capacity(ring_bytes);
        let mut letters = Letters(0x9e37_79b9_7f4a_7c15);
        for words in std::iter::repeat_n(&words, rounds).flatten() {
            assert_eq!(words.len(), words_bytes, "all lines are of one length");
            bytes.extend_from_slice(words.as_bytes());
            bytes.extend(letters.by_ref().take(size));
            bytes.push(b'\n');
        }
        let stamp_at = (size >= STAMP_BYTES).then_some(words_bytes);
        Self { bytes, line_bytes, stamp_at, head: 0, tail: 0, unsent: 0 }
    }

    /// How much memory a ring of such lines to so many topics takes.
    pub(super) fn bytes(topics: usize, line_bytes: usize, window: u32) -> usize {
        let lines = (RING_BYTES_MAX / line_bytes).min(window as usize);
        let rounds = lines.div_ceil(topics).max(1);
        rounds.saturating_mul(topics).saturating_mul(line_bytes)
    }

    /// How many more lines can be added before some are written.
    pub(super) fn room(&self) -> usize {
        (self.bytes.len() - self.unsent) / self.line_bytes
    }

    /// Adds lines that are sent at `moment`: no more than there is room for.
    pub(super) fn add(&mut self, lines: usize, moment: Moment) {
        debug_assert!(lines <= self.room());
        let stamp = stamp(moment);
        for _ in 0..lines {
            if let Some(at) = self.stamp_at {
                let at = self.head + at;
                self.bytes[at..at + STAMP_BYTES].copy_from_slice(&stamp);
            }
            self.head = (self.head + self.line_bytes) % self.bytes.len();
        }
        self.unsent += lines * self.line_bytes;
    }

    /// What is to be written next.
    pub(super) fn unsent(&self) -> &[u8] {
        let end = (self.tail + self.unsent).min(self.bytes.len());
        &self.bytes[self.tail..end]
    }

    /// So many bytes of [`Ring::unsent`] were written.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.unsent -= bytes;
        self.tail = (self.tail + bytes) % self.bytes.len();
    }
}

fn stamp(moment: Moment) -> [u8; STAMP_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut stamp = [b'0'; STAMP_BYTES];
    let mut rest = moment.as_nanos();
    for digit in stamp.iter_mut().rev() {
        *digit = DIGITS[(rest % 16) as usize];
        rest /= 16;
    }
    stamp
}

/// The moment that a message was stamped with.
pub(super) fn stamped(message: &[u8]) -> Option<Moment> {
    let digits = std::str::from_utf8(message.get(..STAMP_BYTES)?).ok()?;
    u64::from_str_radix(digits, 16).ok().map(Moment::from_nanos)
}

/// Letters and digits that do not repeat soon, always the same.
#[derive(Debug)]
struct Letters(u64);

impl Iterator for Letters {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some(LETTERS[(self.0 >> 20) as usize % LETTERS.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_gives_every_line_once_and_in_order() {
        let topics = ["s", "t"];
        let mut ring = Ring::new(&topics, 20, 3);
        assert_eq!(ring.room(), 4, "each topic has as many");
        let mut sent = Vec::new();
        for n in 0..10 {
            assert!(ring.room() > 0);
            ring.add(1, Moment::from_nanos(n));
            // An odd number of bytes at a time, so that a line is cut at times.
            while ring.room() < 2 {
                let bytes = ring.unsent().len().min(17);
                sent.extend_from_slice(&ring.unsent()[..bytes]);
                ring.sent(bytes);
            }
        }
        while !ring.unsent().is_empty() {
            let bytes = ring.unsent().len();
            sent.extend_from_slice(&ring.unsent()[..bytes]);
            ring.sent(bytes);
        }
        let lines: Vec<_> = sent.split_inclusive(|b| *b == b'\n').collect();
        assert_eq!(lines.len(), 10);
        for (n, line) in lines.into_iter().enumerate() {
            let (words, message) = line.split_at(6);
            assert_eq!(words, format!("PUB {} ", topics[n % 2]).as_bytes());
            let at = Moment::from_nanos(u64::try_from(n).unwrap());
            assert_eq!((message.len(), stamped(message)), (21, Some(at)));
        }
    }

    #[test]
    fn a_short_message_has_no_stamp_and_a_long_one_fits() {
        let mut ring = Ring::new(&["t"], 1, 5);
        ring.add(5, Moment::from_nanos(1));
        assert_eq!((ring.room(), ring.unsent().len()), (0, 5 * 8));
        assert_eq!(stamped(b"x"), None);
        assert_eq!(Ring::new(&["t"], 16 << 20, 1000).room(), 1);
        assert_eq!(Ring::new(&["s", "t"], 16 << 20, 1000).room(), 2);
    }
}
