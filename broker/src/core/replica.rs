//! The replicas of this node as the shell has them: where each one's log lies, what it may keep, and who waits for it to
//! grow. What they are in their partitions the broker's machines know.

use std::rc::Rc;

use model::{Instant, TopicId};
use node::broker::ReplicaIx;
use tokio::sync::Notify;

use super::compaction;
use crate::spindle::PartIx;

/// See the module.
pub(crate) struct Replica {
    pub(super) topic: TopicId,
    pub(super) index: u32,
    /// Index of its disk's spindle.
    pub(super) disk: usize,
    /// Its number on that disk.
    pub(super) part: PartIx,
    pub(super) log_append_time: bool,
    pub(super) keep: Keep,
    /// It holds its whole quota.
    pub(super) full: bool,
    /// Bytes appended since retention looked at it.
    pub(super) grown_bytes: u64,
    /// What compacts it.
    pub(super) compaction: compaction::State,
    /// Its disk had no room for another extent then.
    pub(super) no_room_since: Option<Instant>,
    /// Fetches that wait for the high watermark, each woken once.
    waiters: Vec<Rc<Notify>>,
}

/// All of them, by the number that the broker gave each.
#[derive(Default)]
pub(crate) struct Held(Vec<Option<Replica>>);

impl Held {
    pub(super) fn put(&mut self, at: ReplicaIx, replica: Replica) {
        let slot = at.0 as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(replica);
    }

    pub(super) fn remove(&mut self, at: ReplicaIx) {
        if let Some(slot) = self.0.get_mut(at.0 as usize) {
            *slot = None;
        }
    }

    pub(super) fn get(&self, at: ReplicaIx) -> Option<&Replica> {
        self.0.get(at.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: ReplicaIx) -> Option<&mut Replica> {
        self.0.get_mut(at.0 as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ReplicaIx, &Replica)> {
        let all = (0..).map(ReplicaIx).zip(&self.0);
        all.filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ReplicaIx, &mut Replica)> {
        let all = (0..).map(ReplicaIx).zip(&mut self.0);
        all.filter_map(|(at, slot)| Some((at, slot.as_mut()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }
}

/// What its topic's configuration lets it keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    pub(super) retention: store::Retention,
    /// Reserved on its disk.
    pub(super) quota_bytes: u64,
}

impl Replica {
    pub(super) fn new(topic: TopicId, index: u32, disk: usize, part: PartIx) -> Self {
        Self {
            topic,
            index,
            disk,
            part,
            log_append_time: false,
            // Until its topic's configs are told, nothing goes.
            keep: Keep {
                retention: store::Retention { ms: -1, bytes: -1 },
                quota_bytes: u64::MAX,
            },
            full: false,
            grown_bytes: 0,
            compaction: compaction::State::default(),
            no_room_since: None,
            waiters: Vec::new(),
        }
    }

    /// Wakes every fetch that waits for this partition.
    pub(super) fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.notify_one();
        }
    }

    /// Lets `waiter` know when the high watermark moves or the leader changes.
    pub(super) fn wait(&mut self, waiter: &Rc<Notify>) {
        // A fetch that was woken by another of its partitions, or timed out, leaves its entry behind.
        self.waiters.retain(|waiter| Rc::strong_count(waiter) > 1);
        self.waiters.push(waiter.clone());
    }

    pub(super) fn appended(&mut self, bytes: usize) {
        self.grown_bytes += bytes as u64;
        self.compaction.appended(bytes);
    }
}
