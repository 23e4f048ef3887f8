//! Scenarios of one voter among several: node 1 of a site of three unless the text says otherwise. Others speak by
//! `from`, the beat thread by `facts`.

use core::fmt::Write as _;

use model::Uuid;

use super::*;
use crate::scenario::{self, Words};

pub(super) struct World {
    now: Instant,
    log: SiteLog,
}

pub(super) fn incarnation(node: u32, life: u32) -> Incarnation {
    let mut bytes = [node as u8; 16];
    bytes[0] = life as u8;
    Incarnation(Uuid(bytes))
}

/// `3`, `3w` for a witness, `3.2` for the node's second incarnation.
fn voter(word: &str) -> Voter {
    let (word, witness) = word
        .strip_suffix('w')
        .map_or((word, false), |word| (word, true));
    let (node, life) = word.split_once('.').unwrap_or((word, "1"));
    let node: u32 = node.parse().unwrap();
    Voter {
        node: NodeId(node),
        incarnation: incarnation(node, life.parse().unwrap()),
        witness,
    }
}

fn voters<'a>(words: impl Iterator<Item = &'a str>) -> Voters {
    Voters::new(words.map(voter).collect()).unwrap()
}

/// `7:2` is entry 7 of term 2.
fn place(word: &str) -> (Index, Term) {
    let (index, term) = word.split_once(':').expect("index:term");
    (Index(index.parse().unwrap()), Term(term.parse().unwrap()))
}

fn time(word: &str) -> Instant {
    let number = word.strip_suffix("ms").expect("milliseconds");
    Instant(0) + Duration::from_millis(number.parse().unwrap())
}

/// `voters=1,2` is an entry that names voters, anything else stands for itself.
fn bytes_of(word: &str) -> Vec<u8> {
    match word.strip_prefix("voters:") {
        Some(all) => {
            let entry = Entry::Voters(voters(all.split('+')));
            Record::broker(entry).encode().unwrap()
        }
        None if word == "TERM" => Record::broker(Entry::Term).encode().unwrap(),
        None => word.as_bytes().to_vec(),
    }
}

impl scenario::World for World {
    fn site(words: &Words<'_>) -> Self {
        let peers: Vec<NodeId> = match words.number("nodes") {
            Some(nodes) => (1..=nodes).map(NodeId).collect(),
            None => (1..=3).map(NodeId).collect(),
        };
        let configured = match words.value("voters") {
            Some(all) => voters(all.split(',')),
            None => voters(["1", "2", "3"].into_iter()),
        };
        let me: u32 = words.number("me").unwrap_or(1);
        // Founded unless it is empty.
        let first = (!words.has("empty")).then(|| LogEntry {
            index: Index(1),
            term: Term(1),
            bytes: Record::broker(Entry::Voters(configured.clone()))
                .encode()
                .unwrap(),
        });
        let behind = (2..)
            .zip(words.list("terms"))
            .map(|(index, term)| LogEntry {
                index: Index(index),
                term: Term(term.parse().unwrap()),
                bytes: format!("old{index}").into_bytes(),
            });
        let entries: Vec<LogEntry> = first.into_iter().chain(behind).collect();
        let last = entries.last().map_or(Term(0), |entry| entry.term);
        let term = words.number("term").map_or(last, Term);
        let settings = Settings {
            node: NodeId(me),
            incarnation: incarnation(me, words.number("life").unwrap_or(1)),
            peers,
            voters: configured,
            timing: Timing {
                // So that texts can name moments.
                jitter: Duration::ZERO,
                ..if words.has("slow") {
                    Timing::SLOW
                } else {
                    Timing::LAN
                }
            },
            seed: 1,
            may_found: !words.has("data"),
            may_vote: !words.has("suspect"),
        };
        Self {
            now: Instant(0),
            log: SiteLog::new(
                settings,
                Recovered {
                    hard_state: HardState {
                        term,
                        voted_for: words.number("voted").map(NodeId),
                    },
                    snapshot: (Index(0), Term(0)),
                    voters: None,
                    entries,
                },
            ),
        }
    }

