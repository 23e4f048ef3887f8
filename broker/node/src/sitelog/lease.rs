//! What is promised by time: to a controller by its voters, to a controller by a majority, to a node by the controller
//! (L1.3–L1.6).

use model::{Incarnation, Instant, NodeId};

use super::{
    Effect, InOffice, Index, LEASE_ALONE, Mutation, Office, Orders, Role, Seen, SiteLog, beat, is,
};
use crate::Outbox;

/// What a controller knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Which; never the controller itself.
    pub node: NodeId,
    /// The incarnation of its last beat in this office; `None` before the first. One that the catalog does not know is a
    /// node whose meta disk was replaced.
    pub incarnation: Option<Incarnation>,
    /// From then on it is dead unless it is heard again: no lease granted to it is running on any clock.
    pub dead_from: Instant,
    /// Its last beat. The shell gives it on to the controller's machine when `heard` has moved.
    pub seen: Seen,
}

impl SiteLog {
    /// The office, if this node may decide at `now`.
    #[must_use]
    pub fn office(&self, now: Instant) -> Option<InOffice> {
        let until = self.office_until();
        (self.role == Role::Controller && now < until).then_some(InOffice {
            term: self.hard_state.term,
            since: self.elected_at,
            until,
            moves_from: self.moves_from,
        })
    }

    /// What a controller knows of the other nodes; nothing elsewhere. The controller's machine is told what is new here
    /// before it decides anything after [`SiteLog::hear`]: the next step clears returned nodes for leases.
    pub fn nodes(&self) -> impl Iterator<Item = NodeSeen> {
        // Each gets the time to be heard a first time. Leases of earlier terms have passed (L1.4, L1.5).
        let first = self.elected_at + self.timing.promise;
        let others = self.seats_heard().filter(|(node, _)| *node != self.node);
        others
            .filter(|_| self.leads())
            .map(move |(node, seen)| NodeSeen {
                node,
                incarnation: seen.map(|seen| seen.incarnation),
                dead_from: seen.map_or(first, |seen| seen.dead_from),
                seen: seen.copied().unwrap_or_default(),
            })
    }

    fn seats_heard(&self) -> impl Iterator<Item = (NodeId, Option<&Seen>)> {
        let current = self.facts.office.0 == self.hard_state.term;
        let seats = self.peers.iter().zip(&self.facts.seats);
        seats.map(move |(node, seen)| (*node, (current && seen.heard > Instant(0)).then_some(seen)))
    }

    /// Leases for nodes that returned, from when they have applied what was decided without them.
    fn cleared(&self) -> [(Instant, Index); super::SEATS_MAX] {
        let mut cleared = self.orders.cleared;
        if self.role == Role::Controller {
            let last = self.log.last().0;
            for (seat, (_, seen)) in cleared.iter_mut().zip(self.seats_heard()) {
                if let Some(seen) = seen
                    && seat.0 != seen.returned
                {
                    *seat = (seen.returned, last);
                }
            }
        } else {
            cleared.fill((Instant(0), Index(0)));
        }
        cleared
    }

    /// Before then this voter elects nobody (L1.2, L1.3).
    pub(super) fn bound_until(&self) -> Instant {
        let promises = [self.promise, self.facts.promise];
        let open = promises
            .iter()
            .filter(|(term, _)| *term != self.released || term.0 == 0);
        let promised = open.map(|(_, until)| *until).max().unwrap_or_default();
        promised.max(self.withheld_until)
    }

    /// The same, had nobody given up.
    pub(super) fn bound_although_released(&self) -> Instant {
        self.promise.1.max(self.facts.promise.1)
    }

    pub(super) fn is_bound(&self, now: Instant) -> bool {
        now < self.bound_until() && !is(Mutation::VotesIgnorePromise)
    }

    /// L1.3: on each Append, as on each heartbeat.
    pub(super) fn promise(&mut self, now: Instant) {
        let until = now + beat::promised(&self.timing);
        self.promise = (self.hard_state.term, self.promise.1.max(until));
    }

    /// When the controller's own lease ends (L1.4).
    fn office_until(&self) -> Instant {
        if self.is_alone() {
            return self.lease_until.unwrap_or_default();
        }
        let (term, until) = self.facts.office;
        if term == self.hard_state.term && self.facts.obeyed >= self.leases_since {
            until
        } else {
            Instant(0)
        }
    }

