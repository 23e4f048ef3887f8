//! The wall clock: one step by the site's time servers, slewing from then on, and what the broker is told of it.
//!
//! The hand-over is the kernel's own state. A start finds it unsynchronised (STA_UNSYNC); each time the servers agree the
//! board clears that, with the error it may have by now. The broker asks adjtimex(2) and trusts the time while the kernel
//! does (`broker/src/clock.rs`). Nobody has to remember to withdraw it: the kernel lets the error grow by 500 ppm and
//! calls the clock unsynchronised again at 16 s, nine hours after the servers fell silent.
//!
//! A step happens once in a boot, before the broker starts if the servers answer in time. Later answers only slew, so
//! that no record's time goes back; one that is far off is not believed. The floor is the time of the build: no server
//! may set the clock before it, and a clock that stands before it is put there, still unsynchronised.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use rsntp::{Config, SntpClient};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::say;

/// Answers count as one if they lie so close together.
const AGREE: i64 = 500_000;
/// Smaller offsets are slewed, also at the start: at 500 ppm this takes four minutes.
const STEP_MIN: i64 = 125_000;
/// After the step an offset beyond this is a server's fault or ours, and nothing that slewing mends.
const SLEW_MAX: i64 = 5_000_000;
/// One server's answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often servers are asked while the clock is right, and while it is not.
pub(crate) const ASK_EVERY: Duration = Duration::from_secs(256);
pub(crate) const ASK_SOON: Duration = Duration::from_secs(16);
/// Set by the image's builder; 0 in a build from a working copy.
const BUILD_SECONDS: &str = match option_env!("SOURCE_DATE_EPOCH") {
    Some(seconds) => seconds,
    None => "0",
};

/// Microseconds to add to our clock.
pub(crate) type Offset = i64;

/// What to do about an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Set the clock.
    Step,
    /// Let it run faster or slower.
    Slew,
    /// Do nothing, and claim nothing.
    Doubt,
}

/// The offset that the servers agree on: the median of those around which more than half of the answers lie.
pub(crate) fn agree(mut offsets: Vec<Offset>) -> Option<Offset> {
    offsets.sort_unstable();
    let median = *offsets.get(offsets.len() / 2)?;
    let near = |it: &&Offset| (**it).abs_diff(median) <= AGREE.unsigned_abs();
    let near: Vec<Offset> = offsets.iter().filter(near).copied().collect();
    (near.len() * 2 > offsets.len()).then(|| near[near.len() / 2])
}

/// `stepped`: the clock was synchronised in this boot. `now` and `floor` in microseconds since 1970.
pub(crate) fn decide(offset: Offset, stepped: bool, now: i64, floor: i64) -> Move {
    if now.saturating_add(offset) < floor {
        return Move::Doubt;
    }
    match offset.saturating_abs() {
        small if small < STEP_MIN => Move::Slew,
        _ if !stepped => Move::Step,
        middle if middle <= SLEW_MAX => Move::Slew,
        _ => Move::Doubt,
    }
}

/// What the clock is, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The servers agreed in this boot.
    pub(crate) synced: bool,
    /// By how much, in microseconds, the last time.
    pub(crate) offset: Offset,
}

/// Keeps the clock.
#[derive(Debug)]
pub(crate) struct Keeper {
    servers: Vec<IpAddr>,
    standing: Standing,
}

impl Keeper {
    /// Raises a clock that stands before the build's time.
    pub(crate) fn new(servers: &[IpAddr]) -> Self {
        if now() < floor() {
            set(floor());
            say!("clock: it stood before the build of this system, and was put there");
        }
        Self {
            servers: servers.to_vec(),
            standing: Standing::default(),
        }
    }

    /// Asks every server once, a few seconds at most, and does what follows. Says how it stands.
    pub(crate) fn turn(&mut self) -> Standing {
        let asked: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let server = SocketAddr::new(*server, 123);
                std::thread::spawn(move || ask(server))
            })
            .collect();
        let offsets = asked.into_iter().filter_map(|it| it.join().ok().flatten());
        let Some(offset) = agree(offsets.collect()) else {
            return self.standing;
        };
        let (now, stepped) = (now(), self.standing.synced);
        match decide(offset, stepped, now, floor()) {
            Move::Step => {
                set(now + offset);
                say!("clock: stepped by {} ms", offset / 1_000);
                trust(None);
                self.standing.synced = true;
            }
            Move::Slew => {
                trust(Some(offset));
                self.standing.synced = true;
            }
            Move::Doubt => say!(
                "clock: the servers say {} ms, which is not believed",
                offset / 1_000
            ),
        }
        self.standing.offset = offset;
        self.standing
    }
}

