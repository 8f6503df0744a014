//! One question and answer at a time, before and after what is measured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long an answer may take: a broker that reads a big log may need its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is written to and read from in turn.
#[derive(Debug)]
pub(crate) struct Dialog {
    stream: TcpStream,
}

impl Dialog {
    pub(crate) fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("failed to reach {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("failed to send")
    }

    /// The next line, without its end. Not a byte behind it is read: that belongs to the coder.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            let byte = self.bytes(1)?[0];
            if byte == b'\n' {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.push(byte);
        }
    }

    /// The next so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).context("failed to read an answer")?;
        Ok(bytes)
    }

    /// Says it, and takes a line that begins so as the only good answer.
    pub(crate) fn ask(&mut self, question: &str, good: &str) -> Result<String> {
        self.say(question.as_bytes())?;
        let answer = self.line()?;
        let shown = question.trim_end();
        anyhow::ensure!(answer.starts_with(good), "{shown}: answered {answer}");
        Ok(answer)
    }

    pub(crate) fn into_stream(self) -> Result<TcpStream> {
        self.stream.set_read_timeout(None)?;
        Ok(self.stream)
    }
}
