//! `/metrics`: the node's state in the Prometheus text format, drawn from the same values as the status page.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::core::Core;
use crate::status::{Latency, Status};

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
        gauge(
            out,
            "ready",
            "1 while the node serves",
            f64::from(u8::from(status.node.ready)),
        )?;
        gauge(
            out,
            "uptime_seconds",
            "Time since the process began to serve",
            status.node.uptime_s as f64,
        )?;
        gauge(
            out,
            "connections",
            "Open Kafka connections",
            status.connections.open as f64,
        )?;
        gauge(
            out,
            "connections_bound",
            "Kafka connections beyond which none is taken",
            status.connections.max as f64,
        )?;
        counter(
            out,
            "connections_failed",
            "Connections ended for what the peer did or failed to do",
            status.connections.failed,
        )?;
        counter(
            out,
            "frames_refused",
            "Frames that could not be read",
            status.connections.frames_refused,
        )?;
        counter(
            out,
            "bytes_in",
            "Bytes of record batches accepted",
            status.traffic.bytes_in,
        )?;
        counter(
            out,
            "bytes_out",
            "Bytes of answers sent",
            status.traffic.bytes_out,
        )?;
        counter(
            out,
            "batches_in",
            "Record batches accepted",
            status.traffic.batches_in,
        )?;
        counter(
            out,
            "records_in",
            "Records accepted",
            status.traffic.records_in,
        )?;
        gauge(
            out,
            "partitions",
            "Partition replicas on this node",
            status.partitions.count as f64,
        )?;
        gauge(
            out,
            "partitions_offline",
            "Partitions of this node that can't be served",
            status.partitions.offline as f64,
        )?;
        self.requests(out)?;
        self.pools(out)?;
        self.disks(out)?;
        self.topics(out)?;
        self.groups(out)
    }
}

impl Scrape {
    fn requests(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut family = out.encode_descriptor(
            "request_seconds",
            "From the whole request to its answer, waits included",
            None,
            MetricType::Histogram,
        )?;
        for request in &self.0.requests {
            histogram(
                family.encode_family(&[("api", request.api.as_str())])?,
                &request.latency,
            )?;
        }
        let rows = self
            .0
            .requests
            .iter()
            .map(|request| ([("api", request.api.as_str())], request.errors as f64));
        counters(out, "request_errors", "Errors in answers, by API", rows)
    }

    fn pools(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let pools = &self.0.memory;
        let used = pools
            .iter()
            .map(|pool| ([("pool", pool.pool.as_str())], pool.used_bytes as f64));
        gauges(
            out,
            "memory_used_bytes",
            "Bytes in use of a memory pool",
            used,
        )?;
        let bound = pools
            .iter()
            .map(|pool| ([("pool", pool.pool.as_str())], pool.bytes_max as f64));
        gauges(out, "memory_bound_bytes", "Bound of a memory pool", bound)
    }

