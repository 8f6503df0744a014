//! Redis and Valkey: streams with a consumer group, and publish and subscribe, which stores nothing.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::{
    Consumer, Dialog, GROUP, PREFETCH, Protocol, Publisher, TOPIC, Taken, line, number, put_number,
    shown,
};

/// Streams.
#[derive(Debug)]
pub(crate) struct Streams;

/// Publish and subscribe.
#[derive(Debug)]
pub(crate) struct PubSub;

fn put_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    put_number(bytes.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn put_array(length: usize, out: &mut Vec<u8>) {
    out.push(b'*');
    put_number(length as u64, out);
    out.extend_from_slice(b"\r\n");
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    put_array(words.len(), &mut out);
    for word in words {
        put_bulk(word.as_bytes(), &mut out);
    }
    out
}

fn ping(dialog: &mut Dialog) -> Result<()> {
    dialog.ask("PING\r\n", "+PONG").map(drop)
}

impl Protocol for Streams {
    fn create(&self, addr: SocketAddr) -> Result<()> {
        ping(&mut Dialog::open(addr)?)
    }

    fn add_group(&self, addr: SocketAddr) -> Result<()> {
        let question = format!("XGROUP CREATE {TOPIC} {GROUP} 0 MKSTREAM\r\n");
        Dialog::open(addr)?.ask(&question, "+OK").map(drop)
    }

    fn publisher(&self, _index: usize) -> Box<dyn Publisher> {
        Box::new(Sender::new(&["XADD", TOPIC, "*", "d"]))
    }

    fn member(&self, index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(StreamReader::member(&format!("member-{index}"))))
    }

    fn subscriber(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(StreamReader::plain()))
    }

    fn reader(&self, _count: u64) -> Option<Box<dyn Consumer>> {
        Some(Box::new(StreamReader::plain()))
    }

    fn held(&self, addr: SocketAddr) -> Result<Option<u64>> {
        let answer = Dialog::open(addr)?.ask(&format!("XLEN {TOPIC}\r\n"), ":")?;
        Ok(Some(number(&answer.as_bytes()[1..])))
    }

    fn unsettled(&self, addr: SocketAddr) -> Result<u64> {
        let mut dialog = Dialog::open(addr)?;
        dialog.ask(&format!("XPENDING {TOPIC} {GROUP}\r\n"), "*4")?;
        let pending = dialog.ask("", ":")?;
        Ok(number(&pending.as_bytes()[1..]))
    }
}

impl Protocol for PubSub {
    fn create(&self, addr: SocketAddr) -> Result<()> {
        ping(&mut Dialog::open(addr)?)
    }

    fn publisher(&self, _index: usize) -> Box<dyn Publisher> {
        Box::new(Sender::new(&["PUBLISH", TOPIC]))
    }

    fn member(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        None
    }

    fn subscriber(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Subscriber))
    }

    fn held(&self, _addr: SocketAddr) -> Result<Option<u64>> {
        Ok(None)
    }

    fn unsettled(&self, _addr: SocketAddr) -> Result<u64> {
        Ok(0)
    }
}

/// A command for each message, with the message as its last word.
#[derive(Debug)]
struct Sender {
    prefix: Vec<u8>,
}

impl Sender {
    fn new(words: &[&str]) -> Self {
        let mut prefix = Vec::new();
        put_array(words.len() + 1, &mut prefix);
        for word in words {
            put_bulk(word.as_bytes(), &mut prefix);
        }
        Self { prefix }
    }
}

impl Publisher for Sender {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        ping(dialog)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        put_bulk(payload, out);
    }

    /// An id for `XADD`, a number of receivers for `PUBLISH`.
    fn answers(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Taken> {
        let mut taken = Taken::default();
        while let Some(bytes) = match input.get(taken.bytes) {
            Some(b'$') => bulk(&input[taken.bytes..])?.map(|(_, bytes)| bytes),
            Some(b':') => line(&input[taken.bytes..]).map(|(_, bytes)| bytes),
            Some(_) => match line(&input[taken.bytes..]) {
                Some((text, _)) => bail!("a message was answered {}", shown(text)),
                None => None,
            },
            None => None,
        } {
            taken.bytes += bytes;
            taken.messages += 1;
        }
        Ok(taken)
    }
}

