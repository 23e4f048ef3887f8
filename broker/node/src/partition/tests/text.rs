//! The words of scenarios: facts out of `key=value`, effects and answers as one line each.

use core::fmt::Write as _;
use core::time::Duration;

use model::window::Claim;
use model::{Instant, LeaderEpoch, NodeId, Offset, ProducerEpoch, ProducerId, WallMs};

use super::{PART, Queued, SETTINGS, World, follower, member};
use crate::Ticket;
use crate::partition::{
    Acks, CommitTime, Effect, EpochStart, Fetch, Input, Isolation, ListOffsets, Listed, Member,
    OffsetSpec, Origin, Outcome, Produce, Recovered, Refusal, ReplicaFetch, Settings,
};
use crate::peer::IsrOutcome;

/// A command's words: `key=value`, or bare.
pub(super) struct Words<'a>(pub(super) Vec<&'a str>);

impl<'a> Words<'a> {
    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.value(key).map(|value| value.parse().unwrap())
    }

    pub(super) fn offset(&self, key: &str) -> Offset {
        Offset(self.number(key).unwrap_or_default())
    }

    fn epoch(&self, key: &str) -> Option<LeaderEpoch> {
        self.number(key)
            .map(|epoch| LeaderEpoch(i32::try_from(epoch).unwrap()))
    }

    fn members(&self, key: &str) -> Box<[Member]> {
        let list = self.value(key).into_iter().flat_map(|it| it.split(','));
        list.filter(|word| !word.is_empty()).map(member).collect()
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.number("ticket").unwrap_or_default().unsigned_abs())
    }

    pub(super) fn produce(&self) -> Produce {
        let last_delta = i32::try_from(self.number("count").unwrap_or(1) - 1).unwrap();
        let claim = self.value("pid").map(|word| {
            let (pid, epoch) = word.split_once(':').unwrap_or((word, "0"));
            Claim {
                pid: ProducerId(pid.parse().unwrap()),
                epoch: ProducerEpoch(epoch.parse().unwrap()),
                first_seq: i32::try_from(self.number("seq").unwrap_or_default()).unwrap(),
                last_delta,
            }
        });
        let flag = |word, bit| if self.has(word) { bit } else { 0 };
        Produce {
            ticket: self.ticket(),
            origin: match self.has("coordinator") {
                true => Origin::Coordinator,
                false => Origin::Client,
            },
            acks: match self.value("acks") {
                Some("0") => Acks::None,
                Some("all") => Acks::All,
                _ => Acks::Leader,
            },
            timeout: self
                .value("timeout")
                .map_or(Duration::from_secs(30), |word| time(word).since(Instant(0))),
            last_offset_delta: last_delta,
            bytes: u32::try_from(self.number("bytes").unwrap_or(100)).unwrap(),
            claim,
            max_ts: WallMs(self.number("ts").unwrap_or_default()),
            attributes: flag("transactional", 0x10) | flag("control", 0x20),
        }
    }

    /// A follower's question; what is not named is as in this log.
    fn replica(&self) -> ReplicaFetch {
        let fetch_off = self.offset("from");
        ReplicaFetch {
            member: member(self.0[0]),
            epoch: self.epoch("epoch").unwrap_or_default(),
            fetch_off,
            durable_off: self.number("durable").map_or(fetch_off, Offset),
            last_epoch: self.epoch("last").unwrap_or_default(),
            log_start: self.offset("log-start"),
        }
    }

    fn settings(&self, from: Settings) -> Settings {
        let min = |min: i64| u8::try_from(min).unwrap();
        Settings {
            min_insync: self.number("min").map_or(from.min_insync, min),
            refuse_when_full: from.refuse_when_full || self.has("refuse"),
            ..from
        }
    }

    fn isolation(&self) -> Isolation {
        match self.has("committed") {
            true => Isolation::Committed,
            false => Isolation::Uncommitted,
        }
    }
}

