//! What the catalog is asked, what it answers, and what follows from an applied entry.

use model::{Incarnation, LeaderEpoch, NodeId, PartitionIndex, ProducerId, TopicId};
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        /// In sync.
        isr: Box<[Member]>,
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
    },
    /// The committed ISR changed within the epoch: `partition::Input::Isr`.
    Isr {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// In sync.
        isr: Box<[Member]>,
    },
    /// The topic's configuration changed: `partition::Input::Settings` to each of its replicas here.
    Configured {
        /// The topic.
        topic: TopicId,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its disks and what may be reserved on each, in bytes.
    pub disks: Vec<crate::sitelog::Disk>,
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
}
