//! How a disk is made, and how it comes back: superblock, checkpoint, ring.
//!
//! The journal says where every log ends; extents are never searched for an end. Nothing of the ring is changed before
//! the replay is through, and what the replay writes into extents are the bytes that were there or should be: it may be
//! cut and begun again.

use std::fmt;
use std::io;
use std::sync::Arc;

use model::window::Windows;
use model::{DiskUuid, Incarnation, LeaderEpoch, NodeId, Offset, Term, TopicPartition, Uuid};
use thiserror::Error;

use crate::ckpt::Checkpoints;
use crate::disk::Disk;
use crate::extent_io::read_exact;
use crate::format::checkpoint::{Body, BodyWriter, CheckpointHeader, SiteEntry, SiteSnapshot};
use crate::format::journal::{Entry, EntryType};
use crate::format::row::{ROW_BYTES, Row, SlotState};
use crate::format::superblock::{DiskState, Superblock};
use crate::format::{Fault, PAGE};
use crate::group::Group;
use crate::io::{Copy, FileSystem, Io, Mode, Name, Unwritten};
use crate::ops::GROUP_BYTES_MAX;
use crate::parts::{Part, Site};
use crate::phase::{self, Phase};
use crate::publish::Change;
use crate::ring::Ring;
use crate::stats::Stats;
use crate::sweep::Sweep;
use crate::view::View;
use crate::{Config, FormatConfig, PartIx};

mod adopt;
mod inspect;
mod replay;
mod salvage;
mod scan;

pub use adopt::{Adoption, accept, adopt};
pub use inspect::{Held, Inspection, inspect};
pub(crate) use inspect::{Read, Stopped};
pub(crate) use replay::Replay;
use scan::{RingReader, Walk};

/// Shortest ring: what a witness needs.
pub const JOURNAL_BYTES_MIN: u64 = 256 << 10;
/// Longest ring.
pub const JOURNAL_BYTES_MAX: u64 = 4 << 30;
/// Blocks of a checkpoint file that are written when the disk is made; it grows with the disk's extents.
const CHECKPOINT_BYTES: usize = 256 << 10;
/// The ring is zeroed in pieces of this.
const ZERO_BYTES: usize = 1 << 20;

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

/// A replica as a disk holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its number on the disk.
    pub part: PartIx,
    /// Which partition it is.
    pub id: TopicPartition,
    /// First offset readers may ask for.
    pub log_start: Offset,
    /// Offset behind the last batch.
    pub end: Offset,
    /// A lower bound.
    pub high_watermark: Offset,
    /// Highest epoch whose EPOCH record is durable.
    pub accepted_epoch: LeaderEpoch,
    /// Where each epoch began, rising in both.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Offsets that a rotten ring lost: first, and behind the last that is known of, or [`UNKNOWN_END`]. The replica takes
    /// no appends until the disk is opened with `accept_holes`.
    pub hole: Option<(Offset, Offset)>,
}

/// Behind a hole that ends nobody knows where: the ring's last groups are gone.
pub const UNKNOWN_END: Offset = Offset(i64::MAX);

impl Replica {
    pub(crate) fn of<F>(part: PartIx, it: &Part<F>) -> Self {
        Self {
            part,
            id: it.id,
            log_start: it.log_start,
            end: it.end,
            high_watermark: it.high_watermark,
            accepted_epoch: it.accepted_epoch,
            epochs: it.epochs.clone(),
            hole: it.hole,
        }
    }
}

/// Something to be said once at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Neither ext4 with a journal nor XFS: each extent is synced by itself, which is slower.
    SyncsEachExtent,
    /// FIEMAP can't say whether the ring's blocks are written.
    JournalUnknown,
    /// Some of the ring's blocks are unwritten: each group costs the file system's log too.
    JournalUnwritten,
    /// The ring was rotten and what could be saved was.
    Salvaged {
        /// First missing group.
        seq: u64,
        /// The first one that was found behind it; `None` if there was none.
        next: Option<u64>,
        /// Where in the ring it belongs.
        at: u64,
        /// Batches taken from extents.
        batches: u64,
    },
    /// Entries of the site log are missing from this index on.
    SiteHole(u64),
    /// Records that name a replica nobody knows, because its PART_NEW was lost.
    UnknownReplicas(Vec<PartIx>),
}

