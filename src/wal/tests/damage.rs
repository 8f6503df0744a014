//! Rot, and what tells it from a torn tail.

use super::*;

/// Records of 64 bytes from 4096 on, each durable before the next was written.
fn five_records() -> SimDisk {
    let disk = new_disk();
    let mut wal = create(&disk);
    for payload in [b"aaaa", b"bbbb", b"cccc", b"dddd", b"eeee"] {
        append(&mut wal, &[payload]).unwrap();
        wal.sync().unwrap();
    }
    disk.crash(Crash::LoseUnsynced)
}

const FIELDS: [(&str, u64); 10] = [
    ("len", 0),
    ("crc", 4),
    ("mark", 8),
    ("lsn", 16),
    ("durable", 24),
    ("shard", 32),
    ("kind", 36),
    ("term", 40),
    ("index", 48),
    ("payload", 56),
];

fn place(result: Result<Examined, WalError>) -> (PathBuf, u64) {
    match result {
        Err(error @ WalError::Damaged { .. }) => {
            let text = error.to_string();
            let WalError::Damaged { file, at, .. } = error else { unreachable!() };
            assert!(text.contains("wiber check") && text.contains(&format!("byte {at}")), "{text}");
            (file, at)
        }
        other => panic!("it should be damaged, but is {other:?}"),
    }
}

