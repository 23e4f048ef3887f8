//! Latencies and random numbers.

use std::time::Duration;

/// Every latency of a run; a run makes at most a few million.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// What the next one waits for beside its own work counts with the last.
    pub(crate) fn add_to_last(&mut self, more: Duration) {
        if let Some(last) = self.0.last_mut() {
            *last = last.saturating_add(u32::try_from(more.as_micros()).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `"p50_ms":…,"p99_ms":…,"max_ms":…`, for the middle of a JSON object.
    pub(crate) fn json(&mut self) -> String {
        self.0.sort_unstable();
        let at = |part: f64| {
            let last = self.0.len().saturating_sub(1);
            f64::from(
                self.0
                    .get((last as f64 * part) as usize)
                    .copied()
                    .unwrap_or(0),
            ) / 1e3
        };
        format!(
            "\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"max_ms\":{:.3}",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

/// xorshift64*: places on a disk need no better.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % limit
    }
}