impl Note {
    /// Whether something that was written is or may be lost; else it is about speed.
    #[must_use]
    pub const fn loss(&self) -> bool {
        match self {
            Self::Salvaged { .. } | Self::SiteHole(_) | Self::UnknownReplicas(_) => true,
            Self::SyncsEachExtent | Self::JournalUnknown | Self::JournalUnwritten => false,
        }
    }
}

/// For people.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SyncsEachExtent => f.write_str(
                "the file system is neither XFS nor ext4 with a journal: each extent is synced by itself, which is slower",
            ),
            Self::JournalUnknown => f.write_str(
                "the file system can't say whether the journal's blocks are written; unwritten ones make each group slower",
            ),
            Self::JournalUnwritten => f.write_str(
                "some of the journal's blocks are unwritten: groups there cost the file system's log too",
            ),
            Self::Salvaged {
                seq,
                next,
                at,
                batches,
            } => {
                write!(f, "the journal is rotten at group {seq}, byte {at}: ")?;
                match next {
                    Some(next) => write!(f, "group {next} is the next one that can be read")?,
                    None => f.write_str(
                        "nothing could be read behind it; its sectors may read again after a power cycle, and then \
                         nothing is lost",
                    )?,
                }
                write!(f, "; {batches} batches were found in extents")
            }
            Self::SiteHole(index) => write!(
                f,
                "entries of the site log are lost from index {index} on: topics or configs made then may be missing"
            ),
            Self::UnknownReplicas(parts) => write!(
                f,
                "{} replicas are named whose making was lost: {parts:?}",
                parts.len()
            ),
        }
    }
}

/// What an opened disk holds.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What the disk is.
    pub superblock: Superblock,
    /// It was left in order.
    pub clean: bool,
    /// Its replicas, by number.
    pub replicas: Vec<Replica>,
    /// No replica ever had this number on this disk.
    pub next_part: PartIx,
    /// Their producer windows.
    pub windows: Windows,
    /// Highest term the site log has seen, and the vote in it.
    pub hard_state: (Term, Option<NodeId>),
    /// The site log's snapshot.
    pub snapshot: Option<SiteSnapshot>,
    /// Entries behind it, without a hole.
    pub entries: Vec<SiteEntry>,
    /// Groups replayed.
    pub groups: u64,
    /// Ring bytes of these.
    pub bytes: u64,
    /// What a person should know.
    pub notes: Vec<Note>,
}

impl Recovered {
    /// What is known of a disk that was not opened.
    #[must_use]
    pub fn nothing(superblock: Superblock) -> Self {
        Self {
            superblock,
            clean: false,
            replicas: Vec::new(),
            next_part: PartIx(0),
            windows: Windows::default(),
            hard_state: (Term::default(), None),
            snapshot: None,
            entries: Vec::new(),
            groups: 0,
            bytes: 0,
            notes: Vec::new(),
        }
    }

    /// Groups were missing from its ring, now or at an earlier start, and nobody has accepted that yet: replicas that it
    /// lacks may have been lost with them.
    #[must_use]
    pub fn suspect(&self) -> bool {
        self.superblock.state == DiskState::Suspect
    }
}

impl<I: Io> Disk<I> {
    /// Makes a blank disk: zeroes the ring, writes checkpoints and superblocks, the latter last, so that a disk that was
    /// cut meanwhile is still none. Whatever was there is lost.
    pub fn format(io: &I, config: &FormatConfig) -> Result<Superblock, OpenError> {
        let _phase = phase::enter(Phase::Format);
        let journal_bytes = config.journal_bytes;
        if !journal_bytes.is_multiple_of(PAGE as u64)
            || !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&journal_bytes)
        {
            return Err(OpenError::Config(format!(
                "a journal of {journal_bytes} B: it must be whole pages of 4 KiB, {} KiB to 4 GiB",
                JOURNAL_BYTES_MIN >> 10
            )));
        }
        let uuid = || -> Result<Uuid, OpenError> {
            let mut bytes = say("random bytes", io.random())?;
            // RFC 9562, version 4.
            bytes[6] = bytes[6] & 0x0f | 0x40;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            Ok(Uuid(bytes))
        };
        let superblock = Superblock {
            meta: config.meta,
            journal_apart: config.journal_apart,
            site: config.site,
            incarnation: match config.incarnation {
                Some(it) => it,
                None => Incarnation(uuid()?),
            },
            disk: DiskUuid(uuid()?),
            node: config.node,
            journal_bytes,
            journal: uuid()?,
            sb_seq: 1,
            clean_seq: 0,
            state: match config.replacement {
                true => DiskState::Replacement,
                false => DiskState::Fresh,
            },
        };
        say("formatting", make(io, &superblock))?;
        Ok(superblock)
    }

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

