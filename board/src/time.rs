//! Time since the boot, which nobody sets: suspension counts, slewing does not matter for what the board measures.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// See the module.
pub(crate) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
