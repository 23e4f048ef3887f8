//! `howdah topics`.

use clap::{Args, Subcommand};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};
use serde_json::Value;

use crate::cluster::{Cluster, text, topic_name};
use crate::configs::{self, Setting};
use crate::connect::Reach;
use crate::failure::Failure;
use crate::offsets::{EARLIEST, LATEST, list_offsets};
use crate::table::{Table, said};

/// `howdah topics`: list, describe, create, alter, delete.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    howdah topics create telemetry --partitions 16 --config retention.ms=604800000\n  \
    howdah topics describe telemetry\n  \
    howdah topics alter telemetry --partitions 32\n  \
    howdah topics list --json --bootstrap 192.0.2.11:9092")]
pub struct TopicsArgs {
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
    /// Every topic with its partitions, replicas and records
    List {
        /// Also those that belong to the broker itself
        #[arg(long)]
        internal: bool,
    },
    /// One line a partition: leader, replicas, first and next offset
    Describe {
        /// Topics
        #[arg(required = true)]
        topics: Vec<String>,
    },
    /// Make a topic; what is not said is the broker's default
    Create {
        /// Its name
        topic: String,
        /// How many partitions
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// Replicas of each
        #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
        replication: Option<i16>,
        /// A config; may be given more than once
        #[arg(long, value_name = "NAME=VALUE")]
        config: Vec<Setting>,
        /// Succeed if it is there already
        #[arg(long)]
        if_missing: bool,
    },
    /// Add partitions, or change configs
    Alter {
        /// The topic
        topic: String,
        /// How many there shall be; never fewer than there are
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// A config to set; may be given more than once
        #[arg(long, value_name = "NAME=VALUE")]
        config: Vec<Setting>,
    },
    /// Delete topics with all their records
    Delete {
        /// Topics
        #[arg(required = true)]
        topics: Vec<String>,
        /// Succeed if one is not there
        #[arg(long)]
        if_exists: bool,
    },
}

const UNKNOWN_TOPIC: i16 = 3;
const TOPIC_EXISTS: i16 = 36;

pub(crate) fn run(args: &TopicsArgs) -> Result<(), Failure> {
    let mut cluster = Cluster::open(&args.reach)?;
    match &args.verb {
        Verb::List { internal } => list(&mut cluster, *internal, args.json),
        Verb::Describe { topics } => describe(&mut cluster, topics, args.json),
        Verb::Create {
            topic,
            partitions,
            replication,
            config,
            if_missing,
        } => create(
            &mut cluster,
            topic,
            *partitions,
            *replication,
            config,
            *if_missing,
        ),
        Verb::Alter {
            topic,
            partitions,
            config,
        } => alter(&mut cluster, topic, *partitions, config),
        Verb::Delete { topics, if_exists } => topics
            .iter()
            .try_for_each(|topic| delete(&mut cluster, topic, *if_exists)),
    }
}

fn list(cluster: &mut Cluster, internal: bool, json: bool) -> Result<(), Failure> {
    let mut table = Table::new(&["topic", "partitions", "replicas", "records"]);
    for topic in cluster.topics()? {
        if topic.internal && !internal {
            continue;
        }
        let replicas = topic
            .partitions
            .iter()
            .map(|partition| partition.replicas.len())
            .max()
            .unwrap_or_default();
        // Between first and next offset; a compacted topic may hold fewer.
        let bounds = bounds(cluster, &topic.name)?;
        let records = bounds
            .iter()
            .map(|(first, next)| Some(next.as_ref()? - first.as_ref()?))
            .sum::<Option<i64>>();
        table.row([
            topic.name.into(),
            topic.partitions.len().into(),
            replicas.into(),
            records.into(),
        ]);
    }
    table.print(json)
}

/// First and next offset of a partition; `None` where nobody leads.
type Bounds = (Option<i64>, Option<i64>);

/// In the order of the partitions.
fn bounds(cluster: &mut Cluster, topic: &str) -> Result<Vec<Bounds>, Failure> {
    let first = list_offsets(cluster, topic, EARLIEST)?;
    let next = list_offsets(cluster, topic, LATEST)?;
    Ok(first
        .into_iter()
        .zip(next)
        .map(|((_, first), (_, next))| (first, next))
        .collect())
}

