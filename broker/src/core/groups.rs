//! The group coordinator's hands: its batches on their way to the internal partitions, its answers on their way back,
//! and an internal partition's log read when it is led anew.
//!
//! The coordinator decides on records in Kafka's format and never sees a log; here they become batches of
//! `__consumer_offsets`, appended like any other.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use model::batch::{Codec, HEADER_BYTES, Header};
use model::record::{Builder, Pair, Producer, Records};
use model::{Instant, LeaderEpoch, NodeId, Offset, WallMs, codec};
use node::Ticket;
use node::catalog::OFFSETS_TOPIC;
use node::coordinator::{
    AppendFailure, AppendId, Effect, GROUP_PARTITIONS, Input, Record, partition_of,
};
use node::group::{GroupError, GroupReply, GroupRequest};
use node::partition::{self, Acks, Origin, Outcome, Produce, Refusal};
use tokio::sync::{Notify, oneshot};
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use super::queries::Span;
use super::{Core, Inner, Owner, Todo};
use crate::clock;
use crate::spindle::Located;

/// Kafka's `offsets.commit.timeout.ms`: how long a record of groups waits for replicas.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a log that are read before others have their turn on the core thread.
const LOAD_BYTES: u64 = 1 << 20;
/// Records of one batch, decompressed. Ours are never compressed and at most 1 MiB; those of a batch that Kafka's tools
/// brought here could be.
const RECORDS_BYTES_MAX: usize = 16 << 20;
/// A partition's log that could not be read is tried again after this long.
const LOAD_PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// Asks the group's coordinator, which is here or nowhere. The answer may take as long as a rebalance.
    pub(crate) fn ask_group(
        self: &Rc<Self>,
        request: GroupRequest,
    ) -> impl Future<Output = GroupReply> + use<> {
        let (told, answer) = oneshot::channel();
        self.with(|inner| {
            let ticket = Ticket(inner.tickets.insert(Owner::Group(told)) as u64);
            inner.todo.push_back(Todo::Coordinator(Input::Request {
                ticket,
                request: Box::new(request),
            }));
        });
        async move {
            // Every ticket is answered; only the end of the core drops one.
            answer
                .await
                .unwrap_or(GroupReply::Refused(GroupError::CoordinatorNotAvailable))
        }
    }

    /// Who coordinates `group`; `None` before its internal partition is led.
    pub(crate) fn coordinator_of(&self, group: &str) -> Option<NodeId> {
        let internal = partition_of(group, GROUP_PARTITIONS);
        let topic = self.topic_by_name(OFFSETS_TOPIC)?;
        let leader = topic.partitions.get(internal as usize)?.leader?;
        self.partition_serves(topic.id, internal.cast_signed())
            .then_some(leader)
    }

    /// Reads an internal partition that this node leads since `epoch`, and tells its coordinator.
    pub(super) fn load_internal(
        self: &Rc<Self>,
        replica: usize,
        internal: u32,
        epoch: LeaderEpoch,
    ) {
        spawn_local(
            Load {
                core: self.clone(),
                replica,
                internal,
                epoch,
                from: Offset::ZERO,
            }
            .run(),
        );
    }
}

impl Inner {
    pub(super) fn coordinator_effect(&mut self, core: &Rc<Core>, now: Instant, effect: Effect) {
        match effect {
            Effect::Append {
                partition,
                epoch,
                append,
                records,
            } => {
                self.append_records(core, now, (partition, epoch), append, &records);
            }
            Effect::Reply { ticket, reply } => match self.tickets.try_remove(ticket.0 as usize) {
                // Whoever asked may have gone away with its connection.
                Some(Owner::Group(task)) => drop(task.send(reply)),
                _ => unreachable!("the coordinator answers what it was asked, once"),
            },
        }
    }

