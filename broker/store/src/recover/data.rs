//! The replay's second pass: batches of the extents that live at the ring's end go into them again, and indexes and
//! windows are fed.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::batch::{HEADER_BYTES, Header};
use model::window::Fact;
use model::{DiskUuid, Offset, TopicPartition, WallMs};

use super::replay::Replay;
use super::salvage::Fill;
use super::scan::Walk;
use super::{OpenError, say};
use crate::alloc::make;
use crate::extent_io::{read_batch, scan_extent, write_tail};
use crate::format::checkpoint::Partition;
use crate::format::extent::{DATA_AT, ExtentHeader, SlotLife};
use crate::format::journal::{Entry, EntryType};
use crate::format::row::{Row, SlotState};
use crate::format::{Fault, PAGE};
use crate::io::{Io, Mode, Name};
use crate::mutation::{Mutation, is};
use crate::parts::{OpenExtent, feed_index};
use crate::writer::write_payload_before;
use crate::{Class, PartIx};

/// An extent that is rebuilt in the second pass.
struct Building<F> {
    open: OpenExtent<F>,
    /// Position behind the last batch fed, and the latest time of those.
    used: u32,
    max_ts: WallMs,
    /// Position of the last batch that the replay wrote.
    touched: Option<u32>,
}

impl<F: Send + Sync + 'static> Replay<F> {
    /// The second pass.
    pub(super) fn data<I: Io<File = F>>(
        &mut self,
        io: &I,
        walk: &mut Walk<'_, I>,
        partitions: Vec<Partition>,
    ) -> Result<(), OpenError> {
        for it in partitions {
            let part = PartIx(it.row.part);
            if !it.windows.is_empty() {
                let read = self
                    .windows
                    .decode(part, it.row.high_watermark, &it.windows);
                read.map_err(|fault| OpenError::Newer(Fault::Unknown(fault.to_string())))?;
            }
        }
        self.windows.order_by_time();
        let mut building = BTreeMap::new();
        for (it, row) in std::mem::take(&mut self.open) {
            if self.rebuilds(it.life) {
                building.insert(it.life.slot, Self::resume(io, it, &row)?);
            }
        }
        let fills = std::mem::take(&mut self.fills);
        let mut fills = fills.iter().peekable();
        walk.again(|record| {
            let seq = record.header.seq;
            for (number, entry) in record.entries().enumerate() {
                let entry = entry.map_err(OpenError::Newer)?;
                while let Some(fill) = fills.next_if(|fill| fill.before <= (seq, number)) {
                    self.fill(io, fill, &mut building)?;
                }
                if !self.lost.skipped.contains(&(seq, number)) {
                    self.data_entry(io, seq, &entry, record.payload(&entry), &mut building)?;
                }
            }
            Ok(())
        })?;
        for fill in fills {
            // Of replicas that no later record names.
            self.fill(io, fill, &mut building)?;
        }
        self.settle(io, building)
    }

    /// Whether an extent is in use at the ring's end, and not to be walked as a whole anyway.
    fn rebuilds(&self, life: SlotLife) -> bool {
        self.table
            .alive(life)
            .is_some_and(|row| matches!(row.state, SlotState::Open | SlotState::Sealed))
    }

    fn resume<I: Io<File = F>>(
        io: &I,
        it: crate::format::checkpoint::OpenExtent,
        row: &Row,
    ) -> Result<Building<F>, OpenError> {
        let file = open_extent(io, it.life.slot)?;
        let address = say("an extent's address", io.disk_address(&file))?;
        let mut open = OpenExtent::new(it.life, Arc::new(file), address);
        (open.crc, open.crc_at) = (it.crc, it.crc_at);
        open.opened_at = it.opened_at;
        open.index = it.index;
        if it.tail.len() == row.used as usize % PAGE {
            open.tail[..it.tail.len()].copy_from_slice(&it.tail);
        }
        Ok(Building {
            open,
            used: row.used,
            max_ts: row.max_ts,
            touched: None,
        })
    }

    /// The file of an extent that was opened within the ring's window: all its batches are in the ring, so it is made
    /// anew if the cut took it, or left one of an earlier life.
    fn file_anew<I: Io<File = F>>(io: &I, slot: u32, class: Class) -> Result<F, OpenError> {
        match io.open(Name::Extent(slot), Mode::Write) {
            Ok(file) if io.bytes(&file).is_ok_and(|it| it == class.bytes()) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return say("opening an extent", Err(error)),
        }
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let made = make(io, slot, class).and_then(|file| file.ok_or_else(full));
        say("an extent's allocation", made)
    }

    fn data_entry<I: Io<File = F>>(
        &mut self,
        io: &I,
        seq: u64,
        entry: &Entry,
        payload: &[u8],
        building: &mut BTreeMap<u32, Building<F>>,
    ) -> Result<(), OpenError> {
        match entry.kind {
            EntryType::ExtOpen if self.rebuilds(entry.life) => {
                let row = *self.table.row(entry.life.slot);
                let file = Self::file_anew(io, entry.life.slot, row.class)?;
                self.table.named(io, entry.life.slot);
                let address = say("an extent's address", io.disk_address(&file))?;
                let open = OpenExtent::new(entry.life, Arc::new(file), address);
                if let Some(it) = self.parts.get(&entry.part) {
                    let header = extent_header(self.disk, &row, entry, it.id);
                    say(
                        "an extent's write",
                        io.pwrite(&open.file, &header.encode(), 0),
                    )?;
                }
                self.dirty.mark(
                    entry.life,
                    address,
                    &open.file,
                    (0, PAGE as u64),
                    (seq, io.now()),
                );
                building.insert(
                    entry.life.slot,
                    Building {
                        open,
                        used: DATA_AT,
                        max_ts: WallMs(-1),
                        touched: None,
                    },
                );
            }
            EntryType::Append => {
                self.feed_windows(entry.part, payload, Offset(entry.aux as i64))?;
                if is(Mutation::OnePassReplay)
                    && self.table.alive(entry.life).is_none()
                    && let Ok(file) = io.open(Name::Extent(entry.life.slot), Mode::Write)
                {
                    let written = io.pwrite(&file, payload, entry.ext_off.into());
                    say("an extent's write", written)?;
                }
                let limit = match self.table.alive(entry.life) {
                    Some(row) => row.used,
                    None => return Ok(()),
                };
                let len = limit.saturating_sub(entry.ext_off).min(entry.len) as usize;
                if let Some(it) = building.get_mut(&entry.life.slot)
                    && it.open.life == entry.life
                    && len > 0
                {
                    let base = self.table.row(entry.life.slot).base;
                    let last = it.feed(&payload[..len], base)?;
                    let end = entry.ext_off + len as u32;
                    let behind = match self.holes() {
                        true => page_behind(io, &it.open.file, end),
                        false => [0; PAGE],
                    };
                    let written = write_payload_before(
                        io,
                        &mut it.open,
                        entry.ext_off,
                        &payload[..len],
                        &behind,
                    );
                    say("an extent's write", written)?;
                    it.touched = Some(last);
                    let range = (
                        u64::from(entry.ext_off),
                        u64::from(entry.ext_off) + len as u64,
                    );
                    let Building { open, .. } = it;
                    let when = (seq, io.now());
                    self.dirty
                        .mark(entry.life, open.address, &open.file, range, when);
                }
            }
            EntryType::Truncate => self.windows.truncate(entry.part, entry.base),
            EntryType::PartDel => self.windows.remove(entry.part),
            _ => {}
        }
        Ok(())
    }

    /// Feeds the windows from a payload of whole batches.
    fn feed_windows(&mut self, part: PartIx, payload: &[u8], hw: Offset) -> Result<(), OpenError> {
        let mut at = 0;
        let mut end = Offset::ZERO;
        while at < payload.len() {
            let header = Header::read(&payload[at..]).map_err(|fault| rotten(part, &fault))?;
            let records = payload.get(at + HEADER_BYTES..at + header.bytes);
            let records = records.ok_or_else(|| rotten(part, &"a batch is cut"))?;
            if let Some(fact) = Fact::of(&header, records).map_err(|fault| rotten(part, &fault))? {
                self.windows.feed(part, &fact);
            }
            end = header.next_offset();
            at += header.bytes;
        }
        self.windows.advance(part, hw.min(end));
        Ok(())
    }

    /// Batches that a rotten record named, read back from where they lie.
    fn fill<I: Io<File = F>>(
        &mut self,
        io: &I,
        fill: &Fill,
        building: &mut BTreeMap<u32, Building<F>>,
    ) -> Result<(), OpenError> {
        let mut bytes = Vec::new();
        if let Some(header) = &fill.opened {
            let life = SlotLife {
                slot: header.slot,
                generation: header.generation,
            };
            let mut entry = Entry::new(EntryType::ExtOpen);
            (entry.part, entry.life) = (fill.part, life);
            (entry.base, entry.epoch) = (header.base, header.epoch);
            self.data_entry(io, fill.before.0, &entry, &[], building)?;
        }
        let mut at = fill.from;
        while at < fill.to {
            let file = match building.get(&fill.life.slot) {
                Some(it) => it.open.file.clone(),
                None => Arc::new(open_extent(io, fill.life.slot)?),
            };
            let read = read_batch(io, &file, at, fill.to, &mut bytes);
            let Some(header) = say("reading an extent", read)? else {
                return Err(rotten(fill.part, &"a batch changed between two reads"));
            };
            let mut entry = Entry::new(EntryType::Append);
            (entry.part, entry.life, entry.ext_off) = (fill.part, fill.life, at);
            (entry.len, entry.base) = (header.bytes as u32, header.base_offset);
            entry.epoch = header.leader_epoch;
            self.data_entry(io, fill.before.0, &entry, &bytes, building)?;
            at += header.bytes as u32;
        }
        Ok(())
    }

    /// Rebuilt extents get their tails, open ones go to their partitions.
    fn settle<I: Io<File = F>>(
        &mut self,
        io: &I,
        building: BTreeMap<u32, Building<F>>,
    ) -> Result<(), OpenError> {
        let seq = |row: &Row| row.generation.into();
        for (slot, mut it) in building {
            let row = *self.table.row(slot);
            let mut bytes = Vec::new();
            if let Some(at) = it.touched {
                // The pages are in memory: what was written must read as a batch.
                let read = read_batch(io, &it.open.file, at, row.used, &mut bytes);
                if say("reading an extent", read)?.is_none() {
                    return Err(rotten(row.part, &"its last batch does not read back"));
                }
            }
            if self.cut.contains(&it.open.life) {
                continue;
            }
            if it.used != row.used {
                return Err(OpenError::Inconsistent {
                    seq: seq(&row),
                    what: format!(
                        "extent {slot} ends at {}, its row says {}",
                        it.used, row.used
                    ),
                });
            }
            if row.state == SlotState::Sealed {
                self.tail(io, &row, &mut it.open)?;
                continue;
            }
            if let Some(part) = self.parts.get_mut(&row.part) {
                part.open = Some(Box::new(it.open));
            }
        }
        for life in std::mem::take(&mut self.cut) {
            let slot = life.slot;
            let alive = self.table.alive(life).copied();
            let Some(row) = alive.filter(|row| row.state == SlotState::Sealed) else {
                continue;
            };
            let file = Arc::new(open_extent(io, slot)?);
            let address = say("an extent's address", io.disk_address(&file))?;
            let scan = scan_extent(io, &file, &row, row.used, Offset(i64::MAX));
            let scan = say("reading an extent", scan)?;
            *self.table.row_mut(slot) = scan.row;
            let mut open = OpenExtent::new(life, file, address);
            (open.index, open.crc, open.crc_at) = (scan.index, scan.crc, scan.row.used);
            self.tail(io, &scan.row, &mut open)?;
        }
        let open = self.table.rows.iter().enumerate();
        let open = open.filter(|(_, row)| row.state == SlotState::Open);
        for (slot, row) in open {
            let known = self.parts.get(&row.part).and_then(|it| it.open.as_ref());
            if known.is_none_or(|open| open.life.slot != slot as u32) {
                return Err(OpenError::Inconsistent {
                    seq: seq(row),
                    what: format!("extent {slot} is open, {:?} knows nothing of it", row.part),
                });
            }
        }
        Ok(())
    }

    fn tail<I: Io<File = F>>(
        &mut self,
        io: &I,
        row: &Row,
        open: &mut OpenExtent<F>,
    ) -> Result<(), OpenError> {
        let place = say("an extent's tail", write_tail(io, row, open))?;
        let when = (0, io.now());
        self.dirty
            .mark_tail(open.life, open.address, &open.file, place, when);
        Ok(())
    }
}

