//! What the compiler and clippy can't check. Every failure says what to do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/docs.rs"]
mod docs;

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a source file.
const LINES_MAX: usize = 600;

/// Where the repository is.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
struct Text {
    /// Its path in the repository.
    path: String,
    text: String,
}

impl Text {
    /// Its code: without comments and without the tests at its end, each line with its number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_start = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1] == "mod tests {";
        let end = lines.windows(2).position(is_start).unwrap_or(lines.len());
        let numbered = lines.into_iter().take(end).enumerate().map(|(n, line)| (n + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Whether it is there for tests only: its folder's `mod.rs` declares it so, or it lies in a
    /// folder of tests.
    fn is_test(&self) -> bool {
        let (folder, name) = self.path.rsplit_once('/').unwrap();
        if self.path.contains("/tests/") {
            return true;
        }
        let parent = fs::read_to_string(root().join(folder).join("mod.rs")).unwrap_or_default();
        let lines: Vec<&str> = parent.lines().collect();
        let declaration = format!("mod {};", name.trim_end_matches(".rs"));
        lines.windows(2).any(|pair| pair == ["#[cfg(test)]", declaration.as_str()])
    }

    /// The module of the crate that it belongs to.
    fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap();
        inner.split_once('/').map_or(inner.trim_end_matches(".rs"), |(module, _)| module)
    }
}

/// The files under `dir` whose name has one of the endings, in order. No binary is among them.
fn files(dir: &str, endings: &[&str]) -> Vec<Text> {
    let mut found = Vec::new();
    collect(&root().join(dir), endings, &mut found);
    found.sort();
    let text = |path: PathBuf| Text {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
    };
    found.into_iter().map(text).collect()
}

fn collect(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    // What is not tracked, or no text of ours.
    const SKIP: &[&str] = &["target", ".git", "data"];
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !SKIP.contains(&name) {
                collect(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Text> {
    files("src", &[".rs"])
}

/// Fails with all findings at once, and what to do about them.
#[track_caller]
fn nothing_in(findings: &[String], what_to_do: &str) {
    assert!(findings.is_empty(), "\n{}\n→ {what_to_do}\n", findings.join("\n"));
}

/// The modules of this crate that a line names: `crate::x`, `crate::{x, y::z}`.
fn modules_named(line: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            named.push(first_name(rest));
            continue;
        };
        let mut depth = 0;
        let mut is_start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => is_start = true,
                c if c.is_whitespace() => {}
                _ if is_start => {
                    named.push(first_name(&group[at..]));
                    is_start = false;
                }
                _ => {}
            }
        }
    }
    named
}

fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn a_module_uses_only_what_stands_above_it_in_lib_rs() {
    assert_eq!(modules_named("use crate::{ids::{A, B}, time::*, log};"), ["ids", "time", "log"]);
    assert_eq!(modules_named("fn a(b: &crate::wal::Wal) -> crate::ids::C"), ["wal", "ids"]);
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared = |line: &str| {
        let name = line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?;
        Some(name.to_owned())
    };
    let order: Vec<String> = lib.lines().filter_map(declared).collect();
    let place = |name: &str| order.iter().position(|known| known == name);
    let mut findings = Vec::new();
    for file in sources() {
        let Some(own) = place(file.module()).filter(|_| !file.is_test()) else { continue };
        // One `use` may stretch over lines: they are looked at as one.
        let joined: String = file.code().map(|(_, line)| line.trim_start()).collect();
        for name in modules_named(&joined) {
            if place(name).is_some_and(|other| other > own) {
                let module = file.module();
                findings.push(format!("{}: `{module}` uses `{name}`, below it", file.path));
            }
        }
    }
    nothing_in(
        &findings,
        "src/lib.rs is in order of dependence: move what both need up, or pass it in as an \
         argument or a trait",
    );
}

/// One narrow door to each outside thing: who may name what.
const DOORS: &[(&str, &[&str], &[&str], &str)] = &[
    (
        "files",
        &["std::fs", "tokio::fs", "std::{fs"],
        &["src/disk/os.rs"],
        "use the `Disk` that was passed in",
    ),
    (
        "sockets",
        &["tokio::net", "std::net::Tcp", "std::net::Udp", "std::os::unix::net", "tokio::{net"],
        &["src/server/", "src/session/task.rs", "src/client/", "src/cli/bench/"],
        "let the server, a session's task, the client or the load of `wiber bench` hold the socket",
    ),
    ("openraft", &["openraft"], &["src/cluster/"], "only `cluster` knows how nodes agree"),
    (
        "clocks",
        &["Instant::now", "SystemTime::now", "SystemTime::UNIX"],
        &["src/time.rs", "src/client/"],
        "take `Now` or `Moment` as an argument; only the loops around the cores read the clock",
    ),
    (
        "signals",
        &["tokio::signal", "tokio::{signal"],
        &["src/cli/signals.rs"],
        "only the command line hears signals; others are told to stop",
    ),
];

#[test]
fn each_outside_thing_has_one_door() {
    for (what, words, doors, what_to_do) in DOORS {
        let mut findings = Vec::new();
        for file in sources() {
            let is_door = doors.iter().any(|door| file.path.starts_with(door));
            if is_door || file.is_test() {
                continue;
            }
            for (n, line) in file.code() {
                if words.iter().any(|word| line.contains(word)) {
                    findings.push(format!("{}:{n}: {what}: {}", file.path, line.trim()));
                }
            }
        }
        nothing_in(&findings, what_to_do);
    }
}

#[test]
fn no_file_is_too_long_to_be_read_in_one_sitting() {
    let mut findings = Vec::new();
    for dir in ["src", "tests", "benches"] {
        for file in files(dir, &[".rs"]) {
            let lines = file.text.lines().count();
            if lines > LINES_MAX {
                findings.push(format!("{}: {lines} lines", file.path));
            }
        }
    }
    let what_to_do = format!("over {LINES_MAX} lines a file holds more than one thing: split it");
    nothing_in(&findings, &what_to_do);
}

#[test]
fn lints_are_expected_with_a_reason_never_allowed() {
    let words = [concat!("#[", "allow("), concat!("#![", "allow(")];
    let mut findings = Vec::new();
    for dir in ["src", "tests", "benches"] {
        for file in files(dir, &[".rs"]) {
            for (n, line) in file.text.lines().enumerate() {
                if words.iter().any(|word| line.trim_start().starts_with(word)) {
                    findings.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
                }
            }
        }
    }
    nothing_in(&findings, "write #[expect(lint, reason = \"…\")]: it goes away when it has no use");
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ];
    let endings = [".rs", ".md", ".toml", ".yaml", ".yml", ".sh", "Dockerfile", "run"];
    let mut findings = Vec::new();
    for file in files("", &endings) {
        for (n, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                findings.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
        }
    }
    nothing_in(
        &findings,
        "say it relative to the repository, or with a path that every system has",
    );
}
