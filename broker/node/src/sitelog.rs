//! The site log (L1): the one sequence of entries by which topics, configurations, leaders and producer ids change, and
//! the leases under which nodes serve.
//!
//! Raft's log (Ongaro, Ousterhout 2014) with pre-vote and a quorum lease, among one to six voters. A site of one is the
//! same log with one voter and no beats. It never looks into an entry but for who votes: the catalog does.
//!
//! **The shell** tells it facts with [`SiteLog::step`] and performs the effects in their order. Between two steps it
//! reads what the beat thread knows, [`SiteLog::hear`], and it drives [`Beats`] on that thread as their module says.
//! Messages go by a control connection to each peer; they may be lost, doubled or late, as the machine asks again.
//!
//! **The controller's machine** ("which partitions does who lead") lives beside it and learns:
//! - that it may decide: [`SiteLog::office`] at each decision, `Some` from [`Effect::Controller`] to
//!   [`Effect::Resigned`] while the lease runs, with the term, the lease's end, and from when on it may move leaders;
//! - what changed: [`Effect::Apply`], on every node alike, through the catalog;
//! - which nodes live: [`SiteLog::nodes`], with their incarnation, their disks, and from when on a silent one is dead;
//! - who votes: [`SiteLog::voters`].
//!
//! It proposes with [`Input::Propose`]. A lapsed lease refuses, and so does the end of the office.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{Incarnation, Instant, NodeId, Term};

use crate::mutation::{Mutation, is};
use crate::{Outbox, Ticket};

mod append;
mod beat;
mod elect;
mod entry;
mod found;
mod lease;
mod log;
mod message;
mod replicate;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;
mod voters;

pub use beat::{
    BEAT_BYTES, BeatFault, Beats, DISKS_MAX, Datagrams, DiskState, Disks, FACTS_WORDS, Facts,
    ORDERS_WORDS, Office, Orders, Report, Seen,
};
pub use entry::{
    Actor, Configs, Disk, Entry, EntryFault, Kind, Moving, Node, PIDS_BLOCK, PRINCIPAL_BYTES_MAX,
    PUBLIC_KEY_BYTES_MAX, PartitionRow, RECORD_BYTES_MAX, Reassign, Record, Replica, Topic,
};
pub use lease::NodeSeen;
pub use message::{
    APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, Appended, Body, CHUNK_BYTES, MESSAGE_BYTES_MAX, Message,
    MessageFault, SNAPSHOT_BYTES_MAX,
};
pub use settings::{SEATS_MAX, Settings, Timing};
pub use types::{Effect, Halt, HardState, InOffice, Index, Input, LogEntry, Recovered, Refusal};
pub use voters::{Voter, Voters};

use elect::Owed;
use log::Log;
use replicate::Progress;
use settings::Random;
use snapshot::{Receiving, Sending};

/// Entries kept before a snapshot replaces them: 256 KiB of ordinary ones of a few hundred bytes.
pub const LOG_ENTRIES_MAX: usize = 1_024;
/// Bytes of entries kept before a snapshot replaces them: seventeen of the largest.
pub const LOG_BYTES_MAX: usize = 1024 * 1024;
/// While a snapshot is being written, so many times of both may be kept; beyond it proposals are refused.
const SNAPSHOT_SLACK: usize = 2;
/// How far ahead the lease of a single voter goes. Nobody else can be elected, so only sleep ends it; a day keeps sums
/// with it small.
pub const LEASE_ALONE: Duration = Duration::from_secs(24 * 3600);
/// Entries proposed and not yet durable; beyond it a proposal is refused and the client may retry.
pub const PROPOSED_MAX: usize = 256;
/// A promotion raises the term by 2^32, so that the node that was away knows it from an election (H56): it would have
/// to lose two thousand million elections to come near.
const PROMOTION: u64 = 1 << 32;

