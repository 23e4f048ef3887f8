//! Replicas that get other places: reassignments (KIP-455), in the order adding, in sync, removing; and disks that were
//! taken out of their node, whose replicas begin anew on the disk in their place.

use model::{Instant, NodeId, TopicPartition};

use super::health::{Life, Standing};
use super::leaders::min_insync;
use super::rows::{Change, Draft};
use super::types::{Decision, Event, MoveFault};
use super::{Controller, Planning};
use crate::catalog::{Catalog, Fault, Partition};
use crate::mutation::{self, Mutation};
use crate::sitelog::{DiskState, Moving, Replica};

/// Replicas of a partition; a byte names one.
const REPLICAS_MAX: usize = 127;

impl Controller {
    /// What a client's wish makes of a partition: `Ok(None)` if nothing.
    pub(super) fn reassign(
        &self,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        to: Option<&[NodeId]>,
    ) -> Result<Option<Change>, MoveFault> {
        let catalog = planning.catalog;
        let row = catalog.partition_row(id).ok_or(MoveFault::Unknown)?;
        let ongoing = catalog.moving_to(id);
        let nodes = || row.replicas.iter().map(|replica| replica.node).collect();
        let (from, to) = match (to, ongoing) {
            // Calling it off is moving back.
            (None, Some(moving)) => (moving.from.clone(), moving.from.clone()),
            (None, None) => return Err(MoveFault::NotMoving),
            (Some(to), Some(moving)) => (moving.from.clone(), to.to_vec()),
            (Some(to), None) => (nodes(), to.to_vec()),
        };
        check(catalog, &to)?;
        let mut draft = Draft::of(row);
        draft.replicas.clear();
        for node in &to {
            let replica = match row.replica_on(*node) {
                Some(replica) => replica,
                None => self.place(planning, id, *node).map_err(MoveFault::Room)?,
            };
            draft.replicas.push(replica);
        }
        let leaving = row
            .replicas
            .iter()
            .filter(|replica| !to.contains(&replica.node));
        draft.replicas.extend(leaving);
        if draft.replicas.len() > REPLICAS_MAX {
            return Err(MoveFault::Assignment(format!(
                "on its way a partition has at most {REPLICAS_MAX} replicas"
            )));
        }
        // What came with an earlier target must be in sync as well.
        let in_sync = |node: &NodeId| row.in_sync().any(|member| member.node == *node);
        let there = |node: &NodeId| from.contains(node) || in_sync(node);
        let arrived = draft.replicas.len() == to.len() && to.iter().all(there);
        if arrived && ongoing.is_none() && draft.replicas == row.replicas {
            return Ok(None);
        }
        let said = vec![Decision::Moves { to: to.clone() }];
        let moving = (!arrived).then_some(Moving { from, to });
        Ok(Some(Change {
            id,
            row: draft.row(id, row),
            moving: Some(moving),
            said,
            taken_from: None,
            asked_by: None,
        }))
    }

    /// Room for a new replica on a node, on a disk in service.
    fn place(
        &self,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        node: NodeId,
    ) -> Result<Replica, Fault> {
        let catalog = planning.catalog;
        let topic = catalog.topic(id.topic).ok_or(Fault::UnknownTopicId)?;
        // Of a node that is away, nothing is known but what it registered.
        let heard = self.health.heard(node);
        let usable = |disk| heard.is_none_or(|beat| beat.disks.contains(&(disk, DiskState::Clean)));
        planning.room().add(topic, node, usable)
    }

    /// A reassignment that may end: what was added is in sync, and enough of what stays is.
    pub(super) fn arrive(
        &self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        row: &Partition,
    ) -> Option<Change> {
        let moving = planning.catalog.moving_to(id)?;
        if !self.in_sync_there(now, planning, id, row, moving) || !moving.to.contains(&row.leader?)
        {
            return None;
        }
        let mut draft = Draft::of(row);
        draft.replicas = moving
            .to
            .iter()
            .filter_map(|node| row.replica_on(*node))
            .collect();
        draft.isr.retain(|member| moving.to.contains(&member.node));
        Some(Change {
            id,
            row: draft.row(id, row),
            moving: Some(None),
            said: vec![Decision::Arrived],
            taken_from: None,
            asked_by: None,
        })
    }

