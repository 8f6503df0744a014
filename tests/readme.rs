//! Every command of the README does what stands there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longer than the tour takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What differs from run to run is replaced by its kind.
fn normal(line: &str) -> String {
    let hex = |word: &str| word.bytes().all(|b| b.is_ascii_hexdigit());
    let digits = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let mut out = String::new();
    for word in line.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c))) {
        let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
        let (word, rest) = word.split_at(end.unwrap_or(word.len()));
        let is_id = word.strip_prefix("msg_").is_some_and(|id| {
            id.split_once('_').is_some_and(|(ms, tail)| digits(ms) && hex(tail) && tail.len() > 8)
        });
        let is_ts =
            word.split_once('.').is_some_and(|(s, f)| s.len() == 10 && digits(s) && digits(f));
        let is_crc = word.len() == 8 && hex(word);
        let is_port = word.len() > 3 && digits(word) && line.contains("127.0.0.1");
        out.push_str(match () {
            () if is_id => "<id>",
            () if is_ts => "<ts>",
            () if is_crc => "<crc>",
            () if is_port => "<port>",
            () => word,
        });
        out.push_str(rest);
    }
    out
}

/// The ```` ```console ```` blocks: commands behind `$ `, and what they print.
fn console_blocks(text: &str) -> Vec<(String, Vec<String>)> {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match line.strip_prefix("$ ") {
                Some(command) => steps.push((command.to_owned(), Vec::new())),
                None => steps.last_mut().expect("a command first").1.push(line.to_owned()),
            },
        }
    }
    steps
}

/// What the script prints. If it takes longer than that, it and all that it started are ended.
fn shell(script: &str, dir: &Path, patience: Duration) -> Output {
    let binaries = Path::new(env!("CARGO_BIN_EXE_wiber")).parent().unwrap();
    let child = Command::new("bash")
        .args(["-c", script])
        .current_dir(dir)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", binaries.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = format!("-{}", child.id());
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    output.recv_timeout(patience).unwrap_or_else(|_timeout| {
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
        output.recv().unwrap()
    })
}

/// `cargo test` waited for ever.
#[test]
fn a_tour_that_hangs_is_ended_with_what_it_left_in_the_background() {
    let temp = tempfile::tempdir().unwrap();
    let output = shell("sleep 1000 & wait %1", temp.path(), Duration::from_millis(100));
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn the_tour_is_real() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let steps = console_blocks(&std::fs::read_to_string(root.join("README.md")).unwrap());
    assert!(steps.len() > 8, "the tour was found");
    let temp = tempfile::tempdir().unwrap();
    // One shell runs all, as a reader would; a line marks where each command's output ends.
    let mut script = String::from("port() { :; }\n");
    for (command, _) in &steps {
        // A free port instead of the usual one, for a test that fights with nobody.
        let command = command.replace("8888", "$WIBER_PORT");
        if command == "wiber broker &" {
            script.push_str(
                "WIBER_PORT=0 wiber broker 2>log.txt >started.txt &\n\
                 until [ -s started.txt ]; do sleep 0.05; done; cat started.txt\n\
                 export WIBER_PORT=$(sed 's/.*127.0.0.1:\\([0-9]*\\).*/\\1/' started.txt)\n",
            );
        } else {
            script.push_str(&command);
            script.push('\n');
        }
        script.push_str("echo '#END#'\n");
    }
    // `nc` is not on every machine; a few lines of bash do what the tour needs of it.
    let nc = "nc() { exec 3<>/dev/tcp/$1/$2; cat >&3; cat <&3; exec 3>&-; }\n";
    let output = shell(&format!("{nc}{script}"), temp.path(), PATIENCE);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let mut parts = stdout.split("#END#\n");
    for (command, expected) in steps {
        let real: Vec<_> = parts.next().unwrap_or_default().lines().map(normal).collect();
        let expected: Vec<_> = expected.iter().map(|line| normal(line)).collect();
        assert_eq!(real, expected, "$ {command}\n{stderr}");
    }
}

#[test]
fn the_two_commands_are_those_of_ci() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let shell: Vec<_> = readme
        .split("```sh\n")
        .skip(1)
        .filter_map(|block| block.split_once("\n```").map(|(command, _)| command))
        .collect();
    assert_eq!(shell, ["cargo run --release -- broker", "cargo test"]);
    let ci = std::fs::read_to_string(root.join(".ci/run")).unwrap();
    assert!(ci.contains("cargo test --locked") && ci.contains("release/wiber"), "CI runs both");
}
