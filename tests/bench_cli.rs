//! `wiber bench`, with loads so small that nothing is said about speed: it measures every kind of
//! run, leaves nothing behind, and fails if the broker does anything wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
    command.arg("bench").args(args).current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A broker in this directory, by a variable that is set, and where it listens.
fn broker(dir: &Path, variable: (&str, &str)) -> (Child, String) {
    let mut broker = Command::new(env!("CARGO_BIN_EXE_wiber"));
    broker.args(["broker", "--port", "0", "--stop-with-stdin"]).env_clear();
    broker.env(variable.0, variable.1).current_dir(dir).stdin(Stdio::piped());
    let mut broker = broker.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(broker.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.split_whitespace().nth(4).unwrap().to_owned();
    (broker, addr)
}

/// What it prints, if it is content and leaves nothing behind.
#[track_caller]
fn bench(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } = command(dir.path(), args).output().unwrap();
    let (out, err) = (text(stdout), text(stderr));
    assert!(status.success() && err.is_empty(), "{args:?} {status}\n{out}{err}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{args:?} left {left:?}");
    out
}

const SHORT: &[&str] = &["--duration", "200ms", "--warmup", "20ms", "--fsync", "never"];

/// Each kind of run as a small load, and the rows of its table.
const KINDS: &[(&[&str], &[&str])] = &[
    (&["pub", "--window", "10"], &["published"]),
    (&["pub", "--rate", "500", "--connections", "3"], &["published"]),
    (&["pub", "--topics", "50", "--window", "7", "--connections", "3"], &["published"]),
    (&["sub", "--window", "10"], &["published", "delivered"]),
    (&["group", "--window", "10", "--backlog", "100"], &["published", "delivered"]),
    (&["latency", "--rate", "300", "--groups", "1"], &["published", "delivered"]),
    (&["fanout", "--subscribers", "5", "--rate", "200"], &["published", "delivered"]),
    (
        &["mixed", "--topics", "2", "--connections", "3", "--window", "5", "--members", "2"],
        &["published", "delivered"],
    ),
    (
        &["mixed", "--topics", "5", "--connections", "2", "--rate", "400", "--members", "2"],
        &["published", "delivered"],
    ),
];

/// Fits a terminal, and has a row with a number for each. The number may be 0 where the machine
/// stood still for as long as was measured.
#[track_caller]
fn is_table(out: &str, head: &str, rows: &[&str]) {
    assert!(out.starts_with(head), "{out}");
    for line in out.lines() {
        assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line:?} in\n{out}");
    }
    for row in rows {
        let line = out.lines().find(|line| line.trim_start().starts_with(row));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        assert!(number.is_some(), "no {row} in\n{out}");
    }
}

/// More than one.
fn has_processors() -> bool {
    std::thread::available_parallelism().unwrap().get() > 1
}

#[test]
fn every_kind_of_run_prints_a_table() {
    for (args, rows) in KINDS {
        let out = bench(&[args, SHORT].concat());
        is_table(&out, &format!("{} · ", args[0]), rows);
        assert!(out.contains("p99.9") && out.contains("4 KiB append + fdatasync"), "{out}");
        assert!(out.contains("fsync never"), "{out}");
        assert_eq!(out.contains("sender  late by"), args.contains(&"--rate"), "{out}");
    }
    let args = ["catchup", "--messages", "2_000", "--fsync", "never", "--size", "1KiB"];
    is_table(&bench(&args), "catchup · 2000 messages", &["published", "history", "group"]);
    let mut rows = vec!["growing", "preallocated", "directly", "synced"];
    rows.extend(has_processors().then_some("shared"));
    is_table(&bench(&["disk", "--duration", "50ms"]), "disk · ", &rows);
}

