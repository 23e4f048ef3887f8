//! What is kept of a pair: its batches as of the high watermark, and those above it.

use std::collections::VecDeque;

use super::{BATCHES, PartIx};
use crate::{Offset, ProducerId};

pub(super) const NO_SLOT: u16 = u16::MAX;
pub(super) const NO_ITEM: u32 = u32::MAX;
/// Items are numbered modulo 2³¹, so that no number is [`NO_ITEM`].
pub(super) const NUMBER_MASK: u32 = u32::MAX >> 1;

/// One remembered batch; `base_offset` −1 marks a place not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) base_offset: Offset,
    pub(super) first_seq: i32,
    pub(super) last_delta: i32,
}

pub(super) const NO_BATCH: Batch = Batch {
    base_offset: Offset(-1),
    first_seq: -1,
    last_delta: -1,
};

impl Batch {
    /// Sequences count from 0 to 2³¹−1 and begin again.
    pub(super) const fn next_seq(&self) -> i32 {
        (self.first_seq as u32)
            .wrapping_add(self.last_delta as u32)
            .wrapping_add(1) as i32
            & i32::MAX
    }
}

/// A pair as of the high watermark, 128 B. `batches` are oldest first, places not used at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) pid: i64,
    pub(super) part: PartIx,
    /// −1: nothing of the pair lies below the high watermark yet.
    pub(super) epoch: i16,
    /// None defined yet; kept as read.
    pub(super) flags: u16,
    pub(super) batches: [Batch; BATCHES],
    pub(super) last_ts: i64,
    /// First offset of the open transaction; −1: none.
    pub(super) txn_first: i64,
    pub(super) coordinator_epoch: i32,
    /// Rises with every marker and opening batch; guards compare it, so it needs no place at rest.
    pub(super) serial: u32,
    /// Number of the newest item above the high watermark.
    pub(super) item: u32,
    /// Neighbours in the order of the last append.
    pub(super) older: u16,
    pub(super) newer: u16,
}

const _: () = assert!(
    size_of::<Entry>() == 128,
    "the memory table counts 128 B a pair"
);

impl Entry {
    pub(super) const fn new(part: PartIx, pid: ProducerId) -> Self {
        Self {
            pid: pid.0,
            part,
            epoch: -1,
            flags: 0,
            batches: [NO_BATCH; BATCHES],
            last_ts: -1,
            txn_first: -1,
            coordinator_epoch: -1,
            serial: 0,
            item: NO_ITEM,
            older: NO_SLOT,
            newer: NO_SLOT,
        }
    }

    pub(super) fn known(&self) -> impl DoubleEndedIterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.base_offset.0 >= 0)
    }

    /// Takes one item from above the high watermark below it.
    pub(super) fn fold(&mut self, item: &Item) {
        if item.epoch > self.epoch {
            self.batches = [NO_BATCH; BATCHES];
            self.epoch = item.epoch;
        }
        match item.kind {
            Kind::Commit | Kind::Abort => {
                self.txn_first = -1;
                self.coordinator_epoch = item.coordinator_epoch;
                return;
            }
            Kind::Opening => self.txn_first = item.batch.base_offset.0,
            Kind::Data => {}
        }
        match self.batches.iter_mut().find(|batch| **batch == NO_BATCH) {
            Some(place) => *place = item.batch,
            None => {
                self.batches.copy_within(1.., 0);
                self.batches[BATCHES - 1] = item.batch;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data = 0,
    /// The first batch of a transaction in this partition.
    Opening = 1,
    Commit = 2,
    Abort = 3,
}

impl Kind {
    pub(super) const fn marker(self) -> bool {
        matches!(self, Self::Commit | Self::Abort)
    }
}

/// A batch or marker above the high watermark.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) batch: Batch,
    pub(super) pid: i64,
    pub(super) epoch: i16,
    pub(super) kind: Kind,
    pub(super) coordinator_epoch: i32,
    /// Number of the pair's item before this one.
    pub(super) before: u32,
}

/// What lies above one replica's high watermark, in the order of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Above {
    pub(super) hw: Offset,
    /// Batches below were fed.
    pub(super) end: Offset,
    pub(super) items: VecDeque<Item>,
    /// Number of `items[0]`.
    pub(super) first: u32,
}

impl Above {
    pub(super) fn get(&self, number: u32) -> Option<&Item> {
        if number == NO_ITEM {
            return None;
        }
        self.items
            .get((number.wrapping_sub(self.first) & NUMBER_MASK) as usize)
    }
}
