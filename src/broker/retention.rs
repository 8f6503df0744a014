//! What is kept of the topics: finding what is too much or too old, and letting go of it.
//!
//! ```text
//!   keeper ── Inventory ──▶ shard        which topics there are, and from which message on a group needs them
//!      │ looks at the files
//!      └───── Trim ───────▶ shard ──▶ log ──▶ applied: the topic begins later
//!                                                │ two checkpoints later
//!   keeper ◀── its files may be removed ─────────┘
//! ```
//!
//! * A message goes only when every group of its topic has handled it, and a dead letter never does: what
//!   [`Retention`] says gives way to that, and the log says so.
//! * That a topic begins later is a command like any other, so whoever applies the log again comes to the
//!   same. The files go when no checkpoint is left from which somebody could have to begin that needs them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::ids::{GroupName, Offset, TopicName};
use crate::log::{Ages, LogError, LogShared, Retention, TrimmedFiles};
use crate::planted::{self, Bug};
use crate::time::{Moment, Now};
use crate::wal::Lsn;

use super::shard::{ALL_TOPICS, Shard};

/// How often it is looked at what there is.
const PAUSE: Duration = Duration::from_secs(1);

/// So many active segments of a piece end at once: the folder has to be synced for each, while the shard
/// waits. The others do in the next pass, for which there is no pause then.
const SEALED_AT_ONCE: usize = 8;

/// So many files are removed in one of the keeper's rounds, or so many bytes of them.
const FILES_REMOVED_AT_ONCE: usize = 64;
const BYTES_REMOVED_AT_ONCE: u64 = 256 << 20;

/// Some of a shard's topics, as far as they can lose messages.
#[derive(Debug)]
pub struct Inventory {
    topics: Vec<Stock>,
    /// Where the next ones begin, if there are more.
    next: Option<usize>,
}

#[derive(Debug)]
struct Stock {
    log: Arc<LogShared>,
    /// The first message that a group still needs, and which.
    needed: Option<(Offset, GroupName)>,
}

/// What a topic lets go of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trim {
    topic: TopicName,
    /// It begins with this message then.
    first: Offset,
    /// Its active segment ends.
    seals: bool,
}

/// Looks at the topics of all shards, a piece at a time, and again after a pause; without threads.
#[derive(Debug, Default)]
pub struct Retaining {
    retention: Retention,
    next_pass: Moment,
    /// The last record of the log when topics were last told to let go of something. As long as none came
    /// behind it that is not written, and there is no use in telling them again.
    told_at: Option<Lsn>,
    /// While a pass goes on: what it has come to.
    pass: Option<Pass>,
    ages: HashMap<TopicName, Ages>,
    /// What was said before and is still so.
    said: Said,
}

/// What is said once, and again only when it was otherwise in between.
#[derive(Debug, Default)]
struct Said {
    /// Topics of which a group holds the messages.
    held: HashSet<TopicName>,
    /// Topics that could not be looked at.
    failed: HashSet<TopicName>,
    /// For want of file descriptors, which are not a topic's.
    is_short: bool,
}

#[derive(Debug, Default)]
struct Pass {
    shard: usize,
    next: usize,
    topics: usize,
    /// Segments that have to end did not, since there were too many.
    seals_left: bool,
    /// What the next pass goes on with.
    ages: HashMap<TopicName, Ages>,
    said: Said,
}

impl Retaining {
    /// Keeps what this says.
    pub fn new(retention: Retention) -> Self {
        Self { retention, ..Self::default() }
    }

    /// What is to be asked for ([`Shard::inventory`]): the shard, of so many, and which of its topics.
    /// `None` when there is nothing to be done now. `last` is the last record of the log.
    pub fn wants(
        &mut self,
        now: Moment,
        last: Lsn,
        shards: usize,
        piece: usize,
    ) -> Option<(usize, Range<usize>)> {
        if self.pass.as_ref().is_some_and(|pass| pass.shard >= shards) {
            self.finish(now);
        }
        let is_untimely = now < self.next_pass || self.told_at == Some(last);
        if self.pass.is_none() && (self.retention.is_off() || is_untimely) {
            return None;
        }
        let pass = self.pass.get_or_insert_default();
        Some((pass.shard, pass.next..pass.next.saturating_add(piece)))
    }

