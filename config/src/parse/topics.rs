//! `[defaults]` and `[[topic]]`.

use std::collections::BTreeMap;

use super::MINUTE_MS;
use crate::diagnostic::{Faults, Span};
use crate::names::{TopicNameFault, check_new_topic_name, collision_key};
use crate::quota;
use crate::reader::{Located, Reader};
use crate::schema::*;
use crate::units::{KIB, MIB};

/// Topics of a site file: more would not fit a node's replicas.
const TOPICS_MAX: usize = REPLICAS_MAX as usize;
/// The smallest quota: two extents of a class that holds Kafka's default batch, so that one can go while one fills.
const QUOTA_BYTES_MIN: u64 = MIB;
/// A century: beyond it, say "forever".
const RETENTION_MS_MAX: u64 = 36_525 * 24 * 60 * MINUTE_MS;
/// As much as a Kafka broker waits at the utmost for the others of a group.
const JOIN_DELAY_MS_MAX: u64 = 5 * MINUTE_MS;

/// A topic and where it stands.
pub(super) struct ReadTopic {
    pub(super) topic: Topic,
    /// What asks for the most room: the quota, else the name.
    asks: Span,
}

pub(super) fn read_defaults(
    table: Option<Reader<'_, '_>>,
    nodes: usize,
    faults: &Faults<'_>,
) -> Defaults {
    let nodes = u16::try_from(nodes.clamp(1, NODES_MAX)).expect("at most five");
    let replication = nodes.min(3);
    let mut defaults = Defaults {
        partitions: 4,
        replication,
        min_insync: replication.min(2),
        retention: Retention {
            time: Some(Keep::Ms(7 * 24 * 60 * MINUTE_MS)),
            bytes: None,
        },
        on_full: OnFull::Oldest,
        auto_create: true,
        create_topics: true,
        join_delay_ms: 3_000,
    };
    let Some(mut table) = table else {
        return defaults;
    };
    let partitions = table
        .item("partitions")
        .and_then(|item| item.integer(1..=REPLICAS_MAX));
    if let Some(partitions) = partitions {
        defaults.partitions = partitions.value;
    }
    let (replication, min_insync) =
        read_replication(&mut table, (defaults.replication, None), nodes, faults);
    defaults.replication = replication;
    defaults.min_insync = min_insync.unwrap_or(replication.min(2));
    let (retention, _) = read_retention(&mut table);
    defaults.retention = Retention {
        time: retention.time.or(defaults.retention.time),
        bytes: retention.bytes,
    };
    if let Some(on_full) = read_on_full(&mut table, faults) {
        defaults.on_full = on_full;
    }
    if let Some(on) = table.item("create_topics").and_then(|item| item.boolean()) {
        defaults.create_topics = on;
        defaults.auto_create = on;
    }
    if let Some(item) = table.item("auto_create")
        && let Some(on) = item.boolean()
    {
        if on && !defaults.create_topics {
            faults.add(&item.span(), "`defaults.auto_create` is true, but `defaults.create_topics` is false: nothing may be made; take one of them out");
        }
        defaults.auto_create = on;
    }
    if let Some(delay) = table
        .item("join_delay")
        .and_then(|item| item.duration_ms(0..=JOIN_DELAY_MS_MAX))
    {
        defaults.join_delay_ms = u32::try_from(delay.value).expect("the range above fits");
    }
    table.end();
    defaults
}

/// `replication` and `min_insync`, with what they may be in a site of so many nodes.
fn read_replication(
    table: &mut Reader<'_, '_>,
    unsaid: (u16, Option<u16>),
    nodes: u16,
    faults: &Faults<'_>,
) -> (u16, Option<u16>) {
    let mut replication = unsaid.0;
    let most = u32::try_from(NODES_MAX).expect("five");
    if let Some(found) = table
        .item("replication")
        .and_then(|item| item.integer(1..=most))
    {
        let value = u16::try_from(found.value).expect("the range above fits");
        if value > nodes {
            let plural = if nodes == 1 { "" } else { "s" };
            faults.add(&found.span, format!("`{}` is {value}, but the site has {nodes} node{plural} to keep replicas; {nodes} or less would be right", table.name("replication")));
        }
        replication = value;
    }
    let mut min_insync = None;
    if let Some(found) = table
        .item("min_insync")
        .and_then(|item| item.integer(1..=most))
    {
        let value = u16::try_from(found.value).expect("the range above fits");
        if value > replication {
            faults.add(&found.span, format!("`{}` is {value}, beyond the {replication} of `replication`: acks=all could never succeed; {replication} or less would be right", table.name("min_insync")));
        }
        min_insync = Some(value);
    } else if let Some(inherited) = unsaid.1 {
        // A topic of fewer replicas than the defaults' min_insync could never take acks=all.
        return (
            replication,
            (inherited > replication).then_some(replication),
        );
    }
    (replication, min_insync)
}

/// `{ time = "7d", bytes = "20GiB" }`; either may be missing.
fn read_retention(table: &mut Reader<'_, '_>) -> (Retention, Option<Located<u64>>) {
    let mut retention = Retention::default();
    let Some(mut own) = table
        .item("retention")
        .and_then(|item| item.table("write retention = { time = \"7d\", bytes = \"20GiB\" }"))
    else {
        return (retention, None);
    };
    if let Some(time) = own.item("time") {
        retention.time = if time.is_word("forever") {
            Some(Keep::Forever)
        } else {
            time.duration_ms(1_000..=RETENTION_MS_MAX)
                .map(|ms| Keep::Ms(ms.value))
        };
    }
    let bytes = own
        .item("bytes")
        .and_then(|item| item.size(QUOTA_BYTES_MIN..=u64::MAX));
    retention.bytes = bytes.as_ref().map(|bytes| bytes.value);
    own.end();
    (retention, bytes)
}

