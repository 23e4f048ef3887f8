//! Topic configs: what there is, what a value may be, and what the set ones mean.
//!
//! Some of Kafka's mean nothing here and are accepted all the same, because tools send them; a value that would change
//! what is stored, and does not, is refused instead.

use std::collections::BTreeMap;

use super::types::{Alter, Fault, Rules, TopicRow};
use crate::partition;
use crate::sitelog::Configs;

/// A config as it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Who set it.
    pub source: Source,
    /// What type its value has.
    pub kind: ConfigKind,
    /// All that was said of it, the strongest first: name, value, by whom.
    pub synonyms: Vec<(&'static str, String, Source)>,
}

/// Where a config's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The topic itself.
    Topic,
    /// The site file.
    Site,
    /// Nobody.
    Default,
}

/// Types of values, as Kafka's clients know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// Any of a few words.
    String,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A decimal fraction.
    Double,
    /// Words with commas between.
    List,
}

/// What a topic's configs mean; values that can't be read mean their defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicSettings {
    /// For its partitions' machines.
    pub partition: partition::Settings,
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_ms: i64,
    /// Bytes that a partition may hold.
    pub quota_bytes: u64,
    /// `retention.ms`; −1 is for ever.
    pub retention_ms: i64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
}

/// What a value must be.
enum Check {
    Boolean,
    /// The words allowed, and why there are no others.
    OneOf(&'static [&'static str], &'static str),
    /// Some of these words, each once.
    List(&'static [&'static str]),
    Int(i32),
    Long(i64),
    /// From 0 to 1.
    Ratio,
}

struct Key {
    name: &'static str,
    /// The broker's config that is its default in Kafka.
    broker: &'static str,
    check: Check,
    default: &'static str,
}

const fn key(name: &'static str, broker: &'static str, check: Check, default: &'static str) -> Key {
    Key {
        name,
        broker,
        check,
        default,
    }
}

const FOREVER: &str = "9223372036854775807";

/// By name.
static KEYS: [Key; 25] = [
    key(
        "cleanup.policy",
        "log.cleanup.policy",
        Check::List(&["delete", "compact"]),
        "delete",
    ),
    key(
        "compression.type",
        "compression.type",
        Check::OneOf(&["producer"], "batches are stored as they were sent"),
        "producer",
    ),
    key(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        Check::Long(0),
        "86400000",
    ),
    key(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        Check::Long(0),
        "60000",
    ),
    key(
        "flush.messages",
        "log.flush.interval.messages",
        Check::Long(0),
        FOREVER,
    ),
    key("flush.ms", "log.flush.interval.ms", Check::Long(0), FOREVER),
    key(
        "howdah.on.full",
        "howdah.on.full",
        Check::OneOf(&["oldest", "refuse"], "there is no other"),
        "oldest",
    ),
    key(
        "index.interval.bytes",
        "log.index.interval.bytes",
        Check::Int(0),
        "4096",
    ),
    key(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        Check::Long(1),
        FOREVER,
    ),
    key(MAX_MESSAGE_BYTES, "message.max.bytes", Check::Int(0), ""),
    key(
        "message.downconversion.enable",
        "log.message.downconversion.enable",
        Check::Boolean,
        "true",
    ),
    key(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        Check::Long(0),
        FOREVER,
    ),
    key(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        Check::Long(0),
        FOREVER,
    ),
    key(
        "message.timestamp.type",
        "log.message.timestamp.type",
        Check::OneOf(&["CreateTime", "LogAppendTime"], "there is no other"),
        "CreateTime",
    ),
    key(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        Check::Ratio,
        "0.5",
    ),
    key(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        Check::Long(0),
        "0",
    ),
    key(MIN_INSYNC, "min.insync.replicas", Check::Int(1), "1"),
    key("preallocate", "log.preallocate", Check::Boolean, "false"),
    key(
        RETENTION_BYTES,
        "log.retention.bytes",
        Check::Long(-1),
        "-1",
    ),
    key(
        "retention.ms",
        "log.retention.ms",
        Check::Long(-1),
        "604800000",
    ),
    key(
        "segment.bytes",
        "log.segment.bytes",
        Check::Int(14),
        "1073741824",
    ),
    key(
        "segment.index.bytes",
        "log.index.size.max.bytes",
        Check::Int(4),
        "10485760",
    ),
    key(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        Check::Long(0),
        "0",
    ),
    key("segment.ms", "log.roll.ms", Check::Long(1), "604800000"),
    key(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        Check::OneOf(
            &["false"],
            "a leader that lacks records is an operator's decision, partition by partition",
        ),
        "false",
    ),
];