#[test]
fn every_kind_of_run_prints_an_object() {
    for (args, rows) in KINDS {
        let out = bench(&[args, SHORT, &["--json"]].concat());
        let object: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&object["run"], &object["fsync"]), (&args[0].into(), &"never".into()));
        assert_eq!(object["duration"], "200ms");
        for row in *rows {
            let row = &object[row];
            assert!(row["messages"].is_u64() && row["per_second"].is_number(), "{out}");
            if row["latency_us"].is_null() {
                // At a fixed rate, a machine that stands still leaves nothing out.
                assert!(!args.contains(&"--rate"), "{out}");
                continue;
            }
            let percentiles = ["p50", "p90", "p99", "p99.9", "max"];
            let times = percentiles.map(|name| row["latency_us"][name].as_f64().unwrap());
            assert!(times.is_sorted() && times[0] > 0.0, "{out}");
        }
        assert!(object["disk"]["preallocated_us"]["p50"].as_f64().unwrap() > 0.0, "{out}");
        if cfg!(target_os = "linux") {
            assert!(object["broker"]["memory_bytes"].as_u64().unwrap() > 0, "{out}");
            assert!(object["client"]["cpu_cores"].is_number(), "{out}");
        }
    }
    let out = bench(&["disk", "--duration", "50ms", "--json"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert!(object["growing_us"]["count"].as_u64().unwrap() > 0, "{out}");
    let echo = ["echo_us", "synced_echo_us"].map(|name| &object[name]["count"]);
    assert_eq!(echo, [50, 50], "a thousand a second: {out}");
    assert_eq!(object["cache_line_us"]["p50"].is_number(), has_processors(), "{out}");
}

#[test]
fn at_a_fixed_rate_every_message_that_was_planned_is_measured() {
    let args = ["latency", "--rate", "500", "--connections", "2", "--json"];
    let object: Value = serde_json::from_str(&bench(&[&args[..], SHORT].concat())).unwrap();
    for row in ["published", "delivered"] {
        assert_eq!(object[row]["latency_us"]["count"], 100, "{object}");
    }
    assert_eq!((&object["unsent"], &object["rate"]), (&0.into(), &500.into()));
}

#[test]
fn the_tour_is_one_table_of_every_kind() {
    let out = bench(&["--duration", "40ms"]);
    for line in out.lines() {
        assert!(line.chars().count() <= 80, "{line:?} in\n{out}");
    }
    let is_heading = |line: &&str| !line.starts_with(' ');
    let kind = |line: &str| line.split_once(" · ").map(|(kind, _)| kind.to_owned());
    let kinds: Vec<_> = out.lines().skip(3).filter(is_heading).filter_map(kind).collect();
    let expected = ["pub", "pub", "pub", "sub", "group", "latency", "fanout", "catchup", "mixed"];
    assert_eq!(kinds, expected, "{out}");
}

/// A broker that answers as it is told to: as `MSG` lines to who subscribes, and to each `PUB`.
fn stand_in(to_sub: &'static str, to_pub: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || serve(socket.unwrap(), to_sub, to_pub));
        }
    });
    addr
}

fn serve(mut socket: TcpStream, to_sub: &str, to_pub: &str) -> Option<()> {
    let lines = BufReader::new(socket.try_clone().ok()?).lines();
    socket.write_all(b"OK connected\n").ok()?;
    for line in lines {
        let line = line.ok()?;
        let topic = line.split(' ').nth(1).unwrap_or_default();
        let answer = match line.split(' ').next()? {
            "SUB" => format!("OK subscribed {topic}\n{}", to_sub.replace("TOPIC", topic)),
            "PUB" => to_pub.to_owned(),
            _ => "OK ack_received\n".to_owned(),
        };
        socket.write_all(answer.as_bytes()).ok()?;
    }
    Some(())
}

