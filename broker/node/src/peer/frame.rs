//! What brokers say to each other on their data connection, and its bytes.
//!
//! ```text
//! message = format u8 = 1 · kind u8 · postcard { sender { from, incarnation 16 B, to 16 B }, fields } · batches
//! kind    = 1 Fetch · 2 Fetched · 3 AlterIsr · 4 IsrAltered · 5, 6, 7 reserved for transactions (add and verify, markers,
//!           status)
//! ```
//! Only Fetched has batches: whole record batches as they lie in the leader's extents, so that it sends them from the file
//! behind a head it has made; each row says how many of the bytes are its own. A release may add fields at the end: what a
//! reader does not know behind those it does is passed over, where no batches follow. A kind it does not know is passed
//! over as a whole. The length around a message is the shell's, and the site's uuid is in the Hello that began the
//! connection, as for the site log's messages.

use model::{DiskUuid, Incarnation, LeaderEpoch, NodeId, Offset, TopicPartition};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::isr::{AlterIsrRequest, AlterIsrResponse, ISR_ROWS_MAX};
use crate::partition::{Ask, Member, ReplicaFetch};

/// Rows of one Fetch or Fetched: with 78 B a row at most, 39 KiB.
pub const FETCH_ROWS_MAX: usize = 512;
/// Bytes of a message before its batches: 256 rows of AlterIsr take 54 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of batches in one Fetched, unless a single batch is larger.
pub const FETCHED_BYTES_MAX: u32 = 4 << 20;

const FORMAT: u8 = 1;

/// Who says it, and to whom: a node that lost its promises is another one, and knows nothing of what is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The sender.
    pub from: NodeId,
    /// The sender's, as its meta disk was formatted.
    pub incarnation: Incarnation,
    /// Whom it is meant for.
    pub to: Incarnation,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Follower to leader.
    Fetch(FetchRequest),
    /// Leader to follower; the batches lie behind it.
    Fetched(FetchResponse),
    /// Leader to controller.
    AlterIsr {
        /// Counts the requests of a connection.
        id: u64,
        /// What is asked.
        request: AlterIsrRequest,
    },
    /// Controller to leader.
    IsrAltered {
        /// As asked.
        id: u64,
        /// What became of it.
        response: AlterIsrResponse,
    },
}

/// A follower's questions to one leader, several partitions at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// Counts the requests of a connection, from 1.
    pub id: u64,
    /// Bytes of batches that one answer may have; 0: only reports, which are not answered.
    pub bytes_max: u32,
    /// At most one of a partition. Each stands until it is answered, or another one of its partition comes.
    pub rows: Vec<FetchRow>,
}

/// One partition's question ([`ReplicaFetch`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRow {
    /// Which.
    pub partition: TopicPartition,
    /// On which of the follower's disks.
    pub disk: DiskUuid,
    /// See [`ReplicaFetch`].
    pub epoch: LeaderEpoch,
    /// See [`ReplicaFetch`].
    pub fetch_off: Offset,
    /// See [`ReplicaFetch`].
    pub durable_off: Offset,
    /// See [`ReplicaFetch`].
    pub last_epoch: LeaderEpoch,
    /// See [`ReplicaFetch`].
    pub log_start: Offset,
    /// See [`Ask`].
    pub bytes_max: u32,
}

impl FetchRow {
    /// What a partition's machine asks.
    #[must_use]
    pub const fn of(partition: TopicPartition, ask: &Ask) -> Self {
        let ReplicaFetch {
            member,
            epoch,
            fetch_off,
            durable_off,
            last_epoch,
            log_start,
        } = ask.fetch;
        Self {
            partition,
            disk: member.disk,
            epoch,
            fetch_off,
            durable_off,
            last_epoch,
            log_start,
            bytes_max: ask.bytes_max,
        }
    }

    /// What the leader's machine is asked.
    #[must_use]
    pub const fn fetch(&self, sender: &Sender) -> ReplicaFetch {
        ReplicaFetch {
            member: Member {
                node: sender.from,
                incarnation: sender.incarnation,
                disk: self.disk,
            },
            epoch: self.epoch,
            fetch_off: self.fetch_off,
            durable_off: self.durable_off,
            last_epoch: self.last_epoch,
            log_start: self.log_start,
        }
    }
}

/// A leader's answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchResponse {
    /// The request that this answers.
    pub id: u64,
    /// Of any partition whose question stands, of this request or an earlier one; at most one of a partition.
    pub rows: Vec<FetchedRow>,
}

/// One partition's answer ([`crate::partition::Answer`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedRow {
    /// Which.
    pub partition: TopicPartition,
    /// As asked.
    pub epoch: LeaderEpoch,
    /// As asked.
    pub fetch_off: Offset,
    /// As asked.
    pub last_epoch: LeaderEpoch,
    /// What it says.
    pub body: FetchedBody,
}

