//! Who has the office, what is granted, and the log: as the site log's machine lets them be.

use super::*;

impl Play {
    pub(super) fn beat_comes(&mut self, node: usize, beat: NodeBeat, sent: Instant) {
        let Some(held) = &self.held else { return };
        let (office, until) = (held.node, held.until);
        if !self.talks(office) || self.machines[node].cut {
            return;
        }
        // L1.5: the node counts it from when it sent the beat.
        let mut granted = GRANT.min(until.since(self.clock(office)));
        let deciding = &self.machines[office];
        let after = deciding
            .controller
            .grant_after(&deciding.catalog, beat.node, beat.incarnation);
        match after {
            Some(after) if !granted.is_zero() => {
                let ends = sent + granted;
                self.free_at = self.free_at.max(self.true_time(node, ends));
                self.after_up_to(30, Fact::Granted(node, beat.boot, ends, after));
            }
            _ => granted = Duration::ZERO,
        }
        let dead_from = self.clock(office) + passed_everywhere(granted);
        self.tell(office, Input::Beat { beat, dead_from });
    }

    /// The office goes on, ends, or begins: one at a time, the next when all that the last one granted is over (S2).
    pub(super) fn office(&mut self) {
        if let Some(held) = &self.held {
            let node = held.node;
            if self.talks(node) && self.majority() {
                let until = self.clock(node) + GRANT;
                self.free_at = self.free_at.max(self.true_time(node, until));
                self.held.as_mut().unwrap().until = until;
                return self.tell(node, Input::Lease { until });
            }
            if self.now < self.free_at {
                return;
            }
            self.end_office();
        }
        if self.now < self.free_at || !self.majority() || self.random.one_in(3) {
            return;
        }
        let able: Vec<usize> = (0..self.machines.len())
            .filter(|it| self.talks(*it))
            .collect();
        let node = able[self.random.index(able.len())];
        self.learn_all(node);
        self.terms += 1;
        self.count("offices");
        let until = self.clock(node) + GRANT;
        self.free_at = self.free_at.max(self.true_time(node, until));
        self.held = Some(Held {
            node,
            until,
            index: self.log.len(),
            pending: None,
            since: self.now,
        });
        let input = Input::Office {
            term: Term(self.terms),
            since: self.clock(node),
            until,
            index: Index(self.log.len() as u64),
            moves_from: Instant(0),
            wanted: vec![Wanted::Offsets(topic_id(1_000 + self.terms as u16))],
            site: model::SiteUuid(Uuid([9; 16])),
        };
        self.tell(node, input);
    }

    /// What was on its way may have reached a majority: then the next controller finds it in its log.
    pub(super) fn end_office(&mut self) {
        let Some(held) = self.held.take() else { return };
        if let Some((_, bytes)) = held.pending
            && self.random.one_in(2)
        {
            self.enter(bytes);
            self.count("entries of the dead");
        }
        if self.machines[held.node].up {
            self.tell(held.node, Input::Deposed);
        }
    }

    /// The controller gives up its office, or is thought dead by the others: its lease runs out meanwhile.
    pub(in super::super) fn depose(&mut self) {
        self.end_office();
    }

    pub(super) fn enter(&mut self, bytes: Vec<u8>) {
        let (before, record) = (self.truth.clone(), Record::decode(&bytes).unwrap());
        self.truth.apply(&record, &mut Outbox::new());
        self.log.push(bytes);
        self.judge(&before, &record);
        self.completeness(&before);
        for node in 0..self.machines.len() {
            self.after_up_to(50, Fact::Learn(node));
        }
    }

    pub(super) fn commit(&mut self, proposal: Proposal) {
        let able = self.majority();
        let Some(held) = &mut self.held else { return };
        if held.pending.as_ref().is_none_or(|(id, _)| *id != proposal) {
            return;
        }
        let node = held.node;
        if !able || !self.machines[node].up || self.machines[node].cut {
            // Tried again until the office ends.
            return self.after_up_to(50, Fact::Commit(proposal));
        }
        let (_, bytes) = held.pending.take().unwrap();
        if self.random.one_in(60) {
            return self.tell(node, Input::NotTaken(proposal));
        }
        self.enter(bytes);
        self.learn_all(node);
        let input = Input::Applied {
            index: Index(self.log.len() as u64),
            proposal: Some(proposal),
        };
        self.tell(node, input);
    }
}
