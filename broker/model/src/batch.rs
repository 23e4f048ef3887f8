//! The record batch, magic 2 (KIP-98): the header's fields, its checks, and the few bytes a broker may change.
//!
//! ```text
//!  0 base_offset i64 · 8 batch_length i32 (bytes behind this field) · 12 partition_leader_epoch i32 · 16 magic i8 = 2
//! 17 crc u32 (CRC-32C over [21, end)) · 21 attributes i16 · 23 last_offset_delta i32 · 27 base_timestamp i64
//! 35 max_timestamp i64 · 43 producer_id i64 · 51 producer_epoch i16 · 53 base_sequence i32 · 57 records_count i32 · 61 records
//! ```
//! Big-endian, as on the wire. The base offset and the leader epoch lie outside the CRC, so that a broker stamps them
//! without touching the rest. This module never allocates and never decompresses.

use thiserror::Error;

use crate::{LeaderEpoch, Offset, WallMs};

/// Bytes of the header, up to the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes before those that `batch_length` counts.
pub const LOG_OVERHEAD: usize = 12;
/// A record without key, value and headers: length, attributes, two deltas, two lengths of −1 and a count, a byte each.
const RECORD_BYTES_MIN: usize = 7;
/// First byte that the CRC covers.
const CRC_FROM: usize = 21;
const MAGIC: i8 = 2;

const CODEC_MASK: i16 = 0x07;
/// Attribute bit 3: the times are the broker's.
pub const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// Attribute bit 6: the base timestamp is the moment after which tombstones may go (KIP-534).
pub const DELETE_HORIZON: i16 = 0x40;

/// How the records behind the header are compressed (attribute bits 0 to 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, raw or in Xerial's framing.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

impl Codec {
    /// Attribute bits 0 to 2.
    #[must_use]
    pub const fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Bytes that one byte can stand for at most.
    const fn bytes_max(self) -> usize {
        match self {
            Self::None => 1,
            // A length of 258 and its distance, in a bit each.
            Self::Gzip => 1032,
            // Three bytes copy 64.
            Self::Snappy => 22,
            // Each further byte of a length adds 255.
            Self::Lz4 => 255,
            // A block of 128 KiB of one byte takes four.
            Self::Zstd => 32 * 1024,
        }
    }
}

/// A batch that may not be stored, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchFault {
    /// Fewer bytes than a header, or than the header's own length says.
    #[error("the batch is cut: {have} bytes of {need}")]
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes that the batch needs.
        need: usize,
    },
    /// `batch_length` is below a header's or negative.
    #[error("batch_length {0} is below a header's 49")]
    Length(i32),
    /// Magic 0 and 1 ended with Kafka 4.0.
    #[error("magic {0}, only 2 is spoken")]
    Magic(i8),
    /// The bytes are not those the producer sent.
    #[error("CRC-32C {found:08x}, the header says {claimed:08x}")]
    Crc {
        /// What the header claims.
        claimed: u32,
        /// What the bytes give.
        found: u32,
    },
    /// Attribute bits 0 to 2 name no codec.
    #[error("codec {0} does not exist")]
    Codec(i16),
    /// `records_count` ≠ `last_offset_delta` + 1, or not positive.
    #[error("{records_count} records with last_offset_delta {last_offset_delta}")]
    Count {
        /// Records claimed.
        records_count: i32,
        /// Offset of the last one within the batch.
        last_offset_delta: i32,
    },
    /// More records than its bytes can hold, however well they are packed.
    #[error("{records_count} records in {bytes} bytes")]
    Crowded {
        /// Records claimed.
        records_count: i32,
        /// Bytes behind the header.
        bytes: usize,
    },
}

/// The header's fields as stored. Values are the peer's or the disk's until [`Header::check`] has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes of the whole batch, the 12 before `batch_length`'s count included.
    pub bytes: usize,
    /// Epoch of the leader that accepted it.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C as claimed.
    pub crc: u32,
    /// Bit field: codec, timestamp type, transactional, control, delete horizon.
    pub attributes: i16,
    /// Offset of the last record, from the base; ≥ 0.
    pub last_offset_delta: i32,
    /// Time of the first record, or the delete horizon (bit 6).
    pub base_timestamp: WallMs,
    /// Latest time in the batch.
    pub max_timestamp: WallMs,
    /// −1: not idempotent.
    pub producer_id: i64,
    /// −1: not idempotent.
    pub producer_epoch: i16,
    /// −1: not idempotent.
    pub base_sequence: i32,
    /// Records in the batch; fewer than `last_offset_delta` + 1 once compacted.
    pub records_count: i32,
}

