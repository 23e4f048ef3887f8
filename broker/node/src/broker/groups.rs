//! The coordinator's batches on their way to the internal partitions.

use core::time::Duration;

use model::batch::Codec;
use model::record::{Builder, Pair, Producer};
use model::{Instant, LeaderEpoch, Offset, WallMs};

use super::{Broker, Effect, OWN, coordinator, partition};
use crate::coordinator::{AppendFailure, AppendId, Record};
use crate::partition::{Acks, Origin, Outcome, Produce, Refusal};
use crate::{Outbox, Ticket};

/// Kafka's `offsets.commit.timeout.ms`: how long a record of groups waits for replicas.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

impl Broker {
    pub(super) fn step_coordinator(
        &mut self,
        now: Instant,
        input: coordinator::Input,
        out: &mut Outbox<Effect>,
    ) {
        let mut effects = std::mem::take(&mut self.outs.coordinator);
        self.coordinator.step(now, input, &mut effects);
        for effect in effects.drain() {
            match effect {
                coordinator::Effect::Append {
                    partition,
                    epoch,
                    append,
                    records,
                } => self.append(now, (partition, epoch), append, &records, out),
                coordinator::Effect::Reply { ticket, reply } => {
                    out.push(Effect::Group { ticket, reply });
                }
            }
        }
        self.outs.coordinator = effects;
    }

    fn append(
        &mut self,
        now: Instant,
        (partition, epoch): (u32, LeaderEpoch),
        append: AppendId,
        records: &[Record],
        out: &mut Outbox<Effect>,
    ) {
        let internal = self.replicas.iter().find(|(at, replica)| {
            replica.internal == Some(partition) && self.replicas.of(replica.id) == Some(*at)
        });
        let leads = internal.filter(|(_, replica)| {
            replica.machine.epoch() == epoch && replica.machine.leading_since().is_some()
        });
        let Some((at, _)) = leads else {
            let failure = AppendFailure::NotLeader;
            return self.coordinate(coordinator::Input::AppendFailed {
                partition,
                append,
                failure,
            });
        };
        let time = self.wall(now);
        let bytes = batch_of(records, time);
        let ticket = self.draw();
        self.appends.insert(ticket, (partition, append));
        let produce = Produce {
            ticket,
            origin: Origin::Coordinator,
            acks: Acks::All,
            timeout: COMMIT_WAIT,
            last_offset_delta: i32::try_from(records.len()).expect("a batch is at most 1 MiB") - 1,
            bytes: u32::try_from(bytes.len()).expect("a batch is at most 1 MiB"),
            claim: None,
            max_ts: time,
            attributes: 0,
        };
        out.push(Effect::Batch { ticket, bytes });
        // At once and not in line: what stands there may begin another epoch.
        self.step_partition(now, at, partition::Input::Produce(produce), out);
    }

    /// A ticket of the broker's own.
    fn draw(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(OWN | self.tickets)
    }

    /// A batch of the coordinator's has its place in the log.
    pub(super) fn placed(&mut self, ticket: Ticket, base_offset: Offset) {
        if let Some((partition, append)) = self.appends.get(&ticket).copied() {
            self.coordinate(coordinator::Input::Appended {
                partition,
                append,
                base_offset,
            });
        }
    }

    /// What became of a batch of the coordinator's. That it is stored the high watermark has said.
    pub(super) fn append_ended(&mut self, ticket: Ticket, outcome: &Outcome) {
        let Some((partition, append)) = self.appends.remove(&ticket) else {
            return;
        };
        if let Some(failure) = failure_of(outcome) {
            self.coordinate(coordinator::Input::AppendFailed {
                partition,
                append,
                failure,
            });
        }
    }
}

fn failure_of(outcome: &Outcome) -> Option<AppendFailure> {
    match outcome {
        Outcome::Stored { .. } => None,
        Outcome::Refused(Refusal::NotLeader { .. } | Refusal::DiskFailed) => {
            Some(AppendFailure::NotLeader)
        }
        Outcome::Refused(_) => Some(AppendFailure::Unavailable),
        Outcome::Deleted { .. } => unreachable!("a produce deletes nothing"),
    }
}

/// The batch of `__consumer_offsets` that records of the coordinator become.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn batch_of(records: &[Record], WallMs(time): WallMs) -> Vec<u8> {
    let mut builder = Builder::default();
    for record in records {
        builder.push(
            time,
            Some(&record.key),
            record.value.as_deref(),
            std::iter::empty::<Pair<'_>>(),
        );
    }
    builder
        .finish(Codec::None, Producer::NONE)
        .expect("nothing is compressed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_told_to_the_coordinator() {
        let stored = Outcome::Stored {
            base_offset: Offset(1),
            log_start: Offset(0),
            timestamp: WallMs(0),
        };
        assert_eq!(failure_of(&stored), None);
        let failure = |refusal| failure_of(&Outcome::Refused(refusal));
        let gone = Refusal::NotLeader {
            leader: None,
            epoch: LeaderEpoch(2),
        };
        for refusal in [gone, Refusal::DiskFailed] {
            assert_eq!(failure(refusal), Some(AppendFailure::NotLeader));
        }
        for refusal in [
            Refusal::TimedOut,
            Refusal::NotEnoughReplicas,
            Refusal::NotEnoughReplicasAfterAppend,
            Refusal::Crowded,
        ] {
            assert_eq!(failure(refusal), Some(AppendFailure::Unavailable));
        }
    }
}
