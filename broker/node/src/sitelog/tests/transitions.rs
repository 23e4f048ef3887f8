//! What each fact makes of a voter in each of its states, as one table.

use std::fmt::Write as _;

use super::peers::World;
use crate::scenario::{self, World as _};

/// How a state is come to, from a site of three whose log ends with entry 2 of term 2.
const STATES: [(&str, &str); 9] = [
    ("bound by its start", "start"),
    (
        "free",
        "start; at 440ms; from 3 append term=2 prev=2:2 commit=2; at 895ms",
    ),
    ("asks", "start; at 450ms; tick"),
    ("stands", "start; at 450ms; tick; from 2 pre-voted term=3"),
    (
        "owes a vote",
        "start; at 449ms; tick; at 450ms; from 2 vote term=3 last=2:2",
    ),
    (
        "follows",
        "start; at 450ms; from 3 append term=2 prev=2:2 commit=2",
    ),
    (
        "is elected",
        "start; at 450ms; tick; from 2 pre-voted term=3; hard-state-durable 3; from 2 voted term=3",
    ),
    (
        "controls",
        "start; at 450ms; tick; from 2 pre-voted term=3; hard-state-durable 3; from 2 voted term=3; durable 3; \
         facts office=3:850ms; from 2 acked term=3 durable=3",
    ),
    (
        "receives a snapshot",
        "start; from 3 chunk term=2 last=9:2 voters=1,2,3 total=7 offset=0 bytes=7",
    ),
];

const FACTS: [(&str, &str); 20] = [
    ("10 ms pass", "at 905ms; tick"),
    ("it sleeps", "slept"),
    ("the term is durable", "hard-state-durable 3"),
    ("its last entry is durable", "durable 2"),
    ("an entry is proposed", "propose ticket=1 a"),
    ("asked before a vote", "from 2 pre-vote term=4 last=2:2"),
    ("asked for a vote", "from 2 vote term=4 last=2:2"),
    ("asked in the same term", "from 3 vote term=3 last=2:2"),
    ("asked by a shorter log", "from 2 vote term=4 last=1:1"),
    ("would be elected", "from 3 pre-voted term=3"),
    ("is elected", "from 3 voted term=3"),
    ("is refused in a later term", "from 3 voted term=5 no"),
    (
        "this term's entries come",
        "from 3 append term=2 prev=2:2 entries=2:a commit=2",
    ),
    (
        "a later term's entries come",
        "from 2 append term=4 prev=2:2 entries=4:TERM commit=2",
    ),
    (
        "an older term's entries come",
        "from 2 append term=1 prev=1:1 commit=1",
    ),
    (
        "entries come that don't fit",
        "from 2 append term=4 prev=7:3 entries=4:TERM commit=2",
    ),
    ("an acknowledgement comes", "from 2 acked term=3 durable=3"),
    (
        "the controller gives up",
        "from 3 release term=2 successor=1",
    ),
    ("it shall give up", "release"),
    ("it is promoted", "promote"),
];

fn play(world: &mut World, commands: &str) -> String {
    let mut said = String::new();
    for command in commands.split(';') {
        let mut words = command.split_whitespace();
        let verb = words.next().unwrap();
        said += &world.command(verb, &scenario::Words::new(words.collect()));
    }
    said
}

#[test]
fn every_fact_in_every_state() {
    let mut table = String::new();
    for (state, way) in STATES {
        writeln!(table, "{state}").unwrap();
        for (fact, commands) in FACTS {
            let mut world = World::site(&scenario::Words::new(vec!["terms=2"]));
            play(&mut world, way);
            let said = play(&mut world, commands);
            let lines: Vec<&str> = said
                .lines()
                .filter(|line| !line.starts_with("orders"))
                .collect();
            let said = if lines.is_empty() {
                "-".to_owned()
            } else {
                lines.join(", ")
            };
            writeln!(table, "  {fact}: {said} -> {}", world.role()).unwrap();
        }
    }
    let path = format!(
        "{}/src/sitelog/tests/transitions.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("HOWDAH_UPDATE").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        table, expected,
        "run with HOWDAH_UPDATE=1 and read the difference"
    );
}