const RETENTION_BYTES: &str = "retention.bytes";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const MIN_INSYNC: &str = "min.insync.replicas";

impl Key {
    fn find(name: &str) -> Option<&'static Self> {
        KEYS.binary_search_by(|key| key.name.cmp(name))
            .ok()
            .map(|at| &KEYS[at])
    }

    const fn kind(&self) -> ConfigKind {
        match self.check {
            Check::Boolean => ConfigKind::Boolean,
            Check::OneOf(..) => ConfigKind::String,
            Check::List(_) => ConfigKind::List,
            Check::Int(_) => ConfigKind::Int,
            Check::Long(_) => ConfigKind::Long,
            Check::Ratio => ConfigKind::Double,
        }
    }

    /// The value as it is kept, or why it is none.
    fn check(&self, value: &str) -> Result<String, Fault> {
        let value = value.trim();
        let fault = |why: String| {
            let shown: String = value.chars().take(64).collect();
            Fault::InvalidConfig(format!("invalid value '{shown}' for {}: {why}", self.name))
        };
        match &self.check {
            Check::Boolean => match value.to_ascii_lowercase() {
                word if word == "true" || word == "false" => Ok(word),
                _ => Err(fault("it is true or false".into())),
            },
            Check::OneOf(words, why) => match words.contains(&value) {
                true => Ok(value.to_owned()),
                false => Err(fault(format!(
                    "only {} may be set, {why}",
                    words.join(" or ")
                ))),
            },
            Check::List(words) => {
                let given: Vec<&str> = list(value).collect();
                let strange = given.iter().find(|word| !words.contains(word));
                let twice = given
                    .iter()
                    .enumerate()
                    .any(|(at, word)| given[..at].contains(word));
                if given.is_empty() || strange.is_some() || twice {
                    return Err(fault(format!(
                        "it is {}, or both with a comma between",
                        words.join(" or ")
                    )));
                }
                Ok(given.join(","))
            }
            Check::Int(min) => match value.parse::<i32>() {
                Ok(number) if number >= *min => Ok(number.to_string()),
                _ => Err(fault(format!(
                    "it is a whole number from {min} to {}",
                    i32::MAX
                ))),
            },
            Check::Long(min) => match value.parse::<i64>() {
                Ok(number) if number >= *min => Ok(number.to_string()),
                _ => Err(fault(format!(
                    "it is a whole number from {min} to {}",
                    i64::MAX
                ))),
            },
            Check::Ratio => match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(value.to_owned()),
                _ => Err(fault("it is a number from 0 to 1".into())),
            },
        }
    }

    /// Its value where the topic sets none, and who says so.
    fn fallback(&self, rules: &Rules) -> (String, Source) {
        let of_site = match self.name {
            "howdah.on.full" => Some(
                if rules.refuse_when_full {
                    "refuse"
                } else {
                    "oldest"
                }
                .to_owned(),
            ),
            MAX_MESSAGE_BYTES => return (rules.message_bytes.to_string(), Source::Default),
            MIN_INSYNC => Some(rules.min_insync.to_string()),
            RETENTION_BYTES => rules.retention_bytes.map(|bytes| bytes.to_string()),
            "retention.ms" => Some(rules.retention_ms.to_string()),
            _ => None,
        };
        match of_site {
            Some(value) if value != self.default => (value, Source::Site),
            _ => (self.default.to_owned(), Source::Default),
        }
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn unknown(name: &str) -> Fault {
    let shown: String = name.chars().take(64).collect();
    Fault::InvalidConfig(format!("unknown topic config '{shown}'"))
}

fn set<'c>(configs: &'c Configs, name: &str) -> Option<&'c str> {
    configs
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