/// "10ms", "3s" or "5m" from the beginning.
fn time(word: &str) -> Instant {
    let split = word.find(|letter: char| !letter.is_ascii_digit()).unwrap();
    let (number, unit) = word.split_at(split);
    let number: u64 = number.parse().unwrap();
    let millis = match unit {
        "ms" => number,
        "s" => number * 1_000,
        "m" => number * 60_000,
        "h" => number * 3_600_000,
        _ => panic!("no unit {unit:?}"),
    };
    Instant(0) + Duration::from_millis(millis)
}

fn node(word: &str) -> Option<NodeId> {
    (word != "nobody").then(|| member(word).node)
}

/// A world whose disk holds what the words say: `end` alone is one batch up to there.
pub(super) fn site(words: &Words<'_>) -> World {
    let epochs = words
        .value("epochs")
        .into_iter()
        .flat_map(|it| it.split(','));
    let epochs: Vec<EpochStart> = epochs
        .map(|word| {
            let (epoch, start) = word.split_once('@').unwrap();
            EpochStart {
                epoch: LeaderEpoch(epoch.parse().unwrap()),
                start: Offset(start.parse().unwrap()),
            }
        })
        .collect();
    World::new(
        words.settings(SETTINGS),
        Recovered {
            log_start: words.offset("log-start"),
            end: words.offset("end"),
            high_watermark: words.offset("hw"),
            accepted_epoch: epochs.last().map_or(LeaderEpoch::NONE, |last| last.epoch),
            epochs,
        },
    )
}

/// Runs one line of a scenario; "at 10ms" before the command lets time pass.
pub(super) fn command(world: &mut World, line: Vec<&str>, said: &mut String) {
    let mut words = line.into_iter().peekable();
    if words.next_if_eq(&"at").is_some() {
        let effects = world.run_until(time(words.next().unwrap()));
        say(&effects, said);
    }
    let Some(verb) = words.next() else { return };
    let words = Words(words.collect());
    match answer(world, verb, &words) {
        Some(answer) => writeln!(said, "{answer}").unwrap(),
        None => say(&act(world, verb, &words), said),
    }
}

