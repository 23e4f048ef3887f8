//! Where each leader epoch of a log began (KIP-101): who asks for an epoch's end learns how far the two logs agree.

use model::{LeaderEpoch, Offset};

use super::EpochStart;

/// Epochs remembered of one partition × 16 B = 8 KiB. Each restart that is followed by a batch adds one, retention takes
/// them away; of more than these the oldest go, and who asks for one of them is sent to the oldest kept.
const EPOCHS_MAX: usize = 512;

/// Rising in epoch and start; an epoch in which nothing was written has no row once a later one began at its start.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs(Vec<EpochStart>);

impl Epochs {
    pub(super) fn new(rows: &[EpochStart]) -> Self {
        let mut epochs = Self::default();
        for row in rows {
            epochs.begin(row.epoch, row.start);
        }
        epochs
    }

    /// `epoch` begins at `start`, the log's end.
    pub(super) fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        while self
            .0
            .last()
            .is_some_and(|last| last.start >= start || last.epoch >= epoch)
        {
            self.0.pop();
        }
        if self.0.len() == EPOCHS_MAX {
            self.0.remove(0);
        }
        self.0.push(EpochStart { epoch, start });
    }

    /// Rows wholly below `log_start` go; the one that covers it stays and begins there.
    pub(super) fn trim(&mut self, log_start: Offset) {
        let below = self.0.partition_point(|row| row.start <= log_start);
        if below > 0 {
            self.0.drain(..below - 1);
            self.0[0].start = log_start;
        }
    }

    /// The log was cut: rows that begin at `end` or behind it go.
    pub(super) fn cut(&mut self, end: Offset) {
        let keep = self.0.partition_point(|row| row.start < end);
        self.0.truncate(keep);
    }

    /// Where the batches of epochs up to `epoch` end.
    pub(super) fn end_at_most(&self, epoch: LeaderEpoch, log_end: Offset) -> Offset {
        let above = self.0.partition_point(|row| row.epoch <= epoch);
        self.0.get(above).map_or(log_end, |row| row.start)
    }

    /// The first row.
    pub(super) fn first(&self) -> Option<EpochStart> {
        self.0.first().copied()
    }

    /// All rows.
    pub(super) fn rows(&self) -> &[EpochStart] {
        &self.0
    }

    /// The last row.
    pub(super) fn last(&self) -> Option<EpochStart> {
        self.0.last().copied()
    }

    /// The epoch of the batch at `offset`.
    pub(super) fn at(&self, offset: Offset) -> LeaderEpoch {
        let behind = self.0.partition_point(|row| row.start <= offset);
        match behind.checked_sub(1) {
            Some(place) => self.0[place].epoch,
            None => LeaderEpoch::NONE,
        }
    }

    /// The largest epoch that is not above `epoch`, and where it ends; as Kafka's `endOffsetFor`.
    pub(super) fn end_of(
        &self,
        epoch: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let above = self.0.partition_point(|row| row.epoch <= epoch);
        match (
            above.checked_sub(1).map(|place| self.0[place]),
            self.0.get(above),
        ) {
            // Above every epoch known, unless it is the last one itself.
            (Some(last), None) => (last.epoch == epoch).then_some((epoch, log_end)),
            (Some(floor), Some(next)) => Some((floor.epoch, next.start)),
            // Older than all that is kept: it ended where they begin.
            (None, Some(first)) => Some((epoch, first.start)),
            (None, None) => None,
        }
    }
}