/// A client's whole configuration, checked, by name.
pub(super) fn checked<'a>(
    asked: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    replication: u16,
    rules: &Rules,
) -> Result<Configs, Fault> {
    let mut configs = BTreeMap::new();
    for (name, value) in asked {
        let key = Key::find(name).ok_or_else(|| unknown(name))?;
        let value = value.ok_or_else(|| Fault::InvalidConfig(format!("{name} has no value")))?;
        if configs.insert(key.name, key.check(value)?).is_some() {
            return Err(Fault::InvalidRequest(format!(
                "{name} stands twice in the request"
            )));
        }
    }
    let configs = configs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    check_together(&configs, replication, rules)?;
    Ok(configs)
}

/// The configuration after some changes of it (KIP-339).
pub(super) fn altered(
    before: &Configs,
    changes: &[(String, Alter)],
    replication: u16,
    rules: &Rules,
) -> Result<Configs, Fault> {
    let mut configs: BTreeMap<String, String> = before.iter().cloned().collect();
    for (at, (name, change)) in changes.iter().enumerate() {
        let key = Key::find(name).ok_or_else(|| unknown(name))?;
        if changes[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(Fault::InvalidRequest(format!(
                "{name} stands twice in the request"
            )));
        }
        let now = configs
            .get(name)
            .cloned()
            .unwrap_or_else(|| key.fallback(rules).0);
        let value = match change {
            Alter::Set(value) => key.check(value)?,
            Alter::Delete => {
                configs.remove(name);
                continue;
            }
            Alter::Append(_) | Alter::Subtract(_) if key.kind() != ConfigKind::List => {
                return Err(Fault::InvalidConfig(format!(
                    "{name} is no list: values can't be added or taken out"
                )));
            }
            Alter::Append(more) => {
                let new = list(more).filter(|word| !list(&now).any(|known| known == *word));
                key.check(&list(&now).chain(new).collect::<Vec<_>>().join(","))?
            }
            Alter::Subtract(less) => key.check(
                &list(&now)
                    .filter(|word| !list(less).any(|gone| gone == *word))
                    .collect::<Vec<_>>()
                    .join(","),
            )?,
        };
        configs.insert(name.clone(), value);
    }
    let configs = configs.into_iter().collect();
    check_together(&configs, replication, rules)?;
    Ok(configs)
}

/// What no value alone can say.
fn check_together(configs: &Configs, replication: u16, rules: &Rules) -> Result<(), Fault> {
    let number = |name| set(configs, name).and_then(|value| value.parse::<i64>().ok());
    if let Some(insync) = number(MIN_INSYNC).filter(|insync| *insync > i64::from(replication)) {
        return Err(Fault::InvalidConfig(format!(
            "{MIN_INSYNC}={insync} can never be met: the topic has {replication} replicas"
        )));
    }
    if let Some(bytes) =
        number(MAX_MESSAGE_BYTES).filter(|bytes| *bytes > i64::from(rules.message_bytes_max))
    {
        return Err(Fault::InvalidConfig(format!(
            "{MAX_MESSAGE_BYTES}={bytes}: at most {} here",
            rules.message_bytes_max
        )));
    }
    let least = number("min.compaction.lag.ms").unwrap_or(0);
    let most = number("max.compaction.lag.ms").unwrap_or(i64::MAX);
    if least > most {
        return Err(Fault::InvalidConfig(format!(
            "min.compaction.lag.ms={least} is above max.compaction.lag.ms={most}"
        )));
    }
    Ok(())
}

/// The quota that a topic names; else it has a share.
pub(super) fn named_quota(configs: &Configs) -> Option<u64> {
    set(configs, RETENTION_BYTES)?
        .parse::<i64>()
        .ok()
        .and_then(|bytes| u64::try_from(bytes).ok())
}

