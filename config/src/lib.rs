//! The site file: its schema, its checks, and what follows from it.
//!
//! One TOML file describes one installation with all its nodes. [`parse`] checks it and says everything that is wrong,
//! with line and column; [`Site`] is plain data with every default filled in; [`Site::to_blob`] is what an image
//! carries, so that no text is parsed on a node. [`plan`] says what the site promises of each disk, and what memory and
//! descriptors it needs. Nothing here opens a socket, changes a disk, or holds a secret.

mod blob;
pub mod check;
mod diagnostic;
mod doors;
pub mod names;
mod parse;
pub mod plan;
pub mod quota;
mod reader;
mod schema;
pub mod units;

pub use blob::{BODY_BYTES_MAX, BlobFault, VERSION};
pub use check::{LoadFault, load};
pub use diagnostic::Diagnostic;
pub use doors::{Bind, Door, DoorKind, Listener, Listeners};
pub use parse::{FILE_BYTES_MAX, parse};
pub use plan::{Plan, plan, plan_with};
pub use schema::*;

/// The site that `howdah run` serves when it is given none, as TOML.
pub const LAPTOP: &str = include_str!("../sites/laptop.toml");

/// The site of [`LAPTOP`].
///
/// # Panics
/// Never: a test parses it.
#[must_use]
pub fn laptop() -> Site {
    parse(LAPTOP, "laptop.toml").expect("the embedded site is legal")
}
