//! The site log (L1): the one sequence of entries by which topics, configurations, leaders and producer ids change, and
//! the lease under which a node serves.
//!
//! Raft's log with one voter today: the term rises at each start, the hard state is durable before anything relies on
//! it, and an entry is appended, durable, committed and applied in that order. Votes, beats and appends of other voters
//! come in as further inputs; what the others see (commits in order, a lease that ends) stays as it is.
//! It never looks into an entry: the catalog does.

use core::time::Duration;
use std::collections::VecDeque;

use model::{Instant, NodeId, Term};
use serde::{Deserialize, Serialize};

use crate::{Outbox, Ticket};

mod entry;
#[cfg(test)]
mod tests;

pub use entry::{
    Actor, Configs, Disk, Entry, EntryFault, Kind, Moving, Node, PIDS_BLOCK, PRINCIPAL_BYTES_MAX,
    PUBLIC_KEY_BYTES_MAX, PartitionRow, RECORD_BYTES_MAX, Reassign, Record, Replica, Topic,
};

/// Entries kept before a snapshot replaces them: 256 KiB of ordinary ones of a few hundred bytes.
pub const LOG_ENTRIES_MAX: usize = 1_024;
/// Bytes of entries kept before a snapshot replaces them: seventeen of the largest.
pub const LOG_BYTES_MAX: usize = 1024 * 1024;
/// While a snapshot is being written, so many times of both may be kept; beyond it proposals are refused.
const SNAPSHOT_SLACK: usize = 2;
/// How far ahead the lease of a single voter goes. Nobody else can be elected, so only sleep ends it; a day keeps sums
/// with it small.
pub const LEASE_ALONE: Duration = Duration::from_secs(24 * 3600);
/// Entries proposed and not yet durable; beyond it a proposal is refused and the client may retry.
pub const PROPOSED_MAX: usize = 256;

/// What must outlive a crash before anyone relies on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// Whom this node voted for in it.
    pub voted_for: Option<NodeId>,
}

/// Position of an entry in the site log, from 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Index(pub u64);

/// An entry as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where.
    pub index: Index,
    /// The term of the controller that wrote it.
    pub term: Term,
    /// [`Record`]'s bytes.
    pub bytes: Vec<u8>,
}

/// What the meta disk holds after recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// All zero on an empty node.
    pub hard_state: HardState,
    /// The last entry that the snapshot holds; zero without one.
    pub snapshot: (Index, Term),
    /// Entries behind the snapshot, without a hole.
    pub entries: Vec<LogEntry>,
}

/// A fact that the site log's machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The node starts: once, first.
    Start,
    /// The HARDSTATE record is durable.
    HardStateDurable {
        /// Its term.
        term: Term,
    },
    /// The controller wants an entry in the log. `bytes` are [`Record::encode`]'s.
    Propose {
        /// Named in [`Effect::Apply`] or [`Effect::Refuse`].
        ticket: Ticket,
        /// At most [`RECORD_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// SITE_ENTRY records up to `index` are durable.
    Durable {
        /// The last of them.
        index: Index,
    },
    /// The snapshot asked for is durable.
    SnapshotDurable {
        /// The last entry in it.
        index: Index,
    },
    /// The machine slept or its clock stood: what was promised by time is void.
    Slept,
    /// Time has passed.
    Tick,
}

/// What the shell does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Queue a HARDSTATE record on the meta disk; answer with [`Input::HardStateDurable`].
    HardState(HardState),
    /// Queue a SITE_ENTRY record on the meta disk; answer with [`Input::Durable`].
    Append(LogEntry),
    /// Apply a committed entry to the catalog. Each index comes once, in order.
    Apply {
        /// Where it lies.
        index: Index,
        /// Its term.
        term: Term,
        /// Its bytes.
        bytes: Vec<u8>,
        /// Who waits for it: only where the entry was proposed here, since the start.
        ticket: Option<Ticket>,
    },
    /// The entry was not taken, or its fate is unknown.
    Refuse {
        /// Whose.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// Encode the catalog as of `index`, which is what was applied last, and queue a SITE_SNAPSHOT; answer with
    /// [`Input::SnapshotDurable`].
    Snapshot {
        /// The last entry in it.
        index: Index,
        /// That entry's term.
        term: Term,
    },
    /// This node is the controller, and its first entry of this term is committed: it may propose.
    Controller {
        /// In this term.
        term: Term,
    },
    /// The node may serve until then; tell every partition.
    LeaseUntil {
        /// On the node's monotonic clock.
        until: Instant,
    },
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// NOT_CONTROLLER.
    NotController,
    /// REQUEST_TIMED_OUT: [`PROPOSED_MAX`] entries wait for the disk.
    Crowded,
    /// The record is larger than [`RECORD_BYTES_MAX`].
    TooLarge,
}

