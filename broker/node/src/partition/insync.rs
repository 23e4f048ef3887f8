//! Who is in sync: as committed, and as this leader has asked the controller for.
//!
//! Until the row's next version is applied, nobody knows which of the proposals sent for this version the controller
//! will take, or has taken. So the high watermark waits for every member that any of them names (R5, H26); a refusal
//! does not end that, as a copy of the refused request may still be on its way.

use core::time::Duration;

use model::Instant;

use super::Member;

/// A proposal that was not answered, or not to the end, is weighed and sent again after this: a controller's entry takes
/// two journal commits, 100 ms on a busy disk, and its death 0.75 s.
pub const ISR_RETRY: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct InSync {
    /// Version of the applied row.
    pub(super) part_ver: u32,
    committed: Box<[Member]>,
    /// Named by a proposal for this version, not committed: at most one a follower.
    joining: Vec<Member>,
    proposal: Option<Proposal>,
}

#[derive(Clone, Debug, Hash)]
struct Proposal {
    /// `None`: only the next version ends it.
    again: Option<Instant>,
}

impl InSync {
    /// The committed ISR of a new version of the row, or a new epoch.
    pub(super) fn new(part_ver: u32, committed: Box<[Member]>) -> Self {
        Self {
            part_ver,
            committed,
            joining: Vec::new(),
            proposal: None,
        }
    }

    pub(super) fn committed(&self) -> &[Member] {
        &self.committed
    }

    /// All whose durable end the high watermark waits for.
    pub(super) fn maximal(&self) -> impl Iterator<Item = &Member> {
        self.committed.iter().chain(&self.joining)
    }

    /// Whether a proposal is under way that is not to be weighed again yet.
    pub(super) fn waits(&self, now: Instant) -> bool {
        let under_way = self.proposal.as_ref();
        under_way.is_some_and(|proposal| proposal.again.is_none_or(|again| now < again))
    }

    /// When the proposal under way is weighed again; the inner `None` is never.
    pub(super) fn due(&self) -> Option<Option<Instant>> {
        self.proposal.as_ref().map(|proposal| proposal.again)
    }

    /// Whether `wanted` must be proposed: it is not what is committed, or somebody may join that is not wanted.
    pub(super) fn differs(&self, wanted: &[Member]) -> bool {
        *self.committed != *wanted || self.joining.iter().any(|member| !wanted.contains(member))
    }

    /// `isr` is being proposed: whoever it adds counts from now on.
    pub(super) fn propose(&mut self, now: Instant, isr: &[Member]) {
        for member in isr {
            if !self.committed.contains(member) && !self.joining.contains(member) {
                self.joining.push(*member);
            }
        }
        self.proposal = Some(Proposal {
            again: Some(now + ISR_RETRY),
        });
    }

    /// What was proposed need not be weighed before something new happens.
    pub(super) fn rest(&mut self) {
        self.proposal = None;
    }

    /// Nothing but the next version helps.
    pub(super) fn wait_for_next(&mut self) {
        self.proposal = Some(Proposal { again: None });
    }
}
