//! A cluster as a client sees it: who leads what, a connection to each broker, and trying again.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::connect::Reach;
use crate::connection::Connection;
use crate::failure::Failure;

/// Pause before the second try; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Metadata 12 is the last before brokers may ask clients to bootstrap anew.
const METADATA_MOST: i16 = 12;

/// A topic name as messages carry it.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A text as messages carry it.
pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A partition's leader and replicas.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    /// −1 while there is none.
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
}

/// A topic as Metadata shows it.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) internal: bool,
    pub(crate) id: String,
    /// By index.
    pub(crate) partitions: Vec<Partition>,
}

/// See the module.
pub(crate) struct Cluster {
    reach: Reach,
    bootstrap: Vec<String>,
    brokers: BTreeMap<i32, String>,
    controller: i32,
    connections: BTreeMap<String, Connection>,
}

impl Cluster {
    /// Asks the first of the bootstrap brokers that answers for the others. Not tried again: whoever types a wrong
    /// address should know at once.
    pub(crate) fn open(reach: &Reach) -> Result<Self, Failure> {
        let mut cluster = Self {
            reach: reach.clone(),
            bootstrap: reach.addresses()?,
            brokers: BTreeMap::new(),
            controller: -1,
            connections: BTreeMap::new(),
        };
        cluster.metadata_once(Some(&[]), false)?;
        Ok(cluster)
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Brokers by id, HOST:PORT each.
    pub(crate) fn brokers(&self) -> &BTreeMap<i32, String> {
        &self.brokers
    }

    /// Does `attempt` until it succeeds, fails for good, or patience ends.
    pub(crate) fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.reach.patience();
        let mut pause = PAUSE;
        loop {
            match attempt(self) {
                Err(failure) if failure.retriable() && Instant::now() + pause < deadline => {
                    if let Failure::Unreachable { address, .. } = &failure {
                        self.connections.remove(address);
                    }
                    sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                    // Who leads may have changed; if nobody answers now, the next attempt says so.
                    let _ = self.metadata_once(Some(&[]), false);
                }
                result => return result,
            }
        }
    }

    fn connection(&mut self, address: &str) -> Result<&mut Connection, Failure> {
        if !self.connections.contains_key(address) {
            let connection = Connection::open(&self.reach, address, self.reach.patience())?;
            self.connections.insert(address.to_owned(), connection);
        }
        Ok(self.connections.get_mut(address).expect("put there above"))
    }

