//! How much of a topic is kept, and which of its segments go when it is too much or too old.
//!
//! Whole segments go, the oldest first, and never the one that is written. Which ones is planned here, from
//! what there is in the files; that they may go is for who knows the topic's groups, and what becomes of
//! them stands in [`TopicLog::trim`](super::TopicLog::trim).

use std::time::Duration;

use crate::disk::Disk;
use crate::ids::Offset;
use crate::planted::{self, Bug};
use crate::time::Timestamp;

use super::recover::last_line;
use super::shared::{LogShared, Segment};
use super::{LogError, parse_line};

/// How much is read at once to look at the first line of a segment.
const LOOK_BYTES: usize = 4 << 10;

/// How much of a topic is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// A segment goes when all of its messages are older than this, and the one that is written ends when
    /// its first message is.
    pub age: Option<Duration>,
    /// Segments go until no more than this is left, in bytes.
    pub bytes: Option<u64>,
}

/// What is to be done for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetentionPlan {
    /// The message that the topic is to begin with.
    pub first: Offset,
    /// A segment that should go stays, since some of its messages are still needed.
    pub is_held: bool,
    /// The active segment should end.
    pub seals: bool,
}

/// What was found out about a topic's segments, for the next time: neither changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ages {
    /// When the newest message of this sealed segment was published.
    ended: Option<(Offset, Timestamp)>,
    /// When the first message of this active segment was.
    begun: Option<(Offset, Timestamp)>,
}

impl Retention {
    /// Whether everything is kept.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// What has to be done at `now` for this topic, whose messages from `needed` on must stay.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn plan(
        &self,
        log: &LogShared,
        disk: &dyn Disk,
        ages: &mut Ages,
        now: Timestamp,
        needed: Offset,
    ) -> Result<RetentionPlan, LogError> {
        let segments = log.segments();
        let active = *segments.last().expect("there is always an active one");
        let mut left: u64 = segments.iter().map(|segment| segment.len).sum();
        let mut plan = RetentionPlan { first: active.first, is_held: false, seals: false };
        for pair in segments.windows(2) {
            let more = if planted::has(Bug::TrimmedTooMuch) { pair[0].len } else { 0 };
            let is_too_much = self.bytes.is_some_and(|max| left + more > max);
            let goes = is_too_much || self.is_old(now, || ended(log, disk, ages, pair))?;
            plan.is_held = goes && pair[1].first > needed;
            if !goes || plan.is_held {
                plan.first = pair[0].first;
                break;
            }
            left -= pair[0].len;
        }
        plan.seals = active.len > 0 && self.is_old(now, || begun(log, disk, ages, active))?;
        Ok(plan)
    }

    /// Whether what happened then is long ago. What can't be told is not.
    fn is_old(
        &self,
        now: Timestamp,
        then: impl FnOnce() -> Result<Option<Timestamp>, LogError>,
    ) -> Result<bool, LogError> {
        let Some(age) = self.age else { return Ok(false) };
        Ok(then()?.is_some_and(|then| then.plus(age) < now))
    }
}

/// When the first of two segments got its last message; if that line is damaged, when the second one got
/// its first.
fn ended(
    log: &LogShared,
    disk: &dyn Disk,
    ages: &mut Ages,
    pair: &[Segment],
) -> Result<Option<Timestamp>, LogError> {
    let first = pair[0].first;
    if let Some((_, ts)) = ages.ended.filter(|(of, _)| *of == first) {
        return Ok(Some(ts));
    }
    let lines = log.open(disk, first, 0, LOOK_BYTES)?;
    let io = |source| LogError::io(&lines.path, source);
    let len = lines.file.len().map_err(io)?;
    let (_, line) = last_line(lines.file.as_ref(), len).map_err(io)?;
    let ts = match parse_line(log.topic(), line.strip_suffix(b"\n").unwrap_or(&line)) {
        Ok(record) => Some(record.ts()),
        Err(_) => first_time(log, disk, pair[1])?,
    };
    ages.ended = ts.map(|ts| (first, ts));
    Ok(ts)
}

/// When the active segment got its first message.
fn begun(
    log: &LogShared,
    disk: &dyn Disk,
    ages: &mut Ages,
    active: Segment,
) -> Result<Option<Timestamp>, LogError> {
    if let Some((_, ts)) = ages.begun.filter(|(of, _)| *of == active.first) {
        return Ok(Some(ts));
    }
    let ts = first_time(log, disk, active)?;
    ages.begun = ts.map(|ts| (active.first, ts));
    Ok(ts)
}

/// When the first good message of a segment was published.
fn first_time(
    log: &LogShared,
    disk: &dyn Disk,
    segment: Segment,
) -> Result<Option<Timestamp>, LogError> {
    let mut lines = log.open(disk, segment.first, 0, LOOK_BYTES)?;
    while let Some(line) = lines.next(segment.len)? {
        if let Ok(record) = parse_line(log.topic(), line.bytes) {
            return Ok(Some(record.ts()));
        }
    }
    Ok(None)
}
