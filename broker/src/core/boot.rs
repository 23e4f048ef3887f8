//! From opened disks to a node that decides: the broker as the disks left it, and what the site file says to it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use node::broker::{self, Broker, Input};
use node::catalog::{Declared, Rules, SnapshotFault};
use node::controller::{self, Wanted};
use node::sitelog::{self, Disk, HardState, Index, LogEntry};
use node::{Outbox, coordinator};
use site::{Keep, OnFull, Site, quota};
use slab::Slab;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

use super::{Core, Held, Inner, admin};
use crate::clock;
use crate::counters::Counters;
use crate::listener::Census;
use crate::pool::{BodyPool, POOL_BYTES};
use crate::random;
use crate::sessions::Sessions;
use crate::spindle::open::{Opened, journal_on_disk};
use crate::spindle::{self, Spindle};

/// What a node starts from.
pub(crate) struct Start {
    pub(crate) site: Site,
    /// Its place among the site's nodes.
    pub(crate) node: usize,
    /// Meta disk first.
    pub(crate) disks: Vec<Opened>,
    /// What the site file calls the disks that are not there.
    pub(crate) away: Vec<String>,
}

/// Why it does not start.
#[derive(Debug, Error)]
pub(crate) enum StartFault {
    #[error("{0}")]
    Snapshot(#[from] SnapshotFault),
    #[error("a disk's thread: {0}")]
    Thread(#[from] io::Error),
}

impl Core {
    /// Starts the disks' threads and every machine. The node serves when [`Core::ready`] returns.
    pub(crate) fn start(start: Start) -> Result<Rc<Self>, StartFault> {
        let Start {
            site,
            node,
            disks,
            away,
        } = start;
        let (events, told) = mpsc::unbounded_channel();
        let meta = &disks[0].recovered;
        let me = meta.superblock.node;
        let site_id = meta.superblock.site;
        let settings = settings(&site, node, &disks);
        let found = disks.iter().enumerate().flat_map(|(disk, opened)| {
            let rows = opened.recovered.replicas.iter();
            rows.map(move |row| ((disk, row.id), row.part))
        });
        let found = found.collect();
        let broker = Broker::new(settings, held(&disks))?;
        for opened in &disks {
            for note in &opened.recovered.notes {
                tracing::warn!(disk = %opened.place.path.display(), "{note}");
            }
        }
        let spindles = disks
            .into_iter()
            .enumerate()
            .map(|(at, opened)| Spindle::start(at, opened, site.clock, events.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let inner = Inner {
            me,
            broker,
            spindles,
            replicas: Held::default(),
            topics_by_name: HashMap::new(),
            topics_by_id: BTreeMap::new(),
            pids: admin::Pids::default(),
            jobs: Slab::new(),
            tickets: Slab::new(),
            payloads: super::Payloads::default(),
            todo: VecDeque::new(),
            out: Outbox::new(),
            // As Kafka writes a cluster's UUID: 22 characters.
            cluster_id: URL_SAFE_NO_PAD.encode(site_id.0.0),
            found,
            chores: super::disks::Chores::default(),
            compaction: super::compaction::Lines::default(),
            stopped: 0,
            progress: Rc::new(Notify::new()),
            stopping: false,
        };
        let core = Rc::new(Self {
            bodies: BodyPool::new(POOL_BYTES),
            counters: Counters::default(),
            census: Rc::new(Census::default()),
            sessions: RefCell::new(Sessions::default()),
            site,
            node,
            away,
            started: clock::now(),
            advertised: Cell::new(None),
            http: Cell::new(None),
            end: RefCell::new(None),
            end_told: Notify::new(),
            inner: RefCell::new(inner),
        });
        spawn_local(core.clone().listen(told));
        core.with(|inner| {
            // Groups' records are stamped with the time of day.
            inner.tell_time(&core);
            inner.todo.push_back(Input::Start);
        });
        spawn_local(core.clone().tick());
        Ok(core)
    }
}

fn settings(site: &Site, node: usize, disks: &[Opened]) -> broker::Settings {
    let meta = &disks[0].recovered.superblock;
    let declared = declared(site, node, disks).into_iter();
    let wanted = declared.map(|it| Wanted::Declared(it, admin::new_topic_id()));
    broker::Settings {
        sitelog: sitelog::Settings::alone(meta.node, meta.incarnation),
        controller: controller::Settings {
            voters: vec![meta.node],
            // Of the site file, not those that are here: fewer than it names are away, not taken out.
            nodes: vec![(meta.node, site.nodes[node].disks.len())],
            digest: u64::from_le_bytes(*site.digest.first_chunk().expect("a digest is 32 bytes")),
            version: 1,
            hear: sitelog::Timing::LAN.heartbeat,
        },
        coordinator: coordinator::Settings {
            join_delay: std::time::Duration::from_millis(site.defaults.join_delay_ms.into()),
            ..coordinator::Settings::default()
        },
        rules: rules(site),
        wanted: wanted
            .chain([Wanted::Offsets(admin::new_topic_id())])
            .collect(),
        site: meta.site,
        boot: random::boot(),
    }
}

/// What the disks hold, in the broker's words.
fn held(disks: &[Opened]) -> broker::Start {
    let meta = &disks[0].recovered;
    let (term, voted_for) = meta.hard_state;
    let snapshot = meta.snapshot.as_ref();
    let hole = |note: &store::Note| matches!(note, store::Note::SiteHole(_));
    broker::Start {
        hard_state: HardState { term, voted_for },
        snapshot: snapshot.map(|it| (Index(it.index), it.term, it.bytes.to_vec())),
        entries: meta
            .entries
            .iter()
            .map(|entry| LogEntry {
                index: Index(entry.index),
                term: entry.term,
                bytes: entry.bytes.clone(),
            })
            .collect(),
        whole: !meta.suspect() && !meta.notes.iter().any(hole),
        disks: disks
            .iter()
            .map(|opened| broker::DiskStart {
                disk: promised(opened),
                out: opened.disk.is_none(),
                found: found(&opened.recovered),
            })
            .collect(),
    }
}

/// What recovery found on a disk, in the broker's words.
pub(super) fn found(recovered: &store::Recovered) -> broker::DiskFound {
    let replicas = recovered.replicas.iter().map(|row| {
        let mut windows = Vec::new();
        recovered.windows.encode(row.part, &mut windows);
        broker::ReplicaFound {
            id: row.id,
            recovered: spindle::recovered(row),
            windows,
            hole: row.hole.is_some(),
        }
    });
    broker::DiskFound {
        suspect: recovered.suspect(),
        replicas: replicas.collect(),
    }
}

/// A disk and what topics may reserve on it.
fn promised(opened: &Opened) -> Disk {
    let space = quota::DiskSpace::of(opened.use_bytes, journal_on_disk(&opened.place));
    Disk {
        uuid: opened.recovered.superblock.disk,
        bytes: space.topics_bytes,
    }
}

fn rules(site: &Site) -> Rules {
    let defaults = &site.defaults;
    Rules {
        partitions: defaults.partitions,
        replication: defaults.replication,
        min_insync: defaults.min_insync,
        retention_ms: match defaults.retention.time {
            Some(Keep::Ms(ms)) => i64::try_from(ms).unwrap_or(i64::MAX),
            Some(Keep::Forever) => -1,
            None => RETENTION_MS,
        },
        retention_bytes: defaults.retention.bytes,
        refuse_when_full: defaults.on_full == OnFull::Refuse,
        create_topics: defaults.create_topics,
        replicas_max: site.limits.replicas,
        message_bytes_max: site::MAX_MESSAGE_BYTES_MAX,
        message_bytes: site::MAX_MESSAGE_BYTES_DEFAULT,
        extent_for: quota::extent_for,
        share_bytes_min: quota::SHARE_BYTES_MIN,
        share_part: quota::RUN_TIME_SHARE,
    }
}

/// Kafka's `log.retention.hours`, 168.
const RETENTION_MS: i64 = 7 * 24 * 3600 * 1000;

fn declared(site: &Site, node: usize, disks: &[Opened]) -> Vec<Declared> {
    let mut sizes = quota::known_disks(site);
    // `disks` begins with the meta disk, the site file need not.
    for (at, size) in sizes[node].iter_mut().enumerate() {
        let opened = disks.iter().find(|opened| opened.place.at == at);
        *size = opened.map(|opened| opened.use_bytes).or(*size);
    }
    let quotas = quota::site_quotas(site, &sizes);
    site.topics
        .iter()
        .map(|topic| Declared {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replication: topic.replication,
            configs: topic.configs(),
            share: quotas
                .topics
                .iter()
                .find(|it| it.topic == topic.name && it.shared)
                .and_then(|it| it.quota_bytes),
        })
        .collect()
}
