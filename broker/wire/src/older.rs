//! One form for each request and answer, that of the newest version: the rest of the broker never sees an older one.
//!
//! `lift` moves what older requests say elsewhere to where newer ones say it. `fold` moves an answer's content to where
//! older clients look for it and empties what their version lacks, for kafka-protocol refuses to encode a field that
//! the version has no place for.

use kafka_protocol::messages as m;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::protocol::StrBytes;

use crate::cold::{Request, Response};
use crate::error::ErrorCode;

/// "Not asked for", in every field of authorised operations (behaviour 7).
const OPERATIONS_UNASKED: i32 = i32::MIN;

/// Brings a request of `version` into the newest form.
pub(crate) fn lift(mut request: Request, version: i16) -> Request {
    match &mut request {
        // v0 has no null: its empty list asks for all topics (behaviour 5).
        Request::Metadata(body)
            if version == 0 && body.topics.as_ref().is_some_and(Vec::is_empty) =>
        {
            body.topics = None;
        }
        // v0 gives members one time for both.
        Request::JoinGroup(body) if version == 0 => {
            body.rebalance_timeout_ms = body.session_timeout_ms;
        }
        Request::FindCoordinator(body) if version < 4 => {
            body.coordinator_keys = vec![core::mem::take(&mut body.key)];
        }
        Request::LeaveGroup(body) if version < 3 => {
            let member = core::mem::take(&mut body.member_id);
            body.members = vec![MemberIdentity::default().with_member_id(member)];
        }
        Request::OffsetFetch(body) if version < 8 => lift_offset_fetch(body),
        Request::DeleteTopics(body) if version < 6 => {
            let names = core::mem::take(&mut body.topic_names).into_iter();
            body.topics = names
                .map(|name| DeleteTopicState::default().with_name(Some(name)))
                .collect();
        }
        _ => {}
    }
    request
}

fn lift_offset_fetch(body: &mut m::OffsetFetchRequest) {
    let topics = body.topics.take().map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        });
        topics.collect()
    });
    body.groups = vec![
        OffsetFetchRequestGroup::default()
            .with_group_id(core::mem::take(&mut body.group_id))
            .with_topics(topics),
    ];
}

/// Brings an answer into the form of `version`.
pub(crate) fn fold(mut response: Response, version: i16) -> Response {
    match &mut response {
        Response::Metadata(body) => {
            if !(8..=10).contains(&version) {
                body.cluster_authorized_operations = OPERATIONS_UNASKED;
            }
            for topic in &mut body.topics {
                if version < 8 {
                    topic.topic_authorized_operations = OPERATIONS_UNASKED;
                }
                if version < 12 && topic.name.is_none() {
                    topic.name = Some(m::TopicName::default());
                }
            }
        }
        Response::ListOffsets(body) => fold_list_offsets(body, version),
        Response::FindCoordinator(body) if version < 4 => fold_find_coordinator(body),
        Response::JoinGroup(body) => {
            if version < 9 {
                body.skip_assignment = false;
            }
            // Null is known from v7 on; Kafka, too, sends an empty name before.
            if version < 7 && body.protocol_name.is_none() {
                body.protocol_name = Some(StrBytes::new());
            }
        }
        Response::LeaveGroup(body) if version < 3 => {
            let members = core::mem::take(&mut body.members);
            if body.error_code == 0 {
                body.error_code = members.first().map_or(0, |member| member.error_code);
            }
        }
        Response::OffsetFetch(body) if version < 8 => fold_offset_fetch(body, version),
        // A refused group shows no offsets, or a client could take −1 for "nothing committed" (behaviour 29).
        Response::OffsetFetch(body) => {
            let refused = body.groups.iter_mut().filter(|group| group.error_code != 0);
            refused.for_each(|group| group.topics.clear());
        }
        Response::CreateTopics(body) if version < 5 => {
            for topic in &mut body.topics {
                topic.configs = None;
            }
        }
        Response::DeleteTopics(body) if version < 6 => {
            for topic in &mut body.responses {
                topic.name.get_or_insert_default();
            }
        }
        Response::DescribeGroups(body) => {
            for group in &mut body.groups {
                group.error_message = None; // known from v6 on, above what is advertised
                if version < 3 {
                    group.authorized_operations = OPERATIONS_UNASKED;
                }
            }
        }
        Response::DescribeCluster(body) => {
            if version < 1 {
                body.endpoint_type = 1;
            }
            for broker in &mut body.brokers {
                broker.is_fenced = false; // known from v2 on, above what is advertised
            }
        }
        Response::ElectLeaders(body) if version < 1 => body.error_code = 0,
        _ => {}
    }
    response
}

fn fold_list_offsets(body: &mut m::ListOffsetsResponse, version: i16) {
    let partitions = body
        .topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions);
    for partition in partitions {
        if version < 4 {
            partition.leader_epoch = -1;
        }
        // Clients before v5 don't know the code; Kafka sends them this one.
        if version < 5 && partition.error_code == ErrorCode::OffsetNotAvailable.code() {
            partition.error_code = ErrorCode::LeaderNotAvailable.code();
        }
    }
}

/// The only coordinator asked for moves to the top.
fn fold_find_coordinator(body: &mut m::FindCoordinatorResponse) {
    if let Some(found) = core::mem::take(&mut body.coordinators).into_iter().next() {
        body.error_code = found.error_code;
        body.error_message = found.error_message;
        body.node_id = found.node_id;
        body.host = found.host;
        body.port = found.port;
    }
}

/// The only group asked for moves to the top. v1 has no error there: each partition says it.
fn fold_offset_fetch(body: &mut m::OffsetFetchResponse, version: i16) {
    let group: Option<OffsetFetchResponseGroup> =
        core::mem::take(&mut body.groups).into_iter().next();
    let Some(group) = group else { return };
    let group_error = group.error_code;
    if version >= 2 {
        body.error_code = group_error;
        if group_error != 0 {
            return;
        }
    }
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            let error = if group_error == 0 {
                partition.error_code
            } else {
                group_error
            };
            let epoch = if version < 5 {
                -1
            } else {
                partition.committed_leader_epoch
            };
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(epoch)
                .with_metadata(partition.metadata)
                .with_error_code(error)
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    body.topics = topics.collect();
}
