//! Connections that read: plain subscribers, and members of groups, which acknowledge.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memchr::{memchr, memchr_iter};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::load::{Consumer, Load, locked};
use super::messages::stamped;
use super::wire::{Wire, unexpected};
use crate::cli::exit::{Exit, Failure};
use crate::time::Moment;

/// How often a member says that it is there.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// How the answer to an acknowledgment begins that came when the message had gone to another member.
const NOT_PENDING: &[u8] = b"ERR NOT_PENDING ";

/// Why a group may get a message again, or refuse an acknowledgment.
const LATE: &str = "what a member does not acknowledge in time comes again: if this command stood \
                    still, or the broker's delivery.ack_timeout or delivery.dead_after is short, \
                    that is no mistake, and another run may do better; else please report it";

/// What a consumer reads of a `MSG` or `HISTORY` line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen<'a> {
    pub(super) id: &'a [u8],
    pub(super) offset: u64,
    pub(super) message: &'a [u8],
}

/// What stands behind `MSG <topic> ` or `HISTORY <topic> `.
pub(super) fn parse(rest: &[u8]) -> Option<Seen<'_>> {
    let id_end = memchr(b' ', rest)?;
    let (id, rest) = (&rest[..id_end], &rest[id_end + 1..]);
    let mut offset = 0u64;
    let mut at = 0;
    while let Some(digit) = rest.get(at).filter(|byte| byte.is_ascii_digit()) {
        offset = offset.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        at += 1;
    }
    let ts = rest.get(at..)?.strip_prefix(b" ").filter(|_| at > 0)?;
    let message = &ts[memchr(b' ', ts)? + 1..];
    Some(Seen { id, offset, message })
}

/// One connection that reads until it is told to stop.
#[derive(Debug)]
pub(super) struct Reader {
    load: Arc<Load>,
    topic: usize,
    consumer: Arc<Consumer>,
    wire: Wire,
    /// How a message's line begins.
    head: Vec<u8>,
    /// Acknowledgements to be written, and how far they are.
    output: Vec<u8>,
    written: usize,
    /// The offset that came last, to a plain subscriber.
    last: u64,
}

impl Reader {
    pub(super) fn new(load: Arc<Load>, topic: usize, consumer: Arc<Consumer>, wire: Wire) -> Self {
        let head = format!("MSG {} ", load.topics[topic].name).into_bytes();
        let output = Vec::new();
        Self { load, topic, consumer, wire, head, output, written: 0, last: 0 }
    }

    /// Reads, and acknowledges in a group, until it is told to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.tick().await;
        // Some may have come together with the answer to `SUB`.
        self.take_lines(Moment::read())?;
        loop {
            let mut output = &self.output[self.written..];
            let mut is_time_for_heartbeat = false;
            tokio::select! {
                biased;
                turned = self.wire.turn(&mut output) => turned?,
                _ = stop.wait_for(|is_over| *is_over) => return Ok(()),
                _ = heartbeat.tick() => is_time_for_heartbeat = true,
            }
            self.written = self.output.len() - output.len();
            if self.written == self.output.len() {
                self.output.clear();
                self.written = 0;
            }
            if is_time_for_heartbeat && self.consumer.group.is_some() {
                self.output.extend_from_slice(b"HEARTBEAT\n");
            }
            self.take_lines(Moment::read())?;
        }
    }

    fn take_lines(&mut self, now: Moment) -> Result<(), Failure> {
        let unread = self.wire.unread();
        let (mut messages, mut acked, mut start) = (0, 0, 0);
        let is_member = self.consumer.group.is_some();
        let mut recorder = self.load.delivered.recorder();
        let mut seen = locked(&self.consumer.seen);
        for end in memchr_iter(b'\n', unread) {
            let line = &unread[start..end];
            start = end + 1;
            let Some(rest) = line.strip_prefix(self.head.as_slice()) else {
                match line {
                    b"OK ack_received" if is_member => acked += 1,
                    b"OK heartbeat_received" if is_member => {}
                    _ if is_member && line.starts_with(NOT_PENDING) => {
                        return Err(unexpected(line).hint(LATE));
                    }
                    _ => return Err(unexpected(line)),
                }
                continue;
            };
            let message = parse(rest).ok_or_else(|| unexpected(line))?;
            messages += 1;
            let stamp = stamped(message.message);
            if let Some(meant) = stamp {
                recorder.add(meant, now, 1);
            }
            if is_member {
                if !seen.insert(message.offset) {
                    let age = now.since(self.load.span.begin.max(stamp.unwrap_or_default()));
                    return Err(twice(message.offset, age, self.load.again_after));
                }
                self.output.extend_from_slice(b"ACK ");
                self.output.extend_from_slice(message.id);
                self.output.push(b'\n');
            } else if std::mem::replace(&mut self.last, message.offset) + 1 != message.offset {
                return Err(wrong(format!("message {} came out of turn", message.offset)));
            }
        }
        drop((recorder, seen));
        self.wire.used(start);
        if messages + acked > 0 {
            self.consumer.got.fetch_add(messages, Ordering::Relaxed);
            self.consumer.acked.fetch_add(acked, Ordering::Relaxed);
            self.load.delivered.done(messages, now);
            self.load.topics[self.topic].moved.notify_waiters();
        }
        Ok(())
    }
}

/// The broker did what it must never do.
pub(super) fn wrong(what: String) -> Failure {
    Failure::new(Exit::Refused, format!("failed to verify the messages: {what}")).hint(
        "if nothing else uses these topics, this is a mistake in the broker: please report it",
    )
}

/// It came to the group again. When it came first is not known, but not before it was published:
/// sooner after that than it may come again, it is a mistake.
fn twice(offset: u64, age: Duration, again_after: Option<Duration>) -> Failure {
    let what = format!("message {offset} came twice");
    if again_after.is_some_and(|again_after| age < again_after) {
        return wrong(what);
    }
    let seconds = age.as_secs_f64();
    let text = format!(
        "failed to verify the messages: {what}, up to {seconds:.1} s after it was published"
    );
    Failure::new(Exit::Refused, text).hint(LATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was told as a mistake of the broker after this command had stood still for 42 s.
    #[test]
    fn what_was_not_acknowledged_in_time_comes_again_and_that_is_no_mistake() {
        let seconds = Duration::from_secs;
        let is_mistake = |age, again_after: Option<u64>| {
            let failure = format!("{:?}", twice(7, seconds(age), again_after.map(seconds)));
            assert!(failure.contains("message 7 came twice"), "{failure}");
            assert_ne!(failure.contains("mistake in the broker"), failure.contains("in time"));
            failure.contains("mistake in the broker")
        };
        assert!(is_mistake(1, Some(20)));
        assert!(!is_mistake(42, Some(20)));
        assert!(!is_mistake(1, Some(0)), "with settings that give no time");
        assert!(!is_mistake(1, None), "of a broker whose settings are not known");
    }

    #[test]
    fn a_message_line_is_read_to_its_message() {
        let rest = b"msg_1_ab 42 1758865780.036983 hello  world ";
        let read = Seen { id: b"msg_1_ab", offset: 42, message: b"hello  world " };
        assert_eq!(parse(rest), Some(read));
        let empty = Seen { id: b"i", offset: 1, message: b"" };
        assert_eq!(parse(b"i 1 2.0 "), Some(empty));
        for bad in
            [&b""[..], b"i", b"i 1", b"i x 2.0 m", b"i  2.0 m", b"i 99999999999999999999 1 m"]
        {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
