//! Files whose lines are not where they were: some are gone, some came to them, some were edited. That
//! costs the messages that are gone at most, and a repair comes to a directory that starts.

use super::*;

/// Every line of a file, and what is done to them.
type Edit = fn(&mut Vec<Vec<u8>>, usize);

/// What an editor or `sed -i` makes of a line, and how many messages that costs at most.
const EDITS: [(&str, u64, Edit); 8] = [
    ("removed", 1, |lines, n| drop(lines.remove(n))),
    ("removed with the next", 2, |lines, n| drop(lines.drain(n..lines.len().min(n + 2)))),
    ("doubled", 0, |lines, n| lines.insert(n, lines[n].clone())),
    ("behind a foreign one", 0, |lines, n| lines.insert(n, b"not a message\n".to_vec())),
    ("longer", 1, |lines, n| lines[n].splice(40..40, *b"more").for_each(drop)),
    ("shorter", 1, |lines, n| drop(lines[n].drain(40..44))),
    ("hardly there", 1, |lines, n| lines[n] = b"-\n".to_vec()),
    ("in the place of the one before", 0, |lines, n| lines.swap(n, n.saturating_sub(1))),
];

fn edited(bytes: &[u8], n: usize, edit: Edit) -> Vec<u8> {
    let mut lines: Vec<_> =
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    edit(&mut lines, n);
    lines.concat()
}

/// Checks and repairs files with this file edited. What was there before is there, but for so many.
fn mended(files: &Files, path: &Path, bytes: Vec<u8>, cost: u64, place: &str) {
    let (before, _) = messages(&disk_of(files));
    let mut harmed = files.clone();
    harmed.insert(path.to_owned(), bytes);
    let disk = disk_of(&harmed);
    let report = checked(&disk);
    let refused = start(&disk_of(&harmed)).is_err_and(|error| error.is_damage());
    assert!(!refused || report.damages() > 0, "{place}: the start refuses it");
    repaired(&disk, &report);
    let after = checked(&disk);
    assert_eq!(after.damages(), 0, "{place}: {} after {}", tell(&after), tell(&report));
    // What is mended in its place first is kept by itself.
    let is_once = |found: &Finding| matches!(found.mend, Mend::Rewrite(_) | Mend::Nothing);
    let is_again = report.damages() > 0 && report.findings.iter().all(is_once);
    let is_kept = |(_, bytes): (&PathBuf, &Vec<u8>)| *bytes == harmed[path];
    assert!(!is_again || disk.files().iter().any(is_kept), "{place}: all of it is kept");
    drop(start(&disk).unwrap_or_else(|error| panic!("{place}: {error}")));
    let (there, lost) = messages(&disk);
    assert!(lost <= cost, "{place}: {lost} lost; {}", tell(&report));
    assert_eq!(there.len() as u64 + lost, before.len() as u64, "{place}; {}", tell(&report));
    assert!(there.iter().all(|(key, message)| before.get(key) == Some(message)), "{place}");
}

#[test]
fn lines_that_are_not_where_they_were_cost_what_is_gone_at_most() {
    let files = example();
    for (path, bytes) in
        files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log"))
    {
        let count = bytes.split(|byte| *byte == b'\n').count() - 1;
        for (how, cost, edit) in EDITS {
            for n in 0..count {
                let place = format!("{} line {n} {how}", path.display());
                // Two that are in each other's place are two that are not in theirs.
                let cost = if how.starts_with("in the place") { 2 } else { cost };
                mended(&files, path, edited(bytes, n, edit), cost, &place);
            }
        }
    }
}

/// A check spoke of bytes of the folder, and a repair failed at it.
#[test]
fn a_folder_in_the_place_of_a_file_is_told_and_left_to_whoever_made_it() {
    let files = example();
    let logs = files.keys().filter(|path| path.extension().is_some_and(|end| end == "log"));
    for path in logs {
        let (place, mut harmed) = (path.display(), files.clone());
        harmed.remove(path);
        // The log is damaged, too: nothing may be made of what is there.
        let (_, wal) =
            harmed.iter_mut().find(|(path, _)| path.ends_with("0000000000000001.wal")).unwrap();
        wal[4200] ^= 4;
        let disk = disk_of(&harmed);
        disk.create_dir(path).unwrap();
        let report = checked(&disk);
        let damage = report.findings.iter().filter(|found| found.level == Level::Damage);
        let in_place: Vec<_> = damage.filter(|found| found.file == *path).collect();
        // What is behind the mark is made again.
        let is_behind = in_place.is_empty();
        assert!(
            is_behind || in_place[0].what.starts_with("it is a folder"),
            "{place}: {in_place:?}"
        );
        assert!(in_place.iter().all(|found| found.mend == Mend::Blocked), "{place}: {in_place:?}");
        if is_behind {
            continue;
        }
        repaired(&disk, &report);
        let again = checked(&disk);
        assert!(again.damages() > 0 && again.findings.contains(in_place[0]), "{}", tell(&again));
        // It was moved away.
        let (before, moved) = (messages(&disk_of(&files)).0, disk_of(&disk.files()));
        repaired(&moved, &checked(&moved));
        assert_eq!(checked(&moved).damages(), 0, "{place}: {}", tell(&checked(&moved)));
        drop(start(&moved).unwrap_or_else(|error| panic!("{place}: {error}")));
        let there = messages(&moved).0;
        assert!(there.len() >= 24 && there.iter().all(|(key, text)| before.get(key) == Some(text)));
    }
}

