//! A subscription, as its consumer holds it. What happens on its connection is in `feed`.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::feed::{self, Ask, Feed, Link};
use super::options::Options;
use super::sequence::Out;
use super::{ClientError, Message};
use crate::ids::{GroupName, TopicName};

/// A subscription to a topic, on a connection of its own.
///
/// * **Without a group** it gives every message once, in the order of offsets, over any number of
///   connections. It reads no further ahead than a few reads of its socket, so a slow consumer
///   costs no memory, here or in the broker.
/// * **With a group** each message has to be acknowledged. A message can come twice: it does when
///   an acknowledgment is late or lost. The broker bounds how many are unacknowledged.
///
/// Dropping it unsubscribes: what was to be acknowledged is still sent, if the runtime lives on;
/// [`Subscription::close`] makes sure.
#[derive(Debug)]
pub struct Subscription {
    batches: mpsc::Receiver<Out>,
    current: std::vec::IntoIter<Result<Message, ClientError>>,
    acker: Acker,
    link: watch::Receiver<Link>,
}

impl Subscription {
    pub(super) async fn open(
        options: Arc<Options>,
        topic: TopicName,
        group: Option<GroupName>,
    ) -> Result<Subscription, ClientError> {
        let connection = super::Connection::open(&options).await?;
        let (to_consumer, batches) = mpsc::channel(feed::batches_max(group.as_ref()));
        let (asks, from_consumer) = mpsc::channel(feed::ASKS_MAX);
        let (ready, subscribed) = oneshot::channel();
        let (to_link, link) = watch::channel(Link::Up);
        let queues = (to_consumer, from_consumer);
        let feed = Feed::new(options, topic, group, queues, to_link, ready);
        tokio::spawn(feed.run(connection));
        subscribed.await.unwrap_or_else(|_gone| Err(ClientError::ended()))?;
        Ok(Subscription { batches, current: Vec::new().into_iter(), acker: Acker { asks }, link })
    }

    /// The next message; `None` after the subscription has ended. May be cancelled without loss.
    ///
    /// # Errors
    /// [`ClientError::AckRefused`] and [`ClientError::OutcomeUnknown`] for acknowledgments that
    /// nobody waited for, and [`ClientError::Gap`]: the subscription goes on. After any other it
    /// has ended.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            if let Some(next) = self.current.next() {
                return next.map(Some);
            }
            match self.batches.recv().await {
                Some(batch) => self.current = batch.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// Acknowledges `message` and waits for the broker's answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `NOT_PENDING` if it is no longer this member's: the message
    /// may have been given to another. [`ClientError::OutcomeUnknown`] if that is the answer to an
    /// acknowledgment that had to be sent twice.
    pub async fn ack(&self, message: &Message) -> Result<(), ClientError> {
        self.acker.ack(message).await
    }

    /// Acknowledges `message` without waiting for the answer; a refusal comes out of
    /// [`Subscription::next`].
    ///
    /// # Errors
    /// If the subscription has ended.
    pub async fn ack_unanswered(&self, message: &Message) -> Result<(), ClientError> {
        self.acker.ack_unanswered(message).await
    }

    /// How its connection is, now and whenever that changes: while it is lost nothing comes, and who waits
    /// for messages can't tell that from a topic without any.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Acknowledges from another task, as long as the subscription lives.
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// Unsubscribes, after everything that was to be acknowledged has been answered. Messages that
    /// were not acknowledged go to other members.
    ///
    /// # Errors
    /// If the connection was lost before, or the subscription had ended.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let (sender, answer) = oneshot::channel();
        let ask = Ask::Close(sender);
        self.acker.asks.send(ask).await.map_err(|_gone| ClientError::ended())?;
        // Nobody takes what still comes, so that the answer is not kept waiting behind it.
        self.batches.close();
        answer.await.unwrap_or_else(|_gone| Err(ClientError::ended()))
    }
}

/// Acknowledges messages of a [`Subscription`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acker {
    asks: mpsc::Sender<Ask>,
}

impl Acker {
    /// See [`Subscription::ack`].
    ///
    /// # Errors
    /// See [`Subscription::ack`].
    pub async fn ack(&self, message: &Message) -> Result<(), ClientError> {
        let (sender, answer) = oneshot::channel();
        let ask = Ask::Ack { message: message.clone(), answer: Some(sender) };
        self.asks.send(ask).await.map_err(|_gone| ClientError::ended())?;
        answer.await.unwrap_or_else(|_gone| Err(ClientError::ended()))
    }

    /// See [`Subscription::ack_unanswered`].
    ///
    /// # Errors
    /// If the subscription has ended.
    pub async fn ack_unanswered(&self, message: &Message) -> Result<(), ClientError> {
        let ask = Ask::Ack { message: message.clone(), answer: None };
        self.asks.send(ask).await.map_err(|_gone| ClientError::ended())
    }
}
