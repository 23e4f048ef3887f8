//! What groups are asked and what they answer, free of API versions: `wire` and this meet in the shell's dispatch.
//!
//! A request names one group; where Kafka's names several, the shell asks once for each, as they may live on different
//! coordinators. [`GroupRequest::List`] alone is about all groups led here.

use thiserror::Error;

use model::Uuid;

/// "No member id yet" in requests.
pub const UNKNOWN_MEMBER: &str = "";

/// A request to the coordinator of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRequest {
    /// JoinGroup 0–9; answered when the rebalance is complete.
    Join(Join),
    /// SyncGroup 0–5; answered when the leader's assignment is committed.
    Sync(Sync),
    /// Heartbeat 0–4.
    Heartbeat(Heartbeat),
    /// LeaveGroup 0–5; up to version 2 a list of one.
    Leave(Leave),
    /// OffsetCommit 2–9; answered when the offsets are committed.
    Commit(Commit),
    /// OffsetFetch 1–9, one group.
    FetchOffsets(FetchOffsets),
    /// DescribeGroups, one group.
    Describe {
        /// Which; may be empty.
        group: String,
    },
    /// ListGroups.
    List(List),
    /// DeleteGroups, one group.
    Delete {
        /// Which; may be empty.
        group: String,
    },
    /// OffsetDelete.
    DeleteOffsets {
        /// Whose.
        group: String,
        /// Which; the answer has as many results in the same order.
        partitions: Vec<TopicPartitionName>,
    },
}

impl GroupRequest {
    /// The group it is about; `None` for [`GroupRequest::List`].
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Join(join) => Some(&join.group),
            Self::Sync(sync) => Some(&sync.group),
            Self::Heartbeat(heartbeat) => Some(&heartbeat.group),
            Self::Leave(leave) => Some(&leave.group),
            Self::Commit(commit) => Some(&commit.group),
            Self::FetchOffsets(fetch) => Some(&fetch.group),
            Self::Describe { group }
            | Self::Delete { group }
            | Self::DeleteOffsets { group, .. } => Some(group),
            Self::List(_) => None,
        }
    }
}

/// One partition of a topic, as clients name it. Offsets are kept by name, as in Kafka below OffsetCommit 10.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartitionName {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// A member wants in, or back in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Which group.
    pub group: String,
    /// The member's id, or [`UNKNOWN_MEMBER`].
    pub member: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance: Option<String>,
    /// JoinGroup ≥ 4: a member without ids is first given one (KIP-394). Kafka-go loops when asked so below.
    pub member_id_required: bool,
    /// JoinGroup ≥ 9: the client heeds `skip_assignment` (KIP-814).
    pub can_skip_assignment: bool,
    /// The header's client id; the member id begins with it.
    pub client_id: String,
    /// The peer's address, as Kafka writes it: "/192.0.2.1".
    pub client_host: String,
    /// Milliseconds without a heartbeat after which the member is dead.
    pub session_timeout_ms: i32,
    /// Milliseconds a rebalance waits for the member; negative (JoinGroup 0): the session timeout.
    pub rebalance_timeout_ms: i32,
    /// "consumer", "connect", or whatever the client calls itself.
    pub protocol_type: String,
    /// What it can speak, the preferred first.
    pub protocols: Vec<Protocol>,
    /// Random bits from the shell, in case a member id must be made.
    pub uuid: Uuid,
}

/// A protocol that a member speaks, with what the leader shall know of the member. Opaque: only OffsetDelete looks in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The assignor's name.
    pub name: String,
    /// The member's subscription, in the client's own format.
    pub metadata: Vec<u8>,
}

/// A member asks for its assignment; the leader brings all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Which group.
    pub group: String,
    /// The generation it joined.
    pub generation: i32,
    /// The member's id.
    pub member: String,
    /// Its instance id, if static.
    pub instance: Option<String>,
    /// SyncGroup ≥ 5: must be the group's.
    pub protocol_type: Option<String>,
    /// SyncGroup ≥ 5: must be the group's.
    pub protocol: Option<String>,
    /// Member id and its assignment; only the leader's count.
    pub assignments: Vec<(String, Vec<u8>)>,
}

