//! The plug pulled out of a real file system. The data directory is on ext4, on a loop device whose
//! image lies on XFS, where `cp --reflink=always` copies it in an instant: what is on the disk at that
//! moment, and nothing of what the kernel still holds. The copy is mounted, recovered and compared.
//!
//! ```text
//!   <temporary>/host.img ── XFS, reflink=1 ──▶ host/disk.img ── ext4 ──▶ disk/data   the broker's
//!                                                   └─ cp --reflink ─▶ host/cut.img ─▶ cut/data
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use wiber::time::Moment;

use crate::crash::Reading;
use crate::support::{Setup, published, wait_for};

/// How long the file system takes at most to begin the sync that is due.
const SLACK: Duration = Duration::from_millis(300);

/// Runs a command; what it says is the reason if it fails.
fn run(command: &str, arguments: &[&Path]) -> Result<(), String> {
    let mut words = command.split(' ');
    let mut process = Command::new(words.next().unwrap());
    let output =
        process.args(words).args(arguments).output().map_err(|e| format!("{command}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or_else(|| format!("{command}: {}", said.trim()))
}

/// What is mounted, and is unmounted at the end, however it comes.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn mount(&mut self, image: &Path, at: &Path) -> Result<(), String> {
        std::fs::create_dir_all(at).unwrap();
        run("mount -o loop", &[image, at])?;
        self.0.push(at.to_owned());
        Ok(())
    }

    fn unmount_last(&mut self) {
        let at = self.0.pop().unwrap();
        // Whoever has just died may still be holding it.
        wait_for(|| run("umount", &[&at]).is_ok(), || format!("{} is busy", at.display()));
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        while let Some(at) = self.0.pop() {
            drop(run("umount -l", &[&at]));
        }
    }
}

/// A message that was answered: its text, id and offset, and when.
type Answer = (String, (String, u64), Moment);

fn publish(addr: SocketAddr, name: &str, answers: &Mutex<Vec<Answer>>) {
    let Ok(mut stream) = TcpStream::connect(addr) else { return };
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next();
    for burst in 0.. {
        let messages: Vec<String> = (0..20).map(|n| format!("{name}-{burst}-{n}")).collect();
        let text: String = messages.iter().map(|message| format!("PUB chat {message}\n")).collect();
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
        for message in messages {
            let Some(Ok(line)) = lines.next() else { return };
            let place = published(&line);
            answers.lock().unwrap().push((message, place, Moment::read()));
        }
    }
}

/// A disk whose plug can be pulled, or why this machine has none. A copy is made and mounted once: what
/// fails later is no fault of the machine.
fn disk(temp: &Path) -> Result<Mounts, String> {
    let at = |name: &str| temp.join(name);
    let mut mounts = Mounts(Vec::new());
    run("truncate -s 4G", &[&at("host.img")])?;
    run("mkfs.xfs -q -m reflink=1", &[&at("host.img")])?;
    mounts.mount(&at("host.img"), &at("host"))?;
    run("truncate -s 1G", &[&at("host/disk.img")])?;
    run("mkfs.ext4 -q -F", &[&at("host/disk.img")])?;
    mounts.mount(&at("host/disk.img"), &at("disk"))?;
    run("cp --reflink=always", &[&at("host/disk.img"), &at("host/cut.img")])?;
    mounts.mount(&at("host/cut.img"), &at("cut"))?;
    mounts.unmount_last();
    Ok(mounts)
}

/// Pulls the plug so many times while four publishers are at work. What was answered longer ago than
/// `age` has to be there.
#[expect(clippy::print_stdout, reason = "a soak says what it saw")]
fn pull_the_plug(temp: &Path, mounts: &mut Mounts, (fsync, age): (&str, Duration), cuts: usize) {
    let at = |name: &str| temp.join(name);
    let setup = Setup::new(&at("disk/data"))
        .set("STORAGE__FSYNC", fsync)
        .set("STORAGE__CHECKPOINT_BYTES", "64KiB")
        .set("STORAGE__SEGMENT", "256KiB");
    let broker = setup.start();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let publishers: Vec<_> = (0..4)
        .map(|n| {
            let (addr, answers) = (broker.addr, Arc::clone(&answers));
            thread::spawn(move || publish(addr, &format!("p{n}"), &answers))
        })
        .collect();
    let mut kept = 0;
    for cut in 1..=cuts {
        // Without a sync for each, messages of that age take longer to come together.
        let wanted = answers.lock().unwrap().len() + if age.is_zero() { 500 } else { 20_000 };
        wait_for(|| answers.lock().unwrap().len() >= wanted, || "no answers come".to_owned());
        let now = Moment::read();
        let promised = |(_, _, when): &&Answer| now.since(*when) >= age;
        let mut told: BTreeMap<_, _> = { answers.lock().unwrap() }
            .iter()
            .filter(promised)
            .map(|(message, place, _)| (message.clone(), place.clone()))
            .collect();
        let copied = run("cp --reflink=always", &[&at("host/disk.img"), &at("host/cut.img")]);
        copied.unwrap_or_else(|why| panic!("cut {cut}: {why}"));
        kept = told.len();
        let mounted = mounts.mount(&at("host/cut.img"), &at("cut"));
        mounted.unwrap_or_else(|why| panic!("cut {cut}: what is on the disk is unusable: {why}"));
        let recovered = Setup::new(&at("cut/data")).start();
        Reading::new(&at("cut/data")).check(&mut told);
        println!("{fsync}: cut {cut}: {kept} promised, all there; {}", recovered.started);
        recovered.kill();
        mounts.unmount_last();
    }
    broker.kill();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    println!("{fsync}: {cuts} power cuts, {kept} messages promised before the last; 0 lost");
}

#[test]
#[ignore = "needs root, loop devices and mkfs.xfs; WIBER_SOAK_CUTS says how many cuts, or 20"]
fn what_was_acknowledged_survives_pulling_the_plug() {
    let cuts =
        std::env::var("WIBER_SOAK_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(20);
    for (fsync, age) in
        [("always", Duration::ZERO), ("interval:100ms", Duration::from_millis(100) + SLACK)]
    {
        let temp = tempfile::tempdir().unwrap();
        match disk(temp.path()) {
            Ok(mut mounts) => pull_the_plug(temp.path(), &mut mounts, (fsync, age), cuts),
            Err(why) => {
                // Not a failure of the broker, and nothing is known about it either.
                println!("this machine can't pull the plug: {why}");
                println!("it takes root, loop devices, and mkfs.xfs from xfsprogs");
                return;
            }
        }
    }
}
