//! Scenarios of one partition, as texts beside this file, its transition table, and properties under random faults.
//!
//! A scenario's commands are told to one machine over one disk, kept here; behind `----` stands what the machine wants
//! done. `HOWDAH_UPDATE=1` writes the expectations anew, for a person to read.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use model::window::{Claim, Fact};
use model::{DiskUuid, Incarnation, Uuid};

use super::*;
use crate::scenario;

mod bounds;
mod broken;
mod epochs;
mod follower;
mod properties;
mod site;
mod text;
mod transitions;

pub(crate) use properties::Random;
use text::Words;

/// Who a scenario's letters are: `a` is this replica, `b` another, `b.2` the same node on a second disk.
fn member(word: &str) -> Member {
    let (name, disk) = word.split_once('.').unwrap_or((word, "1"));
    let node = u32::from(name.as_bytes()[0] - b'a') + 1;
    let uuid = |number: u32| Uuid(u128::from(number).to_be_bytes());
    Member {
        node: NodeId(node),
        incarnation: Incarnation(uuid(node)),
        // Of each node its own.
        disk: DiskUuid(uuid(100 * disk.parse::<u32>().unwrap() + node)),
    }
}

/// What stands in the disk's queue.
#[derive(Clone, Debug)]
enum Queued {
    Append {
        produce: Produce,
        base_offset: Offset,
        high_watermark: Offset,
    },
    Epoch {
        epoch: LeaderEpoch,
        start: Option<Offset>,
    },
    LogStart {
        offset: Offset,
    },
    Copy {
        batches: Vec<CopiedBatch>,
        high_watermark: Offset,
        journaled: bool,
    },
    Truncate {
        to: Offset,
    },
    Checkpoint {
        mark: u32,
    },
}

/// A batch on the disk.
#[derive(Clone, Copy, Debug)]
struct Stored {
    base_offset: Offset,
    produce: Produce,
}

impl Stored {
    fn end(&self) -> Offset {
        self.base_offset
            .plus(i64::from(self.produce.last_offset_delta) + 1)
    }
}

/// A disk as the store would recover it: all that was flushed, nothing else.
#[derive(Debug)]
struct Disk {
    queue: VecDeque<Queued>,
    log: Vec<Stored>,
    /// Written, but not in the journal: a checkpoint moves it into the log.
    extents: Vec<CopiedBatch>,
    recovered: Recovered,
}

impl Disk {
    fn windows(&self) -> Windows {
        let mut windows = Windows::default();
        for stored in &self.log {
            if let Some(claim) = stored.produce.claim {
                windows.feed(PART, &fact(stored.base_offset, claim, &stored.produce));
            }
        }
        windows.advance(PART, self.recovered.high_watermark);
        windows
    }

    /// A copied batch is in the log.
    fn hold(&mut self, batch: &CopiedBatch) {
        let recovered = &mut self.recovered;
        assert!(batch.base_offset >= recovered.end, "a copy overlaps");
        let newest = recovered.epochs.last().map(|row| row.epoch);
        assert!(
            newest.is_none_or(|newest| batch.leader_epoch >= newest),
            "an epoch goes back"
        );
        if newest != Some(batch.leader_epoch) {
            recovered.epochs.retain(|row| row.start < batch.base_offset);
            recovered.epochs.push(EpochStart {
                epoch: batch.leader_epoch,
                start: batch.base_offset,
            });
        }
        recovered.end = batch.end();
        self.log.push(Stored {
            base_offset: batch.base_offset,
            produce: Produce {
                origin: Origin::Replica,
                last_offset_delta: batch.last_offset_delta,
                claim: batch.fact.map(|fact| fact.claim),
                ..Words(Vec::new()).produce()
            },
        });
    }

