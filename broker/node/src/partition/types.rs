//! What goes into a partition's machine and what comes out of it.

use core::time::Duration;
use std::sync::Arc;

use model::window::Claim;
use model::{DiskUuid, Incarnation, Instant, LeaderEpoch, NodeId, Offset, WallMs};
use serde::{Deserialize, Serialize};

use super::followers::CommitTime;
use super::peers::{Answer, CopyFault, ReplicaFetch};
use crate::Ticket;
use crate::peer::IsrOutcome;

/// A replica as far as being in sync goes: a node that lost its disk, or its promises, is another one (R9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The disk the replica lies on.
    pub disk: DiskUuid,
}

/// When a batch is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Never on the wire; here when durable, so that the shell can let go of the ticket.
    None,
    /// When it is durable on the leader.
    Leader,
    /// When it is below the high watermark.
    All,
}

/// Who made a batch. All but clients pass `on_full`: a full topic must not keep the broker from its own records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer.
    Client,
    /// The coordinator of an internal partition; without sequence.
    Coordinator,
    /// The end of a transaction.
    Marker,
    /// The leader's own batch, copied by a follower.
    Replica,
}

/// A batch that wants to be appended, checked by `model::batch`; the shell keeps its bytes under the ticket until
/// [`Effect::Append`] or [`Effect::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produce {
    /// Names the answer.
    pub ticket: Ticket,
    /// Who made it.
    pub origin: Origin,
    /// When it is to be answered.
    pub acks: Acks,
    /// How long the client waits for replicas; the disk has 2 s whatever this says.
    pub timeout: Duration,
    /// Its last record, counted from the first; ≥ 0.
    pub last_offset_delta: i32,
    /// Bytes of the whole batch.
    pub bytes: u32,
    /// What it says of its producer; `None` if that one is not idempotent.
    pub claim: Option<Claim>,
    /// Latest time in it.
    pub max_ts: WallMs,
    /// Its attribute bits.
    pub attributes: i16,
}

/// What the disk holds of a partition after recovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// First offset readers may ask for.
    pub log_start: Offset,
    /// Offset of the next batch; all below is durable.
    pub end: Offset,
    /// A lower bound of the high watermark: APPEND.aux and the checkpoint.
    pub high_watermark: Offset,
    /// Highest epoch whose EPOCH record is durable.
    pub accepted_epoch: LeaderEpoch,
    /// Where each leader epoch began, rising in both.
    pub epochs: Vec<EpochStart>,
}

/// Where a leader epoch begins in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Offset of its first batch.
    pub start: Offset,
}

/// What a topic's configuration means to its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `min.insync.replicas`, at most the number of replicas.
    pub min_insync: u8,
    /// `max.message.bytes`: bytes of a whole batch.
    pub batch_bytes_max: u32,
    /// `howdah.on.full = refuse`: at its quota the topic takes no more from clients.
    pub refuse_when_full: bool,
}

