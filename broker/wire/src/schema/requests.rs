//! The shapes of the requests that kafka-protocol decodes.

use super::{BLOB, BOOL, Field, I8, I16, I32, I64, INDEXES, Shape, TEXT, TEXTS, UUID};
use super::{all, since, span, until};

pub(crate) static API_VERSIONS: &[Field] = &[
    since(3, "client_software_name", TEXT),
    since(3, "client_software_version", TEXT),
];

pub(crate) static METADATA: &[Field] = &[
    all(
        "topics",
        Shape::Rows(&[since(10, "topic_id", UUID), all("name", TEXT)]),
    ),
    since(4, "allow_auto_topic_creation", BOOL),
    span(8, 10, "include_cluster_authorized_operations", BOOL),
    since(8, "include_topic_authorized_operations", BOOL),
];

pub(crate) static LIST_OFFSETS: &[Field] = &[
    all("replica_id", I32),
    since(2, "isolation_level", I8),
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all(
                "partitions",
                Shape::Rows(&[
                    all("partition_index", I32),
                    since(4, "current_leader_epoch", I32),
                    all("timestamp", I64),
                ]),
            ),
        ]),
    ),
];

pub(crate) static FIND_COORDINATOR: &[Field] = &[
    until(3, "key", TEXT),
    since(1, "key_type", I8),
    since(4, "coordinator_keys", TEXTS),
];

pub(crate) static JOIN_GROUP: &[Field] = &[
    all("group_id", TEXT),
    all("session_timeout_ms", I32),
    since(1, "rebalance_timeout_ms", I32),
    all("member_id", TEXT),
    since(5, "group_instance_id", TEXT),
    all("protocol_type", TEXT),
    all(
        "protocols",
        Shape::Rows(&[all("name", TEXT), all("metadata", BLOB)]),
    ),
    since(8, "reason", TEXT),
];

pub(crate) static SYNC_GROUP: &[Field] = &[
    all("group_id", TEXT),
    all("generation_id", I32),
    all("member_id", TEXT),
    since(3, "group_instance_id", TEXT),
    since(5, "protocol_type", TEXT),
    since(5, "protocol_name", TEXT),
    all(
        "assignments",
        Shape::Rows(&[all("member_id", TEXT), all("assignment", BLOB)]),
    ),
];

pub(crate) static HEARTBEAT: &[Field] = &[
    all("group_id", TEXT),
    all("generation_id", I32),
    all("member_id", TEXT),
    since(3, "group_instance_id", TEXT),
];

pub(crate) static LEAVE_GROUP: &[Field] = &[
    all("group_id", TEXT),
    until(2, "member_id", TEXT),
    since(
        3,
        "members",
        Shape::Rows(&[
            all("member_id", TEXT),
            all("group_instance_id", TEXT),
            since(5, "reason", TEXT),
        ]),
    ),
];

pub(crate) static OFFSET_COMMIT: &[Field] = &[
    all("group_id", TEXT),
    all("generation_id", I32),
    all("member_id", TEXT),
    since(7, "group_instance_id", TEXT),
    until(4, "retention_time_ms", I64),
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all(
                "partitions",
                Shape::Rows(&[
                    all("partition_index", I32),
                    all("committed_offset", I64),
                    since(6, "committed_leader_epoch", I32),
                    all("committed_metadata", TEXT),
                ]),
            ),
        ]),
    ),
];

const NAMED_INDEXES: Shape = Shape::Rows(&[all("name", TEXT), all("partition_indexes", INDEXES)]);

pub(crate) static OFFSET_FETCH: &[Field] = &[
    until(7, "group_id", TEXT),
    until(7, "topics", NAMED_INDEXES),
    since(
        8,
        "groups",
        Shape::Rows(&[
            all("group_id", TEXT),
            since(9, "member_id", TEXT),
            since(9, "member_epoch", I32),
            all("topics", NAMED_INDEXES),
        ]),
    ),
    since(7, "require_stable", BOOL),
];

pub(crate) static INIT_PRODUCER_ID: &[Field] = &[
    all("transactional_id", TEXT),
    all("transaction_timeout_ms", I32),
    since(3, "producer_id", I64),
    since(3, "producer_epoch", I16),
];

pub(crate) static CREATE_TOPICS: &[Field] = &[
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all("num_partitions", I32),
            all("replication_factor", I16),
            all(
                "assignments",
                Shape::Rows(&[all("partition_index", I32), all("broker_ids", INDEXES)]),
            ),
            all(
                "configs",
                Shape::Rows(&[all("name", TEXT), all("value", TEXT)]),
            ),
        ]),
    ),
    all("timeout_ms", I32),
    all("validate_only", BOOL),
];

