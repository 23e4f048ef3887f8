//! Offsets by time and by epoch, deletion from the front, and the producers a partition remembers.

use std::rc::Rc;
use std::time::Duration;

use model::{LeaderEpoch, Offset, WallMs};
use node::partition::{Outcome, Refusal};
use tokio::task::spawn_local;
use tokio::time::timeout;
use wire::messages as m;
use wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use wire::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use wire::{Call, ErrorCode, Response, StrBytes};

use super::Reply;
use super::errors::refused;
use crate::core::Core;
use crate::core::queries::Found;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// Nothing is tiered: what lies here is everything.
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const READ_COMMITTED: i8 = 1;

pub(super) fn list(core: &Rc<Core>, request: m::ListOffsetsRequest, reply: Reply) {
    let core = core.clone();
    spawn_local(async move {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index);
                let found = find(
                    &core,
                    reply.call(),
                    &topic.name,
                    &asked,
                    request.isolation_level,
                )
                .await;
                partitions.push(match found {
                    Ok(found) => answer
                        .with_offset(found.offset.0)
                        .with_timestamp(found.timestamp.0)
                        .with_leader_epoch(found.leader_epoch.0),
                    Err(error) => answer
                        .with_error_code(error.code())
                        .with_offset(-1)
                        .with_timestamp(-1)
                        .with_leader_epoch(-1),
                });
            }
            topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
        reply.send(Response::ListOffsets(
            m::ListOffsetsResponse::default().with_topics(topics),
        ));
    });
}

async fn find(
    core: &Rc<Core>,
    call: Call,
    topic: &str,
    asked: &m::list_offsets_request::ListOffsetsPartition,
    isolation: i8,
) -> Result<Found, ErrorCode> {
    let replica = core.replica_of(topic, asked.partition_index)?;
    let ends = core
        .unparked(|| core.ends(replica, LeaderEpoch(asked.current_leader_epoch)))
        .await
        .map_err(|it| refused(&it))?;
    let at = |offset| Found {
        offset,
        timestamp: WallMs(-1),
        leader_epoch: core.epoch_at(replica, offset),
    };
    match asked.timestamp {
        // The end of what this reader may see must be known to be the end (R8).
        LATEST => {
            let end = ends.latest.map_err(|it| refused(&it))?;
            Ok(Found {
                leader_epoch: ends.leader_epoch,
                ..at(if isolation == READ_COMMITTED {
                    ends.stable
                } else {
                    end
                })
            })
        }
        EARLIEST | EARLIEST_LOCAL => Ok(at(ends.log_start)),
        LATEST_TIERED => Ok(Found::NOTHING),
        MAX_TIMESTAMP if call.allows_max_timestamp() => core.offset_of_latest_time(replica).await,
        time if time >= 0 => core.offset_of_time(replica, WallMs(time)).await,
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

pub(super) fn for_leader_epoch(
    core: &Rc<Core>,
    request: m::OffsetForLeaderEpochRequest,
    reply: Reply,
) {
    let core = core.clone();
    spawn_local(async move {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let answer = EpochEndOffset::default().with_partition(asked.partition);
                let current = LeaderEpoch(asked.current_leader_epoch);
                let found = match core.replica_of(&topic.topic, asked.partition) {
                    Ok(replica) => core
                        .unparked(|| {
                            core.end_of_epoch(replica, current, LeaderEpoch(asked.leader_epoch))
                        })
                        .await
                        .map_err(|refusal| refused(&refusal)),
                    Err(error) => Err(error),
                };
                partitions.push(match found {
                    Ok((epoch, end)) => answer.with_leader_epoch(epoch.0).with_end_offset(end.0),
                    Err(error) => answer
                        .with_error_code(error.code())
                        .with_leader_epoch(-1)
                        .with_end_offset(-1),
                });
            }
            topics.push(
                OffsetForLeaderTopicResult::default()
                    .with_topic(topic.topic)
                    .with_partitions(partitions),
            );
        }
        reply.send(Response::OffsetForLeaderEpoch(
            m::OffsetForLeaderEpochResponse::default().with_topics(topics),
        ));
    });
}

pub(super) fn delete_records(core: &Rc<Core>, request: m::DeleteRecordsRequest, reply: Reply) {
    let core = core.clone();
    spawn_local(async move {
        let patience = Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
        // All partitions are asked before the first is waited for.
        let mut asked = Vec::new();
        for topic in request.topics {
            let internal = core
                .topic_by_name(&topic.name)
                .is_some_and(|topic| topic.internal);
            let partitions: Vec<_> = topic
                .partitions
                .into_iter()
                .map(|partition| {
                    let waiting = if internal {
                        Err(ErrorCode::InvalidTopicException)
                    } else {
                        core.replica_of(&topic.name, partition.partition_index)
                            .map(|replica| core.delete_records(replica, Offset(partition.offset)))
                    };
                    (partition.partition_index, waiting)
                })
                .collect();
            asked.push((topic.name, partitions));
        }
        let mut topics = Vec::with_capacity(asked.len());
        for (name, waiting) in asked {
            let mut partitions = Vec::with_capacity(waiting.len());
            for (index, waiting) in waiting {
                let result = match waiting {
                    Err(error) => Err(error),
                    Ok(outcome) => match timeout(patience, outcome).await {
                        Ok(Ok(Outcome::Deleted { log_start })) => Ok(log_start),
                        Ok(Ok(Outcome::Refused(refusal))) => Err(refused(&refusal)),
                        Ok(Ok(Outcome::Stored { .. })) => unreachable!("a deletion stores nothing"),
                        Ok(Err(_)) => Err(ErrorCode::UnknownTopicOrPartition),
                        Err(_) => Err(ErrorCode::RequestTimedOut),
                    },
                };
                let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
                partitions.push(match result {
                    Ok(log_start) => answer.with_low_watermark(log_start.0),
                    Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
                });
            }
            topics.push(
                DeleteRecordsTopicResult::default()
                    .with_name(name)
                    .with_partitions(partitions),
            );
        }
        reply.send(Response::DeleteRecords(
            m::DeleteRecordsResponse::default().with_topics(topics),
        ));
    });
}

pub(super) fn producers(core: &Rc<Core>, request: m::DescribeProducersRequest, reply: Reply) {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partition_indexes
                .into_iter()
                .map(|index| {
                    let answer = PartitionResponse::default().with_partition_index(index);
                    let found = core.replica_of(&topic.name, index).and_then(|replica| {
                        core.producers(replica).map_err(|it: Refusal| refused(&it))
                    });
                    match found {
                        Ok(producers) => answer.with_active_producers(
                            producers
                                .into_iter()
                                .map(|producer| {
                                    ProducerState::default()
                                        .with_producer_id(m::ProducerId(producer.pid.0))
                                        .with_producer_epoch(producer.epoch.0.into())
                                        .with_last_sequence(producer.last_seq)
                                        .with_last_timestamp(producer.last_ts.0)
                                        .with_coordinator_epoch(producer.coordinator_epoch)
                                        .with_current_txn_start_offset(producer.txn_first.0)
                                })
                                .collect(),
                        ),
                        Err(error) => answer
                            .with_error_code(error.code())
                            .with_error_message(Some(StrBytes::from_static_str(error.message()))),
                    }
                })
                .collect();
            TopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions)
        })
        .collect();
    reply.send(Response::DescribeProducers(
        m::DescribeProducersResponse::default().with_topics(topics),
    ));
}
