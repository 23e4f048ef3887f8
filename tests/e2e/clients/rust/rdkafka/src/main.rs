//! The rdkafka crate: `suite BROKER PREFIX`, `member BROKER TOPIC GROUP`, `idempotent BROKER TOPIC COUNT`.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

type Outcome = Result<(), Box<dyn Error>>;
const BASE: i64 = 1_700_000_000_000;

/// Prints each delivery when asked to, and counts those that failed.
struct Deliveries {
    speak: bool,
    failed: Arc<AtomicUsize>,
}
impl ClientContext for Deliveries {}
impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(m) if self.speak => {
                let value = String::from_utf8_lossy(m.payload().unwrap_or_default()).into_owned();
                println!("acked {} {} {value}", m.partition(), m.offset());
            }
            Ok(_) => {}
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                println!("lost {error}");
            }
        }
    }
}

fn config(broker: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker)
        .set("message.max.bytes", "4000000");
    for (name, value) in more {
        config.set(*name, *value);
    }
    config
}

fn producer(
    broker: &str,
    speak: bool,
    more: &[(&str, &str)],
) -> Result<BaseProducer<Deliveries>, Box<dyn Error>> {
    let context = Deliveries {
        speak,
        failed: Arc::default(),
    };
    Ok(config(broker, more).create_with_context(context)?)
}

fn group_config(broker: &str, group: &str, commit: &str) -> ClientConfig {
    config(
        broker,
        &[
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", commit),
            ("auto.commit.interval.ms", "200"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "500"),
        ],
    )
}

fn read<C: ConsumerContext>(
    c: &BaseConsumer<C>,
    count: usize,
) -> Result<Vec<rdkafka::message::OwnedMessage>, Box<dyn Error>> {
    let end = Instant::now() + Duration::from_secs(30);
    let mut out = Vec::new();
    while out.len() < count {
        if Instant::now() > end {
            return Err(format!("{} of {count} records in 30 s", out.len()).into());
        }
        if let Some(message) = c.poll(Duration::from_millis(300)) {
            out.push(message?.detach());
        }
    }
    Ok(out)
}

fn codecs(broker: &str, prefix: &str) -> Outcome {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("{prefix}-{codec}");
        let p = producer(broker, false, &[("compression.type", codec)])?;
        let long = vec![7u8; (1 << 20) - 200];
        let sent: Vec<(Option<&[u8]>, Option<&[u8]>)> = vec![
            (Some(b"k"), Some(b"v")),
            (None, Some(b"no key")),
            (Some(b"no value"), None),
            (Some(b""), Some(b"")),
            (Some(b"large"), Some(&long)),
        ];
        for (i, (key, value)) in sent.iter().enumerate() {
            let headers = OwnedHeaders::new()
                .insert(Header {
                    key: "n",
                    value: Some("1"),
                })
                .insert(Header::<&str> {
                    key: "n",
                    value: None,
                });
            let mut record = BaseRecord::<[u8], [u8]>::to(&topic)
                .partition(0)
                .headers(headers)
                .timestamp(BASE + i as i64);
            record.key = *key;
            record.payload = *value;
            p.send(record).map_err(|(e, _)| e)?;
        }
        p.flush(Duration::from_secs(30))?;
        let c: BaseConsumer = group_config(broker, "none", "false").create()?;
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(&topic, 0, Offset::Beginning)?;
        c.assign(&at)?;
        for (i, m) in read(&c, sent.len())?.iter().enumerate() {
            let same = m.offset() == i as i64
                && m.key() == sent[i].0
                && m.payload() == sent[i].1
                && m.timestamp().to_millis() == Some(BASE + i as i64)
                && m.headers().map(Headers::count) == Some(2);
            if !same {
                return Err(format!("{codec}: record {i} came back as another").into());
            }
        }
    }
    Ok(())
}

