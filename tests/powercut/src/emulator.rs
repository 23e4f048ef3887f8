//! The emulated disk: requests in, answers out, on a thread of its own, with a power switch and faults to order.
//!
//! Whoever feeds it (`fuse`) only queues. In the mode `cuts` requests are served in order at once, and every unflushed
//! write can be lost (`cache`); in the mode `timed` the mechanics (`drive`) choose and delay, and nothing is lost.
//!
//! ```text
//! On ──cut──▶ Frozen: nothing is answered any more; what was unflushed, and what was queued, has met its fate
//!             Frozen ──off──▶ Off: all that waits or comes gets EIO, so that the kernel lets go of the file system
//!                             Off ──on──▶ On: for files opened from now on; those opened before stay dead
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fuser::Errno;

use crate::cache::{Cache, Cut, Medium};
use crate::drive::{Drive, Kind, Step, Ticket};
use crate::phase::Trap;
use crate::rng::Rng;

/// One request and whom to answer.
#[derive(Debug)]
pub(crate) enum Request {
    Read {
        offset: u64,
        bytes: usize,
        reply: fuser::ReplyData,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
        reply: fuser::ReplyWrite,
    },
    Flush {
        reply: fuser::ReplyEmpty,
    },
}

impl Request {
    fn refuse(self) {
        match self {
            Self::Read { reply, .. } => reply.error(Errno::EIO),
            Self::Write { reply, .. } => reply.error(Errno::EIO),
            Self::Flush { reply } => reply.error(Errno::EIO),
        }
    }
}

/// What was counted since the disk was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) flushes: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) errors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Frozen,
    Off,
}

/// Faults to come.
#[derive(Debug, Default)]
struct Faults {
    /// Writes until the one that fails; all later ones fail too if `for_good`.
    write: Option<(u64, bool)>,
    flush: Option<u64>,
    /// Reads that touch one of these ranges fail.
    reads: Vec<(u64, u64)>,
    stalled_until: Option<Instant>,
    /// A FLUSH is answered and does nothing.
    lies: bool,
    trap: Option<Trap>,
}

/// The host's file that holds the platters.
#[derive(Debug)]
struct Image(File);

impl Medium for Image {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

/// Beyond it the machine had no time for the drive, and what it missed is not made up for.
const LATE_MAX: f64 = 0.05;

#[derive(Debug)]
struct Timed {
    drive: Drive,
    /// Where the drive goes on by itself, if it had work left: this thread wakes late, and a drive does not.
    resume: Option<f64>,
    waiting: BTreeMap<Ticket, Request>,
}

#[derive(Debug)]
struct State {
    image: Image,
    cache: Cache,
    rng: Rng,
    power: Power,
    /// Rises with each cut: a file that was opened before it is dead.
    life: u64,
    queue: VecDeque<Request>,
    timed: Option<Timed>,
    faults: Faults,
    counts: Counts,
}

/// One emulated disk.
#[derive(Debug)]
pub(crate) struct Emulator {
    state: Mutex<State>,
    wake: Condvar,
    size: u64,
    /// How long a FLUSH takes in the mode `cuts`: the time in which a cut finds something to take.
    flush_takes: Duration,
    started: Instant,
}

impl Emulator {
    /// A disk whose platters are `image`, of `size` bytes.
    pub(crate) fn new(
        image: File,
        size: u64,
        timed: bool,
        seed: u64,
        flush_takes: Duration,
    ) -> io::Result<Self> {
        image.set_len(size)?;
        let timed = timed.then(|| Timed {
            drive: Drive::new(size),
            resume: None,
            waiting: BTreeMap::new(),
        });
        let state = State {
            image: Image(image),
            cache: Cache::default(),
            rng: Rng::new(seed),
            power: Power::On,
            life: 0,
            queue: VecDeque::new(),
            timed,
            faults: Faults::default(),
            counts: Counts::default(),
        };
        Ok(Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            size,
            flush_takes,
            started: Instant::now(),
        })
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics with the disk in hand")
    }

    /// The number of the disk's present life, for a file that is being opened.
    pub(crate) fn life(&self) -> u64 {
        self.lock().life
    }