fn act(world: &mut World, verb: &str, words: &Words<'_>) -> Vec<Effect> {
    let epoch = words.epoch("epoch").unwrap_or_default();
    match verb {
        "lead" => {
            let isr = words.members("isr");
            world.lead(epoch, isr)
        }
        // Elected, the record flushed, and a lease of an hour if none is named.
        "leader" => {
            let until = time(words.value("lease").unwrap_or("1h"));
            let isr = words.members("isr");
            let mut effects = world.tell(Input::Lease { until });
            effects.extend(world.lead(epoch, isr));
            effects.extend(world.flush());
            effects
        }
        "follow" => {
            let leader = node(words.value("leader").unwrap_or("nobody"));
            let unclean = words.has("unclean");
            world.tell(Input::Follow {
                epoch,
                leader,
                unclean,
            })
        }
        "isr" => world.isr(words.members("committed")),
        // What the controller says to what was proposed for the row that is applied.
        "outcome" => {
            let part_ver = words.number("ver").map_or(world.part_ver, |it| it as u32);
            let outcome = match words.0[0] {
                "committed" => IsrOutcome::Committed { part_ver },
                "fenced" => IsrOutcome::Fenced,
                "stale" => IsrOutcome::Stale,
                "not-controller" => IsrOutcome::NotController,
                "refused" => IsrOutcome::Refused,
                "ineligible" => IsrOutcome::Ineligible {
                    node: member(words.value("node").unwrap()).node,
                },
                other => panic!("no outcome {other:?}"),
            };
            world.tell(Input::IsrOutcome {
                epoch,
                part_ver,
                outcome,
            })
        }
        "commit-times" => {
            let times = words.0.iter().map(|word| {
                let (name, time_) = word.split_once('=').unwrap();
                CommitTime {
                    disk: member(name).disk,
                    median: time(time_).since(Instant(0)),
                }
            });
            let times = times.collect();
            world.tell(Input::CommitTimes(times))
        }
        "hand-over" => world.tell(Input::HandOver {
            to: member(words.value("to").unwrap()).node,
        }),
        "budget" => world.tell(Input::CatchUpBudget {
            bytes: words.number("bytes").unwrap().unsigned_abs(),
        }),
        // Many in a row, each of one batch where the log ends.
        "answers" => follower::answers(world, words),
        // Whoever is in sync stays level while time passes.
        "level" => {
            world.level = true;
            Vec::new()
        }
        "answer" => follower::answer(world, words),
        "replica" => world.tell(Input::ReplicaFetch(words.replica())),
        "lease" => {
            let until = time(words.0[0]);
            world.tell(Input::Lease { until })
        }
        "produce" => world.produce(words.produce()),
        "flush" => match words.0.first() {
            Some(count) => (0..count.parse().unwrap())
                .flat_map(|_| world.flush_one())
                .collect(),
            None => world.flush(),
        },
        "ack" => {
            let report = world.report(member(words.0[0]), epoch, words.offset("durable"));
            world.tell(report)
        }
        "disk-failed" => world.disk_failed(),
        "disk-back" => {
            if let Some(end) = words.number("end") {
                world.disk.recovered.end = Offset(end);
            }
            if let Some(log_start) = words.number("log-start") {
                world.disk.recovered.log_start = Offset(log_start);
            }
            world.disk_back()
        }
        // The disk has no room for what is queued behind its flush, and then has.
        "no-room" => {
            world
                .disk
                .queue
                .retain(|queued| !matches!(queued, Queued::Append { .. }));
            world.tell(Input::DiskFailed)
        }
        "room" => {
            let held = world.machine.held();
            world.windows.truncate(PART, world.machine.durable());
            world.tell(Input::DiskBack(Box::new(held)))
        }
        // A report that was on its way when the disk failed.
        "late" => world.tell(match words.0[0] {
            "durable" => Input::Durable {
                end: words.offset("end"),
            },
            "log-start" => Input::LogStartDurable {
                offset: words.offset("offset"),
            },
            "epoch" => Input::EpochDurable { epoch },
            "truncated" => Input::Truncated {
                end: words.offset("end"),
            },
            "checkpoint" => Input::Checkpointed {
                mark: words.number("mark").unwrap() as u32,
            },
            other => panic!("no report {other:?}"),
        }),
        "restart" => {
            world.restart();
            Vec::new()
        }
        "retain" => world.tell(Input::Retain {
            offset: words.offset("offset"),
        }),
        "delete" => world.delete(words.ticket(), words.offset("offset")),
        "quota" => world.tell(Input::Quota {
            full: words.has("full"),
        }),
        "settings" => {
            world.settings = words.settings(world.settings);
            world.tell(Input::Settings(world.settings))
        }
        "tick" => world.tell(Input::Tick),
        other => panic!("no command {other:?}"),
    }
}

