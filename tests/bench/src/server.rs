//! The least that a Kafka consumer can be served with: a head written by hand and `sendfile` from one file a partition.
//! No log, no index, no groups: an offset is a place by arithmetic, since all batches are equal. What a broker costs above
//! this, asked by the same consumer in the same pattern, is the broker's own.
//!
//! It answers ApiVersions v0, Metadata v4 and Fetch v4 to v11, one thread a connection.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::fs::sendfile;
use rustix::net::{SendFlags, send};

use crate::protocol::{self, Fields};

#[derive(Args)]
pub(crate) struct Options {
    /// Where the partitions' files are written
    dir: PathBuf,
    /// The topic's name
    #[arg(long, default_value = "bench")]
    topic: String,
    /// How many partitions it has
    #[arg(long, default_value_t = 16)]
    partitions: u32,
    /// Batches in each
    #[arg(long, default_value_t = 1024)]
    batches: u32,
    /// Records in a batch
    #[arg(long, default_value_t = 62)]
    records: u32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 1024)]
    value_bytes: usize,
}

struct Log {
    options: (String, u32),
    files: Vec<File>,
    batch_bytes: u64,
    records: i64,
    batches: u64,
    port: u16,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut batch = protocol::batch(options.records, options.value_bytes, 0);
    let mut files = Vec::new();
    for partition in 0..options.partitions {
        let path = options.dir.join(partition.to_string());
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)?;
        for index in 0..u64::from(options.batches) {
            let base = index as i64 * i64::from(options.records);
            batch[..8].copy_from_slice(&base.to_be_bytes()); // the CRC leaves it free
            file.write_all_at(&batch, index * batch.len() as u64)?;
        }
        files.push(file);
    }
    let log = Arc::new(Log {
        options: (options.topic.clone(), options.partitions),
        files,
        batch_bytes: batch.len() as u64,
        records: i64::from(options.records),
        batches: u64::from(options.batches),
        port: listener.local_addr()?.port(),
    });
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, log) = (stream?, log.clone());
        std::thread::spawn(move || {
            // A consumer that goes away is no news.
            let _ = serve(&stream, &log);
        });
    }
    Ok(())
}

fn serve(mut stream: &TcpStream, log: &Log) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > 1 << 20 {
            return Err(io::Error::other("a request too long"));
        }
        frame.resize(length, 0);
        stream.read_exact(&mut frame)?;
        let mut fields = Fields(&frame);
        let (api, version, correlation) = (fields.i16()?, fields.i16()?, fields.i32()?);
        fields.string()?;
        match api {
            1 => fetch(stream, log, version, correlation, fields)?,
            3 => answer(stream, correlation, &metadata(log))?,
            18 => answer(stream, correlation, &versions(version))?,
            other => return Err(io::Error::other(format!("API {other} is not served"))),
        }
    }
}

fn answer(mut stream: &TcpStream, correlation: i32, body: &[u8]) -> io::Result<()> {
    let mut out = (body.len() as i32 + 4).to_be_bytes().to_vec();
    out.extend_from_slice(&correlation.to_be_bytes());
    out.extend_from_slice(body);
    stream.write_all(&out)
}

/// Produce is named because clients read from it which batch format there is.
fn versions(asked: i16) -> Vec<u8> {
    let mut out = (if asked > 0 { 35i16 } else { 0 }).to_be_bytes().to_vec();
    let served: [(i16, i16, i16); 4] = [(0, 3, 7), (1, 4, 11), (3, 4, 4), (18, 0, 0)];
    out.extend_from_slice(&(served.len() as i32).to_be_bytes());
    for (api, least, most) in served {
        for value in [api, least, most] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
    out
}

fn put_string(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as i16).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn metadata(log: &Log) -> Vec<u8> {
    let (topic, partitions) = &log.options;
    let mut out = Vec::new();
    for value in [0, 1, 1] {
        out.extend_from_slice(&i32::to_be_bytes(value)); // throttle, one broker, its id
    }
    put_string(&mut out, "127.0.0.1");
    out.extend_from_slice(&i32::from(log.port).to_be_bytes());
    out.extend_from_slice(&(-1i16).to_be_bytes()); // no rack
    out.extend_from_slice(&(-1i16).to_be_bytes()); // no cluster id
    out.extend_from_slice(&1i32.to_be_bytes()); // controller
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&0i16.to_be_bytes());
    put_string(&mut out, topic);
    out.push(0);
    out.extend_from_slice(&partitions.to_be_bytes());
    for partition in 0..*partitions {
        out.extend_from_slice(&0i16.to_be_bytes());
        out.extend_from_slice(&partition.to_be_bytes());
        for value in [1i32, 1, 1, 1, 1] {
            out.extend_from_slice(&value.to_be_bytes()); // leader, replicas [1], in sync [1]
        }
    }
    out
}

