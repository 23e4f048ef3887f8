//! Who is alive, and what a replica is worth: from beats, grants and the catalog.

use core::time::Duration;
use std::collections::BTreeMap;

use model::{Instant, NodeId};

use super::types::{Event, NodeBeat};
use crate::catalog::Catalog;
use crate::mutation::{self, Mutation};
use crate::sitelog::{DiskState, Replica};

/// What is known of a node since the office began.
#[derive(Debug)]
struct Heard {
    beat: NodeBeat,
    /// Its last grant has surely run out then, on whatever clock (L1.6).
    lapses: Instant,
    /// The same for incarnations before the present one.
    former_lapses: Instant,
    /// As events said last.
    alive: bool,
}

/// What is known of all.
#[derive(Debug, Default)]
pub(super) struct Health {
    nodes: BTreeMap<NodeId, Heard>,
    /// Until then a node that is not heard may yet be.
    hear_until: Instant,
    /// Of this node's site file.
    digest: u64,
}

/// A node as the controller must treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Not heard, but there was little time for it: neither chosen nor left out.
    Silent,
    Dead,
}

/// A replica as the controller must treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its node is alive, its disk mounted and clean.
    Fit,
    /// The same, but the disk does not answer: it keeps its place, and can't lead.
    Stalled,
    /// Its node is [`Life::Silent`].
    Silent,
    /// Its node is dead.
    NodeDead,
    /// Its disk is failed or not mounted.
    DiskGone,
    /// Its disk may lack what was acknowledged.
    Suspect,
}

/// When a node counts as dead.
fn lapse_of(dead_from: Instant) -> Instant {
    match mutation::is(Mutation::DeadTooSoon) {
        true => dead_from - Duration::from_millis(100),
        false => dead_from,
    }
}

impl Health {
    pub(super) fn new(digest: u64) -> Self {
        Self {
            digest,
            ..Self::default()
        }
    }

    /// Forgets all: an office begins. Nodes are heard until then.
    pub(super) fn begin(&mut self, hear_until: Instant) {
        self.nodes.clear();
        self.hear_until = hear_until;
    }

    /// A lease came back after it lapsed: nobody could be heard meanwhile, so there is time again.
    pub(super) fn again(&mut self, hear_until: Instant) {
        self.hear_until = self.hear_until.max(hear_until);
    }

    /// Takes a report. Says whether anything that decisions rest on is another than before.
    pub(super) fn beat(
        &mut self,
        now: Instant,
        beat: NodeBeat,
        dead_from: Instant,
        events: &mut Vec<Event>,
    ) -> bool {
        let (node, lapses) = (beat.node, lapse_of(dead_from));
        let Some(known) = self.nodes.get_mut(&node) else {
            say(None, &beat, self.digest, events);
            events.push(Event::Heard { node });
            let heard = Heard {
                beat,
                lapses,
                former_lapses: Instant(0),
                alive: now < lapses,
            };
            self.nodes.insert(node, heard);
            return true;
        };
        if known.beat.incarnation != beat.incarnation {
            known.former_lapses = known.former_lapses.max(known.lapses);
            known.lapses = Instant(0);
        }
        known.lapses = known.lapses.max(lapses);
        let alive = now < known.lapses;
        let same = known.alive == alive
            && known.beat.incarnation == beat.incarnation
            && known.beat.disks == beat.disks
            && known.beat.blessed == beat.blessed;
        say(Some(&known.beat), &beat, self.digest, events);
        if alive && !known.alive {
            events.push(Event::Heard { node });
        }
        known.beat = beat;
        known.alive = alive;
        !same
    }

    /// Nodes whose time is over since the last call.
    pub(super) fn lapse(&mut self, now: Instant, events: &mut Vec<Event>) -> bool {
        let mut any = false;
        for (node, heard) in &mut self.nodes {
            if heard.alive && now >= heard.lapses {
                heard.alive = false;
                any = true;
                events.push(Event::Dead { node: *node });
            }
        }
        any
    }

