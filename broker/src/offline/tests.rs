//! Disks whose journal is a place of its own, under the commands for stopped disks.

use std::fs;

use model::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, Uuid};
use store::{Op, Outcome, Queue};

use super::testing::Node;
use super::*;

/// A node's two disks, in use and cut off without a clean mark; the second one holds a replica in its ring only.
fn cut_off(name: &str) -> Node {
    let node = Node::with_journals_apart(name);
    let mut opened = node.open().unwrap();
    let part = opened[1].recovered.next_part;
    let disk = opened[1].disk.as_mut().unwrap();
    let id = TopicPartition {
        topic: TopicId(Uuid([7; 16])),
        partition: PartitionIndex(0),
    };
    let mut queue = Queue::default();
    queue.push(Op::PartNew { part, id }, ());
    queue.push(
        Op::Epoch {
            part,
            epoch: LeaderEpoch(3),
            start: Some(Offset(0)),
            unclean: false,
        },
        (),
    );
    let mut done = Vec::new();
    while !queue.is_empty() {
        disk.commit(&mut queue, None, &mut done).unwrap();
    }
    assert!(done.iter().all(|(_, outcome)| *outcome == Outcome::Done));
    node
}

fn args(node: &Node, disk: &str, journal: Option<&str>) -> DiskArgs {
    DiskArgs {
        dir: node.data.join(disk),
        journal: journal.map(|journal| node.data.join(journal)),
    }
}

fn said(done: Result<(), Refusal>) -> (u8, String) {
    let refusal = done.expect_err("refused");
    (refusal.code, refusal.why)
}

#[test]
fn a_journal_apart_is_read_where_it_is_named() {
    let node = cut_off("journal-apart");
    assert!(!node.data.join("d2/journal").exists());
    let named = args(&node, "d2", Some("d2.ring"));
    verify_disk(&named, true).unwrap();
    recover::run(&named, false).unwrap();
    dump::run(&named.dir, named.journal.clone(), true).unwrap();
    let unnamed = args(&node, "d2", None);
    for done in [
        verify_disk(&unnamed, true),
        recover::run(&unnamed, true),
        dump::run(&unnamed.dir, None, true),
    ] {
        let (code, why) = said(done);
        assert!(code == exit::USAGE && why.contains("--journal"), "{why}");
    }
    let inside = Node::new("journal-inside");
    drop(inside.open().unwrap());
    let (code, why) = said(verify_disk(&args(&inside, "d1", Some("d1/journal")), true));
    assert!(
        code == exit::USAGE && why.contains("leave --journal out"),
        "{why}"
    );
}

#[test]
fn another_disks_journal_is_taken_by_nobody() {
    let node = cut_off("journal-strange");
    let ring = |name: &str| node.data.join(name);
    fs::write(ring("blank.ring"), vec![0; 32 << 20]).unwrap();
    for strange in ["d1.ring", "blank.ring"] {
        let wrong = args(&node, "d2", Some(strange));
        for done in [verify_disk(&wrong, true), recover::run(&wrong, true)] {
            let (code, why) = said(done);
            assert!(code == exit::FAULT, "{strange}: {why}");
        }
    }
    // The node does not start with it either, nor lose what the right one holds.
    fs::rename(ring("d2.ring"), ring("kept.ring")).unwrap();
    fs::rename(ring("blank.ring"), ring("d2.ring")).unwrap();
    let why = node.open().err().expect("refused");
    assert!(why.contains("another disk's, or blank"), "{why}");
    fs::rename(ring("kept.ring"), ring("d2.ring")).unwrap();
    let opened = node.open().unwrap();
    assert_eq!(opened[1].recovered.replicas.len(), 1);
}

#[test]
fn a_data_disk_with_a_journal_apart_is_adopted_by_what_the_site_file_says() {
    let node = cut_off("journal-adopt");
    fs::remove_dir_all(node.data.join("d1")).unwrap();
    fs::remove_file(node.data.join("d1.ring")).unwrap();
    let args = |site: bool, accept: bool| AdoptArgs {
        dirs: vec![node.data.join("d2")],
        site: site.then(|| node.file.clone()),
        own: node.own(),
        topic: Vec::new(),
        accept,
    };
    let (code, why) = said(adopt::run(&args(false, false)));
    assert!(code == exit::USAGE && why.contains("--site"), "{why}");
    adopt::run(&args(true, false)).unwrap();
    adopt::run(&args(true, true)).unwrap();
    let opened = node.open().unwrap();
    assert_eq!(opened[1].recovered.replicas.len(), 1);
    assert!(opened[0].recovered.superblock.journal_apart);
}
