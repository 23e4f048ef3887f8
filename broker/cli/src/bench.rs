//! `howdah bench`: a load on any Kafka address, and what it measured.

mod consume;
mod meter;
mod produce;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::meter::{Gauge, Latencies, Span};
use self::produce::Shape;
use crate::cluster::{Cluster, Topic};
use crate::codec::CodecName;
use crate::connect::Reach;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::offsets::{EARLIEST, LATEST, list_offsets};
use crate::produce::now_ms;
use crate::sender::Acks;
use crate::table::{Table, said};
use crate::{progress, topics};

/// Between two looks at how far a run is.
const TICK: Duration = Duration::from_millis(100);
/// Seconds of producing if nothing is said.
const PRODUCE_SECONDS: u32 = 10;

/// `howdah bench`.
#[derive(Args, Debug)]
#[command(
    after_help = "MB are millions of bytes of record batches, as they are on the wire. A latency of producing runs from \
    the moment when a batch's oldest record was due (with --rate; otherwise when the batch was sent) to its answer, so \
    a broker that stalls is charged for what had to wait. A latency of consuming is that of one fetch that found \
    records. An error ends the run.\n\n\
    Examples:\n  \
    howdah bench                                            as fast as it goes, then read it again\n  \
    howdah bench produce --rate 20000 --duration 60         latencies at a load that is given\n  \
    howdah bench produce --acks 1 --producers 4 --linger 0 --batch-bytes 1024\n  \
    howdah bench consume --topic telemetry --consumers 8\n  \
    howdah bench --broker-pid $(pidof howdah) --json"
)]
pub struct BenchArgs {
    /// What to do
    #[arg(value_enum, default_value_t)]
    load: Load,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Topic; made if it is not there, and then deleted at the end
    #[arg(long, default_value = "howdah-bench")]
    topic: String,
    /// Leave the topic, also if it was made for the run
    #[arg(long)]
    keep: bool,
    /// Partitions of a topic that is made
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Replicas of a topic that is made; otherwise the broker's default
    #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
    replication: Option<i16>,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=8 << 20))]
    record_bytes: u32,
    /// Bytes of a batch before packing; a longer record has one of its own
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1_024, value_parser = clap::value_parser!(u32).range(1..=8 << 20))]
    batch_bytes: u32,
    /// How batches are packed
    #[arg(long, value_enum, default_value_t)]
    codec: CodecName,
    /// Who must have a record before it counts; no second tries
    #[arg(long, value_enum, default_value_t)]
    acks: Acks,
    /// How long a record waits for others to share its batch, in milliseconds; matters with --rate only
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    linger: u32,
    /// Producers; each has a connection to every leader
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// Batches on their way in one connection
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    in_flight: u32,
    /// Records a second of all producers together; otherwise as many as the broker takes
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Consumers; each reads everything
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    consumers: u32,
    /// Bytes asked for of a partition at once
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(i32).range(1..=64 << 20))]
    fetch_bytes: i32,
    /// How long to measure: 10 if producing, to the end of the topic if consuming
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    duration: Option<u32>,
    /// How long to produce before measuring
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    warmup: u32,
    /// Process id of a broker on this machine: measures its processor time
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Load {
    /// Produce, then consume what was produced
    #[default]
    Both,
    /// Only produce
    Produce,
    /// Only consume what is in the topic
    Consume,
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    let mut cluster = Cluster::open(&args.reach)?;
    let made = args.load != Load::Consume && make(args, &mut cluster)?;
    let done = measure(args, &mut cluster, &interrupt);
    if made && !args.keep {
        let deleted = topics::delete(&mut cluster, &args.topic, true);
        // The first reason counts.
        return done.and_then(|table| deleted.and(table.print(args.json)));
    }
    done?.print(args.json)
}

/// Makes the topic if it is not there.
fn make(args: &BenchArgs, cluster: &mut Cluster) -> Result<bool, Failure> {
    let there = cluster.topics()?;
    if there.iter().any(|topic| topic.name == args.topic) {
        said(&format!(
            "topic \"{}\" is there already and will grow",
            args.topic
        ));
        return Ok(false);
    }
    let partitions = Some(args.partitions);
    topics::create(
        cluster,
        &args.topic,
        partitions,
        args.replication,
        &[],
        false,
    )?;
    Ok(true)
}

