//! `howdah groups`: consumer groups, their members and their offsets.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use clap::{Args, Subcommand};
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, DeleteGroupsRequest, DescribeGroupsRequest, GroupId,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::Decodable;
use serde_json::Value;

use crate::cluster::{Cluster, text, topic_name};
use crate::connect::Reach;
use crate::failure::Failure;
use crate::offsets::{EARLIEST, LATEST, list_offsets};
use crate::place::Place;
use crate::table::{Table, said};

/// `howdah groups`: list, describe, alter, delete.
#[derive(Args, Debug)]
#[command(
    after_help = "A group comes into being when its first member joins, or when its offsets are set by `alter`.\n\n\
    Examples:\n  \
    howdah groups list\n  \
    howdah groups describe billing                         members, offsets and lag\n  \
    howdah groups alter billing --topic orders --to earliest\n  \
    howdah groups alter billing --topic orders --partition 3 --to 1200\n  \
    howdah groups delete billing"
)]
pub struct GroupsArgs {
    #[command(flatten)]
    reach: Reach,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Every group with its state
    List,
    /// Offsets, lag and who reads, one line a partition
    Describe {
        /// Groups
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Set a group's offsets; it must have no members
    #[command(alias = "create")]
    Alter {
        /// The group
        group: String,
        /// The topic
        #[arg(long)]
        topic: String,
        /// Only this partition; may be given more than once
        #[arg(long)]
        partition: Vec<i32>,
        /// earliest, latest, an offset, or a time such as 2026-03-01T06:00:00Z
        #[arg(long, value_name = "WHERE")]
        to: Place,
    },
    /// Delete groups, or what they have committed for one topic
    Delete {
        /// Groups
        #[arg(required = true)]
        groups: Vec<String>,
        /// Only the offsets for this topic
        #[arg(long)]
        topic: Option<String>,
    },
}

pub(crate) fn run(args: &GroupsArgs) -> Result<(), Failure> {
    let mut cluster = Cluster::open(&args.reach)?;
    match &args.verb {
        Verb::List => list(&mut cluster, args.json),
        Verb::Describe { groups } => describe(&mut cluster, groups, args.json),
        Verb::Alter {
            group,
            topic,
            partition,
            to,
        } => alter(&mut cluster, group, topic, partition, to),
        Verb::Delete {
            groups,
            topic: None,
        } => groups
            .iter()
            .try_for_each(|group| delete(&mut cluster, group)),
        Verb::Delete {
            groups,
            topic: Some(topic),
        } => groups
            .iter()
            .try_for_each(|group| delete_offsets(&mut cluster, group, topic)),
    }
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn list(cluster: &mut Cluster, json: bool) -> Result<(), Failure> {
    let mut table = Table::new(&["group", "state", "protocol", "coordinator"]);
    let mut rows = BTreeMap::new();
    let brokers: Vec<i32> = cluster.brokers().keys().copied().collect();
    for broker in brokers {
        let answer = cluster.retry(|cluster| {
            let answer = cluster.call(broker, &ListGroupsRequest::default(), 5)?;
            Failure::check(
                || format!("groups of broker {broker}"),
                answer.error_code,
                None,
            )?;
            Ok(answer)
        })?;
        for group in answer.groups {
            rows.insert(
                group.group_id.to_string(),
                (
                    group.group_state.to_string(),
                    group.protocol_type.to_string(),
                    broker,
                ),
            );
        }
    }
    for (group, (state, protocol, broker)) in rows {
        // Before version 4 the state is not said.
        let state = if state.is_empty() {
            Value::Null
        } else {
            state.into()
        };
        table.row([group.into(), state, protocol.into(), broker.into()]);
    }
    table.print(json)
}

/// What a group has committed, by topic and partition.
pub(crate) fn committed(
    cluster: &mut Cluster,
    group: &str,
) -> Result<BTreeMap<(String, i32), i64>, Failure> {
    cluster.retry(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        // Version 7 is the last that asks for one group; `None` asks for all its topics.
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(None);
        let answer = cluster.call(coordinator, &request, 7)?;
        Failure::check(
            || format!("offsets of group \"{group}\""),
            answer.error_code,
            None,
        )?;
        let mut found = BTreeMap::new();
        for topic in answer.topics {
            for partition in topic.partitions {
                let what = || {
                    format!(
                        "offset of group \"{group}\" for topic \"{}\" partition {}",
                        topic.name.as_str(),
                        partition.partition_index
                    )
                };
                Failure::check(what, partition.error_code, None)?;
                if partition.committed_offset >= 0 {
                    found.insert(
                        (topic.name.to_string(), partition.partition_index),
                        partition.committed_offset,
                    );
                }
            }
        }
        Ok(found)
    })
}

fn members(cluster: &mut Cluster, group: &str) -> Result<DescribedGroup, Failure> {
    cluster.retry(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        let answer = cluster.call(coordinator, &request, 5)?;
        let found = answer.groups.into_iter().next();
        let found =
            found.ok_or_else(|| Failure::Fault(format!("DescribeGroups left out \"{group}\"")))?;
        Failure::check(|| format!("group \"{group}\""), found.error_code, None)?;
        // Older versions answer so for a group that never was.
        if found.group_state.as_str() == "Dead" {
            return Err(Failure::Fault(format!(
                "group \"{group}\": GROUP_ID_NOT_FOUND: there is no such group"
            )));
        }
        Ok(found)
    })
}

