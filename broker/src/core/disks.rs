//! What the disks' threads tell, and what time brings.

use std::rc::Rc;
use std::time::Duration;

use model::Instant;
use node::broker::{DiskIx, Input, ReplicaIx};
use node::{partition, sitelog};
use store::Outcome;
use tokio::sync::mpsc::UnboundedReceiver;

use super::replica::Keep;
use super::{Core, Ended, Inner};
use crate::clock;
use crate::spindle::{self, After, Condition, Event};

/// How often deadlines are looked at: a twentieth of the shortest time that a client is told, a second.
const TICK: Duration = Duration::from_millis(50);
/// How long a replica whose disk had no room is left alone.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// How often replicas are looked at for what time lets go.
const RETAIN_EVERY: Duration = Duration::from_secs(10);
/// A replica is looked at sooner when it has grown by this part of its quota, or by an extent.
const GROWN_PART: u64 = 16;
const GROWN_BYTES_MAX: u64 = 64 << 20;
/// How often the broker is told the time of day.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// When chores are due again.
#[derive(Default)]
pub(super) struct Chores {
    retain: Instant,
    clock: Instant,
}

impl Core {
    /// Takes what the disks' threads tell, as long as the node lives.
    pub(super) async fn listen(self: Rc<Self>, mut events: UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            self.with(|inner| inner.disk_event(&self, event));
        }
    }

    /// Lets time pass in every machine.
    pub(super) async fn tick(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let core = self.clone();
            self.with(|inner| inner.tick(&core));
        }
    }
}

impl Inner {
    fn disk_event(&mut self, core: &Rc<Core>, event: Event) {
        match event {
            Event::Done {
                disk,
                outcomes,
                took,
            } => {
                if let Some(took) = took {
                    self.spindles[disk].commit.add(took);
                }
                for (after, outcome) in outcomes {
                    self.done(after, outcome);
                }
            }
            Event::Snapshot { index } => {
                let durable = sitelog::Input::SnapshotDurable { index };
                self.todo.push_back(Input::SiteLog(durable));
            }
            Event::Compacted { disk, compacted } => self.compacted(disk, compacted),
            Event::Failed { disk, error, out } => self.disk_failed(core, disk, &error, out),
            Event::Back {
                disk,
                recovered,
                view,
            } => self.disk_back(disk, &recovered, view),
            Event::Scrubbed { disk, verdict } => {
                for suspect in self.spindles[disk].scrubbed(verdict) {
                    tracing::error!(
                        disk = %self.spindles[disk].path.display(),
                        topic = ?suspect.id.topic, partition = suspect.id.partition.0,
                        first = suspect.first.0, last = suspect.last.0, damaged = suspect.damaged, why = suspect.why,
                        "part of a log is SUSPECT: it is not what was written; the rest is served"
                    );
                }
            }
            Event::Stopped { disk } => {
                self.stopped += 1;
                tracing::debug!(disk, "stopped in order");
                self.progress.notify_waiters();
            }
        }
    }

    fn done(&mut self, after: After, outcome: Outcome) {
        use partition::Input as P;
        use sitelog::Input as S;
        let input = match (after, outcome) {
            // The disk failed or was not there any more: what waits is told with the disk's failure.
            (After::Gone { replica }, _) => {
                self.replicas.remove(replica);
                // Nobody waits for it to be led any more.
                self.progress.notify_waiters();
                Input::Gone { replica }
            }
            (After::Durable { replica, .. }, Outcome::NoRoom) => return self.no_room(replica),
            (_, Outcome::Failed | Outcome::NoRoom | Outcome::NoReplica | Outcome::Stale) => return,
            (After::Durable { replica, end }, _) => return self.tell(replica, P::Durable { end }),
            (After::Epoch { replica, epoch }, _) => {
                return self.tell(replica, P::EpochDurable { epoch });
            }
            (After::LogStart { replica, offset }, _) => {
                return self.tell(replica, P::LogStartDurable { offset });
            }
            (After::HardState { term }, _) => Input::SiteLog(S::HardStateDurable { term }),
            (After::SiteEntry { index }, _) => Input::SiteLog(S::Durable { index }),
            (After::SiteSnapshot { .. } | After::Swap | After::Clean | After::Nothing, _) => return,
        };
        self.todo.push_back(input);
    }

    /// The replica's disk has no room for another extent: what waits is refused, and what the log holds stands. It is
    /// tried again when a moment has passed, since retention or a person may have made room.
    fn no_room(&mut self, at: ReplicaIx) {
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        if replica.no_room_since.is_none() {
            tracing::warn!(topic = ?replica.topic, partition = replica.index, "no room for another extent");
            replica.no_room_since = Some(clock::now());
            self.todo.push_back(Input::NoRoom { replica: at });
        }
    }

