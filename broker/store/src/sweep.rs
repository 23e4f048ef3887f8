//! The sweep: writes extents out by their place on the disk, in bounded bursts between groups.
//!
//! A circle begins at a group boundary S and visits once, from low to high, every extent that held a dirty byte of a
//! group ≤ S. A burst hands pieces over and settles them: when it ends nothing lazily written is left in the drive's
//! cache, so that the next group's flush pays for that group alone. Pacing: what is left to visit must not exceed what is
//! left of the circle's share of the ring. The checkpoint that a circle ends with is `ckpt`'s.

use std::io;
use std::ops::Bound;

use core::time::Duration;

use model::Instant;

use crate::alloc::full;
use crate::dirty::Key;
use crate::disk::Disk;
use crate::io::{FileSystem, Io};
use crate::phase::{self, Phase};

/// A burst ends when this is used; the last pieces may run over, to 180 ms on a 7200 rpm disk.
const BURST: Duration = Duration::from_millis(80);
/// Pieces worth so much are handed over before they are settled.
const SETTLE: Duration = Duration::from_millis(25);
/// What a piece costs beside its bytes: a seek and half a turn.
const SEEK: Duration = Duration::from_millis(7);
/// Bytes a disk streams in a second.
const STREAM: u64 = 180 << 20;
/// Longest piece: 22 ms of streaming.
const PIECE: u64 = 4 << 20;
/// A circle takes at most so much of the ring: two of them fit in 90 %.
const CIRCLE_PERCENT: u64 = 45;
/// A short circle visits each extent for a few bytes only: at least so much ring.
const CIRCLE_LEAST: u64 = 64 << 20;
/// Counts as a full share of the ring.
const CIRCLE_TIME: Duration = Duration::from_secs(60);
/// Dirty bytes older than this are written out as soon as the disk is idle.
const OLD: Duration = Duration::from_secs(30);
/// A disk is idle when no group came for so long.
const IDLE: Duration = Duration::from_millis(100);
/// A checkpoint that found no room is tried again after this.
const NO_ROOM: Duration = Duration::from_secs(1);
/// What a visit is taken to cost before one was measured.
const VISIT: Duration = Duration::from_millis(20);

/// One circle under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circle {
    /// Group boundary at which it began.
    pub(crate) boundary: u64,
    /// Ring position behind that group.
    pub(crate) head: u64,
    began: Instant,
    /// Extents to visit at its start.
    extents: usize,
    /// Ring bytes it may take.
    share: u64,
    /// Last extent done with, or being visited.
    cursor: Option<Key>,
    /// To be done as fast as it goes.
    urgent: bool,
    /// Every extent was visited.
    pub(crate) swept: bool,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    pub(crate) circle: Option<Circle>,
    /// Ring position of the last circle's S.
    pub(crate) since: u64,
    /// Sequence of the last circle's S.
    pub(crate) since_seq: u64,
    /// Mean time of a visit.
    visit: Duration,
    /// A burst ran since the last group.
    pub(crate) written_since_group: bool,
    /// A group was written since the last step of background work.
    pub(crate) group_since_step: bool,
    /// The next circle begins at once and is not paced.
    pub(crate) wanted: bool,
    /// Data waits for what a circle frees.
    pub(crate) held: bool,
    /// No circle begins before: the last one found no room for its checkpoint.
    no_room: Option<Instant>,
}

impl Sweep {
    /// At the start: the checkpoint's S lies at ring position `since`.
    pub(crate) const fn new(since: u64, since_seq: u64) -> Self {
        Self {
            circle: None,
            since,
            since_seq,
            visit: VISIT,
            written_since_group: false,
            group_since_step: false,
            wanted: false,
            held: false,
            no_room: None,
        }
    }
}

impl<I: Io> Disk<I> {
    /// Ring bytes a circle may take: G of the design.
    fn circle_share(&self) -> u64 {
        let wide = CIRCLE_LEAST.max(PIECE * self.dirty.len() as u64);
        (self.ring.bytes * CIRCLE_PERCENT / 100)
            .min(self.config.dirty_bytes_max / 2)
            .min(wide)
            .max(1)
    }

    /// Whether a circle should begin now: something changed, and enough of it, or long ago.
    pub(crate) fn circle_due(&self, now: Instant) -> bool {
        let early = self.sweep.no_room.is_some_and(|until| now < until);
        if self.sweep.circle.is_some() || self.checkpoints.busy() || early {
            return false;
        }
        if self.sweep.wanted {
            return true;
        }
        let changed = self.ring.head - self.sweep.since;
        changed >= self.circle_share() / 2
            || (self.pressed() && changed > 0)
            || self.site.fresh_snapshot.is_some()
            || self
                .dirty
                .oldest()
                .is_some_and(|born| now.since(born) >= OLD)
            || self.dirty.bytes() > self.config.dirty_bytes_max / 2
    }