    /// Calls one address; a connection that broke is not used again.
    fn call_address<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        most: i16,
    ) -> Result<R::Response, Failure> {
        let answer = self.connection(address)?.call(request, most);
        if answer.is_err() {
            self.connections.remove(address);
        }
        answer
    }

    /// Calls whichever broker answers: one known, else a bootstrap one.
    pub(crate) fn call_any<R: Request>(
        &mut self,
        request: &R,
        most: i16,
    ) -> Result<R::Response, Failure> {
        let mut addresses: Vec<String> = self.connections.keys().cloned().collect();
        for address in self.brokers.values().chain(&self.bootstrap) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let mut last = None;
        for address in addresses {
            match self.call_address(&address, request, most) {
                Err(failure @ Failure::Unreachable { .. }) => last = Some(failure),
                answer => return answer,
            }
        }
        Err(last.expect("there is a bootstrap address"))
    }

    /// Calls the broker of this id.
    pub(crate) fn call<R: Request>(
        &mut self,
        broker: i32,
        request: &R,
        most: i16,
    ) -> Result<R::Response, Failure> {
        let address = self.address(broker)?;
        self.call_address(&address, request, most)
    }

    /// Where a broker is.
    pub(crate) fn address(&self, broker: i32) -> Result<String, Failure> {
        let unknown = || Failure::Fault(format!("no broker has the id {broker}"));
        self.brokers.get(&broker).cloned().ok_or_else(unknown)
    }

    /// A connection of its own to a broker, for requests in flight together.
    pub(crate) fn own_connection(
        &self,
        broker: i32,
        patience: Duration,
    ) -> Result<Connection, Failure> {
        Connection::open(&self.reach, &self.address(broker)?, patience)
    }

    /// Sends a request that nobody answers: a produce with acks=0.
    pub(crate) fn send_unanswered<R: Request>(
        &mut self,
        broker: i32,
        request: &R,
        most: i16,
    ) -> Result<(), Failure> {
        let address = self.address(broker)?;
        let connection = self.connection(&address)?;
        let version = connection.version::<R>(most)?;
        let sent = connection.send_as(request, version);
        connection.forget_last();
        if sent.is_err() {
            self.connections.remove(&address);
        }
        sent
    }

    /// Calls the controller: the broker that creates topics.
    pub(crate) fn call_controller<R: Request>(
        &mut self,
        request: &R,
        most: i16,
    ) -> Result<R::Response, Failure> {
        if self.brokers.contains_key(&self.controller) {
            self.call(self.controller, request, most)
        } else {
            self.call_any(request, most)
        }
    }

    /// Topics by name; all of them for `None`. Brokers and controller are remembered.
    fn metadata_once(
        &mut self,
        names: Option<&[&str]>,
        create: bool,
    ) -> Result<Vec<MetadataResponseTopic>, Failure> {
        let topics = names.map(|names| {
            names
                .iter()
                .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
                .collect()
        });
        let request = MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(create);
        let answer = self.call_any(&request, METADATA_MOST)?;
        Failure::check(|| "Metadata".to_owned(), answer.error_code, None)?;
        self.brokers = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id.0, host_port(&broker.host, broker.port)))
            .collect();
        self.controller = answer.controller_id.0;
        Ok(answer.topics)
    }

    /// Every topic, in the order of their names.
    pub(crate) fn topics(&mut self) -> Result<Vec<Topic>, Failure> {
        let topics = self.retry(|cluster| cluster.metadata_once(None, false))?;
        let mut topics = topics
            .into_iter()
            .map(read_topic)
            .collect::<Result<Vec<_>, _>>()?;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic. With `create` the broker may make it; then, or if it has no leaders yet, it is asked again.
    pub(crate) fn topic(&mut self, name: &str, create: bool) -> Result<Topic, Failure> {
        self.retry(|cluster| {
            let topics = cluster.metadata_once(Some(&[name]), create)?;
            let topic = topics
                .into_iter()
                .next()
                .ok_or_else(|| Failure::Fault(format!("Metadata left out topic \"{name}\"")))?;
            // Retriable for who waits until it is made; to everyone else it is an answer.
            if topic.error_code == UNKNOWN_TOPIC && !create {
                return Err(Failure::Fault(format!(
                    "topic \"{name}\": UNKNOWN_TOPIC_OR_PARTITION: there is no such topic"
                )));
            }
            read_topic(topic)
        })
    }

    /// The broker that coordinates a group.
    pub(crate) fn coordinator(&mut self, group: &str) -> Result<i32, Failure> {
        self.retry(|cluster| {
            let request = |version: i16| {
                let request = FindCoordinatorRequest::default();
                if version >= 4 {
                    request.with_coordinator_keys(vec![text(group)])
                } else {
                    request.with_key(text(group))
                }
            };
            // From version 4 on it asks for a list.
            let answer = match cluster.call_any(&request(4), 4) {
                Err(Failure::Fault(_)) => cluster.call_any(&request(3), 3)?,
                answer => answer?,
            };
            let found = answer.coordinators.into_iter().next().unwrap_or_else(|| {
                Coordinator::default()
                    .with_error_code(answer.error_code)
                    .with_error_message(answer.error_message)
                    .with_node_id(answer.node_id)
                    .with_host(answer.host)
                    .with_port(answer.port)
            });
            let what = || format!("coordinator of group \"{group}\"");
            Failure::check(what, found.error_code, found.error_message.as_deref())?;
            cluster
                .brokers
                .entry(found.node_id.0)
                .or_insert_with(|| host_port(&found.host, found.port));
            Ok(found.node_id.0)
        })
    }
}

const UNKNOWN_TOPIC: i16 = 3;

fn host_port(host: &str, port: i32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn read_topic(topic: MetadataResponseTopic) -> Result<Topic, Failure> {
    let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
    Failure::check(|| format!("topic \"{name}\""), topic.error_code, None)?;
    let mut partitions: Vec<Partition> = topic
        .partitions
        .into_iter()
        .map(|partition| Partition {
            index: partition.partition_index,
            leader: partition.leader_id.0,
            epoch: partition.leader_epoch,
            replicas: partition.replica_nodes.iter().map(|id| id.0).collect(),
            isr: partition.isr_nodes.iter().map(|id| id.0).collect(),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    Ok(Topic {
        name,
        internal: topic.is_internal,
        id: topic.topic_id.to_string(),
        partitions,
    })
}
