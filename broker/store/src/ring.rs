//! The journal ring: where the next group goes, and how much of the ring is still needed.
//!
//! Positions are counted from the start of the run without end; the place in the ring is the position modulo its length.
//! A group that does not fit before the ring's end begins a new turn at 0 and says so (WRAP): a reader that finds nothing
//! behind a group looks there for exactly the next sequence.

use std::io;

use model::Uuid;

use crate::format::journal::{GroupHeader, WRAP};
use crate::io::Io;

/// Who asks for room: the last 5 % of the ring are kept for EPOCH, HARDSTATE and SITE_ENTRY, the last 2 % for the CKPT
/// record alone, without which nothing would ever get free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Data,
    Control,
    Checkpoint,
}

impl Asks {
    const fn percent(self) -> u64 {
        match self {
            Self::Data => 95,
            Self::Control => 98,
            Self::Checkpoint => 100,
        }
    }
}

/// Where a group is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) ring_pos: u64,
    pub(crate) wrap: bool,
    /// Ring bytes it takes, those skipped before the ring's end included.
    advance: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ring<F> {
    pub(crate) file: F,
    pub(crate) bytes: u64,
    pub(crate) uuid: Uuid,
    /// Of the next group.
    pub(crate) seq: u64,
    /// Oldest group still needed.
    pub(crate) keep_seq: u64,
    /// Behind the last group.
    pub(crate) head: u64,
    /// Where the group `keep_seq` begins.
    pub(crate) keep: u64,
    pub(crate) boot_nonce: u64,
}

impl<F> Ring<F> {
    /// Ring bytes in use.
    pub(crate) const fn used(&self) -> u64 {
        self.head - self.keep
    }

    /// Where a group of `padded` bytes goes.
    pub(crate) const fn place(&self, padded: u64) -> Place {
        let at = self.head % self.bytes;
        let left = self.bytes - at;
        // At position 0 of the run there is nothing to wrap; later, 0 is always the begin of a new turn.
        if at == 0 && self.head > 0 {
            return Place {
                ring_pos: 0,
                wrap: true,
                advance: padded,
            };
        }
        if padded <= left {
            Place {
                ring_pos: at,
                wrap: false,
                advance: padded,
            }
        } else {
            Place {
                ring_pos: 0,
                wrap: true,
                advance: left + padded,
            }
        }
    }

    /// Whether a group of `padded` bytes leaves enough for what must always go.
    pub(crate) const fn fits(&self, padded: u64, asks: Asks) -> bool {
        self.used() + self.place(padded).advance <= self.bytes * asks.percent() / 100
    }

    /// Writes the group in `record`, padded with zeros, whose header but place and sequence is `header`; it is on the
    /// medium when this returns. Says where it went.
    pub(crate) fn write<I: Io<File = F>>(
        &mut self,
        io: &I,
        mut header: GroupHeader,
        record: &mut [u8],
    ) -> io::Result<Place> {
        let place = self.place(record.len() as u64);
        assert!(
            self.used() + place.advance <= self.bytes,
            "the ring's oldest group is still needed"
        );
        header.seq = self.seq;
        header.keep_seq = self.keep_seq;
        header.ring_pos = place.ring_pos;
        header.boot_nonce = self.boot_nonce;
        header.flags |= if place.wrap { WRAP } else { 0 };
        header.seal(self.uuid, record);
        io.write_journal(&self.file, record, place.ring_pos)?;
        self.head += place.advance;
        self.seq += 1;
        Ok(place)
    }
}

/// Memory whose first byte lies on 4 KiB, as O_DIRECT wants it.
#[derive(Debug)]
pub(crate) struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn new(len: usize) -> Self {
        let memory = vec![0; len + crate::format::PAGE];
        let from = memory.as_ptr().align_offset(crate::format::PAGE);
        Self { memory, from, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}
