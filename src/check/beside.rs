//! Checking while a broker goes on: files grow, get other names and go away while they are read, so
//! what looks wrong may only be new.
//!
//! * What a look finds is told if the next look finds it in the same place.
//! * A second look at a topic is in an order in which no broker's own work looks like damage: first the
//!   checkpoint, so that there is no less in the files than it vouches for; then the active segment is
//!   opened, which stays what it is when it is sealed; then the folder is listed, so that a sealed
//!   segment that is not there is one that begins behind.
//! * Not looked at: what is written after that, and the ends of the write-ahead log and of active
//!   segments if they are being written.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::logs::{self, Look, Meter};
use super::state::{self, State};
use super::{CheckError, Finding, Kind, Level, Report, unusable};
use crate::broker::layout::Layout;
use crate::disk::{Disk, Open, is_no_file};
use crate::ids::TopicName;
use crate::log::{self, Paths, SegmentFile};

/// After so many looks, what the last two found both is told.
const LOOKS_MAX: usize = 5;

/// So often a look may be cut short because a file was not there any more.
const GONE_MAX: usize = 20;

/// The identity, the checkpoints and the write-ahead log.
pub(super) fn state(disk: &Arc<dyn Disk>, layout: &Layout) -> Result<(State, Report), CheckError> {
    settled(|_| {
        let mut report = Report::default();
        let state = state::verify(disk, layout, true, &mut report)?;
        Ok((state, report))
    })
}

/// A topic, whose files were listed a while ago.
pub(super) fn topic(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    state: &State,
    (name, files): (&TopicName, &[SegmentFile]),
    meter: &mut Meter<'_>,
) -> Result<Report, CheckError> {
    let ((), report) = settled(|number| {
        let disk_ref = disk.as_ref();
        if number == 0 {
            let beside = Some(None);
            let look = Look { disk: disk_ref, layout, state, name, files, beside };
            return Ok(((), logs::topic(look, meter)?));
        }
        let (state, _) = self::state(disk, layout)?;
        let path = Paths { dir: layout.data.clone(), topic: name.clone() }.active();
        let active = match disk.open(&path, Open::Read) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_file(&error) => None,
            Err(error) => return Err(unusable(&path)(error)),
        };
        let mut files = log::scan(disk_ref, &layout.data)?.topics.remove(name).unwrap_or_default();
        // What has the name now may be another.
        let listed = files.pop_if(|file| file.first.is_none());
        if let (Some(active), Some(mut file)) = (&active, listed) {
            file.len = active.len().map_err(unusable(&path))?;
            files.push(file);
        }
        let beside = Some(active);
        let look = Look { disk: disk_ref, layout, state: &state, name, files: &files, beside };
        Ok(((), logs::topic(look, meter)?))
    })?;
    Ok(report)
}

/// Looks until nothing is found, or nothing but what was found before.
fn settled<T>(
    mut look: impl FnMut(usize) -> Result<(T, Report), CheckError>,
) -> Result<(T, Report), CheckError> {
    let mut before: Option<Report> = None;
    let (mut looks, mut gone) = (0, 0);
    loop {
        let (value, mut report) = match look(looks + gone) {
            Err(error) if error.is_gone() && gone < GONE_MAX => {
                gone += 1;
                continue;
            }
            looked => looked?,
        };
        looks += 1;
        if !report.findings.iter().any(is_doubtful) {
            return Ok((value, report));
        }
        if let Some(before) = &before {
            let known: HashSet<_> = before.findings.iter().map(place).collect();
            let is_again = |finding: &Finding| known.contains(&place(finding));
            let is_settled = report.findings.iter().all(|f| !is_doubtful(f) || is_again(f));
            if is_settled || looks >= LOOKS_MAX {
                report.findings.retain(|finding| !is_doubtful(finding) || is_again(finding));
                return Ok((value, report));
            }
        }
        before = Some(report);
    }
}

/// Whether a broker's own work may look so.
fn is_doubtful(finding: &Finding) -> bool {
    finding.kind != Kind::Lost
}

fn place(finding: &Finding) -> (Level, Kind, &Path, Option<u64>) {
    (finding.level, finding.kind, &finding.file, finding.byte)
}