/// Questions change nothing and are answered at once.
fn answer(world: &World, verb: &str, words: &Words<'_>) -> Option<String> {
    let (machine, now) = (&world.machine, world.now);
    let current_leader_epoch = words.epoch("current");
    let text = match verb {
        "fetch" => {
            let ask = Fetch {
                offset: words.offset("offset"),
                current_leader_epoch,
                last_fetched_epoch: words.epoch("last"),
                isolation: words.isolation(),
            };
            machine.fetch(now, &ask).map(|bounds| {
                let diverging = bounds.diverging.map_or_else(String::new, |(epoch, end)| {
                    format!(" diverging={}@{}", epoch.0, end.0)
                });
                format!(
                    "to={} hw={} stable={} log-start={}{diverging}",
                    bounds.to.0, bounds.high_watermark.0, bounds.stable_end.0, bounds.log_start.0
                )
            })
        }
        "list" => {
            let ask = ListOffsets {
                spec: match words.0[0] {
                    "latest" => OffsetSpec::Latest,
                    "earliest" => OffsetSpec::Earliest,
                    _ => OffsetSpec::ByTime,
                },
                current_leader_epoch,
                isolation: words.isolation(),
            };
            machine.list_offsets(now, &ask).map(|listed| match listed {
                Listed::At { offset, epoch } => format!("{} epoch={}", offset.0, epoch.0),
                Listed::LookUp { from, to } => format!("look in {}..{}", from.0, to.0),
            })
        }
        "end-of" => {
            let epoch = LeaderEpoch(words.0[0].parse().unwrap());
            let end = machine.end_offset_for_epoch(now, current_leader_epoch, epoch);
            end.map(|end| match end {
                Some((epoch, end)) => format!("epoch={} end={}", epoch.0, end.0),
                None => "none".to_owned(),
            })
        }
        "producers" => machine.producers(now, &world.windows).map(|producers| {
            let text = |it: model::window::Producer| {
                format!("{}:{} seq={}", it.pid.0, it.epoch.0, it.last_seq)
            };
            producers.map(text).collect::<Vec<_>>().join(", ")
        }),
        "ask" => Ok(follower::ask_text(machine.ask(now))),
        "bounds" => machine.replica_bounds(&words.replica()).map(|bounds| {
            let diverging = bounds.diverging.map_or_else(String::new, |(epoch, end)| {
                format!(" diverging={}@{}", epoch.0, end.0)
            });
            format!(
                "{}..{} hw={} log-start={}{diverging}",
                bounds.from.0, bounds.to.0, bounds.high_watermark.0, bounds.log_start.0
            )
        }),
        "may-serve" => machine.may_serve(now).map(|()| "yes".to_owned()),
        "state" => Ok(format!(
            "log-start={} hw={} durable={} end={} epoch={}",
            machine.log_start.0,
            machine.high_watermark.0,
            machine.durable.0,
            machine.end.0,
            machine.epoch.0
        )),
        "deadline" => Ok(machine.deadline().map_or_else(
            || "none".to_owned(),
            |deadline| format!("{}ms", deadline.0 / 1_000_000),
        )),
        _ => return None,
    };
    Some(format!(
        "{verb}: {}",
        text.unwrap_or_else(|refusal| refusal_text(&refusal))
    ))
}

pub(super) fn say(effects: &[Effect], said: &mut String) {
    for effect in effects {
        writeln!(said, "{}", effect_text(effect)).unwrap();
    }
}

