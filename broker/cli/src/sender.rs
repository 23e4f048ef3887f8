//! Sends batches to the leaders of one topic's partitions, and tries again until each is stored once.

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use bytes::Bytes;
use clap::ValueEnum;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use model::record::{Builder, Producer};
use wire::ErrorCode;

use crate::batch::{RecordHeader, pairs};
use crate::cluster::{Cluster, Topic, topic_name};
use crate::codec::CodecName;
use crate::failure::Failure;
use crate::table::said;

/// Produce 11 is the last without transactions of their second kind and topic ids.
pub(crate) const PRODUCE_MOST: i16 = 11;
/// A batch that was stored before: the answer to a second try.
const DUPLICATE: i16 = 46;

/// Who must have a batch before it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acks {
    /// Every replica in sync; each record is stored once, also when a try is repeated
    #[default]
    All,
    /// The leader; a repeated try may store records twice
    #[value(name = "1")]
    Leader,
    /// Nobody: what gets lost is not heard of
    #[value(name = "0")]
    None,
}

impl Acks {
    /// As the request has it.
    pub(crate) const fn wire(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// How records go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) acks: Acks,
    pub(crate) codec: CodecName,
    /// A batch is sent when it has as many, before packing.
    pub(crate) batch_bytes: usize,
}

/// See the module.
pub(crate) struct Sender {
    cluster: Cluster,
    topic: Topic,
    settings: Settings,
    /// Id and epoch, for acks=all.
    producer: Option<(i64, i16)>,
    /// The next sequence number by partition index.
    sequences: BTreeMap<i32, i32>,
    open: BTreeMap<i32, Builder>,
    /// Where records without a key go until the batch is sent.
    sticky: usize,
    /// Records stored.
    pub(crate) stored: u64,
}

/// A batch on its way.
struct Sent {
    partition: i32,
    batch: Bytes,
    count: i32,
}

impl Sender {
    /// Looks up the topic, which the broker may make, and who we are.
    pub(crate) fn open(
        mut cluster: Cluster,
        topic: &str,
        settings: Settings,
    ) -> Result<Self, Failure> {
        let topic = cluster.topic(topic, true)?;
        if topic.partitions.is_empty() {
            return Err(Failure::Fault(format!(
                "topic \"{}\" has no partitions",
                topic.name
            )));
        }
        let producer = if settings.acks == Acks::All {
            init_producer(&mut cluster)?
        } else {
            None
        };
        // Many short runs should not all begin at the same partition.
        let sticky = usize::try_from(std::process::id()).unwrap_or_default();
        let (sequences, open) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            cluster,
            topic,
            settings,
            producer,
            sequences,
            open,
            sticky,
            stored: 0,
        })
    }

    /// How many partitions the topic has.
    pub(crate) fn partitions(&self) -> usize {
        self.topic.partitions.len()
    }

    /// Adds a record; sends what is full. `partition` was chosen by the user, else the key does, else nobody.
    pub(crate) fn push(
        &mut self,
        partition: Option<i32>,
        time_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> Result<(), Failure> {
        let count = self.topic.partitions.len();
        let chosen = match (partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => self.topic.partitions[by_key(key, count)].index,
            (None, None) => self.topic.partitions[self.sticky % count].index,
        };
        let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let full = |builder: &Builder| {
            builder.count() > 0 && builder.bytes() + size > self.settings.batch_bytes
        };
        if self.open.get(&chosen).is_some_and(full) {
            self.flush()?;
        }
        self.open
            .entry(chosen)
            .or_default()
            .push(time_ms, key, value, pairs(headers));
        Ok(())
    }

    /// Sends what there is and waits until it is stored.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let mut pending = Vec::new();
        self.sticky += usize::from(!self.open.is_empty());
        for (partition, builder) in mem::take(&mut self.open) {
            let count = builder.count();
            let sequence = self.sequences.entry(partition).or_insert(0);
            let producer = self
                .producer
                .map_or(Producer::NONE, |(id, epoch)| Producer {
                    id,
                    epoch,
                    sequence: *sequence,
                });
            // Sequence numbers wrap to 0 behind i32::MAX.
            *sequence =
                i32::try_from((i64::from(*sequence) + i64::from(count)) & i64::from(i32::MAX))
                    .expect("masked");
            let batch = builder.finish(self.settings.codec.into(), producer);
            let batch =
                batch.map_err(|error| Failure::Fault(format!("packing a batch: {error}")))?;
            pending.push(Sent {
                partition,
                batch: Bytes::from(batch),
                count,
            });
        }
        let deadline = Instant::now() + self.cluster.reach().patience();
        while !pending.is_empty() {
            let (rest, failure) = self.round(pending)?;
            pending = rest;
            let Some(failure) = failure else {
                continue;
            };
            if Instant::now() > deadline {
                return Err(failure);
            }
            // Who leads may have changed.
            std::thread::sleep(std::time::Duration::from_millis(100));
            if let Ok(topic) = self.cluster.topic(&self.topic.name.clone(), false) {
                self.topic = topic;
            }
        }
        Ok(())
    }

    /// Sends every batch once. What has to be sent again comes back, with the last reason.
    fn round(&mut self, batches: Vec<Sent>) -> Result<(Vec<Sent>, Option<Failure>), Failure> {
        let mut by_leader: BTreeMap<i32, Vec<Sent>> = BTreeMap::new();
        for sent in batches {
            let partition = self
                .topic
                .partitions
                .iter()
                .find(|partition| partition.index == sent.partition);
            let Some(partition) = partition else {
                return Err(Failure::Usage(format!(
                    "topic \"{}\" has no partition {}",
                    self.topic.name, sent.partition
                )));
            };
            by_leader.entry(partition.leader).or_default().push(sent);
        }
        let (mut again, mut last) = (Vec::new(), None);
        for (leader, batches) in by_leader {
            match self.send(leader, &batches) {
                Ok(answers) => {
                    for sent in batches {
                        let answer = answers.get(&sent.partition);
                        match answer.map_or_else(
                            || Err(self.left_out(&sent)),
                            |answer| self.judge(&sent, answer),
                        ) {
                            Ok(()) => self.stored += u64::try_from(sent.count).unwrap_or_default(),
                            Err(failure) if failure.retriable() => {
                                last = Some(failure);
                                again.push(sent);
                            }
                            Err(failure) => return Err(failure),
                        }
                    }
                }
                Err(failure) if failure.retriable() => {
                    last = Some(failure);
                    again.extend(batches);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok((again, last))
    }

    /// One request to one leader; error code and message by partition.
    fn send(
        &mut self,
        leader: i32,
        batches: &[Sent],
    ) -> Result<BTreeMap<i32, (i16, Option<String>)>, Failure> {
        if leader < 0 {
            let code = ErrorCode::LeaderNotAvailable as i16;
            return Err(Failure::Kafka {
                what: format!("topic \"{}\"", self.topic.name),
                code,
                message: None,
            });
        }
        let data = batches.iter().map(|sent| {
            PartitionProduceData::default()
                .with_index(sent.partition)
                .with_records(Some(sent.batch.clone()))
        });
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.topic.name))
            .with_partition_data(data.collect());
        let timeout_ms =
            i32::try_from(self.cluster.reach().patience().as_millis()).unwrap_or(i32::MAX);
        let request = ProduceRequest::default()
            .with_acks(self.settings.acks.wire())
            .with_timeout_ms(timeout_ms)
            .with_topic_data(vec![topic]);
        if self.settings.acks == Acks::None {
            self.cluster
                .send_unanswered(leader, &request, PRODUCE_MOST)?;
            return Ok(batches
                .iter()
                .map(|sent| (sent.partition, (0, None)))
                .collect());
        }
        let answer = self.cluster.call(leader, &request, PRODUCE_MOST)?;
        let partitions = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partition_responses);
        Ok(partitions
            .map(|p| {
                let record = p
                    .record_errors
                    .iter()
                    .find_map(|e| e.batch_index_error_message.as_ref());
                (
                    p.index,
                    (
                        p.error_code,
                        record.or(p.error_message.as_ref()).map(ToString::to_string),
                    ),
                )
            })
            .collect())
    }

    fn judge(&self, sent: &Sent, (code, message): &(i16, Option<String>)) -> Result<(), Failure> {
        if *code == DUPLICATE {
            return Ok(());
        }
        let what = || {
            format!(
                "producing to topic \"{}\" partition {}",
                self.topic.name, sent.partition
            )
        };
        Failure::check(what, *code, message.as_deref())
    }

    fn left_out(&self, sent: &Sent) -> Failure {
        Failure::Fault(format!(
            "the answer left out topic \"{}\" partition {}",
            self.topic.name, sent.partition
        ))
    }
}

/// An id of our own, so that a second try is known as one; none where the broker has none to give.
fn init_producer(cluster: &mut Cluster) -> Result<Option<(i64, i16)>, Failure> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let answer = cluster.retry(|cluster| {
        let answer = cluster.call_any(&request, 4)?;
        Failure::check(|| "a producer id".to_owned(), answer.error_code, None)?;
        Ok(answer)
    });
    match answer {
        Ok(answer) => Ok(Some((answer.producer_id.0, answer.producer_epoch))),
        Err(Failure::Fault(why)) => {
            said(&format!(
                "no idempotence ({why}): a repeated try may store records twice"
            ));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// The partition that Java's producer chooses for a key.
pub(crate) fn by_key(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions
}

/// murmur2 with Kafka's seed (org.apache.kafka.common.utils.Utils).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ (data.len() as u32);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_javas_producer_sends_them() {
        // From Kafka's own UtilsTest.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }
}
