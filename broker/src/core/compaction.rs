//! When a compacted replica's disk is asked to compact it.
//!
//! One compaction at a time on a disk; the others stand in line, and the disk's writer thread says what is worth it: only
//! it knows the extents. Every replica is asked for now and then, and sooner when it has grown. Near its quota less dirt
//! is enough, so that compaction has had its turn before what `howdah.on.full` says is done.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::{Instant, Offset};
use node::broker::ReplicaIx;
use node::catalog::TopicSettings;
use store::compact::{Cleaned, CompactionSettings};
use store::{Class, ExtentInfo};

use super::Inner;
use crate::clock;
use crate::spindle::{Compacted, Condition, Ending, Order};

/// How often every compacted replica is looked at: Kafka's `log.cleaner.backoff.ms`.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A replica is looked at sooner when it has grown by this part of its quota, between one small extent and a medium one.
const GROWN_PART: u64 = 16;
const GROWN_BYTES_MIN: u64 = Class::Small.bytes();
const GROWN_BYTES_MAX: u64 = Class::Medium.bytes();
/// A log that found no room for its copy is left alone this long.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(300);
/// And one that can't be read, which a compaction does not mend.
const TROUBLE_PAUSE: Duration = Duration::from_secs(3600);
/// From three quarters of the quota on a tenth of dirt is enough: each byte is then copied ten times at most.
const NEAR_RATIO: f64 = 0.1;

/// What a replica's compaction goes by.
#[derive(Debug, Default)]
pub(super) struct State {
    /// None: its topic is not compacted.
    settings: Option<CompactionSettings>,
    /// What the last compaction reported. It is forgotten with the process, and with a failure of the disk.
    cleaned_to: Option<Offset>,
    /// Bytes appended since it was looked at.
    grown_bytes: u64,
    /// What its disk keeps for it beyond the quota.
    slack_bytes: u64,
    /// It stands in line, or is being compacted.
    wanted: bool,
    /// Not before this.
    pause_until: Instant,
}

/// One disk's line.
#[derive(Debug, Default)]
struct Line {
    busy: bool,
    /// Each replica once.
    waiting: VecDeque<ReplicaIx>,
    totals: Totals,
}

/// What compaction did on a disk since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) compactions: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    /// Bytes of batches by which logs became shorter.
    pub(super) bytes_freed: u64,
    pub(super) records_dropped: u64,
}

/// All lines, and when every replica is looked at again.
#[derive(Debug, Default)]
pub(super) struct Lines {
    due: Instant,
    by_disk: BTreeMap<usize, Line>,
}

impl Lines {
    pub(super) fn totals(&self, disk: usize) -> Totals {
        self.by_disk
            .get(&disk)
            .map(|line| line.totals)
            .unwrap_or_default()
    }
}

impl State {
    /// Its topic's configs changed, or are known at last.
    pub(super) fn configure(&mut self, settings: &TopicSettings) {
        self.settings = settings.compact.then_some(CompactionSettings {
            dirty_ratio_min: settings.min_cleanable_dirty_ratio,
            lag_ms_min: settings.min_compaction_lag_ms,
            lag_ms_max: settings.max_compaction_lag_ms,
            delete_retention_ms: settings.delete_retention_ms,
        });
        // As the catalog reserves it.
        let class = Class::holding(settings.partition.batch_bytes_max.into());
        self.slack_bytes = class.unwrap_or(Class::Large).bytes();
    }

    pub(super) fn appended(&mut self, bytes: usize) {
        self.grown_bytes += bytes as u64;
    }

    /// Whether a compaction is on its way that may spare what retention by size would let go of: then that waits for it,
    /// as long as the log takes no more than is kept for it.
    pub(super) fn may_make_room(&self, bytes: u64, quota_bytes: u64) -> bool {
        self.wanted && bytes < quota_bytes.saturating_add(self.slack_bytes)
    }

