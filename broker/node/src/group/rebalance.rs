//! A rebalance, from the moment when somebody must join again to a new generation, and what time does to a group.

use core::time::Duration;

use super::classic::{Group, JoinWait};
use super::member::{Member, millis};
use super::turn::Turn;
use super::types::{GroupError, GroupReply, GroupState};

impl Group {
    /// Begins a rebalance unless one has begun.
    pub(super) fn rebalance(&mut self, turn: &mut Turn<'_>) {
        if !self.is(GroupState::PreparingRebalance) {
            self.prepare_rebalance(turn);
        }
    }

    fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.is(GroupState::CompletingRebalance) {
            self.fail_syncs(turn, GroupError::RebalanceInProgress);
        }
        self.clear_sync_wait();
        self.assigning = false;
        let longest = self.rebalance_timeout();
        let wait = if self.is(GroupState::Empty) {
            let delay = turn.settings.join_delay;
            JoinWait {
                deadline: turn.now + delay,
                extension: Some(longest.saturating_sub(delay)),
            }
        } else {
            JoinWait {
                deadline: turn.now + longest,
                extension: None,
            }
        };
        self.join_wait = Some(wait);
        self.arm(wait.deadline);
        self.enter(turn, GroupState::PreparingRebalance);
        self.try_complete_join(turn);
    }

    /// What the slowest member says it needs to join again.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        millis(
            self.members
                .values()
                .map(|member| member.rebalance_ms)
                .max()
                .unwrap_or(0),
        )
    }

    /// Ends the rebalance if everybody is there; an empty group's first one always waits out its delay.
    pub(super) fn try_complete_join(&mut self, turn: &mut Turn<'_>) {
        let waits = self.join_wait.is_some_and(|wait| wait.extension.is_none());
        let complete =
            self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if waits && complete {
            self.complete_join(turn);
        }
    }

    fn join_time_is_up(&mut self, turn: &mut Turn<'_>) {
        let wait = self
            .join_wait
            .as_mut()
            .expect("only a rebalance has the time");
        match wait.extension {
            Some(left) if self.newcomer && !left.is_zero() => {
                let delay = turn.settings.join_delay.min(left);
                *wait = JoinWait {
                    deadline: turn.now + delay,
                    extension: Some(left.saturating_sub(delay)),
                };
                let deadline = wait.deadline;
                self.newcomer = false;
                self.arm(deadline);
            }
            _ => self.complete_join(turn),
        }
    }

    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        // Static members may be away for their whole session and keep their place.
        let absent = |member: &Member| member.joining.is_none() && member.instance.is_none();
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| absent(member))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove(turn, &id);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Nobody came: wait on, until sessions run out.
            let deadline = turn.now + self.rebalance_timeout().max(Duration::from_millis(1));
            self.join_wait = Some(JoinWait {
                deadline,
                extension: None,
            });
            self.arm(deadline);
            return;
        }
        self.join_wait = None;
        self.newcomer = false;
        self.clear_sync_wait();
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        if self.members.is_empty() {
            self.protocol = None;
            self.enter(turn, GroupState::Empty);
            self.record_empty(turn);
            return;
        }
        self.protocol = self.select_protocol();
        self.enter(turn, GroupState::CompletingRebalance);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in &ids {
            let joined = self.joined(id);
            let member = self.members.get_mut(id).expect("listed just now");
            if let Some(ticket) = member.joining.take() {
                turn.reply(ticket, GroupReply::Joined(joined));
            }
            member.is_new = false;
            member.sync_pending = true;
            self.heard(turn.now, id);
        }
        let deadline = turn.now + self.rebalance_timeout();
        self.sync_deadline = Some(deadline);
        self.arm(deadline);
    }

    /// The leader stays if it has joined; else one that has.
    fn elect_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else {
            return false;
        };
        if self
            .members
            .get(leader)
            .is_some_and(|member| member.joining.is_some())
        {
            return true;
        }
        let joined = self
            .members
            .iter()
            .find(|(_, member)| member.joining.is_some());
        let Some((id, _)) = joined else { return false };
        self.leader = Some(id.clone());
        true
    }

    /// The protocol that all speak and most prefer; the leader's order decides between equals.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let judge = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader));
        let judge = judge.or_else(|| self.members.values().next())?;
        let shared = |name: &str| self.members.values().all(|member| member.speaks(name));
        let candidates: Vec<&str> = judge
            .protocols
            .iter()
            .map(|protocol| protocol.name.as_str())
            .filter(|name| shared(name))
            .collect();
        let mut votes = vec![0_usize; candidates.len()];
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .find_map(|spoken| candidates.iter().position(|name| *name == spoken.name));
            votes[vote?] += 1;
        }
        // The first of the largest.
        let most = votes.iter().max()?;
        let at = votes.iter().position(|count| count == most)?;
        Some(candidates[at].to_owned())
    }

    /// Lets happen what is due.
    pub(super) fn time_passes(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let late: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.remove_pending(turn, &id);
            self.try_complete_join(turn);
        }
        let is_late = |member: &Member| member.due().is_some_and(|due| due <= now);
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| is_late(member))
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            // The first one's going may have given the others a new deadline, or an end.
            if self.members.get(&id).is_some_and(|member| is_late(member)) {
                self.remove_and_rebalance(turn, &id);
            }
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.sync_time_is_up(turn);
        }
        if self.join_wait.is_some_and(|wait| wait.deadline <= now) {
            self.join_time_is_up(turn);
        }
        self.wake = self.due();
    }

    fn sync_time_is_up(&mut self, turn: &mut Turn<'_>) {
        self.sync_deadline = None;
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.sync_pending)
            .map(|(id, _)| id.clone())
            .collect();
        if silent.is_empty() {
            return;
        }
        for id in silent {
            self.remove(turn, &id);
        }
        self.rebalance(turn);
    }

    /// Drops what members would have been assigned and refuses those that wait for it.
    pub(super) fn fail_syncs(&mut self, turn: &mut Turn<'_>, error: GroupError) {
        for member in self.members.values_mut() {
            turn.pools.members.give(member.assignment.len());
            member.assignment = Vec::new();
            if let Some(ticket) = member.syncing.take() {
                turn.refuse(ticket, error);
                member.deadline = turn.now + member.session();
            }
        }
        self.wake = self.due();
    }

    pub(super) fn clear_sync_wait(&mut self) {
        self.sync_deadline = None;
        for member in self.members.values_mut() {
            member.sync_pending = false;
        }
    }

    /// Answers those that wait for the assignment, which may still come.
    pub(super) fn refuse_syncs(&mut self, turn: &mut Turn<'_>, error: GroupError) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                turn.refuse(ticket, error);
                member.deadline = turn.now + member.session();
            }
        }
        self.wake = self.due();
    }

    /// Answers a member's join, which may still turn out well.
    pub(super) fn refuse_join(&mut self, turn: &mut Turn<'_>, member: &str, error: GroupError) {
        let Some(joining) = self
            .members
            .get_mut(member)
            .map(|member| member.joining.take())
        else {
            return;
        };
        if let Some(ticket) = joining {
            turn.refuse(ticket, error);
        }
        self.heard(turn.now, member);
    }

    /// Answers all that wait with `error`. New members that have no instance id are forgotten: their clients may never
    /// have learned who they are.
    pub(super) fn refuse_waiting(&mut self, turn: &mut Turn<'_>, error: GroupError) {
        let mut strangers = Vec::new();
        for (id, member) in &mut self.members {
            let joining = member.joining.take();
            if joining.is_some() && member.is_new && member.instance.is_none() {
                strangers.push(id.clone());
            }
            for ticket in joining.into_iter().chain(member.syncing.take()) {
                turn.refuse(ticket, error);
            }
        }
        for id in strangers {
            self.remove(turn, &id);
        }
        self.wake = self.due();
    }
}
