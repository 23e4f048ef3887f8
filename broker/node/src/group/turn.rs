//! What a step of the groups works with: the time, the limits, and where answers and records go.

use std::rc::Rc;

use model::Instant;

use super::types::{GroupError, GroupReply};
use crate::Ticket;
use crate::coordinator::{Record, Settings};
use crate::offsets::Kept;

/// Members, with all that is opaque in them, of all groups of a node: 8 MiB, 5,900 groups of one small member or 1,800
/// members of 4 KiB. Resident memory was seen to stay within 2 % of what the pool says.
pub const MEMBERS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Committed offsets of all groups of a node: 4 MiB, about 24,000 of them.
pub const OFFSETS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that may be held, and how many are.
#[derive(Debug)]
pub(crate) struct Pool {
    used: usize,
    max: usize,
}

impl Pool {
    pub(crate) const fn new(max: usize) -> Self {
        Self { used: 0, max }
    }

    /// Takes `bytes` if they are left.
    pub(crate) const fn take(&mut self, bytes: usize) -> bool {
        let fits = self.used + bytes <= self.max;
        if fits {
            self.used += bytes;
        }
        fits
    }

    /// Takes `bytes` even beyond the bound: what was once stored is loaded again, whatever else is there.
    pub(crate) const fn force(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// Takes `new` instead of `old`; a replacement that is no larger always fits.
    pub(crate) const fn swap(&mut self, old: usize, new: usize) -> bool {
        let used = self.used - old + new;
        let fits = new <= old || used <= self.max;
        if fits {
            self.used = used;
        }
        fits
    }

    /// Gives `bytes` back.
    pub(crate) const fn give(&mut self, bytes: usize) {
        assert!(bytes <= self.used, "more is given back than was taken");
        self.used -= bytes;
    }

    pub(crate) const fn used(&self) -> usize {
        self.used
    }
}

/// The node's pools for groups.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) members: Pool,
    pub(crate) offsets: Pool,
}

/// One step's tools.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    /// Trusted milliseconds since 1970, or −1.
    pub(crate) wall: i64,
    pub(crate) settings: &'a Settings,
    pub(crate) pools: &'a mut Pools,
    /// Whether further records may be queued for clients; what the groups themselves must write is always queued.
    pub(crate) may_write: bool,
    pub(crate) replies: &'a mut Vec<(Ticket, GroupReply)>,
    pub(crate) writes: &'a mut Vec<Write>,
}

impl Turn<'_> {
    pub(crate) fn reply(&mut self, ticket: Ticket, reply: GroupReply) {
        self.replies.push((ticket, reply));
    }

    pub(crate) fn refuse(&mut self, ticket: Ticket, error: GroupError) {
        self.reply(ticket, GroupReply::Refused(error));
    }

    pub(crate) fn write(&mut self, records: Vec<Record>, then: Then) {
        self.writes.push(Write { records, then });
    }
}

/// Records for one batch, and what follows from it.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) records: Vec<Record>,
    pub(crate) then: Then,
}

/// What happens when a batch is committed, and not before.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nothing: the records only follow what memory says already.
    Nothing,
    /// The leader's assignment takes effect; every waiting member gets its share.
    Assign {
        group: Rc<str>,
        generation: i32,
        assignments: Vec<(String, Vec<u8>)>,
    },
    /// A static member that came back has its new id.
    Replace {
        group: Rc<str>,
        generation: i32,
        new: String,
        old: Former,
    },
    /// Offsets become visible; record `i` of the batch holds the `i`-th.
    Commit {
        group: Rc<str>,
        ticket: Option<Ticket>,
        kept: Vec<KeptIn>,
        results: Vec<Result<(), GroupError>>,
    },
    /// Offsets are gone, and with them the group if it is still the empty one of `generation`.
    Forget {
        group: Rc<str>,
        keys: Vec<(String, i32)>,
        generation: Option<i32>,
        answer: Option<(Ticket, GroupReply)>,
    },
}

/// An offset on its way into the store.
#[derive(Debug)]
pub(crate) struct KeptIn {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) kept: Kept,
}

/// What a static member was before it came back, in case its new id can't be stored.
#[derive(Debug)]
pub(crate) struct Former {
    pub(crate) id: String,
    /// Clients that can't skip the assignment are shown the old leader's id, so that none takes itself for the leader.
    pub(crate) leader: String,
    pub(crate) can_skip_assignment: bool,
    pub(crate) protocols: Vec<super::Protocol>,
    pub(crate) session_ms: i32,
    pub(crate) rebalance_ms: i32,
}
