//! One file of a topic, line by line: what is damaged, and how it is mended.
//!
//! What has to be good ends at the mark of the checkpoint, if the file has one; what is behind it the next
//! start makes again. What a line is by itself is in [`super::seen`].

use std::path::PathBuf;
use std::sync::Arc;

use super::logs::{BLOCK_BYTES, Segment, Topic, Trust};
use super::repair::Filling;
use super::seen::{MISSING_MAX, Seen, cut, look, see};
use super::{CheckError, Kind, Level, Mend, Rewrite, unusable};
use crate::disk::File;
use crate::ids::Offset;
use crate::log::{Entry, Lines, last_line, parse_line, parse_lost};
use crate::time::Timestamp;

/// How much is read at a time to find the next good line.
const PEEK_BYTES: usize = 64 << 10;

/// Lines that are none, one after the other.
#[derive(Clone, Copy, Debug)]
struct Bad {
    at: u64,
    lines: u64,
}

/// What an index says, beside the lines.
#[derive(Debug, Default)]
pub(super) struct IndexWalk {
    path: PathBuf,
    entries: Vec<Entry>,
    at: usize,
    is_wrong: bool,
}

impl IndexWalk {
    pub(super) fn new(path: PathBuf, entries: Vec<Entry>) -> IndexWalk {
        IndexWalk { path, entries, at: 0, is_wrong: false }
    }

    /// A line begins here; the entry that points here, if there is one, has to agree.
    /// `latest`: in the segment, and in the topic; `None` where a line's time can't be known.
    fn line(&mut self, at: u64, offset: Offset, latest: Option<[Timestamp; 2]>) {
        while let Some(entry) = self.entries.get(self.at).filter(|entry| entry.at <= at) {
            let is_right = entry.at == at
                && entry.offset == offset
                && latest.is_none_or(|latest| latest.contains(&entry.ts));
            self.is_wrong |= !is_right;
            self.at += 1;
        }
    }
}

/// One file, line by line.
pub(super) struct Walk<'a, 'b, 'm> {
    topic: &'a mut Topic<'b, 'm>,
    segment: &'a Segment,
    file: Arc<dyn File>,
    lines: Lines,
    /// The message that comes next.
    next: Offset,
    bad: Option<Bad>,
    latest: Timestamp,
    /// Whether the time of every line so far is known.
    is_timed: bool,
    index: IndexWalk,
    /// Whether the file has to be written again.
    is_again: bool,
}

impl<'a, 'b, 'm> Walk<'a, 'b, 'm> {
    pub(super) fn new(
        topic: &'a mut Topic<'b, 'm>,
        segment: &'a Segment,
        file: Arc<dyn File>,
        index: IndexWalk,
    ) -> Self {
        let (next, latest) = (segment.first, Timestamp::default());
        let (bad, is_timed, is_again) = (None, true, false);
        let lines = Lines::new(Arc::clone(&file), &segment.path, 0, BLOCK_BYTES);
        Walk { topic, segment, file, lines, next, bad, latest, is_timed, index, is_again }
    }

    pub(super) fn run(mut self) -> Result<(), CheckError> {
        self.vouched()?;
        self.behind()?;
        self.end();
        Ok(())
    }

