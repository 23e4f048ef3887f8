//! The catalog: what the site log's entries add up to.

mod types;

pub use types::{Alter, CreateTopic, Declared, Effect, Fault, NodeRow, Partition};