fn measure(
    args: &BenchArgs,
    cluster: &mut Cluster,
    interrupt: &Interrupt,
) -> Result<Table, Failure> {
    // Just made, it may take a moment until every broker knows it.
    let topic = cluster.topic(&args.topic, args.load != Load::Consume)?;
    let begin = list_offsets(cluster, &args.topic, EARLIEST)?;
    let before = list_offsets(cluster, &args.topic, LATEST)?;
    let mut table = Table::new(&[
        "load",
        "records",
        "MB",
        "seconds",
        "records/s",
        "MB/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "broker cpu s",
        "cpu s/GB",
    ]);
    if args.load != Load::Consume {
        produce(args, cluster, &topic, interrupt)?.row("produce", &mut table);
    }
    let from = match args.load {
        Load::Produce => return Ok(table),
        Load::Consume => begin,
        Load::Both => before,
    };
    if !interrupt.asked() {
        consume(args, cluster, &topic, &from, interrupt)?.row("consume", &mut table);
    }
    Ok(table)
}

/// One thread's work.
type Work = Box<dyn FnOnce(&Gauge) -> Result<Latencies, Failure> + Send>;

fn produce(
    args: &BenchArgs,
    cluster: &Cluster,
    topic: &Topic,
    interrupt: &Interrupt,
) -> Result<Outcome, Failure> {
    let leaders = leaders(topic)?;
    let mut works: Vec<Work> = Vec::new();
    for (leader, partitions) in &leaders {
        let share = partitions.len() as f64 / topic.partitions.len() as f64;
        let lane_rate = |rate| f64::from(rate) * share / f64::from(args.producers);
        let shape = Shape {
            record_bytes: args.record_bytes as usize,
            batch_bytes: args.batch_bytes as usize,
            codec: args.codec.into(),
            acks: args.acks,
            linger: Duration::from_millis(args.linger.into()),
            in_flight: args.in_flight as usize,
            rate: args.rate.map(lane_rate),
        };
        for producer in 0..args.producers as usize {
            let connection = cluster.own_connection(*leader, args.reach.patience())?;
            let mut partitions = partitions.clone();
            // Producers that march in step would meet at one partition.
            let turn = producer % partitions.len();
            partitions.rotate_left(turn);
            let lane = produce::Lane::new(shape, &topic.name, connection, partitions, now_ms());
            works.push(Box::new(move |gauge| lane.run(gauge)));
        }
    }
    let plan = Plan {
        name: "produce",
        warmup: Duration::from_secs(args.warmup.into()),
        duration: Some(Duration::from_secs(
            args.duration.unwrap_or(PRODUCE_SECONDS).into(),
        )),
        records: None,
        broker_pid: args.broker_pid,
    };
    drive(&plan, works, interrupt)
}

fn consume(
    args: &BenchArgs,
    cluster: &mut Cluster,
    topic: &Topic,
    from: &[(i32, Option<i64>)],
    interrupt: &Interrupt,
) -> Result<Outcome, Failure> {
    let ends: BTreeMap<i32, i64> = list_offsets(cluster, &topic.name, LATEST)?
        .into_iter()
        .filter_map(|(partition, end)| Some((partition, end?)))
        .collect();
    let ranges: BTreeMap<i32, (i64, i64)> = from
        .iter()
        .filter_map(|(partition, from)| Some((*partition, ((*from)?, *ends.get(partition)?))))
        .collect();
    let records: i64 = ranges.values().map(|(from, end)| end - from).sum();
    let mut works: Vec<Work> = Vec::new();
    for (leader, partitions) in leaders(topic)? {
        for _ in 0..args.consumers {
            let connection = cluster.own_connection(leader, args.reach.patience())?;
            let range = |partition: &i32| Some((*partition, *ranges.get(partition)?));
            let cursors = partitions.iter().filter_map(range).collect();
            let lane = consume::Lane::new(&topic.name, connection, cursors, args.fetch_bytes);
            works.push(Box::new(move |gauge| lane.run(gauge)));
        }
    }
    let plan = Plan {
        name: "consume",
        warmup: Duration::ZERO,
        duration: args
            .duration
            .filter(|_| args.load == Load::Consume)
            .map(|seconds| Duration::from_secs(seconds.into())),
        records: Some(u64::try_from(records).unwrap_or_default() * u64::from(args.consumers)),
        broker_pid: args.broker_pid,
    };
    drive(&plan, works, interrupt)
}

/// Partitions by their leader.
fn leaders(topic: &Topic) -> Result<BTreeMap<i32, Vec<i32>>, Failure> {
    let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in &topic.partitions {
        if partition.leader < 0 {
            let what = format!(
                "topic \"{}\" partition {} has no leader",
                topic.name, partition.index
            );
            return Err(Failure::Fault(what));
        }
        leaders
            .entry(partition.leader)
            .or_default()
            .push(partition.index);
    }
    Ok(leaders)
}

/// When a run counts, and when it ends.
struct Plan {
    name: &'static str,
    warmup: Duration,
    /// From when it counts; without one it ends when all work is done.
    duration: Option<Duration>,
    /// How many there are.
    records: Option<u64>,
    broker_pid: Option<u32>,
}

