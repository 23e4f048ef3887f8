//! The reader thread over a disk on a real file system.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::batch::Codec;
use model::record::{Builder, Producer};
use model::{LeaderEpoch, NodeId, SiteUuid};
use store::{Append, Config, Disk, FormatConfig, Op};

use super::*;

/// A disk with two replicas of `BATCHES` batches each, in a directory that is removed at the end.
struct World {
    root: PathBuf,
    view: Arc<View<LinuxIo>>,
    _disk: Disk<LinuxIo>,
}

const PARTS: [PartIx; 2] = [PartIx(0), PartIx(1)];
const BATCHES: i64 = 40;
const BATCH_BYTES: usize = 100_000;

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
            journal_bytes: 32 << 20,
            journal_apart: false,
        };
        Disk::format(&io(), &format).unwrap();
        let (mut disk, _) = Disk::open(io(), Config::default()).unwrap();
        let mut queue = store::Queue::default();
        for part in PARTS {
            let id = Default::default();
            queue.push(Op::PartNew { part, id }, ());
            for at in 0..BATCHES {
                queue.push(Op::Append(append(part, at)), ());
            }
        }
        while !queue.is_empty() {
            disk.commit(&mut queue, None, &mut Vec::new()).unwrap();
        }
        Self {
            view: disk.view(),
            root,
            _disk: disk,
        }
    }

    fn reader(&self) -> (Reader, Arc<Pace>) {
        let pace = Arc::new(Pace::default());
        let reader = Reader::start(
            0,
            Some(self.view.clone()),
            pace.clone(),
            mpsc::unbounded_channel().0,
        )
        .unwrap();
        (reader, pace)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn append(part: PartIx, at: i64) -> Append {
    let mut builder = Builder::default();
    builder.push(
        1_000 + at,
        None,
        Some(&[at as u8; BATCH_BYTES]),
        [].into_iter(),
    );
    let batch = builder.finish(Codec::None, Producer::NONE).unwrap();
    Append {
        part,
        base_offset: Offset(at),
        leader_epoch: LeaderEpoch(3),
        hw: Offset(0),
        gap: false,
        append_time: None,
        batch: Bytes::from(batch),
    }
}

fn ask(part: PartIx, from: i64, bytes_max: u64) -> Locate {
    Locate {
        part,
        from: Offset(from),
        until: Offset(BATCHES),
        bytes_max,
        at_least_one: true,
    }
}

#[test]
fn what_is_asked_is_answered_and_a_failed_disk_is_let_go() {
    let world = World::new("reader-answers");
    let (reader, _) = world.reader();
    let ranges = reader
        .locate(ask(PARTS[0], 3, 1))
        .blocking_recv()
        .unwrap()
        .unwrap();
    let mut bytes = vec![0; ranges[0].len()];
    ranges[0].read_into(&mut bytes).unwrap();
    let header = model::batch::Header::check(&bytes).unwrap();
    assert_eq!(header.base_offset, Offset(3));
    reader
        .warm(ranges[0].clone())
        .blocking_recv()
        .unwrap()
        .unwrap();

    let find = |find| {
        reader
            .find(PARTS[1], find, Offset(BATCHES))
            .blocking_recv()
            .unwrap()
            .unwrap()
    };
    let record = |offset| Stamped {
        offset: Offset(offset),
        timestamp: WallMs(1_000 + offset),
        epoch: LeaderEpoch(3),
    };
    assert_eq!(find(Find::At(WallMs(1_007))), Some(record(7)));
    assert_eq!(find(Find::Latest), Some(record(BATCHES - 1)));
    assert_eq!(find(Find::At(WallMs(9_999))), None);

    let error = reader
        .locate(ask(PartIx(7), 0, 1))
        .blocking_recv()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.to_string(), "replica 7 is not on this disk");
    drop(ranges);
    reader.detach();
    assert!(reader.locate(ask(PARTS[0], 3, 1)).blocking_recv().is_err());
    // The job under way may end a moment later.
    let began = Instant::now();
    while Arc::strong_count(&world.view) > 2 {
        assert!(began.elapsed() < Duration::from_secs(5), "the view is held");
        std::thread::yield_now();
    }
    reader.attach(world.view.clone());
    assert!(
        reader
            .locate(ask(PARTS[0], 3, 1))
            .blocking_recv()
            .unwrap()
            .is_ok()
    );
}