/// One partition of an answer: what goes before the records, and where they lie.
struct Part {
    head: Vec<u8>,
    partition: usize,
    from: u64,
    bytes: u64,
}

fn fetch(
    stream: &TcpStream,
    log: &Log,
    version: i16,
    correlation: i32,
    mut fields: Fields<'_>,
) -> io::Result<()> {
    fields.i32()?;
    let wait_ms = fields.i32()?;
    fields.i32()?;
    let mut left = fields.i32()? as u64;
    fields.take(if version >= 7 { 9 } else { 1 })?;
    let topics = fields.i32()?;
    let mut parts: Vec<Part> = Vec::new();
    let mut names = Vec::new();
    for _ in 0..topics {
        names.push((fields.string()?.to_vec(), parts.len()));
        for _ in 0..fields.i32()? {
            let partition = fields.i32()?;
            fields.take(if version >= 9 { 4 } else { 0 })?;
            let offset = fields.i64()?;
            fields.take(if version >= 5 { 8 } else { 0 })?;
            let most = (fields.i32()? as u64).min(left);
            let index = (offset / log.records) as u64;
            let there = log.batches.saturating_sub(index) * log.batch_bytes;
            // Whole batches, the first also when it alone is too much: as a broker does.
            let mut bytes = there.min(most) / log.batch_bytes * log.batch_bytes;
            if bytes == 0 && there > 0 && parts.iter().all(|it| it.bytes == 0) {
                bytes = log.batch_bytes;
            }
            left = left.saturating_sub(bytes);
            let end = log.batches as i64 * log.records;
            let mut head = partition.to_be_bytes().to_vec();
            head.extend_from_slice(&0i16.to_be_bytes());
            head.extend_from_slice(&end.to_be_bytes());
            head.extend_from_slice(&end.to_be_bytes());
            if version >= 5 {
                head.extend_from_slice(&0i64.to_be_bytes());
            }
            head.extend_from_slice(&(-1i32).to_be_bytes());
            if version >= 11 {
                head.extend_from_slice(&(-1i32).to_be_bytes());
            }
            head.extend_from_slice(&(bytes as i32).to_be_bytes());
            parts.push(Part {
                head,
                partition: partition as usize,
                from: index * log.batch_bytes,
                bytes,
            });
        }
    }
    if parts.iter().all(|it| it.bytes == 0) {
        std::thread::sleep(Duration::from_millis(wait_ms.clamp(0, 1000) as u64));
    }
    let mut head = vec![0; 4];
    head.extend_from_slice(&correlation.to_be_bytes());
    head.extend_from_slice(&0i32.to_be_bytes());
    if version >= 7 {
        head.extend_from_slice(&[0; 6]);
    }
    head.extend_from_slice(&topics.to_be_bytes());
    let ends: Vec<usize> = names
        .iter()
        .skip(1)
        .map(|it| it.1)
        .chain([parts.len()])
        .collect();
    let mut whole = head.len() as u64 - 4;
    for ((name, begin), end) in names.iter().zip(&ends) {
        let mut before = (name.len() as i16).to_be_bytes().to_vec();
        before.extend_from_slice(name);
        before.extend_from_slice(&((end - begin) as i32).to_be_bytes());
        if let Some(first) = parts.get_mut(*begin) {
            first.head.splice(0..0, before);
        }
    }
    whole += parts
        .iter()
        .map(|it| it.head.len() as u64 + it.bytes)
        .sum::<u64>();
    head[..4].copy_from_slice(&(whole as u32).to_be_bytes());
    // Heads of empty partitions are gathered: only bytes of a file end a piece.
    for part in &parts {
        head.extend_from_slice(&part.head);
        if part.bytes > 0 {
            send_all(stream, &head, true)?;
            head.clear();
            let file = log
                .files
                .get(part.partition)
                .ok_or_else(|| io::Error::other("no such partition"))?;
            let (mut at, end) = (part.from, part.from + part.bytes);
            while at < end {
                let left = (end - at) as usize;
                if sendfile(stream, file, Some(&mut at), left)? == 0 {
                    return Err(io::Error::other("the file ends too early"));
                }
            }
        }
    }
    send_all(stream, &head, false)
}

fn send_all(stream: &TcpStream, mut bytes: &[u8], more: bool) -> io::Result<()> {
    let flags = if more {
        SendFlags::MORE | SendFlags::NOSIGNAL
    } else {
        SendFlags::NOSIGNAL
    };
    while !bytes.is_empty() {
        bytes = &bytes[send(stream, bytes, flags)?..];
    }
    Ok(())
}