/// The string that the input begins with, and the bytes it takes.
fn bulk(input: &[u8]) -> Result<Option<(&[u8], usize)>> {
    let Some((text, head)) = line(input) else { return Ok(None) };
    ensure!(text.first() == Some(&b'$'), "a string was expected, not {}", shown(text));
    let length = usize::try_from(number(&text[1..]))?;
    match input.get(head..head + length + 2) {
        Some(bytes) => Ok(Some((&bytes[..length], head + length + 2))),
        None => Ok(None),
    }
}

/// What some lines and strings say, and the bytes they take.
type Items<'a, const N: usize> = Option<([&'a [u8]; N], usize)>;

/// What so many lines and strings in a row say, and the bytes they take. `$` in the pattern stands
/// for a string, `*` for the head of a list.
fn items<'a, const N: usize>(input: &'a [u8], pattern: &[u8; N]) -> Result<Items<'a, N>> {
    let mut items: [&[u8]; N] = [b""; N];
    let mut used = 0;
    for (item, kind) in items.iter_mut().zip(pattern) {
        let next = match kind {
            b'$' => bulk(&input[used..])?,
            _ => line(&input[used..]),
        };
        let Some((text, bytes)) = next else { return Ok(None) };
        let is_right = *kind == b'$' || text.first() == Some(kind);
        ensure!(is_right, "{} was expected, not {}", char::from(*kind), shown(text));
        *item = text;
        used += bytes;
    }
    Ok(Some((items, used)))
}

/// Where a reader is in the answers.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Before the answer to a read.
    Head,
    /// Before so many entries.
    Entries(u64),
    /// Before the answer to an acknowledgement of so many.
    Acknowledged(u64),
}

/// Reads a stream, batch for batch: as a member of the group, which acknowledges each batch when it
/// asks for the next, or for itself.
#[derive(Debug)]
struct StreamReader {
    /// The read command up to where it goes on from.
    read: Vec<u8>,
    is_member: bool,
    at: At,
    /// The last id, for a plain reader.
    last: Vec<u8>,
    /// The ids of this batch, for a member, as words of a command.
    ids: Vec<u8>,
    count: u64,
}

impl StreamReader {
    fn member(name: &str) -> Self {
        let count = PREFETCH.to_string();
        let words = ["XREADGROUP", "GROUP", GROUP, name, "COUNT", &count, "BLOCK", "1000"];
        Self::new(&words, true)
    }

    fn plain() -> Self {
        let count = PREFETCH.to_string();
        Self::new(&["XREAD", "COUNT", &count, "BLOCK", "1000"], false)
    }

    fn new(words: &[&str], is_member: bool) -> Self {
        let mut read = Vec::new();
        put_array(words.len() + 3, &mut read);
        for word in words.iter().chain(&["STREAMS", TOPIC]) {
            put_bulk(word.as_bytes(), &mut read);
        }
        let (last, ids) = (b"0".to_vec(), Vec::new());
        Self { read, is_member, at: At::Head, last, ids, count: 0 }
    }

    fn put_read(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.read);
        put_bulk(if self.is_member { b">" } else { &self.last }, out);
    }

    /// Behind a batch: acknowledges it, and asks for the next one.
    fn next_batch(&mut self, out: &mut Vec<u8>) -> At {
        if !self.is_member {
            self.put_read(out);
            return At::Head;
        }
        put_array(3 + usize::try_from(self.count).expect("a batch is small"), out);
        for word in ["XACK", TOPIC, GROUP] {
            put_bulk(word.as_bytes(), out);
        }
        out.extend_from_slice(&self.ids);
        self.ids.clear();
        self.put_read(out);
        At::Acknowledged(std::mem::take(&mut self.count))
    }

    /// The bytes of the answer's head, or none if more of it has to come.
    fn head(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>> {
        let Some((text, bytes)) = line(input) else { return Ok(None) };
        if text == b"*-1" {
            // Nothing has come for a while.
            self.put_read(out);
            return Ok(Some(bytes));
        }
        let Some((items, bytes)) = items(input, b"**$*")? else { return Ok(None) };
        self.at = At::Entries(number(&items[3][1..]));
        Ok(Some(bytes))
    }
}

