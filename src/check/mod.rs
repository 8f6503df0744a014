//! Verification of a whole data directory, and repair of what can be repaired.
//!
//! ```text
//!   node.json ─▶ checkpoints ─▶ write-ahead log ─▶ every line of every topic ─▶ Report
//!                                                                               │ findings, each
//!                quarantine ◀── every byte that is replaced ◀── repair ◀────────┘ with its Mend
//! ```
//!
//! * Checking changes nothing. It streams: memory does not depend on the size of the directory.
//! * Damage is what something vouches for and is not there; a torn tail is what a crash left behind
//!   the last checkpoint, and is cut or made again by the next start without anybody's help.
//! * A repair invents nothing. In the place of a message that is lost goes a line that says so, as
//!   long as what was there: offsets stay dense, and no later message, index or checkpoint moves. Where
//!   lines are gone or have moved, the file is written again.
//! * A check without a repair keeps no broker out: it lets one in, and goes on beside it (`guest`).
//! * Beside a broker that serves the directory what looks wrong may only be new: it is looked at again
//!   (`beside`), and told if it is still so. A repair needs the directory for itself.
//! * Whatever a repair replaces is first copied to `.wiber/quarantine/` and synced. Cut short, it
//!   can be run again.
//!
//! Not here: the lock's owner, talking to people (`cli`), and what a broker mends itself.

mod beside;
mod guest;
mod lines;
mod logs;
mod place;
mod rebuild;
mod repair;
mod rewrite;
mod seen;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::broker::checkpoint::CheckpointError;
use crate::broker::layout::Layout;
use crate::broker::lock_file::{self, Held, Holder, Refused};
use crate::broker::open::OpenError;
use crate::disk::Disk;
use crate::ids::{Offset, TopicName};
use crate::log::{LogError, LogMark};
use crate::wal::WalError;

pub use guest::{Guest, check_as_guest};
pub use place::ensure_data_dir;
pub use repair::{Done, Seeds, repair};
pub use rewrite::Rewrite;

/// More findings than these of a class are only counted: none takes the place of another, so that neither
/// what an earlier repair left nor anything else that is no damage hides damage.
const FINDINGS_MAX: usize = if cfg!(test) { 100 } else { 10_000 };

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something that was stored is not there any more.
    Damage,
    /// A crash left it, nothing vouches for it, and the next start sees to it.
    Torn,
    /// Worth knowing.
    Note,
}

/// What it is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `node.json`
    Identity,
    /// A checkpoint.
    Checkpoint,
    /// The write-ahead log.
    Wal,
    /// A topic's messages.
    Log,
    /// An index, which is derived from them.
    Index,
    /// A message that an earlier repair found lost.
    Lost,
    /// A file that is not wiber's.
    Foreign,
}

/// What a repair does about a finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mend {
    /// Nothing has to be done.
    Nothing,
    /// Nothing can be done without inventing data; the broker starts nevertheless and passes it by.
    Cannot,
    /// Something else has the name of the file. Whoever put it there has to move it away before anything is
    /// done.
    Blocked,
    /// Messages are lost: lines that say so take their place, from `at` up to `until`, which may
    /// lie farther back if `may_grow`.
    Lines {
        /// From where on.
        at: u64,
        /// Up to where.
        until: u64,
        /// Whether the file may become longer.
        may_grow: bool,
        /// The first that is lost.
        first: Offset,
        /// The last.
        last: Offset,
    },
    /// Lines are not where they were: the file is written again.
    Rewrite(Rewrite),
    /// The line end that belongs at this byte is put back.
    LineEnd(u64),
    /// The file is moved to the quarantine.
    SetAside,
    /// The identity is written again, with the node that the write-ahead log names.
    Identity(u64),
    /// A new checkpoint is made from the topics' files and what can be read of the state.
    Rebuild,
}

impl Mend {
    /// What `--repair` would do, and what is lost then; empty if there is nothing to do.
    pub fn describe(&self) -> String {
        match self {
            Mend::Nothing => String::new(),
            Mend::Cannot => "cannot be repaired; readers pass it by".to_owned(),
            Mend::Blocked => "move it to another place, and check again".to_owned(),
            Mend::Lines { first, last, .. } if first == last => {
                format!("marks message {first} as lost; the bytes go to the quarantine")
            }
            Mend::Lines { first, last, .. } => {
                format!("marks messages {first} to {last} as lost; the bytes go to the quarantine")
            }
            Mend::Rewrite(_) => {
                "writes the file again, with what is missing marked as lost; the file as \
                                 it was goes to the quarantine"
                    .to_owned()
            }
            Mend::LineEnd(_) => "puts the line end back; nothing is lost".to_owned(),
            Mend::SetAside => "moves the file to the quarantine; nothing is lost".to_owned(),
            Mend::Identity(_) => {
                "writes it again from the write-ahead log; only the time of creation is lost"
                    .to_owned()
            }
            Mend::Rebuild => {
                "makes a new checkpoint from the topics' files and the readable state; \
                              the log goes to the quarantine; what is only there is lost"
                    .to_owned()
            }
        }
    }
}

/// Something that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub kind: Kind,
    /// The file.
    pub file: PathBuf,
    /// Where in it, if there is a place.
    pub byte: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What a repair does about it.
    pub mend: Mend,
}

impl Finding {
    /// Of each of these so many are told.
    fn class(&self) -> usize {
        match (self.level, self.kind) {
            (Level::Damage, _) => 0,
            (Level::Torn, _) => 1,
            (Level::Note, Kind::Lost) => 2,
            (Level::Note, _) => 3,
        }
    }
}

