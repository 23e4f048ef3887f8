//! `howdah adopt`: a new meta disk beside data disks that are full.
//!
//! The meta disk's site log is written anew from what the data disks hold: the same site, a new incarnation of the node,
//! every topic under the id it had, every partition where it lies, in a leader epoch above all it has seen. The data
//! disks come next and the meta disk counts last: whoever is cut in between does it once more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use model::{
    DiskUuid, LeaderEpoch, NodeId, PartitionIndex, ProducerId, SiteUuid, Term, TopicId, Uuid,
};
use node::catalog::{OFFSETS_TOPIC, topic_name_fault};
use node::sitelog::{Disk as SiteDisk, Entry, Node, PartitionRow, Record, Replica, Topic};
use site::units::format_size;
use site::{Site, quota};
use store::{Adoption, Config, Disk, DiskState, LinuxIo, Op, Queue, inspect};

use super::{Stopped, describe, disk_fault, open, take, write_out};
use crate::lock::DiskLock;
use crate::run::{Refusal, choose, refusal};
use crate::spindle::open::{DiskPlace, Held, fresh, look, make, open_io, places};
use crate::{AdoptArgs, exit};

/// The term of the entries written here; the node's first start takes the next one.
const TERM: Term = Term(1);
/// Rows of one PARTITION entry: some 30 bytes each, of 60 KiB.
const ROWS_MAX: usize = 1_000;
/// Room that a topic of unknown size gets beside what it holds: the extent that it writes to next.
const MORE_BYTES: u64 = 64 << 20;

/// What the data disks hold of one topic, by partition.
type Pieces = BTreeMap<u32, Piece>;

/// One partition's replica.
struct Piece {
    disk: DiskUuid,
    /// The highest leader epoch it has seen.
    epoch: LeaderEpoch,
    bytes: u64,
}

/// Shows what the disks hold; with `--accept` they are taken over.
pub(super) fn run(args: &AdoptArgs) -> Result<(), Refusal> {
    let names = names(&args.topic)?;
    let site = match &args.site {
        Some(file) => Some(site::load(file).map_err(|fault| refusal(exit::USAGE, fault))?),
        None => None,
    };
    let own = match &site {
        Some(site) => {
            let node = choose(site, args.own.node.as_deref())?;
            let places = places(&site.nodes[node], &args.own.data, &[]);
            let places = places.map_err(|fault| refusal(exit::USAGE, fault))?.here;
            Some((site, node, places))
        }
        None => None,
    };
    let mut disks = Vec::new();
    let mut topics: BTreeMap<TopicId, Pieces> = BTreeMap::new();
    for dir in &args.dirs {
        let places = own.iter().flat_map(|(.., places)| places);
        let place = places.clone().find(|place| same(dir, &place.path));
        let journal = place.and_then(|place| place.journal.clone());
        let stopped = open(dir, journal)?;
        if stopped.superblock.meta {
            let why = format!(
                "{}: the {}; name the data disks only",
                dir.display(),
                describe(&stopped.superblock)
            );
            return Err(refusal(exit::REFUSED, why));
        }
        gather(dir, &stopped, &names, &mut topics)?;
        disks.push((dir, stopped));
    }
    if let Some(unknown) = names.keys().find(|id| !topics.contains_key(id)) {
        return Err(refusal(
            exit::USAGE,
            format!("--topic {unknown}: these disks hold nothing of it"),
        ));
    }
    let Some((site, node, places)) = own.filter(|_| args.accept) else {
        return write_out("nothing was changed; --site and --accept take them over\n");
    };
    let own = &site.nodes[node];
    let (meta, _lock) = blank_meta(own, &places, &args.dirs)?;
    let id = NodeId(own.id);
    let identity = disks[0].1.superblock.site;
    for (dir, Stopped { superblock, .. }) in &disks {
        if superblock.node != id || superblock.site != identity {
            let why = format!(
                "{}: the {}, not one of node {} like the others",
                dir.display(),
                describe(superblock),
                id.0
            );
            return Err(refusal(exit::REFUSED, why));
        }
    }
    let takeover = Takeover {
        site,
        id,
        identity,
        names: &names,
        topics: &topics,
        disks: &disks,
    };
    takeover.run(&meta)
}

