//! The compactor: of each key the last record stays, in a new extent that takes the old ones' place in one record.
//!
//! Two passes. The first reads the dirty part of a replica's sealed extents and maps each key to its last offset; the
//! second copies all extents from the log's begin on, run by run, and leaves out what the map says is superseded. Each
//! run goes into an extent of its own, which is synced and then swapped in, in the order of the log: a cut leaves the
//! old extents or the new one, and never a tombstone gone before what it hides.
//!
//! A [`Compactor`] does a bounded piece of work a call and never decides when: [`Compactor::wants`] says which thread is
//! next. Its reads are cold reads, for the disk's reader thread; [`Disk::compact`] is the writer thread's part, between
//! two groups. If an old extent goes meanwhile (retention, a deleted topic), what was read may be anything: the swap is
//! refused as stale and nothing is lost.

use std::io;
use std::sync::Arc;

use model::batch::Header;
use model::record::Records;
use model::{Offset, WallMs};
use thiserror::Error;

use crate::PartIx;
use crate::batches::{BatchError, BatchReader};
use crate::disk::{Disk, DiskError, Reserved};
use crate::format::extent::DATA_AT;
use crate::format::row::SlotState;
use crate::io::{Io, Mode, Name};
use crate::ops::{Op, Outcome, Swap};
use crate::view::View;

mod filter;
mod keys;
mod plan;
mod target;

use filter::{Rules, Verdict};
pub use keys::{KEY_MAP_BYTES, KeyMap};
pub use plan::{CompactionSettings, Plan, Sealed};
use target::Target;

/// Read or written in one call: 11 ms at 180 MB/s, and one batch more at most.
pub const PIECE: usize = 2 << 20;

/// What a [`Compactor`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// [`Compactor::read`], on the reader thread.
    Read,
    /// [`Disk::compact`], on the writer thread.
    Write,
    /// [`Compactor::swap`], to be queued, and its outcome.
    Swap,
    /// Nothing: it is done. See [`Compactor::finish`].
    Nothing,
}

/// Why a compaction ends early. What it had swapped in stays; the rest is as it was.
#[derive(Debug, Error)]
pub enum CompactError {
    /// The system refused a read. If the extent is still in use, the disk is in trouble.
    #[error("extent {slot} at {at}: {source}")]
    Io {
        /// Which extent.
        slot: u32,
        /// Where in its file.
        at: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no batch. If the extent is still in use, it is rotten.
    #[error("extent {slot} at {at}: {what}")]
    Rotten {
        /// Which extent.
        slot: u32,
        /// Where in its file.
        at: u32,
        /// What is wrong.
        what: String,
    },
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Up to here the log is clean: remembered for the replica's next plan.
    pub cleaned_to: Offset,
    /// Runs swapped in.
    pub swaps: u64,
    /// Bytes of batches in the extents that went.
    pub bytes_before: u64,
    /// And in those that came.
    pub bytes_after: u64,
    /// Records left out of those that came.
    pub records_dropped: u64,
    /// Bytes read in both passes.
    pub bytes_read: u64,
    /// Keys mapped.
    pub keys: u64,
    /// Batches that could not be looked into and stayed whole.
    pub opaque: u64,
    /// A run was given up for want of room.
    pub no_room: bool,
}

/// Where the work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first pass.
    Map,
    /// The second pass, over the run of so many extents.
    Copy {
        count: usize,
    },
    /// The run's extent is complete but for what is not written yet.
    Seal {
        count: usize,
    },
    /// The swap is queued.
    Swapping {
        count: usize,
    },
    Done,
}

/// See the module.
pub struct Compactor<I: Io> {
    plan: Plan,
    keys: KeyMap,
    stage: Stage,
    /// Which of the plan's extents is being read.
    at: usize,
    source: Option<(Arc<I::File>, BatchReader)>,
    mapped_to: Offset,
    /// A batch before this place stayed unfiltered.
    opaque: bool,
    target: Target<I>,
    report: Cleaned,
}

impl<I: Io> Compactor<I> {
    /// Begins what `plan` says. `keys` comes back with [`Compactor::finish`].
    #[must_use]
    pub fn new(plan: Plan, mut keys: KeyMap) -> Self {
        keys.clear();
        let at = plan
            .extents
            .iter()
            .position(|it| it.last >= plan.first_dirty);
        let mapped_to = plan
            .extents
            .back()
            .map_or(Offset::ZERO, |it| it.last.plus(1));
        Self {
            stage: at.map_or(Stage::Done, |_| Stage::Map),
            at: at.unwrap_or(0),
            report: Cleaned {
                cleaned_to: plan.first_dirty,
                ..Cleaned::default()
            },
            target: Target::new(&plan),
            plan,
            keys,
            source: None,
            mapped_to,
            opaque: false,
        }
    }

    /// Whose log it is.
    #[must_use]
    pub const fn part(&self) -> PartIx {
        self.plan.part
    }

