//! AMQP 0-9-1 as RabbitMQ speaks it: a quorum queue, publisher confirms, acknowledgements of many at
//! once.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Consumer, Dialog, PREFETCH, Protocol, Publisher, TOPIC, Taken, shown};

#[derive(Debug)]
pub(crate) struct Amqp;

/// A member acknowledges when so many have come, and whenever it has read all there is.
const ACK_EVERY: u64 = 100;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xCE;

/// A method: its class and its number.
type Method = (u16, u16);

const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CHANNEL_OPEN: Method = (20, 10);
const QUEUE_DECLARE: Method = (50, 10);
const QOS: Method = (60, 10);
const QOS_OK: Method = (60, 11);
const CONSUME: Method = (60, 20);
const CONSUME_OK: Method = (60, 21);
const PUBLISH: Method = (60, 40);
const DELIVER: Method = (60, 60);
const ACK: Method = (60, 80);
const CONFIRM: Method = (85, 10);

fn put_frame(kind: u8, channel: u16, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    let length = u32::try_from(body.len()).expect("a frame is small");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out.push(FRAME_END);
}

fn put_method(channel: u16, (class, number): Method, arguments: &[u8], out: &mut Vec<u8>) {
    let body = [&class.to_be_bytes(), &number.to_be_bytes(), arguments].concat();
    put_frame(METHOD, channel, &body, out);
}

fn put_short(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).expect("a short string is short"));
    out.extend_from_slice(text.as_bytes());
}

fn put_long(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("a long string is not so long");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The kind and body of the first frame, and the bytes it takes.
fn frame(input: &[u8]) -> Result<Option<(u8, &[u8], usize)>> {
    let Some(head) = input.first_chunk::<7>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let Some(rest) = input.get(7..length + 8) else { return Ok(None) };
    ensure!(rest[length] == FRAME_END, "a frame without its end");
    Ok(Some((head[0], &rest[..length], length + 8)))
}

/// The method in the body of a frame, and its arguments.
fn method(body: &[u8]) -> Result<(Method, &[u8])> {
    let (head, arguments) = body.split_first_chunk::<4>().context("a method cut short")?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    Ok(((word(0), word(2)), arguments))
}

/// The delivery tag that the arguments begin with, and the byte behind it.
fn tag(arguments: &[u8]) -> Result<(u64, u8)> {
    let (tag, rest) = arguments.split_first_chunk::<8>().context("a tag cut short")?;
    Ok((u64::from_be_bytes(*tag), *rest.first().context("a method cut short")?))
}

/// Sends a method, if there is one, and waits for its answer.
fn call(dialog: &mut Dialog, bytes: &[u8], wanted: Method) -> Result<Vec<u8>> {
    dialog.say(bytes)?;
    loop {
        let head = dialog.bytes(7)?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let body = dialog.bytes(length + 1)?;
        if head[0] == HEARTBEAT {
            continue;
        }
        let (got, arguments) = method(&body[..length])?;
        ensure!(got == wanted, "{wanted:?} was expected, not {got:?}: {}", shown(arguments));
        return Ok(arguments.to_vec());
    }
}

fn ask(dialog: &mut Dialog, channel: u16, method: Method, arguments: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    put_method(channel, method, arguments, &mut bytes);
    // The number of an answer is one more than that of its question.
    call(dialog, &bytes, (method.0, method.1 + 1))
}

/// Opens the connection and a channel.
fn open(dialog: &mut Dialog) -> Result<()> {
    call(dialog, b"AMQP\x00\x00\x09\x01", START)?;
    let mut arguments = vec![0; 4];
    put_short("PLAIN", &mut arguments);
    put_long(b"\0guest\0guest", &mut arguments);
    put_short("en_US", &mut arguments);
    let mut bytes = Vec::new();
    put_method(0, START_OK, &arguments, &mut bytes);
    call(dialog, &bytes, TUNE)?;
    // 2,047 channels, frames of 128 KiB, no heartbeats.
    let tune = [&2047_u16.to_be_bytes()[..], &(128_u32 << 10).to_be_bytes(), &[0, 0]].concat();
    bytes.clear();
    put_method(0, TUNE_OK, &tune, &mut bytes);
    put_method(0, OPEN, b"\x01/\x00\x00", &mut bytes);
    call(dialog, &bytes, OPEN_OK)?;
    ask(dialog, 1, CHANNEL_OPEN, &[0]).map(drop)
}

fn declare(addr: SocketAddr, flags: u8, table: &[u8]) -> Result<u64> {
    let mut dialog = Dialog::open(addr)?;
    open(&mut dialog)?;
    let mut arguments = vec![0; 2];
    put_short(TOPIC, &mut arguments);
    arguments.push(flags);
    put_long(table, &mut arguments);
    let answer = ask(&mut dialog, 1, QUEUE_DECLARE, &arguments)?;
    let count = answer.get(1 + TOPIC.len()..).and_then(|rest| rest.first_chunk::<4>());
    Ok(u64::from(u32::from_be_bytes(*count.context("an answer cut short")?)))
}

impl Protocol for Amqp {
    fn create(&self, addr: SocketAddr) -> Result<()> {
        const DURABLE: u8 = 2;
        let mut table = Vec::new();
        put_short("x-queue-type", &mut table);
        table.push(b'S');
        put_long(b"quorum", &mut table);
        declare(addr, DURABLE, &table).map(drop)
    }

    fn publisher(&self, _index: usize) -> Box<dyn Publisher> {
        Box::new(Sender::new())
    }

    fn member(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Receiver::default()))
    }

    fn held(&self, addr: SocketAddr) -> Result<Option<u64>> {
        self.unsettled(addr).map(Some)
    }

    /// What is with a member is not among them until that goes away.
    fn unsettled(&self, addr: SocketAddr) -> Result<u64> {
        const PASSIVE: u8 = 1;
        declare(addr, PASSIVE, &[])
    }
}

