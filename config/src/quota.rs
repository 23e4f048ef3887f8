//! What topics promise against what disks hold: quotas named and shared, and where their replicas would lie.
//!
//! A topic that names its quota has it reserved on each replica's disk, with one extent of the class that holds its
//! largest batch. Topics of the site file that name none split what those leave, less a tenth for topics made at run
//! time. One percent of each disk is kept for internal topics and the compactor. Where a replica really lies is decided
//! by the controller when the topic is made; this deals them out the same way, by node in turn and to the disk with the
//! most room.

use std::fmt;

use serde::Serialize;

use crate::schema::{Node, Site, Topic};
use crate::units::{MIB, format_size};

/// The three classes of extents in bytes, and what each holds beside header and tail (storage-replication chapter, §3).
const CLASSES: [(u64, u64); 3] = [
    (MIB, MIB - 8 * 1024),
    (8 * MIB, 8 * MIB - 8 * 1024),
    (64 * MIB, 64 * MIB - 24 * 1024),
];
/// Partitions of `__consumer_offsets`, fixed at bootstrap.
pub const OFFSETS_PARTITIONS: u32 = 8;
/// What topics made at run time are left with, in percent of what named quotas leave.
const RUN_TIME_PERCENT: u64 = 10;
/// Internal topics and the compactor, in percent of a disk.
const INTERNAL_PERCENT: u64 = 1;
/// The least share: below it a topic of Kafka's default batches could not hold two extents.
pub const SHARE_BYTES_MIN: u64 = 8 * MIB;
/// A topic made at run time gets this part of what is unreserved then, split over its partitions.
pub const RUN_TIME_SHARE: u64 = 32;
/// A checkpoint's body: open indexes 32 MiB, producer windows 8, partitions and site log 8.
const CHECKPOINT_BODY_BYTES: u64 = 48 * MIB;
/// A small disk has few partitions: its checkpoints take at most this part of it each.
const CHECKPOINT_PART: u64 = 64;
/// Rows of 64 B for each 64 MiB.
const TABLE_BYTES_PER: u64 = MIB;

/// How much of each disk is ours, by node and disk; `None` where only the machine itself knows.
pub type DiskSizes = Vec<Vec<Option<u64>>>;

/// The sizes that the site file names. A disk that takes a share of what is free is known on its machine only.
#[must_use]
pub fn known_disks(site: &Site) -> DiskSizes {
    site.nodes
        .iter()
        .map(|node| node.disks.iter().map(|disk| disk.usage.known()).collect())
        .collect()
}

/// One extent of the class that holds a batch of so many bytes; the largest class if none does.
#[must_use]
pub fn extent_for(max_message_bytes: u32) -> u64 {
    let holds = |(_, data): &&(u64, u64)| *data >= u64::from(max_message_bytes);
    CLASSES.iter().find(holds).unwrap_or(&CLASSES[2]).0
}

/// A disk divided up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiskSpace {
    /// All that is ours.
    pub use_bytes: u64,
    /// The journal ring, if it lies on this disk.
    pub journal_bytes: u64,
    /// Both copies of the checkpoint.
    pub checkpoint_bytes: u64,
    /// For internal topics and the compactor.
    pub internal_bytes: u64,
    /// What topics may reserve.
    pub topics_bytes: u64,
}

impl DiskSpace {
    /// Divides up a disk of which `use_bytes` are ours.
    #[must_use]
    pub fn of(use_bytes: u64, journal_on_disk: u64) -> Self {
        let checkpoint_bytes = 2
            * (use_bytes / TABLE_BYTES_PER
                + CHECKPOINT_BODY_BYTES.min(use_bytes / CHECKPOINT_PART));
        let net = use_bytes
            .saturating_sub(journal_on_disk)
            .saturating_sub(checkpoint_bytes);
        let internal_bytes = net / 100 * INTERNAL_PERCENT;
        Self {
            use_bytes,
            journal_bytes: journal_on_disk,
            checkpoint_bytes,
            internal_bytes,
            topics_bytes: net - internal_bytes,
        }
    }

    /// What extents may take: the topics' share and the internal one.
    #[must_use]
    pub const fn extent_bytes(&self) -> u64 {
        self.topics_bytes + self.internal_bytes
    }
}

/// A topic's quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicQuota {
    /// The topic.
    pub topic: String,
    /// How many partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication: u16,
    /// Per partition; `None` for a share of disks whose size is not known here.
    pub quota_bytes: Option<u64>,
    /// One extent more, per replica.
    pub extent_bytes: u64,
    /// A share of what is unreserved; else the site file names it.
    pub shared: bool,
}

