//! What operators do with the files of a data directory: links to another disk, copies, other things among
//! them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::{Nc, Setup, data_dir};

/// Runs `wiber check`; gives the exit code and all it printed.
fn check(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
    command.env_clear().arg("check").arg("--data-dir").arg(dir).args(args);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout) + &text(output.stderr))
}

/// How many messages `HISTORY` has.
fn count(nc: &mut Nc, topic: &str) -> usize {
    nc.send(&format!("HISTORY {topic} 100000"));
    for count in 0.. {
        let line = nc.line();
        if !line.starts_with("HISTORY") {
            assert_eq!(line, "OK history end");
            return count;
        }
    }
    unreachable!("there are fewer")
}

/// The first seventeen bytes, which is how long the link is, were taken for a torn line, and the file was cut.
#[test]
fn a_file_of_the_prototype_behind_a_link_is_taken_over_whole() {
    let (temp, dir) = data_dir();
    let other = temp.path().join("other");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&other).unwrap();
    let line =
        |n| format!("{{\"id\": \"msg_{n}\", \"offset\": {n}, \"ts\": 1.5, \"msg\": \"m\"}}\n");
    let lines: String = (1..=3).map(line).collect();
    fs::write(other.join("chat.log"), &lines).unwrap();
    symlink("../other/chat.log", dir.join("chat.log")).unwrap();
    let broker = Setup::new(&dir).start();
    assert!(broker.started.ends_with("adopted 3 messages in 1 topics"), "{}", broker.started);
    assert_eq!(fs::read_to_string(other.join("chat.log")).unwrap(), lines);
    let mut nc = broker.connect();
    assert_eq!(count(&mut nc, "chat"), 3);
    assert_eq!(nc.publish("chat", "goes on").1, 4);
    assert_eq!(broker.stop(), Some(0));
    let (code, text) = check(&dir, &[]);
    assert_eq!(code, Some(0), "{text}");
}

/// Its messages were damaged for every reader, and a repair offered to overwrite them.
#[test]
#[expect(clippy::disallowed_methods, reason = "an operator moves a file")]
fn a_sealed_segment_may_lie_on_another_disk_behind_a_link() {
    let (temp, dir) = data_dir();
    let setup = Setup::new(&dir).set("STORAGE__SEGMENT", "64KiB");
    let broker = setup.start();
    let mut nc = broker.connect();
    let filling = "x".repeat(1000);
    for n in 1..=100 {
        nc.publish("chat", &format!("{n} {filling}"));
    }
    assert_eq!(broker.stop(), Some(0));
    let sealed = dir.join("chat@00000000000000000001.log");
    let moved = temp.path().join("moved.log");
    fs::rename(&sealed, &moved).unwrap();
    symlink(&moved, &sealed).unwrap();
    let (code, text) = check(&dir, &[]);
    assert!(code == Some(0) && text.ends_with(": all whole\n"), "{text}");
    let broker = setup.start();
    assert_eq!(count(&mut broker.connect(), "chat"), 100);
    assert_eq!(broker.stop(), Some(0));
}

/// One such name and no broker started.
#[test]
fn a_name_that_is_no_text_is_a_strangers() {
    let (_temp, dir) = data_dir();
    fs::create_dir_all(dir.join(".wiber/trash")).unwrap();
    let strange = [&b"chat\xff.log"[..], b".wiber/\xff", b".wiber/trash/chat\xff.log"];
    let paths = strange.map(|name| dir.join(OsStr::from_bytes(name)));
    paths.iter().for_each(|path| fs::write(path, "a stranger's").unwrap());
    for found in ["new directory", "clean start"] {
        let broker = Setup::new(&dir).start();
        assert!(broker.started.ends_with(found), "{}", broker.started);
        broker.connect().publish("chat", "m");
        assert_eq!(broker.stop(), Some(0));
    }
    let (code, text) = check(&dir, &[]);
    assert!(code == Some(0) && text.contains("chat\u{fffd}.log"), "{text}");
    for path in paths {
        assert_eq!(fs::read_to_string(path).unwrap(), "a stranger's");
    }
}

/// The first message for the topic ended the broker, and every start after it, without a word of what to do.
#[test]
fn a_folder_that_has_the_name_of_a_topics_file_is_named_before_anything_is_served() {
    let (_temp, dir) = data_dir();
    let folder = dir.join("chat.log");
    let setup = Setup::new(&dir);
    let refused = || {
        let output = setup.command().output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(5), "{told}");
        assert!(told.contains("data/chat.log: it is a folder"), "{told}");
        assert!(told.contains("hint: move it to another place"), "{told}");
    };
    fs::create_dir_all(&folder).unwrap();
    refused();
    let (code, text) = check(&dir, &[]);
    assert!(code == Some(0) && text.contains("a broker does not start"), "{text}");
    fs::remove_dir(&folder).unwrap();

    let mut broker = setup.start();
    fs::create_dir(&folder).unwrap();
    let mut nc = broker.connect();
    nc.send("PUB chat m");
    assert!(nc.is_closed());
    assert_eq!(broker.child.wait().unwrap().code(), Some(1));
    refused();
    fs::remove_dir(&folder).unwrap();
    // It was in the write-ahead log.
    assert_eq!(count(&mut setup.start().connect(), "chat"), 1);
}
