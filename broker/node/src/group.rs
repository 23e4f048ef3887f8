//! Consumer groups: who is in, who leads, who gets what.

mod types;

pub use types::{
    Commit, CommittedOffset, Described, DescribedMember, FetchOffsets, FetchedOffset, GroupError,
    GroupKind, GroupReply, GroupRequest, GroupState, Heartbeat, Join, Joined, JoinedMember, Leave,
    Leaver, List, Listed, Protocol, Sync, Synced, TopicPartitionName, UNKNOWN_MEMBER,
};