    /// What has to be good.
    fn vouched(&mut self) -> Result<(), CheckError> {
        let name = self.topic.paths.topic.clone();
        let limit = self.limit()?;
        let is_growing = self.is_growing();
        let mut is_moved = limit > self.segment.vouched;
        let mut why = String::new();
        while !self.is_behind(self.next) {
            let in_bad = self.bad.map_or(0, |bad| bad.lines);
            if self.topic.meter.is_over() {
                return Ok(());
            }
            let Some(raw) = self.lines.next(limit)? else { break };
            let (at, len, is_whole) = (raw.at, raw.bytes.len() as u64 + 1, raw.is_whole);
            if !is_whole && is_growing {
                break;
            }
            let place = (&self.file, self.segment.path.as_path());
            let seen = look(&name, &raw, (self.next, in_bad), place)?;
            let seen = if is_whole {
                seen
            } else {
                match seen {
                    Seen::Good(..) => Seen::Merged(at + raw.bytes.len() as u64),
                    _ => cut(&name, &raw, self.next),
                }
            };
            if let Seen::Good(offset, _) | Seen::Lost(offset) = seen
                && self.is_behind(offset)
            {
                self.lines.step_back(at);
                is_moved = true;
                break;
            }
            self.take(seen, at, is_whole, &mut why);
            self.read(len);
        }
        let until = if is_moved { self.lines.at } else { self.segment.vouched };
        let end = self.close(until, &why);
        self.ensure_shape(end)
    }

    /// Where to stop reading what is vouched for: at the mark, unless lines came to it or were made longer, so
    /// that some of it stands behind.
    fn limit(&self) -> Result<u64, CheckError> {
        let Segment { path, vouched, len, is_marked, last, .. } = self.segment;
        let (until, last) = (*vouched.min(len), last.unwrap_or_default());
        if !is_marked || until == 0 || len <= vouched {
            return Ok(until);
        }
        let (at, _) = last_line(&*self.file, until).map_err(unusable(path))?;
        let mut lines = Lines::new(Arc::clone(&self.file), path, at, PEEK_BYTES);
        while let Some(raw) = lines.next(*len)? {
            let end = raw.at + raw.bytes.len() as u64 + 1;
            let record = parse_line(&self.topic.paths.topic, raw.bytes).ok();
            if let Some(offset) = record.map(|line| line.offset).or_else(|| parse_lost(raw.bytes)) {
                let is_moved = offset < last || offset == last && end != until;
                return Ok(if is_moved { *len } else { until });
            }
        }
        Ok(until)
    }

    /// Whether this message stands behind what is vouched for.
    fn is_behind(&self, offset: Offset) -> bool {
        let Segment { is_marked, vouched, last, .. } = self.segment;
        *is_marked && *vouched > 0 && last.is_some_and(|last| offset > last)
    }

    /// A line of what has to be good.
    fn take(&mut self, seen: Seen, at: u64, is_whole: bool, why: &mut String) {
        match seen {
            Seen::Good(offset, ts) => self.good(at, offset, Some(ts), why),
            Seen::Lost(offset) => {
                self.good(at, offset, None, why);
                let what = format!("message {offset} was lost before an earlier repair");
                self.tell(Level::Note, Kind::Lost, Some(at), &what, Mend::Nothing);
            }
            Seen::Merged(end) if is_whole || !self.is_adopted() => {
                self.good(at, self.next, None, why);
                let what = "the end of the line is damaged";
                self.tell(Level::Damage, Kind::Log, Some(end), what, Mend::LineEnd(end));
                if is_whole {
                    self.good(end + 1, self.next, None, why);
                }
            }
            Seen::Merged(_) => {
                self.good(at, self.next, None, why);
                let what = "the last line has no end; the first start gives it one";
                self.tell(Level::Torn, Kind::Log, Some(at), what, Mend::Nothing);
            }
            Seen::Bad(_) if !is_whole && self.is_adopted() => {
                let what = "the last line is torn; the first start moves it to the quarantine";
                self.tell(Level::Torn, Kind::Log, Some(at), what, Mend::Nothing);
            }
            Seen::Bad(reason) | Seen::Doubtful(_, _, reason) => {
                let bad = self.bad.get_or_insert_with(|| {
                    *why = reason;
                    Bad { at, lines: 0 }
                });
                bad.lines += 1;
            }
        }
    }

    fn is_active(&self) -> bool {
        self.segment.path == self.topic.paths.active()
    }

    /// Whether a broker may be writing its end.
    fn is_growing(&self) -> bool {
        self.topic.is_beside && self.is_active()
    }

