//! Batches in a disk's file, on their way to a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use store::{LinuxIo, Range};

/// Whole batches of one extent, which stays as it is until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct FileRange {
    /// Index of its disk's spindle.
    disk: usize,
    range: Range<LinuxIo>,
}

/// What was found without waiting for the disk.
pub(crate) enum Located {
    Ranges(Vec<FileRange>),
    /// Only the disk's reader thread can look it up.
    Cold,
}

impl FileRange {
    pub(crate) fn new(disk: usize, range: Range<LinuxIo>) -> Self {
        Self { disk, range }
    }

    pub(crate) fn disk(&self) -> usize {
        self.disk
    }

    /// For the disk's reader thread.
    pub(crate) fn inner(&self) -> &Range<LinuxIo> {
        &self.range
    }

    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The first `bytes` of it, or all.
    pub(crate) fn front(&self, bytes: usize) -> Self {
        Self {
            disk: self.disk,
            range: self.range.front(bytes),
        }
    }

    /// Takes the first `bytes` off.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.range.advance(bytes);
    }

    /// Whether memory most likely holds it. Never waits.
    pub(crate) fn resident(&self) -> bool {
        self.range.resident()
    }

    /// Whether its connection should be closed so that others can read: readers hold as many extents as they may.
    pub(crate) fn called_back(&self) -> bool {
        self.range.called_back()
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.range.file().as_fd()
    }

    /// Where it begins in the file.
    pub(crate) fn position(&self) -> u64 {
        self.range.position()
    }

    /// Reads its first `bytes.len()` bytes; from memory if [`FileRange::resident`] said so.
    pub(crate) fn read_into(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.range.read_into(bytes)
    }
}

impl wire::fetch_answer::FileRange for FileRange {
    fn bytes_count(&self) -> u64 {
        self.len() as u64
    }
}
