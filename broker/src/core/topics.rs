//! Topics as the request paths see them: one shared value each, made anew when the site log changes it.

use std::rc::Rc;

use model::batch::{Codec, Header};
use model::codec;
use model::record::Records;
use model::{LeaderEpoch, NodeId, TopicId, WallMs};
use node::broker::ReplicaIx;

use crate::clock;

/// A topic's present state; cheap to clone, never changed.
pub(crate) type TopicInfo = Rc<Topic>;

/// Decompressed records of one batch whose keys are checked: Kafka's largest message grows at most this far here.
const KEYS_BYTES_MAX: usize = 64 << 20;

/// See [`TopicInfo`].
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: Rc<str>,
    /// Clients may read it, nothing else.
    pub(crate) internal: bool,
    /// `message.timestamp.type=LogAppendTime`.
    pub(crate) log_append_time: bool,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub(crate) compacted: bool,
    /// `message.timestamp.before.max.ms` and `…after.max.ms`.
    pub(crate) timestamp_before_ms: i64,
    pub(crate) timestamp_after_ms: i64,
    pub(crate) partitions: Vec<PartitionInfo>,
}

/// What the site log says of a partition, and where it lies on this node.
#[derive(Clone, Debug)]
pub(crate) struct PartitionInfo {
    pub(crate) leader: Option<NodeId>,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) replicas: Vec<NodeId>,
    pub(crate) isr: Vec<NodeId>,
    /// The replica on this node, if it has one.
    pub(crate) replica: Option<ReplicaIx>,
}

impl Topic {
    /// The partition of this index as a peer claims it.
    pub(crate) fn partition(&self, index: i32) -> Option<&PartitionInfo> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.partitions.get(index))
    }

    /// Whether a client's times are within the topic's bounds; says what is wrong with them.
    pub(crate) fn check_timestamps(&self, header: &Header) -> Result<(), String> {
        if self.log_append_time
            || (self.timestamp_before_ms == i64::MAX && self.timestamp_after_ms == i64::MAX)
        {
            return Ok(());
        }
        let WallMs(now) = clock::wall();
        let ahead = header.max_timestamp.0.saturating_sub(now);
        let behind = now.saturating_sub(header.base_timestamp.0);
        if ahead > self.timestamp_after_ms {
            return Err(format!(
                "a record lies {ahead} ms ahead, message.timestamp.after.max.ms is {}",
                self.timestamp_after_ms
            ));
        }
        if header.base_timestamp.0 >= 0 && behind > self.timestamp_before_ms {
            return Err(format!(
                "a record lies {behind} ms back, message.timestamp.before.max.ms is {}",
                self.timestamp_before_ms
            ));
        }
        Ok(())
    }

    /// Whether every record of `batch` has a key, and its own place; says which has not. Compaction goes by both.
    pub(crate) fn check_keys(&self, header: &Header, batch: &[u8]) -> Result<(), String> {
        let body = &batch[model::batch::HEADER_BYTES..];
        let plain;
        let records = match header.codec().map_err(|error| error.to_string())? {
            Codec::None => body,
            packed => {
                plain = codec::decompress(packed, body, KEYS_BYTES_MAX)
                    .map_err(|error| error.to_string())?;
                &plain[..]
            }
        };
        for (at, record) in Records::new(records, header.records_count).enumerate() {
            let record = record.map_err(|error| format!("record {at}: {error}"))?;
            if record.key.is_none() {
                return Err(format!(
                    "record {at} has no key, and {} is compacted",
                    self.name
                ));
            }
            if i32::try_from(at) != Ok(record.offset_delta) {
                return Err(format!(
                    "record {at} says that it is the batch's {}, and {} is compacted",
                    record.offset_delta, self.name
                ));
            }
        }
        Ok(())
    }
}
