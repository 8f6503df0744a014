//! Reading the settings: the flags of a command, the environment and the file.

use std::io;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use crate::client::Options;
use crate::config::{Config, Explained, FILE_NAME, FILE_VARIABLE, KEYS, Overrides, SettingsFile};
use crate::disk;
use crate::disk::os::OsDisk;

/// The flags that set what a broker runs by.
#[derive(clap::Args, Clone, Default, Debug)]
pub(super) struct BrokerFlags {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8888]
    #[arg(long)]
    port: Option<String>,
    /// Directory of the data [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// When a message counts as stored: always, interval:200ms or never [default: always]
    #[arg(long, value_name = "WHEN")]
    fsync: Option<String>,
    /// Settings file [default: ./wiber.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is logged, such as debug, or warn,wiber::broker=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How the log is written: human or json [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl BrokerFlags {
    /// The effective settings, and where each came from.
    pub(super) fn load(&self) -> Result<(Config, Explained), Failure> {
        let flags = Overrides::default()
            .with("--host", self.host.as_ref())
            .with("--port", self.port.as_ref())
            .with("--data-dir", self.data_dir.as_ref())
            .with("--fsync", self.fsync.as_ref())
            .with("--log-level", self.log_level.as_ref())
            .with("--log-format", self.log_format.as_ref());
        load(&flags, self.config.as_deref())
    }
}

/// The flags that name the broker to talk to.
#[derive(clap::Args, Clone, Default, Debug)]
#[command(next_help_heading = "Where the broker is")]
pub(super) struct ClientFlags {
    /// Its host [default: WIBER_HOST, the settings file, 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// Its port [default: WIBER_PORT, the settings file, 8888]
    #[arg(long)]
    port: Option<String>,
    /// Both at once, as host:port
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["host", "port"])]
    addr: Option<String>,
}

impl ClientFlags {
    /// How to connect.
    pub(super) fn options(&self) -> Result<Options, Failure> {
        let (host, port) = match &self.addr {
            Some(addr) => {
                let (host, port) = split_addr(addr)?;
                (Some(host), Some(port))
            }
            None => (self.host.as_deref(), self.port.as_deref()),
        };
        let flags = Overrides::default().with("--host", host).with("--port", port);
        // Who names both needs nothing else of the settings: what is wrong with them is no matter here.
        let is_named = host.is_some() && port.is_some();
        let (config, _) =
            if is_named { Config::load(&flags, [], None)? } else { load(&flags, None)? };
        if config.server.port == 0 {
            let text = "failed to connect: port 0 lets a broker choose, and names none";
            return Err(Failure::new(Exit::Usage, text)
                .hint("name the port that is in the broker's start-up line by --port"));
        }
        // Where a broker listens on all addresses, it also does on this machine's own.
        let host = match config.server.host.as_str() {
            "0.0.0.0" => "127.0.0.1".to_owned(),
            "::" => "[::1]".to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        Ok(Options::new(format!("{host}:{}", config.server.port)))
    }
}

/// What a broker started here runs by, if it is started with these flags and this variable.
pub(super) fn of_broker(
    fsync: Option<&str>,
    variable: Option<(&str, String)>,
) -> Result<Config, Failure> {
    let file = read_file(None)?;
    let flags = Overrides::default().with("--fsync", fsync);
    let ours = variable.map(|(name, value)| (name.into(), value.into()));
    Ok(Config::load(&flags, std::env::vars_os().chain(ours), file.as_ref())?.0)
}

/// The data directory: the flag's, or what a broker started here would serve.
pub(super) fn data_dir(flag: Option<&Path>) -> Result<PathBuf, Failure> {
    match flag {
        Some(dir) => Ok(dir.to_owned()),
        None => Ok(load(&Overrides::default(), None)?.0.storage.data_dir),
    }
}

fn split_addr(addr: &str) -> Result<(&str, &str), Failure> {
    let parts = addr.rsplit_once(':').and_then(|(host, port)| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = inner.or((!host.contains(':')).then_some(host))?;
        (!host.is_empty() && !port.is_empty()).then_some((host, port))
    });
    parts.ok_or_else(|| {
        let text = format!("failed to read --addr {addr:?}: it has to be host:port");
        Failure::new(Exit::Usage, text).hint("such as 127.0.0.1:8888 or [::1]:8888")
    })
}

fn load(flags: &Overrides, file: Option<&Path>) -> Result<(Config, Explained), Failure> {
    let file = read_file(file)?;
    Ok(Config::load(flags, std::env::vars_os(), file.as_ref())?)
}

/// The file of the flag, else of the variable, else the one that is here, if one is.
fn read_file(flag: Option<&Path>) -> Result<Option<SettingsFile>, Failure> {
    let variable = || std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty());
    let asked_for = flag.map(Path::to_owned).or_else(|| variable().map(PathBuf::from));
    let is_asked_for = asked_for.is_some();
    let path = asked_for.unwrap_or_else(|| PathBuf::from(FILE_NAME));
    let bytes = match disk::read_all(&OsDisk::default(), &path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_asked_for => return Ok(None),
        Err(error) => {
            let text = format!("failed to read the settings file {}: {error}", path.display());
            let hint = format!("check --config, the variable {FILE_VARIABLE} and the file");
            return Err(Failure::new(Exit::Usage, text).hint(hint));
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(SettingsFile { path, text })),
        Err(_not_utf8) => {
            let text = format!("failed to read the settings file {}: not UTF-8", path.display());
            Err(Failure::new(Exit::Usage, text).hint("save it as UTF-8"))
        }
    }
}

/// Every setting, for the long help of commands that run by them.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Settings, each by flag, variable, [section] of wiber.toml, or default, in this order:\n",
    );
    for key in KEYS {
        let flag = key.flag.map(|flag| format!(", {flag}")).unwrap_or_default();
        let short = key.short_variable.map(|name| format!(", {name}")).unwrap_or_default();
        text += &format!("\n  {} = {}\n", key.name, key.default);
        text += &format!("      {}\n", key.doc);
        text += &format!("      Allowed: {}\n", key.allowed);
        text += &format!("      Set by {}{short}{flag}\n", key.variable());
    }
    text
}
