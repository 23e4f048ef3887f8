//! A node of the simulated site: a machine, a beat thread, a catalog, a disk and a clock.

use std::collections::VecDeque;

use super::*;

/// What waits for the medium, in order.
#[derive(Clone, Debug)]
pub(super) enum Write {
    HardState(HardState),
    Entry(LogEntry),
    Snapshot { last: (Index, Term), bytes: Vec<u8> },
}

#[derive(Default)]
pub(super) struct Disk {
    pub(super) queue: VecDeque<Write>,
    hard_state: HardState,
    entries: Vec<LogEntry>,
    snapshot: (Index, Term),
    catalog: Catalog,
}

/// What was applied, as far as a snapshot needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Catalog {
    pub(super) applied: Index,
    pub(super) digest: u64,
    pub(super) voters: Option<Voters>,
}

impl Catalog {
    fn apply(&mut self, index: Index, bytes: &[u8]) {
        assert_eq!(index, self.applied.next(), "each index once, in order");
        self.applied = index;
        self.digest = oracle::digest(self.digest, bytes);
        if let Some(voters) = log::voters_of(bytes) {
            self.voters = Some(voters);
        }
    }

    /// With some bytes more, so that it goes in pieces.
    fn encode(&self) -> Vec<u8> {
        let known = (self.applied, self.digest, &self.voters);
        let mut bytes = postcard::to_allocvec(&known).unwrap();
        bytes.resize(bytes.len() + 3 * CHUNK_BYTES, 0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let ((applied, digest, voters), _) = postcard::take_from_bytes(bytes).unwrap();
        Self {
            applied,
            digest,
            voters,
        }
    }
}

impl Disk {
    /// Makes the oldest write durable.
    pub(super) fn flush_one(&mut self) -> Option<Input> {
        Some(match self.queue.pop_front()? {
            Write::HardState(state) => {
                self.hard_state = state;
                Input::HardStateDurable { term: state.term }
            }
            Write::Entry(entry) => {
                let index = entry.index;
                if index > self.snapshot.0 {
                    self.entries.retain(|it| it.index < index);
                    self.entries.push(entry);
                }
                Input::Durable { index }
            }
            Write::Snapshot { last, bytes } => {
                // As the store does it: entries behind it stay, whatever log they are of.
                self.entries.retain(|entry| entry.index > last.0);
                self.snapshot = last;
                self.catalog = Catalog::decode(&bytes);
                Input::SnapshotDurable { index: last.0 }
            }
        })
    }

    /// A cut: what was under way is lost, but for a few writes that had reached the medium.
    pub(super) fn crash(&mut self, kept: usize) {
        for _ in 0..kept {
            self.flush_one();
        }
        self.queue.clear();
    }

    fn recovered(&self) -> Recovered {
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.snapshot,
            voters: self.catalog.voters.clone(),
            entries: self.entries.clone(),
        }
    }
}

/// From a start to a crash.
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) log: SiteLog,
    beats: Beats,
    /// The shared cells.
    pub(super) orders: Orders,
    facts: Facts,
    pub(super) catalog: Catalog,
    /// Of the last grant or office, with its term.
    pub(super) lease: (Term, Instant),
    asleep: bool,
}

pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    peers: Vec<NodeId>,
    configured: Voters,
    /// Local nanoseconds in a true millisecond.
    rate: u64,
    /// The clock showed `base.1` at `base.0`.
    base: (Moment, u64),
    lives: u64,
    pub(super) life: Option<Life>,
    pub(super) disk: Disk,
}

impl Member {
    pub(super) fn new(
        node: NodeId,
        peers: Vec<NodeId>,
        configured: Voters,
        rate: u64,
        clock: u64,
    ) -> Self {
        Self {
            node,
            incarnation: Incarnation(Uuid([node.0 as u8; 16])),
            peers,
            configured,
            rate,
            base: (0, clock),
            lives: 0,
            life: None,
            disk: Disk::default(),
        }
    }