#[test]
fn a_flipped_bit_that_a_later_record_vouches_for_is_damage() {
    for record in 0..4 {
        for (field, offset) in FIELDS {
            for bit in 0..8 {
                let disk = five_records();
                let at = 4096 + record * 64;
                disk.flip_bit(&segment_file(1), at + offset, bit).unwrap();
                let before = disk.files();
                let found = place(look(&disk, 0));
                assert_eq!(found, (segment_file(1), at), "{field} of record {}", record + 1);
                assert!(disk.files() == before, "nothing is changed");
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_a_record_that_some_of_a_checkpoints_state_covers_is_damage() {
    let disk = five_records();
    disk.flip_bit(&segment_file(1), 4096 + 4 * 64 + 56, 0).unwrap();
    let look = |from, durable| {
        let covered = Covered { from: Lsn::new(from), durable: Lsn::new(durable) };
        examine(arc(&disk), Path::new(DIR), SMALL, covered)
    };
    assert_eq!(place(look(3, 5)), (segment_file(1), 4096 + 4 * 64));
    assert!(look(3, 4).unwrap().torn().is_some(), "that of nothing is a torn tail");
}

#[test]
fn a_flipped_bit_in_the_last_record_is_a_torn_tail() {
    for (field, offset) in FIELDS {
        for bit in 0..8 {
            let disk = five_records();
            disk.flip_bit(&segment_file(1), 4096 + 4 * 64 + offset, bit).unwrap();
            let examined = look(&disk, 0).unwrap();
            let torn = examined.torn().unwrap_or_else(|| panic!("{field}")).clone();
            assert_eq!((torn.file, torn.at, torn.records), (segment_file(1), 4096 + 256, 0));
            assert_eq!(torn.bytes, 60, "up to the last byte that is not zero");
            assert_eq!(replayed(&examined).len(), 4);
            examined.finish().unwrap();
            let bytes = &disk.files()[&segment_file(1)];
            assert!(bytes[4096 + 256..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn the_checkpoint_vouches_too() {
    let disk = five_records();
    disk.flip_bit(&segment_file(1), 4096 + 4 * 64, 0).unwrap();
    assert!(look(&disk, 4).is_ok());
    assert_eq!(place(look(&disk, 5)), (segment_file(1), 4096 + 256));
    let disk = five_records();
    assert!(look(&disk, 5).unwrap().torn().is_none(), "right after a clean checkpoint");
    assert_eq!(place(look(&disk, 6)), (segment_file(1), 4096 + 320));
}

#[test]
fn a_log_without_a_record_is_damaged_if_a_checkpoint_covers_one() {
    let disk = new_disk();
    drop(create(&disk));
    assert!(look(&disk, 0).is_ok());
    assert_eq!(place(look(&disk, 3)), (segment_file(1), 4096));
}

#[test]
fn records_of_one_write_do_not_vouch_for_each_other() {
    let disk = new_disk();
    let mut wal = create(&disk);
    append(&mut wal, &[b"aaaa"]).unwrap();
    wal.sync().unwrap();
    append(&mut wal, &[b"bbbb", b"cccc"]).unwrap();
    append(&mut wal, &[b"dddd"]).unwrap();
    let disk = disk.crash(Crash::KeepAll);
    disk.flip_bit(&segment_file(1), 4096 + 64 + 56, 0).unwrap();
    let examined = look(&disk, 0).unwrap();
    let torn = examined.torn().unwrap();
    assert_eq!((torn.at, torn.bytes, torn.records), (4096 + 64, 64 * 3, 2));
    let mut wal = examined.finish().unwrap();
    // The new record 2 ends where the old record 3 began.
    append(&mut wal, &[b"BBBB"]).unwrap();
    let (seen, _) = finish(&disk.crash(Crash::KeepAll), 0);
    assert_eq!(seen, [(1, b"aaaa".to_vec()), (2, b"BBBB".to_vec())]);
}

#[test]
fn a_wrong_length_does_not_lead_past_a_voucher() {
    for len in [5u32, 64, 120, 4000, 5000, u32::MAX] {
        let disk = five_records();
        let file = disk.open(&segment_file(1), Open::Write).unwrap();
        file.write_at(&len.to_le_bytes(), 4096 + 64).unwrap();
        assert_eq!(place(look(&disk, 0)), (segment_file(1), 4096 + 64));
    }
}

#[test]
fn zeros_in_the_place_of_a_record_are_damage() {
    for record in 0..4 {
        let disk = five_records();
        let file = disk.open(&segment_file(1), Open::Write).unwrap();
        file.write_at(&[0; 64], 4096 + record * 64).unwrap();
        assert_eq!(place(look(&disk, 0)), (segment_file(1), 4096 + record * 64));
    }
}

const OTHERS: Identity = Identity { node: 78, ..WE };

/// Five segments with a record of 3000 bytes each, all durable.
fn five_segments() -> SimDisk {
    let disk = new_disk();
    let mut wal = create(&disk);
    for n in 0..5 {
        append(&mut wal, &[&[n; 3000]]).unwrap();
    }
    wal.sync().unwrap();
    disk.crash(Crash::LoseUnsynced)
}

#[test]
fn a_missing_segment_is_damage_unless_the_checkpoint_covers_it() {
    for missing in 1..5 {
        let disk = five_segments();
        disk.remove(&segment_file(missing)).unwrap();
        let (file, at) = place(look(&disk, 0));
        let named = if missing == 1 { (segment_file(2), 4096) } else { (segment_file(missing), 0) };
        assert_eq!((file, at), named);
        assert!(look(&disk, missing).is_ok(), "covered");
    }
}

#[test]
fn damage_at_the_front_of_a_segment_is_found_from_both_sides() {
    for segment in 1..5 {
        let disk = five_segments();
        disk.flip_bit(&segment_file(segment), 4096 + 100, 0).unwrap();
        assert_eq!(place(look(&disk, 0)), (segment_file(segment), 4096));
        if segment > 1 {
            assert_eq!(place(look(&disk, segment - 1)), (segment_file(segment), 4096));
        }
        assert!(look(&disk, segment).is_ok(), "record {segment} is covered");
    }
    let disk = five_segments();
    disk.flip_bit(&segment_file(5), 4096 + 100, 0).unwrap();
    let examined = look(&disk, 0).unwrap();
    assert_eq!(examined.torn().unwrap().file, segment_file(5));
    let mut wal = examined.finish().unwrap();
    append(&mut wal, &[&[9; 3000]]).unwrap();
    wal.sync().unwrap();
    let (seen, _) = finish(&disk.crash(Crash::LoseUnsynced), 3);
    assert_eq!(seen, [(4, vec![3; 3000]), (5, vec![9; 3000])]);
}

#[test]
fn a_damaged_header_is_damage_where_records_are_needed() {
    for segment in 1..=5 {
        for at in [0, 8, 12, 16, 24, 32, 40, 48] {
            let disk = five_segments();
            disk.flip_bit(&segment_file(segment), at, 3).unwrap();
            assert_eq!(place(look(&disk, 0)), (segment_file(segment), 0), "byte {at}");
            assert_eq!(look(&disk, segment).is_ok(), segment < 5, "covered, if not the last");
        }
    }
}

#[test]
fn a_segment_cut_short_is_damage_if_it_was_used() {
    for len in [0, 100, 4096, 8000] {
        let disk = five_segments();
        disk.open(&segment_file(3), Open::Write).unwrap().truncate(len).unwrap();
        let (file, _) = place(look(&disk, 0));
        assert_eq!(file, segment_file(3), "{len}");
    }
}

#[test]
fn a_last_segment_that_was_never_whole_is_no_damage() {
    for bytes in [&b""[..], &[0; 100], &[0; 4096], &[0xff; 5000]] {
        let disk = five_segments();
        let file = disk.open(&segment_file(6), Open::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
        let (seen, mut wal) = finish(&disk, 0);
        assert_eq!(seen.len(), 5);
        assert!(!disk.files().contains_key(&segment_file(6)));
        append(&mut wal, &[&[6; 3000]]).unwrap();
        wal.sync().unwrap();
        assert_eq!(finish(&disk.crash(Crash::LoseUnsynced), 0).0.len(), 6);
    }
}

#[test]
fn a_segment_of_another_node_is_refused() {
    let (disk, other) = (five_segments(), new_disk());
    let mut wal = Wal::create(arc(&other), Path::new(DIR), OTHERS, SMALL).unwrap();
    for n in 0..5 {
        append(&mut wal, &[&[n; 3000]]).unwrap();
    }
    wal.sync().unwrap();
    let foreign = other.files()[&segment_file(3)].clone();
    disk.open(&segment_file(3), Open::Write).unwrap().write_at(&foreign, 0).unwrap();
    assert_eq!(place(look(&disk, 0)), (segment_file(3), 0));
}

#[test]
fn a_format_of_the_future_is_refused_as_such() {
    for segments in [5..=5, 1..=5] {
        let disk = five_segments();
        for segment in segments {
            let mut header = disk.files()[&segment_file(segment)][..52].to_vec();
            header[8] = 2;
            let crc = crc32c::crc32c(&header[..48]);
            header[48..].copy_from_slice(&crc.to_le_bytes());
            let file = disk.open(&segment_file(segment), Open::Write).unwrap();
            file.write_at(&header, 0).unwrap();
        }
        let error = look(&disk, 0).unwrap_err();
        assert!(matches!(error, WalError::Unsupported { found: 2, .. }), "{error}");
    }
}

#[test]
fn any_single_rotten_bit_is_damage_or_harmless() {
    let whole = replayed(&look(&five_segments(), 0).unwrap());
    for segment in 1..=5 {
        for at in (0..8192).step_by(13) {
            let disk = five_segments();
            disk.flip_bit(&segment_file(segment), at, 5).unwrap();
            match look(&disk, 0) {
                Ok(examined) => {
                    let seen = replayed(&examined);
                    let lost_the_last = segment == 5 && seen == whole[..4];
                    assert!(seen == whole || lost_the_last, "segment {segment}, byte {at}");
                }
                Err(error) => assert!(matches!(error, WalError::Damaged { .. }), "{error}"),
            }
        }
    }
}

/// A segment with these records, made by hand: number, durable, index and kind.
fn crafted(records: &[(u64, u64, u64, u32)]) -> SimDisk {
    let disk = new_disk();
    drop(create(&disk));
    let mut bytes = Vec::new();
    for &(lsn, durable, index, kind) in records {
        let entry = Entry { shard: 0, term: 1, index, payload: b"abcdefgh" };
        let start = bytes.len();
        let (lsn, durable) = (Lsn::new(lsn), Lsn::new(durable));
        record::encode(&mut bytes, segment::mark(WE, 1), lsn, durable, &entry);
        bytes[start + 36..start + 40].copy_from_slice(&kind.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[start + 8..]);
        bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }
    disk.open(&segment_file(1), Open::Write).unwrap().write_at(&bytes, 4096).unwrap();
    disk
}

#[test]
fn numbers_and_indexes_must_follow_one_another() {
    let whole = crafted(&[(1, 0, 7, 1), (2, 1, 8, 1)]);
    assert_eq!(look(&whole, 0).unwrap().last(), Lsn::new(2));
    let gap_unsynced = crafted(&[(1, 0, 7, 1), (3, 1, 9, 1)]);
    let examined = look(&gap_unsynced, 0).unwrap();
    assert_eq!((examined.last(), examined.torn().unwrap().records), (Lsn::new(1), 1));
    let gap = crafted(&[(1, 0, 7, 1), (3, 2, 9, 1)]);
    assert_eq!(place(look(&gap, 0)), (segment_file(1), 4096 + 64));
    let index_left_out = crafted(&[(1, 0, 7, 1), (2, 1, 9, 1)]);
    assert_eq!(place(look(&index_left_out, 0)), (segment_file(1), 4096 + 64));
}

#[test]
fn a_kind_of_the_future_is_refused_as_such() {
    let error = look(&crafted(&[(1, 0, 1, 2)]), 0).unwrap_err();
    assert!(matches!(error, WalError::Unsupported { found: 2, .. }), "{error}");
}

#[test]
fn a_payload_that_looks_like_records_is_none() {
    // All that a client can know or guess: numbers of segments and records, but not the secret.
    let mut forged = Vec::new();
    let outsider = Identity { secret: 0, ..WE };
    for number in 1..12 {
        let entry = Entry { shard: 0, term: 1, index: number, payload: b"forged" };
        for mark in [number, segment::mark(outsider, number)] {
            record::encode(&mut forged, mark, Lsn::new(u64::MAX), Lsn::new(u64::MAX - 1), &entry);
        }
    }
    let disk = new_disk();
    let mut wal = create(&disk);
    for _ in 0..20 {
        append(&mut wal, &[&forged]).unwrap();
        wal.sync().unwrap();
        wal.free_through(wal.durable());
        while let Some(job) = wal.spare_job() {
            job.run().unwrap();
        }
        let examined = look(&disk, wal.durable().get()).unwrap();
        assert_eq!((examined.last(), examined.torn()), (wal.durable(), None));
    }
}

#[test]
fn records_and_tails_larger_than_one_read_are_judged_alike() {
    let settings = Settings { segment_bytes: 2 << 20 };
    let look = |disk: &SimDisk| examine(arc(disk), Path::new(DIR), settings, Lsn::ZERO);
    for len in [300_000, 100, 262_144 - 56 - 4096, 262_144 - 56] {
        let disk = new_disk();
        let mut wal = Wal::create(arc(&disk), Path::new(DIR), WE, settings).unwrap();
        for payload in [vec![1; len], vec![2; 300_000], vec![3; len], vec![4; 10]] {
            append(&mut wal, &[&payload]).unwrap();
            wal.sync().unwrap();
        }
        assert_eq!(replayed(&look(&disk).unwrap()).len(), 4);
        let size = record::size_of(len) as u64;
        let starts = [4096, 4096 + size, 4096 + size + 300_056, 4096 + 2 * size + 300_056];
        for (number, at) in starts.into_iter().enumerate() {
            // Twice, so that the bit is as it was for the next one.
            for flipped in [true, false] {
                disk.flip_bit(&segment_file(1), at + 60, 0).unwrap();
                match (flipped, look(&disk)) {
                    (false, examined) => assert_eq!(replayed(&examined.unwrap()).len(), 4),
                    (true, Ok(examined)) => {
                        assert_eq!((number, examined.torn().unwrap().at), (3, at));
                    }
                    (true, damaged) => assert_eq!(place(damaged), (segment_file(1), at)),
                }
            }
        }
    }
}
