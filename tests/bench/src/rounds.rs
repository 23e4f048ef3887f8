//! A closed loop of one producer: a round is one request with a batch for each of some partitions, and the next round begins
//! when all of them are acknowledged. On a disk that turns, this is the load that shows what a commit costs.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;

use crate::numbers::{Latencies, Random};
use crate::protocol::{self, Caller};

#[derive(Args)]
pub(crate) struct Options {
    /// host:port of the broker
    address: String,
    /// The topic, which exists
    topic: String,
    /// How many partitions the topic has
    #[arg(long)]
    partitions: u32,
    /// How many of them a round writes to, drawn anew each round when fewer
    #[arg(long)]
    per_round: u32,
    /// Bytes of each batch
    #[arg(long, default_value_t = 16 << 10)]
    batch_bytes: usize,
    /// The counted part
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// What goes before it
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Ends when so many bytes are acknowledged
    #[arg(long)]
    bytes: Option<u64>,
    /// What the rounds' partitions are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Kafka takes seconds to lead a thousand new partitions.
const LED_WITHIN_SECONDS: f64 = 60.0;

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let mut caller = Caller::connect(&options.address)?;
    let mut random = Random::new(options.seed);
    let batch = protocol::batch_of(options.batch_bytes);
    let mut all: Vec<u32> = (0..options.partitions).collect();
    let per_round = options.per_round.min(options.partitions) as usize;
    let fixed = protocol::produce(&options.topic, &all[..per_round], &batch);
    let mut round = |caller: &mut Caller| -> io::Result<bool> {
        if per_round == all.len() {
            return protocol::produced(caller.ask(&fixed)?);
        }
        for i in 0..per_round {
            let other = i + random.below((all.len() - i) as u64) as usize;
            all.swap(i, other);
        }
        let frame = protocol::produce(&options.topic, &all[..per_round], &batch);
        protocol::produced(caller.ask(&frame)?)
    };
    // A fill has no warm-up, and its topic too may not be led yet.
    let warm = Instant::now();
    while !round(&mut caller)? || warm.elapsed() < Duration::from_secs_f64(options.warm_up) {
        if warm.elapsed() > Duration::from_secs_f64(options.warm_up + LED_WITHIN_SECONDS) {
            return Err(io::Error::other("some partitions are led by nobody"));
        }
    }
    println!("start");
    let (begin, mut latencies) = (Instant::now(), Latencies::default());
    let round_bytes = (batch.len() * per_round) as u64;
    let mut bytes = 0;
    while begin.elapsed() < Duration::from_secs_f64(options.seconds)
        && options.bytes.is_none_or(|most| bytes < most)
    {
        let at = Instant::now();
        if !round(&mut caller)? {
            return Err(io::Error::other("a partition lost its leader"));
        }
        latencies.add(at.elapsed());
        bytes += round_bytes;
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("end");
    println!(
        "{{\"rounds\":{},\"bytes\":{bytes},\"round_bytes\":{round_bytes},\"seconds\":{seconds:.3},{}}}",
        latencies.len(),
        latencies.json()
    );
    Ok(())
}
