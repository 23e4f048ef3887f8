//! Every order of events in a small site, on the real machine (stateright).
//!
//! Without time: whoever likes stands whenever it likes, promises are forgotten, messages come in any order or never, and
//! a node loses what its disk had not flushed. What must hold then is Raft's: one vote and one controller a term, and
//! what was committed is in every later controller's log.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use model::Uuid;
use stateright::{Checker, Model, Property};

use super::*;
use crate::mutation;

/// Node 3 only votes, and is the one that crashes, once: who stands is alike to who else might, and any two are a
/// majority.
const CRASHES: u8 = 1;
const SOUND: &str = "one vote and one controller a term, and what was committed stays";
const PROGRESS: &str = "an entry of a later term is committed";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Write {
    HardState(HardState),
    Entry(LogEntry),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    log: SiteLog,
    queue: VecDeque<Write>,
    /// What the medium holds.
    hard_state: HardState,
    entries: Vec<LogEntry>,
}

/// Without what is the same in every state: the settings, time, and what the beat thread knows.
impl Hash for Member {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let log = &self.log;
        (
            &log.hard_state,
            &log.written,
            &log.writing,
            &log.role,
            log.leader,
        )
            .hash(to);
        (&log.log, log.committed, log.matched, log.heard_commit).hash(to);
        (&log.owed, log.released, &log.progress, &log.orders.office).hash(to);
        (&self.queue, &self.hard_state, &self.entries).hash(to);
    }
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    votes: BTreeMap<(Term, NodeId), NodeId>,
    elected: BTreeMap<Term, NodeId>,
    committed: Vec<Term>,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    members: Vec<Member>,
    /// In order, so that two ways to the same are the same.
    on_its_way: Vec<(NodeId, Message)>,
    crashes: u8,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Deliver(usize),
    Stand(NodeId),
    Flush(NodeId),
    Crash(NodeId),
}

struct Site {
    /// Up to which term each node stands; the site was founded in the first.
    stands: [u64; 3],
    /// Node 1 has been elected in the second, and its first entry is on its way.
    elected: bool,
    /// A rule that is broken.
    broken: Option<Mutation>,
}

fn settings(node: NodeId) -> Settings {
    Settings {
        peers: (1..=3).map(NodeId).collect(),
        ..Settings::alone(node, incarnation(node))
    }
}

fn incarnation(node: NodeId) -> Incarnation {
    Incarnation(Uuid([node.0 as u8; 16]))
}

impl Member {
    fn new(node: NodeId, hard_state: HardState, entries: Vec<LogEntry>) -> Self {
        let recovered = Recovered {
            hard_state,
            entries: entries.clone(),
            ..Recovered::default()
        };
        Self {
            log: SiteLog::new(settings(node), recovered),
            queue: VecDeque::new(),
            hard_state,
            entries,
        }
    }

    /// Time stands still, and nothing of it is remembered.
    fn forget_time(&mut self) {
        let log = &mut self.log;
        log.random = Random(0);
        log.delay = Duration::ZERO;
        log.promise = (Term(0), Instant(0));
        log.withheld_until = Instant(0);
        log.stand_after = Instant(1);
        log.elected_at = Instant(0);
        log.moves_from = Instant(0);
        log.chores_at = Instant(2);
        log.orders.version = 0;
        log.leases_since = 0;
        for progress in log.progress.values_mut() {
            progress.again_at = progress.again_at.map(|_| Instant(2));
        }
    }
}

impl State {
    fn tell(&mut self, node: NodeId, now: u64, input: Input) {
        let mut out = Outbox::new();
        let member = &mut self.members[node.0 as usize - 1];
        member.log.step(Instant(now), input, &mut out);
        member.forget_time();
        let effects: Vec<Effect> = out.drain().collect();
        for effect in effects {
            self.perform(node, effect);
        }
    }

