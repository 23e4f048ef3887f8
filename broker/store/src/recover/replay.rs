//! The replay in two passes over the ring.
//!
//! The first takes the metadata to the ring's end: which extents live, where logs begin and end, epochs, the site log. The
//! second (`data`) writes the batches of those extents that live at the end, and feeds indexes and windows. One pass would
//! refill a slot that was freed, zeroed and opened again. Windows are fed from every batch that no later TRUNCATE cut,
//! those of freed extents included.

use std::collections::BTreeSet;

use model::window::Windows;
use model::{DiskUuid, NodeId, Offset, PartitionIndex, Term, TopicId, TopicPartition, WallMs};

use super::salvage::{Fill, Hole, Lost};
use super::scan::{Step, Walk};
use super::{Note, OpenError, say};
use crate::alloc::Table;
use crate::dirty::Dirty;
use crate::format::Le;
use crate::format::checkpoint::{Body, CheckpointHeader};
use crate::format::extent::{DATA_AT, SlotLife};
use crate::format::journal::{self, Entry, EntryType, Record};
use crate::format::row::{ROW_BYTES, Row, SlotState};
use crate::io::Io;
use crate::mutation::{Mutation, is};
use crate::parts::{Part, Parts, Site};
use crate::{Class, PartIx};

/// Where the ring ended.
pub(crate) struct End {
    /// Of the next group.
    pub(super) seq: u64,
    /// Ring bytes from the checkpoint's boundary.
    pub(super) advance: u64,
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
    pub(super) open: Vec<(crate::format::checkpoint::OpenExtent, Row)>,
    /// Extents that a TRUNCATE cut: their index and sums are made again.
    pub(super) cut: BTreeSet<SlotLife>,
    /// Extents that a compactor put in place: their files were synced before.
    pub(super) swapped: BTreeSet<SlotLife>,
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
                self.leaving(entry)?.state = SlotState::Freeing;
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
        self.row(entry, &[SlotState::Open, SlotState::Sealed])
    }

    /// The row of an extent that goes, if it is not known to go already: by a LOG_START beyond the log's end, or by its
    /// replica's PART_DEL or a checkpoint that came before this record, for which a group had no room.
    fn leaving(&mut self, entry: &Entry) -> Result<&mut Row, String> {
        self.row(
            entry,
            &[SlotState::Open, SlotState::Sealed, SlotState::Freeing],
        )
    }

    fn row(&mut self, entry: &Entry, states: &[SlotState]) -> Result<&mut Row, String> {
        let SlotLife { slot, generation } = entry.life;
        let row = self.table.rows.get_mut(slot as usize);
        row.filter(|row| {
            row.generation == generation && row.part == entry.part && states.contains(&row.state)
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
        if !self.table.may_name(entry.life.slot) {
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
        if new.is_some() && !self.table.may_name(entry.life.slot) {
            return Err(format!("EXT_SWAP to slot {}", entry.life.slot).into());
        }
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
