//! One disk: the thread that writes it, the thread that reads it cold, and what the core thread knows of both.
//!
//! The core pushes operations in the order in which its machines decided them; they reach the disk in that order, and
//! what became of each comes back, group by group, as [`Event`]s. Nothing here decides anything. Only this file and its
//! neighbours call the store while the node serves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{DiskUuid, LeaderEpoch, Offset, Term};
use node::broker::ReplicaIx;
use node::partition;
use node::sitelog::Index;
use site::ClockSource;
use store::{LinuxIo, SlotLife, Stats, Suspect, View};
use tokio::sync::mpsc;

use crate::histogram::Histogram;

mod compactor;
pub(crate) mod open;
mod pace;
mod range;
mod reader;
mod suspects;
mod writer;

pub(crate) use compactor::{Compacted, Ending, Order};
pub(crate) use pace::Pace;
pub(crate) use range::{FileRange, Located};
pub(crate) use reader::{Find, Reader};
pub(crate) use store::{Append, Op, PartIx};
pub(crate) use suspects::{Damaged, Suspects};

/// Operations that may wait for one disk before sockets are read no further: with the largest table of a group that is
/// 32 groups of work, at 120 B each 4 MiB.
const WAITING_MAX: usize = 32 * 1024;

/// A disk whose write takes longer is called stalled: producers are told meanwhile that the outcome is unknown.
const STALLED: Duration = node::partition::DISK_WAIT_MAX;
/// Unreadable extents that are remembered, 8 B each; beyond them errors are counted and not logged.
const UNREADABLE_MAX: usize = 1024;

/// What an operation's outcome means to the core thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Batches up to `end` of this replica.
    Durable { replica: ReplicaIx, end: Offset },
    /// The replica's EPOCH record.
    Epoch {
        replica: ReplicaIx,
        epoch: LeaderEpoch,
    },
    /// The replica's LOG_START record.
    LogStart { replica: ReplicaIx, offset: Offset },
    /// The replica left the disk: its number here may be used again.
    Gone { replica: ReplicaIx },
    /// The site log's HARDSTATE.
    HardState { term: Term },
    /// A SITE_ENTRY.
    SiteEntry { index: Index },
    /// A SITE_SNAPSHOT was queued; it is durable when [`Event::Snapshot`] says so.
    SiteSnapshot { index: Index },
    /// A compactor's extent took the place of others; for the writer thread itself.
    Swap,
    /// The last operation of an orderly stop.
    Clean,
    /// Nobody waits.
    Nothing,
}

/// What a disk's writer tells the core thread.
pub(crate) enum Event {
    /// A group is durable, or an operation behind a failure never will be.
    Done {
        disk: usize,
        outcomes: Vec<(After, store::Outcome)>,
        took: Option<Duration>,
    },
    /// The site log's snapshot up to this index lies in a checkpoint.
    Snapshot { index: Index },
    /// What became of an [`Order`].
    Compacted { disk: usize, compacted: Compacted },
    /// The disk failed; operations in its queue come back as failed. `out`: it is not tried again.
    Failed {
        disk: usize,
        error: String,
        out: bool,
    },
    /// The disk was recovered in process.
    Back {
        disk: usize,
        recovered: Box<store::Recovered>,
        view: Arc<View<LinuxIo>>,
    },
    /// The scrubber has read an extent.
    Scrubbed {
        disk: usize,
        verdict: store::Verdict,
    },
    /// The disk stopped in order.
    Stopped { disk: usize },
}

/// How a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Serving,
    /// A write or sync failed; it is opened again after a pause.
    Failed,
    /// It failed too often: an operator must look.
    Out,
}

/// What both threads share.
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
    /// Length of `Pending::ops`, for whoever only wants to know whether something waits.
    waiting: AtomicUsize,
    /// When the group or step that is under way began, on [`crate::clock`]; 0: none is.
    busy_since: AtomicU64,
    stats: Mutex<Stats>,
    pace: Arc<Pace>,
    clock: ClockSource,
}

#[derive(Default)]
struct Pending {
    ops: Vec<(Op, After)>,
    compaction: compactor::Inbox,
    stop: bool,
    /// The writer thread waits on [`Shared::wake`]: whoever leaves something for it must wake it.
    asleep: bool,
}

