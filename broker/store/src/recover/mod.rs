//! How a disk is made, and how it comes back: superblock, checkpoint, ring.
//!
//! The journal says where every log ends; extents are never searched for an end. Nothing of the ring is changed before
//! the replay is through, and what the replay writes into extents are the bytes that were there or should be: it may be
//! cut and begun again.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::ckpt::Checkpoints;
use crate::disk::Disk;
use crate::format::Fault;
use crate::format::journal::{Entry, EntryType};
use crate::format::row::SlotState;
use crate::format::superblock::DiskState;
use crate::group::Group;
use crate::io::{FileSystem, Io, Mode, Unwritten};
use crate::ops::GROUP_BYTES_MAX;
use crate::phase::{self, Phase};
use crate::publish::Change;
use crate::ring::Ring;
use crate::stats::Stats;
use crate::sweep::Sweep;
use crate::view::View;
use crate::{Config, PartIx};

mod adopt;
mod data;
mod found;
mod inspect;
mod load;
mod make;
mod replay;
mod salvage;
mod scan;

pub use adopt::{Adoption, accept, adopt};
pub use found::{Note, Recovered, Replica, UNKNOWN_END};
pub use inspect::{Held, Inspection, inspect};
pub(crate) use inspect::{Read, Stopped};
pub use load::read_superblock;
pub(crate) use load::{Loaded, load_checkpoint, read_checkpoint};
use load::{mark_suspect, site_of};
pub use make::{JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN};
pub(crate) use replay::Replay;
use scan::{RingReader, Walk};

