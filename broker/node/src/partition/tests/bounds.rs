//! Bounds: what is one too many is refused with a code that clients retry, and a step's effects fit.

use model::Offset;

use super::text::{Words, effect_text};
use super::*;

fn numbered(ticket: usize) -> Produce {
    Produce {
        ticket: Ticket(ticket as u64),
        ..Words(Vec::new()).produce()
    }
}

fn leader(lease: Instant) -> World {
    let mut world = World::empty(SETTINGS);
    world.tell(Input::Lease { until: lease });
    let isr = Box::new([member("a")]);
    world.lead(LeaderEpoch(1), isr);
    world.flush();
    world
}

const FOR_EVER: Instant = Instant(u64::MAX / 2);

#[test]
fn one_batch_too_many_does_not_wait() {
    let mut world = leader(FOR_EVER);
    for ticket in 0..WAITING_MAX {
        assert!(matches!(
            world.produce(numbered(ticket))[..],
            [Effect::Append { .. }]
        ));
    }
    let refused = world.produce(numbered(WAITING_MAX));
    assert_eq!(
        effect_text(&refused[0]),
        "reply ticket=32768 NOT_ENOUGH_REPLICAS crowded"
    );
    // The one flush that frees them answers all in one step.
    let end = world.machine.end;
    let answered = world.tell(Input::Durable { end });
    assert_eq!(answered.len(), WAITING_MAX + 1);
    assert!(world.owed.is_empty());
}

#[test]
fn one_request_too_many_is_not_parked() {
    let mut world = leader(Instant(0));
    for ticket in 0..PARKED_MAX {
        world.produce(numbered(ticket));
    }
    let refused = world.produce(numbered(PARKED_MAX));
    assert_eq!(
        effect_text(&refused[0]),
        "reply ticket=8192 NOT_ENOUGH_REPLICAS crowded"
    );
    let served = world.tell(Input::Lease { until: FOR_EVER });
    assert_eq!(served.len(), PARKED_MAX);
}

#[test]
fn one_deletion_too_many_does_not_wait() {
    let mut world = leader(FOR_EVER);
    world.produce(Produce {
        last_offset_delta: 9,
        ..numbered(0)
    });
    world.flush();
    for ticket in 1..=DELETIONS_MAX {
        world.delete(Ticket(ticket as u64), Offset(5));
    }
    let refused = world.delete(Ticket(9_999), Offset(6));
    assert_eq!(
        effect_text(&refused[0]),
        "reply ticket=9999 NOT_ENOUGH_REPLICAS crowded"
    );
    // What needs no waiting is answered all the same.
    let done = world.delete(Ticket(10_000), Offset(0));
    assert_eq!(
        effect_text(&done[0]),
        "reply ticket=10000 deleted log-start=0"
    );
    assert_eq!(world.flush().len(), DELETIONS_MAX);
}

#[test]
fn everything_at_once_fits_into_a_step() {
    let mut world = leader(Instant(1));
    for ticket in 0..WAITING_MAX {
        world.produce(numbered(ticket));
    }
    world.now = Instant(1);
    for ticket in 0..PARKED_MAX {
        world.produce(numbered(WAITING_MAX + ticket));
    }
    let refused = world.tell(Input::DiskFailed);
    assert_eq!(refused.len(), WAITING_MAX + PARKED_MAX + 1);
    assert!(world.owed.is_empty());
}
