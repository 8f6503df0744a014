//! From what is asked to what shall be durable.

use std::fmt::Write as _;

use serde::Serialize;

use crate::delivery::{Action, Attempt, Change, Look, Outcome};
use crate::ids::Offset;
use crate::log::LogError;
use crate::planted::{self, Bug};

use super::{Commands, Desk, GroupKey, GroupSlot, Topic, feed};

impl Topic {
    /// What is known of the message at `offset` if it is unsettled and has this id: one with these
    /// milliseconds that leads back to its offset by itself, or, without them, another.
    pub fn pending(&mut self, key: GroupKey, offset: Offset, millis: Option<u64>) -> Option<Look> {
        let GroupSlot { group, feed, .. } = &mut self.groups[key.0];
        let look = Some(group.look(offset)).filter(|look| look.is_unsettled)?;
        let mut mark = look.mark;
        if mark.is_none() && millis.is_some() && !group.attempts(offset).is_empty() {
            // It was tried before a restart, and not given out since.
            mark = feed.mark(self.tag, &self.log, offset);
        }
        (mark == Some(millis.unwrap_or(feed::GIVEN))).then_some(look)
    }

    /// Makes a change that a group asks for into commands. A dead letter and the settling of its
    /// original are in one batch: both are durable or none. If the original can't be read at the moment, the
    /// group is told so.
    pub(super) fn write_change(
        &mut self,
        key: GroupKey,
        change: &Change,
        desk: &mut Desk<'_>,
        more: &mut Vec<Action>,
    ) -> Result<(), LogError> {
        if let Change::DeadLettered { offset, attempt } = change {
            if let Err(error) = self.write_dead_letter(key, *offset, attempt, desk) {
                let slot = &mut self.groups[key.0];
                tracing::error!(event = "message_unreadable", topic = %self.name,
                    group = %slot.name, offset = offset.get(), "{error}");
                slot.group.postpone(desk.now, *offset, attempt.clone(), more);
                return Ok(());
            }
            if planted::has(Bug::DeadLetterApart) {
                let mut later = Commands::default();
                later.topic(&self.name);
                later.group(&self.groups[key.0].name);
                later.change(change);
                planted::keep(self.name.as_str(), later.into_bytes());
                return Ok(());
            }
        }
        desk.commands.topic(&self.name);
        desk.commands.group(&self.groups[key.0].name);
        desk.commands.change(change);
        Ok(())
    }

    /// What is damaged becomes a dead letter with what is known of it.
    ///
    /// # Errors
    /// What the disk says; it may be a passing shortage. Nothing is written.
    fn write_dead_letter(
        &mut self,
        key: GroupKey,
        offset: Offset,
        last: &Attempt,
        desk: &mut Desk<'_>,
    ) -> Result<(), LogError> {
        let dead_letters = self.name.dead_letter().expect("a .dlq group has no dead letters");
        let slot = &mut self.groups[key.0];
        let (attempts, failures) = slot.group.story(offset, last);
        let mut failure_reason = reason(last);
        let original = match slot.feed.original(offset) {
            Ok(original) => original,
            Err(error @ LogError::Io { .. }) => return Err(error),
            Err(error) => {
                write!(failure_reason, "; {error}").expect("a String takes all");
                feed::Original::default()
            }
        };
        let record = DeadLetter {
            original_topic: self.name.as_str(),
            original_id: &original.id,
            original_offset: offset.get(),
            original_ts: &original.ts,
            group: slot.name.as_str(),
            retry_count: failures.saturating_sub(1),
            failure_reason,
            dlq_timestamp: raw_number(&desk.now.wall.to_string()),
            attempts: &attempts,
        };
        let json = serde_json::to_string(&record).expect("a dead letter has no odd keys");
        let members = &json[1..json.len() - 1];
        desk.commands.topic(&dead_letters);
        desk.commands.time(desk.now.wall);
        desk.commands.append_more("", members, &original.message);
        Ok(())
    }
}

/// The members of a dead letter's record that tell where it comes from.
#[derive(Serialize)]
struct DeadLetter<'a> {
    original_topic: &'a str,
    original_id: &'a str,
    original_offset: u64,
    original_ts: &'a serde_json::value::RawValue,
    group: &'a str,
    retry_count: u32,
    failure_reason: String,
    dlq_timestamp: Box<serde_json::value::RawValue>,
    attempts: &'a [Attempt],
}

/// A number as it is written, to the last digit.
pub(super) fn raw_number(digits: &str) -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string(digits.to_owned()).expect("digits are JSON")
}

fn reason(last: &Attempt) -> String {
    let mut text = match last.outcome {
        Outcome::Timeout => "ack timeout".to_owned(),
        Outcome::Nack => "nack".to_owned(),
        Outcome::Disconnect => "disconnect".to_owned(),
        Outcome::Dead => "dead consumer".to_owned(),
    };
    for part in [&last.reason, &last.error].into_iter().flatten() {
        write!(text, ": {part}").expect("a String takes all");
    }
    text
}
