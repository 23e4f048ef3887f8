//! What was sent, what was acknowledged, and whether a log that another client read agrees.
//!
//! A record is known by its number in its partition: its key and value follow from that, so nothing but (offset, number)
//! is kept, and every byte is compared all the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::rng::Rng;

/// What the log of a topic may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Nothing: every acknowledged record from the log's start, which only the run itself moves.
    All,
    /// The oldest, beyond so many bytes of values.
    Newest(u64),
    /// All but the last record of each key.
    LastOfKey,
}

/// A topic of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) partitions: i32,
    pub(crate) keeps: Keeps,
    /// Largest value.
    pub(crate) value_bytes_max: u64,
}

/// A record as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) value: String,
}

const KEYS: u64 = 60;

/// The record `number` of a partition: (key, value).
pub(crate) fn record(topic: &Topic, partition: i32, number: u64) -> (Option<String>, String) {
    let salt = topic
        .name
        .bytes()
        .fold(partition as u64, |sum, it| sum * 31 + u64::from(it));
    let mut rng = Rng::new(number ^ (salt << 32));
    let key = (topic.keeps == Keeps::LastOfKey).then(|| format!("k{}", rng.below(KEYS)));
    let most = *rng.pick(&[60, 200, 200, 1_000, 1_000, 4_000, topic.value_bytes_max]);
    let length = rng.below(most.min(topic.value_bytes_max)) as usize;
    let mut value = format!("{number}.");
    while value.len() < length {
        value.push_str(&format!("{:016x}", rng.next()));
    }
    (key, value)
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) topic: &'static Topic,
    pub(crate) index: i32,
    /// Number of the next record to be sent.
    pub(crate) next: u64,
    /// Offset → number.
    acknowledged: BTreeMap<i64, u64>,
    /// Where the log began when it was last read.
    log_start: i64,
    /// What the run itself asked to be deleted.
    deleted_below: i64,
}

impl Partition {
    pub(crate) fn new(topic: &'static Topic, index: i32) -> Self {
        Self {
            topic,
            index,
            next: 0,
            acknowledged: BTreeMap::new(),
            log_start: 0,
            deleted_below: 0,
        }
    }

    /// A record was acknowledged; an offset that was given before, or a number that was, is a fault.
    pub(crate) fn acknowledge(&mut self, offset: i64, number: u64) -> Result<(), String> {
        match self.acknowledged.insert(offset, number) {
            None => Ok(()),
            Some(other) => Err(format!(
                "{}-{}: offset {offset} was given to record {number} and to record {other}",
                self.topic.name, self.index
            )),
        }
    }

    /// Below this offset nothing is asked for any more.
    pub(crate) fn delete_below(&mut self, offset: i64) {
        self.deleted_below = offset;
        self.acknowledged = self.acknowledged.split_off(&offset);
    }

    /// The offset behind the last acknowledged record.
    pub(crate) fn end(&self) -> i64 {
        self.acknowledged
            .last_key_value()
            .map_or(self.deleted_below, |(it, _)| it + 1)
    }

    /// The first offset that was acknowledged and not deleted.
    pub(crate) fn start(&self) -> i64 {
        self.acknowledged
            .first_key_value()
            .map_or(self.deleted_below, |(it, _)| *it)
    }

    /// Acknowledged records that are still to be found.
    pub(crate) fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// Compares with what a reader saw from the beginning to the end; each difference is a sentence.
    pub(crate) fn audit(&mut self, seen: &[Seen]) -> Vec<String> {
        let mut faults = Vec::new();
        let name = format!("{}-{}", self.topic.name, self.index);
        let offset_of: HashMap<u64, i64> =
            self.acknowledged.iter().map(|(o, n)| (*n, *o)).collect();
        let mut numbers = HashSet::new();
        let mut offsets = HashSet::new();
        let mut last = -1;
        for it in seen {
            let offset = it.offset;
            if offset <= last {
                faults.push(format!("{name}: offset {offset} was read after {last}"));
            }
            last = offset;
            offsets.insert(offset);
            let Some(number) = it
                .value
                .split('.')
                .next()
                .and_then(|it| it.parse::<u64>().ok())
            else {
                let begins: String = it.value.chars().take(40).collect();
                faults.push(format!(
                    "{name}: offset {offset} holds no record of ours: `{begins}`"
                ));
                continue;
            };
            let (key, value) = record(self.topic, self.index, number);
            if number >= self.next || value != it.value || key.unwrap_or_default() != it.key {
                faults.push(format!(
                    "{name}: offset {offset} holds other bytes than record {number}"
                ));
            }
            if !numbers.insert(number) {
                faults.push(format!(
                    "{name}: record {number} is there twice, again at {offset}"
                ));
            }
            match self.acknowledged.get(&offset) {
                Some(wanted) if *wanted != number => {
                    faults.push(format!(
                        "{name}: offset {offset} holds record {number}, acknowledged was {wanted}"
                    ));
                }
                _ => {}
            }
            if let Some(other) = offset_of.get(&number).filter(|it| **it != offset) {
                faults.push(format!(
                    "{name}: record {number} is at {offset}, acknowledged at {other}"
                ));
            }
        }
        self.missing(&name, seen, &offsets, &mut faults);
        faults
    }

