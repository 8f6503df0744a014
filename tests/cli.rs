//! The command line without a broker: help, settings, usage errors, exit codes. What clients do is
//! tried on a stand-in that speaks as much of the protocol as they need.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cli/stand_in.rs"]
mod stand_in;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use stand_in::StandIn;

/// `wiber` in a temporary directory and an empty environment.
struct Wiber {
    dir: tempfile::TempDir,
}

impl Wiber {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wiber"));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end before it has read everything.
        drop(child.stdin.take().unwrap().write_all(input));
        Ran::from(child.wait_with_output().unwrap())
    }
}

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        for words in words {
            assert!(self.err.contains(words), "no {words:?} in {self:?}");
        }
    }

    #[track_caller]
    fn succeeds(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        &self.out
    }
}

#[test]
fn help_teaches_by_example() {
    let wiber = Wiber::new();
    for command in ["broker", "pub", "sub", "history", "ping", "config show", "bench", "bench pub"]
    {
        let mut args: Vec<_> = command.split(' ').collect();
        args.push("--help");
        let help = wiber.run(&args);
        let example = format!("Examples:\n  wiber {command}");
        let quoted = format!("Examples:\n  seq 1000 | wiber {command}");
        let help = help.succeeds();
        assert!(help.contains(&example) || help.contains(&quoted), "{help}");
        assert!(!help.contains('\x1b'), "colours only on a terminal");
    }
    let help = wiber.run(&["--help"]);
    assert!(help.succeeds().contains("wiber pub chat \"Hello, world!\""));
    let version = wiber.run(&["--version"]);
    assert_eq!(version.succeeds(), format!("wiber {}\n", env!("CARGO_PKG_VERSION")));
    assert!(wiber.run(&["broker", "--help"]).succeeds().contains("WIBER_DELIVERY__ACK_TIMEOUT"));
}

#[test]
fn what_is_misused_exits_with_2_and_says_so() {
    let wiber = Wiber::new();
    for (args, words) in [
        (&[][..], "Usage: wiber"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["pub", "chat"], "required"),
        (&["pub", "../etc", "x"], "a name has 1 to 200"),
        (&["pub", "chat", "a", "b"], "unexpected argument"),
        (&["pub", "chat", "a", "--lines"], "cannot be used with"),
        (&["sub", "chat", "--group", "a/b"], "a name has 1 to 200"),
        (&["sub", "chat", "--count", "0"], "0 is not in 1.."),
        (&["sub", "chat", "--no-ack"], "--group"),
        (&["history", "chat", "some"], "invalid value"),
        (&["history", "chat", "--data-dir", "d", "--port", "1"], "cannot be used with"),
        (&["ping", "--port", "http"], "failed to set server.port to \"http\""),
        (&["ping", "--port", "0"], "port 0"),
        (&["ping", "--addr", "here"], "host:port"),
        (&["ping", "--addr", "::1:8888"], "host:port"),
        (&["ping", "--addr", "a:1", "--port", "1"], "cannot be used with"),
        (&["broker", "--fsync", "sometimes"], "hint: its default is always"),
        (&["broker", "--config", "not-there.toml"], "failed to read the settings file"),
        (&["config", "show", "--log-level", "inof"], "(flag --log-level)"),
    ] {
        wiber.run(args).fails(2, &[words]);
    }
}

#[test]
fn a_misspelt_setting_is_refused_with_the_nearest_one() {
    let wiber = Wiber::new();
    let mut command = wiber.command(&["broker"]);
    command.env("WIBER_DELIVERY__ACK_TIMOUT", "2s");
    let ran = Ran::from(command.output().unwrap());
    ran.fails(2, &["there is no setting", "hint: did you mean WIBER_DELIVERY__ACK_TIMEOUT?"]);
    wiber.file("wiber.toml", "[server]\nprot = 1\n");
    wiber.run(&["config", "show"]).fails(2, &["(file wiber.toml, line 2)", "server.port?"]);
    let ran = wiber.run(&["ping"]);
    ran.fails(2, &["wiber: failed to read the settings: there is no setting server.prot"]);
}