/// Which part this node has in the current term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// Not started.
    Idle,
    /// Empty, and asks whether all others are, too (L1.8).
    Founding {
        /// Counts the questions.
        round: u64,
        /// Who is empty, as of this round.
        empty: BTreeMap<NodeId, Incarnation>,
    },
    /// Follows whoever leads; perhaps nobody does.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate {
        /// Who would.
        votes: BTreeSet<NodeId>,
    },
    /// Asks for votes, while its own is being written (L1.1).
    Candidate {
        /// Whose votes it has.
        votes: BTreeSet<NodeId>,
        /// Some of them before their promise to a released controller had passed.
        early: bool,
        /// Needs no vote but its own: the voters with which it founds a site, or is promoted.
        first: Option<Voters>,
    },
    /// Elected; its first entry is not committed yet, or it holds no lease, or it is a witness.
    Elected,
    /// Decides.
    Controller,
    /// Must not go on.
    Halted,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SiteLog {
    node: NodeId,
    incarnation: Incarnation,
    peers: Vec<NodeId>,
    /// As in the site file; for founding.
    configured: Voters,
    timing: Timing,
    may_found: bool,
    may_vote: bool,
    random: Random,
    hard_state: HardState,
    /// What the medium holds of it, and what is on its way there.
    written: HardState,
    writing: Option<HardState>,
    role: Role,
    /// Who leads in this term, as far as is known.
    leader: Option<NodeId>,
    log: Log,
    committed: Index,
    applied: Index,
    /// The log agrees with the leader's up to there.
    matched: Index,
    /// The leader has committed so much.
    heard_commit: Index,
    /// Tickets of entries proposed here and not yet applied, by rising index.
    proposed: VecDeque<(Index, Ticket)>,
    /// The snapshot that is being written.
    snapshotting: Option<(Index, Term)>,
    /// The vote that is owed to a candidate once it is durable.
    owed: Option<Owed>,
    /// Promised by Appends (L1.3); what heartbeats promised is in the facts.
    promise: (Term, Instant),
    /// Promises to this term's controller are void: it gave up.
    released: Term,
    /// No vote before then: after a start or a sleep (L1.3).
    withheld_until: Instant,
    /// This node stands for election so long after that, or after its promise, ends.
    stand_after: Instant,
    delay: Duration,
    /// As controller: the log of each peer.
    progress: BTreeMap<NodeId, Progress>,
    elected_at: Instant,
    moves_from: Instant,
    /// When the chores of an office or of founding are due.
    chores_at: Instant,
    sending: Option<Sending>,
    receiving: Option<Receiving>,
    /// Another controller's snapshot is being written.
    installing: Option<Index>,
    facts: Facts,
    report: Report,
    sleeps: u64,
    /// As published last.
    orders: Orders,
    /// Leases in facts of older orders do not count: voters changed, or the machine slept.
    leases_since: u64,
    /// Ends what was promised to the partitions; `None` before the first promise and after sleep.
    lease_until: Option<Instant>,
}

impl SiteLog {
    /// A node's part of the site log as its meta disk holds it. Nothing is committed behind the snapshot until an entry
    /// of a new term is.
    ///
    /// # Panics
    /// If the entries have a hole or fall in term, which the store has checked.
    #[must_use]
    pub fn new(settings: Settings, recovered: Recovered) -> Self {
        let Settings {
            node,
            incarnation,
            peers,
            voters,
            timing,
            seed,
            may_found,
            may_vote,
        } = settings;
        // A site of one needs no entry to know its voter. All others are founded by one that names them.
        let first = if peers == [node] {
            Voters::alone(node, incarnation)
        } else {
            Voters::default()
        };
        let hard_state = recovered.hard_state;
        let log = Log::new(recovered, first);
        let snapshot = log.snapshot.0;
        let machine = Self {
            node,
            incarnation,
            peers,
            configured: voters,
            timing,
            may_found,
            may_vote,
            random: Random(seed),
            hard_state,
            written: hard_state,
            writing: None,
            role: Role::Idle,
            leader: None,
            log,
            committed: snapshot,
            applied: snapshot,
            matched: snapshot,
            heard_commit: snapshot,
            proposed: VecDeque::new(),
            snapshotting: None,
            owed: None,
            promise: (Term(0), Instant(0)),
            released: Term(0),
            withheld_until: Instant(0),
            stand_after: Instant(0),
            delay: Duration::ZERO,
            progress: BTreeMap::new(),
            elected_at: Instant(0),
            moves_from: Instant(0),
            chores_at: Instant(0),
            sending: None,
            receiving: None,
            installing: None,
            facts: Facts::default(),
            report: Report::default(),
            sleeps: 0,
            orders: Orders::default(),
            leases_since: 0,
            lease_until: None,
        };
        machine.check();
        machine
    }

    /// Takes what the beat thread knows, before a step. Nothing comes of it but in the next step.
    pub fn hear(&mut self, facts: Facts) {
        self.facts = facts;
    }

