//! Committed offsets: where each group goes on reading. Apart from how a group's members speak, as any kind of group,
//! and clients in no group at all, keep theirs here.
//!
//! An offset is visible once its record is committed, never before. Of two commits for one partition the one whose
//! record lies higher in the log wins, at load as in life, because compaction keeps that one too.

use std::collections::BTreeMap;
use std::rc::Rc;

use model::Offset;

use crate::group::Pool;

pub mod records;

/// What an offset costs besides its texts: its entry, twice, as a vector grows by doubling.
const KEPT_BYTES: usize = 160;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The next offset to be read.
    pub(crate) offset: i64,
    /// −1: unknown.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Box<str>,
    /// Trusted milliseconds since 1970 of the commit; −1: no trusted time then, nor since.
    pub(crate) committed_at: i64,
    /// When the client said it may go; −1: when the broker's retention says so.
    pub(crate) expires_at: i64,
    /// Where its record lies.
    pub(crate) record: Offset,
}

impl Kept {
    /// Bytes it holds of the offsets' pool.
    pub(crate) fn cost(&self, topic: &str) -> usize {
        KEPT_BYTES + topic.len() + self.metadata.len()
    }

    fn expired(&self, now: i64, base: i64, retention_ms: i64) -> bool {
        match self.expires_at {
            ..0 => now.saturating_sub(base) >= retention_ms,
            at => now >= at,
        }
    }
}

#[derive(Debug)]
struct Entry {
    topic: Rc<str>,
    partition: i32,
    kept: Kept,
}

/// One group's offsets, sorted by topic and partition.
#[derive(Debug, Default)]
struct OfGroup {
    entries: Vec<Entry>,
    /// Commits that are not decided yet, by key.
    pending: BTreeMap<(String, i32), u32>,
}

impl OfGroup {
    fn find(&self, topic: &str, partition: i32) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| (&*entry.topic, entry.partition).cmp(&(topic, partition)))
    }

    /// The topic's name, shared with a neighbour that has it.
    fn name(&self, at: usize, topic: &str) -> Rc<str> {
        let neighbours = [
            at.checked_sub(1)
                .and_then(|before| self.entries.get(before)),
            self.entries.get(at),
        ];
        let same = neighbours
            .into_iter()
            .flatten()
            .find(|entry| &*entry.topic == topic);
        same.map_or_else(|| topic.into(), |entry| entry.topic.clone())
    }
}

/// From when an offset's retention counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    /// Its commit: nobody but the committing client knows of the group.
    Commit,
    /// The moment when the group lost its last member.
    Emptied(i64),
}

/// The offsets of the groups of one internal partition.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<Rc<str>, OfGroup>,
    count: usize,
}

impl Offsets {
    pub(crate) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&Kept> {
        let group = self.groups.get(group)?;
        group
            .find(topic, partition)
            .ok()
            .map(|at| &group.entries[at].kept)
    }

