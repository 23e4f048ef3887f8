//! What groups remember of their reading: commits, their retrieval, their removal.

use std::rc::Rc;

use node::group::{
    Commit, CommittedOffset, FetchOffsets, FetchedOffset, GroupReply, GroupRequest,
    TopicPartitionName,
};
use tokio::task::spawn_local;
use wire::messages as m;
use wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use wire::{ErrorCode, Response, StrBytes};

use super::super::Reply;
use super::{outcome, owned, refusal, send};
use crate::core::Core;

pub(crate) fn commit(core: &Rc<Core>, request: m::OffsetCommitRequest, reply: Reply) {
    let (commit, answer) = read_commit(request, |topic, index| known(core, topic, index));
    if commit.offsets.is_empty() {
        return send(reply, Response::OffsetCommit(answer));
    }
    let committed = core.ask_group(GroupRequest::Commit(commit));
    spawn_local(async move {
        send(
            reply,
            Response::OffsetCommit(write_committed(answer, committed.await)),
        )
    });
}

/// The commit of all partitions that are there, and an answer that says of the others that they are not.
fn read_commit(
    request: m::OffsetCommitRequest,
    known: impl Fn(&str, i32) -> bool,
) -> (Commit, m::OffsetCommitResponse) {
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let there = known(&topic.name, asked.partition_index);
            if there {
                offsets.push(CommittedOffset {
                    topic: topic.name.to_string(),
                    partition: asked.partition_index,
                    offset: asked.committed_offset,
                    leader_epoch: asked.committed_leader_epoch,
                    metadata: owned(asked.committed_metadata),
                });
            }
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(if there {
                        0
                    } else {
                        ErrorCode::UnknownTopicOrPartition.code()
                    }),
            );
        }
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    let commit = Commit {
        group: request.group_id.0.to_string(),
        generation: request.generation_id_or_member_epoch,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id),
        retention_ms: request.retention_time_ms,
        offsets,
    };
    (
        commit,
        m::OffsetCommitResponse::default().with_topics(topics),
    )
}

/// Fills in what became of the partitions that are there.
fn write_committed(
    mut answer: m::OffsetCommitResponse,
    reply: GroupReply,
) -> m::OffsetCommitResponse {
    let asked = answer
        .topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions)
        .filter(|it| it.error_code == 0);
    match reply {
        GroupReply::Committed(results) => {
            for (partition, result) in asked.zip(results) {
                partition.error_code = outcome(result).code();
            }
        }
        other => {
            let error = refusal(other);
            asked.for_each(|partition| partition.error_code = error.code());
        }
    }
    answer
}

pub(crate) fn fetch_offsets(core: &Rc<Core>, request: m::OffsetFetchRequest, reply: Reply) {
    let require_stable = request.require_stable;
    let asked: Vec<_> = request
        .groups
        .into_iter()
        .map(|group| {
            let fetch = FetchOffsets {
                group: group.group_id.0.to_string(),
                partitions: read_partitions(&group),
                require_stable,
            };
            let offsets = core.ask_group(GroupRequest::FetchOffsets(fetch));
            (group, offsets)
        })
        .collect();
    spawn_local(async move {
        let mut groups = Vec::with_capacity(asked.len());
        for (group, offsets) in asked {
            groups.push(write_fetched(group, offsets.await));
        }
        send(
            reply,
            Response::OffsetFetch(m::OffsetFetchResponse::default().with_groups(groups)),
        );
    });
}

fn read_partitions(group: &OffsetFetchRequestGroup) -> Option<Vec<TopicPartitionName>> {
    let topics = group.topics.as_ref()?;
    let partitions = topics.iter().flat_map(|topic| {
        let name = |partition: &i32| TopicPartitionName {
            topic: topic.name.to_string(),
            partition: *partition,
        };
        topic.partition_indexes.iter().map(name)
    });
    Some(partitions.collect())
}

fn write_fetched(asked: OffsetFetchRequestGroup, reply: GroupReply) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(asked.group_id);
    let offsets = match reply {
        GroupReply::Offsets(offsets) => offsets,
        other => {
            // Version 1 has no other place for the error than each partition asked for.
            let error = refusal(other);
            let refused = |topic: m::offset_fetch_request::OffsetFetchRequestTopics| {
                let partitions = topic.partition_indexes.into_iter().map(|index| {
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_committed_offset(-1)
                        .with_committed_leader_epoch(-1)
                        .with_metadata(Some(StrBytes::new()))
                        .with_error_code(error.code())
                });
                OffsetFetchResponseTopics::default()
                    .with_name(topic.name)
                    .with_partitions(partitions.collect())
            };
            let topics = asked.topics.unwrap_or_default().into_iter().map(refused);
            return answer
                .with_topics(topics.collect())
                .with_error_code(error.code());
        }
    };
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for FetchedOffset {
        topic,
        partition,
        offset,
        leader_epoch,
        metadata,
    } in offsets
    {
        let partition = OffsetFetchResponsePartitions::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(StrBytes::from_string(metadata)));
        match topics.last_mut().filter(|last| *last.name == *topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(
                OffsetFetchResponseTopics::default()
                    .with_name(m::TopicName(StrBytes::from_string(topic)))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    answer.with_topics(topics)
}

pub(crate) fn delete_offsets(core: &Rc<Core>, request: m::OffsetDeleteRequest, reply: Reply) {
    let group = request.group_id.0.to_string();
    let (partitions, answer) = read_deletion(request, |topic, index| known(core, topic, index));
    let deleted = core.ask_group(GroupRequest::DeleteOffsets { group, partitions });
    spawn_local(async move {
        send(
            reply,
            Response::OffsetDelete(write_deleted(answer, deleted.await)),
        )
    });
}

/// The partitions that are there, and an answer that says of the others that they are not.
fn read_deletion(
    request: m::OffsetDeleteRequest,
    known: impl Fn(&str, i32) -> bool,
) -> (Vec<TopicPartitionName>, m::OffsetDeleteResponse) {
    let mut partitions = Vec::new();
    let topics = request.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let partition = asked.partition_index;
            let there = known(&topic.name, partition);
            if there {
                partitions.push(TopicPartitionName {
                    topic: topic.name.to_string(),
                    partition,
                });
            }
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(if there {
                    0
                } else {
                    ErrorCode::UnknownTopicOrPartition.code()
                })
        });
        let rows = rows.collect();
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(rows)
    });
    let answer = m::OffsetDeleteResponse::default().with_topics(topics.collect());
    (partitions, answer)
}

fn write_deleted(
    mut answer: m::OffsetDeleteResponse,
    reply: GroupReply,
) -> m::OffsetDeleteResponse {
    let results = match reply {
        GroupReply::OffsetsDeleted(results) => results,
        other => return m::OffsetDeleteResponse::default().with_error_code(refusal(other).code()),
    };
    let asked = answer
        .topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions)
        .filter(|it| it.error_code == 0);
    for (partition, result) in asked.zip(results) {
        partition.error_code = outcome(result).code();
    }
    answer
}

fn known(core: &Core, topic: &str, index: i32) -> bool {
    core.topic_by_name(topic)
        .is_some_and(|topic| topic.partition(index).is_some())
}

#[cfg(test)]
mod tests;
