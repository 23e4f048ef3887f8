//! Votes: who stands when, who gets one, and how an office ends (L1.1, L1.2, L1.9; Raft §5.2, pre-vote of Ongaro's
//! thesis §9.6).

use std::collections::BTreeSet;

use model::{Incarnation, Instant, NodeId, Term};

use super::{
    Body, Effect, Entry, HardState, Index, Mutation, PROMOTION, Record, Refusal, Role, SiteLog,
    Voters, is,
};
use crate::Outbox;
use crate::sitelog::replicate::Progress;

/// A vote that is given when it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owed {
    to: NodeId,
    incarnation: Incarnation,
    term: Term,
    /// While a promise to a released controller had not passed.
    early: bool,
}

/// An answer to a candidate.
pub(super) struct Vote {
    pub(super) from: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) term: Term,
    pub(super) pre: bool,
    pub(super) granted: bool,
    pub(super) early: bool,
}

impl SiteLog {
    /// Whether it is a voter that is not yet elected.
    pub(super) fn may_stand(&self) -> bool {
        self.may_vote
            && self.installing.is_none()
            && self.voters().names(self.node, self.incarnation)
    }

    pub(super) fn stands_at(&self) -> Instant {
        self.bound_until().max(self.stand_after) + self.delay
    }

    /// Each voter waits so much longer for each that stands before it, and a little by chance (H31).
    pub(super) fn draw_delay(&mut self) {
        let rank = u32::try_from(self.voters().rank(self.node)).expect("at most six");
        self.delay = self.timing.rank * rank + self.random.below(self.timing.jitter);
    }

    pub(super) fn maybe_stand(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if !self.may_stand() || now < self.stands_at() {
            return;
        }
        self.leader = None;
        self.role = Role::PreCandidate {
            votes: BTreeSet::from([self.node]),
        };
        // An answer needs no disk: a heartbeat's time is long.
        self.stand_after = now + self.timing.heartbeat;
        self.draw_delay();
        let asked = Term(self.hard_state.term.0 + 1);
        self.ask(asked, true, out);
        self.count(now, out);
    }

    /// Takes a new term and asks for votes in it. With `first` it asks nobody.
    pub(super) fn stand(&mut self, now: Instant, first: Option<Voters>, out: &mut Outbox<Effect>) {
        let step =
            if first.is_some() && self.log.last().0 > Index(0) && !is(Mutation::PromotedUnfenced) {
                PROMOTION
            } else {
                1
            };
        self.leader = None;
        self.owed = None;
        self.set_hard_state(Term(self.hard_state.term.0 + step), Some(self.node), out);
        let asks = first.is_none();
        self.role = Role::Candidate {
            votes: BTreeSet::new(),
            early: false,
            first,
        };
        // Votes need a flush each: as long as a promise, before it asks again.
        self.stand_after = now + self.timing.promise;
        self.draw_delay();
        if asks {
            // L1.1: while its own is being written.
            self.ask(self.hard_state.term, false, out);
        }
    }

    fn ask(&self, term: Term, pre: bool, out: &mut Outbox<Effect>) {
        let last = self.log.last();
        for voter in self.voters().iter().filter(|voter| voter.node != self.node) {
            let body = Body::Vote { pre, last };
            self.send_in(term, voter.node, voter.incarnation, body, out);
        }
    }

    pub(super) fn promote(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if self.leads() || self.installing.is_some() {
            return;
        }
        self.stand(now, Some(Voters::alone(self.node, self.incarnation)), out);
    }

    pub(super) fn pre_asked(
        &mut self,
        now: Instant,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        last: (Index, Term),
        out: &mut Outbox<Effect>,
    ) {
        if self.is_bound(now) || !self.may_vote {
            return;
        }
        let mine = self.hard_state;
        let open = term > mine.term
            || (term == mine.term && mine.voted_for.is_none_or(|voted| voted == from));
        let granted = open && self.would_elect(from, incarnation, last);
        // Granted in the term asked about, refused in one's own, which the candidate may not know.
        let in_term = if granted { term } else { mine.term };
        let body = Body::Voted {
            pre: true,
            granted,
            early: false,
        };
        self.send_in(in_term, from, incarnation, body, out);
    }

