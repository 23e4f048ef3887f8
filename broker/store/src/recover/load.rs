//! The newest superblock and the newest checkpoint of a disk.

use std::io;

use model::DiskUuid;

use super::{OpenError, say};
use crate::extent_io::read_exact;
use crate::format::checkpoint::{Body, CheckpointHeader};
use crate::format::row::{ROW_BYTES, Row};
use crate::format::superblock::{DiskState, Superblock};
use crate::format::{Fault, PAGE};
use crate::io::{Copy, Io, Mode, Name};
use crate::parts::Site;

/// The newest valid superblock, and which copy it is.
pub fn read_superblock<I: Io>(io: &I) -> Result<(Superblock, Copy), OpenError> {
    let read = |copy| -> Result<Superblock, Result<Fault, io::Error>> {
        let file = io.open(Name::Super(copy), Mode::Read).map_err(Err)?;
        let mut bytes = [0; PAGE];
        let len = io.pread(&file, &mut bytes, 0).map_err(Err)?;
        Superblock::decode(&bytes[..len]).map_err(Ok)
    };
    match (read(Copy::A), read(Copy::B)) {
        (Err(Ok(newer @ Fault::Newer { .. })), _) | (_, Err(Ok(newer @ Fault::Newer { .. }))) => {
            Err(OpenError::Newer(newer))
        }
        (Ok(a), Ok(b)) if b.sb_seq > a.sb_seq => Ok((b, Copy::B)),
        (Ok(a), _) => Ok((a, Copy::A)),
        (Err(_), Ok(b)) => Ok((b, Copy::B)),
        (Err(a), Err(b)) => {
            let text = |fault: Result<Fault, io::Error>| match fault {
                Ok(fault) => fault.to_string(),
                Err(error) => error.to_string(),
            };
            Err(OpenError::NoSuperblock {
                a: text(a),
                b: text(b),
            })
        }
    }
}

pub(super) fn mark_suspect<I: Io>(
    io: &I,
    mut superblock: Superblock,
    at: Copy,
) -> Result<(), OpenError> {
    superblock.state = DiskState::Suspect;
    superblock.sb_seq += 1;
    let file = say(
        "the superblock",
        io.open(Name::Super(at.other()), Mode::Write),
    )?;
    let written = io.pwrite(&file, &superblock.encode(), 0);
    say(
        "the superblock's write",
        written.and_then(|()| io.fsync(&file)),
    )
}

/// A checkpoint as read.
pub(crate) struct Loaded<F> {
    pub(crate) header: CheckpointHeader,
    pub(crate) rows: Vec<Row>,
    pub(crate) body: Body,
    pub(crate) newest: (Copy, F),
    pub(crate) older: (Copy, F),
}

/// What one copy holds.
type Copied = (CheckpointHeader, Vec<Row>, Body);

/// The newest valid checkpoint.
pub(crate) fn load_checkpoint<I: Io>(
    io: &I,
    superblock: &Superblock,
    mode: Mode,
) -> Result<Loaded<I::File>, OpenError> {
    let open = |copy| say("a checkpoint", io.open(Name::Checkpoint(copy), mode));
    let (a, b) = (open(Copy::A)?, open(Copy::B)?);
    let read = |file: &I::File| -> Result<Copied, Result<Fault, io::Error>> {
        read_checkpoint(io, file, superblock.disk)
    };
    let (read_a, read_b) = (read(&a), read(&b));
    for fault in [&read_a, &read_b] {
        if let Err(Ok(newer @ (Fault::Newer { .. } | Fault::Unknown(_)))) = fault {
            return Err(OpenError::Newer(newer.clone()));
        }
    }
    let a_is_newer = match (&read_a, &read_b) {
        (Ok(a), Ok(b)) => a.0.ckpt_seq > b.0.ckpt_seq,
        (Ok(_), Err(_)) => true,
        (Err(_), Ok(_)) => false,
        (Err(a), Err(b)) => {
            let text = |fault: &Result<Fault, io::Error>| match fault {
                Ok(fault) => fault.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(OpenError::NoCheckpoint {
                a: text(a),
                b: text(b),
            });
        }
    };
    let (a, b) = ((Copy::A, a), (Copy::B, b));
    let (read, newest, older) = if a_is_newer {
        (read_a, a, b)
    } else {
        (read_b, b, a)
    };
    let Ok((header, rows, body)) = read else {
        unreachable!("the newer one was read")
    };
    Ok(Loaded {
        header,
        rows,
        body,
        newest,
        older,
    })
}

/// Reads and checks one copy.
pub(crate) fn read_checkpoint<I: Io>(
    io: &I,
    file: &I::File,
    disk: DiskUuid,
) -> Result<Copied, Result<Fault, io::Error>> {
    let mut page = [0; PAGE];
    let len = io.pread(file, &mut page, 0).map_err(Err)?;
    let bytes = io.bytes(file).map_err(Err)?;
    let header = CheckpointHeader::decode(&page[..len], bytes).map_err(Ok)?;
    if header.disk != disk {
        return Err(Ok(Fault::Field {
            what: "checkpoint",
            field: "disk_uuid",
            value: 0,
        }));
    }
    // Both lengths were checked against the file's.
    let mut rows = vec![0; header.rows_bytes() as usize];
    read_exact(io, file, &mut rows, PAGE as u64).map_err(Err)?;
    let body_at = PAGE as u64 + header.rows_bytes();
    let mut body = vec![0; header.body_bytes as usize];
    read_exact(io, file, &mut body, body_at).map_err(Err)?;
    let check = |what, claimed, bytes: &[u8]| {
        crate::format::check_crc(what, claimed, crc32c::crc32c(bytes)).map_err(Ok)
    };
    check("checkpoint rows", header.rows_crc, &rows)?;
    check("checkpoint body", header.body_crc, &body)?;
    let rows = rows
        .chunks_exact(ROW_BYTES)
        .take(header.rows as usize)
        .map(Row::decode)
        .collect::<Result<Vec<_>, _>>()
        .map_err(Ok)?;
    let body = Body::decode(&body).map_err(Ok)?;
    Ok((header, rows, body))
}

/// The site log as a checkpoint holds it.
pub(super) fn site_of(body: &Body) -> Site {
    Site {
        log: body.site.clone(),
        fresh_snapshot: None,
    }
}
