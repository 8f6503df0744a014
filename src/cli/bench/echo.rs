//! A message there and back over loopback at a fixed rate, without a broker: what `wiber bench
//! latency` shows of one is to be compared with it. Processors that sleep between messages have to be
//! woken, and that is part of both.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::aside::Stop;
use super::pace::{Schedule, sleep_precisely, wait};
use super::times::Times;
use crate::disk::File;
use crate::time::Moment;

/// Bytes of a message.
pub(super) const MESSAGE_BYTES: usize = 100;

/// Messages a second.
pub(super) const RATE: u64 = 1000;

/// Where the one who answers writes each message before, and syncs it: a file and how much of it is
/// written over.
pub(super) type Store<'a> = (&'a dyn File, u64);

/// Sends for so long, or until it is asked to stop; counts from when a message was to be sent until
/// its answer was there.
pub(super) fn measure(
    store: Option<Store<'_>>,
    for_long: Duration,
    stop: &Stop,
) -> io::Result<Times> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let asker = TcpStream::connect(listener.local_addr()?)?;
    let (answerer, _) = listener.accept()?;
    asker.set_nodelay(true)?;
    answerer.set_nodelay(true)?;
    thread::scope(|scope| {
        let answers = scope.spawn(|| answer(answerer, store));
        let times = scope.spawn(|| ask(asker, for_long, stop)).join();
        let answered = answers.join();
        let panicked = |_| io::Error::other("the thread panicked");
        answered.map_err(panicked)??;
        times.map_err(panicked)?
    })
}

/// Asks by the schedule, one at a time, and closes the connection at the end.
fn ask(mut stream: TcpStream, for_long: Duration, stop: &Stop) -> io::Result<Times> {
    sleep_precisely();
    let schedule = Schedule { begin: Moment::read(), rate: RATE, lanes: 1 };
    let interval = schedule.at(1).since(schedule.begin);
    let mut times = Times::new();
    let mut message = [0x2e; MESSAGE_BYTES];
    for n in 0..schedule.before(schedule.begin + for_long).max(1) {
        let meant = schedule.at(n);
        loop {
            let now = Moment::read();
            if now >= meant {
                break;
            }
            wait(meant.since(now), interval);
        }
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        times.add(Moment::read().since(meant), 1);
        if stop.is_asked() {
            break;
        }
    }
    Ok(times)
}

/// Answers every message until the connection is closed.
fn answer(mut stream: TcpStream, store: Option<Store<'_>>) -> io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    let mut at = 0;
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        if let Some((file, len)) = store {
            file.write_at(&message, at)?;
            file.sync()?;
            at = (at + MESSAGE_BYTES as u64) % (len - MESSAGE_BYTES as u64);
        }
        stream.write_all(&message)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_it_is_asked_to() {
        let stop = Stop::default();
        stop.ask();
        let times = measure(None, Duration::from_secs(60), &stop).unwrap();
        assert_eq!(times.json()["count"], 1);
    }
}
