//! What a leader knows of its followers in this epoch: how far each is durable, and whether it keeps up.

use core::time::Duration;

use model::{DiskUuid, Instant, Offset};

use super::{Member, ReplicaFetch};
use crate::mutation::{self, Mutation};

/// A member of the ISR that was not level with the leader for so long leaves it (R6).
pub const LAG_MAX: Duration = Duration::from_secs(5);
/// Nodes that may report: a site has five, and no partition has two replicas on one.
const FOLLOWERS_MAX: usize = 8;
/// A disk is slow whose commits take this many times as long as those of the other members,
const SLOW_TIMES: u32 = 10;
/// and longer than this,
const SLOW_MIN: Duration = Duration::from_millis(100);
/// for so long;
const SLOW_AFTER: Duration = Duration::from_secs(30);
/// and is not any more after so long without (R6, H55).
const FINE_AFTER: Duration = Duration::from_secs(600);

/// Median time of a disk's recent commits, as its node has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitTime {
    /// The disk.
    pub disk: DiskUuid,
    /// From the group's write to its flush.
    pub median: Duration,
}

/// One follower. Its ends are of this epoch: with the epoch, the incarnation or the disk they begin at nothing (R5).
#[derive(Clone, Debug, Hash)]
pub(super) struct Follower {
    pub(super) member: Member,
    pub(super) durable: Offset,
    pub(super) log_start: Offset,
    /// It was level with this log then.
    caught_up: Instant,
    /// Once it is durable up to there it was level at that moment.
    mark: (Offset, Instant),
    /// Its last fetch.
    heard: Instant,
    /// The controller refused it; not proposed before.
    pub(super) refused_until: Instant,
}

/// Whether a disk is slow, by disk: it outlives epochs.
#[derive(Clone, Debug, Hash)]
struct Pace {
    disk: DiskUuid,
    slow: bool,
    /// Since when it has been otherwise than `slow` says, without a break.
    otherwise: Option<Instant>,
}

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Followers {
    rows: Vec<Follower>,
    paces: Vec<Pace>,
    /// The epoch began to be led.
    since: Instant,
}

impl Followers {
    /// A new epoch begins with nobody's word.
    pub(super) fn begin(&mut self, now: Instant) {
        self.rows.clear();
        self.since = now;
    }

    pub(super) fn rows(&self) -> &[Follower] {
        &self.rows
    }

    pub(super) fn get(&self, member: &Member) -> Option<&Follower> {
        self.rows.iter().find(|row| row.member == *member)
    }

    /// A follower whose log agrees with this one, which ends at `end`, has asked. False if there are too many.
    pub(super) fn report(&mut self, now: Instant, ask: &ReplicaFetch, end: Offset) -> bool {
        let place = self
            .rows
            .iter()
            .position(|row| row.member.node == ask.member.node);
        let fresh = || Follower {
            member: ask.member,
            durable: Offset::ZERO,
            log_start: Offset::ZERO,
            caught_up: self.since,
            mark: (end, now),
            heard: now,
            refused_until: Instant(0),
        };
        let place = match place {
            Some(place) => {
                // Another incarnation or disk of the node takes the place of the old, and starts from its own end.
                if self.rows[place].member != ask.member {
                    match mutation::is(Mutation::AckOutlivesDisk) {
                        true => self.rows[place].member = ask.member,
                        false => self.rows[place] = fresh(),
                    }
                }
                place
            }
            None if self.rows.len() == FOLLOWERS_MAX => return false,
            None => {
                self.rows.push(fresh());
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[place];
        // What lies behind the end of what it has from this leader is not known to agree.
        row.durable = row.durable.max(ask.durable_off.min(ask.fetch_off));
        row.log_start = row.log_start.max(ask.log_start);
        row.heard = now;
        if row.durable >= end {
            (row.caught_up, row.mark) = (now, (end, now));
        } else if row.durable >= row.mark.0 {
            row.caught_up = row.mark.1;
            row.mark = (end, now);
        }
        true
    }

    /// When `member`, if it stays as it is, has lagged too long.
    pub(super) fn lags_at(&self, member: &Member) -> Instant {
        let caught_up = self.get(member).map_or(self.since, |row| row.caught_up);
        caught_up + LAG_MAX
    }

    /// Whether it has been heard of lately.
    pub(super) fn live(&self, now: Instant, row: &Follower) -> bool {
        now < row.heard + LAG_MAX
    }

    pub(super) fn refused(&mut self, now: Instant, node: model::NodeId) {
        for row in &mut self.rows {
            if row.member.node == node {
                row.refused_until = now + LAG_MAX;
            }
        }
    }

    pub(super) fn slow(&self, member: &Member) -> bool {
        let mut paces = self.paces.iter();
        paces.any(|pace| pace.disk == member.disk && pace.slow)
    }

    /// Judges the disks of `members` by what each took lately. Calls `changed` for each whose judgement changes.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        members: &[Member],
        times: &[CommitTime],
        mut changed: impl FnMut(Member, bool),
    ) {
        let time_of = |disk| {
            let mut times = times.iter();
            times.find(|time| time.disk == disk).map(|time| time.median)
        };
        self.paces
            .retain(|pace| members.iter().any(|it| it.disk == pace.disk));
        for member in members {
            let others = members.iter().filter(|other| *other != member);
            let others = others.filter_map(|other| time_of(other.disk)).max();
            // Where nobody can be compared with it nothing changes.
            let (Some(own), Some(others)) = (time_of(member.disk), others) else {
                continue;
            };
            let slow = own > SLOW_MIN && own > others * SLOW_TIMES;
            let place = self.paces.iter().position(|it| it.disk == member.disk);
            let pace = match place {
                Some(place) => &mut self.paces[place],
                None => self.paces.push_mut(Pace {
                    disk: member.disk,
                    slow: false,
                    otherwise: None,
                }),
            };
            if slow == pace.slow {
                pace.otherwise = None;
                continue;
            }
            let since = *pace.otherwise.get_or_insert(now);
            let enough = if slow { SLOW_AFTER } else { FINE_AFTER };
            if now >= since + enough {
                (pace.slow, pace.otherwise) = (slow, None);
                changed(*member, slow);
            }
        }
    }
}
