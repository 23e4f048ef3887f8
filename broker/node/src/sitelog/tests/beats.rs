//! What the beat thread's part promises, earns and grants.

use model::Uuid;

use super::*;

fn incarnation(node: u32) -> Incarnation {
    Incarnation(Uuid([node as u8; 16]))
}

fn ms(number: u64) -> Instant {
    Instant(0) + Duration::from_millis(number)
}

/// A seat of a site of three, told its part at 1,000 ms.
fn seat(node: u32, office: Office) -> Beats {
    let settings = Settings {
        peers: (1..=3).map(NodeId).collect(),
        ..Settings::alone(NodeId(node), incarnation(node))
    };
    let mut beats = Beats::new(&settings, u64::from(node), ms(900));
    let mut orders = Orders {
        version: 1,
        term: Term(7),
        office,
        ..Orders::default()
    };
    for (voter, node) in orders.voters.iter_mut().zip(1..=3) {
        *voter = Some(incarnation(node));
    }
    beats.obey(ms(1_000), &orders);
    beats
}

fn order(beats: &mut Beats, at: u64, change: impl FnOnce(&mut Orders)) {
    let mut orders = *beats.orders();
    orders.version += 1;
    change(&mut orders);
    beats.obey(ms(at), &orders);
}

fn tick(beats: &mut Beats, at: u64) -> Datagrams {
    let mut out = Datagrams::new();
    beats.tick(ms(at), &mut out);
    out
}

/// What comes back.
fn give(beats: &mut Beats, at: u64, from: u32, bytes: &[u8]) -> Option<[u8; BEAT_BYTES]> {
    let mut out = Datagrams::new();
    beats
        .receive(ms(at), NodeId(from), bytes, &mut out)
        .unwrap();
    assert!(out.len() <= 1);
    out.pop().map(|(to, bytes)| {
        assert_eq!(to, NodeId(from));
        bytes
    })
}

fn office(beats: &Beats) -> u128 {
    beats.facts().office.1.since(Instant(0)).as_millis()
}

#[test]
pub(super) fn a_lease_counts_from_when_its_heartbeats_were_sent() {
    let mut controller = seat(1, Office::Elected);
    let mut node = seat(2, Office::None);
    assert_eq!(controller.deadline(), Some(ms(1_000)));
    let first = tick(&mut controller, 1_000);
    assert_eq!(first.len(), 2, "one to each of the others");
    assert_eq!(controller.deadline(), Some(ms(1_100)));
    assert_eq!(
        controller.facts().promise,
        (Term(7), ms(1_450)),
        "bound like its voters"
    );
    assert_eq!(office(&controller), 0, "alone it is no majority");
    tick(&mut controller, 1_100);
    let up = give(&mut node, 1_120, 1, &first[0].1).unwrap();
    assert_eq!(node.facts().promise, (Term(7), ms(1_570)));
    assert!(
        give(&mut controller, 1_150, 2, &up).is_none(),
        "it grants nothing yet"
    );
    assert_eq!(office(&controller), 1_400);
}

#[test]
pub(super) fn a_node_counts_as_alive_until_no_grant_can_be_running() {
    let mut controller = seat(1, Office::Controller);
    let mut node = seat(2, Office::None);
    let beats = tick(&mut controller, 1_000);
    let up = give(&mut node, 1_001, 1, &beats[0].1).unwrap();
    give(&mut controller, 1_002, 2, &up);
    let seen = controller.facts().seats[1];
    assert_eq!((seen.heard, seen.dead_from), (ms(1_002), ms(1_450)));
    assert_eq!(seen.returned, ms(1_002));
    // Heard again in time, it has not returned; heard later, it has.
    give(&mut controller, 1_449, 2, &up);
    assert_eq!(controller.facts().seats[1].returned, ms(1_002));
    give(&mut controller, 1_897, 2, &up);
    assert_eq!(controller.facts().seats[1].returned, ms(1_897));
}