/// What one disk has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskLoad {
    /// The disk divided up, if its size is known.
    pub space: Option<DiskSpace>,
    /// Bytes reserved for topics.
    pub reserved_bytes: u64,
    /// Replicas on it, as (place in [`Site::topics`], partition).
    pub replicas: Vec<(usize, u32)>,
    /// Of these, replicas of topics with a shared quota.
    shared: u64,
    /// Their extents.
    shared_extents: u64,
}

impl DiskLoad {
    /// Bytes that topics may still reserve; `None` if its size is not known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        Some(self.space?.topics_bytes.saturating_sub(self.reserved_bytes))
    }
}

/// A topic that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Its place in [`Site::topics`].
    pub topic: usize,
    name: String,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// A replica of a named quota finds no disk.
    Quota {
        partition: u32,
        need: u64,
        extent: u64,
        node: String,
        left: u64,
    },
    /// What is left makes shares below the least.
    Share { share: u64, node: String },
    /// A node would keep more replicas than its bound.
    Replicas { node: String, bound: u32 },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.why {
            Why::Quota {
                partition,
                need,
                extent,
                node,
                left,
            } => write!(
                f,
                "topic \"{name}\" does not fit: partition {partition} needs {} and one extent of {} on node \"{node}\", whose emptiest disk has {} left; use more of the disks, or give topics less",
                format_size(*need),
                format_size(*extent),
                format_size(*left),
            ),
            Why::Share { share, node } => write!(
                f,
                "topic \"{name}\" names no `retention.bytes` and does not fit: its share of what is left on node \"{node}\" would be {} per partition, at least {} are needed; use more of the disks, or give topics less",
                format_size(*share),
                format_size(SHARE_BYTES_MIN),
            ),
            Why::Replicas { node, bound } => write!(
                f,
                "topic \"{name}\" does not fit: node \"{node}\" would keep more than {bound} replicas; make fewer partitions, or raise `limits.replicas` if it is below the most",
            ),
        }
    }
}

/// All quotas of a site, and what each disk has to hold for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteQuotas {
    /// By place in [`Site::topics`].
    pub topics: Vec<TopicQuota>,
    /// By node and disk.
    pub disks: Vec<Vec<DiskLoad>>,
    /// Topics that do not fit; empty for a site that keeps its promises.
    pub misfits: Vec<Misfit>,
}

/// Deals the topics of the site file out to its disks. The same site and sizes give the same answer on every node.
#[must_use]
pub fn site_quotas(site: &Site, sizes: &DiskSizes) -> SiteQuotas {
    let mut dealer = Dealer {
        site,
        disks: site
            .nodes
            .iter()
            .enumerate()
            .map(|(at, node)| empty_disks(node, sizes.get(at)))
            .collect(),
        internal: internal_replicas(site),
        turn: 0,
        misfits: Vec::new(),
    };
    let named = |topic: &&(usize, &Topic)| site.named_quota(topic.1).is_some();
    let topics: Vec<(usize, &Topic)> = site.topics.iter().enumerate().collect();
    // Named quotas first: the shares are made of what they leave.
    for (at, topic) in topics.iter().filter(named) {
        let quota = site.named_quota(topic).unwrap_or_default();
        dealer.deal(*at, topic, Some(quota));
    }
    for (at, topic) in topics.iter().filter(|topic| !named(topic)) {
        dealer.deal(*at, topic, None);
    }
    let share = dealer.share();
    dealer.reserve_shares(share, &topics);
    let quotas = topics.iter().map(|(_, topic)| {
        let named = site.named_quota(topic);
        TopicQuota {
            topic: topic.name.clone(),
            partitions: topic.partitions,
            replication: topic.replication,
            quota_bytes: named.or(share),
            extent_bytes: extent_for(topic.max_message_bytes()),
            shared: named.is_none(),
        }
    });
    SiteQuotas {
        topics: quotas.collect(),
        disks: dealer.disks,
        misfits: dealer.misfits,
    }
}

/// Replicas of internal topics on each node: `__consumer_offsets` with min(3, nodes) replicas, dealt in turn.
#[must_use]
pub fn internal_replicas(site: &Site) -> u32 {
    let nodes = u32::try_from(site.nodes.len()).unwrap_or(u32::MAX).max(1);
    (OFFSETS_PARTITIONS * nodes.min(3)).div_ceil(nodes)
}