    /// Whom a leader that is to leave should hand over to.
    pub(super) fn leaves_for(
        &self,
        now: Instant,
        planning: &Planning<'_>,
        id: TopicPartition,
        row: &Partition,
    ) -> Option<NodeId> {
        let moving = planning.catalog.moving_to(id)?;
        let stays = moving.to.contains(&row.leader?);
        if stays || !self.in_sync_there(now, planning, id, row, moving) {
            return None;
        }
        let fit = |node: &&NodeId| {
            let replica = row.in_sync().find(|replica| replica.node == **node);
            replica.is_some_and(|replica| {
                self.health.standing(now, planning.catalog, replica) == Standing::Fit
            })
        };
        moving.to.iter().find(fit).copied()
    }

    fn in_sync_there(
        &self,
        now: Instant,
        planning: &Planning<'_>,
        id: TopicPartition,
        row: &Partition,
        moving: &Moving,
    ) -> bool {
        let in_sync = |node: &NodeId| row.in_sync().any(|member| member.node == *node);
        let added = moving.to.iter().filter(|node| !moving.from.contains(node));
        let there = moving.to.iter().filter(|node| in_sync(node)).count();
        let enough = min_insync(planning.catalog, id.topic).min(moving.to.len());
        let leads = row
            .leader
            .and_then(|leader| row.replica_on(leader))
            .is_some_and(|it| self.health.standing(now, planning.catalog, it) == Standing::Fit);
        let added_in_sync = added.clone().all(in_sync) || mutation::is(Mutation::MovedBeforeInSync);
        leads && added_in_sync && there >= enough
    }

    /// Replicas whose disk was taken out of their node begin anew on another disk of it. One that is in sync waits for its
    /// disk: nobody else may have what it has.
    pub(super) fn replace(
        &self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        row: &Partition,
    ) -> Option<Change> {
        let mut draft = Draft::of(row);
        let mut said = Vec::new();
        for (at, replica) in row.replicas.iter().enumerate() {
            if row.in_sync().any(|member| member == *replica) {
                continue;
            }
            match self.replaced(now, planning, id, *replica) {
                None => {}
                Some(Ok(anew)) => {
                    draft.replicas[at] = anew;
                    said.push(Decision::Replaced { replica: anew });
                }
                Some(Err(_)) => planning.no_place(id, replica.node),
            }
        }
        (!said.is_empty()).then(|| Change {
            id,
            row: draft.row(id, row),
            moving: None,
            said,
            taken_from: None,
            asked_by: None,
        })
    }

    /// The place of a replica whose disk was taken out; `None` if it was not.
    pub(super) fn replaced(
        &self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        replica: Replica,
    ) -> Option<Result<Replica, Fault>> {
        if !self.taken_out(now, planning.catalog, replica) {
            return None;
        }
        let topic = planning.catalog.topic(id.topic)?;
        let beat = self.health.heard(replica.node)?;
        let usable = |disk| beat.disks.contains(&(disk, DiskState::Clean));
        Some(planning.room().put(topic, replica.node, usable))
    }

    /// Whether the disk of a replica is no more: its node is alive without it, and has as many others as the site file
    /// gives it. While one of those is missing, this may be it.
    pub(super) fn taken_out(&self, now: Instant, catalog: &Catalog, replica: Replica) -> bool {
        let Some(node) = catalog.node(replica.node) else {
            return false;
        };
        let listed = self.health.heard(replica.node).is_some_and(|beat| {
            let known = |(disk, _): &(_, _)| *disk == replica.disk;
            beat.disks.iter().any(known)
        });
        let named = self.settings.nodes.iter();
        let mut named = named.filter(|(id, _)| *id == replica.node);
        let all = named.any(|(_, disks)| node.disks.len() >= *disks);
        self.health.life(now, catalog, replica.node) == Life::Alive
            && !listed
            && all
            && !node.disks.iter().any(|disk| disk.uuid == replica.disk)
    }
}

/// A client's choice of nodes.
fn check(catalog: &Catalog, to: &[NodeId]) -> Result<(), MoveFault> {
    let twice = |(at, node): (usize, &NodeId)| to[..at].contains(node);
    if to.is_empty() || to.len() > REPLICAS_MAX || to.iter().enumerate().any(twice) {
        return Err(MoveFault::Assignment(format!(
            "a partition has at least one replica and at most {REPLICAS_MAX}, each on another broker"
        )));
    }
    match to.iter().find(|node| catalog.node(**node).is_none()) {
        Some(node) => Err(MoveFault::Assignment(format!(
            "this site has no broker {}",
            node.0
        ))),
        None => Ok(()),
    }
}

impl Planning<'_> {
    fn no_place(&mut self, partition: TopicPartition, node: NodeId) {
        self.events.push(Event::NoPlace { partition, node });
    }
}
