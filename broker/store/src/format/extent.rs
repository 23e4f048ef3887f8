//! The extent: a file of 1, 8 or 64 MiB that holds one partition's batches, wire bytes, one behind the other.
//!
//! ```text
//! [0, 4096)   header: 0 magic u64 · 8 version u32 · 12 class u32 · 16 disk_uuid · 32 slot u32 · 36 gen u32 · 40 topic uuid
//!             56 partition u32 · 60 leader epoch i32 · 64 base_offset i64 · 72 zero · 4092 crc u32 over [0, 4092)
//! [4096, used)            whole batches, nothing between them
//! [class − tail_len, class)  the tail, written when the extent is sealed; 4 KiB × ⌈(16·n + 32·n_aborted + 64)/4096⌉, at
//!             least 4, 4, 20 KiB by class: n index entries of 16 B {rel_offset u32 · pos u32 · max_ts i64}, then aborted
//!             transactions of 32 B, then zeros, and in the last 64 B the footer:
//!             0 magic u32 · 4 version u16 · 6 flags u16 (1 TXN, 2 ABORTS, 4 COMPACTED) · 8 used u32 · 12 n u32
//!            16 n_aborted u32 · 20 tail_len u32 · 24 last_offset i64 · 32 max_ts i64 · 40 appended_at i64
//!            48 txn_lag u32 · 52 data crc u32 over [4096, used) · 56 zero u32 · 60 crc u32 over [0, tail_len − 4)
//! ```
//! An index entry stands for the first batch that begins at or behind each 64 KiB of data: its base offset from the
//! extent's, its file position, and the latest record time of all batches *before* it, so that a search by time may
//! start there. Where the log ends is not written in an extent: the journal says it.

use model::{DiskUuid, LeaderEpoch, Offset, TopicId, TopicPartition, WallMs};

use super::{Fault, Le, PAGE, check_crc, check_version, put};

/// `HOWDAHEX`
const MAGIC: u64 = u64::from_le_bytes(*b"HOWDAHEX");
/// `HEXT`
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"HEXT");
const HEADER: &str = "extent header";
const TAIL: &str = "extent tail";
/// Where the first batch lies.
pub const DATA_AT: u32 = PAGE as u32;
/// Bytes of an index entry.
pub const INDEX_ENTRY_BYTES: usize = 16;
/// Bytes of an aborted transaction's entry.
pub const ABORTED_BYTES: usize = 32;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 64;
/// Data between two index entries: a lookup walks at most this much of headers.
pub const INDEX_EVERY: u32 = 64 * 1024;
/// Footer and row flag: batches were dropped by the compactor.
pub const COMPACTED: u16 = 4;

/// How long an extent's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 1 MiB: where every partition begins, so that 2,000 quiet ones take 2 GiB.
    Small = 0,
    /// 8 MiB.
    Medium = 1,
    /// 64 MiB: at 150 MB/s and 10 ms a seek, a cold read of one spends about 2 % of its time seeking.
    Large = 2,
}

impl Class {
    /// All, rising.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// From its byte.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Small),
            1 => Some(Self::Medium),
            2 => Some(Self::Large),
            _ => None,
        }
    }

    /// Length of the file.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Small => 1 << 20,
            Self::Medium => 8 << 20,
            Self::Large => 64 << 20,
        }
    }

    /// The next larger one, or itself.
    #[must_use]
    pub const fn up(self) -> Self {
        match self {
            Self::Small => Self::Medium,
            Self::Medium | Self::Large => Self::Large,
        }
    }

    /// The next smaller one, or itself.
    #[must_use]
    pub const fn down(self) -> Self {
        match self {
            Self::Small | Self::Medium => Self::Small,
            Self::Large => Self::Medium,
        }
    }

    /// Bytes of the tail with so many entries.
    #[must_use]
    pub const fn tail_bytes(self, index: usize, aborted: usize) -> u32 {
        let least = match self {
            Self::Small | Self::Medium => PAGE,
            Self::Large => 5 * PAGE,
        };
        let need = (INDEX_ENTRY_BYTES * index + ABORTED_BYTES * aborted + FOOTER_BYTES)
            .next_multiple_of(PAGE);
        (if need > least { need } else { least }) as u32
    }

    /// Bytes of batches that an empty extent holds for certain: what is left beside header and the tail of a full index.
    #[must_use]
    pub const fn data_bytes(self) -> u64 {
        let index = (self.bytes() / INDEX_EVERY as u64) as usize;
        self.bytes() - DATA_AT as u64 - self.tail_bytes(index, 0) as u64
    }

    /// The smallest class that holds a batch of `bytes`; `None` if none does.
    #[must_use]
    pub fn holding(bytes: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|class| class.data_bytes() >= bytes)
    }
}

