//! The public async client: publish, subscribe, read back; reconnect and resume. On tokio.
//!
//! ```no_run
//! # use wiber::client::{Client, Options};
//! # use wiber::ids::{GroupName, TopicName};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::new("127.0.0.1:7777")).await?;
//! let jobs = TopicName::parse(b"jobs")?;
//! let published = client.publish(&jobs, b"resize 17.png").await?;
//! println!("stored as {} at {}", published.id, published.offset);
//!
//! let workers = GroupName::parse(b"workers")?;
//! let mut subscription = client.subscribe(&jobs, Some(&workers)).await?;
//! while let Some(message) = subscription.next().await? {
//!     println!("{}", String::from_utf8_lossy(message.body()));
//!     subscription.ack(&message).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! What always holds:
//!
//! * **One connection for each thing that can wait.** The client publishes on one; every
//!   [`Subscription`], [`Publisher`] and [`History`] has its own. A consumer that is slow makes its
//!   own subscription stop reading its socket, and nothing else.
//! * **Everything is bounded.** Publishes wait for room in a window; a subscription that is not
//!   read from stops reading.
//! * **A lost connection is replaced**, by [`Reconnect`]. A plain subscription goes on behind the
//!   last message it gave out, without a gap and without a double. A group member joins again.
//! * **Nothing is sent twice that could then be stored twice.** A publish whose answer was lost is
//!   [`ClientError::OutcomeUnknown`].
//!
//! It speaks level 1 of the protocol (`docs/protocol.md`): a message is one line, so one with an LF
//! in it, or a CR at its end, is refused.

mod connection;
mod error;
mod feed;
mod history;
mod message;
mod options;
mod pipe;
mod publisher;
mod sequence;
mod subscription;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::ids::{GroupName, Offset, TopicName};
use crate::proto::Request;
use connection::Connection;
use pipe::{Pipe, Waiter};

pub use error::ClientError;
pub use feed::Link;
pub use history::History;
pub use message::Message;
pub use options::{Options, Reconnect};
pub use publisher::{Completed, Publisher, Summary};
pub use subscription::{Acker, Subscription};

/// The place of a message that was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Its id.
    pub id: String,
    /// Its place in the topic.
    pub offset: Offset,
}

/// A connection to a broker. Share it by reference: all its methods can run many at a time.
///
/// Dropping it abandons what has not been answered; [`Client::close`] takes its leave.
#[derive(Debug)]
pub struct Client {
    options: Arc<Options>,
    pipe: Pipe,
}

impl Client {
    /// Connects, and waits for the broker's greeting. Tries once: [`Reconnect`] is for connections
    /// that were lost.
    ///
    /// # Errors
    /// [`ClientError::CannotConnect`], or what the broker says instead of a greeting.
    pub async fn connect(options: Options) -> Result<Client, ClientError> {
        let options = Arc::new(options);
        let connection = Connection::open(&options).await?;
        Ok(Client { pipe: Pipe::new(connection, Arc::clone(&options)), options })
    }

    /// Publishes `message` and waits until the broker has stored it. Many may run at once; those
    /// whose futures were polled first are sent first.
    ///
    /// # Errors
    /// See [`ClientError`]; after [`ClientError::OutcomeUnknown`] it may be stored or not.
    pub async fn publish(
        &self,
        topic: &TopicName,
        message: &[u8],
    ) -> Result<Published, ClientError> {
        check_message(message)?;
        let (sender, answer) = oneshot::channel();
        let write = |out: &mut Vec<u8>| {
            Request::Pub { topic: topic.clone(), message }.write_to(out);
        };
        self.pipe.push(write, Waiter::Publish(sender)).await?;
        answer.await.unwrap_or_else(|_gone| Err(ClientError::ended()))
    }

    /// Opens a connection to publish many messages to `topic`.
    ///
    /// # Errors
    /// Those of [`Client::connect`].
    pub async fn publisher(&self, topic: &TopicName) -> Result<Publisher, ClientError> {
        let connection = Connection::open(&self.options).await?;
        Ok(Publisher::new(Pipe::new(connection, Arc::clone(&self.options)), topic.clone()))
    }

    /// Subscribes to `topic`: as a member of `group`, or to every message from now on.
    ///
    /// # Errors
    /// Those of [`Client::connect`], or the broker's refusal.
    pub async fn subscribe(
        &self,
        topic: &TopicName,
        group: Option<&GroupName>,
    ) -> Result<Subscription, ClientError> {
        Subscription::open(Arc::clone(&self.options), topic.clone(), group.cloned()).await
    }

    /// The last `count` messages of `topic`, oldest first. For many of them see
    /// [`Client::history_stream`].
    ///
    /// # Errors
    /// Those of [`Client::connect`], or the broker's refusal, also if only some messages are damaged:
    /// [`Client::history_stream`] gives the others. A connection that is lost on the way is replaced.
    pub async fn history(
        &self,
        topic: &TopicName,
        count: u64,
    ) -> Result<Vec<Message>, ClientError> {
        history::collect(&self.options, topic, count).await
    }

    /// The last `count` messages of `topic`, oldest first, one by one and in constant memory.
    ///
    /// # Errors
    /// Those of [`Client::connect`].
    pub async fn history_stream(
        &self,
        topic: &TopicName,
        count: u64,
    ) -> Result<History, ClientError> {
        History::open(&self.options, topic, count).await
    }

    /// Asks the broker for an answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ping(&self) -> Result<(), ClientError> {
        let (sender, answer) = oneshot::channel();
        self.pipe.push(|out| Request::Ping.write_to(out), Waiter::Ping(sender)).await?;
        answer.await.unwrap_or_else(|_gone| Err(ClientError::ended()))
    }

    /// Takes its leave, behind everything that was published before, and closes the connection.
    /// Subscriptions and publishers of this client go on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn close(self) -> Result<(), ClientError> {
        let (sender, answer) = oneshot::channel();
        self.pipe.push(|out| Request::Quit.write_to(out), Waiter::Quit(sender)).await?;
        answer.await.unwrap_or_else(|_gone| Err(ClientError::ended()))
    }
}

/// Whether a line of level 1 can carry `message`.
fn check_message(message: &[u8]) -> Result<(), ClientError> {
    if memchr::memchr(b'\n', message).is_some() {
        return Err(ClientError::BadMessage(
            "it has a line feed in it, and a message is one line; escape it, for example as JSON",
        ));
    }
    if message.ends_with(b"\r") {
        return Err(ClientError::BadMessage(
            "it ends in a carriage return, which would be taken for a part of the line's end",
        ));
    }
    Ok(())
}
