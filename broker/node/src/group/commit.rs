//! OffsetCommit, OffsetFetch, OffsetDelete, DeleteGroups, and the end of offsets that nobody uses.

use std::rc::Rc;

use model::Offset;

use super::Groups;
use super::classic::Group;
use super::records::group_key;
use super::turn::{KeptIn, Then, Turn};
use super::types::{
    Commit, CommittedOffset, FetchOffsets, FetchedOffset, GroupError, GroupReply, GroupState,
    TopicPartitionName, UNKNOWN_MEMBER,
};
use crate::Ticket;
use crate::coordinator::{APPEND_BYTES_MAX, Record};
use crate::offsets::records::{OffsetValue, offset_key};
use crate::offsets::{Kept, Since};

type Results = Vec<Result<(), GroupError>>;

impl Group {
    /// Whether the client may commit. Outside a group (generation −1, no member) only while the group is empty: else
    /// some tool would move the members' feet.
    fn validate_commit(&mut self, turn: &Turn<'_>, commit: &Commit) -> Result<(), GroupError> {
        if commit.generation < 0 && self.is(GroupState::Empty) {
            return Ok(());
        }
        if commit.generation < 0 && commit.member == UNKNOWN_MEMBER && commit.instance.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.validate(&commit.member, commit.instance.as_deref())?;
        if commit.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            // The member learns of the rebalance by its heartbeat; until then its work counts.
            GroupState::Stable | GroupState::PreparingRebalance => {
                self.heard(turn.now, &commit.member);
                Ok(())
            }
            GroupState::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }
}

