//! What is made of the results: tables for the terminal, a document and plots for everyone.

mod document;
mod plots;
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::peers::Setup;
use crate::results::{Results, Row};
use crate::works::Work;

pub(crate) use terminal::terminal;

/// Writes the document and the plots below the folder of documents: which file, and how many plots.
pub(crate) fn write(results: &Results, docs: &Path) -> Result<(PathBuf, usize)> {
    let plots = docs.join("plots");
    fs::create_dir_all(&plots).with_context(|| format!("failed to make {}", plots.display()))?;
    let path = docs.join("performance-compared.md");
    let drawn = plots::draw(results, &plots)?;
    let text = document::document(results, &drawn);
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    Ok((path, drawn.len()))
}

/// What stands where a figure would: why there is none, or nothing if there cannot be one.
fn why_none(results: &Results, row: &Row, setup: &Setup) -> Option<&'static str> {
    if !can(row, setup) {
        return None;
    }
    if !results.has_run(row.work, setup.id) {
        return Some("not measured");
    }
    results.error(row.work, setup.id).map(|_| "failed")
}

/// Whether this setup does what the row is about.
fn can(row: &Row, setup: &Setup) -> bool {
    let mut works = Work::ALL.iter().filter(|(name, _)| *name == row.work);
    let has_it = row.figure != "replay" || setup.protocol().reader(1).is_some();
    has_it && works.any(|(_, work)| work.suits(setup))
}
