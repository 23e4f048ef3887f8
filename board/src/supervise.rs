//! Decides about the broker's process: when it starts, when its slot is good, when it is killed, and what an end means.
//!
//! ```text
//!  Preparing ── Prepared: the disks are there ──▶ Waiting, or Held
//!             Started            Ready                 self-test passed, in a trial: bless
//!  Waiting ───────────▶ Starting ───────▶ Serving ──────────────────────────────────────▶ Serving
//!     ▲  ▲                 │                 │ no ping for 30 s
//!     │  └── back-off ◀────┴── Exited ◀──────┤
//!     │                       │              ▼         not gone after 60 s: a thread in D state
//!     │                       └────────── Killing ──────────────────────────────────────▶ reset, if that may help
//!     └ Exited with a status that no restart cures: Held, shown, the box stays reachable
//! ```
//! Two rules stand above the rest. A *trial* slot that does not become healthy in its time reboots by itself, since the
//! loader gets its turn only then. A *blessed* slot never reboots for what its broker does, since a fault in the data or
//! the site file survives any reboot; the one exception is a meta disk whose thread is stuck, which nothing but a reset
//! cures, and that is done only after the node has served in this boot, so that it can't become a loop.

use std::fmt;
use std::time::Duration;

/// Time since the boot, on a clock that nobody sets.
pub(crate) type Now = Duration;

/// From the start of a trial to its blessing: twelve rings of 4 GiB replay in six minutes.
const TRIAL_MAX: Duration = Duration::from_secs(900);
/// From its start until the broker is READY, on a blessed slot; then it is taken for hung.
const START_MAX: Duration = Duration::from_secs(900);
/// Pings come every 10 s; three missing ones are no accident.
pub(crate) const PING_MAX: Duration = Duration::from_secs(30);
/// A trial must have served so long, every ping in time, before its self-test counts.
const QUIET: Duration = Duration::from_secs(30);
/// A self-test that failed is done again.
const TEST_AGAIN: Duration = Duration::from_secs(30);
/// An orderly stop takes 5 s, and the last flush of each disk a little.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Killed and still there: its memory and files wait for a disk.
const KILL_MAX: Duration = Duration::from_secs(60);
/// The meta disk's write has not returned for so long.
const META_STUCK: Duration = Duration::from_secs(60);
/// Having served so long in this boot, a node may be reset: such resets are at least that far apart.
const SERVED_MIN: Duration = Duration::from_secs(600);
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Ends of a trial's broker before it was READY.
const TRIAL_ENDS_MAX: u32 = 3;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Time passed.
    Tick,
    /// What a broker needs is there, or why it is not.
    Prepared(Result<(), String>),
    /// The process was started.
    Started,
    /// It could not be.
    NotStarted(String),
    /// `READY=1`.
    Ready,
    /// `WATCHDOG=1`: the core thread's loop turns.
    Ping {
        /// How long the meta disk's write under way has taken.
        meta_busy: Duration,
    },
    /// The process is gone.
    Exited(Exit),
    /// The self-test that [`Effect::SelfTest`] asked for is done.
    Tested(Result<(), String>),
    /// Somebody wants the machine to end.
    End(Ending),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Its exit status.
    Status(i32),
    /// A signal's number.
    Signal(i32),
}

