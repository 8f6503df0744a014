//! What a session holds for its peer, and how it shares the memory for it.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use crate::broker::letter::{Bookmark, Piece, Then};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::ids::{Offset, TopicName};
use crate::limits::SESSION_OUT_BYTES_MAX;
use crate::log::{Chunk, LogSettings, NewRecord, TailBudget, TopicLog};
use crate::time::Timestamp;

use super::core_tests::Story;
use super::read::Reading;
use super::shares::Hold;

/// A log with so many messages of 1000 bytes, which the tail cache has if `tail` is large enough.
fn log_of(disk: &Arc<dyn Disk>, topic: &str, messages: usize, tail: usize) -> TopicLog {
    let settings = LogSettings { segment_bytes: 1 << 30 };
    let topic = TopicName::parse(topic.as_bytes()).unwrap();
    let tail = Arc::new(TailBudget::new(tail));
    let mut log = TopicLog::create(Arc::clone(disk), Path::new("/"), topic, settings, tail);
    append(&mut log, messages);
    log
}

fn append(log: &mut TopicLog, messages: usize) {
    let message = [b'm'; 1000];
    for _ in 0..messages {
        log.append(&NewRecord { ts: Timestamp::default(), id: None, message: &message, extra: "" });
    }
    log.flush().unwrap();
}

/// As many messages more, which the tail cache has.
fn append_to_tail(log: &mut TopicLog, messages: usize) {
    let first = log.end().next();
    append(log, messages);
    let line = format!("MSG {} {}\n", log.shared().topic(), "m".repeat(1000));
    let ends = (1..=messages).map(|n| u32::try_from(n * line.len()).unwrap()).collect();
    log.tail().push(Chunk::new(first, line.repeat(messages).into(), ends));
}

/// Begins a subscription, and gives its place.
fn follow(story: &mut Story, log: &TopicLog) -> Arc<Bookmark> {
    let topic = log.shared().topic().clone();
    let from = Arc::new(Bookmark::new(Offset::FIRST));
    let line = format!("SUB {topic}\n");
    let mut buffer = BytesMut::from(line.as_str());
    let seq = story.core.input(&mut buffer).letters[0].1.seq;
    let then = Then::Follow { topic, log: log.shared(), from: Arc::clone(&from) };
    story.reply(seq, "", Some(then));
    from
}

#[test]
fn what_a_session_reads_is_counted_until_it_has_left() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let log = log_of(&disk, "chat", 5000, 0);
    let mut story = Story::on(1, disk);
    follow(&mut story, &log);
    let mut received = 0;
    while received < 5000 {
        let mut jobs = story.core.pull();
        let (reading, mut job) = jobs.pop().unwrap();
        assert_eq!((jobs.len(), story.shares.held()), (0, job.bytes()));
        let done = job.run();
        let bytes = done.lines.len();
        received += memchr::memchr_iter(b'\n', &done.lines).count();
        story.core.read(reading, job, done);
        story.core.wants_pull();
        assert_eq!(story.shares.held(), bytes);
        story.leave();
        assert_eq!((story.core.wants_pull(), story.shares.held()), (received < 5000, 0));
    }
}

#[test]
fn who_does_not_read_its_answers_is_given_less_when_others_hold_much() {
    // One round of commands may be more than that.
    for (line, is_short, most) in
        [("PING\n", false, 2 << 20), ("PING\n", true, 32 << 10), ("NONE\n", true, 32 << 10)]
    {
        let mut story = Story::new(1);
        let mut others = Hold::new(&story.shares);
        others.set(if is_short { 64 << 20 } else { 0 });
        let mut buffer = BytesMut::from(line.repeat(1_000_000).as_str());
        while story.core.wants_input() {
            story.core.input(&mut buffer);
        }
        let unsent = story.core.out().len();
        assert!((most..=most + (256 << 10)).contains(&unsent), "{unsent} bytes of {most}");
        story.core.rest(buffer.len());
        assert_eq!(
            story.shares.held(),
            unsent + buffer.len() + if is_short { 64 << 20 } else { 0 }
        );
        story.leave();
        assert!(story.core.wants_input(), "it reads them now");
        story.core.rest(0);
        assert_eq!(story.shares.held(), if is_short { 64 << 20 } else { 0 });
        // Nor may much be outstanding.
        let mut buffer = BytesMut::from("PUB chat x\n".repeat(100_000).as_str());
        let letters = story.core.input(&mut buffer).letters;
        let taken = (100_000 * 11 - buffer.len()) / 11;
        assert_eq!(taken, if is_short { 512 } else { 16_384 });
        drop(letters);
    }
}

