//! What a disk gives for the same promise, "64 places got another record and all of it is on the medium", in four ways:
//!
//! - `sequential`: one O_DIRECT write with RWF_DSYNC at the head of a ring: the limit, of no use as a log of 64 partitions;
//! - `layout`: the same write, and the records go to 64 preallocated extents through the page cache, written out behind it
//!   in sweeps by disk address in bursts that are settled before the next commit;
//! - `random`: 64 O_DIRECT writes at random places and one flush;
//! - `each`: 64 O_DIRECT writes at random places with RWF_DSYNC each, which is what a file and an fsync a partition come to.
//!
//! The time of `layout` ends when the last lazy byte is settled, so nothing is left out of its figure.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::{ReadWriteFlags, pwritev2};

use crate::numbers::{Latencies, Random};

const PLACES: usize = 64;
const RECORDS: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
const PIECE_BYTES_MAX: u64 = 4 << 20;
/// Four of 4 MiB take about 25 ms each on a disk of 180 MB/s.
const PIECES_UNSETTLED_MAX: usize = 4;
const BURST: Duration = Duration::from_millis(80);

#[derive(Args)]
pub(crate) struct Options {
    /// A directory on the disk
    path: PathBuf,
    /// Seconds of each figure
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// MiB of the ring and of the area for random writes, each
    #[arg(long, default_value_t = 1024)]
    mib: u64,
}

/// Page-aligned bytes, which O_DIRECT wants.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Self {
        let memory = vec![0x5A; bytes + 4096];
        let from = memory.as_ptr().align_offset(4096);
        Self { memory, from }
    }

    fn bytes(&self, count: usize) -> &[u8] {
        &self.memory[self.from..][..count]
    }
}

/// Removes what was made, also after an error.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
}

/// A file whose blocks are written: later writes change no metadata.
fn written(path: &Path, bytes: u64) -> io::Result<File> {
    let mut plain = open(path, 0)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        plain.write_all(&zeros)?;
    }
    plain.sync_all()?;
    open(path, libc::O_DIRECT)
}

fn write_at(file: &File, bytes: &[u8], at: u64, flags: ReadWriteFlags) -> io::Result<()> {
    let wrote = pwritev2(file, &[io::IoSlice::new(bytes)], at, flags)?;
    if wrote == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::other("a short write"))
    }
}

/// One partition's place: bytes below `clean` are settled, those up to `len` are in the page cache.
struct Extent {
    file: File,
    len: u64,
    clean: u64,
    bytes: u64,
}

impl Extent {
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.len + record.len() as u64 > self.bytes {
            // The next life of an extent: zeroed, never overwritten in place.
            sync_range(&self.file, 0, self.bytes, SETTLE)?;
            fallocate(&self.file, FallocateFlags::ZERO_RANGE, 0, self.bytes)?;
            (self.len, self.clean) = (0, 0);
        }
        self.file.write_all_at(record, self.len)?;
        self.len += record.len() as u64;
        Ok(())
    }

    /// The next piece to write out.
    fn piece(&self) -> Option<(u64, u64)> {
        let from = self.clean & !4095;
        (self.clean < self.len).then(|| (from, (self.len - from).min(PIECE_BYTES_MAX)))
    }
}

fn sync_range(file: &File, from: u64, bytes: u64, flags: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call reads no memory of ours.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), from as i64, bytes as i64, flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const SETTLE: u32 = libc::SYNC_FILE_RANGE_WAIT_BEFORE
    | libc::SYNC_FILE_RANGE_WRITE
    | libc::SYNC_FILE_RANGE_WAIT_AFTER;

/// Extents in the order they were allocated, which is their order on the disk.
struct Sweep {
    extents: Vec<Extent>,
    next: usize,
}

impl Sweep {
    fn dirty(&self) -> u64 {
        self.extents.iter().map(|it| it.len - it.clean).sum()
    }

