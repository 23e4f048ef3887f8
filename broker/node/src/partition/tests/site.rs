//! A partition on three brokers: the real machines, a controller that keeps R1, R6 and R9, a network that loses, doubles
//! and reorders, disks that lose what was not flushed and are swapped, producers that send again.
//!
//! What must hold at each step: what is committed is one log (S1), on the disk of every member of the committed ISR; no
//! producer has a batch twice or out of order in it; the high watermark and the log start of a replica never fall, nor
//! does a log start that a client was told; offsets and epochs rise. And when all is well again, everything gets stored.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use model::ProducerId;

use super::properties::Random;
use super::*;
use crate::mutation::Mutation;
use crate::peer::IsrOutcome;

mod checks;
mod control;
mod node;
mod orders;
mod play;

use control::{Control, Row};
use node::{Entry, Node};

/// What two brokers, or a broker and the controller, have under way.
#[derive(Clone, Debug)]
enum Message {
    Fetch {
        to: usize,
        ask: Ask,
    },
    Answer {
        to: usize,
        answer: Answer,
        copies: Vec<Entry>,
    },
    AlterIsr {
        from: usize,
        epoch: LeaderEpoch,
        part_ver: u32,
        isr: Box<[Member]>,
    },
    Outcome {
        to: usize,
        epoch: LeaderEpoch,
        part_ver: u32,
        outcome: IsrOutcome,
    },
}

/// An idempotent producer: it sends in order, and again whatever it does not know to be stored.
#[derive(Debug)]
struct Producer {
    pid: ProducerId,
    next_seq: i32,
    /// Something was acknowledged; before that only one batch is sent.
    known: bool,
    pending: Vec<(i32, i32, Option<Ticket>)>,
    /// Where its last acknowledged batch lies: nothing from there on is deleted.
    last: Offset,
}

/// Who waits behind a ticket.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Producer(usize),
    /// acks=1 or none, without sequence.
    Loose,
    Deletion,
}

struct Site {
    random: Random,
    now: Instant,
    settings: Settings,
    nodes: Vec<Node>,
    control: Control,
    network: Vec<Message>,
    /// Copies that come much later.
    late: Vec<Message>,
    producers: Vec<Producer>,
    owners: BTreeMap<Ticket, (usize, Owner)>,
    tickets: u64,
    disks: u32,
    /// By offset, as leaders said.
    committed: BTreeMap<Offset, Entry>,
    /// Batches that some replica has compacted away.
    compacted: BTreeSet<u64>,
    /// The highest log start that a client was told.
    deleted: Offset,
    /// How slow each node's disk is: flushed once in so many times.
    pace: [u64; 3],
    /// How often each thing happened, so that a test that tests nothing is seen.
    seen: BTreeMap<&'static str, u32>,
}

fn replica(node: usize, disk: u32) -> Member {
    let letter = char::from(b'a' + u8::try_from(node).unwrap());
    member(&format!("{letter}.{disk}"))
}

impl Site {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings {
            min_insync: 1 + u8::try_from(random.below(2)).unwrap(),
            ..SETTINGS
        };
        let nodes: Vec<Node> = (0..3)
            .map(|node| Node::new(replica(node, 1), settings))
            .collect();
        let control = Control::new(nodes.iter().map(|node| node.member).collect());
        let producer = |pid| Producer {
            pid: ProducerId(pid),
            next_seq: 0,
            known: false,
            pending: Vec::new(),
            last: Offset::ZERO,
        };
        let mut site = Self {
            random,
            now: Instant(1_000_000_000),
            settings,
            nodes,
            control,
            network: Vec::new(),
            late: Vec::new(),
            producers: (0..2).map(producer).collect(),
            owners: BTreeMap::new(),
            tickets: 0,
            disks: 1,
            committed: BTreeMap::new(),
            compacted: BTreeSet::new(),
            deleted: Offset::ZERO,
            pace: [1; 3],
            seen: BTreeMap::new(),
        };
        for node in 0..3 {
            site.start(node);
        }
        site
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn tell(&mut self, node: usize, input: Input) {
        let effects = self.nodes[node].tell(self.now, input);
        self.hear(node, effects);
    }

