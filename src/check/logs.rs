//! Every line of every topic, and the indexes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lines::{IndexWalk, Walk};
use super::state::State;
use super::{CheckError, Finding, Kind, Level, Mend, Report, place, unusable};
use crate::broker::layout::Layout;
use crate::disk::{self, Disk, File, Open, is_no_file};
use crate::ids::{Offset, TopicName};
use crate::log::{self, Lines, LogMark, Paths, Scan, SegmentFile, record_in};

/// How much is read at a time.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// How often it is told how much was read, in bytes; more often in tests, whose topics are small.
const TOLD_BYTES: u64 = if cfg!(test) { 1 << 10 } else { BLOCK_BYTES as u64 };

/// What is found about a topic with these files.
pub(super) type Each<'a> =
    &'a mut dyn FnMut((&TopicName, &[SegmentFile]), &mut Meter<'_>) -> Result<Report, CheckError>;

/// Hears how many bytes of how many were read; false if what is being read need not be read to its end,
/// since it will be read again.
pub(super) type Tell<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Every topic there is.
pub(super) fn verify(
    disk: &dyn Disk,
    layout: &Layout,
    state: &State,
    each: Each<'_>,
    report: &mut Report,
    tell: Tell<'_>,
) -> Result<(), CheckError> {
    if !state.is_served {
        place::ensure_data_dir(disk, &layout.data)?;
    }
    let mut scan = log::scan(disk, &layout.data)?;
    let no_files = take_no_files(disk, layout, &mut scan);
    for name in state.marks.keys() {
        scan.topics.entry(name.clone()).or_default();
    }
    let folder = "a folder that has the name of a topic's file; a broker does not start before it \
                  has another one, or is in another place";
    let folders = scan.folders.iter().map(|name| (name, folder));
    let strangers = scan.strangers.iter();
    let strangers = strangers.map(|name| (name, "not a file of wiber; it is left alone"));
    let no_files = no_files.iter().map(|name| (name, "it is no file, and is not looked at"));
    for (name, what) in folders.chain(strangers).chain(no_files) {
        let (level, kind, mend) = (Level::Note, Kind::Foreign, Mend::Nothing);
        let (file, what) = (layout.data.join(name), what.to_owned());
        report.add(Finding { level, kind, file, byte: None, what, mend });
    }
    let total = scan.topics.values().flatten().map(|file| file.len).sum();
    let mut meter = Meter::new(total, tell);
    for (name, files) in &scan.topics {
        report.merge(each((name, files), &mut meter)?);
    }
    if !state.is_served {
        place::note_unserved(layout, report);
    }
    // There is nothing left that need not be read.
    let _ = (meter.tell)(total, total);
    Ok(())
}

/// Takes out what has the name of a topic's file and is none, such as a pipe.
fn take_no_files(disk: &dyn Disk, layout: &Layout, scan: &mut Scan) -> Vec<String> {
    let mut all = Vec::new();
    for files in scan.topics.values_mut() {
        let is_none = |file: &mut SegmentFile| {
            disk.open(&layout.data.join(&file.name), Open::Read).is_err_and(|e| is_no_file(&e))
        };
        all.extend(files.extract_if(.., is_none).map(|file| file.name));
    }
    scan.topics.retain(|_, files| !files.is_empty());
    all
}

/// A look at the files of a topic.
pub(super) struct Look<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) layout: &'a Layout,
    pub(super) state: &'a State,
    pub(super) name: &'a TopicName,
    pub(super) files: &'a [SegmentFile],
    /// A broker writes meanwhile.
    pub(super) beside: Option<Opened>,
}

/// The active segment, if it was opened before the files were listed.
pub(super) type Opened = Option<Arc<dyn File>>;

pub(super) fn topic(look: Look<'_>, meter: &mut Meter<'_>) -> Result<Report, CheckError> {
    let mut found = Report::default();
    let report = &mut found;
    let Look { disk, layout, state, name, files, beside } = look;
    report.topics += 1;
    let mark = state.marks.get(name).copied();
    let is_known = mark.is_some() || state.coming.contains(name) || !state.is_log_read;
    let trust = match (state.base.is_some(), mark) {
        (true, mark) => Trust::Mark(mark.unwrap_or_default()),
        (false, _) => Trust::All { is_adopted: !state.is_served },
    };
    let paths = Paths { dir: layout.data.clone(), topic: name.clone() };
    let is_beside = beside.is_some();
    let active = beside.flatten();
    let mut topic = Topic { disk, paths, trust, report, meter, end: None, is_beside, active };
    if !is_known {
        let what = "no checkpoint and no log record knows this topic; the next start moves \
                    its files to the quarantine";
        topic.add(Level::Note, Kind::Foreign, topic.paths.active(), None, what, Mend::Nothing);
    }
    topic.files(files)?;
    if let Some(end) = topic.end {
        report.ends.insert(name.clone(), end);
    }
    Ok(found)
}

