//! What the shell asks of a disk's writer, and what it is told. Values only.

use std::collections::VecDeque;

use bytes::Bytes;
use model::{Incarnation, LeaderEpoch, NodeId, Offset, SiteUuid, Term, TopicPartition, WallMs};

use crate::format::extent::SlotLife;
use crate::{Class, PartIx};

/// Bytes of batches that one group takes: at 180 MB/s one write of 8 MiB takes 47 ms.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Entries of one group: their table is 64 KiB.
pub const GROUP_ENTRIES_MAX: usize = 1024;
/// Bytes of a group of control operations, which goes before waiting data: a vote costs one short write.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;

/// How a blank disk is made.
#[derive(Clone, Copy, Debug)]
pub struct FormatConfig {
    /// The node whose disk it will be.
    pub node: NodeId,
    /// The node's incarnation; `None` draws a new one, as for a node's meta disk.
    pub incarnation: Option<Incarnation>,
    /// Zero before the bootstrap.
    pub site: SiteUuid,
    /// The site log lies here.
    pub meta: bool,
    /// The disk takes another's place in a running site.
    pub replacement: bool,
    /// Length of the ring; a multiple of 4 KiB. 64 MiB on a laptop, 1 GiB by default, 4 GiB at most.
    pub journal_bytes: u64,
    /// The ring is a device of its own, `journal_bytes` long.
    pub journal_apart: bool,
}

/// How a disk is used.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of extents that may lie on this disk.
    pub use_bytes: u64,
    /// Keep files of each class ready. Without, they are made when needed and removed when freed.
    pub preallocate: bool,
    /// No peer holds these replicas: a rotten ring is salvaged instead of refused.
    pub alone: bool,
    /// What a rotten ring lost is accepted as lost: such partitions go on at their hole.
    pub accept_holes: bool,
    /// Batches not yet written out, beyond which the disk takes no more than it writes out: its share of ¼ RAM.
    pub dirty_bytes_max: u64,
    /// Bytes of batches of one operation: at most [`GROUP_BYTES_MAX`], and a quarter of the ring.
    pub group_bytes_max: usize,
}

impl Default for Config {
    /// A laptop's: no limit but the file system's, 256 MiB dirty.
    fn default() -> Self {
        Self {
            use_bytes: u64::MAX,
            preallocate: false,
            alone: true,
            accept_holes: false,
            dirty_bytes_max: 256 << 20,
            group_bytes_max: GROUP_BYTES_MAX,
        }
    }
}

/// One operation of a disk's queue. Those of one partition are done in the order of the queue.
#[derive(Clone, Debug)]
pub enum Op {
    /// A replica comes to this disk. `part` was never used here: take `Recovered::next_part` and count on.
    PartNew {
        /// Its number on this disk.
        part: PartIx,
        /// Which partition it is.
        id: TopicPartition,
    },
    /// A replica leaves this disk; its extents are freed once no reader holds them.
    PartDel {
        /// Whose.
        part: PartIx,
    },
    /// Batches.
    Append(Append),
    /// The replica accepted a leader epoch.
    Epoch {
        /// Whose.
        part: PartIx,
        /// The epoch; above every earlier one.
        epoch: LeaderEpoch,
        /// Where it starts; `None` on a follower, which learns it from the batches.
        start: Option<Offset>,
        /// It came from an unclean election.
        unclean: bool,
    },
    /// Offsets from `to` on go; answered with [`Outcome::Truncated`].
    Truncate {
        /// Whose.
        part: PartIx,
        /// The new end; inside a batch, the whole batch goes.
        to: Offset,
    },
    /// Offsets below go; sealed extents wholly below are freed.
    LogStart {
        /// Whose.
        part: PartIx,
        /// First offset kept; never falls.
        offset: Offset,
    },
    /// The site log's promise.
    HardState {
        /// Highest term seen.
        term: Term,
        /// Vote in it.
        vote: Option<NodeId>,
    },
    /// An entry of the site log. One at or below the last index cuts off what was there.
    SiteEntry {
        /// Where, from 1.
        index: u64,
        /// Term of the controller that wrote it.
        term: Term,
        /// What.
        bytes: Bytes,
    },
    /// The site log's state up to `index`. It goes into the next checkpoint, which `Committed::snapshot` or
    /// `Work::snapshot` report durable; the entries are kept until then.
    SiteSnapshot {
        /// Last entry in it.
        index: u64,
        /// That entry's term.
        term: Term,
        /// What the catalog wrote.
        bytes: Bytes,
    },
    /// What a topic's configuration means to a replica's extents. Kept in memory only.
    Settings {
        /// Whose.
        part: PartIx,
        /// What.
        settings: PartSettings,
    },
    /// Puts a compactor's extent in the place of others, in one record.
    Swap(Box<Swap>),
    /// After [`Outcome::NoRoom`] the replica's appends are refused until this comes: what was queued behind the refused
    /// one had offsets that do not connect any more.
    Resume {
        /// Whose.
        part: PartIx,
    },
    /// The last operation of an orderly stop.
    Clean,
}

