//! What is settled was acknowledged by somebody or is a dead letter; what is a dead letter is
//! settled. The floor passes nothing else.

use super::View;
use super::dead_letters::DeadLetters;
use super::groups::Groups;
use crate::ids::Offset;

pub(super) fn check(
    view: &View<'_>,
    groups: &Groups,
    dead_letters: &DeadLetters,
) -> Result<(), String> {
    for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
        for (group, progress) in topic.progress() {
            let name = topic.name().as_str();
            let Some(start) = groups.start(name, group.as_str()) else { continue };
            let mut offset = start.next();
            while offset <= topic.log().end() {
                let unit = (name.to_owned(), group.as_str().to_owned(), offset.get());
                let is_dead = dead_letters.units.contains(&unit);
                let may = is_dead || view.ledger.acks_sent.contains(&unit);
                let is_settled = progress.is_settled(offset);
                // A group of a dead-letter topic has nowhere to put what fails for good.
                if is_settled && !may && !topic.name().is_dead_letter() {
                    return Err(format!("{name} {offset} was settled by nobody in {group}"));
                }
                if is_dead && !is_settled {
                    return Err(format!(
                        "{name} {offset} is a dead letter, and goes on in {group}"
                    ));
                }
                offset = Offset::new(offset.get() + 1);
            }
        }
    }
    Ok(())
}