fn ask(server: SocketAddr) -> Option<Offset> {
    // The same family as the server's: an IPv4 socket reaches no IPv6 server.
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let config = Config::default().bind_address(any).timeout(ANSWER_MAX);
    let answer = SntpClient::with_config(config).synchronize(server.to_string());
    let seconds = answer.ok()?.clock_offset().as_secs_f64();
    // Within 290,000 years, which `as` would cut it to anyway.
    Some((seconds * 1e6) as Offset)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

fn floor() -> i64 {
    BUILD_SECONDS
        .parse::<i64>()
        .unwrap_or(0)
        .saturating_mul(1_000_000)
}

fn set(micros: i64) {
    let time = Timespec {
        tv_sec: micros.div_euclid(1_000_000),
        tv_nsec: micros.rem_euclid(1_000_000) * 1_000,
    };
    if let Err(error) = clock_settime(ClockId::Realtime, time) {
        say!("clock: it can't be set: {error}");
    }
}

/// Tells the kernel that its clock is right but for `slew`, which it takes out at 500 ppm (adjtimex(2)).
fn trust(slew: Option<Offset>) {
    // SAFETY: all zero is a valid `timex`; the kernel reads and fills the one we pass.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    if let Some(offset) = slew {
        timex.modes = libc::ADJ_OFFSET_SINGLESHOT;
        timex.offset = offset;
        // SAFETY: as above.
        let done = unsafe { libc::adjtimex(&raw mut timex) };
        if done < 0 {
            say!(
                "clock: it can't be slewed: {}",
                std::io::Error::last_os_error()
            );
        }
        // SAFETY: as above.
        timex = unsafe { std::mem::zeroed() };
    }
    // Half of the longest round trip, and what is still to be slewed.
    let error = ANSWER_MAX.as_micros() as i64 / 2 + slew.unwrap_or(0).abs();
    timex.modes = libc::ADJ_STATUS | libc::ADJ_MAXERROR | libc::ADJ_ESTERROR;
    timex.status = 0;
    timex.maxerror = error;
    timex.esterror = error;
    // SAFETY: as above.
    let done = unsafe { libc::adjtimex(&raw mut timex) };
    if done < 0 {
        say!(
            "clock: the kernel does not take it: {}",
            std::io::Error::last_os_error()
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: i64 = 1_000;
    const YEAR: i64 = 365 * 24 * 3_600 * 1_000_000;

    #[test]
    fn most_servers_must_agree() {
        assert_eq!(agree(vec![]), None);
        assert_eq!(agree(vec![7]), Some(7));
        assert_eq!(agree(vec![10 * MS, 20 * MS]), Some(20 * MS));
        assert_eq!(agree(vec![0, 10_000 * MS]), None, "which of the two?");
        assert_eq!(
            agree(vec![30 * YEAR, 5 * MS, 9 * MS]),
            Some(9 * MS),
            "one falseticker"
        );
        assert_eq!(
            agree(vec![-30 * YEAR, 30 * YEAR, 0, 400 * MS]),
            None,
            "two of four"
        );
        assert_eq!(agree(vec![i64::MIN, i64::MAX, 0, 1, 2]), Some(1));
    }

    #[test]
    fn one_step_then_slewing_and_never_before_the_build() {
        let (now, floor) = (56 * YEAR, 55 * YEAR);
        assert_eq!(decide(100 * MS, false, now, floor), Move::Slew);
        assert_eq!(decide(200 * MS, false, now, floor), Move::Step);
        assert_eq!(decide(200 * MS, true, now, floor), Move::Slew);
        assert_eq!(decide(-4_000 * MS, true, now, floor), Move::Slew);
        assert_eq!(decide(6_000 * MS, true, now, floor), Move::Doubt);
        assert_eq!(decide(-2 * YEAR, false, now, floor), Move::Doubt);
        // A clock that begins in 1970.
        assert_eq!(decide(56 * YEAR, false, 0, floor), Move::Step);
        assert_eq!(decide(i64::MIN, false, now, floor), Move::Doubt);
        assert_eq!(decide(i64::MAX, true, now, floor), Move::Doubt);
    }
}
