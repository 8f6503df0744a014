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
