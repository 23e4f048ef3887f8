//! What a disk is asked to do, counted: device writes, flushes, bursts, and copies of a batch's bytes.
//!
//! The tables are snapshots. A number that rises costs head movements or memory bandwidth on every machine, however
//! fast the one is that measured it; one that falls is good news and is written down here too.

use core::fmt::Write as _;
use core::time::Duration;
use std::ops::Range;

use bytes::Bytes;
use model::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, Uuid};

use super::oracle::{TODAY, batch};
use super::world::FORMAT;
use crate::io::Name;
use crate::{
    Append, Config, Disk, FormatConfig, Locate, Located, MemIo, Op, Outcome, PartIx, PartSettings,
    Queue, Reach,
};

mod watch;

use watch::{Watch, Written};

/// A disk without chance: its file system commits nothing by itself, and its clock moves only with what is asked of it.
struct Bench {
    watch: Watch,
    disk: Disk<Watch>,
    queue: Queue<()>,
    ends: Vec<i64>,
}

impl Bench {
    /// With `parts` replicas, each with an open extent of 1 MiB, and nothing dirty.
    fn new(parts: u32) -> Self {
        let watch = Watch::new(MemIo::new(1, 1 << 32));
        let format = FormatConfig {
            journal_bytes: 64 << 20,
            ..FORMAT
        };
        Disk::format(&watch, &format).unwrap();
        let (disk, _) = Disk::open(watch.clone(), Config::default()).unwrap();
        let mut bench = Self {
            watch,
            disk,
            queue: Queue::default(),
            ends: vec![0; parts as usize],
        };
        for part in 0..parts {
            let id = TopicPartition {
                topic: TopicId(Uuid([7; 16])),
                partition: PartitionIndex(part),
            };
            bench.queue.push(
                Op::PartNew {
                    part: PartIx(part),
                    id,
                },
                (),
            );
            let settings = PartSettings {
                quota_bytes: 4 << 20,
                ..PartSettings::default()
            };
            let part = PartIx(part);
            bench.queue.push(Op::Settings { part, settings }, ());
        }
        bench.commit();
        for part in 0..parts {
            bench.append(part, 100);
        }
        bench.commit();
        bench.circle();
        bench
    }

    /// Queues a batch; says where its bytes lie.
    fn append(&mut self, part: u32, size: usize) -> Range<usize> {
        let bytes = Bytes::from(batch(1, size - 61, TODAY.0, None, u64::from(part)));
        let end = &mut self.ends[part as usize];
        let at = bytes.as_ptr() as usize;
        let range = at..at + bytes.len();
        let append = Append {
            part: PartIx(part),
            base_offset: Offset(*end),
            leader_epoch: LeaderEpoch(0),
            hw: Offset(0),
            gap: false,
            append_time: None,
            batch: bytes,
        };
        *end += 1;
        self.queue.push(Op::Append(append), ());
        range
    }

    /// Writes what is queued; says how many groups that took.
    fn commit(&mut self) -> u64 {
        let mut groups = 0;
        while !self.queue.is_empty() {
            let mut done = Vec::new();
            let committed = self
                .disk
                .commit(&mut self.queue, Some(TODAY), &mut done)
                .unwrap();
            assert!(done.iter().all(|(_, outcome)| *outcome == Outcome::Done));
            groups += u64::from(committed.seq.is_some());
        }
        groups
    }

    /// Background work until nothing is dirty and the checkpoint has its record.
    fn circle(&mut self) {
        let before = self.disk.stats().checkpoints;
        while self.disk.stats().dirty_bytes > 0 || self.disk.stats().checkpoints == before {
            self.watch.mem().advance(Duration::from_secs(31));
            while self.disk.work(false, Some(TODAY)).unwrap().did {}
        }
    }
}

/// One column a count.
fn row(out: &mut String, what: &str, counts: &[u64]) {
    write!(out, "{what:28}").unwrap();
    for count in counts {
        write!(out, " {count:9}").unwrap();
    }
    out.push('\n');
}

#[test]
fn a_group_is_one_device_write_and_no_flush_however_many_batches_it_takes() {
    let mut table = String::new();
    for (parts, batches, size) in [
        (1, 1, 100),
        (1, 1, 65_536),
        (1, 100, 1_000),
        (16, 1, 16_384),
        (100, 1, 1_000),
        (100, 9, 1_000),
    ] {
        let mut bench = Bench::new(parts);
        for _ in 0..batches {
            for part in 0..parts {
                bench.append(part, size);
            }
        }
        let before = bench.watch.mem().counts();
        let groups = bench.commit();
        let after = bench.watch.mem().counts();
        row(
            &mut table,
            &format!("{parts} x {batches} x {size} B"),
            &[
                groups,
                after.journal_writes - before.journal_writes,
                after.cache_writes - before.cache_writes,
                after.flushes - before.flushes,
                after.syncs - before.syncs,
                after.settles - before.settles,
                after.journal_read_bytes - before.journal_read_bytes,
            ],
        );
    }
    // Partitions x batches x size: groups, writes to the ring, into the page cache, FLUSHes, fsyncs, settled pieces, bytes
    // read of the ring. Batches of one partition that lie behind each other go into the page cache together.
    assert_eq!(
        table,
        "\
1 x 1 x 100 B                        1         1         1         0         0         0         0
1 x 1 x 65536 B                      1         1         1         0         0         0         0
1 x 100 x 1000 B                     1         1         1         0         0         0         0
16 x 1 x 16384 B                     1         1        16         0         0         0         0
100 x 1 x 1000 B                     1         1       100         0         0         0         0
100 x 9 x 1000 B                     1         1       100         0         0         0         0
",
        "\n{table}"
    );
}

