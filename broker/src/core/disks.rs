//! What the disks' threads tell, and what time brings.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use model::{Instant, PartitionIndex, TopicId, TopicPartition};
use node::{coordinator, partition, sitelog};
use store::Outcome;
use tokio::sync::mpsc::UnboundedReceiver;

use super::replica::Keep;
use super::{Core, Ended, Inner, Todo};
use crate::clock;
use crate::spindle::{self, After, Condition, Event, PartIx};

/// How often deadlines are looked at: a twentieth of the shortest time that a client is told, a second.
const TICK: Duration = Duration::from_millis(50);
/// Steps of the coordinator in one tick; it does a bounded piece of its chores in each.
const COORDINATOR_STEPS_MAX: usize = 64;
/// How long a replica whose disk had no room is left alone.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// How often replicas are looked at for what time lets go.
const RETAIN_EVERY: Duration = Duration::from_secs(10);
/// A replica is looked at sooner when it has grown by this part of its quota, or by an extent.
const GROWN_PART: u64 = 16;
const GROWN_BYTES_MAX: u64 = 64 << 20;
/// How often the coordinator is told the time of day.
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
                self.todo
                    .push_back(Todo::SiteLog(sitelog::Input::SnapshotDurable { index }));
            }
            Event::Compacted { disk, compacted } => self.compacted(disk, compacted),
            Event::Failed { disk, error, out } => self.disk_failed(core, disk, &error, out),
            Event::Back {
                disk,
                recovered,
                view,
            } => self.disk_back(core, disk, &recovered, view),
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
        let todo = match (after, outcome) {
            // The disk failed or was not there any more: what waits is told with the disk's failure.
            (After::Gone { replica }, _) => {
                self.replicas.try_remove(replica);
                // Nobody waits for it to be led any more.
                self.progress.notify_waiters();
                return;
            }
            (After::Durable { replica, .. }, Outcome::NoRoom) => return self.no_room(replica),
            (_, Outcome::Failed | Outcome::NoRoom | Outcome::NoReplica | Outcome::Stale) => return,
            (After::Durable { replica, end }, _) => Todo::Partition(replica, P::Durable { end }),
            (After::Epoch { replica, epoch }, _) => {
                Todo::Partition(replica, P::EpochDurable { epoch })
            }
            (After::LogStart { replica, offset }, _) => {
                Todo::Partition(replica, P::LogStartDurable { offset })
            }
            (After::HardState { term }, _) => Todo::SiteLog(S::HardStateDurable { term }),
            (After::SiteEntry { index }, _) => Todo::SiteLog(S::Durable { index }),
            (After::SiteSnapshot { .. } | After::Swap | After::Clean | After::Nothing, _) => return,
        };
        self.todo.push_back(todo);
    }

    /// The replica's disk has no room for another extent: what waits is refused, and what the log holds stands. It is
    /// tried again when a moment has passed, since retention or a person may have made room.
    fn no_room(&mut self, at: usize) {
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        if replica.no_room_since.is_none() {
            tracing::warn!(topic = ?replica.topic, partition = replica.index, "no room for another extent");
            replica.no_room_since = Some(clock::now());
            self.todo
                .push_back(Todo::Partition(at, partition::Input::DiskFailed));
        }
    }

    fn disk_failed(&mut self, core: &Rc<Core>, disk: usize, error: &str, out: bool) {
        tracing::error!(disk = %self.spindles[disk].path.display(), error, out, "disk failed");
        self.spindles[disk].failed(out);
        self.compaction_failed(disk);
        for (at, replica) in &self.replicas {
            if replica.disk == disk {
                self.todo
                    .push_back(Todo::Partition(at, partition::Input::DiskFailed));
            }
        }
        if disk == 0 {
            core.end(Ended::MetaDisk(error.to_owned()));
        }
    }

    fn disk_back(
        &mut self,
        core: &Rc<Core>,
        disk: usize,
        recovered: &store::Recovered,
        view: std::sync::Arc<store::View<store::LinuxIo>>,
    ) {
        tracing::info!(disk = %self.spindles[disk].path.display(), groups = recovered.groups, "disk recovered");
        self.spindles[disk].back(recovered, view);
        let mut again = Vec::new();
        for row in &recovered.replicas {
            let key = (row.id.topic, row.id.partition.0);
            let Some(at) = self
                .by_partition
                .get(&key)
                .copied()
                .filter(|at| self.replicas[*at].part == row.part)
            else {
                // Deleted while the disk was away: its PART_DEL never got there.
                self.spindles[disk].push(spindle::Op::PartDel { part: row.part }, After::Nothing);
                continue;
            };
            if self.replicas[at].hole {
                continue;
            }
            if row.hole.is_some() {
                self.replicas[at].hole = true;
                tracing::error!(
                    topic = ?row.id.topic, partition = row.id.partition.0,
                    "part of this replica was lost with the journal: it is not served until `howdah recover DISK --accept`"
                );
                continue;
            }
            self.restore_windows(at, row, &recovered.windows);
            // The disk was opened anew and has forgotten what it may keep.
            if let Some(settings) = self.catalog.settings(row.id.topic) {
                self.configure_replica(at, &settings);
            }
            self.todo.push_back(Todo::Partition(
                at,
                partition::Input::DiskBack(Box::new(spindle::recovered(row))),
            ));
            again.push(key);
        }
        again.extend(self.make_missing(disk, recovered));
        core.lead_again(again);
    }

    /// Replicas that the site log placed on the disk while it was away: their PART_NEW never got there.
    fn make_missing(&mut self, disk: usize, recovered: &store::Recovered) -> Vec<(TopicId, u32)> {
        let found: BTreeSet<PartIx> = recovered.replicas.iter().map(|row| row.part).collect();
        let missing: Vec<usize> = self
            .replicas
            .iter()
            .filter(|(_, it)| it.disk == disk && !it.hole && !found.contains(&it.part))
            .map(|(at, _)| at)
            // One that was let go has no topic any more.
            .filter(|at| self.by_partition.values().any(|it| it == at))
            .collect();
        let mut made = Vec::new();
        for at in missing {
            let spindle = &self.spindles[disk];
            let replica = &mut self.replicas[at];
            let key = (replica.topic, replica.index);
            if recovered.suspect() {
                tracing::error!(topic = ?key.0, partition = key.1, "the disk lost this replica with part of its journal");
                replica.hole = true;
                continue;
            }
            // What was ever durable of it would have come back. But a PART_NEW pushed a moment ago may be on its way.
            spindle.push(spindle::Op::PartDel { part: replica.part }, After::Nothing);
            replica.part = spindle.next_part();
            let id = TopicPartition {
                topic: key.0,
                partition: PartitionIndex(key.1),
            };
            let part = replica.part;
            spindle.push(spindle::Op::PartNew { part, id }, After::Nothing);
            self.windows.remove(Self::window_of(at));
            if let Some(settings) = self.catalog.settings(key.0) {
                self.configure_replica(at, &settings);
            }
            self.todo.push_back(Todo::Partition(
                at,
                partition::Input::DiskBack(Box::new(super::apply::nothing())),
            ));
            made.push(key);
        }
        made
    }

    /// Puts the producers that the disk found in place of what was known of the replica's.
    pub(super) fn restore_windows(
        &mut self,
        at: usize,
        row: &store::Replica,
        found: &model::window::Windows,
    ) {
        let mut bytes = Vec::new();
        found.encode(row.part, &mut bytes);
        // What `encode` wrote `decode` takes: both are ours.
        self.windows
            .decode(Self::window_of(at), row.high_watermark, &bytes)
            .expect("windows that were just encoded");
    }

    fn tick(&mut self, core: &Rc<Core>) {
        let now = clock::now();
        for (at, replica) in &mut self.replicas {
            if replica.machine.deadline().is_some_and(|due| due <= now) {
                self.todo
                    .push_back(Todo::Partition(at, partition::Input::Tick));
            }
        }
        self.todo.push_back(Todo::SiteLog(sitelog::Input::Tick));
        if self.coordinator.deadline().is_some_and(|due| due <= now) {
            self.coordinate(core, now);
        }
        if self.chores.clock <= now {
            self.chores.clock = now + CLOCK_EVERY;
            let trusted = core.trusted_now();
            self.todo
                .push_back(Todo::Coordinator(coordinator::Input::Clock { trusted }));
        }
        let all = self.chores.retain <= now;
        if all {
            self.chores.retain = now + RETAIN_EVERY;
        }
        self.compact(now);
        self.retain(core, all);
        self.try_room(core, now);
    }

    fn coordinate(&mut self, core: &Rc<Core>, now: Instant) {
        for _ in 0..COORDINATOR_STEPS_MAX {
            if self.coordinator.deadline().is_none_or(|due| due > now) {
                return;
            }
            self.step_coordinator(core, now, coordinator::Input::Tick);
        }
    }

    /// Gives replicas whose disk had no room another try.
    fn try_room(&mut self, core: &Rc<Core>, now: Instant) {
        let mut again = Vec::new();
        for (at, replica) in &mut self.replicas {
            let due = replica
                .no_room_since
                .is_some_and(|since| now.since(since) >= NO_ROOM_PAUSE);
            if !due || self.spindles[replica.disk].condition() != Condition::Serving {
                continue;
            }
            replica.no_room_since = None;
            let machine = &replica.machine;
            self.windows
                .truncate(Self::window_of(at), machine.durable());
            self.spindles[replica.disk]
                .push(spindle::Op::Resume { part: replica.part }, After::Nothing);
            let held = Box::new(machine.held());
            self.todo
                .push_back(Todo::Partition(at, partition::Input::DiskBack(held)));
            again.push((replica.topic, replica.index));
        }
        core.lead_again(again);
    }

    /// Lets go of what retention does not keep (R10: the leader's word), and says which replicas are at their quota: of
    /// all replicas, or only of those that have grown.
    fn retain(&mut self, core: &Core, all: bool) {
        let mut trusted = None;
        for (at, replica) in &mut self.replicas {
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
            if let Some(offset) = store::retain(
                &log.extents,
                retention,
                trusted,
                replica.machine.stable_end(),
            ) {
                self.todo
                    .push_back(Todo::Partition(at, partition::Input::Retain { offset }));
            }
            let full = bytes >= quota_bytes;
            if full != replica.full {
                replica.full = full;
                self.todo
                    .push_back(Todo::Partition(at, partition::Input::Quota { full }));
            }
        }
    }
}
