//! Readers beside the writer on a real file system: whatever they are given are whole batches of their own log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::batch::Header;
use model::{LeaderEpoch, Offset};

use super::oracle::{TODAY, batch};
use super::world::FORMAT;
use crate::io::LinuxIo;
use crate::io::mem::Random;
use crate::{
    Append, Config, Disk, FormatConfig, Locate, Located, Op, Outcome, PartIx, PartSettings, Queue,
    Range, Reach, ReadError, View,
};

const PARTS: u32 = 3;
const ROUNDS: u32 = 200;
/// A ring that rarely fills: checkpoints are not what is looked at.
const RING: u64 = 16 << 20;

fn format() -> FormatConfig {
    FormatConfig {
        journal_bytes: RING,
        ..FORMAT
    }
}

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("howdah-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Stops the readers, also when the writer's side panics: the scope waits for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Batches of a log carry its number as producer id, and a round that must not go back within an answer.
fn check(part: PartIx, from: Offset, ranges: &[Range<LinuxIo>]) -> u64 {
    let mut next = None;
    let mut count = 0;
    for range in ranges {
        let mut bytes = vec![0; range.len()];
        range.read_into(&mut bytes).unwrap();
        let mut at = 0;
        while at < bytes.len() {
            let header = Header::check(&bytes[at..])
                .unwrap_or_else(|fault| panic!("{range:?} at {at}: {fault}"));
            assert_eq!(header.producer_id, i64::from(part.0), "{range:?}");
            match next {
                None => assert!(header.last_offset() >= from),
                Some(next) => assert_eq!(header.base_offset, next, "{range:?}"),
            }
            next = Some(header.next_offset());
            at += header.bytes;
            count += 1;
        }
    }
    count
}

fn read(view: &Arc<View<LinuxIo>>, seed: u64, stop: &AtomicBool, batches: &AtomicU64) {
    let mut random = Random(seed);
    let mut held = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        // Beside the writer, not instead of it.
        std::thread::sleep(std::time::Duration::from_millis(1));
        let part = PartIx(random.below(PARTS.into()) as u32);
        let Some(log) = view.log(part) else { continue };
        let end = log
            .extents
            .last()
            .map_or(log.log_start, |it| it.last.plus(1));
        let span = end.since(log.log_start).max(0) as u64 + 1;
        let from = log.log_start.plus(random.below(span) as i64);
        let ask = Locate {
            part,
            from,
            until: end,
            bytes_max: random.below(2 << 20),
            at_least_one: true,
        };
        let reach = match random.below(2) {
            0 => Reach::Memory,
            _ => Reach::Disk,
        };
        match view.locate(&ask, reach) {
            Ok(Located::Ranges(ranges)) => {
                batches.fetch_add(check(part, from, &ranges), Ordering::Relaxed);
                if random.below(4) == 0 {
                    held.push((part, from, ranges));
                }
            }
            Ok(Located::Cold) => assert_eq!(reach, Reach::Memory),
            // The log's start moved on meanwhile.
            Err(ReadError::Deleted { .. }) => {}
            Err(error) => panic!("{ask:?}: {error}"),
        }
        if held.len() > 8 {
            for (part, from, ranges) in held.drain(..) {
                check(part, from, &ranges);
                ranges.iter().for_each(Range::forget);
            }
        }
    }
}

fn write(disk: &mut Disk<LinuxIo>, queue: &mut Queue<()>) {
    let mut done = Vec::new();
    while !queue.is_empty() {
        let committed = disk.commit(queue, Some(TODAY), &mut done).unwrap();
        if committed.held {
            disk.work(true, Some(TODAY)).unwrap();
        }
    }
    // What was let go is freed between groups.
    disk.work(false, Some(TODAY)).unwrap();
    let fine = |outcome: &Outcome| matches!(outcome, Outcome::Done | Outcome::Truncated { .. });
    assert!(done.iter().all(|(_, outcome)| fine(outcome)), "{done:?}");
}

