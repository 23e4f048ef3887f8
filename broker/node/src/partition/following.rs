//! A follower: what it asks of its leader, and how it cuts off what the leader does not have (R3, R4, R7).
//!
//! It never decides what is committed and answers nobody. It asks in an epoch only when that epoch and every cut it made
//! in it are durable here, so what it reports can't be taken back by a restart.

use core::time::Duration;

use model::window::Windows;
use model::{Instant, LeaderEpoch, NodeId, Offset};

use super::{Ask, Effect, Partition, Recovered, ReplicaFetch, Role};
use crate::Outbox;
use crate::mutation::{self, Mutation};

/// Bytes of one partition in one answer: 1 MiB is 6 ms of a disk's time, so a hundred partitions take turns in 0.6 s.
pub const COPY_BYTES_MAX: u32 = 1 << 20;
/// Answers that were full one after the other, and a replica outside the ISR no longer writes what it copies twice: 64 MiB
/// behind is more than a restart's pause, and a checkpoint's price.
pub(super) const CATCH_UP_AFTER: u32 = 64;
/// Bytes copied between two checkpoints of a catch-up (design: path of writing, step 7).
pub const CATCH_UP_CHECKPOINT_BYTES: u64 = 256 << 20;
/// After an answer that was of no use: a controller's change takes longer, and ten questions a second cost nothing.
pub const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What a replica keeps while it follows.
#[derive(Clone, Debug, Hash)]
pub(super) struct Copying {
    /// The highest epoch whose EPOCH record is durable (R3).
    pub(super) epoch_durable: LeaderEpoch,
    /// The epoch's site entry says so: committed records may be cut (R7).
    pub(super) unclean: bool,
    /// The committed ISR names this replica.
    pub(super) in_sync: bool,
    /// A TRUNCATE record is in the disk's queue.
    pub(super) cutting: bool,
    /// R7: not in this epoch any more.
    pub(super) halted: bool,
    /// No question before.
    pub(super) not_before: Instant,
    /// Full answers in a row.
    pub(super) full_answers: u32,
    /// So many of them, and the journal is left: [`CATCH_UP_AFTER`].
    pub(super) patience: u32,
    pub(super) catch_up: Option<CatchUp>,
    /// Bytes that may still be copied without the journal.
    pub(super) budget: u64,
    /// Numbers checkpoints, so that a late report of one is not taken for another's.
    pub(super) marks: u32,
}

/// Copying without the journal: nothing of it is durable before a checkpoint covers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CatchUp {
    /// Copied since the last checkpoint was asked for.
    pub(super) bytes: u64,
    /// A checkpoint under way: its number and what it covers.
    pub(super) asked: Option<(u32, Offset)>,
    /// It is level: nothing is copied until a checkpoint covers all of it, then the journal is used again.
    pub(super) joining: bool,
}

impl Copying {
    pub(super) const fn new(recovered: &Recovered) -> Self {
        Self {
            epoch_durable: recovered.accepted_epoch,
            unclean: false,
            in_sync: false,
            cutting: false,
            halted: false,
            not_before: Instant(0),
            full_answers: 0,
            patience: CATCH_UP_AFTER,
            catch_up: None,
            budget: u64::MAX,
            marks: 0,
        }
    }
}

impl Partition {
    pub(super) fn follow(
        &mut self,
        epoch: LeaderEpoch,
        leader: Option<NodeId>,
        unclean: bool,
        out: &mut Outbox<Effect>,
    ) {
        if !self.disk_up {
            return;
        }
        // A site of one names this node in the epoch that ended with its last run.
        let leader = leader.filter(|leader| *leader != self.me.node);
        if epoch == self.epoch
            && let Role::Following { leader: known } = &mut self.role
        {
            // After a restart the site log names the leader of the epoch that the disk remembers (R3).
            *known = leader;
            self.copying.unclean = unclean;
            if self.copying.epoch_durable < epoch {
                // The disk failed with the record on its way.
                out.push(Effect::Epoch {
                    epoch,
                    start: None,
                    unclean,
                });
            }
        }
        let older = match mutation::is(Mutation::OlderEpochFollowed) {
            true => epoch == self.epoch,
            false => epoch <= self.epoch,
        };
        if older {
            return;
        }
        self.epoch = epoch;
        self.copying.unclean = unclean;
        self.copying.halted = false;
        self.copying.in_sync = false;
        self.copying.not_before = Instant(0);
        // R3: durable before anything is reported in this epoch.
        out.push(Effect::Epoch {
            epoch,
            start: None,
            unclean,
        });
        let refusal = super::Refusal::NotLeader { leader, epoch };
        self.resign(leader, refusal, out);
    }

    /// What this replica wants of its leader at `now`; `None` while there is nobody to ask, or nothing may be said yet.
    #[must_use]
    pub fn ask(&self, now: Instant) -> Option<Ask> {
        let Role::Following {
            leader: Some(leader),
        } = self.role
        else {
            return None;
        };
        let copying = &self.copying;
        let said =
            copying.epoch_durable == self.epoch || mutation::is(Mutation::EpochReportedEarly);
        if !self.disk_up || copying.halted || copying.cutting || !said {
            return None;
        }
        let waits = now < copying.not_before;
        let bytes_max = match copying.catch_up {
            _ if waits => 0,
            None => COPY_BYTES_MAX,
            Some(catch_up) if catch_up.joining => 0,
            Some(_) => {
                let budget = u32::try_from(copying.budget).unwrap_or(u32::MAX);
                COPY_BYTES_MAX.min(budget)
            }
        };
        let durable_off = match mutation::is(Mutation::FetchAcknowledges) {
            true => self.end,
            false => self.durable,
        };
        Some(Ask {
            leader,
            fetch: ReplicaFetch {
                member: self.me,
                epoch: self.epoch,
                fetch_off: self.end,
                durable_off,
                last_epoch: self.last_batch_epoch(),
                log_start: self.log_start,
            },
            bytes_max,
        })
    }

