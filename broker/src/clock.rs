//! The node's two clocks. Durations are measured on CLOCK_MONOTONIC_RAW, which nobody slews; wall time is only ever
//! written down, and only where it is trusted does anything expire by it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use model::{Instant, WallMs};
use rustix::time::{ClockId, clock_gettime};
use site::ClockSource;

/// A forward step beyond this is not believed at once: a clock that jumps would empty every topic with a retention.
const STEP_MS_MAX: i64 = 24 * 3600 * 1000;
/// A stepped clock that goes on steadily this long was right.
const STEP_BELIEVED_MS: i64 = 24 * 3600 * 1000;
const UNSET: i64 = i64::MIN;

/// What this process believes of the wall clock.
static BELIEF: Belief = Belief::new();

/// How good the wall clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quality {
    Trusted,
    /// The kernel says that nothing keeps it right.
    Unsynchronised,
    /// It went forward by more than a day. Nothing expires by it until a person, or a day of steady going, confirms it.
    Stepped {
        forward: Duration,
        /// Until it is believed by itself.
        left: Duration,
    },
}

/// The wall clock against the monotonic one.
struct Belief {
    /// Wall time minus monotonic time when the clock was last believed, in ms.
    believed: AtomicI64,
    /// Monotonic time of the first look after a step that is not believed yet, in ms.
    stepped: AtomicI64,
}

/// Now, on the clock that lease and timer arithmetic uses.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::MonotonicRaw);
    // Both fields are non-negative on a monotonic clock.
    Instant(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// What the wall clock says, trusted or not.
pub(crate) fn wall() -> WallMs {
    let time = clock_gettime(ClockId::Realtime);
    WallMs(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000)
}

/// What the wall clock says if it can be trusted: as the site file wants it known, and without a step of more than a
/// day since it was first believed.
pub(crate) fn trusted(source: ClockSource) -> Option<WallMs> {
    if source == ClockSource::Kernel && !synchronised() {
        return None;
    }
    let (wall, mono) = both();
    BELIEF.believe(wall, mono).then_some(WallMs(wall))
}

/// How good the wall clock is just now.
pub(crate) fn quality(source: ClockSource) -> Quality {
    if source == ClockSource::Kernel && !synchronised() {
        return Quality::Unsynchronised;
    }
    let (wall, mono) = both();
    BELIEF.quality(wall, mono)
}

/// A person says that the wall clock is right: it is believed from now on. Gives the step that was not believed before.
pub(crate) fn confirm() -> Option<Duration> {
    let (wall, mono) = both();
    BELIEF.confirm(wall, mono)
}

/// Wall time and monotonic time, in ms.
fn both() -> (i64, i64) {
    let mono = i64::try_from(now().0 / 1_000_000).expect("290 years");
    (wall().0, mono)
}

impl Belief {
    const fn new() -> Self {
        Self {
            believed: AtomicI64::new(UNSET),
            stepped: AtomicI64::new(UNSET),
        }
    }

    fn believe(&self, wall: i64, mono: i64) -> bool {
        let offset = wall - mono;
        let before = self.believed.load(Ordering::Relaxed);
        if before == UNSET || offset - before <= STEP_MS_MAX {
            self.set(offset);
            return true;
        }
        let since = match self.stepped.load(Ordering::Relaxed) {
            UNSET => {
                self.stepped.store(mono, Ordering::Relaxed);
                mono
            }
            since => since,
        };
        if mono - since < STEP_BELIEVED_MS {
            return false;
        }
        self.set(offset);
        true
    }

    fn quality(&self, wall: i64, mono: i64) -> Quality {
        let before = self.believed.load(Ordering::Relaxed);
        if self.believe(wall, mono) {
            return Quality::Trusted;
        }
        let since = self.stepped.load(Ordering::Relaxed);
        let ms = |ms: i64| Duration::from_millis(ms.max(0).unsigned_abs());
        Quality::Stepped {
            forward: ms(wall - mono - before),
            left: ms(STEP_BELIEVED_MS - (mono - since)),
        }
    }

    fn confirm(&self, wall: i64, mono: i64) -> Option<Duration> {
        let quality = self.quality(wall, mono);
        self.set(wall - mono);
        match quality {
            Quality::Stepped { forward, .. } => Some(forward),
            Quality::Trusted | Quality::Unsynchronised => None,
        }
    }

    fn set(&self, offset: i64) {
        self.believed.store(offset, Ordering::Relaxed);
        self.stepped.store(UNSET, Ordering::Relaxed);
    }
}

/// Whether the kernel's clock is disciplined: adjtimex(2) returns TIME_ERROR while nobody has synchronised it.
fn synchronised() -> bool {
    // SAFETY: all zero is a valid `timex`, and with `modes` 0 the kernel only fills it in.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    (0..libc::TIME_ERROR).contains(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;

    #[test]
    fn a_step_of_more_than_a_day_is_believed_after_a_day() {
        let belief = Belief::new();
        let believe = |wall, mono| belief.believe(wall, mono);
        assert!(believe(1_000, 10), "the first look");
        assert!(believe(DAY, 20), "less than a day ahead is ordinary");
        assert!(!believe(56 * 365 * DAY, 30), "from 1970 to now");
        assert!(
            !believe(56 * 365 * DAY + DAY - 40, DAY - 10),
            "not a whole day yet"
        );
        assert!(believe(56 * 365 * DAY + DAY, DAY + 40), "a day later");
    }

    #[test]
    fn a_clock_that_goes_back_is_followed() {
        let belief = Belief::new();
        let believe = |wall, mono| belief.believe(wall, mono);
        assert!(believe(10 * DAY, 0));
        assert!(believe(DAY, 10), "back: nothing expires early by it");
        assert!(
            !believe(10 * DAY, 20),
            "forward again by nine days is a step"
        );
    }

    #[test]
    fn a_step_that_is_confirmed_is_believed_at_once_and_the_next_one_is_not() {
        let belief = Belief::new();
        assert_eq!(belief.quality(DAY, 0), Quality::Trusted);
        assert_eq!(belief.confirm(DAY + 10, 10), None, "nothing to confirm");
        let stepped = |forward: i64, left: i64| Quality::Stepped {
            forward: Duration::from_millis(forward as u64),
            left: Duration::from_millis(left as u64),
        };
        assert_eq!(belief.quality(4 * DAY, 20), stepped(3 * DAY - 20, DAY));
        assert_eq!(
            belief.quality(4 * DAY + 30, 50),
            stepped(3 * DAY - 20, DAY - 30)
        );
        assert!(!belief.believe(4 * DAY + 30, 50));
        assert_eq!(
            belief.confirm(4 * DAY + 40, 60),
            Some(Duration::from_millis((3 * DAY - 20) as u64))
        );
        assert!(belief.believe(4 * DAY + 50, 70));
        assert_eq!(belief.quality(6 * DAY, 80), stepped(2 * DAY - 60, DAY));
    }
}
