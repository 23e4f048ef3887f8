//! Committed entries, and what they mean to this node: replicas that come and go, leaders, configs.

use model::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

use super::disks::Found;
use super::{
    Broker, Effect, End, Event, OFFSETS_TOPIC, Replica, ReplicaIx, Todo, coordinator, partition,
};
use crate::Outbox;
use crate::catalog;
use crate::partition::Partition;
use crate::sitelog::{self, Entry, Record};

impl Broker {
    /// What the snapshot names comes first; its leaders come with the entries behind it.
    pub(super) fn start(&mut self, out: &mut Outbox<Effect>) {
        let mut effects = Outbox::new();
        self.catalog.replicas_here(&mut effects);
        self.catalog_effects(&mut effects, out);
        self.todo.push_back(Todo::SiteLog(sitelog::Input::Start));
    }

    /// Applies a committed entry.
    pub(super) fn apply(&mut self, bytes: &[u8], out: &mut Outbox<Effect>) {
        let record = match Record::decode(bytes) {
            Ok(record) => record,
            // A newer release wrote it: going on would be deciding with half the truth.
            Err(fault) => return out.push(Effect::End(End::SiteLog(fault.to_string()))),
        };
        let mut effects = Outbox::new();
        self.catalog.apply(&record, &mut effects);
        self.catalog_effects(&mut effects, out);
        // What requests see changes by more than what happens to replicas of this node.
        match record.entry {
            Some(Entry::Topic(topic)) => out.push(Effect::Topic(topic.id)),
            Some(Entry::Partition(topics)) => topics
                .into_iter()
                .for_each(|(topic, _)| out.push(Effect::Topic(topic))),
            Some(Entry::Reassign(rows)) => rows
                .into_iter()
                .for_each(|row| out.push(Effect::Topic(row.topic))),
            // Those that follow from a node's new incarnation are not named by it.
            Some(Entry::Node(_)) => {
                let all: Vec<TopicId> = self.catalog.topics().map(|(id, _)| id).collect();
                all.into_iter().for_each(|id| out.push(Effect::Topic(id)));
            }
            _ => {}
        }
    }

    /// Another controller's catalog takes the place of this one's.
    pub(super) fn install(
        &mut self,
        bytes: &[u8],
        out: &mut Outbox<Effect>,
    ) -> Result<(), catalog::SnapshotFault> {
        let installed = catalog::Catalog::decode(bytes, self.me, self.settings.rules)?;
        let before = std::mem::replace(&mut self.catalog, installed);
        for (id, topic) in before.topics() {
            if self.catalog.topic(id).is_none() {
                let partitions = (0..).map(PartitionIndex).take(topic.partitions.len());
                let gone = partitions.map(|partition| TopicPartition {
                    topic: id,
                    partition,
                });
                self.topic_gone(id, topic.name.clone(), gone.collect(), out);
            }
        }
        let here: Vec<TopicPartition> = self.replicas.listed().map(|(id, _)| id).collect();
        for id in here {
            let row = self.catalog.partition_row(id);
            if row.and_then(|row| row.replica_on(self.me)).is_none() {
                self.let_go(id, out);
            }
        }
        let mut effects = Outbox::new();
        self.catalog.replicas_here(&mut effects);
        self.catalog_effects(&mut effects, out);
        let all: Vec<TopicId> = self.catalog.topics().map(|(id, _)| id).collect();
        for id in all {
            self.configure(id, out);
            out.push(Effect::Topic(id));
        }
        Ok(())
    }

    fn catalog_effects(&mut self, effects: &mut Outbox<catalog::Effect>, out: &mut Outbox<Effect>) {
        for effect in effects.drain() {
            self.catalog_effect(effect, out);
        }
    }

    fn catalog_effect(&mut self, effect: catalog::Effect, out: &mut Outbox<Effect>) {
        let (topic, partition, input) = match effect {
            catalog::Effect::Replica {
                topic,
                partition,
                replica,
            } => return self.place(TopicPartition { topic, partition }, replica, out),
            catalog::Effect::Lead {
                topic,
                partition,
                epoch,
                part_ver,
                isr,
                unclean,
            } => {
                let input = partition::Input::Lead {
                    epoch,
                    part_ver,
                    isr,
                    unclean,
                };
                (topic, partition, input)
            }
            catalog::Effect::Follow {
                topic,
                partition,
                epoch,
                leader,
                unclean,
            } => {
                let input = partition::Input::Follow {
                    epoch,
                    leader,
                    unclean,
                };
                (topic, partition, input)
            }
            catalog::Effect::Isr {
                topic,
                partition,
                part_ver,
                isr,
            } => {
                let input = partition::Input::Isr {
                    part_ver,
                    committed: isr,
                };
                (topic, partition, input)
            }
            catalog::Effect::Configured { topic } => {
                self.configure(topic, out);
                return out.push(Effect::Topic(topic));
            }
            catalog::Effect::Left { topic, partition } => {
                return self.let_go(TopicPartition { topic, partition }, out);
            }
            catalog::Effect::Deleted {
                topic,
                name,
                partitions,
            } => {
                let gone = partitions
                    .into_iter()
                    .map(|partition| TopicPartition { topic, partition });
                return self.topic_gone(topic, name, gone.collect(), out);
            }
            catalog::Effect::Pids { first } => {
                // Blocks of earlier lives come by again from the log: their ids may have been handed out.
                if self.current {
                    out.push(Effect::Pids { first });
                }
                return;
            }
        };
        let id = TopicPartition { topic, partition };
        match self.replicas.of(id) {
            Some(at) => self.tell(at, input),
            // While the log comes by from long ago, a replica may not be made yet.
            None if !self.current => {}
            None => {
                let row = self.catalog.partition_row(id);
                if let Some(replica) = row.and_then(|row| row.replica_on(self.me)) {
                    let disk = replica.disk;
                    out.push(Effect::Event(Event::NoDisk { id, disk }));
                }
            }
        }
    }

