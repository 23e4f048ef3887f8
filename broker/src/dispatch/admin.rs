//! Topics made, grown and deleted, and producer ids: entries of the site log, answered when they are applied.

use std::rc::Rc;
use std::time::Duration;

use model::NodeId;
use node::catalog::{CreateTopic, Fault};
use tokio::task::spawn_local;
use wire::messages as m;
use wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use wire::messages::delete_topics_response::DeletableTopicResult;
use wire::{ErrorCode, Response, StrBytes};

use super::Reply;
use super::configs::source_of;
use super::errors::{catalog_fault, topic_uuid};
use crate::context::Context;
use crate::core::Core;
use crate::core::admin::ChangeFault;

/// Waits at least this long for the disk, whatever little time a client gives: its own request time-out is longer.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

fn patience(timeout_ms: i32) -> Duration {
    Duration::from_millis(timeout_ms.max(0).unsigned_abs().into()).max(PATIENCE_MIN)
}

/// The error and its sentence for a client.
fn said(fault: &ChangeFault) -> (i16, Option<StrBytes>) {
    match fault {
        ChangeFault::Refused(fault) => (
            catalog_fault(fault).code(),
            Some(StrBytes::from_string(fault.to_string())),
        ),
        ChangeFault::TimedOut => (
            ErrorCode::RequestTimedOut.code(),
            Some(StrBytes::from_static_str(
                "the site log did not take the change in time; it may still come",
            )),
        ),
        ChangeFault::NotController => (ErrorCode::NotController.code(), None),
    }
}

pub(super) fn create_topics(
    core: &Rc<Core>,
    context: &Context,
    request: m::CreateTopicsRequest,
    reply: Reply,
) {
    let (core, context) = (core.clone(), context.clone());
    spawn_local(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for (at, topic) in request.topics.iter().enumerate() {
            let twice = request
                .topics
                .iter()
                .enumerate()
                .any(|(other, it)| other != at && it.name == topic.name);
            let result = if twice {
                Err(ChangeFault::Refused(Fault::InvalidRequest(
                    "the topic stands twice in the request".into(),
                )))
            } else {
                create_topic(
                    &core,
                    &context,
                    topic,
                    request.validate_only,
                    patience(request.timeout_ms),
                )
                .await
            };
            let answer = CreatableTopicResult::default().with_name(topic.name.clone());
            results.push(match result {
                Ok(made) => made.with_name(topic.name.clone()),
                Err(fault) => {
                    let (code, message) = said(&fault);
                    answer
                        .with_error_code(code)
                        .with_error_message(message)
                        .with_num_partitions(-1)
                        .with_replication_factor(-1)
                }
            });
        }
        reply.send(Response::CreateTopics(
            m::CreateTopicsResponse::default().with_topics(results),
        ));
    });
}

async fn create_topic(
    core: &Rc<Core>,
    context: &Context,
    asked: &m::create_topics_request::CreatableTopic,
    validate_only: bool,
    patience: Duration,
) -> Result<CreatableTopicResult, ChangeFault> {
    let wanted = wanted(asked).map_err(ChangeFault::Refused)?;
    let planned = core
        .create_topic(context, &wanted, validate_only, patience)
        .await?;
    let configs = planned
        .configs
        .into_iter()
        .map(|config| {
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_string(config.name.to_string()))
                .with_config_source(source_of(&config))
                .with_value(Some(StrBytes::from_string(config.value)))
        })
        .collect();
    Ok(CreatableTopicResult::default()
        .with_topic_id(topic_uuid(planned.id))
        .with_num_partitions(planned.partitions.cast_signed())
        .with_replication_factor(planned.replication.cast_signed())
        .with_configs(Some(configs)))
}

fn wanted(asked: &m::create_topics_request::CreatableTopic) -> Result<CreateTopic, Fault> {
    let given = !asked.assignments.is_empty();
    if given && (asked.num_partitions != -1 || asked.replication_factor != -1) {
        return Err(Fault::InvalidRequest(
            "assignments and counts exclude each other".into(),
        ));
    }
    let mut assignment = vec![None; asked.assignments.len()];
    for row in &asked.assignments {
        let place = usize::try_from(row.partition_index)
            .ok()
            .and_then(|index| assignment.get_mut(index));
        let nodes = row
            .broker_ids
            .iter()
            .map(|id| u32::try_from(id.0).map(NodeId))
            .collect::<Result<Vec<_>, _>>();
        match (place, nodes) {
            (Some(place @ None), Ok(nodes)) => *place = Some(nodes),
            _ => {
                return Err(Fault::InvalidAssignment(
                    "partitions are numbered from 0, each once, on known brokers".into(),
                ));
            }
        }
    }
    let count = |value: i32, what: fn(String) -> Fault| match value {
        -1 => Ok(None),
        1.. => Ok(Some(value.unsigned_abs())),
        _ => Err(what(format!("{value} is neither positive nor -1"))),
    };
    Ok(CreateTopic {
        name: asked.name.to_string(),
        partitions: if given {
            None
        } else {
            count(asked.num_partitions, Fault::InvalidPartitions)?
        },
        replication: if given {
            None
        } else {
            count(asked.replication_factor.into(), Fault::InvalidReplication)?
                .map(|count| u16::try_from(count).expect("it was 16 bits wide"))
        },
        assignment: assignment
            .into_iter()
            .map(|nodes| nodes.expect("each index stands once"))
            .collect(),
        configs: asked
            .configs
            .iter()
            .map(|config| {
                (
                    config.name.to_string(),
                    config.value.as_ref().map(ToString::to_string),
                )
            })
            .collect(),
    })
}

