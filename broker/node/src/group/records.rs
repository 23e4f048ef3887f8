//! Group metadata as Kafka writes it into `__consumer_offsets`, so that Kafka's own formatter reads it.
//!
//! ```text
//! key:   version i16 = 2 · group string
//! value: version i16 = 3 · protocol_type string · generation i32 · protocol string? · leader string? ·
//!        current_state_timestamp i64 (≥ 2) · members count i32, then of each:
//!        member string · instance string? (≥ 3) · client_id string · client_host string ·
//!        rebalance_timeout i32 (≥ 1) · session_timeout i32 · subscription bytes · assignment bytes
//! ```
//! Big-endian; a string has an i16 length, bytes an i32, −1 is null. Values 0 to 4 are read, 3 is written; 4 is the
//! first flexible one (compact lengths, tagged fields behind each structure). No value is a tombstone: no group.

pub use crate::coordinator::codec::RecordFault;
use crate::coordinator::codec::{Reader, Writer};

/// Version of the key of group metadata.
pub const GROUP_KEY: i16 = 2;
const VALUE: i16 = 3;
const VALUE_MAX: i16 = 4;

/// A group at the moment when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    /// Empty if the group never had members.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The chosen protocol; `None` without members.
    pub protocol: Option<String>,
    /// The leader's id; `None` without members.
    pub leader: Option<String>,
    /// When it came into its state, in milliseconds since 1970; −1: unknown.
    pub state_at: i64,
    /// Its members.
    pub members: Vec<MemberValue>,
}

/// A member at the moment when its group was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    /// Its id.
    pub member: String,
    /// Its instance id, if static.
    pub instance: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Where it called from.
    pub client_host: String,
    /// Milliseconds a rebalance waits for it.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds without a heartbeat after which it is dead.
    pub session_timeout_ms: i32,
    /// What it said under the chosen protocol.
    pub subscription: Vec<u8>,
    /// Its share.
    pub assignment: Vec<u8>,
}

/// The key of a group's metadata.
#[must_use]
pub fn group_key(group: &str) -> Vec<u8> {
    let mut key = Writer::with_version(GROUP_KEY);
    key.string(group);
    key.finish()
}

/// Reads the group out of a key of version [`GROUP_KEY`].
///
/// # Errors
/// If the key is cut or has another version.
pub fn read_group_key(key: &[u8]) -> Result<String, RecordFault> {
    let mut reader = Reader::new(key);
    match reader.i16()? {
        GROUP_KEY => reader.string(false),
        version => Err(RecordFault::Version(version)),
    }
}

impl GroupValue {
    /// Version 3.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Writer::with_version(VALUE);
        value
            .string(&self.protocol_type)
            .i32(self.generation)
            .nullable_string(self.protocol.as_deref())
            .nullable_string(self.leader.as_deref())
            .i64(self.state_at)
            .count(self.members.len());
        for member in &self.members {
            value
                .string(&member.member)
                .nullable_string(member.instance.as_deref())
                .string(&member.client_id)
                .string(&member.client_host)
                .i32(member.rebalance_timeout_ms)
                .i32(member.session_timeout_ms)
                .bytes(&member.subscription)
                .bytes(&member.assignment);
        }
        value.finish()
    }

    /// Versions 0 to 4; a member without a rebalance timeout gets its session timeout, as in Kafka.
    ///
    /// # Errors
    /// If the value is cut, a text is not text, or the version is newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordFault> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=VALUE_MAX).contains(&version) {
            return Err(RecordFault::Version(version));
        }
        let flexible = version >= 4;
        let mut value = Self {
            protocol_type: reader.string(flexible)?,
            generation: reader.i32()?,
            protocol: reader.nullable_string(flexible)?,
            leader: reader.nullable_string(flexible)?,
            state_at: if version >= 2 { reader.i64()? } else { -1 },
            members: Vec::new(),
        };
        for _ in 0..reader.count(flexible)? {
            let member = reader.string(flexible)?;
            let instance = if version >= 3 {
                reader.nullable_string(flexible)?
            } else {
                None
            };
            let client_id = reader.string(flexible)?;
            let client_host = reader.string(flexible)?;
            let rebalance_timeout = if version >= 1 {
                Some(reader.i32()?)
            } else {
                None
            };
            let session_timeout_ms = reader.i32()?;
            value.members.push(MemberValue {
                member,
                instance,
                client_id,
                client_host,
                rebalance_timeout_ms: rebalance_timeout.unwrap_or(session_timeout_ms),
                session_timeout_ms,
                subscription: reader.bytes(flexible)?.to_vec(),
                assignment: reader.bytes(flexible)?.to_vec(),
            });
            if flexible {
                reader.skip_tags()?;
            }
        }
        if flexible {
            reader.skip_tags()?;
        }
        Ok(value)
    }
}
