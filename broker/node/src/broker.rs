//! One broker: every machine of a node, and the facts that one of them is to another.
//!
//! A fact goes into one machine; its effects are performed in order, and an effect that is a fact for another machine
//! stands in line until the first is done. What is left is for the shell: to write, to send, to answer. So the shell and
//! the simulator have the same broker, and neither decides anything.
//!
//! ```text
//!              ┌── sitelog ── Apply ──▶ catalog ──┬── Replica, Lead, Follow, Isr ──▶ partitions ──▶ the disks
//!  peers ─────▶│                                  └── what requests see                 │
//!              └── office, lease ──▶ controller ── Propose ──▶ sitelog                  ├── acknowledgements ──▶ clients
//!                                                               groups ◀── committed ───┘
//! ```
//!
//! It never sees a batch of a client, an address, or the time of day but as facts.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use model::window::{PAIRS_MAX, Windows};
use model::{Instant, LeaderEpoch, NodeId, TopicPartition, WallMs};

use crate::catalog::{Catalog, OFFSETS_TOPIC, SnapshotFault};
use crate::controller::{self, Controller, Proposal, Resigned};
use crate::coordinator::{self, Coordinator};
use crate::partition::{self, Partition};
use crate::peer::AlterIsr;
use crate::sitelog::{self, SiteLog};
use crate::{Outbox, Ticket};

mod apply;
mod disks;
mod groups;
mod replicas;
mod site;
#[cfg(test)]
mod tests;
mod types;

pub use groups::batch_of;
use replicas::{Replica, Replicas};
pub use types::{
    Ask, DiskFound, DiskIx, DiskStart, Effect, End, Event, Input, ReplicaFound, ReplicaIx, Say,
    Settings, Start,
};

/// Tickets that the broker draws for itself have this bit; the shell's are small.
const OWN: u64 = 1 << 63;
/// And those of the controller's proposals this one as well.
const PROPOSED: u64 = 1 << 62;
/// Steps of the coordinator for one [`Input::Tick`]; it does a bounded piece of its chores in each.
const COORDINATOR_STEPS_MAX: usize = 64;
/// The controller is reminded so often of what it may not have heard: a message may be lost, or its office new.
const REMIND_AGAIN: Duration = Duration::from_secs(1);

/// Whether a ticket was drawn by the broker for a batch of its own.
#[must_use]
pub const fn is_own(ticket: Ticket) -> bool {
    ticket.0 & OWN != 0
}

/// See the module.
#[derive(Debug)]
pub struct Broker {
    me: NodeId,
    settings: Settings,
    disks: Vec<disks::Disk>,
    sitelog: SiteLog,
    catalog: Catalog,
    controller: Controller,
    coordinator: Coordinator,
    /// What every producer wrote, by replica.
    windows: Windows,
    replicas: Replicas,
    /// What recovery found and the site log has not named yet.
    found: BTreeMap<TopicPartition, disks::Found>,
    /// The site log came back whole: what it does not name was deleted.
    whole: bool,
    /// All that was committed when this life began is applied, so what is missing here is missing.
    current: bool,
    /// What was missing when it became current is placed.
    settled: bool,
    lease_until: Instant,
    /// The controller's lease as it was told last.
    office_until: Option<Instant>,
    /// The coordinator's batches that are on their way to their partitions.
    appends: BTreeMap<Ticket, (u32, coordinator::AppendId)>,
    tickets: u64,
    /// Other ISRs that leaders here want, as of this step.
    isr_asks: Vec<AlterIsr>,
    /// Leaderships that may be moved now.
    level: Vec<(TopicPartition, LeaderEpoch, Resigned)>,
    /// The time of day when it was told last, and whether it is trusted.
    clock: Option<(WallMs, bool, Instant)>,
    /// The controller must be told something new.
    duties_due: bool,
    /// And how this node does, then.
    duties_at: Instant,
    /// And all again then.
    remind_at: Instant,
    todo: VecDeque<Todo>,
    outs: Outs,
}

/// A fact that waits for its machine.
#[derive(Debug)]
enum Todo {
    Partition(ReplicaIx, partition::Input),
    SiteLog(sitelog::Input),
    Coordinator(coordinator::Input),
    Controller(controller::Input),
}

/// The machines' outboxes, kept for their memory.
#[derive(Debug, Default)]
struct Outs {
    partition: Outbox<partition::Effect>,
    sitelog: Outbox<sitelog::Effect>,
    coordinator: Outbox<coordinator::Effect>,
    controller: Outbox<controller::Effect>,
}