    /// Ends a pass. The next one comes after a pause, or at once if segments were left that have to end.
    fn finish(&mut self, now: Moment) {
        let Pass { topics, seals_left, ages, said, .. } = self.pass.take().unwrap_or_default();
        if topics > 0 {
            tracing::info!(
                event = "messages_expired",
                topics,
                "topics have let go of their oldest messages"
            );
        }
        let pause = if seals_left { Duration::ZERO } else { PAUSE };
        (self.ages, self.said, self.next_pass) = (ages, said, now + pause);
    }

    /// What the topics of a piece are to let go of. `last` is the last record of the log.
    pub fn look(&mut self, disk: &dyn Disk, now: Now, last: Lsn, piece: Inventory) -> Vec<Trim> {
        let Some(pass) = &mut self.pass else { return Vec::new() };
        (pass.shard, pass.next) = match piece.next {
            Some(next) => (pass.shard, next),
            None => (pass.shard + 1, 0),
        };
        let (mut trims, mut sealed) = (Vec::new(), 0);
        for Stock { log, needed } in piece.topics {
            let topic = log.topic().clone();
            let mut ages = self.ages.remove(&topic).unwrap_or_default();
            let mut from = needed.as_ref().map_or(Offset::new(u64::MAX), |(from, _)| *from);
            if planted::has(Bug::NeededTrimmed) {
                from = Offset::new(u64::MAX);
            }
            let plan = self.retention.plan(&log, disk, &mut ages, now.wall, from);
            if self.retention.age.is_some() {
                pass.ages.insert(topic.clone(), ages);
            }
            let plan = match plan {
                Ok(plan) => plan,
                Err(error) => {
                    pass.said.failed(&self.said, topic, &error);
                    continue;
                }
            };
            if let Some((offset, group)) = needed.filter(|_| plan.is_held) {
                if !self.said.held.contains(&topic) {
                    tracing::warn!(event = "retention_held", %topic, %group, offset = offset.get(),
                        "messages of topic {topic} stay beyond the retention, since group {group} \
                         has not handled message {offset}");
                }
                pass.said.held.insert(topic.clone());
            }
            let seals = plan.seals && sealed < SEALED_AT_ONCE;
            sealed += usize::from(seals);
            pass.seals_left |= plan.seals && !seals;
            if plan.first > log.first() || seals {
                pass.topics += usize::from(plan.first > log.first());
                trims.push(Trim { topic, first: plan.first, seals });
            }
        }
        if !trims.is_empty() {
            self.told_at = Some(last);
        }
        trims
    }
}

impl Said {
    /// Says why a topic could not be looked at, unless that was said in this pass or the one before.
    fn failed(&mut self, before: &Said, topic: TopicName, error: &LogError) {
        let is_new = if error.is_shortage() {
            !std::mem::replace(&mut self.is_short, true) && !before.is_short
        } else {
            !before.failed.contains(&topic)
        };
        if is_new {
            tracing::warn!(event = "retention_failed", %topic,
                "failed to look at the age of messages, and will try again: {error}");
        }
        if !error.is_shortage() {
            self.failed.insert(topic);
        }
    }
}

impl Shard {
    /// The topics at these places that can lose messages.
    pub fn inventory(&mut self, piece: Range<usize>) -> Inventory {
        let (slots, next) = self.topics.piece_mut(piece);
        let topics = slots.map(|slot| &slot.topic);
        let topics = topics.filter(|topic| !topic.name().is_dead_letter());
        let topics = topics.filter(|topic| topic.log().first() <= topic.log().end());
        let stock = |topic: &crate::topic::Topic| Stock {
            log: topic.shared(),
            needed: topic.needed().map(|(offset, group)| (offset, group.clone())),
        };
        Inventory { topics: topics.map(stock).collect(), next }
    }

    /// The files of what its topics no longer keep: from now on nobody else knows of them.
    pub fn take_trimmed(&mut self) -> Vec<TrimmedFiles> {
        let (slots, _) = self.topics.piece_mut(ALL_TOPICS);
        slots.flat_map(|slot| slot.topic.log_mut().take_trimmed()).collect()
    }

    /// Lets topics go of messages, with the batch that is open.
    pub fn trim(&mut self, trims: &[Trim]) {
        for Trim { topic, first, seals } in trims {
            let Some(key) = self.topics.find(topic) else { continue };
            let known = &self.topics.slot(key).topic;
            // Since it was planned that can only have become less; it is looked at again all the same.
            let is_needed = known.needed().is_some_and(|(offset, _)| offset < *first)
                && !planted::has(Bug::NeededTrimmed);
            // Whatever comes of it, it is written that it was looked at.
            self.open.commands.topic(topic);
            if *seals {
                self.open.commands.seal();
            }
            if *first > known.log().first() && !is_needed {
                self.open.commands.trim(*first);
            }
        }
    }
}

