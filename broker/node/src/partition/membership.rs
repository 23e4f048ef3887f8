//! Whom a leader wants in sync, and how far all of them are durable (R5, R6).

use model::{Instant, LeaderEpoch, Offset};

use super::insync::InSync;
use super::{CommitTime, Effect, Member, Partition, Role};
use crate::Outbox;
use crate::mutation::{self, Mutation};
use crate::peer::IsrOutcome;
use model::window::Windows;

impl Partition {
    /// Where the slowest of the maximal ISR, this replica included, is durable (R5).
    pub(super) fn durable_everywhere(&self) -> Offset {
        let maximal = self.isr.maximal().filter(|member| **member != self.me);
        let counted = maximal.filter(|member| match mutation::is(Mutation::JoiningNotCounted) {
            true => self.isr.committed().contains(member),
            false => true,
        });
        let acked = |member: &Member| {
            let row = self.followers.get(member);
            row.map_or(Offset::ZERO, |row| row.durable)
        };
        counted.map(acked).fold(self.durable, Offset::min)
    }

    /// The lowest log start of all replicas that may come to lead, or are heard of (R10).
    pub(super) fn log_start_everywhere(&self, now: Instant) -> Offset {
        let others = self.isr.maximal().filter(|member| **member != self.me);
        let in_sync = others.map(|member| {
            self.followers
                .get(member)
                .map_or(Offset::ZERO, |row| row.log_start)
        });
        let rows = self.followers.rows().iter();
        let live = rows
            .filter(|row| self.followers.live(now, row))
            .map(|row| row.log_start);
        in_sync.chain(live).fold(self.log_start, Offset::min)
    }

    /// The committed ISR of a version of the row.
    pub(super) fn isr(
        &mut self,
        now: Instant,
        part_ver: u32,
        committed: Box<[Member]>,
        windows: &mut Windows,
        out: &mut Outbox<Effect>,
    ) {
        if matches!(self.role, Role::Following { .. }) {
            return self.hear_isr(committed.contains(&self.me), out);
        }
        if part_ver <= self.isr.part_ver {
            return;
        }
        if !committed.contains(&self.me) {
            // R9: whoever leaves its own ISR has another incarnation or disk by now; its epoch is over.
            let refusal = super::Refusal::NotLeader {
                leader: None,
                epoch: self.epoch,
            };
            return self.resign(None, refusal, out);
        }
        self.isr = InSync::new(part_ver, committed);
        self.advance(now, windows, out);
        self.settle_isr(now, out);
    }

    /// What the controller said. It never changes who counts: only the next version of the row does.
    pub(super) fn isr_outcome(
        &mut self,
        now: Instant,
        epoch: LeaderEpoch,
        part_ver: u32,
        outcome: IsrOutcome,
        out: &mut Outbox<Effect>,
    ) {
        if epoch != self.epoch || part_ver != self.isr.part_ver {
            return;
        }
        match outcome {
            IsrOutcome::Ineligible { node } => {
                self.followers.refused(now, node);
                self.isr.rest();
                self.settle_isr(now, out);
            }
            IsrOutcome::Refused => self.isr.wait_for_next(),
            // The row comes by the site log; if it doesn't, asking again does no harm.
            IsrOutcome::Committed { .. } | IsrOutcome::Fenced | IsrOutcome::Stale => {}
            IsrOutcome::NotController => {}
        }
    }

    /// Proposes what is wanted, unless a proposal is under way.
    pub(super) fn settle_isr(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        let Role::Leading { start } = self.role else {
            return;
        };
        if self.isr.waits(now) {
            return;
        }
        self.isr.rest();
        let wanted = self.wanted(now, start);
        if !self.isr.differs(&wanted) {
            return;
        }
        self.isr.propose(now, &wanted);
        if mutation::is(Mutation::ShrinkCountsEarly) {
            self.isr = InSync::new(self.isr.part_ver, wanted.clone().into());
        }
        out.push(Effect::AlterIsr {
            epoch: self.epoch,
            part_ver: self.isr.part_ver,
            isr: wanted.into(),
        });
    }

    /// Whoever keeps up stays or joins; this replica always stays. In the order of the committed ISR, newcomers last.
    fn wanted(&self, now: Instant, start: Offset) -> Vec<Member> {
        let lags = |member: &Member| {
            now >= self.followers.lags_at(member) && !mutation::is(Mutation::LaggardStays)
        };
        let mut wanted: Vec<Member> = self.isr.committed().to_vec();
        wanted.retain(|member| *member == self.me || !lags(member));
        let min = usize::from(self.settings.min_insync);
        for member in self.isr.committed() {
            let slow = *member != self.me && self.followers.slow(member);
            if slow && wanted.len() > min && !mutation::is(Mutation::SlowStays) {
                wanted.retain(|other| other != member);
            }
        }
        for row in self.followers.rows() {
            let member = &row.member;
            let committed =
                self.high_watermark
                    .max(match mutation::is(Mutation::JoinsBelowStart) {
                        true => Offset::ZERO,
                        false => start,
                    });
            let far = row.durable >= committed || mutation::is(Mutation::JoinsBehind);
            let known = self.isr.committed().contains(member);
            // Not beside another disk of its node, which must leave first.
            let twice = wanted.iter().any(|other| other.node == member.node);
            let fit = far && !lags(member) && !self.followers.slow(member);
            if fit && !known && !twice && now >= row.refused_until {
                wanted.push(*member);
            }
        }
        wanted
    }

    /// When somebody in sync, or about to be, has lagged too long; or when the proposal under way is weighed again.
    pub(super) fn isr_due(&self) -> Option<Instant> {
        if !matches!(self.role, Role::Leading { .. }) {
            return None;
        }
        if let Some(due) = self.isr.due() {
            return due;
        }
        let others = self.isr.maximal().filter(|member| **member != self.me);
        others.map(|member| self.followers.lags_at(member)).min()
    }

    /// The gray rule: a disk that is slow but in time would hold every acks=all (H55).
    pub(super) fn commit_times(
        &mut self,
        now: Instant,
        times: &[CommitTime],
        out: &mut Outbox<Effect>,
    ) {
        if !matches!(self.role, Role::Leading { .. }) {
            return;
        }
        let mut members = self.isr.committed().to_vec();
        for row in self.followers.rows() {
            if !members.contains(&row.member) {
                members.push(row.member);
            }
        }
        self.followers.judge(now, &members, times, |member, slow| {
            out.push(Effect::SlowDisk { member, slow });
        });
        self.settle_isr(now, out);
    }
}
