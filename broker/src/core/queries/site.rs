//! What the request paths ask of the site: topics, brokers, and what lies on the disks.

use std::collections::BTreeMap;

use model::{NodeId, TopicId, Uuid};
use node::broker::ReplicaIx;
use wire::ErrorCode;
use wire::produce::{LeaderHint, NodeEndpoint};

use crate::clock;
use crate::core::topics::TopicInfo;
use crate::core::{Core, Inner};
use crate::spindle::Condition;

/// A broker as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: NodeId,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What lies on a disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskContents {
    pub(crate) path: String,
    pub(crate) serving: bool,
    /// By topic: partitions and their bytes of batches.
    pub(crate) topics: BTreeMap<String, Vec<(i32, i64)>>,
    /// What it may hold; −1 where the file system is the only limit.
    pub(crate) total_bytes: i64,
    /// What of it is not taken by batches; −1 as above.
    pub(crate) usable_bytes: i64,
}

impl Core {
    pub(crate) fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        self.inner.borrow().topics_by_name.get(name).cloned()
    }

    pub(crate) fn topic_by_id(&self, id: [u8; 16]) -> Option<TopicInfo> {
        self.inner
            .borrow()
            .topics_by_id
            .get(&TopicId(Uuid(id)))
            .cloned()
    }

    /// Every topic, by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = TopicInfo> + use<> {
        let mut topics: Vec<TopicInfo> =
            self.inner.borrow().topics_by_id.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics.into_iter()
    }

    /// The brokers of the site: this one, once it is known where it listens.
    pub(crate) fn brokers(&self) -> impl Iterator<Item = Broker> + use<> {
        let id = self.node_id();
        let advertised = self.advertised.get();
        advertised
            .map(|(host, port)| Broker {
                id,
                host: host.to_string(),
                port,
            })
            .into_iter()
    }

    /// Where the leaders that an answer names listen, each once (KIP-951).
    pub(crate) fn hinted_nodes(
        &self,
        hints: impl Iterator<Item = LeaderHint>,
    ) -> Vec<NodeEndpoint> {
        let mut nodes: Vec<NodeId> = hints.map(|hint| hint.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let known = self.brokers().filter(|broker| nodes.contains(&broker.id));
        let endpoint = |Broker { id, host, port }| NodeEndpoint {
            node: id,
            host: host.into(),
            port,
            rack: None,
        };
        known.map(endpoint).collect()
    }

    /// `cluster.id` as clients see it.
    pub(crate) fn cluster_id(&self) -> String {
        self.inner.borrow().cluster_id.clone()
    }

    /// This node's replica of a partition.
    pub(crate) fn replica_of(&self, topic: &str, index: i32) -> Result<ReplicaIx, ErrorCode> {
        let topic = self
            .topic_by_name(topic)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let partition = topic
            .partition(index)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        partition.replica.ok_or(ErrorCode::NotLeaderOrFollower)
    }

    /// Whether a partition's leader serves, as far as this node can tell: of other nodes' it knows no better.
    pub(crate) fn partition_serves(&self, topic: TopicId, index: i32) -> bool {
        let inner = self.inner.borrow();
        let topic = inner.topics_by_id.get(&topic);
        let Some(partition) = topic.and_then(|topic| topic.partition(index)) else {
            return false;
        };
        if partition.leader != Some(inner.me) {
            return partition.leader.is_some();
        }
        let machine = partition.replica.and_then(|at| inner.broker.partition(at));
        machine.is_some_and(|machine| machine.may_serve(clock::now()).is_ok())
    }

    /// What lies on each of this node's disks.
    pub(crate) fn disk_contents(&self) -> Vec<DiskContents> {
        let inner = self.inner.borrow();
        (0..inner.spindles.len())
            .map(|disk| inner.contents_of(disk))
            .collect()
    }
}

impl Inner {
    fn contents_of(&self, disk: usize) -> DiskContents {
        let spindle = &self.spindles[disk];
        let view = spindle.view();
        let mut topics: BTreeMap<String, Vec<(i32, i64)>> = BTreeMap::new();
        let mut held: u64 = 0;
        for (_, replica) in self
            .replicas
            .iter()
            .filter(|(_, replica)| replica.disk == disk)
        {
            let Some(topic) = self.topics_by_id.get(&replica.topic) else {
                continue;
            };
            let bytes = view.as_ref().map_or(0, |view| view.bytes(replica.part));
            held += bytes;
            let partitions = topics.entry(topic.name.to_string()).or_default();
            partitions.push((
                replica.index.cast_signed(),
                i64::try_from(bytes).unwrap_or(i64::MAX),
            ));
        }
        topics
            .values_mut()
            .for_each(|partitions| partitions.sort_unstable());
        let total = i64::try_from(spindle.use_bytes);
        DiskContents {
            path: spindle.path.display().to_string(),
            serving: spindle.condition() == Condition::Serving,
            topics,
            total_bytes: total.unwrap_or(-1),
            usable_bytes: total.map_or(-1, |total| total.saturating_sub_unsigned(held).max(0)),
        }
    }
}
