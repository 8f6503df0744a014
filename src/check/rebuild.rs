//! A new checkpoint and an empty log, when the log or all checkpoints are past using.
//!
//! Messages are where they always were: in the topics' files, up to the last whole line. What of the
//! log follows the checkpoint without a gap and is not in the files yet is added to them. Groups are
//! as in the checkpoint, with every acknowledgement that can be read of the log: those name their
//! message, so that a gap before them does not matter. An acknowledgement that is lost means that a
//! message comes again.
//!
//! Nothing is taken away before what it was needed for is durable: what the log gave is in a
//! checkpoint that covers it before the log goes, and the old checkpoints go last. Cut short
//! anywhere, it begins anew and comes to the same; if only the taking away was cut short, all is well,
//! and the broker takes the rest away when it has newer ones.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::repair::{Aside, Done, Seeds};
use super::state::{self, State};
use super::{CheckError, Report, unusable};
use crate::broker::checkpoint::Applied;
use crate::broker::checkpoint::{self, Checkpoint, TopicState};
use crate::broker::layout::Layout;
use crate::broker::open::{self, Node};
use crate::delivery::{Change, Progress};
use crate::disk::{Disk, Open};
use crate::ids::{GroupName, Offset, TopicName};
use crate::log::{self, LogMark, NewRecord, Paths, write_line};
use crate::time::Timestamp;
use crate::topic::{Command, CommandReader};
use crate::wal::{self, Identity, Lsn, Record, Wal, WalError};

/// Lines of a topic are written when there are so many bytes of them.
const ENOUGH_BYTES: usize = 1 << 20;

pub(super) fn rebuild(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    report: &Report,
    aside: &Aside<'_>,
    seeds: Seeds,
) -> Result<Vec<Done>, CheckError> {
    let state = state::verify(disk, layout, false, &mut Report::default())?;
    let mut rebuild = Rebuild {
        disk,
        layout,
        aside,
        topics: known(&state, report),
        next: state.base.as_ref().map(|base| base.lsn().next()),
        read: Lsn::ZERO,
        indexes: BTreeMap::new(),
        after_gap: 0,
        done: Vec::new(),
    };
    for (name, topic) in &rebuild.topics {
        rebuild.done.extend(cut(disk.as_ref(), layout, aside, name, &topic.mark)?);
    }
    rebuild.replay(state.base.as_ref())?;
    rebuild.replace(&state, seeds)?;
    Ok(rebuild.done)
}

/// A topic on its way to the new checkpoint.
#[derive(Debug, Default)]
struct Known {
    /// What of the log its state covers.
    lsn: Lsn,
    /// Where its files end.
    mark: LogMark,
    /// The last message by the log, which may be before or behind the end of the files.
    at: Offset,
    /// Lines that are to be written to the file.
    lines: Vec<u8>,
    groups: BTreeMap<String, Progress>,
}

fn known(state: &State, report: &Report) -> BTreeMap<TopicName, Known> {
    let new = |mark: &LogMark| Known { mark: *mark, at: mark.end, ..Known::default() };
    let mut topics: BTreeMap<_, _> =
        report.ends.iter().map(|(name, mark)| (name.clone(), new(mark))).collect();
    if state.base.is_some() {
        topics.values_mut().for_each(|topic| topic.at = Offset::ZERO);
    }
    for (lsn, known) in state.base.iter().flat_map(|base| &base.topics) {
        let Ok(name) = TopicName::parse(known.topic.as_bytes()) else { continue };
        let topic = topics.entry(name).or_default();
        topic.lsn = *lsn;
        topic.at = known.mark.end;
        topic.mark.latest = topic.mark.latest.max(known.mark.latest);
        topic.groups.clone_from(&known.groups);
    }
    topics
}

/// Keeps what lies behind the last whole line, and cuts it off.
fn cut(
    disk: &dyn Disk,
    layout: &Layout,
    aside: &Aside<'_>,
    name: &TopicName,
    mark: &LogMark,
) -> Result<Vec<Done>, CheckError> {
    let mut done = Vec::new();
    let files = log::scan(disk, &layout.data)?.topics.remove(name).unwrap_or_default();
    for file in files {
        let path = layout.data.join(&file.name);
        if file.first.is_some_and(|first| first >= mark.segment) {
            let kept = Some(aside.take(&path)?);
            done.push(Done { file: path, what: "behind what can be trusted".to_owned(), kept });
        } else if file.first.is_none() && file.len > mark.len {
            let kept = aside.copy(&path, mark.len, file.len)?;
            let open = disk.open(&path, Open::Write).map_err(unusable(&path))?;
            open.truncate(mark.len).and_then(|()| open.sync()).map_err(unusable(&path))?;
            let what = format!("cut {} bytes that are no messages", file.len - mark.len);
            done.push(Done { file: path, what, kept });
        }
    }
    Ok(done)
}

