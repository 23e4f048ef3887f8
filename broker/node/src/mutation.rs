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
