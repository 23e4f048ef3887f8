//! What clients and operators want of topics and nodes: one entry after the other, each planned against what is applied,
//! so that the next one's room is counted when the last one's is taken. What makes or changes a topic is answered when
//! every live node knows it, in time or not at all.

use std::collections::{BTreeSet, VecDeque};

use model::{Instant, NodeId};

use super::rows::Pack;
use super::types::{Answer, Effect, MoveFault, Wish};
use super::{Controller, Planning, Then};
use crate::catalog::{Catalog, Fault, PlannedTopic};
use crate::mutation::{self, Mutation};
use crate::sitelog::{Actor, Entry, Index, Record};
use crate::{Outbox, Ticket};

/// Wishes that wait for their turn, and answers that wait for the nodes; more of either are refused.
const WISHES_MAX: usize = 256;

/// A wish that waits, or is on its way.
#[derive(Debug)]
pub(super) struct Queued {
    ticket: Ticket,
    actor: Actor,
    deadline: Instant,
    wish: Wish,
    /// Of a reassignment, what is decided, in its order.
    moved: Vec<Option<Result<(), MoveFault>>>,
    made: Option<Box<PlannedTopic>>,
}

/// An applied entry that not every live node has applied yet.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    deadline: Instant,
    index: Index,
    answer: Answer,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    queue: VecDeque<Queued>,
    waiting: Vec<Waiting>,
}

impl Wishes {
    pub(super) fn due(&self) -> Option<Instant> {
        let queued = self.queue.iter().map(|queued| queued.deadline);
        let waiting = self.waiting.iter().map(|waiting| waiting.deadline);
        queued.chain(waiting).min()
    }

    /// Nobody here decides any more. What was applied may not be known everywhere.
    pub(super) fn give_up(&mut self, out: &mut Outbox<Effect>) {
        for queued in self.queue.drain(..) {
            queued.answer(Answer::NotController, out);
        }
        for waiting in self.waiting.drain(..) {
            let (ticket, answer) = (waiting.ticket, Answer::TimedOut);
            out.push(Effect::Answer { ticket, answer });
        }
    }

    /// Answers what is late.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        self.queue.retain_mut(|queued| {
            let late = now >= queued.deadline;
            if late {
                queued.late(out);
            }
            !late
        });
        self.waiting.retain(|waiting| {
            let late = now >= waiting.deadline;
            if late {
                let (ticket, answer) = (waiting.ticket, Answer::TimedOut);
                out.push(Effect::Answer { ticket, answer });
            }
            !late
        });
    }
}

impl Queued {
    pub(super) fn answer(self, answer: Answer, out: &mut Outbox<Effect>) {
        let ticket = self.ticket;
        out.push(Effect::Answer { ticket, answer });
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Its time is over, or its entry's fate is unknown.
    pub(super) fn late(&mut self, out: &mut Outbox<Effect>) {
        let answer = match &self.wish {
            Wish::Reassign(_) => {
                for outcome in &mut self.moved {
                    outcome.get_or_insert(Err(MoveFault::TimedOut));
                }
                self.reassigned()
            }
            _ => Answer::TimedOut,
        };
        let ticket = self.ticket;
        out.push(Effect::Answer { ticket, answer });
    }

    fn reassigned(&mut self) -> Answer {
        let Wish::Reassign(rows) = &self.wish else {
            return Answer::Done;
        };
        let outcomes = std::mem::take(&mut self.moved);
        let outcome = |((id, _), outcome): (&(_, _), Option<_>)| (*id, outcome.unwrap_or(Ok(())));
        Answer::Reassigned(rows.iter().zip(outcomes).map(outcome).collect())
    }
}

impl Controller {
    pub(super) fn wish(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        (ticket, actor, deadline): (Ticket, Actor, Instant),
        wish: Wish,
        out: &mut Outbox<Effect>,
    ) {
        if !self.decides(now) {
            let answer = Answer::NotController;
            return out.push(Effect::Answer { ticket, answer });
        }
        if let Wish::Elect {
            unclean,
            partitions,
        } = wish
        {
            return self.elect(now, catalog, (ticket, deadline), unclean, partitions, out);
        }
        if self.wishes.queue.len() + self.wishes.waiting.len() >= WISHES_MAX {
            let answer = Answer::TimedOut;
            return out.push(Effect::Answer { ticket, answer });
        }
        let moved = match &wish {
            Wish::Reassign(rows) => rows.iter().map(|_| None).collect(),
            _ => Vec::new(),
        };
        self.wishes.queue.push_back(Queued {
            ticket,
            actor,
            deadline,
            wish,
            moved,
            made: None,
        });
        self.dirty = true;
    }

    /// The next wish that becomes an entry; those that can't be are answered on the way.
    pub(super) fn plan_wish(
        &mut self,
        planning: &mut Planning<'_>,
        out: &mut Outbox<Effect>,
    ) -> Option<(Record, Then)> {
        // Before the site's own topics stand, their names and their room would be given away.
        let waits = |queued: &Queued| {
            let makes = matches!(
                queued.wish,
                Wish::CreateTopic { .. } | Wish::CreatePartitions { .. }
            );
            makes && !self.wanted.is_empty()
        };
        let mut at = 0;
        while at < self.wishes.queue.len() {
            if waits(&self.wishes.queue[at]) {
                at += 1;
                continue;
            }
            let mut queued = self.wishes.queue.remove(at)?;
            let planned = match &queued.wish {
                Wish::Reassign(rows) => {
                    let rows = rows.clone();
                    let mut pack = Pack::default();
                    self.plan_moves(planning, &rows, &mut queued.moved, &mut pack);
                    if pack.is_empty() {
                        let answer = queued.reassigned();
                        queued.answer(answer, out);
                        continue;
                    }
                    let (entry, changes) = pack.finish();
                    let actor = queued.actor.clone();
                    let entry = Some(entry);
                    return Some((Record { actor, entry }, Then::Moves(queued, changes)));
                }
                wish => self.plan_entry(planning.catalog, wish),
            };
            match planned {
                Err(fault) => queued.answer(Answer::Refused(fault), out),
                Ok((None, _)) => queued.answer(Answer::Done, out),
                Ok((Some(entry), made)) => {
                    queued.made = made;
                    let actor = queued.actor.clone();
                    let entry = Some(entry);
                    return Some((Record { actor, entry }, Then::Wish(queued)));
                }
            }
        }
        None
    }