/// The first 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHeader {
    /// How long the file is.
    pub class: Class,
    /// The disk it was written for.
    pub disk: DiskUuid,
    /// Its slot there.
    pub slot: u32,
    /// In which of the slot's lives.
    pub generation: u32,
    /// Whose batches.
    pub id: TopicPartition,
    /// Epoch in which it was opened.
    pub epoch: LeaderEpoch,
    /// First offset it may hold.
    pub base: Offset,
}

impl ExtentHeader {
    /// The 4096 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PAGE] {
        let mut out = [0; PAGE];
        put(&mut out, 0, &MAGIC.to_le_bytes());
        put(&mut out, 8, &super::VERSION.to_le_bytes());
        put(&mut out, 12, &(self.class as u32).to_le_bytes());
        put(&mut out, 16, &self.disk.0.0);
        put(&mut out, 32, &self.slot.to_le_bytes());
        put(&mut out, 36, &self.generation.to_le_bytes());
        put(&mut out, 40, &self.id.topic.0.0);
        put(&mut out, 56, &self.id.partition.0.to_le_bytes());
        put(&mut out, 60, &self.epoch.0.to_le_bytes());
        put(&mut out, 64, &self.base.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[..PAGE - 4]);
        put(&mut out, PAGE - 4, &crc.to_le_bytes());
        out
    }

    /// Reads the header.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..PAGE).ok_or(Fault::Short {
            what: HEADER,
            have: bytes.len(),
            need: PAGE,
        })?;
        if bytes.u64_at(0) != MAGIC {
            return Err(Fault::Magic {
                what: HEADER,
                found: bytes.u64_at(0),
            });
        }
        check_crc(
            HEADER,
            bytes.u32_at(PAGE - 4),
            crc32c::crc32c(&bytes[..PAGE - 4]),
        )?;
        check_version(HEADER, bytes.u32_at(8))?;
        let class = u8::try_from(bytes.u32_at(12))
            .ok()
            .and_then(Class::from_u8)
            .ok_or(Fault::Field {
                what: HEADER,
                field: "class",
                value: bytes.u32_at(12).into(),
            })?;
        Ok(Self {
            class,
            disk: DiskUuid(bytes.uuid_at(16)),
            slot: bytes.u32_at(32),
            generation: bytes.u32_at(36),
            id: TopicPartition {
                topic: TopicId(bytes.uuid_at(40)),
                partition: model::PartitionIndex(bytes.u32_at(56)),
            },
            epoch: LeaderEpoch(bytes.i32_at(60)),
            base: Offset(bytes.i64_at(64)),
        })
    }
}

/// Where a batch lies; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Base offset of the batch, from the extent's base.
    pub rel_offset: u32,
    /// File position of the batch.
    pub pos: u32,
    /// Latest record time of the batches before it; −1 before the first.
    pub max_ts: WallMs,
}

impl IndexEntry {
    /// Appends the 16 bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.rel_offset.to_le_bytes());
        out.extend_from_slice(&self.pos.to_le_bytes());
        out.extend_from_slice(&self.max_ts.0.to_le_bytes());
    }

    /// Reads 16 bytes.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            rel_offset: bytes.u32_at(0),
            pos: bytes.u32_at(4),
            max_ts: WallMs(bytes.i64_at(8)),
        }
    }
}

/// The last 64 bytes of a sealed extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// TXN, ABORTS, COMPACTED.
    pub flags: u16,
    /// File position behind the last batch.
    pub used: u32,
    /// Index entries.
    pub index_count: u32,
    /// Aborted transactions.
    pub aborted_count: u32,
    /// Bytes from the tail's begin to the file's end.
    pub tail_bytes: u32,
    /// Last offset.
    pub last: Offset,
    /// Latest record time.
    pub max_ts: WallMs,
    /// Trusted time of the last append.
    pub appended_at: WallMs,
    /// See the row.
    pub txn_lag: u32,
    /// CRC-32C over `[4096, used)`.
    pub data_crc: u32,
}

