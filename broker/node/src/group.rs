//! The groups of one internal partition: who is in, who leads, who gets what, and where they go on reading.
//!
//! What must outlast this node is a record of the partition: the machine hands out records together with what follows
//! once they are committed (`turn::Then`), and only then is an offset visible, an assignment given out, or a group
//! gone. Answers that rest on nothing new leave at once. It knows no log, no lease and no leader: its owner, the
//! coordinator, does.

use core::time::Duration;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use model::{Instant, Offset};

mod classic;
mod commit;
mod join;
mod member;
mod rebalance;
pub mod records;
mod subscription;
mod sync;
mod turn;
mod types;

use classic::Group;
pub use join::NAME_BYTES_MAX;
use records::{GROUP_KEY, GroupValue};
pub use turn::{MEMBERS_BYTES_MAX, OFFSETS_BYTES_MAX};
pub(crate) use turn::{Pool, Pools, Then, Turn, Write};
pub use types::{
    Commit, CommittedOffset, Described, DescribedMember, FetchOffsets, FetchedOffset, GroupError,
    GroupKind, GroupReply, GroupRequest, GroupState, Heartbeat, Join, Joined, JoinedMember, Leave,
    Leaver, List, Listed, Protocol, Sync, Synced, TopicPartitionName, UNKNOWN_MEMBER,
};

use crate::Ticket;
use crate::coordinator::codec::{Reader, RecordFault};
use crate::offsets::records::{OFFSET_KEY, OffsetKey, OffsetValue};
use crate::offsets::{Kept, Offsets};

/// The groups of one internal partition.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    map: BTreeMap<Rc<str>, Box<Group>>,
    offsets: Offsets,
    /// At most one entry a group, no later than its first deadline.
    timers: BTreeSet<(Instant, Rc<str>)>,
}

impl Groups {
    /// Answers, or keeps the ticket. `List` is not for one partition: see [`Groups::list`].
    pub(crate) fn request(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: GroupRequest) {
        if let Some(error) = flaw(turn, &request) {
            return turn.refuse(ticket, error);
        }
        match request {
            GroupRequest::Join(join) => self.join(turn, ticket, join),
            GroupRequest::Sync(sync) => {
                let id = sync.group.clone();
                self.with(turn, ticket, &id, |group, turn| {
                    group.sync(turn, ticket, sync)
                });
            }
            GroupRequest::Heartbeat(heartbeat) => {
                self.with(turn, ticket, &heartbeat.group, |group, turn| {
                    group.heartbeat(turn, ticket, &heartbeat)
                });
            }
            GroupRequest::Leave(leave) => {
                if self.map.contains_key(&*leave.group) {
                    self.with(turn, ticket, &leave.group, |group, turn| {
                        group.leave(turn, ticket, &leave)
                    });
                } else {
                    let results = vec![Err(GroupError::UnknownMemberId); leave.members.len()];
                    turn.reply(ticket, GroupReply::Left(results));
                }
            }
            GroupRequest::Commit(commit) => {
                let id = commit.group.clone();
                self.commit(turn, ticket, commit);
                self.settle(turn, &id);
            }
            GroupRequest::FetchOffsets(fetch) => turn.reply(ticket, self.fetch_offsets(fetch)),
            GroupRequest::Describe { group } => turn.reply(ticket, self.describe(&group)),
            GroupRequest::Delete { group } => self.delete(turn, ticket, &group),
            GroupRequest::DeleteOffsets { group, partitions } => {
                self.delete_offsets(turn, ticket, &group, partitions)
            }
            GroupRequest::List(_) => turn.reply(ticket, GroupReply::Listed(Vec::new())),
        }
    }

    fn join(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let known = self.map.contains_key(&*join.group);
        if !known && join.member != UNKNOWN_MEMBER {
            return turn.refuse(ticket, GroupError::UnknownMemberId);
        }
        if !known && !self.create(turn, &join.group) {
            return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
        }
        let id = join.group.clone();
        self.with(turn, ticket, &id, |group, turn| {
            group.join(turn, ticket, join)
        });
    }

