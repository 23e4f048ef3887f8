//! Configs read and altered. Topics have real ones; a broker's are what its site file and its build say, for tools that
//! look before they write.

use std::rc::Rc;
use std::time::Duration;

use node::catalog::{Alter, Config, ConfigKind, Fault, Source};
use tokio::task::spawn_local;
use wire::messages as m;
use wire::messages::describe_configs_request::DescribeConfigsResource;
use wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use wire::messages::{alter_configs_response, incremental_alter_configs_response};
use wire::{ErrorCode, Response, StrBytes};

use super::Reply;
use super::errors::{broker_id, catalog_fault};
use crate::context::Context;
use crate::core::Core;
use crate::core::admin::ChangeFault;

/// Resource types of Kafka's ConfigResource.
mod resource {
    pub(super) const TOPIC: i8 = 2;
    pub(super) const BROKER: i8 = 4;
    pub(super) const BROKER_LOGGER: i8 = 8;
    pub(super) const CLIENT_METRICS: i8 = 16;
    pub(super) const GROUP: i8 = 32;
}

/// Operations of IncrementalAlterConfigs (KIP-339).
mod operation {
    pub(super) const SET: i8 = 0;
    pub(super) const DELETE: i8 = 1;
    pub(super) const APPEND: i8 = 2;
    pub(super) const SUBTRACT: i8 = 3;
}

/// Neither request carries a time-out; Kafka's clients wait 30 s for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What kafbat-ui and others take for the broker's release; it goes with the API versions that are offered.
const RELEASE: &str = "3.9";

/// Kafka's number of who set a config.
pub(super) const fn source_of(config: &Config) -> i8 {
    source(config.source)
}

const fn source(source: Source) -> i8 {
    match source {
        Source::Topic => 1,
        Source::Site => 4,
        Source::Default => 5,
    }
}

const fn kind(kind: ConfigKind) -> i8 {
    match kind {
        ConfigKind::Boolean => 1,
        ConfigKind::String => 2,
        ConfigKind::Int => 3,
        ConfigKind::Long => 5,
        ConfigKind::Double => 6,
        ConfigKind::List => 7,
    }
}

pub(super) fn describe(core: &Rc<Core>, request: m::DescribeConfigsRequest, reply: Reply) {
    let synonyms = request.include_synonyms;
    let results = request
        .resources
        .into_iter()
        .map(|asked| {
            let answer = DescribeConfigsResult::default()
                .with_resource_type(asked.resource_type)
                .with_resource_name(asked.resource_name.clone());
            match described(core, &asked) {
                Ok((configs, read_only)) => {
                    let wanted = |config: &Config| {
                        let keys = asked.configuration_keys.as_ref();
                        keys.is_none_or(|keys| keys.iter().any(|key| &**key == config.name))
                    };
                    let configs = configs.into_iter().filter(wanted);
                    answer.with_configs(
                        configs
                            .map(|config| said(config, read_only, synonyms))
                            .collect(),
                    )
                }
                Err((error, message)) => answer
                    .with_error_code(error.code())
                    .with_error_message(Some(StrBytes::from_string(message))),
            }
        })
        .collect();
    reply.send(Response::DescribeConfigs(
        m::DescribeConfigsResponse::default().with_results(results),
    ));
}

/// The configs of a resource, and whether clients can't alter them.
fn described(
    core: &Core,
    asked: &DescribeConfigsResource,
) -> Result<(Vec<Config>, bool), (ErrorCode, String)> {
    let name = &*asked.resource_name;
    match asked.resource_type {
        resource::TOPIC => match core.topic_configs(name) {
            Some(configs) => Ok((configs, node::catalog::is_internal(name))),
            None => match node::catalog::topic_name_fault(name) {
                Some(fault) => Err((ErrorCode::InvalidTopicException, fault)),
                None => Err((
                    ErrorCode::UnknownTopicOrPartition,
                    Fault::UnknownTopic.to_string(),
                )),
            },
        },
        // No name stands for the dynamic defaults of all brokers: there are none.
        resource::BROKER if name.is_empty() => Ok((Vec::new(), true)),
        resource::BROKER if name.parse() == Ok(broker_id(core.node_id()).0) => {
            Ok((broker(core), true))
        }
        resource::BROKER => Err((
            ErrorCode::InvalidRequest,
            format!(
                "'{name}' is not the broker that was asked, {}",
                core.node_id().0
            ),
        )),
        // Nothing can be set of these, so nothing is.
        resource::BROKER_LOGGER | resource::CLIENT_METRICS | resource::GROUP => {
            Ok((Vec::new(), true))
        }
        other => Err((
            ErrorCode::InvalidRequest,
            format!("no resource has type {other}"),
        )),
    }
}

