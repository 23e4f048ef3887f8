//! Who votes: changed by entries of the log, one voter at a time (L1.7).

use model::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use super::SEATS_MAX;

/// A voter, as VOTERS entries name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Voter {
    /// Which node.
    pub node: NodeId,
    /// As it was registered: a node whose meta disk was replaced has another one, and no vote (L1.8).
    pub incarnation: Incarnation,
    /// It holds no partitions, and is elected only to bring the others up to date (L1.9).
    pub witness: bool,
}

/// The voters in order of rank, a witness last: at most [`SEATS_MAX`], each node once. None on a node that knows of no
/// site yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Voters(Vec<Voter>);

impl Voters {
    /// A set; `None` if it breaks a bound.
    #[must_use]
    pub fn new(mut voters: Vec<Voter>) -> Option<Self> {
        voters.sort_by_key(|voter| voter.witness);
        let set = Self(voters);
        set.is_sound().then_some(set)
    }

    /// One voter.
    #[must_use]
    pub fn alone(node: NodeId, incarnation: Incarnation) -> Self {
        Self(vec![Voter {
            node,
            incarnation,
            witness: false,
        }])
    }

    /// Whether the bounds hold, for what was read and not built here.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let twice = |at: usize| self.0[..at].iter().any(|it| it.node == self.0[at].node);
        self.0.len() <= SEATS_MAX
            && self.0.is_sorted_by_key(|voter| voter.witness)
            && !(0..self.0.len()).any(twice)
    }

    /// In order of rank.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Voter> + ExactSizeIterator {
        self.0.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody votes, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many are more than half.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// A node's place in them.
    #[must_use]
    pub fn voter(&self, node: NodeId) -> Option<&Voter> {
        self.0.iter().find(|voter| voter.node == node)
    }

    /// Whether this very node votes.
    #[must_use]
    pub fn names(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.voter(node)
            .is_some_and(|it| it.incarnation == incarnation)
    }

    /// How many voters stand before a node.
    pub(super) fn rank(&self, node: NodeId) -> usize {
        self.0.iter().take_while(|voter| voter.node != node).count()
    }

    /// With a voter more.
    #[must_use]
    pub fn with(&self, voter: Voter) -> Option<Self> {
        Self::new(self.0.iter().copied().chain([voter]).collect())
    }

    /// With a voter less.
    #[must_use]
    pub fn without(&self, node: NodeId) -> Self {
        Self(
            self.0
                .iter()
                .filter(|it| it.node != node)
                .copied()
                .collect(),
        )
    }

    /// Whether `next` has exactly one voter more or one less, all others unchanged: then any majority of the one meets
    /// any majority of the other (Ongaro's thesis §4.1).
    pub(super) fn is_one_step_from(&self, next: &Self) -> bool {
        let (less, more) = if self.len() < next.len() {
            (self, next)
        } else {
            (next, self)
        };
        less.len() + 1 == more.len() && less.0.iter().all(|voter| more.0.contains(voter))
    }

    /// The `k`-th largest of what each voter has, `k` being the majority: so much a majority has. Zero without voters.
    pub(super) fn majority_has<T: Copy + Ord + Default>(&self, of: impl Fn(&Voter) -> T) -> T {
        let mut all: heapless::Vec<T, SEATS_MAX> = self.0.iter().map(of).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.get(self.majority() - 1).copied().unwrap_or_default()
    }
}
