//! The daemon: starting and stopping in order.
//!
//! ```text
//!   start:  port ─▶ lock, recovery ─▶ threads ─▶ "listening" ─▶ accept
//!   stop:   no more accept ─▶ sessions finish what they took ─▶ shards ─▶ clean checkpoint ─▶ log
//! ```

mod enter;
mod keep_awake;
mod listener;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::fatal::Fatal;
use crate::broker::gate::PublishGate;
use crate::broker::layout::Layout;
use crate::broker::lock_file::{self, Holder};
use crate::broker::open::{Found, OpenError};
use crate::broker::registry::Broker;
use crate::broker::settings::Settings;
use crate::config::{Config, Fsync};
use crate::delivery::Policy;
use crate::disk::Disk;
use crate::disk::os::OsDisk;
use crate::limits::{
    GROUP_UNSETTLED_MAX, OPEN_LOGS_MAX, SESSION_OUT_BYTES_MAX, TAIL_BYTES_MAX, TOPICS_WRITTEN_MAX,
};
use crate::log::{LogSettings, Retention, TailBudget};
use crate::session::core;
use crate::session::seats::Seats;
use crate::session::shares::Shares;
use crate::session::task::Context;
use crate::wal;

use keep_awake::KeepAwake;
use workers::Workers;

/// Shards of one process. More than one pays only with more cores than the log's thread, the
/// sessions and one shard keep busy.
const SHARDS: u32 = 1;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be listened on.
    #[error("failed to listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: String,
        /// What the system says.
        source: io::Error,
    },
    /// The data directory can't be served.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system denies something every process has.
    #[error("failed to start: {0}")]
    System(io::Error),
}

/// What the start-up line says.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where it listens; with the port that was found for port 0.
    pub addr: SocketAddr,
    /// Where the data are.
    pub data_dir: PathBuf,
    /// When OK is said.
    pub fsync: Fsync,
    /// What was found in the data directory.
    pub found: Found,
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        write!(f, "wiber {version} listening on {}", self.addr)?;
        write!(f, " · data {} · fsync {} · ", self.data_dir.display(), self.fsync)?;
        match &self.found {
            Found::New => write!(f, "new directory"),
            Found::Adopted { topics, messages, torn: 0 } => {
                write!(f, "adopted {messages} messages in {topics} topics")
            }
            Found::Adopted { topics, messages, torn } => {
                write!(f, "adopted {messages} messages in {topics} topics, ")?;
                write!(f, "{torn} torn last lines put into .wiber/quarantine")
            }
            Found::Clean => write!(f, "clean start"),
            Found::Recovered { records, torn_bytes: 0 } => {
                write!(f, "recovered: {records} log records applied again")
            }
            Found::Recovered { records, torn_bytes } => {
                write!(f, "recovered: {records} log records applied again, ")?;
                write!(f, "{torn_bytes} torn bytes cut that were never acknowledged")
            }
        }
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Server {
    started: Started,
    broker: Arc<Broker>,
    failures: UnboundedReceiver<Fatal>,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
    _keep_awake: Option<KeepAwake>,
}

impl Server {
    /// Starts the daemon. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is running then.
    pub async fn start(config: &Config) -> Result<Server, StartError> {
        Self::start_with(config, Arc::default(), Arc::new(Seats::new(config.limits.message))).await
    }

