//! Scenarios of the site log as texts beside this file, and what must hold under any order of facts.
#![allow(clippy::unwrap_used)]

use core::fmt::Write as _;

use model::Uuid;

use super::*;

use crate::scenario::{self, Words};

mod beats;
mod broken;
mod bytes;
mod cluster;
mod explore;
mod peers;
mod transitions;

struct World {
    now: Instant,
    log: SiteLog,
}

fn alone() -> Settings {
    Settings::alone(NodeId(1), Incarnation(Uuid([1; 16])))
}

fn time(word: &str) -> Instant {
    let number: u64 = word.strip_suffix('s').expect("seconds").parse().unwrap();
    Instant(0) + Duration::from_secs(number)
}

impl scenario::World for World {
    fn site(words: &Words<'_>) -> Self {
        let (last, snapshot_term) = words.value("snapshot").map_or((0, 0), |at| {
            at.split_once(':')
                .map(|(i, t)| (i.parse().unwrap(), t.parse().unwrap()))
                .unwrap()
        });
        let entries = (last + 1..)
            .zip(words.list("terms"))
            .map(|(index, term)| LogEntry {
                index: Index(index),
                term: Term(term.parse().unwrap()),
                bytes: format!("old{index}").into_bytes(),
            })
            .collect();
        let term = words.number("term").unwrap_or_default();
        let voted_for = (term > 0).then_some(NodeId(1));
        Self {
            now: Instant(0),
            log: SiteLog::new(
                alone(),
                Recovered {
                    hard_state: HardState {
                        term: Term(term),
                        voted_for,
                    },
                    snapshot: (Index(last), Term(snapshot_term)),
                    voters: None,
                    entries,
                },
            ),
        }
    }

    fn command(&mut self, verb: &str, words: &Words<'_>) -> String {
        let number = || words.first().parse().unwrap();
        let mut said = String::new();
        match verb {
            "at" => {
                self.now = time(words.first());
                return said;
            }
            "start" => self.tell(Input::Start, &mut said),
            "hard-state-durable" => self.tell(
                Input::HardStateDurable {
                    term: Term(number()),
                },
                &mut said,
            ),
            "durable" => {
                self.tell(
                    Input::Durable {
                        index: Index(number()),
                    },
                    &mut said,
                );
                if words.has("counted") {
                    said = format!(
                        "{} effects
",
                        said.lines().count()
                    );
                }
            }
            "snapshot-durable" => self.tell(
                Input::SnapshotDurable {
                    index: Index(number()),
                },
                &mut said,
            ),
            "slept" => self.tell(Input::Slept, &mut said),
            "tick" => self.tell(Input::Tick, &mut said),
            "propose" => {
                let ticket = Ticket(words.number("ticket").unwrap());
                let bytes = match words.number("zeros") {
                    Some(zeros) => vec![0; zeros],
                    None => words.first().as_bytes().to_vec(),
                };
                self.tell(Input::Propose { ticket, bytes }, &mut said);
            }
            // Many proposals, each durable at once; says only what is out of the ordinary.
            "fill" => {
                for ticket in 0..words.number("count").unwrap() {
                    let bytes = vec![0; words.number("zeros").unwrap()];
                    let mut all = String::new();
                    self.tell(
                        Input::Propose {
                            ticket: Ticket(ticket),
                            bytes,
                        },
                        &mut all,
                    );
                    if !words.has("queued") {
                        self.tell(
                            Input::Durable {
                                index: self.log.log.last().0,
                            },
                            &mut all,
                        );
                    }
                    let odd = all
                        .lines()
                        .filter(|line| !line.starts_with("append") && !line.starts_with("apply"));
                    odd.for_each(|line| writeln!(said, "{line}").unwrap());
                }
            }
            "deadline" => {
                let deadline = self.log.deadline().map(|at| at.since(Instant(0)).as_secs());
                writeln!(said, "deadline {deadline:?}").unwrap();
            }
            other => panic!("no command {other:?}"),
        }
        said
    }
}

impl World {
    fn tell(&mut self, input: Input, said: &mut String) {
        let mut out = Outbox::new();
        self.log.step(self.now, input, &mut out);
        for effect in out.drain() {
            writeln!(said, "{}", text(&effect)).unwrap();
        }
    }
}

