//! A batch from its arrival to its answer: checks, offset and leader epoch, durable here, committed.

use model::window::{Fact, Verdict, Windows};
use model::{Instant, Offset};

use super::waiting::Waiter;
use super::{
    Acks, Effect, Origin, Outcome, Partition, Produce, Refusal, Role, WAITING_MAX, refuse,
};
use crate::Outbox;
use crate::mutation::{self, Mutation};

/// Attribute bits of transactional and control batches.
const TRANSACTIONAL_OR_CONTROL: i16 = 0x30;

impl Partition {
    pub(super) fn produce(
        &mut self,
        now: Instant,
        produce: &Produce,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Refusal> {
        let client = produce.origin == Origin::Client;
        if client && produce.bytes > self.settings.batch_bytes_max {
            return Err(Refusal::TooLarge);
        }
        if client && produce.attributes & TRANSACTIONAL_OR_CONTROL != 0 {
            return Err(Refusal::Transactional);
        }
        if produce.acks == Acks::All && !self.enough_in_sync() {
            return Err(Refusal::NotEnoughReplicas);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Err(Refusal::Crowded);
        }
        let count = i64::from(produce.last_offset_delta) + 1;
        let mut waiter = Waiter {
            ticket: produce.ticket,
            base_offset: self.end,
            end: self.end.plus(count),
            timestamp: produce.max_ts,
            accepted: now,
            timeout: produce.timeout,
        };
        if let Some(claim) = &produce.claim {
            match windows.check(self.ix, claim) {
                Verdict::Append => {}
                Verdict::Duplicate {
                    base_offset,
                    timestamp,
                } => {
                    (waiter.base_offset, waiter.end) = (base_offset, base_offset.plus(count));
                    waiter.timestamp = timestamp;
                    assert!(
                        waiter.end <= self.end,
                        "the windows know a batch that the log does not hold"
                    );
                    // R11: like its original, and not before it.
                    if mutation::is(Mutation::RetryAckedFirst) {
                        self.reply_stored(&waiter, out);
                    } else {
                        self.waiting.push(produce.acks, waiter);
                        self.answer(now, out);
                    }
                    return Ok(());
                }
                Verdict::OutOfOrder { .. } => return Err(Refusal::OutOfOrderSequence),
                Verdict::Fenced { .. } => return Err(Refusal::InvalidProducerEpoch),
                Verdict::Crowded => return Err(Refusal::Crowded),
            }
        }
        if client && self.full && self.settings.refuse_when_full {
            return Err(Refusal::QuotaFull);
        }
        if let Some(claim) = produce.claim {
            let fact = Fact {
                base_offset: self.end,
                claim,
                max_ts: produce.max_ts,
                transactional: false,
                marker: None,
            };
            windows.feed(self.ix, &fact);
        }
        out.push(Effect::Append {
            ticket: produce.ticket,
            base_offset: self.end,
            leader_epoch: self.epoch,
            high_watermark: self.high_watermark,
        });
        self.end = waiter.end;
        self.waiting.push(produce.acks, waiter);
        Ok(())
    }

    pub(super) fn flushed(
        &mut self,
        now: Instant,
        end: Offset,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        // What a failing disk still reported before it failed is of no use any more. Nor is what was durable before a cut,
        // until the cut is.
        if !self.disk_up || self.copying.cutting {
            return;
        }
        self.was_durable(end);
        self.advance(now, windows, out);
    }

    /// All below `end` lies on the disk.
    pub(super) fn was_durable(&mut self, end: Offset) {
        assert!(end <= self.end, "durable beyond what was queued");
        if end > self.durable {
            self.waiting.was_durable(self.durable, end);
            self.durable = end;
        }
    }

    pub(super) fn enough_in_sync(&self) -> bool {
        self.isr.committed().len() >= usize::from(self.settings.min_insync)
    }

    /// Moves the high watermark as far as the maximal ISR allows (R5), and answers what that allows.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        let enough = self.enough_in_sync() || mutation::is(Mutation::CommittedBelowMin);
        if matches!(self.role, Role::Leading { .. }) && enough {
            let all = self.durable_everywhere();
            if all > self.high_watermark {
                self.high_watermark = all;
                windows.advance(self.ix, all);
                out.push(Effect::HighWatermark {
                    high_watermark: all,
                });
            }
        }
        self.hand_over_if_level(out);
        self.answer(now, out);
        if !self.enough_in_sync() {
            while let Some(waiter) = self.waiting.pop_uncommitted(self.high_watermark) {
                refuse(waiter.ticket, Refusal::NotEnoughReplicasAfterAppend, out);
            }
        }
    }

    pub(super) fn reply_stored(&self, waiter: &Waiter, out: &mut Outbox<Effect>) {
        out.push(Effect::Reply {
            ticket: waiter.ticket,
            outcome: Outcome::Stored {
                base_offset: waiter.base_offset,
                log_start: self.log_start,
                timestamp: waiter.timestamp,
            },
        });
    }
}
