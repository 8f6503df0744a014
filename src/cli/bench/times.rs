//! How long things took: an HDR histogram of nanoseconds, and what is said of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Times, exact to a thousandth.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

/// The percentiles that are shown, and how they are named in JSON.
const PERCENTILES: [(f64, &str); 4] =
    [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9")];

impl Times {
    pub(super) fn new() -> Self {
        Self(Histogram::new(3).expect("three digits are possible"))
    }

    /// `count` things took so long.
    pub(super) fn add(&mut self, time: Duration, count: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.record_n(nanos, count).expect("it grows with what is recorded");
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn percentile(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percentile))
    }

    /// The percentiles and the longest, as cells of a table.
    pub(super) fn cells(&self) -> Vec<String> {
        if self.is_empty() {
            return vec!["-".to_owned(); PERCENTILES.len() + 1];
        }
        let mut cells: Vec<_> =
            PERCENTILES.iter().map(|(p, _)| short(self.percentile(*p))).collect();
        cells.push(short(Duration::from_nanos(self.0.max())));
        cells
    }

    /// Headings for [`Times::cells`].
    pub(super) fn headings() -> Vec<String> {
        PERCENTILES.iter().map(|(_, name)| (*name).to_owned()).chain(["max".to_owned()]).collect()
    }

    /// As an object of microseconds; null if nothing was measured.
    pub(super) fn json(&self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        let micros = |time: Duration| json!(time.as_nanos() as f64 / 1000.0);
        let mut object = json!({ "count": self.0.len() });
        for (percentile, name) in PERCENTILES {
            object[name] = micros(self.percentile(percentile));
        }
        object["max"] = micros(Duration::from_nanos(self.0.max()));
        object
    }
}

/// A time in up to three digits and its unit: `64ns`, `98.1µs`, `1.02ms`, `12.3s`.
pub(super) fn short(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (value, unit) = match time.as_nanos() {
        0..1_000 => return format!("{nanos:.0}ns"),
        1_000..1_000_000 => (nanos / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (nanos, text) in [
            (0, "0ns"),
            (64, "64ns"),
            (999, "999ns"),
            (1_234, "1.23µs"),
            (98_149, "98.1µs"),
            (999_499, "999µs"),
            (1_020_000, "1.02ms"),
            (12_345_678_901, "12.3s"),
        ] {
            assert_eq!(short(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn percentiles_are_of_all_that_was_added() {
        let mut times = Times::new();
        assert_eq!(times.json(), Value::Null);
        times.add(Duration::from_micros(100), 99);
        times.add(Duration::from_millis(5), 1);
        let json = times.json();
        assert_eq!(json["count"], 100);
        assert!((json["p50"].as_f64().unwrap() - 100.0).abs() < 0.2, "{json}");
        assert!((json["max"].as_f64().unwrap() - 5000.0).abs() < 10.0, "{json}");
        assert_eq!(times.cells().len(), Times::headings().len());
    }
}
