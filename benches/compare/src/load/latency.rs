//! An open loop: messages at a fixed rate, whatever the broker does, timed from when each was to be
//! sent. What a slow moment holds up counts with all the time that it was held up.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::link::Watch;
use super::payload::Payload;
use super::{Publishers, Quiet, Shared};

/// Publishes `count` messages, one each `step` from `begin` on.
pub(crate) fn publish_at_rate(
    (begin, step, count): (Instant, Duration, u64),
    size: usize,
    shared: &Shared,
    publishers: Publishers,
) -> Result<()> {
    // Where it can't, a message is sent up to 50 µs late; that is part of the times, for everyone.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).ok();
    shared.published.store(count, Ordering::Relaxed);
    shared.side(|| {
        let (mut link, mut publisher) =
            publishers.into_single().context("a connection is needed")?;
        let mut watch = Watch::new(std::iter::once(&link))?;
        let mut payload = Payload::new(size);
        let mut quiet = Quiet::new();
        let (mut sent, mut answered) = (0_u32, 0);
        while answered < count {
            let now = Instant::now();
            let due = begin + step * sent;
            if u64::from(sent) < count && now >= due {
                publisher.publish(payload.bytes(), &mut link.out);
                publisher.burst_ends(&mut link.out);
                payload.advance();
                watch.write(0, &mut link)?;
                sent += 1;
                continue;
            }
            let is_all = u64::from(sent) == count;
            let longest = if is_all { Duration::from_millis(20) } else { due - now };
            if !watch.wait(longest)?.is_empty() {
                while link.read()? {
                    let (input, out) = link.both();
                    let taken = publisher.answers(input, out)?;
                    link.take(taken.bytes);
                    answered += taken.messages;
                }
                watch.write(0, &mut link)?;
            }
            ensure!(answered <= u64::from(sent), "more answers than messages");
            shared.check_other_side()?;
            if quiet.is_too_long(answered) {
                bail!("{} messages were not answered", u64::from(sent) - answered);
            }
        }
        Ok(())
    })
}
