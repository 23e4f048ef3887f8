//! Appends: their entries, and the extents they open and seal on the way.

use std::io;

use model::batch::Header;
use model::window::Fact;
use model::{LeaderEpoch, Offset, WallMs};

use crate::alloc::Allocated;
use crate::disk::Disk;
use crate::format::extent::{DATA_AT, INDEX_EVERY, SlotLife};
use crate::format::journal::{self, Entry, EntryType};
use crate::format::row::{Row, SlotState};
use crate::io::Io;
use crate::mutation::{Mutation, is};
use crate::ops::{Op, Outcome};
use crate::parts::{OpenExtent, feed_index};
use crate::publish::Change;
use crate::{Append, Class, PartIx};

/// An extent that fills faster than this is followed by one of the next class.
const FAST: core::time::Duration = core::time::Duration::from_secs(600);
/// So many extents of a class, and the next one is of a larger class.
const MANY: usize = 16;

impl<I: Io> Disk<I> {
    pub(super) fn append(&mut self, number: u32, trusted: Option<WallMs>) -> io::Result<Outcome> {
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
