//! How batches lie on a disk, and how they come back after a power cut.
//!
//! A disk is a journal ring, extents, and two checkpoints (`format`). One thread owns [`Disk`] and is the only one that
//! changes anything: it takes [`Op`]s from a [`Queue`], makes a group of them durable with one write, and does bounded
//! background work in between: the sweep that writes extents out, checkpoints, freeing. Other threads share the read
//! side. There are no threads, no async and no clock in here, and nothing outside this crate knows the bytes.

mod alloc;
mod apply;
mod batches;
mod ckpt;
pub mod compact;
mod dirty;
mod disk;
pub mod dump;
mod extent_io;
pub mod format;
mod group;
pub mod io;
mod mutation;
mod ops;
mod parts;
pub mod phase;
mod publish;
mod recover;
mod ring;
mod stats;
mod sweep;
pub mod verify;
mod view;
mod work;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

// What the tests share with the fuzz targets names this crate as they do.
#[cfg(test)]
extern crate self as store;

pub use disk::{Disk, DiskError, Reserved};
pub use format::checkpoint::{SiteEntry, SiteSnapshot};
pub use format::extent::{Class, SlotLife};
pub use format::superblock::{DiskState, Superblock};
pub use io::{Io, LinuxIo, MemIo};
pub use model::window::PartIx;
pub use ops::{
    Append, CONTROL_BYTES_MAX, Config, FormatConfig, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, NewExtent,
    Op, Outcome, PartSettings, Queue, Swap,
};
pub use recover::{
    Adoption, Held, Inspection, JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN, Note, OpenError, Recovered,
    Replica, UNKNOWN_END, accept, adopt, inspect, read_superblock,
};
pub use stats::Stats;
pub use view::{
    ExtentInfo, Locate, Located, LogInfo, PINNED_MAX, Pinned, Range, Reach, ReadError, Retention,
    Scrubbed, Scrubber, Stamped, Suspect, Timed, Verdict, View, WARM_BYTES, retain,
};
pub use work::Work;
pub use writer::Committed;
