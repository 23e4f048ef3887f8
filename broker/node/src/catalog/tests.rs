//! Scenarios of the catalog as texts beside this file, and what must hold for any sequence of entries.
#![allow(clippy::unwrap_used)]

use core::fmt::Write as _;

use model::Uuid;

use super::*;
use crate::scenario::{self, Words};
use crate::sitelog::{Configs, Disk, Reassign, Replica};

mod properties;

const MIB: u64 = 1 << 20;

/// The classes of extents, as the store has them.
fn extent_for(message_bytes: u32) -> u64 {
    let bytes = u64::from(message_bytes);
    match bytes {
        _ if bytes <= MIB - 8 * 1024 => MIB,
        _ if bytes <= 8 * MIB - 8 * 1024 => 8 * MIB,
        _ => 64 * MIB,
    }
}

fn rules() -> Rules {
    Rules {
        partitions: 2,
        replication: 1,
        min_insync: 1,
        retention_ms: 604_800_000,
        retention_bytes: None,
        refuse_when_full: false,
        create_topics: true,
        replicas_max: 2_000,
        message_bytes_max: 8 << 20,
        message_bytes: 1_048_588,
        extent_for,
        share_bytes_min: 8 * MIB,
        share_part: 8,
    }
}

/// A disk is named by a letter.
fn disk(name: &str) -> DiskUuid {
    DiskUuid(Uuid([name.bytes().next().unwrap(); 16]))
}

fn disk_name(disk: DiskUuid) -> char {
    char::from(disk.0.0[0])
}

fn topic_id(number: u8) -> TopicId {
    let mut bytes = [0; 16];
    bytes[0] = number;
    TopicId(Uuid(bytes))
}

/// `a:100MiB,b:64MiB`
fn disks(words: &Words<'_>) -> Vec<Disk> {
    words
        .list("disks")
        .map(|word| {
            let (name, size) = word.split_once(':').unwrap();
            let mib: u64 = size.strip_suffix("MiB").unwrap().parse().unwrap();
            Disk {
                uuid: disk(name),
                bytes: mib * MIB,
            }
        })
        .collect()
}

/// Words of configs have a dot in their name; `-` stands for null.
fn configs(words: &Words<'_>) -> Vec<(String, Option<String>)> {
    words
        .all()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| name.contains('.') || *name == "preallocate" || *name == "bogus")
        .map(|(name, value)| (name.to_owned(), (value != "-").then(|| value.to_owned())))
        .collect()
}

struct World {
    catalog: Catalog,
    topics: u8,
}

impl World {
    fn next_id(&mut self) -> TopicId {
        self.topics += 1;
        topic_id(self.topics)
    }

    fn name(&self, id: TopicId) -> String {
        self.catalog
            .topic(id)
            .map_or_else(|| format!("#{}", id.0.0[0]), |topic| topic.name.clone())
    }

    fn entry(&mut self, entry: Entry, said: &mut String) {
        // As it is read back from the log.
        let bytes = Record::broker(entry).encode().unwrap();
        let record = Record::decode(&bytes).unwrap();
        self.say_entry(record.entry.as_ref().unwrap(), said);
        let mut out = Outbox::new();
        self.catalog.apply(&record, &mut out);
        self.say_effects(&mut out, said);
    }

    fn say_entry(&self, entry: &Entry, said: &mut String) {
        let replicas = |replicas: &[Replica]| {
            let texts: Vec<_> = replicas
                .iter()
                .map(|replica| format!("{}{}", replica.node.0, disk_name(replica.disk)))
                .collect();
            texts.join("+")
        };
        let text = match entry {
            Entry::Site { .. } => "SITE".to_owned(),
            Entry::Node(node) => format!("NODE {} disks={}", node.id.0, node.disks.len()),
            Entry::Topic(topic) => {
                let places: Vec<_> = topic
                    .partitions
                    .iter()
                    .map(|places| replicas(places))
                    .collect();
                let configs = configs_text(&topic.configs);
                format!(
                    "TOPIC {} share={} on {}{configs}",
                    topic.name,
                    mib(topic.share),
                    places.join(" ")
                )
            }
            Entry::Partition(topics) => {
                let mut text = "PARTITION".to_owned();
                for (topic, rows) in topics {
                    for row in rows {
                        let leader = row
                            .leader
                            .map_or_else(|| "none".to_owned(), |leader| leader.0.to_string());
                        let places = replicas(&row.replicas);
                        let (topic, partition, epoch, ver) = (
                            self.name(*topic),
                            row.partition.0,
                            row.epoch.0,
                            row.part_ver,
                        );
                        write!(
                            text,
                            " {topic}-{partition}(leader={leader} epoch={epoch} ver={ver} {places})"
                        )
                        .unwrap();
                    }
                }
                text
            }
            Entry::TopicDel { topic } => format!("TOPIC_DEL {}", self.name(*topic)),
            Entry::Config {
                topic,
                configs,
                share,
            } => {
                format!(
                    "CONFIG {} share={}{}",
                    self.name(*topic),
                    mib(*share),
                    configs_text(configs)
                )
            }
            Entry::Pids { node, first } => format!("PIDS node={} first={}", node.0, first.0),
            other => format!("{other:?}"),
        };
        writeln!(said, "{text}").unwrap();
    }