    fn hear(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::HighWatermark { high_watermark } => self.commit(node, high_watermark),
                Effect::Reply { ticket, outcome } => self.replied(ticket, &outcome),
                Effect::AlterIsr {
                    epoch,
                    part_ver,
                    isr,
                } => self.send(Message::AlterIsr {
                    from: node,
                    epoch,
                    part_ver,
                    isr,
                }),
                Effect::Leading { .. } => {
                    self.saw("leading");
                    let log_start = self.nodes[node].machine.log_start;
                    assert!(log_start >= self.deleted, "what was deleted is back (R10)");
                }
                Effect::Halted { .. } => panic!("nothing committed was lost, yet a replica halts"),
                Effect::CopyRefused { fault } => {
                    panic!("a leader sends what it may not: {fault:?}")
                }
                Effect::Truncate { .. } => self.saw("truncate"),
                Effect::Copy {
                    journaled: false, ..
                } => self.saw("copied without the journal"),
                Effect::Copy { gap: true, .. } => self.saw("copied over a hole"),
                Effect::Checkpoint { .. } => self.saw("checkpoint"),
                Effect::Resigned => self.saw("resigned"),
                Effect::Level { .. } => self.saw("level"),
                _ => {}
            }
        }
    }

    fn send(&mut self, message: Message) {
        // What is lost here and what is never sent look alike.
        if self.network.len() == 64 {
            let at = self.random.below(64) as usize;
            self.network.swap_remove(at);
        }
        if self.random.one_in(10) {
            if self.late.len() == 16 {
                let at = self.random.below(16) as usize;
                self.late.swap_remove(at);
            }
            self.late.push(message.clone());
        }
        self.network.push(message);
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        if !self.late.is_empty() && self.random.one_in(12) {
            let at = self.random.below(self.late.len() as u64) as usize;
            let message = self.late.swap_remove(at);
            return self.arrive(message);
        }
        let at = self.random.below(self.network.len() as u64) as usize;
        let message = match self.random.below(12) {
            // Lost, or delivered and still under way.
            0 => return drop(self.network.swap_remove(at)),
            1 => self.network[at].clone(),
            _ => self.network.swap_remove(at),
        };
        self.arrive(message);
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::Fetch { to, ask } => self.fetched(to, &ask),
            Message::Answer { to, answer, copies } => {
                if self.nodes[to].up && self.nodes[to].member.node.0 as usize == to + 1 {
                    let effects = self.nodes[to].answer(self.now, answer, copies);
                    self.hear(to, effects);
                }
            }
            Message::AlterIsr {
                from,
                epoch,
                part_ver,
                isr,
            } => {
                let fit = |member: &Member| {
                    let node = &self.nodes[member.node.0 as usize - 1];
                    node.member == *member && node.up && node.disk_up
                };
                let leader = self.nodes[from].member.node;
                let outcome = self.control.alter(leader, epoch, part_ver, &isr, fit);
                if matches!(outcome, IsrOutcome::Committed { .. }) {
                    self.saw("isr altered");
                }
                self.send(Message::Outcome {
                    to: from,
                    epoch,
                    part_ver,
                    outcome,
                });
            }
            Message::Outcome {
                to,
                epoch,
                part_ver,
                outcome,
            } if self.nodes[to].up => self.tell(
                to,
                Input::IsrOutcome {
                    epoch,
                    part_ver,
                    outcome,
                },
            ),
            Message::Outcome { .. } => {}
        }
    }

    /// A follower's question arrives: the leader hears it, and answers with a few batches.
    fn fetched(&mut self, to: usize, ask: &Ask) {
        if !self.nodes[to].up {
            return;
        }
        self.tell(to, Input::ReplicaFetch(ask.fetch));
        if ask.bytes_max == 0 {
            return;
        }
        let fetch = ask.fetch;
        let most = 1 + self.random.below(3) as usize;
        let node = &self.nodes[to];
        let mut copies = Vec::new();
        let body = match node.machine.replica_bounds(&fetch) {
            Err(_) => AnswerBody::Refused,
            Ok(bounds) => match bounds.diverging {
                Some((epoch, end)) => AnswerBody::Diverging { epoch, end },
                None => {
                    let view = node.disk.view.iter();
                    let there: Vec<Entry> = view
                        .filter(|entry| entry.end() > bounds.from && entry.base < bounds.to)
                        .copied()
                        .collect();
                    let more = there.len() > most;
                    copies = there.into_iter().take(most).collect();
                    AnswerBody::Batches {
                        ticket: Ticket(0),
                        high_watermark: bounds.high_watermark,
                        log_start: bounds.log_start,
                        more,
                        batches: copies.iter().map(Entry::copied).collect(),
                    }
                }
            },
        };
        if matches!(body, AnswerBody::Diverging { .. }) {
            self.saw("diverging");
        }
        let answer = Answer {
            epoch: fetch.epoch,
            fetch_off: fetch.fetch_off,
            last_epoch: fetch.last_epoch,
            body,
        };
        let to = fetch.member.node.0 as usize - 1;
        self.send(Message::Answer { to, answer, copies });
    }

    /// The process of a node begins, with what it knows of the site log, which may be less than it once knew.
    fn start(&mut self, node: usize) {
        let known = self.nodes[node].applied;
        self.nodes[node].start(self.settings, self.now);
        // Applied again from a snapshot: only the row as it was then.
        self.nodes[node].applied = 0;
        self.nodes[node].machine.copying.patience = 3;
        let known = self.random.below(known.max(1) as u64) as usize;
        self.learn_at(node, known);
    }

    /// The node applies the next entry of the site log.
    fn learn(&mut self, node: usize) {
        let next = self.nodes[node].applied;
        if self.nodes[node].up && next < self.control.rows.len() {
            self.learn_at(node, next);
        }
    }

    fn learn_at(&mut self, node: usize, at: usize) {
        let row = self.control.rows[at].clone();
        let me = self.nodes[node].member;
        let before = at.checked_sub(1).map(|before| &self.control.rows[before]);
        let elected =
            self.nodes[node].applied == 0 || before.is_none_or(|before| before.epoch != row.epoch);
        self.nodes[node].applied = at + 1;
        let Row {
            epoch,
            part_ver,
            leader,
            isr,
        } = row;
        if elected && leader == Some(me) {
            self.tell(
                node,
                Input::Lead {
                    epoch,
                    part_ver,
                    isr: isr.into(),
                    unclean: false,
                },
            );
            return;
        }
        if elected {
            self.tell(
                node,
                Input::Follow {
                    epoch,
                    leader: leader.map(|leader| leader.node),
                    unclean: false,
                },
            );
        }
        self.tell(
            node,
            Input::Isr {
                part_ver,
                committed: isr.into(),
            },
        );
    }
}
