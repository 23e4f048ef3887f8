//! Produce against kafka-protocol: its encoder writes the requests, its decoder reads the answers.

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response as theirs;
use kafka_protocol::messages::{self, ProduceResponse, TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use model::{LeaderEpoch, NodeId, Offset, WallMs};

use super::{Rng, answer_body, call, frame};
use crate::produce::{LeaderHint, NodeEndpoint, PartitionAnswer, ProduceRequest, RecordError};
use crate::{Api, ErrorCode, Request, RequestHeader, Response, decode, encode};

const VERSIONS: std::ops::RangeInclusive<i16> = 3..=11;

pub(crate) fn random(rng: &mut Rng) -> messages::ProduceRequest {
    let topics = (0..rng.below(4)).map(|_| {
        let partitions = (0..rng.below(4)).map(|_| {
            let records = (!rng.chance(5)).then(|| rng.blob());
            PartitionProduceData::default()
                .with_index(rng.next() as i32)
                .with_records(records)
        });
        let partitions = partitions.collect();
        TopicProduceData::default()
            .with_name(TopicName(rng.text()))
            .with_partition_data(partitions)
    });
    let topics = topics.collect();
    let id = rng.chance(2).then(|| TransactionalId(rng.text()));
    messages::ProduceRequest::default()
        .with_transactional_id(id)
        .with_acks(rng.next() as i16)
        .with_timeout_ms(rng.next() as i32)
        .with_topic_data(topics)
}

pub(crate) fn encoded(request: &messages::ProduceRequest, version: i16) -> bytes::Bytes {
    let mut body = Vec::new();
    request.encode(&mut body, version).unwrap();
    frame(Api::Produce, version, &body)
}

fn decoded(frame: &bytes::Bytes) -> ProduceRequest {
    match decode(frame, &RequestHeader::read(frame).unwrap()).unwrap() {
        Request::Produce(request) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_read_as_they_were_written() {
    let mut rng = Rng::seeded(10);
    for version in VERSIONS {
        for _ in 0..200 {
            let theirs = random(&mut rng);
            let frame = encoded(&theirs, version);
            let ours = decoded(&frame);
            assert_eq!(ours.acks, theirs.acks);
            assert_eq!(ours.timeout_ms, theirs.timeout_ms);
            assert_eq!(
                ours.transactional_id(),
                theirs.transactional_id.as_ref().map(|id| id.as_str())
            );
            let wanted: Vec<_> = theirs
                .topic_data
                .iter()
                .flat_map(|topic| topic.partition_data.iter().map(move |part| (topic, part)))
                .collect();
            assert_eq!(ours.partitions_count(), wanted.len());
            for (part, (topic, wanted)) in ours.partitions().zip(wanted) {
                assert_eq!(part.topic, topic.name.as_str());
                assert_eq!(part.index, wanted.index);
                assert_eq!(part.records, wanted.records);
                if let Some(records) = part.records.filter(|records| !records.is_empty()) {
                    let inside = frame.as_ptr_range();
                    assert!(
                        inside.contains(&records.as_ptr()),
                        "records stay in the frame"
                    );
                }
            }
        }
    }
}

/// The same answer to `request` in both codecs' terms.
fn random_answer(
    rng: &mut Rng,
    request: &messages::ProduceRequest,
    version: i16,
) -> (Response, ProduceResponse) {
    let mut ours = decoded(&encoded(request, version)).answer(ErrorCode::UnknownServerError);
    let mut rows = ours.partitions.iter_mut();
    let topics = request.topic_data.iter().map(|topic| {
        let parts = topic.partition_data.iter().map(|_| {
            let row = rows.next().unwrap();
            fill(rng, row);
            same(row, version)
        });
        theirs::TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_partition_responses(parts.collect())
    });
    let mut answer = ProduceResponse::default().with_responses(topics.collect());
    if rng.chance(2) {
        ours.nodes.push(NodeEndpoint {
            node: NodeId(2),
            host: "b.site".into(),
            port: 9092,
            rack: Some("r".into()),
        });
        if version >= 10 {
            answer = answer.with_node_endpoints(vec![
                theirs::NodeEndpoint::default()
                    .with_node_id(messages::BrokerId(2))
                    .with_host(StrBytes::from_static_str("b.site"))
                    .with_port(9092)
                    .with_rack(Some(StrBytes::from_static_str("r"))),
            ]);
        }
    }
    (Response::Produce(ours), answer)
}

fn fill(rng: &mut Rng, row: &mut PartitionAnswer) {
    row.error = ErrorCode::NotLeaderOrFollower;
    row.base_offset = Offset(rng.next() as i64);
    row.log_append_time = WallMs(rng.next() as i64);
    row.log_start = Offset(rng.next() as i64);
    row.record_errors.push(RecordError {
        index: 3,
        message: Some("null key".into()),
    });
    row.message = rng.chance(2).then(|| "why".into());
    row.leader = rng.chance(2).then_some(LeaderHint {
        node: NodeId(2),
        epoch: LeaderEpoch(7),
    });
}

fn same(row: &PartitionAnswer, version: i16) -> theirs::PartitionProduceResponse {
    let mut same = theirs::PartitionProduceResponse::default()
        .with_index(row.index)
        .with_error_code(6)
        .with_base_offset(row.base_offset.0)
        .with_log_append_time_ms(row.log_append_time.0);
    if version >= 5 {
        same = same.with_log_start_offset(row.log_start.0);
    }
    if version >= 8 {
        let error = theirs::BatchIndexAndErrorMessage::default()
            .with_batch_index(3)
            .with_batch_index_error_message(Some(StrBytes::from_static_str("null key")));
        let message = row
            .message
            .as_ref()
            .map(|_| StrBytes::from_static_str("why"));
        same = same
            .with_record_errors(vec![error])
            .with_error_message(message);
    }
    if version >= 10 && row.leader.is_some() {
        let leader = theirs::LeaderIdAndEpoch::default()
            .with_leader_id(messages::BrokerId(2))
            .with_leader_epoch(7);
        same = same.with_current_leader(leader);
    }
    same
}

/// Byte for byte what kafka-protocol writes: nothing is missing and no tag is needless.
#[test]
fn answers_are_the_bytes_a_client_expects() {
    let mut rng = Rng::seeded(11);
    for version in VERSIONS {
        for _ in 0..200 {
            let mut request = random(&mut rng);
            // Topics without partitions are left out of the answer; the next test has them.
            request
                .topic_data
                .retain(|topic| !topic.partition_data.is_empty());
            let call = call(Api::Produce, version);
            let (ours, theirs) = random_answer(&mut rng, &request, version);
            let body = answer_body(call, encode(call, ours).unwrap());
            let mut wanted = Vec::new();
            theirs.encode(&mut wanted, version).unwrap();
            assert_eq!(body, wanted, "v{version}: {theirs:?}");
        }
    }
}

/// Topics named twice, named by nothing, or without partitions don't confuse the answer.
#[test]
fn odd_requests_are_answered_row_by_row() {
    let part = |index| PartitionProduceData::default().with_index(index);
    let topic = |name, parts| {
        TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_partition_data(parts)
    };
    let request = messages::ProduceRequest::default().with_topic_data(vec![
        topic("a", vec![]),
        topic("", vec![part(1)]),
        topic("", vec![part(-2)]),
        topic("a", vec![part(3), part(3)]),
    ]);
    for version in VERSIONS {
        let ours = decoded(&encoded(&request, version));
        let call = call(Api::Produce, version);
        let answer = ours.answer(ErrorCode::InvalidRequiredAcks);
        let mut body = answer_body(call, encode(call, Response::Produce(answer)).unwrap());
        let read = ProduceResponse::decode(&mut body, version).unwrap();
        let rows: Vec<_> = read
            .responses
            .iter()
            .map(|topic| (topic.name.as_str(), topic.partition_responses.len()))
            .collect();
        assert_eq!(rows, [("", 1), ("", 1), ("a", 2)]);
    }
}