#[derive(Debug)]
struct Sender {
    /// What comes before each message's length.
    prefix: Vec<u8>,
    /// The tag of the first entry of `open`.
    first: u64,
    /// Whether each message from `first` on was confirmed: confirms may come out of turn.
    open: VecDeque<bool>,
}

impl Sender {
    fn new() -> Self {
        let mut arguments = vec![0; 3];
        put_short(TOPIC, &mut arguments);
        arguments.push(0);
        let mut prefix = Vec::new();
        put_method(1, PUBLISH, &arguments, &mut prefix);
        Self { prefix, first: 1, open: VecDeque::new() }
    }

    /// Counts what this confirm is the first to confirm.
    fn confirm(&mut self, tag: u64, with_all_before: bool) -> Result<u64> {
        let at = usize::try_from(tag.checked_sub(self.first).context("confirmed twice")?)?;
        ensure!(at < self.open.len(), "confirmed before it was sent");
        let from = if with_all_before { 0 } else { at };
        let mut count = 0;
        for is_confirmed in self.open.range_mut(from..=at) {
            count += u64::from(!std::mem::replace(is_confirmed, true));
        }
        while self.open.front() == Some(&true) {
            self.open.pop_front();
            self.first += 1;
        }
        Ok(count)
    }
}

impl Publisher for Sender {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        open(dialog)?;
        ask(dialog, 1, CONFIRM, &[0]).map(drop)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        const PERSISTENT: u8 = 2;
        out.extend_from_slice(&self.prefix);
        let mut header = [0; 15];
        header[1] = 60;
        header[4..12].copy_from_slice(&(payload.len() as u64).to_be_bytes());
        header[12] = 0x10;
        header[14] = PERSISTENT;
        put_frame(HEADER, 1, &header, out);
        put_frame(BODY, 1, payload, out);
        self.open.push_back(false);
    }

    fn answers(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Taken> {
        let mut taken = Taken::default();
        while let Some((kind, body, bytes)) = frame(&input[taken.bytes..])? {
            if kind == METHOD {
                match method(body)? {
                    (ACK, arguments) => {
                        let (tag, flags) = tag(arguments)?;
                        taken.messages += self.confirm(tag, flags & 1 == 1)?;
                    }
                    (other, text) => bail!("a message was answered {other:?}: {}", shown(text)),
                }
            }
            taken.bytes += bytes;
        }
        Ok(taken)
    }
}

#[derive(Debug, Default)]
struct Receiver {
    /// The tag of the last message.
    tag: u64,
    /// Messages that came since the last acknowledgement.
    open: u64,
    is_finishing: bool,
}

