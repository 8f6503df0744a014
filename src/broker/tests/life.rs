//! A broker in one thread, on a simulated disk, with a ledger of what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::checkpoint::Taking;
use super::super::commit::LogWriter;
use super::super::gate::PublishGate;
use super::super::keeper::Checkpoints;
use super::super::letter::{Item, Letter, Piece, Span};
use super::super::message::Submission;
use super::super::open::{self, Found, OpenError};
use super::super::outbox::Outbox;
use super::super::retention::Retaining;
use super::super::settings::Settings;
use super::super::shard::{ALL_TOPICS, Shard};
use crate::config::{Fsync, MinFree};
use crate::delivery::Policy;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::ids::{ConnId, DerivedId, GroupName, Offset, TopicName};
use crate::log::{LogSettings, Reader, Retention, TailBudget, scan};
use crate::time::{Moment, Now, Timestamp};
use crate::topic::Topic;
use crate::wal::{self, Lsn};

const DIR: &str = "/srv/data";
pub(super) const SHARDS: u32 = 2;
const MAX_RETRIES: u32 = 1;

/// When somebody asks for it: no more than has to be kept.
const RETENTION: Retention = Retention { age: Some(Duration::from_secs(20)), bytes: Some(0) };

pub(super) fn settings() -> Settings {
    Settings {
        data_dir: PathBuf::from(DIR),
        shards: SHARDS,
        node_seed: 7,
        wal_secret: 8,
        fsync: Fsync::Always,
        wal: wal::Settings { segment_bytes: 8192 },
        log: LogSettings { segment_bytes: 1500 },
        checkpoint_bytes: 0,
        checkpoint_interval: Duration::ZERO,
        retention: Retention::default(),
        min_free: MinFree::Auto,
        policy: Policy {
            ack_timeout: Duration::from_secs(10),
            max_retries: MAX_RETRIES,
            backoff: vec![Duration::from_secs(1)],
            dead_letters: true,
            unsettled_max: 1000,
        },
        prefetch: 4,
        open_logs_max: 1,
        topics_written_max: 1,
        tail: Arc::new(TailBudget::new(1 << 20)),
        gate: Arc::new(PublishGate::default()),
        ahead: Arc::default(),
    }
}

pub(super) fn topic(name: &str) -> TopicName {
    TopicName::parse(name.as_bytes()).unwrap()
}

/// What was promised to clients, and what they did.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    /// Answered `OK published`: message → topic, id, offset.
    published: BTreeMap<String, (String, String, u64)>,
    /// Answered `OK ack_received`: topic and offset.
    acked: BTreeSet<(String, u64)>,
    /// Acknowledgements that were sent, answered or not.
    acks_sent: BTreeSet<(String, u64)>,
    messages: u64,
}

/// A client: what it asked and what it holds.
#[derive(Default)]
pub(super) struct Client {
    outbox: Arc<Outbox>,
    seq: u64,
    /// Per letter: what its answers mean.
    asked: BTreeMap<u64, Vec<Asked>>,
    held: Vec<(String, String, u64)>,
}

#[derive(Clone)]
pub(super) enum Asked {
    Publish { topic: String, message: String },
    Ack { topic: String, offset: u64 },
    Subscribe,
}

/// A broker without threads.
pub(super) struct Node {
    shards: Vec<Shard>,
    log: LogWriter,
    disk: Arc<dyn Disk>,
    now: Now,
    checkpoints: Checkpoints,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    /// Messages are larger by this, in bytes.
    pub(super) filling: usize,
}

/// The power went off, or a fault came: this life is over.
#[derive(Debug)]
pub(super) struct Dead;

impl<E: std::error::Error> From<E> for Dead {
    fn from(_: E) -> Dead {
        Dead
    }
}

impl Node {
    pub(super) fn start(disk: &SimDisk, now: Now) -> Result<(Node, Found), OpenError> {
        Node::open(Arc::new(disk.clone()), now)
    }

    pub(super) fn open(shared: Arc<dyn Disk>, now: Now) -> Result<(Node, Found), OpenError> {
        let opened = open::open(&shared, &settings(), now)?;
        let node = Node {
            shards: opened.shards,
            log: LogWriter::new(opened.wal, Fsync::Always),
            disk: shared,
            now,
            checkpoints: opened.checkpoints,
            clients: BTreeMap::new(),
            next_client: 1,
            filling: 0,
        };
        // The lock is that of this life; the simulated crash frees it.
        drop(opened.lock);
        Ok((node, opened.found))
    }

