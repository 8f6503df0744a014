//! The power goes at every change that a repair makes to the disk: what is quarantined is never
//! lost, and to repair again comes to where the first repair would have come.

use std::collections::BTreeSet;

use super::*;
use crate::disk::sim::Crash;

/// The example, whose bytes are durable, with bits flipped at these places: a part of the file's
/// name, and the byte.
fn harmed(places: &[(&str, usize)]) -> Files {
    let mut files = example();
    for (part, at) in places {
        let is_it = |(path, _): &(&PathBuf, &mut Vec<u8>)| path.to_str().unwrap().ends_with(part);
        let (path, bytes) = files.iter_mut().find(is_it).unwrap_or_else(|| panic!("no {part}"));
        bytes[*at] ^= 4;
        assert!(path.starts_with(DIR));
    }
    files
}

/// Checks and repairs at this time.
fn run(disk: &SimDisk, now: u64) -> Result<Vec<Done>, CheckError> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = check(&shared, Path::new(DIR), &mut |_, _| {})?;
    let seeds = Seeds { node: 70, secret: 80 };
    repair(&shared, Path::new(DIR), &report, Timestamp::from_micros(now), seeds)
}

/// What is in use, and the contents of what is quarantined: its names tell when that was.
fn divided(disk: &SimDisk) -> (Files, BTreeSet<Vec<u8>>) {
    let timeless = |(path, bytes): (PathBuf, Vec<u8>)| {
        let bytes = if path.extension().is_some_and(|end| end == "json") {
            without_times(&bytes)
        } else {
            bytes
        };
        (path, bytes)
    };
    let is_kept = |path: &Path| path.to_str().unwrap().contains("/quarantine/");
    let files = disk.files().into_iter().map(timeless);
    let (kept, used): (Files, Files) = files.partition(|(path, _)| is_kept(path));
    (used, kept.into_values().collect())
}

/// A checkpoint tells when it was made, and so does the identity. One that was harmed is as it is.
fn without_times(json: &[u8]) -> Vec<u8> {
    let Ok(text) = str::from_utf8(json) else { return json.to_vec() };
    let is_timeless = |word: &&str| {
        !["\"ts\":", "\"created\":", "\"crc\":"].iter().any(|key| word.starts_with(key))
    };
    text.split(',').filter(is_timeless).collect::<Vec<_>>().join(",").into_bytes()
}

fn repaired_at_every_crash(places: &[(&str, usize)]) {
    files_repaired_at_every_crash(&harmed(places), &format!("{places:?}"));
}

fn files_repaired_at_every_crash(files: &Files, places: &str) {
    let disk = || disk_of(files).crash(Crash::KeepAll);
    let undisturbed = disk();
    let before = undisturbed.changes();
    assert!(!run(&undisturbed, 9).unwrap().is_empty());
    let changes = undisturbed.changes() - before;
    let (used, kept) = divided(&undisturbed);
    assert_eq!(checked(&undisturbed).damages(), 0);
    for cut in 0..changes {
        let variants = [Crash::LoseUnsynced, Crash::KeepAll, Crash::Random { seed: cut }];
        let how = variants[usize::try_from(cut % 3).unwrap()];
        let place = format!("{places}, power cut at change {cut} of {changes}, {how:?}");
        let disk = disk();
        disk.cut_power_after(cut);
        run(&disk, 9).map(drop).unwrap_err();
        let disk = disk.crash(how);
        run(&disk, 10).unwrap_or_else(|error| panic!("{place}: {error}"));
        let (used_now, kept_now) = divided(&disk);
        for (path, bytes) in &used {
            let now = used_now.get(path).unwrap_or_else(|| panic!("{place}: no {path:?}"));
            let text = String::from_utf8_lossy(now);
            assert!(now == bytes, "{place}: {} is {text:.900}", path.display());
        }
        // With a whole checkpoint and its log in place, what lies beside is not damage.
        let beside: Vec<_> =
            used_now.iter().filter(|(path, _)| !used.contains_key(*path)).collect();
        let is_checkpoint = |path: &Path| path.to_str().unwrap().contains("/checkpoint/");
        assert!(beside.iter().all(|(path, _)| is_checkpoint(path)), "{place}: {beside:?}");
        let is_there = |bytes| kept_now.contains(bytes) || beside.iter().any(|(_, b)| *b == bytes);
        assert!(kept.iter().all(is_there), "{place}: something quarantined is lost");
        assert_eq!(checked(&disk).damages(), 0, "{place}");
        drop(start(&disk).unwrap_or_else(|error| panic!("{place}: {error}")));
    }
}

#[test]
fn a_repair_of_lines_and_a_checkpoint_can_be_cut_short_anywhere() {
    repaired_at_every_crash(&[("/a.log", 60), ("/b@00000000000000000001.log", 200)]);
    repaired_at_every_crash(&[("/b@00000000000000000001.log", 100), ("3.json", 40)]);
    let many = [60, 260, 460].map(|at| ("/b@00000000000000000001.log", at));
    repaired_at_every_crash(&many);
}

#[test]
fn a_file_that_is_written_again_is_there_as_it_was_or_whole() {
    for part in ["/a@00000000000000000010.log", "/b@00000000000000000001.log"] {
        let mut files = example();
        let (_, bytes) = files.iter_mut().find(|(path, _)| path.ends_with(&part[1..])).unwrap();
        let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        drop(bytes.drain(..second));
        files_repaired_at_every_crash(&files, part);
    }
}

#[test]
fn a_repair_of_the_log_can_be_cut_short_anywhere() {
    repaired_at_every_crash(&[("0000000000000001.wal", 4200)]);
}

#[test]
fn a_repair_without_checkpoints_and_identity_can_be_cut_short_anywhere() {
    repaired_at_every_crash(&[("2.json", 40), ("3.json", 40), ("node.json", 30)]);
}
