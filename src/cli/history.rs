//! `wiber history`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::exit::{Exit, Failure, warn};
use super::output::Out;
use super::settings::ClientFlags;
use super::signals::Interrupt;
use crate::broker::layout::Layout;
use crate::broker::lock_file::{self, Held, Holder, Refused};
use crate::check::{self, CheckError};
use crate::client::{Client, Options};
use crate::disk::Disk;
use crate::disk::os::OsDisk;
use crate::ids::{Offset, TopicName};
use crate::log::{Line, LogError, Reader};
use crate::topic::lines;

const EXAMPLES: &str = "\
Examples:
  wiber history chat                      the last ten messages
  wiber history chat 1000 --json | jq -r .msg
  wiber history jobs.dlq 5                dead letters, each a line of JSON
  wiber history chat --data-dir ./data    from the files, while no broker runs";

/// How long to look for a broker that went away.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How often to look whether a broker wants the directory whose files are read, or has made a line again.
const LOOK: Duration = Duration::from_millis(20);

/// How long what looks damaged beside a broker is looked at again, in all: its start makes the lines
/// behind the last checkpoint again.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Print the last messages of a topic
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The topic
    #[arg(value_parser = super::subscribe::topic)]
    topic: TopicName,
    /// How many
    #[arg(default_value_t = 10)]
    n: u64,
    /// A JSON object for each message
    #[arg(long)]
    json: bool,
    /// Read the files of this data directory, which no broker serves
    #[arg(long, value_name = "DIR", conflicts_with_all = ["host", "port", "addr"])]
    pub(super) data_dir: Option<PathBuf>,
    #[command(flatten)]
    broker: ClientFlags,
}

pub(super) async fn run(args: Args, mut interrupt: Interrupt) -> Result<(), Failure> {
    let mut options = args.broker.options()?;
    options.reconnect.give_up_after = Some(RECONNECT_PATIENCE);
    tokio::select! {
        printed = print(&args, options) => printed,
        () = interrupt.wait() => Err(Failure::quiet(Exit::Interrupted)),
    }
}

async fn print(args: &Args, options: Options) -> Result<(), Failure> {
    let what = format!("read the history of {}", args.topic);
    let failed = |error| Failure::client(&what, error);
    let client = Client::connect(options).await.map_err(failed)?;
    let mut history = client.history_stream(&args.topic, args.n).await.map_err(failed)?;
    let mut out = Out::new();
    let ended = async {
        while let Some(message) = history.next().await.map_err(failed)? {
            out.wire_line(message.line(), args.json);
            if out.is_full() {
                out.flush()?;
            }
        }
        Ok(())
    }
    .await;
    out.end(ended)
}

/// Straight from the files, in the form in which a broker would send it.
pub(super) fn run_offline(args: &Args) -> Result<(), Failure> {
    let dir = args.data_dir.as_deref().unwrap_or(Path::new("./data"));
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    check::ensure_data_dir(disk.as_ref(), dir).map_err(|error| match error {
        CheckError::Log(error) => failed(&error),
        error => super::check::failed(dir, &error),
    })?;
    let held = enter(disk.as_ref(), dir)?;
    let mut reader =
        Reader::offline(Arc::clone(&disk), dir, args.topic.clone()).map_err(|e| failed(&e))?;
    let end = reader.shared().end();
    let first = Offset::new((end.get() + 1).saturating_sub(args.n));
    reader.seek(first.max(reader.shared().first())).map_err(|e| failed(&e))?;
    // What is to be read is known, and whoever reads the output may take his time.
    let (printing, printed) = mpsc::channel();
    thread::scope(|scope| {
        // However this ends, the keeper hears of it.
        let _printing = printing;
        if let Some(held) = held {
            scope.spawn(|| keep(held, printed));
        }
        print_offline(args, dir, disk.as_ref(), reader)
    })
}

/// Keeps the directory, until all is printed or a broker wants it.
fn keep(held: Held, printed: Receiver<()>) {
    while !held.is_wanted() && printed.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {}
}

fn print_offline(args: &Args, dir: &Path, disk: &dyn Disk, reader: Reader) -> Result<(), Failure> {
    let layout = Layout::new(dir);
    let mut out = Out::new();
    let mut line = Vec::new();
    let mut damaged = 0;
    let is_served = || lock_file::look(disk, &layout) == Some(Holder::Broker);
    let ended = read(reader, args.n, START_PATIENCE, &is_served, &mut |message| {
        match message {
            Ok(record) => {
                line.clear();
                lines::write_history(&mut line, None, &args.topic, &record);
                out.wire_line(&line, args.json);
            }
            Err(error) => {
                damaged += u64::from(error.is_damage());
                warn(&error.to_string());
            }
        }
        if out.is_full() { out.flush() } else { Ok(()) }
    });
    out.end(ended)?;
    if damaged == 0 {
        return Ok(());
    }
    let text = format!("failed to read {damaged} damaged messages of {}", args.topic);
    Err(Failure::new(Exit::Damage, text).hint("the others were printed"))
}

