//! What a restart and first writes ask of a disk, counted.

use super::world::{FORMAT, World};
use crate::io::FileSystem;
use crate::{Config, FormatConfig};

const RING: u64 = 24 << 20;

#[test]
fn a_replay_reads_its_window_twice_and_the_rest_of_the_ring_once() {
    let format = FormatConfig {
        journal_bytes: RING,
        ..FORMAT
    };
    let mut world = World::with_format(7, Config::default(), &format);
    let part = world.part_new();
    // Groups a little longer than what is read ahead of a header.
    while world.disk().stats().ring_used < RING * 3 / 4 {
        for _ in 0..4 {
            world.append(part, 270_000);
        }
        world.commit_all().unwrap();
    }
    let committed = world.committed.clone();
    let before = world.io.counts().journal_read_bytes;
    let recovered = world.open();
    let read = world.io.counts().journal_read_bytes - before;
    assert!(recovered.groups > 16 && recovered.bytes >= RING * 3 / 4);
    assert!(
        read <= RING + recovered.bytes + (4 << 20),
        "{read} B of a ring of {RING} B, {} in use",
        recovered.bytes
    );
    assert_eq!(world.differs(&committed), None);
}

#[test]
fn opening_extents_syncs_nothing_and_a_checkpoint_syncs_each_directory_once() {
    let mut world = World::new(8, Config::default());
    world.io.set_file_system(FileSystem::Other);
    world.open();
    let parts: Vec<_> = (0..200).map(|_| world.part_new()).collect();
    world.commit_all().unwrap();
    let before = world.io.counts();
    for part in parts {
        world.append(part, 100);
    }
    let World { disk, queue, .. } = &mut world;
    let disk = disk.as_mut().unwrap();
    disk.commit(queue, None, &mut Vec::new()).unwrap();
    assert_eq!(disk.stats().opened, 200);
    world.committed = world.planned.clone();
    assert_eq!(world.io.counts().syncs, before.syncs);
    let checkpoints = world.disk().stats().checkpoints;
    world.io.advance(core::time::Duration::from_secs(60));
    world.idle().unwrap();
    assert!(world.disk().stats().checkpoints > checkpoints);
    // The extents one by one, as many directories, and the checkpoint itself.
    let syncs = world.io.counts().syncs - before.syncs;
    assert!((400..420).contains(&syncs), "{syncs} syncs");
    let committed = world.committed.clone();
    world.disk = None;
    world.io.power_cut(9);
    world.open();
    assert_eq!(world.differs(&committed), None);
}
