//! What the writer knows of each replica on its disk: where its log begins and ends, its epochs, its extents.
//!
//! Plain state, changed by commits and by replay alike; no I/O, no decisions about extents.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::{Instant, LeaderEpoch, NodeId, Offset, Term, TopicPartition, WallMs};

use crate::format::PAGE;
use crate::format::checkpoint::{PartitionRow, SiteEntry, SiteLog, SiteSnapshot};
use crate::format::extent::{DATA_AT, INDEX_EVERY, IndexEntry, SlotLife};
use crate::{Class, PartIx, PartSettings};

/// Epochs remembered of one replica × 16 B = 8 KiB, as many as the partition's machine remembers.
pub(crate) const EPOCHS_MAX: usize = 512;

/// All replicas of a disk by their number.
pub(crate) type Parts<F> = BTreeMap<PartIx, Part<F>>;

/// One replica.
#[derive(Debug)]
pub(crate) struct Part<F> {
    pub(crate) id: TopicPartition,
    pub(crate) log_start: Offset,
    pub(crate) end: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) accepted_epoch: LeaderEpoch,
    /// Rising in both.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    /// Slots in the order of the log; the last may be open.
    pub(crate) extents: VecDeque<u32>,
    pub(crate) open: Option<Box<OpenExtent<F>>>,
    /// Of the next extent.
    pub(crate) class: Class,
    pub(crate) settings: PartSettings,
    /// An append found no room: all later ones are refused until `Op::Resume`.
    pub(crate) stalled: bool,
    /// Offsets a rotten ring lost, not yet accepted as lost: it takes no appends.
    pub(crate) hole: Option<(Offset, Offset)>,
    /// The group's entry that its appends go to, and the group's number.
    pub(crate) entry: (u64, u32),
}

impl<F> Part<F> {
    pub(crate) fn new(id: TopicPartition) -> Self {
        Self {
            id,
            log_start: Offset::ZERO,
            end: Offset::ZERO,
            high_watermark: Offset::ZERO,
            accepted_epoch: LeaderEpoch::NONE,
            epochs: Vec::new(),
            extents: VecDeque::new(),
            open: None,
            class: Class::Small,
            settings: PartSettings::default(),
            stalled: false,
            hole: None,
            entry: (0, 0),
        }
    }

    pub(crate) fn from_row(row: &PartitionRow) -> Self {
        Self {
            log_start: row.log_start,
            end: row.end,
            high_watermark: row.high_watermark,
            accepted_epoch: row.accepted_epoch,
            epochs: row.epochs.clone(),
            class: Class::from_u8(row.class).unwrap_or(Class::Small),
            hole: row.hole,
            ..Self::new(row.id)
        }
    }

    pub(crate) fn row(&self, part: PartIx) -> PartitionRow {
        PartitionRow {
            part: part.0,
            id: self.id,
            log_start: self.log_start,
            end: self.end,
            high_watermark: self.high_watermark,
            accepted_epoch: self.accepted_epoch,
            epochs: self.epochs.clone(),
            hole: self.hole,
            class: self.class as u8,
        }
    }

    /// `epoch` begins at `start`. Epochs in which nothing was written lose their row.
    pub(crate) fn begin_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        while self
            .epochs
            .last()
            .is_some_and(|last| last.1 >= start || last.0 >= epoch)
        {
            self.epochs.pop();
        }
        if self.epochs.len() == EPOCHS_MAX {
            self.epochs.remove(0);
        }
        self.epochs.push((epoch, start));
    }

    /// A batch of `epoch` was appended at `base`.
    pub(crate) fn appended(&mut self, epoch: LeaderEpoch, base: Offset, end: Offset, hw: Offset) {
        if self.epochs.last().is_none_or(|last| last.0 < epoch) {
            self.begin_epoch(epoch, base);
        }
        self.end = end;
        self.high_watermark = self.high_watermark.max(hw).min(end);
    }

    pub(crate) fn truncate(&mut self, end: Offset) {
        while self.epochs.last().is_some_and(|last| last.1 >= end) {
            self.epochs.pop();
        }
        self.end = end;
        self.high_watermark = self.high_watermark.min(end);
    }

    pub(crate) fn set_log_start(&mut self, offset: Offset) {
        self.log_start = self.log_start.max(offset);
        // A follower whose log ends below drops it and begins there.
        self.end = self.end.max(self.log_start);
        self.high_watermark = self.high_watermark.max(self.log_start);
        let below = self.epochs.partition_point(|row| row.1 <= self.log_start);
        if below > 0 {
            self.epochs.drain(..below - 1);
            self.epochs[0].1 = self.log_start;
        }
    }

    pub(crate) fn check(&self) {
        assert!(
            self.log_start <= self.end && self.high_watermark <= self.end,
            "log of {:?}: start {:?}, high watermark {:?}, end {:?}",
            self.id,
            self.log_start,
            self.high_watermark,
            self.end
        );
    }
}