    /// What it waits for.
    #[must_use]
    pub fn wants(&self) -> Wants {
        match self.stage {
            _ if self.target.wants_write() => Wants::Write,
            Stage::Map | Stage::Copy { .. } => Wants::Read,
            Stage::Seal { .. } if self.target.is_sealed() => Wants::Swap,
            Stage::Seal { .. } => Wants::Write,
            Stage::Swapping { .. } => Wants::Swap,
            Stage::Done => Wants::Nothing,
        }
    }

    /// Reads one piece. After an error it is over: [`Disk::compact`] takes back what was reserved.
    pub fn read(&mut self, io: &I) -> Result<(), CompactError> {
        assert_eq!(self.wants(), Wants::Read, "read out of turn");
        let read = match self.stage {
            Stage::Map => self.map(io),
            Stage::Copy { count } => self.copy(io, count),
            _ => unreachable!("only these two read"),
        };
        if read.is_err() {
            self.give_up();
        }
        read
    }

    /// The operation that puts the new extent in place; its outcome goes to [`Compactor::swapped`].
    pub fn swap(&mut self) -> Op {
        let Stage::Seal { count } = self.stage else {
            panic!("a swap is asked for once, when it is wanted");
        };
        self.stage = Stage::Swapping { count };
        let old = self.plan.extents.iter().take(count);
        Op::Swap(Box::new(Swap {
            part: self.plan.part,
            old: old.map(|it| it.life).collect(),
            new: Some(self.target.extent()),
        }))
    }

    /// What became of the swap. When the disk failed, this compactor ends with it.
    pub fn swapped(&mut self, outcome: Outcome) {
        let Stage::Swapping { count } = self.stage else {
            panic!("no swap is under way");
        };
        // Swapped in, or let go by the disk as stale.
        let (bytes, dropped) = self.target.handed_over();
        if outcome != Outcome::Done {
            self.stage = Stage::Done;
            return;
        }
        for extent in self.plan.extents.drain(..count) {
            self.report.bytes_before += extent.bytes();
            self.report.cleaned_to = self
                .report
                .cleaned_to
                .max(extent.last.plus(1).min(self.mapped_to));
        }
        self.report.bytes_after += bytes;
        self.report.records_dropped += dropped;
        self.report.swaps += 1;
        self.next_run();
    }

    /// What was done, and the map for the next compaction. Call it when nothing is wanted any more.
    #[must_use]
    pub fn finish(self) -> (Cleaned, KeyMap) {
        (self.report, self.keys)
    }

    fn give_up(&mut self) {
        self.stage = Stage::Done;
        self.source = None;
        self.target.give_up();
    }

