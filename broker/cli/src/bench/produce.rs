//! The producing side of a load: lanes, each one connection to one leader with batches in flight.
//!
//! Batches are those of a producer that keeps to one partition until the batch is full or `linger` is over, then takes
//! the next. No idempotence: a batch is sent once, and an error ends the run, as numbers behind it would mean little.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use model::batch::Codec;
use model::record::{Builder, Producer};

use super::meter::{Gauge, Latencies};
use crate::cluster::topic_name;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::sender::{Acks, PRODUCE_MOST};

/// The longest wait between two looks at whether the run is over.
const PATIENCE: Duration = Duration::from_millis(100);

/// What every lane sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) record_bytes: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) codec: Codec,
    pub(crate) acks: Acks,
    pub(crate) linger: Duration,
    pub(crate) in_flight: usize,
    /// Records a second of this lane; as fast as answers come if there is none.
    pub(crate) rate: Option<f64>,
}

impl Shape {
    /// Records in a full batch.
    fn records_max(&self) -> u64 {
        let mut one = Builder::default();
        let empty = one.bytes();
        one.push(0, None, Some(&vec![0; self.record_bytes]), [].into_iter());
        let record = one.bytes() - empty;
        (self.batch_bytes.saturating_sub(empty) / record).max(1) as u64
    }
}

/// See the module.
pub(crate) struct Lane {
    shape: Shape,
    topic: String,
    connection: Connection,
    partitions: Vec<i32>,
    digits: Digits,
    time_ms: i64,
    /// The batch built last; most are alike.
    built: Option<(u64, Bytes)>,
    in_flight: VecDeque<InFlight>,
    latencies: Latencies,
}

struct InFlight {
    /// When its oldest record was due.
    since: Instant,
    records: u64,
    bytes: u64,
}

/// Hexadecimal digits, which a codec packs to about half; the same in every run.
struct Digits(u64);

impl Digits {
    fn fill(&mut self, value: &mut [u8]) {
        for digit in value {
            // xorshift64 (Marsaglia, 2003).
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *digit = b"0123456789abcdef"[(self.0 >> 60) as usize];
        }
    }
}

impl Lane {
    /// A lane over one connection, to these partitions that its broker leads; all records have one time.
    pub(crate) fn new(
        shape: Shape,
        topic: &str,
        connection: Connection,
        partitions: Vec<i32>,
        time_ms: i64,
    ) -> Self {
        Self {
            shape,
            topic: topic.to_owned(),
            connection,
            partitions,
            digits: Digits(0x9e37_79b9_7f4a_7c15),
            time_ms,
            built: None,
            in_flight: VecDeque::new(),
            latencies: Latencies::default(),
        }
    }

    /// Sends until the run stops, waits for what is in flight, and gives what it took.
    pub(crate) fn run(mut self, gauge: &Gauge) -> Result<Latencies, Failure> {
        let mut pace = Pace::new(self.shape, Instant::now());
        let mut turn = 0;
        while !gauge.stopped() {
            let full = self.in_flight.len() >= self.shape.in_flight;
            let now = Instant::now();
            let wait = match pace.turn(now) {
                Turn::Send { records, since } if !full => {
                    let partition = self.partitions[turn % self.partitions.len()];
                    turn += 1;
                    self.send(partition, records, since, gauge)?;
                    pace.sent(records);
                    Duration::ZERO
                }
                // Only an answer makes room.
                Turn::Send { .. } => Duration::MAX,
                Turn::Wait(wait) => wait,
            };
            self.take_answers(wait, gauge)?;
        }
        while !self.in_flight.is_empty() {
            self.take_answer(gauge)?;
        }
        Ok(self.latencies)
    }

    fn send(
        &mut self,
        partition: i32,
        records: u64,
        since: Instant,
        gauge: &Gauge,
    ) -> Result<(), Failure> {
        let batch = self.batch(records)?;
        let bytes = batch.len() as u64;
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.topic))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(self.shape.acks.wire())
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        let version = self.connection.version::<ProduceRequest>(PRODUCE_MOST)?;
        self.connection.send_as(&request, version)?;
        if self.shape.acks == Acks::None {
            self.connection.forget_last();
            gauge.add(records, bytes);
            return Ok(());
        }
        self.in_flight.push_back(InFlight {
            since,
            records,
            bytes,
        });
        Ok(())
    }

    fn batch(&mut self, records: u64) -> Result<Bytes, Failure> {
        if let Some((_, batch)) = self.built.as_ref().filter(|(count, _)| *count == records) {
            return Ok(batch.clone());
        }
        let mut builder = Builder::default();
        let mut value = vec![0; self.shape.record_bytes];
        for _ in 0..records {
            self.digits.fill(&mut value);
            builder.push(self.time_ms, None, Some(&value), [].into_iter());
        }
        let batch = builder.finish(self.shape.codec, Producer::NONE);
        let batch = batch.map_err(|error| Failure::Fault(format!("packing a batch: {error}")))?;
        let batch = Bytes::from(batch);
        self.built = Some((records, batch.clone()));
        Ok(batch)
    }

    /// Takes the answers that are there; waits for the first one if there is nothing else to do.
    fn take_answers(&mut self, wait: Duration, gauge: &Gauge) -> Result<(), Failure> {
        let until = Instant::now().checked_add(wait);
        loop {
            let left = until.map_or(PATIENCE, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if self.in_flight.is_empty() {
                // A stop must be seen soon.
                std::thread::sleep(left.min(PATIENCE));
                return Ok(());
            }
            if !self.connection.answers_within(left.min(PATIENCE))? {
                return Ok(());
            }
            self.take_answer(gauge)?;
            if until.is_none() {
                return Ok(());
            }
        }
    }

    fn take_answer(&mut self, gauge: &Gauge) -> Result<(), Failure> {
        let answer = self.connection.receive::<ProduceRequest>()?;
        for partition in answer
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
        {
            let what = || {
                format!(
                    "producing to topic \"{}\" partition {}",
                    self.topic, partition.index
                )
            };
            Failure::check(
                what,
                partition.error_code,
                partition.error_message.as_deref(),
            )?;
        }
        let sent = self
            .in_flight
            .pop_front()
            .expect("the connection answers only what was sent");
        if gauge.add(sent.records, sent.bytes) {
            self.latencies.add(sent.since.elapsed());
        }
        Ok(())
    }
}

