//! One disk as its writer thread owns it: what it knows, and what may go wrong with it.
//!
//! The work lies beside: `writer` (groups), `apply` (operations), `sweep`, `ckpt`, `free`, and `recover`, which makes one.

use std::collections::VecDeque;
use std::sync::Arc;

use model::window::Windows;
use model::{Instant, SiteUuid, WallMs};
use thiserror::Error;

use crate::alloc::{Allocated, Table};
use crate::ckpt::Checkpoints;
use crate::dirty::Dirty;
use crate::format::extent::SlotLife;
use crate::format::journal::{self, Entry, EntryType};
use crate::format::row::{Row, SlotState};
use crate::format::superblock::{DiskState, Superblock};
use crate::group::Group;
use crate::io::{Copy, FileSystem, Io, Mode, Name};
use crate::parts::{Parts, Site};
use crate::publish::Change;
use crate::ring::Ring;
use crate::stats::Stats;
use crate::sweep::Sweep;
use crate::view::View;
use crate::{Class, Config, PartIx, Replica};

/// Why a disk takes nothing more. It comes back only by being opened again, which replays its ring.
#[derive(Debug, Error)]
pub enum DiskError {
    /// A write or sync failed. What the page cache shows from now on may never have reached the medium, so nothing is
    /// tried again.
    #[error("{what} failed: {source}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It failed before.
    #[error("the disk failed before and must be recovered")]
    FailedBefore,
    /// [`crate::Op::Clean`] was done.
    #[error("the disk was stopped in order and must be opened again")]
    Stopped,
}

/// One disk; see the module. Owned by its writer thread.
#[derive(Debug)]
pub struct Disk<I: Io> {
    pub(crate) io: Arc<I>,
    pub(crate) config: Config,
    pub(crate) superblock: Superblock,
    /// Which copy was read: the other one is written first.
    pub(crate) superblock_at: Copy,
    pub(crate) ring: Ring<I::File>,
    pub(crate) table: Table,
    pub(crate) parts: Parts<I::File>,
    pub(crate) next_part: u32,
    pub(crate) windows: Windows,
    pub(crate) site: Site,
    pub(crate) group: Group<I::File>,
    /// Records of the store's own that go with the next group.
    pub(crate) backlog: VecDeque<Entry>,
    pub(crate) changes: Vec<Change<I::File>>,
    pub(crate) dirty: Dirty<I::File>,
    pub(crate) sweep: Sweep,
    pub(crate) checkpoints: Checkpoints<I::File>,
    /// Slots to be zeroed once no reader holds them.
    pub(crate) freeing: VecDeque<u32>,
    /// Slots a compactor writes to.
    pub(crate) reserved: Vec<SlotLife>,
    pub(crate) view: Arc<View<I>>,
    pub(crate) stats: Stats,
    /// Batches of one operation, and of a group of several.
    pub(crate) group_bytes_max: usize,
    pub(crate) group_bytes: usize,
    /// Batches were appended while no time was trusted.
    pub(crate) untimed: bool,
    pub(crate) last_group: Instant,
    pub(crate) last_seal_check: Instant,
    pub(crate) failed: bool,
    pub(crate) stopped: bool,
}

/// An extent that a compactor may write to: see [`Disk::reserve`].
#[derive(Debug)]
pub struct Reserved<I: Io> {
    /// Its slot.
    pub life: SlotLife,
    /// How long the file is.
    pub class: Class,
    /// The file.
    pub file: Arc<I::File>,
}

impl<I: Io> Disk<I> {
    /// What readers share.
    #[must_use]
    pub fn view(&self) -> Arc<View<I>> {
        self.view.clone()
    }

