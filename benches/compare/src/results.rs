//! What was measured, as it is kept in a file and as tables read it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::figures::median;
use crate::machine::{Limits, Machine};
use crate::peers::{Peer, SETUPS, Setup, Strength};
use crate::works::Figures;

/// A cache line that takes less there and back stays in one cache.
pub(crate) const NEAR_NANOS: f64 = 150.0;

/// One work done once by one broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) round: u32,
    pub(crate) work: String,
    pub(crate) setup: String,
    pub(crate) figures: Figures,
    /// The share of the processors that the hypervisor gave to others meanwhile.
    pub(crate) stolen: f64,
    /// How long a cache line took there and back between two processors just before, in nanoseconds; zero
    /// if that is not known.
    #[serde(default)]
    pub(crate) cache_line: f64,
    /// How often it was done over since too much was stolen.
    pub(crate) repeats: u32,
    /// Why there are no figures.
    pub(crate) error: Option<String>,
}

/// Everything that was measured in one sitting.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The day, as `2026-01-31`.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    /// By the peer's id. What is not here was not there to be measured.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    /// What the machine does by itself, before each round.
    pub(crate) limits: Vec<Limits>,
    pub(crate) runs: Vec<Run>,
}

/// Where the results stand until all is measured.
fn part(path: &Path) -> PathBuf {
    path.with_extension("part.json")
}

impl Results {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("failed to read {}: measure first", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes what there is so far to a file beside this one, which stays as it is: the last results
    /// are not lost to a run that is interrupted.
    pub(crate) fn save_part(&self, path: &Path) -> Result<()> {
        let part = part(path);
        let write =
            || -> Result<()> { Ok(fs::write(&part, serde_json::to_string_pretty(self)? + "\n")?) };
        write().with_context(|| format!("failed to write {}", part.display()))
    }

    /// Replaces the file as a whole, when all is measured.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        self.save_part(path)?;
        fs::rename(part(path), path).with_context(|| format!("failed to write {}", path.display()))
    }

    fn of(&self, work: &str, setup: &str) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.work == work && run.setup == setup)
    }

    /// Of the times that a cache line took before each run, of this setup or of all: the share of short
    /// ones. `None` if they are not known.
    pub(crate) fn share_of_near(&self, setup: Option<&str>) -> Option<f64> {
        let times = || {
            let runs = self.runs.iter().filter(|run| setup.is_none_or(|id| run.setup == id));
            runs.map(|run| run.cache_line).filter(|nanos| *nanos > 0.0)
        };
        let share = |count: usize, of: usize| count as f64 / of as f64;
        let all = times().count();
        (all > 0).then(|| share(times().filter(|nanos| *nanos < NEAR_NANOS).count(), all))
    }

    /// Whether this was tried at all.
    pub(crate) fn has_run(&self, work: &str, setup: &str) -> bool {
        self.of(work, setup).next().is_some()
    }

    /// The median of a figure, if it was measured.
    pub(crate) fn median(&self, work: &str, setup: &str, figure: &str) -> Option<f64> {
        median(self.of(work, setup).filter_map(|run| run.figures.get(figure)).copied().collect())
    }

    /// Why this work has no figures at all with this setup, if it failed.
    pub(crate) fn error(&self, work: &str, setup: &str) -> Option<&str> {
        self.of(work, setup).find_map(|run| run.error.as_deref())
    }

    /// The best of the peers of this strength. How long a start takes is compared only among those
    /// with as many messages.
    pub(crate) fn best(&self, row: &Row, strength: Strength) -> Option<(&'static Setup, f64)> {
        let others = SETUPS.iter().filter(|s| s.peer != Peer::Wiber && s.strength == strength);
        let messages = |id| self.median(row.work, id, "messages");
        let is_alike = |setup: &&Setup| {
            row.name != "start" || messages(setup.id) == messages(Peer::Wiber.id())
        };
        let figure =
            |setup: &'static Setup| Some((setup, self.median(row.work, setup.id, row.figure)?));
        others.filter(is_alike).filter_map(figure).reduce(|a, b| {
            let is_better = if row.more_is_better { b.1 > a.1 } else { b.1 < a.1 };
            if is_better { b } else { a }
        })
    }

    /// How many times as good as this Wiber is: over 1 is better, whatever is measured.
    pub(crate) fn ratio(&self, row: &Row, other: f64) -> Option<f64> {
        let own = self.median(row.work, "wiber", row.figure)?;
        let ratio = if row.more_is_better { own / other } else { other / own };
        ratio.is_finite().then_some(ratio)
    }
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A second.
    Rate,
    /// From microseconds.
    Time,
    /// From milliseconds.
    LongTime,
    Bytes,
}

impl Unit {
    /// In three digits.
    pub(crate) fn write(self, figure: f64) -> String {
        match self {
            Self::Rate => thousands(figure),
            Self::Time if figure >= 1e6 => format!("{} s", three(figure / 1e6)),
            Self::Time if figure >= 1e3 => format!("{} ms", three(figure / 1e3)),
            Self::Time => format!("{} µs", three(figure)),
            Self::LongTime => Self::Time.write(figure * 1e3),
            Self::Bytes if figure >= 1024.0 * 1024.0 * 1024.0 => {
                format!("{} GiB", three(figure / 1024.0 / 1024.0 / 1024.0))
            }
            Self::Bytes if figure >= 1024.0 * 1024.0 => {
                format!("{} MiB", three(figure / 1024.0 / 1024.0))
            }
            Self::Bytes => format!("{} KiB", three(figure / 1024.0)),
        }
    }
}

/// Three digits, without an exponent.
pub(crate) fn three(figure: f64) -> String {
    let digits = match figure {
        f if f < 9.995 => 2,
        f if f < 99.95 => 1,
        _ => 0,
    };
    format!("{figure:.digits$}")
}

