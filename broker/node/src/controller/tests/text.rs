//! Commands of the scenario texts, and effects as a person reads them.

use super::*;
use crate::peer::AlterIsr;
use crate::sitelog::{PartitionRow, Replica};

fn replica(replica: Replica) -> String {
    let letter = char::from(replica.disk.0.0[1]);
    let (node, of) = (replica.node.0, replica.disk.0.0[0]);
    assert_eq!(u32::from(of), node, "a disk of another node");
    format!("{node}{letter}")
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("+")
}

fn nodes(of: &[NodeId]) -> String {
    joined(of.iter().map(|node| node.0.to_string()))
}

fn leader(leader: Option<NodeId>) -> String {
    leader.map_or_else(|| "none".to_owned(), |leader| leader.0.to_string())
}

/// `2c` or `2`: a node and one of its disks.
fn place(text: &str) -> (u32, Option<char>) {
    let letter = text.chars().last().filter(char::is_ascii_alphabetic);
    let node = text.trim_end_matches(char::is_alphabetic).parse().unwrap();
    (node, letter)
}

impl World {
    fn topic_name(&self, id: TopicId) -> String {
        let known = self.catalog.topic(id).map(|topic| topic.name.clone());
        known.unwrap_or_else(|| format!("#{}", u16::from_be_bytes([id.0.0[0], id.0.0[1]])))
    }

    fn name(&self, id: TopicPartition) -> String {
        format!("{}-{}", self.topic_name(id.topic), id.partition.0)
    }

    fn row_text(&self, topic: TopicId, row: &PartitionRow) -> String {
        let id = TopicPartition {
            topic,
            partition: row.partition,
        };
        let known = self.catalog.partition_row(id);
        let replicas = match row.replicas.is_empty() {
            true => known.unwrap().replicas.clone(),
            false => row.replicas.clone(),
        };
        let isr = row.isr.iter().map(|at| replica(replicas[usize::from(*at)]));
        let mut text = format!(
            " {}(leader={} epoch={} ver={} isr={}",
            self.name(id),
            leader(row.leader),
            row.epoch.0,
            row.part_ver,
            joined(isr)
        );
        if !row.replicas.is_empty() {
            let places = joined(row.replicas.iter().copied().map(replica));
            write!(text, " on={places}").unwrap();
        }
        let unclean = if row.unclean { " unclean" } else { "" };
        text + unclean + ")"
    }

    fn entry_text(&self, entry: &Entry) -> String {
        match entry {
            Entry::Site { .. } => "SITE".to_owned(),
            Entry::Node(node) => {
                let disks = joined(node.disks.iter().map(|disk| {
                    replica(Replica {
                        node: node.id,
                        disk: disk.uuid,
                    })
                }));
                let inc = node.incarnation.0.0[0];
                format!("NODE {} inc={inc} disks={disks}", node.id.0)
            }
            Entry::Topic(topic) => {
                let places = |it: &Vec<Replica>| joined(it.iter().copied().map(replica));
                let places: Vec<_> = topic.partitions.iter().map(places).collect();
                format!("TOPIC {} on {}", topic.name, places.join(" "))
            }
            Entry::Partition(topics) => {
                let rows = topics
                    .iter()
                    .flat_map(|(topic, rows)| rows.iter().map(|row| self.row_text(*topic, row)));
                "PARTITION".to_owned() + &rows.collect::<String>()
            }
            Entry::Reassign(rows) => {
                let row = |it: &crate::sitelog::Reassign| {
                    let moving = it.moving.as_ref().map_or_else(String::new, |moving| {
                        format!(" {}→{}", nodes(&moving.from), nodes(&moving.to))
                    });
                    self.row_text(it.topic, &it.row) + &moving
                };
                "REASSIGN".to_owned() + &rows.iter().map(row).collect::<String>()
            }
            Entry::TopicDel { topic } => format!("TOPIC_DEL {}", self.topic_name(*topic)),
            Entry::Config { topic, configs, .. } => {
                format!("CONFIG {} {configs:?}", self.topic_name(*topic))
            }
            Entry::Pids { node, first } => format!("PIDS node={} first={}", node.0, first.0),
            Entry::Drain { node, on } => format!("DRAIN {} on={on}", node.0),
            other => format!("{other:?}"),
        }
    }