    fn append_records(
        &mut self,
        core: &Rc<Core>,
        now: Instant,
        (internal, epoch): (u32, LeaderEpoch),
        append: AppendId,
        records: &[Record],
    ) {
        let leads = |at: &usize| {
            let machine = &self.replicas[*at].machine;
            machine.epoch() == epoch && machine.leading_since().is_some()
        };
        let Some(at) = self.internal_replica(internal).filter(leads) else {
            let failure = AppendFailure::NotLeader;
            self.todo.push_back(Todo::Coordinator(Input::AppendFailed {
                partition: internal,
                append,
                failure,
            }));
            return;
        };
        let time = clock::wall();
        let batch = batch_of(records, time);
        let ticket = Ticket(self.tickets.insert(Owner::Coordinator { internal, append }) as u64);
        let produce = Produce {
            ticket,
            origin: Origin::Coordinator,
            acks: Acks::All,
            timeout: COMMIT_WAIT,
            last_offset_delta: i32::try_from(records.len()).expect("a batch is at most 1 MiB") - 1,
            bytes: u32::try_from(batch.len()).expect("a batch is at most 1 MiB"),
            claim: None,
            max_ts: time,
            attributes: 0,
        };
        self.payloads.insert(ticket, batch);
        // At once and not in line: what stands there may begin another epoch.
        self.step_partition(core, now, at, partition::Input::Produce(produce));
    }

    fn internal_replica(&self, internal: u32) -> Option<usize> {
        let topic = self.topics_by_name.get(OFFSETS_TOPIC)?;
        topic.partitions.get(internal as usize)?.replica
    }

    /// A batch of the coordinator's has its place in the log.
    pub(super) fn placed(&mut self, ticket: Ticket, base_offset: Offset) {
        if let Some(Owner::Coordinator { internal, append }) = self.tickets.get(ticket.0 as usize) {
            let input = Input::Appended {
                partition: *internal,
                append: *append,
                base_offset,
            };
            self.todo.push_back(Todo::Coordinator(input));
        }
    }
}

/// What the coordinator is told of a batch's outcome; nothing of one that is stored, which the high watermark says.
pub(super) fn append_outcome(internal: u32, append: AppendId, outcome: &Outcome) -> Option<Input> {
    let failure = match outcome {
        Outcome::Stored { .. } => return None,
        Outcome::Refused(Refusal::NotLeader { .. } | Refusal::DiskFailed) => {
            AppendFailure::NotLeader
        }
        Outcome::Refused(_) => AppendFailure::Unavailable,
        Outcome::Deleted { .. } => unreachable!("a produce deletes nothing"),
    };
    Some(Input::AppendFailed {
        partition: internal,
        append,
        failure,
    })
}

fn batch_of(records: &[Record], WallMs(time): WallMs) -> Bytes {
    let mut builder = Builder::default();
    for record in records {
        builder.push(
            time,
            Some(&record.key),
            record.value.as_deref(),
            std::iter::empty::<Pair<'_>>(),
        );
    }
    let batch = builder
        .finish(Codec::None, Producer::NONE)
        .expect("nothing is compressed");
    batch.into()
}

/// An internal partition's log on its way to its coordinator.
struct Load {
    core: Rc<Core>,
    replica: usize,
    internal: u32,
    epoch: LeaderEpoch,
    /// All below was told.
    from: Offset,
}

impl Load {
    async fn run(mut self) {
        let mut said = String::new();
        while let Err(trouble) = self.read().await {
            // Groups without their offsets would begin anew, so they wait: COORDINATOR_LOAD_IN_PROGRESS until it is read.
            if trouble != said {
                tracing::error!(
                    partition = self.internal,
                    from = self.from.0,
                    trouble,
                    "groups can't be loaded"
                );
                said = trouble;
            }
            sleep(LOAD_PAUSE).await;
        }
    }

