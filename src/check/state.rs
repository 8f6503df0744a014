//! The identity, the checkpoints and the write-ahead log.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{CheckError, Finding, Kind, Level, Mend, Report, unusable};
use crate::broker::checkpoint::{self, Checkpoint, CheckpointError};
use crate::broker::layout::Layout;
use crate::broker::open::{self, OpenError};
use crate::disk::Disk;
use crate::ids::TopicName;
use crate::log::LogMark;
use crate::wal::{self, Covered, Examined, Lsn, WalError};

/// What the directory says about itself.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The newest checkpoint that can be read.
    pub(super) base: Option<Checkpoint>,
    /// The highest number of any, readable or not.
    pub(super) last_number: u64,
    /// Whether a broker ever served it; a prototype's directory is taken over by the first start.
    pub(super) is_served: bool,
    /// Whether the log could be read, so that `coming` says all.
    pub(super) is_log_read: bool,
    /// Topics that the log is about to make.
    pub(super) coming: BTreeSet<TopicName>,
    /// Where each topic ended when the checkpoint was made.
    pub(super) marks: BTreeMap<TopicName, LogMark>,
}

/// The state. With `is_beside` a broker writes meanwhile.
pub(super) fn verify(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    is_beside: bool,
    report: &mut Report,
) -> Result<State, CheckError> {
    let mut verify = Verify { disk, layout, is_beside, report, state: State::default() };
    verify.run()?;
    Ok(verify.state)
}

/// Reads the checkpoints there are, newest first, each good or with what is wrong.
type Checkpoints = Vec<(u64, Result<Checkpoint, (u64, String)>)>;

struct Verify<'a> {
    disk: &'a Arc<dyn Disk>,
    layout: &'a Layout,
    is_beside: bool,
    report: &'a mut Report,
    state: State,
}

