//! What a site asks of one node: disks, quotas, memory, file descriptors.
//!
//! The sums are those of the storage-replication chapter, §5 and §7: all pools full at once, page cache not counted.

use serde::Serialize;

use crate::quota::{DiskSizes, DiskSpace, SiteQuotas, internal_replicas, known_disks, site_quotas};
use crate::schema::Site;
use crate::units::{GIB, KIB, MIB};

/// Descriptors for everything else: sealed extents 512, journals, checkpoints, HTTP, peers, logs.
const DESCRIPTORS_REST: u64 = 1_024;

/// One node's part of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The node's name.
    pub node: String,
    /// Its number.
    pub id: u32,
    /// Its disks in the file's order.
    pub disks: Vec<DiskPlan>,
    /// Every topic of the site file, with its quota.
    pub topics: Vec<crate::quota::TopicQuota>,
    /// Replicas on this node for topics of the site file.
    pub replicas: u32,
    /// Replicas of internal topics beside them.
    pub internal_replicas: u32,
    /// What it takes when every pool is full.
    pub memory: Memory,
    /// File descriptors that it may need.
    pub descriptors: Descriptors,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskPlan {
    /// How it is found.
    pub place: String,
    /// Divided up; `None` if its size is known on its machine only.
    pub space: Option<DiskSpace>,
    /// Of its space, at most this share of what others leave free, in percent.
    pub of_free_percent: u8,
    /// The ring, wherever it lies.
    pub journal_bytes: u64,
    /// Bytes reserved for topics of the site file.
    pub reserved_bytes: u64,
    /// Bytes that topics made at run time may reserve.
    pub left_bytes: Option<u64>,
    /// Replicas expected here, by topic.
    pub replicas: Vec<TopicReplicas>,
}

/// Replicas of one topic on one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicReplicas {
    /// The topic.
    pub topic: String,
    /// How many of its partitions.
    pub count: u32,
}

/// Pools and their bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// In the order of the chapter's table.
    pub pools: Vec<Pool>,
    /// Their sum.
    pub bytes: u64,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// What it holds.
    pub name: &'static str,
    /// Its bound.
    pub bytes: u64,
}

/// File descriptors that a node may have open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptors {
    /// One per replica: its open extent.
    pub open_extents: u64,
    /// Clients.
    pub connections: u64,
    /// Everything else.
    pub rest: u64,
    /// All of them.
    pub sum: u64,
}

impl Descriptors {
    /// Why a machine whose hard limit (RLIMIT_NOFILE) is `hard` can't serve this node; `None` if it can. The sum is in
    /// the sentence.
    #[must_use]
    pub fn refusal(&self, hard: Option<u64>) -> Option<String> {
        let hard = hard.filter(|hard| *hard < self.sum)?;
        Some(format!(
            "this node may need {} file descriptors ({} open extents + {} connections + {} others), the hard limit is {hard}: raise it (ulimit -Hn, LimitNOFILE=), or lower `limits.connections` or `limits.replicas` in the site file",
            self.sum, self.open_extents, self.connections, self.rest
        ))
    }
}

/// What the site asks of the node at this place in [`Site::nodes`], as far as the site file alone tells.
#[must_use]
pub fn plan(site: &Site, node: usize) -> Option<Plan> {
    plan_with(site, node, &known_disks(site))
}

/// The same on a machine that knows how much of its disks is ours.
#[must_use]
pub fn plan_with(site: &Site, node: usize, sizes: &DiskSizes) -> Option<Plan> {
    let quotas = site_quotas(site, sizes);
    let own = site.nodes.get(node)?;
    let disks: Vec<DiskPlan> = own
        .disks
        .iter()
        .zip(&quotas.disks[node])
        .map(|(disk, load)| DiskPlan {
            place: disk.place.to_string(),
            space: load.space,
            of_free_percent: disk.usage.of_free_percent,
            journal_bytes: disk.journal.bytes,
            reserved_bytes: load.reserved_bytes,
            left_bytes: load.left(),
            replicas: by_topic(site, &load.replicas),
        })
        .collect();
    let replicas = disks
        .iter()
        .flat_map(|disk| &disk.replicas)
        .map(|topic| topic.count)
        .sum();
    Some(Plan {
        node: own.name.clone(),
        id: own.id,
        memory: memory(site, node, &quotas),
        descriptors: descriptors(site),
        disks,
        topics: quotas.topics,
        replicas,
        internal_replicas: internal_replicas(site),
    })
}

fn by_topic(site: &Site, replicas: &[(usize, u32)]) -> Vec<TopicReplicas> {
    let mut topics: Vec<(usize, u32)> = Vec::new();
    for (topic, _) in replicas {
        match topics.iter_mut().find(|(known, _)| known == topic) {
            Some((_, count)) => *count += 1,
            None => topics.push((*topic, 1)),
        }
    }
    topics.sort_unstable();
    topics
        .into_iter()
        .map(|(topic, count)| TopicReplicas {
            topic: site.topics[topic].name.clone(),
            count,
        })
        .collect()
}

fn descriptors(site: &Site) -> Descriptors {
    let open_extents = u64::from(site.limits.replicas);
    let connections = u64::from(site.limits.connections);
    Descriptors {
        open_extents,
        connections,
        rest: DESCRIPTORS_REST,
        sum: open_extents + connections + DESCRIPTORS_REST,
    }
}

/// The chapter's table, at the bounds that this site sets.
fn memory(site: &Site, node: usize, quotas: &SiteQuotas) -> Memory {
    /// 8 TB, what the chapter counts with, where a disk's size is not known.
    const UNKNOWN_DISK_BYTES: u64 = 8_000 * GIB;
    let replicas = u64::from(site.limits.replicas);
    let connections = u64::from(site.limits.connections);
    let disks = quotas.disks[node].len() as u64;
    // A row of 64 B for each 64 MiB of disk.
    let tables = quotas.disks[node]
        .iter()
        .map(|disk| {
            disk.space
                .map_or(UNKNOWN_DISK_BYTES, |space| space.use_bytes)
                / MIB
        })
        .sum();
    let pools: Vec<Pool> = [
        ("stacks, allocator, tables of names", 8 * MIB),
        ("receive bodies", 32 * MIB),
        // 4 KiB to receive into and 2 KiB of state.
        ("connections", connections * 6 * KIB),
        ("fetch sessions", 64 * KIB * 48),
        ("producer windows", 64 * KIB * 128),
        ("groups: members' bytes and offsets", 12 * MIB),
        (
            "partition machines, epochs, site log",
            replicas * 3 * KIB + 2 * MIB,
        ),
        ("tails of open extents", replicas * 4 * KIB),
        ("indexes of open extents", replicas * 16 * KIB),
        ("rows of small extents", replicas * 32 * 64),
        ("sealed indexes, compactor's key map", 12 * MIB),
        ("disks: groups, readers, frozen pages", disks * 12 * MIB),
        ("disks: extent tables", tables),
    ]
    .into_iter()
    .map(|(name, bytes)| Pool { name, bytes })
    .collect();
    let bytes = pools.iter().map(|pool| pool.bytes).sum();
    Memory { pools, bytes }
}
