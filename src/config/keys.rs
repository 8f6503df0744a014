//! The one table of settings.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::value::{
    self, Fsync, KeepAwake, LogFormat, MinFree, duration, number, show_duration, show_size, size,
};
use crate::limits::MESSAGE_BYTES_CEILING;

/// The variable that names the settings file.
pub const FILE_VARIABLE: &str = "WIBER_CONFIG";

/// Most entries of `delivery.backoff`.
const BACKOFF_ENTRIES_MAX: usize = 32;

/// A setting. Everything that is said about it anywhere comes from here.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// The flag of `wiber broker` that sets it, if there is one.
    pub flag: Option<&'static str>,
    /// The short variable that the prototype had for it.
    pub short_variable: Option<&'static str>,
    /// The default, as it would stand in a variable.
    pub default: &'static str,
    /// The values it can have.
    pub allowed: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// Several values, divided by commas; in the file an array.
    pub(super) is_list: bool,
    /// Reads and checks a value; `false` if it is not allowed.
    pub(super) set: fn(&mut Config, &str) -> bool,
    /// The value as text that `set` reads back.
    pub(super) show: fn(&Config) -> String,
}

impl Key {
    /// The variable that sets it: `WIBER_<SECTION>__<KEY>`.
    pub fn variable(&self) -> String {
        format!("WIBER_{}", self.name.replace('.', "__").to_ascii_uppercase())
    }
}

/// Puts `value` where it belongs, if there is one.
fn put<T>(place: &mut T, value: Option<T>) -> bool {
    let is_some = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    is_some
}

fn size_in(text: &str, min: u64, max: u64) -> Option<u64> {
    size(text).filter(|bytes| (min..=max).contains(bytes))
}

