//! beanstalkd: one queue, from which whoever reserves a job deletes it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Consumer, Dialog, Protocol, Publisher, Taken, line, number, put_number, shown};

#[derive(Debug)]
pub(crate) struct Beanstalk;

/// Most jobs that a member asks for at once. Jobs that are asked for stand in a connection's way,
/// since nothing behind them is carried out until they are there; more than this gains nothing.
const RESERVE_MAX: usize = 100;

/// Seconds that a job may stay reserved.
const TIME_TO_RUN: u64 = 120;

fn statistic(addr: SocketAddr, names: &[&str]) -> Result<u64> {
    let mut dialog = Dialog::open(addr)?;
    let answer = dialog.ask("stats\r\n", "OK ")?;
    let count = usize::try_from(number(&answer.as_bytes()[3..]))?;
    let text = String::from_utf8(dialog.bytes(count + 2)?)?;
    let value = |name: &&str| {
        let start = format!("{name}: ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.map(|value| number(value.as_bytes())).with_context(|| format!("no {name} in stats"))
    };
    names.iter().map(value).sum()
}

impl Protocol for Beanstalk {
    /// The tube `default` is always there.
    fn create(&self, addr: SocketAddr) -> Result<()> {
        statistic(addr, &[]).map(drop)
    }

    fn publisher(&self, _index: usize) -> Box<dyn Publisher> {
        Box::new(Sender)
    }

    fn member(&self, _index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Receiver { reserves: 1, open: 0, jobs: Vec::new(), unanswered: 0 }))
    }

    fn held(&self, addr: SocketAddr) -> Result<Option<u64>> {
        self.unsettled(addr).map(Some)
    }

    fn unsettled(&self, addr: SocketAddr) -> Result<u64> {
        statistic(addr, &["current-jobs-ready", "current-jobs-reserved"])
    }
}

#[derive(Debug)]
struct Sender;

impl Publisher for Sender {
    fn greet(&mut self, _dialog: &mut Dialog) -> Result<()> {
        Ok(())
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"put 0 0 ");
        put_number(TIME_TO_RUN, out);
        out.push(b' ');
        put_number(payload.len() as u64, out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn answers(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Taken> {
        let mut taken = Taken::default();
        while let Some((answer, next)) = line(&input[taken.bytes..]) {
            ensure!(answer.starts_with(b"INSERTED "), "put: answered {}", shown(answer));
            taken.bytes += next;
            taken.messages += 1;
        }
        Ok(taken)
    }
}

/// Works in rounds: asks for some jobs, the first of which it waits for; deletes what it got, and
/// asks for twice as many in the same breath.
#[derive(Debug)]
struct Receiver {
    /// Jobs that this round asked for.
    reserves: usize,
    /// Of them, those that were not answered.
    open: usize,
    /// Jobs that came in this round.
    jobs: Vec<u64>,
    /// Deletes that were not answered.
    unanswered: u64,
}

impl Receiver {
    fn round(&mut self, out: &mut Vec<u8>) {
        self.reserves = (self.jobs.len() * 2).clamp(1, RESERVE_MAX);
        self.unanswered += self.jobs.len() as u64;
        for job in self.jobs.drain(..) {
            out.extend_from_slice(b"delete ");
            put_number(job, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"reserve\r\n");
        for _ in 1..self.reserves {
            out.extend_from_slice(b"reserve-with-timeout 0\r\n");
        }
        self.open = self.reserves;
    }

    /// One of the answers to the reserves of this round, and the bytes it takes.
    fn reserved<'a>(&mut self, text: &[u8], rest: &'a [u8]) -> Result<Option<(&'a [u8], usize)>> {
        let mut words = text.split(|byte| *byte == b' ').skip(1).map(number);
        let (Some(job), Some(length)) = (words.next(), words.next()) else {
            bail!("reserve: answered {}", shown(text));
        };
        let length = usize::try_from(length)?;
        let Some(bytes) = rest.get(..length + 2) else { return Ok(None) };
        self.jobs.push(job);
        Ok(Some((&bytes[..length], length + 2)))
    }
}

impl Consumer for Receiver {
    fn greet(&mut self, _dialog: &mut Dialog) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.round(out);
    }

    fn deliveries(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        while let Some((text, next)) = line(&input[used..]) {
            let mut bytes = next;
            if text == b"DELETED" {
                ensure!(self.unanswered > 0, "DELETED without a delete");
                self.unanswered -= 1;
            } else {
                if text.starts_with(b"RESERVED ") {
                    let job = self.reserved(text, &input[used + next..])?;
                    let Some((payload, more)) = job else { return Ok(used) };
                    each(payload)?;
                    bytes += more;
                } else {
                    let is_none = text == b"TIMED_OUT" || text == b"DEADLINE_SOON";
                    ensure!(is_none, "reserve or delete: answered {}", shown(text));
                }
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    self.round(out);
                }
            }
            used += bytes;
        }
        Ok(used)
    }

    /// Jobs that came count as well: they are deleted when the round is over.
    fn unanswered(&self) -> u64 {
        self.unanswered + self.jobs.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, deliver};
    use super::*;

    #[test]
    fn a_job_is_put_with_its_length() {
        let mut out = Vec::new();
        Sender.publish(b"hi", &mut out);
        assert_eq!(out, b"put 0 0 120 2\r\nhi\r\n");
        assert_eq!(answer(|| Sender, b"INSERTED 1\r\nINSERTED 2\r\n"), 2);
        assert!(Sender.answers(b"OUT_OF_MEMORY\r\n", &mut out).is_err());
    }

    #[test]
    fn a_round_ends_when_every_reserve_was_answered() {
        let make = || Receiver { reserves: 2, open: 2, jobs: Vec::new(), unanswered: 0 };
        let bytes = b"RESERVED 7 2\r\nhi\r\nTIMED_OUT\r\nDELETED\r\n";
        let (got, said) = deliver(make, bytes);
        assert_eq!(got, ["hi"]);
        assert_eq!(said, "delete 7\r\nreserve\r\nreserve-with-timeout 0\r\n");
        let (mut receiver, mut out) = (make(), Vec::new());
        receiver.deliveries(&bytes[..18], &mut out, &mut |_| Ok(())).unwrap();
        assert_eq!((receiver.unanswered(), out.len()), (1, 0));
        let refusal = b"NOT_FOUND\r\n";
        assert!(receiver.deliveries(refusal, &mut out, &mut |_| Ok(())).is_err());
    }
}
