//! The checkpoint: the metadata of a disk *at one group boundary S*, written in turn to `ckpt.a` and `ckpt.b`.
//!
//! ```text
//! [0, 4096)  header: 0 magic u64 · 8 version u32 · 12 zero u32 · 16 disk_uuid · 32 ckpt_seq u64 · 40 S u64
//!            48 ring position behind S u64 · 56 rows u32 · 60 zero u32 · 64 body bytes u64 · 72 rows crc u32
//!            76 body crc u32 · 80 zero · 4092 crc u32 over [0, 4092)
//! [4096, …)  rows: 64 B for each slot (row.rs), padded with zeros to 4 KiB
//! then       body: next_part u32 (no partition ever had this number or a higher one), then a u32 count of open extents,
//!            the open extents, a count of partitions, the partitions, the site log:
//!   open extent   slot u32 · gen u32 · opened_at i64 (trusted, 0: not) · crc_at u32 (file position; 0: unknown) · crc u32 over
//!                 [4096, crc_at) · index u32 · aborted u32 · tail u32 · zero u32 · index entries of 16 B · aborted
//!                 transactions of 32 B · tail: the bytes of its last, partial page, so that a replay reads none
//!   partition     len u32 · bytes: postcard `PartitionRow`, then sections {tag u16 · must u8 · zero u8 · len u32 · bytes}
//!                 1 producer windows · 2–15 reserved; an unknown one with must = 1 refuses, else it is skipped
//!   site log      len u32 · bytes: postcard `SiteLog`
//! ```
//! A reader believes nothing before the three checksums held. The writer puts rows and body first and the header last,
//! so that a cut in between leaves a file whose old header does not fit: the other copy counts.

use model::{DiskUuid, LeaderEpoch, NodeId, Offset, Term, TopicPartition, WallMs};
use serde::{Deserialize, Serialize};

use super::extent::{ABORTED_BYTES, INDEX_ENTRY_BYTES, IndexEntry, SlotLife};
use super::{Fault, Le, PAGE, check_crc, check_version, put};

/// `HOWDAHCK`
const MAGIC: u64 = u64::from_le_bytes(*b"HOWDAHCK");
const WHAT: &str = "checkpoint";
/// Section of a partition: its producer windows, `model::window`'s bytes.
pub const SECTION_WINDOWS: u16 = 1;

/// The first 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// The disk it describes.
    pub disk: DiskUuid,
    /// Rises with each checkpoint: the higher valid copy counts.
    pub ckpt_seq: u64,
    /// All groups up to this one are in it.
    pub boundary: u64,
    /// Where in the ring the next group begins, unless it wrapped.
    pub ring_pos: u64,
    /// Slots.
    pub rows: u32,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// CRC-32C over the rows with their padding.
    pub rows_crc: u32,
    /// CRC-32C over the body.
    pub body_crc: u32,
}

impl CheckpointHeader {
    /// Bytes of the rows with their padding.
    #[must_use]
    pub const fn rows_bytes(&self) -> u64 {
        super::page_up(self.rows as u64 * super::row::ROW_BYTES as u64)
    }

    /// The 4096 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PAGE] {
        let mut out = [0; PAGE];
        put(&mut out, 0, &MAGIC.to_le_bytes());
        put(&mut out, 8, &super::VERSION.to_le_bytes());
        put(&mut out, 16, &self.disk.0.0);
        put(&mut out, 32, &self.ckpt_seq.to_le_bytes());
        put(&mut out, 40, &self.boundary.to_le_bytes());
        put(&mut out, 48, &self.ring_pos.to_le_bytes());
        put(&mut out, 56, &self.rows.to_le_bytes());
        put(&mut out, 64, &self.body_bytes.to_le_bytes());
        put(&mut out, 72, &self.rows_crc.to_le_bytes());
        put(&mut out, 76, &self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..PAGE - 4]);
        put(&mut out, PAGE - 4, &crc.to_le_bytes());
        out
    }

    /// Reads the header of a file of `file_bytes`, in which rows and body lie.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, Fault> {
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
        check_crc(
            WHAT,
            bytes.u32_at(PAGE - 4),
            crc32c::crc32c(&bytes[..PAGE - 4]),
        )?;
        check_version(WHAT, bytes.u32_at(8))?;
        let header = Self {
            disk: DiskUuid(bytes.uuid_at(16)),
            ckpt_seq: bytes.u64_at(32),
            boundary: bytes.u64_at(40),
            ring_pos: bytes.u64_at(48),
            rows: bytes.u32_at(56),
            body_bytes: bytes.u64_at(64),
            rows_crc: bytes.u32_at(72),
            body_crc: bytes.u32_at(76),
        };
        let need = (PAGE as u64 + header.rows_bytes()).checked_add(header.body_bytes);
        if need.is_none_or(|need| need > file_bytes) {
            return Err(Fault::Field {
                what: WHAT,
                field: "body bytes",
                value: header.body_bytes,
            });
        }
        Ok(header)
    }
}

