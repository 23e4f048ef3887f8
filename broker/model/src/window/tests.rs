#![allow(clippy::unwrap_used)]

use super::*;
use crate::LeaderEpoch;
use crate::batch::Header;

const P: PartIx = PartIx(3);

/// A seed's stream (xorshift64*).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn claim(pid: i64, epoch: i16, first_seq: i32, count: i32) -> Claim {
    Claim {
        pid: ProducerId(pid),
        epoch: ProducerEpoch(epoch),
        first_seq,
        last_delta: count - 1,
    }
}

fn fact(base_offset: i64, claim: Claim) -> Fact {
    Fact {
        base_offset: Offset(base_offset),
        claim,
        max_ts: WallMs(base_offset),
        transactional: false,
        marker: None,
    }
}

fn duplicate(base_offset: i64, timestamp: i64) -> Verdict {
    Verdict::Duplicate {
        base_offset: Offset(base_offset),
        timestamp: WallMs(timestamp),
    }
}

#[test]
fn the_last_five_batches_are_known_and_no_sixth() {
    let mut windows = Windows::default();
    for n in 0..6 {
        windows.feed(P, &fact(i64::from(n) * 10, claim(1, 0, n * 10, 10)));
    }
    windows.advance(P, Offset(60));
    assert_eq!(windows.check(P, &claim(1, 0, 60, 1)), Verdict::Append);
    for n in 1..6 {
        assert_eq!(
            windows.check(P, &claim(1, 0, n * 10, 10)),
            duplicate(i64::from(n) * 10, 50)
        );
    }
    let gap = Verdict::OutOfOrder { expected: 60 };
    assert_eq!(windows.check(P, &claim(1, 0, 0, 10)), gap);
    assert_eq!(windows.check(P, &claim(1, 0, 61, 1)), gap);
    assert_eq!(
        windows.check(P, &claim(1, 0, 50, 9)),
        gap,
        "another batch under a known sequence"
    );
}

#[test]
fn batches_above_the_high_watermark_are_all_known() {
    let mut windows = Windows::default();
    for n in 0..20 {
        windows.feed(P, &fact(i64::from(n), claim(1, 0, n, 1)));
    }
    assert_eq!(windows.check(P, &claim(1, 0, 0, 1)), duplicate(0, 19));
    windows.advance(P, Offset(20));
    assert_eq!(
        windows.check(P, &claim(1, 0, 0, 1)),
        Verdict::OutOfOrder { expected: 20 }
    );
}

#[test]
fn sequences_wrap_behind_the_largest() {
    let mut windows = Windows::default();
    windows.feed(P, &fact(0, claim(1, 0, i32::MAX - 1, 2)));
    assert_eq!(windows.check(P, &claim(1, 0, 0, 4)), Verdict::Append);
    windows.feed(P, &fact(2, claim(1, 0, i32::MAX, 3)));
    assert_eq!(
        windows.check(P, &claim(1, 0, 0, 4)),
        Verdict::OutOfOrder { expected: 2 }
    );
    assert_eq!(windows.check(P, &claim(1, 0, 2, 4)), Verdict::Append);
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let mut windows = Windows::default();
    windows.feed(P, &fact(0, claim(1, 3, 7, 1)));
    assert_eq!(
        windows.check(P, &claim(1, 4, 8, 1)),
        Verdict::OutOfOrder { expected: 0 }
    );
    assert_eq!(windows.check(P, &claim(1, 4, 0, 1)), Verdict::Append);
    windows.feed(P, &fact(1, claim(1, 4, 0, 1)));
    assert_eq!(
        windows.check(P, &claim(1, 3, 8, 1)),
        Verdict::Fenced {
            current: ProducerEpoch(4)
        }
    );
    assert_eq!(
        windows.check(P, &claim(1, 4, 7, 1)),
        Verdict::OutOfOrder { expected: 1 },
        "the same sequence of another epoch is no duplicate"
    );
}

