//! Checking a directory that nobody has, until a broker wants it: it is let in, and the check goes on
//! beside it.
//!
//! What was read before stands: nothing changed meanwhile. The topic that was being read is read again.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::logs::{self, Look};
use super::{CheckError, Progress, Report, beside, check_beside, state, unusable};
use crate::broker::layout::Layout;
use crate::broker::lock_file::{self, Held, Holder, Refused};
use crate::disk::Disk;

/// Others who may not write to the directory have it for a moment when they look; who has it for longer
/// than this has come to stay.
const MOMENT: Duration = Duration::from_millis(20);

/// A directory that nobody changes, to be read.
#[derive(Debug)]
pub struct Guest {
    disk: Arc<dyn Disk>,
    layout: Layout,
    /// The directory, unless this user may not write to it or another guest has it. Then nothing keeps a
    /// broker out.
    held: Option<Held>,
}

impl Guest {
    /// Enters.
    ///
    /// # Errors
    /// [`CheckError::Locked`] if somebody has the directory who changes it.
    pub fn enter(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Guest, CheckError> {
        let layout = Layout::new(dir);
        let held = match lock_file::take(disk.as_ref(), &layout, Holder::Check) {
            Ok(held) => Some(held),
            Err(Refused::Held(holder @ (Holder::Broker | Holder::Repair))) => {
                return Err(CheckError::Locked { dir: dir.to_owned(), holder });
            }
            Err(Refused::Held(Holder::Check | Holder::History) | Refused::Io(_)) => None,
        };
        Ok(Guest { disk: Arc::clone(disk), layout, held })
    }

    /// Whether a broker has come, or waits to.
    fn is_over(&self) -> bool {
        match &self.held {
            Some(held) => held.is_wanted(),
            None if self.is_changed() => {
                thread::sleep(MOMENT);
                self.is_changed()
            }
            None => false,
        }
    }

    fn is_changed(&self) -> bool {
        let holder = lock_file::look(self.disk.as_ref(), &self.layout);
        matches!(holder, Some(Holder::Broker | Holder::Repair))
    }
}

/// A guest, who leaves when asked to.
struct Stay(RefCell<Option<Guest>>);

impl Stay {
    fn goes_on(&self) -> bool {
        self.0.borrow_mut().take_if(|guest| guest.is_over());
        self.0.borrow().is_some()
    }
}

/// Verifies a directory that nobody has. When a broker comes it goes on beside that one, on the disk that
/// `other` gives. Changes nothing.
///
/// # Errors
/// [`CheckError`] if it can't be read to the end.
pub fn check_as_guest(
    guest: Guest,
    other: &mut dyn FnMut() -> Arc<dyn Disk>,
    progress: Progress<'_>,
) -> Result<Report, CheckError> {
    let Guest { disk, layout, .. } = &guest;
    let (disk, layout) = (Arc::clone(disk), layout.clone());
    disk.list(&layout.data).map_err(unusable(&layout.data))?;
    let stay = Stay(RefCell::new(Some(guest)));
    let mut report = Report::default();
    let state = state::verify(&disk, &layout, false, &mut report);
    if !stay.goes_on() {
        return check_beside(&other(), &layout.data, progress);
    }
    let state = state?;
    let mut beside_disk: Option<Arc<dyn Disk>> = None;
    // A topic is being read as one that nobody changes.
    let is_still = Cell::new(false);
    let each: logs::Each<'_> = &mut |(name, files), meter| {
        let done = meter.done();
        if stay.goes_on() {
            let (disk, layout, state) = (disk.as_ref(), &layout, &state);
            is_still.set(true);
            let found = logs::topic(Look { disk, layout, state, name, files, beside: None }, meter);
            is_still.set(false);
            if stay.goes_on() {
                return found;
            }
        }
        meter.go_back(done);
        let disk = beside_disk.get_or_insert_with(&mut *other);
        beside::topic(disk, &layout, &state, (name, files), meter)
    };
    let tell: logs::Tell<'_> = &mut |done, total| {
        progress(done, total);
        !is_still.get() || stay.goes_on()
    };
    logs::verify(disk.as_ref(), &layout, &state, each, &mut report, tell)?;
    report.is_beside = beside_disk.is_some();
    Ok(report)
}
