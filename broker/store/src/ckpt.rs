//! Checkpoints: the metadata at a circle's boundary S, made to count once everything ≤ S is on the medium.
//!
//! At S rows and body go into the older copy's page cache; they cost no memory of ours while the sweep is under way, and
//! mean nothing under the old header. When the circle has visited all: settle, `fsync` of the file (not `fdatasync`: it
//! commits the file system's log, and with it every conversion of unwritten blocks), then the header, then the CKPT record,
//! each between two groups. The header comes after the `fsync`: a cut between the two would else leave a checkpoint that
//! counts beside extents whose blocks read as zeros. Only after the record the ring's oldest groups may go.

use std::io;

use core::time::Duration;

use model::Instant;

use crate::alloc::Table;
use crate::disk::Disk;
use crate::format::checkpoint::{BodyWriter, CheckpointHeader};
use crate::format::journal::{Entry, EntryType};
use crate::format::row::ROW_BYTES;
use crate::format::{PAGE, page_up};
use crate::io::{Copy, Io};
use crate::mutation::{Mutation, is};
use crate::phase::{self, Phase};

/// Written at a time when a checkpoint is settled: 45 ms of streaming.
const SETTLE_BYTES: u64 = 8 << 20;
/// Directories are synced so long between two groups, where each file's name must be.
const SYNC_TIME: Duration = Duration::from_millis(80);
/// Rows and body are handed to the page cache in pieces of this size.
const WRITE_BYTES: usize = 1 << 20;

/// Where the checkpoint of the circle under way stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Rows and body are written; the sweep goes on.
    Frozen,
    /// Settled up to here.
    Settling(u64),
    /// To be synced.
    Sync,
    /// The header is to be written: it makes the checkpoint count.
    Header,
    /// The CKPT record waits for a group.
    Record,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Checkpoints<F> {
    /// Both copies, the one written last first.
    pub(crate) newest: (Copy, F),
    pub(crate) older: (Copy, F),
    /// Of the newest copy.
    pub(crate) ckpt_seq: u64,
    pending: Option<Pending>,
    /// A site-log snapshot that became durable, until someone was told.
    pub(crate) snapshot: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    header: CheckpointHeader,
    step: Step,
    bytes: u64,
    /// Ring position behind S.
    head: u64,
    snapshot: Option<u64>,
}

impl<F> Checkpoints<F> {
    pub(crate) const fn new(newest: (Copy, F), older: (Copy, F), ckpt_seq: u64) -> Self {
        Self {
            newest,
            older,
            ckpt_seq,
            pending: None,
            snapshot: None,
        }
    }

    /// Whether one is frozen or being made.
    pub(crate) const fn busy(&self) -> bool {
        self.pending.is_some()
    }
}

impl<I: Io> Disk<I> {
    /// Writes rows and body as of now, which is behind group `boundary`, into the older copy's page cache.
    pub(crate) fn freeze(&mut self, boundary: u64) -> io::Result<()> {
        let _phase = phase::enter(Phase::Checkpoint);
        self.table.owe_names();
        let mut out = Out {
            at: PAGE as u64,
            crc: 0,
            pending: Vec::with_capacity(WRITE_BYTES),
        };
        let file = &self.checkpoints.older.1;
        let rows = self.table.rows.len();
        for row in &self.table.rows {
            row.encode(&mut out.pending);
            out.flush(&*self.io, file, WRITE_BYTES)?;
        }
        let pad = page_up((rows * ROW_BYTES) as u64) as usize - rows * ROW_BYTES;
        out.pending.resize(out.pending.len() + pad, 0);
        out.flush(&*self.io, file, 0)?;
        let rows_crc = std::mem::take(&mut out.crc);

        let body_at = out.at;
        let mut body = BodyWriter { out: out.pending };
        body.word(self.next_part);
        let open = self.parts.values().filter_map(|it| it.open.as_ref());
        body.word(open.clone().count() as u32);
        for open in open {
            // A sum that a truncation lost is computed again at the seal.
            let used = self.table.row(open.life.slot).used;
            let crc = if open.crc_at == used {
                (used, open.crc)
            } else {
                (0, 0)
            };
            let tail = &open.tail[..used as usize % PAGE];
            body.open(open.life, open.opened_at, crc, &open.index, tail);
        }
        body.word(self.parts.len() as u32);
        for (part, it) in &self.parts {
            body.partition(&it.row(*part), |out| self.windows.encode(*part, out));
            if body.out.len() >= WRITE_BYTES {
                out.pending = body.out;
                out.flush(&*self.io, file, WRITE_BYTES)?;
                body.out = std::mem::take(&mut out.pending);
            }
        }
        body.site(&self.site.log);
        out.pending = body.out;
        let body_bytes = out.at + out.pending.len() as u64 - body_at;
        out.flush(&*self.io, file, 0)?;

        let header = CheckpointHeader {
            disk: self.superblock.disk,
            ckpt_seq: self.checkpoints.ckpt_seq + 1,
            boundary,
            ring_pos: ring_pos(self.ring.head, self.ring.bytes),
            rows: rows as u32,
            body_bytes,
            rows_crc,
            body_crc: out.crc,
        };
        self.checkpoints.pending = Some(Pending {
            header,
            step: Step::Frozen,
            bytes: page_up(out.at),
            head: self.ring.head,
            snapshot: self.site.fresh_snapshot.take(),
        });
        Ok(())
    }

