//! Latencies in buckets of a quarter octave: enough for a percentile within 19 %, fixed memory, no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four buckets an octave, from 16 µs to about 268 s: 24 octaves.
const BUCKETS: usize = 4 * 24;
const FIRST_US: u64 = 16;

/// Counts of durations by size. Any thread may add, any may read; a reader may see a duration before its sum.
pub(crate) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn add(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_micros(self.max_us.load(Ordering::Relaxed))
    }

    /// Upper end of the bucket that holds the given share of all durations; zero while there are none.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let wanted = (self.count() as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if wanted > 0 && seen >= wanted {
                return upper(at).min(self.max());
            }
        }
        Duration::ZERO
    }

    /// Cumulative counts at octave borders, for Prometheus: (upper end, durations up to it).
    pub(crate) fn octaves(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut seen = 0;
        self.counts
            .chunks(4)
            .enumerate()
            .map(move |(octave, counts)| {
                seen += counts
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .sum::<u64>();
                (upper(octave * 4 + 3), seen)
            })
    }
}

fn bucket(us: u64) -> usize {
    let scaled = us.max(FIRST_US);
    let octave = (scaled / FIRST_US).ilog2();
    // The two bits behind the leading one say which quarter.
    let quarter = (scaled >> (octave + FIRST_US.ilog2() - 2)) & 3;
    (octave as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

fn upper(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    Duration::from_micros(((FIRST_US << octave) * (5 + quarter)) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_below_its_buckets_end_and_above_the_one_before() {
        for us in (0..5_000_000).step_by(37) {
            let at = bucket(us);
            assert!(us < upper(at).as_micros() as u64, "{us} in {at}");
            assert!(
                at == 0 || us >= upper(at - 1).as_micros() as u64,
                "{us} in {at}"
            );
        }
        assert_eq!(bucket(u64::MAX / 8), BUCKETS - 1);
    }

    #[test]
    fn percentiles_come_from_the_counts() {
        let histogram = Histogram::default();
        for ms in 1..=100 {
            histogram.add(Duration::from_millis(ms));
        }
        let p50 = histogram.percentile(50.0).as_millis();
        assert!((50..=60).contains(&p50), "{p50}");
        assert_eq!(histogram.percentile(100.0), Duration::from_millis(100));
        assert_eq!(
            histogram.octaves().last().map(|(_, count)| count),
            Some(100)
        );
    }
}