    /// The first thing in the queue is flushed; what the machine is told of it.
    fn flush_one(&mut self) -> Option<Input> {
        let recovered = &mut self.recovered;
        Some(match self.queue.pop_front()? {
            Queued::Append {
                produce,
                base_offset,
                high_watermark,
            } => {
                let stored = Stored {
                    base_offset,
                    produce,
                };
                assert_eq!(base_offset, recovered.end, "an append leaves a gap");
                recovered.end = stored.end();
                recovered.high_watermark = recovered.high_watermark.max(high_watermark);
                self.log.push(stored);
                Input::Durable { end: recovered.end }
            }
            Queued::Epoch { epoch, start } => {
                assert!(epoch > recovered.accepted_epoch, "an epoch goes back");
                recovered.accepted_epoch = epoch;
                if let Some(start) = start {
                    assert_eq!(start, recovered.end, "an epoch starts elsewhere");
                    recovered.epochs.push(EpochStart { epoch, start });
                }
                Input::EpochDurable { epoch }
            }
            Queued::LogStart { offset } => {
                assert!(offset > recovered.log_start, "a log start goes back");
                recovered.log_start = offset;
                if offset > recovered.end {
                    self.log.clear();
                    recovered.end = offset;
                    recovered.high_watermark = recovered.high_watermark.max(offset);
                }
                Input::LogStartDurable { offset }
            }
            Queued::Copy {
                batches,
                high_watermark,
                journaled: true,
            } => {
                assert!(self.extents.is_empty(), "a hole in the journal (H38)");
                batches.iter().for_each(|batch| self.hold(batch));
                let recovered = &mut self.recovered;
                recovered.high_watermark = recovered.high_watermark.max(high_watermark);
                Input::Durable { end: recovered.end }
            }
            Queued::Copy {
                batches,
                journaled: false,
                ..
            } => {
                self.extents.extend(batches);
                return None;
            }
            Queued::Truncate { to } => {
                assert!(
                    self.extents.is_empty() || to <= recovered.end,
                    "the journal does not know what is cut"
                );
                self.extents.clear();
                self.log.retain(|stored| stored.end() <= to);
                recovered.end = recovered.end.min(to);
                recovered.high_watermark = recovered.high_watermark.min(to);
                recovered.epochs.retain(|row| row.start < to);
                Input::Truncated { end: recovered.end }
            }
            Queued::Checkpoint { mark } => {
                for batch in std::mem::take(&mut self.extents) {
                    self.hold(&batch);
                }
                Input::Checkpointed { mark }
            }
        })
    }
}

const PART: PartIx = PartIx(0);

fn fact(base_offset: Offset, claim: Claim, produce: &Produce) -> Fact {
    Fact {
        base_offset,
        claim,
        max_ts: produce.max_ts,
        transactional: false,
        marker: None,
    }
}

/// A machine, its disk, and who waits for it.
struct World {
    now: Instant,
    settings: Settings,
    machine: Partition,
    windows: Windows,
    disk: Disk,
    out: Outbox<Effect>,
    /// Batches by ticket, until they are appended or refused.
    payloads: BTreeMap<Ticket, Produce>,
    /// Tickets that are owed an answer.
    owed: BTreeMap<Ticket, Instant>,
    /// Batches of the answer being told.
    copies: Vec<CopiedBatch>,
    /// Version of the last row told.
    part_ver: u32,
    /// Every member in sync reports all it can whenever time passes.
    level: bool,
    seen: (Offset, Offset),
}

impl World {
    fn new(settings: Settings, recovered: Recovered) -> Self {
        let disk = Disk {
            queue: VecDeque::new(),
            log: Vec::new(),
            extents: Vec::new(),
            recovered,
        };
        let machine = Partition::new(PART, member("a"), settings, &disk.recovered);
        let mut world = Self {
            now: Instant(0),
            settings,
            machine,
            windows: Windows::default(),
            disk,
            out: Outbox::new(),
            payloads: BTreeMap::new(),
            owed: BTreeMap::new(),
            copies: Vec::new(),
            part_ver: 0,
            level: false,
            seen: (Offset::ZERO, Offset::ZERO),
        };
        world.started();
        world
    }

