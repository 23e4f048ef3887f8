//! JoinGroup: who may come in, under which id, and whether the others must come again.

use model::Uuid;

use super::classic::Group;
use super::member::{Member, protocols_cost};
use super::turn::{Former, Then, Turn};
use super::types::{GroupError, GroupReply, GroupState, Join, Joined, Protocol, UNKNOWN_MEMBER};
use crate::Ticket;
use crate::coordinator::APPEND_BYTES_MAX;

/// Most bytes of a group id, client id, instance id, protocol type or protocol name. Records hold texts up to 32,767
/// bytes and a member id is a client id and 37 more; nobody needs the rest.
pub const NAME_BYTES_MAX: usize = 16 * 1024;

impl Group {
    /// Answers, or keeps the ticket until the rebalance is over.
    pub(super) fn join(&mut self, turn: &mut Turn<'_>, ticket: Ticket, mut join: Join) {
        if join.rebalance_timeout_ms < 0 {
            join.rebalance_timeout_ms = join.session_timeout_ms;
        }
        if !self.accepts(turn, &join.member) {
            // It knew a place that others have taken meanwhile.
            self.remove(turn, &join.member);
            turn.refuse(ticket, GroupError::GroupMaxSizeReached);
        } else if !self.supports(&join.protocol_type, &join.protocols) {
            turn.refuse(ticket, GroupError::InconsistentGroupProtocol);
        } else if join.member == UNKNOWN_MEMBER {
            self.join_unknown(turn, ticket, join);
        } else {
            self.join_known(turn, ticket, join);
        }
        self.try_complete_join(turn);
    }

