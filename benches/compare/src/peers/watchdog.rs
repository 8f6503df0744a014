//! Sees to it that nothing is left behind, however this program ends.
//!
//! A small shell in a process group of its own reads from a pipe whose other end only this program
//! holds. It is told of each server. When the pipe ends, since this program has ended in order, by a
//! signal, by a panic or by `kill -9`, the shell kills what is still there and removes the scratch
//! folder.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=" "
while read -r verb group; do
    case $verb in
    watch) groups="$groups$group " ;;
    forget) groups="${groups%% $group *} ${groups#* $group }" ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
# Who is killed may still be in the middle of making a file.
for try in 1 2 3 4 5; do
    rm -rf -- "$1" && break
    sleep 1
done
"#;

/// Knows what is to be ended. Clones tell the same shell.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    shell: Arc<Shell>,
}

#[derive(Debug)]
struct Shell {
    pipe: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

impl Watchdog {
    /// `scratch` is what is removed in the end.
    pub(crate) fn start(scratch: &Path) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "watchdog"]).arg(scratch);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.process_group(0).spawn().context("failed to start /bin/sh")?;
        let pipe = Mutex::new(child.stdin.take());
        Ok(Self { shell: Arc::new(Shell { pipe, child: Mutex::new(child) }) })
    }

    /// This process group is to end with this program.
    pub(super) fn watch(&self, group: u32) -> Result<()> {
        self.tell(&format!("watch {group}\n"))
    }

    /// This one has ended; its number may be somebody else's soon.
    pub(super) fn forget(&self, group: u32) -> Result<()> {
        self.tell(&format!("forget {group}\n"))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut pipe = self.shell.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = pipe.as_mut().context("the watchdog has ended")?;
        pipe.write_all(line.as_bytes()).context("failed to tell the watchdog")
    }
}

/// Waits until everything is cleared away.
impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.pipe.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        // It may have been killed; then there is nobody to wait for.
        drop(self.child.get_mut().unwrap_or_else(PoisonError::into_inner).wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_is_watched_ends_and_what_is_forgotten_stays() {
        let scratch = tempfile::tempdir().unwrap().keep();
        let (mut first, mut other, mut last) = (sleeper(), sleeper(), sleeper());
        let watchdog = Watchdog::start(&scratch).unwrap();
        for child in [&first, &other, &last] {
            watchdog.watch(child.id()).unwrap();
        }
        watchdog.forget(other.id()).unwrap();
        drop(watchdog);
        assert!(!scratch.exists());
        assert!(!first.wait().unwrap().success());
        assert!(!last.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