#[test]
fn a_broker_that_does_wrong_is_found_out() {
    let published = "OK published msg_1 1\n";
    let twice = "MSG TOPIC msg_1 1 2.5 text\nMSG TOPIC msg_1 1 2.5 text\n";
    let second = "MSG TOPIC msg_2 2 2.5 text\n";
    let late = ["catchup", "--messages", "2", "--members", "1"];
    for (args, to_sub, to_pub, code, words) in [
        (&["pub"][..], "", "ERR BUSY too much to do\n", 7, "answered \"ERR BUSY too much"),
        (&["pub", "--rate", "100"], "", "OK pong\n", 7, "answered \"OK pong\""),
        (&["sub"], "nonsense\n", published, 7, "answered \"nonsense\""),
        (&["sub"], twice, published, 7, "message 1 came out of turn"),
        (&["sub"], second, published, 7, "message 2 came out of turn"),
        (&["group", "--members", "1"], twice, published, 7, "message 1 came twice"),
        // By which settings it runs is not known.
        (&["group", "--members", "1"], twice, published, 7, "acknowledge in time comes again"),
        (&late, "", published, 7, "answered \"OK ack_received\""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let addr = stand_in(to_sub, to_pub).to_string();
        let mut args = [args, &["--addr", &addr]].concat();
        if args[0] != "catchup" {
            args.extend(["--duration", "60s"]);
        }
        let Output { status, stdout, stderr } = command(dir.path(), &args).output().unwrap();
        let err = text(stderr);
        assert_eq!((status.code(), text(stdout).as_str()), (Some(code), ""), "{args:?} {err}");
        assert!(err.starts_with("wiber: failed to ") && err.contains(words), "{args:?} {err}");
    }
}

#[test]
fn what_can_not_be_planned_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code, words) in [
        (&["pub", "--window", "0"][..], 2, "--window has to be at least 1"),
        (&["pub", "--duration", "5"], 2, "a duration has a unit"),
        (&["pub", "--duration", "0s"], 2, "--duration has to be longer"),
        (&["pub", "--size", "1TB"], 2, "such as 100 or 1KiB"),
        (&["pub", "--rate", "0"], 2, "--rate"),
        (&["mixed", "--topics", "9000", "--size", "1MiB"], 2, "hint: take fewer, or a smaller"),
        (&["pub", "--topics", "99_000_000", "--size", "1"], 2, "take more than 4GiB of memory"),
        (&["pub", "--pid", "1"], 2, "--addr"),
        (&["pub", "--rate", "9", "-w", "9"], 2, "--window has no effect at a fixed rate"),
        (&["sub", "--rate", "9", "--backlog", "9"], 2, "hint: leave it out, or --rate"),
        (&["latency", "-w", "9"], 2, "hint: leave it out, or take another kind of run"),
        (&["pub", "--backlog", "9"], 2, "hint: leave it out, or add --subscribers 1"),
        (&["sub", "--members", "9"], 2, "--members has no effect without a group"),
        (&["pub", "--fsync", "sometimes"], 2, "flag --fsync"),
        (&["pub", "--prefetch", "0"], 2, "0 is not in 1..=10000"),
        (&["pub", "--addr", "127.0.0.1:1"], 3, "failed to connect to 127.0.0.1:1"),
        (&["pub", "--data-dir", "not/there"], 5, "by --data-dir"),
        (&["catchup", "--messages", "0"], 2, "--messages has to be at least 1"),
    ] {
        let output = command(dir.path(), args).output().unwrap();
        let err = text(output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?} {err}");
        assert!(err.contains(words), "{args:?} {err}");
    }
}

#[test]
fn what_the_broker_runs_by_is_told_wherever_it_was_said() {
    let file = "[delivery]\nprefetch = 7\n[storage]\nfsync = \"always\"\n";
    let variable = ("WIBER_STORAGE__FSYNC", "interval:300ms");
    let flags = ["--fsync", "never", "--prefetch", "9"];
    for (flags, fsync, prefetch) in [(&[][..], "interval:300ms", 7), (&flags, "never", 9)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("wiber.toml"), file).unwrap();
        let run = |args: &[&str]| {
            let args = [args, &["--duration", "10ms"], flags].concat();
            let output = command(dir.path(), &args).env(variable.0, variable.1).output().unwrap();
            assert!(output.status.success(), "{}", text(output.stderr));
            text(output.stdout)
        };
        let words = format!("fsync {fsync} · prefetch {prefetch}\n");
        let table = run(&["group", "--warmup", "0s"]);
        assert!(table.contains(&words), "{words:?} is not in\n{table}");
        let tour = run(&[]);
        assert!(tour.starts_with(&format!("a tour of all runs · {words}")), "{tour}");
        let object: Value = serde_json::from_str(&run(&["group", "--json"])).unwrap();
        assert_eq!((&object["fsync"], &object["prefetch"]), (&fsync.into(), &prefetch.into()));
    }
}

#[test]
fn of_a_broker_that_was_there_before_it_does_not_claim_to_know() {
    let dir = tempfile::tempdir().unwrap();
    let (mut broker, addr) = broker(dir.path(), ("WIBER_LOG__LEVEL", "warn"));
    let args = ["group", "--duration", "50ms", "--addr", &addr];
    let run = |more: &[&str]| {
        let mut command = command(dir.path(), &[&args, more].concat());
        // What is set here is no matter of a broker that runs already.
        text(command.env("WIBER_STORAGE__FSYNC", "never").output().unwrap().stdout)
    };
    let table = run(&[]);
    let says = |word| table.contains(word);
    assert!(says("delivered") && !says("fsync") && !says("prefetch"), "{table}");
    let object: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert!(object["fsync"].is_null() && object["prefetch"].is_null(), "{object}");
    drop(broker.stdin.take());
    assert!(broker.wait().unwrap().success());
}

