//! What one broker decides, as machines: facts come in, effects go out, in order.
//!
//! Each machine is told the time, takes one fact a step, never waits and never fails. Nothing here has a clock, a
//! thread, a socket or a file, so the same code runs in the broker, in tests from texts, and in a simulator.

pub mod broker;
pub mod catalog;
pub mod controller;
pub mod coordinator;
pub mod group;
mod mutation;
pub mod offsets;
mod outbox;
pub mod partition;
pub mod peer;
#[cfg(test)]
mod scenario;
pub mod sitelog;

pub use outbox::{EFFECTS_MAX, Outbox, Ticket};
