//! What a batch says of its producer: what it claims before it is stored, and what is known of it then.

use thiserror::Error;

use crate::batch::Header;
use crate::varint;
use crate::{Offset, ProducerEpoch, ProducerId, WallMs};

/// What a batch says about its producer, before it has an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who wrote it.
    pub pid: ProducerId,
    /// In which generation.
    pub epoch: ProducerEpoch,
    /// Sequence of its first record; ≥ 0.
    pub first_seq: i32,
    /// Its last record, counted from the first; ≥ 0.
    pub last_delta: i32,
}

impl Claim {
    /// What `header` claims; `None` for a batch of a producer that is not idempotent.
    #[must_use]
    pub const fn of(header: &Header) -> Option<Self> {
        if header.producer_id < 0 {
            return None;
        }
        Some(Self {
            pid: ProducerId(header.producer_id),
            epoch: ProducerEpoch(header.producer_epoch),
            first_seq: header.base_sequence,
            last_delta: header.last_offset_delta,
        })
    }
}

/// The end of a transaction, as its control record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Committed; else aborted.
    pub commit: bool,
    /// Epoch of the coordinator that decided.
    pub coordinator_epoch: i32,
}

/// A control batch whose record is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the control batch at {0:?} holds no end marker of version 0")]
pub struct MarkerFault(pub Offset);

/// A stored batch, as far as windows care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Where its first record lies.
    pub base_offset: Offset,
    /// Who wrote it, and its sequences; −1 and its delta for a marker.
    pub claim: Claim,
    /// Latest time in it.
    pub max_ts: WallMs,
    /// It belongs to a transaction.
    pub transactional: bool,
    /// Set for a control batch.
    pub marker: Option<Marker>,
}

impl Fact {
    /// What the batch of `header` adds; `None` if its producer is not idempotent. `records` are the bytes behind the
    /// header, looked at only in a control batch, which is never compressed.
    pub fn of(header: &Header, records: &[u8]) -> Result<Option<Self>, MarkerFault> {
        let Some(claim) = Claim::of(header) else {
            return Ok(None);
        };
        let marker = match header.control() {
            // Compaction leaves a control batch without its record once its transaction is gone: nothing to end then.
            true if header.records_count == 0 => return Ok(None),
            true => Some(read_marker(records).ok_or(MarkerFault(header.base_offset))?),
            false => None,
        };
        Ok(Some(Self {
            base_offset: header.base_offset,
            claim,
            max_ts: header.max_timestamp,
            transactional: header.transactional(),
            marker,
        }))
    }

    pub(super) const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.claim.last_delta as i64 + 1)
    }
}

/// One record, key {version i16 = 0, type i16}, value {version i16, coordinator_epoch i32}, big-endian (KIP-98).
fn read_marker(mut record: &[u8]) -> Option<Marker> {
    let _length = varint::read_i32(&mut record).ok()?;
    let _attributes = record.split_off_first()?;
    let _timestamp_delta = varint::read_i64(&mut record).ok()?;
    let _offset_delta = varint::read_i32(&mut record).ok()?;
    if varint::read_i32(&mut record).ok()? != 4 {
        return None;
    }
    let (key, mut record) = record.split_first_chunk::<4>()?;
    if varint::read_i32(&mut record).ok()? != 6 {
        return None;
    }
    let value = record.first_chunk::<6>()?;
    let commit = match key {
        [0, 0, 0, 0] => false,
        [0, 0, 0, 1] => true,
        _ => return None,
    };
    let [0, 0, epoch @ ..] = value else {
        return None;
    };
    Some(Marker {
        commit,
        coordinator_epoch: i32::from_be_bytes(*epoch),
    })
}
