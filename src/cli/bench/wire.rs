//! A connection that is made for load: bytes in, bytes out, and lines checked where they lie.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::cli::exit::{Exit, Failure};
use crate::proto::ErrorCode;

/// How much is read at once.
const READ_BYTES: usize = 128 << 10;

/// How long an answer to the first commands may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the broker.
#[derive(Debug)]
pub(super) struct Wire {
    reader: OwnedReadHalf,
    writer: Arc<OwnedWriteHalf>,
    input: Vec<u8>,
    /// Where in `input` the bytes begin and end that were not used yet.
    start: usize,
    end: usize,
}

/// What a line says that is not what was asked for.
pub(super) fn unexpected(line: &[u8]) -> Failure {
    let shown: String = String::from_utf8_lossy(line).chars().take(200).collect();
    let text = format!("failed to go on: the broker answered {shown:?}");
    let failure = Failure::new(Exit::Refused, text);
    if line.starts_with(format!("ERR {} ", ErrorCode::MsgTooBig).as_bytes()) {
        return failure.hint("take a smaller --size, or raise limits.message of that broker");
    }
    failure
}

/// The connection is gone.
pub(super) fn lost(error: &io::Error) -> Failure {
    Failure::new(Exit::CannotConnect, format!("failed to go on: the connection was lost: {error}"))
        .hint("the broker may have ended; its log says why")
}

impl Wire {
    /// Connects and waits for the greeting.
    pub(super) async fn open(addr: &str) -> Result<Wire, Failure> {
        let connected = tokio::time::timeout(OPEN_PATIENCE, TcpStream::connect(addr)).await;
        let socket = connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        let socket = socket.map_err(|error| {
            Failure::new(Exit::CannotConnect, format!("failed to connect to {addr}: {error}"))
                .hint("leave --addr out to have a broker started; see `ulimit -n` for many")
        })?;
        // Without it the answers would only come a little later.
        drop(socket.set_nodelay(true));
        let input = vec![0; READ_BYTES];
        let (reader, writer) = socket.into_split();
        let mut wire = Wire { reader, writer: Arc::new(writer), input, start: 0, end: 0 };
        wire.expect("OK connected").await?;
        Ok(wire)
    }

    /// Sends a command and waits for the answer, which has to begin so.
    pub(super) async fn ask(&mut self, command: &str, answer: &str) -> Result<(), Failure> {
        let line = format!("{command}\n");
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            self.turn(&mut rest).await?;
        }
        self.expect(answer).await
    }

    async fn expect(&mut self, answer: &str) -> Result<(), Failure> {
        let line = async {
            loop {
                if let Some(end) = memchr(b'\n', self.unread()) {
                    let line = self.unread()[..end].to_vec();
                    self.used(end + 1);
                    return Ok::<_, Failure>(line);
                }
                self.turn(&mut &b""[..]).await?;
            }
        };
        let line = tokio::time::timeout(OPEN_PATIENCE, line).await;
        let line = line.unwrap_or_else(|_elapsed| Err(lost(&io::ErrorKind::TimedOut.into())))?;
        if line.starts_with(answer.as_bytes()) { Ok(()) } else { Err(unexpected(&line)) }
    }

    /// The half that writes, for who only does that.
    pub(super) fn writer(&self) -> Arc<OwnedWriteHalf> {
        Arc::clone(&self.writer)
    }

    /// What has come and was not used.
    pub(super) fn unread(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// So many bytes of [`Wire::unread`] are done with.
    pub(super) fn used(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Returns as soon as something was read, or all of `output` written if there is any. Nothing
    /// is lost if it is dropped before that: `output` is what is left to be written.
    pub(super) async fn turn(&mut self, output: &mut &[u8]) -> Result<(), Failure> {
        self.make_room();
        poll_fn(|cx| {
            let had_output = !output.is_empty();
            self.poll_write(cx, output)?;
            if had_output && output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut self.input[self.end..]);
            match Pin::new(&mut self.reader).poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
                }
                Poll::Ready(Ok(())) => {
                    self.end += buffer.filled().len();
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            }
        })
        .await
        .map_err(|error| lost(&error))
    }

    /// Writes what can be, and asks to be woken when the rest can be.
    fn poll_write(&self, cx: &mut Context<'_>, output: &mut &[u8]) -> io::Result<()> {
        while !output.is_empty() {
            match self.writer.try_write(output) {
                Ok(bytes) => *output = &output[bytes..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let socket: &TcpStream = self.writer.as_ref().as_ref();
                    match socket.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return Ok(()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.end < self.input.len() {
            return;
        }
        if self.start == 0 {
            // One line fills it.
            self.input.resize(2 * self.input.len(), 0);
        } else {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}
