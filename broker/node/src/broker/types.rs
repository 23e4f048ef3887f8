//! What a broker is told, what it wants done, and what it starts from.

use model::{
    DiskUuid, Instant, LeaderEpoch, NodeId, ProducerId, SiteUuid, Term, TopicId, TopicPartition,
    WallMs,
};

use crate::Ticket;
use crate::catalog::{Rules, TopicSettings};
use crate::controller::{self, Answer, NodeBeat, Resigned, Wanted, Wish};
use crate::coordinator;
use crate::group::{GroupReply, GroupRequest};
use crate::partition;
use crate::peer::{AlterIsr, IsrOutcome};
use crate::sitelog::{self, Actor, Disk, HardState, Index, LogEntry};

/// Names a replica while this node holds it; numbers are small, and used again once its disk has let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaIx(pub u32);

/// Names a disk of this node: its place in [`Start::disks`], the meta disk first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskIx(pub u8);

/// What the site file and this start say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the site log.
    pub sitelog: sitelog::Settings,
    /// Of whoever is in office.
    pub controller: controller::Settings,
    /// Of consumer groups.
    pub coordinator: coordinator::Settings,
    /// Of topics.
    pub rules: Rules,
    /// Topics that should be there.
    pub wanted: Vec<Wanted>,
    /// What a site without an identity is called.
    pub site: SiteUuid,
    /// Drawn at each start, never zero.
    pub boot: u64,
}

/// What a node says to its controller, again and again until the site log shows that it was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// How it does.
    Report(NodeBeat),
    /// It wants to be registered so.
    Register(sitelog::Node),
    /// It gives up leaderships.
    Resign(Vec<(TopicPartition, LeaderEpoch, Resigned)>),
    /// It leads these partitions, and others shall be in sync.
    AlterIsr(Vec<AlterIsr>),
}

/// What a controller says to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// It has applied all that was committed when this office began (H59).
    Current,
    /// It shall hand these over.
    HandOver(Vec<(TopicPartition, LeaderEpoch, NodeId)>),
    /// What became of [`Ask::AlterIsr`].
    IsrOutcomes(Vec<(TopicPartition, LeaderEpoch, u32, IsrOutcome)>),
}

/// What the disks hold.
#[derive(Debug)]
pub struct Start {
    /// The site log's hard state.
    pub hard_state: HardState,
    /// The catalog's snapshot with the last entry in it.
    pub snapshot: Option<(Index, Term, Vec<u8>)>,
    /// Entries behind it.
    pub entries: Vec<LogEntry>,
    /// The site log is whole: what it does not name was deleted.
    pub whole: bool,
    /// Each disk, the meta disk first.
    pub disks: Vec<DiskStart>,
}

/// A disk as it was opened.
#[derive(Debug)]
pub struct DiskStart {
    /// Which, and what topics may reserve on it.
    pub disk: Disk,
    /// It could not be opened; what it holds is not known.
    pub out: bool,
    /// What it holds.
    pub found: DiskFound,
}

/// What recovery found on a disk.
#[derive(Debug, Default)]
pub struct DiskFound {
    /// Its journal has a hole: a replica that it lacks may have been lost with it.
    pub suspect: bool,
    /// Its replicas.
    pub replicas: Vec<ReplicaFound>,
}

/// A replica that recovery found.
#[derive(Debug)]
pub struct ReplicaFound {
    /// Of which partition.
    pub id: TopicPartition,
    /// Its log.
    pub recovered: partition::Recovered,
    /// Its producers, as `model::window::Windows::encode` writes them.
    pub windows: Vec<u8>,
    /// Part of it was lost with the journal, and nobody has accepted that: it is not served.
    pub hole: bool,
}

/// A fact.
#[derive(Debug)]
pub enum Input {
    /// The node starts: once, first.
    Start,
    /// A fact for one replica's machine: what clients and peers ask, what its disk has done, what retention wants. One for
    /// a replica that is not held any more is passed over.
    Partition {
        /// Which.
        replica: ReplicaIx,
        /// What.
        input: partition::Input,
    },
    /// The disk found no room for the replica's batches; those that came back as failed are not on it.
    NoRoom {
        /// Which.
        replica: ReplicaIx,
    },
    /// There may be room again.
    Room {
        /// Which.
        replica: ReplicaIx,
    },
    /// The disk has nothing more to say of the replica that [`Effect::LetGo`] named: its number may be used again.
    Gone {
        /// Which.
        replica: ReplicaIx,
    },
    /// A write or sync failed: nothing of the disk is served until it is back.
    DiskFailed {
        /// Which.
        disk: DiskIx,
    },
    /// The disk was recovered in process.
    DiskBack {
        /// Which.
        disk: DiskIx,
        /// What it holds.
        found: DiskFound,
    },
    /// A fact for the site log's machine.
    SiteLog(sitelog::Input),
    /// A client asks a group's coordinator.
    Group {
        /// Named in [`Effect::Group`].
        ticket: Ticket,
        /// What.
        request: Box<GroupRequest>,
    },
    /// A record of an internal partition, read for [`Effect::Load`].
    Record {
        /// As in the effect.
        partition: u32,
        /// As in the effect.
        epoch: LeaderEpoch,
        /// Where it lies.
        offset: model::Offset,
        /// Kafka's key.
        key: Vec<u8>,
        /// Kafka's value.
        value: Option<Vec<u8>>,
    },
    /// All records were told.
    Loaded {
        /// As in the effect.
        partition: u32,
        /// As in the effect.
        epoch: LeaderEpoch,
    },
    /// A client, an operator or this node wants a change of the site.
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
    /// What time it is for people: at the start, on a change of trust, and every minute or so.
    Clock {
        /// The time of day, right or wrong.
        wall: WallMs,
        /// It can be trusted.
        trusted: bool,
    },
    /// Another node says something to its controller.
    Asked {
        /// Who; the shell has proven it.
        from: NodeId,
        /// What.
        ask: Ask,
    },
    /// The controller says something to this node.
    Told(Say),
    /// Nothing became durable on the disk for two seconds, or something does again.
    DiskStalled {
        /// Which.
        disk: DiskIx,
        /// It stalls.
        stalled: bool,
    },
    /// Time has passed: due at [`super::Broker::deadline`].
    Tick,
}

