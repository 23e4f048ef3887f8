//! `/metrics`: the node's state in the Prometheus text format, drawn from the same values as the status page.
//!
//! Every number stands in one table of its kind: what it is called, what it says, where it comes from.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::core::Core;
use crate::status::{Disk, Group, Latency, Pool, Requests, Status, Topic};

/// A metric of each `T`.
struct Row<T: 'static> {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> f64) -> Row<T> {
    Row {
        kind: Kind::Gauge,
        name,
        help,
        value,
    }
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> f64) -> Row<T> {
    Row {
        kind: Kind::Counter,
        name,
        help,
        value,
    }
}

const NODE: &[Row<Status>] = &[
    gauge("ready", "1 while the node serves", |it| {
        f64::from(u8::from(it.node.ready))
    }),
    gauge(
        "uptime_seconds",
        "Time since the process began to serve",
        |it| it.node.uptime_s as f64,
    ),
    gauge("connections", "Open Kafka connections", |it| {
        it.connections.open as f64
    }),
    gauge(
        "connections_bound",
        "Kafka connections beyond which none is taken",
        |it| it.connections.max as f64,
    ),
    counter(
        "connections_failed",
        "Connections ended for what the peer did or failed to do",
        |it| it.connections.failed as f64,
    ),
    counter("frames_refused", "Frames that could not be read", |it| {
        it.connections.frames_refused as f64
    }),
    counter("bytes_in", "Bytes of record batches accepted", |it| {
        it.traffic.bytes_in as f64
    }),
    counter("bytes_out", "Bytes of answers sent", |it| {
        it.traffic.bytes_out as f64
    }),
    counter("batches_in", "Record batches accepted", |it| {
        it.traffic.batches_in as f64
    }),
    counter("records_in", "Records accepted", |it| {
        it.traffic.records_in as f64
    }),
    gauge("partitions", "Partition replicas on this node", |it| {
        it.partitions.count as f64
    }),
    gauge(
        "partitions_offline",
        "Partitions of this node that can't be served",
        |it| it.partitions.offline as f64,
    ),
];

const REQUEST: &[Row<Requests>] = &[counter(
    "request_errors",
    "Errors in answers, by API",
    |it| it.errors as f64,
)];

const POOL: &[Row<Pool>] = &[
    gauge("memory_used_bytes", "Bytes in use of a memory pool", |it| {
        it.used_bytes as f64
    }),
    gauge("memory_bound_bytes", "Bound of a memory pool", |it| {
        it.bytes_max as f64
    }),
];

const DISK: &[Row<Disk>] = &[
    gauge("disk_serving", "1 while the disk takes writes", |it| {
        f64::from(u8::from(it.state == "serving" || it.state == "suspect"))
    }),
    gauge(
        "disk_stalled",
        "1 while a write has had no answer for more than 2 s",
        |it| f64::from(u8::from(it.state == "stalled")),
    ),
    gauge(
        "disk_suspect",
        "1 while the disk is SUSPECT: part of its journal was lost, and a person has not said yet what holds",
        |it| f64::from(u8::from(it.suspect)),
    ),
    gauge(
        "disk_failed",
        "1 while the disk is FAILED: out of service until a person has looked at it",
        |it| f64::from(u8::from(it.state == "failed")),
    ),
    gauge(
        "disk_suspect_ranges",
        "Ranges of logs that are SUSPECT: not what was written, or not to be read",
        |it| it.suspect_ranges.len() as f64,
    ),
    gauge(
        "disk_use_bytes",
        "Bytes of the disk given to the broker",
        |it| it.use_bytes as f64,
    ),
    gauge("disk_reserved_bytes", "Bytes promised to topics", |it| {
        it.reserved_bytes as f64
    }),
    gauge("disk_journal_bytes", "Size of the journal ring", |it| {
        it.journal_bytes as f64
    }),
    gauge(
        "disk_journal_used_bytes",
        "Bytes of the ring a restart would replay",
        |it| it.journal_used_bytes as f64,
    ),
    gauge(
        "disk_dirty_bytes",
        "Bytes in memory that lie only in the journal",
        |it| it.dirty_bytes as f64,
    ),
    gauge(
        "disk_queue_ops",
        "Operations waiting for the next group",
        |it| it.queue_ops as f64,
    ),
    gauge(
        "disk_worst_group_seconds",
        "The worst journal group since start",
        |it| it.commit_worst_ms / 1e3,
    ),
    gauge(
        "disk_worst_step_seconds",
        "The longest that background work stood between two journal groups since start",
        |it| it.step_worst_ms / 1e3,
    ),
    counter("disk_groups", "Journal groups written", |it| {
        it.groups as f64
    }),
    counter("disk_flushes", "Flushes of the device", |it| {
        it.flushes as f64
    }),
    counter("disk_checkpoints", "Checkpoints written", |it| {
        it.checkpoints as f64
    }),
    counter("disk_failures", "Times the disk failed since start", |it| {
        it.failures as f64
    }),
    counter(
        "disk_read_errors",
        "Reads of batches that the disk could not do, or that gave other bytes",
        |it| it.read_errors as f64,
    ),
    counter(
        "disk_scrubbed_bytes",
        "Bytes of sealed extents that the scrubber read since start",
        |it| it.scrubbed_bytes as f64,
    ),
    counter(
        "disk_scrub_rounds",
        "Times that the scrubber was through the whole disk since start",
        |it| it.scrub_rounds as f64,
    ),
    counter("disk_compactions", "Compactions that changed a log", |it| {
        it.compactions as f64
    }),
    counter(
        "disk_compaction_read_bytes",
        "Bytes that compaction read, in both passes",
        |it| it.compaction_read_bytes as f64,
    ),
    counter(
        "disk_compaction_written_bytes",
        "Bytes of batches in extents that compaction put in place",
        |it| it.compaction_written_bytes as f64,
    ),
    counter(
        "disk_compaction_freed_bytes",
        "Bytes by which compaction made logs shorter",
        |it| it.compaction_freed_bytes as f64,
    ),
    counter(
        "disk_compaction_records_dropped",
        "Records that compaction left out",
        |it| it.compaction_records_dropped as f64,
    ),
];

