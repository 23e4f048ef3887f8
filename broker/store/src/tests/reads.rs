//! What readers see, beside the oracle: any question gives the bytes that were committed, and what a reader holds stays
//! as it was, whatever becomes of its log meanwhile.

use model::{Offset, WallMs};

use super::oracle::{Log, State, TODAY};
use super::world::World;
use crate::io::Name;
use crate::io::mem::Random;
use crate::{Config, Locate, Located, MemIo, Op, PartIx, Range, Reach, ReadError, View};

/// Ranges that a reader holds, and what must be in them.
type Held = (Vec<Range<MemIo>>, Vec<u8>);

pub(super) fn config() -> Config {
    Config {
        use_bytes: 64 << 20,
        dirty_bytes_max: 8 << 20,
        ..Config::default()
    }
}

fn bytes_of(ranges: &[Range<MemIo>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in ranges {
        let from = bytes.len();
        bytes.resize(from + range.len(), 0);
        range.read_into(&mut bytes[from..]).unwrap();
    }
    bytes
}

/// What a question must be answered, by the simplest means.
fn wanted(log: &Log, ask: &Locate) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for (base, batch) in &log.batches {
        let last = model::batch::Header::read(batch).unwrap().last_offset();
        if last < ask.from || *base >= ask.until.0 {
            continue;
        }
        let fits = (bytes.len() + batch.len()) as u64 <= ask.bytes_max;
        if !(fits || bytes.is_empty() && ask.at_least_one) {
            break;
        }
        bytes.extend(batch);
    }
    bytes
}

/// A question such as consumers, and clients that ask for anything, put.
fn question(random: &mut Random, part: PartIx, log: &Log, last: Option<Offset>) -> Locate {
    let span = log.end.since(log.start) as u64 + 1;
    let mut offset = || log.start.plus(random.below(span) as i64);
    let (mut from, mut until) = (offset(), offset());
    if until < from {
        std::mem::swap(&mut from, &mut until);
    }
    match random.below(4) {
        0 => until = log.end,
        // Where the last answer ended.
        1 => from = last.filter(|at| *at >= log.start).unwrap_or(from),
        _ => {}
    }
    let bytes_max = match random.below(4) {
        0 => random.below(300),
        1 => random.below(100_000),
        2 => random.below(3 << 20),
        _ => 55 << 20,
    };
    Locate {
        part,
        from,
        until,
        bytes_max,
        at_least_one: random.below(3) > 0,
    }
}

/// Puts one question to each replica; holds some of what is found.
fn ask(world: &mut World, random: &mut Random, held: &mut Vec<Held>, place: &mut [Option<Offset>]) {
    let view = world.disk().view();
    let committed = world.committed.clone();
    for (part, log) in &committed.logs {
        let at = part.0 as usize % place.len();
        let ask = question(random, *part, log, place[at]);
        let want = wanted(log, &ask);
        let reach = match random.below(2) {
            0 => Reach::Memory,
            _ => Reach::Disk,
        };
        world
            .io
            .set_cold(reach == Reach::Memory && random.below(4) == 0);
        let found = view.locate(&ask, reach);
        world.io.set_cold(false);
        let ranges = match found.unwrap_or_else(|error| panic!("{ask:?}: {error}")) {
            Located::Ranges(ranges) => ranges,
            Located::Cold => {
                assert_eq!(
                    reach,
                    Reach::Memory,
                    "{ask:?} is cold with the disk in reach"
                );
                continue;
            }
        };
        let found = bytes_of(&ranges);
        // Short answers are whole batches too, and never empty where there is something.
        let whole = reach == Reach::Disk && ranges.len() < 16;
        assert!(
            if whole {
                found == want
            } else {
                want.starts_with(&found)
            },
            "{ask:?} gives {} B, want {}: {ranges:?}",
            found.len(),
            want.len()
        );
        assert!(
            want.is_empty() || !found.is_empty(),
            "{ask:?} gives nothing"
        );
        place[at] = last_of(&found).or(place[at]);
        if random.below(8) == 0 && !ranges.is_empty() {
            held.push((ranges, found));
        }
    }
}

/// The offset behind whole batches.
fn last_of(bytes: &[u8]) -> Option<Offset> {
    let (mut at, mut next) = (0, None);
    while at < bytes.len() {
        let header = model::batch::Header::check(&bytes[at..]).expect("whole batches");
        next = Some(header.next_offset());
        at += header.bytes;
    }
    next
}

/// The view's rows are the writer's.
fn compare(world: &mut World) {
    let view = world.disk().view();
    let committed = world.committed.clone();
    for part in committed.logs.keys() {
        let disk = world.disk();
        let rows = disk.parts[part]
            .extents
            .iter()
            .map(|slot| disk.table.row(*slot));
        let rows: Vec<_> = rows
            .map(|row| {
                (
                    row.base,
                    row.last,
                    u64::from(row.used) - 4096,
                    row.max_ts,
                    row.appended_at,
                )
            })
            .collect();
        let log = view.log(*part).expect("a replica of the disk");
        let seen: Vec<_> = log
            .extents
            .iter()
            .map(|it| (it.base, it.last, it.bytes, it.max_ts, it.appended_at))
            .collect();
        assert_eq!(seen, rows, "rows of {part:?}");
        assert_eq!(log.log_start, disk.parts[part].log_start);
        assert_eq!(view.bytes(*part), seen.iter().map(|it| it.2).sum::<u64>());
    }
    assert_eq!(view.totals().len(), committed.logs.len());
}

