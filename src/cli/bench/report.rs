//! What a run has found, as a table and as JSON.

use serde_json::{Value, json};

use super::disk::DiskTimes;
use super::pace::Paced;
use super::plan::Plan;
use super::process::Usage;
use super::target::{Reading, Settings};
use super::times::{Times, short};
use crate::cli::output::Out;
use crate::config::show_duration;

/// What a run has found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) plan: Plan,
    pub(super) rows: Vec<Row>,
    pub(super) used: Used,
    pub(super) paced: Option<Paced>,
}

/// One kind of thing that was done to messages.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) messages: u64,
    /// Of the messages themselves.
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) times: Times,
}

/// What was used meanwhile. What the system does not say is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    broker: Option<Share>,
    client: Option<Share>,
    /// Bytes that the broker's disk was given to write, by everyone.
    written: Option<u64>,
}

/// What a process has used meanwhile.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Seconds of processor time.
    cpu: f64,
    seconds: f64,
    /// The most memory that it has had, in bytes.
    memory: u64,
}

impl Used {
    pub(super) fn between(before: Reading, after: Reading, seconds: f64) -> Used {
        let share = |before: Option<Usage>, after: Option<Usage>| {
            let (before, after) = (before?, after?);
            Some(Share { cpu: after.cpu - before.cpu, seconds, memory: after.memory })
        };
        Used {
            broker: share(before.broker, after.broker),
            client: share(before.client, after.client),
            written: after.written.zip(before.written).map(|(after, before)| after - before),
        }
    }
}

impl Share {
    /// Processors that it kept busy.
    fn cores(&self) -> f64 {
        self.cpu / self.seconds
    }

    fn json(&self, of: &Row) -> Value {
        json!({
            "cpu_cores": rounded(self.cores()),
            "cpu_us_per_message": rounded(self.micros(of).unwrap_or(0.0)),
            "per_message": of.what,
            "memory_bytes": self.memory,
        })
    }

    fn words(&self, of: &Row) -> Vec<String> {
        let cores = format!("{:.2} cores", self.cores());
        let micros = self.micros(of).map(|micros| format!("{micros:.2} µs {}", of.one()));
        let memory = format!("{} of memory", bytes(self.memory));
        [cores].into_iter().chain(micros).chain([memory]).collect()
    }

    /// Processor time for each of the messages.
    fn micros(&self, of: &Row) -> Option<f64> {
        (of.messages > 0).then(|| self.cpu * 1e6 / of.messages as f64)
    }
}

impl Row {
    fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// One of its messages.
    fn one(&self) -> String {
        format!("a {} message", self.what)
    }

    fn json(&self) -> Value {
        json!({
            "messages": self.messages,
            "seconds": rounded(self.seconds),
            "per_second": rounded(self.per_second()),
            "bytes_per_second": rounded(self.bytes as f64 / self.seconds),
            "latency_us": self.times.json(),
        })
    }
}

impl Report {
    /// The messages that processor time is shared out to, all of it: those that were delivered, each
    /// time that they were. Where a run has no consumers, or its consumers are rows of their own, those
    /// that were published.
    fn counted(&self) -> &Row {
        let delivered = self.rows.iter().find(|row| row.what == "delivered");
        delivered.unwrap_or(&self.rows[0])
    }

    pub(super) fn json(&self, settings: Option<&Settings>, disk: Option<&DiskTimes>) -> Value {
        let Plan { name, connections, window, size, rate, topics, .. } = &self.plan;
        let Plan { subscribers, groups, members, duration, warmup, .. } = &self.plan;
        let mut object = json!({
            "run": name, "fsync": settings.map(|settings| &settings.fsync),
            "prefetch": settings.map(|settings| settings.prefetch), "connections": connections, "window": window,
            "size": size, "rate": rate, "topics": topics, "subscribers": subscribers,
            "groups": groups, "members": members, "duration": show_duration(*duration),
            "warmup": show_duration(*warmup), "messages": self.plan.messages,
        });
        for row in &self.rows {
            object[row.what] = row.json();
        }
        let share = |share: Option<Share>| json!(share.map(|share| share.json(self.counted())));
        object["broker"] = share(self.used.broker);
        object["client"] = share(self.used.client);
        object["written_bytes"] = json!(self.used.written);
        if let Some(paced) = &self.paced {
            object["unsent"] = json!(paced.unsent);
            object["send_lag_us"] = paced.lag.json();
        }
        object["disk"] = json!(disk.map(DiskTimes::json));
        object
    }

    /// The table of this run alone.
    pub(super) fn print(
        &self,
        out: &mut Out,
        settings: Option<&Settings>,
        disk: Option<&DiskTimes>,
    ) {
        let table = [self.rows(), self.uses(settings, disk)].concat();
        table.iter().for_each(|line| out.line(line.as_bytes()));
    }

