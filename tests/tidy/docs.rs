//! The documentation says what the code does: every setting, flag, exit code, event, verb and error
//! code stands in it, and its links lead somewhere.

use std::collections::BTreeSet;
use std::process::Command;

use wiber::cli::Exit;
use wiber::config::KEYS;
use wiber::proto::{ErrorCode, Verb};

use super::{files, nothing_in, root, sources};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_setting_has_its_row() {
    let docs = read("docs/operations.md");
    let mut missing = Vec::new();
    for key in KEYS {
        let row = format!("| `{}` | `{}` | {} | {} |", key.name, key.default, key.allowed, key.doc);
        if !docs.contains(&row) {
            missing.push(row);
        }
        let names = [Some(key.variable()), key.short_variable.map(str::to_owned)];
        let names = names.into_iter().flatten().chain(key.flag.map(str::to_owned));
        missing.extend(names.map(|name| format!("`{name}`")).filter(|name| !docs.contains(name)));
    }
    nothing_in(&missing, "put these rows and names into docs/operations.md, under Settings");
}

/// The first words of the indented lines below `Commands:` in a help text.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let names = list.lines().take_while(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn help(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
    let output = command.env_clear().args(words).arg("-h").output().unwrap();
    assert!(output.status.success(), "wiber {words:?} -h");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_and_flag_is_documented() {
    let docs = read("docs/operations.md");
    let mut missing = Vec::new();
    for name in subcommands(&help(&[])) {
        let mut texts = vec![(name.clone(), help(&[&name]))];
        for inner in subcommands(&texts[0].1) {
            texts.push((format!("{name} {inner}"), help(&[&name, &inner])));
        }
        for (command, text) in texts {
            if !docs.contains(&format!("wiber {command}")) {
                missing.push(format!("`wiber {command}`"));
            }
            let words = text.split("Examples:").next().unwrap_or_default().split_whitespace();
            let flags = words.filter(|word| word.starts_with("--")).map(|word| {
                word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-').to_owned()
            });
            for flag in flags.collect::<BTreeSet<_>>() {
                if !docs.contains(&format!("`{flag}")) {
                    missing.push(format!("`{flag}` of `wiber {command}`"));
                }
            }
        }
    }
    nothing_in(&missing, "describe these in docs/operations.md");
}

#[test]
fn every_exit_code_and_event_is_documented() {
    let docs = read("docs/operations.md");
    let mut missing: Vec<String> = Exit::ALL
        .iter()
        .map(|exit| format!("| {} | ", exit.code()))
        .filter(|row| !docs.contains(row))
        .collect();
    let mut events = BTreeSet::new();
    for file in sources() {
        for (at, start) in file.text.match_indices("event = \"") {
            let rest = &file.text[at + start.len()..];
            events.insert(rest[..rest.find('"').unwrap()].to_owned());
        }
    }
    let row = |event: String| format!("| `{event}` | ");
    missing.extend(events.into_iter().map(row).filter(|row| !docs.contains(row)));
    nothing_in(&missing, "give each of these a row in docs/operations.md");
}

#[test]
fn every_promise_names_tests_that_exist() {
    let docs = read("docs/guarantees.md");
    let code: String =
        sources().into_iter().chain(files("tests", &[".rs"])).map(|f| f.text).collect();
    let mut missing = Vec::new();
    let mut promises = 0;
    for row in docs.lines().filter(|line| line.starts_with("| ") && line.contains("**")) {
        promises += 1;
        let held = row.rsplit('|').nth(1).unwrap();
        let names: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "a promise that nothing holds: {row}");
        for name in names {
            let is_test = code.contains(&format!("fn {name}("));
            let is_oracle = root().join(format!("src/sim/oracle/{name}.rs")).exists();
            if !is_test && !is_oracle {
                missing.push(format!("`{name}`"));
            }
        }
    }
    assert!(promises >= 7, "docs/guarantees.md has {promises} promises");
    let mistakes = docs.split("## The simulation").nth(1).unwrap();
    let planted = read("src/planted.rs");
    let list = planted.split("pub enum Bug {").nth(1).unwrap().split('}').next().unwrap();
    let bugs = list.lines().filter_map(|line| line.trim().strip_suffix(','));
    missing.extend(
        bugs.map(|bug| format!("`{bug}`")).filter(|bug| !mistakes.contains(&format!("| {bug} |"))),
    );
    nothing_in(
        &missing,
        "docs/guarantees.md names these, or should; write the test or mend the name",
    );
}

#[test]
fn every_verb_and_error_code_is_documented() {
    let docs = read("docs/protocol.md");
    let word = |verb: &Verb| verb.usage().split(' ').next().unwrap().to_owned();
    let verbs = Verb::ALL.iter().map(|verb| format!("| `{}", word(verb)));
    let codes = ErrorCode::ALL.iter().map(|code| format!("| `{code}` |"));
    let missing: Vec<_> = verbs.chain(codes).filter(|word| !docs.contains(word)).collect();
    nothing_in(&missing, "describe these in docs/protocol.md");
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut findings = Vec::new();
    for file in files("", &[".md"]) {
        let folder = root().join(&file.path);
        let folder = folder.parent().unwrap();
        for (at, start) in file.text.match_indices("](") {
            let rest = &file.text[at + start.len()..];
            let link = &rest[..rest.find(')').unwrap_or(0)];
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(&file.path) } else { folder.join(path) };
            let Ok(text) = std::fs::read(&target) else {
                if !target.is_dir() {
                    findings.push(format!("{}: {link}: there is no such file", file.path));
                }
                continue;
            };
            let text = String::from_utf8_lossy(&text);
            let headings = text.lines().filter(|line| line.starts_with('#'));
            if !section.is_empty() && !headings.map(anchor).any(|known| known == section) {
                findings.push(format!("{}: {link}: there is no such heading", file.path));
            }
        }
    }
    nothing_in(&findings, "correct the link, or write what it leads to");
}

#[test]
fn documents_that_the_code_names_exist() {
    let mut findings = Vec::new();
    for dir in ["src", "tests", "benches"] {
        for file in files(dir, &[".rs"]) {
            for (at, start) in file.text.match_indices("docs/") {
                let rest = &file.text[at + start.len()..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"/-_.".contains(c));
                let name = &rest[..end.unwrap_or(rest.len())];
                let Some((name, _)) = name.split_once(".md") else { continue };
                let path = format!("docs/{name}.md");
                if !root().join(&path).is_file() {
                    findings.push(format!("{}: {path}", file.path));
                }
            }
        }
    }
    nothing_in(&findings, "correct the name, or write the document");
}
