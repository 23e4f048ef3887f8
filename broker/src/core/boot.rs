//! From opened disks to a node that decides: the machines as the disks left them, then what a new controller adds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::window::{PAIRS_MAX, Windows};
use model::{Instant, SiteUuid, TopicId};
use node::catalog::{Catalog, Declared, Rules, SnapshotFault};
use node::coordinator::Coordinator;
use node::sitelog::{self, Disk, Entry, HardState, Index, LogEntry, SiteLog};
use node::{Outbox, coordinator};
use site::{Keep, OnFull, Site, quota};
use slab::Slab;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

use super::{Core, Found, Inner, Todo, admin};
use crate::clock;
use crate::counters::Counters;
use crate::listener::Census;
use crate::pool::{BodyPool, POOL_BYTES};
use crate::sessions::Sessions;
use crate::spindle::open::{Opened, journal_on_disk};
use crate::spindle::{After, Op, Spindle};

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

/// What founding needs after the machines run.
struct Founding {
    site: SiteUuid,
    incarnation: model::Incarnation,
    disks: Vec<Disk>,
    declared: Vec<Declared>,
    /// Recovery found the site log whole: replicas that it does not name are of deleted topics.
    whole: bool,
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
        let rules = rules(&site);
        let catalog = match &meta.snapshot {
            Some(snapshot) => Catalog::decode(&snapshot.bytes, me, rules)?,
            None => Catalog::new(me, rules),
        };
        let founding = Founding {
            site: meta.superblock.site,
            incarnation: meta.superblock.incarnation,
            disks: disks.iter().map(promised).collect(),
            declared: declared(&site, node, &disks),
            whole: !meta.suspect()
                && !meta
                    .notes
                    .iter()
                    .any(|note| matches!(note, store::Note::SiteHole(_))),
        };
        let settings = sitelog::Settings::alone(me, founding.incarnation);
        let sitelog = SiteLog::new(settings, site_log(meta, &catalog));
        let mut found = BTreeMap::new();
        for (disk, opened) in disks.iter().enumerate() {
            for note in &opened.recovered.notes {
                tracing::warn!(disk = %opened.place.path.display(), "{note}");
            }
            for row in &opened.recovered.replicas {
                let mut windows = Vec::new();
                opened.recovered.windows.encode(row.part, &mut windows);
                found.insert(
                    (row.id.topic, row.id.partition.0),
                    Found {
                        disk,
                        row: row.clone(),
                        windows,
                    },
                );
            }
        }
        let spindles = disks
            .into_iter()
            .enumerate()
            .map(|(at, opened)| Spindle::start(at, opened, site.clock, events.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let settings = coordinator::Settings {
            join_delay: std::time::Duration::from_millis(site.defaults.join_delay_ms.into()),
            ..coordinator::Settings::default()
        };
        let inner = Inner {
            me,
            spindles,
            replicas: Slab::new(),
            by_partition: BTreeMap::new(),
            topics_by_name: HashMap::new(),
            topics_by_id: BTreeMap::new(),
            sitelog,
            catalog,
            coordinator: Coordinator::new(settings),
            windows: Windows::new(PAIRS_MAX),
            pids: admin::Pids::default(),
            jobs: Slab::new(),
            tickets: Slab::new(),
            payloads: super::Payloads::default(),
            todo: VecDeque::new(),
            partition_out: Outbox::new(),
            sitelog_out: Outbox::new(),
            coordinator_out: Outbox::new(),
            lease_until: Instant(0),
            controller: false,
            founded: false,
            // As Kafka writes a cluster's UUID: 22 characters.
            cluster_id: URL_SAFE_NO_PAD.encode(founding.site.0.0),
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
            changes: tokio::sync::Mutex::new(()),
            inner: RefCell::new(inner),
        });
        spawn_local(core.clone().listen(told));
        core.with(|inner| {
            // Replicas that the snapshot names come first; their leaders come with the entries behind it.
            let mut out = Outbox::new();
            inner.catalog.replicas_here(&mut out);
            inner.catalog_effects(&core, &mut out);
            inner.todo.push_back(Todo::SiteLog(sitelog::Input::Start));
        });
        spawn_local(core.clone().tick());
        spawn_local(core.clone().found(founding));
        Ok(core)
    }