    /// As much of a reassignment as one entry holds.
    fn plan_moves(
        &self,
        planning: &mut Planning<'_>,
        rows: &[(model::TopicPartition, Option<Vec<NodeId>>)],
        moved: &mut [Option<Result<(), MoveFault>>],
        pack: &mut Pack,
    ) {
        for ((id, to), outcome) in rows.iter().zip(moved) {
            if outcome.is_some() {
                continue;
            }
            match self.reassign(planning, *id, to.as_deref()) {
                Err(fault) => *outcome = Some(Err(fault)),
                Ok(None) => *outcome = Some(Ok(())),
                // Said when it is applied.
                Ok(Some(change)) => {
                    if !pack.add(change) {
                        return;
                    }
                }
            }
        }
    }

    fn plan_entry(
        &self,
        catalog: &Catalog,
        wish: &Wish,
    ) -> Result<(Option<Entry>, Option<Box<PlannedTopic>>), Fault> {
        let entry = match wish {
            Wish::CreateTopic { asked, id } => {
                let planned = catalog.create_topic(asked, *id)?;
                return Ok((Some(planned.entry.clone()), Some(Box::new(planned))));
            }
            Wish::DeleteTopic(id) => catalog.delete_topic(*id)?,
            Wish::CreatePartitions {
                name,
                count,
                assignment,
            } => catalog.create_partitions(name, *count, assignment.as_deref())?,
            Wish::SetConfigs { name, configs } => catalog.set_configs(name, configs)?,
            Wish::AlterConfigs { name, changes } => catalog.alter_configs(name, changes)?,
            Wish::Drain { node, on } => return Ok((drain(catalog, *node, *on)?, None)),
            Wish::ProducerIds(node) => catalog.producer_ids_of(*node),
            Wish::Reassign(_) | Wish::Elect { .. } => return Ok((None, None)),
        };
        Ok((Some(entry), None))
    }

    /// A wish's entry is applied here.
    pub(super) fn granted(&mut self, index: Index, queued: Queued, out: &mut Outbox<Effect>) {
        let everywhere = matches!(
            queued.wish,
            Wish::CreateTopic { .. } | Wish::DeleteTopic(_) | Wish::CreatePartitions { .. }
        ) && !mutation::is(Mutation::AnsweredBeforeApplied);
        let Queued {
            ticket,
            deadline,
            made,
            ..
        } = queued;
        let answer = made.map_or(Answer::Done, Answer::Created);
        if everywhere {
            self.wishes.waiting.push(Waiting {
                ticket,
                deadline,
                index,
                answer,
            });
        } else {
            out.push(Effect::Answer { ticket, answer });
        }
    }

    /// Part of a reassignment is applied: the rest has its turn at once.
    pub(super) fn moved(
        &mut self,
        mut queued: Queued,
        done: &[super::rows::Change],
        out: &mut Outbox<Effect>,
    ) {
        let done: BTreeSet<_> = done.iter().map(|change| change.id).collect();
        if let Wish::Reassign(rows) = &queued.wish {
            for ((id, _), outcome) in rows.iter().zip(&mut queued.moved) {
                if done.contains(id) {
                    outcome.get_or_insert(Ok(()));
                }
            }
        }
        if queued.moved.iter().all(Option::is_some) {
            let answer = queued.reassigned();
            queued.answer(answer, out);
        } else {
            self.wishes.queue.push_front(queued);
        }
    }

    /// Answers what every live node knows by now.
    pub(super) fn known_everywhere(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        out: &mut Outbox<Effect>,
    ) {
        let mut known = Vec::new();
        let (health, waiting) = (&self.health, &mut self.wishes.waiting);
        waiting.retain_mut(|waiting| {
            let applied = health.applied(now, catalog, waiting.index);
            if applied {
                let answer = std::mem::replace(&mut waiting.answer, Answer::Done);
                known.push((waiting.ticket, answer));
            }
            !applied
        });
        for (ticket, answer) in known {
            out.push(Effect::Answer { ticket, answer });
        }
    }
}

/// One node at a time: two that lead nothing leave a site of three to one.
fn drain(catalog: &Catalog, node: NodeId, on: bool) -> Result<Option<Entry>, Fault> {
    let Some(row) = catalog.node(node) else {
        return Err(Fault::InvalidRequest(format!(
            "this site has no broker {}",
            node.0
        )));
    };
    if row.draining == on {
        return Ok(None);
    }
    let other = catalog
        .nodes()
        .find(|(id, row)| *id != node && row.draining);
    match other.filter(|_| on && !mutation::is(Mutation::TwoDrain)) {
        Some((other, _)) => Err(Fault::InvalidRequest(format!(
            "broker {} is drained already, and one at a time is",
            other.0
        ))),
        None => Ok(Some(Entry::Drain { node, on })),
    }
}
