//! Random faults and wishes over sites of one to five nodes. The seed is printed; `HOWDAH_SEED` runs one again.

use super::play::{DISKS, Play};
use super::*;

/// What happens next.
fn fault(play: &mut Play) {
    let node = play.random.index(play.machines.len());
    let at = play.random.index(DISKS);
    let up = play.machines[node].up;
    match play.random.below(40) {
        0..=3 if up => play.kill(node),
        4 if up => {
            // Off and on again before anyone notices.
            play.kill(node);
            play.pass(20);
            play.start(node);
        }
        // The power fails on the whole site.
        5 if play.random.one_in(4) => {
            let up: Vec<usize> = (0..play.machines.len())
                .filter(|it| play.machines[*it].up)
                .collect();
            up.iter().for_each(|it| play.kill(*it));
            play.pass(100);
            up.into_iter().for_each(|it| play.start(it));
        }
        0..=7 if !up => {
            match play.random.below(8) {
                0 => play.swap_disk(node, at),
                1 => play.swap_box(node),
                2 => play.swap_meta(node),
                3 => play.set_disk(node, at, DiskState::Suspect),
                _ => {}
            }
            play.start(node);
        }
        8..=9 => {
            play.machines[node].cut = !play.machines[node].cut;
            play.count("cuts");
        }
        10..=12 => {
            let state = match play.random.below(5) {
                0 => DiskState::Stalled,
                1 => DiskState::Failed,
                _ => DiskState::Clean,
            };
            play.set_disk(node, at, state);
        }
        13 => play.depose(),
        14..=30 => wish(play),
        _ => {}
    }
}

fn wish(play: &mut Play) {
    let nodes = play.machines.len() as u64;
    let Some(catalog) = play.catalog() else {
        return;
    };
    let topics: Vec<(TopicId, String)> = catalog
        .topics()
        .map(|(id, row)| (id, row.name.clone()))
        .collect();
    let rows: Vec<TopicPartition> = catalog.partitions().map(|(id, _)| id).collect();
    let node = NodeId(1 + play.random.below(nodes) as u32);
    let (topic, row) = match topics.is_empty() {
        true => (None, None),
        false => (
            Some(topics[play.random.index(topics.len())].clone()),
            Some(rows[play.random.index(rows.len())]),
        ),
    };
    let wish = match (play.random.below(12), topic, row) {
        (0..=2, ..) => {
            play.next_topic += 1;
            let asked = CreateTopic {
                name: format!("t{}", play.next_topic),
                partitions: Some(1 + play.random.below(4) as u32),
                replication: Some(1 + play.random.below(nodes.min(3)) as u16),
                configs: vec![("retention.bytes".to_owned(), Some((30 * MIB).to_string()))],
                ..CreateTopic::default()
            };
            let id = topic_id(play.next_topic);
            Wish::CreateTopic { asked, id }
        }
        (3, Some((id, _)), _) => Wish::DeleteTopic(id),
        (4, Some((_, name)), _) => Wish::CreatePartitions {
            name,
            count: 1 + play.random.below(6) as i32,
            assignment: None,
        },
        (5..=7, _, Some(row)) => {
            let mut to: Vec<NodeId> = Vec::new();
            for _ in 0..=play.random.below(nodes.min(3)) {
                let node = NodeId(1 + play.random.below(nodes) as u32);
                if !to.contains(&node) {
                    to.push(node);
                }
            }
            let to = (!play.random.one_in(4)).then_some(to);
            Wish::Reassign(vec![(row, to)])
        }
        (8, _, Some(row)) => Wish::Elect {
            unclean: true,
            partitions: Some(vec![row]),
        },
        (9, ..) => Wish::Elect {
            unclean: false,
            partitions: None,
        },
        (10, ..) => Wish::Drain {
            node,
            on: play.random.one_in(2),
        },
        _ => Wish::ProducerIds(node),
    };
    play.wish(wish);
}

/// All is well again: everything that can be is led, moved, in sync and answered.
fn heal(play: &mut Play) {
    play.calm = true;
    for node in 0..play.machines.len() {
        play.machines[node].cut = false;
        for at in 0..DISKS {
            play.set_disk(node, at, DiskState::Clean);
        }
        if !play.machines[node].up {
            play.start(node);
        }
    }
    play.pass(4_000);
    for node in 1..=play.machines.len() {
        let node = NodeId(node as u32);
        play.wish(Wish::Drain { node, on: false });
    }
    play.pass(20_000);
    assert!(play.tickets.is_empty(), "unanswered: {:?}", play.tickets);
    let catalog = play.catalog().expect("a controller").clone();
    for (id, row) in catalog.partitions() {
        let alive = row.in_sync().any(|it| {
            let node = catalog.node(it.node).unwrap();
            node.disks.iter().any(|disk| disk.uuid == it.disk)
        });
        assert_eq!(row.leader.is_some(), alive, "{id:?} {row:?}");
        if row.leader.is_none() {
            play.count("lost");
            continue;
        }
        assert!(
            catalog.moving_to(id).is_none(),
            "{id:?} never arrives: {row:?}"
        );
        // Where another disk has no room for what lay on one that was taken out, its place stays empty.
        let placed = row.replicas.iter().filter(|it| {
            let node = catalog.node(it.node).unwrap();
            node.disks.iter().any(|disk| disk.uuid == it.disk)
        });
        assert_eq!(row.isr.len(), placed.count(), "{id:?} {row:?}");
    }
}

fn run(seed: u64, seen: &mut BTreeMap<&'static str, u32>) {
    println!("HOWDAH_SEED={seed}");
    let nodes = 1 + (seed % 5) as u32;
    let mut play = Play::new(seed, nodes);
    play.pass(2_000);
    for _ in 0..150 {
        let pause = [10, 100, 700][play.random.index(3)];
        let pause = 1 + play.random.below(pause);
        play.pass(pause);
        fault(&mut play);
    }
    heal(&mut play);
    for (what, count) in play.seen {
        *seen.entry(what).or_insert(0) += count;
    }
}

#[test]
fn whatever_happens_each_epoch_has_one_leader_in_sync_and_all_is_led_again() {
    let mut seen = BTreeMap::new();
    if let Ok(seed) = std::env::var("HOWDAH_SEED") {
        return run(seed.parse().unwrap(), &mut seen);
    }
    for seed in 0..40 {
        run(seed, &mut seen);
    }
    println!("{seen:?}");
    for what in [
        "led: vacant",
        "led: node dead",
        "led: disk",
        "led: resigned",
        "led: handed over",
        "unclean",
        "replaced",
        "arrived",
        "done",
        "reassigned",
        "isr committed",
        "isr stale",
        "isr fenced",
        "entries of the dead",
    ] {
        assert!(seen.contains_key(what), "no {what:?} in {seen:?}");
    }
}
