//! What each broker and its clients say to one another, as bytes: a file for each protocol.
//!
//! A coder never touches a socket while it is measured. It turns messages into bytes and bytes
//! into counts; `load` moves the bytes, the same way for every broker. Only before and after a
//! measurement it holds a [`Dialog`], one question and answer at a time.

pub(crate) mod amqp;
pub(crate) mod beanstalk;
mod dialog;
pub(crate) mod jetstream;
pub(crate) mod nats;
pub(crate) mod resp;
pub(crate) mod wiber;

use std::net::SocketAddr;

use anyhow::Result;

pub(crate) use dialog::Dialog;

/// The topic, stream or queue of every run. Each run has a broker of its own, so one name will do.
pub(crate) const TOPIC: &str = "compare";

/// The consumer group of every run.
pub(crate) const GROUP: &str = "group";

/// Most messages that a member of a group holds unacknowledged, or asks for at once.
pub(crate) const PREFETCH: u64 = 1000;

/// What a coder has understood of its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes that will not be needed again.
    pub(crate) bytes: usize,
    /// Messages that the broker has answered for.
    pub(crate) messages: u64,
}

/// A connection that publishes.
pub(crate) trait Publisher: Send {
    /// What is said before the first message.
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()>;

    /// Writes one message.
    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>);

    /// No message follows for the moment.
    fn burst_ends(&mut self, _out: &mut Vec<u8>) {}

    /// Reads answers. A refusal is an error.
    fn answers(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Taken>;
}

/// A connection that messages come to.
pub(crate) trait Consumer: Send {
    /// What is said before anything is timed.
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()>;

    /// Asks for the first messages.
    fn begin(&mut self, _out: &mut Vec<u8>) {}

    /// Reads what came, hands on each payload, and writes what is to be said to it. Returns the
    /// bytes that will not be needed again.
    fn deliveries(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize>;

    /// Everything that has come so far was read.
    fn pause(&mut self, _out: &mut Vec<u8>) {}

    /// Every message has come: asks for an answer behind the last acknowledgement, where
    /// acknowledgements themselves have none.
    fn finish(&mut self, _out: &mut Vec<u8>) {}

    /// Answers to acknowledgements, or to [`Consumer::finish`], that have yet to come.
    fn unanswered(&self) -> u64 {
        0
    }
}

/// One broker's protocol: makes connections, and asks the broker what it holds.
pub(crate) trait Protocol: Send + Sync {
    /// Makes the topic, stream or queue.
    fn create(&self, addr: SocketAddr) -> Result<()>;

    /// Makes the consumer group, which begins with the first message.
    fn add_group(&self, _addr: SocketAddr) -> Result<()> {
        Ok(())
    }

    /// Gets so many plain subscribers announced.
    fn add_subscribers(&self, _addr: SocketAddr, _count: usize) -> Result<()> {
        Ok(())
    }

    /// The publisher of this number.
    fn publisher(&self, index: usize) -> Box<dyn Publisher>;

    /// The member of the group of this number, if the broker has groups or queues.
    fn member(&self, index: usize) -> Option<Box<dyn Consumer>>;

    /// The plain subscriber of this number, who gets every message from now on.
    fn subscriber(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        None
    }

    /// Reads `count` stored messages from the start, without changing anything.
    fn reader(&self, _count: u64) -> Option<Box<dyn Consumer>> {
        None
    }

    /// Makes ready for a [`Protocol::reader`].
    fn add_reader(&self, _addr: SocketAddr) -> Result<()> {
        Ok(())
    }

    /// Messages that the broker says it holds; none if it does not store them.
    fn held(&self, addr: SocketAddr) -> Result<Option<u64>>;

    /// Messages of the group that the broker has not seen acknowledged.
    fn unsettled(&self, addr: SocketAddr) -> Result<u64>;
}

/// The first line of the input and where the next one begins; the line end is left out.
fn line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', input)?;
    let line = &input[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// The number that the bytes begin with.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// Writes a number in digits.
fn put_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).expect("below ten");
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Bytes for a person to read, not too many of them.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).trim_end().to_owned()
}

#[cfg(test)]
mod testing {
    //! What the tests of the coders share.

    use super::Consumer;

    /// Feeds the bytes to a consumer in pieces of each size, and returns what it delivered and what
    /// it said. Both must not depend on the pieces.
    pub(crate) fn deliver<C: Consumer>(
        mut make: impl FnMut() -> C,
        bytes: &[u8],
    ) -> (Vec<String>, String) {
        let mut outcomes = [1, 7, bytes.len()].map(|piece| {
            let (mut consumer, mut input) = (make(), Vec::new());
            let (mut out, mut got) = (Vec::new(), Vec::new());
            for part in bytes.chunks(piece) {
                input.extend_from_slice(part);
                let mut each = |payload: &[u8]| {
                    got.push(String::from_utf8(payload.to_vec())?);
                    Ok(())
                };
                let used = consumer.deliveries(&input, &mut out, &mut each).unwrap();
                input.drain(..used);
            }
            assert!(input.is_empty(), "left: {}", super::shown(&input));
            (got, String::from_utf8_lossy(&out).into_owned())
        });
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[1], outcomes[2]);
        std::mem::take(&mut outcomes[2])
    }

    /// The same for a publisher: how many messages were answered.
    pub(crate) fn answer<P: super::Publisher>(mut make: impl FnMut() -> P, bytes: &[u8]) -> u64 {
        let counts = [1, 7, bytes.len()].map(|piece| {
            let (mut publisher, mut input) = (make(), Vec::new());
            let mut count = 0;
            for part in bytes.chunks(piece) {
                input.extend_from_slice(part);
                let taken = publisher.answers(&input, &mut Vec::new()).unwrap();
                input.drain(..taken.bytes);
                count += taken.messages;
            }
            assert!(input.is_empty(), "left: {}", super::shown(&input));
            count
        });
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        counts[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_or_without_a_carriage_return() {
        assert_eq!(line(b"one\r\ntwo"), Some((&b"one"[..], 5)));
        assert_eq!(line(b"one\ntwo"), Some((&b"one"[..], 4)));
        assert_eq!(line(b"one\r"), None);
    }

    #[test]
    fn numbers_survive_both_ways() {
        for n in [0, 7, 10, 1_234_567, u64::MAX] {
            let mut out = Vec::new();
            put_number(n, &mut out);
            assert_eq!(out, n.to_string().as_bytes());
            assert_eq!(number(&out), n);
        }
        assert_eq!(number(b"42\r\n"), 42);
    }
}
