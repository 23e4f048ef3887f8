//! What clients wish of topics, turned into entries against what is applied, or refused.

use model::{LeaderEpoch, NodeId, PartitionIndex, TopicId};

use super::configs::{altered, asks_for_share, checked, described, named_quota};
use super::names::collision_key;
use super::place::{Need, Placed, Seats};
use super::{Alter, Catalog, CreateTopic, Fault, PlannedTopic, is_internal, topic_name_fault};
use crate::sitelog::{Configs, Entry, PartitionRow, Topic};

impl Catalog {
    /// A client wants a topic; it would have this id.
    ///
    /// # Errors
    /// Why it can't have it.
    pub fn create_topic(&self, asked: &CreateTopic, id: TopicId) -> Result<PlannedTopic, Fault> {
        if let Some(fault) = topic_name_fault(&asked.name) {
            return Err(Fault::InvalidTopic(fault));
        }
        self.check_name_free(&asked.name)?;
        if !self.rules.create_topics {
            return Err(Fault::Policy(
                "this site has the topics of its site file and makes no others".into(),
            ));
        }
        let replication = match asked.assignment.first() {
            Some(_) => check_assignment(&asked.assignment)?,
            None => asked.replication.unwrap_or(self.rules.replication),
        };
        let given = asked
            .configs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()));
        let configs = checked(given, replication, &self.rules)?;
        let seats = match asked.assignment.first() {
            Some(_) => Seats::Given(&asked.assignment),
            None => Seats::Any {
                partitions: asked.partitions.unwrap_or(self.rules.partitions),
                replication,
            },
        };
        self.plan_topic(
            &asked.name,
            configs,
            seats,
            self.need(&configs_of(asked)),
            id,
        )
    }

    /// A topic with checked configs.
    pub(super) fn plan_topic(
        &self,
        name: &str,
        configs: Configs,
        seats: Seats<'_>,
        need: Need,
        id: TopicId,
    ) -> Result<PlannedTopic, Fault> {
        let (partitions, replication) = match seats {
            Seats::Any {
                partitions,
                replication,
            } => (partitions, replication),
            Seats::Given(given) => (
                count(given.len()),
                given.first().map_or(0, |nodes| nodes.len() as u16),
            ),
        };
        if partitions == 0 || replication == 0 {
            return Err(Fault::InvalidPartitions(
                "a topic has at least one partition, and each at least one replica".into(),
            ));
        }
        self.check_count(partitions)?;
        let Placed {
            partitions: places,
            share,
        } = self.dealer(name, self.extent(&configs)).deal(seats, need)?;
        // A quota that the site file names for all is written down as the topic's share: a later site file may name
        // another one, and what is reserved must not change by it.
        let share = match need {
            Need::Quota(quota) if named_quota(&configs).is_none() => quota,
            _ => share,
        };
        Ok(PlannedTopic {
            id,
            partitions,
            replication,
            configs: described(&configs, share, &self.rules),
            entry: Entry::Topic(Topic {
                name: name.to_owned(),
                id,
                configs,
                share,
                partitions: places,
            }),
        })
    }

    /// What a topic with these configs asks of its disks.
    pub(super) fn need(&self, configs: &Configs) -> Need {
        match named_quota(configs) {
            Some(quota) => Need::Quota(quota),
            None if asks_for_share(configs) => Need::Share,
            None => self.rules.retention_bytes.map_or(Need::Share, Need::Quota),
        }
    }

    /// A name that no topic has, and that none has but for dots.
    fn check_name_free(&self, name: &str) -> Result<(), Fault> {
        if self.names.contains_key(name) {
            return Err(Fault::TopicExists(name.to_owned()));
        }
        let key = collision_key(name);
        match self.names.keys().find(|known| collision_key(known) == key) {
            None => Ok(()),
            Some(known) => Err(Fault::InvalidTopic(format!(
                "topic name '{name}' collides with that of '{known}': in metrics '.' and '_' are one"
            ))),
        }
    }

    /// More partitions than replicas a node may keep can't be: said before a claimed number is allocated for.
    fn check_count(&self, partitions: u32) -> Result<(), Fault> {
        let nodes = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let most = self.rules.replicas_max.saturating_mul(nodes);
        if partitions > most {
            return Err(Fault::InvalidPartitions(format!(
                "{partitions} partitions: the brokers of this site keep at most {most} partition replicas"
            )));
        }
        Ok(())
    }

    /// A client wants a topic gone.
    ///
    /// # Errors
    /// Why it stays.
    pub fn delete_topic(&self, id: TopicId) -> Result<Entry, Fault> {
        let topic = self.topics.get(&id).ok_or(Fault::UnknownTopicId)?;
        if is_internal(&topic.name) {
            return Err(Fault::InvalidTopic(format!(
                "topic '{}' belongs to the broker itself",
                topic.name
            )));
        }
        Ok(Entry::TopicDel { topic: id })
    }

    /// A client wants a topic to have `count` partitions; `assignment` names the nodes of the new ones.
    ///
    /// # Errors
    /// Why it stays as it is.
    pub fn create_partitions(
        &self,
        name: &str,
        count: i32,
        assignment: Option<&[Vec<NodeId>]>,
    ) -> Result<Entry, Fault> {
        if is_internal(name) {
            return Err(Fault::InvalidTopic(format!(
                "topic '{name}' belongs to the broker itself"
            )));
        }
        let id = self.names.get(name).ok_or(Fault::UnknownTopic)?;
        let wanted = u32::try_from(count).unwrap_or(0);
        self.grow(*id, wanted, assignment)
    }

    /// New partitions behind those there, with the same quota.
    pub(super) fn grow(
        &self,
        id: TopicId,
        wanted: u32,
        assignment: Option<&[Vec<NodeId>]>,
    ) -> Result<Entry, Fault> {
        let topic = self.topics.get(&id).ok_or(Fault::UnknownTopicId)?;
        let there = self::count(topic.partitions.len());
        if wanted <= there {
            return Err(Fault::InvalidPartitions(format!(
                "topic '{}' has {there} partitions already, {wanted} would not be more",
                topic.name
            )));
        }
        self.check_count(wanted)?;
        let replication = topic
            .partitions
            .first()
            .map_or(1, |partition| partition.replicas.len());
        let replication = u16::try_from(replication).expect("a byte names a replica");
        let seats = match assignment {
            None => Seats::Any {
                partitions: wanted - there,
                replication,
            },
            Some(given) => {
                if self::count(given.len()) != wanted - there
                    || check_assignment(given)? != replication
                {
                    return Err(Fault::InvalidAssignment(format!(
                        "{} new partitions with {replication} replicas each need as many assignments",
                        wanted - there
                    )));
                }
                Seats::Given(given)
            }
        };
        let quota = named_quota(&topic.configs).unwrap_or(topic.share);
        let placed = self
            .dealer(&topic.name, self.extent(&topic.configs))
            .deal(seats, Need::Quota(quota))?;
        let rows = (there..)
            .map(PartitionIndex)
            .zip(placed.partitions)
            .map(|(partition, replicas)| PartitionRow {
                partition,
                leader: replicas.first().map(|first| first.node),
                epoch: LeaderEpoch(0),
                part_ver: 0,
                isr: (0..).take(replicas.len()).collect(),
                replicas,
                unclean: false,
            })
            .collect();
        Ok(Entry::Partition(vec![(id, rows)]))
    }

    /// A client sets a topic's whole configuration; `None` is a null value.
    ///
    /// # Errors
    /// Why it stays as it is.
    pub fn set_configs(
        &self,
        name: &str,
        asked: &[(String, Option<String>)],
    ) -> Result<Entry, Fault> {
        let (id, _, replication) = self.alterable(name)?;
        let given = asked
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()));
        self.plan_configs(id, checked(given, replication, &self.rules)?)
    }

    /// A client changes some of a topic's configs (KIP-339).
    ///
    /// # Errors
    /// Why they stay as they are.
    pub fn alter_configs(&self, name: &str, changes: &[(String, Alter)]) -> Result<Entry, Fault> {
        let (id, before, replication) = self.alterable(name)?;
        self.plan_configs(id, altered(before, changes, replication, &self.rules)?)
    }

    fn alterable(&self, name: &str) -> Result<(TopicId, &Configs, u16), Fault> {
        let id = *self.names.get(name).ok_or(Fault::UnknownTopic)?;
        if is_internal(name) {
            return Err(Fault::InvalidRequest(format!(
                "the configs of '{name}' belong to the broker itself"
            )));
        }
        let topic = &self.topics[&id];
        let replication = topic
            .partitions
            .iter()
            .map(|partition| partition.replicas.len())
            .min()
            .unwrap_or(1);
        Ok((
            id,
            &topic.configs,
            u16::try_from(replication).expect("a byte names a replica"),
        ))
    }

    /// The whole configuration, and what it reserves instead of what is reserved now.
    fn plan_configs(&self, id: TopicId, configs: Configs) -> Result<Entry, Fault> {
        let topic = &self.topics[&id];
        let replicas: Vec<_> = topic
            .partitions
            .iter()
            .flat_map(|partition| &partition.replicas)
            .copied()
            .collect();
        let (extent, held) = (self.extent(&configs), self.reserves(topic));
        let mut dealer = self.dealer(&topic.name, extent);
        // Giving back needs no room, even where disks have shrunk.
        let grows = |quota: u64| quota.saturating_add(extent) > held;
        let share = match (named_quota(&configs), topic.share) {
            (Some(quota), _) => {
                if grows(quota) {
                    dealer.refit(&replicas, held, Need::Quota(quota))?;
                }
                0
            }
            // It names a quota no more: it gets a share as if it were new.
            (None, 0) => match self.need(&configs) {
                need @ Need::Quota(quota) => dealer.refit(&replicas, held, need).map(|_| quota)?,
                need => dealer.refit(&replicas, held, need)?,
            },
            (None, share) => {
                if grows(share) {
                    dealer.refit(&replicas, held, Need::Quota(share))?;
                }
                share
            }
        };
        Ok(Entry::Config {
            topic: id,
            configs,
            share,
        })
    }
}

fn configs_of(asked: &CreateTopic) -> Configs {
    let set = asked
        .configs
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    set.collect()
}

/// As many replicas for each partition, each on another node.
fn check_assignment(assignment: &[Vec<NodeId>]) -> Result<u16, Fault> {
    let replication = assignment.first().map_or(0, Vec::len);
    for nodes in assignment {
        let twice = nodes
            .iter()
            .enumerate()
            .any(|(at, node)| nodes[..at].contains(node));
        if nodes.is_empty() || nodes.len() != replication || twice {
            return Err(Fault::InvalidAssignment(
                "each partition needs as many brokers as the others, at least one, and none of them twice".into(),
            ));
        }
    }
    u16::try_from(replication)
        .map_err(|_| Fault::InvalidAssignment("a partition has at most 255 replicas".into()))
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
