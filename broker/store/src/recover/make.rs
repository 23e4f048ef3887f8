//! How a disk is made.

use std::io;

use model::{DiskUuid, Incarnation, Uuid};

use super::{OpenError, say};
use crate::FormatConfig;
use crate::disk::Disk;
use crate::format::PAGE;
use crate::format::checkpoint::{BodyWriter, CheckpointHeader};
use crate::format::superblock::{DiskState, Superblock};
use crate::io::{Copy, Io, Mode, Name};
use crate::phase::{self, Phase};

/// Shortest ring: what a witness needs.
pub const JOURNAL_BYTES_MIN: u64 = 256 << 10;
/// Longest ring.
pub const JOURNAL_BYTES_MAX: u64 = 4 << 30;
/// Blocks of a checkpoint file that are written when the disk is made; it grows with the disk's extents.
const CHECKPOINT_BYTES: usize = 256 << 10;
/// The ring is zeroed in pieces of this.
const ZERO_BYTES: usize = 1 << 20;

impl<I: Io> Disk<I> {
    /// Makes a blank disk: zeroes the ring, writes checkpoints and superblocks, the latter last, so that a disk that was
    /// cut meanwhile is still none. Whatever was there is lost.
    pub fn format(io: &I, config: &FormatConfig) -> Result<Superblock, OpenError> {
        let _phase = phase::enter(Phase::Format);
        let journal_bytes = config.journal_bytes;
        if !journal_bytes.is_multiple_of(PAGE as u64)
            || !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&journal_bytes)
        {
            return Err(OpenError::Config(format!(
                "a journal of {journal_bytes} B: it must be whole pages of 4 KiB, {} KiB to 4 GiB",
                JOURNAL_BYTES_MIN >> 10
            )));
        }
        let uuid = || -> Result<Uuid, OpenError> {
            let mut bytes = say("random bytes", io.random())?;
            // RFC 9562, version 4.
            bytes[6] = bytes[6] & 0x0f | 0x40;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            Ok(Uuid(bytes))
        };
        let superblock = Superblock {
            meta: config.meta,
            journal_apart: config.journal_apart,
            site: config.site,
            incarnation: match config.incarnation {
                Some(it) => it,
                None => Incarnation(uuid()?),
            },
            disk: DiskUuid(uuid()?),
            node: config.node,
            journal_bytes,
            journal: uuid()?,
            sb_seq: 1,
            clean_seq: 0,
            state: match config.replacement {
                true => DiskState::Replacement,
                false => DiskState::Fresh,
            },
        };
        say("formatting", make(io, &superblock))?;
        Ok(superblock)
    }
}

fn make<I: Io>(io: &I, superblock: &Superblock) -> io::Result<()> {
    // Whatever disk this was, it is none from here on.
    for copy in Copy::BOTH {
        let file = io.open(Name::Super(copy), Mode::Create)?;
        io.pwrite(&file, &[0; PAGE], 0)?;
        io.fsync(&file)?;
    }
    let journal = io.open(Name::Journal, Mode::Create)?;
    let zeros = vec![0; ZERO_BYTES];
    let mut at = 0;
    while at < superblock.journal_bytes {
        let len = (superblock.journal_bytes - at).min(ZERO_BYTES as u64);
        io.pwrite(&journal, &zeros[..len as usize], at)?;
        at += len;
    }
    io.fsync(&journal)?;
    let mut body = BodyWriter::default();
    for _ in ["next_part", "open extents", "partitions"] {
        body.word(0);
    }
    body.site(&crate::format::checkpoint::SiteLog::default());
    for copy in Copy::BOTH {
        let mut bytes = vec![0; CHECKPOINT_BYTES];
        if copy == Copy::A {
            let header = CheckpointHeader {
                disk: superblock.disk,
                ckpt_seq: 1,
                boundary: 0,
                ring_pos: 0,
                rows: 0,
                body_bytes: body.out.len() as u64,
                rows_crc: 0,
                body_crc: crc32c::crc32c(&body.out),
            };
            bytes[..PAGE].copy_from_slice(&header.encode());
            bytes[PAGE..PAGE + body.out.len()].copy_from_slice(&body.out);
        }
        let file = io.open(Name::Checkpoint(copy), Mode::Create)?;
        io.pwrite(&file, &bytes, 0)?;
        io.fsync(&file)?;
    }
    io.sync_directory(Name::Journal)?;
    io.sync_directory(Name::Super(Copy::A))?;
    for copy in Copy::BOTH {
        let file = io.open(Name::Super(copy), Mode::Write)?;
        io.pwrite(&file, &superblock.encode(), 0)?;
        io.fsync(&file)?;
    }
    Ok(())
}
