//! The producer windows (KIP-98): what a node remembers of each idempotent producer, so that a retry is not stored twice.
//!
//! One value for all replicas of a node or of a disk. Per pair (producer id, replica): the last five batches *as of the
//! high watermark*, plus every batch above it, so that a truncation, which never cuts below the high watermark, can't
//! empty a window. The broker's machines ask it before they accept a batch; the store feeds it from batch headers and
//! keeps it in checkpoints. Nothing here expires by time, and nothing waits.
//!
//! At rest (section 1 of a partition's checkpoint, little-endian):
//! ```text
//! head  16: 0 version u16 = 1 · 2 zero u16 · 4 entries u32 · 8 items u32 · 12 zero u32
//! entry 112: 0 pid i64 · 8 epoch i16 · 10 flags u16 · 12 coordinator_epoch i32
//!           16 5 × {base_offset i64, first_seq i32, last_delta i32} · 96 last_ts i64 · 104 txn_first i64
//! item   32: 0 offset i64 · 8 pid i64 · 16 first_seq i32 · 20 last_delta i32 · 24 coordinator_epoch i32
//!           28 epoch i16 · 30 kind u8 (0 data, 1 opening, 2 commit, 3 abort) · 31 zero u8
//! ```

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{Offset, ProducerEpoch, ProducerId, WallMs};

mod entry;
mod facts;
mod rest;

use entry::{Above, Batch, Entry, Item, Kind, NO_BATCH, NO_ITEM, NO_SLOT, NUMBER_MASK};
pub use facts::{Claim, Fact, Marker, MarkerFault};

/// Batches remembered of a pair as of the high watermark: what a Java client may have in flight.
pub const BATCHES: usize = 5;
/// Pairs a node remembers: 64 Ki, less the one slot number that means "none", × 128 B = 8 MiB.
pub const PAIRS_MAX: u16 = u16::MAX;
/// Batches above the high watermark of all replicas together: 64 Ki × 40 B = 2.5 MiB.
pub const ABOVE_MAX: usize = 64 * 1024;
/// Version of the bytes at rest.
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 112;
const ITEM_BYTES: usize = 32;

/// Number of a replica in its node's tables, the journal's `part_ix`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartIx(pub u32);

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one, or nothing is known of its producer.
    Append,
    /// It is stored already.
    Duplicate {
        /// Where its first record lies.
        base_offset: Offset,
        /// Time of the pair's last append: this batch's own if it was the last one.
        timestamp: WallMs,
    },
    /// Batches are missing before it: OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder {
        /// The sequence that would be right.
        expected: i32,
    },
    /// A newer generation of the producer has written: INVALID_PRODUCER_EPOCH.
    Fenced {
        /// The newest generation seen.
        current: ProducerEpoch,
    },
    /// Every pair is pinned, or [`ABOVE_MAX`] batches wait for the high watermark: refuse, the client may retry.
    Crowded,
}

/// A producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Who.
    pub pid: ProducerId,
    /// Its newest generation.
    pub epoch: ProducerEpoch,
    /// Sequence of its last record; −1 if none is remembered.
    pub last_seq: i32,
    /// Latest time of its last batch.
    pub last_ts: WallMs,
    /// −1: it never ended a transaction here.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction; −1: none.
    pub txn_first: Offset,
}

/// Bytes of a checkpoint's section 1 that are not what this release writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WindowFault {
    /// Written by a newer release.
    #[error(
        "producer windows of version {0}, this release reads {VERSION}: start the newer release again"
    )]
    Version(u16),
    /// Counts and length don't agree, or a field can't be.
    #[error("producer windows: {0}")]
    Malformed(&'static str),
}

/// All windows of a node, or of a disk.
#[derive(Clone, Debug)]
pub struct Windows {
    bound: u16,
    slots: Vec<Entry>,
    free: Vec<u16>,
    index: BTreeMap<(PartIx, i64), u16>,
    above: BTreeMap<PartIx, Above>,
    above_count: usize,
    oldest: u16,
    newest: u16,
    evicted: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self::new(PAIRS_MAX)
    }
}

