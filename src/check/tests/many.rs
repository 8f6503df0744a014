//! More findings than a report has room for.

use super::*;

const MANY: u64 = 2 * FINDINGS_MAX as u64 + 50;

fn line(offset: u64) -> String {
    format!("{{\"id\": \"msg_{offset}\", \"offset\": {offset}, \"ts\": 1.5, \"msg\": \"m\"}}\n")
}

fn damaged(offset: u64) -> String {
    line(offset).replace("\"offset\"", "\"offzet\"")
}

/// A topic of the prototype's with these lines.
fn disk_with(lines: String) -> SimDisk {
    disk_of(&Files::from([(Path::new(DIR).join("a.log"), lines.into_bytes())]))
}

/// Gives how many repairs it took.
fn repaired_in_rounds(disk: &SimDisk) -> u64 {
    let mut report = checked(disk);
    for round in 1.. {
        assert!(!repaired(disk, &report).is_empty());
        let before = std::mem::replace(&mut report, checked(disk));
        if !report.wants_another_repair(&before) {
            return round;
        }
    }
    unreachable!("there is always less")
}

/// Messages that an earlier repair had found lost took the place of damage, which was then neither named nor
/// mended, each time.
#[test]
fn damage_behind_many_lost_messages_is_named_and_mended() {
    let lost: String = (2..MANY).map(|n| format!("{{\"lost\":{n}}}\n")).collect();
    let disk = disk_with(line(1) + &lost + &damaged(MANY) + &line(MANY + 1));
    let report = checked(&disk);
    assert_eq!((report.damages(), report.left_out, report.lost), (1, 0, MANY - 2));
    let named = report.findings.iter().filter(|found| found.level == Level::Damage);
    assert_eq!(named.map(|found| found.kind).collect::<Vec<_>>(), [Kind::Log]);
    let notes = report.findings.iter().filter(|found| found.kind == Kind::Identity);
    assert_eq!(notes.count(), 1, "other notes have a place, too");
    assert_eq!(repaired(&disk, &report).len(), 1);
    let after = checked(&disk);
    assert_eq!((after.damages(), after.lost), (0, MANY - 1));
}

/// What was left out was told to be past repair, and was mended by whoever tried again.
#[test]
fn more_damage_than_is_named_is_mended_in_rounds() {
    let lines: String = (0..MANY).map(|n| damaged(2 * n + 1) + &line(2 * n + 2)).collect();
    let disk = disk_with(lines);
    assert_eq!(checked(&disk).damages(), MANY);
    assert_eq!(repaired_in_rounds(&disk), 3);
    let report = checked(&disk);
    assert_eq!((report.damages(), report.lost, report.messages), (0, MANY, MANY));
}

/// What is made new goes by what is whole: before all is mended that can be, that is too little.
#[test]
fn no_checkpoint_is_made_before_what_was_left_out_is_mended() {
    let files = example();
    let is_checkpoint = |path: &Path| path.to_str().unwrap().contains("checkpoint/");
    let is_of_a = |path: &Path| path.to_str().unwrap().contains("/a@");
    let mut harmed = files.clone();
    harmed.retain(|path, _| !is_checkpoint(path) && !is_of_a(path));
    let lines: String = (0..MANY).map(|n| damaged(2 * n + 1) + &line(2 * n + 2)).collect();
    harmed.insert(Path::new(DIR).join("a.log"), lines.into_bytes());
    let disk = disk_of(&harmed);
    let checkpoints =
        |disk: &SimDisk| disk.files().keys().filter(|path| is_checkpoint(path)).count();
    let report = checked(&disk);
    assert!(report.left_out > 0 && report.findings.iter().any(|f| f.mend == Mend::Rebuild));
    repaired(&disk, &report);
    assert_eq!(checkpoints(&disk), 0);
    assert_eq!(repaired_in_rounds(&disk), 2);
    assert!(checkpoints(&disk) > 0);
    assert_eq!(checked(&disk).damages(), 0, "{}", tell(&checked(&disk)));
    let path = Path::new(DIR).join("b.log");
    assert_eq!(disk.files().get(&path), files.get(&path));
    drop(start(&disk).unwrap());
}

/// Two messages whose line end is damaged count as one line that is none where a file is written again.
#[test]
fn no_file_is_written_again_before_what_was_left_out_is_mended() {
    let (topic, mut bytes) = (topic("a"), Vec::new());
    let put = |bytes: &mut Vec<u8>, offset| {
        let ts = Timestamp::from_micros(1);
        let record = log::NewRecord { ts, id: None, extra: "", message: b"m" };
        log::write_line(bytes, topic.tag(), Offset::new(offset), &record);
    };
    for n in 0..MANY {
        let at = bytes.len();
        put(&mut bytes, 2 * n + 1);
        bytes[at + 9] ^= 1;
        put(&mut bytes, 2 * n + 2);
    }
    put(&mut bytes, 2 * MANY + 1);
    *bytes.last_mut().unwrap() = b'x';
    put(&mut bytes, 2 * MANY + 2);
    // The one before this is missing.
    put(&mut bytes, 2 * MANY + 4);
    let disk = disk_of(&Files::from([(Path::new(DIR).join("a.log"), bytes)]));
    assert_eq!(repaired_in_rounds(&disk), 3);
    let report = checked(&disk);
    assert_eq!((report.damages(), report.lost), (0, MANY + 1), "{}", tell(&report));
    assert_eq!(report.messages, MANY + 3);
}
