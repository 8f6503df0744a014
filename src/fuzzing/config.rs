//! Settings: the text of `wiber.toml`, and behind a NUL the environment, a variable a line.
//!
//! * Whatever stands there, the answer is a configuration or a mistake that says where it is.
//! * What `wiber config show` prints of a configuration is the same configuration.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{Config, ConfigError, Overrides, SettingsFile};

pub(super) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (text, environment) = text.split_once('\0').unwrap_or((&text, ""));
    let file = SettingsFile { path: PathBuf::from("wiber.toml"), text: text.to_owned() };
    let variables = environment.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match Config::load(&Overrides::default(), variables, Some(&file)) {
        Ok((config, explained)) => {
            let shown = explained.settings().iter().map(|setting| {
                (OsString::from(setting.key.variable()), OsString::from(&setting.value))
            });
            let (again, _) = Config::load(&Overrides::default(), shown, None)
                .unwrap_or_else(|error| panic!("what is shown is refused: {error}"));
            assert_eq!(again, config, "what is shown means something else");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.hint().is_empty());
            if let ConfigError::BadFile { line, .. } = error {
                let lines = 1 + text.matches('\n').count();
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
            }
        }
    }
}
