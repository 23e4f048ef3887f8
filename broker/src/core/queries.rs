//! What the request paths ask of partitions: what may be read, where it lies, offsets by time and by epoch, deletion.
//!
//! Bounds are the leader's word, given by the partition's machine within the lease, and asked again after every wait
//! (R8). Where batches lie the disk's view says at once if memory knows it, else its reader thread.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::window::Producer;
use model::{LeaderEpoch, Offset, WallMs};
use node::Ticket;
use node::broker::ReplicaIx;
use node::partition::{
    Fetch, Input, Isolation, ListOffsets, Listed, OffsetSpec, Outcome, PARK_MAX, Partition, Refusal,
};
use store::{LinuxIo, Locate, PartIx, Reach, ReadError, Stamped, Timed, View};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use wire::ErrorCode;
use wire::fetch::FetchPartition;

use super::{Core, Inner, Owner};
use crate::clock;
use crate::dispatch::errors::refused;
use crate::spindle::{Damaged, FileRange, Find, Located};

mod site;

/// A parked question is put again this often even if nothing is known to have changed: a lease is renewed silently.
const PARKED_POLL: Duration = Duration::from_millis(20);

/// What a fetch may read; for the head of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readable {
    pub(crate) high_watermark: Offset,
    /// No transaction is undecided below.
    pub(crate) stable_end: Offset,
    pub(crate) log_start: Offset,
    /// The client's log parted from ours: epoch and end to cut to, and no records.
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
}

/// Batches that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) replica: ReplicaIx,
    /// From the batch that holds it.
    pub(crate) from: Offset,
    /// No batch that begins here or behind.
    pub(crate) until: Offset,
    pub(crate) bytes_max: u64,
    /// One whole batch, be it larger than the limit.
    pub(crate) at_least_one: bool,
}

/// A partition's ends as its leader tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) log_start: Offset,
    /// Refused until it is known to be the end.
    pub(crate) latest: Result<Offset, Refusal>,
    pub(crate) stable: Offset,
    /// The leader's, which Kafka tells with the end.
    pub(crate) leader_epoch: LeaderEpoch,
}

/// A record that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: Offset,
    pub(crate) timestamp: WallMs,
    pub(crate) leader_epoch: LeaderEpoch,
}

impl Found {
    /// No such record, which is no error (COMPAT 24).
    pub(crate) const NOTHING: Self = Self {
        offset: Offset(-1),
        timestamp: WallMs(-1),
        leader_epoch: LeaderEpoch::NONE,
    };
}

/// Why batches can't be read.
#[derive(Debug, Error)]
pub(crate) enum ReadFault {
    /// The topic was deleted meanwhile.
    #[error("the replica is gone")]
    Gone,
    /// The disk failed and was not recovered yet.
    #[error("the disk is out of service, or too much waits for it")]
    OutOfService,
    /// The lease or the leadership ended while the disk was read.
    #[error("this node leads the partition no more")]
    NotLeading,
    /// The batch is not what was written, and nobody else has it.
    #[error("the batch is damaged")]
    Damaged,
    #[error(transparent)]
    Store(#[from] ReadError),
}

impl Core {
    /// What a consumer's fetch may read now.
    pub(crate) fn readable(
        &self,
        replica: ReplicaIx,
        ask: &FetchPartition,
    ) -> Result<Readable, Refusal> {
        let fetch = Fetch {
            offset: ask.offset,
            current_leader_epoch: said(ask.current_leader_epoch),
            last_fetched_epoch: said(ask.last_fetched_epoch),
            // Both ends are told in the answer; which one bounds the records its maker knows.
            isolation: Isolation::Uncommitted,
        };
        let bounds = self.machine(replica, |machine| machine.fetch(clock::now(), &fetch))?;
        Ok(Readable {
            high_watermark: bounds.high_watermark,
            stable_end: bounds.stable_end,
            log_start: bounds.log_start,
            diverging: bounds.diverging,
        })
    }

    /// Where batches lie, if memory knows it.
    pub(crate) fn locate(&self, span: &Span) -> Result<Located, ReadFault> {
        let (disk, part, view) = self.log_of(span.replica)?;
        match view.locate(&self.ask(disk, part, span)?, Reach::Memory) {
            // Their disk thread reads them before the answer's head promises them.
            Ok(store::Located::Ranges(ranges)) if self.doubtful(disk, &ranges) => Ok(Located::Cold),
            Ok(store::Located::Ranges(ranges)) => Ok(Located::Ranges(on(disk, ranges))),
            Ok(store::Located::Cold) => Ok(Located::Cold),
            // Those who hold extents were called back; an empty answer is asked for again.
            Err(ReadError::Crowded) => Ok(Located::Ranges(Vec::new())),
            Err(error) => Err(self.told(disk, error)),
        }
    }

