//! The scrubber beside rot: it names every batch that is not as it was written, and few others.

use model::batch::Header;

use super::reads::{config, seeds};
use super::world::World;
use crate::format::extent::DATA_AT;
use crate::format::row::SlotState;
use crate::io::Name;
use crate::io::mem::Random;
use crate::{Op, PartIx, PartSettings, Scrubber, Suspect};

/// A world with one replica of `count` batches of `size` bytes, in extents of 1 MiB.
fn filled(seed: u64, count: usize, size: usize) -> (World, PartIx) {
    let mut world = World::new(seed, config());
    let part = fill(&mut world, count, size);
    (world, part)
}

fn fill(world: &mut World, count: usize, size: usize) -> PartIx {
    let part = world.part_new();
    let settings = PartSettings {
        quota_bytes: 4 << 20,
        ..PartSettings::default()
    };
    world.push(Op::Settings { part, settings });
    for _ in 0..count {
        world.append(part, size);
        world.commit_all().unwrap();
    }
    part
}

/// One round over the disk, in turns of `turn` bytes: suspects, bytes read, extents that were read whole.
fn round(world: &mut World, scrubber: &mut Scrubber, turn: usize) -> (Vec<Suspect>, u64, usize) {
    let view = world.disk().view();
    let (mut suspects, mut bytes, mut extents) = (Vec::new(), 0, 0);
    loop {
        let scrubbed = view.scrub(scrubber, turn);
        assert_eq!(view.pins().extents, 0, "held between two turns");
        if scrubbed.round {
            return (suspects, bytes, extents);
        }
        bytes += scrubbed.bytes;
        if let Some(verdict) = scrubbed.verdict {
            extents += 1;
            suspects.extend(verdict.suspects);
        }
    }
}

/// A sealed extent: slot, end of its batches, and where each batch begins.
type Sealed = (u32, u32, Vec<(u32, Header)>);

fn sealed(world: &World) -> Vec<Sealed> {
    let rows = world.open_rows().into_iter();
    let sealed = rows.filter(|(_, row)| row.state == SlotState::Sealed);
    let with_batches = sealed.map(|(slot, row)| {
        let bytes = world.io.contents(Name::Extent(slot)).unwrap();
        let (mut at, mut batches) = (DATA_AT, Vec::new());
        while at < row.used {
            let header = Header::check_stored(&bytes[at as usize..]).unwrap();
            batches.push((at, header));
            at += header.bytes as u32;
        }
        (slot, row.used, batches)
    });
    with_batches.collect()
}

#[test]
fn a_round_reads_every_sealed_extent_once_and_finds_nothing_on_a_whole_disk() {
    let (mut world, part) = filled(1, 80, 40_000);
    let other = fill(&mut world, 60, 40_000);
    assert_eq!((part, other), (PartIx(0), PartIx(1)));
    let extents = sealed(&world);
    let wanted: u64 = extents.iter().map(|it| u64::from(it.1 - DATA_AT)).sum();
    let mut scrubber = Scrubber::default();
    for turn in [1, 300_000, 1 << 20, 64 << 20] {
        let found = round(&mut world, &mut scrubber, turn);
        assert_eq!(
            found,
            (Vec::new(), wanted, extents.len()),
            "turns of {turn}"
        );
    }
    assert!(extents.len() > 3);
}

#[test]
fn any_flipped_byte_is_found_and_what_is_not_named_checks() {
    for seed in seeds(300_000, 8) {
        let mut random = Random(seed);
        let size = [2_000, 9_000, 40_000][random.below(3) as usize];
        let (mut world, part) = filled(seed, 2_600_000 / size, size);
        let extents = sealed(&world);
        let (slot, used, batches) = &extents[random.below(extents.len() as u64) as usize];
        // Half of them where a batch's header is.
        let at = match random.below(2) {
            0 => u64::from(DATA_AT) + random.below(u64::from(used - DATA_AT)),
            _ => {
                let (at, _) = batches[random.below(batches.len() as u64) as usize];
                u64::from(at) + random.below(61)
            }
        };
        assert!(world.io.rot(Name::Extent(*slot), at, 1 << random.below(8)));
        let hit = batches.iter().rfind(|(begin, _)| u64::from(*begin) <= at);
        let (begin, hit) = *hit.unwrap();
        let (suspects, ..) = round(&mut world, &mut Scrubber::default(), 300_000);
        let told = format!(
            "seed {seed}, byte {} of a batch: {suspects:?}",
            at - u64::from(begin)
        );
        let [suspect] = suspects.as_slice() else {
            panic!("{told}");
        };
        assert_eq!((suspect.part, suspect.life.slot), (part, *slot), "{told}");
        let names = |header: &Header| {
            suspect.first <= header.base_offset && header.last_offset() <= suspect.last
        };
        assert!(names(&hit), "{told}");
        // Epochs are not covered by a batch's own checksum, only by the extent's sum.
        assert_eq!(
            suspect.damaged,
            !(12..16).contains(&(at - u64::from(begin))),
            "{told}"
        );
        // An index entry each 64 KiB is where it goes on at the latest.
        let named: usize = batches
            .iter()
            .filter(|it| names(&it.1))
            .map(|it| it.1.bytes)
            .sum();
        assert!(
            !suspect.damaged || named < 2 * (64 << 10) + hit.bytes,
            "{told}"
        );
    }
}

