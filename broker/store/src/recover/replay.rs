//! The replay in two passes over the ring.
//!
//! The first takes the metadata to the ring's end: which extents live, where logs begin and end, epochs, the site log. The
//! second writes the batches of those extents that live at the end, and feeds indexes and windows. One pass would refill
//! a slot that was freed, zeroed and opened again. Windows are fed from every batch that no later TRUNCATE cut, those of
//! freed extents included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::batch::{HEADER_BYTES, Header};
use model::window::{Fact, Windows};
use model::{DiskUuid, NodeId, Offset, PartitionIndex, Term, TopicId, TopicPartition, WallMs};

use super::salvage::{Fill, Hole, Lost};
use super::scan::{Step, Walk};
use super::{Note, OpenError, say};
use crate::alloc::{Table, make};
use crate::dirty::Dirty;
use crate::extent_io::{read_batch, scan_extent, write_tail};
use crate::format::checkpoint::{Body, CheckpointHeader, Partition};
use crate::format::extent::{DATA_AT, ExtentHeader, SlotLife};
use crate::format::journal::{self, Entry, EntryType, Record};
use crate::format::row::{ROW_BYTES, Row, SlotState};
use crate::format::{Fault, Le, PAGE};
use crate::io::{Io, Mode, Name};
use crate::mutation::{Mutation, is};
use crate::parts::{OpenExtent, Part, Parts, Site, feed_index};
use crate::writer::write_payload_before;
use crate::{Class, PartIx};

/// Where the ring ended.
pub(crate) struct End {
    /// Of the next group.
    pub(super) seq: u64,
    /// Ring bytes from the checkpoint's boundary.
    pub(super) advance: u64,
}

/// An extent that is rebuilt in the second pass.
struct Building<F> {
    open: OpenExtent<F>,
    /// Position behind the last batch fed, and the latest time of those.
    used: u32,
    max_ts: WallMs,
    /// Position of the last batch that the replay wrote.
    touched: Option<u32>,
}

/// The state that a replay builds.
pub(crate) struct Replay<F> {
    pub(crate) table: Table,
    pub(crate) parts: Parts<F>,
    pub(super) next_part: u32,
    pub(super) windows: Windows,
    pub(super) site: Site,
    pub(super) dirty: Dirty<F>,
    /// Rows as of the boundary, of the extents that were open then.
    open: Vec<(crate::format::checkpoint::OpenExtent, Row)>,
    /// Extents that a TRUNCATE cut: their index and sums are made again.
    cut: BTreeSet<SlotLife>,
    /// Extents that a compactor put in place: their files were synced before.
    swapped: BTreeSet<SlotLife>,
    pub(super) disk: DiskUuid,
    pub(super) lost: Lost,
    pub(super) fills: Vec<Fill>,
}

/// Why an entry can't be applied.
pub(super) enum Refusal {
    /// It does not fit what came before.
    Unfit(String),
    /// The disk can't be read or written, or must not be used.
    Error(OpenError),
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self::Unfit(what)
    }
}

