//! The write-ahead log, written in order and then harmed.
//!
//! The bytes are a script: append records, sync, roll to new segments, free old ones, cut the
//! power; then write anything anywhere, with checksums mended where the script says so. The first
//! byte 255 means something else: the rest is the log's only file, as it is.
//!
//! * An examination changes nothing on disk, and gives a log or says what is wrong with it.
//! * What it gives has the records in order, without a gap, from the checkpoint on.
//! * When nothing but the power failed, everything that was synced is there.
//! * Recovery done again finds the same records in the same bytes, and a log that takes more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Script;
use crate::disk::sim::{Crash, SimDisk};
use crate::disk::{Disk, Open};
use crate::wal::{self, Entry, Examined, Identity, Lsn, Settings, Wal, WalError};

const DIR: &str = "/wal";
const SETTINGS: Settings = Settings { segment_bytes: 8192 };
const WE: Identity = Identity { node: 77, secret: 0x005e_c2e7 };

/// The files of a log do not grow over this, whatever the script says, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where records begin.
const RECORDS: usize = 4096;

/// Most records that a script appends.
const RECORDS_MAX: usize = 64;

pub(super) fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    match script.u8() {
        255 => raw(script.0),
        from => scripted(Lsn::new(u64::from(from >> 1)), from & 1 == 1, script),
    }
}

/// These bytes are the first segment.
fn raw(bytes: &[u8]) {
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).expect("the disk takes all");
    write(&disk, &segment_file(1), 0, bytes);
    recover(&disk, Lsn::ZERO, None);
}

fn segment_file(seq: u64) -> PathBuf {
    Path::new(DIR).join(format!("{seq:016}.wal"))
}

fn write(disk: &SimDisk, path: &Path, at: u64, bytes: &[u8]) {
    let file = disk.open(path, Open::Create).expect("the disk takes all");
    file.write_at(bytes, at).expect("the disk takes all");
}

type Records = BTreeMap<u64, (u32, u64, Vec<u8>)>;

fn scripted(from: Lsn, is_cut: bool, mut script: Script<'_>) {
    let mut disk = SimDisk::new();
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    disk.sync_dir(Path::new("/")).expect("the disk takes all");
    let mut wal = Wal::create(Arc::clone(&arc), Path::new(DIR), WE, SETTINGS).expect("a new log");
    disk.sync_dir(Path::new("/")).expect("the disk takes all");
    let written = write_log(&mut wal, from, &mut script);
    let (durable, seed) = (wal.durable(), script.u16());
    drop(wal);
    if is_cut {
        disk = disk.crash(Crash::Random { seed: u64::from(seed) });
    }
    let is_harmed = harm(&disk, &mut script);
    let from = from.min(durable);
    let promised = (!is_harmed).then_some((&written, durable));
    recover(&disk, from, promised);
}

/// The first part of the script: a log as the broker writes it.
fn write_log(wal: &mut Wal, from: Lsn, script: &mut Script<'_>) -> Records {
    let mut written = Records::new();
    let mut indexes = [0; 3];
    while written.len() < RECORDS_MAX {
        match script.u8() {
            0 => break,
            1 => drop(wal.sync().expect("the disk takes all")),
            2 => {
                if let Some(job) = wal.spare_job() {
                    job.run().expect("the disk takes all");
                }
            }
            3 => wal.free_through(from.min(wal.durable())),
            op => {
                let shard = u32::from(op % 3);
                // Some do not fit into the rest of a segment, and some not into any.
                let len = usize::from(script.u8()) << (op >> 6).min(6);
                let mut payload = script.take(usize::from(op & 15)).to_vec();
                payload.resize(len.max(payload.len()), op);
                let index = &mut indexes[shard as usize];
                *index += 1;
                let entry = Entry { shard, term: 1, index: *index, payload: &payload };
                let lsn = wal.append(&[entry]).expect("the disk takes all");
                written.insert(lsn.get(), (shard, *index, payload));
            }
        }
    }
    written
}

/// The second part: anything, anywhere. Says whether there was any.
fn harm(disk: &SimDisk, script: &mut Script<'_>) -> bool {
    let before = disk.files();
    for _ in 0..16 {
        if script.is_over() {
            break;
        }
        harm_once(disk, script);
    }
    // It is on the medium: a later power cut does not take it back.
    for path in disk.files().keys() {
        let file = disk.open(path, Open::Write).expect("it was listed");
        file.sync().expect("the disk takes all");
    }
    disk.sync_dir(Path::new(DIR)).expect("the disk takes all");
    disk.files() != before
}

fn harm_once(disk: &SimDisk, script: &mut Script<'_>) {
    let op = script.u8();
    let files = disk.files();
    let Some((path, bytes)) = files.iter().nth(script.place(files.len())) else { return };
    let mut bytes = bytes.clone();
    match op % 8 {
        0 if !bytes.is_empty() => {
            let at = script.place(bytes.len());
            bytes[at] ^= 1 << (script.u8() & 7);
        }
        1 => {
            let at = script.place(bytes.len());
            let count = script.u8();
            let new = script.take(usize::from(count));
            for (old, new) in bytes[at..].iter_mut().zip(new) {
                *old = *new;
            }
        }
        2 => {
            let (at, count) = (script.place(bytes.len()), script.place(bytes.len()));
            bytes[at..].iter_mut().take(count).for_each(|byte| *byte = 0);
        }
        3 => bytes.truncate(script.place(bytes.len())),
        4 => {
            let len = bytes.len() + script.place(9000);
            bytes.resize(len, script.u8());
        }
        // A field of a record or of the header gets another value, and the checksum is right.
        5 => set_field(&mut bytes, script),
        6 => {
            let name = segment_file(script.number().min(1 << 40));
            if script.u8() & 1 == 1 {
                disk.remove(path).expect("it was listed");
            }
            return rewrite(disk, &name, &bytes);
        }
        _ => return disk.remove(path).expect("it was listed"),
    }
    rewrite(disk, path, &bytes);
}

