//! Refusals on the wire: the table of codes, and the line that carries one.

use std::borrow::Cow;
use std::fmt;

/// Whether a client may send the refused command again as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// No: the same command will be refused again.
    No,
    /// Yes, a little later (see `retry_after=`) or elsewhere: nothing was done.
    Yes,
    /// The command may or may not have been carried out, so sending it again may do it twice.
    OutcomeUnknown,
}

macro_rules! error_codes {
    ($($variant:ident $name:literal $retry:ident $closes:literal $meaning:literal;)*) => {
        /// The codes of `ERR` lines. A code never changes its meaning and is never removed.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code as it stands on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)* }
            }

            /// Whether a client may send the command again.
            pub const fn retry(self) -> Retry {
                match self { $(ErrorCode::$variant => Retry::$retry,)* }
            }

            /// Whether the broker closes the connection behind the answer.
            pub const fn closes(self) -> bool {
                match self { $(ErrorCode::$variant => $closes,)* }
            }

            /// What the code says, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$variant => $meaning,)* }
            }

            /// The code of this name, or `None` for one that this version does not know.
            pub fn parse(name: &str) -> Option<ErrorCode> {
                match name { $($name => Some(ErrorCode::$variant),)* _ => None }
            }
        }
    };
}

// The one place that lists the codes.
//  variant        on the wire       retry          closes  meaning
error_codes! {
    UnknownCommand "UNKNOWN_COMMAND" No             false "The first word is not a verb.";
    BadArgs        "BAD_ARGS"        No             false "Words are missing, too many or not of their form.";
    BadName        "BAD_NAME"        No             false "A topic or group cannot have this name.";
    BadOption      "BAD_OPTION"      No             false "An option is unknown or its value is not of its form.";
    LineTooLong    "LINE_TOO_LONG"   No             false "The line is over its limit; it was skipped to its end.";
    MsgTooBig      "MSG_TOO_BIG"     No             false "The message is over the limit of messages.";
    NotSupported   "NOT_SUPPORTED"   No             false "The broker knows the command but cannot do it as it is set up.";
    ReservedName   "RESERVED_NAME"   No             false "The name is the broker's own: it can be read, not published to.";
    AuthRequired   "AUTH_REQUIRED"   No             false "The connection has to authenticate first.";
    AuthFailed     "AUTH_FAILED"     No             false "The credentials were not accepted.";
    Denied         "DENIED"          No             false "The user may not do this.";
    NoTopic        "NO_TOPIC"        No             false "There is no topic of this name.";
    NoGroup        "NO_GROUP"        No             false "The topic has no group of this name.";
    NoMessage      "NO_MESSAGE"      No             false "There is no message with this id or offset.";
    NotPending     "NOT_PENDING"     No             false "The message does not wait for an acknowledgment of this connection.";
    OffsetGone     "OFFSET_GONE"     No             false "The offset is no longer kept; `first=` is the first that is.";
    Busy           "BUSY"            Yes            false "The broker has too much to do at the moment.";
    Limit          "LIMIT"           Yes            false "A limit of the broker has been reached; as a greeting, it closes the connection.";
    DiskFull       "DISK_FULL"       Yes            false "The broker's disk is full.";
    Draining       "DRAINING"        Yes            false "The broker is going down in order.";
    Paused         "PAUSED"          Yes            false "What the command needs has been paused.";
    NotLeader      "NOT_LEADER"      Yes            false "Another node leads; `leader=` says which.";
    NoLeader       "NO_LEADER"       Yes            false "No node leads at the moment.";
    NoQuorum       "NO_QUORUM"       Yes            false "Too few nodes can be reached.";
    Timeout        "TIMEOUT"         OutcomeUnknown false "The answer took too long; the outcome is unknown.";
    BadFrame       "BAD_FRAME"       No             true  "Where a message ends cannot be told any more.";
    Internal       "INTERNAL"        No             false "The broker made a mistake; its log says more.";
    Corrupt        "CORRUPT"         No             false "Stored data are damaged; `topic=` and `offset=` say where.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal: rendered as `ERR <CODE> <text> name=value…`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WireError {
    code: ErrorCode,
    text: Cow<'static, str>,
    fields: Vec<(&'static str, String)>,
}

impl WireError {
    /// A refusal with `text` for people.
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into(), fields: Vec::new() }
    }

    /// Adds `name=value` for programs.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    /// `ERR NOT_PENDING message <id> not found in pending messages`.
    pub fn not_pending(id: &[u8]) -> Self {
        let text = format!("message {} not found in pending messages", printable(id));
        Self::new(ErrorCode::NotPending, text)
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The text for people.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value of the field `name`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Appends `ERR <CODE> <text> name=value…` without a line end.
    ///
    /// Whatever text and values hold, the result is one line: control characters of the text are
    /// shown as `?`, and spaces and what does not print in a value are percent-encoded.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"ERR ");
        out.extend_from_slice(self.code.name().as_bytes());
        out.push(b' ');
        for byte in self.text.bytes() {
            out.push(if byte.is_ascii_control() { b'?' } else { byte });
        }
        for (name, value) in &self.fields {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            for byte in value.bytes() {
                percent_encode(out, byte);
            }
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        self.write_to(&mut line);
        f.write_str(&String::from_utf8_lossy(&line))
    }
}

