//! Everything that there is in a run, and its steps.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::broker::fatal::Fatal;
use crate::check::{self, Finding, Level};
use crate::disk::Disk;
use crate::disk::sim::{Crash, SimDisk};
use crate::time::{Moment, Now, Timestamp};

use super::client::{Client, Role, Scene};
use super::journal::Journal;
use super::ledger::Ledger;
use super::loss::{Ended, Loss, SYNC_TIME};
use super::node::{DIR, Node, Plan};
use super::oracle::{Oracles, View};
use super::records::Records;
use super::rot;
use super::trace::Trace;

/// What an oracle saw: its name, and what.
pub(super) type Seen = (&'static str, String);

/// The bytes on their way between a client and the daemon.
struct Link {
    client: usize,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    /// The daemon has closed it.
    is_over: bool,
}

/// See the module.
pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) plan: Plan,
    pub(super) now: Now,
    pub(super) disk: SimDisk,
    pub(super) node: Option<Node>,
    /// With no daemon: when it is started again.
    restart_at: Moment,
    links: BTreeMap<u64, Link>,
    next_conn: u64,
    clients: Vec<Client>,
    pub(super) ledger: Ledger,
    pub(super) records: Records,
    pub(super) journal: Journal,
    pub(super) oracles: Oracles,
    pub(super) trace: Trace,
    pub(super) is_calm: bool,
    /// The disk did something in this life of the daemon for which it may end, now or later.
    pub(super) is_broken: bool,
    /// When a full disk has room again.
    pub(super) heal_at: Option<Moment>,
    is_fresh: bool,
    /// A shard had a turn since the oracles looked.
    has_moved: bool,
    /// How the daemon ended; `None` once it has started again and the oracles have looked.
    ended: Option<Ended>,
    pub(super) lives: u64,
    pub(super) checkpoints: u64,
}

