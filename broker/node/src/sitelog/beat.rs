//! The beats: heartbeats and grants of the controller, and what nodes answer.
//!
//! They run on a thread of their own in the shell, which allocates nothing, logs nothing and takes no lock, so that no
//! disk, no long answer and no busy core thread makes a lease end. This is that thread's whole part: [`Beats`], numbers
//! without a heap. It shares two blocks of words with the core thread: the core's [`Orders`] and its own [`Facts`], each
//! behind a version that the shell's cells turn (a seqlock of `AtomicU64`, sequentially consistent).
//!
//! The beat thread, for ever, and only while every core thread's tick is younger than 200 ms:
//! 1. wait for a datagram, for [`Beats::deadline`] or for the core's kick;
//! 2. read the orders and [`Beats::obey`] them;
//! 3. [`Beats::receive`] the datagram (its tag, boot nonce and counter are checked), or [`Beats::tick`];
//! 4. publish [`Beats::facts`];
//! 5. read the orders' version again: only if it is the one obeyed, send what came out. Else drop it and begin anew.
//!
//! The core publishes [`super::Effect::Orders`] when it performs it, and reads the facts before each step of the site log
//! ([`super::SiteLog::hear`]). So of a heartbeat answered in a term and a vote given in a later one, the one that comes
//! second sees the first: the core sees the promise and withholds the vote (it answers a step after its orders at the
//! earliest), or the beat thread sees the orders and does not answer.

use core::time::Duration;

use model::{DiskUuid, Incarnation, Instant, NodeId, Term};

use super::{Index, SEATS_MAX, Settings, Timing};
use crate::mutation::{Mutation, is};

mod datagram;
mod words;

pub use datagram::{BEAT_BYTES, BeatFault};
pub use words::{FACTS_WORDS, ORDERS_WORDS};

use datagram::{Beat, Down, Grant, Up};

/// Disks of a node, as in the site file.
pub const DISKS_MAX: usize = 12;

/// How a disk is, as its node says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DiskState {
    /// No disk in this place.
    #[default]
    None = 0,
    /// Mounted, clean, in service.
    Clean = 1,
    /// Nothing became durable for two seconds: the node has given up its leaderships there.
    Stalled = 2,
    /// Out of service after an error or ten seconds; what it holds may come back.
    Failed = 3,
    /// Its journal has a hole: it serves nothing.
    Suspect = 4,
}

/// The disks of a node.
pub type Disks = [(DiskUuid, DiskState); DISKS_MAX];

/// What a node says of itself in each of its beats (NodeBeat), for the controller's machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Report {
    /// The last entry of the site log that it applied.
    pub applied: Index,
    /// Of its site file (H32).
    pub digest: u64,
    /// The highest site version that the release in its blessed slot reads (H57).
    pub blessed: u16,
    /// Its clock is trusted.
    pub clock_trusted: bool,
    /// Its disks.
    pub disks: Disks,
}

/// Which part this node has in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Office {
    /// It follows, or nobody leads.
    #[default]
    None = 0,
    /// Elected: its heartbeats earn a lease, but it grants nothing before an entry of its term is committed (L1.4).
    Elected = 1,
    /// It grants leases inside its own.
    Controller = 2,
}

/// What the core tells the beat thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Orders {
    /// Rises with every change; zero before the first.
    pub version: u64,
    /// How often the machine slept, as the core knows: each time voids what was promised by time.
    pub sleeps: u64,
    /// Only beats of this term are answered.
    pub term: Term,
    /// This node's part in it.
    pub office: Office,
    /// So much is committed, as far as this node knows.
    pub commit: Index,
    /// The voter in each seat; the seats are [`Settings::peers`] in their order.
    pub voters: [Option<Incarnation>; SEATS_MAX],
    /// Since which return a node may be granted leases again, once it has applied so much. What was decided while it
    /// counted as dead lies at or before that entry, so it never serves by what it knew before (L1.5).
    pub cleared: [(Instant, Index); SEATS_MAX],
    /// What its beats say of this node.
    pub report: Report,
}

