//! Membership in a consumer group by the classic protocol, with the range assignor of Java's consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use wire::ErrorCode;

use crate::cluster::{Cluster, text, topic_name};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::groups::assigned;

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";
/// Silence after which we count as gone.
const SESSION_MS: i32 = 45_000;
/// How long a rebalance waits for us.
const REBALANCE_MS: i32 = 60_000;
/// Between two heartbeats, as Java's consumer.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A join is answered when the rebalance is over.
const JOIN_PATIENCE: Duration = Duration::from_secs(90);

/// See the module.
pub(crate) struct Member {
    group: String,
    topic: String,
    id: StrBytes,
    generation: i32,
    connection: Connection,
    beaten: Instant,
}

/// Whether we are still what we were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Go on.
    Member,
    /// Join again: others came or went, or we were taken for gone.
    Rejoin,
}

impl Member {
    /// Joins a group to read one topic; the second value is our partitions.
    pub(crate) fn join(
        cluster: &mut Cluster,
        group: &str,
        topic: &str,
    ) -> Result<(Self, Vec<i32>), Failure> {
        let connection = coordinator(cluster, group)?;
        let mut member = Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            id: StrBytes::default(),
            generation: -1,
            connection,
            beaten: Instant::now(),
        };
        let partitions = member.rejoin(cluster)?;
        Ok((member, partitions))
    }

    /// Joins again; gives our partitions of the new generation.
    pub(crate) fn rejoin(&mut self, cluster: &mut Cluster) -> Result<Vec<i32>, Failure> {
        let deadline = Instant::now() + JOIN_PATIENCE + cluster.reach().patience();
        loop {
            match self.join_once(cluster) {
                Ok(Some(partitions)) => return Ok(partitions),
                Ok(None) => {}
                Err(failure) if failure.retriable() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(200));
                    self.connection = coordinator(cluster, &self.group)?;
                }
                Err(failure) => return Err(failure),
            }
            if Instant::now() > deadline {
                return Err(Failure::Fault(format!(
                    "group \"{}\" does not come to rest",
                    self.group
                )));
            }
        }
    }

    /// One join and sync; `None`: try again at once.
    fn join_once(&mut self, cluster: &mut Cluster) -> Result<Option<Vec<i32>>, Failure> {
        let subscription =
            ConsumerProtocolSubscription::default().with_topics(vec![text(&self.topic)]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(ASSIGNOR))
            .with_metadata(versioned(&subscription)?);
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_member_id(self.id.clone())
            .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
            .with_protocols(vec![protocol]);
        // Version 9 may tell a leader to skip the assignment, which only static members meet.
        let joined = self.connection.call(&request, 7)?;
        match ErrorCode::from_code(joined.error_code) {
            Some(ErrorCode::MemberIdRequired) => {
                self.id = joined.member_id;
                return Ok(None);
            }
            Some(ErrorCode::UnknownMemberId) => {
                self.id = StrBytes::default();
                return Ok(None);
            }
            _ => Failure::check(
                || format!("joining group \"{}\"", self.group),
                joined.error_code,
                None,
            )?,
        }
        self.id = joined.member_id.clone();
        self.generation = joined.generation_id;
        let assignments = if joined.leader == self.id {
            assign(cluster, &joined)?
        } else {
            Vec::new()
        };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(assignments);
        let synced = self.connection.call(&request, 4)?;
        self.beaten = Instant::now();
        if self.standing(synced.error_code, "syncing with")? == Standing::Rejoin {
            return Ok(None);
        }
        let own = assigned(&synced.assignment)
            .into_iter()
            .filter(|(topic, _)| *topic == self.topic);
        Ok(Some(own.map(|(_, partition)| partition).collect()))
    }

    fn group_id(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    /// What an error code means to a member.
    fn standing(&mut self, code: i16, doing: &str) -> Result<Standing, Failure> {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => Ok(Standing::Member),
            Some(ErrorCode::RebalanceInProgress) => Ok(Standing::Rejoin),
            Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                self.id = StrBytes::default();
                Ok(Standing::Rejoin)
            }
            _ => {
                Failure::check(|| format!("{doing} group \"{}\"", self.group), code, None)?;
                Ok(Standing::Member)
            }
        }
    }

    /// Says that we are there, if it is time to.
    pub(crate) fn beat(&mut self, cluster: &mut Cluster) -> Result<Standing, Failure> {
        if self.beaten.elapsed() < HEARTBEAT {
            return Ok(Standing::Member);
        }
        self.beaten = Instant::now();
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        let answer = self
            .connection
            .call(&request, 3)
            .and_then(|answer| self.standing(answer.error_code, "staying in"));
        self.or_elsewhere(cluster, answer)
    }

    /// Commits offsets: what was read may not be read again by the next owner.
    pub(crate) fn commit(
        &mut self,
        cluster: &mut Cluster,
        offsets: &[(i32, i64)],
    ) -> Result<Standing, Failure> {
        if offsets.is_empty() {
            return Ok(Standing::Member);
        }
        let partitions = offsets.iter().map(|(partition, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic]);
        let deadline = Instant::now() + cluster.reach().patience();
        loop {
            let answer = self.connection.call(&request, 8).and_then(|answer| {
                let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
                let faults = partitions
                    .map(|partition| partition.error_code)
                    .filter(|code| *code != 0);
                self.standing(faults.max().unwrap_or_default(), "committing offsets in")
            });
            match answer {
                // What was printed must not be forgotten because the coordinator moved.
                Err(failure) if failure.retriable() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(200));
                    self.connection = coordinator(cluster, &self.group)?;
                }
                answer => return answer,
            }
        }
    }

    /// The coordinator may have moved, or restarted with us still a member: find it and ask it with the next beat.
    fn or_elsewhere(
        &mut self,
        cluster: &mut Cluster,
        answer: Result<Standing, Failure>,
    ) -> Result<Standing, Failure> {
        match answer {
            Err(failure) if failure.retriable() => {
                self.connection = coordinator(cluster, &self.group)?;
                self.beaten = Instant::now().checked_sub(HEARTBEAT).unwrap_or(self.beaten);
                Ok(Standing::Member)
            }
            answer => answer,
        }
    }

    /// Leaves, so that others get our partitions at once.
    pub(crate) fn leave(mut self) -> Result<(), Failure> {
        let identity = MemberIdentity::default().with_member_id(self.id.clone());
        let version = self.connection.version::<LeaveGroupRequest>(4)?;
        let request = LeaveGroupRequest::default().with_group_id(self.group_id());
        let request = if version >= 3 {
            request.with_members(vec![identity])
        } else {
            request.with_member_id(self.id.clone())
        };
        let answer = self.connection.call(&request, version)?;
        Failure::check(
            || format!("leaving group \"{}\"", self.group),
            answer.error_code,
            None,
        )
    }
}