/// `--size` goes to 16 MiB, and a broker takes messages of 1 MiB unless it is told otherwise: the run
/// ended in the refusal of the broker that it had started itself.
#[test]
fn messages_may_be_as_large_as_the_help_says() {
    let dir = tempfile::tempdir().unwrap();
    let load = ["--duration", "50ms", "--warmup", "0s", "--window", "1", "--fsync", "never"];
    let run = |kind: &str, load: &[&str]| {
        let mut command = command(dir.path(), &[&[kind, "--size", "3MiB"], load].concat());
        command.env("WIBER_LIMITS__MESSAGE", "2MiB").output().unwrap()
    };
    for (kind, load) in [("sub", &load[..]), ("catchup", &["--messages", "1", "--fsync", "never"])]
    {
        let Output { status, stdout, stderr } = run(kind, load);
        assert!(status.success() && stderr.is_empty(), "{}{}", text(stdout), text(stderr));
    }
    let (mut broker, addr) = broker(dir.path(), ("WIBER_LIMITS__MESSAGE", "2MiB"));
    let output = run("pub", &["--addr", &addr]);
    let err = text(output.stderr);
    assert_eq!(output.status.code(), Some(7), "{err}");
    assert!(err.contains("ERR MSG_TOO_BIG message of 3145728 bytes"), "{err}");
    assert!(
        err.contains("hint: take a smaller --size, or raise limits.message of that broker"),
        "{err}"
    );
    drop(broker.stdin.take());
    assert!(broker.wait().unwrap().success());
}

#[test]
fn it_takes_as_many_open_files_as_the_system_allows() {
    let dir = tempfile::tempdir().unwrap();
    let script = "ulimit -S -n 64 && exec \"$0\" bench fanout --subscribers 100 \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_wiber")]).args(SHORT).current_dir(dir.path());
    let Output { status, stdout, stderr } = command.env_clear().output().unwrap();
    assert!(status.success(), "{}{}", text(stdout), text(stderr));
}

/// The help of a kind of run, on a terminal of this width.
fn help(kind: &[&str], columns: &str) -> String {
    let mut command = command(Path::new("."), &[kind, &["--help"]].concat());
    let Output { status, stdout, .. } = command.env("COLUMNS", columns).output().unwrap();
    assert!(status.success(), "{kind:?}");
    text(stdout)
}

#[test]
fn the_help_shows_what_a_run_does_without_each_flag() {
    for (kind, flag, default) in [
        ("pub", "-c, --connections <N> Connections that publish", "1"),
        ("pub", "-w, --window <N> Messages on their way on each of them", "1000"),
        ("pub", "-r, --rate <N> Publish so many messages", "as fast as answers come"),
        ("sub", "--subscribers <N> Plain subscribers of each topic", "1"),
        ("group", "--groups <N> Consumer groups of each topic", "1"),
        ("latency", "-r, --rate <N> Publish so many messages", "1000"),
        ("fanout", "-w, --window <N> Messages on their way on each of them", "100"),
        ("fanout", "-s, --size <BYTES> Bytes of a message", "100"),
        ("catchup", "-s, --size <BYTES> Bytes of a message", "100"),
        ("mixed", "-c, --connections <N> Connections that publish", "8"),
        ("mixed", "-d, --duration <TIME> How long to measure", "5s"),
        ("mixed", "--topics <N> Topics to publish to", "4"),
    ] {
        let help = help(&[kind], "80").split_whitespace().collect::<Vec<_>>().join(" ");
        let rest = help.split_once(flag).unwrap_or_else(|| panic!("no {flag} in {help}")).1;
        let (words, rest) = rest.split_once(" [default: ").unwrap();
        assert!(
            !words.contains(" --topics ") && rest.starts_with(&format!("{default}]")),
            "{rest}"
        );
    }
    for kind in ["pub", "sub", "group", "latency", "fanout", "catchup", "mixed"] {
        let help = help(&[kind], "80");
        let load = help.split_once("Load:").unwrap().1.split_once("Broker:").unwrap().0;
        let (flags, defaults) = (load.matches(" <").count(), load.matches("[default:").count());
        assert_eq!(flags, defaults, "{load}");
    }
    assert!(!help(&["latency"], "80").contains("--window"), "it goes by its rate");
}

