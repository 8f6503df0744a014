//! What can be wrong with settings, and what to do about it.

use std::path::PathBuf;

use super::keys::Key;
use super::load::Origin;

/// Why the settings can't be used. Each says what is wrong and where; [`ConfigError::hint`] says
/// what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such setting.
    #[error("failed to read the settings: there is no setting {name} ({origin})")]
    Unknown {
        /// As it was written.
        name: String,
        /// Where.
        origin: Origin,
        /// What was meant, perhaps, written the same way.
        nearest: Option<String>,
    },
    /// The setting cannot have this value.
    #[error("failed to set {} to {value:?}: it has to be {} ({origin})", key.name, key.allowed)]
    BadValue {
        /// The setting.
        key: &'static Key,
        /// Its value, as it was written.
        value: String,
        /// Where.
        origin: Origin,
    },
    /// Two variables for the same setting do not agree.
    #[error("failed to set {}: {first} and {second} have different values", key.name)]
    Conflict {
        /// The setting.
        key: &'static Key,
        /// The short variable.
        first: String,
        /// The long one.
        second: String,
    },
    /// The value of a variable is not UTF-8.
    #[error("failed to read the variable {0}: its value is not UTF-8")]
    NotUtf8(String),
    /// The file is not TOML.
    #[error("failed to read {}, line {line}: {why}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Where in it; the first is 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::Unknown { nearest: Some(nearest), .. } => {
                format!("did you mean {nearest}?")
            }
            ConfigError::Unknown { nearest: None, .. } => {
                "`wiber config show` lists every setting".to_owned()
            }
            ConfigError::BadValue { key, .. } => {
                format!("its default is {}; `wiber help broker` says more", key.default)
            }
            ConfigError::Conflict { second, .. } => format!("keep one of them, such as {second}"),
            ConfigError::NotUtf8(_) => "set it anew, or unset it".to_owned(),
            ConfigError::BadFile { .. } => {
                "the file is TOML: sections such as [server], and lines such as port = 8888"
                    .to_owned()
            }
        }
    }
}
