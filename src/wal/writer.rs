//! Writing: append, sync, roll, free.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{self, HEADER_BYTES, Place, Segment};
use super::spare::{Make, Plan, Slot, SpareJob, State, Ticket};
use super::{Continuity, Entry, Identity, Lsn, Settings, WalError, failed, record};
use crate::disk::{Disk, SyncAhead, Written};
use crate::planted::{self, Bug};

/// How many segments are kept ready behind the active one. Recovery reads them, so not many.
const SPARES: usize = 1;

/// The next segment is prepared in a hurry when this share of the active one is full: a quarter.
const HURRY_SHARE: u64 = 4;

/// How many freed segments are kept to be recycled.
const FREED_MAX: usize = 3;

/// The write buffer is given back when it has grown past this, in bytes.
const BUFFER_BYTES_KEPT: usize = 2 << 20;

/// The log, open for writing. One owner, which calls from one thread.
#[derive(Debug)]
pub struct Wal {
    place: Place,
    active: Segment,
    /// Where the next record goes in the active segment.
    at: u64,
    /// Segments before the active one that no checkpoint covers yet, oldest first.
    sealed: VecDeque<Sealed>,
    /// Segments after the active one, empty, in order.
    spares: VecDeque<Segment>,
    /// Segments of the usual size that may be recycled, oldest first.
    freed: VecDeque<u64>,
    /// Freed segments that will not be used again.
    surplus: Vec<u64>,
    job: Option<Arc<Slot>>,
    preparations: u64,
    last: Lsn,
    durable: Lsn,
    /// To the active segment, and not synced.
    written: Written,
    bytes_written: u64,
    buffer: Vec<u8>,
    continuity: Continuity,
    poison: Option<WalError>,
}

/// A full segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub(super) seq: u64,
    pub(super) size: u64,
    /// The last record in it, or before it if it has none.
    pub(super) last: Lsn,
}

/// What recovery hands over.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) active: Segment,
    pub(super) at: u64,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) spares: VecDeque<Segment>,
    /// Number and size of those that the checkpoint covers.
    pub(super) covered: Vec<(u64, u64)>,
    pub(super) last: Lsn,
    pub(super) bytes: u64,
    pub(super) continuity: Continuity,
}

