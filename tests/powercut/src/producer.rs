//! An idempotent producer that never gives up: five batches of a partition under way, sent again in order, with the
//! numbers they had, after whatever happened.
//!
//! It knows only two kinds of bad answer: those after which a client sends again, and those that a broker which lost
//! nothing never gives. The latter are faults of the run.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::ledger::{Partition, Topic, record};
use crate::rng::Rng;
use crate::wire::Connection;

const PRODUCE: i16 = 9;
const INIT_PRODUCER_ID: i16 = 4;
/// Kafka's bound for an idempotent producer.
const UNDER_WAY_MAX: usize = 5;
/// Requests under way on the connection.
const REQUESTS_MAX: usize = 3;
const BATCH_BYTES_MAX: usize = 200_000;

/// Answers after which a client sends again: LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT,
/// NETWORK_EXCEPTION, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_ENOUGH_REPLICAS (and AFTER_APPEND),
/// KAFKA_STORAGE_ERROR, UNKNOWN_TOPIC_OR_PARTITION, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH.
const AGAIN: [i16; 12] = [5, 6, 7, 13, 14, 15, 19, 20, 56, 3, 74, 75];
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;

/// What the run and its producers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Producers hold off while it is set, with no connection.
    pub(crate) paused: AtomicBool,
    /// They end.
    pub(crate) stop: AtomicBool,
    /// Records acknowledged since the run began.
    pub(crate) acknowledged: AtomicU64,
    /// Batches that were sent more than once.
    pub(crate) resent: AtomicU64,
    /// Answers after which was sent again.
    pub(crate) refused: AtomicU64,
    /// Producers that have seen the pause.
    pub(crate) at_rest: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn fault(&self, what: String) {
        self.faults
            .lock()
            .expect("a list is never left half changed")
            .push(what);
    }

    pub(crate) fn take_faults(&self) -> Vec<String> {
        std::mem::take(
            &mut *self
                .faults
                .lock()
                .expect("a list is never left half changed"),
        )
    }
}

/// A partition that producer and auditor look at.
pub(crate) type Book = Arc<Mutex<Partition>>;

pub(crate) fn locked(book: &Book) -> MutexGuard<'_, Partition> {
    book.lock().expect("a ledger is never left half changed")
}

#[derive(Debug)]
struct Batch {
    sequence: i32,
    first: u64,
    count: u64,
    bytes: Bytes,
}

#[derive(Debug)]
struct Lane {
    topic: &'static Topic,
    index: i32,
    book: Book,
    sequence: i32,
    /// Sent or to be sent, oldest first.
    under_way: VecDeque<Batch>,
}

/// One producer and its partitions, which nobody else writes to.
#[derive(Debug)]
pub(crate) struct Producer {
    address: SocketAddr,
    shared: Arc<Shared>,
    rng: Rng,
    id: Option<(i64, i16)>,
    lanes: Vec<Lane>,
    /// Largest number of records in a batch.
    records_max: u64,
    /// Between two requests, at most.
    pause: Duration,
}

/// Requests under way: correlation, and (lane, sequence) of each batch in it.
type UnderWay = VecDeque<(i32, Vec<(usize, i32)>)>;

impl Producer {
    pub(crate) fn new(
        address: SocketAddr,
        shared: Arc<Shared>,
        books: &[Book],
        seed: u64,
        records_max: u64,
        pause: Duration,
    ) -> Self {
        let lane = |book: &Book| {
            let partition = locked(book);
            Lane {
                topic: partition.topic,
                index: partition.index,
                book: book.clone(),
                sequence: 0,
                under_way: VecDeque::new(),
            }
        };
        let lanes = books.iter().map(lane).collect();
        Self {
            address,
            shared,
            rng: Rng::new(seed),
            id: None,
            lanes,
            records_max,
            pause,
        }
    }