#[test]
fn without_stored_state_any_sequence_is_right() {
    let windows = Windows::default();
    assert_eq!(windows.check(P, &claim(1, 9, 4711, 5)), Verdict::Append);
}

#[test]
fn the_pair_with_the_oldest_append_goes_first_unless_pinned() {
    let mut windows = Windows::new(3);
    for pid in 0..3 {
        windows.feed(P, &fact(pid, claim(pid, 0, 0, 1)));
    }
    windows.advance(P, Offset(2));
    windows.feed(P, &fact(3, claim(0, 0, 1, 1)));
    // 0 appended last and is above the high watermark, 2 is above it: 1 goes.
    windows.feed(P, &fact(4, claim(9, 0, 0, 1)));
    let pids: Vec<i64> = windows.producers(P).map(|p| p.pid.0).collect();
    assert_eq!((pids, windows.evicted()), (vec![0, 2, 9], 1));
    assert_eq!(
        windows.check(P, &claim(10, 0, 0, 1)),
        Verdict::Crowded,
        "all are pinned"
    );
    windows.advance(P, Offset(5));
    assert_eq!(windows.check(P, &claim(10, 0, 0, 1)), Verdict::Append);
}

#[test]
fn a_marker_ends_the_transaction_and_a_cut_one_opens_it_again() {
    let mut windows = Windows::default();
    let open = Fact {
        transactional: true,
        ..fact(0, claim(1, 0, 0, 2))
    };
    windows.feed(P, &open);
    let marker = Fact {
        marker: Some(Marker {
            commit: true,
            coordinator_epoch: 5,
        }),
        transactional: true,
        ..fact(2, claim(1, 1, -1, 1))
    };
    let shown = |windows: &Windows| {
        let producer = windows.producers(P).next().unwrap();
        (producer.epoch.0, producer.last_seq, producer.txn_first.0)
    };
    assert_eq!(shown(&windows), (0, 1, 0));
    windows.feed(P, &marker);
    assert_eq!(shown(&windows), (1, -1, -1));
    windows.truncate(P, Offset(2));
    assert_eq!(shown(&windows), (0, 1, 0));
    windows.feed(P, &marker);
    windows.advance(P, Offset(3));
    assert_eq!(shown(&windows), (1, -1, -1));
    assert_eq!(windows.producers(P).next().unwrap().coordinator_epoch, 5);
    assert_eq!(windows.check(P, &claim(1, 1, 0, 1)), Verdict::Append);
}

#[test]
fn control_records_are_read_and_others_named() {
    let header = Header {
        base_offset: Offset(9),
        bytes: 78,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0x30,
        last_offset_delta: 0,
        base_timestamp: WallMs(0),
        max_timestamp: WallMs(0),
        producer_id: 4,
        producer_epoch: 0,
        base_sequence: -1,
        records_count: 1,
    };
    // length, attributes, two deltas, key of 4, value of 6, no headers.
    let mut record = vec![32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 7, 0];
    let commit = Marker {
        commit: true,
        coordinator_epoch: 7,
    };
    assert_eq!(
        Fact::of(&header, &record).unwrap().unwrap().marker,
        Some(commit)
    );
    for cut in 0..16 {
        assert_eq!(
            Fact::of(&header, &record[..cut]),
            Err(MarkerFault(Offset(9)))
        );
    }
    record[8] = 2;
    assert_eq!(Fact::of(&header, &record), Err(MarkerFault(Offset(9))));
}

/// What the windows of one partition mean, kept as the plain log.
#[derive(Default)]
struct Naive {
    log: Vec<(i64, Claim)>,
    hw: i64,
}

