//! When an index is written.

use super::*;
use crate::disk::read_all;

/// Every checkpoint once wrote the index of every topic that had got a message: 5,000 of them, and
/// the keeper had work for three seconds.
#[test]
fn an_index_is_saved_only_when_it_has_something_new() {
    let disk = disk();
    let settings = LogSettings { segment_bytes: 1 << 20 };
    let mut log = TopicLog::create(arc(&disk), Path::new(DIR), topic(), settings, budget());
    let path = Path::new(DIR).join(".wiber/index/chat@00000000000000000001.idx");
    let mut step = |bytes: usize| {
        let message = vec![b'x'; bytes];
        let ts = Timestamp::from_micros(5);
        log.append(&NewRecord { ts, id: None, message: &message, extra: "" });
        log.flush().unwrap();
        checkpoint(&mut log, &disk);
        let saved = read_all(&disk, &path).ok();
        saved.inspect(|_| disk.remove(&path).unwrap()).map(|bytes| index::entries(&bytes).len())
    };
    assert_eq!(step(10), None, "that it begins with the first message is known");
    assert_eq!(step(70_000), None);
    assert_eq!(step(10), Some(2));
    assert_eq!(step(10), None, "nothing new");
    assert_eq!(step(70_000), None);
    assert_eq!(step(10), Some(3));
}