pub(super) fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Append {
            ticket,
            base_offset,
            leader_epoch,
            high_watermark,
        } => format!(
            "append ticket={} at={} epoch={} hw={}",
            ticket.0, base_offset.0, leader_epoch.0, high_watermark.0
        ),
        Effect::Epoch {
            epoch,
            start,
            unclean,
        } => {
            let start = start.map_or_else(String::new, |start| format!(" start={}", start.0));
            let unclean = if *unclean { " unclean" } else { "" };
            format!("epoch {}{start}{unclean}", epoch.0)
        }
        Effect::Copy {
            first,
            count,
            base_offset,
            leader_epoch,
            high_watermark,
            gap,
            journaled,
            ..
        } => format!(
            "copy {count} from {first} at={} epoch={} hw={}{}{}",
            base_offset.0,
            leader_epoch.0,
            high_watermark.0,
            if *gap { " gap" } else { "" },
            if *journaled { "" } else { " unjournaled" }
        ),
        Effect::Truncate { to } => format!("truncate {}", to.0),
        Effect::Checkpoint { mark } => format!("checkpoint {mark}"),
        Effect::AlterIsr {
            epoch,
            part_ver,
            isr,
        } => {
            let isr: Vec<String> = isr.iter().map(name).collect();
            format!(
                "alter-isr epoch={} ver={part_ver} {}",
                epoch.0,
                isr.join(",")
            )
        }
        Effect::SlowDisk { member, slow } => {
            let is = if *slow { "slow" } else { "slow no more" };
            format!("disk of {} is {is}", name(member))
        }
        Effect::CopyRefused { fault } => format!("copy refused: {fault:?}"),
        Effect::Level { to, epoch } => {
            format!("level with {} epoch={}", letter(*to), epoch.0)
        }
        Effect::LogStart { offset } => format!("log-start {}", offset.0),
        Effect::Park { ticket } => format!("park ticket={}", ticket.0),
        Effect::Reply { ticket, outcome } => {
            format!("reply ticket={} {}", ticket.0, outcome_text(outcome))
        }
        Effect::HighWatermark { high_watermark } => format!("hw {}", high_watermark.0),
        Effect::Leading { epoch } => format!("leading {}", epoch.0),
        Effect::Resigned => "resigned".to_owned(),
        Effect::Halted {
            end,
            high_watermark,
        } => format!("halted end={} hw={}", end.0, high_watermark.0),
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Stored {
            base_offset,
            log_start,
            timestamp,
        } => {
            let time = match timestamp {
                WallMs(0) => String::new(),
                time => format!(" ts={}", time.0),
            };
            format!(
                "stored at={} log-start={}{time}",
                base_offset.0, log_start.0
            )
        }
        Outcome::Deleted { log_start } => format!("deleted log-start={}", log_start.0),
        Outcome::Refused(refusal) => refusal_text(refusal),
    }
}

fn letter(node: NodeId) -> char {
    char::from(b'a' + u8::try_from(node.0 - 1).unwrap())
}

/// As [`member`] reads it.
fn name(member: &Member) -> String {
    let disk = u128::from_be_bytes(member.disk.0.0);
    let disk = match disk / 100 {
        0 | 1 => String::new(),
        disk => format!(".{disk}"),
    };
    format!("{}{disk}", letter(member.node))
}

/// Kafka's names, where there is one.
fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotLeader { leader, epoch } => {
            let leader = leader.map_or_else(|| "nobody".to_owned(), |it| letter(it).to_string());
            format!("NOT_LEADER_OR_FOLLOWER leader={leader} epoch={}", epoch.0)
        }
        Refusal::Park => "park".to_owned(),
        Refusal::DiskFailed => "KAFKA_STORAGE_ERROR disk".to_owned(),
        Refusal::QuotaFull => "KAFKA_STORAGE_ERROR quota".to_owned(),
        Refusal::TimedOut => "REQUEST_TIMED_OUT".to_owned(),
        Refusal::NotEnoughReplicas => "NOT_ENOUGH_REPLICAS".to_owned(),
        Refusal::NotEnoughReplicasAfterAppend => "NOT_ENOUGH_REPLICAS_AFTER_APPEND".to_owned(),
        Refusal::Crowded => "NOT_ENOUGH_REPLICAS crowded".to_owned(),
        Refusal::TooLarge => "MESSAGE_TOO_LARGE".to_owned(),
        Refusal::Transactional => "INVALID_TXN_STATE".to_owned(),
        Refusal::OutOfOrderSequence => "OUT_OF_ORDER_SEQUENCE_NUMBER".to_owned(),
        Refusal::InvalidProducerEpoch => "INVALID_PRODUCER_EPOCH".to_owned(),
        Refusal::OffsetOutOfRange {
            log_start,
            high_watermark,
        } => format!(
            "OFFSET_OUT_OF_RANGE log-start={} hw={}",
            log_start.0, high_watermark.0
        ),
        Refusal::OffsetNotAvailable => "OFFSET_NOT_AVAILABLE".to_owned(),
        Refusal::FencedLeaderEpoch => "FENCED_LEADER_EPOCH".to_owned(),
        Refusal::UnknownLeaderEpoch => "UNKNOWN_LEADER_EPOCH".to_owned(),
    }
}