impl Windows {
    /// Nothing known yet; at most `bound` pairs (1 at least) are ever remembered. Memory is taken as they come.
    #[must_use]
    pub fn new(bound: u16) -> Self {
        Self {
            bound: bound.max(1),
            slots: Vec::new(),
            free: Vec::new(),
            index: BTreeMap::new(),
            above: BTreeMap::new(),
            above_count: 0,
            oldest: NO_SLOT,
            newest: NO_SLOT,
            evicted: 0,
        }
    }

    /// Pairs remembered.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.index.len()
    }

    /// Pairs that were forgotten to make room, since the start.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether the batch of `claim` may be appended to `part` now. Changes nothing.
    #[must_use]
    pub fn check(&self, part: PartIx, claim: &Claim) -> Verdict {
        let Some(entry) = self.entry(part, claim.pid) else {
            // No stored state: any sequence is right, the producer may have outlived its window (COMPAT 13).
            let room = self.above_count < ABOVE_MAX
                && (self.index.len() < usize::from(self.bound) || self.evictable().is_some());
            return if room {
                Verdict::Append
            } else {
                Verdict::Crowded
            };
        };
        let current = self.last_epoch(entry);
        if claim.epoch.0 < current {
            return Verdict::Fenced {
                current: ProducerEpoch(current),
            };
        }
        let mut expected = 0;
        if claim.epoch.0 == current {
            let mut newest = true;
            for batch in self.batches(entry, current) {
                if newest {
                    expected = batch.next_seq();
                    newest = false;
                }
                if (batch.first_seq, batch.last_delta) == (claim.first_seq, claim.last_delta) {
                    return Verdict::Duplicate {
                        base_offset: batch.base_offset,
                        timestamp: WallMs(entry.last_ts),
                    };
                }
            }
        }
        if claim.first_seq != expected {
            Verdict::OutOfOrder { expected }
        } else if self.above_count < ABOVE_MAX {
            Verdict::Append
        } else {
            Verdict::Crowded
        }
    }

    /// Takes a batch that was appended to `part`. Fed again, or below what was fed, it changes nothing, so a replay may
    /// begin before what a checkpoint holds.
    pub fn feed(&mut self, part: PartIx, fact: &Fact) {
        let above = self.above.entry(part).or_default();
        if fact.base_offset < above.end {
            return;
        }
        above.end = fact.next_offset();
        let slot = self.slot_for(part, fact.claim.pid);
        let entry = &self.slots[usize::from(slot)];
        let kind = match fact.marker {
            Some(Marker { commit: true, .. }) => Kind::Commit,
            Some(Marker { commit: false, .. }) => Kind::Abort,
            None if fact.transactional && self.open_first(entry).is_none() => Kind::Opening,
            None => Kind::Data,
        };
        let before = entry.item;
        let entry = &mut self.slots[usize::from(slot)];
        entry.last_ts = fact.max_ts.0;
        entry.serial = entry.serial.wrapping_add(u32::from(kind != Kind::Data));
        let item = Item {
            batch: Batch {
                base_offset: fact.base_offset,
                first_seq: fact.claim.first_seq,
                last_delta: fact.claim.last_delta,
            },
            pid: fact.claim.pid.0,
            epoch: fact.claim.epoch.0,
            kind,
            coordinator_epoch: fact.marker.map_or(-1, |marker| marker.coordinator_epoch),
            before,
        };
        let above = self.above.get_mut(&part).expect("made above");
        if fact.next_offset() <= above.hw {
            entry.fold(&item);
        } else {
            let number = above.first.wrapping_add(above.items.len() as u32) & NUMBER_MASK;
            above.items.push_back(item);
            entry.item = number;
            self.above_count += 1;
        }
        self.unlink(slot);
        self.link_newest(slot);
    }

    /// The high watermark of `part` is `hw`: what lies below can't be truncated any more. Never falls.
    pub fn advance(&mut self, part: PartIx, hw: Offset) {
        let above = self.above.entry(part).or_default();
        above.hw = above.hw.max(hw);
        while let Some(item) = above.items.front().copied() {
            if item
                .batch
                .base_offset
                .plus(i64::from(item.batch.last_delta))
                >= above.hw
            {
                break;
            }
            let number = above.first;
            above.items.pop_front();
            above.first = number.wrapping_add(1) & NUMBER_MASK;
            self.above_count -= 1;
            // feed() may have forgotten the pair although this item pinned it.
            let slot = self.index.get(&(part, item.pid)).copied();
            if let Some(entry) = slot.map(|slot| &mut self.slots[usize::from(slot)]) {
                entry.fold(&item);
                if entry.item == number {
                    entry.item = NO_ITEM;
                }
            }
        }
    }

    /// The log of `part` was cut: offsets from `to` on are gone. Below the high watermark this happens only in an
    /// unclean election; the windows then lose what was cut, and a pair with nothing left is forgotten.
    pub fn truncate(&mut self, part: PartIx, to: Offset) {
        let Some(above) = self.above.get_mut(&part) else {
            return;
        };
        above.end = above.end.min(to);
        while let Some(item) = above.items.back().copied() {
            if item.batch.base_offset < to {
                break;
            }
            above.items.pop_back();
            self.above_count -= 1;
            let slot = self.index.get(&(part, item.pid)).copied();
            if let Some(entry) = slot.map(|slot| &mut self.slots[usize::from(slot)]) {
                entry.item = above.get(item.before).map_or(NO_ITEM, |_| item.before);
            }
        }
        let below_hw = to < above.hw;
        above.hw = above.hw.min(to);
        let slots: Vec<u16> = self
            .index
            .range(pairs_of(part))
            .map(|(_, slot)| *slot)
            .collect();
        for slot in slots {
            let entry = &mut self.slots[usize::from(slot)];
            if below_hw {
                for batch in entry
                    .batches
                    .iter_mut()
                    .filter(|batch| batch.base_offset >= to)
                {
                    *batch = NO_BATCH;
                }
                if entry.txn_first >= to.0 {
                    entry.txn_first = -1;
                }
            }
            let nothing = entry.item == NO_ITEM && entry.batches[0] == NO_BATCH;
            if nothing && (below_hw || entry.epoch < 0) {
                self.forget(slot);
            }
        }
    }

    /// Forgets all of `part`: its replica was deleted.
    pub fn remove(&mut self, part: PartIx) {
        let slots: Vec<u16> = self
            .index
            .range(pairs_of(part))
            .map(|(_, slot)| *slot)
            .collect();
        for slot in slots {
            self.forget(slot);
        }
        if let Some(above) = self.above.remove(&part) {
            self.above_count -= above.items.len();
        }
    }

    /// The producers of `part`, by id; those above the high watermark included.
    pub fn producers(&self, part: PartIx) -> impl Iterator<Item = Producer> {
        self.index.range(pairs_of(part)).map(|(_, slot)| {
            let entry = &self.slots[usize::from(*slot)];
            let epoch = self.last_epoch(entry);
            let last = self.batches(entry, epoch).next();
            Producer {
                pid: ProducerId(entry.pid),
                epoch: ProducerEpoch(epoch),
                last_seq: last.map_or(-1, |batch| batch.next_seq().wrapping_sub(1) & i32::MAX),
                last_ts: WallMs(entry.last_ts),
                coordinator_epoch: entry.coordinator_epoch,
                txn_first: self.open_first(entry).unwrap_or(Offset(-1)),
            }
        })
    }

    fn entry(&self, part: PartIx, pid: ProducerId) -> Option<&Entry> {
        let slot = *self.index.get(&(part, pid.0))?;
        Some(&self.slots[usize::from(slot)])
    }

    /// Items of a pair above the high watermark, newest first.
    fn items(&self, entry: &Entry) -> impl Iterator<Item = &Item> {
        let above = self.above.get(&entry.part);
        let newest = above.and_then(|above| above.get(entry.item));
        std::iter::successors(newest, move |item| {
            above.and_then(|above| above.get(item.before))
        })
    }

    fn last_epoch(&self, entry: &Entry) -> i16 {
        self.items(entry)
            .next()
            .map_or(entry.epoch, |item| item.epoch)
    }

    /// Batches of a pair in generation `epoch`, newest first.
    fn batches(&self, entry: &Entry, epoch: i16) -> impl Iterator<Item = Batch> {
        let below = (entry.epoch == epoch).then(|| entry.known().rev().copied());
        self.items(entry)
            .take_while(move |item| item.epoch == epoch)
            .filter(|item| !item.kind.marker())
            .map(|item| item.batch)
            .chain(below.into_iter().flatten())
    }

    /// First offset of the transaction that is open at the log's end.
    fn open_first(&self, entry: &Entry) -> Option<Offset> {
        let last = self.items(entry).find(|item| item.kind != Kind::Data);
        match last {
            Some(item) if item.kind == Kind::Opening => Some(item.batch.base_offset),
            Some(_) => None,
            None => (entry.txn_first >= 0).then_some(Offset(entry.txn_first)),
        }
    }

    fn slot_for(&mut self, part: PartIx, pid: ProducerId) -> u16 {
        if let Some(slot) = self.index.get(&(part, pid.0)) {
            return *slot;
        }
        if self.index.len() >= usize::from(self.bound) {
            // What is in the log is a fact: where all are pinned, the oldest goes all the same.
            let slot = self.evictable().unwrap_or(self.oldest);
            self.forget(slot);
            self.evicted += 1;
        }
        let entry = Entry::new(part, pid);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[usize::from(slot)] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u16
            }
        };
        self.index.insert((part, pid.0), slot);
        self.link_newest(slot);
        slot
    }

    /// The pair with the oldest append that nothing pins: no batch above the high watermark, no open transaction.
    /// Pinned ones are few (what is in flight), so the walk is short.
    fn evictable(&self) -> Option<u16> {
        let mut slot = self.oldest;
        while slot != NO_SLOT {
            let entry = &self.slots[usize::from(slot)];
            if entry.item == NO_ITEM && entry.txn_first < 0 {
                return Some(slot);
            }
            slot = entry.newer;
        }
        None
    }

    fn forget(&mut self, slot: u16) {
        self.unlink(slot);
        let entry = &self.slots[usize::from(slot)];
        self.index.remove(&(entry.part, entry.pid));
        self.free.push(slot);
    }

    fn unlink(&mut self, slot: u16) {
        let Entry { older, newer, .. } = self.slots[usize::from(slot)];
        match older {
            NO_SLOT => self.oldest = newer,
            older => self.slots[usize::from(older)].newer = newer,
        }
        match newer {
            NO_SLOT => self.newest = older,
            newer => self.slots[usize::from(newer)].older = older,
        }
    }

    fn link_newest(&mut self, slot: u16) {
        let older = std::mem::replace(&mut self.newest, slot);
        let entry = &mut self.slots[usize::from(slot)];
        (entry.older, entry.newer) = (older, NO_SLOT);
        match older {
            NO_SLOT => self.oldest = slot,
            older => self.slots[usize::from(older)].newer = slot,
        }
    }
}

fn pairs_of(part: PartIx) -> std::ops::RangeInclusive<(PartIx, i64)> {
    (part, i64::MIN)..=(part, i64::MAX)
}

#[cfg(test)]
mod tests;
