//! What readers learn of a durable group, in the order of the log.

use std::sync::Arc;

use model::{LeaderEpoch, Offset, TopicPartition, WallMs};

use crate::PartIx;
use crate::disk::Disk;
use crate::format::extent::{IndexEntry, SlotLife};
use crate::format::row::Row;
use crate::io::Io;

/// One change of what can be read.
#[derive(Debug)]
pub(crate) enum Change<F> {
    PartNew {
        part: PartIx,
        id: TopicPartition,
    },
    PartDel {
        part: PartIx,
    },
    Opened {
        part: PartIx,
        id: TopicPartition,
        life: SlotLife,
        file: Arc<F>,
        row: Row,
    },
    Appended {
        part: PartIx,
        life: SlotLife,
        used: u32,
        end: Offset,
        max_ts: WallMs,
        epoch: LeaderEpoch,
        index: Box<[IndexEntry]>,
    },
    Sealed {
        part: PartIx,
        life: SlotLife,
        row: Row,
        index: Vec<IndexEntry>,
    },
    Truncated {
        part: PartIx,
        end: Offset,
    },
    LogStart {
        part: PartIx,
        offset: Offset,
    },
    Swapped {
        part: PartIx,
        old: Vec<SlotLife>,
        new: Option<(SlotLife, Row)>,
    },
    Freed {
        part: PartIx,
        life: SlotLife,
    },
    Recovered {
        part: PartIx,
        id: TopicPartition,
        log_start: Offset,
        extents: Vec<(u32, Row)>,
        open: Option<(SlotLife, Arc<F>, Vec<IndexEntry>)>,
    },
}

impl<I: Io> Disk<I> {
    /// Tells the view what the last group changed.
    pub(crate) fn publish(&mut self) {
        self.changes.clear();
    }
}
