//! The log's start: only the leader moves it, never above the high watermark, and it never falls (R10).

use model::{Instant, Offset};

use super::{DELETIONS_MAX, Deletion, Effect, Outcome, Partition, Refusal};
use crate::{Outbox, Ticket};

impl Partition {
    pub(super) fn delete_records(
        &mut self,
        now: Instant,
        ticket: Ticket,
        offset: Offset,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Refusal> {
        let to = match offset {
            Offset(-1) => self.high_watermark,
            offset => offset,
        };
        if to < Offset::ZERO || to > self.high_watermark {
            return Err(self.out_of_range());
        }
        if to > self.log_start && self.deletions.len() >= DELETIONS_MAX {
            return Err(Refusal::Crowded);
        }
        self.raise_log_start(to, out);
        self.deletions.push(Deletion {
            ticket,
            offset: to,
            accepted: now,
        });
        self.answer_deletions(now, out);
        Ok(())
    }

    /// Retention's part: what it asks for may lie above the high watermark.
    pub(super) fn retain(&mut self, now: Instant, offset: Offset, out: &mut Outbox<Effect>) {
        // Not the leader within its lease: retention asks again.
        if self.serving(now).is_ok() {
            self.raise_log_start(offset.min(self.high_watermark), out);
        }
    }

    fn raise_log_start(&mut self, offset: Offset, out: &mut Outbox<Effect>) {
        if offset > self.log_start_asked {
            self.log_start_asked = offset;
            out.push(Effect::LogStart { offset });
        }
    }

    pub(super) fn log_start_durable(
        &mut self,
        now: Instant,
        offset: Offset,
        out: &mut Outbox<Effect>,
    ) {
        // Asked for before the disk failed or ran out of room, it may be heard after: it is on the disk all the same.
        self.log_start = self.log_start.max(offset);
        self.log_start_asked = self.log_start_asked.max(offset);
        self.epochs.trim(self.log_start);
        if offset > self.durable {
            // A log that begins anew there (R10) ends there, too.
            self.durable = offset;
            self.end = self.end.max(offset);
            self.high_watermark = self.high_watermark.max(offset);
        }
        self.answer(now, out);
    }

    /// Answers the deletions that are done everywhere (R10); the caller has looked at the lease.
    pub(super) fn answer_deletions(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let log_start = self.log_start_everywhere(now);
        let done = |deletion: &mut Deletion| deletion.offset <= log_start;
        for deletion in self.deletions.extract_if(.., done) {
            out.push(Effect::Reply {
                ticket: deletion.ticket,
                outcome: Outcome::Deleted { log_start },
            });
        }
    }
}
