//! Broken rules for tests that must fail: `HOWDAH_MUTATION=name` breaks one, only in builds with the feature
//! `mutations`. Everywhere else [`is`] is `false` and vanishes.

/// The rule that can be broken here; the node and the store have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A blank meta disk beside disks that hold data is taken for an empty node (L1.8).
    BlankMetaTaken,
}

#[cfg(feature = "mutations")]
pub(crate) fn is(mutation: Mutation) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Mutation>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        Some(match std::env::var("HOWDAH_MUTATION").ok()?.as_str() {
            "blank-meta-taken" => Mutation::BlankMetaTaken,
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