    /// A log without batches, whose disk knows no epoch.
    fn empty(settings: Settings) -> Self {
        Self::new(
            settings,
            Recovered {
                log_start: Offset::ZERO,
                end: Offset::ZERO,
                high_watermark: Offset::ZERO,
                accepted_epoch: LeaderEpoch::NONE,
                epochs: Vec::new(),
            },
        )
    }

    /// The process ends, with all that was not flushed, and begins again.
    fn restart(&mut self) {
        self.disk.queue.clear();
        self.disk.extents.clear();
        self.payloads.clear();
        self.owed.clear();
        self.windows = self.disk.windows();
        self.machine = Partition::new(PART, member("a"), self.settings, &self.disk.recovered);
        self.seen.1 = self.disk.recovered.high_watermark;
        self.started();
    }

    /// What recovery knew must be known again.
    fn started(&mut self) {
        let recovered = &self.disk.recovered;
        assert!(
            self.machine.log_start >= recovered.log_start,
            "the log start went back (R10)"
        );
        assert!(
            self.machine.high_watermark >= recovered.high_watermark,
            "what was committed is not readable any more"
        );
        self.watch();
    }

    /// Neither ever falls.
    fn watch(&mut self) {
        let now = (self.machine.log_start, self.machine.high_watermark);
        assert!(now.0 >= self.seen.0, "the log start fell");
        let unclean = self.machine.copying.unclean;
        assert!(now.1 >= self.seen.1 || unclean, "the high watermark fell");
        self.seen = now;
    }

    /// A follower whose log is this one's beginning, or all of it, reports.
    fn report(&self, member: Member, epoch: LeaderEpoch, durable: Offset) -> Input {
        let machine = &self.machine;
        let fetch_off = durable.min(machine.end);
        Input::ReplicaFetch(ReplicaFetch {
            member,
            epoch,
            fetch_off,
            durable_off: durable,
            last_epoch: machine.epochs.at(fetch_off.plus(-1)),
            log_start: machine.log_start,
        })
    }

    /// The committed ISR of the next version.
    fn isr(&mut self, committed: Box<[Member]>) -> Vec<Effect> {
        self.part_ver += 1;
        let part_ver = self.part_ver;
        self.tell(Input::Isr {
            part_ver,
            committed,
        })
    }

    fn lead(&mut self, epoch: LeaderEpoch, isr: Box<[Member]>) -> Vec<Effect> {
        if self.machine.copying.catch_up.is_some() {
            // A replica outside the ISR may know of more than it has durable; elected all the same, it has that.
            self.seen.1 = self.seen.1.min(self.machine.durable);
        }
        self.part_ver += 1;
        let part_ver = self.part_ver;
        self.tell(Input::Lead {
            epoch,
            part_ver,
            isr,
            unclean: false,
        })
    }

    fn produce(&mut self, produce: Produce) -> Vec<Effect> {
        self.payloads.insert(produce.ticket, produce);
        self.owed.insert(produce.ticket, self.now);
        self.tell(Input::Produce(produce))
    }

    fn delete(&mut self, ticket: Ticket, offset: Offset) -> Vec<Effect> {
        self.owed.insert(ticket, self.now);
        self.tell(Input::DeleteRecords { ticket, offset })
    }