/// What a check found.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// The findings: at most 10,000 that are damage, and as many torn ones, lost messages, and other notes.
    pub findings: Vec<Finding>,
    /// How many more damages there were.
    pub left_out: u64,
    /// Messages that an earlier repair found lost.
    pub lost: u64,
    /// Topics.
    pub topics: u64,
    /// Messages in their files that are whole.
    pub messages: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Whether a broker served the directory, at least in the end.
    pub is_beside: bool,
    /// Where the whole lines of each topic end.
    ends: BTreeMap<TopicName, LogMark>,
    /// How many findings there are of each class; see [`Finding::class`].
    told: [usize; 4],
}

impl Report {
    /// How many findings are damage.
    pub fn damages(&self) -> u64 {
        let found = self.findings.iter().filter(|f| f.level == Level::Damage).count();
        found as u64 + self.left_out
    }

    /// Whether a repair of this, which came of one of `before`, may mend what was left out there. It has to
    /// have become less, or there would be no end.
    pub fn wants_another_repair(&self, before: &Report) -> bool {
        before.left_out > 0 && (1..before.damages()).contains(&self.damages())
    }

    /// What another look found, too.
    fn merge(&mut self, other: Report) {
        let lost = self.lost + other.lost;
        other.findings.into_iter().for_each(|finding| self.add(finding));
        self.left_out += other.left_out;
        self.lost = lost;
        self.topics += other.topics;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.ends.extend(other.ends);
    }

    fn add(&mut self, finding: Finding) {
        self.lost += u64::from(finding.kind == Kind::Lost);
        let told = &mut self.told[finding.class()];
        if *told < FINDINGS_MAX {
            *told += 1;
            self.findings.push(finding);
        } else if finding.level == Level::Damage {
            self.left_out += 1;
        }
    }
}

/// Why a directory could not be checked or repaired.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It can't be read, or written.
    #[error("failed to use {}: {source}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is none.
    #[error(
        "failed to use {}: it is no data directory: no .wiber and no topic's file is in it",
        dir.display()
    )]
    Elsewhere {
        /// The directory.
        dir: PathBuf,
        /// One that may be meant.
        below: Option<PathBuf>,
    },
    /// Somebody else has it.
    #[error("failed to lock {}: {holder}", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// Its identity, such as one of a later version.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The write-ahead log can't be read, or is of a later version.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A topic's file can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A checkpoint can't be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl CheckError {
    /// Whether a file was not there that had just been listed.
    fn is_gone(&self) -> bool {
        let kind = match self {
            CheckError::Unusable { source, .. }
            | CheckError::Open(OpenError::Unusable { source, .. })
            | CheckError::Log(LogError::Io { source, .. })
            | CheckError::Checkpoint(CheckpointError::Io { source, .. }) => source.kind(),
            CheckError::Wal(WalError::Io { source, .. })
            | CheckError::Open(OpenError::Wal(WalError::Io { source, .. })) => source.kind(),
            _ => return false,
        };
        kind == io::ErrorKind::NotFound
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> CheckError {
    move |source| CheckError::Unusable { path: path.to_owned(), source }
}

/// Takes the directory for a repair. `None` if it was never served.
///
/// # Errors
/// [`CheckError::Locked`] if somebody has it, [`CheckError::Unusable`] if it may not be written to.
pub fn take(disk: &dyn Disk, dir: &Path) -> Result<Option<Held>, CheckError> {
    let layout = Layout::new(dir);
    match lock_file::take(disk, &layout, Holder::Repair) {
        Ok(held) => Ok(Some(held)),
        Err(Refused::Held(holder)) => Err(CheckError::Locked { dir: dir.to_owned(), holder }),
        Err(Refused::Io(absent)) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(Refused::Io(source)) => Err(unusable(&layout.lock())(source)),
    }
}

/// Tells how many bytes of how many were read.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Verifies a directory that nobody changes meanwhile. Changes nothing.
///
/// # Errors
/// [`CheckError`] if it can't be read to the end.
pub fn check(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    progress: Progress<'_>,
) -> Result<Report, CheckError> {
    let mut report = Report::default();
    let layout = Layout::new(dir);
    disk.list(dir).map_err(unusable(dir))?;
    let state = state::verify(disk, &layout, false, &mut report)?;
    let disk = disk.as_ref();
    let each: logs::Each<'_> = &mut |(name, files), meter| {
        let (layout, state) = (&layout, &state);
        logs::topic(logs::Look { disk, layout, state, name, files, beside: None }, meter)
    };
    logs::verify(disk, &layout, &state, each, &mut report, &mut all(progress))?;
    Ok(report)
}

/// Nothing keeps it from reading all.
fn all(progress: Progress<'_>) -> impl FnMut(u64, u64) -> bool {
    |done, total| {
        progress(done, total);
        true
    }
}

/// Verifies the directory while a broker serves it: all that was there when it began. Changes nothing.
/// A repair can't be made of it.
///
/// # Errors
/// [`CheckError`] if it can't be read to the end.
pub fn check_beside(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    progress: Progress<'_>,
) -> Result<Report, CheckError> {
    let layout = Layout::new(dir);
    disk.list(dir).map_err(unusable(dir))?;
    let (state, mut report) = beside::state(disk, &layout)?;
    let each: logs::Each<'_> =
        &mut |topic, meter| beside::topic(disk, &layout, &state, topic, meter);
    logs::verify(disk.as_ref(), &layout, &state, each, &mut report, &mut all(progress))?;
    report.is_beside = true;
    Ok(report)
}
