//! The partition's transition table: each state under each fact, what is answered, and where the partition is then.

use core::fmt::Write as _;

use super::text::command;
use super::*;

/// How a replica of `a,b` with one committed batch comes into each state; ticket 1 waits where one may.
const STATES: [(&str, &[&str]); 7] = [
    ("follows nobody", &["site min=2 end=1 hw=1 epochs=1@0"]),
    (
        "follows b",
        &[
            "site min=2 end=1 hw=1 epochs=1@0",
            "follow epoch=2 leader=b",
            "flush",
        ],
    ),
    (
        "is to lead",
        &[
            "site min=2 end=1 hw=1 epochs=1@0",
            "lease 1h",
            "lead epoch=2 isr=a,b",
            "produce ticket=1 acks=all",
        ],
    ),
    (
        "leads",
        &[
            "site min=2 end=1 hw=1 epochs=1@0",
            "leader epoch=2 isr=a,b",
            "produce ticket=1 acks=all pid=9 seq=0",
        ],
    ),
    (
        "leads, lease lapsed",
        &[
            "site min=2 end=1 hw=1 epochs=1@0",
            "leader epoch=2 isr=a,b",
            "produce ticket=1 acks=all pid=9 seq=0",
            "lease 0ms",
        ],
    ),
    (
        "leads below min.insync",
        &[
            "site min=2 end=1 hw=1 epochs=1@0",
            "leader epoch=2 isr=a",
            "produce ticket=1 acks=1 pid=9 seq=0",
        ],
    ),
    (
        "disk failed",
        &[
            "site min=2 end=1 hw=1 epochs=1@0",
            "leader epoch=2 isr=a,b",
            "disk-failed",
        ],
    ),
];

const FACTS: [(&str, &str); 26] = [
    ("acks=1 is asked", "produce ticket=9"),
    ("acks=all is asked", "produce ticket=9 acks=all"),
    ("a retry comes", "produce ticket=9 pid=9 seq=0"),
    (
        "the coordinator writes",
        "produce ticket=9 acks=all coordinator",
    ),
    ("records are to be deleted", "delete ticket=9 offset=1"),
    ("retention asks", "retain offset=1"),
    ("a consumer fetches", "fetch offset=0"),
    ("the end is asked for", "list latest"),
    ("the disk flushes", "flush"),
    ("b reports all", "ack b epoch=2 durable=2"),
    (
        "the disk flushes, b reports",
        "flush;ack b epoch=2 durable=2",
    ),
    ("elected anew", "lead epoch=3 isr=a,b"),
    ("elected anew, flushed", "lead epoch=3 isr=a,b;flush"),
    ("elected in the same epoch", "lead epoch=2 isr=a,b"),
    ("b is elected", "follow epoch=3 leader=b"),
    ("b is named in the same epoch", "follow epoch=2 leader=b"),
    ("b is named in an old epoch", "follow epoch=0 leader=b"),
    ("the ISR shrinks", "isr committed=a"),
    ("the ISR grows", "isr committed=a,b,c"),
    ("the lease is granted", "lease 1h"),
    ("the lease is taken", "lease 0ms"),
    ("the disk fails", "disk-failed"),
    ("the quota is used up", "quota full"),
    ("min.insync.replicas becomes 1", "settings min=1"),
    ("1.5 s pass", "at 1500ms"),
    ("2 s pass", "at 2s"),
];

fn table() -> String {
    let mut table = String::new();
    for (state, way) in STATES {
        writeln!(table, "{state}").unwrap();
        for (name, facts) in FACTS {
            let (mut world, mut said) = (World::empty(SETTINGS), String::new());
            for line in way {
                match line.strip_prefix("site") {
                    Some(rest) => world = text::site(&Words(rest.split_whitespace().collect())),
                    None => command(&mut world, line.split_whitespace().collect(), &mut said),
                }
            }
            said.clear();
            facts
                .split(';')
                .for_each(|line| command(&mut world, line.split_whitespace().collect(), &mut said));
            let said: Vec<&str> = said.lines().collect();
            let said = match said[..] {
                [] => "-".to_owned(),
                _ => said.join(", "),
            };
            writeln!(table, "  {name}: {said} -> {}", name_of(&world)).unwrap();
        }
    }
    table
}

fn name_of(world: &World) -> String {
    let machine = &world.machine;
    let role = match machine.role {
        _ if !machine.disk_up => "disk failed".to_owned(),
        Role::Following { leader: None } => "follows nobody".to_owned(),
        Role::Following { leader: Some(node) } => format!("follows {}", node.0),
        Role::Starting { .. } => "is to lead".to_owned(),
        Role::Leading { .. } => "leads".to_owned(),
    };
    let waits = machine.waiting.len() + machine.parked.len() + machine.deletions.len();
    format!("{role} {}, {waits} wait", machine.epoch.0)
}

#[test]
fn the_table_is_as_it_was() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/partition/tests/transitions.txt"
    );
    let table = table();
    if std::env::var_os("HOWDAH_UPDATE").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), table);
}
