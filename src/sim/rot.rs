//! Rotten bits: one flipped bit in any file is recognised, or costs one message that says so.

use std::path::Path;
use std::sync::Arc;

use rand::RngExt;

use crate::broker::open::Found;
use crate::disk::Disk;
use crate::disk::sim::{Crash, SimDisk};
use crate::ids::Offset;
use crate::log::{LogError, Reader, scan};

use super::node::{DIR, Node};
use super::records::Record;
use super::world::{Seen, World};

/// Flips a bit in a copy of the disk from `before` the last start, and looks what a start on it says.
pub(super) fn check(world: &mut World, before: &SimDisk) -> Result<(), Seen> {
    let copy = before.copy(Crash::KeepAll);
    let files: Vec<_> = copy.files().into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
    if files.is_empty() {
        return Ok(());
    }
    // Every kind of file is as likely as the others, however many there are.
    let kinds = [".wal", ".log", "/checkpoint/", ""];
    let kind = kinds[world.rng.random_range(0..kinds.len())];
    let of_kind: Vec<_> =
        files.iter().filter(|(path, _)| path.to_string_lossy().contains(kind)).collect();
    if of_kind.is_empty() {
        return Ok(());
    }
    let (path, bytes) = of_kind[world.rng.random_range(0..of_kind.len())];
    let at = world.rng.random_range(0..bytes.len());
    let bit = world.rng.random_range(0..8);
    world.note(format_args!("rot: bit {bit} of byte {at} of {}", path.display()));
    let seen = |why| ("rot", format!("bit {bit} of byte {at} of {}: {why}", path.display()));
    copy.flip_bit(path, at as u64, bit).map_err(|error| seen(error.to_string()))?;
    match Node::start(&copy, world.plan, world.now) {
        Err(error) if error.to_string().contains(&*path.to_string_lossy()) => Ok(()),
        Err(error) if error.is_damage() => Ok(()),
        Err(error) => Err(seen(format!("the start says {error}"))),
        Ok((node, Found::Recovered { torn_bytes: 1.., .. })) => {
            // When the very last records of the log have rotted, nothing can tell: they look like
            // those of a write that the power cut.
            let last = node.last_written();
            let is_last = last >= world.journal.vouched();
            is_last.then_some(()).ok_or_else(|| seen(format!("the log is cut at record {last}")))
        }
        Ok((node, _)) => {
            same_groups(world, &node).and_then(|()| read_all(world, &node, &copy)).map_err(seen)
        }
    }
}

/// All groups are where they are after a start on the sound disk, which has just been.
fn same_groups(world: &World, node: &Node) -> Result<(), String> {
    let Some(sound) = &world.node else { return Ok(()) };
    for topic in sound.shards.iter().flat_map(|shard| shard.topics()) {
        let rotten = node.topic(topic.name().as_str());
        for (group, was) in topic.progress() {
            let is = rotten.and_then(|topic| Some(topic.group(topic.group_key(group)?).progress()));
            if is != Some(was) {
                return Err(format!("group {group} of {} was {was:?} and is {is:?}", topic.name()));
            }
        }
    }
    Ok(())
}

/// Everything that was answered OK is there as it was, but for messages that say they are damaged.
fn read_all(world: &World, node: &Node, copy: &SimDisk) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(copy.clone());
    let topics = scan(copy, Path::new(DIR)).map_err(|error| error.to_string())?.topics;
    for (name, known) in world.records.topics.iter().filter(|(_, known)| !known.is_empty()) {
        let all = node.shards.iter().flat_map(|shard| shard.topics());
        let log = all.map(|topic| topic.log()).find(|log| log.shared().topic().as_str() == name);
        let first = log.map_or(Offset::FIRST, |log| log.first());
        let kept = known.len() + 1 - usize::try_from(first.get()).map_err(|e| e.to_string())?;
        if kept == 0 {
            continue;
        }
        let topic = topics.keys().find(|topic| topic.as_str() == name);
        let topic = topic.ok_or_else(|| format!("{name} is gone"))?;
        let mut damaged = 0;
        let mut reader = match Reader::offline(Arc::clone(&disk), Path::new(DIR), topic.clone()) {
            Ok(reader) => reader,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error.to_string()),
        };
        let mut good = 0;
        loop {
            match reader.next() {
                Ok(Some(line)) => {
                    let index =
                        usize::try_from(line.offset.get() - 1).map_err(|e| e.to_string())?;
                    let found = Record::of(&line, topic.is_dead_letter());
                    let is_known = known.get(index).is_none_or(|known| *known == found);
                    if !is_known {
                        return Err(format!("{name} {} is another message", line.offset));
                    }
                    good += 1;
                }
                Ok(None) => break,
                Err(LogError::Corrupt { .. }) => damaged += 1,
                Err(error) => return Err(error.to_string()),
            }
        }
        if good + damaged < kept {
            return Err(format!("{name} has {good} messages and {damaged} damaged of {kept}"));
        }
        if damaged > 2 {
            return Err(format!("one bit damages {damaged} messages of {name}"));
        }
    }
    Ok(())
}
