//! `wiber sub`

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::exit::{Exit, Failure, warn};
use super::output::Out;
use super::settings::ClientFlags;
use super::signals::Interrupt;
use crate::client::{Client, ClientError, Link, Message, Subscription};
use crate::ids::{BadName, GroupName, Offset, TopicName};

const EXAMPLES: &str = "\
Examples:
  wiber sub chat                              what is published from now on
  wiber sub chat --history 5                  the last five first
  wiber sub jobs --group workers              a share of the group's messages
  wiber sub jobs --group workers --count 1    one message, then leave
  wiber sub chat --json | jq -r .msg
  wiber sub jobs.dlq --history 10             the dead letters of jobs

Prints `MSG <topic> <id> <offset> <ts> <message>`. In a group a message is acknowledged when its
line has been written out; what was not written out goes back to the group when this ends.";

/// Most messages that are printed before they are acknowledged, all together.
const BATCH_MESSAGES_MAX: usize = 1000;

/// How long to wait for the broker's word on the last acknowledgments.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Print the messages of a topic as they come
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The topic
    #[arg(value_parser = topic)]
    topic: TopicName,
    /// Be a member of this group: its members share the messages
    #[arg(long, short, value_parser = group)]
    group: Option<GroupName>,
    /// First print the last messages, as HISTORY lines
    #[arg(long, value_name = "N", default_value_t = 0)]
    history: u64,
    /// Leave after so many messages, not counting the history
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// A JSON object for each message
    #[arg(long)]
    json: bool,
    /// Do not acknowledge: the group gives the messages to others, or again
    #[arg(long, requires = "group")]
    no_ack: bool,
    #[command(flatten)]
    broker: ClientFlags,
}

/// Reads the name of a topic.
pub(super) fn topic(name: &str) -> Result<TopicName, BadName> {
    TopicName::parse(name.as_bytes())
}

fn group(name: &str) -> Result<GroupName, BadName> {
    GroupName::parse(name.as_bytes())
}

pub(super) async fn run(args: Args, mut interrupt: Interrupt) -> Result<(), Failure> {
    let options = args.broker.options()?;
    let what = format!("subscribe to {}", args.topic);
    let failed = |error| Failure::client(&what, error);
    let mut printer = Printer { args: &args, out: Out::new(), shown: None, printed: Vec::new() };
    let opening = async {
        let client = Client::connect(options).await.map_err(failed)?;
        // Subscribed first: between the history and what is new there is no gap.
        let subscription =
            client.subscribe(&args.topic, args.group.as_ref()).await.map_err(failed)?;
        printer.history(&client).await?;
        Ok::<_, Failure>(subscription)
    };
    let mut subscription = tokio::select! {
        opened = opening => opened?,
        () = interrupt.wait() => return Err(Failure::quiet(Exit::Interrupted)),
    };
    let result = printer.follow(&mut subscription, &mut interrupt).await;
    if args.group.is_some() {
        // Ending for a reason of its own, it still makes sure of what was acknowledged.
        let closed = close(subscription).await;
        match result {
            Ok(()) => closed,
            Err(failure) => Err(failure),
        }
    } else {
        result
    }
}

async fn close(subscription: Subscription) -> Result<(), Failure> {
    let why = match tokio::time::timeout(CLOSE_PATIENCE, subscription.close()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "the broker does not answer".to_owned(),
    };
    let text = format!("failed to make sure of the last acknowledgments: {why}");
    Err(Failure::new(Exit::OutcomeUnknown, text)
        .hint("the last messages may be delivered again, to this group"))
}

struct Printer<'a> {
    args: &'a Args,
    out: Out,
    /// First and last offset of the history that was printed.
    shown: Option<(Offset, Offset)>,
    /// Added to the output, to be acknowledged when it is flushed.
    printed: Vec<Message>,
}