    /// All of a group, by topic and partition.
    pub(crate) fn of(&self, group: &str) -> impl Iterator<Item = (&str, i32, &Kept)> {
        let entries = self
            .groups
            .get(group)
            .into_iter()
            .flat_map(|group| &group.entries);
        entries.map(|entry| (&*entry.topic, entry.partition, &entry.kept))
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Rc<str>> {
        self.groups.keys()
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Whether a group has offsets, or will if what is on its way gets through.
    pub(crate) fn uses(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Whether the key has an offset, or one on its way: a further one then only replaces it.
    pub(crate) fn has(&self, group: &str, topic: &str, partition: i32) -> bool {
        let Some(group) = self.groups.get(group) else {
            return false;
        };
        group.find(topic, partition).is_ok()
            || group.pending.contains_key(&(topic.to_owned(), partition))
    }

    /// The group's keys for which `wanted` holds, those on their way included.
    pub(crate) fn keys(&self, group: &str, wanted: impl Fn(&str) -> bool) -> Vec<(String, i32)> {
        let Some(group) = self.groups.get(group) else {
            return Vec::new();
        };
        let entries = group
            .entries
            .iter()
            .map(|entry| (entry.topic.to_string(), entry.partition));
        let mut keys: Vec<_> = entries
            .chain(group.pending.keys().cloned())
            .filter(|(topic, _)| wanted(topic))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// A commit for the key is on its way.
    pub(crate) fn begin(&mut self, group: &Rc<str>, topic: &str, partition: i32) {
        let pending = &mut self.groups.entry(group.clone()).or_default().pending;
        *pending.entry((topic.to_owned(), partition)).or_default() += 1;
    }

    /// A commit for the key is decided, one way or the other; `put` comes before.
    pub(crate) fn end(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(of) = self.groups.get_mut(group) else {
            return;
        };
        let key = (topic.to_owned(), partition);
        if let Some(count) = of.pending.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                of.pending.remove(&key);
            }
        }
        self.forget_unused(group);
    }

    /// Makes a committed offset visible, unless a higher record did before. Its cost was taken from the pool; that of
    /// the loser is given back.
    pub(crate) fn put(
        &mut self,
        pool: &mut Pool,
        group: &Rc<str>,
        topic: &str,
        partition: i32,
        kept: Kept,
    ) {
        let of = self.groups.entry(group.clone()).or_default();
        match of.find(topic, partition) {
            Ok(at) => {
                let old = &mut of.entries[at].kept;
                let loser = if old.record > kept.record {
                    kept
                } else {
                    core::mem::replace(old, kept)
                };
                pool.give(loser.cost(topic));
            }
            Err(at) => {
                let entry = Entry {
                    topic: of.name(at, topic),
                    partition,
                    kept,
                };
                of.entries.insert(at, entry);
                self.count += 1;
            }
        }
    }

    /// Takes an offset out whose record lies below `tombstone`.
    pub(crate) fn remove(
        &mut self,
        pool: &mut Pool,
        group: &str,
        topic: &str,
        partition: i32,
        tombstone: Offset,
    ) {
        let Some(of) = self.groups.get_mut(group) else {
            return;
        };
        let Ok(at) = of.find(topic, partition) else {
            return;
        };
        if of.entries[at].kept.record < tombstone {
            let entry = of.entries.remove(at);
            pool.give(entry.kept.cost(topic));
            self.count -= 1;
            self.forget_unused(group);
        }
    }

    fn forget_unused(&mut self, group: &str) {
        if self
            .groups
            .get(group)
            .is_some_and(|of| of.entries.is_empty() && of.pending.is_empty())
        {
            self.groups.remove(group);
        }
    }

    /// The keys whose time is over at the trusted time `now`; those with a commit on its way are not. Offsets that were
    /// committed without a trusted time count from the first check that has one.
    pub(crate) fn expired(
        &mut self,
        group: &str,
        now: i64,
        retention_ms: i64,
        since: Since,
        in_use: impl Fn(&str) -> bool,
    ) -> Vec<(String, i32)> {
        let Some(of) = self.groups.get_mut(group) else {
            return Vec::new();
        };
        let mut keys = Vec::new();
        for entry in &mut of.entries {
            if entry.kept.committed_at < 0 {
                entry.kept.committed_at = now;
            }
            let base = match since {
                Since::Commit => entry.kept.committed_at,
                Since::Emptied(at) => at,
            };
            let key = (entry.topic.to_string(), entry.partition);
            if entry.kept.expired(now, base, retention_ms)
                && !of.pending.contains_key(&key)
                && !in_use(&entry.topic)
            {
                keys.push(key);
            }
        }
        keys
    }

    /// Bytes held of the offsets' pool.
    pub(crate) fn cost(&self) -> usize {
        let entries = self.groups.values().flat_map(|of| &of.entries);
        entries.map(|entry| entry.kept.cost(&entry.topic)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(offset: i64, record: i64) -> Kept {
        Kept {
            offset,
            leader_epoch: -1,
            metadata: "".into(),
            committed_at: 0,
            expires_at: -1,
            record: Offset(record),
        }
    }

    /// Transactions will commit out of the order of their records: the record decides, not the moment.
    #[test]
    fn the_higher_record_wins_whenever_it_comes() {
        let (mut pool, mut offsets) = (Pool::new(10_000), Offsets::default());
        let group: Rc<str> = "g".into();
        let put = |offsets: &mut Offsets, pool: &mut Pool, kept: Kept| {
            pool.force(kept.cost("t"));
            offsets.put(pool, &group, "t", 0, kept);
        };
        put(&mut offsets, &mut pool, kept(5, 10));
        put(&mut offsets, &mut pool, kept(4, 9));
        assert_eq!(offsets.get("g", "t", 0), Some(&kept(5, 10)));
        put(&mut offsets, &mut pool, kept(3, 11));
        assert_eq!(offsets.get("g", "t", 0), Some(&kept(3, 11)));
        assert_eq!(pool.used(), offsets.cost());
        // So with tombstones.
        offsets.remove(&mut pool, "g", "t", 0, Offset(11));
        assert_eq!(offsets.count(), 1);
        offsets.remove(&mut pool, "g", "t", 0, Offset(12));
        assert_eq!((offsets.count(), pool.used()), (0, 0));
        assert!(!offsets.uses("g"));
    }
}