fn make<I: Io>(io: &I, superblock: &Superblock) -> io::Result<()> {
    // Whatever disk this was, it is none from here on.
    for copy in Copy::BOTH {
        let file = io.open(Name::Super(copy), Mode::Create)?;
        io.pwrite(&file, &[0; PAGE], 0)?;
        io.fsync(&file)?;
    }
    let journal = io.open(Name::Journal, Mode::Create)?;
    let zeros = vec![0; ZERO_BYTES];
    let mut at = 0;
    while at < superblock.journal_bytes {
        let len = (superblock.journal_bytes - at).min(ZERO_BYTES as u64);
        io.pwrite(&journal, &zeros[..len as usize], at)?;
        at += len;
    }
    io.fsync(&journal)?;
    let mut body = BodyWriter::default();
    for _ in ["next_part", "open extents", "partitions"] {
        body.word(0);
    }
    body.site(&crate::format::checkpoint::SiteLog::default());
    for copy in Copy::BOTH {
        let mut bytes = vec![0; CHECKPOINT_BYTES];
        if copy == Copy::A {
            let header = CheckpointHeader {
                disk: superblock.disk,
                ckpt_seq: 1,
                boundary: 0,
                ring_pos: 0,
                rows: 0,
                body_bytes: body.out.len() as u64,
                rows_crc: 0,
                body_crc: crc32c::crc32c(&body.out),
            };
            bytes[..PAGE].copy_from_slice(&header.encode());
            bytes[PAGE..PAGE + body.out.len()].copy_from_slice(&body.out);
        }
        let file = io.open(Name::Checkpoint(copy), Mode::Create)?;
        io.pwrite(&file, &bytes, 0)?;
        io.fsync(&file)?;
    }
    io.sync_directory(Name::Journal)?;
    io.sync_directory(Name::Super(Copy::A))?;
    for copy in Copy::BOTH {
        let file = io.open(Name::Super(copy), Mode::Write)?;
        io.pwrite(&file, &superblock.encode(), 0)?;
        io.fsync(&file)?;
    }
    Ok(())
}

/// The newest valid superblock, and which copy it is.
pub fn read_superblock<I: Io>(io: &I) -> Result<(Superblock, Copy), OpenError> {
    let read = |copy| -> Result<Superblock, Result<Fault, io::Error>> {
        let file = io.open(Name::Super(copy), Mode::Read).map_err(Err)?;
        let mut bytes = [0; PAGE];
        let len = io.pread(&file, &mut bytes, 0).map_err(Err)?;
        Superblock::decode(&bytes[..len]).map_err(Ok)
    };
    match (read(Copy::A), read(Copy::B)) {
        (Err(Ok(newer @ Fault::Newer { .. })), _) | (_, Err(Ok(newer @ Fault::Newer { .. }))) => {
            Err(OpenError::Newer(newer))
        }
        (Ok(a), Ok(b)) if b.sb_seq > a.sb_seq => Ok((b, Copy::B)),
        (Ok(a), _) => Ok((a, Copy::A)),
        (Err(_), Ok(b)) => Ok((b, Copy::B)),
        (Err(a), Err(b)) => {
            let text = |fault: Result<Fault, io::Error>| match fault {
                Ok(fault) => fault.to_string(),
                Err(error) => error.to_string(),
            };
            Err(OpenError::NoSuperblock {
                a: text(a),
                b: text(b),
            })
        }
    }
}

