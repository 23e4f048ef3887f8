//! Records found by their time, beside the times as they were written.

use model::batch::{self, Codec};
use model::record::{Builder, Producer};
use model::{LeaderEpoch, Offset, WallMs};

use super::oracle::{TODAY, batch};
use super::reads::{config, filled, seeds};
use super::world::World;
use crate::io::mem::Random;
use crate::{Op, PartIx, Reach, ReadError, Stamped, Timed};

/// A log with times that jump, and the times of its records.
fn timed(seed: u64, batches: usize) -> (World, PartIx, Vec<WallMs>) {
    let mut world = World::new(seed, config());
    let mut random = Random(seed);
    let part = world.part_new();
    let mut times = Vec::new();
    for at in 0..batches {
        let mut builder = Builder::default();
        let mut stamped = Vec::new();
        for _ in 0..1 + random.below(5) {
            // Rising on the whole, with records that come late.
            let time = TODAY.0 + at as i64 * 100 + random.below(1_000) as i64;
            let value = vec![random.next() as u8; random.below(9_000) as usize];
            builder.push(time, None, Some(&value), [].into_iter());
            stamped.push(WallMs(time));
        }
        let codec = [Codec::None, Codec::Zstd, Codec::Lz4][random.below(3) as usize];
        let batch = builder.finish(codec, Producer::NONE).unwrap();
        world.append_bytes(part, batch.into());
        let Some((Op::Append(append), _)) = world.queue.ops.back() else {
            unreachable!("just queued")
        };
        match append.append_time {
            Some(now) => times.extend(stamped.iter().map(|_| now)),
            None => times.extend(stamped),
        }
        world.commit_all().unwrap();
    }
    (world, part, times)
}

/// Asks in memory first, as the shell does.
fn look(
    world: &World,
    ask: impl Fn(Reach) -> Result<Timed, ReadError>,
) -> Option<(Offset, WallMs)> {
    let quick = ask(Reach::Memory).unwrap();
    world.io.set_cold(true);
    let found = ask(Reach::Disk).unwrap();
    world.io.set_cold(false);
    assert!(
        quick == found || quick == Timed::Cold,
        "{quick:?}, {found:?}"
    );
    match found {
        Timed::Found(Stamped {
            offset, timestamp, ..
        }) => Some((offset, timestamp)),
        Timed::Nothing => None,
        Timed::Cold => panic!("cold with the disk in reach"),
    }
}

#[test]
fn the_first_record_at_or_after_a_time_and_the_latest_are_the_oracles() {
    for seed in seeds(0, 6) {
        let (mut world, part, times) = timed(seed, 150);
        let mut random = Random(seed ^ 77);
        let count = times.len() as u64;
        for round in 0..200 {
            if round % 50 == 49 {
                let log = &world.committed.logs[&part];
                let upto = log.hw.0.max(log.start.0);
                let offset = log
                    .start
                    .plus(random.below((upto - log.start.0) as u64 / 2 + 1) as i64);
                world.push(Op::LogStart { part, offset });
                world.commit_all().unwrap();
            }
            let start = world.committed.logs[&part].start.0 as u64;
            let until = start + random.below(count - start + 1);
            let seen = |at: &(usize, &WallMs)| (start..until).contains(&(at.0 as u64));
            let records = || times.iter().enumerate().filter(seen);
            let time = match random.below(3) {
                0 => times[random.below(count) as usize],
                _ => WallMs(TODAY.0 + random.below(150 * 100 + 2_000) as i64),
            };
            let named = |(at, time): (usize, &WallMs)| (Offset(at as i64), *time);
            let view = world.disk().view();
            let end = Offset(until as i64);
            let first = records().find(|(_, at)| **at >= time).map(named);
            let found = look(&world, |reach| view.first_at(part, time, end, reach));
            assert_eq!(found, first, "seed {seed}: {time:?} in [{start}, {until})");
            let most = records().map(|(_, at)| *at).max();
            let latest = records().find(|(_, at)| Some(**at) == most).map(named);
            let found = look(&world, |reach| view.latest_time(part, end, reach));
            assert_eq!(found, latest, "seed {seed}: latest in [{start}, {until})");
        }
    }
}

#[test]
fn records_that_can_not_be_read_are_found_by_their_batch() {
    // Their bodies are noise.
    let (mut world, part) = filled(3, config(), 5, 50);
    let view = world.disk().view();
    let log = &world.committed.logs[&part];
    let (base, batch) = log.batches.iter().next().unwrap();
    let header = model::batch::Header::read(batch).unwrap();
    let found = view
        .first_at(part, WallMs(0), log.end, Reach::Memory)
        .unwrap();
    let want = Stamped {
        offset: Offset(*base),
        timestamp: header.max_timestamp,
        epoch: header.leader_epoch,
    };
    assert_eq!(found, Timed::Found(want));
    let later = view
        .first_at(part, WallMs(i64::MAX), log.end, Reach::Disk)
        .unwrap();
    assert_eq!(later, Timed::Nothing);
}

#[test]
fn a_claim_of_records_takes_no_memory() {
    let mut world = World::new(12, config());
    let part = world.part_new();
    let mut bytes = batch(i32::MAX, 7, 1_000, None, 1);
    batch::stamp_append_time(&mut bytes, TODAY);
    world.append_bytes(part, bytes.into());
    world.commit_all().unwrap();
    let end = world.committed.logs[&part].end;
    let view = world.disk().view();
    let want = |offset| {
        Timed::Found(Stamped {
            offset,
            timestamp: TODAY,
            epoch: LeaderEpoch(0),
        })
    };
    let found = view.first_at(part, TODAY, end, Reach::Memory).unwrap();
    assert_eq!(found, want(Offset(0)));
    let middle = Offset(i64::from(i32::MAX) / 2);
    let latest = view.latest_time(part, middle, Reach::Memory).unwrap();
    assert_eq!(latest, want(Offset(0)));
}
