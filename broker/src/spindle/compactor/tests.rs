//! Compactions through both threads of a disk on a real file system, beside appends.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use model::batch::Codec;
use model::record::{Builder, Producer};
use model::{LeaderEpoch, NodeId, SiteUuid};
use node::broker::ReplicaIx;
use site::ClockSource;
use store::verify::verify;
use store::{Append, Class, Config, FormatConfig, PartSettings};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::open::{DiskPlace, Opened};
use super::super::{After, Event, Spindle};
use super::*;

const PART: PartIx = PartIx(0);
const KEYS: i64 = 16;
const VALUE_BYTES: usize = 50_000;
/// Of a record each; an extent of 1 MiB holds twenty.
const BATCHES: i64 = 200;
/// Compacts whatever there is.
const ALWAYS: CompactionSettings = CompactionSettings {
    dirty_ratio_min: 0.0,
    lag_ms_min: 0,
    lag_ms_max: i64::MAX,
    delete_retention_ms: 3_600_000,
};

/// A disk whose threads run, in a directory that is removed at the end.
struct World {
    root: PathBuf,
    spindle: Spindle,
    events: UnboundedReceiver<Event>,
    end: i64,
    durable: Offset,
}

impl World {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("howdah-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let io = || LinuxIo::new(&root, None).unwrap();
        let format = FormatConfig {
            node: NodeId(1),
            incarnation: None,
            site: SiteUuid::default(),
            meta: true,
            replacement: false,
            journal_bytes: 64 << 20,
            journal_apart: false,
        };
        Disk::format(&io(), &format).unwrap();
        let (disk, recovered) = Disk::open(io(), Config::default()).unwrap();
        let opened = Opened {
            place: DiskPlace {
                at: 0,
                path: root.clone(),
                journal: None,
                journal_bytes: format.journal_bytes,
                config: Config::default(),
                lock: None,
            },
            disk: Some(disk),
            recovered,
            use_bytes: 1 << 30,
        };
        let (sender, events) = unbounded_channel();
        let spindle = Spindle::start(0, opened, ClockSource::Trusted, sender).unwrap();
        let id = Default::default();
        spindle.push(Op::PartNew { part: PART, id }, After::Nothing);
        let settings = PartSettings {
            class_max: Class::Small,
            ..PartSettings::default()
        };
        let settings = Op::Settings {
            part: PART,
            settings,
        };
        spindle.push(settings, After::Nothing);
        Self {
            root,
            spindle,
            events,
            end: 0,
            durable: Offset::ZERO,
        }
    }

    fn append(&mut self, count: i64) {
        for _ in 0..count {
            let mut builder = Builder::default();
            let key = format!("key {}", self.end % KEYS);
            let value = vec![self.end as u8; VALUE_BYTES];
            let time = crate::clock::wall().0;
            builder.push(time, Some(key.as_bytes()), Some(&value), [].into_iter());
            let batch = builder.finish(Codec::None, Producer::NONE).unwrap();
            let append = Append {
                part: PART,
                base_offset: Offset(self.end),
                leader_epoch: LeaderEpoch(1),
                hw: Offset(self.end),
                gap: false,
                append_time: None,
                batch: Bytes::from(batch),
            };
            self.end += 1;
            let after = After::Durable {
                replica: ReplicaIx(7),
                end: Offset(self.end),
            };
            self.spindle.push(Op::Append(append), after);
        }
        self.spindle.flush();
    }

    fn order(&self, cleaned_to: Option<Offset>) -> Order {
        Order {
            replica: ReplicaIx(7),
            part: PART,
            bound: Offset(self.end),
            settings: ALWAYS,
            cleaned_to,
        }
    }

    /// The next event that `wanted` takes; what is durable is noted on the way.
    fn until<T>(&mut self, mut wanted: impl FnMut(&Event, Offset) -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while std::time::Instant::now() < deadline {
            let Ok(event) = self.events.try_recv() else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            match &event {
                Event::Failed { error, .. } => panic!("{error}"),
                Event::Done { outcomes, .. } => {
                    for (after, outcome) in outcomes {
                        assert_ne!(*after, After::Swap, "the core knows of no swaps");
                        if let After::Durable { end, .. } = after {
                            assert_eq!(*outcome, Outcome::Done);
                            self.durable = *end;
                        }
                    }
                }
                _ => {}
            }
            if let Some(found) = wanted(&event, self.durable) {
                return found;
            }
        }
        panic!("it does not come in a minute");
    }