impl Broker {
    /// A broker as its disks left it.
    ///
    /// # Errors
    /// The snapshot is of a release that this one does not know.
    pub fn new(settings: Settings, start: Start) -> Result<Self, SnapshotFault> {
        let me = settings.sitelog.node;
        let (catalog, snapshot) = match start.snapshot {
            Some((index, term, bytes)) => {
                (Catalog::decode(&bytes, me, settings.rules)?, (index, term))
            }
            None => (Catalog::new(me, settings.rules), Default::default()),
        };
        let recovered = sitelog::Recovered {
            hard_state: start.hard_state,
            snapshot,
            voters: catalog.voters().cloned(),
            entries: start.entries,
        };
        let mut broker = Self {
            me,
            disks: Vec::new(),
            sitelog: SiteLog::new(settings.sitelog.clone(), recovered),
            catalog,
            controller: Controller::new(settings.controller.clone()),
            coordinator: Coordinator::new(settings.coordinator),
            windows: Windows::new(PAIRS_MAX),
            replicas: Replicas::default(),
            found: BTreeMap::new(),
            whole: start.whole,
            current: false,
            settled: false,
            lease_until: Instant(0),
            office_until: None,
            appends: BTreeMap::new(),
            tickets: 0,
            isr_asks: Vec::new(),
            level: Vec::new(),
            clock: None,
            duties_due: false,
            duties_at: Instant(0),
            remind_at: Instant(0),
            todo: VecDeque::new(),
            outs: Outs::default(),
            settings,
        };
        for disk in start.disks {
            broker.open(disk);
        }
        Ok(broker)
    }