    /// The first pass: one piece of the dirty part.
    fn map(&mut self, io: &I) -> Result<(), CompactError> {
        let (mut read, mut full) = (0, false);
        while read < PIECE as u64 {
            let Some(extent) = self.plan.extents.get(self.at).copied() else {
                self.next_run();
                return Ok(());
            };
            let (file, reader) = open(io, &mut self.source, &extent)?;
            let before = reader.read;
            let at = reader.at;
            let batch = reader.next(io, &file).map_err(|error| (at, error));
            let Some((_, header, bytes)) =
                batch.map_err(|(at, error)| trouble(&extent, at, error))?
            else {
                self.source = None;
                self.at += 1;
                continue;
            };
            if header.last_offset() >= self.plan.first_dirty
                && let Some(records) = filter::records(&header, bytes)
            {
                let none = self.keys.is_empty();
                if !map_batch(&mut self.keys, &header, &records) {
                    // Full: what was mapped of this batch helps, but does not count as mapped.
                    self.mapped_to = header.base_offset;
                    if none {
                        // It alone has more keys than the map holds. Its records stay, and no tombstone is sure.
                        self.mapped_to = header.next_offset();
                        self.opaque = true;
                    }
                    full = true;
                }
            }
            let (_, reader) = self.source.as_ref().expect("opened above");
            read += reader.read - before;
            self.report.bytes_read += reader.read - before;
            if full {
                self.next_run();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes up the next run of extents, if any is left below what was mapped.
    fn next_run(&mut self) {
        self.report.keys = self.keys.len() as u64;
        self.source = None;
        self.at = 0;
        let count = plan::run(&self.plan.extents, self.mapped_to, self.plan.run_bytes);
        self.stage = match count {
            0 => Stage::Done,
            count => Stage::Copy { count },
        };
        if let Some(first) = self.plan.extents.front() {
            self.target.begin(first.base);
        }
    }

    /// The second pass: one piece of a run.
    fn copy(&mut self, io: &I, count: usize) -> Result<(), CompactError> {
        let mut read = 0;
        while read < PIECE as u64 && !self.target.wants_write() {
            if self.at == count {
                self.end_run(count);
                return Ok(());
            }
            let extent = self.plan.extents[self.at];
            let (file, reader) = open(io, &mut self.source, &extent)?;
            let before = reader.read;
            let at = reader.at;
            let batch = reader.next(io, &file).map_err(|error| (at, error));
            let Some((at, header, bytes)) =
                batch.map_err(|(at, error)| trouble(&extent, at, error))?
            else {
                self.source = None;
                self.at += 1;
                self.target.mark(self.at);
                continue;
            };
            let last =
                at as u64 + header.bytes as u64 == u64::from(extent.used) && self.at + 1 == count;
            let rules = Rules {
                keys: &self.keys,
                mapped: (self.plan.first_dirty, self.mapped_to),
                producers: &self.plan.producers,
                now: self.plan.now,
                delete_retention_ms: self.plan.delete_retention_ms,
                tombstones_go: !self.opaque,
                must_stay: last && self.target.is_empty(),
            };
            let fits = match filter::filter(&header, bytes, &rules) {
                Verdict::Keep => self.target.push(&header, bytes),
                Verdict::Opaque => {
                    self.opaque = true;
                    self.report.opaque += 1;
                    self.target.push(&header, bytes)
                }
                Verdict::Rewrite(bytes) => {
                    let left = Header::read(&bytes).expect("just written");
                    let dropped = header.records_count - left.records_count;
                    self.target.leave_out(u64::from(dropped.unsigned_abs()));
                    self.target.push(&left, &bytes)
                }
                Verdict::Drop => {
                    let dropped = header.records_count.unsigned_abs();
                    self.target.leave_out(u64::from(dropped));
                    true
                }
            };
            let (_, reader) = self.source.as_ref().expect("opened above");
            read += reader.read - before;
            self.report.bytes_read += reader.read - before;
            if !fits {
                // Recompressed batches can be longer than they were. The run ends with the last extent that is in whole.
                let whole = self.target.back_to_mark();
                match whole {
                    0 => self.give_up(),
                    whole => self.end_run(whole),
                }
                return Ok(());
            }
        }
        Ok(())
    }

    fn end_run(&mut self, count: usize) {
        self.source = None;
        self.stage = Stage::Seal { count };
        let run = self.plan.extents.iter().take(count);
        let (mut last, mut appended_at) = (Offset::ZERO, WallMs(0));
        for extent in run {
            last = extent.last;
            appended_at = appended_at.max(extent.appended_at);
        }
        self.target.seal(last, appended_at);
    }
}

/// Maps the keys of a batch; false if the map is full. One whose records don't read, or don't lie where they should, maps
/// nothing: it stays as it is.
fn map_batch(keys: &mut KeyMap, header: &Header, records: &[u8]) -> bool {
    let records = Records::new(records, header.records_count);
    let deltas = records.clone().flatten().map(|record| record.offset_delta);
    if records.clone().any(|record| record.is_err()) || !filter::placed(header, deltas) {
        return true;
    }
    records.flatten().all(|record| {
        let offset = header.base_offset.plus(record.offset_delta.into());
        record.key.is_none_or(|key| keys.put(key, offset))
    })
}

/// The file and the reader of an extent; opened at its first batch.
fn open<'a, I: Io>(
    io: &I,
    source: &'a mut Option<(Arc<I::File>, BatchReader)>,
    extent: &Sealed,
) -> Result<(Arc<I::File>, &'a mut BatchReader), CompactError> {
    if source.is_none() {
        let file = io
            .open(Name::Extent(extent.life.slot), Mode::Read)
            .map_err(|error| trouble(extent, 0, error.into()))?;
        let reader = BatchReader::new(DATA_AT, extent.used, PIECE);
        *source = Some((Arc::new(file), reader));
    }
    let (file, reader) = source.as_mut().expect("opened above");
    Ok((file.clone(), reader))
}

fn trouble(extent: &Sealed, at: u32, error: BatchError) -> CompactError {
    let slot = extent.life.slot;
    match error {
        BatchError::Io(source) => CompactError::Io { slot, at, source },
        BatchError::Fault(fault) => CompactError::Rotten {
            slot,
            at,
            what: fault.to_string(),
        },
        BatchError::Beyond { .. } => CompactError::Rotten {
            slot,
            at,
            what: error.to_string(),
        },
    }
}

impl<I: Io> View<I> {
    /// The reader thread's part of a compaction: reads one piece.
    pub fn compact(&self, compactor: &mut Compactor<I>) -> Result<(), CompactError> {
        compactor.read(self.io())
    }
}

impl<I: Io> Disk<I> {
    /// Whether everything that a compaction goes over is still there. Where it is not, an error in reading means nothing.
    #[must_use]
    pub fn holds(&self, compactor: &Compactor<I>) -> bool {
        compactor.plan.extents.iter().all(|extent| {
            self.table.alive(extent.life).is_some_and(|row| {
                row.part == compactor.plan.part && row.state == SlotState::Sealed
            })
        })
    }

    /// The writer thread's part of a compaction, between two groups: makes room, writes one piece, or syncs. On an error
    /// the disk has failed.
    pub fn compact(&mut self, compactor: &mut Compactor<I>) -> Result<(), DiskError> {
        self.usable()?;
        if let Some(life) = compactor.target.unwanted() {
            self.release(life);
        } else if let Some(bytes) = compactor.target.wants_room() {
            match self.reserve(compactor.plan.part, bytes)? {
                Some(reserved) => compactor.target.give(reserved),
                None => {
                    compactor.report.no_room = true;
                    compactor.give_up();
                }
            }
        } else {
            let written = compactor.target.write(&*self.io);
            self.done("a compacted extent's write", written)?;
        }
        Ok(())
    }
}
