//! Rolls, spares, recycling, and a disk that is full or fails.

use super::*;
use crate::disk::Space;
use crate::disk::sim::{Failure, Fault, Op};

fn run_jobs(wal: &mut Wal) {
    while let Some(job) = wal.spare_job() {
        job.run().unwrap();
    }
}

fn names(disk: &SimDisk) -> Vec<u64> {
    let name = |path: &PathBuf| segment::seq_of(path.file_name()?.to_str()?);
    disk.files().keys().filter_map(name).collect()
}

#[test]
fn a_roll_into_a_spare_touches_no_names() {
    let disk = new_disk();
    let mut wal = create(&disk);
    assert!(wal.needs_spare());
    let job = wal.spare_job().unwrap();
    assert!(!wal.needs_spare() && wal.spare_job().is_none(), "one at a time");
    job.run().unwrap();
    assert!(!wal.needs_spare() && wal.spare_job().is_none(), "one is enough");
    let before = [Op::SyncDir, Op::Rename, Op::Create].map(|op| disk.count(op));
    append(&mut wal, &[&[1; 3000], &[2; 3000]]).unwrap();
    assert_eq!(before, [Op::SyncDir, Op::Rename, Op::Create].map(|op| disk.count(op)));
    assert!(wal.needs_spare());
    append(&mut wal, &[&[3; 3000]]).unwrap();
    assert_eq!(names(&disk), [1, 2, 3], "a roll without a spare makes its own");
}

/// The log may need the segment soon: a quarter of the active one is full.
#[test]
fn a_job_pauses_until_the_log_needs_its_segment() {
    let settings = Settings { segment_bytes: 4 << 20 };
    let mut wal = Wal::create(arc(&new_disk()), Path::new(DIR), WE, settings).unwrap();
    let mut pauses = 0;
    wal.spare_job().unwrap().run_pausing(&mut || pauses += 1).unwrap();
    assert_eq!(pauses, 8, "after every half mebibyte");
    append(&mut wal, &[&vec![1; 3 << 20], &vec![2; 2 << 20]]).unwrap();
    let (mut pauses, mut writer) = (0, wal);
    let job = writer.spare_job().unwrap();
    job.run_pausing(&mut || {
        pauses += 1;
        if pauses == 3 {
            append(&mut writer, &[&[3]]).unwrap();
        }
    })
    .unwrap();
    assert_eq!(pauses, 3);
}

#[test]
fn a_spare_can_be_made_in_another_thread() {
    let disk = new_disk();
    let mut wal = create(&disk);
    for n in 0..50 {
        let job = wal.spare_job();
        let thread = std::thread::spawn(move || job.map(SpareJob::run).transpose());
        append(&mut wal, &[&[n; 3000]]).unwrap();
        thread.join().unwrap().unwrap();
    }
    wal.sync().unwrap();
    assert_eq!(finish(&disk.crash(Crash::LoseUnsynced), 0).0.len(), 50);
}

#[test]
fn a_roll_does_not_wait_for_a_job_and_the_job_gives_way() {
    let disk = new_disk();
    let mut wal = create(&disk);
    let slow = wal.spare_job().unwrap();
    append(&mut wal, &[&[1; 3000], &[2; 3000]]).unwrap();
    wal.sync().unwrap();
    let in_use = disk.files();
    slow.run().unwrap();
    assert!(in_use == disk.files(), "the segment in use is not replaced by the late one");
    run_jobs(&mut wal);
    assert_eq!(names(&disk), [1, 2, 3]);
}

#[test]
fn a_job_that_is_dropped_or_fails_is_offered_again() {
    let disk = new_disk();
    let mut wal = create(&disk);
    drop(wal.spare_job().unwrap());
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename] {
        disk.fail_next(op, 1, Failure::Io);
        assert!(matches!(wal.spare_job().unwrap().run(), Err(WalError::Io { .. })), "{op:?}");
        append(&mut wal, &[b"goes on"]).unwrap();
    }
    run_jobs(&mut wal);
    assert_eq!(names(&disk), [1, 2]);
    append(&mut wal, &[&[1; 3000], &[2; 3000]]).unwrap();
    assert_eq!(names(&disk), [1, 2]);
}

