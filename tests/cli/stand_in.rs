//! A broker for commands that only have to be answered.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a stand-in has heard and will say.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) published: Vec<Vec<u8>>,
    pub(crate) acked: Vec<String>,
    pub(crate) quits: usize,
}

/// Speaks level 1: stores nothing but in memory, has three messages for every subscriber, refuses
/// topics by their names, hangs up on `PUB lost`, at a message of
/// `PUB cut` and in the middle of `HISTORY lost`, and lacks a message of `HISTORY damaged` and of
/// `HISTORY expired`.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) addr: SocketAddr,
    pub(crate) heard: Arc<Mutex<Heard>>,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stand_in = Self { addr: listener.local_addr().unwrap(), heard: Arc::default() };
        let shared = stand_in.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                thread::spawn(move || shared.serve(stream.unwrap()));
            }
        });
        stand_in
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let lines = BufReader::new(stream.try_clone().ok()?).split(b'\n');
        stream.write_all(b"OK connected\n").ok()?;
        for line in lines {
            let line = line.ok()?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<_> = text.split(' ').collect();
            let answer = match words[..] {
                ["PUB", "lost", ..] | ["PUB", "cut", "2000", ..] => return None,
                ["PUB", "busy", ..] => "ERR BUSY too much to do retry_after=1s\n".to_owned(),
                ["PUB", "full", ..] => "ERR DISK_FULL no room retry_after=1s\n".to_owned(),
                ["PUB", "no.dlq", ..] => "ERR RESERVED_NAME the broker's own\n".to_owned(),
                ["PUB", topic, ..] => {
                    let mut heard = self.heard.lock().unwrap();
                    heard.published.push(line[5 + topic.len()..].to_vec());
                    format!("OK published id_{0} {0}\n", heard.published.len())
                }
                ["SUB", topic, ref group @ ..] => {
                    let group = group.first().map(|g| format!(" in group {g}")).unwrap_or_default();
                    let messages: String = (1..=3)
                        .map(|n| format!("MSG {topic} id_{n} {n} 1758865780.03698{n} text {n}\n"))
                        .collect();
                    format!("OK subscribed {topic}{group}\n{messages}")
                }
                ["HISTORY", topic, n] => {
                    let n: u64 = n.parse().unwrap();
                    let line = |n| format!("HISTORY {topic} id_{n} {n} 1758865780.5 text {n}\n");
                    let lines: String = (3 - n.min(2)..=2).map(line).collect();
                    let end = match topic {
                        "damaged" => "ERR CORRUPT message 3 is damaged topic=damaged offset=3\n",
                        "expired" => "ERR OFFSET_GONE no longer kept topic=expired first=1\n",
                        "lost" if n > 1 => {
                            stream.write_all(lines.as_bytes()).ok()?;
                            return None;
                        }
                        _ => "OK history end\n",
                    };
                    lines + end
                }
                ["ACK", id] => {
                    self.heard.lock().unwrap().acked.push(id.to_owned());
                    "OK ack_received\n".to_owned()
                }
                ["HEARTBEAT"] => "OK heartbeat_received\n".to_owned(),
                ["PING"] => "OK pong\n".to_owned(),
                ["QUIT"] => {
                    self.heard.lock().unwrap().quits += 1;
                    "OK bye\n".to_owned()
                }
                _ => format!("ERR UNKNOWN_COMMAND unknown command: {text}\n"),
            };
            stream.write_all(answer.as_bytes()).ok()?;
            if answer == "OK bye\n" {
                return None;
            }
        }
        None
    }

    pub(crate) fn with<'a>(&self, args: &[&'a str], addr: &'a str) -> Vec<&'a str> {
        [args, &["--addr", addr]].concat()
    }
}
