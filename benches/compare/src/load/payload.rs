//! What messages are made of: their number in 16 digits, then letters that do not compress.

use anyhow::{Context as _, Result};

/// Digits at the start of a message.
pub(super) const DIGITS: usize = 16;

/// The payloads of a run, one after the other.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// Payloads of this size in bytes, from number 0 on.
    pub(super) fn new(size: usize) -> Self {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut letter = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            LETTERS[usize::try_from(state >> 58).expect("six bits")]
        };
        let mut bytes: Vec<u8> = (0..size.max(DIGITS)).map(|_| letter()).collect();
        bytes[..DIGITS].fill(b'0');
        Self { bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Goes on to the next number.
    pub(super) fn advance(&mut self) {
        for digit in self.bytes[..DIGITS].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

/// The number of a message.
pub(super) fn number_of(payload: &[u8]) -> Result<u64> {
    let digits = payload.get(..DIGITS).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let digits = digits.context("a message came that was never published")?;
    Ok(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_by_one_and_the_rest_stays() {
        let mut payload = Payload::new(100);
        let rest = payload.bytes()[DIGITS..].to_vec();
        for number in 0..1005 {
            assert_eq!(number_of(payload.bytes()).unwrap(), number);
            payload.advance();
        }
        assert_eq!((payload.bytes().len(), &payload.bytes()[DIGITS..]), (100, &rest[..]));
        assert!(number_of(b"short").is_err());
        assert!(number_of(b"no digits are in here").is_err());
    }
}