/// Partitions that a member reads, out of the consumer protocol's bytes; none if they are another protocol's.
pub(crate) fn assigned(assignment: &Bytes) -> Vec<(String, i32)> {
    let mut bytes = assignment.clone();
    if bytes.remaining() < 2 {
        return Vec::new();
    }
    let version = bytes.get_i16();
    // Later versions only add fields behind the ones we read.
    let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut bytes, version.clamp(0, 3)) else {
        return Vec::new();
    };
    let topics = assignment.assigned_partitions.into_iter();
    topics
        .flat_map(|topic| {
            topic
                .partitions
                .into_iter()
                .map(move |p| (topic.topic.to_string(), p))
        })
        .collect()
}

fn describe(cluster: &mut Cluster, groups: &[String], json: bool) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "group",
        "state",
        "topic",
        "partition",
        "offset",
        "next offset",
        "lag",
        "member",
        "client",
        "host",
    ]);
    for name in groups {
        let group = members(cluster, name)?;
        let offsets = committed(cluster, name)?;
        let mut readers = BTreeMap::new();
        for member in &group.members {
            for partition in assigned(&member.member_assignment) {
                readers.insert(partition, member);
            }
        }
        let partitions: BTreeSet<(String, i32)> =
            offsets.keys().chain(readers.keys()).cloned().collect();
        let topics: BTreeSet<&String> = partitions.iter().map(|(topic, _)| topic).collect();
        let mut ends = BTreeMap::new();
        for topic in topics {
            // A topic may be gone while a group still has offsets for it.
            for (partition, end) in list_offsets(cluster, topic, LATEST).unwrap_or_default() {
                ends.insert((topic.clone(), partition), end);
            }
        }
        let state = group.group_state.to_string();
        for key in &partitions {
            let (offset, end) = (offsets.get(key).copied(), ends.get(key).copied().flatten());
            let lag = offset.zip(end).map(|(offset, end)| end - offset);
            let reader = readers.get(key);
            let of =
                |field: fn(
                    &kafka_protocol::messages::describe_groups_response::DescribedGroupMember,
                ) -> &str| { reader.map(|member| field(member).to_owned()).into() };
            table.row([
                name.as_str().into(),
                state.as_str().into(),
                key.0.as_str().into(),
                key.1.into(),
                offset.into(),
                end.into(),
                lag.into(),
                of(|member| &member.member_id),
                of(|member| &member.client_id),
                of(|member| &member.client_host),
            ]);
        }
        let idle = group
            .members
            .iter()
            .filter(|member| assigned(&member.member_assignment).is_empty());
        let mut nothing = partitions.is_empty();
        for member in idle {
            nothing = false;
            let (id, client, host) = (
                member.member_id.as_str(),
                member.client_id.as_str(),
                member.client_host.as_str(),
            );
            let none = Value::Null;
            table.row([
                name.as_str().into(),
                state.as_str().into(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none,
                id.into(),
                client.into(),
                host.into(),
            ]);
        }
        if nothing {
            said(&format!(
                "group \"{name}\" is {state}: no members, no offsets"
            ));
        }
    }
    table.print(json)
}

