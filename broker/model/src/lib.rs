//! The nouns that every room of the broker shares: offsets, epochs, terms, instants, record batches.
//!
//! Nothing here decides, waits, or touches a socket, a file or a clock. A wire integer becomes one of these types at
//! the door and stays one until it leaves.

pub mod batch;
pub mod codec;
mod ids;
pub mod record;
mod time;
pub mod varint;
pub mod window;

pub use ids::{
    DiskUuid, Incarnation, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    SiteUuid, Term, TopicId, TopicPartition, Uuid,
};
pub use time::{Instant, WallMs};
