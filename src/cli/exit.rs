//! How the command ends: the one list of exit codes, and failures that say what to do.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::proto::ErrorCode;

/// The exit codes of the `wiber` command. They never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done; or a broker was told to stop and did.
    Ok = 0,
    /// A mistake in wiber, or the system denied something that every program has.
    Internal = 1,
    /// The command line, a variable or the settings file is wrong.
    Usage = 2,
    /// There is no broker at the address, or the connection was lost.
    CannotConnect = 3,
    /// The broker's address can't be listened on.
    CannotListen = 4,
    /// The data directory is locked by another broker, or can't be used.
    DataDirUnusable = 5,
    /// The broker said no, and will say so again.
    Refused = 7,
    /// The broker said no for now, or found no room to start.
    TryAgain = 8,
    /// The connection was lost before the answer came: it may have been done or not.
    OutcomeUnknown = 9,
    /// Stored data are damaged.
    Damage = 10,
    /// Ended by Ctrl-C or SIGTERM; some commands also by SIGHUP.
    Interrupted = 130,
}

impl Exit {
    /// Every code.
    pub const ALL: &'static [Exit] = &[
        Exit::Ok,
        Exit::Internal,
        Exit::Usage,
        Exit::CannotConnect,
        Exit::CannotListen,
        Exit::DataDirUnusable,
        Exit::Refused,
        Exit::TryAgain,
        Exit::OutcomeUnknown,
        Exit::Damage,
        Exit::Interrupted,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    /// `failed to …: …`, or nothing to say.
    message: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with its sentence, which begins with "failed to".
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: Some(message.into()), hint: None }
    }

    /// An end that needs no words.
    pub(super) fn quiet(exit: Exit) -> Self {
        Self { exit, message: None, hint: None }
    }

    /// Says what to do about it, or more about it.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.hint = Some(match self.hint {
            Some(first) => format!("{first}; {hint}"),
            None => hint,
        });
        self
    }

    /// What the client library says, when it was asked to do `what` ("publish to chat").
    pub(super) fn client(what: &str, error: ClientError) -> Self {
        let failed = |exit, why: String| Self::new(exit, format!("failed to {what}: {why}"));
        match error {
            ClientError::CannotConnect { addr, source } => {
                let text = format!("failed to connect to {addr}: {source}");
                Self::new(Exit::CannotConnect, text).hint(
                    "start a broker with `wiber broker`, or name its address by --host and --port",
                )
            }
            ClientError::Refused { code, text } if code == ErrorCode::Corrupt.name() => {
                failed(Exit::Damage, text)
                    .hint("`wiber check` names all that is damaged, also while the broker runs")
            }
            ClientError::Refused { code, text } => {
                failed(Exit::Refused, format!("the broker refused: {code} {text}"))
            }
            ClientError::TryAgain { code, text } => {
                let hint = if code == ErrorCode::DiskFull.name() {
                    "it was not done; free space on the broker's disk, or lower storage.min_free there"
                } else {
                    "it was not done; try again in a moment"
                };
                let why = format!("the broker can't at the moment: {code} {text}");
                failed(Exit::TryAgain, why).hint(hint)
            }
            ClientError::OutcomeUnknown => {
                let why = "the connection was lost before the answer came";
                failed(Exit::OutcomeUnknown, why.to_owned()).hint(
                    "it may have been done or not: look with `wiber history` before you repeat it",
                )
            }
            ClientError::Disconnected { why } => {
                failed(Exit::CannotConnect, format!("the connection was lost: {why}"))
                    .hint("check that the broker runs, with `wiber ping`")
            }
            ClientError::Protocol(why) => failed(Exit::CannotConnect, why)
                .hint("check that the address is a wiber broker's, and of this version"),
            ClientError::BadMessage(why) => failed(Exit::Usage, why.to_owned()),
            refused @ (ClientError::AckRefused { .. } | ClientError::Gap { .. }) => {
                failed(Exit::Refused, refused.to_string())
            }
        }
    }

    /// Prints it and gives the code.
    pub(super) fn report(self) -> Exit {
        if let Some(message) = &self.message {
            say("wiber:", message);
        }
        if let Some(hint) = &self.hint {
            say(" hint:", hint);
        }
        self.exit
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::new(Exit::Usage, error.to_string()).hint(error.hint())
    }
}

/// Says something that is no failure, on standard error.
pub(super) fn warn(message: &str) {
    say("wiber:", message);
}

/// One line on standard error; its head is red on a terminal.
fn say(head: &str, message: &str) {
    let mut stderr = io::stderr().lock();
    let (start, end) = if colours(&stderr) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    // What comes from outside stays one line and leaves the terminal alone.
    let message: String =
        message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    // There is nowhere left to say that saying it failed.
    drop(writeln!(stderr, "{start}{head}{end} {message}"));
}

/// Whether to write in colours: on a terminal, unless `NO_COLOR` says otherwise.
pub(super) fn colours(to: &impl io::IsTerminal) -> bool {
    let is_asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    to.is_terminal() && !is_asked_not_to
}
