//! What each operation does to the disk's state, and which entries say so to a replay.
//!
//! Called while a group is put together: state runs ahead of the ring by one group. If the group then fails, the disk
//! has failed and the state with it. Nothing here writes to the ring; new extents get their file here.

use std::io;

use model::batch::Header;
use model::window::Fact;
use model::{LeaderEpoch, Offset, WallMs};

use crate::alloc::Allocated;
use crate::disk::Disk;
use crate::extent_io::scan_extent;
use crate::format::extent::{DATA_AT, INDEX_EVERY, SlotLife};
use crate::format::journal::{self, Entry, EntryType};
use crate::format::row::{ROW_BYTES, Row, SlotState};
use crate::io::{Io, Mode, Name};
use crate::mutation::{Mutation, is};
use crate::ops::{NewExtent, Op, Outcome, Swap};
use crate::parts::{OpenExtent, Part, feed_index};
use crate::publish::Change;
use crate::{Append, Class, PartIx};

/// An extent that fills faster than this is followed by one of the next class.
const FAST: core::time::Duration = core::time::Duration::from_secs(600);
/// So many extents of a class, and the next one is of a larger class.
const MANY: usize = 16;

impl<I: Io> Disk<I> {
    /// Whether an operation must be the first of its replica in a group: it looks at extents as they lie on the disk.
    pub(crate) fn is_barrier(op: &Op) -> bool {
        matches!(
            op,
            Op::Truncate { .. } | Op::PartDel { .. } | Op::LogStart { .. } | Op::Swap(_)
        )
    }

    /// Whether the group already holds appends of a replica.
    pub(crate) fn in_group(&self, part: PartIx) -> bool {
        self.parts
            .get(&part)
            .is_some_and(|it| it.entry.0 == self.group.number)
    }

    /// Does one operation; see the module.
    pub(crate) fn apply(&mut self, op: Op, trusted: Option<WallMs>) -> io::Result<Outcome> {
        match op {
            Op::Append(_) => {
                let number = self.group.keep(op);
                return self.append(number, trusted);
            }
            Op::PartNew { part, id } => self.part_new(part, id),
            Op::PartDel { part } => return Ok(self.part_del(part)),
            Op::Epoch {
                part,
                epoch,
                start,
                unclean,
            } => {
                let Some(it) = self.parts.get_mut(&part) else {
                    return Ok(Outcome::NoReplica);
                };
                assert!(
                    epoch >= it.accepted_epoch,
                    "{part:?} is in epoch {:?} and can't accept {epoch:?}",
                    it.accepted_epoch
                );
                if it.stalled && start.is_some_and(|start| start > it.end) {
                    // It counts on batches that were refused.
                    return Ok(Outcome::NoRoom);
                }
                it.accepted_epoch = epoch;
                if let Some(start) = start {
                    it.begin_epoch(epoch, start);
                }
                self.group.push(Entry {
                    part,
                    epoch,
                    flags: if unclean { journal::UNCLEAN } else { 0 },
                    base: start.unwrap_or(Offset(-1)),
                    ..Entry::new(EntryType::Epoch)
                });
            }
            Op::Truncate { part, to } => return self.truncate(part, to),
            Op::LogStart { part, offset } => return Ok(self.log_start(part, offset)),
            Op::HardState { term, vote } => {
                self.site.hard_state(term, vote);
                let mut entry = Entry::new(EntryType::HardState);
                entry.life.slot = vote.map_or(0, |node| node.0);
                entry.aux = term.0;
                self.group.push(entry);
            }
            Op::SiteEntry { index, term, bytes } => {
                assert!(
                    self.site.entry(index, term, &bytes),
                    "site-log entry {index} follows {}",
                    self.site.last()
                );
                let entry = Entry {
                    base: Offset(index as i64),
                    aux: term.0,
                    ..Entry::new(EntryType::SiteEntry)
                };
                self.group.push_with(entry, &bytes);
            }
            Op::SiteSnapshot { index, term, bytes } => self.site.snapshot(index, term, &bytes),
            Op::Settings { part, settings } => match self.parts.get_mut(&part) {
                Some(it) => it.settings = settings,
                None => return Ok(Outcome::NoReplica),
            },
            Op::Swap(swap) => return Ok(self.swap(&swap)),
            Op::Resume { part } => match self.parts.get_mut(&part) {
                Some(it) => it.stalled = false,
                None => return Ok(Outcome::NoReplica),
            },
            Op::Clean => {
                self.group.push(Entry::new(EntryType::Clean));
            }
        }
        Ok(Outcome::Done)
    }

