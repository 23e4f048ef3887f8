//! Committed entries of the site log, and what they mean to this node: replicas that come and go, leaders, configs, and
//! the topics that requests see.

use std::collections::BTreeSet;
use std::rc::Rc;

use model::{Instant, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use node::catalog::{Effect, OFFSETS_TOPIC, TopicRow, TopicSettings, is_internal};
use node::partition::{self, Input, Partition};
use node::sitelog::{self, Entry, Index, Record};
use node::{Outbox, coordinator};
use store::PartSettings;

use super::compaction;
use super::replica::Keep;
use super::topics::{PartitionInfo, Topic};
use super::{Core, Ended, Found, Inner, Replica, Todo};
use crate::spindle::{self, After, Condition, Op};

impl Inner {
    /// Applies a committed entry.
    pub(super) fn apply(&mut self, core: &Rc<Core>, index: Index, bytes: &[u8]) {
        let record = match Record::decode(bytes) {
            Ok(record) => record,
            // A newer release wrote it: going on would be deciding with half the truth.
            Err(fault) => {
                tracing::error!(index = index.0, %fault, "site log");
                return core.end(Ended::SiteLog(fault.to_string()));
            }
        };
        if self.controller && !self.founded {
            self.place_missing();
        }
        let mut out = Outbox::new();
        self.catalog.apply(&record, &mut out);
        self.catalog_effects(core, &mut out);
        // What requests see changes by more than what happens to replicas of this node.
        match record.entry {
            Some(Entry::Topic(topic)) => self.publish(topic.id),
            Some(Entry::Partition(topics)) => topics
                .into_iter()
                .for_each(|(topic, _)| self.publish(topic)),
            _ => {}
        }
        self.progress.notify_waiters();
    }

    /// Performs what follows from entries, or from a snapshot, in order.
    pub(super) fn catalog_effects(&mut self, core: &Rc<Core>, out: &mut Outbox<Effect>) {
        let mut touched = BTreeSet::new();
        for effect in out.drain() {
            self.catalog_effect(core, effect, &mut touched);
        }
        for topic in touched {
            self.publish(topic);
        }
    }

    fn catalog_effect(&mut self, core: &Rc<Core>, effect: Effect, touched: &mut BTreeSet<TopicId>) {
        let (topic, partition, input) = match effect {
            Effect::Replica {
                topic,
                partition,
                replica,
            } => {
                touched.insert(topic);
                return self.place(topic, partition, replica);
            }
            Effect::Lead {
                topic,
                partition,
                epoch,
                part_ver,
                isr,
                unclean,
            } => (
                topic,
                partition,
                Input::Lead {
                    epoch,
                    part_ver,
                    isr,
                    unclean,
                },
            ),
            Effect::Follow {
                topic,
                partition,
                epoch,
                leader,
                unclean,
            } => (
                topic,
                partition,
                Input::Follow {
                    epoch,
                    leader,
                    unclean,
                },
            ),
            Effect::Isr {
                topic,
                partition,
                part_ver,
                isr,
            } => (
                topic,
                partition,
                Input::Isr {
                    part_ver,
                    committed: isr,
                },
            ),
            Effect::Configured { topic } => {
                touched.insert(topic);
                return self.configure(topic);
            }
            Effect::Left { topic, partition } => {
                touched.insert(topic);
                return self.let_go(topic, partition);
            }
            Effect::Deleted {
                topic,
                name,
                partitions,
            } => {
                partitions
                    .into_iter()
                    .for_each(|partition| self.let_go(topic, partition));
                self.topics_by_id.remove(&topic);
                self.topics_by_name.remove(name.as_str());
                let deleted = coordinator::Input::TopicDeleted { topic: name };
                return self.todo.push_back(Todo::Coordinator(deleted));
            }
            Effect::Pids { first } => {
                // Blocks of earlier lives come by again from the log: their ids may have been handed out.
                if self.controller {
                    self.pids.drawn(first);
                }
                return;
            }
        };
        touched.insert(topic);
        match self.by_partition.get(&(topic, partition.0)) {
            Some(at) => self.todo.push_back(Todo::Partition(*at, input)),
            // While the log comes by from long ago, a replica may not be made yet.
            None if !self.controller => {}
            None => {
                tracing::warn!(%topic, partition = partition.0, node = core.node_name(), "its disk is not here: nobody leads it")
            }
        }
    }

    /// Replicas that the log names and no disk has: their node ended before it made them. Only now is it known that
    /// their topics were not deleted by a later entry.
    fn place_missing(&mut self) {
        let mut out = Outbox::new();
        self.catalog.replicas_here(&mut out);
        let mut touched = BTreeSet::new();
        for effect in out.drain() {
            let Effect::Replica {
                topic,
                partition,
                replica,
            } = effect
            else {
                continue;
            };
            if !self.by_partition.contains_key(&(topic, partition.0)) {
                self.place(topic, partition, replica);
                touched.insert(topic);
            }
        }
        touched.into_iter().for_each(|topic| self.publish(topic));
    }

    /// A replica lies on a disk of this node from now on: as recovery found it there, or new.
    fn place(&mut self, topic: TopicId, partition: PartitionIndex, replica: sitelog::Replica) {
        let key = (topic, partition.0);
        if self.by_partition.contains_key(&key) {
            return;
        }
        let Some(disk) = self
            .spindles
            .iter()
            .position(|spindle| spindle.uuid == replica.disk)
        else {
            return;
        };
        // A copy on another disk is one that was left behind; it is let go with all that no topic has.
        let found = self.found.get(&key).is_some_and(|found| found.disk == disk);
        let found = found.then(|| self.found.remove(&key)).flatten();
        let Some(settings) = self.catalog.settings(topic) else {
            return;
        };
        let internal = self.internal(topic, partition);
        let entry = self.replicas.vacant_entry();
        let at = entry.key();
        let window = Self::window_of(at);
        let hole = match &found {
            Some(found) => found.row.hole.is_some(),
            None => self.spindles[disk].suspect && !self.founded,
        };
        let (part, recovered) = match found {
            Some(Found { row, windows, .. }) => {
                // What the store encoded decodes.
                self.windows
                    .decode(window, row.high_watermark, &windows)
                    .expect("windows that were just encoded");
                (row.part, spindle::recovered(&row))
            }
            // The log comes by from long ago: see `place_missing`.
            None if !self.controller => return,
            None => {
                self.windows.remove(window);
                let part = self.spindles[disk].next_part();
                if !hole {
                    let id = TopicPartition { topic, partition };
                    self.spindles[disk].push(Op::PartNew { part, id }, After::Nothing);
                }
                (part, nothing())
            }
        };
        let machine = Partition::new(
            window,
            self.catalog.member(replica),
            settings.partition,
            &recovered,
        );
        entry.insert(Replica::new(
            topic,
            partition.0,
            machine,
            disk,
            part,
            internal,
        ));
        self.by_partition.insert(key, at);
        self.replicas[at].hole = hole;
        if hole {
            let disk = self.spindles[disk].path.display();
            tracing::error!(
                %topic, partition = partition.0, %disk,
                "part of this replica was lost with the journal: it is not served until `howdah recover DISK --accept`"
            );
        } else {
            self.configure_replica(at, &settings);
        }
        if hole || self.spindles[disk].condition() != Condition::Serving {
            self.todo.push_back(Todo::Partition(at, Input::DiskFailed));
        }
        if self.lease_until > Instant::default() {
            self.todo.push_back(Todo::Partition(
                at,
                Input::Lease {
                    until: self.lease_until,
                },
            ));
        }
    }

    /// Its number, if it is a partition of groups and their offsets.
    fn internal(&self, topic: TopicId, partition: PartitionIndex) -> Option<u32> {
        self.catalog
            .topic(topic)
            .filter(|row| row.name == OFFSETS_TOPIC)
            .map(|_| partition.0)
    }

    fn configure(&mut self, topic: TopicId) {
        let Some(settings) = self.catalog.settings(topic) else {
            return;
        };
        let range = (topic, 0)..=(topic, u32::MAX);
        let here: Vec<usize> = self.by_partition.range(range).map(|(_, at)| *at).collect();
        for at in here {
            self.configure_replica(at, &settings);
            self.todo
                .push_back(Todo::Partition(at, Input::Settings(settings.partition)));
        }
    }

    /// Tells a replica and its disk what its topic's configs let it keep. The disk forgets it when it is opened anew.
    pub(super) fn configure_replica(&mut self, at: usize, settings: &TopicSettings) {
        let replica = &mut self.replicas[at];
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
            class_max: compaction::class_max(settings, replica.internal.is_some()),
        };
        self.spindles[replica.disk].push(
            Op::Settings {
                part: replica.part,
                settings,
            },
            After::Nothing,
        );
    }

    /// A replica leaves this node. Its number is kept until its disk has nothing more to say of it.
    fn let_go(&mut self, topic: TopicId, partition: PartitionIndex) {
        let Some(at) = self.by_partition.remove(&(topic, partition.0)) else {
            return;
        };
        let replica = &self.replicas[at];
        self.spindles[replica.disk].push(
            Op::PartDel { part: replica.part },
            After::Gone { replica: at },
        );
        self.windows.remove(Self::window_of(at));
        // Whoever waits for it learns that nobody leads it. Its disk does nothing more for it.
        let epoch = LeaderEpoch(i32::MAX);
        self.todo.push_back(Todo::Partition(
            at,
            Input::Follow {
                epoch,
                leader: None,
                unclean: false,
            },
        ));
    }

    /// Makes the value that requests see of a topic anew.
    fn publish(&mut self, id: TopicId) {
        let (Some(row), Some(settings)) = (self.catalog.topic(id), self.catalog.settings(id))
        else {
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
                replica: self.by_partition.get(&(id, index)).copied(),
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

/// A replica that no disk has yet.
pub(super) fn nothing() -> partition::Recovered {
    partition::Recovered {
        log_start: Offset::ZERO,
        end: Offset::ZERO,
        high_watermark: Offset::ZERO,
        accepted_epoch: LeaderEpoch::NONE,
        epochs: Vec::new(),
    }
}