/// An open extent as of S.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenExtent {
    /// Which.
    pub life: SlotLife,
    /// Trusted time at which it was opened; 0: not trusted.
    pub opened_at: WallMs,
    /// File position up to which `crc` goes; 0: it must be computed by reading.
    pub crc_at: u32,
    /// CRC-32C over `[4096, crc_at)`.
    pub crc: u32,
    /// Its index so far.
    pub index: Vec<IndexEntry>,
    /// The bytes of its last, partial page.
    pub tail: Vec<u8>,
}

/// A partition as of S.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRow {
    /// Its number on this disk.
    pub part: u32,
    /// Which partition it is.
    pub id: TopicPartition,
    /// First offset readers may ask for.
    pub log_start: Offset,
    /// Offset behind its last batch.
    pub end: Offset,
    /// A lower bound.
    pub high_watermark: Offset,
    /// Highest epoch whose EPOCH record is durable.
    pub accepted_epoch: LeaderEpoch,
    /// Where each epoch began.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Offsets that were lost and not yet accepted as lost: first, and behind the last that is known of.
    pub hole: Option<(Offset, Offset)>,
    /// Class of its next extent.
    pub class: u8,
}

/// The site log as of S; empty but on a meta disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteLog {
    /// Highest term seen.
    pub term: Term,
    /// Vote in it.
    pub vote: Option<NodeId>,
    /// Last entry that the snapshot holds, its term, and the snapshot.
    pub snapshot: Option<SiteSnapshot>,
    /// Entries behind the snapshot.
    pub entries: Vec<SiteEntry>,
}

/// A snapshot of the site log's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSnapshot {
    /// Last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: Term,
    /// What the catalog wrote.
    pub bytes: Vec<u8>,
}

/// An entry of the site log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteEntry {
    /// Where, from 1.
    pub index: u64,
    /// Term of the controller that wrote it.
    pub term: Term,
    /// What.
    pub bytes: Vec<u8>,
}

/// A partition with its sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// See [`PartitionRow`].
    pub row: PartitionRow,
    /// Section 1, `model::window::Windows::encode`'s bytes; empty if it is missing.
    pub windows: Vec<u8>,
}

/// What lies behind the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// No partition ever had this number, nor a higher one.
    pub next_part: u32,
    /// In any order.
    pub open: Vec<OpenExtent>,
    /// In any order.
    pub partitions: Vec<Partition>,
    /// See [`SiteLog`].
    pub site: SiteLog,
}

/// Writes a body piece by piece, so that it never lies in memory twice.
#[derive(Debug, Default)]
pub struct BodyWriter {
    /// The bytes so far.
    pub out: Vec<u8>,
}

impl BodyWriter {
    /// A number: `next_part`, then the count of each list before it.
    pub fn word(&mut self, word: u32) {
        self.out.extend_from_slice(&word.to_le_bytes());
    }

    /// One open extent.
    pub fn open(
        &mut self,
        life: SlotLife,
        opened_at: WallMs,
        (crc_at, crc): (u32, u32),
        index: &[IndexEntry],
        tail: &[u8],
    ) {
        for word in [life.slot, life.generation] {
            self.word(word);
        }
        self.out.extend_from_slice(&opened_at.0.to_le_bytes());
        for word in [crc_at, crc, index.len() as u32, 0, tail.len() as u32, 0] {
            self.word(word);
        }
        for entry in index {
            entry.encode(&mut self.out);
        }
        self.out.extend_from_slice(tail);
    }

