//! The GUID partition table (UEFI specification, chapter 5), read by name and written whole.
//!
//! ```text
//!  LBA 0 protective MBR · 1 header · 2.. entries, 128 of 128 bytes · … · entries again · last LBA header again
//!  header:  0 "EFI PART" · 8 revision u32 · 12 header bytes u32 · 16 CRC-32 of the header, itself as zero · 20 zero u32
//!          24 own LBA · 32 the other's LBA · 40 first usable · 48 last usable, all u64 · 56 disk GUID
//!          72 LBA of the entries u64 · 80 entries u32 · 84 bytes of each u32 · 88 CRC-32 of the entries u32
//!  entry:   0 type GUID · 16 own GUID · 32 first LBA u64 · 40 last LBA u64 · 48 flags u64 · 56 name, 36 of UTF-16
//! ```
//! A reader takes the header at LBA 1, and where that is rotten the one at the last LBA.

use crate::{crc::crc32, take};

const SIGNATURE: [u8; 8] = *b"EFI PART";
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: usize = 128;
const ENTRIES: usize = 128;
const NAME_UNITS: usize = 36;
/// Bytes of the entries of a table that is written here, and the most that a reader takes.
pub const ENTRIES_BYTES: usize = ENTRIES * ENTRY_BYTES;

/// A GUID as it lies on a disk: the first three fields little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID whose text has these digits.
    #[must_use]
    pub const fn from_digits(digits: u128) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = digits.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = rest;
        Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
    }
}

/// The text, lower case, as Linux writes it.
impl core::fmt::Display for Guid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g, h, i, tail @ ..] = self.0;
        write!(f, "{:08x}-", u32::from_le_bytes([a, b, c, d]))?;
        write!(f, "{:04x}-", u16::from_le_bytes([e, g]))?;
        write!(f, "{:04x}", u16::from_le_bytes([h, i]))?;
        for (at, byte) in tail.iter().enumerate() {
            let dash = if at == 0 || at == 2 { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Type of the firmware's file system.
pub const TYPE_ESP: Guid = Guid::from_digits(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
/// Type of a Linux file system.
pub const TYPE_LINUX: Guid = Guid::from_digits(0x0fc63daf_8483_4772_8e79_3d69d8477de4);
/// Type of what only this system reads: no other one offers to format it.
pub const TYPE_RAW: Guid = Guid::from_digits(0x8d1c39f6_6a3b_4c0e_a7a2_686f77646168);

/// A header that holds by its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the entries lie.
    pub entries_lba: u64,
    /// The disk's GUID.
    pub disk: Guid,
    entries_bytes: usize,
    entry_bytes: usize,
    entries_crc: u32,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table, from 1, as Linux numbers it.
    pub number: u32,
    /// What it is for.
    pub kind: Guid,
    /// Which one it is.
    pub guid: Guid,
    /// Its first sector.
    pub first_lba: u64,
    /// Its last sector, ≥ the first.
    pub last_lba: u64,
    name: [u16; NAME_UNITS],
}

impl Header {
    /// Reads the sector at LBA 1, or at the last LBA; `None` if it is no header, or rotten, or of a table larger than
    /// any that is written here.
    #[must_use]
    pub fn decode(sector: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = sector.first_chunk()?;
        let word = |at| u32::from_le_bytes(take(bytes, at));
        let size = usize::try_from(word(12)).ok()?;
        if bytes[..8] != SIGNATURE || !(HEADER_BYTES..=512).contains(&size) {
            return None;
        }
        let mut sealed = [0; 512];
        sealed[..size].copy_from_slice(sector.get(..size)?);
        sealed[16..20].fill(0);
        if crc32(&sealed[..size]) != word(16) {
            return None;
        }
        let entry_bytes = usize::try_from(word(84)).ok()?;
        let entries_bytes = usize::try_from(word(80)).ok()?.checked_mul(entry_bytes)?;
        (entry_bytes >= ENTRY_BYTES && entries_bytes <= ENTRIES_BYTES).then_some(Self {
            entries_lba: u64::from_le_bytes(take(bytes, 72)),
            disk: Guid(take(bytes, 56)),
            entries_bytes,
            entry_bytes,
            entries_crc: word(88),
        })
    }

    /// Bytes to read from [`Self::entries_lba`], at most [`ENTRIES_BYTES`].
    #[must_use]
    pub const fn entries_bytes(&self) -> usize {
        self.entries_bytes
    }

    /// The partitions in the bytes at [`Self::entries_lba`]; `None` if those are too few or rotten.
    pub fn partitions<'e>(
        &self,
        entries: &'e [u8],
    ) -> Option<impl Iterator<Item = Partition> + use<'e>> {
        let entries = entries.get(..self.entries_bytes)?;
        if crc32(entries) != self.entries_crc {
            return None;
        }
        let partitions = entries.chunks_exact(self.entry_bytes).zip(1..);
        Some(partitions.filter_map(|(entry, number)| Partition::decode(entry, number)))
    }
}

