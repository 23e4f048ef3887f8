//! Windows at rest: section 1 of a partition's checkpoint. The picture of the bytes stands in the parent.

use super::{
    BATCHES, Batch, ENTRY_BYTES, Entry, HEAD_BYTES, ITEM_BYTES, Item, Kind, NO_BATCH, NO_ITEM,
    NO_SLOT, NUMBER_MASK, PartIx, VERSION, WindowFault, Windows, pairs_of,
};
use crate::{Offset, ProducerId};

impl Windows {
    /// Appends the windows of `part` to `out`: 16 B + 112 B a pair + 32 B a batch above the high watermark.
    pub fn encode(&self, part: PartIx, out: &mut Vec<u8>) {
        let pairs = self.index.range(pairs_of(part));
        let items = self.above.get(&part).map(|above| &above.items);
        out.extend_from_slice(&u32::from(VERSION).to_le_bytes());
        out.extend_from_slice(&(pairs.clone().count() as u32).to_le_bytes());
        out.extend_from_slice(&(items.map_or(0, |items| items.len()) as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for (_, slot) in pairs {
            let entry = &self.slots[usize::from(*slot)];
            out.extend_from_slice(&entry.pid.to_le_bytes());
            out.extend_from_slice(&entry.epoch.to_le_bytes());
            out.extend_from_slice(&entry.flags.to_le_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_le_bytes());
            for batch in &entry.batches {
                out.extend_from_slice(&batch.base_offset.0.to_le_bytes());
                out.extend_from_slice(&batch.first_seq.to_le_bytes());
                out.extend_from_slice(&batch.last_delta.to_le_bytes());
            }
            out.extend_from_slice(&entry.last_ts.to_le_bytes());
            out.extend_from_slice(&entry.txn_first.to_le_bytes());
        }
        for item in items.into_iter().flatten() {
            out.extend_from_slice(&item.batch.base_offset.0.to_le_bytes());
            out.extend_from_slice(&item.pid.to_le_bytes());
            out.extend_from_slice(&item.batch.first_seq.to_le_bytes());
            out.extend_from_slice(&item.batch.last_delta.to_le_bytes());
            out.extend_from_slice(&item.coordinator_epoch.to_le_bytes());
            out.extend_from_slice(&item.epoch.to_le_bytes());
            out.extend_from_slice(&[item.kind as u8, 0]);
        }
    }

    /// Takes what [`Windows::encode`] wrote for `part`, whose high watermark is `hw`. What was known of `part` before is
    /// forgotten, also when the bytes are refused. Call [`Windows::order_by_time`] after the last partition.
    pub fn decode(&mut self, part: PartIx, hw: Offset, bytes: &[u8]) -> Result<(), WindowFault> {
        self.remove(part);
        let read = self.decode_rows(part, bytes);
        match read {
            Ok(()) => self.advance(part, hw),
            Err(_) => self.remove(part),
        }
        read
    }

    fn decode_rows(&mut self, part: PartIx, bytes: &[u8]) -> Result<(), WindowFault> {
        let (head, rows) = bytes
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(WindowFault::Malformed("shorter than its head"))?;
        let mut head = Le(head);
        let version = head.u16();
        if version != VERSION {
            return Err(WindowFault::Version(version));
        }
        head.take::<2>();
        let (entries, items) = (head.u32() as usize, head.u32() as usize);
        if entries
            .checked_mul(ENTRY_BYTES)
            .and_then(|all| all.checked_add(items.checked_mul(ITEM_BYTES)?))
            != Some(rows.len())
        {
            return Err(WindowFault::Malformed("counts and length don't agree"));
        }
        let (entries, items) = rows.split_at(entries * ENTRY_BYTES);
        let mut end = Offset::ZERO;
        for row in entries.chunks_exact(ENTRY_BYTES) {
            let entry = read_entry(part, row)?;
            if self.entry(part, ProducerId(entry.pid)).is_some() {
                return Err(WindowFault::Malformed("a producer id stands twice"));
            }
            if let Some(last) = entry.known().next_back() {
                end = end.max(last.base_offset.plus(i64::from(last.last_delta) + 1));
            }
            let slot = self.slot_for(part, ProducerId(entry.pid));
            let place = &mut self.slots[usize::from(slot)];
            let (older, newer) = (place.older, place.newer);
            *place = Entry {
                older,
                newer,
                ..entry
            };
        }
        for row in items.chunks_exact(ITEM_BYTES) {
            let mut item = read_item(row)?;
            let above = self.above.entry(part).or_default();
            let number = above.first.wrapping_add(above.items.len() as u32) & NUMBER_MASK;
            if let Some(slot) = self.index.get(&(part, item.pid)) {
                let entry = &mut self.slots[usize::from(*slot)];
                // Else its turn would come behind batches that it precedes, and what is then written can't be read.
                let known = entry.known().next_back();
                if known.is_some_and(|last| last.base_offset >= item.batch.base_offset) {
                    return Err(WindowFault::Malformed(
                        "a batch above the high watermark precedes a known one",
                    ));
                }
                item.before = entry.item;
                entry.item = number;
            }
            if above
                .items
                .back()
                .is_some_and(|last| last.batch.base_offset >= item.batch.base_offset)
            {
                return Err(WindowFault::Malformed("batches out of order"));
            }
            end = end.max(
                item.batch
                    .base_offset
                    .plus(i64::from(item.batch.last_delta) + 1),
            );
            above.items.push_back(item);
            self.above_count += 1;
        }
        self.above.entry(part).or_default().end = end;
        Ok(())
    }

    /// Orders the pairs for eviction by the time of their last append: the best that is known of the order across
    /// partitions once all came from checkpoints.
    pub fn order_by_time(&mut self) {
        let mut slots: Vec<u16> = self.index.values().copied().collect();
        slots.sort_by_key(|slot| self.slots[usize::from(*slot)].last_ts);
        (self.oldest, self.newest) = (NO_SLOT, NO_SLOT);
        for slot in slots {
            self.link_newest(slot);
        }
    }
}

fn read_entry(part: PartIx, row: &[u8]) -> Result<Entry, WindowFault> {
    let mut row = Le(row);
    let mut entry = Entry::new(part, ProducerId(row.i64()));
    entry.epoch = row.i16();
    entry.flags = row.u16();
    entry.coordinator_epoch = row.i32();
    for place in 0..BATCHES {
        let batch = row.batch_from(None)?;
        if place > 0
            && batch != NO_BATCH
            && entry.batches[place - 1].base_offset >= batch.base_offset
        {
            return Err(WindowFault::Malformed("batches out of order"));
        }
        if place > 0 && batch != NO_BATCH && entry.batches[place - 1] == NO_BATCH {
            return Err(WindowFault::Malformed("a hole between batches"));
        }
        entry.batches[place] = batch;
    }
    entry.last_ts = row.i64();
    entry.txn_first = row.i64();
    if entry.pid < 0 || entry.epoch < -1 {
        return Err(WindowFault::Malformed("a negative producer id or epoch"));
    }
    Ok(entry)
}

fn read_item(row: &[u8]) -> Result<Item, WindowFault> {
    let mut row = Le(row);
    let (offset, pid) = (row.i64(), row.i64());
    let batch = row.batch_from(Some(offset))?;
    let coordinator_epoch = row.i32();
    let epoch = row.i16();
    let kind = match row.take::<1>() {
        [0] => Kind::Data,
        [1] => Kind::Opening,
        [2] => Kind::Commit,
        [3] => Kind::Abort,
        _ => return Err(WindowFault::Malformed("an unknown kind of batch")),
    };
    if offset < 0 || pid < 0 {
        return Err(WindowFault::Malformed("a negative offset or producer id"));
    }
    Ok(Item {
        batch,
        pid,
        epoch,
        kind,
        coordinator_epoch,
        before: NO_ITEM,
    })
}

/// Little-endian fields from the front of a row whose length the caller has checked.
struct Le<'a>(&'a [u8]);

impl Le<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().expect("rows are whole");
        self.0 = rest;
        *field
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn i16(&mut self) -> i16 {
        i16::from_le_bytes(self.take())
    }

    fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.take())
    }

    fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.take())
    }

    /// A batch whose offset stands first, or was read before.
    fn batch_from(&mut self, offset: Option<i64>) -> Result<Batch, WindowFault> {
        let base_offset = Offset(offset.unwrap_or_else(|| self.i64()));
        let batch = Batch {
            base_offset,
            first_seq: self.i32(),
            last_delta: self.i32(),
        };
        if batch != NO_BATCH && (base_offset.0 < 0 || batch.last_delta < 0) {
            return Err(WindowFault::Malformed("a batch that can't be"));
        }
        Ok(batch)
    }
}
