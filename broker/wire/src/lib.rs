//! Kafka's bytes to values and back, with the one table of API versions.
//!
//! ```text
//! frame ─ RequestHeader::read ─ decode ─► Request ─► (the broker decides) ─► Response ─ encode ─► frame
//!                                                              └► FetchAnswer<range> ─ fetch_answer::encode ─► segments
//! ```
//! Produce and Fetch, the hot ones, are read and written by hand (`produce`, `fetch`, `fetch_answer`); the others go
//! through kafka-protocol behind a walk that lets no claimed count or length through unchecked (`schema`). Versions end
//! here: a `Request` and a `Response` have one form, and what a version means to a decision is a question to `Call`.
//!
//! No sockets, files, clocks or async. A frame from a peer is answered with a value or an error, never with a panic.

mod api;
pub mod api_versions;
mod cold;
mod error;
pub mod fetch;
pub mod fetch_answer;
mod header;
mod older;
pub mod produce;
mod reader;
mod refusal;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(test)]
extern crate self as wire;

/// The messages of the cold APIs.
pub use kafka_protocol::messages;
/// Text that is a slice of a frame.
pub use kafka_protocol::protocol::StrBytes;

pub use api::{Api, ELEMENTS_MAX};
pub use cold::{EncodeError, Request, Response, decode, encode};
pub use error::ErrorCode;
pub use header::{Call, HeaderError, RequestHeader};
pub use reader::{DecodeError, Fault};
pub use refusal::refusal;
pub use schema::answers::check_answer;

/// A topic id as kafka-protocol's messages hold it.
#[must_use]
pub const fn uuid(id: model::TopicId) -> uuid::Uuid {
    uuid::Uuid::from_bytes(id.0.0)
}

/// A topic id out of one of kafka-protocol's messages; all zero where the client named the topic.
#[must_use]
pub const fn topic_id(id: uuid::Uuid) -> model::TopicId {
    model::TopicId(model::Uuid(*id.as_bytes()))
}
