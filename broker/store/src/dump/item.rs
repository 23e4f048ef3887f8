//! The items of a dump as values: one line of JSON or of text each.

use std::fmt;

use model::batch::{BatchFault, Header};
use serde::Serialize;

use crate::format::checkpoint::{CheckpointHeader, Partition};
use crate::format::extent::{ExtentHeader, Footer};
use crate::format::journal::{self, Entry, EntryType, GroupHeader};
use crate::format::row::Row;
use crate::format::superblock::Superblock;

/// One thing that lies on a disk. Fields are named as in the format's pictures; `at` is a position in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "item", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the pictures in `format` explain each")]
pub enum Item {
    Superblock {
        file: String,
        sb_seq: u64,
        clean_seq: u64,
        state: String,
        meta: bool,
        node: u32,
        site: String,
        disk: String,
        incarnation: String,
        journal_bytes: u64,
        journal_uuid: String,
    },
    Checkpoint {
        file: String,
        seq: u64,
        boundary: u64,
        ring_pos: u64,
        slots: u32,
        body_bytes: u64,
    },
    Slot {
        slot: u32,
        generation: u32,
        state: String,
        class: String,
        flags: u16,
        part: u32,
        used: u32,
        base: i64,
        last: i64,
        max_ts: i64,
        appended_at: i64,
        first_epoch: i32,
        last_epoch: i32,
    },
    Partition {
        part: u32,
        topic: String,
        partition: u32,
        log_start: i64,
        high_watermark: i64,
        end: i64,
        accepted_epoch: i32,
        epochs: Vec<(i32, i64)>,
        hole: Option<(i64, i64)>,
    },
    Group {
        at: u64,
        seq: u64,
        keep_seq: u64,
        bytes: u32,
        entries: u16,
        flags: Vec<&'static str>,
        wall_ms: i64,
        checked: bool,
    },
    Entry {
        seq: u64,
        number: u32,
        kind: &'static str,
        flags: u8,
        part: u32,
        slot: u32,
        generation: u32,
        ext_off: u32,
        len: u32,
        base: i64,
        span: u32,
        max_ts: i64,
        epoch: i32,
        aux: u64,
    },
    Extent {
        file: String,
        slot: u32,
        generation: u32,
        class: String,
        topic: String,
        partition: u32,
        epoch: i32,
        base: i64,
    },
    Batch {
        file: String,
        at: u64,
        bytes: usize,
        base: i64,
        last: i64,
        records: i32,
        epoch: i32,
        codec: String,
        base_timestamp: i64,
        max_timestamp: i64,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        transactional: bool,
        control: bool,
        delete_horizon: bool,
        fault: Option<String>,
    },
    Footer {
        file: String,
        flags: u16,
        used: u32,
        index: u32,
        last: i64,
        max_ts: i64,
        appended_at: i64,
        data_crc: u32,
    },
    Fault {
        file: String,
        at: u64,
        what: String,
    },
}

/// One line.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock {
                file,
                sb_seq,
                clean_seq,
                state,
                meta,
                node,
                disk,
                ..
            } => write!(
                f,
                "{file}: superblock {sb_seq} of disk {disk}, node {node}, {state}{}, clean at {clean_seq}",
                if *meta { ", meta" } else { "" }
            ),
            Self::Checkpoint {
                file,
                seq,
                boundary,
                slots,
                ..
            } => write!(
                f,
                "{file}: checkpoint {seq} up to group {boundary}, {slots} slots"
            ),
            Self::Slot {
                slot,
                generation,
                state,
                class,
                part,
                used,
                base,
                last,
                ..
            } => write!(
                f,
                "  slot {slot}.{generation} {class} {state}: part {part}, {base} to {last}, used {used}"
            ),
            Self::Partition {
                part,
                topic,
                partition,
                log_start,
                high_watermark,
                end,
                hole,
                ..
            } => {
                write!(
                    f,
                    "  part {part}: {topic}/{partition}, {log_start} to {end}, high watermark {high_watermark}"
                )?;
                hole.map_or(Ok(()), |(from, to)| {
                    write!(f, ", lost {from} to {}", to - 1)
                })
            }
            Self::Group {
                at,
                seq,
                keep_seq,
                bytes,
                flags,
                checked,
                ..
            } => write!(
                f,
                "group {seq} at {at}: {bytes} B, keeps from {keep_seq} {}{}",
                flags.join(" "),
                if *checked { "" } else { " (not checked)" }
            ),
            Self::Entry {
                kind,
                part,
                slot,
                generation,
                ext_off,
                len,
                base,
                span,
                epoch,
                aux,
                ..
            } => write!(
                f,
                "  {kind} part {part} slot {slot}.{generation} at {ext_off}+{len} base {base}+{span} epoch {epoch} aux {aux}"
            ),
            Self::Extent {
                file,
                slot,
                generation,
                class,
                topic,
                partition,
                base,
                ..
            } => write!(
                f,
                "{file}: extent {slot}.{generation} {class} of {topic}/{partition} from {base}"
            ),
            Self::Batch {
                at,
                bytes,
                base,
                last,
                records,
                epoch,
                codec,
                producer_id,
                base_sequence,
                fault,
                ..
            } => {
                write!(
                    f,
                    "  {at}: offsets {base} to {last}, {records} records, {bytes} B {codec}, epoch {epoch}, producer \
                     {producer_id} sequence {base_sequence}"
                )?;
                fault.iter().try_for_each(|fault| write!(f, ": {fault}"))
            }
            Self::Footer {
                used, last, index, ..
            } => write!(
                f,
                "  footer: used {used}, up to {last}, {index} index entries"
            ),
            Self::Fault { file, at, what } => write!(f, "{file} at {at}: {what}"),
        }
    }
}

