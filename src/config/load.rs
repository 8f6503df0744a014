//! Bringing the sources together, and remembering where each value came from.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::file::{self, SettingsFile};
use super::keys::{FILE_VARIABLE, KEYS, Key};
use super::{Config, ConfigError};

/// Where the value of a setting came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line; the first is 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "file {}, line {line}", path.display()),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// What the command line sets.
#[derive(Clone, Default, Debug)]
pub struct Overrides(Vec<(&'static Key, String)>);

impl Overrides {
    /// Sets the setting of `flag` (such as `--port`), if there is a value.
    ///
    /// # Panics
    /// If no setting has this flag: a mistake in the code, which any use of it shows.
    #[must_use]
    pub fn with(mut self, flag: &str, value: Option<impl Into<String>>) -> Self {
        let key = KEYS.iter().find(|key| key.flag == Some(flag)).expect("the flag of a setting");
        self.0.extend(value.map(|value| (key, value.into())));
        self
    }
}

/// A setting, its effective value and where that came from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The setting.
    pub key: &'static Key,
    /// Its value, in the form that every source takes.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

/// Every setting with where its value came from, in the order of [`KEYS`].
#[derive(Clone, Debug)]
pub struct Explained {
    settings: Vec<Setting>,
}

impl Explained {
    /// Every setting.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

/// A value that a source gives to a key.
struct Given {
    key: &'static Key,
    value: String,
    origin: Origin,
}

pub(super) fn load(
    flags: &Overrides,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    file: Option<&SettingsFile>,
) -> Result<(Config, Explained), ConfigError> {
    let defaults = KEYS.iter().map(|key| {
        let value = key.default.to_owned();
        Given { key, value, origin: Origin::Default }
    });
    let mut given: Vec<Given> = defaults.collect();
    if let Some(file) = file {
        from_file(file, &mut given)?;
    }
    from_variables(variables, &mut given)?;
    for (key, value) in &flags.0 {
        let flag = key.flag.expect("`Overrides::with` found the key by its flag");
        given.push(Given { key, value: value.clone(), origin: Origin::Flag(flag) });
    }
    apply(given)
}

/// Later values win. All are checked: what would not do as the last word is a mistake already.
fn apply(given: Vec<Given>) -> Result<(Config, Explained), ConfigError> {
    let mut config = Config::blank();
    let mut origins = vec![Origin::Default; KEYS.len()];
    for Given { key, value, origin } in given {
        if !(key.set)(&mut config, value.trim()) {
            return Err(ConfigError::BadValue { key, value, origin });
        }
        let at = KEYS.iter().position(|known| known.name == key.name).expect("a key of the table");
        origins[at] = origin;
    }
    let explain = |(key, origin): (&'static Key, Origin)| {
        let value = (key.show)(&config);
        Setting { key, value, origin }
    };
    let settings = KEYS.iter().zip(origins).map(explain).collect();
    Ok((config, Explained { settings }))
}

fn from_file(file: &SettingsFile, given: &mut Vec<Given>) -> Result<(), ConfigError> {
    for entry in file::entries(file)? {
        let origin = Origin::File { path: file.path.clone(), line: entry.line };
        let Some(key) = KEYS.iter().find(|key| key.name == entry.name) else {
            let nearest = nearest(&entry.name, KEYS.iter().map(|key| key.name.to_owned()));
            return Err(ConfigError::Unknown { name: entry.name, origin, nearest });
        };
        if entry.is_list && !key.is_list {
            let value = format!("[{}]", entry.value);
            return Err(ConfigError::BadValue { key, value, origin });
        }
        given.push(Given { key, value: entry.value, origin });
    }
    Ok(())
}

fn from_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    given: &mut Vec<Given>,
) -> Result<(), ConfigError> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("WIBER_")) else { continue };
        let is_link = value.to_str().is_some_and(|value| is_of_a_link(name, value));
        if is_link || !is_ours(name)? {
            continue;
        }
        let name = name.to_owned();
        let Ok(value) = value.into_string() else { return Err(ConfigError::NotUtf8(name)) };
        ours.push((name, value));
    }
    let value_of = |name: &str| ours.iter().find(|(known, _)| known == name).map(|(_, v)| v);
    for key in KEYS {
        let long = key.variable();
        let short = key.short_variable.and_then(|short| Some((short, value_of(short)?)));
        let (name, value) = match (short, value_of(&long)) {
            (Some((first, one)), Some(other)) if one != other => {
                return Err(ConfigError::Conflict { key, first: first.to_owned(), second: long });
            }
            (_, Some(value)) => (long, value),
            (Some((short, value)), None) => (short.to_owned(), value),
            (None, None) => continue,
        };
        given.push(Given { key, value: value.clone(), origin: Origin::Variable(name) });
    }
    Ok(())
}

/// Whether this is what Kubernetes tells each container of a service called `wiber` or `wiber-…`, and Docker
/// one that is linked: where it is, as a URL. It is never a port.
fn is_of_a_link(name: &str, value: &str) -> bool {
    let is_url = || ["tcp://", "udp://", "sctp://"].iter().any(|begin| value.starts_with(begin));
    name.ends_with("_PORT") && !name.contains("__") && is_url()
}

/// Variables with `__` are settings or mistakes. Others may belong to anyone, unless they are almost
/// ours.
fn is_ours(name: &str) -> Result<bool, ConfigError> {
    let short = KEYS.iter().filter_map(|key| key.short_variable);
    let mut known: Vec<_> = short.chain([FILE_VARIABLE]).map(str::to_owned).collect();
    known.extend(KEYS.iter().map(Key::variable));
    if known.iter().any(|known| known == name) {
        return Ok(true);
    }
    let almost = almost(name, &known);
    if almost.is_none() && !name.contains("__") {
        return Ok(false);
    }
    let nearest = almost.or_else(|| nearest(name, known.into_iter()));
    let origin = Origin::Variable(name.to_owned());
    Err(ConfigError::Unknown { name: name.to_owned(), origin, nearest })
}

/// The one of `known` that `name` is but for a slip: in a letter or two, in the number of underscores,
/// or for want of the section.
fn almost(name: &str, known: &[String]) -> Option<String> {
    let plain = |name: &str| name.replace("__", "_");
    let leaf = |name: &str| name.rsplit_once("__").map(|(_, leaf)| format!("WIBER_{leaf}"));
    let forms = known.iter().flat_map(|known| {
        let forms = [Some(plain(known)), leaf(known)].into_iter().flatten();
        forms.map(move |form| (form, known))
    });
    let name = plain(name);
    let slips = forms.filter_map(|(form, known)| {
        let slips = strsim::damerau_levenshtein(&name, &form);
        (slips <= slips_max(form.len() - "WIBER_".len())).then_some((slips, known))
    });
    slips.min().map(|(_, known)| known.clone())
}

/// How many slips there may be in a name of so many letters: a short one is soon a word of its own.
fn slips_max(letters: usize) -> usize {
    match letters {
        0..=3 => 0,
        4..=5 => 1,
        _ => 2,
    }
}

/// The one of `known` that `name` was probably meant to be. A key without its section, or in the
/// wrong one, is near.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let leaf = |name: &str| name.rsplit(['.']).next().unwrap_or(name).to_owned();
    let distance = |other: &str| {
        let whole = strsim::damerau_levenshtein(name, other);
        let leaves = 1 + strsim::damerau_levenshtein(&leaf(name), &leaf(other));
        whole.min(leaves)
    };
    let near = known.map(|other| (distance(&other), other)).min()?;
    (near.0 <= (leaf(name).len() / 3).max(2)).then_some(near.1)
}
