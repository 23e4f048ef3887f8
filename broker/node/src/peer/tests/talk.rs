//! A gatherer and a holder speak with each other.

use super::*;

fn at(millis: u64) -> Instant {
    Instant(millis * 1_000_000)
}

fn want(gatherer: &mut Gatherer, row: FetchRow) {
    gatherer.want(row.partition, Some(row));
}

#[test]
fn many_partitions_share_a_request() {
    let mut gatherer = Gatherer::default();
    (0..600).for_each(|number| want(&mut gatherer, row(number, 0, 0)));
    let first = gatherer.message().unwrap();
    assert_eq!((first.id, first.rows.len()), (1, FETCH_ROWS_MAX));
    let second = gatherer.message().unwrap();
    assert_eq!((second.id, second.rows.len()), (2, 600 - FETCH_ROWS_MAX));
    assert_eq!(second.rows[0].partition, id(512));
    assert_eq!(gatherer.message(), None);
    // Told again, nothing is news.
    (0..600).for_each(|number| want(&mut gatherer, row(number, 0, 0)));
    assert_eq!(gatherer.message(), None);
}

#[test]
fn a_report_does_not_wait_for_an_answer() {
    let mut gatherer = Gatherer::default();
    want(&mut gatherer, row(1, 10, 7));
    want(&mut gatherer, row(2, 0, 0));
    gatherer.message().unwrap();
    want(&mut gatherer, row(3, 0, 0));
    gatherer.message().unwrap();
    // Both answers are under way: what became durable goes all the same, a new question waits.
    want(&mut gatherer, row(1, 10, 10));
    want(&mut gatherer, row(4, 0, 0));
    let report = gatherer.message().unwrap();
    assert_eq!(report.bytes_max, 0);
    let said: Vec<_> = report
        .rows
        .iter()
        .map(|row| (row.partition, row.durable_off, row.bytes_max))
        .collect();
    assert_eq!(said, [(id(1), Offset(10), 0), (id(4), Offset(0), 0)]);
    assert_eq!(gatherer.message(), None);
    let response = FetchResponse {
        id: 1,
        rows: vec![answer(&row(2, 0, 0), 10)],
    };
    gatherer.answered(&response).unwrap();
    want(&mut gatherer, row(2, 5, 0));
    let next = gatherer.message().unwrap();
    let asked: Vec<_> = next.rows.iter().map(|row| row.partition).collect();
    assert_eq!(asked, [id(4), id(2)]);
    assert_eq!(gatherer.answered(&response), Err(OutOfStep));
}

#[test]
fn what_stands_can_always_be_answered() {
    let mut gatherer = Gatherer::default();
    want(&mut gatherer, row(1, 0, 0));
    want(&mut gatherer, row(2, 0, 0));
    gatherer.message().unwrap();
    // Only one of them was, and its machine asks nobody any more.
    let response = FetchResponse {
        id: 1,
        rows: vec![answer(&row(1, 0, 0), 10)],
    };
    gatherer.answered(&response).unwrap();
    gatherer.want(id(1), None);
    let order = gatherer.message().unwrap();
    assert_eq!(
        (order.bytes_max, order.rows),
        (FETCHED_BYTES_MAX, Vec::new())
    );
    assert_eq!(gatherer.message(), None);
}

#[test]
fn an_answer_takes_partitions_in_turn_and_keeps_to_its_bytes() {
    let mut holder = Holder::default();
    let request = FetchRequest {
        id: 9,
        bytes_max: 2_500_000,
        rows: (0..4).map(|number| row(number, 0, 0)).collect(),
    };
    holder.request(at(0), &request).unwrap();
    // All have more than there is room for; each may have 1 MiB of it.
    let more = |_: &FetchRow| Say::Batches { bytes: 3 << 20 };
    let planned = holder.plan(at(0), more).unwrap();
    let shares: Vec<_> = planned
        .rows
        .iter()
        .map(|(row, bytes)| (row.partition, *bytes))
        .collect();
    let left = 2_500_000 - 2 * (1 << 20);
    assert_eq!(shares, [(id(0), 1 << 20), (id(1), 1 << 20), (id(2), left)]);
    assert_eq!(holder.plan(at(0), more), None);
    // The one that got nothing is the first next time, whoever asked anew.
    let request = FetchRequest {
        id: 10,
        bytes_max: 1_000,
        rows: vec![row(0, 50, 0)],
    };
    holder.request(at(1), &request).unwrap();
    let planned = holder.plan(at(1), more).unwrap();
    assert_eq!((planned.id, planned.rows[0].0.partition), (10, id(3)));
}

