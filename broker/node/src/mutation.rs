//! Broken rules for tests that must fail: `HOWDAH_MUTATION=name` breaks one, only in builds with the feature
//! `mutations`. Everywhere else [`is`] is `false` and vanishes.

/// The rules that can be broken here; the store has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A retry is answered before its original is durable or committed (R11).
    RetryAckedFirst,
    /// A new epoch begins without producer windows.
    WindowEmptied,
    /// The recovered high watermark is not used.
    RecoveredHighWatermarkDropped,
    /// The recovered log start is not used (R10).
    LogStartLowered,
    /// Every start hands out the same producer ids.
    ProducerIdsReused,
    /// A new incarnation stays in the ISRs of the old one (R9).
    IncarnationStaysInSync,
    /// A disk that its node does not list stays in sync (R9).
    LostDiskStaysInSync,
    /// The last member of an ISR leaves it (R6).
    LastMemberLeaves,
    /// A SUSPECT disk stays in sync as the last member (R9).
    SuspectStaysInSync,
    /// A leader is elected again in its epoch (R1).
    EpochKept,
    /// A leader is chosen among all replicas (R1).
    OutOfSyncElected,
    /// A node is dead as soon as its grant ends on the controller's clock (L1.6).
    DeadTooSoon,
    /// A new controller takes nodes for dead that it has not heard yet.
    UnheardIsDead,
    /// The controller decides after its lease ended (L1.4).
    DecidesWithoutLease,
    /// A leader is moved before it gave up (S2).
    LeaderMovedUnasked,
    /// AlterIsr is taken in another leader epoch (H25).
    AlterIsrOfAnyEpoch,
    /// AlterIsr is taken for another version of the row (H25).
    AlterIsrOfAnyVersion,
    /// AlterIsr is taken with members that are other disks or incarnations by now (H25).
    AlterIsrOfAnyMember,
    /// Old replicas leave before the new ones are in sync.
    MovedBeforeInSync,
    /// A moved replica reserves nothing.
    MoveReservesNothing,
    /// A topic is answered before every live node knows it.
    AnsweredBeforeApplied,
    /// A node that has not applied what was committed frees replicas it does not know (H59).
    FreedTooSoon,
    /// SITE_VERSION rises with a version that one voter alone has blessed (H57).
    VersionOfTrial,
    /// Two nodes are drained at a time.
    TwoDrain,
    /// All rows go into one entry.
    EntryTooLarge,
    /// A vote is answered before it is durable (L1.1).
    VoteNotDurable,
    /// A voter elects while it is promised to another (L1.2).
    VotesIgnorePromise,
    /// A voter elects a candidate whose log is shorter than its own (L1.2).
    VoteForShorterLog,
    /// A promise lasts no longer than a lease (L1.3).
    PromiseShort,
    /// A voter elects at once after a start (L1.3).
    NoWithholding,
    /// Leases and promises outlive a sleep.
    SleepIgnored,
    /// The controller's lease counts from when a heartbeat was answered (L1.4).
    LeaseFromAck,
    /// A controller decides before an entry of its term is committed (L1.4).
    OfficeBeforeCommit,
    /// Grants outlast the controller's lease (L1.5).
    GrantUncapped,
    /// A grant counts from when it came (L1.5).
    GrantFromReceipt,
    /// A controller elected after a release moves leaders at once (L1.6).
    ReleaseUnawaited,
    /// What was granted to a node counts no longer than on the controller's own clock (L1.6).
    GrantForgottenTooSoon,
    /// Voters change in one entry, however many (L1.7).
    VotersAtOnce,
    /// A majority of empty nodes founds a site (L1.8).
    FoundedByMajority,
    /// A replaced node votes as the one it replaces (L1.8).
    ReplacementVotes,
    /// A witness is elected although its log is no longer (L1.9).
    WitnessElected,
    /// A witness keeps the office that it won (L1.9).
    WitnessStays,
    /// A promotion takes the next term, as any election.
    PromotedUnfenced,
    /// A follower acknowledges entries that its medium does not hold.
    AckBeforeDurable,
    /// An entry of an earlier term commits by count (Raft §5.4.2).
    OldTermCommitted,
}

#[cfg(feature = "mutations")]
pub(crate) fn is(mutation: Mutation) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Mutation>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        Some(match std::env::var("HOWDAH_MUTATION").ok()?.as_str() {
            "retry-acked-first" => Mutation::RetryAckedFirst,
            "window-emptied" => Mutation::WindowEmptied,
            "recovered-hw-dropped" => Mutation::RecoveredHighWatermarkDropped,
            "log-start-lowered" => Mutation::LogStartLowered,
            "producer-ids-reused" => Mutation::ProducerIdsReused,
            "incarnation-in-sync" => Mutation::IncarnationStaysInSync,
            "lost-disk-in-sync" => Mutation::LostDiskStaysInSync,
            "last-member-leaves" => Mutation::LastMemberLeaves,
            "suspect-in-sync" => Mutation::SuspectStaysInSync,
            "epoch-kept" => Mutation::EpochKept,
            "out-of-sync-elected" => Mutation::OutOfSyncElected,
            "dead-too-soon" => Mutation::DeadTooSoon,
            "unheard-is-dead" => Mutation::UnheardIsDead,
            "decides-without-lease" => Mutation::DecidesWithoutLease,
            "leader-moved-unasked" => Mutation::LeaderMovedUnasked,
            "alter-isr-any-epoch" => Mutation::AlterIsrOfAnyEpoch,
            "alter-isr-any-version" => Mutation::AlterIsrOfAnyVersion,
            "alter-isr-any-member" => Mutation::AlterIsrOfAnyMember,
            "moved-before-in-sync" => Mutation::MovedBeforeInSync,
            "move-reserves-nothing" => Mutation::MoveReservesNothing,
            "answered-before-applied" => Mutation::AnsweredBeforeApplied,
            "freed-too-soon" => Mutation::FreedTooSoon,
            "version-of-trial" => Mutation::VersionOfTrial,
            "two-drain" => Mutation::TwoDrain,
            "entry-too-large" => Mutation::EntryTooLarge,
            "vote-not-durable" => Mutation::VoteNotDurable,
            "votes-ignore-promise" => Mutation::VotesIgnorePromise,
            "vote-for-shorter-log" => Mutation::VoteForShorterLog,
            "promise-short" => Mutation::PromiseShort,
            "no-withholding" => Mutation::NoWithholding,
            "sleep-ignored" => Mutation::SleepIgnored,
            "lease-from-ack" => Mutation::LeaseFromAck,
            "office-before-commit" => Mutation::OfficeBeforeCommit,
            "grant-uncapped" => Mutation::GrantUncapped,
            "grant-from-receipt" => Mutation::GrantFromReceipt,
            "release-unawaited" => Mutation::ReleaseUnawaited,
            "grant-forgotten-too-soon" => Mutation::GrantForgottenTooSoon,
            "voters-at-once" => Mutation::VotersAtOnce,
            "founded-by-majority" => Mutation::FoundedByMajority,
            "replacement-votes" => Mutation::ReplacementVotes,
            "witness-elected" => Mutation::WitnessElected,
            "witness-stays" => Mutation::WitnessStays,
            "promoted-unfenced" => Mutation::PromotedUnfenced,
            "ack-before-durable" => Mutation::AckBeforeDurable,
            "old-term-committed" => Mutation::OldTermCommitted,
            // Another crate's.
            _ => return None,
        })
    });
    *chosen == Some(mutation)
}

#[cfg(not(feature = "mutations"))]
pub(crate) const fn is(_: Mutation) -> bool {
    false
}
