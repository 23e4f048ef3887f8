//! A whole site around controllers: nodes with clocks that differ, a log that commits late, leases, disks and links that
//! come and go. As much of the other machines as the controller meets: who is granted what (L1.5), who may lead which
//! epoch (R2), who has caught up. Everything follows from the seed.

use std::collections::BTreeSet;

use super::*;
use crate::sitelog::RECORD_BYTES_MAX;

mod judge;
mod machine;
mod office;

/// splitmix64 (Vigna): enough for tests, and the same on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

pub(super) const DISKS: usize = 2;
const DISK_BYTES: u64 = 400 * MIB;

/// One box.
pub(super) struct Machine {
    id: NodeId,
    /// Its clock's rate in thousandths, within ρ.
    rate: u64,
    pub(super) up: bool,
    /// No message comes in or goes out.
    pub(super) cut: bool,
    boot: u64,
    incarnation: Incarnation,
    pub(super) disks: Vec<(DiskUuid, DiskState)>,
    /// As it registers them.
    mounted: Vec<DiskUuid>,
    pub(super) catalog: Catalog,
    applied: usize,
    pub(super) controller: Controller,
    /// What it was granted, on its own clock, and the entry from which on it counts.
    grants: Vec<(Instant, Index)>,
    /// Epochs it gave up since it started: it never leads them, nor earlier ones.
    given_up: BTreeMap<TopicPartition, LeaderEpoch>,
    /// It started, and has not learned yet what is committed.
    fresh: bool,
    tick_at: u64,
    /// On its disks: the epochs it began to lead or gave up (R2).
    accepted: BTreeMap<(DiskUuid, TopicPartition), LeaderEpoch>,
    /// Led since it started.
    leading: BTreeMap<TopicPartition, LeaderEpoch>,
    /// Up, reachable and with all its disks, since when; by true time.
    pub(super) well_since: Option<u64>,
}

struct Held {
    node: usize,
    until: Instant,
    /// Entries committed when it began.
    index: usize,
    pending: Option<(Proposal, Vec<u8>)>,
    since: u64,
}

/// What comes at its time.
#[derive(Debug)]
enum Fact {
    Beat(usize),
    BeatComes(usize, NodeBeat, Instant),
    Granted(usize, u64, Instant, Index),
    Office,
    Commit(Proposal),
    Learn(usize),
    Work(usize),
    Yield(usize, TopicPartition, LeaderEpoch, NodeId),
    Message(Box<Input>),
    Tick(usize),
}

pub(super) struct Play {
    pub(super) random: Random,
    /// True time in nanoseconds.
    pub(super) now: u64,
    facts: BTreeMap<(u64, u64), Fact>,
    number: u64,
    pub(super) machines: Vec<Machine>,
    log: Vec<Vec<u8>>,
    /// What the whole log adds up to.
    truth: Catalog,
    held: Option<Held>,
    terms: u64,
    /// Everything granted so far is over then, by true time.
    free_at: u64,
    pub(super) tickets: BTreeMap<Ticket, u64>,
    next_ticket: u64,
    next_disk: u8,
    pub(super) next_topic: u16,
    /// Partitions for which an operator asked for an unclean leader.
    unclean: BTreeSet<TopicPartition>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), Option<NodeId>>,
    vacant: BTreeMap<TopicPartition, u64>,
    /// Disks that have all that is committed of a partition.
    complete: BTreeSet<(DiskUuid, TopicPartition)>,
    /// All is well from now on: whoever can hand over does.
    pub(super) calm: bool,
    /// How often each kind of thing happened, so that a test that tests nothing is seen.
    pub(super) seen: BTreeMap<&'static str, u32>,
}

const TICK: u64 = 1_000_000;

