//! Clients: publishers that try again, members that acknowledge, stall or fall silent, plain
//! subscribers and readers of history, and connections that are several of these. What they hear goes to
//! the ledger, with what they had to hear.

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

    /// One of this group.
    pub(super) fn member(topic: &'static str, group: &'static str) -> Role {
        Role::Member { topic, group, held: Vec::new(), heard: Moment::default() }
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
    /// To the `SUB` of this part, which was sent when the topic had this end.
    Subscribed {
        part: usize,
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

/// A role, and how far it has come on its connection.
struct Part {
    role: Role,
    /// It has sent its `SUB`.
    is_begun: bool,
    is_subscribed: bool,
}

impl Part {
    /// What it is subscribed to.
    fn subscription(&self) -> Option<&'static str> {
        match &self.role {
            Role::Member { topic, .. } | Role::Follower { topic, .. } => {
                self.is_subscribed.then_some(*topic)
            }
            Role::Publisher { .. } | Role::Historian { .. } => None,
        }
    }
}

/// A client; see the module.
pub(super) struct Client {
    pub(super) name: String,
    /// No two subscribe to the same topic.
    parts: Vec<Part>,
    pub(super) conn: Option<u64>,
    received: Vec<u8>,
    /// With the tag of the command, if it had one.
    expected: VecDeque<(Option<String>, Expected)>,
    tags: u64,
    /// It has said `QUIT`, and says nothing more.
    is_leaving: bool,
    /// Does nothing before.
    idle_until: Moment,
    /// A message of it was answered OK since faults are over.
    is_served: bool,
}

impl Client {
    pub(super) fn new(name: String, roles: Vec<Role>) -> Self {
        let part = |role| Part { role, is_begun: false, is_subscribed: false };
        Self {
            name,
            parts: roles.into_iter().map(part).collect(),
            conn: None,
            received: Vec::new(),
            expected: VecDeque::new(),
            tags: 0,
            is_leaving: false,
            idle_until: Moment::default(),
            is_served: false,
        }
    }

    /// It has a new connection.
    pub(super) fn connected(&mut self, conn: u64, now: Moment) {
        self.conn = Some(conn);
        self.received.clear();
        self.expected = VecDeque::from([(None, Expected::Line("OK connected".to_owned()))]);
        self.is_leaving = false;
        for part in &mut self.parts {
            (part.is_begun, part.is_subscribed) = (false, false);
            if let Role::Member { held, heard, .. } = &mut part.role {
                held.clear();
                *heard = now;
            }
        }
    }

    /// Whether it publishes, among other things or not.
    pub(super) fn publishes(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.role, Role::Publisher { .. }))
    }

    /// Its connection is gone. What it had asked for may have been done or not.
    pub(super) fn disconnected(&mut self) {
        self.conn = None;
        let unanswered = self.expected.drain(..).filter_map(|(_, expected)| match expected {
            Expected::Published { topic, message } => Some((topic, message)),
            _ => None,
        });
        let again = self.parts.iter_mut().find_map(|part| match &mut part.role {
            Role::Publisher { again, .. } => Some(again),
            _ => None,
        });
        if let Some(again) = again {
            again.extend(unanswered);
        }
    }

    /// Whether everything that it asked for is answered, but for heartbeats, which never end. A
    /// publisher asks until it is served: when the disk is well, publishing has to be possible.
    pub(super) fn is_answered(&self) -> bool {
        (self.is_served || !self.publishes())
            && self.expected.iter().all(|(_, expected)| matches!(expected, Expected::Line(_)))
    }

    /// Whether there is something for it that it has not, if it is there to read all.
    pub(super) fn lags(&self, node: &Node) -> bool {
        self.parts.iter().any(|part| {
            let Role::Follower { topic, next } = &part.role else { return false };
            let Extent { first, end, .. } = node.extent(topic);
            // What is no longer kept will not come.
            !part.is_subscribed || *next.end().max(&first) <= end
        })
    }

    /// Does what it feels like; gives the bytes that it sends.
    pub(super) fn act(&mut self, scene: &mut Scene<'_>) -> Vec<u8> {
        if self.is_leaving || scene.now < self.idle_until && !scene.is_calm {
            return Vec::new();
        }
        if scene.rng.random_bool(0.02) {
            self.idle_until = scene.now + Duration::from_millis(scene.rng.random_range(500..9000));
        }
        let at = scene.rng.random_range(0..self.parts.len());
        let mut asked = Vec::new();
        if !std::mem::replace(&mut self.parts[at].is_begun, true) {
            // Now and then it has to wait for the answer.
            let history_of = self.history_of().filter(|_| self.may_ask_history());
            if let Some(topic) = history_of.filter(|_| scene.rng.random_bool(0.3)) {
                asked.push(history(topic, scene));
            }
            asked.extend(self.begin(at, scene.node));
        }
        let asks_history = |(_, asked): &(String, _)| matches!(asked, Expected::History(_));
        if self.expected.len() < WINDOW && !asked.iter().any(asks_history) {
            self.ask(at, scene, &mut asked);
        }
        // Who does more begins anew more often: what it says first is what may go wrong.
        if scene.rng.random_range(0..400) < self.parts.len() && !scene.is_calm {
            self.is_leaving = true;
            asked.push(("QUIT".to_owned(), Expected::Line("OK bye".to_owned())));
        }
        let mut out = String::new();
        for (command, expected) in asked {
            let tag = scene.rng.random_bool(0.2).then(|| {
                self.tags += 1;
                format!("t-{}", self.tags)
            });
            let line = match &tag {
                Some(tag) => format!("@{tag} {command}"),
                None => command,
            };
            scene.trace.line(scene.now, format_args!("{} → {line}", self.name));
            out.push_str(&line);
            out.push('\n');
            self.expected.push_back((tag, expected));
        }
        out.into_bytes()
    }

    /// The first that a part says.
    fn begin(&self, part: usize, node: &Node) -> Option<(String, Expected)> {
        let (topic, group) = match &self.parts[part].role {
            Role::Member { topic, group, .. } => (topic, Some(group)),
            Role::Follower { topic, .. } => (topic, None),
            Role::Publisher { .. } | Role::Historian { .. } => return None,
        };
        let (command, line) = match group {
            Some(group) => {
                let line = format!("OK subscribed {topic} in group {group}");
                (format!("SUB {topic} {group}"), line)
            }
            None => (format!("SUB {topic}"), format!("OK subscribed {topic}")),
        };
        let end = node.extent(topic).end;
        Some((command, Expected::Subscribed { part, line, end }))
    }

    /// What a part says next, and what it expects for it.
    fn ask(&mut self, at: usize, scene: &mut Scene<'_>, out: &mut Vec<(String, Expected)>) {
        let (rng, ledger, name) = (&mut *scene.rng, &mut *scene.ledger, &self.name);
        match &mut self.parts[at].role {
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
                    ledger.send(&message, topic);
                    let command = format!("PUB {topic} {message}");
                    out.push((command, Expected::Published { topic, message }));
                }
            }
            Role::Member { topic, group, held, heard } => {
                let is_due = |held: &Held| held.due.is_some_and(|due| due <= scene.now);
                while let Some(at) = held.iter().position(is_due) {
                    let Held { id, offset, .. } = held.remove(at);
                    let unit = ((*topic).to_owned(), (*group).to_owned(), offset);
                    *ledger.acks_sent.entry(unit.clone()).or_default() += 1;
                    out.push((format!("ACK {id}"), Expected::Acked(unit)));
                }
                if scene.now >= *heard + HEARTBEAT || !out.is_empty() {
                    *heard = scene.now;
                    if out.is_empty() {
                        let answer = Expected::Line("OK heartbeat_received".to_owned());
                        out.push(("HEARTBEAT".to_owned(), answer));
                    }
                }
            }
            Role::Follower { .. } => {}
            Role::Historian { topic } => {
                let topic = *topic;
                if self.may_ask_history() && !scene.is_calm && scene.rng.random_bool(0.2) {
                    out.push(history(topic, scene));
                }
            }
        }
    }

    /// One at a time.
    fn may_ask_history(&self) -> bool {
        !self.expected.iter().any(|(_, asked)| matches!(asked, Expected::History(_)))
    }

    /// The topic of which it reads histories, if it does that.
    fn history_of(&self) -> Option<&'static str> {
        self.parts.iter().find_map(|part| match part.role {
            Role::Historian { topic } => Some(topic),
            _ => None,
        })
    }

    /// Bytes arrived.
    pub(super) fn receive(&mut self, bytes: &[u8], scene: &mut Scene<'_>) {
        self.received.extend_from_slice(bytes);
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            scene.trace.line(scene.now, format_args!("{} ← {line}", self.name));
            let (line, due) = match self.untagged(&line) {
                Ok(line) => (line.to_owned(), self.take(line, scene)),
                Err(due) => (line, due),
            };
            scene.ledger.heard.push(Heard { who: self.name.clone(), line, due });
        }
    }

    /// The line without the tag that an answer has to have now.
    fn untagged<'l>(&self, line: &'l str) -> Result<&'l str, Due> {
        match self.expected.front() {
            Some((Some(tag), _)) if !line.starts_with("MSG ") => {
                let prefix = format!("@{tag} ");
                line.strip_prefix(&prefix).ok_or_else(|| Due::Line(format!("{prefix}…")))
            }
            _ => Ok(line),
        }
    }

    /// Takes a line for what it should be; gives what that is.
    fn take(&mut self, line: &str, scene: &mut Scene<'_>) -> Due {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        if words[0] == "MSG" {
            return self.message(&words, scene);
        }
        if let Some((_, Expected::History(told))) = self.expected.front_mut()
            && words[0] == "HISTORY"
        {
            let last = (told.count > 0).then_some(told.last);
            told.last = offset(&words).unwrap_or_default();
            told.first = if told.count == 0 { told.last } else { told.first };
            told.count += 1;
            return Due::History { topic: told.topic, last };
        }
        let Some((_, expected)) = self.expected.pop_front() else { return Due::Nothing };
        let is = |what: [&str; 2]| words.get(..2) == Some(&what);
        match expected {
            Expected::Line(line) => Due::Line(line),
            Expected::Subscribed { part, line, end } => {
                let part = &mut self.parts[part];
                part.is_subscribed = true;
                if let Role::Follower { topic, next } = &mut part.role {
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
        let is_of = |part: &&mut Part| part.subscription() == words.get(1).copied();
        let Some(part) = self.parts.iter_mut().find(is_of) else { return Due::Nothing };
        match &mut part.role {
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

/// Asks for some of a topic's last messages.
fn history(topic: &'static str, scene: &mut Scene<'_>) -> (String, Expected) {
    let wanted = scene.rng.random_range(0..60);
    let asked = scene.node.extent(topic);
    let told = Told { topic, wanted, asked, count: 0, first: 0, last: 0 };
    (format!("HISTORY {topic} {wanted}"), Expected::History(told))
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
