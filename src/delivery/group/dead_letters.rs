//! What becomes of a message in the end that nobody has handled.

use std::sync::Arc;

use super::{Group, Slot, State};
use crate::delivery::{Action, Attempt, Change, Report, Verdict};
use crate::ids::Offset;
use crate::time::Now;

impl Group {
    /// What a dead letter tells of a message whose last attempt is `last`: all attempts, durable or not yet,
    /// as far as they are kept, and how many counted.
    pub fn story(&self, offset: Offset, last: &Attempt) -> (Vec<Attempt>, u32) {
        self.progress.story(offset, self.unsaved.of(offset).iter().chain([last]))
    }

    /// The message is given up: a dead letter, or settled where there are none.
    pub(super) fn give_up(
        &mut self,
        slot: Slot,
        name: Arc<str>,
        attempt: Attempt,
        out: &mut Vec<Action>,
    ) -> Verdict {
        let (offset, attempts, outcome) =
            (self.leases.get(slot).offset, attempt.n, attempt.outcome);
        if self.policy.dead_letters {
            self.leases.set(slot, State::Dying);
            out.push(Action::Commit(Change::DeadLettered { offset, attempt }));
            out.push(Action::Report(Report::DeadLettering { offset, name, outcome, attempts }));
            Verdict::DeadLettering
        } else {
            self.leases.set(slot, State::Settling);
            out.push(Action::Commit(Change::Settled { offset }));
            out.push(Action::Report(Report::GaveUp { offset, name, outcome, attempts }));
            Verdict::GaveUp
        }
    }

    /// The dead letter that was just asked for can't be written now: the message is delivered once more when
    /// an ack timeout is over, and given up then.
    pub fn postpone(&mut self, now: Now, offset: Offset, attempt: Attempt, out: &mut Vec<Action>) {
        let dying = self.leases.find(offset);
        let dying = dying.filter(|slot| self.leases.get(*slot).state() == State::Dying);
        let Some(slot) = dying else { return };
        self.leases.set(slot, State::Waiting { until: now.moment + self.policy.ack_timeout });
        self.unsaved.add(offset, attempt.clone());
        out.push(Action::Commit(Change::Failed { offset, attempt }));
    }
}