impl Play {
    pub(super) fn new(seed: u64, nodes: u32) -> Self {
        let mut random = Random(seed);
        let machines: Vec<Machine> = (1..=nodes)
            .map(|node| Machine {
                id: NodeId(node),
                rate: 950 + random.below(101),
                up: true,
                cut: false,
                boot: 1,
                incarnation: incarnation(u8::try_from(node).unwrap()),
                disks: ('a'..)
                    .take(DISKS)
                    .map(|letter| (disk(node, letter), DiskState::Clean))
                    .collect(),
                mounted: ('a'..).take(DISKS).map(|it| disk(node, it)).collect(),
                catalog: Catalog::new(NodeId(node), rules()),
                applied: 0,
                controller: Controller::new(settings(nodes, DISKS)),
                grants: Vec::new(),
                given_up: BTreeMap::new(),
                fresh: false,
                tick_at: 0,
                accepted: BTreeMap::new(),
                leading: BTreeMap::new(),
                well_since: Some(0),
            })
            .collect();
        let mut play = Self {
            random,
            now: 0,
            facts: BTreeMap::new(),
            number: 0,
            machines,
            log: Vec::new(),
            truth: Catalog::new(NodeId(1), rules()),
            held: None,
            terms: 0,
            free_at: 0,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            next_disk: b'c',
            next_topic: 0,
            unclean: BTreeSet::new(),
            leaders: BTreeMap::new(),
            vacant: BTreeMap::new(),
            complete: BTreeSet::new(),
            calm: false,
            seen: BTreeMap::new(),
        };
        for node in 0..play.machines.len() {
            play.after_up_to(50, Fact::Beat(node));
            play.after_up_to(200, Fact::Work(node));
        }
        play.after_up_to(10, Fact::Office);
        play
    }

    fn at(&mut self, time: u64, fact: Fact) {
        self.number += 1;
        self.facts.insert((time, self.number), fact);
    }

    fn after_up_to(&mut self, ms: u64, fact: Fact) {
        let time = self.now + 1 + self.random.below(ms * TICK);
        self.at(time, fact);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }

    fn clock(&self, node: usize) -> Instant {
        Instant(self.now * self.machines[node].rate / 1_000)
    }

    fn true_time(&self, node: usize, clock: Instant) -> u64 {
        clock.0 * 1_000 / self.machines[node].rate + 1
    }

    fn talks(&self, node: usize) -> bool {
        self.machines[node].up && !self.machines[node].cut
    }

    fn majority(&self) -> bool {
        let talking = (0..self.machines.len()).filter(|node| self.talks(*node));
        talking.count() * 2 > self.machines.len()
    }

    fn held_by(&self, node: usize) -> bool {
        self.held.as_ref().is_some_and(|held| held.node == node)
    }

