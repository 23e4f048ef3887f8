//! The client side of the command line: commands over the Kafka protocol, against any broker that speaks it.
//!
//! Blocking sockets and few threads: what a person or a script waits for gains nothing from more. Every connection is
//! opened by `connect.rs`. Nothing here knows the broker's own files, or more of its formats than the record batch.

mod batch;
mod bench;
mod cluster;
mod codec;
mod configs;
mod connect;
mod connection;
mod consume;
mod failure;
mod fetcher;
mod groups;
mod interrupt;
mod member;
mod offsets;
mod place;
mod produce;
pub mod progress;
mod sender;
mod table;
mod topics;

use std::process::ExitCode;

use clap::Subcommand;

pub use bench::BenchArgs;
pub use configs::ConfigsArgs;
pub use connect::Reach;
pub use consume::ConsumeArgs;
pub use failure::{Failure, exit};
pub use groups::GroupsArgs;
pub use produce::ProduceArgs;
pub use topics::TopicsArgs;

/// The commands that talk to a broker; they work against any that speaks the Kafka protocol.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List, describe, create, alter and delete topics
    Topics(TopicsArgs),
    /// List, describe, alter and delete consumer groups
    Groups(GroupsArgs),
    /// List, describe, alter and delete configs of topics and brokers
    Configs(ConfigsArgs),
    /// Send lines, or a file, as records
    Produce(ProduceArgs),
    /// Print records, alone or as a member of a group
    Consume(ConsumeArgs),
    /// Measure a broker under load: throughput, latencies, its processor time
    Bench(BenchArgs),
}

/// Does what was asked, says on stderr why it could not, and gives the exit code of [`exit`].
#[must_use]
pub fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Topics(args) => topics::run(&args),
        Command::Groups(args) => groups::run(&args),
        Command::Configs(args) => configs::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => failure.report(),
    }
}
