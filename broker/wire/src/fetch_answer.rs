//! The answer to a Fetch, as pieces: bytes made here and ranges of files that the shell sends by `sendfile`.
//!
//! ```text
//! throttle_ms i32 · error i16 · session_id i32 (7+) · topics[ name (to 12) or id 16 B · partitions[ index i32 ·
//!   error i16 · high_watermark i64 · last_stable_offset i64 · log_start_offset i64 (5+) ·
//!   aborted nullable [ producer_id i64 · first_offset i64 · tags ] · preferred_read_replica i32 (11+) ·
//!   records: length, bytes · tags { 0: diverging epoch i32, end_offset i64; 1: leader i32, epoch i32 } (12+) ] tags ] ·
//! tags { 0: nodes[ id i32 · host · port i32 · rack ] } (16+)
//! ```
//! Only the length of the records is written here; so an answer is head, range, 1 to some 30 bytes, range, ..., tail.
//! Files are never touched, and a range is only asked for its length.

use bytes::Bytes;
use model::{LeaderEpoch, Offset, ProducerId};

use crate::Call;
use crate::error::ErrorCode;
use crate::fetch::{FetchRequest, TOPIC_IDS_FROM, TopicRef};
use crate::produce::{LeaderHint, NodeEndpoint, encode_nodes};
use crate::writer::Writer;

const LOG_START_FROM: i16 = 5;
const STORAGE_ERROR_FROM: i16 = 6;
const SESSIONS_FROM: i16 = 7;
const PREFERRED_REPLICA_FROM: i16 = 11;
const PARTITION_TAGS_FROM: i16 = 12;
const NODES_FROM: i16 = 16;

/// Bytes that lie elsewhere and whose number is known.
pub trait FileRange {
    /// How many bytes the range holds.
    fn bytes_count(&self) -> u64;
}

/// The range of an answer that has no records, as all refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRange {}

impl FileRange for NoRange {
    fn bytes_count(&self) -> u64 {
        match *self {}
    }
}

/// The answer to a Fetch.
#[derive(Clone, Debug)]
pub struct FetchAnswer<R> {
    /// An error of the whole request, as those of sessions; known from version 7 on.
    pub error: ErrorCode,
    /// The fetch session to go on with; 0 for none.
    pub session_id: i32,
    /// What was read.
    pub topics: Vec<TopicRecords<R>>,
    /// Where the leaders named in the partitions listen (KIP-951, known from version 16 on).
    pub nodes: Vec<NodeEndpoint>,
}

/// What was read of one topic.
#[derive(Clone, Debug)]
pub struct TopicRecords<R> {
    /// The topic as the request named it.
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<PartitionFetched<R>>,
}

/// What was read of one partition.
#[derive(Clone, Debug)]
pub struct PartitionFetched<R> {
    /// The partition's index, repeated.
    pub index: i32,
    /// Success, or one of the errors that behaviour 19 allows.
    pub error: ErrorCode,
    /// −1 on errors.
    pub high_watermark: Offset,
    /// −1 on errors.
    pub last_stable: Offset,
    /// −1 on errors.
    pub log_start: Offset,
    /// Aborted transactions that touch the records, by first offset; `None` unless the reader is `ReadCommitted`.
    pub aborted: Option<Vec<Aborted>>,
    /// Where the fetcher's log left the leader's (KIP-595's truncation on fetch): the last epoch in common and its end.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Who leads instead (KIP-951). Name it only with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH.
    pub leader: Option<LeaderHint>,
    /// Whole batches, in order. Empty means length 0, never null.
    pub records: Vec<R>,
}

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Whose it was.
    pub producer: ProducerId,
    /// The first offset it wrote.
    pub first: Offset,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment<R> {
    /// Framing made here.
    Bytes(Bytes),
    /// Records that lie elsewhere.
    Range(R),
}

impl<R> PartitionFetched<R> {
    /// An answer that says `error` and no more.
    #[must_use]
    pub const fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            high_watermark: Offset(-1),
            last_stable: Offset(-1),
            log_start: Offset(-1),
            aborted: None,
            diverging: None,
            leader: None,
            records: Vec::new(),
        }
    }
}

impl<R> FetchAnswer<R> {
    /// An answer that refuses all of `request` with `error`: as a whole where the version can say so and the error is
    /// one of sessions, else partition by partition, which is what clients act on.
    #[must_use]
    pub fn refused(request: &FetchRequest, error: ErrorCode) -> Self {
        let mut answer = Self {
            error: ErrorCode::None,
            session_id: 0,
            topics: Vec::new(),
            nodes: Vec::new(),
        };
        if matches!(
            error,
            ErrorCode::FetchSessionIdNotFound
                | ErrorCode::InvalidFetchSessionEpoch
                | ErrorCode::FetchSessionTopicIdError
        ) {
            answer.error = error;
            return answer;
        }
        let mut last = None;
        for partition in &request.partitions {
            if last.replace(partition.topic) != Some(partition.topic) {
                answer.topics.push(TopicRecords {
                    topic: request.topics[partition.topic as usize].clone(),
                    partitions: Vec::new(),
                });
            }
            let topic = answer.topics.last_mut().expect("pushed above");
            topic
                .partitions
                .push(PartitionFetched::refused(partition.index, error));
        }
        answer
    }
}

