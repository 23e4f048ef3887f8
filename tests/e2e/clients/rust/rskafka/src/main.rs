//! rskafka: `suite BROKER PREFIX`. It knows no groups and no idempotence, and asks for one version of each API.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use chrono::{TimeZone, Utc};
use client::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use client::client::{Client, ClientBuilder};
use client::record::Record;

type Outcome = Result<(), Box<dyn Error>>;
const BASE: i64 = 1_700_000_000_000;

fn record(key: Option<&[u8]>, value: Option<&[u8]>, at: i64) -> Record {
    Record {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: BTreeMap::from([
            ("h".to_owned(), b"1".to_vec()),
            ("empty".to_owned(), Vec::new()),
        ]),
        timestamp: Utc
            .timestamp_millis_opt(BASE + at)
            .single()
            .expect("a time of 2023"),
    }
}

fn samples() -> Vec<Record> {
    let mut large = vec![0; 1 << 20];
    for (i, byte) in large.iter_mut().take(1 << 19).enumerate() {
        *byte = (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    }
    let mut out: Vec<Record> = (0..20)
        .map(|i| {
            record(
                Some(format!("k{i}").as_bytes()),
                Some("v".repeat(30 * i + 1).as_bytes()),
                i as i64,
            )
        })
        .collect();
    out.push(record(None, Some(b"no key"), 20));
    out.push(record(Some(b"no value"), None, 21));
    out.push(record(Some(b"large"), Some(&large), 22));
    out
}

async fn partition(client: &Client, topic: &str) -> Result<PartitionClient, Box<dyn Error>> {
    client
        .controller_client()?
        .create_topic(topic, 1, 1, 10_000)
        .await?;
    Ok(client
        .partition_client(topic, 0, UnknownTopicHandling::Retry)
        .await?)
}

async fn codecs(client: &Client, prefix: &str) -> Outcome {
    let all = [
        ("none", Compression::NoCompression),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];
    for (name, codec) in all {
        let partition = partition(client, &format!("{prefix}-{name}")).await?;
        // A batch each: the large one alone is near max.message.bytes.
        let mut wanted = samples();
        let mut large = wanted.pop().expect("the large one is there");
        large
            .value
            .as_mut()
            .expect("it has a value")
            .truncate((1 << 20) - 200);
        let mut offsets = partition.produce(wanted.clone(), codec).await?;
        offsets.extend(partition.produce(vec![large.clone()], codec).await?);
        wanted.push(large);
        if offsets != (0..wanted.len() as i64).collect::<Vec<_>>() {
            return Err(format!("{name}: offsets {offsets:?}").into());
        }
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let (records, _) = partition
                .fetch_records(got.len() as i64, 1..4_000_000, 1_000)
                .await?;
            got.extend(records.into_iter().map(|r| r.record));
        }
        if got != wanted {
            return Err(format!("{name}: other records came back").into());
        }
    }
    Ok(())
}

async fn offset_by_time(client: &Client, prefix: &str) -> Outcome {
    let partition = partition(client, &format!("{prefix}-times")).await?;
    let records = (0..10)
        .map(|i| record(None, Some(b"x"), 1000 * i))
        .collect();
    partition
        .produce(records, Compression::NoCompression)
        .await?;
    let time = |at| {
        OffsetAt::Timestamp(
            Utc.timestamp_millis_opt(BASE + at)
                .single()
                .expect("a time of 2023"),
        )
    };
    for (at, wanted) in [
        (OffsetAt::Earliest, 0),
        (OffsetAt::Latest, 10),
        (time(3000), 3),
        (time(3001), 4),
    ] {
        let got = partition.get_offset(at).await?;
        if got != wanted {
            return Err(format!("{at:?}: {got}, wanted {wanted}").into());
        }
    }
    Ok(())
}

async fn delete_records(client: &Client, prefix: &str) -> Outcome {
    let partition = partition(client, &format!("{prefix}-deleted")).await?;
    let records = (0..10).map(|i| record(None, Some(b"x"), i)).collect();
    partition
        .produce(records, Compression::NoCompression)
        .await?;
    partition.delete_records(4, 10_000).await?;
    let got = partition.get_offset(OffsetAt::Earliest).await?;
    if got == 4 {
        Ok(())
    } else {
        Err(format!("earliest is {got}").into())
    }
}

async fn admin_calls(client: &Client, prefix: &str) -> Outcome {
    let topic = format!("{prefix}-admin");
    client
        .controller_client()?
        .create_topic(&topic, 3, 1, 10_000)
        .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let listed = client.list_topics().await?;
    let found = listed
        .iter()
        .find(|t| t.name == topic)
        .ok_or("the topic is not listed")?;
    if found.partitions.len() != 3 {
        return Err(format!("{} partitions", found.partitions.len()).into());
    }
    client
        .controller_client()?
        .delete_topic(&topic, 10_000)
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let listed = client.list_topics().await?;
    if listed.iter().any(|t| t.name == topic) {
        Err("the deleted topic is listed".into())
    } else {
        Ok(())
    }
}

fn say(name: &str, outcome: Outcome) {
    match outcome {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAILED {name}: {}", error.to_string().replace('\n', " ")),
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let args: Vec<String> = std::env::args().collect();
    let (broker, prefix) = (args[2].clone(), &args[3]);
    let client = ClientBuilder::new(vec![broker]).build().await?;
    say("admin-calls", admin_calls(&client, prefix).await);
    say("codecs", codecs(&client, prefix).await);
    say("offset-by-time", offset_by_time(&client, prefix).await);
    say("delete-records", delete_records(&client, prefix).await);
    Ok(())
}
