//! One connection: a socket, and the lines that come from it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memrchr};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ClientError;
use super::options::{Backoff, Options};
use crate::limits::{MESSAGE_BYTES_CEILING, READ_BYTES_MAX};
use crate::proto::{Kind, ServerLine};

/// Longest line that a broker may send: the largest message as a JSON literal, where each byte can
/// take six, and then some for the words and the history of a dead letter.
const SERVER_LINE_BYTES_MAX: usize = 7 * MESSAGE_BYTES_CEILING;

/// Least bytes that a read asks for.
const READ_BYTES_MIN: usize = 16 << 10;

/// How long a connection may be silent before its system asks whether the broker's is still there.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// How often it then asks, without an answer.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// After so many unanswered ones the connection is lost, where [`UNTAKEN_MAX`] is not to be had.
const PROBES_MAX: u32 = 3;

/// How long what was sent may go unanswered by the broker's system. It is as long for a broker that lives
/// and takes nothing, and whose disk may be slow: so it is longer than any disk should take.
#[cfg(target_os = "linux")]
const UNTAKEN_MAX: Duration = Duration::from_secs(60);

/// An open connection behind its greeting.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) lines: Lines,
}

impl Connection {
    /// Connects, once, and waits for `OK connected`.
    pub(super) async fn open(options: &Options) -> Result<Connection, ClientError> {
        let cannot = |why: io::Error| ClientError::CannotConnect {
            addr: options.addr.clone(),
            source: Arc::new(why),
        };
        let opening = async {
            let stream = dial(&options.addr).await.map_err(cannot)?;
            stream.set_nodelay(true).map_err(cannot)?;
            ask_for_signs_of_life(&stream);
            let mut connection = Connection { stream, lines: Lines::default() };
            connection.greeting(&options.addr).await?;
            Ok(connection)
        };
        timeout(options.connect_timeout, opening).await.unwrap_or_else(|_elapsed| {
            let why = format!("no greeting within {:?}", options.connect_timeout);
            Err(cannot(io::Error::new(io::ErrorKind::TimedOut, why)))
        })
    }

    /// Connects as often as `backoff` allows, after a connection was lost because of `lost`.
    pub(super) async fn reopen(
        options: &Options,
        backoff: &mut Backoff,
        lost: ClientError,
    ) -> Result<Connection, ClientError> {
        let mut last = lost;
        loop {
            backoff.pause(last).await?;
            match Connection::open(options).await {
                Ok(connection) => return Ok(connection),
                Err(error) if error.passes() => last = error,
                Err(error) => return Err(error),
            }
        }
    }

    async fn greeting(&mut self, addr: &str) -> Result<(), ClientError> {
        let line = self.line().await.map_err(|error| match error {
            ClientError::Disconnected { why } => {
                ClientError::disconnected(format!("{addr} sent no greeting: {why}"))
            }
            other => other,
        })?;
        match ServerLine::parse(&line).kind {
            Kind::Ok("connected") => Ok(()),
            Kind::Err { code, text } => Err(ClientError::from_answer(code, text)),
            Kind::Ok(_) | Kind::Msg(_) | Kind::History(_) | Kind::Other => {
                Err(unexpected(&format!("a greeting of a broker from {addr}"), &line))
            }
        }
    }

    /// The next line, without its line end.
    pub(super) async fn line(&mut self) -> Result<Bytes, ClientError> {
        loop {
            if let Some(line) = self.lines.next()? {
                return Ok(line);
            }
            self.lines.read_from(&mut self.stream).await?;
        }
    }
}

async fn dial(addr: &str) -> io::Result<TcpStream> {
    match host_and_port(addr) {
        Some(addr) => TcpStream::connect(addr).await,
        None => TcpStream::connect(addr).await,
    }
}

/// Of an address in brackets, what can be looked up: that knows the names of zones (`fe80::1%eth0`).
fn host_and_port(addr: &str) -> Option<(&str, u16)> {
    let (host, port) = addr.strip_prefix('[')?.rsplit_once("]:")?;
    Some((host, port.parse().ok()?))
}

