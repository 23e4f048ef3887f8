//! Fetches records of one topic from the leaders of its partitions.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};
use wire::ErrorCode;

use crate::batch::{Record, first_batch_bytes, read_batches};
use crate::cluster::{Cluster, Topic, topic_name};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::offsets::{EARLIEST, list_offsets};
use crate::table::said;

/// Fetch 12 is the last that names topics; beyond it they have ids.
pub(crate) const FETCH_MOST: i16 = 12;
/// How long a broker waits for records when it has none: short enough for heartbeats between two fetches.
const WAIT_MS: i32 = 500;
/// Records of one partition in one answer.
const PARTITION_BYTES: i32 = 1 << 20;
/// The largest batch that is fetched: twice what any broker takes by default.
const PARTITION_BYTES_MAX: i32 = 64 << 20;
/// All of one answer.
const ANSWER_BYTES: i32 = 32 << 20;

/// Where we are in a partition.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: i64,
    bytes: i32,
}

/// Records of one partition, in order.
pub(crate) struct Fetched {
    pub(crate) partition: i32,
    pub(crate) records: std::vec::IntoIter<Record>,
}

/// See the module.
pub(crate) struct Fetcher {
    topic: Topic,
    cursors: BTreeMap<i32, Cursor>,
    connections: BTreeMap<i32, Connection>,
    /// Since when nothing but errors came.
    failing: Option<Instant>,
}

impl Fetcher {
    /// Begins at these offsets, by partition.
    pub(crate) fn new(topic: Topic, from: impl IntoIterator<Item = (i32, i64)>) -> Self {
        let cursor = |(partition, next)| {
            (
                partition,
                Cursor {
                    next,
                    bytes: PARTITION_BYTES,
                },
            )
        };
        let cursors = from.into_iter().map(cursor).collect();
        Self {
            topic,
            cursors,
            connections: BTreeMap::new(),
            failing: None,
        }
    }

    /// The offset of the next record, by partition.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        self.cursors
            .iter()
            .map(|(partition, cursor)| (*partition, cursor.next))
    }

    /// One request to each leader at once. Nothing new within half a second gives an empty list; an error that may pass
    /// does too, until patience ends.
    pub(crate) fn poll(&mut self, cluster: &mut Cluster) -> Result<Vec<Fetched>, Failure> {
        match self.poll_once(cluster) {
            Ok(fetched) => {
                self.failing = None;
                Ok(fetched)
            }
            Err(failure) if failure.retriable() => {
                let since = *self.failing.get_or_insert_with(Instant::now);
                if since.elapsed() > cluster.reach().patience() {
                    return Err(failure);
                }
                self.connections.clear();
                std::thread::sleep(Duration::from_millis(100));
                if let Ok(topic) = cluster.topic(&self.topic.name.clone(), false) {
                    self.topic = topic;
                }
                Ok(Vec::new())
            }
            Err(failure) => Err(failure),
        }
    }

    fn poll_once(&mut self, cluster: &mut Cluster) -> Result<Vec<Fetched>, Failure> {
        let mut by_leader: BTreeMap<i32, Vec<FetchPartition>> = BTreeMap::new();
        for (index, cursor) in &self.cursors {
            let leader = self
                .topic
                .partitions
                .iter()
                .find(|p| p.index == *index)
                .map_or(-1, |p| p.leader);
            let asked = FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(cursor.next)
                .with_partition_max_bytes(cursor.bytes);
            by_leader.entry(leader).or_default().push(asked);
        }
        if by_leader.contains_key(&-1) {
            let code = ErrorCode::LeaderNotAvailable as i16;
            return Err(Failure::Kafka {
                what: format!("topic \"{}\"", self.topic.name),
                code,
                message: None,
            });
        }
        let leaders: Vec<i32> = by_leader.keys().copied().collect();
        for (leader, partitions) in by_leader {
            let topic = FetchTopic::default()
                .with_topic(topic_name(&self.topic.name))
                .with_partitions(partitions);
            let request = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(WAIT_MS)
                .with_min_bytes(1)
                .with_max_bytes(ANSWER_BYTES)
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            let connection = match self.connections.entry(leader) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(room) => {
                    room.insert(cluster.own_connection(leader, cluster.reach().patience())?)
                }
            };
            let version = connection.version::<FetchRequest>(FETCH_MOST)?;
            connection.send_as(&request, version)?;
        }
        let mut fetched = Vec::new();
        for leader in leaders {
            let connection = self.connections.get_mut(&leader).expect("asked above");
            let answer = connection.receive::<FetchRequest>()?;
            Failure::check(
                || format!("fetching from {}", connection.address()),
                answer.error_code,
                None,
            )?;
            for partition in answer
                .responses
                .into_iter()
                .flat_map(|topic| topic.partitions)
            {
                fetched.extend(self.take(cluster, partition)?);
            }
        }
        Ok(fetched)
    }

    fn take(
        &mut self,
        cluster: &mut Cluster,
        data: PartitionData,
    ) -> Result<Option<Fetched>, Failure> {
        let index = data.partition_index;
        let name = &self.topic.name;
        let what = || format!("topic \"{name}\" partition {index}");
        let Some(cursor) = self.cursors.get_mut(&index) else {
            return Err(Failure::Fault(format!(
                "{}: answered, but not asked for",
                what()
            )));
        };
        if data.error_code == ErrorCode::OffsetOutOfRange as i16 {
            let first = list_offsets(cluster, name, EARLIEST)?;
            let first = first
                .iter()
                .find(|(partition, _)| *partition == index)
                .and_then(|(_, first)| *first);
            return match first.filter(|first| *first > cursor.next) {
                Some(first) => {
                    said(&format!(
                        "{}: the records from {} to {} are gone by retention",
                        what(),
                        cursor.next,
                        first - 1
                    ));
                    cursor.next = first;
                    Ok(None)
                }
                None => Err(Failure::Kafka {
                    what: format!("{} offset {}", what(), cursor.next),
                    code: data.error_code,
                    message: None,
                }),
            };
        }
        Failure::check(|| format!("fetching {}", what()), data.error_code, None)?;
        let bytes = data.records.unwrap_or_default();
        let mut records = Vec::new();
        let next = read_batches(&bytes, cursor.next, &mut records);
        let next = next
            .map_err(|why| Failure::Fault(format!("{} offset {}: {why}", what(), cursor.next)))?;
        if next == cursor.next && !bytes.is_empty() {
            // Not one whole batch: older brokers cut it at what was asked for.
            let whole = first_batch_bytes(&bytes).and_then(|bytes| i32::try_from(bytes).ok());
            match whole.filter(|whole| *whole > cursor.bytes && *whole <= PARTITION_BYTES_MAX) {
                Some(whole) => cursor.bytes = whole,
                None => {
                    return Err(Failure::Fault(format!(
                        "{} offset {}: not a whole batch",
                        what(),
                        cursor.next
                    )));
                }
            }
        }
        cursor.next = next;
        Ok((!records.is_empty()).then(|| Fetched {
            partition: index,
            records: records.into_iter(),
        }))
    }
}
