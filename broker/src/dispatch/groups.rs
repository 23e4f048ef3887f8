//! Groups: each request becomes what its coordinator is asked, once for each group that it names, and the answer
//! becomes the API's own.
//!
//! What is about offsets stands beside this file.

use std::net::IpAddr;
use std::rc::Rc;

use node::group::{
    Described, GroupError, GroupReply, GroupRequest, GroupState, Heartbeat, Join, Joined, Leave,
    Leaver, List, Listed, Protocol, Sync, Synced,
};
use tokio::task::spawn_local;
use wire::messages as m;
use wire::messages::delete_groups_response::DeletableGroupResult;
use wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use wire::messages::find_coordinator_response::Coordinator;
use wire::messages::join_group_response::JoinGroupResponseMember;
use wire::messages::leave_group_response::MemberResponse;
use wire::messages::list_groups_response::ListedGroup;
use wire::{Call, ErrorCode, Response, StrBytes};

use super::Reply;
use super::errors::broker_id;
use crate::context::Context;
use crate::core::Core;

mod offsets;

pub(super) use offsets::{commit, delete_offsets, fetch_offsets};

/// FindCoordinator's key types; share groups (2) came with Kafka 4.
const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;
/// Every operation that Kafka 3.9 knows for a group: READ (3), DELETE (6), DESCRIBE (8).
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

pub(super) fn find_coordinator(core: &Rc<Core>, request: m::FindCoordinatorRequest, reply: Reply) {
    let refuse = match request.key_type {
        KEY_GROUP => None,
        // COORDINATOR_NOT_AVAILABLE would be asked again for ever.
        KEY_TRANSACTION => Some("transactions are not built yet"),
        _ => Some("no coordinator of this key type"),
    };
    let found = request
        .coordinator_keys
        .into_iter()
        .map(|key| match refuse {
            Some(message) => no_coordinator(key, ErrorCode::InvalidRequest, message),
            None => locate(core, key),
        })
        .collect();
    send(
        reply,
        Response::FindCoordinator(m::FindCoordinatorResponse::default().with_coordinators(found)),
    );
}

fn locate(core: &Core, group: StrBytes) -> Coordinator {
    let node = core.coordinator_of(&group);
    match node.and_then(|node| core.brokers().find(|broker| broker.id == node)) {
        Some(broker) => Coordinator::default()
            .with_key(group)
            .with_node_id(broker_id(broker.id))
            .with_host(StrBytes::from_string(broker.host))
            .with_port(broker.port.into()),
        None => {
            let error = ErrorCode::CoordinatorNotAvailable;
            no_coordinator(group, error, error.message())
        }
    }
}

fn no_coordinator(key: StrBytes, error: ErrorCode, message: &'static str) -> Coordinator {
    Coordinator::default()
        .with_key(key)
        .with_node_id(m::BrokerId(-1))
        .with_port(-1)
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_static_str(message)))
}

pub(super) fn join(
    core: &Rc<Core>,
    context: &Context,
    client_id: &str,
    request: m::JoinGroupRequest,
    reply: Reply,
) {
    let member = request.member_id.clone();
    let join = read_join(reply.call(), host_text(context.host), client_id, request);
    let joined = core.ask_group(GroupRequest::Join(join));
    spawn_local(async move {
        send(
            reply,
            Response::JoinGroup(write_joined(member, joined.await)),
        )
    });
}

fn read_join(
    call: Call,
    client_host: String,
    client_id: &str,
    request: m::JoinGroupRequest,
) -> Join {
    let protocol = |it: m::join_group_request::JoinGroupRequestProtocol| Protocol {
        name: it.name.to_string(),
        metadata: it.metadata.to_vec(),
    };
    Join {
        group: request.group_id.0.to_string(),
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id),
        member_id_required: call.knows_member_id_required(),
        can_skip_assignment: call.knows_skip_assignment(),
        client_id: client_id.to_owned(),
        client_host,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(protocol).collect(),
        uuid: crate::random::uuid(),
    }
}

fn write_joined(asked: StrBytes, reply: GroupReply) -> m::JoinGroupResponse {
    let refused = |error: ErrorCode, member: StrBytes| {
        m::JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_name(None)
            .with_member_id(member)
    };
    let Joined {
        member,
        generation,
        protocol_type,
        protocol,
        leader,
        skip_assignment,
        members,
    } = match reply {
        GroupReply::Joined(joined) => joined,
        GroupReply::MemberIdRequired { member } => {
            return refused(ErrorCode::MemberIdRequired, StrBytes::from_string(member));
        }
        other => return refused(refusal(other), asked),
    };
    let members = members
        .into_iter()
        .map(|member| {
            JoinGroupResponseMember::default()
                .with_member_id(StrBytes::from_string(member.member))
                .with_group_instance_id(member.instance.map(StrBytes::from_string))
                .with_metadata(member.metadata.into())
        })
        .collect();
    m::JoinGroupResponse::default()
        .with_generation_id(generation)
        .with_protocol_type(Some(StrBytes::from_string(protocol_type)))
        .with_protocol_name(Some(StrBytes::from_string(protocol)))
        .with_leader(StrBytes::from_string(leader))
        .with_skip_assignment(skip_assignment)
        .with_member_id(StrBytes::from_string(member))
        .with_members(members)
}