    /// Takes one fact at `now` and says what must happen next. Never waits, never fails.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Outbox<Effect>) {
        if self.role == Role::Halted {
            return;
        }
        match input {
            Input::Start => self.start(now, out),
            Input::HardStateDurable { term } => self.hard_state_durable(now, term, out),
            Input::Propose { ticket, bytes } => self.propose(now, ticket, bytes, out),
            Input::Durable { index } => self.durable(index, out),
            Input::SnapshotDurable { index } => self.snapshot_durable(index, out),
            Input::Encoded { index, bytes } => self.encoded(index, bytes),
            Input::Message(message) => self.message(now, *message, out),
            Input::Report(report) => self.report = *report,
            Input::Release => self.hand_over(now, None, out),
            Input::Promote => self.promote(now, out),
            Input::Slept => self.slept(now, out),
            Input::Tick => self.renew_alone(now, out),
        }
        self.settle(now, out);
        self.check();
    }

    /// When [`Input::Tick`] is due; `None` while nothing waits for time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.role {
            Role::Idle | Role::Halted => None,
            Role::Founding { .. } => Some(self.chores_at),
            Role::Elected | Role::Controller if self.is_alone() => self.alone_deadline(),
            Role::Elected | Role::Controller => Some(self.chores_at),
            Role::Follower | Role::PreCandidate { .. } | Role::Candidate { .. } => {
                self.may_stand().then(|| self.stands_at())
            }
        }
    }

    /// The term of this node.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The last entry applied.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// Whether this node decides: its proposals are taken, while its lease runs.
    #[must_use]
    pub fn is_controller(&self) -> bool {
        self.role == Role::Controller
    }

    /// Who leads in this term, as far as this node knows: where requests for the controller go.
    #[must_use]
    pub const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Who votes, as the last entry about it says; it may not be committed yet.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        self.log.voters()
    }

    fn leads(&self) -> bool {
        matches!(self.role, Role::Elected | Role::Controller)
    }

    fn is_alone(&self) -> bool {
        let voters = self.voters();
        voters.len() == 1 && voters.names(self.node, self.incarnation)
    }

    fn is_witness(&self) -> bool {
        self.voters().voter(self.node).is_some_and(|it| it.witness)
    }

    fn start(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        assert_eq!(self.role, Role::Idle, "a node starts once");
        if self.is_alone() {
            // A new term at every start: what an earlier life of this node proposed can't be mixed up with this one's.
            self.stand(now, None, out);
            return;
        }
        self.role = Role::Follower;
        if !is(Mutation::NoWithholding) {
            self.withheld_until = now + self.timing.promise;
        }
        self.draw_delay();
        self.begin_founding(now);
    }

    fn hard_state_durable(&mut self, now: Instant, term: Term, out: &mut Outbox<Effect>) {
        let Some(written) = self.writing.take_if(|writing| writing.term == term) else {
            return;
        };
        self.written = written;
        self.write_hard_state(out);
        self.own_vote(now, out);
        self.pay_vote(now, out);
        self.acknowledge(out);
    }

    fn set_hard_state(&mut self, term: Term, voted_for: Option<NodeId>, out: &mut Outbox<Effect>) {
        if term != self.hard_state.term {
            self.matched = self.committed;
            self.receiving = None;
        }
        self.hard_state = HardState { term, voted_for };
        self.write_hard_state(out);
    }

    /// One record at a time is on its way, so that an answer of the disk is about that one.
    fn write_hard_state(&mut self, out: &mut Outbox<Effect>) {
        if self.writing.is_none() && self.written != self.hard_state {
            self.writing = Some(self.hard_state);
            out.push(Effect::HardState(self.hard_state));
        }
    }

    /// Whether the term is durable before anything that is queued behind now.
    fn term_goes_first(&self) -> bool {
        let term = self.hard_state.term;
        self.written.term == term || self.writing.is_some_and(|writing| writing.term == term)
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Outbox<Effect>) {
        let known = message.from != self.node && self.peers.contains(&message.from);
        let meant = message.to == Incarnation::default() || message.to == self.incarnation;
        if self.role == Role::Idle || !known || !(meant || is(Mutation::ReplacementVotes)) {
            return;
        }
        // H56: half the step of a promotion tells it from any number of elections. An empty node has nothing to lose.
        let empty = self.log.last().0 == Index(0);
        if !empty && message.term.0 >= self.hard_state.term.0.saturating_add(PROMOTION / 2) {
            let (by, term) = (message.from, message.term);
            self.halt(now, Halt::Superseded { by, term }, out);
            return;
        }
        let Message {
            from,
            incarnation,
            term,
            body,
            ..
        } = message;
        match body {
            Body::Probe { round } => self.probed(from, incarnation, round, out),
            Body::Probed { round, empty } => {
                self.learn_empty(now, from, incarnation, round, empty, out)
            }
            Body::Vote { pre: true, last } => {
                self.pre_asked(now, from, incarnation, term, last, out)
            }
            Body::Vote { pre: false, last } => self.asked(now, from, incarnation, term, last, out),
            Body::Voted {
                pre,
                granted,
                early,
            } => {
                let vote = elect::Vote {
                    from,
                    incarnation,
                    term,
                    pre,
                    granted,
                    early,
                };
                self.voted(now, vote, out);
            }
            Body::Append {
                prev,
                entries,
                commit,
            } => {
                if self.follows(now, from, term, out) {
                    self.append(now, prev, entries, commit, out);
                }
            }
            Body::Chunk {
                last,
                voters,
                total,
                offset,
                bytes,
            } => {
                if self.follows(now, from, term, out) {
                    self.chunk(last, voters, (total, offset), &bytes, out);
                }
            }
            Body::Acked { durable } => {
                let durable = durable.min(self.log.last().0);
                if let Some(progress) = self.answered(now, from, incarnation, term, out) {
                    progress.acked(durable);
                }
            }
            Body::Missed { hint } => self.missed(now, from, incarnation, term, hint, out),
            Body::Taken { last, offset } => {
                if let Some(progress) = self.answered(now, from, incarnation, term, out) {
                    progress.taken(last, offset);
                }
            }
            Body::Release { successor } => self.release_heard(now, from, term, successor, out),
        }
    }

    fn halt(&mut self, now: Instant, why: Halt, out: &mut Outbox<Effect>) {
        self.step_down(out);
        self.role = Role::Halted;
        self.lease_until = None;
        out.push(Effect::LeaseUntil { until: now });
        self.publish(out);
        out.push(Effect::Halt(why));
    }

    fn send(&self, to: NodeId, meant: Incarnation, body: Body, out: &mut Outbox<Effect>) {
        self.send_in(self.hard_state.term, to, meant, body, out);
    }

    fn send_in(
        &self,
        term: Term,
        to: NodeId,
        meant: Incarnation,
        body: Body,
        out: &mut Outbox<Effect>,
    ) {
        let message = Message {
            from: self.node,
            incarnation: self.incarnation,
            to: meant,
            term,
            body,
        };
        out.push(Effect::Send {
            to,
            message: Box::new(message),
        });
    }

    /// What follows from the facts so far: commits, leases, office, orders, and what the peers are owed.
    fn settle(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if self.role == Role::Halted {
            return;
        }
        self.advance();
        self.apply(out);
        self.enter_office(now, out);
        self.renew(now, out);
        self.chores(now, out);
        self.replicate(now, out);
        self.publish(out);
    }

    fn apply(&mut self, out: &mut Outbox<Effect>) {
        if self.applied == self.committed {
            return;
        }
        while self.applied < self.committed {
            let index = self.applied.next();
            let entry = self
                .log
                .entry(index)
                .expect("what is committed and not applied lies behind the snapshot");
            let (term, bytes) = (entry.term, entry.bytes.clone());
            let ticket = self
                .proposed
                .pop_front_if(|(proposed, _)| *proposed == index)
                .map(|(_, ticket)| ticket);
            self.applied = index;
            out.push(Effect::Apply {
                index,
                term,
                bytes,
                ticket,
            });
        }
        self.want_snapshot(out);
    }

    /// What always holds.
    fn check(&self) {
        let last = self.log.last();
        assert!(
            self.log.snapshot.0 <= self.applied
                && self.applied <= self.committed
                && self.committed <= self.log.durable
                && self.log.durable <= last.0,
            "the site log's marks are out of order: {self:?}"
        );
        assert_eq!(
            last.0.0,
            self.log.snapshot.0.0 + self.log.entries.len() as u64,
            "the site log has a hole"
        );
        assert!(
            last.1 <= self.hard_state.term,
            "an entry of a term that has not come"
        );
        assert!(
            self.proposed
                .front()
                .is_none_or(|(index, _)| *index > self.applied),
            "an owner was not told"
        );
        assert!(
            self.proposed.len() <= PROPOSED_MAX,
            "more proposals than may wait"
        );
        assert!(
            self.leads() || (self.progress.is_empty() && self.proposed.is_empty()),
            "an office was left with its desk full"
        );
        assert!(
            !self.leads() || self.leader == Some(self.node),
            "a controller follows another"
        );
    }
}
