//! Which part of the store is running, for those who cut the power and count where it hit.
//!
//! One byte a thread, and if `HOWDAH_PHASE_FILE` names a file when the process starts to use a disk, 16 bytes of that file
//! too: each thread that enters a part has a place of its own there, since two disks work at the same time. Nothing in
//! the store reads it back.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The part of the store that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// None.
    Idle,
    /// A group is copied, written and flushed.
    GroupWrite,
    /// A burst of the sweep.
    Destage,
    /// A step of a checkpoint.
    Checkpoint,
    /// A group that seals or opens an extent.
    SealOpen,
    /// A group that lets an extent go, and its zeroing.
    Free,
    /// A group that swaps extents.
    Swap,
    /// A group that begins a new turn of the ring.
    RingWrap,
    /// A disk is opened.
    Recovery,
    /// A disk is made.
    Format,
}

impl Phase {
    /// What stands in the phase file, padded with spaces to 15 bytes and a line's end.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::GroupWrite => "group-write",
            Self::Destage => "destage",
            Self::Checkpoint => "checkpoint",
            Self::SealOpen => "seal-open",
            Self::Free => "ext-free",
            Self::Swap => "ext-swap",
            Self::RingWrap => "ring-wrap",
            Self::Recovery => "recovery",
            Self::Format => "format",
        }
    }
}

/// What one thread says takes so many bytes of the file.
const PLACE_BYTES: u64 = 16;

static FILE: OnceLock<Option<File>> = OnceLock::new();
static PLACES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static NOW: Cell<Phase> = const { Cell::new(Phase::Idle) };
    static PLACE: u64 = PLACES.fetch_add(1, Ordering::Relaxed);
}

/// The part that this thread entered last.
#[must_use]
pub fn current() -> Phase {
    NOW.get()
}

/// Says what begins now; when the value is dropped, what went on before goes on.
pub(crate) fn enter(phase: Phase) -> Guard {
    let before = NOW.replace(phase);
    write(phase);
    Guard(before)
}

/// See [`enter`].
pub(crate) struct Guard(Phase);

impl Drop for Guard {
    fn drop(&mut self) {
        NOW.set(self.0);
        write(self.0);
    }
}

fn write(phase: Phase) {
    let file = FILE.get_or_init(|| {
        let path = std::env::var_os("HOWDAH_PHASE_FILE")?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .ok()
    });
    if let Some(file) = file {
        let line = format!("{:<15}\n", phase.name());
        // Only statistics are lost with it.
        let _ = file.write_all_at(line.as_bytes(), PLACE.with(|place| place * PLACE_BYTES));
    }
}
