//! Whose turn it is on a disk: the writer thread's groups, or the reader thread's.
//!
//! While groups are written there is at most one turn in three groups, and it stands between two of them: the next group
//! waits for its end. On a disk of 7200 rpm one read before every commit gives readers 39 MB/s and commits 47 ms, turns
//! give 60 MB/s and 14 ms. Both waits are bounded, so that neither thread hangs on the other's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reader::GROUPS_PER_TURN;

/// In a closed loop nothing waits between two groups: a disk whose last group is not older than this is written to.
const BUSY: Duration = Duration::from_millis(100);
/// A turn waits no longer than this for groups: a writer that is stuck must not stop readers.
const TURN_WAIT_MAX: Duration = Duration::from_millis(250);
/// A group waits no longer than this for a turn: 8 MiB take 45 ms and some seeks.
const GROUP_WAIT_MAX: Duration = Duration::from_millis(100);
/// A disk whose groups take less does not turn: there a group and a read don't disturb each other, and none waits for
/// one.
const TURNS: Duration = Duration::from_millis(3);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Groups written since the start.
    pub(crate) groups: AtomicU64,
    /// Operations wait to be written.
    pub(crate) waiting: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The reader waits for one.
    wanted: bool,
    /// One is under way.
    reading: bool,
    /// Groups written when the last one ended.
    groups: u64,
    /// When the last group ended.
    written: Option<Instant>,
    /// How long groups take: a mean that follows them.
    group: Duration,
}

impl Pace {
    /// The reader: waits until it may read. [`Pace::end_turn`] follows.
    pub(super) fn begin_turn(&self) {
        let began = Instant::now();
        let mut state = self.lock();
        state.wanted = true;
        while !state.reading {
            let now = Instant::now();
            let waited = now.duration_since(began);
            let quiet = state.written.map_or(BUSY, |at| now.duration_since(at));
            let busy = quiet < BUSY || self.waiting.load(Ordering::Relaxed);
            // A writer that goes on offers the turn itself, between two groups.
            if !busy || waited >= TURN_WAIT_MAX {
                state.reading = true;
                break;
            }
            let longest = (TURN_WAIT_MAX - waited).min(BUSY);
            state = match self.changed.wait_timeout(state, longest) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        state.wanted = false;
    }

    /// The reader: it has read.
    pub(super) fn end_turn(&self) {
        let mut state = self.lock();
        state.reading = false;
        state.groups = self.groups.load(Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    /// The writer, before a group: waits for a turn under way.
    pub(super) fn begin_group(&self) {
        let began = Instant::now();
        let mut state = self.lock();
        while state.reading && state.group >= TURNS {
            let Some(left) = GROUP_WAIT_MAX.checked_sub(began.elapsed()) else {
                break;
            };
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// The writer: a group is done; one that was written took so long.
    pub(super) fn end_group(&self, took: Option<Duration>) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        let Some(took) = took else { return };
        let mut state = self.lock();
        state.written = Some(Instant::now());
        state.group = (state.group * 7 + took) / 8;
    }

    /// The writer, between two groups and done with its own work: it is the reader's turn, if it waits and enough groups
    /// went before it.
    pub(super) fn offer(&self) {
        let mut state = self.lock();
        let due = self.groups.load(Ordering::Relaxed) >= state.groups + GROUPS_PER_TURN;
        if state.wanted && due {
            state.reading = true;
            drop(state);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The lock guards numbers that every statement leaves whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    use super::*;

    const SLOW: Duration = Duration::from_millis(14);

    /// A reader that takes one turn and ends it when told to.
    fn one_turn(pace: &Arc<Pace>) -> (Receiver<()>, impl FnOnce() + use<>) {
        let (began, begun) = channel();
        let of = pace.clone();
        std::thread::spawn(move || {
            of.begin_turn();
            let _ = began.send(());
        });
        let of = pace.clone();
        (begun, move || of.end_turn())
    }

    fn waits(begun: &Receiver<()>) -> bool {
        begun.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout)
    }

    #[test]
    fn a_turn_stands_behind_every_third_group_and_the_next_group_waits_for_it() {
        let pace = Arc::new(Pace::default());
        pace.end_group(Some(SLOW * 8));
        for _ in 0..2 {
            // Nothing waits, as between two groups of a closed loop.
            let (begun, end) = one_turn(&pace);
            assert!(waits(&begun), "after one group");
            pace.end_group(Some(SLOW));
            pace.offer();
            assert!(waits(&begun), "after two");
            pace.end_group(Some(SLOW));
            assert!(waits(&begun), "the writer is not done with its own work");
            pace.offer();
            assert!(begun.recv_timeout(SLOW * 100).is_ok());
            let ending = std::thread::spawn(move || {
                std::thread::sleep(SLOW);
                end();
            });
            let began = Instant::now();
            pace.begin_group();
            assert!(began.elapsed() >= SLOW / 2, "the turn goes first");
            pace.end_group(Some(SLOW));
            ending.join().expect("it sleeps and ends");
        }
    }

    #[test]
    fn neither_waits_for_ever() {
        let pace = Arc::new(Pace::default());
        pace.end_group(Some(SLOW * 8));
        pace.waiting.store(true, Ordering::Relaxed);
        let began = Instant::now();
        pace.begin_turn();
        assert!(began.elapsed() >= TURN_WAIT_MAX);
        let began = Instant::now();
        pace.begin_group();
        assert!(began.elapsed() >= GROUP_WAIT_MAX);
        pace.end_turn();
        // A disk at rest is read at once.
        pace.waiting.store(false, Ordering::Relaxed);
        std::thread::sleep(BUSY);
        let began = Instant::now();
        pace.begin_turn();
        assert!(began.elapsed() < BUSY);
    }

    #[test]
    fn on_flash_no_group_waits_for_a_turn() {
        let pace = Pace::default();
        pace.end_group(Some(Duration::from_micros(300)));
        pace.begin_turn();
        let began = Instant::now();
        pace.begin_group();
        assert!(began.elapsed() < GROUP_WAIT_MAX / 2);
    }
}
