//! The document: tables of medians, with the machine, the versions, the settings and how to repeat.

use std::collections::BTreeMap;

use super::plots::Plot;
use super::{can, why_none};
use crate::figures::median;
use crate::machine::Limits;
use crate::peers::{Peer, SETUPS, Setup, Strength};
use crate::results::{NEAR_NANOS, ROWS, Results, Row, Unit, WAITING, three};
use crate::works::{IDLE, MEMBERS, SIZE};

/// A part of the document: its heading, what is said of it, and the works it is about.
struct Part {
    heading: &'static str,
    text: &'static str,
    rows: &'static [&'static str],
    plots: &'static [&'static str],
}

const PARTS: &[Part] = &[
    Part {
        heading: "Publishing",
        text: "Messages a second, each answered. Wiber keeps the machine's processors from sleeping while \
               its log is synced 2,000 times a second or more, where it is allowed to; *Wiber asleep* \
               does not (`server.keep_awake = never`). A peer gains as much if somebody else does that.",
        rows: &["pub-1", "pub-1000", "pub-16x100", "pub-64x1", "pub-1k"],
        plots: &["pub-1", "pub-1000", "pub-64x1"],
    },
    Part {
        heading: "Consumer groups and queues",
        text: "Messages a second. *Queue*: published by one connection with 1,000 in flight, \
               delivered to 4 members of a group, each acknowledged. *Draining*: the same members \
               work off what waits. Both count until the broker has settled the last \
               acknowledgement. *Reading*: one connection reads what is stored from the start, \
               which changes nothing.",
        rows: &["queue", "drain", "replay"],
        plots: &["queue", "drain", "replay"],
    },
    Part {
        heading: "Plain subscribers",
        text: "One connection publishes, every subscriber gets every message in order: messages a \
               second, delivered in all.",
        rows: &["fan-1", "fan-10", "fan-100"],
        plots: &["fan-100"],
    },
    Part {
        heading: "Latency",
        text: "1,000 messages a second, from when each was to be sent to when a consumer had it.",
        rows: &["latency"],
        plots: &["latency-p50", "latency-p99"],
    },
    Part {
        heading: "Memory",
        text: "Resident memory of the server and all its processes, without messages.",
        rows: &["memory"],
        plots: &["memory-empty"],
    },
    Part {
        heading: "Starts",
        text: "From the start of the process until it answers that it has every message: as many \
               as wait in the table above.",
        rows: &["start"],
        plots: &["start-killed"],
    },
];

/// Whether the document shows the plot of this name.
pub(super) fn shows(plot: &str) -> bool {
    PARTS.iter().any(|part| part.plots.contains(&plot))
}

/// The whole text.
pub(super) fn document(results: &Results, plots: &[Plot]) -> String {
    let mut out = String::from(
        "# Performance beside other brokers\n\n\
         Written by the crate in [benches/compare](../benches/compare/README.md), which measures\n\
         Wiber and other brokers on one machine, in turn, with one load generator.\n\
         [performance.md](performance.md) says what bounds Wiber.\n",
    );
    conditions(results, &mut out);
    ratios(results, &mut out);
    for part in PARTS {
        put(&mut out, &format!("\n## {}\n", part.heading));
        put_text(&mut out, part.text);
        let rows: Vec<&Row> = ROWS.iter().filter(|row| part.rows.contains(&row.name)).collect();
        table(results, &rows, &mut out);
        if part.heading == "Memory" {
            waiting(results, &mut out);
        }
        for plot in plots.iter().filter(|plot| part.plots.contains(&plot.name.as_str())) {
            let Plot { title, name, .. } = plot;
            put(&mut out, &format!("\n![{title}](plots/{name}.svg)"));
        }
    }
    settings(results, &mut out);
    failures(results, &mut out);
    out
}

fn put(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// A paragraph and the empty line behind it, in lines that a person can read.
fn put_text(out: &mut String, text: &str) {
    const WIDTH: usize = 100;
    let mut length = 0;
    for word in text.split_whitespace() {
        let more = word.chars().count();
        if length > 0 {
            let is_full = length + 1 + more > WIDTH;
            out.push(if is_full { '\n' } else { ' ' });
            length = if is_full { 0 } else { length + 1 };
        }
        out.push_str(word);
        length += more;
    }
    out.push_str("\n\n");
}

fn put_cells<'a>(out: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    let line: String = cells.into_iter().map(|cell| format!(" {cell} |")).collect();
    put(out, &format!("|{line}"));
}

