//! Each rule broken once, and the text or test that notices.

use super::*;
use crate::mutation;

fn text(name: &str) {
    scenario::run::<peers::World>(&format!("sitelog/tests/{name}.txt"));
}

/// Which rule, and who notices.
const RULES: [(Mutation, fn()); 22] = [
    (Mutation::VoteNotDurable, || text("votes")),
    (Mutation::VotesIgnorePromise, || text("votes")),
    (Mutation::VoteForShorterLog, || text("votes")),
    (Mutation::PromiseShort, || text("votes")),
    (Mutation::NoWithholding, || text("votes")),
    (Mutation::SleepIgnored, || text("votes")),
    (
        Mutation::SleepIgnored,
        beats::a_grant_ends_with_its_term_and_with_sleep,
    ),
    (
        Mutation::LeaseFromAck,
        beats::a_lease_counts_from_when_its_heartbeats_were_sent,
    ),
    (Mutation::OfficeBeforeCommit, || text("offices")),
    (
        Mutation::GrantUncapped,
        beats::a_grant_ends_with_its_term_and_with_sleep,
    ),
    (
        Mutation::GrantFromReceipt,
        beats::a_grant_ends_with_its_term_and_with_sleep,
    ),
    (
        Mutation::GrantUncleared,
        beats::a_node_that_returns_waits_until_it_knows_what_was_decided,
    ),
    (
        Mutation::GrantForgottenTooSoon,
        beats::a_node_counts_as_alive_until_no_grant_can_be_running,
    ),
    (Mutation::ReleaseUnawaited, || text("offices")),
    (Mutation::VotersAtOnce, || text("changes")),
    (Mutation::FoundedByMajority, || text("founding")),
    (Mutation::ReplacementVotes, || text("votes")),
    (Mutation::WitnessElected, || text("witness")),
    (Mutation::WitnessStays, || text("witness")),
    (Mutation::PromotedUnfenced, || text("promotion")),
    (Mutation::AckBeforeDurable, || text("replication")),
    (Mutation::OldTermCommitted, || text("replication")),
];

#[test]
fn every_broken_rule_is_noticed() {
    // Texts that are written anew notice nothing.
    if std::env::var_os("HOWDAH_UPDATE").is_some() {
        return;
    }
    for (rule, test) in RULES {
        test();
        mutation::set(Some(rule));
        let noticed = std::panic::catch_unwind(test).is_err();
        mutation::set(None);
        assert!(noticed, "{rule:?} is broken and nobody notices");
    }
}
