//! Licences, bans, duplicates and sources of the dependencies, by the rules of `deny.toml`.
//!
//! The same file serves `cargo deny`, which also knows published advisories but needs the network
//! for them. This needs nothing but cargo, so it runs everywhere that the tests run.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::{nothing_in, root};

fn rules() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

/// The strings at `section.key`, or the `crate` of each table there.
fn list(rules: &toml::Table, section: &str, key: &str) -> Vec<String> {
    let values = rules[section][key].as_array().unwrap();
    let name =
        |value: &toml::Value| value.get("crate").unwrap_or(value).as_str().unwrap().to_owned();
    values.iter().map(name).collect()
}

/// Every package that is built for this machine, ours included.
fn packages() -> Vec<Value> {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", host])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let built: BTreeSet<String> =
        nodes.iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect();
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    packages.into_iter().filter(|p| built.contains(p["id"].as_str().unwrap())).collect()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// Whether a licence expression can be met with the licences of `allowed`. `/` is an old `OR`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let answer = any_of(&words, &mut at, allowed);
    answer && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut answer = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        answer |= all_of(words, at, allowed);
    }
    answer
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut answer = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        answer &= one(words, at, allowed);
    }
    answer
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let answer = any_of(words, at, allowed);
        let is_closed = words.get(*at) == Some(&")");
        *at += 1;
        return answer && is_closed;
    }
    let mut licence = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        licence = format!("{licence} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&licence)
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(X OR MIT) AND Unicode-3.0"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND X", "X WITH Y OR Z", "(MIT", "MIT MIT"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn licences_are_allowed() {
    let allowed = list(&rules(), "licenses", "allow");
    let mut findings = Vec::new();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            findings.push(format!("{}: {licence}", name(&package)));
        }
    }
    let what_to_do = "use another crate; or, if the licence asks nothing of who uses the binary, \
                      add it to [licenses] in deny.toml";
    nothing_in(&findings, what_to_do);
}

#[test]
fn nothing_banned_is_used_and_nothing_twice() {
    let rules = rules();
    let (banned, skipped) = (list(&rules, "bans", "deny"), list(&rules, "bans", "skip"));
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let version = package["version"].as_str().unwrap().to_owned();
        versions.entry(name(&package).to_owned()).or_default().insert(version);
    }
    let mut findings: Vec<String> =
        banned.iter().filter(|name| versions.contains_key(*name)).map(String::clone).collect();
    for (name, versions) in &versions {
        let is_expected = skipped.iter().any(|skip| skip.split('@').next() == Some(name));
        if versions.len() > 1 && !is_expected {
            findings.push(format!("{name}: {}", Vec::from_iter(versions.clone()).join(", ")));
        }
    }
    let what_to_do = "choose versions that agree (`cargo tree -d`), or give the reason in [bans] of \
                      deny.toml";
    nothing_in(&findings, what_to_do);
}

#[test]
fn everything_comes_from_the_package_registry() {
    let mut findings = Vec::new();
    for package in packages() {
        // Our own package has no source.
        let source = package["source"].as_str().unwrap_or("registry+");
        if !(source.starts_with("registry+") || source.starts_with("sparse+")) {
            findings.push(format!("{}: {source}", name(&package)));
        }
    }
    nothing_in(
        &findings,
        "depend on a published version: a branch can change and a path can vanish",
    );
}
