//! Stories of one session: what the peer sends, what shards answer, what leaves.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::broker::letter::{Item, Letter, Piece, Then};
use crate::broker::outbox::{Outbox, Room, Sent};
use crate::disk::Disk;
use crate::disk::os::OsDisk;
use crate::ids::{ConnId, Offset};
use crate::limits::{SESSION_OUT_BYTES_MAX, SUBSCRIPTIONS_MAX};
use crate::time::{Moment, Now, Timestamp};

use super::core::{Core, Settings};
use super::shares::{Hold, Shares};

/// A session and the letters it sent.
pub(super) struct Story {
    pub(super) core: Core,
    now: Moment,
    pub(super) told: String,
    pub(super) shares: Arc<Shares>,
}

impl Story {
    pub(super) fn new(shards: u32) -> Self {
        Self::on(shards, Arc::new(OsDisk::default()))
    }

    pub(super) fn on(shards: u32, disk: Arc<dyn Disk>) -> Self {
        let shares = Arc::<Shares>::default();
        let settings = Settings {
            message_bytes_max: 1000,
            dead_after: Duration::from_secs(30),
            shards,
            disk,
            shares: Arc::clone(&shares),
            unsent_max: 1000,
        };
        let now = Moment::from_millis(0);
        let outbox = Arc::new(Outbox::default());
        let core = Core::new(ConnId(1), Arc::from("c1"), Arc::new(settings), outbox, now);
        Self { core, now, told: String::new(), shares }
    }

    fn letters(&mut self, letters: Vec<(u32, Letter)>) {
        for (shard, letter) in letters {
            write!(self.told, "letter {} to {shard}:", letter.seq).unwrap();
            for item in &letter.items {
                let text = |span: crate::broker::letter::Span| {
                    String::from_utf8_lossy(span.of(&letter.bytes)).into_owned()
                };
                match item {
                    Item::Publish { tag, topic, messages } => {
                        let all: Vec<_> = messages.iter().map(|span| text(*span)).collect();
                        let tag = tag.map(|tag| format!("@{tag} ")).unwrap_or_default();
                        write!(self.told, " {tag}publish {topic} {all:?}").unwrap();
                    }
                    Item::Ack { id, .. } => write!(self.told, " ack {}", text(*id)).unwrap(),
                    Item::Subscribe { topic, group: Some(group), .. } => {
                        write!(self.told, " join {topic} {group}").unwrap();
                    }
                    Item::Subscribe { topic, .. } => write!(self.told, " follow {topic}").unwrap(),
                    Item::Locate { topic } => write!(self.told, " locate {topic}").unwrap(),
                    Item::Line(line) => {
                        write!(self.told, " line {:?}", String::from_utf8_lossy(line)).unwrap();
                    }
                    Item::Silent => self.told.push_str(" silent"),
                    Item::Heard => self.told.push_str(" heard"),
                    Item::Drained => self.told.push_str(" drained"),
                    Item::Closed => self.told.push_str(" closed"),
                }
            }
            self.told.push('\n');
        }
    }

    /// The peer sends these bytes, in one read.
    pub(super) fn receive(&mut self, bytes: &str) -> &mut Self {
        let mut buffer = BytesMut::from(bytes);
        let heard = self.core.heard(self.now);
        self.letters(heard);
        let input = self.core.input(&mut buffer);
        self.letters(input.letters);
        self.leave()
    }

    /// A shard answers a letter.
    pub(super) fn reply(&mut self, seq: u64, lines: &str, then: Option<Then>) -> &mut Self {
        self.core.piece(Piece::Reply { seq, lines: lines.into(), then });
        self.leave()
    }

    fn push(&mut self, lines: &str) -> &mut Self {
        self.core.piece(Piece::Push(lines.into()));
        self.leave()
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.lapse(time).leave()
    }

    /// The same, while the peer takes nothing.
    fn lapse(&mut self, time: Duration) -> &mut Self {
        self.now = self.now + time;
        let letters = self.core.wake(Now { moment: self.now, wall: Timestamp::default() });
        self.letters(letters);
        self
    }

    /// The peer takes so many bytes, if there are.
    fn take(&mut self, bytes: usize) -> &mut Self {
        let (bytes, now) = (bytes.min(self.core.out().len()), self.now);
        let letters = self.core.taken(bytes, || now);
        self.letters(letters);
        self
    }

    /// What leaves.
    pub(super) fn leave(&mut self) -> &mut Self {
        while !self.core.out().is_empty() {
            let mut slices = [std::io::IoSlice::new(&[])];
            self.core.out().slices(&mut slices);
            let chunk = slices[0].to_vec();
            for line in String::from_utf8(chunk.clone()).unwrap().lines() {
                writeln!(self.told, "  < {line}").unwrap();
            }
            self.take(chunk.len());
        }
        self
    }

