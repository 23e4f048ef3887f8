//! Scenarios of the controller as texts beside this file, and what must hold for any faults and wishes.
#![allow(clippy::unwrap_used)]

use core::fmt::Write as _;

use model::{DiskUuid, LeaderEpoch, PartitionIndex, TopicId, Uuid};

use super::*;
use crate::Ticket;
use crate::catalog::{CreateTopic, Declared, Rules};
use crate::partition::Member;
use crate::scenario::{self, Words};
use crate::sitelog::{Actor, Disk, DiskState, Entry, Node, Record};

mod many;
mod play;
mod properties;
mod text;

const MIB: u64 = 1 << 20;
const MS: Duration = Duration::from_millis(1);
/// D_c of the `lan` preset.
const GRANT: Duration = Duration::from_millis(400);
/// H of the `lan` preset.
const HEAR: Duration = Duration::from_millis(100);

/// What was granted for so long is over on every clock (L1.6).
fn passed_everywhere(granted: Duration) -> Duration {
    granted * 112 / 100
}

fn rules() -> Rules {
    Rules {
        partitions: 1,
        replication: 3,
        min_insync: 2,
        retention_ms: 604_800_000,
        retention_bytes: None,
        refuse_when_full: false,
        create_topics: true,
        replicas_max: 4_000,
        message_bytes_max: 8 << 20,
        message_bytes: 1_000_000,
        extent_for: |_| MIB,
        share_bytes_min: 8 * MIB,
        share_part: 8,
    }
}

/// A disk is named by its node and a letter.
fn disk(node: u32, letter: char) -> DiskUuid {
    let mut bytes = [0; 16];
    bytes[0] = u8::try_from(node).unwrap();
    bytes[1] = letter as u8;
    DiskUuid(Uuid(bytes))
}

fn incarnation(number: u8) -> Incarnation {
    Incarnation(Uuid([number; 16]))
}

fn topic_id(number: u16) -> TopicId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    TopicId(Uuid(bytes))
}

fn settings(nodes: u32, disks: usize) -> Settings {
    Settings {
        voters: (1..=nodes).map(NodeId).collect(),
        nodes: (1..=nodes).map(|node| (NodeId(node), disks)).collect(),
        digest: 7,
        version: 2,
        hear: HEAR,
    }
}

struct World {
    now: Instant,
    catalog: Catalog,
    controller: Controller,
    applied: u64,
    pending: VecDeque<(Proposal, Vec<u8>)>,
    /// Entries stay on their way until `commit`.
    hold: bool,
    topics: u16,
    /// What nodes say, as said last.
    beats: BTreeMap<u32, NodeBeat>,
}

impl World {
    fn new(nodes: u32, disks: usize, rules: Rules) -> Self {
        let beat = |node| {
            let letters = ('a'..).take(disks);
            NodeBeat {
                node: NodeId(node),
                incarnation: incarnation(1),
                boot: 1,
                disks: letters
                    .map(|letter| (disk(node, letter), DiskState::Clean))
                    .collect(),
                applied: Index(0),
                blessed: 1,
                digest: 7,
                clock_trusted: true,
            }
        };
        Self {
            now: Instant(0),
            catalog: Catalog::new(NodeId(1), rules),
            controller: Controller::new(settings(nodes, disks)),
            applied: 0,
            pending: VecDeque::new(),
            hold: false,
            topics: 0,
            beats: (1..=nodes).map(|node| (node, beat(node))).collect(),
        }
    }

    /// Every node registered, the site there: what a site has behind it.
    fn founded(&mut self, bytes: u64) {
        let nodes: Vec<Node> = self
            .beats
            .values()
            .map(|beat| node_of(beat, bytes))
            .collect();
        let site = Entry::Site {
            uuid: model::SiteUuid(Uuid([9; 16])),
        };
        let version = Entry::SiteVersion { version: 1 };
        let entries = [site, version]
            .into_iter()
            .chain(nodes.into_iter().map(Entry::Node));
        for entry in entries {
            self.apply(&Record::broker(entry));
        }
    }

    fn apply(&mut self, record: &Record) {
        self.applied += 1;
        self.catalog.apply(record, &mut Outbox::new());
    }

    fn next_topic(&mut self) -> TopicId {
        self.topics += 1;
        topic_id(self.topics)
    }