pub(super) fn sync(core: &Rc<Core>, request: m::SyncGroupRequest, reply: Reply) {
    if reply.call().must_name_protocol()
        && (request.protocol_type.is_none() || request.protocol_name.is_none())
    {
        let error = GroupError::InconsistentGroupProtocol;
        return send(
            reply,
            Response::SyncGroup(write_synced(GroupReply::Refused(error))),
        );
    }
    let synced = core.ask_group(GroupRequest::Sync(read_sync(request)));
    spawn_local(async move { send(reply, Response::SyncGroup(write_synced(synced.await))) });
}

fn read_sync(request: m::SyncGroupRequest) -> Sync {
    let assignments = request.assignments.into_iter();
    Sync {
        group: request.group_id.0.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id),
        protocol_type: owned(request.protocol_type),
        protocol: owned(request.protocol_name),
        assignments: assignments
            .map(|it| (it.member_id.to_string(), it.assignment.to_vec()))
            .collect(),
    }
}

fn write_synced(reply: GroupReply) -> m::SyncGroupResponse {
    match reply {
        GroupReply::Synced(Synced {
            protocol_type,
            protocol,
            assignment,
        }) => m::SyncGroupResponse::default()
            .with_protocol_type(Some(StrBytes::from_string(protocol_type)))
            .with_protocol_name(Some(StrBytes::from_string(protocol)))
            .with_assignment(assignment.into()),
        other => m::SyncGroupResponse::default().with_error_code(refusal(other).code()),
    }
}

pub(super) fn heartbeat(core: &Rc<Core>, request: m::HeartbeatRequest, reply: Reply) {
    let alive = core.ask_group(GroupRequest::Heartbeat(Heartbeat {
        group: request.group_id.0.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id),
    }));
    spawn_local(async move {
        let error = match alive.await {
            GroupReply::Alive => ErrorCode::None,
            other => refusal(other),
        };
        send(
            reply,
            Response::Heartbeat(m::HeartbeatResponse::default().with_error_code(error.code())),
        );
    });
}

pub(super) fn leave(core: &Rc<Core>, request: m::LeaveGroupRequest, reply: Reply) {
    let members = request.members.iter().map(|it| Leaver {
        member: it.member_id.to_string(),
        instance: it.group_instance_id.as_ref().map(ToString::to_string),
    });
    let left = core.ask_group(GroupRequest::Leave(Leave {
        group: request.group_id.0.to_string(),
        members: members.collect(),
    }));
    spawn_local(async move { send(reply, Response::LeaveGroup(write_left(request, left.await))) });
}

fn write_left(request: m::LeaveGroupRequest, reply: GroupReply) -> m::LeaveGroupResponse {
    let results = match reply {
        GroupReply::Left(results) => results,
        other => return m::LeaveGroupResponse::default().with_error_code(refusal(other).code()),
    };
    let members = request
        .members
        .into_iter()
        .zip(results)
        .map(|(member, result)| {
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(outcome(result).code())
        })
        .collect();
    m::LeaveGroupResponse::default().with_members(members)
}

pub(super) fn describe(core: &Rc<Core>, request: m::DescribeGroupsRequest, reply: Reply) {
    let operations = request.include_authorized_operations;
    let asked = ask_each(core, request.groups, |group| GroupRequest::Describe {
        group,
    });
    spawn_local(async move {
        let mut groups = Vec::with_capacity(asked.len());
        for (group, described) in asked {
            groups.push(write_described(group, operations, described.await));
        }
        send(
            reply,
            Response::DescribeGroups(m::DescribeGroupsResponse::default().with_groups(groups)),
        );
    });
}

fn write_described(group: m::GroupId, operations: bool, reply: GroupReply) -> DescribedGroup {
    let mut answer = DescribedGroup::default().with_group_id(group);
    if operations {
        answer.authorized_operations = GROUP_OPERATIONS;
    }
    let Described {
        state,
        protocol_type,
        protocol,
        members,
    } = match reply {
        GroupReply::Described(described) => described,
        // Up to version 5 a group that isn't there is no error but a state.
        GroupReply::Refused(GroupError::GroupIdNotFound) => {
            return answer.with_group_state(text(GroupState::Dead.name()));
        }
        other => return answer.with_error_code(refusal(other).code()),
    };
    let members = members
        .into_iter()
        .map(|member| {
            DescribedGroupMember::default()
                .with_member_id(StrBytes::from_string(member.member))
                .with_group_instance_id(member.instance.map(StrBytes::from_string))
                .with_client_id(StrBytes::from_string(member.client_id))
                .with_client_host(StrBytes::from_string(member.client_host))
                .with_member_metadata(member.metadata.into())
                .with_member_assignment(member.assignment.into())
        })
        .collect();
    answer
        .with_group_state(text(state.name()))
        .with_protocol_type(StrBytes::from_string(protocol_type))
        .with_protocol_data(StrBytes::from_string(protocol))
        .with_members(members)
}

