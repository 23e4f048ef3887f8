//! One answer of each cold API with every field set that any version knows: what folding has to cope with.

use kafka_protocol::messages as m;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use crate::cold::Response;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("orders"))
}

fn id() -> uuid::Uuid {
    uuid::Uuid::from_bytes([7; 16])
}

/// The richest answer of each API.
pub(crate) fn responses() -> Vec<Response> {
    let mut all = vec![crate::Response::ApiVersions(crate::api_versions::answer(
        &ApiVersionsRequest::default(),
        super::call(crate::Api::ApiVersions, 0),
    ))];
    all.extend(of_data());
    all.extend(of_groups());
    all.extend(of_topics());
    all.extend(of_configs());
    all.extend(of_site());
    all
}

fn of_data() -> [Response; 5] {
    let broker = metadata_response::MetadataResponseBroker::default()
        .with_node_id(m::BrokerId(1))
        .with_host(text("a"))
        .with_port(9092)
        .with_rack(Some(text("r")));
    let partition = metadata_response::MetadataResponsePartition::default()
        .with_leader_id(m::BrokerId(1))
        .with_leader_epoch(4)
        .with_replica_nodes(vec![m::BrokerId(1)])
        .with_isr_nodes(vec![m::BrokerId(1)])
        .with_offline_replicas(vec![m::BrokerId(2)]);
    let found = metadata_response::MetadataResponseTopic::default()
        .with_name(Some(topic()))
        .with_topic_id(id())
        .with_is_internal(true)
        .with_partitions(vec![partition])
        .with_topic_authorized_operations(5);
    let unknown_id = metadata_response::MetadataResponseTopic::default()
        .with_error_code(100)
        .with_name(None)
        .with_topic_id(id());
    let offset = list_offsets_response::ListOffsetsPartitionResponse::default()
        .with_error_code(78)
        .with_timestamp(5)
        .with_offset(6)
        .with_leader_epoch(7);
    let epoch = offset_for_leader_epoch_response::EpochEndOffset::default()
        .with_leader_epoch(3)
        .with_end_offset(9);
    let deleted =
        delete_records_response::DeleteRecordsPartitionResult::default().with_low_watermark(3);
    [
        Response::Metadata(
            MetadataResponse::default()
                .with_brokers(vec![broker])
                .with_cluster_id(Some(text("c")))
                .with_controller_id(m::BrokerId(1))
                .with_topics(vec![found, unknown_id])
                .with_cluster_authorized_operations(9),
        ),
        Response::ListOffsets(ListOffsetsResponse::default().with_topics(vec![
            list_offsets_response::ListOffsetsTopicResponse::default()
                .with_name(topic())
                .with_partitions(vec![offset]),
        ])),
        Response::OffsetForLeaderEpoch(OffsetForLeaderEpochResponse::default().with_topics(vec![
            offset_for_leader_epoch_response::OffsetForLeaderTopicResult::default()
                .with_topic(topic())
                .with_partitions(vec![epoch]),
        ])),
        Response::DeleteRecords(DeleteRecordsResponse::default().with_topics(vec![
            delete_records_response::DeleteRecordsTopicResult::default()
                .with_name(topic())
                .with_partitions(vec![deleted]),
        ])),
        Response::InitProducerId(
            InitProducerIdResponse::default()
                .with_producer_id(m::ProducerId(1000))
                .with_producer_epoch(2),
        ),
    ]
}

fn of_groups() -> [Response; 11] {
    let member = join_group_response::JoinGroupResponseMember::default()
        .with_member_id(text("m"))
        .with_group_instance_id(Some(text("i")))
        .with_metadata(text("x").into_bytes());
    let left = leave_group_response::MemberResponse::default()
        .with_member_id(text("m"))
        .with_group_instance_id(Some(text("i")))
        .with_error_code(25);
    let committed = offset_fetch_response::OffsetFetchResponsePartitions::default()
        .with_partition_index(2)
        .with_committed_offset(40)
        .with_committed_leader_epoch(3)
        .with_metadata(Some(text("meta")));
    let offsets = offset_fetch_response::OffsetFetchResponseGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(vec![
            offset_fetch_response::OffsetFetchResponseTopics::default()
                .with_name(topic())
                .with_partitions(vec![committed]),
        ]);
    let described = describe_groups_response::DescribedGroupMember::default()
        .with_member_id(text("m"))
        .with_group_instance_id(Some(text("i")))
        .with_client_host(text("/127.0.0.1"));
    let group = describe_groups_response::DescribedGroup::default()
        .with_error_message(Some(text("gone")))
        .with_group_id(GroupId(text("g")))
        .with_group_state(text("Stable"))
        .with_members(vec![described])
        .with_authorized_operations(3);
    let commit = offset_commit_response::OffsetCommitResponseTopic::default()
        .with_name(topic())
        .with_partitions(vec![Default::default()]);
    let deleted = offset_delete_response::OffsetDeleteResponseTopic::default()
        .with_name(topic())
        .with_partitions(vec![Default::default()]);
    [
        Response::FindCoordinator(FindCoordinatorResponse::default().with_coordinators(vec![
            find_coordinator_response::Coordinator::default()
                .with_key(text("g"))
                .with_node_id(m::BrokerId(1))
                .with_host(text("a"))
                .with_port(9092)
                .with_error_message(Some(text("fine"))),
        ])),
        Response::JoinGroup(
            JoinGroupResponse::default()
                .with_generation_id(4)
                .with_protocol_type(Some(text("consumer")))
                .with_protocol_name(None)
                .with_leader(text("m"))
                .with_skip_assignment(true)
                .with_member_id(text("m"))
                .with_members(vec![member]),
        ),
        Response::SyncGroup(
            SyncGroupResponse::default()
                .with_protocol_type(Some(text("consumer")))
                .with_protocol_name(Some(text("range")))
                .with_assignment(text("a").into_bytes()),
        ),
        Response::Heartbeat(HeartbeatResponse::default().with_error_code(27)),
        Response::LeaveGroup(LeaveGroupResponse::default().with_members(vec![left])),
        Response::OffsetCommit(OffsetCommitResponse::default().with_topics(vec![commit])),
        Response::OffsetFetch(OffsetFetchResponse::default().with_groups(vec![offsets])),
        Response::DescribeGroups(DescribeGroupsResponse::default().with_groups(vec![group])),
        Response::ListGroups(ListGroupsResponse::default().with_groups(vec![
            list_groups_response::ListedGroup::default()
                .with_group_id(GroupId(text("g")))
                .with_protocol_type(text("consumer"))
                .with_group_state(text("Stable"))
                .with_group_type(text("classic")),
        ])),
        Response::DeleteGroups(
            DeleteGroupsResponse::default().with_results(vec![Default::default()]),
        ),
        Response::OffsetDelete(OffsetDeleteResponse::default().with_topics(vec![deleted])),
    ]
}