impl Groups {
    pub(super) fn commit(&mut self, turn: &mut Turn<'_>, ticket: Ticket, commit: Commit) {
        if !turn.may_write {
            return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
        }
        if !self.map.contains_key(&*commit.group) {
            if commit.generation >= 0 {
                return turn.refuse(ticket, GroupError::IllegalGeneration);
            }
            if !self.create(turn, &commit.group) {
                return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
            }
        }
        let group = self
            .map
            .get_mut(&*commit.group)
            .expect("found or made just now");
        if let Err(error) = group.validate_commit(turn, &commit) {
            return turn.refuse(ticket, error);
        }
        let id = group.id.clone();
        let expires_at = match (commit.retention_ms, turn.wall) {
            (0.., 0..) => turn.wall.saturating_add(commit.retention_ms),
            _ => -1,
        };
        let mut kept = Vec::with_capacity(commit.offsets.len());
        let mut results = Results::with_capacity(commit.offsets.len());
        for offset in commit.offsets {
            match self.admit(turn, &id, offset, expires_at) {
                Ok(admitted) => {
                    kept.push(admitted);
                    results.push(Ok(()));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        self.write_commit(turn, id, ticket, kept, results);
    }

    /// Takes an offset's bytes from the pool; one that replaces another always fits.
    fn admit(
        &self,
        turn: &mut Turn<'_>,
        group: &str,
        offset: CommittedOffset,
        expires_at: i64,
    ) -> Result<KeptIn, GroupError> {
        let metadata = offset.metadata.unwrap_or_default();
        if metadata.encode_utf16().count() > turn.settings.metadata_max {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        let kept = Kept {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: metadata.into(),
            committed_at: turn.wall,
            expires_at,
            record: Offset::ZERO,
        };
        let cost = kept.cost(&offset.topic);
        if self.offsets.has(group, &offset.topic, offset.partition) {
            turn.pools.offsets.force(cost);
        } else if !turn.pools.offsets.take(cost) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        Ok(KeptIn {
            topic: offset.topic,
            partition: offset.partition,
            kept,
        })
    }

    fn write_commit(
        &mut self,
        turn: &mut Turn<'_>,
        group: Rc<str>,
        ticket: Ticket,
        kept: Vec<KeptIn>,
        results: Results,
    ) {
        if kept.is_empty() {
            return turn.reply(ticket, GroupReply::Committed(results));
        }
        let records: Vec<Record> = kept
            .iter()
            .map(|kept| offset_record(&group, kept))
            .collect();
        if records.iter().map(Record::bytes).sum::<usize>() > APPEND_BYTES_MAX {
            turn.pools.offsets.give(kept.iter().map(KeptIn::cost).sum());
            return turn.refuse(ticket, GroupError::InvalidCommitOffsetSize);
        }
        for kept in &kept {
            self.offsets.begin(&group, &kept.topic, kept.partition);
        }
        turn.write(
            records,
            Then::Commit {
                group,
                ticket: Some(ticket),
                kept,
                results,
            },
        );
    }

    /// The offsets are committed: their first record lies at `base`.
    pub(super) fn commit_done(
        &mut self,
        turn: &mut Turn<'_>,
        group: &Rc<str>,
        kept: Vec<KeptIn>,
        base: Offset,
    ) {
        for (
            at,
            KeptIn {
                topic,
                partition,
                mut kept,
            },
        ) in (0..).zip(kept)
        {
            kept.record = base.plus(at);
            self.offsets
                .put(&mut turn.pools.offsets, group, &topic, partition, kept);
            self.offsets.end(group, &topic, partition);
        }
    }

    /// The offsets were not stored.
    pub(super) fn commit_failed(&mut self, turn: &mut Turn<'_>, group: &str, kept: &[KeptIn]) {
        for kept in kept {
            turn.pools.offsets.give(kept.cost());
            self.offsets.end(group, &kept.topic, kept.partition);
        }
    }

    /// A group that nobody knows has no offsets, which is no error: clients then begin where they are told to.
    pub(super) fn fetch_offsets(&self, fetch: FetchOffsets) -> GroupReply {
        let found = |topic: String, partition, kept: Option<&Kept>| FetchedOffset {
            topic,
            partition,
            offset: kept.map_or(-1, |kept| kept.offset),
            leader_epoch: kept.map_or(-1, |kept| kept.leader_epoch),
            metadata: kept.map_or_else(String::new, |kept| kept.metadata.to_string()),
        };
        let offsets = match fetch.partitions {
            None => {
                let all = self.offsets.of(&fetch.group);
                all.map(|(topic, partition, kept)| found(topic.to_owned(), partition, Some(kept)))
                    .collect()
            }
            Some(asked) => {
                let one = |TopicPartitionName { topic, partition }: TopicPartitionName| {
                    let kept = self.offsets.get(&fetch.group, &topic, partition);
                    found(topic, partition, kept)
                };
                asked.into_iter().map(one).collect()
            }
        };
        GroupReply::Offsets(offsets)
    }

    pub(super) fn delete(&mut self, turn: &mut Turn<'_>, ticket: Ticket, id: &str) {
        let Some(group) = self.map.get(id) else {
            return turn.refuse(ticket, GroupError::GroupIdNotFound);
        };
        if !group.is(GroupState::Empty) {
            return turn.refuse(ticket, GroupError::NonEmptyGroup);
        }
        if !turn.may_write {
            return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
        }
        let (id, generation) = (group.id.clone(), group.generation);
        let keys = self.offsets.keys(&id, |_| true);
        self.forget(
            turn,
            &id,
            keys,
            Some(generation),
            Some((ticket, GroupReply::Deleted)),
        );
    }

    pub(super) fn delete_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        id: &str,
        partitions: Vec<TopicPartitionName>,
    ) {
        let Some(group) = self.map.get(id) else {
            return turn.refuse(ticket, GroupError::GroupIdNotFound);
        };
        if !turn.may_write {
            return turn.refuse(ticket, GroupError::CoordinatorNotAvailable);
        }
        let id = group.id.clone();
        let mut results = Results::with_capacity(partitions.len());
        let mut keys = Vec::new();
        for TopicPartitionName { topic, partition } in partitions {
            let in_use = if group.is(GroupState::Empty) {
                Some(false)
            } else {
                group.consumes(&topic)
            };
            match in_use {
                // Members of another kind than Kafka's consumers: nobody can say what they read.
                None => return turn.refuse(ticket, GroupError::NonEmptyGroup),
                Some(true) => results.push(Err(GroupError::GroupSubscribedToTopic)),
                Some(false) => {
                    results.push(Ok(()));
                    if self.offsets.has(&id, &topic, partition) {
                        keys.push((topic, partition));
                    }
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        self.forget(
            turn,
            &id,
            keys,
            None,
            Some((ticket, GroupReply::OffsetsDeleted(results))),
        );
    }

    /// A topic is gone, and with it every offset in it.
    pub(crate) fn topic_deleted(&mut self, turn: &mut Turn<'_>, topic: &str) {
        let groups: Vec<Rc<str>> = self.offsets.groups().cloned().collect();
        for id in groups {
            let keys = self.offsets.keys(&id, |name| name == topic);
            if !keys.is_empty() {
                self.forget(turn, &id, keys, None, None);
            }
        }
    }

    /// Forgets offsets whose retention is over, and empty groups that have none, as Kafka does: those of a group count
    /// from when it became empty, those of clients in no group from their commit, and a consumer group's in a topic
    /// that it does not read any more as well. Called only while the time can be trusted.
    pub(crate) fn expire(&mut self, turn: &mut Turn<'_>) {
        let retention_ms =
            i64::try_from(turn.settings.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let now = turn.wall;
        let groups: Vec<Rc<str>> = self.map.keys().cloned().collect();
        for id in groups {
            let group = self.map.get_mut(&id).expect("listed just now");
            if group.forgetting > 0 {
                continue;
            }
            let since = match (group.protocol_type.as_deref(), group.state) {
                (None, _) => Since::Commit,
                (Some(_), GroupState::Empty) => {
                    if group.state_at < 0 {
                        group.state_at = now;
                    }
                    Since::Emptied(group.state_at)
                }
                (Some("consumer"), GroupState::Stable) => Since::Commit,
                (Some(_), _) => continue,
            };
            let empty = group.is(GroupState::Empty);
            let group = &self.map[&id];
            let in_use = |topic: &str| !empty && group.consumes(topic).unwrap_or(true);
            let keys = self.offsets.expired(&id, now, retention_ms, since, in_use);
            let rest = self.offsets.keys(&id, |_| true).len() - keys.len();
            let dead = empty && group.pending.is_empty() && rest == 0;
            let generation = dead.then_some(group.generation);
            if !keys.is_empty() || dead {
                self.forget(turn, &id, keys, generation, None);
            }
        }
    }

    /// Writes tombstones for `keys`, and for the group if it shall go too; `answer` waits for the last of them.
    fn forget(
        &mut self,
        turn: &mut Turn<'_>,
        id: &Rc<str>,
        mut keys: Vec<(String, i32)>,
        generation: Option<i32>,
        answer: Option<(Ticket, GroupReply)>,
    ) {
        let recorded = self.map.get(id).is_some_and(|group| group.recorded);
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut first = 0;
        for at in 0..keys.len() {
            let (topic, partition) = &keys[at];
            let record = Record {
                key: offset_key(id, topic, *partition),
                value: None,
            };
            // Room is left for the group's own tombstone.
            if bytes + record.bytes() > APPEND_BYTES_MAX / 2 {
                let then = Then::Forget {
                    group: id.clone(),
                    keys: keys[first..at].to_vec(),
                    generation: None,
                    answer: None,
                };
                turn.write(core::mem::take(&mut records), then);
                (bytes, first) = (0, at);
                self.note_forgetting(id);
            }
            bytes += record.bytes();
            records.push(record);
        }
        if generation.is_some() && recorded {
            records.push(Record {
                key: group_key(id),
                value: None,
            });
        }
        let keys = keys.split_off(first);
        self.note_forgetting(id);
        if records.is_empty() {
            // Nothing of it lies in the log.
            return self.forgotten(turn, id, keys, generation, answer, Offset::ZERO);
        }
        turn.write(
            records,
            Then::Forget {
                group: id.clone(),
                keys,
                generation,
                answer,
            },
        );
    }

    fn note_forgetting(&mut self, id: &str) {
        if let Some(group) = self.map.get_mut(id) {
            group.forgetting += 1;
        }
    }

    /// Tombstones are decided, one way or the other.
    pub(super) fn forgetting_done(&mut self, id: &str) {
        if let Some(group) = self.map.get_mut(id) {
            // A group that was made anew under the name knows of none.
            group.forgetting = group.forgetting.saturating_sub(1);
        }
    }

    /// The tombstones are committed: the first lies at `base`.
    pub(super) fn forgotten(
        &mut self,
        turn: &mut Turn<'_>,
        id: &Rc<str>,
        keys: Vec<(String, i32)>,
        generation: Option<i32>,
        answer: Option<(Ticket, GroupReply)>,
        base: Offset,
    ) {
        self.forgetting_done(id);
        for (at, (topic, partition)) in (0..).zip(keys) {
            self.offsets.remove(
                &mut turn.pools.offsets,
                id,
                &topic,
                partition,
                base.plus(at),
            );
        }
        if let Some(group) = self.map.get_mut(id)
            && generation == Some(group.generation)
            && group.is(GroupState::Empty)
        {
            // Whoever was given an id meanwhile joins a new group.
            group.recorded = false;
            if !self.offsets.uses(id) {
                self.drop_group(turn.pools, id);
            }
        }
        if let Some((ticket, reply)) = answer {
            turn.reply(ticket, reply);
        }
    }
}

impl KeptIn {
    /// Bytes it holds of the offsets' pool.
    pub(super) fn cost(&self) -> usize {
        self.kept.cost(&self.topic)
    }
}

fn offset_record(group: &str, kept: &KeptIn) -> Record {
    let value = OffsetValue {
        offset: kept.kept.offset,
        leader_epoch: kept.kept.leader_epoch,
        metadata: kept.kept.metadata.to_string(),
        committed_at: kept.kept.committed_at,
        expires_at: kept.kept.expires_at,
    };
    Record {
        key: offset_key(group, &kept.topic, kept.partition),
        value: Some(value.encode()),
    }
}
