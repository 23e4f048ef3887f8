//! How batches lie on a disk, and how they come back after a power cut.
//!
//! A disk is a journal ring, extents, and two checkpoints (`format`). One thread owns [`Disk`] and is the only one that
//! changes anything: it takes [`Op`]s from a [`Queue`], makes a group of them durable with one write, and does bounded
//! background work in between: the sweep that writes extents out, checkpoints, freeing. Other threads share the read
//! side. There are no threads, no async and no clock in here, and nothing outside this crate knows the bytes.

pub mod format;
pub mod io;
mod ops;
pub mod phase;

pub use format::extent::{Class, SlotLife};
pub use format::superblock::{DiskState, Superblock};
pub use io::{Io, LinuxIo, MemIo};
pub use model::window::PartIx;
pub use ops::{Append, Config, FormatConfig, NewExtent, Op, Outcome, PartSettings, Queue, Swap};
