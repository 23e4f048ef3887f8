//! The words of scenarios: requests out of `key=value` and answers as one line each.

use core::fmt::Write as _;
use core::time::Duration;

use model::{Instant, Uuid};

use super::GROUP;
use crate::coordinator::Record;
use crate::group::records::{GroupValue, MemberValue, read_group_key};
use crate::group::{
    Commit, CommittedOffset, DescribedMember, FetchedOffset, GroupError, GroupReply, Join,
    JoinedMember, Listed, Protocol, TopicPartitionName,
};
use crate::offsets::records::{OffsetKey, OffsetValue};

/// A command's words: `key=value`, or bare.
pub(super) struct Words<'a>(pub(super) Vec<&'a str>);

impl<'a> Words<'a> {
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.value(key).map(str::to_owned)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.value(key).map(|value| value.parse().unwrap())
    }

    pub(super) fn list(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.value(key)
            .into_iter()
            .flat_map(|value| value.split(','))
    }

    pub(super) fn pairs(&self, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.list(key)
            .map(|pair| pair.split_once(':').unwrap_or((pair, "")))
    }

    pub(super) fn member(&self) -> String {
        self.value("member").map_or_else(String::new, expand)
    }

    pub(super) fn generation(&self) -> i32 {
        self.value("gen")
            .map_or(-1, |generation| generation.parse().unwrap())
    }

    pub(super) fn millis(&self, key: &str, otherwise: i32) -> i32 {
        self.value(key).map_or(otherwise, |value| {
            i32::try_from(time(value).0 / 1_000_000).unwrap()
        })
    }

    pub(super) fn join(&self, ticket: u64) -> Join {
        let version = self.number("v").unwrap_or(9);
        let protocols: Vec<_> = self.pairs("protocols").collect();
        let protocols = if protocols.is_empty() {
            vec![("range", "")]
        } else {
            protocols
        };
        let protocol = |(name, metadata): (&str, &str)| Protocol {
            name: name.to_owned(),
            metadata: subscription(metadata),
        };
        Join {
            group: self.text("group").unwrap_or_else(|| GROUP.to_owned()),
            member: self.member(),
            instance: self.text("instance"),
            member_id_required: version >= 4,
            can_skip_assignment: version >= 9,
            client_id: self.text("client").unwrap_or_else(|| "c".to_owned()),
            client_host: "/192.0.2.1".to_owned(),
            session_timeout_ms: self.millis("session", 10_000),
            rebalance_timeout_ms: self.millis("rebalance", 60_000),
            protocol_type: self.text("type").unwrap_or_else(|| "consumer".to_owned()),
            protocols: protocols.into_iter().map(protocol).collect(),
            uuid: Uuid(u128::from(ticket).to_be_bytes()),
        }
    }

    pub(super) fn commit(&self) -> Commit {
        let bare = self.0.iter().filter(|word| !word.contains('='));
        let offset = |word: &&str| {
            let mut parts = word.split(':');
            let (topic, partition) = partition(parts.next().unwrap());
            CommittedOffset {
                topic,
                partition,
                offset: parts.next().unwrap().parse().unwrap(),
                leader_epoch: parts.next().map_or(-1, |epoch| epoch.parse().unwrap()),
                metadata: parts.next().map(|text| match text.strip_prefix('*') {
                    Some(count) => "x".repeat(count.parse().unwrap()),
                    None => text.to_owned(),
                }),
            }
        };
        Commit {
            group: self.text("group").unwrap_or_else(|| GROUP.to_owned()),
            generation: self.generation(),
            member: self.member(),
            instance: self.text("instance"),
            retention_ms: self
                .value("retention")
                .map_or(-1, |value| value.parse().unwrap()),
            offsets: bare.map(offset).collect(),
        }
    }

    pub(super) fn partitions(&self) -> Option<Vec<TopicPartitionName>> {
        let bare = self.0.iter().filter(|word| !word.contains('='));
        let partitions: Vec<_> = bare
            .map(|word| {
                let (topic, partition) = partition(word);
                TopicPartitionName { topic, partition }
            })
            .collect();
        (!partitions.is_empty()).then_some(partitions)
    }
}

/// "t-3" is partition 3 of topic "t".
fn partition(word: &str) -> (String, i32) {
    let (topic, partition) = word.split_once('-').unwrap();
    (topic.to_owned(), partition.parse().unwrap())
}

/// A consumer's metadata that subscribes to the topics named, joined by "+"; as it stands if it begins with "!".
pub(super) fn subscription(topics: &str) -> Vec<u8> {
    if let Some(opaque) = topics.strip_prefix('!') {
        return opaque.as_bytes().to_vec();
    }
    let topics: Vec<&str> = topics
        .split('+')
        .filter(|topic| !topic.is_empty())
        .collect();
    let mut bytes = vec![0, 1];
    bytes.extend(u32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes
}

/// "10ms", "3s" or "5m" from the beginning.
pub(super) fn time(word: &str) -> Instant {
    let split = word.find(|letter: char| !letter.is_ascii_digit()).unwrap();
    let (number, unit) = word.split_at(split);
    let number: u64 = number.parse().unwrap();
    let millis = match unit {
        "ms" => number,
        "s" => number * 1_000,
        "m" => number * 60_000,
        "h" => number * 3_600_000,
        _ => panic!("no unit {unit:?}"),
    };
    Instant(0) + Duration::from_millis(millis)
}

/// "c#7" stands for the member id that client "c" was given for ticket 7.
pub(super) fn expand(id: &str) -> String {
    match id.split_once('#') {
        Some((name, number)) => format!(
            "{name}-00000000-0000-0000-0000-{:012x}",
            number.parse::<u64>().unwrap()
        ),
        None => id.to_owned(),
    }
}

pub(super) fn shorten(text: &str) -> String {
    const MIDDLE: &str = "-00000000-0000-0000-0000-";
    let mut parts = text.split(MIDDLE);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_at(12);
        write!(short, "#{}{rest}", u64::from_str_radix(number, 16).unwrap()).unwrap();
    }
    short
}