/// Lines of the prototype have no checksum: what comes next says whether one is believed.
fn prototype(n: u64) -> Vec<u8> {
    let text =
        format!("{{\"id\": \"m{n}\", \"offset\": {n}, \"ts\": 1.5, \"msg\": \"message {n}\"}}\n");
    text.into_bytes()
}

#[test]
fn a_prototypes_file_keeps_what_stands_behind_a_line_that_is_gone() {
    let bytes = (1..=20).flat_map(prototype).collect::<Vec<_>>();
    let path = Path::new(DIR).join("a.log");
    let new = Files::from([(path.clone(), bytes.clone())]);
    let disk = disk_of(&new);
    drop(start(&disk).unwrap());
    for files in [&new, &disk.files()] {
        for (how, cost, edit) in &EDITS[..4] {
            // Nothing stands behind the last that would vouch for it.
            for n in 1..17 {
                let place = format!("line {n} {how}");
                mended(files, &path, edited(&bytes, n, *edit), *cost, &place);
            }
        }
    }
}

#[test]
fn a_prototypes_line_that_has_another_length_makes_a_new_checkpoint() {
    let bytes = (1..=20).flat_map(prototype).collect::<Vec<_>>();
    let path = Path::new(DIR).join("a.log");
    let disk = disk_of(&Files::from([(path.clone(), bytes.clone())]));
    drop(start(&disk).unwrap());
    for text in ["message and more", "mess"] {
        for n in [0, 10, 19] {
            let edit = |from: &str| {
                String::from_utf8_lossy(&bytes).replace(from, &format!("{text} {}\"", n + 1))
            };
            let edited = edit(&format!("message {}\"", n + 1));
            let mut files = disk.files();
            files.insert(path.clone(), edited.clone().into_bytes());
            let disk = disk_of(&files);
            let report = checked(&disk);
            assert_eq!(report.damages(), 1, "{n} {text}: {}", tell(&report));
            repaired(&disk, &report);
            assert_eq!(checked(&disk).damages(), 0, "{n} {text}: {}", tell(&checked(&disk)));
            drop(start(&disk).unwrap_or_else(|error| panic!("{n} {text}: {error}")));
            assert_eq!(disk.files()[&path], edited.as_bytes(), "{n} {text}");
        }
    }
}

#[test]
fn any_three_edits_leave_a_directory_that_can_be_repaired_at_once() {
    let served = example();
    let (before, _) = messages(&disk_of(&served));
    let logs: Vec<_> =
        served.keys().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    let mut random = 7_u64;
    let mut draw = |below: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for round in 0..400 {
        let mut harmed = served.clone();
        let mut place = format!("{round}:");
        for _ in 0..3 {
            let path = logs[draw(logs.len())];
            let bytes = &harmed[path];
            let count = bytes.split(|byte| *byte == b'\n').count() - 1;
            let (how, _, edit) = EDITS[draw(EDITS.len())];
            if count == 0 {
                continue;
            }
            let n = draw(count);
            if bytes.split(|b| *b == b'\n').nth(n).unwrap().len() < 50 {
                continue;
            }
            place += &format!(" {} line {n} {how};", path.display());
            let edited = edited(bytes, n, edit);
            harmed.insert(path.clone(), edited);
        }
        let disk = disk_of(&harmed);
        let report = checked(&disk);
        repaired(&disk, &report);
        let after = checked(&disk);
        assert_eq!(after.damages(), 0, "{place}: {} after {}", tell(&after), tell(&report));
        drop(start(&disk).unwrap_or_else(|error| panic!("{place}: {error}")));
        let (there, lost) = messages(&disk);
        assert!(lost <= 6, "{place}: {lost} lost; {}", tell(&report));
        assert!(there.iter().all(|(key, message)| before.get(key) == Some(message)), "{place}");
        assert_eq!(there.len() as u64 + lost, 36, "{place}; {}", tell(&report));
    }
}
