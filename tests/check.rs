//! `wiber check` on directories as the prototype left them, and on ones that are none: output and
//! exit codes of the real binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `wiber check` with the directory; gives the exit code, standard output and standard error.
fn check(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    run(dir, &[&["check"], args].concat())
}

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
    command.env_clear().args(args).arg("--data-dir").arg(dir);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn prototype(offset: u64) -> String {
    format!("{{\"id\": \"msg_{offset}\", \"offset\": {offset}, \"ts\": 1.5, \"msg\": \"m\"}}\n")
}

#[test]
fn a_prototypes_directory_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("chat.log"), (1..=3).map(prototype).collect::<String>()).unwrap();
    let (code, out, err) = check(dir.path(), &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let (note, all) = out.split_at(out.find("1 topic, 3 messages, ").expect("it ends with that"));
    assert!(all.ends_with(": all whole\n") && all.lines().count() == 1, "{out}");
    assert!(note.starts_with("note    .wiber/node.json\n        it is not there: "), "{out}");
    let words: Vec<_> = note.split_whitespace().collect();
    let end = "the next start takes the messages over, and groups begin anew";
    assert!(words.join(" ").ends_with(end), "{out}");
}

/// A path with a mistake in it was told to be whole, with exit code 0.
#[test]
fn what_is_no_data_directory_is_not_whole() {
    let above = tempfile::tempdir().unwrap();
    fs::create_dir(above.path().join("chat.logs")).unwrap();
    fs::write(above.path().join("notes.txt"), "no topic's file").unwrap();
    let told = |args: &[&str]| {
        let (code, out, err) = run(above.path(), args);
        assert_eq!((code, out.as_str()), (Some(5), ""), "{err}");
        assert!(err.contains("it is no data directory: no .wiber and no topic's file"), "{err}");
        err
    };
    let all: [&[&str]; 4] =
        [&["check"], &["check", "--json"], &["check", "--repair"], &["history", "chat"]];
    for args in all {
        assert!(told(args).contains("hint: name one by --data-dir\n"));
    }
    let served = above.path().join("served");
    fs::create_dir_all(served.join(".wiber")).unwrap();
    fs::write(served.join(".wiber/node.json"), "{}").unwrap();
    for args in all {
        let hint = format!("hint: did you mean --data-dir {}?\n", served.display());
        assert!(told(args).contains(&hint));
    }
    assert_eq!(fs::read_dir(above.path()).unwrap().count(), 3, "nothing was made");
}

/// A first start that came to nothing leaves folders.
#[test]
fn a_directory_that_is_about_to_be_served_is_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join(".wiber/checkpoint")).unwrap();
    let (code, out, err) = check(dir.path(), &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("no broker has served this directory yet\n0 topics"), "{out}");
}

#[test]
fn a_damaged_line_is_named_and_a_repair_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let lines = prototype(1) + &prototype(2).replace("\"offset\"", "\"offzet\"") + &prototype(3);
    let at = prototype(1).len();
    fs::write(dir.path().join("chat.log"), &lines).unwrap();
    let (code, out, _) = check(dir.path(), &[]);
    assert_eq!(code, Some(10), "{out}");
    assert!(out.contains(&format!("damage  chat.log, byte {at}\n        message 2: ")), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    let (code, out, _) = check(dir.path(), &["--json"]);
    assert_eq!(code, Some(10));
    let json: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&json[0]["file"], &json[0]["byte"]), (&"chat.log".into(), &at.into()));
    assert_eq!((&json[1]["finding"], &json[1]["kind"]), (&"note".into(), &"identity".into()));
    assert_eq!((&json[2]["whole"], &json[2]["messages"]), (&false.into(), &2.into()));
    assert_eq!(json.len(), 3);
    assert_eq!(fs::read_to_string(dir.path().join("chat.log")).unwrap(), lines, "nothing changed");

    let (code, out, _) = check(dir.path(), &["--repair"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("message 2 is lost"), "{out}");
    let kept = fs::read_dir(dir.path().join(".wiber/quarantine")).unwrap().next().unwrap().unwrap();
    let bytes = fs::read_to_string(kept.path()).unwrap();
    assert_eq!(bytes, lines.split_inclusive('\n').nth(1).unwrap());
    let (code, out, _) = check(dir.path(), &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("whole, but for 1 lost before a repair"), "{out}");
    let (_, out, _) = check(dir.path(), &["--json"]);
    let all: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&all["whole"], &all["lost"]), (&true.into(), &1.into()));
}