/// The broker's exit statuses (`howdah --help`), as far as the board tells them apart.
mod status {
    /// Wrong usage, or a site that it can't read.
    pub(super) const USAGE: i32 = 2;
    /// It refused to start, to protect data.
    pub(super) const REFUSED: i32 = 3;
    /// The meta disk failed; a restart replays it.
    pub(super) const META_DISK: i32 = 10;
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(0) => write!(f, "it ended in order"),
            Self::Status(status::USAGE) => {
                write!(f, "status 2: it can't use the site as it is written")
            }
            Self::Status(status::REFUSED) => write!(f, "status 3: it refused, to protect data"),
            Self::Status(status::META_DISK) => write!(f, "status 10: the meta disk failed"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A restart, which a trial that was not blessed survives only as one try less.
    Reboot,
    /// Off.
    PowerOff,
}

/// What must happen, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start the process; answered by `Started` or `NotStarted`.
    Start,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
    /// Do the self-test; answered by `Tested`.
    SelfTest,
    /// Mark the slot good.
    Bless,
    /// Disks are released and the machine ends in order; nothing follows.
    End(Ending, String),
    /// The machine is reset at once, nothing is synced: a disk does not answer. Nothing follows.
    Reset(String),
    /// Say it.
    Say(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Site, network, clock and disks are under way.
    Preparing,
    /// Between two processes.
    Waiting { until: Now },
    /// `Start` was asked for.
    Asked,
    /// It runs and is not READY.
    Starting { since: Now },
    /// It is READY.
    Serving { since: Now, pinged: Now, test: Test },
    /// SIGKILL was sent; `told`: that it does not help.
    Killing { since: Now, told: bool },
    /// SIGTERM was sent, since the machine shall end.
    Stopping {
        since: Now,
        killed: bool,
        ending: Ending,
        why: String,
    },
    /// No process, and none will be started.
    Held { why: String },
    /// The machine ends.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Due { at: Now },
    Running,
    Passed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Supervisor {
    state: State,
    /// Of the boot: the slot is on trial and not blessed yet.
    trial: bool,
    back_off: Duration,
    /// Ends since it was last READY.
    ends: u32,
    /// Time of all READY processes of this boot together.
    served: Duration,
}

impl Supervisor {
    /// `trial`: the slot that runs is not blessed.
    pub(crate) fn new(trial: bool) -> Self {
        Self {
            state: State::Preparing,
            trial,
            back_off: BACK_OFF_FIRST,
            ends: 0,
            served: Duration::ZERO,
        }
    }

    /// Takes one fact at `now` and says what must happen next. Never waits, never fails.
    pub(crate) fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Prepared(outcome) => {
                if self.state == State::Preparing {
                    match outcome {
                        Ok(()) => self.state = State::Waiting { until: now },
                        Err(why) => self.hold(now, &why, out),
                    }
                }
            }
            Input::Started => {
                if self.state == State::Asked {
                    self.state = State::Starting { since: now };
                }
            }
            Input::NotStarted(why) => self.gone(now, &why, out),
            Input::Ready => self.ready(now, out),
            Input::Ping { meta_busy } => self.ping(now, meta_busy, out),
            Input::Exited(exit) => self.exited(now, exit, out),
            Input::Tested(outcome) => self.tested(now, outcome, out),
            Input::End(ending) => self.end(now, ending, "asked for", out),
        }
    }

    /// In a few words, for people.
    pub(crate) fn describe(&self) -> String {
        let trial = if self.trial { " (slot on trial)" } else { "" };
        let what = match &self.state {
            State::Preparing => "waits for site, network, clock and disks".to_owned(),
            State::Waiting { .. } if self.ends > 0 => {
                format!("ended {} times, starts again soon", self.ends)
            }
            State::Waiting { .. } | State::Asked => "starts".to_owned(),
            State::Starting { .. } => "started, not ready yet".to_owned(),
            State::Serving { .. } => "serves".to_owned(),
            State::Killing { .. } => "hung, was killed".to_owned(),
            State::Stopping { .. } => "stops".to_owned(),
            State::Held { why } => format!("not running: {why}"),
            State::Over => "the machine ends".to_owned(),
        };
        format!("{what}{trial}")
    }

    /// Whether the broker serves.
    pub(crate) const fn serves(&self) -> bool {
        matches!(self.state, State::Serving { .. })
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        let stopping = matches!(self.state, State::Stopping { .. } | State::Over);
        if self.trial && now > TRIAL_MAX && !stopping {
            self.give_up(now, "the trial was not blessed in its time", out);
            return;
        }
        match self.state.clone() {
            State::Waiting { until } if now >= until => {
                self.state = State::Asked;
                out.push(Effect::Start);
            }
            State::Starting { since } if now - since > START_MAX => {
                self.kill(now, "it was not ready in 15 minutes", out);
            }
            State::Serving { since, pinged, .. } if now - pinged > PING_MAX => {
                self.served += pinged - since;
                self.kill(now, "it gave no sign of life for 30 s", out);
            }
            State::Serving {
                since,
                pinged,
                test: Test::Due { at },
            } if now >= at => {
                self.state = State::Serving {
                    since,
                    pinged,
                    test: Test::Running,
                };
                out.push(Effect::SelfTest);
            }
            State::Killing { since, told: false } if now - since > KILL_MAX => {
                let why = "the broker was killed and is still there: a disk does not answer";
                self.reset(now, since, why, out);
            }
            State::Stopping {
                since,
                killed: false,
                ending,
                why,
            } if now - since > STOP_MAX => {
                out.push(Effect::Kill);
                self.state = State::Stopping {
                    since: now,
                    killed: true,
                    ending,
                    why,
                };
            }
            State::Stopping {
                since,
                killed: true,
                ..
            } if now - since > KILL_MAX => {
                self.state = State::Over;
                out.push(Effect::Reset(
                    "the broker can't be stopped: a disk does not answer".to_owned(),
                ));
            }
            _ => {}
        }
    }

    fn ready(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !matches!(self.state, State::Starting { .. }) {
            return;
        }
        self.ends = 0;
        let test = match self.trial {
            true => Test::Due { at: now + QUIET },
            false => Test::Passed,
        };
        self.state = State::Serving {
            since: now,
            pinged: now,
            test,
        };
        out.push(Effect::Say("the broker is ready".to_owned()));
    }