fn life(seed: u64, runs: u32, size_max: u64, config: Config) {
    let mut world = World::new(seed, config);
    let mut random = Random(seed ^ 0x5eed);
    for _ in 0..runs {
        let mut held: Vec<Held> = Vec::new();
        let mut place = [None; 8];
        for _ in 0..60 {
            for _ in 0..1 + random.below(6) {
                world.random_op(size_max);
            }
            match random.below(10) {
                0 => world.idle(),
                _ => world.commit_all(),
            }
            .unwrap();
            compare(&mut world);
            ask(&mut world, &mut random, &mut held, &mut place);
            for (ranges, bytes) in &held {
                assert!(
                    bytes_of(ranges) == *bytes,
                    "seed {seed}: what is held changed"
                );
            }
            if held.len() > 20 || random.below(30) == 0 {
                held.clear();
            }
        }
        drop(held);
        assert_eq!(world.disk().view().pins().extents, 0);
        world.idle().unwrap();
        world.disk = None;
        world.io.power_cut(random.next());
        let committed = world.committed.clone();
        let settled = world.settle(committed);
        settled.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        compare(&mut world);
    }
}

pub(super) fn seeds(first: u64, default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("STORE_SEEDS").ok();
    let count = count.and_then(|it| it.parse().ok()).unwrap_or(default);
    println!("seeds {first} to {}", first + count - 1);
    first..first + count
}

#[test]
fn any_question_gives_the_committed_bytes_and_what_is_held_stays() {
    for seed in seeds(0, 4) {
        life(seed, 3, 20_000, config());
    }
}

#[test]
fn so_it_is_with_small_batches_that_share_index_entries() {
    for seed in seeds(100_000, 3) {
        life(seed, 3, 600, config());
    }
}

#[test]
fn so_it_is_where_freed_extents_are_zeroed_for_their_next_life() {
    let config = Config {
        preallocate: true,
        use_bytes: 24 << 20,
        ..config()
    };
    for seed in seeds(200_000, 3) {
        life(seed, 3, 40_000, config);
    }
}

/// A world with one replica of `count` batches of `size` bytes.
pub(super) fn filled(seed: u64, config: Config, count: usize, size: usize) -> (World, PartIx) {
    let mut world = World::new(seed, config);
    let part = world.part_new();
    for _ in 0..count {
        world.append(part, size);
        world.commit_all().unwrap();
    }
    (world, part)
}

fn all(part: PartIx) -> Locate {
    Locate {
        part,
        from: Offset(0),
        until: Offset(i64::MAX),
        bytes_max: u64::MAX,
        at_least_one: true,
    }
}

fn ranges(found: Located<MemIo>) -> Vec<Range<MemIo>> {
    match found {
        Located::Ranges(ranges) => ranges,
        Located::Cold => panic!("cold"),
    }
}

#[test]
fn a_held_extent_is_not_freed_until_the_last_reader_lets_go() {
    let config = Config {
        preallocate: true,
        use_bytes: 24 << 20,
        ..config()
    };
    let (mut world, part) = filled(1, config, 40, 100_000);
    let view = world.disk().view();
    let mut held = ranges(view.locate(&all(part), Reach::Memory).unwrap());
    let first = held.swap_remove(0);
    drop(held);
    let before = bytes_of(std::slice::from_ref(&first));
    let offset = world.committed.logs[&part].hw;
    let end = world.committed.logs[&part].end;
    world.push(Op::LogStart { part, offset: end });
    world.commit_all().unwrap();
    world.idle().unwrap();
    assert!(offset < end && bytes_of(std::slice::from_ref(&first)) == before);
    let freed = world.disk().stats().freed;
    assert_eq!(world.disk().stats().freeing, 1, "the one that is held");
    let turn = first.front(10);
    drop(first);
    world.idle().unwrap();
    assert_eq!(world.disk().stats().freed, freed, "a clone still holds it");
    drop(turn);
    world.idle().unwrap();
    assert_eq!(world.disk().stats().freed, freed + 1);
}