    fn topic_gone(
        &mut self,
        id: TopicId,
        name: String,
        partitions: Vec<TopicPartition>,
        out: &mut Outbox<Effect>,
    ) {
        for partition in partitions {
            self.let_go(partition, out);
        }
        self.coordinate(coordinator::Input::TopicDeleted {
            topic: name.clone(),
        });
        out.push(Effect::TopicGone { id, name });
    }

    /// All that was committed when this life began is applied: replicas that the log names and no disk has are missing,
    /// since their node ended before it made them; and what a disk has and the log does not name was deleted.
    pub(super) fn becomes_current(&mut self, out: &mut Outbox<Effect>) {
        if std::mem::replace(&mut self.current, true) {
            return;
        }
        let mut missing = Outbox::new();
        self.catalog.replicas_here(&mut missing);
        for effect in missing.drain() {
            if let catalog::Effect::Replica {
                topic,
                partition,
                replica,
            } = effect
            {
                self.place(TopicPartition { topic, partition }, replica, out);
            }
        }
        for (id, Found { disk, .. }) in std::mem::take(&mut self.found) {
            let freed = self.whole;
            out.push(Effect::Event(Event::Unknown { id, disk, freed }));
            if freed {
                out.push(Effect::Forget { disk, id });
            }
        }
        self.settled = true;
        self.duties_due = true;
    }

    /// A replica lies on a disk of this node from now on: as recovery found it there, or new.
    fn place(&mut self, id: TopicPartition, replica: sitelog::Replica, out: &mut Outbox<Effect>) {
        if self.replicas.of(id).is_some() {
            return;
        }
        let Some(disk) = self.disk_of(replica.disk) else {
            return;
        };
        let Some(settings) = self.catalog.settings(id.topic) else {
            return;
        };
        // A copy on another disk is one that was left behind; it is forgotten with all that no topic has.
        let here = self.found.get(&id).is_some_and(|found| found.disk == disk);
        let found = here.then(|| self.found.remove(&id)).flatten();
        // The log comes by from long ago: what is missing now may be deleted by a later entry.
        if found.is_none() && !self.current {
            return;
        }
        let at = self.replicas.vacant();
        let new = found.is_none();
        let (recovered, hole) = match found {
            Some(Found { replica, .. }) => {
                // What was encoded for this decodes.
                self.windows
                    .decode(
                        at.window(),
                        replica.recovered.high_watermark,
                        &replica.windows,
                    )
                    .expect("windows that were just encoded");
                (replica.recovered, replica.hole)
            }
            None => {
                self.windows.remove(at.window());
                (nothing(), self.lost_some(disk))
            }
        };
        let member = self.catalog.member(replica);
        let machine = Partition::new(at.window(), member, settings.partition, &recovered);
        let internal = self.internal(id);
        self.replicas.insert(Replica {
            id,
            machine,
            disk,
            internal,
            hole,
        });
        out.push(Effect::Hold {
            replica: at,
            id,
            disk,
            new: new && !hole,
        });
        if hole {
            out.push(Effect::Event(Event::Hole { id, disk }));
        } else {
            out.push(Effect::Configure {
                replica: at,
                settings,
            });
        }
        if hole || !self.disks[usize::from(disk.0)].serves() {
            self.tell(at, partition::Input::DiskFailed);
        }
        self.tell(
            at,
            partition::Input::Lease {
                until: self.lease_until,
            },
        );
    }

    /// Its number, if it is a partition of groups and their offsets.
    fn internal(&self, id: TopicPartition) -> Option<u32> {
        let topic = self.catalog.topic(id.topic)?;
        (topic.name == OFFSETS_TOPIC).then_some(id.partition.0)
    }

    fn configure(&mut self, topic: TopicId, out: &mut Outbox<Effect>) {
        let Some(settings) = self.catalog.settings(topic) else {
            return;
        };
        let of_topic = |(id, _): &(TopicPartition, ReplicaIx)| id.topic == topic;
        let here: Vec<_> = self.replicas.listed().filter(of_topic).collect();
        for (_, replica) in here {
            let input = partition::Input::Settings(settings.partition);
            out.push(Effect::Configure { replica, settings });
            self.tell(replica, input);
        }
    }

    /// A replica leaves this node. Its number is kept until its disk has nothing more to say of it.
    fn let_go(&mut self, id: TopicPartition, out: &mut Outbox<Effect>) {
        let Some(at) = self.replicas.unlist(id) else {
            return;
        };
        self.windows.remove(at.window());
        // Whoever waits for it learns that nobody leads it. Its disk does nothing more for it.
        self.tell(
            at,
            partition::Input::Follow {
                epoch: LeaderEpoch(i32::MAX),
                leader: None,
                unclean: false,
            },
        );
        out.push(Effect::LetGo { replica: at });
    }
}

/// A replica that no disk has yet.
pub(super) const fn nothing() -> partition::Recovered {
    partition::Recovered {
        log_start: Offset::ZERO,
        end: Offset::ZERO,
        high_watermark: Offset::ZERO,
        accepted_epoch: LeaderEpoch::NONE,
        epochs: Vec::new(),
    }
}
