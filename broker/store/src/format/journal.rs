//! The journal's group record: what one flush makes durable. It begins on 4 KiB and is padded with zeros to 4 KiB.
//!
//! ```text
//! header 64 B: 0 magic u32 · 4 crc u32 over [8, total_len), seeded with journal_uuid · 8 seq u64 (+1 each)
//!   16 keep_seq u64 (oldest record still needed) · 24 total_len u32 ≤ 16 MiB · 28 n_entries u16 · 30 flags u16
//!   (1 CLEAN, 2 WRAP: first of a new turn of the ring, 4 CKPT) · 32 ring_pos u64 (its own address) · 40 wall_ms i64
//!   (trusted time, 0 while unsynced) · 48 boot_nonce u64 · 56 table_len u32 · 60 zero u32
//! then n entries of 64 B, then payloads:
//!   0 type u8 · 1 flags u8 (1 GAP, 2 UNCLEAN, 4 TXN) · 2 zero u16 · 4 part_ix u32 · 8 slot u32 · 12 slot_gen u32
//!   16 ext_off u32 · 20 len u32 · 24 base_offset i64 · 32 max_ts i64 · 40 leader_epoch i32 · 44 offset_span u32
//!   48 payload_off u32 (from the record's begin) · 52 zero u32 · 56 aux u64
//! ```
//! What an entry uses beside its type; fields not named are zero, and payload is `len` bytes at `payload_off`:
//! ```text
//!  1 APPEND     part, slot, gen, ext_off, base, max_ts, epoch, span (offsets), aux = high watermark; payload: batches
//!  2 TRUNCATE   part, base = the new end; slot, gen, ext_off = the extent that is cut and its new `used` (gen 0: none).
//!               Extents of the part that begin at or behind base are let go, the cut one is sealed
//!  3 EPOCH      part, epoch, base = where it starts (−1: learned from the batches)
//!  4 EXT_OPEN   part, slot, gen, base, epoch, aux = class
//!  5 EXT_SEAL   part, slot, gen, ext_off = used, base = last offset, aux = appended_at
//!  6 EXT_FREE   part, slot, gen
//!  7 EXT_SWAP   part, slot, gen of the new extent (gen 0: none); payload: its row of 64 B, then 8 B {slot, gen} for each old one
//!  8 LOG_START  part, base
//!  9 PART_NEW   part; payload: topic uuid 16 B, partition u32
//! 10 PART_DEL   part; all its extents are let go
//! 11 HARDSTATE  slot = voted for (0: nobody), aux = term
//! 12 SITE_ENTRY base = index, aux = term; payload: the entry
//! 13 CKPT       base = its S, aux = ckpt_seq
//! 14 BOOT       aux = boot_nonce
//! 15 CLEAN
//! ```

use model::window::PartIx;
use model::{LeaderEpoch, Offset, Uuid, WallMs};

use super::extent::SlotLife;
use super::{Fault, Le, put};

/// Bytes of the group header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 64;
/// Longest record that is believed: two of the writer's groups.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// `HJRN`
const MAGIC: u32 = u32::from_le_bytes(*b"HJRN");
const ENTRY: &str = "journal entry";

/// Group flag: the last record of an orderly stop.
pub const CLEAN: u16 = 1;
/// Group flag: written at the ring's begin because it did not fit behind the one before.
pub const WRAP: u16 = 2;
/// Group flag: holds a CKPT entry.
pub const CKPT: u16 = 4;

/// Entry flag: the base may lie beyond the log's end (copied from a compacted log).
pub const GAP: u8 = 1;
/// Entry flag of EPOCH: its site entry says unclean.
pub const UNCLEAN: u8 = 2;
/// Entry flag: transactional or control batches; 0 until they are built.
pub const TXN: u8 = 4;

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table at the file's head explains each")]
pub enum EntryType {
    Append = 1,
    Truncate = 2,
    Epoch = 3,
    ExtOpen = 4,
    ExtSeal = 5,
    ExtFree = 6,
    ExtSwap = 7,
    LogStart = 8,
    PartNew = 9,
    PartDel = 10,
    HardState = 11,
    SiteEntry = 12,
    Ckpt = 13,
    Boot = 14,
    Clean = 15,
}

impl EntryType {
    /// From its byte.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Append,
            2 => Self::Truncate,
            3 => Self::Epoch,
            4 => Self::ExtOpen,
            5 => Self::ExtSeal,
            6 => Self::ExtFree,
            7 => Self::ExtSwap,
            8 => Self::LogStart,
            9 => Self::PartNew,
            10 => Self::PartDel,
            11 => Self::HardState,
            12 => Self::SiteEntry,
            13 => Self::Ckpt,
            14 => Self::Boot,
            15 => Self::Clean,
            _ => return None,
        })
    }
}

