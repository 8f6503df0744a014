//! Golden stories: scripts in the words of the domain, with what the group does about them.
//!
//! Each `stories/*.story` has blocks of commands, `---`, and what they lead to; `UPDATE=1` writes
//! what they lead to anew, to be read as a diff. Changes are committed at once unless the story
//! says `hold`. The commands stand in [`Story::command`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ids::{ConnId, Offset};
use crate::time::{Moment, Now, Timestamp};

macro_rules! stories {
    ($($name:ident)*) => {
        const STORIES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { check(stringify!($name)); })*
    };
}

stories! {
    acknowledging
    credit
    dead_letters
    dead_letters_of_dead_letters
    disconnect
    late_acks
    log_start
    nack
    nobody_there
    one_lease
    paused
    restart
    retry_goes_to_another
    round_robin
    silent_member
    stuck_floor
    timeout
    touch
    unsent
    unsettled_max
}

#[test]
fn every_story_is_told() {
    let mut files: Vec<String> = std::fs::read_dir(path("").parent().unwrap())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, STORIES);
}

fn path(name: &str) -> PathBuf {
    let stories = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/delivery/stories");
    stories.join(format!("{name}.story"))
}

/// Tells the story and compares it with what is written.
fn check(name: &str) {
    let written = std::fs::read_to_string(path(name)).unwrap();
    let mut told = String::new();
    let mut story = Story::new();
    for block in written.split("\n\n").map(|block| block.trim_matches('\n')) {
        let commands = block.split("\n---").next().unwrap();
        story.out.clear();
        for line in commands.lines() {
            writeln!(told, "{line}").unwrap();
            if !line.starts_with('#') {
                story.command(line);
            }
        }
        if commands.lines().any(|line| !line.starts_with('#')) {
            write!(told, "---\n{}", story.out).unwrap();
        }
        told.push('\n');
    }
    let told = format!("{}\n", told.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path(name), &told).unwrap();
    } else {
        assert!(told == written, "{name}.story goes otherwise (UPDATE=1 writes it anew):\n{told}");
    }
}

struct Story {
    group: Group,
    policy: Policy,
    now: Duration,
    /// What the members are called here; names in the group may repeat.
    members: BTreeMap<String, ConnId>,
    /// Whether changes wait for `commit`.
    hold: bool,
    /// How many more messages may be sent to members that read nothing.
    rooms: BTreeMap<ConnId, u32>,
    uncommitted: Vec<Change>,
    out: String,
}

impl Story {
    fn new() -> Story {
        let policy = Policy::default();
        Story {
            group: Group::new(Arc::new(policy.clone()), Progress::starting_at(Offset::FIRST)),
            policy,
            now: Duration::ZERO,
            members: BTreeMap::new(),
            hold: false,
            rooms: BTreeMap::new(),
            uncommitted: Vec::new(),
            out: String::new(),
        }
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let option =
            |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let flag = |name: &str| words.contains(&name);
        let offset = |word: usize| Offset::new(words[word].parse().unwrap());
        let time = |name| option(name).map(duration);
        let credit = || option("credit").map_or(5, |n| n.parse().unwrap());
        match words[0] {
            "policy" => {
                self.set_policy(&words[1..]);
                self.group.set_policy(Arc::new(self.policy.clone()));
            }
            "join" => {
                let next = ConnId(self.members.len() as u64 + 1);
                let member = *self.members.entry(words[1].into()).or_insert(next);
                let name = option("name").unwrap_or(words[1]).into();
                self.event(Event::Join { member, name, prefetch: credit() });
            }
            "credit" => {
                self.event(Event::SetPrefetch { member: self.member(words[1]), prefetch: credit() })
            }
            "full" => {
                let room = option("room").map_or(0, |n| n.parse().unwrap());
                self.rooms.insert(self.member(words[1]), room);
            }
            "drained" => {
                self.rooms.remove(&self.member(words[1]));
                self.event(Event::Resume { member: self.member(words[1]) });
            }
            "close" | "silent" => {
                let why = if words[0] == "close" { Departure::Closed } else { Departure::Silent };
                self.event(Event::Leave { member: self.member(words[1]), why });
            }
            "log" => self.event(Event::LogEnd { end: offset(1) }),
            "start" => self.event(Event::LogStart { first: offset(1) }),
            "ack" => {
                self.event(Event::Ack { member: self.member(words[1]), offset: offset(2) });
            }
            "unsent" => self.group.not_sent(offset(1)),
            "nack" => self.event(Event::Nack {
                member: self.member(words[1]),
                offset: offset(2),
                delay: time("delay"),
                reason: option("reason").map(str::to_owned),
                error: option("error").map(str::to_owned),
                counts: !flag("uncounted"),
                dead: flag("dead"),
            }),
            "touch" => self.event(Event::Touch {
                member: self.member(words[1]),
                offset: offset(2),
                time: time("for"),
            }),
            "wait" => self.wait(duration(words[1])),
            "late" => self.now += duration(words[1]),
            "hold" => self.hold = true,
            "commit" => self.commit(),
            "elsewhere" => self.event(Event::Committed(&Change::Settled { offset: offset(1) })),
            "restart" => self.restart(),
            "show" => self.show(),
            "attempts" => self.attempts(offset(1)),
            word => panic!("there is no command {word}"),
        }
    }

