//! The catalog: what the site log's entries add up to.
//!
//! Entries change it and nothing else does, so every node that applied the same ones holds the same; what an entry means
//! to this node comes out as effects. What clients and the site file wish is turned into entries beside it ([`topics`],
//! [`starts`]) against what is applied: one wish at a time, the next when the last one's entry was applied. An entry that
//! does not fit what is applied is passed over, by every node alike.
//!
//! It knows the site file's defaults but never writes them down: what a topic is promised is in its entry.

use std::collections::BTreeMap;

use model::{
    DiskUuid, Incarnation, LeaderEpoch, NodeId, PartitionIndex, ProducerId, SiteUuid, TopicId,
    TopicPartition,
};

use crate::Outbox;
use crate::mutation::{self, Mutation};
use crate::partition::Member;
use crate::sitelog::{Entry, Moving, Node, PIDS_BLOCK, PartitionRow, Record, Topic, Voters};

mod configs;
mod names;
mod place;
mod room;
mod snapshot;
mod starts;
#[cfg(test)]
mod tests;
mod topics;
mod types;

pub use configs::{Config, ConfigKind, Source, TopicSettings};
pub use names::{
    INTERNAL_TOPICS, OFFSETS_TOPIC, TOPIC_NAME_CHARS_MAX, is_internal, topic_name_fault,
};
pub use room::Room;
pub use snapshot::SnapshotFault;
pub(crate) use starts::{ROWS_BYTES_MAX, TOPIC_BYTES};
pub use types::{
    Alter, CreateTopic, Declared, DiskSpace, Effect, Fault, NodeRow, Partition, PlannedTopic,
    Rules, TopicRow,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Catalog {
    me: NodeId,
    rules: Rules,
    site: Option<SiteUuid>,
    site_version: u16,
    nodes: BTreeMap<NodeId, NodeRow>,
    topics: BTreeMap<TopicId, TopicRow>,
    /// Ids by name, of all topics.
    names: BTreeMap<String, TopicId>,
    /// Partitions on their way to other replicas.
    moving: BTreeMap<TopicPartition, Moving>,
    /// No block of producer ids reaches it yet.
    next_pid: ProducerId,
    /// Who votes; `None` until an entry says so.
    voters: Option<Voters>,
}

impl Catalog {
    /// The catalog of a site without entries, as node `me` sees it.
    #[must_use]
    pub const fn new(me: NodeId, rules: Rules) -> Self {
        Self {
            me,
            rules,
            site: None,
            site_version: 0,
            nodes: BTreeMap::new(),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            moving: BTreeMap::new(),
            next_pid: ProducerId(0),
            voters: None,
        }
    }

    /// The site's identity, once it has one.
    #[must_use]
    pub const fn site(&self) -> Option<SiteUuid> {
        self.site
    }

    /// Who votes on the site log, kept for its snapshot: the site log itself counts an entry from its append on.
    #[must_use]
    pub const fn voters(&self) -> Option<&Voters> {
        self.voters.as_ref()
    }

    /// No entry of a higher version is in the log.
    #[must_use]
    pub const fn site_version(&self) -> u16 {
        self.site_version
    }

    /// A registered node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeRow> {
        self.nodes.get(&id)
    }

    /// Partitions on their way to other replicas, with where from and where to.
    pub fn moving(&self) -> impl Iterator<Item = (TopicPartition, &Moving)> {
        self.moving.iter().map(|(id, moving)| (*id, moving))
    }

    /// Where a partition is on its way to, if it is.
    #[must_use]
    pub fn moving_to(&self, id: TopicPartition) -> Option<&Moving> {
        self.moving.get(&id)
    }

    /// All partitions, topic by topic.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.topics.iter().flat_map(|(topic, row)| {
            indexed(&row.partitions).map(|(partition, row)| {
                let topic = *topic;
                (TopicPartition { topic, partition }, row)
            })
        })
    }

    /// A partition as applied.
    #[must_use]
    pub fn partition_row(&self, id: TopicPartition) -> Option<&Partition> {
        self.partition(id.topic, id.partition)
    }

    /// The registered nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeRow)> {
        self.nodes.iter().map(|(id, row)| (*id, row))
    }

    /// All topics, by id.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &TopicRow)> {
        self.topics.iter().map(|(id, row)| (*id, row))
    }

    /// A topic.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&TopicRow> {
        self.topics.get(&id)
    }

    /// A topic's id.
    #[must_use]
    pub fn id_of(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    /// Every config of a topic, with its default and who set it.
    #[must_use]
    pub fn configs(&self, id: TopicId) -> Option<Vec<Config>> {
        let topic = self.topics.get(&id)?;
        Some(configs::described(&topic.configs, topic.share, &self.rules))
    }

    /// The broker's configs that are defaults of its topics.
    #[must_use]
    pub fn broker_configs(&self) -> Vec<Config> {
        configs::of_broker(&self.rules)
    }

    /// What a topic's configs mean to its partitions.
    #[must_use]
    pub fn settings(&self, id: TopicId) -> Option<TopicSettings> {
        self.topics
            .get(&id)
            .map(|topic| configs::settings(topic, &self.rules))
    }

    /// Who a replica is as far as being in sync goes.
    #[must_use]
    pub fn member(&self, replica: crate::sitelog::Replica) -> Member {
        let incarnation = self
            .nodes
            .get(&replica.node)
            .map_or(Incarnation::default(), |node| node.incarnation);
        Member {
            node: replica.node,
            incarnation,
            disk: replica.disk,
        }
    }

    /// The replicas of this node: what a snapshot holds comes as these effects, without leaders. Those come by the
    /// entries that follow, in new epochs.
    pub fn replicas_here(&self, out: &mut Outbox<Effect>) {
        for (id, topic) in &self.topics {
            for (partition, row) in indexed(&topic.partitions) {
                if let Some(replica) = row.replica_on(self.me) {
                    out.push(Effect::Replica {
                        topic: *id,
                        partition,
                        replica,
                    });
                }
            }
        }
    }

    /// Applies a committed entry. Each comes once, in the order of the log.
    pub fn apply(&mut self, record: &Record, out: &mut Outbox<Effect>) {
        match &record.entry {
            // A newer release's kind that may be passed over.
            None | Some(Entry::Term) => {}
            Some(Entry::Site { uuid }) => {
                self.site.get_or_insert(*uuid);
            }
            Some(Entry::Node(node)) => self.apply_node(node, out),
            Some(Entry::Topic(topic)) => self.apply_topic(topic, out),
            Some(Entry::Partition(topics)) => {
                for (topic, rows) in topics {
                    for row in rows {
                        self.apply_row(*topic, row, out);
                    }
                }
            }
            Some(Entry::Reassign(rows)) => {
                for it in rows {
                    if !self.apply_row(it.topic, &it.row, out) {
                        continue;
                    }
                    let id = TopicPartition {
                        topic: it.topic,
                        partition: it.row.partition,
                    };
                    match &it.moving {
                        Some(moving) => self.moving.insert(id, moving.clone()),
                        None => self.moving.remove(&id),
                    };
                }
            }
            Some(Entry::TopicDel { topic }) => self.apply_deletion(*topic, out),
            Some(Entry::Config {
                topic,
                configs,
                share,
            }) => {
                if let Some(row) = self.topics.get_mut(topic) {
                    row.configs.clone_from(configs);
                    row.share = *share;
                    out.push(Effect::Configured { topic: *topic });
                }
            }
            Some(Entry::Pids { node, first }) => {
                self.next_pid = self
                    .next_pid
                    .max(ProducerId(first.0.saturating_add(PIDS_BLOCK)));
                if *node == self.me {
                    out.push(Effect::Pids { first: *first });
                }
            }
            Some(Entry::Drain { node, on }) => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.draining = *on;
                }
            }
            Some(Entry::SiteVersion { version }) => {
                self.site_version = self.site_version.max(*version)
            }
            Some(Entry::Voters(voters)) => self.voters = Some(voters.clone()),
        }
        self.check();
    }

    fn apply_node(&mut self, node: &Node, out: &mut Outbox<Effect>) {
        let before = self.nodes.get(&node.id);
        // R9: a node that lost its promises is another one; what it held in sync counts no more.
        let reborn = before.is_some_and(|before| before.incarnation != node.incarnation);
        let row = NodeRow {
            incarnation: node.incarnation,
            disks: node.disks.clone(),
            versions: node.versions,
            public_key: node.public_key.clone(),
            draining: before.is_some_and(|before| before.draining),
        };
        self.nodes.insert(node.id, row);
        if reborn && !mutation::is(Mutation::IncarnationStaysInSync) {
            self.leave_every_isr(node.id, out);
        }
    }

    fn leave_every_isr(&mut self, node: NodeId, out: &mut Outbox<Effect>) {
        let mut rows = Vec::new();
        for (id, topic) in &self.topics {
            for (partition, row) in indexed(&topic.partitions) {
                let is_node = |place: &&u8| row.replicas[usize::from(**place)].node == node;
                if !row.isr.iter().any(|place| is_node(&place)) && row.leader != Some(node) {
                    continue;
                }
                let led = row.leader == Some(node);
                rows.push((
                    *id,
                    PartitionRow {
                        partition,
                        replicas: Vec::new(),
                        leader: row.leader.filter(|_| !led),
                        epoch: if led { row.epoch.next() } else { row.epoch },
                        part_ver: row.part_ver + 1,
                        isr: row
                            .isr
                            .iter()
                            .filter(|place| !is_node(place))
                            .copied()
                            .collect(),
                        unclean: false,
                    },
                ));
            }
        }
        for (topic, row) in rows {
            self.apply_row(topic, &row, out);
        }
    }

    fn apply_topic(&mut self, topic: &Topic, out: &mut Outbox<Effect>) {
        let there = self.names.contains_key(&topic.name) || self.topics.contains_key(&topic.id);
        if there
            || topic.partitions.is_empty()
            || topic.partitions.iter().any(|replicas| !placed(replicas))
        {
            return;
        }
        self.names.insert(topic.name.clone(), topic.id);
        let row = TopicRow {
            name: topic.name.clone(),
            configs: topic.configs.clone(),
            share: topic.share,
            partitions: topic
                .partitions
                .iter()
                .map(|replicas| Partition::new(replicas.clone()))
                .collect(),
        };
        self.topics.insert(topic.id, row);
        for partition in (0..).map(PartitionIndex).take(topic.partitions.len()) {
            self.say_new(topic.id, partition, out);
        }
    }

    /// A partition's row, if it follows on what is applied: new ones by number, others by version and epoch. Says whether
    /// it did.
    fn apply_row(&mut self, id: TopicId, row: &PartitionRow, out: &mut Outbox<Effect>) -> bool {
        let me = self.me;
        let Some(topic) = self.topics.get_mut(&id) else {
            return false;
        };
        let index = row.partition;
        let known = usize::try_from(index.0).expect("32 bits");
        if known == topic.partitions.len() {
            if !placed(&row.replicas) {
                return false;
            }
            topic.partitions.push(Partition::new(row.replicas.clone()));
            self.say_new(id, index, out);
            return true;
        }
        let Some(partition) = topic.partitions.get_mut(known) else {
            return false;
        };
        let replicas = if row.replicas.is_empty() {
            &partition.replicas
        } else {
            &row.replicas
        };
        let fits = placed(replicas)
            && row.part_ver > partition.part_ver
            && row.epoch >= partition.epoch
            && (row.epoch > partition.epoch || row.leader == partition.leader)
            && row
                .leader
                .is_none_or(|leader| replicas.iter().any(|replica| replica.node == leader))
            && row
                .isr
                .iter()
                .all(|place| usize::from(*place) < replicas.len());
        if !fits {
            return false;
        }
        let (was, now) = (
            partition.replica_on(me),
            replicas.iter().copied().find(|replica| replica.node == me),
        );
        let elected = row.epoch > partition.epoch;
        partition.replicas = replicas.clone();
        partition.leader = row.leader;
        partition.epoch = row.epoch;
        partition.part_ver = row.part_ver;
        partition.isr.clone_from(&row.isr);
        if was != now {
            if was.is_some() {
                out.push(Effect::Left {
                    topic: id,
                    partition: index,
                });
            }
            if let Some(replica) = now {
                out.push(Effect::Replica {
                    topic: id,
                    partition: index,
                    replica,
                });
            }
        }
        if now.is_some() && (elected || was != now) {
            self.say_leader(id, index, row.unclean, out);
        } else if now.is_some() {
            self.say_isr(id, index, out);
        }
        true
    }

    fn apply_deletion(&mut self, id: TopicId, out: &mut Outbox<Effect>) {
        let Some(topic) = self.topics.remove(&id) else {
            return;
        };
        self.names.remove(&topic.name);
        self.moving.retain(|moving, _| moving.topic != id);
        let here = indexed(&topic.partitions).filter(|(_, row)| row.replica_on(self.me).is_some());
        let partitions = here.map(|(partition, _)| partition).collect();
        out.push(Effect::Deleted {
            topic: id,
            name: topic.name,
            partitions,
        });
    }

    fn say_new(&self, topic: TopicId, partition: PartitionIndex, out: &mut Outbox<Effect>) {
        let Some(replica) = self
            .partition(topic, partition)
            .and_then(|row| row.replica_on(self.me))
        else {
            return;
        };
        out.push(Effect::Replica {
            topic,
            partition,
            replica,
        });
        self.say_leader(topic, partition, false, out);
    }

    fn say_leader(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
        unclean: bool,
        out: &mut Outbox<Effect>,
    ) {
        let Some(row) = self.partition(topic, partition) else {
            return;
        };
        let (epoch, part_ver) = (row.epoch, row.part_ver);
        if row.leader == Some(self.me) {
            out.push(Effect::Lead {
                topic,
                partition,
                epoch,
                part_ver,
                isr: self.members(topic, partition),
                unclean,
            });
        } else {
            out.push(Effect::Follow {
                topic,
                partition,
                epoch,
                leader: row.leader,
                unclean,
            });
            self.say_isr(topic, partition, out);
        }
    }

    fn say_isr(&self, topic: TopicId, partition: PartitionIndex, out: &mut Outbox<Effect>) {
        if let Some(row) = self.partition(topic, partition) {
            out.push(Effect::Isr {
                topic,
                partition,
                part_ver: row.part_ver,
                isr: self.members(topic, partition),
            });
        }
    }

    fn members(&self, topic: TopicId, partition: PartitionIndex) -> Box<[Member]> {
        let in_sync = self
            .partition(topic, partition)
            .into_iter()
            .flat_map(Partition::in_sync);
        in_sync.map(|replica| self.member(replica)).collect()
    }

    fn partition(&self, topic: TopicId, partition: PartitionIndex) -> Option<&Partition> {
        self.topics
            .get(&topic)?
            .partitions
            .get(usize::try_from(partition.0).expect("32 bits"))
    }

    /// Whether this node has registered the disk: it is mounted and clean.
    fn has_disk(&self, disk: DiskUuid) -> bool {
        self.nodes
            .get(&self.me)
            .is_some_and(|node| node.disks.iter().any(|known| known.uuid == disk))
    }

    fn check(&self) {
        assert_eq!(self.names.len(), self.topics.len(), "a topic has one name");
    }
}

impl Partition {
    /// All replicas in sync, the first one leads, in epoch 0.
    fn new(replicas: Vec<crate::sitelog::Replica>) -> Self {
        Self {
            leader: replicas.first().map(|first| first.node),
            epoch: LeaderEpoch(0),
            part_ver: 0,
            isr: (0..).take(replicas.len()).collect(),
            replicas,
        }
    }
}

/// Whether replicas can be a partition's: some, each on a node of its own, few enough to be named by a byte.
fn placed(replicas: &[crate::sitelog::Replica]) -> bool {
    let twice = |(at, replica): (usize, &crate::sitelog::Replica)| {
        replicas[..at]
            .iter()
            .any(|earlier| earlier.node == replica.node)
    };
    !replicas.is_empty()
        && replicas.len() <= usize::from(u8::MAX)
        && !replicas.iter().enumerate().any(twice)
}

fn indexed(partitions: &[Partition]) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
    (0..).map(PartitionIndex).zip(partitions)
}