const TOPIC: &[Row<Topic>] = &[
    gauge("topic_bytes", "Bytes of a topic's extents", |it| {
        it.bytes as f64
    }),
    gauge("topic_quota_bytes", "Bytes promised to a topic", |it| {
        it.quota_bytes as f64
    }),
    gauge(
        "topic_offsets",
        "Offsets between a topic's log starts and high watermarks",
        |it| it.records as f64,
    ),
];

const GROUP: &[Row<Group>] = &[
    gauge("group_members", "Members of a consumer group", |it| {
        it.members as f64
    }),
    gauge(
        "group_lag",
        "Records between a group's commits and the high watermarks",
        |it| it.lag as f64,
    ),
];

/// The whole answer.
pub(crate) fn encode(core: &Core) -> String {
    let mut registry = Registry::with_prefix("howdah");
    registry.register_collector(Box::new(Scrape(Status::of(core))));
    let mut out = String::with_capacity(16 * 1024);
    // Writing to a String does not fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Scrape(Status);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(status) = self;
        let out = &mut encoder;
        for row in NODE {
            row.encode(
                out.encode_descriptor(row.name, row.help, None, row.metric())?,
                status,
            )?;
        }
        table(out, POOL, ("pool", |it| &it.pool), &status.memory)?;
        table(out, REQUEST, ("api", |it| &it.api), &status.requests)?;
        table(out, DISK, ("disk", |it| &it.path), &status.disks)?;
        table(out, TOPIC, ("topic", |it| &it.name), &status.topics)?;
        table(out, GROUP, ("group", |it| &it.id), &status.groups)?;
        histograms(
            out,
            "request_seconds",
            "From the whole request to its answer, waits included",
            "api",
            status.requests.iter().map(|it| (&*it.api, &it.latency)),
        )?;
        histograms(
            out,
            "disk_commit_seconds",
            "From taking a group to its flush",
            "disk",
            status.disks.iter().map(|it| (&*it.path, &it.commit)),
        )
    }
}

impl<T> Row<T> {
    const fn metric(&self) -> MetricType {
        match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        }
    }

    fn encode(&self, out: MetricEncoder<'_>, it: &T) -> Result<(), Error> {
        let value = (self.value)(it);
        match self.kind {
            Kind::Gauge => ConstGauge::new(value).encode(out),
            Kind::Counter => ConstCounter::new(value).encode(out),
        }
    }
}

/// Each row for each of `items`, under a label with its name.
fn table<T>(
    out: &mut DescriptorEncoder<'_>,
    rows: &[Row<T>],
    (label, name): (&'static str, fn(&T) -> &str),
    items: &[T],
) -> Result<(), Error> {
    for row in rows {
        let mut family = out.encode_descriptor(row.name, row.help, None, row.metric())?;
        for it in items {
            row.encode(family.encode_family(&[(label, name(it))])?, it)?;
        }
    }
    Ok(())
}

fn histograms<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    rows: impl Iterator<Item = (&'a str, &'a Latency)>,
) -> Result<(), Error> {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (of, latency) in rows {
        family
            .encode_family(&[(label, of)])?
            .encode_histogram::<NoLabelSet>(latency.sum_s, latency.count, &latency.buckets, None)?;
    }
    Ok(())
}
