//! The image builder: a site file, kernel, init and broker become a disk that boots, without root and without mounts.
//!
//! Everything is written by this crate, from the partition table to the loader's file system, so that the same inputs
//! give the same bytes on any machine. What comes from outside is pinned by hash in `inputs.toml`. How the boot disk is
//! laid out and how a slot is chosen stands in the crate `slots`.

pub mod build;
pub mod config;
pub mod deb;
pub mod disk;
pub mod fat;
pub mod fault;
pub mod flash;
pub mod initrd;
pub mod kernel;
pub mod keys;
pub mod lock;
pub mod output;
pub mod qemu;
pub mod sbom;
pub mod uki;
