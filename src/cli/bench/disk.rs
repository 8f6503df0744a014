//! `wiber bench disk`: what a durable write costs on this machine, a message there and back, and memory
//! that two processors share, without a broker. What is asked of the broker is relative to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::DiskFlags;
use super::aside::{Stop, aside};
use super::times::{Times, short};
use super::{cores, echo};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Out;
use crate::config::show_duration;
use crate::disk::os::OsDisk;
use crate::disk::{Disk as _, File, Open};
use crate::time::Moment;

/// What is written before each sync: the least that a file system writes.
const BLOCK_BYTES: usize = 4096;

/// Length of the preallocated file, which is begun again at its end.
const PREALLOCATED_BYTES: u64 = 32 << 20;

/// What one block costs.
#[derive(Clone, Debug)]
pub(super) struct DiskTimes {
    /// Appended to a file that grows.
    pub(super) growing: Times,
    /// Written over zeros that are already on disk, as the write-ahead log does.
    pub(super) preallocated: Times,
}

/// What the machine does without a broker.
#[derive(Debug)]
struct Machine {
    disk: DiskTimes,
    directly: Times,
    synced: Times,
    /// On a machine with more than one processor.
    line: Option<Times>,
}

/// `wiber bench disk`
pub(super) async fn run(args: &DiskFlags) -> Result<(), Failure> {
    let (dir, each) = (args.data_dir.clone().unwrap_or(PathBuf::from(".")), args.duration);
    let Machine { disk: times, directly, synced, line } =
        aside(move |stop| machine(&dir, each, stop)).await?;
    let mut out = Out::new();
    if args.json {
        let mut object = times.json();
        object["echo_us"] = directly.json();
        object["synced_echo_us"] = synced.json();
        object["cache_line_us"] = json!(line.map(|times| times.json()));
        out.json(&object);
        return out.flush();
    }
    let took = show_duration(args.duration);
    out.line(format!("disk · 4 KiB append + fdatasync · {took} each").as_bytes());
    out.line(b"");
    let row = |name: &str, per_second: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>8}")).collect();
        format!("{name:<14}{per_second:>10}{cells}")
    };
    out.line(row("file", "per second", &Times::headings()).as_bytes());
    for (name, times) in times.both() {
        let per_second = 1.0 / times.percentile(50.0).as_secs_f64().max(1e-9);
        out.line(row(name, &format!("{per_second:.0}"), &times.cells()).as_bytes());
    }
    out.line(b"");
    let bytes = echo::MESSAGE_BYTES;
    out.line(format!("echo · {bytes} B there and back over loopback · {took} each").as_bytes());
    out.line(b"");
    out.line(row("answered", "per second", &Times::headings()).as_bytes());
    for (name, times) in [("directly", &directly), ("synced", &synced)] {
        out.line(row(name, &echo::RATE.to_string(), &times.cells()).as_bytes());
    }
    if let Some(times) = line {
        out.line(b"");
        out.line(format!("cores · a cache line there and back between two · {took}").as_bytes());
        out.line(b"");
        out.line(row("memory", "per second", &Times::headings()).as_bytes());
        let per_second = 1.0 / times.percentile(50.0).as_secs_f64().max(1e-9);
        out.line(row("shared", &format!("{per_second:.0}"), &times.cells()).as_bytes());
    }
    out.flush()
}

/// Measures everything, each for so long, or until it is asked to stop.
fn machine(dir: &Path, each: Duration, stop: &Stop) -> Result<Machine, Failure> {
    let failed =
        |error| Failure::new(Exit::Internal, format!("failed to send over loopback: {error}"));
    Ok(Machine {
        disk: measure(dir, each, stop)?,
        directly: echo::measure(None, each, stop).map_err(failed)?,
        synced: in_folder(dir, |folder| {
            let file = preallocated(folder, stop)?;
            echo::measure(Some((file.as_ref(), PREALLOCATED_BYTES)), each, stop)
        })?,
        line: cores::measure(each, stop),
    })
}

/// Measures both ways in a temporary directory under `dir`, each for so long, or until it is asked
/// to stop.
pub(super) fn measure(dir: &Path, each: Duration, stop: &Stop) -> Result<DiskTimes, Failure> {
    in_folder(dir, |folder| {
        let growing = OsDisk::default().open(&folder.join("growing"), Open::Create)?;
        let preallocated = preallocated(folder, stop)?;
        Ok(DiskTimes {
            growing: synced_writes(growing.as_ref(), u64::MAX, each, stop)?,
            preallocated: synced_writes(preallocated.as_ref(), PREALLOCATED_BYTES, each, stop)?,
        })
    })
}

/// Does something in a temporary directory under `dir`.
fn in_folder<T>(dir: &Path, inside: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, Failure> {
    let failed = |error: io::Error| {
        let text = format!("failed to measure the disk at {}: {error}", dir.display());
        Failure::new(Exit::DataDirUnusable, text)
            .hint("name a directory that this user can write to by --data-dir")
    };
    let folder = tempfile::Builder::new().prefix("wiber-bench-disk-").tempdir_in(dir);
    folder.and_then(|folder| inside(folder.path())).map_err(failed)
}

/// A file whose blocks are all on disk, unless it is asked to stop.
fn preallocated(folder: &Path, stop: &Stop) -> io::Result<Arc<dyn File>> {
    let file = OsDisk::default().open(&folder.join("preallocated"), Open::Create)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..PREALLOCATED_BYTES).step_by(zeros.len()) {
        if stop.is_asked() {
            break;
        }
        file.write_at(&zeros, at)?;
    }
    file.sync()?;
    Ok(file)
}

fn synced_writes(file: &dyn File, len: u64, for_long: Duration, stop: &Stop) -> io::Result<Times> {
    let mut times = Times::new();
    let block = [0x2e; BLOCK_BYTES];
    let start = Moment::read();
    let mut before = start;
    let mut at = 0;
    while before.since(start) < for_long || times.is_empty() {
        file.write_at(&block, at)?;
        file.sync()?;
        let now = Moment::read();
        times.add(now.since(before), 1);
        before = now;
        at = (at + BLOCK_BYTES as u64) % len;
        if stop.is_asked() {
            break;
        }
    }
    Ok(times)
}

impl DiskTimes {
    fn both(&self) -> [(&'static str, &Times); 2] {
        [("growing", &self.growing), ("preallocated", &self.preallocated)]
    }

    /// In half a line.
    pub(super) fn describe(&self) -> String {
        let median = |times: &Times| short(times.percentile(50.0));
        format!(
            "4 KiB append + fdatasync: {} growing, {} preallocated (p50)",
            median(&self.growing),
            median(&self.preallocated)
        )
    }

    /// As an object, in microseconds.
    pub(super) fn json(&self) -> Value {
        let both = self.both().map(|(name, times)| (format!("{name}_us"), times.json()));
        json!({ "block_bytes": BLOCK_BYTES })
            .as_object()
            .map(|object| object.clone().into_iter().chain(both).collect())
            .unwrap_or_default()
    }
}
