//! What the core thread counts as it goes: plain cells, no atomics, read by the status page and `/metrics`.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use model::batch::Header;

use crate::histogram::Histogram;

/// API keys end below this in every release of Kafka so far; those beyond it share the last place.
pub(crate) const API_KEYS: usize = 96;

/// A number that only rises.
#[derive(Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// One API's requests.
#[derive(Default)]
pub(crate) struct ApiCounters {
    /// From the whole frame to the answer, waits for data or members included.
    pub(crate) latency: Histogram,
    /// Requests or partitions that got an error code.
    pub(crate) errors: Counter,
}

/// All of the core thread's counters.
pub(crate) struct Counters {
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) batches_in: Counter,
    pub(crate) records_in: Counter,
    /// Connections that were closed for what the peer did, or failed to do.
    pub(crate) connections_failed: Counter,
    /// Frames that could not be read, or were of an API or version nobody here speaks.
    pub(crate) frames_refused: Counter,
    apis: Box<[ApiCounters]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            batches_in: Counter::default(),
            records_in: Counter::default(),
            connections_failed: Counter::default(),
            frames_refused: Counter::default(),
            apis: (0..API_KEYS).map(|_| ApiCounters::default()).collect(),
        }
    }
}

impl Counters {
    /// The counters of the API with this key.
    pub(crate) fn api(&self, key: i16) -> &ApiCounters {
        let last = API_KEYS - 1;
        &self.apis[usize::try_from(key).unwrap_or(last).min(last)]
    }

    /// The keys that were asked for, with their counters.
    pub(crate) fn apis(&self) -> impl Iterator<Item = (i16, &ApiCounters)> {
        (0..)
            .zip(self.apis.iter())
            .filter(|(_, api)| api.latency.count() > 0)
    }

    /// A client's batch was accepted: its partition has given it offsets. A duplicate is not accepted again.
    pub(crate) fn accepted(&self, header: &Header) {
        self.batches_in.add(1);
        self.records_in
            .add(u64::from(header.records_count.unsigned_abs()));
        self.bytes_in.add(header.bytes as u64);
    }

    /// A request was answered after `latency`.
    pub(crate) fn answered(&self, key: i16, latency: Duration) {
        self.api(key).latency.add(latency);
    }

    /// A connection ended with `error`. A peer that just goes away is no fault.
    pub(crate) fn connection_ended(&self, error: &io::Error) {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        if !matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) {
            self.connections_failed.add(1);
        }
    }
}
