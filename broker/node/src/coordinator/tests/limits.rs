//! The bounds: what is full refuses newcomers, and nobody who is in notices.

use super::*;
use crate::group::NAME_BYTES_MAX;

fn only_reply(effects: &[Effect]) -> GroupReply {
    let mut replies = effects.iter().filter_map(|effect| match effect {
        Effect::Reply { reply, .. } => Some(reply.clone()),
        Effect::Append { .. } => None,
    });
    let reply = replies.next().unwrap();
    assert!(replies.next().is_none());
    reply
}

fn at_work() -> World {
    site(&Words(Vec::new()))
}

const fn refused(error: GroupError) -> GroupReply {
    GroupReply::Refused(error)
}

#[test]
fn a_full_pool_refuses_newcomers_and_nobody_else() {
    let mut world = at_work();
    let mut ticket = 0;
    let mut join = |world: &mut World, member: &str, bytes: usize| {
        ticket += 1;
        let mut join = Words(vec!["v=3"]).join(ticket);
        join.member = member.to_owned();
        join.protocols[0].metadata = vec![b'x'; bytes];
        only_reply(&world.ask(ticket, GroupRequest::Join(join)))
    };
    let GroupReply::Joined(first) = join(&mut world, "", MEMBERS_BYTES_MAX - 4_096) else {
        panic!("the first fits")
    };
    assert_eq!(
        join(&mut world, "", 8_192),
        refused(GroupError::CoordinatorNotAvailable)
    );
    // Who is in may say less, and may not say much more.
    assert!(matches!(
        join(&mut world, &first.member, MEMBERS_BYTES_MAX - 5_000),
        GroupReply::Joined(_)
    ));
    assert_eq!(
        join(&mut world, &first.member, MEMBERS_BYTES_MAX),
        refused(GroupError::CoordinatorNotAvailable)
    );
    assert!(world.coordinator.stats().members_bytes <= MEMBERS_BYTES_MAX);
}

fn offsets_of(partitions: std::ops::Range<i32>, note: usize) -> Commit {
    let mut commit = Words(Vec::new()).commit();
    let offset = |partition| CommittedOffset {
        topic: "t".to_owned(),
        partition,
        offset: 1,
        leader_epoch: -1,
        metadata: Some("x".repeat(note)),
    };
    commit.offsets = partitions.map(offset).collect();
    commit
}

#[test]
fn a_full_pool_still_lets_known_offsets_move() {
    let mut world = at_work();
    for round in 0..40 {
        world.ask(
            1,
            GroupRequest::Commit(offsets_of(round * 1_000..(round + 1) * 1_000, 0)),
        );
        world.command("store");
    }
    let stats = world.coordinator.stats();
    assert!(
        stats.offsets > 20_000 && stats.offsets_bytes <= OFFSETS_BYTES_MAX,
        "{stats:?}"
    );
    let reply = only_reply(&world.ask(1, GroupRequest::Commit(offsets_of(100_000..100_001, 0))));
    assert_eq!(
        reply,
        GroupReply::Committed(vec![Err(GroupError::CoordinatorNotAvailable)])
    );
    world.ask(2, GroupRequest::Commit(offsets_of(0..1, 0)));
    world.said.clear();
    world.command("store");
    assert_eq!(world.said, "reply 2 committed ok\n");
}

#[test]
fn a_batch_is_never_larger_than_one() {
    let mut world = at_work();
    let reply = only_reply(&world.ask(1, GroupRequest::Commit(offsets_of(0..300, 4_096))));
    assert_eq!(reply, refused(GroupError::InvalidCommitOffsetSize));
    assert_eq!(world.coordinator.stats().offsets_bytes, 0);
    // A leader that assigns more than a batch holds: nobody can write that down.
    world.command("join ticket=2 v=3 client=a");
    let mut sync = Sync {
        group: GROUP.to_owned(),
        generation: 1,
        member: expand("a#2"),
        instance: None,
        protocol_type: None,
        protocol: None,
        assignments: vec![(expand("a#2"), vec![0; APPEND_BYTES_MAX])],
    };
    let reply = only_reply(&world.ask(3, GroupRequest::Sync(sync.clone())));
    assert_eq!(reply, refused(GroupError::UnknownServerError));
    sync.generation = 2;
    assert_eq!(
        only_reply(&world.ask(4, GroupRequest::Sync(sync))),
        refused(GroupError::IllegalGeneration)
    );
}

