use std::io::ErrorKind;

use super::*;
use crate::disk::{read_all, replace};

fn disk_with(path: &str, bytes: &[u8]) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new();
    let file = disk.open(Path::new(path), Open::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

fn contents(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.files().get(Path::new(path)).cloned()
}

#[test]
fn contents_survive_by_sync_and_names_by_sync_dir() {
    let disk = SimDisk::new();
    let file = disk.open(Path::new("/a"), Open::Create).unwrap();
    file.write_at(b"one", 0).unwrap();
    file.sync().unwrap();
    assert!(disk.crash(Crash::LoseUnsynced).files().is_empty(), "the name was not synced");

    let (disk, file) = disk_with("/a", b"one");
    file.write_at(b"two", 3).unwrap();
    assert_eq!(contents(&disk, "/a").unwrap(), b"onetwo");
    let after = disk.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&after, "/a").unwrap(), b"one");

    let (disk, file) = disk_with("/a", b"one");
    file.write_at(b"two", 3).unwrap();
    let after = disk.crash(Crash::KeepAll);
    assert_eq!(contents(&after, "/a").unwrap(), b"onetwo");
}

#[test]
fn old_handles_are_dead_after_a_crash() {
    let (disk, file) = disk_with("/a", b"one");
    let lock = disk.lock(Path::new("/LOCK")).unwrap();
    assert_eq!(disk.lock(Path::new("/LOCK")).err().unwrap().kind(), ErrorKind::WouldBlock);
    let after = disk.crash(Crash::KeepAll);
    assert!(disk.is_off() && !after.is_off());
    assert!(file.write_at(b"x", 0).is_err() && file.sync().is_err() && file.len().is_err());
    assert!(disk.open(Path::new("/a"), Open::Read).is_err());
    let again = after.lock(Path::new("/LOCK")).unwrap();
    drop(lock);
    assert!(after.lock(Path::new("/LOCK")).is_err(), "a dead process's lock is not this one's");
    drop(again);
    assert!(after.lock(Path::new("/LOCK")).is_ok());
}

