//! A topic's file, written again, since its lines are not where they were: the messages that are in it, in
//! order, and for each that is missing a line that says so. If a checkpoint knows how long it is, those
//! are as much longer as it takes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::repair::{Aside, Done, Filling};
use super::seen::{Seen, look};
use super::{CheckError, unusable};
use crate::disk::{File, Open, Replacement};
use crate::ids::{Offset, TopicName};
use crate::log::Lines;

/// Bytes are read so many at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// What a file is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewrite {
    /// Whose it is.
    pub topic: TopicName,
    /// The first message.
    pub first: Offset,
    /// The last.
    pub last: Offset,
    /// How long the lines of these are, if a checkpoint knows that and there is a way.
    pub len: Option<u64>,
    /// Whether what stands behind them stays, as it is.
    pub keeps_rest: bool,
}

/// What comes next in the new file.
enum Piece<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// Messages that are missing.
    Lost(Offset, Offset),
}

type Put<'a> = &'a mut dyn FnMut(Piece<'_>) -> io::Result<()>;

/// What the new file has.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// Bytes of lines that are there.
    kept: u64,
    /// Bytes that lines of lost messages need at least.
    needed: u64,
    /// Messages that are lost.
    lost: u64,
}

impl Sums {
    /// How much there is for lines of lost messages beyond what they need, if they can fill up `len`.
    fn spare(&self, len: u64) -> Option<u64> {
        let spare = len.checked_sub(self.kept.checked_add(self.needed)?)?;
        (spare == 0 || self.lost > 0).then_some(spare)
    }
}

impl Rewrite {
    /// Whether the lines can be made as long as this.
    pub(super) fn fits(
        &self,
        file: &Arc<dyn File>,
        path: &Path,
        len: u64,
    ) -> Result<bool, CheckError> {
        Ok(self.sums(file, path)?.0.spare(len).is_some())
    }

    /// Writes the file again; the old one is kept.
    pub(super) fn run(&self, aside: &Aside<'_>, path: &Path) -> Result<Done, CheckError> {
        let file = aside.disk.open(path, Open::Read).map_err(unusable(path))?;
        let (sums, rest) = self.sums(&file, path)?;
        let mut spare = self.len.and_then(|len| sums.spare(len)).unwrap_or_default();
        let kept = aside.copy(path, 0, u64::MAX)?;
        let mut new = Replacement::begin(aside.disk, path).map_err(unusable(path))?;
        let mut left = sums.lost;
        self.pieces(&file, path, &mut |piece| match piece {
            Piece::Line(line) => new.write(line).and_then(|()| new.write(b"\n")),
            Piece::Lost(first, last) => {
                let mut filling = Filling::new(first, last, 0);
                let count = last.get() - first.get() + 1;
                // The last of all have what can't be shared out.
                let share = if count == left { spare } else { spare / left * count };
                (left, spare) = (left - count, spare - share);
                filling = Filling::new(first, last, filling.bytes + share);
                filling.write(&mut |lines| new.write(lines))
            }
        })?;
        let mut put = |bytes: &[u8]| new.write(bytes);
        let copied = if self.keeps_rest { copy(&*file, rest, &mut put) } else { Ok(()) };
        copied.and_then(|()| new.finish()).map_err(unusable(path))?;
        let what = match sums.lost {
            0 => "written again; nothing is lost".to_owned(),
            1 => "written again; one message is lost, and marked so".to_owned(),
            lost => format!("written again; {lost} messages are lost, and marked so"),
        };
        Ok(Done { file: path.to_owned(), what, kept })
    }

    /// What the new file will have, and where in the old one the rest begins.
    fn sums(&self, file: &Arc<dyn File>, path: &Path) -> Result<(Sums, u64), CheckError> {
        let mut sums = Sums::default();
        let rest = self.pieces(file, path, &mut |piece| {
            match piece {
                Piece::Line(line) => sums.kept += line.len() as u64 + 1,
                Piece::Lost(first, last) => {
                    sums.needed = sums.needed.saturating_add(Filling::new(first, last, 0).bytes);
                    sums.lost += last.get() - first.get() + 1;
                }
            }
            Ok(())
        })?;
        Ok((sums, rest))
    }

    /// Goes through what the old file has of these messages. Gives where the rest begins.
    fn pieces(&self, file: &Arc<dyn File>, path: &Path, put: Put<'_>) -> Result<u64, CheckError> {
        let len = file.len().map_err(unusable(path))?;
        let mut lines = Lines::new(Arc::clone(file), path, 0, BLOCK_BYTES);
        // `from`: nothing was put in the place of these yet.
        let (mut from, mut next, mut in_bad) = (self.first, self.first, 0);
        let mut rest = 0;
        while next <= self.last
            && let Some(raw) = lines.next(len)?
        {
            let behind = raw.at + raw.bytes.len() as u64 + u64::from(raw.is_whole);
            match look(&self.topic, &raw, (next, in_bad), (file, path))? {
                Seen::Good(offset, _) | Seen::Lost(offset) if offset > self.last => break,
                Seen::Good(offset, _) if raw.is_whole => {
                    if from < offset {
                        put(Piece::Lost(from, offset.prev())).map_err(unusable(path))?;
                    }
                    put(Piece::Line(raw.bytes)).map_err(unusable(path))?;
                    (from, next, in_bad) = (offset.next(), offset.next(), 0);
                }
                // It may get another length.
                Seen::Lost(offset) if raw.is_whole => (next, in_bad) = (offset.next(), 0),
                _ => in_bad += 1,
            }
            rest = behind;
        }
        if from <= self.last {
            put(Piece::Lost(from, self.last)).map_err(unusable(path))?;
        }
        Ok(rest)
    }
}

/// Copies a file from `at` on.
fn copy(
    file: &dyn File,
    mut at: u64,
    put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let got = file.read_at(&mut block, at)?;
        if got == 0 {
            return Ok(());
        }
        put(&block[..got])?;
        at += got as u64;
    }
}
