//! What the site log's entries mean to requests and to disks: the topics that requests see, and what replicas may keep.

use std::rc::Rc;

use model::{PartitionIndex, TopicId, TopicPartition};
use node::broker::ReplicaIx;
use node::catalog::{OFFSETS_TOPIC, TopicRow, TopicSettings, is_internal};
use store::PartSettings;

use super::Inner;
use super::compaction;
use super::replica::Keep;
use super::topics::{PartitionInfo, Topic};
use crate::spindle::{After, Op};

impl Inner {
    /// Tells a replica and its disk what its topic's configs let it keep. The disk forgets it when it is opened anew.
    pub(super) fn configure(&mut self, at: ReplicaIx, settings: &TopicSettings) {
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        let internal = self
            .broker
            .catalog()
            .topic(replica.topic)
            .is_some_and(|it| it.name == OFFSETS_TOPIC);
        // Compaction alone never lets a record go by its age.
        let retention_ms = if settings.delete {
            settings.retention_ms
        } else {
            -1
        };
        let quota = i64::try_from(settings.quota_bytes).unwrap_or(i64::MAX);
        replica.log_append_time = settings.log_append_time;
        replica.keep = Keep {
            retention: store::Retention {
                ms: retention_ms,
                bytes: if settings.partition.refuse_when_full {
                    -1
                } else {
                    quota
                },
            },
            quota_bytes: settings.quota_bytes,
        };
        replica.compaction.configure(settings);
        let settings = PartSettings {
            quota_bytes: settings.quota_bytes,
            segment_ms: compaction::segment_ms(settings),
            retention_ms,
            class_max: compaction::class_max(settings, internal),
        };
        self.spindles[replica.disk].push(
            Op::Settings {
                part: replica.part,
                settings,
            },
            After::Nothing,
        );
    }

    /// Makes the value that requests see of a topic anew.
    pub(super) fn publish(&mut self, id: TopicId) {
        let catalog = self.broker.catalog();
        let (Some(row), Some(settings)) = (catalog.topic(id), catalog.settings(id)) else {
            return;
        };
        let topic = Rc::new(self.seen(id, row, &settings));
        self.topics_by_name
            .insert(topic.name.clone(), topic.clone());
        self.topics_by_id.insert(id, topic);
    }

    fn seen(&self, id: TopicId, row: &TopicRow, settings: &TopicSettings) -> Topic {
        let partitions = (0..)
            .zip(&row.partitions)
            .map(|(index, partition)| PartitionInfo {
                leader: partition.leader,
                epoch: partition.epoch,
                replicas: partition
                    .replicas
                    .iter()
                    .map(|replica| replica.node)
                    .collect(),
                isr: partition.in_sync().map(|replica| replica.node).collect(),
                replica: self.broker.replica_of(TopicPartition {
                    topic: id,
                    partition: PartitionIndex(index),
                }),
            })
            .collect();
        Topic {
            id,
            name: Rc::from(row.name.as_str()),
            internal: is_internal(&row.name),
            log_append_time: settings.log_append_time,
            compacted: settings.compact,
            timestamp_before_ms: settings.timestamp_before_ms,
            timestamp_after_ms: settings.timestamp_after_ms,
            partitions,
        }
    }
}
