//! What readers share of a disk: where the batches of every durable group lie.
//!
//! The writer tells each durable group's changes ([`View::apply`]); any number of threads ask. One lock guards it all,
//! is held for microseconds and never over I/O: a question takes a snapshot of the extents it needs, pins them, and looks
//! at their bytes after that. Bytes below an extent's published end never change while it is pinned: a truncated extent
//! is sealed where it was cut, and a freed one is zeroed only once nobody holds it.
//!
//! What bounds it: a row for each extent; open extents keep file and index; those of sealed ones are kept in LRUs; at
//! most [`PINNED_MAX`] extents are pinned.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Instant, LeaderEpoch, Offset, TopicPartition, WallMs};
use thiserror::Error;

use crate::format::extent::DATA_AT;
use crate::publish::Change;
use crate::{Io, PartIx, SlotLife};

mod cache;
mod loading;
mod locate;
mod log;
mod pins;
mod range;
mod retain;
mod scrub;
mod state;
mod time;
mod walk;

pub use pins::{PINNED_MAX, Pinned};
pub use range::{Range, WARM_BYTES};
pub use retain::{Retention, retain};
pub use scrub::{Scrubbed, Scrubber, Suspect, Verdict};

use state::State;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locate {
    /// Whose batches.
    pub part: PartIx,
    /// From the batch that holds it, which may begin before.
    pub from: Offset,
    /// No batch that begins here or behind.
    pub until: Offset,
    /// At most so many bytes.
    pub bytes_max: u64,
    /// But one whole batch, be it larger.
    pub at_least_one: bool,
}

/// How far a question may go for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Never waits for the disk.
    Memory,
    /// May read from it.
    Disk,
}

/// What was found.
#[derive(Debug)]
pub enum Located<I: Io> {
    /// Whole batches, in the order of the log; none if the log has none there, or the limits allow none. Ask again behind
    /// them for more: one answer spans a few extents at most.
    Ranges(Vec<Range<I>>),
    /// Memory does not hold what the answer needs.
    Cold,
}

/// What a search by time found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// A record.
    Found(Stamped),
    /// There is none.
    Nothing,
    /// Memory does not hold what the answer needs.
    Cold,
}

/// A record by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Its offset.
    pub offset: Offset,
    /// Its time.
    pub timestamp: WallMs,
    /// Epoch of its batch.
    pub epoch: LeaderEpoch,
}

/// An extent as retention and reports see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// First offset it may hold.
    pub base: Offset,
    /// Last offset in it; base − 1 when empty.
    pub last: Offset,
    /// Bytes of batches.
    pub bytes: u64,
    /// Length of its file.
    pub file_bytes: u64,
    /// Latest record time; −1 when empty.
    pub max_ts: WallMs,
    /// Trusted time of the last append; 0 while none is known.
    pub appended_at: WallMs,
    /// It still takes appends.
    pub open: bool,
}

/// A replica's log as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// Which partition it is.
    pub id: TopicPartition,
    /// First offset readers may ask for.
    pub log_start: Offset,
    /// In the order of the log.
    pub extents: Vec<ExtentInfo>,
}

/// Why nothing can be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The replica is not on this disk.
    #[error("replica {} is not on this disk", .0.0)]
    NoReplica(PartIx),
    /// What is asked for was deleted.
    #[error("offset {} lies before the log's first, {}", from.0, log_start.0)]
    Deleted {
        /// What was asked for.
        from: Offset,
        /// First offset there is.
        log_start: Offset,
    },
    /// As many extents are pinned as may be; the oldest pin was called back. Try again.
    #[error("readers hold {PINNED_MAX} extents, as many as they may")]
    Crowded,
    /// The bytes are not what was written.
    #[error("batch at {pos} of extent {}: {why}", life.slot)]
    Rotten {
        /// Which extent.
        life: SlotLife,
        /// File position of the batch.
        pos: u32,
        /// What is wrong.
        why: String,
    },
    /// The system refused.
    #[error("reading extent {}: {source}", life.slot)]
    Io {
        /// Which extent.
        life: SlotLife,
        /// What the system said.
        source: io::Error,
    },
}

/// The read side of one disk; see the module.
#[derive(Debug)]
pub struct View<I: Io> {
    io: Arc<I>,
    state: Mutex<State<I::File>>,
}

impl<I: Io> View<I> {
    /// Nothing to be read yet.
    pub(crate) fn new(io: Arc<I>) -> Self {
        Self {
            io,
            state: Mutex::default(),
        }
    }

    /// Makes a durable group's changes visible, all at once.
    pub(crate) fn apply(&self, changes: impl Iterator<Item = Change<I::File>>) {
        let mut dropped = Vec::new();
        let mut state = self.lock();
        for change in changes {
            state.apply(change, &mut dropped);
        }
        drop(state);
        // The last close of a removed file frees its blocks: not under the lock.
        drop(dropped);
    }

    /// Whether a reader holds an extent.
    pub(crate) fn pinned(&self, life: SlotLife) -> bool {
        self.lock().pins.holds(life)
    }

    /// Extents that readers hold, and since when.
    #[must_use]
    pub fn pins(&self) -> Pinned {
        self.lock().pins.sum()
    }

    /// A replica's extents; `None` if it is not on this disk.
    #[must_use]
    pub fn log(&self, part: PartIx) -> Option<LogInfo> {
        self.lock().logs.get(&part).map(log::Log::info)
    }

    /// Bytes of a replica's batches; 0 if it is not on this disk.
    #[must_use]
    pub fn bytes(&self, part: PartIx) -> u64 {
        self.lock().logs.get(&part).map_or(0, log::Log::bytes)
    }

    /// Bytes of batches by replica.
    #[must_use]
    pub fn totals(&self) -> Vec<(PartIx, TopicPartition, u64)> {
        let state = self.lock();
        let logs = state.logs.iter();
        logs.map(|(part, log)| (*part, log.id, log.bytes()))
            .collect()
    }

    /// Drops from memory what a cold reader has been through, as far as it is written out.
    pub fn forget(&self, part: PartIx, life: SlotLife, pos: u32, len: u32) {
        let file = self.lock().file(part, life);
        if let (Some(file), Some(pages)) = (file, range::whole_pages(pos, len)) {
            // Only advice: nothing depends on it.
            let _ = self.io.advise(&file, pages);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<I::File>> {
        // Nothing in there panics half-way but by a bug, and then the process ends.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn io(&self) -> &I {
        &self.io
    }

    fn now(&self) -> Instant {
        self.io.now()
    }
}

/// Bytes of batches in an extent that ends at `used`.
fn data_bytes(used: u32) -> u64 {
    u64::from(used.saturating_sub(DATA_AT))
}
