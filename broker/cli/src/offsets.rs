//! Offsets of partitions: first, next, and by time.

use std::collections::BTreeMap;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};

use crate::cluster::{Cluster, Topic, topic_name};
use crate::failure::Failure;

/// Asks for the offset of the next record.
pub(crate) const LATEST: i64 = -1;
/// Asks for the offset of the first record.
pub(crate) const EARLIEST: i64 = -2;

/// The offset of each partition at a time in milliseconds, or one of the two constants; by index. `None` where nobody
/// leads, or where no record is as young.
pub(crate) fn list_offsets(
    cluster: &mut Cluster,
    topic: &str,
    time: i64,
) -> Result<Vec<(i32, Option<i64>)>, Failure> {
    cluster.retry(|cluster| {
        let topic = cluster.topic(topic, false)?;
        let found = ask(cluster, &topic, time)?;
        Ok(topic
            .partitions
            .iter()
            .map(|p| {
                (
                    p.index,
                    found.get(&p.index).copied().filter(|offset| *offset >= 0),
                )
            })
            .collect())
    })
}

fn ask(cluster: &mut Cluster, topic: &Topic, time: i64) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut by_leader: BTreeMap<i32, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for partition in topic
        .partitions
        .iter()
        .filter(|partition| partition.leader >= 0)
    {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition.index)
            .with_timestamp(time);
        by_leader.entry(partition.leader).or_default().push(asked);
    }
    let mut found = BTreeMap::new();
    for (leader, partitions) in by_leader {
        let asked = ListOffsetsTopic::default()
            .with_name(topic_name(&topic.name))
            .with_partitions(partitions);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![asked]);
        let answer = cluster.call(leader, &request, 7)?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let what = || {
                format!(
                    "offsets of topic \"{}\" partition {}",
                    topic.name, partition.partition_index
                )
            };
            Failure::check(what, partition.error_code, None)?;
            found.insert(partition.partition_index, partition.offset);
        }
    }
    Ok(found)
}