/// A member lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which group.
    pub group: String,
    /// The generation it is in.
    pub generation: i32,
    /// The member's id.
    pub member: String,
    /// Its instance id, if static.
    pub instance: Option<String>,
}

/// Members go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Which group.
    pub group: String,
    /// Who; the answer has as many results in the same order.
    pub members: Vec<Leaver>,
}

/// Who goes: by member id, or, as an administrator says it, by instance id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaver {
    /// The member's id, or [`UNKNOWN_MEMBER`].
    pub member: String,
    /// Its instance id, if static.
    pub instance: Option<String>,
}

/// Offsets to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub group: String,
    /// The member's generation; −1 from a client that is in no group.
    pub generation: i32,
    /// The member's id, or [`UNKNOWN_MEMBER`].
    pub member: String,
    /// Its instance id, if static.
    pub instance: Option<String>,
    /// OffsetCommit 2–4: keep that long, in milliseconds; −1 or later versions: the broker's retention.
    pub retention_ms: i64,
    /// What; the answer has as many results in the same order. Topics were checked by the shell.
    pub offsets: Vec<CommittedOffset>,
}

/// A position in a partition, to be kept for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The next offset to be read.
    pub offset: i64,
    /// Epoch of the last record read; −1: unknown.
    pub leader_epoch: i32,
    /// The client's own note, at most 4,096 characters; `None` is kept as empty, as in Kafka.
    pub metadata: Option<String>,
}

/// Which offsets a client wants back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOffsets {
    /// Whose.
    pub group: String,
    /// Which; `None`: all there are. The answer has as many in the same order.
    pub partitions: Option<Vec<TopicPartitionName>>,
    /// OffsetFetch ≥ 7: not while a transaction holds one. Carried for then; none does yet.
    pub require_stable: bool,
}

/// Which groups are to be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// State names, compared without case; empty: all.
    pub states: Vec<String>,
    /// "classic" or "consumer", compared without case; empty: all.
    pub types: Vec<String>,
}

/// What a request is answered. Each ticket is answered exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupReply {
    /// The rebalance is complete.
    Joined(Joined),
    /// MEMBER_ID_REQUIRED: join again with this id.
    MemberIdRequired {
        /// The member's id from now on.
        member: String,
    },
    /// The member's share.
    Synced(Synced),
    /// A heartbeat that changed nothing.
    Alive,
    /// One result for each that wanted to go.
    Left(Vec<Result<(), GroupError>>),
    /// One result for each offset.
    Committed(Vec<Result<(), GroupError>>),
    /// The offsets asked for.
    Offsets(Vec<FetchedOffset>),
    /// The group.
    Described(Described),
    /// The groups led here.
    Listed(Vec<Listed>),
    /// The group and its offsets are gone.
    Deleted,
    /// One result for each offset.
    OffsetsDeleted(Vec<Result<(), GroupError>>),
    /// The whole request is refused; of commits the code goes to every partition.
    Refused(GroupError),
}

/// A member's place in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub member: String,
    /// The generation, which only rises.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: String,
    /// The protocol with the most votes among those that all speak.
    pub protocol: String,
    /// Who assigns.
    pub leader: String,
    /// The leader came back as a static member and must not assign again.
    pub skip_assignment: bool,
    /// All members, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
}

/// A member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member: String,
    /// Its instance id, if static.
    pub instance: Option<String>,
    /// What it said under the chosen protocol.
    pub metadata: Vec<u8>,
}

/// A member's share of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: String,
    /// The chosen protocol.
    pub protocol: String,
    /// What the leader wrote for it; empty if the leader left it out.
    pub assignment: Vec<u8>,
}

