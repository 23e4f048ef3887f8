//! The boot record: which slot is good, which one is on trial, and how often it may still be tried.
//!
//! ```text
//!   0 magic "HOWDAHBS" · 8 version u16 (1) · 10 watchdog seconds u16, 0: the loader arms none · 12 seq u64
//!  20 active u8 (0 A, 1 B) · 21 trial u8 (0 A, 1 B, 255 none) · 22 tries u8 · 23 failed u8 (bit 0 A, bit 1 B)
//!  24 security floor u32 (0) · 28 key-set version u8 (0) · 29 zero
//!  32 SHA-256 of the payload on trial, zero if none · 64 SHA-256 of the payload that failed last, zero if none
//!  96 zero; kept as found · 508 CRC-32C u32 over 0..508
//! ```
//! Two copies lie 4 KiB apart. The valid one of the higher `seq` counts, and a change goes over the other one, so that
//! a cut in the middle of a write leaves the record as it was.

use crate::{RECORD_BYTES, Slot, seal, sealed, take};

const MAGIC: [u8; 8] = *b"HOWDAHBS";
const VERSION: u16 = 1;
const NO_TRIAL: u8 = 255;
/// Half a minute from the loader to PID 1's own watchdog: the slowest firmware and kernel measured need 15 s of it.
pub const WATCHDOG_SECONDS_DEFAULT: u16 = 30;

/// One of the two places of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the start.
    First,
    /// Behind it.
    Second,
}

impl Copy {
    /// Where the next change goes.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Bytes from the start of the partition `bootstate`.
    #[must_use]
    pub const fn offset(self) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => crate::BLOCK_BYTES as u64,
        }
    }
}

/// What the boot record says. How it changes stands in `decide.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootState {
    /// Rises with each change; the higher one of two copies counts.
    pub seq: u64,
    /// The slot that was last blessed: started, healthy, and said so.
    pub active: Slot,
    /// The slot that is to be tried first.
    pub trial: Option<Slot>,
    /// Starts left for the trial; 0 without one.
    pub tries: u8,
    /// Bit 0 for A, bit 1 for B: its payload could not be loaded, or spent its tries.
    pub failed: u8,
    /// Within so many seconds PID 1 must have taken over the watchdog that the loader armed; 0: it arms none.
    pub watchdog_seconds: u16,
    /// Payloads of a lower security number are not installed. Zero until updates are signed.
    pub security_floor: u32,
    /// Which set of keys signs updates. Zero until updates are signed.
    pub key_set: u8,
    /// SHA-256 of the payload on trial, zero if none.
    pub trial_sha256: [u8; 32],
    /// SHA-256 of the payload that failed last, zero if none: it is not offered a second trial by itself.
    pub failed_sha256: [u8; 32],
    /// What a later version keeps in bytes 96 to 508: carried along as found.
    pub later: [u8; LATER_BYTES],
}

/// Bytes of a record that have no meaning yet.
const LATER_BYTES: usize = RECORD_BYTES - 4 - 96;

/// A disk whose two copies are both unreadable boots like a new one: A, and if that can't be loaded, B.
impl Default for BootState {
    fn default() -> Self {
        Self {
            seq: 0,
            active: Slot::A,
            trial: None,
            tries: 0,
            failed: 0,
            watchdog_seconds: WATCHDOG_SECONDS_DEFAULT,
            security_floor: 0,
            key_set: 0,
            trial_sha256: [0; 32],
            failed_sha256: [0; 32],
            later: [0; LATER_BYTES],
        }
    }
}

impl BootState {
    /// Reads one copy; `None` if it is none, torn or rotten.
    ///
    /// A record of any version ≥ 1 is read: later ones keep these fields where they are.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD_BYTES] = bytes.first_chunk()?;
        if record[..8] != MAGIC || u16::from_le_bytes(take(record, 8)) == 0 || !sealed(record) {
            return None;
        }
        let trial = match record[21] {
            NO_TRIAL => None,
            number => Some(Slot::from_number(number)?),
        };
        Some(Self {
            seq: u64::from_le_bytes(take(record, 12)),
            active: Slot::from_number(record[20])?,
            trial,
            // Tries without a trial mean nothing; as zero they can't come to mean something.
            tries: if trial.is_some() { record[22] } else { 0 },
            failed: record[23] & 0b11,
            watchdog_seconds: u16::from_le_bytes(take(record, 10)),
            security_floor: u32::from_le_bytes(take(record, 24)),
            key_set: record[28],
            trial_sha256: take(record, 32),
            failed_sha256: take(record, 64),
            later: take(record, 96),
        })
    }

    /// The record as it is written.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&MAGIC);
        record[8..10].copy_from_slice(&VERSION.to_le_bytes());
        record[10..12].copy_from_slice(&self.watchdog_seconds.to_le_bytes());
        record[12..20].copy_from_slice(&self.seq.to_le_bytes());
        record[20] = self.active.number();
        record[21] = self.trial.map_or(NO_TRIAL, Slot::number);
        record[22] = self.tries;
        record[23] = self.failed;
        record[24..28].copy_from_slice(&self.security_floor.to_le_bytes());
        record[28] = self.key_set;
        record[32..64].copy_from_slice(&self.trial_sha256);
        record[64..96].copy_from_slice(&self.failed_sha256);
        record[96..RECORD_BYTES - 4].copy_from_slice(&self.later);
        seal(&mut record);
        record
    }

    /// The copy that counts, and which one it is; `None` if neither can be read. The next change goes over the other.
    ///
    /// Both slices begin at their copy and may be longer.
    #[must_use]
    pub fn newest(first: &[u8], second: &[u8]) -> Option<(Self, Copy)> {
        match (Self::decode(first), Self::decode(second)) {
            (Some(first), Some(second)) if first.seq < second.seq => Some((second, Copy::Second)),
            (Some(first), _) => Some((first, Copy::First)),
            (None, Some(second)) => Some((second, Copy::Second)),
            (None, None) => None,
        }
    }

    /// Whether the payload of this slot could not be loaded, or spent its tries.
    #[must_use]
    pub const fn has_failed(&self, slot: Slot) -> bool {
        self.failed & slot.bit() != 0
    }
}