impl Header {
    /// Reads the header at the front of `bytes`; needs 61 bytes of them, and says what the whole batch needs.
    ///
    /// Checks magic and length only: enough to walk from batch to batch.
    pub fn read(bytes: &[u8]) -> Result<Self, BatchFault> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchFault::Truncated {
                have: bytes.len(),
                need: HEADER_BYTES,
            });
        };
        let length = i32_at(head, 8);
        let magic = head[16] as i8;
        if magic != MAGIC {
            return Err(BatchFault::Magic(magic));
        }
        let Some(bytes) = usize::try_from(length)
            .ok()
            .map(|behind| behind + LOG_OVERHEAD)
            .filter(|all| *all >= HEADER_BYTES)
        else {
            return Err(BatchFault::Length(length));
        };
        Ok(Self {
            base_offset: Offset(i64_at(head, 0)),
            bytes,
            leader_epoch: LeaderEpoch(i32_at(head, 12)),
            crc: i32_at(head, 17) as u32,
            attributes: i16_at(head, 21),
            last_offset_delta: i32_at(head, 23),
            base_timestamp: WallMs(i64_at(head, 27)),
            max_timestamp: WallMs(i64_at(head, 35)),
            producer_id: i64_at(head, 43),
            producer_epoch: i16_at(head, 51),
            base_sequence: i32_at(head, 53),
            records_count: i32_at(head, 57),
        })
    }

    /// Reads and checks the whole batch at the front of `bytes`: length, magic, CRC-32C, codec, and the count that a
    /// client's batch must have. For batches from a log use [`Header::check_stored`].
    pub fn check(bytes: &[u8]) -> Result<Self, BatchFault> {
        let header = Self::check_stored(bytes)?;
        let Self {
            records_count,
            last_offset_delta,
            ..
        } = header;
        if records_count < 1 || last_offset_delta != records_count - 1 {
            return Err(BatchFault::Count {
                records_count,
                last_offset_delta,
            });
        }
        Ok(header)
    }

    /// Whether the batch can hold as many records as it claims: a claim takes offsets, and an extent holds 2³² of them. What
    /// a codec hides is not counted, as nothing here unpacks it, but no codec hides more than its format allows.
    ///
    /// # Errors
    /// [`BatchFault::Crowded`], and an unknown codec.
    pub fn check_claim(&self) -> Result<(), BatchFault> {
        let bytes = self.bytes.saturating_sub(HEADER_BYTES);
        let most = bytes.saturating_mul(self.codec()?.bytes_max()) / RECORD_BYTES_MIN;
        let claimed = usize::try_from(self.records_count).unwrap_or(0);
        if claimed > most {
            return Err(BatchFault::Crowded {
                records_count: self.records_count,
                bytes,
            });
        }
        Ok(())
    }

    /// Like [`Header::check`] without the count: compaction leaves batches with fewer records, even none.
    pub fn check_stored(bytes: &[u8]) -> Result<Self, BatchFault> {
        let header = Self::read(bytes)?;
        let Some(batch) = bytes.get(..header.bytes) else {
            return Err(BatchFault::Truncated {
                have: bytes.len(),
                need: header.bytes,
            });
        };
        let found = crc32c::crc32c(&batch[CRC_FROM..]);
        if found != header.crc {
            return Err(BatchFault::Crc {
                claimed: header.crc,
                found,
            });
        }
        let Self {
            records_count,
            last_offset_delta,
            ..
        } = header;
        if records_count < 0
            || last_offset_delta < 0
            || i64::from(records_count) > i64::from(last_offset_delta) + 1
        {
            return Err(BatchFault::Count {
                records_count,
                last_offset_delta,
            });
        }
        header.codec()?;
        Ok(header)
    }

    /// Offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64)
    }

    /// Offset behind the last record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64 + 1)
    }

    /// How the records are compressed.
    pub const fn codec(&self) -> Result<Codec, BatchFault> {
        match self.attributes & CODEC_MASK {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(BatchFault::Codec(other)),
        }
    }

    /// Whether the times are the broker's (`message.timestamp.type=LogAppendTime`).
    #[must_use]
    pub const fn log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker that only brokers write.
    #[must_use]
    pub const fn control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether `base_timestamp` holds the moment after which tombstones may go (KIP-534).
    #[must_use]
    pub const fn delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// Whether bits are set that this release does not know; such a batch is never rewritten.
    #[must_use]
    pub const fn unknown_attributes(&self) -> bool {
        self.attributes & !(CODEC_MASK | LOG_APPEND_TIME | TRANSACTIONAL | CONTROL | DELETE_HORIZON)
            != 0
    }
}