/// With the time and the place in front of it and behind, the name was one that no file can have: the repair
/// ended there, each time, and what it had found behind that was never mended.
#[test]
fn a_repair_goes_on_behind_a_file_with_a_long_name() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}.dlq@{:020}.log", "long".repeat(50), 1);
    let lines: Vec<String> = (1..=50).map(prototype).collect();
    for name in [&long, "zebra.log"] {
        let mut lines = lines.clone();
        // Between the two a line is whole: they are kept apart.
        for at in [29, 31] {
            lines[at] = lines[at].replace("\"offset\"", "\"offzet\"");
        }
        fs::write(dir.path().join(name), lines.concat()).unwrap();
    }
    let (code, out, err) = check(dir.path(), &["--repair"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let kept = fs::read_dir(dir.path().join(".wiber/quarantine")).unwrap().map(Result::unwrap);
    let (mut of_long, mut bytes) = (0, Vec::new());
    for kept in kept {
        let name = kept.file_name().into_string().unwrap();
        of_long += usize::from(name.contains("-longlong") && name.contains("00001.log."));
        bytes.push(fs::read_to_string(kept.path()).unwrap());
    }
    assert_eq!((of_long, bytes.len()), (2, 4));
    assert!(bytes.iter().all(|bytes| bytes.contains("\"offzet\"")), "{bytes:?}");
    let (code, out, _) = check(dir.path(), &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("whole, but for 4 lost before a repair"), "{out}");
}

#[test]
fn what_is_no_directory_and_what_is_no_flag_have_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = check(&dir.path().join("none"), &[]);
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("failed to use"), "{err}");
    assert_eq!(check(dir.path(), &["--mend"]).0, Some(2));
}

/// Opening a pipe that nobody wrote to took for ever.
#[test]
fn what_is_no_file_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("chat.log"), prototype(1)).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe.log")).status().unwrap().success());
    std::os::unix::fs::symlink("pipe.log", at("link.log")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("socket@00000000000000000001.log")).unwrap());
    for args in [&[][..], &["--repair"]] {
        let (code, out, err) = check(dir.path(), args);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        for name in ["pipe.log", "link.log", "socket@00000000000000000001.log"] {
            let note = format!("note    {name}\n        it is no file, and is not looked at\n");
            assert!(out.contains(&note), "{out}");
        }
        assert!(out.contains("\n1 topic, 1 message, "), "{out}");
    }
    let (code, _, err) = run(dir.path(), &["history", "pipe"]);
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("pipe.log") && err.contains("it is no file"), "{err}");
}

/// A topic of the prototype's, every second message of which is damaged.
fn much_damaged(dir: &Path, lines: u64) {
    let damaged = |n| prototype(n).replace("\"offset\"", "\"offzet\"");
    let lines = (1..=lines).map(|n| if n % 2 == 0 { damaged(n) } else { prototype(n) });
    fs::write(dir.join("chat.log"), lines.collect::<String>()).unwrap();
}

/// `wiber check --repair | head` repaired nothing, and `wiber check | head` found nothing wrong, by their exit
/// codes.
#[test]
fn what_nobody_reads_is_done_nevertheless() {
    let dir = tempfile::tempdir().unwrap();
    much_damaged(dir.path(), 200);
    for (args, code) in [(&[][..], 10), (&["--repair"], 0), (&[], 0)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
        command.env_clear().arg("check").args(args).arg("--data-dir").arg(dir.path());
        let output = command.stdout(writer).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.as_str()), (Some(code), ""), "{args:?}");
    }
}

/// By SIGTERM they ended without a code, which a shell shows as 143.
#[test]
fn sigterm_and_ctrl_c_end_it_with_130() {
    let dir = tempfile::tempdir().unwrap();
    much_damaged(dir.path(), 6000);
    for args in [&["check"][..], &["history", "chat", "6000", "--json"]] {
        for signal in ["-INT", "-TERM"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
            command.env_clear().args(args).arg("--data-dir").arg(dir.path());
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            // It prints, and goes on doing so, since nobody reads the rest.
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            let pid = child.id().to_string();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
            assert_eq!(child.wait().unwrap().code(), Some(130), "{args:?} {signal}");
        }
    }
}
