//! EXT_FREE records that follow what they belong to in a later group, and what a replay makes of them.

use model::Offset;

use super::world::World;
use crate::ops::GROUP_ENTRIES_MAX;
use crate::{Class, Config, Op, PartIx, PartSettings};

/// A replica of so many extents, which holds two batches in each: they claim 2³¹ offsets.
fn wide(world: &mut World, extents: usize) -> PartIx {
    let part = world.part_new();
    let settings = PartSettings {
        class_max: Class::Small,
        ..PartSettings::default()
    };
    world.push(Op::Settings { part, settings });
    for at in 0..extents as u64 * 2 {
        let batch = super::oracle::batch(i32::MAX, 7, 1_000, None, at);
        world.append_bytes(part, batch.into());
        if at % 64 == 63 {
            world.commit_all().unwrap();
        }
    }
    world.commit_all().unwrap();
    world.idle().unwrap();
    part
}

/// Lets go of more extents than one group has entries, in one group.
fn let_go(world: &mut World) -> PartIx {
    let part = wide(world, GROUP_ENTRIES_MAX + 20);
    let end = world.planned.logs[&part].end;
    world.push(Op::LogStart {
        part,
        offset: Offset(end.0 - 1),
    });
    let World { disk, queue, .. } = world;
    let disk = disk.as_mut().unwrap();
    disk.commit(queue, None, &mut Vec::new()).unwrap();
    assert!(queue.is_empty() && !disk.backlog.is_empty());
    world.committed = world.planned.clone();
    part
}

fn reopened(mut world: World) {
    let committed = world.committed.clone();
    world.disk = None;
    world.io.power_cut(9);
    world.open();
    assert_eq!(world.differs(&committed), None);
}

#[test]
fn behind_a_checkpoint_that_knows_their_slots_as_free() {
    let mut world = World::new(3, Config::default());
    let part = let_go(&mut world);
    // A circle begins while a group waits, which carries the rest.
    world.disk().sweep.wanted = true;
    assert!(world.work_one(true).unwrap());
    assert!(world.disk().sweep.circle.is_some());
    world.append(part, 10);
    world.commit_all().unwrap();
    assert!(world.disk().backlog.is_empty());
    let before = world.disk().stats().checkpoints;
    while world.disk().stats().checkpoints == before {
        assert!(world.work_one(false).unwrap());
    }
    reopened(world);
}

#[test]
fn behind_the_end_of_their_replica() {
    let mut world = World::new(3, Config::default());
    let part = let_go(&mut world);
    world.push(Op::PartDel { part });
    world.commit_all().unwrap();
    reopened(world);
}

#[test]
fn behind_a_start_beyond_the_log() {
    let mut world = World::new(4, Config::default());
    let part = wide(&mut world, 3);
    let end = world.planned.logs[&part].end;
    world.push(Op::LogStart {
        part,
        offset: Offset(end.0 + 10),
    });
    world.commit_all().unwrap();
    reopened(world);
}
