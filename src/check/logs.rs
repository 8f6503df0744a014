//! Every line of every topic, and the indexes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::state::State;
use super::{CheckError, Finding, Kind, Level, Mend, Progress, Report, unusable};
use crate::broker::layout::Layout;
use crate::disk::{self, Disk, Open};
use crate::ids::{Offset, TopicName};
use crate::log::{
    self, Entry, Lines, LogMark, Paths, RawLine, SegmentFile, parse_line, parse_lost,
};
use crate::time::Timestamp;

/// How much is read at a time.
const BLOCK_BYTES: usize = 1 << 20;

pub(super) fn verify(
    disk: &dyn Disk,
    layout: &Layout,
    state: &State,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), CheckError> {
    let mut scan = log::scan(disk, &layout.data)?;
    let mut marks = BTreeMap::new();
    for (_, known) in state.base.iter().flat_map(|base| &base.topics) {
        if let Ok(name) = TopicName::parse(known.topic.as_bytes()) {
            marks.insert(name.clone(), known.mark);
            scan.topics.entry(name).or_default();
        }
    }
    for name in scan.strangers {
        let (what, file) = ("not a file of wiber; it is left alone".into(), layout.data.join(name));
        let (level, kind, mend) = (Level::Note, Kind::Foreign, Mend::Nothing);
        report.add(Finding { level, kind, file, byte: None, what, mend });
    }
    let total = scan.topics.values().flatten().map(|file| file.len).sum();
    for (name, files) in scan.topics {
        report.topics += 1;
        let mark = marks.get(&name).copied();
        let is_known = mark.is_some() || state.coming.contains(&name) || !state.is_log_read;
        let trust = match (state.base.is_some(), mark) {
            (true, mark) => Trust::Mark(mark.unwrap_or_default()),
            (false, _) => Trust::All { is_adopted: !state.is_served },
        };
        let paths = Paths { dir: layout.data.clone(), topic: name.clone() };
        let mut topic = Topic { disk, paths, trust, report, progress, total, end: None };
        if !is_known {
            let what = "no checkpoint and no log record knows this topic; the next start moves \
                        its files to the quarantine";
            topic.add(Level::Note, Kind::Foreign, topic.paths.active(), None, what, Mend::Nothing);
        }
        topic.files(&files)?;
        if let Some(end) = topic.end {
            report.ends.insert(name, end);
        }
    }
    progress(total, total);
    Ok(())
}

/// What vouches for the lines.
#[derive(Clone, Copy, Debug)]
enum Trust {
    /// A checkpoint: for all up to its mark. What lies behind is made again from the log.
    Mark(LogMark),
    /// Nothing better than the files.
    All {
        /// Whether the next start takes the directory over from the prototype.
        is_adopted: bool,
    },
}

struct Topic<'a> {
    disk: &'a dyn Disk,
    paths: Paths,
    trust: Trust,
    report: &'a mut Report,
    progress: &'a mut dyn FnMut(u64, u64),
    total: u64,
    end: Option<LogMark>,
}

/// A file as it should be.
#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    /// The first message in it.
    first: Offset,
    /// The last that belongs here, if that is known.
    last: Option<Offset>,
    /// How much of the file must be good.
    vouched: u64,
    len: u64,
    is_marked: bool,
}

/// Lines that are none, one after the other.
#[derive(Clone, Copy, Debug)]
struct Bad {
    at: u64,
    lines: u64,
}