#[test]
fn a_folder_that_cannot_be_synced_poisons_the_log() {
    let disk = new_disk();
    let mut wal = create(&disk);
    disk.fail_next(Op::SyncDir, 1, Failure::Io);
    assert!(wal.spare_job().unwrap().run().is_err());
    assert!(!wal.needs_spare());
    assert!(matches!(append(&mut wal, &[&[1; 9000]]), Err(WalError::Io { .. })));
    assert!(wal.sync().is_err() && wal.spare_job().is_none());
}

#[test]
fn a_recycled_segment_s_old_records_are_not_taken_for_new() {
    let disk = new_disk();
    let mut wal = create(&disk);
    // Same sizes in every life: each new record ends where a stale one begins.
    for life in 0..20u8 {
        for _ in 0..8 {
            append(&mut wal, &[&[life; 900]]).unwrap();
            wal.sync().unwrap();
        }
        let durable = wal.durable();
        wal.free_through(durable);
        run_jobs(&mut wal);
        let examined = look(&disk, durable.get() - 2).unwrap();
        assert_eq!((examined.last(), examined.torn()), (durable, None));
        assert_eq!(replayed(&examined).len(), 2);
    }
    assert!(names(&disk).len() <= 6, "recycled and removed, not piled up: {:?}", names(&disk));
    assert!(disk.count(Op::Create) < 10, "recycled, not made anew");
    let recycled = disk.files()[&segment_file(*names(&disk).last().unwrap())].clone();
    assert!(recycled[4096..].iter().any(|byte| *byte != 0), "it still holds its old records");
    drop(wal);
    let disk = disk.crash(Crash::LoseUnsynced);
    let (_, mut wal) = finish(&disk, 160);
    append(&mut wal, &[&[99; 900]]).unwrap();
    wal.sync().unwrap();
    let (seen, _) = finish(&disk.crash(Crash::LoseUnsynced), 160);
    assert_eq!(seen, [(161, vec![99; 900])]);
}

#[test]
fn a_torn_tail_in_a_recycled_segment_is_cut_and_its_stale_bytes_are_left() {
    let disk = new_disk();
    let mut wal = create(&disk);
    for _ in 0..20 {
        append(&mut wal, &[&[1; 900]]).unwrap();
        wal.sync().unwrap();
    }
    wal.free_through(Lsn::new(20));
    run_jobs(&mut wal);
    append(&mut wal, &[&[2; 900], &[2; 900], &[2; 900], &[2; 900], &[2; 900]]).unwrap();
    let last = *names(&disk).last().unwrap();
    let disk = disk.crash(Crash::KeepAll);
    disk.flip_bit(&segment_file(last), 4096 + 500, 0).unwrap();
    let examined = look(&disk, 20).unwrap();
    let torn = examined.torn().unwrap().clone();
    assert_eq!((torn.file, torn.at, torn.records), (segment_file(last), 4096, 0));
    assert_eq!(torn.bytes, 960);
    examined.finish().unwrap();
    let bytes = &disk.files()[&segment_file(last)];
    assert!(bytes[4096..4096 + 960].iter().all(|byte| *byte == 0));
    assert!(bytes[4096 + 960..].iter().any(|byte| *byte != 0), "stale records do no harm");
}

#[test]
fn a_full_disk_is_said_so_and_changes_nothing() {
    let disk = new_disk();
    let mut wal = create(&disk);
    append(&mut wal, &[&[1; 3000]]).unwrap();
    let full = Space { free: 8191, total: 1 << 30 };
    disk.set_space(full);
    let before = disk.files();
    assert!(matches!(wal.spare_job().unwrap().run(), Err(WalError::Shortage { .. })));
    let error = append(&mut wal, &[b"fits", &[2; 3000]]).unwrap_err();
    assert!(matches!(error, WalError::Shortage { bytes: 8192, .. }), "{error}");
    assert!(before == disk.files() && wal.last() == Lsn::new(1), "all or nothing");
    append(&mut wal, &[b"fits"]).unwrap();
    wal.sync().unwrap();
    wal.free_through(Lsn::new(2));

    disk.set_space(Space { free: 1 << 30, total: 1 << 30 });
    for failing in [Op::Create, Op::Write, Op::Sync, Op::Rename] {
        disk.fail_next(failing, 1, Failure::NoSpace);
        let error = append(&mut wal, &[&[2; 3000]]).unwrap_err();
        assert!(matches!(error, WalError::Shortage { .. }), "{failing:?}: {error}");
        assert_eq!(
            disk.files().len(),
            1,
            "{failing:?}: nothing half made is left to fill the disk"
        );
    }
    append(&mut wal, &[&[2; 3000]]).unwrap();
    wal.sync().unwrap();
    assert_eq!(finish(&disk.crash(Crash::LoseUnsynced), 0).0.len(), 3);
}

