//! Groups: operations in, one durable record out.
//!
//! A group is written in this order: batches are copied from the receive buffers into the aligned group buffer and
//! stamped there; from it into the extents' page cache, whole zero-padded pages; then the one write to the ring. Readers
//! learn of it after that. One group is in flight; nothing waits for company, the disk's rotation makes the batches.

use std::io;

use core::time::Duration;

use model::{Instant, WallMs};

use crate::SlotLife;
use crate::disk::{Disk, DiskError, group_flags};
use crate::extent_io::write_tail;
use crate::format::PAGE;
use crate::format::extent::ExtentHeader;
use crate::format::journal::{Entry, EntryType, GroupHeader};
use crate::format::row::SlotState;
use crate::format::{page_down, page_up};
use crate::io::Io;
use crate::mutation::{Mutation, is};
use crate::ops::{CONTROL_BYTES_MAX, GROUP_ENTRIES_MAX, Op, Outcome, Queue};
use crate::parts::OpenExtent;
use crate::phase::{self, Phase};
use crate::publish::Change;
use crate::ring::Asks;

/// A group takes nothing more after so long: what opens an extent waits for the file system, and a thousand first writes
/// must not hold up the first of them.
const GATHER: Duration = Duration::from_millis(100);

static ZEROS: [u8; PAGE] = [0; PAGE];

/// What a call to [`Disk::commit`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Operations taken from the queue, each with its outcome in `done`.
    pub ops: usize,
    /// The group that holds them; `None` if they needed none.
    pub seq: Option<u64>,
    /// Bytes written to the ring.
    pub bytes: u64,
    /// Nothing was taken although something waits: the ring, or this disk's share of memory, is full. Call
    /// [`Disk::work`] and try again.
    pub held: bool,
    /// A site-log snapshot that a checkpoint holds since this group.
    pub snapshot: Option<u64>,
}

impl<I: Io> Disk<I> {
    /// Takes as many operations as fit one group, makes them durable, and adds each one's outcome to `done` in the
    /// order of the log. EPOCH, HARDSTATE and SITE_ENTRY go first, in a group of their own, with whatever their own
    /// partition has queued before them.
    ///
    /// `trusted` is wall time if it is trusted now. On an error the disk has failed: what this call added to `done` says
    /// [`Outcome::Failed`], whether it reached the medium is unknown, and what is still queued was not touched.
    pub fn commit<T>(
        &mut self,
        queue: &mut Queue<T>,
        trusted: Option<WallMs>,
        done: &mut Vec<(T, Outcome)>,
    ) -> Result<Committed, DiskError> {
        self.usable()?;
        let _phase = phase::enter(Phase::GroupWrite);
        let before = done.len();
        let began = self.io.now();
        self.trust(trusted);
        self.group.begin();
        let committed = self
            .take(queue, (trusted, began), done)
            .and_then(|held| self.finish(trusted, began).map(|it| (held, it)));
        match self.done("a group's write", committed) {
            Ok((held, committed)) => Ok(Committed {
                ops: done.len() - before,
                held,
                snapshot: self.checkpoints.snapshot.take(),
                ..committed
            }),
            Err(error) => {
                for (_, outcome) in &mut done[before..] {
                    *outcome = Outcome::Failed;
                }
                Err(error)
            }
        }
    }

