//! Random members against a coordinator whose log, leader and lease come and go.
//!
//! What must hold whatever happens: every ticket is answered exactly once; a generation has one leader and only rises
//! within a leader epoch; a share is of the generation that was asked for, or empty; offsets shown are those that a
//! plain replay of the committed log gives; and a stable group comes back from the log as it was.

use std::collections::BTreeMap;

use super::*;
use crate::group::{Described, GroupState};

mod clients;

/// splitmix64 (Vigna): enough for tests, and the same on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What a client believes.
#[derive(Clone, Debug, Default)]
struct Client {
    member: String,
    instance: Option<String>,
    generation: i32,
    /// Whom it must assign to, if it leads: member id and the name its share carries.
    assigns: Vec<(String, String)>,
    joined: bool,
    synced: bool,
    version: u64,
}

impl Client {
    fn name(&self) -> String {
        self.instance.clone().unwrap_or_else(|| self.member.clone())
    }
}

/// What a ticket was for.
#[derive(Clone, Debug)]
enum Asked {
    Join {
        client: usize,
    },
    Sync {
        client: usize,
        generation: i32,
        name: String,
    },
    Other {
        client: Option<usize>,
    },
    Fetch {
        expected: Option<BTreeMap<(String, i32), i64>>,
    },
}

struct Play {
    random: Random,
    world: World,
    clients: Vec<Client>,
    asked: BTreeMap<u64, Asked>,
    tickets: u64,
    committed: i64,
    /// Where batches of this epoch end.
    ends: Vec<i64>,
    lease_until: Instant,
    loaded: bool,
    /// Within the epoch.
    generation: i32,
    leaders: BTreeMap<i32, String>,
    /// Static members and deletions, which both blur the generations, are in half of the worlds.
    statics: bool,
    /// How often each kind of answer came, so that a test that tests nothing is seen.
    seen: BTreeMap<String, u32>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let statics = random.one_in(2);
        let delay = Duration::from_millis(random.below(2) * 500);
        let members_max = if random.one_in(4) { 4 } else { 10 };
        let client = |at: usize| Client {
            instance: (statics && at.is_multiple_of(2)).then(|| format!("i{at}")),
            version: [3, 5, 9][at % 3],
            ..Client::default()
        };
        Self {
            world: World::new(Settings {
                join_delay: delay,
                members_max,
                ..Settings::default()
            }),
            clients: (0..5).map(client).collect(),
            asked: BTreeMap::new(),
            tickets: 0,
            committed: 0,
            ends: Vec::new(),
            lease_until: Instant(0),
            loaded: false,
            generation: 0,
            leaders: BTreeMap::new(),
            statics,
            seen: BTreeMap::new(),
            random,
        }
    }

    fn ask(&mut self, asked: Asked, request: GroupRequest) {
        self.tickets += 1;
        self.asked.insert(self.tickets, asked);
        let effects = self.world.ask(self.tickets, request);
        self.hear(effects);
    }

    fn hear(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Reply { ticket, reply } = effect {
                let asked = self.asked.remove(&ticket.0);
                self.answered(
                    &asked.expect("a ticket is answered twice, or was never asked"),
                    reply,
                );
            }
        }
    }

    fn step(&mut self) {
        let at = usize::try_from(self.random.below(self.clients.len() as u64)).unwrap();
        match self.random.below(60) {
            // Mostly a client does what its state calls for.
            40..=57 if !self.clients[at].joined => self.join_once(at),
            40..=57 if !self.clients[at].synced => self.sync_once(at),
            40..=57 => self.heartbeat(at),
            0 => self.join(at),
            1..=11 if self.random.one_in(8) => self.sync(at),
            12 => self.everybody_leaves(),
            14..=17 => self.heartbeat(at),
            18 => self.leave(at),
            19..=22 => self.commit(at),
            23 => self.fetch(),
            24 => {
                let request = match self.random.below(4) {
                    0 if self.statics => GroupRequest::Delete {
                        group: GROUP.to_owned(),
                    },
                    1 => GroupRequest::Describe {
                        group: GROUP.to_owned(),
                    },
                    2 => GroupRequest::List(List::default()),
                    _ => GroupRequest::DeleteOffsets {
                        group: GROUP.to_owned(),
                        partitions: vec![TopicPartitionName {
                            topic: "t".to_owned(),
                            partition: 1,
                        }],
                    },
                };
                self.ask(Asked::Other { client: None }, request);
            }
            25..=32 => self.log(),
            33..=35 => self.time(),
            36 => self.lease(),
            37 if self.random.one_in(4) => self.election(),
            _ => {}
        }
    }

    /// What a reader of the committed log would say.
    fn replayed(&self) -> BTreeMap<(String, i32), i64> {
        let mut offsets = BTreeMap::new();
        for record in &self.world.log[..usize::try_from(self.committed).unwrap()] {
            let Ok(key) = OffsetKey::decode(&record.key) else {
                continue;
            };
            match &record.value {
                Some(value) => offsets.insert(
                    (key.topic, key.partition),
                    OffsetValue::decode(value).unwrap().offset,
                ),
                None => offsets.remove(&(key.topic, key.partition)),
            };
        }
        offsets
    }

    /// Each offset knows the record that it came from.
    fn check_records(&self) {
        let groups = &self.world.coordinator.shards[World::partition() as usize].groups;
        for (group, topic, partition, offset) in groups.committed_offsets() {
            let at = groups.record_of(group, topic, partition).unwrap();
            let record = &self.world.log[usize::try_from(at.0).unwrap()];
            let key = OffsetKey::decode(&record.key).unwrap();
            assert_eq!(
                (key.topic.as_str(), key.partition),
                (topic, partition),
                "an offset of another record"
            );
            assert_eq!(
                OffsetValue::decode(record.value.as_ref().unwrap())
                    .unwrap()
                    .offset,
                offset
            );
        }
    }

    fn serves(&self) -> bool {
        self.loaded && self.world.now < self.lease_until
    }

    fn fetch(&mut self) {
        let expected = self.serves().then(|| self.replayed());
        self.check_records();
        let request = FetchOffsets {
            group: GROUP.to_owned(),
            partitions: None,
            require_stable: false,
        };
        self.ask(
            Asked::Fetch { expected },
            GroupRequest::FetchOffsets(request),
        );
    }

    fn log(&mut self) {
        let Some(append) = self.world.waiting.keys().next().copied() else {
            return;
        };
        if self.random.one_in(10) {
            if self.random.one_in(2) {
                let effects = self.world.place(append);
                self.hear(effects);
                self.ends.push(self.world.log.len() as i64);
            }
            self.world.waiting.remove(&append);
            let failure = AppendFailure::Unavailable;
            let partition = World::partition();
            let effects = self.world.tell(Input::AppendFailed {
                partition,
                append,
                failure,
            });
            return self.hear(effects);
        }
        let effects = self.world.place(append);
        self.hear(effects);
        // High watermarks stand at ends of batches.
        self.ends.push(self.world.log.len() as i64);
        let chosen = usize::try_from(self.random.below(self.ends.len() as u64)).unwrap();
        let to = self.ends[chosen].max(self.committed);
        self.commit_to(to);
    }

    fn commit_to(&mut self, end: i64) {
        self.committed = end;
        let effects = self.world.tell(Input::Committed {
            partition: World::partition(),
            end: Offset(end),
        });
        self.hear(effects);
    }

    fn time(&mut self) {
        let to = self.world.now + Duration::from_millis(self.random.below(1_500));
        while let Some(deadline) = self
            .world
            .coordinator
            .deadline()
            .filter(|deadline| *deadline <= to)
        {
            self.world.now = self.world.now.max(deadline);
            for _ in 0..=3 * GROUP_PARTITIONS {
                let effects = self.world.tell(Input::Tick);
                self.hear(effects);
            }
            self.world.check_rest();
        }
        self.world.now = to;
    }

    fn lease(&mut self) {
        self.lease_until = self.world.now + Duration::from_millis(self.random.below(60_000));
        let until = self.lease_until;
        let effects = self.world.tell(Input::Lease { until });
        self.hear(effects);
    }

    fn describe(&mut self) -> Option<Described> {
        self.tickets += 1;
        let effects = self.world.ask(
            self.tickets,
            GroupRequest::Describe {
                group: GROUP.to_owned(),
            },
        );
        match effects.into_iter().next() {
            Some(Effect::Reply {
                reply: GroupReply::Described(described),
                ..
            }) => Some(described),
            _ => None,
        }
    }

    fn election(&mut self) {
        let decided = self.world.coordinator.stats().in_flight == 0
            && self.committed == self.world.log.len() as i64;
        let before = if self.serves() && decided {
            self.describe()
        } else {
            None
        };
        if self.random.one_in(3) {
            let effects = self.world.tell(Input::Resigned {
                partition: World::partition(),
            });
            self.hear(effects);
            assert!(
                self.asked.is_empty(),
                "somebody waits for a coordinator that has gone: {:?}",
                self.asked
            );
        }
        // What was not committed may be lost with the old leader, or not.
        if self.random.one_in(2) {
            self.world
                .log
                .truncate(usize::try_from(self.committed).unwrap());
        }
        self.committed = self.world.log.len() as i64;
        self.world.waiting.clear();
        self.ends.clear();
        self.world.epoch = self.world.epoch.next();
        let (partition, epoch) = (World::partition(), self.world.epoch);
        let effects = self.world.tell(Input::Elected { partition, epoch });
        self.hear(effects);
        let effects = self.world.load();
        self.hear(effects);
        self.loaded = true;
        self.generation = 0;
        self.leaders.clear();
        if let Some(before) = before.filter(|before| before.state == GroupState::Stable)
            && self.serves()
        {
            assert_eq!(
                self.describe(),
                Some(before),
                "a stable group came back as another one"
            );
        }
        self.fetch();
    }

    fn run(&mut self, steps: u32) {
        self.lease();
        self.election();
        for _ in 0..steps {
            self.step();
        }
        let effects = self.world.tell(Input::Resigned {
            partition: World::partition(),
        });
        self.hear(effects);
        self.time();
        self.world.now = self.world.now + PARK_MAX;
        let effects = self.world.tell(Input::Tick);
        self.hear(effects);
        assert!(self.asked.is_empty(), "never answered: {:?}", self.asked);
        let stats = self.world.coordinator.stats();
        assert_eq!(
            (stats.members_bytes, stats.offsets_bytes, stats.groups),
            (0, 0, 0),
            "something stays behind"
        );
    }
}

#[test]
fn random_members_find_one_truth() {
    let first = std::env::var("HOWDAH_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seeds = first.map_or(0..100_u64, |seed| seed..seed + 1);
    let mut seen = BTreeMap::new();
    for seed in seeds {
        // Shown only if the test fails.
        println!("HOWDAH_SEED={seed}");
        let mut play = Play::new(seed);
        play.run(1_500);
        for (kind, count) in play.seen {
            *seen.entry(kind).or_insert(0) += count;
        }
    }
    println!("{seen:?}");
    let kinds = [
        "Joined",
        "Synced",
        "Committed",
        "Offsets",
        "Deleted",
        "NotCoordinator",
        "CoordinatorNotAvailable",
        "UnknownMemberId",
        "FencedInstanceId",
        "IllegalGeneration",
        "RebalanceInProgress",
        "GroupMaxSizeReached",
        "NonEmptyGroup",
    ];
    for kind in kinds {
        let often = seen.get(kind).is_some_and(|count| *count >= 10);
        assert!(
            often || first.is_some(),
            "{kind} came hardly ever: {seen:?}"
        );
    }
}