/// `wiber ping --addr` failed at a settings file of which it used nothing.
#[test]
fn who_names_the_broker_needs_no_settings() {
    let stand_in = StandIn::start();
    let (host, port) = ("127.0.0.1", stand_in.addr.port().to_string());
    let addr = stand_in.addr.to_string();
    let wiber = Wiber::new();
    wiber.file("wiber.toml", "[server]\nprot = 1\n");
    let by_addr = wiber.command(&["ping", "--addr", &addr]);
    let by_both = wiber.command(&["ping", "--host", host, "--port", &port]);
    for mut command in [by_addr, by_both] {
        command.env("WIBER_DELIVERY__NONSENSE", "1").env("WIBER_CONFIG", "not-there.toml");
        assert_eq!(Ran::from(command.output().unwrap()).succeeds(), "OK pong\n");
    }
    wiber.run(&["ping", "--port", &port]).fails(2, &["there is no setting server.prot"]);
    wiber.run(&["ping", "--addr", "a b:1"]).fails(2, &["failed to set server.host"]);
    wiber.run(&["ping", "--addr", "a:x"]).fails(2, &["failed to set server.port"]);
}

/// Nothing said which address it was that is no broker's.
#[test]
fn what_is_no_broker_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let others = thread::spawn(move || {
        for greeting in ["SSH-2.0-OpenSSH_9.2\r\n", ""] {
            listener.accept().unwrap().0.write_all(greeting.as_bytes()).unwrap();
        }
    });
    let wiber = Wiber::new();
    let speaks = format!("expected a greeting of a broker from {addr}, got \"SSH-2.0-OpenSSH_9.2");
    wiber.run(&["ping", "--addr", &addr]).fails(3, &[&speaks]);
    let is_silent = format!("{addr} sent no greeting");
    wiber.run(&["ping", "--addr", &addr]).fails(3, &[&is_silent]);
    others.join().unwrap();
}

#[test]
fn config_show_says_what_and_from_where_in_eighty_columns() {
    let wiber = Wiber::new();
    wiber.file("wiber.toml", "[storage]\nfsync = \"interval\"\n");
    let mut command = wiber.command(&["config", "show", "--port", "0"]);
    command.env("WIBER_STORAGE__CHECKPOINT_INTERVAL", "5s");
    let ran = Ran::from(command.output().unwrap());
    let rows: Vec<Vec<&str>> =
        ran.succeeds().lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        ["server.host", "127.0.0.1", "default"],
        ["server.port", "0", "--port"],
        ["storage.fsync", "interval:200ms", "wiber.toml:2"],
        ["storage.checkpoint_interval", "5s", "WIBER_STORAGE__CHECKPOINT_INTERVAL"],
        ["delivery.backoff", "1s,2s,4s", "default"],
    ] {
        assert!(rows.iter().any(|have| *have == row), "{row:?} in {}", ran.out);
    }
    let long = "d/".repeat(40);
    for more in ["data", &long] {
        let mut command = wiber.command(&["config", "show", "--data-dir", more]);
        command.env("WIBER_STORAGE__CHECKPOINT_INTERVAL", "5s");
        let ran = Ran::from(command.output().unwrap());
        let too_long = ran.succeeds().lines().filter(|line| line.len() > 80);
        assert_eq!(too_long.count(), usize::from(more.len() > 80 - 29), "{}", ran.out);
    }
}

#[test]
fn config_show_json_is_an_object_a_line() {
    let wiber = Wiber::new();
    wiber.file("other.toml", "server.host = \"::\"\n");
    let mut command = wiber.command(&["config", "show", "--json"]);
    command.env("WIBER_CONFIG", "other.toml").env("WIBER_PORT", "1");
    let ran = Ran::from(command.output().unwrap());
    let lines: Vec<serde_json::Value> =
        ran.succeeds().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |name: &str| lines.iter().find(|line| line["setting"] == name).unwrap();
    let host = line("server.host");
    assert_eq!((&host["value"], &host["from"]), (&"::".into(), &"file".into()));
    assert_eq!((&host["name"], &host["line"]), (&"other.toml".into(), &1.into()));
    assert_eq!(line("server.port")["name"], "WIBER_PORT");
    assert_eq!(line("log.level")["from"], "default");
}

#[test]
fn without_a_broker_every_client_command_exits_with_3() {
    let wiber = Wiber::new();
    // A port that was free a moment ago, and that nothing listens on.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for args in [
        &["ping"][..],
        &["pub", "chat", "hello"],
        &["pub", "chat", "-"],
        &["sub", "chat"],
        &["sub", "chat", "--group", "g", "--history", "3"],
        &["history", "chat"],
    ] {
        let args: Vec<_> = args.iter().copied().chain(["--port", &port]).collect();
        wiber.run(&args).fails(3, &["wiber: failed to connect to 127.0.0.1", " hint: start a"]);
    }
}

