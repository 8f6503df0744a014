//! What goes wrong.

use std::time::Duration;

use rand::RngExt;

use crate::disk::Space;
use crate::disk::sim::{Crash, Failure, Fault, Hit, Op};

use super::world::World;

/// What fails with EIO: everything that the disk can be asked for. Syncs fail most often: they are
/// what is believed.
const FAILING: &[Op] = &[
    Op::Sync,
    Op::Sync,
    Op::Sync,
    Op::Sync,
    Op::SyncDir,
    Op::SyncDir,
    Op::Write,
    Op::Write,
    Op::Create,
    Op::Open,
    Op::Rename,
    Op::Remove,
    Op::Truncate,
    Op::CreateDir,
    Op::Read,
    Op::Read,
    Op::Len,
    Op::List,
    Op::Lock,
    Op::Space,
];

/// What a full disk says no to: everything that changes something. Writes most often.
const FILLING: &[Op] = &[
    Op::Write,
    Op::Write,
    Op::Write,
    Op::Create,
    Op::Rename,
    Op::Remove,
    Op::Truncate,
    Op::CreateDir,
    Op::Sync,
    Op::SyncDir,
];

/// What needs a file descriptor.
const OPENING: &[Op] = &[Op::Open, Op::Open, Op::Create, Op::List];

impl World {
    /// Something goes wrong, or almost.
    pub(super) fn chaos(&mut self) {
        if self.node.is_none() {
            return;
        }
        match self.rng.random_range(0..100) {
            0..8 => {
                let how = match self.rng.random_range(0..3) {
                    0 => Crash::LoseUnsynced,
                    _ => Crash::Random { seed: self.rng.random() },
                };
                self.die(how);
            }
            8..16 => self.die(Crash::KeepAll),
            16..26 => {
                let changes = self.rng.random_range(0..40);
                self.disk.cut_power_after(changes);
                self.note(format_args!("the power will go at change {changes}"));
            }
            26..45 => {
                if let Some(conn) = self.any_link() {
                    self.cut(conn);
                }
            }
            45..55 => self.fail(Failure::Io, 1),
            55..62 if self.heal_at.is_none() => {
                let failure = match self.rng.random_range(0..2) {
                    0 => Failure::NoSpace,
                    _ => Failure::Short { written: self.rng.random_range(0..300) },
                };
                self.fail(failure, u64::MAX);
                self.heal_later();
            }
            62..68 if self.heal_at.is_none() => {
                self.disk.set_space(Space { free: 1000, total: 1 << 40 });
                self.note(format_args!("the disk has little room"));
                self.heal_later();
            }
            68..74 if self.heal_at.is_none() => {
                self.fail(Failure::NoDescriptor, u64::MAX);
                self.heal_later();
            }
            _ => {}
        }
    }

    /// Notes what the disk refused since the last time; says whether that is anything.
    pub(super) fn note_hits(&mut self) -> bool {
        let hits = self.disk.take_hits();
        self.is_broken |= hits.iter().any(may_end_it);
        !hits.is_empty()
    }

    fn heal_later(&mut self) {
        let time = Duration::from_millis(self.rng.random_range(500..4000));
        self.heal_at = Some(self.now.moment + time);
    }

    /// The disk fails while the daemon starts.
    pub(super) fn fail_soon(&mut self) {
        let failure = if self.rng.random_bool(0.5) { Failure::Io } else { Failure::NoSpace };
        self.fail(failure, 1);
    }

    fn fail(&mut self, failure: Failure, times: u64) {
        let ops = match failure {
            Failure::Io | Failure::Other(_) => FAILING,
            Failure::NoSpace | Failure::Short { .. } => FILLING,
            Failure::NoDescriptor => OPENING,
        };
        let op = ops[self.rng.random_range(0..ops.len())];
        let skip = self.rng.random_range(0..10);
        let places = ["", ".log", ".wal", "checkpoint"];
        let path_has = places[self.rng.random_range(0..places.len())].to_owned();
        self.note(format_args!("{op:?} of *{path_has}* will fail: {failure:?} after {skip}"));
        self.disk.fail(Fault { op: Some(op), path_has, skip, times, failure });
    }
}

/// Whether the daemon may end for it, now or when it comes to what that broke: the disk failed, or it is
/// not known what a sync or a write to the log has done. For want of anything else it must not.
fn may_end_it(hit: &Hit) -> bool {
    let is_unknown = match hit.op {
        Op::Sync | Op::SyncDir => true,
        Op::Write => hit.path.ends_with(".wal"),
        _ => false,
    };
    match hit.failure {
        Failure::Io | Failure::Other(_) => true,
        Failure::NoSpace | Failure::Short { .. } | Failure::NoDescriptor => is_unknown,
    }
}