    /// Whether its extents are to be looked at now; `all`: it is time for every replica.
    fn due(&self, now: Instant, quota_bytes: u64, all: bool) -> bool {
        let grown = (quota_bytes / GROWN_PART).clamp(GROWN_BYTES_MIN, GROWN_BYTES_MAX);
        self.settings.is_some()
            && !self.wanted
            && now >= self.pause_until
            && (all || self.grown_bytes >= grown)
    }
}

/// As in Kafka, a compacted topic's open extent is sealed early enough for `max.compaction.lag.ms`, since only sealed ones
/// are compacted.
pub(super) fn segment_ms(settings: &TopicSettings) -> i64 {
    match settings.compact && settings.max_compaction_lag_ms > 0 {
        true => settings.segment_ms.min(settings.max_compaction_lag_ms),
        false => settings.segment_ms,
    }
}

/// The open extent's records are not compacted, so it is a medium one at most. The offsets of groups are a few records
/// written over and over, and are read whole at each start: a small one.
pub(super) fn class_max(settings: &TopicSettings, internal: bool) -> Class {
    match (settings.compact, internal) {
        (false, _) => Class::Large,
        (true, false) => Class::Medium,
        (true, true) => Class::Small,
    }
}

/// Whether a log has sealed extents below `bound` that the last compaction has not been over. Without `cleaned_to` only
/// its disk knows.
fn dirty(extents: &[ExtentInfo], bound: Offset, cleaned_to: Option<Offset>) -> bool {
    let clean = cleaned_to.unwrap_or(Offset::ZERO);
    extents
        .iter()
        .any(|extent| !extent.open && extent.last < bound && extent.last >= clean)
}

/// How dirty a log of `bytes` must be.
fn ratio(settings: &CompactionSettings, bytes: u64, quota_bytes: u64) -> f64 {
    let near = quota_bytes - quota_bytes / 4;
    match bytes {
        it if it >= quota_bytes => 0.0,
        it if it >= near => settings.dirty_ratio_min.min(NEAR_RATIO),
        _ => settings.dirty_ratio_min,
    }
}

impl Inner {
    /// Lets replicas that may be worth compacting stand in line, and gives every idle disk the next one.
    pub(super) fn compact(&mut self, now: Instant) {
        if self.stopping {
            return;
        }
        let all = self.compaction.due <= now;
        if all {
            self.compaction.due = now + LOOK_EVERY;
        }
        for (at, replica) in self.replicas.iter_mut() {
            let state = &mut replica.compaction;
            if !state.due(now, replica.keep.quota_bytes, all) {
                continue;
            }
            let Some(log) = self.spindles[replica.disk]
                .view()
                .and_then(|view| view.log(replica.part))
            else {
                continue;
            };
            state.grown_bytes = 0;
            let Some(machine) = self.broker.partition(at) else {
                continue;
            };
            if dirty(&log.extents, machine.stable_end(), state.cleaned_to) {
                state.wanted = true;
                let line = self.compaction.by_disk.entry(replica.disk).or_default();
                line.waiting.push_back(at);
            }
        }
        for disk in 0..self.spindles.len() {
            self.next_compaction(disk);
        }
    }

    /// Orders the next one in a disk's line, if nothing is under way there.
    fn next_compaction(&mut self, disk: usize) {
        let spindle = &self.spindles[disk];
        let Some(line) = self.compaction.by_disk.get_mut(&disk) else {
            return;
        };
        while !line.busy && !self.stopping && spindle.condition() == Condition::Serving {
            let Some(at) = line.waiting.pop_front() else {
                return;
            };
            // Its number may have been given to another one that stands in no line.
            let Some(replica) = self.replicas.get_mut(at).filter(|it| it.disk == disk) else {
                continue;
            };
            let quota_bytes = replica.keep.quota_bytes;
            let state = &mut replica.compaction;
            let (Some(settings), Some(view), Some(machine)) =
                (state.settings, spindle.view(), self.broker.partition(at))
            else {
                state.wanted = false;
                continue;
            };
            spindle.compact(Order {
                replica: at,
                part: replica.part,
                bound: machine.stable_end(),
                settings: CompactionSettings {
                    dirty_ratio_min: ratio(&settings, view.bytes(replica.part), quota_bytes),
                    ..settings
                },
                cleaned_to: state.cleaned_to,
            });
            line.busy = true;
        }
    }

