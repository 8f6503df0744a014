//! One topic: where its log and its groups meet, with one writer.
//!
//! ```text
//!   requests, time ──▶ decide ──▶ Commands ──▶ (committed elsewhere) ──▶ apply ──▶ log, groups
//!                                    ▲                                      │
//!                                    └── a group asks for a change ◀────────┤
//!                                                     lines for a member ◀──┘
//! ```
//!
//! * `decide` may read the log and the present state; `apply` is a function of the state and the
//!   commands alone, so that recovery and live running end in the same state.
//! * What a group asks for ([`crate::delivery::Action::Commit`]) becomes a command; the group gets
//!   it back when it is committed.
//!
//! Not here: threads, sockets, the write-ahead log, and how long anything takes.

mod apply;
pub mod command;
mod decide;
mod feed;
mod given;
pub mod lines;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::delivery::{Action, Event, Group, Policy, Progress, Report, Verdict};
use crate::ids::{ConnId, GroupName, Offset, TopicName};
use crate::log::{LogError, LogShared, TopicLog};
use crate::planted::{self, Bug};
use crate::time::{Moment, Now};

pub use command::{BadCommand, Command, CommandReader, Commands};
use feed::{FedId, Feed};
pub use given::GivenIds;

/// Where lines for connections go.
pub trait Pushes {
    /// The buffer of lines that will be sent to `conn`, behind its other pushes.
    fn push(&mut self, conn: ConnId) -> &mut Vec<u8>;

    /// Whether there is room for more lines for `conn`. If not, its groups will be told when there is
    /// ([`Event::Resume`]).
    fn has_room(&mut self, conn: ConnId) -> bool;
}

/// What is at hand while something happens: the time, the batch being filled and the way out.
pub struct Desk<'a> {
    /// The time of this step.
    pub now: Now,
    /// The batch that takes the durable changes.
    pub commands: &'a mut Commands,
    /// The way to the members.
    pub pushes: &'a mut dyn Pushes,
    /// When groups want to be woken.
    pub timers: &'a mut Timers,
    /// Ids that do not lead back to their message by themselves.
    pub given: &'a mut GivenIds,
    /// How many groups have messages for members without credit.
    pub starved: &'a mut usize,
    /// How many groups keep a file open from one turn to the next.
    pub kept: &'a mut usize,
}

/// A topic's place on its shard, for as long as the topic is open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TopicKey(usize);

impl TopicKey {
    /// The key of this number.
    pub const fn new(number: usize) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// When the groups of a shard want to be woken. An entry may be stale: a wake too many is harmless,
/// one too few would be a message that waits for ever.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(Moment, TopicKey, GroupKey)>);

impl Timers {
    /// The earliest.
    pub fn next(&self) -> Option<Moment> {
        self.0.first().map(|(at, _, _)| *at)
    }

    /// Takes one that is due at `now`.
    pub fn due(&mut self, now: Moment) -> Option<(TopicKey, GroupKey)> {
        let mut entry = *self.0.first().filter(|(at, _, _)| *at <= now)?;
        if planted::has(Bug::HashOrder) {
            let due = self.0.iter().take_while(|(at, _, _)| *at <= now).copied();
            entry = planted::any(due.collect());
        }
        self.0.remove(&entry);
        Some((entry.1, entry.2))
    }
}

/// A topic with its log and groups.
#[derive(Debug)]
pub struct Topic {
    name: TopicName,
    key: TopicKey,
    tag: u32,
    policy: Arc<Policy>,
    log: TopicLog,
    /// In the order of their creation, which is the same on every replay.
    groups: Vec<GroupSlot>,
    group_keys: BTreeMap<GroupName, GroupKey>,
    /// Connections that follow the topic without a group.
    followers: usize,
    /// Members of all groups: with none, and no followers, nobody wants ready lines.
    members: usize,
    fresh: apply::Fresh,
    /// Kept for its room only.
    actions: Vec<Action>,
}

/// A group's place in its topic, for as long as the topic is open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupKey(usize);

impl GroupKey {
    /// The key of this number.
    pub const fn new(number: usize) -> Self {
        Self(number)
    }
}

#[derive(Debug)]
struct GroupSlot {
    name: GroupName,
    group: Group,
    feed: Feed,
    /// The entry in the timers.
    timer: Option<Moment>,
}

impl Topic {
    /// A topic with this log; `policy` is that of its groups.
    pub fn new(name: TopicName, log: TopicLog, policy: Arc<Policy>) -> Self {
        Self {
            tag: name.tag(),
            name,
            key: TopicKey::default(),
            policy,
            log,
            groups: Vec::new(),
            group_keys: BTreeMap::new(),
            followers: 0,
            members: 0,
            fresh: apply::Fresh::default(),
            actions: Vec::new(),
        }
    }

