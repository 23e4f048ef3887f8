//! The leader's answers to its followers (R4), and what their questions tell it.
//!
//! This needs no lease: what a follower reports or copies in this epoch is true whoever serves clients, and S1 rests on
//! epochs alone.

use model::window::Windows;
use model::{Instant, LeaderEpoch, Offset};

use super::{Effect, Partition, Refusal, ReplicaBounds, ReplicaFetch, Role};
use crate::Outbox;
use crate::mutation::{self, Mutation};

impl Partition {
    /// A follower has asked. What it reports counts only in this very epoch and as far as its log agrees with this one:
    /// behind that, its durable bytes may be another leader's.
    pub(super) fn replica_asked(
        &mut self,
        now: Instant,
        ask: &ReplicaFetch,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        let Role::Leading { .. } = self.role else {
            return;
        };
        if ask.last_epoch > self.epoch && !mutation::is(Mutation::StaleLeaderStays) {
            // Somebody led after us, and has committed what we don't know.
            let refusal = Refusal::NotLeader {
                leader: None,
                epoch: self.epoch,
            };
            self.resign(None, refusal, out);
            return;
        }
        let ours = ask.epoch == self.epoch || mutation::is(Mutation::AckOfAnyEpoch);
        let agrees = self.parts_at(ask).is_none() || mutation::is(Mutation::AckWhileDiverging);
        if ours && agrees && self.followers.report(now, ask, self.end) {
            self.advance(now, windows, out);
            self.settle_isr(now, out);
        }
    }

    /// What a follower's fetch may be sent now.
    ///
    /// # Errors
    /// [`Refusal::Park`] until this replica leads; NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR; FENCED_LEADER_EPOCH and
    /// UNKNOWN_LEADER_EPOCH, as the epochs must be equal.
    pub fn replica_bounds(&self, ask: &ReplicaFetch) -> Result<ReplicaBounds, Refusal> {
        match self.role {
            _ if !self.disk_up => return Err(Refusal::DiskFailed),
            Role::Following { leader } => {
                return Err(Refusal::NotLeader {
                    leader,
                    epoch: self.epoch,
                });
            }
            _ if ask.epoch < self.epoch => return Err(Refusal::FencedLeaderEpoch),
            _ if ask.epoch > self.epoch => return Err(Refusal::UnknownLeaderEpoch),
            Role::Starting { .. } => return Err(Refusal::Park),
            Role::Leading { .. } => {}
        }
        // What is to go may be gone already, so a follower hears of it before it is durable here: else it would take what is
        // missing for compacted.
        Ok(ReplicaBounds {
            from: ask.fetch_off.max(self.log_start_asked),
            to: self.end,
            high_watermark: self.high_watermark,
            log_start: self.log_start_asked,
            diverging: self.parts_at(ask),
        })
    }

    /// Where the follower's log parts from this one; `None` while all of it is this one's beginning.
    ///
    /// Two logs that have a record of the same epoch at the same offset agree up to it: one leader wrote both.
    fn parts_at(&self, ask: &ReplicaFetch) -> Option<(LeaderEpoch, Offset)> {
        // It drops all it has and begins at our start (R10).
        if ask.fetch_off < self.log_start_asked {
            return None;
        }
        if ask.last_epoch == LeaderEpoch::NONE {
            // An empty log parts from nothing, unless it begins behind our end.
            return (ask.fetch_off > self.end).then_some((self.epochs.at(self.end), self.end));
        }
        let forgotten = self
            .epochs
            .first()
            .is_some_and(|first| ask.last_epoch < first.epoch && first.start > self.log_start);
        if forgotten {
            // So many leaders ago that nothing is known: whatever it holds behind our start is doubted.
            return Some((LeaderEpoch::NONE, self.log_start));
        }
        match self.epochs.end_of(ask.last_epoch, self.end) {
            Some((epoch, end)) if epoch == ask.last_epoch && end >= ask.fetch_off => None,
            Some(parts) => Some(parts),
            // Above all we know; below our epoch it can only have been an epoch that wrote nothing we have.
            None => Some((self.epochs.at(self.end), self.end)),
        }
    }
}
