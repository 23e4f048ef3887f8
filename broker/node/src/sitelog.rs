//! The site log (L1): the one sequence of entries by which topics, configurations, leaders and producer ids change, and
//! the lease under which a node serves.
//!
//! Raft's log with one voter today: the term rises at each start, the hard state is durable before anything relies on
//! it, and an entry is appended, durable, committed and applied in that order. Votes, beats and appends of other voters
//! come in as further inputs; what the others see (commits in order, a lease that ends) stays as it is.
//! It never looks into an entry: the catalog does.

use std::collections::VecDeque;

use model::{Instant, NodeId, Term};
use serde::{Deserialize, Serialize};

use crate::{Outbox, Ticket};

mod entry;

pub use entry::{
    Actor, Configs, Disk, Entry, EntryFault, Kind, Node, PIDS_BLOCK, PRINCIPAL_BYTES_MAX, PUBLIC_KEY_BYTES_MAX,
    PartitionRow, RECORD_BYTES_MAX, Record, Replica, Topic,
};

/// Entries kept before a snapshot replaces them: with the largest records still below the 4 MiB of [`LOG_BYTES_MAX`]
/// for ordinary ones of a few hundred bytes.
pub const LOG_ENTRIES_MAX: usize = 1_024;
/// Bytes of entries kept before a snapshot replaces them.
pub const LOG_BYTES_MAX: usize = 1024 * 1024;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
}