    /// Whether a step waits to be done.
    pub(crate) fn checkpoint_due(&self) -> bool {
        self.checkpoints
            .pending
            .is_some_and(|pending| match pending.step {
                Step::Frozen => self.sweep.circle.is_some_and(|circle| circle.swept),
                Step::Settling(_) | Step::Sync | Step::Header => true,
                Step::Record => false,
            })
    }

    /// Does one step, between two groups.
    pub(crate) fn checkpoint_step(&mut self) -> io::Result<()> {
        let _phase = phase::enter(Phase::Checkpoint);
        let began = self.io.now();
        let Some(mut pending) = self.checkpoints.pending else {
            return Ok(());
        };
        if pending.step == Step::Frozen && is(Mutation::SnapshotLaterThanReplay) {
            self.freeze(pending.header.boundary)?;
            let later = self.checkpoints.pending.take().expect("frozen just now");
            pending.header = CheckpointHeader {
                ring_pos: pending.header.ring_pos,
                ..later.header
            };
            pending.bytes = later.bytes;
        }
        let file = &self.checkpoints.older.1;
        if pending.step == Step::Frozen {
            pending.step = Step::Settling(PAGE as u64);
        }
        match pending.step {
            Step::Settling(at) => {
                let bytes = SETTLE_BYTES.min(pending.bytes - at);
                self.io.settle(file, at, bytes)?;
                let at = at + bytes;
                pending.step = if at < pending.bytes {
                    Step::Settling(at)
                } else {
                    Step::Sync
                };
            }
            Step::Sync if sync_names(&*self.io, &mut self.table, began)? => {}
            Step::Sync => {
                // fsync commits the log only as far as this file's own last change stands in it. That may have been before
                // the last commit (the 5 s timer, another's fsync): later conversions of unwritten blocks would stay out,
                // and a cut leave extents that read as zeros under a checkpoint that counts.
                if !is(Mutation::CheckpointUntouched) {
                    self.io.touch(file)?;
                }
                self.io.fsync(file)?;
                pending.step = Step::Header;
            }
            Step::Header => {
                // Its block was written when the disk was made: one write and one flush.
                self.io.pwrite(file, &pending.header.encode(), 0)?;
                self.io.fdatasync(file)?;
                pending.step = Step::Record;
                let mut entry = Entry::new(EntryType::Ckpt);
                entry.base = model::Offset(pending.header.boundary as i64);
                entry.aux = pending.header.ckpt_seq;
                self.backlog.push_front(entry);
                self.sweep.circle = None;
                self.stats.circles += 1;
            }
            Step::Frozen | Step::Record => {}
        }
        self.checkpoints.pending = Some(pending);
        let took = self.io.now().since(began);
        self.stats.checkpoint_worst = self.stats.checkpoint_worst.max(took);
        Ok(())
    }

    /// The CKPT record is durable: what lies before S + 1 in the ring is not needed any more.
    pub(crate) fn checkpoint_recorded(&mut self, entry: &Entry) {
        let Some(pending) = self.checkpoints.pending.take() else {
            unreachable!("a CKPT record is written for a pending checkpoint")
        };
        assert_eq!(
            entry.aux, pending.header.ckpt_seq,
            "one checkpoint at a time"
        );
        self.ring.keep_seq = pending.header.boundary + 1;
        self.ring.keep = pending.head;
        let Checkpoints {
            newest,
            older,
            ckpt_seq,
            snapshot,
            ..
        } = &mut self.checkpoints;
        std::mem::swap(newest, older);
        *ckpt_seq = pending.header.ckpt_seq;
        *snapshot = pending.snapshot.or(*snapshot);
        self.stats.checkpoints += 1;
        self.stats.checkpoint_bytes += pending.bytes;
    }

    /// Whether a checkpoint waits for its record to be written.
    pub(crate) fn record_waits(&self) -> bool {
        self.checkpoints
            .pending
            .is_some_and(|pending| pending.step == Step::Record)
    }
}

/// Makes names of new files durable for a while, where the file system's log does not; false when all are.
fn sync_names<I: Io>(io: &I, table: &mut Table, began: Instant) -> io::Result<bool> {
    while table.sync_names(io)? {
        if io.now().since(began) >= SYNC_TIME {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Place in the ring of a position, as a checkpoint says it: the ring's length stands for the end of a full turn.
pub(crate) const fn ring_pos(head: u64, bytes: u64) -> u64 {
    match head % bytes {
        0 if head > 0 => bytes,
        pos => pos,
    }
}

/// Bytes on their way into the page cache, with their sum.
struct Out {
    at: u64,
    crc: u32,
    pending: Vec<u8>,
}

impl Out {
    /// Writes what is pending if it is at least `least`.
    fn flush<I: Io>(&mut self, io: &I, file: &I::File, least: usize) -> io::Result<()> {
        if self.pending.len() >= least && !self.pending.is_empty() {
            self.crc = crc32c::crc32c_append(self.crc, &self.pending);
            io.pwrite(file, &self.pending, self.at)?;
            self.at += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }
}