/// How much of the files was read.
pub(super) struct Meter<'a> {
    tell: Tell<'a>,
    total: u64,
    done: u64,
    told: u64,
    is_over: bool,
}

impl<'a> Meter<'a> {
    pub(super) fn new(total: u64, tell: Tell<'a>) -> Self {
        Self { tell, total, done: 0, told: 0, is_over: false }
    }

    pub(super) fn read(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done - self.told >= TOLD_BYTES {
            self.told = self.done;
            self.is_over |= !(self.tell)(self.done.min(self.total), self.total);
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Whether the rest of the file need not be read.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Begins again where so much was read.
    pub(super) fn go_back(&mut self, done: u64) {
        (self.done, self.told, self.is_over) = (done, done, false);
    }
}

/// What vouches for the lines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trust {
    /// A checkpoint: for all up to its mark. What lies behind is made again from the log.
    Mark(LogMark),
    /// Nothing better than the files.
    All {
        /// Whether the next start takes the directory over from the prototype.
        is_adopted: bool,
    },
}

/// A topic that is looked at.
pub(super) struct Topic<'a, 'm> {
    disk: &'a dyn Disk,
    pub(super) paths: Paths,
    pub(super) trust: Trust,
    pub(super) report: &'a mut Report,
    pub(super) meter: &'a mut Meter<'m>,
    /// Where its whole lines end.
    pub(super) end: Option<LogMark>,
    /// A broker writes meanwhile.
    pub(super) is_beside: bool,
    /// The active segment, if it is open already.
    active: Opened,
}

/// A file as it should be.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The first message in it.
    pub(super) first: Offset,
    /// The last that belongs here, if that is known.
    pub(super) last: Option<Offset>,
    /// How much of the file must be good.
    pub(super) vouched: u64,
    pub(super) len: u64,
    pub(super) is_marked: bool,
}

impl Topic<'_, '_> {
    fn files(&mut self, files: &[SegmentFile]) -> Result<(), CheckError> {
        let segments = self.segments(files)?;
        let begin = match self.trust {
            Trust::Mark(mark) => mark.first,
            Trust::All { .. } => segments.first().map_or(Offset::FIRST, |segment| segment.first),
        };
        self.end =
            Some(LogMark { first: begin, segment: begin, end: begin.prev(), ..LogMark::default() });
        if let Some(segment) = segments.first().filter(|segment| segment.first > begin) {
            let last = self.vouched(segment.first.prev());
            if begin <= last {
                self.missing(begin, last);
            }
        }
        for segment in &segments {
            let expected = self.end.map_or(begin, |end| end.end.next());
            self.segment(segment)?;
            if self.meter.is_over() {
                break;
            }
            if segment.path == self.paths.active() {
                self.ensure_still_active(expected)?;
            }
        }
        Ok(())
    }

    /// The last message up to `last` that has to be there. What lies behind the mark is made again from
    /// the log, unless a broker has done that.
    fn vouched(&self, last: Offset) -> Offset {
        match self.trust {
            Trust::Mark(mark) if !self.is_beside => last.min(mark.end),
            _ => last,
        }
    }

    /// Beside a broker: if the segment that was listed as the active one has been sealed since, what
    /// was read is another.
    fn ensure_still_active(&self, first: Offset) -> Result<(), CheckError> {
        let is_certain = !self.is_beside || self.active.is_some();
        if is_certain || self.disk.open(&self.paths.sealed(first), Open::Read).is_err() {
            return Ok(());
        }
        Err(unusable(&self.paths.active())(io::ErrorKind::NotFound.into()))
    }