#[test]
fn a_full_disk_in_the_middle_of_a_long_append_leaves_the_segments_as_spares() {
    let disk = new_disk();
    let mut wal = create(&disk);
    disk.fail_next(Op::Rename, 3, Failure::NoSpace);
    let long: [&[u8]; 6] = [&[1; 3000]; 6];
    assert!(matches!(append(&mut wal, &long), Err(WalError::Shortage { .. })));
    assert_eq!((wal.last(), names(&disk)), (Lsn::ZERO, vec![1, 2, 3]));
    append(&mut wal, &long).unwrap();
    wal.sync().unwrap();
    assert_eq!(names(&disk), [1, 2, 3, 4, 5, 6]);
    assert_eq!(disk.count(Op::Create), 7, "six segments, and the one that failed");
    assert_eq!(finish(&disk.crash(Crash::LoseUnsynced), 0).0.len(), 6);
}

#[test]
fn after_a_failed_sync_or_write_every_call_gives_the_same_error() {
    for op in [Op::Sync, Op::Write] {
        let disk = new_disk();
        let mut wal = create(&disk);
        append(&mut wal, &[b"a"]).unwrap();
        wal.sync().unwrap();
        disk.fail_next(op, 1, Failure::Short { written: 30 });
        let first = append(&mut wal, &[b"b"]).and_then(|_| wal.sync()).unwrap_err();
        for again in [append(&mut wal, &[b"c"]), wal.sync(), append(&mut wal, &[])] {
            assert_eq!(again.unwrap_err().to_string(), first.to_string());
        }
        assert!(wal.spare_job().is_none() && !wal.needs_spare());
        assert_eq!(wal.durable(), Lsn::new(1));
        assert!(look(&disk.crash(Crash::LoseUnsynced), 0).unwrap().last() == Lsn::new(1));
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_no_damage() {
    let disk = new_disk();
    drop(create(&disk));
    for op in [Op::List, Op::Open, Op::Read] {
        disk.fail_next(op, 1, Failure::Io);
        assert!(matches!(look(&disk, 0), Err(WalError::Io { .. })));
    }
}

/// A log that found all descriptors taken when it needed a segment was once given up.
#[test]
fn a_log_without_a_descriptor_for_its_next_segment_waits_for_one() {
    for is_recycling in [false, true] {
        let disk = new_disk();
        let mut wal = create(&disk);
        if is_recycling {
            append(&mut wal, &[&[1; 3000], &[1; 3000]]).unwrap();
            wal.sync().unwrap();
            wal.free_through(Lsn::new(1));
        }
        let (last, files) = (wal.last(), disk.files().len());
        let op = Some(if is_recycling { Op::Open } else { Op::Create });
        let path_has = String::new();
        disk.fail(Fault { op, path_has, skip: 0, times: 1, failure: Failure::NoDescriptor });
        let long: [&[u8]; 3] = [&[2; 3000]; 3];
        let error = append(&mut wal, &long).unwrap_err();
        assert!(error.is_shortage() && !error.is_no_space(), "{error}");
        assert!(error.to_string().contains("oo many open files"), "{error}");
        assert!(wal.last() == last && disk.files().len() <= files, "all or nothing");
        let op = Some(Op::Create);
        let path_has = String::new();
        disk.fail(Fault { op, path_has, skip: 0, times: 1, failure: Failure::NoDescriptor });
        let error = wal.spare_job().unwrap().run().unwrap_err();
        assert!(error.is_shortage() && !error.is_no_space(), "{error}");
        append(&mut wal, &long).unwrap();
        wal.sync().unwrap();
        let covered = last.get() / 2;
        let expected = usize::try_from(last.get() - covered).unwrap() + long.len();
        assert_eq!(finish(&disk.crash(Crash::LoseUnsynced), covered).0.len(), expected);
    }
}
