//! Fetch against kafka-protocol: its encoder writes the requests, and the answers must be its bytes.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use kafka_protocol::messages::fetch_response as theirs;
use kafka_protocol::messages::{self, BrokerId, FetchResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use model::{LeaderEpoch, NodeId, Offset, ProducerId, TopicId, Uuid};

use super::{Rng, answer_body, call, frame};
use crate::fetch::{FetchRequest, TopicRef};
use crate::fetch_answer::{
    Aborted, FetchAnswer, FileRange, PartitionFetched, Segment, TopicRecords,
};
use crate::produce::{LeaderHint, NodeEndpoint};
use crate::{Api, ErrorCode, Request, RequestHeader, decode, fetch_answer};

const VERSIONS: std::ops::RangeInclusive<i16> = 4..=17;

/// A range whose bytes are at hand, so that an answer can be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Memory(Bytes);

impl FileRange for Memory {
    fn bytes_count(&self) -> u64 {
        self.0.len() as u64
    }
}

pub(crate) fn random(rng: &mut Rng, version: i16) -> messages::FetchRequest {
    let id = |rng: &mut Rng| uuid::Uuid::from_u64_pair(rng.next(), rng.next());
    let topics = (0..rng.below(4)).map(|_| {
        let partitions = (0..rng.below(4)).map(|_| {
            let mut part = FetchPartition::default()
                .with_partition(rng.next() as i32)
                .with_fetch_offset(rng.next() as i64)
                .with_partition_max_bytes(rng.next() as i32);
            if version >= 5 {
                part = part.with_log_start_offset(rng.next() as i64);
            }
            if version >= 9 {
                part = part.with_current_leader_epoch(rng.next() as i32);
            }
            if version >= 12 {
                part = part.with_last_fetched_epoch(rng.next() as i32);
            }
            if version >= 17 && rng.chance(2) {
                part = part.with_replica_directory_id(id(rng));
            }
            part
        });
        let topic = FetchTopic::default().with_partitions(partitions.collect());
        if version >= 13 {
            topic.with_topic_id(id(rng))
        } else {
            topic.with_topic(TopicName(rng.text()))
        }
    });
    let mut request = messages::FetchRequest::default()
        .with_topics(topics.collect())
        .with_max_wait_ms(rng.next() as i32)
        .with_min_bytes(rng.next() as i32)
        .with_max_bytes(rng.next() as i32)
        .with_isolation_level((rng.next() & 1) as i8);
    if version >= 7 {
        let forgotten = (0..rng.below(3)).map(|_| {
            let topic = ForgottenTopic::default().with_partitions(vec![1, rng.next() as i32]);
            if version >= 13 {
                topic.with_topic_id(id(rng))
            } else {
                topic.with_topic(TopicName(rng.text()))
            }
        });
        request = request
            .with_forgotten_topics_data(forgotten.collect())
            .with_session_id(rng.next() as i32)
            .with_session_epoch(rng.next() as i32);
    }
    if version >= 11 {
        request = request.with_rack_id(rng.text());
    }
    if version >= 12 && rng.chance(2) {
        request = request.with_cluster_id(Some(rng.text()));
    }
    if version >= 15 && rng.chance(2) {
        let state = ReplicaState::default()
            .with_replica_id(BrokerId(4))
            .with_replica_epoch(9);
        return request.with_replica_state(state);
    }
    if version < 15 {
        request = request.with_replica_id(BrokerId(rng.next() as i32));
    }
    request
}

pub(crate) fn encoded(request: &messages::FetchRequest, version: i16) -> Bytes {
    let mut body = Vec::new();
    request.encode(&mut body, version).unwrap();
    frame(Api::Fetch, version, &body)
}

fn decoded(frame: &Bytes) -> FetchRequest {
    match decode(frame, &RequestHeader::read(frame).unwrap()).unwrap() {
        Request::Fetch(request) => request,
        other => panic!("{other:?}"),
    }
}

fn topic_ref(version: i16, name: &TopicName, id: uuid::Uuid) -> TopicRef {
    if version >= 13 {
        TopicRef::Id(crate::topic_id(id))
    } else {
        TopicRef::Name(name.as_str().into())
    }
}

#[test]
fn requests_are_read_as_they_were_written() {
    let mut rng = Rng::seeded(20);
    for version in VERSIONS {
        for _ in 0..200 {
            let theirs = random(&mut rng, version);
            let ours = decoded(&encoded(&theirs, version));
            assert_eq!(ours.max_wait_ms, theirs.max_wait_ms);
            assert_eq!(ours.min_bytes, theirs.min_bytes);
            assert_eq!(ours.max_bytes, theirs.max_bytes);
            assert_eq!(ours.isolation as i8, theirs.isolation_level);
            assert_eq!(ours.session_id, theirs.session_id);
            assert_eq!(ours.session_epoch, theirs.session_epoch);
            assert_eq!(&*ours.rack, theirs.rack_id.as_str());
            assert_eq!(ours.cluster_id.as_deref(), theirs.cluster_id.as_deref());
            let replica = if version < 15 {
                theirs.replica_id
            } else {
                theirs.replica_state.replica_id
            };
            assert_eq!(ours.replica_id, replica.0);

            let mut parts = ours.partitions.iter();
            for topic in &theirs.topics {
                for wanted in &topic.partitions {
                    let part = parts.next().unwrap();
                    let named = &ours.topics[part.topic as usize];
                    assert_eq!(*named, topic_ref(version, &topic.topic, topic.topic_id));
                    assert_eq!(part.index, wanted.partition);
                    assert_eq!(part.offset, Offset(wanted.fetch_offset));
                    assert_eq!(part.max_bytes, wanted.partition_max_bytes);
                    assert_eq!(
                        part.current_leader_epoch,
                        LeaderEpoch(wanted.current_leader_epoch)
                    );
                    assert_eq!(
                        part.last_fetched_epoch,
                        LeaderEpoch(wanted.last_fetched_epoch)
                    );
                    assert_eq!(part.log_start, Offset(wanted.log_start_offset));
                }
            }
            assert_eq!(parts.next(), None);
            let mut gone = ours.forgotten.iter();
            for topic in &theirs.forgotten_topics_data {
                for index in &topic.partitions {
                    let part = gone.next().unwrap();
                    let named = &ours.topics[part.topic as usize];
                    assert_eq!(*named, topic_ref(version, &topic.topic, topic.topic_id));
                    assert_eq!(part.index, *index);
                }
            }
            assert_eq!(gone.next(), None);
        }
    }
}

/// The same partition in both codecs' terms.
fn partition(rng: &mut Rng, version: i16) -> (PartitionFetched<Memory>, theirs::PartitionData) {
    let mut ours = PartitionFetched {
        high_watermark: Offset(rng.next() as i64),
        last_stable: Offset(rng.next() as i64),
        log_start: Offset(rng.next() as i64),
        ..PartitionFetched::refused(rng.next() as i32, ErrorCode::None)
    };
    let mut same = theirs::PartitionData::default()
        .with_partition_index(ours.index)
        .with_high_watermark(ours.high_watermark.0)
        .with_last_stable_offset(ours.last_stable.0)
        .with_aborted_transactions(None);
    if version >= 5 {
        same = same.with_log_start_offset(ours.log_start.0);
    }
    if rng.chance(3) {
        ours.error = ErrorCode::KafkaStorageError;
        same = same.with_error_code(if version < 6 { 6 } else { 56 });
    }
    if rng.chance(2) {
        let aborted = (0..rng.below(300)).map(|_| Aborted {
            producer: ProducerId(rng.next() as i64),
            first: Offset(rng.next() as i64),
        });
        let aborted: Vec<_> = aborted.collect();
        let theirs = aborted.iter().map(|aborted| {
            theirs::AbortedTransaction::default()
                .with_producer_id(messages::ProducerId(aborted.producer.0))
                .with_first_offset(aborted.first.0)
        });
        same = same.with_aborted_transactions(Some(theirs.collect()));
        ours.aborted = Some(aborted);
    }
    if rng.chance(3) {
        ours.diverging = Some((LeaderEpoch(3), Offset(70)));
        if version >= 12 {
            let end = theirs::EpochEndOffset::default()
                .with_epoch(3)
                .with_end_offset(70);
            same = same.with_diverging_epoch(end);
        }
    }
    if rng.chance(3) {
        ours.leader = Some(LeaderHint {
            node: NodeId(2),
            epoch: LeaderEpoch(7),
        });
        if version >= 12 {
            let leader = theirs::LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(2))
                .with_leader_epoch(7);
            same = same.with_current_leader(leader);
        }
    }
    ours.records = (0..rng.below(4)).map(|_| Memory(rng.blob())).collect();
    let records: Vec<u8> = ours
        .records
        .iter()
        .flat_map(|range| range.0.to_vec())
        .collect();
    (ours, same.with_records(Some(records.into())))
}