    /// The same with this memory for its sessions.
    async fn start_with(
        config: &Config,
        shares: Arc<Shares>,
        seats: Arc<Seats>,
    ) -> Result<Server, StartError> {
        let wanted = format!("{}:{}", config.server.host, config.server.port);
        let listen = |source| StartError::Listen { addr: wanted.clone(), source };
        let host = (config.server.host.as_str(), config.server.port);
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
        let bound = TcpListener::bind(host).await;
        let socket = bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => why_taken(disk.as_ref(), config, listen(source)),
            _ => listen(source),
        })?;
        let addr = socket.local_addr().map_err(listen)?;
        let connections = connections_max(config.limits.connections);
        let settings = settings(config);
        let opening = (Arc::clone(&disk), settings.clone());
        let opened = tokio::task::spawn_blocking(move || enter::enter(&opening.0, &opening.1))
            .await
            .map_err(|panicked| StartError::System(io::Error::other(panicked)))??;
        let workers = Workers::start().map_err(StartError::System)?;
        let found = opened.found.clone();
        let (broker, failures) = Broker::start(opened, &disk, &settings);
        let broker = Arc::new(broker);
        let (stop, draining) = watch::channel(false);
        let context = Context {
            broker: Arc::clone(&broker),
            settings: Arc::new(core::Settings {
                message_bytes_max: config.limits.message,
                dead_after: config.delivery.dead_after,
                shards: broker.shards(),
                disk,
                shares,
                unsent_max: SESSION_OUT_BYTES_MAX,
            }),
            seats,
            draining,
            waits_awake: workers.count() > 1,
        };
        let keep_awake = KeepAwake::start(config.server.keep_awake, &broker);
        let listener = tokio::spawn(listener::serve(socket, connections, context, workers));
        let data_dir = config.storage.data_dir.clone();
        let started = Started { addr, data_dir, fsync: config.storage.fsync, found };
        Ok(Server { started, broker, failures, stop, listener, _keep_awake: keep_awake })
    }

    /// What the start-up line says.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Waits for a part to fail that the daemon can't go on without.
    pub async fn failed(&mut self) -> Fatal {
        self.failures.recv().await.unwrap_or(Fatal::Gone)
    }

    /// Stops in order: nothing that was accepted is lost.
    ///
    /// # Errors
    /// [`Fatal`]: a part failed meanwhile, and others may wait for it in vain. The next start will recover.
    pub async fn stop(self) -> Result<(), Fatal> {
        let Server { broker, mut failures, stop, listener, .. } = self;
        // The listener and the sessions are gone already if nobody hears this.
        stop.send(true).ok();
        let in_order = async move {
            drop(listener.await);
            let stopped = tokio::task::spawn_blocking(move || broker.stop()).await;
            stopped.map_err(|_panicked| Fatal::Gone)?
        };
        tokio::select! {
            biased;
            Some(fatal) = failures.recv() => Err(fatal),
            stopped = in_order => stopped,
        }
    }
}

/// Why it does not start if its address is taken: a broker that has the directory, which mostly has the
/// address as well, is the better reason, since another port would not help.
fn why_taken(disk: &dyn Disk, config: &Config, taken: StartError) -> StartError {
    let layout = Layout::new(&config.storage.data_dir);
    match lock_file::look(disk, &layout) {
        Some(holder @ Holder::Broker) => OpenError::Locked { path: layout.lock(), holder }.into(),
        _ => taken,
    }
}

/// Topics' files that may be open: a quarter of what the system allows in all.
fn open_logs_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let quarter = usize::try_from(limit.unwrap_or(u64::MAX) / 4).unwrap_or(usize::MAX);
    quarter.clamp(1, OPEN_LOGS_MAX)
}

fn settings(config: &Config) -> Settings {
    let delivery = &config.delivery;
    Settings {
        data_dir: config.storage.data_dir.clone(),
        shards: SHARDS,
        node_seed: rand::random(),
        wal_secret: rand::random(),
        fsync: config.storage.fsync,
        wal: wal::Settings { segment_bytes: config.storage.wal_segment },
        log: LogSettings { segment_bytes: config.storage.segment },
        checkpoint_bytes: config.storage.checkpoint_bytes,
        checkpoint_interval: config.storage.checkpoint_interval,
        retention: Retention { age: config.retention.age, bytes: config.retention.bytes },
        min_free: config.storage.min_free,
        policy: Policy {
            ack_timeout: delivery.ack_timeout,
            max_retries: delivery.max_retries,
            backoff: delivery.backoff.clone(),
            dead_letters: true,
            unsettled_max: GROUP_UNSETTLED_MAX,
        },
        prefetch: delivery.prefetch,
        open_logs_max: open_logs_max(),
        topics_written_max: TOPICS_WRITTEN_MAX,
        tail: Arc::new(TailBudget::new(TAIL_BYTES_MAX)),
        gate: Arc::new(PublishGate::default()),
        ahead: Arc::default(),
    }
}

/// Descriptors kept for files: the log, topics, checkpoints.
const FILES_RESERVED: u64 = 256 + OPEN_LOGS_MAX as u64;

/// Takes as many descriptors as the system lets this process have; `None` if they have no bound.
pub(crate) fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(event = "open_files", "failed to raise the limit of open files: {error}");
    }
    getrlimit(Resource::Nofile).current
}

/// Each connection needs a descriptor: bounds the connections by what the system allows.
fn connections_max(wanted: usize) -> usize {
    let Some(files) = raise_open_files() else { return wanted };
    let room = files.saturating_sub(FILES_RESERVED).max(files / 2);
    let possible = usize::try_from(room).unwrap_or(usize::MAX);
    if possible < wanted {
        tracing::warn!(
            event = "connections_bounded",
            wanted,
            possible,
            "the system allows {files} open files: at most {possible} connections are taken; \
             raise it with ulimit -n or LimitNOFILE"
        );
    }
    wanted.min(possible)
}
