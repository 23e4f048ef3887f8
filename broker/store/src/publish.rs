//! What readers learn of a durable group, in the order of the log.

use std::sync::Arc;

use model::{LeaderEpoch, Offset, TopicPartition, WallMs};

use crate::PartIx;
use crate::disk::Disk;
use crate::format::extent::{IndexEntry, SlotLife};
use crate::format::row::Row;
use crate::io::{Advice, Io};

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
        appended_at: WallMs,
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
    /// The first trusted time: what was appended before counts from now.
    Trusted {
        now: WallMs,
    },
    /// What a replay found, in one.
    Recovered {
        part: PartIx,
        id: TopicPartition,
        log_start: Offset,
        extents: Vec<(u32, Row)>,
        open: Option<(SlotLife, Arc<F>, Vec<IndexEntry>)>,
    },
}

impl<I: Io> Disk<I> {
    /// Tells the view what became durable, all of it at once.
    pub(crate) fn publish(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        for change in &self.changes {
            let file = match change {
                Change::Opened { file, .. } => Some(file),
                Change::Recovered { open, .. } => open.as_ref().map(|(_, file, _)| file),
                _ => None,
            };
            if let Some(file) = file {
                // Readers read ahead by themselves. Only advice: nothing depends on it.
                let _ = self.io.advise(file, Advice::Random);
            }
        }
        self.view.apply(self.changes.drain(..));
    }
}