    #[track_caller]
    fn is(&mut self, expected: &str) {
        let expected: Vec<_> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let told: Vec<_> = self.told.lines().map(str::trim).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn one_read_is_one_letter_and_runs_are_one_item() {
    Story::new(1)
        .receive("PUB a 1\nPUB a 2\nPING\nPUB b 3\n@x PUB b 4\n")
        .reply(0, "OK published …\n", None)
        .is(r#"
            letter 0 to 0: publish a ["1", "2"] line "OK pong\n" publish b ["3"] @x publish b ["4"]
            < OK connected
            < OK published …
        "#);
}

#[test]
fn answers_leave_in_the_order_of_the_commands_whichever_shard_is_first() {
    // With two shards, topics a and c are on different ones.
    Story::new(2)
        .receive("PUB a 1\nPUB c 2\nPING\n")
        .reply(1, "second\nOK pong\n", None)
        .reply(0, "first\n", None)
        .is(r#"
            letter 0 to 0: publish a ["1"]
            letter 1 to 1: publish c ["2"] line "OK pong\n"
            < OK connected
            < first
            < second
            < OK pong
        "#);
}

#[test]
fn lines_that_need_no_shard_wait_for_those_before_them() {
    Story::new(1)
        .receive("PING\n")
        .receive("PUB a 1\n")
        .receive("PING\nnonsense\n")
        .reply(0, "OK published …\n", None)
        .is(r#"
            < OK connected
            < OK pong
            letter 0 to 0: publish a ["1"]
            < OK published …
            < OK pong
            < ERR UNKNOWN_COMMAND unknown command: nonsense
        "#);
}

#[test]
fn a_push_never_overtakes_the_answer_to_its_sub() {
    Story::new(1)
        .receive("HISTORY a 1\nSUB a g\n")
        .push("MSG a 1\n")
        .reply(1, "OK subscribed a in group g\n", None)
        .push("MSG a 2\n")
        .reply(0, "", Some(Then::Read { log: None, end: Offset::ZERO }))
        .push("MSG a 3\n")
        .is("
            letter 0 to 0: locate a
            letter 1 to 0: join a g
            < OK connected
            < OK history end
            < OK subscribed a in group g
            < MSG a 1
            < MSG a 2
            < MSG a 3
        ");
}

#[test]
fn an_acknowledgement_without_a_group_is_refused_on_the_spot() {
    Story::new(1).receive("ACK m1\nSUB a g\nACK m2\n").is("
        letter 0 to 0: join a g ack m2
        < OK connected
        < ERR NOT_PENDING message m1 not found in pending messages
    ");
}

#[test]
fn only_members_of_groups_have_to_be_heard() {
    let minute = Duration::from_secs(60);
    Story::new(1).receive("SUB a\n").reply(0, "", None).pass(minute).receive("PING\n").is("
        letter 0 to 0: follow a
        < OK connected
        < OK pong
    ");
    let nearly = Duration::from_millis(29_999);
    Story::new(1)
        .receive("SUB a g\n")
        .reply(0, "", None)
        .pass(nearly)
        .receive("HEARTBEAT\n")
        .pass(nearly)
        .pass(Duration::from_millis(1))
        .pass(minute)
        .receive("H")
        .pass(nearly)
        .is("
            letter 0 to 0: join a g
            < OK connected
            < OK heartbeat_received
            letter 1 to 0: silent
            letter 2 to 0: heard
        ");
}

/// A disk without room may hold the answer back for longer than a member may be silent.
#[test]
fn a_member_that_was_dead_before_it_was_one_is_told_of_again() {
    let half = Duration::from_secs(15);
    let mut story = Story::new(1);
    story.receive("SUB a g\n").pass(half).pass(half);
    assert_eq!(story.core.wake_at(), None);
    story.reply(0, "OK subscribed a in group g\n", None);
    assert_eq!(story.core.wake_at(), Some(story.now));
    story.pass(half).pass(half).receive("SUB a h\n").reply(4, "", None).pass(half).pass(half).is("
        letter 0 to 0: join a g
        < OK connected
        letter 1 to 0: silent
        < OK subscribed a in group g
        letter 2 to 0: silent
        letter 3 to 0: heard
        letter 4 to 0: join a h
        letter 5 to 0: silent
    ");
}

#[test]
fn nothing_is_taken_after_quit_and_all_before_it_is_answered() {
    let mut story = Story::new(1);
    story.receive("PUB a 1\nQUIT\nPUB a 2\n");
    assert!(!story.core.is_finished() && !story.core.wants_input());
    story.reply(0, "OK published …\nOK bye\n", None);
    assert!(story.core.is_finished());
    story.is(r#"
        letter 0 to 0: publish a ["1"] line "OK bye\n"
        < OK connected
        < OK published …
        < OK bye
    "#);
}

#[test]
fn commands_wait_when_too_many_answers_are_outstanding() {
    let mut core = Story::new(1);
    let mut buffer = BytesMut::from("HISTORY a 1\n".repeat(1000).as_str());
    let first = core.core.input(&mut buffer);
    assert!(first.letters.len() < 1000 && !buffer.is_empty());
    assert!(!core.core.wants_input());
    for (_, letter) in &first.letters {
        core.core.piece(Piece::Reply {
            seq: letter.seq,
            lines: Vec::new(),
            then: Some(Then::Read { log: None, end: Offset::ZERO }),
        });
    }
    assert!(core.core.wants_input());
    assert_eq!(core.core.input(&mut buffer).letters.len(), first.letters.len());
}

#[test]
fn short_commands_are_not_taken_faster_than_their_answers_leave() {
    let mut story = Story::new(1);
    let mut buffer = BytesMut::from("\n".repeat(100_000).as_str());
    let mut count = 0;
    while !buffer.is_empty() {
        assert!(story.core.wants_input(), "{} bytes are left", buffer.len());
        let input = story.core.input(&mut buffer);
        assert_eq!(input.is_drained, buffer.is_empty());
        assert!(input.commands > 0 && input.commands <= 16_384, "{}", input.commands);
        assert!(story.core.out().len() < 2 * SESSION_OUT_BYTES_MAX);
        story.leave();
        count += story.told.matches("< ERR UNKNOWN_COMMAND").count();
        story.told.clear();
    }
    assert_eq!(count, 100_000);
    // Those that wait for a shard count as well.
    let mut buffer = BytesMut::from("PUB a x\n".repeat(100_000).as_str());
    let letters = story.core.input(&mut buffer).letters;
    assert!(letters.len() == 1 && buffer.len() > 500_000 && !story.core.wants_input());
}

#[test]
fn a_connection_has_so_many_subscriptions_and_no_more() {
    let mut story = Story::new(1);
    for number in 0..SUBSCRIPTIONS_MAX {
        let group = if number % 2 == 0 { "" } else { " g" };
        let mut buffer = BytesMut::from(format!("SUB t{number}{group}\n").as_str());
        for (_, letter) in story.core.input(&mut buffer).letters {
            story.core.piece(Piece::Reply { seq: letter.seq, lines: Vec::new(), then: None });
        }
    }
    story.leave();
    story.told.clear();
    // What there is already takes no place.
    story.receive("SUB new\nSUB new g\nSUB t1 g\nSUB t2\n").is("
        letter 10000 to 0: join t1 g follow t2
        < ERR LIMIT too many subscriptions on one connection max=10000 retry_after=1s
        < ERR LIMIT too many subscriptions on one connection max=10000 retry_after=1s
    ");
}

#[test]
fn groups_send_what_there_is_room_for_and_are_told_when_there_is_again() {
    let mut story = Story::new(1);
    story.leave();
    let room = |story: &Story| (story.core.room().bytes, story.core.room().is_ample);
    assert_eq!(room(&story), (1000, true));
    // A push that waits for the answer to its SUB counts.
    story.receive("SUB chat g\n").push(&"x".repeat(499)).push("y\n");
    assert_eq!(room(&story), (499, false));
    story.core.piece(Piece::Reply { seq: 0, lines: Vec::new(), then: None });
    assert_eq!(room(&story), (499, false), "unsent");
    story.core.out().advance(1);
    assert_eq!(room(&story), (500, true));
    story.core.out().advance(500);
    story.core.piece(Piece::Push(vec![b'x'; 600]));
    // Answers follow, as messages of a plain subscription may.
    story.core.input(&mut BytesMut::from("PING\n".repeat(113).as_str()));
    assert_eq!(room(&story), (0, false));
    story.core.out().advance(599);
    assert_eq!(room(&story), (95, false));
    story.core.out().advance(1);
    assert_eq!(room(&story), (96, true), "what groups sent has left");
    story.leave();
    // Others hold nearly all there is.
    let mut others = Hold::new(&story.shares);
    others.set(1 << 40);
    story.core.piece(Piece::Push(vec![b'x'; 40 << 10]));
    assert_eq!(room(&story), (0, false));
    story.told.clear();
    story.core.out().advance(40 << 10);
    let letters = story.core.sent(Sent { is_drained: true, ..Sent::default() });
    story.letters(letters);
    story.is("letter 1 to 0: drained");
}

#[test]
fn others_may_answer_only_what_comes_next() {
    let mut story = Story::new(1);
    assert_eq!(story.core.direct(), None, "the greeting has not left");
    story.leave();
    assert_eq!(story.core.direct(), Some(0..0), "pushes");
    story.receive("PUB chat a\n").receive("PUB chat b\nPUB chat c\n");
    assert_eq!(story.core.direct(), Some(0..2));
    story.core.sent(Sent { letters: 1, lines: 1, is_drained: false });
    assert_eq!(story.core.direct(), Some(1..2));
    // What is ready behind a letter would wait for ever if others answered that.
    story.receive("SUB chat\nPING\n");
    assert_eq!(story.core.direct(), Some(1..1));
    story.reply(1, "b\nc\n", None).reply(2, "OK subscribed chat\n", None);
    assert_eq!(story.core.direct(), Some(3..3));
    story.receive("SUB chat g\n");
    assert_eq!(story.core.direct(), None, "pushes wait for the answer to a SUB in a group");
    story.reply(3, "OK subscribed chat in group g\n", None);
    for _ in 0..9 {
        story.receive("PUB chat x\n");
    }
    assert_eq!(story.core.direct(), Some(4..4), "too many to look at each");
    story.receive("HISTORY chat 1\n");
    for seq in 4..13 {
        story.reply(seq, "OK\n", None);
    }
    assert_eq!(story.core.direct(), Some(14..14), "a history comes next");
    story.core.piece(Piece::Push(b"unsent\n".to_vec()));
    assert_eq!(story.core.direct(), None);
    story.leave().core.finish();
    assert_eq!(story.core.direct(), None, "it has to see that it is finished");
}

/// Ten thousand times the same one were too many.
#[test]
fn a_subscription_that_is_repeated_takes_no_place() {
    let mut story = Story::new(1);
    for _ in 0..=SUBSCRIPTIONS_MAX {
        for (_, letter) in story.core.input(&mut BytesMut::from("SUB t\n")).letters {
            story.core.piece(Piece::Reply { seq: letter.seq, lines: Vec::new(), then: None });
        }
    }
    story.leave();
    assert_eq!(story.told, "  < OK connected\n");
}

/// Its messages were given to it, and held back until their time was over: dead letters that nobody had
/// ever been sent.
#[test]
fn groups_send_nothing_while_a_history_comes_before_the_answer_to_a_sub() {
    let mut story = Story::new(1);
    story.leave();
    story.receive("SUB chat g\n");
    assert!(
        story.core.room().is_ample && !story.core.joins_behind_history(),
        "the answer comes at once"
    );
    story.receive("HISTORY chat 5\nPING\n");
    assert!(
        story.core.room().is_ample && !story.core.joins_behind_history(),
        "nothing waits behind it"
    );
    story.receive("SUB jobs g\n");
    let none = Room { bytes: 0, is_ample: false };
    assert!(story.core.joins_behind_history());
    assert_eq!(story.core.room(), none);
    story.reply(0, "OK subscribed chat in group g\n", None);
    assert_eq!(story.core.room(), none);
    story.reply(2, "OK subscribed jobs in group g\n", None);
    assert_eq!(story.core.room(), none, "the history has not come");
    story.reply(1, "", Some(Then::Read { log: None, end: Offset::ZERO }));
    assert!(story.core.room().is_ample && !story.core.joins_behind_history());
}

/// Heartbeats behind what is not read can't be heard: a member that took a large line was dead.
#[test]
fn who_takes_what_it_is_sent_is_alive_while_it_is_not_read() {
    let nearly = Duration::from_millis(29_999);
    let second = Duration::from_secs(1);
    let mut story = Story::new(1);
    story.receive("SUB a g\n").reply(0, "", None);
    story.core.piece(Piece::Push(vec![b'x'; 3 << 20]));
    for _ in 0..3 {
        story.lapse(nearly).take(100_000);
    }
    // Then it takes nothing for too long, and the rest at last.
    story.lapse(nearly).lapse(second).take(3 << 20);
    // From now on its own bytes count, and those alone.
    story.lapse(nearly).push("MSG a 1\n").lapse(second).receive("HEARTBEAT\n");
    // And nobody waits for one whose acknowledgements would not be taken.
    story.receive("QUIT\n").core.piece(Piece::Push(vec![b'x'; 100_000]));
    story.lapse(nearly).take(50_000).lapse(second).is("
        letter 0 to 0: join a g
        < OK connected
        letter 1 to 0: silent
        letter 2 to 0: heard
        < MSG a 1
        letter 3 to 0: silent
        letter 4 to 0: heard
        < OK heartbeat_received
        < OK bye
        letter 5 to 0: silent
    ");
}
