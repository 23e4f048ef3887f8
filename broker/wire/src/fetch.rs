//! Fetch requests, versions 4 to 17, read by hand.
//!
//! ```text
//! replica_id i32 (to 14) · max_wait_ms i32 · min_bytes i32 · max_bytes i32 · isolation i8 ·
//! session_id i32 · session_epoch i32 (7+) ·
//! topics[ name (to 12) or id 16 B · partitions[ index i32 · current_leader_epoch i32 (9+) · fetch_offset i64 ·
//!         last_fetched_epoch i32 (12+) · log_start_offset i64 (5+) · max_bytes i32 · tags { 0: directory id } ] tags ] ·
//! forgotten[ name or id · indexes[ i32 ] · tags ] (7+) · rack string (11+) ·
//! tags { 0: cluster_id, 1: replica id i32, replica epoch i64 (15+) }
//! ```
//! From 12 on lengths are compact and structures end in tags. Three vectors hold a request of any shape; names are
//! copied, because sessions keep them longer than the frame lives.

use bytes::Bytes;
use model::{LeaderEpoch, Offset, TopicId, Uuid};

use crate::RequestHeader;
use crate::reader::{DecodeError, Fault, Reader};

const LOG_START_FROM: i16 = 5;
const SESSIONS_FROM: i16 = 7;
const LEADER_EPOCH_FROM: i16 = 9;
const RACK_FROM: i16 = 11;
const LAST_EPOCH_FROM: i16 = 12;
/// KIP-516: topics by id.
pub(crate) const TOPIC_IDS_FROM: i16 = 13;
const REPLICA_STATE_FROM: i16 = 15;

/// What a client, or one day a replica, wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// −1 for a consumer. The broker's own replicas use another protocol, so any other value is a foreign broker.
    pub replica_id: i32,
    /// Longest wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes worth answering for before the wait ends.
    pub min_bytes: i32,
    /// Bound of the whole answer's records; the first batch comes even if it is larger (KIP-74).
    pub max_bytes: i32,
    /// Whether records of open transactions are shown.
    pub isolation: Isolation,
    /// The fetch session (KIP-227); 0 for none.
    pub session_id: i32,
    /// Its epoch: −1 asks for no session, 0 for a new one.
    pub session_epoch: i32,
    /// The topics that `partitions` and `forgotten` point at: each name is held once.
    pub topics: Vec<TopicRef>,
    /// What is asked for, in the request's order; in a session, what has changed.
    pub partitions: Vec<FetchPartition>,
    /// Partitions that leave the session.
    pub forgotten: Vec<Forgotten>,
    /// The consumer's rack (KIP-392); empty for none.
    pub rack: Box<str>,
    /// The cluster the asker believes to talk to, if it says so.
    pub cluster_id: Option<Box<str>>,
}

/// A topic by the name or the id the request used; the answer must use the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// To version 12.
    Name(Box<str>),
    /// From version 13 on.
    Id(TopicId),
}

/// A partition and where to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// Index in `topics`.
    pub topic: u32,
    /// The partition's index, as claimed: it may be negative.
    pub index: i32,
    /// The leader epoch the client believes in; `NONE` if it has no opinion.
    pub current_leader_epoch: LeaderEpoch,
    /// The first offset wanted.
    pub offset: Offset,
    /// The leader epoch of the record before `offset`; `NONE` if not known.
    pub last_fetched_epoch: LeaderEpoch,
    /// A follower's log start; −1 from consumers.
    pub log_start: Offset,
    /// Bound of this partition's records in bytes.
    pub max_bytes: i32,
}

/// A partition that leaves a fetch session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Index in `topics`.
    pub topic: u32,
    /// Its index, as claimed.
    pub index: i32,
}

/// What a reader may see of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Everything below the high watermark.
    #[default]
    ReadUncommitted,
    /// Everything below the last stable offset, and which of it was aborted.
    ReadCommitted,
}

impl Isolation {
    /// The level of a wire value; none if the protocol has no such level.
    #[must_use]
    pub const fn from_wire(level: i8) -> Option<Self> {
        match level {
            0 => Some(Self::ReadUncommitted),
            1 => Some(Self::ReadCommitted),
            _ => None,
        }
    }
}

