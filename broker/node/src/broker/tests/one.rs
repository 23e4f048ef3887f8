//! A site of one node with two disks.

use super::disk::id;
use super::*;

fn founded() -> World {
    let mut world = World::new();
    world.flush();
    world
}

#[test]
fn an_empty_node_founds_its_site_and_leads_all_of_it_without_waiting_for_time() {
    let world = founded();
    let led = world.led();
    assert_eq!(led.len(), 2 + 8, "the declared topic and that of groups");
    assert!(led.values().all(Option::is_some), "{led:?}");
    assert_eq!(world.broker.catalog().site(), Some(SiteUuid(uuid(3))));
}

#[test]
fn a_batch_is_answered_when_it_is_durable() {
    let mut world = founded();
    let ticket = world.produce(id(1, 0), Acks::All);
    assert_eq!(world.outcomes.get(&ticket), None, "nothing is durable yet");
    world.flush();
    let stored = Outcome::Stored {
        base_offset: Offset(0),
        log_start: Offset(0),
        timestamp: WallMs(5),
    };
    assert_eq!(world.outcomes.get(&ticket), Some(&stored));
}

#[test]
fn each_start_leads_every_partition_in_a_new_epoch_and_nothing_is_forgotten() {
    let mut world = founded();
    world.produce(id(1, 0), Acks::All);
    world.flush();
    for _ in 0..3 {
        let before = world.led();
        world.restart();
        world.flush();
        let after = world.led();
        assert_eq!(before.len(), after.len());
        for (partition, epoch) in &after {
            assert!(
                *epoch > before[partition],
                "{partition:?} leads in {epoch:?} again"
            );
        }
        let machine = world.broker.replica_of(id(1, 0)).unwrap();
        assert_eq!(world.broker.partition(machine).unwrap().end(), Offset(1));
        assert_eq!(
            world
                .events
                .iter()
                .filter(|it| matches!(it, Event::Unknown { .. }))
                .count(),
            0
        );
    }
}

#[test]
fn a_start_that_is_cut_anywhere_is_made_good_by_the_next() {
    // Each start gets one write further before it is cut.
    let mut world = World::new();
    let mut cuts = 0;
    loop {
        if world.writes(cuts) {
            break;
        }
        cuts += 1;
        world.restart();
        assert!(cuts < 500, "it never comes to an end");
    }
    assert!(cuts > 10, "a start has more than {cuts} writes");
    let led = world.led();
    assert_eq!(led.len(), 10);
    assert!(led.values().all(Option::is_some), "{led:?}");
}

#[test]
fn topics_come_and_go() {
    let mut world = founded();
    let made = world.wish(Wish::CreateTopic {
        asked: CreateTopic {
            name: "new".to_owned(),
            partitions: Some(3),
            ..CreateTopic::default()
        },
        id: topic_id(7),
    });
    world.flush();
    world.pass(Duration::from_millis(200));
    assert!(
        matches!(world.answers.get(&made), Some(Answer::Created(_))),
        "{:?}",
        world.answers
    );
    let ticket = world.produce(id(7, 2), Acks::Leader);
    world.flush();
    assert!(matches!(
        world.outcomes.get(&ticket),
        Some(Outcome::Stored { .. })
    ));

    let waits = world.produce(id(7, 2), Acks::Leader);
    let gone = world.wish(Wish::DeleteTopic(topic_id(7)));
    world.flush();
    world.pass(Duration::from_millis(200));
    assert_eq!(world.answers.get(&gone), Some(&Answer::Done));
    assert!(
        world.outcomes.contains_key(&waits),
        "whoever waited is answered"
    );
    assert!(
        world.logs.keys().all(|(_, it)| it.topic != topic_id(7)),
        "its disk let go of it"
    );
    world.restart();
    world.flush();
    assert_eq!(world.broker.replica_of(id(7, 2)), None);
}

