//! A disk that does not tell capital letters from small ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::super::letter::{Item, Letter, Piece, Span};
use super::super::outbox::Outbox;
use super::super::topics::shard_of;
use super::life::{Ledger, Node, SHARDS, now, settings, topic};
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, File, Lock, Open, Space};
use crate::ids::{ConnId, GroupName};

/// A disk that finds a file by its name in capital letters, too.
#[derive(Debug)]
struct Folding(SimDisk);

impl Folding {
    /// The name by which the file was made.
    fn real(&self, path: &Path) -> PathBuf {
        path.iter().fold(PathBuf::new(), |dir, name| {
            let listed = self.0.list(&dir).unwrap_or_default();
            let known = listed.iter().find(|entry| name.eq_ignore_ascii_case(&entry.name));
            known.map_or_else(|| dir.join(name), |entry| dir.join(&entry.name))
        })
    }
}

impl Disk for Folding {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.0.open(&self.real(path), how)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<crate::disk::DirEntry>> {
        self.0.list(&self.real(dir))
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(&self.real(dir))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(&self.real(from), &self.real(to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(&self.real(path))
    }
    fn is_only_name(&self, path: &Path) -> io::Result<bool> {
        self.0.is_only_name(&self.real(path))
    }
    fn hold_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.hold_dir(&self.real(dir))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(&self.real(dir))
    }
    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_all(&self.real(dir))
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.0.lock(&self.real(path))
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }
}

/// Asks for all of these in one letter, and gives the answers.
fn ask(node: &mut Node, shard: u32, items: Vec<Item>) -> Vec<String> {
    let outbox = Arc::<Outbox>::default();
    let bytes = Bytes::from_static(b"hello");
    let asked = Arc::clone(&outbox);
    let letter = Letter { conn: ConnId(9), outbox: asked, seq: 1, bytes, items, permit: None };
    node.shard(shard as usize).letter(now(0), letter).unwrap();
    let written = node.write().unwrap();
    node.apply(written, &mut Ledger::default()).unwrap();
    let mut pieces = Vec::new();
    outbox.take(&mut pieces);
    let lines = pieces.into_iter().flat_map(|piece| match piece {
        Piece::Reply { lines, .. } => lines,
        Piece::Push(lines) => panic!("{}", String::from_utf8_lossy(&lines)),
    });
    String::from_utf8(lines.collect()).unwrap().lines().map(str::to_owned).collect()
}

fn publish(name: &str) -> Item {
    let messages = vec![Span { start: 0, end: 5 }];
    Item::Publish { tag: None, topic: topic(name), messages }
}

fn subscribe(name: &str) -> Item {
    let group = Some(GroupName::parse(b"g").unwrap());
    Item::Subscribe { tag: None, topic: topic(name), group, consumer: Arc::from("c") }
}

/// Asks for it alone.
fn answer(node: &mut Node, item: Item) -> String {
    let (Item::Publish { topic, .. } | Item::Subscribe { topic, .. }) = &item else { panic!() };
    let shard = shard_of(topic, SHARDS);
    ask(node, shard, vec![item]).remove(0)
}

/// Topics `Orders` and `orders` both wrote to one file, each where it thought that its own ended. All was
/// answered with OK, and the next start found the file damaged.
#[test]
fn a_topic_that_would_share_a_file_with_another_is_refused() {
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(Folding(sim.clone()));
    let why = " would share its file with Orders: the broker's disk does not tell capital letters from \
               small ones";
    let refused = |name: &str| format!("ERR BAD_NAME {name}{why}");
    let open = || Node::open(Arc::clone(&disk), now(0)).unwrap().0;
    let mut node = open();
    assert!(answer(&mut node, publish("Orders")).starts_with("OK published "));
    // Whichever shard they are on.
    let others = ["orders", "ORDERS", "oRDERS", "orders.dlq", "Orders.DLQ", "ORDERS.DLQ"];
    assert!(
        others
            .iter()
            .any(|name| shard_of(&topic(name), SHARDS) != shard_of(&topic("Orders"), SHARDS))
    );
    for name in others {
        assert_eq!(answer(&mut node, publish(name)), refused(name));
        assert_eq!(answer(&mut node, subscribe(name)), refused(name));
    }
    assert!(answer(&mut node, subscribe("Orders")).starts_with("OK subscribed "));
    assert!(answer(&mut node, publish("orders2")).starts_with("OK published "));
    // The other one is not even made yet.
    let (shard, pair) = (0..SHARDS)
        .find_map(|shard| {
            let mut names = ["new", "New", "NEW", "nEW"].into_iter();
            names.clone().find(|name| shard_of(&topic(name), SHARDS) == shard)?;
            let its: Vec<_> =
                names.by_ref().filter(|n| shard_of(&topic(n), SHARDS) == shard).collect();
            (its.len() >= 2).then(|| (shard, [its[0], its[1]]))
        })
        .unwrap();
    let answers = ask(&mut node, shard, pair.map(publish).into());
    assert!(answers[0].starts_with("OK published "), "{answers:?}");
    assert!(
        answers[1].starts_with(&format!("ERR BAD_NAME {} would share", pair[1])),
        "{answers:?}"
    );
    drop(node);
    // A start knows what the log has; the next one, what the checkpoint has.
    for _ in 0..2 {
        let mut node = open();
        assert_eq!(answer(&mut node, publish("orders")), refused("orders"));
        assert!(answer(&mut node, publish("Orders")).starts_with("OK published "));
        node.checkpoint(false).unwrap();
    }
    // So does one that takes over files of the prototype.
    let theirs = SimDisk::new();
    theirs.create_dir(&settings().data_dir).unwrap();
    drop(theirs.open(&settings().data_dir.join("Orders.log"), Open::Create).unwrap());
    let mut node = Node::open(Arc::new(Folding(theirs)), now(0)).unwrap().0;
    assert_eq!(answer(&mut node, subscribe("orders")), refused("orders"));
}

#[test]
fn topics_that_would_share_a_file_on_another_disk_are_no_start_there() {
    for is_checkpointed in [false, true] {
        let disk = SimDisk::new();
        let mut node = Node::start(&disk, now(0)).unwrap().0;
        for name in ["Orders", "orders"] {
            assert!(answer(&mut node, publish(name)).starts_with("OK published "));
        }
        if is_checkpointed {
            node.checkpoint(true).unwrap();
        }
        drop(node);
        let refused = Node::open(Arc::new(Folding(disk.clone())), now(0)).map(drop).unwrap_err();
        assert!(!refused.is_damage());
        let text = refused.to_string();
        let said = "/srv/data: topic orders would share its file with Orders, since ";
        assert!(text.contains(said), "{text}");
        let mut node = Node::start(&disk, now(0)).unwrap().0;
        assert!(answer(&mut node, publish("orders")).starts_with("OK published "));
    }
    // A folder in capital letters that is none of ours says nothing.
    let disk = SimDisk::new();
    let theirs = settings().data_dir.join(".WIBER");
    disk.create_dir(&theirs).unwrap();
    drop(disk.open(&theirs.join("LOCK"), Open::Create).unwrap());
    let mut node = Node::start(&disk, now(0)).unwrap().0;
    for name in ["Orders", "orders"] {
        assert!(answer(&mut node, publish(name)).starts_with("OK published "));
    }
}