/// One entry; which fields mean something depends on its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table at the file's head explains each")]
pub struct Entry {
    pub kind: EntryType,
    pub flags: u8,
    pub part: PartIx,
    pub life: SlotLife,
    pub ext_off: u32,
    pub len: u32,
    pub base: Offset,
    pub max_ts: WallMs,
    pub epoch: LeaderEpoch,
    pub span: u32,
    pub payload_off: u32,
    pub aux: u64,
}

impl Entry {
    /// An entry with all fields zero but its type.
    #[must_use]
    pub const fn new(kind: EntryType) -> Self {
        Self {
            kind,
            flags: 0,
            part: PartIx(0),
            life: SlotLife {
                slot: 0,
                generation: 0,
            },
            ext_off: 0,
            len: 0,
            base: Offset(0),
            max_ts: WallMs(0),
            epoch: LeaderEpoch(0),
            span: 0,
            payload_off: 0,
            aux: 0,
        }
    }

    /// Offset behind an APPEND's last record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.base.plus(self.span as i64)
    }

    /// Writes the 64 bytes to the front of `out`.
    pub fn encode(&self, out: &mut [u8]) {
        out[..ENTRY_BYTES].fill(0);
        out[0] = self.kind as u8;
        out[1] = self.flags;
        put(out, 4, &self.part.0.to_le_bytes());
        put(out, 8, &self.life.slot.to_le_bytes());
        put(out, 12, &self.life.generation.to_le_bytes());
        put(out, 16, &self.ext_off.to_le_bytes());
        put(out, 20, &self.len.to_le_bytes());
        put(out, 24, &self.base.0.to_le_bytes());
        put(out, 32, &self.max_ts.0.to_le_bytes());
        put(out, 40, &self.epoch.0.to_le_bytes());
        put(out, 44, &self.span.to_le_bytes());
        put(out, 48, &self.payload_off.to_le_bytes());
        put(out, 56, &self.aux.to_le_bytes());
    }

    fn decode(bytes: &[u8], header: &GroupHeader) -> Result<Self, Fault> {
        let field = |field, value: u64| Fault::Field {
            what: ENTRY,
            field,
            value,
        };
        let kind = EntryType::from_u8(bytes[0]).ok_or(field("type", bytes[0].into()))?;
        if bytes.u16_at(2) != 0 || bytes.u32_at(52) != 0 {
            return Err(field("zero", 1));
        }
        let (len, payload_off) = (bytes.u32_at(20), bytes.u32_at(48));
        let within = u64::from(payload_off) + u64::from(len) <= u64::from(header.total_len);
        let behind_table =
            payload_off as usize >= HEADER_BYTES + ENTRY_BYTES * usize::from(header.entries);
        if len > 0 && !(within && behind_table) {
            return Err(field("payload_off", payload_off.into()));
        }
        Ok(Self {
            kind,
            flags: bytes[1],
            part: PartIx(bytes.u32_at(4)),
            life: SlotLife {
                slot: bytes.u32_at(8),
                generation: bytes.u32_at(12),
            },
            ext_off: bytes.u32_at(16),
            len,
            base: Offset(bytes.i64_at(24)),
            max_ts: WallMs(bytes.i64_at(32)),
            epoch: LeaderEpoch(bytes.i32_at(40)),
            span: bytes.u32_at(44),
            payload_off,
            aux: bytes.u64_at(56),
        })
    }
}

/// The first 64 bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Number of the group.
    pub seq: u64,
    /// Oldest group that a recovery still needs.
    pub keep_seq: u64,
    /// Bytes of header, table and payloads, padding not counted.
    pub total_len: u32,
    /// Entries.
    pub entries: u16,
    /// CLEAN, WRAP, CKPT.
    pub flags: u16,
    /// Where in the ring it was written.
    pub ring_pos: u64,
    /// Trusted time, 0 while unsynced.
    pub wall: WallMs,
    /// Of the run that wrote it.
    pub boot_nonce: u64,
}

impl GroupHeader {
    /// Completes the record in `record`, whose entries and payloads are in place: writes header and checksum.
    pub fn seal(&self, journal: Uuid, record: &mut [u8]) {
        let total = self.total_len as usize;
        record[..HEADER_BYTES].fill(0);
        put(record, 0, &MAGIC.to_le_bytes());
        put(record, 8, &self.seq.to_le_bytes());
        put(record, 16, &self.keep_seq.to_le_bytes());
        put(record, 24, &self.total_len.to_le_bytes());
        put(record, 28, &self.entries.to_le_bytes());
        put(record, 30, &self.flags.to_le_bytes());
        put(record, 32, &self.ring_pos.to_le_bytes());
        put(record, 40, &self.wall.0.to_le_bytes());
        put(record, 48, &self.boot_nonce.to_le_bytes());
        let table = u32::from(self.entries) * ENTRY_BYTES as u32;
        put(record, 56, &table.to_le_bytes());
        let crc = checksum(journal, &record[8..total]);
        put(record, 4, &crc.to_le_bytes());
    }

