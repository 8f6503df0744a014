//! Keeps the machine's processors from sleeping while messages are written.
//!
//! A processor that has nothing to do sleeps, and to wake it takes longer than most of what a single
//! message needs: several times for each, since the disk, the broker and the client wait for each other
//! in turn. Linux lets no processor sleep while somebody holds `/dev/cpu_dma_latency` open with a zero
//! in it (<https://docs.kernel.org/power/pm_qos_interface.html>), and forgets it when that is closed, by
//! whatever end of the process. That costs power, so it is held only until a second after the last
//! message, and unless asked for only where it is little beside what it brings: see
//! `docs/decisions/0016-keeps-awake.md`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::broker::registry::Broker;
use crate::config;
use crate::disk::os::{self, HeldDevice};

/// Where Linux takes the longest time that a processor may need to wake up, in microseconds.
const DEVICE: &str = "/dev/cpu_dma_latency";

/// Where Linux says which processors the machine has in use, as in `0-3,6`.
const PROCESSORS: &str = "/sys/devices/system/cpu/online";

/// How often it is looked whether something was written.
const PAUSE: Duration = Duration::from_millis(100);

/// After so many looks at which nothing had been, the processors may sleep.
const QUIET_MAX: u32 = 10;

/// So many syncs from one look to the next are many: 2,000 a second. Where one takes longer than half a
/// millisecond, waking a processor is less than a tenth of it.
const SYNCS_MIN: u64 = 200;

/// With more processors than these, all of them are too high a price for what nobody has asked for.
const PROCESSORS_MAX: u32 = 4;

/// While it is there, processors are kept awake.
#[derive(Debug)]
pub(super) struct KeepAwake {
    /// The thread ends when this is gone.
    _stop: Sender<()>,
}

impl KeepAwake {
    /// Begins to look at what this broker writes. If the system does not allow it, that is said to who
    /// has asked for it, and nothing is done: messages are as safe as ever.
    pub(super) fn start(when: config::KeepAwake, broker: &Arc<Broker>) -> Option<KeepAwake> {
        let broker = Arc::clone(broker);
        let (result, is_asked_for) = match when {
            config::KeepAwake::Never => return None,
            config::KeepAwake::Auto => {
                let online = os::system_text(Path::new(PROCESSORS)).ok();
                let count = online.as_deref().and_then(processors);
                if count.is_none_or(|count| count > PROCESSORS_MAX) {
                    return None;
                }
                (watch(move || broker.syncs(), SYNCS_MIN), false)
            }
            config::KeepAwake::Busy => (watch(move || broker.written(), 1), true),
        };
        match result {
            Ok(stop) => Some(KeepAwake { _stop: stop }),
            Err(error) if is_asked_for => {
                tracing::warn!(
                    event = "keep_awake_failed",
                    "the processors are not kept awake: {DEVICE} can't be written: {error}; that \
                     takes root, or a rule of udev that lets this user, and in a container --device"
                );
                None
            }
            Err(_) => None,
        }
    }
}

/// Starts the thread that keeps the processors awake while this number grows by so much from one look
/// to the next. It ends when what is given is gone.
fn watch(number: impl Fn() -> u64 + Send + 'static, least: u64) -> io::Result<Sender<()>> {
    let (stop, stopped) = mpsc::channel();
    let serve = move || {
        let mut watch = Watch::new(number(), least);
        let mut held: Option<HeldDevice> = None;
        while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            if !watch.is_busy(number()) {
                held = None;
            } else if held.is_none() {
                // Whoever could once can again.
                held = hold(Path::new(DEVICE)).ok();
                if held.is_some() {
                    tracing::debug!(event = "kept_awake", "the processors are kept awake");
                }
            }
        }
    };
    hold(Path::new(DEVICE))?;
    thread::Builder::new().name("keep-awake".to_owned()).spawn(serve)?;
    Ok(stop)
}

/// How many processors a list like `0-3,6` has.
fn processors(list: &str) -> Option<u32> {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let [first, last] = [first, last].map(|number| number.parse::<u32>().ok());
        last?.checked_sub(first?)?.checked_add(1)
    };
    list.trim().split(',').map(count).try_fold(0, |sum: u32, count| sum.checked_add(count?))
}

/// No processor sleeps until this is dropped.
fn hold(device: &Path) -> io::Result<HeldDevice> {
    os::hold_device(device, &0_i32.to_ne_bytes())
}

/// Whether something was written lately.
#[derive(Debug)]
struct Watch {
    seen: u64,
    /// Less than this since the last look is nothing.
    least: u64,
    /// So many looks ago, if not more.
    quiet: u32,
}

impl Watch {
    fn new(seen: u64, least: u64) -> Self {
        Self { seen, least, quiet: QUIET_MAX }
    }

    fn is_busy(&mut self, written: u64) -> bool {
        let is_less = written - self.seen < self.least;
        self.quiet = if is_less { self.quiet.saturating_add(1) } else { 0 };
        self.seen = written;
        self.quiet < QUIET_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_busy_from_a_message_until_ten_looks_after_the_last() {
        let mut watch = Watch::new(5, 1);
        assert!(!watch.is_busy(5), "nothing since it began");
        let mut looks = |written, count: u32| (0..count).filter(|_| watch.is_busy(written)).count();
        assert_eq!(looks(6, 5), 5);
        assert_eq!(looks(7, 30), 10);
        assert_eq!(looks(7, 30), 0);
        assert_eq!(looks(8, 1), 1);
    }

    #[test]
    fn few_syncs_are_not_worth_it() {
        let mut watch = Watch::new(0, SYNCS_MIN);
        let mut looks = |each: u64| {
            let seen = watch.seen;
            (1..=30).filter(|look| watch.is_busy(seen + look * each)).count()
        };
        assert_eq!(looks(SYNCS_MIN - 1), 0);
        assert_eq!(looks(SYNCS_MIN), 30);
        assert_eq!(looks(SYNCS_MIN - 1), 9, "until ten looks after the last that had so many");
    }

    #[test]
    fn the_systems_list_of_processors_is_counted() {
        let cases = [("0\n", 1), ("0-1\n", 2), ("0-3,6", 5), ("0,2,4-7\n", 6)];
        for (list, count) in cases {
            assert_eq!(processors(list), Some(count), "{list:?}");
        }
        for list in ["", "\n", "x", "3-1", "0-", "0-4294967295"] {
            assert_eq!(processors(list), None, "{list:?}");
        }
    }

    #[test]
    fn what_is_written_is_a_zero_of_four_bytes() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        drop(hold(temp.path()).unwrap());
        assert_eq!(std::fs::read(temp.path()).unwrap(), [0; 4]);
        assert!(hold(Path::new("/no/such/device")).is_err());
    }
}
