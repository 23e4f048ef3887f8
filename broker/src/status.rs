//! What the node says of itself: one value, shown as `/status`, drawn on the page, and encoded for Prometheus.

use serde::Serialize;

use crate::core::Core;
use crate::histogram::Histogram;

/// The whole state, as of one moment.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) product: &'static str,
    pub(crate) version: &'static str,
    pub(crate) site: Site,
    pub(crate) node: Node,
    pub(crate) connections: Connections,
    pub(crate) traffic: Traffic,
    pub(crate) partitions: Partitions,
    pub(crate) disks: Vec<Disk>,
    pub(crate) topics: Vec<Topic>,
    pub(crate) groups: Vec<Group>,
    pub(crate) memory: Vec<Pool>,
    pub(crate) requests: Vec<Requests>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) cluster_id: String,
    /// SHA-256 of the site, in hexadecimal.
    pub(crate) digest: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) ready: bool,
    pub(crate) not_ready: Vec<String>,
    pub(crate) uptime_s: u64,
    /// `controller`: it decides for the site. `follower`: another does, or none yet.
    pub(crate) role: &'static str,
    pub(crate) term: u64,
    /// What is left of its right to serve.
    pub(crate) lease_ms: u64,
    pub(crate) clock: Clock,
}

/// The node's wall clock. Only by a trusted one anything expires.
#[derive(Debug, Serialize)]
pub(crate) struct Clock {
    /// `trusted`; `unsynchronised`: nothing keeps it right; `stepped`: it went forward by more than a day, and nobody has
    /// confirmed that.
    pub(crate) quality: &'static str,
    /// Whose word the site file takes: `trusted` or `kernel`.
    pub(crate) source: &'static str,
    pub(crate) wall_ms: i64,
    /// The step that is not believed; 0 without one.
    pub(crate) stepped_s: u64,
    /// Until it is believed by itself.
    pub(crate) believed_in_s: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Connections {
    pub(crate) open: usize,
    pub(crate) max: usize,
    pub(crate) failed: u64,
    pub(crate) frames_refused: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) batches_in: u64,
    pub(crate) records_in: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Partitions {
    pub(crate) count: usize,
    pub(crate) offline: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Disk {
    pub(crate) path: String,
    pub(crate) uuid: String,
    /// `serving`; `stalled`: a write takes long; `suspect`: it serves, but for what its journal lost; `recovering`;
    /// `failed`: out of service until a person has looked at it.
    pub(crate) state: String,
    /// Part of its journal was lost (SUSPECT), and nobody has accepted that yet.
    pub(crate) suspect: bool,
    pub(crate) use_bytes: u64,
    pub(crate) reserved_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) journal_used_bytes: u64,
    pub(crate) dirty_bytes: u64,
    pub(crate) queue_ops: usize,
    pub(crate) groups: u64,
    pub(crate) flushes: u64,
    pub(crate) checkpoints: u64,
    pub(crate) failures: u64,
    /// Reads of batches that failed: the disk can't read them, or they are not what was written.
    pub(crate) read_errors: u64,
    /// By the scrubber, since the start.
    pub(crate) scrubbed_bytes: u64,
    /// Times that it was through the whole disk.
    pub(crate) scrub_rounds: u64,
    pub(crate) suspect_ranges: Vec<SuspectRange>,
    pub(crate) compactions: u64,
    pub(crate) compaction_read_bytes: u64,
    pub(crate) compaction_written_bytes: u64,
    /// Bytes by which logs became shorter.
    pub(crate) compaction_freed_bytes: u64,
    pub(crate) compaction_records_dropped: u64,
    pub(crate) commit_p50_ms: f64,
    pub(crate) commit_p99_ms: f64,
    pub(crate) commit_worst_ms: f64,
    pub(crate) step_worst_ms: f64,
    #[serde(skip)]
    pub(crate) commit: Latency,
}

/// Part of a log that is not what was written, or can't be read.
#[derive(Debug, Serialize)]
pub(crate) struct SuspectRange {
    /// Its id where the topic is not known.
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    /// Its batches are refused: they fail their own checksums, or can't be read.
    pub(crate) damaged: bool,
    pub(crate) why: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: usize,
    /// Offsets between log start and high watermark, all partitions together.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) quota_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) members: usize,
    pub(crate) lag: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Pool {
    pub(crate) pool: String,
    pub(crate) used_bytes: u64,
    pub(crate) bytes_max: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Requests {
    pub(crate) api: String,
    pub(crate) count: u64,
    pub(crate) errors: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    #[serde(skip)]
    pub(crate) latency: Latency,
}

/// A histogram's content, for Prometheus.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    pub(crate) sum_s: f64,
    pub(crate) count: u64,
    /// Upper ends in seconds, and how many durations each bucket alone holds.
    pub(crate) buckets: Vec<(f64, u64)>,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram) -> Self {
        let mut before = 0;
        let buckets = histogram
            .octaves()
            .map(|(end, up_to)| {
                let own = up_to - before;
                before = up_to;
                (end.as_secs_f64(), own)
            })
            .collect();
        Self {
            sum_s: histogram.sum().as_secs_f64(),
            count: before,
            buckets,
        }
    }
}

impl Status {
    /// Reads the node's state; walks every partition once.
    pub(crate) fn of(core: &Core) -> Self {
        core.status()
    }
}
