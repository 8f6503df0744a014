//! Attempts that a group has asked to be made durable and that are not yet: a message may fail for good
//! before its last failures but one are on disk, and its dead letter tells of them all the same.

use std::collections::BTreeMap;

use super::attempt::Attempt;
use super::progress::ATTEMPTS_KEPT_MAX;
use crate::ids::Offset;

#[derive(Default)]
pub(super) struct Unsaved(BTreeMap<Offset, Vec<Attempt>>);

impl Unsaved {
    /// One was asked for. Of very many the oldest are forgotten, as of the durable ones.
    pub(super) fn add(&mut self, offset: Offset, attempt: Attempt) {
        let attempts = self.0.entry(offset).or_default();
        if attempts.len() == ATTEMPTS_KEPT_MAX {
            attempts.remove(0);
        }
        attempts.push(attempt);
    }

    /// Those up to number `n` are durable.
    pub(super) fn saved(&mut self, offset: Offset, n: u32) {
        if let Some(attempts) = self.0.get_mut(&offset) {
            attempts.retain(|attempt| attempt.n > n);
            if attempts.is_empty() {
                self.0.remove(&offset);
            }
        }
    }

    /// The message is done with.
    pub(super) fn forget(&mut self, offset: Offset) {
        self.0.remove(&offset);
    }

    /// Those of a message, oldest first.
    pub(super) fn of(&self, offset: Offset) -> &[Attempt] {
        self.0.get(&offset).map_or(&[], Vec::as_slice)
    }

    /// The messages that have some.
    pub(super) fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.0.keys().copied()
    }
}
