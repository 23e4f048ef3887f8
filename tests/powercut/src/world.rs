//! All of a run together: two disks, a broker on them, producers that never give up, and the auditor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Site};
use crate::control::Control;
use crate::ledger::{Keeps, Partition, Topic};
use crate::mount::{Disk, FileSystem, Make, Scratch, patiently, scratch};
use crate::phase;
use crate::producer::{Book, Producer, Shared, locked};
use crate::rng::Rng;

/// Refuses at its quota, and deletes nothing unasked: the strictest audit.
pub(crate) static KEEP: Topic = Topic {
    name: "keep",
    partitions: 4,
    keeps: Keeps::All,
    value_bytes_max: 4_000,
};
/// A small quota: extents are sealed and freed all the time. The newest quarter of it must be there.
pub(crate) static CHURN: Topic = Topic {
    name: "churn",
    partitions: 6,
    keeps: Keeps::Newest(1 << 20),
    value_bytes_max: 60_000,
};
/// Few keys: the compactor swaps extents.
pub(crate) static COMPACT: Topic = Topic {
    name: "compact",
    partitions: 2,
    keeps: Keeps::LastOfKey,
    value_bytes_max: 8_000,
};
pub(crate) static TOPICS: [&Topic; 3] = [&KEEP, &CHURN, &COMPACT];

const TOPICS_TOML: &str = r#"
[[topic]]
name = "keep"
partitions = 4
retention = { time = "forever", bytes = "32MiB" }
on_full = "refuse"

[[topic]]
name = "churn"
partitions = 6
retention = { time = "forever", bytes = "4MiB" }

[[topic]]
name = "compact"
partitions = 2
cleanup = "compact"
retention = { bytes = "16MiB" }
"#;

const DISK_BYTES: u64 = 1 << 30;
/// Of `keep`'s quota: beyond it the run deletes the oldest half.
const KEEP_RECORDS_MAX: usize = 12_000;

/// What a run is made of; defaults are those of `cuts`.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) site: &'static str,
    pub(crate) topics: &'static str,
    pub(crate) flush_us: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            site: "",
            topics: TOPICS_TOML,
            flush_us: 400,
        }
    }
}

/// What an audit saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Audit {
    pub(crate) read: u64,
    pub(crate) compared: u64,
}

pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) broker: Option<Broker>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) rng: Rng,
    pub(crate) disks: Vec<Disk>,
    /// Longest start after a kill or a cut.
    pub(crate) slowest_start: Duration,
    books: Vec<Book>,
    producers: Vec<JoinHandle<()>>,
    neighbours: Vec<JoinHandle<()>>,
    quiet: Arc<AtomicBool>,
    topics: Vec<&'static Topic>,
    // Last, so that it goes when nothing is mounted in it any more.
    pub(crate) scratch: Scratch,
}

impl World {
    pub(crate) fn new(seed: u64, plan: &Plan) -> io::Result<Self> {
        let mut rng = Rng::new(seed);
        let scratch = scratch()?;
        let mut disks = Vec::new();
        for (name, file_system) in [("meta", FileSystem::Ext4), ("data", FileSystem::Xfs)] {
            let make = Make {
                bytes: DISK_BYTES,
                timed: false,
                seed: rng.next(),
                flush_us: plan.flush_us,
            };
            disks.push(Disk::new(scratch.path(), name, file_system, make)?);
        }
        let dirs: Vec<PathBuf> = disks.iter().map(|it| it.dir.join("howdah")).collect();
        let site = Site::new(scratch.path(), &dirs, plan.site, plan.topics)?;
        let topics = TOPICS
            .iter()
            .filter(|it| plan.topics.contains(&format!("\"{}\"", it.name)));
        Ok(Self {
            site,
            broker: None,
            shared: Arc::new(Shared::default()),
            rng,
            disks,
            slowest_start: Duration::ZERO,
            books: Vec::new(),
            producers: Vec::new(),
            neighbours: Vec::new(),
            quiet: Arc::default(),
            topics: topics.copied().collect(),
            scratch,
        })
    }

    /// The directories that the broker has on each disk.
    pub(crate) fn dir(&self, disk: usize) -> PathBuf {
        self.disks[disk].dir.join("howdah")
    }

    /// Starts the broker and waits until it serves.
    pub(crate) fn start(&mut self) -> io::Result<Duration> {
        let (broker, took) = self.site.start()?;
        self.slowest_start = self.slowest_start.max(took);
        self.broker = Some(broker);
        Ok(took)
    }

