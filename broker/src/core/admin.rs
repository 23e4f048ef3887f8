//! Changes of the site that clients ask for: made by the controller, answered when they are applied and their partitions
//! serve.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use model::{NodeId, ProducerId, TopicId};
use node::Ticket;
use node::broker::Input;
use node::catalog::{Alter, Catalog, Config, CreateTopic, Fault, PlannedTopic};
use node::controller::{Answer, Wish};
use node::partition::Refusal;
use node::sitelog::{Actor, PIDS_BLOCK};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};
use wire::Api;

use super::topics::TopicInfo;
use super::{Core, Inner, Owner};
use crate::clock;
use crate::context::Context;
use crate::random;

/// How long a Metadata request waits for the topics that it makes: with a disk that answers, two commits of milliseconds.
const AUTOMATIC_PATIENCE: Duration = Duration::from_secs(5);
/// How long a producer waits for its id.
const PIDS_PATIENCE: Duration = Duration::from_secs(5);
/// The next block is drawn when so many ids are left.
const PIDS_LOW: i64 = PIDS_BLOCK / 2;

/// Why a change was not made, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChangeFault {
    /// It can't be.
    Refused(Fault),
    /// It was not applied in time; it may still come.
    TimedOut,
    /// This node does not decide, or not yet.
    NotController,
}

impl From<Fault> for ChangeFault {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault)
    }
}

/// An id for a topic.
pub(crate) fn new_topic_id() -> TopicId {
    TopicId(random::uuid())
}

/// Producer ids of this node, drawn in blocks from the site log: a new block at each start, the next before one ends.
#[derive(Debug, Default)]
pub(crate) struct Pids {
    /// From `next`, which is given out first, to `end`.
    blocks: Vec<(i64, i64)>,
    drawing: bool,
}

impl Pids {
    /// A block came from the site log.
    pub(super) fn drawn(&mut self, first: ProducerId) {
        self.blocks.push((first.0, first.0 + PIDS_BLOCK));
    }

    fn take(&mut self) -> Option<ProducerId> {
        let (next, end) = self.blocks.first_mut()?;
        let id = ProducerId(*next);
        *next += 1;
        if next == end {
            self.blocks.remove(0);
        }
        Some(id)
    }

    /// Whether a block should be drawn now.
    fn low(&self) -> bool {
        !self.drawing
            && self
                .blocks
                .iter()
                .map(|(next, end)| end - next)
                .sum::<i64>()
                < PIDS_LOW
    }
}

impl Core {
    /// Has the controller make a change; one at a time there, the next one's room is counted when this one's is taken.
    async fn wish(
        self: &Rc<Self>,
        actor: Actor,
        patience: Duration,
        wish: Wish,
    ) -> Result<Answer, ChangeFault> {
        if !self.changes() {
            return Err(ChangeFault::NotController);
        }
        let (owner, answer) = oneshot::channel();
        self.with(|inner| {
            let ticket = Ticket(inner.tickets.insert(Owner::Wish(owner)) as u64);
            inner.todo.push_back(Input::Wish {
                ticket,
                actor,
                deadline: clock::now() + patience,
                wish,
            });
        });
        match answer.await {
            Ok(Answer::Refused(fault)) => Err(ChangeFault::Refused(fault)),
            Ok(Answer::NotController) => Err(ChangeFault::NotController),
            Ok(Answer::TimedOut) | Err(_) => Err(ChangeFault::TimedOut),
            Ok(made) => Ok(made),
        }
    }

    /// Whether changes are taken: before the site's own topics stand, their names and their room would be given away.
    fn changes(&self) -> bool {
        let inner = self.inner.borrow();
        inner.broker.founded() && !inner.stopping
    }

    /// Only says what would be made.
    fn planned<T>(
        &self,
        plan: impl FnOnce(&Catalog) -> Result<T, Fault>,
    ) -> Result<T, ChangeFault> {
        if !self.changes() {
            return Err(ChangeFault::NotController);
        }
        Ok(plan(self.inner.borrow().broker.catalog())?)
    }

    /// Makes a topic; returns when all its partitions here serve. With `validate_only`, only says what would be made.
    pub(crate) async fn create_topic(
        self: &Rc<Self>,
        context: &Context,
        asked: &CreateTopic,
        validate_only: bool,
        patience: Duration,
    ) -> Result<PlannedTopic, ChangeFault> {
        self.make_topic(
            actor(context, Api::CreateTopics),
            asked,
            validate_only,
            patience,
        )
        .await
    }

