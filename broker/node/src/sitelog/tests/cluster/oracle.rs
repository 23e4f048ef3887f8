//! What must hold at every step, and at rest.

use std::collections::BTreeMap;

use super::*;

/// FNV-1a over a chain of entries.
pub(super) fn digest(before: u64, bytes: &[u8]) -> u64 {
    let mix = |digest: u64, byte: &u8| (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes
        .iter()
        .fold(before.wrapping_add(bytes.len() as u64) | 1, mix)
}

/// An entry that says that a node is dead: this, and its number.
pub(super) const DEAD: &[u8] = b"\xffdead";

#[derive(Default)]
pub(super) struct Oracle {
    /// Votes given, by term, voter and incarnation.
    votes: BTreeMap<(Term, NodeId, Incarnation), NodeId>,
    /// Who was elected.
    elected: BTreeMap<Term, NodeId>,
    /// What was applied first at each index, as the term and the digest of all up to it.
    committed: Vec<(Term, u64)>,
    /// Entries of each term and index, wherever they were appended (log matching).
    written: BTreeMap<(Term, Index), u64>,
    acknowledged: u64,
    /// Nodes that a controller took for dead, with its term and the entry by which it said so.
    dead: BTreeMap<NodeId, (Term, Index)>,
}

impl Oracle {
    pub(super) fn applied(&self) -> usize {
        self.committed.len()
    }

    /// An effect, before it is performed.
    pub(super) fn see(&mut self, member: &Member, effect: &Effect) {
        let life = member.life.as_ref().unwrap();
        let voter = (member.node, member.incarnation);
        match effect {
            Effect::Send { message, .. } => {
                if let Body::Voted {
                    pre: false,
                    granted: true,
                    ..
                } = message.body
                {
                    let voted = life.log.hard_state.voted_for.unwrap();
                    let before = *self
                        .votes
                        .entry((message.term, voter.0, voter.1))
                        .or_insert(voted);
                    assert_eq!(before, voted, "{voter:?} votes twice in {:?}", message.term);
                }
            }
            Effect::Orders(orders) if orders.office != Office::None => {
                let before = *self.elected.entry(orders.term).or_insert(member.node);
                assert_eq!(before, member.node, "two controllers in {:?}", orders.term);
                let own = *self
                    .votes
                    .entry((orders.term, voter.0, voter.1))
                    .or_insert(voter.0);
                assert_eq!(own, voter.0, "elected after a vote for another");
            }
            Effect::Append(entry) => {
                if life.log.leads()
                    && let Some(node) = entry.bytes.strip_prefix(DEAD)
                {
                    let node = NodeId(u32::from(node[0]));
                    self.dead.insert(node, (entry.term, entry.index));
                }
                let here = digest(0, &entry.bytes);
                let before = *self
                    .written
                    .entry((entry.term, entry.index))
                    .or_insert(here);
                assert_eq!(
                    before, here,
                    "two entries at {:?} in {:?}",
                    entry.index, entry.term
                );
            }
            Effect::Apply {
                index,
                term,
                bytes,
                ticket,
            } => {
                let at = usize::try_from(index.0).unwrap() - 1;
                let before = at.checked_sub(1).map_or(0, |at| self.committed[at].1);
                let here = (*term, digest(before, bytes));
                if at == self.committed.len() {
                    self.committed.push(here);
                }
                assert_eq!(
                    self.committed[at], here,
                    "{:?} applies another {index:?}",
                    member.node
                );
                self.acknowledged += u64::from(ticket.is_some());
            }
            _ => {}
        }
    }

    /// At every moment: one controller, and no lease of an earlier term once a later one may move leaders.
    pub(super) fn look(&self, now: Moment, members: &[Member]) {
        let offices: Vec<(NodeId, InOffice)> = members
            .iter()
            .filter_map(|member| Some((member.node, member.office(now)?)))
            .collect();
        assert!(offices.len() <= 1, "two controllers decide: {offices:?}");
        let Some((controller, office)) = offices.first() else {
            return;
        };
        let at = &members[controller.0 as usize - 1];
        if at.clock(now) < office.moves_from {
            return;
        }
        for member in members {
            if let Some(term) = member.serves(now) {
                // What was decided without it is known to it before it serves again.
                let behind = self
                    .dead
                    .get(&member.node)
                    .is_some_and(|(said_in, said_at)| {
                        let at = usize::try_from(said_at.0).unwrap() - 1;
                        let known = office.term == *said_in
                            || self
                                .committed
                                .get(at)
                                .is_some_and(|(term, _)| term == said_in);
                        known && member.life.as_ref().unwrap().catalog.applied < *said_at
                    });
                assert!(!behind, "{:?} serves and was taken for dead", member.node);
                assert!(
                    term >= office.term,
                    "{:?} serves under {term:?} beside {office:?} of {controller:?}",
                    member.node
                );
            }
        }
        // L1.6: whom the controller takes for dead serves nothing.
        for seen in at.life.as_ref().unwrap().log.nodes() {
            let member = &members[seen.node.0 as usize - 1];
            let dead = seen.dead_from <= at.clock(now);
            assert!(
                !(dead && member.serves(now).is_some()),
                "{:?} is dead for {controller:?} and serves",
                seen.node
            );
        }
    }

    /// No box was lost that the voters still count on.
    pub(super) fn all_registered(&self, members: &[Member]) -> bool {
        let known = members.iter().filter_map(|it| Some(&it.life.as_ref()?.log));
        let Some(newest) = known.max_by_key(|log| log.applied()) else {
            return false;
        };
        let voters = newest.voters();
        voters.len() == members.len()
            && newest.log.voters_since() <= newest.committed
            && members.iter().all(|it| {
                let whole = it.life.as_ref().is_some_and(|life| {
                    // Caught up: a majority without the box that is lost next has all that is committed.
                    life.log.applied() == newest.applied()
                        && life.catalog.applied.0 as usize == self.committed.len()
                });
                whole && voters.names(it.node, it.incarnation)
            })
    }

    /// When nothing has gone wrong for long: somebody decides, all have all, and entries still come through.
    pub(super) fn at_rest(&mut self, now: Moment, members: &[Member]) {
        assert_eq!(
            members
                .iter()
                .filter(|member| member.office(now).is_some())
                .count(),
            1,
            "nobody decides: {:#?}",
            members
                .iter()
                .map(|it| it.life.as_ref().map(|it| &it.log))
                .collect::<Vec<_>>()
        );
        assert!(self.acknowledged > 10, "nothing was acknowledged");
        self.acknowledged = 0;
        for member in members {
            let life = member.life.as_ref().expect("restarted by now");
            let behind = self.committed.len() as u64 - life.catalog.applied.0;
            assert!(behind < 10, "{:?} lacks {behind} entries", member.node);
            assert!(
                member.serves(now).is_some(),
                "{:?} has no lease",
                member.node
            );
            let at = usize::try_from(life.catalog.applied.0).unwrap() - 1;
            assert_eq!(life.catalog.digest, self.committed[at].1, "another history");
        }
    }
}
