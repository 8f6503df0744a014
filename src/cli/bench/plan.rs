//! The kinds of runs: the same load, with other numbers.

use std::time::Duration;

use super::args::{CatchupFlags, LoadFlags};
use super::messages::Ring;
use crate::cli::exit::{Exit, Failure};
use crate::config::show_size;

/// What a run does. Numbers of consumers are for each topic, those of publishers in all.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) connections: usize,
    pub(super) window: u32,
    pub(super) size: usize,
    /// Messages a second in all; as fast as answers come if not given.
    pub(super) rate: Option<u64>,
    pub(super) duration: Duration,
    pub(super) warmup: Duration,
    pub(super) topics: usize,
    pub(super) subscribers: usize,
    pub(super) groups: usize,
    pub(super) members: usize,
    pub(super) backlog: u64,
    /// Messages that are there before anyone reads; none but in a run that catches up.
    pub(super) messages: Option<u64>,
}

/// Most memory for messages that are made beforehand, in bytes.
const MESSAGES_BYTES_MAX: usize = 4 << 30;

/// About what a topic takes beside its message, in bytes.
const TOPIC_BYTES: usize = 256;

/// About what a line has beside its message: its words, with the name of the topic.
const LINE_BYTES: usize = 64;

/// What every preset starts from.
const BASE: Plan = Plan {
    name: "pub",
    connections: 1,
    window: 1000,
    size: 100,
    rate: None,
    duration: Duration::from_secs(5),
    warmup: Duration::from_millis(500),
    topics: 1,
    subscribers: 0,
    groups: 0,
    members: 4,
    backlog: 10_000,
    messages: None,
};

/// What there is to catch up on in the tour, by how long its other runs take.
const TOUR_MESSAGES_PER_MILLI: u64 = 100;

/// Publishing alone.
pub(super) const PUB: Plan = BASE;
/// One plain subscriber.
pub(super) const SUB: Plan = Plan { name: "sub", subscribers: 1, ..BASE };
/// One group of four.
pub(super) const GROUP: Plan = Plan { name: "group", groups: 1, ..BASE };
/// From publisher to subscriber at a fixed rate.
pub(super) const LATENCY: Plan = Plan { name: "latency", rate: Some(1000), subscribers: 1, ..BASE };
/// One publisher, many subscribers.
pub(super) const FANOUT: Plan = Plan { name: "fanout", subscribers: 100, window: 100, ..BASE };
/// Everything at once.
pub(super) const MIXED: Plan = Plan {
    name: "mixed",
    connections: 8,
    topics: 4,
    subscribers: 1,
    groups: 1,
    window: 100,
    ..BASE
};

/// Reading what is there already. Its time is as long as it takes.
pub(super) fn catchup(flags: &CatchupFlags) -> Result<Plan, Failure> {
    let CatchupFlags { messages, size, window, members } = *flags;
    positive(&[
        ("--messages", messages),
        ("--members", members as u64),
        ("--window", window.into()),
    ])?;
    let (duration, warmup) = (Duration::ZERO, Duration::ZERO);
    let messages = Some(messages);
    Ok(Plan {
        name: "catchup",
        size,
        window,
        members,
        groups: 1,
        duration,
        warmup,
        messages,
        ..BASE
    })
}

/// The runs of the tour: every kind, and publishing in its three forms.
pub(super) fn tour(duration: Duration) -> Result<Vec<Plan>, Failure> {
    let warmup = Some(duration / 2);
    let flags = LoadFlags { duration: Some(duration), warmup, ..LoadFlags::default() };
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let messages = TOUR_MESSAGES_PER_MILLI.saturating_mul(millis);
    let backlog = CatchupFlags { messages, size: 100, window: 1000, members: 4 };
    Ok(vec![
        Plan { window: 1, ..PUB }.with(&flags)?,
        Plan { window: 1, connections: 100, ..PUB }.with(&flags)?,
        PUB.with(&flags)?,
        SUB.with(&flags)?,
        GROUP.with(&flags)?,
        LATENCY.with(&flags)?,
        FANOUT.with(&flags)?,
        catchup(&backlog)?,
        MIXED.with(&flags)?,
    ])
}