fn offset_by_time(broker: &str, prefix: &str) -> Outcome {
    let topic = format!("{prefix}-times");
    let p = producer(broker, false, &[])?;
    for i in 0..10 {
        p.send(
            BaseRecord::<[u8], str>::to(&topic)
                .partition(0)
                .payload("x")
                .timestamp(BASE + 1000 * i),
        )
        .map_err(|(e, _)| e)?;
    }
    p.flush(Duration::from_secs(30))?;
    let c: BaseConsumer = group_config(broker, "none", "false").create()?;
    for (time, wanted) in [
        (3000, Offset::Offset(3)),
        (3001, Offset::Offset(4)),
        (-5, Offset::Offset(0)),
        (99_999, Offset::End),
    ] {
        let mut ask = TopicPartitionList::new();
        ask.add_partition_offset(&topic, 0, Offset::Offset(BASE + time))?;
        let got = c
            .offsets_for_times(ask, Duration::from_secs(10))?
            .elements()[0]
            .offset();
        if got != wanted {
            return Err(format!("at {time}: {got:?}, wanted {wanted:?}").into());
        }
    }
    let ends = c.fetch_watermarks(&topic, 0, Duration::from_secs(10))?;
    if ends == (0, 10) {
        Ok(())
    } else {
        Err(format!("watermarks {ends:?}").into())
    }
}

fn groups(broker: &str, prefix: &str) -> Outcome {
    let (topic, group) = (format!("{prefix}-groups"), format!("{prefix}-group"));
    let p = producer(broker, false, &[])?;
    for i in 0..100 {
        p.send(
            BaseRecord::<[u8], str>::to(&topic)
                .partition(i % 4)
                .payload(&i.to_string()),
        )
        .map_err(|(e, _)| e)?;
    }
    p.flush(Duration::from_secs(30))?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let c: BaseConsumer = group_config(broker, &group, "false")
            .set("enable.auto.offset.store", "false")
            .create()?;
        c.subscribe(&[&topic])?;
        let got = read(&c, 50)?;
        let mut ends = TopicPartitionList::new();
        for partition in 0..4 {
            if let Some(last) = got
                .iter()
                .filter(|m| m.partition() == partition)
                .map(Message::offset)
                .max()
            {
                ends.add_partition_offset(&topic, partition, Offset::Offset(last + 1))?;
            }
        }
        c.commit(&ends, CommitMode::Sync)?;
        seen.extend(got.iter().map(|m| {
            String::from_utf8_lossy(m.payload().unwrap_or_default())
                .parse::<i32>()
                .unwrap_or(-1)
        }));
    }
    seen.sort_unstable();
    if seen == (0..100).collect::<Vec<_>>() {
        Ok(())
    } else {
        Err(format!("records of the group: {seen:?}").into())
    }
}

/// Prints what is held after each change.
struct Say;
impl ClientContext for Say {}
impl ConsumerContext for Say {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            let mut held: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
            held.sort_unstable();
            println!(
                "assigned {}",
                held.iter()
                    .map(i32::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            );
        }
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn member(broker: &str, topic: &str, group: &str) -> Outcome {
    // SAFETY: the handler only stores to an atomic, which a signal handler may.
    unsafe {
        libc::signal(
            libc::SIGTERM,
            stop as extern "C" fn(libc::c_int) as libc::sighandler_t,
        )
    };
    let c: BaseConsumer<Say> = group_config(broker, group, "true").create_with_context(Say)?;
    c.subscribe(&[topic])?;
    while !STOP.load(Ordering::Relaxed) {
        if let Some(Ok(m)) = c.poll(Duration::from_millis(100)) {
            println!(
                "record {} {} {}",
                m.partition(),
                m.offset(),
                String::from_utf8_lossy(m.payload().unwrap_or_default())
            );
        }
    }
    drop(c);
    println!("left");
    Ok(())
}

fn idempotent(broker: &str, topic: &str, count: i32) -> Outcome {
    let more = [
        ("enable.idempotence", "true"),
        ("linger.ms", "2"),
        ("message.timeout.ms", "90000"),
        ("reconnect.backoff.max.ms", "500"),
    ];
    let p = producer(broker, true, &more)?;
    for i in 0..count {
        p.send(
            BaseRecord::<[u8], str>::to(topic)
                .partition(i % 4)
                .payload(&i.to_string()),
        )
        .map_err(|(e, _)| e)?;
        p.poll(Duration::from_micros(500));
    }
    p.flush(Duration::from_secs(90))?;
    if p.context().failed.load(Ordering::Relaxed) == 0 {
        Ok(())
    } else {
        Err("records were given up".into())
    }
}

fn say(name: &str, outcome: Outcome) {
    match outcome {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAILED {name}: {}", error.to_string().replace('\n', " ")),
    }
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "suite" => {
            say("codecs", codecs(&args[2], &args[3]));
            say("offset-by-time", offset_by_time(&args[2], &args[3]));
            say("groups", groups(&args[2], &args[3]));
            Ok(())
        }
        "member" => member(&args[2], &args[3], &args[4]),
        _ => idempotent(&args[2], &args[3], args[4].parse()?),
    }
}
