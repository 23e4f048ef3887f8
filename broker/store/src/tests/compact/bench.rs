//! A disk with one replica, and a list of the records that were appended to it.

use std::collections::BTreeMap;

use model::batch::{Codec, Header};
use model::record::{Builder, Producer, Records};
use model::window::{Fact, Windows};
use model::{LeaderEpoch, Offset, TopicPartition, WallMs, codec};

use crate::compact::{Cleaned, CompactionSettings, Compactor, KeyMap, Wants};
use crate::format::extent::DATA_AT;
use crate::io::Name;
use crate::io::mem::Random;
use crate::tests::oracle::TODAY;
use crate::tests::world::FORMAT;
use crate::verify::{Event, verify};
use crate::{Append, Config, Disk, DiskError, MemIo, Op, Outcome, PartIx, PartSettings, Queue};

pub(super) const PART: PartIx = PartIx(0);

pub(super) const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];
pub(super) const HOUR: i64 = 3_600_000;

/// Compacts whatever there is.
pub(super) const ALWAYS: CompactionSettings = CompactionSettings {
    dirty_ratio_min: 0.0,
    lag_ms_min: 0,
    lag_ms_max: i64::MAX,
    delete_retention_ms: HOUR,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rec {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) time: i64,
    pub(super) headers: usize,
}

/// Records by offset.
pub(super) type Log = BTreeMap<i64, Rec>;

/// A disk with one replica, and what was appended to it.
pub(super) struct Bench {
    pub(super) io: MemIo,
    pub(super) disk: Option<Disk<MemIo>>,
    pub(super) random: Random,
    pub(super) written: Log,
    pub(super) end: Offset,
    pub(super) sequences: BTreeMap<i64, i32>,
    pub(super) epoch: i32,
    pub(super) now: WallMs,
    /// Compactions know the time.
    pub(super) timed: bool,
    pub(super) run_bytes: u64,
}

pub(super) fn config() -> Config {
    Config {
        dirty_bytes_max: 8 << 20,
        ..Config::default()
    }
}

impl Bench {
    pub(super) fn new(seed: u64) -> Self {
        let io = MemIo::new(seed, 1 << 32);
        Disk::format(&io, &FORMAT).unwrap();
        let mut bench = Self {
            io,
            disk: None,
            random: Random(seed),
            written: Log::new(),
            end: Offset(0),
            sequences: BTreeMap::new(),
            epoch: 0,
            now: TODAY,
            timed: true,
            run_bytes: 64 << 20,
        };
        bench.open();
        bench.run(Op::PartNew {
            part: PART,
            id: TopicPartition::default(),
        });
        bench.settle();
        bench
    }

    pub(super) fn open(&mut self) {
        self.disk = None;
        let (disk, _) = Disk::open(self.io.clone(), config()).unwrap();
        self.disk = Some(disk);
        self.settle();
    }

    /// Small extents, so that there are many.
    pub(super) fn settle(&mut self) {
        let settings = PartSettings {
            quota_bytes: 4 << 20,
            ..PartSettings::default()
        };
        self.run(Op::Settings {
            part: PART,
            settings,
        });
    }

    pub(super) fn disk(&mut self) -> &mut Disk<MemIo> {
        self.disk.as_mut().expect("open")
    }

    pub(super) fn run(&mut self, op: Op) -> Outcome {
        self.try_run(op).unwrap()
    }

    pub(super) fn try_run(&mut self, op: Op) -> Result<Outcome, DiskError> {
        let mut queue = Queue::default();
        queue.push(op, ());
        let mut done = Vec::new();
        let now = self.now;
        while !queue.is_empty() {
            let committed = self.disk().commit(&mut queue, Some(now), &mut done)?;
            if committed.held || self.random.below(8) == 0 {
                self.disk().work(committed.held, Some(now))?;
            }
        }
        Ok(done[0].1)
    }