    /// The files with what they should hold. One that is missing and that the mark knows is there
    /// with no length.
    fn segments(&self, files: &[SegmentFile]) -> Result<Vec<Segment>, CheckError> {
        let mut segments = Vec::<Segment>::new();
        for file in files {
            let path = self.paths.dir.join(&file.name);
            let first = match file.first {
                Some(first) => first,
                None => self.first_of_active(&path, segments.last())?,
            };
            // It was sealed after it was opened.
            if self.active.is_some() && segments.last().is_some_and(|last| last.first >= first) {
                continue;
            }
            let (len, is_marked) = (file.len, false);
            segments.push(Segment { path, first, last: None, vouched: len, len, is_marked });
        }
        // A start that was cut short may have gone back to an older active segment, and what it has
        // removed may be there again.
        segments.sort_by_key(|segment| segment.first);
        if let Trust::Mark(mark) = self.trust {
            // What is no longer kept is removed later, and by nobody else.
            segments.retain(|segment| segment.first >= mark.first);
            let (sealed, active) = (self.paths.sealed(mark.segment), self.paths.active());
            let path = if self.taken_by(&sealed).is_some() { sealed } else { active };
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
                // A broker that runs does not make again what it has written: nothing may be wrong
                // behind the mark either.
                let is_longer = self.is_beside && segment.len >= mark.len;
                segment.is_marked = segment.first == mark.segment && !is_longer;
                if segment.is_marked {
                    (segment.last, segment.vouched) = (Some(mark.end), mark.len);
                } else if segment.first > mark.segment && !self.is_beside {
                    segment.vouched = 0;
                }
            }
        }
        let nexts: Vec<_> = segments.iter().skip(1).map(|segment| segment.first).collect();
        for (segment, next) in segments.iter_mut().zip(nexts) {
            let is_behind = matches!(self.trust, Trust::Mark(mark) if mark.segment < segment.first);
            if !segment.is_marked && (!is_behind || self.is_beside) {
                segment.last = Some(self.vouched(next.prev()));
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
        let file = self.open(path).map_err(unusable(path))?;
        let len = file.len().map_err(unusable(path))?;
        let mut lines = Lines::new(file, path, 0, BLOCK_BYTES);
        let mut bad = 0;
        while let Some(line) = lines.next(len)? {
            if let Some((offset, before)) = record_in(&self.paths.topic, line.bytes) {
                let first = Offset::new(offset.get().saturating_sub(bad + before).max(1));
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
        let file = match self.open(&segment.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (mark, last) = (segment.vouched, segment.last.unwrap_or_default());
                let what = format!("it is missing, and held messages up to {last}");
                let mend =
                    Mend::Lines { at: 0, until: mark, may_grow: false, first: segment.first, last };
                self.add(Level::Damage, Kind::Log, segment.path.clone(), Some(0), &what, mend);
                return Ok(());
            }
            Err(error) if is_no_file(&error) => {
                self.blocked(&segment.path, &error, segment.last.unwrap_or_default());
                return Ok(());
            }
            Err(error) => return Err(unusable(&segment.path)(error)),
        };
        let index = self.index(segment)?;
        Walk::new(self, segment, file, index).run()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        match &self.active {
            Some(active) if *path == self.paths.active() => Ok(Arc::clone(active)),
            _ => self.disk.open(path, Open::Read),
        }
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
        Ok(IndexWalk::new(path, log::entries(&bytes)))
    }

    pub(super) fn missing(&mut self, first: Offset, last: Offset) {
        let path = self.paths.sealed(first);
        if let Some(error) = self.taken_by(&path) {
            return self.blocked(&path, &error, last);
        }
        let what = format!("it is missing, and held messages {first} to {last}");
        let mend = Mend::Lines { at: 0, until: 0, may_grow: true, first, last };
        self.add(Level::Damage, Kind::Log, path, Some(0), &what, mend);
    }

    /// What the disk says if something else has the name of a file.
    fn taken_by(&self, path: &Path) -> Option<io::Error> {
        self.disk.open(path, Open::Read).err().filter(is_no_file)
    }

    /// Something else has the name of a file.
    fn blocked(&mut self, path: &Path, error: &io::Error, last: Offset) {
        let is_folder = error.kind() == io::ErrorKind::IsADirectory;
        let is = if is_folder { "it is a folder" } else { "it is no file" };
        let what = format!("{is}, and the file of this name held messages up to {last}");
        self.add(Level::Damage, Kind::Log, path.to_owned(), None, &what, Mend::Blocked);
    }

    pub(super) fn add(
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