/// What was told of the topics' names.
fn names(told: &[String]) -> Result<BTreeMap<TopicId, String>, Refusal> {
    let mut names = BTreeMap::new();
    for told in told {
        let wrong = |why: &str| refusal(exit::USAGE, format!("--topic {told}: {why}"));
        let (id, name) = told.split_once('=').ok_or_else(|| wrong("write ID=NAME"))?;
        let id = topic_id(id).ok_or_else(|| wrong("an id has 32 hexadecimal digits"))?;
        if let Some(fault) = topic_name_fault(name).filter(|_| name != OFFSETS_TOPIC) {
            return Err(wrong(&fault));
        }
        if names.values().any(|other| other == name) || names.insert(id, name.to_owned()).is_some()
        {
            return Err(wrong("told twice"));
        }
    }
    Ok(names)
}

fn topic_id(text: &str) -> Option<TopicId> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(|id| TopicId(Uuid(id.to_be_bytes())))
}

/// Adds a disk's replicas and prints them.
fn gather(
    dir: &Path,
    stopped: &Stopped,
    names: &BTreeMap<TopicId, String>,
    topics: &mut BTreeMap<TopicId, Pieces>,
) -> Result<(), Refusal> {
    let inspection = inspect(&stopped.io).map_err(|error| disk_fault(dir, &error))?;
    let mut text = format!("{}: {}\n", dir.display(), describe(&stopped.superblock));
    for held in &inspection.replicas {
        let it = &held.replica;
        let name = names
            .get(&it.id.topic)
            .map_or(String::new(), |name| format!(" ({name})"));
        text += &format!(
            "  topic {}{name} partition {}: offsets {} to {}, {} in {} extents\n",
            it.id.topic,
            it.id.partition.0,
            it.log_start.0,
            it.end.0,
            format_size(held.bytes),
            held.extents,
        );
        if held.lost().is_some() {
            let why = format!(
                "{}: its journal is rotten and offsets are lost; see `howdah recover` first",
                dir.display()
            );
            return Err(refusal(exit::REFUSED, why));
        }
        let epoch = it
            .epochs
            .last()
            .map_or(it.accepted_epoch, |(last, _)| it.accepted_epoch.max(*last));
        let piece = Piece {
            disk: stopped.superblock.disk,
            epoch,
            bytes: held.bytes,
        };
        if let Some(other) = topics
            .entry(it.id.topic)
            .or_default()
            .insert(it.id.partition.0, piece)
        {
            let what = format!("topic {} partition {}", it.id.topic, it.id.partition.0);
            let why = format!(
                "{}: {what} lies on disk {} as well; only one of them can be the node's",
                dir.display(),
                other.disk
            );
            return Err(refusal(exit::REFUSED, why));
        }
    }
    write_out(&text)
}

/// Where the new meta disk shall be: the node's first disk that is not among those taken over. It must be blank, as must
/// all others.
fn blank_meta(
    own: &site::Node,
    places: &[DiskPlace],
    dirs: &[PathBuf],
) -> Result<(DiskPlace, DiskLock), Refusal> {
    let mut dirs: Vec<&PathBuf> = dirs.iter().collect();
    let mut blank = Vec::new();
    for place in places {
        if let Some(at) = dirs.iter().position(|dir| same(dir, &place.path)) {
            dirs.remove(at);
            continue;
        }
        match look(place).map_err(|fault| refusal(exit::REFUSED, fault))? {
            Held::Formatted(superblock) if !fresh(&superblock) => {
                let why = format!(
                    "{} holds the {}: it is not blank",
                    place.path.display(),
                    describe(&superblock)
                );
                return Err(refusal(exit::REFUSED, why));
            }
            _ => blank.push(place),
        }
    }
    if let Some(dir) = dirs.first() {
        let why = format!(
            "{}: node {} has no such disk, or it is named twice",
            dir.display(),
            own.name
        );
        return Err(refusal(exit::USAGE, why));
    }
    let Some(meta) = blank.first() else {
        let why = format!(
            "every disk of node {} is named: none is left that can be the new meta disk",
            own.name
        );
        return Err(refusal(exit::USAGE, why));
    };
    // Makes the directory as well.
    open_io(meta).map_err(|fault| refusal(exit::FAULT, fault))?;
    Ok(((*meta).clone(), take(&meta.path)?))
}

