//! A leader's side of one follower's connection: the questions that stand, and which of them an answer carries.
//!
//! A question stands until there is something to say to it: batches, or that the logs part, or a refusal; or for
//! [`HOLD_MAX`], so that the follower learns the high watermark and is known to live. An answer goes only while the
//! follower is ready for one, and takes partitions in turn.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use model::{Instant, TopicPartition};

use super::frame::{FETCH_ROWS_MAX, FETCHED_BYTES_MAX, FetchRequest, FetchRow};

/// How long a question stands with nothing to say: Kafka's `replica.fetch.wait.max.ms`, a tenth of the lag that costs a
/// place in the ISR.
pub const HOLD_MAX: Duration = Duration::from_millis(500);
/// Questions that stand at one leader: all replicas that a node may have. Further ones are refused.
pub const HELD_MAX: usize = 4_000;
/// Answers that one follower may have ordered: [`super::gather::ANSWERS_MAX`] and some for those that cross.
const ORDERED_MAX: usize = 8;

/// What there is to say to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Nothing yet.
    Nothing,
    /// Bytes of batches, as far as they are known to be there.
    Batches {
        /// At least one batch's.
        bytes: u32,
    },
    /// It does not wait: the logs part, or it is refused.
    AtOnce,
}

/// What one answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The request that it answers.
    pub id: u64,
    /// The questions, with the bytes of batches each may have. A first batch that is larger may go where no other does.
    pub rows: Vec<(FetchRow, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    row: FetchRow,
    since: Instant,
    /// It stands in `ready`.
    ready: bool,
}

/// See the module. One per connection.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    held: BTreeMap<TopicPartition, Held>,
    /// Those to which there may be something to say.
    ready: VecDeque<TopicPartition>,
    /// By the moment at which they came; what was answered meanwhile is passed over.
    by_age: VecDeque<(Instant, TopicPartition)>,
    ordered: VecDeque<(u64, u32)>,
}

impl Holder {
    /// A request came. Its rows are also told to their machines, all of them, before [`Holder::plan`] is asked.
    ///
    /// # Errors
    /// [`TooMany`], beyond what a follower of this release asks: the connection should end.
    pub fn request(&mut self, now: Instant, request: &FetchRequest) -> Result<(), TooMany> {
        for row in request.rows.iter().filter(|row| row.bytes_max > 0) {
            let held = Held {
                row: *row,
                since: now,
                ready: true,
            };
            let before = self.held.insert(row.partition, held);
            if before.is_none_or(|before| !before.ready) {
                self.ready.push_back(row.partition);
            }
            self.by_age.push_back((now, row.partition));
        }
        if request.bytes_max > 0 {
            self.ordered
                .push_back((request.id, request.bytes_max.min(FETCHED_BYTES_MAX)));
        }
        self.forget_answered();
        if self.held.len() > HELD_MAX || self.ordered.len() > ORDERED_MAX {
            return Err(TooMany);
        }
        Ok(())
    }

    /// The partition's log, its leader or its epoch changed: there may be something to say.
    pub fn changed(&mut self, partition: TopicPartition) {
        if let Some(held) = self.held.get_mut(&partition)
            && !held.ready
        {
            held.ready = true;
            self.ready.push_back(partition);
        }
    }

    /// The next answer, if there is something to say and the follower is ready for it. To be asked until there is none.
    pub fn plan(&mut self, now: Instant, mut say: impl FnMut(&FetchRow) -> Say) -> Option<Planned> {
        let (id, mut left) = *self.ordered.front()?;
        let mut rows = Vec::new();
        for _ in 0..self.ready.len() {
            if rows.len() == FETCH_ROWS_MAX || left == 0 {
                break;
            }
            let partition = self.ready.pop_front().expect("counted");
            let Some(held) = self.held.get_mut(&partition) else {
                continue;
            };
            held.ready = false;
            let bytes = match say(&held.row) {
                Say::Nothing => continue,
                Say::AtOnce => 0,
                Say::Batches { bytes } => bytes.min(held.row.bytes_max).min(left),
            };
            left -= bytes;
            rows.push((held.row, bytes));
            self.held.remove(&partition);
        }
        // What stood long enough hears that nothing happened.
        while rows.len() < FETCH_ROWS_MAX
            && let Some((since, partition)) = self.by_age.front().copied()
            && now >= since + HOLD_MAX
        {
            self.by_age.pop_front();
            // One asked anew meanwhile is younger.
            let old = |held: &&mut Held| held.since == since;
            if let Some(row) = self
                .held
                .get_mut(&partition)
                .filter(old)
                .map(|held| held.row)
            {
                self.held.remove(&partition);
                rows.push((row, 0));
            }
        }
        if rows.is_empty() {
            return None;
        }
        self.ordered.pop_front();
        Some(Planned { id, rows })
    }

    /// When [`Holder::plan`] is due although nothing changed.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = self.by_age.front().map(|(since, _)| *since + HOLD_MAX);
        oldest.filter(|_| !self.ordered.is_empty())
    }

    /// What is not held any more, or anew, is not remembered by age either.
    fn forget_answered(&mut self) {
        let held = &self.held;
        let stands = |(since, partition): &(Instant, TopicPartition)| {
            held.get(partition).is_some_and(|held| held.since == *since)
        };
        while self.by_age.front().is_some_and(|front| !stands(front)) {
            self.by_age.pop_front();
        }
        if self.by_age.len() > 2 * HELD_MAX {
            self.by_age.retain(stands);
        }
    }
}

/// More questions or orders than one follower has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer has more fetches under way than a node has replicas")]
pub struct TooMany;
