//! A site as large as it may be: few entries, none too large, whatever happens to all partitions at once.

use super::*;
use crate::sitelog::RECORD_BYTES_MAX;

/// 2,000 partitions with three replicas on three nodes of two disks: 2,000 replicas a node.
fn crowded() -> World {
    let mut world = World::new(4, 2, rules());
    world.founded(1 << 50);
    world.office(1, false, Vec::new());
    for node in 1..=4 {
        world.beat(node, GRANT);
    }
    let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
    for topic in 0..20_usize {
        let assignment = (0..100)
            .map(|partition: usize| {
                let mut nodes = nodes.clone();
                nodes.rotate_left((topic + partition) % 3);
                nodes
            })
            .collect();
        let asked = CreateTopic {
            name: format!("t{topic}"),
            assignment,
            configs: vec![("retention.bytes".to_owned(), Some("1000000".to_owned()))],
            ..CreateTopic::default()
        };
        let id = world.next_topic();
        let deadline = Instant(u64::MAX);
        world.tell(Input::Wish {
            ticket: Ticket(1),
            actor: Actor::broker(),
            deadline,
            wish: Wish::CreateTopic { asked, id },
        });
    }
    assert_eq!(world.catalog.partitions().count(), 2_000);
    world
}

/// Tells one fact and counts the entries that follow from it.
fn entries(world: &mut World, input: Input) -> usize {
    let mut out = Outbox::new();
    let mut input = Some(input);
    let mut count = 0;
    while let Some(fact) = input.take() {
        world
            .controller
            .step(world.now, &world.catalog, fact, &mut out);
        for effect in out.drain() {
            let Effect::Propose { proposal, bytes } = effect else {
                continue;
            };
            assert!(bytes.len() <= RECORD_BYTES_MAX);
            count += 1;
            assert!(count < 100, "it never ends");
            world.apply(&Record::decode(&bytes).unwrap());
            input = Some(Input::Applied {
                index: Index(world.applied),
                proposal: Some(proposal),
            });
        }
    }
    count
}

fn led_by(world: &World, node: u32) -> usize {
    let rows = world.catalog.partitions();
    rows.filter(|(_, row)| row.leader == Some(NodeId(node)))
        .count()
}

#[test]
fn a_node_of_two_thousand_replicas_dies_in_two_entries() {
    let mut world = crowded();
    assert!(led_by(&world, 3) > 600);
    // The others are heard to the end; the third is not, until its grant has surely lapsed.
    let mut count = 0;
    for _ in 0..5 {
        assert_eq!(count, 0, "too soon");
        world.now = world.now + Duration::from_millis(100);
        let until = world.now + GRANT;
        count += entries(&mut world, Input::Lease { until });
        for node in [1, 2, 4] {
            let beat = world.beats[&node].clone();
            let dead_from = world.now + passed_everywhere(GRANT);
            count += entries(&mut world, Input::Beat { beat, dead_from });
        }
    }
    assert!((1..=2).contains(&count), "{count} entries");
    assert_eq!(led_by(&world, 3), 0);
    assert!(world.catalog.partitions().all(|(_, row)| {
        row.isr.len() == 2 && row.leader.is_some() && row.in_sync().all(|it| it.node != NodeId(3))
    }));
}

/// The entry that a change of everything is split into holds nearly as much as it may.
#[test]
fn all_partitions_resign_and_move_in_entries_within_the_bound() {
    let mut world = crowded();
    for node in 1..=3 {
        let rows = world.catalog.partitions();
        let led = rows.filter(|(_, row)| row.leader == Some(NodeId(node)));
        let partitions = led
            .map(|(id, row)| (id, row.epoch, Resigned::Epoch))
            .collect();
        let node = NodeId(node);
        assert_eq!(entries(&mut world, Input::Resign { node, partitions }), 1);
    }
    let ids: Vec<TopicPartition> = world.catalog.partitions().map(|(id, _)| id).collect();
    let to = vec![NodeId(1), NodeId(2), NodeId(4)];
    let targets = ids.iter().map(|id| (*id, Some(to.clone()))).collect();
    let count = entries(
        &mut world,
        Input::Wish {
            ticket: Ticket(2),
            actor: Actor::broker(),
            deadline: Instant(u64::MAX),
            wish: Wish::Reassign(targets),
        },
    );
    assert!((5..10).contains(&count), "{count} entries");
    assert_eq!(world.catalog.moving().count(), 2_000);
    // What is on its way survives a snapshot.
    let again = Catalog::decode(&world.catalog.encode(), NodeId(1), rules()).unwrap();
    assert!(again.moving().eq(world.catalog.moving()));
}