    fn command(&mut self, verb: &str, words: &Words<'_>) -> String {
        let number = || words.first().parse().unwrap();
        if verb == "fill" {
            return self.fill(words.number("count").unwrap());
        }
        let input = match verb {
            "at" => {
                self.now = time(words.first());
                return String::new();
            }
            "facts" => {
                self.facts(words);
                return String::new();
            }
            "deadline" => {
                let due = self
                    .log
                    .deadline()
                    .map(|at| at.since(Instant(0)).as_millis());
                return format!("deadline {due:?}\n");
            }
            "office" => return format!("{}\n", self.office()),
            "nodes" => return self.nodes(),
            "start" => Input::Start,
            "tick" => Input::Tick,
            "slept" => Input::Slept,
            "release" => Input::Release,
            "promote" => Input::Promote,
            "hard-state-durable" => Input::HardStateDurable {
                term: Term(number()),
            },
            "durable" => Input::Durable {
                index: Index(number()),
            },
            "snapshot-durable" => Input::SnapshotDurable {
                index: Index(number()),
            },
            "encoded" => Input::Encoded {
                index: Index(number()),
                bytes: vec![7; words.number("bytes").unwrap()],
            },
            "propose" => Input::Propose {
                ticket: Ticket(words.number("ticket").unwrap()),
                bytes: match words.number("zeros") {
                    Some(zeros) => vec![0; zeros],
                    None => bytes_of(words.first()),
                },
            },
            "from" => Input::Message(Box::new(message(words))),
            other => panic!("no command {other:?}"),
        };
        self.tell(input)
    }
}

impl World {
    pub(super) fn tell(&mut self, input: Input) -> String {
        let mut out = Outbox::new();
        self.log.step(self.now, input, &mut out);
        let mut said = String::new();
        for effect in out.drain() {
            if let Effect::Send { message, .. } = &effect {
                assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&**message));
            }
            writeln!(said, "{}", text(&effect)).unwrap();
        }
        said
    }

    /// So many entries, each durable here and at node 2 at once; says only what is out of the ordinary.
    fn fill(&mut self, count: u64) -> String {
        let mut said = String::new();
        for ticket in 0..count {
            let mut all = self.tell(Input::Propose {
                ticket: Ticket(ticket),
                bytes: vec![0; 3],
            });
            let index = self.log.log.last().0;
            all += &self.tell(Input::Durable { index });
            all += &self.tell(Input::Message(Box::new(Message {
                from: NodeId(2),
                incarnation: incarnation(2, 1),
                to: Incarnation::default(),
                term: self.log.term(),
                body: Body::Acked { durable: index },
            })));
            let ordinary = ["append", "apply", "to", "orders"];
            for line in all
                .lines()
                .filter(|line| !ordinary.iter().any(|word| line.starts_with(word)))
            {
                writeln!(said, "{line}").unwrap();
            }
        }
        said
    }

    /// What the beat thread would know: all of it obeyed the last orders.
    fn facts(&mut self, words: &Words<'_>) {
        let mut facts = self.log.facts;
        facts.obeyed = words.number("obeyed").unwrap_or(self.log.orders.version);
        let term = |word: &str| Term(word.parse().unwrap());
        let timed = |word: &str| {
            let (at, until) = word.split_once(':').expect("term:time");
            (term(at), time(until))
        };
        if let Some(word) = words.value("promise") {
            facts.promise = timed(word);
        }
        if let Some(word) = words.value("office") {
            facts.office = timed(word);
        }
        if let Some(word) = words.value("granted") {
            facts.granted = timed(word);
        }
        if let Some(word) = words.value("commit") {
            let (at, index) = word.split_once(':').expect("term:index");
            facts.commit = (term(at), Index(index.parse().unwrap()));
        }
        // `seen=2.1:100ms`: heard then.
        for word in words.list("seen") {
            let (who, at) = word.split_once(':').expect("node:time");
            let who = voter(who);
            let seat = self
                .log
                .peers
                .iter()
                .position(|peer| *peer == who.node)
                .unwrap();
            let before = facts.seats[seat];
            let heard = time(at);
            facts.seats[seat] = Seen {
                incarnation: who.incarnation,
                heard,
                dead_from: heard + Timing::passed_everywhere(Timing::LAN.lease),
                returned: if heard >= before.dead_from {
                    heard
                } else {
                    before.returned
                },
                ..before
            };
        }
        self.log.hear(facts);
    }

    fn office(&self) -> String {
        self.log
            .office(self.now)
            .map_or("no office".to_owned(), |it| {
                let ms = |at: Instant| at.since(Instant(0)).as_millis();
                format!(
                    "office term={} until={} moves from {}",
                    it.term.0,
                    ms(it.until),
                    ms(it.moves_from)
                )
            })
    }

    fn nodes(&self) -> String {
        self.log.nodes().fold(String::new(), |mut said, seen| {
            let dead = seen.dead_from.since(Instant(0)).as_millis();
            let life = seen.incarnation.map_or(0, |it| it.0.0[0]);
            writeln!(said, "node {} life {life} dead from {dead}", seen.node.0).unwrap();
            said
        })
    }

    pub(super) fn role(&self) -> String {
        let role = match &self.log.role {
            Role::Idle => "idle",
            Role::Founding { .. } => "founds",
            Role::Follower => "follows",
            Role::PreCandidate { .. } => "asks",
            Role::Candidate { .. } => "stands",
            Role::Elected => "elected",
            Role::Controller => "controls",
            Role::Halted => "halted",
        };
        format!("{role} {}", self.log.term().0)
    }
}