impl World {
    pub(super) fn new(seed: u64, is_printed: bool) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let wall = Timestamp::from_micros(1_700_000_000_000_000);
        let clients = cast(&mut rng);
        let plan = Plan::draw(seed, &mut rng);
        let mut world = World {
            rng,
            plan,
            now: Now { moment: Moment::from_millis(1000), wall },
            disk: SimDisk::new(),
            node: None,
            restart_at: Moment::default(),
            links: BTreeMap::new(),
            next_conn: 1,
            clients,
            ledger: Ledger::default(),
            records: Records::default(),
            journal: Journal::default(),
            oracles: Oracles::default(),
            trace: Trace::new(is_printed),
            is_calm: false,
            is_broken: false,
            heal_at: None,
            is_fresh: false,
            has_moved: false,
            ended: None,
            lives: 0,
            checkpoints: 0,
        };
        world.note(format_args!("{plan:?}"));
        world
    }

    /// One step: a little time, somebody's turn, and a look at everything.
    pub(super) fn step(&mut self) -> Result<(), Seen> {
        self.pass_time();
        let turn = match self.sync_that_is_due() {
            Ok(()) => self.turn(),
            failed => failed,
        };
        self.note_hits();
        if let Err(error) = &turn {
            self.note(format_args!("the daemon ends: {error}"));
            if !self.is_broken && !self.disk.is_off() {
                return Err(("no fault", error.to_string()));
            }
        }
        if self.disk.is_off() {
            let seed = self.rng.random();
            self.die(Crash::Random { seed });
        } else if turn.is_err() {
            self.die(Crash::KeepAll);
        }
        self.start_if_due()?;
        self.look()
    }

    /// Somebody's turn.
    fn turn(&mut self) -> Result<(), Fatal> {
        match self.rng.random_range(0..1000) {
            0..400 => {
                self.client_turn();
                Ok(())
            }
            400..600 => self.session_turn(),
            600..760 => {
                self.has_moved = true;
                self.node_turn(|node, draw, now| {
                    node.shard_turn(draw % node.shards(), now).map(|()| false)
                })
            }
            760..900 => self.log_turn(),
            900..970 => {
                // It asks the shards for their state.
                self.has_moved = true;
                self.node_turn(|node, _, now| node.keeper_turn(now))
            }
            970..998 => self.node_turn(|node, _, _| {
                node.spare_turn();
                Ok(false)
            }),
            _ if self.is_calm => Ok(()),
            _ => {
                self.chaos();
                Ok(())
            }
        }
    }

    fn log_turn(&mut self) -> Result<(), Fatal> {
        let Some(node) = &mut self.node else { return Ok(()) };
        node.log_turn(self.now, &mut self.journal)
    }

    /// The log's thread sleeps no longer than until a sync is due, and does it soon.
    fn sync_that_is_due(&mut self) -> Result<(), Fatal> {
        let sync_at = self.node.as_ref().and_then(Node::sync_at);
        let is_late = sync_at.is_some_and(|at| at + SYNC_TIME <= self.now.moment);
        if is_late { self.log_turn() } else { Ok(()) }
    }

    fn pass_time(&mut self) {
        let micros = match self.rng.random_range(0..400) {
            0 => self.rng.random_range(100_000..1_000_000),
            _ => self.rng.random_range(0..3_000),
        };
        let mut time = Duration::from_micros(micros);
        if let Some(at) = self.node.as_ref().and_then(Node::sync_at) {
            time = time.min((at + SYNC_TIME).since(self.now.moment));
        }
        self.now = Now { moment: self.now.moment + time, wall: self.now.wall.plus(time) };
        if self.heal_at.is_some_and(|at| at <= self.now.moment) {
            self.heal();
        }
    }

    /// The disk has no more faults, and room.
    pub(super) fn heal(&mut self) {
        self.disk.heal();
        self.disk.set_space(crate::disk::Space { free: 1 << 40, total: 1 << 40 });
        self.heal_at = None;
        self.note(format_args!("the disk is well"));
    }

    /// Adds a line to the trace.
    pub(super) fn note(&mut self, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.now.moment, text);
    }

    fn node_turn(
        &mut self,
        turn: impl FnOnce(&mut Node, usize, Now) -> Result<bool, Fatal>,
    ) -> Result<(), Fatal> {
        let draw = self.rng.random_range(0..64);
        let Some(node) = &mut self.node else { return Ok(()) };
        if turn(node, draw, self.now)? {
            self.checkpoints += 1;
            self.note(format_args!("a checkpoint is made"));
        }
        Ok(())
    }

    /// A client connects, reads what arrived, or does something.
    fn client_turn(&mut self) {
        // Those that do nothing else come first.
        let publishers = self.clients.iter().take_while(|client| client.publishes()).count();
        let is_busy = self.rng.random_bool(0.3);
        let at = self.rng.random_range(0..if is_busy { publishers } else { self.clients.len() });
        let Some(node) = &mut self.node else { return };
        let Some(conn) = self.clients[at].conn else {
            let conn = self.next_conn;
            self.next_conn += 1;
            node.connect(conn, self.now.moment);
            self.clients[at].connected(conn, self.now.moment);
            let (up, down) = (VecDeque::new(), VecDeque::new());
            self.links.insert(conn, Link { client: at, up, down, is_over: false });
            let name = self.clients[at].name.clone();
            self.note(format_args!("{name} connects as c{conn}"));
            return;
        };
        let link = self.links.get_mut(&conn).expect("a connected client has a link");
        let mut scene = Scene {
            rng: &mut self.rng,
            now: self.now.moment,
            node,
            ledger: &mut self.ledger,
            trace: &mut self.trace,
            is_calm: self.is_calm,
        };
        let client = &mut self.clients[at];
        if link.down.is_empty() || scene.rng.random_bool(0.3) {
            link.up.extend(client.act(&mut scene));
        } else {
            let count = scene.rng.random_range(1..=link.down.len().min(2000));
            let bytes: Vec<u8> = link.down.drain(..count).collect();
            client.receive(&bytes, &mut scene);
        }
        if link.is_over && link.down.is_empty() {
            self.cut(conn);
        }
    }

    /// A session reads some of what was sent to it, and writes.
    fn session_turn(&mut self) -> Result<(), Fatal> {
        let Some(node) = &mut self.node else { return Ok(()) };
        if self.links.is_empty() {
            return Ok(());
        }
        // Most often one to which something was sent.
        let is_busy = |(_, link): &(&u64, &Link)| !link.up.is_empty();
        let busy = self.links.iter().filter(is_busy).count();
        let (at, only_busy) = if busy > 0 && self.rng.random_bool(0.5) {
            (self.rng.random_range(0..busy), true)
        } else {
            (self.rng.random_range(0..self.links.len()), false)
        };
        let chosen = |link: &&mut Link| !only_busy || !link.up.is_empty();
        let mut links = self.links.iter_mut().filter(|(_, link)| chosen(link));
        let (conn, link) = links.nth(at).expect("it was counted");
        let count = self.rng.random_range(0..=link.up.len());
        let input: Vec<u8> = link.up.drain(..count).collect();
        // A client that reads slowly makes the daemon wait.
        let room = 4096_usize.saturating_sub(link.down.len());
        let sent = node.session_turn(*conn, self.now, &input, room);
        link.down.extend(sent.bytes);
        link.is_over |= sent.is_finished;
        Ok(())
    }

    /// Cuts a connection; what was on its way is lost.
    pub(super) fn cut(&mut self, conn: u64) {
        let Some(link) = self.links.remove(&conn) else { return };
        let client = &mut self.clients[link.client];
        client.disconnected();
        let name = client.name.clone();
        if let Some(node) = &mut self.node {
            node.disconnect(conn);
        }
        self.note(format_args!("{name} is cut off"));
    }

    /// Some connection.
    pub(super) fn any_link(&mut self) -> Option<u64> {
        let count = self.links.len();
        let at = (count > 0).then(|| self.rng.random_range(0..count))?;
        self.links.keys().nth(at).copied()
    }

    /// The daemon ends at once, and with it all connections. If only the process died, the disk still
    /// has all of it, but nothing more is durable than was.
    pub(super) fn die(&mut self, how: Crash) {
        self.note(format_args!("the daemon is gone: {how:?}"));
        let (at, last) = (self.now.moment, self.journal.last());
        let fsync = self.plan.fsync;
        let ended = self.ended.get_or_insert(Ended { at, fsync, is_cut: false, last });
        if let Some(node) = self.node.take() {
            ended.last = node.last_written();
        }
        self.links.clear();
        self.clients.iter_mut().for_each(Client::disconnected);
        self.records.begin_life();
        if how == Crash::KeepAll {
            self.disk.heal();
        } else {
            ended.is_cut = true;
            self.disk = self.disk.crash(how);
        }
        self.disk.take_hits();
        self.is_broken = false;
        self.restart_at = self.now.moment + Duration::from_millis(self.rng.random_range(0..2000));
        if self.rng.random_bool(0.2) {
            // The clock is set back.
            let back = self.rng.random_range(0..60_000_000);
            self.now.wall = Timestamp::from_micros(self.now.wall.as_micros() - back);
        }
    }

    fn start_if_due(&mut self) -> Result<(), Seen> {
        if self.node.is_some() || self.now.moment < self.restart_at {
            return Ok(());
        }
        let left = (self.lives > 0).then(|| self.disk.copy(Crash::KeepAll));
        let is_to_rot = left.is_some() && self.rng.random_bool(0.3);
        match self.rng.random_range(0..100) {
            _ if self.is_calm => {}
            // The power may go again while the daemon recovers.
            0..10 => self.disk.cut_power_after(self.rng.random_range(0..30)),
            10..15 => self.fail_soon(),
            _ => {}
        }
        if left.is_some() && self.rng.random_bool(0.2) {
            self.plan.change(&mut self.rng);
            let plan = self.plan;
            self.note(format_args!("{plan:?}"));
        }
        let started = Node::start(&self.disk, self.plan, self.now);
        let is_refused = self.note_hits();
        match started {
            Ok((node, found)) => {
                self.is_fresh = true;
                self.lives += 1;
                self.note(format_args!("the daemon starts: {found:?}"));
                self.journal.cut(node.last_written());
                if let Some(loss) = self.ended.and_then(Loss::of) {
                    self.forgive(&node, &loss);
                }
                self.node = Some(node);
                self.look()?;
                let Some(left) = left else { return Ok(()) };
                is_whole(&left)?;
                if is_to_rot { rot::check(self, &left) } else { Ok(()) }
            }
            Err(error) if self.disk.is_off() => {
                self.note(format_args!("no start: {error}"));
                let seed = self.rng.random();
                self.die(Crash::Random { seed });
                Ok(())
            }
            Err(error) if is_refused && !error.is_damage() => {
                self.note(format_args!("no start: {error}"));
                self.die(Crash::KeepAll);
                Ok(())
            }
            Err(error) => Err(("recovery", error.to_string())),
        }
    }

    /// Asks the oracles.
    pub(super) fn look(&mut self) -> Result<(), Seen> {
        let Some(node) = &self.node else { return Ok(()) };
        if self.disk.is_off() {
            return Ok(());
        }
        let is_fresh = std::mem::take(&mut self.is_fresh);
        let has_moved = std::mem::take(&mut self.has_moved) || is_fresh;
        if has_moved {
            self.disk.set_unwatched(true);
            self.records.follow(node);
            self.disk.set_unwatched(false);
        }
        let view = View {
            now: self.now,
            node,
            ledger: &self.ledger,
            records: &self.records,
            journal: &self.journal,
            is_fresh,
            has_moved,
            ended: self.ended.take(),
        };
        self.oracles.check(&view)?;
        self.records.looked();
        self.ledger.fresh_published.clear();
        self.ledger.fresh_acked.clear();
        self.ledger.heard.clear();
        Ok(())
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_complete(&self) -> Result<(), String> {
        let node = self.node.as_ref().ok_or("the daemon is not there")?;
        self.oracles.is_complete(node)?;
        if let Some(client) = self.clients.iter().find(|client| !client.is_answered()) {
            return Err(format!("{} waits for an answer", client.name));
        }
        match self.clients.iter().find(|client| client.lags(node)) {
            Some(client) => Err(format!("{} waits for messages", client.name)),
            None => Ok(()),
        }
    }

    /// The last look, with what takes long.
    pub(super) fn look_closely(&mut self) -> Result<(), Seen> {
        self.is_fresh = true;
        self.look()
    }

    /// Stops the daemon in order; afterwards the power goes, and the next start finds all.
    pub(super) fn stop_in_order(&mut self) -> Result<(), Seen> {
        let Some(node) = self.node.take() else { return Ok(()) };
        node.stop(self.now, &mut self.journal).map_err(|error| ("stop", error.to_string()))?;
        self.die(Crash::LoseUnsynced);
        // Nothing at all may be lost.
        let (at, fsync) = (self.now.moment, self.plan.fsync);
        let ended = Ended { at, fsync, is_cut: false, last: self.journal.last() };
        self.ended = Some(ended);
        let started = Node::start(&self.disk, self.plan, self.now);
        let (node, found) = started.map_err(|error| ("recovery", error.to_string()))?;
        if found != crate::broker::open::Found::Clean {
            return Err(("stop", format!("after a stop in order the start finds {found:?}")));
        }
        self.node = Some(node);
        self.look_closely()
    }
}

