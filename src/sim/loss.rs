//! What a power cut may take, by the fsync setting, and how it is taken from what the simulation
//! remembers: then the oracles go on with what is left.

use std::time::Duration;

use crate::config::Fsync;
use crate::time::Moment;
use crate::wal::Lsn;

use super::node::Node;
use super::oracle::acked::is_settled;
use super::world::World;

/// A sync that is due has come to its end after so much time.
pub(super) const SYNC_TIME: Duration = Duration::from_millis(30);

/// How the daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    /// When. It may have failed to start since.
    pub(super) at: Moment,
    /// Its setting.
    pub(super) fsync: Fsync,
    /// Whether the power went, then or since: what was not synced may be gone.
    pub(super) is_cut: bool,
    /// The last record that it wrote to the log.
    pub(super) last: Lsn,
}

/// What may be lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    ended: Ended,
}

impl Loss {
    /// What may be lost of a daemon that ended like this; `None` if nothing may. What was there when it
    /// started may not: a start syncs what it has found, whatever the setting was before.
    pub(super) fn of(ended: Ended) -> Option<Loss> {
        (ended.is_cut && ended.fsync != Fsync::Always).then_some(Loss { ended })
    }

    /// Whether it may have taken what was promised at that moment.
    pub(super) fn excuses(&self, promised: Moment) -> bool {
        match self.ended.fsync {
            Fsync::Always => false,
            Fsync::Interval(interval) => promised + interval + SYNC_TIME >= self.ended.at,
            Fsync::Never => true,
        }
    }
}

impl World {
    /// Takes from ledger, records and oracles what `node` does not have any more and does not have
    /// to have. What is missing and has no excuse stays, for the oracles to find.
    pub(super) fn forgive(&mut self, node: &Node, loss: &Loss) {
        let end = |name: &str| {
            let mut topics = node.shards.iter().flat_map(|shard| shard.topics());
            let topic = topics.find(|topic| topic.name().as_str() == name);
            topic.map_or(0, |topic| topic.log().end().get())
        };
        let names: Vec<String> = self.records.topics.keys().cloned().collect();
        for name in names {
            let count = usize::try_from(end(&name)).expect("few messages");
            self.records.forget_behind(&name, count);
        }
        let ledger = &mut self.ledger;
        let promised = ledger.published.len() + ledger.acked.len();
        ledger
            .published
            .retain(|_, (place, at)| place.offset <= end(&place.topic) || !loss.excuses(*at));
        ledger.acked.retain(|unit, at| is_settled(node, unit) || !loss.excuses(*at));
        // The next message with this offset is another one.
        ledger.acks_sent.retain(|(topic, _, offset), _| *offset <= end(topic));
        let lost = promised - ledger.published.len() - ledger.acked.len();
        ledger.lost += lost;
        self.oracles.forget(node, &self.records, loss);
        if lost > 0 {
            self.note(format_args!("{lost} promises are lost, as they may be"));
        }
    }
}
