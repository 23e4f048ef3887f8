//! The core thread's state: every machine of `node`, the replicas they decide for, and who waits for what.
//!
//! One fact at a time goes into a machine; its effects are performed in order before anything else happens. An effect
//! may be a fact for another machine: it then stands in line in [`Inner::todo`]. Nothing here blocks: the disks' threads
//! are told through their queues and tell us through [`Inner::disk_event`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use model::window::Windows;
use model::{Instant, NodeId, TopicId, WallMs};
use node::partition::Outcome;
use node::{Outbox, Ticket, catalog, partition, sitelog};
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
use replica::Replica;
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
    /// Held while a change of the site is planned, entered and applied: one at a time.
    changes: tokio::sync::Mutex<()>,
    inner: RefCell<Inner>,
}

/// Who waits for a ticket.
pub(super) enum Owner {
    /// The batch at `at` of a produce request.
    Produce { job: usize, at: usize },
    /// A coordinator's batch.
    Coordinator {
        internal: u32,
        append: node::coordinator::AppendId,
    },
    /// A task that awaits the outcome.
    Task(oneshot::Sender<Outcome>),
    /// A task that awaits a site-log entry.
    Entry(oneshot::Sender<Result<(), sitelog::Refusal>>),
    /// A task that awaits a group's answer.
    Group(oneshot::Sender<node::group::GroupReply>),
}

/// Batches by the number of their ticket, which are small and used again.
#[derive(Default)]
pub(super) struct Payloads(Vec<Option<Bytes>>);

impl Payloads {
    pub(super) fn insert(&mut self, ticket: Ticket, batch: Bytes) {
        let at = ticket.0 as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        self.0[at] = Some(batch);
    }

    pub(super) fn remove(&mut self, ticket: &Ticket) -> Option<Bytes> {
        self.0.get_mut(ticket.0 as usize).and_then(Option::take)
    }
}

/// A replica as recovery found it on a disk.
pub(super) struct Found {
    pub(super) disk: usize,
    pub(super) row: store::Replica,
    /// Its producers, as [`Windows::encode`] writes them.
    pub(super) windows: Vec<u8>,
}

/// A fact that waits for its machine.
pub(super) enum Todo {
    Partition(usize, partition::Input),
    SiteLog(sitelog::Input),
    Coordinator(node::coordinator::Input),
}

/// The mutable part.
pub(crate) struct Inner {
    me: NodeId,
    spindles: Vec<Spindle>,
    replicas: Slab<Replica>,
    /// Replicas by their identity.
    by_partition: BTreeMap<(TopicId, u32), usize>,
    topics_by_name: HashMap<Rc<str>, TopicInfo>,
    topics_by_id: BTreeMap<TopicId, TopicInfo>,
    sitelog: sitelog::SiteLog,
    catalog: catalog::Catalog,
    coordinator: node::coordinator::Coordinator,
    /// What every producer wrote, by replica number.
    windows: Windows,
    pids: admin::Pids,
    jobs: Slab<Job>,
    tickets: Slab<Owner>,
    /// Batches that a machine has accepted for consideration but not appended yet.
    payloads: Payloads,
    todo: VecDeque<Todo>,
    partition_out: Outbox<partition::Effect>,
    sitelog_out: Outbox<sitelog::Effect>,
    coordinator_out: Outbox<node::coordinator::Effect>,
    lease_until: Instant,
    controller: bool,
    /// Every topic that the site file and the broker itself ask for stands in the site log, and leaders are named.
    founded: bool,
    cluster_id: String,
    /// Replicas that the disks hold and the site log has not named yet, since the start.
    found: BTreeMap<(TopicId, u32), Found>,
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