fn rewrite(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let len = (bytes.len() as u64).min(FILE_BYTES_MAX);
    let file = disk.open(path, Open::Create).expect("the disk takes all");
    file.truncate(0).expect("the disk takes all");
    let kept = usize::try_from(len).expect("it is small");
    file.write_at(&bytes[..kept], 0).expect("the disk takes all");
}

/// Where fields of eight bytes begin in a record: mark, number, durable, shard and kind, term, index.
const FIELDS: [usize; 6] = [8, 16, 24, 32, 40, 48];

fn set_field(bytes: &mut [u8], script: &mut Script<'_>) {
    let (place, field, value) = (script.u8(), script.u8(), script.number());
    let value = value.to_le_bytes();
    if place == 0 {
        let at = 8 + 8 * usize::from(field % 5);
        if bytes.len() >= 52 {
            bytes[at..at + 8].copy_from_slice(&value);
            let crc = crc32c::crc32c(&bytes[..48]);
            bytes[48..52].copy_from_slice(&crc.to_le_bytes());
        }
        return;
    }
    // The place is the number of the record in its file: lengths lead there.
    let mut at = RECORDS;
    for _ in 1..place {
        let Some(len) = length_at(bytes, at) else { return };
        at += (56 + len).next_multiple_of(8);
    }
    let Some(len) = length_at(bytes, at) else { return };
    let field = at + FIELDS[usize::from(field) % FIELDS.len()];
    bytes[field..field + 8].copy_from_slice(&value);
    let crc = crc32c::crc32c(&bytes[at + 8..at + 56 + len]);
    bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The length of the payload of the record at `at`, if all of it is there.
fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field: [u8; 4] = bytes.get(at..at + 4)?.try_into().expect("four bytes");
    let len = usize::try_from(u32::from_le_bytes(field)).expect("a usize has 32 bits");
    (at + 56 + len <= bytes.len()).then_some(len)
}

fn look(disk: &SimDisk, from: Lsn) -> Result<Examined, WalError> {
    wal::examine(Arc::new(disk.clone()), Path::new(DIR), SETTINGS, from)
}

fn replayed(examined: &Examined, from: Lsn) -> Records {
    let mut seen = Records::new();
    let mut next = from.next();
    let replay = examined.replay::<WalError>(&mut |record| {
        assert_eq!(record.lsn, next, "records come in order");
        next = next.next();
        seen.insert(record.lsn.get(), (record.shard, record.index, record.payload.to_vec()));
        Ok(())
    });
    replay.expect("what was examined can be read");
    assert_eq!(next.prev(), examined.last().max(from), "nothing is left out");
    seen
}

/// The records are the same; without their payloads, which no one could read.
fn assert_same(found: &Records, expected: &Records, why: &str) {
    let short = |records: &Records| -> Vec<_> {
        let short = |(lsn, (shard, index, payload)): (&u64, &(u32, u64, Vec<u8>))| {
            (*lsn, *shard, *index, crc32c::crc32c(payload))
        };
        records.iter().map(short).collect()
    };
    assert_eq!(short(found), short(expected), "{why}");
}

fn recover(disk: &SimDisk, from: Lsn, promised: Option<(&Records, Lsn)>) {
    let before = disk.files();
    let examined = look(disk, from);
    assert_eq!(disk.files(), before, "an examination changes nothing");
    let examined = match examined {
        Ok(examined) => examined,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return assert!(promised.is_none(), "only the power failed: {error}");
        }
    };
    let seen = replayed(&examined, from);
    if let Some((written, durable)) = promised {
        assert!(examined.last() >= durable, "what was synced is there");
        assert!(seen.iter().all(|(lsn, record)| written.get(lsn) == Some(record)));
    }
    drop(examined.finish().expect("the disk takes all"));
    let mended = disk.files();
    let again = look(disk, from).expect("what was mended is whole");
    assert_eq!(again.torn(), None, "nothing is left to be cut");
    assert_same(&replayed(&again, from), &seen, "done again it finds the same");
    let last = again.last();
    let mut wal = again.finish().expect("the disk takes all");
    assert_eq!(disk.files(), mended, "done again it changes nothing");
    goes_on(disk, &mut wal, from, last, seen);
}

/// The log takes another record, which survives a power cut with all the others.
fn goes_on(disk: &SimDisk, wal: &mut Wal, from: Lsn, last: Lsn, mut seen: Records) {
    // Numbers that no log ever comes to.
    let (shard, index) = (u32::MAX - 1, 1);
    if last.get() >= u64::MAX - 2 || seen.values().any(|record| record.0 == shard) {
        return;
    }
    let entry = Entry { shard, term: u64::MAX, index, payload: b"more" };
    let lsn = wal.append(&[entry]).expect("the disk takes all");
    wal.sync().expect("the disk takes all");
    seen.insert(lsn.get(), (shard, index, b"more".to_vec()));
    let disk = disk.crash(Crash::LoseUnsynced);
    let examined = look(&disk, from).expect("only the power failed");
    assert_same(&replayed(&examined, from), &seen, "it goes on where it ended");
}
