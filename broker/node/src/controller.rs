//! The controller: what the leader of the site log decides for the whole site.
//!
//! It is told what is committed, who is alive and in which state their disks are, what leaders and people ask; it says
//! which entries to propose and what to answer. All it decides rests on the catalog as applied here and becomes real
//! only as an entry, so a controller that dies leaves nothing half done: the next one sees the same rows and goes on.
//!
//! One entry is on its way at a time, and each carries all that is due and fits: a node's death is one entry for all the
//! partitions it led, or a few where there are thousands. What is due is found by one pass over the rows whenever a fact
//! that decisions rest on has changed; nothing is remembered that the pass would find again. A partition changes for one
//! reason a pass, in this order: R9 and elections, AlterIsr, arrivals, hand-overs, replacements.
//!
//! It decides only inside its lease. It never looks into a log and keeps no time but the monotonic one it is told.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{Instant, NodeId, SiteUuid, Term, TopicPartition};

use crate::Outbox;
use crate::catalog::{Catalog, Fault, Room};
use crate::mutation::{self, Mutation};
use crate::peer::{AlterIsr, IsrOutcome};
use crate::sitelog::{Index, Record};

mod elect;
mod elections;
mod event;
mod health;
mod insync;
mod leaders;
mod moves;
mod rows;
mod site;
#[cfg(test)]
mod tests;
mod types;
mod wishes;

use elect::GaveUp;
use health::Health;
pub use leaders::{HAND_OVER_PATIENCE, PREFERRED_AFTER};
use rows::{Change, Pack};
pub use types::{
    Answer, Decision, DiskState, Effect, ElectFault, Event, Input, MoveFault, NodeBeat, NotSpared,
    Proposal, Resigned, Settings, Wanted, Why, Wish,
};

/// The machine of every node; it does nothing while its node has no office.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    office: Option<Office>,
    health: Health,
    registrations: site::Registrations,
    wanted: VecDeque<Wanted>,
    gave_up: BTreeMap<TopicPartition, GaveUp>,
    asked: insync::Asked,
    leaders: leaders::Leaders,
    elections: elections::Elections,
    wishes: wishes::Wishes,
    /// Said to have no place.
    unplaced: BTreeSet<(TopicPartition, NodeId)>,
    proposed: Option<(Proposal, Then)>,
    proposals: u64,
    /// Rows went last, so a wish goes first.
    wish_next: bool,
    /// Something changed since nothing was left to do.
    dirty: bool,
    /// The site log took no entry; the next one is proposed then.
    quiet_until: Instant,
    /// Something changes by time alone then.
    due: Option<Instant>,
}

/// The site log may be crowded: a commit takes some 20 ms.
const NOT_TAKEN_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Office {
    term: Term,
    until: Instant,
    index: Index,
    site: SiteUuid,
    /// Nodes that were told to free what no topic has, by start.
    freed: BTreeMap<NodeId, u64>,
}

/// What follows when the entry on its way is applied.
#[derive(Debug)]
enum Then {
    Rows(Vec<Change>),
    Moves(wishes::Queued, Vec<Change>),
    Wish(wishes::Queued),
    Wanted,
    Nothing,
}

/// One pass.
struct Planning<'c> {
    catalog: &'c Catalog,
    room: Option<Room<'c>>,
    events: Vec<Event>,
    /// Leaders that are asked to hand over.
    hand_over: BTreeMap<NodeId, Vec<(TopicPartition, model::LeaderEpoch, NodeId)>>,
}

impl<'c> Planning<'c> {
    /// Counted once a pass, where it is needed at all.
    fn room(&mut self) -> &mut Room<'c> {
        self.room.get_or_insert_with(|| self.catalog.room())
    }
}

