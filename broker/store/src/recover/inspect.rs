//! What a stopped disk holds, read without changing a byte of it: for `verify`, for listings before a recovery or an
//! adoption. A rotten ring is read as far as a salvage would take it, and the notes say so.

use model::{Offset, Term};

use super::replay::{End, Replay};
use super::scan::{RingReader, Walk};
use super::{Loaded, Note, OpenError, Replica, UNKNOWN_END, load_checkpoint, read_superblock, say};
use crate::PartIx;
use crate::format::checkpoint::{Partition, SiteEntry, SiteSnapshot};
use crate::format::journal::Record;
use crate::format::row::{Row, SlotState};
use crate::format::superblock::Superblock;
use crate::io::{Io, Mode, Name};

/// See [`inspect`].
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What the disk is.
    pub superblock: Superblock,
    /// It was left in order.
    pub clean: bool,
    /// Its replicas, by number.
    pub replicas: Vec<Held>,
    /// No replica ever had this number on this disk.
    pub next_part: PartIx,
    /// Highest term the site log has seen, and the vote in it.
    pub hard_state: (Term, Option<model::NodeId>),
    /// The site log's snapshot.
    pub snapshot: Option<SiteSnapshot>,
    /// Entries behind it, without a hole.
    pub entries: Vec<SiteEntry>,
    /// Groups behind the checkpoint.
    pub groups: u64,
    /// Ring bytes of these.
    pub bytes: u64,
    /// What a rotten ring lost, among others.
    pub notes: Vec<Note>,
}

/// A replica, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The replica; `hole` says what of it is lost.
    pub replica: Replica,
    /// Its extents.
    pub extents: u64,
    /// Bytes of batches in them.
    pub bytes: u64,
}

impl Held {
    /// Offsets that are lost unless another copy has them: from where to behind what, if that is known.
    #[must_use]
    pub fn lost(&self) -> Option<(Offset, Option<Offset>)> {
        let (from, to) = self.replica.hole?;
        Some((from, (to != UNKNOWN_END).then_some(to)))
    }
}

/// Says what a stopped disk holds, as a recovery would find it; a rotten ring is read around. Nothing is written.
pub fn inspect<I: Io>(io: &I) -> Result<Inspection, OpenError> {
    let (superblock, _) = read_superblock(io)?;
    let mut stopped = Stopped::load(io, superblock)?;
    let journal = say("opening the journal", io.open(Name::Journal, Mode::Read))?;
    let read = stopped.read(io, &journal)?;
    let Read { replay, end, .. } = &read;
    let replicas = replay.parts.iter().map(|(part, it)| Held {
        replica: Replica::of(*part, it),
        extents: it.extents.len() as u64,
        bytes: it
            .extents
            .iter()
            .map(|slot| {
                u64::from(replay.table.row(*slot).used) - u64::from(crate::format::extent::DATA_AT)
            })
            .sum(),
    });
    Ok(Inspection {
        clean: stopped.superblock.clean_seq != 0,
        superblock: stopped.superblock.clone(),
        replicas: replicas.collect(),
        next_part: PartIx(replay.next_part),
        hard_state: (replay.site.log.term, replay.site.log.vote),
        snapshot: replay.site.log.snapshot.clone(),
        entries: replay.site.log.entries.clone(),
        groups: end.seq - 1 - stopped.boundary,
        bytes: end.advance,
        notes: read.notes,
    })
}

/// Superblock and newest checkpoint of a stopped disk.
pub(crate) struct Stopped {
    pub(crate) superblock: Superblock,
    /// The checkpoint's S.
    pub(crate) boundary: u64,
    pub(crate) at: crate::io::Copy,
    /// As of S.
    pub(crate) rows: Vec<Row>,
    header: crate::format::checkpoint::CheckpointHeader,
    body: crate::format::checkpoint::Body,
}

/// A stopped disk after the replay's first pass.
pub(crate) struct Read<'a, I: Io> {
    pub(crate) replay: Replay<I::File>,
    pub(crate) end: End,
    pub(crate) notes: Vec<Note>,
    walk: Walk<'a, I>,
}

impl Stopped {
    pub(crate) fn load<I: Io>(io: &I, superblock: Superblock) -> Result<Self, OpenError> {
        let Loaded {
            header,
            rows,
            body,
            newest,
            ..
        } = load_checkpoint(io, &superblock, Mode::Read)?;
        Ok(Self {
            superblock,
            boundary: header.boundary,
            at: newest.0,
            rows,
            header,
            body,
        })
    }

    /// The checkpoint's partitions, with their producer windows.
    pub(crate) fn partitions(&self) -> &[Partition] {
        &self.body.partitions
    }

    /// Whether an extent was in use at S, and as what.
    pub(crate) fn row_at_boundary(&self, slot: u32, generation: u32) -> Option<&Row> {
        self.rows.get(slot as usize).filter(|row| {
            row.generation == generation && matches!(row.state, SlotState::Open | SlotState::Sealed)
        })
    }

    /// Walks the ring from S on.
    pub(crate) fn read<'a, I: Io>(
        &mut self,
        io: &'a I,
        journal: &'a I::File,
    ) -> Result<Read<'a, I>, OpenError> {
        let bytes = say("the journal's length", io.bytes(journal))?;
        if bytes < self.superblock.journal_bytes {
            return Err(OpenError::Config(format!(
                "the journal has {bytes} B, the superblock says {}: another device, or a cut file",
                self.superblock.journal_bytes
            )));
        }
        let mut replay = Replay::new(self.rows.clone(), &self.body, &self.header);
        let reader = RingReader::new(
            io,
            journal,
            self.superblock.journal_bytes,
            self.superblock.journal,
        );
        let mut walk = Walk::new(reader, self.boundary + 1, self.header.ring_pos);
        let mut notes = Vec::new();
        let end = replay.metadata(io, &mut walk, self.superblock.clean_seq, true, &mut notes)?;
        walk.of_this_disk(&self.superblock)?;
        Ok(Read {
            replay,
            end,
            notes,
            walk,
        })
    }
}

impl<I: Io> Read<'_, I> {
    /// Every record behind the checkpoint, in order.
    pub(crate) fn records(
        &mut self,
        each: impl FnMut(Record<'_>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        self.walk.again(each)
    }
}