    /// Moves operations from the queue into the group; true if nothing could be taken for want of room.
    fn take<T>(
        &mut self,
        queue: &mut Queue<T>,
        (trusted, began): (Option<WallMs>, Instant),
        done: &mut Vec<(T, Outcome)>,
    ) -> io::Result<bool> {
        if queue.urgent > 0 {
            let marked = self.mark_urgent(queue);
            if marked.iter().any(|it| *it) {
                let all = std::mem::take(&mut queue.ops);
                let mut applied = Ok(());
                for ((op, tag), marked) in all.into_iter().zip(marked) {
                    if marked && applied.is_ok() {
                        queue.urgent -= usize::from(op.urgent());
                        applied = self.apply_told(op, tag, trusted, done);
                    } else {
                        queue.ops.push_back((op, tag));
                    }
                }
                return applied.map(|()| false);
            }
        }
        if self.dirty.bytes() > self.config.dirty_bytes_max && !self.sweep.written_since_group {
            self.sweep.held = !queue.is_empty();
            self.stats.held += u64::from(self.sweep.held);
            return Ok(self.sweep.held);
        }
        let mut taken = 0;
        while let Some((op, _)) = queue.ops.front() {
            let payload = op.payload();
            assert!(
                payload <= self.group_bytes_max,
                "an operation of {payload} B, a group takes {}",
                self.group_bytes_max
            );
            let full = self.group.payload() + payload > self.group_bytes
                || self.group.entries.len() + 3 > GROUP_ENTRIES_MAX;
            let barrier = Self::is_barrier(op) && op.part().is_none_or(|it| self.in_group(it));
            if taken > 0 && (full || barrier) {
                break;
            }
            // An append may seal and open on its way; each extent of 1 MiB at most once.
            let entries = 3 * (1 + payload / (256 << 10));
            if !self
                .ring
                .fits(self.group.padded(entries, payload), Asks::Data)
            {
                self.sweep.held = taken == 0;
                self.stats.held += u64::from(self.sweep.held);
                return Ok(self.sweep.held);
            }
            self.sweep.held = false;
            let (op, tag) = queue.ops.pop_front().expect("seen above");
            queue.urgent -= usize::from(op.urgent());
            let last = matches!(op, Op::Clean);
            self.apply_told(op, tag, trusted, done)?;
            taken += 1;
            if last || self.io.now().since(began) >= GATHER {
                break;
            }
        }
        Ok(false)
    }

    /// Does one operation and says what became of it: whoever waits for one that fails half-way must hear of it, too.
    fn apply_told<T>(
        &mut self,
        op: Op,
        tag: T,
        trusted: Option<WallMs>,
        done: &mut Vec<(T, Outcome)>,
    ) -> io::Result<()> {
        let applied = self.apply(op, trusted);
        done.push((tag, *applied.as_ref().unwrap_or(&Outcome::Failed)));
        applied.map(drop)
    }

    /// Which operations go in a control group now: the urgent ones, and what their partitions have queued before them.
    fn mark_urgent<T>(&self, queue: &Queue<T>) -> Vec<bool> {
        let mut marked = vec![false; queue.ops.len()];
        let mut payload = 0;
        let mut count = 0;
        for (at, (op, _)) in queue.ops.iter().enumerate() {
            if !op.urgent() {
                continue;
            }
            let mut bytes = op.payload();
            let mut with = 1;
            let mut possible = true;
            if let Some(part) = op.part() {
                let before = queue.ops.iter().take(at).zip(&marked);
                for ((earlier, _), marked) in before {
                    if earlier.part() == Some(part) && !marked {
                        bytes += earlier.payload();
                        with += 3;
                        possible &= !Self::is_barrier(earlier);
                    }
                    // A swap names its replica inside.
                    possible &= !matches!(earlier, Op::Swap(swap) if swap.part == part);
                }
            }
            let fits = count == 0 || payload + bytes <= CONTROL_BYTES_MAX;
            let short = bytes <= CONTROL_BYTES_MAX.max(op.payload());
            let room = self.ring.fits(
                self.group.padded(count + with, payload + bytes),
                Asks::Control,
            ) && count + with <= GROUP_ENTRIES_MAX
                && payload + bytes <= self.group_bytes_max;
            if !(possible && fits && short && room) {
                if matches!(op, Op::Epoch { .. }) {
                    continue;
                }
                // The site's records, and new replicas, keep their order among each other.
                break;
            }
            payload += bytes;
            count += with;
            marked[at] = true;
            if let Some(part) = op.part() {
                for (earlier, (op, _)) in queue.ops.iter().take(at).enumerate() {
                    marked[earlier] |= op.part() == Some(part) && !is(Mutation::BatchAcrossEpoch);
                }
            }
        }
        marked
    }

