//! Placeholder of the crate's door.