    pub(super) fn enter_office(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let term = self.hard_state.term;
        let own = self.log.term_at(self.committed) == Some(term);
        if self.role != Role::Elected || !(own || is(Mutation::OfficeBeforeCommit)) {
            return;
        }
        if self.is_witness() {
            self.leave_to_another(now, out);
        } else if self.is_alone() || now < self.office_until() {
            self.role = Role::Controller;
            out.push(Effect::Controller {
                term,
                moves_from: self.moves_from,
            });
            // L1.4: it serves only now.
            self.renew_alone(now, out);
        }
    }

    /// L1.9: a witness brings the others up to date and goes.
    fn leave_to_another(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if is(Mutation::WitnessStays) {
            return;
        }
        let last = self.log.last().0;
        let fit = |voter: &&super::Voter| !voter.witness && self.matched_by(voter) == last;
        let fit = self.voters().iter().find(fit).map(|voter| voter.node);
        if fit.is_some() {
            self.hand_over(now, fit, out);
        }
    }

    /// A single voter's lease goes a day from when half of the last one has passed.
    pub(super) fn renew_alone(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let due = self
            .lease_until
            .is_none_or(|until| now >= until - LEASE_ALONE / 2);
        if self.role == Role::Controller && self.is_alone() && due {
            let until = now + LEASE_ALONE;
            self.lease_until = Some(until);
            out.push(Effect::LeaseUntil { until });
        }
    }

    /// Tells the partitions until when this node may serve.
    pub(super) fn renew(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let until = if self.leads() {
            if self.role == Role::Elected || self.is_alone() {
                return;
            }
            // It grants itself what it grants others.
            self.office_until().min(now + self.timing.lease)
        } else {
            let (term, until) = self.facts.granted;
            if term != self.hard_state.term || self.facts.obeyed < self.leases_since {
                return self.end_lease(now, out);
            }
            until
        };
        if until > self.lease_until.unwrap_or_default() && until > now {
            self.lease_until = Some(until);
            out.push(Effect::LeaseUntil { until });
        }
    }

    pub(super) fn end_lease(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if self.lease_until.take().is_some_and(|until| until > now) {
            out.push(Effect::LeaseUntil { until: now });
        }
    }

    pub(super) fn alone_deadline(&self) -> Option<Instant> {
        let decides = self.role == Role::Controller;
        // Without a lease at once; else at half of it.
        decides.then(|| {
            self.lease_until
                .map_or(Instant(0), |until| until - LEASE_ALONE / 2)
        })
    }

    /// Stamps of before are none of this clock's: leases are void, and no vote is given while an older promise may run.
    pub(super) fn slept(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        self.end_lease(now, out);
        if self.is_alone() || is(Mutation::SleepIgnored) {
            return;
        }
        self.withheld_until = now + self.timing.promise;
        self.sleeps += 1;
        // No facts count before the beat thread has heard of it.
        self.leases_since = self.orders.version + 1;
    }

    /// What waits for time.
    pub(super) fn chores(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        match self.role {
            Role::Follower | Role::PreCandidate { .. } | Role::Candidate { .. } => {
                self.maybe_stand(now, out);
            }
            Role::Founding { .. } => self.probe(now, out),
            Role::Elected | Role::Controller => {
                if now >= self.chores_at {
                    self.chores_at = now + self.timing.heartbeat;
                }
                // Without a majority for two leases it is no controller, and whoever waits for it is told.
                let seen = self
                    .office_until()
                    .max(self.elected_at + self.timing.promise);
                if !self.is_alone() && now > seen + self.timing.promise {
                    self.step_down(out);
                    self.stand_after = now + self.timing.heartbeat;
                }
            }
            Role::Idle | Role::Halted => {}
        }
    }

    /// Tells the beat thread what changed.
    pub(super) fn publish(&mut self, out: &mut Outbox<Effect>) {
        if self.peers.len() == 1 {
            return;
        }
        let mut voters = [None; super::SEATS_MAX];
        for (seat, peer) in voters.iter_mut().zip(&self.peers) {
            *seat = self.voters().voter(*peer).map(|voter| voter.incarnation);
        }
        self.report.applied = self.applied;
        let mut orders = Orders {
            version: self.orders.version,
            sleeps: self.sleeps,
            term: self.hard_state.term,
            office: match self.role {
                Role::Elected => Office::Elected,
                Role::Controller => Office::Controller,
                _ => Office::None,
            },
            commit: self.committed,
            voters,
            cleared: self.cleared(),
            report: self.report,
        };
        if orders == self.orders {
            return;
        }
        orders.version += 1;
        if voters != self.orders.voters || orders.sleeps != self.orders.sleeps {
            self.leases_since = orders.version;
        }
        self.orders = orders;
        out.push(Effect::Orders(Box::new(orders)));
    }
}
