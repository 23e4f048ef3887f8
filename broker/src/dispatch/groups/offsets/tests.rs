//! Offsets as coordinators see them, and answers in every version that is advertised.

use node::group::GroupError;
use wire::Api;
use wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use wire::messages::offset_fetch_request::OffsetFetchRequestTopics;

use super::super::errors;
use super::super::tests::encodes;
use super::*;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name(name: &'static str) -> m::TopicName {
    m::TopicName(text(name))
}

/// Topic "t" has two partitions; there is no other.
fn there(topic: &str, index: i32) -> bool {
    topic == "t" && (0..2).contains(&index)
}

fn commit_request() -> m::OffsetCommitRequest {
    let partition = |index, offset| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")))
    };
    let topic = |topic, partitions| {
        OffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(partitions)
    };
    m::OffsetCommitRequest::default()
        .with_group_id(m::GroupId(text("g")))
        .with_generation_id_or_member_epoch(3)
        .with_member_id(text("m"))
        .with_topics(vec![
            topic("t", vec![partition(0, 5), partition(7, 6), partition(1, 7)]),
            topic("u", vec![partition(0, 8)]),
        ])
}

fn codes(answer: &m::OffsetCommitResponse) -> Vec<i16> {
    answer
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|it| it.error_code)
        .collect()
}

#[test]
fn commits_leave_out_what_is_not_there() {
    let (commit, answer) = read_commit(commit_request(), there);
    let offsets: Vec<_> = commit
        .offsets
        .iter()
        .map(|it| (&*it.topic, it.partition, it.offset, it.leader_epoch))
        .collect();
    assert_eq!(offsets, [("t", 0, 5, -1), ("t", 1, 7, -1)]);
    assert_eq!(
        (commit.generation, commit.retention_ms, &*commit.member),
        (3, -1, "m")
    );
    assert_eq!(commit.offsets[0].metadata.as_deref(), Some("note"));
    let done = write_committed(
        answer.clone(),
        GroupReply::Committed(vec![Ok(()), Err(GroupError::OffsetMetadataTooLarge)]),
    );
    assert_eq!(codes(&done), [0, 3, 12, 3]);
    let refused = write_committed(answer, GroupReply::Refused(GroupError::IllegalGeneration));
    assert_eq!(codes(&refused), [22, 3, 22, 3]);
    let done = Response::OffsetCommit(done);
    assert_eq!(errors(&done), 3);
    encodes(Api::OffsetCommit, &done);
    encodes(Api::OffsetCommit, &Response::OffsetCommit(refused));
}

fn fetch_request(topics: Option<Vec<(&'static str, Vec<i32>)>>) -> OffsetFetchRequestGroup {
    let topic = |(topic, indexes)| {
        OffsetFetchRequestTopics::default()
            .with_name(name(topic))
            .with_partition_indexes(indexes)
    };
    OffsetFetchRequestGroup::default()
        .with_group_id(m::GroupId(text("g")))
        .with_topics(topics.map(|topics| topics.into_iter().map(topic).collect()))
}

fn fetched(topic: &str, partition: i32, offset: i64) -> FetchedOffset {
    FetchedOffset {
        topic: topic.to_owned(),
        partition,
        offset,
        leader_epoch: 2,
        metadata: String::new(),
    }
}

#[test]
fn offsets_come_back_as_they_were_asked_for() {
    assert_eq!(read_partitions(&fetch_request(None)), None, "all");
    assert_eq!(
        read_partitions(&fetch_request(Some(vec![]))),
        Some(vec![]),
        "none"
    );
    let asked = || fetch_request(Some(vec![("t", vec![1, 0]), ("u", vec![0])]));
    let partitions = read_partitions(&asked()).expect("some");
    let names: Vec<_> = partitions
        .iter()
        .map(|it| (&*it.topic, it.partition))
        .collect();
    assert_eq!(names, [("t", 1), ("t", 0), ("u", 0)]);
    let offsets = GroupReply::Offsets(vec![
        fetched("t", 1, 5),
        fetched("t", 0, -1),
        fetched("u", 0, 9),
    ]);
    let group = write_fetched(asked(), offsets);
    let rows = |group: &OffsetFetchResponseGroup| -> Vec<(String, i32, i64, i16)> {
        let rows = group
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |it| (topic, it)));
        rows.map(|(topic, it)| {
            (
                topic.name.0.to_string(),
                it.partition_index,
                it.committed_offset,
                it.error_code,
            )
        })
        .collect()
    };
    assert_eq!(group.topics.len(), 2);
    assert_eq!(
        rows(&group),
        [
            ("t".to_owned(), 1, 5, 0),
            ("t".to_owned(), 0, -1, 0),
            ("u".to_owned(), 0, 9, 0)
        ]
    );
    let refused = write_fetched(
        asked(),
        GroupReply::Refused(GroupError::CoordinatorLoadInProgress),
    );
    assert_eq!(refused.error_code, 14);
    assert!(
        rows(&refused).iter().all(|row| (row.2, row.3) == (-1, 14)),
        "version 1 looks there"
    );
    for group in [group, refused] {
        let answer = m::OffsetFetchResponse::default().with_groups(vec![group]);
        encodes(Api::OffsetFetch, &Response::OffsetFetch(answer));
    }
}

#[test]
fn deletions_leave_out_what_is_not_there() {
    let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
    let request = m::OffsetDeleteRequest::default()
        .with_group_id(m::GroupId(text("g")))
        .with_topics(vec![
            OffsetDeleteRequestTopic::default()
                .with_name(name("u"))
                .with_partitions(vec![partition(0)]),
            OffsetDeleteRequestTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition(0), partition(1)]),
        ]);
    let (partitions, answer) = read_deletion(request, there);
    let names: Vec<_> = partitions
        .iter()
        .map(|it| (&*it.topic, it.partition))
        .collect();
    assert_eq!(names, [("t", 0), ("t", 1)]);
    let results = vec![Err(GroupError::GroupSubscribedToTopic), Ok(())];
    let done = write_deleted(answer.clone(), GroupReply::OffsetsDeleted(results));
    let codes: Vec<_> = done
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|it| it.error_code)
        .collect();
    assert_eq!((done.error_code, codes), (0, vec![3, 86, 0]));
    let done = Response::OffsetDelete(done);
    assert_eq!(errors(&done), 2);
    encodes(Api::OffsetDelete, &done);
    let refused = write_deleted(answer, GroupReply::Refused(GroupError::GroupIdNotFound));
    assert_eq!((refused.error_code, refused.topics.len()), (69, 0));
    encodes(Api::OffsetDelete, &Response::OffsetDelete(refused));
}