/// When records are due: one each `1 / rate` seconds, whether the broker keeps up or not.
struct Pace {
    began: Instant,
    rate: Option<f64>,
    linger: Duration,
    records_max: u64,
    sent: u64,
}

#[derive(Debug, PartialEq)]
enum Turn {
    /// A batch of so many; its oldest record was due then.
    Send { records: u64, since: Instant },
    /// Nothing yet.
    Wait(Duration),
}

impl Pace {
    fn new(shape: Shape, began: Instant) -> Self {
        Self {
            began,
            rate: shape.rate,
            linger: shape.linger,
            records_max: shape.records_max(),
            sent: 0,
        }
    }

    /// When the record of this number is due.
    fn due(&self, number: u64, rate: f64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / rate)
    }

    fn turn(&self, now: Instant) -> Turn {
        let Some(rate) = self.rate else {
            return Turn::Send {
                records: self.records_max,
                since: now,
            };
        };
        let oldest = self.due(self.sent, rate);
        // A batch goes when its last record is due, or when its oldest has lingered.
        let go = self
            .due(self.sent + self.records_max - 1, rate)
            .min(oldest + self.linger);
        if now < go {
            return Turn::Wait(go - now);
        }
        let elapsed = now.saturating_duration_since(oldest).as_secs_f64();
        let waiting = (elapsed * rate) as u64 + 1;
        Turn::Send {
            records: waiting.min(self.records_max),
            since: oldest,
        }
    }

    fn sent(&mut self, records: u64) {
        self.sent += records;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(rate: Option<f64>) -> Shape {
        Shape {
            record_bytes: 1_024,
            batch_bytes: 64 * 1_024,
            codec: Codec::None,
            acks: Acks::All,
            linger: Duration::from_millis(5),
            in_flight: 5,
            rate,
        }
    }

    #[test]
    fn a_full_batch_stays_within_its_bytes() {
        let shape = shape(None);
        let mut builder = Builder::default();
        for _ in 0..shape.records_max() {
            builder.push(0, None, Some(&[0; 1_024]), [].into_iter());
        }
        assert!(builder.bytes() <= shape.batch_bytes);
        builder.push(0, None, Some(&[0; 1_024]), [].into_iter());
        assert!(builder.bytes() > shape.batch_bytes - 100);
        let huge = Shape {
            record_bytes: 1 << 20,
            ..shape
        };
        assert_eq!(huge.records_max(), 1, "a record beyond a batch goes alone");
    }

    #[test]
    fn batches_go_when_they_lingered_or_are_full() {
        let began = Instant::now();
        let at = |us| began + Duration::from_micros(us);
        let send = |records, us| Turn::Send {
            records,
            since: at(us),
        };
        // A record a millisecond: after 5 ms six are due.
        let mut slow = Pace::new(shape(Some(1_000.0)), began);
        assert_eq!(
            slow.turn(at(1_000)),
            Turn::Wait(Duration::from_micros(4_000))
        );
        assert_eq!(slow.turn(at(5_000)), send(6, 0));
        slow.sent(6);
        assert_eq!(
            slow.turn(at(5_000)),
            Turn::Wait(Duration::from_micros(6_000))
        );
        // A broker that stalls: the next batch takes what has gathered, and its wait counts from when it was due.
        assert_eq!(slow.turn(at(1_000_000)), send(slow.records_max, 6_000));
        // A hundred records a millisecond fill a batch long before the linger is over.
        let fast = Pace::new(shape(Some(100_000.0)), began);
        let full = (fast.records_max - 1) * 10;
        assert!(matches!(fast.turn(at(full - 1)), Turn::Wait(_)));
        assert_eq!(fast.turn(at(full)), send(fast.records_max, 0));
    }
}
