//! `verify` against damage, `inspect`, and what a person decides about a rotten ring.

use super::oracle::{TODAY, batch};
use super::world::World;
use crate::format::extent::DATA_AT;
use crate::format::row::SlotState;
use crate::io::{Copy, Name};
use crate::verify::{Event, Fault, verify};
use crate::{Config, Disk, MemIo, Note, Op, OpenError, Queue, accept, adopt, inspect};

fn faults(io: &MemIo) -> Vec<Fault> {
    let mut faults = Vec::new();
    verify(io, &mut |event| {
        if let Event::Fault(fault) = event {
            faults.push(fault);
        }
    });
    faults
}

/// A disk with open and sealed extents, all of it behind a checkpoint.
fn settled(seed: u64) -> World {
    let mut world = World::new(seed, Config::default());
    for _ in 0..3 {
        let part = world.part_new();
        for _ in 0..90 {
            world.append(part, 15_000);
            world.commit_all().unwrap();
        }
    }
    world.idle().unwrap();
    world
}

#[test]
fn a_flipped_bit_in_any_extent_is_told_with_its_place() {
    let seed = 1;
    println!("seed {seed}");
    let mut world = settled(seed);
    let rows = world.open_rows();
    let report = world.verify().unwrap();
    assert_eq!((report.replicas, report.faults), (3, 0));
    assert!(report.extents >= 6 && report.batches >= 270, "{report:?}");
    for (slot, row) in rows {
        let name = Name::Extent(slot);
        let mut places = vec![0, 70, 4095, DATA_AT as u64, u64::from(row.used) - 1];
        for _ in 0..20 {
            places.push(world.random.below(row.used.into()));
        }
        if row.state == SlotState::Sealed {
            places.extend([
                row.class.bytes() - 64,
                row.class.bytes() - 1,
                row.class.bytes() - 4096,
            ]);
        }
        for at in places {
            assert!(world.io.rot(name, at, 0x10), "{name} {at}");
            let found = faults(&world.io);
            assert!(
                found.iter().any(|fault| fault.file == name),
                "{name} at {at}: {found:?}"
            );
            assert!(world.io.rot(name, at, 0x10));
        }
    }
    assert_eq!(faults(&world.io), []);
}

#[test]
fn what_can_not_be_read_is_told() {
    let mut world = settled(2);
    let rows = world.open_rows();
    world.disk = None;
    let (slot, row) = rows[0];
    let file_end = row.class.bytes();
    for (name, at) in [
        (Name::Journal, 300_000),
        (Name::Extent(slot), 10_000),
        (Name::Extent(slot), file_end - 1),
    ] {
        assert_eq!(faults(&world.io), []);
        world.io.fail_reads(name, at, at + 1);
        let found = faults(&world.io);
        assert!(!found.is_empty() && found[0].file == name, "{found:?}");
        world.io.heal_reads();
    }
}

#[test]
fn damaged_copies_of_superblock_and_checkpoint_are_told() {
    let mut world = settled(3);
    world.disk = None;
    let io = &world.io;
    for name in [Name::Super as fn(Copy) -> Name, Name::Checkpoint] {
        for copy in Copy::BOTH {
            io.rot(name(copy), 40, 1);
        }
        let found = faults(io);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].file, name(Copy::A));
        for copy in Copy::BOTH {
            io.rot(name(copy), 40, 1);
        }
    }
    // One superblock alone is spare.
    io.rot(Name::Super(Copy::A), 40, 1);
    let mut spare = 0;
    verify(io, &mut |event| {
        spare += u32::from(matches!(event, Event::Spare(_)));
        assert!(!matches!(event, Event::Fault(_)), "{event:?}");
    });
    assert_eq!(spare, 1);
}