    async fn make_topic(
        self: &Rc<Self>,
        actor: Actor,
        asked: &CreateTopic,
        validate_only: bool,
        patience: Duration,
    ) -> Result<PlannedTopic, ChangeFault> {
        let id = new_topic_id();
        if validate_only {
            return self.planned(|catalog| catalog.create_topic(asked, id));
        }
        let deadline = Instant::now() + patience;
        let asked = asked.clone();
        let wish = Wish::CreateTopic { asked, id };
        let Answer::Created(planned) = self.wish(actor, patience, wish).await? else {
            unreachable!("a topic is created or refused");
        };
        self.served(id, deadline).await?;
        Ok(*planned)
    }

    /// Makes a topic that a client named, with the site's defaults, if the site allows it. Returns when it serves, also
    /// if another client makes it meanwhile.
    pub(crate) async fn create_automatically(
        self: &Rc<Self>,
        context: &Context,
        name: &str,
    ) -> Result<(), ChangeFault> {
        if !self.site.defaults.auto_create {
            return Err(ChangeFault::Refused(Fault::UnknownTopic));
        }
        let deadline = Instant::now() + AUTOMATIC_PATIENCE;
        let asked = CreateTopic {
            name: name.to_owned(),
            ..CreateTopic::default()
        };
        match self
            .make_topic(
                actor(context, Api::Metadata),
                &asked,
                false,
                AUTOMATIC_PATIENCE,
            )
            .await
        {
            Err(ChangeFault::Refused(Fault::TopicExists(_))) => {
                let id = self.inner.borrow().broker.catalog().id_of(name);
                match id {
                    Some(id) => self.served(id, deadline).await,
                    None => Err(ChangeFault::Refused(Fault::UnknownTopic)),
                }
            }
            made => made.map(|_| ()),
        }
    }

    /// Deletes a topic; returns when nobody can use it any more.
    pub(crate) async fn delete_topic(
        self: &Rc<Self>,
        context: &Context,
        topic: &TopicInfo,
        patience: Duration,
    ) -> Result<(), ChangeFault> {
        let actor = actor(context, Api::DeleteTopics);
        let wish = Wish::DeleteTopic(topic.id);
        self.wish(actor, patience, wish).await.map(drop)
    }