impl<F: Send + Sync + 'static> Replay<F> {
    pub(super) fn new(rows: Vec<Row>, body: &Body, header: &CheckpointHeader) -> Self {
        let mut parts: Parts<F> = body
            .partitions
            .iter()
            .map(|it| (PartIx(it.row.part), Part::from_row(&it.row)))
            .collect();
        let mut slots: Vec<u32> = (0..header.rows).collect();
        slots.sort_by_key(|slot| rows[*slot as usize].base);
        for slot in slots {
            let row = &rows[slot as usize];
            if matches!(row.state, SlotState::Open | SlotState::Sealed)
                && let Some(part) = parts.get_mut(&row.part)
            {
                part.extents.push_back(slot);
            }
        }
        let open = body
            .open
            .iter()
            .filter_map(|it| Some((it.clone(), *rows.get(it.life.slot as usize)?)))
            .collect();
        Self {
            table: Table::new(rows),
            parts,
            next_part: body.next_part,
            windows: Windows::default(),
            site: super::site_of(body),
            dirty: Dirty::default(),
            open,
            cut: BTreeSet::new(),
            swapped: BTreeSet::new(),
            disk: header.disk,
            lost: Lost::default(),
            fills: Vec::new(),
        }
    }

    /// Whether a TRUNCATE behind the checkpoint cut the extent.
    pub(crate) fn was_cut(&self, life: SlotLife) -> bool {
        self.cut.contains(&life)
    }

    /// Whether a compactor put the extent in place behind the checkpoint.
    pub(crate) fn was_swapped_in(&self, life: SlotLife) -> bool {
        self.swapped.contains(&life)
    }

    /// The first pass. `clean` is the superblock's clean_seq.
    pub(super) fn metadata<I: Io<File = F>>(
        &mut self,
        io: &I,
        walk: &mut Walk<'_, I>,
        clean: u64,
        alone: bool,
        notes: &mut Vec<Note>,
    ) -> Result<End, OpenError> {
        loop {
            if clean != 0 && walk.seq == clean + 1 {
                break;
            }
            let (why, unreadable) = match walk.step() {
                Step::Record(header) => {
                    let record = say("reading the journal", walk.reader.record(header))?;
                    self.record(io, &record)?;
                    continue;
                }
                Step::End if clean == 0 => break,
                Step::End => (format!("it ends, group {clean} was the last"), false),
                Step::Rotten { why, unreadable } => (why, unreadable),
            };
            if !alone {
                return Err(OpenError::Suspect { seq: walk.seq, why });
            }
            let (seq, at) = (walk.seq, walk.at);
            let next = walk.skip();
            self.hole(Hole {
                seq,
                at,
                why,
                unreadable,
                last: next.is_none(),
            });
            notes.push(Note::Salvaged {
                seq,
                next,
                at,
                batches: 0,
            });
            if next.is_none() {
                break;
            }
        }
        say("reading an extent", self.salvage_doubtful(io, walk.seq))?;
        for note in notes.iter_mut() {
            if let Note::Salvaged { batches, .. } = note {
                *batches = self.lost.batches;
            }
        }
        notes.extend(self.lost.site.map(Note::SiteHole));
        if !self.lost.unknown.is_empty() {
            let unknown = self.lost.unknown.iter().copied().collect();
            notes.push(Note::UnknownReplicas(unknown));
        }
        Ok(End {
            seq: walk.seq,
            advance: walk.advance,
        })
    }

    fn record<I: Io<File = F>>(&mut self, io: &I, record: &Record<'_>) -> Result<(), OpenError> {
        let seq = record.header.seq;
        for (number, entry) in record.entries().enumerate() {
            let entry = entry.map_err(OpenError::Newer)?;
            let payload = record.payload(&entry);
            let applied = if self.holes() {
                self.salvage(io, (seq, number), &entry, payload, record.header.wall)
            } else {
                self.apply(&entry, payload, record.header.wall)
            };
            match applied {
                Ok(()) => {}
                Err(Refusal::Unfit(what)) => return Err(OpenError::Inconsistent { seq, what }),
                Err(Refusal::Error(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// What an entry changes, as the writer changed it.
    pub(super) fn apply(
        &mut self,
        entry: &Entry,
        payload: &[u8],
        wall: WallMs,
    ) -> Result<(), Refusal> {
        let part = entry.part;
        match entry.kind {
            EntryType::PartNew => {
                if payload.len() != 20 {
                    return Err(format!("PART_NEW of {} B", payload.len()).into());
                }
                let id = TopicPartition {
                    topic: TopicId(payload.uuid_at(0)),
                    partition: PartitionIndex(payload.u32_at(16)),
                };
                if self.parts.insert(part, Part::new(id)).is_some() {
                    return Err(format!("{part:?} is there already").into());
                }
                self.next_part = self.next_part.max(part.0.saturating_add(1));
            }
            EntryType::PartDel => {
                let it = self.parts.remove(&part);
                let it = it.ok_or_else(|| format!("PART_DEL of {part:?}, which is not there"))?;
                for slot in it.extents {
                    self.table.row_mut(slot).state = SlotState::Freeing;
                }
            }
            EntryType::Append => self.append(entry, wall)?,
            EntryType::Epoch => {
                let it = self.part(part)?;
                it.accepted_epoch = it.accepted_epoch.max(entry.epoch);
                if entry.base.0 >= 0 {
                    it.begin_epoch(entry.epoch, entry.base);
                }
            }
            EntryType::ExtOpen => self.ext_open(entry)?,
            EntryType::ExtSeal => {
                let row = self.living(entry)?;
                if row.state != SlotState::Open || row.used != entry.ext_off {
                    return Err(format!("EXT_SEAL of {:?} at {}", entry.life, entry.ext_off).into());
                }
                row.state = SlotState::Sealed;
            }
            EntryType::ExtFree => {
                self.living(entry)?.state = SlotState::Freeing;
                if let Some(it) = self.parts.get_mut(&part) {
                    it.extents.retain(|slot| *slot != entry.life.slot);
                }
            }
            EntryType::ExtSwap => self.ext_swap(entry, payload)?,
            EntryType::Truncate => self.truncate(entry)?,
            EntryType::LogStart => {
                let it = self.part(part)?;
                let dropped = entry.base > it.end;
                if !is(Mutation::LogStartLowered) {
                    it.set_log_start(entry.base);
                }
                if dropped {
                    let gone = std::mem::take(&mut it.extents);
                    for slot in gone {
                        self.table.row_mut(slot).state = SlotState::Freeing;
                    }
                }
            }
            EntryType::HardState => {
                let vote = (entry.life.slot != 0).then_some(NodeId(entry.life.slot));
                self.site.hard_state(Term(entry.aux), vote);
            }
            EntryType::SiteEntry => {
                let index = entry.base.0 as u64;
                if !self.site.entry(index, Term(entry.aux), payload) {
                    return Err(
                        format!("site-log entry {index} follows {}", self.site.last()).into(),
                    );
                }
            }
            EntryType::Ckpt | EntryType::Boot | EntryType::Clean => {}
        }
        Ok(())
    }

    pub(super) fn part(&mut self, part: PartIx) -> Result<&mut Part<F>, String> {
        self.parts
            .get_mut(&part)
            .ok_or_else(|| format!("{part:?} is not there"))
    }

    fn living(&mut self, entry: &Entry) -> Result<&mut Row, String> {
        let SlotLife { slot, generation } = entry.life;
        let row = self.table.rows.get_mut(slot as usize);
        row.filter(|row| {
            row.generation == generation
                && row.part == entry.part
                && matches!(row.state, SlotState::Open | SlotState::Sealed)
        })
        .ok_or_else(|| format!("{:?} of {:?} is not in use", entry.life, entry.part))
    }

    fn append(&mut self, entry: &Entry, wall: WallMs) -> Result<(), Refusal> {
        let end = self.part(entry.part)?.end;
        let gap = entry.flags & journal::GAP != 0;
        let row = self.living(entry)?;
        let fits = row.state == SlotState::Open
            && row.used == entry.ext_off
            && u64::from(entry.ext_off) + u64::from(entry.len) <= row.class.bytes()
            && entry.len > 0
            && (entry.base == end || (gap && entry.base > end));
        if !fits {
            return Err(format!(
                "APPEND of {:?} at {:?}, position {} of {:?}: the log ends at {end:?}, position {}",
                entry.part, entry.base, entry.ext_off, entry.life, row.used
            )
            .into());
        }
        appended(row, entry, wall);
        let it = self.part(entry.part)?;
        it.appended(
            entry.epoch,
            entry.base,
            entry.next_offset(),
            Offset(entry.aux as i64),
        );
        Ok(())
    }

    pub(super) fn ext_open(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let class = u8::try_from(entry.aux).ok().and_then(Class::from_u8);
        let class = class.ok_or_else(|| format!("EXT_OPEN of class {}", entry.aux))?;
        // A slot more than every row of a full disk of 16 TiB in the smallest class is no slot.
        if entry.life.slot >= 1 << 24 {
            return Err(format!("EXT_OPEN of slot {}", entry.life.slot).into());
        }
        let it = self.part(entry.part)?;
        it.extents.push_back(entry.life.slot);
        it.class = class;
        let row = Row {
            state: SlotState::Open,
            part: entry.part,
            used: DATA_AT,
            base: entry.base,
            last: Offset(entry.base.0 - 1),
            first_epoch: entry.epoch,
            last_epoch: entry.epoch,
            ..Row::free(class, entry.life.generation)
        };
        self.table.place(entry.life.slot, row);
        Ok(())
    }

    fn ext_swap(&mut self, entry: &Entry, payload: &[u8]) -> Result<(), Refusal> {
        let lives = payload.get(ROW_BYTES..).unwrap_or(&[]).chunks_exact(8);
        let old: Vec<u32> = lives.map(|life| life.u32_at(0)).collect();
        let new = (entry.life.generation != 0)
            .then(|| Row::decode(payload))
            .transpose()
            .map_err(|fault| fault.to_string())?;
        let it = self.part(entry.part)?;
        let first = it.extents.iter().position(|slot| Some(slot) == old.first());
        let first = first.filter(|first| it.extents.iter().skip(*first).take(old.len()).eq(&old));
        let first =
            first.ok_or_else(|| format!("EXT_SWAP of {old:?}, which {:?} has not", entry.part))?;
        it.extents.drain(first..first + old.len());
        if new.is_some() {
            it.extents.insert(first, entry.life.slot);
        }
        for slot in old {
            self.table.row_mut(slot).state = SlotState::Freeing;
        }
        if let Some(row) = new {
            self.table.place(entry.life.slot, row);
            self.swapped.insert(entry.life);
        }
        Ok(())
    }

    fn truncate(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let end = entry.base;
        let mut gone = Vec::new();
        {
            let Self { parts, table, .. } = self;
            let it = parts
                .get_mut(&entry.part)
                .ok_or_else(|| format!("{:?} is not there", entry.part))?;
            while let Some(slot) = it.extents.back().copied()
                && table.row(slot).base >= end
            {
                it.extents.pop_back();
                gone.push(slot);
            }
            it.truncate(end);
        }
        for slot in gone {
            self.table.row_mut(slot).state = SlotState::Freeing;
        }
        if entry.life.generation != 0 {
            let row = self.living(entry)?;
            if entry.ext_off > row.used || entry.ext_off < DATA_AT {
                return Err(format!("TRUNCATE to position {}", entry.ext_off).into());
            }
            row.state = SlotState::Sealed;
            row.used = entry.ext_off;
            row.last = Offset(end.0 - 1);
            self.cut.insert(entry.life);
        }
        Ok(())
    }

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
    pub(super) fn feed_windows(
        &mut self,
        part: PartIx,
        payload: &[u8],
        hw: Offset,
    ) -> Result<(), OpenError> {
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

/// A row knows an APPEND.
pub(super) fn appended(row: &mut Row, entry: &Entry, wall: WallMs) {
    row.used += entry.len;
    row.last = Offset(entry.next_offset().0 - 1);
    row.last_epoch = entry.epoch;
    row.max_ts = row.max_ts.max(entry.max_ts);
    if wall.0 != 0 {
        row.appended_at = wall;
    }
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
