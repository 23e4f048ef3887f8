//! One error for everything a request names: the answer of a broker that can't, or won't, act on it.
//!
//! Each API has its own place for errors: a row for each topic, partition, group or resource, a field at the top, or
//! both. Which one a client reads is decided here, so that whoever refuses needs a code only.

use kafka_protocol::messages as m;
use kafka_protocol::messages::{
    alter_configs_response, alter_partition_reassignments_response as reassign,
    create_partitions_response::CreatePartitionsTopicResult,
    create_topics_response::CreatableTopicResult, delete_groups_response::DeletableGroupResult,
    delete_records_response as delete_records, delete_topics_response::DeletableTopicResult,
    describe_configs_response::DescribeConfigsResult, describe_groups_response::DescribedGroup,
    describe_producers_response as producers, elect_leaders_response as elect,
    find_coordinator_response::Coordinator, incremental_alter_configs_response,
    list_offsets_response as list_offsets, metadata_response::MetadataResponseTopic,
    offset_commit_response as commit, offset_fetch_response as offsets,
    offset_for_leader_epoch_response as epochs,
};
use kafka_protocol::protocol::StrBytes;

use crate::cold::{Request, Response};
use crate::error::ErrorCode;
use crate::fetch_answer::FetchAnswer;

/// Turns every row of `rows` into one of the answer's.
fn each<'a, T: 'a, U>(
    rows: impl IntoIterator<Item = &'a T>,
    row: impl FnMut(&'a T) -> U,
) -> Vec<U> {
    rows.into_iter().map(row).collect()
}

/// Answers every topic, partition, group or resource of `request` with `error`. `message`, where the API has a place
/// for one, tells a person more than `ErrorCode::message`, which is used otherwise.
///
/// A Metadata answer names no brokers: fill them in, clients take an empty list for the end of the cluster.
#[must_use]
pub fn refusal(request: &Request, error: ErrorCode, message: Option<&str>) -> Response {
    let code = error.code();
    let text = || match message {
        Some(message) => Some(StrBytes::from_string(message.to_owned())),
        None => Some(StrBytes::from_static_str(error.message())),
    };
    match request {
        Request::Produce(body) => {
            let mut answer = body.answer(error);
            for partition in &mut answer.partitions {
                partition.message = message.map(Into::into);
            }
            Response::Produce(answer)
        }
        Request::Fetch(body) => Response::Fetch(FetchAnswer::refused(body, error)),
        Request::ListOffsets(body) => {
            let topics = each(&body.topics, |topic| {
                let partitions = each(&topic.partitions, |partition| {
                    list_offsets::ListOffsetsPartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code)
                        .with_timestamp(-1)
                        .with_offset(-1)
                });
                list_offsets::ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions)
            });
            Response::ListOffsets(m::ListOffsetsResponse::default().with_topics(topics))
        }
        Request::Metadata(body) => {
            let topics = each(body.topics.iter().flatten(), |topic| {
                MetadataResponseTopic::default()
                    .with_error_code(code)
                    .with_name(topic.name.clone())
                    .with_topic_id(topic.topic_id)
            });
            Response::Metadata(m::MetadataResponse::default().with_topics(topics))
        }
        Request::OffsetCommit(body) => {
            let topics = each(&body.topics, |topic| {
                let partitions = each(&topic.partitions, |partition| {
                    commit::OffsetCommitResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code)
                });
                commit::OffsetCommitResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions)
            });
            Response::OffsetCommit(m::OffsetCommitResponse::default().with_topics(topics))
        }
        Request::OffsetFetch(body) => Response::OffsetFetch(offset_fetch(body, code)),
        Request::FindCoordinator(body) => {
            let found = each(&body.coordinator_keys, |key| {
                Coordinator::default()
                    .with_key(key.clone())
                    .with_node_id(m::BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(code)
                    .with_error_message(text())
            });
            Response::FindCoordinator(
                m::FindCoordinatorResponse::default().with_coordinators(found),
            )
        }
        Request::JoinGroup(body) => Response::JoinGroup(
            m::JoinGroupResponse::default()
                .with_error_code(code)
                .with_generation_id(-1)
                .with_protocol_name(None)
                .with_member_id(body.member_id.clone()),
        ),
        Request::Heartbeat(_) => {
            Response::Heartbeat(m::HeartbeatResponse::default().with_error_code(code))
        }
        Request::LeaveGroup(_) => {
            Response::LeaveGroup(m::LeaveGroupResponse::default().with_error_code(code))
        }
        Request::SyncGroup(_) => {
            Response::SyncGroup(m::SyncGroupResponse::default().with_error_code(code))
        }
        Request::DescribeGroups(body) => {
            let groups = each(&body.groups, |group| {
                DescribedGroup::default()
                    .with_error_code(code)
                    .with_group_id(group.clone())
            });
            Response::DescribeGroups(m::DescribeGroupsResponse::default().with_groups(groups))
        }
        Request::ListGroups(_) => {
            Response::ListGroups(m::ListGroupsResponse::default().with_error_code(code))
        }
        Request::ApiVersions(_) => {
            Response::ApiVersions(m::ApiVersionsResponse::default().with_error_code(code))
        }
        Request::CreateTopics(body) => {
            let topics = each(&body.topics, |topic| {
                CreatableTopicResult::default()
                    .with_name(topic.name.clone())
                    .with_error_code(code)
                    .with_error_message(text())
            });
            Response::CreateTopics(m::CreateTopicsResponse::default().with_topics(topics))
        }
        Request::DeleteTopics(body) => {
            let topics = each(&body.topics, |topic| {
                DeletableTopicResult::default()
                    .with_name(topic.name.clone())
                    .with_topic_id(topic.topic_id)
                    .with_error_code(code)
                    .with_error_message(text())
            });
            Response::DeleteTopics(m::DeleteTopicsResponse::default().with_responses(topics))
        }
        Request::DeleteRecords(body) => {
            let topics = each(&body.topics, |topic| {
                let partitions = each(&topic.partitions, |partition| {
                    delete_records::DeleteRecordsPartitionResult::default()
                        .with_partition_index(partition.partition_index)
                        .with_low_watermark(-1)
                        .with_error_code(code)
                });
                delete_records::DeleteRecordsTopicResult::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions)
            });
            Response::DeleteRecords(m::DeleteRecordsResponse::default().with_topics(topics))
        }
        Request::InitProducerId(_) => Response::InitProducerId(
            m::InitProducerIdResponse::default()
                .with_error_code(code)
                .with_producer_id(m::ProducerId(-1))
                .with_producer_epoch(-1),
        ),
        Request::OffsetForLeaderEpoch(body) => {
            let topics = each(&body.topics, |topic| {
                let partitions = each(&topic.partitions, |partition| {
                    epochs::EpochEndOffset::default()
                        .with_error_code(code)
                        .with_partition(partition.partition)
                        .with_leader_epoch(-1)
                        .with_end_offset(-1)
                });
                epochs::OffsetForLeaderTopicResult::default()
                    .with_topic(topic.topic.clone())
                    .with_partitions(partitions)
            });
            Response::OffsetForLeaderEpoch(
                m::OffsetForLeaderEpochResponse::default().with_topics(topics),
            )
        }
        Request::DescribeAcls(_) => Response::DescribeAcls(
            m::DescribeAclsResponse::default()
                .with_error_code(code)
                .with_error_message(text()),
        ),
        Request::DescribeConfigs(body) => {
            let results = each(&body.resources, |resource| {
                DescribeConfigsResult::default()
                    .with_error_code(code)
                    .with_error_message(text())
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name.clone())
            });
            Response::DescribeConfigs(m::DescribeConfigsResponse::default().with_results(results))
        }
        Request::AlterConfigs(body) => {
            let results = each(&body.resources, |resource| {
                alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_error_message(text())
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name.clone())
            });
            Response::AlterConfigs(m::AlterConfigsResponse::default().with_responses(results))
        }
        Request::IncrementalAlterConfigs(body) => {
            let results = each(&body.resources, |resource| {
                incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_error_message(text())
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name.clone())
            });
            Response::IncrementalAlterConfigs(
                m::IncrementalAlterConfigsResponse::default().with_responses(results),
            )
        }
        Request::DescribeLogDirs(_) => {
            Response::DescribeLogDirs(m::DescribeLogDirsResponse::default().with_error_code(code))
        }
        Request::CreatePartitions(body) => {
            let results = each(&body.topics, |topic| {
                CreatePartitionsTopicResult::default()
                    .with_name(topic.name.clone())
                    .with_error_code(code)
                    .with_error_message(text())
            });
            Response::CreatePartitions(m::CreatePartitionsResponse::default().with_results(results))
        }
        Request::DeleteGroups(body) => {
            let results = each(&body.groups_names, |group| {
                DeletableGroupResult::default()
                    .with_group_id(group.clone())
                    .with_error_code(code)
            });
            Response::DeleteGroups(m::DeleteGroupsResponse::default().with_results(results))
        }
        Request::ElectLeaders(body) => {
            let topics = each(body.topic_partitions.iter().flatten(), |topic| {
                let partitions = each(&topic.partitions, |index| {
                    elect::PartitionResult::default()
                        .with_partition_id(*index)
                        .with_error_code(code)
                        .with_error_message(text())
                });
                elect::ReplicaElectionResult::default()
                    .with_topic(topic.topic.clone())
                    .with_partition_result(partitions)
            });
            Response::ElectLeaders(
                m::ElectLeadersResponse::default()
                    .with_error_code(code)
                    .with_replica_election_results(topics),
            )
        }
        Request::AlterPartitionReassignments(body) => {
            let topics = each(&body.topics, |topic| {
                let partitions = each(&topic.partitions, |partition| {
                    reassign::ReassignablePartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code)
                        .with_error_message(text())
                });
                reassign::ReassignableTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions)
            });
            Response::AlterPartitionReassignments(
                m::AlterPartitionReassignmentsResponse::default()
                    .with_error_code(code)
                    .with_error_message(text())
                    .with_responses(topics),
            )
        }
        Request::ListPartitionReassignments(_) => Response::ListPartitionReassignments(
            m::ListPartitionReassignmentsResponse::default()
                .with_error_code(code)
                .with_error_message(text()),
        ),
        Request::OffsetDelete(_) => {
            Response::OffsetDelete(m::OffsetDeleteResponse::default().with_error_code(code))
        }
        Request::DescribeCluster(_) => Response::DescribeCluster(
            m::DescribeClusterResponse::default()
                .with_error_code(code)
                .with_error_message(text())
                .with_controller_id(m::BrokerId(-1)),
        ),
        Request::DescribeProducers(body) => {
            let topics = each(&body.topics, |topic| {
                let partitions = each(&topic.partition_indexes, |index| {
                    producers::PartitionResponse::default()
                        .with_partition_index(*index)
                        .with_error_code(code)
                        .with_error_message(text())
                });
                producers::TopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions)
            });
            Response::DescribeProducers(m::DescribeProducersResponse::default().with_topics(topics))
        }
    }
}

/// Group and partitions both: version 1 has room for the second only, and folding takes the rest away.
fn offset_fetch(body: &m::OffsetFetchRequest, code: i16) -> m::OffsetFetchResponse {
    let groups = each(&body.groups, |group| {
        let topics = each(group.topics.iter().flatten(), |topic| {
            let partitions = each(&topic.partition_indexes, |index| {
                offsets::OffsetFetchResponsePartitions::default()
                    .with_partition_index(*index)
                    .with_committed_offset(-1)
                    .with_error_code(code)
            });
            offsets::OffsetFetchResponseTopics::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions)
        });
        offsets::OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id.clone())
            .with_topics(topics)
            .with_error_code(code)
    });
    m::OffsetFetchResponse::default().with_groups(groups)
}
