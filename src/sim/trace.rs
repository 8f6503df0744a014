//! What happened, as lines for people and as one number for machines.

use std::fmt;

use crate::time::Moment;

/// The lines of a run. Their hash is kept always, the lines only if somebody wants them.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    is_printed: bool,
    count: u64,
}

impl Trace {
    pub(super) fn new(is_printed: bool) -> Self {
        // FNV-1a, by Fowler, Noll and Vo: the offset basis of 64 bits.
        Self { hash: 0xcbf2_9ce4_8422_2325, is_printed, count: 0 }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, now: Moment, text: fmt::Arguments<'_>) {
        let millis = now.as_nanos() / 1_000_000;
        let line = format!("{:>5}.{:03}  {text}\n", millis / 1000, millis % 1000);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.count += 1;
        if self.is_printed {
            print(&line);
        }
    }

    /// The number that the same run has again, and hardly any other.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub(super) fn lines(&self) -> u64 {
        self.count
    }
}

#[expect(clippy::print_stdout, reason = "whoever asks for a trace wants it there")]
fn print(line: &str) {
    print!("{line}");
}
