//! Broken rules for tests that must fail: `HOWDAH_MUTATION=name` breaks one, only in builds with the feature
//! `mutations`. Everywhere else [`is`] is `false` and vanishes, but in this crate's own tests, which break a rule for one
//! thread.

macro_rules! mutations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// The rules that can be broken here; the store has its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutation {
            $($(#[$doc])* $variant,)+
        }

        #[cfg(feature = "mutations")]
        fn named(name: &str) -> Option<Mutation> {
            match name {
                $($name => Some(Mutation::$variant),)+
                // Another crate's.
                _ => None,
            }
        }
    };
}

mutations! {
    /// A retry is answered before its original is durable or committed (R11).
    RetryAckedFirst = "retry-acked-first",
    /// A new epoch begins without producer windows.
    WindowEmptied = "window-emptied",
    /// The recovered high watermark is not used.
    RecoveredHighWatermarkDropped = "recovered-hw-dropped",
    /// The recovered log start is not used (R10).
    LogStartLowered = "log-start-lowered",
    /// Every start hands out the same producer ids.
    ProducerIdsReused = "producer-ids-reused",
    /// A new incarnation stays in the ISRs of the old one (R9).
    IncarnationStaysInSync = "incarnation-in-sync",
    /// A disk that its node does not list stays in sync (R9).
    LostDiskStaysInSync = "lost-disk-in-sync",
    /// The last member of an ISR leaves it (R6).
    LastMemberLeaves = "last-member-leaves",
    /// A SUSPECT disk stays in sync as the last member (R9).
    SuspectStaysInSync = "suspect-in-sync",
    /// A leader is elected again in its epoch (R1).
    EpochKept = "epoch-kept",
    /// A leader is chosen among all replicas (R1).
    OutOfSyncElected = "out-of-sync-elected",
    /// A node is taken for dead a little before its last grant has run out on every clock (L1.6).
    DeadTooSoon = "dead-too-soon",
    /// A new controller takes nodes for dead that it has not heard yet.
    UnheardIsDead = "unheard-is-dead",
    /// The controller decides after its lease ended (L1.4).
    DecidesWithoutLease = "decides-without-lease",
    /// A leader is moved before it gave up (S2).
    LeaderMovedUnasked = "leader-moved-unasked",
    /// A node that was dead serves again before it knows what was given to others meanwhile (S2).
    GrantWithoutLog = "grant-without-log",
    /// AlterIsr is taken in another leader epoch (H25).
    AlterIsrOfAnyEpoch = "alter-isr-any-epoch",
    /// AlterIsr is taken for another version of the row (H25).
    AlterIsrOfAnyVersion = "alter-isr-any-version",
    /// AlterIsr is taken with members that are other disks or incarnations by now (H25).
    AlterIsrOfAnyMember = "alter-isr-any-member",
    /// Old replicas leave before the new ones are in sync.
    MovedBeforeInSync = "moved-before-in-sync",
    /// A moved replica reserves nothing.
    MoveReservesNothing = "move-reserves-nothing",
    /// A topic is answered before every live node knows it.
    AnsweredBeforeApplied = "answered-before-applied",
    /// A node that has not applied what was committed frees replicas it does not know (H59).
    FreedTooSoon = "freed-too-soon",
    /// SITE_VERSION rises with a version that one voter alone has blessed (H57).
    VersionOfTrial = "version-of-trial",
    /// Two nodes are drained at a time.
    TwoDrain = "two-drain",
    /// All rows go into one entry.
    EntryTooLarge = "entry-too-large",
    /// A vote is answered before it is durable (L1.1).
    VoteNotDurable = "vote-not-durable",
    /// A voter elects while it is promised to another (L1.2).
    VotesIgnorePromise = "votes-ignore-promise",
    /// A voter elects a candidate whose log is shorter than its own (L1.2).
    VoteForShorterLog = "vote-for-shorter-log",
    /// A promise lasts no longer than a lease (L1.3).
    PromiseShort = "promise-short",
    /// A voter elects at once after a start (L1.3).
    NoWithholding = "no-withholding",
    /// Leases and promises outlive a sleep.
    SleepIgnored = "sleep-ignored",
    /// The controller's lease counts from when a heartbeat was answered (L1.4).
    LeaseFromAck = "lease-from-ack",
    /// A controller decides before an entry of its term is committed (L1.4).
    OfficeBeforeCommit = "office-before-commit",
    /// Grants outlast the controller's lease (L1.5).
    GrantUncapped = "grant-uncapped",
    /// A grant counts from when it came (L1.5).
    GrantFromReceipt = "grant-from-receipt",
    /// A controller elected after a release moves leaders at once (L1.6).
    ReleaseUnawaited = "release-unawaited",
    /// What was granted to a node counts no longer than on the controller's own clock (L1.6).
    GrantForgottenTooSoon = "grant-forgotten-too-soon",
    /// A node that returns is granted a lease before it knows what was decided without it (L1.5).
    GrantUncleared = "grant-uncleared",
    /// Voters change in one entry, however many (L1.7).
    VotersAtOnce = "voters-at-once",
    /// A majority of empty nodes founds a site (L1.8).
    FoundedByMajority = "founded-by-majority",
    /// A replaced node votes as the one it replaces (L1.8).
    ReplacementVotes = "replacement-votes",
    /// A witness is elected although its log is no longer (L1.9).
    WitnessElected = "witness-elected",
    /// A witness keeps the office that it won (L1.9).
    WitnessStays = "witness-stays",
    /// A promotion takes the next term, as any election.
    PromotedUnfenced = "promoted-unfenced",
    /// A follower acknowledges entries that its medium does not hold.
    AckBeforeDurable = "ack-before-durable",
    /// An entry of an earlier term commits by count (Raft §5.4.2).
    OldTermCommitted = "old-term-committed",
    /// An epoch that was accepted is led again (R1, R2).
    LeadsAnEpochTwice = "leads-an-epoch-twice",
    /// A leader begins before its EPOCH record is durable (R2).
    LeadsBeforeDurable = "leads-before-durable",
    /// A lower epoch than the accepted one is followed (R3, H24).
    OlderEpochFollowed = "older-epoch-followed",
    /// A follower reports in an epoch whose EPOCH record is not durable (R3).
    EpochReportedEarly = "epoch-reported-early",
    /// The fetch offset acknowledges: a batch that was not flushed counts (R4, H16).
    FetchAcknowledges = "fetch-acknowledges",
    /// What a follower reports in another epoch counts (R4, H21).
    AckOfAnyEpoch = "ack-of-any-epoch",
    /// What a follower reports counts although its log parts from the leader's (R4).
    AckWhileDiverging = "ack-while-diverging",
    /// A leader that meets a later epoch goes on (R4).
    StaleLeaderStays = "stale-leader-stays",
    /// The high watermark moves below min.insync.replicas (R5, H27).
    CommittedBelowMin = "committed-below-min",
    /// Members that may have joined are not waited for (R5, H26).
    JoiningNotCounted = "joining-not-counted",
    /// A shrink counts before it is committed (R5).
    ShrinkCountsEarly = "shrink-counts-early",
    /// What a disk or incarnation of a node has reported counts for the next one (R5, H22, H35).
    AckOutlivesDisk = "ack-outlives-disk",
    /// A follower joins with less than is committed (R6).
    JoinsBehind = "joins-behind",
    /// A follower joins with less than the epoch began with (R6).
    JoinsBelowStart = "joins-below-start",
    /// Who lags stays in sync (R6).
    LaggardStays = "laggard-stays",
    /// Committed records are cut (R7, H28).
    CommittedCut = "committed-cut",
    /// Requests are served without the lease (R8).
    LeaseIgnored = "lease-ignored",
    /// A follower keeps its own log start (R10, H41).
    LogStartNotFollowed = "log-start-not-followed",
    /// A cut leaves the producers' windows as they were (H42).
    WindowsKeptInCut = "windows-kept-in-cut",
    /// A follower doesn't feed its windows (H33).
    WindowsNotCopied = "windows-not-copied",
    /// A leader's batches are taken as they come (H34).
    CopiesUnchecked = "copies-unchecked",
    /// A catch-up is over before a checkpoint covers it (H38).
    JoinsUncovered = "joins-uncovered",
    /// A slow disk stays in sync (H55).
    SlowStays = "slow-stays",
}

#[cfg(test)]
thread_local! {
    static BROKEN: core::cell::Cell<Option<Mutation>> = const { core::cell::Cell::new(None) };
}

/// Breaks a rule for this thread.
#[cfg(test)]
pub(crate) fn set(mutation: Option<Mutation>) {
    BROKEN.with(|broken| broken.set(mutation));
}

#[cfg(any(test, feature = "mutations"))]
pub(crate) fn is(mutation: Mutation) -> bool {
    #[cfg(test)]
    if BROKEN.with(core::cell::Cell::get) == Some(mutation) {
        return true;
    }
    chosen() == Some(mutation)
}

#[cfg(feature = "mutations")]
fn chosen() -> Option<Mutation> {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Mutation>> = OnceLock::new();
    *CHOSEN.get_or_init(|| named(&std::env::var("HOWDAH_MUTATION").ok()?))
}

#[cfg(all(test, not(feature = "mutations")))]
const fn chosen() -> Option<Mutation> {
    None
}

#[cfg(not(any(test, feature = "mutations")))]
pub(crate) const fn is(_: Mutation) -> bool {
    false
}
