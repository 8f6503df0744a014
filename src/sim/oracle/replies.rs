//! What a client hears is the answer to what it asked, in the order in which it asked, and the next
//! message of what it reads, as that is stored. Who reads too slowly may miss what is no longer kept, and
//! nothing else.

use std::ops::RangeInclusive;

use crate::ids::{DerivedId, GroupName, Offset, TopicName};
use crate::time::Timestamp;

use super::super::client::offset;
use super::super::ledger::{Due, Extent, Heard, Told, Unit};
use super::View;
use super::dead_letters::DeadLetters;

pub(super) fn check(view: &View<'_>, dead_letters: &DeadLetters) -> Result<(), String> {
    view.ledger.heard.iter().try_for_each(|heard| {
        let Heard { who, line, due } = heard;
        judge(view, dead_letters, line, due).map_err(|why| format!("{who}: {why}: {line}"))
    })
}

fn judge(view: &View<'_>, dead_letters: &DeadLetters, line: &str, due: &Due) -> Result<(), String> {
    let words: Vec<&str> = line.splitn(6, ' ').collect();
    let starts = |with: [&str; 2]| words.get(..2) == Some(&with);
    let is_next = |topic: &str, next: RangeInclusive<u64>| {
        let follows =
            |at: u64| next.contains(&at) || at > *next.end() && at <= view.node.extent(topic).first;
        offset(&words).is_some_and(follows) && is_stored(view, topic, &words)
    };
    let behind = |last: Option<u64>| last.map_or(1..=u64::MAX, |last| last + 1..=last + 1);
    let right = match due {
        Due::Nothing => return Err("nothing was asked".to_owned()),
        Due::Line(expected) => line == expected,
        Due::Published(topic) => {
            let is_placed = offset(&words).is_some() && is_of(topic, words[2]);
            starts(["OK", "published"]) && is_placed || starts(["ERR", "DISK_FULL"])
        }
        Due::Acked(unit) => {
            let is_late = || is_done_with(view, dead_letters, unit);
            line == "OK ack_received" || starts(["ERR", "NOT_PENDING"]) && is_late()
        }
        Due::History { topic, last } => is_next(topic, behind(*last)),
        Due::HistoryEnd(told) => {
            let now = view.node.extent(told.topic);
            if line == "OK history end" {
                is_whole(told, now)
            } else {
                // A disk that fails while it is read ends a history with an error.
                let is_gone = starts(["ERR", "OFFSET_GONE"]) && now.first > told.asked.first;
                let is_full = starts(["ERR", "DISK_FULL"]) && is_whole_but(told, now, &words);
                is_gone || is_full || starts(["ERR", "BUSY"])
            }
        }
        Due::Follow { topic, next } => is_next(topic, next.clone()),
        Due::Deliver { topic } => is_next(topic, 1..=u64::MAX),
    };
    right.then_some(()).ok_or_else(|| format!("it expected {due:?}"))
}

/// Whether the message, which a member had, may not be acknowledged any more, however late or in time it
/// does that: somebody else has, or it is given up.
fn is_done_with(view: &View<'_>, dead_letters: &DeadLetters, unit: &Unit) -> bool {
    let (name, group, offset) = unit;
    let Some(topic) = view.node.topic(name) else { return false };
    let group = GroupName::parse(group.as_bytes()).expect("groups of the cast are groups");
    let Some(group) = topic.group_key(&group).map(|key| topic.group(key)) else { return false };
    let offset = Offset::new(*offset);
    if !group.progress().is_settled(offset) && group.look(offset).is_unsettled {
        return false;
    }
    let acks = view.ledger.acks_sent.get(unit).copied().unwrap_or_default();
    // One is the one that was refused.
    if acks > 1 || dead_letters.has(unit) {
        return true;
    }
    // A dead letter may be on its way, or not be seen yet. A dead letter has none.
    let of_topic = topic.name().dead_letter();
    let is_seen = |letters: &TopicName| {
        let Extent { visible, end, .. } = view.node.extent(letters.as_str());
        visible == end
    };
    group.counts().dying > 0 || !of_topic.is_some_and(|letters| is_seen(&letters))
}

/// Whether a history is what it should be at some moment between the question and the answer, when the
/// topic reaches as far as it does `now`: the last messages, as many as were asked for or are kept.
fn is_whole(told: &Told, now: Extent) -> bool {
    let Told { wanted, asked, count, first, last, .. } = *told;
    if count == 0 {
        // There may have been none that was kept.
        return wanted == 0 || asked.end == 0 || now.first > asked.end;
    }
    let is_last = (asked.end..=now.visible).contains(&last) && last + 1 == first + count;
    let is_all = first <= now.first;
    is_last && first >= asked.first && (count == wanted || count < wanted && is_all)
}

/// The same for one that names the messages which a full disk did not let be written yet: those, which are
/// the last ones, are part of what was asked for.
fn is_whole_but(told: &Told, now: Extent, words: &[&str]) -> bool {
    let number = |at: usize| words.get(at)?.split(' ').next()?.parse::<u64>().ok();
    let (Some(unwritten), Some(end)) = (number(3), number(5)) else { return false };
    let Told { wanted, asked, count, first, last, .. } = *told;
    let is_due = (asked.visible..=now.visible).contains(&(unwritten - 1))
        && unwritten <= end
        && (asked.end..=now.end).contains(&end);
    let left = wanted.saturating_sub(end + 1 - unwritten);
    let is_all = count == 0 || first <= now.first;
    let is_next = count == 0 || last + 1 == unwritten && last + 1 == first + count;
    is_due && is_next && (count == left || count < left && is_all)
}

/// Whether a line is that of the message which is stored in this topic with its offset.
fn is_stored(view: &View<'_>, topic: &str, words: &[&str]) -> bool {
    let [_, of, id, offset, ts, message] = words else { return false };
    let index = offset.parse().ok().and_then(|offset: usize| offset.checked_sub(1));
    let all = view.records.topics.get(topic);
    let Some(stored) = index.and_then(|index| all?.get(index)) else { return false };
    // Of a dead letter the reader gets the whole record.
    let text = stored.raw.as_ref().unwrap_or(&stored.message);
    (*of, *id, *message) == (topic, &*stored.id, text) && Timestamp::parse(ts) == Some(stored.ts)
}

/// Whether the id is one of a message of the topic.
fn is_of(topic: &str, id: &str) -> bool {
    let topic = TopicName::parse(topic.as_bytes()).expect("topics of the cast are topics");
    DerivedId::parse(id.as_bytes()).is_some_and(|id| id.tag == topic.tag())
}