    /// Adds the store's own records and writes the group, if there is anything in it.
    pub(crate) fn finish(
        &mut self,
        trusted: Option<WallMs>,
        began: Instant,
    ) -> io::Result<Committed> {
        while self.group.entries.len() < GROUP_ENTRIES_MAX
            && let Some(entry) = self.backlog.front().copied()
        {
            let asks = match entry.kind {
                EntryType::Ckpt => Asks::Checkpoint,
                _ => Asks::Data,
            };
            if !self.ring.fits(self.group.padded(1, 0), asks) {
                break;
            }
            self.backlog.pop_front();
            self.group.push(entry);
        }
        if self.group.entries.is_empty() {
            self.publish();
            return Ok(Committed::default());
        }
        let _phase = self.phase_of_group().map(phase::enter);
        let total = self.group.lay_out();
        let when = (self.ring.seq, began);
        self.write_extents(when)?;
        let header = GroupHeader {
            seq: 0,
            keep_seq: 0,
            total_len: total as u32,
            entries: self.group.entries.len() as u16,
            flags: group_flags(&self.group.entries),
            ring_pos: 0,
            wall: trusted.unwrap_or(WallMs(0)),
            boot_nonce: 0,
        };
        let record = self.group.record(total);
        let bytes = record.len() as u64;
        let wrap = self.ring.place(bytes).wrap;
        let _wrap = wrap.then(|| phase::enter(Phase::RingWrap));
        self.ring.write(&*self.io, header, record)?;
        self.write_tails(when)?;
        self.after_write()?;
        self.sweep.written_since_group = false;
        self.sweep.group_since_step = true;
        self.last_group = self.io.now();
        self.stats.group(bytes, self.last_group.since(began), wrap);
        self.publish();
        Ok(Committed {
            ops: 0,
            seq: Some(when.0),
            bytes,
            held: false,
            snapshot: None,
        })
    }

    /// Copies the group's batches into the page cache, and heads of extents with them.
    fn write_extents(&mut self, when: (u64, Instant)) -> io::Result<()> {
        let Self {
            io,
            group,
            parts,
            dirty,
            table,
            superblock,
            stats,
            changes,
            ..
        } = self;
        let mut sealing = std::mem::take(&mut group.sealing);
        for at in 0..group.entries.len() {
            let entry = group.entries[at];
            if !matches!(entry.kind, EntryType::Append | EntryType::ExtOpen) {
                continue;
            }
            let part = parts
                .get_mut(&entry.part)
                .expect("appended to in this group");
            let id = part.id;
            let open = match &mut part.open {
                Some(open) if open.life == entry.life => open,
                _ => find_sealing(&mut sealing, entry.life),
            };
            if entry.kind == EntryType::ExtOpen {
                let row = table.row(entry.life.slot);
                let header = ExtentHeader {
                    class: row.class,
                    disk: superblock.disk,
                    slot: entry.life.slot,
                    generation: entry.life.generation,
                    id,
                    epoch: entry.epoch,
                    base: entry.base,
                };
                io.pwrite(&open.file, &header.encode(), 0)?;
                dirty.mark(entry.life, open.address, &open.file, (0, PAGE as u64), when);
                stats.opened += 1;
                continue;
            }
            let payload = group.payload_of(&entry);
            write_payload(&**io, open, entry.ext_off, payload)?;
            let range = (
                u64::from(entry.ext_off),
                u64::from(entry.ext_off) + payload.len() as u64,
            );
            dirty.mark(entry.life, open.address, &open.file, range, when);
            let appended_at = table.row(entry.life.slot).appended_at;
            changes.push(appended(&entry, open, appended_at));
            stats.bytes_appended += payload.len() as u64;
        }
        group.sealing = sealing;
        Ok(())
    }

    /// Tails go to their extents only now: under a TRUNCATE that is not durable yet the old tail still counts.
    fn write_tails(&mut self, when: (u64, Instant)) -> io::Result<()> {
        let Self {
            io,
            group,
            dirty,
            table,
            stats,
            changes,
            ..
        } = self;
        for mut open in group.sealing.drain(..) {
            let row = table.row(open.life.slot);
            if row.state != SlotState::Sealed {
                // Cut and then let go in one group.
                continue;
            }
            let tail = write_tail(&**io, row, &mut open)?;
            dirty.mark_tail(open.life, open.address, &open.file, tail, when);
            changes.push(Change::Sealed {
                part: row.part,
                life: open.life,
                row: *row,
                index: std::mem::take(&mut open.index),
            });
            stats.sealed += 1;
        }
        Ok(())
    }

