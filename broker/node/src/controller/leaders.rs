//! Leaders that should be elsewhere: preferred ones back after a minute in sync, none on a node that is drained, none on
//! a replica that is to leave. A leader that serves is never moved before it gave up: it is asked to hand over, and what
//! it answers is settled as any other resignation. So no two nodes serve a partition at one time (S2).

use core::time::Duration;
use std::collections::BTreeMap;

use model::{Instant, LeaderEpoch, NodeId, TopicPartition};

use super::health::{Life, Standing};
use super::rows::{Change, Draft};
use super::types::{Decision, Effect, Event, NotSpared, Resigned, Why};
use super::{Controller, GaveUp, Planning};
use crate::Outbox;
use crate::catalog::{Catalog, Partition};
use crate::mutation::{self, Mutation};
use crate::sitelog::Replica;

/// A preferred leader leads again when it was in sync for so long.
pub const PREFERRED_AFTER: Duration = Duration::from_secs(60);
/// A leader hands over within this time or goes on: its clients are parked meanwhile, and no client is parked longer.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_millis(1_500);
/// A leader that did not hand over is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// A hand-over that a leader was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    epoch: LeaderEpoch,
    to: NodeId,
    patience: Instant,
    again: Instant,
    overdue: bool,
}

/// Hand-overs and what leads to them.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    asked: BTreeMap<TopicPartition, Asked>,
    /// Since when a preferred leader that does not lead is in sync.
    ready: BTreeMap<TopicPartition, Instant>,
}

impl Leaders {
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// When something is due by time alone, after `now`.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let ready = self.ready.values().map(|since| *since + PREFERRED_AFTER);
        let asked = self
            .asked
            .values()
            .flat_map(|asked| [asked.patience, asked.again]);
        ready.chain(asked).filter(|due| *due > now).min()
    }

    /// Forgets what no partition is concerned with any more, and says who was asked in vain.
    pub(super) fn tidy(&mut self, now: Instant, catalog: &Catalog, out: &mut Outbox<Effect>) {
        let row = |id: &TopicPartition| catalog.partition_row(*id);
        self.ready.retain(|id, _| row(id).is_some());
        self.asked
            .retain(|id, asked| row(id).is_some_and(|row| row.epoch == asked.epoch));
        for (id, asked) in &mut self.asked {
            let leader = row(id).and_then(|row| row.leader);
            if let Some(leader) = leader.filter(|_| now >= asked.patience && !asked.overdue) {
                asked.overdue = true;
                out.push(Effect::Event(Event::NotHandedOver {
                    partition: *id,
                    leader,
                }));
            }
        }
    }
}

impl Controller {
    /// A node gives leaderships up.
    pub(super) fn resign(
        &mut self,
        catalog: &Catalog,
        node: NodeId,
        partitions: Vec<(TopicPartition, LeaderEpoch, Resigned)>,
    ) {
        for (id, epoch, why) in partitions {
            let row = catalog.partition_row(id);
            if row.is_some_and(|row| row.leader == Some(node) && row.epoch == epoch) {
                self.gave_up.insert(id, GaveUp { epoch, why });
                self.dirty = true;
            }
        }
    }

    /// Where a partition's leader should be, if elsewhere than where it is, and whether at once.
    fn should_lead(
        &self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        row: &Partition,
    ) -> Option<(NodeId, bool)> {
        let (catalog, leader) = (planning.catalog, row.leader?);
        let drained = |node| catalog.node(node).is_some_and(|node| node.draining);
        let fit = |replica: &Replica| {
            self.health.standing(now, catalog, *replica) == Standing::Fit && !drained(replica.node)
        };
        if let Some(to) = self.leaves_for(now, planning, id, row) {
            return Some((to, true));
        }
        if drained(leader) {
            let other = row
                .in_sync()
                .find(|replica| replica.node != leader && fit(replica))?;
            return Some((other.node, true));
        }
        let preferred = *row.replicas.first()?;
        let able = preferred.node != leader && row.in_sync().any(|it| it == preferred);
        (able && fit(&preferred)).then(|| (preferred.node, self.elections.wants_preferred(id)))
    }

    /// Asks for hand-overs where a leader should be elsewhere. In a build with a broken rule it moves it itself.
    pub(super) fn hand_over(
        &mut self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        row: &Partition,
    ) -> Option<Change> {
        let Some((to, at_once)) = self.should_lead(now, planning, id, row) else {
            self.leaders.ready.remove(&id);
            return None;
        };
        let since = *self.leaders.ready.entry(id).or_insert(now);
        if !at_once && now < since + PREFERRED_AFTER {
            return None;
        }
        if mutation::is(Mutation::LeaderMovedUnasked) {
            let mut draft = Draft::of(row);
            draft.leader = Some(to);
            let (epoch, why) = (draft.epoch(row), Why::HandedOver);
            return Some(Change {
                id,
                row: draft.row(id, row),
                moving: None,
                said: vec![Decision::Led {
                    leader: to,
                    epoch,
                    why,
                }],
                taken_from: None,
                asked_by: None,
            });
        }
        let leader = row.leader?;
        let earlier = self.leaders.asked.get(&id);
        let waits = earlier.is_some_and(|asked| {
            asked.epoch == row.epoch
                && now < asked.again
                && (asked.to == to || now < asked.patience)
        });
        if !waits {
            let asked = Asked {
                epoch: row.epoch,
                to,
                patience: now + HAND_OVER_PATIENCE,
                again: now + ASK_AGAIN,
                overdue: false,
            };
            self.leaders.asked.insert(id, asked);
            let asks = planning.hand_over.entry(leader).or_default();
            asks.push((id, row.epoch, to));
        }
        None
    }

    /// Whether a node could stop now and nobody would notice: for `/health?drain`.
    ///
    /// # Errors
    /// What would suffer.
    pub fn can_spare(
        &self,
        now: Instant,
        catalog: &Catalog,
        node: NodeId,
    ) -> Result<(), NotSpared> {
        if !self.decides(now) {
            return Err(NotSpared::NotController);
        }
        let away = |other: NodeId, draining: bool| {
            other != node && (draining || self.health.life(now, catalog, other) != Life::Alive)
        };
        if let Some((other, _)) = catalog.nodes().find(|(id, row)| away(*id, row.draining)) {
            return Err(NotSpared::Another(other));
        }
        let voters = &self.settings.voters;
        let left = voters
            .iter()
            .filter(|voter| **voter != node && self.health.hears(now, **voter));
        if left.count() <= voters.len() / 2 {
            return Err(NotSpared::Voters);
        }
        let suffers = catalog.topics().map(|(id, topic)| {
            let needed = min_insync(catalog, id);
            let suffers = |row: &&Partition| {
                let others = row.in_sync().filter(|replica| {
                    replica.node != node
                        && self.health.standing(now, catalog, *replica) == Standing::Fit
                });
                row.replica_on(node).is_some() && others.count() < needed
            };
            topic.partitions.iter().filter(suffers).count()
        });
        match suffers.sum() {
            0 => Ok(()),
            some => Err(NotSpared::Partitions(some)),
        }
    }
}

/// Members in sync without which a topic takes no acks=all.
pub(super) fn min_insync(catalog: &Catalog, id: model::TopicId) -> usize {
    catalog
        .settings(id)
        .map_or(1, |settings| usize::from(settings.partition.min_insync))
}
