//! `wiber check`

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::Out;
use super::settings;
use crate::broker::lock_file::Holder;
use crate::check::{self, CheckError, Done, Finding, Guest, Kind, Level, Mend, Report, Seeds};
use crate::disk::os::OsDisk;
use crate::disk::{Disk, Gentle};
use crate::time::Now;

const EXAMPLES: &str = "\
Examples:
  wiber check --data-dir /srv/wiber             is everything whole?
  wiber check --data-dir /srv/wiber --json      an object for each finding
  wiber check --data-dir /srv/wiber --repair    repair what can be; make a copy first

Beside a running broker it reads what was there when it began, and gives way to the broker. One
that starts meanwhile is let in. A repair needs the broker stopped.

Exit codes: 0 whole, or all repaired · 10 damage · 5 directory not usable, or a repair while a
broker serves it. Torn bytes that a crash left behind are no damage: the next start sees to them.";

/// How much it gives way to a broker beside which it runs, added to its nice value.
const NICENESS: i32 = 10;

/// Verify a data directory, also while a broker serves it
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The data directory [default: the one of the settings, or ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A JSON object for each finding, and a last one for all
    #[arg(long)]
    json: bool,
    /// Repair what can be repaired; every byte that is replaced goes to .wiber/quarantine
    #[arg(long)]
    repair: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let dir = settings::data_dir(args.data_dir.as_deref())?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let failed = |error| failed(&dir, &error);
    let mut print = Print { out: Out::new(), dir: &dir, is_json: args.json };
    let _held = if args.repair { check::take(disk.as_ref(), &dir).map_err(failed)? } else { None };
    let mut report = if args.repair {
        walk(&mut |progress| check::check(&disk, &dir, progress))
    } else {
        verify(&disk, &dir)
    }
    .map_err(failed)?;
    for finding in &report.findings {
        print.finding(finding)?;
    }
    if args.repair && report.damages() > 0 {
        report = repair(&disk, &dir, report, &mut print)?;
        for left in report.findings.iter().filter(|finding| finding.level == Level::Damage) {
            print.finding(left)?;
        }
    }
    print.summary(&report, args.repair);
    print.out.flush_if_read()?;
    if report.damages() == 0 { Ok(()) } else { Err(Failure::quiet(Exit::Damage)) }
}

/// Repairs what can be repaired, also what was left out of the report. Gives what is there then: that is what
/// counts.
fn repair(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    mut report: Report,
    print: &mut Print<'_>,
) -> Result<Report, Failure> {
    let failed = |error| failed(dir, &error);
    loop {
        let seeds = Seeds { node: rand::random(), secret: rand::random() };
        let now = Now::read().wall;
        let done = check::repair(disk, dir, &report, now, seeds).map_err(failed)?;
        done.iter().try_for_each(|done| print.done(done))?;
        let before = report;
        report = walk(&mut |progress| check::check(disk, dir, progress)).map_err(failed)?;
        if !report.wants_another_repair(&before) {
            return Ok(report);
        }
    }
}

/// Checks, beside a broker if there is one, or comes one.
fn verify(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Report, CheckError> {
    let mut other = || -> Arc<dyn Disk> {
        // Where that can't be done it is like any other process.
        rustix::process::nice(NICENESS).ok();
        Arc::new(Gentle(Arc::clone(disk)))
    };
    match Guest::enter(disk, dir) {
        Ok(guest) => {
            let mut guest = Some(guest);
            walk(&mut |progress| {
                let guest = guest.take().expect("there is one walk");
                check::check_as_guest(guest, &mut other, progress)
            })
        }
        Err(CheckError::Locked { holder: Holder::Broker, .. }) => {
            let gentle = other();
            walk(&mut |progress| check::check_beside(&gentle, dir, progress))
        }
        Err(other) => Err(other),
    }
}

/// Shows a bar on standard error meanwhile, if that is a terminal.
fn walk(
    check: &mut dyn FnMut(check::Progress<'_>) -> Result<Report, CheckError>,
) -> Result<Report, CheckError> {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let template = "{bar:30} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
    let report = check(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    report
}

#[derive(Serialize)]
struct FindingJson<'a> {
    finding: Level,
    kind: Kind,
    file: &'a Path,
    byte: Option<u64>,
    what: &'a str,
    repair: String,
}

#[derive(Serialize)]
struct DoneJson<'a> {
    repaired: &'a Path,
    what: &'a str,
    kept: Option<&'a Path>,
}

#[derive(Serialize)]
struct SummaryJson {
    whole: bool,
    served: bool,
    damage: u64,
    left_out: u64,
    lost: u64,
    topics: u64,
    messages: u64,
    bytes: u64,
}

/// Standard output. If nobody reads it any more, the repair goes on, and the exit code still says what was
/// found.
struct Print<'a> {
    out: Out,
    dir: &'a Path,
    is_json: bool,
}

