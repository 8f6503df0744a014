//! How far a run is, on a terminal.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error, if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// How often it is worth showing.
    pub(super) const TICK: Duration = Duration::from_millis(200);

    /// `length` is how far it goes, in any unit.
    pub(super) fn new(name: &'static str, length: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:<8} {bar:30} {percent:>3}% {msg}")
                .expect("the template is well-formed");
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
            bar.set_style(style);
            bar.set_prefix(name);
            bar
        });
        Self { bar }
    }

    /// Shows how far it is by now.
    pub(super) fn show(&self, position: u64, words: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(words());
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