    fn ping(&mut self, now: Now, meta_busy: Duration, out: &mut Vec<Effect>) {
        let State::Serving { since, pinged, .. } = &mut self.state else {
            return;
        };
        *pinged = now;
        let since = *since;
        if self.served + (now - since) >= SERVED_MIN {
            self.back_off = BACK_OFF_FIRST;
        }
        if meta_busy >= META_STUCK && self.curable(now) {
            self.state = State::Over;
            out.push(Effect::Reset(format!(
                "a write to the meta disk has not returned for {} s",
                meta_busy.as_secs()
            )));
        }
    }

    fn exited(&mut self, now: Now, exit: Exit, out: &mut Vec<Effect>) {
        match self.state.clone() {
            State::Stopping { ending, why, .. } => {
                self.state = State::Over;
                out.push(Effect::End(ending, why));
            }
            State::Starting { .. }
            | State::Asked
            | State::Serving { .. }
            | State::Killing { .. } => {
                if let State::Serving { since, pinged, .. } = self.state {
                    self.served += pinged - since;
                }
                match exit {
                    Exit::Status(status::USAGE | status::REFUSED) => {
                        self.hold(now, &exit.to_string(), out)
                    }
                    _ => self.gone(now, &exit.to_string(), out),
                }
            }
            // An end that was told already.
            State::Preparing | State::Waiting { .. } | State::Held { .. } | State::Over => {}
        }
    }

    fn tested(&mut self, now: Now, outcome: Result<(), String>, out: &mut Vec<Effect>) {
        let State::Serving { test, .. } = &mut self.state else {
            return;
        };
        if *test != Test::Running {
            return;
        }
        match outcome {
            Ok(()) => {
                *test = Test::Passed;
                self.trial = false;
                out.push(Effect::Bless);
            }
            Err(why) => {
                *test = Test::Due {
                    at: now + TEST_AGAIN,
                };
                out.push(Effect::Say(format!("the self-test failed: {why}")));
            }
        }
    }

    fn end(&mut self, now: Now, ending: Ending, why: &str, out: &mut Vec<Effect>) {
        let why = why.to_owned();
        match self.state {
            State::Stopping { .. } | State::Over => {}
            State::Preparing | State::Waiting { .. } | State::Held { .. } => {
                self.state = State::Over;
                out.push(Effect::End(ending, why));
            }
            // An `Asked` process is told as well: it was started before this input was taken.
            State::Asked | State::Starting { .. } | State::Serving { .. } => {
                out.push(Effect::Terminate);
                self.state = State::Stopping {
                    since: now,
                    killed: false,
                    ending,
                    why,
                };
            }
            State::Killing { since, .. } => {
                self.state = State::Stopping {
                    since,
                    killed: true,
                    ending,
                    why,
                };
            }
        }
    }

    /// The process is gone and may come back.
    fn gone(&mut self, now: Now, why: &str, out: &mut Vec<Effect>) {
        self.ends += 1;
        self.state = State::Waiting {
            until: now + self.back_off,
        };
        if self.trial && self.ends >= TRIAL_ENDS_MAX {
            self.give_up(
                now,
                &format!("the broker ended {} times, last: {why}", self.ends),
                out,
            );
            return;
        }
        out.push(Effect::Say(format!(
            "the broker is gone: {why}; it starts again in {} s",
            self.back_off.as_secs()
        )));
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
    }

    /// The process is gone and would end the same way again.
    fn hold(&mut self, now: Now, why: &str, out: &mut Vec<Effect>) {
        self.state = State::Held {
            why: why.to_owned(),
        };
        if self.trial {
            // The release before may read what this one refuses.
            self.give_up(now, &format!("the broker does not start: {why}"), out);
            return;
        }
        out.push(Effect::Say(format!(
            "the broker does not start: {why}; it waits for a person"
        )));
    }

    /// A trial is over: the loader decides what comes next.
    fn give_up(&mut self, now: Now, why: &str, out: &mut Vec<Effect>) {
        out.push(Effect::Say(format!("the slot is not healthy: {why}")));
        self.end(now, Ending::Reboot, why, out);
    }

    fn kill(&mut self, now: Now, why: &str, out: &mut Vec<Effect>) {
        out.push(Effect::Say(format!("the broker is killed: {why}")));
        out.push(Effect::Kill);
        self.state = State::Killing {
            since: now,
            told: false,
        };
    }

    /// Whether a reset may help and can't become a loop.
    fn curable(&self, now: Now) -> bool {
        let here = match self.state {
            State::Serving { since, .. } => now - since,
            _ => Duration::ZERO,
        };
        self.trial || self.served + here >= SERVED_MIN
    }

    fn reset(&mut self, now: Now, since: Now, why: &str, out: &mut Vec<Effect>) {
        if self.curable(now) {
            self.state = State::Over;
            out.push(Effect::Reset(why.to_owned()));
        } else {
            out.push(Effect::Say(format!(
                "{why}; it has not served for 10 minutes in this boot, so a reset may not cure it"
            )));
            self.state = State::Killing { since, told: true };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "supervise/tests.rs"]
mod tests;
