//! The values that settings have, as text and as meaning.

use std::fmt;
use std::time::Duration;

/// When a message counts as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fsync {
    /// Before `OK published`: what was acknowledged survives a power cut.
    Always,
    /// At least this often: a power cut may cost what was acknowledged since.
    Interval(Duration),
    /// When the operating system likes: a crash of the process costs nothing, one of the machine
    /// may.
    Never,
}

/// The interval when the setting gives none.
const FSYNC_INTERVAL: Duration = Duration::from_millis(200);

impl Fsync {
    /// Reads `always`, `interval`, `interval:<duration>` or `never`.
    pub(super) fn parse(text: &str) -> Option<Fsync> {
        match text {
            "always" => Some(Fsync::Always),
            "never" => Some(Fsync::Never),
            "interval" => Some(Fsync::Interval(FSYNC_INTERVAL)),
            _ => {
                let interval = duration(text.strip_prefix("interval:")?)?;
                let range = Duration::from_millis(1)..=Duration::from_secs(60);
                range.contains(&interval).then_some(Fsync::Interval(interval))
            }
        }
    }
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fsync::Always => f.write_str("always"),
            Fsync::Interval(interval) => write!(f, "interval:{}", show_duration(*interval)),
            Fsync::Never => f.write_str("never"),
        }
    }
}

/// Room on the disk that the broker leaves free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MinFree {
    /// The smaller of 5 % and 1 GiB.
    Auto,
    /// A part of the disk, in percent.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl MinFree {
    /// The bytes to leave free on a disk of `total` bytes.
    pub fn bytes_of(self, total: u64) -> u64 {
        let percent = |percent: u8| {
            u64::try_from(u128::from(total) * u128::from(percent) / 100)
                .expect("at most 100 percent of a u64")
        };
        match self {
            MinFree::Auto => percent(5).min(1 << 30),
            MinFree::Percent(of) => percent(of),
            MinFree::Bytes(bytes) => bytes,
        }
    }

    /// Reads `auto`, a percentage from 0 to 90, or a size.
    pub(super) fn parse(text: &str) -> Option<MinFree> {
        if text == "auto" {
            return Some(MinFree::Auto);
        }
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent = u8::try_from(number(percent.trim_end())?).ok()?;
                (percent <= 90).then_some(MinFree::Percent(percent))
            }
            None => size(text).map(MinFree::Bytes),
        }
    }
}

impl fmt::Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinFree::Auto => f.write_str("auto"),
            MinFree::Percent(percent) => write!(f, "{percent}%"),
            MinFree::Bytes(bytes) => f.write_str(&show_size(*bytes)),
        }
    }
}

/// When the machine's processors are kept from sleeping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepAwake {
    /// Not at all.
    Never,
    /// While the log is synced so often that it counts, on a machine with few processors.
    Auto,
    /// While messages are written or acknowledged.
    Busy,
}

impl KeepAwake {
    /// Reads `never`, `auto` or `busy`.
    pub(super) fn parse(text: &str) -> Option<KeepAwake> {
        match text {
            "never" => Some(KeepAwake::Never),
            "auto" => Some(KeepAwake::Auto),
            "busy" => Some(KeepAwake::Busy),
            _ => None,
        }
    }
}

impl fmt::Display for KeepAwake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeepAwake::Never => "never",
            KeepAwake::Auto => "auto",
            KeepAwake::Busy => "busy",
        })
    }
}

/// For whom the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One line for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Reads `human` or `json`.
    pub(super) fn parse(text: &str) -> Option<LogFormat> {
        match text {
            "human" => Some(LogFormat::Human),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        })
    }
}

/// Decimal digits; underscores may divide them as in TOML.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits_only = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if !digits_only(text) || text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// A number and what stands behind it, blanks between them left out.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let cut = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(cut);
    Some((number(digits)?, unit.trim_start()))
}

/// A duration with its unit: `500ms`, `30s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = with_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(count.checked_mul(millis)?))
}

/// The shortest text that [`duration`] reads back.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// How old something may become: a duration, or days, as in `7d`.
pub(super) fn age(text: &str) -> Option<Duration> {
    match with_unit(text)? {
        (days, "d") => days.checked_mul(DAY_SECONDS).map(Duration::from_secs),
        _ => duration(text),
    }
}

/// The shortest text that [`age`] reads back.
pub(super) fn show_age(age: Duration) -> String {
    let (seconds, is_whole) = (age.as_secs(), age.subsec_nanos() == 0);
    if is_whole && seconds > 0 && seconds.is_multiple_of(DAY_SECONDS) {
        return format!("{}d", seconds / DAY_SECONDS);
    }
    show_duration(age)
}

/// Bytes, plain or with a unit: `1000`, `64KiB`, `1MiB`, `1GiB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (count, unit) = with_unit(text)?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    count.checked_mul(bytes)
}

/// The shortest text that [`size`] reads back.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}
