//! What happens in groups, as structured events of the log.

use crate::delivery::Report;
use crate::ids::{GroupName, TopicName};

/// Writes the event of a group that has so many members now.
pub(super) fn log(topic: &TopicName, group: &GroupName, members: usize, report: &Report) {
    match report {
        Report::Joined { name, prefetch, .. } => {
            tracing::info!(event = "member_joined", %topic, %group, member = %name, members,
                prefetch, "a member joined");
        }
        Report::Left { name, held, .. } => {
            tracing::info!(event = "member_left", %topic, %group, member = %name, held,
                "a member left; redistributing {held} pending messages");
        }
        Report::Dead { name, held, .. } => {
            tracing::warn!(event = "member_dead", %topic, %group, member = %name, held,
                "consumer detected as dead; redistributing {held} pending messages");
        }
        Report::Paused { name, .. } => {
            tracing::debug!(event = "member_paused", %topic, %group, member = %name,
                "a member reads slowly: it gets no more before it has read what it was sent");
        }
        Report::Resumed { name, .. } => {
            tracing::debug!(event = "member_resumed", %topic, %group, member = %name,
                "a member has read what it was sent, and gets messages again");
        }
        Report::Redistributed { offset, from, to } => {
            tracing::info!(event = "redistributed", %topic, %group, offset = offset.get(), %from,
                %to, "redistributed a message of a consumer that is gone");
        }
        Report::Retry { offset, name, outcome, retry, of, delay } => {
            tracing::warn!(event = "retry", %topic, %group, offset = offset.get(),
                member = %name, %outcome, retry, of, ?delay,
                "retrying message {offset} (attempt {retry}/{of}) after {delay:?}");
        }
        Report::DeadLettering { offset, name, outcome, attempts } => {
            let to = topic.dead_letter();
            let to = to.as_ref().map_or("", TopicName::as_str);
            tracing::error!(event = "dead_lettered", %topic, %group, offset = offset.get(),
                member = %name, %outcome, attempts, to,
                "message {offset} exceeded max retries, sent to {to}");
        }
        Report::GaveUp { offset, name, outcome, attempts } => {
            tracing::error!(event = "gave_up", %topic, %group, offset = offset.get(),
                member = %name, %outcome, attempts,
                "message {offset} of a dead-letter topic failed for good: it stays in {topic} and is \
                 not tried again");
        }
        Report::LateAck { offset, .. } => {
            tracing::info!(event = "late_ack", %topic, %group, offset = offset.get(),
                "an acknowledgement came after its time, and counts");
        }
    }
}
