//! Ctrl-C and SIGTERM.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::exit::{Exit, Failure};

/// How long a client command gets to take its leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// The signals that ask a process to end.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on they no longer end the process by themselves.
    pub(super) fn catch() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Internal, format!("failed to catch signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Tells a client command that it shall leave. A second signal, or taking too long over it, ends
/// the process where it stands.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    pub(super) fn catch() -> Result<Self, Failure> {
        let mut signals = Signals::catch()?;
        let (came, interrupt) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            came.send_replace(true);
            // Also reached by a command that hangs in a write which nobody reads.
            let give_up = tokio::time::timeout(LEAVE_PATIENCE, signals.next());
            drop(give_up.await);
            std::process::exit(Exit::Interrupted.code().into());
        });
        Ok(Self(interrupt))
    }

    /// Waits until it is time to leave.
    pub(super) async fn wait(&mut self) {
        if self.0.wait_for(|came| *came).await.is_err() {
            // Who sends it lives as long as the runtime.
            std::future::pending::<()>().await;
        }
    }
}
