//! How bytes lie on a disk: one file for each structure, a picture at its head, `encode` and `decode` below.
//!
//! Format v1, little-endian, all checksums CRC-32C. Decoders take bytes that may hold anything, return values or a
//! [`Fault`], and allocate nothing by what the bytes claim before that was checked against what is there. Nothing here
//! does I/O or decides what a fault means.

use thiserror::Error;

pub mod checkpoint;
pub mod extent;
pub mod journal;
pub mod row;
pub mod superblock;

/// A page of the page cache and the sector that all writes are aligned to.
pub const PAGE: usize = 4096;
/// The format this release reads and writes.
pub const VERSION: u32 = 1;

/// Bytes from a disk that are not what this release wrote.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Fewer bytes than the structure has.
    #[error("{what}: {have} bytes of {need}")]
    Short {
        /// Which structure.
        what: &'static str,
        /// Bytes at hand.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Another structure, or none.
    #[error("{what}: magic {found:#x}")]
    Magic {
        /// Which structure was expected.
        what: &'static str,
        /// What stands there.
        found: u64,
    },
    /// The bytes changed after they were written.
    #[error("{what}: CRC-32C {found:08x}, it claims {claimed:08x}")]
    Crc {
        /// Which structure.
        what: &'static str,
        /// What it claims.
        claimed: u32,
        /// What the bytes give.
        found: u32,
    },
    /// Written by a newer release.
    #[error(
        "{what} has format version {found}, this release reads up to {VERSION}: start the newer release again, or \
         put this disk's replicas back from a peer"
    )]
    Newer {
        /// Which structure.
        what: &'static str,
        /// Its version.
        found: u32,
    },
    /// A field holds what it can't.
    #[error("{what}: {field} is {value}")]
    Field {
        /// Which structure.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A part that must be understood is not.
    #[error("{0}")]
    Unknown(String),
}

/// `bytes` rounded up to whole pages.
#[must_use]
pub const fn page_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE as u64)
}

/// `bytes` rounded down to whole pages.
#[must_use]
pub const fn page_down(bytes: u64) -> u64 {
    bytes - bytes % PAGE as u64
}

/// Reads little-endian fields at fixed places.
pub(crate) trait Le {
    fn u16_at(&self, at: usize) -> u16;
    fn u32_at(&self, at: usize) -> u32;
    fn u64_at(&self, at: usize) -> u64;
    fn i32_at(&self, at: usize) -> i32 {
        self.u32_at(at) as i32
    }
    fn i64_at(&self, at: usize) -> i64 {
        self.u64_at(at) as i64
    }
    fn uuid_at(&self, at: usize) -> model::Uuid;
}

impl Le for [u8] {
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes(self[at..at + 2].try_into().expect("two bytes"))
    }
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self[at..at + 4].try_into().expect("four bytes"))
    }
    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self[at..at + 8].try_into().expect("eight bytes"))
    }
    fn uuid_at(&self, at: usize) -> model::Uuid {
        model::Uuid(self[at..at + 16].try_into().expect("sixteen bytes"))
    }
}

/// Writes fields at fixed places.
pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Compares a stored checksum with the bytes.
pub(crate) fn check_crc(what: &'static str, claimed: u32, found: u32) -> Result<(), Fault> {
    if claimed == found {
        Ok(())
    } else {
        Err(Fault::Crc {
            what,
            claimed,
            found,
        })
    }
}

/// Refuses structures of a later release before anything in them is believed but magic and version.
pub(crate) fn check_version(what: &'static str, found: u32) -> Result<(), Fault> {
    match found {
        VERSION => Ok(()),
        0 => Err(Fault::Field {
            what,
            field: "version",
            value: 0,
        }),
        newer => Err(Fault::Newer { what, found: newer }),
    }
}
