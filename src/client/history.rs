//! Reading the last messages of a topic.

use tokio::io::AsyncWriteExt;

use super::connection::{Connection, unexpected};
use super::options::{Backoff, Options};
use super::{ClientError, Message};
use crate::ids::TopicName;
use crate::proto::{Kind, Request, ServerLine};

/// The last messages of a topic, oldest first, on a connection of their own: what is not taken is
/// not read either.
#[derive(Debug)]
pub struct History {
    connection: Option<Connection>,
}

impl History {
    pub(super) async fn open(
        options: &Options,
        topic: &TopicName,
        count: u64,
    ) -> Result<History, ClientError> {
        let connection = Connection::open(options).await?;
        History::on(connection, topic, count).await
    }

    async fn on(
        mut connection: Connection,
        topic: &TopicName,
        count: u64,
    ) -> Result<History, ClientError> {
        let mut line = Vec::new();
        Request::History { topic: topic.clone(), count }.write_to(&mut line);
        connection.stream.write_all(&line).await.map_err(ClientError::disconnected)?;
        Ok(History { connection: Some(connection) })
    }

    /// The next message, or `None` behind the last. May be cancelled without loss.
    ///
    /// # Errors
    /// The broker's refusal, or that the connection was lost: then there are no more, and the
    /// history has to be asked for again. If some messages are damaged or no longer kept, that is told
    /// behind the others: see [`ClientError::missing`].
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        let next = loop {
            let line = match connection.line().await {
                Ok(line) => line,
                Err(why) => break Err(why),
            };
            match ServerLine::parse(&line).kind {
                Kind::History(record) => return Ok(Some(Message::new(&line, &record))),
                Kind::Ok("history end") => break Ok(None),
                Kind::Ok(_) => break Err(unexpected("OK history end", &line)),
                Kind::Err { code, text } => break Err(ClientError::from_answer(code, text)),
                Kind::Msg(_) | Kind::Other => {}
            }
        };
        self.connection = None;
        next
    }
}

/// All of it at once, as often as connections are lost on the way.
pub(super) async fn collect(
    options: &Options,
    topic: &TopicName,
    count: u64,
) -> Result<Vec<Message>, ClientError> {
    let mut backoff = Backoff::new(options.reconnect);
    let mut connection = Connection::open(options).await?;
    loop {
        match read_all(connection, topic, count).await {
            Err(lost @ ClientError::Disconnected { .. }) => {
                connection = Connection::reopen(options, &mut backoff, lost).await?;
            }
            ended => return ended,
        }
    }
}

async fn read_all(
    connection: Connection,
    topic: &TopicName,
    count: u64,
) -> Result<Vec<Message>, ClientError> {
    let mut history = History::on(connection, topic, count).await?;
    let mut messages = Vec::new();
    while let Some(message) = history.next().await? {
        messages.push(message);
    }
    Ok(messages)
}
