//! A running broker at its HTTP door: `howdah cluster`, what it refuses, and rot that the scrubber finds.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use model::Offset;

mod raw;

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with a directory of its own.
struct Broker {
    child: Child,
    scratch: raw::Scratch,
    http: SocketAddr,
}

impl Broker {
    fn start(name: &str) -> (Self, raw::Client) {
        let scratch = raw::Scratch::new(name).unwrap();
        let (kafka, http) = (raw::free_port(), raw::free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_howdah"))
            .args(["run", "--data"])
            .arg(scratch.0.join("data"))
            .args(["--kafka", &kafka.to_string(), "--http", &http.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Self {
            child,
            scratch,
            http,
        };
        let client = raw::Client::connect(kafka);
        (broker, client)
    }

    fn cluster(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_howdah"));
        let http = self.http.to_string();
        command.args(["cluster", "--http", &http]).args(args);
        command.output().unwrap()
    }

    /// Sends a request's head; gives the whole answer.
    fn http(&self, head: &str) -> String {
        let mut socket = TcpStream::connect(self.http).unwrap();
        write!(
            socket,
            "{head}\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_cluster_verb_shows_the_node_and_may_confirm_its_clock() {
    let (broker, _client) = Broker::start("cluster");
    let shown = broker.cluster(&[]);
    assert!(shown.status.success(), "{shown:?}");
    let text = said(&shown);
    for part in [
        "site laptop",
        "node a (1): serving, controller",
        "clock trusted",
        ": serving,",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let shown: serde_json::Value =
        serde_json::from_str(&said(&broker.cluster(&["--json"]))).unwrap();
    let node = &shown["nodes"][0];
    assert_eq!(node["role"], "controller");
    assert!(node["lease_ms"].as_u64().unwrap() > 0 && node["term"].as_u64().unwrap() > 0);
    assert_eq!(node["disks"][0]["suspect_ranges"], serde_json::json!([]));
    let confirmed = broker.cluster(&["--confirm-clock"]);
    assert!(confirmed.status.success());
    assert!(said(&confirmed).contains("no step"), "{confirmed:?}");
    // A page that a browser has open can send this much.
    let answer = broker.http("POST /clock/confirm HTTP/1.1\r\nContent-Length: 0");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = broker.http("GET /clock/confirm HTTP/1.1");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let http = raw::free_port().to_string();
    let gone = Command::new(env!("CARGO_BIN_EXE_howdah"))
        .args(["cluster", "--http", &http])
        .output()
        .unwrap();
    assert_eq!(gone.status.code(), Some(4));
}

#[test]
fn only_what_was_accepted_counts_as_taken_in() {
    let (broker, mut client) = Broker::start("accepted");
    let counted = |name: &str| {
        let metrics = broker.http("GET /metrics HTTP/1.1");
        let line = metrics.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit_once(' ')).unwrap().1;
        value.parse::<f64>().unwrap()
    };
    client.produce(&raw::produce(&raw::batch(3, 200)));
    let mut late = raw::batch(4, 300);
    late[43..51].copy_from_slice(&7_i64.to_be_bytes());
    late[51..53].copy_from_slice(&0_i16.to_be_bytes());
    late[53..57].copy_from_slice(&0_i32.to_be_bytes());
    model::batch::seal(&mut late);
    let frame = raw::produce(&late);
    client.produce(&frame);
    // The same once more is a duplicate: answered, not appended.
    client.produce(&frame);
    // And a gap is refused.
    late[53..57].copy_from_slice(&9_i32.to_be_bytes());
    model::batch::seal(&mut late);
    assert_eq!(
        client.produce_error(&raw::produce(&late)),
        45,
        "OUT_OF_ORDER_SEQUENCE_NUMBER"
    );
    let taken = ["batches", "records", "bytes"].map(|it| counted(&format!("howdah_{it}_in_total")));
    assert_eq!(taken, [2.0, 7.0, 500.0]);
}

/// Extent files of a disk that are not empty.
fn extents(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in std::fs::read_dir(data.join("disk/ext")).unwrap() {
        for file in std::fs::read_dir(directory.unwrap().path()).unwrap() {
            found.push(file.unwrap().path());
        }
    }
    found
}

#[test]
fn rot_in_a_sealed_extent_is_found_told_and_refused_and_the_rest_is_served() {
    let (broker, mut client) = Broker::start("rot");
    // Nine batches fill the first extent of 1 MiB.
    let produce = raw::produce(&raw::batch(10, 100_000));
    for _ in 0..12 {
        client.produce(&produce);
    }
    let mut marked = None;
    for path in extents(&broker.scratch.0.join("data")) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        // The third batch of the partition: behind the header and two batches.
        let at = 4096 + 2 * 100_000 + 50_000;
        if file.metadata().unwrap().len() == 1 << 20
            && file.read_exact_at(&mut byte, at).is_ok()
            && byte == [0x5a]
        {
            file.write_all_at(&[0x5b], at).unwrap();
            marked = Some(file);
        }
    }
    assert!(marked.is_some(), "no extent holds the batch");
    let began = Instant::now();
    let range = loop {
        let shown: serde_json::Value =
            serde_json::from_str(&said(&broker.cluster(&["--json"]))).unwrap();
        let ranges = shown["nodes"][0]["disks"][0]["suspect_ranges"].clone();
        if let Some(range) = ranges.as_array().unwrap().first() {
            break range.clone();
        }
        assert!(began.elapsed() < PATIENCE, "nothing is found: {shown}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(
        (&range["topic"], &range["partition"]),
        (&"counted".into(), &0.into())
    );
    assert_eq!(
        (&range["first_offset"], &range["last_offset"]),
        (&20.into(), &29.into())
    );
    assert_eq!(range["damaged"], true);
    assert!(said(&broker.cluster(&[])).contains("SUSPECT counted 0, offsets 20 to 29, refused"));
    let metrics = broker.http("GET /metrics HTTP/1.1");
    assert!(
        metrics.contains("howdah_disk_suspect_ranges{disk="),
        "{metrics}"
    );
    // What lies before and behind is served, and no byte of the batch.
    assert_eq!(client.fetch(&raw::fetch(Offset(0), 1 << 20)) / 100_000, 2);
    assert_eq!(client.fetch(&raw::fetch(Offset(30), 1 << 20)) / 100_000, 9);
    let error = client.fetch_error(&raw::fetch(Offset(25), 1 << 20));
    assert_eq!(error, 56, "KAFKA_STORAGE_ERROR");
}