    fn accepts(&self, turn: &Turn<'_>, member: &str) -> bool {
        let max = turn.settings.members_max;
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                let waits = |member: &Member| member.joining.is_some();
                self.members.get(member).is_some_and(|member| waits(member))
                    || self.members.values().filter(|member| waits(member)).count() < max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.has(member) || self.members.len() < max
            }
        }
    }

    fn join_unknown(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let id = member_id(
            join.instance.as_deref().unwrap_or(&join.client_id),
            join.uuid,
        );
        let old = join
            .instance
            .as_ref()
            .and_then(|instance| self.statics.get(instance))
            .cloned();
        match old {
            Some(old) => self.replace(turn, ticket, &old, id, join),
            // KIP-394: a client that gives up before its answer leaves no ghost member behind.
            None if join.instance.is_none() && join.member_id_required => {
                if !turn.pools.members.take(Self::pending_cost(&id)) {
                    return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
                }
                let deadline = turn.now + super::member::millis(join.session_timeout_ms);
                self.arm(deadline);
                self.pending.insert(id.clone(), deadline);
                turn.reply(ticket, GroupReply::MemberIdRequired { member: id });
            }
            None => self.add_joining(turn, ticket, &id, join),
        }
    }

    fn add_joining(&mut self, turn: &mut Turn<'_>, ticket: Ticket, id: &str, mut join: Join) {
        let protocol_type = core::mem::take(&mut join.protocol_type);
        let mut member = Member::new(join, turn.now);
        // Others leave, or an operator makes room: the client tries again by itself, and nobody else notices.
        if !turn.pools.members.take(member.cost(id)) {
            return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
        }
        self.remove_pending(turn, id);
        member.joining = Some(ticket);
        self.add(turn, id, member, protocol_type);
    }

    fn join_known(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        if self.pending.contains_key(&join.member) {
            if join.instance.is_some() {
                // Pending ids are given only to members without one.
                return turn.refuse(ticket, GroupError::UnknownMemberId);
            }
            let id = join.member.clone();
            return self.add_joining(turn, ticket, &id, join);
        }
        if let Err(error) = self.validate(&join.member, join.instance.as_deref()) {
            return turn.refuse(ticket, error);
        }
        let same = self.members[&join.member].protocols == join.protocols;
        match self.state {
            GroupState::Empty | GroupState::Dead => {
                turn.refuse(ticket, GroupError::UnknownMemberId)
            }
            // It may have missed the answer: here it is again.
            GroupState::CompletingRebalance if same => {
                turn.reply(ticket, GroupReply::Joined(self.joined(&join.member)));
            }
            GroupState::Stable if same && !self.is_leader(&join.member) => {
                turn.reply(ticket, GroupReply::Joined(self.joined(&join.member)));
            }
            // A leader that joins again has seen something that the members' metadata doesn't show, such as partitions.
            GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Stable => {
                if self.update(
                    turn,
                    ticket,
                    &join.member,
                    join.protocols,
                    (join.session_timeout_ms, join.rebalance_timeout_ms),
                ) {
                    self.rebalance(turn);
                }
            }
        }
    }

    /// Gives a member what it says now, and lets it wait. Refuses for want of memory.
    fn update(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        id: &str,
        protocols: Vec<Protocol>,
        (session_ms, rebalance_ms): (i32, i32),
    ) -> bool {
        let member = self.members.get_mut(id).expect("the caller found it");
        if !turn.pools.members.swap(
            protocols_cost(&member.protocols),
            protocols_cost(&protocols),
        ) {
            turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
            return false;
        }
        member.protocols = protocols;
        member.session_ms = session_ms;
        member.rebalance_ms = rebalance_ms;
        // The client asked again on another connection; whoever still reads the first one is told to do the same.
        if let Some(former) = member.joining.replace(ticket) {
            turn.refuse(former, GroupError::RebalanceInProgress);
        }
        // Nobody hears of a sync any more: it joins again.
        if let Some(former) = member.syncing.take() {
            turn.refuse(former, GroupError::RebalanceInProgress);
        }
        true
    }

    /// A static member is back, without its member id: it gets a new one, and its place. Nobody else is bothered unless
    /// the protocol changes by it.
    fn replace(&mut self, turn: &mut Turn<'_>, ticket: Ticket, old: &str, new: String, join: Join) {
        let member = self.members.get(old).expect("instance ids name members");
        let cost = |id: &str, protocols: &[Protocol]| 2 * id.len() + protocols_cost(protocols);
        if !turn
            .pools
            .members
            .swap(cost(old, &member.protocols), cost(&new, &join.protocols))
        {
            return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
        }
        let former_leader = self.leader.clone().unwrap_or_default();
        let mut member = self.members.remove(old).expect("just seen");
        // Two processes with one instance id: the first learns that it must stop.
        for former in member
            .joining
            .take()
            .into_iter()
            .chain(member.syncing.take())
        {
            turn.refuse(former, GroupError::FencedInstanceId);
        }
        let former = Former {
            id: old.to_owned(),
            leader: former_leader,
            can_skip_assignment: join.can_skip_assignment,
            protocols: core::mem::replace(&mut member.protocols, join.protocols),
            session_ms: core::mem::replace(&mut member.session_ms, join.session_timeout_ms),
            rebalance_ms: core::mem::replace(&mut member.rebalance_ms, join.rebalance_timeout_ms),
        };
        member.joining = Some(ticket);
        let instance = member
            .instance
            .clone()
            .expect("only static members are replaced");
        self.statics.insert(instance, new.clone());
        self.members.insert(new.clone(), member);
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        self.heard(turn.now, &new);
        match self.state {
            GroupState::Stable if self.select_protocol() == self.protocol => {
                self.record_replaced(turn, new, former)
            }
            // In CompletingRebalance the leader may know the old id, whose share would find nobody.
            GroupState::Stable | GroupState::CompletingRebalance => self.rebalance(turn),
            GroupState::Empty | GroupState::PreparingRebalance | GroupState::Dead => {}
        }
    }

    fn record_replaced(&mut self, turn: &mut Turn<'_>, new: String, old: Former) {
        let record = self.record(|_, member| member.assignment.clone());
        if record.bytes() > APPEND_BYTES_MAX {
            return self.unreplace(turn, &new, old, GroupError::UnknownServerError);
        }
        if !turn.may_write {
            return self.unreplace(turn, &new, old, GroupError::CoordinatorNotAvailable);
        }
        self.recorded = true;
        let (group, generation) = (self.id.clone(), self.generation);
        turn.write(
            vec![record],
            Then::Replace {
                group,
                generation,
                new,
                old,
            },
        );
    }

    /// The new id is committed: its owner may know it.
    pub(super) fn replaced(
        &mut self,
        turn: &mut Turn<'_>,
        generation: i32,
        new: &str,
        old: Former,
    ) {
        // A rebalance that began meanwhile answers at its end.
        if !self.is(GroupState::Stable) || self.generation != generation {
            return;
        }
        let Some(ticket) = self
            .members
            .get_mut(new)
            .and_then(|member| member.joining.take())
        else {
            return;
        };
        self.heard(turn.now, new);
        let joined = self.joined(new);
        let joined = if old.can_skip_assignment {
            Joined {
                skip_assignment: self.is_leader(new),
                ..joined
            }
        } else {
            Joined {
                leader: old.leader,
                members: Vec::new(),
                ..joined
            }
        };
        turn.reply(ticket, GroupReply::Joined(joined));
    }

    /// The new id could not be stored: the old one is valid again, as the log says.
    pub(super) fn unreplace(
        &mut self,
        turn: &mut Turn<'_>,
        new: &str,
        old: Former,
        error: GroupError,
    ) {
        if !self.is(GroupState::Stable) {
            return;
        }
        let Some(mut member) = self.members.remove(new) else {
            return;
        };
        let before = member.cost(new);
        if let Some(ticket) = member.joining.take() {
            turn.refuse(ticket, error);
        }
        (member.protocols, member.session_ms, member.rebalance_ms) =
            (old.protocols, old.session_ms, old.rebalance_ms);
        turn.pools.members.give(before);
        turn.pools.members.force(member.cost(&old.id));
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), old.id.clone());
        }
        if self.is_leader(new) {
            self.leader = Some(old.id.clone());
        }
        self.members.insert(old.id.clone(), member);
        self.heard(turn.now, &old.id);
    }
}

/// As Kafka makes them: the client's own name and a random UUID.
fn member_id(name: &str, uuid: Uuid) -> String {
    let hex = uuid.to_string();
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{name}-{a}-{b}-{c}-{d}-{e}")
}
