//! The machine: what it is, what it does without a broker, and what others took of it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::figures::{median, percentile};

/// What a machine is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) kernel: String,
    /// The file system of the scratch folder.
    pub(crate) file_system: String,
}

impl Machine {
    /// This one.
    pub(crate) fn read(scratch: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = text("/proc/cpuinfo");
        let processor = info.lines().find_map(|line| line.strip_prefix("model name"));
        let kind = Command::new("df").arg("--output=fstype").arg(scratch).output();
        let kind = kind.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        // Below a heading.
        let kind = kind.unwrap_or_default().lines().last().unwrap_or_default().trim().to_owned();
        Self {
            processor: processor
                .map_or("unknown", |p| p.trim_start_matches([':', '\t', ' ']))
                .to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory: field(&text("/proc/meminfo"), "MemTotal:").unwrap_or(0) << 10,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: kind,
        }
    }
}

/// How fast it is by itself: microseconds, half and 99 of 100 are not slower.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// 4 KiB and an fdatasync at the end of a file that grows.
    pub(crate) growing: (f64, f64),
    /// The same in a file that was written before.
    pub(crate) written: (f64, f64),
    /// 100 bytes there and back between two threads over loopback.
    pub(crate) ping_pong: (f64, f64),
}

impl Limits {
    /// Measures each for about this time.
    pub(crate) fn measure(scratch: &Path, time: Duration) -> Result<Self> {
        Ok(Self {
            growing: syncs(scratch, false, time)?,
            written: syncs(scratch, true, time)?,
            ping_pong: ping_pong(time)?,
        })
    }
}

fn both(mut times: Vec<u64>) -> Result<(f64, f64)> {
    times.sort_unstable();
    let both = percentile(&times, 0.5).zip(percentile(&times, 0.99));
    both.context("nothing was measured")
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn syncs(scratch: &Path, was_written: bool, time: Duration) -> Result<(f64, f64)> {
    const WRITTEN: usize = 32 << 20;
    let path = scratch.join("syncs");
    let mut file = File::create(&path).context("failed to make a file")?;
    if was_written {
        file.write_all(&vec![b'x'; WRITTEN])?;
        file.sync_all()?;
        file.rewind()?;
    }
    let block = [b'y'; 4096];
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        if was_written && times.len() % (WRITTEN / block.len()) == 0 {
            file.rewind()?;
        }
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(nanos(start));
    }
    fs::remove_file(&path)?;
    both(times)
}

fn ping_pong(time: Duration) -> Result<(f64, f64)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut here = TcpStream::connect(listener.local_addr()?)?;
    let (mut there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    let echo = thread::spawn(move || {
        let mut bytes = [0; 100];
        while there.read_exact(&mut bytes).is_ok() && there.write_all(&bytes).is_ok() {}
    });
    let (begin, mut times, mut bytes) = (Instant::now(), Vec::new(), [b'x'; 100]);
    while begin.elapsed() < time {
        let start = Instant::now();
        here.write_all(&bytes)?;
        here.read_exact(&mut bytes)?;
        times.push(nanos(start));
    }
    drop(here);
    drop(echo.join());
    both(times)
}

/// How long a cache line takes from one processor to another and back: nanoseconds. A virtual machine's
/// host may give two processors one cache, or two that are far apart, for seconds or minutes at a time, and
/// whoever passes memory between threads is then up to twice as slow. Zero with one processor.
pub(crate) fn cache_line(time: Duration) -> f64 {
    const TRIPS: u32 = 10_000;
    if thread::available_parallelism().map_or(1, usize::from) == 1 {
        return 0.0;
    }
    let turn = AtomicU32::new(0);
    let next = |before: u32| {
        let mut looks = 0u32;
        loop {
            let now = turn.load(Ordering::Acquire);
            if now != before {
                return now;
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(100_000) {
                // The other side may have no processor.
                thread::yield_now();
            }
        }
    };
    let (begin, mut times) = (Instant::now(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut answer = 0;
            loop {
                let asked = next(answer);
                if asked == u32::MAX {
                    return;
                }
                answer = asked + 1;
                turn.store(answer, Ordering::Release);
            }
        });
        let mut asked = 1;
        while begin.elapsed() < time || times.is_empty() {
            let start = Instant::now();
            for _ in 0..TRIPS {
                turn.store(asked, Ordering::Release);
                next(asked);
                asked += 2;
            }
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(TRIPS));
        }
        turn.store(u32::MAX, Ordering::Release);
    });
    median(times).unwrap_or_default()
}

/// Ticks of all processors: all of them, and those that the hypervisor gave to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
        // Guests, behind the eighth, are in user already.
        Self { all: ticks.iter().take(8).sum(), stolen: ticks.get(7).copied().unwrap_or(0) }
    }

    /// The share (0 to 1) that was stolen since then.
    pub(crate) fn stolen_since(self, before: Self) -> f64 {
        let all = u32::try_from(self.all.saturating_sub(before.all)).unwrap_or(u32::MAX);
        let stolen = u32::try_from(self.stolen.saturating_sub(before.stolen)).unwrap_or(u32::MAX);
        f64::from(stolen) / f64::from(all.max(1))
    }
}

/// Most memory that the machine is asked for before a run, in bytes: more than one makes files of.
const ASKED_FOR_MAX: u64 = 1 << 30;

/// Asks the machine for memory, and gives it back. A page that a virtual machine has never touched, or has
/// given back to its host a while ago, takes 7 to 9 µs when it is wanted: as long as ten messages. Else that
/// was paid by whoever came after a server that had less of it.
pub(crate) fn ask_for_memory() {
    let free = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = field(&free, "MemAvailable:").unwrap_or(0) << 10;
    let bytes = usize::try_from(ASKED_FOR_MAX.min(free / 4)).unwrap_or(0);
    std::hint::black_box(vec![1_u8; bytes]);
}

/// Bytes of memory that the processes of a group have in use.
pub(crate) fn memory_of_group(group: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc").context("failed to read /proc")?.flatten() {
        let path = entry.path();
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        if group_of(&stat) == Some(group) {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            sum += field(&status, "VmRSS:").unwrap_or(0) << 10;
        }
    }
    if sum == 0 {
        bail!("the server has gone");
    }
    Ok(sum)
}

/// The process group in `/proc/<pid>/stat`. The name before it may have blanks and brackets.
fn group_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let before = Ticks::parse("cpu  10 0 10 70 0 0 0 10 5 5\ncpu0 1");
        let after = Ticks::parse("cpu  20 0 20 140 0 0 0 20 9 9\ncpu0 1");
        assert!((after.stolen_since(before) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_cache_line_comes_back() {
        let nanos = cache_line(Duration::ZERO);
        let is_there = thread::available_parallelism().unwrap().get() > 1;
        assert!(nanos.is_finite() && (nanos > 1.0) == is_there, "{nanos}");
    }

    #[test]
    fn a_process_knows_its_group() {
        assert_eq!(group_of("7 (a) b (c) S 1 42 7 0 -1"), Some(42));
        assert_eq!(group_of(""), None);
    }

    #[test]
    fn memory_is_that_of_the_whole_group() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(memory_of_group(u32::try_from(own).unwrap()).unwrap() > 1 << 20);
        assert!(memory_of_group(u32::MAX).is_err());
    }
}