    fn event_text(&self, event: &Event) -> String {
        match event {
            Event::Partition {
                partition,
                decision,
            } => {
                let text = match decision {
                    Decision::Led { leader, epoch, why } => {
                        format!("led by {} in {}: {why}", leader.0, epoch.0)
                    }
                    Decision::Offline { epoch, why } => format!("offline in {}: {why}", epoch.0),
                    Decision::Left { replica: left, why } => {
                        format!("{} left: {why}", replica(*left))
                    }
                    Decision::Isr { isr } => {
                        format!("in sync {}", joined(isr.iter().copied().map(replica)))
                    }
                    Decision::Replaced { replica: anew } => {
                        format!("begins anew on {}", replica(*anew))
                    }
                    Decision::Moves { to } => format!("moves to {}", nodes(to)),
                    Decision::Arrived => "arrived".to_owned(),
                };
                format!("{} {text}", self.name(*partition))
            }
            Event::Heard { node } => format!("heard {}", node.0),
            Event::Dead { node } => format!("dead {}", node.0),
            Event::Disk { node, disk, state } => {
                let (node, disk) = (*node, *disk);
                let name = replica(Replica { node, disk });
                state.map_or_else(
                    || format!("disk {name} not mounted"),
                    |state| format!("disk {name} {state:?}"),
                )
            }
            Event::Digest { node, same } => format!("site file of {} same={same}", node.0),
            Event::Clock { node, trusted } => format!("clock of {} trusted={trusted}", node.0),
            Event::Stranger { node } => format!("stranger {}", node.0),
            Event::NotHandedOver { partition, leader } => {
                format!("{} not handed over by {}", self.name(*partition), leader.0)
            }
            Event::NoPlace { partition, node } => {
                format!("{} has no place on {}", self.name(*partition), node.0)
            }
            Event::Unkept { topic, fault } => format!("unkept {topic}: {fault}"),
        }
    }

    fn answer_text(&self, answer: &Answer) -> String {
        match answer {
            Answer::Created(planned) => format!("created {} partitions", planned.partitions),
            Answer::Refused(fault) => format!("refused: {fault}"),
            Answer::Reassigned(rows) => {
                let row = |(id, outcome): &(TopicPartition, Result<(), MoveFault>)| match outcome {
                    Ok(()) => format!(" {}=ok", self.name(*id)),
                    Err(MoveFault::Room(fault)) => format!(" {}={fault}", self.name(*id)),
                    Err(fault) => format!(" {}={fault:?}", self.name(*id)),
                };
                format!("reassigned{}", rows.iter().map(row).collect::<String>())
            }
            Answer::Elected(rows) => {
                let row = |(id, outcome): &(TopicPartition, Result<(), ElectFault>)| {
                    let outcome =
                        outcome.map_or_else(|fault| format!("{fault:?}"), |()| "ok".into());
                    format!(" {}={outcome}", self.name(*id))
                };
                format!("elected{}", rows.iter().map(row).collect::<String>())
            }
            other => format!("{other:?}"),
        }
    }

    pub(super) fn say(&self, effect: &Effect, said: &mut String) {
        let text = match effect {
            Effect::Propose { bytes, .. } => {
                let record = Record::decode(bytes).unwrap();
                format!("propose {}", self.entry_text(&record.entry.unwrap()))
            }
            Effect::HandOver { node, partitions } => {
                let ask = |(id, epoch, to): &(TopicPartition, LeaderEpoch, NodeId)| {
                    format!(" {}@{}→{}", self.name(*id), epoch.0, to.0)
                };
                let asks: String = partitions.iter().map(ask).collect();
                format!("hand over {}:{asks}", node.0)
            }
            Effect::AlterIsr { ticket, rows } => {
                let row =
                    |(id, _, _, outcome): &(_, _, _, _)| format!(" {}={outcome:?}", self.name(*id));
                let rows: String = rows.iter().map(row).collect();
                format!("alter-isr ticket={}{rows}", ticket.0)
            }
            Effect::Answer { ticket, answer } => {
                format!("answer ticket={} {}", ticket.0, self.answer_text(answer))
            }
            Effect::MayFree { node } => format!("may free {}", node.0),
            Effect::Event(event) => format!("  {}", self.event_text(event)),
        };
        writeln!(said, "{text}").unwrap();
    }

    fn member(&self, text: &str) -> Member {
        // `2a` as registered, `2a/3` of another incarnation.
        let (text, inc) = text.split_once('/').unwrap_or((text, ""));
        let (node, letter) = place(text);
        let node = NodeId(node);
        let known = self.catalog.node(node).map(|row| row.incarnation);
        Member {
            node,
            incarnation: match inc.parse() {
                Ok(inc) => incarnation(inc),
                Err(_) => known.unwrap_or_default(),
            },
            disk: disk(node.0, letter.unwrap_or('a')),
        }
    }

