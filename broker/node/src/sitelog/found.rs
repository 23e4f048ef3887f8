//! Founding a site: unanimous (L1.8), so that two replaced boxes can't found one beside the data of a third (H23).
//!
//! The first voter of the site file asks all other nodes of it; only when all answer that they are empty, in one round,
//! it writes the entry that names the voters, with the incarnations that answered. It needs no votes: nobody else can
//! stand in a site that nobody knows, and who knows it has this entry. An empty node that is not asked, or that learns of
//! data, waits for a controller: it is a replacement, without a vote until the others commit its incarnation.

use std::collections::BTreeMap;

use model::{Incarnation, Instant, NodeId};

use super::{Body, Effect, Index, Mutation, Role, SiteLog, Voter, Voters, is};
use crate::Outbox;

impl SiteLog {
    pub(super) fn begin_founding(&mut self, now: Instant) {
        let first = self.configured.iter().next();
        if self.is_empty() && first.is_some_and(|voter| voter.node == self.node) {
            self.chores_at = now;
            self.role = Role::Founding {
                round: 0,
                empty: BTreeMap::new(),
            };
        }
    }

    /// L1.8: it knows of no site, and no disk of it holds data.
    fn is_empty(&self) -> bool {
        self.may_found && self.log.last().0 == Index(0) && self.installing.is_none()
    }

    /// Asks all others, in a new round.
    pub(super) fn probe(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let Role::Founding { round, empty } = &mut self.role else {
            return;
        };
        if now < self.chores_at {
            return;
        }
        self.chores_at = now + self.timing.lease;
        *round += 1;
        empty.clear();
        let round = *round;
        for peer in self.peers.iter().filter(|peer| **peer != self.node) {
            self.send(*peer, Incarnation::default(), Body::Probe { round }, out);
        }
    }

    pub(super) fn probed(
        &self,
        from: NodeId,
        incarnation: Incarnation,
        round: u64,
        out: &mut Outbox<Effect>,
    ) {
        let empty = self.is_empty();
        self.send(from, incarnation, Body::Probed { round, empty }, out);
    }

    pub(super) fn learn_empty(
        &mut self,
        now: Instant,
        from: NodeId,
        incarnation: Incarnation,
        round: u64,
        is_empty: bool,
        out: &mut Outbox<Effect>,
    ) {
        let Role::Founding {
            round: asked,
            empty,
        } = &mut self.role
        else {
            return;
        };
        if !is_empty && !is(Mutation::FoundedByMajority) {
            // There is a site: this node is a replacement, whatever the others are.
            self.role = Role::Follower;
            return;
        }
        if round != *asked || !is_empty {
            return;
        }
        empty.insert(from, incarnation);
        let enough = if is(Mutation::FoundedByMajority) {
            self.configured.majority()
        } else {
            self.peers.len()
        };
        if empty.len() + 1 < enough {
            return;
        }
        let empty = core::mem::take(empty);
        let named = self.configured.iter().map(|voter| Voter {
            incarnation: if voter.node == self.node {
                self.incarnation
            } else {
                empty.get(&voter.node).copied().unwrap_or_default()
            },
            ..*voter
        });
        let voters = Voters::new(named.collect()).expect("as the site file's, which were sound");
        self.stand(now, Some(voters), out);
    }
}