impl std::error::Error for WireError {}

fn percent_encode(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_graphic() && byte != b'%' {
        out.push(byte);
    } else {
        out.extend_from_slice(&[
            b'%',
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
}

/// Most bytes of a client's words that a refusal repeats.
const ECHO_BYTES_MAX: usize = 100;

/// What a client sent, fit to stand in a reply or a log: printable characters only, `?` for the
/// others and for bytes that are not UTF-8, cut with `…` to about 100 bytes.
pub(super) fn printable(bytes: &[u8]) -> String {
    // No char is over four bytes, and one input byte is at least one output byte: what is behind
    // this cannot be shown.
    let head = &bytes[..bytes.len().min(ECHO_BYTES_MAX + 4)];
    let mut text = String::new();
    for c in String::from_utf8_lossy(head).chars() {
        // A printable character is one that `escape_debug` leaves alone; it also escapes these.
        let shown = matches!(c, '"' | '\'' | '\\')
            || (c != char::REPLACEMENT_CHARACTER && c.escape_debug().count() == 1);
        let c = if shown { c } else { '?' };
        if text.len() + c.len_utf8() > ECHO_BYTES_MAX {
            text.push('…');
            return text;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_back_by_name_and_only_lost_framing_closes() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.name()), Some(code));
            assert_eq!(code.closes(), code == ErrorCode::BadFrame, "{code}");
            assert!(code.meaning().ends_with('.'), "{code}");
        }
        assert_eq!(ErrorCode::ALL.len(), 28);
        assert_eq!(ErrorCode::parse("OUT_OF_COFFEE"), None);
        assert_eq!(ErrorCode::Timeout.retry(), Retry::OutcomeUnknown);
        assert_eq!(ErrorCode::DiskFull.retry(), Retry::Yes);
        assert_eq!(ErrorCode::NotPending.retry(), Retry::No);
    }

    #[test]
    fn every_code_stands_in_the_documentation_with_its_properties() {
        let docs = include_str!("../../docs/protocol.md");
        for &code in ErrorCode::ALL {
            let retry = match code.retry() {
                Retry::No => "no",
                Retry::Yes => "yes",
                Retry::OutcomeUnknown => "outcome unknown",
            };
            let closes = if code.closes() { "yes" } else { "no" };
            let row = format!("| `{code}` | {retry} | {closes} | {} |", code.meaning());
            assert!(docs.contains(&row), "docs/protocol.md lacks the row\n{row}");
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_it_holds() {
        let error = WireError::new(ErrorCode::MsgTooBig, "message of 9 bytes is over the limit")
            .with("size", 9)
            .with("max", 5)
            .with("setting", "limits.message");
        assert_eq!(
            error.to_string(),
            "ERR MSG_TOO_BIG message of 9 bytes is over the limit size=9 max=5 setting=limits.message"
        );
        assert_eq!(error.field("max"), Some("5"));
        let nasty =
            WireError::new(ErrorCode::Internal, "a\r\nOK forged\0 ä").with("why", "x y\n%é");
        assert_eq!(nasty.to_string(), "ERR INTERNAL a??OK forged? ä why=x%20y%0A%25%C3%A9");
        assert_eq!(
            WireError::not_pending(b"msg_1").to_string(),
            "ERR NOT_PENDING message msg_1 not found in pending messages"
        );
    }

    #[test]
    fn what_is_echoed_is_printable_and_short() {
        assert_eq!(printable(b"FOO \"b\\r' \x1b[31m\0\r\n\xff\xc3"), "FOO \"b\\r' ?[31m?????");
        assert_eq!(printable("grüße 你好 \u{202e}\u{85}".as_bytes()), "grüße 你好 ??");
        let long = printable("ä".repeat(500).as_bytes());
        assert_eq!(long, "ä".repeat(50) + "…");
        assert_eq!(printable(&[b'x'; 100]), "x".repeat(100));
        assert_eq!(printable(&[b'x'; 101]), "x".repeat(100) + "…");
    }
}
