//! What the site looks like to a client: Metadata, the cluster, its disks, and the answers of a site that has nothing
//! to elect or to move.

use std::rc::Rc;

use wire::messages as m;
use wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use wire::messages::describe_cluster_response::DescribeClusterBroker;
use wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use wire::{ErrorCode, Response, StrBytes};

use super::Reply;
use super::errors::{broker_id, topic_uuid};
use crate::context::Context;
use crate::core::Core;
use crate::core::topics::TopicInfo;

/// "Nobody asked for the authorised operations" (0 would say: none).
const OPERATIONS_UNASKED: i32 = i32::MIN;
/// Every operation that Kafka knows for a topic: READ to ALTER_CONFIGS as bits 3 to 11 without cluster's own.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// The same for the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
const ENDPOINT_BROKERS: i8 = 1;

pub(super) fn metadata(
    core: &Rc<Core>,
    context: &Context,
    request: m::MetadataRequest,
    reply: Reply,
) {
    let mut missing = Vec::new();
    if let Some(topics) = request
        .topics
        .as_ref()
        .filter(|_| request.allow_auto_topic_creation)
    {
        for topic in topics {
            if let Some(name) = asked_name(topic).filter(|name| core.topic_by_name(name).is_none())
            {
                missing.push(name.to_string());
            }
        }
    }
    if missing.is_empty() || !core.site().defaults.auto_create {
        return reply.send(Response::Metadata(answer_metadata(core, &request)));
    }
    // Made before the answer, so that a client's first Metadata already names a leader.
    let (core, context) = (core.clone(), context.clone());
    tokio::task::spawn_local(async move {
        for name in missing {
            // Whatever stands in the way is said per topic below, or by the produce that follows.
            let _ = core.create_automatically(&context, &name).await;
        }
        let answer = answer_metadata(&core, &request);
        reply.send(Response::Metadata(answer));
    });
}

/// The name a topic is asked for by. Beside a topic id it counts for nothing: Java's admin sends an empty one there.
fn asked_name(asked: &m::metadata_request::MetadataRequestTopic) -> Option<&m::TopicName> {
    asked.name.as_ref().filter(|_| asked.topic_id.is_nil())
}

fn answer_metadata(core: &Core, request: &m::MetadataRequest) -> m::MetadataResponse {
    let topics = match &request.topics {
        None => core
            .topics()
            .map(|topic| describe_topic(core, &topic, request))
            .collect(),
        Some(asked) => asked
            .iter()
            .map(|asked| match asked_name(asked) {
                Some(name) => match core.topic_by_name(name) {
                    Some(topic) => describe_topic(core, &topic, request),
                    None => {
                        let error = match node::catalog::topic_name_fault(name) {
                            Some(_) => ErrorCode::InvalidTopicException,
                            None => ErrorCode::UnknownTopicOrPartition,
                        };
                        unknown_topic(error)
                            .with_name(Some(name.clone()))
                            .with_topic_id(asked.topic_id)
                    }
                },
                None => match core.topic_by_id(asked.topic_id.into_bytes()) {
                    Some(topic) => describe_topic(core, &topic, request),
                    None => unknown_topic(ErrorCode::UnknownTopicId).with_topic_id(asked.topic_id),
                },
            })
            .collect(),
    };
    m::MetadataResponse::default()
        .with_brokers(
            core.brokers()
                .map(|broker| {
                    MetadataResponseBroker::default()
                        .with_node_id(broker_id(broker.id))
                        .with_host(StrBytes::from_string(broker.host))
                        .with_port(broker.port.into())
                })
                .collect(),
        )
        .with_cluster_id(Some(StrBytes::from_string(core.cluster_id())))
        .with_controller_id(broker_id(core.node_id()))
        .with_topics(topics)
        .with_cluster_authorized_operations(if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_UNASKED
        })
}

fn unknown_topic(error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_topic_authorized_operations(OPERATIONS_UNASKED)
}

