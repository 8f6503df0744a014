//! Doing what the findings say, with a copy of every byte that is replaced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rewrite::Rewrite;
use super::{CheckError, Finding, Level, Mend, Report, check, rebuild, unusable};
use crate::broker::layout::Layout;
use crate::broker::open::Node;
use crate::disk::{Disk, File, Open};
use crate::ids::Offset;
use crate::limits::FILE_NAME_BYTES_MAX;
use crate::log::write_lost;
use crate::time::Timestamp;

/// Bytes are copied and written so many at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// So many places of a file are mended at a time, with one sync for all. Their copies are open meanwhile.
const PATCHES_MAX: usize = 256;

/// So many copies are synced one by one; more, all that is on the file system at once.
const SYNCED_APART_MAX: usize = if cfg!(test) { 1 } else { 8 };

/// Random numbers for a new log; see [`crate::wal::Identity`].
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// For a node whose identity is lost.
    pub node: u64,
    /// For the marks of the log.
    pub secret: u64,
}

/// Something that was repaired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// The file.
    pub file: PathBuf,
    /// What was done, and what was lost.
    pub what: String,
    /// Where the bytes are that were replaced.
    pub kept: Option<PathBuf>,
}

/// Repairs what `report` has found. Run a check afterwards to see what is left, and whether that
/// [wants another repair](Report::wants_another_repair).
///
/// # Errors
/// [`CheckError`]. What was replaced before is in the quarantine; it can be run again.
pub fn repair(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    report: &Report,
    now: Timestamp,
    seeds: Seeds,
) -> Result<Vec<Done>, CheckError> {
    let layout = Layout::new(dir);
    let aside = Aside { disk: disk.as_ref(), folder: layout.quarantine(), now };
    let again = BTreeMap::new();
    let mut repair = Repair { layout: &layout, aside: &aside, again, done: Vec::new() };
    let found: Vec<_> = damages(report).collect();
    for found in found.chunk_by(|one, next| one.file == next.file) {
        repair.patch(&found[0].file, found)?;
        found.iter().try_for_each(|finding| repair.mend(finding))?;
    }
    let Repair { again, mut done, .. } = repair;
    if report.left_out > 0 && !done.is_empty() {
        // What follows goes by what is whole, and would take for lost what the next repair mends.
        return Ok(done);
    }
    for (file, rewrite) in &again {
        done.push(rewrite.run(&aside, file)?);
    }
    let wants_rebuild =
        |report: &Report| damages(report).any(|finding| finding.mend == Mend::Rebuild);
    if damages(report).any(|finding| finding.mend == Mend::Blocked) {
        // What is not in a topic's files would be forgotten for good, and this one may come back.
        return Ok(done);
    }
    let is_wanted = wants_rebuild(report);
    if is_wanted || !again.is_empty() {
        // What was mended first counts for where the topics end.
        let fresh = check(disk, dir, &mut |_, _| {})?;
        if is_wanted || wants_rebuild(&fresh) {
            done.extend(rebuild::rebuild(disk, &layout, &fresh, &aside, seeds)?);
        }
    }
    Ok(done)
}

fn damages(report: &Report) -> impl Iterator<Item = &Finding> {
    report.findings.iter().filter(|found| found.level == Level::Damage)
}

/// The quarantine.
pub(super) struct Aside<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) folder: PathBuf,
    pub(super) now: Timestamp,
}