impl Footer {
    /// Reads the last 64 bytes of an extent of `class`: enough to know how long the tail is. The checksum covers the
    /// whole tail: see [`Tail::decode`].
    pub fn decode(class: Class, bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..FOOTER_BYTES).ok_or(Fault::Short {
            what: TAIL,
            have: bytes.len(),
            need: FOOTER_BYTES,
        })?;
        if bytes.u32_at(0) != FOOTER_MAGIC {
            return Err(Fault::Magic {
                what: TAIL,
                found: bytes.u32_at(0).into(),
            });
        }
        check_version(TAIL, bytes.u16_at(4).into())?;
        let footer = Self {
            flags: bytes.u16_at(6),
            used: bytes.u32_at(8),
            index_count: bytes.u32_at(12),
            aborted_count: bytes.u32_at(16),
            tail_bytes: bytes.u32_at(20),
            last: Offset(bytes.i64_at(24)),
            max_ts: WallMs(bytes.i64_at(32)),
            appended_at: WallMs(bytes.i64_at(40)),
            txn_lag: bytes.u32_at(48),
            data_crc: bytes.u32_at(52),
        };
        let field = |field, value: u32| Fault::Field {
            what: TAIL,
            field,
            value: value.into(),
        };
        // Bounds before sums: an index entry for every 64 KiB, so the counts are small numbers in an honest tail.
        if u64::from(footer.index_count) > class.bytes() / u64::from(INDEX_EVERY) + 1 {
            return Err(field("n", footer.index_count));
        }
        if u64::from(footer.aborted_count) > class.bytes() / ABORTED_BYTES as u64 {
            return Err(field("n_aborted", footer.aborted_count));
        }
        if footer.tail_bytes
            != class.tail_bytes(footer.index_count as usize, footer.aborted_count as usize)
        {
            return Err(field("tail_len", footer.tail_bytes));
        }
        if footer.used < DATA_AT
            || u64::from(footer.used) + u64::from(footer.tail_bytes) > class.bytes()
        {
            return Err(field("used", footer.used));
        }
        Ok(footer)
    }
}

/// Index and footer of a sealed extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// See [`Footer`].
    pub footer: Footer,
    /// Rising in offset and position.
    pub index: Vec<IndexEntry>,
}

