//! The broker as a process: its site file, its start, its end of either kind, where it is inside, and another client's
//! view of its logs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, FetchRequest, FetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::ledger::{Seen, Topic};
use crate::mount::patiently;
use crate::phase;
use crate::wire::Connection;

/// Longest time from exec to the first answer.
const START_MAX: Duration = Duration::from_secs(60);
/// A clean stop takes 5 s at most; a loaded machine gets some more.
const STOP_MAX: Duration = Duration::from_secs(15);

/// What a broker of this run is started with.
#[derive(Debug)]
pub(crate) struct Site {
    program: PathBuf,
    base: PathBuf,
    file: PathBuf,
    /// Where the store's threads say what they do.
    pub(crate) phases: PathBuf,
    pub(crate) kafka: SocketAddr,
    http: SocketAddr,
}

/// What a fetch gave.
pub(crate) struct Fetched {
    /// The partition's error.
    pub(crate) code: i16,
    pub(crate) bytes: usize,
    /// Offset behind the last batch; the one asked for if there is none.
    pub(crate) next: i64,
}

/// Offset behind the last whole batch: each has its base offset at 0, its length behind byte 12 at 8, and its last offset
/// from the base at 23.
fn behind(mut records: &[u8]) -> Option<i64> {
    let mut next = None;
    while let Some((base, rest)) = records
        .split_first_chunk()
        .map(|(it, rest)| (i64::from_be_bytes(*it), rest))
    {
        let length = rest.first_chunk().map(|it| u32::from_be_bytes(*it))?;
        let delta = records
            .get(23..27)?
            .first_chunk()
            .map(|it| i32::from_be_bytes(*it))?;
        records = records.get(12 + length as usize..)?;
        next = Some(base + i64::from(delta) + 1);
    }
    next
}

/// The broker's program: `HOWDAH_BIN`, or what stands beside this one.
pub(crate) fn program() -> io::Result<PathBuf> {
    if let Some(named) = std::env::var_os("HOWDAH_BIN") {
        return fs::canonicalize(&named)
            .map_err(|it| io::Error::new(it.kind(), format!("HOWDAH_BIN {named:?}: {it}")));
    }
    let beside = std::env::current_exe()?.with_file_name("howdah");
    if beside.exists() {
        return Ok(beside);
    }
    Err(io::Error::other(
        "HOWDAH_BIN does not name the broker's program, and none lies beside this one",
    ))
}

impl Site {
    /// A site of one node with disks at `dirs`; `extra` goes below `[site]`, `topics` behind the disks.
    pub(crate) fn new(
        base: &Path,
        dirs: &[PathBuf],
        extra: &str,
        topics: &str,
    ) -> io::Result<Self> {
        let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (kafka, http) = (free()?, free()?);
        let mut text = format!("[site]\nname = \"powercut\"\n{extra}\n");
        text += "[defaults]\nauto_create = false\njoin_delay = \"0s\"\n\n";
        text += &format!(
            "[[node]]\nname = \"a\"\naddress = \"127.0.0.1\"\nports = {{ kafka = {}, http = {} }}\n",
            kafka.port(),
            http.port()
        );
        for dir in dirs {
            text += &format!(
                "[[node.disk]]\npath = \"{}\"\nuse = \"512MiB\"\njournal = \"32MiB\"\n",
                dir.display()
            );
        }
        text += "\n";
        text += topics;
        let file = base.join("site.toml");
        fs::write(&file, text)?;
        Ok(Self {
            program: program()?,
            base: base.to_owned(),
            file,
            phases: base.join("phases"),
            kafka,
            http,
        })
    }