impl Aside<'_> {
    /// Where bytes of a file go: its name, with the time before it and `more` behind it. A long one is there
    /// without its middle, and has a checksum of all of it instead.
    fn path(&self, file: &Path, more: &str) -> PathBuf {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let now = format!("{}-", self.now.as_micros());
        let room = FILE_NAME_BYTES_MAX.saturating_sub(now.len() + more.len());
        if name.len() <= room {
            return self.folder.join(format!("{now}{name}{more}"));
        }
        let crc = format!("~{:08x}~", crc32c::crc32c(name.as_bytes()));
        let half = room.saturating_sub(crc.len()) / 2;
        let begin = &name[..name.floor_char_boundary(half)];
        let end = &name[name.ceil_char_boundary(name.len() - half)..];
        self.folder.join(format!("{now}{begin}{crc}{end}{more}"))
    }

    fn prepare(&self) -> Result<(), CheckError> {
        let above = self.folder.parent().unwrap_or(Path::new("."));
        self.disk.create_dir(&self.folder).map_err(unusable(&self.folder))?;
        self.disk.sync_dir(above).map_err(unusable(above))
    }

    /// Moves a file there.
    pub(super) fn take(&self, file: &Path) -> Result<PathBuf, CheckError> {
        self.prepare()?;
        let to = self.path(file, "");
        self.disk.rename(file, &to).map_err(unusable(file))?;
        for folder in [&self.folder, file.parent().unwrap_or(Path::new("."))] {
            self.disk.sync_dir(folder).map_err(unusable(folder))?;
        }
        Ok(to)
    }

    /// Copies bytes of a file there, durably; `None` if there are none.
    pub(super) fn copy(
        &self,
        file: &Path,
        at: u64,
        until: u64,
    ) -> Result<Option<PathBuf>, CheckError> {
        Ok(self.copies(file, &[(at, until)])?.pop().flatten())
    }

    /// The same for many places, from where and up to where.
    fn copies(
        &self,
        file: &Path,
        places: &[(u64, u64)],
    ) -> Result<Vec<Option<PathBuf>>, CheckError> {
        let from = match self.disk.open(file, Open::Read) {
            Ok(from) => from,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(vec![None; places.len()]);
            }
            Err(error) => return Err(unusable(file)(error)),
        };
        let len = from.len().map_err(unusable(file))?;
        let (mut kept, mut unsynced) = (Vec::new(), Vec::new());
        for (at, until) in places.iter().map(|(at, until)| (*at, len.min(*until))) {
            if at >= until {
                kept.push(None);
                continue;
            }
            if unsynced.is_empty() {
                self.prepare()?;
                // What fails from here on is told by a sync of all, too.
                self.disk.hold_dir(&self.folder).map_err(unusable(&self.folder))?;
            }
            let path = self.path(file, &format!(".{at}-{until}"));
            let copied = copy(self.disk, &*from, &path, (at, until)).map_err(unusable(&path))?;
            unsynced.push(copied);
            kept.push(Some(path));
        }
        if !unsynced.is_empty() {
            self.sync(&unsynced).map_err(unusable(&self.folder))?;
        }
        Ok(kept)
    }

    /// Makes new files of the quarantine durable.
    fn sync(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        let all = if files.len() > SYNCED_APART_MAX {
            self.disk.sync_all(&self.folder)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        };
        match all {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                files.iter().try_for_each(|file| file.sync())?;
                self.disk.sync_dir(&self.folder)
            }
            all => all,
        }
    }
}

/// Copies bytes of a file to another one, which need not be there yet.
fn copy(
    disk: &dyn Disk,
    from: &dyn File,
    path: &Path,
    (at, until): (u64, u64),
) -> io::Result<Arc<dyn File>> {
    let to = disk.open(path, Open::Create)?;
    to.truncate(0)?;
    let want = |left: u64| usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
    let mut block = vec![0; want(until - at)];
    let mut done = at;
    while done < until {
        let want = want(until - done);
        let got = from.read_at(&mut block[..want], done)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(&block[..got], done - at)?;
        done += got as u64;
    }
    Ok(to)
}

struct Repair<'a> {
    layout: &'a Layout,
    aside: &'a Aside<'a>,
    /// Files that are written again when all in them is mended that can be where it is.
    again: BTreeMap<PathBuf, Rewrite>,
    done: Vec<Done>,
}