impl Printer<'_> {
    async fn history(&mut self, client: &Client) -> Result<(), Failure> {
        if self.args.history == 0 {
            return Ok(());
        }
        let ended = self.read_history(client).await;
        self.out.end(ended)
    }

    async fn read_history(&mut self, client: &Client) -> Result<(), Failure> {
        let topic = &self.args.topic;
        let what = format!("read the history of {topic}");
        let failed = |error| Failure::client(&what, error);
        let asked = client.history_stream(topic, self.args.history);
        let mut history = asked.await.map_err(failed)?;
        loop {
            let message = match history.next().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(error) if error.missing().is_some() => {
                    warn(&format!("failed to read all of the history of {topic}: {error}"));
                    return Ok(());
                }
                Err(error) => return Err(failed(error)),
            };
            let offset = message.offset();
            self.shown = Some((self.shown.map_or(offset, |(first, _)| first), offset));
            self.out.message(&message, true, self.args.json);
            if self.out.is_full() {
                self.out.flush()?;
            }
        }
    }

    /// Prints and acknowledges until there is a reason to end.
    async fn follow(
        &mut self,
        subscription: &mut Subscription,
        interrupt: &mut Interrupt,
    ) -> Result<(), Failure> {
        let mut left = self.args.count.unwrap_or(u64::MAX);
        let mut link = subscription.link();
        loop {
            let mut next = tokio::select! {
                biased;
                () = interrupt.wait() => return Err(Failure::quiet(Exit::Interrupted)),
                Ok(()) = link.changed() => {
                    tell(&link.borrow_and_update());
                    continue;
                }
                next = subscription.next() => Some(next),
            };
            // What has come together is written out together.
            let mut ended = Ok(());
            while let Some(arrived) = next.take() {
                match arrived {
                    Ok(Some(message)) => left -= u64::from(self.print(message)),
                    Ok(None) => ended = Err(self.lost("it was closed")),
                    Err(error) => ended = self.note(error),
                }
                if left > 0 && ended.is_ok() && !self.is_full() {
                    next = if_ready(subscription.next()).await;
                }
            }
            self.acknowledge(subscription).await?;
            ended?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    fn lost(&self, why: &str) -> Failure {
        let error = ClientError::Disconnected { why: why.to_owned() };
        Failure::client(&format!("go on reading {}", self.args.topic), error)
    }

    fn is_full(&self) -> bool {
        self.out.is_full() || self.printed.len() >= BATCH_MESSAGES_MAX
    }

    /// Whether it is one that had not been printed.
    fn print(&mut self, message: Message) -> bool {
        let offset = message.offset();
        let is_again = self.shown.is_some_and(|(first, last)| (first..=last).contains(&offset));
        if is_again && self.args.group.is_none() {
            return false;
        }
        self.out.message(&message, false, self.args.json);
        if self.args.group.is_some() && !self.args.no_ack {
            self.printed.push(message);
        }
        true
    }

    /// Says what went wrong, if it is nothing that ends the subscription.
    fn note(&self, error: ClientError) -> Result<(), Failure> {
        match error {
            ClientError::OutcomeUnknown => {
                warn("an acknowledgement may not have come: its message may be delivered again");
                Ok(())
            }
            ClientError::AckRefused { .. } | ClientError::Gap { .. } => {
                warn(&error.to_string());
                Ok(())
            }
            error => {
                let what = format!("go on reading {}", self.args.topic);
                Err(Failure::client(&what, error))
            }
        }
    }

    /// First out, then acknowledged: what nobody could read is not lost to the group.
    async fn acknowledge(&mut self, subscription: &Subscription) -> Result<(), Failure> {
        self.out.flush()?;
        for message in self.printed.drain(..) {
            if let Err(error) = subscription.ack_unanswered(&message).await {
                let what = format!("acknowledge {}", message.id());
                return Err(Failure::client(&what, error));
            }
        }
        Ok(())
    }
}

/// Says how the connection is: nothing comes while it is lost, and that looks like a quiet topic.
fn tell(link: &Link) {
    match link {
        Link::Up => warn("subscribed again"),
        Link::Lost { why } => {
            warn(&format!("the connection to the broker was lost: {why}; trying again"));
        }
    }
}

/// What `future` gives if it need not wait.
async fn if_ready<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
