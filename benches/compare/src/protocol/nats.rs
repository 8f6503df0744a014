//! NATS: the lines under JetStream, and plain publish and subscribe, which stores nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::{Consumer, Dialog, Protocol, Publisher, TOPIC, Taken, line, number, put_number, shown};

/// Publish and subscribe without storing. A `PONG` is the only answer that there is.
#[derive(Debug)]
pub(crate) struct Nats;

impl Protocol for Nats {
    fn create(&self, addr: SocketAddr) -> Result<()> {
        connect(&mut Dialog::open(addr)?)
    }

    fn publisher(&self, _index: usize) -> Box<dyn Publisher> {
        Box::new(CorePublisher::default())
    }

    fn member(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        None
    }

    fn subscriber(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Subscriber { subject: TOPIC.to_owned() }))
    }

    fn held(&self, _addr: SocketAddr) -> Result<Option<u64>> {
        Ok(None)
    }

    fn unsettled(&self, _addr: SocketAddr) -> Result<u64> {
        Ok(0)
    }
}

/// What a client says first.
pub(super) fn connect(dialog: &mut Dialog) -> Result<()> {
    dialog.ask("", "INFO ")?;
    let options = "\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\",\
                   \"protocol\":1,\"headers\":true,\"no_responders\":true";
    dialog.say(format!("CONNECT {{{options}}}\r\n").as_bytes())?;
    until_pong(dialog)
}

/// Announces that this connection gets what comes to the subject.
pub(super) fn subscribe(subject: &str, dialog: &mut Dialog) -> Result<()> {
    dialog.say(format!("SUB {subject} 1\r\n").as_bytes())?;
    until_pong(dialog)
}

/// Sends a `PING` and waits for its answer; the server may say other things before.
fn until_pong(dialog: &mut Dialog) -> Result<()> {
    dialog.say(b"PING\r\n")?;
    loop {
        let line = dialog.line()?;
        match line.split(' ').next() {
            Some("PONG") => return Ok(()),
            Some("PING") => dialog.say(b"PONG\r\n")?,
            Some("INFO") => {}
            _ => bail!("the server said {line}"),
        }
    }
}

/// Sends a request and waits for its reply.
pub(super) fn request(addr: SocketAddr, subject: &str, body: &str) -> Result<String> {
    let mut dialog = Dialog::open(addr)?;
    connect(&mut dialog)?;
    let length = body.len();
    dialog.say(
        format!("SUB _INBOX.ask 1\r\nPUB {subject} _INBOX.ask {length}\r\n{body}\r\n").as_bytes(),
    )?;
    loop {
        let line = dialog.line()?;
        match line.split(' ').next() {
            Some("PING") => dialog.say(b"PONG\r\n")?,
            Some("INFO") => {}
            Some("MSG") => {
                let count = number(line.rsplit(' ').next().unwrap_or_default().as_bytes());
                let bytes = dialog.bytes(usize::try_from(count)? + 2)?;
                return Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned());
            }
            _ => bail!("{subject}: answered {line}"),
        }
    }
}

/// One thing that a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Message {
        /// Where an acknowledgement goes; empty if none is wanted.
        reply: &'a [u8],
        /// The headers, if there are any.
        headers: &'a [u8],
        body: &'a [u8],
    },
    Ping,
    Pong,
    /// `+OK`, or news about the cluster.
    Other,
}

/// The first thing that is said, and the bytes it takes. None if it has not come as a whole.
pub(super) fn said(input: &[u8]) -> Result<Option<(Said<'_>, usize)>> {
    let Some((text, head)) = line(input) else { return Ok(None) };
    let has_headers = text.starts_with(b"HMSG ");
    if has_headers || text.starts_with(b"MSG ") {
        let mut words: [&[u8]; 6] = [b""; 6];
        let mut count = 0;
        for word in text.split(|byte| *byte == b' ').take(words.len()) {
            words[count] = word;
            count += 1;
        }
        let length = usize::try_from(number(words[count - 1]))?;
        let Some(all) = input.get(head..head + length + 2) else { return Ok(None) };
        let sizes = if has_headers { 2 } else { 1 };
        let reply = if count == 4 + sizes { words[3] } else { b"" };
        let split = if has_headers { usize::try_from(number(words[count - 2]))? } else { 0 };
        let (headers, body) = all[..length].split_at(split.min(length));
        return Ok(Some((Said::Message { reply, headers, body }, head + length + 2)));
    }
    let said = match text {
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        _ if text.starts_with(b"-ERR") => bail!("the server said {}", shown(text)),
        _ => Said::Other,
    };
    Ok(Some((said, head)))
}