fn of_topics() -> [Response; 6] {
    let config = create_topics_response::CreatableTopicConfigs::default()
        .with_name(text("cleanup.policy"))
        .with_value(Some(text("compact")))
        .with_read_only(true)
        .with_config_source(5)
        .with_is_sensitive(true);
    let created = create_topics_response::CreatableTopicResult::default()
        .with_name(topic())
        .with_topic_id(id())
        .with_error_message(Some(text("fine")))
        .with_topic_config_error_code(29)
        .with_num_partitions(3)
        .with_replication_factor(1)
        .with_configs(Some(vec![config]));
    let by_id = delete_topics_response::DeletableTopicResult::default()
        .with_name(None)
        .with_topic_id(id())
        .with_error_code(100)
        .with_error_message(Some(text("unknown")));
    let elected = elect_leaders_response::ReplicaElectionResult::default()
        .with_topic(topic())
        .with_partition_result(vec![Default::default()]);
    let reassigned = alter_partition_reassignments_response::ReassignableTopicResponse::default()
        .with_name(topic())
        .with_partitions(vec![Default::default()]);
    let ongoing = list_partition_reassignments_response::OngoingTopicReassignment::default()
        .with_name(topic())
        .with_partitions(vec![Default::default()]);
    [
        Response::CreateTopics(CreateTopicsResponse::default().with_topics(vec![created])),
        Response::DeleteTopics(DeleteTopicsResponse::default().with_responses(vec![by_id])),
        Response::CreatePartitions(
            CreatePartitionsResponse::default().with_results(vec![Default::default()]),
        ),
        Response::ElectLeaders(
            ElectLeadersResponse::default()
                .with_error_code(31)
                .with_replica_election_results(vec![elected]),
        ),
        Response::AlterPartitionReassignments(
            AlterPartitionReassignmentsResponse::default()
                .with_allow_replication_factor_change(false)
                .with_responses(vec![reassigned]),
        ),
        Response::ListPartitionReassignments(
            ListPartitionReassignmentsResponse::default().with_topics(vec![ongoing]),
        ),
    ]
}

fn of_configs() -> [Response; 3] {
    let synonym = describe_configs_response::DescribeConfigsSynonym::default()
        .with_name(text("log.retention.ms"))
        .with_value(Some(text("1")))
        .with_source(5);
    let entry = describe_configs_response::DescribeConfigsResourceResult::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("1")))
        .with_synonyms(vec![synonym])
        .with_config_source(1)
        .with_config_type(5)
        .with_documentation(Some(text("how long")));
    let described = describe_configs_response::DescribeConfigsResult::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_configs(vec![entry]);
    [
        Response::DescribeConfigs(DescribeConfigsResponse::default().with_results(vec![described])),
        Response::AlterConfigs(
            AlterConfigsResponse::default().with_responses(vec![Default::default()]),
        ),
        Response::IncrementalAlterConfigs(
            IncrementalAlterConfigsResponse::default().with_responses(vec![Default::default()]),
        ),
    ]
}

fn of_site() -> [Response; 4] {
    let broker = describe_cluster_response::DescribeClusterBroker::default()
        .with_broker_id(m::BrokerId(1))
        .with_host(text("a"))
        .with_port(9092)
        .with_rack(Some(text("r")))
        .with_is_fenced(true);
    let disk = describe_log_dirs_response::DescribeLogDirsResult::default()
        .with_log_dir(text("/data"))
        .with_topics(vec![
            describe_log_dirs_response::DescribeLogDirsTopic::default()
                .with_name(topic())
                .with_partitions(vec![Default::default()]),
        ])
        .with_total_bytes(10)
        .with_usable_bytes(5);
    let producers = describe_producers_response::PartitionResponse::default()
        .with_active_producers(vec![Default::default()]);
    [
        Response::DescribeCluster(
            DescribeClusterResponse::default()
                .with_endpoint_type(2)
                .with_cluster_id(text("c"))
                .with_controller_id(m::BrokerId(1))
                .with_brokers(vec![broker]),
        ),
        Response::DescribeLogDirs(
            DescribeLogDirsResponse::default()
                .with_error_code(31)
                .with_results(vec![disk]),
        ),
        Response::DescribeProducers(DescribeProducersResponse::default().with_topics(vec![
            describe_producers_response::TopicResponse::default()
                .with_name(topic())
                .with_partitions(vec![producers]),
        ])),
        Response::DescribeAcls(DescribeAclsResponse::default().with_error_code(54)),
    ]
}