    fn is_adopted(&self) -> bool {
        matches!(self.topic.trust, Trust::All { is_adopted: true })
    }

    /// A line that is in order; what was bad before it is over.
    fn good(&mut self, at: u64, offset: Offset, ts: Option<Timestamp>, why: &str) {
        if let Some(bad) = self.bad.take() {
            self.is_timed = false;
            self.region(bad, at, false, offset.prev(), why);
        } else if offset > self.next {
            self.missing(at, offset.prev());
        }
        self.latest = self.latest.max(ts.unwrap_or_default());
        let before = self.topic.end.map_or(self.latest, |end| end.latest);
        self.is_timed &= ts.is_some();
        let latest = self.is_timed.then_some([self.latest, self.latest.max(before)]);
        self.index.line(at, offset, latest);
        self.topic.report.messages += u64::from(ts.is_some());
        self.next = offset.next();
    }

    /// The end of what is vouched for, at `until` if that is damaged. Gives where it ends when all is mended
    /// that can be where it is.
    fn close(&mut self, until: u64, why: &str) -> u64 {
        let lines = self.bad.map_or(0, |bad| bad.lines);
        let known = self.segment.last.filter(|_| self.segment.vouched > 0);
        let counted = Offset::new(self.next.get() + lines).prev();
        let last = known.unwrap_or(counted);
        let mut end = self.lines.at;
        if let Some(bad) = self.bad.take() {
            self.region(bad, until, !self.segment.is_marked, last, why);
            end = until;
        } else if self.next <= last && until > self.segment.len {
            let bad = Bad { at: self.segment.len, lines: 0 };
            let why = format!("it ends here, and the checkpoint knows {until} bytes");
            self.region(bad, until, false, last, &why);
            end = until;
        } else if self.next <= last && !self.segment.is_marked {
            self.topic.missing(self.next, last);
        } else if self.next <= last {
            self.missing(end, last);
        } else {
            return end;
        }
        self.next = last.next();
        end
    }

    /// Messages from the next one up to `last` have no bytes here.
    fn missing(&mut self, at: u64, last: Offset) {
        let what = if self.next == last {
            format!("message {last} is missing")
        } else {
            format!("messages {} to {last} are missing", self.next)
        };
        let count = last.get() - self.next.get();
        let mend = if count < MISSING_MAX { self.again() } else { Mend::Cannot };
        self.tell(Level::Damage, Kind::Log, Some(at), &what, mend);
    }

    /// The file has to be written again; [`Walk::ensure_shape`] says how.
    fn again(&mut self) -> Mend {
        self.is_again = true;
        let (topic, first) = (self.topic.paths.topic.clone(), self.segment.first);
        Mend::Rewrite(Rewrite { topic, first, last: first, len: None, keeps_rest: false })
    }

    /// Bytes that are no lines stand for the messages from the next one up to `last`.
    fn region(&mut self, bad: Bad, until: u64, may_grow: bool, last: Offset, why: &str) {
        let (first, at) = (self.next, bad.at);
        let what = match last.get().checked_sub(first.get()) {
            None => format!("{} bytes that are no message: {why}", until - at),
            Some(0) => format!("message {first}: {why}"),
            Some(_) => format!("messages {first} to {last}: {why}"),
        };
        let has_room = || may_grow || Filling::new(first, last, 0).bytes <= until - at;
        let mend = if first <= last && has_room() {
            Mend::Lines { at, until, may_grow, first, last }
        } else {
            self.again()
        };
        self.tell(Level::Damage, Kind::Log, Some(at), &what, mend);
    }