/// Commits offsets as nobody's member: allowed while the group is empty.
fn alter(
    cluster: &mut Cluster,
    group: &str,
    topic: &str,
    only: &[i32],
    to: &Place,
) -> Result<(), Failure> {
    let targets = targets(cluster, topic, only, to)?;
    let partitions = targets.iter().map(|(partition, offset)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
    });
    let commit = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![commit]);
    cluster.retry(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        let answer = cluster.call(coordinator, &request, 8)?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let what = || {
                format!(
                    "offset of group \"{group}\" for topic \"{topic}\" partition {}",
                    partition.partition_index
                )
            };
            Failure::check(what, partition.error_code, None)?;
        }
        Ok(())
    })?;
    for (partition, offset) in targets {
        said(&format!(
            "group \"{group}\" reads topic \"{topic}\" partition {partition} from offset {offset}"
        ));
    }
    Ok(())
}

/// Where `to` is in each partition asked for, within what it holds.
pub(crate) fn targets(
    cluster: &mut Cluster,
    topic: &str,
    only: &[i32],
    to: &Place,
) -> Result<Vec<(i32, i64)>, Failure> {
    let (first, next) = (
        list_offsets(cluster, topic, EARLIEST)?,
        list_offsets(cluster, topic, LATEST)?,
    );
    let timed = match to {
        Place::Time(time) => Some(list_offsets(cluster, topic, *time)?),
        _ => None,
    };
    let mut targets = Vec::new();
    for (at, (partition, first)) in first.into_iter().enumerate() {
        if !only.is_empty() && !only.contains(&partition) {
            continue;
        }
        let (Some(first), Some(next)) = (first, next[at].1) else {
            return Err(Failure::Fault(format!(
                "topic \"{topic}\" partition {partition} has no leader"
            )));
        };
        let target = match to {
            Place::Earliest => first,
            Place::Latest => next,
            Place::Offset(offset) => *offset,
            // No record is as young: the next one will be.
            Place::Time(_) => timed.as_ref().and_then(|timed| timed[at].1).unwrap_or(next),
        };
        targets.push((partition, target.clamp(first, next)));
    }
    if let Some(missing) = only
        .iter()
        .find(|only| targets.iter().all(|(partition, _)| partition != *only))
    {
        return Err(Failure::Usage(format!(
            "topic \"{topic}\" has no partition {missing}"
        )));
    }
    Ok(targets)
}

fn delete(cluster: &mut Cluster, group: &str) -> Result<(), Failure> {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
    cluster.retry(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        let answer = cluster.call(coordinator, &request, 2)?;
        for result in &answer.results {
            Failure::check(
                || format!("deleting group \"{group}\""),
                result.error_code,
                None,
            )?;
        }
        Ok(())
    })?;
    said(&format!("deleted group \"{group}\""));
    Ok(())
}

fn delete_offsets(cluster: &mut Cluster, group: &str, topic: &str) -> Result<(), Failure> {
    let committed = committed(cluster, group)?;
    let partitions: Vec<i32> = committed
        .keys()
        .filter(|(name, _)| name == topic)
        .map(|(_, partition)| *partition)
        .collect();
    if partitions.is_empty() {
        said(&format!(
            "group \"{group}\" has no offsets for topic \"{topic}\""
        ));
        return Ok(());
    }
    let asked = partitions
        .iter()
        .map(|partition| OffsetDeleteRequestPartition::default().with_partition_index(*partition));
    let asked = OffsetDeleteRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(asked.collect());
    let request = OffsetDeleteRequest::default()
        .with_group_id(group_id(group))
        .with_topics(vec![asked]);
    cluster.retry(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        let answer = cluster.call(coordinator, &request, 0)?;
        Failure::check(
            || format!("offsets of group \"{group}\""),
            answer.error_code,
            None,
        )?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let what = || {
                format!(
                    "offset of group \"{group}\" for topic \"{topic}\" partition {}",
                    partition.partition_index
                )
            };
            Failure::check(what, partition.error_code, None)?;
        }
        Ok(())
    })?;
    said(&format!(
        "deleted the offsets of group \"{group}\" for topic \"{topic}\""
    ));
    Ok(())
}