    pub(super) fn asked(
        &mut self,
        now: Instant,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        last: (Index, Term),
        out: &mut Outbox<Effect>,
    ) {
        // L1.2: while promised, a higher term in a Vote is ignored altogether.
        if self.is_bound(now) || !self.may_vote {
            return;
        }
        let mut mine = self.hard_state;
        if term > mine.term {
            self.step_down(out);
            self.owed = None;
            mine = HardState {
                term,
                voted_for: None,
            };
        }
        let free = mine.voted_for.is_none_or(|voted| voted == from);
        let granted =
            term == mine.term && free && !self.leads() && self.would_elect(from, incarnation, last);
        // Term and vote in one record: a vote costs one flush.
        self.set_hard_state(
            mine.term,
            if granted { Some(from) } else { mine.voted_for },
            out,
        );
        if !granted {
            let body = Body::Voted {
                pre: false,
                granted: false,
                early: false,
            };
            self.send(from, incarnation, body, out);
            return;
        }
        self.owed = Some(Owed {
            to: from,
            incarnation,
            term,
            early: now < self.bound_although_released(),
        });
        self.stand_after = now + self.timing.promise;
        if is(Mutation::VoteNotDurable) {
            self.written = self.hard_state;
        }
        self.pay_vote(now, out);
    }

    /// L1.2, but for promises: the candidate is a voter as registered, and its log is as long as mine. A candidate whose
    /// log is longer may know of voters that I don't: had I to know it, two voters could wait for each other for ever.
    fn would_elect(&self, from: NodeId, incarnation: Incarnation, last: (Index, Term)) -> bool {
        let mine = self.log.last();
        let (theirs, ours) = ((last.1, last.0), (mine.1, mine.0));
        let known = self.voters().voter(from);
        if theirs > ours || is(Mutation::VoteForShorterLog) {
            return true;
        }
        // L1.9: a witness whose log is no longer is not needed.
        let spare = known.is_some_and(|voter| voter.witness) && !is(Mutation::WitnessElected);
        let registered = known.is_some_and(|voter| voter.incarnation == incarnation);
        theirs == ours && registered && !spare
    }

    /// L1.1: durable before it is given; and nothing was promised to another meanwhile.
    pub(super) fn pay_vote(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let Some(owed) = self.owed.filter(|owed| {
            self.written.term == owed.term && self.written.voted_for == Some(owed.to)
        }) else {
            return;
        };
        self.owed = None;
        if self.hard_state == self.written && !self.is_bound(now) {
            let body = Body::Voted {
                pre: false,
                granted: true,
                early: owed.early,
            };
            self.send(owed.to, owed.incarnation, body, out);
        }
    }

    pub(super) fn own_vote(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if self.written != self.hard_state || self.hard_state.voted_for != Some(self.node) {
            return;
        }
        let passed = self.bound_although_released();
        let bound = self.is_bound(now) && !self.is_alone();
        if let Role::Candidate {
            votes,
            early,
            first,
        } = &mut self.role
            && (!bound || first.is_some())
        {
            *early |= now < passed;
            votes.insert(self.node);
            self.count(now, out);
        }
    }

    pub(super) fn voted(&mut self, now: Instant, vote: Vote, out: &mut Outbox<Effect>) {
        if vote.term > self.hard_state.term && !vote.granted {
            // Only who asked needs to know; it would leave a controller that it follows by now.
            if matches!(
                self.role,
                Role::PreCandidate { .. } | Role::Candidate { .. }
            ) {
                self.come_to(vote.term, out);
            }
            return;
        }
        // L1.8: a replaced node's vote is not the vote of the node that it replaces.
        let counts = self.voters().names(vote.from, vote.incarnation)
            || (is(Mutation::ReplacementVotes) && self.voters().voter(vote.from).is_some());
        if !vote.granted || !counts {
            return;
        }
        match &mut self.role {
            Role::PreCandidate { votes }
                if vote.pre && vote.term.0 == self.hard_state.term.0 + 1 =>
            {
                votes.insert(vote.from);
            }
            Role::Candidate { votes, early, .. }
                if !vote.pre && vote.term == self.hard_state.term =>
            {
                votes.insert(vote.from);
                *early |= vote.early;
            }
            _ => return,
        }
        self.count(now, out);
    }

