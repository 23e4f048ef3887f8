//! The entries of the site log and their bytes.
//!
//! ```text
//! record = postcard { kind u16, must bool, actor { principal str ≤ 255 B, host 16 B, api_key i16 }, body bytes }
//! body   = postcard of the kind's fields
//! ```
//! A release may add fields at a body's end: what a reader does not know behind the fields it does is passed over. A
//! kind it does not know is passed over as well, unless `must` is set: then the node stops rather than decide with half
//! the truth. SITE_VERSION keeps newer releases from writing such entries before every voter can read them.

use model::{
    DiskUuid, Incarnation, LeaderEpoch, NodeId, PartitionIndex, ProducerId, SiteUuid, TopicId,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Voters;

/// Bytes of one record. The control records of a group are bounded at 64 KiB, so that a vote never waits behind more;
/// 4 KiB of it stay for the group's header, its table and a HARDSTATE.
pub const RECORD_BYTES_MAX: usize = 60 * 1024;
/// Bytes of an actor's principal.
pub const PRINCIPAL_BYTES_MAX: usize = 255;
/// Bytes of a node's public key.
pub const PUBLIC_KEY_BYTES_MAX: usize = 128;
/// Producer ids in a block (COMPAT 14).
pub const PIDS_BLOCK: i64 = 1_000;

/// Who asked for a change, for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// `User:NAME`; empty for the broker itself.
    pub principal: String,
    /// The peer's address, IPv4 mapped into IPv6; zero for the broker itself.
    pub host: [u8; 16],
    /// The API that carried it; −1 for the broker itself.
    pub api_key: i16,
}

impl Actor {
    /// The broker itself, at start, by timer or by reconciling the site file.
    #[must_use]
    pub const fn broker() -> Self {
        Self {
            principal: String::new(),
            host: [0; 16],
            api_key: -1,
        }
    }

    /// A client. A principal longer than 255 bytes is cut at a character.
    #[must_use]
    pub fn client(principal: &str, host: [u8; 16], api_key: i16) -> Self {
        let cut = principal.floor_char_boundary(PRINCIPAL_BYTES_MAX);
        Self {
            principal: principal[..cut].to_owned(),
            host,
            api_key,
        }
    }
}

/// A replica's place: which disk of which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Replica {
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskUuid,
}

/// A disk that a node registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Which.
    pub uuid: DiskUuid,
    /// Bytes that topics may reserve on it, the journal and the checkpoints not counted.
    pub bytes: u64,
}

/// A topic's configuration as set: names and values of those that are not at their default, by name.
pub type Configs = Vec<(String, String)>;

/// One partition's row in a PARTITION entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRow {
    /// Its number; the count of partitions grows by rows behind the last.
    pub partition: PartitionIndex,
    /// Where it lies, preferred leader first; empty leaves it as it is.
    pub replicas: Vec<Replica>,
    /// Who leads; `None` while nobody can.
    pub leader: Option<NodeId>,
    /// Rises with every change of leader, also to the same node (R1).
    pub epoch: LeaderEpoch,
    /// Rises with every change of this row (compare-and-set of AlterIsr).
    pub part_ver: u32,
    /// Who is in sync, as places in `replicas`. The member's incarnation is the one its node has registered: an entry
    /// that registers another one takes the node out of every ISR (R9).
    pub isr: Vec<u8>,
    /// Elected although not in sync, by an operator (R7).
    pub unclean: bool,
}

/// A partition that is on its way to other replicas (KIP-455), as nodes, preferred leader first: a replica's disk may be
/// replaced meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Where it lay; calling it off means moving back there.
    pub from: Vec<NodeId>,
    /// Where it shall lie.
    pub to: Vec<NodeId>,
}

/// One partition in a REASSIGN entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassign {
    /// Whose.
    pub topic: TopicId,
    /// Applied as in a PARTITION entry; if it does not fit, `moving` is passed over as well.
    pub row: PartitionRow,
    /// On its way from now on; `None` ends it.
    pub moving: Option<Moving>,
}

