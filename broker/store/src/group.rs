//! One group while it is put together: entries, and where the bytes of each come from.
//!
//! Payloads are copied once, from the receive buffers to their place in the aligned buffer, and stamped there. Entries
//! are in the order in which a replay applies them; appends of one replica share an entry as long as they lie behind
//! each other. Nothing here writes.

use model::batch::{self, Header};
use model::{LeaderEpoch, Offset, WallMs};

use crate::format::journal::{ENTRY_BYTES, Entry, HEADER_BYTES};
use crate::format::page_up;
use crate::ops::{GROUP_ENTRIES_MAX, Op};
use crate::parts::OpenExtent;
use crate::ring::Aligned;

/// Entries that the last operation of a group may add beyond [`GROUP_ENTRIES_MAX`]: 8 MiB over extents of 1 MiB are at
/// most 9 × (seal, open, append).
const ENTRIES_SLACK: usize = 64;
const NO_PIECE: u32 = u32::MAX;

/// A whole batch on its way into the group.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Which of the group's operations holds its bytes, and where.
    op: u32,
    from: u32,
    len: u32,
    next: u32,
    base: Offset,
    epoch: LeaderEpoch,
    append_time: Option<WallMs>,
}

/// Where an entry's payload comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    None,
    Pieces { first: u32, last: u32 },
    Side { from: usize },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Group<F> {
    /// Counts groups, so that a replica knows whether its entry is of this one.
    pub(crate) number: u64,
    pub(crate) entries: Vec<Entry>,
    sources: Vec<Source>,
    pieces: Vec<Piece>,
    /// Keeps the receive buffers while they are needed.
    ops: Vec<Op>,
    /// Payloads that are no batches.
    side: Vec<u8>,
    /// Extents sealed in this group, until its bytes are in them.
    #[expect(clippy::vec_box, reason = "they come boxed from their replicas")]
    pub(crate) sealing: Vec<Box<OpenExtent<F>>>,
    /// Slots that no log needs once this group is durable.
    pub(crate) freed: Vec<u32>,
    payload: usize,
    pub(crate) flags: u16,
    buffer: Aligned,
}

impl<F> Group<F> {
    /// Room for groups of `bytes` of batches.
    pub(crate) fn new(bytes: usize) -> Self {
        let table = HEADER_BYTES + (GROUP_ENTRIES_MAX + ENTRIES_SLACK) * ENTRY_BYTES;
        Self {
            number: 0,
            entries: Vec::new(),
            sources: Vec::new(),
            pieces: Vec::new(),
            ops: Vec::new(),
            side: Vec::new(),
            sealing: Vec::new(),
            freed: Vec::new(),
            payload: 0,
            flags: 0,
            buffer: Aligned::new(page_up((bytes + table) as u64) as usize),
        }
    }

    pub(crate) fn begin(&mut self) {
        self.number += 1;
        self.entries.clear();
        self.sources.clear();
        self.pieces.clear();
        self.ops.clear();
        self.side.clear();
        self.sealing.clear();
        self.freed.clear();
        (self.payload, self.flags) = (0, 0);
    }

    /// Bytes the record takes in the ring with `entries` more entries and `payload` more bytes.
    pub(crate) fn padded(&self, entries: usize, payload: usize) -> u64 {
        let table = (self.entries.len() + entries) * ENTRY_BYTES;
        page_up((HEADER_BYTES + table + self.payload + payload) as u64)
    }

    pub(crate) const fn payload(&self) -> usize {
        self.payload
    }

    /// Keeps an operation; pieces name it by the number returned.
    pub(crate) fn keep(&mut self, op: Op) -> u32 {
        self.ops.push(op);
        self.ops.len() as u32 - 1
    }

    pub(crate) fn op(&self, number: u32) -> &Op {
        &self.ops[number as usize]
    }

    /// An entry without payload.
    pub(crate) fn push(&mut self, entry: Entry) -> u32 {
        self.entries.push(entry);
        self.sources.push(Source::None);
        self.entries.len() as u32 - 1
    }

    /// An entry with a payload that is no batch.
    pub(crate) fn push_with(&mut self, mut entry: Entry, payload: &[u8]) {
        entry.len = payload.len() as u32;
        self.entries.push(entry);
        self.sources.push(Source::Side {
            from: self.side.len(),
        });
        self.side.extend_from_slice(payload);
        self.payload += payload.len();
    }

    /// Adds the batch at `from` of a kept operation to an APPEND entry; `header` is what it will say once stamped.
    pub(crate) fn add_batch(
        &mut self,
        entry: u32,
        op: u32,
        from: usize,
        header: &Header,
        append_time: Option<WallMs>,
    ) {
        let number = self.pieces.len() as u32;
        self.pieces.push(Piece {
            op,
            from: from as u32,
            len: header.bytes as u32,
            next: NO_PIECE,
            base: header.base_offset,
            epoch: header.leader_epoch,
            append_time,
        });
        self.payload += header.bytes;
        let source = &mut self.sources[entry as usize];
        match source {
            Source::Pieces { last, .. } => {
                self.pieces[*last as usize].next = number;
                *last = number;
            }
            _ => {
                *source = Source::Pieces {
                    first: number,
                    last: number,
                }
            }
        }
        let entry = &mut self.entries[entry as usize];
        entry.len += header.bytes as u32;
        entry.span = header.next_offset().since(entry.base) as u32;
        entry.max_ts = entry.max_ts.max(header.max_timestamp);
    }

    /// Lays out the record: copies, stamps, encodes the table. Returns its bytes without padding; the header is still to
    /// be written.
    pub(crate) fn lay_out(&mut self) -> usize {
        let Self {
            entries,
            sources,
            pieces,
            ops,
            side,
            buffer,
            ..
        } = self;
        let buffer = buffer.bytes_mut();
        let mut at = HEADER_BYTES + entries.len() * ENTRY_BYTES;
        for (number, entry) in entries.iter_mut().enumerate() {
            if entry.len > 0 {
                entry.payload_off = at as u32;
            }
            match sources[number] {
                Source::None => {}
                Source::Side { from } => {
                    let len = entry.len as usize;
                    buffer[at..at + len].copy_from_slice(&side[from..from + len]);
                }
                Source::Pieces { first, .. } => {
                    let mut to = at;
                    let mut next = first;
                    while next != NO_PIECE {
                        let piece = pieces[next as usize];
                        let Op::Append(append) = &ops[piece.op as usize] else {
                            unreachable!("only appends have batches")
                        };
                        let (from, len) = (piece.from as usize, piece.len as usize);
                        let batch = &mut buffer[to..to + len];
                        batch.copy_from_slice(&append.batch[from..from + len]);
                        batch::stamp(batch, piece.base, piece.epoch);
                        if let Some(now) = piece.append_time {
                            batch::stamp_append_time(batch, now);
                        }
                        to += len;
                        next = piece.next;
                    }
                }
            }
            at += entry.len as usize;
            let place = HEADER_BYTES + number * ENTRY_BYTES;
            entry.encode(&mut buffer[place..place + ENTRY_BYTES]);
        }
        let padded = page_up(at as u64) as usize;
        buffer[at..padded].fill(0);
        at
    }

    /// An entry's payload, once laid out.
    pub(crate) fn payload_of(&self, entry: &Entry) -> &[u8] {
        let from = entry.payload_off as usize;
        &self.buffer.bytes()[from..from + entry.len as usize]
    }

    /// The record with its padding.
    pub(crate) fn record(&mut self, total: usize) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[..page_up(total as u64) as usize]
    }
}
