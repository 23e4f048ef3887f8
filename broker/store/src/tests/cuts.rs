//! Random operations, a cut at a random operation of the disk, and everything that was acknowledged must be there.

use super::world::World;
use crate::{Config, Op};

fn config() -> Config {
    Config {
        use_bytes: 64 << 20,
        dirty_bytes_max: 8 << 20,
        ..Config::default()
    }
}

/// One life of a disk: several runs, each ended by a cut.
fn life(seed: u64, runs: u32, size_max: u64, config: Config) {
    let mut world = World::new(seed, config);
    for run in 0..runs {
        let cut = world.random.below(400);
        if world.random.below(8) > 0 {
            world.io.cut_after(cut);
        }
        let mut maybe = None;
        for _ in 0..120 {
            for _ in 0..1 + world.random.below(6) {
                world.random_op(size_max);
            }
            let done = match world.random.below(12) {
                0 => world.work_one(false).map(|_| ()),
                1 => world.idle(),
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
