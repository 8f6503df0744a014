//! Reads a fuzzer's bytes as numbers and pieces. When they run out there is nothing but zeros.

/// What is left of the bytes.
#[derive(Clone, Debug)]
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// A number that is small, or at an edge of its type, or anything.
    pub(super) fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=0xf0 => u64::from(small),
            0xf1 => u64::MAX,
            0xf2 => u64::MAX - u64::from(self.u8()),
            0xf3 => u64::from(u32::MAX) + u64::from(self.u8()),
            0xf4 => u64::from(u32::MAX) - u64::from(self.u8()),
            0xf5 => 1 << 63,
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.u8())),
        }
    }

    /// At most `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A place in something of this length; 0 if it is empty.
    pub(super) fn place(&mut self, len: usize) -> usize {
        usize::from(self.u16()) % len.max(1)
    }
}

/// Draws numbers from a seed (xorshift): how a stream is cut, in which order answers come.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 up to and without `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from(self.next() % bound).expect("below a usize")
    }
}