fn describe_topic(
    core: &Core,
    topic: &TopicInfo,
    request: &m::MetadataRequest,
) -> MetadataResponseTopic {
    let partitions = (0..)
        .zip(&topic.partitions)
        .map(|(index, partition)| {
            let replicas: Vec<_> = partition
                .replicas
                .iter()
                .map(|node| broker_id(*node))
                .collect();
            let serving = core.partition_serves(topic.id, index);
            let (error, leader) = match partition.leader.filter(|_| serving) {
                Some(leader) => (ErrorCode::None, broker_id(leader)),
                // The epoch names one leader for ever: with none there is none to name under it.
                None => (ErrorCode::LeaderNotAvailable, m::BrokerId(-1)),
            };
            MetadataResponsePartition::default()
                .with_error_code(error.code())
                .with_partition_index(index)
                .with_leader_id(leader)
                .with_leader_epoch(partition.epoch.0)
                .with_isr_nodes(partition.isr.iter().map(|node| broker_id(*node)).collect())
                .with_offline_replicas(if serving {
                    Vec::new()
                } else {
                    replicas.clone()
                })
                .with_replica_nodes(replicas)
        })
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(m::TopicName(StrBytes::from_string(
            topic.name.to_string(),
        ))))
        .with_topic_id(topic_uuid(topic.id))
        .with_is_internal(topic.internal)
        .with_partitions(partitions)
        .with_topic_authorized_operations(if request.include_topic_authorized_operations {
            TOPIC_OPERATIONS
        } else {
            OPERATIONS_UNASKED
        })
}

pub(super) fn describe(core: &Rc<Core>, request: &m::DescribeClusterRequest, reply: Reply) {
    if request.endpoint_type != ENDPOINT_BROKERS {
        // There are no controllers to talk to: the site log's leader is a broker like the others.
        return reply.send(Response::DescribeCluster(
            m::DescribeClusterResponse::default()
                .with_error_code(ErrorCode::UnsupportedEndpointType.code())
                .with_error_message(Some(StrBytes::from_static_str(
                    "only brokers have endpoints here",
                )))
                .with_cluster_authorized_operations(OPERATIONS_UNASKED),
        ));
    }
    reply.send(Response::DescribeCluster(
        m::DescribeClusterResponse::default()
            .with_endpoint_type(ENDPOINT_BROKERS)
            .with_cluster_id(StrBytes::from_string(core.cluster_id()))
            .with_controller_id(broker_id(core.node_id()))
            .with_brokers(
                core.brokers()
                    .map(|broker| {
                        DescribeClusterBroker::default()
                            .with_broker_id(broker_id(broker.id))
                            .with_host(StrBytes::from_string(broker.host))
                            .with_port(broker.port.into())
                    })
                    .collect(),
            )
            .with_cluster_authorized_operations(if request.include_cluster_authorized_operations {
                CLUSTER_OPERATIONS
            } else {
                OPERATIONS_UNASKED
            }),
    ));
}

pub(super) fn log_dirs(core: &Rc<Core>, request: &m::DescribeLogDirsRequest, reply: Reply) {
    let wanted = |topic: &str, index: i32| match &request.topics {
        None => true,
        Some(topics) => topics
            .iter()
            .any(|asked| &*asked.topic.0 == topic && asked.partitions.contains(&index)),
    };
    let results = core
        .disk_contents()
        .into_iter()
        .map(|disk| {
            let topics = disk
                .topics
                .into_iter()
                .filter_map(|(name, partitions)| {
                    let partitions: Vec<_> = partitions
                        .into_iter()
                        .filter(|(index, _)| wanted(&name, *index))
                        .map(|(index, bytes)| {
                            DescribeLogDirsPartition::default()
                                .with_partition_index(index)
                                .with_partition_size(bytes)
                        })
                        .collect();
                    (!partitions.is_empty()).then(|| {
                        DescribeLogDirsTopic::default()
                            .with_name(m::TopicName(StrBytes::from_string(name)))
                            .with_partitions(partitions)
                    })
                })
                .collect();
            let error = if disk.serving {
                ErrorCode::None
            } else {
                ErrorCode::KafkaStorageError
            };
            DescribeLogDirsResult::default()
                .with_error_code(error.code())
                .with_log_dir(StrBytes::from_string(disk.path))
                .with_topics(topics)
                .with_total_bytes(disk.total_bytes)
                .with_usable_bytes(disk.usable_bytes)
        })
        .collect();
    reply.send(Response::DescribeLogDirs(
        m::DescribeLogDirsResponse::default().with_results(results),
    ));
}

