//! Reading and writing extents outside of the group's hot path: walks over batches, tails.
//!
//! Nothing here knows partitions or the ring.

use std::io;

use model::batch::{HEADER_BYTES, Header};
use model::{Offset, WallMs};

use crate::format::extent::{DATA_AT, Footer, IndexEntry, Tail};
use crate::format::row::Row;
use crate::io::Io;
use crate::parts::{OpenExtent, feed_index};

/// Bytes read at a time by a walk.
const CHUNK: usize = 256 * 1024;

/// What lies in an extent up to some batch.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// The row with `used`, `last`, `max_ts` and epochs as found.
    pub(crate) row: Row,
    pub(crate) index: Vec<IndexEntry>,
    /// CRC-32C over `[4096, row.used)`.
    pub(crate) crc: u32,
}

/// Walks the batches of an extent from its begin, up to file position `limit` or the batch that holds `stop`. Batches
/// that don't connect, or whose length can't be, are an error: what is asked for here was written.
pub(crate) fn scan_extent<I: Io>(
    io: &I,
    file: &I::File,
    row: &Row,
    limit: u32,
    stop: Offset,
) -> io::Result<Scan> {
    let mut scan = Scan {
        row: Row {
            used: DATA_AT,
            last: Offset(row.base.0 - 1),
            max_ts: WallMs(-1),
            first_epoch: row.first_epoch,
            last_epoch: row.first_epoch,
            ..*row
        },
        index: Vec::new(),
        crc: 0,
    };
    let mut head = [0; HEADER_BYTES];
    while scan.row.used < limit {
        let at = scan.row.used;
        read_exact(io, file, &mut head, at.into())?;
        let header = Header::read(&head).map_err(|fault| rotten(at, &fault.to_string()))?;
        if header.base_offset <= scan.row.last || header.last_offset_delta < 0 {
            return Err(rotten(at, "its offset does not follow"));
        }
        if u64::from(at) + header.bytes as u64 > limit.into() {
            return Err(rotten(at, "it is longer than what was written"));
        }
        if header.last_offset() >= stop {
            break;
        }
        scan.crc = crc_range(io, file, scan.crc, at, at + header.bytes as u32)?;
        let rel = header.base_offset.since(row.base) as u32;
        feed_index(&mut scan.index, rel, at, scan.row.max_ts);
        take(&mut scan.row, &header);
    }
    Ok(scan)
}

fn take(row: &mut Row, header: &Header) {
    if row.used == DATA_AT {
        row.first_epoch = header.leader_epoch;
    }
    crate::apply::add_to_row(row, header, None);
}

/// Reads the batch at `at` whole into `bytes` and checks it: `None` if there is none, or it is damaged.
pub(crate) fn read_batch<I: Io>(
    io: &I,
    file: &I::File,
    at: u32,
    limit: u32,
    bytes: &mut Vec<u8>,
) -> io::Result<Option<Header>> {
    let mut head = [0; HEADER_BYTES];
    if u64::from(at) + HEADER_BYTES as u64 > limit.into()
        || io.pread(file, &mut head, at.into())? < HEADER_BYTES
    {
        return Ok(None);
    }
    let Ok(header) = Header::read(&head) else {
        return Ok(None);
    };
    if u64::from(at) + header.bytes as u64 > limit.into() {
        return Ok(None);
    }
    bytes.resize(header.bytes, 0);
    if io.pread(file, bytes, at.into())? < header.bytes {
        return Ok(None);
    }
    Ok(Header::check_stored(bytes).ok())
}

/// Continues a checksum over `[from, to)` of an extent.
pub(crate) fn crc_range<I: Io>(
    io: &I,
    file: &I::File,
    mut crc: u32,
    mut from: u32,
    to: u32,
) -> io::Result<u32> {
    let mut chunk = vec![0; CHUNK.min((to - from) as usize)];
    while from < to {
        let len = chunk.len().min((to - from) as usize);
        read_exact(io, file, &mut chunk[..len], from.into())?;
        crc = crc32c::crc32c_append(crc, &chunk[..len]);
        from += len as u32;
    }
    Ok(crc)
}

/// Writes the tail of a sealed extent into the page cache; says where it lies.
pub(crate) fn write_tail<I: Io>(
    io: &I,
    row: &Row,
    open: &mut OpenExtent<I::File>,
) -> io::Result<(u64, u64)> {
    if open.crc_at != row.used {
        // The sum was lost with a truncation, or was never known: once more over what is there.
        open.crc = crc_range(io, &open.file, 0, DATA_AT, row.used)?;
        open.crc_at = row.used;
    }
    let footer = Footer {
        flags: row.flags,
        used: row.used,
        index_count: 0,
        aborted_count: 0,
        tail_bytes: 0,
        last: row.last,
        max_ts: row.max_ts,
        appended_at: row.appended_at,
        txn_lag: row.txn_lag,
        data_crc: open.crc,
    };
    let tail = Tail::encode(row.class, footer, &open.index);
    let at = row.class.bytes() - tail.len() as u64;
    io.pwrite(&open.file, &tail, at)?;
    Ok((at, tail.len() as u64))
}

/// Reads all of `bytes`; a file that ends before is an error.
pub(crate) fn read_exact<I: Io>(
    io: &I,
    file: &I::File,
    bytes: &mut [u8],
    at: u64,
) -> io::Result<()> {
    let need = bytes.len();
    match io.pread(file, bytes, at)? {
        read if read == need => Ok(()),
        read => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{read} bytes of {need} at {at}"),
        )),
    }
}

fn rotten(at: u32, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("batch at {at} of an extent: {why}"),
    )
}
