//! A site as plain data: what the file says, with every default filled in.
//!
//! No spans, no text, no options that only the file's reader needs. The order of fields is the order of bytes in the
//! blob (`blob.rs`): a change of it is a new format version there.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::doors::{Door, Listeners};
use crate::units::{GIB, MIB};

/// Nodes of a site; a larger one is not what this is for.
pub const NODES_MAX: usize = 5;
/// Disks of a node.
pub const DISKS_MAX: usize = 12;
/// Partition replicas of a node: the memory table is drawn up for as many.
pub const REPLICAS_MAX: u32 = 2_000;
/// Connections of a node, over all its clients' doors, unless the site says otherwise.
pub const CONNECTIONS_DEFAULT: u32 = 8_192;
/// The journal ring of a disk, unless the site says otherwise.
pub const JOURNAL_BYTES_DEFAULT: u64 = GIB;
/// The smallest ring: two of the largest group records.
pub const JOURNAL_BYTES_MIN: u64 = 32 * MIB;
/// The largest ring; its replay takes half a minute.
pub const JOURNAL_BYTES_MAX: u64 = 4 * GIB;
/// The witness's ring: it sees only control groups.
pub const WITNESS_JOURNAL_BYTES: u64 = 8 * MIB;
/// Kafka's default of `max.message.bytes`: 1 MiB and a batch's overhead.
pub const MAX_MESSAGE_BYTES_DEFAULT: u32 = 1_048_588;
/// The largest batch that any topic may allow: it must fit an extent and a frame.
pub const MAX_MESSAGE_BYTES_MAX: u32 = 8 << 20;

/// The network's part of an IPv4 address, in bits, unless the site says otherwise.
pub const PREFIX_V4_DEFAULT: u8 = 24;
/// The same of an IPv6 address.
pub const PREFIX_V6_DEFAULT: u8 = 64;

/// One installation and its static configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// For people; the cluster's id is drawn at bootstrap.
    pub name: String,
    /// Lease timing.
    pub preset: Preset,
    /// Whose word makes wall time trusted.
    pub clock: ClockSource,
    /// Where the key lies that signs the peers' messages, newest first; at most two, empty if there is none.
    pub secret: Vec<SecretFile>,
    /// Bounds of each node.
    pub limits: Limits,
    /// What a topic gets when it does not say.
    pub defaults: Defaults,
    /// Nodes in the file's order; [`Node::id`] counts them from 1.
    pub nodes: Vec<Node>,
    /// The third vote of a site of two.
    pub witness: Option<Witness>,
    /// Topics in the file's order.
    pub topics: Vec<Topic>,
    /// Doors for clients; those of a node are given by [`Site::doors`].
    pub listeners: Listeners,
    /// Only boards and images read it.
    pub appliance: Option<Appliance>,
    /// SHA-256 over the fields above as the blob holds them; nodes exchange it and show a mismatch.
    pub digest: [u8; 32],
}

/// Lease timing (storage-replication chapter, L1): how fast a silent node counts as dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// Beats every 100 ms, leases of 400 ms: nodes on one switch, with the right to real-time priority.
    #[default]
    Lan,
    /// Three times that: shared machines, links with other traffic.
    Slow,
}

/// Whose word makes wall time trusted on a Linux host; on the appliance the board decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockSource {
    /// The clock is right.
    #[default]
    Trusted,
    /// It is right once the kernel says that something keeps it so (adjtimex).
    Kernel,
}

/// A file with 32 random bytes. The bytes themselves never enter the site, its blob or its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// Which of two, while one replaces the other.
    pub id: u8,
    /// Relative to the site file.
    pub file: String,
}

/// Bounds of each node: memory and descriptors are counted for them at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open connections, over all clients' doors of a node.
    pub connections: u32,
    /// Partition replicas of a node, internal ones counted.
    pub replicas: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_DEFAULT,
            replicas: REPLICAS_MAX,
        }
    }
}

/// What a topic gets when it does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// Partitions of a new topic.
    pub partitions: u32,
    /// Replicas of each; at most as many as there are nodes.
    pub replication: u16,
    /// In-sync replicas that acks=all needs.
    pub min_insync: u16,
    /// How long records stay; the time is always there.
    pub retention: Retention,
    /// At the topic's own quota.
    pub on_full: OnFull,
    /// Whether Metadata and Produce make unknown topics.
    pub auto_create: bool,
    /// Whether clients may create topics beyond those of the site file, by CreateTopics or by naming them.
    pub create_topics: bool,
    /// Wait before the first rebalance of an empty group, in milliseconds (Kafka's
    /// `group.initial.rebalance.delay.ms`).
    pub join_delay_ms: u32,
}

/// How long, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// By trusted time; `None` leaves it to what stands above.
    pub time: Option<Keep>,
    /// The quota per partition, reserved on each replica's disk; `None` is a share of what is unreserved.
    pub bytes: Option<u64>,
}

/// A retention time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Milliseconds, > 0.
    Ms(u64),
    /// `retention.ms = -1`.
    Forever,
}