    /// Queues a request that came through a file opened in `life`.
    pub(crate) fn submit(&self, life: u64, request: Request) {
        let mut state = self.lock();
        if state.power == Power::Off || life != state.life && state.power == Power::On {
            drop(state);
            return request.refuse();
        }
        let now = self.now();
        match &mut state.timed {
            Some(timed) => {
                let (kind, offset, bytes) = match &request {
                    Request::Read { offset, bytes, .. } => (Kind::Read, *offset, *bytes as u64),
                    Request::Write { offset, data, .. } => {
                        (Kind::Write, *offset, data.len() as u64)
                    }
                    Request::Flush { .. } => (Kind::Flush, 0, 0),
                };
                let ticket = timed.drive.submit(now, kind, offset, bytes);
                timed.waiting.insert(ticket, request);
            }
            None => state.queue.push_back(request),
        }
        self.wake.notify_all();
    }

    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The disk's own thread.
    pub(crate) fn serve(&self) {
        let mut state = self.lock();
        loop {
            if state.power != Power::On {
                state = self.sleep(state, None);
                continue;
            }
            if let Some(until) = state.faults.stalled_until {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    state = self.sleep(state, Some(left));
                    continue;
                }
                state.faults.stalled_until = None;
            }
            state = if state.timed.is_some() {
                self.turn(state)
            } else {
                self.serve_one(state)
            };
        }
    }

    fn sleep<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        most: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        const PANIC: &str = "no thread panics with the disk in hand";
        match most {
            None => self.wake.wait(state).expect(PANIC),
            Some(most) => self.wake.wait_timeout(state, most).expect(PANIC).0,
        }
    }

    /// One request of the mode `cuts`.
    fn serve_one<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.queue.is_empty() || state.faults.trap.as_mut().is_some_and(Trap::step) {
            return self.sleep(state, None);
        }
        let Some(request) = state.queue.front() else {
            return state;
        };
        if matches!(request, Request::Flush { .. }) && !self.flush_takes.is_zero() {
            // The request stays where it is: a cut in the meantime finds everything unflushed.
            let (life, until) = (state.life, Instant::now() + self.flush_takes);
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                drop(state);
                std::thread::sleep(left.min(Duration::from_micros(500)));
                state = self.lock();
                if state.power != Power::On || state.life != life {
                    return state;
                }
            }
        }
        if let Some(request) = state.queue.pop_front() {
            state.perform(request);
        }
        state
    }

    /// One step of the mode `timed`.
    fn turn<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let wall = self.now();
        let resume = state.timed.as_mut().and_then(|it| it.resume.take());
        let now = resume.filter(|it| wall - it < LATE_MAX).unwrap_or(wall);
        let step = state.timed.as_mut().map(|it| it.drive.next(now));
        let (ticket, until) = match step {
            Some(Step::Wait(None)) | None => return self.sleep(state, None),
            Some(Step::Wait(Some(until))) => {
                let most = Duration::from_secs_f64((until - wall).max(0.000_05));
                return self.sleep(state, Some(most));
            }
            Some(Step::Busy(until)) => (None, until),
            Some(Step::Answer(ticket, until)) => (Some(ticket), until),
        };
        if let Some(timed) = &mut state.timed {
            timed.resume = timed.drive.has_work().then_some(until);
        }
        if until > wall {
            drop(state);
            std::thread::sleep(Duration::from_secs_f64((until - self.now()).max(0.0)));
            state = self.lock();
        }
        let request = ticket.and_then(|it| state.timed.as_mut()?.waiting.remove(&it));
        if let Some(request) = request {
            state.perform(request);
        }
        state
    }

    /// The power goes, now.
    pub(crate) fn cut(&self) -> io::Result<Cut> {
        let mut state = self.lock();
        state.power = Power::Frozen;
        state.life += 1;
        let cut = state.lose()?;
        self.wake.notify_all();
        Ok(cut)
    }

    /// What waits, and what comes until the power is back, gets an error.
    pub(crate) fn off(&self) {
        let mut state = self.lock();
        state.power = Power::Off;
        let waiting = state
            .timed
            .as_mut()
            .map(|it| std::mem::take(&mut it.waiting));
        let queued = std::mem::take(&mut state.queue);
        if let Some(timed) = &mut state.timed {
            timed.drive = Drive::new(self.size);
        }
        drop(state);
        queued.into_iter().for_each(Request::refuse);
        waiting
            .into_iter()
            .flatten()
            .for_each(|(_, it)| it.refuse());
    }

    /// The power is back, and no fault is left.
    pub(crate) fn on(&self) {
        let mut state = self.lock();
        state.power = Power::On;
        state.faults = Faults::default();
        self.wake.notify_all();
    }

    /// The `nth` write from now fails, counted from 1, and every later one too if `for_good`.
    pub(crate) fn fail_write(&self, nth: u64, for_good: bool) {
        self.lock().faults.write = Some((nth, for_good));
    }

    /// The `nth` FLUSH from now fails, counted from 1.
    pub(crate) fn fail_flush(&self, nth: u64) {
        self.lock().faults.flush = Some(nth);
    }

    /// Reads that touch the range fail from now on.
    pub(crate) fn fail_reads(&self, offset: u64, bytes: u64) {
        self.lock()
            .faults
            .reads
            .push((offset, offset.saturating_add(bytes)));
    }

    /// Answers nothing for a time, as a drive that retries a bad sector.
    pub(crate) fn stall(&self, time: Duration) {
        self.lock().faults.stalled_until = Some(Instant::now() + time);
        self.wake.notify_all();
    }

    /// Answers nothing any more once the trap has sprung, until the next cut; in the mode `cuts` only.
    pub(crate) fn trap(&self, trap: Trap) {
        self.lock().faults.trap = Some(trap);
    }

    /// Whether the trap has sprung.
    pub(crate) fn sprung(&self) -> bool {
        self.lock().faults.trap.as_ref().is_some_and(Trap::sprung)
    }

    /// In this range cuts tear single sectors; `None`: nowhere.
    pub(crate) fn fragile(&self, range: Option<(u64, u64)>) {
        let mut state = self.lock();
        match range {
            Some((offset, bytes)) => state.cache.add_fragile(offset, bytes),
            None => state.cache.clear_fragile(),
        }
    }

    /// From now on a FLUSH is answered and does nothing, as by drives that should not be bought.
    pub(crate) fn lie(&self) {
        self.lock().faults.lies = true;
    }

    /// No faults any more.
    pub(crate) fn heal(&self) {
        self.lock().faults = Faults::default();
        self.wake.notify_all();
    }

    /// What was counted, and what a cut would take now: (counts, bytes unflushed, seeks, seconds busy).
    pub(crate) fn stats(&self) -> (Counts, u64, u64, f64) {
        let state = self.lock();
        let moves = state
            .timed
            .as_ref()
            .map(|it| it.drive.moves)
            .unwrap_or_default();
        (state.counts, state.cache.bytes(), moves.seeks, moves.busy)
    }
}