#[test]
fn a_random_crash_keeps_what_was_synced_and_any_sectors_of_the_rest() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let (disk, file) = disk_with("/a", &[1; 1024]);
        file.write_at(&[2; 1024], 512).unwrap();
        file.write_at(&[3; 100], 2000).unwrap();
        let found = contents(&disk.crash(Crash::Random { seed }), "/a").unwrap();
        assert!(found.len() >= 1024 && found[..512] == [1; 512]);
        for sector in found.chunks(512).take(3) {
            assert!(sector.iter().all(|b| *b == sector[0]), "a sector is whole or not at all");
        }
        let sector = |n: usize| found.get(n * 512).copied();
        seen.insert((sector(1), sector(2), found.len()));
    }
    let lens: BTreeSet<usize> = seen.iter().map(|(_, _, len)| *len).collect();
    assert_eq!(lens, BTreeSet::from([1024, 1536, 2048, 2100]));
    assert!(seen.contains(&(Some(1), Some(2), 1536)), "the second sector without the first");
    assert!(seen.contains(&(Some(2), Some(0), 2100)), "a length without contents");
    assert!(seen.contains(&(Some(1), None, 1024)), "nothing");
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = || {
        let (disk, file) = disk_with("/a", &[0; 4096]);
        for n in 0..20 {
            file.write_at(&[n; 700], u64::from(n) * 333).unwrap();
            disk.open(Path::new(&format!("/f{n}")), Open::Create).unwrap();
        }
        disk.crash(Crash::Random { seed: 7 }).files()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_rename_is_the_old_name_or_the_new_one_and_never_two() {
    for seed in 0..100 {
        let (disk, _) = disk_with("/a", b"x");
        disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
        disk.rename(Path::new("/b"), Path::new("/c")).unwrap();
        assert_eq!(disk.crash(Crash::Random { seed }).files().len(), 1, "seed {seed}");
    }
    let (disk, _) = disk_with("/a", b"x");
    disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(contents(&disk.crash(Crash::LoseUnsynced), "/b").unwrap(), b"x");
}

#[test]
fn a_move_to_another_folder_never_loses_or_doubles_the_file() {
    for seed in 0..100 {
        for sync_origin in [false, true] {
            let (disk, _) = disk_with("/a", b"x");
            disk.create_dir(Path::new("/q")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            disk.rename(Path::new("/a"), Path::new("/q/a")).unwrap();
            if sync_origin {
                disk.sync_dir(Path::new("/")).unwrap();
            }
            assert_eq!(disk.crash(Crash::Random { seed }).files().len(), 1, "seed {seed}");
        }
    }
}

#[test]
fn a_folder_that_is_lost_takes_all_below_with_it() {
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/d/e")).unwrap();
    let file = disk.open(Path::new("/d/e/f"), Open::Create).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d/e")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let after = disk.crash(Crash::LoseUnsynced);
    assert!(after.files().is_empty() && after.list(Path::new("/d")).unwrap().is_empty());
    assert_eq!(after.list(Path::new("/d/e")).unwrap_err().kind(), ErrorKind::NotFound);
    after.create_dir(Path::new("/d/e")).unwrap();
    assert!(after.list(Path::new("/d/e")).unwrap().is_empty());
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_at_every_power_cut() {
    replaced_at_every_power_cut(b"new");
    // Written and synced in pieces.
    replaced_at_every_power_cut(&b"0123456789".repeat(60_000));
}

fn replaced_at_every_power_cut(new: &[u8]) {
    let changes = {
        let (disk, _) = disk_with("/a", b"old");
        let before = disk.changes();
        replace(&disk, Path::new("/a"), new).unwrap();
        disk.changes() - before
    };
    for cut in 0..=changes {
        for seed in 0..20 {
            let (disk, _) = disk_with("/a", b"old");
            disk.cut_power_after(cut);
            let done = replace(&disk, Path::new("/a"), new).is_ok();
            assert_eq!(done, cut == changes);
            let after = disk.crash(Crash::Random { seed });
            let found = read_all(&after, Path::new("/a")).unwrap();
            assert!(found == new || found == b"old" && !done, "{} bytes", found.len());
        }
    }
}

#[test]
fn faults_come_when_asked_for_and_go() {
    let (disk, file) = disk_with("/a", b"");
    disk.fail_next(Op::Write, 2, Failure::Short { written: 2 });
    file.write_at(b"abcd", 0).unwrap();
    assert_eq!(file.write_at(b"efgh", 4).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(contents(&disk, "/a").unwrap(), b"abcdef");
    file.write_at(b"efgh", 4).unwrap();

    let path_has = "b".to_owned();
    let times = u64::MAX;
    disk.fail(Fault { op: None, path_has, skip: 1, times, failure: Failure::Io });
    let b = disk.open(Path::new("/b"), Open::Create).unwrap();
    assert_eq!(b.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(5));
    assert!(b.sync().is_err() && file.sync().is_ok());
    disk.heal();
    assert!(b.sync().is_ok());
    assert_eq!(disk.count(Op::Sync), 4);
}

#[test]
fn a_sync_after_a_failed_one_does_not_save_what_that_one_lost() {
    let (disk, file) = disk_with("/a", b"....");
    file.write_at(b"1", 0).unwrap();
    disk.fail_next(Op::Sync, 1, Failure::Io);
    assert!(file.sync().is_err());
    file.write_at(b"2", 1).unwrap();
    file.sync().unwrap();
    assert_eq!(contents(&disk, "/a").unwrap(), b"12..");
    assert_eq!(contents(&disk.crash(Crash::LoseUnsynced), "/a").unwrap(), b".2..");
}

#[test]
fn a_flipped_bit_is_there_before_and_after_a_crash() {
    let (disk, file) = disk_with("/a", b"ab");
    file.write_at(b"c", 2).unwrap();
    disk.flip_bit(Path::new("/a"), 0, 0).unwrap();
    disk.flip_bit(Path::new("/a"), 2, 1).unwrap();
    assert!(disk.flip_bit(Path::new("/a"), 3, 0).is_err());
    file.sync().unwrap();
    assert_eq!(contents(&disk.crash(Crash::LoseUnsynced), "/a").unwrap(), b"`ba");
}

#[test]
fn it_answers_as_the_real_disk_does() {
    let folder = tempfile::tempdir().unwrap();
    let sim = SimDisk::new();
    sim.create_dir(folder.path()).unwrap();
    let disks: [&dyn Disk; 2] = [&crate::disk::os::OsDisk::default(), &sim];
    let [real, simulated] = disks.map(|disk| story(disk, folder.path()));
    assert_eq!(real, simulated);
}

/// Everything that the two disks must agree on, as text.
fn story(disk: &dyn Disk, root: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut see = |what: &str, got: io::Result<String>| {
        seen.push(format!("{what}: {:?}", got.map_err(|e| e.kind())));
    };
    let at = |name: &str| root.join(name);
    let unit = |r: io::Result<()>| r.map(|()| String::new());
    see("open absent", disk.open(&at("a"), Open::Read).map(|_| String::new()));
    see("write absent", disk.open(&at("a"), Open::Write).map(|_| String::new()));
    see("create in absent", disk.open(&at("d/a"), Open::Create).map(|_| String::new()));
    see("create dir", unit(disk.create_dir(&at("d/e"))));
    see("create dir again", unit(disk.create_dir(&at("d/e"))));
    let file = disk.open(&at("a"), Open::Create).unwrap();
    see("write", unit(file.write_at(b"hello", 3)));
    see("write nothing far out", unit(file.write_at(b"", 100)));
    let mut buf = [9; 6];
    let got = file.read_at(&mut buf, 4);
    see("read", got.map(|n| format!("{n} {buf:?}")));
    let got = file.read_at(&mut buf, 40);
    see("read past the end", got.map(|n| format!("{n}")));
    see("truncate", unit(file.truncate(5)));
    see("grow", unit(file.truncate(7)));
    see("all", read_all(disk, &at("a")).map(|b| format!("{b:?}")));
    let read_only = disk.open(&at("a"), Open::Read).unwrap();
    see("write read-only", Ok(read_only.write_at(b"x", 0).is_err().to_string()));
    see("create a folder over a file", unit(disk.create_dir(&at("a"))));
    see("rename", unit(disk.rename(&at("a"), &at("d/b"))));
    see("rename absent", unit(disk.rename(&at("a"), &at("d/b"))));
    see("rename to absent folder", unit(disk.rename(&at("d/b"), &at("x/b"))));
    see("handle goes on", file.len().map(|n| n.to_string()));
    see("list", disk.list(&at("d")).map(|l| format!("{l:?}")));
    see("list absent", disk.list(&at("x")).map(|l| format!("{l:?}")));
    see("only name", disk.is_only_name(&at("d/b")).map(|is| is.to_string()));
    see("only name of none", disk.is_only_name(&at("d/c")).map(|is| is.to_string()));
    see("sync dir", unit(disk.sync_dir(&at("d"))));
    see("remove", unit(disk.remove(&at("d/b"))));
    see("remove absent", unit(disk.remove(&at("d/b"))));
    see("read removed", file.len().map(|n| n.to_string()));
    let lock = disk.lock(&at("LOCK"));
    see("lock", lock.as_ref().map(|_| String::new()).map_err(|e| e.kind().into()));
    see("lock twice", disk.lock(&at("LOCK")).map(|_| String::new()));
    drop(lock);
    see("lock again", disk.lock(&at("LOCK")).map(|_| String::new()));
    see("list root", disk.list(root).map(|l| format!("{l:?}")));
    seen
}