    fn heading(&self) -> Vec<String> {
        wrapped(&format!("{} · ", self.plan.name), &self.plan.words())
    }

    /// What the load was, and what was done.
    fn rows(&self) -> Vec<String> {
        let mut lines = self.heading();
        lines.push(String::new());
        lines.push(cells("", "msg/s", "MB/s", &Times::headings()));
        for row in &self.rows {
            let per_second = format!("{:.0}", row.per_second());
            let megabytes = format!("{:.1}", row.bytes as f64 / row.seconds / 1e6);
            lines.push(cells(row.what, &per_second, &megabytes, &row.times.cells()));
        }
        lines.push(String::new());
        lines
    }

    /// What it took, and what it was done with.
    fn uses(&self, settings: Option<&Settings>, disk: Option<&DiskTimes>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |name: &str, words: &[String]| {
            lines.extend(wrapped(&format!("{name:<8}"), words));
        };
        if let Some(share) = self.used.broker {
            add("broker", &share.words(self.counted()));
        }
        if let Some(settings) = settings {
            add(if self.used.broker.is_some() { "" } else { "broker" }, &settings.words());
        }
        if let Some(share) = self.used.client {
            add("client", &share.words(self.counted()));
        }
        if let Some(written) = self.used.written {
            let published = &self.rows[0];
            let each = bytes(written.checked_div(published.messages).unwrap_or(0));
            let written = format!("{} written meanwhile", bytes(written));
            add("disk", &[written, format!("{each} {}", published.one())]);
        }
        if let Some(disk) = disk {
            add(if self.used.written.is_some() { "" } else { "disk" }, &[disk.describe()]);
        }
        if let Some(Paced { lag, .. }) = &self.paced {
            let [p50, p99] = [50.0, 99.0].map(|percentile| short(lag.percentile(percentile)));
            add("sender", &[format!("late by {p50} (p50), {p99} (p99)")]);
        }
        lines.extend(self.warning());
        lines
    }

    /// What takes meaning from the numbers.
    pub(super) fn warning(&self) -> Option<String> {
        let unsent = self.paced.as_ref()?.unsent;
        (unsent > 0)
            .then(|| format!("the rate was too high: {unsent} messages unsent even 10 s later"))
    }
}

/// Widest line of what is printed.
const COLUMNS: usize = 80;

/// Words in a row behind a head. Those that do not fit go below the first.
fn wrapped(head: &str, words: &[String]) -> Vec<String> {
    let width = |text: &str| text.chars().count();
    let (indent, mut lines) = (width(head), vec![head.to_owned()]);
    for word in words {
        let line = lines.last_mut().expect("the first is there");
        if width(line) == indent {
            line.push_str(word);
        } else if width(line) + width(" · ") + width(word) <= COLUMNS {
            line.extend([" · ", word]);
        } else {
            lines.push(format!("{:indent$}{word}", ""));
        }
    }
    lines
}

fn cells(what: &str, per_second: &str, megabytes: &str, times: &[String]) -> String {
    let times: String = times.iter().map(|cell| format!(" {cell:>8}")).collect();
    format!("{what:<10} {per_second:>9} {megabytes:>7}{times}")
}

/// The head of the table of several runs.
pub(super) fn print_tour_head(out: &mut Out) {
    let mut headings = Times::headings();
    headings.remove(1);
    out.line(tour_line("", "msg/s", &headings, "cpu", "memory").as_bytes());
}

impl Report {
    /// Its part of the table of several runs.
    pub(super) fn print_in_tour(&self, out: &mut Out) {
        self.in_tour().iter().for_each(|line| out.line(line.as_bytes()));
    }

    fn in_tour(&self) -> Vec<String> {
        let mut lines = self.heading();
        for (n, row) in self.rows.iter().enumerate() {
            let mut times = row.times.cells();
            times.remove(1);
            let used = self.used.broker.filter(|_| n == 0);
            let cores = used.map(|used| format!("{:.2}", used.cores())).unwrap_or_default();
            let memory = used.map(|used| bytes(used.memory)).unwrap_or_default();
            let per_second = format!("{:.0}", row.per_second());
            lines.push(tour_line(row.what, &per_second, &times, &cores, &memory));
        }
        lines
    }
}

fn tour_line(what: &str, per_second: &str, times: &[String], cpu: &str, memory: &str) -> String {
    let times: String = times.iter().map(|cell| format!(" {cell:>8}")).collect();
    let line = format!("  {what:<10} {per_second:>9}{times} {cpu:>5} {memory:>9}");
    line.trim_end().to_owned()
}

