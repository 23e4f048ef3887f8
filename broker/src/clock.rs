//! The node's two clocks. Durations are measured on CLOCK_MONOTONIC_RAW, which nobody slews; wall time is only ever
//! written down, and only where it is trusted does anything expire by it.

use std::sync::atomic::{AtomicI64, Ordering};

use model::{Instant, WallMs};
use rustix::time::{ClockId, clock_gettime};
use site::ClockSource;

/// A forward step beyond this is not believed at once: a clock that jumps would empty every topic with a retention.
const STEP_MS_MAX: i64 = 24 * 3600 * 1000;
/// A stepped clock that goes on steadily this long was right.
const STEP_BELIEVED_MS: i64 = 24 * 3600 * 1000;
const UNSET: i64 = i64::MIN;

/// Wall time minus monotonic time when the clock was last believed, in ms.
static BELIEVED: AtomicI64 = AtomicI64::new(UNSET);
/// Monotonic time of the first look after a step that is not believed yet, in ms.
static STEPPED: AtomicI64 = AtomicI64::new(UNSET);

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
    let (WallMs(wall), mono) = (
        wall(),
        i64::try_from(now().0 / 1_000_000).expect("290 years"),
    );
    believe(&BELIEVED, &STEPPED, wall, mono).then_some(WallMs(wall))
}

fn believe(believed: &AtomicI64, stepped: &AtomicI64, wall: i64, mono: i64) -> bool {
    let offset = wall - mono;
    let before = believed.load(Ordering::Relaxed);
    if before == UNSET || offset - before <= STEP_MS_MAX {
        believed.store(offset, Ordering::Relaxed);
        stepped.store(UNSET, Ordering::Relaxed);
        return true;
    }
    let since = match stepped.load(Ordering::Relaxed) {
        UNSET => {
            stepped.store(mono, Ordering::Relaxed);
            mono
        }
        since => since,
    };
    if mono - since < STEP_BELIEVED_MS {
        return false;
    }
    believed.store(offset, Ordering::Relaxed);
    stepped.store(UNSET, Ordering::Relaxed);
    true
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
        let (believed, stepped) = (AtomicI64::new(UNSET), AtomicI64::new(UNSET));
        let believe = |wall, mono| believe(&believed, &stepped, wall, mono);
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
        let (believed, stepped) = (AtomicI64::new(UNSET), AtomicI64::new(UNSET));
        let believe = |wall, mono| believe(&believed, &stepped, wall, mono);
        assert!(believe(10 * DAY, 0));
        assert!(believe(DAY, 10), "back: nothing expires early by it");
        assert!(
            !believe(10 * DAY, 20),
            "forward again by nine days is a step"
        );
    }
}
