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
//!
//! Who drives it takes the time first and what it tells afterwards: the catalog applied so far, then the facts. It feeds
//! the office when the site log gives it, each committed entry behind the catalog, every node's reports with the moment
//! from which nothing granted to it runs, its own included, and before each grant asks [`Controller::grant_after`]. The
//! only node of a site reports to itself, with its lease's end as that moment.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{Incarnation, Instant, NodeId, SiteUuid, Term, TopicPartition};

use crate::Outbox;
use crate::catalog::Catalog;
use crate::mutation::{self, Mutation};
use crate::peer::IsrOutcome;
use crate::sitelog::Index;

mod elect;
mod elections;
mod event;
mod health;
mod insync;
mod leaders;
mod moves;
mod pass;
mod rows;
mod site;
#[cfg(test)]
mod tests;
mod types;
mod wishes;

use elect::GaveUp;
use health::Health;
pub use leaders::{HAND_OVER_PATIENCE, PREFERRED_AFTER};
use pass::Planning;
use rows::Change;
pub use types::{
    Answer, Decision, Effect, ElectFault, Event, Input, MoveFault, NodeBeat, NotSpared, Proposal,
    Resigned, Settings, Wanted, Why, Wish,
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
    /// Leaderships were taken from a dead node by this entry.
    taken: BTreeMap<NodeId, Index>,
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

    /// From which entry on a grant to this life of a node counts: the node must have applied it before it serves under the
    /// grant; `None` while nothing may be granted to it. A node that was dead comes back with an old log, and would go on
    /// with what was given to others, or is about to be. Another box in its place would go on with what was its own.
    #[must_use]
    pub fn grant_after(
        &self,
        catalog: &Catalog,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Option<Index> {
        let office = self.office.as_ref()?;
        if mutation::is(Mutation::GrantWithoutLog) {
            return Some(Index(0));
        }
        let taking = self.proposed.as_ref().is_some_and(|(_, then)| match then {
            Then::Rows(changes) => changes.iter().any(|it| it.taken_from == Some(node)),
            _ => false,
        });
        let another = catalog
            .node(node)
            .is_some_and(|row| row.incarnation != incarnation);
        let taken = office.taken.get(&node).copied().unwrap_or_default();
        (!taking && !another).then_some(taken.max(office.index))
    }

    /// Whether a topic that the site file or the broker wants is not there yet, or not seen to be.
    #[must_use]
    pub fn wants(&self) -> bool {
        self.office.is_none() || !self.wanted.is_empty()
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
                moves_from,
                wanted,
                site,
            } => {
                self.depose(out);
                self.health
                    .begin(moves_from.max(since + self.settings.hear));
                self.wanted = wanted.into();
                self.dirty = true;
                self.office = Some(Office {
                    term,
                    until,
                    index,
                    site,
                    freed: BTreeMap::new(),
                    taken: BTreeMap::new(),
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
            Input::Beat { beat, dead_from } => self.beat(now, catalog, beat, dead_from, out),
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
        dead_from: Instant,
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
        self.dirty |= self.health.beat(now, beat, dead_from, &mut events);
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
            Then::Rows(changes) => {
                let taken = changes.iter().filter_map(|change| change.taken_from);
                if let Some(office) = &mut self.office {
                    office.taken.extend(taken.map(|node| (node, index)));
                }
                self.made(changes, out);
            }
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
