//! Memory that logs keep for their lines.

use super::*;

fn append(log: &mut TopicLog, bytes: usize) {
    let message = vec![b'x'; bytes];
    let ts = Timestamp::from_micros(5);
    log.append(&NewRecord { ts, id: None, message: &message, extra: "" });
}

fn create() -> TopicLog {
    let settings = LogSettings { segment_bytes: 1 << 20 };
    TopicLog::create(arc(&disk()), Path::new(DIR), topic(), settings, budget())
}

/// Each log once kept the buffer of its largest batch, of up to a mebibyte.
#[test]
fn a_large_buffer_goes_from_log_to_log() {
    let (mut one, mut other) = (create(), create());
    append(&mut one, 100_000);
    one.flush().unwrap();
    let spare = one.spare().unwrap();
    assert!(spare.is_empty() && spare.capacity() >= 100_000);
    assert!(one.spare().is_none(), "it is gone");
    other.lend(spare);
    append(&mut other, 10);
    assert!(other.unwritten() > 10);
    other.flush().unwrap();
    assert_eq!(other.unwritten(), 0);
    assert!(other.spare().unwrap().capacity() >= 100_000);
}

#[test]
fn a_small_buffer_stays() {
    let mut log = create();
    append(&mut log, 100);
    log.flush().unwrap();
    assert!(log.spare().is_none());
}

#[test]
fn lines_that_wait_have_no_more_room_than_they_need() {
    let mut log = create();
    log.lend(Vec::with_capacity(1 << 20));
    append(&mut log, 100);
    let before = log.unwritten();
    assert_eq!(log.fit().unwrap().capacity(), 1 << 20);
    assert!(log.fit().is_none(), "they fit");
    append(&mut log, 100);
    assert!(log.unwritten() > before);
    log.flush().unwrap();
    assert!(log.spare().is_none(), "a small buffer was made for them");
    let mut reader = log.reader();
    assert_eq!(reader.next().unwrap().unwrap().message.len(), 100);
    assert_eq!(reader.next().unwrap().unwrap().message.len(), 100);
    assert!(reader.next().unwrap().is_none());
}