impl Partition {
    fn decode(entry: &[u8], number: u32) -> Option<Self> {
        let entry: &[u8; ENTRY_BYTES] = entry.first_chunk()?;
        let kind = Guid(take(entry, 0));
        let partition = Self {
            number,
            kind,
            guid: Guid(take(entry, 16)),
            first_lba: u64::from_le_bytes(take(entry, 32)),
            last_lba: u64::from_le_bytes(take(entry, 40)),
            name: core::array::from_fn(|unit| u16::from_le_bytes(take(entry, 56 + 2 * unit))),
        };
        let whole = partition.first_lba <= partition.last_lba && partition.last_lba < u64::MAX;
        (kind != Guid([0; 16]) && whole).then_some(partition)
    }

    /// How many sectors it has.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.last_lba - self.first_lba + 1
    }

    /// Whether this is its name.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.name().eq(name.chars())
    }

    /// Its name; what is no UTF-16 shows as U+FFFD.
    pub fn name(&self) -> impl Iterator<Item = char> + '_ {
        let units = self.name.iter().copied().take_while(|unit| *unit != 0);
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

/// A partition to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewPartition<'n> {
    /// What it is for.
    pub kind: Guid,
    /// Which one it is.
    pub guid: Guid,
    /// Its first sector.
    pub first_lba: u64,
    /// Its last sector.
    pub last_lba: u64,
    /// At most 36 units of UTF-16; what is longer is cut.
    pub name: &'n str,
}

/// A table to be written over a whole disk.
#[derive(Clone, Copy, Debug)]
pub struct NewTable<'n> {
    /// The disk's sectors.
    pub sectors: u64,
    /// Bytes of a sector: 512 or 4096.
    pub sector_bytes: usize,
    /// Which disk it is.
    pub disk: Guid,
    /// At most 128, in the order of their numbers, none overlapping another.
    pub partitions: &'n [NewPartition<'n>],
}

impl NewTable<'_> {
    /// Sectors that the entries take.
    const fn entries_sectors(&self) -> u64 {
        (ENTRIES_BYTES / self.sector_bytes) as u64
    }

    /// The first sector that a partition may have; one at 1 MiB suits every drive better.
    #[must_use]
    pub const fn first_usable_lba(&self) -> u64 {
        2 + self.entries_sectors()
    }

    /// The last sector that a partition may have.
    #[must_use]
    pub const fn last_usable_lba(&self) -> u64 {
        self.sectors - 2 - self.entries_sectors()
    }

    /// Hands each piece of the table to `put` with its offset in bytes, in the order in which they must be written:
    /// the copy at the end first, so that a cut leaves either the old table or one that is whole.
    ///
    /// # Panics
    /// If the partitions are more than 128, or lie outside of the usable sectors.
    pub fn write<E>(&self, mut put: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let entries = self.entries();
        let last = self.sectors - 1;
        let behind = last - self.entries_sectors();
        let mut put_at = |lba: u64, bytes: &[u8]| put(lba * self.sector_bytes as u64, bytes);
        put_at(behind, &entries)?;
        put_at(last, &self.header(&entries, last, 1, behind))?;
        put_at(2, &entries)?;
        put_at(1, &self.header(&entries, 1, last, 2))?;
        put_at(0, &self.protective_mbr())
    }

    fn entries(&self) -> [u8; ENTRIES_BYTES] {
        let mut entries = [0; ENTRIES_BYTES];
        assert!(self.partitions.len() <= ENTRIES, "a table has 128 places");
        for (place, partition) in entries.chunks_exact_mut(ENTRY_BYTES).zip(self.partitions) {
            let usable = self.first_usable_lba()..=self.last_usable_lba();
            let (first, last) = (partition.first_lba, partition.last_lba);
            assert!(
                first <= last && usable.contains(&first) && usable.contains(&last),
                "a partition lies on the disk, and not on the table"
            );
            place[..16].copy_from_slice(&partition.kind.0);
            place[16..32].copy_from_slice(&partition.guid.0);
            place[32..40].copy_from_slice(&first.to_le_bytes());
            place[40..48].copy_from_slice(&last.to_le_bytes());
            let units = partition.name.encode_utf16().take(NAME_UNITS);
            for (two, unit) in place[56..].chunks_exact_mut(2).zip(units) {
                two.copy_from_slice(&unit.to_le_bytes());
            }
        }
        entries
    }

    fn header(
        &self,
        entries: &[u8; ENTRIES_BYTES],
        own: u64,
        other: u64,
        entries_lba: u64,
    ) -> [u8; 512] {
        let mut header = [0; 512];
        header[..8].copy_from_slice(&SIGNATURE);
        header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&self.first_usable_lba().to_le_bytes());
        header[48..56].copy_from_slice(&self.last_usable_lba().to_le_bytes());
        header[56..72].copy_from_slice(&self.disk.0);
        header[72..80].copy_from_slice(&entries_lba.to_le_bytes());
        header[80..84].copy_from_slice(&(ENTRIES as u32).to_le_bytes());
        header[84..88].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
        header[88..92].copy_from_slice(&crc32(entries).to_le_bytes());
        let crc = crc32(&header[..HEADER_BYTES]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// One partition of type 0xEE over the whole disk, so that tools of before take it for full (UEFI 5.2.3).
    fn protective_mbr(&self) -> [u8; 512] {
        let mut mbr = [0; 512];
        let sectors = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
        mbr[446..462]
            .copy_from_slice(&[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0, 0, 0, 0]);
        mbr[458..462].copy_from_slice(&sectors.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xAA]);
        mbr
    }
}