// ---- on a stand-in ---------------------------------------------------------------------------

fn on_stand_in(args: &[&str], input: &[u8]) -> (StandIn, Ran) {
    let stand_in = StandIn::start();
    let addr = stand_in.addr.to_string();
    let ran = Wiber::new().run_with_input(&stand_in.with(args, &addr), input);
    (stand_in, ran)
}

#[test]
fn ping_prints_pong() {
    assert_eq!(on_stand_in(&["ping"], b"").1.succeeds(), "OK pong\n");
}

#[test]
fn pub_publishes_its_argument_byte_for_byte() {
    for message in ["Hello, world!", " spaces  stay ", "", "ünïcode", "-5"] {
        let (stand_in, ran) = on_stand_in(&["pub", "chat", message], b"");
        assert_eq!(ran.succeeds(), "OK published id_1 1\n");
        assert_eq!(stand_in.heard.lock().unwrap().published, [message.as_bytes()]);
    }
    let (_, ran) = on_stand_in(&["pub", "chat", "--json", "hello"], b"");
    assert_eq!(ran.succeeds(), "{\"id\":\"id_1\",\"offset\":1}\n");
    let (_, ran) = on_stand_in(&["pub", "chat", "two\nlines"], b"");
    ran.fails(2, &["wiber: failed to publish to chat: ", "line feed"]);
}

#[test]
fn pub_publishes_a_message_for_each_line() {
    let (stand_in, ran) = on_stand_in(&["pub", "chat", "-"], b"one\n\n two \r\nlast");
    let lines: Vec<_> = ran.succeeds().lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3], "OK published id_4 4");
    let expected: [&[u8]; 4] = [b"one", b"", b" two ", b"last"];
    assert_eq!(stand_in.heard.lock().unwrap().published, expected);
    let many: String = (0..30_000).map(|n| format!("{n}\n")).collect();
    let (stand_in, ran) = on_stand_in(&["pub", "chat", "--lines"], many.as_bytes());
    let offsets = ran.succeeds().lines().map(|line| line.split(' ').nth(3).unwrap().to_owned());
    assert!(offsets.eq((1..=30_000).map(|n| n.to_string())), "every answer, in order");
    let published = stand_in.heard.lock().unwrap().published.concat();
    assert_eq!(published, many.replace('\n', "").as_bytes());
    let (_, ran) = on_stand_in(&["pub", "chat", "--lines", "--quiet"], many.as_bytes());
    assert_eq!(ran.succeeds(), "");
    let (_, ran) = on_stand_in(&["pub", "chat", "--lines"], b"");
    assert_eq!(ran.succeeds(), "");
}

