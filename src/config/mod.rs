//! Configuration: flags > `WIBER_*` variables > `wiber.toml` > defaults → one immutable [`Config`].
//!
//! ```text
//!   --port 9000 ──────────────┐
//!   WIBER_SERVER__PORT=9000 ──┤  text   keys::KEYS    checked value
//!   [server] port = 9000 ─────┼───────▶ parser, range ───────────▶ Config    what the broker runs by
//!   "8888" (the default) ─────┘         of the key               └▶ Explained what `config show` prints
//! ```
//!
//! * One table, [`KEYS`], has every key with its default, parser, allowed values and text. Whatever
//!   is said about settings anywhere comes from it or is compared with it by a test.
//! * Every source gives text, and a key's one parser reads it: a value that is right in the file is
//!   right in a variable.
//! * What is not understood is an error that names the nearest key: a misspelt setting never means
//!   the default.
//!
//! Pure: the caller reads the file and the environment, so that every rule here is a table test.

mod error;
mod file;
mod keys;
mod load;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use error::ConfigError;
pub use file::{FILE_NAME, SettingsFile};
pub use keys::{FILE_VARIABLE, KEYS, Key};
pub use load::{Explained, Origin, Overrides, Setting};
pub use value::{Fsync, KeepAwake, LogFormat, MinFree};
// The command line reads numbers with units the way the settings do.
pub(crate) use value::{duration, number, show_duration, show_size, size};

/// Everything that can be set, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Where the broker listens.
    pub server: Server,
    /// Where and how data are kept.
    pub storage: Storage,
    /// How much of each topic is kept.
    pub retention: Retention,
    /// How groups get their messages.
    pub delivery: Delivery,
    /// What a client may use.
    pub limits: Limits,
    /// What the log says, and how.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// The address or name to listen on.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// When the machine's processors are kept from sleeping.
    pub keep_awake: KeepAwake,
}

/// `[storage]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storage {
    /// The data directory.
    pub data_dir: PathBuf,
    /// When a message counts as stored.
    pub fsync: Fsync,
    /// Size at which a topic's log begins a new file, in bytes.
    pub segment: u64,
    /// Size of a file of the write-ahead log, in bytes.
    pub wal_segment: u64,
    /// Bytes of write-ahead log after which a checkpoint is made.
    pub checkpoint_bytes: u64,
    /// Time after which a checkpoint is made.
    pub checkpoint_interval: Duration,
    /// Room on the disk that the broker leaves free.
    pub min_free: MinFree,
}

/// `[retention]`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// How long a message is kept at least; `None` for ever.
    pub age: Option<Duration>,
    /// Of how many bytes of a topic the oldest messages go first; `None` for all of them.
    pub bytes: Option<u64>,
}

/// `[delivery]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// How long a member has to acknowledge a message.
    pub ack_timeout: Duration,
    /// How long a member of a group may be silent before it is taken for dead.
    pub dead_after: Duration,
    /// Deliveries after the first before a message becomes a dead letter.
    pub max_retries: u32,
    /// Waits before the retries; the last one stands for all further ones. Never empty.
    pub backoff: Vec<Duration>,
    /// Most messages that a member holds unacknowledged.
    pub prefetch: u32,
}

/// `[limits]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest message, in bytes.
    pub message: usize,
    /// Most connections at a time.
    pub connections: usize,
}

/// `[log]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// What is logged: a level, or directives such as `info,wiber::wal=debug`.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

impl Config {
    /// Brings the sources together: flags win over variables, those over the file, and that over
    /// the defaults. Variables that do not begin with `WIBER_` are passed over.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is unknown or not allowed.
    pub fn load(
        flags: &Overrides,
        variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
        file: Option<&SettingsFile>,
    ) -> Result<(Config, Explained), ConfigError> {
        load::load(flags, variables, file)
    }

    /// All fields empty: every key of the table is set before anyone sees it.
    fn blank() -> Config {
        Config {
            server: Server { host: String::new(), port: 0, keep_awake: KeepAwake::Auto },
            storage: Storage {
                data_dir: PathBuf::new(),
                fsync: Fsync::Always,
                segment: 0,
                wal_segment: 0,
                checkpoint_bytes: 0,
                checkpoint_interval: Duration::ZERO,
                min_free: MinFree::Auto,
            },
            retention: Retention { age: None, bytes: None },
            delivery: Delivery {
                ack_timeout: Duration::ZERO,
                dead_after: Duration::ZERO,
                max_retries: 0,
                backoff: Vec::new(),
                prefetch: 0,
            },
            limits: Limits { message: 0, connections: 0 },
            log: Log { level: String::new(), format: LogFormat::Human },
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let (config, _) = Config::load(&Overrides::default(), [], None)
            .expect("the defaults pass their own checks");
        config
    }
}
