//! ElectLeaders (KIP-460): an operator wants preferred leaders back at once, or any leader at all. The wish is kept until
//! each partition is decided; the pass over all partitions asks here and does it.

use std::collections::{BTreeMap, VecDeque};

use model::{Instant, TopicPartition};

use super::Controller;
use super::health::Standing;
use super::types::{Answer, Effect, ElectFault};
use crate::catalog::Catalog;
use crate::{Outbox, Ticket};

/// Wishes of this kind at a time; more are refused.
const ELECTIONS_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Elections(VecDeque<Election>);

#[derive(Debug)]
struct Election {
    ticket: Ticket,
    deadline: Instant,
    unclean: bool,
    rows: BTreeMap<TopicPartition, Option<Result<(), ElectFault>>>,
}

impl Elections {
    fn wants(&self, unclean: bool, id: TopicPartition) -> bool {
        self.0
            .iter()
            .filter(|election| election.unclean == unclean)
            .any(|election| election.rows.get(&id) == Some(&None))
    }

    pub(super) fn wants_preferred(&self, id: TopicPartition) -> bool {
        self.wants(false, id)
    }

    pub(super) fn wants_unclean(&self, id: TopicPartition) -> bool {
        self.wants(true, id)
    }

    /// The first deadline.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().map(|election| election.deadline).min()
    }

    /// Nobody here decides any more.
    pub(super) fn give_up(&mut self, out: &mut Outbox<Effect>) {
        for election in self.0.drain(..) {
            out.push(Effect::Answer {
                ticket: election.ticket,
                answer: Answer::NotController,
            });
        }
    }
}

impl Controller {
    pub(super) fn elect(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        (ticket, deadline): (Ticket, Instant),
        unclean: bool,
        partitions: Option<Vec<TopicPartition>>,
        out: &mut Outbox<Effect>,
    ) {
        if self.elections.0.len() >= ELECTIONS_MAX {
            let answer = Answer::TimedOut;
            return out.push(Effect::Answer { ticket, answer });
        }
        let rows = match partitions {
            Some(partitions) => partitions
                .into_iter()
                .map(|id| (id, self.needless(now, catalog, unclean, id).map(Err)))
                .collect(),
            // Of all, the answer names only those that needed it.
            None => catalog
                .partitions()
                .filter(|(id, _)| self.needless(now, catalog, unclean, *id).is_none())
                .map(|(id, _)| (id, None))
                .collect(),
        };
        self.elections.0.push_back(Election {
            ticket,
            deadline,
            unclean,
            rows,
        });
        self.dirty = true;
        self.elections_decided(now, catalog, out);
    }

    /// Why no election can do anything for a partition now.
    fn needless(
        &self,
        now: Instant,
        catalog: &Catalog,
        unclean: bool,
        id: TopicPartition,
    ) -> Option<ElectFault> {
        let Some(row) = catalog.partition_row(id) else {
            return Some(ElectFault::Unknown);
        };
        let standing = |replica| self.health.standing(now, catalog, replica);
        if unclean {
            let nobody = row.replicas.iter().all(|replica| {
                standing(*replica) != Standing::Fit && !self.taken_out(now, catalog, *replica)
            });
            return match row.leader {
                Some(_) => Some(ElectFault::NotNeeded),
                None => nobody.then_some(ElectFault::NobodyEligible),
            };
        }
        let preferred = *row.replicas.first()?;
        if row.leader == Some(preferred.node) {
            return Some(ElectFault::NotNeeded);
        }
        let able = row.in_sync().any(|it| it == preferred) && standing(preferred) == Standing::Fit;
        (!able).then_some(ElectFault::PreferredNotAvailable)
    }

    /// Answers elections of which every partition is decided, or whose time is over.
    pub(super) fn elections_decided(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        out: &mut Outbox<Effect>,
    ) {
        let mut elections = std::mem::take(&mut self.elections.0);
        for election in &mut elections {
            for (id, outcome) in &mut election.rows {
                let late = (now >= election.deadline).then_some(ElectFault::TimedOut);
                let fault = self.needless(now, catalog, election.unclean, *id).or(late);
                // What was needed when it was asked, and is not any more, was done.
                *outcome = outcome.or(match fault {
                    Some(ElectFault::NotNeeded) => Some(Ok(())),
                    fault => fault.map(Err),
                });
            }
        }
        elections.retain_mut(|election| {
            let decided = election.rows.iter().all(|(_, outcome)| outcome.is_some());
            if decided {
                let outcome = |(id, outcome): (_, Option<_>)| (id, outcome.unwrap_or(Ok(())));
                let rows = std::mem::take(&mut election.rows);
                let answer = Answer::Elected(rows.into_iter().map(outcome).collect());
                out.push(Effect::Answer {
                    ticket: election.ticket,
                    answer,
                });
            }
            !decided
        });
        self.elections.0 = elections;
    }
}