/// Whether the topic asks for a share although the site file names a quota for all.
pub(super) fn asks_for_share(configs: &Configs) -> bool {
    set(configs, RETENTION_BYTES) == Some("-1")
}

/// `max.message.bytes`.
pub(super) fn message_bytes(configs: &Configs, rules: &Rules) -> u32 {
    set(configs, MAX_MESSAGE_BYTES)
        .and_then(|value| value.parse().ok())
        .unwrap_or(rules.message_bytes)
}

/// Every config of a topic.
pub(super) fn described(configs: &Configs, share: u64, rules: &Rules) -> Vec<Config> {
    KEYS.iter()
        .map(|key| {
            let (mut below, mut by) = key.fallback(rules);
            if key.name == RETENTION_BYTES {
                // What is really reserved for it, whatever the site file says by now.
                by = if rules.retention_bytes == Some(share) {
                    Source::Site
                } else {
                    Source::Default
                };
                below = share.to_string();
            }
            let own = set(configs, key.name).map(str::to_owned);
            let mut synonyms = Vec::with_capacity(2);
            if let Some(own) = &own {
                synonyms.push((key.name, own.clone(), Source::Topic));
            }
            // A named quota has no share behind it.
            if own.is_none() || share > 0 || key.name != RETENTION_BYTES {
                synonyms.push((key.broker, below.clone(), by));
            }
            let (value, source) = own.map_or((below, by), |own| (own, Source::Topic));
            Config {
                name: key.name,
                value,
                source,
                kind: key.kind(),
                synonyms,
            }
        })
        .collect()
}

/// The broker's configs that are defaults of its topics.
pub(super) fn of_broker(rules: &Rules) -> Vec<Config> {
    KEYS.iter()
        .map(|key| {
            let (value, source) = key.fallback(rules);
            let synonyms = vec![(key.broker, value.clone(), source)];
            Config {
                name: key.broker,
                value,
                source,
                kind: key.kind(),
                synonyms,
            }
        })
        .collect()
}

/// What a topic's configs mean to its partitions.
pub(super) fn settings(topic: &TopicRow, rules: &Rules) -> TopicSettings {
    let text = |name: &str| {
        let key = Key::find(name).expect("one of ours");
        set(&topic.configs, name).map_or_else(|| key.fallback(rules).0, str::to_owned)
    };
    let number = |name: &str| {
        let default = || {
            Key::find(name)
                .and_then(|key| key.fallback(rules).0.parse().ok())
                .unwrap_or(-1)
        };
        text(name).parse::<i64>().unwrap_or_else(|_| default())
    };
    let replicas = topic
        .partitions
        .iter()
        .map(|partition| partition.replicas.len())
        .min()
        .unwrap_or(1);
    let min_insync = number(MIN_INSYNC).clamp(1, i64::try_from(replicas.max(1)).unwrap_or(1));
    let policy = text("cleanup.policy");
    TopicSettings {
        partition: partition::Settings {
            min_insync: u8::try_from(min_insync).unwrap_or(u8::MAX),
            batch_bytes_max: message_bytes(&topic.configs, rules),
            refuse_when_full: text("howdah.on.full") == "refuse",
        },
        delete: list(&policy).any(|word| word == "delete"),
        compact: list(&policy).any(|word| word == "compact"),
        log_append_time: text("message.timestamp.type") == "LogAppendTime",
        timestamp_before_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_ms: number("message.timestamp.after.max.ms"),
        quota_bytes: named_quota(&topic.configs).unwrap_or(topic.share),
        retention_ms: number("retention.ms"),
        segment_ms: number("segment.ms"),
        delete_retention_ms: number("delete.retention.ms"),
        min_compaction_lag_ms: number("min.compaction.lag.ms"),
        max_compaction_lag_ms: number("max.compaction.lag.ms"),
        min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::KEYS;

    #[test]
    fn keys_are_found_by_binary_search() {
        assert!(KEYS.is_sorted_by(|a, b| a.name < b.name));
    }
}