impl State {
    fn perform(&mut self, request: Request) {
        match request {
            Request::Read {
                offset,
                bytes,
                reply,
            } => {
                let mut data = vec![0; bytes];
                self.counts.reads += 1;
                self.counts.bytes_read += bytes as u64;
                let end = offset + bytes as u64;
                let bad = self
                    .faults
                    .reads
                    .iter()
                    .any(|(from, to)| offset < *to && *from < end);
                match self.image.read(offset, &mut data) {
                    Ok(()) if !bad => reply.data(&data),
                    _ => {
                        self.counts.errors += 1;
                        reply.error(Errno::EIO);
                    }
                }
            }
            Request::Write {
                offset,
                data,
                reply,
            } => {
                self.counts.writes += 1;
                self.counts.bytes_written += data.len() as u64;
                if self.write_fails() || self.write(offset, &data).is_err() {
                    self.counts.errors += 1;
                    return reply.error(Errno::EIO);
                }
                reply.written(data.len() as u32);
            }
            Request::Flush { reply } => {
                self.counts.flushes += 1;
                if let Some(left) = &mut self.faults.flush {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        self.faults.flush = None;
                        self.counts.errors += 1;
                        return reply.error(Errno::EIO);
                    }
                }
                if !self.faults.lies {
                    self.cache.flush();
                }
                reply.ok();
            }
        }
    }

    fn write_fails(&mut self) -> bool {
        let Some((left, for_good)) = &mut self.faults.write else {
            return false;
        };
        *left = left.saturating_sub(1);
        let fails = *left == 0;
        if fails && !*for_good {
            self.faults.write = None;
        }
        fails
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.timed.is_some() {
            return self.image.write(offset, data);
        }
        self.cache.write(&mut self.image, offset, data)
    }

    /// What was on its way when the power went may have come through as well, whole or in part.
    fn lose(&mut self) -> io::Result<Cut> {
        for request in &self.queue {
            if let Request::Write { offset, data, .. } = request {
                self.cache.write(&mut self.image, *offset, data)?;
            }
        }
        self.cache.cut(&mut self.image, &mut self.rng)
    }
}
