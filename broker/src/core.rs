//! The core thread's state: the broker that decides, the replicas it decides for, and who waits for what.
//!
//! One fact at a time goes into the broker; its effects are performed in order before anything else happens. What becomes
//! a fact meanwhile stands in line in [`Inner::todo`]. Nothing here blocks: the disks' threads are told through their
//! queues and tell us through [`Inner::disk_event`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use model::{Instant, NodeId, TopicId, TopicPartition, WallMs};
use node::broker::{self, Broker};
use node::partition::Outcome;
use node::{Outbox, Ticket};
use site::Site;
use slab::Slab;
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::counters::Counters;
use crate::dispatch::produce::Job;
use crate::listener::Census;
use crate::pool::BodyPool;
use crate::sessions::Sessions;
use crate::spindle::Spindle;

pub(crate) mod admin;
mod apply;
mod boot;
mod compaction;
mod disks;
pub(crate) mod groups;
mod life;
mod machines;
pub(crate) mod produce;
pub(crate) mod queries;
mod replica;
mod report;
pub(crate) mod topics;

pub(crate) use boot::Start;
pub(crate) use life::Ended;
use replica::Held;
use topics::TopicInfo;

/// Everything the core thread owns.
pub(crate) struct Core {
    pub(crate) bodies: BodyPool,
    pub(crate) counters: Counters,
    pub(crate) census: Rc<Census>,
    pub(crate) sessions: RefCell<Sessions>,
    site: Site,
    node: usize,
    /// What the site file calls the disks that are not there.
    away: Vec<String>,
    started: Instant,
    /// Where clients reach this node, as Metadata says it.
    advertised: Cell<Option<(IpAddr, u16)>>,
    http: Cell<Option<SocketAddr>>,
    end: RefCell<Option<Ended>>,
    end_told: Notify,
    inner: RefCell<Inner>,
}

/// Who waits for a ticket.
pub(super) enum Owner {
    /// The batch at `at` of a produce request.
    Produce { job: usize, at: usize },
    /// A task that awaits the outcome.
    Task(oneshot::Sender<Outcome>),
    /// A task that awaits a change of the site.
    Wish(oneshot::Sender<node::controller::Answer>),
    /// A task that awaits a group's answer.
    Group(oneshot::Sender<node::group::GroupReply>),
}

/// Batches by their ticket: those of requests, whose numbers are small and used again, and the broker's own.
#[derive(Default)]
pub(super) struct Payloads {
    asked: Vec<Option<Bytes>>,
    own: BTreeMap<Ticket, Bytes>,
}

impl Payloads {
    pub(super) fn insert(&mut self, ticket: Ticket, batch: Bytes) {
        if broker::is_own(ticket) {
            self.own.insert(ticket, batch);
            return;
        }
        let at = ticket.0 as usize;
        if self.asked.len() <= at {
            self.asked.resize(at + 1, None);
        }
        self.asked[at] = Some(batch);
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Bytes> {
        if broker::is_own(ticket) {
            return self.own.remove(&ticket);
        }
        self.asked.get_mut(ticket.0 as usize).and_then(Option::take)
    }
}

/// The mutable part.
pub(crate) struct Inner {
    me: NodeId,
    broker: Broker,
    spindles: Vec<Spindle>,
    replicas: Held,
    topics_by_name: HashMap<Rc<str>, TopicInfo>,
    topics_by_id: BTreeMap<TopicId, TopicInfo>,
    pids: admin::Pids,
    jobs: Slab<Job>,
    tickets: Slab<Owner>,
    /// Batches that a machine has accepted for consideration but not appended yet.
    payloads: Payloads,
    todo: VecDeque<broker::Input>,
    out: Outbox<broker::Effect>,
    cluster_id: String,
    /// The numbers on their disks of replicas that recovery found and the broker does not hold yet.
    found: BTreeMap<(usize, TopicPartition), store::PartIx>,
    chores: disks::Chores,
    compaction: compaction::Lines,
    /// Disks that stopped in order.
    stopped: usize,
    /// Woken whenever something that [`Core::not_ready`] names may have changed.
    progress: Rc<Notify>,
    stopping: bool,
}

impl Core {
    /// The site as configured.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// This node's number.
    pub(crate) fn node_id(&self) -> NodeId {
        self.inner.borrow().me
    }

    /// This node's name in the site file.
    pub(crate) fn node_name(&self) -> &str {
        &self.site.nodes[self.node].name
    }

    /// The trusted time, if there is any.
    pub(crate) fn trusted_now(&self) -> Option<WallMs> {
        clock::trusted(self.site.clock)
    }

    /// Runs `act` on the state, then performs whatever follows from it.
    pub(super) fn with<T>(self: &Rc<Self>, act: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.borrow_mut();
        let result = act(&mut inner);
        inner.perform(self);
        result
    }
}
