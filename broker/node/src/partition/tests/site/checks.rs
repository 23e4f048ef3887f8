//! What must hold, and what was seen.

use super::*;

impl Site {
    /// A leader says that all below `high_watermark` is committed: it is what others said, or new (S1).
    pub(super) fn commit(&mut self, node: usize, high_watermark: Offset) {
        let view = &self.nodes[node].disk.view;
        for entry in view.iter().filter(|entry| entry.end() <= high_watermark) {
            if let Some(before) = self.committed.get(&entry.base) {
                assert_eq!(
                    before, entry,
                    "two records are committed at one offset (S1)"
                );
                continue;
            }
            let behind = self.committed.range(..entry.base).next_back();
            assert!(
                behind.is_none_or(
                    |(_, behind)| behind.end() <= entry.base && behind.epoch <= entry.epoch
                ),
                "committed records overlap, or their epochs fall: {behind:?}, {entry:?}"
            );
            let ahead = self.committed.range(entry.base..).next();
            assert!(
                ahead.is_none_or(|(_, ahead)| entry.end() <= ahead.base),
                "committed records overlap"
            );
            self.committed.insert(entry.base, *entry);
        }
    }

    /// Every member of the committed ISR has every committed record on its disk, as long as that is the disk it was.
    pub(super) fn check(&self) {
        for member in &self.control.row().isr {
            let node = &self.nodes[member.node.0 as usize - 1];
            if node.member != *member {
                continue;
            }
            let log = &node.disk.log;
            for entry in self.committed.values() {
                let at = log.partition_point(|held| held.base < entry.base);
                let held = log.get(at) == Some(entry);
                let deleted = entry.end() <= node.disk.kept.log_start;
                assert!(
                    held || deleted || self.compacted.contains(&entry.id),
                    "{entry:?} is committed, and {member:?} in sync does not have it: {:?}",
                    node.disk
                );
            }
        }
    }

    /// No producer has a batch twice among what is committed, and each has its batches in order.
    pub(super) fn check_producers(&self) {
        let mut next: BTreeMap<ProducerId, i32> = BTreeMap::new();
        for entry in self.committed.values() {
            if let Some((pid, seq)) = entry.pid {
                let next = next.entry(pid).or_default();
                assert_eq!(seq, *next, "twice, or with a gap: {entry:?}");
                *next = seq + entry.count;
            }
        }
    }

    pub(super) fn replied(&mut self, ticket: Ticket, outcome: &Outcome) {
        let owner = self.owners.remove(&ticket);
        let (node, owner) = owner.expect("a ticket is answered twice, or was never asked");
        match (owner, outcome) {
            (Owner::Producer(at), Outcome::Stored { base_offset, .. }) => {
                self.saw("stored");
                let producer = &mut self.producers[at];
                let place = producer.pending.iter().position(|it| it.2 == Some(ticket));
                let (seq, count, _) = producer.pending.remove(place.expect("it waits"));
                producer.known = true;
                producer.last = producer.last.max(*base_offset);
                let pid = producer.pid;
                let entry = self.committed.get(base_offset);
                let entry = entry.expect("acknowledged, and not committed");
                assert_eq!(
                    (entry.pid, entry.count),
                    (Some((pid, seq)), count),
                    "another batch"
                );
            }
            (Owner::Producer(at), Outcome::Refused(refusal)) => {
                // One that overtook an earlier one, which waits at another broker, is sent again.
                let first = self.producers[at].pending.first();
                let oldest = first.is_some_and(|first| first.2 == Some(ticket));
                let wrong = matches!(
                    refusal,
                    Refusal::OutOfOrderSequence | Refusal::InvalidProducerEpoch
                );
                // A deposed leader, which a lease would silence, may know less than was acknowledged.
                let current = self.nodes[node].machine.epoch == self.control.row().epoch;
                assert!(
                    !(wrong && oldest && current),
                    "a producer that did nothing wrong is refused: {refusal:?}"
                );
                for pending in &mut self.producers[at].pending {
                    if pending.2 == Some(ticket) {
                        pending.2 = None;
                    }
                }
            }
            (Owner::Deletion, Outcome::Deleted { log_start }) => {
                self.saw("deleted");
                self.deleted = self.deleted.max(*log_start);
                assert!(self.nodes[node].disk.kept.log_start >= *log_start);
            }
            _ => {}
        }
    }
}
