//! Which bytes of which extents lie only in the page cache, in the order of their place on the disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use model::Instant;

use crate::format::extent::SlotLife;
use crate::format::{PAGE, page_down, page_up};

/// Place on the disk, then slot: the order in which a sweep visits.
pub(crate) type Key = (u64, u32);

/// An extent's bytes that are not written out yet.
#[derive(Debug)]
pub(crate) struct Run<F> {
    pub(crate) file: Arc<F>,
    /// Which life of the slot they are of.
    generation: u32,
    /// `[low, high)`, whole pages.
    pub(crate) low: u64,
    pub(crate) high: u64,
    /// The tail of a sealed extent, apart from the rest.
    pub(crate) tail: Option<(u64, u64)>,
    /// Group of its oldest byte.
    pub(crate) born_seq: u64,
    pub(crate) born: Instant,
}

impl<F> Run<F> {
    pub(crate) fn bytes(&self) -> u64 {
        self.high - self.low + self.tail.map_or(0, |tail| tail.1)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Dirty<F> {
    runs: BTreeMap<Key, Run<F>>,
    addresses: BTreeMap<u32, u64>,
    bytes: u64,
}

impl<F> Default for Dirty<F> {
    fn default() -> Self {
        Self {
            runs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<F> Dirty<F> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// When the oldest byte was written.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.runs.values().map(|run| run.born).min()
    }

    /// Extents at or behind `from` with bytes of groups up to `seq`.
    pub(crate) fn due(&self, from: Key, seq: u64) -> usize {
        self.runs
            .range(from..)
            .filter(|(_, run)| run.born_seq <= seq)
            .count()
    }

    /// The first of these.
    pub(crate) fn next(&self, from: Bound<Key>, seq: u64) -> Option<Key> {
        self.runs
            .range((from, Bound::Unbounded))
            .find(|(_, run)| run.born_seq <= seq)
            .map(|(key, _)| *key)
    }

    pub(crate) fn run_mut(&mut self, key: Key) -> Option<&mut Run<F>> {
        self.runs.get_mut(&key)
    }

    /// `[from, to)` of an extent was written into the page cache by group `seq`.
    pub(crate) fn mark(
        &mut self,
        life: SlotLife,
        address: u64,
        file: &Arc<F>,
        (from, to): (u64, u64),
        (seq, now): (u64, Instant),
    ) {
        let (from, to) = (page_down(from), page_up(to));
        let run = self.run(life, address, file, (from, from), (seq, now));
        let before = run.bytes();
        if run.high == run.low {
            (run.low, run.high) = (from, to);
        } else {
            (run.low, run.high) = (run.low.min(from), run.high.max(to));
        }
        let grown = run.bytes() - before;
        self.bytes += grown;
    }

    /// The tail of a sealed extent was.
    pub(crate) fn mark_tail(
        &mut self,
        life: SlotLife,
        address: u64,
        file: &Arc<F>,
        (at, bytes): (u64, u64),
        when: (u64, Instant),
    ) {
        debug_assert!((at | bytes).is_multiple_of(PAGE as u64));
        let run = self.run(life, address, file, (0, 0), when);
        let before = run.bytes();
        run.tail = Some((at, bytes));
        let after = run.bytes();
        self.bytes = self.bytes + after - before;
    }

    fn run(
        &mut self,
        life: SlotLife,
        address: u64,
        file: &Arc<F>,
        (low, high): (u64, u64),
        (born_seq, born): (u64, Instant),
    ) -> &mut Run<F> {
        let address = *self.addresses.entry(life.slot).or_insert(address);
        let run = self
            .runs
            .entry((address, life.slot))
            .or_insert_with(|| Run {
                file: file.clone(),
                generation: life.generation,
                low,
                high,
                tail: None,
                born_seq,
                born,
            });
        assert_eq!(
            run.generation, life.generation,
            "slot {} was let go with bytes that still were to be written",
            life.slot
        );
        run
    }

    /// A piece of a run was handed over; what is left of the run stays.
    pub(crate) fn shrink(&mut self, key: Key, low: u64, tail: bool) {
        let Some(run) = self.runs.get_mut(&key) else {
            return;
        };
        let before = run.bytes();
        run.low = low.min(run.high);
        if tail {
            run.tail = None;
        }
        self.bytes -= before - run.bytes();
        if run.bytes() == 0 {
            self.runs.remove(&key);
            self.addresses.remove(&key.1);
        }
    }

    /// Nothing of a slot is needed any more.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(address) = self.addresses.remove(&slot)
            && let Some(run) = self.runs.remove(&(address, slot))
        {
            self.bytes -= run.bytes();
        }
    }
}
