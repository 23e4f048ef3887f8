//! One replica's log as readers see it: its extents in order, and where sequential readers are.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Offset, TopicPartition, WallMs};

use super::{ExtentInfo, LogInfo, data_bytes};
use crate::SlotLife;
use crate::format::extent::{DATA_AT, IndexEntry};
use crate::format::row::{Row, SlotState};

/// Readers of one replica whose place is remembered: 4 × 32 B.
const CURSORS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Log<F> {
    pub(super) id: TopicPartition,
    pub(super) log_start: Offset,
    /// Rising in base and last.
    pub(super) extents: VecDeque<Extent>,
    /// The one that takes appends; within a group's changes also those that were sealed in it.
    pub(super) open: Vec<Open<F>>,
    cursors: [Option<Cursor>; CURSORS],
    cursor: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) life: SlotLife,
    pub(super) row: Row,
}

/// What is kept of an open extent beside its row.
#[derive(Debug)]
pub(super) struct Open<F> {
    pub(super) life: SlotLife,
    pub(super) file: Arc<F>,
    pub(super) index: Vec<IndexEntry>,
}

/// The first batch with an offset at or behind `offset` begins at `pos`, or will. That stays so for as long as the extent
/// lives: where a truncation cut it nothing is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) offset: Offset,
    pub(super) life: SlotLife,
    pub(super) pos: u32,
}

impl<F> Log<F> {
    pub(super) fn new(id: TopicPartition, log_start: Offset) -> Self {
        Self {
            id,
            log_start,
            extents: VecDeque::new(),
            open: Vec::new(),
            cursors: [None; CURSORS],
            cursor: 0,
        }
    }

    pub(super) fn extent(&mut self, life: SlotLife) -> Option<&mut Extent> {
        self.extents.iter_mut().rev().find(|it| it.life == life)
    }

    /// Which extent holds `offset`, or the first offset behind it.
    pub(super) fn position_of(&self, offset: Offset) -> usize {
        self.extents.partition_point(|it| it.row.last < offset)
    }

    /// Offset behind the last batch, as far as there are any.
    pub(super) fn end(&self) -> Offset {
        let last = self.extents.back().map(|it| it.row.last.plus(1));
        last.unwrap_or(self.log_start).max(self.log_start)
    }

    /// Offsets from `end` on are gone. The writer sealed the extent that was cut; its row comes with that.
    pub(super) fn truncate(&mut self, end: Offset) {
        while self.extents.back().is_some_and(|it| it.row.base >= end) {
            self.extents.pop_back();
        }
        if let Some(cut) = self.extents.back_mut() {
            cut.row.last = cut.row.last.min(Offset(end.0 - 1));
        }
        self.forget_gone();
    }

    /// Offsets below `offset` are gone, and with them the extents that the writer lets go.
    pub(super) fn set_log_start(&mut self, offset: Offset) {
        let dropped = offset > self.end();
        self.log_start = self.log_start.max(offset);
        let start = self.log_start;
        let gone =
            |it: &Extent| dropped || (it.row.state == SlotState::Sealed && it.row.last < start);
        while self.extents.front().is_some_and(gone) {
            self.extents.pop_front();
        }
        self.forget_gone();
    }

    /// Puts `new` in the place of extents that stand side by side.
    pub(super) fn swap(&mut self, old: &[SlotLife], new: Option<Extent>) {
        let first = self.extents.iter().position(|it| old.contains(&it.life));
        self.extents.retain(|it| !old.contains(&it.life));
        if let (Some(first), Some(new)) = (first, new) {
            self.extents.insert(first, new);
        }
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        let extents = &self.extents;
        self.open
            .retain(|open| extents.iter().rev().any(|it| it.life == open.life));
    }

    /// Where the batch with `offset` begins, if a reader was there.
    pub(super) fn cursor_at(&self, offset: Offset, extent: &Extent) -> Option<u32> {
        let cursors = self.cursors.iter().flatten();
        cursors
            .filter(|it| it.offset == offset && it.life == extent.life)
            .map(|it| it.pos)
            .find(|pos| (DATA_AT..extent.row.used).contains(pos))
    }

    /// A reader that asked for `from` is at `next` now.
    pub(super) fn remember(&mut self, from: Offset, next: Cursor) {
        if self.cursors.contains(&Some(next)) {
            return;
        }
        let was = |it: &Option<Cursor>| it.is_some_and(|it| it.offset == from);
        let at = self.cursors.iter().position(was).unwrap_or_else(|| {
            self.cursor = (self.cursor + 1) % CURSORS;
            self.cursor
        });
        self.cursors[at] = Some(next);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.extents.iter().map(|it| data_bytes(it.row.used)).sum()
    }

    pub(super) fn info(&self) -> LogInfo {
        let extents = self.extents.iter().map(|Extent { row, .. }| ExtentInfo {
            base: row.base,
            last: row.last,
            bytes: data_bytes(row.used),
            file_bytes: row.class.bytes(),
            max_ts: row.max_ts,
            appended_at: row.appended_at,
            open: row.state == SlotState::Open,
        });
        LogInfo {
            id: self.id,
            log_start: self.log_start,
            extents: extents.collect(),
        }
    }

    /// The first trusted time is that of what was appended before.
    pub(super) fn trust(&mut self, now: WallMs) {
        let untimed = self.extents.iter_mut().map(|it| &mut it.row.appended_at);
        untimed
            .filter(|at| **at == WallMs(0))
            .for_each(|at| *at = now);
    }
}
