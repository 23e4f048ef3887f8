//! What voters say to each other on their control connection, and its bytes.
//!
//! ```text
//! message = format u8 = 1 · postcard { from, incarnation 16 B, to 16 B, term, kind, fields }
//! ```
//! A release may add fields at the end: what a reader does not know behind those it does is passed over. The frame
//! around it, its length, its sequence number and its tag are the shell's, and the site's uuid is in the Hello that keyed
//! the connection. Beats travel apart ([`super::beat`]), so that no answer waits behind these.

use model::{Incarnation, NodeId, Term};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Index, LogEntry, RECORD_BYTES_MAX, Voters};

/// Entries in one Append: so many ordinary ones are 16 KiB.
pub const APPEND_ENTRIES_MAX: usize = 64;
/// Bytes of entries in one Append, unless a single one is larger: one of the largest and a few small ones.
pub const APPEND_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a snapshot in one message.
pub const CHUNK_BYTES: usize = 32 * 1024;
/// Bytes of a whole snapshot: 2,000 replicas with 1,000 topics' configurations are below 1 MiB.
pub const SNAPSHOT_BYTES_MAX: usize = 16 << 20;
/// Bytes of a message: a full Append (its entries, or one of the largest) and 4 KiB for all that is around them.
pub const MESSAGE_BYTES_MAX: usize = APPEND_BYTES_MAX + 4 * 1024;

const FORMAT: u8 = 1;

/// A message with who says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender.
    pub from: NodeId,
    /// The sender's, as its meta disk was formatted.
    pub incarnation: Incarnation,
    /// Whom it is meant for; zero for whoever is at the address. A node with another incarnation than the one meant knows
    /// nothing of what is spoken of.
    pub to: Incarnation,
    /// The sender's term; in a pre-vote the one it would ask for.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Are you empty? Asked by who would found a site.
    Probe {
        /// Counts the questions: an answer belongs to one.
        round: u64,
    },
    /// Answers it.
    Probed {
        /// As asked.
        round: u64,
        /// All its disks are FRESH and it knows of no site (L1.8).
        empty: bool,
    },
    /// Elect me, or would you?
    Vote {
        /// Only asks whether a vote would be given; binds nobody.
        pre: bool,
        /// The candidate's last entry.
        last: (Index, Term),
    },
    /// Answers it.
    Voted {
        /// As asked.
        pre: bool,
        /// Whether the vote is given; else the term of the message says why, or nothing does.
        granted: bool,
        /// A promise to a released controller was still running: leases that it granted may be, too.
        early: bool,
    },
    /// Entries behind `prev`, perhaps none.
    Append {
        /// The entry before the first one, in the controller's log.
        prev: (Index, Term),
        /// At most [`APPEND_ENTRIES_MAX`], of [`APPEND_BYTES_MAX`] or a single one.
        entries: Vec<Appended>,
        /// So much is committed.
        commit: Index,
    },
    /// The log agrees with the controller's up to there, and the medium holds it.
    Acked {
        /// Up to this entry.
        durable: Index,
    },
    /// There is no entry `prev`.
    Missed {
        /// The last entry before it whose term is not later: the logs may agree there.
        hint: (Index, Term),
    },
    /// A piece of a snapshot.
    Chunk {
        /// The last entry in it.
        last: (Index, Term),
        /// Who voted as of it.
        voters: Voters,
        /// Bytes of the whole, at most [`SNAPSHOT_BYTES_MAX`].
        total: u32,
        /// Where the piece begins.
        offset: u32,
        /// At most [`CHUNK_BYTES`].
        #[serde(with = "bytes")]
        bytes: Vec<u8>,
    },
    /// So much of that snapshot is here.
    Taken {
        /// Which.
        last: Index,
        /// The next piece begins there; what is missing at the whole length is its durability.
        offset: u32,
    },
    /// The controller gives up its office: promises made to it are void (planned hand-over).
    Release {
        /// Who should stand at once.
        successor: NodeId,
    },
}

/// An entry without its place, which follows from the first one's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Appended {
    /// Its term.
    pub term: Term,
    /// [`super::Record`]'s bytes.
    #[serde(with = "bytes")]
    pub bytes: Vec<u8>,
}

impl From<&LogEntry> for Appended {
    fn from(entry: &LogEntry) -> Self {
        Self {
            term: entry.term,
            bytes: entry.bytes.clone(),
        }
    }
}

/// Bytes that are no message of this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageFault {
    /// Another release's.
    #[error("a site-log message of format {0}, this release reads {FORMAT}")]
    Format(u8),
    /// Not the fields of its kind.
    #[error("not a site-log message")]
    Malformed,
    /// A field or the whole is beyond its bound.
    #[error("a site-log message beyond its bounds")]
    TooLarge,
}

impl Message {
    /// Its bytes, at most [`MESSAGE_BYTES_MAX`].
    ///
    /// # Panics
    /// Never for a message that a machine made.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes =
            postcard::to_extend(self, vec![FORMAT]).expect("lengths are known, and a vector grows");
        assert!(
            bytes.len() <= MESSAGE_BYTES_MAX,
            "a message beyond its bound"
        );
        bytes
    }

    /// Reads what [`Message::encode`] of this or a newer release wrote. Takes no more memory than a small multiple of
    /// the bytes, whatever they claim.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageFault> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageFault::TooLarge);
        }
        let (format, rest) = bytes.split_first().ok_or(MessageFault::Malformed)?;
        if *format != FORMAT {
            return Err(MessageFault::Format(*format));
        }
        let (message, _newer): (Self, _) =
            postcard::take_from_bytes(rest).map_err(|_| MessageFault::Malformed)?;
        if message.within_bounds() {
            Ok(message)
        } else {
            Err(MessageFault::TooLarge)
        }
    }

    fn within_bounds(&self) -> bool {
        match &self.body {
            Body::Append { entries, .. } => {
                entries.len() <= APPEND_ENTRIES_MAX
                    && entries
                        .iter()
                        .all(|entry| entry.bytes.len() <= RECORD_BYTES_MAX)
            }
            Body::Chunk {
                voters,
                total,
                offset,
                bytes,
                ..
            } => {
                voters.is_sound()
                    && bytes.len() <= CHUNK_BYTES
                    && *total as usize <= SNAPSHOT_BYTES_MAX
                    && (*offset as usize)
                        .checked_add(bytes.len())
                        .is_some_and(|end| end <= *total as usize)
            }
            _ => true,
        }
    }
}

/// Bytes as one piece: serde's own way goes through a `Vec<u8>` byte by byte.
mod bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        <&[u8]>::deserialize(from).map(<[u8]>::to_vec)
    }
}
