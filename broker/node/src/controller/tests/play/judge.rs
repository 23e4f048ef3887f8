//! What must hold, whatever happens.

use super::*;
use crate::sitelog::Replica;

impl Play {
    /// Whoever left an ISR knows no more what the others commit; a new partition has nothing to know.
    pub(super) fn completeness(&mut self, before: &Catalog) {
        let after = &self.truth;
        for (id, row) in after.partitions() {
            match before.partition_row(id) {
                None => self.complete.extend(row.in_sync().map(|it| (it.disk, id))),
                Some(was) if was.part_ver == row.part_ver => {}
                Some(was) => {
                    let left = was
                        .in_sync()
                        .filter(|it| !row.in_sync().any(|member| member == *it));
                    for replica in left {
                        self.complete.remove(&(replica.disk, id));
                    }
                }
            }
            // After an unclean election what its leader has is all there is.
            if self.unclean.contains(&id) {
                continue;
            }
            // A node that lost its promises leaves when it is registered anew, and is nothing before.
            let itself = |it: &Replica| {
                let machine = self.machines.iter().find(|of| of.id == it.node).unwrap();
                let known = after.node(it.node);
                known.is_some_and(|row| row.incarnation == machine.incarnation)
            };
            for replica in row.in_sync().filter(itself) {
                assert!(
                    self.complete.contains(&(replica.disk, id)),
                    "{replica:?} of {id:?} is in sync and lacks what is committed (S1)"
                );
            }
        }
    }

    /// A committed entry against what was before.
    pub(super) fn judge(&mut self, before: &Catalog, record: &Record) {
        let after = &self.truth;
        for disk in after.disks() {
            assert!(disk.reserved <= disk.bytes, "overdrawn: {disk:?}");
        }
        let rows: Vec<_> = match record.entry.as_ref().unwrap() {
            Entry::Partition(topics) => topics
                .iter()
                .flat_map(|(topic, rows)| rows.iter().map(|row| (*topic, row.clone())))
                .collect(),
            Entry::Reassign(rows) => rows.iter().map(|it| (it.topic, it.row.clone())).collect(),
            _ => Vec::new(),
        };
        let mut seen = Vec::new();
        for (topic, row) in rows {
            let id = TopicPartition {
                topic,
                partition: row.partition,
            };
            let Some(now) = after.partition_row(id) else {
                continue;
            };
            assert_eq!(now.part_ver, row.part_ver, "a row that does not fit");
            let Some(was) = before.partition_row(id) else {
                continue;
            };
            if row.unclean {
                assert!(self.unclean.contains(&id), "nobody asked for it");
                seen.push("unclean");
                continue;
            }
            if let Some(leader) = now.leader.filter(|_| now.epoch > was.epoch) {
                assert!(
                    was.in_sync().any(|it| it.node == leader),
                    "{leader:?} was not in sync: {was:?}"
                );
            }
            if now.isr.is_empty() && !was.isr.is_empty() {
                let suspect = was.in_sync().all(|it| {
                    let of = self.machines.iter().find(|of| of.id == it.node).unwrap();
                    of.disks.contains(&(it.disk, DiskState::Suspect))
                });
                assert!(suspect || self.calm, "nobody is left in sync: {was:?}");
            }
            if after.moving_to(id).is_none() && before.moving_to(id).is_some() {
                let moving = before.moving_to(id).unwrap();
                let added = moving.to.iter().filter(|it| !moving.from.contains(it));
                for node in added {
                    assert!(
                        now.in_sync().any(|it| it.node == *node),
                        "arrived out of sync"
                    );
                }
            }
        }
        let drained = after.nodes().filter(|(_, row)| row.draining).count();
        assert!(drained <= 1, "two nodes are drained");
        for (id, row) in after.partitions() {
            let led = self.leaders.entry((id, row.epoch)).or_insert(row.leader);
            assert_eq!(*led, row.leader, "an epoch with two leaders");
            let in_sync = |leader| row.in_sync().any(|it| it.node == leader);
            assert!(row.leader.is_none_or(in_sync), "led out of sync: {row:?}");
        }
        seen.into_iter().for_each(|it| self.count(it));
    }

    /// Whether a node answers clients of a partition now.
    pub(super) fn serves(&self, node: usize, id: TopicPartition) -> bool {
        let machine = &self.machines[node];
        machine.up && machine.leading.contains_key(&id) && self.has_lease(node)
    }

    pub(super) fn has_lease(&self, node: usize) -> bool {
        let (machine, now) = (&self.machines[node], self.clock(node));
        let applied = Index(machine.applied as u64);
        let mut grants = machine.grants.iter();
        grants.any(|(until, after)| now < *until && *after <= applied)
    }

    /// What always holds.
    pub(super) fn check(&mut self) {
        let Some(held) = &self.held else {
            return self.vacant.clear();
        };
        let (office, since) = (held.node, held.since);
        let ids: Vec<TopicPartition> = {
            let led = self
                .machines
                .iter()
                .flat_map(|it| it.leading.keys().copied());
            led.collect::<BTreeSet<_>>().into_iter().collect()
        };
        for id in ids {
            let serving: Vec<_> = (0..self.machines.len())
                .filter(|node| self.serves(*node, id))
                .collect();
            let as_they_see = |node: &usize| {
                let machine = &self.machines[*node];
                (*node, machine.leading[&id], machine.applied, self.log.len())
            };
            assert!(
                serving.len() <= 1,
                "{id:?} is served twice (S2), in the eyes of {:?}",
                serving.iter().map(as_they_see).collect::<Vec<_>>()
            );
        }
        for machine in &mut self.machines {
            let well = machine.up
                && !machine.cut
                && machine.disks.iter().all(|(_, it)| *it == DiskState::Clean);
            match (well, machine.well_since) {
                (true, None) => machine.well_since = Some(self.now),
                (false, _) => machine.well_since = None,
                _ => {}
            }
        }
        // A member in sync that is well, under a controller that is, leads within a second or somebody else does.
        if !self.talks(office) || !self.majority() || self.now < since + 1_000 * TICK {
            return self.vacant.clear();
        }
        let well = |node: NodeId| {
            let machine = self.machines.iter().find(|it| it.id == node).unwrap();
            let since = machine
                .well_since
                .filter(|_| machine.applied + 20 >= self.log.len());
            since.is_some_and(|since| since + 1_000 * TICK < self.now)
        };
        let catalog = &self.machines[office].catalog;
        let able = |it: Replica| {
            let registered = catalog.node(it.node);
            well(it.node)
                && registered.is_some_and(|row| row.disks.iter().any(|d| d.uuid == it.disk))
        };
        let vacant: BTreeSet<_> = catalog
            .partitions()
            .filter(|(_, row)| row.leader.is_none() && row.in_sync().any(able))
            .map(|(id, _)| id)
            .collect();
        self.vacant.retain(|id, _| vacant.contains(id));
        for id in vacant {
            let since = *self.vacant.entry(id).or_insert(self.now);
            assert!(self.now < since + 1_000 * TICK, "{id:?} is led by nobody");
        }
    }
}
