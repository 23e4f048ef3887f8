//! Whole batches in one extent's file, held until they are sent.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::pins::Pin;
use crate::extent_io::read_exact;
use crate::io::{Advice, Io};
use crate::{PartIx, SlotLife};

/// Bytes that are read at a time to have a range in memory.
pub const WARM_BYTES: usize = 2 << 20;
const PAGE: u32 = crate::format::PAGE as u32;

/// Bytes of one extent, so fewer than 64 MiB. They stay as they are until the last clone is dropped.
pub struct Range<I: Io> {
    pin: Arc<Pin<I>>,
    file: Arc<I::File>,
    part: PartIx,
    position: u32,
    len: u32,
    /// Where the extent's batches ended when it was found.
    used: u32,
}

impl<I: Io> fmt::Debug for Range<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlotLife { slot, generation } = self.life();
        let end = self.position + self.len;
        write!(f, "extent {slot}.{generation} [{}, {end})", self.position)
    }
}

impl<I: Io> Clone for Range<I> {
    fn clone(&self) -> Self {
        Self {
            pin: self.pin.clone(),
            file: self.file.clone(),
            part: self.part,
            position: self.position,
            len: self.len,
            used: self.used,
        }
    }
}

impl<I: Io> Range<I> {
    pub(super) fn new(
        pin: Arc<Pin<I>>,
        file: Arc<I::File>,
        part: PartIx,
        (from, to): (u32, u32),
        used: u32,
    ) -> Self {
        Self {
            pin,
            file,
            part,
            position: from,
            len: to - from,
            used,
        }
    }

    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it begins in the file.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position.into()
    }

    /// The extent's file.
    #[must_use]
    pub fn file(&self) -> &I::File {
        &self.file
    }

    /// Whose batches.
    #[must_use]
    pub fn part(&self) -> PartIx {
        self.part
    }

    /// Which extent.
    #[must_use]
    pub fn life(&self) -> SlotLife {
        self.pin.life()
    }

    /// The first `bytes` of it, or all.
    #[must_use]
    pub fn front(&self, bytes: usize) -> Self {
        Self {
            len: self.len.min(u32::try_from(bytes).unwrap_or(u32::MAX)),
            ..self.clone()
        }
    }

    /// As many as `bytes` from where it begins, beyond its own end as far as the extent goes: what a sequential reader
    /// will ask for next.
    #[must_use]
    pub fn ahead(&self, bytes: usize) -> Self {
        let room = self.used - self.position;
        Self {
            len: room.min(u32::try_from(bytes).unwrap_or(u32::MAX)),
            ..self.clone()
        }
    }

    /// Takes the first `bytes` off.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, bytes: usize) {
        assert!(
            bytes <= self.len(),
            "{bytes} bytes of {} were sent",
            self.len
        );
        self.position += bytes as u32;
        self.len -= bytes as u32;
    }

    /// Whether memory most likely holds it: its first and its last page. Never waits. On a file system that can't tell,
    /// as tmpfs, it is taken to be there: asking the reader thread each time would read everything twice.
    #[must_use]
    pub fn resident(&self) -> bool {
        let there = |at: u32| {
            let probe = self
                .io()
                .pread_nowait(&self.file, &mut [0], u64::from(self.position + at));
            match probe {
                Ok(read) => read == Some(1),
                Err(error) => error.kind() == io::ErrorKind::Unsupported,
            }
        };
        self.is_empty() || (there(0) && there(self.len - 1))
    }

    /// Reads its first `bytes.len()` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn read_into(&self, bytes: &mut [u8]) -> io::Result<()> {
        assert!(bytes.len() <= self.len(), "more than the range holds");
        read_exact(self.io(), &self.file, bytes, self.position.into())
    }

    /// Reads its front, as much as `scratch` takes, so that memory holds it; says how much. Waits for the disk.
    pub fn warm(&self, scratch: &mut [u8]) -> io::Result<usize> {
        let len = scratch.len().min(self.len());
        self.read_into(&mut scratch[..len])?;
        Ok(len)
    }

    /// Drops it from memory, as far as it is written out.
    pub fn forget(&self) {
        if let Some(pages) = whole_pages(self.position, self.len) {
            // Only advice: nothing depends on it.
            let _ = self.io().advise(&self.file, pages);
        }
    }

    /// Whether it should be let go for others: see [`super::ReadError::Crowded`].
    #[must_use]
    pub fn called_back(&self) -> bool {
        self.pin.called_back()
    }

    fn io(&self) -> &I {
        &self.pin.view().io
    }
}

/// The whole pages of a range, to be dropped; `None` if there are none. What else lies in its first and last page
/// somebody may want.
pub(super) fn whole_pages(position: u32, len: u32) -> Option<Advice> {
    let from = position.next_multiple_of(PAGE);
    let to = (position + len) / PAGE * PAGE;
    (from < to).then(|| Advice::DontNeed {
        at: from.into(),
        bytes: (to - from).into(),
    })
}