    pub(super) fn clock(&self, now: Moment) -> Instant {
        let passed = u128::from(now - self.base.0) * u128::from(self.rate) / u128::from(MS);
        Instant(self.base.1 + u64::try_from(passed).unwrap())
    }

    /// When the clock will show it.
    fn moment(&self, local: Instant) -> Moment {
        let left = u128::from(local.0.saturating_sub(self.base.1));
        let passed = (left * u128::from(MS)).div_ceil(u128::from(self.rate));
        self.base
            .0
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    pub(super) fn start(&mut self, now: Moment) {
        let clock = self.clock(now);
        self.lives += 1;
        let settings = Settings {
            node: self.node,
            incarnation: self.incarnation,
            peers: self.peers.clone(),
            voters: self.configured.clone(),
            timing: Timing::LAN,
            seed: self.lives * 100 + u64::from(self.node.0),
            may_found: true,
            may_vote: true,
        };
        self.life = Some(Life {
            number: self.lives,
            beats: Beats::new(&settings, self.lives, clock),
            log: SiteLog::new(settings, self.disk.recovered()),
            orders: Orders::default(),
            facts: Facts::default(),
            catalog: self.disk.catalog.clone(),
            lease: (Term(0), Instant(0)),
            asleep: false,
        });
    }

    /// Another box in its place: nothing of the old one is left.
    pub(super) fn replace(&mut self) {
        self.incarnation.0.0[0] += 100;
        self.incarnation.0.0[1] = self.incarnation.0.0[1].wrapping_add(1);
        self.disk = Disk::default();
    }

    /// The clock stands until it wakes.
    pub(super) fn sleep(&mut self, now: Moment) {
        self.base = (now, self.clock(now).0);
        if let Some(life) = &mut self.life {
            life.asleep = true;
        }
    }

    pub(super) fn wake(&mut self, number: u64, now: Moment) -> bool {
        let Some(life) = self
            .life
            .as_mut()
            .filter(|life| life.number == number && life.asleep)
        else {
            return false;
        };
        life.asleep = false;
        self.base.0 = now;
        true
    }

    pub(super) fn awake(&self, number: u64) -> Option<&Life> {
        self.life
            .as_ref()
            .filter(|life| life.number == number && !life.asleep)
    }

    pub(super) fn is_life(&self, number: u64) -> bool {
        self.awake(number).is_some()
    }

    fn running(&self) -> Option<&Life> {
        self.life.as_ref().filter(|life| !life.asleep)
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let life = self.running()?;
        let due = life
            .log
            .deadline()
            .into_iter()
            .chain(life.beats.deadline())
            .min()?;
        Some(self.moment(due))
    }

    pub(super) fn core_due(&self, now: Moment) -> bool {
        let due = self.running().and_then(|life| life.log.deadline());
        due.is_some_and(|due| due <= self.clock(now))
    }

    pub(super) fn beats_due(&self, now: Moment) -> bool {
        let due = self.running().and_then(|life| life.beats.deadline());
        due.is_some_and(|due| due <= self.clock(now))
    }

    pub(super) fn office(&self, now: Moment) -> Option<InOffice> {
        // A sleeping node decides nothing, and wakes with its leases void.
        self.running()?.log.office(self.clock(now))
    }

    /// The term of a lease under which it serves.
    pub(super) fn serves(&self, now: Moment) -> Option<Term> {
        let life = self.running()?;
        (self.clock(now) < life.lease.1).then_some(life.lease.0)
    }

    /// What a controller proposes about a voter whose meta disk was replaced: remove, then add (L1.7).
    pub(super) fn replacement(&self) -> Option<Voters> {
        let log = &self.life.as_ref()?.log;
        let voters = log.voters();
        for seen in log.nodes() {
            let Some(incarnation) = seen.incarnation else {
                continue;
            };
            match voters.voter(seen.node) {
                Some(voter) if voter.incarnation != incarnation => {
                    return Some(voters.without(seen.node));
                }
                None => {
                    let witness = self.configured.voter(seen.node)?.witness;
                    return voters.with(Voter {
                        node: seen.node,
                        incarnation,
                        witness,
                    });
                }
                Some(_) => {}
            }
        }
        None
    }

    /// A node that this controller takes for dead.
    pub(super) fn finds_dead(&self, now: Moment) -> Option<NodeId> {
        let clock = self.clock(now);
        let mut nodes = self.life.as_ref()?.log.nodes();
        nodes
            .find(|seen| seen.dead_from <= clock)
            .map(|seen| seen.node)
    }

    /// The core reads what the beat thread published.
    pub(super) fn hear(&mut self) {
        if let Some(life) = &mut self.life {
            life.log.hear(Facts::from_words(&life.facts.to_words()));
        }
    }

    /// Tells the core a fact; `None` if nobody is there.
    pub(super) fn step(&mut self, now: Moment, input: Input) -> Option<Vec<Effect>> {
        let clock = self.clock(now);
        let life = self.life.as_mut().filter(|life| !life.asleep)?;
        if let Input::Message(message) = &input {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&**message));
        }
        let mut out = Outbox::new();
        life.log.hear(Facts::from_words(&life.facts.to_words()));
        life.log.step(clock, input, &mut out);
        let effects: Vec<Effect> = out.drain().collect();
        Some(effects)
    }

    /// Performs what concerns this node alone.
    pub(super) fn perform(&mut self, effect: Effect) -> Option<Input> {
        let life = self.life.as_mut().unwrap();
        match effect {
            Effect::HardState(state) => self.disk.queue.push_back(Write::HardState(state)),
            Effect::Append(entry) => self.disk.queue.push_back(Write::Entry(entry)),
            Effect::Apply { index, bytes, .. } => life.catalog.apply(index, &bytes),
            Effect::Snapshot { index, term } => {
                assert_eq!(index, life.catalog.applied);
                let (last, bytes) = ((index, term), life.catalog.encode());
                self.disk.queue.push_back(Write::Snapshot { last, bytes });
            }
            Effect::Encode { index } => {
                assert_eq!(index, life.catalog.applied);
                let bytes = life.catalog.encode();
                return Some(Input::Encoded { index, bytes });
            }
            Effect::Install { index, term, bytes } => {
                life.catalog = Catalog::decode(&bytes);
                assert_eq!(index, life.catalog.applied);
                let last = (index, term);
                self.disk.queue.push_back(Write::Snapshot { last, bytes });
            }
            Effect::LeaseUntil { until } => life.lease = (life.log.term(), until),
            Effect::Refuse { .. } | Effect::Controller { .. } | Effect::Resigned { .. } => {}
            Effect::Send { .. } | Effect::Orders(_) | Effect::Halt(_) => unreachable!("the site's"),
        }
        None
    }

    /// One round of the beat thread, up to where it has published its facts.
    #[expect(clippy::type_complexity, reason = "it is said once")]
    pub(super) fn beat(
        &mut self,
        now: Moment,
        datagram: Option<(NodeId, [u8; BEAT_BYTES])>,
    ) -> Option<(u64, u64, Vec<(NodeId, [u8; BEAT_BYTES])>)> {
        let clock = self.clock(now);
        let life = self.life.as_mut().filter(|life| !life.asleep)?;
        let mut out = Datagrams::new();
        life.beats
            .obey(clock, &Orders::from_words(&life.orders.to_words()));
        match datagram {
            Some((from, bytes)) => life.beats.receive(clock, from, &bytes, &mut out).unwrap(),
            None => life.beats.tick(clock, &mut out),
        }
        life.facts = *life.beats.facts();
        Some((life.number, life.orders.version, out.into_iter().collect()))
    }
}