fn message(words: &Words<'_>) -> Message {
    let kind = words.bare().nth(1).expect("what it says");
    let from = voter(words.first());
    let round = || words.number("round").unwrap();
    let at = |key| place(words.value(key).unwrap());
    let body = match kind {
        "probe" => Body::Probe { round: round() },
        "probed" => Body::Probed {
            round: round(),
            empty: words.has("empty"),
        },
        "vote" | "pre-vote" => Body::Vote {
            pre: kind == "pre-vote",
            last: at("last"),
        },
        "voted" | "pre-voted" => Body::Voted {
            pre: kind == "pre-voted",
            granted: !words.has("no"),
            early: words.has("early"),
        },
        "append" => {
            let all = words.list("entries").map(|word| {
                let (term, bytes) = word.split_once(':').expect("term:bytes");
                Appended {
                    term: Term(term.parse().unwrap()),
                    bytes: bytes_of(bytes),
                }
            });
            Body::Append {
                prev: at("prev"),
                entries: all.collect(),
                commit: Index(words.number("commit").unwrap_or_default()),
            }
        }
        "acked" => Body::Acked {
            durable: Index(words.number("durable").unwrap()),
        },
        "missed" => Body::Missed { hint: at("hint") },
        "chunk" => Body::Chunk {
            last: at("last"),
            voters: voters(words.list("voters")),
            total: words.number("total").unwrap(),
            offset: words.number("offset").unwrap(),
            bytes: vec![7; words.number("bytes").unwrap()],
        },
        "taken" => Body::Taken {
            last: Index(words.number("last").unwrap()),
            offset: words.number("offset").unwrap(),
        },
        "release" => Body::Release {
            successor: NodeId(words.number("successor").unwrap()),
        },
        other => panic!("nobody says {other:?}"),
    };
    Message {
        from: from.node,
        incarnation: from.incarnation,
        to: words
            .value("to")
            .map_or(Incarnation::default(), |word| voter(word).incarnation),
        term: Term(words.number("term").unwrap_or_default()),
        body,
    }
}

