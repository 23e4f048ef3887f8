//! What a node does by itself, and what happens to it.

use super::*;
use crate::peer::AlterIsr;
use crate::sitelog::Replica;

impl Play {
    pub(super) fn beat_of(&self, node: usize) -> NodeBeat {
        let machine = &self.machines[node];
        NodeBeat {
            node: machine.id,
            incarnation: machine.incarnation,
            boot: machine.boot,
            disks: machine.disks.clone(),
            applied: Index(machine.applied as u64),
            blessed: 1,
            digest: 7,
            clock_trusted: true,
        }
    }

    pub(super) fn send_beat(&mut self, node: usize) {
        if !self.talks(node) {
            return;
        }
        let (beat, sent) = (self.beat_of(node), self.clock(node));
        let machine = &self.machines[node];
        let as_is = Node {
            id: machine.id,
            incarnation: machine.incarnation,
            disks: machine
                .mounted
                .iter()
                .map(|uuid| Disk {
                    uuid: *uuid,
                    bytes: DISK_BYTES,
                })
                .collect(),
            versions: (1, 1),
            public_key: Vec::new(),
        };
        let known = machine.catalog.node(machine.id);
        if known.is_none_or(|row| row.incarnation != as_is.incarnation || row.disks != as_is.disks)
        {
            self.send(node, Input::Register(as_is));
        }
        if !self.random.one_in(50) {
            self.after_up_to(30, Fact::BeatComes(node, beat, sent));
        }
    }

    pub(super) fn learn(&mut self, node: usize) {
        let office = self.held.as_ref().map(|held| held.node);
        if self.talks(node) && office.is_some_and(|office| self.talks(office)) {
            self.learn_all(node);
        }
    }

    pub(super) fn learn_all(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        for bytes in &self.log[machine.applied..] {
            let record = Record::decode(bytes).unwrap();
            machine.catalog.apply(&record, &mut Outbox::new());
        }
        machine.applied = self.log.len();
        if std::mem::take(&mut machine.fresh) {
            let (me, rows) = (machine.id, machine.catalog.partitions());
            let named = rows.filter(|(_, row)| row.leader == Some(me));
            machine.given_up = named.map(|(id, row)| (id, row.epoch)).collect();
        }
        self.lead(node);
    }

    /// R2: it begins to lead an epoch that is new to its disk, and never goes on in an old one.
    pub(super) fn lead(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let me = machine.id;
        let rows: Vec<_> = machine.catalog.partitions().collect();
        machine.leading.retain(|id, epoch| {
            let row = machine.catalog.partition_row(*id);
            row.is_some_and(|row| row.leader == Some(me) && row.epoch == *epoch)
        });
        for (id, row) in rows.into_iter().filter(|(_, row)| row.leader == Some(me)) {
            let Some(replica) = row.replica_on(me) else {
                continue;
            };
            let serves = machine.disks.contains(&(replica.disk, DiskState::Clean));
            let accepted = machine
                .accepted
                .entry((replica.disk, id))
                .or_insert(LeaderEpoch(-1));
            let given_up = machine.given_up.get(&id).is_some_and(|it| row.epoch <= *it);
            if serves && !given_up && !machine.fresh && row.epoch > *accepted {
                *accepted = row.epoch;
                machine.leading.insert(id, row.epoch);
            }
        }
    }

    /// A leader resigns what it can't go on with, and says who is in sync.
    pub(super) fn work(&mut self, node: usize) {
        self.lead(node);
        let me = self.machines[node].id;
        let machine = &self.machines[node];
        let resigned: Vec<_> = machine
            .catalog
            .partitions()
            .filter(|(id, row)| row.leader == Some(me) && !machine.leading.contains_key(id))
            .map(|(id, row)| (id, row.epoch, Resigned::Epoch))
            .collect();
        let led: Vec<_> = machine.leading.keys().copied().collect();
        if !resigned.is_empty() && !self.machines[node].fresh {
            let named = resigned.iter().map(|(id, epoch, _)| (*id, *epoch));
            self.machines[node].given_up.extend(named);
            let partitions = resigned;
            self.send(
                node,
                Input::Resign {
                    node: me,
                    partitions,
                },
            );
        }
        if !self.has_lease(node) {
            return;
        }
        let mut rows = Vec::new();
        for id in led {
            let row = self.machines[node]
                .catalog
                .partition_row(id)
                .unwrap()
                .clone();
            let mut isr: Vec<Replica> = Vec::new();
            for replica in &row.replicas {
                let was = row.in_sync().any(|it| it == *replica);
                let caught_up = match was {
                    _ if replica.node == me => true,
                    true => self.calm || !self.random.one_in(40),
                    false => self.has_caught_up(id, *replica, row.epoch),
                };
                if caught_up {
                    isr.push(*replica);
                    if !was {
                        self.complete.insert((replica.disk, id));
                    }
                }
            }
            let changed = isr.len() != row.isr.len()
                || isr
                    .iter()
                    .any(|it| !row.in_sync().any(|known| known == *it));
            if changed || self.random.one_in(200) {
                let catalog = &self.machines[node].catalog;
                rows.push(AlterIsr {
                    partition: id,
                    epoch: row.epoch,
                    part_ver: row.part_ver,
                    isr: isr.into_iter().map(|it| catalog.member(it)).collect(),
                });
            }
        }
        if !rows.is_empty() {
            let ticket = Ticket(u64::MAX - self.number);
            let input = Input::AlterIsr {
                ticket,
                node: me,
                rows,
            };
            self.send(node, input);
        }
    }