    /// When something changes by time alone, after `now`.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let lapses = self
            .nodes
            .values()
            .filter(|heard| heard.alive)
            .map(|heard| heard.lapses);
        let former = self.nodes.values().map(|heard| heard.former_lapses);
        let ahead = former
            .chain([self.hear_until])
            .filter(|moment| *moment > now);
        lapses.chain(ahead).min()
    }

    /// Its grant runs, registered or not: a voter's, the witness included.
    pub(super) fn hears(&self, now: Instant, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|it| now < it.lapses)
    }

    /// What it reported last in this office.
    pub(super) fn heard(&self, node: NodeId) -> Option<&NodeBeat> {
        self.nodes.get(&node).map(|heard| &heard.beat)
    }

    /// A grant of an earlier incarnation of this node may still run.
    pub(super) fn former_serves(&self, now: Instant, node: NodeId) -> bool {
        now < self.hear_until
            || self
                .nodes
                .get(&node)
                .is_some_and(|heard| now < heard.former_lapses)
    }

    /// As registered.
    pub(super) fn life(&self, now: Instant, catalog: &Catalog, node: NodeId) -> Life {
        let registered = catalog.node(node).map(|row| row.incarnation);
        let heard = self.nodes.get(&node);
        if heard
            .is_some_and(|heard| now < heard.lapses && registered == Some(heard.beat.incarnation))
        {
            return Life::Alive;
        }
        // No grant of an earlier controller runs on when a new one decides (L1.4, L1.5), so this waits only for who is
        // alive and was not heard yet.
        if now < self.hear_until && !mutation::is(Mutation::UnheardIsDead) {
            return Life::Silent;
        }
        Life::Dead
    }

    pub(super) fn standing(&self, now: Instant, catalog: &Catalog, replica: Replica) -> Standing {
        match self.life(now, catalog, replica.node) {
            Life::Dead => return Standing::NodeDead,
            Life::Silent => return Standing::Silent,
            Life::Alive => {}
        }
        let state = self.heard(replica.node).and_then(|beat| {
            let listed = |(disk, _): &&(_, _)| *disk == replica.disk;
            beat.disks.iter().find(listed).map(|(_, state)| *state)
        });
        let registered = catalog
            .node(replica.node)
            .is_some_and(|row| row.disks.iter().any(|disk| disk.uuid == replica.disk));
        match state {
            Some(DiskState::Suspect) => Standing::Suspect,
            Some(DiskState::Clean) if registered => Standing::Fit,
            Some(DiskState::Stalled) if registered => Standing::Stalled,
            Some(DiskState::None | DiskState::Clean | DiskState::Stalled | DiskState::Failed)
            | None => Standing::DiskGone,
        }
    }

    /// Every live node has applied so much.
    pub(super) fn applied(
        &self,
        now: Instant,
        catalog: &Catalog,
        index: crate::sitelog::Index,
    ) -> bool {
        catalog.nodes().all(|(node, _)| {
            self.life(now, catalog, node) != Life::Alive
                || self.heard(node).is_some_and(|beat| beat.applied >= index)
        })
    }
}

/// What a report says that the one before did not.
fn say(before: Option<&NodeBeat>, beat: &NodeBeat, digest: u64, events: &mut Vec<Event>) {
    let node = beat.node;
    let was = |disk| {
        before.and_then(|before| {
            let known = before.disks.iter().find(|(known, _)| *known == disk);
            known.map(|(_, state)| *state)
        })
    };
    for (disk, state) in &beat.disks {
        let news = match was(*disk) {
            Some(known) => known != *state,
            None => before.is_some() || *state != DiskState::Clean,
        };
        if news {
            events.push(Event::Disk {
                node,
                disk: *disk,
                state: Some(*state),
            });
        }
    }
    for (disk, _) in before.into_iter().flat_map(|before| &before.disks) {
        if !beat.disks.iter().any(|(listed, _)| listed == disk) {
            events.push(Event::Disk {
                node,
                disk: *disk,
                state: None,
            });
        }
    }
    let same = beat.digest == digest;
    if before.is_none_or(|before| before.digest == digest) != same {
        events.push(Event::Digest { node, same });
    }
    if before.is_none_or(|before| before.clock_trusted) != beat.clock_trusted {
        events.push(Event::Clock {
            node,
            trusted: beat.clock_trusted,
        });
    }
}
