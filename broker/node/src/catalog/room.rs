//! What is left on each disk while replicas are given other places, one after the other, in one entry.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::{DiskUuid, NodeId};

use super::types::{DiskSpace, Fault};
use super::{Catalog, TopicRow};
use crate::mutation::{self, Mutation};
use crate::sitelog::Replica;

/// The disks of a site as applied entries and those being planned fill them.
#[derive(Debug)]
pub struct Room<'c> {
    catalog: &'c Catalog,
    disks: Vec<DiskSpace>,
    /// Replicas that each node keeps.
    kept: BTreeMap<NodeId, u32>,
}

impl Catalog {
    /// What is left now.
    #[must_use]
    pub fn room(&self) -> Room<'_> {
        let mut kept = BTreeMap::new();
        let partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        for replica in partitions.flat_map(|partition| &partition.replicas) {
            *kept.entry(replica.node).or_insert(0) += 1;
        }
        Room {
            catalog: self,
            disks: self.disks(),
            kept,
        }
    }
}

impl Room<'_> {
    /// Takes room for another replica of a topic on the emptiest disk of `node` that `usable` allows, the first of equals.
    ///
    /// # Errors
    /// [`Fault::Policy`] names what is needed and what is left.
    pub fn add(
        &mut self,
        topic: &TopicRow,
        node: NodeId,
        usable: impl Fn(DiskUuid) -> bool,
    ) -> Result<Replica, Fault> {
        let (kept, most) = (
            self.kept.entry(node).or_insert(0),
            self.catalog.rules.replicas_max,
        );
        if *kept >= most {
            return Err(Fault::Policy(format!(
                "topic '{}' does not fit: broker {} keeps {kept} partition replicas, {most} are allowed",
                topic.name, node.0
            )));
        }
        let replica = self.put(topic, node, usable)?;
        *self.kept.entry(node).or_insert(0) += 1;
        Ok(replica)
    }

    /// The same for a replica that its node keeps already, on a disk that is no more.
    ///
    /// # Errors
    /// [`Fault::Policy`] names what is needed and what is left.
    pub fn put(
        &mut self,
        topic: &TopicRow,
        node: NodeId,
        usable: impl Fn(DiskUuid) -> bool,
    ) -> Result<Replica, Fault> {
        let bytes = match mutation::is(Mutation::MoveReservesNothing) {
            true => 0,
            false => self.catalog.reserves(topic),
        };
        let best = self
            .disks
            .iter_mut()
            .filter(|disk| disk.node == node && usable(disk.disk))
            .min_by_key(|disk| (Reverse(disk.left()), disk.replicas));
        match best {
            None => Err(Fault::Policy(format!(
                "topic '{}' finds no disk in service on broker {}",
                topic.name, node.0
            ))),
            Some(disk) if bytes > disk.left() => Err(Fault::Policy(format!(
                "topic '{}' does not fit: a replica needs {} and the emptiest disk of broker {} has {} left",
                topic.name,
                super::place::Size(bytes),
                node.0,
                super::place::Size(disk.left()),
            ))),
            Some(disk) => {
                disk.reserved += bytes;
                disk.replicas += 1;
                Ok(Replica {
                    node,
                    disk: disk.disk,
                })
            }
        }
    }
}