    /// Takes one fact at `now` and says what must happen next. Never waits, never fails.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Outbox<Effect>) {
        match input {
            Input::Start => self.start(out),
            Input::Partition { replica, input } => self.tell(replica, input),
            Input::NoRoom { replica } => self.no_room(replica),
            Input::Room { replica } => self.room(replica),
            Input::Gone { replica } => self.replicas.release(replica),
            Input::DiskFailed { disk } => self.disk_failed(disk, out),
            Input::DiskBack { disk, found } => self.disk_back(disk, found, out),
            Input::SiteLog(input) => self.todo.push_back(Todo::SiteLog(input)),
            Input::Group { ticket, request } => {
                self.coordinate(coordinator::Input::Request { ticket, request });
            }
            Input::Record {
                partition,
                epoch,
                offset,
                key,
                value,
            } => self.coordinate(coordinator::Input::Record {
                partition,
                epoch,
                offset,
                key,
                value,
            }),
            Input::Loaded { partition, epoch } => {
                self.coordinate(coordinator::Input::Loaded { partition, epoch });
            }
            Input::Wish {
                ticket,
                actor,
                deadline,
                wish,
            } => self
                .todo
                .push_back(Todo::Controller(controller::Input::Wish {
                    ticket,
                    actor,
                    deadline,
                    wish,
                })),
            Input::Clock { wall, trusted } => {
                self.clock = Some((wall, trusted, now));
                let trusted = trusted.then_some(wall);
                self.coordinate(coordinator::Input::Clock { trusted });
            }
            Input::Asked { from, ask } => self.asked(from, ask),
            Input::Told(say) => self.told(say, out),
            Input::DiskStalled { disk, stalled } => self.disk_stalled(disk, stalled),
            Input::Tick => self.tick(now, out),
        }
        self.work(now, out);
    }

    /// When [`Input::Tick`] is due; `None` while nothing waits for time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let partitions = self
            .replicas
            .iter()
            .filter_map(|(_, it)| it.machine.deadline());
        partitions
            .chain(self.sitelog.deadline())
            .chain(self.controller.deadline())
            .chain(self.coordinator.deadline())
            .chain([self.duties_at])
            .min()
    }

    /// A replica's machine, for queries.
    #[must_use]
    pub fn partition(&self, replica: ReplicaIx) -> Option<&Partition> {
        self.replicas.get(replica).map(|it| &it.machine)
    }

    /// The replica of a partition on this node.
    #[must_use]
    pub fn replica_of(&self, id: TopicPartition) -> Option<ReplicaIx> {
        self.replicas.of(id)
    }

    /// What is applied.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Whether part of a replica was lost with its disk's journal, and nobody has accepted that.
    #[must_use]
    pub fn has_hole(&self, replica: ReplicaIx) -> bool {
        self.replicas.get(replica).is_some_and(|it| it.hole)
    }

    /// Whether every topic that the site file and the broker itself want stands, as far as this node is the one to see to
    /// it, and what its disks hold has found its partition.
    #[must_use]
    pub fn founded(&self) -> bool {
        self.settled && !(self.sitelog.is_controller() && self.controller.wants())
    }

    /// Until when this node may serve, on its monotonic clock.
    #[must_use]
    pub const fn lease_until(&self) -> Instant {
        self.lease_until
    }

    /// The site log's machine.
    #[must_use]
    pub const fn sitelog(&self) -> &SiteLog {
        &self.sitelog
    }

    /// The coordinator of groups.
    #[must_use]
    pub const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The producers of this node's replicas.
    #[must_use]
    pub const fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Works until no fact waits.
    fn work(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        loop {
            while let Some(todo) = self.todo.pop_front() {
                match todo {
                    Todo::Partition(at, input) => self.step_partition(now, at, input, out),
                    Todo::SiteLog(input) => self.step_sitelog(now, input, out),
                    Todo::Coordinator(input) => self.step_coordinator(now, input, out),
                    Todo::Controller(input) => self.step_controller(now, input, out),
                }
            }
            self.ask_isr(out);
            if std::mem::take(&mut self.duties_due) {
                self.report(now, out);
                self.remind(out);
            }
            if self.todo.is_empty() {
                return;
            }
        }
    }

    /// The time of day, right or wrong.
    fn wall(&self, now: Instant) -> WallMs {
        let Some((WallMs(told), _, at)) = self.clock else {
            return WallMs(0);
        };
        WallMs(told + i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX - told))
    }

    fn clock_trusted(&self) -> bool {
        self.clock.is_some_and(|(_, trusted, _)| trusted)
    }

    fn tell(&mut self, replica: ReplicaIx, input: partition::Input) {
        self.todo.push_back(Todo::Partition(replica, input));
    }

    fn coordinate(&mut self, input: coordinator::Input) {
        self.todo.push_back(Todo::Coordinator(input));
    }

    fn tick(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        for (at, replica) in self.replicas.iter() {
            if replica.machine.deadline().is_some_and(|due| due <= now) {
                self.todo
                    .push_back(Todo::Partition(at, partition::Input::Tick));
            }
        }
        if self.duties_at <= now {
            self.report(now, out);
        }
        if self.remind_at <= now {
            self.remind_at = now + REMIND_AGAIN;
            self.duties_due = true;
        }
        self.todo.push_back(Todo::SiteLog(sitelog::Input::Tick));
        self.todo
            .push_back(Todo::Controller(controller::Input::Tick));
        for _ in 0..COORDINATOR_STEPS_MAX {
            if self.coordinator.deadline().is_none_or(|due| due > now) {
                break;
            }
            self.step_coordinator(now, coordinator::Input::Tick, out);
        }
    }

    fn step_partition(
        &mut self,
        now: Instant,
        at: ReplicaIx,
        input: partition::Input,
        out: &mut Outbox<Effect>,
    ) {
        // The replica may have been let go while the fact stood in line.
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        let mut effects = std::mem::take(&mut self.outs.partition);
        replica
            .machine
            .step(now, input, &mut self.windows, &mut effects);
        for effect in effects.drain() {
            self.partition_effect(at, effect, out);
        }
        self.outs.partition = effects;
    }

    /// What one partition's effect means to the other machines; all of it is the shell's as well, but what concerns the
    /// broker's own batches.
    fn partition_effect(
        &mut self,
        at: ReplicaIx,
        effect: partition::Effect,
        out: &mut Outbox<Effect>,
    ) {
        let internal = self.replicas.get(at).and_then(|replica| replica.internal);
        match (&effect, internal) {
            (
                partition::Effect::Append {
                    ticket,
                    base_offset,
                    ..
                },
                Some(_),
            ) => self.placed(*ticket, *base_offset),
            (partition::Effect::Reply { ticket, outcome }, _) if is_own(*ticket) => {
                self.append_ended(*ticket, outcome);
            }
            (partition::Effect::HighWatermark { high_watermark }, Some(partition)) => {
                self.coordinate(coordinator::Input::Committed {
                    partition,
                    end: *high_watermark,
                });
            }
            (partition::Effect::Leading { epoch }, Some(partition)) => {
                out.push(Effect::Load {
                    replica: at,
                    partition,
                    epoch: *epoch,
                });
                self.coordinate(coordinator::Input::Elected {
                    partition,
                    epoch: *epoch,
                });
            }
            (partition::Effect::Resigned, Some(partition)) => {
                self.coordinate(coordinator::Input::Resigned { partition });
            }
            _ => {}
        }
        match &effect {
            partition::Effect::AlterIsr {
                epoch,
                part_ver,
                isr,
            } => {
                let Some(replica) = self.replicas.get(at) else {
                    return;
                };
                return self.wants_isr(AlterIsr {
                    partition: replica.id,
                    epoch: *epoch,
                    part_ver: *part_ver,
                    isr: isr.to_vec(),
                });
            }
            partition::Effect::Level { to, epoch } => {
                let Some(replica) = self.replicas.get(at) else {
                    return;
                };
                self.level.push((replica.id, *epoch, Resigned::To(*to)));
                self.duties_due = true;
                return;
            }
            _ => {}
        }
        out.push(Effect::Partition {
            replica: at,
            effect,
        });
    }
}
