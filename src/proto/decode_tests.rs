//! Tests of the decoder: every rule as a table, every transcript cut at every byte.

use proptest::prelude::*;

use super::*;

const MESSAGE_MAX: usize = 10_000;

/// What a connection that sends `pieces` gets, in words.
fn steps_of(pieces: &[&[u8]]) -> Vec<String> {
    let mut decoder = Decoder::new(MESSAGE_MAX);
    let (mut buffer, mut steps) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (used, step) = in_words(decoder.next(&buffer));
            assert!(used <= buffer.len());
            buffer.drain(..used);
            match step {
                Some(step) => {
                    assert!(used > 0, "a step makes progress");
                    let closed = step == "http";
                    steps.push(step);
                    if closed {
                        return steps;
                    }
                }
                None => break,
            }
        }
        let held = MESSAGE_MAX + PUB_WORDS_BYTES_MAX + 1;
        assert!(buffer.len() <= held, "{} bytes of an unfinished line are kept", buffer.len());
    }
    steps
}

fn in_words(step: Step<'_>) -> (usize, Option<String>) {
    let tagged = |tag: Option<Tag>| tag.map(|tag| format!("{tag:?} ")).unwrap_or_default();
    match step {
        Step::Incomplete { used } => (used, None),
        Step::Http { used } => (used, Some("http".to_owned())),
        Step::Refused { used, tag, error } => (used, Some(format!("{}{error}", tagged(tag)))),
        Step::Request { used, tag, request } => {
            let words = match request {
                Request::Sub { topic, group: None } => format!("sub {topic}"),
                Request::Sub { topic, group: Some(group) } => format!("sub {topic} as {group}"),
                Request::Pub { topic, message } => {
                    format!("pub {topic} [{}]", message.escape_ascii())
                }
                Request::Ack { id } => format!("ack {}", id.escape_ascii()),
                Request::Heartbeat => "heartbeat".to_owned(),
                Request::History { topic, count } => format!("history {topic} {count}"),
                Request::Ping => "ping".to_owned(),
                Request::Quit => "quit".to_owned(),
            };
            (used, Some(format!("{}{words}", tagged(tag))))
        }
    }
}

/// One line, sent as one piece on a connection that has had a line before.
fn line(bytes: impl AsRef<[u8]>) -> String {
    let mut input = b"PING\n".to_vec();
    input.extend_from_slice(bytes.as_ref());
    input.push(b'\n');
    let steps = steps_of(&[&input]);
    assert_eq!(steps.len(), 2, "one line, one answer: {steps:?}");
    steps[1].clone()
}

#[test]
fn every_command_is_read() {
    for (sent, read) in [
        ("SUB chat", "sub chat"),
        ("sub chat workers", "sub chat as workers"),
        ("SUB chat.dlq", "sub chat.dlq"),
        ("Sub  chat \t workers  ", "sub chat as workers"),
        ("ACK msg_1_ab", "ack msg_1_ab"),
        ("heartbeat", "heartbeat"),
        ("HeartBeat \t", "heartbeat"),
        ("HISTORY chat 5", "history chat 5"),
        ("HISTORY chat.dlq 0", "history chat.dlq 0"),
        ("history chat 99999999999999999999999", "history chat 18446744073709551615"),
        ("PING", "ping"),
        ("  PING", "ping"),
        ("PING\r", "ping"),
        ("qUIT", "quit"),
    ] {
        assert_eq!(line(sent), read, "{sent:?}");
    }
}

#[test]
fn a_message_is_what_stands_behind_one_blank_byte_for_byte() {
    for (sent, message) in [
        ("PUB t hello", "hello"),
        ("pub  t hello world ", "hello world "),
        ("PUB t  two", " two"),
        ("PUB t ", ""),
        ("PUB t \r", ""),
        ("PUB t a\r", "a"),
        ("PUB t a\r\r", "a\\r"),
        ("PUB t a\rb", "a\\rb"),
        ("PUB t\ta\tb", "a\\tb"),
        ("PUB t --id=7 a=b", "--id=7 a=b"),
        ("PUB t @x PING", "@x PING"),
        ("PUB t a\0b", "a\\x00b"),
    ] {
        assert_eq!(line(sent), format!("pub t [{message}]"), "{sent:?}");
    }
    assert_eq!(line(b"PUB t \xff\xc3"), "pub t [\\xff\\xc3]");
}

