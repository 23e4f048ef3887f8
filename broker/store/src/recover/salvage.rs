//! Salvage: what a disk without peers gives when groups are missing from its ring.
//!
//! Records behind the hole still apply to replicas whose offsets connect. Batches that the lost groups held are taken from
//! the extents where they lie, if they check: checksum, offset, leader epoch, and an end exactly where the next record
//! begins. A replica whose batches can't be found stops at its hole until that is accepted; nothing else waits for it.
//!
//! A replica that no record behind the hole names may have lost its last batches in it: its open extent gives what
//! connects, and since there may have been more, it ends in a hole that ends nobody knows where. So does every replica if
//! the ring's last groups are missing.

use std::collections::BTreeSet;
use std::io;

use model::batch::Header;
use model::{Offset, WallMs};

use super::replay::{Refusal, Replay, appended};
use super::{OpenError, UNKNOWN_END, say};
use crate::PartIx;
use crate::extent_io::read_batch;
use crate::format::PAGE;
use crate::format::extent::{DATA_AT, ExtentHeader, SlotLife};
use crate::format::journal::{Entry, EntryType, GAP};
use crate::format::row::{Row, SlotState};
use crate::io::{Io, Mode, Name};

/// What was lost, and what of it was found.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// In the ring, in order.
    pub(super) holes: Vec<Hole>,
    /// Replicas that were there at the last hole and that no record behind it connects to: nobody knows what it took.
    pub(super) doubtful: BTreeSet<PartIx>,
    /// Batches found in extents.
    pub(super) batches: u64,
    /// First missing entry of the site log.
    pub(super) site: Option<u64>,
    /// Replicas that records name and nobody knows.
    pub(super) unknown: BTreeSet<PartIx>,
    /// Entries, by group and number, that do not apply.
    pub(super) skipped: BTreeSet<(u64, usize)>,
}

/// Groups that are missing from the ring.
#[derive(Debug)]
pub(super) struct Hole {
    /// The first one.
    pub(super) seq: u64,
    /// Where in the ring it belongs.
    pub(super) at: u64,
    /// How that was seen.
    pub(super) why: String,
    /// The device gave an error, and may not the next time.
    pub(super) unreadable: bool,
    /// Nothing was found behind it.
    pub(super) last: bool,
}

/// Batches to be taken from where they lie, before an entry is applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub(super) before: (u64, usize),
    pub(super) part: PartIx,
    pub(super) life: SlotLife,
    pub(super) from: u32,
    pub(super) to: u32,
    /// The extent was opened in the hole.
    pub(super) opened: Option<ExtentHeader>,
}

/// Where a search for batches ends.
#[derive(Clone, Copy)]
struct Until {
    /// Known position, or anywhere.
    at: Option<u32>,
    offset: Offset,
}