/// A fact that a partition's machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The site log made this replica leader (R1). Older epochs than the accepted one are ignored.
    Lead {
        /// The epoch it shall lead.
        epoch: LeaderEpoch,
        /// Version of the row that says so.
        part_ver: u32,
        /// Who is in sync, this replica included.
        isr: Box<[Member]>,
        /// An operator chose it although it was not in sync (R7).
        unclean: bool,
    },
    /// The site log named a newer epoch whose leader is another node, or none; the same epoch after a restart.
    Follow {
        /// The new epoch.
        epoch: LeaderEpoch,
        /// Its leader.
        leader: Option<NodeId>,
        /// An operator chose the leader although it was not in sync (R7).
        unclean: bool,
    },
    /// The committed ISR within the epoch: to a leader when it changes, to a follower also when it begins to follow.
    Isr {
        /// Version of the row that says so; an older one than is known is passed over.
        part_ver: u32,
        /// Committed members.
        committed: Box<[Member]>,
    },
    /// What the controller said to [`Effect::AlterIsr`]. Only the site log changes who is in sync.
    IsrOutcome {
        /// As proposed.
        epoch: LeaderEpoch,
        /// As proposed.
        part_ver: u32,
        /// What it said.
        outcome: IsrOutcome,
    },
    /// The EPOCH record of [`Effect::Epoch`] is durable.
    EpochDurable {
        /// Its epoch.
        epoch: LeaderEpoch,
    },
    /// The node may serve until then; a moment that has passed takes the lease away.
    Lease {
        /// On the node's monotonic clock.
        until: Instant,
    },
    /// A batch arrived.
    Produce(Produce),
    /// Appends up to `end` are durable here.
    Durable {
        /// Offset behind the last durable record.
        end: Offset,
    },
    /// A follower asked, and so reported; counted if its epoch is ours and its log agrees (R4). What it may be sent says
    /// [`super::Partition::replica_bounds`].
    ReplicaFetch(ReplicaFetch),
    /// The leader's answer to [`super::Partition::ask`].
    Answer(Box<Answer>),
    /// The TRUNCATE record of [`Effect::Truncate`] is durable.
    Truncated {
        /// Where the log ends now: the store keeps whole batches.
        end: Offset,
    },
    /// The checkpoint of [`Effect::Checkpoint`] is durable.
    Checkpointed {
        /// As asked.
        mark: u32,
    },
    /// So many bytes more may be copied without the journal: what a node spares for catching up. The first one ends the
    /// time without a limit.
    CatchUpBudget {
        /// Bytes from now on.
        bytes: u64,
    },
    /// What commits take on the disks of the site, told every few seconds (R6).
    CommitTimes(Arc<[CommitTime]>),
    /// The leader is to be moved to this node: no new requests, until the other is level (hand-over).
    HandOver {
        /// To whom; it is in sync.
        to: NodeId,
    },
    /// The disk failed: nothing that was not answered will be.
    DiskFailed,
    /// The disk was recovered in process. The shell has put the recovered producer windows in place before. The
    /// replica follows until the site log makes it leader in a new epoch; what it was told of leaders meanwhile it did
    /// not hear.
    DiskBack(Box<Recovered>),
    /// Retention wants all below `offset` gone; cut to the high watermark.
    Retain {
        /// First offset to keep.
        offset: Offset,
    },
    /// A client wants all below `offset` gone.
    DeleteRecords {
        /// Names the answer.
        ticket: Ticket,
        /// First offset to keep; −1: the high watermark.
        offset: Offset,
    },
    /// The LOG_START record of [`Effect::LogStart`] is durable.
    LogStartDurable {
        /// Its offset.
        offset: Offset,
    },
    /// The replica holds its whole quota, or again less.
    Quota {
        /// No room for clients.
        full: bool,
    },
    /// The topic's configuration changed.
    Settings(Settings),
    /// Time has passed: due at [`super::Partition::deadline`], harmless at any other moment.
    Tick,
}

/// What the shell does for a partition, in the order given. All that goes to the disk goes into its one queue, in this
/// order; a reply may be sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Stamp the ticket's batch with offset and epoch and queue it; answer with [`Input::Durable`]. The bytes now
    /// belong to the queue.
    Append {
        /// Whose batch.
        ticket: Ticket,
        /// Offset of its first record.
        base_offset: Offset,
        /// Goes into the batch, outside its CRC.
        leader_epoch: LeaderEpoch,
        /// Goes into the journal's APPEND.aux.
        high_watermark: Offset,
    },
    /// Queue an EPOCH record; answer with [`Input::EpochDurable`].
    Epoch {
        /// The accepted epoch.
        epoch: LeaderEpoch,
        /// Where it starts; `None` on a follower, which learns it from the batches.
        start: Option<Offset>,
        /// Goes into the record (R7).
        unclean: bool,
    },
    /// Queue batches of the answer just given, as they are; answer with [`Input::Durable`] once they are, if they go
    /// through the journal. What no such effect names of an answer's bytes is let go with the step.
    Copy {
        /// The answer's bytes.
        ticket: Ticket,
        /// The first of its batches.
        first: u32,
        /// How many, all of one leader epoch.
        count: u32,
        /// Offset of the first.
        base_offset: Offset,
        /// Of all of them.
        leader_epoch: LeaderEpoch,
        /// Goes into the journal's APPEND.aux.
        high_watermark: Offset,
        /// The leader has compacted something before or between them.
        gap: bool,
        /// Else into the extents alone, until a checkpoint covers them.
        journaled: bool,
    },
    /// Queue a TRUNCATE record; answer with [`Input::Truncated`].
    Truncate {
        /// First offset to go.
        to: Offset,
    },
    /// Have a checkpoint written that covers all that was queued; answer with [`Input::Checkpointed`].
    Checkpoint {
        /// Names it.
        mark: u32,
    },
    /// Ask the controller; answer with [`Input::IsrOutcome`], or not: it is asked again.
    AlterIsr {
        /// The epoch led.
        epoch: LeaderEpoch,
        /// The version of the row that is applied.
        part_ver: u32,
        /// Who shall be in sync.
        isr: Box<[Member]>,
    },
    /// A member's disk commits far slower than the others', or no more: the alarm `slow disk`.
    SlowDisk {
        /// Whose.
        member: Member,
        /// Begun; else over.
        slow: bool,
    },
    /// The leader's batches were not what a leader may send; asked again.
    CopyRefused {
        /// Why.
        fault: CopyFault,
    },
    /// All is committed and the other node is level: the leader may be moved now.
    Level {
        /// To whom.
        to: NodeId,
        /// In which epoch.
        epoch: LeaderEpoch,
    },
    /// Queue a LOG_START record; the store frees what lies wholly below. Answer with [`Input::LogStartDurable`].
    LogStart {
        /// First offset kept.
        offset: Offset,
    },
    /// The ticket waits inside the machine: for the lease, or for the EPOCH record.
    Park {
        /// Which.
        ticket: Ticket,
    },
    /// Answer the ticket; it is not named again.
    Reply {
        /// Which.
        ticket: Ticket,
        /// With what.
        outcome: Outcome,
    },
    /// The high watermark moved: wake fetches and coordinators that wait for it.
    HighWatermark {
        /// Readers see what lies below.
        high_watermark: Offset,
    },
    /// This replica leads from now on; requests parked outside the machine may be asked again.
    Leading {
        /// In this epoch.
        epoch: LeaderEpoch,
    },
    /// This replica leads no more, or its disk is gone: refuse what is parked outside the machine.
    Resigned,
    /// The disk came back with less than was committed on it, or the leader has less (R7): the replica serves and copies no
    /// more, and that must be heard.
    Halted {
        /// Where the log that came back ends, or would.
        end: Offset,
        /// What it must not end below.
        high_watermark: Offset,
    },
}

