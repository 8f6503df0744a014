//! A record: bytes ↔ meaning. Little endian; see the picture in the module above.

use super::{Entry, Lsn};

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 56;

/// Records begin at multiples of this many bytes.
pub(super) const ALIGN: usize = 8;

/// The one kind of record there is: a batch of commands.
pub(super) const KIND_BATCH: u32 = 1;

// Where the fields stand.
const CRC: usize = 4;
pub(super) const MARK: usize = 8;
const LSN: usize = 16;
const DURABLE: usize = 24;
const SHARD: usize = 32;
const KIND: usize = 36;
const TERM: usize = 40;
const INDEX: usize = 48;

/// What stands in a segment for a payload of `len` bytes: header, payload, padding.
pub(super) fn size_of(len: usize) -> usize {
    (HEADER_BYTES + len).next_multiple_of(ALIGN)
}

/// A record whose checksum is right, and that bears the mark of the segment it was looked for in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parsed<'a> {
    pub(super) lsn: Lsn,
    pub(super) durable: Lsn,
    pub(super) kind: u32,
    pub(super) entry: Entry<'a>,
    /// Bytes to the next record.
    pub(super) size: usize,
}

/// What the header at some place says, true or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    pub(super) size: usize,
    pub(super) mark: u64,
    pub(super) lsn: Lsn,
}

/// Appends a record to `out`, whose length is a multiple of [`ALIGN`] before and after.
pub(super) fn encode(out: &mut Vec<u8>, mark: u64, lsn: Lsn, durable: Lsn, entry: &Entry<'_>) {
    let len = u32::try_from(entry.payload.len()).expect("the caller bounds a payload");
    let start = out.len();
    debug_assert!(start.is_multiple_of(ALIGN));
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&mark.to_le_bytes());
    out.extend_from_slice(&lsn.get().to_le_bytes());
    out.extend_from_slice(&durable.get().to_le_bytes());
    out.extend_from_slice(&entry.shard.to_le_bytes());
    out.extend_from_slice(&KIND_BATCH.to_le_bytes());
    out.extend_from_slice(&entry.term.to_le_bytes());
    out.extend_from_slice(&entry.index.to_le_bytes());
    out.extend_from_slice(entry.payload);
    let crc = crc32c::crc32c(&out[start + MARK..]);
    out[start + CRC..start + MARK].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + size_of(entry.payload.len()), 0);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads what the header at the front of `bytes` claims; `None` if there is no room for one.
pub(super) fn claim(bytes: &[u8]) -> Option<Claim> {
    let bytes = bytes.get(..HEADER_BYTES)?;
    Some(Claim {
        size: size_of(u32_at(bytes, 0) as usize),
        mark: u64_at(bytes, MARK),
        lsn: Lsn::new(u64_at(bytes, LSN)),
    })
}

/// Reads the record at the front of `bytes` (the rest of the segment with this mark). `None` if there
/// is none that is whole, unharmed and bears the mark.
pub(super) fn parse(bytes: &[u8], mark: u64) -> Option<Parsed<'_>> {
    let claim = claim(bytes)?;
    let (lsn, durable) = (claim.lsn, Lsn::new(u64_at(bytes, DURABLE)));
    // All that is cheap goes first: the search for vouchers asks at every eighth byte.
    if claim.mark != mark || durable >= lsn || claim.size > bytes.len() {
        return None;
    }
    let end = HEADER_BYTES + u32_at(bytes, 0) as usize;
    if crc32c::crc32c(&bytes[MARK..end]) != u32_at(bytes, CRC) {
        return None;
    }
    let entry = Entry {
        shard: u32_at(bytes, SHARD),
        term: u64_at(bytes, TERM),
        index: u64_at(bytes, INDEX),
        payload: &bytes[HEADER_BYTES..end],
    };
    Some(Parsed { lsn, durable, kind: u32_at(bytes, KIND), entry, size: claim.size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(payload: &[u8]) -> Vec<u8> {
        let entry = Entry { shard: 3, term: 4, index: 5, payload };
        let mut bytes = Vec::new();
        encode(&mut bytes, 7, Lsn::new(9), Lsn::new(8), &entry);
        bytes
    }

    #[test]
    fn the_format_is_what_the_documentation_says() {
        let bytes = encoded(b"hello");
        let mut expected = vec![5, 0, 0, 0];
        expected.extend(crc32c::crc32c(&bytes[8..61]).to_le_bytes());
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"hello\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = encoded(b"hello");
        for bit in 0..(HEADER_BYTES + 5) * 8 {
            let mut harmed = bytes.clone();
            harmed.resize(4096, 0);
            harmed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&harmed, 7), None, "bit {bit}");
        }
        assert_eq!(parse(&bytes, 8), None, "bound to another segment");
        assert_eq!(parse(&bytes[..bytes.len() - 8], 7), None, "cut off");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payload: Vec<u8>, mark: u64, lsn in 1u64.., durable: u64, shard: u32, term: u64,
            index: u64, rest: Vec<u8>,
        ) {
            let entry = Entry { shard, term, index, payload: &payload };
            let (lsn, durable) = (Lsn::new(lsn), Lsn::new(durable % lsn));
            let mut bytes = Vec::new();
            encode(&mut bytes, mark, lsn, durable, &entry);
            let size = bytes.len();
            bytes.extend(rest);
            let expected = Parsed { lsn, durable, kind: KIND_BATCH, entry, size };
            prop_assert_eq!(parse(&bytes, mark), Some(expected));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, mark: u64) {
            prop_assert_eq!(parse(&bytes, mark), None);
        }

        #[test]
        fn bytes_that_claim_anything_never_panic(
            len: u32, lsn: u64, durable: u64, rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = Vec::new();
            bytes.extend(len.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(7u64.to_le_bytes());
            bytes.extend(lsn.to_le_bytes());
            bytes.extend(durable.to_le_bytes());
            bytes.extend(rest);
            prop_assert_eq!(parse(&bytes, 7), None);
        }
    }
}
