//! The controller's side of the log: proposals, what each peer is sent, and what a majority holds (Raft §5.3, §5.4.2).

use std::collections::VecDeque;

use model::{Incarnation, Instant, NodeId, Term};

use super::{
    APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, Appended, Body, Effect, Index, LOG_BYTES_MAX,
    LOG_ENTRIES_MAX, LogEntry, Mutation, PROPOSED_MAX, RECORD_BYTES_MAX, Refusal, Role,
    SNAPSHOT_SLACK, SiteLog, Voter, is, log,
};
use crate::{Outbox, Ticket};

/// Appends on their way to one peer: with the largest, 256 KiB.
const FLIGHT_MAX: usize = 4;

/// What the controller knows of a peer's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// Of which incarnation it is known; zero before the first answer.
    pub(super) incarnation: Incarnation,
    /// Durable there up to this one.
    pub(super) matched: Index,
    /// The next to be sent.
    pub(super) next: Index,
    /// Where the logs agree is not known: one Append at a time.
    probing: bool,
    /// The last entries of Appends that were not answered.
    flight: VecDeque<Index>,
    /// What was not answered by then is sent again.
    pub(super) again_at: Option<Instant>,
    /// So much it was told is committed.
    told: Index,
    /// It is sent a snapshot: so many bytes have been taken.
    pub(super) chunk: Option<u32>,
    /// Which snapshot.
    pub(super) of: Index,
}

impl Progress {
    pub(super) const fn new(next: Index) -> Self {
        Self {
            incarnation: Incarnation(model::Uuid::ZERO),
            matched: Index(0),
            next,
            probing: true,
            flight: VecDeque::new(),
            again_at: None,
            told: Index(0),
            chunk: None,
            of: Index(0),
        }
    }

    pub(super) fn acked(&mut self, durable: Index) {
        self.matched = self.matched.max(durable);
        if durable < self.of && self.chunk.is_some() {
            return;
        }
        self.chunk = None;
        self.probing = false;
        while self.flight.pop_front_if(|last| *last <= durable).is_some() {}
        self.next = self.next.max(self.matched.next());
        if self.flight.is_empty() {
            self.again_at = None;
        }
    }

    pub(super) fn taken(&mut self, last: Index, offset: u32) {
        if self.of == last && self.chunk.is_some_and(|taken| taken != offset) {
            self.chunk = Some(offset);
            self.again_at = None;
        }
    }

    fn probe_from(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.probing = true;
        self.flight.clear();
        self.again_at = None;
    }
}

impl SiteLog {
    pub(super) fn propose(
        &mut self,
        now: Instant,
        ticket: Ticket,
        bytes: Vec<u8>,
        out: &mut Outbox<Effect>,
    ) {
        let refusal =
            if self.role != Role::Controller || !(self.is_alone() || self.office(now).is_some()) {
                Some(Refusal::NotController)
            } else if bytes.len() > RECORD_BYTES_MAX {
                Some(Refusal::TooLarge)
            } else if self.proposed.len() >= PROPOSED_MAX
                || self.log.entries.len() >= SNAPSHOT_SLACK * LOG_ENTRIES_MAX
                || self.log.bytes >= SNAPSHOT_SLACK * LOG_BYTES_MAX
            {
                Some(Refusal::Crowded)
            } else if !self.voters_may_follow(&bytes) {
                Some(Refusal::Voters)
            } else {
                None
            };
        match refusal {
            Some(refusal) => out.push(Effect::Refuse { ticket, refusal }),
            None => {
                let index = self.push(bytes, out);
                self.proposed.push_back((index, ticket));
            }
        }
    }

    /// L1.7: one voter at a time, after the last change is committed and with it an entry of this term; the controller
    /// takes its own vote only by giving up first.
    fn voters_may_follow(&self, bytes: &[u8]) -> bool {
        let Some(next) = log::voters_of(bytes) else {
            return true;
        };
        let settled = self.log.voters_since() <= self.committed
            && self.log.term_at(self.committed) == Some(self.hard_state.term)
            && self.voters().is_one_step_from(&next);
        (settled || is(Mutation::VotersAtOnce))
            && next.names(self.node, self.incarnation)
            && next.iter().all(|voter| self.peers.contains(&voter.node))
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>, out: &mut Outbox<Effect>) -> Index {
        let index = self.log.last().0.next();
        let entry = LogEntry {
            index,
            term: self.hard_state.term,
            bytes,
        };
        self.log.push(entry.clone());
        out.push(Effect::Append(entry));
        index
    }

    pub(super) fn durable(&mut self, index: Index, out: &mut Outbox<Effect>) {
        assert!(
            index <= self.log.last().0,
            "an entry is durable that was never appended"
        );
        self.log.durable = self.log.durable.max(index);
        self.acknowledge(out);
    }

