//! Tells the broker its facts and performs its effects, in order.

use std::rc::Rc;

use model::TopicPartition;
use node::Ticket;
use node::broker::{DiskIx, Effect, End, Event, Input, ReplicaIx, is_own};
use node::partition::{self, Outcome};
use node::sitelog;

use super::replica::Replica;
use super::{Core, Ended, Inner, Owner};
use crate::clock;
use crate::spindle::{After, Append, Op};

impl Inner {
    /// Tells a partition's machine a fact, when those before it are done.
    pub(super) fn tell(&mut self, replica: ReplicaIx, input: partition::Input) {
        self.todo.push_back(Input::Partition { replica, input });
    }

    /// Whether a replica leads its partition.
    pub(super) fn leads(&self, replica: ReplicaIx) -> bool {
        let machine = self.broker.partition(replica);
        machine.is_some_and(|machine| machine.leading_since().is_some())
    }

    /// Works until no fact waits.
    pub(super) fn perform(&mut self, core: &Rc<Core>) {
        let now = clock::now();
        let mut out = std::mem::take(&mut self.out);
        while let Some(input) = self.todo.pop_front() {
            self.broker.step(now, input, &mut out);
            for effect in out.drain() {
                self.effect(core, effect);
            }
        }
        self.out = out;
        for spindle in &self.spindles {
            spindle.flush();
        }
    }

    fn effect(&mut self, core: &Rc<Core>, effect: Effect) {
        match effect {
            Effect::Partition { replica, effect } => self.partition_effect(core, replica, effect),
            Effect::Hold {
                replica,
                id,
                disk,
                new,
            } => self.hold(replica, id, disk, new),
            Effect::Configure { replica, settings } => self.configure(replica, &settings),
            Effect::LetGo { replica } => self.let_go(replica),
            Effect::Forget { disk, id } => {
                let disk = usize::from(disk.0);
                if let Some(part) = self.found.remove(&(disk, id)) {
                    self.spindles[disk].push(Op::PartDel { part }, After::Nothing);
                }
            }
            Effect::Batch { ticket, bytes } => self.payloads.insert(ticket, bytes.into()),
            Effect::SiteLog(effect) => self.sitelog_effect(effect),
            Effect::Snapshot { index, term, bytes } => self.spindles[0].push(
                Op::SiteSnapshot {
                    index: index.0,
                    term,
                    bytes: bytes.into(),
                },
                After::SiteSnapshot { index },
            ),
            Effect::Load {
                replica,
                partition,
                epoch,
            } => core.load_internal(replica, partition, epoch),
            Effect::Group { ticket, reply } => match self.tickets.try_remove(ticket.0 as usize) {
                // Whoever asked may have gone away with its connection.
                Some(Owner::Group(task)) => drop(task.send(reply)),
                _ => unreachable!("the coordinator answers what it was asked, once"),
            },
            Effect::Answer { ticket, answer } => match self.tickets.try_remove(ticket.0 as usize) {
                Some(Owner::Wish(task)) => drop(task.send(answer)),
                _ => unreachable!("a wish is answered once"),
            },
            Effect::Topic(id) => {
                self.publish(id);
                self.progress.notify_waiters();
            }
            Effect::TopicGone { id, name } => {
                self.topics_by_id.remove(&id);
                self.topics_by_name.remove(name.as_str());
                self.progress.notify_waiters();
            }
            Effect::Pids { first } => {
                self.pids.drawn(first);
                self.progress.notify_waiters();
            }
            Effect::Event(event) => self.log(core, &event),
            Effect::End(End::MetaDisk) => core.end(Ended::MetaDisk("a write failed".to_owned())),
            Effect::End(End::SiteLog(fault)) => {
                tracing::error!(fault, "site log");
                core.end(Ended::SiteLog(fault));
            }
            Effect::End(End::Halt(why)) => core.end(Ended::SiteLog(format!("{why:?}"))),
            Effect::Ask { .. } | Effect::Say { .. } => {
                unreachable!("a site of one has no peers, and the start refuses all others")
            }
        }
    }

    fn log(&self, core: &Rc<Core>, event: &Event) {
        let path = |disk: &DiskIx| self.spindles[usize::from(disk.0)].path.display();
        match event {
            Event::Controller(event) => tracing::debug!(?event, "controller"),
            Event::Hole { id, disk } => tracing::error!(
                topic = %id.topic, partition = id.partition.0, disk = %path(disk),
                "part of this replica was lost with the journal: it is not served until `howdah recover DISK --accept`"
            ),
            Event::Unknown { id, disk, freed } => tracing::warn!(
                topic = %id.topic, partition = id.partition.0, disk = %path(disk), freed,
                "a replica that no topic has"
            ),
            Event::NoDisk { id, .. } => tracing::warn!(
                topic = %id.topic, partition = id.partition.0, node = core.node_name(),
                "its disk is not here: nobody leads it"
            ),
        }
    }