/// Entries that name voters as such.
fn entry_text(bytes: &[u8]) -> String {
    match log::voters_of(bytes) {
        Some(voters) => {
            let all: Vec<String> = voters.iter().map(voter_text).collect();
            format!("voters:{}", all.join("+"))
        }
        None => bytes_text(bytes),
    }
}

fn voter_text(voter: &Voter) -> String {
    let life = voter.incarnation.0.0[0];
    let life = if life == 1 {
        String::new()
    } else {
        format!(".{life}")
    };
    format!(
        "{}{life}{}",
        voter.node.0,
        if voter.witness { "w" } else { "" }
    )
}

fn at_text(place: &(Index, Term)) -> String {
    format!("{}:{}", place.0.0, place.1.0)
}

pub(super) fn text(effect: &Effect) -> String {
    let ms = |at: &Instant| at.since(Instant(0)).as_millis();
    match effect {
        Effect::Send { to, message } => format!("to {} {}", to.0, body_text(message)),
        Effect::Append(entry) => {
            format!(
                "append {} term={} {}",
                entry.index.0,
                entry.term.0,
                entry_text(&entry.bytes)
            )
        }
        Effect::Apply {
            index,
            bytes,
            ticket,
            ..
        } => {
            let ticket = ticket.map_or_else(String::new, |ticket| format!(" ticket={}", ticket.0));
            format!("apply {} {}{ticket}", index.0, entry_text(bytes))
        }
        Effect::Orders(orders) => {
            let voters = orders.voters.iter().flatten().count();
            let sleeps = if orders.sleeps > 0 { " slept" } else { "" };
            format!(
                "orders term={} {:?} commit={} {voters} vote{sleeps}",
                orders.term.0, orders.office, orders.commit.0
            )
        }
        Effect::Encode { index } => format!("encode {}", index.0),
        Effect::Install { index, term, bytes } => {
            format!("install {}:{} {} B", index.0, term.0, bytes.len())
        }
        Effect::Controller { term, moves_from } => {
            format!("controller term={} moves from {}", term.0, ms(moves_from))
        }
        Effect::Resigned { term } => format!("resigned term={}", term.0),
        Effect::LeaseUntil { until } => format!("lease until {}", ms(until)),
        Effect::Halt(why) => format!("halt {why:?}"),
        other => super::text(other),
    }
}

fn body_text(message: &Message) -> String {
    let term = message.term.0;
    match &message.body {
        Body::Probe { round } => format!("probe round={round}"),
        Body::Probed { round, empty } => format!("probed round={round} empty={empty}"),
        Body::Vote { pre, last } => {
            let pre = if *pre { "pre-" } else { "" };
            format!("{pre}vote term={term} last={}", at_text(last))
        }
        Body::Voted {
            pre,
            granted,
            early,
        } => {
            let (pre, early) = (
                if *pre { "pre-" } else { "" },
                if *early { " early" } else { "" },
            );
            format!("{pre}voted term={term} {granted}{early}")
        }
        Body::Append {
            prev,
            entries,
            commit,
        } => {
            let all: Vec<String> = entries
                .iter()
                .map(|entry| format!("{}:{}", entry.term.0, entry_text(&entry.bytes)))
                .collect();
            format!(
                "append term={term} prev={} [{}] commit={}",
                at_text(prev),
                all.join(" "),
                commit.0
            )
        }
        Body::Acked { durable } => format!("acked term={term} durable={}", durable.0),
        Body::Missed { hint } => format!("missed term={term} hint={}", at_text(hint)),
        Body::Chunk {
            last,
            total,
            offset,
            bytes,
            ..
        } => {
            format!(
                "chunk term={term} last={} {offset}+{} of {total}",
                at_text(last),
                bytes.len()
            )
        }
        Body::Taken { last, offset } => format!("taken last={} offset={offset}", last.0),
        Body::Release { successor } => format!("release term={term} successor={}", successor.0),
    }
}
