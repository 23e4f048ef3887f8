//! Produce, versions 3 to 11, read by hand straight from the frame, and its answer.
//!
//! ```text
//! request   transactional_id nullable string · acks i16 · timeout_ms i32 · topics[ name · partitions[ index i32 ·
//!           records nullable bytes · tags ] tags ] tags
//! answer    topics[ name · partitions[ index i32 · error i16 · base_offset i64 · log_append_time i64 ·
//!           log_start_offset i64 (5+) · record_errors[ index i32 · message ] (8+) · error_message (8+) ·
//!           tags { 0: leader i32, epoch i32 } (10+) ] tags ] · throttle_ms i32 ·
//!           tags { 0: nodes[ id i32 · host · port i32 · rack ] } (10+)
//! ```
//! From 9 on lengths are compact and structures end in tags.
//!
//! Decoding allocates nothing: the whole frame is walked once and checked, and the iterator then walks it again, so
//! that topics and batches stay where the socket put them. What lies inside a batch is not looked at.

use bytes::Bytes;
use model::{LeaderEpoch, NodeId, Offset, WallMs};

use crate::error::ErrorCode;
use crate::reader::{DecodeError, Reader};
use crate::writer::Writer;
use crate::{Call, RequestHeader};

const LOG_START_FROM: i16 = 5;
const RECORD_ERRORS_FROM: i16 = 8;
/// KIP-951: who leads instead, and where it listens.
const LEADER_HINT_FROM: i16 = 10;

/// A checked request. It keeps the frame alive: drop it when the batches are copied.
#[derive(Clone, Debug)]
pub struct ProduceRequest {
    frame: Bytes,
    call: Call,
    body_at: usize,
    topics_at: usize,
    /// Replicas that must have the batch before the answer: −1 for all, 1 for the leader, 0 for no answer at all.
    /// Anything else is INVALID_REQUIRED_ACKS.
    pub acks: i16,
    /// How long the client lets the broker wait for replicas, in milliseconds.
    pub timeout_ms: i32,
    partitions_count: u32,
}

/// The records a request has for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecords<'a> {
    /// The topic's name; repeated for each of its partitions.
    pub topic: &'a str,
    /// The partition's index, as claimed: it may be negative.
    pub index: i32,
    /// Record batches as the client sent them, a slice of the frame. Null and empty are both INVALID_RECORD.
    pub records: Option<Bytes>,
}

impl ProduceRequest {
    /// Checks the whole body: every length against what is left, names for UTF-8.
    pub(crate) fn decode(frame: &Bytes, header: &RequestHeader<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_body(frame, header.call, header.body_at);
        reader.nullable_string("transactional_id")?;
        let acks = reader.i16("acks")?;
        let timeout_ms = reader.i32("timeout_ms")?;
        let topics_at = reader.at();
        let mut walk = Walk::begin(reader)?;
        let mut partitions_count = 0;
        while walk.next()?.is_some() {
            partitions_count += 1;
        }
        walk.reader.skip_tags()?;
        Ok(Self {
            frame: frame.clone(),
            call: header.call,
            body_at: header.body_at,
            topics_at,
            acks,
            timeout_ms,
            partitions_count,
        })
    }

    /// The id of a transactional producer; none for all others.
    #[must_use]
    pub fn transactional_id(&self) -> Option<&str> {
        Reader::of_body(&self.frame, self.call, self.body_at)
            .nullable_string("transactional_id")
            .expect("checked by decode")
    }

    /// How many partitions the request has records for; below `ELEMENTS_MAX`.
    #[must_use]
    pub fn partitions_count(&self) -> usize {
        self.partitions_count as usize
    }

