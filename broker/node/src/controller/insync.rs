//! AlterIsr: leaders say who is in sync, compared with what is applied and set (R6, H25).

use std::collections::BTreeMap;

use model::{Instant, NodeId, TopicPartition};

use super::health::Standing;
use super::rows::{Change, Draft};
use super::types::{Decision, Effect};
use super::{Controller, Planning};
use crate::catalog::{Catalog, Partition};
use crate::mutation::{self, Mutation};
use crate::partition::Member;
use crate::peer::{AlterIsr, ISR_ROWS_MAX, IsrOutcome};
use crate::sitelog::Replica;
use crate::{Outbox, Ticket};

/// What leaders asked and were not answered: one request of each, since a leader asks again when it was not answered.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeMap<NodeId, Request>);

/// Whose request, and which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) node: NodeId,
    pub(super) ticket: Ticket,
}

#[derive(Debug)]
struct Request {
    ticket: Ticket,
    rows: Vec<(AlterIsr, Option<IsrOutcome>)>,
}

impl Request {
    fn answer(self, out: &mut Outbox<Effect>) {
        let rows = self.rows.into_iter().map(|(asked, outcome)| {
            let outcome = outcome.unwrap_or(IsrOutcome::NotController);
            (asked.partition, asked.epoch, asked.part_ver, outcome)
        });
        out.push(Effect::AlterIsr {
            ticket: self.ticket,
            rows: rows.collect(),
        });
    }
}

impl Asked {
    /// Takes a request; an earlier one of the same node is answered with what is known of it.
    pub(super) fn take(
        &mut self,
        ticket: Ticket,
        node: NodeId,
        mut rows: Vec<AlterIsr>,
        out: &mut Outbox<Effect>,
    ) {
        rows.truncate(ISR_ROWS_MAX);
        let rows = rows.into_iter().map(|row| (row, None)).collect();
        if let Some(earlier) = self.0.insert(node, Request { ticket, rows }) {
            earlier.answer(out);
        }
    }

    /// Nobody here decides any more.
    pub(super) fn give_up(&mut self, out: &mut Outbox<Effect>) {
        for (_, request) in std::mem::take(&mut self.0) {
            request.answer(out);
        }
    }

    /// The undecided rows by partition, for one pass over all partitions.
    pub(super) fn undecided(&self) -> BTreeMap<TopicPartition, Vec<(Asker, AlterIsr)>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (node, request) in &self.0 {
            for (asked, outcome) in &request.rows {
                if outcome.is_none() {
                    let asker = Asker {
                        node: *node,
                        ticket: request.ticket,
                    };
                    all.entry(asked.partition)
                        .or_default()
                        .push((asker, asked.clone()));
                }
            }
        }
        all
    }

    /// What became of a row that was asked for. A later request of the same node may name the same partition and ask
    /// something else.
    pub(super) fn decided(&mut self, asker: Asker, id: TopicPartition, outcome: IsrOutcome) {
        let request = self
            .0
            .get_mut(&asker.node)
            .filter(|request| request.ticket == asker.ticket);
        let rows = request.into_iter().flat_map(|request| &mut request.rows);
        for (asked, known) in rows {
            if asked.partition == id && known.is_none() {
                *known = Some(outcome);
            }
        }
    }

    /// Answers the requests of which every row is decided.
    pub(super) fn answer(&mut self, out: &mut Outbox<Effect>) {
        let whole =
            |_: &NodeId, request: &mut Request| request.rows.iter().all(|(_, it)| it.is_some());
        for (_, request) in self.0.extract_if(.., whole) {
            request.answer(out);
        }
    }
}

impl Controller {
    /// The change that a leader asks for, or why it is none.
    pub(super) fn alter_isr(
        &self,
        now: Instant,
        planning: &Planning<'_>,
        asker: Asker,
        asked: &AlterIsr,
    ) -> Result<Change, IsrOutcome> {
        let catalog = planning.catalog;
        let id = asked.partition;
        let row = catalog.partition_row(id).ok_or(IsrOutcome::Refused)?;
        if asked.epoch != row.epoch && !mutation::is(Mutation::AlterIsrOfAnyEpoch) {
            return Err(IsrOutcome::Fenced);
        }
        if asked.part_ver != row.part_ver && !mutation::is(Mutation::AlterIsrOfAnyVersion) {
            return Err(IsrOutcome::Stale);
        }
        let node = asker.node;
        let leads = row.leader == Some(node) && asked.isr.iter().any(|it| it.node == node);
        if !leads {
            return Err(IsrOutcome::Refused);
        }
        let mut isr: Vec<Replica> = Vec::new();
        for member in &asked.isr {
            let replica = self
                .eligible(now, catalog, row, member)
                .ok_or(IsrOutcome::Ineligible { node: member.node })?;
            if !isr.contains(&replica) {
                isr.push(replica);
            }
        }
        let mut draft = Draft::of(row);
        draft.isr.clone_from(&isr);
        Ok(Change {
            id,
            row: draft.row(id, row),
            moving: None,
            said: vec![Decision::Isr { isr }],
            taken_from: None,
            asked_by: Some(asker),
        })
    }

    /// The replica that a member is, if it may be in sync: as its node is registered, and fit if it joins.
    fn eligible(
        &self,
        now: Instant,
        catalog: &Catalog,
        row: &Partition,
        member: &Member,
    ) -> Option<Replica> {
        let replica = row.replica_on(member.node)?;
        if catalog.member(replica) != *member {
            return mutation::is(Mutation::AlterIsrOfAnyMember).then_some(replica);
        }
        let stays = row.in_sync().any(|it| it == replica);
        let fit = self.health.standing(now, catalog, replica) == Standing::Fit;
        (stays || fit).then_some(replica)
    }
}