#[test]
fn readers_see_whole_batches_while_logs_are_written_cut_and_freed() {
    let seed = 7;
    println!("seed {seed}");
    let directory = Directory::new("readers");
    let io = || LinuxIo::new(&directory.0, None).unwrap();
    Disk::format(&io(), &format()).unwrap();
    for preallocate in [false, true] {
        let config = Config {
            preallocate,
            use_bytes: 96 << 20,
            dirty_bytes_max: 8 << 20,
            ..Config::default()
        };
        let (mut disk, recovered) = Disk::open(io(), config).unwrap();
        let mut queue = Queue::default();
        if recovered.replicas.is_empty() {
            for part in 0..PARTS {
                let id = Default::default();
                queue.push(
                    Op::PartNew {
                        part: PartIx(part),
                        id,
                    },
                    (),
                );
            }
        }
        // Small extents, so that many are sealed and freed.
        for part in 0..PARTS {
            let settings = PartSettings {
                quota_bytes: 4 << 20,
                ..PartSettings::default()
            };
            let part = PartIx(part);
            queue.push(Op::Settings { part, settings }, ());
        }
        write(&mut disk, &mut queue);
        let (stop, batches) = (AtomicBool::new(false), AtomicU64::new(0));
        let view = disk.view();
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (view, stop, batches) = (&view, &stop, &batches);
                scope.spawn(move || read(view, seed + reader, stop, batches));
            }
            let _stop = Stop(&stop);
            let mut random = Random(seed);
            for round in 0..ROUNDS {
                let part = PartIx(round % PARTS);
                let replica = disk.replica(part).unwrap();
                let (start, end) = (replica.log_start, replica.end);
                match random.below(8) {
                    0 => queue.push(
                        Op::Truncate {
                            part,
                            to: Offset(end.0 - 1),
                        },
                        (),
                    ),
                    1 => {
                        let span = end.since(start) as u64;
                        let offset = start.plus(random.below(span + 1) as i64);
                        queue.push(Op::LogStart { part, offset }, ());
                    }
                    _ => {}
                }
                write(&mut disk, &mut queue);
                let mut base_offset = disk.replica(part).unwrap().end;
                for _ in 0..1 + random.below(8) {
                    let size = random.below(60_000) as usize;
                    let producer = Some((i64::from(part.0), 0));
                    let batch = batch(1, size, TODAY.0, producer, random.next());
                    let append = Append {
                        part,
                        base_offset,
                        leader_epoch: LeaderEpoch(0),
                        hw: start,
                        gap: false,
                        append_time: None,
                        batch: batch.into(),
                    };
                    base_offset = base_offset.plus(1);
                    queue.push(Op::Append(append), ());
                }
                write(&mut disk, &mut queue);
            }
        });
        assert_eq!(view.pins().extents, 0);
        let read = batches.load(Ordering::Relaxed);
        assert!(read > 100, "{read} batches were read");
        assert!(
            disk.stats().freed > 0 && disk.stats().sealed > 5,
            "{:?}",
            disk.stats()
        );
        queue.push(Op::Clean, ());
        let mut done = Vec::new();
        disk.commit(&mut queue, Some(TODAY), &mut done).unwrap();
    }
}

#[test]
fn what_was_just_written_is_in_memory_and_can_be_read_copied_warmed_and_forgotten() {
    let directory = Directory::new("range");
    let io = || LinuxIo::new(&directory.0, None).unwrap();
    Disk::format(&io(), &format()).unwrap();
    let (mut disk, _) = Disk::open(io(), Config::default()).unwrap();
    let part = PartIx(0);
    let mut queue = Queue::default();
    queue.push(
        Op::PartNew {
            part,
            id: Default::default(),
        },
        (),
    );
    let bytes = batch(3, 300_000, TODAY.0, None, 9);
    let append = Append {
        part,
        base_offset: Offset(0),
        leader_epoch: LeaderEpoch(-1),
        hw: Offset(0),
        gap: false,
        append_time: None,
        batch: bytes.clone().into(),
    };
    queue.push(Op::Append(append), ());
    write(&mut disk, &mut queue);
    let ask = Locate {
        part,
        from: Offset(1),
        until: Offset(3),
        bytes_max: 0,
        at_least_one: true,
    };
    let Located::Ranges(mut ranges) = disk.view().locate(&ask, Reach::Memory).unwrap() else {
        panic!("cold")
    };
    let mut range = ranges.pop().unwrap();
    assert!(ranges.is_empty() && range.resident());
    assert_eq!((range.len(), range.position()), (bytes.len(), 4096));
    // What a record says of itself, past the stamped head.
    range.advance(100);
    let turn = range.front(1000);
    let mut copy = vec![0; turn.len()];
    turn.read_into(&mut copy).unwrap();
    assert_eq!(copy, bytes[100..1100]);
    assert_eq!(range.warm(&mut vec![0; 4096]).unwrap(), 4096);
    assert_eq!(range.front(10).warm(&mut vec![0; 4096]).unwrap(), 10);
    range.forget();
    disk.view().forget(part, range.life(), 4096, 300_000);
    range.advance(range.len());
    assert!(range.is_empty() && range.resident());
}