/// Encodes the answer to `call`: segments to be sent one behind the other, the frame's size first. They alternate
/// between bytes and runs of ranges, begin with bytes, and empty ranges are left out.
///
/// # Panics
/// If the answer exceeds 2 GiB, or a topic is named in the form that `call` does not use.
#[must_use]
pub fn encode<R: FileRange>(call: Call, answer: FetchAnswer<R>) -> Vec<Segment<R>> {
    let partitions = answer.topics.iter().map(|topic| topic.partitions.len());
    let mut out = Writer::answer(
        call,
        64 + partitions.sum::<usize>() * 64 + answer.topics.len() * 64,
    );
    // Ranges and where in the bytes they belong.
    let mut cuts = Vec::new();
    let mut elsewhere = 0;
    out.i32(0); // throttle_time_ms
    if call.version >= SESSIONS_FROM {
        out.i16(answer.error.code());
        out.i32(answer.session_id);
    }
    out.length(Some(answer.topics.len()));
    for topic in answer.topics {
        match &topic.topic {
            TopicRef::Name(name) if call.version < TOPIC_IDS_FROM => out.string(name),
            TopicRef::Id(id) if call.version >= TOPIC_IDS_FROM => out.raw(&id.0.0),
            other => panic!("{other:?} in a Fetch of version {}", call.version),
        }
        out.length(Some(topic.partitions.len()));
        for partition in topic.partitions {
            partition.encode_head(call.version, &mut out);
            let bytes_count = partition
                .records
                .iter()
                .map(FileRange::bytes_count)
                .sum::<u64>();
            out.length(Some(
                usize::try_from(bytes_count).expect("an answer is far below 2 GiB"),
            ));
            elsewhere += bytes_count;
            let at = out.at();
            partition.encode_tags(call.version, &mut out);
            let ranges = partition.records.into_iter();
            cuts.extend(
                ranges
                    .filter(|range| range.bytes_count() > 0)
                    .map(|range| (at, range)),
            );
        }
        out.no_tags();
    }
    if call.version >= NODES_FROM && !answer.nodes.is_empty() {
        out.uvarint(1);
        out.tag(0, |out| encode_nodes(&answer.nodes, out));
    } else {
        out.no_tags();
    }
    split(out.finish(elsewhere), cuts)
}

/// Puts the ranges between the bytes, each at its cut; cuts rise.
fn split<R>(mut bytes: Bytes, cuts: Vec<(usize, R)>) -> Vec<Segment<R>> {
    let mut segments = Vec::with_capacity(2 * cuts.len() + 1);
    let mut done = 0;
    for (at, range) in cuts {
        if at > done {
            segments.push(Segment::Bytes(bytes.split_to(at - done)));
            done = at;
        }
        segments.push(Segment::Range(range));
    }
    if !bytes.is_empty() {
        segments.push(Segment::Bytes(bytes));
    }
    segments
}

impl<R> PartitionFetched<R> {
    /// Everything before the records' length.
    fn encode_head(&self, version: i16, out: &mut Writer) {
        out.i32(self.index);
        // Clients of older versions don't know the code; Kafka sends them to look for a leader, and so do we.
        let error = match self.error {
            ErrorCode::KafkaStorageError if version < STORAGE_ERROR_FROM => {
                ErrorCode::NotLeaderOrFollower
            }
            error => error,
        };
        out.i16(error.code());
        out.i64(self.high_watermark.0);
        out.i64(self.last_stable.0);
        if version >= LOG_START_FROM {
            out.i64(self.log_start.0);
        }
        out.length(self.aborted.as_ref().map(Vec::len));
        for aborted in self.aborted.iter().flatten() {
            out.i64(aborted.producer.0);
            out.i64(aborted.first.0);
            out.no_tags();
        }
        if version >= PREFERRED_REPLICA_FROM {
            out.i32(-1); // preferred_read_replica: only leaders serve consumers
        }
    }

    /// Everything behind the records.
    fn encode_tags(&self, version: i16, out: &mut Writer) {
        if version < PARTITION_TAGS_FROM {
            return;
        }
        out.uvarint(u32::from(self.diverging.is_some()) + u32::from(self.leader.is_some()));
        if let Some((epoch, end)) = self.diverging {
            out.tag(0, |out| {
                out.i32(epoch.0);
                out.i64(end.0);
                out.no_tags();
            });
        }
        if let Some(hint) = self.leader {
            out.tag(1, |out| hint.encode(out));
        }
    }
}