#[test]
fn short_and_long_commands_are_answered_with_their_usage() {
    for (sent, usage) in [
        ("SUB", "SUB <topic> [group]"),
        ("SUB ", "SUB <topic> [group]"),
        ("SUB a b c", "SUB <topic> [group]"),
        ("PUB", "PUB <topic> <message>"),
        ("PUB t", "PUB <topic> <message>"),
        ("PUB t\r", "PUB <topic> <message>"),
        ("PUB ", "PUB <topic> <message>"),
        ("ACK", "ACK <id>"),
        ("ACK a b", "ACK <id>"),
        ("HEARTBEAT now", "HEARTBEAT"),
        ("HISTORY", "HISTORY <topic> <n>"),
        ("HISTORY t", "HISTORY <topic> <n>"),
        ("HISTORY t 1 2", "HISTORY <topic> <n>"),
        ("HISTORY t -1", "HISTORY <topic> <n>"),
        ("HISTORY t 1.5", "HISTORY <topic> <n>"),
        ("HISTORY t all", "HISTORY <topic> <n>"),
        ("PING x", "PING"),
        ("QUIT now", "QUIT"),
    ] {
        assert_eq!(line(sent), format!("ERR BAD_ARGS usage: {usage}"), "{sent:?}");
    }
    let ack = "ERR BAD_ARGS usage: ACK <id>, an id has 1 to 200 printable ASCII characters";
    assert_eq!(line(format!("ACK {}", "x".repeat(200))), format!("ack {}", "x".repeat(200)));
    assert_eq!(line(format!("ACK {}", "x".repeat(201))), ack);
    assert_eq!(line("ACK ä"), ack);
    assert_eq!(line("ACK a\x1b"), ack);
}

#[test]
fn names_are_checked_and_dead_letter_topics_are_the_brokers() {
    let why = crate::ids::BadName;
    for (sent, text) in [
        ("SUB a/b", "a/b cannot be the name of a topic"),
        ("SUB ..", ".. cannot be the name of a topic"),
        ("SUB t a=b", "a=b cannot be the name of a group"),
        ("PUB ../x m", "../x cannot be the name of a topic"),
        ("PUB \x1b[2J m", "?[2J cannot be the name of a topic"),
        ("HISTORY -a 5", "-a cannot be the name of a topic"),
    ] {
        assert_eq!(line(sent), format!("ERR BAD_NAME {text}: {why}"), "{sent:?}");
    }
    let long = "x".repeat(200);
    assert_eq!(line(format!("PUB {long} m")), format!("pub {long} [m]"));
    assert!(line(format!("PUB {long}x m")).starts_with("ERR BAD_NAME "));
    assert_eq!(
        line("PUB chat.dlq m"),
        "ERR RESERVED_NAME clients may read chat.dlq, only the broker publishes to it"
    );
}

#[test]
fn an_unknown_command_is_echoed_fit_to_print() {
    for (sent, echo) in [
        ("", ""),
        ("\r", ""),
        ("   ", ""),
        ("FOO bar", "FOO bar"),
        ("PUBX t 1", "PUBX t 1"),
        ("HELLO 2", "HELLO 2"),
        ("a\0b\x1b[1m", "a?b?[1m"),
        ("grüße", "grüße"),
    ] {
        assert_eq!(line(sent), format!("ERR UNKNOWN_COMMAND unknown command: {echo}"), "{sent:?}");
    }
    assert_eq!(line(b"\xff\xfe"), "ERR UNKNOWN_COMMAND unknown command: ??");
    let long = line("y".repeat(4096));
    assert_eq!(long, format!("ERR UNKNOWN_COMMAND unknown command: {}…", "y".repeat(100)));
}

