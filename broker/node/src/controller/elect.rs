//! R9 and R1: who leaves the ISR because of a dead node or a lost disk, and who leads then. Both in one row, so that
//! nobody is chosen who should have left.
//!
//! A leader is replaced when its node is dead or when it gave up its epoch, and for no other reason: a node that is alive
//! and lost a disk gives up what it led there, in the same breath. What a report said a moment ago may be true no more,
//! and two nodes would serve (S2).

use model::{Instant, LeaderEpoch, NodeId, TopicPartition};

use super::health::{Life, Standing};
use super::rows::{Change, Draft};
use super::types::{Decision, Resigned, Why};
use super::{Controller, Planning};
use crate::catalog::Partition;
use crate::mutation::{self, Mutation};
use crate::sitelog::Replica;

/// A leader gave up this epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct GaveUp {
    pub(super) epoch: LeaderEpoch,
    pub(super) why: Resigned,
}

impl Controller {
    /// What must become of a partition because of who is alive and what gave up; `None` while all is well.
    pub(super) fn settle(
        &self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        row: &Partition,
    ) -> Option<Change> {
        let catalog = planning.catalog;
        let members: Vec<(Replica, Standing)> = row
            .in_sync()
            .map(|replica| (replica, self.health.standing(now, catalog, replica)))
            .collect();
        let mut draft = Draft::of(row);
        let mut said = Vec::new();
        let gave_up = self
            .gave_up
            .get(&id)
            .filter(|gave_up| gave_up.epoch == row.epoch)
            .map(|gave_up| gave_up.why);
        let keeps = row.leader.is_some_and(|leader| {
            let serves = self.health.life(now, catalog, leader) != Life::Dead;
            serves && gave_up.is_none()
        });
        leave(
            &members,
            row.leader.filter(|_| keeps),
            &mut draft,
            &mut said,
        );
        if !keeps {
            let why = self.why(now, planning, row, gave_up);
            match self.best(now, planning, row, &draft, gave_up) {
                Some(leader) => {
                    draft.leader = Some(leader);
                    draft.elected = true;
                    let epoch = draft.epoch(row);
                    said.push(Decision::Led { leader, epoch, why });
                }
                // Somebody in sync may be heard at any moment.
                None if members
                    .iter()
                    .any(|(_, standing)| *standing == Standing::Silent) =>
                {
                    return None;
                }
                None if self.elect_unclean(now, planning, id, &mut draft) => {
                    let (leader, epoch) = (draft.isr[0].node, draft.epoch(row));
                    let why = Why::Unclean;
                    said.push(Decision::Led { leader, epoch, why });
                }
                None => {
                    draft.leader = None;
                    if row.leader.is_some() {
                        let epoch = draft.epoch(row);
                        said.push(Decision::Offline { epoch, why });
                    }
                }
            }
        }
        (!said.is_empty()).then(|| Change {
            id,
            row: draft.row(id, row),
            moving: None,
            said,
            taken_from: row.leader.filter(|_| !keeps && gave_up.is_none()),
            asked_by: None,
        })
    }

    /// Who should lead, of those who may: whom the leader handed over to, else the first replica that is fit, rather not
    /// of a node that is drained.
    fn best(
        &self,
        now: Instant,
        planning: &Planning<'_>,
        row: &Partition,
        draft: &Draft,
        gave_up: Option<Resigned>,
    ) -> Option<NodeId> {
        let catalog = planning.catalog;
        let members = match mutation::is(Mutation::OutOfSyncElected) {
            true => &draft.replicas,
            false => &draft.isr,
        };
        let rank = |replica: &&Replica| {
            let drained = catalog.node(replica.node).is_some_and(|node| node.draining);
            let named = gave_up == Some(Resigned::To(replica.node));
            let place = row.replicas.iter().position(|it| it == *replica);
            (!named, drained, place)
        };
        let fit =
            |replica: &&Replica| self.health.standing(now, catalog, **replica) == Standing::Fit;
        let able = members.iter().filter(fit);
        able.min_by_key(rank).map(|replica| replica.node)
    }

    fn why(
        &self,
        now: Instant,
        planning: &Planning<'_>,
        row: &Partition,
        gave_up: Option<Resigned>,
    ) -> Why {
        let leader = row.leader.and_then(|leader| row.replica_on(leader));
        let standing = leader.map(|replica| self.health.standing(now, planning.catalog, replica));
        match (standing, gave_up) {
            (None | Some(Standing::Silent), _) => Why::Vacant,
            (Some(Standing::NodeDead), _) => Why::NodeDead,
            (Some(Standing::DiskGone | Standing::Stalled), _) => Why::Disk,
            (Some(Standing::Suspect), _) => Why::Suspect,
            (Some(Standing::Fit), Some(Resigned::To(_))) => Why::HandedOver,
            (Some(Standing::Fit), _) => Why::Resigned,
        }
    }

    /// An operator asked for any leader at all: the first replica that is fit; else one whose disk was taken out, on
    /// another disk, empty.
    fn elect_unclean(
        &self,
        now: Instant,
        planning: &mut Planning<'_>,
        id: TopicPartition,
        draft: &mut Draft,
    ) -> bool {
        let asked = self.elections.wants_unclean(id)
            || (mutation::is(Mutation::OutOfSyncElected) && draft.isr.is_empty());
        if !asked {
            return false;
        }
        let fit = |replica: &&Replica| {
            self.health.standing(now, planning.catalog, **replica) == Standing::Fit
        };
        let chosen = draft.replicas.iter().find(fit).copied().or_else(|| {
            let replicas = draft.replicas.clone();
            let (at, replica) = (0..).zip(replicas).find_map(|(at, replica)| {
                let anew = self.replaced(now, planning, id, replica)?;
                Some((at, anew.ok()?))
            })?;
            let at: usize = at;
            draft.replicas[at] = replica;
            Some(replica)
        });
        let Some(replica) = chosen else {
            return false;
        };
        draft.isr = vec![replica];
        draft.leader = Some(replica.node);
        draft.elected = true;
        draft.unclean = true;
        true
    }
}

/// R9, R6: who is in sync no more. The last one stays and the partition waits for it, and so do several that went
/// together: each of them has all that was committed. What a SUSPECT disk has, nobody knows.
fn leave(
    members: &[(Replica, Standing)],
    serves: Option<NodeId>,
    draft: &mut Draft,
    said: &mut Vec<Decision>,
) {
    let others = members
        .iter()
        .any(|(_, standing)| *standing == Standing::Fit)
        || mutation::is(Mutation::LastMemberLeaves);
    let may_leave = |(replica, _): &&(Replica, _)| Some(replica.node) != serves;
    for (replica, standing) in members.iter().filter(may_leave) {
        let why = match standing {
            Standing::NodeDead if others => Why::NodeDead,
            Standing::DiskGone if others && !mutation::is(Mutation::LostDiskStaysInSync) => {
                Why::Disk
            }
            Standing::Suspect if !mutation::is(Mutation::SuspectStaysInSync) => Why::Suspect,
            _ => continue,
        };
        draft.isr.retain(|member| member != replica);
        let replica = *replica;
        said.push(Decision::Left { replica, why });
    }
}