pub(super) fn superblock(file: &str, it: &Superblock) -> Item {
    Item::Superblock {
        file: file.into(),
        sb_seq: it.sb_seq,
        clean_seq: it.clean_seq,
        state: lower(&it.state),
        meta: it.meta,
        node: it.node.0,
        site: it.site.to_string(),
        disk: it.disk.to_string(),
        incarnation: it.incarnation.to_string(),
        journal_bytes: it.journal_bytes,
        journal_uuid: it.journal.to_string(),
    }
}

pub(super) fn checkpoint(file: &str, it: &CheckpointHeader) -> Item {
    Item::Checkpoint {
        file: file.into(),
        seq: it.ckpt_seq,
        boundary: it.boundary,
        ring_pos: it.ring_pos,
        slots: it.rows,
        body_bytes: it.body_bytes,
    }
}

pub(super) fn slot(slot: u32, row: &Row) -> Item {
    Item::Slot {
        slot,
        generation: row.generation,
        state: lower(&row.state),
        class: lower(&row.class),
        flags: row.flags,
        part: row.part.0,
        used: row.used,
        base: row.base.0,
        last: row.last.0,
        max_ts: row.max_ts.0,
        appended_at: row.appended_at.0,
        first_epoch: row.first_epoch.0,
        last_epoch: row.last_epoch.0,
    }
}

pub(super) fn partition(it: &Partition) -> Item {
    let row = &it.row;
    Item::Partition {
        part: row.part,
        topic: row.id.topic.to_string(),
        partition: row.id.partition.0,
        log_start: row.log_start.0,
        high_watermark: row.high_watermark.0,
        end: row.end.0,
        accepted_epoch: row.accepted_epoch.0,
        epochs: row.epochs.iter().map(|it| (it.0.0, it.1.0)).collect(),
        hole: row.hole.map(|(from, to)| (from.0, to.0)),
    }
}

pub(super) fn group(it: &GroupHeader, checked: bool) -> Item {
    let names = [
        (journal::CLEAN, "clean"),
        (journal::WRAP, "wrap"),
        (journal::CKPT, "ckpt"),
    ];
    let set = names.iter().filter(|(bit, _)| it.flags & bit != 0);
    Item::Group {
        at: it.ring_pos,
        seq: it.seq,
        keep_seq: it.keep_seq,
        bytes: it.total_len,
        entries: it.entries,
        flags: set.map(|(_, name)| *name).collect(),
        wall_ms: it.wall.0,
        checked,
    }
}

pub(super) fn entry(seq: u64, number: u32, it: &Entry) -> Item {
    Item::Entry {
        seq,
        number,
        kind: kind(it.kind),
        flags: it.flags,
        part: it.part.0,
        slot: it.life.slot,
        generation: it.life.generation,
        ext_off: it.ext_off,
        len: it.len,
        base: it.base.0,
        span: it.span,
        max_ts: it.max_ts.0,
        epoch: it.epoch.0,
        aux: it.aux,
    }
}

pub(super) fn extent(file: &str, it: &ExtentHeader) -> Item {
    Item::Extent {
        file: file.into(),
        slot: it.slot,
        generation: it.generation,
        class: lower(&it.class),
        topic: it.id.topic.to_string(),
        partition: it.id.partition.0,
        epoch: it.epoch.0,
        base: it.base.0,
    }
}

pub(super) fn batch(file: &str, at: u64, it: &Header, fault: Option<BatchFault>) -> Item {
    Item::Batch {
        file: file.into(),
        at,
        bytes: it.bytes,
        base: it.base_offset.0,
        last: it.base_offset.0.saturating_add(it.last_offset_delta.into()),
        records: it.records_count,
        epoch: it.leader_epoch.0,
        codec: it
            .codec()
            .map_or_else(|fault| fault.to_string(), |it| lower(&it)),
        base_timestamp: it.base_timestamp.0,
        max_timestamp: it.max_timestamp.0,
        producer_id: it.producer_id,
        producer_epoch: it.producer_epoch,
        base_sequence: it.base_sequence,
        transactional: it.transactional(),
        control: it.control(),
        delete_horizon: it.delete_horizon(),
        fault: fault.map(|it| it.to_string()),
    }
}

pub(super) fn footer(file: &str, it: &Footer) -> Item {
    Item::Footer {
        file: file.into(),
        flags: it.flags,
        used: it.used,
        index: it.index_count,
        last: it.last.0,
        max_ts: it.max_ts.0,
        appended_at: it.appended_at.0,
        data_crc: it.data_crc,
    }
}

fn lower(it: &impl fmt::Debug) -> String {
    format!("{it:?}").to_lowercase()
}

const fn kind(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Append => "APPEND",
        EntryType::Truncate => "TRUNCATE",
        EntryType::Epoch => "EPOCH",
        EntryType::ExtOpen => "EXT_OPEN",
        EntryType::ExtSeal => "EXT_SEAL",
        EntryType::ExtFree => "EXT_FREE",
        EntryType::ExtSwap => "EXT_SWAP",
        EntryType::LogStart => "LOG_START",
        EntryType::PartNew => "PART_NEW",
        EntryType::PartDel => "PART_DEL",
        EntryType::HardState => "HARDSTATE",
        EntryType::SiteEntry => "SITE_ENTRY",
        EntryType::Ckpt => "CKPT",
        EntryType::Boot => "BOOT",
        EntryType::Clean => "CLEAN",
    }
}
