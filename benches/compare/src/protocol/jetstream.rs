//! JetStream: a stream kept in files, a durable pull consumer as the group, push consumers for
//! plain subscribers.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::nats::{Said, Subscriber, connect, put, request, said, subscribe};
use super::{Consumer, Dialog, GROUP, PREFETCH, Protocol, Publisher, TOPIC, Taken, shown};

const STREAM: &str = "COMPARE";

/// The consumer of [`Protocol::reader`].
const READER: &str = "reader";

/// Messages that a reader asks for at once: nothing has to be acknowledged.
const READER_BATCH: u64 = 5000;

/// Most messages of the group on their way in all, far more than its members ask for.
const ACK_PENDING_MAX: u64 = 50_000;

#[derive(Debug)]
pub(crate) struct JetStream;

fn api(addr: SocketAddr, subject: &str, body: &Value) -> Result<Value> {
    let answer = request(addr, &format!("$JS.API.{subject}"), &body.to_string())?;
    let answer: Value =
        serde_json::from_str(&answer).with_context(|| format!("{subject}: answered {answer}"))?;
    ensure!(answer.get("error").is_none(), "{subject}: answered {answer}");
    Ok(answer)
}

fn count(answer: &Value, path: &str) -> Result<u64> {
    let count = answer.pointer(path).and_then(Value::as_u64);
    count.with_context(|| format!("no {path} in {answer}"))
}

fn add_durable(addr: SocketAddr, name: &str, ack_policy: &str) -> Result<()> {
    let mut config = json!({
        "durable_name": name, "deliver_policy": "all", "replay_policy": "instant",
        "ack_policy": ack_policy,
    });
    if ack_policy != "none" {
        config["ack_wait"] = json!(60_000_000_000_u64);
        config["max_ack_pending"] = json!(ACK_PENDING_MAX);
    }
    let body = json!({ "stream_name": STREAM, "config": config });
    api(addr, &format!("CONSUMER.DURABLE.CREATE.{STREAM}.{name}"), &body).map(drop)
}

fn inbox_of_push(index: usize) -> String {
    format!("push.{index}")
}

impl Protocol for JetStream {
    fn create(&self, addr: SocketAddr) -> Result<()> {
        let body = json!({
            "name": STREAM, "subjects": [TOPIC], "storage": "file", "retention": "limits",
            "num_replicas": 1,
        });
        api(addr, &format!("STREAM.CREATE.{STREAM}"), &body).map(drop)
    }

    fn add_group(&self, addr: SocketAddr) -> Result<()> {
        add_durable(addr, GROUP, "explicit")
    }

    fn add_subscribers(&self, addr: SocketAddr, count: usize) -> Result<()> {
        for index in 0..count {
            let config = json!({
                "ack_policy": "none", "deliver_policy": "all", "mem_storage": true,
                "deliver_subject": inbox_of_push(index),
            });
            let body = json!({ "stream_name": STREAM, "config": config });
            api(addr, &format!("CONSUMER.CREATE.{STREAM}"), &body)?;
        }
        Ok(())
    }

    fn publisher(&self, index: usize) -> Box<dyn Publisher> {
        Box::new(Sender { inbox: format!("_INBOX.publisher.{index}") })
    }

    fn member(&self, index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Puller::new(GROUP, index, PREFETCH, true)))
    }

    fn subscriber(&self, index: usize) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Subscriber { subject: inbox_of_push(index) }))
    }

    fn add_reader(&self, addr: SocketAddr) -> Result<()> {
        add_durable(addr, READER, "none")
    }

    fn reader(&self, _count: u64) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Puller::new(READER, 0, READER_BATCH, false)))
    }

    fn held(&self, addr: SocketAddr) -> Result<Option<u64>> {
        let answer = api(addr, &format!("STREAM.INFO.{STREAM}"), &json!({}))?;
        count(&answer, "/state/messages").map(Some)
    }

    fn unsettled(&self, addr: SocketAddr) -> Result<u64> {
        let answer = api(addr, &format!("CONSUMER.INFO.{STREAM}.{GROUP}"), &json!({}))?;
        Ok(count(&answer, "/num_ack_pending")? + count(&answer, "/num_pending")?)
    }
}

#[derive(Debug)]
struct Sender {
    /// Where the stream's answers come.
    inbox: String,
}

