//! Every advertised version of every cold API, both ways.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::generate::{Generator, Rows};
use super::{Rng, advertised, answer_body, call, frame, samples};
use crate::cold::fields;
use crate::{Api, ErrorCode, Request, RequestHeader, Response, decode, encode, refusal};

/// A random body of a cold API.
pub(crate) fn body(rng: &mut Rng, api: Api, version: i16, rows: Rows) -> Vec<u8> {
    let mut generator = Generator {
        rng,
        version,
        flexible: api.flexible(version),
        rows,
        arrays_met: 0,
        out: Vec::new(),
    };
    generator.fields(fields(api).expect("a cold API"));
    generator.out
}

fn request(api: Api, version: i16, body: &[u8]) -> Request {
    let frame = frame(api, version, body);
    let header = RequestHeader::read(&frame).unwrap();
    decode(&frame, &header).unwrap_or_else(|error| panic!("{api} v{version}: {error}"))
}

fn key(api: Api) -> ApiKey {
    ApiKey::try_from(api.key()).unwrap()
}

/// What a client of `version` reads of an answer.
fn client_reads(api: Api, version: i16, answer: Bytes) -> ResponseKind {
    let mut body = answer_body(call(api, version), answer);
    let response = ResponseKind::decode(key(api), &mut body, version)
        .unwrap_or_else(|error| panic!("{api} v{version}: {error}"));
    assert!(
        body.is_empty(),
        "{api} v{version} leaves {} bytes",
        body.len()
    );
    response
}

/// The shapes agree with kafka-protocol's: what is made by them is read whole and written the same again.
#[test]
fn shapes_agree_with_the_schemas() {
    let mut rng = Rng::seeded(1);
    for (api, version) in advertised().filter(|(api, _)| fields(*api).is_some()) {
        for _ in 0..20 {
            let body = body(&mut rng, api, version, Rows::Few);
            let mut rest = Bytes::from(body.clone());
            let theirs = RequestKind::decode(key(api), &mut rest, version)
                .unwrap_or_else(|error| panic!("{api} v{version}: {error}"));
            assert!(rest.is_empty(), "{api} v{version}");
            let mut again = BytesMut::new();
            theirs.encode(&mut again, version).unwrap();
            assert_eq!(again, body[..], "{api} v{version}");
            assert_eq!(request(api, version, &body).api(), api);
        }
    }
}

/// Advertised means works: each version's request is decoded, its refusal is encoded and read by a client.
#[test]
fn every_request_can_be_refused() {
    let mut rng = Rng::seeded(2);
    for (api, version) in advertised().filter(|(api, _)| fields(*api).is_some()) {
        let body = body(&mut rng, api, version, Rows::Few);
        let request = request(api, version, &body);
        let refused = refusal(
            &request,
            ErrorCode::KafkaStorageError,
            Some("disk sdb failed"),
        );
        let answer = encode(call(api, version), refused).unwrap();
        let said = format!("{:?}", client_reads(api, version, answer));
        // The two whose old versions have no place for an error without rows to put it in.
        let mute = matches!((api, version), (Api::DescribeLogDirs, 1..=2));
        assert!(
            mute || said.contains("error_code: 56"),
            "{api} v{version}: {said}"
        );
    }
}

/// Folding leaves nothing that a version can't carry, and a client of it reads the answer whole.
#[test]
fn every_answer_fits_every_version() {
    let samples = samples::responses();
    for (api, version) in advertised() {
        if matches!(api, Api::Produce | Api::Fetch) {
            continue;
        }
        let sample = samples.iter().find(|sample| sample.api() == api);
        let sample = sample.unwrap_or_else(|| panic!("no sample of {api}"));
        let answer =
            encode(call(api, version), sample.clone()).unwrap_or_else(|error| panic!("{error}"));
        client_reads(api, version, answer);
    }
}

/// Behaviour 2 and 3: the answer to an unknown version is in v0 and lists ApiVersions; Produce begins at 0; no tag is
/// written that says nothing.
#[test]
fn api_versions_answers_as_clients_expect() {
    let mut body = answer_body(
        crate::Call {
            correlation_id: 5,
            ..call(Api::ApiVersions, 0)
        },
        crate::api_versions::fallback(5),
    );
    let answer = kafka_protocol::protocol::Decodable::decode(&mut body, 0);
    let answer: ApiVersionsResponse = answer.unwrap();
    assert_eq!(answer.error_code, 35);
    let row = |api: Api| {
        answer
            .api_keys
            .iter()
            .find(|row| row.api_key == api.key())
            .unwrap()
    };
    assert_eq!(
        (
            row(Api::ApiVersions).min_version,
            row(Api::ApiVersions).max_version
        ),
        (0, 4)
    );
    assert_eq!(
        (row(Api::Produce).min_version, row(Api::Produce).max_version),
        (0, 11)
    );
    assert_eq!(
        (row(Api::Fetch).min_version, row(Api::Fetch).max_version),
        (4, 17)
    );
    for txn in [24, 25, 26, 27, 28, 65, 66] {
        assert!(
            answer.api_keys.iter().all(|row| row.api_key != txn),
            "behaviour 30"
        );
    }

    let call = call(Api::ApiVersions, 4);
    let named = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("librdkafka"))
        .with_client_software_version(StrBytes::from_static_str("2.0.2"));
    let answer = encode(
        call,
        Response::ApiVersions(crate::api_versions::answer(&named, call)),
    )
    .unwrap();
    assert_eq!(answer.last(), Some(&0), "no tags");
    let ResponseKind::ApiVersions(answer) = client_reads(Api::ApiVersions, 4, answer) else {
        unreachable!()
    };
    assert_eq!((answer.error_code, answer.api_keys.len()), (0, Api::COUNT));
    for illegal in ["", "-kafka", "kafka.", "kaf ka", "käfka"] {
        let name = StrBytes::from_static_str(illegal);
        let answer =
            crate::api_versions::answer(&named.clone().with_client_software_name(name), call);
        assert_eq!(answer.error_code, 42, "{illegal:?}");
    }
}

