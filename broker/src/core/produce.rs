//! Batches on their way from a request to their partitions, and outcomes on their way back.

use std::rc::Rc;

use bytes::Bytes;
use node::Ticket;
use node::partition::{Input, Outcome, Produce, Refusal};

use super::{Core, Inner, Owner};
use crate::core::topics::{Topic, TopicInfo};
use crate::dispatch::produce::{Fault, Job};

/// One produce request while its batches are offered.
pub(crate) struct Producing<'a> {
    core: &'a Rc<Core>,
    inner: std::cell::RefMut<'a, Inner>,
    job: usize,
}

impl Core {
    /// Opens a job; its batches are offered one after the other, then it is ended.
    pub(crate) fn begin_produce(self: &Rc<Self>, job: Job) -> Producing<'_> {
        let mut inner = self.inner.borrow_mut();
        let job = inner.jobs.insert(job);
        Producing {
            core: self,
            inner,
            job,
        }
    }
}

impl Producing<'_> {
    /// The topic of this name, as requests see it.
    pub(crate) fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.inner.topics_by_name.get(name).cloned()
    }

    /// Draws the ticket of the batch at `at`.
    pub(crate) fn ticket(&mut self, at: usize) -> Ticket {
        Ticket(
            self.inner
                .tickets
                .insert(Owner::Produce { job: self.job, at }) as u64,
        )
    }

    /// Offers a checked batch to its partition.
    pub(crate) fn offer(&mut self, topic: &Topic, index: i32, produce: Produce, batch: Bytes) {
        match topic
            .partition(index)
            .and_then(|partition| partition.replica)
        {
            Some(replica) => {
                self.inner.payloads.insert(produce.ticket, batch);
                self.inner.tell(replica, Input::Produce(produce));
            }
            None => {
                let partition = topic.partition(index);
                let (leader, epoch) =
                    partition.map_or((None, model::LeaderEpoch::NONE), |it| (it.leader, it.epoch));
                self.inner.settle(
                    produce.ticket,
                    &Outcome::Refused(Refusal::NotLeader { leader, epoch }),
                    false,
                );
            }
        }
    }

    /// Refuses a batch that no partition should see.
    pub(crate) fn refuse(&mut self, at: usize, fault: Fault) {
        if self.inner.jobs[self.job].settle_fault(at, fault) {
            self.inner.jobs.remove(self.job);
        }
    }

    /// All batches were offered.
    pub(crate) fn end(mut self) {
        if self.inner.jobs[self.job].offered() {
            self.inner.jobs.remove(self.job);
        }
        self.inner.perform(self.core);
    }
}
