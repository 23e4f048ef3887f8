//! A disk's compaction on its way between the disk's two threads.
//!
//! The core orders one at a time. The writer thread plans it, lends the compactor to the reader thread for what is to be
//! read, and writes what was kept, piece by piece between groups; the swap of extents is an operation like any other.
//! Nothing here decides when. What fails with the disk is forgotten: the disk's recovery frees what was reserved.

use std::sync::Arc;

use model::Offset;
use node::broker::ReplicaIx;
use store::compact::{Cleaned, CompactError, CompactionSettings, Compactor, KeyMap, Wants};
use store::{Disk, DiskError, LinuxIo, Op, Outcome, PartIx, View};

use super::Shared;
use super::reader::{GROUPS_PER_TURN, Turns};
use crate::clock;

/// What the core wants compacted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Order {
    /// Its number in the core.
    pub(crate) replica: ReplicaIx,
    pub(crate) part: PartIx,
    /// Extents that reach it stay.
    pub(crate) bound: Offset,
    pub(crate) settings: CompactionSettings,
    /// What its last compaction reported.
    pub(crate) cleaned_to: Option<Offset>,
}

/// What became of an [`Order`].
#[derive(Clone, Debug)]
pub(crate) struct Compacted {
    pub(crate) replica: ReplicaIx,
    pub(crate) part: PartIx,
    /// None: there was nothing worth it.
    pub(crate) cleaned: Option<Cleaned>,
    pub(crate) ending: Ending,
}

/// How a compaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As planned, or for want of room.
    Whole,
    /// The log lost extents meanwhile, by retention or a deletion.
    Overtaken,
    /// Something in use can't be read.
    Trouble(String),
}

/// What waits for the writer thread beside operations.
#[derive(Default)]
pub(super) struct Inbox {
    order: Option<Order>,
    back: Option<Back>,
}

/// What the reader thread gives back.
struct Back {
    compactor: Box<Compactor<LinuxIo>>,
    read: Result<(), CompactError>,
}

/// A compactor while the reader thread has it. If it is dropped unread, the disk has failed.
pub(super) struct Lent {
    compactor: Box<Compactor<LinuxIo>>,
    writer: Arc<Shared>,
}

/// The writer thread's part.
#[derive(Default)]
pub(super) struct Driver {
    /// Made with the first compaction and kept for the next.
    keys: Option<KeyMap>,
    job: Option<Job>,
    order: Option<Order>,
    /// Groups written when the last piece was.
    groups: u64,
}

struct Job {
    order: Order,
    ending: Ending,
    /// Why the last turn read nothing more.
    unread: Option<CompactError>,
    place: Place,
}

/// Where the compactor is.
enum Place {
    Here(Box<Compactor<LinuxIo>>),
    /// With the reader thread, or between two places.
    Lent,
    /// Here, while its swap is in the queue.
    Swapping(Box<Compactor<LinuxIo>>),
}

/// What the writer thread does next for it.
pub(super) enum Step {
    /// Nothing now.
    Rest,
    /// A piece; there may be more.
    Wrote,
    /// The operation is to be queued; its outcome goes to [`Driver::swapped`].
    Swap(Op),
    /// It is over.
    Over(Compacted),
}

/// What the writer thread knows when it takes a step.
pub(super) struct Moment<'a> {
    /// Operations wait.
    pub(super) waiting: bool,
    /// Groups written since the start.
    pub(super) groups: u64,
    pub(super) turns: &'a Turns,
    pub(super) shared: &'a Arc<Shared>,
}

impl Inbox {
    pub(super) fn order(&mut self, order: Order) {
        self.order = Some(order);
    }
}

impl Lent {
    pub(super) fn part(&self) -> PartIx {
        self.compactor.part()
    }

    /// Reads one piece, and gives the compactor back. That is a quarter of a turn's bytes, since they are unpacked, hashed
    /// and packed again meanwhile, and the next group may wait for the end of it.
    pub(super) fn turn(mut self, view: &View<LinuxIo>) {
        let read = view.compact(&mut self.compactor);
        let Self { compactor, writer } = self;
        let mut pending = writer.lock();
        pending.compaction.back = Some(Back { compactor, read });
        writer.wake(pending);
    }
}

