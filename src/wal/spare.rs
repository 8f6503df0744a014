//! The next segment, prepared by another thread while the active one fills.
//!
//! ```text
//!   Wal::spare_job ──▶ SpareJob ── write zeros, or a header over a freed segment; sync ──┐
//!        ▲                                                                               ▼
//!        │                        slot: Working ── rename, sync the folder ──▶ Ready ──▶ taken
//!        │                          │   └── failed, or dropped ──▶ Failed ──▶ the next job
//!        └── a roll could not wait: Cancelled; the job removes what it has, the roll makes its own
//! ```
//!
//! The slot's mutex is held while the name is made durable: a roll that comes at that moment waits
//! for what it would have to do itself. It is the one thing in `wal` that two threads share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::segment::{Place, Segment};
use super::{WalError, failed};

/// Work that prepares the next segment: some 100 ms for a new one of 32 MiB, one sync for a
/// recycled one. To be run in any thread; the [`super::Wal`] finds the outcome by itself.
#[derive(Debug)]
pub struct SpareJob {
    pub(super) place: Place,
    /// The segment to make; `None` if there is only something to remove.
    pub(super) make: Option<Make>,
    /// Freed segments that nobody will need.
    pub(super) remove: Vec<PathBuf>,
}

/// A segment to prepare, and where to say what became of it.
#[derive(Debug)]
pub(super) struct Make {
    pub(super) plan: Plan,
    pub(super) ticket: Ticket,
}

/// One segment to prepare.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seq: u64,
    pub(super) size: u64,
    /// A freed segment to take for it.
    pub(super) recycle: Option<PathBuf>,
    /// Where a new one is written.
    pub(super) preparation: PathBuf,
}

/// Where a job stands.
#[derive(Debug)]
pub(super) enum State {
    Working,
    Cancelled,
    Ready(Segment),
    Failed,
    /// Nothing is known about the folder: the log is poisoned.
    Broken(WalError),
}

/// What a job and its log share.
#[derive(Debug)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// The log will need the segment before long.
    is_urgent: AtomicBool,
}

impl Slot {
    pub(super) fn new() -> Arc<Slot> {
        Arc::new(Slot { state: Mutex::new(State::Working), is_urgent: AtomicBool::new(false) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the job makes no pauses.
    pub(super) fn hurry(&self) {
        self.is_urgent.store(true, Ordering::Relaxed);
    }
}

/// The job's end of the slot: a job that ends without an outcome has failed.
#[derive(Debug)]
pub(super) struct Ticket(pub(super) Arc<Slot>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(*state, State::Working) {
            *state = State::Failed;
        }
    }
}

impl SpareJob {
    /// Does the work.
    ///
    /// # Errors
    /// [`WalError::Shortage`] or what the disk said. Worth a line in the log; unless the folder could
    /// not be synced, the log goes on and offers the job again (wait a little before taking it).
    pub fn run(self) -> Result<(), WalError> {
        self.run_pausing(&mut || ())
    }

    /// The same, and `pause` is called after each piece, for the disk to serve others, until the log
    /// is so full that the segment will be needed before long.
    ///
    /// # Errors
    /// As for [`SpareJob::run`].
    pub fn run_pausing(self, pause: &mut dyn FnMut()) -> Result<(), WalError> {
        let made = match self.make {
            Some(make) => make.run(&self.place, pause),
            None => Ok(()),
        };
        for path in &self.remove {
            self.place.disk.remove(path).map_err(failed("remove", path))?;
        }
        made
    }
}

impl Make {
    fn run(self, place: &Place, pause: &mut dyn FnMut()) -> Result<(), WalError> {
        let slot = &self.ticket.0;
        let mut pause = || {
            if !slot.is_urgent.load(Ordering::Relaxed) {
                pause();
            }
        };
        let (prepared, segment) = self.plan.prepare(place, &mut pause)?;
        let mut state = self.ticket.0.state();
        if matches!(*state, State::Cancelled) {
            drop(state);
            return place.disk.remove(prepared).map_err(failed("remove", prepared));
        }
        if let Err(error) = place.rename_in(prepared, &segment) {
            *state = State::Failed;
            return Err(error);
        }
        if let Err(error) = place.sync_names() {
            *state = State::Broken(error.clone());
            return Err(error);
        }
        *state = State::Ready(segment);
        Ok(())
    }
}

impl Plan {
    /// Here and now: what a roll does for which no spare is ready.
    pub(super) fn run_now(&self, place: &Place) -> Result<Segment, WalError> {
        let (prepared, segment) = self.prepare(place, &mut || ())?;
        place.rename_in(prepared, &segment)?;
        place.sync_names()?;
        Ok(segment)
    }

    fn prepare(
        &self,
        place: &Place,
        pause: &mut dyn FnMut(),
    ) -> Result<(&Path, Segment), WalError> {
        let path = self.recycle.as_ref().unwrap_or(&self.preparation);
        let segment = match self.recycle {
            Some(_) => place.rewrite(path, self.seq, self.size)?,
            None => place.write_new(path, self.seq, self.size, pause)?,
        };
        Ok((path, segment))
    }
}
