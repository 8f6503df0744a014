//! What a client sends. The first byte says how the rest, the stream, is cut into reads.
//!
//! * The steps of the decoder are the same however the stream is cut.
//! * It never holds more than the longest legal line, whatever a client sends.
//! * A command, written again, is read as the same command.
//! * A refusal is one line of UTF-8, and so is any message, whose bytes can be told from it.
//! * A session gives every command exactly one final line, in order, whichever way shards answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::Script;
use super::script::Draw;
use crate::broker::letter::{Item, Letter, Piece, Then};
use crate::broker::outbox::Outbox;
use crate::disk::sim::SimDisk;
use crate::ids::{ConnId, Offset, TopicName};
use crate::limits::{LINE_BYTES_MAX, PUB_WORDS_BYTES_MAX, READ_BYTES_MAX};
use crate::proto::{
    Body, Decoder, Kind, MessageLine, Request, ServerLine, Step, Tag, encode, line_safe, unquote,
};
use crate::session::core::{Core, Settings};
use crate::time::Moment;

/// The setting `limits.message` by the first byte: below and above the limit of other lines.
const MESSAGE_BYTES_MAX: [usize; 2] = [40, 5000];

pub(super) fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let first = script.u8();
    let message_bytes_max = MESSAGE_BYTES_MAX[usize::from(first & 1)];
    let stream = script.0;
    let mut draw = Draw::new(u64::from(first));
    let whole = steps(stream, message_bytes_max, || usize::MAX);
    let cut = steps(stream, message_bytes_max, || 1 + draw.below(1 + stream.len() / 3));
    assert_eq!(whole, cut, "a cut changes what is read");
    if stream.len() < 2 * LINE_BYTES_MAX {
        assert_eq!(whole, steps(stream, message_bytes_max, || 1), "byte by byte");
    }
    stream.split(|byte| *byte == b'\n').for_each(message);
    session(stream, message_bytes_max, &whole, &mut draw);
}

/// What a step means, without what depends on where reads were cut.
#[derive(PartialEq, Debug)]
enum Told {
    /// The answer of a session whose shards know nothing; whether it is the last.
    Answer(String, bool),
    Http,
}

/// Decodes the stream in pieces of these lengths.
fn steps(stream: &[u8], message_bytes_max: usize, mut piece: impl FnMut() -> usize) -> Vec<Told> {
    let longest = LINE_BYTES_MAX.max(message_bytes_max + PUB_WORDS_BYTES_MAX);
    let mut decoder = Decoder::new(message_bytes_max);
    let (mut told, mut held, mut end) = (Vec::new(), 0, 0);
    let mut is_member = false;
    while end < stream.len() {
        end += piece().min(stream.len() - end);
        loop {
            let rest = &stream[held..end];
            match decoder.next(rest) {
                Step::Incomplete { used } => {
                    held += used;
                    break;
                }
                Step::Request { used, tag, request } => {
                    assert!(used > 0 && used <= rest.len());
                    held += used;
                    again(&request, message_bytes_max);
                    told.push(answer(tag, &request, &mut is_member));
                    if request == Request::Quit {
                        return told;
                    }
                }
                Step::Refused { used, tag, error } => {
                    assert!(used > 0 && used <= rest.len());
                    held += used;
                    let mut line = Vec::new();
                    encode::error(&mut line, tag.as_ref(), &error);
                    let line = String::from_utf8(line).expect("a refusal is UTF-8");
                    assert_eq!(line.matches(['\n', '\r', '\0']).count(), 1, "one line: {line:?}");
                    let parsed = ServerLine::parse(line.trim_end_matches('\n').as_bytes());
                    assert_eq!(parsed.tag, tag.as_ref().map(Tag::as_str));
                    let name = error.code().name();
                    assert!(matches!(parsed.kind, Kind::Err { code, .. } if code == name));
                    told.push(Told::Answer(line, error.code().closes()));
                }
                Step::Http { used } => {
                    assert_eq!(used, rest.len());
                    told.push(Told::Http);
                    return told;
                }
            }
        }
        assert!(end - held <= longest + 1, "more is held than the longest line");
        assert!(decoder.read_hint() <= READ_BYTES_MAX);
    }
    told
}

/// A command that is written again is the same command.
fn again(request: &Request<'_>, message_bytes_max: usize) {
    if matches!(request, Request::Pub { message, .. } if message.ends_with(b"\r")) {
        return;
    }
    let mut line = Vec::new();
    request.write_to(&mut line);
    match Decoder::new(message_bytes_max).next(&line) {
        Step::Request { used, tag: None, request: same } => {
            assert_eq!((used, &same), (line.len(), request));
        }
        other => panic!("{request:?} is read as {other:?}"),
    }
}

