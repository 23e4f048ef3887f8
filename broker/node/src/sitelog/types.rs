//! What the site log's machine is told, and what it wants done.

use model::{Instant, NodeId, Term};
use serde::{Deserialize, Serialize};

use super::{Message, Orders, Report, Voters};
use crate::Ticket;

/// What must outlive a crash before anyone relies on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

impl Index {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An entry as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogEntry {
    /// Where.
    pub index: Index,
    /// The term of the controller that wrote it.
    pub term: Term,
    /// [`super::Record`]'s bytes.
    pub bytes: Vec<u8>,
}

/// What the meta disk holds after recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// All zero on an empty node.
    pub hard_state: HardState,
    /// The last entry that the snapshot holds; zero without one.
    pub snapshot: (Index, Term),
    /// Who votes as of the snapshot, if an entry in it named voters.
    pub voters: Option<Voters>,
    /// Entries behind the snapshot, without a hole.
    pub entries: Vec<LogEntry>,
}

/// A fact that the site log's machine is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The node starts: once, first.
    Start,
    /// The HARDSTATE record is durable. One answer for each effect, in their order.
    HardStateDurable {
        /// Its term.
        term: Term,
    },
    /// The controller wants an entry in the log. `bytes` are [`super::Record::encode`]'s. VOTERS entries may add or take
    /// away one voter, when the last change of voters is committed (L1.7).
    Propose {
        /// Named in [`Effect::Apply`] or [`Effect::Refuse`].
        ticket: Ticket,
        /// At most [`super::RECORD_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// SITE_ENTRY records up to `index` are durable.
    Durable {
        /// The last of them.
        index: Index,
    },
    /// The snapshot asked for, or the one installed, is durable.
    SnapshotDurable {
        /// The last entry in it.
        index: Index,
    },
    /// What [`Effect::Encode`] asked for.
    Encoded {
        /// The last entry in it, which was the last one applied.
        index: Index,
        /// The catalog, at most [`super::SNAPSHOT_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// Another node says something. The shell has proven who sent it.
    Message(Box<Message>),
    /// What the node's beats say of it from now on. `applied` is the machine's own affair.
    Report(Box<Report>),
    /// Planned hand-over: give up the office, to the most advanced voter that holds partitions.
    Release,
    /// Sites of two without a witness: an operator says that all other voters are off. This node alone votes from now
    /// on, in a term that fences them (H29, H56).
    Promote,
    /// The machine slept or its clock stood: what was promised by time is void. Told before anything else.
    Slept,
    /// Time has passed.
    Tick,
}

/// What the shell does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Queue a HARDSTATE record on the meta disk; answer with [`Input::HardStateDurable`]. One at a time.
    HardState(HardState),
    /// Queue a SITE_ENTRY record on the meta disk; answer with [`Input::Durable`]. At or below the last index it cuts
    /// off what was there, which never happens while something of that is on its way to the medium.
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
    /// Encode the catalog as of `index`, which is what was applied last, and answer with [`Input::Encoded`]: a node
    /// needs it whose next entry is no longer kept.
    Encode {
        /// The last entry in it.
        index: Index,
    },
    /// Put the controller's catalog in the place of this node's, and queue it as SITE_SNAPSHOT; answer with
    /// [`Input::SnapshotDurable`]. No entry is appended before that.
    Install {
        /// The last entry in it.
        index: Index,
        /// That entry's term.
        term: Term,
        /// [`Input::Encoded`]'s bytes, from the controller.
        bytes: Vec<u8>,
    },
    /// Tell another node, on its control connection; may be lost.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Box<Message>,
    },
    /// Publish to the beat thread, and wake it.
    Orders(Box<Orders>),
    /// This node is the controller, and its first entry of this term is committed: it may propose and decide while
    /// [`super::SiteLog::office`] says so.
    Controller {
        /// In this term.
        term: Term,
        /// Until then leaders stay where they are unless they offered to go (L1.6): the last controller was released,
        /// and leases that it granted may still be running.
        moves_from: Instant,
    },
    /// This node is the controller no more.
    Resigned {
        /// Of this term.
        term: Term,
    },
    /// The node may serve until then; tell every partition.
    LeaseUntil {
        /// On the node's monotonic clock.
        until: Instant,
    },
    /// This node must not go on: end the process, for the reason given.
    Halt(Halt),
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// NOT_CONTROLLER.
    NotController,
    /// REQUEST_TIMED_OUT: [`super::PROPOSED_MAX`] entries wait for the disk.
    Crowded,
    /// The record is larger than [`super::RECORD_BYTES_MAX`].
    TooLarge,
    /// REQUEST_TIMED_OUT: the office ended before the entry was committed, and a later controller may commit it or not.
    Unknown,
    /// Voters change one at a time, the next when the last change is committed, and never the controller itself (L1.7).
    Voters,
}

/// Why a node must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Another node was promoted while this one was away (H56): it sets its data aside and returns as another.
    Superseded {
        /// By which node.
        by: NodeId,
        /// In which term.
        term: Term,
    },
    /// A controller's log differs from this one in what is committed: a bug, or a disk that lost what it had.
    Diverged {
        /// First at this entry.
        index: Index,
    },
}

/// The office of the controller, while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InOffice {
    /// In this term.
    pub term: Term,
    /// Elected then; its first heartbeats went out at once. Later than that is `moves_from` only after a release.
    pub since: Instant,
    /// It decides nothing later than that.
    pub until: Instant,
    /// As in [`Effect::Controller`].
    pub moves_from: Instant,
}