/// A connection of our own: a join may take as long as a rebalance.
fn coordinator(cluster: &mut Cluster, group: &str) -> Result<Connection, Failure> {
    cluster.retry(|cluster| {
        let broker = cluster.coordinator(group)?;
        cluster.own_connection(broker, JOIN_PATIENCE)
    })
}

/// A message of the consumer protocol: its version, then its fields. Version 0 is understood by every client.
fn versioned(message: &impl Encodable) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    message
        .encode(&mut bytes, 0)
        .map_err(|error| Failure::Fault(format!("the consumer protocol: {error}")))?;
    Ok(bytes.freeze())
}

/// The leader's part: who reads what.
fn assign(
    cluster: &mut Cluster,
    joined: &JoinGroupResponse,
) -> Result<Vec<SyncGroupRequestAssignment>, Failure> {
    let mut readers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for member in &joined.members {
        for topic in subscribed(&member.metadata)? {
            readers
                .entry(topic)
                .or_default()
                .insert(member.member_id.to_string());
        }
    }
    let mut topics = Vec::new();
    for (topic, members) in readers {
        // Who subscribes to a topic that is not there gets none of it.
        let partitions = cluster
            .topic(&topic, false)
            .map_or(0, |topic| topic.partitions.len());
        topics.push((topic, partitions, members.into_iter().collect::<Vec<_>>()));
    }
    let mut shares = ranges(&topics);
    let assignment =
        |member: &kafka_protocol::messages::join_group_response::JoinGroupResponseMember| {
            let share = shares.remove(member.member_id.as_str()).unwrap_or_default();
            let partitions = share.into_iter().map(|(topic, partitions)| {
                TopicPartition::default()
                    .with_topic(topic_name(&topic))
                    .with_partitions(partitions)
            });
            let assignment = ConsumerProtocolAssignment::default()
                .with_assigned_partitions(partitions.collect());
            Ok(SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(versioned(&assignment)?))
        };
    joined.members.iter().map(assignment).collect()
}

fn subscribed(metadata: &Bytes) -> Result<Vec<String>, Failure> {
    let mut bytes = metadata.clone();
    let malformed =
        || Failure::Fault("a member's subscription is none of the consumer protocol".to_owned());
    if bytes.remaining() < 2 {
        return Err(malformed());
    }
    // Fields are only ever added behind those we read.
    let version = bytes.get_i16().clamp(0, 3);
    let subscription =
        ConsumerProtocolSubscription::decode(&mut bytes, version).map_err(|_| malformed())?;
    Ok(subscription
        .topics
        .iter()
        .map(ToString::to_string)
        .collect())
}

/// By member: its partitions of each topic. Of every topic each reader gets a run of partitions, the first ones one
/// more if it does not divide (org.apache.kafka.clients.consumer.RangeAssignor).
fn ranges(topics: &[(String, usize, Vec<String>)]) -> BTreeMap<String, Vec<(String, Vec<i32>)>> {
    let mut shares: BTreeMap<String, Vec<(String, Vec<i32>)>> = BTreeMap::new();
    for (topic, partitions, members) in topics {
        let (each, more) = (partitions / members.len(), partitions % members.len());
        let mut first = 0;
        for (at, member) in members.iter().enumerate() {
            let count = each + usize::from(at < more);
            let run = (first..first + count).filter_map(|partition| i32::try_from(partition).ok());
            shares
                .entry(member.clone())
                .or_default()
                .push((topic.clone(), run.collect()));
            first += count;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_javas_assignor() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let shares = ranges(&[
            ("t".into(), 7, names(&["a", "b", "c"])),
            ("u".into(), 1, names(&["b", "c"])),
        ]);
        assert_eq!(shares["a"], [("t".into(), vec![0, 1, 2])]);
        assert_eq!(
            shares["b"],
            [("t".into(), vec![3, 4]), ("u".into(), vec![0])]
        );
        assert_eq!(
            shares["c"],
            [("t".into(), vec![5, 6]), ("u".into(), vec![])]
        );
    }
}
