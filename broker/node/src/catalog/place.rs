//! Where replicas go and what they reserve: what topics promise never exceeds what their disks hold.
//!
//! A replica reserves its quota and one extent of the class that holds the topic's largest batch. A topic that names no
//! quota gets a share: an eighth of what is unreserved on its disks, split over its replicas there. Internal topics
//! reserve nothing: the percent of each disk that is kept for them is not among the bytes that nodes register.

use core::fmt;
use std::cmp::Reverse;

use model::{DiskUuid, NodeId};

use super::Catalog;
use super::types::{DiskSpace, Fault, Rules};
use crate::sitelog::Replica;

const MIB: u64 = 1 << 20;

/// What each replica of a topic takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// A quota of so many bytes.
    Quota(u64),
    /// A share of what is left.
    Share,
    /// Nothing of what topics may reserve.
    Internal,
}

/// Whom a partition's replicas are asked from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seats<'a> {
    /// So many partitions with so many replicas each, on nodes in turn.
    Any { partitions: u32, replication: u16 },
    /// On these nodes, preferred leader first.
    Given(&'a [Vec<NodeId>]),
}

/// Replicas with their places.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// By partition.
    pub(super) partitions: Vec<Vec<Replica>>,
    /// What each of them gets if it asked for a share, or is internal; else 0.
    pub(super) share: u64,
}

struct Disk {
    space: DiskSpace,
    /// Replicas of this topic that were put here.
    taken: u64,
}

/// Puts one topic's replicas on disks.
pub(super) struct Dealer<'c> {
    rules: &'c Rules,
    topic: &'c str,
    extent: u64,
    /// Nodes in order, each with its disks and how many replicas it keeps.
    nodes: Vec<(NodeId, Vec<Disk>, u32)>,
    /// Nodes take the first replica of a partition in turn, over all topics.
    turn: usize,
}

impl Catalog {
    /// The space of every registered disk.
    pub fn disks(&self) -> Vec<DiskSpace> {
        let mut disks: Vec<DiskSpace> = self
            .nodes
            .iter()
            .flat_map(|(node, row)| row.disks.iter().map(|disk| (*node, *disk)))
            .map(|(node, disk)| DiskSpace {
                node,
                disk: disk.uuid,
                bytes: disk.bytes,
                reserved: 0,
                replicas: 0,
            })
            .collect();
        for topic in self.topics.values() {
            let need = self.reserves(topic);
            for replica in topic
                .partitions
                .iter()
                .flat_map(|partition| &partition.replicas)
            {
                if let Some(disk) = disks.iter_mut().find(|disk| disk.disk == replica.disk) {
                    disk.reserved = disk.reserved.saturating_add(need);
                    disk.replicas += 1;
                }
            }
        }
        disks
    }

    /// Bytes that each replica of a topic reserves.
    pub(super) fn reserves(&self, topic: &super::TopicRow) -> u64 {
        if super::is_internal(&topic.name) {
            return 0;
        }
        let quota = super::configs::named_quota(&topic.configs).unwrap_or(topic.share);
        quota.saturating_add(self.extent(&topic.configs))
    }

    /// One extent of the class that holds the largest batch.
    pub(super) fn extent(&self, configs: &crate::sitelog::Configs) -> u64 {
        (self.rules.extent_for)(super::configs::message_bytes(configs, &self.rules))
    }

    /// A dealer over what is left, for a topic with this extent.
    pub(super) fn dealer<'c>(&'c self, topic: &'c str, extent: u64) -> Dealer<'c> {
        let spaces = self.disks();
        let nodes = self
            .nodes
            .keys()
            .map(|node| {
                let disks: Vec<Disk> = spaces
                    .iter()
                    .filter(|space| space.node == *node)
                    .map(|space| Disk {
                        space: *space,
                        taken: 0,
                    })
                    .collect();
                let replicas = self.topics.values().flat_map(|topic| &topic.partitions);
                let kept = replicas
                    .filter(|partition| partition.replica_on(*node).is_some())
                    .count();
                (*node, disks, u32::try_from(kept).unwrap_or(u32::MAX))
            })
            .filter(|(_, disks, _)| !disks.is_empty())
            .collect();
        let turn = self
            .topics
            .values()
            .map(|topic| topic.partitions.len())
            .sum();
        Dealer {
            rules: &self.rules,
            topic,
            extent,
            nodes,
            turn,
        }
    }
}

