//! What a node that took office adds to the site log by itself: its identity, its disks, new leader epochs, producer
//! ids, and the topics that the site file and the broker want.

use model::{DiskUuid, Incarnation, NodeId, ProducerId, SiteUuid, TopicId};

use super::configs::checked;
use super::place::{Need, Seats};
use super::{Catalog, Declared, Fault, OFFSETS_TOPIC, indexed};
use crate::coordinator::GROUP_PARTITIONS;
use crate::mutation::{self, Mutation};
use crate::sitelog::{Disk, Entry, Node, PartitionRow, RECORD_BYTES_MAX};

/// Site versions that this release reads, lowest and highest.
pub(super) const VERSIONS: (u16, u16) = (1, 1);
/// Bytes of one partition's row at most, as `starts` writes them: seven fields as varints, no replicas, five in sync.
const ROW_BYTES_MAX: usize = 32;
/// Bytes of a topic before its rows.
pub(crate) const TOPIC_BYTES: usize = 16 + 4;
/// Bytes of rows in one entry; the rest is its frame.
pub(crate) const ROWS_BYTES_MAX: usize = RECORD_BYTES_MAX - 1024;

impl Catalog {
    /// The site's very first entry, if it has none yet.
    #[must_use]
    pub fn found(&self, uuid: SiteUuid) -> Option<Entry> {
        self.site.is_none().then_some(Entry::Site { uuid })
    }

    /// This node with its mounted and clean disks, if it is registered otherwise or not at all.
    #[must_use]
    pub fn register(&self, incarnation: Incarnation, disks: &[Disk]) -> Option<Entry> {
        let known = self.nodes.get(&self.me);
        if known.is_some_and(|row| {
            row.incarnation == incarnation && row.disks == disks && row.versions == VERSIONS
        }) {
            return None;
        }
        Some(Entry::Node(Node {
            id: self.me,
            incarnation,
            disks: disks.to_vec(),
            versions: VERSIONS,
            public_key: Vec::new(),
        }))
    }

    /// R1: a leader that starts again, or gets a disk back, never resumes an epoch. New epochs for every partition that
    /// this node leads, or could lead and nobody does; on one disk only, if one is named. Where its disk is away, nobody
    /// leads. Several entries if one can't hold them.
    #[must_use]
    pub fn elections(&self, disk: Option<DiskUuid>) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut topics: Vec<(TopicId, Vec<PartitionRow>)> = Vec::new();
        let mut bytes = 0;
        for (id, topic) in &self.topics {
            let rows: Vec<PartitionRow> = indexed(&topic.partitions)
                .filter(|(_, row)| {
                    disk.is_none() || row.replica_on(self.me).map(|replica| replica.disk) == disk
                })
                .filter_map(|(partition, row)| {
                    let able = row
                        .in_sync()
                        .any(|replica| replica.node == self.me && self.has_disk(replica.disk));
                    let leads = row.leader == Some(self.me);
                    let vacant = row.leader.is_none() && able;
                    (leads || vacant).then(|| PartitionRow {
                        partition,
                        replicas: Vec::new(),
                        leader: able.then_some(self.me),
                        epoch: row.epoch.next(),
                        part_ver: row.part_ver + 1,
                        isr: row.isr.clone(),
                        unclean: false,
                    })
                })
                .collect();
            let mut rest = &rows[..];
            while !rest.is_empty() {
                let room = ROWS_BYTES_MAX.saturating_sub(bytes + TOPIC_BYTES) / ROW_BYTES_MAX;
                let (now, later) = rest.split_at(rest.len().min(room));
                if !now.is_empty() {
                    bytes += TOPIC_BYTES + now.len() * ROW_BYTES_MAX;
                    topics.push((*id, now.to_vec()));
                }
                rest = later;
                if !rest.is_empty() {
                    entries.push(Entry::Partition(std::mem::take(&mut topics)));
                    bytes = 0;
                }
            }
        }
        if !topics.is_empty() {
            entries.push(Entry::Partition(topics));
        }
        entries
    }

    /// A block of producer ids for this node that no node ever had.
    #[must_use]
    pub fn producer_ids(&self) -> Entry {
        self.producer_ids_of(self.me)
    }

    /// A block of producer ids for a node that no node ever had.
    #[must_use]
    pub fn producer_ids_of(&self, node: NodeId) -> Entry {
        let first = match mutation::is(Mutation::ProducerIdsReused) {
            true => ProducerId(0),
            false => self.next_pid,
        };
        Entry::Pids { node, first }
    }

    /// What brings a topic of the site file nearer to what it says there: it is made, or grows. Nothing is ever taken
    /// away, and configs that clients have changed since stay: the site log wins. `None` when nothing is missing.
    ///
    /// # Errors
    /// Why the site can't keep what its file promises.
    pub fn reconcile(&self, declared: &Declared, id: TopicId) -> Result<Option<Entry>, Fault> {
        if let Some(known) = self.names.get(&declared.name) {
            let there = self.topics[known].partitions.len();
            return match usize::try_from(declared.partitions).is_ok_and(|wanted| wanted > there) {
                true => self.grow(*known, declared.partitions, None).map(Some),
                false => Ok(None),
            };
        }
        let given = declared
            .configs
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_str())));
        let configs = checked(given, declared.replication, &self.rules)?;
        let seats = Seats::Any {
            partitions: declared.partitions,
            replication: declared.replication,
        };
        let need = match (self.need(&configs), declared.share) {
            (Need::Share, Some(share)) => Need::Quota(share),
            (need, _) => need,
        };
        self.plan_topic(&declared.name, configs, seats, need, id)
            .map(|planned| Some(planned.entry))
    }

    /// The topic of groups and their offsets, if there is none yet. It is kept by compaction alone: whatever its size,
    /// nothing of it is deleted for room.
    ///
    /// # Errors
    /// No disk has a place for it.
    pub fn offsets_topic(&self, id: TopicId) -> Result<Option<Entry>, Fault> {
        if self.names.contains_key(OFFSETS_TOPIC) {
            return Ok(None);
        }
        let configs = vec![
            ("cleanup.policy".to_owned(), "compact".to_owned()),
            ("howdah.on.full".to_owned(), "refuse".to_owned()),
        ];
        let nodes = self.dealer(OFFSETS_TOPIC, 0).nodes().clamp(1, 3);
        let replication = u16::try_from(nodes).expect("at most three");
        let seats = Seats::Any {
            partitions: GROUP_PARTITIONS,
            replication,
        };
        self.plan_topic(OFFSETS_TOPIC, configs, seats, Need::Internal, id)
            .map(|planned| Some(planned.entry))
    }
}