/// Without a thread, so that the order is seen.
#[test]
fn partitions_take_turns_however_much_one_of_them_asks() {
    let world = World::new("reader-turns");
    let reader = Reader {
        shared: shared(&world),
    };
    let _first: Vec<_> = (0..3)
        .map(|at| reader.locate(ask(PARTS[0], at, 1)))
        .collect();
    let _second: Vec<_> = (0..2)
        .map(|at| reader.locate(ask(PARTS[1], at, 1)))
        .collect();
    let mut order = Vec::new();
    while let Some((_, job)) = reader.shared.lock().pop() {
        let Job::Locate { ask, .. } = job else {
            unreachable!("only these were asked")
        };
        order.push((ask.part.0, ask.from.0));
    }
    assert_eq!(order, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]);
    let queue = reader.shared.lock();
    assert!(queue.count == 0 && queue.jobs.is_empty() && queue.turns.is_empty());
}

fn shared(world: &World) -> Arc<Shared> {
    let queue = super::Queue {
        view: Some(world.view.clone()),
        ..super::Queue::default()
    };
    Arc::new(Shared {
        queue: Mutex::new(queue),
        wake: Condvar::new(),
        pace: Arc::default(),
        scrubbed_bytes: AtomicU64::new(0),
        scrub_rounds: AtomicU64::new(0),
    })
}

#[test]
fn who_goes_through_a_log_is_read_ahead_for() {
    let world = World::new("reader-ahead");
    let mut thread = Thread::new(0, shared(&world), mpsc::unbounded_channel().0);
    let range = |from, bytes| match world.view.locate(&ask(PARTS[0], from, bytes), Reach::Disk) {
        Ok(Located::Ranges(mut ranges)) => ranges.swap_remove(0),
        other => panic!("{other:?}"),
    };
    let view = &world.view;
    let first = range(0, 250_000);
    assert_eq!(thread.read(view, &first, TURN_BYTES).unwrap(), first.len());
    // Elsewhere: only what was asked for.
    let other = range(6, 100);
    assert_eq!(thread.read(view, &other, TURN_BYTES).unwrap(), other.len());
    let next = range(2, 250_000);
    assert_eq!(next.position(), first.position() + first.len() as u64);
    let read = thread.read(view, &next, TURN_BYTES).unwrap();
    assert!(read > 2 * next.len(), "{read} bytes, to the extent's end");
    assert_eq!(thread.cursors.len(), 2);
    // And on into the extent behind it.
    let behind = range(10, 100);
    assert_eq!(behind.position(), u64::from(DATA_AT));
    let read = thread.read(view, &behind, TURN_BYTES).unwrap();
    assert!(read > 2 * behind.len(), "{read} bytes of the next extent");
}

#[test]
fn once_a_second_the_scrubber_has_a_turn_and_its_verdicts_are_told() {
    let world = World::new("reader-scrubs");
    let (events, mut told) = mpsc::unbounded_channel();
    let pace = Arc::new(Pace::default());
    let reader = Reader::start(3, Some(world.view.clone()), pace, events).unwrap();
    // The first extent is of 1 MiB: one turn, or two.
    let Some(Event::Scrubbed { disk: 3, verdict }) = told.blocking_recv() else {
        panic!("no verdict");
    };
    assert_eq!(verdict.suspects, []);
    let (bytes, rounds) = reader.scrubbed();
    assert!(rounds == 0 && bytes > 900_000, "{bytes} B, {rounds} rounds");
    // A disk that failed is not read.
    reader.detach();
}

#[test]
fn a_place_that_cannot_be_read_costs_what_lies_behind_it_and_not_what_lies_before() {
    let world = World::new("reader-broken");
    let (reader, _) = world.reader();
    let locate = |from, bytes_max| {
        let answer = reader.locate(ask(PARTS[0], from, bytes_max));
        answer.blocking_recv().unwrap()
    };
    let whole = locate(0, u64::MAX).unwrap();
    assert_eq!(whole.len(), 2, "one of 1 MiB, one of 8");
    // The second extent ends amid a batch, as if its disk could read no further.
    let life = whole[1].life();
    let path = world
        .root
        .join(store::io::Name::Extent(life.slot).to_string());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(350_000).unwrap();
    let bytes_of = |ranges: &[Range<LinuxIo>]| ranges.iter().map(Range::len).sum::<usize>();
    let before = locate(0, u64::MAX).unwrap();
    let good = bytes_of(&whole[..1]) + 3 * BATCH_BYTES;
    assert!(
        (good..good + 3 * 100).contains(&bytes_of(&before)),
        "{} B, the first extent and three batches",
        bytes_of(&before)
    );
    let batches = bytes_of(&before) / BATCH_BYTES;
    let next = batches as i64;
    let error = locate(next, u64::MAX).unwrap_err();
    assert!(matches!(error, ReadError::Io { .. }), "{error}");
}