    /// What a node says from now on.
    fn set(&mut self, node: u32, words: &Words<'_>) {
        let beat = self.beats.get_mut(&node).unwrap();
        if words.value("disks").is_some() {
            let state = |text: &str| match text {
                "stalled" => DiskState::Stalled,
                "failed" => DiskState::Failed,
                "suspect" => DiskState::Suspect,
                _ => DiskState::Clean,
            };
            beat.disks = words
                .list("disks")
                .filter(|word| *word != "none")
                .map(|word| {
                    let (letter, as_is) = word.split_once(':').unwrap_or((word, ""));
                    (disk(node, letter.parse().unwrap()), state(as_is))
                })
                .collect();
        }
        beat.incarnation = words.number("inc").map_or(beat.incarnation, incarnation);
        beat.boot = words.number("boot").unwrap_or(beat.boot);
        beat.applied = words.number("applied").map_or(beat.applied, Index);
        beat.blessed = words.number("blessed").unwrap_or(beat.blessed);
        beat.digest = words.number("digest").unwrap_or(beat.digest);
        beat.clock_trusted = !words.has("untrusted");
    }
}

fn all_nodes(words: &Words<'_>) -> Vec<u32> {
    let word = words.value("nodes").unwrap_or("");
    word.split('+')
        .filter_map(|node| node.parse().ok())
        .collect()
}

fn time(text: &str) -> Duration {
    match text.strip_suffix("ms") {
        Some(ms) => Duration::from_millis(ms.parse().unwrap()),
        None => Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap()),
    }
}

/// `t-0:1+2,t-1:-`
fn targets(world: &World, words: &Words<'_>) -> Vec<(TopicPartition, Option<Vec<NodeId>>)> {
    let target = |word: &str| {
        let (id, to) = word.split_once(':').unwrap();
        let to = (to != "-").then(|| {
            let nodes = to.split('+').filter(|node| !node.is_empty());
            nodes.map(|node| NodeId(node.parse().unwrap())).collect()
        });
        (world.id(id), to)
    };
    words
        .bare()
        .filter(|word| word.contains(':'))
        .map(target)
        .collect()
}

