//! Hand-over: a leader stops taking requests, lets the next one become level, and waits to be told who leads.
//!
//! Nothing is promised by it: the site log moves the leader, or it does not, and then this one goes on.

use core::time::Duration;

use model::{Instant, NodeId};

use super::{Effect, PARK_MAX, Partition, Role};

/// How long a leader waits to be moved: 150 ms is usual and 400 ms the worst, and what was parked meanwhile must then
/// still be served.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
const _: () = assert!(
    HAND_OVER_MAX.as_millis() < PARK_MAX.as_millis(),
    "parked requests outlast it"
);
use crate::Outbox;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handing {
    to: NodeId,
    since: Instant,
    /// The other is level, and was said to be.
    level: bool,
}

impl Partition {
    pub(super) fn hand_over(&mut self, now: Instant, to: NodeId, out: &mut Outbox<Effect>) {
        let in_sync = self.isr.committed().iter().any(|member| member.node == to);
        let leads = matches!(self.role, Role::Leading { .. });
        if leads && in_sync && to != self.me.node && self.handing.is_none() {
            self.handing = Some(Handing {
                to,
                since: now,
                level: false,
            });
            self.hand_over_if_level(out);
        }
    }

    /// Says once that the next leader has all there is, and all of it is committed.
    pub(super) fn hand_over_if_level(&mut self, out: &mut Outbox<Effect>) {
        let Some(handing) = self.handing else {
            return;
        };
        let mut members = self.isr.committed().iter();
        let next = members.find(|member| member.node == handing.to);
        let row = next.and_then(|member| self.followers.get(member));
        let level =
            self.high_watermark == self.end && row.is_some_and(|row| row.durable == self.end);
        if level && !handing.level {
            self.handing = Some(Handing {
                level: true,
                ..handing
            });
            out.push(Effect::Level {
                to: handing.to,
                epoch: self.epoch,
            });
        }
    }

    /// When it has taken too long: this leader goes on.
    pub(super) fn handing_due(&self) -> Option<Instant> {
        self.handing.map(|handing| handing.since + HAND_OVER_MAX)
    }
}