    /// Tells every record up to a high watermark that has reached the epoch's start; ends early with the epoch.
    async fn read(&mut self) -> Result<(), String> {
        let Some((log_start, until)) = self.committed().await else {
            return Ok(());
        };
        self.from = self.from.max(log_start);
        let mut bytes = Vec::new();
        while self.from < until {
            let span = Span {
                replica: self.replica,
                from: self.from,
                until,
                bytes_max: LOAD_BYTES,
                at_least_one: true,
            };
            let ranges = match self.core.locate(&span).map_err(|error| error.to_string())? {
                Located::Ranges(ranges) => ranges,
                Located::Cold => self
                    .core
                    .locate_cold(&span)
                    .await
                    .map_err(|error| error.to_string())?,
            };
            if ranges.is_empty() {
                // Compaction may have taken the log's last batches.
                break;
            }
            for range in ranges {
                if !range.resident() {
                    self.core
                        .warm(&range)
                        .await
                        .map_err(|error| error.to_string())?;
                }
                bytes.resize(range.len(), 0);
                range
                    .read_into(&mut bytes)
                    .map_err(|error| error.to_string())?;
                self.tell(&bytes)?;
            }
            yield_now().await;
            if self.standing().is_none() {
                return Ok(());
            }
        }
        let Self {
            internal: partition,
            epoch,
            ..
        } = *self;
        self.core.with(|inner| {
            inner
                .todo
                .push_back(Todo::Coordinator(Input::Loaded { partition, epoch }))
        });
        Ok(())
    }

    /// Waits for the high watermark to reach the epoch's start; gives the log's start and the high watermark, and
    /// nothing once the epoch is over.
    async fn committed(&self) -> Option<(Offset, Offset)> {
        let moved = Rc::new(Notify::new());
        loop {
            self.core.wait_for(self.replica, &moved);
            let (start, log_start, high_watermark) = self.standing()?;
            if high_watermark >= start {
                return Some((log_start, high_watermark));
            }
            moved.notified().await;
        }
    }

    /// The epoch's start, the log's and the high watermark, while the partition is led in this epoch.
    fn standing(&self) -> Option<(Offset, Offset, Offset)> {
        let inner = self.core.inner.borrow();
        let machine = &inner.replicas.get(self.replica)?.machine;
        let start = machine
            .leading_since()
            .filter(|_| machine.epoch() == self.epoch)?;
        Some((start, machine.log_start(), machine.high_watermark()))
    }

    fn tell(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (partition, epoch, from) = (self.internal, self.epoch, self.from);
        let mut inputs = Vec::new();
        let end = read_batches(bytes, from, |offset, key, value| {
            inputs.push(Todo::Coordinator(Input::Record {
                partition,
                epoch,
                offset,
                key,
                value,
            }));
        })?;
        self.core.with(|inner| inner.todo.extend(inputs));
        self.from = end;
        Ok(())
    }
}

