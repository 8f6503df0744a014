//! Publishing in bulk.

use std::collections::VecDeque;

use super::pipe::{Pipe, Waiter, not_published};
use super::{ClientError, Published, check_message};
use crate::ids::{Offset, TopicName};
use crate::proto::Request;

/// Publishes many messages to one topic, on a connection of its own, without waiting for each.
///
/// [`Publisher::send`] waits only while [`super::Options::window`] messages are unanswered. Results
/// come in the order of the messages: take them with [`Publisher::take_completed`] or
/// [`Publisher::completed`], or leave it at the sum that [`Publisher::finish`] gives. Successes
/// and failures that nobody takes are counted and, beyond twice the window, forgotten; who takes
/// them at least once in a window's messages misses none.
///
/// A lost connection is replaced, and what had not been sent goes to the next one, behind messages
/// whose outcome is unknown; [`Publisher::stop_when_lost`] ends it there.
///
/// Dropping it abandons what has not been answered.
#[derive(Debug)]
pub struct Publisher {
    pipe: Pipe,
    topic: TopicName,
}

/// What became of one message of a [`Publisher`].
#[derive(Clone, Debug)]
pub struct Completed {
    /// Which: 0 for the first that was sent.
    pub number: u64,
    /// Its place, or why it has none.
    pub result: Result<Published, ClientError>,
}

/// What became of all messages of a [`Publisher`].
#[derive(Clone, Debug, Default)]
#[must_use = "some messages may have failed"]
pub struct Summary {
    /// Messages that the broker has stored.
    pub published: u64,
    /// Messages that it has not, or not surely.
    pub failed: u64,
    /// The place of the last that was stored.
    pub last: Option<Offset>,
    /// Why the first of those that failed did.
    pub first_error: Option<ClientError>,
}

impl Publisher {
    pub(super) fn new(pipe: Pipe, topic: TopicName) -> Self {
        Self { pipe, topic }
    }

    /// Sends `message`, as soon as the window has room. It leaves in the background.
    ///
    /// # Errors
    /// [`ClientError::BadMessage`] if a line cannot carry it; what the broker says to it comes
    /// with the results. After [`Publisher::stop_when_lost`], why the last connection was lost.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), ClientError> {
        check_message(message)?;
        let topic = &self.topic;
        let write = |out: &mut Vec<u8>| {
            Request::Pub { topic: topic.clone(), message }.write_to(out);
        };
        self.pipe.push(write, Waiter::Bulk).await
    }

    /// From now on a connection that is lost when a message has failed, as those do whose answer is
    /// lost with it, is the last: what was not sent yet fails, too, and nothing later is taken. So
    /// nothing is stored behind what may be missing. Without this it is sent on the next connection.
    pub fn stop_when_lost(&mut self) {
        self.pipe.stop_when_lost();
    }

    /// The results that have come since they were taken last, in the order of the messages.
    pub fn take_completed(&mut self) -> impl Iterator<Item = Completed> + use<> {
        self.pipe.results(Results::take)
    }

    /// Waits for the next result; `None` when every message sent so far has had its own.
    pub async fn completed(&mut self) -> Option<Completed> {
        self.pipe
            .until(|results| match results.untaken.pop_front() {
                Some(completed) => Some(Some(completed)),
                None => (results.unanswered == 0).then_some(None),
            })
            .await
    }

    /// How many messages have no answer yet.
    pub fn unanswered(&self) -> u64 {
        self.pipe.results(|results| results.unanswered)
    }

    /// Waits until every message has its answer, and closes the connection.
    pub async fn finish(self) -> Summary {
        self.pipe
            .until(|results| (results.unanswered == 0).then(|| std::mem::take(&mut results.sum)))
            .await
    }
}

/// Counts, and the last results, of the bulk publishes of a connection.
#[derive(Debug)]
pub(super) struct Results {
    untaken_max: usize,
    untaken: VecDeque<Completed>,
    unanswered: u64,
    next_number: u64,
    sum: Summary,
}

impl Results {
    pub(super) fn new(window: usize) -> Self {
        Self {
            untaken_max: window.saturating_mul(2),
            untaken: VecDeque::new(),
            unanswered: 0,
            next_number: 0,
            sum: Summary::default(),
        }
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = Completed> + use<> {
        std::mem::take(&mut self.untaken).into_iter()
    }

    /// Whether one has, of those whose sum was not taken yet.
    pub(super) fn has_failed(&self) -> bool {
        self.sum.failed > 0
    }

    pub(super) fn begun(&mut self, waiter: &Waiter) {
        self.unanswered += u64::from(matches!(waiter, Waiter::Bulk));
    }

    /// Hands the answer to who waits for it. `Ok(None)` is an `OK` that publishes nothing.
    pub(super) fn answer(
        &mut self,
        waiter: Waiter,
        answer: Result<Option<Published>, ClientError>,
    ) {
        // Who has stopped waiting is not told; that is all a failed send means.
        let published = |answer: Result<Option<Published>, ClientError>| {
            answer.and_then(|published| published.ok_or_else(not_published))
        };
        match waiter {
            Waiter::Publish(to) => drop(to.send(published(answer))),
            Waiter::Ping(to) | Waiter::Quit(to) => drop(to.send(answer.map(drop))),
            Waiter::Bulk => self.bulk(published(answer)),
        }
    }

    fn bulk(&mut self, result: Result<Published, ClientError>) {
        match &result {
            Ok(published) => {
                self.sum.published += 1;
                self.sum.last = Some(published.offset);
            }
            Err(error) => {
                self.sum.failed += 1;
                self.sum.first_error.get_or_insert_with(|| error.clone());
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        self.unanswered -= 1;
        if self.untaken.len() >= self.untaken_max {
            self.untaken.pop_front();
        }
        self.untaken.push_back(Completed { number, result });
    }
}
