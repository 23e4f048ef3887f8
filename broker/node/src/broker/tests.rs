//! A broker on disks that keep what they are told, through starts, failures and people's wishes.
#![allow(clippy::unwrap_used)]

use core::time::Duration;
use std::collections::BTreeSet;

use model::batch::Header;
use model::record::Records;
use model::{DiskUuid, Incarnation, Offset, PartitionIndex, SiteUuid, Term, TopicId, Uuid};

use super::*;
use crate::catalog::{CreateTopic, Declared, Rules};
use crate::controller::{Answer, Wanted, Wish};
use crate::group::{
    Commit, CommittedOffset, FetchOffsets, GroupReply, GroupRequest, TopicPartitionName,
};
use crate::partition::{Acks, EpochStart, Origin, Outcome, Produce, Recovered, Refusal};
use crate::sitelog::{Actor, Disk, HardState, LogEntry};

mod disk;
mod one;

use disk::World;

const ME: NodeId = NodeId(1);
const MIB: u64 = 1 << 20;

fn uuid(number: u8) -> Uuid {
    Uuid([number; 16])
}

fn topic_id(number: u8) -> TopicId {
    TopicId(uuid(number))
}

fn rules() -> Rules {
    Rules {
        partitions: 2,
        replication: 1,
        min_insync: 1,
        retention_ms: 604_800_000,
        retention_bytes: None,
        refuse_when_full: false,
        create_topics: true,
        replicas_max: 2_000,
        message_bytes_max: 8 << 20,
        message_bytes: 1_048_588,
        extent_for: |_| MIB,
        share_bytes_min: 8 * MIB,
        share_part: 8,
    }
}

fn settings(boot: u64, disks: usize) -> Settings {
    let incarnation = Incarnation(uuid(9));
    Settings {
        sitelog: sitelog::Settings::alone(ME, incarnation),
        controller: controller::Settings {
            voters: vec![ME],
            nodes: vec![(ME, disks)],
            digest: 7,
            version: 1,
            hear: Duration::from_millis(100),
        },
        coordinator: coordinator::Settings {
            join_delay: Duration::ZERO,
            ..coordinator::Settings::default()
        },
        rules: rules(),
        wanted: vec![
            Wanted::Declared(
                Declared {
                    name: "declared".to_owned(),
                    partitions: 2,
                    replication: 1,
                    configs: Vec::new(),
                    share: None,
                },
                topic_id(1),
            ),
            Wanted::Offsets(topic_id(2)),
        ],
        site: SiteUuid(uuid(3)),
        boot,
    }
}