    /// Where batches lie, by the disk's reader thread, which has the first of them in memory then.
    pub(crate) async fn locate_cold(&self, span: &Span) -> Result<Vec<FileRange>, ReadFault> {
        let (disk, part, _) = self.log_of(span.replica)?;
        let locate = self.ask(disk, part, span)?;
        let answer = self.inner.borrow().spindles[disk].reader().locate(locate);
        let ranges = match answer.await.map_err(|_| ReadFault::OutOfService)? {
            Err(ReadError::Crowded) => Vec::new(),
            found => found.map_err(|error| self.told(disk, error))?,
        };
        self.still_serves(span.replica)?;
        Ok(on(disk, ranges))
    }

    /// Has the front of a range in memory.
    pub(crate) async fn warm(&self, range: &FileRange) -> io::Result<()> {
        let answer = self.inner.borrow().spindles[range.disk()]
            .reader()
            .warm(range.inner().clone());
        let read = answer
            .await
            .map_err(|_| ReadFault::OutOfService)
            .and_then(|read| read.map_err(|error| self.told(range.disk(), error)));
        read.map_err(io::Error::other)
    }

    /// What the disk is asked for a span: nothing from a damaged batch on.
    fn ask(&self, disk: usize, part: PartIx, span: &Span) -> Result<Locate, ReadFault> {
        let Span {
            from,
            until,
            bytes_max,
            at_least_one,
            ..
        } = *span;
        let spindle = &self.inner.borrow().spindles[disk];
        let until = spindle
            .bound(part, from, until)
            .map_err(|Damaged| ReadFault::Damaged)?;
        Ok(Locate {
            part,
            from,
            until,
            bytes_max,
            at_least_one,
        })
    }

    /// Whether some of it could not be read before.
    fn doubtful(&self, disk: usize, ranges: &[store::Range<LinuxIo>]) -> bool {
        let inner = self.inner.borrow();
        ranges
            .iter()
            .any(|range| inner.spindles[disk].is_unreadable(range.life()))
    }

    /// What a disk can't read a person should know; the rest is told to the client alone. Nobody else has a copy on a site
    /// of one, so this node goes on leading and serves what can be read.
    fn told(&self, disk: usize, error: ReadError) -> ReadFault {
        self.inner.borrow().spindles[disk].unreadable(&error);
        ReadFault::Store(error)
    }

    /// Wakes `waiter` once when the partition's high watermark moves or its leader changes.
    pub(crate) fn wait_for(&self, replica: ReplicaIx, waiter: &Rc<Notify>) {
        if let Some(replica) = self.inner.borrow_mut().replicas.get_mut(replica) {
            replica.wait(waiter);
        }
    }

    /// Where a partition begins and ends.
    pub(crate) fn ends(&self, replica: ReplicaIx, current: LeaderEpoch) -> Result<Ends, Refusal> {
        self.machine(replica, |machine| {
            let list = |spec| {
                let isolation = Isolation::Uncommitted;
                machine.list_offsets(
                    clock::now(),
                    &ListOffsets {
                        spec,
                        current_leader_epoch: said(current),
                        isolation,
                    },
                )
            };
            let at = |listed| match listed {
                Listed::At { offset, .. } => offset,
                Listed::LookUp { .. } => unreachable!("only times are looked up"),
            };
            Ok(Ends {
                log_start: at(list(OffsetSpec::Earliest)?),
                latest: list(OffsetSpec::Latest).map(at),
                stable: machine.stable_end(),
                leader_epoch: machine.epoch(),
            })
        })
    }

    /// Puts a question again for as long as a lease or a new leader epoch may come (R8).
    pub(crate) async fn unparked<T>(
        &self,
        ask: impl Fn() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let end = Instant::now() + PARK_MAX;
        let progress = self.inner.borrow().progress.clone();
        loop {
            let moved = progress.notified();
            match ask() {
                Err(Refusal::Park) if Instant::now() < end => {}
                answer => return answer,
            }
            // Either way it is put again.
            let _ = timeout_at(Instant::now() + PARKED_POLL, moved).await;
        }
    }

    /// Offset behind the last record of the largest leader epoch not above `epoch`; (−1, −1) if there is none.
    pub(crate) fn end_of_epoch(
        &self,
        replica: ReplicaIx,
        current: LeaderEpoch,
        epoch: LeaderEpoch,
    ) -> Result<(LeaderEpoch, Offset), Refusal> {
        let found = self.machine(replica, |machine| {
            machine.end_offset_for_epoch(clock::now(), said(current), epoch)
        })?;
        Ok(found.unwrap_or((LeaderEpoch::NONE, Offset(-1))))
    }

    /// Leader epoch of the batch at `offset`; −1 where none is known.
    pub(crate) fn epoch_at(&self, replica: ReplicaIx, offset: Offset) -> LeaderEpoch {
        self.machine(replica, |machine| Ok(machine.epoch_at(offset)))
            .unwrap_or(LeaderEpoch::NONE)
    }

    /// The first record at `time` or later.
    pub(crate) async fn offset_of_time(
        &self,
        replica: ReplicaIx,
        time: WallMs,
    ) -> Result<Found, ErrorCode> {
        self.find(replica, Find::At(time)).await
    }