    /// Until the run stops it.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.shared.paused.load(Ordering::Acquire) {
                self.shared.at_rest.fetch_add(1, Ordering::AcqRel);
                while self.shared.paused.load(Ordering::Acquire)
                    && !self.shared.stop.load(Ordering::Acquire)
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                self.shared.at_rest.fetch_sub(1, Ordering::AcqRel);
            }
            // A connection ends by the cut, by a refusal, or by the pause: then the next one sends all again.
            let _ = self.connection();
            std::thread::sleep(Duration::from_millis(5 + self.rng.below(30)));
        }
    }

    fn halted(&self) -> bool {
        self.shared.paused.load(Ordering::Acquire) || self.shared.stop.load(Ordering::Acquire)
    }

    fn connection(&mut self) -> io::Result<()> {
        let mut connection = Connection::open(self.address)?;
        if self.id.is_none() {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(60_000);
            let answer: InitProducerIdResponse =
                connection.ask(ApiKey::InitProducerId, INIT_PRODUCER_ID, &request)?;
            if answer.error_code != 0 {
                if !AGAIN.contains(&answer.error_code) {
                    self.shared
                        .fault(format!("InitProducerId got error {}", answer.error_code));
                }
                self.shared.refused.fetch_add(1, Ordering::AcqRel);
                return Ok(());
            }
            self.id = Some((answer.producer_id.0, answer.producer_epoch));
        }
        let mut under_way = UnderWay::new();
        // Partitions with nothing open go along, or one that is refused for long would hold up its neighbours.
        self.make_batches(true);
        // What the last connection left open, in order: the n-th batch of each partition in the n-th request.
        let deepest = self
            .lanes
            .iter()
            .map(|it| it.under_way.len())
            .max()
            .unwrap_or(0);
        for depth in 0..deepest {
            let batches: Vec<(usize, usize)> = (0..self.lanes.len())
                .filter(|lane| depth < self.lanes[*lane].under_way.len())
                .map(|lane| (lane, depth))
                .collect();
            self.shared
                .resent
                .fetch_add(batches.len() as u64, Ordering::AcqRel);
            self.send(&mut connection, &batches, &mut under_way)?;
        }
        // Answers may be fewer than they seem while a refused batch is skipped, so all come first.
        while !under_way.is_empty() {
            if !self.receive(&mut connection, &mut under_way)? {
                return Ok(());
            }
        }
        while !self.halted() {
            let fresh = self.make_batches(false);
            if !fresh.is_empty() {
                self.send(&mut connection, &fresh, &mut under_way)?;
            }
            while under_way.len() >= REQUESTS_MAX || fresh.is_empty() && !under_way.is_empty() {
                if !self.receive(&mut connection, &mut under_way)? {
                    return Ok(());
                }
            }
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause.mul_f64(self.rng.below(100) as f64 / 100.0));
            }
        }
        // A pause in good order leaves nothing open, unless the power is about to go.
        while !under_way.is_empty() {
            if !self.receive(&mut connection, &mut under_way)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// New batches for some partitions: (lane, place in what is under way).
    fn make_batches(&mut self, only_idle: bool) -> Vec<(usize, usize)> {
        let mut made = Vec::new();
        for lane in 0..self.lanes.len() {
            let open = self.lanes[lane].under_way.len();
            if open >= UNDER_WAY_MAX || only_idle && open > 0 || self.rng.percent(40) {
                continue;
            }
            let count = 1 + self.rng.below(self.records_max);
            let (id, epoch) = self.id.expect("asked for before the first batch");
            let batch = self.lanes[lane].batch(id, epoch, count);
            self.lanes[lane].under_way.push_back(batch);
            made.push((lane, self.lanes[lane].under_way.len() - 1));
        }
        made
    }

    fn send(
        &self,
        connection: &mut Connection,
        batches: &[(usize, usize)],
        under_way: &mut UnderWay,
    ) -> io::Result<()> {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        let mut names = Vec::new();
        for (lane, place) in batches {
            let lane_ = &self.lanes[*lane];
            let batch = &lane_.under_way[*place];
            names.push((*lane, batch.sequence));
            let data = PartitionProduceData::default()
                .with_index(lane_.index)
                .with_records(Some(batch.bytes.clone()));
            let name = TopicName(StrBytes::from_static_str(lane_.topic.name));
            match topics.iter_mut().find(|it| it.name == name) {
                Some(topic) => topic.partition_data.push(data),
                None => topics.push(
                    TopicProduceData::default()
                        .with_name(name)
                        .with_partition_data(vec![data]),
                ),
            }
        }
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(topics);
        let correlation = connection.send(ApiKey::Produce, PRODUCE, &request)?;
        under_way.push_back((correlation, names));
        Ok(())
    }

    /// Takes the next answer; `false` if something must be sent again.
    fn receive(
        &mut self,
        connection: &mut Connection,
        under_way: &mut UnderWay,
    ) -> io::Result<bool> {
        let Some((correlation, names)) = under_way.pop_front() else {
            return Ok(true);
        };
        let answer: ProduceResponse = connection.receive(correlation, PRODUCE)?;
        let mut good = true;
        for (lane, sequence) in names {
            let lane = &mut self.lanes[lane];
            let found = answer
                .responses
                .iter()
                .filter(|it| it.name.0.as_str() == lane.topic.name);
            let found = found
                .flat_map(|it| &it.partition_responses)
                .find(|it| it.index == lane.index);
            match found {
                None => self
                    .shared
                    .fault(format!("no answer for {}-{}", lane.topic.name, lane.index)),
                Some(it) if it.error_code == 0 => {
                    if let Some(count) = lane.acknowledge(sequence, it.base_offset, &self.shared) {
                        self.shared.acknowledged.fetch_add(count, Ordering::AcqRel);
                    }
                }
                Some(it) => {
                    good = false;
                    self.shared.refused.fetch_add(1, Ordering::AcqRel);
                    let oldest = lane.under_way.front().map(|it| it.sequence);
                    // Behind a batch that was refused the next ones are out of order, and no harm is done.
                    let follows =
                        it.error_code == OUT_OF_ORDER_SEQUENCE_NUMBER && oldest != Some(sequence);
                    if !follows && !AGAIN.contains(&it.error_code) {
                        self.shared.fault(format!(
                            "{}-{}: sequence {sequence} (oldest under way {oldest:?}) got error {}: {:?}",
                            lane.topic.name, lane.index, it.error_code, it.error_message
                        ));
                    }
                }
            }
        }
        Ok(good)
    }
}

