//! Fetch sessions (KIP-227): a consumer that reads many partitions names only what changed, and is told only what
//! changed.
//!
//! All sessions together remember a bounded number of partitions. A session that doesn't fit is answered with id 0 and
//! its client goes on sending whole requests, for ever if need be; nobody is evicted while in use.

use std::collections::{BTreeMap, BTreeSet};

use model::{Instant, Offset};
use wire::ErrorCode;
use wire::fetch::{FetchPartition, FetchRequest, TopicRef};

/// (session, partition) pairs of all sessions: 64 Ki of about 48 bytes are 3 MiB.
pub(crate) const PAIRS_MAX: usize = 64 * 1024;
/// A session nobody used for this long may be given up for a new one (Kafka's min.incremental.fetch.session.eviction.ms).
const IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(120);

const EPOCH_NONE: i32 = -1;
const EPOCH_FIRST: i32 = 0;

/// A partition as its session knows it.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) topic: TopicRef,
    pub(crate) ask: FetchPartition,
    /// What the client was told last: high watermark and log start. None before the first answer.
    told: Option<(Offset, Offset)>,
}

/// What a request asks for once its session is known.
pub(crate) struct Asked {
    /// The session to name in the answer; 0 for none.
    pub(crate) session_id: i32,
    /// Partitions in the order to read them.
    pub(crate) partitions: Vec<Watched>,
    /// Whether unchanged partitions are left out of the answer.
    pub(crate) incremental: bool,
}

struct Session {
    /// The epoch the client's next request must carry.
    epoch_next: i32,
    by_id: bool,
    used: Instant,
    partitions: Vec<Watched>,
    /// Where the next answer begins, so that the last partitions don't starve behind full ones.
    turn: usize,
}

/// Every session of the node.
#[derive(Default)]
pub(crate) struct Sessions {
    sessions: BTreeMap<i32, Session>,
    pairs: usize,
    id_last: i32,
}

impl Sessions {
    /// Pairs remembered now.
    pub(crate) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Settles which partitions `request` asks for, and remembers what it changes.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        by_id: bool,
        request: &FetchRequest,
    ) -> Result<Asked, ErrorCode> {
        match (request.session_id, request.session_epoch) {
            (id, EPOCH_NONE | EPOCH_FIRST) => {
                if id != 0 {
                    self.remove(id);
                }
                let partitions = whole(request);
                let session_id = match request.session_epoch {
                    EPOCH_FIRST => self.open(now, by_id, &partitions),
                    _ => 0,
                };
                Ok(Asked {
                    session_id,
                    partitions,
                    incremental: false,
                })
            }
            (id, epoch) => self.go_on(now, by_id, id, epoch, request),
        }
    }

    /// Notes what an answer tells; says whether the partition belongs into it.
    pub(crate) fn tell(
        &mut self,
        session_id: i32,
        at: usize,
        high_watermark: Offset,
        log_start: Offset,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return true;
        };
        let Some(watched) = session.partitions.get_mut(at) else {
            return true;
        };
        watched.told.replace((high_watermark, log_start)) != Some((high_watermark, log_start))
    }

    fn go_on(
        &mut self,
        now: Instant,
        by_id: bool,
        id: i32,
        epoch: i32,
        request: &FetchRequest,
    ) -> Result<Asked, ErrorCode> {
        let session = self
            .sessions
            .get_mut(&id)
            .ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch_next != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        let gone: BTreeSet<_> = request
            .forgotten
            .iter()
            .map(|gone| key(&request.topics[gone.topic as usize], gone.index))
            .collect();
        if !gone.is_empty() {
            session
                .partitions
                .retain(|watched| !gone.contains(&key(&watched.topic, watched.ask.index)));
        }
        if !request.partitions.is_empty() {
            let places: BTreeMap<_, _> = session
                .partitions
                .iter()
                .enumerate()
                .map(|(at, watched)| (owned_key(&watched.topic, watched.ask.index), at))
                .collect();
            for new in whole(request) {
                match places.get(&owned_key(&new.topic, new.ask.index)) {
                    Some(at) => session.partitions[*at].ask = new.ask,
                    None => session.partitions.push(new),
                }
            }
        }
        session.epoch_next = following(epoch);
        session.used = now;
        let after = session.partitions.len();
        if self.pairs - before + after > PAIRS_MAX {
            self.remove(id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        self.pairs = self.pairs - before + after;
        let session = self.sessions.get(&id).expect("looked up above");
        Ok(Asked {
            session_id: id,
            partitions: session.partitions.clone(),
            incremental: true,
        })
    }

    /// Where reading begins this time for a session, or for a request without one.
    pub(crate) fn turn(&mut self, session_id: i32, partitions: usize) -> usize {
        match self.sessions.get_mut(&session_id) {
            Some(session) if partitions > 0 => {
                session.turn = (session.turn + 1) % partitions;
                session.turn
            }
            _ => 0,
        }
    }

    fn open(&mut self, now: Instant, by_id: bool, partitions: &[Watched]) -> i32 {
        if self.pairs + partitions.len() > PAIRS_MAX {
            self.evict_idle(now, partitions.len());
        }
        if partitions.is_empty() || self.pairs + partitions.len() > PAIRS_MAX {
            return 0;
        }
        loop {
            self.id_last = if self.id_last == i32::MAX {
                1
            } else {
                self.id_last + 1
            };
            if !self.sessions.contains_key(&self.id_last) {
                break;
            }
        }
        self.pairs += partitions.len();
        let session = Session {
            epoch_next: 1,
            by_id,
            used: now,
            partitions: partitions.to_vec(),
            turn: 0,
        };
        self.sessions.insert(self.id_last, session);
        self.id_last
    }

    fn evict_idle(&mut self, now: Instant, wanted: usize) {
        let mut idle: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| now.since(session.used) > IDLE_MAX)
            .map(|(id, session)| (session.used, *id))
            .collect();
        idle.sort_unstable();
        for (_, id) in idle {
            if self.pairs + wanted <= PAIRS_MAX {
                return;
            }
            self.remove(id);
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.pairs -= session.partitions.len();
        }
    }
}

