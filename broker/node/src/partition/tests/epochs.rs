//! The epoch cache against the answers a plain list of batches gives.

use super::super::epochs::Epochs;
use super::properties::Random;
use super::*;

/// Epoch and offsets of what is in the log; an epoch may have nothing.
fn end_of(
    log: &[(LeaderEpoch, i64)],
    begun: &[LeaderEpoch],
    epoch: LeaderEpoch,
) -> Option<(LeaderEpoch, Offset)> {
    let end = log.len() as i64;
    if begun.last() == Some(&epoch) {
        return Some((epoch, Offset(end)));
    }
    if begun.last().is_none_or(|last| epoch > *last) {
        return None;
    }
    let behind = log.iter().take_while(|(of, _)| *of <= epoch).count();
    let floor = log[..behind].last().map_or(epoch, |(of, _)| *of);
    Some((floor, Offset(behind as i64)))
}

#[test]
fn ends_are_those_of_the_log() {
    let mut random = Random::new(11);
    for _ in 0..500 {
        let mut epochs = Epochs::default();
        let (mut log, mut begun) = (Vec::new(), Vec::new());
        let mut epoch = LeaderEpoch(0);
        for _ in 0..8 {
            epoch = LeaderEpoch(epoch.0 + 1 + random.below(3) as i32);
            epochs.begin(epoch, Offset(log.len() as i64));
            begun.push(epoch);
            for _ in 0..random.below(4) {
                log.push((epoch, log.len() as i64));
            }
        }
        let end = Offset(log.len() as i64);
        for asked in 0..epoch.0 + 3 {
            let asked = LeaderEpoch(asked);
            assert_eq!(
                epochs.end_of(asked, end),
                end_of(&log, &begun, asked),
                "of {asked:?} in {epochs:?}"
            );
        }
        for (of, offset) in &log {
            assert_eq!(epochs.at(Offset(*offset)), *of);
        }
    }
}

#[test]
fn a_cut_start_keeps_the_epoch_that_covers_it() {
    let mut epochs = Epochs::default();
    for (epoch, start) in [(1, 0), (2, 10), (5, 20)] {
        epochs.begin(LeaderEpoch(epoch), Offset(start));
    }
    epochs.trim(Offset(15));
    assert_eq!(epochs.at(Offset(14)), LeaderEpoch::NONE);
    assert_eq!(epochs.at(Offset(15)), LeaderEpoch(2));
    assert_eq!(
        epochs.end_of(LeaderEpoch(1), Offset(30)),
        Some((LeaderEpoch(1), Offset(15)))
    );
    assert_eq!(
        epochs.end_of(LeaderEpoch(3), Offset(30)),
        Some((LeaderEpoch(2), Offset(20)))
    );
}

#[test]
fn of_too_many_the_oldest_go() {
    let mut epochs = Epochs::default();
    for epoch in 0..600 {
        epochs.begin(LeaderEpoch(epoch), Offset(i64::from(epoch)));
    }
    assert_eq!(epochs.at(Offset(87)), LeaderEpoch::NONE);
    assert_eq!(epochs.at(Offset(88)), LeaderEpoch(88));
    assert_eq!(
        epochs.end_of(LeaderEpoch(3), Offset(600)),
        Some((LeaderEpoch(3), Offset(88)))
    );
}