    /// What a durable group sets free.
    fn after_write(&mut self) -> io::Result<()> {
        let mut clean = false;
        for at in 0..self.group.entries.len() {
            let entry = self.group.entries[at];
            match entry.kind {
                EntryType::ExtFree => self.group.freed.push(entry.life.slot),
                EntryType::Ckpt => self.checkpoint_recorded(&entry),
                EntryType::Clean => clean = true,
                _ => {}
            }
        }
        for slot in self.group.freed.drain(..) {
            let row = self.table.row(slot);
            self.changes.push(Change::Freed {
                part: row.part,
                life: SlotLife {
                    slot,
                    generation: row.generation,
                },
            });
            self.freeing.push_back(slot);
        }
        if clean {
            self.superblock.clean_seq = self.ring.seq - 1;
            self.write_superblock()?;
            self.stopped = true;
        }
        Ok(())
    }

    fn phase_of_group(&self) -> Option<Phase> {
        let has = |wanted: &[EntryType]| {
            self.group
                .entries
                .iter()
                .any(|entry| wanted.contains(&entry.kind))
        };
        if has(&[EntryType::ExtSwap]) {
            Some(Phase::Swap)
        } else if has(&[EntryType::ExtFree, EntryType::PartDel]) {
            Some(Phase::Free)
        } else if has(&[EntryType::ExtOpen, EntryType::ExtSeal]) {
            Some(Phase::SealOpen)
        } else {
            has(&[EntryType::Ckpt]).then_some(Phase::Checkpoint)
        }
    }
}

fn find_sealing<F>(sealing: &mut [Box<OpenExtent<F>>], life: SlotLife) -> &mut Box<OpenExtent<F>> {
    sealing
        .iter_mut()
        .find(|open| open.life == life)
        .expect("an extent appended to is open, or was sealed in this group")
}

/// What readers learn of an APPEND entry: where its extent's batches end now, and the index entries since.
fn appended<F>(entry: &Entry, open: &mut OpenExtent<F>, appended_at: WallMs) -> Change<F> {
    let used = entry.ext_off + entry.len;
    let from = open.published;
    let to = from + open.index[from..].partition_point(|it| it.pos < used);
    open.published = to;
    Change::Appended {
        part: entry.part,
        life: entry.life,
        used,
        end: entry.next_offset(),
        max_ts: entry.max_ts,
        epoch: entry.epoch,
        appended_at,
        index: open.index[from..to].into(),
    }
}

/// Writes `payload` behind what an extent holds: whole pages, the first one completed from the tail buffer, the last one
/// padded with zeros. Bytes that are there already are written as they are, so a reader may be sending them.
pub(crate) fn write_payload<I: Io>(
    io: &I,
    open: &mut OpenExtent<I::File>,
    at: u32,
    payload: &[u8],
) -> io::Result<()> {
    write_payload_before(io, open, at, payload, &ZEROS)
}

/// The same, with the begin of `behind` instead of zeros.
pub(crate) fn write_payload_before<I: Io>(
    io: &I,
    open: &mut OpenExtent<I::File>,
    at: u32,
    payload: &[u8],
    behind: &[u8; PAGE],
) -> io::Result<()> {
    let (from, to) = (u64::from(at), u64::from(at) + payload.len() as u64);
    let first = page_down(from);
    let prefix = (from - first) as usize;
    let pad = (page_up(to) - to) as usize;
    io.pwritev(
        &open.file,
        &[&open.tail[..prefix], payload, &behind[..pad]],
        first,
    )?;
    let last = page_down(to);
    let kept = (to - last) as usize;
    if last > first || prefix == 0 {
        let begin = payload.len() - kept;
        open.tail[..kept].copy_from_slice(&payload[begin..]);
    } else {
        open.tail[prefix..kept].copy_from_slice(payload);
    }
    if open.crc_at == at {
        open.crc = crc32c::crc32c_append(open.crc, payload);
        open.crc_at = to as u32;
    }
    Ok(())
}
