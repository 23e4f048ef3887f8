//! From batch to batch along their headers.

use std::io;

use model::Offset;
use model::batch::{HEADER_BYTES, Header};

use super::{Reach, ReadError};
use crate::{Io, SlotLife};

/// Bytes read at a time: some 60 of the smallest batches.
const WALK_BYTES: usize = 4096;

/// A walk in one extent, below the position behind its last batch.
pub(super) struct Walk<'a, I: Io> {
    io: &'a I,
    file: &'a I::File,
    life: SlotLife,
    used: u32,
    reach: Reach,
    bytes: [u8; WALK_BYTES],
    /// What `bytes` holds.
    at: u32,
    len: usize,
    last: Option<Offset>,
}

/// What a step of a walk met.
pub(super) enum Step<T> {
    Done(T),
    Cold,
}

impl<'a, I: Io> Walk<'a, I> {
    pub(super) fn new(
        io: &'a I,
        file: &'a I::File,
        (life, used): (SlotLife, u32),
        reach: Reach,
    ) -> Self {
        Self {
            io,
            file,
            life,
            used,
            reach,
            bytes: [0; WALK_BYTES],
            at: 0,
            len: 0,
            last: None,
        }
    }

    /// The header of the batch at `pos`, which lies below the last batch's end. Steps go forward.
    pub(super) fn header(&mut self, pos: u32) -> Result<Step<Header>, ReadError> {
        let held = |it: &Self| pos >= it.at && (pos - it.at) as usize + HEADER_BYTES <= it.len;
        if !held(self) {
            let len = WALK_BYTES.min((self.used - pos) as usize);
            let bytes = &mut self.bytes[..len];
            let read = read(self.io, self.file, bytes, pos, self.reach);
            let life = self.life;
            let read = read.map_err(|source| ReadError::Io { life, source })?;
            (self.at, self.len) = (pos, read);
            if !held(self) {
                if self.reach == Reach::Memory && len >= HEADER_BYTES {
                    return Ok(Step::Cold);
                }
                return Err(self.rotten(pos, "it is cut".into()));
            }
        }
        let from = (pos - self.at) as usize;
        let header = Header::read(&self.bytes[from..self.len])
            .map_err(|fault| self.rotten(pos, fault.to_string()))?;
        if header.bytes as u64 > u64::from(self.used - pos) {
            return Err(self.rotten(pos, "it is longer than what was written".into()));
        }
        let follows = self.last.is_none_or(|last| header.base_offset > last);
        if !follows || header.last_offset_delta < 0 {
            return Err(self.rotten(pos, "its offset does not follow".into()));
        }
        self.last = Some(header.last_offset());
        Ok(Step::Done(header))
    }

    /// The batch at `pos`, whole.
    pub(super) fn batch(&self, pos: u32, header: &Header) -> Result<Step<Vec<u8>>, ReadError> {
        let mut bytes = vec![0; header.bytes];
        let read = read(self.io, self.file, &mut bytes, pos, self.reach);
        let life = self.life;
        match read.map_err(|source| ReadError::Io { life, source })? {
            read if read == bytes.len() => Ok(Step::Done(bytes)),
            _ if self.reach == Reach::Memory => Ok(Step::Cold),
            _ => Err(ReadError::Io {
                life,
                source: io::ErrorKind::UnexpectedEof.into(),
            }),
        }
    }

    fn rotten(&self, pos: u32, why: String) -> ReadError {
        ReadError::Rotten {
            life: self.life,
            pos,
            why,
        }
    }
}

/// Bytes read; none where memory does not hold the first, or the file system can't tell.
fn read<I: Io>(
    io: &I,
    file: &I::File,
    bytes: &mut [u8],
    pos: u32,
    reach: Reach,
) -> io::Result<usize> {
    match reach {
        Reach::Disk => io.pread(file, bytes, pos.into()),
        Reach::Memory => match io.pread_nowait(file, bytes, pos.into()) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(0),
            read => Ok(read?.unwrap_or(0)),
        },
    }
}