    /// Tells it its place on the shard, which stands in its timers.
    pub fn set_key(&mut self, key: TopicKey) {
        self.key = key;
    }

    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// [`TopicName::tag`] of its name.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Its log.
    pub fn log(&self) -> &TopicLog {
        &self.log
    }

    /// Its log, to be synced, closed or cut.
    pub fn log_mut(&mut self) -> &mut TopicLog {
        &mut self.log
    }

    /// Its log, for readers on other threads.
    pub fn shared(&self) -> Arc<LogShared> {
        self.log.shared()
    }

    /// Brings a group back from a checkpoint.
    pub fn restore_group(&mut self, name: GroupName, progress: Progress) {
        self.insert_group(name, progress);
    }

    /// The durable state of its groups, in name order.
    pub fn progress(&self) -> impl Iterator<Item = (&GroupName, &Progress)> {
        self.group_keys.iter().map(|(name, key)| (name, self.groups[key.0].group.progress()))
    }

    /// The group of this name.
    pub fn group_key(&self, name: &GroupName) -> Option<GroupKey> {
        self.group_keys.get(name).copied()
    }

    /// The state of a group.
    pub fn group(&self, key: GroupKey) -> &Group {
        &self.groups[key.0].group
    }

    /// The groups of the topic.
    pub fn group_keys(&self) -> impl Iterator<Item = GroupKey> + use<> {
        (0..self.groups.len()).map(GroupKey)
    }

    /// The first message that one of its groups has not handled, and which; what is before it all of them
    /// have. `None` without groups.
    pub fn needed(&self) -> Option<(Offset, &GroupName)> {
        self.progress().map(|(name, progress)| (progress.floor().next(), name)).min()
    }

    /// Another connection follows the topic without a group.
    pub fn follow(&mut self) {
        self.followers += 1;
    }

    /// One of them left.
    pub fn unfollow(&mut self) {
        self.followers = self.followers.checked_sub(1).expect("whoever leaves has come");
    }

    /// Whether anybody follows it, or is a member of one of its groups.
    pub fn is_read(&self) -> bool {
        self.followers > 0 || self.members > 0
    }

    /// Whether nothing would be missed if the topic were forgotten.
    pub fn is_empty(&self) -> bool {
        self.log.end() == Offset::ZERO && self.groups.is_empty() && self.followers == 0
    }

