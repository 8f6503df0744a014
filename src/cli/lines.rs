//! Standard input, line by line, read by a thread of its own: a person who types or a program that
//! is slow holds up nothing else.

use std::io::{self, BufRead};
use std::thread;

use memchr::{memchr, memrchr};
use tokio::sync::mpsc;

use crate::limits::MESSAGE_BYTES_CEILING;

/// Most batches that are read ahead; the reader waits for room.
const BATCHES_MAX: usize = 16;

/// Whole lines, in the order in which they were read.
#[derive(Debug)]
pub(super) struct Batch(Vec<u8>);

impl Batch {
    /// The lines, without their ends.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (line, behind) = rest.split_at(memchr(b'\n', rest)?);
            rest = &behind[1..];
            Some(line.strip_suffix(b"\r").unwrap_or(line))
        })
    }

    /// How much was read, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// What is read from standard input. The channel closes at its end.
pub(super) fn from_stdin() -> mpsc::Receiver<io::Result<Batch>> {
    let (batches, receiver) = mpsc::channel(BATCHES_MAX);
    thread::spawn(move || read(io::stdin().lock(), |batch| batches.blocking_send(batch).is_ok()));
    receiver
}

/// Gives on whatever whole lines are there: what a person types leaves at once.
fn read(mut from: impl BufRead, mut send: impl FnMut(io::Result<Batch>) -> bool) {
    let mut rest = Vec::new();
    loop {
        let arrived = match from.fill_buf() {
            Ok(arrived) => arrived,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                send(Err(error));
                return;
            }
        };
        let taken = arrived.len();
        if taken == 0 {
            if !rest.is_empty() {
                // All that is there is of the line: a CR at its end too.
                rest.extend_from_slice(b"\r\n");
                send(Ok(Batch(rest)));
            }
            return;
        }
        let cut = memrchr(b'\n', arrived).map_or(0, |at| at + 1);
        if cut > 0 {
            let mut whole = std::mem::take(&mut rest);
            whole.extend_from_slice(&arrived[..cut]);
            if !send(Ok(Batch(whole))) {
                return;
            }
        }
        rest.extend_from_slice(&arrived[cut..]);
        from.consume(taken);
        if rest.len() > MESSAGE_BYTES_CEILING {
            let text = format!("a line is longer than {MESSAGE_BYTES_CEILING} bytes");
            send(Err(io::Error::other(text)));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(input: &[u8], at_a_time: usize) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        read(io::BufReader::with_capacity(at_a_time, input), |batch| {
            lines.extend(batch.expect("no failure").lines().map(<[u8]>::to_vec));
            true
        });
        lines
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let input = b"one\n\n two \r\nthree\xff\nlast without its end";
        for at_a_time in 1..50 {
            let lines = lines_of(input, at_a_time);
            let expected: [&[u8]; 5] =
                [b"one", b"", b" two ", b"three\xff", b"last without its end"];
            assert_eq!(lines, expected, "{at_a_time} bytes at a time");
        }
        assert!(lines_of(b"", 8).is_empty());
        assert_eq!(lines_of(b"\n", 8), [b""]);
    }

    #[test]
    fn a_carriage_return_without_a_line_feed_ends_no_line() {
        for at_a_time in 1..8 {
            assert_eq!(lines_of(b"a\r\nb\r", at_a_time), [&b"a"[..], b"b\r"]);
            assert_eq!(lines_of(b"a\r\r\n\r", at_a_time), [&b"a\r"[..], b"\r"]);
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut failures = 0;
        let endless = io::BufReader::new(io::repeat(b'x'));
        read(endless, |batch| {
            failures += u32::from(batch.is_err());
            true
        });
        assert_eq!(failures, 1);
    }
}