    fn member(&self, name: &str) -> ConnId {
        self.members.get(name).copied().unwrap_or(ConnId(999))
    }

    fn set_policy(&mut self, words: &[&str]) {
        for word in words {
            let (name, value) = word.split_once('=').unwrap();
            match name {
                "ack_timeout" => self.policy.ack_timeout = duration(value),
                "max_retries" => self.policy.max_retries = value.parse().unwrap(),
                "backoff" => self.policy.backoff = value.split(',').map(duration).collect(),
                "dead_letters" => self.policy.dead_letters = value == "yes",
                "unsettled_max" => self.policy.unsettled_max = value.parse().unwrap(),
                _ => panic!("there is no setting {name}"),
            }
        }
    }

    fn event(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        let wall = Timestamp::default().plus(self.now);
        let now = Now { moment: Moment::default() + self.now, wall };
        self.group.on(now, event, &mut actions);
        let rooms = &mut self.rooms;
        while self.group.hand_out(now, |member| rooms.get(&member) != Some(&0), &mut actions) {
            let Some(Action::Deliver { member, .. }) = actions.last() else { unreachable!() };
            rooms.entry(*member).and_modify(|room| *room -= 1);
        }
        self.group.check();
        for action in actions {
            let line = self.action(&action);
            writeln!(self.out, "{line}").unwrap();
            if let Action::Commit(change) = action {
                self.uncommitted.push(change);
            }
        }
        if !self.hold {
            self.commit();
        }
    }

    fn commit(&mut self) {
        for change in std::mem::take(&mut self.uncommitted) {
            self.event(Event::Committed(&change));
        }
    }

