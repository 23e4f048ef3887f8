//! One internal partition as its coordinator sees it: who leads, whether its log has been read, and which batches are
//! on their way.
//!
//! What a batch means is the owner's `T`: groups have theirs, transactions will have another. The seat only keeps the
//! order: a batch is committed when the high watermark has passed its end, first to last, and everything ends with the
//! leader epoch.

use std::collections::VecDeque;

use model::{Instant, LeaderEpoch, Offset};

use super::types::AppendId;

/// Whether the partition's coordinator is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Another node's, or nobody's.
    Away,
    /// Ours; its log is being read.
    Loading,
    /// Ours, since then.
    Serving { since: Instant },
}

/// A batch that is not decided.
#[derive(Debug)]
struct InFlight<T> {
    append: AppendId,
    count: i64,
    /// Where its first record lies, once that is known.
    base: Option<Offset>,
    then: T,
}

/// What a failed batch means.
#[derive(Debug)]
pub(super) enum Failed<T> {
    /// It never got into the log.
    Never(T),
    /// It lies in the log and may still be committed; it stays in line.
    Unsure,
    /// It is not known here: of an epoch that is over, or decided.
    Unknown,
}

/// A partition of an internal topic.
#[derive(Debug)]
pub(super) struct Seat<T> {
    pub(super) standing: Standing,
    pub(super) epoch: LeaderEpoch,
    line: VecDeque<InFlight<T>>,
}

impl<T> Default for Seat<T> {
    fn default() -> Self {
        Self {
            standing: Standing::Away,
            epoch: LeaderEpoch::NONE,
            line: VecDeque::new(),
        }
    }
}

impl<T> Seat<T> {
    /// Takes office in `epoch`; `false` if it is no newer one.
    pub(super) fn elect(&mut self, epoch: LeaderEpoch) -> bool {
        let newer = epoch > self.epoch;
        if newer {
            assert!(
                self.line.is_empty(),
                "an office begins with batches of the one before"
            );
            self.standing = Standing::Loading;
            self.epoch = epoch;
        }
        newer
    }

    /// Whether it is being read in exactly this epoch.
    pub(super) fn loads(&self, epoch: LeaderEpoch) -> bool {
        self.standing == Standing::Loading && self.epoch == epoch
    }

    /// Gives out what was on its way, first to last, when the office is over.
    pub(super) fn leave(&mut self) -> impl Iterator<Item = T> + use<T> {
        assert_eq!(
            self.standing,
            Standing::Away,
            "batches end with their office"
        );
        core::mem::take(&mut self.line)
            .into_iter()
            .map(|flight| flight.then)
    }

    pub(super) fn serves(&self) -> bool {
        matches!(self.standing, Standing::Serving { .. })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.line.len()
    }

    /// Everything on its way, first to last.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut T> {
        self.line.iter_mut().map(|flight| &mut flight.then)
    }

    /// A batch of `count` records goes off.
    pub(super) fn push(&mut self, append: AppendId, count: usize, then: T) {
        let count = i64::try_from(count).expect("a batch has less than 2^63 records");
        self.line.push_back(InFlight {
            append,
            count,
            base: None,
            then,
        });
    }

    fn position(&self, append: AppendId) -> Option<usize> {
        self.line
            .binary_search_by_key(&append, |flight| flight.append)
            .ok()
    }

    /// A batch got its place in the log.
    pub(super) fn appended(&mut self, append: AppendId, base: Offset) {
        if let Some(at) = self.position(append) {
            self.line[at].base = Some(base);
        }
    }

    /// The first batch if it lies below `end`, with its first record's offset.
    pub(super) fn pop_committed(&mut self, end: Offset) -> Option<(T, Offset)> {
        let first = self.line.front()?;
        let base = first.base.filter(|base| base.plus(first.count) <= end)?;
        self.line.pop_front().map(|first| (first.then, base))
    }

    /// A batch was refused, or its time is up.
    pub(super) fn fail(&mut self, append: AppendId) -> Failed<T> {
        match self.position(append) {
            None => Failed::Unknown,
            Some(at) if self.line[at].base.is_some() => Failed::Unsure,
            Some(at) => Failed::Never(self.line.remove(at).expect("found just now").then),
        }
    }

    /// What a batch means that is still in line.
    pub(super) fn get_mut(&mut self, append: AppendId) -> Option<&mut T> {
        let at = self.position(append)?;
        Some(&mut self.line[at].then)
    }
}