/// Refuses a zero, and names its flag.
fn positive(flags: &[(&str, u64)]) -> Result<(), Failure> {
    match flags.iter().find(|(_, value)| *value == 0) {
        None => Ok(()),
        Some((flag, _)) => {
            let text = format!("failed to plan the load: {flag} has to be at least 1");
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

impl Plan {
    /// This preset with what the flags say.
    pub(super) fn with(self, flags: &LoadFlags) -> Result<Plan, Failure> {
        let plan = Plan {
            name: self.name,
            connections: flags.connections.unwrap_or(self.connections),
            window: flags.window.unwrap_or(self.window),
            size: flags.size.unwrap_or(self.size),
            rate: flags.rate.or(self.rate),
            duration: flags.duration.unwrap_or(self.duration),
            warmup: flags.warmup.unwrap_or(self.warmup),
            topics: flags.topics.unwrap_or(self.topics),
            subscribers: flags.subscribers.unwrap_or(self.subscribers),
            groups: flags.groups.unwrap_or(self.groups),
            members: flags.members.unwrap_or(self.members),
            backlog: flags.backlog.unwrap_or(self.backlog),
            messages: None,
        };
        flags.have_effect(&plan)?;
        positive(&[
            ("--connections", plan.connections as u64),
            ("--window", plan.window.into()),
            ("--topics", plan.topics as u64),
            ("--members", plan.members as u64),
            ("--backlog", plan.backlog),
        ])?;
        if plan.duration.is_zero() {
            let text = "failed to plan the load: --duration has to be longer than nothing";
            return Err(Failure::new(Exit::Usage, text));
        }
        plan.fits_memory()?;
        Ok(plan)
    }

    /// Refuses more messages than can be made beforehand: a window of them on each connection, and one
    /// at least for each topic.
    fn fits_memory(&self) -> Result<(), Failure> {
        let topics_each = self.topics.div_ceil(self.connections);
        let ring = Ring::bytes(topics_each, self.size + LINE_BYTES, self.window);
        let topics = self.topics.saturating_mul(TOPIC_BYTES);
        if self.connections.saturating_mul(ring).saturating_add(topics) <= MESSAGES_BYTES_MAX {
            return Ok(());
        }
        let text = format!(
            "failed to plan the load: {} topics and {} connections with messages of {} bytes \
             take more than {} of memory",
            self.topics,
            self.connections,
            self.size,
            show_size(MESSAGES_BYTES_MAX as u64),
        );
        Err(Failure::new(Exit::Usage, text).hint(match self.rate {
            Some(_) => "take fewer, or a smaller --size",
            None => "take fewer, or a smaller --size or --window",
        }))
    }

    /// Whether anyone reads what is published.
    pub(super) fn has_consumers(&self) -> bool {
        self.subscribers + self.groups > 0
    }

    /// What the load is made of, without what is as usual.
    pub(super) fn words(&self) -> Vec<String> {
        let count = |n: usize, one: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        let mut words = vec![count(self.connections, "publisher")];
        if let Some(messages) = self.messages {
            words[0] = format!("{messages} messages");
        }
        if self.topics > 1 {
            words.push(count(self.topics, "topic"));
        }
        if self.subscribers > 0 {
            words.push(count(self.subscribers, "subscriber"));
        }
        match self.groups {
            0 => {}
            1 => words.push(format!("group of {}", self.members)),
            n => words.push(format!("{n} groups of {}", self.members)),
        }
        words.push(match self.rate {
            Some(rate) => format!("{rate}/s"),
            None => format!("window {}", self.window),
        });
        words.push(match show_size(self.size as u64) {
            size if size.ends_with('B') => size,
            bytes => format!("{bytes} B"),
        });
        words
    }
}

impl LoadFlags {
    /// Refuses what would be without effect in this plan: the result would not be what was asked for.
    fn have_effect(&self, plan: &Plan) -> Result<(), Failure> {
        let refused = |flag: &str, why: &str, hint: &str| {
            let text = format!("failed to plan the load: {flag} has no effect {why}");
            Err(Failure::new(Exit::Usage, text).hint(hint))
        };
        let held_back =
            [("--window", self.window.is_some()), ("--backlog", self.backlog.is_some())];
        let held_back = held_back.into_iter().find(|(_, is_given)| *is_given);
        if let (Some((flag, _)), Some(_)) = (held_back, plan.rate) {
            let why = "at a fixed rate, which goes on whatever the broker does";
            return refused(
                flag,
                why,
                match self.rate {
                    Some(_) => "leave it out, or --rate",
                    None => "leave it out, or take another kind of run: this one has a fixed rate",
                },
            );
        }
        if self.backlog.is_some() && !plan.has_consumers() {
            let hint = "leave it out, or add --subscribers 1 or --groups 1";
            return refused("--backlog", "where nobody reads", hint);
        }
        if self.members.is_some() && plan.groups == 0 {
            return refused("--members", "without a group", "leave it out, or add --groups 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand messages of 16 KiB are 16 MiB, of which 4 MiB are made beforehand on each connection:
    /// with 1,100 connections they would be more than 4 GiB.
    #[test]
    fn what_is_made_beforehand_counts_with_its_window() {
        let plan = |connections, window| {
            let (connections, window) = (Some(connections), Some(window));
            let flags =
                LoadFlags { connections, window, size: Some(16 << 10), ..Default::default() };
            PUB.with(&flags)
        };
        let refused = format!("{:?}", plan(1_100, 1_000).unwrap_err());
        assert!(refused.contains("1100 connections") && refused.contains("--window"), "{refused}");
        for (connections, window) in [(1_000, 1_000), (1_100, 100), (100_000, 1)] {
            assert!(plan(connections, window).is_ok(), "{connections} of {window}");
        }
    }
}