    /// One partition; `windows` appends its section.
    pub fn partition(&mut self, row: &PartitionRow, windows: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.postcard(row);
        self.out.extend_from_slice(&SECTION_WINDOWS.to_le_bytes());
        self.out.extend_from_slice(&[1, 0]);
        let section = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        windows(&mut self.out);
        let len = (self.out.len() - section - 4) as u32;
        put(&mut self.out, section, &len.to_le_bytes());
        let len = (self.out.len() - start - 4) as u32;
        put(&mut self.out, start, &len.to_le_bytes());
    }

    /// The site log, last.
    pub fn site(&mut self, site: &SiteLog) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.postcard(site);
        let len = (self.out.len() - start - 4) as u32;
        put(&mut self.out, start, &len.to_le_bytes());
    }

    fn postcard(&mut self, value: &impl Serialize) {
        let out = std::mem::take(&mut self.out);
        self.out =
            postcard::to_extend(value, out).expect("a Vec takes all, and no type here can fail");
    }
}

impl Body {
    /// Reads a body whose checksum held.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader(bytes);
        let mut body = Self {
            next_part: reader.u32()?,
            ..Self::default()
        };
        for _ in 0..reader.u32()? {
            let head = reader.take(40)?;
            let (index, aborted) = (head.u32_at(24) as usize, head.u32_at(28) as usize);
            let entries = reader.take(index.saturating_mul(INDEX_ENTRY_BYTES))?;
            // Transactions are not built: whatever list a later release left is its own.
            reader.take(aborted.saturating_mul(ABORTED_BYTES))?;
            let tail = reader.take(head.u32_at(32) as usize)?;
            if tail.len() >= PAGE {
                return Err(Fault::Field {
                    what: WHAT,
                    field: "tail",
                    value: tail.len() as u64,
                });
            }
            body.open.push(OpenExtent {
                life: SlotLife {
                    slot: head.u32_at(0),
                    generation: head.u32_at(4),
                },
                opened_at: WallMs(head.i64_at(8)),
                crc_at: head.u32_at(16),
                crc: head.u32_at(20),
                index: entries
                    .chunks_exact(INDEX_ENTRY_BYTES)
                    .map(IndexEntry::decode)
                    .collect(),
                tail: tail.to_vec(),
            });
        }
        for _ in 0..reader.u32()? {
            let len = reader.u32()? as usize;
            body.partitions.push(read_partition(reader.take(len)?)?);
        }
        let len = reader.u32()? as usize;
        body.site = read_postcard("site log", reader.take(len)?)?.0;
        if reader.0.is_empty() {
            Ok(body)
        } else {
            Err(Fault::Field {
                what: WHAT,
                field: "bytes behind the body",
                value: reader.0.len() as u64,
            })
        }
    }
}

fn read_partition(bytes: &[u8]) -> Result<Partition, Fault> {
    let (row, rest): (PartitionRow, _) = read_postcard("partition", bytes)?;
    let mut partition = Partition {
        row,
        windows: Vec::new(),
    };
    let mut reader = Reader(rest);
    while !reader.0.is_empty() {
        let head = reader.take(8)?;
        let (tag, must, len) = (head.u16_at(0), head[2], head.u32_at(4) as usize);
        let section = reader.take(len)?;
        match tag {
            SECTION_WINDOWS => partition.windows = section.to_vec(),
            _ if must == 0 => {}
            other => {
                return Err(Fault::Unknown(format!(
                    "checkpoint: partition {} of topic {} has section {other}, which this release does not know and \
                     must not lose: start the newer release again",
                    partition.row.id.partition.0, partition.row.id.topic
                )));
            }
        }
    }
    Ok(partition)
}

fn read_postcard<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), Fault> {
    postcard::take_from_bytes(bytes)
        .map_err(|error| Fault::Unknown(format!("checkpoint: {what}: {error}")))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(Fault::Short {
            what: WHAT,
            have: self.0.len(),
            need: len,
        })?;
        self.0 = rest;
        Ok(front)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(self.take(4)?.u32_at(0))
    }
}
