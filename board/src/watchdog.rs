//! The hardware watchdog: taken over from the loader, fed by a thread of its own that does nothing else.
//!
//! The thread feeds only while the main loop turns and has not condemned the machine. Whether the broker's pings are
//! fresh is the main loop's business (`supervise.rs`): it kills a broker that hangs, and condemns the machine only where
//! a reset cures something. Disks, sockets and terminals are never touched in this thread, and by the main loop only in
//! ways that can't wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::ioctl::{NoArg, Opcode, Updater, ioctl, opcode};

use crate::{say, time};

const DEVICE: &str = "/dev/watchdog0";
/// `WDIOC_SETTIMEOUT`, seconds; the driver answers with what it chose.
const SET_TIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
/// `WDIOC_KEEPALIVE`.
const KEEP_ALIVE: Opcode = opcode::read::<i32>(b'W', 5);
/// `WDIOC_GETBOOTSTATUS`: why the machine was reset last.
const BOOT_STATUS: Opcode = opcode::read::<i32>(b'W', 2);
/// `WDIOF_CARDRESET` (linux/watchdog.h).
const CARD_RESET: i32 = 0x20;
/// The shortest time that a site may name is 5 s: three chances in it.
const FEED_EVERY: Duration = Duration::from_millis(1_500);
/// The main loop turns every 200 ms; a machine whose loop stands for so long is hung.
const LOOP_MAX: Duration = Duration::from_secs(20);

/// What the main loop and the feeding thread share.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// When the loop turned last, in ms since the boot.
    turned_ms: AtomicU64,
    condemned: AtomicBool,
}

impl Life {
    /// The main loop is alive.
    pub(crate) fn turn(&self) {
        let now = u64::try_from(time::since_boot().as_millis()).unwrap_or(u64::MAX);
        self.turned_ms.store(now, Ordering::Relaxed);
    }

    /// The machine shall be reset by the watchdog; it is not fed again.
    pub(crate) fn condemn(&self) {
        self.condemned.store(true, Ordering::Relaxed);
    }

    fn may_feed(&self, now: Duration) -> bool {
        let turned = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        may_feed(now, turned, self.condemned.load(Ordering::Relaxed))
    }
}

/// Whether a machine whose loop turned last at `turned` deserves to live on.
fn may_feed(now: Duration, turned: Duration, condemned: bool) -> bool {
    !condemned && now.saturating_sub(turned) <= LOOP_MAX
}

/// A watchdog that is armed. It is never closed: without the magic byte a close leaves it counting.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: Arc<File>,
}

impl Watchdog {
    /// Takes the device over, or arms it, and starts feeding it. Says whether it was what reset the machine last.
    pub(crate) fn take(timeout: Duration, life: Arc<Life>) -> io::Result<(Self, bool)> {
        let device = Arc::new(OpenOptions::new().write(true).open(DEVICE)?);
        let watchdog = Self { device };
        watchdog.set(timeout)?;
        let device = &watchdog.device;
        let mut cause = 0;
        // SAFETY: WDIOC_GETBOOTSTATUS writes one int. Some drivers can't say.
        let known = unsafe { ioctl(&**device, Updater::<BOOT_STATUS, i32>::new(&mut cause)) };
        let by_watchdog = known.is_ok() && cause & CARD_RESET != 0;
        life.turn();
        let fed = device.clone();
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                loop {
                    if life.may_feed(time::since_boot()) {
                        // SAFETY: WDIOC_KEEPALIVE takes no argument. A driver that fails it resets the machine, and
                        // nothing could be done against that.
                        let _ = unsafe { ioctl(&*fed, NoArg::<KEEP_ALIVE>::new()) };
                    }
                    thread::sleep(FEED_EVERY);
                }
            })?;
        Ok((watchdog, by_watchdog))
    }

    /// Without a sign of life for so long the machine is reset; rounded by the driver.
    pub(crate) fn set(&self, timeout: Duration) -> io::Result<()> {
        let mut seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int.
        unsafe {
            ioctl(
                &*self.device,
                Updater::<SET_TIMEOUT, i32>::new(&mut seconds),
            )
        }?;
        say!("watchdog: {seconds} s, fed while the board's loop turns");
        Ok(())
    }

    /// Stops the counting, for a machine that is to stay off. A driver built with NOWAYOUT goes on, which an end in time
    /// does not notice.
    pub(crate) fn disarm(&self) {
        let _ = (&*self.device).write_all(b"V");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_only_while_the_loop_turns_and_nobody_condemned_the_machine() {
        let s = Duration::from_secs;
        assert!(may_feed(s(100), s(99), false));
        assert!(may_feed(s(100), s(80), false));
        assert!(!may_feed(s(101), s(80), false), "the loop stands");
        assert!(!may_feed(s(100), s(100), true), "condemned");
        // The loop turned while the feeder looked at the clock.
        assert!(may_feed(s(100), s(101), false));
        let life = Life::default();
        life.turn();
        assert!(life.may_feed(time::since_boot()));
        life.condemn();
        assert!(!life.may_feed(time::since_boot()));
    }
}