/// What the beat thread knows of a node while this one is in office.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Whose beats these are: a replaced node has another.
    pub incarnation: Incarnation,
    /// Of which life: drawn at each start.
    pub boot: u64,
    /// When the last one came.
    pub heard: Instant,
    /// From then on it is dead: no lease granted to it is running, on whatever clock (L1.6).
    pub dead_from: Instant,
    /// When it was heard first, or again after it counted as dead: [`Orders::cleared`] answers that.
    pub returned: Instant,
    /// What it says of itself.
    pub report: Report,
}

/// What the beat thread tells the core. A pair with a term counts in that term only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The version of the orders that were obeyed last.
    pub obeyed: u64,
    /// This voter elects nobody else before then (L1.3).
    pub promise: (Term, Instant),
    /// The controller says that so much is committed.
    pub commit: (Term, Index),
    /// This node may serve until then (L1.5).
    pub granted: (Term, Instant),
    /// This node's own lease as elected or controller (L1.4).
    pub office: (Term, Instant),
    /// The nodes, by seat, in the term of `office`.
    pub seats: [Seen; SEATS_MAX],
}

/// Datagrams to send, at most one for each seat.
pub type Datagrams = heapless::Vec<(NodeId, [u8; BEAT_BYTES]), SEATS_MAX>;

/// The beat thread's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beats {
    incarnation: Incarnation,
    timing: Timing,
    /// Zero ends them.
    seats: [NodeId; SEATS_MAX],
    me: usize,
    boot: u64,
    orders: Orders,
    /// Stamps from before this start, the last sleep or this office are no stamps of this clock.
    since: Instant,
    next_heartbeat: Instant,
    /// Who sent this term's last heartbeat, and that it waits for a beat: this node has no lease and has applied more.
    controller: Option<usize>,
    owes_beat: bool,
    /// Send times of the last heartbeats that each seat answered.
    acked: [Option<Instant>; SEATS_MAX],
    facts: Facts,
}

impl Beats {
    /// Begins at `now`. `boot` is drawn at each start and never zero: an answer to an earlier life is known by it.
    ///
    /// # Panics
    /// If the node is not among its peers, or these are more than [`SEATS_MAX`].
    #[must_use]
    pub fn new(settings: &Settings, boot: u64, now: Instant) -> Self {
        let mut seats = [NodeId(0); SEATS_MAX];
        seats[..settings.peers.len()].copy_from_slice(&settings.peers);
        let me = settings
            .peers
            .iter()
            .position(|peer| *peer == settings.node);
        Self {
            incarnation: settings.incarnation,
            timing: settings.timing,
            seats,
            me: me.expect("a node is one of its site's"),
            boot,
            orders: Orders::default(),
            since: now,
            next_heartbeat: now,
            controller: None,
            owes_beat: false,
            acked: [None; SEATS_MAX],
            facts: Facts::default(),
        }
    }

    /// Takes the core's orders; the same again change nothing.
    pub fn obey(&mut self, now: Instant, orders: &Orders) {
        if orders.version == self.orders.version {
            return;
        }
        let before = core::mem::replace(&mut self.orders, *orders);
        self.facts.obeyed = orders.version;
        if before.sleeps != orders.sleeps {
            self.slept(now);
        }
        // A higher term voids what an older controller granted (L1.5).
        if self.facts.granted.0 != orders.term {
            self.facts.granted = (orders.term, Instant(0));
        }
        let entered = orders.office != Office::None
            && (before.office == Office::None || before.term != orders.term);
        if before.term != orders.term || orders.office != Office::None {
            self.controller = None;
        }
        // A grant may have waited for that; the next heartbeat is far.
        self.owes_beat = self.controller.is_some()
            && self.facts.granted.1 <= now
            && (self.owes_beat || orders.report.applied > before.report.applied);
        if entered || orders.office == Office::None {
            self.acked = [None; SEATS_MAX];
            self.facts.seats = [Seen::default(); SEATS_MAX];
        }
        if entered {
            self.since = now;
            self.next_heartbeat = now;
        }
        for (acked, seat) in self.acked.iter_mut().zip(0..) {
            // What another incarnation answered, or one that did not vote, earns nothing (L1.7, L1.8).
            if before.voters[seat] != orders.voters[seat] {
                *acked = None;
            }
        }
        self.renew();
    }

