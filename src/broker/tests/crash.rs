//! Power cuts and failures of the disk at every operation of a workload.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::layout::Layout;
use super::super::open::Found;
use super::life::{self, Ledger, Node, Op, live, now, settings, workload};
use crate::check::{self, Finding, Level, Report};
use crate::disk::sim::{Crash, Failure, Fault, SimDisk};
use crate::disk::{Disk, Open};

/// Lives until the power goes after `changes` changes of the disk; then recovers and checks.
/// Returns whether the workload was over before.
fn cut_at(changes: u64, how: Crash) -> bool {
    let disk = SimDisk::new();
    let mut ledger = Ledger::default();
    disk.cut_power_after(changes);
    let is_over = match Node::start(&disk, now(0)) {
        Ok((mut node, _)) => live(&mut node, &workload(), &mut ledger).is_ok(),
        Err(_) => false,
    };
    let mut disk = disk.crash(how);
    check_and_repair(&disk, &ledger, changes);
    // The power goes again while it recovers, ever a little later.
    for later in [changes % 7, 3 + changes % 11] {
        disk.cut_power_after(later);
        drop(Node::start(&disk, now(1000)));
        disk = disk.crash(Crash::Random { seed: changes });
    }
    // However often it recovers, it comes to the same.
    let again = disk.copy(Crash::KeepAll);
    drop(Node::start(&again, now(2000)).unwrap_or_else(|e| panic!("{changes}: {e}")));
    let (mut node, _) = Node::start(&disk, now(2000)).unwrap_or_else(|e| panic!("{changes}: {e}"));
    assert!(again.files() == disk.files(), "{changes}: the same recovery gives the same bytes");
    life::check(&disk, &node, &ledger);
    // It goes on, and stops in order; the next start has nothing to do.
    live(&mut node, &[Op::Publish("a", 3), Op::Subscribe("a"), Op::Ack(1, 0)], &mut ledger)
        .expect("the disk is well");
    life::check(&disk, &node, &ledger);
    node.checkpoint(true).expect("the disk is well");
    drop(node);
    let before = disk.files();
    let (node, found) = Node::start(&disk, now(3000)).unwrap();
    assert_eq!(found, Found::Clean);
    life::check(&disk, &node, &ledger);
    let topics = |files: BTreeMap<PathBuf, Vec<u8>>| -> Vec<(PathBuf, Vec<u8>)> {
        files.into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log")).collect()
    };
    assert_eq!(topics(before), topics(disk.files()), "a clean start changes nothing");
    is_over
}

/// All variants of each crash point, or one after the other.
fn is_soak() -> bool {
    std::env::var_os("WIBER_SOAK").is_some()
}

#[test]
fn a_power_cut_at_any_change_of_the_disk_loses_nothing_that_was_promised() {
    let mut changes = 0;
    loop {
        let variants = [
            Crash::LoseUnsynced,
            Crash::KeepAll,
            Crash::Random { seed: changes },
            Crash::Random { seed: !changes },
        ];
        let turn = usize::try_from(changes % 4).unwrap();
        let is_wanted = |at: &usize| is_soak() || *at == turn || *at == (turn + 2) % 4;
        let wanted: Vec<usize> = (0..variants.len()).filter(is_wanted).collect();
        if wanted.into_iter().any(|at| cut_at(changes, variants[at])) {
            break;
        }
        changes += 1;
    }
    assert!(changes > 200, "the workload has {changes} changes of the disk");
}

/// Lives with a disk whose operation `nth` fails, whatever it is. Then the power goes, the disk is
/// well again, and everything must be there.
fn fail_at(nth: u64, failure: Failure) {
    let disk = SimDisk::new();
    let mut ledger = Ledger::default();
    disk.fail(Fault { op: None, path_has: String::new(), skip: nth, times: 1, failure });
    if let Ok((mut node, _)) = Node::start(&disk, now(0)) {
        // Some failures end the life, and some nobody notices.
        drop(live(&mut node, &workload(), &mut ledger));
    }
    let disk = disk.crash(Crash::Random { seed: nth });
    let (node, _) = Node::start(&disk, now(2000))
        .unwrap_or_else(|e| panic!("{failure:?} at {nth}, and afterwards: {e}"));
    life::check(&disk, &node, &ledger);
}