pub(super) fn acls(reply: Reply) {
    reply.send(Response::DescribeAcls(
        m::DescribeAclsResponse::default()
            .with_error_code(ErrorCode::SecurityDisabled.code())
            .with_error_message(Some(StrBytes::from_static_str(
                "this site has no access control lists",
            ))),
    ));
}

/// On a site of one the preferred leader leads whenever it can: there is nothing to elect.
pub(super) fn elect_leaders(core: &Rc<Core>, request: m::ElectLeadersRequest, reply: Reply) {
    let results = match request.topic_partitions {
        // All partitions: Kafka lists only those for which something happened.
        None => Vec::new(),
        Some(topics) => topics
            .into_iter()
            .map(|asked| {
                let topic = core.topic_by_name(&asked.topic);
                let partitions = asked
                    .partitions
                    .into_iter()
                    .map(|index| {
                        let known = topic
                            .as_ref()
                            .is_some_and(|topic| topic.partition(index).is_some());
                        let error = if known {
                            ErrorCode::ElectionNotNeeded
                        } else {
                            ErrorCode::UnknownTopicOrPartition
                        };
                        PartitionResult::default()
                            .with_partition_id(index)
                            .with_error_code(error.code())
                            .with_error_message(Some(StrBytes::from_static_str(error.message())))
                    })
                    .collect();
                ReplicaElectionResult::default()
                    .with_topic(asked.topic)
                    .with_partition_result(partitions)
            })
            .collect(),
    };
    reply.send(Response::ElectLeaders(
        m::ElectLeadersResponse::default().with_replica_election_results(results),
    ));
}

/// The only assignment a site of one can have is the one it has.
pub(super) fn reassign(
    core: &Rc<Core>,
    request: m::AlterPartitionReassignmentsRequest,
    reply: Reply,
) {
    let here = [broker_id(core.node_id())];
    let responses = request
        .topics
        .into_iter()
        .map(|asked| {
            let topic = core.topic_by_name(&asked.name);
            let partitions = asked
                .partitions
                .into_iter()
                .map(|partition| {
                    let known = topic
                        .as_ref()
                        .is_some_and(|topic| topic.partition(partition.partition_index).is_some());
                    let error = match &partition.replicas {
                        _ if !known => ErrorCode::UnknownTopicOrPartition,
                        None => ErrorCode::NoReassignmentInProgress,
                        Some(replicas) if replicas[..] == here => ErrorCode::None,
                        Some(_) => ErrorCode::InvalidReplicaAssignment,
                    };
                    let message = (error != ErrorCode::None)
                        .then(|| StrBytes::from_static_str(error.message()));
                    ReassignablePartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(error.code())
                        .with_error_message(message)
                })
                .collect();
            ReassignableTopicResponse::default()
                .with_name(asked.name)
                .with_partitions(partitions)
        })
        .collect();
    reply.send(Response::AlterPartitionReassignments(
        m::AlterPartitionReassignmentsResponse::default().with_responses(responses),
    ));
}

pub(super) fn reassignments(
    _core: &Rc<Core>,
    _request: &m::ListPartitionReassignmentsRequest,
    reply: Reply,
) {
    reply.send(Response::ListPartitionReassignments(
        m::ListPartitionReassignmentsResponse::default(),
    ));
}
