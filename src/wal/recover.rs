//! Recovery, in two steps: nothing is changed on disk before the whole log was examined.
//!
//! ```text
//!   covered by the checkpoint     walked, record by record          behind the last good record
//!   ────────────────────────┬───────────────────────────────────┬──────────────────────────────
//!    only the first record  │ checksum, number, index in order  │ searched for a voucher:
//!    of each is read        │                                   │ one → damage, none → cut
//! ```

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Files, Reader, SegmentFile};
use super::scan::Tail;
use super::segment::{self, BadHeader, HEADER_BYTES, Header, Place, Segment};
use super::writer::{Found, Sealed, Wal};
use super::{Continuity, Lsn, Record, Settings, Torn, WalError, failed, record};
use crate::disk::{Disk, Open};
use crate::planted::{self, Bug};

/// A log that is proven whole, and not yet changed.
#[derive(Debug)]
pub struct Examined {
    files: Files,
    segment_bytes: u64,
    from: Lsn,
    /// What lies behind this record is not freed.
    kept_from: Lsn,
    /// The segments that hold what is not covered, in order; the last is the one to go on in.
    walked: Vec<Walked>,
    /// What is to be cut.
    tails: Vec<(usize, Tail)>,
    torn: Option<Torn>,
    /// The last file, if it was never a whole segment.
    unborn: Option<usize>,
    last: Lsn,
    bytes: u64,
    continuity: Continuity,
    /// Where the records begin of which nothing says that they were durable.
    doubtful: Option<Standing>,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    lsn: Lsn,
    number: usize,
    at: u64,
}

/// A segment whose records are all good up to `end`.
#[derive(Clone, Copy, Debug)]
struct Walked {
    number: usize,
    end: u64,
    last: Lsn,
}

/// What a checkpoint says of the log; all of it zero without one.
#[derive(Clone, Copy, Debug)]
pub struct Covered {
    /// Everything up to and including this record is in its state.
    pub from: Lsn,
    /// The log was durable up to and including this one: some of its state goes as far.
    pub durable: Lsn,
}

impl From<Lsn> for Covered {
    /// Nothing goes further than all of it.
    fn from(from: Lsn) -> Self {
        Self { from, durable: from }
    }
}

/// Examines the log in the folder `dir`, of which a checkpoint says this. Changes nothing.
///
/// # Errors
/// [`WalError::Damaged`] if something that was durable is not there any more, [`WalError::Missing`]
/// if there is no segment at all, [`WalError::Unsupported`], or what the disk says.
pub fn examine(
    disk: Arc<dyn Disk>,
    dir: &Path,
    settings: Settings,
    covered: impl Into<Covered>,
) -> Result<Examined, WalError> {
    let covered = covered.into();
    let from = covered.from;
    let files = Files::list(disk, dir)?;
    let start = files.start(from)?;
    let next = files.segments[start].first.unwrap_or(Lsn::new(1));
    let mut walk = Walk { files: &files, next, covered, bytes: 0, doubtful: VecDeque::new() };
    let mut continuity = Continuity::default();
    let mut walked = Vec::new();
    let recycled = walk.all(start, &mut walked, &mut continuity)?;
    if planted::has(Bug::LastRecordCut)
        && let (Some(cut), Some(end)) = (walk.doubtful.pop_back(), walked.last_mut())
        && cut.number == end.number
    {
        (end.end, end.last, walk.next) = (cut.at, cut.lsn.prev(), cut.lsn);
    }
    let behind = walk.behind(*walked.last().expect("the walk has a first segment"), recycled)?;
    let (last, bytes) = (walk.next.prev(), walk.bytes);
    let doubtful = walk.doubtful.pop_front();
    let Behind { tails, torn, unborn } = behind;
    let segment_bytes = segment::bytes_by(settings);
    Ok(Examined {
        files,
        segment_bytes,
        from,
        kept_from: from,
        walked,
        tails,
        torn,
        unborn,
        last,
        bytes,
        continuity,
        doubtful,
    })
}

