//! Where the brokers' programs are, and which versions.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Peer;

/// The programs that were found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    programs: BTreeMap<Peer, (PathBuf, String)>,
}

impl Found {
    /// The same with this copy of Wiber.
    pub(crate) fn with_wiber(mut self, copy: PathBuf) -> Self {
        if let Some((path, _)) = self.programs.get_mut(&Peer::Wiber) {
            *path = copy;
        }
        self
    }

    pub(crate) fn program(&self, peer: Peer) -> Option<&Path> {
        self.programs.get(&peer).map(|(path, _)| path.as_path())
    }

    pub(crate) fn version(&self, peer: Peer) -> Option<&str> {
        self.programs.get(&peer).map(|(_, version)| version.as_str())
    }
}

/// Looks for each broker but Wiber in the path, where packages put it, and in `environment`, the
/// virtual environment of [`super::install`].
pub(crate) fn find(wiber: Option<&Path>, environment: &Path) -> Found {
    let mut programs = BTreeMap::new();
    for peer in Peer::ALL {
        let candidates = match (peer, wiber) {
            (Peer::Wiber, wiber) => wiber.map(Path::to_owned).into_iter().collect(),
            (Peer::Redis, _) => in_path("redis-server"),
            (Peer::Valkey, _) => with_environment("valkey-server", environment),
            (Peer::Nats, _) => with_environment("nats-server", environment),
            (Peer::Beanstalkd, _) => in_path("beanstalkd"),
            (Peer::Rabbitmq, _) => vec![PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server")],
        };
        let usable = |path: PathBuf| {
            let version = version(peer, &path)?;
            is_new_enough(peer, &version).then_some((path, version))
        };
        if let Some(found) = candidates.into_iter().find_map(usable) {
            programs.insert(peer, found);
        }
    }
    Found { programs }
}

/// `sync_interval: always` came to NATS with 2.10: an older one cannot be compared.
fn is_new_enough(peer: Peer, version: &str) -> bool {
    if peer != Peer::Nats {
        return true;
    }
    let mut numbers = version.split('.').map(|word| word.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(2), Some(10))
}

fn in_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join(name)).filter(|path| path.is_file()).collect()
}

fn with_environment(name: &str, environment: &Path) -> Vec<PathBuf> {
    let mut paths = in_path(name);
    search(environment, name, &mut paths);
    paths
}

/// Every file of this name below the folder.
fn search(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&path, name, found);
        } else if entry.file_name() == name {
            found.push(path);
        }
    }
}

/// What the program says of itself; none if it cannot be run.
fn version(peer: Peer, program: &Path) -> Option<String> {
    if peer == Peer::Rabbitmq {
        // Asking it starts a virtual machine; its folder has the version in its name.
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
        let mut names = std::fs::read_dir("/usr/lib/rabbitmq/lib").ok()?.flatten().filter_map(name);
        return names.find_map(|name| Some(name.strip_prefix("rabbitmq_server-")?.to_owned()));
    }
    let flag = if peer == Peer::Beanstalkd { "-v" } else { "--version" };
    let output = Command::new(program).arg(flag).output().ok().filter(|o| o.status.success())?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

/// The first word with a dot behind a number: `v=7.0.15`, `v2.15.1`, `1.12`.
fn version_in(text: &str) -> Option<String> {
    text.split_whitespace().find_map(|word| {
        let version = word.trim_start_matches(|c: char| !c.is_ascii_digit());
        let is_one = version.split_once('.').is_some_and(|(major, rest)| {
            major.bytes().all(|byte| byte.is_ascii_digit())
                && rest.starts_with(|c: char| c.is_ascii_digit())
        });
        is_one.then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        for (text, version) in [
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", "7.0.15"),
            ("nats-server: v2.15.1", "2.15.1"),
            ("beanstalkd 1.12", "1.12"),
            ("wiber 0.1.0", "0.1.0"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version));
        }
        assert_eq!(version_in("usage: none"), None);
    }

    #[test]
    fn an_old_nats_is_not_used() {
        assert!(!is_new_enough(Peer::Nats, "2.9.10"));
        assert!(is_new_enough(Peer::Nats, "2.10.0"));
        assert!(is_new_enough(Peer::Redis, "1.0"));
    }
}
