//! Requests that wait for the lease (R8): first come, first served, and no more than may wait.

use std::collections::VecDeque;

use model::Instant;

use crate::Ticket;
use crate::group::{CommittedOffset, GroupRequest};
use crate::partition::PARK_MAX;

/// Requests that wait for the lease: one of each of 2,000 members.
pub const PARKED_MAX: usize = 2_048;
/// Bytes of the requests that wait for the lease: half a KiB each, or one leader's large assignment.
pub const PARKED_BYTES_MAX: usize = 1024 * 1024;

/// A request that came while the lease had lapsed.
#[derive(Debug)]
pub(super) struct Parked {
    since: Instant,
    bytes: usize,
    pub(super) ticket: Ticket,
    pub(super) request: Box<GroupRequest>,
}

/// The place where they wait.
#[derive(Debug, Default)]
pub(super) struct Parking {
    queue: VecDeque<Parked>,
    bytes: usize,
}

impl Parking {
    /// Lets a request wait; gives it back if there is no room.
    pub(super) fn park(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: Box<GroupRequest>,
    ) -> Result<(), Ticket> {
        let bytes = weight(&request);
        if self.queue.len() >= PARKED_MAX || self.bytes + bytes > PARKED_BYTES_MAX {
            return Err(ticket);
        }
        self.bytes += bytes;
        self.queue.push_back(Parked {
            since: now,
            bytes,
            ticket,
            request,
        });
        Ok(())
    }

    /// Everybody, first to last.
    pub(super) fn take(&mut self) -> VecDeque<Parked> {
        self.bytes = 0;
        core::mem::take(&mut self.queue)
    }

    /// Those of which `gone` holds, first to last.
    pub(super) fn extract(&mut self, gone: impl Fn(&GroupRequest) -> bool) -> VecDeque<Parked> {
        let all = core::mem::take(&mut self.queue).into_iter();
        let (gone, stay): (VecDeque<_>, _) = all.partition(|parked| gone(&parked.request));
        self.queue = stay;
        self.bytes -= gone.iter().map(|parked| parked.bytes).sum::<usize>();
        gone
    }

    /// The next whose time is up.
    pub(super) fn pop_late(&mut self, now: Instant) -> Option<Ticket> {
        let parked = self
            .queue
            .pop_front_if(|parked| parked.since + PARK_MAX <= now)?;
        self.bytes -= parked.bytes;
        Some(parked.ticket)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.queue.front().map(|parked| parked.since + PARK_MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// About what a request holds of memory while it waits.
fn weight(request: &GroupRequest) -> usize {
    const EACH: usize = 64;
    let texts = match request {
        GroupRequest::Join(join) => {
            let protocols = join
                .protocols
                .iter()
                .map(|protocol| EACH + protocol.name.len() + protocol.metadata.len());
            join.member.len() + join.client_id.len() + protocols.sum::<usize>()
        }
        GroupRequest::Sync(sync) => sync
            .assignments
            .iter()
            .map(|(id, bytes)| EACH + id.len() + bytes.len())
            .sum(),
        GroupRequest::Commit(commit) => {
            let offset = |offset: &CommittedOffset| {
                2 * EACH + offset.topic.len() + offset.metadata.as_ref().map_or(0, String::len)
            };
            commit.offsets.iter().map(offset).sum()
        }
        GroupRequest::Leave(leave) => leave
            .members
            .iter()
            .map(|leaver| 2 * EACH + leaver.member.len())
            .sum(),
        GroupRequest::FetchOffsets(fetch) => fetch
            .partitions
            .iter()
            .flatten()
            .map(|partition| EACH + partition.topic.len())
            .sum(),
        GroupRequest::DeleteOffsets { partitions, .. } => partitions
            .iter()
            .map(|partition| EACH + partition.topic.len())
            .sum(),
        GroupRequest::Heartbeat(_)
        | GroupRequest::Describe { .. }
        | GroupRequest::List(_)
        | GroupRequest::Delete { .. } => 0,
    };
    4 * EACH + request.group().map_or(0, str::len) + texts
}