    fn part_new(&mut self, part: PartIx, id: model::TopicPartition) {
        // A number used twice in the ring's window would give one replica's records to another.
        assert!(
            part.0 >= self.next_part,
            "{part:?} was used before on this disk, the next number is {}",
            self.next_part
        );
        self.next_part = part.0 + 1;
        self.parts.insert(part, Part::new(id));
        let mut payload = [0; 20];
        payload[..16].copy_from_slice(&id.topic.0.0);
        payload[16..].copy_from_slice(&id.partition.0.to_le_bytes());
        let entry = Entry {
            part,
            ..Entry::new(EntryType::PartNew)
        };
        self.group.push_with(entry, &payload);
        self.changes.push(Change::PartNew { part, id });
    }

    fn part_del(&mut self, part: PartIx) -> Outcome {
        let Some(it) = self.parts.remove(&part) else {
            return Outcome::NoReplica;
        };
        for slot in it.extents {
            self.let_go(slot);
        }
        self.windows.remove(part);
        self.group.push(Entry {
            part,
            ..Entry::new(EntryType::PartDel)
        });
        self.changes.push(Change::PartDel { part });
        Outcome::Done
    }

    fn append(&mut self, number: u32, trusted: Option<WallMs>) -> io::Result<Outcome> {
        let Op::Append(append) = self.group.op(number) else {
            unreachable!("kept as an append")
        };
        let Append {
            part,
            base_offset,
            leader_epoch,
            hw,
            gap,
            append_time,
            ref batch,
        } = *append;
        // The buffer is counted: this takes a reference, no bytes.
        let batch = batch.clone();
        let Some(it) = self.parts.get(&part) else {
            return Ok(Outcome::NoReplica);
        };
        if it.hole.is_some() {
            return Ok(Outcome::NoReplica);
        }
        if it.stalled {
            return Ok(Outcome::NoRoom);
        }
        assert!(
            if gap {
                base_offset >= it.end
            } else {
                base_offset == it.end
            },
            "{part:?} ends at {:?}, an append begins at {base_offset:?}",
            it.end
        );
        let newest = it.epochs.last().map_or(it.accepted_epoch, |last| last.0);
        assert!(
            leader_epoch >= newest || is(Mutation::BatchAcrossEpoch),
            "{part:?} holds epoch {newest:?}, an append comes from {leader_epoch:?}"
        );
        // An operation goes into one extent, so that for want of room all of it is refused.
        if !self.make_room(
            part,
            append_span(&batch, base_offset, leader_epoch, gap),
            trusted,
        )? {
            self.parts.get_mut(&part).expect("looked up above").stalled = true;
            return Ok(Outcome::NoRoom);
        }
        let (mut at, mut base) = (0, base_offset);
        while at < batch.len() {
            let mut header = Header::read(&batch[at..]).expect("only checked batches are queued");
            if gap {
                assert!(header.base_offset >= base, "batches of {part:?} overlap");
                base = header.base_offset;
            }
            header.base_offset = base;
            header.leader_epoch = leader_epoch;
            if let Some(now) = append_time {
                header.max_timestamp = now;
            }
            let entry = self.entry_for(part, &header, hw, gap);
            self.group
                .add_batch(entry, number, at, &header, append_time);
            let records = &batch[at + model::batch::HEADER_BYTES..at + header.bytes];
            self.account(part, &header, records, hw, trusted);
            at += header.bytes;
            base = header.next_offset();
        }
        Ok(Outcome::Done)
    }

