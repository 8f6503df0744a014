//! How far a run is, on a terminal.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::load::Load;
use crate::time::Now;

/// A bar on standard error, if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    load: Arc<Load>,
}

impl Progress {
    /// How often it is worth showing.
    pub(super) const TICK: Duration = Duration::from_millis(200);

    pub(super) fn new(name: &'static str, load: Arc<Load>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:<8} {bar:30} {percent:>3}% {msg}")
                .expect("the template is well-formed");
            let millis = load.span.end.since(load.span.begin).as_millis();
            let length = u64::try_from(millis).unwrap_or(u64::MAX);
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
            bar.set_style(style);
            bar.set_prefix(name);
            bar
        });
        Self { bar, load }
    }

    /// Shows how far it is by now.
    pub(super) fn show(&self) {
        let Some(bar) = &self.bar else { return };
        let elapsed = Now::read().moment.since(self.load.span.begin);
        bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let (published, delivered) = (self.load.published.total(), self.load.delivered.total());
        bar.set_message(match delivered {
            0 => format!("{published} published"),
            _ => format!("{published} published, {delivered} delivered"),
        });
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