fn conditions(results: &Results, out: &mut String) {
    let Results { date, machine, seconds, messages, limits, .. } = results;
    let rounds = if results.rounds == 1 { "one round" } else { "{n} rounds" };
    let rounds = rounds.replace("{n}", &results.rounds.to_string());
    let memory = Unit::Bytes.write(crate::works::bytes(machine.memory));
    let messages = Unit::Rate.write(crate::works::bytes(*messages));
    let text = format!(
        "{date}. {cores} processor cores ({processor}), {memory} of memory, Linux {kernel}, \
         data on {file_system}. Brokers and load share the cores; everything is on 127.0.0.1. \
         Medians of {rounds} ({seconds} s for each work, on a new server each time); messages \
         of {SIZE} bytes unless it says otherwise; up to {messages} stored. A run in which more \
         than 5 % of the processors were stolen by the hypervisor was done over, twice at most. \
         Every message was counted: one that was lost or came twice would be a failure. \
         *Slanted* are settings of the peers that say OK before the message is synced to disk, or \
         store nothing; all others say it after, as Wiber does. In the plots these are grey, and \
         those blue.",
        cores = machine.cores,
        processor = machine.processor,
        kernel = machine.kernel,
        file_system = machine.file_system,
    );
    out.push('\n');
    put_text(out, &text);
    cache_lines(results, out);
    put(out, "| the machine by itself | p50 | p99 |\n|---|---|---|");
    type Figure = fn(&Limits) -> (f64, f64);
    let figures: [(&str, Figure); 3] = [
        ("4 KiB and fdatasync, file growing", |l| l.growing),
        ("4 KiB and fdatasync, file written before", |l| l.written),
        ("100 bytes there and back over loopback", |l| l.ping_pong),
    ];
    for (name, figure) in figures {
        let cell = |of: fn((f64, f64)) -> f64| {
            let all = limits.iter().map(|limits| of(figure(limits))).collect();
            median(all).map_or_else(|| "–".to_owned(), |time| Unit::Time.write(time))
        };
        put_cells(out, [name, &cell(|both| both.0), &cell(|both| both.1)]);
    }
}

/// Whether the runs had the same two processors, as far as a guest can see.
fn cache_lines(results: &Results, out: &mut String) {
    let Some(near) = results.share_of_near(None) else { return };
    let times = results.runs.iter().map(|run| run.cache_line).filter(|nanos| *nanos > 0.0);
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[(times.len() - 1) * part / 20];
    let shares = SETUPS
        .iter()
        .filter_map(|setup| Some((setup.name(), results.share_of_near(Some(setup.id))?)));
    let mut shares: Vec<_> = shares.collect();
    shares.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let [(least, few), .., (most, many)] = &shares[..] else { return };
    let text = format!(
        "Before each run the machine was asked for a gibibyte of memory, so that nobody pays for what \
         others have left untouched, and a cache line went there and back between two processors: nine times of ten \
         in {:.0} to {:.0} ns, under {NEAR_NANOS:.0} in {:.0} % of all runs, and from {:.0} % ({least}) \
         to {:.0} % ({most}) of those of one setup. The others had processors that share no cache, \
         which the host decides, and whoever passes memory between threads is up to twice as slow \
         then.",
        at(1),
        at(19),
        near * 100.0,
        few * 100.0,
        many * 100.0,
    );
    put_text(out, &text);
}

fn ratios(results: &Results, out: &mut String) {
    put(out, "\n## In short\n");
    put_text(
        out,
        "*Equal* is a peer that says OK only after the sync, as Wiber does, and *weaker* one that \
         says it before, or stores nothing; of each the best. Over 1, Wiber is so many times as \
         good: more a second, or less time, or less memory. Starts are compared with peers that had \
         as many messages.",
    );
    put(
        out,
        "| | Wiber | best equal | Wiber is × | best weaker | Wiber is × |\n\
         |---|---|---|---|---|---|",
    );
    for row in &ROWS {
        let own = results.median(row.work, "wiber", row.figure);
        let mut cells = vec![row.title.to_owned(), written(row, own)];
        for strength in [Strength::Same, Strength::Weaker] {
            match results.best(row, strength) {
                Some((setup, figure)) => {
                    cells.push(format!("{} ({})", row.unit.write(figure), setup.name()));
                    let ratio = results.ratio(row, figure).map(three);
                    cells.push(ratio.map_or_else(|| "–".to_owned(), |r| format!("**{r}**")));
                }
                None => cells.extend(["–".to_owned(), "–".to_owned()]),
            }
        }
        put_cells(out, cells.iter().map(String::as_str));
    }
}

fn written(row: &Row, figure: Option<f64>) -> String {
    figure.map_or_else(|| "not measured".to_owned(), |figure| row.unit.write(figure))
}

