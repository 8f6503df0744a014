//! Tests of the client against a broker that follows a script.

mod publish;
mod subscribe;

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;

/// Longer than anything here takes: a test that waits for what never comes fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker of which the test plays every part.
struct Broker {
    listener: TcpListener,
}

impl Broker {
    async fn start() -> Broker {
        Broker { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.listener.local_addr().unwrap().to_string());
        options.reconnect.first = Duration::from_millis(1);
        options.reconnect.max = Duration::from_millis(5);
        options
    }

    /// The next connection, greeted.
    async fn accept(&self) -> Peer {
        let mut peer = self.accept_silently().await;
        peer.say("OK connected").await;
        peer
    }

    async fn accept_silently(&self) -> Peer {
        let (socket, _) = within(self.listener.accept()).await.unwrap();
        Peer { socket: BufReader::new(socket) }
    }

    /// A client, and the broker's end of its connection.
    async fn client(&self, options: Options) -> (Client, Peer) {
        let (client, peer) = tokio::join!(Client::connect(options), self.accept());
        (client.unwrap(), peer)
    }
}

/// The broker's end of a connection.
struct Peer {
    socket: BufReader<TcpStream>,
}

impl Peer {
    async fn say(&mut self, line: &str) {
        self.socket.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The next line of the client, or `None` after it has closed the connection.
    async fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match within(self.socket.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.strip_suffix('\n').expect("whole lines only").to_owned()),
        }
    }

    async fn expect(&mut self, line: &str) {
        assert_eq!(self.hear().await.as_deref(), Some(line));
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.hear().await, None);
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("this should have happened by now")
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name.as_bytes()).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named() {
    let addr = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let error = within(Client::connect(Options::new(&addr))).await.unwrap_err();
    assert!(matches!(error, ClientError::CannotConnect { .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("failed to connect to {addr}: ")), "{error}");
}

#[tokio::test]
async fn only_the_right_greeting_will_do() {
    let broker = Broker::start().await;
    for (greeting, expected) in [
        ("HTTP/1.1 400 Bad Request", "failed to understand the broker: expected a greeting"),
        ("OK pong", "failed to understand the broker: expected a greeting"),
        ("ERR BUSY too many retry_after=1s", "the broker cannot do this at the moment, try again"),
        ("ERR DENIED no", "the broker refused: DENIED no"),
    ] {
        let connect = Client::connect(broker.options());
        let script = async { broker.accept_silently().await.say(greeting).await };
        let (client, ()) = tokio::join!(connect, script);
        let error = client.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{greeting}: {error}");
    }
    let options = Options { connect_timeout: Duration::from_millis(20), ..broker.options() };
    let (client, _silent) = tokio::join!(Client::connect(options), broker.accept_silently());
    assert!(client.unwrap_err().to_string().contains("no greeting within 20ms"));
}

#[tokio::test]
async fn ping_and_close() {
    let broker = Broker::start().await;
    let (client, mut peer) = broker.client(broker.options()).await;
    let script = async {
        peer.expect("PING").await;
        peer.say("OK pong").await;
        peer.expect("QUIT").await;
        peer.say("OK bye").await;
        peer.expect_end().await;
    };
    let test = async {
        client.ping().await.unwrap();
        client.close().await.unwrap();
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn history_reads_to_its_end_and_again_if_the_connection_is_lost() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let script = async {
        let mut peer = broker.accept().await;
        peer.expect("HISTORY chat 2").await;
        peer.say("HISTORY chat msg_1 1 1.0 one").await;
        drop(peer);
        // A broker that starts again is not there for a while.
        drop(broker.accept_silently().await);
        let mut peer = broker.accept().await;
        peer.expect("HISTORY chat 2").await;
        peer.say("HISTORY chat msg_1 1 1.0 one").await;
        peer.say("WARN a line of a later version").await;
        peer.say("HISTORY chat msg_2 2 2.0  two ").await;
        peer.say("OK history end").await;
        let mut peer = broker.accept().await;
        peer.expect("HISTORY chat 1").await;
        peer.say("ERR DENIED not yours").await;
    };
    let test = async {
        let messages = client.history(&topic("chat"), 2).await.unwrap();
        let bodies: Vec<&[u8]> = messages.iter().map(Message::body).collect();
        assert_eq!(bodies, [&b"one"[..], b" two "]);
        let mut history = client.history_stream(&topic("chat"), 1).await.unwrap();
        let error = history.next().await.unwrap_err();
        assert_eq!(error.to_string(), "the broker refused: DENIED not yours");
        assert_eq!(history.next().await.unwrap(), None);
    };
    within(async { tokio::join!(script, test) }).await;
}
