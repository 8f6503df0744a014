//! What was counted before, in `benches/baseline.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The stored counts, and what they were counted on.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Processor and compiler.
    machine: String,
    /// Most that a count may grow, in percent.
    tolerance_percent: f64,
    /// Instructions a message, of each subject.
    instructions: BTreeMap<String, f64>,
}

/// What a count says.
pub(crate) struct Verdict {
    pub(crate) line: String,
    pub(crate) is_regression: bool,
}

impl Baseline {
    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.json")
    }

    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(Self::path()).unwrap_or_default();
        let empty = Self { tolerance_percent: 5.0, ..Self::default() };
        if text.is_empty() {
            return empty;
        }
        serde_json::from_str(&text).expect("--bless wrote it")
    }

    /// Stores it, as counted here.
    pub(crate) fn write(mut self) {
        self.machine = machine();
        let text = serde_json::to_string_pretty(&self).expect("names and numbers");
        std::fs::write(Self::path(), text + "\n").expect("the repository can be written to");
    }

    /// Whether counts of here can be held to it, or why not.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let here = machine();
        if here == self.machine {
            return Ok(());
        }
        Err(format!("the baseline is of {}, and this is {here}", self.machine))
    }

    pub(crate) fn compare(&self, name: &str, counted: f64) -> Verdict {
        let Some(before) = self.instructions.get(name) else {
            let line = format!("{name:<14} {counted:>12.1} {:>12} {:>8}", "-", "new");
            return Verdict { line, is_regression: true };
        };
        let percent = (counted / before - 1.0) * 100.0;
        let is_regression = percent > self.tolerance_percent;
        let mark = match percent {
            _ if is_regression => "  SLOWER",
            percent if percent < -self.tolerance_percent => "  faster: renew the baseline",
            _ => "",
        };
        let line = format!("{name:<14} {counted:>12.1} {before:>12.1} {percent:>+7.1}%{mark}");
        Verdict { line, is_regression }
    }

    pub(crate) fn set(&mut self, name: &str, counted: f64) {
        self.instructions.insert(name.to_owned(), (counted * 10.0).round() / 10.0);
    }
}

/// What counts depend on: `x86_64, rustc 1.95`.
fn machine() -> String {
    let version = Command::new("rustc").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = version.unwrap_or_default();
    let number = version.split_whitespace().nth(1).unwrap_or("unknown");
    let minor = number.rsplit_once('.').map_or(number, |(minor, _)| minor);
    format!("{}, rustc {minor}", std::env::consts::ARCH)
}
