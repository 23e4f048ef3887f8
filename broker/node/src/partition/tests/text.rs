//! The words of scenarios: facts out of `key=value`, effects and answers as one line each.

use core::fmt::Write as _;
use core::time::Duration;

use model::window::Claim;
use model::{Instant, LeaderEpoch, NodeId, Offset, ProducerEpoch, ProducerId, WallMs};

use super::{PART, Queued, SETTINGS, World, member};
use crate::Ticket;
use crate::partition::{
    Acks, Effect, EpochStart, Fetch, Input, Isolation, ListOffsets, Listed, Member, OffsetSpec,
    Origin, Outcome, Produce, Recovered, Refusal, Settings,
};

/// A command's words: `key=value`, or bare.
pub(super) struct Words<'a>(pub(super) Vec<&'a str>);

impl<'a> Words<'a> {
    fn value(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.value(key).map(|value| value.parse().unwrap())
    }

    fn offset(&self, key: &str) -> Offset {
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
            world.tell(Input::Lead { epoch, isr })
        }
        // Elected, the record flushed, and a lease of an hour if none is named.
        "leader" => {
            let until = time(words.value("lease").unwrap_or("1h"));
            let isr = words.members("isr");
            let mut effects = world.tell(Input::Lease { until });
            effects.extend(world.tell(Input::Lead { epoch, isr }));
            effects.extend(world.flush());
            effects
        }
        "follow" => {
            let leader = node(words.value("leader").unwrap_or("nobody"));
            world.tell(Input::Follow { epoch, leader })
        }
        "isr" => {
            let (committed, joining) = (words.members("committed"), words.members("joining"));
            world.tell(Input::Isr { committed, joining })
        }
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
        "ack" => world.tell(Input::Acked {
            member: member(words.0[0]),
            epoch,
            durable: words.offset("durable"),
        }),
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
        Effect::Epoch { epoch, start } => match start {
            Some(start) => format!("epoch {} start={}", epoch.0, start.0),
            None => format!("epoch {}", epoch.0),
        },
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

/// Kafka's names, where there is one.
fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotLeader { leader, epoch } => {
            let letter = |node: NodeId| char::from(b'a' + u8::try_from(node.0 - 1).unwrap());
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
