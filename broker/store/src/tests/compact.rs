//! The compactor against a list of records: what a reader by offset sees afterwards, and after a cut at any place.

use model::batch::{Codec, Header};
use model::record::{Builder, Producer};
use model::{LeaderEpoch, Offset, TopicPartition, WallMs};

use super::oracle::TODAY;
use crate::compact::{Compactor, KeyMap, Wants};
use crate::io::mem::Random;
mod bench;

use crate::{Append, Op, Outcome, PartIx};
use bench::{ALWAYS, Bench, CODECS, HOUR, PART};

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
fn a_record_out_of_its_place_takes_no_later_one_with_it() {
    let mut bench = Bench::new(16);
    let mut early = super::oracle::batch(1, 0, TODAY.0, None, 0);
    let none = std::iter::empty();
    // It says that it is the millionth of its batch, which has one.
    model::record::write(&mut early, 1_000_000, 0, Some(b"only"), Some(b"1"), none);
    model::batch::seal(&mut early);
    bench.run(Op::Append(Append {
        part: PART,
        base_offset: Offset(0),
        leader_epoch: LeaderEpoch(0),
        hw: Offset(0),
        gap: false,
        append_time: None,
        batch: early.into(),
    }));
    bench.end = Offset(1);
    let mut late = Builder::default();
    late.push(TODAY.0, Some(b"only"), Some(b"2"), std::iter::empty());
    bench.append_bytes(late.finish(Codec::None, Producer::NONE).unwrap());
    for _ in 0..900 {
        bench.append(50, 2500);
    }
    let (cleaned, _) = bench.compact(KeyMap::default(), None).unwrap();
    assert!(cleaned.records_dropped > 0 && cleaned.opaque == 1);
    let late = bench.batches().into_iter().nth(1).unwrap();
    let header = Header::read(&late).unwrap();
    assert_eq!((header.base_offset, header.records_count), (Offset(1), 1));
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