impl Consumer for StreamReader {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        ping(dialog)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.put_read(out);
    }

    fn deliveries(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.at {
                At::Head => match self.head(rest, out)? {
                    Some(bytes) => used += bytes,
                    None => return Ok(used),
                },
                At::Entries(0) => self.at = self.next_batch(out),
                At::Entries(left) => {
                    let Some((items, bytes)) = items(rest, b"*$*$$")? else { return Ok(used) };
                    let [_, id, _, _, payload] = items;
                    each(payload)?;
                    if self.is_member {
                        put_bulk(id, &mut self.ids);
                        self.count += 1;
                    } else {
                        id.clone_into(&mut self.last);
                    }
                    used += bytes;
                    self.at = At::Entries(left - 1);
                }
                At::Acknowledged(count) => {
                    let Some((text, bytes)) = line(rest) else { return Ok(used) };
                    let is_all = text.first() == Some(&b':') && number(&text[1..]) == count;
                    ensure!(is_all, "XACK of {count}: answered {}", shown(text));
                    used += bytes;
                    self.at = At::Head;
                }
            }
        }
    }

    fn unanswered(&self) -> u64 {
        match self.at {
            At::Acknowledged(count) => count,
            At::Head | At::Entries(_) => self.count,
        }
    }
}

/// A subscriber of `PUBLISH`.
#[derive(Debug)]
struct Subscriber;

impl Consumer for Subscriber {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        let question = command(&["SUBSCRIBE", TOPIC]);
        dialog.say(&question)?;
        for start in ["*3", "$9", "subscribe", "$", TOPIC, ":1"] {
            dialog.ask("", start)?;
        }
        Ok(())
    }

    fn deliveries(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        while let Some((items, bytes)) = items(&input[used..], b"*$$$")? {
            each(items[3])?;
            used += bytes;
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, deliver};
    use super::*;

    #[test]
    fn a_message_is_the_last_word_of_its_command() {
        let mut out = Vec::new();
        Sender::new(&["PUBLISH", "t"]).publish(b"hi", &mut out);
        assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nt\r\n$2\r\nhi\r\n");
        assert_eq!(out, command(&["PUBLISH", "t", "hi"]));
        assert_eq!(answer(|| Sender::new(&[]), b"$3\r\n1-0\r\n:4\r\n"), 2);
        assert!(Sender::new(&[]).answers(b"-OOM no\r\n", &mut out).is_err());
    }

    const BATCH: &[u8] = b"*1\r\n*2\r\n$7\r\ncompare\r\n*2\r\n\
        *2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nd\r\n$3\r\none\r\n\
        *2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nd\r\n$3\r\ntwo\r\n";

    #[test]
    fn a_member_acknowledges_a_batch_at_once() {
        let make = || StreamReader::member("m");
        let bytes = [BATCH, b":2\r\n"].concat();
        let (got, said) = deliver(make, &bytes);
        assert_eq!(got, ["one", "two"]);
        let ack = command(&["XACK", "compare", "group", "1-0", "1-1"]);
        assert!(said.as_bytes().starts_with(&ack), "{said}");
        assert!(said.ends_with("$1\r\n>\r\n"), "{said}");
        let (mut member, mut out) = (make(), Vec::new());
        assert_eq!(member.deliveries(BATCH, &mut out, &mut |_| Ok(())).unwrap(), BATCH.len());
        assert_eq!(member.unanswered(), 2);
        assert!(member.deliveries(b":1\r\n", &mut out, &mut |_| Ok(())).is_err());
    }

    #[test]
    fn a_plain_reader_goes_on_behind_the_last_id() {
        let (got, said) = deliver(StreamReader::plain, BATCH);
        assert_eq!(got, ["one", "two"]);
        assert!(said.ends_with("$3\r\n1-1\r\n"), "{said}");
        let (got, said) = deliver(StreamReader::plain, b"*-1\r\n");
        assert_eq!((got.len(), said.ends_with("$1\r\n0\r\n")), (0, true));
    }

    #[test]
    fn a_subscriber_gets_what_is_published() {
        let bytes = b"*3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$2\r\nhi\r\n";
        assert_eq!(deliver(|| Subscriber, bytes).0, ["hi"]);
    }
}
