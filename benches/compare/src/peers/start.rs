//! The command lines and settings that the brokers are started with. All of them listen on
//! 127.0.0.1 only and keep everything below one folder.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Peer, Setup};
use crate::protocol::PREFETCH;

/// How to start a server.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// A shell command that runs beside the server and ends with it.
    pub(super) beside: String,
    pub(super) words: Vec<String>,
    pub(super) variables: Vec<(&'static str, String)>,
    /// The port; none if the server chooses it and says so.
    pub(super) port: Option<u16>,
    /// The file that the server writes its process id to, if what is started is not the server.
    pub(super) pid_file: Option<String>,
}

/// A port that nobody listens on at the moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// How to start this broker on the data in `dir`, which is its own.
pub(super) fn start(setup: &Setup, program: &Path, dir: &Path) -> Result<Start> {
    let program = program.display().to_string();
    let port = free_port()?;
    let data = dir.join("data");
    fs::create_dir_all(&data).with_context(|| format!("failed to make {}", data.display()))?;
    let data = data.display().to_string();
    match setup.peer {
        Peer::Wiber => Ok(wiber(setup, program, data)),
        Peer::Redis | Peer::Valkey => redis(setup, program, data, port),
        Peer::Nats => nats(setup, program, &data, dir, port),
        Peer::Beanstalkd => {
            let flag = setup.mode;
            let mut words = vec![program, "-l".to_owned(), "127.0.0.1".to_owned()];
            words.extend(["-p".to_owned(), port.to_string(), "-b".to_owned(), data]);
            words.push(flag.to_owned());
            Ok(Start { words, port: Some(port), ..Start::default() })
        }
        Peer::Rabbitmq => rabbitmq(program, &data, dir, port),
    }
}

fn wiber(setup: &Setup, program: String, data: String) -> Start {
    let keep_awake = if setup.mode == "asleep" { "never" } else { "auto" };
    let variables = vec![
        ("WIBER_SERVER__KEEP_AWAKE", keep_awake.to_owned()),
        ("WIBER_HOST", "127.0.0.1".to_owned()),
        ("WIBER_PORT", "0".to_owned()),
        ("WIBER_DATA_DIR", data),
        ("WIBER_STORAGE__FSYNC", "always".to_owned()),
        ("WIBER_DELIVERY__PREFETCH", PREFETCH.to_string()),
        ("WIBER_LOG__LEVEL", "warn".to_owned()),
    ];
    Start { words: vec![program, "broker".to_owned()], variables, ..Start::default() }
}

fn redis(setup: &Setup, program: String, data: String, port: u16) -> Result<Start> {
    let store = match setup.mode {
        "pub/sub" => "--appendonly no".to_owned(),
        mode @ ("always" | "everysec") => {
            format!("--appendonly yes --appendfsync {mode} --auto-aof-rewrite-percentage 0")
        }
        mode => bail!("no mode {mode}"),
    };
    let port_word = port.to_string();
    let mut words = vec![program];
    words.extend(["--bind", "127.0.0.1", "--port", &port_word].map(str::to_owned));
    words.extend(["--daemonize", "no", "--save", "", "--dir", &data].map(str::to_owned));
    words.extend(store.split(' ').map(str::to_owned));
    Ok(Start { words, port: Some(port), ..Start::default() })
}

fn nats(setup: &Setup, program: String, data: &str, dir: &Path, port: u16) -> Result<Start> {
    let sync = if setup.mode == "always" { "sync_interval: always, " } else { "" };
    let store = format!("jetstream {{ {sync}store_dir: \"{data}\", max_file_store: 64G }}\n");
    let store = if setup.mode == "core" { String::new() } else { store };
    let path = dir.join("nats.conf");
    fs::write(&path, format!("host: 127.0.0.1\nport: {port}\n{store}"))?;
    let words = vec![program, "-c".to_owned(), path.display().to_string()];
    Ok(Start { words, port: Some(port), ..Start::default() })
}

fn rabbitmq(program: String, data: &str, dir: &Path, port: u16) -> Result<Start> {
    let settings = format!(
        "listeners.tcp.local = 127.0.0.1:{port}\nlog.console = false\nlog.file.level = error\n\
         disk_free_limit.absolute = 1GB\nvm_memory_high_watermark.relative = 0.6\n"
    );
    let path = |name: &str| dir.join(name).display().to_string();
    fs::write(dir.join("rabbitmq.conf"), settings)?;
    fs::write(dir.join("enabled_plugins"), "[].")?;
    fs::write(dir.join("rabbitmq-env.conf"), "")?;
    let mapper = free_port()?;
    let variables = vec![
        // Erlang keeps a cookie in the home folder.
        ("HOME", path("")),
        ("RABBITMQ_NODENAME", "compare@localhost".to_owned()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_DIST_PORT", free_port()?.to_string()),
        ("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", data.to_owned()),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_PID_FILE", path("pid")),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false".to_owned(),
        ),
        ("ERL_EPMD_PORT", mapper.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ];
    // Erlang's port mapper would make a daemon of itself that outlives the server.
    let beside = format!("epmd -address 127.0.0.1 -port {mapper}");
    let pid_file = Some(path("pid"));
    Ok(Start { beside, words: vec![program], variables, port: Some(port), pid_file })
}
