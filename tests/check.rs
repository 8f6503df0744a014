//! `wiber check` on directories as the prototype left them, and on ones that are none: output and
//! exit codes of the real binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs `wiber check` with the directory; gives the exit code, standard output and standard error.
fn check(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
    command.env_clear().arg("check").arg("--data-dir").arg(dir).args(args);
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
    assert!(out.starts_with("1 topic, 3 messages, "), "{out}");
    assert!(out.ends_with(": all whole\n"), "{out}");
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
    assert_eq!((&json[1]["whole"], &json[1]["messages"]), (&false.into(), &2.into()));
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
}

#[test]
fn what_is_no_directory_and_what_is_no_flag_have_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = check(&dir.path().join("none"), &[]);
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("failed to use"), "{err}");
    assert_eq!(check(dir.path(), &["--mend"]).0, Some(2));
}
