//! One partition's replica on this node: its machine, where its log lies, and who waits for it to grow.

use std::rc::Rc;

use model::{Instant, TopicId};
use node::partition::Partition;
use tokio::sync::Notify;

use super::compaction;
use crate::spindle::PartIx;

/// See the module.
pub(crate) struct Replica {
    pub(super) topic: TopicId,
    pub(super) index: u32,
    pub(super) machine: Partition,
    /// Index of its disk's spindle.
    pub(super) disk: usize,
    /// Its number on that disk.
    pub(super) part: PartIx,
    /// Its number in `__consumer_offsets`, if that is its topic.
    pub(super) internal: Option<u32>,
    pub(super) log_append_time: bool,
    pub(super) keep: Keep,
    /// It holds its whole quota.
    pub(super) full: bool,
    /// Bytes appended since retention looked at it.
    pub(super) grown_bytes: u64,
    /// What compacts it.
    pub(super) compaction: compaction::State,
    /// Part of it was lost with its disk's journal, and nobody has accepted that.
    pub(super) hole: bool,
    /// Its disk had no room for another extent then.
    pub(super) no_room_since: Option<Instant>,
    /// Fetches that wait for the high watermark, each woken once.
    waiters: Vec<Rc<Notify>>,
}

/// What its topic's configuration lets it keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    pub(super) retention: store::Retention,
    /// Reserved on its disk.
    pub(super) quota_bytes: u64,
}

impl Replica {
    pub(super) fn new(
        topic: TopicId,
        index: u32,
        machine: Partition,
        disk: usize,
        part: PartIx,
        internal: Option<u32>,
    ) -> Self {
        Self {
            topic,
            index,
            machine,
            disk,
            part,
            internal,
            log_append_time: false,
            // Until its topic's configs are told, nothing goes.
            keep: Keep {
                retention: store::Retention { ms: -1, bytes: -1 },
                quota_bytes: u64::MAX,
            },
            full: false,
            grown_bytes: 0,
            compaction: compaction::State::default(),
            hole: false,
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
