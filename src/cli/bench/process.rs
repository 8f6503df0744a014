//! What a process has used, as Linux tells it. Other systems tell nothing here.

use std::path::{Path, PathBuf};

use crate::disk::os::OsDisk;
use crate::disk::{Disk as _, Open};

/// What a process has used since it began.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Usage {
    /// Seconds of processor time, of all its threads.
    pub(super) cpu: f64,
    /// The most memory it had at a time, in bytes.
    pub(super) memory: u64,
}

/// A process that can be asked.
#[derive(Clone, Debug)]
pub(super) struct Process(PathBuf);

impl Process {
    pub(super) fn of(pid: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{pid}")))
    }

    pub(super) fn own() -> Self {
        Self(PathBuf::from("/proc/self"))
    }

    /// Whether it was started so that it outlives its terminal, as `nohup` does.
    pub(super) fn ignores_hangup(&self) -> bool {
        read(&self.0.join("status")).is_some_and(|status| hangup_is_ignored(&status))
    }

    /// What it has used; `None` if the system does not say.
    pub(super) fn usage(&self) -> Option<Usage> {
        let stat = read(&self.0.join("stat"))?;
        let status = read(&self.0.join("status"))?;
        Some(Usage {
            cpu: cpu(&stat, rustix::param::clock_ticks_per_second())?,
            memory: field(&status, "VmHWM:").unwrap_or(0) * 1024,
        })
    }
}

/// Seconds of processor time in a `stat` line. The name before them may hold anything.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    #[expect(clippy::cast_precision_loss, reason = "ticks of 10 ms")]
    Some((user + system) as f64 / ticks_per_second as f64)
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    word(text, name)?.parse().ok()
}

fn word<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()
}

/// Signals that are ignored are bits of a number in hex; SIGHUP is the first.
fn hangup_is_ignored(status: &str) -> bool {
    let mask = word(status, "SigIgn:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// Reads a file that does not know its length, as those of `/proc` and `/sys`.
pub(super) fn read(path: &Path) -> Option<String> {
    let mut bytes = vec![0; 16 << 10];
    let got = OsDisk::default().open(path, Open::Read).ok()?.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(got);
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1";
        assert_eq!(cpu(stat, 100), Some(2.0));
        assert_eq!(cpu("", 100), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tVmHWM: 1\nVmPeak:\t  20 kB\nVmHWM:\t  12 kB\n";
        assert_eq!(field(status, "VmHWM:"), Some(12));
        assert_eq!(field(status, "VmRSS:"), None);
    }

    #[test]
    fn a_hangup_is_ignored_if_the_first_bit_says_so() {
        assert!(hangup_is_ignored("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!hangup_is_ignored("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"));
        assert!(!hangup_is_ignored(""));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_used_memory() {
        assert!(Process::own().usage().unwrap().memory > 0);
        assert!(Process::of(u32::MAX).usage().is_none());
    }
}
