//! A client made of bytes, for tests that count what the broker does and for those that need no more than a few frames: it allocates nothing while it asks, and makes the
//! same few system calls for every request. Frames are those of current clients: flexible versions, one partition.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use model::{Offset, varint};

/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 2 << 20;
const START_MAX: Duration = Duration::from_secs(60);
pub(crate) const TOPIC: &str = "counted";

/// A connection, with room for any answer.
pub(crate) struct Client {
    socket: TcpStream,
    answer: Vec<u8>,
    /// Bytes of the last one.
    answered: usize,
}

/// A port of this machine that was free just now.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Client {
    /// Connects as soon as the broker listens, and has the topic made.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let began = Instant::now();
        let socket = loop {
            match TcpStream::connect(address) {
                Ok(socket) => break socket,
                Err(error) => assert!(began.elapsed() < START_MAX, "{address}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        socket.set_nodelay(true).unwrap();
        let mut client = Self {
            socket,
            answer: vec![0; ANSWER_BYTES_MAX],
            answered: 0,
        };
        while !client.told() {
            assert!(began.elapsed() < START_MAX, "the topic does not come");
        }
        client
    }

    /// Whether the topic is there by now. Its error stands before its name, and behind it that it is not internal and how
    /// many partitions it has.
    fn told(&mut self) -> bool {
        let name = TOPIC.as_bytes();
        let answer = self.ask(&metadata());
        let at = answer.windows(name.len()).position(|it| it == name);
        at.is_some_and(|at| answer[at - 3..at - 1] == [0, 0] && answer[at + name.len() + 1] > 1)
    }

    /// Sends a frame and waits for its answer, without the length.
    pub(crate) fn ask(&mut self, frame: &[u8]) -> &[u8] {
        self.socket.write_all(frame).unwrap();
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).unwrap();
        let bytes = u32::from_be_bytes(length) as usize;
        assert!(bytes <= self.answer.len(), "an answer of {bytes} B");
        self.socket.read_exact(&mut self.answer[..bytes]).unwrap();
        self.answered = bytes;
        &self.answer[..bytes]
    }

    /// Appends a batch; says at which offset it lies.
    pub(crate) fn produce(&mut self, frame: &[u8]) -> Offset {
        let answer = self.ask(frame);
        let (error, offset) = answer[PRODUCED_AT..PRODUCED_AT + 10].split_at(2);
        assert_eq!(error, [0, 0], "refused: {answer:?}");
        Offset(i64::from_be_bytes(offset.try_into().unwrap()))
    }

    /// Has a batch refused; gives the error.
    pub(crate) fn produce_error(&mut self, frame: &[u8]) -> i16 {
        let answer = self.ask(frame);
        let error = &answer[PRODUCED_AT..PRODUCED_AT + 2];
        i16::from_be_bytes(error.try_into().unwrap())
    }

    /// Fetches; says how many bytes of answer came.
    pub(crate) fn fetch(&mut self, frame: &[u8]) -> usize {
        assert_eq!(self.fetch_error(frame), 0, "refused");
        self.answered
    }

    /// Fetches; gives the partition's error.
    pub(crate) fn fetch_error(&mut self, frame: &[u8]) -> i16 {
        let answer = self.ask(frame);
        let error = &answer[PARTITION_ERROR_AT..PARTITION_ERROR_AT + 2];
        i16::from_be_bytes(error.try_into().unwrap())
    }
}

/// Error and base offset of a Produce: behind correlation id, tags, one topic, its name, one partition, its index.
const PRODUCED_AT: usize = 4 + 1 + 1 + 1 + TOPIC.len() + 1 + 4;
/// A partition's error of a Fetch: behind correlation id, tags, throttle time, error, session, one topic, its name, one partition, its index.
const PARTITION_ERROR_AT: usize = 4 + 1 + 4 + 2 + 4 + 1 + 1 + TOPIC.len() + 1 + 4;

/// The offset of a Fetch: behind length, header, the answer's limits, session, one topic, its name, one partition, its index
/// and leader epoch.
const FETCH_OFFSET_AT: usize = 4 + 14 + 25 + 1 + 1 + TOPIC.len() + 1 + 4 + 4;

/// A batch of `count` records that checks; what is in it no broker looks at.
pub(crate) fn batch(count: i32, bytes: usize) -> Vec<u8> {
    let mut batch = vec![0x5a; bytes];
    batch[..61].fill(0);
    batch[16] = 2;
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = (now.as_millis() as i64).to_be_bytes();
    batch[27..35].copy_from_slice(&now);
    batch[35..43].copy_from_slice(&now);
    batch[43..57].fill(0xff);
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    model::batch::seal(&mut batch);
    batch
}

fn frame(key: i16, version: i16, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(key.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(7_i32.to_be_bytes());
    out.extend(3_i16.to_be_bytes());
    out.extend(b"raw");
    out.push(0);
    body(&mut out);
    let bytes = out.len() as u32 - 4;
    out[..4].copy_from_slice(&bytes.to_be_bytes());
    out
}

/// A compact array, string or byte field of this length begins.
fn compact(out: &mut Vec<u8>, len: usize) {
    varint::write_u64(out, len as u64 + 1);
}

fn topic(out: &mut Vec<u8>) {
    compact(out, 1);
    compact(out, TOPIC.len());
    out.extend(TOPIC.as_bytes());
}

fn metadata() -> Vec<u8> {
    frame(3, 9, |out| {
        topic(out);
        // Tags of the topic; made if it is not there; authorised operations twice; tags.
        out.extend([0, 1, 0, 0, 0]);
    })
}

/// Produce, acks=1, to partition 0.
pub(crate) fn produce(batch: &[u8]) -> Vec<u8> {
    frame(0, 9, |out| {
        // No transactional id.
        out.push(0);
        out.extend(1_i16.to_be_bytes());
        out.extend(30_000_i32.to_be_bytes());
        topic(out);
        compact(out, 1);
        out.extend(0_i32.to_be_bytes());
        compact(out, batch.len());
        out.extend(batch);
        out.extend([0, 0, 0]);
    })
}

/// Fetch of at most `bytes_max` from `offset` of partition 0.
pub(crate) fn fetch(offset: Offset, bytes_max: u32) -> Vec<u8> {
    frame(1, 12, |out| {
        out.extend((-1_i32).to_be_bytes());
        out.extend(500_i32.to_be_bytes());
        out.extend(1_i32.to_be_bytes());
        out.extend(bytes_max.to_be_bytes());
        out.push(0);
        // No session.
        out.extend(0_i32.to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
        topic(out);
        compact(out, 1);
        out.extend(0_i32.to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
        out.extend(offset.0.to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
        out.extend((-1_i64).to_be_bytes());
        out.extend(bytes_max.to_be_bytes());
        // Tags of partition and topic; no forgotten topics; no rack; tags.
        out.extend([0, 0, 1, 1, 0]);
    })
}

/// The same question for another offset.
pub(crate) fn fetch_on(frame: &mut [u8], offset: Offset) {
    frame[FETCH_OFFSET_AT..FETCH_OFFSET_AT + 8].copy_from_slice(&offset.0.to_be_bytes());
}

/// A directory of its own, gone when dropped.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("howdah-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