    /// Gives a topic more partitions, `count` in all; returns when they serve.
    pub(crate) async fn create_partitions(
        self: &Rc<Self>,
        context: &Context,
        name: &str,
        count: i32,
        assignment: Option<&[Vec<NodeId>]>,
        validate_only: bool,
        patience: Duration,
    ) -> Result<(), ChangeFault> {
        let plan = |catalog: &Catalog| {
            catalog.create_partitions(name, count, assignment)?;
            catalog.id_of(name).ok_or(Fault::UnknownTopic)
        };
        let id = self.planned(plan)?;
        if validate_only {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        let wish = Wish::CreatePartitions {
            name: name.to_owned(),
            count,
            assignment: assignment.map(<[_]>::to_vec),
        };
        let actor = actor(context, Api::CreatePartitions);
        self.wish(actor, patience, wish).await?;
        self.served(id, deadline).await
    }

    /// Sets a topic's whole configuration; `None` is a null value.
    pub(crate) async fn set_topic_configs(
        self: &Rc<Self>,
        context: &Context,
        name: &str,
        configs: Vec<(String, Option<String>)>,
        validate_only: bool,
        patience: Duration,
    ) -> Result<(), ChangeFault> {
        if validate_only {
            return self.planned(|catalog| catalog.set_configs(name, &configs).map(drop));
        }
        let name = name.to_owned();
        let actor = actor(context, Api::AlterConfigs);
        let wish = Wish::SetConfigs { name, configs };
        self.wish(actor, patience, wish).await.map(drop)
    }

    /// Changes some of a topic's configs.
    pub(crate) async fn alter_topic_configs(
        self: &Rc<Self>,
        context: &Context,
        name: &str,
        changes: Vec<(String, Alter)>,
        validate_only: bool,
        patience: Duration,
    ) -> Result<(), ChangeFault> {
        if validate_only {
            return self.planned(|catalog| catalog.alter_configs(name, &changes).map(drop));
        }
        let name = name.to_owned();
        let actor = actor(context, Api::IncrementalAlterConfigs);
        let wish = Wish::AlterConfigs { name, changes };
        self.wish(actor, patience, wish).await.map(drop)
    }

    /// Every config of a topic.
    pub(crate) fn topic_configs(&self, name: &str) -> Option<Vec<Config>> {
        let inner = self.inner.borrow();
        let catalog = inner.broker.catalog();
        catalog.configs(catalog.id_of(name)?)
    }

    /// The broker's configs that are defaults of its topics.
    pub(crate) fn broker_configs(&self) -> Vec<Config> {
        self.inner.borrow().broker.catalog().broker_configs()
    }

    /// Waits until every partition of a topic that lies here serves, or the topic is gone.
    async fn served(&self, id: TopicId, deadline: Instant) -> Result<(), ChangeFault> {
        let progress = self.inner.borrow().progress.clone();
        loop {
            let moved = progress.notified();
            if self.inner.borrow().serves(id) {
                return Ok(());
            }
            timeout_at(deadline, moved)
                .await
                .map_err(|_| ChangeFault::TimedOut)?;
        }
    }

    /// An id for a producer; `None` if the site log gives none in time.
    pub(crate) async fn next_producer_id(self: &Rc<Self>) -> Option<ProducerId> {
        let deadline = Instant::now() + PIDS_PATIENCE;
        let progress = self.inner.borrow().progress.clone();
        loop {
            let moved = progress.notified();
            let (id, low) = {
                let mut inner = self.inner.borrow_mut();
                let id = inner.pids.take();
                let low = inner.pids.low();
                inner.pids.drawing |= low;
                (id, low)
            };
            if low {
                spawn_local(self.clone().draw_producer_ids());
            }
            if id.is_some() {
                return id;
            }
            timeout_at(deadline, moved).await.ok()?;
        }
    }

    async fn draw_producer_ids(self: Rc<Self>) {
        let wish = Wish::ProducerIds(self.node_id());
        let drawn = self.wish(Actor::broker(), PIDS_PATIENCE, wish).await;
        let mut inner = self.inner.borrow_mut();
        inner.pids.drawing = false;
        if let Err(fault) = drawn {
            tracing::warn!(?fault, "no block of producer ids");
        }
        // Whoever waits looks again, or draws itself.
        inner.progress.notify_waiters();
    }
}

impl Inner {
    /// Whether every partition of a topic that lies here on a disk in service is led; so is one that is gone.
    fn serves(&self, id: TopicId) -> bool {
        self.topics_by_id.get(&id).is_none_or(|topic| {
            topic
                .partitions
                .iter()
                .filter_map(|partition| partition.replica)
                .all(|at| {
                    let machine = self.broker.partition(at);
                    machine.is_none_or(|it| it.may_serve(clock::now()) != Err(Refusal::Park))
                })
        })
    }
}

/// Who asks, for the audit.
fn actor(context: &Context, api: Api) -> Actor {
    let host = match context.host {
        IpAddr::V4(host) => host.to_ipv6_mapped().octets(),
        IpAddr::V6(host) => host.octets(),
    };
    Actor::client(&context.principal, host, api.key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producer_ids_come_once_each_and_are_drawn_before_they_run_out() {
        let mut pids = Pids::default();
        assert!(pids.low() && pids.take().is_none());
        pids.drawn(ProducerId(3_000));
        let mut given = Vec::new();
        while !pids.low() {
            given.push(pids.take().expect("half a block is left"));
        }
        pids.drawing = true;
        assert!(!pids.low(), "drawn twice");
        pids.drawn(ProducerId(8_000));
        pids.drawing = false;
        given.extend(std::iter::from_fn(|| pids.take()));
        let all: Vec<_> = (3_000..4_000).chain(8_000..9_000).map(ProducerId).collect();
        assert_eq!(given, all);
    }

    /// The node's crate can't see the site's: what both say of names must be one.
    #[test]
    fn names_are_judged_as_in_site_files() {
        assert_eq!(node::catalog::INTERNAL_TOPICS, site::names::INTERNAL_TOPICS);
        assert_eq!(
            node::catalog::TOPIC_NAME_CHARS_MAX,
            site::names::TOPIC_NAME_CHARS_MAX
        );
        let long = "x".repeat(250);
        let longest = "x".repeat(249);
        for name in [
            "", ".", "..", "...", "a", "a b", "ä", "a/b", "__audit", "__mine", "-", &long, &longest,
        ] {
            let here = node::catalog::topic_name_fault(name).is_some();
            assert_eq!(
                here,
                site::names::check_new_topic_name(name).is_err(),
                "{name:?}"
            );
        }
    }
}