    /// What became of an order.
    pub(super) fn compacted(&mut self, disk: usize, compacted: Compacted) {
        let line = self.compaction.by_disk.entry(disk).or_default();
        line.busy = false;
        let Compacted {
            replica: at,
            part,
            cleaned,
            ending,
        } = compacted;
        if let Some(cleaned) = &cleaned {
            line.totals.add(cleaned);
        }
        let replica = self.replicas.get_mut(at);
        if let Some(replica) = replica.filter(|it| it.disk == disk && it.part == part) {
            let state = &mut replica.compaction;
            state.wanted = false;
            if let Ending::Trouble(trouble) = &ending {
                tracing::error!(topic = ?replica.topic, partition = replica.index, trouble, "compaction was given up");
                state.pause_until = clock::now() + TROUBLE_PAUSE;
            }
            if let Some(cleaned) = cleaned {
                tracing::debug!(topic = ?replica.topic, partition = replica.index, ?cleaned, "compacted");
                if cleaned.no_room {
                    tracing::warn!(topic = ?replica.topic, partition = replica.index, "no room for a compacted extent");
                    state.pause_until = clock::now() + NO_ROOM_PAUSE;
                }
                let moved = state.cleaned_to.is_none_or(|it| it < cleaned.cleaned_to);
                if cleaned.swaps > 0 {
                    state.cleaned_to = Some(cleaned.cleaned_to);
                }
                // The map of keys may have been full: the rest comes when the others had their turn.
                if cleaned.swaps > 0 && moved && !cleaned.no_room && ending == Ending::Whole {
                    state.wanted = true;
                    line.waiting.push_back(at);
                }
            }
        }
        self.next_compaction(disk);
    }

    /// A disk failed: what was under way is gone, and what it comes back with is looked at anew.
    pub(super) fn compaction_failed(&mut self, disk: usize) {
        let line = self.compaction.by_disk.entry(disk).or_default();
        line.busy = false;
        line.waiting.clear();
        for (_, replica) in self.replicas.iter_mut() {
            if replica.disk == disk {
                replica.compaction.wanted = false;
                replica.compaction.cleaned_to = None;
            }
        }
    }
}

impl Totals {
    fn add(&mut self, cleaned: &Cleaned) {
        self.compactions += u64::from(cleaned.swaps > 0);
        self.bytes_read += cleaned.bytes_read;
        self.bytes_written += cleaned.bytes_after;
        // Recompressed batches can be longer than they were.
        self.bytes_freed += cleaned.bytes_before.saturating_sub(cleaned.bytes_after);
        self.records_dropped += cleaned.records_dropped;
    }
}

#[cfg(test)]
mod tests {
    use model::WallMs;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn settings() -> CompactionSettings {
        CompactionSettings::default()
    }

    fn topic(compact: bool) -> TopicSettings {
        TopicSettings {
            partition: node::partition::Settings {
                min_insync: 1,
                batch_bytes_max: 1 << 20,
                refuse_when_full: false,
            },
            delete: !compact,
            compact,
            log_append_time: false,
            timestamp_before_ms: i64::MAX,
            timestamp_after_ms: i64::MAX,
            quota_bytes: 64 * MIB,
            retention_ms: -1,
            segment_ms: 7000,
            delete_retention_ms: 4000,
            min_compaction_lag_ms: 10,
            max_compaction_lag_ms: 5000,
            min_cleanable_dirty_ratio: 0.3,
        }
    }

    fn extent(base: i64, open: bool) -> ExtentInfo {
        ExtentInfo {
            base: Offset(base),
            last: Offset(base + 99),
            bytes: MIB,
            file_bytes: MIB,
            max_ts: WallMs(1),
            appended_at: WallMs(1),
            open,
        }
    }