/// Writes base offset and leader epoch into the batch at the front of `bytes`; both lie outside the CRC.
///
/// # Panics
/// If `bytes` is shorter than a header: only checked batches are stamped.
pub fn stamp(bytes: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    bytes[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Makes `batch`, one whole batch, carry the broker's time: sets the attribute bit and max_timestamp, computes the CRC again.
///
/// # Panics
/// If `batch` is shorter than a header: only checked batches are stamped.
pub fn stamp_append_time(batch: &mut [u8], now: WallMs) {
    let attributes = i16_at(batch, 21) | LOG_APPEND_TIME;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&now.0.to_be_bytes());
    seal(batch);
}

/// Writes length and CRC of `batch`, one whole batch whose other bytes are in place.
///
/// # Panics
/// If `batch` is shorter than a header or longer than `i32::MAX`.
pub fn seal(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - LOG_OVERHEAD).expect("a batch is far below 2 GiB");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One record batch with `records` as its body.
    fn batch(count: i32, records: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[16] = 2;
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(records);
        seal(&mut bytes);
        bytes
    }

    #[test]
    fn stamping_leaves_the_crc_valid() {
        let mut bytes = batch(3, b"abc");
        stamp(&mut bytes, Offset(40), LeaderEpoch(7));
        let header = Header::check(&bytes).expect("still valid");
        assert_eq!(
            (
                header.base_offset,
                header.leader_epoch,
                header.next_offset()
            ),
            (Offset(40), LeaderEpoch(7), Offset(43))
        );
        stamp_append_time(&mut bytes, WallMs(99));
        let header = Header::check(&bytes).expect("sealed again");
        assert!(header.log_append_time());
        assert_eq!(header.max_timestamp, WallMs(99));
    }

    #[test]
    fn a_claim_beyond_the_bytes_is_refused() {
        let claim = |count, records: &[u8]| {
            let header = Header::check(&batch(count, records)).expect("whole");
            header.check_claim()
        };
        assert_eq!(claim(1, &[0; 7]), Ok(()));
        assert_eq!(
            claim(2, &[0; 13]),
            Err(BatchFault::Crowded {
                records_count: 2,
                bytes: 13
            })
        );
        assert!(claim(i32::MAX, &[0; 7]).is_err());
    }

    #[test]
    fn what_a_codec_packs_best_is_believed_and_no_more() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let plain = vec![0; 4 << 20];
            let packed = crate::codec::compress(codec, &plain).expect("packs");
            let claim = |count: usize| {
                let mut bytes = batch(i32::try_from(count).expect("small"), &packed);
                bytes[21..23].copy_from_slice(&codec.bits().to_be_bytes());
                seal(&mut bytes);
                let header = Header::check(&bytes).expect("whole");
                header.check_claim()
            };
            assert_eq!(claim(plain.len() / RECORD_BYTES_MIN), Ok(()), "{codec:?}");
            let most = packed.len() * codec.bytes_max() / RECORD_BYTES_MIN;
            assert_eq!(claim(most), Ok(()), "{codec:?}");
            assert!(claim(most + 1).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn every_flipped_bit_behind_the_crc_is_seen() {
        let good = batch(1, b"payload");
        for bit in CRC_FROM * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(Header::check(&bad), Err(BatchFault::Crc { .. })),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn every_cut_is_called_truncated() {
        let good = batch(1, b"payload");
        for len in 0..good.len() {
            assert!(
                matches!(
                    Header::check(&good[..len]),
                    Err(BatchFault::Truncated { .. })
                ),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn claims_that_can_not_be_are_refused() {
        let mut bytes = batch(2, b"");
        bytes[8..12].copy_from_slice(&48_i32.to_be_bytes());
        assert_eq!(Header::read(&bytes), Err(BatchFault::Length(48)));
        bytes[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
        assert_eq!(Header::read(&bytes), Err(BatchFault::Length(-1)));
        let mut bytes = batch(2, b"");
        bytes[16] = 1;
        assert_eq!(Header::read(&bytes), Err(BatchFault::Magic(1)));
        assert_eq!(
            Header::check(&batch(0, b"")),
            Err(BatchFault::Count {
                records_count: 0,
                last_offset_delta: -1
            })
        );
    }
}
