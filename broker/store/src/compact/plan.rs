//! What is worth compacting: whole sealed extents below a bound, by Kafka's four settings.

use std::collections::{BTreeMap, VecDeque};

use model::{DiskUuid, Offset, TopicPartition, WallMs};

use crate::PartIx;
use crate::disk::Disk;
use crate::format::extent::{COMPACTED, DATA_AT, SlotLife};
use crate::format::row::{Row, SlotState};
use crate::io::Io;

/// A topic's settings, in Kafka's meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionSettings {
    /// `min.cleanable.dirty.ratio`; 0 compacts whatever there is, as at a quota.
    pub dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`: younger records stay.
    pub lag_ms_min: i64,
    /// `max.compaction.lag.ms`: an older record that was never compacted makes the ratio not count.
    pub lag_ms_max: i64,
    /// `delete.retention.ms`: how long a tombstone stays after the first pass that met it.
    pub delete_retention_ms: i64,
}

impl Default for CompactionSettings {
    /// Kafka's.
    fn default() -> Self {
        Self {
            dirty_ratio_min: 0.5,
            lag_ms_min: 0,
            lag_ms_max: i64::MAX,
            delete_retention_ms: 24 * 3600 * 1000,
        }
    }
}

/// A sealed extent of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Which.
    pub life: SlotLife,
    /// A compaction went over it.
    pub compacted: bool,
    /// File position behind its last batch.
    pub used: u32,
    /// First offset it stands for.
    pub base: Offset,
    /// Last offset it stands for.
    pub last: Offset,
    /// Latest record time.
    pub max_ts: WallMs,
    /// Trusted time of its last append.
    pub appended_at: WallMs,
}

impl Sealed {
    /// Bytes of batches.
    pub(crate) const fn bytes(&self) -> u64 {
        (self.used - DATA_AT) as u64
    }
}

/// What a [`super::Compactor`] does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose extents.
    pub part: PartIx,
    /// Neighbours from the log's begin on.
    pub extents: VecDeque<Sealed>,
    /// Where the records begin whose keys are mapped.
    pub first_dirty: Offset,
    pub(super) id: TopicPartition,
    pub(super) disk: DiskUuid,
    /// Newest generation and last sequence of each producer.
    pub(super) producers: BTreeMap<i64, (i16, i32)>,
    pub(super) delete_retention_ms: i64,
    pub(super) now: Option<WallMs>,
    /// Bytes of batches in one run, unless one extent has more: what one extent is sure to hold. By the quota, like
    /// any extent: retention lets go of whole ones.
    pub(crate) run_bytes: u64,
}

impl<I: Io> Disk<I> {
    /// What of a replica is worth compacting now, if anything is. `bound` is min(high watermark, stable end): extents that
    /// reach it stay. `now` is trusted time; without any, no record counts as old and no tombstone's time begins or ends.
    /// `cleaned_to` is what the replica's last compaction of this run reported; an
    /// extent it left off inside is mapped from there on. Without it, extents that a compaction went over count as clean.
    #[must_use]
    pub fn compaction(
        &self,
        part: PartIx,
        bound: Offset,
        settings: &CompactionSettings,
        now: Option<WallMs>,
        cleaned_to: Option<Offset>,
    ) -> Option<Plan> {
        let it = self.parts.get(&part)?;
        if it.hole.is_some() {
            return None;
        }
        let rows = it.extents.iter().map(|slot| (*slot, self.table.row(*slot)));
        let sealed = rows
            .take_while(|(_, row)| row.state == SlotState::Sealed && row.last < bound)
            .map(|(slot, row)| sealed(slot, row));
        let (extents, first_dirty) = choose(sealed, settings, now, cleaned_to)?;
        let producers = self.windows.producers(part);
        Some(Plan {
            part,
            extents,
            first_dirty,
            id: it.id,
            disk: self.superblock.disk,
            producers: producers
                .map(|it| (it.pid.0, (it.epoch.0, it.last_seq)))
                .collect(),
            delete_retention_ms: settings.delete_retention_ms,
            now,
            run_bytes: it.settings.class_in_quota().data_bytes(),
        })
    }
}

fn sealed(slot: u32, row: &Row) -> Sealed {
    Sealed {
        life: SlotLife {
            slot,
            generation: row.generation,
        },
        compacted: row.flags & COMPACTED != 0,
        used: row.used,
        base: row.base,
        last: row.last,
        max_ts: row.max_ts,
        appended_at: row.appended_at,
    }
}

/// The extents to be cleaned and where their dirty part begins, by Kafka's rules.
fn choose(
    sealed: impl Iterator<Item = Sealed>,
    settings: &CompactionSettings,
    now: Option<WallMs>,
    cleaned_to: Option<Offset>,
) -> Option<(VecDeque<Sealed>, Offset)> {
    let mut extents: VecDeque<Sealed> = VecDeque::new();
    let (mut clean_bytes, mut dirty_bytes) = (0, 0);
    let mut first_dirty = None;
    let mut overdue = false;
    let age = |time: WallMs| now.map_or(0, |now| now.0.saturating_sub(time.0));
    for extent in sealed {
        let clean = match cleaned_to {
            Some(to) => extent.last < to,
            None => extent.compacted,
        };
        if clean && first_dirty.is_none() {
            clean_bytes += extent.bytes();
        } else {
            let newest = extent.max_ts.max(extent.appended_at);
            if age(newest) < settings.lag_ms_min {
                break;
            }
            // Its oldest record is no older than the extent before.
            let oldest = extents
                .back()
                .map_or(extent.max_ts, |before| before.max_ts.min(extent.max_ts));
            overdue |= now.is_some() && age(oldest) >= settings.lag_ms_max;
            first_dirty.get_or_insert(cleaned_to.map_or(extent.base, |to| to.max(extent.base)));
            dirty_bytes += extent.bytes();
        }
        extents.push_back(extent);
    }
    let first_dirty = first_dirty?;
    let ratio = dirty_bytes as f64 / (dirty_bytes + clean_bytes).max(1) as f64;
    (overdue || ratio >= settings.dirty_ratio_min).then_some((extents, first_dirty))
}

/// The longest run from the front that one extent is sure to hold, and whose offsets one index can name.
pub(super) fn run(extents: &VecDeque<Sealed>, end: Offset, bytes_max: u64) -> usize {
    let mut bytes = 0;
    let base = extents.front().map_or(Offset::ZERO, |it| it.base);
    let fits = |extent: &&Sealed| {
        let first = bytes == 0;
        bytes += extent.bytes();
        extent.base < end
            && (first || bytes <= bytes_max)
            && extent.last.since(base) <= i64::from(u32::MAX)
    };
    extents.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(slot: u32, kib: u32, compacted: bool, max_ts: i64) -> Sealed {
        Sealed {
            life: SlotLife {
                slot,
                generation: 1,
            },
            compacted,
            used: DATA_AT + kib * 1024,
            base: Offset(i64::from(slot) * 100),
            last: Offset(i64::from(slot) * 100 + 99),
            max_ts: WallMs(max_ts),
            appended_at: WallMs(0),
        }
    }

    fn chosen(
        extents: &[Sealed],
        settings: CompactionSettings,
        cleaned_to: Option<i64>,
    ) -> Option<(usize, i64)> {
        let extents = extents.iter().copied();
        let now = Some(WallMs(10_000));
        choose(extents, &settings, now, cleaned_to.map(Offset)).map(|(it, at)| (it.len(), at.0))
    }

    #[test]
    fn the_ratio_decides() {
        let settings = CompactionSettings::default();
        let log = [
            extent(0, 600, true, 1),
            extent(1, 300, false, 2),
            extent(2, 300, false, 3),
        ];
        assert_eq!(chosen(&log, settings, None), Some((3, 100)));
        assert_eq!(chosen(&log[..2], settings, None), None);
        assert_eq!(chosen(&log[..1], settings, None), None);
        let always = CompactionSettings {
            dirty_ratio_min: 0.0,
            ..settings
        };
        assert_eq!(chosen(&log[..2], always, None), Some((2, 100)));
        assert_eq!(chosen(&log[..1], always, None), None);
        // The last compaction ended inside the second one.
        assert_eq!(chosen(&log, settings, Some(150)), Some((3, 150)));
        assert_eq!(chosen(&log, settings, Some(300)), None);
    }

    #[test]
    fn young_records_stay_and_old_ones_do_not_wait() {
        let settings = CompactionSettings {
            lag_ms_min: 1000,
            ..CompactionSettings::default()
        };
        let log = [extent(0, 100, false, 5000), extent(1, 100, false, 9500)];
        assert_eq!(chosen(&log, settings, None), Some((1, 0)));
        let overdue = CompactionSettings {
            dirty_ratio_min: 1.0,
            lag_ms_max: 4000,
            ..CompactionSettings::default()
        };
        let log = [extent(0, 900, true, 1), extent(1, 100, false, 9000)];
        assert_eq!(chosen(&log, overdue, None), Some((2, 100)));
        let log = [extent(0, 900, true, 8000), extent(1, 100, false, 9000)];
        assert_eq!(chosen(&log, overdue, None), None);
    }

    #[test]
    fn without_a_trusted_time_nothing_is_old() {
        let log = [extent(0, 900, true, 1), extent(1, 100, false, 2)];
        let choose = |settings: CompactionSettings, now| {
            choose(log.iter().copied(), &settings, now, None).is_some()
        };
        let overdue = CompactionSettings {
            dirty_ratio_min: 1.0,
            lag_ms_max: 1,
            ..CompactionSettings::default()
        };
        assert!(choose(overdue, Some(WallMs(1000))) && !choose(overdue, None));
        let patient = CompactionSettings {
            dirty_ratio_min: 0.0,
            lag_ms_min: 1,
            ..CompactionSettings::default()
        };
        assert!(choose(patient, Some(WallMs(1000))) && !choose(patient, None));
        let any = CompactionSettings {
            lag_ms_min: 0,
            ..patient
        };
        assert!(choose(any, None), "what needs no time goes on");
    }

    #[test]
    fn a_run_fits_one_extent() {
        let log: VecDeque<Sealed> = (0..9).map(|slot| extent(slot, 8000, true, 1)).collect();
        assert_eq!(run(&log, Offset(i64::MAX), 64 << 20), 8);
        assert_eq!(run(&log, Offset(250), 64 << 20), 3);
        assert_eq!(run(&log, Offset(250), 1), 1);
    }
}