#[test]
pub(super) fn a_node_that_returns_waits_until_it_knows_what_was_decided() {
    let mut controller = seat(1, Office::Controller);
    let mut node = seat(2, Office::None);
    let first = tick(&mut controller, 1_000);
    let up = give(&mut node, 1_001, 1, &first[0].1).unwrap();
    assert!(give(&mut controller, 1_002, 2, &up).is_none());
    order(&mut controller, 1_003, |orders| {
        orders.cleared[1] = (ms(1_002), Index(5))
    });
    assert!(
        give(&mut controller, 1_004, 2, &up).is_none(),
        "it has applied nothing"
    );
    // Its core applies; it says so without waiting for the next heartbeat.
    order(&mut node, 1_010, |orders| orders.report.applied = Index(5));
    assert!(node.deadline() <= Some(ms(1_010)));
    let beats = tick(&mut node, 1_010);
    assert_eq!(beats[0].0, NodeId(1));
    assert_eq!(node.deadline(), None, "once");
    let grant = give(&mut controller, 1_011, 2, &beats[0].1).unwrap();
    assert!(give(&mut node, 1_020, 1, &grant).is_none());
    // The controller's lease ends at 1,400 ms: 389 ms from then, counted from when the node asked.
    assert_eq!(node.facts().granted, (Term(7), ms(1_010 + 389)));
    // It answers no heartbeat, and earns none.
    assert_eq!(office(&controller), 1_400);
}

#[test]
fn nothing_of_another_term_life_or_sleep_counts() {
    let mut controller = seat(1, Office::Elected);
    let mut node = seat(2, Office::None);
    let old = tick(&mut controller, 1_000);
    order(&mut node, 1_001, |orders| orders.term = Term(8));
    assert!(give(&mut node, 1_002, 1, &old[0].1).is_none());
    assert_eq!(
        node.facts().promise.1,
        Instant(0),
        "no promise to an older term"
    );
    // The same node answered for it before; the controller slept meanwhile.
    let mut node = seat(2, Office::None);
    let up = give(&mut node, 1_003, 1, &old[0].1).unwrap();
    controller.slept(ms(1_004));
    give(&mut controller, 1_005, 2, &up);
    assert_eq!(office(&controller), 0);
    // As another incarnation it is no voter.
    let new = tick(&mut controller, 1_100);
    let up = give(&mut node, 1_101, 1, &new[0].1).unwrap();
    order(&mut controller, 1_102, |orders| {
        orders.voters[1] = Some(incarnation(9))
    });
    give(&mut controller, 1_103, 2, &up);
    assert_eq!(office(&controller), 0);
    order(&mut controller, 1_104, |orders| {
        orders.voters[1] = Some(incarnation(2))
    });
    give(&mut controller, 1_105, 2, &up);
    assert_eq!(office(&controller), 1_500);
    // What was earned from a voter that is one no more is earned no more.
    order(&mut controller, 1_106, |orders| orders.voters[1] = None);
    assert_eq!(office(&controller), 0, "of two, one is no majority");
}

#[test]
pub(super) fn a_grant_ends_with_its_term_and_with_sleep() {
    let granted = || {
        let mut controller = seat(1, Office::Controller);
        let mut node = seat(2, Office::None);
        let beats = tick(&mut controller, 1_000);
        let up = give(&mut node, 1_001, 1, &beats[0].1).unwrap();
        give(&mut controller, 1_002, 2, &up);
        order(&mut controller, 1_002, |orders| {
            orders.cleared[1] = (ms(1_002), Index(0))
        });
        let grant = give(&mut controller, 1_003, 2, &up).unwrap();
        give(&mut node, 1_004, 1, &grant);
        assert_eq!(node.facts().granted, (Term(7), ms(1_001 + 397)));
        (node, grant)
    };
    let (mut node, grant) = granted();
    order(&mut node, 1_005, |orders| orders.term = Term(8));
    give(&mut node, 1_006, 1, &grant);
    assert_eq!(node.facts().granted, (Term(8), Instant(0)));
    let (mut node, grant) = granted();
    node.slept(ms(1_005));
    give(&mut node, 1_006, 1, &grant);
    assert_eq!(
        node.facts().granted.1,
        Instant(0),
        "stamped before the sleep"
    );
}
