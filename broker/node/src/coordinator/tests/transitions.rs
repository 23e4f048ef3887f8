//! The classic group's transition table: each state under each request, what is answered, and where the group is then.

use super::*;

/// How a group of two members, of which `a#1` leads and `i#2` is static, comes into each state.
const STATES: [(&str, &[&str]); 4] = [
    (
        "Empty",
        &[
            "join ticket=1 v=3 client=a",
            "leave ticket=2 members=a#1",
            "store",
        ],
    ),
    (
        "PreparingRebalance",
        &[
            "join ticket=1 v=3 client=a",
            "join ticket=2 v=3 client=b instance=i",
            "join ticket=3 v=3 client=a member=a#1",
            "sync ticket=4 gen=2 member=a#1",
            "sync ticket=4 gen=2 member=i#2",
            "store",
            "join ticket=5 v=3 client=c",
        ],
    ),
    (
        "CompletingRebalance",
        &[
            "join ticket=1 v=3 client=a",
            "join ticket=2 v=3 client=b instance=i",
            "join ticket=3 v=3 client=a member=a#1",
        ],
    ),
    (
        "Stable",
        &[
            "join ticket=1 v=3 client=a",
            "join ticket=2 v=3 client=b instance=i",
            "join ticket=3 v=3 client=a member=a#1",
            "sync ticket=4 gen=2 member=a#1",
            "sync ticket=5 gen=2 member=i#2",
            "store",
        ],
    ),
];

const REQUESTS: [(&str, &str); 23] = [
    ("a newcomer joins", "join ticket=9 v=3 client=n"),
    ("a newcomer asks for an id", "join ticket=9 v=4 client=n"),
    ("a stranger joins", "join ticket=9 member=q"),
    (
        "one of another type joins",
        "join ticket=9 v=3 type=connect protocols=rr",
    ),
    ("the leader joins again", "join ticket=9 member=a#1"),
    (
        "a member joins again",
        "join ticket=9 member=i#2 instance=i",
    ),
    (
        "a member joins changed",
        "join ticket=9 member=i#2 instance=i protocols=range:t",
    ),
    (
        "a static member comes back",
        "join ticket=9 client=b instance=i",
    ),
    (
        "the leader syncs",
        "sync ticket=9 gen=2 member=a#1 assign=a#1:x,i#2:y",
    ),
    (
        "a member syncs",
        "sync ticket=9 gen=2 member=i#2 instance=i",
    ),
    ("a stranger syncs", "sync ticket=9 gen=2 member=q"),
    (
        "a member of the past syncs",
        "sync ticket=9 gen=1 member=i#2",
    ),
    ("a member's heart beats", "beat ticket=9 gen=2 member=i#2"),
    (
        "a heart beats in the past",
        "beat ticket=9 gen=1 member=i#2",
    ),
    (
        "a fenced heart beats",
        "beat ticket=9 gen=2 member=a#1 instance=i",
    ),
    ("the leader leaves", "leave ticket=9 members=a#1"),
    ("a stranger leaves", "leave ticket=9 members=q"),
    ("a member commits", "commit ticket=9 gen=2 member=i#2 t-0:1"),
    ("somebody outside commits", "commit ticket=9 t-0:1"),
    ("somebody deletes it", "delete ticket=9"),
    ("somebody deletes offsets", "delete-offsets ticket=9 t-0"),
    ("a session's time passes", "at 10s"),
    ("the rebalance timeout passes", "at 60s"),
];

fn table() -> String {
    let mut table = String::new();
    for (state, way) in STATES {
        writeln!(table, "{state}").unwrap();
        for (name, request) in REQUESTS {
            let mut world = site(&Words(Vec::new()));
            way.iter().for_each(|line| world.command(line));
            world.said.clear();
            world.command(request);
            let mut answers: Vec<&str> = world
                .said
                .lines()
                .filter(|line| line.starts_with("reply"))
                .collect();
            answers.sort_unstable();
            let answers: Vec<String> = answers.into_iter().map(brief).collect();
            let written = if world.waiting.is_empty() {
                ""
            } else {
                " (written)"
            };
            let answers = if answers.is_empty() {
                "-".to_owned()
            } else {
                answers.join(", ")
            };
            world.said.clear();
            world.command("describe ticket=99");
            let then = world
                .said
                .split_whitespace()
                .nth(3)
                .unwrap()
                .replace("GroupIdNotFound", "Dead");
            writeln!(table, "  {name}: {answers}{written} -> {then}").unwrap();
        }
    }
    table
}

/// "reply 9 joined member=…" without what every member is told.
fn brief(line: &str) -> String {
    let mut words = line.split_whitespace().skip(1);
    let ticket = words.next().unwrap();
    let kind = words.next().unwrap();
    let rest: Vec<&str> = match kind {
        "refused" | "left" | "committed" | "offsets-deleted" => words.collect(),
        "joined" => words.filter(|word| word.starts_with("gen=")).collect(),
        _ => Vec::new(),
    };
    format!("{ticket} {kind} {}", rest.join(" "))
        .trim_end()
        .to_owned()
}

#[test]
fn the_table_is_as_it_was() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/coordinator/tests/transitions.txt"
    );
    let table = table();
    if std::env::var_os("HOWDAH_UPDATE").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), table);
}
