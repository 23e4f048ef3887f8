//! One partition's machine.

mod types;

pub use types::{
    Acks, Effect, EpochStart, Input, Member, Origin, Outcome, Produce, Recovered, Refusal, Settings,
};

use core::time::Duration;

/// How long a request waits for a lapsed lease (R8).
pub const PARK_MAX: Duration = Duration::from_millis(1_500);

/// A partition's machine.
#[derive(Debug)]
pub struct Partition {}