    /// What the broker promises to bear: sectors torn in its ring, superblocks and checkpoints, whose blocks never move.
    pub(crate) fn make_fragile(&mut self) -> io::Result<()> {
        for at in 0..self.disks.len() {
            let dir = self.dir(at);
            for name in ["journal", "SUPER.a", "SUPER.b", "ckpt.a", "ckpt.b"] {
                self.disks[at].fragile(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Another program on each file system that syncs a file of its own now and then, until the next cut: the file
    /// system's log is committed at moments that the store did not choose.
    pub(crate) fn disturb(&mut self) {
        // Often enough to fall between any two steps, or seldom enough that what was left out stays out until the cut.
        let most = *self.rng.pick(&[0, 150, 1_500]);
        self.quiet.store(most == 0, Ordering::Release);
        for disk in &self.disks {
            let (path, quiet) = (disk.dir.join("neighbour"), self.quiet.clone());
            let mut rng = Rng::new(self.rng.next());
            self.neighbours.push(std::thread::spawn(move || {
                while !quiet.load(Ordering::Acquire) {
                    let file = std::fs::write(&path, "here").and_then(|()| File::open(&path));
                    // The power may be off already.
                    let _ = file.and_then(|it| it.sync_all());
                    std::thread::sleep(Duration::from_millis(rng.below(most)));
                }
            }));
        }
    }

    fn silence(&mut self) {
        self.quiet.store(true, Ordering::Release);
        for neighbour in self.neighbours.drain(..) {
            // It does nothing that could panic, and nothing is asked of it.
            let _ = neighbour.join();
        }
    }

    /// Begins to produce; nobody has written to these topics before.
    pub(crate) fn produce(&mut self) {
        for topic in self.topics.clone() {
            let books: Vec<Book> = (0..topic.partitions)
                .map(|it| Arc::new(Mutex::new(Partition::new(topic, it))))
                .collect();
            self.books.extend(books.iter().cloned());
            let (records, pause) = match topic.keeps {
                Keeps::All => (12, Duration::from_millis(4)),
                Keeps::Newest(_) => (40, Duration::from_millis(1)),
                Keeps::LastOfKey => (30, Duration::from_millis(3)),
            };
            let seed = self.rng.next();
            let producer = Producer::new(
                self.site.kafka,
                self.shared.clone(),
                &books,
                seed,
                records,
                pause,
            );
            self.producers
                .push(std::thread::spawn(move || producer.run()));
        }
    }

    /// Ends the producers; what was written is nobody's any more.
    pub(crate) fn forget(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for producer in self.producers.drain(..) {
            if producer.join().is_err() {
                self.shared.fault("a producer panicked".to_owned());
            }
        }
        self.shared.stop.store(false, Ordering::Release);
        self.books.clear();
    }

    /// The end of what was acknowledged, of each partition.
    pub(crate) fn ends(&self) -> Vec<i64> {
        self.books.iter().map(|it| locked(it).end()).collect()
    }

    /// Each partition and its first acknowledged offset.
    pub(crate) fn starts(&self) -> Vec<(&'static Topic, i32, i64)> {
        let books = self.books.iter().map(|it| locked(it));
        books.map(|it| (it.topic, it.index, it.start())).collect()
    }

    /// Partitions whose end is still what it was.
    pub(crate) fn standing(&self, before: &[i64]) -> Vec<String> {
        let now = self.books.iter().map(|it| {
            let partition = locked(it);
            (
                partition.end(),
                format!("{}-{}", partition.topic.name, partition.index),
            )
        });
        now.zip(before)
            .filter(|((end, _), before)| end == *before)
            .map(|((_, name), _)| name)
            .collect()
    }

    /// The broker's exit status, if it ended by itself.
    pub(crate) fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.broker.as_mut().map_or(Ok(None), Broker::ended)
    }

    /// DeleteRecords of the older half of each partition.
    pub(crate) fn delete_half(&mut self, topic: &Topic) -> io::Result<()> {
        for book in &self.books {
            let mut partition = locked(book);
            if partition.topic.name == topic.name {
                let below = partition.end() - partition.len() as i64 / 2;
                self.site.delete_below(topic, partition.index, below)?;
                partition.delete_below(below);
            }
        }
        Ok(())
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until `count` more records are acknowledged than `since`.
    pub(crate) fn load(&mut self, since: u64, count: u64, most: Duration) -> io::Result<()> {
        let until = Instant::now() + most;
        while self.acknowledged() < since + count {
            if let Some(status) = self.ended()? {
                return Err(io::Error::other(format!(
                    "the broker ended under load: {status}"
                )));
            }
            if Instant::now() > until {
                let done = self.acknowledged() - since;
                let refused = self.shared.refused.load(Ordering::Acquire);
                let faults = self.shared.take_faults();
                return Err(io::Error::other(format!(
                    "only {done} of {count} records acknowledged in {most:?}, {refused} refusals so far, {} faults: {:?}",
                    faults.len(),
                    faults.first()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Producers hold off, or go on.
    pub(crate) fn pause(&self, paused: bool) -> io::Result<()> {
        self.shared.paused.store(paused, Ordering::Release);
        let all = self.producers.len() as u64;
        if paused {
            let rested = || Ok((self.shared.at_rest.load(Ordering::Acquire) == all).then_some(()));
            return patiently(Duration::from_secs(60), rested).map_err(|it| {
                io::Error::new(
                    it.kind(),
                    format!("the producers do not come to rest: {it}"),
                )
            });
        }
        Ok(())
    }

    /// Sets a trap on both disks: they hang when a thread of the store is in `part`, after up to `passes` requests there.
    pub(crate) fn set_trap(&mut self, part: &str, passes: u64) -> io::Result<()> {
        // A start will write into it; the trap looks at it before.
        if self.broker.is_none() {
            phase::blank(&self.site.phases)?;
        }
        let file = self.site.phases.display();
        for disk in &mut self.disks {
            let passes = self.rng.below(passes + 1);
            disk.control.say(&format!("trap {file} {part} {passes}"))?;
        }
        Ok(())
    }

    /// Waits until a trap has sprung, with a thread still in `part`; false if none did in time or the broker ended.
    pub(crate) fn trapped(&mut self, part: &str, most: Duration) -> io::Result<bool> {
        let until = Instant::now() + most;
        while Instant::now() < until {
            let mut sprung = 0;
            for disk in &mut self.disks {
                sprung += Control::number(&disk.control.say("sprung")?, "sprung");
            }
            let phases = self.broker.as_ref().map(Broker::phases);
            // The disk that sprung may not be the one whose thread is there: then that one springs the next time.
            if sprung > 0 && phases.is_some_and(|it| it.iter().any(|it| it == part)) {
                return Ok(true);
            }
            if let Some(status) = self.ended()? {
                return Err(io::Error::other(format!("the broker ended: {status}")));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(false)
    }

    /// Both disks lose their power and the broker is killed, at one moment. What the store did then.
    pub(crate) fn cut(&mut self) -> io::Result<(Vec<String>, u64)> {
        let mut broker = self
            .broker
            .take()
            .ok_or_else(|| io::Error::other("no broker to cut"))?;
        let (first, second) = self.disks.split_at_mut(1);
        // Two threads, since the first answer comes only after the first disk has thrown its dice.
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(|| second[0].control.say("cut"));
            (first[0].control.say("cut"), other.join())
        });
        // Whoever had work at the disks hangs in it.
        let phases = broker.phases();
        broker.kill()?;
        let two = two.map_err(|_| io::Error::other("the thread of a cut panicked"))?;
        let lost = [one?, two?]
            .iter()
            .map(|it| Control::number(it, "reverted"))
            .sum();
        for disk in &mut self.disks {
            disk.control.say("off")?;
        }
        self.silence();
        broker.wait()?;
        for disk in &mut self.disks {
            disk.power_cycle()?;
        }
        Ok((phases, lost))
    }

    /// Another client reads everything, and each acknowledged record must be there. Producers must be at rest.
    pub(crate) fn audit(&mut self) -> io::Result<Audit> {
        let mut done = Audit::default();
        let mut faults = Vec::new();
        for topic in &self.topics {
            let logs: BTreeMap<_, _> = self.site.read(topic)?;
            for book in &self.books {
                let mut partition = locked(book);
                if partition.topic.name != topic.name {
                    continue;
                }
                let seen = logs.get(&partition.index).map_or(&[][..], |it| it);
                done.read += seen.len() as u64;
                faults.extend(partition.audit(seen));
                done.compared += partition.len() as u64;
                if partition.topic.keeps == Keeps::All && partition.len() > KEEP_RECORDS_MAX {
                    let below = partition.end() - KEEP_RECORDS_MAX as i64 / 2;
                    self.site
                        .delete_below(partition.topic, partition.index, below)?;
                    partition.delete_below(below);
                }
            }
        }
        faults.extend(self.shared.take_faults());
        if faults.is_empty() {
            return Ok(done);
        }
        let more = faults.len().saturating_sub(20);
        faults.truncate(20);
        if more > 0 {
            faults.push(format!("and {more} more"));
        }
        Err(io::Error::other(faults.join("\n  ")))
    }

    /// SIGTERM; it must end in order.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        let Some(mut broker) = self.broker.take() else {
            return Ok(());
        };
        let status = broker.stop()?;
        if !status.success() {
            return Err(io::Error::other(format!(
                "the broker stopped with {status}"
            )));
        }
        Ok(())
    }

    /// `howdah verify` of both disks finds nothing.
    pub(crate) fn verify(&self) -> io::Result<()> {
        for disk in 0..self.disks.len() {
            if let Some(said) = self.site.verify(&self.dir(disk))? {
                return Err(io::Error::other(said));
            }
        }
        Ok(())
    }

    /// What helps after a failure: where everything lies, and the end of the broker's log.
    pub(crate) fn explain(&mut self) {
        self.scratch.keep();
        let log = std::fs::read_to_string(self.site.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("---- the end of {}", self.site.log().display());
        for line in &lines[lines.len().saturating_sub(40)..] {
            eprintln!("{line}");
        }
        eprintln!("----");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.forget();
        // Heal first: a broker that waits for a stalled disk can't even be killed.
        for disk in &mut self.disks {
            let _ = disk.control.say("heal");
        }
        self.silence();
        self.broker = None;
    }
}
