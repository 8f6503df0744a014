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

    fn json(&self, messages: u64) -> Value {
        json!({
            "cpu_cores": rounded(self.cores()),
            "cpu_us_per_message": rounded(ratio(self.cpu * 1e6, messages)),
            "memory_bytes": self.memory,
        })
    }

    fn describe(&self, messages: u64) -> String {
        format!(
            "{:.2} cores, {:.2} µs a message · {} of memory",
            self.cores(),
            ratio(self.cpu * 1e6, messages),
            bytes(self.memory),
        )
    }
}

impl Row {
    fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
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
    /// Messages that went through the broker in any way.
    fn messages(&self) -> u64 {
        self.rows.iter().map(|row| row.messages).sum()
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
        let share = |share: Option<Share>| json!(share.map(|share| share.json(self.messages())));
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
        let mut line = |text: String| out.line(text.as_bytes());
        line(format!("{} · {}", self.plan.name, self.plan.describe()));
        line(String::new());
        line(cells("", "msg/s", "MB/s", &Times::headings()));
        for row in &self.rows {
            let per_second = format!("{:.0}", row.per_second());
            let megabytes = format!("{:.1}", row.bytes as f64 / row.seconds / 1e6);
            line(cells(row.what, &per_second, &megabytes, &row.times.cells()));
        }
        line(String::new());
        let share = |share: Option<Share>| share.map(|share| share.describe(self.messages()));
        let settings = settings.map(Settings::describe);
        let (broker, client) = (share(self.used.broker), share(self.used.client));
        for (name, words) in [("broker", broker), ("", settings), ("client", client)] {
            if let Some(words) = words {
                line(format!("{name:<6}  {words}"));
            }
        }
        if let Some(written) = self.used.written {
            let each = bytes(written.checked_div(self.rows[0].messages).unwrap_or(0));
            line(format!("disk    {} written meanwhile, {each} a message", bytes(written)));
        }
        if let Some(disk) = disk {
            line(format!("        {}", disk.describe()));
        }
        if let Some(paced) = &self.paced {
            line(format!(
                "sender  late by {} (p50), {} (p99)",
                short(paced.lag.percentile(50.0)),
                short(paced.lag.percentile(99.0))
            ));
            if let Some(warning) = self.warning() {
                line(warning);
            }
        }
    }

    /// What takes meaning from the numbers.
    pub(super) fn warning(&self) -> Option<String> {
        let unsent = self.paced.as_ref()?.unsent;
        (unsent > 0).then(|| {
            format!("the rate was too high: {unsent} messages could not be sent, even 10 s later")
        })
    }
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
        out.line(format!("{} · {}", self.plan.name, self.plan.describe()).as_bytes());
        for (n, row) in self.rows.iter().enumerate() {
            let mut times = row.times.cells();
            times.remove(1);
            let used = self.used.broker.filter(|_| n == 0);
            let cores = used.map(|used| format!("{:.2}", used.cores())).unwrap_or_default();
            let memory = used.map(|used| bytes(used.memory)).unwrap_or_default();
            let per_second = format!("{:.0}", row.per_second());
            out.line(tour_line(row.what, &per_second, &times, &cores, &memory).as_bytes());
        }
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

fn ratio(of: f64, to: u64) -> f64 {
    if to == 0 { 0.0 } else { of / to as f64 }
}

/// Three digits behind the point: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