#[test]
fn a_disk_that_fails_takes_its_partitions_along_and_brings_them_back_in_new_epochs() {
    let mut world = founded();
    let on_second = |world: &World| -> Vec<TopicPartition> {
        let there = world.logs.keys().filter(|(disk, _)| *disk == DiskIx(1));
        there.map(|(_, id)| *id).collect()
    };
    let there = on_second(&world);
    assert!(!there.is_empty(), "both disks hold partitions");
    let before = world.led();
    let waits = world.produce(there[0], Acks::All);
    world.failed.insert(DiskIx(1));
    world.tell(Input::DiskFailed { disk: DiskIx(1) });
    world.flush();
    world.pass(Duration::from_millis(300));
    assert_eq!(
        world.outcomes.get(&waits),
        Some(&Outcome::Refused(Refusal::DiskFailed))
    );
    for (partition, epoch) in world.led() {
        assert_eq!(
            epoch.is_some(),
            !there.contains(&partition),
            "{partition:?}"
        );
    }

    world.failed.clear();
    let found = DiskFound {
        suspect: false,
        replicas: world.found(DiskIx(1)),
    };
    world.tell(Input::DiskBack {
        disk: DiskIx(1),
        found,
    });
    world.flush();
    world.pass(Duration::from_millis(300));
    for (partition, epoch) in world.led() {
        let again = there.contains(&partition);
        assert!(if again {
            epoch > before[&partition]
        } else {
            epoch == before[&partition]
        });
    }
    let ticket = world.produce(there[0], Acks::All);
    world.flush();
    assert!(matches!(
        world.outcomes.get(&ticket),
        Some(Outcome::Stored { .. })
    ));
}

#[test]
fn a_disk_that_is_away_is_waited_for() {
    let mut world = founded();
    let there: Vec<TopicPartition> = world
        .logs
        .keys()
        .filter(|(disk, _)| *disk == DiskIx(1))
        .map(|(_, id)| *id)
        .collect();
    world.produce(there[0], Acks::All);
    world.flush();
    world.restart_with(1);
    world.flush();
    world.pass(Duration::from_secs(90));
    for (partition, epoch) in world.led() {
        assert_eq!(
            epoch.is_some(),
            !there.contains(&partition),
            "{partition:?}"
        );
    }
    let catalog = world.broker.catalog();
    for partition in &there {
        let row = catalog.partition_row(*partition).unwrap();
        assert!(row.replicas.iter().all(|it| it.disk == DiskUuid(uuid(101))));
        assert_eq!(
            catalog.moving_to(*partition),
            None,
            "nothing takes its place"
        );
    }
    world.restart();
    world.flush();
    assert!(world.led().values().all(Option::is_some));
    let at = world.broker.replica_of(there[0]).unwrap();
    assert_eq!(
        world.broker.partition(at).unwrap().end(),
        Offset(1),
        "what it held is there"
    );
}

#[test]
fn the_meta_disk_ends_the_node() {
    let mut world = founded();
    world.tell(Input::DiskFailed { disk: DiskIx(0) });
    assert_eq!(world.ends, [End::MetaDisk]);
}

#[test]
fn committed_offsets_outlive_a_start() {
    let mut world = founded();
    let commit = world.ask_group(GroupRequest::Commit(Commit {
        group: "g".to_owned(),
        member: String::new(),
        instance: None,
        generation: -1,
        retention_ms: -1,
        offsets: vec![CommittedOffset {
            topic: "declared".to_owned(),
            partition: 0,
            offset: 42,
            leader_epoch: -1,
            metadata: None,
        }],
    }));
    assert_eq!(world.replies.get(&commit), None, "nothing is durable yet");
    world.flush();
    assert!(world.replies.contains_key(&commit));
    world.restart();
    world.flush();
    let fetched = world.ask_group(GroupRequest::FetchOffsets(FetchOffsets {
        group: "g".to_owned(),
        partitions: Some(vec![TopicPartitionName {
            topic: "declared".to_owned(),
            partition: 0,
        }]),
        require_stable: false,
    }));
    world.flush();
    let told = format!("{:?}", world.replies[&fetched]);
    assert!(told.contains("42"), "{told}");
}

#[test]
fn producer_ids_of_earlier_lives_are_not_given_again() {
    let mut world = founded();
    let asked = world.wish(Wish::ProducerIds(ME));
    world.flush();
    assert_eq!(world.answers.get(&asked), Some(&Answer::Done));
    let first = world.pids.clone();
    assert_eq!(first.len(), 1);
    world.restart();
    world.flush();
    assert_eq!(world.pids, first, "a block came by again from the log");
    world.wish(Wish::ProducerIds(ME));
    world.flush();
    assert!(world.pids[1] >= first[0] + sitelog::PIDS_BLOCK);
}
