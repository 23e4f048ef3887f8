//! `howdah configs`: what topics and brokers are configured to.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use serde_json::Value;

use crate::cluster::{Cluster, text};
use crate::connect::Reach;
use crate::failure::Failure;
use crate::table::{Table, said};

/// `howdah configs`: list, describe, alter, delete.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    howdah configs list                                what differs from the defaults, everywhere\n  \
    howdah configs describe topic telemetry            everything that is set there\n  \
    howdah configs alter topic telemetry retention.ms=86400000\n  \
    howdah configs delete topic telemetry retention.ms back to the default")]
pub struct ConfigsArgs {
    #[command(flatten)]
    reach: Reach,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// What topics set themselves, beside the defaults
    List,
    /// Every config of a topic or a broker, with where its value comes from
    Describe {
        /// Of what
        kind: Kind,
        /// The topic's name, or the broker's id
        name: String,
    },
    /// Set configs, or change lists: NAME=VALUE, NAME+=ITEM, NAME-=ITEM
    #[command(alias = "create")]
    Alter {
        /// Of what
        kind: Kind,
        /// The topic's name, or the broker's id
        name: String,
        /// NAME=VALUE, NAME+=ITEM or NAME-=ITEM
        #[arg(required = true, value_name = "CHANGE")]
        changes: Vec<Change>,
    },
    /// Set configs back to their defaults
    Delete {
        /// Of what
        kind: Kind,
        /// The topic's name, or the broker's id
        name: String,
        /// Configs
        #[arg(required = true, value_name = "NAME")]
        configs: Vec<String>,
    },
}

/// What has configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A topic
    Topic,
    /// A broker
    Broker,
}

impl Kind {
    const fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Broker => "broker",
        }
    }
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("write NAME=VALUE".to_owned()),
        }
    }
}

/// What to do with one config; the numbers are the protocol's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    name: String,
    operation: i8,
    value: Option<String>,
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or("write NAME=VALUE, NAME+=ITEM or NAME-=ITEM")?;
        let (name, operation) = match (name.strip_suffix('+'), name.strip_suffix('-')) {
            (Some(name), _) => (name, APPEND),
            (_, Some(name)) => (name, SUBTRACT),
            _ => (name, SET),
        };
        if name.is_empty() {
            return Err("a config's name is missing before the =".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            operation,
            value: Some(value.to_owned()),
        })
    }
}

/// Plain settings as changes.
pub(crate) fn sets(settings: &[Setting]) -> Vec<Change> {
    let set = |setting: &Setting| Change {
        name: setting.name.clone(),
        operation: SET,
        value: Some(setting.value.clone()),
    };
    settings.iter().map(set).collect()
}

pub(crate) fn run(args: &ConfigsArgs) -> Result<(), Failure> {
    let mut cluster = Cluster::open(&args.reach)?;
    match &args.verb {
        Verb::List => list(&mut cluster, args.json),
        Verb::Describe { kind, name } => show(&mut cluster, *kind, name, args.json),
        Verb::Alter {
            kind,
            name,
            changes,
        } => alter(&mut cluster, *kind, name, changes),
        Verb::Delete {
            kind,
            name,
            configs,
        } => {
            let back = |config: &String| Change {
                name: config.clone(),
                operation: DELETE,
                value: None,
            };
            let changes: Vec<Change> = configs.iter().map(back).collect();
            alter(&mut cluster, *kind, name, &changes)
        }
    }
}

/// `DYNAMIC_TOPIC_CONFIG`: set on the topic itself.
const SOURCE_TOPIC: i8 = 1;

fn list(cluster: &mut Cluster, json: bool) -> Result<(), Failure> {
    let mut table = Table::new(&["kind", "name", "config", "value"]);
    for topic in cluster.topics()? {
        let configs = describe(cluster, Kind::Topic, &topic.name)?;
        for config in configs
            .iter()
            .filter(|config| config.config_source == SOURCE_TOPIC)
        {
            table.row([
                "topic".into(),
                topic.name.as_str().into(),
                config.name.as_str().into(),
                value_of(config),
            ]);
        }
    }
    table.print(json)
}

fn show(cluster: &mut Cluster, kind: Kind, name: &str, json: bool) -> Result<(), Failure> {
    let mut table = Table::new(&["config", "value", "from", "read only"]);
    for config in describe(cluster, kind, name)? {
        let from = match config.config_source {
            SOURCE_TOPIC => "topic",
            2 => "broker",
            3 => "all brokers",
            4 => "site file",
            5 => "default",
            _ => "unknown",
        };
        let read_only = if json {
            config.read_only.into()
        } else {
            Value::from(if config.read_only { "yes" } else { "" })
        };
        table.row([
            config.name.as_str().into(),
            value_of(&config),
            from.into(),
            read_only,
        ]);
    }
    table.print(json)
}

fn value_of(config: &DescribeConfigsResourceResult) -> Value {
    if config.is_sensitive {
        Value::from("(hidden)")
    } else {
        config.value.as_ref().map(ToString::to_string).into()
    }
}

fn describe(
    cluster: &mut Cluster,
    kind: Kind,
    name: &str,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind.code())
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = cluster.retry(|cluster| call(cluster, kind, name, &request, 4))?;
    let mut configs = Vec::new();
    for result in answer.results {
        let what = || format!("configs of {} \"{name}\"", kind.name());
        Failure::check(what, result.error_code, result.error_message.as_deref())?;
        configs.extend(result.configs);
    }
    configs.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    Ok(configs)
}

/// A broker's configs are known to itself alone.
fn call<R: kafka_protocol::protocol::Request>(
    cluster: &mut Cluster,
    kind: Kind,
    name: &str,
    request: &R,
    most: i16,
) -> Result<R::Response, Failure> {
    match kind {
        Kind::Topic => cluster.call_controller(request, most),
        Kind::Broker => {
            let id = name.parse().map_err(|_| {
                Failure::Usage(format!(
                    "a broker is named by its id, \"{name}\" is no number"
                ))
            })?;
            cluster.call(id, request, most)
        }
    }
}

pub(crate) fn alter(
    cluster: &mut Cluster,
    kind: Kind,
    name: &str,
    changes: &[Change],
) -> Result<(), Failure> {
    let configs = changes.iter().map(|change| {
        AlterableConfig::default()
            .with_name(text(&change.name))
            .with_config_operation(change.operation)
            .with_value(change.value.as_deref().map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind.code())
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = call(cluster, kind, name, &request, 1)?;
    for result in &answer.responses {
        let what = || format!("configs of {} \"{name}\"", kind.name());
        Failure::check(what, result.error_code, result.error_message.as_deref())?;
    }
    said(&format!(
        "changed {} of {} \"{name}\"",
        changes
            .iter()
            .map(|c| c.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        kind.name()
    ));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_by_their_sign() {
        let change = |text: &str| {
            text.parse::<Change>()
                .map(|c| (c.name, c.operation, c.value.unwrap()))
        };
        assert_eq!(
            change("retention.ms=1=2"),
            Ok(("retention.ms".into(), SET, "1=2".into()))
        );
        assert_eq!(
            change("cleanup.policy+=compact"),
            Ok(("cleanup.policy".into(), APPEND, "compact".into()))
        );
        assert_eq!(
            change("cleanup.policy-=compact"),
            Ok(("cleanup.policy".into(), SUBTRACT, "compact".into()))
        );
        assert!(change("retention.ms").is_err());
        assert!(change("=5").is_err());
        assert!(change("+=5").is_err());
    }
}
