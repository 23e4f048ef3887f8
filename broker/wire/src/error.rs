//! The error codes of Kafka's protocol: number, name, whether a client may try again, and a sentence.
//!
//! One table, as Kafka's `Errors.java` numbers them; nothing here decides which one an answer gets.

use core::fmt;

macro_rules! codes {
    ($($name:ident = $code:literal, $wire:literal, $retriable:ident, $message:literal;)*) => {
        /// An error code of the protocol. `None` (0) stands for success, as on the wire.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            /// No error.
            #[default]
            None = 0,
            $(
                #[doc = $message]
                $name = $code,
            )*
        }

        impl ErrorCode {
            /// Every code but `None`, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code a number stands for; none for numbers this release does not know.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    0 => Some(Self::None),
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name in Kafka's documents, such as `NOT_LEADER_OR_FOLLOWER`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::None => "NONE",
                    $(Self::$name => $wire,)*
                }
            }

            /// Whether Kafka's clients take it as a reason to try the same request again.
            #[must_use]
            pub const fn retriable(self) -> bool {
                match self {
                    Self::None => false,
                    $(Self::$name => codes!(@ $retriable),)*
                }
            }

            /// One sentence for `error_message` fields and the command line.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    Self::None => "no error",
                    $(Self::$name => $message,)*
                }
            }
        }
    };
    (@ retry) => { true };
    (@ final) => { false };
}

codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", final, "The broker met an unexpected error.";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", final, "The offset lies outside the partition's log.";
    CorruptMessage = 2, "CORRUPT_MESSAGE", retry, "The batch failed its CRC or is otherwise corrupt.";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retry, "This broker does not host the topic or partition.";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", final, "The requested fetch size is invalid.";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retry, "The partition has no leader now.";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retry, "This broker is not the partition's leader, or has no replica of it.";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retry, "The request timed out.";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", final, "The broker is not available.";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retry, "The replica is not available.";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", final, "The batch is larger than max.message.bytes.";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", final, "The controller moved to another broker.";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", final, "The metadata of the offset commit is too large.";
    NetworkException = 13, "NETWORK_EXCEPTION", retry, "The connection closed before an answer came.";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retry, "The coordinator is still loading.";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retry, "The coordinator is not available.";
    NotCoordinator = 16, "NOT_COORDINATOR", retry, "This broker is not the coordinator.";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", final, "The topic's name is not allowed for this operation.";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", final, "The batch is larger than a segment.";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retry, "Fewer replicas are in sync than min.insync.replicas asks for; nothing was written.";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retry, "The batch was written to fewer replicas than min.insync.replicas asks for.";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", final, "acks must be -1, 0 or 1.";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", final, "The group has another generation.";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", final, "The member and the group share no protocol.";
    InvalidGroupId = 24, "INVALID_GROUP_ID", final, "The group id is not valid.";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", final, "The group does not know this member.";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", final, "The session timeout lies outside the bounds the broker sets.";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", final, "The group is rebalancing: join again.";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", final, "The size of the committed offset is not valid.";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", final, "Not allowed on this topic.";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", final, "Not allowed on this group.";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", final, "Not allowed on this cluster.";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", final, "A record's timestamp is out of the accepted range.";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", final, "The broker does not offer this SASL mechanism.";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", final, "The request does not fit the SASL state.";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", final, "The broker does not support this version of the API.";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", final, "A topic of this name exists already.";
    InvalidPartitions = 37, "INVALID_PARTITIONS", final, "The number of partitions is not valid.";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", final, "The replication factor is below 1 or above the number of brokers.";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", final, "The replica assignment is not valid.";
    InvalidConfig = 40, "INVALID_CONFIG", final, "The configuration is not valid.";
    NotController = 41, "NOT_CONTROLLER", retry, "This broker is not the controller.";
    InvalidRequest = 42, "INVALID_REQUEST", final, "The request is malformed or makes no sense.";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", final, "The record format on the broker does not support the request.";
    PolicyViolation = 44, "POLICY_VIOLATION", final, "The request violates a policy of the site.";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", final, "The producer's sequence number leaves a gap.";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", final, "The producer's sequence number was seen before.";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", final, "The producer's epoch is older than the one known.";
    InvalidTxnState = 48, "INVALID_TXN_STATE", final, "The operation does not fit the transaction's state.";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", final, "The producer id is not the one of this transactional id.";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", final, "The transaction timeout is above the allowed maximum.";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", final, "Another operation on this transaction is under way.";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", final, "The transaction coordinator has been replaced.";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", final, "Not allowed with this transactional id.";
    SecurityDisabled = 54, "SECURITY_DISABLED", final, "Security features are disabled.";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", final, "Another part of the request failed, so this one was not tried.";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retry, "The partition's disk failed.";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", final, "The broker has no such log directory.";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", final, "SASL authentication failed.";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", final, "The broker has no state of this producer id.";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", final, "A reassignment of the partition is under way.";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", final, "Delegation tokens are disabled.";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", final, "No such delegation token.";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", final, "The principal is neither owner nor renewer of the token.";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", final, "Token requests are not allowed on this connection.";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", final, "Not allowed with this delegation token.";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", final, "The delegation token has expired.";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", final, "The type of principal is not supported.";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", final, "The group is not empty.";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", final, "The group does not exist.";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retry, "The fetch session is not known.";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retry, "The fetch session is at another epoch.";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retry, "The leader has no listener of this name.";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", final, "Deleting topics is disabled.";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retry, "The request's leader epoch is older than the broker's.";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retry, "The request's leader epoch is newer than the broker's.";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", final, "The client's version does not allow this compression.";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", final, "The broker's epoch has changed.";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retry, "The high watermark has not caught up since the last election.";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", final, "The member must join again with the id given here.";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retry, "The preferred leader is not available.";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", final, "The group has reached its largest size.";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", final, "Another member has registered with this group.instance.id.";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retry, "No eligible leader is available.";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retry, "The partition needs no election.";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", final, "No reassignment is under way.";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", final, "The group is subscribed to the topic.";
    InvalidRecord = 87, "INVALID_RECORD", final, "A record or batch failed the broker's checks.";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retry, "Offsets of an open transaction must settle first.";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retry, "The throttling quota is exceeded.";
    ProducerFenced = 90, "PRODUCER_FENCED", final, "A newer producer of this transactional id has taken over.";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", final, "The resource does not exist.";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", final, "The request names a resource twice.";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", final, "The credential does not meet the requirements.";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", final, "Sender and receiver disagree on the voters.";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", final, "The update's version is not valid.";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", final, "The features could not be updated.";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", final, "The forwarded principal can't be read.";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", final, "The snapshot does not exist.";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", final, "The position lies outside the snapshot.";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retry, "This broker hosts no topic of this id.";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", final, "The broker id is taken.";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", final, "The broker id is not registered.";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retry, "The topic has another id in the log.";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", final, "The request belongs to another cluster.";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", final, "The transactional id does not exist.";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retry, "The fetch session mixes topic names and topic ids.";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", final, "A new in-sync replica is not eligible.";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", final, "The change elected a new leader.";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", final, "The offset lies in tiered storage.";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", final, "The member's epoch is fenced by the coordinator.";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", final, "Another member still holds this instance id.";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", final, "The group does not support this assignor.";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", final, "The member's epoch is stale.";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", final, "The request reached the wrong type of endpoint.";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", final, "This type of endpoint is not supported.";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", final, "The controller id is not known.";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", final, "The telemetry subscription is not known.";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", final, "The telemetry is too large.";
    InvalidRegistration = 119, "INVALID_REGISTRATION", final, "The broker registration is not valid.";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", final, "The transaction must be aborted before the producer goes on.";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", final, "The record's share state is not valid.";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", retry, "The share session is not known.";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", retry, "The share session is at another epoch.";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", final, "The share state's epoch is fenced.";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", final, "The voter's key is not the receiver's.";
    DuplicateVoter = 126, "DUPLICATE_VOTER", final, "The voter is known already.";
    VoterNotFound = 127, "VOTER_NOT_FOUND", final, "The voter is not known.";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", final, "The regular expression is not valid.";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", final, "The client's metadata is stale: bootstrap again.";
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this says success.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::error::ParseResponseErrorCode;

    /// kafka-protocol's table is generated from Kafka's own sources: an independent witness.
    #[test]
    fn codes_and_retries_agree_with_kafka() {
        for code in ErrorCode::ALL {
            let theirs = code.code().err().expect("not success");
            assert_eq!(theirs.is_retriable(), code.retriable(), "{code}");
            let camel: String = code
                .name()
                .split('_')
                .map(|word| word[..1].to_owned() + &word[1..].to_lowercase())
                .collect();
            assert_eq!(theirs.to_string(), camel, "{}", code.code());
            assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
        }
        assert_eq!(ErrorCode::ALL.len(), 130, "-1 and 1 to 129 without a hole");
        assert_eq!(ErrorCode::from_code(0), Some(ErrorCode::None));
        assert_eq!(ErrorCode::from_code(i16::MAX), None);
    }
}