fn describe(cluster: &mut Cluster, topics: &[String], json: bool) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "topic",
        "partition",
        "leader",
        "epoch",
        "replicas",
        "in sync",
        "first offset",
        "next offset",
        "topic id",
    ]);
    for name in topics {
        let topic = cluster.topic(name, false)?;
        let bounds = bounds(cluster, name)?;
        for (partition, (first, next)) in topic.partitions.iter().zip(bounds) {
            let ids = |ids: &[i32]| Value::Array(ids.iter().map(|id| (*id).into()).collect());
            let leader = (partition.leader >= 0).then_some(partition.leader);
            table.row([
                name.as_str().into(),
                partition.index.into(),
                leader.into(),
                partition.epoch.into(),
                ids(&partition.replicas),
                ids(&partition.isr),
                first.into(),
                next.into(),
                topic.id.as_str().into(),
            ]);
        }
    }
    table.print(json)
}

pub(crate) fn create(
    cluster: &mut Cluster,
    name: &str,
    partitions: Option<i32>,
    replication: Option<i16>,
    config: &[Setting],
    if_missing: bool,
) -> Result<(), Failure> {
    let configs = config.iter().map(|setting| {
        CreatableTopicConfig::default()
            .with_name(text(&setting.name))
            .with_value(Some(text(&setting.value)))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions.unwrap_or(-1))
        .with_replication_factor(replication.unwrap_or(-1))
        .with_configs(configs.collect());
    let timeout_ms = i32::try_from(cluster.reach().patience().as_millis()).unwrap_or(i32::MAX);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(timeout_ms);
    let mut tries = 0;
    cluster.retry(|cluster| {
        tries += 1;
        let answer = cluster.call_controller(&request, 7)?;
        for topic in &answer.topics {
            if topic.error_code == TOPIC_EXISTS && (if_missing || tries > 1) {
                // On a second try it may be our own first one that made it.
                said(&format!("topic \"{name}\" is there already"));
                return Ok(());
            }
            Failure::check(
                || format!("creating topic \"{name}\""),
                topic.error_code,
                topic.error_message.as_deref(),
            )?;
            said(&format!("created topic \"{name}\""));
        }
        Ok(())
    })
}

fn alter(
    cluster: &mut Cluster,
    name: &str,
    partitions: Option<i32>,
    config: &[Setting],
) -> Result<(), Failure> {
    if partitions.is_none() && config.is_empty() {
        return Err(Failure::Usage(
            "nothing to change; give --partitions or --config NAME=VALUE".to_owned(),
        ));
    }
    if let Some(count) = partitions {
        let timeout_ms = i32::try_from(cluster.reach().patience().as_millis()).unwrap_or(i32::MAX);
        let topic = CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(timeout_ms);
        let answer = cluster.call_controller(&request, 3)?;
        for result in &answer.results {
            let what = || format!("adding partitions to topic \"{name}\"");
            Failure::check(what, result.error_code, result.error_message.as_deref())?;
        }
        said(&format!("topic \"{name}\" has {count} partitions"));
    }
    if !config.is_empty() {
        configs::alter(cluster, configs::Kind::Topic, name, &configs::sets(config))?;
    }
    Ok(())
}

pub(crate) fn delete(cluster: &mut Cluster, name: &str, if_exists: bool) -> Result<(), Failure> {
    let timeout_ms = i32::try_from(cluster.reach().patience().as_millis()).unwrap_or(i32::MAX);
    let state = DeleteTopicState::default().with_name(Some(topic_name(name)));
    // From version 6 on topics are named one by one.
    let new = DeleteTopicsRequest::default()
        .with_topics(vec![state])
        .with_timeout_ms(timeout_ms);
    let old = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(name)])
        .with_timeout_ms(timeout_ms);
    let answer = match cluster.call_controller(&new, 6) {
        Err(Failure::Fault(_)) => cluster.call_controller(&old, 5)?,
        answer => answer?,
    };
    for result in &answer.responses {
        if result.error_code == UNKNOWN_TOPIC && if_exists {
            said(&format!("topic \"{name}\" is not there"));
            continue;
        }
        Failure::check(
            || format!("deleting topic \"{name}\""),
            result.error_code,
            result.error_message.as_deref(),
        )?;
        said(&format!("deleted topic \"{name}\""));
    }
    Ok(())
}