/// Batches of one partition and one leader epoch.
#[derive(Clone, Debug)]
pub struct Append {
    /// Whose.
    pub part: PartIx,
    /// Offset of the first record; stamped into the batches, each behind the one before. The log's end, or behind it
    /// with `gap`.
    pub base_offset: Offset,
    /// Stamped into the batches.
    pub leader_epoch: LeaderEpoch,
    /// The high watermark known now, a lower bound kept in the journal.
    pub hw: Offset,
    /// Copied from a compacted log: batches keep their own base offsets, which may leave gaps.
    pub gap: bool,
    /// The broker's time for the batches, if the topic wants it.
    pub append_time: Option<WallMs>,
    /// One or more whole, checked batches, as received.
    pub batch: Bytes,
}

/// See [`Op::Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSettings {
    /// A class is at most a quarter of it. `u64::MAX`: no quota.
    pub quota_bytes: u64,
    /// An open extent is sealed when its first batch is older; −1: never.
    pub segment_ms: i64,
    /// An open extent is sealed when its last batch is older; −1: never.
    pub retention_ms: i64,
    /// No open extent is of a larger class unless one batch needs it: what is still open is not compacted.
    pub class_max: Class,
}

impl Default for PartSettings {
    /// Kafka's: no quota, a segment of 7 days, no retention by time.
    fn default() -> Self {
        Self {
            quota_bytes: u64::MAX,
            segment_ms: 7 * 24 * 3600 * 1000,
            retention_ms: -1,
            class_max: Class::Large,
        }
    }
}

impl PartSettings {
    /// The largest class of which the quota holds four, so that retention has something to let go of; the smallest where
    /// it holds none.
    pub(crate) fn class_in_quota(&self) -> Class {
        Class::ALL
            .into_iter()
            .rev()
            .find(|class| class.bytes() <= self.quota_bytes / 4)
            .unwrap_or(Class::Small)
    }
}

/// See [`Op::Swap`].
#[derive(Clone, Debug)]
pub struct Swap {
    /// Whose.
    pub part: PartIx,
    /// Sealed extents of the replica, neighbours in its log. If one is gone meanwhile, nothing is done
    /// ([`Outcome::Stale`]).
    pub old: Vec<SlotLife>,
    /// What takes their place; `None` if nothing of them is left.
    pub new: Option<NewExtent>,
}

/// A sealed extent that a compactor wrote and synced, header and tail included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewExtent {
    /// From `Disk::reserve`.
    pub life: SlotLife,
    /// As reserved.
    pub class: Class,
    /// Footer flags.
    pub flags: u16,
    /// File position behind the last batch.
    pub used: u32,
    /// Latest record time; −1 if there is none.
    pub max_ts: WallMs,
    /// Epoch of the first batch.
    pub first_epoch: LeaderEpoch,
    /// Epoch of the last batch.
    pub last_epoch: LeaderEpoch,
}

/// What became of an operation whose group is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and durable.
    Done,
    /// The log ends here now.
    Truncated {
        /// Its end.
        end: Offset,
    },
    /// An append that found no room for a new extent, or an operation behind one that counts on it: nothing was done. See
    /// [`Op::Resume`].
    NoRoom,
    /// A swap whose old extents, or whose replica, are gone: nothing was done, the new extent was let go.
    Stale,
    /// The replica is not on this disk any more, or waits for its hole to be accepted: nothing was done.
    NoReplica,
    /// The disk failed in this group: whether it reached the medium is unknown.
    Failed,
}

/// Operations that wait for a disk, each with what its owner wants to know it by.
#[derive(Debug)]
pub struct Queue<T> {
    pub(crate) ops: VecDeque<(Op, T)>,
    /// Those that go first.
    pub(crate) urgent: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            ops: VecDeque::new(),
            urgent: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Puts an operation behind the others. The caller bounds how many there are.
    pub fn push(&mut self, op: Op, tag: T) {
        self.urgent += usize::from(op.urgent());
        self.ops.push_back((op, tag));
    }

    /// Operations waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Takes all out, in order: after the disk failed.
    pub fn drain(&mut self) -> impl Iterator<Item = (Op, T)> + '_ {
        self.urgent = 0;
        self.ops.drain(..)
    }
}

impl Op {
    /// Whether it goes before other partitions' batches: leaders, votes and the site's metadata wait for these. PART_NEW is
    /// among them so that the numbers of replicas come in order.
    pub(crate) const fn urgent(&self) -> bool {
        matches!(
            self,
            Self::Epoch { .. }
                | Self::HardState { .. }
                | Self::SiteEntry { .. }
                | Self::PartNew { .. }
        )
    }

    /// Whose operation it is, if it belongs to a replica.
    pub(crate) const fn part(&self) -> Option<PartIx> {
        match self {
            Self::PartNew { part, .. }
            | Self::PartDel { part }
            | Self::Epoch { part, .. }
            | Self::Truncate { part, .. }
            | Self::LogStart { part, .. }
            | Self::Settings { part, .. }
            | Self::Resume { part } => Some(*part),
            Self::Append(append) => Some(append.part),
            Self::Swap(_) => None,
            Self::HardState { .. }
            | Self::SiteEntry { .. }
            | Self::SiteSnapshot { .. }
            | Self::Clean => None,
        }
    }

    /// Payload bytes in a group.
    pub(crate) fn payload(&self) -> usize {
        match self {
            Self::Append(append) => append.batch.len(),
            Self::SiteEntry { bytes, .. } => bytes.len(),
            Self::PartNew { .. } => 20,
            Self::Swap(swap) => 64 + 8 * swap.old.len(),
            _ => 0,
        }
    }
}
