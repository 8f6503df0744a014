//! `wiber pub`

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::exit::{Exit, Failure};
use super::lines::{self, Batch};
use super::output::Out;
use super::progress::Progress;
use super::settings::ClientFlags;
use super::signals::Interrupt;
use crate::client::{Client, ClientError, Completed, Published, Publisher};
use crate::ids::TopicName;

const EXAMPLES: &str = "\
Examples:
  wiber pub chat \"Hello, world!\"
  seq 1000 | wiber pub numbers -              a message for each line
  wiber pub events --lines --quiet < events.jsonl
  wiber pub chat --json hello | jq .offset
  wiber pub chat -- --json                    a message that looks like a flag

Prints `OK published <id> <offset>` for each message, once it is as safe as the broker's fsync
setting says. With several, the first that fails ends it; the exit code says how it failed.";

/// Messages sent before the answers that have come are taken: less than the client remembers.
const SENDS_MAX: usize = 1000;

/// How long to look for a broker that went away.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Publish a message, or one for each line of standard input
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The topic
    #[arg(value_parser = super::subscribe::topic)]
    topic: TopicName,
    /// The message; `-` for a message for each line of standard input
    #[arg(required_unless_present = "lines", allow_negative_numbers = true)]
    message: Option<OsString>,
    /// Read standard input, a message a line
    #[arg(long, conflicts_with = "message")]
    lines: bool,
    /// Print {"id":…,"offset":…} for each message
    #[arg(long)]
    json: bool,
    /// Print nothing for messages that were published
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    broker: ClientFlags,
}

pub(super) async fn run(args: Args, interrupt: Interrupt) -> Result<(), Failure> {
    let mut options = args.broker.options()?;
    options.reconnect.give_up_after = Some(RECONNECT_PATIENCE);
    let what = format!("publish to {}", args.topic);
    let failed = |error| Failure::client(&what, error);
    let client = Client::connect(options).await.map_err(failed)?;
    match &args.message {
        Some(message) if message != "-" => {
            one(&args, &client, message.as_bytes(), interrupt).await?.map_err(failed)
        }
        _ => {
            let mut publisher = client.publisher(&args.topic).await.map_err(failed)?;
            publisher.stop_when_lost();
            let many = Many {
                publisher,
                out: Out::new(),
                progress: Progress::new(args.quiet),
                published: 0,
                failed: 0,
                first_failure: None,
                args: &args,
            };
            many.run(lines::from_stdin(), interrupt).await
        }
    }
}

async fn one(
    args: &Args,
    client: &Client,
    message: &[u8],
    mut interrupt: Interrupt,
) -> Result<Result<(), ClientError>, Failure> {
    let published = tokio::select! {
        published = client.publish(&args.topic, message) => published,
        () = interrupt.wait() => return Err(Failure::quiet(Exit::Interrupted)),
    };
    match published {
        Ok(published) => {
            let mut out = Out::new();
            print(&mut out, args, &published);
            out.flush().map(Ok)
        }
        Err(error) => Ok(Err(error)),
    }
}

fn print(out: &mut Out, args: &Args, published: &Published) {
    let Published { id, offset } = published;
    if args.json {
        out.json(&json!({ "id": id, "offset": offset.get() }));
    } else if !args.quiet {
        out.line(format!("OK published {id} {offset}").as_bytes());
    }
}

/// Publishing lines without waiting for each.
struct Many<'a> {
    args: &'a Args,
    publisher: Publisher,
    out: Out,
    progress: Progress,
    published: u64,
    failed: u64,
    /// The first line that failed, counted from 1, and why.
    first_failure: Option<(u64, ClientError)>,
}

/// Why no more lines are sent.
enum End {
    /// There are no more, or one has failed.
    Lines,
    /// The rest can't be read.
    Unreadable(io::Error),
    Interrupted,
}

impl Many<'_> {
    async fn run(
        mut self,
        mut lines: Receiver<io::Result<Batch>>,
        mut interrupt: Interrupt,
    ) -> Result<(), Failure> {
        let mut ended = self.send_all(&mut lines, &mut interrupt).await;
        while let Some(completed) = self.publisher.completed().await {
            if ended.is_err() {
                // It can't be printed, but it counts.
                self.note(completed);
            } else if let Err(failure) = self.answered(completed) {
                ended = Err(failure);
            }
        }
        let ended = ended.and_then(|end| self.out.flush_if_read().map(|()| end));
        self.progress.end();
        match ended {
            Ok(end) => self.conclude(end),
            Err(failure) => Err(failure.hint(self.tally())),
        }
    }

    async fn send_all(
        &mut self,
        lines: &mut Receiver<io::Result<Batch>>,
        interrupt: &mut Interrupt,
    ) -> Result<End, Failure> {
        while self.first_failure.is_none() {
            tokio::select! {
                biased;
                () = interrupt.wait() => return Ok(End::Interrupted),
                Some(completed) = self.publisher.completed(),
                    if self.publisher.unanswered() > 0 => self.answered(completed)?,
                batch = lines.recv() => match batch {
                    Some(Ok(batch)) => {
                        tokio::select! {
                            biased;
                            () = interrupt.wait() => return Ok(End::Interrupted),
                            sent = self.send(&batch) => sent?,
                        }
                    }
                    Some(Err(error)) => return Ok(End::Unreadable(error)),
                    None => return Ok(End::Lines),
                },
            }
        }
        Ok(End::Lines)
    }

    async fn send(&mut self, batch: &Batch) -> Result<(), Failure> {
        for (n, line) in batch.lines().enumerate() {
            if let Err(error) = self.publisher.send(line).await {
                // One before it may have failed, and be the reason.
                self.take_answers()?;
                // It was never sent, so it is the line behind all that have been.
                let sent = self.published + self.failed + self.publisher.unanswered();
                self.first_failure.get_or_insert((sent + 1, error));
                return Ok(());
            }
            if n % SENDS_MAX == SENDS_MAX - 1 {
                self.take_answers()?;
            }
        }
        self.progress.sent(batch.len());
        self.take_answers()
    }

    fn take_answers(&mut self) -> Result<(), Failure> {
        for completed in self.publisher.take_completed() {
            self.note(completed);
        }
        self.progress.published(self.published);
        self.out.flush_if_read()
    }

    fn answered(&mut self, completed: Completed) -> Result<(), Failure> {
        self.note(completed);
        self.take_answers()
    }

    fn note(&mut self, completed: Completed) {
        match completed.result {
            Ok(published) => {
                self.published += 1;
                print(&mut self.out, self.args, &published);
            }
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert((completed.number + 1, error));
            }
        }
    }

    fn tally(&self) -> String {
        match self.published {
            1 => "1 message was published".to_owned(),
            n => format!("{n} messages were published"),
        }
    }

    fn conclude(self, end: End) -> Result<(), Failure> {
        let published = self.tally();
        if let Some((line, error)) = self.first_failure {
            let what = format!("publish line {line} to {}", self.args.topic);
            let more = match self.failed {
                0 | 1 => String::new(),
                n => format!(", {n} were not or not surely"),
            };
            return Err(Failure::client(&what, error).hint(format!("{published}{more}")));
        }
        match end {
            End::Lines => Ok(()),
            End::Interrupted => Err(Failure::quiet(Exit::Interrupted).hint(published)),
            End::Unreadable(error) => {
                let text = format!("failed to read standard input: {error}");
                Err(Failure::new(Exit::Usage, text).hint(published))
            }
        }
    }
}
