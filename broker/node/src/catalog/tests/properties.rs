//! Random entries and wishes. The seed is printed; `HOWDAH_SEED` runs one again.

use super::*;

struct Random(u64);

impl Random {
    /// The seed and a generator from it.
    fn new() -> Self {
        let seed = std::env::var("HOWDAH_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
        println!("HOWDAH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn replicas(&mut self) -> Vec<Replica> {
        (0..self.below(4))
            .map(|_| Replica {
                node: NodeId(self.below(4) as u32),
                disk: disk(self.one(&["a", "b", "c", "d"])),
            })
            .collect()
    }

    fn disks(&mut self) -> Vec<Disk> {
        ["a", "b", "c"]
            .iter()
            .take(self.below(4) as usize)
            .map(|name| Disk {
                uuid: disk(name),
                bytes: self.below(1 << 32),
            })
            .collect()
    }

    /// Any entry at all, fitting or not.
    fn entry(&mut self) -> Entry {
        let topic = topic_id(self.below(6) as u8);
        match self.below(10) {
            0 => Entry::Term,
            1 => Entry::Node(Node {
                id: NodeId(self.below(4) as u32),
                incarnation: Incarnation(Uuid([self.below(3) as u8; 16])),
                disks: self.disks(),
                versions: (1, 1),
                public_key: vec![3; 5],
            }),
            2 => Entry::Topic(Topic {
                name: format!("t{}", self.below(6)),
                id: topic,
                configs: vec![("retention.bytes".into(), self.below(1 << 30).to_string())],
                share: self.below(1 << 30),
                partitions: (0..self.below(4)).map(|_| self.replicas()).collect(),
            }),
            3..=5 => {
                let rows = (0..1 + self.below(3)).map(|_| self.row()).collect();
                Entry::Partition(vec![(topic, rows)])
            }
            6 => Entry::TopicDel { topic },
            7 => Entry::Config {
                topic,
                configs: vec![("nonsense".into(), "x".into())],
                share: self.below(99),
            },
            8 => Entry::Pids {
                node: NodeId(self.below(3) as u32),
                first: ProducerId(self.below(9_000) as i64),
            },
            _ => {
                let moving = || Moving {
                    from: vec![NodeId(1)],
                    to: vec![NodeId(2), NodeId(3)],
                };
                Entry::Reassign(vec![Reassign {
                    topic,
                    row: self.row(),
                    moving: (self.below(3) > 0).then(moving),
                }])
            }
        }
    }

    fn row(&mut self) -> PartitionRow {
        PartitionRow {
            partition: PartitionIndex(self.below(6) as u32),
            replicas: if self.below(3) == 0 {
                self.replicas()
            } else {
                Vec::new()
            },
            leader: (self.below(4) > 0).then(|| NodeId(self.below(4) as u32)),
            epoch: LeaderEpoch(self.below(12) as i32),
            part_ver: self.below(12) as u32,
            isr: (0..self.below(4)).map(|_| self.below(4) as u8).collect(),
            unclean: false,
        }
    }
}

fn same(a: &Catalog, b: &Catalog) {
    assert_eq!(a.encode(), b.encode());
    assert_eq!(
        (&a.nodes, &a.topics, &a.names, &a.moving),
        (&b.nodes, &b.topics, &b.names, &b.moving)
    );
    assert_eq!(
        (a.site, a.site_version, a.next_pid),
        (b.site, b.site_version, b.next_pid)
    );
}

/// The log and the snapshot tell the same; epochs and versions only rise; the epoch names one leader for ever.
#[test]
fn any_entries_and_a_snapshot_anywhere_give_the_same_catalog() {
    let mut random = Random::new();
    let mut moved = false;
    for _ in 0..300 {
        let mut whole = Catalog::new(NodeId(1), rules());
        let mut restarted = whole.clone();
        let mut leaders: BTreeMap<(TopicId, u32, LeaderEpoch), Option<NodeId>> = BTreeMap::new();
        let mut lives = BTreeMap::new();
        for _ in 0..120 {
            let entry = random.entry();
            if let Entry::Topic(topic) = &entry {
                // An id is drawn once: made again after a deletion, the topic has another.
                let mut drawn = topic.clone();
                drawn.id.0.0[8..16].copy_from_slice(&random.0.to_be_bytes());
                lives.insert(topic.id, drawn.id);
                restarted.apply(
                    &Record::broker(Entry::Topic(drawn.clone())),
                    &mut Outbox::new(),
                );
                whole.apply(&Record::broker(Entry::Topic(drawn)), &mut Outbox::new());
            } else {
                let entry = renamed(entry, &lives);
                whole.apply(&Record::broker(entry.clone()), &mut Outbox::new());
                restarted.apply(&Record::broker(entry), &mut Outbox::new());
            }
            if random.below(5) == 0 {
                restarted = Catalog::decode(&restarted.encode(), NodeId(1), rules()).unwrap();
            }
            same(&whole, &restarted);
            moved |= whole.moving().next().is_some();
            assert!(
                whole
                    .moving()
                    .all(|(id, _)| whole.partition_row(id).is_some())
            );
            for (id, topic) in whole.topics() {
                for (partition, row) in indexed(&topic.partitions) {
                    let led = leaders
                        .entry((id, partition.0, row.epoch))
                        .or_insert(row.leader);
                    assert_eq!(*led, row.leader, "an epoch with two leaders");
                    assert!(
                        row.in_sync().count() == row.isr.len(),
                        "in sync without a place"
                    );
                }
            }
        }
    }
    assert!(moved, "nothing ever moved");
}

fn renamed(entry: Entry, lives: &BTreeMap<TopicId, TopicId>) -> Entry {
    let now = |id: TopicId| lives.get(&id).copied().unwrap_or(id);
    match entry {
        Entry::Partition(topics) => Entry::Partition(
            topics
                .into_iter()
                .map(|(topic, rows)| (now(topic), rows))
                .collect(),
        ),
        Entry::Reassign(rows) => Entry::Reassign(
            rows.into_iter()
                .map(|it| Reassign {
                    topic: now(it.topic),
                    ..it
                })
                .collect(),
        ),
        Entry::TopicDel { topic } => Entry::TopicDel { topic: now(topic) },
        Entry::Config {
            topic,
            configs,
            share,
        } => Entry::Config {
            topic: now(topic),
            configs,
            share,
        },
        other => other,
    }
}

/// Whatever clients wish, what is granted fits the disks.
#[test]
fn quotas_never_exceed_the_disks() {
    let mut random = Random::new();
    let (mut granted, mut refused) = (0, 0);
    for _ in 0..200 {
        let mut rules = rules();
        rules.retention_bytes = (random.below(3) == 0).then(|| random.below(100) * MIB);
        let mut catalog = Catalog::new(NodeId(1), rules);
        for (node, names) in [(1, &["a", "b"][..]), (2, &["c"]), (3, &["d", "e"])]
            .iter()
            .take(1 + random.below(3) as usize)
        {
            let disks = names
                .iter()
                .map(|name| Disk {
                    uuid: disk(name),
                    bytes: random.below(4_000) * MIB,
                })
                .collect();
            let node = Node {
                id: NodeId(*node),
                incarnation: Incarnation::default(),
                disks,
                versions: (1, 1),
                public_key: Vec::new(),
            };
            catalog.apply(&Record::broker(Entry::Node(node)), &mut Outbox::new());
        }
        for number in 0..80 {
            let bytes = |random: &mut Random| match random.below(3) {
                0 => "-1".to_owned(),
                _ => (random.below(300) * MIB).to_string(),
            };
            let messages = ["1000", "2000000", "8388608"];
            let name = format!("t{}", random.below(12));
            let planned = match random.below(6) {
                0..=1 => {
                    let mut configs = Vec::new();
                    if random.below(2) == 0 {
                        configs.push(("retention.bytes".to_owned(), Some(bytes(&mut random))));
                    }
                    if random.below(2) == 0 {
                        configs.push((
                            "max.message.bytes".to_owned(),
                            Some(random.one(&messages).to_owned()),
                        ));
                    }
                    let asked = CreateTopic {
                        name,
                        partitions: Some(1 + random.below(9) as u32),
                        replication: Some(1 + random.below(3) as u16),
                        assignment: Vec::new(),
                        configs,
                    };
                    catalog
                        .create_topic(&asked, topic_id(number))
                        .map(|planned| planned.entry)
                }
                2 => catalog.create_partitions(&name, 1 + random.below(20) as i32, None),
                3 => {
                    let change = match random.below(3) {
                        0 => Alter::Delete,
                        _ => Alter::Set(bytes(&mut random)),
                    };
                    catalog.alter_configs(&name, &[("retention.bytes".to_owned(), change)])
                }
                4 => {
                    let change = Alter::Set(random.one(&messages).to_owned());
                    catalog.alter_configs(&name, &[("max.message.bytes".to_owned(), change)])
                }
                _ => catalog.delete_topic(catalog.id_of(&name).unwrap_or_default()),
            };
            match planned {
                Ok(entry) => {
                    granted += 1;
                    catalog.apply(&Record::broker(entry), &mut Outbox::new());
                }
                Err(_) => refused += 1,
            }
            for space in catalog.disks() {
                assert!(
                    space.reserved <= space.bytes,
                    "more is promised than the disk holds: {space:?}"
                );
            }
            for (_, topic) in catalog.topics() {
                let quota = configs::named_quota(&topic.configs);
                assert!(
                    quota.is_some()
                        || topic.share >= 8 * MIB
                        || catalog.rules.retention_bytes.is_some()
                );
            }
        }
    }
    assert!(
        granted > 2_000 && refused > 2_000,
        "granted {granted}, refused {refused}: one of both is hardly tried"
    );
}