    #[test]
    fn only_compacted_topics_are_looked_at_now_and_then_or_when_they_have_grown() {
        let now = Instant(1_000_000_000);
        let mut state = State::default();
        assert!(!state.due(now, 64 * MIB, true), "not known yet");
        state.configure(&topic(false));
        assert!(!state.due(now, 64 * MIB, true), "not compacted");
        state.configure(&topic(true));
        assert_eq!(
            state.settings,
            Some(CompactionSettings {
                dirty_ratio_min: 0.3,
                lag_ms_min: 10,
                lag_ms_max: 5000,
                delete_retention_ms: 4000,
            })
        );
        assert!(state.due(now, 64 * MIB, true));
        assert!(!state.due(now, 64 * MIB, false), "it has not grown");
        state.appended(3 << 20);
        assert!(!state.due(now, 64 * MIB, false), "by less than its part");
        state.appended(1 << 20);
        assert!(state.due(now, 64 * MIB, false), "by a sixteenth");
        assert!(state.due(now, MIB, false), "and no sooner than an extent");
        assert!(!state.due(now, u64::MAX, false), "but a medium one is much");
        state.appended(4 << 20);
        assert!(state.due(now, u64::MAX, false));
        state.pause_until = now + TROUBLE_PAUSE;
        assert!(!state.due(now, 64 * MIB, true), "it was in trouble");
        assert!(state.due(now + TROUBLE_PAUSE, 64 * MIB, true));
        state.wanted = true;
        assert!(!state.due(now + TROUBLE_PAUSE, MIB, true), "once is enough");
    }

    #[test]
    fn sealed_extents_below_the_bound_that_no_compaction_went_over_are_dirty() {
        let log = [extent(0, false), extent(100, false), extent(200, true)];
        assert!(dirty(&log, Offset(300), None));
        assert!(dirty(&log, Offset(300), Some(Offset(100))));
        assert!(dirty(&log, Offset(300), Some(Offset(150))), "in part");
        assert!(!dirty(&log, Offset(300), Some(Offset(200))));
        assert!(
            !dirty(&log, Offset(199), Some(Offset(100))),
            "not committed"
        );
        assert!(!dirty(&log[2..], Offset(300), None), "open");
    }

    #[test]
    fn near_the_quota_less_dirt_is_enough() {
        let of = |bytes| ratio(&settings(), bytes * MIB, 64 * MIB);
        assert_eq!([of(0), of(47)], [0.5, 0.5]);
        assert_eq!([of(48), of(63)], [NEAR_RATIO, NEAR_RATIO]);
        assert_eq!([of(64), of(100)], [0.0, 0.0]);
        let eager = CompactionSettings {
            dirty_ratio_min: 0.01,
            ..settings()
        };
        assert_eq!(ratio(&eager, 50 * MIB, 64 * MIB), 0.01);
    }

    #[test]
    fn retention_by_size_waits_for_a_compaction_within_what_is_kept_for_the_log() {
        let mut state = State::default();
        state.configure(&topic(true));
        assert!(!state.may_make_room(64 * MIB, 64 * MIB), "none is coming");
        state.wanted = true;
        assert!(state.may_make_room(64 * MIB, 64 * MIB));
        assert!(state.may_make_room(71 * MIB, 64 * MIB));
        assert!(!state.may_make_room(72 * MIB, 64 * MIB), "a medium extent");
        assert!(state.may_make_room(72 * MIB, u64::MAX));
    }

    #[test]
    fn open_extents_of_compacted_topics_stay_small_and_young() {
        assert_eq!(segment_ms(&topic(false)), 7000);
        assert_eq!(segment_ms(&topic(true)), 5000);
        let unbounded = TopicSettings {
            max_compaction_lag_ms: i64::MAX,
            ..topic(true)
        };
        assert_eq!(segment_ms(&unbounded), 7000);
        assert_eq!(class_max(&topic(false), false), Class::Large);
        assert_eq!(class_max(&topic(true), false), Class::Medium);
        assert_eq!(class_max(&topic(true), true), Class::Small);
    }
}