    fn disks(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        type Row = (&'static str, &'static str, fn(&crate::status::Disk) -> f64);
        const GAUGES: [Row; 10] = [
            ("disk_serving", "1 while the disk takes writes", |disk| {
                f64::from(u8::from(disk.state == "serving"))
            }),
            (
                "disk_stalled",
                "1 while a write has had no answer for more than 2 s",
                |disk| f64::from(u8::from(disk.state == "stalled")),
            ),
            (
                "disk_use_bytes",
                "Bytes of the disk given to the broker",
                |disk| disk.use_bytes as f64,
            ),
            ("disk_reserved_bytes", "Bytes promised to topics", |disk| {
                disk.reserved_bytes as f64
            }),
            ("disk_journal_bytes", "Size of the journal ring", |disk| {
                disk.journal_bytes as f64
            }),
            (
                "disk_journal_used_bytes",
                "Bytes of the ring a restart would replay",
                |disk| disk.journal_used_bytes as f64,
            ),
            (
                "disk_dirty_bytes",
                "Bytes in memory that lie only in the journal",
                |disk| disk.dirty_bytes as f64,
            ),
            (
                "disk_queue_ops",
                "Operations waiting for the next group",
                |disk| disk.queue_ops as f64,
            ),
            (
                "disk_worst_group_seconds",
                "The worst journal group since start",
                |disk| disk.commit_worst_ms / 1e3,
            ),
            (
                "disk_worst_step_seconds",
                "The longest that background work stood between two journal groups since start",
                |disk| disk.step_worst_ms / 1e3,
            ),
        ];
        const COUNTERS: [Row; 10] = [
            ("disk_groups", "Journal groups written", |disk| {
                disk.groups as f64
            }),
            ("disk_flushes", "Flushes of the device", |disk| {
                disk.flushes as f64
            }),
            ("disk_checkpoints", "Checkpoints written", |disk| {
                disk.checkpoints as f64
            }),
            (
                "disk_failures",
                "Times the disk failed since start",
                |disk| disk.failures as f64,
            ),
            (
                "disk_read_errors",
                "Reads of batches that the disk could not do, or that gave other bytes",
                |disk| disk.read_errors as f64,
            ),
            (
                "disk_compactions",
                "Compactions that changed a log",
                |disk| disk.compactions as f64,
            ),
            (
                "disk_compaction_read_bytes",
                "Bytes that compaction read, in both passes",
                |disk| disk.compaction_read_bytes as f64,
            ),
            (
                "disk_compaction_written_bytes",
                "Bytes of batches in extents that compaction put in place",
                |disk| disk.compaction_written_bytes as f64,
            ),
            (
                "disk_compaction_freed_bytes",
                "Bytes by which compaction made logs shorter",
                |disk| disk.compaction_freed_bytes as f64,
            ),
            (
                "disk_compaction_records_dropped",
                "Records that compaction left out",
                |disk| disk.compaction_records_dropped as f64,
            ),
        ];
        let disks = &self.0.disks;
        for (name, help, value) in GAUGES {
            gauges(
                out,
                name,
                help,
                disks
                    .iter()
                    .map(|disk| ([("disk", disk.path.as_str())], value(disk))),
            )?;
        }
        for (name, help, value) in COUNTERS {
            counters(
                out,
                name,
                help,
                disks
                    .iter()
                    .map(|disk| ([("disk", disk.path.as_str())], value(disk))),
            )?;
        }
        let mut family = out.encode_descriptor(
            "disk_commit_seconds",
            "From taking a group to its flush",
            None,
            MetricType::Histogram,
        )?;
        for disk in disks {
            histogram(
                family.encode_family(&[("disk", disk.path.as_str())])?,
                &disk.commit,
            )?;
        }
        Ok(())
    }

    fn topics(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let topics = &self.0.topics;
        let bytes = topics
            .iter()
            .map(|topic| ([("topic", topic.name.as_str())], topic.bytes as f64));
        gauges(out, "topic_bytes", "Bytes of a topic's extents", bytes)?;
        let quota = topics
            .iter()
            .map(|topic| ([("topic", topic.name.as_str())], topic.quota_bytes as f64));
        gauges(out, "topic_quota_bytes", "Bytes promised to a topic", quota)?;
        let records = topics
            .iter()
            .map(|topic| ([("topic", topic.name.as_str())], topic.records as f64));
        gauges(
            out,
            "topic_offsets",
            "Offsets between a topic's log starts and high watermarks",
            records,
        )
    }

    fn groups(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let groups = &self.0.groups;
        let members = groups
            .iter()
            .map(|group| ([("group", group.id.as_str())], group.members as f64));
        gauges(out, "group_members", "Members of a consumer group", members)?;
        let lag = groups
            .iter()
            .map(|group| ([("group", group.id.as_str())], group.lag as f64));
        gauges(
            out,
            "group_lag",
            "Records between a group's commits and the high watermarks",
            lag,
        )
    }
}

type Label<'a> = [(&'static str, &'a str); 1];

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), Error> {
    let counter = ConstCounter::new(value);
    counter.encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauges<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Label<'a>, f64)>,
) -> Result<(), Error> {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (label, value) in rows {
        ConstGauge::new(value).encode(family.encode_family(&label)?)?;
    }
    Ok(())
}

fn counters<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Label<'a>, f64)>,
) -> Result<(), Error> {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (label, value) in rows {
        ConstCounter::new(value).encode(family.encode_family(&label)?)?;
    }
    Ok(())
}

fn histogram(
    mut out: prometheus_client::encoding::MetricEncoder<'_>,
    latency: &Latency,
) -> Result<(), Error> {
    out.encode_histogram::<NoLabelSet>(latency.sum_s, latency.count, &latency.buckets, None)
}