/// What is kept of an extent while it takes appends, beside its row.
#[derive(Debug)]
pub(crate) struct OpenExtent<F> {
    pub(crate) life: SlotLife,
    pub(crate) file: Arc<F>,
    /// Where its file begins on the device.
    pub(crate) address: u64,
    pub(crate) index: Vec<IndexEntry>,
    /// The bytes of its last, partial page, as they lie in the page cache.
    pub(crate) tail: Box<[u8; PAGE]>,
    /// CRC-32C over `[4096, crc_at)`.
    pub(crate) crc: u32,
    pub(crate) crc_at: u32,
    /// Trusted time at which it was opened; 0: not trusted.
    pub(crate) opened_at: WallMs,
    /// `None` for one that was open at the start.
    pub(crate) opened: Option<Instant>,
    /// Index entries that readers know of.
    pub(crate) published: usize,
}

impl<F> OpenExtent<F> {
    pub(crate) fn new(life: SlotLife, file: Arc<F>, address: u64) -> Self {
        Self {
            life,
            file,
            address,
            index: Vec::new(),
            tail: Box::new([0; PAGE]),
            crc: 0,
            crc_at: DATA_AT,
            opened_at: WallMs(0),
            opened: None,
            published: 0,
        }
    }
}

/// Takes note of a batch at `pos` if the index wants one there; `max_ts` is of the batches before it.
pub(crate) fn feed_index(index: &mut Vec<IndexEntry>, rel_offset: u32, pos: u32, max_ts: WallMs) {
    if wants_index(index, pos) {
        index.push(IndexEntry {
            rel_offset,
            pos,
            max_ts,
        });
    }
}

/// Whether a batch at `pos` gets an index entry.
pub(crate) fn wants_index(index: &[IndexEntry], pos: u32) -> bool {
    index
        .last()
        .is_none_or(|last| pos - last.pos >= INDEX_EVERY)
}

/// The site log as far as a disk keeps it.
#[derive(Debug, Default)]
pub(crate) struct Site {
    pub(crate) log: SiteLog,
    /// A snapshot that no checkpoint holds yet.
    pub(crate) fresh_snapshot: Option<u64>,
}

impl Site {
    pub(crate) fn hard_state(&mut self, term: Term, vote: Option<NodeId>) {
        self.log.term = term;
        self.log.vote = vote;
    }

    /// Index of the last entry, in the snapshot or behind it.
    pub(crate) fn last(&self) -> u64 {
        let snapshot = self.log.snapshot.as_ref().map_or(0, |it| it.index);
        self.log.entries.last().map_or(snapshot, |it| it.index)
    }

    /// False if entries are missing before it.
    pub(crate) fn entry(&mut self, index: u64, term: Term, bytes: &[u8]) -> bool {
        if index > self.last() + 1 {
            return false;
        }
        // Raft: an entry of a newer leader replaces what was there and all behind it. One that the snapshot holds already
        // comes again when a replay begins before it.
        if self
            .log
            .snapshot
            .as_ref()
            .is_some_and(|it| index <= it.index)
        {
            return true;
        }
        self.log.entries.retain(|it| it.index < index);
        self.log.entries.push(SiteEntry {
            index,
            term,
            bytes: bytes.to_vec(),
        });
        true
    }

    pub(crate) fn snapshot(&mut self, index: u64, term: Term, bytes: &[u8]) {
        self.log.entries.retain(|it| it.index > index);
        self.log.snapshot = Some(SiteSnapshot {
            index,
            term,
            bytes: bytes.to_vec(),
        });
        self.fresh_snapshot = Some(index);
    }
}
