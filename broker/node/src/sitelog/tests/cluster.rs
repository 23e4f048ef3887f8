//! A site of several nodes in one thread, from one seed: messages and beats are lost, doubled, late and out of order,
//! links are cut, clocks differ by 5 %, nodes sleep, crash, forget what was not durable, and come back as others.
//!
//! `HOWDAH_SEED=n` plays that seed alone.

mod member;
mod oracle;

use std::collections::BTreeMap;

use model::Uuid;

use super::*;
use member::Member;
use oracle::Oracle;

/// A moment of true time, in nanoseconds.
type Moment = u64;
const MS: Moment = 1_000_000;

/// Draws of the simulation; the machines have their own.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64* (Vigna 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What is on its way.
#[derive(Clone, Debug)]
enum Event {
    Message {
        to: NodeId,
        message: Box<Message>,
    },
    Beat {
        from: NodeId,
        to: NodeId,
        bytes: Box<[u8; BEAT_BYTES]>,
    },
    /// The beat thread is about to send what it made under these orders.
    Sending {
        node: NodeId,
        life: u64,
        version: u64,
        datagrams: Vec<(NodeId, [u8; BEAT_BYTES])>,
    },
    Disk {
        node: NodeId,
        life: u64,
    },
    Start {
        node: NodeId,
    },
    Wake {
        node: NodeId,
        life: u64,
    },
}

/// What may go wrong, once in so many.
#[derive(Clone, Copy)]
struct Faults {
    lost: u64,
    doubled: u64,
    crash_ms: u64,
    sleep_ms: u64,
    cut_ms: u64,
    release_ms: u64,
    replaced: bool,
}

struct Site {
    draw: Draw,
    now: Moment,
    members: Vec<Member>,
    events: BTreeMap<(Moment, u64), Event>,
    order: u64,
    /// Links that carry nothing, from and to.
    cut: Vec<(NodeId, NodeId)>,
    faults: Option<Faults>,
    oracle: Oracle,
    tickets: u64,
    next_fault: Moment,
    next_wish: Moment,
    replaced: Option<NodeId>,
}

impl Site {
    fn new(seed: u64, nodes: u32, witness: Option<u32>) -> Self {
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let peers: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let voters = peers.iter().map(|node| Voter {
            node: *node,
            incarnation: Incarnation::default(),
            witness: witness == Some(node.0),
        });
        let voters = Voters::new(voters.collect()).unwrap();
        let members = peers
            .iter()
            .map(|node| {
                // Exactly the assumption's ends, or between.
                let rate =
                    [950_000, 1_050_000, 950_000 + draw.below(100_001)][draw.below(3) as usize];
                Member::new(
                    *node,
                    peers.clone(),
                    voters.clone(),
                    rate,
                    draw.below(1 << 40),
                )
            })
            .collect();
        let mut site = Self {
            draw,
            now: MS,
            members,
            events: BTreeMap::new(),
            order: 0,
            cut: Vec::new(),
            faults: None,
            oracle: Oracle::default(),
            tickets: 0,
            next_fault: 0,
            next_wish: 0,
            replaced: None,
        };
        for node in peers {
            let delay = site.draw.below(300 * MS);
            site.after(delay, Event::Start { node });
        }
        site
    }

    fn after(&mut self, delay: Moment, event: Event) {
        self.order += 1;
        self.events.insert((self.now + delay, self.order), event);
    }

    fn member(&mut self, node: NodeId) -> &mut Member {
        &mut self.members[node.0 as usize - 1]
    }

    /// Plays until then.
    fn run_until(&mut self, end: Moment) {
        while self.now < end {
            let event = self.events.keys().next().map_or(end, |(at, _)| *at);
            let due = self.members.iter().filter_map(Member::deadline).min();
            let next = event.min(due.unwrap_or(end)).min(self.next_wish).min(end);
            let next = if self.faults.is_some() {
                next.min(self.next_fault)
            } else {
                next
            };
            self.now = next.max(self.now + 1);
            self.play();
            self.members.iter_mut().for_each(Member::hear);
            self.oracle.look(self.now, &self.members);
        }
    }

