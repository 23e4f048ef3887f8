//! What makes a log shorter: a truncation at its end, a new begin, a compactor's extent in the place of others.

use std::io;

use model::{Offset, WallMs};

use crate::PartIx;
use crate::disk::Disk;
use crate::extent_io::scan_extent;
use crate::format::extent::{DATA_AT, SlotLife};
use crate::format::journal::{Entry, EntryType};
use crate::format::row::{ROW_BYTES, Row, SlotState};
use crate::io::{Io, Mode, Name};
use crate::ops::{NewExtent, Outcome, Swap};
use crate::parts::OpenExtent;
use crate::publish::Change;

impl<I: Io> Disk<I> {
    /// Cuts the log at the batch that holds `to`. The extent that is cut is sealed there, so that no byte a reader may
    /// be sending is ever written again (W1 holds by construction).
    pub(super) fn truncate(&mut self, part: PartIx, to: Offset) -> io::Result<Outcome> {
        let Some(it) = self.parts.get_mut(&part) else {
            return Ok(Outcome::NoReplica);
        };
        let mut end = to.min(it.end).max(it.log_start);
        let mut gone = Vec::new();
        while let Some(slot) = it.extents.back().copied()
            && self.table.row(slot).base >= end
        {
            it.extents.pop_back();
            gone.push(slot);
        }
        if it
            .open
            .as_ref()
            .is_some_and(|open| gone.contains(&open.life.slot))
        {
            it.open = None;
        }
        let mut entry = Entry {
            part,
            ..Entry::new(EntryType::Truncate)
        };
        let cut = it
            .extents
            .back()
            .copied()
            .filter(|slot| self.table.row(*slot).last >= end);
        if let Some(slot) = cut {
            let row = *self.table.row(slot);
            let it = self.parts.get_mut(&part).expect("looked up above");
            let open = it.open.take();
            let (file, address) = match open {
                Some(open) => (open.file, open.address),
                None => {
                    let file = self.io.open(Name::Extent(slot), Mode::Write)?;
                    let address = self.io.disk_address(&file)?;
                    (std::sync::Arc::new(file), address)
                }
            };
            let scan = scan_extent(&*self.io, &file, &row, row.used, end)?;
            end = scan.row.last.plus(1);
            if scan.row.used == DATA_AT {
                it.extents.pop_back();
                gone.push(slot);
            } else {
                entry.life = SlotLife {
                    slot,
                    generation: row.generation,
                };
                entry.ext_off = scan.row.used;
                let sealed = Row {
                    state: SlotState::Sealed,
                    ..scan.row
                };
                *self.table.row_mut(slot) = sealed;
                let mut cut = OpenExtent::new(entry.life, file, address);
                (cut.index, cut.crc, cut.crc_at) = (scan.index, scan.crc, scan.row.used);
                self.group.sealing.push(Box::new(cut));
            }
        }
        for slot in gone {
            self.let_go(slot);
        }
        let it = self.parts.get_mut(&part).expect("looked up above");
        it.truncate(end);
        it.check();
        self.windows.truncate(part, end);
        entry.base = end;
        self.group.push(entry);
        self.changes.push(Change::Truncated { part, end });
        Ok(Outcome::Truncated { end })
    }

    pub(super) fn log_start(&mut self, part: PartIx, offset: Offset) -> Outcome {
        let Some(it) = self.parts.get_mut(&part) else {
            return Outcome::NoReplica;
        };
        let dropped = offset > it.end;
        if dropped && it.stalled {
            return Outcome::NoRoom;
        }
        it.set_log_start(offset);
        let mut gone = Vec::new();
        while let Some(slot) = it.extents.front().copied() {
            let row = self.table.row(slot);
            let free = dropped || (row.state == SlotState::Sealed && row.last < it.log_start);
            if !free {
                break;
            }
            it.extents.pop_front();
            gone.push(slot);
        }
        if dropped {
            it.open = None;
        }
        it.check();
        self.group.push(Entry {
            part,
            base: offset,
            ..Entry::new(EntryType::LogStart)
        });
        self.changes.push(Change::LogStart { part, offset });
        for slot in gone {
            let entry = self.slot_entry(EntryType::ExtFree, part, slot);
            self.table.row_mut(slot).state = SlotState::Freeing;
            self.dirty.forget(slot);
            // Too many for one group go with the next ones; a replay frees what lies below the log's start by itself.
            if self.group.entries.len() < crate::ops::GROUP_ENTRIES_MAX {
                self.group.push(entry);
            } else {
                self.backlog.push_back(entry);
            }
        }
        Outcome::Done
    }

    pub(super) fn swap(&mut self, swap: &Swap) -> Outcome {
        let reserved = swap.new.is_none_or(|new| self.reserved.contains(&new.life));
        let old: Vec<u32> = swap.old.iter().map(|life| life.slot).collect();
        let found = self.parts.get(&swap.part).and_then(|it| {
            let first = it
                .extents
                .iter()
                .position(|slot| Some(slot) == old.first())?;
            let neighbours = it.extents.iter().skip(first).take(old.len()).eq(old.iter());
            let sealed = swap.old.iter().all(|life| {
                self.table
                    .alive(*life)
                    .is_some_and(|row| row.state == SlotState::Sealed && row.part == swap.part)
            });
            (neighbours && sealed && reserved).then_some(first)
        });
        let Some(first) = found else {
            if let Some(new) = swap.new {
                self.release(new.life);
            }
            return Outcome::Stale;
        };
        let mut payload = Vec::with_capacity(ROW_BYTES + 8 * old.len());
        let entry = Entry {
            part: swap.part,
            life: swap.new.map_or(
                SlotLife {
                    slot: 0,
                    generation: 0,
                },
                |new| new.life,
            ),
            ..Entry::new(EntryType::ExtSwap)
        };
        let new = swap.new.map(|new| self.swapped_row(swap.part, &old, &new));
        match (&new, swap.new) {
            (Some(row), Some(new)) => {
                row.encode(&mut payload);
                self.reserved.retain(|life| *life != new.life);
                self.table.place(new.life.slot, *row);
            }
            _ => payload.resize(ROW_BYTES, 0),
        }
        let it = self.parts.get_mut(&swap.part).expect("found above");
        it.extents.drain(first..first + old.len());
        if let Some(new) = swap.new {
            it.extents.insert(first, new.life.slot);
        }
        for life in &swap.old {
            payload.extend_from_slice(&life.slot.to_le_bytes());
            payload.extend_from_slice(&life.generation.to_le_bytes());
            self.let_go(life.slot);
        }
        self.group.push_with(entry, &payload);
        self.changes.push(Change::Swapped {
            part: swap.part,
            old: swap.old.clone(),
            new: swap.new.map(|new| new.life).zip(new),
        });
        Outcome::Done
    }

    /// The row of a compactor's extent: it stands for all offsets of those it replaces.
    fn swapped_row(&self, part: PartIx, old: &[u32], new: &NewExtent) -> Row {
        let rows = old.iter().map(|slot| self.table.row(*slot));
        let appended_at = rows.map(|row| row.appended_at).max().unwrap_or(WallMs(0));
        let first = self
            .table
            .row(*old.first().expect("a swap has old extents"));
        let last = self.table.row(*old.last().expect("a swap has old extents"));
        Row {
            state: SlotState::Sealed,
            flags: new.flags,
            part,
            used: new.used,
            base: first.base,
            last: last.last,
            max_ts: new.max_ts,
            appended_at,
            first_epoch: new.first_epoch,
            last_epoch: new.last_epoch,
            ..Row::free(new.class, new.life.generation)
        }
    }
}
