//! The `wiber` command. Everything it does is in the library, under `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wiber::cli::main()
}
