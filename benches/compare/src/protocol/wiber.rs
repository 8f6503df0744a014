//! Wiber's own protocol: a line each way. The project's documentation of the protocol has all of it.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::{Consumer, Dialog, GROUP, Protocol, Publisher, TOPIC, Taken, line, number, shown};

#[derive(Debug)]
pub(crate) struct Wiber;

fn open(addr: SocketAddr) -> Result<Dialog> {
    let mut dialog = Dialog::open(addr)?;
    dialog.ask("", "OK connected")?;
    Ok(dialog)
}

impl Protocol for Wiber {
    /// A topic is there as soon as something is published to it.
    fn create(&self, addr: SocketAddr) -> Result<()> {
        open(addr)?.ask("PING\n", "OK pong").map(drop)
    }

    /// A new group begins with what comes; this one is to begin with the first message, which is
    /// so if it is there before it.
    fn add_group(&self, addr: SocketAddr) -> Result<()> {
        open(addr)?.ask(&format!("SUB {TOPIC} {GROUP}\n"), "OK subscribed").map(drop)
    }

    fn publisher(&self, _index: usize) -> Box<dyn Publisher> {
        Box::new(Sender)
    }

    fn member(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Receiver { is_member: true, unanswered: 0 }))
    }

    fn subscriber(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Receiver { is_member: false, unanswered: 0 }))
    }

    fn reader(&self, count: u64) -> Option<Box<dyn Consumer>> {
        Some(Box::new(History { count, unanswered: 1 }))
    }

    /// Offsets have no gap, so the last one is the count.
    fn held(&self, addr: SocketAddr) -> Result<Option<u64>> {
        let answer = open(addr)?.ask(&format!("HISTORY {TOPIC} 1\n"), "")?;
        if answer == "OK history end" {
            return Ok(Some(0));
        }
        match answer.strip_prefix("HISTORY ").and_then(|rest| rest.split(' ').nth(2)) {
            Some(offset) => Ok(Some(number(offset.as_bytes()))),
            None => bail!("HISTORY: answered {answer}"),
        }
    }

    /// Every acknowledgement is answered, and the answers are counted.
    fn unsettled(&self, _addr: SocketAddr) -> Result<u64> {
        Ok(0)
    }
}

#[derive(Debug)]
struct Sender;

impl Publisher for Sender {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        dialog.ask("", "OK connected").map(drop)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(TOPIC.as_bytes());
        out.push(b' ');
        out.extend_from_slice(payload);
        out.push(b'\n');
    }

    fn answers(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Taken> {
        let mut taken = Taken::default();
        while let Some((answer, next)) = line(&input[taken.bytes..]) {
            ensure!(answer.starts_with(b"OK published "), "PUB: answered {}", shown(answer));
            taken.bytes += next;
            taken.messages += 1;
        }
        Ok(taken)
    }
}

/// A plain subscriber or a member of the group.
#[derive(Debug)]
struct Receiver {
    is_member: bool,
    unanswered: u64,
}

impl Consumer for Receiver {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        dialog.ask("", "OK connected")?;
        let group = if self.is_member { GROUP } else { "" };
        dialog.ask(&format!("SUB {TOPIC} {group}\n"), "OK subscribed").map(drop)
    }

    fn deliveries(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        while let Some((text, next)) = line(&input[used..]) {
            if text.starts_with(b"MSG ") {
                let (id, payload) = message(text)?;
                each(payload)?;
                if self.is_member {
                    out.extend_from_slice(b"ACK ");
                    out.extend_from_slice(id);
                    out.push(b'\n');
                    self.unanswered += 1;
                }
            } else {
                ensure!(text == b"OK ack_received", "ACK: answered {}", shown(text));
                ensure!(self.unanswered > 0, "an answer to nothing: {}", shown(text));
                self.unanswered -= 1;
            }
            used += next;
        }
        Ok(used)
    }

    fn unanswered(&self) -> u64 {
        self.unanswered
    }
}

/// The id and the message of `MSG` or `HISTORY` `<topic> <id> <offset> <ts> <message>`.
fn message(text: &[u8]) -> Result<(&[u8], &[u8])> {
    let mut words = text.splitn(6, |byte| *byte == b' ');
    match (words.nth(2), words.nth(2)) {
        (Some(id), Some(payload)) => Ok((id, payload)),
        _ => bail!("a line without a message: {}", shown(text)),
    }
}

/// Reads what is stored.
#[derive(Debug)]
struct History {
    count: u64,
    unanswered: u64,
}

impl Consumer for History {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        dialog.ask("", "OK connected").map(drop)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("HISTORY {TOPIC} {}\n", self.count).as_bytes());
    }

    fn deliveries(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        while let Some((text, next)) = line(&input[used..]) {
            if text.starts_with(b"HISTORY ") {
                each(message(text)?.1)?;
            } else {
                ensure!(text == b"OK history end", "HISTORY: answered {}", shown(text));
                self.unanswered = 0;
            }
            used += next;
        }
        Ok(used)
    }

    fn unanswered(&self) -> u64 {
        self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, deliver};
    use super::*;

    #[test]
    fn a_message_is_a_line_and_so_is_its_answer() {
        let mut out = Vec::new();
        Sender.publish(b"two words", &mut out);
        assert_eq!(out, b"PUB compare two words\n");
        assert_eq!(answer(|| Sender, b"OK published msg_1_a 1\nOK published msg_1_b 2\n"), 2);
        assert!(Sender.answers(b"ERR DISK_FULL full\n", &mut out).is_err());
    }

    #[test]
    fn a_member_acknowledges_and_counts_the_answers() {
        let make = || Receiver { is_member: true, unanswered: 0 };
        let bytes = b"MSG compare msg_1_a 1 1.5 two words\nOK ack_received\n";
        let (got, said) = deliver(make, bytes);
        assert_eq!((got, said.as_str()), (vec!["two words".to_owned()], "ACK msg_1_a\n"));
        let mut member = make();
        let refusal = b"ERR NOT_PENDING no such message\n";
        assert!(member.deliveries(refusal, &mut Vec::new(), &mut |_| Ok(())).is_err());
    }

    #[test]
    fn history_ends_with_its_answer() {
        let make = || History { count: 2, unanswered: 1 };
        let bytes = b"HISTORY compare a 1 1.5 one\nHISTORY compare b 2 1.5 two\nOK history end\n";
        assert_eq!(deliver(make, bytes).0, ["one", "two"]);
        let mut out = Vec::new();
        make().begin(&mut out);
        assert_eq!(out, b"HISTORY compare 2\n");
    }
}
