//! Fetch: what lies between the asked offset and the high watermark, as ranges of files.
//!
//! A request is tried at once. If that gives too few bytes it waits, without holding anything, until one of its
//! partitions grows or its time is over, and is tried again. What memory doesn't hold the disk's reader thread looks up.

use std::rc::Rc;
use std::time::Duration;

use node::partition::{PARK_MAX, Refusal};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};
use wire::fetch::{FetchRequest, Isolation, TopicRef};
use wire::fetch_answer::{FetchAnswer, PartitionFetched, TopicRecords};
use wire::produce::LeaderHint;
use wire::{ErrorCode, Response};

use super::Reply;
use super::errors::refused;
use crate::clock;
use crate::core::Core;
use crate::core::queries::{Readable, Span};
use crate::sessions::{Asked, Watched};
use crate::spindle::{FileRange, Located};

/// Bytes of one answer: what Kafka's `fetch.max.bytes` allows a consumer by default.
const ANSWER_BYTES_MAX: i64 = 55 << 20;
/// Longest wait a client may ask for; its own request time-out is far below.
const WAIT_MAX: Duration = Duration::from_secs(300);

pub(super) fn handle(core: &Rc<Core>, request: FetchRequest, reply: Reply) {
    if request.replica_id >= 0 {
        // Replicas of this site have a door of their own; nobody else may read past the high watermark.
        return reply.send(Response::Fetch(FetchAnswer::refused(
            &request,
            ErrorCode::NotLeaderOrFollower,
        )));
    }
    let asked =
        core.sessions
            .borrow_mut()
            .ask(clock::now(), reply.call().fetches_by_id(), &request);
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return reply.send(Response::Fetch(FetchAnswer::refused(&request, error))),
    };
    let fetch = Fetch::new(core.clone(), &request, asked);
    let round = fetch.round();
    if round.cold.is_none() && fetch.enough(&round, Duration::ZERO) {
        return fetch.answer(round, reply);
    }
    spawn_local(fetch.wait(reply));
}

/// A request with its session settled.
struct Fetch {
    core: Rc<Core>,
    asked: Asked,
    begin: usize,
    wait: Duration,
    bytes_min: i64,
    bytes_max: i64,
    isolation: Isolation,
}

/// What one try found.
struct Round {
    /// By position in the request's partitions.
    found: Vec<(usize, PartitionFetched<FileRange>)>,
    bytes: i64,
    /// A partition failed, or has filled its own limit: no reason to wait.
    decided: bool,
    /// A partition waits for a lease.
    parked: bool,
    /// What only the disk's reader thread can look up.
    cold: Option<(usize, Span)>,
}

