//! The disk's one thread that reads what memory does not hold.
//!
//! Jobs stand in line by partition and take turns; a turn reads at most 8 MiB of one partition, so that the head moves
//! seldom. While groups are written there is at most one turn in three groups (`pace`). What a sequential reader has been
//! through is dropped from memory, so that it does not push out what others share.
//!
//! Once a second a turn is the scrubber's, who reads 1 MiB of what was sealed before. Where it is only this thread knows:
//! after a start it begins with the first extent again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Offset, WallMs};
use store::format::extent::DATA_AT;
use store::{
    LinuxIo, Locate, Located, PartIx, Range, Reach, ReadError, Scrubbed, Scrubber, SlotLife,
    Stamped, Timed, View, WARM_BYTES,
};
use tokio::sync::{mpsc, oneshot};

use super::Event;
use super::compactor::Lent;
use super::pace::Pace;

/// Bytes of one turn.
const TURN_BYTES: usize = 4 * WARM_BYTES;
/// Groups between two turns while some are written.
pub(super) const GROUPS_PER_TURN: u64 = 3;
/// Jobs that may wait for one disk: a connection has one at a time. 8,192 × 200 B.
const JOBS_MAX: usize = 8192;
/// Where a piece can't be read it is read in these, so that a bad place costs what lies in its page.
const PIECES: [usize; 2] = [64 << 10, 4 << 10];
/// Sequential readers whose place is remembered.
const CURSORS_MAX: usize = 64;
/// Bytes of a scrubber's turn, and how often one is due: 1 MiB/s are a hundredth of what a disk of 7200 rpm reads, a seek a
/// second, and 8 TB in 92 days.
const SCRUB_BYTES: usize = 1 << 20;
const SCRUB_EVERY: Duration = Duration::from_secs(1);
/// A small disk is not read again and again: rounds begin this far apart.
const ROUND_EVERY: Duration = Duration::from_secs(24 * 3600);

type Answer<T> = oneshot::Sender<Result<T, ReadError>>;

/// What a search by time looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find {
    /// The first record at this time or later.
    At(WallMs),
    /// The first of the latest ones.
    Latest,
}

impl Find {
    /// Looks for it in `view`.
    pub(crate) fn search(
        self,
        view: &Arc<View<LinuxIo>>,
        part: PartIx,
        until: Offset,
        reach: Reach,
    ) -> Result<Timed, ReadError> {
        match self {
            Self::At(time) => view.first_at(part, time, until, reach),
            Self::Latest => view.latest_time(part, until, reach),
        }
    }
}

enum Job {
    Locate {
        ask: Locate,
        answer: Answer<Vec<Range<LinuxIo>>>,
    },
    Warm {
        range: Range<LinuxIo>,
        answer: Answer<()>,
    },
    Find {
        part: PartIx,
        find: Find,
        until: Offset,
        answer: Answer<Option<Stamped>>,
    },
    Compact(Lent),
}

/// The other threads' end of it. An answer that never comes, its sender dropped, means that the disk is out of service
/// or that too much waits for it.
pub(crate) struct Reader {
    shared: Arc<Shared>,
}

/// The writer thread's end of it.
pub(super) struct Turns {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    pace: Arc<Pace>,
    /// What the scrubber did since the start: bytes read, and rounds over the whole disk.
    scrubbed_bytes: AtomicU64,
    scrub_rounds: AtomicU64,
}

/// Whose turn it is.
enum Turn {
    Job(Job),
    Scrub,
}

#[derive(Default)]
struct Queue {
    /// None while the disk is out of service.
    view: Option<Arc<View<LinuxIo>>>,
    /// Partitions with jobs, the next one first.
    turns: VecDeque<PartIx>,
    jobs: BTreeMap<PartIx, VecDeque<Job>>,
    count: usize,
    stop: bool,
}