impl Lane {
    fn batch(&mut self, id: i64, epoch: i16, count: u64) -> Batch {
        let mut book = locked(&self.book);
        let first = book.next;
        let (mut records, mut bytes) = (Vec::new(), 0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |it| it.as_millis() as i64);
        while (records.len() as u64) < count && bytes < BATCH_BYTES_MAX {
            let (key, value) = record(self.topic, self.index, book.next);
            book.next += 1;
            bytes += value.len();
            let place = records.len() as i32;
            records.push(Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: id,
                producer_epoch: epoch,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(place),
                sequence: self.sequence + place,
                timestamp: now,
                key: key.map(Bytes::from),
                value: Some(Bytes::from(value)),
                headers: Default::default(),
            });
        }
        let mut encoded = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        RecordBatchEncoder::encode(&mut encoded, &records, &options)
            .expect("plain records are encoded");
        let batch = Batch {
            sequence: self.sequence,
            first,
            count: records.len() as u64,
            bytes: encoded.freeze(),
        };
        self.sequence += records.len() as i32;
        batch
    }

    fn acknowledge(&mut self, sequence: i32, base: i64, shared: &Shared) -> Option<u64> {
        let at = self
            .under_way
            .iter()
            .position(|it| it.sequence == sequence)?;
        let batch = self.under_way.remove(at)?;
        let name = format!("{}-{}", self.topic.name, self.index);
        if at > 0 {
            shared.fault(format!(
                "{name}: sequence {sequence} was acknowledged before an earlier one"
            ));
        }
        if base < 0 {
            shared.fault(format!(
                "{name}: sequence {sequence} was acknowledged at offset {base}"
            ));
            return None;
        }
        let mut book = locked(&self.book);
        for n in 0..batch.count {
            if let Err(why) = book.acknowledge(base + n as i64, batch.first + n) {
                shared.fault(why);
            }
        }
        Some(batch.count)
    }
}