#[test]
fn a_place_that_cannot_be_read_is_its_batch() {
    let (mut world, _) = filled(5, 60, 40_000);
    let (slot, _, batches) = sealed(&world).swap_remove(0);
    let (at, header) = batches[7];
    world.io.fail_reads(
        Name::Extent(slot),
        u64::from(at) + 9_000,
        u64::from(at) + 9_512,
    );
    let mut scrubber = Scrubber::default();
    let (suspects, ..) = round(&mut world, &mut scrubber, 1 << 20);
    assert_eq!(suspects.len(), 1, "{suspects:?}");
    assert_eq!(
        (suspects[0].first, suspects[0].last, suspects[0].damaged),
        (header.base_offset, header.last_offset(), true)
    );
    world.io.heal_reads();
    assert_eq!(round(&mut world, &mut scrubber, 1 << 20).0, []);
}

#[test]
fn a_damaged_tail_makes_the_extent_suspect_and_its_batches_are_good() {
    let (mut world, _) = filled(6, 60, 40_000);
    let (slot, _, batches) = sealed(&world).swap_remove(1);
    let end = world.disk().table.row(slot).class.bytes();
    assert!(world.io.rot(Name::Extent(slot), end - 10, 0x40));
    let (suspects, ..) = round(&mut world, &mut Scrubber::default(), 1 << 20);
    assert_eq!(suspects.len(), 1, "{suspects:?}");
    let offsets = (
        batches[0].1.base_offset,
        batches.last().unwrap().1.last_offset(),
    );
    assert_eq!((suspects[0].first, suspects[0].last), offsets);
    assert!(!suspects[0].damaged);
}

#[test]
fn many_bad_places_are_one_from_the_sixteenth_on() {
    let (mut world, _) = filled(7, 200, 10_000);
    let (slot, _, batches) = sealed(&world).swap_remove(0);
    for (at, _) in batches.iter().step_by(2) {
        assert!(world.io.rot(Name::Extent(slot), u64::from(*at) + 100, 1));
    }
    let (suspects, ..) = round(&mut world, &mut Scrubber::default(), 1 << 20);
    assert_eq!(suspects.len(), 16, "{} batches", batches.len());
    assert_eq!(suspects[15].last, batches.last().unwrap().1.last_offset());
}

#[test]
fn an_extent_that_is_cut_or_goes_meanwhile_is_given_up() {
    let (mut world, part) = filled(8, 60, 40_000);
    let extents = sealed(&world);
    let view = world.disk().view();
    let mut scrubber = Scrubber::default();
    assert!(view.scrub(&mut scrubber, 300_000).bytes > 0);
    // It was in the middle of the first one.
    world.push(Op::LogStart {
        part,
        offset: extents[1].2[0].1.base_offset,
    });
    world.commit_all().unwrap();
    assert_eq!(view.scrub(&mut scrubber, 300_000), Default::default());
    let (suspects, bytes, read) = round(&mut world, &mut scrubber, 300_000);
    assert_eq!((suspects.len(), read), (0, extents.len() - 1));
    let wanted: u64 = extents[1..]
        .iter()
        .map(|it| u64::from(it.1 - DATA_AT))
        .sum();
    assert_eq!(bytes, wanted);
    assert_eq!(
        view.find(crate::SlotLife {
            slot: extents[0].0,
            generation: 1
        }),
        None
    );
}