impl Publisher for Sender {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        connect(dialog)?;
        subscribe(&self.inbox, dialog)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        put(&[TOPIC.as_bytes(), self.inbox.as_bytes()], payload, out);
    }

    fn answers(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Taken> {
        let mut taken = Taken::default();
        while let Some((said, bytes)) = said(&input[taken.bytes..])? {
            match said {
                Said::Message { body, .. } => {
                    let is_stored = body.starts_with(b"{\"stream\"");
                    ensure!(is_stored, "a message was answered {}", shown(body));
                    taken.messages += 1;
                }
                Said::Ping => out.extend_from_slice(b"PONG\r\n"),
                Said::Pong | Said::Other => {}
            }
            taken.bytes += bytes;
        }
        Ok(taken)
    }
}

/// Pulls batches of a durable consumer, the next one when half of the last has come.
#[derive(Debug)]
struct Puller {
    consumer: &'static str,
    inbox: String,
    batch: u64,
    /// Messages that were asked for and have not come.
    asked: u64,
    acknowledges: bool,
    /// A `PONG` is to come.
    is_finishing: bool,
}

impl Puller {
    fn new(consumer: &'static str, index: usize, batch: u64, acknowledges: bool) -> Self {
        let inbox = format!("_INBOX.{consumer}.{index}");
        Self { consumer, inbox, batch, asked: 0, acknowledges, is_finishing: false }
    }
}

impl Consumer for Puller {
    fn greet(&mut self, dialog: &mut Dialog) -> Result<()> {
        connect(dialog)?;
        subscribe(&self.inbox, dialog)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.pause(out);
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
                // A status and no message: what was asked for has expired.
                Said::Message { headers, body: b"", .. } if headers.starts_with(b"NATS/1.0 4") => {
                    self.asked = 0;
                }
                Said::Message { reply, body, .. } => {
                    each(body)?;
                    self.asked = self.asked.saturating_sub(1);
                    if self.acknowledges {
                        put(&[reply], b"", out);
                    }
                }
                Said::Ping => out.extend_from_slice(b"PONG\r\n"),
                Said::Pong => self.is_finishing = false,
                Said::Other => {}
            }
            used += bytes;
        }
        Ok(used)
    }

    fn pause(&mut self, out: &mut Vec<u8>) {
        if self.asked <= self.batch / 2 {
            let more = self.batch - self.asked;
            let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{}", self.consumer);
            let body = format!("{{\"batch\":{more},\"expires\":60000000000}}");
            put(&[subject.as_bytes(), self.inbox.as_bytes()], body.as_bytes(), out);
            self.asked = self.batch;
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
        self.is_finishing = true;
    }

    fn unanswered(&self) -> u64 {
        u64::from(self.is_finishing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, deliver};
    use super::*;

    #[test]
    fn the_stream_answers_each_message() {
        let make = || Sender { inbox: "in".to_owned() };
        let mut out = Vec::new();
        make().publish(b"hi", &mut out);
        assert_eq!(out, b"PUB compare in 2\r\nhi\r\n");
        assert_eq!(answer(make, b"MSG in 1 14\r\n{\"stream\":\"S\"}\r\nPING\r\n"), 1);
        let refusal = b"MSG in 1 12\r\n{\"error\":{}}\r\n";
        assert!(make().answers(refusal, &mut out).is_err());
    }

    #[test]
    fn a_puller_acknowledges_and_asks_for_more_at_half() {
        let make = || Puller::new("group", 0, 4, true);
        let (got, said) = deliver(make, b"MSG s 1 $JS.ACK.7 2\r\nhi\r\n");
        assert_eq!((got, said.as_str()), (vec!["hi".to_owned()], "PUB $JS.ACK.7 0\r\n\r\n"));
        let (mut puller, mut out) = (make(), Vec::new());
        puller.begin(&mut out);
        assert!(String::from_utf8(out.clone()).unwrap().contains("\"batch\":4,"), "{out:?}");
        out.clear();
        puller.asked = 3;
        puller.pause(&mut out);
        assert_eq!(out, b"");
        puller.asked = 2;
        puller.pause(&mut out);
        assert!(String::from_utf8(out).unwrap().contains("\"batch\":2,"));
    }

    #[test]
    fn a_pull_that_expired_is_no_message() {
        let bytes = b"HMSG in 1 28 28\r\nNATS/1.0 408 Request Timeou\r\n\r\n";
        let make = || Puller::new("group", 0, 4, true);
        assert_eq!(deliver(make, bytes).0, [] as [&str; 0]);
    }
}
