//! Clients: publishers that try again, members that acknowledge, stall or fall silent, plain
//! subscribers and readers of history. What they hear goes to the ledger, with what they had to hear.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::time::Moment;

use super::ledger::{Due, Extent, Heard, Ledger, Place, Told, Unit};
use super::node::Node;
use super::trace::Trace;

/// How often a member lets the broker hear of it.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Most commands that a client has unanswered.
const WINDOW: usize = 12;

/// What is at hand while a client does something.
pub(super) struct Scene<'a> {
    pub(super) rng: &'a mut StdRng,
    pub(super) now: Moment,
    /// To see how far topics reach.
    pub(super) node: &'a Node,
    pub(super) ledger: &'a mut Ledger,
    pub(super) trace: &'a mut Trace,
    /// Faults are over: everybody does what is asked.
    pub(super) is_calm: bool,
}

/// What a client is there for.
pub(super) enum Role {
    /// `again` holds the messages whose answer a broken connection took away.
    Publisher {
        topics: Vec<&'static str>,
        count: u64,
        again: VecDeque<(&'static str, String)>,
    },
    Member {
        topic: &'static str,
        group: &'static str,
        held: Vec<Held>,
        heard: Moment,
    },
    Follower {
        topic: &'static str,
        /// What the offset of its next message may be, when it is subscribed.
        next: RangeInclusive<u64>,
    },
    Historian {
        topic: &'static str,
    },
}

impl Role {
    /// Reads all that comes.
    pub(super) fn follower(topic: &'static str) -> Role {
        Role::Follower { topic, next: 0..=0 }
    }

    /// Publishes to these topics.
    pub(super) fn publisher(topics: Vec<&'static str>) -> Role {
        Role::Publisher { topics, count: 0, again: VecDeque::new() }
    }
}

/// A message that a member has, and when it will acknowledge it.
pub(super) struct Held {
    id: String,
    offset: u64,
    due: Option<Moment>,
}

/// An answer that must come.
enum Expected {
    Line(String),
    /// To `SUB`, which was sent when the topic had this end.
    Subscribed {
        line: String,
        end: u64,
    },
    Published {
        topic: &'static str,
        message: String,
    },
    Acked(Unit),
    History(Told),
}

/// A client; see the module.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) conn: Option<u64>,
    is_begun: bool,
    is_subscribed: bool,
    received: Vec<u8>,
    expected: VecDeque<Expected>,
    /// Does nothing before.
    idle_until: Moment,
    /// A message of it was answered OK since faults are over.
    is_served: bool,
}

impl Client {
    pub(super) fn new(name: String, role: Role) -> Self {
        Self {
            name,
            role,
            conn: None,
            is_begun: false,
            is_subscribed: false,
            received: Vec::new(),
            expected: VecDeque::new(),
            idle_until: Moment::default(),
            is_served: false,
        }
    }

    /// It has a new connection.
    pub(super) fn connected(&mut self, conn: u64, now: Moment) {
        self.conn = Some(conn);
        self.is_begun = false;
        self.is_subscribed = false;
        self.received.clear();
        self.expected = VecDeque::from([Expected::Line("OK connected".to_owned())]);
        match &mut self.role {
            Role::Member { held, heard, .. } => {
                held.clear();
                *heard = now;
            }
            Role::Follower { .. } | Role::Publisher { .. } | Role::Historian { .. } => {}
        }
    }

    /// Its connection is gone. What it had asked for may have been done or not.
    pub(super) fn disconnected(&mut self) {
        self.conn = None;
        for expected in self.expected.drain(..) {
            if let (Role::Publisher { again, .. }, Expected::Published { topic, message }) =
                (&mut self.role, expected)
            {
                again.push_back((topic, message));
            }
        }
    }

    /// Whether everything that it asked for is answered, but for heartbeats, which never end. A
    /// publisher asks until it is served: when the disk is well, publishing has to be possible.
    pub(super) fn is_answered(&self) -> bool {
        let is_publisher = matches!(self.role, Role::Publisher { .. });
        (self.is_served || !is_publisher)
            && self.expected.iter().all(|expected| matches!(expected, Expected::Line(_)))
    }

