//! Many producers that don't batch: each connection has one request of one record in flight and sends the next when it is
//! acknowledged. One thread and epoll: a hundred librdkafka instances would take both processors for themselves.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{Timespec, epoll};

use crate::numbers::Latencies;
use crate::protocol;

#[derive(Args)]
pub(crate) struct Options {
    /// host:port of the broker
    address: String,
    /// The topic, which exists
    topic: String,
    /// How many partitions the topic has; connection i writes to partition i modulo this
    #[arg(long)]
    partitions: u32,
    /// How many producers
    #[arg(long, default_value_t = 100)]
    connections: u32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 200)]
    value_bytes: usize,
    /// Records in each request's batch
    #[arg(long, default_value_t = 1)]
    records: u32,
    /// The counted part
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// What goes before it
    #[arg(long, default_value_t = 3.0)]
    warm_up: f64,
}

struct Producer {
    stream: TcpStream,
    frame: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    since: Instant,
}

impl Producer {
    fn write(&mut self) -> io::Result<()> {
        while self.sent < self.frame.len() {
            match self.stream.write(&self.frame[self.sent..]) {
                Ok(more) => self.sent += more,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// When a whole answer is there: whether it was good.
    fn read(&mut self) -> io::Result<Option<bool>> {
        let mut buffer = [0; 512];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return Err(io::Error::other(
                        "the broker closed a producer's connection",
                    ));
                }
                Ok(more) => self.answer.extend_from_slice(&buffer[..more]),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(why) => return Err(why),
            }
            if let Some(length) = self.answer.first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.answer.len() >= length + 4 {
                    let good = protocol::produced(&self.answer[4..])?;
                    self.answer.clear();
                    return Ok(Some(good));
                }
            }
        }
    }

    fn again(&mut self) -> io::Result<()> {
        self.sent = 0;
        self.since = Instant::now();
        self.write()
    }
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let batch = protocol::batch(options.records, options.value_bytes, 0);
    let mut producers = Vec::new();
    for index in 0..options.connections {
        let stream = TcpStream::connect(&options.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(
            &poll,
            &stream,
            epoll::EventData::new_u64(u64::from(index)),
            flags,
        )?;
        let frame = protocol::produce(&options.topic, &[index % options.partitions], &batch);
        producers.push(Producer {
            stream,
            frame,
            sent: 0,
            answer: Vec::new(),
            since: Instant::now(),
        });
    }
    for producer in &mut producers {
        producer.again()?;
    }
    let mut events = Vec::with_capacity(256);
    let (mut latencies, mut requests) = (Latencies::default(), 0u64);
    let mut step = |counted: Option<&mut Latencies>| -> io::Result<u64> {
        events.clear();
        let most = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        epoll::wait(
            &poll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&most),
        )?;
        let mut done = 0;
        let mut counted = counted;
        for event in &events {
            let producer = &mut producers[event.data.u64() as usize];
            producer.write()?;
            if let Some(good) = producer.read()? {
                if !good && counted.is_some() {
                    return Err(io::Error::other("a partition has no leader, or lost it"));
                }
                if let Some(latencies) = counted.as_deref_mut() {
                    latencies.add(producer.since.elapsed());
                }
                done += 1;
                producer.again()?;
            }
        }
        Ok(done)
    };
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_secs_f64(options.warm_up) {
        step(None)?;
    }
    println!("start");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs_f64(options.seconds) {
        requests += step(Some(&mut latencies))?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("end");
    let records = requests * u64::from(options.records);
    println!(
        "{{\"records\":{records},\"bytes\":{},\"seconds\":{seconds:.3},{}}}",
        requests * batch.len() as u64,
        latencies.json()
    );
    Ok(())
}
