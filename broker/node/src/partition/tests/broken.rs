//! Each rule, broken by name, is missed by a text.

use super::*;
use crate::mutation;
use crate::mutation::Mutation::{self, *};

const MISSED_BY: [(Mutation, &str); 26] = [
    (RetryAckedFirst, "retries"),
    (WindowEmptied, "retries"),
    (RecoveredHighWatermarkDropped, "recovery"),
    (LogStartLowered, "recovery"),
    (LeadsAnEpochTwice, "office"),
    (LeadsBeforeDurable, "office"),
    (OlderEpochFollowed, "copying"),
    (EpochReportedEarly, "copying"),
    (FetchAcknowledges, "copying"),
    (AckOfAnyEpoch, "insync"),
    (AckWhileDiverging, "replicas"),
    (StaleLeaderStays, "replicas"),
    (CommittedBelowMin, "insync"),
    (JoiningNotCounted, "members"),
    (ShrinkCountsEarly, "members"),
    (AckOutlivesDisk, "members"),
    (JoinsBehind, "members"),
    (JoinsBelowStart, "members"),
    (LaggardStays, "members"),
    (CommittedCut, "divergence"),
    (LeaseIgnored, "lease"),
    (LogStartNotFollowed, "copying"),
    (WindowsKeptInCut, "divergence"),
    (WindowsNotCopied, "copying"),
    (CopiesUnchecked, "copying"),
    (JoinsUncovered, "catch_up"),
];

#[test]
fn every_broken_rule_is_missed() {
    if std::env::var_os("HOWDAH_UPDATE").is_some() {
        return;
    }
    for (rule, text) in MISSED_BY.into_iter().chain([(SlowStays, "slow")]) {
        let run = || scenario::run::<World>(&format!("partition/tests/{text}.txt"));
        mutation::set(Some(rule));
        let broken = std::panic::catch_unwind(run);
        mutation::set(None);
        assert!(broken.is_err(), "{text}.txt does not miss {rule:?}");
        run();
    }
}