#[test]
fn a_row_that_speaks_of_another_partition_is_told() {
    let mut world = settled(4);
    let rows = world.open_rows();
    world.disk = None;
    // The file of one extent in the place of another's.
    let (one, two) = (rows[0].0, rows[1].0);
    world.io.swap_names(Name::Extent(one), Name::Extent(two));
    let found = faults(&world.io);
    assert!(
        found
            .iter()
            .any(|it| it.file == Name::Extent(one) && it.at == 0),
        "{found:?}"
    );
}

/// A ring with one rotten group in its window: its batches of one replica lie in an extent, those of another are gone.
fn rotten() -> (World, crate::PartIx, crate::PartIx) {
    let mut world = World::new(5, Config::default());
    let (kept, lost) = (world.part_new(), world.part_new());
    world.commit_all().unwrap();
    for _ in 0..3 {
        for part in [kept, lost] {
            let bytes = batch(2, 100, TODAY.0, None, 1);
            world.append_bytes(part, bytes.into());
        }
        world.commit_all().unwrap();
    }
    // The second of these groups rots, and with it its batch in one extent.
    let found = world.groups();
    let group = found[found.len() - 2];
    assert!(world.io.rot(Name::Journal, group.ring_pos + 200, 0xff));
    let slot = *world.disk().parts[&lost].extents.back().unwrap();
    let at = DATA_AT as u64 + 161 + 70;
    assert!(world.io.rot(Name::Extent(slot), at, 0xff));
    world.disk = None;
    (world, kept, lost)
}

#[test]
fn a_rotten_ring_is_told_by_partition_and_accepted() {
    let (world, kept, lost) = rotten();
    let io = world.io.clone();
    let operations = io.operations();
    let seen = inspect(&io).unwrap();
    assert_eq!(io.operations(), operations, "inspect wrote");
    assert!(
        seen.notes
            .iter()
            .any(|it| matches!(it, Note::Salvaged { batches: 1, .. })),
        "{:?}",
        seen.notes
    );
    let of = |part| {
        seen.replicas
            .iter()
            .find(|it| it.replica.part == part)
            .unwrap()
    };
    assert_eq!(of(kept).lost(), None);
    assert_eq!(of(kept).replica.end.0, 6);
    let (from, to) = of(lost).lost().unwrap();
    assert_eq!((from.0, to.unwrap().0), (2, 6));
    let told = faults(&io);
    assert!(
        told.iter().any(|it| it.expected == "offsets 2 to 5"),
        "{told:?}"
    );

    // Opened as it is, the replica takes nothing, however often.
    for _ in 0..2 {
        let (mut disk, recovered) = Disk::open(io.clone(), Config::default()).unwrap();
        let it = recovered
            .replicas
            .iter()
            .find(|it| it.part == lost)
            .unwrap();
        assert!(it.hole.is_some());
        while disk.work(false, None).unwrap().did {}
    }
    // Accepted, it goes on where the hole begins, also after a cut.
    accept(io.clone(), Config::default()).unwrap();
    io.power_cut(9);
    assert_eq!(faults(&io), []);
    let seen = inspect(&io).unwrap();
    assert!(seen.clean && seen.notes.is_empty(), "{:?}", seen.notes);
    let (mut disk, recovered) = Disk::open(io.clone(), Config::default()).unwrap();
    let it = recovered
        .replicas
        .iter()
        .find(|it| it.part == lost)
        .unwrap();
    assert_eq!((it.hole, it.end.0), (None, 2));
    let mut queue = Queue::default();
    queue.push(
        Op::Append(crate::Append {
            part: lost,
            base_offset: it.end,
            leader_epoch: model::LeaderEpoch(0),
            hw: it.end,
            gap: false,
            append_time: None,
            batch: batch(1, 50, TODAY.0, None, 2).into(),
        }),
        (),
    );
    let mut done = Vec::new();
    disk.commit(&mut queue, None, &mut done).unwrap();
    assert_eq!(done[0].1, crate::Outcome::Done);
}