    fn count(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let enough = self.voters().majority();
        match &self.role {
            Role::PreCandidate { votes } if votes.len() >= enough && !self.is_bound(now) => {
                self.stand(now, None, out);
            }
            // Its own is among them, or it does not know yet that it is durable.
            Role::Candidate {
                votes,
                early,
                first,
            } if votes.contains(&self.node) && (first.is_some() || votes.len() >= enough) => {
                let (early, first) = (*early, first.clone());
                self.elected(now, early, first, out);
            }
            _ => {}
        }
    }

    fn elected(
        &mut self,
        now: Instant,
        early: bool,
        first: Option<Voters>,
        out: &mut Outbox<Effect>,
    ) {
        self.role = Role::Elected;
        self.leader = Some(self.node);
        self.elected_at = now;
        self.chores_at = now + self.timing.heartbeat;
        // L1.6: leases that a released controller granted may be running; its own lease is not.
        self.moves_from = if early && !is(Mutation::ReleaseUnawaited) {
            now + self.timing.promise
        } else {
            now
        };
        let next = self.log.last().0.next();
        let others = self.peers.iter().filter(|peer| **peer != self.node);
        self.progress = others.map(|peer| (*peer, Progress::new(next))).collect();
        let entry = first.map_or(Entry::Term, Entry::Voters);
        let bytes = Record::broker(entry)
            .encode()
            .expect("a handful of voters is small");
        self.push(bytes, out);
    }

    /// Comes to a later term, in which nothing is known yet.
    pub(super) fn come_to(&mut self, term: Term, out: &mut Outbox<Effect>) {
        self.step_down(out);
        self.owed = None;
        self.set_hard_state(term, None, out);
    }

    /// Leaves an office or a candidacy, in the same term.
    pub(super) fn step_down(&mut self, out: &mut Outbox<Effect>) {
        if self.leads() {
            for (_, ticket) in self.proposed.drain(..) {
                out.push(Effect::Refuse {
                    ticket,
                    refusal: Refusal::Unknown,
                });
            }
            self.progress.clear();
            self.sending = None;
            self.matched = self.committed;
            let term = self.hard_state.term;
            out.push(Effect::Resigned { term });
        }
        self.leader = None;
        self.role = Role::Follower;
        self.draw_delay();
    }

    /// Gives up the office: to `successor`, or to the most advanced voter that holds partitions.
    pub(super) fn hand_over(
        &mut self,
        now: Instant,
        successor: Option<NodeId>,
        out: &mut Outbox<Effect>,
    ) {
        let others = self
            .voters()
            .iter()
            .filter(|it| it.node != self.node && !it.witness);
        let fittest = others
            .max_by_key(|it| self.matched_by(it))
            .map(|it| it.node);
        let Some(successor) = successor.or(fittest).filter(|_| self.leads()) else {
            return;
        };
        let term = self.hard_state.term;
        let voters = self.voters().clone();
        self.step_down(out);
        self.released = term;
        self.end_lease(now, out);
        self.stand_after = now + self.timing.promise;
        // The beat thread stops first: what it earned or granted until then was sent before the release.
        self.publish(out);
        for voter in voters.iter().filter(|voter| voter.node != self.node) {
            self.send(
                voter.node,
                voter.incarnation,
                Body::Release { successor },
                out,
            );
        }
    }

    pub(super) fn release_heard(
        &mut self,
        now: Instant,
        from: NodeId,
        term: Term,
        successor: NodeId,
        out: &mut Outbox<Effect>,
    ) {
        let current = term == self.hard_state.term && self.leader.is_none_or(|it| it == from);
        if !current || self.leads() {
            return;
        }
        self.released = term;
        self.leader = None;
        if successor == self.node && self.may_stand() && !self.is_bound(now) {
            self.stand(now, None, out);
        } else {
            // The successor goes first.
            self.stand_after = now + self.timing.heartbeat;
        }
    }
}