/// Which part this node has in the current term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Not started.
    Idle,
    /// Its own vote is being written (L1.1).
    Candidate,
    /// Elected; its first entry is not committed yet.
    Elected,
    /// Decides.
    Controller,
}

/// The machine.
#[derive(Debug)]
pub struct SiteLog {
    node: NodeId,
    hard_state: HardState,
    role: Role,
    /// The last entry that is only in the snapshot.
    snapshot: (Index, Term),
    /// Entries behind the snapshot.
    entries: VecDeque<LogEntry>,
    entries_bytes: usize,
    durable: Index,
    committed: Index,
    applied: Index,
    /// Tickets of entries proposed here and not yet applied, by rising index.
    proposed: VecDeque<(Index, Ticket)>,
    /// The snapshot that is being written.
    snapshotting: Option<(Index, Term)>,
    /// Ends what was promised to the partitions; `None` before the first promise and after sleep.
    lease_until: Option<Instant>,
}

impl SiteLog {
    /// A node's part of the site log as its meta disk holds it. Nothing is committed behind the snapshot until an entry
    /// of a new term is.
    ///
    /// # Panics
    /// If the entries have a hole or fall in term, which the store has checked.
    #[must_use]
    pub fn new(node: NodeId, recovered: Recovered) -> Self {
        let Recovered {
            hard_state,
            snapshot,
            entries,
        } = recovered;
        let entries: VecDeque<LogEntry> = entries
            .into_iter()
            .filter(|entry| entry.index > snapshot.0)
            .collect();
        let mut before = snapshot;
        for entry in &entries {
            assert_eq!(
                entry.index.0,
                before.0.0 + 1,
                "the site log recovered has a hole"
            );
            assert!(
                before.1 <= entry.term && entry.term <= hard_state.term,
                "the site log recovered falls in term"
            );
            before = (entry.index, entry.term);
        }
        let log = Self {
            node,
            hard_state,
            role: Role::Idle,
            snapshot,
            entries_bytes: entries.iter().map(|entry| entry.bytes.len()).sum(),
            entries,
            durable: before.0,
            committed: snapshot.0,
            applied: snapshot.0,
            proposed: VecDeque::new(),
            snapshotting: None,
            lease_until: None,
        };
        log.check();
        log
    }