#[test]
fn a_tag_comes_back_with_the_answer() {
    let longest = "x".repeat(32);
    for (sent, read) in [
        ("@1 PING", "@1 ping"),
        ("  @a_B-9   PUB t  m", "@a_B-9 pub t [ m]"),
        ("@1 SUB", "@1 ERR BAD_ARGS usage: SUB <topic> [group]"),
        ("@1 FOO x", "@1 ERR UNKNOWN_COMMAND unknown command: FOO x"),
        ("@1", "@1 ERR UNKNOWN_COMMAND unknown command: "),
        ("@1 @2 PING", "@1 ERR UNKNOWN_COMMAND unknown command: @2 PING"),
        (&format!("@{longest} PING"), &format!("@{longest} ping")),
    ] {
        assert_eq!(line(sent), read, "{sent:?}");
    }
    let usage = "ERR BAD_ARGS usage: @<tag> <command>, a tag has 1 to 32 of A-Z a-z 0-9 _ -";
    for bad in ["@", "@ PING", "@a.b PING", "@ä PING", &format!("@{longest}x PING")] {
        assert_eq!(line(bad), usage, "{bad:?}");
    }
}

#[test]
fn a_first_line_of_http_ends_the_connection() {
    for http in
        ["GET / HTTP/1.1\r\n", "POST /", "HEAD /", "OPTIONS *", "PUT /x", "Host: a", "PRI * HTTP"]
    {
        let bytes = http.as_bytes();
        assert_eq!(steps_of(&[bytes]), ["http"], "{http:?}");
        assert_eq!(steps_of(&[&bytes[..2], &bytes[2..]]), ["http"], "{http:?} in two pieces");
        let later = [b"PING\n", bytes, b"\n"].concat();
        assert_eq!(steps_of(&[&later])[0], "ping", "only the first line counts");
        assert!(!steps_of(&[&later]).contains(&"http".to_owned()));
    }
    assert_eq!(
        steps_of(&[b"get / HTTP/1.1\n"]),
        ["ERR UNKNOWN_COMMAND unknown command: get / HTTP/1.1"],
    );
}

const TOO_LONG: &str =
    "ERR LINE_TOO_LONG the line is over the limit and was skipped to its end max=4096";
const PUB_TOO_LONG: &str = "ERR LINE_TOO_LONG the PUB line is over the limit and was skipped to \
                            its end max=10243 setting=limits.message";

fn too_big(size: usize) -> String {
    format!(
        "ERR MSG_TOO_BIG message of {size} bytes is over the limit size={size} max={MESSAGE_MAX} \
         setting=limits.message"
    )
}

#[test]
fn limits_of_lines_hold_to_the_byte() {
    let max = LINE_BYTES_MAX;
    assert_eq!(line(format!("PING{}", " ".repeat(max - 4))), "ping");
    assert_eq!(line(format!("PING{}\r", " ".repeat(max - 4))), "ping");
    assert_eq!(line(format!("PING{}", " ".repeat(max - 3))), TOO_LONG);
    assert_eq!(line(format!("@7 PING{}", " ".repeat(max))), format!("@7 {TOO_LONG}"));
    assert_eq!(line(format!("@b.d PING{}", " ".repeat(max))), TOO_LONG);
    assert_eq!(line("x".repeat(5 * max)), TOO_LONG);
    assert_eq!(line(format!("PUBX t {}", "x".repeat(max))), TOO_LONG);
    let message = |len: usize| "m".repeat(len);
    let largest = message(MESSAGE_MAX);
    assert_eq!(line(format!("PUB t {largest}")), format!("pub t [{largest}]"));
    assert_eq!(line(format!("PUB t {largest}\r")), format!("pub t [{largest}]"));
    let room = PUB_WORDS_BYTES_MAX - "PUB t ".len();
    for over in [1, room, room + 1, 5 * MESSAGE_MAX] {
        let size = MESSAGE_MAX + over;
        let refusal = format!("@1 {}", too_big(size));
        assert_eq!(line(format!("@1 pub t {}", message(size))), refusal, "{over}");
        assert_eq!(line(format!("@1 pub t {}\r", message(size))), refusal, "{over}");
    }
    let words = format!("@{} PUB {}.dlq ", "x".repeat(32), "t".repeat(200));
    assert_eq!(words.len(), PUB_WORDS_BYTES_MAX);
    assert!(line(format!("{words}{largest}")).contains("RESERVED_NAME"), "not LINE_TOO_LONG");
}