/// The examination at work.
struct Walk<'a> {
    files: &'a Files,
    /// The record that comes next.
    next: Lsn,
    covered: Covered,
    /// Bytes of records that are to be replayed.
    bytes: u64,
    /// Good records of which neither the checkpoint nor a later one says that they were durable.
    doubtful: VecDeque<Standing>,
}

struct Behind {
    tails: Vec<(usize, Tail)>,
    torn: Option<Torn>,
    unborn: Option<usize>,
}

impl Walk<'_> {
    /// Walks all segments from `start` on, up to the last good record. Says whether the last one has
    /// been recycled.
    fn all(
        &mut self,
        start: usize,
        walked: &mut Vec<Walked>,
        continuity: &mut Continuity,
    ) -> Result<bool, WalError> {
        let mut number = start;
        loop {
            let mut reader = self.files.reader(number)?;
            let header =
                self.header(number, &mut reader)?.ok_or_else(|| self.bad_header(number))?;
            let end = self.one(number, &mut reader, continuity)?;
            let last = self.next.prev();
            walked.push(Walked { number, end, last });
            let Some(next) = self.continues_in(number) else { return Ok(header.recycled) };
            for number in number + 1..next {
                walked.push(Walked { number, end: HEADER_BYTES, last });
            }
            number = next;
        }
    }

    /// The header of a segment; `None` if it is not one, or not of this file.
    fn header(&self, number: usize, reader: &mut Reader) -> Result<Option<Header>, WalError> {
        let SegmentFile { seq, len, .. } = self.files.segments[number];
        match reader.header()? {
            Ok(header) if header.seq == seq && header.size == len => {
                if header.identity != self.files.identity {
                    let reason = "it belongs to another node's log than the segments before";
                    return Err(self.files.damaged(number, 0, reason.to_owned()));
                }
                Ok(Some(header))
            }
            Ok(_) | Err(BadHeader::Unreadable) => Ok(None),
            Err(BadHeader::Version(found)) => Err(self.files.unsupported(number, found)),
        }
    }

    fn bad_header(&self, number: usize) -> WalError {
        let reason = "its header is damaged, or is not that of a segment of this name and length";
        self.files.damaged(number, 0, reason.to_owned())
    }

    /// Walks a segment; gives the end of its last good record.
    fn one(
        &mut self,
        number: usize,
        reader: &mut Reader,
        continuity: &mut Continuity,
    ) -> Result<u64, WalError> {
        let mut at = HEADER_BYTES;
        while let Some(found) = reader.record(at)?
            && found.lsn == self.next
        {
            if found.kind != record::KIND_BATCH {
                let file = self.files.path(number);
                let (what, found) = ("a record of kind", found.kind);
                return Err(WalError::Unsupported { file, what, found });
            }
            let entry = found.entry;
            if !continuity.follows(entry.shard, entry.term, entry.index) {
                let reason = format!(
                    "record {}, entry {} of shard {}, does not follow the one before",
                    found.lsn, entry.index, entry.shard
                );
                return Err(self.files.damaged(number, at, reason));
            }
            if found.lsn > self.covered.from {
                self.bytes += found.size as u64;
            }
            self.doubtful.push_back(Standing { lsn: found.lsn, number, at });
            let durable = self.covered.durable.max(found.durable);
            while self.doubtful.pop_front_if(|first| first.lsn <= durable).is_some() {}
            self.next = found.lsn.next();
            at += found.size as u64;
        }
        Ok(at)
    }

    /// The later segment that begins with the next record. Those between are empty: too small for
    /// that record when it was written.
    fn continues_in(&self, number: usize) -> Option<usize> {
        let later = self.files.segments.iter().skip(number + 1);
        let next = number + 1 + { later }.position(|segment| segment.first.is_some())?;
        (self.files.segments[next].first == Some(self.next)).then_some(next)
    }

    /// Judges what lies behind the last good record.
    fn behind(&mut self, end: Walked, recycled: bool) -> Result<Behind, WalError> {
        let (files, bad) = (self.files, self.next);
        let here = files.reader(end.number)?.tail(end.end, bad, recycled)?;
        let mut tails = vec![(end.number, here)];
        let mut unborn = None;
        for number in end.number + 1..files.segments.len() {
            let mut reader = files.reader(number)?;
            let header = self.header(number, &mut reader)?;
            let recycled = header.is_none_or(|header| header.recycled);
            let tail = reader.tail(HEADER_BYTES, bad, recycled)?;
            if header.is_none() {
                if number + 1 < files.segments.len() || tail.records > 0 {
                    return Err(self.bad_header(number));
                }
                unborn = Some(number);
            } else {
                tails.push((number, tail));
            }
        }
        let (number, tail) = self.where_it_should_stand(&tails);
        let vouchers = tails.iter().filter(|_| !planted::has(Bug::CutInTheMiddle));
        let mut vouchers = vouchers.filter_map(|(number, tail)| Some((*number, tail.voucher?)));
        if let Some((found_in, voucher)) = vouchers.next() {
            let reason = format!(
                "record {bad} is damaged or missing, and record {} ({}, byte {}) says that it was durable",
                voucher.lsn,
                files.path(found_in).display(),
                voucher.at
            );
            return Err(files.damaged(number, tail.from, reason));
        }
        if bad <= self.covered.durable {
            let reason = format!(
                "record {bad} is damaged or missing, and a checkpoint covers up to {}",
                self.covered.durable
            );
            return Err(files.damaged(number, tail.from, reason));
        }
        tails.retain(|(_, tail)| !tail.is_empty());
        let torn = (!tails.is_empty()).then(|| Torn {
            file: files.path(number),
            at: tail.from,
            bytes: tails.iter().map(|(_, tail)| tail.until - tail.from).sum(),
            records: tails.iter().map(|(_, tail)| tail.records).sum(),
        });
        Ok(Behind { tails, torn, unborn })
    }

    /// Where the bad record is, or was: behind the last good one, unless there is nothing, and the
    /// next segment in use does not begin with a good one.
    fn where_it_should_stand(&self, tails: &[(usize, Tail)]) -> (usize, Tail) {
        let here = tails[0];
        let in_use = tails.iter().skip(1).find(|(_, tail)| !tail.is_empty());
        match in_use {
            Some(later) if here.1.is_empty() && self.files.segments[later.0].first.is_none() => {
                *later
            }
            _ => here,
        }
    }
}

