//! One partition's replica on this node: who may append, at which offset and epoch, when a batch is answered, and what
//! readers may see.
//!
//! It never touches a byte of a batch: the shell keeps bytes under their ticket and performs the effects. It never
//! waits: what waits for time has a [`Partition::deadline`]. R-numbers are the rules of the design's chapter on
//! partitions.

use core::time::Duration;
use std::collections::VecDeque;

use model::window::{PartIx, Windows};
use model::{Instant, LeaderEpoch, NodeId, Offset};

use crate::mutation::{self, Mutation};
use crate::{EFFECTS_MAX, Outbox, Ticket};

mod copy;
mod deletion;
mod epochs;
mod followers;
mod following;
mod handover;
mod insync;
mod membership;
mod office;
mod peers;
mod produce;
mod queries;
mod serve;
#[cfg(test)]
mod tests;
mod types;
mod waiting;

use epochs::Epochs;
use followers::Followers;
pub use followers::{CommitTime, LAG_MAX};
use following::Copying;
pub use following::{ASK_AGAIN, CATCH_UP_CHECKPOINT_BYTES, COPY_BYTES_MAX};
use handover::Handing;
pub use insync::ISR_RETRY;
use insync::InSync;
pub use peers::{Answer, AnswerBody, Ask, CopiedBatch, CopyFault, ReplicaBounds, ReplicaFetch};
pub use queries::{Fetch, FetchBounds, Isolation, ListOffsets, Listed, OffsetSpec};
#[cfg(test)]
pub(crate) use tests::Random;
pub use types::{
    Acks, Effect, EpochStart, Input, Member, Origin, Outcome, Produce, Recovered, Refusal, Settings,
};
use waiting::{Waiter, Waiting};

/// How long a request waits for a lapsed lease (R8): a controller's death is over in 0.75 s, twice that is trouble.
pub const PARK_MAX: Duration = Duration::from_millis(1_500);
/// How long a request waits for a disk before its outcome is called unknown; the batch stays queued.
pub const DISK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Requests parked inside one machine: five in flight of each of 1,600 producers, × 96 B = 768 KiB.
pub const PARKED_MAX: usize = 8 * 1024;
/// Batches that wait for an answer: five in flight of each of 6,500 producers, × 64 B = 2 MiB.
pub const WAITING_MAX: usize = 32 * 1024;
/// Deletions that wait for their LOG_START record, × 24 B = 24 KiB.
const DELETIONS_MAX: usize = 1_024;

const _: () = assert!(
    size_of::<Parked>() <= 96 && size_of::<Waiter>() <= 64 && size_of::<Deletion>() <= 24,
    "the sums above count these bytes"
);
const _: () = assert!(
    WAITING_MAX + PARKED_MAX + 2 * DELETIONS_MAX + 8 <= EFFECTS_MAX,
    "a step may answer all that waits, and begin all deletions that were parked"
);

/// What this replica is in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Every replica starts so, on a site of one as well.
    Following { leader: Option<NodeId> },
    /// Elected; the EPOCH record is not durable yet (R2).
    Starting { start: Offset },
    /// Leads; its first batch of the epoch lies at `start`.
    Leading { start: Offset },
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    since: Instant,
    request: Request,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Produce(Produce),
    DeleteRecords { ticket: Ticket, offset: Offset },
}

impl Request {
    const fn of_coordinator(&self) -> bool {
        matches!(
            self,
            Self::Produce(Produce {
                origin: Origin::Coordinator,
                ..
            })
        )
    }