/// A history that is not read holds back what comes behind it.
#[test]
fn answers_that_wait_for_their_turn_are_counted_and_are_not_made_without_end() {
    let unknown = format!("{}\n", "X".repeat(300));
    for (line, taken_by_shard) in [(&*unknown, false), ("PUB chat x\n", true)] {
        let mut story = Story::new(1);
        let commands = format!("HISTORY a 1\n{}", line.repeat(100_000));
        let mut buffer = BytesMut::from(commands.as_str());
        while story.core.wants_input() {
            for (_, letter) in story.core.input(&mut buffer).letters {
                if taken_by_shard && !letter.bytes.is_empty() {
                    let lines = vec![b'x'; 2 << 20];
                    story.core.piece(Piece::Reply { seq: letter.seq, lines, then: None });
                }
            }
        }
        story.core.rest(0);
        let held = story.shares.held();
        assert!((2 << 20..(2 << 20) + 400).contains(&held), "{held} bytes");
        let nothing = Some(Then::Read { log: None, end: Offset::ZERO });
        story.core.piece(Piece::Reply { seq: 0, lines: Vec::new(), then: nothing });
        story.leave();
        story.core.rest(0);
        assert!(story.core.wants_input() && story.shares.held() == 0);
    }
}

/// It sleeps until more of it comes, which may be never.
#[test]
fn a_command_that_came_in_part_keeps_no_messages_back() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let mut log = log_of(&disk, "chat", 0, 1 << 30);
    let mut story = Story::on(1, disk);
    let mut others = Hold::new(&story.shares);
    others.set(64 << 20);
    let place = follow(&mut story, &log);
    story.core.rest(1 << 20);
    assert!(!story.core.is_sated(), "it has to be woken");
    append_to_tail(&mut log, 1);
    story.core.more(&[place]);
    assert!(story.core.wants_pull() && story.core.pull().is_empty());
    assert!(story.leave().told.contains("MSG chat"));
}

#[test]
fn subscriptions_of_a_session_share_what_it_may_read_at_once() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let log = log_of(&disk, "chat", 500, 0);
    let mut story = Story::on(1, disk);
    (0..40).for_each(|_| drop(follow(&mut story, &log)));
    let mut received = [0; 40];
    while story.core.wants_pull() {
        let jobs = story.core.pull();
        let bytes: usize = jobs.iter().map(|(_, job)| job.bytes()).sum();
        assert!(!jobs.is_empty() && bytes <= 2 * SESSION_OUT_BYTES_MAX, "{bytes}");
        for (reading, mut job) in jobs {
            let done = job.run();
            let Reading::Follow(number) = reading else { panic!("there is no history") };
            received[number] += memchr::memchr_iter(b'\n', &done.lines).count();
            story.core.read(reading, job, done);
        }
        story.leave();
    }
    assert_eq!(received, [500; 40]);
}

/// A session with thousands of subscriptions looked at all of them whenever it woke.
#[test]
fn only_subscriptions_of_which_there_is_more_are_looked_at() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let mut logs: Vec<_> = ["a", "b", "c"].map(|name| log_of(&disk, name, 0, 1 << 30)).into();
    let mut story = Story::on(1, disk);
    let places: Vec<_> = logs.iter().map(|log| follow(&mut story, log)).collect();
    assert!(!story.core.wants_pull(), "there is nothing");
    logs.iter_mut().for_each(|log| append_to_tail(log, 1));
    assert!(!story.core.wants_pull(), "nobody has told it");
    // Told twice, and of one that others have sent since.
    places[0].set(Offset::new(2));
    let told = [&places[1], &places[0], &places[1]].map(Arc::clone);
    story.core.more(&told);
    assert!(story.core.wants_pull() && story.core.pull().is_empty());
    story.leave();
    assert!(story.told.contains("MSG b") && !story.told.contains("MSG a"), "{}", story.told);
    assert!(!story.told.contains("MSG c") && !story.core.wants_pull());
    // And of one that it does not know yet: it looks at that when it begins.
    story.core.more(&[Arc::new(Bookmark::new(Offset::FIRST))]);
    assert!(!story.core.wants_pull());
    follow(&mut story, &logs[2]);
    assert!(story.core.wants_pull());
}

