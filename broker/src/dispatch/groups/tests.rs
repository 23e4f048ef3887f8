//! Requests as coordinators see them, and answers in every version that is advertised.

use wire::messages::leave_group_request::MemberIdentity;
use wire::{Api, RequestHeader};

use super::*;

/// A call of this version, as its header says it.
pub(super) fn call(api: Api, version: i16) -> Call {
    let mut header = api.key().to_be_bytes().to_vec();
    header.extend(version.to_be_bytes());
    header.extend(7_i32.to_be_bytes());
    header.extend((-1_i16).to_be_bytes());
    if api.flexible(version) {
        header.push(0);
    }
    RequestHeader::read(&header)
        .expect("an advertised version")
        .call
}

/// The answer has a form in every version that clients may ask in.
pub(super) fn encodes(api: Api, response: &Response) {
    assert_eq!(response.api(), api);
    let (min, max) = api.advertised();
    for version in min..=max {
        if let Err(error) = wire::encode(call(api, version), response.clone()) {
            panic!("{api} v{version}: {error} in {response:?}");
        }
    }
}

const ERRORS: [GroupError; 18] = [
    GroupError::NotCoordinator,
    GroupError::CoordinatorLoadInProgress,
    GroupError::CoordinatorNotAvailable,
    GroupError::InvalidRequest,
    GroupError::InvalidGroupId,
    GroupError::UnknownMemberId,
    GroupError::FencedInstanceId,
    GroupError::IllegalGeneration,
    GroupError::RebalanceInProgress,
    GroupError::InconsistentGroupProtocol,
    GroupError::InvalidSessionTimeout,
    GroupError::GroupMaxSizeReached,
    GroupError::OffsetMetadataTooLarge,
    GroupError::InvalidCommitOffsetSize,
    GroupError::NonEmptyGroup,
    GroupError::GroupIdNotFound,
    GroupError::GroupSubscribedToTopic,
    GroupError::UnknownServerError,
];

#[test]
fn a_code_has_its_errors_name() {
    for error in ERRORS {
        let mut name = String::new();
        for letter in format!("{error:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        assert_eq!(code(error).name(), name);
    }
}

fn join_request() -> m::JoinGroupRequest {
    let protocol = m::join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(bytes::Bytes::from_static(&[0, 1, 0xff]));
    m::JoinGroupRequest::default()
        .with_group_id(m::GroupId(text("g")))
        .with_member_id(text("m"))
        .with_group_instance_id(Some(text("i")))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("connect"))
        .with_protocols(vec![protocol])
}

#[test]
fn a_join_says_what_its_version_knows() {
    for (version, id_required, skip) in [
        (0, false, false),
        (3, false, false),
        (4, true, false),
        (8, true, false),
        (9, true, true),
    ] {
        let join = read_join(
            call(Api::JoinGroup, version),
            "/192.0.2.1".to_owned(),
            "c",
            join_request(),
        );
        assert_eq!(
            (join.member_id_required, join.can_skip_assignment),
            (id_required, skip),
            "v{version}"
        );
    }
    let (a, b) = (
        read_join(
            call(Api::JoinGroup, 5),
            "/192.0.2.1".to_owned(),
            "c",
            join_request(),
        ),
        read_join(
            call(Api::JoinGroup, 5),
            "/192.0.2.1".to_owned(),
            "c",
            join_request(),
        ),
    );
    assert_ne!(a.uuid, b.uuid, "two members may get the same id");
    let expected = Join {
        group: "g".to_owned(),
        member: "m".to_owned(),
        instance: Some("i".to_owned()),
        member_id_required: true,
        can_skip_assignment: false,
        client_id: "c".to_owned(),
        client_host: "/192.0.2.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "connect".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: vec![0, 1, 0xff],
        }],
        uuid: a.uuid,
    };
    assert_eq!(a, expected);
}

#[test]
fn joins_are_answered() {
    let joined = write_joined(
        text("asked"),
        GroupReply::Joined(Joined {
            member: "m".to_owned(),
            generation: 3,
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            leader: "m".to_owned(),
            skip_assignment: true,
            members: vec![node::group::JoinedMember {
                member: "m".to_owned(),
                instance: Some("i".to_owned()),
                metadata: vec![1],
            }],
        }),
    );
    assert_eq!(
        (
            joined.error_code,
            joined.generation_id,
            &*joined.member_id,
            &*joined.leader
        ),
        (0, 3, "m", "m")
    );
    assert_eq!(joined.members[0].group_instance_id.as_deref(), Some("i"));
    encodes(Api::JoinGroup, &Response::JoinGroup(joined));
    let wanted = write_joined(
        StrBytes::new(),
        GroupReply::MemberIdRequired {
            member: "c-1".to_owned(),
        },
    );
    assert_eq!(
        (wanted.error_code, &*wanted.member_id, wanted.generation_id),
        (79, "c-1", -1)
    );
    encodes(Api::JoinGroup, &Response::JoinGroup(wanted));
    let refused = write_joined(
        text("asked"),
        GroupReply::Refused(GroupError::UnknownMemberId),
    );
    assert_eq!((refused.error_code, &*refused.member_id), (25, "asked"));
    encodes(Api::JoinGroup, &Response::JoinGroup(refused));
}

