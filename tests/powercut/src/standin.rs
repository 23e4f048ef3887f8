//! A stand-in for the broker that proves the emulator: what RWF_DSYNC acknowledged survives every cut, and without it
//! much is lost.
//!
//! ```text
//! block of 4 KiB:  number u64 · crc u32 over the rest · filler drawn from the number
//! ```
//! The writer overwrites a file that was written once, as the journal's ring is, and prints each number after its write
//! returned. The auditor knows the last number that it read before the cut.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;

use crate::control::Control;
use crate::mount::{Disk, FileSystem, Make, missing};
use crate::rng::Rng;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 16 << 10;

/// O_DIRECT wants memory on a sector.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

impl Block {
    fn of(number: u64) -> Self {
        let mut block = Self([0; BLOCK]);
        let mut rng = Rng::new(number);
        for word in block.0.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next().to_le_bytes());
        }
        block.0[..8].copy_from_slice(&number.to_le_bytes());
        let crc = crc32c::crc32c(&block.0[12..]) ^ number as u32;
        block.0[8..12].copy_from_slice(&crc.to_le_bytes());
        block
    }
}

/// Writes blocks 1, 2, 3, … and prints each number when it is written, until the file is full.
pub(crate) fn write(path: &Path, sync: bool) -> io::Result<()> {
    // Past the page cache in both cases: without sync each block reaches the drive's cache, and no further.
    let flags = OFlags::DIRECT.bits() as i32;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)?;
    let how = if sync {
        ReadWriteFlags::DSYNC
    } else {
        ReadWriteFlags::empty()
    };
    let mut out = io::stdout().lock();
    for number in 1..BLOCKS {
        let block = Block::of(number);
        rustix::io::pwritev2(&file, &[IoSlice::new(&block.0)], number * BLOCK as u64, how)?;
        writeln!(out, "{number}")?;
        out.flush()?;
    }
    Ok(())
}

/// Blocks that are acknowledged before a cut.
const WRITTEN_MIN: u64 = 32;
/// A writer that is slower than this is cut all the same.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// Cuts `cuts` times on each file system, with sync and without.
pub(crate) fn run(cuts: u64, seed: u64) -> io::Result<()> {
    if let Some(why) = missing() {
        println!("SKIPPED: {why}");
        return Ok(());
    }
    println!("seed {seed}");
    let base = crate::mount::scratch()?;
    let mut rng = Rng::new(seed);
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        let make = Make {
            bytes: 512 << 20,
            timed: false,
            seed: rng.next(),
            flush_us: 300,
        };
        let mut disk = Disk::new(base.path(), file_system.name(), file_system, make)?;
        for sync in [true, false] {
            let (mut acknowledged, mut lost) = (0, 0);
            for _ in 0..cuts {
                let (acked, gone) = one_cut(&mut disk, sync, &mut rng)?;
                acknowledged += acked;
                lost += gone;
            }
            let name = file_system.name();
            let how = if sync { "with RWF_DSYNC" } else { "without" };
            println!(
                "{name} {how}: {cuts} cuts, {acknowledged} blocks acknowledged, {lost} lost, {} repairs",
                disk.repairs
            );
            if sync && lost > 0 {
                return Err(io::Error::other(format!(
                    "{name}: {lost} flushed blocks are gone"
                )));
            }
            if !sync && lost == 0 {
                return Err(io::Error::other(format!(
                    "{name}: nothing was lost without sync: the cuts are harmless"
                )));
            }
        }
    }
    faults(base.path(), rng.next())?;
    turns(base.path(), rng.next())?;
    println!("seed {seed}");
    Ok(())
}

/// Each fault that can be ordered arrives where it was ordered, once, and is gone when the disk is healed.
fn faults(base: &Path, seed: u64) -> io::Result<()> {
    let make = Make {
        bytes: 512 << 20,
        timed: false,
        seed,
        flush_us: 0,
    };
    let mut disk = Disk::new(base, "faulty", FileSystem::Ext4, make)?;
    let path = disk.dir.join("ring");
    File::create(&path)?.write_all_at(&[0; 64 * BLOCK], 0)?;
    File::open(&path)?.sync_all()?;
    let mut options = OpenOptions::new();
    let ring = options.read(true).write(true);
    let ring = ring
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(&path)?;
    let (offset, _) = disk.places(&path)?[0];
    let mut scratch = Block::of(0);
    let write = |number: u64, how| {
        let block = Block::of(number);
        let at = number * BLOCK as u64;
        rustix::io::pwritev2(&ring, &[IoSlice::new(&block.0)], at, how).map(|_| ())
    };
    let expect = |what: &str, fails: bool, done: bool| match fails != done {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{what}: failed is {}, ordered was {fails}",
            !done
        ))),
    };
    disk.control.say("eio write 2")?;
    for (number, fails) in [(1, false), (2, true), (3, false)] {
        expect(
            "the second write",
            fails,
            write(number, ReadWriteFlags::empty()).is_ok(),
        )?;
    }
    disk.control.say("eio flush 1")?;
    expect("a flush", true, write(4, ReadWriteFlags::DSYNC).is_ok())?;
    expect(
        "the next flush",
        false,
        write(5, ReadWriteFlags::DSYNC).is_ok(),
    )?;
    disk.control
        .say(&format!("eio read {} 512", offset + 7 * BLOCK as u64))?;
    for (number, fails) in [(6, false), (7, true), (8, false)] {
        let read = ring.read_exact_at(&mut scratch.0, number * BLOCK as u64);
        expect("a read", fails, read.is_ok())?;
    }
    disk.control.say("heal")?;
    expect(
        "a healed read",
        false,
        ring.read_exact_at(&mut scratch.0, 7 * BLOCK as u64).is_ok(),
    )?;
    let began = Instant::now();
    disk.control.say("stall 700")?;
    expect(
        "a stalled write",
        false,
        write(9, ReadWriteFlags::DSYNC).is_ok(),
    )?;
    if began.elapsed() < Duration::from_millis(690) {
        return Err(io::Error::other(format!(
            "a stall of 700 ms took {:?}",
            began.elapsed()
        )));
    }
    println!("faults: write, flush, read, stall arrive as ordered");
    Ok(())
}