/// Whether both lead to one directory that is there.
fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    real(one).is_some() && real(one) == real(other)
}

struct Takeover<'a> {
    site: &'a Site,
    id: NodeId,
    identity: SiteUuid,
    names: &'a BTreeMap<TopicId, String>,
    topics: &'a BTreeMap<TopicId, Pieces>,
    disks: &'a [(&'a PathBuf, Stopped)],
}

impl Takeover<'_> {
    fn run(&self, place: &DiskPlace) -> Result<(), Refusal> {
        let bar = cli::progress::bar(None, "{spinner} {msg}");
        bar.set_message(format!("{}: zeroing its journal", place.path.display()));
        let io = open_io(place).map_err(|fault| refusal(exit::FAULT, fault))?;
        let made =
            make(place, &io, self.id, true, None).map_err(|fault| refusal(exit::FAULT, fault))?;
        let at_meta = |error: &dyn std::fmt::Display| {
            refusal(exit::FAULT, format!("{}: {error}", place.path.display()))
        };
        let (mut meta, _) =
            Disk::open(io, Config::default()).map_err(|error| disk_fault(&place.path, &error))?;
        let node = Node {
            id: self.id,
            incarnation: made.incarnation,
            disks: self.site_disks(made.disk),
            versions: (1, 1),
            public_key: Vec::new(),
        };
        bar.set_message("writing the site log");
        self.write(&mut meta, node, made.disk)
            .map_err(|error| at_meta(&error))?;
        let adoption = Adoption {
            site: self.identity,
            node: self.id,
            incarnation: made.incarnation,
        };
        for (dir, stopped) in self.disks {
            let adopted =
                store::adopt(&stopped.io, adoption).map_err(|error| disk_fault(dir, &error))?;
            bar.suspend(|| write_out(&format!("{}: {}\n", dir.display(), describe(&adopted))))?;
        }
        meta.set_identity(self.identity, DiskState::Member)
            .map_err(|error| at_meta(&error))?;
        commit(&mut meta, [Op::Clean]).map_err(|error| at_meta(&error))?;
        bar.finish_and_clear();
        write_out(&format!(
            "{}: {}\nadopted: start the node\n",
            place.path.display(),
            describe(meta.superblock())
        ))
    }

    /// The node's disks, for the first entries only: the node registers them with their true sizes when it starts.
    fn site_disks(&self, meta: DiskUuid) -> Vec<SiteDisk> {
        let data = self
            .disks
            .iter()
            .map(|(_, stopped)| stopped.superblock.disk);
        std::iter::once(meta)
            .chain(data)
            .map(|uuid| SiteDisk { uuid, bytes: 0 })
            .collect()
    }

    fn write(
        &self,
        meta: &mut Disk<LinuxIo>,
        node: Node,
        meta_disk: DiskUuid,
    ) -> Result<(), String> {
        let mut entries = vec![
            Entry::Site {
                uuid: self.identity,
            },
            Entry::Node(node),
            self.producer_ids(),
        ];
        for (id, pieces) in self.topics {
            entries.push(Entry::Topic(self.topic(*id, pieces, meta_disk)));
            let rows: Vec<PartitionRow> = pieces
                .iter()
                .map(|(index, piece)| self.row(*index, piece))
                .collect();
            entries.extend(
                rows.chunks(ROWS_MAX)
                    .map(|rows| Entry::Partition(vec![(*id, rows.to_vec())])),
            );
        }
        let mut ops = vec![Op::HardState {
            term: TERM,
            vote: Some(self.id),
        }];
        for (index, entry) in (1..).zip(entries) {
            let bytes = Record::broker(entry)
                .encode()
                .map_err(|error| error.to_string())?;
            ops.push(Op::SiteEntry {
                index,
                term: TERM,
                bytes: bytes.into(),
            });
        }
        commit(meta, ops)
    }

    /// Which ids were given out is lost. None of them was above this: no site gives out a thousand a second for years.
    fn producer_ids(&self) -> Entry {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let first = ProducerId(i64::try_from(now.as_millis()).unwrap_or(i64::MAX / 2));
        Entry::Pids {
            node: self.id,
            first,
        }
    }

    fn topic(&self, id: TopicId, pieces: &Pieces, meta: DiskUuid) -> Topic {
        let count = pieces.keys().last().map_or(0, |last| last + 1);
        // A partition that lay on the lost disk begins anew on the disk in its place.
        let disk = |index: u32| pieces.get(&index).map_or(meta, |piece| piece.disk);
        let partitions = (0..count)
            .map(|index| {
                vec![Replica {
                    node: self.id,
                    disk: disk(index),
                }]
            })
            .collect();
        let held = pieces
            .values()
            .map(|piece| piece.bytes)
            .max()
            .unwrap_or_default();
        let name = self.names.get(&id).cloned();
        let declared = self
            .site
            .topics
            .iter()
            .find(|topic| Some(&topic.name) == name.as_ref());
        let (configs, share) = match (&name, declared) {
            (_, Some(topic)) => {
                let quotas = quota::site_quotas(self.site, &quota::known_disks(self.site));
                let quota = quotas
                    .topics
                    .iter()
                    .find(|quota| quota.topic == topic.name && quota.shared);
                let share = quota.and_then(|quota| quota.quota_bytes);
                (
                    topic.configs(),
                    share.unwrap_or_default().max(held + MORE_BYTES),
                )
            }
            (Some(name), None) if name == OFFSETS_TOPIC => {
                let configs = [("cleanup.policy", "compact"), ("howdah.on.full", "refuse")];
                (
                    configs
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .to_vec(),
                    held + MORE_BYTES,
                )
            }
            // Nothing of a topic that nobody has described goes by time.
            _ => (
                vec![("retention.ms".to_owned(), "-1".to_owned())],
                held + MORE_BYTES,
            ),
        };
        let name = name.unwrap_or_else(|| format!("adopted-{id}"));
        Topic {
            name,
            id,
            configs,
            share,
            partitions,
        }
    }

    /// The node leads, in an epoch above all that the replica has seen.
    fn row(&self, index: u32, piece: &Piece) -> PartitionRow {
        PartitionRow {
            partition: PartitionIndex(index),
            replicas: Vec::new(),
            leader: Some(self.id),
            epoch: piece.epoch.next().max(LeaderEpoch(1)),
            part_ver: 1,
            isr: vec![0],
            unclean: false,
        }
    }
}

