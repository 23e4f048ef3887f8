//! Why the machine ended, kept over the end: the next start says it.
//!
//! ```text
//!  partition bootstate, from 512 KiB:  16 places, 4 KiB apart, written in turn
//!  place:  0 magic "HOWDAHRE" · 8 version u16 (1) · 10 text bytes u16 · 12 zero u32 · 16 seq u64 · 24 unix ms i64
//!         32 text, UTF-8 · 508 CRC-32C u32 over 0..508
//! ```
//! Little-endian. A record fits one sector. The boot records in front of them are never touched here, and a partition
//! that can't be written costs nothing but the reason.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use slots::{RECORD_BYTES, crc32c};

const MAGIC: [u8; 8] = *b"HOWDAHRE";
const VERSION: u16 = 1;
const AT: u64 = 512 << 10;
const PLACES: u64 = 16;
const APART: u64 = 4096;
const TEXT_AT: usize = 32;
const CRC_AT: usize = RECORD_BYTES - 4;

/// One end of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    seq: u64,
    /// When, by a clock that may have been wrong.
    pub(crate) unix_ms: i64,
    /// In words.
    pub(crate) text: String,
}

impl Reason {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        let mut end = self.text.len().min(CRC_AT - TEXT_AT);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        record[..8].copy_from_slice(&MAGIC);
        record[8..10].copy_from_slice(&VERSION.to_le_bytes());
        record[10..12].copy_from_slice(&(end as u16).to_le_bytes());
        record[16..24].copy_from_slice(&self.seq.to_le_bytes());
        record[24..32].copy_from_slice(&self.unix_ms.to_le_bytes());
        record[TEXT_AT..TEXT_AT + end].copy_from_slice(&self.text.as_bytes()[..end]);
        let crc = crc32c(&record[..CRC_AT]);
        record[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        record
    }

    fn decode(record: &[u8; RECORD_BYTES]) -> Option<Self> {
        let short = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
        let crc = u32::from_le_bytes(*record[CRC_AT..].first_chunk()?);
        if record[..8] != MAGIC || short(8) != VERSION || crc32c(&record[..CRC_AT]) != crc {
            return None;
        }
        let text = record[TEXT_AT..CRC_AT].get(..short(10).into())?;
        Some(Self {
            seq: u64::from_le_bytes(*record[16..].first_chunk()?),
            unix_ms: i64::from_le_bytes(*record[24..].first_chunk()?),
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

/// The reasons at hand, newest first.
pub(crate) fn read(partition: &Path) -> io::Result<Vec<Reason>> {
    let device = File::open(partition)?;
    let mut reasons = Vec::new();
    for place in 0..PLACES {
        let mut record = [0; RECORD_BYTES];
        device.read_exact_at(&mut record, AT + place * APART)?;
        reasons.extend(Reason::decode(&record));
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.seq));
    Ok(reasons)
}

/// Keeps a reason, over the oldest one.
pub(crate) fn keep(partition: &Path, text: &str, unix_ms: i64) -> io::Result<()> {
    let last = read(partition)?.first().map_or(0, |reason| reason.seq);
    let reason = Reason {
        seq: last.saturating_add(1),
        unix_ms,
        text: text.to_owned(),
    };
    let device = OpenOptions::new().write(true).open(partition)?;
    device.write_all_at(&reason.encode(), AT + reason.seq % PLACES * APART)?;
    device.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sixteen_are_kept_and_the_rest_of_the_partition_is_not_touched() {
        let path = std::env::temp_dir().join(format!("board-reasons-{}", std::process::id()));
        std::fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
        assert_eq!(read(&path).unwrap(), []);
        for at in 0..20 {
            keep(&path, &format!("reason {at}"), at).unwrap();
        }
        let reasons = read(&path).unwrap();
        assert_eq!(reasons.len(), 16);
        assert_eq!(
            (reasons[0].text.as_str(), reasons[0].unix_ms),
            ("reason 19", 19)
        );
        assert_eq!(reasons[15].text, "reason 4");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(bytes[..AT as usize].iter().all(|byte| *byte == 0xaa));
        assert!(
            bytes[AT as usize + 65536..]
                .iter()
                .all(|byte| *byte == 0xaa)
        );
    }

    #[test]
    fn long_texts_are_cut_at_a_character_and_changed_bytes_are_none() {
        let reason = Reason {
            seq: 3,
            unix_ms: -1,
            text: "ü".repeat(400),
        };
        let record = reason.encode();
        let read = Reason::decode(&record).unwrap();
        assert_eq!(read.text, "ü".repeat(238));
        for at in 0..RECORD_BYTES {
            let mut changed = record;
            changed[at] ^= 1;
            assert_eq!(Reason::decode(&changed), None, "byte {at}");
        }
    }
}
