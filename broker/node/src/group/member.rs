//! One member of a classic group.

use core::time::Duration;

use model::Instant;

use super::records::MemberValue;
use super::types::{DescribedMember, Join, JoinedMember, Protocol};
use crate::Ticket;

/// What a member costs besides its bytes: the structure, its place in the map, a ticket and a timer.
const MEMBER_BYTES: usize = 448;
const PROTOCOL_BYTES: usize = 48;

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_ms: i32,
    pub(super) rebalance_ms: i32,
    /// The preferred one first.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Vec<u8>,
    /// It has not been through a whole rebalance yet, so it may not know its id and can't send heartbeats.
    pub(super) is_new: bool,
    /// It has joined the generation but not asked for its assignment.
    pub(super) sync_pending: bool,
    /// Its JoinGroup waits for the others. Never together with `syncing`.
    pub(super) joining: Option<Ticket>,
    /// Its SyncGroup waits for the leader, or for the disks.
    pub(super) syncing: Option<Ticket>,
    /// When it is dead.
    pub(super) deadline: Instant,
}

impl Member {
    pub(super) fn new(join: Join, deadline: Instant) -> Self {
        Self {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_ms: join.session_timeout_ms,
            rebalance_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Vec::new(),
            is_new: true,
            sync_pending: false,
            joining: None,
            syncing: None,
            deadline,
        }
    }

    pub(super) fn load(value: MemberValue, protocol: &str, now: Instant) -> (String, Self) {
        let member = Self {
            instance: value.instance,
            client_id: value.client_id,
            client_host: value.client_host,
            session_ms: value.session_timeout_ms,
            rebalance_ms: value.rebalance_timeout_ms,
            protocols: vec![Protocol {
                name: protocol.to_owned(),
                metadata: value.subscription,
            }],
            assignment: value.assignment,
            is_new: false,
            sync_pending: false,
            joining: None,
            syncing: None,
            deadline: now,
        };
        (value.member, member)
    }

    /// When it is dead unless it is heard of. Members whose request waits here need no heartbeat; only new ones may
    /// die while they wait, as a client that went away might come back as another new member, again and again.
    pub(super) fn due(&self) -> Option<Instant> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits).then_some(self.deadline)
    }

    pub(super) fn session(&self) -> Duration {
        millis(self.session_ms)
    }

    pub(super) fn metadata(&self, protocol: &str) -> &[u8] {
        let spoken = self.protocols.iter().find(|spoken| spoken.name == protocol);
        spoken.map_or(&[], |spoken| &spoken.metadata)
    }

    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|spoken| spoken.name == protocol)
    }

    /// Bytes it holds of the pool.
    pub(super) fn cost(&self, id: &str) -> usize {
        let names = id.len() * 2
            + self
                .instance
                .as_ref()
                .map_or(0, |instance| instance.len() * 2)
            + self.client_id.len()
            + self.client_host.len();
        MEMBER_BYTES + names + protocols_cost(&self.protocols) + self.assignment.len()
    }

    pub(super) fn joined(&self, id: &str, protocol: &str) -> JoinedMember {
        JoinedMember {
            member: id.to_owned(),
            instance: self.instance.clone(),
            metadata: self.metadata(protocol).to_vec(),
        }
    }

    pub(super) fn value(&self, id: &str, protocol: &str, assignment: &[u8]) -> MemberValue {
        MemberValue {
            member: id.to_owned(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_ms,
            session_timeout_ms: self.session_ms,
            subscription: self.metadata(protocol).to_vec(),
            assignment: assignment.to_vec(),
        }
    }

    /// With metadata and assignment only where `protocol` says under which.
    pub(super) fn described(&self, id: &str, protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            member: id.to_owned(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol.map_or_else(Vec::new, |protocol| self.metadata(protocol).to_vec()),
            assignment: protocol.map_or_else(Vec::new, |_| self.assignment.clone()),
        }
    }
}

pub(super) fn protocols_cost(protocols: &[Protocol]) -> usize {
    protocols
        .iter()
        .map(|protocol| PROTOCOL_BYTES + protocol.name.len() + protocol.metadata.len())
        .sum()
}

/// Milliseconds as the wire has them; negative ones count as none.
pub(super) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
