//! Requests on their way to the group coordinator, and an internal partition's log read for it when it is led anew.
//!
//! The coordinator decides on records in Kafka's format and never sees a log.

use std::rc::Rc;
use std::time::Duration;

use model::batch::{HEADER_BYTES, Header};
use model::record::Records;
use model::{LeaderEpoch, NodeId, Offset, codec};
use node::Ticket;
use node::broker::{Input, ReplicaIx};
use node::catalog::OFFSETS_TOPIC;
use node::coordinator::{GROUP_PARTITIONS, partition_of};
use node::group::{GroupError, GroupReply, GroupRequest};
use tokio::sync::{Notify, oneshot};
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use super::queries::Span;
use super::{Core, Owner};
use crate::spindle::Located;

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
            inner.todo.push_back(Input::Group {
                ticket,
                request: Box::new(request),
            });
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
        replica: ReplicaIx,
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

/// An internal partition's log on its way to its coordinator.
struct Load {
    core: Rc<Core>,
    replica: ReplicaIx,
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
        self.core
            .with(|inner| inner.todo.push_back(Input::Loaded { partition, epoch }));
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
        let machine = inner.broker.partition(self.replica)?;
        let start = machine
            .leading_since()
            .filter(|_| machine.epoch() == self.epoch)?;
        Some((start, machine.log_start(), machine.high_watermark()))
    }

    fn tell(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (partition, epoch, from) = (self.internal, self.epoch, self.from);
        let mut inputs = Vec::new();
        let end = read_batches(bytes, from, |offset, key, value| {
            inputs.push(Input::Record {
                partition,
                epoch,
                offset,
                key,
                value,
            });
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
    use model::WallMs;
    use model::batch::Codec;
    use model::record::{Builder, Pair, Producer};
    use node::broker::batch_of;
    use node::coordinator::Record;

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
        let mut batch = batch_of(records, WallMs(7));
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
}