fn random_answer(rng: &mut Rng, version: i16) -> (FetchAnswer<Memory>, FetchResponse) {
    let mut ours = FetchAnswer {
        error: ErrorCode::InvalidFetchSessionEpoch,
        session_id: rng.next() as i32,
        topics: Vec::new(),
        nodes: Vec::new(),
    };
    let mut same = FetchResponse::default();
    if version >= 7 {
        same = same.with_error_code(71).with_session_id(ours.session_id);
    }
    for _ in 0..rng.below(4) {
        let parts = (0..rng.below(4)).map(|_| partition(rng, version));
        let (partitions, theirs): (Vec<_>, Vec<_>) = parts.unzip();
        let (name, id) = (rng.text(), Uuid([rng.next() as u8; 16]));
        let topic = theirs::FetchableTopicResponse::default().with_partitions(theirs);
        let (topic, theirs) = if version >= 13 {
            (
                TopicRef::Id(TopicId(id)),
                topic.with_topic_id(crate::uuid(TopicId(id))),
            )
        } else {
            (
                TopicRef::Name(name.as_str().into()),
                topic.with_topic(TopicName(name)),
            )
        };
        ours.topics.push(TopicRecords { topic, partitions });
        same.responses.push(theirs);
    }
    if rng.chance(2) {
        ours.nodes.push(NodeEndpoint {
            node: NodeId(2),
            host: "b.site".into(),
            port: 9092,
            rack: None,
        });
        if version >= 16 {
            same.node_endpoints.push(
                theirs::NodeEndpoint::default()
                    .with_node_id(BrokerId(2))
                    .with_host(StrBytes::from_static_str("b.site"))
                    .with_port(9092),
            );
        }
    }
    (ours, same)
}