    fn say_effects(&self, out: &mut Outbox<Effect>, said: &mut String) {
        for effect in out.drain() {
            let text = match effect {
                Effect::Replica {
                    topic,
                    partition,
                    replica,
                } => {
                    format!(
                        "replica {}-{} on {}",
                        self.name(topic),
                        partition.0,
                        disk_name(replica.disk)
                    )
                }
                Effect::Lead {
                    topic,
                    partition,
                    epoch,
                    isr,
                    ..
                } => {
                    format!(
                        "lead {}-{} epoch={} isr={}",
                        self.name(topic),
                        partition.0,
                        epoch.0,
                        members(&isr)
                    )
                }
                Effect::Follow {
                    topic,
                    partition,
                    epoch,
                    leader,
                    ..
                } => {
                    let leader = leader.map(|leader| leader.0);
                    format!(
                        "follow {}-{} epoch={} leader={leader:?}",
                        self.name(topic),
                        partition.0,
                        epoch.0
                    )
                }
                Effect::Isr {
                    topic,
                    partition,
                    isr,
                    ..
                } => {
                    format!("isr {}-{} {}", self.name(topic), partition.0, members(&isr))
                }
                Effect::Configured { topic } => {
                    let settings = self.catalog.settings(topic).unwrap();
                    format!(
                        "configured {} quota={}",
                        self.name(topic),
                        mib(settings.quota_bytes)
                    )
                }
                Effect::Left { topic, partition } => {
                    format!("left {}-{}", self.name(topic), partition.0)
                }
                Effect::Deleted {
                    name, partitions, ..
                } => {
                    let partitions: Vec<_> =
                        partitions.iter().map(|partition| partition.0).collect();
                    format!("deleted {name} {partitions:?}")
                }
                Effect::Pids { first } => format!("pids from {}", first.0),
            };
            writeln!(said, "  {text}").unwrap();
        }
    }

    fn outcome(&mut self, planned: Result<Option<Entry>, Fault>, dry: bool, said: &mut String) {
        match planned {
            Ok(None) => writeln!(said, "nothing to do").unwrap(),
            Ok(Some(entry)) if dry => self.say_entry(&entry, said),
            Ok(Some(entry)) => self.entry(entry, said),
            Err(fault) => {
                let kind = format!("{fault:?}");
                let kind = kind.split('(').next().unwrap();
                writeln!(said, "{kind}: {fault}").unwrap();
            }
        }
    }
}

fn members(isr: &[Member]) -> String {
    let texts: Vec<_> = isr
        .iter()
        .map(|member| format!("{}{}", member.node.0, disk_name(member.disk)))
        .collect();
    texts.join("+")
}

fn mib(bytes: u64) -> String {
    match bytes % MIB {
        0 => format!("{}MiB", bytes / MIB),
        _ => bytes.to_string(),
    }
}

fn configs_text(configs: &Configs) -> String {
    configs
        .iter()
        .map(|(name, value)| format!(" {name}={value}"))
        .collect()
}

impl scenario::World for World {
    fn site(words: &Words<'_>) -> Self {
        let mut rules = rules();
        rules.create_topics = !words.has("no-create");
        rules.retention_bytes = words.number("quota").map(|mib: u64| mib * MIB);
        rules.replicas_max = words.number("replicas-max").unwrap_or(rules.replicas_max);
        rules.min_insync = words.number("min-insync").unwrap_or(rules.min_insync);
        let mut world = Self {
            catalog: Catalog::new(NodeId(1), rules),
            topics: 0,
        };
        let entry = world
            .catalog
            .register(Incarnation(Uuid([1; 16])), &disks(words))
            .unwrap();
        world
            .catalog
            .apply(&Record::broker(entry), &mut Outbox::new());
        world
    }