/// Behaviour 5: v0 asks for all topics by an empty list, later versions by null; before v4 topics come to be unasked.
#[test]
fn metadata_asks_for_all_topics_in_two_ways() {
    let Request::Metadata(all) = request(Api::Metadata, 0, &[0, 0, 0, 0]) else {
        unreachable!()
    };
    assert_eq!((all.topics, all.allow_auto_topic_creation), (None, true));
    let Request::Metadata(none) = request(Api::Metadata, 1, &[0, 0, 0, 0]) else {
        unreachable!()
    };
    assert_eq!(none.topics, Some(Vec::new()));
    let Request::Metadata(all) = request(Api::Metadata, 1, &[0xff; 4]) else {
        unreachable!()
    };
    assert_eq!(all.topics, None);
}

#[test]
fn older_requests_are_lifted() {
    let Request::JoinGroup(join) = request(
        Api::JoinGroup,
        0,
        &[0, 1, b'g', 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0],
    ) else {
        unreachable!()
    };
    assert_eq!(join.rebalance_timeout_ms, 9);
    let Request::FindCoordinator(find) = request(Api::FindCoordinator, 0, &[0, 1, b'g']) else {
        unreachable!()
    };
    assert_eq!(find.coordinator_keys, [StrBytes::from_static_str("g")]);
    let Request::LeaveGroup(leave) = request(Api::LeaveGroup, 0, &[0, 1, b'g', 0, 1, b'm']) else {
        unreachable!()
    };
    assert_eq!(&*leave.members[0].member_id, "m");
    let Request::DeleteTopics(delete) =
        request(Api::DeleteTopics, 1, &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 0])
    else {
        unreachable!()
    };
    assert_eq!(delete.topics[0].name.as_ref().unwrap().as_str(), "t");
    // Behaviour 28: null topics ask for all.
    let Request::OffsetFetch(fetch) =
        request(Api::OffsetFetch, 2, &[0, 1, b'g', 0xff, 0xff, 0xff, 0xff])
    else {
        unreachable!()
    };
    assert_eq!(fetch.groups[0].group_id.as_str(), "g");
    assert_eq!(fetch.groups[0].topics, None);
}

fn folded(response: Response, version: i16) -> ResponseKind {
    let api = response.api();
    client_reads(api, version, encode(call(api, version), response).unwrap())
}

#[test]
fn answers_are_folded_to_where_older_clients_look() {
    let sample = |api| {
        let mut samples = samples::responses().into_iter();
        samples.find(|sample| sample.api() == api).unwrap()
    };
    let ResponseKind::FindCoordinator(found) = folded(sample(Api::FindCoordinator), 0) else {
        unreachable!()
    };
    assert_eq!((found.node_id.0, &*found.host, found.port), (1, "a", 9092));
    let ResponseKind::LeaveGroup(left) = folded(sample(Api::LeaveGroup), 2) else {
        unreachable!()
    };
    assert_eq!(left.error_code, 25);
    let ResponseKind::OffsetFetch(fetched) = folded(sample(Api::OffsetFetch), 5) else {
        unreachable!()
    };
    let partition = &fetched.topics[0].partitions[0];
    assert_eq!(
        (partition.committed_offset, partition.committed_leader_epoch),
        (40, 3)
    );
    // JoinGroup has no null name before v7, and clients of v5 fail on one.
    let ResponseKind::JoinGroup(joined) = folded(sample(Api::JoinGroup), 6) else {
        unreachable!()
    };
    assert_eq!(joined.protocol_name.as_deref(), Some(""));
    let ResponseKind::ListOffsets(listed) = folded(sample(Api::ListOffsets), 4) else {
        unreachable!()
    };
    assert_eq!(
        listed.topics[0].partitions[0].error_code, 5,
        "OFFSET_NOT_AVAILABLE is known from v5"
    );
}

/// Behaviour 29: a refused group never shows offsets, in any version.
#[test]
fn a_refused_offset_fetch_shows_no_offsets() {
    let mut rng = Rng::seeded(3);
    for version in 1..=9 {
        let body = body(&mut rng, Api::OffsetFetch, version, Rows::Few);
        let refused = refusal(
            &request(Api::OffsetFetch, version, &body),
            ErrorCode::NotCoordinator,
            None,
        );
        let ResponseKind::OffsetFetch(answer) = folded(refused, version) else {
            unreachable!()
        };
        match version {
            1 => {
                let mut parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
                assert!(parts.all(|part| part.error_code == 16 && part.committed_offset == -1));
            }
            2..=7 => assert_eq!((answer.error_code, answer.topics.len()), (16, 0)),
            _ => {
                let mut groups = answer.groups.iter();
                assert!(groups.all(|group| group.error_code == 16 && group.topics.is_empty()));
            }
        }
    }
}
