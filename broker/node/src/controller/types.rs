//! What the controller is told, what it wants done, and what it answers.

use core::time::Duration;

use model::{DiskUuid, Incarnation, Instant, LeaderEpoch, NodeId, Term, TopicId, TopicPartition};

use crate::Ticket;
use crate::catalog::{Alter, CreateTopic, Declared, Fault, PlannedTopic};
use crate::peer::{AlterIsr, IsrOutcome};
use crate::sitelog::{Actor, DiskState, Index, Node};

pub use super::event::{Decision, Event, Why};

/// What the site file says to the controller.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes with a vote, the witness included (L1.9).
    pub voters: Vec<NodeId>,
    /// The nodes that keep replicas, and how many disks the site file gives each.
    pub nodes: Vec<(NodeId, usize)>,
    /// Of the site file; the other nodes' should be the same (H32).
    pub digest: u64,
    /// The highest site version that this release can write.
    pub version: u16,
    /// How long a controller that took office, or got its lease back, waits for a node's first beat before it takes the
    /// node for dead: H, since a node answers the first Heartbeat of a term at once.
    pub hear: Duration,
}

/// A node's report, some ten a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBeat {
    /// Whose.
    pub node: NodeId,
    /// Which life of it in the sense of R9.
    pub incarnation: Incarnation,
    /// Drawn at each start of its broker.
    pub boot: u64,
    /// Its disks. One it does not list is not mounted.
    pub disks: Vec<(DiskUuid, DiskState)>,
    /// The last entry of the site log it applied.
    pub applied: Index,
    /// The highest site version that the release in its blessed slot reads.
    pub blessed: u16,
    /// Of its site file.
    pub digest: u64,
    /// Its clock is trusted.
    pub clock_trusted: bool,
}

/// A topic that the site file or the broker itself wants, with the id it would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A topic of the site file.
    Declared(Declared, TopicId),
    /// The topic of groups and their offsets.
    Offsets(TopicId),
}

/// Why a node gives up a leadership. It is final: whoever said so never serves in that epoch again, whatever comes. After
/// a start a node gives up every epoch that the log names for it, up to the commit index that it first learns: what an
/// earlier life said may still be on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resigned {
    /// It can't go on in this epoch, but may lead in another: it started again, or its disk is out of service or came
    /// back.
    Epoch,
    /// It has parked its clients, and the node it was asked to hand over to has all it has.
    To(NodeId),
}

/// A fact.
#[derive(Clone, Debug)]
pub enum Input {
    /// This node is the controller from now on, and its first entry of the term is committed.
    Office {
        /// In this term.
        term: Term,
        /// Its first Heartbeat of the term went out then.
        since: Instant,
        /// Its lease ends then (L1.4).
        until: Instant,
        /// Committed and applied here.
        index: Index,
        /// Until then leaders stay where they are unless they give up: the predecessor handed the office over, and what it
        /// granted may still run (L1.6).
        moves_from: Instant,
        /// Topics that should be there.
        wanted: Vec<Wanted>,
        /// The site's identity, if it has none yet.
        site: model::SiteUuid,
    },
    /// Its lease goes on until then.
    Lease {
        /// On this node's clock.
        until: Instant,
    },
    /// It is the controller no more.
    Deposed,
    /// A node's report, this node's own included. What may be granted with the answer says
    /// [`super::Controller::grant_after`].
    Beat {
        /// What it said.
        beat: NodeBeat,
        /// From then on, on this node's clock, nothing that it was granted runs any more (L1.6).
        dead_from: Instant,
    },
    /// A node wants to be registered so; said again until the site log brings it.
    Register(Node),
    /// A node gives up leaderships; said again until the site log brings a later epoch.
    Resign {
        /// Who leads them.
        node: NodeId,
        /// Each with its epoch and why.
        partitions: Vec<(TopicPartition, LeaderEpoch, Resigned)>,
    },
    /// A leader asks for other ISRs.
    AlterIsr {
        /// Named in [`Effect::AlterIsr`].
        ticket: Ticket,
        /// Who leads them.
        node: NodeId,
        /// At most one of a partition, at most [`crate::peer::ISR_ROWS_MAX`].
        rows: Vec<AlterIsr>,
    },
    /// Somebody wants a change.
    Wish {
        /// Named in [`Effect::Answer`].
        ticket: Ticket,
        /// For the audit.
        actor: Actor,
        /// Answered by then, come what may.
        deadline: Instant,
        /// What.
        wish: Wish,
    },
    /// The catalog has applied the entry at `index`.
    Applied {
        /// Where it lies.
        index: Index,
        /// If it was proposed here.
        proposal: Option<Proposal>,
    },
    /// The site log did not take a proposal, or its fate is unknown.
    NotTaken(Proposal),
    /// Time has passed.
    Tick,
}