    /// Lets time pass, and wakes the group exactly when it asks for it.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.group.wake_at()
            && at <= Moment::default() + end
        {
            self.now = self.now.max(at.since(Moment::default()));
            writeln!(self.out, "at {}:", shown(self.now)).unwrap();
            self.event(Event::Wake);
            let later =
                self.group.wake_at().is_none_or(|at| at.since(Moment::default()) > self.now);
            assert!(later, "a wake handles all that is due");
        }
        self.now = end;
    }

    /// The process is killed: what was not committed is lost, and so are the members.
    fn restart(&mut self) {
        self.uncommitted.clear();
        let stored = serde_json::to_string(self.group.progress()).unwrap();
        let progress: Progress = serde_json::from_str(&stored).unwrap();
        assert_eq!(&progress, self.group.progress());
        self.group = Group::new(Arc::new(self.policy.clone()), progress);
        self.members.clear();
    }

    fn show(&mut self) {
        let progress = serde_json::to_string(self.group.progress()).unwrap();
        let Counts { ready, in_flight, waiting, settling, dying } = self.group.counts();
        writeln!(
            self.out,
            "{progress}\nready={ready} in_flight={in_flight} waiting={waiting} \
             settling={settling} dying={dying}"
        )
        .unwrap();
    }

    fn attempts(&mut self, offset: Offset) {
        for attempt in self.group.attempts(offset) {
            writeln!(self.out, "{}", serde_json::to_string(attempt).unwrap()).unwrap();
        }
    }

    fn label(&self, id: ConnId) -> &str {
        let label = self.members.iter().find(|(_, member)| **member == id);
        label.map_or("?", |(label, _)| label)
    }

    fn action(&self, action: &Action) -> String {
        match action {
            Action::Deliver { member, offset, attempt, of, until } => {
                let until = shown(until.since(Moment::default()));
                format!("→ {} #{offset} attempt={attempt}/{of} until={until}", self.label(*member))
            }
            Action::Commit(Change::Settled { offset }) => format!("commit settled #{offset}"),
            Action::Commit(Change::Failed { offset, attempt }) => {
                format!("commit failed #{offset} {}", attempted(attempt))
            }
            Action::Commit(Change::DeadLettered { offset, attempt }) => {
                format!("commit dead letter #{offset} {}", attempted(attempt))
            }
            Action::Answer(verdict) => format!("answer {}", answered(*verdict)),
            Action::Report(report) => format!("log {}", reported(report)),
        }
    }
}

fn attempted(attempt: &Attempt) -> String {
    let since = |at: Timestamp| shown(Duration::from_micros(at.as_micros()));
    let mut text = format!(
        "attempt {} of {} {}-{} {:?}",
        attempt.n,
        attempt.consumer,
        since(attempt.sent),
        since(attempt.ended),
        attempt.outcome
    );
    for (name, value) in [("reason", &attempt.reason), ("error", &attempt.error)] {
        if let Some(value) = value {
            write!(text, " {name}={value}").unwrap();
        }
    }
    if attempt.uncounted { text + " uncounted" } else { text }
}

fn answered(verdict: Verdict) -> String {
    match verdict {
        Verdict::Acked { late: false } => "acked".into(),
        Verdict::Acked { late: true } => "acked late".into(),
        Verdict::Nacked { retry, of, delay } => {
            format!("nacked retry={retry}/{of} in={}", shown(delay))
        }
        Verdict::DeadLettering => "dead-lettering".into(),
        Verdict::GaveUp => "gave up".into(),
        Verdict::Touched { until } => format!("touched {}", shown(until.since(Moment::default()))),
        Verdict::NotPending => "not pending".into(),
    }
}

fn reported(report: &Report) -> String {
    match report {
        Report::Joined { name, prefetch, .. } => format!("{name} joined credit={prefetch}"),
        Report::Left { name, held, .. } => format!("{name} left with {held}"),
        Report::Dead { name, held, .. } => format!("{name} is dead with {held}"),
        Report::Paused { name, .. } => format!("{name} is paused"),
        Report::Resumed { name, .. } => format!("{name} goes on"),
        Report::Redistributed { offset, from, to } => format!("#{offset} goes from {from} to {to}"),
        Report::Retry { offset, name, outcome, retry, of, delay } => {
            let delay = shown(*delay);
            format!("#{offset} of {name}: {outcome:?}, retry {retry}/{of} in {delay}")
        }
        Report::DeadLettering { offset, name, outcome, attempts } => {
            format!("#{offset} of {name}: {outcome:?}, dead letter after {attempts}")
        }
        Report::GaveUp { offset, name, outcome, attempts } => {
            format!("#{offset} of {name}: {outcome:?}, given up after {attempts}")
        }
        Report::LateAck { offset, holder, .. } => {
            format!("#{offset} late, held by {}", holder.as_deref().unwrap_or("nobody"))
        }
    }
}

fn shown(time: Duration) -> String {
    format!("{time:?}")
}

fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = digits.parse().unwrap();
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        "h" => Duration::from_secs(3600 * number),
        unit => panic!("there is no unit {unit}"),
    }
}