    /// When [`Beats::tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.owes_beat {
            return Some(Instant(0));
        }
        (self.orders.office != Office::None).then_some(self.next_heartbeat)
    }

    /// Sends what is due.
    pub fn tick(&mut self, now: Instant, out: &mut Datagrams) {
        if core::mem::take(&mut self.owes_beat)
            && let Some(controller) = self.controller
        {
            // Answers no heartbeat.
            let beat = Beat::Up(self.beat(now, Instant(0)));
            let _ = out.push((self.seats[controller], beat.encode()));
            return;
        }
        if self.deadline().is_none_or(|due| now < due) {
            return;
        }
        self.next_heartbeat = now + self.timing.heartbeat;
        // L1.3, L1.4: the controller is bound like its voters, from when it sends.
        self.promise(now);
        self.acked[self.me] = Some(now);
        self.renew();
        let beat = Beat::Down(Down {
            term: self.orders.term,
            heartbeat: Some((now, self.orders.commit)),
            grant: None,
        });
        for (place, seat) in self.seats.iter().enumerate() {
            if place != self.me && *seat != NodeId(0) {
                // As many as there are seats.
                let _ = out.push((*seat, beat.encode()));
            }
        }
    }

    /// Takes a datagram that `from` has proven to be its own.
    pub fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        bytes: &[u8],
        out: &mut Datagrams,
    ) -> Result<(), BeatFault> {
        let beat = Beat::decode(bytes)?;
        let seat = self.seats.iter().position(|seat| *seat == from);
        let Some(seat) = seat.filter(|seat| *seat != self.me) else {
            return Err(BeatFault::Stranger);
        };
        let answer = match beat {
            Beat::Down(down) => self.down(now, seat, &down),
            Beat::Up(up) => self.up(now, seat, &up),
        };
        if let Some(answer) = answer {
            let _ = out.push((from, answer.encode()));
        }
        Ok(())
    }

    /// The machine slept, or its clock stood: leases are void, and this voter's promises are renewed (L1.3).
    pub fn slept(&mut self, now: Instant) {
        if is(Mutation::SleepIgnored) {
            return;
        }
        self.since = now;
        self.acked = [None; SEATS_MAX];
        self.facts.office.1 = Instant(0);
        self.facts.granted.1 = Instant(0);
        // The clock may have stood from just after a grant until now. Who was dead stays it.
        let dead_from = now + Timing::passed_everywhere(self.timing.lease);
        for seen in &mut self.facts.seats {
            if seen.dead_from > now {
                seen.dead_from = dead_from;
            }
        }
    }

    /// What was obeyed last; before anything is sent, the shell compares its version with the published one.
    #[must_use]
    pub const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// What the core shall know.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    fn down(&mut self, now: Instant, seat: usize, down: &Down) -> Option<Beat> {
        // Another term's controller: the core learns of a later one by its Append, and orders follow.
        if down.term != self.orders.term || self.orders.office != Office::None {
            return None;
        }
        if let Some(grant) = down.grant {
            self.granted(now, grant);
        }
        let (sent, commit) = down.heartbeat?;
        self.promise(now);
        let known = if self.facts.commit.0 == down.term {
            self.facts.commit.1
        } else {
            Index(0)
        };
        self.facts.commit = (down.term, known.max(commit));
        self.controller = Some(seat);
        self.owes_beat = false;
        Some(Beat::Up(self.beat(now, sent)))
    }

    const fn beat(&self, now: Instant, echo: Instant) -> Up {
        Up {
            term: self.orders.term,
            echo,
            sent: now,
            boot: self.boot,
            incarnation: self.incarnation,
            report: self.orders.report,
        }
    }

    fn granted(&mut self, now: Instant, grant: Grant) {
        let stamped_here = grant.boot == self.boot && self.since <= grant.echo && grant.echo <= now;
        if !stamped_here {
            return;
        }
        // L1.5: from when this node asked, by the clock that stamped it.
        let from = if is(Mutation::GrantFromReceipt) {
            now
        } else {
            grant.echo
        };
        let until = from + grant.duration.min(self.timing.lease);
        self.facts.granted.1 = self.facts.granted.1.max(until);
    }

    fn up(&mut self, now: Instant, seat: usize, up: &Up) -> Option<Beat> {
        if up.term != self.orders.term || self.orders.office == Office::None {
            return None;
        }
        if self.orders.voters[seat] == Some(up.incarnation)
            && self.since <= up.echo
            && up.echo <= now
        {
            // L1.4: the lease counts from the send time, since the promise may be as old.
            let earned = if is(Mutation::LeaseFromAck) {
                now
            } else {
                up.echo
            };
            self.acked[seat] = self.acked[seat].max(Some(earned));
            self.renew();
        }
        let passed = if is(Mutation::GrantForgottenTooSoon) {
            self.timing.lease
        } else {
            Timing::passed_everywhere(self.timing.lease)
        };
        let seen = &mut self.facts.seats[seat];
        *seen = Seen {
            incarnation: up.incarnation,
            boot: up.boot,
            heard: now,
            // L1.6, with the longest that may be granted now.
            dead_from: now + passed,
            returned: if now >= seen.dead_from {
                now
            } else {
                seen.returned
            },
            report: up.report,
        };
        // L1.4: it grants only inside its lease, and only after it committed an entry of its own.
        let left = self.facts.office.1.since(now);
        if self.orders.office != Office::Controller || left.is_zero() {
            return None;
        }
        let (returned, index) = self.orders.cleared[seat];
        let cleared = returned == seen.returned && up.report.applied >= index;
        if !(cleared || is(Mutation::GrantUncleared)) {
            return None;
        }
        // L1.5: and nothing that outlasts it.
        let duration = if is(Mutation::GrantUncapped) {
            self.timing.lease
        } else {
            self.timing.lease.min(left)
        };
        Some(Beat::Down(Down {
            term: up.term,
            heartbeat: None,
            grant: Some(Grant {
                echo: up.sent,
                boot: up.boot,
                duration,
            }),
        }))
    }

    fn promise(&mut self, now: Instant) {
        let until = now + promised(&self.timing);
        self.facts.promise = (self.orders.term, self.facts.promise.1.max(until));
    }

    /// L1.4: the lease ends D_c after a majority of the voters was last sent a heartbeat that it answered.
    fn renew(&mut self) {
        let mut sent: heapless::Vec<Instant, SEATS_MAX> = heapless::Vec::new();
        for (voter, acked) in self.orders.voters.iter().zip(&self.acked) {
            if voter.is_some() {
                let _ = sent.push(acked.unwrap_or_default());
            }
        }
        sent.sort_unstable();
        // The (n / 2 + 1)-th newest is the ((n − 1) / 2 + 1)-th oldest.
        let of_majority = sent.get(sent.len().saturating_sub(1) / 2).copied();
        let until = of_majority
            .filter(|sent| *sent > Instant(0))
            .map_or(Instant(0), |sent| sent + self.timing.lease);
        self.facts.office = (self.orders.term, until);
    }
}

/// D_v.
pub(super) fn promised(timing: &Timing) -> Duration {
    if is(Mutation::PromiseShort) {
        timing.lease
    } else {
        timing.promise
    }
}