/// A line for each setup that does any of it, a column for each row of the results.
fn table(results: &Results, rows: &[&Row], out: &mut String) {
    let titles = rows.iter().map(|row| row.title);
    put_cells(out, std::iter::once("").chain(titles));
    put(out, &format!("{}|", "|---".repeat(rows.len() + 1)));
    for setup in SETUPS.iter().filter(|setup| rows.iter().any(|row| can(row, setup))) {
        let cells = rows.iter().map(|row| match results.median(row.work, setup.id, row.figure) {
            Some(figure) => row.unit.write(figure),
            None => why_none(results, row, setup).unwrap_or("–").to_owned(),
        });
        let cells: Vec<String> = std::iter::once(named(setup)).chain(cells).collect();
        put_cells(out, cells.iter().map(String::as_str));
    }
}

/// Wiber stands out, and the weaker ones lean.
fn named(setup: &Setup) -> String {
    match (setup.peer, setup.strength) {
        (Peer::Wiber, _) => format!("**{}**", setup.name()),
        (_, Strength::Same) => setup.name(),
        (_, Strength::Weaker) => format!("*{}*", setup.name()),
    }
}

fn after_sync(setup: &Setup) -> String {
    if setup.strength == Strength::Same { "yes" } else { "no" }.to_owned()
}

fn waiting(results: &Results, out: &mut String) {
    out.push('\n');
    put_text(
        out,
        &format!(
            "With messages waiting for a group, four seconds after they were published, and what \
             that is a message. A connection is one of {IDLE} that say nothing after their greeting."
        ),
    );
    put(out, "| | messages waiting | memory | a message |\n|---|---|---|---|");
    for setup in SETUPS.iter().filter(|setup| can(&WAITING, setup)) {
        let figure = |name| results.median("stored", setup.id, name);
        let cells = match (figure("messages"), figure("waiting")) {
            (Some(messages), Some(waiting)) => {
                let empty = results.median("idle", setup.id, "empty").unwrap_or(0.0);
                let each = format!("{:.0} B", (waiting - empty).max(0.0) / messages);
                [Unit::Rate.write(messages), Unit::Bytes.write(waiting), each]
            }
            _ => {
                let why = why_none(results, &WAITING, setup).unwrap_or("–");
                [why.to_owned(), "–".to_owned(), "–".to_owned()]
            }
        };
        let name = named(setup);
        put_cells(out, std::iter::once(name.as_str()).chain(cells.iter().map(String::as_str)));
    }
}

fn settings(results: &Results, out: &mut String) {
    put(out, "\n## Versions and settings\n\n| | version | OK after the sync | settings |");
    put(out, "|---|---|---|---|");
    for setup in &SETUPS {
        let version = results.versions.get(setup.peer.id()).map_or("not measured", String::as_str);
        put_cells(out, [&*named(setup), version, &*after_sync(setup), setup.settings]);
    }
    out.push('\n');
    put_text(
        out,
        &format!(
            "Everyone has the same client: raw sockets, a thread that publishes and one that \
             consumes. A publisher sends more when a quarter of its window is free. To a group of \
             {MEMBERS} it gets no further than 10,000 messages ahead, to plain subscribers 2,000. \
             A member holds up to 1,000 messages: Wiber and RabbitMQ by their prefetch, Redis and \
             Valkey by the count of an `XREADGROUP` (one `XACK` for all of a batch), JetStream by \
             the batch of a pull; beanstalkd reserves up to 100 jobs at a time. RabbitMQ's \
             acknowledge up to 100 at once; those of Wiber, JetStream and beanstalkd each \
             message. Plain subscribers are `XREAD` for Redis and Valkey streams and push consumers without acknowledgement for \
             JetStream. beanstalkd has neither subscribers nor a history, and a quorum queue \
             neither, so they have no figures there. Slow peers get fewer messages to work off, \
             and what fills NATS `always` and beanstalkd `-f0` is their weaker setting: the files \
             are the same."
        ),
    );
    put(
        out,
        "## Repeat it\n\n\
         ```sh\ncargo run --release --manifest-path benches/compare/Cargo.toml\n```",
    );
}

fn failures(results: &Results, out: &mut String) {
    let mut failures = BTreeMap::new();
    for run in &results.runs {
        if let Some(error) = &run.error {
            let at = (run.work.as_str(), run.setup.as_str(), error.as_str());
            *failures.entry(at).or_insert(0) += 1;
        }
    }
    if failures.is_empty() {
        return;
    }
    put(out, "\n## What failed\n");
    for ((work, setup, error), times) in failures {
        put(out, &format!("* {work}, {setup}, {times} of {}: {error}", results.rounds));
    }
}
