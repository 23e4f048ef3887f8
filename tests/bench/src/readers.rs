//! Consumers that fetch and throw away, each on a thread and a connection of its own, over its share of the partitions or
//! over all of them; at the end of the log they begin again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;

use crate::protocol::{self, Caller};

#[derive(Args)]
pub(crate) struct Options {
    /// host:port of the broker
    address: String,
    /// The topic, which holds data from offset 0 on
    topic: String,
    /// How many partitions the topic has
    #[arg(long)]
    partitions: u32,
    /// How many consumers
    #[arg(long, default_value_t = 1)]
    readers: u32,
    /// Each reads every partition, not its share
    #[arg(long)]
    all: bool,
    /// Asks for one partition a request, in turn
    #[arg(long)]
    one_by_one: bool,
    /// max_bytes of each partition in a request
    #[arg(long, default_value_t = 1 << 20)]
    partition_bytes: i32,
    /// max_bytes of a request
    #[arg(long, default_value_t = 50 << 20)]
    max_bytes: i32,
    /// The counted part
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// What goes before it
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
}

fn read(options: &Options, index: u32, bytes: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
    let mut caller = Caller::connect(&options.address)?;
    let mine = |partition: &u32| options.all || partition % options.readers == index;
    let mut wants: Vec<(u32, i64)> = (0..options.partitions)
        .filter(mine)
        .map(|it| (it, 0))
        .collect();
    let mut turn = index as usize;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let asked = if options.one_by_one {
            &wants[turn % wants.len()..][..1]
        } else {
            &wants[..]
        };
        let frame = protocol::fetch(
            &options.topic,
            asked,
            options.partition_bytes,
            options.max_bytes,
            100,
        );
        let answer = caller.ask(&frame)?;
        bytes.fetch_add(answer.len() as u64, Ordering::Relaxed);
        let mut failed = None;
        let mut idle = true;
        protocol::each_fetched(answer, |partition, code, records| {
            if code != 0 {
                failed = Some(format!("fetch of partition {partition}: error {code}"));
            }
            let want = wants.iter_mut().find(|it| it.0 == partition);
            if let (Some(want), Some((next, _))) = (want, protocol::end_of(records)) {
                want.1 = next;
                idle = false;
            }
        })?;
        if let Some(why) = failed {
            return Err(io::Error::other(why));
        }
        // An answer without a record: all of what was asked is read to its end.
        if idle && options.one_by_one {
            let count = wants.len();
            wants[turn % count].1 = 0;
        } else if idle {
            wants.iter_mut().for_each(|it| it.1 = 0);
        }
        // The order in a request decides who is served when the answer is full.
        if !options.one_by_one {
            wants.rotate_left(1);
        }
    }
    Ok(())
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    let counts: Vec<Arc<AtomicU64>> = (0..options.readers)
        .map(|_| Arc::new(AtomicU64::new(0)))
        .collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..options.readers)
            .map(|index| {
                let (bytes, stop) = (&*counts[index as usize], &stop);
                scope.spawn(move || read(options, index, bytes, stop))
            })
            .collect();
        let now = || {
            counts
                .iter()
                .map(|it| it.load(Ordering::Relaxed))
                .collect::<Vec<_>>()
        };
        std::thread::sleep(Duration::from_secs_f64(options.warm_up));
        let before = now();
        println!("start");
        std::thread::sleep(Duration::from_secs_f64(options.seconds));
        println!("end");
        let each: Vec<u64> = now().iter().zip(&before).map(|(b, a)| b - a).collect();
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader
                .join()
                .map_err(|_| io::Error::other("a reader's thread panicked"))??;
        }
        println!(
            "{{\"bytes\":{},\"seconds\":{:.3},\"each\":{each:?}}}",
            each.iter().sum::<u64>(),
            options.seconds
        );
        Ok(())
    })
}