    /// A replica lies on a disk of this node from now on.
    fn hold(&mut self, at: ReplicaIx, id: TopicPartition, disk: DiskIx, new: bool) {
        let disk = usize::from(disk.0);
        let spindle = &self.spindles[disk];
        if let Some(replica) = self.replicas.get_mut(at) {
            // Its disk came back without it; but a PART_NEW pushed a moment ago may be on its way.
            spindle.push(Op::PartDel { part: replica.part }, After::Nothing);
            replica.part = spindle.next_part();
            let part = replica.part;
            return spindle.push(Op::PartNew { part, id }, After::Nothing);
        }
        let found = self.found.remove(&(disk, id)).filter(|_| !new);
        let part = found.unwrap_or_else(|| spindle.next_part());
        if new {
            spindle.push(Op::PartNew { part, id }, After::Nothing);
        }
        let replica = Replica::new(id.topic, id.partition.0, disk, part);
        self.replicas.put(at, replica);
    }

    fn let_go(&mut self, at: ReplicaIx) {
        if let Some(replica) = self.replicas.get(at) {
            self.spindles[replica.disk].push(
                Op::PartDel { part: replica.part },
                After::Gone { replica: at },
            );
        }
    }

    fn partition_effect(&mut self, core: &Rc<Core>, at: ReplicaIx, effect: partition::Effect) {
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        let spindle = &self.spindles[replica.disk];
        let part = replica.part;
        match effect {
            partition::Effect::Append {
                ticket,
                base_offset,
                leader_epoch,
                high_watermark,
            } => {
                let batch = self
                    .payloads
                    .remove(ticket)
                    .expect("the machine appends what it was given");
                replica.appended(batch.len());
                let header = model::batch::Header::read(&batch).expect("checked");
                let end = base_offset.plus(i64::from(header.last_offset_delta) + 1);
                if !is_own(ticket) {
                    core.counters.accepted(&header);
                }
                spindle.push(
                    Op::Append(Append {
                        part,
                        base_offset,
                        leader_epoch,
                        hw: high_watermark,
                        gap: false,
                        append_time: replica.log_append_time.then(clock::wall),
                        batch,
                    }),
                    After::Durable { replica: at, end },
                );
            }
            partition::Effect::Epoch {
                epoch,
                start,
                unclean,
            } => spindle.push(
                Op::Epoch {
                    part,
                    epoch,
                    start,
                    unclean,
                },
                After::Epoch { replica: at, epoch },
            ),
            partition::Effect::LogStart { offset } => spindle.push(
                Op::LogStart { part, offset },
                After::LogStart {
                    replica: at,
                    offset,
                },
            ),
            // The batch stays under its ticket until the machine appends or refuses it.
            partition::Effect::Park { .. } => {}
            partition::Effect::Reply { ticket, outcome } => {
                let log_append_time = replica.log_append_time;
                self.settle(ticket, &outcome, log_append_time);
            }
            partition::Effect::HighWatermark { .. } | partition::Effect::Resigned => replica.wake(),
            partition::Effect::Leading { .. } => {
                replica.wake();
                self.progress.notify_waiters();
            }
            // Only who speaks to other brokers asks a leader, or has followers: this shell does not yet.
            partition::Effect::Copy { .. }
            | partition::Effect::Truncate { .. }
            | partition::Effect::Checkpoint { .. }
            | partition::Effect::CopyRefused { .. } => {
                unreachable!("nothing was copied from a leader")
            }
            partition::Effect::AlterIsr { .. } | partition::Effect::Level { .. } => {
                unreachable!("the broker's own")
            }
            partition::Effect::SlowDisk { .. } => {}
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
        self.payloads.remove(ticket);
        if is_own(ticket) {
            return;
        }
        let Some(owner) = self.tickets.try_remove(ticket.0 as usize) else {
            return;
        };
        match owner {
            Owner::Produce { job, at } => {
                if self.jobs[job].settle(at, outcome, log_append_time) {
                    self.jobs.remove(job);
                }
            }
            // Whoever asked may have gone away with its connection.
            Owner::Task(task) => drop(task.send(*outcome)),
            Owner::Wish(_) | Owner::Group(_) => unreachable!("a partition answers neither"),
        }
    }

    fn sitelog_effect(&mut self, effect: sitelog::Effect) {
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
            other => unreachable!(
                "a site of one has no peers, and the start refuses all others: {other:?}"
            ),
        }
    }
}
