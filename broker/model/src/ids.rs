//! Identifiers and positions. Each is a newtype, so that a term cannot be passed for a leader epoch.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Position of a record in a partition's log, counted from 0. −1 stands for "none" only on the wire.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Self = Self(0);

    /// The offset `count` records further on. Saturates at `i64::MAX`, which no log reaches.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Records between `earlier` and this offset; negative if this one comes first.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Epoch of one partition's leader, given only by site-log entries; it names one leader for ever (KIP-101).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// "No epoch known", −1 on the wire.
    pub const NONE: Self = Self(-1);

    /// The epoch that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Default for LeaderEpoch {
    fn default() -> Self {
        Self::NONE
    }
}

/// Term of the site log (Raft §5.1): at most one controller each. Clients never see it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

/// A node of the site, as numbered by the site file's order from 1; Kafka's broker id.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u32);

/// Number of a partition within its topic, from 0; never negative after the door.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PartitionIndex(pub u32);

/// Identity of an idempotent producer (KIP-98), unique in a site; −1 stands for "none" only in batch headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProducerId(pub i64);

/// Generation of a producer id (KIP-98); newer ones fence older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProducerEpoch(pub i16);

/// 128 bits that name something for ever. All zero means "none yet".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// "None yet".
    pub const ZERO: Self = Self([0; 16]);

    /// Whether this names nothing yet.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        u128::from_le_bytes(self.0) == 0
    }
}

/// Lower-case hexadecimal without dashes: short in paths and logs.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_newtype! {
    /// A topic's identity (KIP-516): a topic made again under an old name gets a new one.
    TopicId
}
uuid_newtype! {
    /// A site's identity, drawn at its bootstrap; `cluster.id` is its base64url.
    SiteUuid
}
uuid_newtype! {
    /// A data disk's identity, drawn when it is formatted. A replica is in sync *on a disk*, not on a node.
    DiskUuid
}
uuid_newtype! {
    /// A node's identity, drawn when its meta disk is formatted: a node that lost its promises is another node.
    Incarnation
}

/// Names one partition of the site without its topic's name.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TopicPartition {
    /// The topic's identity.
    pub topic: TopicId,
    /// The partition's number in it.
    pub partition: PartitionIndex,
}