pub(super) fn delete_topics(
    core: &Rc<Core>,
    context: &Context,
    request: m::DeleteTopicsRequest,
    reply: Reply,
) {
    let (core, context) = (core.clone(), context.clone());
    spawn_local(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for asked in request.topics {
            let topic = match &asked.name {
                Some(name) => core.topic_by_name(name).ok_or(Fault::UnknownTopic),
                None => core
                    .topic_by_id(asked.topic_id.into_bytes())
                    .ok_or(Fault::UnknownTopicId),
            };
            let answer = DeletableTopicResult::default()
                .with_name(asked.name)
                .with_topic_id(asked.topic_id);
            let result = match topic {
                Err(fault) => Err(ChangeFault::Refused(fault)),
                Ok(topic) => core
                    .delete_topic(&context, &topic, patience(request.timeout_ms))
                    .await
                    .map(|()| topic),
            };
            results.push(match result {
                Ok(topic) => answer
                    .with_name(Some(m::TopicName(StrBytes::from_string(
                        topic.name.to_string(),
                    ))))
                    .with_topic_id(topic_uuid(topic.id)),
                Err(fault) => {
                    let (code, message) = said(&fault);
                    answer.with_error_code(code).with_error_message(message)
                }
            });
        }
        reply.send(Response::DeleteTopics(
            m::DeleteTopicsResponse::default().with_responses(results),
        ));
    });
}

pub(super) fn create_partitions(
    core: &Rc<Core>,
    context: &Context,
    request: m::CreatePartitionsRequest,
    reply: Reply,
) {
    let (core, context) = (core.clone(), context.clone());
    spawn_local(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for asked in &request.topics {
            let answer = CreatePartitionsTopicResult::default().with_name(asked.name.clone());
            let assignment = asked.assignments.as_ref().map(|rows| {
                // No broker has a negative number, nor the largest: whoever asks for one is told so.
                let node = |id: &m::BrokerId| NodeId(u32::try_from(id.0).unwrap_or(u32::MAX));
                rows.iter()
                    .map(|row| row.broker_ids.iter().map(node).collect())
                    .collect::<Vec<Vec<_>>>()
            });
            let result = core
                .create_partitions(
                    &context,
                    &asked.name,
                    asked.count,
                    assignment.as_deref(),
                    request.validate_only,
                    patience(request.timeout_ms),
                )
                .await;
            results.push(match result {
                Ok(()) => answer,
                Err(fault) => {
                    let (code, message) = said(&fault);
                    answer.with_error_code(code).with_error_message(message)
                }
            });
        }
        reply.send(Response::CreatePartitions(
            m::CreatePartitionsResponse::default().with_results(results),
        ));
    });
}

/// A producer id for whoever asks without a transactional id; the transaction time-out means nothing then.
pub(super) fn init_producer_id(core: &Rc<Core>, request: &m::InitProducerIdRequest, reply: Reply) {
    let refusal = |error: ErrorCode| {
        Response::InitProducerId(
            m::InitProducerIdResponse::default()
                .with_error_code(error.code())
                .with_producer_id(m::ProducerId(-1))
                .with_producer_epoch(-1),
        )
    };
    if request.transactional_id.is_some() {
        return reply.send(refusal(ErrorCode::InvalidRequest));
    }
    // KIP-360: a producer that lost track asks to go on under its id with a higher epoch.
    if request.producer_id.0 >= 0
        && request.producer_epoch >= 0
        && request.producer_epoch < i16::MAX
    {
        return reply.send(Response::InitProducerId(
            m::InitProducerIdResponse::default()
                .with_producer_id(request.producer_id)
                .with_producer_epoch(request.producer_epoch + 1),
        ));
    }
    let core = core.clone();
    spawn_local(async move {
        reply.send(match core.next_producer_id().await {
            Some(id) => Response::InitProducerId(
                m::InitProducerIdResponse::default()
                    .with_producer_id(m::ProducerId(id.0))
                    .with_producer_epoch(0),
            ),
            None => refusal(ErrorCode::CoordinatorNotAvailable),
        });
    });
}