/// What a run measured.
struct Outcome {
    records: u64,
    bytes: u64,
    took: Duration,
    cpu: Option<Duration>,
    latencies: Latencies,
}

fn drive(plan: &Plan, works: Vec<Work>, interrupt: &Interrupt) -> Result<Outcome, Failure> {
    let gauge = Gauge::default();
    let bar = match (plan.duration, plan.records) {
        (Some(duration), _) => Progress::over(plan.warmup + duration),
        (None, records) => Progress::records(records.unwrap_or_default()),
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let start = |work: Work| {
            let gauge = &gauge;
            scope.spawn(move || {
                let done = work(gauge);
                if done.is_err() {
                    gauge.stop.store(true, Ordering::Relaxed);
                }
                done.map(|latencies| (latencies, Instant::now()))
            })
        };
        let count = || {
            let span = Span::begin(plan.broker_pid);
            gauge.counting.store(true, Ordering::Relaxed);
            span
        };
        // Whatever goes wrong here, the threads must hear of it, or the scope waits for them.
        let mut span = plan.warmup.is_zero().then(count);
        let threads: Vec<_> = works.into_iter().map(start).collect();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(TICK);
            if span.is_none() && began.elapsed() >= plan.warmup {
                span = Some(count());
            }
            let over = plan
                .duration
                .is_some_and(|duration| began.elapsed() >= plan.warmup + duration);
            if over || interrupt.asked() || matches!(span, Some(Err(_))) {
                gauge.stop.store(true, Ordering::Relaxed);
            }
            bar.show(plan.name, began.elapsed(), plan.warmup, &gauge);
        }
        bar.end();
        let mut latencies = Latencies::default();
        let mut ended = began;
        for thread in threads {
            let (lane, lane_ended) = thread.join().expect("a lane does not panic")?;
            latencies.merge(&lane);
            ended = ended.max(lane_ended);
        }
        let (took, cpu) = match span {
            Some(span) => span?.end(ended, plan.broker_pid)?,
            None => (Duration::ZERO, None),
        };
        Ok(Outcome {
            records: gauge.records.load(Ordering::Relaxed),
            bytes: gauge.bytes.load(Ordering::Relaxed),
            took,
            cpu,
            latencies,
        })
    })
}

impl Outcome {
    fn row(&self, load: &str, table: &mut Table) {
        let seconds = self.took.as_secs_f64();
        let per_second = |amount: f64| {
            let rate = (seconds > 0.0).then(|| amount / seconds);
            rate.map(|rate| rounded(rate, 1))
        };
        let mb = self.bytes as f64 / 1e6;
        let cpu = self.cpu.map(|cpu| cpu.as_secs_f64());
        let cpu_per_gb = cpu
            .filter(|_| self.bytes > 0)
            .map(|cpu| cpu / (mb / 1_000.0));
        let latency = |ms: Option<f64>| Value::from(ms.map(|ms| rounded(ms, 3)));
        table.row([
            load.into(),
            self.records.into(),
            rounded(mb, 1).into(),
            rounded(seconds, 2).into(),
            per_second(self.records as f64).into(),
            per_second(mb).into(),
            latency(self.latencies.per_mille(500)),
            latency(self.latencies.per_mille(990)),
            latency(self.latencies.max()),
            cpu.map(|cpu| rounded(cpu, 2)).into(),
            cpu_per_gb.map(|cpu| rounded(cpu, 3)).into(),
        ]);
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// A bar over time or over records, with what goes through.
struct Progress {
    bar: indicatif::ProgressBar,
    timed: bool,
}

impl Progress {
    fn over(duration: Duration) -> Self {
        let total = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bar = progress::bar(Some(total), "{bar:30} {msg}");
        Self { bar, timed: true }
    }

    fn records(total: u64) -> Self {
        let bar = progress::bar(Some(total), "{bar:30} {msg}, {eta} left");
        Self { bar, timed: false }
    }

    fn show(&self, name: &str, elapsed: Duration, warmup: Duration, gauge: &Gauge) {
        let records = gauge.records.load(Ordering::Relaxed);
        let seconds = elapsed.saturating_sub(warmup).as_secs_f64();
        let position = if self.timed {
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
        } else {
            records
        };
        self.bar.set_position(position);
        self.bar.set_message(if seconds > 0.0 {
            let mb = gauge.bytes.load(Ordering::Relaxed) as f64 / 1e6 / seconds;
            format!(
                "{name}: {:.0} records/s, {mb:.1} MB/s",
                records as f64 / seconds
            )
        } else {
            format!("{name}: warming up")
        });
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
