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

    pub(super) fn new(name: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:<8} {bar:16} {percent:>3}% {msg}")
                .expect("the template is well-formed");
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            bar.set_style(style);
            bar.set_prefix(name);
            bar
        });
        Self { bar }
    }

    /// Shows on a bar that a test can ask.
    #[cfg(test)]
    pub(super) fn on(bar: &ProgressBar) -> Self {
        Self { bar: Some(bar.clone()) }
    }

    /// Shows how far it is by now, of how much in the same unit.
    pub(super) fn show(&self, position: u64, of: u64, words: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_length(of);
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
