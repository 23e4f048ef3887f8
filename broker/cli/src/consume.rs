//! `howdah consume`: records to stdout.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::batch::Record;
use crate::cluster::Cluster;
use crate::connect::Reach;
use crate::failure::Failure;
use crate::fetcher::{Fetched, Fetcher};
use crate::groups::{committed, targets};
use crate::interrupt::Interrupt;
use crate::member::{Member, Standing};
use crate::place::Place;
use crate::progress;
use crate::table::said;

/// Between two commits of a group's offsets, as Java's consumer.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// The longest time spent on printing before heartbeats and Ctrl-C get their turn; at a low rate records take that long.
const SLICE: Duration = Duration::from_millis(500);

/// `howdah consume TOPIC`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without --follow it ends where the topic ended when it began.\n\n\
    Examples:\n  \
    howdah consume numbers --from earliest\n  \
    howdah consume telemetry --follow                      what comes from now on\n  \
    howdah consume telemetry --from 2026-03-01T06:00:00Z --partition 3 --count 10\n  \
    howdah consume orders --group billing --follow         share the work with others of the group; Ctrl-C leaves\n  \
    howdah consume readings --from earliest --json | jq .value"
)]
pub struct ConsumeArgs {
    /// Topic
    topic: String,
    #[command(flatten)]
    reach: Reach,
    /// Where to begin: earliest, latest, an offset, or a time such as 2026-03-01T06:00:00Z. Otherwise at the first record,
    /// with --follow behind the last; in a group where it left off
    #[arg(long, value_name = "WHERE")]
    from: Option<Place>,
    /// Go on waiting for new records
    #[arg(long, short)]
    follow: bool,
    /// Only this partition; may be given more than once
    #[arg(long, conflicts_with = "group")]
    partition: Vec<i32>,
    /// Read as a member of this group, and commit what was printed
    #[arg(long)]
    group: Option<String>,
    /// End after so many records
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Records a second, at most
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Print the key and a tab before each value
    #[arg(long)]
    keys: bool,
    /// Print an object a line: topic, partition, offset, timestamp, key, value, headers
    #[arg(long, conflicts_with = "keys")]
    json: bool,
    /// Say nothing at the end
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(args: &ConsumeArgs) -> Result<(), Failure> {
    let mut cluster = Cluster::open(&args.reach)?;
    let began = Instant::now();
    let interrupt = Interrupt::watch()?;
    let mut printer = Printer::new(args);
    match &args.group {
        Some(group) => in_group(args, &mut cluster, group, &mut printer, &interrupt)?,
        None => alone(args, &mut cluster, &mut printer, &interrupt)?,
    }
    printer.bar.finish_and_clear();
    printer.flush()?;
    if !args.quiet {
        said(&format!(
            "{} records of topic \"{}\" in {:.2} s",
            printer.count,
            args.topic,
            began.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

/// Where to begin if the user does not say.
fn begin(args: &ConsumeArgs) -> Place {
    args.from.unwrap_or(if args.follow {
        Place::Latest
    } else {
        Place::Earliest
    })
}

fn alone(
    args: &ConsumeArgs,
    cluster: &mut Cluster,
    printer: &mut Printer<'_>,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let topic = cluster.topic(&args.topic, false)?;
    let from = targets(cluster, &args.topic, &args.partition, &begin(args))?;
    let ends = ends(args, cluster)?;
    if let Some(ends) = &ends {
        let ahead = from
            .iter()
            .map(|(partition, from)| ends.get(partition).map_or(0, |end| end - from));
        printer.expect(u64::try_from(ahead.sum::<i64>()).unwrap_or_default());
    }
    let mut fetcher = Fetcher::new(topic, from);
    let mut backlog = VecDeque::new();
    while !(interrupt.asked()
        || printer.enough()
        || ended(&fetcher, ends.as_ref()) && backlog.is_empty())
    {
        if backlog.is_empty() {
            backlog.extend(fetcher.poll(cluster)?);
        }
        printer.print(&mut backlog, ends.as_ref(), |_, _| {})?;
        // Whoever follows wants to see what is there.
        if args.follow {
            printer.flush()?;
        }
    }
    Ok(())
}

/// Where each partition ends now; `None` if we go on.
fn ends(args: &ConsumeArgs, cluster: &mut Cluster) -> Result<Option<BTreeMap<i32, i64>>, Failure> {
    if args.follow {
        return Ok(None);
    }
    Ok(Some(
        targets(cluster, &args.topic, &args.partition, &Place::Latest)?
            .into_iter()
            .collect(),
    ))
}

fn ended(fetcher: &Fetcher, ends: Option<&BTreeMap<i32, i64>>) -> bool {
    ends.is_some_and(|ends| {
        fetcher
            .positions()
            .all(|(partition, next)| ends.get(&partition).is_none_or(|end| next >= *end))
    })
}

fn in_group(
    args: &ConsumeArgs,
    cluster: &mut Cluster,
    group: &str,
    printer: &mut Printer<'_>,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let topic = cluster.topic(&args.topic, false)?;
    let (mut member, mut partitions) = Member::join(cluster, group, &args.topic)?;
    let mut turns = || {
        loop {
            let from = resume(args, cluster, group, &partitions)?;
            let ends = ends(args, cluster)?;
            let mut fetcher = Fetcher::new(topic.clone(), from);
            let turn = Turn {
                args,
                interrupt,
                ends: ends.as_ref(),
            };
            match turn.run(cluster, &mut member, &mut fetcher, printer)? {
                Standing::Member => return Ok(()),
                Standing::Rejoin => partitions = member.rejoin(cluster)?,
            }
        }
    };
    let done = turns();
    // Also after a failure: the others should not wait until we count as gone. The first reason counts.
    let left = member.leave();
    done.and(left)
}

/// Where the group left off; where it never was, as if alone, but from the first record on.
fn resume(
    args: &ConsumeArgs,
    cluster: &mut Cluster,
    group: &str,
    partitions: &[i32],
) -> Result<Vec<(i32, i64)>, Failure> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = committed(cluster, group)?;
    let unknown = targets(
        cluster,
        &args.topic,
        partitions,
        &args.from.unwrap_or(Place::Earliest),
    )?;
    let offset = |partition: i32, unknown| {
        *committed
            .get(&(args.topic.clone(), partition))
            .unwrap_or(&unknown)
    };
    Ok(unknown
        .into_iter()
        .map(|(partition, unknown)| (partition, offset(partition, unknown)))
        .collect())
}

/// One membership, from one rebalance to the next.
struct Turn<'a> {
    args: &'a ConsumeArgs,
    interrupt: &'a Interrupt,
    ends: Option<&'a BTreeMap<i32, i64>>,
}

impl Turn<'_> {
    /// Reads until it ends or the group changes; commits what was printed either way.
    fn run(
        &self,
        cluster: &mut Cluster,
        member: &mut Member,
        fetcher: &mut Fetcher,
        printer: &mut Printer<'_>,
    ) -> Result<Standing, Failure> {
        let mut committed = Instant::now();
        // Behind the last record printed, which may be less than what was fetched.
        let mut printed: BTreeMap<i32, i64> = BTreeMap::new();
        let mut backlog = VecDeque::new();
        loop {
            let standing = member.beat(cluster)?;
            let read = ended(fetcher, self.ends) && backlog.is_empty();
            let over = printer.enough() || read || self.interrupt.asked();
            let rejoin = standing == Standing::Rejoin;
            if over || rejoin || committed.elapsed() >= COMMIT_EVERY {
                // Out of our hands first. While the others wait for us our commits still count.
                printer.flush()?;
                let offsets: Vec<_> = std::mem::take(&mut printed).into_iter().collect();
                let standing = member.commit(cluster, &offsets)?;
                committed = Instant::now();
                if over {
                    return Ok(Standing::Member);
                }
                if rejoin || standing == Standing::Rejoin {
                    return Ok(Standing::Rejoin);
                }
            }
            if fetcher.positions().next().is_none() {
                // More members than partitions: wait for a turn.
                thread::sleep(Duration::from_millis(500));
                continue;
            }
            if backlog.is_empty() {
                backlog.extend(fetcher.poll(cluster)?);
            }
            printer.print(&mut backlog, self.ends, |partition, offset| {
                printed.insert(partition, offset + 1);
            })?;
            if self.args.follow {
                printer.flush()?;
            }
        }
    }
}

/// Writes records as asked for, no more and no faster.
struct Printer<'a> {
    args: &'a ConsumeArgs,
    out: BufWriter<io::Stdout>,
    count: u64,
    began: Instant,
    bar: indicatif::ProgressBar,
}

impl<'a> Printer<'a> {
    fn new(args: &'a ConsumeArgs) -> Self {
        // Where records run over the screen a bar would only be in their way.
        let hidden = io::stdout().is_terminal() || args.quiet;
        let bar = if hidden {
            indicatif::ProgressBar::hidden()
        } else {
            progress::bar(None, "{spinner} {human_pos} records in {elapsed}")
        };
        Self {
            args,
            out: BufWriter::with_capacity(256 * 1024, io::stdout()),
            count: 0,
            began: Instant::now(),
            bar,
        }
    }