fn bytes_text(bytes: &[u8]) -> String {
    if bytes.starts_with(&[0, 1, 0]) {
        let texts = bytes[6..]
            .split(|byte| *byte < 32)
            .filter(|text| !text.is_empty());
        let names: Vec<_> = texts.map(String::from_utf8_lossy).collect();
        return format!("[{}]", names.join("+"));
    }
    format!("{:?}", String::from_utf8_lossy(bytes))
}

pub(super) fn record_text(record: &Record) -> String {
    if let Ok(key) = OffsetKey::decode(&record.key) {
        let OffsetKey {
            group,
            topic,
            partition,
        } = key;
        let Some(value) = &record.value else {
            return format!("offset {group} {topic}-{partition} gone");
        };
        let value = OffsetValue::decode(value).unwrap();
        let OffsetValue {
            offset,
            leader_epoch,
            metadata,
            committed_at,
            expires_at,
        } = value;
        let metadata = if metadata.len() > 16 {
            format!("{} x", metadata.len())
        } else {
            metadata
        };
        return format!(
            "offset {group} {topic}-{partition} {offset} epoch={leader_epoch} {metadata:?} at={committed_at} expires={expires_at}"
        );
    }
    let group = read_group_key(&record.key).unwrap();
    let Some(value) = &record.value else {
        return format!("group {group} gone");
    };
    let value = GroupValue::decode(value).unwrap();
    let member = |member: &MemberValue| {
        let instance = member
            .instance
            .as_ref()
            .map_or_else(String::new, |instance| format!("({instance})"));
        format!(
            "{}{instance}={}",
            member.member,
            bytes_text(&member.assignment)
        )
    };
    let members: Vec<String> = value.members.iter().map(member).collect();
    let (protocol, leader) = (
        value.protocol.unwrap_or_default(),
        value.leader.unwrap_or_default(),
    );
    format!(
        "group {group} gen={} type={} protocol={protocol} leader={leader} at={} members {}",
        value.generation,
        value.protocol_type,
        value.state_at,
        members.join(" ")
    )
    .trim_end()
    .to_owned()
}

fn results_text(results: &[Result<(), GroupError>]) -> String {
    let texts = results.iter().map(|result| match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}

pub(super) fn reply_text(reply: &GroupReply) -> String {
    match reply {
        GroupReply::Joined(joined) => {
            let skip = if joined.skip_assignment {
                " skip-assignment"
            } else {
                ""
            };
            let member = |member: &JoinedMember| {
                let instance = member
                    .instance
                    .as_ref()
                    .map_or_else(String::new, |instance| format!("({instance})"));
                format!(
                    " {}{instance}={}",
                    member.member,
                    bytes_text(&member.metadata)
                )
            };
            let members: String = joined.members.iter().map(member).collect();
            let members = if members.is_empty() {
                members
            } else {
                format!(" members{members}")
            };
            format!(
                "joined member={} gen={} type={} protocol={} leader={}{skip}{members}",
                joined.member,
                joined.generation,
                joined.protocol_type,
                joined.protocol,
                joined.leader
            )
        }
        GroupReply::MemberIdRequired { member } => format!("member-id-required {member}"),
        GroupReply::Synced(synced) => {
            format!(
                "synced {}/{} {}",
                synced.protocol_type,
                synced.protocol,
                bytes_text(&synced.assignment)
            )
        }
        GroupReply::Alive => "alive".to_owned(),
        GroupReply::Left(results) => format!("left {}", results_text(results)),
        GroupReply::Committed(results) => format!("committed {}", results_text(results)),
        GroupReply::Offsets(offsets) => {
            let text = |offset: &FetchedOffset| {
                format!(
                    " {}-{}:{}:{}:{:?}",
                    offset.topic,
                    offset.partition,
                    offset.offset,
                    offset.leader_epoch,
                    offset.metadata
                )
            };
            format!("offsets{}", offsets.iter().map(text).collect::<String>())
        }
        GroupReply::Described(described) => {
            let member = |member: &DescribedMember| {
                let instance = member
                    .instance
                    .as_ref()
                    .map_or_else(String::new, |instance| format!("({instance})"));
                format!(
                    " {}{instance} {}@{} {} {}",
                    member.member,
                    member.client_id,
                    member.client_host,
                    bytes_text(&member.metadata),
                    bytes_text(&member.assignment)
                )
            };
            let members: String = described.members.iter().map(member).collect();
            format!(
                "described {} type={} protocol={}{members}",
                described.state.name(),
                described.protocol_type,
                described.protocol
            )
        }
        GroupReply::Listed(listed) => {
            let text = |listed: &Listed| {
                format!(
                    " {}:{}:{}:{}",
                    listed.group,
                    listed.protocol_type,
                    listed.state.name(),
                    listed.kind.name()
                )
            };
            format!("listed{}", listed.iter().map(text).collect::<String>())
        }
        GroupReply::Deleted => "deleted".to_owned(),
        GroupReply::OffsetsDeleted(results) => format!("offsets-deleted {}", results_text(results)),
        GroupReply::Refused(error) => format!("refused {error:?}"),
    }
}
