//! Opening the data directory, which a check or a history may be reading.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::broker::layout::Layout;
use crate::broker::lock_file::{self, Holder};
use crate::broker::open::{self, OpenError, Opened};
use crate::broker::settings::Settings;
use crate::disk::Disk;
use crate::time::{Moment, Now};

/// How long those may take to let the broker in. A history looks all the time once it prints. A check
/// looks after each mebibyte that it has read, but first it reads the write-ahead log, of which there
/// are some 64 MiB.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Opens the directory of these settings, once nobody has it who would let a broker in.
///
/// # Errors
/// As for [`open::open`].
pub(super) fn enter(disk: &Arc<dyn Disk>, settings: &Settings) -> Result<Opened, OpenError> {
    let layout = Layout::new(&settings.data_dir);
    let begin = Moment::read();
    let (mut is_told, mut brokers) = (false, 0);
    loop {
        let opened = open::open(disk, settings, Now::read());
        let holder = match &opened {
            Err(OpenError::Locked { holder, .. }) => *holder,
            _ => return opened,
        };
        match holder {
            Holder::Check | Holder::History if Moment::read().since(begin) < PATIENCE => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::info!(
                        event = "waits_for_reader",
                        "{holder}; it will go on beside this broker"
                    );
                }
                brokers = 0;
                // Each time: it may be another one.
                if let Err(error) = lock_file::ask(disk.as_ref(), &layout) {
                    tracing::debug!(
                        event = "ask_failed",
                        "failed to ask for the directory: {error}"
                    );
                }
            }
            // One that may not write to the directory has it for a moment, to look.
            Holder::Broker if brokers == 0 => brokers += 1,
            _ => return opened,
        }
        thread::sleep(PAUSE);
    }
}
