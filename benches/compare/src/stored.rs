//! What needs many messages on disk: memory while they wait, starts, reading and working them off.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::figures::rate;
use crate::load::{Check, Consumers, Plan, Shared, Until, consume, publish};
use crate::peers::{Server, Setup};
use crate::works::{
    Bench, Figures, SIZE, bytes, consumers, holds, members, millis, nothing_comes_back, publishers,
    settled,
};

/// What a server still does with messages that it has answered for gets this time, before its
/// memory is looked at and it is killed. (RabbitMQ 3.10 loses a quorum queue as a whole if it is
/// killed in the first seconds of that queue's life.)
const REST: Duration = Duration::from_secs(4);

/// Everything of one fill.
pub(crate) fn stored(bench: &Bench, setup: &Setup) -> Result<Figures> {
    let count = (bench.messages / setup.share).max(1000);
    let mut figures = Figures::from([("messages".to_owned(), bytes(count))]);
    let mut add = |name: &str, figure| figures.insert(name.to_owned(), figure);
    let filler = match setup.filled_by {
        Some(id) => Setup::by_id(id).context("no such setup")?,
        None => setup,
    };
    let server = fill(bench, setup, filler, count)?;
    std::thread::sleep(REST);
    add("waiting", bytes(server.memory()?));
    server.kill();
    let (server, time) = again(bench, setup, count).context("after kill -9")?;
    add("start_killed", millis(time));
    server.stop()?;
    let (server, time) = again(bench, setup, count).context("after a stop in order")?;
    add("start_clean", millis(time));
    if let Some(reading) = read(&server, count).context("reading")? {
        add("replay", reading);
    }
    add("drain", drain(&server, count).context("working off")?);
    Ok(figures)
}

/// A server with so many messages. Its folder is that of `setup`, its settings are those of `filler`.
fn fill(bench: &Bench, setup: &Setup, filler: &Setup, count: u64) -> Result<Server> {
    let dir = bench.scratch.join(setup.id);
    let server = Server::fresh(filler, &bench.found, &dir, &bench.watchdog)?;
    server.protocol.add_group(server.addr)?;
    let plan = Plan { window: 1000, size: SIZE, until: Until::Count(count), ahead: None };
    publish(plan, &Shared::new(), publishers(&server, 1)?).context("filling")?;
    holds(&server, count)?;
    Ok(server)
}

fn again(bench: &Bench, setup: &Setup, count: u64) -> Result<(Server, Duration)> {
    let dir = bench.scratch.join(setup.id);
    Server::again(setup, &bench.found, &dir, &bench.watchdog, count)
}

/// Reads all messages on one connection: so many a second. None if they cannot be read and kept.
fn read(server: &Server, count: u64) -> Result<Option<f64>> {
    if server.protocol.reader(count).is_none() {
        return Ok(None);
    }
    server.protocol.add_reader(server.addr)?;
    let reader = consumers(server, 1, |_| server.protocol.reader(count))?;
    let mut reader = Consumers::new(reader, Check::each(1));
    let begin = Instant::now();
    let consumed = consume(&mut reader, &Shared::published(count), &mut |_, _| {})?;
    Ok(Some(rate(consumed.delivered, consumed.end - begin)))
}

/// The group works all of them off: so many a second, until the last acknowledgement is settled.
fn drain(server: &Server, count: u64) -> Result<f64> {
    // Where joining is all it takes, messages come as soon as a member has joined.
    let begin = Instant::now();
    let mut members = members(server)?;
    let consumed = consume(&mut members, &Shared::published(count), &mut |_, _| {})?;
    let end = settled(server)?.unwrap_or(consumed.end);
    nothing_comes_back(server, members)?;
    Ok(rate(consumed.delivered, end.max(consumed.end) - begin))
}