/// Has the system notice a broker whose host is gone without a word: who only waits for an answer never would.
fn ask_for_signs_of_life(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(SILENT_MAX).with_interval(PROBE_EVERY);
    let set = socket.set_tcp_keepalive(&keepalive.with_retries(PROBES_MAX));
    #[cfg(target_os = "linux")]
    let set = set.and(socket.set_tcp_user_timeout(Some(UNTAKEN_MAX)));
    // Where a system has no such thing, a connection without it is better than none.
    drop(set);
}

/// What came instead of what was expected.
pub(super) fn unexpected(expected: &str, line: &[u8]) -> ClientError {
    let shown = String::from_utf8_lossy(&line[..line.len().min(100)]);
    ClientError::Protocol(format!("expected {expected}, got {shown:?}"))
}

/// Bytes from a socket, cut into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whole lines that have not been given out.
    whole: Bytes,
    /// What follows them.
    buffer: BytesMut,
    /// This many bytes at the front of `buffer` hold no LF.
    searched: usize,
    /// The last read took all the room there was.
    filled: bool,
}

impl Lines {
    /// Reads once, however much is there. May be cancelled without loss.
    pub(super) async fn read_from(
        &mut self,
        socket: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), ClientError> {
        self.buffer.reserve(if self.filled { READ_BYTES_MAX } else { READ_BYTES_MIN });
        match socket.read_buf(&mut self.buffer).await {
            Ok(0) => Err(ClientError::disconnected("the broker closed it")),
            Ok(_) => {
                self.filled = self.buffer.len() == self.buffer.capacity();
                Ok(())
            }
            Err(why) => Err(ClientError::disconnected(why)),
        }
    }

    /// The next whole line, without its LF.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.whole.is_empty() {
            let Some(at) = memrchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                if self.searched > SERVER_LINE_BYTES_MAX {
                    let why = format!("a line is longer than {SERVER_LINE_BYTES_MAX} bytes");
                    return Err(ClientError::Protocol(why));
                }
                return Ok(None);
            };
            self.whole = self.buffer.split_to(self.searched + at + 1).freeze();
            self.searched = self.buffer.len();
        }
        let end = memchr(b'\n', &self.whole).expect("whole lines end in an LF");
        let line = self.whole.split_to(end);
        self.whole.advance(1);
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to `host`, and the other end of it.
    async fn open(host: &str) -> Result<(Connection, TcpStream), ClientError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = Options::new(format!("{host}:{port}"));
        let greet = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut socket, b"OK connected\n").await.unwrap();
            Ok(socket)
        };
        tokio::try_join!(Connection::open(&options), greet)
    }

    /// A client that waits for an answer sends nothing, and would never hear that the broker's host is gone.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_host_that_is_gone_is_noticed_by_the_system() {
        let (connection, _socket) = open("127.0.0.1").await.unwrap();
        let socket = SockRef::from(&connection.stream);
        assert!(socket.keepalive().unwrap(), "it is asked whether it is there");
        assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 15);
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 5);
        assert_eq!(socket.tcp_user_timeout().unwrap().unwrap().as_secs(), 60);
        assert!(socket.tcp_nodelay().unwrap());
    }

    /// A lookup knows the zone of an address by its name, but not the brackets around it.
    #[tokio::test]
    async fn what_is_looked_up_has_no_brackets() {
        open("[127.0.0.1]").await.unwrap();
        assert_eq!(host_and_port("[fe80::1%eth0]:8888"), Some(("fe80::1%eth0", 8888)));
        for other in
            ["localhost:8888", "fe80::1%eth0", "[::1]", "[::1]:http", "[::1]:65536", "[::1"]
        {
            assert_eq!(host_and_port(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        let bytes = b"OK connected\nMSG t i 1 1.0 \n\nrest\r\nunfinished";
        for piece in [1, 2, 3, 7, 1000] {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            for mut chunk in bytes.chunks(piece) {
                lines.read_from(&mut chunk).await.unwrap();
                while let Some(line) = lines.next().unwrap() {
                    got.push(line);
                }
            }
            assert_eq!(got, ["OK connected", "MSG t i 1 1.0 ", "", "rest\r"], "by {piece}");
            assert_eq!(&lines.buffer[..], b"unfinished");
            assert!(lines.read_from(&mut &b""[..]).await.is_err(), "the end is told");
        }
    }
}