    /// The group's APPEND entry that a batch goes to, which may be a new one.
    fn entry_for(&mut self, part: PartIx, header: &Header, hw: Offset, gap: bool) -> u32 {
        let it = self.parts.get_mut(&part).expect("the caller looked it up");
        let slot = *it.extents.back().expect("room was made");
        let row = self.table.row(slot);
        let flags = if gap { journal::GAP } else { 0 };
        let (number, at) = it.entry;
        if number == self.group.number {
            let entry = &mut self.group.entries[at as usize];
            let behind = entry.kind == EntryType::Append
                && entry.life
                    == (SlotLife {
                        slot,
                        generation: row.generation,
                    })
                && entry.ext_off + entry.len == row.used
                && entry.epoch == header.leader_epoch
                && entry.flags == flags
                && header.next_offset().since(entry.base) <= i64::from(u32::MAX);
            if behind {
                entry.aux = entry.aux.max(hw.0 as u64);
                return at;
            }
        }
        let entry = Entry {
            flags,
            ext_off: row.used,
            base: header.base_offset,
            max_ts: WallMs(-1),
            epoch: header.leader_epoch,
            aux: hw.0 as u64,
            ..self.slot_entry(EntryType::Append, part, slot)
        };
        let at = self.group.push(entry);
        let it = self.parts.get_mut(&part).expect("the caller looked it up");
        it.entry = (self.group.number, at);
        at
    }

    /// A batch is in the group: row, index, window and log end know it.
    fn account(
        &mut self,
        part: PartIx,
        header: &Header,
        records: &[u8],
        hw: Offset,
        trusted: Option<WallMs>,
    ) {
        let it = self.parts.get_mut(&part).expect("the caller looked it up");
        let open = it.open.as_mut().expect("room was made");
        let row = self.table.row_mut(open.life.slot);
        let rel = header.base_offset.since(row.base) as u32;
        feed_index(&mut open.index, rel, row.used, row.max_ts);
        self.untimed |= trusted.is_none();
        add_to_row(row, header, trusted);
        it.appended(
            header.leader_epoch,
            header.base_offset,
            header.next_offset(),
            hw,
        );
        it.check();
        // Only brokers write control batches, and replicas copy them checked.
        if let Ok(Some(fact)) = Fact::of(header, records) {
            self.windows.feed(part, &fact);
        }
        self.windows.advance(part, it.high_watermark);
    }

    /// Makes the replica's open extent hold batches of `span`; false where there is no room for a new one.
    fn make_room(&mut self, part: PartIx, span: Span, trusted: Option<WallMs>) -> io::Result<bool> {
        let it = self.parts.get(&part).expect("the caller looked it up");
        if let Some(open) = &it.open {
            let row = self.table.row(open.life.slot);
            let index = open.index.len() + 1 + span.bytes / INDEX_EVERY as usize;
            let need =
                u64::from(row.used) + span.bytes as u64 + u64::from(row.class.tail_bytes(index, 0));
            let near = span.last.since(row.base) <= i64::from(u32::MAX);
            if need <= row.class.bytes() && near {
                return Ok(true);
            }
            let fast = open.opened.is_some_and(|at| self.io.now().since(at) < FAST);
            let class = row.class;
            let count = it
                .extents
                .iter()
                .filter(|slot| self.table.row(**slot).class == class)
                .count();
            let next = if fast || count >= MANY {
                class.up()
            } else {
                class
            };
            self.seal(part);
            self.parts.get_mut(&part).expect("still there").class = next;
        }
        self.open_extent(part, span, trusted)
    }