/// Files of messages that are no longer kept, on their way out. Two checkpoints are kept, and a directory may
/// have to be gone back to the older one: the files that it knows of have to be there.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// No checkpoint has that they are not needed.
    coming: Vec<TrimmedFiles>,
    /// The newest one has.
    said: Vec<TrimmedFiles>,
    /// Both have. Those of a topic are in their order.
    ready: VecDeque<TrimmedFiles>,
    /// Topics of which it was said that the first of those can't be removed.
    failed: HashSet<TopicName>,
}

impl Removals {
    /// The next checkpoint will have that these are not needed.
    pub(super) fn come(&mut self, files: Vec<TrimmedFiles>) {
        self.coming.extend(files);
    }

    /// That checkpoint is made.
    pub(super) fn checkpoint(&mut self) {
        self.ready.extend(std::mem::replace(&mut self.said, std::mem::take(&mut self.coming)));
    }

    /// Whether some wait for a checkpoint.
    pub(super) fn want_checkpoint(&self) -> bool {
        !self.coming.is_empty() || !self.said.is_empty()
    }

    /// Removes some from `data`. They are put into `trash` first, so that a file which `gentle` removes
    /// little by little is nobody's. What can't be removed is tried again, and what is behind it in its topic
    /// waits for it.
    ///
    /// # Errors
    /// A sync of the folder that failed.
    pub(super) fn step(
        &mut self,
        disk: &dyn Disk,
        gentle: &dyn Disk,
        data: &Path,
        trash: &Path,
    ) -> Result<(), LogError> {
        let in_trash = |files: &TrimmedFiles| {
            trash.join(files.log.file_name().expect("a segment's file has a name"))
        };
        let (mut moved, mut bytes) = (Vec::<TrimmedFiles>::new(), 0);
        let (mut stuck, mut waiting) = (HashSet::new(), Vec::new());
        while moved.len() + stuck.len() < FILES_REMOVED_AT_ONCE
            && bytes < BYTES_REMOVED_AT_ONCE
            && let Some(files) = self.ready.pop_front()
        {
            if stuck.contains(&files.topic) {
                waiting.push(files);
                continue;
            }
            // After a power cut there must not be one between two that are gone.
            if moved.iter().any(|moved| moved.topic == files.topic) {
                sync(disk, data)?;
            }
            match take_away(disk, &files, &in_trash(&files)) {
                Ok(()) => {
                    self.failed.remove(&files.topic);
                    bytes += files.bytes;
                    moved.push(files);
                }
                Err(error) => {
                    if self.failed.insert(files.topic.clone()) {
                        tracing::warn!(event = "retention_failed", path = %files.log.display(),
                            "failed to remove a file that is no longer needed, and will try again: {error}");
                    }
                    stuck.insert(files.topic.clone());
                    waiting.push(files);
                }
            }
        }
        if !stuck.is_empty() {
            // Others come first the next time.
            let left = waiting.into_iter().chain(self.ready.drain(..));
            let (last, first): (Vec<_>, Vec<_>) = left.partition(|f| stuck.contains(&f.topic));
            self.ready.extend(first.into_iter().chain(last));
        }
        if !moved.is_empty() {
            sync(disk, data)?;
        }
        for files in &moved {
            remove(gentle, &in_trash(files));
        }
        Ok(())
    }
}

/// Takes files from where others see them; that they are gone already is no failure.
fn take_away(disk: &dyn Disk, files: &TrimmedFiles, trash: &Path) -> io::Result<()> {
    remove(disk, &files.index);
    let is_gone = match disk.rename(&files.log, trash) {
        // The trash is on another disk. Where others see it, it has to be there whole or not at all.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => disk.remove(&files.log),
        is_moved => is_moved,
    };
    match is_gone {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    disk.sync_dir(dir).map_err(|source| LogError::Sync { path: dir.to_owned(), source })
}

/// Removes what was left in the trash when the last life ended.
pub(super) fn empty(disk: &dyn Disk, trash: &Path) {
    // Most directories have none.
    for entry in disk.list(trash).unwrap_or_default() {
        remove(disk, &trash.join(&entry.name));
    }
}

/// Removes a file that nobody needs. What stays in the trash is tried again after the next start.
fn remove(disk: &dyn Disk, path: &Path) {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(event = "retention_failed", path = %path.display(),
                "failed to remove a file that is no longer needed: {error}");
        }
        _ => {}
    }
}
