//! The thread that owns a disk: it writes what waits as one group, does bounded background work in between, and after a
//! failure opens the disk again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::Instant;
use node::sitelog::Index;
use store::{Disk, DiskError, LinuxIo, Outcome, Queue, Stats, Work};
use tokio::sync::mpsc;

use super::compactor::{Driver, Inbox, Moment, Step};
use super::open::{DiskPlace, open_io};
use super::reader::Turns;
use super::{After, Event, Op, Shared};
use crate::clock;

/// After an error the disk is left alone this long before it is opened again.
const RECOVER_AFTER: Duration = Duration::from_secs(30);
/// So many errors within [`ERRORS_WITHIN`] and it stays out.
const ERRORS_MAX: usize = 3;
const ERRORS_WITHIN: Duration = Duration::from_secs(3600);
/// Readers of the failed disk's files let go of them within the 30 s after which a stalled connection is closed.
const PINS_MAX: Duration = Duration::from_secs(60);
const PINS_POLL: Duration = Duration::from_millis(100);
/// Between two tries of a group for which there is no room, while nothing can be done to make some.
const HELD_POLL: Duration = Duration::from_millis(10);

pub(super) struct Writer {
    at: usize,
    meta: bool,
    place: DiskPlace,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    queue: Queue<After>,
    turns: Turns,
    compaction: Driver,
    errors: VecDeque<Instant>,
    told_no_room: bool,
}

/// Why the thread stopped writing.
enum End {
    Stopped,
    Failed(DiskError),
}

