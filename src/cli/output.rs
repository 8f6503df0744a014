//! Standard output: whole lines, many at a time, and a reader that goes away is no failure.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use memchr::memchr;
use serde::Serialize;
use serde_json::value::RawValue;

use super::exit::{Exit, Failure};
use crate::client::Message;
use crate::proto::{Kind, ServerLine};

/// Bytes after which lines are worth a write of their own.
const ENOUGH_BYTES: usize = 64 << 10;

/// Lines on their way to standard output.
#[derive(Debug)]
pub(super) struct Out {
    lines: Vec<u8>,
    is_terminal: bool,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { lines: Vec::new(), is_terminal: io::stdout().is_terminal() }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: &[u8]) {
        self.text(line);
        self.lines.push(b'\n');
    }

    /// Adds a part of a line. On a terminal control characters are shown instead of obeyed: what a publisher
    /// sends must not move the cursor of who reads it. What is not UTF-8 is shown too: it may be a control
    /// character to a terminal that speaks something else.
    fn text(&mut self, text: &[u8]) {
        if !self.is_terminal {
            self.lines.extend_from_slice(text);
            return;
        }
        for chunk in text.utf8_chunks() {
            for c in chunk.valid().chars() {
                match u8::try_from(c) {
                    Ok(byte) if byte.is_ascii_control() && byte != b'\t' => {
                        self.lines.extend(std::ascii::escape_default(byte));
                    }
                    _ if c.is_control() && c != '\t' => {
                        self.lines.extend_from_slice(c.escape_default().to_string().as_bytes());
                    }
                    _ => self.lines.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            let no_text = chunk.invalid().iter().copied().flat_map(std::ascii::escape_default);
            self.lines.extend(no_text);
        }
    }

    /// Adds a value as a line of JSON. On a terminal all control characters are escaped, also those that JSON
    /// takes as they are.
    pub(super) fn json(&mut self, value: &impl Serialize) {
        let start = self.lines.len();
        serde_json::to_writer(&mut self.lines, value).expect("text and numbers become JSON");
        if self.is_terminal {
            let json = self.lines.split_off(start);
            for c in str::from_utf8(&json).expect("JSON is UTF-8").chars() {
                if c.is_control() {
                    self.lines.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                } else {
                    self.lines.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        self.lines.push(b'\n');
    }

    /// Adds a message of a subscription, as a line or as JSON. Of what is new some may have come as history: what
    /// was missed while the connection was lost.
    pub(super) fn message(&mut self, message: &Message, is_history: bool, as_json: bool) {
        if as_json {
            self.json(&Json {
                topic: message.topic(),
                id: message.id(),
                offset: message.offset().get(),
                ts: number(message.ts()),
                msg: String::from_utf8_lossy(message.body()),
                history: is_history,
            });
        } else {
            let line = message.line();
            self.text(if is_history { b"HISTORY" } else { b"MSG" });
            self.text(memchr(b' ', line).map_or(b"", |at| &line[at..]));
            self.lines.push(b'\n');
        }
    }

    /// Adds a line as a broker would send it, or the message of it as JSON.
    pub(super) fn wire_line(&mut self, line: &[u8], as_json: bool) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match ServerLine::parse(line).kind {
            Kind::History(record) | Kind::Msg(record) if as_json => self.json(&Json {
                topic: record.topic,
                id: record.id,
                offset: record.offset.get(),
                ts: number(record.ts),
                msg: String::from_utf8_lossy(record.body),
                history: false,
            }),
            _ => self.line(line),
        }
    }

    /// Whether it is time to [`Out::flush`].
    pub(super) fn is_full(&self) -> bool {
        self.lines.len() >= ENOUGH_BYTES
    }

    /// Writes all lines out when no more will come, and gives `ended`, how that was. What had come before a
    /// failure is not lost with it.
    pub(super) fn end(&mut self, ended: Result<(), Failure>) -> Result<(), Failure> {
        let flushed = self.flush();
        ended.and(flushed)
    }

    /// Writes all lines out. When this has returned, whoever reads standard output can have them. For
    /// a command that is there to print, it is the end if nobody reads any more.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.write().map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(Exit::Ok),
            _ => failed(&error),
        })
    }

    /// The same for a command that has more to do than to print: it goes on without its reader.
    pub(super) fn flush_if_read(&mut self) -> Result<(), Failure> {
        self.write().or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(failed(&error)),
        })
    }

    fn write(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.lines).and_then(|()| stdout.flush());
        self.lines.clear();
        written
    }
}

fn failed(error: &io::Error) -> Failure {
    Failure::new(Exit::Internal, format!("failed to write to standard output: {error}"))
}

/// A message as a line of JSON. `msg` is what level 1 of the protocol shows.
#[derive(Serialize)]
struct Json<'a> {
    topic: &'a str,
    id: &'a str,
    offset: u64,
    ts: Box<RawValue>,
    msg: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    history: bool,
}

/// A timestamp as the JSON number that it is, digit for digit.
fn number(ts: &str) -> Box<RawValue> {
    let is_number = ts.parse::<f64>().is_ok();
    let number = is_number.then(|| RawValue::from_string(ts.to_owned()).ok()).flatten();
    number.unwrap_or_else(|| {
        let text = serde_json::Value::from(ts).to_string();
        RawValue::from_string(text).expect("a JSON string")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(is_terminal: bool) -> Out {
        Out { lines: Vec::new(), is_terminal }
    }

    /// After a lost connection what was missed comes from the history, and is no less a new message.
    #[test]
    fn the_word_in_front_says_what_a_message_is_and_not_how_it_came() {
        for line in [&b"HISTORY chat msg_1_a 7 1.5  MSG x "[..], b"MSG chat msg_1_a 7 1.5  MSG x "]
        {
            let (mut out, message) = (out(false), Message::parse(line));
            out.message(&message, false, false);
            out.message(&message, true, false);
            let lines = "MSG chat msg_1_a 7 1.5  MSG x \nHISTORY chat msg_1_a 7 1.5  MSG x \n";
            assert_eq!(String::from_utf8_lossy(&out.lines), lines);
        }
    }

    #[test]
    fn a_terminal_is_shown_control_characters_and_obeys_none() {
        let line = "a\tä\x1b[2J\x7f\u{80}\u{9b}2J\u{9f}\u{a0}é";
        let raw = [line.as_bytes(), b"\x9b\xff\xc2"].concat();
        let (mut shown, mut plain) = (out(true), out(false));
        shown.line(&raw);
        plain.line(&raw);
        let expected = "a\tä\\x1b[2J\\x7f\\u{80}\\u{9b}2J\\u{9f}\u{a0}é\\x9b\\xff\\xc2\n";
        assert_eq!(String::from_utf8(shown.lines).unwrap(), expected);
        assert_eq!(plain.lines, [&raw, &b"\n"[..]].concat());

        let (mut shown, mut plain) = (out(true), out(false));
        shown.json(&[line, "next"]);
        plain.json(&[line, "next"]);
        let shown = String::from_utf8(shown.lines).unwrap();
        let expected = r#"["a\tä\u001b[2J\u007f\u0080\u009b2J\u009f\u{a0}é","next"]"#;
        assert_eq!(shown, expected.replace("\\u{a0}", "\u{a0}") + "\n");
        for json in [shown.as_bytes(), &plain.lines] {
            assert_eq!(serde_json::from_slice::<[String; 2]>(json).unwrap(), [line, "next"]);
        }
    }
}
