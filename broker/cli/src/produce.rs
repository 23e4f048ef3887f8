//! `howdah produce`: lines of a file or of stdin become records.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::batch::RecordHeader;
use crate::cluster::Cluster;
use crate::codec::CodecName;
use crate::configs::Setting;
use crate::connect::Reach;
use crate::failure::Failure;
use crate::progress;
use crate::sender::{Acks, Sender, Settings};
use crate::table::said;

/// The longest line: the largest batch that any broker of ours takes.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Lines read ahead of what is sent.
const LINES_AHEAD: usize = 1_024;

/// `howdah produce TOPIC`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    seq 1000 | howdah produce numbers\n  \
    howdah produce telemetry --file readings.txt --codec zstd\n  \
    echo 'pump7:42' | howdah produce readings --key-separator :\n  \
    tail -F app.log | howdah produce logs --key web-1 --header source=app\n  \
    howdah produce images --whole --file cat.jpg --key cat\n  \
    yes | howdah produce load --rate 1000")]
pub struct ProduceArgs {
    /// Topic; brokers that create topics on first use do so
    topic: String,
    #[command(flatten)]
    reach: Reach,
    /// Read from here instead of stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The whole input is one record, not one a line
    #[arg(long)]
    whole: bool,
    /// Key of every record
    #[arg(long, conflicts_with = "key_separator")]
    key: Option<String>,
    /// A line is a key and a value, with this between them; without it in the line, there is no key
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Send everything to this partition
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A header of every record; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<Setting>,
    /// Records a second, at most
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How batches are packed
    #[arg(long, value_enum, default_value_t)]
    codec: CodecName,
    /// Who must have a record before it counts
    #[arg(long, value_enum, default_value_t)]
    acks: Acks,
    /// Bytes of a batch
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = clap::value_parser!(u32).range(1..=8 << 20))]
    batch_bytes: u32,
    /// How long a record waits for others to share its batch, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    linger: u32,
    /// Say nothing at the end
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(args: &ProduceArgs) -> Result<(), Failure> {
    let cluster = Cluster::open(&args.reach)?;
    let settings = Settings {
        acks: args.acks,
        codec: args.codec,
        batch_bytes: args.batch_bytes as usize,
    };
    let mut sender = Sender::open(cluster, &args.topic, settings)?;
    let (input, bytes) = open_input(args)?;
    if args.file.is_none() && io::stdin().is_terminal() && !args.quiet {
        said(&format!(
            "a record a line to topic \"{}\" ({} partitions); Ctrl-D ends",
            args.topic,
            sender.partitions()
        ));
    }
    let headers: Vec<RecordHeader> = args
        .header
        .iter()
        .map(|header| (header.name.clone(), Some(header.value.clone().into_bytes())))
        .collect();
    let began = Instant::now();
    // Nothing to draw over what a person types.
    let typed = args.file.is_none() && io::stdin().is_terminal();
    let bar = match (typed, bytes) {
        (true, _) => indicatif::ProgressBar::hidden(),
        (_, Some(bytes)) => progress::bar(
            Some(bytes),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        ),
        (_, None) => progress::bar(None, "{spinner} {bytes} {bytes_per_sec}"),
    };
    if args.whole {
        let mut value = Vec::new();
        let read = input
            .take(LINE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut value);
        read.map_err(|error| local("reading the input", error))?;
        if value.len() > LINE_BYTES_MAX {
            return Err(Failure::Usage(format!(
                "the input is longer than {LINE_BYTES_MAX} bytes"
            )));
        }
        sender.push(
            args.partition,
            now_ms(),
            args.key.as_ref().map(String::as_bytes),
            Some(&value),
            &headers,
        )?;
        sender.flush()?;
    } else {
        let lines = read_lines(input);
        send_lines(args, &mut sender, &lines, &headers, &bar)?;
    }
    bar.finish_and_clear();
    if !args.quiet {
        let seconds = began.elapsed().as_secs_f64();
        said(&format!(
            "{} records to topic \"{}\" in {seconds:.2} s",
            sender.stored, args.topic
        ));
    }
    Ok(())
}

fn local(what: &str, error: io::Error) -> Failure {
    Failure::Local {
        what: what.to_owned(),
        error,
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The input, and its length if that is known.
fn open_input(args: &ProduceArgs) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let Some(path) = &args.file else {
        return Ok((Box::new(io::stdin()), None));
    };
    let what = format!("reading {}", path.display());
    let file = File::open(path).map_err(|error| local(&what, error))?;
    let metadata = file.metadata().map_err(|error| local(&what, error))?;
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Reads lines on a thread of its own, so that a slow typist does not hold back what is there.
fn read_lines(input: Box<dyn Read + Send>) -> Receiver<Result<Vec<u8>, Failure>> {
    let (give, take) = sync_channel(LINES_AHEAD);
    thread::spawn(move || {
        let mut input = BufReader::with_capacity(256 * 1024, input);
        for number in 1u64.. {
            let mut line = Vec::new();
            let read = (&mut input)
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut line);
            let line = match read {
                Ok(0) => break,
                Ok(_) if line.len() > LINE_BYTES_MAX => Err(Failure::Usage(format!(
                    "line {number} is longer than {LINE_BYTES_MAX} bytes"
                ))),
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(line)
                }
                Err(error) => Err(local("reading the input", error)),
            };
            let stop = line.is_err();
            // Nobody takes any more once sending has failed.
            if give.send(line).is_err() || stop {
                break;
            }
        }
    });
    take
}

fn send_lines(
    args: &ProduceArgs,
    sender: &mut Sender,
    lines: &Receiver<Result<Vec<u8>, Failure>>,
    headers: &[RecordHeader],
    bar: &indicatif::ProgressBar,
) -> Result<(), Failure> {
    let linger = Duration::from_millis(args.linger.into());
    let began = Instant::now();
    let mut taken = 0u32;
    // When the oldest record that waits must go.
    let mut due: Option<Instant> = None;
    loop {
        if due.is_some_and(|due| Instant::now() >= due) {
            sender.flush()?;
            due = None;
        }
        let wait = due.map_or(Duration::from_secs(3_600), |due| {
            due.saturating_duration_since(Instant::now())
        });
        let line = match lines.recv_timeout(wait) {
            Ok(line) => line?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        bar.inc(line.len() as u64 + 1);
        let (key, value) = split(args, &line);
        sender.push(args.partition, now_ms(), key, Some(value), headers)?;
        due.get_or_insert_with(|| Instant::now() + linger);
        taken += 1;
        if let Some(rate) = args.rate {
            let at = began + Duration::from_secs_f64(f64::from(taken) / f64::from(rate));
            let early = at.saturating_duration_since(Instant::now());
            if early > linger {
                sender.flush()?;
                due = None;
            }
            thread::sleep(at.saturating_duration_since(Instant::now()));
        }
    }
    sender.flush()
}

fn split<'l>(args: &'l ProduceArgs, line: &'l [u8]) -> (Option<&'l [u8]>, &'l [u8]) {
    let Some(separator) = args
        .key_separator
        .as_ref()
        .map(String::as_bytes)
        .filter(|separator| !separator.is_empty())
    else {
        return (args.key.as_ref().map(String::as_bytes), line);
    };
    match line
        .windows(separator.len())
        .position(|window| window == separator)
    {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}
