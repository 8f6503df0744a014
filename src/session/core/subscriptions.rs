//! What a connection subscribed to.

use crate::broker::topics::shard_of;
use crate::ids::{DerivedId, GroupName, TopicName};
use crate::limits::SUBSCRIPTIONS_MAX;
use crate::proto::{ErrorCode, WireError};

/// All subscriptions that were asked for. What it costs to find one hardly depends on how many there are;
/// most connections have one or none.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// In order.
    groups: Vec<(TopicName, GroupName)>,
    /// Those without a group, in order.
    following: Vec<TopicName>,
    /// The tags in the ids of their messages, each with its topic's shard, in order.
    tags: Vec<(u32, u32)>,
    /// Shards that know this connection.
    shards: Vec<u32>,
}

impl Subscriptions {
    /// Notes one, unless there are too many: each takes memory, here and on its shard. Gives
    /// the topic's shard.
    pub(super) fn add(
        &mut self,
        topic: &TopicName,
        group: Option<&GroupName>,
        shards: u32,
    ) -> Result<u32, WireError> {
        let shard = shard_of(topic, shards);
        let place = group.map(|group| (topic.clone(), group.clone()));
        let at = match &place {
            Some(place) => self.groups.binary_search(place),
            None => self.following.binary_search(topic),
        };
        let Err(at) = at else { return Ok(shard) };
        if self.following.len() + self.groups.len() >= SUBSCRIPTIONS_MAX {
            let text = "too many subscriptions on one connection";
            return Err(WireError::new(ErrorCode::Limit, text)
                .with("max", SUBSCRIPTIONS_MAX)
                .with("retry_after", "1s"));
        }
        match place {
            Some(place) => {
                self.groups.insert(at, place);
                let tag = (topic.tag(), shard);
                if let Err(at) = self.tags.binary_search(&tag) {
                    self.tags.insert(at, tag);
                }
            }
            None => self.following.insert(at, topic.clone()),
        }
        if !self.shards.contains(&shard) {
            self.shards.push(shard);
        }
        Ok(shard)
    }

    /// Whether the connection is a member of a group.
    pub(super) fn is_member(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Shards that know the connection.
    pub(super) fn shards(&self) -> impl Iterator<Item = u32> + use<> {
        self.shards.clone().into_iter()
    }

    /// The shard that can tell what a message id means to this connection; `None` if it is in no group.
    pub(super) fn shard_for_ack(&self, id: &[u8]) -> Option<u32> {
        let (_, first) = *self.tags.first()?;
        if self.shards.len() == 1 {
            return Some(first);
        }
        let tag = DerivedId::parse(id).map(|id| id.tag);
        let at = self.tags.partition_point(|(other, _)| Some(*other) < tag);
        let named = self.tags.get(at).filter(|(other, _)| Some(*other) == tag);
        Some(named.map_or(first, |(_, shard)| *shard))
    }
}