/// TERM entries as such, other bytes as they stand if they are short.
fn bytes_text(bytes: &[u8]) -> String {
    match Record::decode(bytes) {
        Ok(Record {
            entry: Some(Entry::Term),
            ..
        }) => "TERM".to_owned(),
        _ if bytes.len() > 16 => format!("{} B", bytes.len()),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn text(effect: &Effect) -> String {
    match effect {
        Effect::HardState(state) => {
            format!(
                "hard-state term={} vote={:?}",
                state.term.0,
                state.voted_for.map(|node| node.0)
            )
        }
        Effect::Append(entry) => {
            format!(
                "append {} term={} {}",
                entry.index.0,
                entry.term.0,
                bytes_text(&entry.bytes)
            )
        }
        Effect::Apply {
            index,
            term,
            bytes,
            ticket,
        } => {
            let ticket = ticket.map_or_else(String::new, |ticket| format!(" ticket={}", ticket.0));
            format!(
                "apply {} term={} {}{ticket}",
                index.0,
                term.0,
                bytes_text(bytes)
            )
        }
        Effect::Refuse { ticket, refusal } => format!("refuse ticket={} {refusal:?}", ticket.0),
        Effect::Snapshot { index, term } => format!("snapshot {} term={}", index.0, term.0),
        Effect::Controller { term, .. } => format!("controller term={}", term.0),
        Effect::LeaseUntil { until } => {
            format!("lease until {} s", until.since(Instant(0)).as_secs())
        }
        other => panic!("not in a site of one: {other:?}"),
    }
}

macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            scenario::run::<World>(concat!("sitelog/tests/", stringify!($name), ".txt"));
        })+
    };
}

scenarios! { office, entries, snapshots, lease }

macro_rules! peers {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            scenario::run::<peers::World>(concat!("sitelog/tests/", stringify!($name), ".txt"));
        })+
    };
}

peers! { votes, replication, offices, changes, founding, witness, promotion, pieces }

/// A disk that makes things durable late and in pieces, and loses what was not, at a cut.
#[test]
fn what_was_answered_is_applied_again_in_every_later_life() {
    let seed: u64 = std::env::var("HOWDAH_SEED").map_or(0x005e_ed10, |seed| seed.parse().unwrap());
    println!("HOWDAH_SEED={seed}");
    let mut random = seed;
    let mut draw = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    // On the medium; and all that was applied with a ticket, by index.
    let mut disk = Recovered::default();
    let mut answered: Vec<(Index, Term, Vec<u8>)> = Vec::new();
    let mut terms = Vec::new();
    for _ in 0..60 {
        let mut log = SiteLog::new(alone(), disk.clone());
        let mut queue: VecDeque<Effect> = VecDeque::new();
        let mut applied = disk.snapshot.0;
        let mut inputs = VecDeque::from([Input::Start]);
        for ticket in 0..draw(3_000) {
            let input = match inputs.pop_front() {
                Some(input) => input,
                None if draw(2) == 0 => {
                    let bytes = vec![7; usize::try_from(draw(4_000)).unwrap()];
                    Input::Propose {
                        ticket: Ticket(ticket),
                        bytes,
                    }
                }
                // The disk finishes some of what is queued.
                None => {
                    for _ in 0..draw(5) {
                        match queue.pop_front() {
                            Some(Effect::HardState(state)) => {
                                disk.hard_state = state;
                                inputs.push_back(Input::HardStateDurable { term: state.term });
                            }
                            Some(Effect::Append(entry)) => {
                                let index = entry.index;
                                disk.entries.push(entry);
                                inputs.push_back(Input::Durable { index });
                            }
                            Some(Effect::Snapshot { index, term }) => {
                                disk.snapshot = (index, term);
                                disk.entries.retain(|entry| entry.index > index);
                                inputs.push_back(Input::SnapshotDurable { index });
                            }
                            _ => {}
                        }
                    }
                    Input::Tick
                }
            };
            let mut out = Outbox::new();
            log.step(Instant(ticket), input, &mut out);
            for effect in out.drain() {
                match effect {
                    Effect::Apply {
                        index,
                        term,
                        bytes,
                        ticket,
                    } => {
                        assert_eq!(index.0, applied.0 + 1, "each index once, in order");
                        applied = index;
                        let old = answered.iter().find(|(known, ..)| *known == index);
                        match old {
                            Some((_, was, then)) => assert_eq!(
                                (was, then),
                                (&term, &bytes),
                                "a committed entry changed"
                            ),
                            None => answered.push((index, term, bytes)),
                        }
                        if ticket.is_some() {
                            assert!(
                                disk.snapshot.0 >= index
                                    || disk.entries.iter().any(|entry| entry.index == index),
                                "answered before it was durable"
                            );
                        }
                    }
                    Effect::Controller { term, .. } => {
                        assert!(
                            disk.hard_state.term == term,
                            "in office before the vote was durable"
                        );
                        assert!(!terms.contains(&term), "two offices in one term");
                        terms.push(term);
                        assert!(
                            applied
                                >= answered
                                    .iter()
                                    .map(|(index, ..)| *index)
                                    .max()
                                    .unwrap_or_default()
                        );
                    }
                    other => queue.push_back(other),
                }
            }
        }
        assert!(
            log.log.entries.len() <= SNAPSHOT_SLACK * LOG_ENTRIES_MAX,
            "the log grows without bound"
        );
    }
    assert!(
        terms.len() > 30 && disk.snapshot.0.0 > 1_000,
        "the lives were too short to show anything"
    );
}
