//! What is to be written to a socket: own lines, and chunks shared with other sessions.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// A shared chunk up to this size is copied behind the lines before it: one slice less to write.
const COPY_BYTES_MAX: usize = 2048;

/// Bytes in the order in which they leave.
#[derive(Debug, Default)]
pub struct Out {
    chunks: VecDeque<Bytes>,
    /// Behind the chunks: what is appended to. None of it is sent.
    lines: Vec<u8>,
    len: usize,
    /// Bytes of the first chunk that were sent: they are kept as long as the rest of it.
    gone: usize,
    /// Bytes that were sent before.
    sent: u64,
}

impl Out {
    /// Unsent bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Unsent bytes, and those that are kept with them.
    pub fn kept(&self) -> usize {
        self.len + self.gone
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where what was added last ends, counted from the first byte ever.
    pub fn end(&self) -> u64 {
        self.sent + self.len as u64
    }

    /// How far it was sent, counted likewise.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Adds lines.
    pub fn lines(&mut self, lines: Vec<u8>) {
        self.len += lines.len();
        if lines.len() > COPY_BYTES_MAX {
            self.seal();
        }
        if self.lines.is_empty() {
            self.lines = lines;
        } else {
            self.lines.extend_from_slice(&lines);
        }
    }

    /// Adds shared bytes.
    pub fn chunk(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        if chunk.len() <= COPY_BYTES_MAX {
            self.lines.extend_from_slice(&chunk);
            return;
        }
        self.seal();
        self.chunks.push_back(chunk);
    }

    /// What to write next, at most as many slices as `slices` has; says how many.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let lines = (!self.lines.is_empty()).then_some(&self.lines[..]);
        let parts = self.chunks.iter().map(|chunk| &chunk[..]).chain(lines);
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        count
    }

    /// The first `sent` bytes are on their way.
    pub fn advance(&mut self, mut sent: usize) {
        self.len -= sent;
        self.sent += sent as u64;
        if self.len == 0 {
            // An idle connection keeps no buffers.
            *self = Out { sent: self.sent, ..Out::default() };
            return;
        }
        while sent > 0 {
            if self.chunks.is_empty() {
                self.seal();
            }
            let front = self.chunks.front_mut().expect("no more was sent than there was");
            if front.len() > sent {
                front.advance(sent);
                self.gone += sent;
                return;
            }
            sent -= front.len();
            self.chunks.pop_front();
            self.gone = 0;
        }
    }

    fn seal(&mut self) {
        if !self.lines.is_empty() {
            self.chunks.push_back(Bytes::from(std::mem::take(&mut self.lines)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_however_they_are_cut() {
        let big = vec![b'x'; COPY_BYTES_MAX + 1];
        let mut expected = b"one\n".to_vec();
        expected.extend_from_slice(&big);
        expected.extend_from_slice(b"two\nthree\n");
        for step in [1, 3, 1000, 1_000_000] {
            let mut out = Out::default();
            out.lines(b"one\n".to_vec());
            out.chunk(Bytes::from(big.clone()));
            out.chunk(Bytes::from_static(b"two\n"));
            out.lines(b"three\n".to_vec());
            assert_eq!(out.len(), expected.len());
            let mut sent = Vec::new();
            while !out.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = out.slices(&mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let now = all.len().min(step);
                sent.extend_from_slice(&all[..now]);
                out.advance(now);
            }
            assert_eq!(sent, expected, "in steps of {step}");
        }
    }

    #[test]
    fn what_comes_behind_a_line_that_is_half_sent_stays_behind_it() {
        let mut out = Out::default();
        out.lines(b"one\n".to_vec());
        out.advance(1);
        out.lines(b"two\n".to_vec());
        let mut slices = [IoSlice::new(&[]); 4];
        let count = out.slices(&mut slices);
        let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!((out.len(), &all[..]), (7, &b"ne\ntwo\n"[..]));
        // The part that is sent takes memory until the rest is.
        assert_eq!(out.kept(), 8);
        out.advance(2);
        assert_eq!((out.len(), out.kept()), (5, 8));
        out.advance(2);
        assert_eq!((out.len(), out.kept()), (3, 4));
        out.advance(3);
        assert_eq!((out.len(), out.kept()), (0, 0));
    }
}