    /// Whether there is something for it that it has not, if it is there to read all.
    pub(super) fn lags(&self, node: &Node) -> bool {
        let Role::Follower { topic, next } = &self.role else { return false };
        let Extent { first, end, .. } = node.extent(topic);
        // What is no longer kept will not come.
        !self.is_subscribed || *next.end().max(&first) <= end
    }

    /// Does what it feels like; gives the bytes that it sends.
    pub(super) fn act(&mut self, scene: &mut Scene<'_>) -> Vec<u8> {
        let mut out = String::new();
        if scene.now < self.idle_until && !scene.is_calm {
            return Vec::new();
        }
        if scene.rng.random_bool(0.02) {
            self.idle_until = scene.now + Duration::from_millis(scene.rng.random_range(500..9000));
        }
        if !std::mem::replace(&mut self.is_begun, true) {
            self.begin(scene.node, &mut out);
        }
        if self.expected.len() < WINDOW {
            self.ask(scene, &mut out);
        }
        for line in out.lines() {
            scene.trace.line(scene.now, format_args!("{} → {line}", self.name));
        }
        out.into_bytes()
    }

    fn begin(&mut self, node: &Node, out: &mut String) {
        match &self.role {
            Role::Member { topic, group, .. } => {
                out.push_str(&format!("SUB {topic} {group}\n"));
                let line = format!("OK subscribed {topic} in group {group}");
                let end = node.extent(topic).end;
                self.expected.push_back(Expected::Subscribed { line, end });
            }
            Role::Follower { topic, .. } => {
                out.push_str(&format!("SUB {topic}\n"));
                let (line, end) = (format!("OK subscribed {topic}"), node.extent(topic).end);
                self.expected.push_back(Expected::Subscribed { line, end });
            }
            Role::Publisher { .. } | Role::Historian { .. } => {}
        }
    }

    fn ask(&mut self, scene: &mut Scene<'_>, out: &mut String) {
        let (rng, ledger, name) = (&mut *scene.rng, &mut *scene.ledger, &self.name);
        match &mut self.role {
            Role::Publisher { .. }
                if scene.is_calm && (self.is_served || !self.expected.is_empty()) => {}
            Role::Publisher { topics, count, again } => {
                for _ in 0..if scene.is_calm { 1 } else { rng.random_range(1..6) } {
                    // Some send again what may or may not be stored, others give it up.
                    let repeated = again.pop_front().filter(|_| rng.random_bool(0.6));
                    let (topic, message) = repeated.unwrap_or_else(|| {
                        *count += 1;
                        let topic = topics[rng.random_range(0..topics.len())];
                        (topic, text(name, *count, rng))
                    });
                    out.push_str(&format!("PUB {topic} {message}\n"));
                    ledger.send(&message, topic);
                    self.expected.push_back(Expected::Published { topic, message });
                }
            }
            Role::Member { topic, group, held, heard } => {
                let is_due = |held: &Held| held.due.is_some_and(|due| due <= scene.now);
                while let Some(at) = held.iter().position(is_due) {
                    let Held { id, offset, .. } = held.remove(at);
                    out.push_str(&format!("ACK {id}\n"));
                    let unit = ((*topic).to_owned(), (*group).to_owned(), offset);
                    *ledger.acks_sent.entry(unit.clone()).or_default() += 1;
                    self.expected.push_back(Expected::Acked(unit));
                }
                if scene.now >= *heard + HEARTBEAT || !out.is_empty() {
                    *heard = scene.now;
                    if out.is_empty() {
                        out.push_str("HEARTBEAT\n");
                        let answer = "OK heartbeat_received".to_owned();
                        self.expected.push_back(Expected::Line(answer));
                    }
                }
            }
            Role::Follower { .. } => {}
            Role::Historian { topic } => {
                if self.expected.is_empty() && !scene.is_calm && rng.random_bool(0.2) {
                    let wanted = rng.random_range(0..60);
                    out.push_str(&format!("HISTORY {topic} {wanted}\n"));
                    let asked = scene.node.extent(topic);
                    let told = Told { topic, wanted, asked, count: 0, first: 0, last: 0 };
                    self.expected.push_back(Expected::History(told));
                }
            }
        }
    }

