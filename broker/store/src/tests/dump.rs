//! A dump shows what is there, from a disk and from single files.

use core::ops::ControlFlow;

use super::world::{FORMAT, World};
use crate::dump::{self, Item, Parts};
use crate::io::{Copy, Name};
use crate::{Config, Disk, LinuxIo, MemIo, Op};

fn items(io: &MemIo) -> Vec<Item> {
    let mut items = Vec::new();
    dump::disk(io, Parts::default(), &mut |item| {
        assert!(!item.to_string().contains('\n'));
        items.push(item);
        ControlFlow::Continue(())
    });
    items
}

#[test]
fn every_batch_is_shown_once() {
    let mut world = World::new(1, Config::default());
    let part = world.part_new();
    for _ in 0..100 {
        world.append(part, 15_000);
        world.commit_all().unwrap();
    }
    world.idle().unwrap();
    world.disk = None;
    let operations = world.io.operations();
    let items = items(&world.io);
    assert_eq!(world.io.operations(), operations, "dump wrote");
    let mut bases = Vec::new();
    let mut groups = Vec::new();
    for item in &items {
        match item {
            Item::Batch { base, fault, .. } => {
                assert_eq!(*fault, None);
                bases.push(*base);
            }
            Item::Group { seq, checked, .. } => {
                assert!(checked);
                groups.push(*seq);
            }
            Item::Fault { file, .. } => assert!(file.starts_with("ckpt"), "{item}"),
            _ => {}
        }
    }
    bases.sort_unstable();
    let want: Vec<i64> = world.committed.logs[&part]
        .batches
        .keys()
        .copied()
        .collect();
    assert_eq!(bases, want);
    assert!(groups.is_sorted() && groups.len() > 10, "{groups:?}");
    // It stops when told to.
    let mut seen = 0;
    dump::disk(&world.io, Parts::default(), &mut |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert_eq!(seen, 1);
}

#[test]
fn single_files_say_what_they_are() {
    let root = std::env::temp_dir().join(format!("store-dump-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let io = LinuxIo::new(&root, None).unwrap();
    let made = Disk::format(&io, &FORMAT).unwrap();
    let (mut disk, _) = Disk::open(io, Config::default()).unwrap();
    let mut queue = crate::Queue::default();
    let part = crate::PartIx(0);
    queue.push(
        Op::PartNew {
            part,
            id: model::TopicPartition::default(),
        },
        (),
    );
    queue.push(
        Op::Append(crate::Append {
            part,
            base_offset: model::Offset(0),
            leader_epoch: model::LeaderEpoch(0),
            hw: model::Offset(0),
            gap: false,
            append_time: None,
            batch: super::oracle::batch(3, 100, 1, None, 1).into(),
        }),
        (),
    );
    let mut done = Vec::new();
    while !queue.is_empty() {
        disk.commit(&mut queue, None, &mut done).unwrap();
    }
    drop(disk);
    let shown = |name: Name, uuid| {
        let path = root.join(name.to_string());
        let file = std::fs::File::open(&path).unwrap();
        let mut items = Vec::new();
        dump::file(&name.to_string(), &file, uuid, &mut |item| {
            items.push(item);
            ControlFlow::Continue(())
        });
        items
    };
    let found = shown(Name::Super(Copy::A), None);
    assert!(
        matches!(&found[..], [Item::Superblock { node: 1, .. }]),
        "{found:?}"
    );
    let found = shown(Name::Checkpoint(Copy::A), None);
    assert!(
        matches!(&found[..], [Item::Checkpoint { seq: 1, .. }]),
        "{found:?}"
    );
    let found = shown(Name::Extent(0), None);
    assert!(
        matches!(found[0], Item::Extent { base: 0, .. }),
        "{found:?}"
    );
    assert!(matches!(found[1], Item::Batch { last: 2, .. }), "{found:?}");
    assert_eq!(found.len(), 2);
    let found = shown(Name::Journal, Some(made.journal));
    let appends = found
        .iter()
        .filter(|it| matches!(it, Item::Entry { kind: "APPEND", .. }));
    assert_eq!(appends.count(), 1, "{found:?}");
    let claimed = shown(Name::Journal, None);
    assert!(
        claimed
            .iter()
            .all(|it| matches!(it, Item::Group { checked: false, .. }))
    );
    assert!(shown(Name::Journal, Some(model::Uuid([9; 16]))).is_empty());
    // The same disk on a real file system is whole.
    let io = LinuxIo::new(&root, None).unwrap();
    crate::verify::verify(&io, &mut |event| {
        assert!(
            !matches!(event, crate::verify::Event::Fault(_)),
            "{event:?}"
        );
    });
    let held = crate::inspect(&io).unwrap();
    assert_eq!(held.replicas[0].bytes, 161);
    std::fs::remove_dir_all(&root).unwrap();
}