/// With the default limit a message of 1048900 bytes was answered `LINE_TOO_LONG`, and one of 1048700
/// `MSG_TOO_BIG`.
#[test]
fn a_message_that_is_too_big_is_told_its_size_however_long_its_line_is() {
    let room = PUB_WORDS_BYTES_MAX - "PUB t ".len();
    let far = 3 * MESSAGE_MAX;
    for size in [MESSAGE_MAX + 1, MESSAGE_MAX + room, MESSAGE_MAX + room + 1, far] {
        let message = [vec![b'm'; size - 2], b"\rm".to_vec()].concat();
        for (end, more) in [("\n", 0), ("\r\n", 0), ("\r\r\n", 1)] {
            let bytes = [b"PING\n@1 PUB t ", &message[..], end.as_bytes(), b"PING\n"].concat();
            let expected =
                ["ping".to_owned(), format!("@1 {}", too_big(size + more)), "ping".into()];
            assert_eq!(steps_of(&[&bytes]), expected);
            for pieces in [1, 7, 1000, size] {
                let pieces: Vec<&[u8]> = bytes.chunks(pieces).collect();
                assert_eq!(steps_of(&pieces), expected, "{size} bytes and {end:?}");
            }
        }
    }
}

#[test]
fn a_line_with_a_big_message_and_something_else_amiss_is_told_that() {
    let big = "m".repeat(3 * MESSAGE_MAX);
    let blanks = " ".repeat(PUB_WORDS_BYTES_MAX - "PUB t ".len());
    for (start, answer) in [
        ("PUB t.dlq ".to_owned(), "ERR RESERVED_NAME "),
        ("PUB a/b ".to_owned(), "ERR BAD_NAME a/b cannot be the name of a topic"),
        (format!("PUB {blanks}t "), "ERR MSG_TOO_BIG message of 30000 bytes"),
        (format!("PUB  {blanks}t "), PUB_TOO_LONG),
        (format!("PUB {}", " ".repeat(LINE_BYTES_MAX)), PUB_TOO_LONG),
        (format!("PUB {}", "t".repeat(LINE_BYTES_MAX)), PUB_TOO_LONG),
        ("PUBX t ".to_owned(), TOO_LONG),
        ("@b.d PUB t ".to_owned(), TOO_LONG),
    ] {
        let bytes = format!("PING\n{start}{big}\nPING\n");
        let whole = steps_of(&[bytes.as_bytes()]);
        assert_eq!(whole.len(), 3, "{start:.20}: {whole:?}");
        assert!(whole[1].starts_with(answer), "{start:.20}: {whole:?}");
        for pieces in [1, 1000] {
            let pieces: Vec<&[u8]> = bytes.as_bytes().chunks(pieces).collect();
            assert_eq!(steps_of(&pieces), whole, "{start:.20}");
        }
    }
}

#[test]
fn a_small_message_limit_still_names_itself() {
    let mut decoder = Decoder::new(10);
    let step = decoder.next(b"PUB t 0123456789a\n");
    assert!(in_words(step).1.unwrap().starts_with("ERR MSG_TOO_BIG message of 11 bytes"));
    let mut long = |message: usize| {
        let line = format!("PUB t {}\n", "x".repeat(message));
        in_words(decoder.next(line.as_bytes())).1.unwrap()
    };
    assert!(long(LINE_BYTES_MAX - 6).starts_with("ERR MSG_TOO_BIG"));
    assert!(long(LINE_BYTES_MAX - 5).ends_with("size=4091 max=10 setting=limits.message"));
}