#[test]
fn a_deletion_of_many_offsets_takes_several_batches_and_one_answer() {
    let mut world = at_work();
    for round in 0..20 {
        let mut commit = offsets_of(round * 1_000..(round + 1) * 1_000, 0);
        commit.offsets.iter_mut().for_each(|offset| {
            offset.topic = "a-topic-with-a-long-name-of-forty-letters".to_owned()
        });
        world.ask(1, GroupRequest::Commit(commit));
        world.command("store");
    }
    let effects = world.ask(
        2,
        GroupRequest::Delete {
            group: GROUP.to_owned(),
        },
    );
    assert!(effects.len() > 1, "one batch is enough");
    world.said.clear();
    world.command("store");
    assert_eq!(world.said, "reply 2 deleted\n");
    assert_eq!(world.coordinator.stats().offsets, 0);
    world.command("elect epoch=2");
    world.command("load");
    assert_eq!(world.coordinator.stats().offsets, 0);
}

#[test]
fn what_is_on_its_way_is_bounded() {
    let mut world = at_work();
    for ticket in 0..IN_FLIGHT_MAX as u64 {
        assert!(matches!(
            world.ask(ticket, GroupRequest::Commit(offsets_of(0..1, 0)))[..],
            [Effect::Append { .. }]
        ));
    }
    let reply = only_reply(&world.ask(9_999, GroupRequest::Commit(offsets_of(0..1, 0))));
    assert_eq!(reply, refused(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.coordinator.stats().in_flight, IN_FLIGHT_MAX);
}

#[test]
fn what_waits_for_the_lease_is_bounded() {
    let mut world = at_work();
    world.command("lease 0ms");
    let beat = |generation| Heartbeat {
        group: GROUP.to_owned(),
        generation,
        member: String::new(),
        instance: None,
    };
    for ticket in 0..PARKED_MAX as u64 {
        assert!(
            world
                .ask(ticket, GroupRequest::Heartbeat(beat(1)))
                .is_empty()
        );
    }
    let reply = only_reply(&world.ask(9_999, GroupRequest::Heartbeat(beat(1))));
    assert_eq!(reply, refused(GroupError::CoordinatorNotAvailable));

    let mut world = at_work();
    world.command("lease 0ms");
    let large = || GroupRequest::Commit(offsets_of(0..300, 4_096));
    assert_eq!(
        only_reply(&world.ask(1, large())),
        refused(GroupError::CoordinatorNotAvailable)
    );
}

#[test]
fn a_name_has_an_end() {
    let mut world = at_work();
    let mut join = Words(vec!["v=3"]).join(1);
    join.client_id = "c".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(
        only_reply(&world.ask(1, GroupRequest::Join(join))),
        refused(GroupError::InvalidRequest)
    );
    let mut join = Words(vec!["v=3"]).join(2);
    join.client_id = "c".repeat(NAME_BYTES_MAX);
    join.protocols[0].name = "p".repeat(NAME_BYTES_MAX);
    let GroupReply::Joined(joined) = only_reply(&world.ask(2, GroupRequest::Join(join))) else {
        panic!("it fits")
    };
    let sync = Sync {
        group: GROUP.to_owned(),
        generation: 1,
        member: joined.member,
        instance: None,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    world.ask(3, GroupRequest::Sync(sync));
    world.said.clear();
    world.command("store");
    assert_eq!(
        world.said,
        "reply 3 synced consumer/".to_owned() + &"p".repeat(NAME_BYTES_MAX) + " \"\"\n"
    );
    let reply = only_reply(&world.ask(
        4,
        GroupRequest::Delete {
            group: String::new(),
        },
    ));
    assert!(matches!(
        reply,
        GroupReply::Refused(GroupError::NotCoordinator | GroupError::GroupIdNotFound)
    ));
}