#[test]
fn a_cold_start_reads_file_and_index_once_and_a_follower_of_the_log_needs_neither() {
    let (mut world, part) = filled(2, config(), 60, 40_000);
    world.open();
    let view = world.disk().view();
    let ask = Locate {
        from: Offset(20),
        bytes_max: 200_000,
        ..all(part)
    };
    assert!(matches!(
        view.locate(&ask, Reach::Memory),
        Ok(Located::Cold)
    ));
    let cold = bytes_of(&ranges(view.locate(&ask, Reach::Disk).unwrap()));
    let warm = bytes_of(&ranges(view.locate(&ask, Reach::Memory).unwrap()));
    assert_eq!(cold, warm);
    // From there on no header is read any more: memory need not hold one.
    world.io.set_cold(true);
    let next = Locate {
        from: last_of(&warm).unwrap(),
        bytes_max: u64::MAX,
        ..ask
    };
    let found = ranges(view.locate(&next, Reach::Memory).unwrap());
    world.io.set_cold(false);
    assert_eq!(
        bytes_of(&found[..1]),
        wanted(&world.committed.logs[&part], &next)[..found[0].len()]
    );
}

#[test]
fn a_damaged_tail_is_made_again_from_the_batches() {
    let (mut world, part) = filled(3, config(), 60, 40_000);
    let slot = world.disk().parts[&part].extents[0];
    let end = world.disk().table.row(slot).class.bytes();
    world.open();
    assert!(world.io.rot(Name::Extent(slot), end - 10, 0x40));
    let view = world.disk().view();
    let ask = Locate {
        from: Offset(30),
        bytes_max: 100_000,
        ..all(part)
    };
    let found = bytes_of(&ranges(view.locate(&ask, Reach::Disk).unwrap()));
    assert_eq!(found, wanted(&world.committed.logs[&part], &ask));
}

#[test]
fn rot_in_a_header_is_named_and_an_unreadable_one_too() {
    let (mut world, part) = filled(4, config(), 30, 3_000);
    let slot = world.disk().parts[&part].extents[0];
    let view = world.disk().view();
    let ask = Locate {
        from: Offset(40),
        ..all(part)
    };
    // The magic of the second batch.
    let second = 4096 + 3_061 + 16;
    assert!(world.io.rot(Name::Extent(slot), second, 1));
    let error = view.locate(&ask, Reach::Disk).unwrap_err();
    assert_eq!(
        error.to_string(),
        "batch at 7157 of extent 0: magic 3, only 2 is spoken"
    );
    world.io.fail_reads(Name::Extent(slot), 0, 1 << 20);
    let error = view.locate(&ask, Reach::Memory).unwrap_err();
    assert!(matches!(error, ReadError::Io { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_said() {
    let (mut world, part) = filled(5, config(), 60, 40_000);
    let end = world.committed.logs[&part].end;
    world.push(Op::LogStart { part, offset: end });
    world.commit_all().unwrap();
    let view = world.disk().view();
    let error = view.locate(&all(part), Reach::Disk).unwrap_err();
    assert!(
        matches!(error, ReadError::Deleted { log_start, .. } if log_start == end),
        "{error}"
    );
    let at_end = Locate {
        from: end,
        ..all(part)
    };
    assert!(ranges(view.locate(&at_end, Reach::Disk).unwrap()).is_empty());
    let error = view.locate(&all(PartIx(9)), Reach::Disk).unwrap_err();
    assert_eq!(error.to_string(), "replica 9 is not on this disk");
    world.push(Op::PartDel { part });
    world.commit_all().unwrap();
    assert!(view.log(part).is_none() && view.bytes(part) == 0);
}

#[test]
fn nothing_shows_before_its_group_is_durable() {
    let (mut world, part) = filled(6, config(), 5, 1_000);
    let view: std::sync::Arc<View<MemIo>> = world.disk().view();
    let before = view.log(part);
    world.append(part, 1_000);
    assert_eq!(view.log(part), before);
    world.io.fail_after(1);
    assert!(world.commit_all().is_err());
    assert_eq!(view.log(part), before);
}

#[test]
fn the_first_trusted_time_is_that_of_what_was_written_before() {
    let (mut world, part) = filled(7, config(), 0, 0);
    world.push(Op::PartNew {
        part: PartIx(1),
        id: Default::default(),
    });
    world.commit_all().unwrap();
    world.open();
    let State { logs, .. } = world.committed.clone();
    assert!(logs[&part].batches.is_empty());
    world.append(part, 100);
    let (mut done, queue) = (Vec::new(), &mut world.queue);
    world
        .disk
        .as_mut()
        .unwrap()
        .commit(queue, None, &mut done)
        .unwrap();
    let view = world.disk().view();
    let appended_at = |view: &View<MemIo>| view.log(part).unwrap().extents[0].appended_at;
    assert_eq!(appended_at(&view), WallMs(0));
    world.disk().work(false, Some(TODAY)).unwrap();
    assert_eq!(appended_at(&view), TODAY);
}

#[test]
fn at_most_so_many_extents_are_held() {
    let (mut world, part) = filled(8, config(), 3, 1_000);
    let view = world.disk().view();
    let one = ranges(view.locate(&all(part), Reach::Memory).unwrap());
    // The same extent a second time is no second pin.
    let two = ranges(view.locate(&all(part), Reach::Memory).unwrap());
    assert_eq!(view.pins().extents, 1);
    drop(one);
    assert_eq!(view.pins().extents, 1);
    assert!(!two[0].called_back());
    drop(two);
    assert_eq!(view.pins(), Default::default());
}