impl Examined {
    /// The node that stands in the headers.
    pub fn node(&self) -> u64 {
        self.files.identity.node
    }

    /// The last good record.
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Bytes of the records that [`Examined::replay`] gives.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What [`Examined::finish`] will cut off.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// What lies in the folder and is not the log's. It is left there.
    pub fn unknown(&self) -> &[PathBuf] {
        &self.files.unknown
    }

    /// Has [`Examined::finish`] keep what lies behind this record: an older checkpoint needs it, to which
    /// a repair may have to go back.
    pub fn keep_from(&mut self, older: Lsn) {
        self.kept_from = self.kept_from.min(older);
    }

    /// Gives every record after the checkpoint to `f`, in order. They are durable only after
    /// [`Examined::finish`]: until then nobody outside may learn of them.
    ///
    /// # Errors
    /// What `f` says, what the disk says, or damage if the files have changed since.
    pub fn replay<E: From<WalError>>(
        &self,
        f: &mut dyn FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let needed = self.walked.iter().filter(|w| w.last > self.from && w.end > HEADER_BYTES);
        for walked in needed {
            let mut reader = self.files.reader(walked.number)?;
            let mut at = HEADER_BYTES;
            while at < walked.end {
                let Some(found) = reader.record(at)? else {
                    let reason = "it has changed since it was examined".to_owned();
                    return Err(self.files.damaged(walked.number, at, reason).into());
                };
                at += found.size as u64;
                if found.lsn > self.from {
                    let (lsn, entry) = (found.lsn, found.entry);
                    let (shard, term, index) = (entry.shard, entry.term, entry.index);
                    f(Record { lsn, shard, term, index, payload: entry.payload })?;
                }
            }
        }
        Ok(())
    }