impl Keep {
    /// As Kafka's `retention.ms` has it.
    #[must_use]
    pub fn as_config(self) -> String {
        match self {
            Self::Ms(ms) => ms.to_string(),
            Self::Forever => "-1".to_owned(),
        }
    }
}

/// What happens at a topic's own quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFull {
    /// The oldest records go: Kafka's meaning of `retention.bytes`.
    #[default]
    Oldest,
    /// Produce is refused until time or DeleteRecords frees.
    Refuse,
}

impl OnFull {
    /// As the topic config `howdah.on.full` has it.
    #[must_use]
    pub const fn as_config(self) -> &'static str {
        match self {
            Self::Oldest => "oldest",
            Self::Refuse => "refuse",
        }
    }
}

/// One box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its place in the file, from 1; Kafka's broker id.
    pub id: u32,
    /// Unique in the site.
    pub name: String,
    /// Where peers and clients reach it.
    pub address: IpAddr,
    /// Where its doors are.
    pub ports: Ports,
    /// How an appliance knows which node it is.
    pub identity: Identity,
    /// At least one, at most [`DISKS_MAX`]; the first is the meta disk.
    pub disks: Vec<Disk>,
}

/// Ports of a node's doors, where a listener names none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Kafka clients.
    pub kafka: u16,
    /// Status, metrics, health.
    pub http: u16,
    /// Other nodes: TCP, and UDP for beats.
    pub peer: u16,
    /// MQTT devices.
    pub mqtt: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            kafka: 9092,
            http: 9644,
            peer: 9192,
            mqtt: 1883,
        }
    }
}

/// What the board compares with the hardware; one match is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The system serial number of SMBIOS type 1.
    pub smbios: Option<String>,
    /// A network card's address, lower case with colons.
    pub mac: Option<String>,
}

/// A disk, or a directory that plays one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is.
    pub place: Place,
    /// How much of it is ours, the journal on it included.
    pub usage: Usage,
    /// Its journal ring.
    pub journal: Journal,
}

impl Disk {
    /// Whether extents are made ahead. A directory shares its file system with others: there files are made as needed.
    #[must_use]
    pub const fn ahead(&self) -> bool {
        !matches!(self.place, Place::Path(_))
    }
}

/// How a disk is found. Never by `/dev` name: those change from boot to boot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// A directory; a relative one lies below `--data`.
    Path(String),
    /// The drive's serial number, on the appliance.
    Serial(String),
    /// The drive's World Wide Name, on the appliance.
    Wwn(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{path}"),
            Self::Serial(serial) => write!(f, "serial {serial}"),
            Self::Wwn(wwn) => write!(f, "wwn {wwn}"),
        }
    }
}

/// How much of a disk is ours: the smaller of both, if both are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// At most so many bytes.
    pub bytes: Option<u64>,
    /// At most so much of what others leave, in percent; 100 for a disk of our own.
    pub of_free_percent: u8,
}

impl Usage {
    /// Bytes that are ours on a file system with `free` bytes free, of which we already hold `held` beside them.
    #[must_use]
    pub fn resolve(&self, free: u64, held: u64) -> u64 {
        let all = u128::from(free) + u128::from(held);
        let part = all * u128::from(self.of_free_percent) / 100;
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        self.bytes.map_or(part, |bytes| bytes.min(part))
    }

    /// Bytes that are ours, if the site file alone says so.
    #[must_use]
    pub const fn known(&self) -> Option<u64> {
        self.bytes
    }
}

/// A disk's journal ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// A device of its own, such as a partition of an SSD; `None`: a file on the disk itself.
    pub place: Option<Place>,
    /// From [`JOURNAL_BYTES_MIN`] to [`JOURNAL_BYTES_MAX`].
    pub bytes: u64,
}

/// A voter without partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Its id, behind those of the nodes.
    pub id: u32,
    /// Where the nodes reach it.
    pub address: IpAddr,
    /// Its peers' door.
    pub peer_port: u16,
    /// Its status door, on loopback.
    pub http_port: u16,
}

/// A topic that the site promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Legal as Kafka's names are, unique, not internal.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication: u16,
    /// In-sync replicas that acks=all needs.
    pub min_insync: u16,
    /// What it says itself; the rest is the site's defaults.
    pub own: TopicConfig,
}

/// What a topic of the site file says of itself; `None` leaves it to the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// How long, and how much.
    pub retention: Retention,
    /// At its own quota.
    pub on_full: Option<OnFull>,
    /// `min.insync.replicas`, if the topic names it.
    pub min_insync: Option<u16>,
    /// The largest batch, in bytes.
    pub max_message_bytes: Option<u32>,
    /// What cleaning means.
    pub cleanup: Option<Cleanup>,
    /// Whose time a record carries.
    pub timestamps: Option<Timestamps>,
    /// Milliseconds after which an open extent is sealed.
    pub segment_ms: Option<u64>,
    /// Milliseconds that a tombstone stays.
    pub delete_retention_ms: Option<u64>,
}

/// `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cleanup {
    /// The oldest records go.
    Delete,
    /// The last record of each key stays.
    Compact,
    /// Both.
    CompactDelete,
}

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Timestamps {
    /// CreateTime.
    Create,
    /// LogAppendTime.
    Append,
}

