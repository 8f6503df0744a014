//! Counting instructions, by running this very program under valgrind.

use std::process::{Command, Output};

/// The first argument of a run that is counted.
pub(crate) const RUN: &str = "--run-for-valgrind";

/// Messages of the two runs. Many enough for buffers to have grown in both.
const FEW: u64 = 2_000;
const MANY: u64 = 12_000;

fn valgrind(name: &str, messages: u64) -> std::io::Result<Output> {
    let program = std::env::current_exe()?;
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([RUN, name, &messages.to_string()])
        .output()
}

/// Whether instructions can be counted here, or why not.
pub(crate) fn probe() -> Result<(), String> {
    match valgrind(super::SUBJECTS[0].name, 1) {
        Ok(output) if collected(&output).is_some() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
            Err(format!(
                "valgrind does not work on this machine: {last}\nAll that it said:\n{said}"
            ))
        }
        Err(error) => {
            Err(format!("valgrind can't be started ({error}); on Debian: apt-get install valgrind"))
        }
    }
}

/// Instructions that each further message takes.
pub(crate) fn per_message(name: &str) -> f64 {
    let count = |messages| {
        let output = valgrind(name, messages).expect("it could be started before");
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name} failed:\n{}", said());
        collected(&output).unwrap_or_else(|| panic!("no count of {name} in:\n{}", said()))
    };
    let (few, many) = (count(FEW), count(MANY));
    (many - few) as f64 / (MANY - FEW) as f64
}

/// The total that callgrind prints: `==12== Collected : 123456`.
fn collected(output: &Output) -> Option<u64> {
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, rest) = text.rsplit_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}
