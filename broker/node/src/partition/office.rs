//! Taking office and leaving it: leader epochs, and the disk under the replica.

use model::window::Windows;
use model::{Instant, LeaderEpoch, NodeId, Offset};

use super::epochs::Epochs;
use super::following::Copying;
use super::insync::InSync;
use super::{Effect, Partition, Recovered, Refusal, Role, refuse};
use crate::Outbox;
use crate::mutation::{self, Mutation};

impl Partition {
    /// Takes over what the disk holds.
    pub(super) fn load(&mut self, recovered: &Recovered) {
        assert!(
            recovered.log_start <= recovered.end,
            "recovery gives a log that ends before it starts"
        );
        let recovered_hw = match mutation::is(Mutation::RecoveredHighWatermarkDropped) {
            true => Offset::ZERO,
            false => recovered.high_watermark,
        };
        // Neither falls when a disk comes back under a running machine (R10).
        self.log_start = match mutation::is(Mutation::LogStartLowered) {
            true => Offset::ZERO,
            false => self.log_start.max(recovered.log_start),
        };
        self.log_start_asked = self.log_start;
        (self.durable, self.end) = (recovered.end, recovered.end);
        // The recovered one is a lower bound: a DeleteRecords up to the high watermark may be durable while no later
        // APPEND carried that watermark.
        self.high_watermark = self
            .high_watermark
            .max(recovered_hw)
            .max(self.log_start)
            .min(recovered.end);
        self.epoch = self.epoch.max(recovered.accepted_epoch);
        self.epochs = Epochs::new(&recovered.epochs);
        self.copying = Copying {
            budget: self.copying.budget,
            patience: self.copying.patience,
            ..Copying::new(recovered)
        };
    }

    pub(super) fn lead(
        &mut self,
        epoch: LeaderEpoch,
        isr: InSync,
        unclean: bool,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        // R2: an epoch once accepted is never led again; R9: nor is a partition whose disk is gone.
        let accepted = match mutation::is(Mutation::LeadsAnEpochTwice) {
            true => epoch < self.epoch,
            false => epoch <= self.epoch,
        };
        if accepted || !self.disk_up {
            return;
        }
        if self.copying.catch_up.take().is_some() && self.durable < self.end {
            // What no checkpoint covers is not in the journal, which is about to say where the epoch starts.
            self.copying.unclean = true;
            self.cut(self.durable, windows, out);
        }
        if mutation::is(Mutation::WindowEmptied) {
            windows.remove(self.ix);
        }
        self.epoch = epoch;
        self.isr = isr;
        (self.copying.unclean, self.copying.halted) = (unclean, false);
        self.handing = None;
        // What waits goes on waiting: the same log under the same leader will hold it in the new epoch as well.
        self.role = Role::Starting { start: self.end };
        // As the record will say, whatever becomes of this office before it is durable.
        self.epochs.begin(epoch, self.end);
        out.push(Effect::Epoch {
            epoch,
            start: Some(self.end),
            unclean,
        });
        if mutation::is(Mutation::LeadsBeforeDurable) {
            self.role = Role::Leading { start: self.end };
            out.push(Effect::Leading { epoch });
        }
        // But a coordinator's batch belongs to the epoch in which it was made: the next one reads the log without it.
        let gone = Refusal::NotLeader {
            leader: None,
            epoch,
        };
        self.parked.retain(|parked| {
            let stays = !parked.request.of_coordinator();
            if !stays {
                refuse(parked.request.ticket(), gone, out);
            }
            stays
        });
    }

    pub(super) fn epoch_durable(
        &mut self,
        now: Instant,
        epoch: LeaderEpoch,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        if self.disk_up {
            self.copying.epoch_durable = self.copying.epoch_durable.max(epoch);
        }
        let Role::Starting { start } = self.role else {
            return;
        };
        if epoch != self.epoch {
            return;
        }
        // The queue keeps the order within a partition: what stood before the EPOCH record is durable as well.
        self.was_durable(start);
        self.role = Role::Leading { start };
        self.followers.begin(now);
        out.push(Effect::Leading { epoch });
        self.advance(now, windows, out);
        self.resume(now, windows, out);
    }

    pub(super) fn disk_failed(&mut self, out: &mut Outbox<Effect>) {
        self.disk_up = false;
        self.resign(None, Refusal::DiskFailed, out);
        // Nothing behind the last flush exists for us until recovery says so. A follower that is not in sync may know that
        // more is committed than it had durable; that much it never owed.
        self.end = self.durable;
        self.high_watermark = self.high_watermark.min(self.durable);
        self.log_start_asked = self.log_start;
    }

    pub(super) fn disk_back(&mut self, recovered: &Recovered, out: &mut Outbox<Effect>) {
        assert!(!self.disk_up, "only a failed disk comes back");
        // R7: what readers have seen is not given out again under other records. This replica serves no more; another
        // one may, or a person must look.
        if recovered.end < self.high_watermark {
            out.push(Effect::Halted {
                end: recovered.end,
                high_watermark: self.high_watermark,
            });
            return;
        }
        self.disk_up = true;
        self.load(recovered);
    }

    /// Leads no more: all that waits is refused.
    pub(super) fn resign(
        &mut self,
        leader: Option<NodeId>,
        refusal: Refusal,
        out: &mut Outbox<Effect>,
    ) {
        let led = !matches!(self.role, Role::Following { .. });
        self.handing = None;
        self.role = Role::Following { leader };
        self.refuse_waiting(refusal, out);
        for parked in self.parked.drain(..) {
            refuse(parked.request.ticket(), refusal, out);
        }
        if led {
            out.push(Effect::Resigned);
        }
    }

    /// Refuses what was begun and is not answered.
    pub(super) fn refuse_waiting(&mut self, refusal: Refusal, out: &mut Outbox<Effect>) {
        while let Some(waiter) = self.waiting.pop_any() {
            refuse(waiter.ticket, refusal, out);
        }
        for deletion in self.deletions.drain(..) {
            refuse(deletion.ticket, refusal, out);
        }
    }
}
