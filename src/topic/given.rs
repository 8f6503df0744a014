//! Ids that do not lead back to their message by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::ids::Offset;

use super::{GroupKey, TopicKey};

/// A message of a group.
type Place = (TopicKey, GroupKey, Offset);

/// Which messages of a shard's groups are meant by ids that do not tell it by themselves: a
/// prototype's, or those of a file that was changed by hand. They are known from their delivery until
/// they are settled. To look one up costs no more the more topics and groups there are without it.
#[derive(Debug, Default)]
pub struct GivenIds {
    by_id: BTreeMap<Arc<[u8]>, BTreeSet<Place>>,
    by_place: BTreeMap<Place, Arc<[u8]>>,
}

impl GivenIds {
    /// The message has this id, whatever it was before.
    pub(super) fn insert(&mut self, place: Place, id: &[u8]) {
        let (topic, group, offset) = place;
        self.remove(topic, group, offset..=offset);
        let id: Arc<[u8]> = id.into();
        self.by_id.entry(Arc::clone(&id)).or_default().insert(place);
        self.by_place.insert(place, id);
    }

    /// These messages of a group are settled.
    pub(super) fn remove(
        &mut self,
        topic: TopicKey,
        group: GroupKey,
        offsets: RangeInclusive<Offset>,
    ) {
        if self.by_place.is_empty() {
            return;
        }
        let places = (topic, group, *offsets.start())..=(topic, group, *offsets.end());
        for (place, id) in self.by_place.extract_if(places, |_, _| true) {
            let others = self.by_id.get_mut(&id).expect("it is in both or in none");
            others.remove(&place);
            if others.is_empty() {
                self.by_id.remove(&id);
            }
        }
    }

    /// The messages with this id.
    pub fn of(&self, id: &[u8]) -> impl Iterator<Item = Place> {
        self.by_id.get(id).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_means_what_is_not_settled_of_those_that_have_it() {
        let place = |topic, group, offset| (TopicKey(topic), GroupKey(group), Offset::new(offset));
        let mut ids = GivenIds::default();
        let all = [place(0, 0, 1), place(0, 1, 1), place(2, 0, 9)];
        for place in all {
            ids.insert(place, b"order-7");
        }
        ids.insert(place(0, 0, 2), b"changed by hand");
        ids.insert(place(0, 0, 2), b"order-8");
        assert_eq!(ids.of(b"changed by hand").count(), 0);
        assert_eq!(ids.of(b"order-7").collect::<Vec<_>>(), all);
        ids.remove(TopicKey(0), GroupKey(0), Offset::new(1)..=Offset::new(2));
        assert_eq!(ids.of(b"order-7").collect::<Vec<_>>(), all[1..]);
        assert_eq!(ids.of(b"order-8").count(), 0);
        ids.remove(TopicKey(0), GroupKey(1), Offset::new(2)..=Offset::new(9));
        ids.remove(TopicKey(2), GroupKey(0), Offset::new(9)..=Offset::new(9));
        ids.remove(TopicKey(0), GroupKey(1), Offset::new(1)..=Offset::new(1));
        assert!(ids.by_id.is_empty() && ids.by_place.is_empty(), "{ids:?}");
    }
}