impl Wal {
    /// Creates an empty log in the folder `dir`, which is created too (the one above it exists, and
    /// is synced): the first segment, filled with zeros and synced.
    ///
    /// # Errors
    /// [`WalError::Exists`] if the folder holds a segment, [`WalError::Shortage`], or what the disk
    /// says. What an attempt that failed left behind is no obstacle to the next.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Identity,
        settings: Settings,
    ) -> Result<Wal, WalError> {
        let segment_bytes = segment::bytes_by(settings);
        let place = Place { disk, dir: dir.to_owned(), identity, segment_bytes };
        let disk = &place.disk;
        disk.create_dir(dir).map_err(failed("create", dir))?;
        let above = dir.parent().unwrap_or(Path::new("."));
        disk.sync_dir(above).map_err(failed("sync", above))?;
        disk.hold_dir(dir).map_err(failed("open", dir))?;
        for entry in disk.list(dir).map_err(failed("list", dir))? {
            if segment::seq_of(&entry.name).is_some() {
                return Err(WalError::Exists { dir: dir.to_owned() });
            }
            if segment::is_leftover(&entry.name) {
                let path = dir.join(&entry.name);
                disk.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        let preparation = place.preparation(1, 0);
        let plan = Plan { seq: 1, size: segment_bytes, recycle: None, preparation };
        let active = plan.run_now(&place)?;
        Ok(Wal::resume(Found {
            place,
            active,
            at: HEADER_BYTES,
            sealed: VecDeque::new(),
            spares: VecDeque::new(),
            covered: Vec::new(),
            last: Lsn::ZERO,
            bytes: 0,
            continuity: Continuity::default(),
        }))
    }

    pub(super) fn resume(found: Found) -> Wal {
        let mut wal = Wal {
            place: found.place,
            active: found.active,
            at: found.at,
            sealed: found.sealed,
            spares: found.spares,
            freed: VecDeque::new(),
            surplus: Vec::new(),
            job: None,
            preparations: 1,
            last: found.last,
            durable: found.last,
            written: Written::default(),
            bytes_written: found.bytes,
            buffer: Vec::new(),
            continuity: found.continuity,
            poison: None,
        };
        for (seq, size) in found.covered {
            wal.free(seq, size);
        }
        wal
    }

    /// Writes the entries, one record each, with one write per segment touched: normally one. They
    /// are not durable before [`Wal::sync`]. Gives the number of the last record.
    ///
    /// # Errors
    /// [`WalError::Shortage`]: nothing was written, it may be tried again. Any other: the log is
    /// poisoned, and an unknown part of the entries is written.
    ///
    /// # Panics
    /// If an entry does not follow the one before of its shard (see [`Entry::index`]).
    pub fn append(&mut self, entries: &[Entry<'_>]) -> Result<Lsn, WalError> {
        self.unless_poisoned(|wal| {
            let chain = wal.reserve(entries)?;
            wal.write(entries, chain)
        })
    }

    /// Makes what was appended durable: afterwards [`Wal::durable`] is [`Wal::last`].
    ///
    /// # Errors
    /// What the disk says; the log is then poisoned, since nothing is known about what it holds.
    pub fn sync(&mut self) -> Result<Lsn, WalError> {
        self.unless_poisoned(Wal::sync_active)
    }

    /// The last record appended.
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Up to and including this one, records are durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Bytes of records written since the log was created, or since the checkpoint that recovery
    /// started from: the checkpoint's trigger takes the difference of two readings.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// A durable checkpoint covers everything up to and including `lsn`: segments that hold nothing
    /// later may be recycled.
    ///
    /// # Panics
    /// If `lsn` is not durable: a checkpoint must not run ahead of the log.
    pub fn free_through(&mut self, lsn: Lsn) {
        assert!(lsn <= self.durable, "the checkpoint covers {lsn}, which is not durable");
        // The segment after the last one freed must hold a durable record, so that recovery never
        // finds a log without one.
        while let Some(first) = self.sealed.front().copied()
            && first.last <= lsn
            && first.last < self.durable
        {
            self.sealed.pop_front();
            self.free(first.seq, first.size);
        }
    }

    /// Whether [`Wal::spare_job`] has work to hand out.
    pub fn needs_spare(&self) -> bool {
        let missing = match &self.job {
            None => self.spares.len() < SPARES,
            Some(slot) => match &*slot.state() {
                State::Failed => self.spares.len() < SPARES,
                State::Ready(_) => self.spares.len() + 1 < SPARES,
                State::Working | State::Cancelled | State::Broken(_) => return false,
            },
        };
        self.poison.is_none() && (missing || !self.surplus.is_empty())
    }

    /// Work for another thread: prepares the next segment, and removes segments that are too many.
    /// `None` if there is nothing to do, or a job is at work already. The log finds the outcome by
    /// itself; a job that is dropped or fails is offered again.
    pub fn spare_job(&mut self) -> Option<SpareJob> {
        if !self.needs_spare() {
            return None;
        }
        self.unless_poisoned(Wal::take_outcome).ok()?;
        let make = (self.spares.len() < SPARES).then(|| {
            let slot = Slot::new();
            self.job = Some(Arc::clone(&slot));
            let plan = self.plan(self.last_segment() + 1, self.place.segment_bytes);
            Make { plan, ticket: Ticket(slot) }
        });
        let remove = self.surplus.drain(..).map(|seq| self.place.path(seq)).collect();
        Some(SpareJob { place: self.place.clone(), make, remove })
    }

    /// The active segment, to be synced on another thread, if much of it is not synced and there is
    /// no such job already. What is durable by that is not known here before [`Wal::sync`], which
    /// then has less to do.
    pub fn sync_ahead(&mut self) -> Option<SyncAhead> {
        let (dir, seq) = (&self.place, self.active.seq);
        self.written.job(&self.active.file, || dir.path(seq))
    }

    fn unless_poisoned<T>(
        &mut self,
        work: impl FnOnce(&mut Wal) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone());
        }
        work(self).inspect_err(|error| {
            if !error.is_shortage() {
                self.poison = Some(error.clone());
            }
        })
    }

    /// Gets all segments that the entries will need beyond the active one, before anything is
    /// written: a full disk then leaves the log as it was.
    fn reserve(&mut self, entries: &[Entry<'_>]) -> Result<VecDeque<Segment>, WalError> {
        let mut chain: VecDeque<Segment> = VecDeque::new();
        let mut room = self.active.size - self.at;
        for entry in entries {
            let size = record::size_of(entry.payload.len()) as u64;
            while size > room {
                let before = chain.back().unwrap_or(&self.active).seq;
                match self.next_segment(before, size) {
                    Ok(segment) => {
                        room = segment.size - HEADER_BYTES;
                        chain.push_back(segment);
                    }
                    Err(error) => {
                        chain.append(&mut self.spares);
                        self.spares = chain;
                        return Err(error);
                    }
                }
            }
            room -= size;
        }
        Ok(chain)
    }

    /// The segment after number `before`: a spare (which may be too small for the record, and is
    /// then left empty), or one made now.
    fn next_segment(&mut self, before: u64, record_bytes: u64) -> Result<Segment, WalError> {
        self.take_outcome()?;
        if let Some(spare) = self.spares.pop_front() {
            return Ok(spare);
        }
        if let Some(slot) = self.job.take() {
            let mut state = slot.state();
            match std::mem::replace(&mut *state, State::Cancelled) {
                State::Ready(segment) => return Ok(segment),
                State::Broken(error) => return Err(error),
                State::Working | State::Cancelled | State::Failed => {}
            }
        }
        self.plan(before + 1, self.place.size_for(record_bytes)).run_now(&self.place)
    }

    fn plan(&mut self, seq: u64, size: u64) -> Plan {
        let recycle = if size == self.place.segment_bytes { self.freed.pop_front() } else { None };
        let preparation = self.place.preparation(seq, self.preparations);
        self.preparations += 1;
        Plan { seq, size, recycle: recycle.map(|seq| self.place.path(seq)), preparation }
    }

    /// Takes what a finished job has left.
    fn take_outcome(&mut self) -> Result<(), WalError> {
        let Some(slot) = self.job.take() else { return Ok(()) };
        let mut state = slot.state();
        match std::mem::replace(&mut *state, State::Failed) {
            State::Ready(segment) => self.spares.push_back(segment),
            State::Broken(error) => return Err(error),
            State::Failed => {}
            at_work @ (State::Working | State::Cancelled) => {
                *state = at_work;
                drop(state);
                self.job = Some(slot);
            }
        }
        Ok(())
    }

    fn last_segment(&self) -> u64 {
        self.spares.back().unwrap_or(&self.active).seq
    }

    fn write(
        &mut self,
        entries: &[Entry<'_>],
        mut chain: VecDeque<Segment>,
    ) -> Result<Lsn, WalError> {
        let mut mark = segment::mark(self.place.identity, self.active.seq);
        for entry in entries {
            let size = record::size_of(entry.payload.len()) as u64;
            while self.at + self.buffer.len() as u64 + size > self.active.size {
                self.flush()?;
                self.sync_active()?;
                self.roll(chain.pop_front().expect("as many segments as are needed were reserved"));
                mark = segment::mark(self.place.identity, self.active.seq);
            }
            let (shard, term, index) = (entry.shard, entry.term, entry.index);
            assert!(
                self.continuity.follows(shard, term, index),
                "entry {index} of term {term} does not follow the one before of shard {shard}"
            );
            self.last = self.last.next();
            record::encode(&mut self.buffer, mark, self.last, self.durable, entry);
        }
        self.flush()?;
        Ok(self.last)
    }

    fn flush(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(source) = self.active.file.write_at(&self.buffer, self.at) {
            return Err(failed("write", &self.active_path())(source));
        }
        self.at += self.buffer.len() as u64;
        self.bytes_written += self.buffer.len() as u64;
        self.written.add(self.buffer.len() as u64);
        if self.at >= self.active.size / HURRY_SHARE
            && let Some(slot) = &self.job
        {
            slot.hurry();
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    fn sync_active(&mut self) -> Result<Lsn, WalError> {
        if self.durable < self.last {
            let mut synced = self.active.file.sync();
            if synced.is_err() && planted::has(Bug::SyncRetried) {
                synced = self.active.file.sync();
            }
            if let Err(source) = synced {
                return Err(failed("sync", &self.active_path())(source));
            }
            self.durable = self.last;
            self.written.clear();
        }
        Ok(self.durable)
    }

    /// Goes on in `next`. All of the active segment is durable.
    fn roll(&mut self, next: Segment) {
        debug_assert!(self.durable == self.last && next.seq == self.active.seq + 1);
        let full = std::mem::replace(&mut self.active, next);
        self.sealed.push_back(Sealed { seq: full.seq, size: full.size, last: self.last });
        self.at = HEADER_BYTES;
    }

    fn free(&mut self, seq: u64, size: u64) {
        if size == self.place.segment_bytes && self.freed.len() < FREED_MAX {
            self.freed.push_back(seq);
        } else {
            self.surplus.push(seq);
        }
    }

    fn active_path(&self) -> PathBuf {
        self.place.path(self.active.seq)
    }
}