#[test]
fn a_question_stands_until_there_is_something_to_say() {
    let mut holder = Holder::default();
    let request = FetchRequest {
        id: 1,
        bytes_max: 1_000,
        rows: vec![row(1, 10, 10), row(2, 20, 20)],
    };
    holder.request(at(0), &request).unwrap();
    assert_eq!(holder.plan(at(0), |_| Say::Nothing), None);
    assert_eq!(holder.deadline(), Some(at(500)));
    // A report is no question, and leaves the question as it is.
    let mut report = row(1, 10, 10);
    report.bytes_max = 0;
    let request = FetchRequest {
        id: 2,
        bytes_max: 0,
        rows: vec![report],
    };
    holder.request(at(100), &request).unwrap();
    holder.changed(id(2));
    holder.changed(id(2));
    let planned = holder
        .plan(at(200), |_| Say::Batches { bytes: 70 })
        .unwrap();
    assert_eq!(
        planned,
        Planned {
            id: 1,
            rows: vec![(row(2, 20, 20), 70)]
        }
    );
    // The other one waits for another order, and then hears that nothing happened.
    assert_eq!(holder.deadline(), None);
    let request = FetchRequest {
        id: 3,
        bytes_max: 1_000,
        rows: vec![row(2, 21, 20)],
    };
    holder.request(at(300), &request).unwrap();
    assert_eq!(holder.plan(at(499), |_| Say::Nothing), None);
    let planned = holder.plan(at(500), |_| Say::Nothing).unwrap();
    assert_eq!(
        planned,
        Planned {
            id: 3,
            rows: vec![(row(1, 10, 10), 0)]
        }
    );
}

#[test]
fn a_peer_is_bounded() {
    let mut holder = Holder::default();
    let order = FetchRequest {
        id: 1,
        bytes_max: 1,
        rows: Vec::new(),
    };
    let many = (0..20)
        .map(|_| holder.request(at(0), &order))
        .find(Result::is_err);
    assert_eq!(many, Some(Err(TooMany)));
    let mut holder = Holder::default();
    let request = FetchRequest {
        id: 1,
        bytes_max: 0,
        rows: (0..=HELD_MAX as u32)
            .map(|number| row(number, 0, 0))
            .collect(),
    };
    assert_eq!(holder.request(at(0), &request), Err(TooMany));
}

/// Logs that grow at random, a follower that reads them: it comes level with each, whatever stands and crosses.
#[test]
fn every_partition_gets_its_turn() {
    let mut random = crate::partition::Random::new(5);
    for _ in 0..50 {
        let (mut gatherer, mut holder) = (Gatherer::default(), Holder::default());
        let mut ends: BTreeMap<u32, i64> = (0..30).map(|number| (number, 0)).collect();
        let mut have = ends.clone();
        (0..30).for_each(|number| want(&mut gatherer, row(number, 0, 0)));
        let (mut to_leader, mut to_follower) = (Vec::new(), Vec::new());
        for step in 0..3_000 {
            let now = at(step * 5);
            match random.below(4) {
                0 if step < 1_500 => {
                    // One partition is written without end.
                    let number = if random.one_in(2) {
                        0
                    } else {
                        random.below(30) as u32
                    };
                    *ends.get_mut(&number).unwrap() += 1 + random.below(5) as i64;
                    holder.changed(id(number));
                }
                1 => to_leader.extend(gatherer.message()),
                2 if !to_leader.is_empty() => {
                    holder.request(now, &to_leader.remove(0)).unwrap();
                }
                _ if !to_follower.is_empty() => {
                    let response: FetchResponse = to_follower.remove(0);
                    gatherer.answered(&response).unwrap();
                    for answered in response.rows {
                        let number = answered.partition.partition.0;
                        let have = have.get_mut(&number).unwrap();
                        assert_eq!(answered.fetch_off.0, *have, "answered twice");
                        *have += i64::from(answered.bytes());
                        want(&mut gatherer, row(number, *have, *have));
                    }
                }
                _ => {}
            }
            let planned = holder.plan(now, |row| {
                let there = ends[&row.partition.partition.0] - row.fetch_off.0;
                match u32::try_from(there).unwrap() {
                    0 => Say::Nothing,
                    bytes => Say::Batches { bytes },
                }
            });
            to_follower.extend(planned.map(|Planned { id, rows }| {
                FetchResponse {
                    id,
                    rows: rows
                        .iter()
                        .map(|(row, bytes)| answer(row, *bytes))
                        .collect(),
                }
            }));
        }
        assert_eq!(have, ends, "somebody never got the rest");
    }
}
