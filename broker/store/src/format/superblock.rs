//! The superblock: what a disk is, and whether it was left in order. 4096 B, two copies, the highest valid `sb_seq` wins.
//!
//! ```text
//!    0 magic u64 · 8 version u32 · 12 flags u32 (1 meta disk, 2 journal on a device of its own)
//!   16 site_uuid (zero before the bootstrap) · 32 node incarnation · 48 disk_uuid · 64 node_id u32 · 68 zero u32
//!   72 journal_bytes u64 · 80 journal_uuid · 96 sb_seq u64 · 104 clean_seq u64 (0: not left in order)
//!  112 state u32 (0 FRESH, 1 MEMBER, 2 REPLACEMENT, 3 FAILED, 4 SUSPECT) · 116 zero · 4092 crc u32 over [0, 4092)
//! ```

use model::{DiskUuid, Incarnation, NodeId, SiteUuid, Uuid};

use super::{Fault, Le, PAGE, check_crc, check_version, put};

/// `HOWDAHSB`
const MAGIC: u64 = u64::from_le_bytes(*b"HOWDAHSB");
const WHAT: &str = "superblock";
const CRC_AT: usize = PAGE - 4;

/// What stands with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// Formatted, of no site yet.
    Fresh,
    /// Holds replicas that count.
    Member,
    /// A blank disk in the place of another: its replicas count once they caught up.
    Replacement,
    /// A write or sync error was met; what it holds must be replayed before use.
    Failed,
    /// Its ring is rotten: it must neither vote nor count.
    Suspect,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The site log, its votes and its snapshot lie here.
    pub meta: bool,
    /// The ring is a device of its own.
    pub journal_apart: bool,
    /// Zero before the bootstrap.
    pub site: SiteUuid,
    /// The node whose disk it is.
    pub incarnation: Incarnation,
    /// This disk.
    pub disk: DiskUuid,
    /// The node's number.
    pub node: NodeId,
    /// Length of the ring.
    pub journal_bytes: u64,
    /// Seeds every group's checksum.
    pub journal: Uuid,
    /// Rises with each write of a superblock.
    pub sb_seq: u64,
    /// Sequence of the CLEAN record that ended the last run; 0 while one is under way.
    pub clean_seq: u64,
    /// See [`DiskState`].
    pub state: DiskState,
}

impl Superblock {
    /// The 4096 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PAGE] {
        let mut out = [0; PAGE];
        let flags = u32::from(self.meta) | u32::from(self.journal_apart) << 1;
        put(&mut out, 0, &MAGIC.to_le_bytes());
        put(&mut out, 8, &super::VERSION.to_le_bytes());
        put(&mut out, 12, &flags.to_le_bytes());
        put(&mut out, 16, &self.site.0.0);
        put(&mut out, 32, &self.incarnation.0.0);
        put(&mut out, 48, &self.disk.0.0);
        put(&mut out, 64, &self.node.0.to_le_bytes());
        put(&mut out, 72, &self.journal_bytes.to_le_bytes());
        put(&mut out, 80, &self.journal.0);
        put(&mut out, 96, &self.sb_seq.to_le_bytes());
        put(&mut out, 104, &self.clean_seq.to_le_bytes());
        put(&mut out, 112, &(self.state as u32).to_le_bytes());
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        put(&mut out, CRC_AT, &crc.to_le_bytes());
        out
    }

    /// Reads one copy.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..PAGE).ok_or(Fault::Short {
            what: WHAT,
            have: bytes.len(),
            need: PAGE,
        })?;
        if bytes.u64_at(0) != MAGIC {
            return Err(Fault::Magic {
                what: WHAT,
                found: bytes.u64_at(0),
            });
        }
        check_crc(WHAT, bytes.u32_at(CRC_AT), crc32c::crc32c(&bytes[..CRC_AT]))?;
        check_version(WHAT, bytes.u32_at(8))?;
        let flags = bytes.u32_at(12);
        if flags > 3 {
            return Err(Fault::Field {
                what: WHAT,
                field: "flags",
                value: flags.into(),
            });
        }
        let state = match bytes.u32_at(112) {
            0 => DiskState::Fresh,
            1 => DiskState::Member,
            2 => DiskState::Replacement,
            3 => DiskState::Failed,
            4 => DiskState::Suspect,
            other => {
                return Err(Fault::Field {
                    what: WHAT,
                    field: "state",
                    value: other.into(),
                });
            }
        };
        Ok(Self {
            meta: flags & 1 != 0,
            journal_apart: flags & 2 != 0,
            site: SiteUuid(bytes.uuid_at(16)),
            incarnation: Incarnation(bytes.uuid_at(32)),
            disk: DiskUuid(bytes.uuid_at(48)),
            node: NodeId(bytes.u32_at(64)),
            journal_bytes: bytes.u64_at(72),
            journal: bytes.uuid_at(80),
            sb_seq: bytes.u64_at(96),
            clean_seq: bytes.u64_at(104),
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            meta: true,
            journal_apart: false,
            site: SiteUuid(Uuid([1; 16])),
            incarnation: Incarnation(Uuid([2; 16])),
            disk: DiskUuid(Uuid([3; 16])),
            node: NodeId(4),
            journal_bytes: 64 << 20,
            journal: Uuid([5; 16]),
            sb_seq: 6,
            clean_seq: 7,
            state: DiskState::Member,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Superblock::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn a_newer_version_says_what_to_do() {
        let mut bytes = sample().encode();
        put(&mut bytes, 8, &2_u32.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        let fault = Superblock::decode(&bytes).expect_err("newer");
        assert!(
            fault.to_string().contains("start the newer release again"),
            "{fault}"
        );
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = sample().encode();
        for bit in 0..PAGE * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
