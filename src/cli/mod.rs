//! The command line.

use std::process::ExitCode;

/// Runs the `wiber` command with the process's arguments.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
