//! Bytes of a client → requests. See [`Decoder`].

use memchr::memchr;

use super::error::printable;
use super::{ErrorCode, Request, Tag, Verb, WireError};
use crate::ids::{GroupName, TopicName};
use crate::limits::{LINE_BYTES_MAX, PUB_WORDS_BYTES_MAX, READ_BYTES_MAX};

/// Longest id that can be acknowledged, in bytes.
const ID_BYTES_MAX: usize = 200;

/// How a first line begins that a browser or an HTTP client sent, and no client of this protocol.
const HTTP_BEGINNINGS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"OPTIONS ",
    b"PUT ",
    b"DELETE ",
    b"PATCH ",
    b"CONNECT ",
    b"PRI * ",
    b"Host:",
];

/// What the next bytes of a connection are. The caller drops `used` bytes from the front of its
/// buffer, whichever step it is.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing whole yet: read more.
    Incomplete {
        /// Bytes of an over-long line, which have been skipped.
        used: usize,
    },
    /// A command.
    Request {
        /// Its bytes.
        used: usize,
        /// Every line of the answer begins with it.
        tag: Option<Tag>,
        /// What is asked for.
        request: Request<'a>,
    },
    /// A line that is answered with `ERR`. The connection goes on unless the code says otherwise.
    Refused {
        /// Its bytes, or of an over-long line those that are there.
        used: usize,
        /// The answer begins with it.
        tag: Option<Tag>,
        /// The answer.
        error: WireError,
    },
    /// The connection's first line looks like HTTP: close it and say so in the log.
    Http {
        /// All bytes.
        used: usize,
    },
}

/// Reads the commands of one connection out of its bytes, wherever reads happen to cut them.
///
/// ```text
///   loop { match decoder.next(&buffer) { step => …; drop step.used bytes } }   until Incomplete
/// ```
///
/// A call looks only at bytes that earlier calls have not searched: the buffer must begin with
/// those that the last call left. It never holds more than the longest legal line and one read,
/// since a line is skipped as soon as it is over its limit. It is refused at once, unless nothing but
/// its message is too big: how big shows at its end.
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    /// This many bytes at the front of the buffer hold no LF.
    searched: usize,
    /// The rest of an over-long line is being dropped.
    skipping: bool,
    /// That line is answered at its end. Few connections ever have one.
    big: Option<Box<Big>>,
    first_line: bool,
    /// The topic named last, which most commands name again.
    topic: Option<TopicName>,
}

/// A message that is too big, while the rest of it is being dropped.
#[derive(Debug)]
struct Big {
    tag: Option<Tag>,
    /// What has come of it, in bytes.
    size: usize,
    /// The last of them is a CR, which may turn out to be part of the line end.
    ends_in_cr: bool,
}

impl Big {
    fn count(&mut self, part: &[u8]) {
        self.size += part.len();
        self.ends_in_cr = part.last().map_or(self.ends_in_cr, |byte| *byte == b'\r');
    }
}

/// What is over its limit.
enum Over<'a> {
    /// The line.
    Line(Option<Tag>, WireError),
    /// The message of a `PUB`, which has these arguments, and words of a length that can be.
    Message(Option<Tag>, &'a [u8]),
}

impl Decoder {
    /// A decoder for a new connection. `message_bytes_max` is the setting `limits.message`.
    pub fn new(message_bytes_max: usize) -> Self {
        let (skipping, big) = (false, None);
        Self { message_bytes_max, searched: 0, skipping, big, first_line: true, topic: None }
    }

    /// How many bytes are worth reading next: more while a long line comes in, in proportion to
    /// what has come, and never because of a length that a client announced.
    pub fn read_hint(&self) -> usize {
        self.searched.clamp(LINE_BYTES_MAX, READ_BYTES_MAX)
    }