impl Dealer<'_> {
    /// Nodes that have disks.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Gives every replica a disk, or says what is needed and what is left.
    pub(super) fn deal(&mut self, seats: Seats<'_>, need: Need) -> Result<Placed, Fault> {
        let partitions = match seats {
            Seats::Any {
                partitions,
                replication,
            } => {
                let all = self.nodes.len();
                if usize::from(replication) > all {
                    return Err(Fault::InvalidReplication(format!(
                        "replication factor {replication} is larger than the number of brokers, {all}"
                    )));
                }
                (0..partitions)
                    .map(|_| {
                        let first = self.turn % all.max(1);
                        self.turn += 1;
                        (0..usize::from(replication))
                            .map(|next| self.put((first + next) % all, need))
                            .collect()
                    })
                    .collect::<Result<_, _>>()?
            }
            Seats::Given(given) => given
                .iter()
                .map(|nodes| {
                    let place = |node: &NodeId| {
                        let known = self.nodes.iter().position(|(known, ..)| known == node);
                        known.ok_or_else(|| {
                            Fault::InvalidAssignment(format!("this site has no broker {}", node.0))
                        })
                    };
                    let places: Vec<usize> = nodes.iter().map(place).collect::<Result<_, _>>()?;
                    places
                        .into_iter()
                        .map(|node| self.put(node, need))
                        .collect()
                })
                .collect::<Result<_, _>>()?,
        };
        let share = match need {
            Need::Quota(_) => 0,
            Need::Share => self.share()?,
            Need::Internal => self.internal_share(),
        };
        Ok(Placed { partitions, share })
    }

    /// Takes the emptiest disk of a node, the first of equals.
    fn put(&mut self, node: usize, need: Need) -> Result<Replica, Fault> {
        let (id, disks, kept) = &mut self.nodes[node];
        if *kept >= self.rules.replicas_max {
            return Err(Fault::Policy(format!(
                "topic '{}' does not fit: broker {} keeps {kept} partition replicas, {} are allowed",
                self.topic, id.0, self.rules.replicas_max
            )));
        }
        let room = |disk: &Disk| match need {
            Need::Quota(_) => disk.space.left(),
            Need::Share => disk.space.left() / (disk.taken + 1),
            Need::Internal => disk.space.bytes / (disk.taken + 1),
        };
        let best = disks
            .iter_mut()
            .min_by_key(|disk| (Reverse(room(disk)), disk.space.replicas))
            .expect("nodes without disks are not among these");
        if let Need::Quota(quota) = need {
            let bytes = quota.saturating_add(self.extent);
            if bytes > best.space.left() {
                return Err(Fault::Policy(format!(
                    "topic '{}' does not fit: a replica needs {} and one extent of {}, the emptiest disk of broker {} has {} left",
                    self.topic,
                    Size(quota),
                    Size(self.extent),
                    id.0,
                    Size(best.space.left()),
                )));
            }
            best.space.reserved += bytes;
        }
        best.taken += 1;
        best.space.replicas += 1;
        *kept += 1;
        Ok(Replica {
            node: *id,
            disk: best.space.disk,
        })
    }

    fn taken(&self) -> impl Iterator<Item = &Disk> {
        self.nodes
            .iter()
            .flat_map(|(_, disks, _)| disks)
            .filter(|disk| disk.taken > 0)
    }

    /// What each replica gets: as much as the fullest of their disks can give.
    fn share(&self) -> Result<u64, Fault> {
        let least = self.rules.share_bytes_min;
        let each = |disk: &Disk| disk.space.left() / self.rules.share_part / disk.taken / MIB * MIB;
        let share = self.taken().map(each).min().unwrap_or(0).max(least);
        // The least may be more than an eighth; extents come on top.
        for disk in self.taken() {
            let need = (share + self.extent).saturating_mul(disk.taken);
            if need > disk.space.left() {
                return Err(Fault::Policy(format!(
                    "topic '{}' does not fit: its {} replicas on one disk need {} and one extent of {} each, {} together; {} are left there",
                    self.topic,
                    disk.taken,
                    Size(share),
                    Size(self.extent),
                    Size(need),
                    Size(disk.space.left()),
                )));
            }
        }
        Ok(share)
    }

    /// What each replica of an internal topic may hold: the percent kept on each disk, half of it for the compactor.
    fn internal_share(&self) -> u64 {
        let each = |disk: &Disk| disk.space.bytes / 99 / 2 / disk.taken / MIB * MIB;
        self.taken().map(each).min().unwrap_or(0).max(MIB)
    }

    /// Whether replicas on these disks fit with a quota; what they hold now must have been let go before.
    pub(super) fn refit(
        &mut self,
        replicas: &[Replica],
        held: u64,
        need: Need,
    ) -> Result<u64, Fault> {
        for replica in replicas {
            // A disk that is not registered now is away: its space is checked when it is back in a topic's way.
            if let Some(disk) = self.disk(replica.disk) {
                disk.space.reserved = disk.space.reserved.saturating_sub(held);
                disk.taken += 1;
            }
        }
        if let Need::Quota(quota) = need {
            let bytes = quota.saturating_add(self.extent);
            if let Some(tight) = self
                .taken()
                .find(|disk| bytes.saturating_mul(disk.taken) > disk.space.left())
            {
                return Err(Fault::Policy(format!(
                    "topic '{}' does not fit: its {} replicas on one disk need {} and one extent of {} each; {} are left there, with what they reserve now",
                    self.topic,
                    tight.taken,
                    Size(quota),
                    Size(self.extent),
                    Size(tight.space.left()),
                )));
            }
            return Ok(0);
        }
        self.share()
    }

    fn disk(&mut self, uuid: DiskUuid) -> Option<&mut Disk> {
        self.nodes
            .iter_mut()
            .flat_map(|(_, disks, _)| disks)
            .find(|disk| disk.space.disk == uuid)
    }
}

/// Bytes for people.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (MIB, "MiB"),
            (1 << 10, "KiB"),
        ];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) if self.0.is_multiple_of(unit) => {
                write!(f, "{} {name}", self.0 / unit)
            }
            // Cut, not rounded: nothing is said to be left that is not.
            Some((unit, name)) => {
                let tenths = u128::from(self.0) * 10 / u128::from(unit);
                write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} B", self.0),
        }
    }
}
