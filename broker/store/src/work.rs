//! Background work: one bounded piece at a time, between groups.
//!
//! A step is a burst of the sweep, a step of a checkpoint, an extent zeroed, a file made ahead, extents sealed for their
//! age, or the store's own records. While groups wait, one of them is written between two steps.

use core::time::Duration;

use model::{Instant, WallMs};

use crate::alloc::SPARE;
use crate::disk::{Disk, DiskError};
use crate::format::row::{Row, SlotState};
use crate::io::{Io, Mode, Name};
use crate::phase::{self, Phase};
use crate::ring::Asks;
use crate::{Class, PartIx, SlotLife};

/// How often extents are looked at for their age.
const SEAL_EVERY: Duration = Duration::from_secs(10);
/// How long a freed extent that readers hold is left alone.
const PINNED: Duration = Duration::from_secs(1);

/// What a call to [`Disk::work`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Something was done.
    pub did: bool,
    /// More is due: call again at once, or after the next group while some wait.
    pub again: bool,
    /// Call again at this moment at the latest, on [`Io::now`]'s clock.
    pub at: Option<Instant>,
    /// A site-log snapshot that a checkpoint holds now.
    pub snapshot: Option<u64>,
}

impl<I: Io> Disk<I> {
    /// Does one piece of background work. `waiting`: operations are queued, so a step is done only if a group was written
    /// since the last one, or if groups wait for what it frees. Don't call it while an election runs or a vote waits.
    /// On an error the disk has failed.
    pub fn work(&mut self, waiting: bool, trusted: Option<WallMs>) -> Result<Work, DiskError> {
        self.usable()?;
        self.trust(trusted);
        let now = self.io.now();
        if waiting && !self.sweep.group_since_step && !self.pressed() {
            return Ok(Work {
                again: true,
                ..Work::default()
            });
        }
        let did = self.step(now, waiting, trusted)?;
        let (began, now) = (now, self.io.now());
        if did {
            self.sweep.group_since_step = false;
            self.stats.step_worst = self.stats.step_worst.max(now.since(began));
        }
        let at = [
            self.sweep_at(now),
            (!self.freeing.is_empty()).then_some(now + PINNED),
            Some(self.last_seal_check + SEAL_EVERY),
        ];
        Ok(Work {
            did,
            again: did || self.due(now, waiting),
            at: at.into_iter().flatten().min(),
            snapshot: self.checkpoints.snapshot.take(),
        })
    }

    fn due(&self, now: Instant, waiting: bool) -> bool {
        self.checkpoint_due()
            || self.circle_due(now)
            || self.burst_due(now, waiting)
            || (!waiting && !self.backlog.is_empty())
    }

    fn step(
        &mut self,
        now: Instant,
        waiting: bool,
        trusted: Option<WallMs>,
    ) -> Result<bool, DiskError> {
        if self.checkpoint_due() {
            let done = self.checkpoint_step();
            self.done("a checkpoint's write", done)?;
            return Ok(true);
        }
        // Its record frees the ring: when data waits for that, no data group will carry it.
        if !self.backlog.is_empty() && (!waiting || (self.record_waits() && self.pressed())) {
            self.group.begin();
            let done = self.finish(trusted, now).map(|_| ());
            self.done("a group's write", done)?;
            return Ok(true);
        }
        if self.circle_due(now) {
            let done = self.begin_circle(now);
            self.done("a checkpoint's write", done)?;
            return Ok(true);
        }
        if self.burst_due(now, waiting) {
            let done = self.burst();
            self.done("an extent's write", done)?;
            return Ok(true);
        }
        if self.free_one()? {
            return Ok(true);
        }
        if waiting {
            return Ok(false);
        }
        if now.since(self.last_seal_check) >= SEAL_EVERY {
            self.last_seal_check = now;
            if let Some(trusted) = trusted {
                return self.seal_old(now, trusted);
            }
        }
        if self.config.preallocate && Class::ALL.iter().any(|it| self.short_of(*it)) {
            let made = self.table.spare_one(&*self.io, &self.config);
            return self.done("an extent's allocation", made);
        }
        Ok(false)
    }

    fn short_of(&self, class: Class) -> bool {
        self.table.spare(class) < SPARE[class as usize]
    }

    /// Zeroes, or removes, one extent that no log needs and no reader holds.
    fn free_one(&mut self) -> Result<bool, DiskError> {
        let unpinned = self.freeing.iter().position(|slot| {
            let life = SlotLife {
                slot: *slot,
                generation: self.table.row(*slot).generation,
            };
            !self.view.pinned(life)
        });
        let Some(slot) = unpinned.and_then(|at| self.freeing.remove(at)) else {
            return Ok(false);
        };
        let _phase = phase::enter(Phase::Free);
        let class = self.table.row(slot).class;
        let name = Name::Extent(slot);
        let freed = if self.config.preallocate {
            match self.io.open(name, Mode::Write) {
                // It was zeroed and then removed, for another class, before a checkpoint knew; or it was freed while
                // nothing was made ahead.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                opened => opened.and_then(|file| {
                    self.io.zero(&file, class.bytes())?;
                    self.io.fsync(&file)?;
                    Ok(true)
                }),
            }
        } else {
            self.io.remove(name).map(|()| false)
        };
        let ready = self.done("an extent's zeroing", freed)?;
        self.table.release(slot, ready);
        self.stats.freed += 1;
        Ok(true)
    }

    /// Seals open extents whose first batch is older than segment.ms, or whose last is older than the retention, so that
    /// a quiet topic is freed too.
    fn seal_old(&mut self, now: Instant, trusted: WallMs) -> Result<bool, DiskError> {
        let older = |time: WallMs, limit: i64| {
            limit >= 0 && time.0 > 0 && trusted.0.saturating_sub(time.0) > limit
        };
        let old: Vec<PartIx> = self
            .parts
            .iter()
            .filter(|(_, it)| {
                it.open.as_ref().is_some_and(|open| {
                    let row: &Row = self.table.row(open.life.slot);
                    row.last >= row.base
                        && (older(open.opened_at, it.settings.segment_ms)
                            || older(row.max_ts.max(row.appended_at), it.settings.retention_ms))
                })
            })
            .map(|(part, _)| *part)
            .take(crate::ops::GROUP_ENTRIES_MAX / 2)
            .collect();
        if old.is_empty() || !self.ring.fits(self.group.padded(old.len(), 0), Asks::Data) {
            return Ok(false);
        }
        self.group.begin();
        for part in old {
            let it = self.parts.get_mut(&part).expect("listed above");
            it.class = it.class.down();
            self.seal(part);
        }
        let done = self.finish(Some(trusted), now).map(|_| ());
        self.done("a group's write", done)?;
        Ok(true)
    }

    /// Slots that wait to be zeroed, after a replay.
    pub(crate) fn queue_freeing(&mut self) {
        let rows = self.table.rows.iter().enumerate();
        self.freeing = rows
            .filter(|(_, row)| row.state == SlotState::Freeing)
            .map(|(slot, _)| slot as u32)
            .collect();
    }
}