    /// The partitions in the request's order, which is also that of `ProduceAnswer::partitions`.
    #[must_use]
    pub fn partitions(&self) -> Partitions<'_> {
        let reader = Reader::of_body(&self.frame, self.call, self.topics_at);
        Partitions {
            frame: &self.frame,
            walk: Walk::begin(reader).expect("checked by decode"),
            left: self.partitions_count as usize,
        }
    }

    /// An answer with the request's topics and partitions, each saying `error` until it is filled. It holds copies of
    /// the names, so the frame may go.
    #[must_use]
    pub fn answer(&self, error: ErrorCode) -> ProduceAnswer {
        let mut answer = ProduceAnswer {
            topics: Vec::new(),
            partitions: Vec::with_capacity(self.partitions_count()),
            nodes: Vec::new(),
        };
        let reader = Reader::of_body(&self.frame, self.call, self.topics_at);
        let mut walk = Walk::begin(reader).expect("checked by decode");
        while let Some(found) = walk.next().expect("checked by decode") {
            // Two entries of one topic are told apart by the place its name has in the frame.
            let same = answer
                .topics
                .last()
                .is_some_and(|topic| topic.name_at == found.topic_at);
            if !same {
                answer.topics.push(Topic {
                    name: found.topic.into(),
                    name_at: found.topic_at,
                    end: 0,
                });
            }
            answer
                .partitions
                .push(PartitionAnswer::refused(found.index, error));
            if let Some(topic) = answer.topics.last_mut() {
                topic.end = answer.partitions.len();
            }
        }
        answer
    }
}

/// Iterates over the partitions of a checked request.
#[derive(Debug)]
pub struct Partitions<'a> {
    frame: &'a Bytes,
    walk: Walk<'a>,
    left: usize,
}

impl<'a> Iterator for Partitions<'a> {
    type Item = PartitionRecords<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.walk.next().expect("checked by decode")?;
        self.left -= 1;
        Some(PartitionRecords {
            topic: found.topic,
            index: found.index,
            records: found.records.map(|records| self.frame.slice_ref(records)),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Partitions<'_> {}

/// Where the walk through topics and partitions stands.
#[derive(Debug)]
struct Walk<'a> {
    reader: Reader<'a>,
    topics_left: u32,
    topic: &'a str,
    topic_at: usize,
    /// Partitions left of the topic; none before the first topic and behind a topic's tags.
    partitions_left: Option<u32>,
}

struct Found<'a> {
    topic: &'a str,
    topic_at: usize,
    index: i32,
    records: Option<&'a [u8]>,
}

impl<'a> Walk<'a> {
    fn begin(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        // A topic takes at least a length and a count, in the compact form also tags.
        let topic_bytes_min = if reader.flexible() { 3 } else { 6 };
        let topics_left = reader.count("topic_data", topic_bytes_min)?;
        Ok(Self {
            reader,
            topics_left,
            topic: "",
            topic_at: 0,
            partitions_left: None,
        })
    }

    /// The next partition; `None` behind the last topic.
    fn next(&mut self) -> Result<Option<Found<'a>>, DecodeError> {
        loop {
            match self.partitions_left {
                Some(0) => {
                    self.reader.skip_tags()?;
                    self.partitions_left = None;
                }
                Some(left) => {
                    self.partitions_left = Some(left - 1);
                    let index = self.reader.i32("index")?;
                    let records = self.reader.nullable_bytes("records")?;
                    self.reader.skip_tags()?;
                    return Ok(Some(Found {
                        topic: self.topic,
                        topic_at: self.topic_at,
                        index,
                        records,
                    }));
                }
                None if self.topics_left == 0 => return Ok(None),
                None => {
                    self.topics_left -= 1;
                    self.topic_at = self.reader.at();
                    self.topic = self.reader.string("name")?;
                    let partition_bytes_min = if self.reader.flexible() { 6 } else { 8 };
                    let count = self.reader.count("partition_data", partition_bytes_min)?;
                    self.partitions_left = Some(count);
                }
            }
        }
    }
}

/// The answer to a Produce. Topics and their names are the request's; `partitions` is filled by position.
#[derive(Clone, Debug, Default)]
pub struct ProduceAnswer {
    topics: Vec<Topic>,
    /// One entry for each partition of the request, in its order.
    pub partitions: Vec<PartitionAnswer>,
    /// Where the leaders named in `partitions` listen; left empty when no one is named.
    pub nodes: Vec<NodeEndpoint>,
}

#[derive(Clone, Debug)]
struct Topic {
    name: Box<str>,
    name_at: usize,
    /// Behind the topic's last entry in `partitions`.
    end: usize,
}