#[test]
fn a_subscription_does_not_wait_behind_one_that_always_has_more() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let mut busy = log_of(&disk, "busy", 0, 1 << 30);
    let mut calm = log_of(&disk, "calm", 0, 1 << 30);
    append_to_tail(&mut busy, 3000);
    append_to_tail(&mut calm, 1);
    let mut story = Story::on(1, disk);
    let place = follow(&mut story, &busy);
    follow(&mut story, &calm);
    for _ in 0..2 {
        assert!(story.core.pull().is_empty() && story.core.out().len() > 1 << 19);
        append_to_tail(&mut busy, 3000);
        story.core.more(&[Arc::clone(&place)]);
        story.leave();
    }
    assert!(story.told.contains("MSG calm"));
}

/// It never was, and held up the stop of the broker.
#[test]
fn a_subscriber_that_is_behind_is_closed_when_it_quits() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    for tail in [1 << 30, 0] {
        let mut log = log_of(&disk, &format!("chat{tail}"), 0, tail);
        (0..30).for_each(|_| append_to_tail(&mut log, 100));
        let mut story = Story::on(1, Arc::clone(&disk));
        let place = follow(&mut story, &log);
        let mut jobs = story.core.pull();
        story.core.input(&mut BytesMut::from("QUIT\n"));
        let room = story.core.room();
        assert!(room.bytes == 0 && !room.is_ample, "groups have nothing more: {room:?}");
        let mut left = 0;
        while !story.core.is_finished() && left < 4 << 20 {
            jobs.extend(story.core.pull());
            for (reading, mut job) in jobs.drain(..) {
                let done = job.run();
                story.core.read(reading, job, done);
            }
            append_to_tail(&mut log, 100);
            story.core.more(&[Arc::clone(&place)]);
            let sent = story.core.out().len().min(100_000);
            story.core.out().advance(sent);
            left += sent;
        }
        assert!(story.core.is_finished(), "{left} bytes of messages came, and more would");
        assert!(story.core.is_sated() && !story.core.wants_pull());
    }
}

/// What was answered before the end is sent, be it but a moment before.
#[test]
fn a_subscriber_that_quits_gets_what_was_published_before() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let mut log = log_of(&disk, "chat", 0, 1 << 30);
    let mut story = Story::on(1, disk);
    story.receive("SUB chat\nPUB chat hello\nQUIT\n");
    assert!(story.core.pull().is_empty());
    append_to_tail(&mut log, 1);
    let (topic, log) = (log.shared().topic().clone(), log.shared());
    let from = Arc::new(Bookmark::new(Offset::FIRST));
    story.reply(0, "OK subscribed chat\n", Some(Then::Follow { topic, log, from }));
    story.reply(1, "OK published …\nOK bye\n", None);
    assert!(story.core.pull().is_empty() && !story.core.is_finished());
    assert!(story.leave().told.contains("MSG chat") && story.core.is_finished());
}

/// They got nothing as long as the peer was a little slower than the subscription.
#[test]
fn groups_have_their_turn_beside_a_subscription_that_always_has_more() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let mut log = log_of(&disk, "chat", 0, 1 << 30);
    let mut story = Story::on(1, disk);
    let place = follow(&mut story, &log);
    for _ in 0..5 {
        (0..30).for_each(|_| append_to_tail(&mut log, 100));
        story.core.more(&[Arc::clone(&place)]);
        assert!(story.core.pull().is_empty() && story.core.out().len() > SESSION_OUT_BYTES_MAX);
        let room = story.core.room();
        assert!(room.bytes > 0 && room.is_ample, "{room:?}");
        story.core.piece(Piece::Push(b"MSG jobs\n".to_vec()));
        let room = story.core.room();
        assert!(room.bytes == 0 && !room.is_ample, "theirs has to leave first: {room:?}");
        // The peer reads on.
        let sent = story.core.out().len();
        story.core.out().advance(sent);
    }
}
