//! What bytes are in a text, found eight at a time.
//!
//! Texts are short, and most have nothing of what is looked for: the words of a text are looked at
//! without a branch, and there is one look at the answer at the end. How a byte below a bound is found
//! in a word: <https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>.

/// One in each byte of a word.
const ONES: u64 = u64::MAX / 255;

/// The highest bit of each byte of a word.
const HIGH: u64 = ONES << 7;

/// Not zero if a byte of `word` is below `BOUND`, which is at most 128.
fn below<const BOUND: u8>(word: u64) -> u64 {
    word.wrapping_sub(ONES * BOUND as u64) & !word & HIGH
}

/// Not zero if a byte of `word` is `byte`.
fn equal(word: u64, byte: u8) -> u64 {
    below::<1>(word ^ (ONES * u64::from(byte)))
}

/// Whether any word of `bytes` is such a one, that is, if the question gives something but zero.
/// What is no whole word at the end is filled up with a harmless letter.
#[inline]
fn any_word(bytes: &[u8], is_such: impl Fn(u64) -> u64) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut found = 0;
    for word in words {
        found |= is_such(u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [b'x'; 8];
        last[..rest.len()].copy_from_slice(rest);
        found |= is_such(u64::from_le_bytes(last));
    }
    found != 0
}

/// Whether this is UTF-8.
pub(crate) fn is_utf8(bytes: &[u8]) -> bool {
    !any_word(bytes, |word| word & HIGH) || std::str::from_utf8(bytes).is_ok()
}

/// Whether a line can carry `bytes` as they are: UTF-8 without LF, CR and NUL.
pub(crate) fn is_line(bytes: &[u8]) -> bool {
    // Most text is ASCII without control characters.
    let is_break = |word| equal(word, b'\n') | equal(word, b'\r') | equal(word, 0);
    !any_word(bytes, |word| below::<0x20>(word) | (word & HIGH))
        || (!any_word(bytes, is_break) && is_utf8(bytes))
}

/// Whether there is nothing in it that JSON wants escaped within a string.
pub(crate) fn is_plain_json(bytes: &[u8]) -> bool {
    !any_word(bytes, |word| below::<0x20>(word) | equal(word, b'"') | equal(word, b'\\'))
}

/// How many bytes of a little-endian word, from the first on, are before one that needs an escape
/// within a JSON string; `None` if there is none. Zeros need one.
pub(crate) fn plain_json(word: u64) -> Option<usize> {
    // Only what is above the first such byte may be mistaken for one.
    let odd = below::<0x20>(word) | equal(word, b'"') | equal(word, b'\\');
    (odd != 0).then(|| odd.trailing_zeros() as usize / 8)
}

/// A number as eight lower-case hex digits.
pub(crate) fn hex(number: u32) -> [u8; 8] {
    // Its halves are moved apart until each nibble has a byte of its own.
    let mut nibbles = u64::from(number);
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((nibbles + ONES * 6) >> 4) & ONES;
    (nibbles + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for len in 0..70 {
            let plain = vec![b'x'; len];
            assert!(is_line(&plain) && is_plain_json(&plain) && is_utf8(&plain));
            for at in 0..len {
                let with = |byte| {
                    let mut bytes = plain.clone();
                    bytes[at] = byte;
                    bytes
                };
                assert!(!is_line(&with(b'\n')) && !is_line(&with(0)) && !is_line(&with(b'\r')));
                assert!(is_line(&with(b'\t')) && is_line(&with(b'"')));
                assert!(!is_plain_json(&with(b'\t')) && !is_plain_json(&with(b'"')));
                assert!(!is_plain_json(&with(b'\\')) && !is_utf8(&with(0x80)));
            }
        }
    }

    #[test]
    fn hex_digits_are_those_of_the_standard_library() {
        for number in (0..=u32::MAX).step_by(65_521).chain([u32::MAX, 0x0123_4567, 0x89ab_cdef]) {
            assert_eq!(hex(number), *format!("{number:08x}").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn they_are_what_they_say(bytes in prop_oneof![
            proptest::collection::vec(0u8.., 0..200),
            "[ -~äö]{0,80}".prop_map(String::into_bytes),
        ]) {
            let is_utf8_too = std::str::from_utf8(&bytes).is_ok();
            let has = |such: &dyn Fn(u8) -> bool| bytes.iter().any(|byte| such(*byte));
            prop_assert_eq!(is_utf8(&bytes), is_utf8_too);
            prop_assert_eq!(is_line(&bytes), is_utf8_too && !has(&|b| matches!(b, b'\n' | b'\r' | 0)));
            let is_odd = |b: u8| b < 0x20 || b == b'"' || b == b'\\';
            prop_assert_eq!(is_plain_json(&bytes), !has(&is_odd));
            for word in bytes.as_chunks::<8>().0 {
                let plain = word.iter().position(|byte| is_odd(*byte));
                prop_assert_eq!(plain_json(u64::from_le_bytes(*word)), plain);
            }
        }
    }
}