    /// What was counted since the disk was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            ring_bytes: self.ring.bytes,
            ring_used: self.ring.used(),
            dirty_bytes: self.dirty.bytes(),
            dirty_extents: self.dirty.len() as u64,
            extent_bytes: self.table.bytes(),
            slots: self.table.rows.len() as u64,
            freeing: self.freeing.len() as u64,
            windows: self.windows.pairs() as u64,
            windows_evicted: self.windows.evicted(),
            ..self.stats
        }
    }

    /// What the disk is.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// A replica as the disk has it now: after a refused append the machine begins again from here.
    #[must_use]
    pub fn replica(&self, part: PartIx) -> Option<Replica> {
        self.parts.get(&part).map(|it| Replica::of(part, it))
    }

    /// The disk now belongs to `site`, in `state`. Durable when it returns.
    pub fn set_identity(&mut self, site: SiteUuid, state: DiskState) -> Result<(), DiskError> {
        self.usable()?;
        self.superblock.site = site;
        self.superblock.state = state;
        let done = self.write_superblock();
        self.done("the superblock's write", done)
    }

    /// An extent of at least `bytes` of batches for a compactor; `None` where there is no room. Whoever takes it writes
    /// header, batches and tail, syncs the file, and hands it back by [`crate::Op::Swap`] or [`Disk::release`]. After a
    /// crash it is free.
    pub fn reserve(&mut self, part: PartIx, bytes: u64) -> Result<Option<Reserved<I>>, DiskError> {
        self.usable()?;
        let Some(class) = Class::holding(bytes) else {
            return Ok(None);
        };
        let allocated = self.table.allocate(&*self.io, &self.config, class);
        let Some(Allocated { life, file, .. }) = self.done("an extent's allocation", allocated)?
        else {
            return Ok(None);
        };
        if self.io.file_system() == FileSystem::Other {
            // No replay makes it anew: its batches never were in the ring.
            let synced = self.io.sync_directory(Name::Extent(life.slot));
            self.done("an extent's name", synced)?;
        }
        // Written down as one to be zeroed: nothing of it counts before the swap.
        let row = Row {
            state: SlotState::Freeing,
            part,
            ..Row::free(class, life.generation)
        };
        self.table.place(life.slot, row);
        self.reserved.push(life);
        Ok(Some(Reserved { life, class, file }))
    }

    /// Takes an extent back that was reserved and not swapped in.
    pub fn release(&mut self, life: SlotLife) {
        if let Some(at) = self.reserved.iter().position(|it| *it == life) {
            self.reserved.swap_remove(at);
            self.freeing.push_back(life.slot);
        }
    }

    pub(crate) fn usable(&self) -> Result<(), DiskError> {
        match (self.failed, self.stopped) {
            (true, _) => Err(DiskError::FailedBefore),
            (_, true) => Err(DiskError::Stopped),
            _ => Ok(()),
        }
    }

    /// Any error fails the disk.
    pub(crate) fn done<T>(
        &mut self,
        what: &'static str,
        result: std::io::Result<T>,
    ) -> Result<T, DiskError> {
        result.map_err(|source| {
            self.failed = true;
            DiskError::Failed { what, source }
        })
    }

    /// Writes the superblock over both copies, one after the other. If only one had it, rot there would bring back what the
    /// other says: that the disk is FRESH, which a start makes anew, or that the log ended in order long ago.
    pub(crate) fn write_superblock(&mut self) -> std::io::Result<()> {
        self.superblock.sb_seq += 1;
        for copy in [self.superblock_at.other(), self.superblock_at] {
            let file = self.io.open(Name::Super(copy), Mode::Write)?;
            self.io.pwrite(&file, &self.superblock.encode(), 0)?;
            self.io.fsync(&file)?;
        }
        Ok(())
    }

    /// The first trusted time: what was appended before counts from now.
    pub(crate) fn trust(&mut self, now: Option<WallMs>) {
        let (Some(now), true) = (now, self.untimed) else {
            return;
        };
        self.untimed = false;
        for row in &mut self.table.rows {
            let holds = matches!(row.state, SlotState::Open | SlotState::Sealed);
            if holds && row.appended_at == WallMs(0) {
                row.appended_at = now;
            }
        }
        let opened = self.parts.values_mut().filter_map(|it| it.open.as_mut());
        opened
            .filter(|open| open.opened_at == WallMs(0))
            .for_each(|open| open.opened_at = now);
        self.changes.push(Change::Trusted { now });
        self.publish();
    }

    /// Takes a slot out of use: its log does not need it once the group is durable.
    pub(crate) fn let_go(&mut self, slot: u32) {
        self.table.row_mut(slot).state = SlotState::Freeing;
        self.dirty.forget(slot);
        self.group.freed.push(slot);
    }

    /// An entry that speaks of a slot.
    pub(crate) fn slot_entry(&self, kind: EntryType, part: PartIx, slot: u32) -> Entry {
        Entry {
            part,
            life: SlotLife {
                slot,
                generation: self.table.row(slot).generation,
            },
            ..Entry::new(kind)
        }
    }
}

/// Group flags that a set of entries needs.
pub(crate) fn group_flags(entries: &[Entry]) -> u16 {
    entries.iter().fold(0, |flags, entry| {
        flags
            | match entry.kind {
                EntryType::Ckpt => journal::CKPT,
                EntryType::Clean => journal::CLEAN,
                _ => 0,
            }
    })
}