impl Topic {
    /// The topic configs that the site file sets, by name, as Kafka writes them. What it leaves to the defaults is not
    /// among them.
    #[must_use]
    pub fn configs(&self) -> Vec<(String, String)> {
        let own = &self.own;
        let cleanup = own.cleanup.map(|cleanup| match cleanup {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
            Cleanup::CompactDelete => "compact,delete",
        });
        let timestamps = own.timestamps.map(|timestamps| match timestamps {
            Timestamps::Create => "CreateTime",
            Timestamps::Append => "LogAppendTime",
        });
        // In the order of their names.
        [
            ("cleanup.policy", cleanup.map(str::to_owned)),
            (
                "delete.retention.ms",
                own.delete_retention_ms.map(|v| v.to_string()),
            ),
            (
                "howdah.on.full",
                own.on_full.map(|v| v.as_config().to_owned()),
            ),
            (
                "max.message.bytes",
                own.max_message_bytes.map(|v| v.to_string()),
            ),
            ("message.timestamp.type", timestamps.map(str::to_owned)),
            ("min.insync.replicas", own.min_insync.map(|v| v.to_string())),
            (
                "retention.bytes",
                own.retention.bytes.map(|v| v.to_string()),
            ),
            ("retention.ms", own.retention.time.map(Keep::as_config)),
            ("segment.ms", own.segment_ms.map(|v| v.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }

    /// The largest batch that it takes, in bytes.
    #[must_use]
    pub fn max_message_bytes(&self) -> u32 {
        self.own
            .max_message_bytes
            .unwrap_or(MAX_MESSAGE_BYTES_DEFAULT)
    }
}

/// What only boards and images need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appliance {
    /// The site's network.
    pub network: Network,
    /// Milliseconds without a sign of life until the hardware resets the box.
    pub watchdog_ms: u32,
    /// What becomes of a drive that the site names and that is blank.
    pub provision: Provision,
}

/// Whether a drive may be partitioned. One that holds anything is left alone in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Provision {
    /// It is shown, and the node goes on without it.
    #[default]
    Never,
    /// It is partitioned and made a disk of this node.
    IfBlank,
}

/// Static network configuration; a node's address stands in its own table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Bits of the network's part of an address; `None` is [`PREFIX_V4_DEFAULT`] or [`PREFIX_V6_DEFAULT`].
    pub prefix: Option<u8>,
    /// 802.1Q tag, 1 to 4094.
    pub vlan: Option<u16>,
    /// All network cards of a box as one.
    pub bond: Option<Bond>,
    /// Default route; in the network of every node.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Time servers.
    pub ntp: Vec<IpAddr>,
}

/// How several network cards act as one (bonding.txt of the kernel's documentation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bond {
    /// One carries, the others wait; any switch will do.
    ActiveBackup,
    /// IEEE 802.3ad: all carry, and the switch takes part.
    Lacp,
}

impl Network {
    /// The prefix length of a node's address.
    #[must_use]
    pub fn prefix_of(&self, address: IpAddr) -> u8 {
        self.prefix.unwrap_or(match address {
            IpAddr::V4(_) => PREFIX_V4_DEFAULT,
            IpAddr::V6(_) => PREFIX_V6_DEFAULT,
        })
    }

    /// Whether `address` and `other` lie in one network.
    #[must_use]
    pub fn same(&self, address: IpAddr, other: IpAddr) -> bool {
        let prefix = u32::from(self.prefix_of(address));
        match (address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= prefix.min(32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= prefix.min(128)
            }
            _ => false,
        }
    }
}

impl Site {
    /// The node of this name, with its place in [`Site::nodes`].
    #[must_use]
    pub fn node(&self, name: &str) -> Option<(usize, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .find(|(_, node)| node.name == name)
    }

    /// The doors of the node at this place in [`Site::nodes`], in the file's order.
    #[must_use]
    pub fn doors(&self, node: usize) -> Vec<Door> {
        let Some(node) = self.nodes.get(node) else {
            return Vec::new();
        };
        self.listeners
            .doors(node, self.nodes.len() > 1)
            .map(|(_, door)| door)
            .collect()
    }

    /// How many nodes vote: all and the witness; of two without a witness only the first.
    #[must_use]
    pub const fn voters(&self) -> usize {
        match (self.nodes.len(), self.witness.is_some()) {
            (2, false) => 1,
            (nodes, true) => nodes + 1,
            (nodes, false) => nodes,
        }
    }

    /// How long a topic keeps its records.
    #[must_use]
    pub fn keep(&self, topic: &Topic) -> Keep {
        topic
            .own
            .retention
            .time
            .or(self.defaults.retention.time)
            .unwrap_or(Keep::Forever)
    }

    /// The quota per partition that the site file names for a topic, itself or by the defaults.
    #[must_use]
    pub fn named_quota(&self, topic: &Topic) -> Option<u64> {
        topic.own.retention.bytes.or(self.defaults.retention.bytes)
    }
}
