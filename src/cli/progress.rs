//! A progress bar on a terminal, for what takes long.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::time::Moment;

/// What is over sooner needs no bar.
const LONG: Duration = Duration::from_secs(1);

/// How far publishing the standard input has come; shown on standard error if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    since: Moment,
    is_wanted: bool,
    bar: Option<ProgressBar>,
    bytes: u64,
    messages: u64,
}

impl Progress {
    /// `is_quiet`: nothing else is written to the terminal meanwhile.
    pub(super) fn new(is_quiet: bool) -> Self {
        let alone = is_quiet || !io::stdout().is_terminal();
        let is_wanted = alone && io::stderr().is_terminal();
        Self { since: Moment::read(), is_wanted, bar: None, bytes: 0, messages: 0 }
    }

    /// So many bytes of input were sent.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.show();
    }

    /// So many messages have been published in all.
    pub(super) fn published(&mut self, messages: u64) {
        self.messages = messages;
        self.show();
    }

    fn show(&mut self) {
        if !self.is_wanted {
            return;
        }
        if self.bar.is_none() && Moment::read().since(self.since) >= LONG {
            self.bar = Some(new_bar());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.bytes);
            bar.set_message(format!("{} published", self.messages));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.is_wanted = false;
    }
}

/// With an end if standard input is a file, whose length is known.
fn new_bar() -> ProgressBar {
    let stat = rustix::fs::fstat(io::stdin()).ok();
    let is_file = |mode| rustix::fs::FileType::from_raw_mode(mode).is_file();
    let size = stat.filter(|stat| is_file(stat.st_mode)).map(|stat| stat.st_size);
    let length = size.and_then(|size| u64::try_from(size).ok());
    let template = match length {
        Some(_) => "{bar:30} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}",
        None => "{spinner} {bytes} {bytes_per_sec} {elapsed} {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates are well-formed");
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar
}