    fn play(&mut self) {
        while let Some(entry) = self
            .events
            .first_entry()
            .filter(|entry| entry.key().0 <= self.now)
        {
            let event = entry.remove();
            self.happen(event);
        }
        for at in 0..self.members.len() {
            let node = self.members[at].node;
            if self.members[at].core_due(self.now) {
                self.tell(node, Input::Tick);
            }
            if self.members[at].beats_due(self.now) {
                self.beat(node, None);
            }
        }
        if self.now >= self.next_wish {
            self.next_wish = self.now + MS * (20 + self.draw.below(100));
            self.wish();
        }
        if self.faults.is_some() && self.now >= self.next_fault {
            self.next_fault = self.now + MS * (1 + self.draw.below(20));
            self.fault();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message { to, message } => self.tell(to, Input::Message(message)),
            Event::Beat { from, to, bytes } => self.beat(to, Some((from, *bytes))),
            Event::Sending {
                node,
                life,
                version,
                datagrams,
            } => {
                let member = self.member(node);
                let same = member
                    .awake(life)
                    .is_some_and(|life| life.orders.version == version);
                if same {
                    for (to, bytes) in datagrams {
                        self.carry(
                            node,
                            to,
                            Event::Beat {
                                from: node,
                                to,
                                bytes: Box::new(bytes),
                            },
                        );
                    }
                }
            }
            Event::Disk { node, life } => {
                let member = self.member(node);
                if !member.is_life(life) {
                    return;
                }
                let input = member.disk.flush_one();
                let more = !member.disk.queue.is_empty();
                if more {
                    self.flush_later(node);
                }
                if let Some(input) = input {
                    self.tell(node, input);
                }
            }
            Event::Start { node } => {
                let now = self.now;
                self.member(node).start(now);
                self.tell(node, Input::Start);
            }
            Event::Wake { node, life } => {
                let now = self.now;
                if self.member(node).wake(life, now) {
                    self.tell(node, Input::Slept);
                    self.flush_later(node);
                }
            }
        }
    }

    /// One step of a core thread. What reaches a sleeping or dead node is lost.
    fn tell(&mut self, node: NodeId, input: Input) {
        let now = self.now;
        let member = &mut self.members[node.0 as usize - 1];
        let idle = member.disk.queue.is_empty();
        let Some(effects) = member.step(now, input) else {
            return;
        };
        let mut again = Vec::new();
        for effect in effects {
            self.oracle.see(&self.members[node.0 as usize - 1], &effect);
            let member = &mut self.members[node.0 as usize - 1];
            match effect {
                Effect::Send { to, message } => {
                    self.carry(node, to, Event::Message { to, message })
                }
                Effect::Orders(orders) => {
                    member.life.as_mut().unwrap().orders = *orders;
                    self.beat(node, None);
                }
                Effect::Halt(why) => panic!("{node:?} halts: {why:?}"),
                other => again.extend(member.perform(other)),
            }
        }
        if idle && !self.member(node).disk.queue.is_empty() {
            self.flush_later(node);
        }
        for input in again {
            self.tell(node, input);
        }
    }

    fn flush_later(&mut self, node: NodeId) {
        let Some(life) = self.member(node).life.as_ref().map(|life| life.number) else {
            return;
        };
        let delay = if self.draw.once_in(50) { 400 } else { 20 };
        let delay = MS * (1 + self.draw.below(delay));
        self.after(delay, Event::Disk { node, life });
    }

    /// One round of a beat thread; what it made goes out a moment later.
    fn beat(&mut self, node: NodeId, datagram: Option<(NodeId, [u8; BEAT_BYTES])>) {
        let now = self.now;
        let Some((life, version, datagrams)) = self.member(node).beat(now, datagram) else {
            return;
        };
        if !datagrams.is_empty() {
            let pause = if self.draw.once_in(100) { 200 * MS } else { MS };
            let pause = self.draw.below(pause);
            self.after(
                pause,
                Event::Sending {
                    node,
                    life,
                    version,
                    datagrams,
                },
            );
        }
    }