    /// Cuts the torn tail off (with zeros, so that no stale record can ever stand behind a new one),
    /// makes the rest durable, and opens the log for writing behind its last good record.
    ///
    /// What nothing says was durable is written again: it may have been read from the system's
    /// memory alone. After a sync that failed the system believes that the disk has what it has not,
    /// and no later sync writes it.
    ///
    /// # Errors
    /// What the disk says. Recovery can be tried again from the start.
    pub fn finish(self) -> Result<Wal, WalError> {
        let files = &self.files;
        files.disk.hold_dir(&files.dir).map_err(failed("open", &files.dir))?;
        for (number, tail) in &self.tails {
            let (file, path) = (files.open(*number, Open::Write)?, files.path(*number));
            segment::zero(&*file, tail.from, tail.until)
                .map_err(failed("zero the end of", &path))?;
            file.sync().map_err(failed("sync", &path))?;
        }
        let unborn = self.unborn.map(|number| files.path(number));
        for path in files.leftovers.iter().chain(&unborn) {
            files.disk.remove(path).map_err(failed("remove", path))?;
        }
        self.write_doubtful()?;
        let (end, full) = self.walked.split_last().expect("the walk has a first segment");
        let active = self.segment(end.number)?;
        // If only the process had died, what was read may not be on the disk yet.
        active.file.sync().map_err(failed("sync", &files.path(end.number)))?;
        let mut spares = VecDeque::new();
        for number in end.number + 1..files.segments.len() {
            if self.unborn != Some(number) {
                spares.push_back(self.segment(number)?);
            }
        }
        let place = Place {
            disk: Arc::clone(&files.disk),
            dir: files.dir.clone(),
            identity: files.identity,
            segment_bytes: self.segment_bytes,
        };
        place.sync_names()?;
        let sealed = |number: usize, last: Lsn| {
            let SegmentFile { seq, len, .. } = files.segments[number];
            Sealed { seq, size: len, last }
        };
        let before = (0..self.walked[0].number).map(|number| sealed(number, self.last_of(number)));
        let (covered, kept): (Vec<_>, Vec<_>) =
            before.partition(|segment| segment.last <= self.kept_from);
        let full = full.iter().map(|walked| sealed(walked.number, walked.last));
        Ok(Wal::resume(Found {
            place,
            active,
            at: end.end,
            sealed: kept.into_iter().chain(full).collect(),
            spares,
            covered: covered.iter().map(|segment| (segment.seq, segment.size)).collect(),
            last: self.last,
            bytes: self.bytes,
            continuity: self.continuity,
        }))
    }

    /// The last record of a segment that the checkpoint covers.
    fn last_of(&self, number: usize) -> Lsn {
        let behind = self.files.segments[number + 1..].iter();
        behind.filter_map(|segment| segment.first).next().map_or(self.from, Lsn::prev)
    }

    /// Writes again, and durably, what may be nowhere but in the system's memory.
    fn write_doubtful(&self) -> Result<(), WalError> {
        let Some(first) = self.doubtful.filter(|_| !planted::has(Bug::TailBelieved)) else {
            return Ok(());
        };
        for walked in self.walked.iter().filter(|walked| walked.number >= first.number) {
            let path = self.files.path(walked.number);
            let mut at = if walked.number == first.number { first.at } else { HEADER_BYTES };
            let mut reader = self.files.reader(walked.number)?;
            let file = self.files.open(walked.number, Open::Write)?;
            while at < walked.end {
                let left = usize::try_from(walked.end - at).unwrap_or(usize::MAX);
                let bytes = reader.bytes(at, 1)?;
                let bytes = &bytes[..bytes.len().min(left)];
                if bytes.is_empty() {
                    let reason = "it has changed since it was examined".to_owned();
                    return Err(self.files.damaged(walked.number, at, reason));
                }
                file.write_at(bytes, at).map_err(failed("write again the end of", &path))?;
                at += bytes.len() as u64;
            }
            file.sync().map_err(failed("sync", &path))?;
        }
        Ok(())
    }

    fn segment(&self, number: usize) -> Result<Segment, WalError> {
        let SegmentFile { seq, len, .. } = self.files.segments[number];
        Ok(Segment { seq, size: len, file: self.files.open(number, Open::Write)? })
    }
}
