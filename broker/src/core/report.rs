//! What the node says of itself, gathered from every machine and disk.

use std::time::Duration;

use node::coordinator;
use site::ClockSource;

use super::{Core, Inner};
use crate::clock::{self, Quality};
use crate::listener::CONNECTIONS_MAX;
use crate::spindle::{Condition, Spindle};
use crate::status::{
    Clock, Connections, Disk, Group, Latency, Node, Partitions, Pool, Requests, Site, Status,
    SuspectRange, Topic, Traffic,
};

impl Core {
    /// The whole state; walks every partition once.
    pub(crate) fn status(&self) -> Status {
        let not_ready = self.not_ready();
        let inner = self.inner.borrow();
        let counters = &self.counters;
        Status {
            product: "howdah",
            version: env!("CARGO_PKG_VERSION"),
            site: Site {
                name: self.site.name.clone(),
                cluster_id: inner.cluster_id.clone(),
                digest: self
                    .site
                    .digest
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            },
            node: Node {
                id: inner.me.0,
                name: self.node_name().to_owned(),
                ready: not_ready.is_empty(),
                not_ready,
                uptime_s: clock::now().since(self.started).as_secs(),
                role: if inner.broker.sitelog().is_controller() {
                    "controller"
                } else {
                    "follower"
                },
                term: inner.broker.sitelog().term().0,
                lease_ms: millis(inner.broker.lease_until().since(clock::now())),
                clock: self.clock(),
            },
            connections: Connections {
                open: self.census.total(),
                max: CONNECTIONS_MAX,
                failed: counters.connections_failed.get(),
                frames_refused: counters.frames_refused.get(),
            },
            traffic: Traffic {
                bytes_in: counters.bytes_in.get(),
                bytes_out: counters.bytes_out.get(),
                batches_in: counters.batches_in.get(),
                records_in: counters.records_in.get(),
            },
            partitions: Partitions {
                count: inner.replicas.len(),
                offline: inner
                    .replicas
                    .iter()
                    .filter(|(at, _)| !inner.leads(*at))
                    .count(),
            },
            disks: inner
                .spindles
                .iter()
                .enumerate()
                .map(|(at, spindle)| disk(&inner, at, spindle))
                .collect(),
            topics: inner.report_topics(),
            groups: inner.report_groups(),
            memory: self.pools(&inner),
            requests: counters
                .apis()
                .map(|(key, api)| Requests {
                    api: wire::Api::from_key(key)
                        .map_or_else(|| key.to_string(), |api| format!("{api:?}")),
                    count: api.latency.count(),
                    errors: api.errors.get(),
                    p50_ms: api.latency.percentile(50.0).as_secs_f64() * 1e3,
                    p99_ms: api.latency.percentile(99.0).as_secs_f64() * 1e3,
                    latency: Latency::of(&api.latency),
                })
                .collect(),
        }
    }

    fn clock(&self) -> Clock {
        let source = self.site.clock;
        let (quality, forward, left) = match clock::quality(source) {
            Quality::Trusted => ("trusted", Duration::ZERO, Duration::ZERO),
            Quality::Unsynchronised => ("unsynchronised", Duration::ZERO, Duration::ZERO),
            Quality::Stepped { forward, left } => ("stepped", forward, left),
        };
        Clock {
            quality,
            source: match source {
                ClockSource::Trusted => "trusted",
                ClockSource::Kernel => "kernel",
            },
            wall_ms: clock::wall().0,
            stepped_s: forward.as_secs(),
            believed_in_s: left.as_secs(),
        }
    }