    /// One round of what the threads do.
    fn round(&mut self, ledger: &mut Ledger) -> Result<(), Dead> {
        for _ in 0..2 {
            let written = self.write()?;
            self.apply(written, ledger)?;
        }
        Ok(())
    }

    /// Makes what was asked for durable. It is not applied yet.
    pub(super) fn write(&mut self) -> Result<Vec<(Lsn, Submission)>, Dead> {
        let submissions: Vec<_> = self.shards.iter_mut().filter_map(Shard::submit).collect();
        if submissions.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.log.write(&submissions)?.get();
        Ok((first..).map(Lsn::new).zip(submissions).collect())
    }

    /// Lets so many seconds pass for the shards alone: nothing becomes durable meanwhile.
    pub(super) fn stall(&mut self, seconds: u64, ledger: &mut Ledger) -> Result<(), Dead> {
        self.pass(seconds);
        self.apply(Vec::new(), ledger)
    }

    fn pass(&mut self, seconds: u64) {
        let time = Duration::from_secs(seconds);
        self.now = Now { moment: self.now.moment + time, wall: self.now.wall.plus(time) };
    }

    /// The rest of a round.
    pub(super) fn apply(
        &mut self,
        written: Vec<(Lsn, Submission)>,
        ledger: &mut Ledger,
    ) -> Result<(), Dead> {
        for (lsn, s) in written {
            let shard = &mut self.shards[s.shard as usize];
            shard.committed(self.now, s.index, lsn, s.payload)?;
        }
        for shard in &mut self.shards {
            shard.wake(self.now)?;
            shard.send(self.now)?;
        }
        self.hear(ledger);
        Ok(())
    }

    /// Clients read what came.
    fn hear(&mut self, ledger: &mut Ledger) {
        for client in self.clients.values_mut() {
            let mut pieces = Vec::new();
            client.outbox.take(&mut pieces);
            for piece in pieces {
                match piece {
                    Piece::Push(lines) => {
                        for line in String::from_utf8(lines).unwrap().lines() {
                            let words: Vec<_> = line.splitn(6, ' ').collect();
                            let place = (words[1].to_owned(), words[2].to_owned());
                            client.held.push((place.0, place.1, words[3].parse().unwrap()));
                        }
                    }
                    Piece::Reply { seq, lines, .. } => {
                        let asked = client.asked.remove(&seq).unwrap();
                        let lines = String::from_utf8(lines).unwrap();
                        assert_eq!(lines.lines().count(), asked.len());
                        for (line, asked) in lines.lines().zip(asked) {
                            note(ledger, line, asked);
                        }
                    }
                }
            }
        }
    }

    fn ask(
        &mut self,
        client: u64,
        topic: &TopicName,
        item: Item,
        bytes: Bytes,
        asked: Vec<Asked>,
    ) -> Result<(), Dead> {
        let Some(known) = self.clients.get_mut(&client) else { return Ok(()) };
        known.seq += 1;
        if !asked.is_empty() {
            known.asked.insert(known.seq, asked);
        }
        let letter = Letter {
            conn: ConnId(client),
            outbox: Arc::clone(&known.outbox),
            seq: known.seq,
            bytes,
            items: vec![item],
            permit: None,
        };
        let shard = super::super::topics::shard_of(topic, SHARDS) as usize;
        self.shards[shard].letter(self.now, letter)?;
        Ok(())
    }