#[test]
fn a_failure_of_any_operation_of_the_disk_loses_nothing_that_was_promised() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::start(&disk, now(0)).unwrap();
    live(&mut node, &workload(), &mut Ledger::default()).unwrap();
    let operations = disk.operations();
    assert!(operations > 400, "the workload has {operations} operations of the disk");
    let failures =
        [Failure::Io, Failure::NoSpace, Failure::NoDescriptor, Failure::Short { written: 5 }];
    for nth in 0..operations {
        failures.into_iter().for_each(|failure| fail_at(nth, failure));
    }
}

/// What a crash has left, with one bit flipped, and repaired if a check finds that.
struct Flipped {
    disk: SimDisk,
    damage: Vec<Finding>,
}

fn damage(disk: &SimDisk) -> (Arc<dyn Disk>, Report) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = check::check(&shared, &settings().data_dir, &mut |_, _| {}).unwrap();
    (shared, report)
}

fn flip_and_repair(left: &SimDisk, path: &Path, seed: u64) -> Flipped {
    let disk = left.copy(Crash::KeepAll);
    let len = disk.files()[path].len() as u64;
    disk.flip_bit(path, (seed >> 8) % len, u8::try_from(seed % 8).unwrap()).unwrap();
    let (shared, mut report) = damage(&disk);
    if report.damages() > 0 {
        let (dir, seeds) = (settings().data_dir, check::Seeds { node: 1, secret: 2 });
        check::repair(&shared, &dir, &report, now(98_000).wall, seeds).unwrap();
        let (_, left) = damage(&disk);
        assert_eq!(left.damages(), 0, "{:?}, and repaired {:?}", report.findings, left.findings);
    }
    report.findings.retain(|finding| finding.level == Level::Damage);
    Flipped { disk, damage: report.findings }
}

/// What a crash leaves is no damage. If one bit of a topic's file is flipped in it, that is found and
/// costs that message at most, or it costs nothing. If the newest of two checkpoints is damaged, a repair
/// goes back to the older: nothing is lost.
fn check_and_repair(disk: &SimDisk, ledger: &Ledger, seed: u64) {
    let files = disk.files();
    if files.is_empty() {
        return;
    }
    let (_, report) = damage(disk);
    assert_eq!(report.damages(), 0, "{:?}", report.findings);
    let ends_with = |path: &Path, end: &str| path.extension().is_some_and(|its| its == end);
    let folder = Layout::new(&settings().data_dir).checkpoints();
    let is_checkpoint = |path: &&PathBuf| path.starts_with(&folder) && ends_with(path, "json");
    let checkpoints: Vec<_> = files.keys().filter(is_checkpoint).collect();
    if let [_, .., newest] = checkpoints[..] {
        let Flipped { disk, damage } = flip_and_repair(disk, newest, seed);
        assert!(!damage.is_empty(), "{} is damaged", newest.display());
        let (node, _) = Node::start(&disk, now(99_000)).unwrap();
        life::check(&disk, &node, ledger);
    }
    let is_log = |path: &&PathBuf| ends_with(path, "log") && !files[*path].is_empty();
    let logs: Vec<_> = files.keys().filter(is_log).collect();
    let number = usize::try_from(seed >> 40).unwrap();
    if let Some(log) = logs.get(number % logs.len().max(1)) {
        let Flipped { disk, damage } = flip_and_repair(disk, log, seed);
        let is_its = |finding: &Finding| finding.file == **log;
        assert!(damage.iter().all(is_its), "{}: {damage:?}", log.display());
        let (node, _) = Node::start(&disk, now(99_000)).unwrap();
        life::check_but(&disk, &node, ledger, usize::from(!damage.is_empty()));
    }
}

fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// What happens, after how many changes of the disk the power goes, and what that leaves.
type Life = (Vec<Op>, u64, u64);

fn live_and_crash(lives: Vec<Life>) {
    let mut disk = SimDisk::new();
    let mut ledger = Ledger::default();
    for (at, (ops, changes, seed)) in (0..).zip(lives) {
        // Connections of another life hold nothing any more.
        let (mut node, _) = Node::start(&disk, now(at * 1000)).unwrap();
        life::check(&disk, &node, &ledger);
        node.spare();
        disk.cut_power_after(changes);
        drop(live(&mut node, &ops, &mut ledger));
        disk = disk.crash(Crash::Random { seed });
        check_and_repair(&disk, &ledger, seed);
    }
    let (node, _) = Node::start(&disk, now(99_000)).unwrap();
    life::check(&disk, &node, &ledger);
    check_and_repair(&disk, &ledger, 5);
}

