//! The shapes of the answers that a client of ours reads, and the same walk over them: a broker may be as wrong, or as
//! hostile, as a client.

use super::{BLOB, BOOL, Field, I8, I16, I32, I64, INDEXES, Shape, TEXT, UUID, all, since, span};
use super::{until, walk};
use crate::Api;
use crate::reader::{DecodeError, Fault, Reader};

/// Checks the body of an answer to `api` in `version`, up to the version given in [`shape`], before kafka-protocol
/// reads it; says where the body ends.
///
/// # Errors
/// If a length or count is beyond the bytes that are there, or no client of ours asks in this version.
pub fn check_answer(api: Api, version: i16, body: &[u8]) -> Result<usize, DecodeError> {
    // Of bytes there are as many as the caller has read; each element takes one at least.
    let mut reader = Reader::new(body, 0, api.flexible(version), u32::MAX);
    let Some((_, fields)) = shape(api).filter(|(most, _)| (0..=*most).contains(&version)) else {
        return Err(reader.fault("version", Fault::Undefined(version.into())));
    };
    walk(fields, version, &mut reader)?;
    Ok(reader.at())
}

/// The highest version that is known here, and the fields of all versions up to it.
pub(crate) fn shape(api: Api) -> Option<(i16, &'static [Field])> {
    Some(match api {
        Api::Produce => (11, PRODUCE),
        Api::Fetch => (12, FETCH),
        Api::ListOffsets => (7, LIST_OFFSETS),
        Api::Metadata => (12, METADATA),
        Api::OffsetCommit => (8, OFFSET_COMMIT),
        Api::OffsetFetch => (7, OFFSET_FETCH),
        Api::FindCoordinator => (4, FIND_COORDINATOR),
        Api::JoinGroup => (7, JOIN_GROUP),
        Api::Heartbeat => (3, HEARTBEAT),
        Api::LeaveGroup => (4, LEAVE_GROUP),
        Api::SyncGroup => (4, SYNC_GROUP),
        Api::DescribeGroups => (5, DESCRIBE_GROUPS),
        Api::ListGroups => (5, LIST_GROUPS),
        Api::ApiVersions => (3, API_VERSIONS),
        Api::CreateTopics => (7, CREATE_TOPICS),
        Api::DeleteTopics => (6, DELETE_TOPICS),
        Api::InitProducerId => (4, INIT_PRODUCER_ID),
        Api::DescribeConfigs => (4, DESCRIBE_CONFIGS),
        Api::CreatePartitions => (3, CREATE_PARTITIONS),
        Api::DeleteGroups => (2, DELETE_GROUPS),
        Api::IncrementalAlterConfigs => (1, INCREMENTAL_ALTER_CONFIGS),
        Api::OffsetDelete => (0, OFFSET_DELETE),
        _ => return None,
    })
}

const INDEX_AND_ERROR: Shape = Shape::Rows(&[all("partition_index", I32), all("error_code", I16)]);
const TOPICS_OF_ERRORS: Shape =
    Shape::Rows(&[all("name", TEXT), all("partitions", INDEX_AND_ERROR)]);

static PRODUCE: &[Field] = &[
    all(
        "responses",
        Shape::Rows(&[
            all("name", TEXT),
            all(
                "partition_responses",
                Shape::Rows(&[
                    all("index", I32),
                    all("error_code", I16),
                    all("base_offset", I64),
                    since(2, "log_append_time_ms", I64),
                    since(5, "log_start_offset", I64),
                    since(
                        8,
                        "record_errors",
                        Shape::Rows(&[
                            all("batch_index", I32),
                            all("batch_index_error_message", TEXT),
                        ]),
                    ),
                    since(8, "error_message", TEXT),
                ]),
            ),
        ]),
    ),
    since(1, "throttle_time_ms", I32),
];

static FETCH: &[Field] = &[
    since(1, "throttle_time_ms", I32),
    since(7, "error_code", I16),
    since(7, "session_id", I32),
    all(
        "responses",
        Shape::Rows(&[
            all("topic", TEXT),
            all(
                "partitions",
                Shape::Rows(&[
                    all("partition_index", I32),
                    all("error_code", I16),
                    all("high_watermark", I64),
                    since(4, "last_stable_offset", I64),
                    since(5, "log_start_offset", I64),
                    since(
                        4,
                        "aborted_transactions",
                        Shape::Rows(&[all("producer_id", I64), all("first_offset", I64)]),
                    ),
                    since(11, "preferred_read_replica", I32),
                    all("records", BLOB),
                ]),
            ),
        ]),
    ),
];

