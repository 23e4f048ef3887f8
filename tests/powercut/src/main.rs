//! Power cuts: an emulated hard disk that forgets what was not flushed, and the run that cuts its power under the broker.
//!
//! `disk` is the emulator, `cuts` the long run, `scenario` the single faults, `stand-in` a proof that the emulator itself
//! can lose data and keeps what was flushed. All of it needs root and FUSE.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};

mod broker;
mod cache;
mod control;
mod cuts;
mod drive;
mod emulator;
mod fuse;
mod ledger;
mod mount;
mod phase;
mod producer;
mod rng;
mod scenario;
mod standin;
mod tally;
mod wire;
mod world;

#[derive(Parser)]
#[command(
    name = "powercut",
    about = "Cuts the power of emulated disks under the broker"
)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// One emulated disk: serves DIR/disk.img until standard input closes
    Disk {
        /// The sparse file that holds the platters
        image: PathBuf,
        /// Where to mount
        dir: PathBuf,
        /// The control socket
        socket: PathBuf,
        /// Size of the disk
        #[arg(long, default_value_t = 1 << 30)]
        bytes: u64,
        /// With the mechanics of a 7200 rpm drive, and without losses
        #[arg(long)]
        timed: bool,
        /// How long a FLUSH takes, when not timed
        #[arg(long, default_value_t = 0)]
        flush_us: u64,
        /// What the fates of a cut are drawn from
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Loads the broker, cuts the power, restarts and compares, so many times
    Cuts {
        /// How many cuts
        #[arg(default_value_t = 20)]
        cuts: u64,
        /// Replays an earlier run's choices
        seed: Option<u64>,
        /// A line a cut is added to this file; what it has counts when the least hit part of the store is aimed at
        #[arg(long)]
        ledger: Option<PathBuf>,
    },
    /// Single faults: all, or those named
    Scenario {
        /// Which; all if none is named
        names: Vec<String>,
        /// Replays an earlier run's choices
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Proves the emulator: appends with and without RWF_DSYNC, cuts, and counts what was lost
    StandIn {
        /// How many cuts of each kind
        #[arg(default_value_t = 5)]
        cuts: u64,
        /// Replays an earlier run's choices
        seed: Option<u64>,
    },
    /// An emulated disk with a file system for other programs, until standard input closes
    Hold {
        /// Where its files lie: the file system at DIR/disk/fs, the control socket at DIR/disk/control
        dir: PathBuf,
        /// XFS instead of ext4
        #[arg(long)]
        xfs: bool,
        /// Size of the disk
        #[arg(long, default_value_t = 24 << 30)]
        bytes: u64,
        /// Cuts can lose what was not flushed, at the speed of memory; else a 7200 rpm drive that loses nothing
        #[arg(long)]
        cuts: bool,
    },
    /// The writer of `stand-in`
    #[command(hide = true)]
    StandInWriter {
        /// The file to append to
        file: PathBuf,
        /// Without RWF_DSYNC
        #[arg(long)]
        lazy: bool,
    },
}

fn main() -> ExitCode {
    let done = match Command::parse().verb {
        Verb::Disk {
            image,
            dir,
            socket,
            bytes,
            timed,
            flush_us,
            seed,
        } => disk(&image, &dir, &socket, bytes, timed, flush_us, seed),
        Verb::Cuts { cuts, seed, ledger } => {
            let seed = seed.unwrap_or_else(rng::fresh_seed);
            cuts::run(cuts, seed, ledger.as_deref())
        }
        Verb::Scenario { names, seed } => {
            scenario::run(&names, seed.unwrap_or_else(rng::fresh_seed))
        }
        Verb::StandIn { cuts, seed } => standin::run(cuts, seed.unwrap_or_else(rng::fresh_seed)),
        Verb::Hold {
            dir,
            xfs,
            bytes,
            cuts,
        } => hold(&dir, xfs, bytes, !cuts),
        Verb::StandInWriter { file, lazy } => standin::write(&file, !lazy),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("powercut: {why}");
            ExitCode::FAILURE
        }
    }
}

fn disk(
    image: &std::path::Path,
    dir: &std::path::Path,
    socket: &std::path::Path,
    bytes: u64,
    timed: bool,
    flush_us: u64,
    seed: u64,
) -> io::Result<()> {
    let image = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(image)?;
    let emulator =
        emulator::Emulator::new(image, bytes, timed, seed, Duration::from_micros(flush_us))?;
    let emulator = Arc::new(emulator);
    let served = emulator.clone();
    std::thread::spawn(move || served.serve());
    let session = fuse::mount(emulator.clone(), dir)?;
    // Only now: whoever can connect finds the file in place.
    match std::fs::remove_file(socket) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    let controlled = emulator.clone();
    std::thread::spawn(move || control::serve(&listener, &controlled));
    mount::until_parent_ends();
    emulator.off();
    session.umount_and_join()
}

fn hold(dir: &std::path::Path, xfs: bool, bytes: u64, timed: bool) -> io::Result<()> {
    if let Some(why) = mount::missing() {
        return Err(io::Error::other(why));
    }
    let file_system = if xfs {
        mount::FileSystem::Xfs
    } else {
        mount::FileSystem::Ext4
    };
    let make = mount::Make {
        bytes,
        timed,
        seed: rng::fresh_seed(),
        flush_us: 0,
    };
    let disk = mount::Disk::new(dir, "disk", file_system, make)?;
    println!("{}", disk.dir.display());
    mount::until_parent_ends();
    Ok(())
}