/// Rounded to three digits, with a comma before each three.
fn thousands(figure: f64) -> String {
    let mut unit = 1.0;
    while figure / unit >= 999.5 {
        unit *= 10.0;
    }
    let text = format!("{:.0}", (figure / unit).round() * unit);
    let mut out = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A figure of the tables.
#[derive(Debug)]
pub(crate) struct Row {
    /// As `--work` names it.
    pub(crate) name: &'static str,
    /// The work that measures it.
    pub(crate) work: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) more_is_better: bool,
}

impl Row {
    /// A short name, for the terminal and for files.
    pub(crate) fn label(&self) -> String {
        match self.figure.rsplit('_').next() {
            Some("rate") | None => self.name.to_owned(),
            Some(figure) if figure == self.name => figure.to_owned(),
            Some(figure) => format!("{} {figure}", self.name),
        }
    }
}

const fn rate(name: &'static str, work: &'static str, title: &'static str) -> Row {
    let figure = "rate";
    Row { name, work, figure, title, unit: Unit::Rate, more_is_better: true }
}

const fn less(
    name: &'static str,
    work: &'static str,
    figure: &'static str,
    title: &'static str,
    unit: Unit,
) -> Row {
    Row { name, work, figure, title, unit, more_is_better: false }
}

/// Every figure, in the order of the tables.
pub(crate) static ROWS: [Row; 19] = [
    rate("pub-1", "pub-1", "one at a time"),
    less("pub-1", "pub-1", "p50", "one at a time, p50", Unit::Time),
    less("pub-1", "pub-1", "p99", "one at a time, p99", Unit::Time),
    rate("pub-1000", "pub-1000", "1 connection × 1,000 in flight"),
    rate("pub-16x100", "pub-16x100", "16 connections × 100 in flight"),
    rate("pub-64x1", "pub-64x1", "64 connections × 1 in flight"),
    rate("pub-1k", "pub-1k", "1 KiB, 1 × 1,000 in flight"),
    rate("queue", "queue", "queue, end to end"),
    Row { figure: "drain", ..rate("drain", "stored", "draining what waits") },
    Row { figure: "replay", ..rate("replay", "stored", "reading from the start") },
    rate("fan-1", "fan-1", "to 1 subscriber"),
    rate("fan-10", "fan-10", "to 10 subscribers"),
    rate("fan-100", "fan-100", "to 100 subscribers"),
    less("latency", "latency", "p50", "latency, p50", Unit::Time),
    less("latency", "latency", "p99", "latency, p99", Unit::Time),
    less("memory", "idle", "empty", "memory, empty", Unit::Bytes),
    less("memory", "idle", "connection", "memory, a connection", Unit::Bytes),
    less("start", "stored", "start_clean", "start after a stop", Unit::LongTime),
    less("start", "stored", "start_killed", "start after kill -9", Unit::LongTime),
];

/// Memory while messages wait: not among [`ROWS`], since not everyone has as many.
pub(crate) static WAITING: Row =
    less("memory", "stored", "waiting", "memory, messages waiting", Unit::Bytes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (unit, figure, text) in [
            (Unit::Rate, 1_234_567.0, "1,230,000"),
            (Unit::Rate, 999.7, "1,000"),
            (Unit::Rate, 42.4, "42"),
            (Unit::Time, 267.3, "267 µs"),
            (Unit::Time, 1020.0, "1.02 ms"),
            (Unit::LongTime, 1234.0, "1.23 s"),
            (Unit::Bytes, 512.0, "0.50 KiB"),
            (Unit::Bytes, 6.5 * 1024.0 * 1024.0, "6.50 MiB"),
        ] {
            assert_eq!(unit.write(figure), text);
        }
    }

    fn run(work: &str, setup: &str, figure: f64) -> Run {
        Run {
            round: 1,
            work: work.to_owned(),
            setup: setup.to_owned(),
            figures: Figures::from([("rate".to_owned(), figure), ("p50".to_owned(), figure)]),
            stolen: 0.0,
            cache_line: 0.0,
            repeats: 0,
            error: None,
        }
    }

    /// A run that was interrupted in its first minute left a torso in place of the last results.
    #[test]
    fn the_last_results_stay_until_all_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("results.json");
        let results = |rounds| Results { rounds, ..Results::default() };
        results(1).save(&file).unwrap();
        results(2).save_part(&file).unwrap();
        assert_eq!(Results::load(&file).unwrap().rounds, 1);
        results(2).save(&file).unwrap();
        assert_eq!(Results::load(&file).unwrap().rounds, 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the part has become it");
    }

    #[test]
    fn wiber_is_held_against_the_best_of_each_strength() {
        let runs = [
            ("wiber", 10.0),
            ("wiber", 30.0),
            ("wiber", 20.0),
            ("redis-always", 5.0),
            ("nats-always", 8.0),
            ("nats-default", 40.0),
        ];
        let runs = runs.map(|(setup, figure)| run("pub-1", setup, figure)).to_vec();
        let results = Results { runs, ..Results::default() };
        let (rates, times) = (&ROWS[0], &ROWS[1]);
        let best = |row, strength| results.best(row, strength).map(|(s, f)| (s.id, f));
        assert_eq!(best(rates, Strength::Same), Some(("nats-always", 8.0)));
        assert_eq!(best(times, Strength::Same), Some(("redis-always", 5.0)));
        assert_eq!(best(rates, Strength::Weaker), Some(("nats-default", 40.0)));
        assert_eq!(results.ratio(rates, 8.0), Some(2.5));
        assert_eq!(results.ratio(times, 5.0), Some(0.25));
        assert_eq!(best(&ROWS[3], Strength::Same), None);
    }
}
