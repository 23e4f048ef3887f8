//! A leader's answer, taken over: checked batch by batch, appended as it is, and its high watermark and log start heeded.

use model::window::Windows;
use model::{Instant, Offset};

use super::following::{ASK_AGAIN, CATCH_UP_CHECKPOINT_BYTES, CatchUp};
use super::{Answer, AnswerBody, CopiedBatch, CopyFault, Effect, Partition, Role};
use crate::mutation::{self, Mutation};
use crate::{Outbox, Ticket};

impl Partition {
    pub(super) fn answered(
        &mut self,
        now: Instant,
        answer: &Answer,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        // Whatever came late, twice or in another order answers a question that this log does not ask any more: an epoch and
        // the offset behind its last record name one content.
        let asked = self.ask(now).is_some_and(|ask| {
            let fetch = ask.fetch;
            (fetch.epoch, fetch.fetch_off, fetch.last_epoch)
                == (answer.epoch, answer.fetch_off, answer.last_epoch)
        });
        let joining = self
            .copying
            .catch_up
            .is_some_and(|catch_up| catch_up.joining);
        if !asked || joining {
            return;
        }
        self.copying.not_before = Instant(0);
        match &answer.body {
            AnswerBody::Refused => self.copying.not_before = now + ASK_AGAIN,
            AnswerBody::Diverging { epoch, end } => {
                if self.copying.catch_up.is_some() {
                    // A TRUNCATE record speaks of a log that the journal knows.
                    return self.join(out);
                }
                // That epoch may have ended earlier here than there.
                let to = self.epochs.end_at_most(*epoch, self.end).min(*end);
                if to < self.end && self.log_start_asked < self.end {
                    self.cut(to, windows, out);
                } else {
                    // An empty log that begins behind the leader's end waits for it to get there.
                    self.copying.not_before = now + ASK_AGAIN;
                }
            }
            AnswerBody::Batches {
                ticket,
                high_watermark,
                log_start,
                more,
                batches,
            } => {
                // It begins behind our end, or there but within its first batch.
                let first = batches
                    .first()
                    .map_or(*log_start, |batch| batch.base_offset);
                let begins = first.min(*log_start);
                if *log_start >= self.end && begins != self.end {
                    return self.begin_anew(now, begins, windows, out);
                }
                let bytes = batches.iter().map(|batch| u64::from(batch.bytes)).sum();
                self.pace(*more, bytes, out);
                let taken = self.copy(*ticket, *high_watermark, batches, windows, out);
                if let Err(fault) = taken {
                    self.copying.not_before = now + ASK_AGAIN;
                    out.push(Effect::CopyRefused { fault });
                }
                self.heed(*high_watermark, *log_start, windows, out);
                self.level(*more, out);
            }
        }
    }

    /// Nothing of this log is in the leader's any more (R10), which begins with a batch at `at`. That may be before its log
    /// start, and all of the batch is needed.
    fn begin_anew(
        &mut self,
        now: Instant,
        at: Offset,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        if self.copying.catch_up.is_some() {
            self.join(out);
        } else if at > self.end {
            self.restart_at(at, windows, out);
        } else if self.log_start_asked < self.end {
            // What we hold of that batch's offsets was never committed. The batch is asked for again.
            self.cut(at, windows, out);
        } else {
            self.copying.not_before = now + ASK_AGAIN;
        }
    }