/// The core thread's end of a disk.
pub(crate) struct Spindle {
    shared: Arc<Shared>,
    staged: RefCell<Vec<(Op, After)>>,
    view: RefCell<Option<Arc<View<LinuxIo>>>>,
    reader: Reader,
    next_part: Cell<u32>,
    condition: Cell<Condition>,
    /// Replicas that it lacks were perhaps lost: none is made in their place.
    pub(crate) suspect: bool,
    failures: Cell<u64>,
    read_errors: Cell<u64>,
    /// Extents that could not be read, each told once.
    unreadable: RefCell<BTreeSet<SlotLife>>,
    suspects: RefCell<Suspects>,
    /// From taking a group to its flush.
    pub(crate) commit: Histogram,
    /// Where it lies.
    pub(crate) path: PathBuf,
    pub(crate) uuid: DiskUuid,
    pub(crate) use_bytes: u64,
    pub(crate) journal_bytes: u64,
}

impl Spindle {
    /// Starts the threads of an opened disk; `at` is its place among the node's.
    pub(crate) fn start(
        at: usize,
        opened: open::Opened,
        clock: ClockSource,
        events: mpsc::UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let open::Opened {
            place,
            disk,
            recovered,
            use_bytes,
        } = opened;
        let view = disk.as_ref().map(store::Disk::view);
        let pace = Arc::new(Pace::default());
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            wake: Condvar::new(),
            waiting: AtomicUsize::new(0),
            busy_since: AtomicU64::new(0),
            stats: Mutex::new(disk.as_ref().map(store::Disk::stats).unwrap_or_default()),
            pace: pace.clone(),
            clock,
        });
        let reader = Reader::start(at, view.clone(), pace, events.clone())?;
        let turns = reader.turns();
        let spindle = Self {
            staged: RefCell::default(),
            reader,
            condition: Cell::new(match view {
                Some(_) => Condition::Serving,
                None => Condition::Out,
            }),
            view: RefCell::new(view),
            suspect: recovered.suspect(),
            next_part: Cell::new(recovered.next_part.0),
            failures: Cell::new(0),
            read_errors: Cell::new(0),
            unreadable: RefCell::default(),
            suspects: RefCell::default(),
            commit: Histogram::default(),
            path: place.path.clone(),
            uuid: recovered.superblock.disk,
            use_bytes,
            journal_bytes: recovered.superblock.journal_bytes,
            shared: shared.clone(),
        };
        let meta = recovered.superblock.meta;
        let writer = writer::Writer::new(at, meta, place, shared, turns, events);
        std::thread::Builder::new()
            .name(format!("disk{at}-write"))
            .spawn(move || writer.run(disk))?;
        Ok(spindle)
    }

    /// Puts an operation behind the others; it leaves for the disk at the next [`Spindle::flush`].
    pub(crate) fn push(&self, op: Op, after: After) {
        self.staged.borrow_mut().push((op, after));
    }

    /// Hands what was pushed to the writer thread.
    pub(crate) fn flush(&self) {
        let mut staged = self.staged.borrow_mut();
        if staged.is_empty() {
            return;
        }
        let mut pending = self.shared.lock();
        pending.ops.append(&mut staged);
        self.shared
            .waiting
            .store(pending.ops.len(), Ordering::Relaxed);
        self.shared.wake(pending);
    }

    /// Orders a compaction, one at a time: [`Event::Compacted`] follows, unless the disk fails or the node stops first.
    pub(crate) fn compact(&self, order: Order) {
        let mut pending = self.shared.lock();
        pending.compaction.order(order);
        self.shared.wake(pending);
    }

    /// Whether so much waits that clients should not be read further.
    pub(crate) fn crowded(&self) -> bool {
        self.waiting() >= WAITING_MAX
    }

    /// Operations that the writer has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// A number for a replica that was never on this disk.
    pub(crate) fn next_part(&self) -> PartIx {
        let next = self.next_part.get();
        self.next_part.set(next + 1);
        PartIx(next)
    }

    /// What can be read; None while the disk is out of service.
    pub(crate) fn view(&self) -> Option<Arc<View<LinuxIo>>> {
        self.view.borrow().clone()
    }

    /// The thread that reads cold.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(crate) fn condition(&self) -> Condition {
        self.condition.get()
    }

    /// Times that it failed since the start.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Takes note of a read that failed: counted, and logged once for each extent.
    pub(crate) fn unreadable(&self, error: &store::ReadError) {
        let (store::ReadError::Io { life, .. } | store::ReadError::Rotten { life, .. }) = error
        else {
            return;
        };
        self.read_errors.set(self.read_errors.get() + 1);
        let mut told = self.unreadable.borrow_mut();
        if told.len() < UNREADABLE_MAX && told.insert(*life) {
            tracing::error!(disk = %self.path.display(), %error, "part of a log can't be read; the rest is served");
            if let Some(view) = self.view.borrow().as_deref() {
                let why = error.to_string();
                self.suspects.borrow_mut().unreadable(view, *life, why);
            }
        }
    }

    /// Takes note of what the scrubber found in an extent; gives what is news.
    pub(crate) fn scrubbed(&self, verdict: store::Verdict) -> Vec<Suspect> {
        self.suspects.borrow_mut().judge(verdict)
    }

    /// Up to where a reader of `[from, until)` may be served: a damaged batch is nobody's.
    pub(crate) fn bound(
        &self,
        part: PartIx,
        from: Offset,
        until: Offset,
    ) -> Result<Offset, Damaged> {
        self.suspects.borrow().bound(part, from, until)
    }

    /// The ranges that are SUSPECT now; none while the disk is out of service.
    pub(crate) fn suspects(&self) -> Vec<Suspect> {
        let view = self.view.borrow();
        let mut suspects = self.suspects.borrow_mut();
        view.as_deref()
            .map(|view| suspects.current(view).cloned().collect())
            .unwrap_or_default()
    }

    /// Whether a read of the extent has failed.
    pub(crate) fn is_unreadable(&self, life: SlotLife) -> bool {
        self.unreadable.borrow().contains(&life)
    }

    /// Reads that failed since the start.
    pub(crate) fn read_errors(&self) -> u64 {
        self.read_errors.get()
    }

    /// What the store counted.
    pub(crate) fn stats(&self) -> Stats {
        *self
            .shared
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the write that is under way has taken so far.
    pub(crate) fn busy_for(&self) -> Duration {
        match self.shared.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => crate::clock::now().since(model::Instant(since)),
        }
    }

    /// Whether the write that is under way takes so long that producers are told so.
    pub(crate) fn stalled(&self) -> bool {
        self.busy_for() > STALLED
    }

    /// The disk failed: nothing of it can be read until [`Spindle::back`].
    pub(crate) fn failed(&self, out: bool) {
        self.condition.set(if out {
            Condition::Out
        } else {
            Condition::Failed
        });
        self.failures.set(self.failures.get() + 1);
        self.view.borrow_mut().take();
        self.reader.detach();
    }

    /// The disk was opened again.
    pub(crate) fn back(&self, recovered: &store::Recovered, view: Arc<View<LinuxIo>>) {
        self.condition.set(Condition::Serving);
        self.next_part
            .set(self.next_part.get().max(recovered.next_part.0));
        self.reader.attach(view.clone());
        self.view.replace(Some(view));
    }

    /// Ends in order: what was pushed is written, then the clean mark; [`Event::Stopped`] follows.
    pub(crate) fn stop(&self) {
        self.push(Op::Clean, After::Clean);
        self.flush();
        let mut pending = self.shared.lock();
        pending.stop = true;
        self.shared.wake(pending);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // The lock guards a queue that every statement leaves whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the writer thread if it sleeps. Telling one that doesn't would cost a system call a request.
    fn wake(&self, mut pending: MutexGuard<'_, Pending>) {
        let asleep = std::mem::take(&mut pending.asleep);
        drop(pending);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Waits until [`Shared::wake`] is called, or `limit` has passed.
    fn sleep<'a>(
        &self,
        mut pending: MutexGuard<'a, Pending>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, Pending> {
        pending.asleep = true;
        let mut pending = match limit {
            Some(limit) => {
                let waited = self.wake.wait_timeout(pending, limit);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.wake.wait(pending);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        pending.asleep = false;
        pending
    }
}

/// A replica as its disk has it, in its machine's words.
pub(crate) fn recovered(replica: &store::Replica) -> partition::Recovered {
    partition::Recovered {
        log_start: replica.log_start,
        end: replica.end,
        high_watermark: replica.high_watermark,
        accepted_epoch: replica.accepted_epoch,
        epochs: replica
            .epochs
            .iter()
            .map(|(epoch, start)| partition::EpochStart {
                epoch: *epoch,
                start: *start,
            })
            .collect(),
    }
}
