//! The corpus of every target, and seeded variations of it.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use super::script::Draw;
use super::{TARGETS, Target};

/// How many variations of its corpus each target is fed. A fuzzer does millions.
const VARIATIONS: usize = 1500;

/// Longest variation, in bytes.
const BYTES_MAX: usize = 6000;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{} holds only {} files", dir.display(), files.len());
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    files.into_iter().map(read).collect()
}

#[test]
fn every_target_replays_its_corpus() {
    for target in TARGETS {
        for (path, bytes) in corpus(target) {
            let outcome = catch_unwind(|| (target.run)(&bytes));
            assert!(outcome.is_ok(), "{} panics; see above", path.display());
        }
    }
}

#[test]
fn every_target_stands_variations_of_its_corpus() {
    for target in TARGETS {
        let corpus: Vec<_> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
        let mut draw = Draw::new(crc32c::crc32c(target.name.as_bytes()).into());
        for number in 0..VARIATIONS {
            let bytes = vary(&corpus, &mut draw);
            let outcome = catch_unwind(|| (target.run)(&bytes));
            let shown = bytes.escape_ascii();
            assert!(outcome.is_ok(), "{}, variation {number}: b\"{shown}\"", target.name);
        }
    }
}

#[test]
fn every_target_has_a_binary_for_the_fuzzer() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let source = format!("fuzz_targets/{}.rs", target.name);
        assert!(manifest.contains(&format!("path = \"{source}\"")), "fuzz/Cargo.toml: {source}");
        assert!(fs::read_to_string(dir.join(&source)).unwrap().contains(target.name), "{source}");
    }
}

/// One of the corpus after some accidents.
fn vary(corpus: &[Vec<u8>], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = corpus[draw.below(corpus.len())].clone();
    for _ in 0..1 + draw.below(8) {
        let at = draw.below(bytes.len());
        let random = u8::try_from(draw.below(256)).unwrap();
        match draw.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << draw.below(8),
            1 if !bytes.is_empty() => bytes[at] = random,
            2 => bytes.insert(at, random),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..(at + draw.below(40)).min(bytes.len()))),
            5 => {
                let piece = bytes[at..(at + draw.below(60)).min(bytes.len())].to_vec();
                let to = draw.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = &corpus[draw.below(corpus.len())];
                let from = draw.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}
