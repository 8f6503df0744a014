//! Prepares segments of the write-ahead log beside its thread, which would have to wait for it.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::time::Moment;
use crate::wal::{SpareJob, WalError};

use super::commit::Log;
use super::fatal::{Fatal, spawn};
use super::gate::{Full, PublishGate};
use super::message::WalMessage;

/// How long to wait when no segment could be prepared.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest rest after a piece of a segment.
const REST_MAX: Duration = Duration::from_millis(20);

/// Does one job. A disk that has no room for the next segment closes the gate: what is left of the
/// log is for acknowledgements. Says whether to try again in a while.
pub(super) fn prepare(job: SpareJob, gate: &PublishGate) -> bool {
    match job.run_pausing(&mut rest()) {
        Ok(()) => {
            gate.set(Full::Wal, false);
            false
        }
        Err(error) => {
            if error.is_no_space() {
                gate.set(Full::Wal, true);
            }
            warn(&error);
            true
        }
    }
}

/// Rests for as long as the last piece took: half of the time the disk is there for others.
fn rest() -> impl FnMut() {
    let mut begin = Moment::read();
    move || {
        std::thread::sleep(Moment::read().since(begin).min(REST_MAX));
        begin = Moment::read();
    }
}

fn warn(error: &WalError) {
    tracing::warn!(event = "spare_failed", "{error}");
}

/// Starts the thread.
pub(super) fn start(
    jobs: Receiver<SpareJob>,
    gate: Arc<PublishGate>,
    log: Arc<Log>,
    fatal: &UnboundedSender<Fatal>,
) {
    let serve = move || {
        for job in jobs {
            if prepare(job, &gate) {
                std::thread::sleep(PAUSE);
                // It offers the job again.
                log.mailbox.post(WalMessage::OfferSpare);
            }
        }
        Ok(())
    };
    drop(spawn("spares".to_owned(), fatal.clone(), serve));
}
