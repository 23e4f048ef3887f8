//! Snapshots: of what is applied here, so that the log ends; and a controller's, in pieces, for a node whose next entry
//! is no longer kept (Raft §7).

use model::{Incarnation, Instant, NodeId, Term};

use super::{Body, CHUNK_BYTES, Effect, Index, LOG_BYTES_MAX, LOG_ENTRIES_MAX, SiteLog, Voters};
use crate::Outbox;
use crate::sitelog::replicate::Progress;

/// The catalog as it is sent to those who need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    last: (Index, Term),
    voters: Voters,
    /// `None` while it is being encoded.
    bytes: Option<Vec<u8>>,
}

/// The part of a controller's snapshot that is here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Receiving {
    last: (Index, Term),
    total: u32,
    bytes: Vec<u8>,
}

impl SiteLog {
    /// Asks for a snapshot if more is kept than should be. The catalog is at `applied` when the effect is performed,
    /// since nothing is applied behind it in the same step.
    pub(super) fn want_snapshot(&mut self, out: &mut Outbox<Effect>) {
        let kept = self.log.entries.len() > LOG_ENTRIES_MAX || self.log.bytes > LOG_BYTES_MAX;
        let busy = self.snapshotting.is_some() || self.installing.is_some();
        if !kept || busy || self.applied == self.log.snapshot.0 {
            return;
        }
        let term = self
            .log
            .term_at(self.applied)
            .expect("applied behind the snapshot");
        self.snapshotting = Some((self.applied, term));
        out.push(Effect::Snapshot {
            index: self.applied,
            term,
        });
    }

    pub(super) fn snapshot_durable(&mut self, index: Index, out: &mut Outbox<Effect>) {
        if self.installing.take_if(|asked| *asked == index).is_some() {
            self.snapshotting = None;
            self.matched = self.matched.max(index);
            self.acknowledge(out);
        } else if let Some(snapshot) = self.snapshotting.take_if(|(asked, _)| *asked == index) {
            self.log.compact(snapshot);
            self.want_snapshot(out);
        }
    }

    /// The next piece for a peer, if it is not on its way.
    pub(super) fn send_chunk(
        &mut self,
        now: Instant,
        to: NodeId,
        progress: &mut Progress,
        out: &mut Outbox<Effect>,
    ) {
        let kept = self.log.snapshot.0;
        // One that is older than what the log begins with would have to be followed by another.
        let sending = match &self.sending {
            Some(sending) if sending.last.0 >= kept => sending,
            _ => {
                let term = self
                    .log
                    .term_at(self.applied)
                    .expect("at or behind the snapshot");
                out.push(Effect::Encode {
                    index: self.applied,
                });
                self.sending.insert(Sending {
                    last: (self.applied, term),
                    voters: self.log.voters_at(self.applied).clone(),
                    bytes: None,
                })
            }
        };
        if progress.of != sending.last.0 {
            progress.of = sending.last.0;
            progress.chunk = Some(0);
            progress.again_at = None;
        }
        let (Some(bytes), None) = (&sending.bytes, progress.again_at) else {
            return;
        };
        let from = (progress.chunk.unwrap_or_default() as usize).min(bytes.len());
        let body = Body::Chunk {
            last: sending.last,
            voters: sending.voters.clone(),
            total: u32::try_from(bytes.len()).expect("bounded at 16 MiB"),
            offset: u32::try_from(from).expect("bounded at 16 MiB"),
            bytes: bytes[from..].iter().take(CHUNK_BYTES).copied().collect(),
        };
        self.send(to, Incarnation::default(), body, out);
        progress.again_at = Some(now + self.timing.heartbeat * 2);
    }

    pub(super) fn encoded(&mut self, index: Index, bytes: Vec<u8>) {
        assert!(
            bytes.len() <= super::SNAPSHOT_BYTES_MAX,
            "a catalog of {} bytes",
            bytes.len()
        );
        if let Some(sending) = self.sending.as_mut().filter(|it| it.last.0 == index) {
            sending.bytes = Some(bytes);
        }
    }

    /// Nobody needs it: its memory goes.
    pub(super) fn let_snapshot_go(&mut self) {
        if self
            .progress
            .values()
            .all(|progress| progress.chunk.is_none())
        {
            self.sending = None;
        }
    }

    /// A piece of the controller's snapshot; `place` is how long the whole is, and where the piece begins.
    pub(super) fn chunk(
        &mut self,
        last: (Index, Term),
        voters: Voters,
        place: (u32, u32),
        bytes: &[u8],
        out: &mut Outbox<Effect>,
    ) {
        let (total, offset) = place;
        if last.0 <= self.committed || last.1 > self.hard_state.term {
            self.receiving = None;
            self.matched = self.matched.max(last.0.min(self.committed));
            return self.acknowledge(out);
        }
        let known = self
            .receiving
            .take()
            .filter(|it| it.last == last && it.total == total);
        let mut receiving = known.unwrap_or(Receiving {
            last,
            total,
            bytes: Vec::new(),
        });
        if receiving.bytes.len() == offset as usize {
            receiving.bytes.extend_from_slice(bytes);
        }
        let taken = u32::try_from(receiving.bytes.len()).expect("not beyond the total");
        self.tell_leader(
            Body::Taken {
                last: last.0,
                offset: taken,
            },
            out,
        );
        // What is being written or cut can't be put aside: the disk answers first, and the last piece comes again.
        let busy = self.snapshotting.is_some() || self.log.durable < self.log.last().0;
        if taken < total || busy {
            self.receiving = Some(receiving);
            return;
        }
        self.log.replace(last, voters);
        self.committed = last.0;
        self.applied = last.0;
        self.heard_commit = self.heard_commit.max(last.0);
        self.installing = Some(last.0);
        out.push(Effect::Install {
            index: last.0,
            term: last.1,
            bytes: receiving.bytes,
        });
    }
}