#[test]
fn an_endless_line_is_answered_once_and_never_kept() {
    let size = 1000 * 1000;
    // How long a message is turns out at its end.
    for (start, early, late, limit) in [
        ("@7 PUB t ", None, Some(too_big(size)), MESSAGE_MAX + PUB_WORDS_BYTES_MAX),
        ("@7 PUB t.dlq ", Some("RESERVED_NAME"), None, MESSAGE_MAX + PUB_WORDS_BYTES_MAX),
        ("@7 FOO ", Some(TOO_LONG), None, LINE_BYTES_MAX),
    ] {
        let mut decoder = Decoder::new(MESSAGE_MAX);
        let (mut buffer, mut answers, mut held_max) = (start.as_bytes().to_vec(), Vec::new(), 0);
        let mut feed = |bytes: &[u8]| {
            buffer.extend_from_slice(bytes);
            held_max = held_max.max(buffer.len());
            loop {
                let (used, step) = in_words(decoder.next(&buffer));
                buffer.drain(..used);
                let Some(step) = step else { break (buffer.len(), answers.len()) };
                answers.push(step);
            }
        };
        for _ in 0..1000 {
            feed(&[b'x'; 1000]);
        }
        assert_eq!(feed(b""), (0, usize::from(early.is_some())), "nothing is kept");
        feed(b"\nPING\n");
        assert!(held_max <= limit + 1001, "{held_max} bytes were kept of a limit of {limit}");
        let early = early.map(str::to_owned);
        let [answer, ping] = &answers[..] else { panic!("one answer each: {answers:?}") };
        assert!(answer.starts_with("@7 ERR ") && ping == "ping", "the connection goes on");
        assert!(answer.contains(&early.or(late).expect("an answer")), "{answer}");
    }
}

#[test]
fn a_hint_follows_what_has_come() {
    let mut decoder = Decoder::new(1 << 20);
    assert_eq!(decoder.read_hint(), LINE_BYTES_MAX);
    let line = [b"PUB t ".as_slice(), &vec![b'x'; 100_000]].concat();
    assert!(matches!(decoder.next(&line), Step::Incomplete { used: 0 }));
    assert_eq!(decoder.read_hint(), line.len());
}

/// No byte is searched for a line end twice: fed one byte at a time, a line of n bytes must cost n
/// and not n²/2, which would take minutes here.
#[test]
fn a_line_that_comes_byte_by_byte_costs_its_length() {
    let mut decoder = Decoder::new(16 << 20);
    let line = [b"PUB t ".as_slice(), &vec![b'x'; 4 << 20], b"\n"].concat();
    for end in 1..line.len() {
        assert!(matches!(decoder.next(&line[..end]), Step::Incomplete { used: 0 }));
        assert_eq!(decoder.searched, end);
    }
    assert!(matches!(decoder.next(&line), Step::Request { .. }));
}

#[test]
fn the_same_topic_again_costs_no_allocation() {
    let mut decoder = Decoder::new(MESSAGE_MAX);
    let mut names = Vec::new();
    for bytes in [&b"PUB chat a\n"[..], b"HISTORY chat 5\n", b"SUB chat\n", b"SUB chit\n"] {
        let Step::Request { request, .. } = decoder.next(bytes) else { panic!("a request") };
        match request {
            Request::Pub { topic, .. }
            | Request::Sub { topic, .. }
            | Request::History { topic, .. } => names.push(topic),
            other => panic!("{other:?}"),
        }
    }
    let same = |a: &TopicName, b: &TopicName| std::ptr::eq(a.as_str(), b.as_str());
    assert!(same(&names[0], &names[1]) && same(&names[1], &names[2]));
    assert!(!same(&names[2], &names[3]) && names[3].as_str() == "chit");
}

