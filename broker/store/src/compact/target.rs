//! The extent that a run is copied into: a small one first, a larger one when it is full.

use std::io;
use std::sync::Arc;

use model::batch::Header;
use model::{LeaderEpoch, Offset, WallMs};

use super::{PIECE, Plan, Reserved};
use crate::Class;
use crate::format::extent::{COMPACTED, DATA_AT, ExtentHeader, Footer, IndexEntry, SlotLife, Tail};
use crate::io::Io;
use crate::ops::NewExtent;
use crate::parts::feed_index;

/// What is known of the batches so far.
#[derive(Clone, Copy, Debug)]
struct Sums {
    used: u32,
    index: usize,
    crc: u32,
    max_ts: WallMs,
    first_epoch: LeaderEpoch,
    last_epoch: LeaderEpoch,
    /// Records left out.
    dropped: u64,
}

const NOTHING: Sums = Sums {
    used: DATA_AT,
    index: 0,
    crc: 0,
    max_ts: WallMs(-1),
    first_epoch: LeaderEpoch::NONE,
    last_epoch: LeaderEpoch::NONE,
    dropped: 0,
};

/// How far the end of a run is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Batches still come.
    Open,
    /// Tail and header are to be written, then all is to be synced.
    Tail {
        last: Offset,
        appended_at: WallMs,
    },
    Sync,
    Sealed,
}

/// See the module.
pub(super) struct Target<I: Io> {
    reserved: Option<Reserved<I>>,
    /// A smaller one whose batches are still to be copied over, up to where they are.
    outgrown: Option<(Reserved<I>, u32)>,
    /// To be given back.
    unwanted: Vec<SlotLife>,
    sums: Sums,
    index: Vec<IndexEntry>,
    /// Bytes from `written` on.
    pending: Vec<u8>,
    /// File position up to which batches are written.
    written: u32,
    /// How many of the run's extents are in whole, and the sums then.
    mark: (usize, Sums),
    end: End,
    base: Offset,
    header: ExtentHeader,
}

