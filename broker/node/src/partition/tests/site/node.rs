//! One broker of the play: a real machine over a disk that loses whatever was not flushed.

use std::collections::{BTreeMap, VecDeque};

use model::window::{Claim, Fact, Windows};
use model::{ProducerEpoch, WallMs};

use super::*;

/// A batch, as one may find it again on any disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Entry {
    pub(in super::super) base: Offset,
    pub(in super::super) count: i32,
    pub(in super::super) epoch: LeaderEpoch,
    /// Of an idempotent producer: who, and its sequence.
    pub(in super::super) pid: Option<(ProducerId, i32)>,
    /// No two batches that were ever accepted are the same.
    pub(in super::super) id: u64,
}

impl Entry {
    pub(in super::super) fn end(&self) -> Offset {
        self.base.plus(i64::from(self.count))
    }

    pub(in super::super) fn claim(&self) -> Option<Claim> {
        self.pid.map(|(pid, first_seq)| Claim {
            pid,
            epoch: ProducerEpoch(0),
            first_seq,
            last_delta: self.count - 1,
        })
    }

    fn fact(&self) -> Option<Fact> {
        Some(Fact {
            base_offset: self.base,
            claim: self.claim()?,
            max_ts: WallMs(0),
            transactional: false,
            marker: None,
        })
    }