impl Naive {
    fn check(&self, wanted: &Claim) -> Verdict {
        let of_pid: Vec<_> = self
            .log
            .iter()
            .filter(|(_, c)| c.pid == wanted.pid)
            .collect();
        let Some((_, last)) = of_pid.last() else {
            return Verdict::Append;
        };
        if wanted.epoch < last.epoch {
            return Verdict::Fenced {
                current: last.epoch,
            };
        }
        let above = |at: i64, c: &Claim| at + i64::from(c.last_delta) >= self.hw;
        let below = of_pid.iter().rev().filter(|(at, c)| !above(*at, c)).take(5);
        let hit = of_pid
            .iter()
            .filter(|(at, c)| above(*at, c))
            .chain(below)
            .find(|(_, c)| c == wanted);
        if let Some((at, _)) = hit {
            return duplicate(*at, 0);
        }
        let expected = if wanted.epoch == last.epoch {
            ((i64::from(last.first_seq) + i64::from(last.last_delta) + 1) % (1 << 31)) as i32
        } else {
            0
        };
        if wanted.first_seq == expected {
            Verdict::Append
        } else {
            Verdict::OutOfOrder { expected }
        }
    }
}

/// Random appends, retries, gaps, advances, truncations above the high watermark, checkpoints and replays.
#[test]
fn windows_agree_with_the_plain_log() {
    for seed in 1..=300_u64 {
        let mut rng = Rng(seed);
        let (mut windows, mut naive) = (Windows::default(), Naive::default());
        let mut end = 0_i64;
        for step in 0..200 {
            let place = format!("seed {seed} step {step}");
            match rng.below(10) {
                0 => {
                    naive.hw += rng.below((end - naive.hw + 1) as u64) as i64;
                    windows.advance(P, Offset(naive.hw));
                }
                1 => {
                    let known = windows.pairs();
                    let cuts: Vec<i64> = naive
                        .log
                        .iter()
                        .map(|l| l.0)
                        .filter(|at| *at >= naive.hw)
                        .collect();
                    if let Some(to) = cuts.get(rng.below(cuts.len().max(1) as u64) as usize) {
                        naive.log.retain(|(at, _)| at < to);
                        (end, _) = (*to, windows.truncate(P, Offset(*to)));
                        let below: std::collections::BTreeSet<_> =
                            naive.log.iter().map(|(_, c)| c.pid).collect();
                        assert!(
                            windows.pairs() >= below.len() && windows.pairs() <= known,
                            "{place}"
                        );
                    }
                }
                2 => {
                    let mut bytes = Vec::new();
                    windows.encode(P, &mut bytes);
                    let mut back = Windows::default();
                    back.decode(P, Offset(naive.hw), &bytes).unwrap();
                    // A replay that begins before the checkpoint changes nothing.
                    for (at, claim) in naive.log.iter().rev().take(3).rev() {
                        back.feed(P, &fact(*at, *claim));
                    }
                    let mut again = Vec::new();
                    back.encode(P, &mut again);
                    assert_eq!(bytes, again, "{place}");
                    windows = back;
                }
                _ => {
                    let (pid, count) = (rng.below(3) as i64, 1 + rng.below(3) as i32);
                    let last = naive.log.iter().rev().find(|(_, c)| c.pid.0 == pid);
                    let epoch = last.map_or(0, |(_, c)| c.epoch.0);
                    let next = last.map_or(i32::MAX - 20, |(_, c)| {
                        c.first_seq.wrapping_add(c.last_delta + 1) & i32::MAX
                    });
                    let mut wanted = match rng.below(8) {
                        0 => claim(pid, epoch + 1, 0, count),
                        1 => claim(pid, epoch - 1, next, count),
                        2 => claim(pid, epoch, next.wrapping_add(1) & i32::MAX, count),
                        _ => claim(pid, epoch, next, count),
                    };
                    if rng.below(4) == 0 && !naive.log.is_empty() {
                        wanted = naive.log[rng.below(naive.log.len() as u64) as usize].1;
                    }
                    let mut verdict = windows.check(P, &wanted);
                    if let Verdict::Duplicate { timestamp, .. } = &mut verdict {
                        // A cut append leaves its time behind; the plain log keeps none.
                        *timestamp = WallMs(0);
                    }
                    assert_eq!(verdict, naive.check(&wanted), "{place}: {wanted:?}");
                    if verdict == Verdict::Append {
                        windows.feed(P, &fact(end, wanted));
                        naive.log.push((end, wanted));
                        end += i64::from(wanted.last_delta) + 1;
                    }
                }
            }
        }
    }
}

