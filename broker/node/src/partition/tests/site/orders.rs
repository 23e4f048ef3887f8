//! The same machines under `stateright`: every order of what can happen, within small bounds.
//!
//! Time stands still, a fetch and its answer are one step, and a node that restarts knows only the first row of the site
//! log. What a leader proposes stays under way until it arrives. Checked are S1 and that the committed ISR has every
//! committed record on disk; the machines' own assertions hold as well.

use core::hash::{Hash, Hasher};
use std::hash::DefaultHasher;

use stateright::{Checker, Model, Property};

use super::*;
use crate::mutation;

const NOW: Instant = Instant(1_000_000_000);

/// How much may happen.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    nodes: usize,
    records: u64,
    rows: usize,
    crashes: u32,
    swaps: u32,
    broken: Option<Mutation>,
}

#[derive(Clone, Debug)]
struct State {
    nodes: Vec<Node>,
    rows: Vec<Row>,
    /// Proposals under way.
    asked: BTreeSet<(usize, LeaderEpoch, u32, Vec<Member>)>,
    committed: BTreeMap<Offset, Entry>,
    /// Two records are committed at one offset.
    conflict: bool,
    records: u64,
    crashes: u32,
    swaps: u32,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for node in &self.nodes {
            let (machine, disk) = (&node.machine, &node.disk);
            (node.member, node.applied).hash(state);
            (machine.log_start, machine.high_watermark, machine.durable).hash(state);
            (machine.end, machine.epoch, machine.leading_since()).hash(state);
            let starting = matches!(machine.role, Role::Starting { .. });
            let leader = match machine.role {
                Role::Following { leader } => leader,
                Role::Starting { .. } | Role::Leading { .. } => None,
            };
            (starting, leader).hash(state);
            (&machine.isr, &machine.followers, &machine.copying).hash(state);
            for row in machine.epochs.rows().iter().chain(&disk.kept.epochs) {
                (row.epoch, row.start).hash(state);
            }
            disk.hash(state);
        }
        for row in &self.rows {
            (row.epoch, row.part_ver, row.leader, &row.isr).hash(state);
        }
        (&self.asked, &self.committed, self.conflict).hash(state);
        (self.records, self.crashes, self.swaps).hash(state);
    }
}

/// As far as the hash looks, which is all that the checker goes by.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let digest = |state: &Self| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        digest(self) == digest(other)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Append(usize),
    Flush(usize),
    Fetch(usize),
    Learn(usize),
    /// A proposal arrives.
    Alter(usize),
    Elect(Member),
    Shrink(Member),
    Crash(usize),
    Swap(usize),
}

impl State {
    fn control(&self) -> Control {
        Control {
            rows: self.rows.clone(),
        }
    }

    fn tell(&mut self, node: usize, input: Input) {
        let effects = self.nodes[node].tell(NOW, input);
        self.hear(node, effects);
    }