impl Reader {
    /// Starts the thread of the disk at place `at`.
    pub(crate) fn start(
        at: usize,
        view: Option<Arc<View<LinuxIo>>>,
        pace: Arc<Pace>,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Self> {
        let queue = Queue {
            view,
            ..Queue::default()
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            pace,
            scrubbed_bytes: AtomicU64::new(0),
            scrub_rounds: AtomicU64::new(0),
        });
        let thread = Thread::new(at, shared.clone(), events);
        std::thread::Builder::new()
            .name(format!("disk{at}-read"))
            .spawn(move || thread.run())?;
        Ok(Self { shared })
    }

    /// The disk failed: what waits is given up, and nothing of it is held any more once the job under way is done.
    pub(crate) fn detach(&self) {
        let mut queue = self.shared.lock();
        let view = queue.view.take();
        let jobs = std::mem::take(&mut queue.jobs);
        queue.turns.clear();
        queue.count = 0;
        drop(queue);
        drop((view, jobs));
    }

    /// The disk was opened again.
    pub(crate) fn attach(&self, view: Arc<View<LinuxIo>>) {
        self.shared.lock().view = Some(view);
    }

    /// Looks up where batches lie, and has the first of them in memory.
    pub(crate) fn locate(
        &self,
        ask: Locate,
    ) -> oneshot::Receiver<Result<Vec<Range<LinuxIo>>, ReadError>> {
        let (answer, answered) = oneshot::channel();
        self.push(ask.part, Job::Locate { ask, answer });
        answered
    }

    /// Has the front of a range in memory.
    pub(crate) fn warm(&self, range: Range<LinuxIo>) -> oneshot::Receiver<Result<(), ReadError>> {
        let (answer, answered) = oneshot::channel();
        self.push(range.part(), Job::Warm { range, answer });
        answered
    }

    /// Searches by time, before `until`.
    pub(crate) fn find(
        &self,
        part: PartIx,
        find: Find,
        until: Offset,
    ) -> oneshot::Receiver<Result<Option<Stamped>, ReadError>> {
        let (answer, answered) = oneshot::channel();
        self.push(
            part,
            Job::Find {
                part,
                find,
                until,
                answer,
            },
        );
        answered
    }

    /// What the scrubber did since the start: bytes read, and rounds over the whole disk.
    pub(crate) fn scrubbed(&self) -> (u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            of(&self.shared.scrubbed_bytes),
            of(&self.shared.scrub_rounds),
        )
    }

    /// For the disk's writer thread.
    pub(super) fn turns(&self) -> Turns {
        Turns {
            shared: self.shared.clone(),
        }
    }

    fn push(&self, part: PartIx, job: Job) {
        self.shared.push(part, job, JOBS_MAX);
    }
}