/// A commit of 16 KiB on the timed disk can't be faster than a turn of the platter: if it is, no FLUSH arrives.
fn turns(base: &Path, seed: u64) -> io::Result<()> {
    const COMMITS: u32 = 120;
    let make = Make {
        bytes: 512 << 20,
        timed: true,
        seed,
        flush_us: 0,
    };
    let disk = Disk::new(base, "timed", FileSystem::Ext4, make)?;
    let path = disk.dir.join("ring");
    let ring = File::create(&path)?;
    ring.write_all_at(&vec![0; 4 << 20], 0)?;
    ring.sync_all()?;
    let ring = OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(&path)?;
    let blocks: Vec<Block> = (0..4).map(Block::of).collect();
    let group: Vec<IoSlice<'_>> = blocks.iter().map(|it| IoSlice::new(&it.0)).collect();
    let mut took = Vec::new();
    for n in 0..COMMITS {
        let began = Instant::now();
        rustix::io::pwritev2(
            &ring,
            &group,
            u64::from(n) * 16 * 1024,
            ReadWriteFlags::DSYNC,
        )?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("timed: a commit of 16 KiB takes {p50:.1?}, p99 {p99:.1?}");
    if p50 < Duration::from_millis(8) {
        return Err(io::Error::other(format!(
            "a commit takes {p50:?}: faster than the platter turns"
        )));
    }
    Ok(())
}

fn one_cut(disk: &mut Disk, sync: bool, rng: &mut Rng) -> io::Result<(u64, u64)> {
    let path = disk.dir.join("ring");
    let ring = File::create(&path)?;
    for number in 0..BLOCKS {
        ring.write_all_at(&[0; BLOCK], number * BLOCK as u64)?;
    }
    ring.sync_all()?;
    File::open(&disk.dir)?.sync_all()?;
    drop(ring);
    disk.control.say("fragile none")?;
    disk.fragile(&path)?;
    let before = disk.control.say("stats")?;
    let (mut writer, last) = start_writer(&path, sync)?;
    // A cut before anything was acknowledged shows nothing.
    let began = Instant::now();
    while last.load(Ordering::Acquire) < WRITTEN_MIN && began.elapsed() < WRITTEN_WITHIN {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100 + rng.below(400)));
    // Nothing acknowledged after the cut counts, and nothing before it is missed: the number is read first.
    let acknowledged = last.load(Ordering::Acquire);
    disk.control.say("cut")?;
    let after = disk.control.say("stats")?;
    writer.kill()?;
    if sync {
        let flushes = Control::number(&after, "flushes") - Control::number(&before, "flushes");
        if flushes < acknowledged {
            return Err(io::Error::other(format!(
                "{acknowledged} synced writes and only {flushes} flushes"
            )));
        }
    }
    disk.power_cycle()?;
    writer.wait()?;
    let ring = File::open(&path)?;
    let mut lost = 0;
    for number in 1..=acknowledged {
        let mut block = [0; BLOCK];
        ring.read_exact_at(&mut block, number * BLOCK as u64)?;
        lost += u64::from(block != Block::of(number).0);
    }
    Ok((acknowledged, lost))
}

fn start_writer(path: &Path, sync: bool) -> io::Result<(Child, Arc<AtomicU64>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("stand-in-writer").arg(path);
    if !sync {
        command.arg("--lazy");
    }
    let mut writer = command.stdout(Stdio::piped()).spawn()?;
    let out = writer.stdout.take().expect("it was asked for");
    let last = Arc::new(AtomicU64::new(0));
    let seen = last.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Ok(number) = line.parse() {
                seen.store(number, Ordering::Release);
            }
        }
    });
    Ok((writer, last))
}
