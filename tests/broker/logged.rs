//! What the log says, to people and to machines.

use serde_json::Value;

use crate::support::{Broker, Setup, data_dir, quick, wait_for};

/// Starts it with the log for machines.
fn in_json(setup: Setup) -> Broker {
    setup.set("LOG__FORMAT", "json").start()
}

/// What of the events with this name is under `field`.
fn logged(log: &str, event: &str, field: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).map(|line| line[field].clone()).collect()
}

#[test]
fn numbers_are_numbers_and_outcomes_are_those_of_the_records() {
    let (_temp, dir) = data_dir();
    let broker = in_json(quick(&dir).set("DELIVERY__MAX_RETRIES", "1"));
    let mut members = [broker.connect(), broker.connect()];
    for member in &mut members {
        assert_eq!(member.ask("SUB jobs g"), "OK subscribed jobs in group g");
    }
    members[0].send("PUB jobs hello");
    // It is told before it is on disk.
    broker.wait_logged("dead_lettered");
    wait_for(|| broker.file("jobs.dlq.log").len() == 1, || "the dead letter".to_owned());
    let log = broker.logged();
    assert_eq!(logged(&log, "member_joined", "members"), [1, 2]);
    for event in ["retry", "dead_lettered"] {
        assert_eq!(logged(&log, event, "offset"), [1], "{event}");
        assert_eq!(logged(&log, event, "outcome"), ["timeout"], "{event}");
    }
    let letter = &broker.file("jobs.dlq.log")[0];
    assert_eq!(letter["attempts"][0]["outcome"], "timeout");
}

/// A client that sends a heartbeat every ten seconds, as all do, was dead while it was idle, and nothing
/// said why.
#[test]
fn a_time_to_be_dead_that_is_shorter_than_two_heartbeats_is_warned_of() {
    let event = "dead_after_short";
    let (_temp, dir) = data_dir();
    let broker = in_json(quick(&dir).set("DELIVERY__DEAD_AFTER", "200ms"));
    let mut member = broker.connect();
    assert_eq!(member.ask("SUB jobs g"), "OK subscribed jobs in group g");
    broker.wait_logged("consumer_dead");
    let log = broker.logged();
    assert_eq!(logged(&log, event, "level"), ["WARN"]);
    assert_eq!(logged(&log, event, "dead_after"), ["200ms"]);
    assert!(logged(&log, "consumer_dead", "conn")[0].is_u64(), "{log}");
    drop(broker);
    for (dead_after, is_told) in [("20s", false), ("19999ms", true)] {
        let (_temp, dir) = data_dir();
        let broker = in_json(quick(&dir).set("DELIVERY__DEAD_AFTER", dead_after));
        let log = broker.log.clone();
        assert_eq!(broker.stop(), Some(0));
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(!logged(&log, event, "level").is_empty(), is_told, "{dead_after}: {log}");
    }
}

/// `--log-level wiber::broker=debug` silenced all that is logged elsewhere, errors too.
#[test]
fn a_level_for_one_module_leaves_the_others_as_they_are() {
    for (level, is_told) in [("wiber::broker=debug", true), ("off,wiber::broker=debug", false)] {
        let (_temp, dir) = data_dir();
        let broker = in_json(quick(&dir).set("LOG__LEVEL", level));
        let log = broker.log.clone();
        assert_eq!(broker.stop(), Some(0));
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(logged(&log, "stopped", "level").len(), usize::from(is_told), "{level}: {log}");
        assert_eq!(logged(&log, "checkpoint", "level")[0], "DEBUG", "{level}: {log}");
    }
}