    fn carry(&mut self, from: NodeId, to: NodeId, event: Event) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let faults = self.faults;
        if faults.is_some_and(|faults| self.draw.once_in(faults.lost)) {
            return;
        }
        let slow = if faults.is_some() && self.draw.once_in(20) {
            600
        } else {
            4
        };
        if faults.is_some_and(|faults| self.draw.once_in(faults.doubled)) {
            let delay = self.draw.below(400 * MS);
            self.after(delay, event.clone());
        }
        let delay = 100_000 + self.draw.below(slow * MS);
        self.after(delay, event);
    }

    /// Somebody proposes an entry to whoever decides; and what a controller does about replaced nodes.
    fn wish(&mut self) {
        let now = self.now;
        self.members.iter_mut().for_each(Member::hear);
        let deciding = self
            .members
            .iter()
            .find(|member| member.office(now).is_some());
        let Some(node) = deciding.map(|member| member.node) else {
            return;
        };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let change = self.members[node.0 as usize - 1].replacement();
        let dead = self.members[node.0 as usize - 1].finds_dead(now);
        let bytes = match change {
            Some(voters) => Record::broker(Entry::Voters(voters)).encode().unwrap(),
            None if dead.is_some_and(|_| self.draw.once_in(2)) => {
                let node = dead.map(|node| node.0 as u8);
                oracle::DEAD.iter().copied().chain(node).collect()
            }
            None => {
                let size = if self.draw.once_in(4) { 60_000 } else { 40 };
                let mut bytes = vec![0xff; size];
                bytes[..8].copy_from_slice(&ticket.0.to_le_bytes());
                bytes
            }
        };
        self.tell(node, Input::Propose { ticket, bytes });
    }

    fn fault(&mut self) {
        let Some(faults) = self.faults else { return };
        let node = NodeId(1 + self.draw.below(self.members.len() as u64) as u32);
        if self.draw.once_in(faults.crash_ms / 10) {
            self.crash(node, faults.replaced);
        }
        if self.draw.once_in(faults.sleep_ms / 10)
            && let Some(life) = self.member(node).life.as_ref().map(|life| life.number)
        {
            let (now, nap) = (self.now, MS * (1 + self.draw.below(1500)));
            self.member(node).sleep(now);
            self.after(nap, Event::Wake { node, life });
        }
        if self.draw.once_in(faults.cut_ms / 10) {
            let other = NodeId(1 + self.draw.below(self.members.len() as u64) as u32);
            self.cut.push((node, other));
            if self.draw.once_in(2) {
                self.cut.push((other, node));
            }
        }
        if self.draw.once_in(faults.cut_ms / 20) {
            self.cut.clear();
        }
        if self.draw.once_in(faults.release_ms / 10) {
            self.tell(node, Input::Release);
        }
    }

    fn crash(&mut self, node: NodeId, replaced: bool) {
        let kept = self.draw.below(4) as usize;
        let delay = MS * (1 + self.draw.below(1500));
        // Only while every voter has what its incarnation promised: one lost box is what a majority of three bears.
        let whole = self.oracle.all_registered(&self.members);
        let member = self.member(node);
        if member.life.take().is_none() {
            return;
        }
        member.disk.crash(kept);
        if replaced && whole && self.draw.once_in(4) {
            self.member(node).replace();
            self.replaced = Some(node);
        }
        self.after(delay, Event::Start { node });
    }

    /// All comes back and nothing more goes wrong.
    fn heal(&mut self) {
        self.faults = None;
        self.cut.clear();
    }
}

fn play(seed: u64) {
    let mut draw = Draw(seed | 1 << 40);
    let nodes = [3, 3, 5][draw.below(3) as usize];
    let witness = draw.once_in(3).then_some(nodes);
    println!("HOWDAH_SEED={seed} ({nodes} nodes, witness {witness:?})");
    let mut site = Site::new(seed, nodes, witness);
    site.run_until(4_000 * MS);
    assert!(site.oracle.applied() > 2, "no site was founded");
    for _ in 0..3 {
        site.faults = Some(Faults {
            lost: 4 + draw.below(60),
            doubled: 4 + draw.below(60),
            crash_ms: 400 + draw.below(3_000),
            sleep_ms: 1_000 + draw.below(8_000),
            cut_ms: 400 + draw.below(8_000),
            release_ms: 500 + draw.below(4_000),
            replaced: draw.once_in(2),
        });
        let end = site.now + MS * (2_000 + draw.below(6_000));
        site.run_until(end);
        site.heal();
        // Restarts, naps, promises, two elections and the entries that were missed.
        let end = site.now + 9_000 * MS;
        site.run_until(end);
        site.oracle.at_rest(site.now, &site.members);
    }
}

#[test]
fn whatever_happens_one_controller_decides_and_nothing_committed_is_lost() {
    if let Ok(seed) = std::env::var("HOWDAH_SEED") {
        return play(seed.parse().unwrap());
    }
    (1..=5).for_each(play);
}
