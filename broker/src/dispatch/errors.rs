//! One to one: what the machines refuse with, and Kafka's error codes.

use model::{NodeId, TopicId};
use node::catalog;
use node::partition::Refusal;
use wire::{ErrorCode, messages as m};

/// The code a client sees for `refusal`.
pub(crate) fn refused(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::NotLeader { .. } | Refusal::Park => ErrorCode::NotLeaderOrFollower,
        Refusal::DiskFailed | Refusal::QuotaFull => ErrorCode::KafkaStorageError,
        Refusal::TimedOut => ErrorCode::RequestTimedOut,
        Refusal::NotEnoughReplicas | Refusal::Crowded => ErrorCode::NotEnoughReplicas,
        Refusal::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
        Refusal::TooLarge => ErrorCode::MessageTooLarge,
        Refusal::Transactional => ErrorCode::InvalidTxnState,
        Refusal::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        Refusal::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        Refusal::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        Refusal::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        Refusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        Refusal::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
    }
}

/// The code a client sees for what the catalog refuses.
pub(crate) fn catalog_fault(fault: &catalog::Fault) -> ErrorCode {
    use catalog::Fault;
    match fault {
        Fault::InvalidTopic(_) => ErrorCode::InvalidTopicException,
        Fault::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Fault::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        Fault::UnknownTopicId => ErrorCode::UnknownTopicId,
        Fault::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        Fault::InvalidReplication(_) => ErrorCode::InvalidReplicationFactor,
        Fault::InvalidAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        Fault::InvalidConfig(_) => ErrorCode::InvalidConfig,
        Fault::InvalidRequest(_) => ErrorCode::InvalidRequest,
        Fault::Policy(_) => ErrorCode::PolicyViolation,
    }
}

/// Kafka's broker id of a node. Site files number nodes far below 2³¹.
pub(crate) fn broker_id(node: NodeId) -> m::BrokerId {
    m::BrokerId(node.0.cast_signed())
}

/// A topic's id in the messages' type.
pub(crate) fn topic_uuid(id: TopicId) -> uuid::Uuid {
    uuid::Uuid::from_bytes(id.0.0)
}