impl Writer {
    pub(super) fn new(
        at: usize,
        meta: bool,
        place: DiskPlace,
        shared: Arc<Shared>,
        turns: Turns,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            at,
            meta,
            place,
            shared,
            events,
            queue: Queue::default(),
            turns,
            compaction: Driver::default(),
            errors: VecDeque::new(),
            told_no_room: false,
        }
    }

    /// Serves until the node stops, or the disk has failed for good.
    pub(super) fn run(mut self, disk: Option<Disk<LinuxIo>>) {
        let Some(mut disk) = disk else {
            return self.refuse();
        };
        loop {
            match self.serve(&mut disk) {
                End::Stopped => return self.tell(Event::Stopped { disk: self.at }),
                End::Failed(error) => {
                    let view = disk.view();
                    drop(disk);
                    self.fail_queued();
                    // The site log lives on the meta disk: without it the node ends, and its restart replays the disk.
                    let out = self.meta || self.too_often();
                    self.tell(Event::Failed {
                        disk: self.at,
                        error: error.to_string(),
                        out,
                    });
                    if out || !self.pause() || !let_go(&view) {
                        return self.refuse();
                    }
                    drop(view);
                    match self.reopen() {
                        Some(opened) => disk = opened,
                        None => return self.refuse(),
                    }
                }
            }
        }
    }

    fn serve(&mut self, disk: &mut Disk<LinuxIo>) -> End {
        let mut done = Vec::new();
        let mut work = Work {
            again: true,
            ..Work::default()
        };
        loop {
            if !self.take(&work) && self.queue.is_empty() {
                return End::Stopped;
            }
            let mut held = false;
            if !self.queue.is_empty() {
                self.shared.pace.begin_group();
                let began = self.begin();
                let committed = disk.commit(
                    &mut self.queue,
                    clock::trusted(self.shared.clock),
                    &mut done,
                );
                let took = self.end(began);
                let cleaned = done.iter().any(|(after, _)| *after == After::Clean);
                let wrote = matches!(&committed, Ok(it) if it.seq.is_some());
                let took = wrote.then_some(took);
                self.report(&mut done, took);
                match committed {
                    Ok(committed) => {
                        held = committed.held;
                        self.snapshot(committed.snapshot);
                    }
                    Err(error) => return End::Failed(error),
                }
                if cleaned {
                    return End::Stopped;
                }
                self.shared.pace.end_group(took);
            }
            let waiting = !self.queue.is_empty() || self.shared.waiting.load(Ordering::Relaxed) > 0;
            self.shared.pace.waiting.store(waiting, Ordering::Relaxed);
            let began = self.begin();
            let worked = disk.work(waiting, clock::trusted(self.shared.clock));
            self.end(began);
            match worked {
                Ok(next) => {
                    self.snapshot(next.snapshot);
                    if held && !next.did {
                        drop(self.shared.sleep(self.shared.lock(), Some(HELD_POLL)));
                    }
                    work = next;
                }
                Err(error) => return End::Failed(error),
            }
            if let Err(error) = self.compact(disk, waiting) {
                return End::Failed(error);
            }
            self.shared.pace.offer();
            let now = disk.stats();
            let stats = self.shared.stats.lock().ok();
            let before = stats.map(|mut stats| std::mem::replace(&mut *stats, now));
            if let Some(before) = before {
                self.no_room(&before, &now);
            }
        }
    }

    /// Says once, until one is made again, that there is no room for a checkpoint.
    fn no_room(&mut self, before: &Stats, now: &Stats) {
        if now.checkpoints > before.checkpoints {
            self.told_no_room = false;
        }
        if now.checkpoints_no_room > before.checkpoints_no_room && !self.told_no_room {
            self.told_no_room = true;
            tracing::error!(
                disk = %self.place.path.display(),
                "others have filled the file system: no room for a checkpoint, and the journal is not emptied until there is"
            );
        }
    }

    /// The writer thread's part of a compaction, a piece at a time. The clean mark ends this thread before the next.
    fn compact(&mut self, disk: &mut Disk<LinuxIo>, waiting: bool) -> Result<(), DiskError> {
        if !self.compaction.ready() {
            return Ok(());
        }
        let began = self.begin();
        let moment = Moment {
            waiting,
            groups: self.shared.pace.groups.load(Ordering::Relaxed),
            turns: &self.turns,
            shared: &self.shared,
        };
        let step = self.compaction.step(disk, &moment);
        self.end(began);
        match step? {
            Step::Rest | Step::Wrote => {}
            Step::Swap(swap) => self.queue.push(swap, After::Swap),
            Step::Over(compacted) => self.tell(Event::Compacted {
                disk: self.at,
                compacted,
            }),
        }
        Ok(())
    }

    /// Moves what the core pushed into the queue; waits for it if nothing else is due. False: stop.
    fn take(&mut self, work: &Work) -> bool {
        let mut pending = self.shared.lock();
        loop {
            self.compaction.take(&mut pending.compaction);
            let due = work.again || self.compaction.ready();
            if due || !pending.ops.is_empty() || !self.queue.is_empty() {
                break;
            }
            if pending.stop {
                return false;
            }
            self.shared.pace.waiting.store(false, Ordering::Relaxed);
            let wait = work.at.map(|at| at.since(clock::now()));
            pending = match wait {
                Some(wait) if wait.is_zero() => break,
                wait => self.shared.sleep(pending, wait),
            };
        }
        for (op, after) in pending.ops.drain(..) {
            self.queue.push(op, after);
        }
        self.shared.waiting.store(0, Ordering::Relaxed);
        true
    }

    fn begin(&self) -> Instant {
        let now = clock::now();
        self.shared.busy_since.store(now.0, Ordering::Relaxed);
        now
    }

    fn end(&self, began: Instant) -> Duration {
        self.shared.busy_since.store(0, Ordering::Relaxed);
        clock::now().since(began)
    }

    /// Tells the core what became of a group's operations. Appends of one replica that follow each other are one fact.
    fn report(&mut self, done: &mut Vec<(After, Outcome)>, took: Option<Duration>) {
        let mut outcomes: Vec<(After, Outcome)> = Vec::with_capacity(done.len());
        for (after, outcome) in done.drain(..) {
            match (outcomes.last_mut(), after) {
                (_, After::Nothing) => {}
                (_, After::Swap) => self.compaction.swapped(outcome),
                (
                    Some((
                        After::Durable {
                            replica: before,
                            end: last,
                        },
                        Outcome::Done,
                    )),
                    After::Durable { replica, end },
                ) if *before == replica && outcome == Outcome::Done => *last = end,
                _ => outcomes.push((after, outcome)),
            }
        }
        if !outcomes.is_empty() || took.is_some() {
            self.tell(Event::Done {
                disk: self.at,
                outcomes,
                took,
            });
        }
    }

    fn snapshot(&self, snapshot: Option<u64>) {
        if let Some(index) = snapshot {
            self.tell(Event::Snapshot {
                index: Index(index),
            });
        }
    }

    fn tell(&self, event: Event) {
        // Only a core that has ended listens no more.
        let _ = self.events.send(event);
    }

    /// Nothing that waits will reach the disk.
    fn fail_queued(&mut self) {
        let mut pending = self.shared.lock();
        let queued = self.queue.drain().chain(pending.ops.drain(..));
        let mut done: Vec<(After, Outcome)> =
            queued.map(|(_, after)| (after, Outcome::Failed)).collect();
        pending.compaction = Inbox::default();
        self.shared.waiting.store(0, Ordering::Relaxed);
        drop(pending);
        self.report(&mut done, None);
        self.compaction.forget();
    }

    fn too_often(&mut self) -> bool {
        let failed = clock::now();
        self.errors.push_back(failed);
        self.errors.retain(|at| failed.since(*at) < ERRORS_WITHIN);
        self.errors.len() >= ERRORS_MAX
    }

    /// Waits before the disk is tried again, refusing what comes meanwhile; false: the node stops.
    fn pause(&mut self) -> bool {
        let failed = clock::now();
        loop {
            let waited = clock::now().since(failed);
            let Some(left) = RECOVER_AFTER
                .checked_sub(waited)
                .filter(|left| !left.is_zero())
            else {
                return true;
            };
            let pending = self.shared.lock();
            if pending.stop {
                return false;
            }
            if pending.ops.is_empty() {
                drop(self.shared.sleep(pending, Some(left)));
            } else {
                drop(pending);
                self.fail_queued();
            }
        }
    }

    fn reopen(&mut self) -> Option<Disk<LinuxIo>> {
        let opened = open_io(&self.place)
            .map_err(|fault| fault.to_string())
            .and_then(|io| Disk::open(io, self.place.config).map_err(|error| error.to_string()));
        match opened {
            Ok((disk, recovered)) => {
                // What was pushed while the replay ran was decided before anyone knew what it found.
                self.fail_queued();
                self.tell(Event::Back {
                    disk: self.at,
                    recovered: Box::new(recovered),
                    view: disk.view(),
                });
                Some(disk)
            }
            Err(error) => {
                self.tell(Event::Failed {
                    disk: self.at,
                    error,
                    out: true,
                });
                None
            }
        }
    }

    /// Fails whatever comes until the node stops.
    fn refuse(mut self) {
        loop {
            self.fail_queued();
            let pending = self.shared.lock();
            if pending.stop {
                break;
            }
            if pending.ops.is_empty() {
                drop(self.shared.sleep(pending, None));
            }
        }
        self.fail_queued();
        self.tell(Event::Stopped { disk: self.at });
    }
}

/// Waits until no reader holds a file of the failed disk: opening it again may zero extents they hold.
fn let_go(view: &Arc<store::View<LinuxIo>>) -> bool {
    let began = clock::now();
    while Arc::strong_count(view) > 1 {
        if clock::now().since(began) > PINS_MAX {
            return false;
        }
        std::thread::sleep(PINS_POLL);
    }
    true
}

/// Operations are moved between threads.
const _: fn() = || {
    fn sent<T: Send>() {}
    sent::<Op>();
};