    /// Tells `group` what happened and does what it asks for. Returns its verdict on an
    /// acknowledgement.
    ///
    /// # Errors
    /// What reading the log says; a message that is damaged on disk is no error but is
    /// dead-lettered with what is known of it.
    pub fn tell(
        &mut self,
        key: GroupKey,
        event: Event<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Verdict>, LogError> {
        let mut actions = std::mem::take(&mut self.actions);
        let mut more = Vec::new();
        let moves_nothing =
            planted::has(Bug::AckMovesNothing) && matches!(event, Event::Ack { .. });
        let slot = &mut self.groups[key.0];
        let (members, starved) = (slot.group.members(), slot.group.is_starved());
        slot.group.on(desk.now, event, &mut actions);
        self.members = self.members + slot.group.members() - members;
        let mut verdict = None;
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Deliver { member, offset, .. } => {
                        self.deliver(key, member, offset, desk, &mut more)?;
                    }
                    Action::Commit(change) => self.write_change(key, &change, desk, &mut more)?,
                    // The first one: those that come later are about what is done because of it.
                    Action::Answer(answer) => verdict = verdict.or(Some(answer)),
                    Action::Report(report) => self.report(key, &report),
                }
            }
            std::mem::swap(&mut actions, &mut more);
            if actions.is_empty() {
                let group = &mut self.groups[key.0].group;
                let may_have = |member| desk.pushes.has_room(member);
                let is_more = !moves_nothing && group.hand_out(desk.now, may_have, &mut actions);
                // If not, some may have been paused all the same.
                if !is_more && actions.is_empty() {
                    break;
                }
            }
        }
        self.actions = actions;
        let slot = &mut self.groups[key.0];
        if slot.group.members() == 0 {
            slot.feed.rest();
        }
        slot.feed.end_turn(desk.kept);
        *desk.starved += usize::from(slot.group.is_starved());
        *desk.starved -= usize::from(starved);
        self.set_timer(key, desk.timers);
        Ok(verdict)
    }

    /// A timer of the group is due.
    ///
    /// # Errors
    /// As for [`Topic::tell`].
    pub fn wake(&mut self, key: GroupKey, desk: &mut Desk<'_>) -> Result<(), LogError> {
        if !planted::has(Bug::LostWakeUp) {
            self.groups[key.0].timer = None;
        }
        self.tell(key, Event::Wake, desk)?;
        Ok(())
    }

    /// Sees to it that there is a timer no later than the group wants to be woken.
    fn set_timer(&mut self, key: GroupKey, timers: &mut Timers) {
        let slot = &mut self.groups[key.0];
        let Some(wanted) = slot.group.wake_at() else { return };
        if slot.timer.is_none_or(|set| wanted < set) {
            slot.timer = Some(wanted);
            timers.0.insert((wanted, self.key, key));
        }
    }

    /// Puts the message's line into the member's buffer. A message that can't be read for damage is
    /// taken out of the way: dead-lettered with the reason.
    fn deliver(
        &mut self,
        key: GroupKey,
        member: ConnId,
        offset: Offset,
        desk: &mut Desk<'_>,
        more: &mut Vec<Action>,
    ) -> Result<(), LogError> {
        let slot = &mut self.groups[key.0];
        match slot.feed.write(&self.name, self.tag, &self.log, offset, desk.pushes.push(member)) {
            Ok(id) => {
                slot.group.remember(offset, id.mark());
                if let FedId::Given(id) = id {
                    desk.given.insert((self.key, key, offset), &id);
                }
                Ok(())
            }
            Err(LogError::Corrupt { .. } | LogError::Gone { .. }) => {
                tracing::error!(event = "message_damaged", topic = %self.name, group = %slot.name,
                    offset = offset.get(), "a message is damaged on disk and goes to the dead letters; \
                    run wiber check");
                let nack = Event::Nack {
                    member,
                    offset,
                    delay: None,
                    reason: Some("damaged".to_owned()),
                    error: Some("the message is damaged on disk".to_owned()),
                    counts: true,
                    dead: true,
                };
                slot.group.on(desk.now, nack, more);
                Ok(())
            }
            Err(error @ LogError::Io { .. }) => {
                // It may be a passing shortage: the message is tried again when its time is over, and the
                // member has done nothing wrong.
                slot.group.not_sent(offset);
                tracing::error!(event = "message_unreadable", topic = %self.name,
                    group = %slot.name, offset = offset.get(), "{error}");
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn report(&self, key: GroupKey, report: &Report) {
        let GroupSlot { name, group, .. } = &self.groups[key.0];
        report::log(&self.name, name, group.members(), report);
    }

    fn insert_group(&mut self, name: GroupName, progress: Progress) -> GroupKey {
        let key = GroupKey(self.groups.len());
        let group = Group::new(Arc::clone(&self.policy), progress);
        let feed = Feed::new(self.log.reader().brief());
        self.group_keys.insert(name.clone(), key);
        self.groups.push(GroupSlot { name, group, feed, timer: None });
        key
    }
}
