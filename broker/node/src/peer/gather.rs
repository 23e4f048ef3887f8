//! A follower's questions to one other broker, gathered into few messages.
//!
//! Each partition's machine says what it wants; this decides when that goes, and with which others: first come, first
//! served. At most [`ANSWERS_MAX`] answers are under way, each of at most [`FETCHED_BYTES_MAX`] bytes, so what a peer may
//! send is bounded; a question that stands at the leader is not sent again. A report of what became durable is never held
//! back by an answer that is waited for, since every acks=all waits for it.

use std::collections::{BTreeMap, VecDeque};

use model::{LeaderEpoch, Offset, TopicPartition};

use super::frame::{FETCH_ROWS_MAX, FETCHED_BYTES_MAX, FetchRequest, FetchResponse, FetchRow};

/// Answers under way: one is on the wire while the other one's batches go to the disk. Two of 4 MiB are the 8 MiB that the
/// receive pool keeps for peers.
pub const ANSWERS_MAX: usize = 2;

/// What a question asks for: (epoch, fetch offset, last epoch).
type Question = (LeaderEpoch, Offset, LeaderEpoch);
/// What a question or a report says: (epoch, durable offset, log start).
type Report = (LeaderEpoch, Offset, Offset);

#[derive(Clone, Copy, Debug)]
struct Wanted {
    row: FetchRow,
    /// It stands in the queue.
    queued: bool,
    /// The question that the leader holds.
    stands: Option<Question>,
    /// What the leader was told last.
    told: Option<Report>,
}

impl Wanted {
    const fn question(&self) -> Question {
        (self.row.epoch, self.row.fetch_off, self.row.last_epoch)
    }

    const fn report(&self) -> Report {
        (self.row.epoch, self.row.durable_off, self.row.log_start)
    }

    fn asks(&self) -> bool {
        self.row.bytes_max > 0 && self.stands != Some(self.question())
    }

    fn reports(&self) -> bool {
        self.told != Some(self.report())
    }
}

/// See the module. One per connection to a peer that leads something here; a new connection begins with a new one.
#[derive(Clone, Debug, Default)]
pub struct Gatherer {
    wanted: BTreeMap<TopicPartition, Wanted>,
    queue: VecDeque<TopicPartition>,
    /// Requests whose answers are under way.
    under_way: VecDeque<u64>,
    last_id: u64,
}

impl Gatherer {
    /// What the partition's machine wants of this peer now, after a step of it; `None`: nothing any more.
    pub fn want(&mut self, partition: TopicPartition, row: Option<FetchRow>) {
        let Some(row) = row else {
            self.wanted.remove(&partition);
            return;
        };
        let wanted = self.wanted.entry(partition).or_insert(Wanted {
            row,
            queued: false,
            stands: None,
            told: None,
        });
        wanted.row = row;
        if !wanted.queued && (wanted.asks() || wanted.reports()) {
            wanted.queued = true;
            self.queue.push_back(partition);
        }
    }

    /// The next message, if one should go now. To be asked until there is none.
    pub fn message(&mut self) -> Option<FetchRequest> {
        let room = self.under_way.len() < ANSWERS_MAX;
        let (mut rows, mut asks) = (Vec::new(), false);
        let mut later = VecDeque::new();
        while rows.len() < FETCH_ROWS_MAX
            && let Some(partition) = self.queue.pop_front()
        {
            // Its machine may ask somebody else by now.
            let Some(wanted) = self.wanted.get_mut(&partition) else {
                continue;
            };
            wanted.queued = false;
            let mut row = wanted.row;
            if wanted.asks() && room {
                wanted.stands = Some(wanted.question());
                asks = true;
            } else {
                row.bytes_max = 0;
                if wanted.asks() {
                    wanted.queued = true;
                    later.push_back(partition);
                }
                if !wanted.reports() {
                    continue;
                }
            }
            wanted.told = Some(wanted.report());
            rows.push(row);
        }
        // In the order in which they came, before those that were not reached.
        later.append(&mut self.queue);
        self.queue = later;
        // What stands can be answered only while an answer is due.
        let stand = || self.wanted.values().any(|wanted| wanted.stands.is_some());
        let due = asks || (self.under_way.is_empty() && stand());
        if rows.is_empty() && !due {
            return None;
        }
        self.last_id += 1;
        if due {
            self.under_way.push_back(self.last_id);
        }
        Some(FetchRequest {
            id: self.last_id,
            bytes_max: if due { FETCHED_BYTES_MAX } else { 0 },
            rows,
        })
    }

    /// An answer came; its rows are then told to their machines, which want something new.
    ///
    /// # Errors
    /// If it answers no request that is under way: the peer is out of step, and the connection should end.
    pub fn answered(&mut self, response: &FetchResponse) -> Result<(), OutOfStep> {
        let place = self.under_way.iter().position(|id| *id == response.id);
        self.under_way.remove(place.ok_or(OutOfStep)?);
        for row in &response.rows {
            if let Some(wanted) = self.wanted.get_mut(&row.partition)
                && wanted.stands == Some((row.epoch, row.fetch_off, row.last_epoch))
            {
                wanted.stands = None;
                // Unless its machine wants something else meanwhile, it is asked again as it is.
                if !wanted.queued {
                    wanted.queued = true;
                    self.queue.push_back(row.partition);
                }
            }
        }
        Ok(())
    }
}

/// An answer to nothing that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer answers a fetch that is not under way")]
pub struct OutOfStep;
