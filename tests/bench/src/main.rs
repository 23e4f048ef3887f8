//! The loads and yardsticks of `scripts/bench` that must cost little themselves: a produce load of one record a request, a
//! closed loop of rounds over many partitions, readers, a bare `sendfile` server that speaks just enough Kafka, and the two
//! programs that measure disk and copies.
//!
//! Each prints `start` when its counted part begins and `end` when it is over, each on a line of its own, so that the driver
//! can read the broker's counters at both; then one line of JSON. It never looks at the broker's process itself.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod disk;
mod numbers;
mod protocol;
mod readers;
mod rounds;
mod server;
mod unbatched;
mod zerocopy;

#[derive(Parser)]
#[command(name = "bench", about = "Loads and yardsticks of scripts/bench")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Many connections, one small record a request, one request in flight each
    Unbatched(unbatched::Options),
    /// One connection in a closed loop: each round appends a batch to many partitions and waits for all of them
    Rounds(rounds::Options),
    /// Consumers that fetch and throw away
    Readers(readers::Options),
    /// A server that only knows `sendfile`, asked by Kafka consumers
    Server(server::Options),
    /// Durable writes in one place, in random places, and in our layout
    Disk(disk::Options),
    /// CPU of sending a file by read+write, mmap+write and sendfile
    ZeroCopy {
        /// A file of at least 256 MiB; its beginning is read
        file: PathBuf,
        /// How much to send for each figure
        #[arg(long, default_value_t = 1.0)]
        gigabytes: f64,
        /// Figures of each kind, of which the least is taken
        #[arg(long, default_value_t = 3)]
        turns: u32,
    },
}

fn main() -> ExitCode {
    let done: io::Result<()> = match Command::parse().verb {
        Verb::Unbatched(options) => unbatched::run(&options),
        Verb::Rounds(options) => rounds::run(&options),
        Verb::Readers(options) => readers::run(&options),
        Verb::Server(options) => server::run(&options),
        Verb::Disk(options) => disk::run(&options),
        Verb::ZeroCopy {
            file,
            gigabytes,
            turns,
        } => zerocopy::run(&file, gigabytes, turns),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}
