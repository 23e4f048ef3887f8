//! A classic group: members that join, are shown to a leader, and get what it assigns.
//!
//! ```text
//!            join                 all joined, or time is up              assignment committed
//!   Empty ──────────> Preparing ────────────────────────────> Completing ────────────────────> Stable
//!     ^                │  ^  ^                                    │                              │
//!     └── nobody left ─┘  │  └──── a member changes or goes ──────┘                              │
//!                         └──────── a member changes, goes, or the leader joins again ───────────┘
//! ```
//! Members live in memory alone until the leader's assignment is committed; a coordinator that dies before then leaves
//! the last stable generation behind, whose members learn from ILLEGAL_GENERATION that they must join again, as in
//! Kafka. What a request does to it is in the files beside this one; here are the moves that several of them share.

use core::time::Duration;
use std::collections::BTreeMap;
use std::rc::Rc;

use model::Instant;

use super::member::Member;
use super::records::{GroupValue, group_key};
use super::subscription;
use super::turn::{Then, Turn};
use super::types::{GroupError, GroupState, Joined, Protocol};
use crate::coordinator::Record;

/// How long a member that never heard of its id may wait in a rebalance: its client is gone by then, or asks again.
const NEW_MEMBER_WAIT: Duration = Duration::from_secs(5 * 60);
/// What a group costs besides its bytes.
const GROUP_BYTES: usize = 704;
/// What an id that was given out and not used yet costs besides its bytes.
const PENDING_BYTES: usize = 96;

/// Until when a rebalance waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinWait {
    pub(super) deadline: Instant,
    /// The first rebalance of an empty group waits out its delay, and again for newcomers, for that much at most.
    pub(super) extension: Option<Duration>,
}

/// A group, with or without members. Never [`GroupState::Dead`]: what is dead is not in the map.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Rc<str>,
    pub(super) state: GroupState,
    /// When it came into its state, for people and for the expiry of offsets; −1: no trusted time then.
    pub(super) state_at: i64,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// By id; boxed, as a map's node has room for eleven.
    pub(super) members: BTreeMap<String, Box<Member>>,
    /// Ids given out by MEMBER_ID_REQUIRED, until their owners join or the time is up.
    pub(super) pending: BTreeMap<String, Instant>,
    /// Member ids by instance id.
    pub(super) statics: BTreeMap<String, String>,
    /// Set in PreparingRebalance, and only there.
    pub(super) join_wait: Option<JoinWait>,
    /// Members that joined but did not sync are dropped then.
    pub(super) sync_deadline: Option<Instant>,
    /// Somebody came while the first rebalance waited: it may wait once more.
    pub(super) newcomer: bool,
    /// The leader's assignment is on its way to the disks.
    pub(super) assigning: bool,
    /// No later than the first moment at which time changes something.
    pub(super) wake: Option<Instant>,
    /// The entry of the timer list; kept by the groups' owner.
    pub(super) armed: Option<Instant>,
    /// Tombstones on their way: the next look for old offsets need not write them again.
    pub(super) forgetting: u32,
    /// A record of it lies in the log: it must be wiped out there too.
    pub(super) recorded: bool,
}

impl Group {
    pub(super) fn new(id: Rc<str>, state_at: i64) -> Self {
        Self {
            id,
            state: GroupState::Empty,
            state_at,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            statics: BTreeMap::new(),
            join_wait: None,
            sync_deadline: None,
            newcomer: false,
            assigning: false,
            wake: None,
            armed: None,
            forgetting: 0,
            recorded: false,
        }
    }