struct Rebuild<'a> {
    disk: &'a Arc<dyn Disk>,
    layout: &'a Layout,
    aside: &'a Aside<'a>,
    topics: BTreeMap<TopicName, Known>,
    /// The record that comes next; `None` behind a gap.
    next: Option<Lsn>,
    /// The last record that was read of the log.
    read: Lsn,
    /// The last batch of each shard that was read.
    indexes: BTreeMap<u32, u64>,
    /// Messages behind the gap, whose offsets nobody knows.
    after_gap: u64,
    done: Vec<Done>,
}

impl Rebuild<'_> {
    /// Takes from the log what is not in files and groups yet.
    fn replay(&mut self, base: Option<&Checkpoint>) -> Result<(), CheckError> {
        let Some(base) = base else { return Ok(()) };
        let (disk, dir) = (Arc::clone(self.disk), self.layout.wal());
        let mut failed = None;
        let read = wal::salvage(disk, &dir, base.lsn(), &mut |record| {
            if failed.is_none() {
                failed = self.record(&record).err();
            }
        });
        match read {
            Err(WalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            read => read?,
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let names: Vec<_> = self.topics.keys().cloned().collect();
        names.iter().try_for_each(|name| self.flush(name))
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), CheckError> {
        self.next = self.next.filter(|next| *next == record.lsn).map(Lsn::next);
        let is_gap = self.next.is_none();
        self.read = record.lsn;
        self.indexes.insert(record.shard, record.index);
        let mut reader = CommandReader::new(record.payload);
        let (mut name, mut group, mut ts) = (None, None, Timestamp::default());
        // A batch that can't be read to its end comes from elsewhere: the rest of it is left.
        while let Ok(Some(command)) = reader.next() {
            match command {
                Command::Topic(topic) => {
                    self.topics.entry(topic.clone()).or_default();
                    name = Some(topic);
                }
                Command::Time(now) => ts = now,
                Command::Group(named) => group = Some(named),
                other => {
                    let Some(name) = &name else { continue };
                    let topic = self.topics.get_mut(name).expect("it was put in when it was named");
                    if record.lsn <= topic.lsn {
                        continue;
                    }
                    let is_long = match other {
                        Command::Append { .. } if is_gap => {
                            self.after_gap += 1;
                            false
                        }
                        Command::Append { id, extra, message } => {
                            let given = (!id.is_empty()).then_some(id);
                            topic.append(name, &NewRecord { ts, id: given, message, extra });
                            topic.lines.len() >= ENOUGH_BYTES
                        }
                        other => {
                            topic.settle(group.as_ref(), other);
                            false
                        }
                    };
                    if is_long {
                        let name = name.clone();
                        self.flush(&name)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes what is not in the topic's file yet, durably.
    fn flush(&mut self, name: &TopicName) -> Result<(), CheckError> {
        let topic = self.topics.get_mut(name).expect("its name is from here");
        if topic.lines.is_empty() {
            return Ok(());
        }
        let path = Paths { dir: self.layout.data.clone(), topic: name.clone() }.active();
        let file = self.disk.open(&path, Open::Create).map_err(unusable(&path))?;
        let write = file.write_at(&topic.lines, topic.mark.len).and_then(|()| file.sync());
        write.map_err(unusable(&path))?;
        self.disk.sync_dir(&self.layout.data).map_err(unusable(&self.layout.data))?;
        topic.mark.len += topic.lines.len() as u64;
        topic.lines.clear();
        Ok(())
    }

    /// Puts the old log and the old checkpoints aside, and new ones in their place.
    fn replace(&mut self, state: &State, seeds: Seeds) -> Result<(), CheckError> {
        let (disk, wal_dir) = (self.disk.as_ref(), self.layout.wal());
        let folder = self.layout.checkpoints();
        disk.create_dir(&folder).map_err(unusable(&folder))?;
        let mut number = state.last_number + 1;
        if let Some(base) = state.base.as_ref().filter(|base| base.lsn() < self.read) {
            self.interim(number, base).put(disk, &folder, self.aside.now)?;
            number += 1;
        }
        for entry in disk.list(&wal_dir).unwrap_or_default() {
            self.take(&wal_dir.join(entry.name), "put aside")?;
        }
        let named = open::read_node(disk, self.layout).ok().flatten();
        let node = named.as_ref().and_then(|node| u64::from_str_radix(&node.node, 16).ok());
        let identity = Identity { node: node.unwrap_or(seeds.node), secret: seeds.secret };
        // The smallest: the segments behind it are as whoever starts the broker wants them.
        let settings = wal::Settings { segment_bytes: 0 };
        drop(Wal::create(Arc::clone(self.disk), &wal_dir, identity, settings)?);
        let checkpoint = self.checkpoint(number, state);
        checkpoint.put(disk, &folder, self.aside.now)?;
        for old in checkpoint::numbers(disk, &folder)?.into_iter().filter(|old| *old != number) {
            self.take(&checkpoint::path(&folder, old), "put aside")?;
        }
        if node.is_none() {
            let path = self.layout.node();
            let kept = self.aside.copy(&path, 0, u64::MAX)?;
            Node::new(identity.node, self.aside.now).write(disk, &path).map_err(unusable(&path))?;
            let what = "written again; the time of creation is lost".to_owned();
            self.done.push(Done { file: path, what, kept });
        }
        let groups = match &state.base {
            Some(_) => {
                "groups are as in the last checkpoint, with what could be read of the log; \
                        messages whose acknowledgement was lost come again"
            }
            None => "groups are lost, and begin anew when somebody joins them",
        };
        let messages = match self.after_gap {
            0 => String::new(),
            count => format!(
                "; {count} messages stand in the log behind the damage: those that are not in the \
                 topics' files are lost"
            ),
        };
        let what = format!("made from the topics' files; {groups}{messages}");
        let file = checkpoint::path(&folder, checkpoint.number);
        self.done.push(Done { file, what, kept: None });
        Ok(())
    }

    fn take(&mut self, file: &Path, what: &str) -> Result<PathBuf, CheckError> {
        let kept = self.aside.take(file)?;
        let (file, what) = (file.to_owned(), what.to_owned());
        self.done.push(Done { file, what, kept: Some(kept.clone()) });
        Ok(kept)
    }

    /// A checkpoint that covers all that was read of the log.
    fn interim(&self, number: u64, base: &Checkpoint) -> Checkpoint {
        let mut checkpoint = Checkpoint { number, ..Checkpoint::default() };
        for (shard, applied) in &base.shards {
            let index = self.indexes.get(shard).copied().unwrap_or(applied.index);
            checkpoint.shards.insert(*shard, Applied { index, lsn: self.read });
        }
        for (name, topic) in &self.topics {
            let Known { mark, groups, .. } = topic;
            let (topic, groups) = (name.as_str().to_owned(), groups.clone());
            checkpoint.topics.push((self.read, TopicState { topic, mark: *mark, groups }));
        }
        checkpoint
    }

    /// The checkpoint that goes with an empty log.
    fn checkpoint(&mut self, number: u64, state: &State) -> Checkpoint {
        let mut checkpoint = Checkpoint { number, ..Checkpoint::default() };
        match &state.base {
            Some(base) => {
                let shards = base.shards.keys().map(|shard| (*shard, Applied::default()));
                checkpoint.shards.extend(shards);
            }
            None => drop(checkpoint.shards.insert(0, Applied::default())),
        }
        for (name, topic) in std::mem::take(&mut self.topics) {
            let Known { mark, groups, .. } = topic;
            let topic = name.as_str().to_owned();
            checkpoint.topics.push((Lsn::ZERO, TopicState { topic, mark, groups }));
        }
        checkpoint
    }
}

impl Known {
    /// The next message by the log.
    fn append(&mut self, name: &TopicName, record: &NewRecord<'_>) {
        self.at = self.at.next();
        if self.at > self.mark.end {
            write_line(&mut self.lines, name.tag(), self.at, record);
            self.mark.end = self.at;
            self.mark.latest = self.mark.latest.max(record.ts);
        }
    }

    fn settle(&mut self, group: Option<&GroupName>, command: Command<'_>) {
        let Some(group) = group else { return };
        let next = self.at.next();
        if command == Command::CreateGroup {
            self.groups
                .entry(group.as_str().to_owned())
                .or_insert_with(|| Progress::starting_at(next));
            return;
        }
        let end = self.mark.end;
        let Some(progress) = self.groups.get_mut(group.as_str()) else { return };
        match command {
            Command::Settled { first, count } => {
                let offsets = first.get()..first.get().saturating_add(u64::from(count));
                for offset in offsets.map(Offset::new).filter(|offset| *offset <= end) {
                    progress.apply(&Change::Settled { offset });
                }
            }
            Command::Change(change) => {
                let (Change::Settled { offset }
                | Change::Failed { offset, .. }
                | Change::DeadLettered { offset, .. }) = &change;
                if *offset <= end && !progress.is_settled(*offset) {
                    progress.apply(&change);
                }
            }
            _ => {}
        }
    }
}
