//! Whether every message comes, and only once.

use anyhow::{Result, ensure};

/// What is to come to the consumers of a run.
#[derive(Debug)]
pub(crate) enum Check {
    /// Every message to one of them, in any order: a bit for each number that came.
    Once(Vec<u64>),
    /// Every message to each of them, in order: the next number of each.
    Each(Vec<u64>),
}

impl Check {
    /// For the members of a group.
    pub(crate) fn once() -> Self {
        Self::Once(Vec::new())
    }

    /// For so many plain subscribers or readers.
    pub(crate) fn each(consumers: usize) -> Self {
        Self::Each(vec![0; consumers])
    }

    /// How often each message is to come in all.
    pub(super) fn copies(&self) -> u64 {
        match self {
            Self::Once(_) => 1,
            Self::Each(next) => next.len() as u64,
        }
    }

    /// A message came to this consumer.
    pub(super) fn came(&mut self, consumer: usize, number: u64) -> Result<()> {
        match self {
            Self::Once(seen) => {
                let word = usize::try_from(number / 64)?;
                if word >= seen.len() {
                    // Far more than is ever published at a time: something else has numbered it.
                    ensure!(word < 1 << 26, "message {number} came, which was never published");
                    seen.resize(word + 1024, 0);
                }
                let bit = 1 << (number % 64);
                ensure!(seen[word] & bit == 0, "message {number} came twice");
                seen[word] |= bit;
            }
            Self::Each(next) => {
                let wanted = next[consumer];
                ensure!(number >= wanted, "message {number} came twice or late");
                ensure!(number == wanted, "message {wanted} was lost: {number} came");
                next[consumer] += 1;
            }
        }
        Ok(())
    }

    /// Whether what came is the messages up to this number.
    pub(super) fn is_all(&self, published: u64) -> Result<()> {
        let has_come = |number: u64| match self {
            Self::Once(seen) => {
                let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
                seen.get(word).is_some_and(|word| word & (1 << (number % 64)) != 0)
            }
            Self::Each(next) => next.iter().all(|next| *next == published),
        };
        let lost = (0..published).find(|number| !has_come(*number));
        ensure!(lost.is_none(), "message {} was lost", lost.unwrap_or_default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_gets_each_message_once_in_any_order() {
        let mut check = Check::once();
        for number in [2, 0, 70_000, 1] {
            check.came(0, number).unwrap();
        }
        assert!(check.came(3, 70_000).is_err());
        check.is_all(3).unwrap();
        assert!(check.is_all(4).is_err());
    }

    #[test]
    fn subscribers_get_all_messages_in_order() {
        let mut check = Check::each(2);
        for consumer in [0, 1] {
            check.came(consumer, 0).unwrap();
        }
        check.is_all(1).unwrap();
        check.came(1, 1).unwrap();
        assert!(check.is_all(2).is_err(), "one of them has it only");
        assert!(check.came(0, 2).is_err(), "a gap");
        assert!(check.came(1, 1).is_err(), "twice");
    }
}
