//! Which part of the store is running, for those who cut the power and count where it hit.
//!
//! An atomic, and if `HOWDAH_PHASE_FILE` names a file when the process starts to use a disk, that file's first 16 bytes
//! too. Nothing in the store reads it back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// The part of the store that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

static NOW: AtomicU8 = AtomicU8::new(0);
static FILE: OnceLock<Option<File>> = OnceLock::new();

/// The part that was entered last, by any disk of the process.
#[must_use]
pub fn current() -> Phase {
    const ALL: [Phase; 10] = [
        Phase::Idle,
        Phase::GroupWrite,
        Phase::Destage,
        Phase::Checkpoint,
        Phase::SealOpen,
        Phase::Free,
        Phase::Swap,
        Phase::RingWrap,
        Phase::Recovery,
        Phase::Format,
    ];
    ALL[usize::from(NOW.load(Ordering::Relaxed))]
}

/// Says what begins now; when the value is dropped, what went on before goes on.
pub(crate) fn enter(phase: Phase) -> Guard {
    let before = NOW.swap(phase as u8, Ordering::Relaxed);
    write();
    Guard(before)
}

/// See [`enter`].
pub(crate) struct Guard(u8);

impl Drop for Guard {
    fn drop(&mut self) {
        NOW.store(self.0, Ordering::Relaxed);
        write();
    }
}

fn write() {
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
        let line = format!("{:<15}\n", current().name());
        // Only statistics are lost with it.
        let _ = file.write_all_at(line.as_bytes(), 0);
    }
}
