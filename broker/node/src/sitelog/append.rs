//! The follower's side of the log: it takes the controller's entries and says what is durable (Raft §5.3).

use model::{Instant, NodeId, Term};

use super::{
    Appended, Body, Effect, Halt, Incarnation, Index, LOG_BYTES_MAX, LOG_ENTRIES_MAX, LogEntry,
    Mutation, Role, SNAPSHOT_SLACK, SiteLog, is,
};
use crate::Outbox;

impl SiteLog {
    /// Whether a message of `from` in `term` is this term's controller's; then it is followed, and promised to (L1.3).
    pub(super) fn follows(
        &mut self,
        now: Instant,
        from: NodeId,
        term: Term,
        out: &mut Outbox<Effect>,
    ) -> bool {
        if term < self.hard_state.term {
            // Its term is over; it learns that from the answer's.
            let hint = (Index(0), Term(0));
            self.send(from, Incarnation::default(), Body::Missed { hint }, out);
            return false;
        }
        if term > self.hard_state.term {
            self.come_to(term, out);
        }
        if self.leads() || self.leader.is_some_and(|leader| leader != from) {
            // Two controllers in one term: not by this protocol.
            return false;
        }
        self.role = Role::Follower;
        self.leader = Some(from);
        self.promise(now);
        self.installing.is_none() && self.term_goes_first()
    }

    pub(super) fn append(
        &mut self,
        now: Instant,
        prev: (Index, Term),
        entries: Vec<Appended>,
        commit: Index,
        out: &mut Outbox<Effect>,
    ) {
        self.heard_commit = self.heard_commit.max(commit);
        // What is committed agrees with every controller's log.
        if prev.0 > self.committed && self.log.term_at(prev.0) != Some(prev.1) {
            let before = Index(prev.0.0 - 1);
            let hint = self.log.may_agree(before.min(self.log.last().0), prev.1);
            self.tell_leader(Body::Missed { hint }, out);
            return;
        }
        let mut index = prev.0;
        for Appended { term, bytes } in entries {
            index = index.next();
            if index <= self.log.snapshot.0 {
                continue;
            }
            match self.log.term_at(index) {
                Some(here) if here == term => {}
                Some(_) if index <= self.committed => {
                    return self.halt(now, Halt::Diverged { index }, out);
                }
                // A cut waits for the disk to answer what it cuts, so that no answer is taken for another entry's. The
                // controller asks again.
                Some(_) if self.log.durable < self.log.last().0 => return,
                here => {
                    if here.is_some() {
                        self.log.cut(index);
                    }
                    if !self.has_room() || term > self.hard_state.term || term < self.log.last().1 {
                        index.0 -= 1;
                        break;
                    }
                    let entry = LogEntry { index, term, bytes };
                    self.log.push(entry.clone());
                    out.push(Effect::Append(entry));
                }
            }
        }
        self.matched = self.matched.max(index.min(self.log.last().0));
        self.acknowledge(out);
    }

    fn has_room(&self) -> bool {
        self.log.entries.len() < SNAPSHOT_SLACK * LOG_ENTRIES_MAX
            && self.log.bytes < SNAPSHOT_SLACK * LOG_BYTES_MAX
    }

    /// Says how far the log agrees and is durable, once the term is.
    pub(super) fn acknowledge(&self, out: &mut Outbox<Effect>) {
        if self.leads() || self.installing.is_some() || self.written.term != self.hard_state.term {
            return;
        }
        let durable = if is(Mutation::AckBeforeDurable) {
            self.matched
        } else {
            self.matched.min(self.log.durable)
        };
        self.tell_leader(Body::Acked { durable }, out);
    }

    pub(super) fn tell_leader(&self, body: Body, out: &mut Outbox<Effect>) {
        if let Some(leader) = self.leader.filter(|leader| *leader != self.node) {
            self.send(leader, Incarnation::default(), body, out);
        }
    }
}
