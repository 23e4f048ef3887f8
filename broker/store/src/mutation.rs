//! Broken rules for tests that must fail: `HOWDAH_MUTATION=name` breaks one, only in builds with the feature
//! `mutations`. Everywhere else [`is`] is `false` and vanishes.

/// The rules that can be broken here; the node has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// EPOCH overtakes its own replica's batches, which are then written under an epoch that is over (H37).
    BatchAcrossEpoch,
    /// A checkpoint holds metadata later than the place from which it is replayed (H39).
    SnapshotLaterThanReplay,
    /// The replay writes batches of extents that are gone at the ring's end (H39).
    OnePassReplay,
    /// LOG_START records are not replayed (R10).
    LogStartLowered,
    /// The checkpoint file's times stay as they are before its fsync.
    CheckpointUntouched,
}

#[cfg(feature = "mutations")]
pub(crate) fn is(mutation: Mutation) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Mutation>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        Some(match std::env::var("HOWDAH_MUTATION").ok()?.as_str() {
            "batch-across-epoch" => Mutation::BatchAcrossEpoch,
            "snapshot-later-than-replay" => Mutation::SnapshotLaterThanReplay,
            "one-pass-replay" => Mutation::OnePassReplay,
            "checkpoint-untouched" => Mutation::CheckpointUntouched,
            "log-start-lowered" => Mutation::LogStartLowered,
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