#[test]
fn a_request_reads_back_as_it_was_written() {
    let topic = TopicName::parse(b"chat").unwrap();
    let group = GroupName::parse(b"g1").unwrap();
    for request in [
        Request::Sub { topic: topic.clone(), group: None },
        Request::Sub { topic: topic.clone(), group: Some(group) },
        Request::Pub { topic: topic.clone(), message: b" a  b " },
        Request::Pub { topic: topic.clone(), message: b"" },
        Request::Ack { id: b"msg_1" },
        Request::Heartbeat,
        Request::History { topic, count: 12 },
        Request::Ping,
        Request::Quit,
    ] {
        let mut line = Vec::new();
        request.write_to(&mut line);
        let mut decoder = Decoder::new(MESSAGE_MAX);
        let Step::Request { used, tag: None, request: read } = decoder.next(&line) else {
            panic!("{line:?}")
        };
        assert_eq!((used, read), (line.len(), request));
    }
}

/// A session with a bit of everything, each part a line or several.
fn transcript() -> Vec<u8> {
    let mut bytes = b"\nSUB chat g\r\n@1 PUB chat  hi \r\r\nping\n@2 \nPUB chat\nACK x\n".to_vec();
    bytes.extend_from_slice(format!("@3 FOO{}\r\nPING\n", "o".repeat(LINE_BYTES_MAX)).as_bytes());
    bytes.extend_from_slice(format!("@4 PUB t {}\r\n", "m".repeat(MESSAGE_MAX)).as_bytes());
    bytes.extend_from_slice(format!("@5 PUB t {}\n", "m".repeat(MESSAGE_MAX + 1)).as_bytes());
    bytes.extend_from_slice(format!("@6 PUB t {}\r\n", "m".repeat(MESSAGE_MAX + 300)).as_bytes());
    // Exactly at their limits, so that the CR alone would be too much.
    bytes.extend_from_slice(format!("PING{}\r\n", " ".repeat(LINE_BYTES_MAX - 4)).as_bytes());
    let longest = MESSAGE_MAX + PUB_WORDS_BYTES_MAX - "PUB t ".len();
    bytes.extend_from_slice(format!("PUB t {}\r\n", "m".repeat(longest)).as_bytes());
    bytes.extend_from_slice(b"HISTORY chat 5\nHEARTBEAT\nQUIT\n");
    bytes
}

#[test]
fn cut_at_any_byte_a_transcript_gives_the_same_steps() {
    let bytes = transcript();
    let whole = steps_of(&[&bytes]);
    assert_eq!(whole.len(), 17, "{whole:?}");
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(steps_of(&[head, tail]), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(steps_of(&single), whole);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_are_used_up_without_a_panic(
        words in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..20),
                Just(b"PUB t ".to_vec()), Just(b"SUB ".to_vec()), Just(b"@a ".to_vec()),
                Just(b"\n".to_vec()), Just(b"\r\n".to_vec()), Just(vec![b' '; 5000]),
            ],
            0..40,
        ),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut bytes = words.concat();
        bytes.push(b'\n');
        let whole = steps_of(&[&bytes]);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(&steps_of(&pieces), &whole);
        if whole.first().map(String::as_str) != Some("http") {
            let lines = bytes.iter().filter(|b| **b == b'\n').count();
            prop_assert_eq!(whole.len(), lines, "each line has one answer");
        }
    }
}

/// Well under 100 ns a command, or the network threads become what a broker waits for.
#[test]
#[ignore = "a measurement: run it in release with --nocapture"]
fn decoding_is_fast() {
    let line = [b"PUB chat ".as_slice(), &[b'x'; 100], b"\n"].concat();
    let (lines, rounds) = (1000, 2000);
    let bytes = line.repeat(lines);
    let mut decoder = Decoder::new(1 << 20);
    let started = crate::time::Moment::read();
    for _ in 0..rounds {
        let mut rest = &bytes[..];
        while let Step::Request { used, request, .. } = decoder.next(rest) {
            std::hint::black_box(request);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }
    let each = crate::time::Moment::read().since(started).as_nanos() / (lines * rounds) as u128;
    println!("{each} ns a command");
    assert!(each < 100);
}
