//! The coordinator: the runtime under the groups of every internal partition that this node leads.
//!
//! Records, then reply, as in Kafka's coordinator-common: the machine on top says what is to be written and what
//! follows; here it is appended, and follows when the high watermark has passed it. A new leader reads the partition's
//! log first. Nothing is decided outside the node's lease (R8): requests wait for it, timers stand still, and answers
//! that come due are held; a newer epoch, or 1.5 s, refuses everybody who waits. What can't be known does not happen:
//! a batch that was refused leaves no trace in memory, and one that may or may not commit is answered with an error
//! and takes effect if it does.

use std::collections::VecDeque;
use std::rc::Rc;

use model::{Instant, LeaderEpoch, Offset, WallMs};

use crate::group::{
    GroupError, GroupReply, GroupRequest, GroupState, Groups, List, MEMBERS_BYTES_MAX,
    OFFSETS_BYTES_MAX, Pool, Pools, Then, Turn, Write,
};
use crate::partition::PARK_MAX;
use crate::{Outbox, Ticket};

pub(crate) mod codec;
mod hash;
mod parking;
mod seat;
#[cfg(test)]
mod tests;
mod time;
mod types;

pub use codec::RecordFault;
pub use hash::partition_of;
use parking::Parking;
pub use parking::{PARKED_BYTES_MAX, PARKED_MAX};
use seat::{Failed, Seat, Standing};
use time::Chore;
pub use types::{
    AppendFailure, AppendId, Effect, GROUP_PARTITIONS, Input, Record, Settings, Stats,
};

/// Most bytes of keys and values of one append: Kafka's own bound of a batch, `message.max.bytes`.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Batches on their way per partition beyond which clients' requests that would add one are refused. The disks commit
/// a hundred groups of batches a second: 1,024 are a second's work when each holds ten of ours.
pub const IN_FLIGHT_MAX: usize = 1_024;
/// One internal partition: the office, and its groups.
#[derive(Debug, Default)]
struct Shard {
    seat: Seat<Then>,
    groups: Groups,
    /// Topics deleted while the log was read, which may still bring offsets in them.
    topics_gone: Vec<Rc<str>>,
    /// The lease stayed away and whoever waits here is to be refused.
    refusing: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    shards: Vec<Shard>,
    pools: Pools,
    lease_until: Instant,
    /// The lease was seen to have lapsed: timers stand still.
    lapsed: bool,
    /// It stayed away so long that those who waited were refused, or are about to be.
    lapse_answered: bool,
    chores: VecDeque<Chore>,
    parking: Parking,
    /// Answers that came due while the lease had lapsed, and their partitions.
    held: Vec<(u32, Ticket, GroupReply)>,
    /// Trusted time, and when it was told.
    clock: Option<(WallMs, Instant)>,
    expiry_due: Option<Instant>,
    next_append: u64,
    faults: u64,
    // Kept from step to step for their memory.
    replies: Vec<(Ticket, GroupReply)>,
    writes: Vec<Write>,
}