fn mark_suspect<I: Io>(io: &I, mut superblock: Superblock, at: Copy) -> Result<(), OpenError> {
    superblock.state = DiskState::Suspect;
    superblock.sb_seq += 1;
    let file = say(
        "the superblock",
        io.open(Name::Super(at.other()), Mode::Write),
    )?;
    let written = io.pwrite(&file, &superblock.encode(), 0);
    say(
        "the superblock's write",
        written.and_then(|()| io.fsync(&file)),
    )
}

/// A checkpoint as read.
pub(crate) struct Loaded<F> {
    pub(crate) header: CheckpointHeader,
    pub(crate) rows: Vec<Row>,
    pub(crate) body: Body,
    pub(crate) newest: (Copy, F),
    pub(crate) older: (Copy, F),
}

/// What one copy holds.
type Copied = (CheckpointHeader, Vec<Row>, Body);

/// The newest valid checkpoint.
pub(crate) fn load_checkpoint<I: Io>(
    io: &I,
    superblock: &Superblock,
    mode: Mode,
) -> Result<Loaded<I::File>, OpenError> {
    let open = |copy| say("a checkpoint", io.open(Name::Checkpoint(copy), mode));
    let (a, b) = (open(Copy::A)?, open(Copy::B)?);
    let read = |file: &I::File| -> Result<Copied, Result<Fault, io::Error>> {
        read_checkpoint(io, file, superblock.disk)
    };
    let (read_a, read_b) = (read(&a), read(&b));
    for fault in [&read_a, &read_b] {
        if let Err(Ok(newer @ (Fault::Newer { .. } | Fault::Unknown(_)))) = fault {
            return Err(OpenError::Newer(newer.clone()));
        }
    }
    let a_is_newer = match (&read_a, &read_b) {
        (Ok(a), Ok(b)) => a.0.ckpt_seq > b.0.ckpt_seq,
        (Ok(_), Err(_)) => true,
        (Err(_), Ok(_)) => false,
        (Err(a), Err(b)) => {
            let text = |fault: &Result<Fault, io::Error>| match fault {
                Ok(fault) => fault.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(OpenError::NoCheckpoint {
                a: text(a),
                b: text(b),
            });
        }
    };
    let (a, b) = ((Copy::A, a), (Copy::B, b));
    let (read, newest, older) = if a_is_newer {
        (read_a, a, b)
    } else {
        (read_b, b, a)
    };
    let Ok((header, rows, body)) = read else {
        unreachable!("the newer one was read")
    };
    Ok(Loaded {
        header,
        rows,
        body,
        newest,
        older,
    })
}

/// Reads and checks one copy.
pub(crate) fn read_checkpoint<I: Io>(
    io: &I,
    file: &I::File,
    disk: DiskUuid,
) -> Result<Copied, Result<Fault, io::Error>> {
    let mut page = [0; PAGE];
    let len = io.pread(file, &mut page, 0).map_err(Err)?;
    let bytes = io.bytes(file).map_err(Err)?;
    let header = CheckpointHeader::decode(&page[..len], bytes).map_err(Ok)?;
    if header.disk != disk {
        return Err(Ok(Fault::Field {
            what: "checkpoint",
            field: "disk_uuid",
            value: 0,
        }));
    }
    // Both lengths were checked against the file's.
    let mut rows = vec![0; header.rows_bytes() as usize];
    read_exact(io, file, &mut rows, PAGE as u64).map_err(Err)?;
    let body_at = PAGE as u64 + header.rows_bytes();
    let mut body = vec![0; header.body_bytes as usize];
    read_exact(io, file, &mut body, body_at).map_err(Err)?;
    let check = |what, claimed, bytes: &[u8]| {
        crate::format::check_crc(what, claimed, crc32c::crc32c(bytes)).map_err(Ok)
    };
    check("checkpoint rows", header.rows_crc, &rows)?;
    check("checkpoint body", header.body_crc, &body)?;
    let rows = rows
        .chunks_exact(ROW_BYTES)
        .take(header.rows as usize)
        .map(Row::decode)
        .collect::<Result<Vec<_>, _>>()
        .map_err(Ok)?;
    let body = Body::decode(&body).map_err(Ok)?;
    Ok((header, rows, body))
}

/// The site log as a checkpoint holds it.
fn site_of(body: &Body) -> Site {
    Site {
        log: body.site.clone(),
        fresh_snapshot: None,
    }
}
