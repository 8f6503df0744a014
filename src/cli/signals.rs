//! Ctrl-C and SIGTERM; for who asks for it SIGHUP, and the end of standard input.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::exit::{Exit, Failure};

/// How long a client command gets to take its leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// The signals that ask a process to end.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// If that counts.
    hangup: Option<Signal>,
    /// The end of standard input, if that counts and has not come yet.
    stdin: Option<oneshot::Receiver<()>>,
}

impl Signals {
    /// From here on they no longer end the process by themselves.
    pub(super) fn catch() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: None,
            stdin: None,
        })
    }

    /// From here on the end of the terminal counts as one as well, and does not end the process by
    /// itself.
    pub(super) fn heed_hangup(&mut self) -> Result<(), Failure> {
        self.hangup = Some(catch(SignalKind::hangup())?);
        Ok(())
    }

    /// From here on the end of standard input counts as one as well. What comes before is nothing.
    pub(super) fn heed_stdin(&mut self) -> Result<(), Failure> {
        let (ended, stdin) = oneshot::channel();
        let wait = move || {
            // It can't be read any more: that is an end as well.
            io::copy(&mut io::stdin().lock(), &mut io::sink()).ok();
            ended.send(()).ok();
        };
        let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(wait);
        thread.map_err(|error| {
            Failure::new(Exit::Internal, format!("failed to watch standard input: {error}"))
        })?;
        self.stdin = Some(stdin);
        Ok(())
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = hung_up(&mut self.hangup) => "SIGHUP",
            () = ended(&mut self.stdin) => "end of standard input",
        }
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::new(Exit::Internal, format!("failed to catch signals: {error}")))
}

/// Waits for the terminal to end, if that counts.
async fn hung_up(hangup: &mut Option<Signal>) {
    let Some(hangup) = hangup else { return std::future::pending().await };
    hangup.recv().await;
}

/// Waits for the end of standard input, which comes once.
async fn ended(stdin: &mut Option<oneshot::Receiver<()>>) {
    let Some(waiting) = stdin else { return std::future::pending().await };
    waiting.await.ok();
    *stdin = None;
}

/// Tells a client command that it shall leave. A second signal, or taking too long over it, ends
/// the process where it stands.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    pub(super) fn catch() -> Result<Self, Failure> {
        Ok(Self::by(Signals::catch()?))
    }

    /// By the first of these.
    pub(super) fn by(mut signals: Signals) -> Self {
        let (came, interrupt) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            came.send_replace(true);
            // Also reached by a command that hangs in a write which nobody reads.
            let give_up = tokio::time::timeout(LEAVE_PATIENCE, signals.next());
            drop(give_up.await);
            std::process::exit(Exit::Interrupted.code().into());
        });
        Self(interrupt)
    }

    /// Waits until it is time to leave.
    pub(super) async fn wait(&mut self) {
        if self.0.wait_for(|came| *came).await.is_err() {
            // Who sends it lives as long as the runtime.
            std::future::pending::<()>().await;
        }
    }
}
