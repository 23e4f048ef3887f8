//! The compactor against a list of records: what a reader by offset sees afterwards, and after a cut at any place.

use std::collections::BTreeMap;

use model::batch::{Codec, Header};
use model::record::{Builder, Producer, Records};
use model::window::{Fact, Windows};
use model::{LeaderEpoch, Offset, TopicPartition, WallMs, codec};

use super::oracle::TODAY;
use super::world::FORMAT;
use crate::compact::{Cleaned, CompactionSettings, Compactor, KeyMap, Wants};
use crate::format::extent::DATA_AT;
use crate::io::Name;
use crate::io::mem::Random;
use crate::verify::{Event, verify};
use crate::{Append, Config, Disk, DiskError, MemIo, Op, Outcome, PartIx, PartSettings, Queue};

const PART: PartIx = PartIx(0);
const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];
const HOUR: i64 = 3_600_000;

/// Compacts whatever there is.
const ALWAYS: CompactionSettings = CompactionSettings {
    dirty_ratio_min: 0.0,
    lag_ms_min: 0,
    lag_ms_max: i64::MAX,
    delete_retention_ms: HOUR,
};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rec {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time: i64,
    headers: usize,
}

/// Records by offset.
type Log = BTreeMap<i64, Rec>;

/// A disk with one replica, and what was appended to it.
struct Bench {
    io: MemIo,
    disk: Option<Disk<MemIo>>,
    random: Random,
    written: Log,
    end: Offset,
    sequences: BTreeMap<i64, i32>,
    epoch: i32,
    now: WallMs,
    /// Compactions know the time.
    timed: bool,
    run_bytes: u64,
}

fn config() -> Config {
    Config {
        dirty_bytes_max: 8 << 20,
        ..Config::default()
    }
}