    /// Epoch of the last batch; −1 where the log is empty.
    pub(super) fn last_batch_epoch(&self) -> LeaderEpoch {
        match self.end > self.log_start.max(self.log_start_asked) {
            true => self.epochs.at(self.end.plus(-1)),
            false => LeaderEpoch::NONE,
        }
    }

    /// Everything from `to` on goes, at least where that is not committed as far as this replica knows (R7).
    pub(super) fn cut(&mut self, to: Offset, windows: &mut Windows, out: &mut Outbox<Effect>) {
        let to = to.max(self.log_start_asked);
        if to < self.high_watermark && !self.copying.unclean {
            if mutation::is(Mutation::CommittedCut) {
                self.high_watermark = to;
            } else {
                return self.halt(to, out);
            }
        }
        self.high_watermark = self.high_watermark.min(to);
        self.end = self.end.min(to);
        self.durable = self.durable.min(to);
        self.epochs.cut(to);
        if !mutation::is(Mutation::WindowsKeptInCut) {
            windows.truncate(self.ix, to);
        }
        self.copying.cutting = true;
        out.push(Effect::Truncate { to });
    }

    /// This replica and its leader can't both be right, and records that were committed are at stake.
    fn halt(&mut self, to: Offset, out: &mut Outbox<Effect>) {
        self.copying.halted = true;
        out.push(Effect::Halted {
            end: to,
            high_watermark: self.high_watermark,
        });
    }

    /// The TRUNCATE record is durable, and so is all that it left.
    pub(super) fn truncated(&mut self, end: Offset, out: &mut Outbox<Effect>) {
        if !self.disk_up || !self.copying.cutting {
            return;
        }
        self.copying.cutting = false;
        if end < self.high_watermark {
            // The store cuts at the batch that holds the offset: then the two logs had it in different batches.
            (self.end, self.durable) = (end, end);
            let committed = self.high_watermark;
            self.high_watermark = end;
            self.epochs.cut(end);
            self.copying.halted = true;
            return out.push(Effect::Halted {
                end,
                high_watermark: committed,
            });
        }
        assert!(end <= self.end, "a cut left more than it was to");
        self.end = end;
        if let Role::Starting { start } = &mut self.role {
            *start = end;
        }
        self.was_durable(end);
    }

    /// R10: nothing of this log is in the leader's any more. All goes, and it begins anew at `at`, with whatever the epoch
    /// rows and the producer windows then say.
    pub(super) fn restart_at(
        &mut self,
        at: Offset,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        self.log_start_asked = at;
        (self.end, self.high_watermark) = (at, at);
        windows.remove(self.ix);
        windows.advance(self.ix, at);
        out.push(Effect::LogStart { offset: at });
        // The record that starts a log keeps the epoch before it, which may be one that only this replica knew.
        self.epochs.cut(Offset::ZERO);
        self.copying.cutting = true;
        out.push(Effect::Truncate { to: at });
    }

    /// A checkpoint is durable: it covers what was copied before it was asked for.
    pub(super) fn checkpointed(&mut self, mark: u32, out: &mut Outbox<Effect>) {
        let Some(catch_up) = &mut self.copying.catch_up else {
            return;
        };
        let Some((_, end)) = catch_up.asked.take_if(|asked| asked.0 == mark) else {
            return;
        };
        self.durable = self.durable.max(end);
        match catch_up.joining {
            // The first journaled append comes after this, so the journal has no hole (H38).
            true if end == self.end => {
                (self.copying.catch_up, self.copying.full_answers) = (None, 0)
            }
            true => self.checkpoint(out),
            false => {}
        }
    }

    /// Asks for a checkpoint that covers all there is, unless one is under way.
    pub(super) fn checkpoint(&mut self, out: &mut Outbox<Effect>) {
        if let Some(catch_up) = &mut self.copying.catch_up
            && catch_up.asked.is_none()
        {
            self.copying.marks = self.copying.marks.wrapping_add(1);
            catch_up.asked = Some((self.copying.marks, self.end));
            catch_up.bytes = 0;
            out.push(Effect::Checkpoint {
                mark: self.copying.marks,
            });
        }
    }

    /// When it may be asked again after an answer that was of no use.
    pub(super) fn ask_due(&self) -> Option<Instant> {
        let follows = matches!(self.role, Role::Following { leader: Some(_) });
        let due = self.copying.not_before;
        (follows && self.disk_up && due > Instant(0)).then_some(due)
    }

    /// Level with the leader, in sync, or about to cut: copying without the journal ends.
    pub(super) fn join(&mut self, out: &mut Outbox<Effect>) {
        let Some(catch_up) = &mut self.copying.catch_up else {
            return;
        };
        if mutation::is(Mutation::JoinsUncovered) {
            self.copying.catch_up = None;
            return;
        }
        catch_up.joining = true;
        self.checkpoint(out);
    }
}
