//! What a partition's machine answers at once: bounds of fetches, offsets, ends of epochs, producers.
//!
//! All of it is the leader's word and is given only within the lease; the shell asks again just before it answers.

use model::window::{Producer, Windows};
use model::{Instant, LeaderEpoch, Offset};

use super::{Partition, Refusal, Role};

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All below the high watermark.
    Uncommitted,
    /// All below the stable end.
    Committed,
}

/// A consumer's question to one partition.
#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    /// From here.
    pub offset: Offset,
    /// The leader epoch the client believes in; `None` (−1) does not say.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record it has (v12); `None` (−1) does not say.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// What it sees.
    pub isolation: Isolation,
}

/// What a fetch may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchBounds {
    /// Batches that begin before this may be sent; at or below the offset asked for: nothing to read yet.
    pub to: Offset,
    /// For the answer's head.
    pub high_watermark: Offset,
    /// For the answer's head.
    pub stable_end: Offset,
    /// For the answer's head.
    pub log_start: Offset,
    /// The client's log parted from ours: the epoch and its end to cut to; no records then.
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// What ListOffsets looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// −1: behind the last visible record.
    Latest,
    /// −2: the first record.
    Earliest,
    /// −3, or a time: the store must look.
    ByTime,
}

/// A ListOffsets question.
#[derive(Clone, Copy, Debug)]
pub struct ListOffsets {
    /// What for.
    pub spec: OffsetSpec,
    /// The leader epoch the client believes in; `None` (−1) does not say.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// What it sees.
    pub isolation: Isolation,
}

/// A ListOffsets answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// There.
    At {
        /// The offset.
        offset: Offset,
        /// Epoch of the record at it, or of the one before for the end; −1 without records.
        epoch: LeaderEpoch,
    },
    /// Look in `[from, to)` of the store; [`Partition::epoch_at`] gives the epoch of what is found.
    LookUp {
        /// First offset there is.
        from: Offset,
        /// Offset behind the last visible record.
        to: Offset,
    },
}

impl Partition {
    /// What a consumer's fetch may read now.
    ///
    /// # Errors
    /// [`Refusal::Park`] and every reason not to serve; FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, OFFSET_OUT_OF_RANGE,
    /// OFFSET_NOT_AVAILABLE.
    pub fn fetch(&self, now: Instant, ask: &Fetch) -> Result<FetchBounds, Refusal> {
        let start = self.serving_in(now, ask.current_leader_epoch)?;
        let stable_end = self.stable_end();
        let mut bounds = FetchBounds {
            to: match ask.isolation {
                Isolation::Uncommitted => self.high_watermark,
                Isolation::Committed => stable_end,
            },
            high_watermark: self.high_watermark,
            stable_end,
            log_start: self.log_start,
            diverging: None,
        };
        // Kafka's order: below the log's start is out of range whether the logs part or not.
        if ask.offset < self.log_start {
            return Err(self.out_of_range());
        }
        if let Some(last) = ask.last_fetched_epoch {
            let (epoch, end) = self
                .epochs
                .end_of(last, self.end)
                .ok_or_else(|| self.out_of_range())?;
            if epoch < last || end < ask.offset {
                bounds.diverging = Some((epoch, end));
                return Ok(bounds);
            }
        }
        if ask.offset > self.end {
            return Err(self.out_of_range());
        }
        // Right after an election the high watermark may lie below what a consumer has read; "out of range" would
        // make it start over (COMPAT 22).
        if ask.offset > self.high_watermark && self.high_watermark < start {
            return Err(Refusal::OffsetNotAvailable);
        }
        Ok(bounds)
    }

    /// The offset looked for, or where to look.
    ///
    /// # Errors
    /// [`Refusal::Park`] and every reason not to serve; FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH; for the end
    /// OFFSET_NOT_AVAILABLE until the high watermark has reached the epoch's start (R8).
    pub fn list_offsets(&self, now: Instant, ask: &ListOffsets) -> Result<Listed, Refusal> {
        let start = self.serving_in(now, ask.current_leader_epoch)?;
        let to = match ask.isolation {
            Isolation::Uncommitted => self.high_watermark,
            Isolation::Committed => self.stable_end(),
        };
        if ask.spec != OffsetSpec::Earliest && self.high_watermark < start {
            return Err(Refusal::OffsetNotAvailable);
        }
        Ok(match ask.spec {
            // Kafka gives the leader's epoch for the end, and that of the first record for the start.
            OffsetSpec::Latest => Listed::At {
                offset: to,
                epoch: self.epoch,
            },
            OffsetSpec::Earliest => Listed::At {
                offset: self.log_start,
                epoch: self.epoch_at(self.log_start),
            },
            OffsetSpec::ByTime => Listed::LookUp {
                from: self.log_start,
                to,
            },
        })
    }

