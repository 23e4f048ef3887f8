//! One pass over what is applied: the next entry, if anything is due.

use std::collections::BTreeMap;

use model::{Instant, LeaderEpoch, NodeId, TopicPartition};

use super::rows::{Change, Pack};
use super::{Answer, Controller, Effect, Event, Proposal, Then, insync};
use crate::Outbox;
use crate::catalog::{Catalog, Fault, Partition, Room};
use crate::peer::{AlterIsr, IsrOutcome};
use crate::sitelog::Record;

/// One pass.
pub(super) struct Planning<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) room: Option<Room<'c>>,
    pub(super) events: Vec<Event>,
    /// Leaders that are asked to hand over.
    pub(super) hand_over: BTreeMap<NodeId, Vec<(TopicPartition, LeaderEpoch, NodeId)>>,
}

impl<'c> Planning<'c> {
    /// Counted once a pass, where it is needed at all.
    pub(super) fn room(&mut self) -> &mut Room<'c> {
        self.room.get_or_insert_with(|| self.catalog.room())
    }
}

impl Controller {
    /// One entry of what is due, or nothing.
    pub(super) fn plan(&mut self, now: Instant, catalog: &Catalog, out: &mut Outbox<Effect>) {
        let Some(site) = self.office.as_ref().map(|office| office.site) else {
            return;
        };
        let mut planning = Planning {
            catalog,
            room: None,
            events: Vec::new(),
            hand_over: BTreeMap::new(),
        };
        let entry = self.plan_site(now, catalog, site);
        let mut planned = entry.map(|entry| (Record::broker(entry), Then::Nothing));
        if planned.is_none() && std::mem::take(&mut self.wish_next) {
            planned = self.plan_wish(&mut planning, out);
        }
        if planned.is_none() {
            planned = self.plan_rows(now, &mut planning);
            self.wish_next = planned.is_some();
        }
        planned = planned.or_else(|| {
            let entry = self.plan_wanted(&mut planning)?;
            Some((Record::broker(entry), Then::Wanted))
        });
        planned = planned.or_else(|| self.plan_wish(&mut planning, out));
        planned = planned.or_else(|| {
            let entry = self.plan_version(now, catalog)?;
            Some((Record::broker(entry), Then::Nothing))
        });
        self.say(planning, out);
        match planned {
            Some((record, then)) => self.propose(&record, then, out),
            None => self.dirty = false,
        }
    }

    fn say(&mut self, planning: Planning<'_>, out: &mut Outbox<Effect>) {
        for (node, partitions) in planning.hand_over {
            out.push(Effect::HandOver { node, partitions });
        }
        for event in planning.events {
            let news = match &event {
                Event::NoPlace { partition, node } => self.unplaced.insert((*partition, *node)),
                _ => true,
            };
            if news {
                out.push(Effect::Event(event));
            }
        }
    }

    fn propose(&mut self, record: &Record, then: Then, out: &mut Outbox<Effect>) {
        match record.encode() {
            Ok(bytes) => {
                self.proposals += 1;
                let proposal = Proposal(self.proposals);
                self.proposed = Some((proposal, then));
                out.push(Effect::Propose { proposal, bytes });
            }
            // Only what others asked for can be too large: rows are counted.
            Err(fault) => {
                let text = format!("{fault}: make fewer partitions at once");
                let fault = Fault::InvalidPartitions(text);
                match then {
                    Then::Wish(queued) => queued.answer(Answer::Refused(fault), out),
                    Then::Wanted => self.wanted_in_vain(&fault, out),
                    Then::Rows(_) | Then::Moves(..) | Then::Nothing => {
                        panic!("rows beyond an entry: {text}", text = fault)
                    }
                }
            }
        }
    }

    /// The pass over all rows.
    fn plan_rows(&mut self, now: Instant, planning: &mut Planning<'_>) -> Option<(Record, Then)> {
        let catalog = planning.catalog;
        let asked = self.asked.undecided();
        let (mut rows, mut moves) = (Pack::default(), Pack::default());
        for (id, row) in catalog.partitions() {
            let asked = asked.get(&id).map_or(&[][..], Vec::as_slice);
            let Some(change) = self.due_of(now, planning, id, row, asked) else {
                continue;
            };
            let pack = match change.moving {
                None => &mut rows,
                Some(_) => &mut moves,
            };
            if !pack.add(change) {
                // The rest is found again when this is applied.
                break;
            }
        }
        for id in asked
            .keys()
            .filter(|id| catalog.partition_row(**id).is_none())
        {
            for (asker, _) in &asked[id] {
                self.asked.decided(*asker, *id, IsrOutcome::Refused);
            }
        }
        let pack = if rows.is_empty() { moves } else { rows };
        (!pack.is_empty()).then(|| {
            let (entry, changes) = pack.finish();
            (Record::broker(entry), Then::Rows(changes))
        })
    }

    /// What a partition is due, for one reason.
    fn due_of(
        &mut self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        row: &Partition,
        asked: &[(insync::Asker, AlterIsr)],
    ) -> Option<Change> {
        if let Some(change) = self.settle(now, planning, id, row) {
            return Some(change);
        }
        for (asker, asked) in asked {
            match self.alter_isr(now, planning, *asker, asked) {
                Ok(change) => return Some(change),
                Err(outcome) => self.asked.decided(*asker, id, outcome),
            }
        }
        self.arrive(now, planning, id, row)
            .or_else(|| self.hand_over(now, planning, id, row))
            .or_else(|| self.replace(now, planning, id, row))
    }
}