/// What lies below the high watermark stays whole whatever is cut above it.
#[test]
fn a_truncation_never_empties_a_window() {
    for seed in 1..=100_u64 {
        let mut rng = Rng(seed);
        let mut windows = Windows::default();
        let committed = 1 + rng.below(9) as i32;
        let all = committed + rng.below(9) as i32;
        for n in 0..all {
            windows.feed(P, &fact(i64::from(n), claim(1, 0, n, 1)));
        }
        windows.advance(P, Offset(i64::from(committed)));
        windows.truncate(P, Offset(i64::from(committed)));
        assert_eq!(
            windows.check(P, &claim(1, 0, committed, 1)),
            Verdict::Append,
            "seed {seed}"
        );
        for n in (committed - 5).max(0)..committed {
            assert_eq!(
                windows.check(P, &claim(1, 0, n, 1)),
                duplicate(i64::from(n), i64::from(all) - 1),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn an_unclean_cut_below_the_high_watermark_forgets_what_it_cut() {
    let mut windows = Windows::default();
    windows.feed(P, &fact(0, claim(1, 0, 0, 1)));
    windows.feed(P, &fact(1, claim(1, 0, 1, 1)));
    windows.feed(P, &fact(2, claim(2, 0, 0, 1)));
    windows.advance(P, Offset(3));
    windows.truncate(P, Offset(1));
    assert_eq!(windows.check(P, &claim(1, 0, 1, 1)), Verdict::Append);
    assert_eq!(windows.check(P, &claim(2, 0, 9, 1)), Verdict::Append);
    assert_eq!(windows.pairs(), 1);
}

#[test]
fn bytes_at_rest_that_are_not_ours_are_named() {
    let mut windows = Windows::default();
    for n in 0..3 {
        windows.feed(P, &fact(n, claim(n, 0, 0, 1)));
    }
    windows.advance(P, Offset(2));
    let mut bytes = Vec::new();
    windows.encode(P, &mut bytes);
    for cut in 0..bytes.len() {
        let mut back = Windows::default();
        assert!(
            back.decode(P, Offset(2), &bytes[..cut]).is_err(),
            "cut at {cut}"
        );
        assert_eq!(back.pairs(), 0);
    }
    let mut newer = bytes.clone();
    newer[0] = 2;
    assert_eq!(
        Windows::default().decode(P, Offset(2), &newer),
        Err(WindowFault::Version(2))
    );
    // Any other byte may be flipped: an error or other windows, never a panic.
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            let _ = Windows::default().decode(P, Offset(2), &bad);
        }
    }
}

/// Found by the fuzzer: it was read, then written in an order that is refused.
#[test]
fn a_batch_that_waits_for_the_high_watermark_does_not_precede_a_known_one() {
    let mut windows = Windows::default();
    windows.feed(P, &fact(5, claim(1, 0, 0, 1)));
    windows.advance(P, Offset(6));
    windows.feed(P, &fact(6, claim(1, 0, 1, 1)));
    let mut bytes = Vec::new();
    windows.encode(P, &mut bytes);
    // The item is the last row, its offset the row's first field.
    let at = bytes.len() - ITEM_BYTES;
    assert_eq!(bytes[at..at + 8], 6_i64.to_le_bytes());
    bytes[at] = 4;
    assert!(matches!(
        Windows::default().decode(P, Offset(6), &bytes),
        Err(WindowFault::Malformed(_))
    ));
}