    const fn ticket(&self) -> Ticket {
        match self {
            Self::Produce(produce) => produce.ticket,
            Self::DeleteRecords { ticket, .. } => *ticket,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Deletion {
    ticket: Ticket,
    offset: Offset,
    accepted: Instant,
}

/// The machine.
///
/// Always `log_start <= high_watermark <= end` and `log_start <= durable <= end`, on a leader `high_watermark <= durable`,
/// and none of the first two ever falls, but for an unclean election.
#[derive(Clone, Debug)]
pub struct Partition {
    ix: PartIx,
    me: Member,
    settings: Settings,
    role: Role,
    disk_up: bool,
    lease_until: Instant,
    /// Durable: what readers are told must not go back over a restart (R10).
    log_start: Offset,
    /// The highest LOG_START in the disk's queue.
    log_start_asked: Offset,
    high_watermark: Offset,
    durable: Offset,
    end: Offset,
    /// No lower epoch is led or followed any more (R2, R3).
    epoch: LeaderEpoch,
    epochs: Epochs,
    isr: InSync,
    followers: Followers,
    copying: Copying,
    handing: Option<Handing>,
    full: bool,
    waiting: Waiting,
    parked: VecDeque<Parked>,
    deletions: Vec<Deletion>,
}

impl Partition {
    /// A replica as its disk holds it, following nobody. `ix` is its number in `windows`, which hold the producers that
    /// recovery found.
    ///
    /// # Panics
    /// If `recovered` is out of order, which the store has checked.
    #[must_use]
    pub fn new(ix: PartIx, me: Member, settings: Settings, recovered: &Recovered) -> Self {
        let mut partition = Self {
            ix,
            me,
            settings,
            role: Role::Following { leader: None },
            disk_up: true,
            lease_until: Instant(0),
            log_start: Offset::ZERO,
            log_start_asked: Offset::ZERO,
            high_watermark: Offset::ZERO,
            durable: Offset::ZERO,
            end: Offset::ZERO,
            epoch: LeaderEpoch::NONE,
            epochs: Epochs::default(),
            isr: InSync::default(),
            followers: Followers::default(),
            copying: Copying::new(recovered),
            handing: None,
            full: false,
            waiting: Waiting::default(),
            parked: VecDeque::new(),
            deletions: Vec::new(),
        };
        partition.load(recovered);
        partition.check();
        partition
    }

    /// Takes one fact at `now` and says what must happen next. Never waits, never fails. `windows` are the node's.
    pub fn step(
        &mut self,
        now: Instant,
        input: Input,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        match input {
            Input::Produce(produce) => self.request(now, Request::Produce(produce), windows, out),
            Input::Durable { end } => self.flushed(now, end, windows, out),
            Input::Lead {
                epoch,
                part_ver,
                isr,
                unclean,
            } => self.lead(epoch, InSync::new(part_ver, isr), unclean, windows, out),
            Input::Follow {
                epoch,
                leader,
                unclean,
            } => self.follow(epoch, leader, unclean, out),
            Input::Isr {
                part_ver,
                committed,
            } => self.isr(now, part_ver, committed, windows, out),
            Input::IsrOutcome {
                epoch,
                part_ver,
                outcome,
            } => self.isr_outcome(now, epoch, part_ver, outcome, out),
            Input::EpochDurable { epoch } => self.epoch_durable(now, epoch, windows, out),
            Input::Lease { until } => {
                self.lease_until = until;
                self.resume(now, windows, out);
            }
            Input::ReplicaFetch(ask) => self.replica_asked(now, &ask, windows, out),
            Input::Answer(answer) => self.answered(now, &answer, windows, out),
            Input::Truncated { end } => self.truncated(end, out),
            Input::Checkpointed { mark } => self.checkpointed(mark, out),
            Input::CatchUpBudget { bytes } => self.copying.budget = bytes,
            Input::CommitTimes(times) => self.commit_times(now, &times, out),
            Input::HandOver { to } => self.hand_over(now, to, out),
            Input::DiskFailed => self.disk_failed(out),
            Input::DiskBack(recovered) => self.disk_back(&recovered, out),
            Input::Retain { offset } => self.retain(now, offset, out),
            Input::DeleteRecords { ticket, offset } => {
                self.request(now, Request::DeleteRecords { ticket, offset }, windows, out);
            }
            Input::LogStartDurable { offset } => self.log_start_durable(now, offset, out),
            Input::Quota { full } => self.full = full,
            Input::Settings(settings) => {
                self.settings = settings;
                self.advance(now, windows, out);
            }
            Input::Tick => self.tick(now, windows, out),
        }
        self.check();
    }

    /// When [`Input::Tick`] is due at the latest; `None` while nothing waits for time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let parked = self.parked.front().map(|parked| parked.since + PARK_MAX);
        let deletion = self
            .deletions
            .first()
            .map(|deletion| deletion.accepted + DISK_WAIT_MAX);
        let lapse = (!self.waiting.is_empty() || !self.deletions.is_empty())
            .then(|| self.lease_until + PARK_MAX);
        let others = [self.isr_due(), self.ask_due(), self.handing_due()];
        [parked, deletion, lapse, self.waiting.due()]
            .into_iter()
            .chain(others)
            .flatten()
            .min()
    }

    /// Whether requests that need the leader may be served at `now` (R8).
    fn serving(&self, now: Instant) -> Result<(), Refusal> {
        match self.role {
            _ if !self.disk_up => Err(Refusal::DiskFailed),
            Role::Following { leader } => Err(Refusal::NotLeader {
                leader,
                epoch: self.epoch,
            }),
            Role::Leading { .. } if now < self.lease_until => Ok(()),
            Role::Leading { .. } if mutation::is(Mutation::LeaseIgnored) => Ok(()),
            Role::Starting { .. } | Role::Leading { .. } => Err(Refusal::Park),
        }
    }

    fn request(
        &mut self,
        now: Instant,
        request: Request,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        // A leader that is about to be moved takes nothing new: it would only be late.
        let serving = match self.handing {
            Some(_) => self.serving(now).and(Err(Refusal::Park)),
            None => self.serving(now),
        };
        match serving {
            Ok(()) => self.serve(now, request, windows, out),
            Err(Refusal::Park) if self.parked.len() < PARKED_MAX => {
                self.parked.push_back(Parked {
                    since: now,
                    request,
                });
                out.push(Effect::Park {
                    ticket: request.ticket(),
                });
            }
            Err(Refusal::Park) => refuse(request.ticket(), Refusal::Crowded, out),
            Err(refusal) => refuse(request.ticket(), refusal, out),
        }
    }

    fn serve(
        &mut self,
        now: Instant,
        request: Request,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        let served = match request {
            Request::Produce(produce) => self.produce(now, &produce, windows, out),
            Request::DeleteRecords { ticket, offset } => {
                self.delete_records(now, ticket, offset, out)
            }
        };
        if let Err(refusal) = served {
            refuse(request.ticket(), refusal, out);
        }
    }

    /// Answers what is done, if the lease still holds just now (R8).
    fn answer(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if self.serving(now).is_err() {
            return;
        }
        while let Some(waiter) = self.waiting.pop(self.durable, self.high_watermark) {
            self.reply_stored(&waiter, out);
        }
        self.answer_deletions(now, out);
    }

    /// Serves what was parked, in order, and answers what became answerable meanwhile.
    fn resume(&mut self, now: Instant, windows: &mut Windows, out: &mut Outbox<Effect>) {
        if self.serving(now).is_err() {
            return;
        }
        self.answer(now, out);
        if self.handing.is_some() {
            return;
        }
        while let Some(parked) = self.parked.pop_front() {
            self.serve(now, parked.request, windows, out);
        }
    }

    fn tick(&mut self, now: Instant, windows: &mut Windows, out: &mut Outbox<Effect>) {
        let gone = Refusal::NotLeader {
            leader: None,
            epoch: self.epoch,
        };
        while self
            .parked
            .front()
            .is_some_and(|parked| now >= parked.since + PARK_MAX)
        {
            let parked = self.parked.pop_front().expect("seen above");
            refuse(parked.request.ticket(), gone, out);
        }
        if now >= self.lease_until + PARK_MAX {
            self.refuse_waiting(gone, out);
        }
        self.waiting.expire(now, self.durable, |ticket| {
            refuse(ticket, Refusal::TimedOut, out)
        });
        self.deletions.retain(|deletion| {
            let waits = now < deletion.accepted + DISK_WAIT_MAX;
            if !waits {
                refuse(deletion.ticket, Refusal::TimedOut, out);
            }
            waits
        });
        if now >= self.copying.not_before {
            self.copying.not_before = Instant(0);
        }
        self.settle_isr(now, out);
        if self.handing_due().is_some_and(|due| now >= due) {
            self.handing = None;
            self.resume(now, windows, out);
        }
    }

    fn check(&self) {
        assert!(
            self.log_start <= self.high_watermark
                && self.high_watermark <= self.end
                && self.log_start <= self.durable
                && self.durable <= self.end,
            "log_start <= high_watermark <= end, log_start <= durable <= end: {self:?}"
        );
        assert!(
            !matches!(self.role, Role::Leading { .. }) || self.high_watermark <= self.durable,
            "a leader has what is committed: {self:?}"
        );
        assert!(
            self.log_start <= self.log_start_asked && self.log_start_asked <= self.high_watermark,
            "log_start is asked for below the high watermark only: {self:?}"
        );
        let leads = matches!(self.role, Role::Leading { .. } | Role::Starting { .. });
        assert!(
            leads
                || (self.waiting.is_empty() && self.parked.is_empty() && self.deletions.is_empty()),
            "nobody waits for a follower: {self:?}"
        );
        assert!(
            !leads || self.isr.committed().contains(&self.me),
            "a leader is in its own ISR: {self:?}"
        );
    }
}

fn refuse(ticket: Ticket, refusal: Refusal, out: &mut Outbox<Effect>) {
    out.push(Effect::Reply {
        ticket,
        outcome: Outcome::Refused(refusal),
    });
}
