//! What can still be read of a log that is past using.

use std::path::Path;
use std::sync::Arc;

use super::files::Files;
use super::segment::HEADER_BYTES;
use super::{Lsn, Record, WalError};
use crate::disk::Disk;

/// Gives every whole record after `from` to `f`, in the order of the files, whatever is damaged or
/// missing between. What stands in the log may not be complete: only for a repair.
///
/// # Errors
/// What the disk says.
pub fn salvage(
    disk: Arc<dyn Disk>,
    dir: &Path,
    from: Lsn,
    f: &mut dyn FnMut(Record<'_>),
) -> Result<(), WalError> {
    let files = match Files::list(disk, dir) {
        Ok(files) => files,
        // Without one header that can be read no record can be told from anything else.
        Err(error) if error.is_damage() => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut last = from;
    for number in 0..files.segments.len() {
        let mut reader = files.reader(number)?;
        let mut at = HEADER_BYTES;
        while at < reader.len {
            let Some(found) = reader.record(at)? else {
                at += super::record::ALIGN as u64;
                continue;
            };
            at += found.size as u64;
            if found.lsn > last {
                last = found.lsn;
                let (lsn, entry) = (found.lsn, found.entry);
                let (shard, term, index) = (entry.shard, entry.term, entry.index);
                f(Record { lsn, shard, term, index, payload: entry.payload });
            }
        }
    }
    Ok(())
}