impl Verify<'_> {
    fn run(&mut self) -> Result<(), CheckError> {
        let checkpoints = self.checkpoints()?;
        let identity = open::read_node(self.disk.as_ref(), self.layout);
        let number = checkpoints.first().map_or(0, |(number, _)| *number);
        self.state.last_number = number;
        let wal = self.examine(Lsn::ZERO);
        // An unfinished first start is none: no identity, nothing in the log.
        let is_used =
            !matches!(&wal, Ok(Some(all)) if all.last() == Lsn::ZERO) && !matches!(wal, Ok(None));
        self.state.is_served = !matches!(identity, Ok(None)) || number > 1 || is_used;
        if !self.state.is_served {
            return Ok(());
        }
        self.judge_checkpoints(&checkpoints);
        let good: Vec<_> =
            checkpoints.into_iter().filter_map(|(_, checkpoint)| checkpoint.ok()).collect();
        let mut good = good.into_iter();
        let base = good.next();
        let node = match &base {
            Some(base) => self.wal(base, good.as_slice())?,
            None => None,
        };
        for (_, known) in base.iter().flat_map(|base| &base.topics) {
            if let Ok(name) = TopicName::parse(known.topic.as_bytes()) {
                self.state.marks.insert(name, known.mark);
            }
        }
        self.state.base = base;
        self.identity(identity, node)
    }

    fn checkpoints(&self) -> Result<Checkpoints, CheckError> {
        let (disk, dir) = (self.disk.as_ref(), self.layout.checkpoints());
        let mut all = Vec::new();
        let numbers = match checkpoint::numbers(disk, &dir) {
            Ok(numbers) => numbers,
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        for number in numbers.into_iter().rev() {
            match Checkpoint::read(disk, &dir, number) {
                Ok(checkpoint) => all.push((number, Ok(checkpoint))),
                Err(CheckpointError::Damaged { at, why, .. }) => {
                    all.push((number, Err((at as u64, why))));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    fn judge_checkpoints(&mut self, all: &Checkpoints) {
        let folder = self.layout.checkpoints();
        let any_is_good = all.iter().any(|(_, checkpoint)| checkpoint.is_ok());
        if all.is_empty() {
            self.damage(Kind::Checkpoint, folder, None, "there is no checkpoint", Mend::Rebuild);
            return;
        }
        for (number, checkpoint) in all {
            let Err((at, why)) = checkpoint else { continue };
            let file = checkpoint::path(&folder, *number);
            let (rest, mend) = if any_is_good {
                ("another one is whole", Mend::SetAside)
            } else {
                ("no other one is whole", Mend::Rebuild)
            };
            self.damage(Kind::Checkpoint, file, Some(*at), &format!("{why}; {rest}"), mend);
        }
    }

    /// The whole log from where `covered` says on; `None` if there is none.
    fn examine(&self, covered: impl Into<Covered>) -> Result<Option<Examined>, WalError> {
        let (disk, dir) = (Arc::clone(self.disk), self.layout.wal());
        match wal::examine(disk, &dir, wal::Settings::default(), covered) {
            Ok(examined) => Ok(Some(examined)),
            Err(WalError::Missing { .. }) => Ok(None),
            Err(WalError::Io { file, source, .. })
                if source.kind() == io::ErrorKind::NotFound && file == dir =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Examines the log as the next start does, and what the older checkpoints would need of it.
    /// Gives the node that stands in it.
    fn wal(&mut self, base: &Checkpoint, older: &[Checkpoint]) -> Result<Option<u64>, CheckError> {
        let examined = match self.examine(base.covered()) {
            Ok(Some(examined)) => examined,
            Ok(None) => {
                let why = "the write-ahead log is missing";
                self.damage(Kind::Wal, self.layout.wal(), None, why, Mend::Rebuild);
                return Ok(None);
            }
            Err(WalError::Damaged { file, at, reason }) => {
                self.damage(Kind::Wal, file, Some(at), &reason, Mend::Rebuild);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.report.bytes += examined.bytes();
        // Beside a broker that is what it writes now.
        if let Some(torn) = examined.torn().filter(|_| !self.is_beside) {
            let what = format!(
                "{} bytes that were never acknowledged; the next start cuts them",
                torn.bytes
            );
            let (file, byte) = (torn.file.clone(), Some(torn.at));
            let (level, mend) = (Level::Torn, Mend::Nothing);
            self.report.add(Finding { level, kind: Kind::Wal, file, byte, what, mend });
        }
        for file in examined.unknown() {
            self.foreign(file.clone());
        }
        self.payloads(&examined)?;
        let mut is_said = false;
        for older in older {
            let Err(WalError::Damaged { file, at, reason }) = self.examine(older.covered()) else {
                continue;
            };
            if !is_said {
                let what = format!("{reason}; the newest checkpoint covers it");
                self.damage(Kind::Wal, file, Some(at), &what, Mend::Nothing);
                is_said = true;
            }
            let path = checkpoint::path(&self.layout.checkpoints(), older.number);
            let what = "the log behind it is damaged, so it can't be gone back to";
            self.damage(Kind::Checkpoint, path, None, what, Mend::SetAside);
        }
        Ok(Some(examined.node()))
    }

    fn payloads(&mut self, examined: &Examined) -> Result<(), CheckError> {
        let mut coming = BTreeSet::new();
        let read = examined.replay(&mut |record| {
            open::topics_in(record.payload, &mut coming).map_err(OpenError::from)
        });
        self.state.coming = coming;
        match read {
            Ok(()) => {
                self.state.is_log_read = true;
                Ok(())
            }
            Err(OpenError::Shard(error)) => {
                let what = format!("{error}, though its checksum is right");
                self.damage(Kind::Wal, self.layout.wal(), None, &what, Mend::Rebuild);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn identity(
        &mut self,
        identity: Result<Option<open::Node>, OpenError>,
        node: Option<u64>,
    ) -> Result<(), CheckError> {
        // If the log is made anew, so may the identity be.
        let mend = node.map_or(Mend::Rebuild, Mend::Identity);
        let path = self.layout.node();
        match identity {
            Ok(None) => {
                let what = "it is missing, but the directory was served before";
                self.damage(Kind::Identity, path, None, what, mend);
            }
            Ok(Some(known)) => {
                let named = node.map(|node| format!("{node:016x}"));
                if let Some(named) = named.filter(|named| *named != known.node) {
                    let what =
                        format!("it says node {}, and the write-ahead log {named}", known.node);
                    self.damage(Kind::Identity, path, Some(0), &what, mend);
                }
            }
            Err(OpenError::Damaged { path, why }) => {
                self.damage(Kind::Identity, path, Some(0), &why, mend);
            }
            Err(error) => return Err(error.into()),
        }
        self.strangers()
    }

    /// Files in the folders of the broker that are none of its own.
    fn strangers(&mut self) -> Result<(), CheckError> {
        let folder = self.layout.checkpoints();
        let entries = match self.disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(unusable(&folder))?,
        };
        for entry in entries {
            let stem = entry.name.strip_suffix(".json").unwrap_or_default();
            let is_tmp = entry.name.ends_with(".json.tmp");
            if !is_tmp && (stem.len() != 16 || stem.parse::<u64>().is_err()) {
                self.foreign(folder.join(&entry.name));
            }
        }
        Ok(())
    }

    fn foreign(&mut self, file: PathBuf) {
        let what = "not a file of wiber; it is left alone".to_owned();
        let (level, kind, mend) = (Level::Note, Kind::Foreign, Mend::Nothing);
        self.report.add(Finding { level, kind, file, byte: None, what, mend });
    }

    fn damage(&mut self, kind: Kind, file: PathBuf, byte: Option<u64>, what: &str, mend: Mend) {
        let what = what.to_owned();
        self.report.add(Finding { level: Level::Damage, kind, file, byte, what, mend });
    }
}
