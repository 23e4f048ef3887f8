//! AlterIsr (KIP-497, KIP-841, KIP-903): a leader asks the controller to change who is in sync.
//!
//! The change itself comes to everybody, the leader included, as a PARTITION entry of the site log. The response only
//! says that asking again is of no use, or that it is.

use model::{LeaderEpoch, NodeId, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::partition::Member;

/// Rows of one request: a dead follower makes every leader shrink at once. A row of five members takes 216 B, so 256 of
/// them take 54 KiB, and their PARTITION entry half as much.
pub const ISR_ROWS_MAX: usize = 256;

/// One partition's change, compared with the controller's row and set if all of it fits (H25).
///
/// The controller takes it only from the partition's leader, and only if `epoch` and `part_ver` are those of its row,
/// the leader is among `isr`, and every member that is not in sync today is what its node has registered, incarnation
/// and disk alike, on a node that is alive with that disk mounted and clean (R6, R9). A shrink names the members that
/// stay. **A proposal that changes nothing is committed as well, as the row's next version**: that is how a leader takes
/// back an earlier one which may still be on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterIsr {
    /// Which partition.
    pub partition: TopicPartition,
    /// The epoch its leader leads.
    pub epoch: LeaderEpoch,
    /// The version of the row that the leader has applied.
    pub part_ver: u32,
    /// Who shall be in sync.
    pub isr: Vec<Member>,
}

/// Up to [`ISR_ROWS_MAX`] changes; each is decided by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterIsrRequest {
    /// At most one of a partition.
    pub rows: Vec<AlterIsr>,
}

/// What becomes of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsrOutcome {
    /// Committed as this version of the row; the site log brings it.
    Committed {
        /// The new version.
        part_ver: u32,
    },
    /// FENCED_LEADER_EPOCH: the row has another epoch; the site log brings it.
    Fenced,
    /// INVALID_UPDATE_VERSION: the row has a later version, perhaps by this very proposal sent before; the site log brings
    /// it.
    Stale,
    /// INELIGIBLE_REPLICA: this node's member may not join now. The same proposal may pass later.
    Ineligible {
        /// Whose.
        node: NodeId,
    },
    /// NOT_CONTROLLER, or a controller whose lease lapsed before it could commit: what becomes of it is not known. Ask
    /// again.
    NotController,
    /// UNKNOWN_TOPIC_OR_PARTITION, or a row the asking node does not lead, or an ISR without its leader: never asked
    /// again.
    Refused,
}

/// The outcomes, row by row as asked. A row without one counts as [`IsrOutcome::NotController`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterIsrResponse {
    /// In the order of the request's rows, each with the partition, epoch and version it answers.
    pub rows: Vec<(TopicPartition, LeaderEpoch, u32, IsrOutcome)>,
}