/// Does operations one behind the other; durable when it returns.
fn commit(disk: &mut Disk<LinuxIo>, ops: impl IntoIterator<Item = Op>) -> Result<(), String> {
    let mut queue = Queue::default();
    ops.into_iter().for_each(|op| queue.push(op, ()));
    let mut done = Vec::new();
    while !queue.is_empty() {
        let committed = disk
            .commit(&mut queue, None, &mut done)
            .map_err(|error| error.to_string())?;
        if committed.held {
            disk.work(true, None).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use model::batch::Codec;
    use model::record::{Builder, Producer};
    use model::{Offset, TopicPartition};
    use store::Append;

    use super::super::testing::Node as TestNode;
    use super::*;

    #[test]
    fn names_are_told_by_id() {
        let id = "5d1e7424-483d-4396-abcd-05e8db801519";
        let told = |told: &[&str]| {
            let told: Vec<String> = told.iter().map(|told| (*told).to_owned()).collect();
            names(&told).map_err(|refusal| refusal.why)
        };
        let plain = id.replace('-', "");
        let found = told(&[&format!("{id}=telemetry")]).unwrap();
        let (found, name) = found.first_key_value().unwrap();
        assert_eq!(
            (found.to_string(), name.as_str()),
            (plain.clone(), "telemetry")
        );
        assert!(told(&[&format!("{plain}={OFFSETS_TOPIC}")]).is_ok());
        for wrong in [
            "telemetry",
            "5d1e=telemetry",
            &format!("{id}="),
            &format!("{id}=a b"),
            &format!("{id}=__transaction_state"),
        ] {
            assert!(
                told(&[wrong])
                    .unwrap_err()
                    .starts_with(&format!("--topic {wrong}: ")),
                "{wrong}"
            );
        }
        assert!(
            told(&[&format!("{id}=a"), &format!("{plain}=b")])
                .unwrap_err()
                .ends_with("told twice")
        );
    }

    #[test]
    fn partitions_come_back_under_a_new_meta_disk() {
        let node = TestNode::new("adopt");
        let topic = TopicId(Uuid([7; 16]));
        let batch = {
            let mut builder = Builder::default();
            for _ in 0..3 {
                builder.push(1_000, None, Some(b"kept"), [].into_iter());
            }
            builder.finish(Codec::None, Producer::NONE).unwrap()
        };
        let (identity, incarnation) = {
            let mut opened = node.open().unwrap();
            let part = opened[1].recovered.next_part;
            let id = TopicPartition {
                topic,
                partition: PartitionIndex(1),
            };
            let epoch = LeaderEpoch(5);
            let append = Append {
                part,
                base_offset: Offset(0),
                leader_epoch: epoch,
                hw: Offset(0),
                gap: false,
                append_time: None,
                batch: batch.into(),
            };
            let ops = [
                Op::PartNew { part, id },
                Op::Epoch {
                    part,
                    epoch,
                    start: Some(Offset(0)),
                    unclean: false,
                },
                Op::Append(append),
                Op::Clean,
            ];
            commit(opened[1].disk.as_mut().unwrap(), ops).unwrap();
            let superblock = &opened[0].recovered.superblock;
            (superblock.site, superblock.incarnation)
        };
        fs::remove_dir_all(node.data.join("d1")).unwrap();
        assert!(node.open().err().unwrap().contains("howdah adopt"));

        let mut args = AdoptArgs {
            dirs: vec![node.data.join("d2")],
            site: Some(node.file.clone()),
            own: node.own(),
            topic: vec![format!("{topic}=telemetry")],
            accept: false,
        };
        let adopt = |args: &AdoptArgs| run(args).map_err(|refusal| (refusal.code, refusal.why));
        adopt(&args).unwrap();
        assert!(node.open().is_err(), "only shown");
        args.accept = true;
        adopt(&args).unwrap();

        let opened = node.open().unwrap();
        let (meta, data) = (&opened[0].recovered, &opened[1].recovered);
        assert_eq!(
            (meta.superblock.site, data.superblock.site),
            (identity, identity)
        );
        assert_ne!(meta.superblock.incarnation, incarnation);
        assert_eq!(data.superblock.incarnation, meta.superblock.incarnation);
        assert_eq!(data.replicas[0].end, Offset(3));
        let entries: Vec<Entry> = meta
            .entries
            .iter()
            .map(|entry| Record::decode(&entry.bytes).unwrap().entry.unwrap())
            .collect();
        let topics = entries.iter().find_map(|entry| match entry {
            Entry::Topic(topic) => Some(topic),
            _ => None,
        });
        let found = topics.unwrap();
        assert_eq!((found.name.as_str(), found.id), ("telemetry", topic));
        // Partition 0 lay on the lost disk.
        let disks: Vec<DiskUuid> = found
            .partitions
            .iter()
            .map(|replicas| replicas[0].disk)
            .collect();
        assert_eq!(disks, [meta.superblock.disk, data.superblock.disk]);
        let row = entries.iter().find_map(|entry| match entry {
            Entry::Partition(topics) => Some(topics[0].1[0].clone()),
            _ => None,
        });
        let row = row.unwrap();
        assert_eq!(
            (row.partition, row.epoch),
            (PartitionIndex(1), LeaderEpoch(6))
        );
        drop(opened);
        assert_eq!(
            adopt(&args).unwrap_err().0,
            exit::REFUSED,
            "the meta disk is not blank any more"
        );
    }
}
