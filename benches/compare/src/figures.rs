//! Small arithmetic of measurements.

use std::time::Duration;

/// So many in this time, a second.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let count = count as f64;
    count / time.as_secs_f64().max(1e-9)
}

/// The time in nanoseconds that this share (0 to 1) of all is not above, in microseconds. The times
/// are sorted; none if there are none.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index, rounded down"
    )]
    let at = (sorted.len() as f64 * share) as usize;
    let nanos = sorted.get(at.min(sorted.len().checked_sub(1)?))?;
    Some(micros(Duration::from_nanos(*nanos)))
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The median; of an even number the mean of the two in the middle. None of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_sorted_times() {
        let times: Vec<u64> = (1..=100).map(|n| n * 1000).collect();
        assert_eq!(percentile(&times, 0.5), Some(51.0));
        assert_eq!(percentile(&times, 0.99), Some(100.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_rate_is_a_second() {
        assert_eq!(rate(10, Duration::from_secs(5)), 2.0);
    }
}