/// Why a disk can't be used as it is.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Neither superblock can be read: not one of ours, or not formatted.
    #[error("no superblock: {a}; {b}")]
    NoSuperblock {
        /// What is wrong with `SUPER.a`.
        a: String,
        /// What is wrong with `SUPER.b`.
        b: String,
    },
    /// A newer release wrote it, or a part that must be understood is unknown.
    #[error("{0}")]
    Newer(Fault),
    /// Neither checkpoint can be read.
    #[error("no checkpoint: {a}; {b}")]
    NoCheckpoint {
        /// What is wrong with `ckpt.a`.
        a: String,
        /// What is wrong with `ckpt.b`.
        b: String,
    },
    /// The ring is damaged where it is needed, not torn at its end, and there are peers: the disk must neither vote nor
    /// count. It is marked SUSPECT.
    #[error("the journal is rotten at group {seq}: {why}; the disk is SUSPECT")]
    Suspect {
        /// The first group that is missing.
        seq: u64,
        /// How that was seen.
        why: String,
    },
    /// Groups are missing from the ring, and it is not known that nothing acknowledged went with them. Nothing was written:
    /// unreadable sectors may read again after a power cycle, and then all is there. `accept` goes on without them.
    #[error(
        "the journal can't be read at byte {at}, where group {seq} belongs ({why}): what it held may be lost"
    )]
    RingHole {
        /// The first group that is missing.
        seq: u64,
        /// Where in the ring it belongs.
        at: u64,
        /// How that was seen.
        why: String,
    },
    /// The ring holds no group of this disk, which was in use: a device of another disk was named, or a blank one. Going on
    /// would lose what was acknowledged since the checkpoint. Nothing was written.
    #[error("the journal holds nothing of this disk: it is another disk's, or blank")]
    StrangeJournal,
    /// Checkpoint and ring contradict each other although their checksums hold.
    #[error("group {seq} does not fit what came before: {what}")]
    Inconsistent {
        /// Where.
        seq: u64,
        /// How.
        what: String,
    },
    /// The configuration is not possible.
    #[error("{0}")]
    Config(String),
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl<I: Io> Disk<I> {
    /// Opens a disk: replays its ring and writes a BOOT record. What it holds is then known and durable, and it takes
    /// operations. Pins of an earlier view of the same disk must be gone.
    pub fn open(io: I, config: Config) -> Result<(Self, Recovered), OpenError> {
        let _phase = phase::enter(Phase::Recovery);
        let (superblock, superblock_at) = read_superblock(&io)?;
        let mut notes = Vec::new();
        if io.file_system() == FileSystem::Other {
            notes.push(Note::SyncsEachExtent);
        }
        let journal = say("opening the journal", io.open_journal())?;
        let bytes = say("the journal's length", io.bytes(&journal))?;
        if bytes < superblock.journal_bytes {
            return Err(OpenError::Config(format!(
                "the journal has {bytes} B, the superblock says {}: another device, or a cut file",
                superblock.journal_bytes
            )));
        }
        match say("the journal's blocks", io.unwritten(&journal))? {
            Unwritten::None => {}
            Unwritten::Some => notes.push(Note::JournalUnwritten),
            Unwritten::Unknown => notes.push(Note::JournalUnknown),
        }
        let loaded = load_checkpoint(&io, &superblock, Mode::Write)?;
        let mut replay = Replay::new(loaded.rows, &loaded.body, &loaded.header);
        let reader = RingReader::new(&io, &journal, superblock.journal_bytes, superblock.journal);
        let mut walk = Walk::new(reader, loaded.header.boundary + 1, loaded.header.ring_pos);
        let clean = superblock.clean_seq;
        let end = replay.metadata(&io, &mut walk, clean, config.alone, &mut notes);
        walk.of_this_disk(&superblock)?;
        let end = match end {
            Err(OpenError::Suspect { seq, why }) => {
                mark_suspect(&io, superblock, superblock_at)?;
                return Err(OpenError::Suspect { seq, why });
            }
            end => end?,
        };
        if let Some(hole) = replay.hole_to_accept()
            && !config.accept_holes
        {
            // Before anything is written: what is missing may come back.
            return Err(hole);
        }
        // Replicas whose making was lost must not be made anew, be it at a later start.
        let suspect = replay.holes() && superblock.state == DiskState::Member;
        let boundary = loaded.header.boundary;
        let groups = end.seq - 1 - boundary;
        replay.data(&io, &mut walk, loaded.body.partitions)?;
        drop(walk);

        let nonce = say("random bytes", io.random())?;
        let keep = loaded.header.ring_pos;
        let ring = Ring {
            file: journal,
            bytes: superblock.journal_bytes,
            uuid: superblock.journal,
            seq: end.seq,
            keep_seq: boundary + 1,
            head: keep + end.advance,
            keep,
            boot_nonce: u64::from_le_bytes(nonce[..8].try_into().expect("eight bytes")),
        };
        let group_bytes_max = config
            .group_bytes_max
            .min(GROUP_BYTES_MAX)
            .min((superblock.journal_bytes / 4) as usize);
        // Two circles take 90 % of the ring, and data waits at 95 %: larger groups would wait for the sweep.
        let group_bytes = group_bytes_max.min((superblock.journal_bytes / 16) as usize);
        let now = io.now();
        let io = Arc::new(io);
        let mut disk = Self {
            view: Arc::new(View::new(io.clone())),
            superblock,
            superblock_at,
            sweep: Sweep::new(keep, boundary),
            ring,
            table: replay.table,
            parts: replay.parts,
            next_part: replay.next_part,
            windows: replay.windows,
            site: replay.site,
            group: Group::new(group_bytes_max),
            backlog: std::collections::VecDeque::new(),
            changes: Vec::new(),
            dirty: replay.dirty,
            checkpoints: Checkpoints::new(loaded.newest, loaded.older, loaded.header.ckpt_seq),
            freeing: std::collections::VecDeque::new(),
            reserved: Vec::new(),
            stats: Stats::default(),
            group_bytes_max,
            group_bytes,
            untimed: true,
            last_group: now,
            last_seal_check: now,
            failed: false,
            stopped: false,
            config,
            io,
        };
        disk.queue_freeing();
        disk.begin(clean != 0, suspect)?;
        let recovered = Recovered {
            superblock: disk.superblock.clone(),
            clean: clean != 0,
            replicas: disk
                .parts
                .iter()
                .map(|(part, it)| Replica::of(*part, it))
                .collect(),
            next_part: PartIx(disk.next_part),
            windows: disk.windows.clone(),
            hard_state: (disk.site.log.term, disk.site.log.vote),
            snapshot: disk.site.log.snapshot.clone(),
            entries: disk.site.log.entries.clone(),
            groups,
            bytes: end.advance,
            notes,
        };
        Ok((disk, recovered))
    }

    /// The first record of a run, and what the end of the last one left undone.
    fn begin(&mut self, was_clean: bool, suspect: bool) -> Result<(), OpenError> {
        if self.config.accept_holes {
            self.parts.values_mut().for_each(|it| it.hole = None);
        }
        let parts: Vec<PartIx> = self.parts.keys().copied().collect();
        for part in parts {
            let it = &self.parts[&part];
            let below = it.extents.iter().take_while(|slot| {
                let row = self.table.row(**slot);
                row.state == SlotState::Sealed && row.last < it.log_start
            });
            let below: Vec<u32> = below.copied().collect();
            for slot in below {
                // Its LOG_START is durable, its EXT_FREE was not.
                self.backlog
                    .push_back(self.slot_entry(EntryType::ExtFree, part, slot));
                self.table.row_mut(slot).state = SlotState::Freeing;
                self.dirty.forget(slot);
                let it = self.parts.get_mut(&part).expect("listed above");
                it.extents.pop_front();
            }
        }
        if suspect {
            self.superblock.state = DiskState::Suspect;
        }
        if was_clean || suspect {
            // Before BOOT: a record behind the CLEAN one would else look like rot.
            self.superblock.clean_seq = 0;
            say("the superblock's write", self.write_superblock())?;
        }
        if self.ring.used() > self.ring.bytes / 2 || self.config.accept_holes {
            self.sweep.wanted = true;
        }
        self.group.begin();
        let mut entry = Entry::new(EntryType::Boot);
        entry.aux = self.ring.boot_nonce;
        self.group.push(entry);
        let now = self.io.now();
        say("the BOOT record", self.finish(None, now).map(|_| ()))?;
        for (part, it) in &self.parts {
            self.changes.push(Change::Recovered {
                part: *part,
                id: it.id,
                log_start: it.log_start,
                extents: it
                    .extents
                    .iter()
                    .map(|slot| (*slot, *self.table.row(*slot)))
                    .collect(),
                open: it
                    .open
                    .as_ref()
                    .map(|open| (open.life, open.file.clone(), open.index.clone())),
            });
        }
        self.parts
            .values_mut()
            .filter_map(|it| it.open.as_mut())
            .for_each(|open| open.published = open.index.len());
        self.publish();
        Ok(())
    }
}

pub(super) fn say<T>(what: &'static str, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Io { what, source })
}