    fn missing(
        &mut self,
        name: &str,
        seen: &[Seen],
        offsets: &HashSet<i64>,
        faults: &mut Vec<String>,
    ) {
        let first = seen.first().map_or(i64::MAX, |it| it.offset);
        let wanted: Vec<(i64, u64)> = match self.topic.keeps {
            Keeps::All => self.acknowledged.iter().map(|(o, n)| (*o, *n)).collect(),
            Keeps::Newest(bytes) => {
                let wanted = self.newest(bytes);
                if !seen.is_empty() {
                    if first < self.log_start {
                        faults.push(format!(
                            "{name}: the log began at {}, now at {first}",
                            self.log_start
                        ));
                    }
                    self.log_start = first;
                }
                // What lies behind the reader's first record must be there as well, whatever the quota says.
                let (floor, tail) = (wanted.first().map_or(first, |it| it.0.min(first)), first);
                self.acknowledged = self.acknowledged.split_off(&floor);
                let tail = self.acknowledged.range(tail..).map(|(o, n)| (*o, *n));
                wanted
                    .iter()
                    .copied()
                    .filter(|it| it.0 < first)
                    .chain(tail)
                    .collect()
            }
            Keeps::LastOfKey => self.last_of_keys(seen),
        };
        let missing: Vec<&(i64, u64)> = wanted
            .iter()
            .filter(|(it, _)| !offsets.contains(it))
            .collect();
        if let (Some(from), Some(to)) = (missing.first(), missing.last()) {
            let read = match seen.last() {
                Some(last) => format!("{} records from {first} to {}", seen.len(), last.offset),
                None => "nothing".to_owned(),
            };
            faults.push(format!(
                "{name}: {} acknowledged records are missing: from offset {} (record {}) to {} (record {}); read was {read}",
                missing.len(), from.0, from.1, to.0, to.1
            ));
        }
    }

    /// The newest acknowledged records with at most so many bytes of values.
    fn newest(&self, bytes: u64) -> Vec<(i64, u64)> {
        let mut left = bytes;
        let newest = self.acknowledged.iter().rev().take_while(|(_, number)| {
            let length = record(self.topic, self.index, **number).1.len() as u64;
            let fits = length <= left;
            left = left.saturating_sub(length);
            fits
        });
        let mut newest: Vec<(i64, u64)> = newest.map(|(o, n)| (*o, *n)).collect();
        newest.reverse();
        newest
    }

