//! Readers that stop and go on.

use super::*;

#[test]
fn a_paused_reader_keeps_no_file_and_goes_on_where_it_was() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=100);
    let mut reader = log.reader();
    for (n, block_bytes) in (1..=100).zip([1, 20, 4096].into_iter().cycle()) {
        assert_eq!(reader.next().unwrap().unwrap().offset.get(), n);
        assert!(reader.is_open());
        reader.pause(block_bytes);
        assert!(!reader.is_open());
        let opened = disk.count(Op::Open);
        // Whatever becomes of the segment meanwhile.
        let end = 100 + 3 * n;
        append(&mut log, end - 2..=end);
        assert!(disk.count(Op::Open) <= opened + 10);
    }
    assert_eq!(read_from(&mut reader, 7)[..3], [7, 8, 9], "and elsewhere if it is told to");
    reader.seek(Offset::new(401)).unwrap();
    reader.pause(4096);
    assert!(reader.next().unwrap().is_none());
    append(&mut log, 401..=401);
    assert_eq!(reader.next().unwrap().unwrap().offset.get(), 401);
}

#[test]
fn what_stands_behind_the_last_message_of_a_sealed_segment_is_none() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=60);
    let files = topic_files(&disk);
    let (name, bytes) = &files[1];
    let first = log.shared().segments()[0].first.get();
    // The line of the message that the next segment begins with, but of another life.
    let next = first + bytes.iter().filter(|b| **b == b'\n').count() as u64;
    let mut line = Vec::new();
    let ts = Timestamp::from_micros(5);
    let record = NewRecord { ts, id: None, message: b"never published", extra: "" };
    super::record::write_line(&mut line, topic().tag(), Offset::new(next), &record);
    let path = Path::new(DIR).join(name);
    disk.open(&path, Open::Write).unwrap().write_at(&line, bytes.len() as u64).unwrap();
    let mark = checkpoint(&mut log, &disk);
    let log = open(&disk, &mark).unwrap();
    for from in [1, next - 1, next] {
        assert_eq!(read_from(&mut log.reader(), from), (from..=60).collect::<Vec<_>>());
    }
}

/// Without a daemon, a log whose older segments are gone and whose first line is damaged once seemed to
/// begin with message 1, and all up to there to be damaged.
#[test]
fn a_log_that_does_not_begin_with_the_first_message_begins_where_its_lines_say() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=60);
    let files = topic_files(&disk);
    for (name, _) in &files[1..] {
        disk.remove(&Path::new(DIR).join(name)).unwrap();
    }
    let (name, bytes) = &files[0];
    let lines = bytes.split(|b| *b == b'\n').count() as u64 - 1;
    assert!(name == "chat.log" && lines >= 3, "{name} has {lines} lines");
    let path = Path::new(DIR).join(name);
    let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    disk.flip_bit(&path, 30, 1).unwrap();
    disk.flip_bit(&path, second as u64 + 30, 1).unwrap();
    let mut reader = Reader::offline(arc(&disk), Path::new(DIR), topic()).unwrap();
    for expected in 60 - lines + 1..=60 {
        match reader.next() {
            Ok(Some(line)) => assert_eq!(line.offset.get(), expected),
            Err(LogError::Corrupt { offset, .. }) => {
                assert_eq!(offset.get(), expected);
                assert!(expected < 60 - lines + 3);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(reader.next().unwrap().is_none());
}

/// What a reader without a daemon finds, by offset: good messages, and damaged ones.
fn offline(disk: &SimDisk) -> Vec<Result<u64, u64>> {
    let mut reader = Reader::offline(arc(disk), Path::new(DIR), topic()).unwrap();
    let mut seen = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(line)) => seen.push(Ok(line.offset.get())),
            Ok(None) => return seen,
            Err(LogError::Corrupt { offset, .. }) => seen.push(Err(offset.get())),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Without a daemon, the last message of a topic whose newest file is sealed was taken for one that was being
/// written when a bit of its line end was flipped, and was not there, as if it had never been.
#[test]
fn a_last_line_with_a_damaged_end_is_damaged_and_one_that_was_being_written_is_not_there() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=5);
    log.seal();
    log.flush().unwrap();
    let files = topic_files(&disk);
    let (name, bytes) = &files[0];
    assert!(name.contains('@') && files.len() == 1);
    let path = Path::new(DIR).join(name);
    let end = bytes.len() as u64;
    disk.flip_bit(&path, end - 1, 4).unwrap();
    assert_eq!(offline(&disk), [Ok(1), Ok(2), Ok(3), Ok(4), Err(5)]);
    disk.open(&path, Open::Write).unwrap().truncate(end - 20).unwrap();
    assert_eq!(offline(&disk), [Ok(1), Ok(2), Ok(3), Ok(4)]);
}

/// Two lines with a damaged end between them are one damaged line: at the beginning or the end of a file,
/// without a daemon, only one message of the two was said to be damaged. The other was passed over.
#[test]
fn each_message_of_two_lines_that_became_one_is_damaged() {
    for (joined, expected) in
        [(0, [Err(1), Err(2), Ok(3), Ok(4)]), (2, [Ok(1), Ok(2), Err(3), Err(4)])]
    {
        let disk = disk();
        let mut log = fresh(&disk);
        append(&mut log, 1..=4);
        let files = topic_files(&disk);
        let (name, bytes) = &files[0];
        assert!(name == "chat.log" && files.len() == 1);
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let end = ends.map(|(at, _)| at).nth(joined).unwrap();
        disk.flip_bit(&Path::new(DIR).join(name), end as u64, 4).unwrap();
        assert_eq!(offline(&disk), expected);
    }
}