    /// A random batch of the size a client sends.
    pub(super) fn batch(&mut self, keys: u64, size_max: u64) -> Vec<u8> {
        let mut builder = Builder::default();
        for _ in 0..1 + self.random.below(6) {
            let key = format!("key {}", self.random.below(keys)).into_bytes();
            let mut value = vec![0; self.random.below(size_max) as usize];
            value
                .iter_mut()
                .for_each(|byte| *byte = (self.random.next() >> 3) as u8);
            // Compressible in part.
            let half = value.len() / 2;
            value[..half].fill(7);
            let value = (self.random.below(6) > 0).then_some(value);
            let time = self.now.0 - self.random.below(1000) as i64;
            let headers = [(&b"h"[..], Some(&b"v"[..]))];
            let count = self.random.below(2) as usize;
            builder.push(
                time,
                Some(&key),
                value.as_deref(),
                headers
                    .into_iter()
                    .take(count)
                    .collect::<Vec<_>>()
                    .into_iter(),
            );
        }
        let pid = self.random.below(4) as i64;
        let producer = match pid {
            0 => Producer::NONE,
            id => {
                let next = self.sequences.entry(id).or_default();
                let sequence = *next;
                *next += builder.count();
                Producer {
                    id,
                    epoch: 0,
                    sequence,
                }
            }
        };
        let codec = CODECS[self.random.below(5) as usize];
        builder.finish(codec, producer).unwrap()
    }

    pub(super) fn append(&mut self, keys: u64, size_max: u64) {
        let batch = self.batch(keys, size_max);
        self.append_bytes(batch);
    }

    pub(super) fn append_bytes(&mut self, batch: Vec<u8>) {
        if self.random.below(40) == 0 {
            self.epoch += 1;
        }
        let base_offset = self.end;
        let header = Header::read(&batch).unwrap();
        self.end = base_offset.plus(i64::from(header.last_offset_delta) + 1);
        let mut stamped = batch.clone();
        model::batch::stamp(&mut stamped, base_offset, LeaderEpoch(self.epoch));
        for (offset, record) in records(&stamped) {
            self.written.insert(offset, record);
        }
        let outcome = self.run(Op::Append(Append {
            part: PART,
            base_offset,
            leader_epoch: LeaderEpoch(self.epoch),
            hw: self.end,
            gap: false,
            append_time: None,
            batch: batch.into(),
        }));
        assert_eq!(outcome, Outcome::Done);
    }

    /// All batches on the disk, in order.
    pub(super) fn batches(&self) -> Vec<Vec<u8>> {
        let disk = self.disk.as_ref().expect("open");
        let mut found = Vec::new();
        for slot in &disk.parts[&PART].extents {
            let row = disk.table.row(*slot);
            let bytes = self.io.contents(Name::Extent(*slot)).unwrap();
            let mut at = DATA_AT as usize;
            while at < row.used as usize {
                let header = Header::check_stored(&bytes[at..]).unwrap();
                assert!(header.base_offset >= row.base && header.last_offset() <= row.last);
                found.push(bytes[at..at + header.bytes].to_vec());
                at += header.bytes;
            }
        }
        found
    }

    pub(super) fn log(&self) -> Log {
        let mut log = Log::new();
        for batch in self.batches() {
            for (offset, record) in records(&batch) {
                let later = log.range(offset..).next().is_some();
                assert!(!later, "offset {offset} comes out of order");
                log.insert(offset, record);
            }
        }
        log
    }

    pub(super) fn extents(&self) -> usize {
        self.disk.as_ref().expect("open").parts[&PART].extents.len()
    }

    /// One whole compaction.
    pub(super) fn compact(
        &mut self,
        keys: KeyMap,
        cleaned_to: Option<Offset>,
    ) -> Option<(Cleaned, KeyMap)> {
        self.try_compact(keys, cleaned_to).unwrap()
    }

