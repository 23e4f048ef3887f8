//! Committed offsets as Kafka writes them into `__consumer_offsets`, so that Kafka's own formatter reads them.
//!
//! ```text
//! key:   version i16 = 1 (0 is read alike) · group string · topic string · partition i32
//! value: version i16 = 3 · offset i64 · leader_epoch i32 (≥ 3) · metadata string · commit_timestamp i64 ·
//!        expire_timestamp i64 (only 1)
//! ```
//! Big-endian; a string has an i16 length. Values 0 to 4 are read. 3 is written, or 1 where a client asked for a
//! retention of its own, as only that version has room for it; it has none for the epoch. 4 is the first flexible one.
//! No value is a tombstone: no offset.

use crate::coordinator::codec::{Reader, RecordFault, Writer};

/// Version of the key of an offset.
pub const OFFSET_KEY: i16 = 1;
const VALUE: i16 = 3;
const VALUE_WITH_EXPIRY: i16 = 1;
const VALUE_MAX: i16 = 4;

/// Whose offset, and in what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetKey {
    /// The group.
    pub group: String,
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// An offset at the moment when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next offset to be read.
    pub offset: i64,
    /// −1: unknown, also after reading it back.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: String,
    /// When it was committed, in milliseconds since 1970; −1: the time could not be trusted.
    pub committed_at: i64,
    /// When the client said it may go; −1: when the broker's retention says so.
    pub expires_at: i64,
}

/// The key of an offset.
#[must_use]
pub fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut key = Writer::with_version(OFFSET_KEY);
    key.string(group).string(topic).i32(partition);
    key.finish()
}

impl OffsetKey {
    /// Reads a key of version 0 or 1.
    ///
    /// # Errors
    /// If the key is cut or has another version.
    pub fn decode(key: &[u8]) -> Result<Self, RecordFault> {
        let mut reader = Reader::new(key);
        match reader.i16()? {
            0..=OFFSET_KEY => {}
            version => return Err(RecordFault::Version(version)),
        }
        Ok(Self {
            group: reader.string(false)?,
            topic: reader.string(false)?,
            partition: reader.i32()?,
        })
    }
}

impl OffsetValue {
    /// Version 3, or 1 with an expiry of its own.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.expires_at >= 0 {
            let mut value = Writer::with_version(VALUE_WITH_EXPIRY);
            value
                .i64(self.offset)
                .string(&self.metadata)
                .i64(self.committed_at)
                .i64(self.expires_at);
            return value.finish();
        }
        let mut value = Writer::with_version(VALUE);
        value
            .i64(self.offset)
            .i32(self.leader_epoch)
            .string(&self.metadata)
            .i64(self.committed_at);
        value.finish()
    }

    /// Versions 0 to 4.
    ///
    /// # Errors
    /// If the value is cut, the note is not text, or the version is newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordFault> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=VALUE_MAX).contains(&version) {
            return Err(RecordFault::Version(version));
        }
        let flexible = version >= 4;
        let value = Self {
            offset: reader.i64()?,
            leader_epoch: if version >= 3 { reader.i32()? } else { -1 },
            metadata: reader.string(flexible)?,
            committed_at: reader.i64()?,
            expires_at: if version == 1 { reader.i64()? } else { -1 },
        };
        if flexible {
            reader.skip_tags()?;
        }
        Ok(value)
    }
}