    pub(super) fn publish(
        &mut self,
        client: u64,
        name: &str,
        count: u64,
        ledger: &mut Ledger,
    ) -> Result<(), Dead> {
        let mut bytes = Vec::new();
        let (mut messages, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..count {
            ledger.messages += 1;
            let filling = "x".repeat(bytes.len() % 70 + self.filling);
            let message = format!("{name}-{}-{filling}", ledger.messages);
            let start = u32::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(message.as_bytes());
            messages.push(Span { start, end: u32::try_from(bytes.len()).unwrap() });
            asked.push(Asked::Publish { topic: name.to_owned(), message });
        }
        let topic = topic(name);
        let item = Item::Publish { tag: None, topic: topic.clone(), messages };
        self.ask(client, &topic, item, Bytes::from(bytes), asked)
    }

    pub(super) fn subscribe(&mut self, name: &str) -> Result<(), Dead> {
        let client = self.next_client;
        self.next_client += 1;
        self.clients.insert(client, Client::default());
        let topic = topic(name);
        let item = Item::Subscribe {
            tag: None,
            topic: topic.clone(),
            group: Some(GroupName::parse(b"g").unwrap()),
            consumer: Arc::from(format!("c{client}")),
        };
        self.ask(client, &topic, item, Bytes::new(), vec![Asked::Subscribe])
    }

    pub(super) fn ack(&mut self, client: u64, at: usize, ledger: &mut Ledger) -> Result<(), Dead> {
        let Some(known) = self.clients.get_mut(&client) else { return Ok(()) };
        if known.held.is_empty() {
            return Ok(());
        }
        let at = at % known.held.len();
        let (name, id, offset) = known.held.remove(at);
        ledger.acks_sent.insert((name.clone(), offset));
        let span = Span { start: 0, end: u32::try_from(id.len()).unwrap() };
        let topic = topic(&name);
        let asked = vec![Asked::Ack { topic: name, offset }];
        self.ask(client, &topic, Item::Ack { tag: None, id: span }, Bytes::from(id), asked)
    }

    pub(super) fn leave(&mut self, client: u64) -> Result<(), Dead> {
        for name in ["a", "b", "c"] {
            self.ask(client, &topic(name), Item::Closed, Bytes::new(), Vec::new())?;
        }
        if let Some(gone) = self.clients.remove(&client) {
            gone.outbox.close();
        }
        Ok(())
    }

    /// What a client holds: topic, id and offset.
    pub(super) fn hand(&mut self, client: u64) -> &mut Vec<(String, String, u64)> {
        &mut self.clients.get_mut(&client).unwrap().held
    }

    /// The offsets of what a client holds.
    pub(super) fn offsets(&self, client: u64) -> Vec<u64> {
        self.clients[&client].held.iter().map(|(_, _, offset)| *offset).collect()
    }

    /// How many messages all clients hold.
    pub(super) fn held(&self) -> usize {
        self.clients.values().map(|client| client.held.len()).sum()
    }

    /// Prepares segments of the log, and removes those that are too many.
    pub(super) fn spare(&mut self) {
        while let Some(job) = self.log.spare_job() {
            job.run().unwrap();
        }
    }

    /// Whether the keeper's thread would make a checkpoint.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        self.checkpoints.is_due(&settings(), self.log.stats(), self.now.moment)
    }

    /// The shard of this number.
    pub(super) fn shard(&mut self, number: usize) -> &mut Shard {
        &mut self.shards[number]
    }

    /// One of its topics.
    pub(super) fn topic(&self, name: &str) -> &Topic {
        let mut all = self.shards.iter().flat_map(Shard::topics);
        all.find(|topic| topic.name().as_str() == name).unwrap()
    }

    /// What shards do for a checkpoint.
    pub(super) fn part(&mut self) -> Result<(), Dead> {
        let last = self.log.stats().last();
        for shard in &mut self.shards {
            drop(shard.part(last, ALL_TOPICS)?);
        }
        Ok(())
    }

    /// What the keeper's thread does.
    pub(super) fn checkpoint(&mut self, is_clean: bool) -> Result<(), Dead> {
        let stats = Arc::clone(self.log.stats());
        let mut taking = Taking::new(self.shards.len(), 1);
        while let Some((shard, piece)) = taking.wants() {
            taking.take(self.shards[shard].part(stats.last(), piece)?);
        }
        self.write_checkpoint(taking, is_clean)
    }

    /// The same while others work: a message comes for each topic behind each piece of the state.
    fn checkpoint_amid(&mut self, ledger: &mut Ledger) -> Result<(), Dead> {
        let last = self.log.stats().last();
        let mut taking = Taking::new(self.shards.len(), 1);
        while let Some((shard, piece)) = taking.wants() {
            taking.take(self.shards[shard].part(last, piece)?);
            ["a", "b", "c"].into_iter().try_for_each(|name| self.publish(0, name, 1, ledger))?;
            self.round(ledger)?;
        }
        self.write_checkpoint(taking, false)
    }

    /// Lets topics go of all that they need not keep, and removes some files.
    fn retain(&mut self, piece: usize) -> Result<(), Dead> {
        let mut retaining = Retaining::new(RETENTION);
        let (count, last) = (self.shards.len(), self.log.stats().last());
        while let Some((shard, piece)) = retaining.wants(self.now.moment, last, count, piece) {
            let inventory = self.shards[shard].inventory(piece);
            let trims = retaining.look(self.disk.as_ref(), self.now, last, inventory);
            self.shards[shard].trim(&trims);
        }
        self.remove_some()
    }

