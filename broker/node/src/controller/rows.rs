//! Rows on their way into an entry: what a partition shall be, and how many fit.

use model::{LeaderEpoch, NodeId, TopicId, TopicPartition};

use super::insync::Asker;
use super::types::Decision;
use crate::catalog::{Partition, ROWS_BYTES_MAX, TOPIC_BYTES};
use crate::mutation::{self, Mutation};
use crate::sitelog::{Entry, Moving, PartitionRow, Reassign, Replica};

/// What a partition shall be, with members in sync as replicas rather than as places.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) replicas: Vec<Replica>,
    pub(super) leader: Option<NodeId>,
    pub(super) isr: Vec<Replica>,
    /// The leader is chosen anew, be it the same one (R1).
    pub(super) elected: bool,
    pub(super) unclean: bool,
}

impl Draft {
    pub(super) fn of(row: &Partition) -> Self {
        Self {
            replicas: row.replicas.clone(),
            leader: row.leader,
            isr: row.in_sync().collect(),
            elected: false,
            unclean: false,
        }
    }

    /// The epoch it would have.
    pub(super) fn epoch(&self, before: &Partition) -> LeaderEpoch {
        // R1: every change of leader, also to the same node, takes the next epoch.
        let changed = self.leader != before.leader || self.elected;
        match changed && !mutation::is(Mutation::EpochKept) {
            true => before.epoch.next(),
            false => before.epoch,
        }
    }

    /// The row that makes it so.
    ///
    /// # Panics
    /// If it is not what may follow `before`: a leader out of sync, or a member without a place.
    pub(super) fn row(&self, id: TopicPartition, before: &Partition) -> PartitionRow {
        let place = |member: &Replica| {
            let at = self.replicas.iter().position(|replica| replica == member);
            u8::try_from(at.expect("who is in sync has a place")).expect("a byte names a replica")
        };
        let mut isr: Vec<u8> = self.isr.iter().map(place).collect();
        isr.sort_unstable();
        let in_sync = |leader| self.isr.iter().any(|member| member.node == leader);
        assert!(
            self.leader.is_none_or(in_sync) || mutation::is(Mutation::OutOfSyncElected),
            "a leader out of sync"
        );
        PartitionRow {
            partition: id.partition,
            replicas: match self.replicas == before.replicas {
                true => Vec::new(),
                false => self.replicas.clone(),
            },
            leader: self.leader,
            epoch: self.epoch(before),
            part_ver: before.part_ver + 1,
            isr,
            unclean: self.unclean,
        }
    }
}

/// One partition's change, ready for an entry.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: TopicPartition,
    pub(super) row: PartitionRow,
    /// It begins to move or ends it, which takes a REASSIGN entry.
    pub(super) moving: Option<Option<Moving>>,
    pub(super) said: Vec<Decision>,
    /// A dead node led it, and does not know yet that it does no more.
    pub(super) taken_from: Option<NodeId>,
    /// Its leader asked for it with AlterIsr.
    pub(super) asked_by: Option<Asker>,
}

impl Change {
    /// Bytes at rest, at most: varints at their longest.
    fn bytes(&self) -> usize {
        let row = |row: &PartitionRow| {
            let replica = 5 + 16;
            5 + 2 + row.replicas.len() * replica + 6 + 5 + 5 + 2 + row.isr.len() + 1
        };
        let moving = self.moving.as_ref().map_or(0, |moving| {
            let nodes = moving
                .as_ref()
                .map_or(0, |moving| moving.from.len() + moving.to.len());
            16 + 1 + 2 + 2 + nodes * 5
        });
        row(&self.row) + moving
    }
}

/// Changes that go into one entry, as many as fit. PARTITION and REASSIGN are two entries: what begins first is taken.
#[derive(Debug, Default)]
pub(super) struct Pack {
    changes: Vec<Change>,
    bytes: usize,
    topic: Option<TopicId>,
}

impl Pack {
    /// Whether there is room for it; then it is in.
    pub(super) fn add(&mut self, change: Change) -> bool {
        let topic = if self.topic == Some(change.id.topic) {
            0
        } else {
            TOPIC_BYTES
        };
        let bytes = change.bytes() + topic;
        if self.bytes + bytes > ROWS_BYTES_MAX && !mutation::is(Mutation::EntryTooLarge) {
            return false;
        }
        self.bytes += bytes;
        self.topic = Some(change.id.topic);
        self.changes.push(change);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The entry, and what it decides.
    pub(super) fn finish(self) -> (Entry, Vec<Change>) {
        let moves = self.changes.iter().all(|change| change.moving.is_some());
        let entry = if moves {
            let reassign = |change: &Change| Reassign {
                topic: change.id.topic,
                row: change.row.clone(),
                moving: change.moving.clone().flatten(),
            };
            Entry::Reassign(self.changes.iter().map(reassign).collect())
        } else {
            let mut topics: Vec<(TopicId, Vec<PartitionRow>)> = Vec::new();
            for change in &self.changes {
                match topics.last_mut().filter(|(id, _)| *id == change.id.topic) {
                    Some((_, rows)) => rows.push(change.row.clone()),
                    None => topics.push((change.id.topic, vec![change.row.clone()])),
                }
            }
            Entry::Partition(topics)
        };
        (entry, self.changes)
    }
}
