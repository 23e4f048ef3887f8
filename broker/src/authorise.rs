//! What each API needs a right for: one exhaustive table, asked before any effect.
//!
//! Listeners have no `auth` yet, so every principal is a superuser and every answer is yes. The table stands first
//! because a request without a row must not compile once the answer matters.

use wire::{Api, ErrorCode};

use crate::context::Context;

/// Kafka's resource types, as far as the APIs here name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// The cluster as a whole.
    Cluster,
    /// Each topic that the request names.
    Topic,
    /// Each group that the request names.
    Group,
}

/// Kafka's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Alter,
    AlterConfigs,
    Create,
    Delete,
    Describe,
    DescribeConfigs,
    IdempotentWrite,
    Read,
    Write,
}

/// The right that `api` needs; None for what is answered before anyone says who they are.
pub(crate) const fn right(api: Api) -> Option<(Resource, Operation)> {
    use Operation as O;
    use Resource::{Cluster, Group, Topic};
    Some(match api {
        Api::ApiVersions => return None,
        Api::Produce => (Topic, O::Write),
        Api::Fetch => (Topic, O::Read),
        Api::ListOffsets | Api::Metadata | Api::OffsetForLeaderEpoch => (Topic, O::Describe),
        Api::DescribeProducers => (Topic, O::Read),
        Api::OffsetCommit | Api::JoinGroup | Api::Heartbeat | Api::LeaveGroup | Api::SyncGroup => {
            (Group, O::Read)
        }
        Api::OffsetFetch | Api::FindCoordinator | Api::DescribeGroups | Api::ListGroups => {
            (Group, O::Describe)
        }
        Api::DeleteGroups | Api::OffsetDelete => (Group, O::Delete),
        Api::CreateTopics => (Cluster, O::Create),
        Api::DeleteTopics | Api::DeleteRecords => (Topic, O::Delete),
        Api::CreatePartitions => (Topic, O::Alter),
        Api::InitProducerId => (Cluster, O::IdempotentWrite),
        Api::DescribeConfigs => (Topic, O::DescribeConfigs),
        Api::AlterConfigs | Api::IncrementalAlterConfigs => (Topic, O::AlterConfigs),
        Api::DescribeAcls
        | Api::DescribeLogDirs
        | Api::DescribeCluster
        | Api::ListPartitionReassignments => (Cluster, O::Describe),
        Api::ElectLeaders | Api::AlterPartitionReassignments => (Cluster, O::Alter),
    })
}

/// Whether `context` may call `api` at all; the error is the whole refusal.
pub(crate) fn authorise(context: &Context, api: Api) -> Result<(), ErrorCode> {
    match right(api) {
        None => Ok(()),
        Some(_) if context.superuser => Ok(()),
        Some((Resource::Cluster, _)) => Err(ErrorCode::ClusterAuthorizationFailed),
        Some((Resource::Topic, _)) => Err(ErrorCode::TopicAuthorizationFailed),
        Some((Resource::Group, _)) => Err(ErrorCode::GroupAuthorizationFailed),
    }
}