pub(super) fn command(world: &mut World, verb: &str, words: &Words<'_>) -> String {
    match verb {
        "office" => {
            let wanted = words.list("wants").map(|word| match word.split_once(':') {
                Some((name, partitions)) => Wanted::Declared(
                    Declared {
                        name: name.to_owned(),
                        partitions: partitions.parse().unwrap(),
                        replication: 3,
                        configs: Vec::new(),
                        share: None,
                    },
                    topic_id(100 + u16::from(name.as_bytes()[0])),
                ),
                None => Wanted::Offsets(topic_id(99)),
            });
            let wanted = wanted.collect();
            let term = words.number("term").unwrap_or(1);
            world.office(term, words.has("released"), wanted)
        }
        "deposed" => world.tell(Input::Deposed),
        // Nodes say something else from now on, and now.
        "beat" => {
            let granted = words.value("granted").map_or(GRANT, time);
            let mut said = String::new();
            for node in words.first().split('+') {
                let node = node.parse().unwrap();
                world.set(node, words);
                said += &world.beat(node, granted);
            }
            said
        }
        "register" => {
            let node: u32 = words.first().parse().unwrap();
            if world.beats.contains_key(&node) {
                world.set(node, words);
            }
            let beat = world.beats.get(&node).cloned();
            let node = beat.map_or_else(
                || Node {
                    id: NodeId(node),
                    incarnation: incarnation(1),
                    disks: Vec::new(),
                    versions: (1, 1),
                    public_key: Vec::new(),
                },
                |beat| node_of(&beat, words.number("mib").unwrap_or(10_000) * MIB),
            );
            world.tell(Input::Register(node))
        }
        "resign" => {
            let node = NodeId(words.number("node").unwrap());
            let why = words
                .number("to")
                .map_or(Resigned::Epoch, |to| Resigned::To(NodeId(to)));
            let partitions = words.bare().map(|word| {
                let id = world.id(word);
                let row = world.catalog.partition_row(id).unwrap();
                let epoch = words.number("epoch").map_or(row.epoch, LeaderEpoch);
                (id, epoch, why)
            });
            let partitions = partitions.collect();
            world.tell(Input::Resign { node, partitions })
        }
        "isr" => {
            let id = world.id(words.first());
            let row = world.catalog.partition_row(id).cloned();
            let epoch = row.as_ref().map_or(LeaderEpoch(0), |row| row.epoch);
            let asked = AlterIsr {
                partition: id,
                epoch: words.number("epoch").map_or(epoch, LeaderEpoch),
                part_ver: words
                    .number("ver")
                    .unwrap_or(row.as_ref().map_or(0, |row| row.part_ver)),
                isr: words
                    .list("isr")
                    .flat_map(|word| word.split('+'))
                    .map(|word| world.member(word))
                    .collect(),
            };
            let leader = row.and_then(|row| row.leader).unwrap_or_default();
            world.tell(Input::AlterIsr {
                ticket: Ticket(words.number("ticket").unwrap_or(1)),
                node: words.number("node").map_or(leader, NodeId),
                rows: vec![asked],
            })
        }
        "pass" => {
            let beating = all_nodes(words);
            world.pass(time(words.first()), &beating)
        }
        // The clock goes on, and the lease doesn't.
        "sleep" => {
            world.now = world.now + time(words.first());
            world.tell(Input::Tick)
        }
        "lease" => {
            let until = world.now + GRANT;
            world.tell(Input::Lease { until })
        }
        "hold" => {
            world.hold = true;
            String::new()
        }
        "commit" => {
            let mut said = String::new();
            world.commit(&mut said);
            said
        }
        "release" => {
            world.hold = false;
            world.tell(Input::Tick)
        }
        "not-taken" => {
            let (proposal, _) = world.pending.pop_front().unwrap();
            world.tell(Input::NotTaken(proposal))
        }
        "create" => {
            let asked = CreateTopic {
                name: words.first().to_owned(),
                partitions: words.number("partitions"),
                replication: words.number("replication"),
                configs: words
                    .number("quota")
                    .map(|mib: u64| ("retention.bytes".to_owned(), Some((mib * MIB).to_string())))
                    .into_iter()
                    .collect(),
                ..CreateTopic::default()
            };
            let id = world.next_topic();
            world.wish(words, Wish::CreateTopic { asked, id })
        }
        "delete" => {
            let id = world.catalog.id_of(words.first()).unwrap_or_default();
            world.wish(words, Wish::DeleteTopic(id))
        }
        "grow" => {
            let wish = Wish::CreatePartitions {
                name: words.first().to_owned(),
                count: words.number("to").unwrap(),
                assignment: None,
            };
            world.wish(words, wish)
        }
        "move" => {
            let wish = Wish::Reassign(targets(world, words));
            world.wish(words, wish)
        }
        "elect" => {
            let partitions = (!words.has("all")).then(|| {
                let named = words.bare().filter(|word| word.contains('-'));
                named.map(|word| world.id(word)).collect()
            });
            let unclean = words.has("unclean");
            world.wish(
                words,
                Wish::Elect {
                    unclean,
                    partitions,
                },
            )
        }
        "drain" | "undrain" => {
            let node = NodeId(words.first().parse().unwrap());
            let on = verb == "drain";
            world.wish(words, Wish::Drain { node, on })
        }
        "pids" => {
            let node = NodeId(words.first().parse().unwrap());
            world.wish(words, Wish::ProducerIds(node))
        }
        // From which entry on a grant counts.
        "grant" => {
            let beat = &world.beats[&words.first().parse().unwrap()];
            let (node, inc) = (beat.node, beat.incarnation);
            let after = world.controller.grant_after(&world.catalog, node, inc);
            format!("{after:?}\n")
        }
        "spare" => {
            let node = NodeId(words.first().parse().unwrap());
            let spared = world.controller.can_spare(world.now, &world.catalog, node);
            format!("{spared:?}\n")
        }
        "moving" => {
            let line = |(id, moving): (TopicPartition, &crate::sitelog::Moving)| {
                let (from, to) = (nodes(&moving.from), nodes(&moving.to));
                let row = world.catalog.partition_row(id).unwrap();
                let on = joined(row.replicas.iter().copied().map(replica));
                format!("{} on {on} from {from} to {to}\n", world.name(id))
            };
            world.catalog.moving().map(line).collect()
        }
        "rows" => {
            let line = |(id, row): (TopicPartition, &crate::catalog::Partition)| {
                let on = joined(row.replicas.iter().copied().map(replica));
                format!(
                    "{} leader={} epoch={} ver={} isr={} on={on}\n",
                    world.name(id),
                    leader(row.leader),
                    row.epoch.0,
                    row.part_ver,
                    joined(row.in_sync().map(replica)),
                )
            };
            world.catalog.partitions().map(line).collect()
        }
        other => panic!("no command {other:?}"),
    }
}