#[test]
fn a_circle_settles_a_few_pieces_with_one_flush_each_and_ends_with_one_checkpoint() {
    let mut table = String::new();
    for (parts, size) in [
        (1, 1_000),
        (1, 900_000),
        (8, 1_000),
        (64, 1_000),
        (64, 100_000),
    ] {
        let mut bench = Bench::new(parts);
        for part in 0..parts {
            bench.append(part, size);
        }
        bench.commit();
        let (before, asked) = (bench.disk.stats(), bench.watch.mem().counts());
        bench.circle();
        let (after, asked_after) = (bench.disk.stats(), bench.watch.mem().counts());
        row(
            &mut table,
            &format!("{parts} x {size} B"),
            &[
                after.circles - before.circles,
                after.bursts - before.bursts,
                after.settles - before.settles,
                after.pieces - before.pieces,
                after.checkpoints - before.checkpoints,
                asked_after.flushes - asked.flushes,
                asked_after.syncs - asked.syncs,
                asked_after.journal_writes - asked.journal_writes,
            ],
        );
    }
    // Dirty extents x bytes: circles, bursts, settles, pieces, checkpoints; and of the device: FLUSHes, syncs of
    // the checkpoint's file, groups for the CKPT record. Each settle and each sync is one FLUSH.
    assert_eq!(
        table, "\
1 x 1000 B                           1         1         1         1         1         3         2         1
1 x 900000 B                         1         1         1         1         1         3         2         1
8 x 1000 B                           1         1         2         8         1         4         2         1
64 x 1000 B                          1         2        16        64         1        18         2         1
64 x 100000 B                        1         2        16        64         1        18         2         1
",
        "\n{table}"
    );
}

#[test]
fn a_batch_is_copied_into_the_group_and_from_there_into_the_page_cache() {
    let mut bench = Bench::new(1);
    for size in [120, 5_000, 65_536, 800_000] {
        let receive_buffer = bench.append(0, size);
        bench.watch.forget();
        assert_eq!(bench.commit(), 1);
        let seen = bench.watch.seen();
        let of = |journal: bool| {
            let named = seen.iter();
            named.filter(move |it| (it.name == Name::Journal) == journal)
        };
        let groups: Vec<_> = of(true).map(|it| it.memory.clone()).collect();
        let [group] = groups.as_slice() else {
            panic!("{size} B: written to the ring {} times", groups.len());
        };
        assert!(apart(group, &receive_buffer), "a group is aligned memory");
        // Beside it only what completes its first and its last page.
        let batches: Vec<_> = of(false).filter(|it| it.memory.len() == size).collect();
        let [Written { name, memory }] = batches.as_slice() else {
            panic!("{size} B: in the page cache {} times", batches.len());
        };
        assert!(matches!(name, Name::Extent(_)));
        assert!(
            group.start < memory.start && memory.end <= group.end,
            "{size} B: a third copy"
        );
        assert!(of(false).all(|it| it.memory.len() == size || it.memory.len() < 4096));
    }
}

/// Whether two places in memory have nothing in common.
fn apart(one: &Range<usize>, two: &Range<usize>) -> bool {
    one.end <= two.start || two.end <= one.start
}

#[test]
fn a_batch_on_its_way_out_is_a_range_of_a_file() {
    let mut bench = Bench::new(1);
    for _ in 0..4 {
        bench.append(0, 65_536);
    }
    bench.commit();
    bench.watch.forget();
    let ask = Locate {
        part: PartIx(0),
        from: Offset(1),
        until: Offset(5),
        bytes_max: u64::MAX,
        at_least_one: true,
    };
    let view = bench.disk.view();
    let Located::Ranges(ranges) = view.locate(&ask, Reach::Memory).unwrap() else {
        panic!("it was written just now");
    };
    let bytes: usize = ranges.iter().map(crate::Range::len).sum();
    assert_eq!((ranges.len(), bytes), (1, 4 * 65_536));
    // Headers are read to find where batches begin, never what is between them.
    let read = bench.watch.read_bytes();
    assert!(read <= 4 * 4096, "{read} B were read for {bytes} B");
}