    /// The lines end where the mark says, which is at `end` now. If not, or if there is no room for what
    /// is missing, the file is written again.
    fn ensure_shape(&mut self, end: u64) -> Result<(), CheckError> {
        let Segment { path, first, last, vouched, is_marked, .. } = self.segment;
        let is_off = *is_marked && end != *vouched;
        if !self.is_again && !is_off {
            return Ok(());
        }
        let mut rewrite = Rewrite {
            topic: self.topic.paths.topic.clone(),
            first: *first,
            last: last.unwrap_or(self.next.prev()),
            len: is_marked.then_some(*vouched),
            keeps_rest: *is_marked || self.is_active(),
        };
        let is_fitting = !*is_marked || rewrite.fits(&self.file, path, *vouched)?;
        rewrite.len = rewrite.len.filter(|_| is_fitting);
        for finding in &mut self.topic.report.findings {
            if finding.file == *path && matches!(finding.mend, Mend::Rewrite(_)) {
                finding.mend = Mend::Rewrite(rewrite.clone());
            }
        }
        if !is_fitting || !self.is_again {
            let what = format!(
                "its messages up to {} do not take the {vouched} bytes that the checkpoint knows",
                rewrite.last
            );
            let mend = if is_fitting { Mend::Rewrite(rewrite) } else { Mend::Rebuild };
            self.tell(Level::Damage, Kind::Log, Some(end), &what, mend);
        }
        Ok(())
    }

    /// What lies behind the mark: the next start cuts it and makes it again from the log.
    fn behind(&mut self) -> Result<(), CheckError> {
        if self.segment.len <= self.segment.vouched {
            self.index_at_end();
            return Ok(());
        }
        let expected = self.topic.end.map_or(self.next, |end| end.end.next());
        if self.segment.vouched == 0 && self.next != expected {
            self.tell_torn(0);
            return Ok(());
        }
        let name = self.topic.paths.topic.clone();
        while !self.topic.meter.is_over()
            && let Some(raw) = self.lines.next(self.segment.len)?
        {
            let at = raw.at;
            let seen = see(&name, &raw, self.next, 0);
            match seen {
                Seen::Good(offset, ts) if offset == self.next && raw.is_whole => {
                    let len = raw.bytes.len() as u64 + 1;
                    self.good(at, offset, Some(ts), "");
                    self.read(len);
                }
                _ => {
                    self.tell_torn(at);
                    self.lines.at = at;
                    break;
                }
            }
        }
        self.index_at_end();
        Ok(())
    }

    fn tell_torn(&mut self, at: u64) {
        let bytes = self.segment.len - at;
        let what = format!(
            "{bytes} bytes behind the checkpoint that are no messages; the next start makes them \
             again from the write-ahead log"
        );
        self.tell(Level::Torn, Kind::Log, Some(at), &what, Mend::Nothing);
    }

    fn index_at_end(&mut self) {
        let behind = self.index.entries.len() > self.index.at;
        // What was written since has its entries already.
        let is_all = self.segment.vouched == self.segment.len && !self.is_growing();
        let is_wrong = self.index.is_wrong || behind && is_all;
        if is_wrong {
            let what = "it does not fit its segment; it is made again when it is needed";
            let path = self.index.path.clone();
            // It is not synced: a power cut may have left the one of a segment that was cut since.
            self.topic.add(Level::Torn, Kind::Index, path, Some(0), what, Mend::Nothing);
        }
    }

    fn end(self) {
        let is_active = self.is_active();
        let end = self.topic.end.as_mut().expect("it is set before the first segment");
        if self.segment.vouched > 0 || self.segment.first == end.end.next() {
            end.segment = self.segment.first;
            end.end = self.next.prev();
            end.len = self.lines.at;
            end.latest = end.latest.max(self.latest);
            // A sealed one may be the last.
            if !is_active {
                (end.segment, end.len) = (self.next, 0);
            }
        }
    }

    fn read(&mut self, bytes: u64) {
        self.topic.report.bytes += bytes;
        self.topic.meter.read(bytes);
    }

    fn tell(&mut self, level: Level, kind: Kind, byte: Option<u64>, what: &str, mend: Mend) {
        self.topic.add(level, kind, self.segment.path.clone(), byte, what, mend);
    }
}