impl Repair<'_> {
    /// Mends what of a file is mended where it is. Of each round all copies are safe before anything is
    /// replaced.
    fn patch(&mut self, file: &Path, findings: &[&Finding]) -> Result<(), CheckError> {
        let patches: Vec<_> = findings.iter().filter_map(|found| Patch::of(&found.mend)).collect();
        for patches in patches.chunks(PATCHES_MAX) {
            let places: Vec<_> = patches.iter().map(|patch| (patch.at, patch.until)).collect();
            let kept = self.aside.copies(file, &places)?;
            let open = self.aside.disk.open(file, Open::Create).map_err(unusable(file))?;
            let mut written = patches.iter().map(|patch| patch.write(&*open));
            written.try_for_each(|written| written).map_err(unusable(file))?;
            open.sync().map_err(unusable(file))?;
            let folder = &self.layout.data;
            self.aside.disk.sync_dir(folder).map_err(unusable(folder))?;
            for (patch, kept) in patches.iter().zip(kept) {
                self.say(file, &patch.what, kept);
            }
        }
        Ok(())
    }

    /// Mends what is mended in another way.
    fn mend(&mut self, finding: &Finding) -> Result<(), CheckError> {
        let (disk, file) = (self.aside.disk, &finding.file);
        match &finding.mend {
            Mend::Nothing | Mend::Cannot | Mend::Blocked | Mend::Rebuild => {}
            // Patched already.
            Mend::LineEnd(_) | Mend::Lines { .. } => {}
            Mend::Rewrite(rewrite) => drop(self.again.insert(file.clone(), rewrite.clone())),
            Mend::SetAside => {
                let kept = self.aside.take(file)?;
                self.say(file, "moved to the quarantine; nothing is lost", Some(kept));
            }
            Mend::Identity(node) => {
                let kept = self.aside.copy(file, 0, u64::MAX)?;
                let path = self.layout.node();
                Node::new(*node, self.aside.now).write(disk, &path).map_err(unusable(&path))?;
                self.say(file, "written again; the time of creation is lost", kept);
            }
        }
        Ok(())
    }

    fn say(&mut self, file: &Path, what: &str, kept: Option<PathBuf>) {
        self.done.push(Done { file: file.to_owned(), what: what.to_owned(), kept });
    }
}

/// Bytes of a file that others take the place of.
struct Patch {
    at: u64,
    until: u64,
    /// Lines for lost messages; a line end, if there are none.
    lost: Option<Filling>,
    /// What is done.
    what: String,
}

impl Patch {
    /// `None` if nothing is mended where it is.
    fn of(mend: &Mend) -> Option<Patch> {
        match *mend {
            Mend::LineEnd(at) => {
                let what = format!("put the line end back at byte {at}; nothing is lost");
                Some(Patch { at, until: at + 1, lost: None, what })
            }
            Mend::Lines { at, until, may_grow, first, last } => {
                let needed = Filling::new(first, last, 0).bytes;
                let until = if may_grow { at.saturating_add(needed).max(until) } else { until };
                if at + needed > until {
                    // There is no room to say it, so nothing is touched.
                    return None;
                }
                let what = if first == last {
                    format!("message {first} is lost, and marked so at byte {at}")
                } else {
                    format!("messages {first} to {last} are lost, and marked so from byte {at}")
                };
                let lost = Some(Filling::new(first, last, until - at));
                Some(Patch { at, until, lost, what })
            }
            _ => None,
        }
    }

    fn write(&self, file: &dyn File) -> io::Result<()> {
        let Some(lost) = &self.lost else { return file.write_at(b"\n", self.at) };
        let mut to = self.at;
        lost.write(&mut |lines| {
            file.write_at(lines, to)?;
            to += lines.len() as u64;
            Ok(())
        })
    }
}

/// Lines for lost messages that fill a number of bytes exactly.
pub(super) struct Filling {
    first: Offset,
    last: Offset,
    /// Bytes that are needed at least.
    pub(super) bytes: u64,
    /// Blanks for each line, and for the last one besides.
    each: u64,
    rest: u64,
}

impl Filling {
    pub(super) fn new(first: Offset, last: Offset, room: u64) -> Self {
        let count = last.get() - first.get() + 1;
        // `{"lost":` and `}` and the line end, and the digits: all numbers of so many digits at once.
        let mut bytes = count.saturating_mul(10);
        let mut from = first.get();
        while from <= last.get() {
            let digits = from.to_string().len();
            let power = u32::try_from(digits).expect("twenty at most");
            let until =
                10u64.checked_pow(power).map_or(last.get(), |next| last.get().min(next - 1));
            bytes = bytes.saturating_add((until - from + 1).saturating_mul(digits as u64));
            from = until + 1;
        }
        let spare = room.saturating_sub(bytes);
        Self { first, last, bytes, each: spare / count, rest: spare % count }
    }

    pub(super) fn write(&self, put: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut block = Vec::new();
        let mut offset = self.first;
        while offset <= self.last {
            let more = if offset == self.last { self.rest } else { 0 };
            let padding = usize::try_from(self.each + more).map_err(io::Error::other)?;
            write_lost(&mut block, offset, padding);
            if block.len() >= BLOCK_BYTES || offset == self.last {
                put(&block)?;
                block.clear();
            }
            offset = offset.next();
        }
        Ok(())
    }
}