    pub(super) fn load(id: Rc<str>, value: GroupValue, now: Instant) -> Self {
        let mut group = Self::new(id, value.state_at);
        group.generation = value.generation;
        group.protocol_type = (!value.protocol_type.is_empty()).then_some(value.protocol_type);
        group.recorded = true;
        if value.members.is_empty() {
            return group;
        }
        let protocol = value.protocol.unwrap_or_default();
        for member in value.members {
            let (id, member) = Member::load(member, &protocol, now);
            if let Some(instance) = &member.instance {
                group.statics.insert(instance.clone(), id.clone());
            }
            group.members.insert(id, Box::new(member));
        }
        group.protocol = Some(protocol);
        group.leader = value
            .leader
            .filter(|leader| group.members.contains_key(leader));
        group.state = GroupState::Stable;
        group
    }

    pub(super) fn is(&self, state: GroupState) -> bool {
        self.state == state
    }

    pub(super) fn has(&self, member: &str) -> bool {
        self.members.contains_key(member)
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// What it holds of the members' pool; members apart.
    pub(super) fn own_cost(&self) -> usize {
        GROUP_BYTES + self.id.len() * 2
    }

    pub(super) const fn pending_cost(member: &str) -> usize {
        PENDING_BYTES + member.len()
    }

    /// All it holds of the members' pool.
    pub(super) fn cost(&self) -> usize {
        let members = self
            .members
            .iter()
            .map(|(id, member)| member.cost(id))
            .sum::<usize>();
        let pending = self
            .pending
            .keys()
            .map(|id| Self::pending_cost(id))
            .sum::<usize>();
        self.own_cost() + members + pending
    }

    /// Remembers that something may happen at `at`.
    pub(super) fn arm(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// The first moment at which time changes something.
    pub(super) fn due(&self) -> Option<Instant> {
        let members = self.members.values().filter_map(|member| member.due());
        let pending = self.pending.values().copied();
        let waits = self
            .join_wait
            .map(|wait| wait.deadline)
            .into_iter()
            .chain(self.sync_deadline);
        members.chain(pending).chain(waits).min()
    }

    /// Moves every deadline by a time in which nobody could be heard.
    pub(super) fn shift(&mut self, by: Duration) {
        for member in self.members.values_mut() {
            member.deadline = member.deadline + by;
        }
        for deadline in self.pending.values_mut() {
            *deadline = *deadline + by;
        }
        if let Some(wait) = &mut self.join_wait {
            wait.deadline = wait.deadline + by;
        }
        self.sync_deadline = self.sync_deadline.map(|deadline| deadline + by);
        self.wake = self.due();
    }

    /// Gives every member its whole session again.
    pub(super) fn restart_sessions(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.deadline = now + member.session();
        }
        self.wake = self.due();
    }

    /// A sign of life: the member's session begins anew.
    pub(super) fn heard(&mut self, now: Instant, member: &str) {
        let member = self.members.get_mut(member).expect("the caller found it");
        member.deadline = now + member.session();
        let deadline = member.deadline;
        self.arm(deadline);
    }

    pub(super) fn enter(&mut self, turn: &Turn<'_>, state: GroupState) {
        self.state = state;
        self.state_at = turn.wall;
    }

    /// Whether a member of that kind could be added: all must share one protocol at least.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.is(GroupState::Empty) {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let shared = |name: &str| self.members.values().all(|member| member.speaks(name));
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| shared(&protocol.name))
    }

    /// KIP-345: an instance id must be known and be this member's.
    pub(super) fn validate(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                Some(current) if current != member => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
                None => return Err(GroupError::UnknownMemberId),
            }
        }
        if self.has(member) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    /// Adds a member that waits to have joined, and rebalances. The first one leads.
    pub(super) fn add(
        &mut self,
        turn: &mut Turn<'_>,
        id: &str,
        mut member: Member,
        protocol_type: String,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        if self.is(GroupState::PreparingRebalance) && self.generation == 0 {
            self.newcomer = true;
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.to_owned());
        }
        member.deadline = turn.now + NEW_MEMBER_WAIT;
        self.arm(member.deadline);
        self.leader.get_or_insert_with(|| id.to_owned());
        self.members.insert(id.to_owned(), Box::new(member));
        self.rebalance(turn);
    }

    /// What a member is told of the present generation.
    pub(super) fn joined(&self, member: &str) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if self.is_leader(member) {
            self.members
                .iter()
                .map(|(id, member)| member.joined(id, &protocol))
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            member: member.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members,
        }
    }

    /// Takes a member out, refusing what it waits for.
    pub(super) fn remove(&mut self, turn: &mut Turn<'_>, id: &str) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        turn.pools.members.give(member.cost(id));
        for ticket in member.joining.into_iter().chain(member.syncing) {
            turn.refuse(ticket, GroupError::UnknownMemberId);
        }
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Takes a member out and lets the others rebalance.
    pub(super) fn remove_and_rebalance(&mut self, turn: &mut Turn<'_>, id: &str) {
        self.remove(turn, id);
        match self.state {
            GroupState::Empty | GroupState::Dead => {}
            GroupState::Stable | GroupState::CompletingRebalance => self.rebalance(turn),
            GroupState::PreparingRebalance => self.try_complete_join(turn),
        }
    }

    /// Takes back an id that was given out.
    pub(super) fn remove_pending(&mut self, turn: &mut Turn<'_>, id: &str) -> bool {
        let found = self.pending.remove(id).is_some();
        if found {
            turn.pools.members.give(Self::pending_cost(id));
        }
        found
    }

    /// The group as a record, with assignments as `assigned` says.
    pub(super) fn record(&self, assigned: impl Fn(&str, &Member) -> Vec<u8>) -> Record {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.iter();
        let value = GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_at: self.state_at,
            members: members
                .map(|(id, member)| member.value(id, &protocol, &assigned(id, member)))
                .collect(),
        };
        Record {
            key: group_key(&self.id),
            value: Some(value.encode()),
        }
    }

    /// An empty generation is written down so that a new coordinator does not revive the members of the one before.
    /// Nobody waits for it: if it is lost, they come back to life and time out.
    pub(super) fn record_empty(&mut self, turn: &mut Turn<'_>) {
        self.recorded = true;
        turn.write(vec![self.record(|_, _| Vec::new())], Then::Nothing);
    }

    /// Whether a member consumes `topic`, as far as can be known: `None` of a protocol that is not Kafka's own.
    pub(super) fn consumes(&self, topic: &str) -> Option<bool> {
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        let Some(protocol) = &self.protocol else {
            return Some(!self.members.is_empty());
        };
        let mut members = self.members.values();
        Some(members.any(|member| subscription::names(member.metadata(protocol), topic)))
    }

    /// What must always hold; too much work for a release build's every step.
    pub(super) fn check(&self) {
        let empty = self.members.is_empty();
        assert!(
            !self.is(GroupState::Empty) || empty,
            "an empty group has members"
        );
        assert!(
            self.is(GroupState::PreparingRebalance) || self.is(GroupState::Empty) || !empty,
            "nobody is in a generation"
        );
        assert_eq!(
            self.is(GroupState::PreparingRebalance),
            self.join_wait.is_some(),
            "a rebalance waits for nothing"
        );
        if let Some(leader) = &self.leader {
            assert!(self.has(leader), "the leader is not a member");
        }
        let generation = matches!(
            self.state,
            GroupState::CompletingRebalance | GroupState::Stable
        );
        assert!(
            !generation || (self.leader.is_some() && self.protocol.is_some()),
            "a generation without a leader"
        );
        for member in self.members.values() {
            assert!(
                member.joining.is_none() || member.syncing.is_none(),
                "a member waits twice"
            );
            assert!(
                member.syncing.is_none() || self.is(GroupState::CompletingRebalance),
                "a sync waits for nothing"
            );
        }
        for (instance, id) in &self.statics {
            assert_eq!(
                self.members[id].instance.as_ref(),
                Some(instance),
                "an instance id names another member"
            );
        }
        assert!(
            self.due()
                .is_none_or(|due| self.wake.is_some_and(|wake| wake <= due)),
            "a deadline is not armed"
        );
    }
}
