//! Steps the machines and performs their effects, in order.

use std::rc::Rc;

use model::Instant;
use model::window::PartIx;
use node::partition::{self, Outcome};
use node::{Ticket, coordinator, sitelog};

use super::{Core, Inner, Owner, Todo};
use crate::clock;
use crate::spindle::{After, Append, Op};

impl Inner {
    /// Tells a partition's machine a fact, now.
    pub(super) fn step(&mut self, replica: usize, input: partition::Input) {
        self.todo.push_back(Todo::Partition(replica, input));
    }

    /// Works until no fact waits.
    pub(super) fn perform(&mut self, core: &Rc<Core>) {
        let now = clock::now();
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Partition(replica, input) => self.step_partition(core, now, replica, input),
                Todo::SiteLog(input) => self.step_sitelog(core, now, input),
                Todo::Coordinator(input) => self.step_coordinator(core, now, input),
            }
        }
        for spindle in &self.spindles {
            spindle.flush();
        }
    }

    pub(super) fn step_partition(
        &mut self,
        core: &Rc<Core>,
        now: Instant,
        at: usize,
        input: partition::Input,
    ) {
        // The replica may have been deleted while the fact stood in line.
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        let mut out = std::mem::take(&mut self.partition_out);
        replica
            .machine
            .step(now, input, &mut self.windows, &mut out);
        for effect in out.drain() {
            self.partition_effect(core, at, effect);
        }
        self.partition_out = out;
    }

    fn partition_effect(&mut self, core: &Rc<Core>, at: usize, effect: partition::Effect) {
        let replica = &mut self.replicas[at];
        let spindle = &self.spindles[replica.disk];
        match effect {
            partition::Effect::Append {
                ticket,
                base_offset,
                leader_epoch,
                high_watermark,
            } => {
                let batch = self
                    .payloads
                    .remove(&ticket)
                    .expect("the machine appends what it was given");
                replica.appended(batch.len());
                let header = model::batch::Header::read(&batch).expect("checked");
                let end = base_offset.plus(i64::from(header.last_offset_delta) + 1);
                let owner = self.tickets.get(ticket.0 as usize);
                if matches!(owner, Some(Owner::Produce { .. })) {
                    core.counters.accepted(&header);
                }
                spindle.push(
                    Op::Append(Append {
                        part: replica.part,
                        base_offset,
                        leader_epoch,
                        hw: high_watermark,
                        gap: false,
                        append_time: replica.log_append_time.then(clock::wall),
                        batch,
                    }),
                    After::Durable { replica: at, end },
                );
                self.placed(ticket, base_offset);
            }
            partition::Effect::Epoch {
                epoch,
                start,
                unclean,
            } => spindle.push(
                Op::Epoch {
                    part: replica.part,
                    epoch,
                    start,
                    unclean,
                },
                After::Epoch { replica: at, epoch },
            ),
            partition::Effect::LogStart { offset } => {
                spindle.push(
                    Op::LogStart {
                        part: replica.part,
                        offset,
                    },
                    After::LogStart {
                        replica: at,
                        offset,
                    },
                );
            }
            // The batch stays under its ticket until the machine appends or refuses it.
            partition::Effect::Park { .. } => {}
            partition::Effect::Reply { ticket, outcome } => {
                let log_append_time = replica.log_append_time;
                self.settle(ticket, &outcome, log_append_time);
            }
            partition::Effect::HighWatermark { high_watermark } => {
                replica.wake();
                if let Some(internal) = replica.internal {
                    self.todo
                        .push_back(Todo::Coordinator(coordinator::Input::Committed {
                            partition: internal,
                            end: high_watermark,
                        }));
                }
            }
            partition::Effect::Leading { epoch } => {
                replica.wake();
                self.progress.notify_waiters();
                if let Some(internal) = replica.internal {
                    core.load_internal(at, internal, epoch);
                    self.todo
                        .push_back(Todo::Coordinator(coordinator::Input::Elected {
                            partition: internal,
                            epoch,
                        }));
                }
            }
            partition::Effect::Resigned => {
                replica.wake();
                if let Some(internal) = replica.internal {
                    self.todo
                        .push_back(Todo::Coordinator(coordinator::Input::Resigned {
                            partition: internal,
                        }));
                }
            }
            // Only who speaks to other brokers asks a leader, or has followers: this shell does not yet.
            partition::Effect::Copy { .. }
            | partition::Effect::Truncate { .. }
            | partition::Effect::Checkpoint { .. }
            | partition::Effect::CopyRefused { .. } => {
                unreachable!("nothing was copied from a leader")
            }
            partition::Effect::AlterIsr { .. }
            | partition::Effect::SlowDisk { .. }
            | partition::Effect::Level { .. } => {}
            partition::Effect::Halted {
                end,
                high_watermark,
            } => tracing::error!(
                topic = ?replica.topic,
                partition = replica.index,
                end = end.0,
                committed = high_watermark.0,
                "the disk came back without committed records; the partition serves no more"
            ),
        }
    }

    /// Gives a ticket's owner its outcome.
    pub(super) fn settle(&mut self, ticket: Ticket, outcome: &Outcome, log_append_time: bool) {
        self.payloads.remove(&ticket);
        let Some(owner) = self.tickets.try_remove(ticket.0 as usize) else {
            return;
        };
        match owner {
            Owner::Produce { job, at } => {
                if self.jobs[job].settle(at, outcome, log_append_time) {
                    self.jobs.remove(job);
                }
            }
            Owner::Coordinator { internal, append } => {
                self.todo.extend(
                    super::groups::append_outcome(internal, append, outcome).map(Todo::Coordinator),
                );
            }
            // Whoever asked may have gone away with its connection.
            Owner::Task(task) => drop(task.send(*outcome)),
            Owner::Entry(_) | Owner::Group(_) => unreachable!("a partition answers neither"),
        }
    }

    fn step_sitelog(&mut self, core: &Rc<Core>, now: Instant, input: sitelog::Input) {
        let mut out = std::mem::take(&mut self.sitelog_out);
        self.sitelog.step(now, input, &mut out);
        for effect in out.drain() {
            self.sitelog_effect(core, effect);
        }
        self.sitelog_out = out;
    }

    fn sitelog_effect(&mut self, core: &Rc<Core>, effect: sitelog::Effect) {
        let meta = &self.spindles[0];
        match effect {
            sitelog::Effect::HardState(state) => meta.push(
                Op::HardState {
                    term: state.term,
                    vote: state.voted_for,
                },
                After::HardState { term: state.term },
            ),
            sitelog::Effect::Append(entry) => meta.push(
                Op::SiteEntry {
                    index: entry.index.0,
                    term: entry.term,
                    bytes: entry.bytes.into(),
                },
                After::SiteEntry { index: entry.index },
            ),
            sitelog::Effect::Apply {
                index,
                bytes,
                ticket,
                ..
            } => {
                self.apply(core, index, &bytes);
                if let Some(Owner::Entry(task)) =
                    ticket.and_then(|ticket| self.tickets.try_remove(ticket.0 as usize))
                {
                    let _ = task.send(Ok(()));
                }
            }
            sitelog::Effect::Refuse { ticket, refusal } => {
                if let Some(Owner::Entry(task)) = self.tickets.try_remove(ticket.0 as usize) {
                    let _ = task.send(Err(refusal));
                }
            }
            sitelog::Effect::Snapshot { index, term } => meta.push(
                Op::SiteSnapshot {
                    index: index.0,
                    term,
                    bytes: self.catalog.encode().into(),
                },
                After::SiteSnapshot { index },
            ),
            sitelog::Effect::Controller { .. } => {
                self.controller = true;
                self.progress.notify_waiters();
            }
            sitelog::Effect::Send { .. }
            | sitelog::Effect::Orders(_)
            | sitelog::Effect::Encode { .. }
            | sitelog::Effect::Install { .. }
            | sitelog::Effect::Resigned { .. }
            | sitelog::Effect::Halt(_) => {
                unreachable!("a site of one has no peers, and the start refuses all others")
            }
            sitelog::Effect::LeaseUntil { until } => {
                self.lease_until = until;
                let replicas: Vec<usize> = self.replicas.iter().map(|(at, _)| at).collect();
                self.todo.extend(
                    replicas
                        .into_iter()
                        .map(|at| Todo::Partition(at, partition::Input::Lease { until })),
                );
                self.todo
                    .push_back(Todo::Coordinator(coordinator::Input::Lease { until }));
            }
        }
    }

    pub(super) fn step_coordinator(
        &mut self,
        core: &Rc<Core>,
        now: Instant,
        input: coordinator::Input,
    ) {
        let mut out = std::mem::take(&mut self.coordinator_out);
        self.coordinator.step(now, input, &mut out);
        for effect in out.drain() {
            self.coordinator_effect(core, now, effect);
        }
        self.coordinator_out = out;
    }

    /// The number under which a replica's producers are remembered.
    pub(super) fn window_of(replica: usize) -> PartIx {
        PartIx(u32::try_from(replica).expect("a node has a few thousand replicas"))
    }
}