/// What the shell does, in the order given.
#[derive(Debug)]
pub enum Effect {
    /// A replica lies on this disk from now on, as recovery found it there or new (PART_NEW).
    Hold {
        /// Its name from now on.
        replica: ReplicaIx,
        /// Of which partition.
        id: TopicPartition,
        /// Where.
        disk: DiskIx,
        /// Else it was found.
        new: bool,
    },
    /// What its topic's configs let the replica keep; said again when its disk is back.
    Configure {
        /// Which.
        replica: ReplicaIx,
        /// What.
        settings: TopicSettings,
    },
    /// The replica leaves this node (PART_DEL); answer with [`Input::Gone`].
    LetGo {
        /// Which.
        replica: ReplicaIx,
    },
    /// Something that recovery found belongs to no topic (PART_DEL).
    Forget {
        /// Where.
        disk: DiskIx,
        /// Of which partition.
        id: TopicPartition,
    },
    /// A replica's machine wants this done.
    Partition {
        /// Which.
        replica: ReplicaIx,
        /// What.
        effect: partition::Effect,
    },
    /// A batch of the broker's own; the partition's effects name its ticket.
    Batch {
        /// Its ticket.
        ticket: Ticket,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// The site log's machine wants this done: HARDSTATE and SITE_ENTRY records, messages, orders for the beats, and its
    /// halt. Snapshots come with their bytes as [`Effect::Snapshot`], all else is done here.
    SiteLog(sitelog::Effect),
    /// Queue a SITE_SNAPSHOT; answer with `sitelog::Input::SnapshotDurable`.
    Snapshot {
        /// The last entry in it.
        index: Index,
        /// That entry's term.
        term: Term,
        /// The catalog.
        bytes: Vec<u8>,
    },
    /// Read an internal partition from its start to a high watermark that has reached the epoch's start; tell each record,
    /// then [`Input::Loaded`].
    Load {
        /// Whose log.
        replica: ReplicaIx,
        /// Its number in `__consumer_offsets`.
        partition: u32,
        /// Ends with it.
        epoch: LeaderEpoch,
    },
    /// A group's answer.
    Group {
        /// Whose.
        ticket: Ticket,
        /// What.
        reply: GroupReply,
    },
    /// What became of a wish.
    Answer {
        /// Whose.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
    /// Tell the controller; may be lost.
    Ask {
        /// Where it is.
        node: NodeId,
        /// What.
        ask: Ask,
    },
    /// Tell a node, as its controller; may be lost.
    Say {
        /// Whom.
        node: NodeId,
        /// What.
        say: Say,
    },
    /// What requests see of a topic is another than before.
    Topic(TopicId),
    /// A topic is gone.
    TopicGone {
        /// Which.
        id: TopicId,
        /// The name it had.
        name: String,
    },
    /// A block of producer ids belongs to this life of this node.
    Pids {
        /// The first of [`sitelog::PIDS_BLOCK`].
        first: ProducerId,
    },
    /// For logs and counters.
    Event(Event),
    /// The node can't go on.
    End(End),
}

/// What happened here, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The controller saw or decided something.
    Controller(controller::Event),
    /// Part of a replica was lost with its disk's journal: it is not served until a person accepts that.
    Hole {
        /// Of which partition.
        id: TopicPartition,
        /// Where.
        disk: DiskIx,
    },
    /// A disk holds a replica that no topic has; it is let go if the site log is whole.
    Unknown {
        /// Of which partition.
        id: TopicPartition,
        /// Where.
        disk: DiskIx,
        /// It is let go.
        freed: bool,
    },
    /// The disk of a replica that the site log places here is not here.
    NoDisk {
        /// Of which partition.
        id: TopicPartition,
        /// Which is missing.
        disk: DiskUuid,
    },
}

/// Why a node can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// An entry or a snapshot of the site log that this release does not know and must.
    SiteLog(String),
    /// The meta disk failed: a restart replays it.
    MetaDisk,
    /// See [`sitelog::Halt`].
    Halt(sitelog::Halt),
}
