//! `howdah`: one binary for the broker, its disks' tools, and the client side of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod authorise;
mod clock;
mod cluster;
mod conn;
mod context;
mod core;
mod counters;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod counts;
mod dispatch;
mod handover;
mod histogram;
mod http;
mod limits;
mod listener;
mod lock;
mod logs;
mod metrics;
mod mutation;
mod offline;
mod pool;
mod random;
mod replies;
mod run;
mod sessions;
mod spindle;
mod status;
mod stream;

/// Exit codes, the same for every command.
mod exit {
    use std::process::ExitCode;

    /// A fault was found, or the command failed.
    pub(crate) const FAULT: u8 = 1;
    /// Wrong usage, or a site that is not legal.
    pub(crate) const USAGE: u8 = 2;
    /// Refused to protect data.
    pub(crate) const REFUSED: u8 = 3;
    /// The meta disk failed: start again, which replays it.
    pub(crate) const META_DISK: u8 = 10;

    pub(crate) fn code(code: u8) -> ExitCode {
        ExitCode::from(code)
    }
}

#[derive(Parser)]
#[command(
    name = "howdah",
    version,
    about = "A Kafka-compatible log broker for hard disks",
    after_help = "Exit codes: 0 done, 1 fault found, 2 wrong usage or site, 3 refused to protect data, 4 can't reach, 10 the meta disk failed.\n\
        Try it: `howdah run` in one terminal; in another\n  \
        seq 1000 | howdah produce numbers\n  howdah consume numbers --from earliest"
)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve a site's node: without arguments, a single node on loopback
    Run(RunArgs),
    /// Say what is wrong with a site file, or what it plans
    Check {
        /// The site file
        file: PathBuf,
        /// Print the plan as JSON
        #[arg(long)]
        json: bool,
    },
    /// Prepare a node's disks; refuses what is not blank
    Format(FormatArgs),
    /// Read every byte of a stopped node's disk and name each fault
    Verify {
        #[command(flatten)]
        disk: DiskArgs,
        /// Print faults as JSON lines
        #[arg(long)]
        json: bool,
    },
    /// List what a rotten journal lost, per partition; --accept serves the rest
    Recover {
        #[command(flatten)]
        disk: DiskArgs,
        /// Take the losses listed and let the partitions serve again
        #[arg(long)]
        accept: bool,
    },
    /// Take data disks over after their meta disk was replaced
    Adopt(AdoptArgs),
    /// Print journal records, extents and batches of a stopped node's disk
    Dump {
        /// A disk's directory, or one file of it
        path: PathBuf,
        /// The disk's journal, where that is a device of its own
        #[arg(long, value_name = "PATH")]
        journal: Option<PathBuf>,
        /// Print JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Show a running node: role, lease, clock, disks; --confirm-clock believes a clock that made a step
    Cluster(ClusterArgs),
    #[command(flatten)]
    Client(cli::Command),
}

/// A disk of a stopped node.
#[derive(Args)]
pub(crate) struct DiskArgs {
    /// The disk's directory
    pub(crate) dir: PathBuf,
    /// Its journal, where that is a device of its own
    #[arg(long, value_name = "PATH")]
    pub(crate) journal: Option<PathBuf>,
}

/// A node of a site.
#[derive(Args)]
pub(crate) struct NodeArgs {
    /// Which node of the site this is; may be left out if there is one
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Where relative disk paths begin
    #[arg(long, default_value = "data")]
    pub(crate) data: PathBuf,
}

/// `howdah run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Site file; the embedded single-node site if absent; `-`: its blob on standard input, as an appliance's board gives it
    #[arg(long)]
    pub(crate) site: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) own: NodeArgs,
    /// Where a disk lies that the site file names by its serial number: its place there from 0, its root, its ring's device
    #[arg(long, value_name = "N=ROOT,RING")]
    pub(crate) disk: Vec<handover::HandedDisk>,
    /// Kafka address instead of the site's; port 0 picks a free one and prints it
    #[arg(long)]
    pub(crate) kafka: Option<SocketAddr>,
    /// HTTP address instead of the site's; port 0 picks a free one
    #[arg(long)]
    pub(crate) http: Option<SocketAddr>,
}

/// `howdah format`.
#[derive(Args)]
pub(crate) struct FormatArgs {
    /// Site file
    #[arg(long)]
    pub(crate) site: PathBuf,
    #[command(flatten)]
    pub(crate) own: NodeArgs,
    /// Erase this disk (its directory as written in the site file) although it is not blank
    #[arg(long)]
    pub(crate) erase: Vec<String>,
}

/// `howdah adopt`.
#[derive(Args)]
#[command(
    after_help = "A meta disk holds the site log: which topics there are, and what they are called. Data disks know their \
    partitions only by the topics' ids, so tell what they were called; the name __consumer_offsets gives consumer groups \
    their offsets back. What is not told gets a name made of its id.\n\n\
    Example:\n  \
    howdah adopt data/d2 data/d3                                      what they hold\n  \
    howdah adopt data/d2 data/d3 --site site.toml --topic 5d1e…=telemetry --accept"
)]
pub(crate) struct AdoptArgs {
    /// Directories of the data disks
    #[arg(required = true)]
    pub(crate) dirs: Vec<PathBuf>,
    /// Site file; its node's meta disk, the one not named here, must be blank
    #[arg(long)]
    pub(crate) site: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) own: NodeArgs,
    /// What the topic of this id was called; may be given more than once
    #[arg(long, value_name = "ID=NAME")]
    pub(crate) topic: Vec<String>,
    /// Do it; without this, only show what the disks hold
    #[arg(long, requires = "site")]
    pub(crate) accept: bool,
}

/// `howdah cluster`.
#[derive(Args)]
#[command(
    after_help = "A clock that goes forward by more than a day is not believed, and nothing is deleted by its age, until it went on \
    steadily for a day or --confirm-clock says that it is right. That is taken from the node's own machine only."
)]
pub(crate) struct ClusterArgs {
    /// The node's HTTP address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    pub(crate) http: String,
    /// Believe the node's clock, and delete by age again
    #[arg(long)]
    pub(crate) confirm_clock: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn main() -> ExitCode {
    match Command::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Check { file, json } => offline::check(&file, json),
        Verb::Format(args) => offline::format(&args),
        Verb::Verify { disk, json } => offline::verify(&disk, json),
        Verb::Recover { disk, accept } => offline::recover(&disk, accept),
        Verb::Adopt(args) => offline::adopt(&args),
        Verb::Dump {
            path,
            journal,
            json,
        } => offline::dump(&path, journal, json),
        Verb::Cluster(args) => cluster::run(&args),
        Verb::Client(command) => cli::run(command),
    }
}