#[test]
fn the_help_fits_a_terminal() {
    for kind in ["", "pub", "sub", "group", "latency", "fanout", "catchup", "mixed", "disk"] {
        let kind = Vec::from_iter((!kind.is_empty()).then_some(kind));
        let is_too_long = |line: &&str| line.chars().count() > 80;
        let help = [help(&kind, "80"), help(&kind, "100")];
        assert_eq!(help[0].lines().find(is_too_long), None, "{kind:?}");
        // Where there is more room, the examples and what is below them are as they were written.
        let examples = help.map(|help| help.split_once("Examples:").unwrap().1.to_owned());
        assert_eq!(examples[1].lines().find(is_too_long), None, "{kind:?}");
        assert_eq!(examples[0], examples[1], "{kind:?}");
    }
}

/// A bench in a process group of its own, when there is a path below `dir` that ends so, or begins so
/// if it ends with a dash.
fn bench_that_has_made(dir: &Path, args: &[&str], what: &str) -> Child {
    let mut command = command(dir, args);
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let is_there = |path: &Path| match what.ends_with('-') {
        true => path.file_name().unwrap().to_str().unwrap().starts_with(what),
        false => path.join(what).exists(),
    };
    while !std::fs::read_dir(dir).unwrap().any(|entry| is_there(&entry.unwrap().path())) {
        assert_eq!(child.try_wait().unwrap(), None);
        thread::yield_now();
    }
    child
}

/// A bench that goes on for long, when its broker has begun.
fn at_work(dir: &Path) -> Child {
    bench_that_has_made(dir, &["latency", "--duration", "60s"], ".wiber/wal")
}

/// Sends a signal to a whole process group, as a terminal does.
fn signal(signal: &str, group: &Child) {
    let group = format!("-{}", group.id());
    assert!(Command::new("kill").args([signal, "--", &group]).status().unwrap().success());
}

/// Whether SIGHUP does nothing to this process.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1.
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1)
}

#[test]
fn interrupted_at_any_moment_it_takes_everything_along() {
    let runs: [(&[&str], &str); 4] = [
        (&["disk", "--duration", "60s"], "wiber-bench-disk-"),
        (&["latency", "--duration", "60s"], "wiber-bench-disk-"),
        (&["latency", "--duration", "60s"], ".wiber"),
        (&["latency", "--duration", "60s"], ".wiber/wal"),
    ];
    // Under `nohup` this process ignores it, and so does what it starts.
    let signals =
        if ignores_hangup() { &["-INT", "-TERM"][..] } else { &["-INT", "-TERM", "-HUP"] };
    for (args, made) in runs {
        for name in signals {
            let dir = tempfile::tempdir().unwrap();
            let child = bench_that_has_made(dir.path(), args, made);
            signal(name, &child);
            // The broker has the same standard error: it is gone as well.
            let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
            let said = (text(stdout), text(stderr));
            assert_eq!(status.code(), Some(130), "{args:?} {made} {name} {said:?}");
            assert_eq!(said, (String::new(), String::new()), "{args:?} {made} {name}");
            let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
            assert!(left.is_empty(), "{args:?} {made} {name} left {left:?}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn who_starts_it_to_outlive_the_terminal_has_it_do_so() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '' HUP && exec \"$0\" bench disk --duration 50ms";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_wiber")]).env_clear().current_dir(dir.path());
    let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    while std::fs::read_dir(dir.path()).unwrap().next().is_none() {
        assert_eq!(child.try_wait().unwrap(), None);
        thread::yield_now();
    }
    signal("-HUP", &child);
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert!(status.success() && text(stdout).contains("growing"), "{status}");
}

#[test]
fn killed_it_does_not_leave_its_broker_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = at_work(dir.path());
    // It is the broker's standard error as well, and ends when both have.
    let mut stderr = child.stderr.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        ended.send(said).unwrap();
    });
    end.recv_timeout(Duration::from_secs(30)).expect("the broker ends as well");
}