    fn disk_failed(&mut self, core: &Rc<Core>, disk: usize, error: &str, out: bool) {
        tracing::error!(disk = %self.spindles[disk].path.display(), error, out, "disk failed");
        self.spindles[disk].failed(out);
        self.compaction_failed(disk);
        if disk == 0 {
            core.end(Ended::MetaDisk(error.to_owned()));
        }
        self.todo.push_back(Input::DiskFailed { disk: ix(disk) });
    }

    fn disk_back(
        &mut self,
        disk: usize,
        recovered: &store::Recovered,
        view: std::sync::Arc<store::View<store::LinuxIo>>,
    ) {
        tracing::info!(disk = %self.spindles[disk].path.display(), groups = recovered.groups, "disk recovered");
        self.spindles[disk].back(recovered, view);
        for row in &recovered.replicas {
            let held = self.broker.replica_of(row.id);
            match held.and_then(|at| self.replicas.get_mut(at)) {
                // Its number is what the disk says: a later one may not have reached it.
                Some(replica) if replica.disk == disk => replica.part = row.part,
                _ => drop(self.found.insert((disk, row.id), row.part)),
            }
        }
        let found = super::boot::found(recovered);
        let disk = ix(disk);
        self.todo.push_back(Input::DiskBack { disk, found });
    }

    fn tick(&mut self, core: &Rc<Core>) {
        let now = clock::now();
        self.todo.push_back(Input::Tick);
        if self.chores.clock <= now {
            self.chores.clock = now + CLOCK_EVERY;
            self.tell_time(core);
        }
        let all = self.chores.retain <= now;
        if all {
            self.chores.retain = now + RETAIN_EVERY;
        }
        self.compact(now);
        self.retain(core, all);
        self.try_room(now);
    }

    /// Tells the broker the time of day.
    pub(super) fn tell_time(&mut self, core: &Core) {
        let (wall, trusted) = match core.trusted_now() {
            Some(wall) => (wall, true),
            None => (clock::wall(), false),
        };
        self.todo.push_back(Input::Clock { wall, trusted });
    }

    /// Gives replicas whose disk had no room another try.
    fn try_room(&mut self, now: Instant) {
        for (at, replica) in self.replicas.iter_mut() {
            let due = replica
                .no_room_since
                .is_some_and(|since| now.since(since) >= NO_ROOM_PAUSE);
            let spindle = &self.spindles[replica.disk];
            if due && spindle.condition() == Condition::Serving {
                replica.no_room_since = None;
                spindle.push(spindle::Op::Resume { part: replica.part }, After::Nothing);
                self.todo.push_back(Input::Room { replica: at });
            }
        }
    }

    /// Lets go of what retention does not keep (R10: the leader's word), and says which replicas are at their quota: of
    /// all replicas, or only of those that have grown.
    fn retain(&mut self, core: &Core, all: bool) {
        let mut trusted = None;
        for (at, replica) in self.replicas.iter_mut() {
            let Keep {
                mut retention,
                quota_bytes,
            } = replica.keep;
            let grown = replica.grown_bytes >= (quota_bytes / GROWN_PART).clamp(1, GROWN_BYTES_MAX);
            if !(grown || all) {
                continue;
            }
            let Some(view) = self.spindles[replica.disk].view() else {
                continue;
            };
            replica.grown_bytes = 0;
            let Some(log) = view.log(replica.part) else {
                continue;
            };
            let bytes = log.extents.iter().map(|extent| extent.bytes).sum::<u64>();
            if replica.compaction.may_make_room(bytes, quota_bytes) {
                retention.bytes = -1;
            }
            let trusted = *trusted.get_or_insert_with(|| core.trusted_now());
            let Some(machine) = self.broker.partition(at) else {
                continue;
            };
            let keep = store::retain(&log.extents, retention, trusted, machine.stable_end());
            if let Some(offset) = keep {
                self.todo.push_back(Input::Partition {
                    replica: at,
                    input: partition::Input::Retain { offset },
                });
            }
            let full = bytes >= quota_bytes;
            if full != replica.full {
                replica.full = full;
                self.todo.push_back(Input::Partition {
                    replica: at,
                    input: partition::Input::Quota { full },
                });
            }
        }
    }
}

fn ix(disk: usize) -> DiskIx {
    DiskIx(u8::try_from(disk).expect("a node has at most twelve disks"))
}
