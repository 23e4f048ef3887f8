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
    /// A moved replica reserves nothing.
    MoveReservesNothing,
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
            "move-reserves-nothing" => Mutation::MoveReservesNothing,
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