    /// The next step. `buf` begins with the bytes that the last call did not use.
    pub fn next<'a>(&mut self, buf: &'a [u8]) -> Step<'a> {
        let mut start = 0;
        if self.skipping {
            let end = memchr(b'\n', buf);
            if let Some(big) = &mut self.big {
                big.count(&buf[..end.unwrap_or(buf.len())]);
            }
            let Some(at) = end else {
                return Step::Incomplete { used: buf.len() };
            };
            self.skipping = false;
            start = at + 1;
            if let Some(big) = self.big.take() {
                let error = self.too_big(big.size - usize::from(big.ends_in_cr));
                return Step::Refused { used: start, tag: big.tag, error };
            }
        }
        let rest = &buf[start..];
        if self.first_line && HTTP_BEGINNINGS.iter().any(|http| rest.starts_with(http)) {
            return Step::Http { used: buf.len() };
        }
        let searched = self.searched.min(rest.len());
        let Some(end) = memchr(b'\n', &rest[searched..]).map(|at| searched + at) else {
            return self.unfinished(rest, start);
        };
        self.searched = 0;
        self.first_line = false;
        let (used, line) = (start + end + 1, without_cr(&rest[..end]));
        if line.len() > LINE_BYTES_MAX
            && let Some(Over::Line(tag, error)) = self.over(line)
        {
            return Step::Refused { used, tag, error };
        }
        let (tag, command) = match split_tag(line) {
            Ok(parts) => parts,
            Err(error) => return Step::Refused { used, tag: None, error },
        };
        match self.command(command) {
            Ok(request) => Step::Request { used, tag, request },
            Err(error) => Step::Refused { used, tag, error },
        }
    }

    /// A line whose end has not come yet.
    fn unfinished<'a>(&mut self, line: &[u8], start: usize) -> Step<'a> {
        // A CR at the end may turn out to be part of the line end.
        let part = without_cr(line);
        let Some(over) = self.over(part) else {
            self.searched = line.len();
            return Step::Incomplete { used: start };
        };
        self.skip();
        let used = start + line.len();
        let (tag, error) = match over {
            Over::Line(tag, error) => (tag, error),
            Over::Message(tag, args) => match self.publication(args) {
                Ok((_, message)) => {
                    let cr = line.len() - part.len();
                    let big = Big { tag, size: message.len() + cr, ends_in_cr: cr > 0 };
                    self.big = Some(Box::new(big));
                    return Step::Incomplete { used };
                }
                Err(error) => (tag, error),
            },
        };
        Step::Refused { used, tag, error }
    }

    /// The line that has begun is dropped to its end.
    fn skip(&mut self) {
        (self.searched, self.skipping, self.first_line) = (0, true, false);
    }

    /// The end of the line that `line` begins is not waited for any longer: its refusal. The rest is
    /// skipped.
    pub fn give_up(&mut self, line: &[u8]) -> (Option<Tag>, WireError) {
        self.skip();
        let (tag, _) = split_tag(&line[..line.len().min(LINE_BYTES_MAX)]).unwrap_or((None, b""));
        let text = "the line came too slowly while others waited for the memory that it held, and \
                    was skipped to its end";
        (tag, WireError::new(ErrorCode::Busy, text))
    }

    /// What of a line is over its limit. It depends on the first bytes of the line alone, so that it
    /// is the same whether the rest has come or not.
    fn over<'a>(&self, line: &'a [u8]) -> Option<Over<'a>> {
        if line.len() <= LINE_BYTES_MAX {
            return None;
        }
        let (tag, command) = split_tag(&line[..LINE_BYTES_MAX]).unwrap_or((None, b""));
        let (verb, args) = word(command);
        if Verb::parse(verb) != Some(Verb::Pub) || args.is_empty() {
            let text = "the line is over the limit and was skipped to its end";
            let error = WireError::new(ErrorCode::LineTooLong, text).with("max", LINE_BYTES_MAX);
            return Some(Over::Line(tag, error));
        }
        let max = (self.message_bytes_max + PUB_WORDS_BYTES_MAX).max(LINE_BYTES_MAX);
        if line.len() <= max {
            return None;
        }
        let (_topic, message) = word(args);
        // With the one blank behind the topic.
        let words = LINE_BYTES_MAX - message.len() + 1;
        if words <= PUB_WORDS_BYTES_MAX {
            return Some(Over::Message(tag, &line[LINE_BYTES_MAX - args.len()..]));
        }
        let text = "the PUB line is over the limit and was skipped to its end";
        let error = WireError::new(ErrorCode::LineTooLong, text);
        Some(Over::Line(tag, error.with("max", max).with("setting", "limits.message")))
    }

    fn command<'a>(&mut self, command: &'a [u8]) -> Result<Request<'a>, WireError> {
        let (word1, args) = word(command);
        let Some(verb) = Verb::parse(word1) else {
            let text = format!("unknown command: {}", printable(command.trim_ascii()));
            return Err(WireError::new(ErrorCode::UnknownCommand, text));
        };
        if verb == Verb::Pub {
            return self.publish(args);
        }
        let (word2, args) = word(args);
        let (word3, args) = word(args);
        let (word4, _) = word(args);
        let given = [word2, word3, word4].iter().take_while(|word| !word.is_empty()).count();
        match (verb, given) {
            (Verb::Sub, 1) => Ok(Request::Sub { topic: self.topic(word2)?, group: None }),
            (Verb::Sub, 2) => {
                let topic = self.topic(word2)?;
                let group = GroupName::parse(word3).map_err(|why| bad_name("group", word3, why))?;
                Ok(Request::Sub { topic, group: Some(group) })
            }
            (Verb::Ack, 1) => {
                if word2.len() > ID_BYTES_MAX || !word2.iter().all(u8::is_ascii_graphic) {
                    let text = "usage: ACK <id>, an id has 1 to 200 printable ASCII characters";
                    return Err(WireError::new(ErrorCode::BadArgs, text));
                }
                Ok(Request::Ack { id: word2 })
            }
            (Verb::History, 2) => {
                let count = number(word3).ok_or_else(|| usage(verb))?;
                Ok(Request::History { topic: self.topic(word2)?, count })
            }
            (Verb::Heartbeat, 0) => Ok(Request::Heartbeat),
            (Verb::Ping, 0) => Ok(Request::Ping),
            (Verb::Quit, 0) => Ok(Request::Quit),
            _ => Err(usage(verb)),
        }
    }

    fn publish<'a>(&mut self, args: &'a [u8]) -> Result<Request<'a>, WireError> {
        let (topic, message) = self.publication(args)?;
        if message.len() > self.message_bytes_max {
            return Err(self.too_big(message.len()));
        }
        Ok(Request::Pub { topic, message })
    }

    /// The topic and the message of a `PUB`, however big that is.
    #[inline]
    fn publication<'a>(&mut self, args: &'a [u8]) -> Result<(TopicName, &'a [u8]), WireError> {
        let (name, rest) = word(args);
        // The one byte behind the topic divides; all that follows is the message, blanks too.
        let Some((_blank, message)) = rest.split_first() else {
            return Err(usage(Verb::Pub));
        };
        let topic = self.topic(name)?;
        if topic.is_dead_letter() {
            let text = format!("clients may read {topic}, only the broker publishes to it");
            return Err(WireError::new(ErrorCode::ReservedName, text));
        }
        Ok((topic, message))
    }

    fn too_big(&self, size: usize) -> WireError {
        WireError::new(ErrorCode::MsgTooBig, format!("message of {size} bytes is over the limit"))
            .with("size", size)
            .with("max", self.message_bytes_max)
            .with("setting", "limits.message")
    }

    /// Checks the name of a topic; naming the one of last time again costs no allocation.
    fn topic(&mut self, name: &[u8]) -> Result<TopicName, WireError> {
        if let Some(last) = &self.topic
            && last.as_str().as_bytes() == name
        {
            return Ok(last.clone());
        }
        let topic = TopicName::parse(name).map_err(|why| bad_name("topic", name, why))?;
        self.topic = Some(topic.clone());
        Ok(topic)
    }
}

fn usage(verb: Verb) -> WireError {
    WireError::new(ErrorCode::BadArgs, format!("usage: {}", verb.usage()))
}

fn bad_name(what: &str, name: &[u8], why: crate::ids::BadName) -> WireError {
    let text = format!("{} cannot be the name of a {what}: {why}", printable(name));
    WireError::new(ErrorCode::BadName, text)
}

/// Drops one CR from the end.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Takes `@tag` from the front.
fn split_tag(line: &[u8]) -> Result<(Option<Tag>, &[u8]), WireError> {
    let (first, command) = word(line);
    let Some(tag) = first.strip_prefix(b"@") else {
        return Ok((None, line));
    };
    let tag = Tag::parse(tag).map_err(|why| {
        WireError::new(ErrorCode::BadArgs, format!("usage: @<tag> <command>, {why}"))
    })?;
    Ok((Some(tag), command))
}

/// The first word, and what is behind it, from the blank on. Words are divided by runs of blanks,
/// that is spaces and tabs; with no word left, both parts are empty.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let start = text.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(text.len());
    let text = &text[start..];
    // Words are short: a plain loop is faster than SIMD.
    text.split_at(text.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(text.len()))
}

/// A decimal number. One that is too large for its type is as good as the largest.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
