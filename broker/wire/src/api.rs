//! The one table of API versions: what the broker answers, and what it says it answers.
//!
//! Versions are known in this crate only. A row is in the table when every version of it is decoded, acted on and
//! answered; the set looks like Kafka 3.9, because clients infer a release from it. Transactions, KIP-848, ACL
//! changes, SASL, tokens, telemetry and share groups are absent on purpose.

use core::fmt;

macro_rules! apis {
    ($($name:ident $key:literal: $min:literal..=$max:literal, flexible $flexible:literal, $elements:ident;)*) => {
        /// An API the broker answers; the discriminant is Kafka's API key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum Api {
            $(
                #[doc = concat!("Key ", $key, ", versions ", $min, " to ", $max, ", flexible from ", $flexible, ".")]
                $name = $key,
            )*
        }

        impl Api {
            /// Every API, in the order of their keys.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The API of a key, if the broker answers it.
            #[must_use]
            pub const fn from_key(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name in Kafka's documents, for logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        min: $min,
                        max: $max,
                        flexible: $flexible,
                        elements_max: $elements,
                    },)*
                }
            }
        }
    };
}

apis! {
    Produce 0: 0..=11, flexible 9, PARTITIONS;
    Fetch 1: 4..=17, flexible 12, PARTITIONS;
    ListOffsets 2: 1..=9, flexible 6, PARTITIONS;
    Metadata 3: 0..=12, flexible 9, PARTITIONS;
    OffsetCommit 8: 2..=9, flexible 8, PARTITIONS;
    OffsetFetch 9: 1..=9, flexible 6, PARTITIONS;
    FindCoordinator 10: 0..=6, flexible 3, KEYS;
    JoinGroup 11: 0..=9, flexible 6, FEW;
    Heartbeat 12: 0..=4, flexible 4, FEW;
    LeaveGroup 13: 0..=5, flexible 4, KEYS;
    SyncGroup 14: 0..=5, flexible 4, KEYS;
    DescribeGroups 15: 0..=5, flexible 5, KEYS;
    ListGroups 16: 0..=5, flexible 3, FEW;
    ApiVersions 18: 0..=4, flexible 3, FEW;
    CreateTopics 19: 2..=7, flexible 5, PARTITIONS;
    DeleteTopics 20: 1..=6, flexible 4, PARTITIONS;
    DeleteRecords 21: 0..=2, flexible 2, PARTITIONS;
    InitProducerId 22: 0..=4, flexible 2, FEW;
    OffsetForLeaderEpoch 23: 2..=4, flexible 4, PARTITIONS;
    DescribeAcls 29: 1..=3, flexible 2, FEW;
    DescribeConfigs 32: 1..=4, flexible 4, PARTITIONS;
    AlterConfigs 33: 0..=2, flexible 2, PARTITIONS;
    DescribeLogDirs 35: 1..=4, flexible 2, PARTITIONS;
    CreatePartitions 37: 0..=3, flexible 2, PARTITIONS;
    DeleteGroups 42: 0..=2, flexible 2, KEYS;
    ElectLeaders 43: 0..=2, flexible 2, PARTITIONS;
    IncrementalAlterConfigs 44: 0..=1, flexible 1, PARTITIONS;
    AlterPartitionReassignments 45: 0..=1, flexible 0, PARTITIONS;
    ListPartitionReassignments 46: 0..=0, flexible 0, PARTITIONS;
    OffsetDelete 47: 0..=0, flexible 1, PARTITIONS;
    DescribeCluster 60: 0..=1, flexible 0, FEW;
    DescribeProducers 61: 0..=0, flexible 0, PARTITIONS;
}

/// Most elements and tags in one request, all its arrays together: 16 Ki, eight times the 2,000 partitions of the
/// largest site, so that a Fetch or commit of all of them with tags and topics passes. At about 360 bytes an element,
/// request and refusal together, a request costs at most 6 MiB while it is handled, however small its frame.
pub const ELEMENTS_MAX: u32 = 16 * 1024;

/// Requests that name partitions, topics or configs.
const PARTITIONS: u32 = ELEMENTS_MAX;
/// Requests that name groups or members: 4 Ki, four times the members of the largest group.
const KEYS: u32 = 4 * 1024;
/// Requests with a handful of names: assignors, states, tags. A join waits long, so it must not hold much.
const FEW: u32 = 64;

/// One row of the table: advertised versions, the first one with compact lengths and tags (KIP-482), and the cap.
struct Row {
    min: i16,
    max: i16,
    flexible: i16,
    elements_max: u32,
}

impl Api {
    /// How many APIs there are; `index` lies below it.
    pub const COUNT: usize = Self::ALL.len();

    /// Kafka's API key.
    #[must_use]
    pub const fn key(self) -> i16 {
        self as i16
    }

    /// Position in `ALL`, for tables of counters.
    #[must_use]
    pub fn index(self) -> usize {
        Self::ALL
            .binary_search(&self)
            .expect("ALL holds every API, sorted by key")
    }

    /// The versions ApiVersions advertises, both ends included.
    #[must_use]
    pub const fn advertised(self) -> (i16, i16) {
        let row = self.row();
        (row.min, row.max)
    }

    /// Whether a request of this version is decoded.
    ///
    /// Produce is advertised from 0 but decoded from 3: librdkafka up to 2.11.0 stops compressing unless 0 is in the
    /// range, and then never sends below 3 (KAFKA-18659).
    #[must_use]
    pub const fn decodes(self, version: i16) -> bool {
        let row = self.row();
        let min = if matches!(self, Self::Produce) {
            3
        } else {
            row.min
        };
        min <= version && version <= row.max
    }

    /// Whether a version has compact lengths and tagged fields.
    #[must_use]
    pub const fn flexible(self, version: i16) -> bool {
        version >= self.row().flexible
    }

    /// Most elements and tags a request of this API may have, all its arrays together.
    #[must_use]
    pub const fn elements_max(self) -> u32 {
        self.row().elements_max
    }

    /// Whether answers of a version carry response header v1: every flexible one but ApiVersions, whose asker can't
    /// know yet what the broker speaks (KIP-511).
    #[must_use]
    pub const fn response_header_tags(self, version: i16) -> bool {
        self.flexible(version) && !matches!(self, Self::ApiVersions)
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiKey;

    #[test]
    fn the_table_agrees_with_the_schemas() {
        for api in Api::ALL {
            let theirs = ApiKey::try_from(api.key()).expect("a key of Kafka's");
            assert_eq!(Api::from_key(api.key()), Some(*api));
            let (min, max) = api.advertised();
            for version in min..=max {
                if !api.decodes(version) {
                    assert_eq!(*api, Api::Produce);
                    continue;
                }
                let flexible = theirs.request_header_version(version) == 2;
                assert_eq!(api.flexible(version), flexible, "{api} v{version}");
                let tags = theirs.response_header_version(version) == 1;
                assert_eq!(api.response_header_tags(version), tags, "{api} v{version}");
                let valid = theirs.valid_versions();
                assert!(
                    valid.min <= version && version <= valid.max,
                    "{api} v{version}"
                );
            }
            assert!(!api.decodes(min - 1) && !api.decodes(max + 1));
        }
        assert!(Api::ALL.is_sorted(), "`index` searches it");
    }
}