/// An offset as committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The next offset to be read; −1: none committed.
    pub offset: i64,
    /// −1: unknown.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: String,
}

/// A group, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Where it stands.
    pub state: GroupState,
    /// Empty if it never had members.
    pub protocol_type: String,
    /// Empty unless stable.
    pub protocol: String,
    /// Who is in it; metadata and assignments only when stable.
    pub members: Vec<DescribedMember>,
}

/// A member, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member: String,
    /// Its instance id, if static.
    pub instance: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Where it called from.
    pub client_host: String,
    /// What it said under the chosen protocol.
    pub metadata: Vec<u8>,
    /// Its share.
    pub assignment: Vec<u8>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub group: String,
    /// Empty if it never had members.
    pub protocol_type: String,
    /// Where it stands.
    pub state: GroupState,
    /// How its members speak.
    pub kind: GroupKind,
}

/// Where a group stands. Names are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Members are to join again.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited, or on its way to the disks.
    CompletingRebalance,
    /// Everybody may fetch their assignment.
    Stable,
    /// It does not exist.
    Dead,
}

impl GroupState {
    /// Kafka's name of the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// How a group's members speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// JoinGroup and SyncGroup.
    Classic,
}

impl GroupKind {
    /// Kafka's name, as DescribeGroups and ListGroups show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
        }
    }
}

/// Why a group refuses. Each has the Kafka code of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum GroupError {
    /// NOT_COORDINATOR: another node leads the group's partition; ask who.
    #[error("this node does not coordinate the group")]
    NotCoordinator,
    /// COORDINATOR_LOAD_IN_PROGRESS: ask again here.
    #[error("the group is being loaded")]
    CoordinatorLoadInProgress,
    /// COORDINATOR_NOT_AVAILABLE: replicas are missing, a record did not commit in time, or a pool is full. All clients
    /// try again, and members that are in stay in.
    #[error("the coordinator can't do that now")]
    CoordinatorNotAvailable,
    /// INVALID_REQUEST: a name beyond [`super::NAME_BYTES_MAX`].
    #[error("a name in the request is too long")]
    InvalidRequest,
    /// INVALID_GROUP_ID.
    #[error("the group id is empty")]
    InvalidGroupId,
    /// UNKNOWN_MEMBER_ID.
    #[error("the group does not know the member")]
    UnknownMemberId,
    /// FENCED_INSTANCE_ID: another member came with the same instance id.
    #[error("another member has the instance id")]
    FencedInstanceId,
    /// ILLEGAL_GENERATION.
    #[error("the group is at another generation")]
    IllegalGeneration,
    /// REBALANCE_IN_PROGRESS: join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// INCONSISTENT_GROUP_PROTOCOL.
    #[error("member and group share no protocol")]
    InconsistentGroupProtocol,
    /// INVALID_SESSION_TIMEOUT.
    #[error("the session timeout lies outside the broker's bounds")]
    InvalidSessionTimeout,
    /// GROUP_MAX_SIZE_REACHED.
    #[error("the group has as many members as it may")]
    GroupMaxSizeReached,
    /// OFFSET_METADATA_TOO_LARGE.
    #[error("the note beside the offset is too long")]
    OffsetMetadataTooLarge,
    /// INVALID_COMMIT_OFFSET_SIZE: more offsets than go into one batch.
    #[error("the commit is too large")]
    InvalidCommitOffsetSize,
    /// NON_EMPTY_GROUP.
    #[error("the group has members")]
    NonEmptyGroup,
    /// GROUP_ID_NOT_FOUND.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// GROUP_SUBSCRIBED_TO_TOPIC.
    #[error("the group consumes the topic")]
    GroupSubscribedToTopic,
    /// UNKNOWN_SERVER_ERROR: the group's members and assignments together exceed a batch.
    #[error("the group is too large to be written down")]
    UnknownServerError,
}