    /// Lets so many milliseconds pass.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + ms * TICK;
        while let Some(entry) = self.facts.first_entry().filter(|it| it.key().0 <= end) {
            let ((time, _), fact) = entry.remove_entry();
            self.now = time;
            self.happen(fact);
            self.check();
        }
        self.now = end;
    }

    fn happen(&mut self, fact: Fact) {
        match fact {
            Fact::Beat(node) => {
                self.send_beat(node);
                let next = self.now + 100 * TICK;
                self.at(next, Fact::Beat(node));
            }
            Fact::BeatComes(node, beat, sent) => self.beat_comes(node, beat, sent),
            Fact::Granted(node, boot, until, after) => {
                let now = self.clock(node);
                let machine = &mut self.machines[node];
                if machine.up && !machine.cut && machine.boot == boot {
                    machine.grants.retain(|(until, _)| *until > now);
                    machine.grants.push((until, after));
                }
            }
            Fact::Office => {
                self.office();
                let next = self.now + 50 * TICK;
                self.at(next, Fact::Office);
            }
            Fact::Commit(proposal) => self.commit(proposal),
            Fact::Learn(node) => self.learn(node),
            Fact::Work(node) => {
                if self.machines[node].up {
                    self.learn(node);
                    self.work(node);
                }
                let next = self.now + 200 * TICK;
                self.at(next, Fact::Work(node));
            }
            Fact::Yield(node, id, epoch, to) => {
                let machine = &mut self.machines[node];
                if machine.up && machine.leading.get(&id) == Some(&epoch) {
                    // It stops for good in this epoch: the word may arrive whenever it likes.
                    machine.leading.remove(&id);
                    machine.given_up.insert(id, epoch);
                    let node_id = machine.id;
                    self.count("handed over");
                    self.send(
                        node,
                        Input::Resign {
                            node: node_id,
                            partitions: vec![(id, epoch, Resigned::To(to))],
                        },
                    );
                }
            }
            Fact::Message(input) => {
                if let Some(node) = self.held.as_ref().map(|held| held.node)
                    && self.talks(node)
                {
                    self.tell(node, *input);
                }
            }
            Fact::Tick(node) => {
                if self.machines[node].up && self.machines[node].tick_at == self.now {
                    self.tell(node, Input::Tick);
                }
            }
        }
    }

    /// To the controller, if both are reachable, a little later, or never.
    fn send(&mut self, from: usize, input: Input) {
        if self.talks(from) && !self.random.one_in(50) {
            let delay = if self.random.one_in(20) { 1_500 } else { 30 };
            self.after_up_to(delay, Fact::Message(Box::new(input)));
        }
    }

    fn tell(&mut self, node: usize, input: Input) {
        let now = self.clock(node);
        let mut out = Outbox::new();
        let machine = &mut self.machines[node];
        machine
            .controller
            .step(now, &machine.catalog, input, &mut out);
        for effect in out.drain() {
            self.perform(node, effect);
        }
        if let Some(due) = self.machines[node].controller.deadline() {
            let time = self.true_time(node, due).max(self.now + TICK);
            if self.machines[node].tick_at != time {
                self.machines[node].tick_at = time;
                self.at(time, Fact::Tick(node));
            }
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Propose { proposal, bytes } => {
                assert!(bytes.len() <= RECORD_BYTES_MAX);
                assert!(self.held_by(node), "an entry without an office");
                let until = self.held.as_ref().unwrap().until;
                assert!(self.clock(node) < until, "an entry without a lease");
                let pending = &mut self.held.as_mut().unwrap().pending;
                assert!(pending.is_none(), "two entries on their way");
                *pending = Some((proposal, bytes));
                self.after_up_to(40, Fact::Commit(proposal));
            }
            Effect::HandOver {
                node: leader,
                partitions,
            } => {
                let at = self.machines.iter().position(|it| it.id == leader);
                for (id, epoch, to) in partitions {
                    if self.calm || !self.random.one_in(4) {
                        self.after_up_to(400, Fact::Yield(at.unwrap(), id, epoch, to));
                    }
                }
            }
            Effect::Answer { ticket, answer } => {
                let deadline = self.tickets.remove(&ticket).expect("answered twice");
                assert!(
                    self.now < deadline + 2_000 * TICK || answer == Answer::NotController,
                    "answered late"
                );
                self.count(match answer {
                    Answer::Created(_) | Answer::Done => "done",
                    Answer::Refused(_) => "refused",
                    Answer::TimedOut => "timed out",
                    Answer::NotController => "not the controller",
                    Answer::Reassigned(_) => "reassigned",
                    Answer::Elected(_) => "elected",
                });
            }
            Effect::MayFree { node: free } => {
                let at = self.machines.iter().position(|it| it.id == free).unwrap();
                let held = self.held.as_ref().unwrap();
                let there = &self.machines[at];
                // It may have been replaced meanwhile; then it has nothing to free.
                assert!(
                    there.applied >= held.index || there.boot > 1 || there.applied == 0,
                    "it frees what it does not know yet"
                );
            }
            Effect::AlterIsr { rows, .. } => {
                for (_, _, _, outcome) in rows {
                    self.count(match outcome {
                        crate::peer::IsrOutcome::Committed { .. } => "isr committed",
                        crate::peer::IsrOutcome::Stale => "isr stale",
                        crate::peer::IsrOutcome::Fenced => "isr fenced",
                        crate::peer::IsrOutcome::Ineligible { .. } => "isr ineligible",
                        _ => "isr refused",
                    });
                }
            }
            Effect::Event(Event::Partition { decision, .. }) => self.count(match decision {
                Decision::Led { why, .. } => match why {
                    Why::Vacant => "led: vacant",
                    Why::NodeDead => "led: node dead",
                    Why::Disk => "led: disk",
                    Why::Suspect => "led: suspect",
                    Why::Resigned => "led: resigned",
                    Why::HandedOver => "led: handed over",
                    Why::Unclean => "led: unclean",
                },
                Decision::Offline { .. } => "offline",
                Decision::Left { .. } => "left",
                Decision::Isr { .. } => "isr",
                Decision::Replaced { .. } => "replaced",
                Decision::Moves { .. } => "moves",
                Decision::Arrived => "arrived",
            }),
            Effect::Event(_) => {}
        }
    }

    /// Somebody wishes something of whoever has the office.
    pub(super) fn wish(&mut self, wish: Wish) {
        let Some(node) = self.held.as_ref().map(|held| held.node) else {
            return;
        };
        if !self.talks(node) {
            return;
        }
        if let Wish::Elect {
            unclean: true,
            partitions: Some(partitions),
        } = &wish
        {
            self.unclean.extend(partitions);
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, self.now + 3_000 * TICK);
        let deadline = self.clock(node) + Duration::from_secs(3);
        let actor = Actor::broker();
        let input = Input::Wish {
            ticket,
            actor,
            deadline,
            wish,
        };
        self.tell(node, input);
    }

    /// The catalog of whoever has the office.
    pub(super) fn catalog(&self) -> Option<&Catalog> {
        let held = self.held.as_ref()?;
        Some(&self.machines[held.node].catalog)
    }
}