    /// Appends what can be, one effect for the batches of an epoch.
    fn copy(
        &mut self,
        ticket: Ticket,
        leader_hw: Offset,
        batches: &[CopiedBatch],
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) -> Result<(), CopyFault> {
        // An epoch in which this replica led and wrote nothing stands in the way of an older one's batches.
        let stale = self.epochs.last().is_some_and(|last| {
            last.start >= self.end
                && batches
                    .first()
                    .is_some_and(|it| it.leader_epoch < last.epoch)
        });
        if stale {
            self.cut(self.end, windows, out);
            return Ok(());
        }
        let mut at = 0;
        while let Some(first) = batches.get(at) {
            let run = batches[at..]
                .iter()
                .take_while(|batch| batch.leader_epoch == first.leader_epoch)
                .count();
            let (base_offset, mut gap, mut fit) = (first.base_offset, false, 0);
            let mut fault = None;
            let high_watermark = self.high_watermark;
            for batch in &batches[at..at + run] {
                match self.fits(batch, leader_hw) {
                    Ok(hole) => gap |= hole,
                    Err(found) => {
                        fault = Some(found);
                        break;
                    }
                }
                if self
                    .epochs
                    .last()
                    .is_none_or(|last| last.epoch < batch.leader_epoch)
                {
                    self.epochs.begin(batch.leader_epoch, batch.base_offset);
                }
                if let Some(fact) = &batch.fact
                    && !mutation::is(Mutation::WindowsNotCopied)
                {
                    windows.feed(self.ix, fact);
                }
                self.end = batch.end();
                fit += 1;
            }
            if fit > 0 {
                out.push(Effect::Copy {
                    ticket,
                    first: u32::try_from(at).expect("an answer is bounded"),
                    count: fit,
                    base_offset,
                    leader_epoch: first.leader_epoch,
                    high_watermark,
                    gap,
                    journaled: self.copying.catch_up.is_none(),
                });
            }
            fault.map_or(Ok(()), Err)?;
            at += run;
        }
        Ok(())
    }

    /// Whether the batch may be the next one; says whether it leaves a hole, as compaction does below the high watermark.
    /// What lies before the leader's own epoch may have been compacted below a high watermark that it has not reached again
    /// since its restart, so only between batches of its own epoch a hole above the high watermark is one too many.
    fn fits(&self, batch: &CopiedBatch, leader_hw: Offset) -> Result<bool, CopyFault> {
        let (base, floor) = (batch.base_offset, self.last_batch_epoch());
        if mutation::is(Mutation::CopiesUnchecked) && base >= self.end {
            return Ok(base > self.end);
        }
        if batch.leader_epoch < floor || batch.leader_epoch > self.epoch {
            Err(CopyFault::Epoch)
        } else if base < self.end || batch.last_offset_delta < 0 {
            Err(CopyFault::Overlap)
        } else if base > self.end && base > leader_hw && floor == self.epoch {
            Err(CopyFault::Gap)
        } else {
            Ok(base > self.end)
        }
    }

    /// Takes over the leader's high watermark as far as this log goes, and its log start (R10).
    fn heed(
        &mut self,
        high_watermark: Offset,
        log_start: Offset,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        let known = high_watermark.min(self.end);
        if known > self.high_watermark {
            self.high_watermark = known;
            windows.advance(self.ix, known);
        }
        // A log that the journal knows to start must reach that far in the journal as well, or a restart would begin it
        // anew, perhaps within a batch.
        let reach = match self.copying.catch_up {
            Some(_) => self.high_watermark.min(self.durable),
            None => self.high_watermark,
        };
        let to = log_start.min(reach);
        if to > self.log_start_asked && !mutation::is(Mutation::LogStartNotFollowed) {
            self.log_start_asked = to;
            out.push(Effect::LogStart { offset: to });
        }
    }

    /// Decides whether this answer goes through the journal.
    fn pace(&mut self, more: bool, bytes: u64, out: &mut Outbox<Effect>) {
        let copying = &mut self.copying;
        copying.full_answers = if more { copying.full_answers + 1 } else { 0 };
        let far = copying.full_answers > copying.patience && !copying.in_sync;
        if far && copying.catch_up.is_none() {
            copying.catch_up = Some(CatchUp::default());
        }
        let Some(catch_up) = &mut copying.catch_up else {
            return;
        };
        copying.budget = copying.budget.saturating_sub(bytes);
        catch_up.bytes += bytes;
        if catch_up.bytes >= CATCH_UP_CHECKPOINT_BYTES {
            self.checkpoint(out);
        }
    }

    /// With no more to come, a catch-up is over.
    fn level(&mut self, more: bool, out: &mut Outbox<Effect>) {
        if !more {
            self.join(out);
        }
    }

    /// The committed ISR, as a follower hears of it: a member in sync is waited for, so it writes its journal again.
    pub(super) fn hear_isr(&mut self, in_sync: bool, out: &mut Outbox<Effect>) {
        debug_assert!(matches!(self.role, Role::Following { .. }));
        self.copying.in_sync = in_sync;
        if in_sync {
            self.join(out);
        }
    }
}