#[test]
fn what_the_broker_says_becomes_an_exit_code() {
    for (topic, code, words) in [
        (
            "busy",
            8,
            ["the broker can't at the moment: BUSY too much to do", " hint: it was not done"],
        ),
        (
            "full",
            8,
            ["DISK_FULL no room", " hint: it was not done; free space on the broker's disk"],
        ),
        ("no.dlq", 7, ["wiber: failed to publish", "the broker refused: RESERVED_NAME the"]),
        (
            "lost",
            9,
            ["the connection was lost before the answer came", "look with `wiber history`"],
        ),
    ] {
        on_stand_in(&["pub", topic, "x"], b"").1.fails(code, &words);
        let (_, ran) = on_stand_in(&["pub", topic, "-"], b"x\ny\n");
        ran.fails(code, &[&format!("failed to publish line 1 to {topic}"), "0 messages were"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_published_is_counted_when_its_output_cannot_be_written() {
    for (lines, count) in [(1, "1 message was published"), (3000, " messages were published")] {
        let (stand_in, wiber) = (StandIn::start(), Wiber::new());
        let addr = stand_in.addr.to_string();
        let mut command = wiber.command(&stand_in.with(&["pub", "chat", "-"], &addr));
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let mut child = command.spawn().unwrap();
        // It may end before it has read everything.
        drop(child.stdin.take().unwrap().write_all("text\n".repeat(lines).as_bytes()));
        let ran = Ran::from(child.wait_with_output().unwrap());
        ran.fails(1, &["failed to write to standard output", count]);
        let published = stand_in.heard.lock().unwrap().published.len();
        assert!(ran.err.contains(&format!(" {published} message")), "{published}: {ran:?}");
    }
}

#[test]
fn nothing_is_published_behind_a_line_that_may_be_lost() {
    let filling = "x".repeat(1000);
    let many: String = (0..20_000).map(|n| format!("{n} {filling}\n")).collect();
    let (stand_in, ran) = on_stand_in(&["pub", "cut", "-", "--quiet"], many.as_bytes());
    ran.fails(9, &["failed to publish line ", "were not or not surely"]);
    let heard = stand_in.heard.lock().unwrap();
    let numbers = heard.published.iter().map(|line| line.split(|b| *b == b' ').next().unwrap());
    let numbers: Vec<u64> = numbers.map(|n| str::from_utf8(n).unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>());
}

#[test]
fn history_prints_what_the_broker_sends() {
    let (_, ran) = on_stand_in(&["history", "chat", "2"], b"");
    let text = "HISTORY chat id_1 1 1758865780.5 text 1\nHISTORY chat id_2 2 1758865780.5 text 2\n";
    assert_eq!(ran.succeeds(), text);
    let (_, ran) = on_stand_in(&["history", "chat", "1", "--json"], b"");
    let json = "{\"topic\":\"chat\",\"id\":\"id_2\",\"offset\":2,\"ts\":1758865780.5,\"msg\":\"text 2\"}\n";
    assert_eq!(ran.succeeds(), json);
    assert_eq!(on_stand_in(&["history", "chat", "0"], b"").1.succeeds(), "");
}

#[test]
fn what_came_of_a_history_is_printed_however_it_ends() {
    for (topic, code, words) in [
        ("damaged", 10, ["message 3 is damaged", "wiber check"]),
        ("expired", 7, ["failed to read the history of expired", "no longer kept"]),
        ("lost", 3, ["failed to read the history of lost", "the connection was lost"]),
    ] {
        let (_, ran) = on_stand_in(&["history", topic, "2"], b"");
        assert_eq!((ran.code, ran.out.lines().count()), (Some(code), 2), "{ran:?}");
        words.iter().for_each(|words| assert!(ran.err.contains(words), "{ran:?}"));
    }
    // A subscription goes on behind what its history lacks.
    for topic in ["damaged", "expired"] {
        let (_, ran) = on_stand_in(&["sub", topic, "--history", "2", "--count", "1"], b"");
        let verbs: Vec<_> = ran.out.lines().map(|line| line.split_once(' ').unwrap().0).collect();
        assert_eq!(
            (ran.code, &verbs[..]),
            (Some(0), &["HISTORY", "HISTORY", "MSG"][..]),
            "{ran:?}"
        );
        assert!(ran.err.contains("failed to read all of the history of"), "{ran:?}");
    }
    let (_, ran) = on_stand_in(&["sub", "lost", "--history", "2"], b"");
    assert_eq!((ran.code, ran.out.lines().count()), (Some(3), 2), "{ran:?}");
}

#[test]
fn history_reads_a_directory_that_no_broker_serves() {
    let wiber = Wiber::new();
    std::fs::create_dir(wiber.dir.path().join("data")).unwrap();
    let line = |n: u32| {
        let (id, ts) = (format!("msg_1758865780040_e10628b{n}"), format!("1758865780.{n}"));
        format!(r#"{{"id": "{id}", "offset": {n}, "ts": {ts}, "msg": "text {n}"}}"#) + "\n"
    };
    wiber.file("data/chat.log", &(line(1) + &line(2) + &line(3) + "{\"id\": \"torn"));
    let ran = wiber.run(&["history", "chat", "2", "--data-dir", "data"]);
    assert_eq!(
        ran.succeeds(),
        "HISTORY chat msg_1758865780040_e10628b2 2 1758865780.2 text 2\n\
         HISTORY chat msg_1758865780040_e10628b3 3 1758865780.3 text 3\n"
    );
    let ran = wiber.run(&["history", "chat", "1", "--data-dir", "data", "--json"]);
    let json: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
    assert_eq!((&json["offset"], &json["msg"]), (&3.into(), &"text 3".into()));
    assert_eq!(wiber.run(&["history", "chat", "--data-dir", "data"]).succeeds().lines().count(), 3);
    assert_eq!(wiber.run(&["history", "chat", "0", "--data-dir", "data"]).succeeds(), "");
    assert_eq!(wiber.run(&["history", "nothing", "--data-dir", "data"]).succeeds(), "");
    wiber.run(&["history", "chat", "--data-dir", "nowhere"]).fails(5, &["nowhere", "--data-dir"]);
    wiber.file("data/chat.log", &(line(1) + "nonsense\n" + &line(3)));
    let ran = wiber.run(&["history", "chat", "--data-dir", "data"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(10), 2), "{ran:?}");
    assert!(ran.err.contains("chat.log at byte"), "{ran:?}");
}

/// More than is kept, which is what one asks for to have all, printed nothing.
#[test]
fn history_prints_what_is_kept_of_a_topic_whose_oldest_messages_are_gone() {
    let wiber = Wiber::new();
    std::fs::create_dir(wiber.dir.path().join("data")).unwrap();
    let line =
        |n: u32| format!("{{\"id\": \"id_{n}\", \"offset\": {n}, \"ts\": 1.5, \"msg\": \"m\"}}\n");
    wiber.file("data/chat@00000000000000000011.log", &(line(11) + &line(12)));
    wiber.file("data/chat.log", &line(13));
    for (count, first) in [("100000", 11), ("3", 11), ("2", 12)] {
        let ran = wiber.run(&["history", "chat", count, "--data-dir", "data"]);
        let printed = |n| format!("HISTORY chat id_{n} {n} 1.5 m\n");
        assert_eq!(ran.succeeds(), (first..=13).map(printed).collect::<String>());
    }
}

#[test]
fn sub_prints_each_message_once_behind_the_history() {
    let (_, ran) = on_stand_in(&["sub", "chat", "--history", "1", "--count", "2"], b"");
    let text = "HISTORY chat id_2 2 1758865780.5 text 2\n\
                MSG chat id_1 1 1758865780.036981 text 1\n\
                MSG chat id_3 3 1758865780.036983 text 3\n";
    assert_eq!(ran.succeeds(), text);
}

#[test]
fn a_member_acknowledges_what_it_printed_and_no_more() {
    let args = ["sub", "chat", "--group", "workers", "--count", "2", "--json"];
    let (stand_in, ran) = on_stand_in(&args, b"");
    assert_eq!(ran.succeeds().lines().count(), 2);
    let heard = stand_in.heard.lock().unwrap();
    assert_eq!(heard.acked, ["id_1", "id_2"]);
    assert!(heard.quits > 0, "it took its leave");
    drop(heard);
    let (stand_in, ran) = on_stand_in(&["sub", "chat", "--group", "g", "-n", "2", "--no-ack"], b"");
    assert_eq!(ran.succeeds().lines().count(), 2);
    assert!(stand_in.heard.lock().unwrap().acked.is_empty());
}

fn start(stand_in: &StandIn, args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let addr = stand_in.addr.to_string();
    let mut command = Wiber::new().command(&stand_in.with(args, &addr));
    command.current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

#[test]
fn ctrl_c_leaves_with_everything_printed_acknowledged() {
    for signal in ["-INT", "-TERM"] {
        let stand_in = StandIn::start();
        let (child, mut out) = start(&stand_in, &["sub", "chat", "--group", "g"]);
        let mut printed = String::new();
        for _ in 0..3 {
            out.read_line(&mut printed).unwrap();
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        out.read_to_string(&mut printed).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(printed.lines().count(), 3);
        assert_eq!(stand_in.heard.lock().unwrap().acked, ["id_1", "id_2", "id_3"]);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_costs_the_group_nothing() {
    let stand_in = StandIn::start();
    let nobody = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let addr = stand_in.addr.to_string();
    let run = |args: &[&str], input: &[u8], code: i32| {
        let mut command = Wiber::new().command(&stand_in.with(args, &addr));
        command.current_dir("/").stdout(nobody()).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may be gone before it has read everything.
        drop(child.stdin.take().unwrap().write_all(input));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(run(&["sub", "chat", "--group", "g"], b"", 0), "");
    assert!(stand_in.heard.lock().unwrap().acked.is_empty(), "what nobody read was not acked");
    let many: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(run(&["pub", "chat", "-"], many.as_bytes(), 0), "");
    // It was told to publish, and to print besides.
    assert_eq!(stand_in.heard.lock().unwrap().published.len(), 20_000);
    assert!(run(&["pub", "busy", "-"], b"x\ny\n", 8).contains("failed to publish line 1 to busy"));
    let half = many.replace("15000\n", "two\rends\r\r\n");
    assert!(
        run(&["pub", "chat", "-"], half.as_bytes(), 2).contains("15000 messages were published")
    );
    assert_eq!(run(&["history", "chat"], b"", 0), "");
}
