//! What time and the lease do to the coordinator: timers and chores within the lease, refusals outside it (R8).

use std::rc::Rc;

use model::Instant;

use super::seat::Standing;
use super::types::Effect;
use super::{Coordinator, Shard};
use crate::Outbox;
use crate::group::{GroupError, GroupReply, Groups};
use crate::partition::PARK_MAX;

/// How often offsets are looked through for those whose retention is over; Kafka's
/// `offsets.retention.check.interval.ms`.
const EXPIRY_EVERY: core::time::Duration = core::time::Duration::from_secs(10 * 60);

/// Work that concerns every group of a partition within the lease. One is done a step, because each may answer, or
/// write for, as many groups and members as a pool holds, and a step's effects are bounded.
#[derive(Debug)]
pub(super) enum Chore {
    /// Offsets whose time is over.
    Expire { partition: u32 },
    /// Offsets in a topic that is gone.
    ForgetTopic { partition: u32, topic: Rc<str> },
}

impl Chore {
    pub(super) const fn partition(&self) -> u32 {
        match self {
            Self::Expire { partition } | Self::ForgetTopic { partition, .. } => *partition,
        }
    }
}

impl Coordinator {
    pub(super) fn lease(&mut self, now: Instant, until: Instant, out: &mut Outbox<Effect>) {
        let lapsed = (!self.leased(now)).then_some(self.lease_until);
        self.lease_until = until;
        let Some(lapsed) = lapsed.filter(|_| self.leased(now)) else {
            return;
        };
        (self.lapsed, self.lapse_answered) = (false, false);
        self.shards
            .iter_mut()
            .for_each(|shard| shard.refusing = false);
        for partition in self.serving() {
            let Standing::Serving { since } = self.shard(partition).seat.standing else {
                continue;
            };
            let silence = now.since(lapsed.max(since));
            self.turn(now, partition, out, |groups, turn| {
                groups.resume(turn, silence, silence > PARK_MAX)
            });
        }
        for (_, ticket, reply) in self.held.drain(..) {
            out.push(Effect::Reply { ticket, reply });
        }
        for parked in self.parking.take() {
            self.serve(now, parked.ticket, *parked.request, out);
        }
    }

    /// Lets happen what is due, for one partition a step: timers and chores within the lease, refusals outside it.
    pub(super) fn time_passes(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if !self.leased(now) {
            return self.lapse_passes(now, out);
        }
        let due = |shard: &Shard| {
            shard.seat.serves() && shard.groups.deadline().is_some_and(|at| at <= now)
        };
        if let Some(at) = self.shards.iter().position(due) {
            let partition = u32::try_from(at).expect("there are a few partitions");
            return self.turn(now, partition, out, Groups::time_passes);
        }
        if self.expiry_due.is_none_or(|due| due <= now) {
            // Nothing is deleted by a time that can't be trusted, nor in the first minutes of a life.
            if self.expiry_due.is_some() && self.clock.is_some() {
                let chores = self
                    .serving()
                    .into_iter()
                    .map(|partition| Chore::Expire { partition });
                self.chores.extend(chores);
            }
            self.expiry_due = Some(now + EXPIRY_EVERY);
        }
        match self.chores.pop_front() {
            Some(Chore::Expire { partition }) => self.turn(now, partition, out, Groups::expire),
            Some(Chore::ForgetTopic { partition, topic }) => {
                self.turn(now, partition, out, |groups, turn| {
                    groups.topic_deleted(turn, &topic)
                });
            }
            None => {}
        }
    }

    fn lapse_passes(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        self.lapsed = true;
        while let Some(ticket) = self.parking.pop_late(now) {
            let reply = GroupReply::Refused(GroupError::NotCoordinator);
            out.push(Effect::Reply { ticket, reply });
        }
        if !self.lapse_answered && self.lease_until + PARK_MAX <= now {
            self.lapse_answered = true;
            self.shards
                .iter_mut()
                .for_each(|shard| shard.refusing = shard.seat.serves());
        }
        if let Some(at) = self.shards.iter().position(|shard| shard.refusing) {
            self.shards[at].refusing = false;
            self.refuse_waiting(
                now,
                u32::try_from(at).expect("there are a few partitions"),
                out,
            );
        }
    }

    pub(super) fn topic_deleted(&mut self, topic: &Rc<str>) {
        for (partition, shard) in (0..).zip(&mut self.shards) {
            match shard.seat.standing {
                Standing::Away => {}
                Standing::Loading => shard.topics_gone.push(topic.clone()),
                Standing::Serving { .. } => {
                    let topic = topic.clone();
                    self.chores
                        .push_back(Chore::ForgetTopic { partition, topic });
                }
            }
        }
    }
}