    /// Removes some files that are of no use to any checkpoint.
    pub(super) fn remove_some(&mut self) -> Result<(), Dead> {
        Ok(self.checkpoints.remove_some(self.disk.as_ref())?)
    }

    fn write_checkpoint(&mut self, taking: Taking, is_clean: bool) -> Result<(), Dead> {
        let stats = Arc::clone(self.log.stats());
        self.log.sync()?;
        let Some(parts) = self.checkpoints.all(taking)? else { return Ok(()) };
        match self.checkpoints.write(parts, is_clean, &stats, self.now) {
            Ok(covered) => self.log.free_through(covered),
            Err(full) if full.is_shortage() => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(job) = self.log.spare_job() {
            // The log offers it again.
            drop(job.run());
        }
        Ok(())
    }
}

pub(super) fn note(ledger: &mut Ledger, line: &str, asked: Asked) {
    match asked {
        // Nothing was promised.
        Asked::Publish { .. } if line.starts_with("ERR DISK_FULL") => {}
        Asked::Publish { topic, message } => {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words[..2], ["OK", "published"], "{line}");
            let place = (topic, words[2].to_owned(), words[3].parse().unwrap());
            assert_eq!(ledger.published.insert(message, place), None);
        }
        Asked::Ack { topic, offset } if line == "OK ack_received" => {
            ledger.acked.insert((topic, offset));
        }
        Asked::Ack { .. } => assert!(line.starts_with("ERR NOT_PENDING"), "{line}"),
        Asked::Subscribe => assert!(line.starts_with("OK subscribed"), "{line}"),
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish(&'static str, u64),
    Subscribe(&'static str),
    Ack(u64, usize),
    Leave(u64),
    Pass(u64),
    Checkpoint,
    CheckpointAmid,
    /// Topic by topic.
    Retain,
    /// All topics of a shard at once.
    RetainAll,
}

/// Runs a life until it ends or the power goes.
pub(super) fn live(node: &mut Node, ops: &[Op], ledger: &mut Ledger) -> Result<(), Dead> {
    node.clients.insert(0, Client::default());
    for op in ops {
        match op {
            Op::Publish(name, count) => node.publish(0, name, *count, ledger)?,
            Op::Subscribe(name) => node.subscribe(name)?,
            Op::Ack(client, at) => node.ack(*client, *at, ledger)?,
            Op::Leave(client) => node.leave(*client)?,
            Op::Pass(seconds) => node.pass(*seconds),
            Op::Checkpoint => node.checkpoint(false)?,
            Op::CheckpointAmid => node.checkpoint_amid(ledger)?,
            Op::Retain => node.retain(1)?,
            Op::RetainAll => node.retain(usize::MAX)?,
        }
        node.round(ledger)?;
    }
    Ok(())
}

/// Everything that was promised is there, and nothing that was not.
pub(super) fn check(disk: &SimDisk, node: &Node, ledger: &Ledger) {
    check_but(disk, node, ledger, 0);
}

/// The same, but for so many messages that may be lost.
pub(super) fn check_but(disk: &SimDisk, node: &Node, ledger: &Ledger, lost_max: usize) {
    let mut lost = 0;
    // Topics with a dead letter that is lost.
    let mut unknown = BTreeSet::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut found: BTreeMap<String, (String, String, u64)> = BTreeMap::new();
    let firsts = firsts(node);
    let first_kept = |name: &str| firsts.get(name).copied().unwrap_or(Offset::FIRST);
    let mut dead = BTreeSet::new();
    for name in scan(disk, Path::new(DIR)).unwrap().topics.keys() {
        let mut reader =
            Reader::offline(Arc::clone(&shared), Path::new(DIR), name.clone()).unwrap();
        // Files of what is no longer kept may be there still, but none in the middle is missing.
        let mut expected = reader.shared().first();
        assert!(expected <= first_kept(name.as_str()), "{name} begins with {expected}");
        loop {
            let line = match reader.next() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    if expected >= first_kept(name.as_str()) {
                        assert!(error.is_damage() && lost < lost_max, "{error}");
                        lost += 1;
                    }
                    if name.is_dead_letter() {
                        unknown.insert(name.family().to_owned());
                    }
                    expected = expected.next();
                    continue;
                }
            };
            assert_eq!(line.offset, expected, "{name} is dense");
            expected = expected.next();
            let id = DerivedId::new(name.tag(), line.offset, line.ts()).to_string();
            assert_eq!(line.id, id);
            if name.is_dead_letter() {
                let record: serde_json::Value = serde_json::from_slice(line.raw).unwrap();
                let offset = record["original_offset"].as_u64().unwrap();
                // One more if its message could not be read at the first try.
                let retries = record["retry_count"].as_u64().unwrap();
                assert!((MAX_RETRIES.into()..=u64::from(MAX_RETRIES) + 1).contains(&retries));
                let timed_out = |attempt: &&serde_json::Value| attempt["outcome"] == "timeout";
                let attempts = record["attempts"].as_array().unwrap().iter().filter(timed_out);
                assert_eq!(attempts.count() as u64, retries + 1, "{record}");
                assert!(dead.insert((name.family().to_owned(), offset)), "one dead letter each");
                continue;
            }
            let message = String::from_utf8(line.message.to_vec()).unwrap();
            let place = (name.as_str().to_owned(), id, line.offset.get());
            assert_eq!(found.insert(message, place), None, "nothing is there twice");
        }
    }
    for (message, place) in &ledger.published {
        let is_kept = Offset::new(place.2) >= first_kept(&place.0);
        if lost > 0 && is_kept && !found.contains_key(message) {
            lost -= 1;
            continue;
        }
        if is_kept || found.contains_key(message) {
            assert_eq!(found.get(message), Some(place), "{message} was answered OK");
        }
    }
    check_groups(node, ledger, &dead, &unknown);
}

/// What groups have settled was acknowledged or is a dead letter, and what they have not is kept. Of topics
/// that are `unknown` it is not known what is a dead letter.
fn check_groups(
    node: &Node,
    ledger: &Ledger,
    dead: &BTreeSet<(String, u64)>,
    unknown: &BTreeSet<String>,
) {
    for shard in &node.shards {
        for topic in shard.topics() {
            let name = topic.name().as_str().to_owned();
            for (_, progress) in topic.progress() {
                assert!(topic.log().first() <= progress.floor().next(), "{name} is needed");
                for offset in 1..=topic.log().end().get() {
                    let place = (name.clone(), offset);
                    let settled = progress.is_settled(Offset::new(offset));
                    let started = progress.floor() < Offset::new(offset);
                    assert!(settled || !ledger.acked.contains(&place), "{place:?} was acked");
                    assert!(settled || !dead.contains(&place), "{place:?} is a dead letter");
                    let is_dead = dead.contains(&place) || unknown.contains(&name);
                    let may = ledger.acks_sent.contains(&place) || is_dead;
                    assert!(!settled || may || !started, "{place:?} was settled by nobody");
                }
            }
        }
    }
}

/// Where topics begin.
pub(super) fn firsts(node: &Node) -> BTreeMap<String, Offset> {
    let topics = node.shards.iter().flat_map(Shard::topics);
    topics.map(|topic| (topic.name().as_str().to_owned(), topic.log().first())).collect()
}

pub(super) fn now(seconds: u64) -> Now {
    let micros = 1_700_000_000_000_000 + seconds * 1_000_000;
    Now { moment: Moment::from_millis(seconds * 1000), wall: Timestamp::from_micros(micros) }
}

/// A workload that rolls segments, makes checkpoints, recycles the log and writes dead letters.
pub(super) fn workload() -> Vec<Op> {
    let mut ops = vec![Op::Subscribe("a"), Op::Subscribe("a"), Op::Subscribe("b")];
    for n in 0..24u64 {
        ops.push(Op::Publish(["a", "b", "c"][usize::try_from(n % 3).unwrap()], 1 + n % 4));
        ops.push(Op::Ack(1 + n % 3, 0));
        ops.push(Op::Ack(1 + (n + 1) % 3, 1));
        match n % 8 {
            3 => ops.push(Op::Checkpoint),
            4 => ops.extend([Op::Leave(1 + n / 8), Op::Subscribe("a")]),
            5 => ops.extend([Op::Pass(11), Op::Pass(2)]),
            6 => ops.push(Op::Retain),
            7 => ops.extend([Op::Pass(11), Op::CheckpointAmid, Op::Retain]),
            _ => {}
        }
    }
    ops
}