static LIST_OFFSETS: &[Field] = &[
    since(2, "throttle_time_ms", I32),
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all(
                "partitions",
                Shape::Rows(&[
                    all("partition_index", I32),
                    all("error_code", I16),
                    until(0, "old_style_offsets", Shape::List(&I64)),
                    since(1, "timestamp", I64),
                    since(1, "offset", I64),
                    since(4, "leader_epoch", I32),
                ]),
            ),
        ]),
    ),
];

static METADATA: &[Field] = &[
    since(3, "throttle_time_ms", I32),
    all(
        "brokers",
        Shape::Rows(&[
            all("node_id", I32),
            all("host", TEXT),
            all("port", I32),
            since(1, "rack", TEXT),
        ]),
    ),
    since(2, "cluster_id", TEXT),
    since(1, "controller_id", I32),
    all(
        "topics",
        Shape::Rows(&[
            all("error_code", I16),
            all("name", TEXT),
            since(10, "topic_id", UUID),
            since(1, "is_internal", BOOL),
            all(
                "partitions",
                Shape::Rows(&[
                    all("error_code", I16),
                    all("partition_index", I32),
                    all("leader_id", I32),
                    since(7, "leader_epoch", I32),
                    all("replica_nodes", INDEXES),
                    all("isr_nodes", INDEXES),
                    since(5, "offline_replicas", INDEXES),
                ]),
            ),
            since(8, "topic_authorized_operations", I32),
        ]),
    ),
    span(8, 10, "cluster_authorized_operations", I32),
];

static OFFSET_COMMIT: &[Field] = &[
    since(3, "throttle_time_ms", I32),
    all("topics", TOPICS_OF_ERRORS),
];

static OFFSET_FETCH: &[Field] = &[
    since(3, "throttle_time_ms", I32),
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all(
                "partitions",
                Shape::Rows(&[
                    all("partition_index", I32),
                    all("committed_offset", I64),
                    since(5, "committed_leader_epoch", I32),
                    all("metadata", TEXT),
                    all("error_code", I16),
                ]),
            ),
        ]),
    ),
    since(2, "error_code", I16),
];

static FIND_COORDINATOR: &[Field] = &[
    since(1, "throttle_time_ms", I32),
    until(3, "error_code", I16),
    span(1, 3, "error_message", TEXT),
    until(3, "node_id", I32),
    until(3, "host", TEXT),
    until(3, "port", I32),
    since(
        4,
        "coordinators",
        Shape::Rows(&[
            all("key", TEXT),
            all("node_id", I32),
            all("host", TEXT),
            all("port", I32),
            all("error_code", I16),
            all("error_message", TEXT),
        ]),
    ),
];

static JOIN_GROUP: &[Field] = &[
    since(2, "throttle_time_ms", I32),
    all("error_code", I16),
    all("generation_id", I32),
    since(7, "protocol_type", TEXT),
    all("protocol_name", TEXT),
    all("leader", TEXT),
    all("member_id", TEXT),
    all(
        "members",
        Shape::Rows(&[
            all("member_id", TEXT),
            since(5, "group_instance_id", TEXT),
            all("metadata", BLOB),
        ]),
    ),
];

static HEARTBEAT: &[Field] = &[since(1, "throttle_time_ms", I32), all("error_code", I16)];

static LEAVE_GROUP: &[Field] = &[
    since(1, "throttle_time_ms", I32),
    all("error_code", I16),
    since(
        3,
        "members",
        Shape::Rows(&[
            all("member_id", TEXT),
            all("group_instance_id", TEXT),
            all("error_code", I16),
        ]),
    ),
];

static SYNC_GROUP: &[Field] = &[
    since(1, "throttle_time_ms", I32),
    all("error_code", I16),
    all("assignment", BLOB),
];

