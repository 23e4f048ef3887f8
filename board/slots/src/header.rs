//! The header of a slot: whether what follows is a whole payload, and which one.
//!
//! ```text
//!   0 magic "HOWDAHSL" · 8 version u16 (1) · 10 zero u16 · 12 CRC-32C of the payload u32 · 16 payload bytes u64
//!  24 security number u32 (0) · 28 zero u32 · 32 SHA-256 of the payload
//!  64 release, UTF-8, zero behind it, 64 bytes · 128 zero · 508 CRC-32C u32 over 0..508
//! ```
//! The payload follows at 4096. Whoever writes a slot first zeroes the header, then writes and flushes the payload and
//! reads it back, and writes the header last: a valid header never stands before anything but its payload.

use crate::{RECORD_BYTES, crc32c, seal, sealed, take};

const MAGIC: [u8; 8] = *b"HOWDAHSL";
const VERSION: u16 = 1;
/// Bytes of a release's name.
pub const RELEASE_BYTES_MAX: usize = 64;

/// What a slot says of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotHeader {
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// Its CRC-32C, which the loader checks: rot is what it must find, forgery is the firmware's to refuse.
    pub payload_crc: u32,
    /// Its SHA-256, by which updates and records of failures name it.
    pub sha256: [u8; 32],
    /// For the floor against old payloads; zero until updates are signed.
    pub security: u32,
    release: [u8; RELEASE_BYTES_MAX],
}

impl SlotHeader {
    /// The header of this payload. A longer name of the release is cut at a character.
    #[must_use]
    pub fn new(payload: &[u8], sha256: [u8; 32], release: &str) -> Self {
        let cut = release.floor_char_boundary(RELEASE_BYTES_MAX);
        let mut name = [0; RELEASE_BYTES_MAX];
        name[..cut].copy_from_slice(&release.as_bytes()[..cut]);
        Self {
            payload_bytes: payload.len() as u64,
            payload_crc: crc32c(payload),
            sha256,
            security: 0,
            release: name,
        }
    }

    /// Reads the header at the start of a slot; `None` if there is none, or it is torn or rotten.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD_BYTES] = bytes.first_chunk()?;
        if record[..8] != MAGIC || u16::from_le_bytes(take(record, 8)) == 0 || !sealed(record) {
            return None;
        }
        Some(Self {
            payload_crc: u32::from_le_bytes(take(record, 12)),
            payload_bytes: u64::from_le_bytes(take(record, 16)),
            security: u32::from_le_bytes(take(record, 24)),
            sha256: take(record, 32),
            release: take(record, 64),
        })
    }

    /// The header as it is written.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&MAGIC);
        record[8..10].copy_from_slice(&VERSION.to_le_bytes());
        record[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        record[16..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        record[24..28].copy_from_slice(&self.security.to_le_bytes());
        record[32..64].copy_from_slice(&self.sha256);
        record[64..128].copy_from_slice(&self.release);
        seal(&mut record);
        record
    }

    /// The release that the payload is; empty if its bytes are no text.
    #[must_use]
    pub fn release(&self) -> &str {
        let end = self.release.iter().position(|byte| *byte == 0);
        core::str::from_utf8(&self.release[..end.unwrap_or(RELEASE_BYTES_MAX)]).unwrap_or_default()
    }

    /// Whether this is the payload that the header speaks of.
    #[must_use]
    pub fn fits(&self, payload: &[u8]) -> bool {
        payload.len() as u64 == self.payload_bytes && crc32c(payload) == self.payload_crc
    }
}