impl Print<'_> {
    fn short(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.dir).unwrap_or(path).to_owned()
    }

    fn finding(&mut self, finding: &Finding) -> Result<(), Failure> {
        let Finding { level, kind, byte, what, mend, .. } = finding;
        let file = self.short(&finding.file);
        let repair = mend.describe();
        if self.is_json {
            let (finding, kind, byte, file) = (*level, *kind, *byte, &file);
            self.out.json(&FindingJson { finding, kind, file, byte, what, repair });
        } else {
            let level = match level {
                Level::Damage => "damage",
                Level::Torn => "torn",
                Level::Note => "note",
            };
            let place = byte.map(|byte| format!(", byte {byte}")).unwrap_or_default();
            self.out.line(format!("{level:<7} {}{place}", file.display()).as_bytes());
            self.wrapped(what);
            if !repair.is_empty() {
                self.wrapped(&format!("repair: {repair}"));
            }
        }
        self.flush_full()
    }

    fn flush_full(&mut self) -> Result<(), Failure> {
        if self.out.is_full() { self.out.flush_if_read() } else { Ok(()) }
    }

    fn done(&mut self, done: &Done) -> Result<(), Failure> {
        let (file, kept) = (self.short(&done.file), done.kept.as_deref());
        let kept = kept.map(|kept| self.short(kept));
        if self.is_json {
            let kept = kept.as_deref();
            self.out.json(&DoneJson { repaired: &file, what: &done.what, kept });
        } else {
            self.out.line(format!("repaired {}", file.display()).as_bytes());
            self.wrapped(&done.what);
            if let Some(kept) = kept {
                self.wrapped(&format!("kept in {}", kept.display()));
            }
        }
        self.flush_full()
    }

    /// Text below a finding, in 80 columns where its words allow it.
    fn wrapped(&mut self, text: &str) {
        let indent = " ".repeat(7);
        let mut line = indent.clone();
        for word in text.split(' ') {
            let is_full = line.chars().count() + word.chars().count() + 1 > 80;
            if is_full && line != indent {
                self.out.line(line.as_bytes());
                line.clone_from(&indent);
            }
            line.push(' ');
            line.push_str(word);
        }
        self.out.line(line.as_bytes());
    }

    fn summary(&mut self, report: &Report, is_repaired: bool) {
        let Report { topics, messages, bytes, left_out, lost, .. } = *report;
        let damage = report.damages();
        if self.is_json {
            let (whole, served) = (damage == 0, report.is_beside);
            let all =
                SummaryJson { whole, served, damage, left_out, lost, topics, messages, bytes };
            return self.out.json(&all);
        }
        let (topics, messages) = (counted(topics, "topic"), counted(messages, "message"));
        let found = format!("{topics}, {messages}, {}", indicatif::DecimalBytes(bytes));
        let damages = counted(damage, "finding");
        let line = match (damage, lost) {
            (0, 0) if report.is_beside => format!("{found}: all whole, beside a running broker"),
            (0, 0) => format!("{found}: all whole"),
            (0, lost) => {
                let lost = indicatif::HumanCount(lost);
                format!("{found}: whole, but for {lost} lost before a repair")
            }
            _ if report.findings.iter().any(|finding| finding.mend == Mend::Blocked) => {
                format!("{found}; damage: {damages}\nmove away what is in a file's place first")
            }
            _ if is_repaired => format!("{found}; damage that can't be repaired: {damages}"),
            _ if report.is_beside => format!(
                "{found}; damage: {damages}\n\
                 stop the broker, make a copy of it, then run wiber check --repair"
            ),
            _ => format!(
                "{found}; damage: {damages}\nmake a copy of it, then run wiber check --repair"
            ),
        };
        line.split('\n').for_each(|line| self.out.line(line.as_bytes()));
    }
}

/// `1,000,000 messages`
fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", indicatif::HumanCount(count), if count == 1 { "" } else { "s" })
}

pub(super) fn failed(dir: &Path, error: &CheckError) -> Failure {
    let text = error.to_string();
    match error {
        CheckError::Locked { .. } => Failure::new(Exit::DataDirUnusable, text).hint(
            "stop it first, or wait for it; beside a broker a check without --repair can run",
        ),
        CheckError::Elsewhere { below, .. } => {
            Failure::new(Exit::DataDirUnusable, text).hint(match below {
                Some(below) => format!("did you mean --data-dir {}?", below.display()),
                None => "name one by --data-dir".to_owned(),
            })
        }
        _ => Failure::new(Exit::DataDirUnusable, text).hint(format!(
            "{} has to be a data directory whose files this user can read",
            dir.display()
        )),
    }
}