static DESCRIBE_GROUPS: &[Field] = &[
    since(1, "throttle_time_ms", I32),
    all(
        "groups",
        Shape::Rows(&[
            all("error_code", I16),
            all("group_id", TEXT),
            all("group_state", TEXT),
            all("protocol_type", TEXT),
            all("protocol_data", TEXT),
            all(
                "members",
                Shape::Rows(&[
                    all("member_id", TEXT),
                    since(4, "group_instance_id", TEXT),
                    all("client_id", TEXT),
                    all("client_host", TEXT),
                    all("member_metadata", BLOB),
                    all("member_assignment", BLOB),
                ]),
            ),
            since(3, "authorized_operations", I32),
        ]),
    ),
];

static LIST_GROUPS: &[Field] = &[
    since(1, "throttle_time_ms", I32),
    all("error_code", I16),
    all(
        "groups",
        Shape::Rows(&[
            all("group_id", TEXT),
            all("protocol_type", TEXT),
            since(4, "group_state", TEXT),
            since(5, "group_type", TEXT),
        ]),
    ),
];

static API_VERSIONS: &[Field] = &[
    all("error_code", I16),
    all(
        "api_keys",
        Shape::Rows(&[
            all("api_key", I16),
            all("min_version", I16),
            all("max_version", I16),
        ]),
    ),
    since(1, "throttle_time_ms", I32),
];

static CREATE_TOPICS: &[Field] = &[
    since(2, "throttle_time_ms", I32),
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            since(7, "topic_id", UUID),
            all("error_code", I16),
            since(1, "error_message", TEXT),
            since(5, "num_partitions", I32),
            since(5, "replication_factor", I16),
            since(
                5,
                "configs",
                Shape::Rows(&[
                    all("name", TEXT),
                    all("value", TEXT),
                    all("read_only", BOOL),
                    all("config_source", I8),
                    all("is_sensitive", BOOL),
                ]),
            ),
        ]),
    ),
];

static DELETE_TOPICS: &[Field] = &[
    since(1, "throttle_time_ms", I32),
    all(
        "responses",
        Shape::Rows(&[
            all("name", TEXT),
            since(6, "topic_id", UUID),
            all("error_code", I16),
            since(5, "error_message", TEXT),
        ]),
    ),
];

static INIT_PRODUCER_ID: &[Field] = &[
    all("throttle_time_ms", I32),
    all("error_code", I16),
    all("producer_id", I64),
    all("producer_epoch", I16),
];

static DESCRIBE_CONFIGS: &[Field] = &[
    all("throttle_time_ms", I32),
    all(
        "results",
        Shape::Rows(&[
            all("error_code", I16),
            all("error_message", TEXT),
            all("resource_type", I8),
            all("resource_name", TEXT),
            all(
                "configs",
                Shape::Rows(&[
                    all("name", TEXT),
                    all("value", TEXT),
                    all("read_only", BOOL),
                    until(0, "is_default", BOOL),
                    since(1, "config_source", I8),
                    all("is_sensitive", BOOL),
                    since(
                        1,
                        "synonyms",
                        Shape::Rows(&[all("name", TEXT), all("value", TEXT), all("source", I8)]),
                    ),
                    since(3, "config_type", I8),
                    since(3, "documentation", TEXT),
                ]),
            ),
        ]),
    ),
];

static CREATE_PARTITIONS: &[Field] = &[
    all("throttle_time_ms", I32),
    all(
        "results",
        Shape::Rows(&[
            all("name", TEXT),
            all("error_code", I16),
            all("error_message", TEXT),
        ]),
    ),
];

static DELETE_GROUPS: &[Field] = &[
    all("throttle_time_ms", I32),
    all(
        "results",
        Shape::Rows(&[all("group_id", TEXT), all("error_code", I16)]),
    ),
];

static INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    all("throttle_time_ms", I32),
    all(
        "responses",
        Shape::Rows(&[
            all("error_code", I16),
            all("error_message", TEXT),
            all("resource_type", I8),
            all("resource_name", TEXT),
        ]),
    ),
];

static OFFSET_DELETE: &[Field] = &[
    all("error_code", I16),
    all("throttle_time_ms", I32),
    all("topics", TOPICS_OF_ERRORS),
];