impl Turns {
    /// Has a compactor read. It stands in line beside the jobs of its partition, however many there are.
    pub(super) fn lend(&self, lent: Lent) {
        self.shared
            .push(lent.part(), Job::Compact(lent), JOBS_MAX + 1);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.detach();
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The lock guards a queue that every statement leaves whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, part: PartIx, job: Job, jobs_max: usize) {
        let mut queue = self.lock();
        if queue.view.is_none() || queue.count >= jobs_max {
            drop(queue);
            return drop(job);
        }
        queue.count += 1;
        let jobs = queue.jobs.entry(part).or_default();
        jobs.push_back(job);
        if jobs.len() == 1 {
            queue.turns.push_back(part);
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Waits for a job, or until the scrubber is due; None: the end. The scrubber goes first when it is, or a disk that is
    /// read all day would never be scrubbed.
    fn next(&self, due: Instant) -> Option<(Arc<View<LinuxIo>>, Turn)> {
        let mut queue = self.lock();
        loop {
            if queue.stop {
                return None;
            }
            let left = due.saturating_duration_since(Instant::now());
            if let Some(view) = queue.view.clone().filter(|_| left.is_zero()) {
                return Some((view, Turn::Scrub));
            }
            if let Some((view, job)) = queue.pop() {
                return Some((view, Turn::Job(job)));
            }
            queue = match queue.view {
                Some(_) => match self.wake.wait_timeout(queue, left) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => self
                    .wake
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Queue {
    /// The next job of the partition whose turn it is; the partition goes behind the others.
    fn pop(&mut self) -> Option<(Arc<View<LinuxIo>>, Job)> {
        let view = self.view.clone()?;
        let part = self.turns.pop_front()?;
        let jobs = self
            .jobs
            .get_mut(&part)
            .expect("a partition in line has jobs");
        let job = jobs.pop_front().expect("a partition in line has jobs");
        if jobs.is_empty() {
            self.jobs.remove(&part);
        } else {
            self.turns.push_back(part);
        }
        self.count -= 1;
        Some((view, job))
    }
}

/// What a sequential reader had read for it last.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    part: PartIx,
    life: SlotLife,
    from: u64,
    to: u64,
    /// The extent ends there: the reader goes on at the begin of the next.
    ends: bool,
}

/// A range whose front could be read, and no more.
#[derive(Debug)]
struct Broken {
    good: usize,
    error: ReadError,
}

struct Thread {
    /// The disk's place among the node's.
    at: usize,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    scratch: Vec<u8>,
    cursors: VecDeque<Cursor>,
    scrubber: Scrubber,
    /// When its round began, and when its next turn is due.
    round: Instant,
    scrub: Instant,
}

impl Thread {
    fn new(at: usize, shared: Arc<Shared>, events: mpsc::UnboundedSender<Event>) -> Self {
        let now = Instant::now();
        Self {
            at,
            shared,
            events,
            scratch: vec![0; WARM_BYTES],
            cursors: VecDeque::new(),
            scrubber: Scrubber::default(),
            round: now,
            scrub: now + SCRUB_EVERY,
        }
    }

    fn run(mut self) {
        while let Some((view, turn)) = self.shared.next(self.scrub) {
            if matches!(&turn, Turn::Job(job) if job.abandoned()) {
                continue;
            }
            self.shared.pace.begin_turn();
            match turn {
                Turn::Job(job) => self.turn(&view, job),
                Turn::Scrub => self.scrub(&view),
            }
            self.shared.pace.end_turn();
        }
    }

    /// The scrubber's turn. A piece longer than [`SCRUB_BYTES`], one large batch, is paid for by a longer rest.
    fn scrub(&mut self, view: &Arc<View<LinuxIo>>) {
        let began = Instant::now();
        let Scrubbed {
            bytes,
            verdict,
            round,
        } = view.scrub(&mut self.scrubber, SCRUB_BYTES);
        self.shared
            .scrubbed_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        self.scrub = if round {
            self.shared.scrub_rounds.fetch_add(1, Ordering::Relaxed);
            self.round = (self.round + ROUND_EVERY).max(began);
            self.round
        } else {
            let turns = (bytes as f64 / SCRUB_BYTES as f64).max(1.0);
            began + SCRUB_EVERY.mul_f64(turns)
        };
        if let Some(verdict) = verdict {
            // Only a core that has ended listens no more.
            let _ = self.events.send(Event::Scrubbed {
                disk: self.at,
                verdict,
            });
        }
    }

    /// Whoever asked may have gone away meanwhile: then nobody takes the answer.
    fn turn(&mut self, view: &Arc<View<LinuxIo>>, job: Job) {
        match job {
            Job::Locate { mut ask, answer } => {
                // All that the answer's head will promise is read before.
                ask.bytes_max = ask.bytes_max.min(TURN_BYTES as u64);
                let _ = answer.send(self.locate(view, &ask));
            }
            Job::Warm { range, answer } => {
                let read = self.read(view, &range, TURN_BYTES);
                let _ = answer.send(read.map(drop).map_err(|broken| broken.error));
            }
            Job::Find {
                part,
                find,
                until,
                answer,
            } => {
                let found = find
                    .search(view, part, until, Reach::Disk)
                    .map(|found| match found {
                        Timed::Found(found) => Some(found),
                        Timed::Nothing => None,
                        Timed::Cold => unreachable!("with the disk in reach nothing is cold"),
                    });
                let _ = answer.send(found);
            }
            Job::Compact(lent) => lent.turn(view),
        }
    }

    /// Where batches lie, in memory now. Where some can't be read it is those before them, if there are any.
    fn locate(
        &mut self,
        view: &Arc<View<LinuxIo>>,
        ask: &Locate,
    ) -> Result<Vec<Range<LinuxIo>>, ReadError> {
        let ranges = |ask: &Locate| match view.locate(ask, Reach::Disk)? {
            Located::Ranges(ranges) => Ok(ranges),
            Located::Cold => unreachable!("with the disk in reach nothing is cold"),
        };
        let found = ranges(ask)?;
        let mut good = 0;
        for range in &found {
            match self.read(view, range, TURN_BYTES) {
                Ok(_) => good += range.len(),
                Err(broken) => {
                    let before = ranges(&Locate {
                        bytes_max: (good + broken.good) as u64,
                        at_least_one: false,
                        ..*ask
                    })?;
                    return match before.is_empty() {
                        true => Err(broken.error),
                        false => Ok(before),
                    };
                }
            }
        }
        Ok(found)
    }

    /// Reads a range's front, at most `bytes_max`; the whole of these if its reader goes through the log. Says how much.
    fn read(
        &mut self,
        view: &Arc<View<LinuxIo>>,
        range: &Range<LinuxIo>,
        bytes_max: usize,
    ) -> Result<usize, Broken> {
        let sequential = self.follow(view, range);
        let wanted = if sequential {
            range.ahead(bytes_max)
        } else {
            range.front(bytes_max)
        };
        let life = wanted.life();
        let mut left = wanted.clone();
        let mut pieces = PIECES.iter();
        let mut piece = WARM_BYTES;
        while !left.is_empty() {
            match left.warm(&mut self.scratch[..piece]) {
                Ok(read) => left.advance(read),
                Err(source) => match pieces.next() {
                    // Up to the bad place.
                    Some(finer) => piece = *finer,
                    None => {
                        let good = wanted.len() - left.len();
                        // What was only read ahead nobody misses yet.
                        if good >= range.len().min(bytes_max) {
                            break;
                        }
                        let error = ReadError::Io { life, source };
                        return Err(Broken { good, error });
                    }
                },
            }
        }
        if self.cursors.len() == CURSORS_MAX {
            self.cursors.pop_front();
        }
        self.cursors.push_back(Cursor {
            part: range.part(),
            life,
            from: wanted.position(),
            to: left.position(),
            ends: wanted.len() == range.ahead(usize::MAX).len(),
        });
        Ok(wanted.len() - left.len())
    }

    /// Whether a reader comes here from what was read for it before; that is dropped from memory.
    fn follow(&mut self, view: &Arc<View<LinuxIo>>, range: &Range<LinuxIo>) -> bool {
        let at = range.position();
        if at == u64::from(DATA_AT) {
            // What was read at the end of the extent before may not be sent yet: it stays.
            let before = self.cursors.iter_mut().rev();
            let mut before = before.filter(|it| it.part == range.part() && it.life != range.life());
            return before.next().is_some_and(|it| std::mem::take(&mut it.ends));
        }
        let before = self.cursors.iter().rposition(|it| {
            it.part == range.part() && it.life == range.life() && it.from < at && at <= it.to
        });
        let Some(it) = before.and_then(|before| self.cursors.remove(before)) else {
            return false;
        };
        // An extent is far below 4 GiB.
        view.forget(it.part, it.life, it.from as u32, (at - it.from) as u32);
        true
    }
}

impl Job {
    /// Nobody waits for it any more.
    fn abandoned(&self) -> bool {
        match self {
            Self::Locate { answer, .. } => answer.is_closed(),
            Self::Warm { answer, .. } => answer.is_closed(),
            Self::Find { answer, .. } => answer.is_closed(),
            Self::Compact(_) => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