impl Topic<'_> {
    fn files(&mut self, files: &[SegmentFile]) -> Result<(), CheckError> {
        let segments = self.segments(files)?;
        let begin = match self.trust {
            Trust::Mark(mark) => mark.first,
            Trust::All { .. } => segments.first().map_or(Offset::FIRST, |segment| segment.first),
        };
        self.end =
            Some(LogMark { first: begin, segment: begin, end: begin.prev(), ..LogMark::default() });
        if let Some(segment) = segments.first().filter(|segment| segment.first > begin) {
            self.missing(begin, segment.first.prev());
        }
        for segment in &segments {
            self.segment(segment)?;
        }
        Ok(())
    }

    /// The files with what they should hold. One that is missing and that the mark knows is there
    /// with no length.
    fn segments(&self, files: &[SegmentFile]) -> Result<Vec<Segment>, CheckError> {
        let mut segments = Vec::new();
        for file in files {
            let path = self.paths.dir.join(&file.name);
            let first = match file.first {
                Some(first) => first,
                None => self.first_of_active(&path, segments.last())?,
            };
            let (len, is_marked) = (file.len, false);
            segments.push(Segment { path, first, last: None, vouched: len, len, is_marked });
        }
        if let Trust::Mark(mark) = self.trust {
            let path = self.paths.active();
            let is_there = segments.iter().any(|segment| segment.first == mark.segment);
            if !is_there && mark.len > 0 {
                let (first, len) = (mark.segment, 0);
                segments.retain(|segment| segment.path != path);
                segments.push(Segment {
                    path,
                    first,
                    last: None,
                    vouched: 0,
                    len,
                    is_marked: true,
                });
                segments.sort_by_key(|segment| segment.first);
            }
            for segment in &mut segments {
                segment.is_marked = segment.first == mark.segment;
                if segment.is_marked {
                    (segment.last, segment.vouched) = (Some(mark.end), mark.len);
                } else if segment.first > mark.segment {
                    segment.vouched = 0;
                }
            }
        }
        let nexts: Vec<_> = segments.iter().skip(1).map(|segment| segment.first).collect();
        for (segment, next) in segments.iter_mut().zip(nexts) {
            let is_behind = matches!(self.trust, Trust::Mark(mark) if mark.segment < segment.first);
            if !segment.is_marked && !is_behind {
                segment.last = Some(next.prev());
            }
        }
        Ok(segments)
    }

    /// The name of the active segment does not say what it begins with; its first line does, unless
    /// that is damaged and the mark has to be asked.
    fn first_of_active(&self, path: &Path, before: Option<&Segment>) -> Result<Offset, CheckError> {
        let known = match self.trust {
            Trust::Mark(mark) if before.is_none_or(|before| before.first < mark.segment) => {
                Some(mark)
            }
            _ => None,
        };
        let file = self.disk.open(path, Open::Read).map_err(unusable(path))?;
        let len = file.len().map_err(unusable(path))?;
        let mut lines = Lines::new(file, path, 0, BLOCK_BYTES);
        let mut bad = 0;
        while let Some(line) = lines.next(len)? {
            let offset = parse_line(&self.paths.topic, line.bytes).map(|line| line.offset).ok();
            if let Some(offset) = offset.or_else(|| parse_lost(line.bytes)) {
                let first = Offset::new(offset.get().saturating_sub(bad).max(1));
                // The mark knows better, unless its segment was sealed since and is not there.
                return Ok(known.filter(|mark| first <= mark.end).map_or(first, |m| m.segment));
            }
            bad += 1;
        }
        if let Some(mark) = known {
            return Ok(mark.segment);
        }
        Ok(before.map_or(Offset::FIRST, |before| before.first.next()))
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), CheckError> {
        if segment.len == 0 && segment.vouched == 0 {
            // A sealed file that is empty held something.
            if let Some(last) = segment.last.filter(|_| !segment.is_marked) {
                self.missing(segment.first, last);
            }
            return Ok(());
        }
        let file = match self.disk.open(&segment.path, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (mark, last) = (segment.vouched, segment.last.unwrap_or_default());
                let what = format!("it is missing, and held messages up to {last}");
                let mend =
                    Mend::Lines { at: 0, until: mark, may_grow: false, first: segment.first, last };
                self.add(Level::Damage, Kind::Log, segment.path.clone(), Some(0), &what, mend);
                return Ok(());
            }
            Err(error) => return Err(unusable(&segment.path)(error)),
        };
        let index = self.index(segment)?;
        let lines = Lines::new(file, &segment.path, 0, BLOCK_BYTES);
        let mut walk = Walk {
            topic: self,
            segment,
            lines,
            next: segment.first,
            bad: None,
            latest: Timestamp::default(),
            is_timed: true,
            index,
            told: 0,
        };
        walk.vouched()?;
        walk.behind()?;
        walk.end()
    }

    /// The entries of the segment's index, and where it is; empty if there is none.
    fn index(&mut self, segment: &Segment) -> Result<IndexWalk, CheckError> {
        let path = self.paths.index(segment.first);
        let bytes = match disk::read_all(self.disk, &path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable(&path)(error)),
        };
        // Indexes are not synced: after a power cut one may be empty, or have no contents.
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(IndexWalk::default());
        }
        Ok(IndexWalk { path, entries: log::entries(&bytes), at: 0, is_wrong: false })
    }

    fn missing(&mut self, first: Offset, last: Offset) {
        let path = self.paths.sealed(first);
        let what = format!("it is missing, and held messages {first} to {last}");
        let mend = Mend::Lines { at: 0, until: 0, may_grow: true, first, last };
        self.add(Level::Damage, Kind::Log, path, Some(0), &what, mend);
    }

    fn add(
        &mut self,
        level: Level,
        kind: Kind,
        file: PathBuf,
        byte: Option<u64>,
        what: &str,
        mend: Mend,
    ) {
        self.report.add(Finding { level, kind, file, byte, what: what.to_owned(), mend });
    }
}