    fn pools(&self, inner: &Inner) -> Vec<Pool> {
        let coordinator::Stats {
            members_bytes,
            offsets_bytes,
            ..
        } = inner.broker.coordinator().stats();
        let sessions = self.sessions.borrow();
        let pool = |pool: &str, used_bytes: u64, bytes_max: u64| Pool {
            pool: pool.to_owned(),
            used_bytes,
            bytes_max,
        };
        vec![
            pool(
                "receive-bodies",
                self.bodies.used_bytes() as u64,
                self.bodies.bytes_max() as u64,
            ),
            pool(
                "group-members",
                members_bytes as u64,
                node::group::MEMBERS_BYTES_MAX as u64,
            ),
            pool(
                "group-offsets",
                offsets_bytes as u64,
                node::group::OFFSETS_BYTES_MAX as u64,
            ),
            pool(
                "producer-windows",
                inner.broker.windows().pairs() as u64 * 128,
                u64::from(model::window::PAIRS_MAX) * 128,
            ),
            pool(
                "fetch-sessions",
                sessions.pairs() as u64 * 48,
                crate::sessions::PAIRS_MAX as u64 * 48,
            ),
            pool(
                "connections",
                self.census.total() as u64 * 6 * 1024,
                CONNECTIONS_MAX as u64 * 6 * 1024,
            ),
        ]
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn disk(inner: &Inner, at: usize, spindle: &Spindle) -> Disk {
    let stats = spindle.stats();
    let space = inner
        .broker
        .catalog()
        .disks()
        .into_iter()
        .find(|space| space.disk == spindle.uuid);
    let compaction = inner.compaction.totals(at);
    let (scrubbed_bytes, scrub_rounds) = spindle.reader().scrubbed();
    let ms = |percent: f64| spindle.commit.percentile(percent).as_secs_f64() * 1e3;
    Disk {
        path: spindle.path.display().to_string(),
        uuid: spindle.uuid.to_string(),
        state: match spindle.condition() {
            Condition::Serving if spindle.stalled() => "stalled",
            Condition::Serving if spindle.suspect => "suspect",
            Condition::Serving => "serving",
            Condition::Failed => "recovering",
            Condition::Out => "failed",
        }
        .to_owned(),
        suspect: spindle.suspect,
        use_bytes: spindle.use_bytes,
        reserved_bytes: space.map_or(0, |space| space.reserved),
        journal_bytes: spindle.journal_bytes,
        journal_used_bytes: stats.ring_used,
        dirty_bytes: stats.dirty_bytes,
        queue_ops: spindle.waiting(),
        groups: stats.groups,
        flushes: stats.groups + stats.settles,
        checkpoints: stats.checkpoints,
        failures: spindle.failures(),
        read_errors: spindle.read_errors(),
        scrubbed_bytes,
        scrub_rounds,
        suspect_ranges: inner.suspect_ranges(spindle),
        compactions: compaction.compactions,
        compaction_read_bytes: compaction.bytes_read,
        compaction_written_bytes: compaction.bytes_written,
        compaction_freed_bytes: compaction.bytes_freed,
        compaction_records_dropped: compaction.records_dropped,
        commit_p50_ms: ms(50.0),
        commit_p99_ms: ms(99.0),
        commit_worst_ms: spindle.commit.max().as_secs_f64() * 1e3,
        step_worst_ms: stats.step_worst.as_secs_f64() * 1e3,
        commit: Latency::of(&spindle.commit),
    }
}

impl Inner {
    fn suspect_ranges(&self, spindle: &Spindle) -> Vec<SuspectRange> {
        let suspects = spindle.suspects().into_iter();
        let ranges = suspects.map(|it| SuspectRange {
            topic: match self.topics_by_id.get(&it.id.topic) {
                Some(topic) => topic.name.to_string(),
                None => it.id.topic.to_string(),
            },
            partition: it.id.partition.0,
            first_offset: it.first.0,
            last_offset: it.last.0,
            damaged: it.damaged,
            why: it.why,
        });
        ranges.collect()
    }

    fn report_topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = self.topics_by_id.values().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
            .into_iter()
            .map(|topic| {
                let mut row = Topic {
                    name: topic.name.to_string(),
                    partitions: topic.partitions.len(),
                    records: 0,
                    bytes: 0,
                    quota_bytes: 0,
                };
                let here = topic
                    .partitions
                    .iter()
                    .filter_map(|partition| partition.replica);
                for at in here {
                    let Some((replica, machine)) =
                        self.replicas.get(at).zip(self.broker.partition(at))
                    else {
                        continue;
                    };
                    row.records += machine
                        .high_watermark()
                        .since(machine.log_start())
                        .max(0)
                        .unsigned_abs();
                    row.bytes += self.spindles[replica.disk]
                        .view()
                        .map_or(0, |view| view.bytes(replica.part));
                    row.quota_bytes = row.quota_bytes.saturating_add(replica.keep.quota_bytes);
                }
                row
            })
            .collect()
    }

    fn report_groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = self
            .broker
            .coordinator()
            .groups()
            .map(|(id, state, members)| Group {
                id: id.to_owned(),
                state: state.name().to_owned(),
                members,
                lag: 0,
            })
            .collect();
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        for (group, topic, partition, offset) in self.broker.coordinator().committed_offsets() {
            let Ok(at) = groups.binary_search_by(|row| row.id.as_str().cmp(group)) else {
                continue;
            };
            let replica = self
                .topics_by_name
                .get(topic)
                .and_then(|topic| topic.partition(partition)?.replica);
            if let Some(machine) = replica.and_then(|at| self.broker.partition(at)) {
                groups[at].lag += machine
                    .high_watermark()
                    .0
                    .saturating_sub(offset)
                    .max(0)
                    .unsigned_abs();
            }
        }
        groups
    }
}
