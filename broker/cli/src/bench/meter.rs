//! What a load run measures: latencies in buckets, bytes and records, the processor time of a process.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Buckets an octave, as a power of two: 32, so that a percentile is right within 3.2 %.
const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// The first two octaves' worth counts single microseconds; thirty more reach 2^36 µs, 19 hours.
const BUCKETS: usize = SUB * 32;

/// Latencies by size; 8 KiB, whatever comes.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            count: 0,
            max_us: 0,
        }
    }
}

impl Latencies {
    /// One more.
    pub(crate) fn add(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// All of another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The latency that so many in a thousand do not exceed, in milliseconds; `None` while there are none.
    pub(crate) fn per_mille(&self, share: u64) -> Option<f64> {
        let wanted = (self.count * share).div_ceil(1_000).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(upper(at).min(self.max_us) as f64 / 1_000.0)
    }

    /// The longest, in milliseconds.
    pub(crate) fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max_us as f64 / 1_000.0)
    }
}

/// An octave's values are told apart by the `SUB_BITS` bits behind their first one; below that every value is.
fn bucket(us: u64) -> usize {
    let octave = us.max(1).ilog2().saturating_sub(SUB_BITS);
    let at = octave as usize * SUB + (us >> octave) as usize;
    at.min(BUCKETS - 1)
}

/// The largest value in a bucket.
fn upper(at: usize) -> u64 {
    let octave = (at / SUB).saturating_sub(1);
    let within = (at - octave * SUB) as u64;
    ((within + 1) << octave) - 1
}

/// What all threads of a run share. They go until `stop`, and count once `counting`.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) stop: AtomicBool,
    pub(crate) counting: AtomicBool,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Gauge {
    /// Records and their batches' bytes got through; gives whether they count.
    pub(crate) fn add(&self, records: u64, bytes: u64) -> bool {
        let counting = self.counting.load(Ordering::Relaxed);
        if counting {
            self.records.fetch_add(records, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        counting
    }

    /// Whether to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Processor time that a process has used, of all its threads, user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{pid}/stat");
    let local = |error| Failure::Local {
        what: format!("--broker-pid {pid}: reading {path}"),
        error,
    };
    let text = fs::read_to_string(&path).map_err(local)?;
    let ticks = cpu_ticks(&text).ok_or_else(|| local(io::ErrorKind::InvalidData.into()))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_millis(
        ticks.saturating_mul(1_000) / per_second,
    ))
}

/// proc_pid_stat(5): fields 14 and 15. The second one is a name in parentheses that may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// A run from the moment on from which it counts.
#[derive(Debug)]
pub(crate) struct Span {
    began: Instant,
    cpu: Option<Duration>,
}

impl Span {
    /// Begins, and notes what the process `pid` has used so far.
    pub(crate) fn begin(pid: Option<u32>) -> Result<Self, Failure> {
        let cpu = pid.map(cpu).transpose()?;
        Ok(Self {
            began: Instant::now(),
            cpu,
        })
    }

    /// Time from then to `ended`, and the processor time used in it: to be asked for right behind the end.
    pub(crate) fn end(
        &self,
        ended: Instant,
        pid: Option<u32>,
    ) -> Result<(Duration, Option<Duration>), Failure> {
        let took = ended.saturating_duration_since(self.began);
        let used = pid.map(cpu).transpose()?;
        let used = used
            .zip(self.cpu)
            .map(|(end, begin)| end.saturating_sub(begin));
        Ok((took, used))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_begins_where_the_last_one_ends() {
        for at in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper(at)), at);
            assert_eq!(bucket(upper(at) + 1), at + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let mut low = Latencies::default();
        assert_eq!((low.per_mille(500), low.max()), (None, None));
        let mut high = Latencies::default();
        for us in 1..=100_000 {
            let half = if us % 2 == 0 { &mut low } else { &mut high };
            half.add(Duration::from_micros(us));
        }
        low.merge(&high);
        for (share, truth) in [(500, 50.0), (990, 99.0), (1_000, 100.0)] {
            let found = low.per_mille(share).unwrap();
            assert!((truth..truth * 1.04).contains(&found), "{share}: {found}");
        }
        assert_eq!(low.max(), Some(100.0));
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 1234 66 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(1_300));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        let own = std::process::id();
        assert!(cpu(own).is_ok());
    }
}