    /// A follower follows this leader, from a disk in service, and needs a moment.
    pub(super) fn has_caught_up(
        &mut self,
        id: TopicPartition,
        replica: Replica,
        epoch: LeaderEpoch,
    ) -> bool {
        let at = self.machines.iter().position(|it| it.id == replica.node);
        let there = &self.machines[at.unwrap()];
        let follows = there.catalog.partition_row(id);
        there.up
            && !there.cut
            && there.disks.contains(&(replica.disk, DiskState::Clean))
            && follows.is_some_and(|row| row.epoch == epoch && row.replicas.contains(&replica))
            && (self.calm || self.random.one_in(2))
    }

    pub(in super::super) fn kill(&mut self, node: usize) {
        if self.held_by(node) {
            // Who waits at a dead controller is never answered.
            self.tickets.clear();
            if let Some(held) = &mut self.held
                && let Some((_, bytes)) = held.pending.take()
                && self.random.one_in(2)
            {
                self.enter(bytes);
            }
            self.held = None;
        }
        self.machines[node].up = false;
        self.count("killed");
    }

    pub(in super::super) fn start(&mut self, node: usize) {
        let nodes = u32::try_from(self.machines.len()).unwrap();
        let machine = &mut self.machines[node];
        machine.up = true;
        machine.boot += 1;
        machine.leading.clear();
        machine.grants.clear();
        machine.given_up.clear();
        machine.fresh = true;
        machine.tick_at = 0;
        machine.controller = Controller::new(settings(nodes, DISKS));
        machine.mounted = machine
            .disks
            .iter()
            .filter(|(_, state)| *state != DiskState::Failed)
            .map(|(uuid, _)| *uuid)
            .collect();
        self.after_up_to(20, Fact::Learn(node));
    }

    pub(in super::super) fn set_disk(&mut self, node: usize, at: usize, state: DiskState) {
        let machine = &mut self.machines[node];
        // Only a person accepts what is left on a disk with a hole.
        if machine.disks[at].1 == DiskState::Suspect && !self.calm {
            return;
        }
        machine.disks[at].1 = state;
        let uuid = machine.disks[at].0;
        if state == DiskState::Clean && !machine.mounted.contains(&uuid) {
            machine.mounted.push(uuid);
        }
        if state != DiskState::Clean {
            let catalog = &machine.catalog;
            let me = machine.id;
            machine.leading.retain(|id, _| {
                let row = catalog.partition_row(*id);
                row.and_then(|row| row.replica_on(me))
                    .is_some_and(|it| it.disk != uuid)
            });
        }
        self.count("disks");
    }

    /// Another disk in its place, while the box is off.
    pub(in super::super) fn swap_disk(&mut self, node: usize, at: usize) {
        self.next_disk = self.next_disk.wrapping_add(1);
        let anew = disk(self.machines[node].id.0, char::from(self.next_disk));
        self.machines[node].disks[at] = (anew, DiskState::Clean);
        self.count("swapped disks");
    }

    /// Another box in its place, while it is off.
    pub(in super::super) fn swap_box(&mut self, node: usize) {
        (0..DISKS).for_each(|at| self.swap_disk(node, at));
        let next = self.next_disk;
        let machine = &mut self.machines[node];
        machine.incarnation = incarnation(next.wrapping_add(100));
        machine.catalog = Catalog::new(machine.id, rules());
        machine.applied = 0;
        machine.accepted.clear();
        self.count("swapped boxes");
    }

    /// Another meta disk in its place, while it is off: its promises are lost, and what its data disks hold may be old.
    pub(in super::super) fn swap_meta(&mut self, node: usize) {
        let disks = self.machines[node].disks.clone();
        self.swap_box(node);
        self.machines[node].disks = disks.clone();
        let lost = |(disk, _): &(DiskUuid, _)| disks.iter().any(|(it, _)| it == disk);
        self.complete.retain(|it| !lost(it));
    }
}
