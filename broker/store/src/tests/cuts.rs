//! Random operations, a cut at a random operation of the disk, and everything that was acknowledged must be there.

use std::collections::BTreeMap;

use model::LeaderEpoch;

use super::world::{FORMAT, World};
use crate::phase::Phase;
use crate::{Config, Disk, MemIo, Op, Outcome, read_superblock};

fn config() -> Config {
    Config {
        use_bytes: 64 << 20,
        dirty_bytes_max: 8 << 20,
        ..Config::default()
    }
}

/// One life of a disk: several runs, each ended by a cut.
fn life(seed: u64, runs: u32, size_max: u64, config: Config) {
    life_cut_in(seed, runs, size_max, config, None);
}

/// The same, with each cut in a certain part of the store if one is named; says what was hit.
fn life_cut_in(
    seed: u64,
    runs: u32,
    size_max: u64,
    config: Config,
    target: Option<Phase>,
) -> BTreeMap<Phase, u64> {
    let mut world = World::new(seed, config);
    for run in 0..runs {
        let cut = world.random.below(400);
        match target {
            Some(phase) => world.io.cut_when(phase, cut % 2),
            None if world.random.below(8) > 0 => world.io.cut_after(cut),
            None => {}
        }
        let mut maybe = None;
        for _ in 0..120 {
            for _ in 0..1 + world.random.below(6) {
                world.random_op(size_max);
            }
            let choice = match target {
                Some(Phase::Swap) => 2,
                _ => world.random.below(12),
            };
            let done = match choice {
                0 => world.work_one(false).map(|_| ()),
                1 => world.idle(),
                2 => world.commit_all().and_then(|()| world.compact()),
                _ => world.commit_all(),
            };
            if let Err(state) = done {
                maybe = Some(*state);
                break;
            }
        }
        if maybe.is_none() && world.random.below(2) == 0 {
            // Cut in an idle moment, or an orderly stop.
            let clean = world.random.below(2) == 0;
            if clean {
                world.push(Op::Clean);
            }
            if let Err(state) = world.commit_all() {
                maybe = Some(*state);
            }
        }
        let maybe = maybe.unwrap_or_else(|| world.committed.clone());
        world.disk = None;
        let seed_of_cut = world.random.next();
        world.io.power_cut(seed_of_cut);
        if let Err(what) = world.settle(maybe) {
            panic!("seed {seed}, run {run}: {what}");
        }
    }
    world.cuts
}

/// Seeds from `first` on: `default` of them, or as many as STORE_SEEDS asks for.
fn seeds(first: u64, default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("STORE_SEEDS").ok();
    let count = count.and_then(|it| it.parse().ok()).unwrap_or(default);
    println!("seeds {first} to {}", first + count - 1);
    first..first + count
}

#[test]
fn what_was_acknowledged_is_there_after_any_cut() {
    for seed in seeds(0, 60) {
        life(seed, 6, 3_000, config());
    }
}

#[test]
fn so_it_is_with_batches_that_fill_extents() {
    for seed in seeds(100_000, 20) {
        life(seed, 4, 20_000, config());
    }
}

#[test]
fn so_it_is_on_a_disk_with_files_made_ahead() {
    let config = Config {
        preallocate: true,
        use_bytes: 24 << 20,
        ..config()
    };
    for seed in seeds(200_000, 15) {
        life(seed, 4, 20_000, config);
    }
}

#[test]
fn so_it_is_on_a_file_system_that_syncs_files_one_by_one() {
    for seed in seeds(300_000, 15) {
        life_on_other(seed);
    }
}

fn life_on_other(seed: u64) {
    let mut world = World::new(seed, config());
    world.io.set_file_system(crate::io::FileSystem::Other);
    world.open();
    let part = world.part_new();
    for _ in 0..40 {
        world.append(part, 20_000);
        world.random_op(20_000);
        if !world.planned.logs.contains_key(&part) {
            break;
        }
        world.commit_all().unwrap();
        world.idle().unwrap();
    }
    world.disk = None;
    let cut = world.random.next();
    world.io.power_cut(cut);
    let committed = world.committed.clone();
    world
        .settle(committed)
        .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
}

