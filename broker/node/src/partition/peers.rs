//! What a follower and its leader tell each other of one partition (R4).

use model::window::Fact;
use model::{LeaderEpoch, NodeId, Offset};

use super::Member;
use crate::Ticket;

/// A follower's question, which is also its report. Only `durable_off` acknowledges: `fetch_off` runs ahead of the flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaFetch {
    /// Which replica, on which disk.
    pub member: Member,
    /// The epoch that it follows, durably accepted (R3).
    pub epoch: LeaderEpoch,
    /// Offset behind its last batch.
    pub fetch_off: Offset,
    /// All below is durable there.
    pub durable_off: Offset,
    /// Epoch of its last batch; −1 where its log is empty.
    pub last_epoch: LeaderEpoch,
    /// Its log's start, durable.
    pub log_start: Offset,
}

/// What a follower wants of its leader now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whom it asks.
    pub leader: NodeId,
    /// The question.
    pub fetch: ReplicaFetch,
    /// Bytes of batches it can take; one batch may be larger. 0: only a report, which is not answered.
    pub bytes_max: u32,
}

/// What a follower's fetch may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaBounds {
    /// Batches from the one that holds this offset on,
    pub from: Offset,
    /// that begin before this one. At or below `from`: nothing yet, the fetch may wait.
    pub to: Offset,
    /// For the answer's head.
    pub high_watermark: Offset,
    /// For the answer's head.
    pub log_start: Offset,
    /// The follower's log parted from ours: the epoch and its end to cut to; no batches then.
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// A leader's answer, with what it answers: one to a question that is not asked any more is let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As asked.
    pub epoch: LeaderEpoch,
    /// As asked.
    pub fetch_off: Offset,
    /// As asked.
    pub last_epoch: LeaderEpoch,
    /// What it says.
    pub body: AnswerBody,
}

/// See [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerBody {
    /// Batches, perhaps none.
    Batches {
        /// Their bytes, which the shell keeps until the step is over; [`super::Effect::Copy`] names parts of them.
        ticket: Ticket,
        /// The leader's.
        high_watermark: Offset,
        /// The leader's.
        log_start: Offset,
        /// The leader had more than it was asked for.
        more: bool,
        /// What the shell has checked: magic, length, CRC-32C, and that they fill the bytes.
        batches: Box<[CopiedBatch]>,
    },
    /// The logs part: the leader's largest epoch that is not above the follower's last one, and where that ends.
    Diverging {
        /// That epoch.
        epoch: LeaderEpoch,
        /// Offset behind its last record.
        end: Offset,
    },
    /// Not now: it does not lead, not yet, or in another epoch, or its disk failed. Asked again a little later.
    Refused,
}

/// One batch of an answer, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiedBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Its last record, counted from the first.
    pub last_offset_delta: i32,
    /// Epoch of the leader that accepted it.
    pub leader_epoch: LeaderEpoch,
    /// Bytes of the whole batch.
    pub bytes: u32,
    /// For the producer windows; `None` if its producer is not idempotent.
    pub fact: Option<Fact>,
}

impl CopiedBatch {
    /// Offset behind its last record.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64 + 1)
    }
}

/// Why a leader's batches were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFault {
    /// A batch of an epoch below the one before it, or above the leader's.
    Epoch,
    /// A batch that begins below the one before it ended.
    Overlap,
    /// Offsets are missing where nothing can have been compacted: within the leader's own epoch above its high watermark.
    Gap,
}