    fn perform(&mut self, node: NodeId, effect: Effect) {
        let member = &mut self.members[node.0 as usize - 1];
        match effect {
            Effect::HardState(state) => member.queue.push_back(Write::HardState(state)),
            Effect::Append(entry) => member.queue.push_back(Write::Entry(entry)),
            Effect::Send { to, message } => {
                self.see_vote(node, &message);
                // What binds nobody comes at once, and a refusal never: it would tell a rival of the term before it stands.
                if matches!(
                    message.body,
                    Body::Voted {
                        pre: true,
                        granted: false,
                        ..
                    }
                ) {
                    return;
                }
                if matches!(
                    message.body,
                    Body::Vote { pre: true, .. } | Body::Voted { pre: true, .. }
                ) {
                    return self.tell(to, 0, Input::Message(message));
                }
                self.on_its_way.push((to, *message));
            }
            Effect::Orders(orders) if orders.office != Office::None => {
                self.see_elected(node, orders.term)
            }
            Effect::Apply { index, term, .. } => self.see_committed(index, term),
            Effect::Halt(_) => self.seen.broken = Some("a node halts"),
            _ => {}
        }
    }

    fn see_vote(&mut self, node: NodeId, message: &Message) {
        if let Body::Voted {
            pre: false,
            granted: true,
            ..
        } = message.body
        {
            let voted = self.members[node.0 as usize - 1].log.hard_state.voted_for;
            let voted = voted.expect("it says so");
            if *self.seen.votes.entry((message.term, node)).or_insert(voted) != voted {
                self.seen.broken = Some("two votes in a term");
            }
        }
    }

    fn see_elected(&mut self, node: NodeId, term: Term) {
        if *self.seen.elected.entry(term).or_insert(node) != node {
            self.seen.broken = Some("two controllers in a term");
        }
        let log = &self.members[node.0 as usize - 1].log.log;
        for (index, committed) in (1..).map(Index).zip(&self.seen.committed) {
            if log.term_at(index) != Some(*committed) {
                self.seen.broken = Some("a controller without what was committed");
            }
        }
    }

    fn see_committed(&mut self, index: Index, term: Term) {
        let at = usize::try_from(index.0).unwrap() - 1;
        if at == self.seen.committed.len() {
            self.seen.committed.push(term);
        }
        if self.seen.committed.get(at) != Some(&term) {
            self.seen.broken = Some("what was committed changed");
        }
    }

    fn flush(&mut self, node: NodeId) {
        let member = &mut self.members[node.0 as usize - 1];
        let mut told = Vec::new();
        for write in member.queue.drain(..) {
            match write {
                Write::HardState(state) => {
                    member.hard_state = state;
                    told.push(Input::HardStateDurable { term: state.term });
                }
                Write::Entry(entry) => {
                    let index = entry.index;
                    member.entries.retain(|it| it.index < index);
                    member.entries.push(entry);
                    told.push(Input::Durable { index });
                }
            }
        }
        for input in told {
            self.tell(node, 0, input);
        }
    }
}