impl<F: Send + Sync + 'static> Replay<F> {
    /// Applies an entry behind a hole as far as it fits.
    pub(super) fn salvage<I: Io<File = F>>(
        &mut self,
        io: &I,
        key: (u64, usize),
        entry: &Entry,
        payload: &[u8],
        wall: WallMs,
    ) -> Result<(), Refusal> {
        let upto = match entry.kind {
            EntryType::Append => Some(entry.next_offset()),
            EntryType::ExtSeal => Some(entry.base.plus(1)),
            EntryType::ExtOpen => Some(entry.base),
            EntryType::PartNew | EntryType::PartDel => None,
            _ => Some(Offset::ZERO),
        };
        let of_part = matches!(
            entry.kind,
            EntryType::Append
                | EntryType::ExtSeal
                | EntryType::ExtOpen
                | EntryType::Truncate
                | EntryType::ExtSwap
                | EntryType::LogStart
                | EntryType::Epoch
        );
        if of_part && let Some(upto) = upto {
            let Some(it) = self.parts.get_mut(&entry.part) else {
                self.lost.unknown.insert(entry.part);
                return self.skip(key, entry);
            };
            let stays = matches!(entry.kind, EntryType::LogStart | EntryType::Epoch);
            if let Some(hole) = &mut it.hole
                && !stays
            {
                hole.1 = hole.1.max(upto);
                return self.skip(key, entry);
            }
        }
        let fits = match entry.kind {
            EntryType::ExtOpen => self.part(entry.part)?.end == entry.base,
            _ => true,
        };
        if fits {
            match self.apply(entry, payload, wall) {
                Err(Refusal::Unfit(_)) => {}
                done => return self.connected(entry, done),
            }
        }
        let found = match entry.kind {
            EntryType::Append => {
                let until = Until {
                    at: Some(entry.ext_off),
                    offset: entry.base,
                };
                self.find(io, key, entry.part, entry.life, until)
            }
            EntryType::ExtSeal => {
                let until = Until {
                    at: Some(entry.ext_off),
                    offset: entry.base.plus(1),
                };
                self.find(io, key, entry.part, entry.life, until)
            }
            EntryType::ExtOpen => self.find_in_open(io, key, entry.part, entry.base),
            EntryType::SiteEntry => {
                let missing = self.site.last() + 1;
                self.lost.site.get_or_insert(missing);
                Ok(false)
            }
            _ => Ok(false),
        };
        let found = say("reading an extent", found).map_err(Refusal::Error)?;
        if found {
            match self.apply(entry, payload, wall) {
                Err(Refusal::Unfit(_)) => {}
                done => return self.connected(entry, done),
            }
        }
        let loses = matches!(
            entry.kind,
            EntryType::Append | EntryType::ExtSeal | EntryType::ExtOpen
        );
        if loses && let (Some(it), Some(upto)) = (self.parts.get_mut(&entry.part), upto) {
            it.hole = Some((it.end, upto.max(it.end)));
        }
        self.skip(key, entry)
    }

    /// An entry applied: if it says where its replica's log ended before it, the hole took nothing of that.
    fn connected(&mut self, entry: &Entry, done: Result<(), Refusal>) -> Result<(), Refusal> {
        if matches!(
            entry.kind,
            EntryType::Append | EntryType::ExtSeal | EntryType::ExtOpen
        ) && entry.flags & GAP == 0
        {
            self.lost.doubtful.remove(&entry.part);
        }
        done
    }

    /// The entry does not apply; a slot it takes into use is let go again.
    fn skip(&mut self, key: (u64, usize), entry: &Entry) -> Result<(), Refusal> {
        self.lost.skipped.insert(key);
        let takes = matches!(entry.kind, EntryType::ExtOpen | EntryType::ExtSwap);
        let class = u8::try_from(entry.aux).ok().and_then(crate::Class::from_u8);
        if let (true, Some(class)) = (takes && self.table.may_name(entry.life.slot), class)
            && entry.life.generation != 0
        {
            let row = Row {
                state: SlotState::Freeing,
                part: entry.part,
                ..Row::free(class, entry.life.generation)
            };
            self.table.place(entry.life.slot, row);
        }
        Ok(())
    }

    /// Looks for the batches between what is known of a replica and an entry of extent `life`.
    fn find<I: Io<File = F>>(
        &mut self,
        io: &I,
        key: (u64, usize),
        part: PartIx,
        life: SlotLife,
        until: Until,
    ) -> io::Result<bool> {
        let known = self
            .table
            .alive(life)
            .is_some_and(|row| row.state == SlotState::Open && row.part == part);
        if known {
            return self.take(io, key, part, life, until);
        }
        // The extent was opened in the hole: its own header says whose it is, and where it begins.
        let Some(header) = self.read_header(io, life)? else {
            return Ok(false);
        };
        let ours = self.parts.get(&part).is_some_and(|it| it.id == header.id);
        if !ours || !self.find_in_open(io, key, part, header.base)? {
            return Ok(false);
        }
        let mut open = Entry::new(EntryType::ExtOpen);
        (open.part, open.life, open.base) = (part, life, header.base);
        (open.epoch, open.aux) = (header.epoch, header.class as u64);
        if let Some(it) = self.parts.get(&part)
            && let Some(slot) = it.extents.back().copied()
        {
            self.table.row_mut(slot).state = SlotState::Sealed;
        }
        if self.ext_open(&open).is_err() {
            return Ok(false);
        }
        self.fills.push(Fill {
            before: key,
            part,
            life,
            from: DATA_AT,
            to: DATA_AT,
            opened: Some(header),
        });
        self.take(io, key, part, life, until)
    }

    /// Looks for batches in the replica's open extent until its log ends at `offset`.
    fn find_in_open<I: Io<File = F>>(
        &mut self,
        io: &I,
        key: (u64, usize),
        part: PartIx,
        offset: Offset,
    ) -> io::Result<bool> {
        let Some(it) = self.parts.get(&part) else {
            return Ok(false);
        };
        if it.end == offset {
            return Ok(true);
        }
        let Some(slot) = it.extents.back().copied() else {
            return Ok(false);
        };
        let row = self.table.row(slot);
        if row.state != SlotState::Open {
            return Ok(false);
        }
        let life = SlotLife {
            slot,
            generation: row.generation,
        };
        self.take(io, key, part, life, Until { at: None, offset })
    }

    /// Takes batches of an open extent that lie behind its last known one and lead exactly to `until`.
    fn take<I: Io<File = F>>(
        &mut self,
        io: &I,
        key: (u64, usize),
        part: PartIx,
        life: SlotLife,
        until: Until,
    ) -> io::Result<bool> {
        let found = self.connecting(io, part, life, until)?;
        let end = self.parts.get(&part).map_or(Offset::ZERO, |it| it.end);
        let next = found.last().map_or(end, Header::next_offset);
        let bytes: usize = found.iter().map(|header| header.bytes).sum();
        let at = self.table.row(life.slot).used + bytes as u32;
        if next != until.offset || until.at.is_some_and(|wanted| wanted != at) {
            return Ok(false);
        }
        self.add(key, part, life, &found);
        Ok(true)
    }

    /// The walk has come to a hole.
    pub(super) fn hole(&mut self, hole: Hole) {
        self.lost.doubtful.extend(self.parts.keys());
        if hole.last && self.site.last() > 0 {
            // Only a meta disk has one.
            self.lost.site.get_or_insert(self.site.last() + 1);
        }
        self.lost.holes.push(hole);
    }

    /// Whether groups are missing from the ring.
    pub(super) const fn holes(&self) -> bool {
        !self.lost.holes.is_empty()
    }

    /// Behind the last record: what replicas in doubt give. `seq` is the next group's.
    pub(super) fn salvage_doubtful<I: Io<File = F>>(&mut self, io: &I, seq: u64) -> io::Result<()> {
        for part in std::mem::take(&mut self.lost.doubtful) {
            let Some(it) = self.parts.get(&part).filter(|it| it.hole.is_none()) else {
                continue;
            };
            let slot = it.extents.back().copied();
            let open = slot.filter(|slot| self.table.row(*slot).state == SlotState::Open);
            if let Some(slot) = open {
                let life = SlotLife {
                    slot,
                    generation: self.table.row(slot).generation,
                };
                let all = Until {
                    at: None,
                    offset: UNKNOWN_END,
                };
                let found = self.connecting(io, part, life, all)?;
                self.add((seq, 0), part, life, &found);
            }
            if let Some(it) = self.parts.get_mut(&part) {
                it.hole = Some((it.end, UNKNOWN_END));
            }
        }
        Ok(())
    }

    /// Why the disk must not be written to before a person has seen it: the first hole, unless all it can have cost is
    /// known by replica, or saved. What the device failed to give it may give another time.
    pub(super) fn hole_to_accept(&self) -> Option<OpenError> {
        let Hole { seq, at, why, .. } = self.lost.holes.first()?;
        let ends = self.lost.holes.iter().any(|it| it.last);
        let may_return = self.lost.holes.iter().any(|it| it.unreadable)
            && self.parts.values().any(|it| it.hole.is_some());
        let nameless = self.lost.site.is_some() || !self.lost.unknown.is_empty();
        (ends || may_return || nameless).then(|| OpenError::RingHole {
            seq: *seq,
            at: *at,
            why: why.clone(),
        })
    }

    /// Batches of an open extent behind its last known one, each beginning where the one before it ends, up to `until`.
    fn connecting<I: Io<File = F>>(
        &self,
        io: &I,
        part: PartIx,
        life: SlotLife,
        until: Until,
    ) -> io::Result<Vec<Header>> {
        let row = *self.table.row(life.slot);
        let end = self.parts.get(&part).map_or(Offset::ZERO, |it| it.end);
        let limit = until.at.unwrap_or(row.class.bytes() as u32);
        let mut found: Vec<Header> = Vec::new();
        let file = match io.open(Name::Extent(life.slot), Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        };
        let (mut at, mut next, mut epoch) = (row.used, end, row.last_epoch);
        let mut bytes = Vec::new();
        while at < limit && next < until.offset {
            // A place that can't be read holds nothing to be saved.
            let Ok(Some(header)) = read_batch(io, &file, at, limit, &mut bytes) else {
                break;
            };
            if header.base_offset != next || header.leader_epoch < epoch {
                break;
            }
            (next, epoch) = (header.next_offset(), header.leader_epoch);
            at += header.bytes as u32;
            found.push(header);
        }
        Ok(found)
    }

    /// Takes batches that [`Self::connecting`] found.
    fn add(&mut self, key: (u64, usize), part: PartIx, life: SlotLife, found: &[Header]) {
        let from = self.table.row(life.slot).used;
        for header in found {
            let mut entry = Entry::new(EntryType::Append);
            entry.len = header.bytes as u32;
            entry.base = header.base_offset;
            entry.span = header.next_offset().since(header.base_offset) as u32;
            entry.epoch = header.leader_epoch;
            entry.max_ts = header.max_timestamp;
            appended(self.table.row_mut(life.slot), &entry, WallMs(0));
            if let Some(it) = self.parts.get_mut(&part) {
                it.appended(entry.epoch, entry.base, entry.next_offset(), Offset::ZERO);
            }
        }
        self.lost.batches += found.len() as u64;
        self.fills.push(Fill {
            before: key,
            part,
            life,
            from,
            to: self.table.row(life.slot).used,
            opened: None,
        });
    }

    fn read_header<I: Io<File = F>>(
        &self,
        io: &I,
        life: SlotLife,
    ) -> io::Result<Option<ExtentHeader>> {
        let file = match io.open(Name::Extent(life.slot), Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut page = [0; PAGE];
        let Ok(len) = io.pread(&file, &mut page, 0) else {
            return Ok(None);
        };
        let header = ExtentHeader::decode(&page[..len]).ok();
        Ok(header.filter(|it| {
            it.slot == life.slot && it.generation == life.generation && it.disk == self.disk
        }))
    }
}