    /// Takes a fact; entries are applied at once unless they are held.
    fn tell(&mut self, input: Input) -> String {
        let mut said = String::new();
        self.step(input, &mut said);
        let end = self.applied + 1_000;
        while !self.hold && !self.pending.is_empty() {
            self.commit(&mut said);
            assert!(
                self.applied < end,
                "one entry follows the other without end"
            );
        }
        said
    }

    fn step(&mut self, input: Input, said: &mut String) {
        let mut out = Outbox::new();
        self.controller
            .step(self.now, &self.catalog, input, &mut out);
        for effect in out.drain() {
            self.say(&effect, said);
            if let Effect::Propose { proposal, bytes } = effect {
                self.pending.push_back((proposal, bytes));
            }
        }
    }

    fn commit(&mut self, said: &mut String) {
        let (proposal, bytes) = self.pending.pop_front().unwrap();
        self.apply(&Record::decode(&bytes).unwrap());
        let input = Input::Applied {
            index: Index(self.applied),
            proposal: Some(proposal),
        };
        self.step(input, said);
    }

    fn beat(&mut self, node: u32, granted: Duration) -> String {
        let mut beat = self.beats[&node].clone();
        if beat.applied == Index(0) {
            beat.applied = Index(self.applied);
        }
        let dead_from = self.now + passed_everywhere(granted);
        self.tell(Input::Beat { beat, dead_from })
    }

    /// Time passes, with beats of these nodes every 100 ms and ticks when they are due.
    fn pass(&mut self, time: Duration, beating: &[u32]) -> String {
        let mut said = String::new();
        let end = self.now + time;
        let mut next = self.now + HEAR;
        while self.now < end {
            let due = self.controller.deadline().unwrap_or(end);
            let due = due.max(self.now + MS).min(next).min(end);
            self.now = due;
            said += &self.tell(Input::Lease {
                until: self.now + GRANT,
            });
            if self.now == next {
                next = next + HEAR;
                for node in beating {
                    said += &self.beat(*node, GRANT);
                }
            }
            said += &self.tell(Input::Tick);
        }
        said
    }

    fn office(&mut self, term: u64, released: bool, wanted: Vec<Wanted>) -> String {
        let now = self.now;
        let moves_from = match released {
            true => now + passed_everywhere(GRANT),
            false => Instant(0),
        };
        self.tell(Input::Office {
            term: Term(term),
            since: now,
            until: now + GRANT,
            index: Index(self.applied),
            moves_from,
            wanted,
            site: model::SiteUuid(Uuid([9; 16])),
        })
    }

    fn wish(&mut self, words: &Words<'_>, wish: Wish) -> String {
        let timeout: u64 = words.number("timeout").unwrap_or(30_000);
        let deadline = self.now + Duration::from_millis(timeout);
        self.tell(Input::Wish {
            ticket: Ticket(words.number("ticket").unwrap_or(1)),
            actor: Actor::broker(),
            deadline,
            wish,
        })
    }

    fn id(&self, text: &str) -> TopicPartition {
        let (topic, partition) = text.rsplit_once('-').unwrap();
        TopicPartition {
            topic: self.catalog.id_of(topic).unwrap_or_default(),
            partition: PartitionIndex(partition.parse().unwrap()),
        }
    }
}

fn node_of(beat: &NodeBeat, bytes: u64) -> Node {
    let in_service = |state| matches!(state, DiskState::Clean | DiskState::Stalled);
    let disks = beat.disks.iter().filter(|(_, state)| in_service(*state));
    Node {
        id: beat.node,
        incarnation: beat.incarnation,
        disks: disks.map(|(uuid, _)| Disk { uuid: *uuid, bytes }).collect(),
        versions: (1, 1),
        public_key: Vec::new(),
    }
}

impl scenario::World for World {
    fn site(words: &Words<'_>) -> Self {
        let mut rules = rules();
        rules.replication = words.number("replication").unwrap_or(rules.replication);
        rules.min_insync = words.number("min-insync").unwrap_or(rules.min_insync);
        let nodes = words.number("nodes").unwrap_or(3);
        let disks = words.number("disks").unwrap_or(1);
        let mut world = Self::new(nodes, disks, rules);
        if !words.has("empty") {
            world.founded(words.number("mib").unwrap_or(10_000) * MIB);
        }
        world
    }

    fn command(&mut self, verb: &str, words: &Words<'_>) -> String {
        text::command(self, verb, words)
    }
}

macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            scenario::run::<World>(concat!("controller/tests/", stringify!($name), ".txt"));
        })+
    };
}

scenarios! {
    deaths, disks, offices, insync, leaders, moves, replacements, topics, sites, unclean
}