impl FetchRequest {
    /// Reads the body behind `header`.
    pub(crate) fn decode(frame: &Bytes, header: &RequestHeader<'_>) -> Result<Self, DecodeError> {
        let version = header.call.version;
        let mut reader = Reader::of_body(frame, header.call, header.body_at);
        let mut request = Self {
            replica_id: if version < REPLICA_STATE_FROM {
                reader.i32("replica_id")?
            } else {
                -1
            },
            max_wait_ms: reader.i32("max_wait_ms")?,
            min_bytes: reader.i32("min_bytes")?,
            max_bytes: reader.i32("max_bytes")?,
            isolation: isolation(&mut reader)?,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            partitions: Vec::new(),
            forgotten: Vec::new(),
            rack: Box::default(),
            cluster_id: None,
        };
        if version >= SESSIONS_FROM {
            request.session_id = reader.i32("session_id")?;
            request.session_epoch = reader.i32("session_epoch")?;
        }
        request.read_topics(version, &mut reader)?;
        if version >= SESSIONS_FROM {
            request.read_forgotten(version, &mut reader)?;
        }
        if version >= RACK_FROM {
            request.rack = reader.string("rack_id")?.into();
        }
        reader.tags(|tag, inner| {
            match tag {
                0 => request.cluster_id = inner.nullable_string("cluster_id")?.map(Into::into),
                1 if version >= REPLICA_STATE_FROM => {
                    request.replica_id = inner.i32("replica_state.replica_id")?;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(request)
    }

    fn read_topics(&mut self, version: i16, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let count = reader.count("topics", topic_bytes_min(version))?;
        self.topics.reserve_exact(count as usize);
        for topic in 0..count {
            self.topics.push(topic_ref(version, reader)?);
            let count = reader.count("partitions", partition_bytes_min(version))?;
            self.partitions.reserve(count as usize);
            for _ in 0..count {
                let mut partition = FetchPartition {
                    topic,
                    index: reader.i32("partition")?,
                    current_leader_epoch: LeaderEpoch::NONE,
                    offset: Offset(-1),
                    last_fetched_epoch: LeaderEpoch::NONE,
                    log_start: Offset(-1),
                    max_bytes: 0,
                };
                if version >= LEADER_EPOCH_FROM {
                    partition.current_leader_epoch =
                        LeaderEpoch(reader.i32("current_leader_epoch")?);
                }
                partition.offset = Offset(reader.i64("fetch_offset")?);
                if version >= LAST_EPOCH_FROM {
                    partition.last_fetched_epoch = LeaderEpoch(reader.i32("last_fetched_epoch")?);
                }
                if version >= LOG_START_FROM {
                    partition.log_start = Offset(reader.i64("log_start_offset")?);
                }
                partition.max_bytes = reader.i32("partition_max_bytes")?;
                reader.skip_tags()?;
                self.partitions.push(partition);
            }
            reader.skip_tags()?;
        }
        Ok(())
    }

    fn read_forgotten(&mut self, version: i16, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..reader.count("forgotten_topics_data", topic_bytes_min(version))? {
            let topic = self.topics.len() as u32; // bounded by the cap
            self.topics.push(topic_ref(version, reader)?);
            for _ in 0..reader.count("forgotten partitions", 4)? {
                self.forgotten.push(Forgotten {
                    topic,
                    index: reader.i32("forgotten partition")?,
                });
            }
            reader.skip_tags()?;
        }
        Ok(())
    }
}

fn isolation(reader: &mut Reader<'_>) -> Result<Isolation, DecodeError> {
    let level = reader.i8("isolation_level")?;
    Isolation::from_wire(level)
        .ok_or_else(|| reader.fault("isolation_level", Fault::Undefined(level.into())))
}

fn topic_ref(version: i16, reader: &mut Reader<'_>) -> Result<TopicRef, DecodeError> {
    Ok(if version >= TOPIC_IDS_FROM {
        TopicRef::Id(TopicId(Uuid(reader.uuid("topic_id")?)))
    } else {
        TopicRef::Name(reader.string("topic")?.into())
    })
}

/// An empty name or an id, a count and, in the compact form, tags.
const fn topic_bytes_min(version: i16) -> usize {
    match version {
        ..12 => 6,
        12 => 3,
        _ => 18,
    }
}

/// The fixed fields and, in the compact form, tags.
const fn partition_bytes_min(version: i16) -> usize {
    match version {
        ..5 => 16,
        5..9 => 24,
        9..12 => 28,
        _ => 33,
    }
}