/// What became of one partition's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// The partition's index, repeated.
    pub index: i32,
    /// Success or the reason of the refusal.
    pub error: ErrorCode,
    /// Offset of the batch's first record; −1 on errors.
    pub base_offset: Offset,
    /// The broker's time with `message.timestamp.type=LogAppendTime`, −1 otherwise.
    pub log_append_time: WallMs,
    /// First offset of the partition's log; −1 on errors.
    pub log_start: Offset,
    /// The records at fault (KIP-467), known from version 8 on.
    pub record_errors: Vec<RecordError>,
    /// A sentence about `error`, known from version 8 on.
    pub message: Option<Box<str>>,
    /// Who leads instead (KIP-951), known from version 10 on. Name it only with NOT_LEADER_OR_FOLLOWER.
    pub leader: Option<LeaderHint>,
}

impl PartitionAnswer {
    /// An answer that says `error` and no more.
    #[must_use]
    pub const fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            base_offset: Offset(-1),
            log_append_time: WallMs(-1),
            log_start: Offset(-1),
            record_errors: Vec::new(),
            message: None,
            leader: None,
        }
    }
}

/// A record that failed the broker's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in its batch, from 0.
    pub index: i32,
    /// What is wrong with it.
    pub message: Option<Box<str>>,
}

/// A partition's leader and the epoch it leads in (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leading node.
    pub node: NodeId,
    /// Its leader epoch.
    pub epoch: LeaderEpoch,
}

/// Where a node named in a hint listens (KIP-951).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The node.
    pub node: NodeId,
    /// Its advertised host.
    pub host: Box<str>,
    /// Its advertised port.
    pub port: u16,
    /// Its rack, if it has one.
    pub rack: Option<Box<str>>,
}

impl ProduceAnswer {
    /// Encodes the answer to `call`, size first.
    ///
    /// # Panics
    /// If entries were added to or taken from `partitions`.
    pub(crate) fn encode(&self, call: Call) -> Bytes {
        let named = self
            .topics
            .iter()
            .map(|topic| topic.name.len())
            .sum::<usize>();
        let mut out = Writer::answer(call, 64 + named + 64 * self.partitions.len());
        out.length(Some(self.topics.len()));
        let mut begin = 0;
        for topic in &self.topics {
            let partitions = &self.partitions[begin..topic.end];
            begin = topic.end;
            out.string(&topic.name);
            out.length(Some(partitions.len()));
            for partition in partitions {
                partition.encode(call.version, &mut out);
            }
            out.no_tags();
        }
        assert_eq!(begin, self.partitions.len(), "one entry a partition");
        out.i32(0); // throttle_time_ms
        if call.version >= LEADER_HINT_FROM && !self.nodes.is_empty() {
            out.uvarint(1);
            out.tag(0, |out| encode_nodes(&self.nodes, out));
        } else {
            out.no_tags();
        }
        out.finish(0)
    }
}

impl PartitionAnswer {
    fn encode(&self, version: i16, out: &mut Writer) {
        out.i32(self.index);
        out.i16(self.error.code());
        out.i64(self.base_offset.0);
        out.i64(self.log_append_time.0);
        if version >= LOG_START_FROM {
            out.i64(self.log_start.0);
        }
        if version >= RECORD_ERRORS_FROM {
            out.length(Some(self.record_errors.len()));
            for error in &self.record_errors {
                out.i32(error.index);
                out.nullable_string(error.message.as_deref());
                out.no_tags();
            }
            out.nullable_string(self.message.as_deref());
        }
        match self.leader {
            Some(hint) if version >= LEADER_HINT_FROM => {
                out.uvarint(1);
                out.tag(0, |out| hint.encode(out));
            }
            _ => out.no_tags(),
        }
    }
}

impl LeaderHint {
    /// The body of the current_leader tag, shared with Fetch.
    pub(crate) fn encode(self, out: &mut Writer) {
        out.i32(self.node.0 as i32);
        out.i32(self.epoch.0);
        out.no_tags();
    }
}

/// The body of the node_endpoints tag, shared with Fetch.
pub(crate) fn encode_nodes(nodes: &[NodeEndpoint], out: &mut Writer) {
    out.length(Some(nodes.len()));
    for node in nodes {
        out.i32(node.node.0 as i32);
        out.string(&node.host);
        out.i32(i32::from(node.port));
        out.nullable_string(node.rack.as_deref());
        out.no_tags();
    }
}
