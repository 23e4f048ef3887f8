//! Batches that were accepted and wait for the disk or for replicas, and duplicates that joined them (R11).

use core::time::Duration;
use std::collections::VecDeque;

use model::{Instant, Offset, WallMs};

use super::{Acks, DISK_WAIT_MAX, PARK_MAX};
use crate::Ticket;

/// One ticket and the batch it waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) ticket: Ticket,
    pub(super) base_offset: Offset,
    /// Offset behind its last record.
    pub(super) end: Offset,
    pub(super) timestamp: WallMs,
    pub(super) accepted: Instant,
    /// For replicas, once the batch is durable here.
    pub(super) timeout: Duration,
}

impl Waiter {
    /// When it has waited for the disk, and then for replicas, as long as it may.
    fn due_all(&self, durable: Offset) -> Instant {
        let wait = match self.end > durable {
            true => DISK_WAIT_MAX,
            false => self.timeout,
        };
        self.accepted + wait
    }

    /// When it has waited for the disk as long as it may. Once it is durable only the lease, or the record of a new
    /// epoch, is missing: the one has its own clock, which ends no later than this; the other is bound by this.
    fn due_local(&self, durable: Offset) -> Instant {
        let wait = match self.end > durable {
            true => DISK_WAIT_MAX,
            false => DISK_WAIT_MAX + PARK_MAX,
        };
        self.accepted + wait
    }
}

/// Both queues are sorted by `end`. Appends come in that order; only duplicates must be put in between.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// Wait for the local flush.
    local: VecDeque<Waiter>,
    /// Wait for the high watermark.
    all: VecDeque<Waiter>,
    /// Nobody is due before; may be early, never late.
    due: Option<Instant>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.local.len() + self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When to look for those whose time is over; nobody's is over before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_empty())
    }

    pub(super) fn push(&mut self, acks: Acks, waiter: Waiter) {
        self.due_at(waiter.accepted + DISK_WAIT_MAX.min(waiter.timeout));
        let queue = match acks {
            Acks::None | Acks::Leader => &mut self.local,
            Acks::All => &mut self.all,
        };
        if queue.back().is_none_or(|last| last.end <= waiter.end) {
            queue.push_back(waiter);
        } else {
            let place = queue.partition_point(|other| other.end <= waiter.end);
            queue.insert(place, waiter);
        }
    }

    /// The next one whose batch is as safe as it asked.
    pub(super) fn pop(&mut self, durable: Offset, high_watermark: Offset) -> Option<Waiter> {
        let done = |queue: &mut VecDeque<Waiter>, safe: Offset| {
            queue
                .front()
                .is_some_and(|waiter| waiter.end <= safe)
                .then(|| queue.pop_front())
                .flatten()
        };
        done(&mut self.local, durable).or_else(|| done(&mut self.all, high_watermark))
    }

    /// Any one that waits for the high watermark and has it still to come, last to first.
    pub(super) fn pop_uncommitted(&mut self, high_watermark: Offset) -> Option<Waiter> {
        self.all.pop_back_if(|waiter| waiter.end > high_watermark)
    }

    /// Any one.
    pub(super) fn pop_any(&mut self) -> Option<Waiter> {
        self.local.pop_front().or_else(|| self.all.pop_front())
    }

    /// All from `from` to `to` became durable: who waits for replicas there may have waited long enough already.
    pub(super) fn was_durable(&mut self, from: Offset, to: Offset) {
        let first = self.all.partition_point(|waiter| waiter.end <= from);
        let behind = self.all.partition_point(|waiter| waiter.end <= to);
        let due = self
            .all
            .range(first..behind)
            .map(|waiter| waiter.due_all(to));
        if let Some(due) = due.min() {
            self.due_at(due);
        }
    }

    /// Takes out those whose time is over at `now`.
    pub(super) fn expire(&mut self, now: Instant, durable: Offset, mut late: impl FnMut(Ticket)) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let mut next: Option<Instant> = None;
        let mut keep = |ticket: Ticket, due: Instant| {
            if due <= now {
                late(ticket);
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            due > now
        };
        self.local
            .retain(|waiter| keep(waiter.ticket, waiter.due_local(durable)));
        self.all
            .retain(|waiter| keep(waiter.ticket, waiter.due_all(durable)));
        self.due = next;
    }

    fn due_at(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}