fn read_on_full(table: &mut Reader<'_, '_>, faults: &Faults<'_>) -> Option<OnFull> {
    let item = table.item("on_full")?;
    if item.is_word("uploaded-first") {
        faults.add(&item.span(), format!("`{}` = \"uploaded-first\" is not built yet: this release uploads nothing; write \"oldest\" or \"refuse\"", table.name("on_full")));
        return None;
    }
    Some(
        item.choice(&[("oldest", OnFull::Oldest), ("refuse", OnFull::Refuse)])?
            .value,
    )
}

pub(super) fn read<'a, 't>(
    tables: Vec<Reader<'a, 't>>,
    defaults: &Defaults,
    nodes: usize,
    faults: &Faults<'t>,
) -> Vec<ReadTopic> {
    if let Some(extra) = tables.get(TOPICS_MAX) {
        faults.add(
            &extra.span,
            format!(
                "a site file has at most {TOPICS_MAX} topics, this is one of {}",
                tables.len()
            ),
        );
    }
    let nodes = u16::try_from(nodes.clamp(1, NODES_MAX)).expect("at most five");
    let mut names: BTreeMap<String, Located<String>> = BTreeMap::new();
    tables
        .into_iter()
        .take(TOPICS_MAX)
        .map(|table| read_topic(table, defaults, nodes, &mut names, faults))
        .collect()
}

fn read_topic(
    mut table: Reader<'_, '_>,
    defaults: &Defaults,
    nodes: u16,
    names: &mut BTreeMap<String, Located<String>>,
    faults: &Faults<'_>,
) -> ReadTopic {
    let mut asks = table.span.clone();
    let name = table
        .need("name", "a name such as \"telemetry\"")
        .and_then(|item| item.string("a name such as \"telemetry\" would be right"));
    if let Some(name) = &name {
        asks = name.span.clone();
        check_name(name, names, faults);
    }
    let partitions = table
        .item("partitions")
        .and_then(|item| item.integer(1..=REPLICAS_MAX));
    let (replication, min_insync) = read_replication(
        &mut table,
        (defaults.replication, Some(defaults.min_insync)),
        nodes,
        faults,
    );
    let (retention, bytes) = read_retention(&mut table);
    if let Some(bytes) = &bytes {
        asks = bytes.span.clone();
    }
    let on_full = read_on_full(&mut table, faults);
    let max_message = table
        .item("max_message")
        .and_then(|item| item.size(KIB..=u64::from(MAX_MESSAGE_BYTES_MAX)));
    let max_message_bytes =
        max_message.map(|bytes| u32::try_from(bytes.value).expect("the range above fits"));
    let cleanup = table.item("cleanup").and_then(|item| {
        item.choice(&[
            ("delete", Cleanup::Delete),
            ("compact", Cleanup::Compact),
            ("compact,delete", Cleanup::CompactDelete),
        ])
    });
    let timestamps = table.item("timestamps").and_then(|item| {
        item.choice(&[
            ("create", Timestamps::Create),
            ("append", Timestamps::Append),
        ])
    });
    let segment = table
        .item("segment_time")
        .and_then(|item| item.duration_ms(MINUTE_MS..=RETENTION_MS_MAX));
    let tombstones = table
        .item("delete_retention")
        .and_then(|item| item.duration_ms(0..=RETENTION_MS_MAX));
    table.end();
    let topic = Topic {
        name: name.map(|name| name.value).unwrap_or_default(),
        partitions: partitions.map_or(defaults.partitions, |partitions| partitions.value),
        replication,
        min_insync: min_insync.unwrap_or(defaults.min_insync),
        own: TopicConfig {
            retention,
            on_full,
            min_insync,
            max_message_bytes,
            cleanup: cleanup.map(|cleanup| cleanup.value),
            timestamps: timestamps.map(|timestamps| timestamps.value),
            segment_ms: segment.map(|ms| ms.value),
            delete_retention_ms: tombstones.map(|ms| ms.value),
        },
    };
    ReadTopic { topic, asks }
}

fn check_name(
    name: &Located<String>,
    names: &mut BTreeMap<String, Located<String>>,
    faults: &Faults<'_>,
) {
    let found = faults.found(&name.span);
    match check_new_topic_name(name) {
        Ok(()) => {}
        Err(TopicNameFault::Internal) => {
            faults.add(
                &name.span,
                format!("topic {found} belongs to the broker itself; give yours another name"),
            );
        }
        Err(fault) => faults.add(
            &name.span,
            format!("`topic.name` is {found}, which {fault}"),
        ),
    }
    let other = names
        .entry(collision_key(name))
        .or_insert_with(|| name.clone());
    if other.span == name.span {
        return;
    }
    let line = faults.line(&other.span);
    let message = if other.value == name.value {
        format!("topic {found} is there already, in line {line}; each topic stands once")
    } else {
        format!(
            "topic {found} collides with \"{}\" of line {line}: metrics write '.' as '_', so Kafka refuses the two together",
            other.value
        )
    };
    faults.add(&name.span, message);
}

/// Whether what the topics promise fits what the disks hold, and each node's bound of replicas.
pub(super) fn check_fit(site: &Site, topics: &[ReadTopic], faults: &Faults<'_>) {
    for misfit in quota::site_quotas(site, &quota::known_disks(site)).misfits {
        if let Some(topic) = topics.get(misfit.topic) {
            faults.add(&topic.asks, misfit.to_string());
        }
    }
}
