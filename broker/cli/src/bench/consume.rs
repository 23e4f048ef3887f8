//! The consuming side of a load: lanes, each one connection to one leader, that read its partitions from the first
//! record to where they end now. Batches are walked by their headers, not unpacked.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use model::batch::Header;

use super::meter::{Gauge, Latencies};
use crate::cluster::topic_name;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::fetcher::FETCH_MOST;

/// How long a broker may wait for records: there are some until the end.
const WAIT_MS: i32 = 500;
/// All of one answer, as Java's consumer asks for.
const ANSWER_BYTES: i32 = 50 << 20;

/// See the module.
pub(crate) struct Lane {
    topic: String,
    connection: Connection,
    /// Next offset and the one where to end, by partition.
    cursors: BTreeMap<i32, (i64, i64)>,
    partition_bytes: i32,
    latencies: Latencies,
}

impl Lane {
    /// A lane over one connection; from and to which offset, by partition that its broker leads.
    pub(crate) fn new(
        topic: &str,
        connection: Connection,
        cursors: BTreeMap<i32, (i64, i64)>,
        partition_bytes: i32,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            connection,
            cursors,
            partition_bytes,
            latencies: Latencies::default(),
        }
    }

    /// Reads to the end, or until the run stops.
    pub(crate) fn run(mut self, gauge: &Gauge) -> Result<Latencies, Failure> {
        self.cursors.retain(|_, (next, end)| next < end);
        while !gauge.stopped() && !self.cursors.is_empty() {
            self.fetch(gauge)?;
            self.cursors.retain(|_, (next, end)| next < end);
        }
        Ok(self.latencies)
    }

    fn fetch(&mut self, gauge: &Gauge) -> Result<(), Failure> {
        let partitions = self.cursors.iter().map(|(index, (next, _))| {
            FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(*next)
                .with_partition_max_bytes(self.partition_bytes)
        });
        let topic = FetchTopic::default()
            .with_topic(topic_name(&self.topic))
            .with_partitions(partitions.collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(ANSWER_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let began = Instant::now();
        let answer = self.connection.call(&request, FETCH_MOST)?;
        let took = began.elapsed();
        let what = || format!("fetching from {}", self.connection.address());
        Failure::check(what, answer.error_code, None)?;
        let (mut moved, mut some) = (false, false);
        for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let what = || {
                format!(
                    "topic \"{}\" partition {}",
                    self.topic, data.partition_index
                )
            };
            Failure::check(|| format!("fetching {}", what()), data.error_code, None)?;
            let Some((next, end)) = self.cursors.get_mut(&data.partition_index) else {
                return Err(Failure::Fault(format!(
                    "{}: answered, but not asked for",
                    what()
                )));
            };
            let bytes = data.records.as_deref().unwrap_or_default();
            let walked = walk(bytes, *next, *end);
            let walked =
                walked.map_err(|why| Failure::Fault(format!("{} offset {next}: {why}", what())))?;
            moved |= walked.next > *next;
            some |= !bytes.is_empty();
            *next = walked.next;
            gauge.add(walked.records, walked.bytes);
        }
        if moved {
            self.latencies.add(took);
        } else if some {
            // Only old brokers cut the first batch of an answer.
            let (topic, bytes) = (&self.topic, self.partition_bytes);
            let what = format!("topic \"{topic}\": a batch is longer than --fetch-bytes {bytes}");
            return Err(Failure::Fault(what));
        }
        Ok(())
    }
}

struct Walked {
    next: i64,
    records: u64,
    bytes: u64,
}

/// Counts the whole batches of a fetched range below `end`. A batch may begin before `from`, and be cut at the end.
fn walk(mut bytes: &[u8], from: i64, end: i64) -> Result<Walked, String> {
    let mut walked = Walked {
        next: from,
        records: 0,
        bytes: 0,
    };
    while walked.next < end && bytes.len() >= model::batch::HEADER_BYTES {
        let header = Header::read(bytes).map_err(|fault| fault.to_string())?;
        let Some((_, rest)) = bytes.split_at_checked(header.bytes) else {
            break;
        };
        walked.records += u64::try_from(header.records_count).unwrap_or_default();
        walked.bytes += header.bytes as u64;
        walked.next = walked.next.max(header.next_offset().0);
        bytes = rest;
    }
    Ok(walked)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use model::batch::{Codec, stamp};
    use model::record::{Builder, Producer};
    use model::{LeaderEpoch, Offset};

    use super::*;

    #[test]
    fn whole_batches_are_counted_to_the_end() {
        let mut range = Vec::new();
        for base in [10, 13, 16] {
            let mut builder = Builder::default();
            for _ in 0..3 {
                builder.push(0, None, Some(b"v"), [].into_iter());
            }
            let mut batch = builder.finish(Codec::None, Producer::NONE).unwrap();
            stamp(&mut batch, Offset(base), LeaderEpoch(0));
            range.extend_from_slice(&batch);
        }
        let batch = range.len() as u64 / 3;
        let walked = walk(&range, 11, 100).unwrap();
        assert_eq!(
            (walked.next, walked.records, walked.bytes),
            (19, 9, 3 * batch)
        );
        let walked = walk(&range[..range.len() - 1], 10, 100).unwrap();
        assert_eq!(
            (walked.next, walked.records),
            (16, 6),
            "a cut batch is left"
        );
        let walked = walk(&range, 10, 13).unwrap();
        assert_eq!(
            (walked.next, walked.records),
            (13, 3),
            "nothing beyond the end"
        );
    }
}