#[test]
fn every_part_of_the_store_is_cut() {
    // Cuts that must have hit each part.
    let each = std::env::var("STORE_CUTS").ok();
    let each: u64 = each.and_then(|it| it.parse().ok()).unwrap_or(4);
    let mut cuts: BTreeMap<Phase, u64> = BTreeMap::new();
    let wanted = [
        Phase::GroupWrite,
        Phase::Destage,
        Phase::Checkpoint,
        Phase::SealOpen,
        Phase::Free,
        Phase::Swap,
        Phase::RingWrap,
        Phase::Recovery,
    ];
    let mut seed = 400_000;
    for phase in wanted {
        println!("{phase:?} from seed {seed}: {cuts:?}");
        let first = seed;
        while cuts.get(&phase).is_none_or(|count| *count < each) {
            let config = Config {
                preallocate: seed % 2 == 0,
                use_bytes: 24 << 20,
                ..config()
            };
            for (hit, count) in life_cut_in(seed, 6, 20_000, config, Some(phase)) {
                *cuts.entry(hit).or_default() += count;
            }
            seed += 1;
            assert!(
                seed < first + 100 + 10 * each,
                "{phase:?} is too seldom hit: {cuts:?}"
            );
        }
    }
    println!("seeds 400000 to {}: {cuts:?}", seed - 1);
}

#[test]
fn a_format_that_is_cut_leaves_no_disk_or_a_whole_one() {
    let mut cut_at = 0;
    loop {
        let io = MemIo::new(cut_at, 1 << 32);
        io.cut_after(cut_at);
        let done = Disk::format(&io, &FORMAT).is_ok();
        io.power_cut(cut_at);
        let whole = read_superblock(&io).is_ok();
        assert!(whole || !done, "cut {cut_at}: made, and not there");
        if !whole {
            // It can be made again.
            Disk::format(&io, &FORMAT).unwrap();
        }
        let (disk, recovered) = Disk::open(io.clone(), config()).unwrap();
        assert!(recovered.replicas.is_empty());
        drop(disk);
        if done {
            break;
        }
        cut_at += 1;
    }
    println!("{cut_at} cuts in the format");
    assert!(cut_at > 10);
}

#[test]
fn an_epoch_waits_for_its_own_batches() {
    use model::{LeaderEpoch, Offset};
    let mut world = World::new(1, config());
    let part = world.part_new();
    world.commit_all().unwrap();
    world.append(part, 100);
    let start = world.planned.logs[&part].end;
    world.push(Op::Epoch {
        part,
        epoch: LeaderEpoch(1),
        start: Some(start),
        unclean: false,
    });
    world.append(part, 100);
    world.commit_all().unwrap();
    let epochs = world.disk().replica(part).unwrap().epochs;
    assert_eq!(
        epochs,
        [(LeaderEpoch(0), Offset(0)), (LeaderEpoch(1), start)]
    );
}

#[test]
fn after_a_failure_each_operation_was_told_or_still_waits() {
    for (fails_at, urgent) in (0..4).flat_map(|at| [(at, false), (at, true)]) {
        let mut world = World::new(5, Config::default());
        let parts = [world.part_new(), world.part_new()];
        world.commit_all().unwrap();
        world.append(parts[0], 100);
        if urgent {
            world.push(Op::Epoch {
                part: parts[0],
                epoch: LeaderEpoch(3),
                start: Some(world.planned.logs[&parts[0]].end),
                unclean: false,
            });
        }
        world.append(parts[1], 100);
        let pushed = world.queue.len();
        world.io.fail_after(fails_at);
        let World { disk, queue, .. } = &mut world;
        let mut done = Vec::new();
        let committed = disk.as_mut().unwrap().commit(queue, None, &mut done);
        assert!(committed.is_err(), "operation {fails_at}");
        assert_eq!(done.len() + queue.len(), pushed, "operation {fails_at}");
        let failed = |(_, outcome): &(Op, Outcome)| *outcome == Outcome::Failed;
        assert!(done.iter().all(failed));
    }
}