/// What the broker says of itself, by name.
fn broker(core: &Core) -> Vec<Config> {
    let defaults = &core.site().defaults;
    let own = |name: &'static str, value: String, source: Source, kind: ConfigKind| Config {
        name,
        synonyms: vec![(name, value.clone(), source)],
        value,
        source,
        kind,
    };
    let mut configs = core.broker_configs();
    configs.extend([
        own(
            "auto.create.topics.enable",
            defaults.auto_create.to_string(),
            Source::Site,
            ConfigKind::Boolean,
        ),
        own(
            "broker.id",
            core.node_id().0.to_string(),
            Source::Site,
            ConfigKind::Int,
        ),
        own(
            "default.replication.factor",
            defaults.replication.to_string(),
            Source::Site,
            ConfigKind::Int,
        ),
        own(
            "delete.topic.enable",
            "true".to_owned(),
            Source::Default,
            ConfigKind::Boolean,
        ),
        own(
            "group.initial.rebalance.delay.ms",
            defaults.join_delay_ms.to_string(),
            Source::Site,
            ConfigKind::Int,
        ),
        own(
            "inter.broker.protocol.version",
            RELEASE.to_owned(),
            Source::Default,
            ConfigKind::String,
        ),
        own(
            "node.id",
            core.node_id().0.to_string(),
            Source::Site,
            ConfigKind::Int,
        ),
        own(
            "num.partitions",
            defaults.partitions.to_string(),
            Source::Site,
            ConfigKind::Int,
        ),
        own(
            "offsets.topic.num.partitions",
            node::coordinator::GROUP_PARTITIONS.to_string(),
            Source::Default,
            ConfigKind::Int,
        ),
    ]);
    configs.sort_by_key(|config| config.name);
    configs
}

fn said(config: Config, read_only: bool, synonyms: bool) -> DescribeConfigsResourceResult {
    let number = source_of(&config);
    let synonyms = config
        .synonyms
        .into_iter()
        .filter(|_| synonyms)
        .map(|(name, value, by)| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value)))
                .with_source(source(by))
        });
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(config.name))
        .with_read_only(read_only)
        .with_config_source(number)
        .with_synonyms(synonyms.collect())
        .with_config_type(kind(config.kind))
        .with_documentation(None)
        .with_value(Some(StrBytes::from_string(config.value)))
}

/// A resource whose configs can be altered: a topic. Says what is wrong with any other.
fn topic_only(resource_type: i8) -> Result<(), ChangeFault> {
    match resource_type {
        resource::TOPIC => Ok(()),
        resource::BROKER => Err(Fault::InvalidRequest(
            "a broker's configs are those of its site file".into(),
        )
        .into()),
        _ => Err(Fault::InvalidRequest(format!(
            "resources of type {resource_type} have no configs to alter"
        ))
        .into()),
    }
}

fn error(result: Result<(), ChangeFault>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(ChangeFault::Refused(fault)) => (
            catalog_fault(&fault).code(),
            Some(StrBytes::from_string(fault.to_string())),
        ),
        Err(ChangeFault::TimedOut) => (ErrorCode::RequestTimedOut.code(), None),
        Err(ChangeFault::NotController) => (ErrorCode::NotController.code(), None),
    }
}

pub(super) fn alter(
    core: &Rc<Core>,
    context: &Context,
    request: m::AlterConfigsRequest,
    reply: Reply,
) {
    let (core, context) = (core.clone(), context.clone());
    spawn_local(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for asked in request.resources {
            let configs = asked
                .configs
                .iter()
                .map(|config| {
                    (
                        config.name.to_string(),
                        config.value.as_ref().map(ToString::to_string),
                    )
                })
                .collect();
            let name = &asked.resource_name;
            let result = match topic_only(asked.resource_type) {
                Ok(()) => {
                    core.set_topic_configs(&context, name, configs, request.validate_only, PATIENCE)
                        .await
                }
                Err(fault) => Err(fault),
            };
            let (code, message) = error(result);
            responses.push(
                alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_resource_type(asked.resource_type)
                    .with_resource_name(asked.resource_name),
            );
        }
        reply.send(Response::AlterConfigs(
            m::AlterConfigsResponse::default().with_responses(responses),
        ));
    });
}

pub(super) fn alter_incrementally(
    core: &Rc<Core>,
    context: &Context,
    request: m::IncrementalAlterConfigsRequest,
    reply: Reply,
) {
    let (core, context) = (core.clone(), context.clone());
    spawn_local(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for asked in request.resources {
            let name = &asked.resource_name;
            let changes = topic_only(asked.resource_type).and_then(|()| {
                let change = |config: &m::incremental_alter_configs_request::AlterableConfig| {
                    change(
                        config.config_operation,
                        &config.name,
                        config.value.as_deref(),
                    )
                    .map(|change| (config.name.to_string(), change))
                };
                asked
                    .configs
                    .iter()
                    .map(change)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(ChangeFault::Refused)
            });
            let result = match changes {
                Ok(changes) => {
                    core.alter_topic_configs(
                        &context,
                        name,
                        changes,
                        request.validate_only,
                        PATIENCE,
                    )
                    .await
                }
                Err(fault) => Err(fault),
            };
            let (code, message) = error(result);
            responses.push(
                incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_resource_type(asked.resource_type)
                    .with_resource_name(asked.resource_name),
            );
        }
        reply.send(Response::IncrementalAlterConfigs(
            m::IncrementalAlterConfigsResponse::default().with_responses(responses),
        ));
    });
}

fn change(operation: i8, name: &str, value: Option<&str>) -> Result<Alter, Fault> {
    let value = || {
        let value = value.ok_or_else(|| Fault::InvalidConfig(format!("{name} has no value")));
        value.map(str::to_owned)
    };
    match operation {
        operation::SET => value().map(Alter::Set),
        operation::DELETE => Ok(Alter::Delete),
        operation::APPEND => value().map(Alter::Append),
        operation::SUBTRACT => value().map(Alter::Subtract),
        other => Err(Fault::InvalidRequest(format!(
            "{name}: no operation has the number {other}"
        ))),
    }
}