/// Names an entry on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proposal(pub u64);

/// A change that a client, an operator or a node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// CreateTopics, one topic.
    CreateTopic {
        /// As asked.
        asked: CreateTopic,
        /// It would get this id.
        id: TopicId,
    },
    /// DeleteTopics, one topic.
    DeleteTopic(TopicId),
    /// CreatePartitions, one topic.
    CreatePartitions {
        /// Its name.
        name: String,
        /// How many it shall have.
        count: i32,
        /// Nodes of the new ones, if the client chose them.
        assignment: Option<Vec<Vec<NodeId>>>,
    },
    /// AlterConfigs, one topic.
    SetConfigs {
        /// Its name.
        name: String,
        /// All of it; `None` is a null value.
        configs: Vec<(String, Option<String>)>,
    },
    /// IncrementalAlterConfigs, one topic.
    AlterConfigs {
        /// Its name.
        name: String,
        /// One by one.
        changes: Vec<(String, Alter)>,
    },
    /// AlterPartitionReassignments (KIP-455); `None` calls one off.
    Reassign(Vec<(TopicPartition, Option<Vec<NodeId>>)>),
    /// ElectLeaders (KIP-460).
    Elect {
        /// Also who is not in sync: records may be lost. Only ever an operator's word.
        unclean: bool,
        /// `None` is all.
        partitions: Option<Vec<TopicPartition>>,
    },
    /// A node shall lead nothing, or may again.
    Drain {
        /// Which.
        node: NodeId,
        /// Begin; else end.
        on: bool,
    },
    /// A block of producer ids for a node.
    ProducerIds(NodeId),
}

/// What the shell does, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// `sitelog::Input::Propose`; say what came of it with [`Input::Applied`] or [`Input::NotTaken`].
    Propose {
        /// Which.
        proposal: Proposal,
        /// [`crate::sitelog::Record::encode`]'s.
        bytes: Vec<u8>,
    },
    /// Ask a leader to hand partitions over: park, flush, wait until the named node has all, then [`Input::Resign`]. A
    /// leader that can't within [`super::HAND_OVER_PATIENCE`] goes on as before.
    HandOver {
        /// Who leads them.
        node: NodeId,
        /// Each with its epoch and who shall lead.
        partitions: Vec<(TopicPartition, LeaderEpoch, NodeId)>,
    },
    /// The answer to [`Input::AlterIsr`], row by row as asked.
    AlterIsr {
        /// Whose.
        ticket: Ticket,
        /// As asked.
        rows: Vec<(TopicPartition, LeaderEpoch, u32, IsrOutcome)>,
    },
    /// The answer to [`Input::Wish`].
    Answer {
        /// Whose.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
    /// The node has applied all that was committed when this office began: it may free replicas that no topic has (H59).
    MayFree {
        /// Which.
        node: NodeId,
    },
    /// For logs, counters and the simulator.
    Event(Event),
}

/// How a wish ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Made; every live node knows it.
    Created(Box<PlannedTopic>),
    /// Done; of topics and partitions, every live node knows it.
    Done,
    /// It can't be.
    Refused(Fault),
    /// REQUEST_TIMED_OUT: what becomes of it is not known, or it was one too many.
    TimedOut,
    /// NOT_CONTROLLER: nothing was changed.
    NotController,
    /// Of [`Wish::Reassign`], in the order asked.
    Reassigned(Vec<(TopicPartition, Result<(), MoveFault>)>),
    /// Of [`Wish::Elect`], by partition.
    Elected(Vec<(TopicPartition, Result<(), ElectFault>)>),
}

/// Why a partition does not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveFault {
    /// UNKNOWN_TOPIC_OR_PARTITION.
    Unknown,
    /// INVALID_REPLICA_ASSIGNMENT.
    Assignment(String),
    /// POLICY_VIOLATION: no room.
    Room(Fault),
    /// NO_REASSIGNMENT_IN_PROGRESS.
    NotMoving,
    /// REQUEST_TIMED_OUT.
    TimedOut,
}

/// Why a partition gets no other leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectFault {
    /// UNKNOWN_TOPIC_OR_PARTITION.
    Unknown,
    /// ELECTION_NOT_NEEDED.
    NotNeeded,
    /// PREFERRED_LEADER_NOT_AVAILABLE.
    PreferredNotAvailable,
    /// ELIGIBLE_LEADERS_NOT_AVAILABLE.
    NobodyEligible,
    /// REQUEST_TIMED_OUT.
    TimedOut,
}

/// Why a node can't be spared now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSpared {
    /// This node is not the controller, or its lease lapsed.
    NotController,
    /// Another node is drained or away.
    Another(NodeId),
    /// Without it the voters are no majority.
    Voters,
    /// Without it so many partitions would take no acks=all, or nothing.
    Partitions(usize),
}