#[derive(Debug, Default)]
struct IndexWalk {
    path: PathBuf,
    entries: Vec<Entry>,
    at: usize,
    is_wrong: bool,
}

impl IndexWalk {
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
struct Walk<'a, 'b> {
    topic: &'a mut Topic<'b>,
    segment: &'a Segment,
    lines: Lines,
    /// The message that comes next.
    next: Offset,
    bad: Option<Bad>,
    latest: Timestamp,
    /// Whether the time of every line so far is known.
    is_timed: bool,
    index: IndexWalk,
    /// How much of the progress was told.
    told: u64,
}

/// What a line is.
enum Seen {
    Good(Offset, Timestamp),
    /// A repair wrote it.
    Lost(Offset),
    /// Two lines between which the line end at this byte is damaged.
    Merged(u64),
    Bad(String),
}

fn see(topic: &TopicName, raw: &RawLine<'_>, next: Offset, in_bad: u64) -> Seen {
    if let Some(offset) = parse_lost(raw.bytes)
        && offset >= next
    {
        return Seen::Lost(offset);
    }
    match parse_line(topic, raw.bytes) {
        // A line without a checksum is believed only where it belongs.
        Ok(line) if line.offset >= next => {
            let expected = Offset::new(next.get() + in_bad);
            if line.is_checked || line.offset == expected {
                Seen::Good(line.offset, line.ts())
            } else {
                Seen::Bad(format!("offset {} where {expected} belongs", line.offset))
            }
        }
        Ok(line) => Seen::Bad(format!("offset {} where {next} belongs", line.offset)),
        Err(error) => match merged(topic, raw, next) {
            Some(at) => Seen::Merged(at),
            None => Seen::Bad(error.to_string()),
        },
    }
}

/// Where in the bytes of two good lines, the first of which is `next`, the line end between is
/// damaged.
fn merged(topic: &TopicName, raw: &RawLine<'_>, next: Offset) -> Option<u64> {
    let is = |bytes: &[u8], offset| {
        parse_line(topic, bytes).is_ok_and(|line| line.offset == offset && line.is_checked)
    };
    let starts = memchr::memmem::find_iter(raw.bytes, b"{\"id\":\"").filter(|at| *at > 0);
    let mut starts = starts.take(64);
    let found =
        starts.find(|at| is(&raw.bytes[..at - 1], next) && is(&raw.bytes[*at..], next.next()))?;
    Some(raw.at + found as u64 - 1)
}

impl Walk<'_, '_> {
    /// What has to be good.
    fn vouched(&mut self) -> Result<(), CheckError> {
        let name = self.topic.paths.topic.clone();
        let until = self.segment.vouched.min(self.segment.len);
        let mut why = String::new();
        loop {
            let in_bad = self.bad.map_or(0, |bad| bad.lines);
            let Some(raw) = self.lines.next(until)? else { break };
            let (at, len, is_whole) = (raw.at, raw.bytes.len() as u64 + 1, raw.is_whole);
            let seen = if is_whole {
                see(&name, &raw, self.next, in_bad)
            } else {
                match see(&name, &raw, self.next, in_bad) {
                    Seen::Good(..) => Seen::Merged(at + raw.bytes.len() as u64),
                    _ => cut(&name, &raw, self.next),
                }
            };
            match seen {
                Seen::Good(offset, ts) => self.good(at, offset, Some(ts), &why),
                Seen::Lost(offset) => {
                    self.good(at, offset, None, &why);
                    let what = format!("message {offset} was lost before an earlier repair");
                    self.tell(Level::Note, Kind::Lost, Some(at), &what, Mend::Nothing);
                }
                Seen::Merged(end) if is_whole || !self.is_adopted() => {
                    self.good(at, self.next, None, &why);
                    let what = "the end of the line is damaged";
                    self.tell(Level::Damage, Kind::Log, Some(end), what, Mend::LineEnd(end));
                    if is_whole {
                        self.good(end + 1, self.next, None, &why);
                    }
                }
                Seen::Merged(_) => {
                    self.good(at, self.next, None, &why);
                    let what = "the last line has no end; the first start gives it one";
                    self.tell(Level::Torn, Kind::Log, Some(at), what, Mend::Nothing);
                }
                Seen::Bad(_) if !is_whole && self.is_adopted() => {
                    let what = "the last line is torn; the first start moves it to the quarantine";
                    self.tell(Level::Torn, Kind::Log, Some(at), what, Mend::Nothing);
                }
                Seen::Bad(reason) => {
                    let bad = self.bad.get_or_insert_with(|| {
                        why = reason;
                        Bad { at, lines: 0 }
                    });
                    bad.lines += 1;
                }
            }
            self.read(len);
        }
        self.close(&why);
        Ok(())
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
            let what = format!("messages {} to {} are missing", self.next, offset.prev());
            self.tell(Level::Damage, Kind::Log, Some(at), &what, Mend::Cannot);
        }
        self.latest = self.latest.max(ts.unwrap_or_default());
        let before = self.topic.end.map_or(self.latest, |end| end.latest);
        self.is_timed &= ts.is_some();
        let latest = self.is_timed.then_some([self.latest, self.latest.max(before)]);
        self.index.line(at, offset, latest);
        self.topic.report.messages += u64::from(ts.is_some());
        self.next = offset.next();
    }