    /// Reads the header at the front of a page, as far as it can be believed without the rest: magic, place and bounds.
    /// `None` for anything that is not a record of this place in a ring of `ring_bytes`.
    #[must_use]
    pub fn peek(page: &[u8], ring_pos: u64, ring_bytes: u64) -> Option<Self> {
        if page.len() < HEADER_BYTES || page.u32_at(0) != MAGIC || page.u64_at(32) != ring_pos {
            return None;
        }
        let header = Self {
            seq: page.u64_at(8),
            keep_seq: page.u64_at(16),
            total_len: page.u32_at(24),
            entries: page.u16_at(28),
            flags: page.u16_at(30),
            ring_pos,
            wall: WallMs(page.i64_at(40)),
            boot_nonce: page.u64_at(48),
        };
        let table = usize::from(header.entries) * ENTRY_BYTES;
        let total = header.total_len as usize;
        (page.u32_at(56) as usize == table
            && page.u32_at(60) == 0
            && total <= RECORD_BYTES_MAX
            && total >= HEADER_BYTES + table
            && ring_pos + super::page_up(total as u64) <= ring_bytes)
            .then_some(header)
    }

    /// Bytes that the record takes in the ring.
    #[must_use]
    pub const fn padded(&self) -> u64 {
        super::page_up(self.total_len as u64)
    }
}

/// A record whose checksum held.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub header: GroupHeader,
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Checks the whole record at the front of `bytes`, whose header was peeked.
    #[must_use]
    pub fn check(header: GroupHeader, journal: Uuid, bytes: &'a [u8]) -> Option<Self> {
        let bytes = bytes.get(..header.total_len as usize)?;
        (checksum(journal, &bytes[8..]) == bytes.u32_at(4)).then_some(Self { header, bytes })
    }

    /// The entries in order. A fault here is not damage, for the checksum held: another release wrote it, or a bug.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Fault>> + use<'a> {
        let Self { header, bytes } = *self;
        bytes[HEADER_BYTES..]
            .chunks_exact(ENTRY_BYTES)
            .take(usize::from(header.entries))
            .map(move |entry| Entry::decode(entry, &header))
    }

    /// An entry's payload; checked to lie in the record when the entry was read.
    #[must_use]
    pub fn payload(&self, entry: &Entry) -> &'a [u8] {
        let from = entry.payload_off as usize;
        match entry.len as usize {
            0 => &[],
            len => &self.bytes[from..from + len],
        }
    }
}

/// A group's checksum: CRC-32C over the ring's identity, then the bytes.
#[must_use]
pub fn checksum(journal: Uuid, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&journal.0), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::PAGE;

    const RING: u64 = 1 << 20;
    const UUID: Uuid = Uuid([7; 16]);

    fn record() -> Vec<u8> {
        let mut bytes = vec![0; PAGE];
        let entry = Entry {
            flags: GAP,
            part: PartIx(1),
            life: SlotLife {
                slot: 2,
                generation: 3,
            },
            ext_off: 4096,
            len: 5,
            base: Offset(6),
            max_ts: WallMs(7),
            epoch: LeaderEpoch(8),
            span: 9,
            payload_off: 128,
            aux: 10,
            ..Entry::new(EntryType::Append)
        };
        entry.encode(&mut bytes[64..]);
        bytes[128..133].copy_from_slice(b"batch");
        GroupHeader {
            seq: 11,
            keep_seq: 2,
            total_len: 133,
            entries: 1,
            flags: WRAP,
            ring_pos: 8192,
            wall: WallMs(12),
            boot_nonce: 13,
        }
        .seal(UUID, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = record();
        let header = GroupHeader::peek(&bytes, 8192, RING).expect("its place");
        let record = Record::check(header, UUID, &bytes).expect("whole");
        let entry = record.entries().next().expect("one").expect("good");
        assert_eq!((entry.kind, entry.base), (EntryType::Append, Offset(6)));
        assert_eq!(record.payload(&entry), b"batch");
        assert_eq!(entry.next_offset(), Offset(15));
    }

    #[test]
    fn another_place_or_ring_is_refused() {
        let bytes = record();
        assert!(GroupHeader::peek(&bytes, 4096, RING).is_none());
        let header = GroupHeader::peek(&bytes, 8192, RING).expect("its place");
        assert!(Record::check(header, Uuid([8; 16]), &bytes).is_none());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = record();
        for bit in 0..133 * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = GroupHeader::peek(&bad, 8192, RING)
                .and_then(|header| Record::check(header, UUID, &bad).map(|_| ()));
            assert!(read.is_none(), "bit {bit}");
        }
    }
}