    /// What a controller adds to the site log when it takes office: the site, itself, a new leader epoch for every
    /// partition (R1), and the topics that the site file and the broker want.
    async fn found(self: Rc<Self>, founding: Founding) {
        self.controlling().await;
        let site = self.inner.borrow().catalog.found(founding.site);
        if let Some(entry) = site {
            self.enter(entry).await;
        }
        let registered = self
            .inner
            .borrow()
            .catalog
            .register(founding.incarnation, &founding.disks);
        if let Some(entry) = registered {
            self.enter(entry).await;
        }
        let elections = self.inner.borrow().catalog.elections(None);
        for entry in elections {
            self.enter(entry).await;
        }
        for declared in &founding.declared {
            let planned = self
                .inner
                .borrow()
                .catalog
                .reconcile(declared, admin::new_topic_id());
            match planned {
                Ok(Some(entry)) => self.enter(entry).await,
                Ok(None) => {}
                // The site file was checked against the sizes it names; this machine's disks may be smaller.
                Err(fault) => {
                    tracing::error!(topic = declared.name, %fault, "the site file promises what this node can't keep")
                }
            }
        }
        let offsets = self
            .inner
            .borrow()
            .catalog
            .offsets_topic(admin::new_topic_id());
        match offsets {
            Ok(Some(entry)) => self.enter(entry).await,
            Ok(None) => {}
            Err(fault) => tracing::error!(%fault, "no room for consumer groups"),
        }
        self.with(|inner| {
            inner.founded = true;
            inner.let_go_unknown(founding.whole);
            inner.progress.notify_waiters();
        });
    }

    async fn controlling(&self) {
        let progress = self.inner.borrow().progress.clone();
        loop {
            let moved = progress.notified();
            if self.inner.borrow().controller {
                return;
            }
            moved.await;
        }
    }

    /// Brings one of the broker's own entries into the site log, however long the disk takes.
    async fn enter(self: &Rc<Self>, entry: Entry) {
        while let Err(refusal) = self.propose(&sitelog::Record::broker(entry.clone())).await {
            tracing::warn!(?refusal, "the site log took no entry of the broker's");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// New leader epochs for partitions whose disk is back.
    pub(super) fn lead_again(self: &Rc<Self>, partitions: Vec<(TopicId, u32)>) {
        if partitions.is_empty() {
            return;
        }
        let core = self.clone();
        spawn_local(async move {
            // Planned against what another change has not overtaken: a row of an older version would be passed over.
            let _one = core.changes.lock().await;
            let elections = core.inner.borrow().catalog.elections(None);
            for entry in elections {
                let Entry::Partition(topics) = entry else {
                    continue;
                };
                let topics: Vec<_> = topics
                    .into_iter()
                    .map(|(topic, mut rows)| {
                        rows.retain(|row| partitions.contains(&(topic, row.partition.0)));
                        (topic, rows)
                    })
                    .filter(|(_, rows)| !rows.is_empty())
                    .collect();
                if !topics.is_empty() {
                    core.enter(Entry::Partition(topics)).await;
                }
            }
        });
    }
}

/// The disk takes an entry within milliseconds, or has failed; then the node ends.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

impl Inner {
    /// Replicas that a disk holds and the whole site log does not name: their topics were deleted, and the disk did not
    /// hear of it before a crash. Where the log is not whole they stay.
    fn let_go_unknown(&mut self, whole: bool) {
        for ((topic, partition), Found { disk, row, .. }) in std::mem::take(&mut self.found) {
            tracing::warn!(
                ?topic,
                partition,
                disk,
                whole,
                "a replica that no topic has"
            );
            if whole {
                self.spindles[disk].push(Op::PartDel { part: row.part }, After::Nothing);
            }
        }
    }
}

fn site_log(meta: &store::Recovered, catalog: &Catalog) -> sitelog::Recovered {
    let (term, voted_for) = meta.hard_state;
    sitelog::Recovered {
        hard_state: HardState { term, voted_for },
        snapshot: meta
            .snapshot
            .as_ref()
            .map_or_else(Default::default, |it| (Index(it.index), it.term)),
        voters: catalog.voters().cloned(),
        entries: meta
            .entries
            .iter()
            .map(|entry| LogEntry {
                index: Index(entry.index),
                term: entry.term,
                bytes: entry.bytes.clone(),
            })
            .collect(),
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
