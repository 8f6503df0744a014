//! Power cuts at every change, and years of them.

use super::*;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A log, and what a careful reader knows about it.
struct Story {
    disk: SimDisk,
    wal: Wal,
    dice: Dice,
    /// What was handed to append under each number, last life first; from record 1 on.
    written: Vec<Vec<u8>>,
    durable: u64,
    checkpoint: u64,
    job: Option<SpareJob>,
    lives: u64,
}

impl Story {
    fn new(seed: u64) -> Story {
        let disk = new_disk();
        let wal = create(&disk);
        let dice = Dice(seed);
        let written = Vec::new();
        Story { disk, wal, dice, written, durable: 0, checkpoint: 0, job: None, lives: 0 }
    }

    fn append(&mut self) -> Result<(), WalError> {
        let count = 1 + self.dice.below(4);
        let payloads: Vec<Vec<u8>> = (0..count)
            .map(|n| {
                let lsn = self.written.len() as u64 + n + 1;
                let len = match self.dice.below(8) {
                    0 => 0,
                    1 => 9000,
                    2..4 => self.dice.below(3000),
                    // Often the same, so that new records end where stale ones begin.
                    _ => 200,
                };
                let mut payload = format!("{lsn}/{}", self.lives).into_bytes();
                payload.resize(payload.len().max(usize::try_from(len).unwrap()), 0xa5);
                payload
            })
            .collect();
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        self.written.extend(payloads.iter().cloned());
        append(&mut self.wal, &slices).map(|_| ())
    }

    fn step(&mut self) -> Result<(), WalError> {
        match self.dice.below(8) {
            0..=3 => self.append()?,
            4 | 5 => self.durable = self.wal.sync()?.get(),
            6 => match self.job.take() {
                Some(job) => job.run()?,
                None => self.job = self.wal.spare_job(),
            },
            _ => {
                let ahead = self.durable - self.checkpoint;
                self.checkpoint += self.dice.below(ahead + 1);
                self.wal.free_through(Lsn::new(self.checkpoint));
            }
        }
        self.durable = self.durable.max(self.wal.durable().get());
        Ok(())
    }

    fn steps(&mut self, count: u64) {
        for _ in 0..count {
            if self.step().is_err() {
                assert!(self.disk.is_off(), "nothing else may go wrong");
                return;
            }
        }
    }

    /// The power fails; what is found must be what was written, all that was durable, and no more.
    fn crash(&mut self, how: Crash, name: &str) {
        self.job = None;
        self.disk = self.disk.crash(how);
        let examined =
            look(&self.disk, self.checkpoint).unwrap_or_else(|error| panic!("{name}: {error}"));
        let seen = replayed(&examined);
        assert!(examined.last().get() >= self.durable, "{name}: a durable record is lost");
        let numbers: Vec<u64> = seen.iter().map(|(lsn, _)| *lsn).collect();
        let expected: Vec<u64> = (self.checkpoint + 1..=examined.last().get()).collect();
        assert_eq!(numbers, expected, "{name}");
        for (lsn, payload) in &seen {
            let written = self.written.get(usize::try_from(*lsn).unwrap() - 1);
            assert!(written == Some(payload), "{name}: record {lsn} was never written");
        }
        let last = usize::try_from(examined.last().get()).unwrap();
        self.wal = examined.finish().unwrap();
        let before = self.disk.files();
        let again = look(&self.disk, self.checkpoint).unwrap();
        assert_eq!(again.torn(), None, "{name}: the tail was cut");
        drop(again.finish().unwrap());
        assert!(before == self.disk.files(), "{name}: recovering twice gives the same bytes");
        self.written.truncate(last);
        self.durable = last as u64;
        self.lives += 1;
    }
}

#[test]
fn a_power_cut_at_every_change_loses_nothing_durable() {
    for story in 0..3 {
        let changes = {
            let mut story = Story::new(story);
            let before = story.disk.changes();
            story.steps(40);
            story.disk.changes() - before
        };
        for cut in 0..=changes {
            for variant in 0..5 {
                let how = match variant {
                    0 => Crash::LoseUnsynced,
                    1 => Crash::KeepAll,
                    seed => Crash::Random { seed: seed * 1000 + cut },
                };
                let name = format!("story {story}, cut {cut}, {how:?}");
                let mut story = Story::new(story);
                story.disk.cut_power_after(cut);
                story.steps(40);
                story.crash(how, &name);
                // New records over the old tail, and another crash: no stale one comes back.
                story.steps(6);
                story.crash(Crash::Random { seed: cut }, &name);
            }
        }
    }
}

#[test]
fn recovery_itself_survives_power_cuts() {
    for seed in 0..300 {
        let mut story = Story::new(seed);
        story.steps(20);
        story.append().unwrap();
        let found = story.disk.crash(Crash::Random { seed });
        let changes = {
            let before = found.changes();
            let examined = look(&found, story.checkpoint).unwrap();
            drop(examined.finish().unwrap());
            found.changes() - before
        };
        story.disk = found.crash(Crash::KeepAll);
        // A cut in the middle of the cutting; then all of it again.
        let cut = story.dice.below(changes + 1);
        story.disk.cut_power_after(cut);
        drop(look(&story.disk, story.checkpoint).unwrap().finish());
        story.crash(Crash::Random { seed }, &format!("seed {seed}, cut {cut}"));
    }
}

#[test]
fn a_long_life_of_crashes() {
    for seed in 0..40 {
        let mut story = Story::new(seed);
        for life in 0..40 {
            let steps = 1 + story.dice.below(30);
            if story.dice.below(2) == 0 {
                let cut = story.dice.below(40);
                story.disk.cut_power_after(cut);
            }
            story.steps(steps);
            let how = match story.dice.below(4) {
                0 => Crash::LoseUnsynced,
                1 => Crash::KeepAll,
                _ => Crash::Random { seed: seed * 100 + life },
            };
            story.crash(how, &format!("seed {seed}, life {life}"));
        }
    }
}
