//! What happens in groups, as structured events of the log.

use crate::delivery::{Departure, Report};
use crate::ids::{GroupName, TopicName};

/// Writes the event. What happens once for each message is at `info` only when something is wrong
/// with it.
pub(super) fn log(topic: &TopicName, group: &GroupName, report: &Report) {
    match report {
        Report::Joined { member, members } => {
            tracing::info!(event = "member_joined", %topic, %group, %member, members,
                "a member joined");
        }
        Report::Left { member, why: Departure::Closed, held, members } => {
            tracing::info!(event = "member_left", %topic, %group, %member, held, members,
                "a member's connection was closed; redistributing {held} pending messages");
        }
        Report::Left { member, why: Departure::Silent, held, members } => {
            tracing::warn!(event = "member_dead", %topic, %group, %member, held, members,
                "consumer detected as dead; redistributing {held} pending messages");
        }
        Report::Redistributed { offset, to } => {
            tracing::info!(event = "redistributed", %topic, %group, %offset, %to,
                "redistributed a message of a consumer that is gone");
        }
        Report::Retry { offset, retry, of, delay, outcome } => {
            tracing::warn!(event = "retry", %topic, %group, %offset, retry, of, ?delay, ?outcome,
                "retrying message {offset} (attempt {retry}/{of}) after {delay:?}");
        }
        Report::DeadLettered { offset, attempts } => {
            let to = topic.dead_letter();
            let to = to.as_ref().map_or("", TopicName::as_str);
            tracing::error!(event = "dead_lettered", %topic, %group, %offset, attempts, to,
                "message {offset} exceeded max retries, sent to {to}");
        }
        Report::GaveUp { offset, attempts } => {
            tracing::error!(event = "gave_up", %topic, %group, %offset, attempts,
                "message {offset} exceeded max retries in a group of dead letters: it stays in \
                 {topic} and is not tried again");
        }
        Report::LateAck { offset } => {
            tracing::info!(event = "late_ack", %topic, %group, %offset,
                "an acknowledgement came after its time, and counts");
        }
    }
}