impl Fetch {
    fn new(core: Rc<Core>, request: &FetchRequest, asked: Asked) -> Self {
        let begin = core
            .sessions
            .borrow_mut()
            .turn(asked.session_id, asked.partitions.len());
        Self {
            core,
            begin,
            asked,
            wait: Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into())
                .min(WAIT_MAX),
            bytes_min: request.min_bytes.into(),
            bytes_max: i64::from(request.max_bytes).min(ANSWER_BYTES_MAX),
            isolation: request.isolation,
        }
    }

    /// Tries every partition, from the session's turn on.
    fn round(&self) -> Round {
        let mut round = Round {
            found: Vec::new(),
            bytes: 0,
            decided: false,
            parked: false,
            cold: None,
        };
        let count = self.asked.partitions.len();
        for at in (0..count).map(|step| (self.begin + step) % count) {
            let watched = &self.asked.partitions[at];
            let found = match self.read(watched, &mut round) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    round.decided = true;
                    PartitionFetched::refused(watched.ask.index, error)
                }
            };
            round.found.push((at, found));
        }
        round
    }

    fn read(
        &self,
        watched: &Watched,
        round: &mut Round,
    ) -> Result<Option<PartitionFetched<FileRange>>, ErrorCode> {
        let ask = &watched.ask;
        let topic = match &watched.topic {
            TopicRef::Name(name) => self
                .core
                .topic_by_name(name)
                .ok_or(ErrorCode::UnknownTopicOrPartition)?,
            TopicRef::Id(id) => self
                .core
                .topic_by_id(id.0.0)
                .ok_or(ErrorCode::UnknownTopicId)?,
        };
        let partition = topic
            .partition(ask.index)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let replica = partition.replica.ok_or(ErrorCode::NotLeaderOrFollower)?;
        let readable = match self.core.readable(replica, ask) {
            Ok(readable) => readable,
            Err(Refusal::Park) => {
                round.parked = true;
                return Ok(Some(PartitionFetched::refused(
                    ask.index,
                    ErrorCode::NotLeaderOrFollower,
                )));
            }
            Err(Refusal::NotLeader {
                leader: Some(node),
                epoch,
            }) => {
                round.decided = true;
                let mut found =
                    PartitionFetched::refused(ask.index, ErrorCode::NotLeaderOrFollower);
                found.leader = Some(LeaderHint { node, epoch });
                return Ok(Some(found));
            }
            Err(Refusal::OffsetOutOfRange {
                log_start,
                high_watermark,
            }) => {
                round.decided = true;
                let mut found = PartitionFetched::refused(ask.index, ErrorCode::OffsetOutOfRange);
                (found.log_start, found.high_watermark) = (log_start, high_watermark);
                return Ok(Some(found));
            }
            Err(refusal) => return Err(refused(&refusal)),
        };
        let mut found = self.head(ask.index, &readable);
        if readable.diverging.is_some() {
            round.decided = true;
            return Ok(Some(found));
        }
        let limit = i64::from(ask.max_bytes).min(self.bytes_max - round.bytes);
        let until = match self.isolation {
            Isolation::ReadUncommitted => readable.high_watermark,
            Isolation::ReadCommitted => readable.stable_end,
        };
        if ask.offset < until && (limit > 0 || round.bytes == 0) {
            let span = Span {
                replica,
                from: ask.offset,
                until,
                bytes_max: limit.max(0).unsigned_abs(),
                // The first one always gives a batch, or a consumer with small limits would never get past it.
                at_least_one: round.bytes == 0,
            };
            match self
                .core
                .locate(&span)
                .map_err(|_| ErrorCode::KafkaStorageError)?
            {
                Located::Ranges(ranges) => {
                    let bytes = ranges.iter().map(|range| range.len() as i64).sum::<i64>();
                    round.bytes += bytes;
                    round.decided |= bytes >= i64::from(ask.max_bytes);
                    found.records = ranges;
                }
                Located::Cold if round.cold.is_none() => {
                    round.cold = Some((round.found.len(), span))
                }
                // One cold partition a round; the others have their turn in the next request.
                Located::Cold => round.decided = true,
            }
        }
        Ok(Some(found))
    }

    fn head(&self, index: i32, readable: &Readable) -> PartitionFetched<FileRange> {
        let mut found = PartitionFetched::refused(index, ErrorCode::None);
        found.high_watermark = readable.high_watermark;
        found.last_stable = readable.stable_end;
        found.log_start = readable.log_start;
        found.diverging = readable.diverging;
        // Transactions are not built: nothing was ever aborted.
        found.aborted = (self.isolation == Isolation::ReadCommitted).then(Vec::new);
        found
    }

    fn enough(&self, round: &Round, waited: Duration) -> bool {
        if round.parked && waited < PARK_MAX {
            return false;
        }
        round.decided
            || round.parked
            || round.bytes >= self.bytes_min
            || waited >= self.wait
            || self.asked.partitions.is_empty()
    }

    /// Tries again whenever a partition moves, until there is enough or the time is over.
    async fn wait(self, reply: Reply) {
        let began = Instant::now();
        let moved = Rc::new(Notify::new());
        loop {
            // Registered before the try, so that nothing is missed between it and the wait.
            self.register(&moved);
            let mut round = self.round();
            if let Some((at, span)) = round.cold.take() {
                match self.core.locate_cold(&span).await {
                    Ok(ranges) => round.found[at].1.records = ranges,
                    Err(_) => {
                        let index = round.found[at].1.index;
                        round.found[at].1 =
                            PartitionFetched::refused(index, ErrorCode::KafkaStorageError);
                    }
                }
                return self.answer(round, reply);
            }
            let waited = began.elapsed();
            if self.enough(&round, waited) {
                return self.answer(round, reply);
            }
            let end = if round.parked {
                began + PARK_MAX
            } else {
                began + self.wait
            };
            tokio::select! {
                () = moved.notified() => {}
                () = sleep_until(end) => {}
            }
        }
    }

    fn register(&self, moved: &Rc<Notify>) {
        for watched in &self.asked.partitions {
            let topic = match &watched.topic {
                TopicRef::Name(name) => self.core.topic_by_name(name),
                TopicRef::Id(id) => self.core.topic_by_id(id.0.0),
            };
            let partition = topic
                .as_ref()
                .and_then(|topic| topic.partition(watched.ask.index));
            if let Some(replica) = partition.and_then(|partition| partition.replica) {
                self.core.wait_for(replica, moved);
            }
        }
    }

    fn answer(self, mut round: Round, reply: Reply) {
        round.found.sort_unstable_by_key(|(at, _)| *at);
        let mut topics: Vec<TopicRecords<FileRange>> = Vec::new();
        let mut sessions = self.core.sessions.borrow_mut();
        for (at, found) in round.found {
            let news = sessions.tell(
                self.asked.session_id,
                at,
                found.high_watermark,
                found.log_start,
            );
            let quiet = found.error == ErrorCode::None
                && found.records.is_empty()
                && found.diverging.is_none();
            if self.asked.incremental && quiet && !news {
                continue;
            }
            let topic = &self.asked.partitions[at].topic;
            match topics.last_mut().filter(|last| last.topic == *topic) {
                Some(last) => last.partitions.push(found),
                None => topics.push(TopicRecords {
                    topic: topic.clone(),
                    partitions: vec![found],
                }),
            }
        }
        drop(sessions);
        let nodes = self.core.hinted_nodes(
            topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .filter_map(|it| it.leader),
        );
        reply.send_fetched(FetchAnswer {
            error: ErrorCode::None,
            session_id: self.asked.session_id,
            topics,
            nodes,
        });
    }
}