    /// So many records are there.
    fn expect(&self, records: u64) {
        let records = self.args.count.map_or(records, |count| count.min(records));
        if !self.bar.is_hidden() {
            let style = indicatif::ProgressStyle::with_template(
                "{bar:30} {human_pos}/{human_len} records, {eta} left",
            );
            self.bar.set_style(style.expect("the template is ours"));
        }
        self.bar.set_length(records);
    }

    fn enough(&self) -> bool {
        self.args.count.is_some_and(|count| self.count >= count)
    }

    /// Prints records before their partition's end, as long as a slice of time lasts; tells the offset of each.
    fn print(
        &mut self,
        backlog: &mut VecDeque<Fetched>,
        ends: Option<&BTreeMap<i32, i64>>,
        mut tell: impl FnMut(i32, i64),
    ) -> Result<(), Failure> {
        let until = Instant::now() + SLICE;
        while let Some(fetched) = backlog.front_mut() {
            let partition = fetched.partition;
            let end = ends.and_then(|ends| ends.get(&partition)).copied();
            let Some(record) = fetched.records.next() else {
                backlog.pop_front();
                continue;
            };
            if end.is_some_and(|end| record.offset >= end) {
                backlog.pop_front();
                continue;
            }
            self.write(partition, &record).map_err(Failure::output)?;
            tell(partition, record.offset);
            self.count += 1;
            if self.enough() {
                break;
            }
            if let Some(rate) = self.args.rate {
                let at = self.began + Duration::from_secs_f64(self.count as f64 / f64::from(rate));
                let early = at.saturating_duration_since(Instant::now());
                if !early.is_zero() {
                    self.flush()?;
                    thread::sleep(early);
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.bar.set_position(self.count);
        Ok(())
    }

    fn write(&mut self, partition: i32, record: &Record) -> io::Result<()> {
        if self.args.json {
            let line = as_json(&self.args.topic, partition, record);
            return writeln!(self.out, "{line}");
        }
        if self.args.keys {
            self.out
                .write_all(record.key.as_deref().unwrap_or_default())?;
            self.out.write_all(b"\t")?;
        }
        self.out
            .write_all(record.value.as_deref().unwrap_or_default())?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }
}

/// Text as text; other bytes as `{"base64": "…"}`, so that nothing is lost.
fn bytes_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => json!({ "base64": base64(bytes.unwrap_or_default()) }),
    }
}

fn as_json(topic: &str, partition: i32, record: &Record) -> Value {
    // A name may stand there more than once: pairs, not an object.
    let headers = record
        .headers
        .iter()
        .map(|(name, value)| json!([name, bytes_json(value.as_deref())]));
    json!({
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "timestamp": record.time_ms,
        "key": bytes_json(record.key.as_deref()),
        "value": bytes_json(record.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn json_loses_nothing() {
        let record = Record {
            offset: 7,
            time_ms: 1_000,
            key: None,
            value: Some(vec![0xff]),
            headers: vec![
                ("h".to_owned(), Some(b"a".to_vec())),
                ("h".to_owned(), None),
            ],
        };
        let expected = json!({
            "topic": "t", "partition": 1, "offset": 7, "timestamp": 1000, "key": null,
            "value": { "base64": "/w==" }, "headers": [["h", "a"], ["h", null]],
        });
        assert_eq!(as_json("t", 1, &record), expected);
    }
}