    pub(in super::super) fn copied(&self) -> CopiedBatch {
        CopiedBatch {
            base_offset: self.base,
            last_offset_delta: self.count - 1,
            leader_epoch: self.epoch,
            bytes: 1_000,
            fact: self.fact(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Op {
    Append(Vec<Entry>, Offset),
    /// Into the extents alone.
    Write(Vec<Entry>),
    Epoch(LeaderEpoch, Option<Offset>),
    LogStart(Offset),
    Truncate(Offset),
    Checkpoint(u32),
}

/// What survives, what is on its way, and what readers see.
#[derive(Clone, Debug, Hash)]
pub(in super::super) struct SimDisk {
    queue: VecDeque<Op>,
    /// Written beside the journal.
    beside: Vec<Entry>,
    pub(in super::super) log: Vec<Entry>,
    pub(in super::super) kept: Recovered,
    /// All that was queued, as the page cache shows it.
    pub(in super::super) view: Vec<Entry>,
}

impl SimDisk {
    pub(in super::super) fn blank() -> Self {
        Self {
            queue: VecDeque::new(),
            beside: Vec::new(),
            log: Vec::new(),
            kept: Recovered {
                log_start: Offset::ZERO,
                end: Offset::ZERO,
                high_watermark: Offset::ZERO,
                accepted_epoch: LeaderEpoch::NONE,
                epochs: Vec::new(),
            },
            view: Vec::new(),
        }
    }

    pub(in super::super) fn windows(&self) -> Windows {
        let mut windows = Windows::default();
        for fact in self.log.iter().filter_map(Entry::fact) {
            windows.feed(PART, &fact);
        }
        windows.advance(PART, self.kept.high_watermark);
        windows
    }

    /// Whatever was not flushed is lost.
    pub(in super::super) fn lose(&mut self) {
        self.queue.clear();
        self.beside.clear();
        self.view = self.log.clone();
    }

    pub(in super::super) fn busy(&self) -> bool {
        !self.queue.is_empty()
    }

    fn hold(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            assert!(entry.base >= self.kept.end, "an append overlaps: {entry:?}");
            let newest = self.kept.epochs.last().map(|row| row.epoch);
            assert!(
                newest.is_none_or(|newest| entry.epoch >= newest),
                "a batch of {:?} behind one of {newest:?}",
                entry.epoch
            );
            if newest != Some(entry.epoch) {
                self.begin(entry.epoch, entry.base);
            }
            self.kept.end = entry.end();
            self.log.push(entry);
        }
    }

    fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        self.kept.epochs.retain(|row| row.start < start);
        self.kept.epochs.push(EpochStart { epoch, start });
    }

    /// The next thing in the queue reaches the medium; what the machine is told.
    pub(in super::super) fn flush(&mut self) -> Option<Input> {
        Some(match self.queue.pop_front()? {
            Op::Append(entries, hw) => {
                assert!(self.beside.is_empty(), "a hole in the journal (H38)");
                self.hold(entries);
                self.kept.high_watermark = self.kept.high_watermark.max(hw).min(self.kept.end);
                Input::Durable { end: self.kept.end }
            }
            Op::Write(entries) => {
                self.beside.extend(entries);
                return None;
            }
            Op::Epoch(epoch, start) => {
                assert!(
                    epoch > self.kept.accepted_epoch,
                    "an epoch is accepted again"
                );
                self.kept.accepted_epoch = epoch;
                if let Some(start) = start {
                    assert_eq!(start, self.kept.end, "an epoch starts elsewhere");
                    self.begin(epoch, start);
                }
                Input::EpochDurable { epoch }
            }
            Op::LogStart(offset) => {
                assert!(offset > self.kept.log_start, "a log start goes back");
                self.kept.log_start = offset;
                self.kept.high_watermark = self.kept.high_watermark.max(offset);
                if offset > self.kept.end {
                    self.kept.end = offset;
                    self.log.clear();
                }
                self.log.retain(|entry| entry.end() > offset);
                Input::LogStartDurable { offset }
            }
            Op::Truncate(to) => {
                assert!(
                    self.beside.is_empty() || to <= self.kept.end,
                    "the journal does not know what is cut"
                );
                self.beside.clear();
                self.log.retain(|entry| entry.end() <= to);
                self.kept.end = self.kept.end.min(to);
                self.kept.high_watermark = self.kept.high_watermark.min(to);
                self.kept.epochs.retain(|row| row.start < to);
                Input::Truncated { end: self.kept.end }
            }
            Op::Checkpoint(mark) => {
                let beside = std::mem::take(&mut self.beside);
                self.hold(beside);
                Input::Checkpointed { mark }
            }
        })
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(in super::super) struct Node {
    pub(in super::super) member: Member,
    pub(in super::super) machine: Partition,
    pub(in super::super) windows: Windows,
    pub(in super::super) disk: SimDisk,
    pub(in super::super) up: bool,
    pub(in super::super) disk_up: bool,
    /// Entries of the site log that it has applied.
    pub(in super::super) applied: usize,
    /// Batches by ticket, until they are appended or refused.
    pub(in super::super) payloads: BTreeMap<Ticket, Entry>,
    /// Of the answer being told.
    copies: Vec<Entry>,
    seen: (Offset, Offset),
}

impl Node {
    pub(in super::super) fn new(member: Member, settings: Settings) -> Self {
        let disk = SimDisk::blank();
        Self {
            member,
            machine: Partition::new(PART, member, settings, &disk.kept),
            windows: Windows::default(),
            disk,
            up: true,
            disk_up: true,
            applied: 0,
            payloads: BTreeMap::new(),
            copies: Vec::new(),
            seen: (Offset::ZERO, Offset::ZERO),
        }
    }

    /// The process begins again over what its disk holds.
    pub(in super::super) fn start(&mut self, settings: Settings, now: Instant) {
        self.disk.lose();
        self.payloads.clear();
        self.windows = self.disk.windows();
        self.machine = Partition::new(PART, self.member, settings, &self.disk.kept);
        (self.up, self.disk_up) = (true, true);
        self.seen = (self.disk.kept.log_start, self.disk.kept.high_watermark);
        self.watch();
        let until = now + Duration::from_secs(1_000_000);
        self.tell(now, Input::Lease { until });
    }

    fn watch(&mut self) {
        let seen = (self.machine.log_start, self.machine.high_watermark);
        assert!(seen.0 >= self.seen.0, "the log start fell");
        assert!(seen.1 >= self.seen.1, "the high watermark fell");
        self.seen = seen;
    }

    pub(in super::super) fn fail_disk(&mut self, now: Instant) -> Vec<Effect> {
        self.disk.lose();
        self.disk_up = false;
        self.seen.1 = self.seen.1.min(self.machine.durable);
        self.tell(now, Input::DiskFailed)
    }

    pub(in super::super) fn mend_disk(&mut self, now: Instant) -> Vec<Effect> {
        self.disk_up = true;
        self.windows = self.disk.windows();
        self.tell(now, Input::DiskBack(Box::new(self.disk.kept.clone())))
    }

    pub(in super::super) fn answer(
        &mut self,
        now: Instant,
        answer: Answer,
        copies: Vec<Entry>,
    ) -> Vec<Effect> {
        self.copies = copies;
        self.tell(now, Input::Answer(Box::new(answer)))
    }

    pub(in super::super) fn flush(&mut self, now: Instant) -> Vec<Effect> {
        let told = self.disk.flush();
        told.map_or_else(Vec::new, |input| self.tell(now, input))
    }

    /// Tells the machine a fact and queues what is for the disk.
    pub(in super::super) fn tell(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        if self.machine.copying.catch_up.is_some() && matches!(input, Input::Lead { .. }) {
            // Out of sync it may know of more than it has durable; elected from within the ISR it has all of it.
            self.seen.1 = self.seen.1.min(self.machine.durable);
        }
        let mut out = Outbox::new();
        self.machine.step(now, input, &mut self.windows, &mut out);
        let effects: Vec<Effect> = out.drain().collect();
        for effect in &effects {
            self.perform(effect);
        }
        self.watch();
        effects
    }

    fn perform(&mut self, effect: &Effect) {
        let disk = &mut self.disk;
        match *effect {
            Effect::Append {
                ticket,
                base_offset,
                leader_epoch,
                high_watermark,
            } => {
                let mut entry = self.payloads[&ticket];
                (entry.base, entry.epoch) = (base_offset, leader_epoch);
                disk.view.push(entry);
                disk.queue
                    .push_back(Op::Append(vec![entry], high_watermark));
            }
            Effect::Copy {
                first,
                count,
                high_watermark,
                journaled,
                ..
            } => {
                let entries = self.copies[first as usize..(first + count) as usize].to_vec();
                disk.view.extend(&entries);
                disk.queue.push_back(match journaled {
                    true => Op::Append(entries, high_watermark),
                    false => Op::Write(entries),
                });
            }
            Effect::Epoch { epoch, start, .. } => disk.queue.push_back(Op::Epoch(epoch, start)),
            Effect::LogStart { offset } => {
                disk.view.retain(|entry| entry.end() > offset);
                disk.queue.push_back(Op::LogStart(offset));
            }
            Effect::Truncate { to } => {
                disk.view.retain(|entry| entry.end() <= to);
                disk.queue.push_back(Op::Truncate(to));
            }
            Effect::Checkpoint { mark } => disk.queue.push_back(Op::Checkpoint(mark)),
            Effect::Reply { ticket, .. } => drop(self.payloads.remove(&ticket)),
            _ => {}
        }
    }
}
