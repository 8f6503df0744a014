//! Every fixed bound, with its unit in its name. What a user can set is in `config`; what stands
//! here follows from the protocol or from other bounds, and const assertions relate those that
//! depend on one another.

use std::time::Duration;

/// Longest name of a topic or group, in bytes. A topic's files need 25 bytes more
/// (`.dlq` + `@` + 20 digits; `.log` replaces nothing), which stays under the 255 of file systems.
pub const NAME_BYTES_MAX: usize = 200;

/// Longest name of a file, in bytes: no usual file system has room for more.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Longest command line that is not a `PUB`, in bytes, without its line end.
pub const LINE_BYTES_MAX: usize = 4096;

/// Longest `@tag` of a command, in bytes, without the `@`.
pub const TAG_BYTES_MAX: usize = 32;

/// What a `PUB` line may hold besides the message: `@tag PUB topic `, in bytes.
pub const PUB_WORDS_BYTES_MAX: usize = 1 + TAG_BYTES_MAX + 1 + 3 + 1 + NAME_BYTES_MAX + 4 + 1;

/// Largest value of the setting `limits.message`, in bytes.
pub const MESSAGE_BYTES_CEILING: usize = 16 << 20;

/// Most bytes that one read from a socket asks for.
pub const READ_BYTES_MAX: usize = 256 << 10;

/// Most unsent bytes a session holds before it stops reading its subscriptions, and its groups send it no
/// more; with twice as many it does not read its socket either. All are less when sessions hold much.
pub const SESSION_OUT_BYTES_MAX: usize = 1 << 20;

/// Most bytes that a connection's socket takes for its peer ahead of what can be sent, on Linux. What is
/// on its way does not count: that is as much as the network wants.
pub const SOCKET_UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Most subscriptions of one connection, with and without groups.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// Most bytes of requests that wait for one shard; sessions wait for room before they send more. A
/// larger request waits until it is the only one.
pub const MAILBOX_BYTES_MAX: usize = 8 << 20;

/// A batch that has reached this size takes no more requests, in bytes of commands.
pub const BATCH_BYTES_TARGET: usize = 1 << 20;

/// Most messages that a group gives up at once: each of them is in the batch as a dead letter, whole.
pub const DEAD_LETTERS_AT_ONCE: usize = 16;

/// With so many bytes of batches on their way to the log, no more messages time out. A dead letter is as
/// large as its message, and all that a thousand members hold may be due at the same moment.
pub const AHEAD_BYTES_MAX: usize = 32 << 20;

/// Memory for ready wire bytes of recent messages, over all topics, in bytes.
pub const TAIL_BYTES_MAX: usize = 16 << 20;

/// Topics whose new lines are written to their files in one turn of a shard. With more of them, those
/// that nobody reads may wait, so that several lines are written at once.
pub const TOPICS_WRITTEN_MAX: usize = 64;

/// Lines of a shard that wait so, in bytes.
pub const LATE_BYTES_MAX: usize = 16 << 20;

/// Distance of two entries of a log's sparse index, in bytes.
pub const INDEX_STRIDE_BYTES: u64 = 64 << 10;

/// So many new entries of an active segment's index, for a mebibyte of lines, are worth a write to its
/// file. What was not saved is found by reading the lines again, a mebibyte of them in a millisecond; and
/// many topics with little each would have as many such files.
pub const INDEX_SAVED_MIN: usize = 16;

/// How often a client says that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Most messages of one group that are neither settled nor still waiting in the log.
pub const GROUP_UNSETTLED_MAX: usize = 100_000;

const _: () = assert!(NAME_BYTES_MAX + 4 + 1 + 20 + 4 <= 255, "a segment's file name must fit");
const _: () = assert!(LINE_BYTES_MAX > 2 * (NAME_BYTES_MAX + 4) + TAG_BYTES_MAX + 16);
const _: () = assert!(READ_BYTES_MAX < MAILBOX_BYTES_MAX);
const _: () = assert!(MAILBOX_BYTES_MAX + BATCH_BYTES_TARGET < AHEAD_BYTES_MAX);
// A batch is one record of the log, whose length is a number of 32 bits.
const _: () = assert!(DEAD_LETTERS_AT_ONCE * 2 * MESSAGE_BYTES_CEILING < 1 << 31);

/// Most topic files that a shard keeps open for writing. At the bound the one that was idle longest
/// is closed; it is opened again when it is written.
pub const OPEN_LOGS_MAX: usize = 1024;