/// The epoch that follows; it wraps past 0, which would open a new session.
const fn following(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

fn whole(request: &FetchRequest) -> Vec<Watched> {
    request
        .partitions
        .iter()
        .map(|ask| Watched {
            topic: request.topics[ask.topic as usize].clone(),
            ask: *ask,
            told: None,
        })
        .collect()
}

fn key(topic: &TopicRef, index: i32) -> (Option<&str>, [u8; 16], i32) {
    match topic {
        TopicRef::Name(name) => (Some(name), [0; 16], index),
        TopicRef::Id(id) => (None, id.0.0, index),
    }
}

fn owned_key(topic: &TopicRef, index: i32) -> (Option<Box<str>>, [u8; 16], i32) {
    let (name, id, index) = key(topic, index);
    (name.map(Into::into), id, index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LeaderEpoch;
    use wire::fetch::{Forgotten, Isolation};

    fn request(
        session_id: i32,
        session_epoch: i32,
        indexes: &[i32],
        forgotten: &[i32],
    ) -> FetchRequest {
        let topic = TopicRef::Name("t".into());
        FetchRequest {
            replica_id: -1,
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 1 << 20,
            isolation: Isolation::ReadUncommitted,
            session_id,
            session_epoch,
            topics: vec![topic.clone()],
            partitions: indexes
                .iter()
                .map(|index| FetchPartition {
                    topic: 0,
                    index: *index,
                    current_leader_epoch: LeaderEpoch::NONE,
                    offset: Offset(0),
                    last_fetched_epoch: LeaderEpoch::NONE,
                    log_start: Offset(-1),
                    max_bytes: 1 << 20,
                })
                .collect(),
            forgotten: forgotten
                .iter()
                .map(|index| Forgotten {
                    topic: 0,
                    index: *index,
                })
                .collect(),
            rack: "".into(),
            cluster_id: None,
        }
    }

    fn indexes(asked: &Asked) -> Vec<i32> {
        asked
            .partitions
            .iter()
            .map(|watched| watched.ask.index)
            .collect()
    }

    #[test]
    fn a_session_remembers_adds_and_forgets() {
        let mut sessions = Sessions::default();
        let first = sessions
            .ask(Instant(0), false, &request(0, 0, &[0, 1], &[]))
            .expect("opens");
        assert!(first.session_id > 0 && !first.incremental);
        let id = first.session_id;
        let second = sessions
            .ask(Instant(1), false, &request(id, 1, &[2], &[0]))
            .expect("goes on");
        assert_eq!((indexes(&second), second.incremental), (vec![1, 2], true));
        assert_eq!(sessions.pairs(), 2);
        assert!(sessions.tell(id, 0, Offset(5), Offset(0)), "news");
        assert!(!sessions.tell(id, 0, Offset(5), Offset(0)), "no news");
        assert!(sessions.tell(id, 0, Offset(6), Offset(0)), "news again");
    }

    #[test]
    fn what_does_not_fit_the_session_is_named() {
        let mut sessions = Sessions::default();
        let id = sessions
            .ask(Instant(0), false, &request(0, 0, &[0], &[]))
            .expect("opens")
            .session_id;
        let error = |result: Result<Asked, ErrorCode>| result.err().expect("refused");
        assert_eq!(
            error(sessions.ask(Instant(0), false, &request(id + 1, 1, &[], &[]))),
            ErrorCode::FetchSessionIdNotFound
        );
        assert_eq!(
            error(sessions.ask(Instant(0), false, &request(id, 2, &[], &[]))),
            ErrorCode::InvalidFetchSessionEpoch
        );
        assert_eq!(
            error(sessions.ask(Instant(0), true, &request(id, 1, &[], &[]))),
            ErrorCode::FetchSessionTopicIdError
        );
        let closed = sessions
            .ask(Instant(0), false, &request(id, -1, &[0], &[]))
            .expect("a whole request");
        assert_eq!((closed.session_id, sessions.pairs()), (0, 0));
    }

    #[test]
    fn beyond_the_bound_there_is_no_session_until_one_idles() {
        let mut sessions = Sessions::default();
        let many: Vec<i32> = (0..i32::try_from(PAIRS_MAX).expect("small")).collect();
        assert!(
            sessions
                .ask(Instant(0), false, &request(0, 0, &many, &[]))
                .expect("fits")
                .session_id
                > 0
        );
        assert_eq!(
            sessions
                .ask(Instant(1), false, &request(0, 0, &[0], &[]))
                .expect("served")
                .session_id,
            0
        );
        let later = Instant(0) + IDLE_MAX + IDLE_MAX;
        assert!(
            sessions
                .ask(later, false, &request(0, 0, &[0], &[]))
                .expect("fits again")
                .session_id
                > 0
        );
        assert_eq!(sessions.pairs(), 1);
    }
}