impl Bench {
    fn new(seed: u64) -> Self {
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

    fn open(&mut self) {
        self.disk = None;
        let (disk, _) = Disk::open(self.io.clone(), config()).unwrap();
        self.disk = Some(disk);
        self.settle();
    }

    /// Small extents, so that there are many.
    fn settle(&mut self) {
        let settings = PartSettings {
            quota_bytes: 4 << 20,
            ..PartSettings::default()
        };
        self.run(Op::Settings {
            part: PART,
            settings,
        });
    }

    fn disk(&mut self) -> &mut Disk<MemIo> {
        self.disk.as_mut().expect("open")
    }

    fn run(&mut self, op: Op) -> Outcome {
        self.try_run(op).unwrap()
    }

    fn try_run(&mut self, op: Op) -> Result<Outcome, DiskError> {
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
    fn batch(&mut self, keys: u64, size_max: u64) -> Vec<u8> {
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

    fn append(&mut self, keys: u64, size_max: u64) {
        let batch = self.batch(keys, size_max);
        self.append_bytes(batch);
    }

    fn append_bytes(&mut self, batch: Vec<u8>) {
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
    fn batches(&self) -> Vec<Vec<u8>> {
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

    fn log(&self) -> Log {
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

    fn extents(&self) -> usize {
        self.disk.as_ref().expect("open").parts[&PART].extents.len()
    }

    /// One whole compaction.
    fn compact(&mut self, keys: KeyMap, cleaned_to: Option<Offset>) -> Option<(Cleaned, KeyMap)> {
        self.try_compact(keys, cleaned_to).unwrap()
    }

    fn try_compact(
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
    fn sealed_end(&self) -> i64 {
        let disk = self.disk.as_ref().expect("open");
        let open = disk.parts[&PART].open.as_ref();
        open.map_or(self.end, |open| disk.table.row(open.life.slot).base)
            .0
    }

    /// Holds the disk against what was written. `compacted` says that nothing superseded may be left below.
    fn check(&self, compacted: Option<i64>) {
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

    fn verify(&self) {
        verify(&self.io, &mut |event| {
            assert!(!matches!(event, Event::Fault(_)), "{event:?}");
        });
    }
}

fn records(batch: &[u8]) -> Vec<(i64, Rec)> {
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

#[test]
fn of_each_key_the_last_record_stays() {
    for seed in 0..2 {
        println!("seed {seed}");
        let mut bench = Bench::new(seed);
        let mut keys = KeyMap::default();
        let mut cleaned_to = None;
        for round in 0..3 {
            bench.run_bytes = [64 << 20, 1 << 20][round % 2];
            for _ in 0..1200 {
                bench.append(60, 2500);
            }
            let before = bench.extents();
            let records = bench.log().len();
            let sealed = bench.sealed_end();
            let (cleaned, back) = bench.compact(keys, cleaned_to).unwrap();
            keys = back;
            assert_eq!((cleaned.opaque, cleaned.no_room), (0, false));
            assert_eq!(cleaned.cleaned_to.0, sealed, "round {round}: {cleaned:?}");
            assert!(bench.extents() <= before, "round {round}: {cleaned:?}");
            let dropped = (records - bench.log().len()) as u64;
            assert_eq!(cleaned.records_dropped, dropped, "round {round}");
            assert!(
                cleaned.bytes_after < cleaned.bytes_before / 2,
                "{cleaned:?}"
            );
            bench.check(Some(sealed));
            cleaned_to = (seed % 2 == 0).then_some(cleaned.cleaned_to);
            assert!(bench.compact(KeyMap::default(), cleaned_to).is_none());
            if round % 2 == 0 {
                // A restart; what was appended before the checkpoint is not replayed.
                bench.io.power_cut(seed);
                bench.open();
                bench.check(Some(sealed));
                bench.verify();
            }
            bench.now.0 += 2 * HOUR;
        }
    }
}

#[test]
fn a_tombstone_goes_an_hour_after_it_was_met() {
    let mut bench = Bench::new(7);
    let one = |value: Option<&[u8]>, time: WallMs, codec| {
        let mut builder = Builder::default();
        builder.push(time.0, Some(b"gone"), value, [].into_iter());
        builder.finish(codec, Producer::NONE).unwrap()
    };
    for codec in CODECS {
        bench.append_bytes(one(Some(b"value"), bench.now, codec));
    }
    let tombstone = bench.end;
    bench.append_bytes(one(None, bench.now, Codec::None));
    let fill = |bench: &mut Bench| {
        let extents = bench.extents();
        while bench.extents() == extents {
            bench.append(5, 2500);
        }
    };
    // While no time is trusted its time does not begin.
    fill(&mut bench);
    bench.timed = false;
    bench.compact(KeyMap::default(), None).unwrap();
    let horizons = |bench: &Bench| {
        let batches = bench.batches();
        let headers = batches.iter().map(|it| Header::read(it).unwrap());
        headers.filter(Header::delete_horizon).count()
    };
    assert!(bench.log().contains_key(&tombstone.0));
    assert_eq!(horizons(&bench), 0);
    bench.timed = true;
    let met = bench.now;
    bench
        .compact(KeyMap::default(), Some(Offset::ZERO))
        .unwrap();
    assert!(horizons(&bench) > 0);
    let log = bench.log();
    let left: Vec<_> = log
        .iter()
        .filter(|it| it.1.key.as_deref() == Some(b"gone"))
        .collect();
    assert_eq!(left.len(), 1);
    assert_eq!((*left[0].0, left[0].1.time), (tombstone.0, TODAY.0));
    let batch = bench
        .batches()
        .into_iter()
        .map(|it| Header::read(&it).unwrap())
        .find(|it| it.last_offset() == tombstone)
        .unwrap();
    assert!(batch.delete_horizon());
    assert_eq!(batch.base_timestamp.0, met.0 + HOUR);
    // Within the hour it stays, behind it it goes.
    for (later, stays) in [(HOUR / 2, true), (HOUR, false)] {
        bench.now.0 += later;
        fill(&mut bench);
        bench.compact(KeyMap::default(), None).unwrap();
        assert_eq!(bench.log().contains_key(&tombstone.0), stays, "{later}");
    }
    bench.check(None);
}

#[test]
fn a_map_that_is_too_small_costs_nothing_but_time() {
    let mut bench = Bench::new(11);
    for _ in 0..1500 {
        bench.append(5000, 1500);
    }
    let sealed = bench.sealed_end();
    let mut cleaned_to = None;
    for pass in 0..40 {
        let keys = KeyMap::with_bytes(24 * 700);
        let Some((cleaned, _)) = bench.compact(keys, cleaned_to) else {
            assert!(pass > 2, "it took several passes");
            assert_eq!(cleaned_to, Some(Offset(sealed)));
            break;
        };
        assert!(
            cleaned_to.is_none_or(|to| cleaned.cleaned_to > to),
            "{cleaned:?}"
        );
        cleaned_to = Some(cleaned.cleaned_to);
        bench.check(None);
        bench.now.0 += 2 * HOUR;
    }
    bench.check(Some(sealed));
    bench.disk = None;
    bench.verify();
}

#[test]
fn what_it_does_not_know_stays_as_it_is() {
    let mut bench = Bench::new(13);
    let mut strange = Vec::new();
    for attributes in [0x20_i16, 0x80, 0x10] {
        let mut builder = Builder::default();
        builder.push(bench.now.0, Some(b"key 1"), Some(b"old"), [].into_iter());
        let mut batch = builder.finish(Codec::None, Producer::NONE).unwrap();
        batch[21..23].copy_from_slice(&attributes.to_be_bytes());
        model::batch::seal(&mut batch);
        strange.push(bench.end);
        bench.append_bytes(batch);
    }
    // Records that do not read.
    let mut batch = bench.batch(3, 100);
    batch.truncate(70);
    batch[21..23].copy_from_slice(&0_i16.to_be_bytes());
    model::batch::seal(&mut batch);
    let header = Header::read(&batch).unwrap();
    bench.run(Op::Append(Append {
        part: PART,
        base_offset: bench.end,
        leader_epoch: LeaderEpoch(bench.epoch),
        hw: bench.end,
        gap: false,
        append_time: None,
        batch: batch.into(),
    }));
    let garbage = bench.end;
    bench.end = bench.end.plus(i64::from(header.last_offset_delta) + 1);
    while bench.extents() < 3 {
        bench.append(5, 2500);
    }
    let before = bench.batches();
    let (cleaned, _) = bench.compact(KeyMap::default(), None).unwrap();
    assert_eq!(cleaned.opaque, 4);
    let after = bench.batches();
    for base in strange.into_iter().chain([garbage]) {
        let of = |all: &[Vec<u8>]| {
            let found = all
                .iter()
                .find(|it| Header::read(it).unwrap().base_offset == base);
            found.cloned().unwrap()
        };
        assert_eq!(of(&before), of(&after), "{base:?}");
    }
}

#[test]
fn an_extent_that_goes_meanwhile_makes_the_swap_stale() {
    let mut bench = Bench::new(17);
    for _ in 0..900 {
        bench.append(50, 2500);
    }
    let (now, bound) = (bench.now, bench.end);
    let plan = bench
        .disk()
        .compaction(PART, bound, &ALWAYS, Some(now), None)
        .unwrap();
    let gone = plan.extents[0].last.plus(1);
    let mut compactor = Compactor::new(plan, KeyMap::default());
    while compactor.wants() != Wants::Swap {
        match compactor.wants() {
            Wants::Read => compactor.read(&bench.io.clone()).unwrap(),
            _ => bench.disk().compact(&mut compactor).unwrap(),
        }
    }
    bench.run(Op::LogStart {
        part: PART,
        offset: gone,
    });
    let swap = compactor.swap();
    let outcome = bench.run(swap);
    assert_eq!(outcome, Outcome::Stale);
    compactor.swapped(outcome);
    assert_eq!(compactor.wants(), Wants::Nothing);
    assert_eq!(compactor.finish().0.swaps, 0);
    // The extent that was reserved is given back.
    while bench.disk().work(false, Some(now)).unwrap().did {}
    assert_eq!(bench.disk().stats().freeing, 0);
    let used = bench.extents() as u64;
    assert_eq!(bench.disk().stats().extent_bytes, used << 20);
}

#[test]
fn a_full_disk_is_told_and_harmless() {
    let mut bench = Bench::new(19);
    for _ in 0..900 {
        bench.append(50, 2500);
    }
    bench.disk().config.use_bytes = bench.disk().stats().extent_bytes;
    let (cleaned, _) = bench.compact(KeyMap::default(), None).unwrap();
    assert_eq!((cleaned.no_room, cleaned.swaps), (true, 0));
    bench.check(None);
}

#[test]
fn a_cut_anywhere_leaves_the_old_log_or_the_new_one() {
    let mut bench = Bench::new(23);
    for _ in 0..1300 {
        bench.append(40, 2500);
    }
    bench.run_bytes = 1 << 20;
    let batches = bench.batches();
    let sealed = bench.sealed_end();
    bench.disk = None;
    let image = bench.io.snapshot();
    let mut cut_at = 0;
    let (mut old, mut part, mut new) = (0, 0, 0);
    loop {
        bench.disk = None;
        bench.io.restore(&image);
        bench.random = Random(cut_at);
        bench.open();
        bench.io.cut_after(cut_at);
        let done = bench.try_compact(KeyMap::default(), None).is_ok();
        bench.disk = None;
        bench.io.power_cut(cut_at);
        bench.verify();
        bench.open();
        let same = bench.batches() == batches;
        if !same {
            bench.check(done.then_some(sealed));
        }
        match (same, done) {
            (true, _) => old += 1,
            (false, false) => part += 1,
            (false, true) => new += 1,
        }
        // It goes on from wherever it was.
        if cut_at % 16 == 0 {
            bench.compact(KeyMap::default(), Some(Offset(0)));
            bench.check(Some(sealed));
        }
        if done {
            break;
        }
        cut_at += 1;
    }
    println!("{cut_at} cuts: {old} left the old log, {part} some of the new one, {new} all of it");
    assert!(old > 5 && part > 5 && new > 0);
}

#[test]
fn a_replay_does_not_refill_a_slot_that_a_compaction_took() {
    let mut bench = Bench::new(29);
    for _ in 0..700 {
        bench.append(50, 2500);
    }
    let now = Some(bench.now);
    for _ in 0..3 {
        bench.io.advance(core::time::Duration::from_secs(31));
        while bench.disk().work(false, now).unwrap().did {}
    }
    // A replica that comes and goes: its batch stays in the ring, its slot is free.
    let part = PartIx(1);
    let id = TopicPartition {
        partition: model::PartitionIndex(1),
        ..TopicPartition::default()
    };
    bench.run(Op::PartNew { part, id });
    let batch = bench.batch(50, 2500);
    bench.run(Op::Append(Append {
        part,
        base_offset: Offset(0),
        leader_epoch: LeaderEpoch(0),
        hw: Offset(0),
        gap: false,
        append_time: None,
        batch: batch.into(),
    }));
    let slot = bench.disk().parts[&part].extents[0];
    bench.run(Op::PartDel { part });
    while bench.disk().stats().freeing > 0 {
        bench.disk().work(false, now).unwrap();
    }
    let (cleaned, _) = bench.compact(KeyMap::default(), None).unwrap();
    assert_eq!(cleaned.swaps, 1);
    assert!(
        bench.disk().parts[&PART].extents.contains(&slot),
        "the slot is used again"
    );
    let batches = bench.batches();
    bench.disk = None;
    bench.io.power_cut(1);
    bench.open();
    assert_eq!(bench.batches(), batches);
}