    /// Takes one fact at `now` and says what must happen next. Never waits, never fails.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Outbox<Effect>) {
        match input {
            Input::Start => self.start(out),
            Input::HardStateDurable { term } => self.elected(term, out),
            Input::Propose { ticket, bytes } => self.propose(ticket, bytes, out),
            Input::Durable { index } => self.durable(now, index, out),
            Input::SnapshotDurable { index } => self.snapshot_durable(index, out),
            Input::Slept => {
                if self.lease_until.take().is_some() {
                    out.push(Effect::LeaseUntil { until: now });
                }
            }
            Input::Tick => self.renew(now, out),
        }
        self.check();
    }

    /// When [`Input::Tick`] is due; `None` while nothing waits for time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let decides = self.role == Role::Controller;
        // Without a lease at once; else at half of it.
        decides.then(|| {
            self.lease_until
                .map_or(Instant(0), |until| until - LEASE_ALONE / 2)
        })
    }

    /// The term of this node.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The last entry applied.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// Whether this node decides: its proposals are taken.
    #[must_use]
    pub fn is_controller(&self) -> bool {
        self.role == Role::Controller
    }

    fn last(&self) -> (Index, Term) {
        self.entries
            .back()
            .map_or(self.snapshot, |entry| (entry.index, entry.term))
    }

    fn start(&mut self, out: &mut Outbox<Effect>) {
        assert_eq!(self.role, Role::Idle, "a node starts once");
        // A new term at every start: what an earlier life of this node proposed can't be mixed up with this one's.
        self.hard_state = HardState {
            term: Term(self.hard_state.term.0 + 1),
            voted_for: Some(self.node),
        };
        self.role = Role::Candidate;
        out.push(Effect::HardState(self.hard_state));
    }

    fn elected(&mut self, term: Term, out: &mut Outbox<Effect>) {
        // L1.1: its own vote counts once it is durable; with one voter it is the majority.
        if self.role != Role::Candidate || term != self.hard_state.term {
            return;
        }
        self.role = Role::Elected;
        let first = Record::broker(Entry::Term)
            .encode()
            .expect("an entry without fields is small");
        self.append(first, out);
    }

    fn propose(&mut self, ticket: Ticket, bytes: Vec<u8>, out: &mut Outbox<Effect>) {
        let refusal = if self.role != Role::Controller {
            Some(Refusal::NotController)
        } else if bytes.len() > RECORD_BYTES_MAX {
            Some(Refusal::TooLarge)
        } else if self.proposed.len() >= PROPOSED_MAX
            || self.entries.len() >= SNAPSHOT_SLACK * LOG_ENTRIES_MAX
            || self.entries_bytes >= SNAPSHOT_SLACK * LOG_BYTES_MAX
        {
            Some(Refusal::Crowded)
        } else {
            None
        };
        match refusal {
            Some(refusal) => out.push(Effect::Refuse { ticket, refusal }),
            None => {
                let index = self.append(bytes, out);
                self.proposed.push_back((index, ticket));
            }
        }
    }

    fn append(&mut self, bytes: Vec<u8>, out: &mut Outbox<Effect>) -> Index {
        let index = Index(self.last().0.0 + 1);
        let entry = LogEntry {
            index,
            term: self.hard_state.term,
            bytes,
        };
        self.entries_bytes += entry.bytes.len();
        self.entries.push_back(entry.clone());
        out.push(Effect::Append(entry));
        index
    }

    fn durable(&mut self, now: Instant, index: Index, out: &mut Outbox<Effect>) {
        assert!(
            index <= self.last().0,
            "an entry is durable that was never appended"
        );
        self.durable = self.durable.max(index);
        // Raft §5.4.2: only an entry of the own term commits by count, and with it all before. One voter: durable here
        // is a majority.
        let own = self
            .entry(self.durable)
            .is_some_and(|entry| entry.term == self.hard_state.term);
        if !own {
            return;
        }
        self.committed = self.committed.max(self.durable);
        self.apply(out);
        if self.role == Role::Elected {
            self.role = Role::Controller;
            out.push(Effect::Controller {
                term: self.hard_state.term,
            });
            // L1.4: it serves only after an entry of its own term was committed.
            self.renew(now, out);
        }
    }

    fn entry(&self, index: Index) -> Option<&LogEntry> {
        let place = index.0.checked_sub(self.snapshot.0.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    fn apply(&mut self, out: &mut Outbox<Effect>) {
        while self.applied < self.committed {
            let index = Index(self.applied.0 + 1);
            let entry = self
                .entry(index)
                .expect("what is committed and not applied lies behind the snapshot");
            let (term, bytes) = (entry.term, entry.bytes.clone());
            let ticket = self
                .proposed
                .pop_front_if(|(proposed, _)| *proposed == index)
                .map(|(_, ticket)| ticket);
            self.applied = index;
            out.push(Effect::Apply {
                index,
                term,
                bytes,
                ticket,
            });
        }
        self.want_snapshot(out);
    }

    /// Asks for a snapshot if more is kept than should be. The catalog is at `applied` when the effect is performed,
    /// since nothing is applied behind it in the same step.
    fn want_snapshot(&mut self, out: &mut Outbox<Effect>) {
        let kept = self.entries.len() > LOG_ENTRIES_MAX || self.entries_bytes > LOG_BYTES_MAX;
        if !kept || self.snapshotting.is_some() || self.applied == self.snapshot.0 {
            return;
        }
        let term = self
            .entry(self.applied)
            .expect("applied behind the snapshot")
            .term;
        self.snapshotting = Some((self.applied, term));
        out.push(Effect::Snapshot {
            index: self.applied,
            term,
        });
    }

    fn snapshot_durable(&mut self, index: Index, out: &mut Outbox<Effect>) {
        let Some(snapshot) = self.snapshotting.take_if(|(asked, _)| *asked == index) else {
            return;
        };
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= index) {
            self.entries_bytes -= entry.bytes.len();
        }
        self.snapshot = snapshot;
        self.want_snapshot(out);
    }

    fn renew(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        if self.role != Role::Controller
            || self
                .lease_until
                .is_some_and(|until| now < until - LEASE_ALONE / 2)
        {
            return;
        }
        let until = now + LEASE_ALONE;
        self.lease_until = Some(until);
        out.push(Effect::LeaseUntil { until });
    }

    /// What always holds.
    fn check(&self) {
        let last = self.last();
        assert!(
            self.snapshot.0 <= self.applied
                && self.applied <= self.committed
                && self.committed <= self.durable
                && self.durable <= last.0,
            "the site log's marks are out of order: {self:?}"
        );
        assert_eq!(
            last.0.0,
            self.snapshot.0.0 + self.entries.len() as u64,
            "the site log has a hole"
        );
        assert!(
            last.1 <= self.hard_state.term,
            "an entry of a term that has not come"
        );
        assert!(
            self.lease_until.is_none() || self.role == Role::Controller,
            "a lease before an entry of the own term"
        );
        assert!(
            self.proposed
                .front()
                .is_none_or(|(index, _)| *index > self.applied),
            "an owner was not told"
        );
        assert!(
            self.proposed.len() <= PROPOSED_MAX,
            "more proposals than may wait"
        );
    }
}