impl Model for Site {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let named = (1..=3).map(NodeId).map(|node| Voter {
            node,
            incarnation: incarnation(node),
            witness: false,
        });
        let voters = Voters::new(named.collect()).unwrap();
        let founded = LogEntry {
            index: Index(1),
            term: Term(1),
            bytes: Record::broker(Entry::Voters(voters)).encode().unwrap(),
        };
        let hard_state = HardState {
            term: Term(1),
            voted_for: None,
        };
        let members =
            (1..=3).map(|node| Member::new(NodeId(node), hard_state, vec![founded.clone()]));
        let mut state = State {
            members: members.collect(),
            on_its_way: Vec::new(),
            crashes: 0,
            seen: Seen::default(),
        };
        for node in (1..=3).map(NodeId) {
            state.tell(node, 0, Input::Start);
        }
        if self.elected {
            state.tell(NodeId(1), 1, Input::Tick);
            for _ in 0..2 {
                (1..=3).map(NodeId).for_each(|node| state.flush(node));
                for (to, message) in std::mem::take(&mut state.on_its_way) {
                    state.tell(to, 0, Input::Message(Box::new(message)));
                }
            }
            assert!(state.members[0].log.leads());
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // What comes after is the same as what came before: a later office, or a log that all have.
        let seen = &state.seen;
        let succeeded = seen.elected.contains_key(&Term(3));
        let settled = !self.elected && seen.committed.len() > 1;
        if seen.broken.is_some() || succeeded || settled {
            return;
        }
        actions.extend((0..state.on_its_way.len()).map(Action::Deliver));
        for member in &state.members {
            let node = member.log.node;
            let stands = self.stands[node.0 as usize - 1];
            if !member.log.leads() && member.log.term().0 < stands && member.queue.is_empty() {
                actions.push(Action::Stand(node));
            }
            if !member.queue.is_empty() {
                actions.push(Action::Flush(node));
            }
            if state.crashes < CRASHES && stands == 0 && !member.queue.is_empty() {
                actions.push(Action::Crash(node));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        // The checker has threads of its own.
        mutation::set(self.broken);
        let mut next = state.clone();
        match action {
            Action::Deliver(at) => {
                let (to, message) = next.on_its_way.remove(at);
                next.tell(to, 0, Input::Message(Box::new(message)));
            }
            Action::Stand(node) => next.tell(node, 1, Input::Tick),
            Action::Flush(node) => next.flush(node),
            Action::Crash(node) => {
                next.crashes += 1;
                let member = &mut next.members[node.0 as usize - 1];
                *member = Member::new(node, member.hard_state, member.entries.clone());
                next.tell(node, 0, Input::Start);
            }
        }
        let members = &next.members;
        next.on_its_way.retain(|(to, message)| {
            let answer = matches!(
                message.body,
                Body::Voted { .. } | Body::Acked { .. } | Body::Missed { .. }
            );
            // Nobody listens to answers of a term that is over.
            !answer || message.term >= members[to.0 as usize - 1].log.term()
        });
        next.on_its_way
            .sort_by_cached_key(|(to, message)| (*to, message.encode()));
        next.on_its_way.dedup();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SOUND, |_, state: &State| state.seen.broken.is_none()),
            Property::sometimes(PROGRESS, |_, state: &State| {
                state.seen.committed.iter().any(|term| term.0 > 1)
            }),
        ]
    }
}

/// Two stand in the same term.
const RIVALS: Site = Site {
    stands: [2, 2, 0],
    elected: false,
    broken: None,
};
/// One stands while another is in office.
const SUCCESSION: Site = Site {
    stands: [0, 3, 0],
    elected: true,
    broken: None,
};

/// Whether every state is sound.
fn explore(site: Site) -> bool {
    let checker = site.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} of them different, {} deep",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    assert!(
        checker.discovery(PROGRESS).is_some(),
        "too small to show anything"
    );
    checker.discovery(SOUND).is_none()
}

#[test]
fn of_two_rivals_one_is_elected_in_every_order_of_events() {
    assert!(explore(RIVALS));
}

#[test]
fn a_successor_has_what_was_committed_in_every_order_of_events() {
    assert!(explore(SUCCESSION));
}

#[test]
fn a_broken_rule_is_found() {
    let broken = |site, rule| Site {
        broken: Some(rule),
        ..site
    };
    let vote = broken(RIVALS, Mutation::VoteNotDurable);
    let ack = broken(SUCCESSION, Mutation::AckBeforeDurable);
    for site in [vote, ack] {
        let rule = site.broken;
        // It may end in an assertion of the machine itself.
        let sound = std::panic::catch_unwind(|| explore(site)).unwrap_or(false);
        assert!(!sound, "{rule:?} is broken and every state is sound");
    }
}