    /// The end of what is vouched for.
    fn close(&mut self, why: &str) {
        let lines = self.bad.map_or(0, |bad| bad.lines);
        let known = self.segment.last.filter(|_| self.segment.vouched > 0);
        let counted = Offset::new(self.next.get() + lines).prev();
        let last = known.unwrap_or(counted);
        let until = self.segment.vouched;
        if let Some(bad) = self.bad.take() {
            self.region(bad, until, !self.segment.is_marked, last, why);
        } else if self.next <= last && until > self.segment.len {
            let bad = Bad { at: self.segment.len, lines: 0 };
            let why = format!("it ends here, and the checkpoint knows {until} bytes");
            self.region(bad, until, false, last, &why);
        } else if self.next <= last && !self.segment.is_marked {
            self.topic.missing(self.next, last);
        } else if self.next <= last {
            let what = format!("messages {} to {last} are missing", self.next);
            self.tell(Level::Damage, Kind::Log, Some(until), &what, Mend::Rebuild);
        } else {
            return;
        }
        self.next = last.next();
    }

    /// Bytes that are no lines stand for the messages from the next one up to `last`.
    fn region(&mut self, bad: Bad, until: u64, may_grow: bool, last: Offset, why: &str) {
        let (first, at) = (self.next, bad.at);
        let what = match last.get().checked_sub(first.get()) {
            None => format!("{} bytes that are no message: {why}", until - at),
            Some(0) => format!("message {first}: {why}"),
            Some(_) => format!("messages {first} to {last}: {why}"),
        };
        let mend = if first > last {
            Mend::Cannot
        } else {
            Mend::Lines { at, until, may_grow, first, last }
        };
        self.tell(Level::Damage, Kind::Log, Some(at), &what, mend);
    }