pub(crate) static DELETE_TOPICS: &[Field] = &[
    since(
        6,
        "topics",
        Shape::Rows(&[all("name", TEXT), all("topic_id", UUID)]),
    ),
    until(5, "topic_names", TEXTS),
    all("timeout_ms", I32),
];

pub(crate) static DESCRIBE_CONFIGS: &[Field] = &[
    all(
        "resources",
        Shape::Rows(&[
            all("resource_type", I8),
            all("resource_name", TEXT),
            all("configuration_keys", TEXTS),
        ]),
    ),
    all("include_synonyms", BOOL),
    since(3, "include_documentation", BOOL),
];

pub(crate) static INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    all(
        "resources",
        Shape::Rows(&[
            all("resource_type", I8),
            all("resource_name", TEXT),
            all(
                "configs",
                Shape::Rows(&[
                    all("name", TEXT),
                    all("config_operation", I8),
                    all("value", TEXT),
                ]),
            ),
        ]),
    ),
    all("validate_only", BOOL),
];

pub(crate) static ALTER_CONFIGS: &[Field] = &[
    all(
        "resources",
        Shape::Rows(&[
            all("resource_type", I8),
            all("resource_name", TEXT),
            all(
                "configs",
                Shape::Rows(&[all("name", TEXT), all("value", TEXT)]),
            ),
        ]),
    ),
    all("validate_only", BOOL),
];

pub(crate) static DESCRIBE_GROUPS: &[Field] = &[
    all("groups", TEXTS),
    since(3, "include_authorized_operations", BOOL),
];

pub(crate) static LIST_GROUPS: &[Field] = &[
    since(4, "states_filter", TEXTS),
    since(5, "types_filter", TEXTS),
];

pub(crate) static DELETE_GROUPS: &[Field] = &[all("groups_names", TEXTS)];

pub(crate) static OFFSET_DELETE: &[Field] = &[
    all("group_id", TEXT),
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all("partitions", Shape::Rows(&[all("partition_index", I32)])),
        ]),
    ),
];

pub(crate) static CREATE_PARTITIONS: &[Field] = &[
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all("count", I32),
            all("assignments", Shape::Rows(&[all("broker_ids", INDEXES)])),
        ]),
    ),
    all("timeout_ms", I32),
    all("validate_only", BOOL),
];

pub(crate) static DELETE_RECORDS: &[Field] = &[
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all(
                "partitions",
                Shape::Rows(&[all("partition_index", I32), all("offset", I64)]),
            ),
        ]),
    ),
    all("timeout_ms", I32),
];

pub(crate) static DESCRIBE_CLUSTER: &[Field] = &[
    all("include_cluster_authorized_operations", BOOL),
    since(1, "endpoint_type", I8),
];

pub(crate) static DESCRIBE_LOG_DIRS: &[Field] = &[all("topics", NAMED_INDEXES)];

pub(crate) static OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    since(3, "replica_id", I32),
    all(
        "topics",
        Shape::Rows(&[
            all("topic", TEXT),
            all(
                "partitions",
                Shape::Rows(&[
                    all("partition", I32),
                    all("current_leader_epoch", I32),
                    all("leader_epoch", I32),
                ]),
            ),
        ]),
    ),
];

pub(crate) static DESCRIBE_ACLS: &[Field] = &[
    all("resource_type_filter", I8),
    all("resource_name_filter", TEXT),
    all("pattern_type_filter", I8),
    all("principal_filter", TEXT),
    all("host_filter", TEXT),
    all("operation", I8),
    all("permission_type", I8),
];

pub(crate) static DESCRIBE_PRODUCERS: &[Field] = &[all("topics", NAMED_INDEXES)];

pub(crate) static ELECT_LEADERS: &[Field] = &[
    since(1, "election_type", I8),
    all("topic_partitions", NAMED_INDEXES),
    all("timeout_ms", I32),
];

pub(crate) static LIST_PARTITION_REASSIGNMENTS: &[Field] =
    &[all("timeout_ms", I32), all("topics", NAMED_INDEXES)];

pub(crate) static ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[
    all("timeout_ms", I32),
    since(1, "allow_replication_factor_change", BOOL),
    all(
        "topics",
        Shape::Rows(&[
            all("name", TEXT),
            all(
                "partitions",
                Shape::Rows(&[all("partition_index", I32), all("replicas", INDEXES)]),
            ),
        ]),
    ),
];