/// A change of the site. Kinds have the numbers of [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// TERM: a controller's first entry; commits what its predecessors left (Raft §5.4.2) and changes nothing.
    Term,
    /// SITE: the site's identity, its very first entry.
    Site {
        /// Drawn by the bootstrap leader.
        uuid: SiteUuid,
    },
    /// NODE: a node registers itself, at each start or when its disks change.
    Node(Node),
    /// TOPIC: a topic with all its partitions; their first leader is their first replica, in epoch 0.
    Topic(Topic),
    /// PARTITION: new partitions, leaders, ISRs or places; one entry may carry many.
    Partition(Vec<(TopicId, Vec<PartitionRow>)>),
    /// TOPIC_DEL.
    TopicDel {
        /// Which.
        topic: TopicId,
    },
    /// CONFIG: a topic's whole configuration.
    Config {
        /// Which.
        topic: TopicId,
        /// All that is set from now on.
        configs: Configs,
        /// Its quota per partition if it names none.
        share: u64,
    },
    /// PIDS: 1,000 producer ids belong to a node.
    Pids {
        /// Which.
        node: NodeId,
        /// The first of them.
        first: ProducerId,
    },
    /// DRAIN: a node shall lead nothing, or may again.
    Drain {
        /// Which.
        node: NodeId,
        /// Begin; else end.
        on: bool,
    },
    /// VOTERS: who votes from now on, also before it is committed; one voter more or less than before (L1.7).
    Voters(Voters),
    /// SITE_VERSION: no entry of a higher version was written before this one.
    SiteVersion {
        /// From now on.
        version: u16,
    },
    /// REASSIGN: partitions begin to move to other replicas, or arrive.
    Reassign(Vec<Reassign>),
}

/// The fields of NODE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// A new one leaves every ISR (R9).
    pub incarnation: Incarnation,
    /// Disks mounted and clean.
    pub disks: Vec<Disk>,
    /// Site versions it can read, lowest and highest.
    pub versions: (u16, u16),
    /// Room for a public key, ≤ 128 B; empty today.
    pub public_key: Vec<u8>,
}

/// The fields of TOPIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// By which clients know it; legal as Kafka's names are.
    pub name: String,
    /// A topic made again under this name has another.
    pub id: TopicId,
    /// What is set.
    pub configs: Configs,
    /// Bytes per partition reserved for it if it names no `retention.bytes`.
    pub share: u64,
    /// Where each partition lies, preferred leader first.
    pub partitions: Vec<Vec<Replica>>,
}

/// Numbers of the kinds at rest. Reserved ones have no fields yet: a release that does not know them treats them as
/// unknown kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`Entry::Term`].
    Term = 0,
    /// [`Entry::Site`].
    Site = 1,
    /// [`Entry::Node`].
    Node = 2,
    /// [`Entry::Topic`].
    Topic = 3,
    /// [`Entry::Partition`].
    Partition = 4,
    /// [`Entry::TopicDel`].
    TopicDel = 5,
    /// [`Entry::Config`].
    Config = 6,
    /// [`Entry::Pids`].
    Pids = 7,
    /// Reserved: a user and its verifiers.
    User = 8,
    /// Reserved: a right.
    Acl = 9,
    /// [`Entry::Drain`].
    Drain = 10,
    /// [`Entry::SiteVersion`].
    SiteVersion = 11,
    /// Reserved: a client's quota.
    Quota = 12,
    /// Reserved: a certificate no longer trusted.
    CertDeny = 13,
    /// Reserved: a secret, sealed.
    Secret = 14,
    /// [`Entry::Reassign`].
    Reassign = 15,
    /// [`Entry::Voters`].
    Voters = 16,
}

/// An entry with who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who.
    pub actor: Actor,
    /// What; `None` for a kind this release may pass over.
    pub entry: Option<Entry>,
}

/// Bytes of the site log that this release can't act on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryFault {
    /// A newer release wrote it and says it must be understood.
    #[error(
        "site-log entry of kind {0} must be understood, and this release does not know it: start the newer release again"
    )]
    Unknown(u16),
    /// Not postcard, or a field beyond its bound.
    #[error("site-log entry: {0}")]
    Malformed(&'static str),
    /// Larger than [`RECORD_BYTES_MAX`].
    #[error("a site-log entry of {0} bytes is beyond the bound of {RECORD_BYTES_MAX}")]
    TooLarge(usize),
}

/// The record at rest.
#[derive(Serialize, Deserialize)]
struct Frame<'a> {
    kind: u16,
    must: bool,
    actor: Actor,
    #[serde(borrow)]
    body: &'a [u8],
}

