//! What the brokers of a site say to each other about partitions: the values, their bytes, and when they go.
//!
//! It decides nothing about a partition and knows no socket. Site-log messages have their own place beside
//! [`crate::sitelog`].

mod frame;
mod gather;
mod hold;
mod isr;
#[cfg(test)]
mod tests;

pub use frame::{
    FETCH_ROWS_MAX, FETCHED_BYTES_MAX, FetchRequest, FetchResponse, FetchRow, FetchedBody,
    FetchedRow, Frame, FrameFault, HEAD_BYTES_MAX, Sender,
};
pub use gather::{ANSWERS_MAX, Gatherer, OutOfStep};
pub use hold::{HELD_MAX, HOLD_MAX, Holder, Planned, Say, TooMany};
pub use isr::{AlterIsr, AlterIsrRequest, AlterIsrResponse, ISR_ROWS_MAX, IsrOutcome};
