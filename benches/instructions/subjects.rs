//! What is counted: each hot path as it is used, for a number of messages of 100 bytes.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;

use wiber::delivery::{Action, Event, Group, Policy, Progress};
use wiber::disk::{DirEntry, Disk, File, Lock, Open, Space};
use wiber::ids::{ConnId, DerivedId, Offset, TopicName};
use wiber::log::{NewRecord, parse_line, write_line};
use wiber::proto::{Body, Decoder, MessageLine, Step, published};
use wiber::time::{Now, Timestamp};
use wiber::wal::{Entry, Identity, Settings, Wal};

/// One hot path.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Does it for so many messages.
    pub(crate) run: fn(u64),
}

/// In the order in which a message meets them.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject { name: "decode", run: decode },
    Subject { name: "wal_record", run: wal_record },
    Subject { name: "jsonl_line", run: jsonl_line },
    Subject { name: "reply", run: reply },
    Subject { name: "msg_line", run: msg_line },
    Subject { name: "group_events", run: group_events },
    Subject { name: "line_check", run: line_check },
];

/// A hundred bytes, as messages often are: some JSON, with quotes that lines have to escape.
const MESSAGE: &[u8] = br#"{"order":"A-1042","customer":"Ada Lovelace","total":42.5,"currency":"EUR","items":3,"paid":true    }"#;

const _: () = assert!(MESSAGE.len() == 100);

/// Messages that come together: in one read, in one batch.
const BATCH: u64 = 50;

const TS: Timestamp = Timestamp::from_micros(1_758_865_780_036_983);

fn topic() -> TopicName {
    TopicName::parse(b"orders.created").expect("a good name")
}

/// `PUB` lines, many in a read, as a client sends them that does not wait.
fn decode(messages: u64) {
    let line = [b"PUB orders.created ", MESSAGE, b"\n"].concat();
    let read = line.repeat(usize::try_from(BATCH).expect("a small number"));
    let mut decoder = Decoder::new(1 << 20);
    for _ in 0..messages / BATCH {
        let mut rest = black_box(read.as_slice());
        while let Step::Request { used, request, .. } = decoder.next(rest) {
            black_box(&request);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }
}

/// Records as large as a batch of messages, written to a file that is none.
fn wal_record(messages: u64) {
    let payload = MESSAGE.repeat(usize::try_from(BATCH).expect("a small number"));
    let identity = Identity { node: 1, secret: 2 };
    let settings = Settings { segment_bytes: 64 << 20 };
    let mut wal = Wal::create(Arc::new(Nowhere), Path::new("dir/wal"), identity, settings)
        .expect("nothing can fail");
    for index in 1..=messages / BATCH {
        let entry = Entry { shard: 0, term: 1, index, payload: black_box(&payload) };
        wal.append(&[entry]).expect("nothing can fail");
        wal.sync().expect("nothing can fail");
    }
}

/// Lines of a topic's file.
fn jsonl_line(messages: u64) {
    let topic = topic();
    let mut out = Vec::new();
    for n in 1..=messages {
        if n % BATCH == 0 {
            out.clear();
        }
        let record = NewRecord { ts: TS, id: None, message: black_box(MESSAGE), extra: "" };
        write_line(&mut out, topic.tag(), Offset::new(n), &record);
        black_box(&out);
    }
}

/// `OK published <id> <offset>`
fn reply(messages: u64) {
    let tag = topic().tag();
    let mut out = Vec::new();
    for n in 1..=messages {
        if n % BATCH == 0 {
            out.clear();
        }
        let offset = Offset::new(black_box(n));
        published(&mut out, None, DerivedId::new(tag, offset, TS), offset);
        black_box(&out);
    }
}

/// `MSG <topic> <id> <offset> <ts> <message>`
fn msg_line(messages: u64) {
    let topic = topic();
    let mut out = Vec::new();
    for n in 1..=messages {
        if n % BATCH == 0 {
            out.clear();
        }
        let offset = Offset::new(n);
        let id = DerivedId::new(topic.tag(), offset, TS);
        let body = Body::Message(black_box(MESSAGE));
        MessageLine { topic: &topic, id, offset, ts: TS, body }.write_msg(&mut out);
        black_box(&out);
    }
}

/// Delivered to one of four members, acknowledged, and settled with others.
fn group_events(messages: u64) {
    let progress = Progress::starting_at(Offset::FIRST);
    let mut group = Group::new(Arc::new(Policy::default()), progress);
    let (mut held, mut uncommitted) = (VecDeque::new(), VecDeque::new());
    let mut out = Vec::new();
    let now = Now::default();
    let tell = |group: &mut Group, event: Event<'_>, out: &mut Vec<Action>| {
        group.on(now, event, out);
        while group.hand_out(now, |_| true, out) {}
    };
    for member in (1..=4).map(ConnId) {
        let join = Event::Join { member, name: "member".into(), prefetch: 5 };
        tell(&mut group, join, &mut out);
    }
    for end in (BATCH..=messages).step_by(usize::try_from(BATCH).expect("a small number")) {
        tell(&mut group, Event::LogEnd { end: Offset::new(end) }, &mut out);
        loop {
            for action in out.drain(..) {
                match action {
                    Action::Deliver { member, offset, .. } => held.push_back((member, offset)),
                    Action::Commit(change) => uncommitted.push_back(change),
                    Action::Answer(_) | Action::Report(_) => {}
                }
            }
            let Some((member, offset)) = held.pop_front() else { break };
            tell(&mut group, Event::Ack { member, offset }, &mut out);
        }
        for change in uncommitted.drain(..) {
            tell(&mut group, Event::Committed(&change), &mut out);
        }
    }
    assert_eq!(group.progress().floor().get(), messages);
}

/// Lines that are read back, with their checksum.
fn line_check(messages: u64) {
    let topic = topic();
    let mut line = Vec::new();
    let record = NewRecord { ts: TS, id: None, message: MESSAGE, extra: "" };
    write_line(&mut line, topic.tag(), Offset::new(123_456), &record);
    line.pop();
    for _ in 0..messages {
        let read = parse_line(&topic, black_box(&line)).expect("it is whole");
        assert!(read.is_checked);
        black_box(read.offset);
    }
}

/// A disk that keeps nothing: what is left is what wiber itself does.
#[derive(Clone, Copy, Debug)]
struct Nowhere;

impl Lock for Nowhere {}

impl Disk for Nowhere {
    fn open(&self, _path: &Path, _how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Nowhere))
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<DirEntry>> {
        Ok(Vec::new())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn is_only_name(&self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }

    fn hold_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(Nowhere))
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        Ok(Space { free: u64::MAX, total: u64::MAX })
    }
}

impl File for Nowhere {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _buf: &mut [u8], _at: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, bytes: &[u8], _at: u64) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
