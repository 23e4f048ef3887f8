//! What lies on the boot disk beside the file system of the firmware, and which slot is started from it.
//!
//! The loader (`board/bootsel`), PID 1 (`board`) and the image builder (`images`) meet here and nowhere else. Nothing
//! in this crate reads or writes a device, waits, allocates or panics on what a disk holds: bytes come in, values and
//! bytes go out.
//!
//! ```text
//!  GPT partition   bytes     holds
//!  esp             48 MiB    FAT32, EFI/BOOT/BOOTX64.EFI alone; never written after flashing
//!  bootstate        1 MiB    two copies of the boot record, at 0 and at 4 KiB            state.rs
//!  config           4 MiB    two copies of the site, two copies of the keys              config.rs
//!  slot-a         256 MiB    4 KiB header, then a signed or unsigned PE image (a UKI)    header.rs
//!  slot-b         256 MiB    the same
//! ```
//!
//! Every record fits one sector of 512 bytes, which a drive writes whole or not at all, and copies lie at least 4 KiB
//! apart, so that no drive of any sector size touches two with one write. All numbers are little-endian. A loader of
//! today must read the record of a release in five years: later versions of a layout only give meaning to bytes that
//! are zero today, and whoever changes a record keeps the bytes it does not know.

#![no_std]

pub mod config;
mod crc;
mod decide;
pub mod gpt;
mod header;
mod state;

pub use crc::crc32c;
pub use decide::{Install, Refused, Start};
pub use header::{RELEASE_BYTES_MAX, SlotHeader};
pub use state::{BootState, Copy, WATCHDOG_SECONDS_DEFAULT};

/// Bytes of a boot record, of a slot header's meaningful part and of a configuration record's header.
pub const RECORD_BYTES: usize = 512;
/// Where the second copy of the boot record lies, and where a slot's payload begins behind its header.
pub const BLOCK_BYTES: usize = 4096;

/// GPT names of the partitions, by which everyone finds them.
pub mod partition {
    /// The firmware's file system.
    pub const ESP: &str = "esp";
    /// The boot records.
    pub const BOOTSTATE: &str = "bootstate";
    /// The site and its keys.
    pub const CONFIG: &str = "config";
}

/// The volatile EFI variable in which the loader says what it started: [`Start::to_bytes`].
pub const LOADER_VARIABLE: &str = "HowdahSlot";
/// The vendor GUID of [`LOADER_VARIABLE`], as efivarfs writes it.
pub const LOADER_VENDOR: &str = "6f11cb0e-8c6b-4b8a-9f0d-2f6f77646168";

/// A place for one boot image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// `slot-a`.
    A,
    /// `slot-b`.
    B,
}

impl Slot {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// 0 or 1, as the records have it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// The slot of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::A),
            1 => Some(Self::B),
            _ => None,
        }
    }

    /// The one that this is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its GPT partition's name.
    #[must_use]
    pub const fn partition(self) -> &'static str {
        match self {
            Self::A => "slot-a",
            Self::B => "slot-b",
        }
    }

    const fn bit(self) -> u8 {
        1 << self.number()
    }
}

impl core::fmt::Display for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// The bytes at `at`, for layouts whose length is in their type.
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("offsets of a layout lie inside its record")
}

/// Whether a record's CRC-32C, its last four bytes, fits the bytes before it.
fn sealed(record: &[u8; RECORD_BYTES]) -> bool {
    let claimed = u32::from_le_bytes(take(record, RECORD_BYTES - 4));
    crc32c(&record[..RECORD_BYTES - 4]) == claimed
}

/// Writes a record's CRC-32C into its last four bytes.
fn seal(record: &mut [u8; RECORD_BYTES]) {
    let crc = crc32c(&record[..RECORD_BYTES - 4]);
    record[RECORD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
}