/// Who takes part.
fn cast(rng: &mut StdRng) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut add = |kind: &str, roles| {
        let name = format!("{kind}{}", clients.len());
        clients.push(Client::new(name, roles));
    };
    for _ in 0..rng.random_range(1..4) {
        add("pub", vec![Role::publisher(vec!["a", "b", "c"])]);
    }
    let groups = [("a", "g"), ("a", "h"), ("b", "g"), ("a.dlq", "d")];
    for (topic, group) in groups {
        for _ in 0..rng.random_range(1..4) {
            add("member", vec![Role::member(topic, group)]);
        }
    }
    add("sub", vec![Role::follower("a")]);
    add("sub", vec![Role::follower("c")]);
    add("hist", vec![Role::Historian { topic: "b" }]);
    // One connection for all of it.
    let roles = [
        Role::member("a", "h"),
        Role::member("b", "g"),
        Role::follower("c"),
        Role::Historian { topic: "b" },
        Role::publisher(vec!["b", "c"]),
    ];
    let mut roles = Vec::from(roles);
    while roles.len() > 1 && rng.random_bool(0.3) {
        roles.swap_remove(rng.random_range(0..roles.len()));
    }
    add("all", roles);
    let topics = [Role::Historian { topic: "a" }, Role::follower("b"), Role::follower("c")];
    add("reader", Vec::from(topics));
    clients
}

/// What a daemon leaves, however it ends, is no damage to `wiber check`.
fn is_whole(left: &SimDisk) -> Result<(), Seen> {
    let left: Arc<dyn Disk> = Arc::new(left.clone());
    let report = check::check(&left, Path::new(DIR), &mut |_, _| {});
    let report = report.map_err(|error| ("check", error.to_string()))?;
    match report.findings.iter().find(|finding| finding.level == Level::Damage) {
        None => Ok(()),
        Some(Finding { file, byte, what, .. }) => {
            Err(("check", format!("{} at {byte:?}: {what}", file.display())))
        }
    }
}