/// Bytes in three digits or four.
fn bytes(bytes: u64) -> String {
    let (value, unit) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (bytes as f64 / 1024.0, "KiB"),
        1_048_576..1_073_741_824 => (bytes as f64 / 1_048_576.0, "MiB"),
        _ => (bytes as f64 / 1_073_741_824.0, "GiB"),
    };
    let digits = usize::from(value < 99.95);
    format!("{value:.digits$} {unit}")
}

/// Three digits behind the point: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::plan;
    use super::*;

    const SETTINGS: Settings =
        Settings { fsync: String::new(), prefetch: 5, message: 1, again_after: Duration::ZERO };

    fn row(what: &'static str, messages: u64) -> Row {
        let mut times = Times::new();
        times.add(Duration::from_nanos(999_950), 1);
        times.add(Duration::from_secs(99_999), 1);
        Row { what, messages, bytes: messages * 100, seconds: 1.0, times }
    }

    fn report(plan: Plan, rows: Vec<Row>, cpu: f64, memory: u64) -> Report {
        let share = Some(Share { cpu, seconds: 1.0, memory });
        let used = Used { broker: share, client: share, written: Some(memory) };
        Report { plan, rows, used, paced: None }
    }

    #[test]
    fn everything_fits_a_terminal_also_in_large_numbers() {
        let (plan, many) = (plan::MIXED, 123_456_789_012);
        let plan = Plan { connections: 1_000_000, window: u32::MAX, size: 16_777_215, ..plan };
        let plan = Plan { topics: 1_000_000, subscribers: 1_000_000, members: 1_000_000, ..plan };
        let plans = [
            Plan { rate: Some(100_000_000), groups: 1_000_000, ..plan.clone() },
            Plan { name: "catchup", messages: Some(many), groups: 1, ..plan.clone() },
            Plan { connections: 64, subscribers: 100, ..plan::MIXED },
        ];
        let disk = DiskTimes { growing: row("", 0).times, preallocated: row("", 0).times };
        let settings =
            Settings { fsync: "interval:86399999ms".to_owned(), prefetch: 10_000, ..SETTINGS };
        for plan in plans {
            let rows = vec![row("published", 999_999_999), row("delivered", 3)];
            let paced = Paced { sent: 1, unsent: u64::MAX, lag: row("", 0).times };
            let report = report(plan, rows, 9_999.99, 9_999_999_999_999);
            let report = Report { paced: Some(paced), ..report };
            let uses = report.uses(Some(&settings), Some(&disk));
            for line in [report.rows(), uses, report.in_tour()].concat() {
                assert!(line.chars().count() <= COLUMNS, "{line:?}");
                assert_eq!(line.trim_end(), line);
            }
        }
    }

    #[test]
    fn words_that_do_not_fit_go_below_the_first() {
        let words = ["a", "b", "c"].map(|word| word.repeat(30));
        let [a, b, c] = &words;
        assert_eq!(wrapped("x · ", &words), [format!("x · {a} · {b}"), format!("    {c}")]);
        assert_eq!(wrapped("disk    ", &words[..1]), [format!("disk    {a}")]);
    }

    #[test]
    fn processor_time_is_shared_out_to_one_kind_of_message_and_says_which() {
        let published = || row("published", 1_000);
        let (history, group) = (row("history", 1_000), row("group", 1_000));
        for (plan, rows, words, kind, micros) in [
            (plan::PUB, vec![published()], "1000.00 µs a published message", "published", 1000.0),
            (
                plan::FANOUT,
                vec![published(), row("delivered", 100_000)],
                "10.00 µs a delivered message",
                "delivered",
                10.0,
            ),
            (
                plan::GROUP,
                vec![published(), history, group],
                "1000.00 µs a published message",
                "published",
                1000.0,
            ),
        ] {
            let report = report(plan, rows, 1.0, 500_000);
            let lines = report.uses(None, None);
            for name in ["broker", "client"] {
                let line = format!("{name}  1.00 cores · {words} · 488 KiB of memory");
                assert!(lines.contains(&line), "no {line:?} in {lines:?}");
                let share = &report.json(None, None)[name];
                assert_eq!(
                    (&share["per_message"], &share["cpu_us_per_message"]),
                    (&kind.into(), &micros.into())
                );
            }
            assert_eq!(lines[2], "disk    488 KiB written meanwhile · 500 B a published message");
        }
    }

    #[test]
    fn where_nothing_was_delivered_in_time_no_share_is_made_up() {
        let rows = vec![row("published", 1), row("delivered", 0)];
        let lines = report(plan::SUB, rows, 1.0, 1).uses(None, None);
        assert_eq!(lines[0], "broker  1.00 cores · 1 B of memory");
    }
}
