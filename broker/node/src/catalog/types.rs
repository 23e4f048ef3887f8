//! What the catalog is asked, what it answers, and what follows from an applied entry.

use model::{DiskUuid, Incarnation, LeaderEpoch, NodeId, PartitionIndex, ProducerId, TopicId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::partition::Member;
use crate::sitelog::{Configs, Replica};

/// A topic that shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// How many; `None` (−1 on the wire) is the site's default. Ignored with `assignment`.
    pub partitions: Option<u32>,
    /// Replicas of each; `None` (−1 on the wire) is the site's default. Ignored with `assignment`.
    pub replication: Option<u16>,
    /// Nodes of each partition, chosen by the client; empty lets the broker choose.
    pub assignment: Vec<Vec<NodeId>>,
    /// Names and values as the client sent them; `None` is a null value.
    pub configs: Vec<(String, Option<String>)>,
}

/// One change of a configuration (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alter {
    /// Set to a value.
    Set(String),
    /// Back to the default.
    Delete,
    /// Add values to a list.
    Append(String),
    /// Take values out of a list.
    Subtract(String),
}

/// Why the catalog refuses. The text is for the client's error message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// INVALID_TOPIC_EXCEPTION.
    #[error("{0}")]
    InvalidTopic(String),
    /// TOPIC_ALREADY_EXISTS.
    #[error("topic '{0}' already exists")]
    TopicExists(String),
    /// UNKNOWN_TOPIC_OR_PARTITION.
    #[error("this site has no such topic")]
    UnknownTopic,
    /// UNKNOWN_TOPIC_ID.
    #[error("this site has no topic with that id")]
    UnknownTopicId,
    /// INVALID_PARTITIONS.
    #[error("{0}")]
    InvalidPartitions(String),
    /// INVALID_REPLICATION_FACTOR.
    #[error("{0}")]
    InvalidReplication(String),
    /// INVALID_REPLICA_ASSIGNMENT.
    #[error("{0}")]
    InvalidAssignment(String),
    /// INVALID_CONFIG.
    #[error("{0}")]
    InvalidConfig(String),
    /// INVALID_REQUEST.
    #[error("{0}")]
    InvalidRequest(String),
    /// POLICY_VIOLATION: it names what is needed and what is left.
    #[error("{0}")]
    Policy(String),
}

/// A topic's partition as applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Where it lies, preferred leader first.
    pub replicas: Vec<Replica>,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// In which epoch.
    pub epoch: LeaderEpoch,
    /// Compare-and-set of AlterIsr.
    pub part_ver: u32,
    /// Who is in sync, as places in `replicas`.
    pub isr: Vec<u8>,
}

impl Partition {
    /// Where it lies on a node.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<Replica> {
        self.replicas
            .iter()
            .copied()
            .find(|replica| replica.node == node)
    }

    /// The replicas in sync, preferred leader first.
    pub fn in_sync(&self) -> impl Iterator<Item = Replica> + '_ {
        self.isr
            .iter()
            .filter_map(|place| self.replicas.get(usize::from(*place)).copied())
    }
}

/// A topic as applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRow {
    /// By which clients know it.
    pub name: String,
    /// What is set, by name.
    pub configs: Configs,
    /// Its quota per partition where it names none.
    pub share: u64,
    /// By number.
    pub partitions: Vec<Partition>,
}

/// What an applied entry means to this node, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A replica of this partition lies on a disk of this node from now on: PART_NEW, then its machine.
    Replica {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// Where.
        replica: Replica,
    },
    /// This node leads the partition: `partition::Input::Lead`.
    Lead {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// The epoch.
        epoch: LeaderEpoch,
        /// Version of the row.
        part_ver: u32,
        /// In sync.
        isr: Box<[Member]>,
        /// Elected although not in sync (R7).
        unclean: bool,
    },
    /// This node follows: `partition::Input::Follow`.
    Follow {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// The epoch.
        epoch: LeaderEpoch,
        /// Who leads.
        leader: Option<NodeId>,
        /// Elected although not in sync (R7).
        unclean: bool,
    },
    /// The committed ISR, where this node follows or it changed within the epoch: `partition::Input::Isr`.
    Isr {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// Version of the row.
        part_ver: u32,
        /// In sync.
        isr: Box<[Member]>,
    },
    /// The topic's configuration changed: `partition::Input::Settings` to each of its replicas here.
    Configured {
        /// The topic.
        topic: TopicId,
    },
    /// The replica lies on this node no more, the topic lives on elsewhere: PART_DEL.
    Left {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
    },
    /// The topic is gone: PART_DEL for each of its replicas here.
    Deleted {
        /// The topic.
        topic: TopicId,
        /// The name it had.
        name: String,
        /// Its replicas on this node.
        partitions: Vec<PartitionIndex>,
    },
    /// A block of producer ids belongs to this node.
    Pids {
        /// The first of [`crate::sitelog::PIDS_BLOCK`].
        first: ProducerId,
    },
}

/// A node as applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its disks and what may be reserved on each, in bytes.
    pub disks: Vec<crate::sitelog::Disk>,
    /// Site versions it can read, lowest and highest.
    pub versions: (u16, u16),
    /// Room for a public key.
    pub public_key: Vec<u8>,
    /// Leads nothing.
    pub draining: bool,
}

/// A topic of the site file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication: u16,
    /// What the site file sets.
    pub configs: Configs,
    /// Its quota per partition if it names none, as the site file's topics split what is there.
    pub share: Option<u64>,
}

/// What the site file says to all decisions, and sums that other crates own too.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Partitions of a topic that does not say.
    pub partitions: u32,
    /// Replicas of each partition of a topic that does not say.
    pub replication: u16,
    /// `min.insync.replicas` of a topic that does not say.
    pub min_insync: u16,
    /// `retention.ms` of a topic that does not say; −1 is for ever.
    pub retention_ms: i64,
    /// `retention.bytes` of a topic that does not say; `None` gives it a share.
    pub retention_bytes: Option<u64>,
    /// `howdah.on.full` of a topic that does not say.
    pub refuse_when_full: bool,
    /// Clients may create topics.
    pub create_topics: bool,
    /// Partition replicas of a node, internal ones counted.
    pub replicas_max: u32,
    /// `max.message.bytes` can't be larger.
    pub message_bytes_max: u32,
    /// `max.message.bytes` of a topic that does not say.
    pub message_bytes: u32,
    /// Bytes of one extent of the class that holds a batch of so many bytes.
    pub extent_for: fn(u32) -> u64,
    /// The least share of a partition.
    pub share_bytes_min: u64,
    /// A topic made at run time gets this part of what is unreserved.
    pub share_part: u64,
}

/// Space of a disk that topics may reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// The node it belongs to.
    pub node: NodeId,
    /// Which.
    pub disk: DiskUuid,
    /// All of it.
    pub bytes: u64,
    /// Reserved by topics.
    pub reserved: u64,
    /// Replicas on it, internal ones counted.
    pub replicas: u32,
}

impl DiskSpace {
    /// What may still be reserved.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.bytes.saturating_sub(self.reserved)
    }
}

/// A topic that may be made.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedTopic {
    /// Its id.
    pub id: TopicId,
    /// How many partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication: u16,
    /// Every config it will have.
    pub configs: Vec<super::Config>,
    /// What makes it.
    pub entry: crate::sitelog::Entry,
}