    /// Tells a fact, queues what is for the disk, and checks what holds at every step.
    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.machine
            .step(self.now, input, &mut self.windows, &mut self.out);
        let effects: Vec<Effect> = self.out.drain().collect();
        for effect in &effects {
            match *effect {
                Effect::Append {
                    ticket,
                    base_offset,
                    high_watermark,
                    ..
                } => {
                    let produce = self.payloads.remove(&ticket);
                    self.disk.queue.push_back(Queued::Append {
                        produce: produce.expect("a batch is appended twice, or was never given"),
                        base_offset,
                        high_watermark,
                    });
                }
                Effect::Epoch { epoch, start, .. } => {
                    self.disk.queue.push_back(Queued::Epoch { epoch, start })
                }
                Effect::LogStart { offset } => {
                    self.disk.queue.push_back(Queued::LogStart { offset })
                }
                Effect::Reply { ticket, outcome } => {
                    let asked = self.owed.remove(&ticket);
                    asked.expect("a ticket is answered twice, or was never asked");
                    self.payloads.remove(&ticket);
                    if matches!(outcome, Outcome::Refused(Refusal::Park)) {
                        panic!("parking is no answer");
                    }
                }
                Effect::Copy {
                    first,
                    count,
                    base_offset,
                    high_watermark,
                    journaled,
                    ..
                } => {
                    let first = first as usize;
                    let batches = self.copies[first..first + count as usize].to_vec();
                    assert_eq!(batches[0].base_offset, base_offset);
                    self.disk.queue.push_back(Queued::Copy {
                        batches,
                        high_watermark,
                        journaled,
                    });
                }
                Effect::Truncate { to } => self.disk.queue.push_back(Queued::Truncate { to }),
                Effect::Checkpoint { mark } => {
                    self.disk.queue.push_back(Queued::Checkpoint { mark })
                }
                Effect::Park { .. }
                | Effect::HighWatermark { .. }
                | Effect::Leading { .. }
                | Effect::AlterIsr { .. }
                | Effect::SlowDisk { .. }
                | Effect::CopyRefused { .. }
                | Effect::Level { .. }
                | Effect::Resigned
                | Effect::Halted { .. } => {}
            }
        }
        self.watch();
        effects
    }

    fn flush_one(&mut self) -> Vec<Effect> {
        match self.disk.flush_one() {
            Some(input) => self.tell(input),
            None => Vec::new(),
        }
    }

    fn flush(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while !self.disk.queue.is_empty() {
            effects.extend(self.flush_one());
        }
        effects
    }

    fn disk_failed(&mut self) -> Vec<Effect> {
        self.disk.queue.clear();
        self.disk.extents.clear();
        // A follower may know of more than it had durable; that much it forgets.
        self.seen.1 = self.seen.1.min(self.machine.durable);
        self.tell(Input::DiskFailed)
    }

    fn disk_back(&mut self) -> Vec<Effect> {
        self.windows = self.disk.windows();
        self.tell(Input::DiskBack(Box::new(self.disk.recovered.clone())))
    }

    /// Ticks whenever the machine asks for it on the way to `at`.
    fn run_until(&mut self, at: Instant) -> Vec<Effect> {
        assert!(at >= self.now, "a scenario goes back in time");
        let mut effects = Vec::new();
        while let Some(deadline) = self.machine.deadline().filter(|deadline| *deadline <= at) {
            self.now = self.now.max(deadline);
            if self.level {
                let (epoch, end) = (self.machine.epoch, self.machine.durable);
                for other in self.machine.isr.committed().to_vec() {
                    let report = self.report(other, epoch, end);
                    effects.extend(self.tell(report));
                }
            }
            effects.extend(self.tell(Input::Tick));
            // A shell that heeds the deadline must come to rest.
            let again = self.machine.deadline();
            assert!(
                again.is_none_or(|again| again > self.now),
                "due again and again: the shell would spin"
            );
        }
        self.now = at;
        // A proposal without an answer is sent again and again.
        effects.dedup();
        effects
    }
}

const SETTINGS: Settings = Settings {
    min_insync: 1,
    batch_bytes_max: 1_000,
    refuse_when_full: false,
};

impl scenario::World for World {
    fn site(words: &scenario::Words<'_>) -> Self {
        text::site(&Words(words.all().collect()))
    }

    fn command(&mut self, verb: &str, words: &scenario::Words<'_>) -> String {
        let mut said = String::new();
        let words = core::iter::once(verb).chain(words.all()).collect();
        text::command(self, words, &mut said);
        said
    }
}

macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            scenario::run::<World>(concat!("partition/tests/", stringify!($name), ".txt"));
        })+
    };
}

scenarios! {
    produce, retries, lease, wait, disk, office, insync, deletion, full, queries, recovery, copying, divergence,
    catch_up, members, slow, hand_over, replicas
}
