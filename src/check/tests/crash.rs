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

/// What is in use, and what is quarantined: the contents alone, names tell when it was.
fn divided(disk: &SimDisk) -> (Files, BTreeSet<Vec<u8>>) {
    let is_kept = |path: &Path| path.to_str().unwrap().contains("/quarantine/");
    let (kept, used): (Files, Files) = disk.files().into_iter().partition(|(p, _)| is_kept(p));
    (used, kept.into_values().collect())
}

/// A checkpoint tells when it was made, and so does the identity.
fn without_times(files: &Files) -> Files {
    let timeless = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        let mut bytes = bytes.clone();
        if path.extension().is_some_and(|end| end == "json") {
            let text = String::from_utf8(bytes).unwrap();
            let words = text.split(',').filter(|word| {
                !["\"ts\":", "\"created\":", "\"crc\":"].iter().any(|key| word.starts_with(key))
            });
            bytes = words.collect::<Vec<_>>().join(",").into_bytes();
        }
        (path.clone(), bytes)
    };
    files.iter().map(timeless).collect()
}

fn repaired_at_every_crash(places: &[(&str, usize)]) {
    let files = harmed(places);
    let disk = || disk_of(&files).crash(Crash::KeepAll);
    let undisturbed = disk();
    let before = undisturbed.changes();
    assert!(!run(&undisturbed, 9).unwrap().is_empty());
    let changes = undisturbed.changes() - before;
    let (used, kept) = divided(&undisturbed);
    assert_eq!(checked(&undisturbed).damages(), 0);
    for cut in 0..changes {
        let variants = [Crash::LoseUnsynced, Crash::KeepAll, Crash::Random { seed: cut }];
        let how = variants[usize::try_from(cut % 3).unwrap()];
        let place = format!("{places:?}, power cut at change {cut} of {changes}, {how:?}");
        let disk = disk();
        disk.cut_power_after(cut);
        run(&disk, 9).map(drop).unwrap_err();
        let disk = disk.crash(how);
        run(&disk, 10).unwrap_or_else(|error| panic!("{place}: {error}"));
        let (used_now, kept_now) = divided(&disk);
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&used_now), names(&used), "{place}");
        for (path, bytes) in without_times(&used) {
            let now = &without_times(&used_now)[&path];
            let text = String::from_utf8_lossy(now);
            assert!(*now == bytes, "{place}: {} is {:.900}", path.display(), text);
        }
        assert!(kept.is_subset(&kept_now), "{place}: something quarantined is lost");
        assert_eq!(checked(&disk).damages(), 0, "{place}");
        drop(start(&disk).unwrap_or_else(|error| panic!("{place}: {error}")));
    }
}

#[test]
fn a_repair_of_lines_and_a_checkpoint_can_be_cut_short_anywhere() {
    repaired_at_every_crash(&[("/a.log", 60), ("/b@00000000000000000001.log", 200)]);
    repaired_at_every_crash(&[("/b@00000000000000000001.log", 100), ("3.json", 40)]);
}

#[test]
fn a_repair_of_the_log_can_be_cut_short_anywhere() {
    repaired_at_every_crash(&[("0000000000000001.wal", 4200)]);
}

#[test]
fn a_repair_without_checkpoints_and_identity_can_be_cut_short_anywhere() {
    repaired_at_every_crash(&[("2.json", 40), ("3.json", 40), ("node.json", 30)]);
}
