//! Scenarios of groups and their coordinator, as texts beside this file, and properties under random members.
//!
//! A scenario's commands are told to one coordinator over one partition's log, kept here; behind `----` stands what it
//! wants done. `HOWDAH_UPDATE=1` writes the expectations anew, for a person to read.
#![allow(clippy::unwrap_used)]

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::BTreeMap;

use model::{Instant, LeaderEpoch, Offset, Uuid, WallMs};

use super::*;
use crate::group::{
    Commit, CommittedOffset, FetchOffsets, Heartbeat, Join, Leave, Leaver, Protocol, Sync,
    TopicPartitionName,
};
use crate::offsets::records::{OffsetKey, OffsetValue};

mod formats;
mod limits;
mod properties;
mod text;
mod transitions;

use text::{Words, expand, record_text, reply_text, shorten, subscription, time};

/// All groups of the scenarios hash here: one partition is enough to tell.
const GROUP: &str = "g";

/// A coordinator, and the log of the one partition that it leads.
struct World {
    now: Instant,
    coordinator: Coordinator,
    log: Vec<Record>,
    /// Appends that have no place in the log yet.
    waiting: BTreeMap<AppendId, Vec<Record>>,
    epoch: LeaderEpoch,
    out: Outbox<Effect>,
    said: String,
    /// Names given to appends in the texts, counted from 1 in each world.
    appends: Vec<AppendId>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            now: Instant(0),
            coordinator: Coordinator::new(settings),
            log: Vec::new(),
            waiting: BTreeMap::new(),
            epoch: LeaderEpoch::NONE,
            out: Outbox::new(),
            said: String::new(),
            appends: Vec::new(),
        }
    }

    fn partition() -> u32 {
        partition_of(GROUP, GROUP_PARTITIONS)
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.coordinator.step(self.now, input, &mut self.out);
        let effects: Vec<Effect> = self.out.drain().collect();
        for effect in &effects {
            if let Effect::Append {
                append,
                epoch,
                records,
                ..
            } = effect
            {
                assert_eq!(*epoch, self.epoch, "a batch for another epoch");
                assert!(
                    !records.is_empty()
                        && records.iter().map(Record::bytes).sum::<usize>() <= APPEND_BYTES_MAX
                );
                self.waiting.insert(*append, records.clone());
                self.appends.push(*append);
            }
        }
        self.check_pools();
        effects
    }

    /// What the pools say is what is there: nothing leaks, nothing is given back twice.
    fn check_pools(&self) {
        if self.coordinator.stats().in_flight > 0 {
            return;
        }
        let costs = self
            .coordinator
            .shards
            .iter()
            .map(|shard| shard.groups.cost());
        let (members, offsets) = costs.fold((0, 0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1));
        let stats = self.coordinator.stats();
        assert_eq!(
            (stats.members_bytes, stats.offsets_bytes),
            (members, offsets)
        );
    }

    /// Gives an append its place in the log.
    fn place(&mut self, append: AppendId) -> Vec<Effect> {
        let records = self.waiting.remove(&append).unwrap();
        let base_offset = Offset(self.log.len() as i64);
        self.log.extend(records);
        self.tell(Input::Appended {
            partition: Self::partition(),
            append,
            base_offset,
        })
    }

    fn commit_all(&mut self) -> Vec<Effect> {
        let end = Offset(self.log.len() as i64);
        self.tell(Input::Committed {
            partition: Self::partition(),
            end,
        })
    }

    fn load(&mut self) -> Vec<Effect> {
        let (partition, epoch) = (Self::partition(), self.epoch);
        let mut effects = Vec::new();
        for (offset, record) in (0..).map(Offset).zip(self.log.clone()) {
            let Record { key, value } = record;
            effects.extend(self.tell(Input::Record {
                partition,
                epoch,
                offset,
                key,
                value,
            }));
        }
        effects.extend(self.tell(Input::Loaded { partition, epoch }));
        effects
    }

    fn ask(&mut self, ticket: u64, request: GroupRequest) -> Vec<Effect> {
        self.tell(Input::Request {
            ticket: Ticket(ticket),
            request: Box::new(request),
        })
    }

    /// Runs one line of a scenario.
    fn command(&mut self, line: &str) {
        let mut words = line.split_whitespace().peekable();
        if words.next_if_eq(&"at").is_some() {
            let at = self.run_until(time(words.next().unwrap()));
            self.now = at;
            self.due();
        }
        let Some(verb) = words.next() else { return };
        let words = Words(words.collect());
        let effects = self.act(verb, &words);
        self.say(effects);
        while self
            .coordinator
            .deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            self.due();
        }
    }

    /// Ticks whenever the coordinator asks for it on the way to `at`.
    fn run_until(&mut self, at: Instant) -> Instant {
        assert!(at >= self.now, "a scenario goes back in time");
        while let Some(deadline) = self
            .coordinator
            .deadline()
            .filter(|deadline| *deadline <= at)
        {
            self.now = self.now.max(deadline);
            for _ in 0..=3 * GROUP_PARTITIONS {
                self.due();
            }
            self.check_rest();
        }
        at
    }

    /// A shell that heeds the deadline must come to rest.
    fn check_rest(&self) {
        let again = self
            .coordinator
            .deadline()
            .filter(|again| *again <= self.now);
        assert!(again.is_none(), "due again and again: the shell would spin");
    }

    fn due(&mut self) {
        let effects = self.tell(Input::Tick);
        self.say(effects);
    }

    fn act(&mut self, verb: &str, words: &Words<'_>) -> Vec<Effect> {
        let partition = Self::partition();
        let ticket = words.number("ticket").unwrap_or_default();
        let group = GROUP.to_owned();
        match verb {
            "tick" => self.tell(Input::Tick),
            "lease" => self.tell(Input::Lease {
                until: time(words.0[0]),
            }),
            "clock" => {
                let trusted = words.0[0].parse().ok().map(WallMs);
                self.tell(Input::Clock { trusted })
            }
            "elect" => {
                self.epoch = LeaderEpoch(i32::try_from(words.number("epoch").unwrap()).unwrap());
                // What had no place in the log when the leader changed never gets one.
                self.waiting.clear();
                self.tell(Input::Elected {
                    partition,
                    epoch: self.epoch,
                })
            }
            "load" => self.load(),
            "resign" => self.tell(Input::Resigned { partition }),
            "place" => {
                let waiting: Vec<AppendId> = self.waiting.keys().copied().collect();
                waiting
                    .into_iter()
                    .flat_map(|append| self.place(append))
                    .collect()
            }
            "commit-log" => self.commit_all(),
            "store" => {
                let waiting: Vec<AppendId> = self.waiting.keys().copied().collect();
                let mut effects: Vec<Effect> = waiting
                    .into_iter()
                    .flat_map(|append| self.place(append))
                    .collect();
                effects.extend(self.commit_all());
                effects
            }
            "fail" => {
                let append = self.appends[words.0[0].parse::<usize>().unwrap() - 1];
                let failure = match words.0[1] {
                    "not-leader" => AppendFailure::NotLeader,
                    _ => AppendFailure::Unavailable,
                };
                self.waiting.remove(&append);
                self.tell(Input::AppendFailed {
                    partition,
                    append,
                    failure,
                })
            }
            "delete-topic" => self.tell(Input::TopicDeleted {
                topic: words.0[0].to_owned(),
            }),
            "join" => self.ask(ticket, GroupRequest::Join(words.join(ticket))),
            "sync" => self.ask(
                ticket,
                GroupRequest::Sync(Sync {
                    group,
                    generation: words.generation(),
                    member: words.member(),
                    instance: words.text("instance"),
                    protocol_type: words.text("type"),
                    protocol: words.text("protocol"),
                    assignments: words
                        .pairs("assign")
                        .map(|(id, bytes)| (expand(id), bytes.as_bytes().to_vec()))
                        .collect(),
                }),
            ),
            "beat" => self.ask(
                ticket,
                GroupRequest::Heartbeat(Heartbeat {
                    group,
                    generation: words.generation(),
                    member: words.member(),
                    instance: words.text("instance"),
                }),
            ),
            "leave" => {
                let ids = words.list("members").map(|id| Leaver {
                    member: expand(id),
                    instance: None,
                });
                let statics = words.pairs("static").map(|(id, instance)| Leaver {
                    member: expand(id),
                    instance: Some(instance.to_owned()),
                });
                let members = ids.chain(statics).collect();
                self.ask(ticket, GroupRequest::Leave(Leave { group, members }))
            }
            "commit" => self.ask(ticket, GroupRequest::Commit(words.commit())),
            "fetch" => self.ask(
                ticket,
                GroupRequest::FetchOffsets(FetchOffsets {
                    group,
                    partitions: words.partitions(),
                    require_stable: false,
                }),
            ),
            "describe" => self.ask(ticket, GroupRequest::Describe { group }),
            "list" => {
                let list = List {
                    states: words.list("states").map(str::to_owned).collect(),
                    types: words.list("types").map(str::to_owned).collect(),
                };
                self.ask(ticket, GroupRequest::List(list))
            }
            "delete" => self.ask(ticket, GroupRequest::Delete { group }),
            "delete-offsets" => {
                let partitions = words.partitions().unwrap();
                self.ask(ticket, GroupRequest::DeleteOffsets { group, partitions })
            }
            "elsewhere" => self.ask(
                ticket,
                GroupRequest::Describe {
                    group: "other".to_owned(),
                },
            ),
            other => panic!("no command {other:?}"),
        }
    }

    fn say(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append {
                    append, records, ..
                } => {
                    let name = self
                        .appends
                        .iter()
                        .position(|known| *known == append)
                        .unwrap()
                        + 1;
                    writeln!(self.said, "append {name}").unwrap();
                    for record in &records {
                        writeln!(self.said, "  {}", shorten(&record_text(record))).unwrap();
                    }
                }
                Effect::Reply { ticket, reply } => {
                    writeln!(
                        self.said,
                        "reply {} {}",
                        ticket.0,
                        shorten(&reply_text(&reply))
                    )
                    .unwrap();
                }
            }
        }
    }
}