/// What a ticket is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The batch is stored as its `acks` asked, now or by an earlier copy of it.
    Stored {
        /// Offset of its first record.
        base_offset: Offset,
        /// First offset readers may ask for.
        log_start: Offset,
        /// Time of the batch; for a duplicate that of the original, for LogAppendTime's answer.
        timestamp: WallMs,
    },
    /// DeleteRecords is done.
    Deleted {
        /// The first offset kept, now durable.
        log_start: Offset,
    },
    /// Nothing was done, or it can't be said.
    Refused(Refusal),
}

/// Why a request is not served. Each has its Kafka code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// NOT_LEADER_OR_FOLLOWER, with the leader if it is known (KIP-951).
    NotLeader {
        /// Who leads.
        leader: Option<NodeId>,
        /// In which epoch.
        epoch: LeaderEpoch,
    },
    /// Not an answer: the lease lapsed or leading has not begun. Ask again when [`Effect::Leading`] or a lease comes, for
    /// at most [`super::PARK_MAX`]; then the answer is NOT_LEADER_OR_FOLLOWER (R8). Only queries return it.
    Park,
    /// KAFKA_STORAGE_ERROR: the disk failed.
    DiskFailed,
    /// KAFKA_STORAGE_ERROR: the topic is at its quota and refuses.
    QuotaFull,
    /// REQUEST_TIMED_OUT: whether the batch will be stored is not known.
    TimedOut,
    /// NOT_ENOUGH_REPLICAS: fewer are in sync than `min.insync.replicas`; nothing was appended.
    NotEnoughReplicas,
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND: the ISR fell below `min.insync.replicas` while the batch waited.
    NotEnoughReplicasAfterAppend,
    /// NOT_ENOUGH_REPLICAS, retriable: as many requests wait here as may.
    Crowded,
    /// MESSAGE_TOO_LARGE.
    TooLarge,
    /// INVALID_TXN_STATE: transactions are not built yet.
    Transactional,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrderSequence,
    /// INVALID_PRODUCER_EPOCH.
    InvalidProducerEpoch,
    /// OFFSET_OUT_OF_RANGE.
    OffsetOutOfRange {
        /// First offset there is.
        log_start: Offset,
        /// Offset behind the last committed record.
        high_watermark: Offset,
    },
    /// OFFSET_NOT_AVAILABLE: the high watermark has not reached the epoch's start yet.
    OffsetNotAvailable,
    /// FENCED_LEADER_EPOCH: the client knows an older epoch.
    FencedLeaderEpoch,
    /// UNKNOWN_LEADER_EPOCH: the client knows a newer epoch than this node.
    UnknownLeaderEpoch,
}