    pub(super) fn try_compact(
        &mut self,
        keys: KeyMap,
        cleaned_to: Option<Offset>,
    ) -> Result<Option<(Cleaned, KeyMap)>, DiskError> {
        let (now, bound) = (self.timed.then_some(self.now), self.end);
        let plan = self
            .disk()
            .compaction(PART, bound, &ALWAYS, now, cleaned_to);
        let Some(mut plan) = plan else {
            return Ok(None);
        };
        plan.run_bytes = self.run_bytes;
        let mut compactor = Compactor::new(plan, keys);
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 10_000, "it ends");
            match compactor.wants() {
                Wants::Read => {
                    compactor
                        .read(&self.io.clone())
                        .map_err(|error| DiskError::Failed {
                            what: "a read",
                            source: std::io::Error::other(error),
                        })?
                }
                Wants::Write => self.disk().compact(&mut compactor)?,
                Wants::Swap => {
                    let swap = compactor.swap();
                    let outcome = self.try_run(swap)?;
                    compactor.swapped(outcome);
                }
                Wants::Nothing => break,
            }
            if self.random.below(4) == 0 {
                let now = self.now;
                self.disk().work(false, Some(now))?;
            }
        }
        Ok(Some(compactor.finish()))
    }

    /// Where the sealed part of the log ends.
    pub(super) fn sealed_end(&self) -> i64 {
        let disk = self.disk.as_ref().expect("open");
        let open = disk.parts[&PART].open.as_ref();
        open.map_or(self.end, |open| disk.table.row(open.life.slot).base)
            .0
    }

    /// Holds the disk against what was written. `compacted` says that nothing superseded may be left below.
    pub(super) fn check(&self, compacted: Option<i64>) {
        let found = self.log();
        let mut last: BTreeMap<&[u8], i64> = BTreeMap::new();
        for (offset, record) in &self.written {
            last.insert(record.key.as_deref().unwrap_or_default(), *offset);
        }
        for (offset, record) in &found {
            assert_eq!(Some(record), self.written.get(offset), "offset {offset}");
        }
        // The last value of each key is there, and what is not there is superseded, or a tombstone.
        for (offset, record) in &self.written {
            let newest = last[record.key.as_deref().unwrap_or_default()];
            if !found.contains_key(offset) {
                assert!(
                    newest > *offset || record.value.is_none(),
                    "offset {offset} is lost"
                );
            }
            // Nothing that was deleted is back.
            if record.value.is_none() && newest == *offset && !found.contains_key(offset) {
                let same = found.iter().find(|(_, it)| it.key == record.key);
                assert!(same.is_none(), "{same:?} is back");
            }
        }
        if let Some(end) = compacted {
            let mut seen: BTreeMap<&[u8], i64> = BTreeMap::new();
            for (offset, record) in found.range(..end) {
                let before = seen.insert(record.key.as_deref().unwrap(), *offset);
                assert_eq!(before, None, "superseded by {offset}");
            }
        }
        // A replica that reads this log knows each producer's last batch.
        let mut windows = Windows::default();
        for batch in self.batches() {
            let header = Header::read(&batch).unwrap();
            if let Some(fact) = Fact::of(&header, &batch[61..]).unwrap() {
                windows.feed(PART, &fact);
            }
        }
        windows.advance(PART, self.end);
        for (pid, next) in &self.sequences {
            let found = windows.producers(PART).find(|it| it.pid.0 == *pid).unwrap();
            assert_eq!(found.last_seq, next - 1, "producer {pid}");
        }
    }

    pub(super) fn verify(&self) {
        verify(&self.io, &mut |event| {
            assert!(!matches!(event, Event::Fault(_)), "{event:?}");
        });
    }
}

pub(super) fn records(batch: &[u8]) -> Vec<(i64, Rec)> {
    let header = Header::check_stored(batch).unwrap();
    let codec = header.codec().unwrap();
    let bytes = codec::decompress(codec, &batch[61..header.bytes], 1 << 24);
    let bytes = match header.records_count {
        0 => Vec::new(),
        _ => bytes.unwrap(),
    };
    Records::new(&bytes, header.records_count)
        .map(|record| {
            let record = record.unwrap();
            let owned = Rec {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                time: header.base_timestamp.0 + record.timestamp_delta,
                headers: record.headers.len(),
            };
            assert!(owned.time <= header.max_timestamp.0);
            (header.base_offset.0 + i64::from(record.offset_delta), owned)
        })
        .collect()
}
