//! The controller's part: one row, changed by compare-and-set, leaders out of the ISR, lost disks out of it first.

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) epoch: LeaderEpoch,
    pub(super) part_ver: u32,
    pub(super) leader: Option<Member>,
    pub(super) isr: Vec<Member>,
}

/// The site log as far as this partition goes.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) rows: Vec<Row>,
}

impl Control {
    pub(super) fn new(replicas: Vec<Member>) -> Self {
        let first = Row {
            epoch: LeaderEpoch(0),
            part_ver: 0,
            leader: replicas.first().copied(),
            isr: replicas,
        };
        Self { rows: vec![first] }
    }

    pub(super) fn row(&self) -> &Row {
        self.rows.last().expect("there is a first row")
    }

    fn push(&mut self, change: impl FnOnce(&mut Row)) {
        let mut row = self.row().clone();
        row.part_ver += 1;
        change(&mut row);
        self.rows.push(row);
    }

    /// AlterIsr: compare and set (H25).
    pub(super) fn alter(
        &mut self,
        asker: NodeId,
        epoch: LeaderEpoch,
        part_ver: u32,
        isr: &[Member],
        fit: impl Fn(&Member) -> bool,
    ) -> IsrOutcome {
        let row = self.row();
        if epoch != row.epoch {
            return IsrOutcome::Fenced;
        }
        if part_ver != row.part_ver {
            return IsrOutcome::Stale;
        }
        if !isr
            .iter()
            .any(|member| Some(*member) == row.leader && member.node == asker)
        {
            return IsrOutcome::Refused;
        }
        let unfit = isr
            .iter()
            .find(|member| !row.isr.contains(member) && !fit(member));
        if let Some(member) = unfit {
            return IsrOutcome::Ineligible { node: member.node };
        }
        self.push(|row| row.isr = isr.to_vec());
        IsrOutcome::Committed {
            part_ver: self.row().part_ver,
        }
    }

    /// A new leader out of the ISR, in the next epoch (R1).
    pub(super) fn elect(&mut self, leader: Member) {
        assert!(self.row().isr.contains(&leader), "elected out of the ISR");
        self.push(|row| {
            row.epoch = row.epoch.next();
            row.leader = Some(leader);
        });
    }

    /// A dead node leaves the ISR; the last member stays (R6).
    pub(super) fn shrink(&mut self, dead: Member) {
        let row = self.row();
        if row.isr.contains(&dead) && row.isr.len() > 1 {
            self.leave(dead);
        }
    }

    /// A disk that is gone leaves the ISR before any leader is chosen (R9).
    pub(super) fn leave(&mut self, gone: Member) {
        self.push(|row| {
            row.isr.retain(|member| *member != gone);
            if row.leader == Some(gone) {
                (row.leader, row.epoch) = (None, row.epoch.next());
            }
        });
    }
}
