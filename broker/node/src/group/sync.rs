//! SyncGroup, Heartbeat and LeaveGroup: what a member does between two rebalances.

use std::collections::BTreeMap;

use super::classic::Group;
use super::turn::{Then, Turn};
use super::types::{
    GroupError, GroupReply, GroupState, Heartbeat, Leave, Leaver, Sync, Synced, UNKNOWN_MEMBER,
};
use crate::Ticket;
use crate::coordinator::APPEND_BYTES_MAX;

impl Group {
    /// Answers, or keeps the ticket until the leader's assignment is committed.
    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sync: Sync) {
        if let Err(error) = self.validate_sync(&sync) {
            return turn.refuse(ticket, error);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => {
                turn.refuse(ticket, GroupError::UnknownMemberId)
            }
            GroupState::PreparingRebalance => turn.refuse(ticket, GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance => {
                self.synced(&sync.member);
                let member = self.members.get_mut(&sync.member).expect("validated");
                if let Some(former) = member.syncing.replace(ticket) {
                    turn.refuse(former, GroupError::RebalanceInProgress);
                }
                // A leader that asks again while its assignment is on its way only waits anew.
                if self.is_leader(&sync.member) && !self.assigning {
                    self.assign(turn, sync.assignments);
                }
            }
            GroupState::Stable => {
                self.synced(&sync.member);
                self.heard(turn.now, &sync.member);
                turn.reply(ticket, self.share(&sync.member));
            }
        }
    }

    fn validate_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        self.validate(&sync.member, sync.instance.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |asked: &Option<String>, ours: &Option<String>| asked.is_some() && asked != ours;
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn synced(&mut self, member: &str) {
        self.members
            .get_mut(member)
            .expect("validated")
            .sync_pending = false;
        if self.members.values().all(|member| !member.sync_pending) {
            self.sync_deadline = None;
        }
    }

    fn share(&self, member: &str) -> GroupReply {
        GroupReply::Synced(Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: self.members[member].assignment.clone(),
        })
    }

    /// Writes the leader's assignment down; it is nobody's before it is committed.
    fn assign(&mut self, turn: &mut Turn<'_>, assignments: Vec<(String, Vec<u8>)>) {
        let assignments: BTreeMap<String, Vec<u8>> = assignments
            .into_iter()
            .filter(|(id, _)| self.has(id))
            .collect();
        // Whom the leader left out gets an empty share.
        let record = self.record(|id, _| assignments.get(id).cloned().unwrap_or_default());
        let bytes = assignments.values().map(Vec::len).sum();
        let fault = if record.bytes() > APPEND_BYTES_MAX {
            Some(GroupError::UnknownServerError)
        } else if !turn.may_write || !turn.pools.members.take(bytes) {
            Some(GroupError::CoordinatorNotAvailable)
        } else {
            None
        };
        if let Some(error) = fault {
            return self.unassigned(turn, error);
        }
        self.assigning = true;
        self.recorded = true;
        let assignments = assignments.into_iter().collect();
        let (group, generation) = (self.id.clone(), self.generation);
        turn.write(
            vec![record],
            Then::Assign {
                group,
                generation,
                assignments,
            },
        );
    }

    /// The assignment is committed; its bytes are the group's already.
    pub(super) fn assigned(
        &mut self,
        turn: &mut Turn<'_>,
        generation: i32,
        assignments: Vec<(String, Vec<u8>)>,
    ) {
        turn.pools
            .members
            .give(assignments.iter().map(|(_, bytes)| bytes.len()).sum());
        // Somebody came or went meanwhile: there will be another one.
        if !self.is(GroupState::CompletingRebalance) || self.generation != generation {
            return;
        }
        let mut assignments: BTreeMap<String, Vec<u8>> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            turn.pools.members.give(member.assignment.len());
            member.assignment = assignments.remove(id).unwrap_or_default();
            turn.pools.members.force(member.assignment.len());
        }
        self.assigning = false;
        self.enter(turn, GroupState::Stable);
        let waiting: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.syncing.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            let share = self.share(&id);
            let member = self.members.get_mut(&id).expect("listed just now");
            if let Some(ticket) = member.syncing.take() {
                turn.reply(ticket, share);
            }
            self.heard(turn.now, &id);
        }
    }

    /// The assignment could not be stored: who waits for it is told, and all join again.
    pub(super) fn unassigned(&mut self, turn: &mut Turn<'_>, error: GroupError) {
        self.fail_syncs(turn, error);
        self.rebalance(turn);
    }

    pub(super) fn heartbeat(&mut self, turn: &mut Turn<'_>, ticket: Ticket, heartbeat: &Heartbeat) {
        if let Err(error) = self.validate(&heartbeat.member, heartbeat.instance.as_deref()) {
            return turn.refuse(ticket, error);
        }
        if heartbeat.generation != self.generation {
            return turn.refuse(ticket, GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => {
                turn.refuse(ticket, GroupError::UnknownMemberId)
            }
            GroupState::PreparingRebalance => {
                self.heard(turn.now, &heartbeat.member);
                turn.refuse(ticket, GroupError::RebalanceInProgress);
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.heard(turn.now, &heartbeat.member);
                turn.reply(ticket, GroupReply::Alive);
            }
        }
    }

    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, ticket: Ticket, leave: &Leave) {
        let results = leave
            .members
            .iter()
            .map(|leaver| self.leave_one(turn, leaver))
            .collect();
        turn.reply(ticket, GroupReply::Left(results));
    }

    fn leave_one(&mut self, turn: &mut Turn<'_>, leaver: &Leaver) -> Result<(), GroupError> {
        let id = if leaver.member == UNKNOWN_MEMBER {
            // An administrator removes a static member by the name that it always has.
            let id = leaver
                .instance
                .as_ref()
                .and_then(|instance| self.statics.get(instance));
            id.cloned().ok_or(GroupError::UnknownMemberId)?
        } else if self.remove_pending(turn, &leaver.member) {
            self.try_complete_join(turn);
            return Ok(());
        } else {
            self.validate(&leaver.member, leaver.instance.as_deref())?;
            leaver.member.clone()
        };
        self.remove_and_rebalance(turn, &id);
        Ok(())
    }
}