    /// Writes on by address until `most` has passed or all is clean, and settles it.
    fn burst(&mut self, ring: &File, most: Duration) -> io::Result<()> {
        let begin = Instant::now();
        let mut pieces = Vec::new();
        for _ in 0..self.extents.len() {
            while let Some((from, bytes)) = self.extents[self.next].piece() {
                let extent = &mut self.extents[self.next];
                sync_range(&extent.file, from, bytes, libc::SYNC_FILE_RANGE_WRITE)?;
                extent.clean = (from + bytes).min(extent.len);
                pieces.push((self.next, from, bytes));
                if pieces.len() == PIECES_UNSETTLED_MAX {
                    self.settle(&mut pieces, ring)?;
                }
                if begin.elapsed() > most {
                    return self.settle(&mut pieces, ring);
                }
            }
            self.next = (self.next + 1) % self.extents.len();
        }
        self.settle(&mut pieces, ring)
    }

    /// Waits for the pieces and sends one flush: the next commit's flush pays for that commit alone.
    fn settle(&self, pieces: &mut Vec<(usize, u64, u64)>, ring: &File) -> io::Result<()> {
        for (extent, from, bytes) in pieces.drain(..) {
            sync_range(&self.extents[extent].file, from, bytes, SETTLE)?;
        }
        Ok(fdatasync(ring)?)
    }
}

fn figure(way: &str, record: usize, options: &Options) -> io::Result<String> {
    // In a directory of its own, gone when the figure is made: no way finds the other's blocks.
    let dir = Scratch(
        options
            .path
            .join(format!("bench-disk-{}", std::process::id())),
    );
    fs::create_dir_all(&dir.0)?;
    let area = options.mib << 20;
    let group = record * PLACES;
    let memory = Aligned::new(group);
    let ring = written(&dir.0.join("ring"), area)?;
    let mut sweep = Sweep {
        extents: Vec::new(),
        next: 0,
    };
    if way == "layout" {
        for place in 0..PLACES {
            let file = open(&dir.0.join(place.to_string()), 0)?;
            let bytes = area / PLACES as u64;
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            file.sync_all()?;
            sweep.extents.push(Extent {
                file,
                len: 0,
                clean: 0,
                bytes,
            });
        }
    }
    // What a circle of the sweep may gather, as in the broker: less than half of the ring, 4 MiB an extent.
    let dirty_max = (area * 45 / 100).min(PLACES as u64 * PIECE_BYTES_MAX);
    let mut random = Random::new(record as u64);
    let (begin, mut latencies, mut at) = (Instant::now(), Latencies::default(), 0);
    while begin.elapsed() < Duration::from_secs_f64(options.seconds) {
        let commit = Instant::now();
        match way {
            "random" | "each" => {
                let flags = if way == "each" {
                    ReadWriteFlags::DSYNC
                } else {
                    ReadWriteFlags::empty()
                };
                for _ in 0..PLACES {
                    let place = random.below(area / record as u64) * record as u64;
                    write_at(&ring, memory.bytes(record), place, flags)?;
                }
                if way == "random" {
                    fdatasync(&ring)?;
                }
            }
            _ => {
                for extent in &mut sweep.extents {
                    extent.append(memory.bytes(record))?;
                }
                if at + group as u64 > area {
                    at = 0;
                }
                write_at(&ring, memory.bytes(group), at, ReadWriteFlags::DSYNC)?;
                at += group as u64;
            }
        }
        latencies.add(commit.elapsed());
        if sweep.dirty() > dirty_max {
            let burst = Instant::now();
            sweep.burst(&ring, BURST)?;
            latencies.add_to_last(burst.elapsed());
        }
    }
    while sweep.dirty() > 0 {
        sweep.burst(&ring, Duration::MAX)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let commits = latencies.len();
    let mb_per_s = (commits * group) as f64 / 1e6 / seconds;
    Ok(format!(
        "{{\"way\":\"{way}\",\"record\":{record},\"commits\":{commits},\"mb_per_s\":{mb_per_s:.3},{}}}",
        latencies.json()
    ))
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let least = (RECORDS[RECORDS.len() - 1] * PLACES) as u64;
    if options.mib << 20 < 4 * least {
        return Err(io::Error::other(format!(
            "--mib must be at least {}",
            (4 * least) >> 20
        )));
    }
    let mut rows = Vec::new();
    for way in ["sequential", "layout", "random", "each"] {
        for record in RECORDS {
            eprintln!("{way}, 64 x {} KiB", record >> 10);
            rows.push(figure(way, record, options)?);
        }
    }
    println!("[{}]", rows.join(","));
    Ok(())
}