    /// Seals the open extent; its tail is written with the group.
    pub(crate) fn seal(&mut self, part: PartIx) {
        let it = self.parts.get_mut(&part).expect("the caller looked it up");
        let Some(open) = it.open.take() else {
            return;
        };
        let row = self.table.row_mut(open.life.slot);
        row.state = SlotState::Sealed;
        self.group.push(Entry {
            part,
            life: open.life,
            ext_off: row.used,
            base: row.last,
            aux: row.appended_at.0 as u64,
            ..Entry::new(EntryType::ExtSeal)
        });
        self.group.sealing.push(open);
    }

    fn open_extent(
        &mut self,
        part: PartIx,
        span: Span,
        trusted: Option<WallMs>,
    ) -> io::Result<bool> {
        let it = self.parts.get(&part).expect("the caller looked it up");
        let least =
            Class::holding(span.bytes as u64).expect("a batch is far below the largest class");
        let most = it.settings.class_in_quota().min(it.settings.class_max);
        let wanted = it.class.min(most).max(least);
        let mut class = wanted;
        let allocated = loop {
            if let Some(it) = self.table.allocate(&*self.io, &self.config, class)? {
                break it;
            }
            // A small one may fit where a large one does not.
            if class == least {
                return Ok(false);
            }
            class = class.down().max(least);
        };
        let Allocated {
            life,
            file,
            address,
        } = allocated;
        self.table
            .place(life.slot, open_row(part, life, class, span));
        let mut open = OpenExtent::new(life, file.clone(), address);
        open.opened = Some(self.io.now());
        open.opened_at = trusted.unwrap_or(WallMs(0));
        let it = self.parts.get_mut(&part).expect("looked up above");
        it.extents.push_back(life.slot);
        it.open = Some(Box::new(open));
        self.group.push(Entry {
            part,
            life,
            base: span.base,
            epoch: span.epoch,
            aux: class as u64,
            ..Entry::new(EntryType::ExtOpen)
        });
        self.changes.push(Change::Opened {
            part,
            life,
            file,
            row: *self.table.row(life.slot),
        });
        Ok(true)
    }

    /// Cuts the log at the batch that holds `to`. The extent that is cut is sealed there, so that no byte a reader may
    /// be sending is ever written again (W1 holds by construction).
    fn truncate(&mut self, part: PartIx, to: Offset) -> io::Result<Outcome> {
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

    fn log_start(&mut self, part: PartIx, offset: Offset) -> Outcome {
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

    fn swap(&mut self, swap: &Swap) -> Outcome {
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

/// Batches of one operation.
#[derive(Clone, Copy, Debug)]
struct Span {
    bytes: usize,
    base: Offset,
    last: Offset,
    epoch: LeaderEpoch,
}

fn append_span(batch: &[u8], base: Offset, epoch: LeaderEpoch, gap: bool) -> Span {
    let (mut at, mut next, mut first) = (0, base, None);
    while at < batch.len() {
        let header = Header::read(&batch[at..]).expect("only checked batches are queued");
        let from = if gap { header.base_offset } else { next };
        first.get_or_insert(from);
        next = from.plus(i64::from(header.last_offset_delta) + 1);
        at += header.bytes;
    }
    Span {
        bytes: batch.len(),
        base: first.unwrap_or(base),
        last: next,
        epoch,
    }
}

/// The row of an extent that is opened for batches of `span`.
fn open_row(part: PartIx, life: SlotLife, class: Class, span: Span) -> Row {
    Row {
        state: SlotState::Open,
        part,
        used: DATA_AT,
        base: span.base,
        last: Offset(span.base.0 - 1),
        first_epoch: span.epoch,
        last_epoch: span.epoch,
        ..Row::free(class, life.generation)
    }
}

/// The row knows a batch that was put behind the last one.
pub(crate) fn add_to_row(row: &mut Row, header: &Header, trusted: Option<WallMs>) {
    row.used += header.bytes as u32;
    row.last = header.last_offset();
    row.last_epoch = header.leader_epoch;
    row.max_ts = row.max_ts.max(header.max_timestamp);
    row.appended_at = trusted.unwrap_or(row.appended_at);
}
