//! What must be true after every step. An oracle says what it saw; a panic of the broker's own
//! assertions counts as well.

mod acked;
mod attempts;
mod dead_letters;
mod groups;
mod published;
mod settled;
mod stored;

use super::ledger::Ledger;
use super::node::Node;
use super::records::Records;

/// What oracles look at.
pub(super) struct View<'a> {
    pub(super) node: &'a Node,
    pub(super) ledger: &'a Ledger,
    pub(super) records: &'a Records,
    /// The daemon has just started: everything has to be looked at again.
    pub(super) is_fresh: bool,
}

/// All oracles, with what they remember.
#[derive(Default)]
pub(super) struct Oracles {
    groups: groups::Groups,
    attempts: attempts::Attempts,
    dead_letters: dead_letters::DeadLetters,
}

impl Oracles {
    /// Asks each of them. The error is the name of the oracle and what it saw.
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), (&'static str, String)> {
        let named = |name| move |why| (name, why);
        stored::check(view).map_err(named("stored"))?;
        published::check(view).map_err(named("published"))?;
        acked::check(view).map_err(named("acked"))?;
        self.groups.check(view).map_err(named("groups"))?;
        self.attempts.check(view).map_err(named("attempts"))?;
        self.dead_letters.check(view).map_err(named("dead letters"))?;
        if view.is_fresh {
            self.settled(view)?;
        }
        Ok(())
    }

    /// Asks what takes too long to ask after every step.
    pub(super) fn settled(&self, view: &View<'_>) -> Result<(), (&'static str, String)> {
        settled::check(view, &self.groups, &self.dead_letters).map_err(|why| ("settled", why))
    }

    /// At the end: whether everything was acknowledged or dead-lettered.
    pub(super) fn is_complete(&self, node: &Node) -> Result<(), String> {
        self.groups.is_complete(node)
    }
}