impl Controller {
    /// A controller without office.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            office: None,
            health: Health::new(settings.digest),
            registrations: site::Registrations::default(),
            wanted: VecDeque::new(),
            gave_up: BTreeMap::new(),
            asked: insync::Asked::default(),
            leaders: leaders::Leaders::default(),
            elections: elections::Elections::default(),
            wishes: wishes::Wishes::default(),
            unplaced: BTreeSet::new(),
            proposed: None,
            proposals: 0,
            wish_next: false,
            dirty: false,
            quiet_until: Instant(0),
            due: None,
            settings,
        }
    }

    /// Takes one fact at `now`, with the catalog as applied by then, and says what must happen next. Never waits, never
    /// fails.
    pub fn step(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        input: Input,
        out: &mut Outbox<Effect>,
    ) {
        self.take(now, catalog, input, out);
        self.pass_time(now, catalog, out);
        while self.dirty && self.proposed.is_none() && self.decides(now) && now >= self.quiet_until
        {
            self.plan(now, catalog, out);
        }
        self.asked.answer(out);
        self.due = self.next_due(now);
        self.check();
    }

    /// When [`Input::Tick`] is due; `None` while nothing waits for time.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// The term in which this node decides, while its lease runs.
    #[must_use]
    pub fn term(&self, now: Instant) -> Option<Term> {
        let office = self.office.as_ref().filter(|_| self.decides(now));
        office.map(|office| office.term)
    }

    /// L1.4: it decides only inside its lease.
    fn decides(&self, now: Instant) -> bool {
        self.office
            .as_ref()
            .is_some_and(|office| now < office.until || mutation::is(Mutation::DecidesWithoutLease))
    }

    fn take(&mut self, now: Instant, catalog: &Catalog, input: Input, out: &mut Outbox<Effect>) {
        match input {
            Input::Office {
                term,
                since,
                until,
                index,
                released,
                wanted,
                site,
            } => {
                self.depose(out);
                self.health.begin(match released {
                    // L1.6: it handed over what it had not taken back yet.
                    true => now + self.settings.grant_max * 112 / 100,
                    false => since + self.settings.hear,
                });
                self.wanted = wanted.into();
                self.dirty = true;
                self.office = Some(Office {
                    term,
                    until,
                    index,
                    site,
                    freed: BTreeMap::new(),
                });
            }
            Input::Lease { until } => {
                if let Some(office) = &mut self.office {
                    if now >= office.until {
                        self.health.again(now + self.settings.hear);
                        self.dirty = true;
                    }
                    office.until = office.until.max(until);
                }
            }
            Input::Deposed => self.depose(out),
            Input::Beat { beat, granted } => self.beat(now, catalog, beat, granted, out),
            Input::Register(node) => self.register(node, out),
            Input::Resign { node, partitions } => self.resign(catalog, node, partitions),
            Input::AlterIsr { ticket, node, rows } => {
                self.asked.take(ticket, node, rows, out);
                self.dirty = true;
                if !self.decides(now) {
                    self.asked.give_up(out);
                }
            }
            Input::Wish {
                ticket,
                actor,
                deadline,
                wish,
            } => self.wish(now, catalog, (ticket, actor, deadline), wish, out),
            Input::Applied { index, proposal } => self.applied(catalog, index, proposal, out),
            Input::NotTaken(proposal) => self.not_taken(now, proposal, out),
            Input::Tick => {}
        }
    }

    fn depose(&mut self, out: &mut Outbox<Effect>) {
        self.office = None;
        if let Some((_, then)) = self.proposed.take() {
            Self::unknown(then, out);
        }
        self.asked.give_up(out);
        self.elections.give_up(out);
        self.wishes.give_up(out);
        self.health.begin(Instant(0));
        self.registrations.begin();
        self.leaders.begin();
        self.wanted.clear();
        self.gave_up.clear();
        self.unplaced.clear();
    }

    fn beat(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        beat: NodeBeat,
        granted: Duration,
        out: &mut Outbox<Effect>,
    ) {
        let Some(office) = &mut self.office else {
            return;
        };
        let (node, boot, incarnation) = (beat.node, beat.boot, beat.incarnation);
        // H59: what it does not know, it might not know *yet*, until it has applied all that was committed when this
        // office began.
        let knows = beat.applied >= office.index || mutation::is(Mutation::FreedTooSoon);
        let registered = catalog
            .node(node)
            .is_some_and(|row| row.incarnation == incarnation);
        if knows && registered && office.freed.insert(node, boot) != Some(boot) {
            out.push(Effect::MayFree { node });
        }
        let mut events = Vec::new();
        self.dirty |= self.health.beat(now, beat, granted, &mut events);
        events
            .into_iter()
            .for_each(|event| out.push(Effect::Event(event)));
    }

    fn applied(
        &mut self,
        catalog: &Catalog,
        index: Index,
        proposal: Option<Proposal>,
        out: &mut Outbox<Effect>,
    ) {
        self.dirty = true;
        self.gave_up.retain(|id, it| {
            catalog
                .partition_row(*id)
                .is_some_and(|row| row.epoch == it.epoch)
        });
        let ours = self.proposed.take_if(|(known, _)| Some(*known) == proposal);
        let Some((_, then)) = ours else {
            return;
        };
        match then {
            Then::Rows(changes) => self.made(changes, out),
            Then::Moves(queued, changes) => {
                self.moved(queued, &changes, out);
                self.made(changes, out);
            }
            Then::Wish(queued) => self.granted(index, queued, out),
            Then::Wanted | Then::Nothing => {}
        }
    }

    /// Rows are applied: says what they decided, and to leaders that theirs are in.
    fn made(&mut self, changes: Vec<Change>, out: &mut Outbox<Effect>) {
        for change in changes {
            let partition = change.id;
            if let Some(asker) = change.asked_by {
                let part_ver = change.row.part_ver;
                let outcome = IsrOutcome::Committed { part_ver };
                self.asked.decided(asker, partition, outcome);
            }
            for decision in change.said {
                out.push(Effect::Event(Event::Partition {
                    partition,
                    decision,
                }));
            }
        }
    }

    fn not_taken(&mut self, now: Instant, proposal: Proposal, out: &mut Outbox<Effect>) {
        if let Some((_, then)) = self.proposed.take_if(|(known, _)| *known == proposal) {
            Self::unknown(then, out);
            self.quiet_until = now + NOT_TAKEN_PAUSE;
        }
    }

    /// An entry's fate is unknown. Rows are planned again from what is applied; who wished is told.
    fn unknown(then: Then, out: &mut Outbox<Effect>) {
        match then {
            Then::Wish(mut queued) | Then::Moves(mut queued, _) => queued.late(out),
            Then::Rows(_) | Then::Wanted | Then::Nothing => {}
        }
    }

    /// What time alone brings.
    fn pass_time(&mut self, now: Instant, catalog: &Catalog, out: &mut Outbox<Effect>) {
        self.dirty |= self.due.is_some_and(|due| now >= due);
        let mut events = Vec::new();
        self.dirty |= self.health.lapse(now, &mut events);
        events
            .into_iter()
            .for_each(|event| out.push(Effect::Event(event)));
        self.wishes.expire(now, out);
        if let Some((_, then)) = &mut self.proposed
            && let Then::Wish(queued) | Then::Moves(queued, _) = then
            && now >= queued.deadline()
        {
            queued.late(out);
            *then = Then::Nothing;
        }
        self.leaders.tidy(now, catalog, out);
        self.elections_decided(now, catalog, out);
        self.known_everywhere(now, catalog, out);
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.office.as_ref()?;
        let on_its_way = match &self.proposed {
            Some((_, Then::Wish(queued) | Then::Moves(queued, _))) => Some(queued.deadline()),
            _ => None,
        };
        // Without its lease it answers what is late, and decides nothing.
        let decides = self.decides(now) && self.proposed.is_none();
        let quiet = (self.quiet_until > now).then_some(self.quiet_until);
        let by_time = decides.then(|| [self.health.due(now), self.leaders.due(now), quiet]);
        [self.wishes.due(), self.elections.due(), on_its_way]
            .into_iter()
            .chain(by_time.into_iter().flatten())
            .flatten()
            .min()
    }

    /// One entry of what is due, or nothing.
    fn plan(&mut self, now: Instant, catalog: &Catalog, out: &mut Outbox<Effect>) {
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
        row: &crate::catalog::Partition,
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

    /// What always holds.
    fn check(&self) {
        assert!(
            self.proposed.is_none() || self.office.is_some(),
            "an entry on its way without an office"
        );
        assert!(
            self.wanted.is_empty() || self.office.is_some(),
            "topics wanted without an office"
        );
    }
}