impl Record {
    /// A change the broker makes by itself.
    #[must_use]
    pub const fn broker(entry: Entry) -> Self {
        Self {
            actor: Actor::broker(),
            entry: Some(entry),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`EntryFault::TooLarge`]; nothing else can fail.
    pub fn encode(&self) -> Result<Vec<u8>, EntryFault> {
        let entry = self
            .entry
            .as_ref()
            .ok_or(EntryFault::Malformed("nothing to write"))?;
        let (kind, body) = match entry {
            Entry::Term => (Kind::Term, Ok(Vec::new())),
            Entry::Site { uuid } => (Kind::Site, postcard::to_allocvec(uuid)),
            Entry::Node(node) => (Kind::Node, postcard::to_allocvec(node)),
            Entry::Topic(topic) => (Kind::Topic, postcard::to_allocvec(topic)),
            Entry::Partition(rows) => (Kind::Partition, postcard::to_allocvec(rows)),
            Entry::TopicDel { topic } => (Kind::TopicDel, postcard::to_allocvec(topic)),
            Entry::Config {
                topic,
                configs,
                share,
            } => (
                Kind::Config,
                postcard::to_allocvec(&(topic, configs, share)),
            ),
            Entry::Pids { node, first } => (Kind::Pids, postcard::to_allocvec(&(node, first))),
            Entry::Drain { node, on } => (Kind::Drain, postcard::to_allocvec(&(node, on))),
            Entry::SiteVersion { version } => (Kind::SiteVersion, postcard::to_allocvec(version)),
            Entry::Reassign(rows) => (Kind::Reassign, postcard::to_allocvec(rows)),
            Entry::Voters(voters) => (Kind::Voters, postcard::to_allocvec(voters)),
        };
        let body = body.map_err(|_| EntryFault::Malformed("can't be written"))?;
        let frame = Frame {
            kind: kind as u16,
            must: true,
            actor: self.actor.clone(),
            body: &body,
        };
        let bytes =
            postcard::to_allocvec(&frame).map_err(|_| EntryFault::Malformed("can't be written"))?;
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(EntryFault::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads what [`Record::encode`] of this or a newer release wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryFault> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(EntryFault::TooLarge(bytes.len()));
        }
        let frame: Frame<'_> = fields(bytes)?;
        if frame.actor.principal.len() > PRINCIPAL_BYTES_MAX {
            return Err(EntryFault::Malformed("a principal beyond 255 bytes"));
        }
        let body = frame.body;
        let entry = match frame.kind {
            0 => Entry::Term,
            1 => Entry::Site {
                uuid: fields(body)?,
            },
            2 => {
                let node: Node = fields(body)?;
                if node.public_key.len() > PUBLIC_KEY_BYTES_MAX {
                    return Err(EntryFault::Malformed("a public key beyond 128 bytes"));
                }
                Entry::Node(node)
            }
            3 => Entry::Topic(fields(body)?),
            4 => Entry::Partition(fields(body)?),
            5 => Entry::TopicDel {
                topic: fields(body)?,
            },
            6 => {
                let (topic, configs, share) = fields(body)?;
                Entry::Config {
                    topic,
                    configs,
                    share,
                }
            }
            7 => {
                let (node, first) = fields(body)?;
                Entry::Pids { node, first }
            }
            10 => {
                let (node, on) = fields(body)?;
                Entry::Drain { node, on }
            }
            11 => Entry::SiteVersion {
                version: fields(body)?,
            },
            15 => Entry::Reassign(fields(body)?),
            16 => {
                let voters: Voters = fields(body)?;
                if !voters.is_sound() {
                    return Err(EntryFault::Malformed(
                        "voters beyond their bound, or one twice",
                    ));
                }
                Entry::Voters(voters)
            }
            unknown if frame.must => return Err(EntryFault::Unknown(unknown)),
            _ => {
                return Ok(Self {
                    actor: frame.actor,
                    entry: None,
                });
            }
        };
        Ok(Self {
            actor: frame.actor,
            entry: Some(entry),
        })
    }
}

/// The known fields at the front; a newer release's behind them are passed over.
fn fields<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EntryFault> {
    postcard::take_from_bytes(bytes)
        .map(|(fields, _newer)| fields)
        .map_err(|_| EntryFault::Malformed("not the fields of its kind"))
}
