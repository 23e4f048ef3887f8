//! Produce: every batch is checked where the socket put it, then offered to its partition.
//!
//! The answer waits in a [`Job`] until each partition has said what became of its batch. Names are copied for it, so
//! the frame's memory goes as soon as the disk's writer has copied the batches.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use model::batch::{BatchFault, Codec, Header};
use model::window::Claim;
use model::{Offset, WallMs};
use node::partition::{Acks, Origin, Outcome, Produce, Refusal};
use wire::produce::{LeaderHint, PartitionAnswer, PartitionRecords, ProduceAnswer, ProduceRequest};
use wire::{Call, ErrorCode, Response};

use super::Reply;
use super::errors::refused;
use crate::clock;
use crate::core::Core;
use crate::core::topics::TopicInfo;

/// A produce request under way.
pub(crate) struct Job {
    reply: Option<Reply>,
    answer: ProduceAnswer,
    acks: Acks,
    waiting: usize,
}

impl Job {
    /// Notes what became of the batch at `at`; answers the client when it was the last. True once answered.
    pub(crate) fn settle(&mut self, at: usize, outcome: &Outcome, log_append_time: bool) -> bool {
        let partition = &mut self.answer.partitions[at];
        match *outcome {
            Outcome::Stored {
                base_offset,
                log_start,
                timestamp,
            } => {
                partition.error = ErrorCode::None;
                partition.base_offset = base_offset;
                partition.log_start = log_start;
                partition.log_append_time = if log_append_time {
                    timestamp
                } else {
                    WallMs(-1)
                };
            }
            Outcome::Refused(refusal) => refuse(partition, &refusal),
            Outcome::Deleted { .. } => unreachable!("a produce deletes nothing"),
        }
        self.waiting -= 1;
        self.finish()
    }

    fn finish(&mut self) -> bool {
        if self.waiting > 0 {
            return false;
        }
        let Some(reply) = self.reply.take() else {
            return true;
        };
        let failed = self
            .answer
            .partitions
            .iter()
            .filter(|partition| partition.error != ErrorCode::None)
            .count();
        reply.errors(failed as u64);
        match self.acks {
            Acks::None if failed > 0 => reply.close(),
            Acks::None => reply.silence(),
            _ => reply.send(Response::Produce(std::mem::take(&mut self.answer))),
        }
        true
    }
}

fn refuse(partition: &mut PartitionAnswer, refusal: &Refusal) {
    *partition = PartitionAnswer::refused(partition.index, refused(refusal));
    match *refusal {
        Refusal::NotLeader {
            leader: Some(node),
            epoch,
        } => partition.leader = Some(LeaderHint { node, epoch }),
        Refusal::QuotaFull => {
            partition.message =
                Some("the topic is at its quota and howdah.on.full is refuse".into())
        }
        _ => {}
    }
}

pub(super) fn handle(core: &Rc<Core>, request: &ProduceRequest, reply: Reply) {
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        _ => {
            let answer = request.answer(ErrorCode::InvalidRequiredAcks);
            return reply.send(Response::Produce(answer));
        }
    };
    if request.transactional_id().is_some() {
        // Nobody reads an answer to acks=0: the next one on the connection would be taken for it.
        return match acks {
            Acks::None => reply.close(),
            _ => reply.send(Response::Produce(
                request.answer(ErrorCode::InvalidTxnState),
            )),
        };
    }
    let call = reply.call();
    let count = request.partitions_count();
    let job = Job {
        reply: Some(reply),
        answer: request.answer(ErrorCode::None),
        acks,
        waiting: count + 1,
    };
    let timeout = Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let mut producing = core.begin_produce(job);
    let mut topic: Option<TopicInfo> = None;
    for (at, records) in request.partitions().enumerate() {
        if topic
            .as_ref()
            .is_none_or(|known| *known.name != *records.topic)
        {
            topic = producing.topic(records.topic);
        }
        match offer(topic.as_ref(), call, &records) {
            Ok((topic, batch, header)) => {
                let produce = Produce {
                    ticket: producing.ticket(at),
                    origin: Origin::Client,
                    acks,
                    timeout,
                    last_offset_delta: header.last_offset_delta,
                    bytes: u32::try_from(batch.len()).expect("a frame is at most 16 MiB"),
                    claim: Claim::of(&header),
                    max_ts: if topic.log_append_time {
                        clock::wall()
                    } else {
                        header.max_timestamp
                    },
                    attributes: header.attributes,
                };
                producing.offer(topic, records.index, produce, batch);
            }
            Err(fault) => producing.refuse(at, fault),
        }
    }
    producing.end();
}