impl Driver {
    /// Takes what came in.
    pub(super) fn take(&mut self, inbox: &mut Inbox) {
        if let Some(order) = inbox.order.take() {
            self.order = Some(order);
        }
        let back = inbox.back.take();
        if let (Some(job), Some(Back { compactor, read })) = (&mut self.job, back) {
            job.place = Place::Here(compactor);
            job.unread = read.err();
        }
    }

    /// Whether [`Driver::step`] may have something to do.
    pub(super) fn ready(&self) -> bool {
        match &self.job {
            Some(job) => matches!(job.place, Place::Here(_)),
            None => self.order.is_some(),
        }
    }

    /// Does one piece of the writer thread's work, at most one in three of the `groups` written while some wait.
    pub(super) fn step(
        &mut self,
        disk: &mut Disk<LinuxIo>,
        at: &Moment<'_>,
    ) -> Result<Step, DiskError> {
        if self.job.is_none() {
            let Some(order) = self.order.take() else {
                return Ok(Step::Rest);
            };
            return Ok(self.begin(disk, order, at));
        }
        let Some(job) = self.job.as_mut() else {
            return Ok(Step::Rest);
        };
        let Place::Here(mut compactor) = std::mem::replace(&mut job.place, Place::Lent) else {
            unreachable!("the caller asked whether it is ready");
        };
        if let Some(error) = job.unread.take() {
            // What was let go meanwhile may be anything, or not be there.
            job.ending = match disk.holds(&compactor) {
                true => Ending::Trouble(error.to_string()),
                false => Ending::Overtaken,
            };
        }
        match compactor.wants() {
            Wants::Read => at.turns.lend(Lent {
                compactor,
                writer: at.shared.clone(),
            }),
            Wants::Write => {
                let paced = at.waiting && at.groups < self.groups + GROUPS_PER_TURN;
                let written = match paced {
                    true => Ok(Step::Rest),
                    false => disk.compact(&mut compactor).map(|()| Step::Wrote),
                };
                job.place = Place::Here(compactor);
                if matches!(written, Ok(Step::Wrote)) {
                    self.groups = at.groups;
                }
                return written;
            }
            Wants::Swap => {
                let swap = compactor.swap();
                job.place = Place::Swapping(compactor);
                return Ok(Step::Swap(swap));
            }
            Wants::Nothing => return Ok(self.finish(*compactor)),
        }
        Ok(Step::Rest)
    }

    fn begin(&mut self, disk: &Disk<LinuxIo>, order: Order, at: &Moment<'_>) -> Step {
        let Order {
            replica,
            part,
            bound,
            settings,
            cleaned_to,
        } = order;
        let now = clock::trusted(at.shared.clock);
        let Some(plan) = disk.compaction(part, bound, &settings, now, cleaned_to) else {
            return Step::Over(Compacted {
                replica,
                part,
                cleaned: None,
                ending: Ending::Whole,
            });
        };
        let keys = self.keys.take().unwrap_or_default();
        self.job = Some(Job {
            order,
            ending: Ending::Whole,
            unread: None,
            place: Place::Here(Box::new(Compactor::new(plan, keys))),
        });
        Step::Wrote
    }

    fn finish(&mut self, compactor: Compactor<LinuxIo>) -> Step {
        let Job { order, ending, .. } = self.job.take().expect("the caller looked");
        let (cleaned, keys) = compactor.finish();
        self.keys = Some(keys);
        Step::Over(Compacted {
            replica: order.replica,
            part: order.part,
            cleaned: Some(cleaned),
            ending,
        })
    }

    /// What became of the swap that was queued.
    pub(super) fn swapped(&mut self, outcome: Outcome) {
        let Some(job) = &mut self.job else {
            return;
        };
        if let Place::Swapping(mut compactor) = std::mem::replace(&mut job.place, Place::Lent) {
            compactor.swapped(outcome);
            if outcome != Outcome::Done {
                job.ending = Ending::Overtaken;
            }
            job.place = Place::Here(compactor);
        }
    }

    /// The disk failed.
    pub(super) fn forget(&mut self) {
        self.job = None;
        self.order = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