    fn command(&mut self, verb: &str, words: &Words<'_>) -> String {
        let mut said = String::new();
        let dry = words.has("dry");
        match verb {
            "create" => {
                let assignment = words
                    .list("assignment")
                    .map(|nodes| {
                        nodes
                            .split('+')
                            .map(|node| NodeId(node.parse().unwrap()))
                            .collect()
                    })
                    .collect();
                let asked = CreateTopic {
                    name: words
                        .bare()
                        .find(|word| *word != "dry")
                        .unwrap_or_default()
                        .replace("LONG", &"x".repeat(250)),
                    partitions: words.number("partitions"),
                    replication: words.number("replication"),
                    assignment,
                    configs: configs(words),
                };
                let id = self.next_id();
                let planned = self.catalog.create_topic(&asked, id);
                self.outcome(planned.map(|planned| Some(planned.entry)), dry, &mut said);
            }
            "delete" => {
                let id = self.catalog.id_of(words.first()).unwrap_or_default();
                let planned = self.catalog.delete_topic(id);
                self.outcome(planned.map(Some), dry, &mut said);
            }
            "grow" => {
                let planned = self.catalog.create_partitions(
                    words.first(),
                    words.number("to").unwrap(),
                    None,
                );
                self.outcome(planned.map(Some), dry, &mut said);
            }
            "set" => {
                let planned = self.catalog.set_configs(words.first(), &configs(words));
                self.outcome(planned.map(Some), dry, &mut said);
            }
            "alter" => {
                let change = |(change, value): (&str, &str)| match change {
                    "set" => Alter::Set(value.to_owned()),
                    "delete" => Alter::Delete,
                    "append" => Alter::Append(value.to_owned()),
                    "subtract" => Alter::Subtract(value.to_owned()),
                    other => panic!("no change {other:?}"),
                };
                let changes: Vec<_> = configs(words)
                    .into_iter()
                    .map(|(name, value)| {
                        let value = value.unwrap();
                        (name, change(value.split_once(':').unwrap_or((&value, ""))))
                    })
                    .collect();
                let planned = self.catalog.alter_configs(words.first(), &changes);
                self.outcome(planned.map(Some), dry, &mut said);
            }
            "declare" => {
                let declared = Declared {
                    name: words.first().to_owned(),
                    partitions: words.number("partitions").unwrap(),
                    replication: 1,
                    configs: configs(words)
                        .into_iter()
                        .map(|(name, value)| (name, value.unwrap()))
                        .collect(),
                    share: words.number("share").map(|mib: u64| mib * MIB),
                };
                let id = self.next_id();
                let planned = self.catalog.reconcile(&declared, id);
                self.outcome(planned, dry, &mut said);
            }
            "offsets" => {
                let id = self.next_id();
                let planned = self.catalog.offsets_topic(id);
                self.outcome(planned, dry, &mut said);
            }
            "found" => {
                let planned = self.catalog.found(SiteUuid(Uuid([9; 16])));
                self.outcome(Ok(planned), dry, &mut said);
            }
            "register" => {
                let incarnation = Incarnation(Uuid([words.number("inc").unwrap_or(1); 16]));
                let planned = self.catalog.register(incarnation, &disks(words));
                self.outcome(Ok(planned), dry, &mut said);
            }
            // Another node of the site.
            "node" => {
                let node = Node {
                    id: NodeId(words.first().parse().unwrap()),
                    incarnation: Incarnation(Uuid([words.number("inc").unwrap_or(7); 16])),
                    disks: disks(words),
                    versions: starts::VERSIONS,
                    public_key: Vec::new(),
                };
                self.entry(Entry::Node(node), &mut said);
            }
            "elect" => {
                for entry in self.catalog.elections(words.value("disk").map(disk)) {
                    self.entry(entry, &mut said);
                }
            }
            "pids" => {
                let entry = self.catalog.producer_ids();
                self.entry(entry, &mut said);
            }
            // A block as any node may have drawn it.
            "block" => {
                let first = ProducerId(words.number("first").unwrap());
                self.entry(
                    Entry::Pids {
                        node: NodeId(2),
                        first,
                    },
                    &mut said,
                );
            }
            "row" => {
                let (topic, partition) = words.first().split_once('-').unwrap();
                let row = PartitionRow {
                    partition: PartitionIndex(partition.parse().unwrap()),
                    replicas: words
                        .list("replicas")
                        .map(|word| Replica {
                            node: NodeId(word[..1].parse().unwrap()),
                            disk: disk(&word[1..]),
                        })
                        .collect(),
                    leader: words.number("leader").map(NodeId),
                    epoch: LeaderEpoch(words.number("epoch").unwrap()),
                    part_ver: words.number("ver").unwrap(),
                    isr: words
                        .list("isr")
                        .map(|place| place.parse().unwrap())
                        .collect(),
                    unclean: false,
                };
                let id = self.catalog.id_of(topic).unwrap_or_default();
                self.entry(Entry::Partition(vec![(id, vec![row])]), &mut said);
            }
            // A snapshot, and a start from it.
            "restart" => {
                self.catalog =
                    Catalog::decode(&self.catalog.encode(), NodeId(1), self.catalog.rules).unwrap();
                let mut out = Outbox::new();
                self.catalog.replicas_here(&mut out);
                self.say_effects(&mut out, &mut said);
            }
            "disks" => {
                for disk in self.catalog.disks() {
                    let (reserved, left) = (mib(disk.reserved), mib(disk.left()));
                    writeln!(
                        said,
                        "{} reserved={reserved} left={left} replicas={}",
                        disk_name(disk.disk),
                        disk.replicas
                    )
                    .unwrap();
                }
            }
            "describe" => {
                let id = self.catalog.id_of(words.first()).unwrap();
                for config in self.catalog.configs(id).unwrap() {
                    if words.value("key").is_some_and(|key| key != config.name) {
                        continue;
                    }
                    let Config {
                        name,
                        value,
                        source,
                        kind,
                        synonyms,
                    } = config;
                    let synonyms: Vec<_> = synonyms
                        .iter()
                        .map(|(name, value, by)| format!("{name}={value} {by:?}"))
                        .collect();
                    writeln!(
                        said,
                        "{name}={value} {source:?} {kind:?} [{}]",
                        synonyms.join(", ")
                    )
                    .unwrap();
                }
            }
            "settings" => {
                let id = self.catalog.id_of(words.first()).unwrap();
                writeln!(said, "{:#?}", self.catalog.settings(id).unwrap()).unwrap();
            }
            other => panic!("no command {other:?}"),
        }
        said
    }
}

macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            scenario::run::<World>(concat!("catalog/tests/", stringify!($name), ".txt"));
        })+
    };
}

scenarios! { create, quota, partitions, configs_of_topics, described, starts_of_a_node, declared, entries, names_of_topics }

#[test]
fn bytes_of_another_format_are_refused_by_number() {
    let catalog = Catalog::new(NodeId(1), rules());
    let mut bytes = catalog.encode();
    bytes[0] = 9;
    assert_eq!(
        Catalog::decode(&bytes, NodeId(1), rules()).unwrap_err(),
        SnapshotFault::Format(9)
    );
    // The last bytes are for moving partitions and for voters: releases that knew neither ended before them.
    bytes[0] = 1;
    let later = bytes.len() - 2;
    for older in [later, later + 1] {
        assert!(Catalog::decode(&bytes[..older], NodeId(1), rules()).is_ok());
    }
    for cut in 0..later {
        assert!(
            matches!(
                Catalog::decode(&bytes[..cut], NodeId(1), rules()),
                Err(SnapshotFault::Malformed(_))
            ),
            "{cut}"
        );
    }
}

/// A site of many partitions needs several entries for its elections, and none may be too large.
#[test]
fn elections_are_split_below_the_largest_record() {
    let mut rules = rules();
    rules.replicas_max = 10_000;
    let mut catalog = Catalog::new(NodeId(1), rules);
    let mut out = Outbox::new();
    let disks = [Disk {
        uuid: disk("a"),
        bytes: 1 << 50,
    }];
    catalog.apply(
        &Record::broker(catalog.register(Incarnation::default(), &disks).unwrap()),
        &mut out,
    );
    let mut topic = |catalog: &mut Catalog, partitions, number: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let asked = CreateTopic {
            name: format!("t{number}"),
            partitions: Some(partitions),
            configs: vec![("retention.bytes".to_owned(), Some("1".to_owned()))],
            ..CreateTopic::default()
        };
        let entry = catalog
            .create_topic(&asked, TopicId(Uuid(id)))
            .unwrap()
            .entry;
        catalog.apply(&Record::broker(entry), &mut out);
        out.drain().for_each(drop);
    };
    topic(&mut catalog, 2_500, 0);
    (1..=1_500).for_each(|number| topic(&mut catalog, 1, number));
    let entries = catalog.elections(None);
    assert!(
        entries.len() > 1,
        "one entry would do: the test shows nothing"
    );
    for entry in entries {
        let record = Record::broker(entry);
        record.encode().unwrap();
        catalog.apply(&record, &mut out);
    }
    assert_eq!(
        out.drain()
            .filter(|effect| matches!(effect, Effect::Lead { .. }))
            .count(),
        4_000
    );
    let epochs = catalog
        .topics()
        .flat_map(|(_, topic)| &topic.partitions)
        .all(|row| row.epoch == LeaderEpoch(1));
    assert!(epochs, "a partition was left out");
}