/// Byte for byte what kafka-protocol writes, and the framing between two ranges is small.
#[test]
fn answers_are_the_bytes_a_client_expects() {
    let mut rng = Rng::seeded(21);
    for version in VERSIONS {
        for _ in 0..200 {
            let (ours, theirs) = random_answer(&mut rng, version);
            let ranges = ours.topics.iter().flat_map(|topic| &topic.partitions);
            let ranges = ranges
                .flat_map(|part| &part.records)
                .filter(|range| !range.0.is_empty());
            let ranges: Vec<_> = ranges.cloned().collect();
            let call = call(Api::Fetch, version);
            let segments = fetch_answer::encode(call, ours);
            assert!(
                matches!(segments[0], Segment::Bytes(_)),
                "the size comes first"
            );
            let mut sent = Vec::new();
            let mut ranges_sent = Vec::new();
            for segment in segments {
                match segment {
                    Segment::Bytes(bytes) => sent.extend_from_slice(&bytes),
                    Segment::Range(range) => {
                        sent.extend_from_slice(&range.0);
                        ranges_sent.push(range);
                    }
                }
            }
            assert_eq!(ranges_sent, ranges, "each range once, in order, none empty");
            let body = answer_body(call, sent.into());
            let mut wanted = Vec::new();
            theirs.encode(&mut wanted, version).unwrap();
            assert_eq!(body, wanted, "v{version}: {theirs:?}");
        }
    }
}

/// Behaviour 18: no records are length 0, never null, in the old form and in the compact one.
#[test]
fn empty_is_not_null() {
    for version in VERSIONS {
        let topic = if version >= 13 {
            TopicRef::Id(TopicId(Uuid([1; 16])))
        } else {
            TopicRef::Name("t".into())
        };
        let answer: FetchAnswer<Memory> = FetchAnswer {
            error: ErrorCode::None,
            session_id: 0,
            topics: vec![TopicRecords {
                topic,
                partitions: vec![PartitionFetched::refused(0, ErrorCode::None)],
            }],
            nodes: Vec::new(),
        };
        let call = call(Api::Fetch, version);
        let segments = fetch_answer::encode(call, answer);
        let [Segment::Bytes(bytes)] = &segments[..] else {
            panic!("one piece: {segments:?}")
        };
        let mut body = answer_body(call, bytes.clone());
        let read = FetchResponse::decode(&mut body, version).unwrap();
        let part = &read.responses[0].partitions[0];
        assert_eq!(part.records, Some(Bytes::new()));
        assert_eq!(part.preferred_read_replica, BrokerId(-1), "behaviour 23");
    }
}

/// Errors of sessions concern the whole answer, all others the partitions (behaviours 19 and 20).
#[test]
fn refusals_say_it_where_clients_act_on_it() {
    let mut rng = Rng::seeded(22);
    for version in VERSIONS {
        let request = decoded(&encoded(&random(&mut rng, version), version));
        let whole = FetchAnswer::<Memory>::refused(&request, ErrorCode::FetchSessionIdNotFound);
        assert_eq!((whole.error.code(), whole.topics.len()), (70, 0));
        let parts = FetchAnswer::<Memory>::refused(&request, ErrorCode::KafkaStorageError);
        assert_eq!(parts.error, ErrorCode::None);
        let rows = parts.topics.iter().flat_map(|topic| &topic.partitions);
        assert!(
            rows.clone()
                .all(|part| part.error == ErrorCode::KafkaStorageError)
        );
        assert_eq!(rows.count(), request.partitions.len());
    }
}