    /// OffsetForLeaderEpoch: the largest epoch not above `epoch`, and the offset behind its last record; `None` is
    /// (−1, −1), no such epoch here.
    ///
    /// # Errors
    /// [`Refusal::Park`] and every reason not to serve; FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH.
    pub fn end_offset_for_epoch(
        &self,
        now: Instant,
        current_leader_epoch: Option<LeaderEpoch>,
        epoch: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, Refusal> {
        self.serving_in(now, current_leader_epoch)?;
        Ok(self.epochs.end_of(epoch, self.end))
    }

    /// DescribeProducers: who has written here, by id.
    ///
    /// # Errors
    /// [`Refusal::Park`] and every reason not to serve.
    pub fn producers<'a>(
        &self,
        now: Instant,
        windows: &'a Windows,
    ) -> Result<impl Iterator<Item = Producer> + use<'a>, Refusal> {
        self.serving(now)?;
        Ok(windows.producers(self.ix))
    }

    /// Whether a request that was parked outside the machine, or is about to be answered, may be served now (R8).
    ///
    /// # Errors
    /// [`Refusal::Park`] and every reason not to serve.
    pub fn may_serve(&self, now: Instant) -> Result<(), Refusal> {
        self.serving(now)
    }

    /// Offset below which no transaction is undecided. Without transactions that is the high watermark; fetches,
    /// ListOffsets and wake-ups all go by this.
    #[must_use]
    pub const fn stable_end(&self) -> Offset {
        self.high_watermark
    }

    /// Epoch of the batch at `offset`; −1 where none is known.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        self.epochs.at(offset)
    }

    /// Offset behind the last committed record.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// First offset readers may ask for.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Offset behind the last record that lies on this disk.
    #[must_use]
    pub const fn durable(&self) -> Offset {
        self.durable
    }

    /// What this disk holds as far as the machine was told: what [`Input::DiskBack`](super::Input::DiskBack) gives back
    /// to a replica whose disk never failed but had no room for it.
    #[must_use]
    pub fn held(&self) -> super::Recovered {
        super::Recovered {
            log_start: self.log_start,
            end: self.durable,
            high_watermark: self.high_watermark,
            accepted_epoch: self.epoch,
            // One that was to begin behind what there was no room for did not.
            epochs: {
                let rows = self.epochs.rows().iter();
                rows.filter(|row| row.start <= self.durable)
                    .copied()
                    .collect()
            },
        }
    }

    /// Offset of the next batch.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// The epoch led or followed.
    #[must_use]
    pub const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Whether it neither leads nor is about to.
    #[must_use]
    pub const fn follows(&self) -> bool {
        matches!(self.role, Role::Following { .. })
    }

    /// Where the epoch that is led began, for coordinators that load up to it; `None` while this replica doesn't lead.
    #[must_use]
    pub const fn leading_since(&self) -> Option<Offset> {
        match self.role {
            Role::Leading { start } => Some(start),
            Role::Starting { .. } | Role::Following { .. } => None,
        }
    }

    /// Where the last epoch with a batch began, as (epoch, offset).
    #[must_use]
    pub fn last_epoch(&self) -> Option<super::EpochStart> {
        self.epochs.last()
    }

    pub(super) fn out_of_range(&self) -> Refusal {
        Refusal::OffsetOutOfRange {
            log_start: self.log_start,
            high_watermark: self.high_watermark,
        }
    }

    /// Serves only who knows this epoch (KIP-320); gives its start.
    fn serving_in(&self, now: Instant, current: Option<LeaderEpoch>) -> Result<Offset, Refusal> {
        self.serving(now)?;
        let Role::Leading { start } = self.role else {
            return Err(Refusal::Park);
        };
        match current {
            Some(known) if known < self.epoch => Err(Refusal::FencedLeaderEpoch),
            Some(known) if known > self.epoch => Err(Refusal::UnknownLeaderEpoch),
            _ => Ok(start),
        }
    }
}