    /// Up to where a voter's log is durable and agrees with this one.
    pub(super) fn matched_by(&self, voter: &Voter) -> Index {
        if voter.node == self.node {
            return self.log.durable;
        }
        let progress = self.progress.get(&voter.node);
        progress
            .filter(|it| it.incarnation == voter.incarnation || is(Mutation::ReplacementVotes))
            .map_or(Index(0), |it| it.matched)
    }

    /// Moves the commit: as controller by count, as follower by what the controller said.
    pub(super) fn advance(&mut self) {
        let (heard_term, heard) = self.facts.commit;
        if heard_term == self.hard_state.term && !self.leads() {
            self.heard_commit = self.heard_commit.max(heard);
        }
        let may = if self.leads() {
            let held = self.voters().majority_has(|voter| self.matched_by(voter));
            let held = held.min(self.log.durable);
            // Raft §5.4.2: only an entry of the own term commits by count, and with it all before.
            let own = self.log.term_at(held) == Some(self.hard_state.term);
            if own || is(Mutation::OldTermCommitted) {
                held
            } else {
                Index(0)
            }
        } else {
            self.heard_commit.min(self.matched).min(self.log.durable)
        };
        self.committed = self.committed.max(may);
    }

    pub(super) fn answered(
        &mut self,
        now: Instant,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        out: &mut Outbox<Effect>,
    ) -> Option<&mut Progress> {
        if term > self.hard_state.term {
            // Somebody stood in a later term and can't follow this one's controller any more.
            self.come_to(term, out);
            self.stand_after = now;
            return None;
        }
        if term < self.hard_state.term || !self.leads() {
            return None;
        }
        let next = self.log.last().0.next();
        let progress = self.progress.get_mut(&from)?;
        if progress.incarnation != incarnation {
            *progress = Progress::new(next);
            progress.incarnation = incarnation;
        }
        Some(progress)
    }

    pub(super) fn missed(
        &mut self,
        now: Instant,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        hint: (Index, Term),
        out: &mut Outbox<Effect>,
    ) {
        let agreed = self.log.may_agree(hint.0, hint.1).0;
        if let Some(progress) = self.answered(now, from, incarnation, term, out)
            && hint.0 < progress.next
        {
            // Behind the snapshot the hint itself says what is missing.
            progress.probe_from(agreed.min(hint.0).next());
        }
    }

    /// Sends each peer what it lacks and is not already on its way.
    pub(super) fn replicate(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if !self.leads() {
            return;
        }
        let peers: heapless::Vec<NodeId, { super::SEATS_MAX }> =
            self.progress.keys().copied().collect();
        for peer in peers {
            let Some(mut progress) = self.progress.remove(&peer) else {
                continue;
            };
            self.send_entries(now, peer, &mut progress, out);
            self.progress.insert(peer, progress);
        }
        self.let_snapshot_go();
    }

    fn send_entries(
        &mut self,
        now: Instant,
        to: NodeId,
        progress: &mut Progress,
        out: &mut Outbox<Effect>,
    ) {
        if progress.again_at.is_some_and(|again| again <= now) {
            let chunk = progress.chunk;
            progress.probe_from(progress.matched.next());
            progress.chunk = chunk;
        }
        loop {
            if progress.chunk.is_some() {
                return self.send_chunk(now, to, progress, out);
            }
            let before = Index(progress.next.0 - 1);
            let Some(term) = self.log.term_at(before) else {
                // It needs what is only in the snapshot.
                progress.chunk = Some(0);
                progress.of = Index(0);
                continue;
            };
            let behind = progress.next <= self.log.last().0;
            let full = progress.flight.len() >= FLIGHT_MAX;
            let asked = progress.probing && progress.again_at.is_some();
            let untold = progress.told < self.committed || progress.probing;
            if asked || full || !(behind || untold) {
                return;
            }
            let entries = self.batch(progress.next);
            progress.next.0 += entries.len() as u64;
            let body = Body::Append {
                prev: (before, term),
                entries,
                commit: self.committed,
            };
            // Whoever is there: a replaced node must hear it to be known by its answer.
            self.send(to, Incarnation::default(), body, out);
            progress.told = self.committed;
            if behind || progress.probing {
                progress.flight.push_back(Index(progress.next.0 - 1));
                progress
                    .again_at
                    .get_or_insert(now + self.timing.heartbeat * 2);
            }
        }
    }

    fn batch(&self, from: Index) -> Vec<Appended> {
        let mut bytes = 0;
        let first =
            usize::try_from(from.0 - self.log.snapshot.0.0 - 1).expect("behind the snapshot");
        let rest = self.log.entries.range(first.min(self.log.entries.len())..);
        let fitting = rest.take(APPEND_ENTRIES_MAX).take_while(|entry| {
            let alone = bytes == 0;
            // 16 for its term and its length.
            bytes += entry.bytes.len() + 16;
            alone || bytes <= APPEND_BYTES_MAX
        });
        fitting.map(Appended::from).collect()
    }
}
