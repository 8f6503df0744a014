//! What must be true after every step. An oracle says what it saw; a panic of the broker's own
//! assertions counts as well. Each is proven by a mistake that it sees: `wiber-sim bugs`.

pub(super) mod acked;
mod attempts;
mod credit;
mod dead_letters;
mod dense;
mod floor;
mod groups;
mod kept;
mod leases;
mod memory;
mod prefix;
mod published;
mod ready;
mod replies;
mod stored;

use crate::time::Now;

use super::journal::Journal;
use super::ledger::Ledger;
use super::loss::{Ended, Loss};
use super::node::Node;
use super::records::Records;

/// What oracles look at.
pub(super) struct View<'a> {
    pub(super) now: Now,
    pub(super) node: &'a Node,
    pub(super) ledger: &'a Ledger,
    pub(super) records: &'a Records,
    pub(super) journal: &'a Journal,
    /// The daemon has just started: everything has to be looked at again.
    pub(super) is_fresh: bool,
    /// A shard had a turn: what is stored and the state of groups change by nothing else.
    pub(super) has_moved: bool,
    /// How it had ended, if it has just started again.
    pub(super) ended: Option<Ended>,
}

/// All oracles, with what they remember.
#[derive(Default)]
pub(super) struct Oracles {
    published: published::Published,
    dense: dense::Dense,
    stored: stored::Stored,
    groups: groups::Groups,
    kept: kept::Kept,
    attempts: attempts::Attempts,
    dead_letters: dead_letters::DeadLetters,
    floor: floor::Floor,
}

impl Oracles {
    /// Asks each of them. The error is the name of the oracle, which is that of its file, and what
    /// it saw.
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), (&'static str, String)> {
        let named = |name| move |why| (name, why);
        replies::check(view, &self.dead_letters).map_err(named("replies"))?;
        self.published.check(view).map_err(named("published"))?;
        acked::check(view).map_err(named("acked"))?;
        if !view.has_moved {
            return Ok(());
        }
        self.dense.check(view).map_err(named("dense"))?;
        self.stored.check(view).map_err(named("stored"))?;
        self.groups.check(view).map_err(named("groups"))?;
        self.kept.check(view).map_err(named("kept"))?;
        prefix::check(view).map_err(named("prefix"))?;
        self.dead_letters.check(view).map_err(named("dead_letters"))?;
        self.floor.check(view, &self.groups, &self.dead_letters).map_err(named("floor"))?;
        self.attempts.check(view).map_err(named("attempts"))?;
        leases::check(view).map_err(named("leases"))?;
        credit::check(view).map_err(named("credit"))?;
        ready::check(view).map_err(named("ready"))?;
        memory::check(view).map_err(named("memory"))?;
        groups::Groups::check_themselves(view);
        Ok(())
    }

    /// A power cut took what it may: only this is there still.
    pub(super) fn forget(&mut self, node: &Node, records: &Records, loss: &Loss) {
        self.dense.forget(records);
        self.stored.forget(records);
        self.groups.forget(node, loss);
        self.kept.forget();
        self.attempts.forget();
        self.dead_letters.forget(records);
        self.floor.forget();
    }

    /// How often topics let go of messages.
    pub(super) fn trims(&self) -> usize {
        self.kept.trims()
    }

    /// At the end: whether everything was acknowledged or dead-lettered.
    pub(super) fn is_complete(&self, node: &Node) -> Result<(), String> {
        self.groups.is_complete(node)
    }
}
