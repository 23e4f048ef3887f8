//! What the controller saw and decided, as values.

use core::fmt;

use model::{DiskUuid, LeaderEpoch, NodeId, TopicPartition};

use crate::sitelog::{DiskState, Replica};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node is heard, the first time or again.
    Heard {
        /// Which.
        node: NodeId,
    },
    /// Its last grant has run out.
    Dead {
        /// Which.
        node: NodeId,
    },
    /// A node says another thing of a disk; `None` if it lists it no more.
    Disk {
        /// Whose.
        node: NodeId,
        /// Which.
        disk: DiskUuid,
        /// What.
        state: Option<DiskState>,
    },
    /// Its site file is another one than this node's (H32), or is the same again.
    Digest {
        /// Whose.
        node: NodeId,
        /// The same.
        same: bool,
    },
    /// Its clock is trusted no more, or again.
    Clock {
        /// Whose.
        node: NodeId,
        /// It is.
        trusted: bool,
    },
    /// A node wants to be registered that the site file does not name.
    Stranger {
        /// As which.
        node: NodeId,
    },
    /// A partition's row was changed.
    Partition {
        /// Which.
        partition: TopicPartition,
        /// How.
        decision: Decision,
    },
    /// A leader was asked to hand over and did not: it goes on, and is asked again.
    NotHandedOver {
        /// Which.
        partition: TopicPartition,
        /// Who leads it.
        leader: NodeId,
    },
    /// A replica's disk was taken out of its node, and no other has room.
    NoPlace {
        /// Which.
        partition: TopicPartition,
        /// Whose.
        node: NodeId,
    },
    /// A topic of the site file can't be.
    Unkept {
        /// Its name.
        topic: String,
        /// Why.
        fault: String,
    },
}

/// What became of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has another leader, or the same one in another epoch.
    Led {
        /// Who.
        leader: NodeId,
        /// In which epoch.
        epoch: LeaderEpoch,
        /// Why.
        why: Why,
    },
    /// Nobody in sync can lead it.
    Offline {
        /// In which epoch.
        epoch: LeaderEpoch,
        /// Why.
        why: Why,
    },
    /// A replica is in sync no more.
    Left {
        /// Which.
        replica: Replica,
        /// Why.
        why: Why,
    },
    /// Its leader changed who is in sync.
    Isr {
        /// Who is.
        isr: Vec<Replica>,
    },
    /// A disk was taken out of its node; the replica lies on another one and catches up.
    Replaced {
        /// Where.
        replica: Replica,
    },
    /// It moves to these nodes.
    Moves {
        /// Preferred leader first.
        to: Vec<NodeId>,
    },
    /// It lies where it shall.
    Arrived,
}

/// For what reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody led it.
    Vacant,
    /// A node is dead.
    NodeDead,
    /// A disk is not mounted, failed or stalled.
    Disk,
    /// A disk's journal has a hole.
    Suspect,
    /// The leader can't go on in its epoch.
    Resigned,
    /// The leader handed it over.
    HandedOver,
    /// An operator's word; records may be lost (R7).
    Unclean,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vacant => "nobody led it",
            Self::NodeDead => "its node is dead",
            Self::Disk => "its disk is out of service",
            Self::Suspect => "its disk has lost part of its journal",
            Self::Resigned => "its leader gave up the epoch",
            Self::HandedOver => "its leader handed over",
            Self::Unclean => "an operator asked for it, whatever is lost",
        })
    }
}