pub(super) fn list(core: &Rc<Core>, request: m::ListGroupsRequest, reply: Reply) {
    let texts = |texts: Vec<StrBytes>| texts.iter().map(ToString::to_string).collect();
    let listed = core.ask_group(GroupRequest::List(List {
        states: texts(request.states_filter),
        types: texts(request.types_filter),
    }));
    spawn_local(async move { send(reply, Response::ListGroups(write_listed(listed.await))) });
}

fn write_listed(reply: GroupReply) -> m::ListGroupsResponse {
    let listed = match reply {
        GroupReply::Listed(listed) => listed,
        other => return m::ListGroupsResponse::default().with_error_code(refusal(other).code()),
    };
    let group = |Listed {
                     group,
                     protocol_type,
                     state,
                     kind,
                 }| {
        ListedGroup::default()
            .with_group_id(m::GroupId(StrBytes::from_string(group)))
            .with_protocol_type(StrBytes::from_string(protocol_type))
            .with_group_state(text(state.name()))
            .with_group_type(text(kind.name()))
    };
    m::ListGroupsResponse::default().with_groups(listed.into_iter().map(group).collect())
}

pub(super) fn delete(core: &Rc<Core>, request: m::DeleteGroupsRequest, reply: Reply) {
    let asked = ask_each(core, request.groups_names, |group| GroupRequest::Delete {
        group,
    });
    spawn_local(async move {
        let mut results = Vec::with_capacity(asked.len());
        for (group, deleted) in asked {
            let error = match deleted.await {
                GroupReply::Deleted => ErrorCode::None,
                other => refusal(other),
            };
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(group)
                    .with_error_code(error.code()),
            );
        }
        send(
            reply,
            Response::DeleteGroups(m::DeleteGroupsResponse::default().with_results(results)),
        );
    });
}

/// Answers, and counts every code in the answer.
fn send(reply: Reply, response: Response) {
    reply.errors(errors(&response) as u64);
    reply.send(response);
}

fn errors(response: &Response) -> usize {
    let count = |codes: &mut dyn Iterator<Item = i16>| codes.filter(|code| *code != 0).count();
    match response {
        Response::FindCoordinator(body) => {
            count(&mut body.coordinators.iter().map(|it| it.error_code))
        }
        Response::JoinGroup(body) => usize::from(body.error_code != 0),
        Response::SyncGroup(body) => usize::from(body.error_code != 0),
        Response::Heartbeat(body) => usize::from(body.error_code != 0),
        Response::LeaveGroup(body) => {
            usize::from(body.error_code != 0)
                + count(&mut body.members.iter().map(|it| it.error_code))
        }
        Response::DescribeGroups(body) => count(&mut body.groups.iter().map(|it| it.error_code)),
        Response::ListGroups(body) => usize::from(body.error_code != 0),
        Response::DeleteGroups(body) => count(&mut body.results.iter().map(|it| it.error_code)),
        Response::OffsetCommit(body) => {
            let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
            count(&mut partitions.map(|it| it.error_code))
        }
        Response::OffsetFetch(body) => count(&mut body.groups.iter().map(|it| it.error_code)),
        Response::OffsetDelete(body) => {
            let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
            usize::from(body.error_code != 0) + count(&mut partitions.map(|it| it.error_code))
        }
        _ => unreachable!("the answer of another API"),
    }
}

/// Asks about all groups before the first is waited for.
fn ask_each(
    core: &Rc<Core>,
    groups: Vec<m::GroupId>,
    ask: fn(String) -> GroupRequest,
) -> Vec<(m::GroupId, impl Future<Output = GroupReply> + use<>)> {
    let asked = groups.into_iter().map(|group| {
        let answer = core.ask_group(ask(group.0.to_string()));
        (group, answer)
    });
    asked.collect()
}

/// The code of a whole request that was refused.
fn refusal(reply: GroupReply) -> ErrorCode {
    match reply {
        GroupReply::Refused(error) => code(error),
        other => unreachable!("the coordinator answers another request: {other:?}"),
    }
}

fn outcome(result: Result<(), GroupError>) -> ErrorCode {
    result.err().map_or(ErrorCode::None, code)
}

/// One to one.
fn code(error: GroupError) -> ErrorCode {
    match error {
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::InvalidRequest => ErrorCode::InvalidRequest,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::InvalidCommitOffsetSize => ErrorCode::InvalidCommitOffsetSize,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::UnknownServerError => ErrorCode::UnknownServerError,
    }
}

/// As Java's `InetAddress` writes it, which is what people see of a member: "/192.0.2.1", "/2001:db8:0:0:0:0:0:1".
fn host_text(host: IpAddr) -> String {
    match host.to_canonical() {
        IpAddr::V4(host) => format!("/{host}"),
        IpAddr::V6(host) => {
            let groups = host.segments().map(|group| format!("{group:x}"));
            format!("/{}", groups.join(":"))
        }
    }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// A copy: what a coordinator keeps must not keep the whole frame.
fn owned(text: Option<StrBytes>) -> Option<String> {
    text.map(|text| text.to_string())
}

#[cfg(test)]
mod tests;
