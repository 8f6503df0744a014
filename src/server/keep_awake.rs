//! Keeps the machine's processors from sleeping while messages are written.
//!
//! A processor that has nothing to do sleeps, and to wake it takes longer than most of what a single
//! message needs: several times for each, since the disk, the broker and the client wait for each other
//! in turn. Linux lets no processor sleep while somebody holds `/dev/cpu_dma_latency` open with a zero
//! in it (<https://docs.kernel.org/power/pm_qos_interface.html>), and forgets it when that is closed, by
//! whatever end of the process. That costs power, so it is held only until a second after the last
//! message. See `docs/decisions/0016-keeps-awake.md`.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::disk::os::{self, HeldDevice};

/// Where Linux takes the longest time that a processor may need to wake up, in microseconds.
const DEVICE: &str = "/dev/cpu_dma_latency";

/// How often it is looked whether something was written.
const PAUSE: Duration = Duration::from_millis(100);

/// After so many looks at which nothing had been, the processors may sleep.
const QUIET_MAX: u32 = 10;

/// While it is there, processors are kept awake.
#[derive(Debug)]
pub(super) struct KeepAwake {
    /// The thread ends when this is gone.
    _stop: Sender<()>,
}

impl KeepAwake {
    /// Begins to look at `written`, which is another number whenever something was written. If the
    /// system does not allow it, that is said and nothing is done: messages are as safe as ever.
    pub(super) fn start(written: impl Fn() -> u64 + Send + 'static) -> Option<KeepAwake> {
        let (stop, stopped) = mpsc::channel();
        let serve = move || {
            let mut watch = Watch::new(written());
            let mut held: Option<HeldDevice> = None;
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                if !watch.is_busy(written()) {
                    held = None;
                } else if held.is_none() {
                    // Whoever could once can again.
                    held = hold(Path::new(DEVICE)).ok();
                }
            }
        };
        let begin = || {
            hold(Path::new(DEVICE))?;
            thread::Builder::new().name("keep-awake".to_owned()).spawn(serve)
        };
        match begin() {
            Ok(_thread) => Some(KeepAwake { _stop: stop }),
            Err(error) => {
                tracing::warn!(
                    event = "keep_awake_failed",
                    "the processors are not kept awake: {DEVICE} can't be written: {error}; that \
                     takes root, or a rule of udev that lets this user, and in a container --device"
                );
                None
            }
        }
    }
}

/// No processor sleeps until this is dropped.
fn hold(device: &Path) -> io::Result<HeldDevice> {
    os::hold_device(device, &0_i32.to_ne_bytes())
}

/// Whether something was written lately.
#[derive(Debug)]
struct Watch {
    seen: u64,
    /// So many looks ago, if not more.
    quiet: u32,
}

impl Watch {
    fn new(seen: u64) -> Self {
        Self { seen, quiet: QUIET_MAX }
    }

    fn is_busy(&mut self, written: u64) -> bool {
        let is_same = self.seen == written;
        self.quiet = if is_same { self.quiet.saturating_add(1) } else { 0 };
        self.seen = written;
        self.quiet < QUIET_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_busy_from_a_message_until_ten_looks_after_the_last() {
        let mut watch = Watch::new(5);
        assert!(!watch.is_busy(5), "nothing since it began");
        let mut looks = |written, count: u32| (0..count).filter(|_| watch.is_busy(written)).count();
        assert_eq!(looks(6, 5), 5);
        assert_eq!(looks(7, 30), 10);
        assert_eq!(looks(7, 30), 0);
        assert_eq!(looks(8, 1), 1);
    }

    #[test]
    fn what_is_written_is_a_zero_of_four_bytes() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        drop(hold(temp.path()).unwrap());
        assert_eq!(std::fs::read(temp.path()).unwrap(), [0; 4]);
        assert!(hold(Path::new("/no/such/device")).is_err());
    }
}
