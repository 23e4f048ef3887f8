//! Space and time: quotas, a full file system, and a clock that nobody trusts yet.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{all_move, compare, load, restart};
use crate::mount::run;
use crate::world::{KEEP, Plan, World};

/// Time counts only when the kernel says that something keeps it.
pub(super) const CLOCK: Plan = Plan {
    site: "clock = \"kernel\"",
    topics: r#"
[[topic]]
name = "keep"
partitions = 4
retention = { time = "3s", bytes = "64MiB" }
"#,
    flush_us: 0,
};

/// A quota that is reached at once beside a topic that has none to speak of.
pub(super) const QUOTA: Plan = Plan {
    site: "",
    topics: r#"
[[topic]]
name = "keep"
partitions = 4
retention = { time = "forever", bytes = "4MiB" }
on_full = "refuse"

[[topic]]
name = "compact"
partitions = 2
cleanup = "compact"
retention = { bytes = "16MiB" }
"#,
    flush_us: 0,
};

const STA_UNSYNC: i32 = 0x40;

/// The kernel's word for a clock that nobody keeps. Set back when dropped.
struct Clock(i32);

impl Clock {
    fn new() -> io::Result<Self> {
        Self::adjust(None).map(Self)
    }

    /// Reads the status, and sets it if one is given.
    fn adjust(status: Option<i32>) -> io::Result<i32> {
        // SAFETY: a struct of integers, for which all zeros is a value, filled and read by the kernel alone.
        let mut timex: libc::timex = unsafe { std::mem::zeroed() };
        if let Some(status) = status {
            // The kernel takes its word back within a second where the error stands at its bound.
            timex.modes = libc::ADJ_STATUS | libc::ADJ_MAXERROR;
            timex.status = status;
        }
        // SAFETY: the pointer is to a live struct of the right type.
        match unsafe { libc::adjtimex(&raw mut timex) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(timex.status),
        }
    }

    fn trusted(&self, trusted: bool) -> io::Result<()> {
        let status = if trusted {
            self.0 & !STA_UNSYNC
        } else {
            self.0 | STA_UNSYNC
        };
        Self::adjust(Some(status)).map(|_| ())
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = Self::adjust(Some(self.0));
    }
}

/// With no trusted time nothing expires, however old its stamps; from the first trusted moment on, time runs.
pub(super) fn clock(world: &mut World) -> io::Result<String> {
    let clock = Clock::new()?;
    clock.trusted(false)?;
    restart(world)?;
    load(world, 3_000)?;
    std::thread::sleep(Duration::from_secs(8));
    world.pause(true)?;
    let before = world.audit()?.read;
    // Across a restart too.
    restart(world)?;
    world.audit()?;
    clock.trusted(true)?;
    let began = Instant::now();
    while world
        .site
        .read(&KEEP)?
        .values()
        .flatten()
        .next()
        .is_some_and(|it| it.offset == 0)
    {
        if began.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::other(
                "a minute after the clock was set nothing had expired",
            ));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let expired = began.elapsed();
    world.forget();
    Ok(format!(
        "{before} records waited untouched; {expired:.0?} after the clock was set the first were gone"
    ))
}

/// Refused at the quota, also after a restart; the other topic notices nothing; DeleteRecords makes room.
pub(super) fn quota(world: &mut World) -> io::Result<String> {
    let refused = |world: &World| world.shared.refused.load(Ordering::Acquire);
    let until = Instant::now() + Duration::from_secs(120);
    let mut last = world.ends();
    // Full when for two seconds no partition of `keep` took anything.
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let stands = world.standing(&last);
        if stands.iter().filter(|it| it.starts_with("keep")).count() == 4 {
            break;
        }
        if Instant::now() > until {
            return Err(io::Error::other(
                "a quota of 4 MiB was not reached in two minutes",
            ));
        }
        last = world.ends();
    }
    if refused(world) == 0 {
        return Err(io::Error::other("the topic stands and nothing was refused"));
    }
    if world
        .standing(&last)
        .iter()
        .any(|it| it.starts_with("compact"))
    {
        return Err(io::Error::other("the other topic stands too"));
    }
    compare(world)?;
    restart(world)?;
    world.pause(true)?;
    let read = world.audit()?.read;
    world.delete_half(&KEEP)?;
    world.pause(false)?;
    let took = all_move(world, Duration::from_secs(60))?;
    compare(world)?;
    Ok(format!(
        "{} refusals, {read} records read; took records again {took:.1?} after DeleteRecords",
        refused(world)
    ))
}

/// The file system of the data disk is filled by others. Refusals, no wedge, a start that succeeds; when space returns,
/// so does the disk.
pub(super) fn full(world: &mut World) -> io::Result<String> {
    load(world, 1_000)?;
    let filler: PathBuf = world.disks[1].dir.join("filler");
    fill(&filler)?;
    let refused = world.shared.refused.load(Ordering::Acquire);
    let until = Instant::now() + Duration::from_secs(60);
    while world.shared.refused.load(Ordering::Acquire) == refused {
        if Instant::now() > until {
            return Err(io::Error::other(
                "a minute on a full file system and nothing was refused",
            ));
        }
        if let Some(status) = world.ended()? {
            return Err(io::Error::other(format!(
                "the broker ended on a full file system: {status}"
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    compare(world)?;
    restart(world)?;
    world.pause(true)?;
    let read = world.audit()?.read;
    world.pause(false)?;
    std::fs::remove_file(&filler)?;
    let took = all_move(world, Duration::from_secs(90))?;
    compare(world)?;
    Ok(format!(
        "{read} records read while full; all took records again {took:.1?} after space came back"
    ))
}

/// Takes every block that is left.
fn fill(filler: &std::path::Path) -> io::Result<()> {
    let name = filler.to_str().unwrap_or_default();
    // In ever smaller steps: what is free is not all one piece, and others write meanwhile.
    let (mut bytes, mut have) = (256u64 << 20, 0u64);
    while bytes >= 4096 {
        match run(
            "fallocate",
            &["-o", &have.to_string(), "-l", &bytes.to_string(), name],
        ) {
            Ok(_) => have += bytes,
            Err(_) => bytes /= 2,
        }
    }
    Ok(())
}
