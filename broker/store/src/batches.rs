//! The batches of an extent one after the other, read in large pieces.
//!
//! A reader owns its buffer, so that it can rest between two pieces: the compactor's turns are bounded that way. Nothing
//! in the bytes is believed: a length is held against the limit before anything is read for it.

use std::io;

use model::batch::{BatchFault, HEADER_BYTES, Header};
use thiserror::Error;

use crate::io::Io;

/// Why the next batch can't be had.
#[derive(Debug, Error)]
pub(crate) enum BatchError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are no whole batch.
    #[error("{0}")]
    Fault(#[from] BatchFault),
    /// It says to be longer than what is left.
    #[error("a batch of {bytes} B, {left} B are left")]
    Beyond { bytes: usize, left: u32 },
}

/// Where a batch lies, its header, and all its bytes.
pub(crate) type Batch<'b> = (u32, Header, &'b [u8]);

/// See the module.
#[derive(Debug)]
pub(crate) struct BatchReader {
    /// File position of the next batch.
    pub(crate) at: u32,
    /// Behind the last one.
    pub(crate) to: u32,
    piece: usize,
    buffer: Vec<u8>,
    /// File position of the buffer's first byte.
    from: u32,
    /// Bytes read since the reader was made.
    pub(crate) read: u64,
}

impl BatchReader {
    /// Over `[at, to)`, reading `piece` bytes at a time, or one batch if it is longer.
    pub(crate) fn new(at: u32, to: u32, piece: usize) -> Self {
        Self {
            at,
            to,
            piece,
            buffer: Vec::new(),
            from: at,
            read: 0,
        }
    }

    /// The next batch, its checksum held: position, header, and all its bytes. `None` behind the last one.
    pub(crate) fn next<I: Io>(
        &mut self,
        io: &I,
        file: &I::File,
    ) -> Result<Option<Batch<'_>>, BatchError> {
        let left = self.to - self.at;
        if left == 0 {
            return Ok(None);
        }
        self.fill(io, file, HEADER_BYTES.min(left as usize))?;
        let header = Header::read(self.bytes())?;
        if header.bytes as u64 > u64::from(left) {
            return Err(BatchError::Beyond {
                bytes: header.bytes,
                left,
            });
        }
        self.fill(io, file, header.bytes)?;
        let (at, skip) = (self.at, (self.at - self.from) as usize);
        let header = Header::check_stored(&self.buffer[skip..])?;
        self.at += header.bytes as u32;
        Ok(Some((at, header, &self.buffer[skip..skip + header.bytes])))
    }

    /// The header of the next batch as far as it was read, be the batch whole or not.
    pub(crate) fn peek(&self) -> Option<Header> {
        Header::read(self.bytes()).ok()
    }

    /// Reads no more than the next batch from now on; false if it was so already.
    pub(crate) fn narrow(&mut self) -> bool {
        std::mem::take(&mut self.piece) > 0
    }

    /// Goes on at `at`, which lies ahead, reading `piece` bytes at a time.
    pub(crate) fn skip_to(&mut self, at: u32, piece: usize) {
        self.piece = piece;
        let have = self.from + self.buffer.len() as u32;
        if at > have {
            self.buffer.clear();
            self.from = at;
        }
        self.at = at;
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[(self.at - self.from) as usize..]
    }

    /// Makes the buffer hold `need` bytes from the next batch on, which lie before `to`.
    fn fill<I: Io>(&mut self, io: &I, file: &I::File, need: usize) -> io::Result<()> {
        if self.bytes().len() >= need {
            return Ok(());
        }
        self.buffer.drain(..(self.at - self.from) as usize);
        self.from = self.at;
        let have = self.buffer.len();
        let len = need.max(self.piece).min((self.to - self.at) as usize);
        self.buffer.resize(len, 0);
        let at = u64::from(self.at) + have as u64;
        let read = io.pread(file, &mut self.buffer[have..], at);
        let read = read.inspect_err(|_| self.buffer.truncate(have))?;
        self.buffer.truncate(have + read);
        self.read += read as u64;
        if self.buffer.len() < need {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends at {}", at + read as u64),
            ));
        }
        Ok(())
    }
}