    /// What lies behind the mark: the next start cuts it and makes it again from the log.
    fn behind(&mut self) -> Result<(), CheckError> {
        if self.segment.len <= self.segment.vouched {
            self.index_at_end();
            return Ok(());
        }
        let expected = self.topic.end.map_or(self.next, |end| end.end.next());
        if self.segment.vouched == 0 && self.next != expected {
            return Ok(());
        }
        let name = self.topic.paths.topic.clone();
        while let Some(raw) = self.lines.next(self.segment.len)? {
            let at = raw.at;
            let seen = see(&name, &raw, self.next, 0);
            match seen {
                Seen::Good(offset, ts) if offset == self.next && raw.is_whole => {
                    let len = raw.bytes.len() as u64 + 1;
                    self.good(at, offset, Some(ts), "");
                    self.read(len);
                }
                _ => {
                    let bytes = self.segment.len - at;
                    let what = format!(
                        "{bytes} bytes behind the checkpoint that are no messages; the next \
                         start makes them again from the write-ahead log"
                    );
                    self.tell(Level::Torn, Kind::Log, Some(at), &what, Mend::Nothing);
                    self.lines.at = at;
                    break;
                }
            }
        }
        self.index_at_end();
        Ok(())
    }

    fn index_at_end(&mut self) {
        let behind = self.index.entries.len() > self.index.at;
        let is_wrong = self.index.is_wrong || behind && self.segment.vouched == self.segment.len;
        if is_wrong {
            let what = "it does not fit its segment; it is made again when it is needed";
            let path = self.index.path.clone();
            self.topic.add(Level::Damage, Kind::Index, path, Some(0), what, Mend::SetAside);
        }
    }

    fn end(mut self) -> Result<(), CheckError> {
        let end = self.topic.end.as_mut().expect("it is set before the first segment");
        if self.segment.vouched > 0 || self.segment.first == end.end.next() {
            end.segment = self.segment.first;
            end.end = self.next.prev();
            end.len = self.lines.at;
            end.latest = end.latest.max(self.latest);
            // A sealed one may be the last.
            if self.segment.path != self.topic.paths.active() {
                (end.segment, end.len) = (self.next, 0);
            }
        }
        self.told = 0;
        Ok(())
    }

    fn read(&mut self, bytes: u64) {
        self.told += bytes;
        self.topic.report.bytes += bytes;
        if self.told >= BLOCK_BYTES as u64 {
            self.told = 0;
            (self.topic.progress)(self.topic.report.bytes.min(self.topic.total), self.topic.total);
        }
    }

    fn tell(&mut self, level: Level, kind: Kind, byte: Option<u64>, what: &str, mend: Mend) {
        self.topic.add(level, kind, self.segment.path.clone(), byte, what, mend);
    }
}

/// A last line without an end: its last byte may be what became of it.
fn cut(topic: &TopicName, raw: &RawLine<'_>, next: Offset) -> Seen {
    let bytes = raw.bytes.split_last().map(|(_, rest)| rest).unwrap_or_default();
    match parse_line(topic, bytes) {
        Ok(line) if line.offset == next && line.is_checked => {
            Seen::Merged(raw.at + bytes.len() as u64)
        }
        _ => Seen::Bad("the line has no end".to_owned()),
    }
}
