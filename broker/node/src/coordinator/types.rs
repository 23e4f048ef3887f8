//! What goes into the coordinator and what comes out of it.

use core::time::Duration;

use model::{Instant, LeaderEpoch, Offset, WallMs};

use crate::Ticket;
use crate::group::{GroupReply, GroupRequest};

/// Partitions of `__consumer_offsets`; fixed when a site is founded, as the hash depends on it.
pub const GROUP_PARTITIONS: u32 = 8;

/// Names an append of the coordinator, so that its fate finds its way back. Drawn here, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppendId(pub u64);

/// What the site says about groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `group.min.session.timeout.ms`.
    pub session_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`, the site's `join_delay`: what a first rebalance waits for further members.
    pub join_delay: Duration,
    /// `group.max.size`.
    pub members_max: usize,
    /// `offsets.retention.minutes`: how long offsets are kept once nobody uses them.
    pub offsets_retention: Duration,
    /// `offset.metadata.max.bytes`, in UTF-16 units as Kafka counts them.
    pub metadata_max: usize,
}

impl Default for Settings {
    /// Kafka's defaults; only the size of a group is bounded, by what its pool could hold anyway.
    fn default() -> Self {
        Self {
            session_ms_min: 6_000,
            session_ms_max: 30 * 60 * 1_000,
            join_delay: Duration::from_secs(3),
            members_max: 10_000,
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            metadata_max: 4_096,
        }
    }
}

/// A fact that the coordinator is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// This node leads the internal partition in this epoch. The shell now reads it from its start to a high watermark
    /// that has reached the epoch's start, tells each record with [`Input::Record`], then [`Input::Loaded`].
    Elected {
        /// Number of the partition of `__consumer_offsets`.
        partition: u32,
        /// The epoch; a newer one drops all that was known.
        epoch: LeaderEpoch,
    },
    /// A record of the partition, in the order of offsets. Ignored unless loading in exactly this epoch.
    Record {
        /// Whose.
        partition: u32,
        /// The epoch for which it was read.
        epoch: LeaderEpoch,
        /// Where it lies.
        offset: Offset,
        /// Kafka's key; unknown ones are ignored.
        key: Vec<u8>,
        /// Kafka's value; `None`: a tombstone.
        value: Option<Vec<u8>>,
    },
    /// All records were told.
    Loaded {
        /// Whose.
        partition: u32,
        /// The epoch for which they were read.
        epoch: LeaderEpoch,
    },
    /// Another node leads, or a newer epoch is known, or the disk is gone: all is dropped, all that waits is refused.
    Resigned {
        /// Which partition.
        partition: u32,
    },
    /// The node may serve until then.
    Lease {
        /// On the node's monotonic clock.
        until: Instant,
    },
    /// What time it is for people; `None` while that can't be trusted. Told at the start, on a change of trust, and
    /// every minute or so.
    Clock {
        /// The trusted time now.
        trusted: Option<WallMs>,
    },
    /// A client asks.
    Request {
        /// Names the answer.
        ticket: Ticket,
        /// What.
        request: Box<GroupRequest>,
    },
    /// The batch of an [`Effect::Append`] got its place in the log; told before a [`Input::Committed`] that covers it.
    Appended {
        /// Whose.
        partition: u32,
        /// Which.
        append: AppendId,
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// The partition's high watermark moved.
    Committed {
        /// Whose.
        partition: u32,
        /// Offset behind the last committed record.
        end: Offset,
    },
    /// The batch of an [`Effect::Append`] was refused, or nobody can say whether it will be stored. If it was
    /// [`Input::Appended`] before, it stays in line, as it may still commit.
    AppendFailed {
        /// Whose.
        partition: u32,
        /// Which.
        append: AppendId,
        /// Why.
        failure: AppendFailure,
    },
    /// A topic is gone: offsets in it are of no use.
    TopicDeleted {
        /// Its name.
        topic: String,
    },
    /// The site's settings changed.
    Settings(Settings),
    /// Time has passed: due at [`super::Coordinator::deadline`], harmless at any other moment.
    Tick,
}

/// Why a batch of the coordinator's was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFailure {
    /// Not the leader any more, or its disk failed.
    NotLeader,
    /// Too few replicas, too many waiters, or out of time.
    Unavailable,
}

/// A record of an internal partition, in Kafka's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kafka's key.
    pub key: Vec<u8>,
    /// Kafka's value; `None`: a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// What the shell does for the coordinator, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append these records as one batch with acks=all; answer with [`Input::Appended`], then [`Input::Committed`], or
    /// with [`Input::AppendFailed`]. Appends of one partition keep their order.
    Append {
        /// Where.
        partition: u32,
        /// In this epoch only: if the partition is led in another one by now, the batch is refused with
        /// [`AppendFailure::NotLeader`], or it would end up in a log that was read without it.
        epoch: LeaderEpoch,
        /// Names the batch.
        append: AppendId,
        /// At least one, together at most [`super::APPEND_BYTES_MAX`].
        records: Vec<Record>,
    },
    /// Answer the ticket; it is not named again.
    Reply {
        /// Which.
        ticket: Ticket,
        /// With what.
        reply: GroupReply,
    },
}

/// What the coordinator holds, for people and for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Groups known, empty ones included.
    pub groups: usize,
    /// Members of all groups.
    pub members: usize,
    /// Committed offsets.
    pub offsets: usize,
    /// Bytes of [`crate::group::MEMBERS_BYTES_MAX`].
    pub members_bytes: usize,
    /// Bytes of [`crate::group::OFFSETS_BYTES_MAX`].
    pub offsets_bytes: usize,
    /// Requests that wait for the lease.
    pub parked: usize,
    /// Batches that are not decided.
    pub in_flight: usize,
    /// Records that could not be read while loading.
    pub record_faults: u64,
}