/// A process that ended with batches in the ring's last group, and the extents' pages still in memory: two replicas, one
/// of which that group names.
fn ended() -> (World, crate::PartIx, crate::PartIx) {
    let mut world = World::new(8, Config::default());
    member(&mut world);
    let (busy, idle) = (world.part_new(), world.part_new());
    world.commit_all().unwrap();
    for part in [busy, idle, busy] {
        let bytes = batch(2, 100, TODAY.0, None, 1);
        world.append_bytes(part, bytes.into());
        world.commit_all().unwrap();
    }
    world.disk = None;
    (world, busy, idle)
}

fn member(world: &mut World) {
    let disk = world.disk.as_mut().unwrap();
    let site = model::SiteUuid(model::Uuid([7; 16]));
    disk.set_identity(site, crate::DiskState::Member).unwrap();
}

fn ends(replicas: &[crate::Replica]) -> Vec<(i64, bool)> {
    replicas
        .iter()
        .map(|it| (it.end.0, it.hole.is_some()))
        .collect()
}

#[test]
fn an_unreadable_end_of_the_ring_stops_the_disk_until_it_reads_again() {
    let (world, _, _) = ended();
    let io = world.io.clone();
    let last = *world.groups().last().unwrap();
    let from = last.ring_pos;
    for to in [from + 1, from + last.padded()] {
        // Its header, or only its payload's last byte.
        io.fail_reads(Name::Journal, to - 1, to);
        let operations = io.operations();
        let refused = Disk::open(io.clone(), Config::default()).map(|_| ());
        let Err(OpenError::RingHole { seq, at, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((seq, at), (last.seq, from));
        assert_eq!(io.operations(), operations, "something was written");
        io.heal_reads();
    }
    let (_, recovered) = Disk::open(io, Config::default()).unwrap();
    assert_eq!(ends(&recovered.replicas), [(4, false), (2, false)]);
    assert_eq!(recovered.superblock.state, crate::DiskState::Member);
}

#[test]
fn what_an_unreadable_end_held_is_taken_from_extents_and_the_rest_accepted() {
    let (world, busy, idle) = ended();
    let io = world.io.clone();
    let last = *world.groups().last().unwrap();
    io.fail_reads(Name::Journal, last.ring_pos, last.ring_pos + 1);
    let seen = inspect(&io).unwrap();
    let lost: Vec<_> = seen.replicas.iter().map(crate::Held::lost).collect();
    assert_eq!(
        lost,
        [
            Some((model::Offset(4), None)),
            Some((model::Offset(2), None))
        ],
        "the last batch lies in its extent, and nobody knows of more"
    );
    let told = faults(&io);
    assert!(
        told.iter()
            .any(|it| it.expected.starts_with("offsets from 4 on")),
        "{told:?}"
    );
    accept(io.clone(), Config::default()).unwrap();
    io.power_cut(3);
    assert_eq!(faults(&io), []);
    let (_, recovered) = Disk::open(io, Config::default()).unwrap();
    assert_eq!(ends(&recovered.replicas), [(4, false), (2, false)]);
    assert_eq!(recovered.superblock.state, crate::DiskState::Member);
    assert_eq!(recovered.replicas[0].part, busy);
    assert_eq!(recovered.replicas[1].part, idle);
}

#[test]
fn an_unreadable_first_page_of_the_ring_is_no_torn_end_where_a_new_turn_may_have_begun() {
    // The last group begins a turn, and the place behind the one before it holds what an older turn left.
    let mut world = World::new(11, Config::default());
    let part = world.part_new();
    world.commit_all().unwrap();
    while {
        world.append(part, 20_000);
        world.commit_all().unwrap();
        while world.disk().work(false, None).unwrap().did {}
        let last = *world.groups().last().unwrap();
        last.ring_pos != 0 || last.seq < 100
    } {}
    world.disk = None;
    world.io.fail_reads(Name::Journal, 0, 1);
    let refused = Disk::open(world.io.clone(), Config::default()).map(|_| ());
    assert!(
        matches!(refused, Err(OpenError::RingHole { .. })),
        "{refused:?}"
    );
    world.io.heal_reads();
    Disk::open(world.io.clone(), Config::default()).unwrap();
}

#[test]
fn a_torn_end_is_no_hole() {
    let (world, _, _) = ended();
    let last = *world.groups().last().unwrap();
    assert!(world.io.rot(Name::Journal, last.ring_pos + 200, 0xff));
    let (_, recovered) = Disk::open(world.io.clone(), Config::default()).unwrap();
    assert_eq!(ends(&recovered.replicas), [(2, false), (2, false)]);
}

#[test]
fn a_hole_may_have_taken_the_last_batches_of_replicas_that_nothing_names_behind_it() {
    let mut world = World::new(9, Config::default());
    member(&mut world);
    let (busy, idle) = (world.part_new(), world.part_new());
    world.commit_all().unwrap();
    for part in [busy, idle, busy] {
        let bytes = batch(2, 100, TODAY.0, None, 1);
        world.append_bytes(part, bytes.into());
        world.commit_all().unwrap();
    }
    let found = world.groups();
    let slot = *world.disk().parts[&idle].extents.back().unwrap();
    world.disk = None;
    // The group of the idle one, and its batch in the extent.
    let group = found[found.len() - 2];
    assert!(world.io.rot(Name::Journal, group.ring_pos + 200, 0xff));
    assert!(world.io.rot(Name::Extent(slot), DATA_AT as u64 + 70, 0xff));
    let (_, recovered) = Disk::open(world.io.clone(), Config::default()).unwrap();
    assert_eq!(recovered.superblock.state, crate::DiskState::Suspect);
    let holes: Vec<_> = recovered.replicas.iter().map(|it| it.hole).collect();
    assert_eq!(
        holes,
        [None, Some((model::Offset(0), crate::UNKNOWN_END))],
        "{:?}",
        recovered.notes
    );
}

#[test]
fn a_ring_that_lost_the_making_of_a_replica_stops_the_disk() {
    let mut world = World::new(10, Config::default());
    let one = world.part_new();
    world.commit_all().unwrap();
    world.append(one, 100);
    world.commit_all().unwrap();
    let two = world.part_new();
    world.commit_all().unwrap();
    let made = *world.groups().last().unwrap();
    for part in [one, two] {
        world.append(part, 100);
        world.commit_all().unwrap();
    }
    world.disk = None;
    assert!(world.io.rot(Name::Journal, made.ring_pos + 70, 0xff));
    let refused = Disk::open(world.io.clone(), Config::default()).map(|_| ());
    assert!(
        matches!(refused, Err(OpenError::RingHole { seq, .. }) if seq == made.seq),
        "{refused:?}"
    );
}

#[test]
fn a_data_disk_is_adopted_with_all_that_it_holds() {
    use model::{Incarnation, NodeId, SiteUuid, Uuid};
    let mut world = World::with_format(
        6,
        Config::default(),
        &crate::FormatConfig {
            meta: false,
            ..super::world::FORMAT
        },
    );
    let part = world.part_new();
    world.append(part, 1000);
    world.commit_all().unwrap();
    world.disk = None;
    let before = inspect(&world.io).unwrap();
    let adoption = crate::Adoption {
        site: SiteUuid(Uuid([7; 16])),
        node: NodeId(3),
        incarnation: Incarnation(Uuid([8; 16])),
    };
    let adopted = adopt(&world.io, adoption).unwrap();
    world.io.power_cut(1);
    let after = inspect(&world.io).unwrap();
    assert_eq!(after.superblock, adopted);
    assert_eq!(after.superblock.disk, before.superblock.disk);
    assert_eq!(
        (
            after.superblock.site,
            after.superblock.node,
            after.superblock.incarnation
        ),
        (adoption.site, adoption.node, adoption.incarnation)
    );
    assert_eq!(after.replicas, before.replicas);
    assert_eq!(after.superblock.state, crate::DiskState::Member);
    // A meta disk is never taken over.
    let meta = World::new(7, Config::default());
    assert!(adopt(&meta.io, adoption).is_err());
}