fn empty_disks(node: &Node, sizes: Option<&Vec<Option<u64>>>) -> Vec<DiskLoad> {
    let size = |at: usize| sizes.and_then(|sizes| sizes.get(at).copied().flatten());
    let on_disk = |at: usize| {
        let journal = &node.disks[at].journal;
        if journal.place.is_none() {
            journal.bytes
        } else {
            0
        }
    };
    (0..node.disks.len())
        .map(|at| DiskLoad {
            space: size(at).map(|bytes| DiskSpace::of(bytes, on_disk(at))),
            ..DiskLoad::default()
        })
        .collect()
}

struct Dealer<'s> {
    site: &'s Site,
    disks: Vec<Vec<DiskLoad>>,
    internal: u32,
    /// Nodes take the first replica of a partition in turn, over all topics.
    turn: usize,
    misfits: Vec<Misfit>,
}

impl Dealer<'_> {
    /// Deals one topic out; with `quota`, reserves it. A topic that does not fit is noted once and takes no more room.
    fn deal(&mut self, at: usize, topic: &Topic, quota: Option<u64>) {
        let nodes = self.disks.len();
        let extent = extent_for(topic.max_message_bytes());
        for partition in 0..topic.partitions {
            let first = self.turn % nodes.max(1);
            self.turn += 1;
            for replica in 0..usize::from(topic.replication).min(nodes) {
                let node = (first + replica) % nodes;
                if let Err(why) = self.place(node, at, partition, quota, extent) {
                    self.misfits.push(Misfit {
                        topic: at,
                        name: topic.name.clone(),
                        why,
                    });
                    return;
                }
            }
        }
    }

    fn place(
        &mut self,
        node: usize,
        topic: usize,
        partition: u32,
        quota: Option<u64>,
        extent: u64,
    ) -> Result<(), Why> {
        let name = || self.site.nodes[node].name.clone();
        let held: usize = self.disks[node]
            .iter()
            .map(|disk| disk.replicas.len())
            .sum();
        if held as u64 + u64::from(self.internal) >= u64::from(self.site.limits.replicas) {
            return Err(Why::Replicas {
                node: name(),
                bound: self.site.limits.replicas,
            });
        }
        // A disk of unknown size takes what it is given: its machine will refuse at start what does not fit.
        let room = |disk: &DiskLoad| match quota {
            Some(_) => disk.left().unwrap_or(u64::MAX),
            None => disk
                .left()
                .map_or(u64::MAX, |left| left / (disk.shared + 1)),
        };
        // The emptiest disk, the first of equals; fewest replicas decide among those of unknown size.
        let best = (0..self.disks[node].len())
            .min_by_key(|at| {
                let disk = &self.disks[node][*at];
                (std::cmp::Reverse(room(disk)), disk.replicas.len(), *at)
            })
            .expect("a node has a disk");
        let left = self.disks[node][best].left();
        let disk = &mut self.disks[node][best];
        match quota {
            Some(quota) => {
                let need = quota.saturating_add(extent);
                if let Some(left) = left
                    && left < need
                {
                    return Err(Why::Quota {
                        partition,
                        need: quota,
                        extent,
                        node: name(),
                        left,
                    });
                }
                disk.reserved_bytes = disk.reserved_bytes.saturating_add(need);
            }
            None => {
                disk.shared += 1;
                disk.shared_extents += extent;
            }
        }
        disk.replicas.push((topic, partition));
        Ok(())
    }

    /// What a partition without a quota of its own gets: as much as the fullest disk can give each of its own.
    /// `None` if there is none, or a size is not known.
    fn share(&self) -> Option<u64> {
        let asked = || self.disks.iter().flatten().filter(|disk| disk.shared > 0);
        if asked().any(|disk| disk.space.is_none()) {
            return None;
        }
        let each = asked().map(Self::share_of);
        each.min().map(|share| share / MIB * MIB)
    }

    fn share_of(disk: &DiskLoad) -> u64 {
        let left = disk.left().unwrap_or_default();
        let given = u128::from(left) * u128::from(100 - RUN_TIME_PERCENT) / 100;
        let given = u64::try_from(given).expect("less than what is left");
        given.saturating_sub(disk.shared_extents) / disk.shared.max(1)
    }

    /// Reserves the shares, or notes the topics whose would be too small.
    fn reserve_shares(&mut self, share: Option<u64>, topics: &[(usize, &Topic)]) {
        let Some(share) = share else {
            return;
        };
        if share < SHARE_BYTES_MIN {
            let tight = |disks: &Vec<DiskLoad>| {
                disks
                    .iter()
                    .any(|disk| disk.shared > 0 && Self::share_of(disk) < SHARE_BYTES_MIN)
            };
            let node = self.disks.iter().position(tight).unwrap_or_default();
            for (at, topic) in topics
                .iter()
                .filter(|(_, topic)| self.site.named_quota(topic).is_none())
            {
                let why = Why::Share {
                    share,
                    node: self.site.nodes[node].name.clone(),
                };
                self.misfits.push(Misfit {
                    topic: *at,
                    name: topic.name.clone(),
                    why,
                });
            }
            return;
        }
        for disk in self.disks.iter_mut().flatten() {
            disk.reserved_bytes += disk.shared * share + disk.shared_extents;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn site(topics: &str) -> Site {
        let head = "[site]\nname = 'x'\n[[node]]\n\
            disk = [{ path = 'd', use = '100GiB' }, { path = 'e', use = '50GiB' }]\n";
        crate::parse(&format!("{head}{topics}"), "s.toml").unwrap()
    }

    fn dealt(site: &Site) -> SiteQuotas {
        site_quotas(site, &known_disks(site))
    }

    #[test]
    fn the_class_is_the_smallest_that_holds_the_batch() {
        assert_eq!(extent_for(1_000_000), MIB);
        assert_eq!(extent_for(1_048_588), 8 * MIB);
        assert_eq!(extent_for(8 << 20), 64 * MIB);
    }

    #[test]
    fn a_named_quota_is_reserved_with_one_extent_on_the_emptiest_disk() {
        let site = site("[[topic]]\nname = 't'\npartitions = 8\nretention = { bytes = '10GiB' }\n");
        let quotas = dealt(&site);
        let on = |disk: usize| quotas.disks[0][disk].replicas.len();
        assert_eq!(
            (on(0), on(1)),
            (6, 2),
            "98 GiB and 48 GiB, 10 GiB at a time from whichever has more"
        );
        assert_eq!(
            quotas.disks[0][1].reserved_bytes,
            2 * ((10 << 30) + 8 * MIB)
        );
        assert!(quotas.misfits.is_empty());
    }

    #[test]
    fn shares_split_what_named_quotas_leave_and_spare_a_tenth() {
        let site = site(
            "[[topic]]\nname = 'shared'\npartitions = 3\n[[topic]]\nname = 'named'\npartitions = 1\n\
            retention = { bytes = '10GiB' }\n",
        );
        let quotas = dealt(&site);
        let share = quotas.topics[0].quota_bytes.unwrap();
        for disk in &quotas.disks[0] {
            let shared = disk
                .replicas
                .iter()
                .filter(|(topic, _)| *topic == 0)
                .count() as u64;
            let named = disk.reserved_bytes - shared * (share + 8 * MIB);
            let offered = disk.space.unwrap().topics_bytes - named;
            assert!(
                shared * (share + 8 * MIB) <= offered / 10 * 9 + 9,
                "a tenth stays"
            );
            assert!(disk.left().unwrap() >= offered / 10);
        }
        let tightest = quotas.disks[0]
            .iter()
            .map(|disk| disk.left().unwrap())
            .min()
            .unwrap();
        let tenth = quotas.disks[0]
            .iter()
            .map(|disk| disk.space.unwrap().topics_bytes / 10)
            .max()
            .unwrap();
        assert!(
            tightest < tenth + 3 * MIB,
            "and no more on the tightest disk"
        );
    }

    #[test]
    fn a_disk_of_unknown_size_takes_named_quotas_and_gives_no_shares() {
        let text = "[site]\nname = 'x'\n[[node]]\n[[topic]]\nname = 'n'\nretention = { bytes = '1TB' }\n[[topic]]\nname = 's'\n";
        let site = crate::parse(text, "s.toml").unwrap();
        let quotas = dealt(&site);
        assert_eq!(quotas.topics[1].quota_bytes, None);
        assert_eq!(quotas.disks[0][0].left(), None);
        // Its machine knows, and there it does not fit.
        let known = site_quotas(&site, &vec![vec![Some(1 << 40)]]);
        assert_eq!(known.misfits.len(), 1);
        assert_eq!(known.misfits[0].topic, 0);
    }

    #[test]
    fn what_is_divided_up_is_all_there_is() {
        for bytes in [256 * MIB, 24 << 30, 4_000_000_000_000] {
            let space = DiskSpace::of(bytes, 64 * MIB);
            let sum = space.journal_bytes
                + space.checkpoint_bytes
                + space.internal_bytes
                + space.topics_bytes;
            assert_eq!(sum, bytes);
        }
    }
}