    /// A command of the broker's program.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null());
        command
    }

    /// The process, not yet waited for.
    pub(crate) fn spawn(&self) -> io::Result<Broker> {
        let log = File::options().append(true).create(true).open(self.log())?;
        phase::blank(&self.phases)?;
        let mut command = self.command(&["run", "--site"]);
        command
            .arg(&self.file)
            .arg("--data")
            .arg(self.base.join("data"));
        command
            .env("HOWDAH_PHASE_FILE", &self.phases)
            .env("RUST_BACKTRACE", "1");
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Broker {
            child,
            phases: File::open(&self.phases)?,
            kafka: self.kafka,
            began: Instant::now(),
        })
    }

    /// The process, serving; and how long that took.
    pub(crate) fn start(&self) -> io::Result<(Broker, Duration)> {
        let mut broker = self.spawn()?;
        let took = broker.ready()?;
        Ok((broker, took))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.base.join("broker.log")
    }

    /// `howdah verify DIR`: nothing if it is clean, else what it said.
    pub(crate) fn verify(&self, dir: &Path) -> io::Result<Option<String>> {
        let output = self.command(&["verify"]).arg(dir).output()?;
        if output.status.success() {
            return Ok(None);
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok(Some(format!(
            "verify {}: {}: {}",
            dir.display(),
            output.status,
            said.trim()
        )))
    }

    /// All records of a topic as kcat (librdkafka) reads them, by partition.
    pub(crate) fn read(&self, topic: &Topic) -> io::Result<BTreeMap<i32, Vec<Seen>>> {
        let mut command = Command::new("timeout");
        command.args([
            "90",
            "kcat",
            "-C",
            "-q",
            "-e",
            "-b",
            &self.kafka.to_string(),
            "-t",
            topic.name,
        ]);
        command.args([
            "-o",
            "beginning",
            "-f",
            "%p|%o|%k|%s\\n",
            "-X",
            "check.crcs=true",
        ]);
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(io::Error::other(format!(
                "kcat of {}: {}: {said}",
                topic.name, output.status
            )));
        }
        let mut logs: BTreeMap<i32, Vec<Seen>> =
            (0..topic.partitions).map(|it| (it, Vec::new())).collect();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut fields = line.splitn(4, '|');
            let mut field = || fields.next().unwrap_or_default();
            let (partition, offset) = (field().parse::<i32>(), field().parse());
            let (Ok(partition), Ok(offset)) = (partition, offset) else {
                return Err(io::Error::other(format!("kcat said `{line}`")));
            };
            let (key, value) = (field().to_owned(), field().to_owned());
            logs.entry(partition)
                .or_default()
                .push(Seen { offset, key, value });
        }
        Ok(logs)
    }

    /// CreateTopics; its error code.
    pub(crate) fn create(&self, name: &'static str, partitions: i32) -> io::Result<i16> {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(1_000)
            .with_topics(vec![topic]);
        let mut connection = Connection::open(self.kafka)?;
        let answer: CreateTopicsResponse = connection.ask(ApiKey::CreateTopics, 5, &request)?;
        let row = answer.topics.first().map(|it| it.error_code);
        row.ok_or_else(|| io::Error::other("CreateTopics was answered without its topic"))
    }

    /// Produces one record with kcat, which tries for `most`; whether it was acknowledged.
    pub(crate) fn produce_one(
        &self,
        topic: &str,
        partition: i32,
        most: Duration,
    ) -> io::Result<bool> {
        let mut command = Command::new("kcat");
        let (address, partition) = (self.kafka.to_string(), partition.to_string());
        command.args(["-P", "-b", &address, "-t", topic, "-p", &partition]);
        command.args(["-X", &format!("message.timeout.ms={}", most.as_millis())]);
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(b"one\n")?;
        }
        Ok(child.wait()?.success())
    }

    /// One fetch of a partition: its error code, and how many bytes of batches came.
    pub(crate) fn fetch(&self, topic: &Topic, partition: i32, offset: i64) -> io::Result<Fetched> {
        const FETCH: i16 = 11;
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20);
        let wanted = FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str(topic.name)))
            .with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![wanted]);
        let mut connection = Connection::open(self.kafka)?;
        let answer: FetchResponse = connection.ask(ApiKey::Fetch, FETCH, &request)?;
        let rows = answer.responses.iter().flat_map(|it| &it.partitions);
        let row = rows.into_iter().next();
        let row =
            row.ok_or_else(|| io::Error::other("a fetch was answered without its partition"))?;
        let records = row.records.as_deref().unwrap_or_default();
        Ok(Fetched {
            code: row.error_code,
            bytes: records.len(),
            next: behind(records).unwrap_or(offset),
        })
    }

    /// What `/status` says at this moment.
    pub(crate) fn status(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /status HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    }

    /// DeleteRecords of one partition.
    pub(crate) fn delete_below(
        &self,
        topic: &Topic,
        partition: i32,
        offset: i64,
    ) -> io::Result<()> {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(topic.name)))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let mut connection = Connection::open(self.kafka)?;
        let answer: DeleteRecordsResponse = connection.ask(ApiKey::DeleteRecords, 2, &request)?;
        let codes = answer
            .topics
            .iter()
            .flat_map(|it| &it.partitions)
            .map(|it| it.error_code);
        match codes.clone().find(|it| *it != 0) {
            None => Ok(()),
            Some(code) => Err(io::Error::other(format!("DeleteRecords: error {code}"))),
        }
    }
}

/// A running broker. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    phases: File,
    kafka: SocketAddr,
    began: Instant,
}

impl Broker {
    /// Waits until it answers; how long that took.
    pub(crate) fn ready(&mut self) -> io::Result<Duration> {
        let address = self.kafka;
        patiently(START_MAX, || {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "the broker ended while it started: {status}"
                )));
            }
            let answer = Connection::open(address).and_then(|mut it| {
                it.ask::<_, ApiVersionsResponse>(
                    ApiKey::ApiVersions,
                    0,
                    &ApiVersionsRequest::default(),
                )
            });
            Ok(answer.ok().map(|_| ()))
        })
        .map_err(|it| io::Error::new(it.kind(), format!("start: {it}")))?;
        Ok(self.began.elapsed())
    }

    /// What the store's threads do at this moment, without those that do nothing.
    pub(crate) fn phases(&self) -> Vec<String> {
        phase::now(&self.phases)
    }

    /// `Some` if it has ended by itself.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL, without waiting: a process with I/O on a dead disk ends when the disk lets go.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Until it is gone.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        patiently(Duration::from_secs(20), || self.child.try_wait())
    }

    /// SIGTERM and its exit status.
    pub(crate) fn stop(&mut self) -> io::Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        patiently(STOP_MAX, || self.child.try_wait())
            .map_err(|it| io::Error::new(it.kind(), format!("the broker does not stop: {it}")))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