    fn hear(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::HighWatermark { high_watermark } => {
                    let view = &self.nodes[node].disk.view;
                    for entry in view.iter().filter(|entry| entry.end() <= high_watermark) {
                        let before = *self.committed.entry(entry.base).or_insert(*entry);
                        self.conflict |= before != *entry;
                    }
                }
                Effect::AlterIsr {
                    epoch,
                    part_ver,
                    isr,
                } => drop(self.asked.insert((node, epoch, part_ver, isr.into()))),
                _ => {}
            }
        }
    }

    fn learn(&mut self, node: usize, at: usize) {
        let row = self.rows[at].clone();
        let elected = at == 0 || self.rows[at - 1].epoch != row.epoch;
        self.nodes[node].applied = at + 1;
        let me = self.nodes[node].member;
        let (epoch, part_ver) = (row.epoch, row.part_ver);
        let committed: Box<[Member]> = row.isr.into();
        if elected && row.leader == Some(me) {
            return self.tell(
                node,
                Input::Lead {
                    epoch,
                    part_ver,
                    isr: committed,
                    unclean: false,
                },
            );
        }
        if elected {
            let leader = row.leader.map(|leader| leader.node);
            self.tell(
                node,
                Input::Follow {
                    epoch,
                    leader,
                    unclean: false,
                },
            );
        }
        self.tell(
            node,
            Input::Isr {
                part_ver,
                committed,
            },
        );
    }

    fn start(&mut self, node: usize) {
        self.nodes[node].start(SETTINGS, NOW);
        self.learn(node, 0);
    }

    fn fetch(&mut self, node: usize) {
        let Some(ask) = self.nodes[node].machine.ask(NOW) else {
            return;
        };
        let (to, fetch) = (ask.leader.0 as usize - 1, ask.fetch);
        self.tell(to, Input::ReplicaFetch(fetch));
        let leader = &self.nodes[to];
        let mut copies = Vec::new();
        let body = match leader.machine.replica_bounds(&fetch) {
            // The follower would only wait, and time stands still.
            Err(_) => return,
            Ok(ReplicaBounds {
                diverging: Some((epoch, end)),
                ..
            }) => AnswerBody::Diverging { epoch, end },
            Ok(bounds) => {
                let view = leader.disk.view.iter();
                copies.extend(view.filter(|entry| entry.end() > bounds.from).take(1));
                AnswerBody::Batches {
                    ticket: Ticket(0),
                    high_watermark: bounds.high_watermark,
                    log_start: bounds.log_start,
                    more: false,
                    batches: copies.iter().map(Entry::copied).collect(),
                }
            }
        };
        let answer = Answer {
            epoch: fetch.epoch,
            fetch_off: fetch.fetch_off,
            last_epoch: fetch.last_epoch,
            body,
        };
        let effects = self.nodes[node].answer(NOW, answer, copies);
        self.hear(node, effects);
    }

    fn append(&mut self, node: usize) {
        self.records += 1;
        let ticket = Ticket(self.records);
        let entry = Entry {
            base: Offset::ZERO,
            count: 1,
            epoch: LeaderEpoch::NONE,
            pid: None,
            id: self.records,
        };
        self.nodes[node].payloads.insert(ticket, entry);
        let produce = Produce {
            ticket,
            acks: Acks::None,
            ..Words(Vec::new()).produce()
        };
        self.tell(node, Input::Produce(produce));
    }

    /// Every member of the committed ISR has every committed record on disk, as long as that is the disk it was.
    fn held(&self) -> bool {
        let isr = &self.rows.last().expect("there is a first row").isr;
        isr.iter().all(|member| {
            let node = &self.nodes[member.node.0 as usize - 1];
            let log = &node.disk.log;
            let mut committed = self.committed.values();
            node.member != *member || committed.all(|entry| log.contains(entry))
        })
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        mutation::set(self.broken);
        let members: Vec<Member> = (0..self.nodes).map(|node| replica(node, 1)).collect();
        let nodes = members.iter().map(|member| Node::new(*member, SETTINGS));
        let mut state = State {
            nodes: nodes.collect(),
            rows: Control::new(members).rows,
            asked: BTreeSet::new(),
            committed: BTreeMap::new(),
            conflict: false,
            records: 0,
            crashes: 0,
            swaps: 0,
        };
        // Everybody has the first epoch on disk.
        for node in 0..self.nodes {
            state.start(node);
            let effects = state.nodes[node].flush(NOW);
            state.hear(node, effects);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let row = state.rows.last().expect("there is a first row");
        let more_rows = state.rows.len() < self.rows;
        for (at, node) in state.nodes.iter().enumerate() {
            if node.machine.leading_since().is_some() && state.records < self.records {
                actions.push(Action::Append(at));
            }
            if node.disk.busy() {
                actions.push(Action::Flush(at));
            }
            actions.push(Action::Fetch(at));
            if node.applied < state.rows.len() {
                actions.push(Action::Learn(at));
            }
            let in_sync = row.isr.contains(&node.member);
            if more_rows && in_sync {
                actions.push(Action::Elect(node.member));
            }
            if more_rows && in_sync && row.leader != Some(node.member) {
                actions.push(Action::Shrink(node.member));
            }
            if state.crashes < self.crashes {
                actions.push(Action::Crash(at));
            }
            if state.swaps < self.swaps && row.isr != [node.member] {
                actions.push(Action::Swap(at));
            }
        }
        if more_rows {
            actions.extend((0..state.asked.len()).map(Action::Alter));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        mutation::set(self.broken);
        let mut state = last.clone();
        match action {
            Action::Append(node) => state.append(node),
            Action::Flush(node) => {
                let effects = state.nodes[node].flush(NOW);
                state.hear(node, effects);
            }
            Action::Fetch(node) => state.fetch(node),
            Action::Learn(node) => {
                let at = state.nodes[node].applied;
                state.learn(node, at);
            }
            Action::Alter(at) => {
                let asked = state.asked.iter().nth(at).expect("listed").clone();
                state.asked.remove(&asked);
                let (node, epoch, part_ver, isr) = asked;
                let mut control = state.control();
                let fit =
                    |member: &Member| state.nodes[member.node.0 as usize - 1].member == *member;
                let asker = state.nodes[node].member.node;
                control.alter(asker, epoch, part_ver, &isr, fit);
                state.rows = control.rows;
            }
            Action::Elect(member) => {
                let mut control = state.control();
                control.elect(member);
                state.rows = control.rows;
            }
            Action::Shrink(member) => {
                let mut control = state.control();
                control.shrink(member);
                state.rows = control.rows;
            }
            Action::Crash(node) => {
                state.crashes += 1;
                state.start(node);
            }
            Action::Swap(node) => {
                state.swaps += 1;
                let mut control = state.control();
                let old = state.nodes[node].member;
                if control.row().isr.contains(&old) {
                    control.leave(old);
                }
                state.rows = control.rows;
                state.nodes[node] = Node::new(replica(node, 1 + state.swaps), SETTINGS);
                state.start(node);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "one record is committed at an offset (S1)",
                |_, state: &State| !state.conflict,
            ),
            Property::always(
                "who is in sync has what is committed",
                |_, state: &State| state.held(),
            ),
            Property::sometimes(
                "a record is committed in a later epoch",
                |_, state: &State| {
                    state
                        .committed
                        .values()
                        .any(|entry| entry.epoch > LeaderEpoch(0))
                },
            ),
        ]
    }
}

/// Two replicas, an election and a crash; then what the leader proposed may arrive as well.
const SMALL: Bounds = Bounds {
    nodes: 2,
    records: 2,
    rows: 3,
    crashes: 1,
    swaps: 0,
    broken: None,
};

fn exhaust(bounds: Bounds) {
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    println!(
        "{bounds:?}: {} states, depth {}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_no_discovery("one record is committed at an offset (S1)");
    checker.assert_no_discovery("who is in sync has what is committed");
    checker.assert_any_discovery("a record is committed in a later epoch");
}

#[test]
fn every_order_of_elections_and_a_crash() {
    exhaust(SMALL);
}

#[test]
fn every_order_with_a_swapped_disk() {
    exhaust(Bounds {
        records: 1,
        rows: 3,
        crashes: 0,
        swaps: 1,
        ..SMALL
    });
}

#[test]
fn every_order_of_three() {
    exhaust(Bounds {
        nodes: 3,
        records: 1,
        rows: 2,
        crashes: 0,
        ..SMALL
    });
}

#[test]
fn some_order_misses_a_broken_rule() {
    for broken in [Mutation::FetchAcknowledges, Mutation::OlderEpochFollowed] {
        let bounds = Bounds {
            records: 1,
            broken: Some(broken),
            ..SMALL
        };
        let found = std::panic::catch_unwind(|| {
            let checker = bounds.checker().threads(2).spawn_bfs().join();
            let always = [
                "one record is committed at an offset (S1)",
                "who is in sync has what is committed",
            ];
            let found = always.into_iter().find_map(|name| checker.discovery(name));
            found.map(|path| path.into_actions())
        });
        mutation::set(None);
        println!("{broken:?}: {found:?}");
        // One of the machines' own assertions counts as well.
        assert!(!matches!(found, Ok(None)), "no order misses {broken:?}");
    }
}
