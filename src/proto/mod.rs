//! The wire protocol: bytes ↔ meaning, and nothing else.
//!
//! ```text
//!   bytes of a client ──▶ Decoder ──▶ Step { tag, Request | WireError }     (broker side)
//!   reply, message    ──▶ encode  ──▶ bytes appended to a Vec<u8>           (broker side)
//!   Request           ──▶ Request::write_to ──▶ bytes                       (client side)
//!   line of a broker  ──▶ ServerLine::parse ──▶ Ok | Err | Msg | History    (client side)
//! ```
//!
//! Pure: no socket, no clock, no randomness, so every rule of the protocol is a table test. What
//! always holds:
//!
//! * The decoder gives the same steps however the bytes are cut into reads, searches no byte for
//!   its line end twice, and never needs more memory than arrived: a line over its limit is
//!   refused once and skipped without being kept.
//! * Whatever is written is whole lines: no text from outside can put a line end into a reply or
//!   a message line.
//! * Error codes stand in one table, [`ErrorCode`].
//!
//! Not here: the order of replies and liveness (`session`), what a command does (`broker`), and
//! level 2 of the protocol, whose verbs will be more variants of [`Request`].

mod decode;
pub mod encode;
mod error;
mod reply;
mod request;

pub use decode::{Decoder, Step};
pub use encode::{
    AsText, Body, MessageLine, ack_received, bye, connected, error, heartbeat_received,
    history_end, line_safe, pong, published, subscribed,
};
pub use error::{ErrorCode, Retry, WireError};
pub use reply::{Kind, Record, ServerLine, unquote};
pub use request::{BadTag, Request, Tag, Verb};
