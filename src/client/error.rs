//! What can go wrong for a client, and what to do about it.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::ids::Offset;
use crate::proto::{ErrorCode, Retry};

/// Why something that a client was asked to do was not done, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection: nothing was sent.
    #[error("failed to connect to {addr}: {source}; check that a broker runs there")]
    CannotConnect {
        /// Where to.
        addr: String,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// The broker said no, and will say so again.
    #[error("the broker refused: {code} {text}")]
    Refused {
        /// The code of the protocol.
        code: String,
        /// What the broker said.
        text: String,
    },
    /// The broker said no for now, and did nothing.
    #[error("the broker cannot do this at the moment, try again later: {code} {text}")]
    TryAgain {
        /// The code of the protocol.
        code: String,
        /// What the broker said, such as `retry_after=`.
        text: String,
    },
    /// The command was sent, and its answer never came: it may have been carried out or not. It
    /// was not sent again, since that could do it twice.
    #[error(
        "the connection was lost before the answer came: it may have been carried out or not, \
         so look before you send it again"
    )]
    OutcomeUnknown,
    /// The connection was lost and could not be replaced.
    #[error("the connection to the broker was lost: {why}; connect again")]
    Disconnected {
        /// How.
        why: String,
    },
    /// What came is not the protocol that this client speaks.
    #[error("failed to understand the broker: {0}; check that the address is a wiber broker's")]
    Protocol(String),
    /// Level 1 of the protocol cannot carry the message. Nothing was sent.
    #[error("failed to send the message: {0}")]
    BadMessage(&'static str),
    /// An acknowledgment that nobody waited for was refused. The subscription goes on.
    #[error("the acknowledgment of {id} was refused: {code} {text}; the message may come again")]
    AckRefused {
        /// The message's id.
        id: String,
        /// The code of the protocol.
        code: String,
        /// What the broker said.
        text: String,
    },
    /// Messages that a plain subscription had not seen are damaged or were removed, or the topic was begun
    /// anew while it was disconnected. The subscription goes on.
    #[error("messages of {topic} are missing: offset {next} follows {after}, the others are gone")]
    Gap {
        /// The topic.
        topic: String,
        /// The last message seen before.
        after: Offset,
        /// The next message.
        next: Offset,
    },
}

impl ClientError {
    /// What an `ERR` line means to the one who sent the command.
    pub(super) fn from_answer(code: &str, text: &str) -> Self {
        let retry = ErrorCode::parse(code).map_or(Retry::No, ErrorCode::retry);
        let (code, text) = (code.to_owned(), text.to_owned());
        match retry {
            Retry::No => Self::Refused { code, text },
            Retry::Yes => Self::TryAgain { code, text },
            Retry::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }

    /// Which messages a history lacks, since they are damaged or no longer kept, if that is all that is
    /// wrong with it: the others have come. Of several the broker names the first.
    pub fn missing(&self) -> Option<RangeInclusive<Offset>> {
        let Self::Refused { code, text } = self else { return None };
        // Fields stand behind the text for people, which may have anything in it.
        let field = |name| {
            let value = text.rsplit(' ').find_map(|word| word.strip_prefix(name))?;
            value.parse().ok().map(Offset::new)
        };
        match ErrorCode::parse(code)? {
            ErrorCode::Corrupt => field("offset=").map(|offset| offset..=offset),
            ErrorCode::OffsetGone => field("first=").map(|first| Offset::FIRST..=first.prev()),
            _ => None,
        }
    }

    pub(super) fn disconnected(why: impl ToString) -> Self {
        Self::Disconnected { why: why.to_string() }
    }

    /// The one who should have answered is gone, together with its runtime.
    pub(super) fn ended() -> Self {
        Self::disconnected("the client was closed")
    }

    /// Whether another connection may do better.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::CannotConnect { .. } | Self::TryAgain { .. } | Self::Disconnected { .. } => true,
            Self::Refused { .. }
            | Self::OutcomeUnknown
            | Self::Protocol(_)
            | Self::BadMessage(_)
            | Self::AckRefused { .. }
            | Self::Gap { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_history_lacks_is_read_from_the_fields_of_its_refusal() {
        let missing = |code, text| {
            let range = ClientError::from_answer(code, text).missing()?;
            Some((range.start().get(), range.end().get()))
        };
        let damaged = "message 7 is damaged: offset=9 stands here topic=chat offset=7";
        assert_eq!(missing("CORRUPT", damaged), Some((7, 7)));
        let gone = "messages 3 to 4 of topic chat are no longer kept topic=chat first=5";
        assert_eq!(missing("OFFSET_GONE", gone), Some((1, 4)));
        assert_eq!(missing("CORRUPT", "chat.index is damaged at byte 8 topic=chat"), None);
        assert_eq!(missing("CORRUPT", "odd offset=x"), None);
        assert_eq!(missing("DENIED", damaged), None);
        assert_eq!(missing("BUSY", damaged), None);
    }
}
