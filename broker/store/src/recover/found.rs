//! What an opened disk holds, and what there is to say of it.

use std::fmt;

use model::window::Windows;
use model::{LeaderEpoch, NodeId, Offset, Term, TopicPartition};

use crate::PartIx;
use crate::format::checkpoint::{SiteEntry, SiteSnapshot};
use crate::format::superblock::{DiskState, Superblock};
use crate::parts::Part;

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