/// See [`FetchedRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchedBody {
    /// Batches, perhaps none.
    Batches {
        /// The leader's.
        high_watermark: Offset,
        /// The leader's.
        log_start: Offset,
        /// The leader has more.
        more: bool,
        /// Bytes of batches behind the head, after those of the rows before.
        bytes: u32,
    },
    /// The logs part.
    Diverging {
        /// The largest epoch that both may have.
        epoch: LeaderEpoch,
        /// Where it ends on the leader.
        end: Offset,
    },
    /// Not now.
    Refused,
}

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// Another release's, which Hello should have said.
    #[error("a peer's message of format {0}, this release speaks {FORMAT}")]
    Format(u8),
    /// A kind of a newer release: pass over it.
    #[error("a peer's message of kind {0}")]
    Kind(u8),
    /// Not the fields of its kind, or beyond a bound.
    #[error("a peer's message: {0}")]
    Malformed(&'static str),
}

impl Frame {
    const fn kind(&self) -> u8 {
        match self {
            Self::Fetch(_) => 1,
            Self::Fetched(_) => 2,
            Self::AlterIsr { .. } => 3,
            Self::IsrAltered { .. } => 4,
        }
    }

    /// Its bytes, without batches.
    ///
    /// # Panics
    /// If it is beyond its bounds: whoever makes one keeps to them.
    #[must_use]
    pub fn encode(&self, sender: &Sender) -> Vec<u8> {
        let mut bytes = vec![FORMAT, self.kind()];
        let fields = match self {
            Self::Fetch(request) => postcard::to_extend(&(sender, request), bytes),
            Self::Fetched(response) => postcard::to_extend(&(sender, response), bytes),
            Self::AlterIsr { id, request } => postcard::to_extend(&(sender, id, request), bytes),
            Self::IsrAltered { id, response } => {
                postcard::to_extend(&(sender, id, response), bytes)
            }
        };
        bytes = fields.expect("plain values always have bytes");
        assert!(bytes.len() <= HEAD_BYTES_MAX, "a message beyond its bound");
        bytes
    }

    /// Reads what [`Frame::encode`] of this or a newer release wrote, and the batches behind it.
    ///
    /// # Errors
    /// [`FrameFault`]; of a [`FrameFault::Kind`] the connection goes on.
    pub fn decode(bytes: &[u8]) -> Result<(Sender, Self, &[u8]), FrameFault> {
        let [format, kind, fields @ ..] = bytes else {
            return Err(FrameFault::Malformed("no head"));
        };
        if *format != FORMAT {
            return Err(FrameFault::Format(*format));
        }
        let (sender, frame, behind) = match kind {
            1 => {
                let ((sender, request), _newer) = read::<(Sender, FetchRequest)>(fields)?;
                (sender, Self::Fetch(request), &[][..])
            }
            2 => {
                let ((sender, response), batches) = read::<(Sender, FetchResponse)>(fields)?;
                (sender, Self::Fetched(response), batches)
            }
            3 => {
                let ((sender, id, request), _newer) = read(fields)?;
                (sender, Self::AlterIsr { id, request }, &[][..])
            }
            4 => {
                let ((sender, id, response), _newer) = read(fields)?;
                (sender, Self::IsrAltered { id, response }, &[][..])
            }
            unknown => return Err(FrameFault::Kind(*unknown)),
        };
        frame.check(behind)?;
        Ok((sender, frame, behind))
    }

    fn check(&self, batches: &[u8]) -> Result<(), FrameFault> {
        let (rows, most) = match self {
            Self::Fetch(request) => (request.rows.len(), FETCH_ROWS_MAX),
            Self::Fetched(response) => (response.rows.len(), FETCH_ROWS_MAX),
            Self::AlterIsr { request, .. } => (request.rows.len(), ISR_ROWS_MAX),
            Self::IsrAltered { response, .. } => (response.rows.len(), ISR_ROWS_MAX),
        };
        if rows > most {
            return Err(FrameFault::Malformed("more rows than one may have"));
        }
        match self {
            Self::Fetch(request) if request.rows.iter().any(FetchRow::wrong) => {
                Err(FrameFault::Malformed("an offset below zero"))
            }
            Self::Fetched(response) => {
                let bytes: u64 = response.rows.iter().map(|row| u64::from(row.bytes())).sum();
                match batches.len() as u64 == bytes {
                    true => Ok(()),
                    false => Err(FrameFault::Malformed("batches that no row has, or too few")),
                }
            }
            _ => Ok(()),
        }
    }
}

impl FetchRow {
    fn wrong(&self) -> bool {
        self.fetch_off < Offset::ZERO
            || self.durable_off < Offset::ZERO
            || self.log_start < Offset::ZERO
    }
}

impl FetchedRow {
    /// Bytes of its batches.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        match self.body {
            FetchedBody::Batches { bytes, .. } => bytes,
            FetchedBody::Diverging { .. } | FetchedBody::Refused => 0,
        }
    }
}

/// The known fields at the front, and what is behind them. No allocation follows a claimed length: serde takes at most
/// 1 MiB ahead, and a vector grows as its rows are read.
fn read<'a, T: Deserialize<'a>>(fields: &'a [u8]) -> Result<(T, &'a [u8]), FrameFault> {
    postcard::take_from_bytes(fields)
        .map_err(|_| FrameFault::Malformed("not the fields of its kind"))
}