impl<I: Io> Target<I> {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            reserved: None,
            outgrown: None,
            unwanted: Vec::new(),
            sums: NOTHING,
            index: Vec::new(),
            pending: Vec::new(),
            written: DATA_AT,
            mark: (0, NOTHING),
            end: End::Open,
            base: Offset::ZERO,
            header: ExtentHeader {
                class: Class::Small,
                disk: plan.disk,
                slot: 0,
                generation: 0,
                id: plan.id,
                epoch: LeaderEpoch::NONE,
                base: Offset::ZERO,
            },
        }
    }

    /// A new run begins at `base`.
    pub(super) fn begin(&mut self, base: Offset) {
        self.base = base;
        self.sums = NOTHING;
        self.mark = (0, NOTHING);
        self.index.clear();
        self.pending.clear();
        self.written = DATA_AT;
        self.end = End::Open;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sums.used == DATA_AT
    }

    /// Puts a batch behind the others; false if no extent would hold it.
    pub(super) fn push(&mut self, header: &Header, bytes: &[u8]) -> bool {
        if !fits(Class::Large, &self.sums, self.index.len() + 1, bytes.len()) {
            return false;
        }
        let sums = &mut self.sums;
        let rel = header.base_offset.since(self.base) as u32;
        feed_index(&mut self.index, rel, sums.used, sums.max_ts);
        if sums.used == DATA_AT {
            sums.first_epoch = header.leader_epoch;
        }
        sums.index = self.index.len();
        sums.last_epoch = header.leader_epoch;
        sums.max_ts = sums.max_ts.max(header.max_timestamp);
        sums.crc = crc32c::crc32c_append(sums.crc, bytes);
        sums.used += bytes.len() as u32;
        self.pending.extend_from_slice(bytes);
        true
    }

    /// So many records are left out.
    pub(super) fn leave_out(&mut self, records: u64) {
        self.sums.dropped += records;
    }

    /// So many of the run's extents are in whole.
    pub(super) fn mark(&mut self, count: usize) {
        self.mark = (count, self.sums);
    }

    /// Forgets what came behind the mark; says how many extents are in whole, none if they left nothing.
    pub(super) fn back_to_mark(&mut self) -> usize {
        let (count, sums) = self.mark;
        self.sums = sums;
        self.index.truncate(sums.index);
        // Bytes behind the mark that are written already lie behind the extent's end.
        let keep = sums.used.saturating_sub(self.written) as usize;
        self.pending.truncate(keep);
        self.written = self.written.min(sums.used);
        if self.is_empty() { 0 } else { count }
    }

    /// The run is complete: it stands for offsets up to `last`.
    pub(super) fn seal(&mut self, last: Offset, appended_at: WallMs) {
        self.end = End::Tail { last, appended_at };
    }

    pub(super) const fn is_sealed(&self) -> bool {
        matches!(self.end, End::Sealed)
    }

    /// Nothing of it is wanted any more.
    pub(super) fn give_up(&mut self) {
        let reserved = self.reserved.take();
        let outgrown = self.outgrown.take().map(|it| it.0);
        self.unwanted
            .extend([reserved, outgrown].into_iter().flatten().map(|it| it.life));
        self.begin(self.base);
    }

    /// The disk has it now; says how many bytes of batches it holds, and how many records were left out.
    pub(super) fn handed_over(&mut self) -> (u64, u64) {
        self.reserved = None;
        let bytes = u64::from(self.sums.used - DATA_AT);
        let dropped = self.sums.dropped;
        self.begin(self.base);
        (bytes, dropped)
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.unwanted.is_empty()
            || self.outgrown.is_some()
            || self.pending.len() >= PIECE
            || matches!(self.end, End::Tail { .. } | End::Sync)
    }

    /// An extent to be given back.
    pub(super) fn unwanted(&mut self) -> Option<SlotLife> {
        self.unwanted.pop()
    }

    /// Bytes of batches that a reserved extent must hold, if the present one does not.
    pub(super) fn wants_room(&self) -> Option<u64> {
        let fits = |class: Class| fits(class, &self.sums, self.index.len(), 0);
        if self.reserved.as_ref().is_some_and(|it| fits(it.class)) {
            return None;
        }
        let class = Class::ALL.into_iter().find(|class| fits(*class));
        Some(
            class
                .expect("no more was taken than the largest holds")
                .data_bytes(),
        )
    }

    /// An extent with more room than the one before.
    pub(super) fn give(&mut self, reserved: Reserved<I>) {
        let before = self.reserved.replace(reserved);
        match before {
            Some(before) if self.written > DATA_AT => self.outgrown = Some((before, DATA_AT)),
            Some(before) => self.unwanted.push(before.life),
            None => {}
        }
    }

    /// What is swapped in.
    pub(super) fn extent(&self) -> NewExtent {
        let reserved = self.reserved.as_ref().expect("sealed, so it was written");
        NewExtent {
            life: reserved.life,
            class: reserved.class,
            flags: COMPACTED,
            used: self.sums.used,
            max_ts: self.sums.max_ts,
            first_epoch: self.sums.first_epoch,
            last_epoch: self.sums.last_epoch,
        }
    }

    /// Writes one piece, settled; or syncs.
    pub(super) fn write(&mut self, io: &I) -> io::Result<()> {
        let reserved = self.reserved.as_ref().expect("room is made first");
        let file = reserved.file.clone();
        if let Some((before, at)) = &mut self.outgrown {
            let len = PIECE.min((self.written - *at) as usize);
            let mut piece = vec![0; len];
            crate::extent_io::read_exact(io, &before.file, &mut piece, u64::from(*at))?;
            put(io, &file, &piece, u64::from(*at))?;
            *at += len as u32;
            if *at == self.written {
                let (before, _) = self.outgrown.take().expect("seen above");
                self.unwanted.push(before.life);
            }
            return Ok(());
        }
        if !self.pending.is_empty() {
            let len = PIECE.min(self.pending.len());
            put(io, &file, &self.pending[..len], u64::from(self.written))?;
            self.pending.drain(..len);
            self.written += len as u32;
            return Ok(());
        }
        match self.end {
            End::Open | End::Sealed => {}
            End::Tail { last, appended_at } => {
                self.write_ends(io, &file, last, appended_at)?;
                self.end = End::Sync;
            }
            End::Sync => {
                // Not fdatasync: the swap's record may be durable before the next checkpoint's fsync, so the blocks must
                // be known as written by then.
                io.fsync(&file)?;
                self.end = End::Sealed;
            }
        }
        Ok(())
    }

    fn write_ends(
        &self,
        io: &I,
        file: &Arc<I::File>,
        last: Offset,
        appended_at: WallMs,
    ) -> io::Result<()> {
        let reserved = self.reserved.as_ref().expect("room is made first");
        let SlotLife { slot, generation } = reserved.life;
        let header = ExtentHeader {
            class: reserved.class,
            slot,
            generation,
            epoch: self.sums.first_epoch,
            base: self.base,
            ..self.header
        };
        io.pwrite(file, &header.encode(), 0)?;
        let footer = Footer {
            flags: COMPACTED,
            used: self.sums.used,
            index_count: 0,
            aborted_count: 0,
            tail_bytes: 0,
            last,
            max_ts: self.sums.max_ts,
            appended_at,
            txn_lag: 0,
            data_crc: self.sums.crc,
        };
        let tail = Tail::encode(reserved.class, footer, &self.index);
        io.pwrite(file, &tail, reserved.class.bytes() - tail.len() as u64)
    }
}

/// Whether a file of `class` holds the batches so far, `more` bytes of batches, and a tail of `index` entries.
fn fits(class: Class, sums: &Sums, index: usize, more: usize) -> bool {
    let tail = u64::from(class.tail_bytes(index, 0));
    u64::from(sums.used) + more as u64 + tail <= class.bytes()
}

fn put<I: Io>(io: &I, file: &Arc<I::File>, bytes: &[u8], at: u64) -> io::Result<()> {
    io.pwrite(file, bytes, at)?;
    io.hand_over(file, at, bytes.len() as u64)?;
    io.settle(file, at, bytes.len() as u64)
}
