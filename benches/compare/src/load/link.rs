//! A non-blocking connection with what has come and what is to go.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::protocol::Dialog;

/// What a coder has yet to understand is at most a part of this, unless a message is longer.
const INPUT: usize = 256 << 10;

/// With many connections each gets less room.
const INPUT_OF_MANY: usize = 32 << 10;

/// A connection after its greeting.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    input: Vec<u8>,
    /// From where to where `input` has bytes that no coder has taken.
    start: usize,
    end: usize,
    pub(super) out: Vec<u8>,
    /// Bytes of `out` that have gone.
    written: usize,
    /// Whether epoll is to tell when more can be written.
    waits_to_write: bool,
}

impl Link {
    /// Connects, and lets `greet` say what comes first. `of` is how many connections there are.
    pub(crate) fn open(
        addr: SocketAddr,
        of: usize,
        greet: impl FnOnce(&mut Dialog) -> Result<()>,
    ) -> Result<Self> {
        let mut dialog = Dialog::open(addr)?;
        greet(&mut dialog)?;
        let stream = dialog.into_stream()?;
        stream.set_nonblocking(true)?;
        let room = if of > 16 { INPUT_OF_MANY } else { INPUT };
        let (input, out) = (vec![0; room], Vec::with_capacity(4096));
        Ok(Self { stream, input, start: 0, end: 0, out, written: 0, waits_to_write: false })
    }

    /// Waits in `read` from now on.
    pub(super) fn block(&mut self, longest: Duration) -> Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(longest)).context("failed to set a timeout")
    }

    /// Reads what is there, as far as there is room. Whether anything came.
    pub(super) fn read(&mut self) -> Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end * 2 > self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        loop {
            match self.stream.read(&mut self.input[self.end..]) {
                Ok(0) => bail!("the broker closed a connection"),
                Ok(count) => {
                    self.end += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("failed to read"),
            }
        }
    }

    /// What has come and was not taken, and where to write what is said to it.
    pub(super) fn both(&mut self) -> (&[u8], &mut Vec<u8>) {
        (&self.input[self.start..self.end], &mut self.out)
    }

    /// So many bytes will not be needed again.
    pub(super) fn take(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes as much as goes. Whether all of it went.
    pub(super) fn write(&mut self) -> Result<bool> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("failed to write"),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }
}

/// Waits for many links at once.
pub(super) struct Watch {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Watch {
    /// Knows each link by its place.
    pub(super) fn new<'a>(links: impl Iterator<Item = &'a Link>) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("failed to make an epoll")?;
        for (index, link) in links.enumerate() {
            let data = EventData::new_u64(index as u64);
            epoll::add(&epoll, &link.stream, data, EventFlags::IN)?;
        }
        Ok(Self { epoll, events: Vec::with_capacity(256) })
    }

    /// The places of links that can be read or written, after at most this time.
    pub(super) fn wait(&mut self, longest: Duration) -> Result<Vec<usize>> {
        self.events.clear();
        let timeout = Timespec::try_from(longest).context("failed to wait")?;
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("failed to wait"),
        }
        let place = |event: &Event| usize::try_from(event.data.u64()).expect("it was a usize");
        Ok(self.events.iter().map(place).collect())
    }

    /// Writes what waits in a link; if not all goes, waits for its turn.
    pub(super) fn write(&self, index: usize, link: &mut Link) -> Result<()> {
        if link.unwritten() == 0 && !link.waits_to_write {
            return Ok(());
        }
        let waits = !link.write()?;
        if waits != link.waits_to_write {
            link.waits_to_write = waits;
            let more = if waits { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &link.stream, data, EventFlags::IN | more)?;
        }
        Ok(())
    }
}