    /// The last acknowledged record of each key, unless a later one of that key was seen. Forgets the others.
    fn last_of_keys(&mut self, seen: &[Seen]) -> Vec<(i64, u64)> {
        let mut last: HashMap<String, (i64, u64)> = HashMap::new();
        for (offset, number) in &self.acknowledged {
            let key = record(self.topic, self.index, *number)
                .0
                .unwrap_or_default();
            last.insert(key, (*offset, *number));
        }
        let mut later: HashMap<&str, i64> = HashMap::new();
        for it in seen {
            later.insert(&it.key, it.offset);
        }
        let mut wanted: Vec<(i64, u64)> = last
            .iter()
            .filter(|(key, (offset, _))| later.get(key.as_str()).is_none_or(|it| it <= offset))
            .map(|(_, it)| *it)
            .collect();
        wanted.sort_unstable();
        let keep: HashSet<i64> = last
            .values()
            .map(|it| it.0)
            .chain(seen.iter().map(|it| it.offset))
            .collect();
        self.acknowledged.retain(|offset, _| keep.contains(offset));
        wanted
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    static ALL: Topic = Topic {
        name: "all",
        partitions: 1,
        keeps: Keeps::All,
        value_bytes_max: 300,
    };
    static NEWEST: Topic = Topic {
        keeps: Keeps::Newest(500),
        ..ALL
    };
    static KEYED: Topic = Topic {
        keeps: Keeps::LastOfKey,
        ..ALL
    };

    fn log(topic: &'static Topic, offsets: impl IntoIterator<Item = (i64, u64)>) -> Vec<Seen> {
        let seen = |(offset, number)| {
            let (key, value) = record(topic, 0, number);
            Seen {
                offset,
                key: key.unwrap_or_default(),
                value,
            }
        };
        offsets.into_iter().map(seen).collect()
    }

    fn acknowledged(topic: &'static Topic, count: u64) -> Partition {
        let mut partition = Partition::new(topic, 0);
        partition.next = count + 5;
        for number in 0..count {
            partition.acknowledge(number as i64, number).unwrap();
        }
        partition
    }

    fn straight(from: u64, to: u64) -> impl Iterator<Item = (i64, u64)> {
        (from..to).map(|it| (it as i64, it))
    }

    #[test]
    fn a_log_that_agrees_has_no_faults() {
        let mut partition = acknowledged(&ALL, 100);
        assert_eq!(
            partition.audit(&log(&ALL, straight(0, 100))),
            Vec::<String>::new()
        );
        // What was sent and not answered may be there.
        assert_eq!(
            partition.audit(&log(&ALL, straight(0, 103))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let cases: [(&str, Vec<(i64, u64)>); 6] = [
            ("missing", straight(0, 99).collect()),
            ("missing", straight(1, 100).collect()),
            ("twice", straight(0, 100).chain([(100, 50)]).collect()),
            (
                "acknowledged was",
                straight(0, 50)
                    .chain([(50, 51), (51, 50)])
                    .chain(straight(52, 100))
                    .collect(),
            ),
            (
                "was read after",
                straight(0, 100).chain([(99, 100)]).collect(),
            ),
            (
                "other bytes",
                straight(0, 100).chain([(100, 107)]).collect(),
            ),
        ];
        for (word, offsets) in cases {
            let faults = acknowledged(&ALL, 100).audit(&log(&ALL, offsets));
            assert!(
                faults.iter().any(|it| it.contains(word)),
                "{word}: {faults:?}"
            );
        }
        let mut seen = log(&ALL, straight(0, 100));
        seen[7].value.push('x');
        let faults = acknowledged(&ALL, 100).audit(&seen);
        assert!(faults[0].contains("other bytes"), "{faults:?}");
        assert!(acknowledged(&ALL, 9).acknowledge(3, 9).is_err());
    }

    #[test]
    fn the_oldest_may_go_beyond_the_quota_and_never_come_back() {
        let mut partition = acknowledged(&NEWEST, 100);
        assert_eq!(
            partition.audit(&log(&NEWEST, straight(40, 100))),
            Vec::<String>::new()
        );
        let faults = partition.audit(&log(&NEWEST, straight(39, 100)));
        assert!(faults[0].contains("the log began at 40"), "{faults:?}");
        let faults = acknowledged(&NEWEST, 100).audit(&log(&NEWEST, straight(100, 101)));
        assert!(faults[0].contains("missing"), "{faults:?}");
        let holes = straight(40, 60).chain(straight(61, 100));
        let faults = acknowledged(&NEWEST, 100).audit(&log(&NEWEST, holes));
        assert!(
            faults[0].contains("1 acknowledged records are missing"),
            "{faults:?}"
        );
    }

    #[test]
    fn of_each_key_the_last_must_be_there() {
        let mut last = HashMap::new();
        for number in 0..400 {
            last.insert(record(&KEYED, 0, number).0, number);
        }
        let mut kept: Vec<u64> = last.into_values().collect();
        kept.sort_unstable();
        let compacted = |of: &[u64]| {
            log(
                &KEYED,
                of.iter().map(|it| (*it as i64, *it)).collect::<Vec<_>>(),
            )
        };
        let mut partition = acknowledged(&KEYED, 400);
        assert_eq!(partition.audit(&compacted(&kept)), Vec::<String>::new());
        assert_eq!(partition.len(), kept.len());
        let faults = acknowledged(&KEYED, 400).audit(&compacted(&kept[1..]));
        assert!(faults[0].contains("missing"), "{faults:?}");
    }
}