fn qos() -> Vec<u8> {
    let count = u16::try_from(PREFETCH).expect("a prefetch is small");
    [&[0; 4][..], &count.to_be_bytes(), &[0]].concat()
}

impl Receiver {
    fn acknowledge(&mut self, out: &mut Vec<u8>) {
        const WITH_ALL_BEFORE: u8 = 1;
        let arguments = [&self.tag.to_be_bytes()[..], &[WITH_ALL_BEFORE]].concat();
        put_method(1, ACK, &arguments, out);
        self.open = 0;
    }
}

impl Consumer for Receiver {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        open(dialog)?;
        ask(dialog, 1, QOS, &qos()).map(drop)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let mut arguments = vec![0; 2];
        put_short(TOPIC, &mut arguments);
        put_short("member", &mut arguments);
        arguments.push(0);
        put_long(&[], &mut arguments);
        put_method(1, CONSUME, &arguments, out);
    }

    fn deliveries(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        while let Some((kind, body, bytes)) = frame(&input[used..])? {
            if kind == METHOD {
                match method(body)? {
                    (DELIVER, arguments) => {
                        let name = usize::from(*arguments.first().context("cut short")?);
                        self.tag = tag(arguments.get(1 + name..).context("cut short")?)?.0;
                    }
                    (CONSUME_OK, _) => {}
                    (QOS_OK, _) => self.is_finishing = false,
                    (other, text) => bail!("consuming: answered {other:?}: {}", shown(text)),
                }
            } else if kind == BODY {
                each(body)?;
                self.open += 1;
                if self.open == ACK_EVERY {
                    self.acknowledge(out);
                }
            }
            used += bytes;
        }
        Ok(used)
    }

    fn pause(&mut self, out: &mut Vec<u8>) {
        if self.open > 0 {
            self.acknowledge(out);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        put_method(1, QOS, &qos(), out);
        self.is_finishing = true;
    }

    fn unanswered(&self) -> u64 {
        self.open + u64::from(self.is_finishing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, deliver};
    use super::*;

    fn confirm(tag: u64, flags: u8) -> Vec<u8> {
        let mut out = Vec::new();
        put_method(1, ACK, &[&tag.to_be_bytes()[..], &[flags]].concat(), &mut out);
        out
    }

    #[test]
    fn a_message_is_three_frames() {
        let mut out = Vec::new();
        Sender::new().publish(b"hi", &mut out);
        let publish =
            b"\x01\x00\x01\x00\x00\x00\x10\x00\x3c\x00\x28\x00\x00\x00\x07compare\x00\xce";
        let header = b"\x02\x00\x01\x00\x00\x00\x0f\x00\x3c\x00\x00\
                       \x00\x00\x00\x00\x00\x00\x00\x02\x10\x00\x02\xce";
        let body = b"\x03\x00\x01\x00\x00\x00\x02hi\xce";
        assert_eq!(out, [&publish[..], header, body].concat());
    }

    #[test]
    fn confirms_count_once_whatever_their_order() {
        let make = || {
            let mut sender = Sender::new();
            for _ in 0..5 {
                sender.publish(b"hi", &mut Vec::new());
            }
            sender
        };
        let bytes = [confirm(2, 0), confirm(3, 1), confirm(5, 0), confirm(4, 0)].concat();
        assert_eq!(answer(make, &bytes), 5);
        assert!(make().answers(&confirm(6, 0), &mut Vec::new()).is_err());
        let mut sender = make();
        sender.answers(&confirm(3, 1), &mut Vec::new()).unwrap();
        assert!(sender.answers(&confirm(3, 1), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_member_acknowledges_all_that_it_read() {
        let mut bytes = Vec::new();
        put_method(1, DELIVER, b"\x01m\0\0\0\0\0\0\0\x07\0\0\0", &mut bytes);
        put_frame(HEADER, 1, &[0; 15], &mut bytes);
        put_frame(BODY, 1, b"hi", &mut bytes);
        assert_eq!(deliver(Receiver::default, &bytes).0, ["hi"]);
        let (mut receiver, mut out) = (Receiver::default(), Vec::new());
        receiver.deliveries(&bytes, &mut out, &mut |_| Ok(())).unwrap();
        assert_eq!((receiver.unanswered(), out.len()), (1, 0));
        receiver.pause(&mut out);
        assert_eq!((receiver.unanswered(), out), (0, confirm(7, 1)));
    }
}