    /// The first of the records with the latest time.
    pub(crate) async fn offset_of_latest_time(
        &self,
        replica: ReplicaIx,
    ) -> Result<Found, ErrorCode> {
        self.find(replica, Find::Latest).await
    }

    async fn find(&self, replica: ReplicaIx, find: Find) -> Result<Found, ErrorCode> {
        // Below the stable end every reader may see every record.
        let isolation = Isolation::Committed;
        let list = ListOffsets {
            spec: OffsetSpec::ByTime,
            current_leader_epoch: None,
            isolation,
        };
        let bounds = self.machine(replica, |machine| machine.list_offsets(clock::now(), &list));
        let until = match bounds.map_err(|refusal| refused(&refusal))? {
            Listed::LookUp { to, .. } => to,
            Listed::At { .. } => unreachable!("times are looked up"),
        };
        let found = self
            .search(replica, find, until)
            .await
            .map_err(|fault| match fault {
                ReadFault::Gone => ErrorCode::UnknownTopicOrPartition,
                ReadFault::NotLeading => ErrorCode::NotLeaderOrFollower,
                ReadFault::OutOfService | ReadFault::Damaged | ReadFault::Store(_) => {
                    ErrorCode::KafkaStorageError
                }
            })?;
        Ok(found.map_or(Found::NOTHING, |it| Found {
            offset: it.offset,
            timestamp: it.timestamp,
            leader_epoch: it.epoch,
        }))
    }

    async fn search(
        &self,
        replica: ReplicaIx,
        find: Find,
        until: Offset,
    ) -> Result<Option<Stamped>, ReadFault> {
        let (disk, part, view) = self.log_of(replica)?;
        match find
            .search(&view, part, until, Reach::Memory)
            .map_err(|error| self.told(disk, error))?
        {
            Timed::Found(found) => return Ok(Some(found)),
            Timed::Nothing => return Ok(None),
            Timed::Cold => {}
        }
        // A failed disk waits for its view to be let go.
        drop(view);
        let answer = self.inner.borrow().spindles[disk]
            .reader()
            .find(part, find, until);
        let found = answer
            .await
            .map_err(|_| ReadFault::OutOfService)?
            .map_err(|error| self.told(disk, error))?;
        self.still_serves(replica)?;
        Ok(found)
    }

    /// Who has written to a partition, by producer id.
    pub(crate) fn producers(&self, replica: ReplicaIx) -> Result<Vec<Producer>, Refusal> {
        let inner = self.inner.borrow();
        let machine = inner.machine(replica)?;
        let producers = machine.producers(clock::now(), inner.broker.windows())?;
        Ok(producers.collect())
    }

    /// Asks for all below `offset` to go; −1 is the high watermark. What is given resolves when that is durable.
    pub(crate) fn delete_records(
        self: &Rc<Self>,
        replica: ReplicaIx,
        offset: Offset,
    ) -> oneshot::Receiver<Outcome> {
        let (task, outcome) = oneshot::channel();
        self.with(|inner| {
            // Of a replica that is gone nobody answers: the sender is dropped.
            if inner.replicas.get(replica).is_some() {
                let ticket = Ticket(inner.tickets.insert(Owner::Task(task)) as u64);
                inner.tell(replica, Input::DeleteRecords { ticket, offset });
            }
        });
        outcome
    }

    fn machine<T>(
        &self,
        replica: ReplicaIx,
        ask: impl FnOnce(&Partition) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        ask(self.inner.borrow().machine(replica)?)
    }

    /// Where a replica's log lies.
    fn log_of(&self, replica: ReplicaIx) -> Result<(usize, PartIx, Arc<View<LinuxIo>>), ReadFault> {
        let inner = self.inner.borrow();
        let replica = inner.replicas.get(replica).ok_or(ReadFault::Gone)?;
        let view = inner.spindles[replica.disk]
            .view()
            .ok_or(ReadFault::OutOfService)?;
        Ok((replica.disk, replica.part, view))
    }

    /// After a wait the leader's word may be no word any more.
    fn still_serves(&self, replica: ReplicaIx) -> Result<(), ReadFault> {
        match self.inner.borrow().broker.partition(replica) {
            None => Err(ReadFault::Gone),
            Some(machine) => machine
                .may_serve(clock::now())
                .map_err(|_| ReadFault::NotLeading),
        }
    }
}

impl Inner {
    /// The replica, if its topic was not deleted meanwhile.
    fn machine(&self, at: ReplicaIx) -> Result<&Partition, Refusal> {
        let gone = Refusal::NotLeader {
            leader: None,
            epoch: LeaderEpoch::NONE,
        };
        self.broker.partition(at).ok_or(gone)
    }
}

/// −1 says nothing.
fn said(epoch: LeaderEpoch) -> Option<LeaderEpoch> {
    (epoch != LeaderEpoch::NONE).then_some(epoch)
}

fn on(disk: usize, ranges: Vec<store::Range<LinuxIo>>) -> Vec<FileRange> {
    ranges
        .into_iter()
        .map(|range| FileRange::new(disk, range))
        .collect()
}
