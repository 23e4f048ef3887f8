//! The transition table of the boot record: every state that can be, at everything that can happen to it.
//!
//! `UPDATE=1 cargo test -p slots` writes what is decided now; read the difference before it is committed.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use slots::{BootState, Install, Slot, Start};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transitions.txt");
const ON_TRIAL: [u8; 32] = [1; 32];

/// Every state with at most two tries. A trial of the active slot can't be installed.
fn states() -> Vec<BootState> {
    let mut states = Vec::new();
    for active in Slot::ALL {
        for trial in [None, Some(active.other())] {
            for tries in if trial.is_some() { 0..=2 } else { 0..=0 } {
                for failed in 0..=3 {
                    states.push(BootState {
                        seq: 7,
                        active,
                        trial,
                        tries,
                        failed,
                        trial_sha256: if trial.is_some() { ON_TRIAL } else { [0; 32] },
                        ..BootState::default()
                    });
                }
            }
        }
    }
    states
}

fn show(state: &BootState) -> String {
    let failed: String = Slot::ALL
        .iter()
        .filter(|slot| state.has_failed(**slot))
        .map(ToString::to_string)
        .collect();
    let trial = state
        .trial
        .map_or("-".to_owned(), |slot| format!("{slot}{}", state.tries));
    let kept = if state.failed_sha256 == ON_TRIAL {
        " hash-kept"
    } else {
        ""
    };
    format!("{} {trial:2} failed={failed:2}{kept}", state.active)
}

fn show_start(start: Start, next: Option<&BootState>) -> String {
    let how = if start.trial {
        format!("trial, {} left", start.tries)
    } else {
        "active".to_owned()
    };
    let write = next.map_or("-".to_owned(), show);
    format!("start {} ({how}); write {write}", start.slot)
}

#[test]
fn every_transition_is_the_one_in_the_table() {
    let mut table = String::from(
        "# active, trial with its tries, failed slots; then what happens, and what is done.\n",
    );
    for state in states() {
        writeln!(table, "{}", show(&state).trim_end()).unwrap();
        let (start, next) = state.start();
        writeln!(
            table,
            "  start         {}",
            show_start(start, next.as_ref())
        )
        .unwrap();
        for slot in Slot::ALL {
            let (start, next) = state.unloadable(slot);
            writeln!(
                table,
                "  unloadable {slot}  {}",
                show_start(start, Some(&next))
            )
            .unwrap();
        }
        for slot in Slot::ALL {
            let next = state.bless(slot);
            writeln!(
                table,
                "  bless {slot}       {}",
                next.map_or("-".to_owned(), |next| show(&next))
            )
            .unwrap();
        }
        let install = Install {
            slot: state.active.other(),
            sha256: [2; 32],
            tries: 2,
            again: false,
        };
        let next = state.install(install).unwrap();
        writeln!(table, "  install {}     {}", install.slot, show(&next)).unwrap();
    }
    let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    let table = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(TABLE, &table).unwrap();
    }
    let expected = std::fs::read_to_string(TABLE).unwrap();
    assert!(
        expected == table,
        "the table has changed; now it is\n{table}"
    );
}

/// Plays starts with a slot's fault until a blessing or `starts` of them. Returns the slots started, each once a load
/// was tried.
fn play(
    mut state: BootState,
    starts: usize,
    loads: impl Fn(Slot) -> bool,
    healthy: impl Fn(Slot) -> bool,
) -> (Vec<Slot>, BootState) {
    let mut ran = Vec::new();
    for _ in 0..starts {
        let (mut start, next) = state.start();
        state = next.unwrap_or(state);
        if !loads(start.slot) {
            let (other, next) = state.unloadable(start.slot);
            state = next;
            start = other;
            if !loads(start.slot) {
                continue;
            }
        }
        ran.push(start.slot);
        if healthy(start.slot) {
            state = state.bless(start.slot).unwrap_or(state);
        }
    }
    (ran, state)
}

fn with_trial(tries: u8) -> BootState {
    let install = Install {
        slot: Slot::B,
        sha256: ON_TRIAL,
        tries,
        again: false,
    };
    BootState::default().install(install).unwrap()
}

#[test]
fn a_trial_that_is_never_healthy_costs_its_tries_and_no_more() {
    let (ran, state) = play(with_trial(2), 5, |_| true, |slot| slot == Slot::A);
    assert_eq!(ran, [Slot::B, Slot::B, Slot::A, Slot::A, Slot::A]);
    assert_eq!(
        (state.active, state.trial, state.failed_sha256),
        (Slot::A, None, ON_TRIAL)
    );
    assert!(state.has_failed(Slot::B));
}

#[test]
fn a_trial_that_does_not_load_costs_none() {
    let (ran, state) = play(with_trial(2), 2, |slot| slot == Slot::A, |_| true);
    assert_eq!(ran, [Slot::A, Slot::A]);
    assert_eq!(state.failed_sha256, ON_TRIAL);
}

#[test]
fn a_healthy_trial_becomes_the_active_slot() {
    let (ran, state) = play(with_trial(2), 3, |_| true, |_| true);
    assert_eq!(ran, [Slot::B, Slot::B, Slot::B]);
    assert_eq!(
        (state.active, state.trial, state.tries, state.failed),
        (Slot::B, None, 0, 0)
    );
}

#[test]
fn an_active_slot_that_rots_gives_way_and_the_other_one_is_blessed() {
    let (ran, state) = play(BootState::default(), 2, |slot| slot == Slot::B, |_| true);
    assert_eq!(ran, [Slot::B, Slot::B]);
    assert_eq!(state.active, Slot::B);
    assert!(state.has_failed(Slot::A));
}

#[test]
fn with_neither_slot_nothing_is_started_and_nothing_is_lost() {
    let (ran, state) = play(BootState::default(), 3, |_| false, |_| true);
    assert_eq!(ran, []);
    // The reader's fault passes: the active slot runs again.
    let (ran, _) = play(state, 1, |_| true, |_| true);
    assert_eq!(ran, [Slot::A]);
}

#[test]
fn a_payload_that_failed_is_refused_until_a_person_says_so() {
    let (_, state) = play(with_trial(1), 3, |_| true, |slot| slot == Slot::A);
    let again = Install {
        slot: Slot::B,
        sha256: ON_TRIAL,
        tries: 2,
        again: false,
    };
    assert_eq!(state.install(again), Err(slots::Refused::FailedBefore));
    assert!(
        state
            .install(Install {
                again: true,
                ..again
            })
            .is_ok()
    );
    assert!(
        state
            .install(Install {
                sha256: [9; 32],
                ..again
            })
            .is_ok()
    );
    assert_eq!(
        state.install(Install {
            slot: Slot::A,
            ..again
        }),
        Err(slots::Refused::Active)
    );
    assert_eq!(
        state.install(Install {
            tries: 0,
            again: true,
            ..again
        }),
        Err(slots::Refused::NoTries)
    );
}
