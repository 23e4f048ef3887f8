//! What a disk counts. Numbers only; the shell shows them.

use core::time::Duration;

/// Counted since the disk was opened, unless it is said to be of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups written; each is one device write that is on the medium when it returns.
    pub groups: u64,
    /// Their bytes.
    pub ring_bytes_written: u64,
    /// Bytes of batches appended.
    pub bytes_appended: u64,
    /// Turns of the ring begun.
    pub wraps: u64,
    /// Longest time from a group's first operation to its end.
    pub group_worst: Duration,
    /// Times that data had to wait for the ring or for memory.
    pub held: u64,
    /// Extents opened.
    pub opened: u64,
    /// Extents sealed.
    pub sealed: u64,
    /// Extents freed.
    pub freed: u64,
    /// Circles of the sweep that were completed.
    pub circles: u64,
    /// Bursts of the sweep.
    pub bursts: u64,
    /// Longest burst.
    pub burst_worst: Duration,
    /// Pieces handed over.
    pub pieces: u64,
    /// Bytes of these.
    pub piece_bytes: u64,
    /// Times that pieces were settled, each with one FLUSH of the device.
    pub settles: u64,
    /// Checkpoints recorded.
    pub checkpoints: u64,
    /// Times that a file system filled by others had no room for one.
    pub checkpoints_no_room: u64,
    /// Bytes of these.
    pub checkpoint_bytes: u64,
    /// Longest piece of background work of any kind: a group may have waited so long for it.
    pub step_worst: Duration,
    /// Longest step of a checkpoint.
    pub checkpoint_worst: Duration,
    /// Now: length of the ring.
    pub ring_bytes: u64,
    /// Now: ring bytes that a recovery would need.
    pub ring_used: u64,
    /// Now: batches not yet written out.
    pub dirty_bytes: u64,
    /// Now: extents with such.
    pub dirty_extents: u64,
    /// Now: bytes of extents' files.
    pub extent_bytes: u64,
    /// Now: rows of the extent table.
    pub slots: u64,
    /// Now: extents that wait to be zeroed.
    pub freeing: u64,
    /// Now: producers remembered.
    pub windows: u64,
    /// Producers forgotten to make room.
    pub windows_evicted: u64,
}

impl Stats {
    pub(crate) fn group(&mut self, bytes: u64, took: Duration, wrap: bool) {
        self.groups += 1;
        self.ring_bytes_written += bytes;
        self.wraps += u64::from(wrap);
        self.group_worst = self.group_worst.max(took);
    }
}