    fn durable(&mut self) {
        let end = Offset(self.end);
        if self.durable < end {
            self.until(|_, durable| (durable == end).then_some(()));
        }
    }

    fn compacted(&mut self) -> Compacted {
        self.until(|event, _| match event {
            Event::Compacted { compacted, .. } => Some(compacted.clone()),
            _ => None,
        })
    }

    fn bytes(&self) -> u64 {
        self.spindle.view().unwrap().bytes(PART)
    }

    /// Stops in order and reads every byte of the disk.
    fn stop(mut self) {
        self.spindle.stop();
        self.until(|event, _| matches!(event, Event::Stopped { .. }).then_some(()));
        let io = LinuxIo::new(&self.root, None).unwrap();
        let mut faults = Vec::new();
        verify(&io, &mut |event| {
            if let store::verify::Event::Fault(fault) = event {
                faults.push(format!("{fault:?}"));
            }
        });
        assert!(faults.is_empty(), "{faults:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[test]
fn an_order_is_carried_out_beside_appends_and_the_next_one_finds_it_clean() {
    let mut world = World::new("compactor-beside");
    world.append(BATCHES);
    world.durable();
    let before = world.bytes();
    world.spindle.compact(world.order(None));
    // Groups go on meanwhile, and take the swap with them.
    world.append(BATCHES / 2);
    let compacted = world.compacted();
    assert_eq!(
        (compacted.replica, compacted.part, &compacted.ending),
        (ReplicaIx(7), PART, &Ending::Whole)
    );
    let cleaned = compacted.cleaned.expect("there was much to do");
    assert!(cleaned.swaps > 0 && !cleaned.no_room, "{cleaned:?}");
    let kept = KEYS as u64 * VALUE_BYTES as u64;
    assert!(cleaned.bytes_after < kept * 2, "{cleaned:?}");
    assert!(
        cleaned.records_dropped > BATCHES as u64 / 2,
        "{} of {BATCHES} records, each key {} times",
        cleaned.records_dropped,
        BATCHES / KEYS
    );
    world.durable();
    assert!(
        world.bytes() < before,
        "{} B with half as many more, {before} B before",
        world.bytes()
    );
    // What came behind is compacted next, and then there is nothing.
    world.spindle.compact(world.order(Some(cleaned.cleaned_to)));
    let cleaned = world.compacted().cleaned.expect("half as many came behind");
    world.spindle.compact(world.order(Some(cleaned.cleaned_to)));
    assert_eq!(world.compacted().cleaned, None);
    world.stop();
}

#[test]
fn a_log_that_goes_meanwhile_is_no_trouble_and_the_thread_takes_the_next_order() {
    let mut world = World::new("compactor-overtaken");
    world.append(BATCHES);
    world.durable();
    world.spindle.compact(world.order(None));
    let start = Op::LogStart {
        part: PART,
        offset: Offset(world.end),
    };
    world.spindle.push(start, After::Nothing);
    world.spindle.flush();
    let compacted = world.compacted();
    // Either was first.
    assert!(
        matches!(compacted.ending, Ending::Overtaken | Ending::Whole),
        "{compacted:?}"
    );
    world.append(BATCHES);
    world.durable();
    world.spindle.compact(world.order(None));
    let compacted = world.compacted();
    assert_eq!(compacted.ending, Ending::Whole);
    assert!(compacted.cleaned.is_some_and(|it| it.swaps > 0));
    world.stop();
}

#[test]
fn a_stop_amid_a_compaction_leaves_a_whole_disk() {
    for pause in [0, 3, 10, 30] {
        let mut world = World::new(&format!("compactor-stop-{pause}"));
        world.append(BATCHES);
        world.durable();
        world.spindle.compact(world.order(None));
        std::thread::sleep(Duration::from_millis(pause));
        world.stop();
    }
}