/// Reads whole batches, gives each record from `from` on, and returns the offset behind the last batch.
fn read_batches(
    mut bytes: &[u8],
    from: Offset,
    mut each: impl FnMut(Offset, Vec<u8>, Option<Vec<u8>>),
) -> Result<Offset, String> {
    let mut end = from;
    while !bytes.is_empty() {
        let header = Header::check_stored(bytes)
            .map_err(|error| format!("behind offset {}: {error}", end.0))?;
        let (batch, rest) = bytes.split_at(header.bytes);
        bytes = rest;
        end = end.max(header.next_offset());
        // A marker tells of transactions, not of groups.
        if header.control() {
            continue;
        }
        let fault =
            |error: &dyn std::fmt::Display| format!("batch at {}: {error}", header.base_offset.0);
        let codec = header.codec().map_err(|error| fault(&error))?;
        let plain = codec::decompress(codec, &batch[HEADER_BYTES..], RECORDS_BYTES_MAX)
            .map_err(|error| fault(&error))?;
        for record in Records::new(&plain, header.records_count) {
            let record = record.map_err(|error| fault(&error))?;
            let offset = header.base_offset.plus(record.offset_delta.into());
            // The first batch may begin before what is asked for. A record without a key says nothing about a group.
            if let Some(key) = record.key.filter(|_| offset >= from) {
                each(offset, key.to_vec(), record.value.map(<[u8]>::to_vec));
            }
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: Option<&str>) -> Record {
        Record {
            key: key.into(),
            value: value.map(Into::into),
        }
    }

    fn read(bytes: &[u8], from: i64) -> (Vec<(i64, Record)>, Result<Offset, String>) {
        let mut told = Vec::new();
        let end = read_batches(bytes, Offset(from), |offset, key, value| {
            told.push((offset.0, Record { key, value }))
        });
        (told, end)
    }

    fn stamped(records: &[Record], base_offset: i64) -> Vec<u8> {
        let mut batch = batch_of(records, WallMs(7)).to_vec();
        model::batch::stamp(&mut batch, Offset(base_offset), LeaderEpoch(3));
        batch
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (a, b, c) = (
            record("a", Some("1")),
            record("b", None),
            record("c", Some("")),
        );
        let mut log = stamped(&[a.clone(), b.clone()], 10);
        log.extend(stamped(std::slice::from_ref(&c), 12));
        let header = Header::check(&log).expect("a batch that a client could have sent");
        assert_eq!(
            (header.max_timestamp, header.codec()),
            (WallMs(7), Ok(Codec::None))
        );
        let (told, end) = read(&log, 0);
        assert_eq!(told, [(10, a), (11, b.clone()), (12, c.clone())]);
        assert_eq!(end, Ok(Offset(13)));
        let (told, _) = read(&log, 11);
        assert_eq!(
            told,
            [(11, b), (12, c)],
            "the first batch begins before what is asked for"
        );
    }

    #[test]
    fn other_peoples_batches_are_read_too() {
        let mut builder = Builder::default();
        builder.push(5, Some(b"k"), Some(b"v"), std::iter::empty::<Pair<'_>>());
        builder.push(6, None, Some(b"no key"), std::iter::empty::<Pair<'_>>());
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let batch = builder
                .finish(codec, Producer::NONE)
                .expect("it compresses");
            assert_eq!(
                read(&batch, 0),
                (vec![(0, record("k", Some("v")))], Ok(Offset(2))),
                "{codec:?}"
            );
        }
        let mut control = builder
            .finish(Codec::None, Producer::NONE)
            .expect("nothing is compressed");
        control[22] |= 0x20;
        model::batch::seal(&mut control);
        assert_eq!(read(&control, 0), (Vec::new(), Ok(Offset(2))));
    }

    #[test]
    fn rotten_batches_are_no_empty_log() {
        let good = stamped(&[record("a", Some("1"))], 4);
        for at in [8, 16, 20, good.len() - 1] {
            let mut bad = good.clone();
            bad.extend(stamped(&[record("b", Some("2"))], 5));
            bad[good.len() + at] ^= 0x55;
            let (told, end) = read(&bad, 0);
            assert!(end.is_err(), "byte {at}: {told:?}");
        }
        assert!(read(&good[..good.len() - 1], 0).1.is_err(), "cut");
    }

    #[test]
    fn every_refusal_is_told_to_the_coordinator() {
        let stored = Outcome::Stored {
            base_offset: Offset(1),
            log_start: Offset(0),
            timestamp: WallMs(0),
        };
        assert!(append_outcome(3, AppendId(9), &stored).is_none());
        let failure = |refusal| match append_outcome(3, AppendId(9), &Outcome::Refused(refusal)) {
            Some(Input::AppendFailed {
                partition: 3,
                append: AppendId(9),
                failure,
            }) => failure,
            other => panic!("{other:?}"),
        };
        let gone = Refusal::NotLeader {
            leader: None,
            epoch: LeaderEpoch(2),
        };
        assert_eq!(failure(gone), AppendFailure::NotLeader);
        assert_eq!(failure(Refusal::DiskFailed), AppendFailure::NotLeader);
        for refusal in [
            Refusal::TimedOut,
            Refusal::NotEnoughReplicas,
            Refusal::NotEnoughReplicasAfterAppend,
            Refusal::Crowded,
        ] {
            assert_eq!(failure(refusal), AppendFailure::Unavailable);
        }
    }
}