/// Runs a file of scenarios. Steps are divided by `====`; one whose first command is `site` begins a new world.
fn run(name: &str) {
    let path = format!(
        "{}/src/coordinator/tests/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap();
    let mut world = World::new(Settings::default());
    let mut anew = Vec::new();
    for step in text.split("\n====\n") {
        let (commands, expected) = step
            .split_once("\n----\n")
            .unwrap_or((step.trim_end_matches("\n----"), ""));
        for line in commands
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            match line.strip_prefix("site") {
                Some(rest) => {
                    let said = core::mem::take(&mut world.said);
                    world = site(&Words(rest.split_whitespace().collect()));
                    world.said.insert_str(0, &said);
                }
                None => world.command(line),
            }
        }
        let said = core::mem::take(&mut world.said);
        if std::env::var_os("HOWDAH_UPDATE").is_none() {
            assert_eq!(
                said.trim_end(),
                expected.trim_end(),
                "{name}.txt, after\n{commands}"
            );
        }
        anew.push(format!("{}\n----\n{}", commands.trim_end(), said));
    }
    if std::env::var_os("HOWDAH_UPDATE").is_some() {
        std::fs::write(&path, anew.join("====\n")).unwrap();
    }
}

/// A coordinator in office over an empty log, with a lease of an hour.
fn site(words: &Words<'_>) -> World {
    let mut settings = Settings {
        join_delay: Duration::from_millis(0),
        ..Settings::default()
    };
    if let Some(delay) = words.value("delay") {
        settings.join_delay = time(delay).since(Instant(0));
    }
    if let Some(max) = words.number("members") {
        settings.members_max = usize::try_from(max).unwrap();
    }
    if let Some(retention) = words.value("retention") {
        settings.offsets_retention = time(retention).since(Instant(0));
    }
    let mut world = World::new(settings);
    if words.0.contains(&"bare") {
        return world;
    }
    world.command("lease 1h");
    world.command("elect epoch=1");
    world.command("load");
    world
}

macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+
    };
}

scenarios! { join, sync, sessions, leave, fixed, commit, offsets, deletion, expiry, office, lease, failure, bounds }