    /// Bytes arrived.
    pub(super) fn receive(&mut self, bytes: &[u8], scene: &mut Scene<'_>) {
        self.received.extend_from_slice(bytes);
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            scene.trace.line(scene.now, format_args!("{} ← {line}", self.name));
            let due = self.take(&line, scene);
            scene.ledger.heard.push(Heard { who: self.name.clone(), line, due });
        }
    }

    /// Takes a line for what it should be; gives what that is.
    fn take(&mut self, line: &str, scene: &mut Scene<'_>) -> Due {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        if words[0] == "MSG" {
            return self.message(&words, scene);
        }
        if let Some(Expected::History(told)) = self.expected.front_mut()
            && words[0] == "HISTORY"
        {
            let last = (told.count > 0).then_some(told.last);
            told.last = offset(&words).unwrap_or_default();
            told.first = if told.count == 0 { told.last } else { told.first };
            told.count += 1;
            return Due::History { topic: told.topic, last };
        }
        let Some(expected) = self.expected.pop_front() else { return Due::Nothing };
        let is = |what: [&str; 2]| words.get(..2) == Some(&what);
        match expected {
            Expected::Line(line) => Due::Line(line),
            Expected::Subscribed { line, end } => {
                self.is_subscribed = true;
                if let Role::Follower { topic, next } = &mut self.role {
                    *next = end + 1..=scene.node.extent(topic).end + 1;
                }
                Due::Line(line)
            }
            Expected::History(told) => Due::HistoryEnd(told),
            Expected::Published { topic, message } => {
                if let (true, Some(offset)) = (is(["OK", "published"]), offset(&words)) {
                    let place = Place { topic: topic.to_owned(), id: words[2].to_owned(), offset };
                    self.is_served |= scene.is_calm;
                    scene.ledger.publish(&message, place, scene.now);
                } else if is(["ERR", "DISK_FULL"]) {
                    scene.ledger.refuse(&message);
                }
                Due::Published(topic)
            }
            Expected::Acked(unit) => {
                if is(["OK", "ack_received"]) {
                    scene.ledger.ack(unit.clone(), scene.now);
                }
                Due::Acked(unit)
            }
        }
    }

    fn message(&mut self, words: &[&str], scene: &mut Scene<'_>) -> Due {
        match &mut self.role {
            _ if !self.is_subscribed => Due::Nothing,
            Role::Follower { topic, next } => {
                let due = Due::Follow { topic, next: next.clone() };
                if let Some(offset) = offset(words) {
                    *next = offset + 1..=offset + 1;
                }
                due
            }
            Role::Member { topic, held, .. } => {
                let delay = match scene.rng.random_range(0..100) {
                    _ if scene.is_calm => Some(0),
                    0..60 => Some(scene.rng.random_range(0..1500)),
                    60..85 => None,
                    _ => Some(scene.rng.random_range(3000..6000)),
                };
                let due = delay.map(|delay| scene.now + Duration::from_millis(delay));
                if let Some(offset) = offset(words) {
                    held.push(Held { id: words[2].to_owned(), offset, due });
                }
                Due::Deliver { topic }
            }
            Role::Publisher { .. } | Role::Historian { .. } => Due::Nothing,
        }
    }
}

/// A message that was never sent before.
fn text(name: &str, count: u64, rng: &mut StdRng) -> String {
    let filling = ["", " ", "\"quoted\"", "höher", "\\", "\u{7}"];
    let filling = filling[rng.random_range(0..filling.len())];
    let length = rng.random_range(0..150);
    format!("{name}-{count}-{filling}{}", "x".repeat(length))
}

/// The offset, which is the fourth word of all lines that have one.
pub(super) fn offset(words: &[&str]) -> Option<u64> {
    words.get(3)?.parse().ok()
}
