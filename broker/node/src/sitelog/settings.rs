//! Who a node is among the site's, and how long what it promises lasts.

use core::time::Duration;

use model::{Incarnation, NodeId};

use super::Voters;

/// Nodes of a site, its witness included: five and one.
pub const SEATS_MAX: usize = 6;

/// Spans of the lease protocol. A clock's rate may be wrong by ρ = 5 %, so a promise must outlast a lease by
/// (1 + ρ)/(1 − ρ) = 1.106 of it: 450 ms ≥ 1.106 · 400 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// H: the controller's heartbeats are sent so often.
    pub heartbeat: Duration,
    /// D_c: a lease lasts so long from when the beat that earns it was *sent*, by the clock that sent it.
    pub lease: Duration,
    /// D_v: a voter elects nobody else so long after a beat *came*; and after any start or sleep.
    pub promise: Duration,
    /// A candidate waits so long for each voter that stands before it.
    pub rank: Duration,
    /// And up to so much more, drawn anew each time.
    pub jitter: Duration,
}

impl Timing {
    /// Preset `lan`: nodes on one switch whose beats have real-time priority.
    pub const LAN: Self = Self::times(1);
    /// Preset `slow`: three times that.
    pub const SLOW: Self = Self::times(3);

    const fn times(factor: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(100 * factor),
            lease: Duration::from_millis(400 * factor),
            promise: Duration::from_millis(450 * factor),
            rank: Duration::from_millis(60 * factor),
            jitter: Duration::from_millis(30 * factor),
        }
    }

    /// After so long on this node's clock `granted` has passed on any other (L1.6): 1.12 ≥ (1 + ρ)/(1 − ρ).
    #[must_use]
    pub const fn passed_everywhere(granted: Duration) -> Duration {
        granted
            .saturating_mul(112)
            .checked_div(100)
            .expect("not zero")
    }
}

/// What a node's machine is built with; the site file, the superblock and the kernel's random numbers say it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Drawn when its meta disk was formatted.
    pub incarnation: Incarnation,
    /// All nodes of the site file and its witness, this one included, by rising number.
    pub peers: Vec<NodeId>,
    /// Who votes according to the site file, in order of rank. Counts only until the log or the snapshot names voters.
    /// Incarnations are left zero: those of others are learned when the site is founded.
    pub voters: Voters,
    /// How long everything lasts.
    pub timing: Timing,
    /// Seeds the jitter; need not be secret.
    pub seed: u64,
    /// Every disk that this node can see is FRESH (L1.8): it may take part in founding a site.
    pub may_found: bool,
    /// Its meta disk is not SUSPECT (L1.2): who may have forgotten a vote gives none.
    pub may_vote: bool,
}

impl Settings {
    /// A site of one node.
    #[must_use]
    pub fn alone(node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            node,
            incarnation,
            peers: vec![node],
            voters: Voters::alone(node, incarnation),
            timing: Timing::LAN,
            seed: 0,
            may_found: true,
            may_vote: true,
        }
    }
}

/// Jitter (SplitMix64: Steele, Lea, Flood 2014): one addition and three mixes a draw, and any seed will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From zero up to `span`, which stays out.
    pub(super) fn below(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.next().checked_rem(nanos).unwrap_or_default())
    }
}