/// Has a message, or how it is damaged, or which ones are no longer kept.
type Each<'a> = &'a mut dyn FnMut(Result<Line<'_>, LogError>) -> Result<(), Failure>;

/// Reads so many messages; `each` has every one. When a broker has come, what looks damaged may be what it has
/// removed, or what its start is about to make again, and for so long, in all, is looked at again.
fn read(
    mut reader: Reader,
    count: u64,
    mut patience: Duration,
    is_served: &dyn Fn() -> bool,
    each: Each<'_>,
) -> Result<(), Failure> {
    let mut left = count;
    while left > 0 {
        match reader.next() {
            Ok(Some(record)) => each(Ok(record))?,
            Ok(None) => break,
            Err(error @ LogError::Corrupt { offset, .. }) if is_served() => {
                let first = first_kept(&reader, patience).map_err(|e| failed(&e))?;
                if first > offset {
                    let topic = reader.shared().topic().clone();
                    each(Err(LogError::Gone { topic, offset, first }))?;
                } else if patience.is_zero() {
                    each(Err(error))?;
                    left -= 1;
                    continue;
                } else {
                    patience = patience.saturating_sub(LOOK);
                    thread::sleep(LOOK);
                }
                reader.seek(first.max(offset)).map_err(|e| failed(&e))?;
                continue;
            }
            Err(error @ LogError::Corrupt { .. }) => each(Err(error))?,
            Err(gone @ LogError::Gone { .. }) => {
                each(Err(gone))?;
                continue;
            }
            Err(error) => return Err(failed(&error)),
        }
        left -= 1;
    }
    Ok(())
}

/// The first message that a broker still keeps of what is read.
fn first_kept(reader: &Reader, patience: Duration) -> Result<Offset, LogError> {
    let behind = reader.shared().end().next();
    Ok(match reader.begins_now()? {
        Some(first) => first.min(behind),
        // All may have been removed, or is about to be made again.
        None if patience.is_zero() => behind,
        None => Offset::ZERO,
    })
}

fn failed(error: &LogError) -> Failure {
    let exit = if error.is_damage() { Exit::Damage } else { Exit::DataDirUnusable };
    Failure::new(exit, error.to_string()).hint("check --data-dir, and that you may read its files")
}

/// Takes the directory, and finds out whether a broker has it. Who may not write to the
/// directory reads without, and so does whoever finds another reader there.
fn enter(disk: &dyn Disk, dir: &Path) -> Result<Option<Held>, Failure> {
    match lock_file::take(disk, &Layout::new(dir), Holder::History) {
        Ok(held) => Ok(Some(held)),
        Err(Refused::Held(holder)) => {
            let text = format!("failed to read {}: {holder}", dir.display());
            let refused = Failure::new(Exit::DataDirUnusable, text);
            match holder {
                Holder::Check | Holder::History => Ok(None),
                Holder::Repair => Err(refused.hint("wait until it is done")),
                Holder::Broker => {
                    Err(refused.hint("ask the broker: leave out --data-dir, and name its --port"))
                }
            }
        }
        // A directory of the prototype, or of someone else.
        Err(Refused::Io(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::disk::Open;
    use crate::disk::sim::SimDisk;
    use crate::log::{LogSettings, NewRecord, TailBudget, TopicLog, write_line};
    use crate::time::Timestamp;

    const DIR: &str = "/srv/data";

    /// A topic of three messages, whose file ends behind the first; and the rest of it.
    fn cut_short() -> (SimDisk, Reader, Vec<u8>, u64) {
        let (disk, topic) = (SimDisk::new(), TopicName::parse(b"chat").unwrap());
        let (mut bytes, mut cut) = (Vec::new(), 0);
        for n in 1..=3 {
            let (offset, ts) = (Offset::new(n), Timestamp::from_micros(n));
            let message = format!("message {n}");
            let record = NewRecord { ts, id: None, extra: "", message: message.as_bytes() };
            write_line(&mut bytes, topic.tag(), offset, &record);
            cut = if n == 1 { bytes.len() } else { cut };
        }
        disk.create_dir(Path::new(DIR)).unwrap();
        let file = disk.open(Path::new("/srv/data/chat.log"), Open::Create).unwrap();
        file.write_at(&bytes, 0).unwrap();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let reader = Reader::offline(shared, Path::new(DIR), topic).unwrap();
        file.truncate(cut as u64).unwrap();
        (disk, reader, bytes.split_off(cut), cut as u64)
    }

    fn messages(reader: Reader, is_served: &dyn Fn() -> bool) -> Vec<Option<String>> {
        let mut all = Vec::new();
        read(reader, 10, START_PATIENCE, is_served, &mut |message| {
            let text = |line: Line<'_>| String::from_utf8(line.message.to_vec()).unwrap();
            all.push(message.ok().map(text));
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn what_the_start_of_a_broker_makes_again_is_no_damage() {
        let (disk, reader, rest, at) = cut_short();
        let looks = Cell::new(0);
        let is_served = || {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                let file = disk.open(Path::new("/srv/data/chat.log"), Open::Write).unwrap();
                file.write_at(&rest, at).unwrap();
            }
            true
        };
        let expected = [1, 2, 3].map(|n| Some(format!("message {n}")));
        assert_eq!(messages(reader, &is_served), expected);
        let (_disk, reader, _rest, _at) = cut_short();
        assert_eq!(messages(reader, &|| false), [Some("message 1".to_owned()), None, None]);
    }

    /// A topic with five messages to a segment, of which the last, 21 to 23, are in the one that is written.
    /// A reader has no more than two messages in memory.
    fn five_a_segment() -> (SimDisk, TopicLog, Reader) {
        let (disk, topic) = (SimDisk::new(), TopicName::parse(b"chat").unwrap());
        disk.create_dir(Path::new(DIR)).unwrap();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (tail, settings) =
            (Arc::new(TailBudget::new(0)), LogSettings { segment_bytes: 500_000 });
        let created = Arc::clone(&shared);
        let mut log = TopicLog::create(created, Path::new(DIR), topic.clone(), settings, tail);
        (1..=23).for_each(|n| append(&mut log, n));
        (disk, log, Reader::offline(shared, Path::new(DIR), topic).unwrap())
    }

    fn append(log: &mut TopicLog, n: u64) {
        let (ts, message) = (Timestamp::from_micros(n), format!("{n} {}", "x".repeat(100_000)));
        log.append(&NewRecord { ts, id: None, extra: "", message: message.as_bytes() });
        log.flush().unwrap();
    }

    /// Removes a segment as a broker does: who has the file open sees it become shorter.
    fn remove(disk: &SimDisk, first: u64) {
        let (path, trash) = (format!("/srv/data/chat@{first:020}.log"), Path::new("/srv/trash"));
        disk.rename(Path::new(&path), trash).unwrap();
        disk.open(trash, Open::Write).unwrap().truncate(0).unwrap();
        disk.remove(trash).unwrap();
    }

    /// The numbers of the messages that come, and what is said of others, when this is done behind each.
    fn told(reader: Reader, done: &mut dyn FnMut(u64)) -> Vec<String> {
        let mut all = Vec::new();
        let patience = LOOK;
        read(reader, 100, patience, &|| true, &mut |message| {
            all.push(match message {
                Ok(line) => {
                    done(line.offset.get());
                    line.offset.get().to_string()
                }
                Err(error) => {
                    assert!(!error.is_damage(), "{error}");
                    error.to_string()
                }
            });
            Ok(())
        })
        .unwrap();
        all
    }

    fn numbers(range: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = String> {
        range.map(|n| n.to_string())
    }

    /// Each of them was named as damaged.
    #[test]
    fn what_a_broker_removes_meanwhile_is_told_once_and_is_no_damage() {
        let gone = |from, to| format!("messages {from} to {to} of topic chat are no longer kept");
        let (disk, _log, reader) = five_a_segment();
        let told_of = told(reader, &mut |n| {
            let removed: &[u64] = match n {
                1 => &[1, 6],
                12 => &[11],
                _ => &[],
            };
            removed.iter().for_each(|first| remove(&disk, *first));
        });
        let expected = numbers(1..=2).chain([gone(3, 10)]).chain(numbers(11..=12));
        let expected = expected.chain([gone(13, 15)]).chain(numbers(16..=23));
        assert_eq!(told_of, expected.collect::<Vec<_>>());

        // The one that was written is sealed and goes, too; a new one may have been begun.
        for last in [26, 25] {
            let (disk, mut log, reader) = five_a_segment();
            let told_of = told(reader, &mut |n| {
                if n == 21 {
                    (24..=last).for_each(|n| append(&mut log, n));
                    [1, 6, 11, 16, 21].iter().for_each(|first| remove(&disk, *first));
                }
            });
            let expected: Vec<_> = numbers(1..=22).chain([gone(23, 23)]).collect();
            assert_eq!(told_of, expected, "up to {last}");
        }
    }

    #[test]
    fn what_is_no_longer_kept_is_passed_over() {
        let topic = TopicName::parse(b"chat").unwrap();
        let disk = SimDisk::new();
        let mut bytes = Vec::new();
        let record =
            NewRecord { ts: Timestamp::from_micros(1), id: None, extra: "", message: b"m" };
        write_line(&mut bytes, topic.tag(), Offset::new(11), &record);
        disk.create_dir(Path::new(DIR)).unwrap();
        let path = Path::new("/srv/data/chat@00000000000000000011.log");
        disk.open(path, Open::Create).unwrap().write_at(&bytes, 0).unwrap();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut reader = Reader::offline(shared, Path::new(DIR), topic).unwrap();
        reader.seek(Offset::new(5)).unwrap();
        assert_eq!(messages(reader, &|| false), [None, Some("m".to_owned())]);
    }
}