    /// Lets the group act, then sees to its timers. No group: the member can't be in it.
    fn with(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        id: &str,
        act: impl FnOnce(&mut Group, &mut Turn<'_>),
    ) {
        match self.map.get_mut(id) {
            Some(group) => act(group, turn),
            None => return turn.refuse(ticket, GroupError::UnknownMemberId),
        }
        self.settle(turn, id);
    }

    /// Makes an empty group if there is memory for it.
    fn create(&mut self, turn: &mut Turn<'_>, id: &str) -> bool {
        let id: Rc<str> = id.into();
        let group = Group::new(id.clone(), turn.wall);
        let fits = turn.pools.members.take(group.own_cost());
        if fits {
            self.map.insert(id, Box::new(group));
        }
        fits
    }

    fn drop_group(&mut self, pools: &mut Pools, id: &str) {
        let Some(group) = self.map.remove(id) else {
            return;
        };
        pools.members.give(group.cost());
        if let Some(at) = group.armed {
            self.timers.remove(&(at, group.id.clone()));
        }
    }

    /// Lets due timers act, drops a group that is nothing any more, and arms the next timer.
    fn settle(&mut self, turn: &mut Turn<'_>, id: &str) {
        let Some(group) = self.map.get_mut(id) else {
            return;
        };
        while group.wake.is_some_and(|wake| wake <= turn.now) {
            group.time_passes(turn);
        }
        let nothing = group.is(GroupState::Empty) && group.pending.is_empty() && !group.recorded;
        if nothing && !self.offsets.uses(id) {
            return self.drop_group(turn.pools, id);
        }
        if cfg!(debug_assertions) {
            group.check();
        }
        if let Some(wake) = group.wake
            && group.armed.is_none_or(|armed| wake < armed)
        {
            if let Some(armed) = group.armed.replace(wake) {
                self.timers.remove(&(armed, group.id.clone()));
            }
            self.timers.insert((wake, group.id.clone()));
        }
    }

    /// When time changes something next; perhaps a little early.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Lets happen what is due.
    pub(crate) fn time_passes(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, _)) = self.timers.first()
            && *at <= turn.now
        {
            let (_, id) = self.timers.pop_first().expect("seen just now");
            if let Some(group) = self.map.get_mut(&id) {
                group.armed = None;
            }
            self.settle(turn, &id);
        }
    }

    /// A batch is committed; its first record lies at `base`.
    pub(crate) fn committed(&mut self, turn: &mut Turn<'_>, then: Then, base: Offset) {
        match then {
            Then::Nothing => {}
            Then::Assign {
                group,
                generation,
                assignments,
            } => match self.map.get_mut(&group) {
                Some(of) => {
                    of.assigned(turn, generation, assignments);
                    self.settle(turn, &group);
                }
                None => turn.pools.members.give(assignment_bytes(&assignments)),
            },
            Then::Replace {
                group,
                generation,
                new,
                old,
            } => {
                if let Some(of) = self.map.get_mut(&group) {
                    of.replaced(turn, generation, &new, old);
                    self.settle(turn, &group);
                }
            }
            Then::Commit {
                group,
                ticket,
                kept,
                results,
            } => {
                self.commit_done(turn, &group, kept, base);
                if let Some(ticket) = ticket {
                    turn.reply(ticket, GroupReply::Committed(results));
                }
            }
            Then::Forget {
                group,
                keys,
                generation,
                answer,
            } => {
                self.forgotten(turn, &group, keys, generation, answer, base);
                self.settle(turn, &group);
            }
        }
    }

    /// A batch was refused: nothing of it is in the log, nor will be.
    pub(crate) fn failed(&mut self, turn: &mut Turn<'_>, then: Then, error: GroupError) {
        match then {
            Then::Nothing => {}
            Then::Assign {
                group,
                generation,
                assignments,
            } => {
                turn.pools.members.give(assignment_bytes(&assignments));
                if let Some(of) = self.map.get_mut(&group)
                    && of.is(GroupState::CompletingRebalance)
                    && of.generation == generation
                {
                    of.unassigned(turn, error);
                    self.settle(turn, &group);
                }
            }
            Then::Replace {
                group,
                generation,
                new,
                old,
            } => {
                if let Some(of) = self.map.get_mut(&group)
                    && of.generation == generation
                {
                    of.unreplace(turn, &new, old, error);
                    self.settle(turn, &group);
                }
            }
            Then::Commit {
                group,
                ticket,
                kept,
                ..
            } => {
                self.commit_failed(turn, &group, &kept);
                if let Some(ticket) = ticket {
                    turn.refuse(ticket, error);
                }
                self.settle(turn, &group);
            }
            Then::Forget { group, answer, .. } => {
                self.forgetting_done(&group);
                if let Some((ticket, _)) = answer {
                    turn.refuse(ticket, error);
                }
            }
        }
    }

    /// Nobody can say whether a batch will be committed: who waits for it is told so, and what follows from it still
    /// will if it is.
    pub(crate) fn unsure(&mut self, turn: &mut Turn<'_>, then: &mut Then, error: GroupError) {
        match then {
            Then::Nothing => {}
            Then::Assign { group, .. } => {
                if let Some(group) = self.map.get_mut(group) {
                    group.refuse_syncs(turn, error);
                }
            }
            Then::Replace { group, new, .. } => {
                if let Some(group) = self.map.get_mut(group) {
                    group.refuse_join(turn, new, error);
                }
            }
            Then::Commit { ticket, .. } => {
                if let Some(ticket) = ticket.take() {
                    turn.refuse(ticket, error);
                }
            }
            Then::Forget { answer, .. } => {
                if let Some((ticket, _)) = answer.take() {
                    turn.refuse(ticket, error);
                }
            }
        }
        if let Some(group) = then.group().cloned() {
            self.settle(turn, &group);
        }
    }

    /// Answers every request that waits for other members.
    pub(crate) fn refuse_waiting(&mut self, turn: &mut Turn<'_>, error: GroupError) {
        for group in self.map.values_mut() {
            group.refuse_waiting(turn, error);
        }
    }

    /// Nobody could be heard for so long: every deadline moves, and beyond a client's patience every session begins
    /// anew, as its member may be looking for another coordinator.
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>, by: Duration, anew: bool) {
        let ids: Vec<Rc<str>> = self.map.keys().cloned().collect();
        for id in ids {
            let group = self.map.get_mut(&id).expect("listed just now");
            group.shift(by);
            if anew {
                group.restart_sessions(turn.now);
            }
            self.settle(turn, &id);
        }
    }

    /// Takes a record of the log, in the order of offsets. Keys of kinds that this build doesn't know are skipped:
    /// newer builds keep their own groups beside ours.
    pub(crate) fn replay(
        &mut self,
        turn: &mut Turn<'_>,
        key: &[u8],
        value: Option<&[u8]>,
        offset: Offset,
    ) -> Result<(), RecordFault> {
        match Reader::new(key).i16()? {
            0..=OFFSET_KEY => {
                self.replay_offset(turn.pools, &OffsetKey::decode(key)?, value, offset)
            }
            GROUP_KEY => {
                let id: Rc<str> = records::read_group_key(key)?.into();
                let value = value.map(GroupValue::decode).transpose()?;
                self.drop_group(turn.pools, &id);
                if let Some(value) = value {
                    let group = Group::load(id.clone(), value, turn.now);
                    turn.pools.members.force(group.cost());
                    self.map.insert(id, Box::new(group));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn replay_offset(
        &mut self,
        pools: &mut Pools,
        key: &OffsetKey,
        value: Option<&[u8]>,
        record: Offset,
    ) -> Result<(), RecordFault> {
        let Some(value) = value else {
            self.offsets.remove(
                &mut pools.offsets,
                &key.group,
                &key.topic,
                key.partition,
                record,
            );
            return Ok(());
        };
        let value = OffsetValue::decode(value)?;
        let kept = Kept {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.into(),
            committed_at: value.committed_at,
            expires_at: value.expires_at,
            record,
        };
        pools.offsets.force(kept.cost(&key.topic));
        let group: Rc<str> = key.group.as_str().into();
        self.offsets
            .put(&mut pools.offsets, &group, &key.topic, key.partition, kept);
        Ok(())
    }

    /// All records are told. Sessions begin now, in full: their members could not reach anybody before.
    pub(crate) fn loaded(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<Rc<str>> = self.offsets.groups().cloned().collect();
        for id in ids {
            if let Entry::Vacant(place) = self.map.entry(id.clone()) {
                // Its offsets are all there is of it.
                let group = Group::new(id, turn.wall);
                turn.pools.members.force(group.own_cost());
                place.insert(Box::new(group));
            }
        }
        let ids: Vec<Rc<str>> = self.map.keys().cloned().collect();
        for id in ids {
            let group = self.map.get_mut(&id).expect("listed just now");
            group.restart_sessions(turn.now);
            if group.members.len() > turn.settings.members_max {
                // The bound was lowered: who joins first stays.
                group.rebalance(turn);
            }
            self.settle(turn, &id);
        }
    }

    /// Gives all memory back. Nobody waits any more: see [`Groups::refuse_waiting`].
    pub(crate) fn unload(&mut self, pools: &mut Pools) {
        pools
            .members
            .give(self.map.values().map(|group| group.cost()).sum());
        pools.offsets.give(self.offsets.cost());
        *self = Self::default();
    }

    fn describe(&self, id: &str) -> GroupReply {
        let Some(group) = self.map.get(id) else {
            return GroupReply::Refused(GroupError::GroupIdNotFound);
        };
        let protocol = group
            .protocol
            .as_deref()
            .filter(|_| group.is(GroupState::Stable));
        GroupReply::Described(Described {
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: group
                .members
                .iter()
                .map(|(id, member)| member.described(id, protocol))
                .collect(),
        })
    }

    /// Adds the groups that `list` asks for.
    pub(crate) fn list(&self, list: &List, listed: &mut Vec<Listed>) {
        let named = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|asked| asked.eq_ignore_ascii_case(name))
        };
        if !named(&list.types, GroupKind::Classic.name()) {
            return;
        }
        let wanted = self
            .map
            .values()
            .filter(|group| named(&list.states, group.state.name()));
        listed.extend(wanted.map(|group| Listed {
            group: group.id.to_string(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
            kind: GroupKind::Classic,
        }));
    }

    /// Every committed offset: group, topic, partition, offset.
    pub(crate) fn committed_offsets(&self) -> impl Iterator<Item = (&str, &str, i32, i64)> {
        let of = |group| {
            self.offsets
                .of(group)
                .map(move |(topic, partition, kept)| (group, topic, partition, kept.offset))
        };
        self.offsets.groups().flat_map(move |group| of(&**group))
    }

    /// Every group: its name, state, and how many members.
    pub(crate) fn summaries(&self) -> impl Iterator<Item = (&str, GroupState, usize)> {
        let groups = self.map.values();
        groups.map(|group| (&*group.id, group.state, group.members.len()))
    }

    /// Groups, members and offsets.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (
            self.map.len(),
            self.map.values().map(|group| group.members.len()).sum(),
            self.offsets.count(),
        )
    }

    /// Where an offset's record lies.
    #[cfg(test)]
    pub(crate) fn record_of(&self, group: &str, topic: &str, partition: i32) -> Option<Offset> {
        self.offsets
            .get(group, topic, partition)
            .map(|kept| kept.record)
    }

    /// Bytes held of the pools, counted anew.
    #[cfg(test)]
    pub(crate) fn cost(&self) -> (usize, usize) {
        (
            self.map.values().map(|group| group.cost()).sum(),
            self.offsets.cost(),
        )
    }
}

