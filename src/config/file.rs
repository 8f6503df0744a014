//! `wiber.toml`: from text to the settings that stand in it.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// The file that is read without being asked for, if it is in the current directory.
pub const FILE_NAME: &str = "wiber.toml";

/// A settings file that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsFile {
    /// Where it is, as it is shown to people.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// What the file says about one setting, known or not.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// `section.key`.
    pub(super) name: String,
    /// Its value as text; an array's values are divided by commas.
    pub(super) value: String,
    /// Whether it was an array.
    pub(super) is_list: bool,
    /// Where it stands; the first line is 1.
    pub(super) line: usize,
}

/// Everything that the file sets.
pub(super) fn entries(file: &SettingsFile) -> Result<Vec<Entry>, ConfigError> {
    // A byte order mark, which editors of another world leave behind, means nothing.
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let line_at = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
    let table = DeTable::parse(text).map_err(|wrong| ConfigError::BadFile {
        path: file.path.clone(),
        line: line_at(wrong.span().map_or(0, |span| span.start)),
        why: wrong.message().replace('\n', ", "),
    })?;
    let mut entries = Vec::new();
    collect(table.get_ref(), "", &line_at, &mut entries);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn collect(
    table: &DeTable<'_>,
    section: &str,
    line_at: &impl Fn(usize) -> usize,
    entries: &mut Vec<Entry>,
) {
    for (key, value) in table {
        let name = format!("{section}{}", key.get_ref());
        let line = line_at(key.span().start);
        match value.get_ref() {
            // A section that is empty but not ours is as unknown as one with something in it.
            DeValue::Table(inner) if !inner.is_empty() => {
                collect(inner, &format!("{name}."), line_at, entries);
            }
            DeValue::Table(_) if is_section(&name) => {}
            other => {
                let is_list = matches!(other, DeValue::Array(_));
                entries.push(Entry { name, value: text_of(other), is_list, line });
            }
        }
    }
}

fn is_section(name: &str) -> bool {
    super::KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|s| s.starts_with('.')))
}

/// The value as it would stand in a variable.
fn text_of(value: &DeValue<'_>) -> String {
    let element = |value: &Spanned<DeValue<'_>>| text_of(value.get_ref());
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_too_long) => number.as_str().to_owned(),
        },
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(values) => values.iter().map(element).collect::<Vec<_>>().join(","),
        DeValue::Table(_) => "{}".to_owned(),
    }
}
