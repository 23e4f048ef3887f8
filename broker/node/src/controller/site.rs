//! What the site itself needs of its log: its identity, its nodes as they register, the topics of its file, its version.

use std::collections::BTreeMap;

use model::{Instant, NodeId, SiteUuid};

use super::health::Life;
use super::types::{Effect, Event, Wanted};
use super::{Controller, Planning};
use crate::Outbox;
use crate::catalog::{Catalog, Fault};
use crate::mutation::{self, Mutation};
use crate::sitelog::{Entry, Node};

/// Nodes that asked to be registered, as they said last.
#[derive(Debug, Default)]
pub(super) struct Registrations(BTreeMap<NodeId, Node>);

impl Registrations {
    pub(super) fn begin(&mut self) {
        self.0.clear();
    }
}

impl Controller {
    pub(super) fn register(&mut self, node: Node, out: &mut Outbox<Effect>) {
        let named = self.settings.nodes.iter().any(|(id, _)| *id == node.id);
        if !named {
            return out.push(Effect::Event(Event::Stranger { node: node.id }));
        }
        self.registrations.0.insert(node.id, node);
        self.dirty = true;
    }

    /// An entry without which nothing else should be decided.
    pub(super) fn plan_site(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        site: SiteUuid,
    ) -> Option<Entry> {
        if let Some(entry) = catalog.found(site) {
            return Some(entry);
        }
        self.registrations.0.retain(|id, node| {
            catalog.node(*id).is_none_or(|row| {
                row.incarnation != node.incarnation
                    || row.disks != node.disks
                    || row.versions != node.versions
                    || row.public_key != node.public_key
            })
        });
        let ready = |node: &&Node| {
            let known = catalog.node(node.id);
            let another = known.is_some_and(|row| row.incarnation != node.incarnation);
            // A box put in another's place: what that one was granted must have run out, or both would serve.
            let former = self.health.life(now, catalog, node.id) == Life::Alive
                || self.health.former_serves(now, node.id);
            !(another && former)
        };
        let node = self.registrations.0.values().find(ready)?;
        Some(Entry::Node(node.clone()))
    }

    /// The next topic that the site file or the broker wants and that is not there, once every node is: the first ones
    /// would be crowded otherwise. Additive: what is there stays as it is (H32).
    pub(super) fn plan_wanted(&mut self, planning: &mut Planning<'_>) -> Option<Entry> {
        let catalog = planning.catalog;
        let mut nodes = self.settings.nodes.iter();
        if !nodes.all(|(node, _)| catalog.node(*node).is_some()) {
            return None;
        }
        while let Some(wanted) = self.wanted.front() {
            let (name, planned) = match wanted {
                Wanted::Declared(declared, id) => {
                    (declared.name.as_str(), catalog.reconcile(declared, *id))
                }
                Wanted::Offsets(id) => (crate::catalog::OFFSETS_TOPIC, catalog.offsets_topic(*id)),
            };
            match planned {
                Ok(Some(entry)) => return Some(entry),
                Ok(None) => {}
                Err(fault) => planning.events.push(unkept(name, &fault)),
            }
            self.wanted.pop_front();
        }
        None
    }

    /// A version that every voter can read with the release it falls back to: a trial release that is controller for a
    /// while must not write what the others can't read (H57).
    pub(super) fn plan_version(&self, now: Instant, catalog: &Catalog) -> Option<Entry> {
        let blessed = self.settings.voters.iter().map(|voter| {
            let beat = self.health.heard(*voter).map_or(0, |beat| beat.blessed);
            match self.health.hears(now, *voter) {
                true => beat,
                false => 0,
            }
        });
        let common = match mutation::is(Mutation::VersionOfTrial) {
            true => blessed.max(),
            false => blessed.min(),
        };
        let version = common?.min(self.settings.version);
        (version > catalog.site_version()).then_some(Entry::SiteVersion { version })
    }

    /// An entry of the site's own was too large or not taken: a topic that can't be must not stand before the others.
    pub(super) fn wanted_in_vain(&mut self, fault: &Fault, out: &mut Outbox<Effect>) {
        if let Some(Wanted::Declared(declared, _)) = self.wanted.pop_front() {
            out.push(Effect::Event(unkept(&declared.name, fault)));
        }
    }
}

fn unkept(topic: &str, fault: &Fault) -> Event {
    Event::Unkept {
        topic: topic.to_owned(),
        fault: fault.to_string(),
    }
}