impl Coordinator {
    /// One that leads nothing yet and has no lease.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            shards: (0..GROUP_PARTITIONS).map(|_| Shard::default()).collect(),
            pools: Pools {
                members: Pool::new(MEMBERS_BYTES_MAX),
                offsets: Pool::new(OFFSETS_BYTES_MAX),
            },
            lease_until: Instant(0),
            lapsed: true,
            lapse_answered: false,
            chores: VecDeque::new(),
            parking: Parking::default(),
            held: Vec::new(),
            clock: None,
            expiry_due: None,
            next_append: 0,
            faults: 0,
            replies: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// Takes one fact at `now` and says what must happen next. Never waits, never fails.
    ///
    /// # Panics
    /// If a partition's number is not below [`GROUP_PARTITIONS`].
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Outbox<Effect>) {
        match input {
            Input::Elected { partition, epoch } => self.elected(now, partition, epoch, out),
            Input::Record {
                partition,
                epoch,
                offset,
                key,
                value,
            } => {
                if self.shard(partition).seat.loads(epoch) {
                    let replayed = self.turn(now, partition, out, |groups, turn| {
                        groups.replay(turn, &key, value.as_deref(), offset)
                    });
                    // One bad record must not take the others' offsets away; it is counted and shown.
                    self.faults += u64::from(replayed.is_err());
                }
            }
            Input::Loaded { partition, epoch } => {
                let seat = &mut self.shard(partition).seat;
                if seat.loads(epoch) {
                    seat.standing = Standing::Serving { since: now };
                    self.turn(now, partition, out, Groups::loaded);
                    let gone = core::mem::take(&mut self.shard(partition).topics_gone);
                    let chores = gone
                        .into_iter()
                        .map(|topic| Chore::ForgetTopic { partition, topic });
                    self.chores.extend(chores);
                }
            }
            Input::Resigned { partition } => self.leave(now, partition, out),
            Input::Lease { until } => self.lease(now, until, out),
            Input::Clock { trusted } => self.clock = trusted.map(|trusted| (trusted, now)),
            Input::Request { ticket, request } => self.request(now, ticket, request, out),
            Input::Appended {
                partition,
                append,
                base_offset,
            } => {
                self.shard(partition).seat.appended(append, base_offset);
            }
            Input::Committed { partition, end } => self.committed(now, partition, end, out),
            Input::AppendFailed {
                partition,
                append,
                failure,
            } => {
                self.append_failed(now, partition, append, failure, out);
            }
            Input::TopicDeleted { topic } => self.topic_deleted(&topic.into()),
            Input::Settings(settings) => self.settings = settings,
            Input::Tick => {}
        }
        self.time_passes(now, out);
    }

    /// When [`Input::Tick`] is due at the latest; `None` while nothing waits for time. A moment that has passed: at once,
    /// and perhaps several times, as one step does not do too much.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let timers = self
            .shards
            .iter()
            .filter(|shard| shard.seat.serves())
            .filter_map(|shard| shard.groups.deadline());
        let timers = timers
            .chain(self.expiry_due)
            .filter(|at| *at < self.lease_until)
            .min();
        // Without a lease they stand still.
        let timers = if self.lapsed { None } else { timers };
        let lapse = (!self.lapse_answered && self.leads_any()).then(|| self.lease_until + PARK_MAX);
        let chore = !self.lapsed && !self.chores.is_empty();
        let refusing = self.shards.iter().any(|shard| shard.refusing);
        let now = (chore || refusing).then_some(Instant(0));
        [now, timers, self.parking.deadline(), lapse]
            .into_iter()
            .flatten()
            .min()
    }

    /// What the coordinator holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            groups: 0,
            members: 0,
            offsets: 0,
            members_bytes: self.pools.members.used(),
            offsets_bytes: self.pools.offsets.used(),
            parked: self.parking.len(),
            in_flight: 0,
            record_faults: self.faults,
        };
        for shard in &self.shards {
            let (groups, members, offsets) = shard.groups.counts();
            stats.groups += groups;
            stats.members += members;
            stats.offsets += offsets;
            stats.in_flight += shard.seat.in_flight();
        }
        stats
    }

    /// Every group led here: its name, state, and how many members. For people.
    pub fn groups(&self) -> impl Iterator<Item = (&str, GroupState, usize)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.groups.summaries())
    }

    /// Every committed offset of the groups led here: group, topic, partition, offset. For lag, seen from outside.
    pub fn committed_offsets(&self) -> impl Iterator<Item = (&str, &str, i32, i64)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.groups.committed_offsets())
    }

    fn shard(&mut self, partition: u32) -> &mut Shard {
        &mut self.shards[partition as usize]
    }

    fn leased(&self, now: Instant) -> bool {
        now < self.lease_until
    }

    fn leads_any(&self) -> bool {
        self.shards
            .iter()
            .any(|shard| shard.seat.standing != Standing::Away)
    }

    fn serving(&self) -> Vec<u32> {
        (0..GROUP_PARTITIONS)
            .filter(|partition| self.shards[*partition as usize].seat.serves())
            .collect()
    }

    /// Lets a partition's groups act, then sends off what they want written and answered.
    fn turn<R>(
        &mut self,
        now: Instant,
        partition: u32,
        out: &mut Outbox<Effect>,
        act: impl FnOnce(&mut Groups, &mut Turn<'_>) -> R,
    ) -> R {
        let shard = &mut self.shards[partition as usize];
        let mut turn = Turn {
            now,
            wall: wall(self.clock, now),
            settings: &self.settings,
            pools: &mut self.pools,
            may_write: shard.seat.in_flight() < IN_FLIGHT_MAX,
            replies: &mut self.replies,
            writes: &mut self.writes,
        };
        let result = act(&mut shard.groups, &mut turn);
        for write in self.writes.drain(..) {
            if !shard.seat.serves() {
                // It is leaving: the log is another epoch's.
                write.then.release(&mut self.pools);
                continue;
            }
            self.next_append += 1;
            let append = AppendId(self.next_append);
            shard.seat.push(append, write.records.len(), write.then);
            out.push(Effect::Append {
                partition,
                epoch: shard.seat.epoch,
                append,
                records: write.records,
            });
        }
        self.answer(now, partition, out);
        result
    }

    /// Sends answers off, if the lease still holds just now (R8).
    fn answer(&mut self, now: Instant, partition: u32, out: &mut Outbox<Effect>) {
        if self.leased(now) {
            for (ticket, reply) in self.replies.drain(..) {
                out.push(Effect::Reply { ticket, reply });
            }
            return;
        }
        // A refusal to coordinate says nothing that the lease would have to cover.
        for (ticket, reply) in self.replies.drain(..) {
            match reply {
                GroupReply::Refused(GroupError::NotCoordinator) => {
                    out.push(Effect::Reply { ticket, reply })
                }
                _ => self.held.push((partition, ticket, reply)),
            }
        }
    }

    fn elected(
        &mut self,
        now: Instant,
        partition: u32,
        epoch: LeaderEpoch,
        out: &mut Outbox<Effect>,
    ) {
        if epoch > self.shard(partition).seat.epoch {
            self.leave(now, partition, out);
            self.shard(partition).seat.elect(epoch);
        }
    }

    /// Drops all that is known of the partition; everybody who waits is told to look elsewhere.
    fn leave(&mut self, now: Instant, partition: u32, out: &mut Outbox<Effect>) {
        if self.shard(partition).seat.standing == Standing::Away {
            return;
        }
        self.shard(partition).seat.standing = Standing::Away;
        self.refuse_waiting(now, partition, out);
        let shard = &mut self.shards[partition as usize];
        for then in shard.seat.leave() {
            then.release(&mut self.pools);
        }
        shard.groups.unload(&mut self.pools);
        shard.topics_gone.clear();
        shard.refusing = false;
        self.chores.retain(|chore| chore.partition() != partition);
        let leads_any = self.leads_any();
        let of = |request: &GroupRequest| {
            request
                .group()
                .map(|group| partition_of(group, GROUP_PARTITIONS))
        };
        let gone = |request: &GroupRequest| of(request).map_or(!leads_any, |of| of == partition);
        for parked in self.parking.extract(gone) {
            let reply = GroupReply::Refused(GroupError::NotCoordinator);
            out.push(Effect::Reply {
                ticket: parked.ticket,
                reply,
            });
        }
    }

    fn refuse_waiting(&mut self, now: Instant, partition: u32, out: &mut Outbox<Effect>) {
        const ERROR: GroupError = GroupError::NotCoordinator;
        let mut line: Vec<Then> = Vec::new();
        self.turn(now, partition, out, |groups, turn| {
            groups.refuse_waiting(turn, ERROR)
        });
        let shard = &mut self.shards[partition as usize];
        // The line is lent out while the groups look at it.
        line.extend(
            shard
                .seat
                .each()
                .map(|then| core::mem::replace(then, Then::Nothing)),
        );
        self.turn(now, partition, out, |groups, turn| {
            line.iter_mut()
                .for_each(|then| groups.unsure(turn, then, ERROR));
        });
        for (place, then) in self.shard(partition).seat.each().zip(line) {
            *place = then;
        }
        for (_, ticket, _) in self.held.extract_if(.., |(of, ..)| *of == partition) {
            out.push(Effect::Reply {
                ticket,
                reply: GroupReply::Refused(ERROR),
            });
        }
    }

    fn request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: Box<GroupRequest>,
        out: &mut Outbox<Effect>,
    ) {
        let ours = match request.group() {
            Some(group) => {
                let partition = partition_of(group, GROUP_PARTITIONS);
                self.shard(partition).seat.standing != Standing::Away
            }
            None => self.leads_any(),
        };
        if !ours || self.leased(now) {
            return self.serve(now, ticket, *request, out);
        }
        if let Err(ticket) = self.parking.park(now, ticket, request) {
            let reply = GroupReply::Refused(GroupError::CoordinatorNotAvailable);
            out.push(Effect::Reply { ticket, reply });
        }
    }

    fn serve(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: GroupRequest,
        out: &mut Outbox<Effect>,
    ) {
        let reply = match request {
            GroupRequest::List(list) => self.list(&list),
            request => {
                let partition = partition_of(request.group().unwrap_or_default(), GROUP_PARTITIONS);
                match self.shard(partition).seat.standing {
                    Standing::Away => GroupReply::Refused(GroupError::NotCoordinator),
                    Standing::Loading => while_loading(&request),
                    Standing::Serving { .. } => {
                        return self.turn(now, partition, out, |groups, turn| {
                            groups.request(turn, ticket, request)
                        });
                    }
                }
            }
        };
        out.push(Effect::Reply { ticket, reply });
    }

    fn list(&self, list: &List) -> GroupReply {
        if self
            .shards
            .iter()
            .any(|shard| shard.seat.standing == Standing::Loading)
        {
            return GroupReply::Refused(GroupError::CoordinatorLoadInProgress);
        }
        let mut listed = Vec::new();
        self.shards
            .iter()
            .for_each(|shard| shard.groups.list(list, &mut listed));
        GroupReply::Listed(listed)
    }

    fn committed(&mut self, now: Instant, partition: u32, end: Offset, out: &mut Outbox<Effect>) {
        while let Some((then, base)) = self.shard(partition).seat.pop_committed(end) {
            self.turn(now, partition, out, |groups, turn| {
                groups.committed(turn, then, base)
            });
        }
    }

    fn append_failed(
        &mut self,
        now: Instant,
        partition: u32,
        append: AppendId,
        failure: AppendFailure,
        out: &mut Outbox<Effect>,
    ) {
        let error = match failure {
            AppendFailure::NotLeader => GroupError::NotCoordinator,
            AppendFailure::Unavailable => GroupError::CoordinatorNotAvailable,
        };
        match self.shard(partition).seat.fail(append) {
            Failed::Unknown => {}
            Failed::Never(then) => self.turn(now, partition, out, |groups, turn| {
                groups.failed(turn, then, error)
            }),
            Failed::Unsure => {
                let place = self
                    .shard(partition)
                    .seat
                    .get_mut(append)
                    .expect("found just now");
                let mut then = core::mem::replace(place, Then::Nothing);
                self.turn(now, partition, out, |groups, turn| {
                    groups.unsure(turn, &mut then, error)
                });
                *self
                    .shard(partition)
                    .seat
                    .get_mut(append)
                    .expect("nothing left the line") = then;
            }
        }
    }
}

/// Trusted milliseconds since 1970 at `now`, or −1.
fn wall(clock: Option<(WallMs, Instant)>, now: Instant) -> i64 {
    let Some((told, at)) = clock else { return -1 };
    let since = i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX);
    told.0.saturating_add(since)
}

/// What is answered while the log is read. Old clients know no COORDINATOR_LOAD_IN_PROGRESS here: a heartbeat goes
/// through blindly, and a sync's rebalance is lost, as in Kafka.
const fn while_loading(request: &GroupRequest) -> GroupReply {
    match request {
        GroupRequest::Heartbeat(_) => GroupReply::Alive,
        GroupRequest::Sync(_) => GroupReply::Refused(GroupError::RebalanceInProgress),
        _ => GroupReply::Refused(GroupError::CoordinatorLoadInProgress),
    }
}