impl Tail {
    /// The tail's bytes, to be written so that they end where the class does. Counts and length in `footer` are set here.
    #[must_use]
    pub fn encode(class: Class, mut footer: Footer, index: &[IndexEntry]) -> Vec<u8> {
        footer.index_count = index.len() as u32;
        footer.tail_bytes = class.tail_bytes(index.len(), footer.aborted_count as usize);
        let len = footer.tail_bytes as usize;
        let mut out = Vec::with_capacity(len);
        for entry in index {
            entry.encode(&mut out);
        }
        out.resize(len - FOOTER_BYTES, 0);
        out.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
        out.extend_from_slice(&(super::VERSION as u16).to_le_bytes());
        out.extend_from_slice(&footer.flags.to_le_bytes());
        out.extend_from_slice(&footer.used.to_le_bytes());
        out.extend_from_slice(&footer.index_count.to_le_bytes());
        out.extend_from_slice(&footer.aborted_count.to_le_bytes());
        out.extend_from_slice(&footer.tail_bytes.to_le_bytes());
        out.extend_from_slice(&footer.last.0.to_le_bytes());
        out.extend_from_slice(&footer.max_ts.0.to_le_bytes());
        out.extend_from_slice(&footer.appended_at.0.to_le_bytes());
        out.extend_from_slice(&footer.txn_lag.to_le_bytes());
        out.extend_from_slice(&footer.data_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(out.len(), len);
        out
    }

    /// Reads the tail from its bytes, whose length [`Footer::decode`] told.
    pub fn decode(class: Class, bytes: &[u8]) -> Result<Self, Fault> {
        let footer_at = bytes.len().checked_sub(FOOTER_BYTES).ok_or(Fault::Short {
            what: TAIL,
            have: bytes.len(),
            need: FOOTER_BYTES,
        })?;
        let footer = Footer::decode(class, &bytes[footer_at..])?;
        if footer.tail_bytes as usize != bytes.len() {
            return Err(Fault::Short {
                what: TAIL,
                have: bytes.len(),
                need: footer.tail_bytes as usize,
            });
        }
        let end = bytes.len() - 4;
        check_crc(TAIL, bytes.u32_at(end), crc32c::crc32c(&bytes[..end]))?;
        let mut index = Vec::with_capacity(footer.index_count as usize);
        let rows = bytes[..footer_at].chunks_exact(INDEX_ENTRY_BYTES);
        for entry in rows.take(footer.index_count as usize) {
            let entry = IndexEntry::decode(entry);
            let rising = index.last().is_none_or(|last: &IndexEntry| {
                last.pos < entry.pos && last.rel_offset < entry.rel_offset
            });
            if !rising || entry.pos < DATA_AT || entry.pos >= footer.used {
                return Err(Fault::Field {
                    what: TAIL,
                    field: "index position",
                    value: entry.pos.into(),
                });
            }
            index.push(entry);
        }
        Ok(Self { footer, index })
    }
}

/// Names one life of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotLife {
    /// The slot.
    pub slot: u32,
    /// Which of its lives.
    pub generation: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(class: Class, n: u32) -> (Footer, Vec<IndexEntry>) {
        let index: Vec<_> = (0..n)
            .map(|at| IndexEntry {
                rel_offset: at * 7,
                pos: DATA_AT + at * INDEX_EVERY,
                max_ts: WallMs(i64::from(at)),
            })
            .collect();
        let footer = Footer {
            flags: COMPACTED,
            used: DATA_AT + n * INDEX_EVERY,
            index_count: n,
            aborted_count: 0,
            tail_bytes: class.tail_bytes(n as usize, 0),
            last: Offset(99),
            max_ts: WallMs(98),
            appended_at: WallMs(97),
            txn_lag: 0,
            data_crc: 96,
        };
        (footer, index)
    }

    #[test]
    fn classes_hold_what_they_say() {
        assert_eq!(Class::Small.tail_bytes(16, 0), 4096);
        assert_eq!(Class::Medium.tail_bytes(128, 0), 4096);
        assert_eq!(Class::Large.tail_bytes(1024, 0), 20 * 1024);
        assert_eq!(Class::holding(8 << 20), Some(Class::Large));
        assert_eq!(Class::holding(1 << 20), Some(Class::Medium));
        assert_eq!(Class::holding(1 << 19), Some(Class::Small));
        assert_eq!(Class::holding(64 << 20), None);
    }

    #[test]
    fn a_tail_comes_back() {
        for (class, n) in [
            (Class::Small, 0),
            (Class::Small, 15),
            (Class::Medium, 127),
            (Class::Large, 1023),
        ] {
            let (footer, index) = tail(class, n);
            let bytes = Tail::encode(class, footer, &index);
            assert_eq!(
                Tail::decode(class, &bytes),
                Ok(Tail { footer, index }),
                "{class:?} {n}"
            );
        }
    }

    #[test]
    fn every_flipped_bit_of_a_tail_is_seen() {
        let (footer, index) = tail(Class::Small, 15);
        let good = Tail::encode(Class::Small, footer, &index);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Tail::decode(Class::Small, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_byte_is_seen() {
        let header = ExtentHeader {
            class: Class::Medium,
            disk: DiskUuid(model::Uuid([9; 16])),
            slot: 3,
            generation: 4,
            id: TopicPartition {
                topic: TopicId(model::Uuid([8; 16])),
                partition: model::PartitionIndex(5),
            },
            epoch: LeaderEpoch(6),
            base: Offset(7),
        };
        let good = header.encode();
        assert_eq!(ExtentHeader::decode(&good), Ok(header));
        for at in 0..PAGE {
            let mut bad = good;
            bad[at] ^= 0x40;
            assert!(ExtentHeader::decode(&bad).is_err(), "byte {at}");
        }
    }
}
