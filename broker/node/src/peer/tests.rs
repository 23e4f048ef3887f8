//! Bytes of peers' messages, and how questions and answers are gathered.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use model::{
    DiskUuid, Incarnation, Instant, LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId,
    TopicPartition, Uuid,
};

use super::*;
use crate::partition::Member;

mod bytes;
mod talk;

fn id(number: u32) -> TopicPartition {
    TopicPartition {
        topic: TopicId(Uuid([7; 16])),
        partition: PartitionIndex(number),
    }
}

fn row(number: u32, fetch_off: i64, durable_off: i64) -> FetchRow {
    FetchRow {
        partition: id(number),
        disk: DiskUuid(Uuid([0xdd; 16])),
        epoch: LeaderEpoch(5),
        fetch_off: Offset(fetch_off),
        durable_off: Offset(durable_off),
        last_epoch: LeaderEpoch(4),
        log_start: Offset(0),
        bytes_max: 1 << 20,
    }
}

fn answer(row: &FetchRow, bytes: u32) -> FetchedRow {
    FetchedRow {
        partition: row.partition,
        epoch: row.epoch,
        fetch_off: row.fetch_off,
        last_epoch: row.last_epoch,
        body: FetchedBody::Batches {
            high_watermark: Offset(3),
            log_start: Offset(1),
            more: false,
            bytes,
        },
    }
}