    /// Begins a circle at the boundary behind the last group, with the metadata as it is now. Where the file system has no
    /// room for it, none begins for a while.
    pub(crate) fn begin_circle(&mut self, now: Instant) -> io::Result<()> {
        let boundary = self.ring.seq - 1;
        match self.freeze(boundary) {
            // Others have filled the file system, which is no fault of the disk: the ring goes on holding what the
            // checkpoint would have, and once it is full data waits.
            Err(error) if full(&error) => {
                self.sweep.no_room = Some(now + NO_ROOM);
                self.stats.checkpoints_no_room += 1;
                return Ok(());
            }
            frozen => frozen?,
        }
        self.sweep.no_room = None;
        self.sweep.circle = Some(Circle {
            boundary,
            head: self.ring.head,
            began: now,
            extents: self.dirty.due((0, 0), boundary),
            share: self.circle_share(),
            cursor: None,
            urgent: std::mem::take(&mut self.sweep.wanted) || self.site.fresh_snapshot.is_some(),
            swept: false,
        });
        self.sweep.since = self.ring.head;
        self.sweep.since_seq = boundary;
        Ok(())
    }

    /// Whether a burst should run now.
    pub(crate) fn burst_due(&self, now: Instant, waiting: bool) -> bool {
        let Some(circle) = &self.sweep.circle else {
            return false;
        };
        if circle.swept {
            return false;
        }
        if circle.urgent || self.pressed() {
            return true;
        }
        let idle = !waiting && now.since(self.last_group) >= IDLE;
        if idle
            && self
                .dirty
                .oldest()
                .is_some_and(|born| now.since(born) >= OLD)
        {
            return true;
        }
        let left = self
            .dirty
            .due(circle.cursor.unwrap_or((0, 0)), circle.boundary);
        if left == 0 {
            return true;
        }
        let ring = (self.ring.head - circle.head) as f64 / circle.share as f64;
        let time = now.since(circle.began).as_secs_f64() / CIRCLE_TIME.as_secs_f64();
        let advance = ring.max(time);
        let behind = left as f64 - circle.extents as f64 * (1.0 - advance);
        advance >= 1.0 || self.sweep.visit.mul_f64(behind.max(0.0)) >= BURST
    }

    /// Whether data waits, or is about to, for what a circle would free.
    pub(crate) fn pressed(&self) -> bool {
        self.sweep.held
            || self.ring.used() >= self.ring.bytes * 9 / 10
            || self.dirty.bytes() > self.config.dirty_bytes_max
    }

    /// One burst. True when the circle has visited all.
    pub(crate) fn burst(&mut self) -> io::Result<bool> {
        let _phase = phase::enter(Phase::Destage);
        let began = self.io.now();
        let mut visited = 0;
        let mut circle = self.sweep.circle.expect("a burst is of a circle");
        loop {
            let mut handed = Vec::new();
            let mut worth = Duration::ZERO;
            while worth < SETTLE {
                // A run that is larger than a piece is found again at the same key.
                let from = circle.cursor.map_or(Bound::Unbounded, Bound::Included);
                let Some(key) = self.dirty.next(from, circle.boundary) else {
                    circle.swept = true;
                    break;
                };
                circle.cursor = Some(key);
                let bytes = self.hand_over(key, &mut handed)?;
                worth += SEEK + Duration::from_secs_f64(bytes as f64 / STREAM as f64);
                visited += u32::from(self.dirty.run_mut(key).is_none());
            }
            self.settle(&handed)?;
            let used = self.io.now().since(began);
            // Half of the next pieces may run over.
            if circle.swept || used + SETTLE / 2 >= BURST {
                break;
            }
        }
        self.sweep.circle = Some(circle);
        self.sweep.written_since_group = true;
        let took = self.io.now().since(began);
        self.stats.bursts += 1;
        self.stats.burst_worst = self.stats.burst_worst.max(took);
        if visited > 0 {
            self.sweep.visit = (self.sweep.visit * 4 + took / visited) / 5;
        }
        Ok(circle.swept)
    }

    /// Hands the next piece of a run to the device; says how long it is.
    fn hand_over(&mut self, key: Key, handed: &mut Vec<Handed<I::File>>) -> io::Result<u64> {
        let run = self.dirty.run_mut(key).expect("found in the list");
        let file = run.file.clone();
        let high = run.high.min(run.low + PIECE);
        let whole = high == run.high;
        let (low, tail) = (run.low, run.tail.filter(|_| whole));
        let mut bytes = 0;
        for (at, len) in [(low, high - low)].into_iter().chain(tail) {
            if len > 0 {
                self.io.hand_over(&file, at, len)?;
                handed.push((file.clone(), at, len));
                bytes += len;
                self.stats.pieces += 1;
            }
        }
        self.stats.piece_bytes += bytes;
        self.dirty.shrink(key, high, whole);
        Ok(bytes)
    }

    /// Every piece handed over is on the medium when this returns.
    fn settle(&mut self, handed: &[Handed<I::File>]) -> io::Result<()> {
        if handed.is_empty() {
            return Ok(());
        }
        for (file, at, len) in handed {
            match self.io.file_system() {
                FileSystem::CommitsTogether => self.io.settle(file, *at, *len)?,
                FileSystem::Other => self.io.fdatasync(file)?,
            }
        }
        self.stats.settles += 1;
        self.io.flush_device(&self.ring.file)
    }

    /// When the sweep wants to be called again though nothing happens.
    pub(crate) fn sweep_at(&self, now: Instant) -> Option<Instant> {
        if self.sweep.circle.is_some() {
            return Some(now + Duration::from_secs(1));
        }
        let due = self.dirty.oldest().map(|born| born + OLD);
        due.max(due.and(self.sweep.no_room))
    }
}

/// A file and a range of it that the device was given.
type Handed<F> = (std::sync::Arc<F>, u64, u64);
