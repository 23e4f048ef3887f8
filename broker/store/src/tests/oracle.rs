//! What a disk must hold, by the simplest means: every operation applied to plain lists.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::batch::{self, Header};
use model::window::{Fact, Windows};
use model::{LeaderEpoch, NodeId, Offset, Term, TopicPartition, WallMs};

use crate::{Op, PartIx, Replica};

/// One replica's log.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) id: TopicPartition,
    pub(super) start: Offset,
    pub(super) end: Offset,
    pub(super) hw: Offset,
    pub(super) accepted: LeaderEpoch,
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    /// By base offset, as stamped; cheap to clone, for states are kept from before each group.
    pub(super) batches: BTreeMap<i64, Bytes>,
}

/// All that a disk holds.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) logs: BTreeMap<PartIx, Log>,
    pub(super) windows: Windows,
    pub(super) hard_state: (Term, Option<NodeId>),
    pub(super) entries: BTreeMap<u64, (Term, Vec<u8>)>,
    pub(super) next_part: u32,
}

impl std::fmt::Debug for State {
    /// A failed `unwrap` says that the disk failed, not all that it held.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the disk failed; {} replicas", self.logs.len())
    }
}

impl Log {
    fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        self.epochs.retain(|last| last.1 < start && last.0 < epoch);
        self.epochs.push((epoch, start));
    }

    /// Bases at which the log may be cut, its end among them.
    pub(super) fn cuts(&self) -> Vec<Offset> {
        let bases = self.batches.keys().map(|base| Offset(*base));
        bases
            .chain([self.end])
            .filter(|at| *at >= self.hw && *at >= self.start)
            .collect()
    }
}

impl State {
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::PartNew { part, id } => {
                let log = Log {
                    id: *id,
                    ..Log::default()
                };
                self.logs.insert(*part, log);
                self.next_part = part.0 + 1;
            }
            Op::PartDel { part } => {
                self.logs.remove(part);
                self.windows.remove(*part);
            }
            Op::Append(append) => {
                let Some(log) = self.logs.get_mut(&append.part) else {
                    return;
                };
                let (mut at, mut base) = (0, append.base_offset);
                while at < append.batch.len() {
                    let len = Header::read(&append.batch[at..]).expect("a batch").bytes;
                    let mut bytes = append.batch[at..at + len].to_vec();
                    batch::stamp(&mut bytes, base, append.leader_epoch);
                    if let Some(now) = append.append_time {
                        batch::stamp_append_time(&mut bytes, now);
                    }
                    let header = Header::check(&bytes).expect("still whole");
                    if log
                        .epochs
                        .last()
                        .is_none_or(|last| last.0 < append.leader_epoch)
                    {
                        log.begin(append.leader_epoch, base);
                    }
                    if let Ok(Some(fact)) = Fact::of(&header, &bytes[61..]) {
                        self.windows.feed(append.part, &fact);
                    }
                    log.batches.insert(base.0, bytes.into());
                    base = header.next_offset();
                    at += len;
                }
                log.end = base;
                log.hw = log.hw.max(append.hw).min(base);
                self.windows.advance(append.part, log.hw);
            }
            Op::Epoch {
                part, epoch, start, ..
            } => {
                if let Some(log) = self.logs.get_mut(part) {
                    log.accepted = *epoch;
                    if let Some(start) = start {
                        log.begin(*epoch, *start);
                    }
                }
            }
            Op::Truncate { part, to } => {
                if let Some(log) = self.logs.get_mut(part) {
                    let to = (*to).min(log.end).max(log.start);
                    log.batches.retain(|base, _| *base < to.0);
                    log.epochs.retain(|row| row.1 < to);
                    log.end = to;
                    log.hw = log.hw.min(to);
                    self.windows.truncate(*part, to);
                }
            }
            Op::LogStart { part, offset } => {
                if let Some(log) = self.logs.get_mut(part) {
                    log.start = log.start.max(*offset);
                    if *offset > log.end {
                        log.batches.clear();
                    }
                    log.end = log.end.max(log.start);
                    log.hw = log.hw.max(log.start);
                    let below = log.epochs.partition_point(|row| row.1 <= log.start);
                    if below > 0 {
                        log.epochs.drain(..below - 1);
                        log.epochs[0].1 = log.start;
                    }
                }
            }
            Op::HardState { term, vote } => self.hard_state = (*term, *vote),
            Op::SiteEntry { index, term, bytes } => {
                self.entries.retain(|at, _| at < index);
                self.entries.insert(*index, (*term, bytes.to_vec()));
            }
            Op::SiteSnapshot { .. }
            | Op::Settings { .. }
            | Op::Swap(_)
            | Op::Resume { .. }
            | Op::Clean => {}
        }
    }

    /// Whether a replica is what the oracle says; tells how not.
    pub(super) fn differs(&self, replica: &Replica) -> Option<String> {
        let Some(log) = self.logs.get(&replica.part) else {
            return Some(format!("{:?} should not be there", replica.part));
        };
        let want = Replica {
            part: replica.part,
            id: log.id,
            log_start: log.start,
            end: log.end,
            high_watermark: log.hw,
            accepted_epoch: log.accepted,
            epochs: log.epochs.clone(),
            hole: None,
        };
        (want != *replica).then(|| format!("found {replica:?}, want {want:?}"))
    }
}

/// A batch of `count` records that can't be told from a client's: `size` bytes of body.
pub(super) fn batch(
    count: i32,
    size: usize,
    ts: i64,
    producer: Option<(i64, i32)>,
    fill: u64,
) -> Vec<u8> {
    let mut bytes = vec![0; 61 + size];
    let mut random = crate::io::mem::Random(fill);
    for chunk in bytes[61..].chunks_mut(8) {
        let word = random.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[27..35].copy_from_slice(&ts.to_be_bytes());
    bytes[35..43].copy_from_slice(&ts.to_be_bytes());
    let (pid, seq) = producer.unwrap_or((-1, -1));
    bytes[43..51].copy_from_slice(&pid.to_be_bytes());
    let epoch: i16 = if pid < 0 { -1 } else { 0 };
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&seq.to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    batch::seal(&mut bytes);
    bytes
}

/// Wall time in tests: some day in 2026.
pub(super) const TODAY: WallMs = WallMs(1_780_000_000_000);