/// What is wrong with a batch before any partition sees it.
pub(crate) struct Fault {
    pub(crate) error: ErrorCode,
    pub(crate) message: Option<Box<str>>,
}

impl From<ErrorCode> for Fault {
    fn from(error: ErrorCode) -> Self {
        Self {
            error,
            message: None,
        }
    }
}

fn fault(error: ErrorCode, message: impl Into<String>) -> Fault {
    Fault {
        error,
        message: Some(message.into().into_boxed_str()),
    }
}

/// The checks that need no partition: the topic, the batch's bytes, and what its version and its topic allow.
fn offer<'a>(
    topic: Option<&'a TopicInfo>,
    call: Call,
    records: &PartitionRecords<'_>,
) -> Result<(&'a TopicInfo, Bytes, Header), Fault> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.partition(records.index).is_none() {
        return Err(ErrorCode::UnknownTopicOrPartition.into());
    }
    if topic.internal {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let batch = records.records.clone().filter(|batch| !batch.is_empty());
    let Some(batch) = batch else {
        return Err(fault(
            ErrorCode::InvalidRecord,
            "a produce carries exactly one batch a partition, this one none",
        ));
    };
    let header = Header::check(&batch)
        .and_then(|header| header.check_claim().map(|()| header))
        .map_err(|error| {
            let code = match error {
                BatchFault::Crc { .. } | BatchFault::Truncated { .. } | BatchFault::Length(_) => {
                    ErrorCode::CorruptMessage
                }
                BatchFault::Magic(_)
                | BatchFault::Codec(_)
                | BatchFault::Count { .. }
                | BatchFault::Crowded { .. } => ErrorCode::InvalidRecord,
            };
            fault(code, error.to_string())
        })?;
    if header.bytes != batch.len() {
        return Err(fault(
            ErrorCode::InvalidRecord,
            "a produce carries exactly one batch a partition, this one more",
        ));
    }
    if header.codec() == Ok(Codec::Zstd) && !call.allows_zstd() {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    if header.transactional() || header.control() {
        return Err(fault(
            ErrorCode::InvalidTxnState,
            "transactions are not built yet",
        ));
    }
    if header.delete_horizon() || header.unknown_attributes() {
        return Err(fault(
            ErrorCode::InvalidRecord,
            "attribute bits that no client sets",
        ));
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(fault(
            ErrorCode::InvalidRecord,
            "an idempotent batch without sequence or epoch",
        ));
    }
    topic
        .check_timestamps(&header)
        .map_err(|message| fault(ErrorCode::InvalidTimestamp, message))?;
    if topic.compacted {
        topic
            .check_keys(&header, &batch)
            .map_err(|message| fault(ErrorCode::InvalidRecord, message))?;
    }
    Ok((topic, batch, header))
}

/// An answer that nothing was stored, for what fails before a partition is asked.
pub(crate) fn apply_fault(partition: &mut PartitionAnswer, fault: Fault) {
    *partition = PartitionAnswer::refused(partition.index, fault.error);
    partition.message = fault.message;
    partition.base_offset = Offset(-1);
}

impl Job {
    /// Notes that the batch at `at` was refused before its partition saw it. True once answered.
    pub(crate) fn settle_fault(&mut self, at: usize, fault: Fault) -> bool {
        apply_fault(&mut self.answer.partitions[at], fault);
        self.waiting -= 1;
        self.finish()
    }

    /// All batches were offered; answers if all are settled already. True once answered.
    pub(crate) fn offered(&mut self) -> bool {
        self.waiting -= 1;
        self.finish()
    }
}