/// Lines that a power cut had taken out of an active segment behind the checkpoint were once taken for a
/// sealed segment that is missing.
#[test]
fn what_is_lost_behind_the_checkpoint_is_no_damage() {
    live_and_crash(vec![
        (vec![Op::Checkpoint], 5, 2_370_821_466_366_813_611),
        (vec![Op::Publish("a", 4), Op::Publish("a", 2)], 5, 4_000_829_223_576_979_700),
        (vec![Op::Publish("a", 1)], 0, 16_082_581_740_639_671_488),
    ]);
}

/// With the end of a line damaged, the two messages beside it were once given up when nothing else in
/// their segment was good, and lines behind it were torn.
#[test]
fn two_messages_whose_line_end_is_damaged_are_both_still_there() {
    let published = vec![
        Op::Publish("a", 2),
        Op::Publish("b", 2),
        Op::Checkpoint,
        Op::Publish("c", 5),
        Op::Publish("b", 5),
    ];
    live_and_crash(vec![
        (published, 25, 3_220_560_978_085_057_361),
        (vec![Op::Publish("b", 1)], 3, 10_031_948_464_670_221_434),
    ]);
}

fn op() -> impl Strategy<Value = Op> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    prop_oneof![
        6 => (name.clone(), 1..6u64).prop_map(|(name, count)| Op::Publish(name, count)),
        2 => name.prop_map(Op::Subscribe),
        8 => (1..6u64, 0..4usize).prop_map(|(client, at)| Op::Ack(client, at)),
        1 => (1..6u64).prop_map(Op::Leave),
        3 => (1..12u64).prop_map(Op::Pass),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::CheckpointAmid),
        2 => Just(Op::Retain),
    ]
}

proptest! {
    // More of them: PROPTEST_CASES=5000 cargo test --lib life_tests
    #![proptest_config(ProptestConfig { cases: cases(150), failure_persistence: None, ..Default::default() })]
    #[test]
    fn random_lives_with_crashes_keep_every_promise(
        lives in proptest::collection::vec((proptest::collection::vec(op(), 1..40), 0..400u64, any::<u64>()), 1..5),
    ) {
        live_and_crash(lives);
    }
}

/// A start once cut topics' files, removed those that the log would make again and put strangers aside before
/// it had looked at the older checkpoint; when that was damaged it refused, and said that nothing was changed.
#[test]
fn a_start_that_refuses_has_changed_nothing() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    let behind = [Op::Publish("a", 3), Op::Publish("new", 1), Op::Publish("a", 40)];
    live(&mut node, &workload(), &mut ledger).unwrap();
    node.checkpoint(false).unwrap();
    live(&mut node, &behind, &mut ledger).unwrap();
    drop(node);
    let layout = Layout::new(&settings().data_dir);
    drop(disk.open(&layout.data.join("stranger.log"), Open::Create).unwrap());
    let left = |disk: &SimDisk| {
        let mut files = disk.files();
        // It says who has the directory; what is in the trash is gone for good.
        files.retain(|path, _| *path != layout.lock() && !path.starts_with(layout.trash()));
        files
    };
    let (mut refused, files) = (BTreeSet::new(), left(&disk));
    for (path, bytes) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let name = path.extension().unwrap_or_default();
        for at in (0..bytes.len().min(9000)).step_by(97) {
            let copy = disk.copy(Crash::KeepAll);
            copy.flip_bit(path, at as u64, 3).unwrap();
            let before = left(&copy);
            if let Err(error) = Node::start(&copy, now(1000)) {
                assert!(left(&copy) == before, "changed, though {error}");
                refused.insert((name, path.parent()));
            }
        }
    }
    let checkpoints = layout.checkpoints();
    assert!(refused.iter().any(|(_, folder)| *folder == Some(&*checkpoints)), "{refused:?}");
    assert!(refused.len() > 2, "{refused:?}");
}