/// Writes `PUB <subject> [reply] <length>` and the payload.
pub(super) fn put(words: &[&[u8]], payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"PUB ");
    for word in words {
        out.extend_from_slice(word);
        out.push(b' ');
    }
    put_number(payload.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Asks for a `PONG` after so many messages, and after the last of a burst.
const PING_AFTER: u64 = 100;

#[derive(Debug, Default)]
struct CorePublisher {
    /// Messages behind the last `PING`.
    open: u64,
    /// Messages that each `PONG` to come stands for.
    asked: VecDeque<u64>,
}

impl CorePublisher {
    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
        self.asked.push_back(std::mem::take(&mut self.open));
    }
}

impl Publisher for CorePublisher {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        connect(dialog)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        put(&[TOPIC.as_bytes()], payload, out);
        self.open += 1;
        if self.open == PING_AFTER {
            self.ping(out);
        }
    }

    fn burst_ends(&mut self, out: &mut Vec<u8>) {
        if self.open > 0 {
            self.ping(out);
        }
    }

    fn answers(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Taken> {
        let mut taken = Taken::default();
        while let Some((said, bytes)) = said(&input[taken.bytes..])? {
            match said {
                Said::Ping => out.extend_from_slice(b"PONG\r\n"),
                Said::Pong => taken.messages += self.asked.pop_front().unwrap_or(0),
                Said::Message { .. } | Said::Other => {}
            }
            taken.bytes += bytes;
        }
        Ok(taken)
    }
}

/// Gets every message of a subject.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) subject: String,
}

impl Consumer for Subscriber {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        connect(dialog)?;
        subscribe(&self.subject, dialog)
    }

    fn deliveries(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        while let Some((said, bytes)) = said(&input[used..])? {
            match said {
                Said::Message { body, .. } => each(body)?,
                Said::Ping => out.extend_from_slice(b"PONG\r\n"),
                Said::Pong | Said::Other => {}
            }
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
    fn what_is_said_is_told_apart() {
        let (reply, headers) = (&b""[..], &b""[..]);
        let plain = Said::Message { reply, headers, body: b"hi" };
        assert_eq!(said(b"MSG s 1 2\r\nhi\r\nPING").unwrap(), Some((plain, 15)));
        let replied = Said::Message { reply: b"r", headers, body: b"hi" };
        assert_eq!(said(b"MSG s 1 r 2\r\nhi\r\n").unwrap(), Some((replied, 17)));
        let headed = Said::Message { reply: b"r", headers: b"H\r\n\r\n", body: b"hi" };
        assert_eq!(said(b"HMSG s 1 r 5 7\r\nH\r\n\r\nhi\r\n").unwrap(), Some((headed, 25)));
        assert_eq!(said(b"MSG s 1 2\r\nhi\r").unwrap(), None);
        assert_eq!(said(b"PING\r\n").unwrap(), Some((Said::Ping, 6)));
        assert!(said(b"-ERR 'Slow Consumer'\r\n").is_err());
    }

    #[test]
    fn a_pong_answers_for_all_before_its_ping() {
        let make = || {
            let (mut publisher, mut out) = (CorePublisher::default(), Vec::new());
            for _ in 0..150 {
                publisher.publish(b"hi", &mut out);
            }
            publisher.burst_ends(&mut out);
            assert!(out.starts_with(b"PUB compare 2\r\nhi\r\n"));
            assert_eq!(out.windows(6).filter(|bytes| *bytes == b"PING\r\n").count(), 2);
            publisher
        };
        assert_eq!(answer(make, b"PONG\r\n"), 100);
        assert_eq!(answer(make, b"PONG\r\nPONG\r\n"), 150);
    }

    #[test]
    fn a_subscriber_answers_pings() {
        let make = || Subscriber { subject: "s".to_owned() };
        let (got, out) = deliver(make, b"MSG s 1 2\r\nhi\r\nPING\r\nMSG s 1 0\r\n\r\n");
        assert_eq!((got, out.as_str()), (vec!["hi".to_owned(), String::new()], "PONG\r\n"));
    }
}
