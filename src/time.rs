//! The only calls of the operating system's clocks.
//!
//! Everything that decides takes time as an argument, so that it can be tested and simulated:
//! [`Moment`] for how long things take, [`Timestamp`] for what stands in records. The two are
//! different types, since a moment is of no use in a file and a timestamp of none in a timeout.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on the monotonic clock, in nanoseconds since the first reading in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the origin: for tests and simulations.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the origin: for tests and simulations.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long it is from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;
    fn sub(self, earlier: Moment) -> Duration {
        self.since(earlier)
    }
}

/// A point on the wall clock, in microseconds since the Unix epoch.
///
/// Displayed as Unix seconds with six decimals: `1758865780.036983`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The timestamp `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// `self` and then `by`.
    pub fn plus(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Appends the displayed form to `out`, without allocation.
    pub fn write_to(self, out: &mut Vec<u8>) {
        write_decimal(out, self.0 / 1_000_000);
        let fraction = self.0 % 1_000_000;
        let [a, b] = two_digits(fraction / 10_000);
        let [c, d] = two_digits(fraction / 100 % 100);
        let [e, f] = two_digits(fraction % 100);
        out.extend_from_slice(&[b'.', a, b, c, d, e, f]);
    }

    /// Reads Unix seconds with an optional fraction (digits past the sixth are dropped), or `None`.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let (seconds, digits) = read_decimal(text.as_bytes())?;
        let mut micros = seconds.checked_mul(1_000_000)?;
        let fraction = match text.as_bytes()[digits..].split_first() {
            None => return Some(Timestamp(micros)),
            Some((b'.', fraction)) => fraction,
            Some(_) => return None,
        };
        let mut unit = 100_000;
        for digit in fraction {
            if !digit.is_ascii_digit() {
                return None;
            }
            micros = micros.checked_add(u64::from(digit - b'0') * unit)?;
            unit /= 10;
        }
        Some(Timestamp(micros))
    }
}

/// A JSON number of Unix seconds. Microseconds of this century are exact in it.
impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 microseconds, in 2255")]
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..1e13).contains(&seconds) {
            return Err(serde::de::Error::custom("a timestamp is Unix seconds"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        Ok(Timestamp((seconds * 1e6).round() as u64))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Appends `number` in decimal to `out`, without allocation.
pub fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    while number >= 100 {
        let pair = number % 100;
        number /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&two_digits(pair));
    }
    let [tens, ones] = two_digits(number);
    at -= 1;
    digits[at] = ones;
    if number >= 10 {
        at -= 1;
        digits[at] = tens;
    }
    out.extend_from_slice(&digits[at..]);
}

/// A number below 100 as its two digits.
fn two_digits(number: u64) -> [u8; 2] {
    const PAIRS: [[u8; 2]; 100] = {
        let mut pairs = [[b'0'; 2]; 100];
        let mut at = 0u8;
        while at < 100 {
            pairs[at as usize] = [b'0' + at / 10, b'0' + at % 10];
            at += 1;
        }
        pairs
    };
    PAIRS[usize::try_from(number).expect("below 100")]
}

/// Reads the decimal digits at the front: the number, and how many there are; `None` if there is
/// none, or the number is too large.
pub fn read_decimal(text: &[u8]) -> Option<(u64, usize)> {
    // Nineteen digits always fit.
    const SAFE: usize = 19;
    let mut number = 0u64;
    let mut count = 0;
    for byte in text.iter().take(SAFE) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10 + u64::from(digit);
        count += 1;
    }
    if count == SAFE {
        for byte in text[SAFE..].iter().take_while(|byte| byte.is_ascii_digit()) {
            number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            count += 1;
        }
    }
    (count > 0).then_some((number, count))
}

/// One reading of both clocks, taken together and passed to everything that decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For deadlines.
    pub moment: Moment,
    /// For what is written down.
    pub wall: Timestamp,
}

impl Now {
    /// Reads the operating system's clocks.
    #[expect(
        clippy::disallowed_methods,
        reason = "this and the next read the clocks, nothing else"
    )]
    pub fn read() -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX));
        Now { moment: Moment::read(), wall }
    }
}

impl Moment {
    /// Reads the clock that deadlines are kept by, and not the other: half the time of [`Now::read`].
    #[expect(
        clippy::disallowed_methods,
        reason = "this and the other read the clocks, nothing else"
    )]
    pub fn read() -> Moment {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(Instant::now);
        Moment::default() + Instant::now().saturating_duration_since(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_back_what_it_writes() {
        for micros in [0, 1, 999_999, 1_758_865_780_036_983] {
            let ts = Timestamp::from_micros(micros);
            let mut text = Vec::new();
            ts.write_to(&mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text, ts.to_string());
            assert_eq!(Timestamp::parse(&text), Some(ts));
        }
    }

    #[test]
    fn a_timestamp_survives_json() {
        for micros in [0, 1, 1_758_865_780_036_983, 4_000_000_000_000_001] {
            let ts = Timestamp::from_micros(micros);
            let json = serde_json::to_string(&ts).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), ts, "{json}");
        }
        assert!(serde_json::from_str::<Timestamp>("-1").is_err());
    }

    #[test]
    fn a_timestamp_of_the_prototype_is_read_to_the_microsecond() {
        assert_eq!(
            Timestamp::parse("1758865780.0369835"),
            Some(Timestamp::from_micros(1_758_865_780_036_983))
        );
        for bad in ["", ".5", "-1", "1e9", "x", "1.2.3", "1. "] {
            assert_eq!(Timestamp::parse(bad), None, "{bad:?}");
        }
    }
}
