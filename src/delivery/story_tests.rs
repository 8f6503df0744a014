//! Stories: scripts in the words of the domain, and what comes of them. `UPDATE=1 cargo test`
//! writes what really comes into the files; the difference is for a person to judge.
//!
//! ```text
//! join a credit=1        a member            publish 3       three more messages
//! leave a | silent a     it is gone          ack a 1 | nack a 1 [delay=5s] [dead] [given-back]
//! pass 30s               time passes         hold | commit   changes wait | are committed
//! restart                what is not durable is gone
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::time::{Now, Timestamp};

struct Story {
    group: Group,
    policy: Arc<Policy>,
    now: Now,
    end: u64,
    names: BTreeMap<String, ConnId>,
    pending: Vec<Change>,
    holds: bool,
    told: String,
}

fn policy() -> Policy {
    let seconds = |n| Duration::from_secs(n);
    Policy {
        ack_timeout: seconds(30),
        max_retries: 3,
        backoff: vec![seconds(1), seconds(2), seconds(4)],
        dead_letters: true,
        unsettled_max: 100,
    }
}

fn duration(word: &str) -> Duration {
    match word.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(millis.parse().unwrap()),
        None => Duration::from_secs(word.strip_suffix('s').unwrap().parse().unwrap()),
    }
}

impl Story {
    fn new(policy: Policy) -> Self {
        let policy = Arc::new(policy);
        let progress = Progress::starting_at(Offset::FIRST);
        let now =
            Now { moment: Moment::from_millis(0), wall: Timestamp::from_micros(1_000_000_000) };
        Self {
            group: Group::new(Arc::clone(&policy), progress),
            policy,
            now,
            end: 0,
            names: BTreeMap::new(),
            pending: Vec::new(),
            holds: false,
            told: String::new(),
        }
    }

    fn member(&mut self, name: &str) -> ConnId {
        let next = ConnId(self.names.len() as u64 + 1);
        *self.names.entry(name.to_owned()).or_insert(next)
    }

    fn name(&self, id: ConnId) -> &str {
        self.names.iter().find(|(_, known)| **known == id).unwrap().0
    }

    fn run(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        let option =
            |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let offset = || Offset::new(words[2].parse().unwrap());
        match words[0] {
            "join" => {
                let member = self.member(words[1]);
                let prefetch = option("credit").map_or(5, |n| n.parse().unwrap());
                self.on(Event::Join { member, name: Arc::from(words[1]), prefetch });
            }
            "leave" | "silent" => {
                let member = self.member(words[1]);
                let why = if words[0] == "leave" { Departure::Closed } else { Departure::Silent };
                self.on(Event::Leave { member, why });
            }
            "publish" => {
                self.end += words[1].parse::<u64>().unwrap();
                self.on(Event::LogEnd { end: Offset::new(self.end) });
            }
            "ack" => {
                let member = self.member(words[1]);
                self.on(Event::Ack { member, offset: offset() });
            }
            "nack" => {
                let member = self.member(words[1]);
                self.on(Event::Nack {
                    member,
                    offset: offset(),
                    delay: option("delay").map(duration),
                    reason: option("reason").map(str::to_owned),
                    error: None,
                    counts: !words.contains(&"given-back"),
                    dead: words.contains(&"dead"),
                });
            }
            "pass" => self.pass(duration(words[1])),
            "hold" => self.holds = true,
            "commit" => {
                self.holds = false;
                self.commit();
            }
            "restart" => {
                self.pending.clear();
                let progress = self.group.progress().clone();
                self.group = Group::new(Arc::clone(&self.policy), progress);
                self.on(Event::LogEnd { end: Offset::new(self.end) });
            }
            other => panic!("unknown word {other}"),
        }
    }

    /// Time passes, and the group is woken whenever it wants to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now.moment + time;
        while let Some(at) = self.group.wake_at().filter(|at| *at <= end) {
            let step = at.since(self.now.moment);
            self.now = Now { moment: at, wall: self.now.wall.plus(step) };
            let before = self.group.wake_at();
            self.on(Event::Wake);
            assert_ne!(self.group.wake_at(), before, "a wake makes progress");
        }
        let rest = end.since(self.now.moment);
        self.now = Now { moment: end, wall: self.now.wall.plus(rest) };
    }

    fn on(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.group.on(self.now, event, &mut actions);
        self.group.check();
        for action in actions {
            self.tell(action);
        }
        if !self.holds {
            self.commit();
        }
    }

    fn commit(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            let mut actions = Vec::new();
            self.group.on(self.now, Event::Committed(&change), &mut actions);
            self.group.check();
            for action in actions {
                self.tell(action);
            }
        }
    }

    fn tell(&mut self, action: Action) {
        let at = self.now.moment.as_nanos() / 1_000_000;
        write!(self.told, "{:>3}.{:03}  ", at / 1000, at % 1000).unwrap();
        match action {
            Action::Deliver { member, offset, attempt, of, until } => {
                let left = until.since(self.now.moment);
                let name = self.name(member).to_owned();
                write!(self.told, "→ {name} #{offset} try {attempt}/{of}, within {left:?}")
            }
            Action::Commit(change) => {
                let result = match &change {
                    Change::Settled { offset } => write!(self.told, "commit #{offset} settled"),
                    Change::Failed { offset, attempt } => {
                        let (n, by, why) = (attempt.n, &attempt.consumer, attempt.outcome);
                        write!(self.told, "commit #{offset} attempt {n} by {by}: {why:?}")
                    }
                    Change::DeadLettered { offset, attempt } => {
                        let (n, by, why) = (attempt.n, &attempt.consumer, attempt.outcome);
                        write!(self.told, "commit #{offset} dead letter after {n}, {by}: {why:?}")
                    }
                };
                self.pending.push(change);
                result
            }
            Action::Answer(verdict) => write!(self.told, "answer {verdict:?}"),
            Action::Report(report) => write!(self.told, "report {report:?}"),
        }
        .unwrap();
        self.told.push('\n');
    }
}

/// Runs one file: paragraphs of commands, `---`, and what comes of them.
fn check(name: &str, policy: Policy) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/delivery/stories")
        .join(name)
        .with_extension("story");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut story = Story::new(policy);
    let mut real = String::new();
    for paragraph in text.trim_end().split("\n\n") {
        let (commands, _) = paragraph.split_once("\n---").unwrap_or((paragraph, ""));
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            story.run(line);
        }
        let told = std::mem::take(&mut story.told);
        write!(real, "{commands}\n---\n{told}\n").unwrap();
    }
    let real = format!("{}\n", real.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, real).unwrap();
    } else {
        assert_eq!(real, text, "{name}: run with UPDATE=1 and read the difference");
    }
}

macro_rules! stories {
    ($($name:ident: $policy:expr;)*) => {
        $(#[test] fn $name() { check(stringify!($name), $policy); })*
    };
}

stories! {
    round_robin_and_credit: policy();
    timeouts_retries_and_the_dead_letter: policy();
    acknowledgements: policy();
    nacks: policy();
    members_come_and_go: policy();
    a_restart_keeps_what_is_durable: policy();
    a_group_of_dead_letters_has_none: Policy { dead_letters: false, ..policy() };
    too_many_unsettled: Policy { unsettled_max: 3, ..policy() };
}
