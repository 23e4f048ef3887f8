//! What the brokers of a site say to each other about partitions: the values and their bytes.
//!
//! It decides nothing and knows no socket. Site-log messages have their own place beside [`crate::sitelog`].

mod isr;

pub use isr::{AlterIsr, AlterIsrRequest, AlterIsrResponse, ISR_ROWS_MAX, IsrOutcome};