fn count_in<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Option<T> {
    T::try_from(number(text).filter(|count| (min..=max).contains(count))?).ok()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn duration_from(text: &str, min: Duration) -> Option<Duration> {
    duration(text).filter(|time| (min..=DAY).contains(time))
}

/// As long as anybody will ask for: a hundred years, so that adding it to a time can't overflow.
const AGE_MAX: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

fn age(text: &str) -> Option<Option<Duration>> {
    if text == "forever" {
        return Some(None);
    }
    value::age(text).filter(|age| (Duration::from_secs(1)..=AGE_MAX).contains(age)).map(Some)
}

fn bytes_kept(text: &str) -> Option<Option<u64>> {
    if text == "unlimited" {
        return Some(None);
    }
    size_in(text, 64 * KIB, u64::MAX).map(Some)
}

const MILLISECOND: Duration = Duration::from_millis(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn host(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    let ok = !text.is_empty() && text.len() <= 255 && text.chars().all(plain);
    ok.then(|| text.to_owned())
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

fn backoff(text: &str) -> Option<Vec<Duration>> {
    let times: Option<Vec<_>> =
        text.split(',').map(|time| duration_from(time.trim(), Duration::ZERO)).collect();
    times.filter(|times| times.len() <= BACKOFF_ENTRIES_MAX)
}

/// A level, or directives `target=level` divided by commas. The log's own parser takes any single
/// word for a target, so that `inof` would turn everything off.
fn level(text: &str) -> Option<String> {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_lowercase().as_str())
    };
    let directive = |text: &str| match text.rsplit_once('=') {
        Some((target, level)) => {
            let (target, level) = (target.trim(), level.trim());
            (!target.is_empty() && is_level(level)).then(|| format!("{target}={level}"))
        }
        None => is_level(text.trim()).then(|| text.trim().to_owned()),
    };
    // It would also take a blank for a part of the word.
    let directives: Option<Vec<_>> = text.split(',').map(directive).collect();
    let text = directives?.join(",");
    tracing_subscriber::EnvFilter::try_new(&text).is_ok().then_some(text)
}

const PLAIN: Key = Key {
    name: "",
    flag: None,
    short_variable: None,
    default: "",
    allowed: "",
    doc: "",
    is_list: false,
    set: |_, _| false,
    show: |_| String::new(),
};

/// Every setting, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    Key {
        name: "server.host",
        flag: Some("--host"),
        short_variable: Some("WIBER_HOST"),
        default: "127.0.0.1",
        allowed: "a host name or an address",
        doc: "Where to listen; `0.0.0.0` for all IPv4 addresses, `::` for all.",
        set: |config, text| put(&mut config.server.host, host(text)),
        show: |config| config.server.host.clone(),
        ..PLAIN
    },
    Key {
        name: "server.port",
        flag: Some("--port"),
        short_variable: Some("WIBER_PORT"),
        default: "8888",
        allowed: "a number from 0 to 65535",
        doc: "The port; 0 takes a free one, which the start-up line names.",
        set: |config, text| put(&mut config.server.port, count_in(text, 0, 65535)),
        show: |config| config.server.port.to_string(),
        ..PLAIN
    },
    Key {
        name: "server.keep_awake",
        default: "auto",
        allowed: "never, auto or busy",
        doc: "Keeps the machine's processors from sleeping: never, on a machine with up to 4 of them while \
              the log is synced 2,000 times a second or more, or always while messages are written. \
              Single ones are faster, and it costs power. Needs to write to `/dev/cpu_dma_latency`.",
        set: |config, text| put(&mut config.server.keep_awake, KeepAwake::parse(text)),
        show: |config| config.server.keep_awake.to_string(),
        ..PLAIN
    },
    Key {
        name: "storage.data_dir",
        flag: Some("--data-dir"),
        short_variable: Some("WIBER_DATA_DIR"),
        default: "./data",
        allowed: "a path",
        doc: "The data directory; made if it is not there.",
        set: |config, text| put(&mut config.storage.data_dir, path(text)),
        show: |config| config.storage.data_dir.display().to_string(),
        ..PLAIN
    },
    Key {
        name: "storage.fsync",
        flag: Some("--fsync"),
        default: "always",
        allowed: "always, interval, interval:<1ms to 1m> or never",
        doc: "When a message counts as stored: synced before every OK, at least this often \
              (`interval` is `interval:200ms`), or when the system likes.",
        set: |config, text| put(&mut config.storage.fsync, Fsync::parse(text)),
        show: |config| config.storage.fsync.to_string(),
        ..PLAIN
    },
    Key {
        name: "storage.segment",
        default: "64MiB",
        allowed: "a size from 64KiB to 2GiB",
        doc: "Size at which a topic's log begins a new file.",
        set: |config, text| put(&mut config.storage.segment, size_in(text, 64 * KIB, 2 * GIB)),
        show: |config| show_size(config.storage.segment),
        ..PLAIN
    },
    Key {
        name: "storage.wal_segment",
        default: "32MiB",
        allowed: "a size from 1MiB to 1GiB",
        doc: "Size of one file of the write-ahead log.",
        set: |config, text| put(&mut config.storage.wal_segment, size_in(text, MIB, GIB)),
        show: |config| show_size(config.storage.wal_segment),
        ..PLAIN
    },
    Key {
        name: "storage.checkpoint_bytes",
        default: "64MiB",
        allowed: "a size from 64KiB to 64GiB",
        doc: "A checkpoint is made after so much write-ahead log.",
        set: |config, text| {
            put(&mut config.storage.checkpoint_bytes, size_in(text, 64 * KIB, 64 * GIB))
        },
        show: |config| show_size(config.storage.checkpoint_bytes),
        ..PLAIN
    },
    Key {
        name: "storage.checkpoint_interval",
        default: "30s",
        allowed: "a duration from 10ms to 24h",
        doc: "A checkpoint is made after this time, if anything was written.",
        set: |config, text| {
            put(&mut config.storage.checkpoint_interval, duration_from(text, 10 * MILLISECOND))
        },
        show: |config| show_duration(config.storage.checkpoint_interval),
        ..PLAIN
    },
    Key {
        name: "storage.min_free",
        default: "auto",
        allowed: "auto, a percentage from 0% to 90%, or a size",
        doc: "Room to leave on the disk: below it publishing is refused with `DISK_FULL`. `auto` \
              is the smaller of 5 % and 1 GiB.",
        set: |config, text| put(&mut config.storage.min_free, MinFree::parse(text)),
        show: |config| config.storage.min_free.to_string(),
        ..PLAIN
    },
    Key {
        name: "retention.age",
        default: "forever",
        allowed: "forever, or a time from 1s to 36500d",
        doc: "How long messages are kept at least; those that are older go, a whole file of a topic at a \
              time. Dead letters stay, and so does what a group has not handled.",
        set: |config, text| put(&mut config.retention.age, age(text)),
        show: |config| config.retention.age.map_or_else(|| "forever".to_owned(), value::show_age),
        ..PLAIN
    },
    Key {
        name: "retention.bytes",
        default: "unlimited",
        allowed: "unlimited, or a size of at least 64KiB",
        doc: "How much of a topic is kept: when it has more, its oldest files go. Dead letters stay, and \
              so does what a group has not handled.",
        set: |config, text| put(&mut config.retention.bytes, bytes_kept(text)),
        show: |config| config.retention.bytes.map_or_else(|| "unlimited".to_owned(), show_size),
        ..PLAIN
    },
    Key {
        name: "delivery.ack_timeout",
        default: "30s",
        allowed: "a duration from 1ms to 24h",
        doc: "How long a member of a group has to acknowledge a message.",
        set: |config, text| put(&mut config.delivery.ack_timeout, duration_from(text, MILLISECOND)),
        show: |config| show_duration(config.delivery.ack_timeout),
        ..PLAIN
    },
    Key {
        name: "delivery.dead_after",
        default: "30s",
        allowed: "a duration from 1ms to 24h",
        doc: "A member silent for so long is dead, and its messages go to others. Clients send a \
              heartbeat every 10 s: under two of those, members that are well are taken for dead while \
              they are idle.",
        set: |config, text| put(&mut config.delivery.dead_after, duration_from(text, MILLISECOND)),
        show: |config| show_duration(config.delivery.dead_after),
        ..PLAIN
    },
    Key {
        name: "delivery.max_retries",
        default: "3",
        allowed: "a number from 0 to 100",
        doc: "Deliveries after the first one before a message goes to the dead-letter topic.",
        set: |config, text| put(&mut config.delivery.max_retries, count_in(text, 0, 100)),
        show: |config| config.delivery.max_retries.to_string(),
        ..PLAIN
    },
    Key {
        name: "delivery.backoff",
        default: "1s,2s,4s",
        allowed: "1 to 32 durations from 0s to 24h",
        doc: "Waits before the first, second … retry; the last one stands for all further ones.",
        is_list: true,
        set: |config, text| put(&mut config.delivery.backoff, backoff(text)),
        show: |config| {
            let times = config.delivery.backoff.iter().map(|time| show_duration(*time));
            times.collect::<Vec<_>>().join(",")
        },
        ..PLAIN
    },
    Key {
        name: "delivery.prefetch",
        default: "5",
        allowed: "a number from 1 to 10000",
        doc: "Most messages that a member of a group holds unacknowledged.",
        set: |config, text| put(&mut config.delivery.prefetch, count_in(text, 1, 10_000)),
        show: |config| config.delivery.prefetch.to_string(),
        ..PLAIN
    },
    Key {
        name: "limits.message",
        default: "1MiB",
        allowed: "a size from 1 to 16MiB",
        doc: "Longest message.",
        set: |config, text| {
            let bytes = size_in(text, 1, MESSAGE_BYTES_CEILING as u64);
            put(&mut config.limits.message, bytes.and_then(|bytes| usize::try_from(bytes).ok()))
        },
        show: |config| show_size(config.limits.message as u64),
        ..PLAIN
    },
    Key {
        name: "limits.connections",
        default: "10000",
        allowed: "a number from 1 to 1000000",
        doc: "Most connections at a time; each needs an open file.",
        set: |config, text| put(&mut config.limits.connections, count_in(text, 1, 1_000_000)),
        show: |config| config.limits.connections.to_string(),
        ..PLAIN
    },
    Key {
        name: "log.level",
        flag: Some("--log-level"),
        default: "info",
        allowed: "off, error, warn, info, debug or trace, alone or as module=level, divided by commas",
        doc: "What is logged, such as `info` or `warn,wiber::broker=debug`.",
        set: |config, text| put(&mut config.log.level, level(text)),
        show: |config| config.log.level.clone(),
        ..PLAIN
    },
    Key {
        name: "log.format",
        flag: Some("--log-format"),
        default: "human",
        allowed: "human or json",
        doc: "One line for people, or one JSON object a line for machines.",
        set: |config, text| put(&mut config.log.format, LogFormat::parse(text)),
        show: |config| config.log.format.to_string(),
        ..PLAIN
    },
];

const _: () = assert!(MESSAGE_BYTES_CEILING == 16 << 20, "limits.message says 16MiB");
