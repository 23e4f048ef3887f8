//! The replicas that this node holds, by their small numbers.

use std::collections::BTreeMap;

use model::TopicPartition;
use model::window::PartIx;

use super::{DiskIx, ReplicaIx};
use crate::partition::Partition;

/// One of them.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) id: TopicPartition,
    pub(super) machine: Partition,
    pub(super) disk: DiskIx,
    /// Its number in `__consumer_offsets`, if that is its topic.
    pub(super) internal: Option<u32>,
    /// Part of it was lost with its disk's journal, and nobody has accepted that.
    pub(super) hole: bool,
}

/// See the module. A number stays taken until its disk has let go of what it named.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    slots: Vec<Option<Replica>>,
    free: Vec<ReplicaIx>,
    by_id: BTreeMap<TopicPartition, ReplicaIx>,
}

impl ReplicaIx {
    const fn slot(self) -> usize {
        self.0 as usize
    }

    /// The number under which the replica's producers are remembered.
    pub(super) const fn window(self) -> PartIx {
        PartIx(self.0)
    }
}

impl Replicas {
    /// The number that the next one gets.
    pub(super) fn vacant(&self) -> ReplicaIx {
        let next = u32::try_from(self.slots.len()).expect("a node has a few thousand replicas");
        self.free.last().copied().unwrap_or(ReplicaIx(next))
    }

    pub(super) fn insert(&mut self, replica: Replica) -> ReplicaIx {
        let at = self.vacant();
        self.by_id.insert(replica.id, at);
        match self.free.pop() {
            Some(at) => self.slots[at.slot()] = Some(replica),
            None => self.slots.push(Some(replica)),
        }
        at
    }

    /// The replica serves no partition any more; its machine still answers who waits, until it is released.
    pub(super) fn unlist(&mut self, id: TopicPartition) -> Option<ReplicaIx> {
        self.by_id.remove(&id)
    }

    pub(super) fn release(&mut self, at: ReplicaIx) {
        if self.slots[at.slot()].take().is_some() {
            self.free.push(at);
        }
    }

    pub(super) fn get(&self, at: ReplicaIx) -> Option<&Replica> {
        self.slots.get(at.slot())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: ReplicaIx) -> Option<&mut Replica> {
        self.slots.get_mut(at.slot())?.as_mut()
    }

    pub(super) fn of(&self, id: TopicPartition) -> Option<ReplicaIx> {
        self.by_id.get(&id).copied()
    }

    /// Those that serve a partition, by partition.
    pub(super) fn listed(&self) -> impl Iterator<Item = (TopicPartition, ReplicaIx)> + '_ {
        self.by_id.iter().map(|(id, at)| (*id, *at))
    }

    /// All, those on their way out included, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ReplicaIx, &Replica)> {
        (0..)
            .map(ReplicaIx)
            .zip(&self.slots)
            .filter_map(|(at, slot)| slot.as_ref().map(|replica| (at, replica)))
    }
}
