//! The groups that a connection is a member of.

use crate::topic::{GroupKey, TopicKey};

/// A member's place: one group of one topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Membership {
    pub(super) topic: TopicKey,
    pub(super) group: GroupKey,
}

/// Those of a connection, found by the tag that is in a message's id. However many there are in other
/// topics, that costs the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Memberships {
    /// Each with the tag of its topic, in order.
    list: Vec<(u32, Membership)>,
    /// The one that was found last, as far as is known. A message may go to many groups of one
    /// connection: their acknowledgements come in the order of its deliveries.
    last: usize,
    /// Those that were asked for and not answered yet: nothing is delivered there, but what was before the
    /// connection was lost may be acknowledged.
    asked: Vec<(u32, Membership)>,
}

impl Memberships {
    /// Notes that one is asked for, of a group that exists.
    pub(super) fn ask(&mut self, tag: u32, place: Membership) {
        if !self.contains(tag, place) {
            self.asked.push((tag, place));
        }
    }

    /// Adds one in a topic with this tag; says whether it is new.
    pub(super) fn insert(&mut self, tag: u32, place: Membership) -> bool {
        self.asked.retain(|asked| *asked != (tag, place));
        let at = self.list.binary_search(&(tag, place));
        if let Err(at) = at {
            self.list.insert(at, (tag, place));
        }
        at.is_err()
    }

    /// Whether this one, in a topic with this tag, is among them, or is asked for.
    pub(super) fn contains(&self, tag: u32, place: Membership) -> bool {
        self.list.binary_search(&(tag, place)).is_ok() || self.asked.contains(&(tag, place))
    }

    /// Whether there is but one, in all topics and with those that are asked for.
    pub(super) fn is_one(&self) -> bool {
        self.list.len() + self.asked.len() == 1
    }

    /// All of them, but for those that are only asked for.
    pub(super) fn iter(&self) -> impl Iterator<Item = Membership> {
        self.list.iter().map(|(_, place)| *place)
    }

    /// Those in topics with this tag, with their numbers; the one that was found last comes first, and those
    /// that are asked for come last.
    pub(super) fn of(&self, tag: u32) -> impl Iterator<Item = (usize, Membership)> {
        let begin = self.list.partition_point(|(other, _)| *other < tag);
        let end = begin + self.list[begin..].partition_point(|(other, _)| *other == tag);
        let first = if (begin..end).contains(&self.last) { self.last } else { begin };
        let is_of = move |asked: &&(u32, Membership)| asked.0 == tag;
        let asked = self.asked.iter().filter(is_of).map(|(_, place)| (usize::MAX, *place));
        (first..end).chain(begin..first).map(|at| (at, self.list[at].1)).chain(asked)
    }

    /// The one of this number has what was looked for.
    pub(super) fn found(&mut self, number: usize) {
        self.last = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::GroupKey;

    fn place(topic: usize, group: usize) -> Membership {
        Membership { topic: TopicKey::new(topic), group: GroupKey::new(group) }
    }

    #[test]
    fn those_of_a_tag_are_found_the_last_one_first() {
        let mut all = Memberships::default();
        for (tag, topic, group) in [(7, 2, 0), (5, 1, 1), (7, 0, 0), (5, 1, 0), (5, 1, 2)] {
            assert!(all.insert(tag, place(topic, group)));
        }
        assert!(!all.insert(5, place(1, 1)), "it is there already");
        let of = |all: &Memberships, tag| all.of(tag).map(|(_, place)| place).collect::<Vec<_>>();
        assert_eq!(of(&all, 5), [place(1, 0), place(1, 1), place(1, 2)]);
        assert_eq!(of(&all, 7), [place(0, 0), place(2, 0)], "tags may be the same by chance");
        assert_eq!(of(&all, 6), []);
        let (number, _) = all.of(5).nth(1).unwrap();
        all.found(number);
        assert_eq!(of(&all, 5), [place(1, 1), place(1, 2), place(1, 0)]);
        assert_eq!(of(&all, 7), [place(0, 0), place(2, 0)]);
        assert!(all.contains(5, place(1, 1)) && !all.contains(7, place(1, 1)));
        assert_eq!(all.iter().count(), 5);
    }

    #[test]
    fn one_that_is_asked_for_is_found_and_is_none_yet() {
        let mut all = Memberships::default();
        all.insert(5, place(1, 1));
        for _ in 0..2 {
            all.ask(5, place(1, 0));
            all.ask(5, place(1, 1));
        }
        let of = |all: &Memberships, tag| all.of(tag).map(|(_, place)| place).collect::<Vec<_>>();
        assert_eq!((of(&all, 5), all.iter().count()), (vec![place(1, 1), place(1, 0)], 1));
        assert!(!all.is_one());
        assert!(all.contains(5, place(1, 0)) && of(&all, 7).is_empty());
        assert!(all.insert(5, place(1, 0)), "it is new");
        assert_eq!((of(&all, 5), all.iter().count()), (vec![place(1, 0), place(1, 1)], 2));
    }
}