impl<F> Building<F> {
    /// Takes note of batches that lie behind what was fed; says where the last one begins.
    fn feed(&mut self, payload: &[u8], base: Offset) -> Result<u32, OpenError> {
        let (mut at, mut last) = (0, self.used);
        while at < payload.len() {
            let header = Header::read(&payload[at..]).map_err(|fault| rotten(PartIx(0), &fault))?;
            let rel = header.base_offset.since(base) as u32;
            feed_index(&mut self.open.index, rel, self.used, self.max_ts);
            last = self.used;
            self.used += header.bytes as u32;
            self.max_ts = self.max_ts.max(header.max_timestamp);
            at += header.bytes;
        }
        Ok(last)
    }
}

/// What a page holds behind `at`: the rest of it may be the only copy of a batch that a rotten group held, and is salvaged
/// only after what lies before it was written.
fn page_behind<I: Io>(io: &I, file: &I::File, at: u32) -> [u8; PAGE] {
    let mut behind = [0; PAGE];
    // A place that can't be read holds nothing to be saved.
    if io.pread(file, &mut behind, at.into()).is_err() {
        behind = [0; PAGE];
    }
    behind
}

fn open_extent<I: Io>(io: &I, slot: u32) -> Result<I::File, OpenError> {
    say(
        "opening an extent",
        io.open(Name::Extent(slot), Mode::Write),
    )
}

fn extent_header(disk: DiskUuid, row: &Row, entry: &Entry, id: TopicPartition) -> ExtentHeader {
    ExtentHeader {
        class: row.class,
        disk,
        slot: entry.life.slot,
        generation: entry.life.generation,
        id,
        epoch: entry.epoch,
        base: entry.base,
    }
}

fn rotten(part: PartIx, what: &dyn std::fmt::Display) -> OpenError {
    OpenError::Inconsistent {
        seq: 0,
        what: format!("a batch of {part:?}: {what}"),
    }
}
