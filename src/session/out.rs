//! What is to be written to a socket: own lines, and chunks shared with other sessions.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// A shared chunk up to this size is copied behind the lines before it: one slice less to write.
const COPY_BYTES_MAX: usize = 2048;

/// Bytes in the order in which they leave.
#[derive(Debug, Default)]
pub struct Out {
    chunks: VecDeque<Bytes>,
    lines: BytesMut,
    len: usize,
}

impl Out {
    /// Unsent bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds lines.
    pub fn lines(&mut self, lines: Vec<u8>) {
        self.len += lines.len();
        if self.lines.is_empty() && lines.len() > COPY_BYTES_MAX {
            self.chunks.push_back(Bytes::from(lines));
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
    pub fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        self.seal();
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    /// The first `sent` bytes are on their way.
    pub fn advance(&mut self, mut sent: usize) {
        self.len -= sent;
        while sent > 0 {
            let front = self.chunks.front_mut().expect("no more was sent than there was");
            if front.len() > sent {
                front.advance(sent);
                return;
            }
            sent -= front.len();
            self.chunks.pop_front();
        }
        if self.len == 0 {
            // An idle connection keeps no buffers.
            *self = Out::default();
        }
    }

    fn seal(&mut self) {
        if !self.lines.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.lines).freeze());
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
}