/// What a session answers whose shards say only what they were asked.
fn answer(tag: Option<Tag>, request: &Request<'_>, is_member: &mut bool) -> Told {
    let mut line = Vec::new();
    let tag = tag.as_ref();
    match request {
        Request::Sub { topic, group } => {
            *is_member |= group.is_some();
            encode::subscribed(&mut line, tag, topic, group.as_ref());
        }
        Request::Pub { topic, message } => published(&mut line, tag, topic, message),
        Request::Ack { id } if *is_member => acked(&mut line, tag, id),
        Request::Ack { id } => {
            encode::error(&mut line, tag, &crate::proto::WireError::not_pending(id));
        }
        Request::Heartbeat => encode::heartbeat_received(&mut line, tag),
        Request::History { .. } => encode::history_end(&mut line, tag),
        Request::Ping => encode::pong(&mut line, tag),
        Request::Quit => encode::bye(&mut line, tag),
    }
    Told::Answer(String::from_utf8_lossy(&line).into_owned(), false)
}

fn published(line: &mut Vec<u8>, tag: Option<&Tag>, topic: &TopicName, message: &[u8]) {
    let id = format!("{topic}-{:08x}", crc32c::crc32c(message));
    encode::published(line, tag, id.as_str(), Offset::new(message.len() as u64));
}

fn acked(line: &mut Vec<u8>, tag: Option<&Tag>, id: &[u8]) {
    encode::published(line, tag, id, Offset::ZERO);
}

/// Any bytes without an LF, as a message on its way to a client and as a line of a broker.
fn message(bytes: &[u8]) {
    let topic = TopicName::parse(b"chat").expect("a good name");
    let body = Body::Message(bytes);
    let line = MessageLine { topic: &topic, id: "id", offset: Offset::new(7), ts: "1.5", body };
    let mut out = Vec::new();
    line.write_msg(&mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(line_safe(&out), "a message can't break its line");
    let Kind::Msg(record) = ServerLine::parse(&out).kind else { panic!("a MSG line is one") };
    if line_safe(bytes) {
        assert_eq!(record.body, bytes);
    } else {
        assert_eq!(unquote(record.body).as_deref(), Some(bytes), "no byte is lost");
    }
    let _any = (ServerLine::parse(bytes), unquote(bytes));
}

/// The stream through a session whose shards answer late and in any order.
fn session(stream: &[u8], message_bytes_max: usize, told: &[Told], draw: &mut Draw) {
    let settings = Settings {
        message_bytes_max,
        dead_after: Duration::from_secs(30),
        shards: 3,
        disk: Arc::new(SimDisk::new()),
        shares: Arc::default(),
        unsent_max: 1000,
    };
    let outbox = Arc::new(Outbox::default());
    let now = Moment::from_millis(0);
    let mut core = Core::new(ConnId(1), Arc::from("c1"), Arc::new(settings), outbox, now);
    let (mut buffer, mut waiting, mut out) = (BytesMut::new(), Vec::new(), Vec::new());
    let mut end = 0;
    let mut is_http = false;
    while !core.is_finished() {
        if end < stream.len() && core.wants_input() {
            let count = (1 + draw.below(600)).min(stream.len() - end);
            buffer.extend_from_slice(&stream[end..end + count]);
            end += count;
        }
        let before = buffer.len();
        if core.wants_input() {
            let input = core.input(&mut buffer);
            is_http |= input.is_http;
            waiting.extend(input.letters);
        }
        let is_idle = before == buffer.len() && end == stream.len();
        if is_idle && waiting.is_empty() && core.wants_input() {
            core.finish();
        }
        while !waiting.is_empty() && (is_idle || draw.below(3) > 0) {
            let (_shard, letter) = waiting.swap_remove(draw.below(waiting.len()));
            core.piece(reply(&letter));
        }
        drain(&mut core, &mut out);
    }
    drain(&mut core, &mut out);
    let mut expected = String::from("OK connected\n");
    for told in told {
        match told {
            Told::Answer(line, _) => expected.push_str(line),
            Told::Http => assert!(is_http),
        }
        if matches!(told, Told::Answer(_, true) | Told::Http) {
            break;
        }
    }
    assert_eq!(String::from_utf8_lossy(&out), expected, "one answer each, in order");
}

fn drain(core: &mut Core, out: &mut Vec<u8>) {
    assert!(core.pull().is_empty(), "no log was given to read from");
    while !core.out().is_empty() {
        let mut slices = [std::io::IoSlice::new(&[])];
        core.out().slices(&mut slices);
        let chunk = slices[0].to_vec();
        core.out().advance(chunk.len());
        out.extend(chunk);
    }
}

/// The answer of a shard that knows nothing: what it was asked.
fn reply(letter: &Letter) -> Piece {
    let (mut lines, mut then) = (Vec::new(), None);
    for item in &letter.items {
        match item {
            Item::Publish { tag, topic, messages } => {
                for message in messages {
                    published(&mut lines, tag.as_ref(), topic, message.of(&letter.bytes));
                }
            }
            Item::Ack { tag, id } => acked(&mut lines, tag.as_ref(), id.of(&letter.bytes)),
            Item::Subscribe { tag, topic, group, .. } => {
                encode::subscribed(&mut lines, tag.as_ref(), topic, group.as_ref());
            }
            Item::Locate { .. } => then = Some(Then::Read { log: None, end: Offset::ZERO }),
            Item::Line(line) => lines.extend_from_slice(line),
            Item::Silent | Item::Heard | Item::Drained | Item::Closed => {}
        }
    }
    Piece::Reply { seq: letter.seq, lines, then }
}