#[test]
fn syncs_are_read_and_answered() {
    let assignment = m::sync_group_request::SyncGroupRequestAssignment::default()
        .with_member_id(text("m"))
        .with_assignment(bytes::Bytes::from_static(b"x"));
    let request = m::SyncGroupRequest::default()
        .with_group_id(m::GroupId(text("g")))
        .with_generation_id(4)
        .with_member_id(text("m"))
        .with_protocol_name(Some(text("range")))
        .with_assignments(vec![assignment]);
    let sync = read_sync(request);
    assert_eq!(
        (
            sync.generation,
            sync.protocol_type,
            sync.protocol.as_deref()
        ),
        (4, None, Some("range"))
    );
    assert_eq!(sync.assignments, [("m".to_owned(), b"x".to_vec())]);
    for version in 0..=5 {
        assert_eq!(
            call(Api::SyncGroup, version).must_name_protocol(),
            version == 5
        );
    }
    let synced = write_synced(GroupReply::Synced(Synced {
        protocol_type: "consumer".to_owned(),
        protocol: "range".to_owned(),
        assignment: b"x".to_vec(),
    }));
    assert_eq!(&synced.assignment[..], b"x");
    encodes(Api::SyncGroup, &Response::SyncGroup(synced));
    let refused = write_synced(GroupReply::Refused(GroupError::RebalanceInProgress));
    assert_eq!(refused.error_code, 27);
    encodes(Api::SyncGroup, &Response::SyncGroup(refused));
}

#[test]
fn whoever_left_is_named_in_turn() {
    let member = |member, instance: Option<&'static str>| {
        MemberIdentity::default()
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
    };
    let request = m::LeaveGroupRequest::default()
        .with_group_id(m::GroupId(text("g")))
        .with_members(vec![member("a", None), member("", Some("i"))]);
    let left = write_left(
        request.clone(),
        GroupReply::Left(vec![Ok(()), Err(GroupError::UnknownMemberId)]),
    );
    let rows: Vec<_> = left
        .members
        .iter()
        .map(|it| {
            (
                &*it.member_id,
                it.group_instance_id.as_deref(),
                it.error_code,
            )
        })
        .collect();
    assert_eq!(
        (left.error_code, rows),
        (0, vec![("a", None, 0), ("", Some("i"), 25)])
    );
    encodes(Api::LeaveGroup, &Response::LeaveGroup(left));
    assert_eq!(
        errors(&Response::LeaveGroup(write_left(
            request.clone(),
            GroupReply::Left(vec![Ok(()), Err(GroupError::UnknownMemberId)])
        ))),
        1
    );
    let refused = write_left(request, GroupReply::Refused(GroupError::NotCoordinator));
    assert_eq!((refused.error_code, refused.members.len()), (16, 0));
    encodes(Api::LeaveGroup, &Response::LeaveGroup(refused));
}

#[test]
fn groups_are_described() {
    let described = Described {
        state: GroupState::Stable,
        protocol_type: "consumer".to_owned(),
        protocol: "range".to_owned(),
        members: vec![node::group::DescribedMember {
            member: "m".to_owned(),
            instance: Some("i".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/192.0.2.1".to_owned(),
            metadata: vec![1],
            assignment: vec![2],
        }],
    };
    let id = || m::GroupId(text("g"));
    let group = write_described(id(), true, GroupReply::Described(described));
    assert_eq!(
        (
            &*group.group_state,
            &*group.protocol_data,
            group.authorized_operations
        ),
        ("Stable", "range", 328)
    );
    assert_eq!(
        (
            &*group.members[0].client_host,
            &group.members[0].member_assignment[..]
        ),
        ("/192.0.2.1", &[2][..])
    );
    let gone = write_described(
        id(),
        false,
        GroupReply::Refused(GroupError::GroupIdNotFound),
    );
    assert_eq!(
        (
            &*gone.group_state,
            gone.error_code,
            gone.authorized_operations
        ),
        ("Dead", 0, i32::MIN)
    );
    let refused = write_described(
        id(),
        false,
        GroupReply::Refused(GroupError::CoordinatorLoadInProgress),
    );
    assert_eq!((refused.error_code, &*refused.group_state), (14, ""));
    let groups = vec![group, gone, refused];
    encodes(
        Api::DescribeGroups,
        &Response::DescribeGroups(m::DescribeGroupsResponse::default().with_groups(groups)),
    );
}

#[test]
fn groups_are_listed() {
    let listed = write_listed(GroupReply::Listed(vec![Listed {
        group: "g".to_owned(),
        protocol_type: "consumer".to_owned(),
        state: GroupState::Empty,
        kind: node::group::GroupKind::Classic,
    }]));
    let group = &listed.groups[0];
    assert_eq!(
        (&*group.group_id.0, &*group.group_state, &*group.group_type),
        ("g", "Empty", "classic")
    );
    encodes(Api::ListGroups, &Response::ListGroups(listed));
    let refused = write_listed(GroupReply::Refused(GroupError::CoordinatorLoadInProgress));
    assert_eq!(refused.error_code, 14);
    encodes(Api::ListGroups, &Response::ListGroups(refused));
}

#[test]
fn who_can_not_be_found_is_said_in_every_version() {
    let key = text("t");
    let refused = no_coordinator(
        key,
        ErrorCode::InvalidRequest,
        "transactions are not built yet",
    );
    let answer = m::FindCoordinatorResponse::default().with_coordinators(vec![refused]);
    encodes(Api::FindCoordinator, &Response::FindCoordinator(answer));
}

#[test]
fn hosts_are_written_as_java_writes_them() {
    let text = |host: &str| host_text(host.parse().expect("an address"));
    assert_eq!(text("127.0.0.1"), "/127.0.0.1");
    assert_eq!(text("::ffff:192.0.2.1"), "/192.0.2.1");
    assert_eq!(text("2001:db8::1"), "/2001:db8:0:0:0:0:0:1");
}
