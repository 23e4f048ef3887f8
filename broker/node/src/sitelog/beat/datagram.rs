//! The bytes of a beat, without the frame that carries format, key, sender, boot nonce, counter and tag.
//!
//! ```text
//! 0 kind u8 (1 down, 2 up) · 1 flags u8 (down: 1 heartbeat, 2 grant) · 2 zero · 8 term u64
//! down: 16 sent u64 · 24 commit u64 · 32 echo u64 · 40 boot u64 · 48 duration ns u64 · 56 zero
//! up:   16 echo u64 · 24 sent u64 · 32 boot u64 · 40 incarnation 16 B · 56 applied u64 · 64 digest u64 ·
//!       72 blessed u16 · 74 clock trusted u8 · 75 zero · 76 disks 12 × { uuid 16 B, state u8 }
//! ```
//! Little-endian, 280 bytes in either case: a length is one comparison, and nothing is taken for a beat by its size.

use core::time::Duration;

use model::{DiskUuid, Incarnation, Instant, Term, Uuid};
use thiserror::Error;

use super::{DISKS_MAX, DiskState, Disks, Report};
use crate::sitelog::Index;

/// Bytes of a beat.
pub const BEAT_BYTES: usize = DISKS_AT + DISKS_MAX * 17;
const DISKS_AT: usize = 76;

const DOWN: u8 = 1;
const UP: u8 = 2;
const HEARTBEAT: u8 = 1;
const GRANT: u8 = 2;

/// Bytes that are no beat for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BeatFault {
    /// Not [`BEAT_BYTES`], or a field that no release writes.
    #[error("not a beat")]
    Malformed,
    /// From a node that this site does not have.
    #[error("a beat of a node that is not of this site")]
    Stranger,
}

/// What a controller sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Down {
    pub(super) term: Term,
    /// Sent when, by the controller's clock; and what is committed.
    pub(super) heartbeat: Option<(Instant, Index)>,
    pub(super) grant: Option<Grant>,
}

/// A lease for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// The stamp and the life of the beat that earned it.
    pub(super) echo: Instant,
    pub(super) boot: u64,
    /// Counted from that stamp.
    pub(super) duration: Duration,
}

/// What a node answers to a heartbeat: HbAck and NodeBeat in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Up {
    pub(super) term: Term,
    /// The heartbeat's stamp.
    pub(super) echo: Instant,
    /// Sent when, by the node's clock, in which life.
    pub(super) sent: Instant,
    pub(super) boot: u64,
    pub(super) incarnation: Incarnation,
    pub(super) report: Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack of a thread that allocates nothing"
)]
pub(super) enum Beat {
    Down(Down),
    Up(Up),
}

impl Beat {
    pub(super) fn encode(&self) -> [u8; BEAT_BYTES] {
        let mut bytes = [0; BEAT_BYTES];
        let mut put =
            |at: usize, number: u64| bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        match self {
            Self::Down(down) => {
                put(8, down.term.0);
                if let Some((sent, commit)) = down.heartbeat {
                    put(16, sent.0);
                    put(24, commit.0);
                }
                if let Some(grant) = down.grant {
                    put(32, grant.echo.0);
                    put(40, grant.boot);
                    put(
                        48,
                        u64::try_from(grant.duration.as_nanos()).unwrap_or(u64::MAX),
                    );
                }
                bytes[0] = DOWN;
                bytes[1] = u8::from(down.heartbeat.is_some()) * HEARTBEAT
                    + u8::from(down.grant.is_some()) * GRANT;
            }
            Self::Up(up) => {
                put(8, up.term.0);
                put(16, up.echo.0);
                put(24, up.sent.0);
                put(32, up.boot);
                bytes[0] = UP;
                bytes[40..56].copy_from_slice(&up.incarnation.0.0);
                bytes[56..64].copy_from_slice(&up.report.applied.0.to_le_bytes());
                bytes[64..72].copy_from_slice(&up.report.digest.to_le_bytes());
                bytes[72..74].copy_from_slice(&up.report.blessed.to_le_bytes());
                bytes[74] = up.report.clock_trusted.into();
                for ((uuid, state), at) in up.report.disks.iter().zip((DISKS_AT..).step_by(17)) {
                    bytes[at..at + 16].copy_from_slice(&uuid.0.0);
                    bytes[at + 16] = *state as u8;
                }
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BeatFault> {
        let bytes: &[u8; BEAT_BYTES] = bytes.try_into().map_err(|_| BeatFault::Malformed)?;
        let number =
            |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("within the bytes"));
        let uuid = |at: usize| Uuid(*bytes[at..].first_chunk().expect("within the bytes"));
        let term = Term(number(8));
        match (bytes[0], bytes[1]) {
            (DOWN, flags @ 1..=3) => Ok(Self::Down(Down {
                term,
                heartbeat: (flags & HEARTBEAT != 0)
                    .then(|| (Instant(number(16)), Index(number(24)))),
                grant: (flags & GRANT != 0).then(|| Grant {
                    echo: Instant(number(32)),
                    boot: number(40),
                    duration: Duration::from_nanos(number(48)),
                }),
            })),
            (UP, 0) => {
                let mut disks = Disks::default();
                for (disk, at) in disks.iter_mut().zip((DISKS_AT..).step_by(17)) {
                    *disk = (DiskUuid(uuid(at)), DiskState::read(bytes[at + 16])?);
                }
                Ok(Self::Up(Up {
                    term,
                    echo: Instant(number(16)),
                    sent: Instant(number(24)),
                    boot: number(32),
                    incarnation: Incarnation(uuid(40)),
                    report: Report {
                        applied: Index(number(56)),
                        digest: number(64),
                        blessed: u16::from_le_bytes([bytes[72], bytes[73]]),
                        clock_trusted: bytes[74] != 0,
                        disks,
                    },
                }))
            }
            _ => Err(BeatFault::Malformed),
        }
    }
}

impl DiskState {
    pub(super) const fn read(number: u8) -> Result<Self, BeatFault> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Clean,
            2 => Self::Stalled,
            3 => Self::Failed,
            4 => Self::Suspect,
            _ => return Err(BeatFault::Malformed),
        })
    }
}