impl Then {
    /// The group it is about.
    pub(crate) const fn group(&self) -> Option<&Rc<str>> {
        match self {
            Self::Nothing => None,
            Self::Assign { group, .. }
            | Self::Replace { group, .. }
            | Self::Commit { group, .. }
            | Self::Forget { group, .. } => Some(group),
        }
    }

    /// Gives back what it holds of the pools, because its partition is not led here any more.
    pub(crate) fn release(&self, pools: &mut Pools) {
        match self {
            Self::Nothing | Self::Replace { .. } | Self::Forget { .. } => {}
            Self::Assign { assignments, .. } => pools.members.give(assignment_bytes(assignments)),
            Self::Commit { kept, .. } => pools
                .offsets
                .give(kept.iter().map(turn::KeptIn::cost).sum()),
        }
    }
}

fn assignment_bytes(assignments: &[(String, Vec<u8>)]) -> usize {
    assignments.iter().map(|(_, bytes)| bytes.len()).sum()
}

/// What is wrong with a request whatever the groups are.
fn flaw(turn: &Turn<'_>, request: &GroupRequest) -> Option<GroupError> {
    // Offsets were once kept for clients without a group id; tools must be able to see and delete those.
    let may_be_empty = matches!(
        request,
        GroupRequest::Commit(_)
            | GroupRequest::FetchOffsets(_)
            | GroupRequest::Describe { .. }
            | GroupRequest::Delete { .. }
            | GroupRequest::List(_)
    );
    let group = request.group().unwrap_or_default();
    if group.is_empty() && !may_be_empty {
        return Some(GroupError::InvalidGroupId);
    }
    let too_long = |name: &str| name.len() > NAME_BYTES_MAX;
    let long = match request {
        GroupRequest::Join(join) => {
            let names = [&join.client_id, &join.client_host, &join.protocol_type]
                .into_iter()
                .chain(&join.instance);
            names
                .chain(join.protocols.iter().map(|protocol| &protocol.name))
                .any(|name| too_long(name))
        }
        GroupRequest::Commit(commit) => commit.offsets.iter().any(|offset| too_long(&offset.topic)),
        _ => false,
    };
    if long || too_long(group) {
        return Some(GroupError::InvalidRequest);
    }
    let bounds = turn.settings.session_ms_min..=turn.settings.session_ms_max;
    match request {
        GroupRequest::Join(join) if !bounds.contains(&join.session_timeout_ms) => {
            Some(GroupError::InvalidSessionTimeout)
        }
        _ => None,
    }
}
