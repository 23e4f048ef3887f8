//! What the shell and the disks do, in as few lines as can be: everything is durable when [`World::flush`] says so.

use super::*;

/// A replica as its disk has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) batches: Vec<(Offset, Vec<u8>)>,
    pub(super) end: Offset,
    pub(super) log_start: Offset,
    pub(super) accepted: LeaderEpoch,
    pub(super) epochs: Vec<EpochStart>,
}

/// What is on its way to the medium, and what to say once it is there.
#[derive(Debug)]
enum Write {
    HardState(HardState),
    Entry(LogEntry),
    Snapshot(sitelog::Index, Term, Vec<u8>),
    Replica(ReplicaIx, Change),
}

#[derive(Debug)]
enum Change {
    New(TopicPartition, DiskIx),
    Append(Offset, Vec<u8>, Offset),
    Epoch(LeaderEpoch, Option<Offset>),
    LogStart(Offset),
    Gone,
}

/// A node: its media, and the broker of this life.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) broker: Broker,
    boot: u64,
    hard_state: HardState,
    snapshot: Option<(sitelog::Index, Term, Vec<u8>)>,
    pub(super) entries: Vec<LogEntry>,
    pub(super) logs: BTreeMap<(DiskIx, TopicPartition), Log>,
    /// Replicas by their names in this life.
    held: BTreeMap<ReplicaIx, (DiskIx, TopicPartition)>,
    queue: VecDeque<Write>,
    batches: BTreeMap<Ticket, Vec<u8>>,
    pub(super) answers: BTreeMap<Ticket, Answer>,
    pub(super) replies: BTreeMap<Ticket, GroupReply>,
    pub(super) outcomes: BTreeMap<Ticket, Outcome>,
    pub(super) events: Vec<Event>,
    pub(super) ends: Vec<End>,
    pub(super) pids: Vec<i64>,
    tickets: u64,
    /// Disks that take nothing.
    pub(super) failed: BTreeSet<DiskIx>,
}

fn disk(at: u8) -> Disk {
    Disk {
        uuid: DiskUuid(uuid(100 + at)),
        bytes: 4096 * MIB,
    }
}

const DISKS: u8 = 2;

impl World {
    /// An empty node.
    pub(super) fn new() -> Self {
        let start = Start {
            hard_state: HardState::default(),
            snapshot: None,
            entries: Vec::new(),
            whole: true,
            disks: (0..DISKS)
                .map(|at| DiskStart {
                    disk: disk(at),
                    out: false,
                    found: DiskFound::default(),
                })
                .collect(),
        };
        let mut world = Self {
            now: Instant(1_000_000_000),
            broker: Broker::new(settings(1, usize::from(DISKS)), start).unwrap(),
            boot: 1,
            hard_state: HardState::default(),
            snapshot: None,
            entries: Vec::new(),
            logs: BTreeMap::new(),
            held: BTreeMap::new(),
            queue: VecDeque::new(),
            batches: BTreeMap::new(),
            answers: BTreeMap::new(),
            replies: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            events: Vec::new(),
            ends: Vec::new(),
            pids: Vec::new(),
            tickets: 0,
            failed: BTreeSet::new(),
        };
        world.tell(Input::Start);
        world
    }

    /// The node starts again with what is durable; what was on its way is lost.
    pub(super) fn restart(&mut self) {
        self.restart_with(DISKS);
    }

    /// The same with so many of the disks that the site file gives it; the others are away.
    pub(super) fn restart_with(&mut self, disks: u8) {
        self.boot += 1;
        self.queue.clear();
        self.held.clear();
        self.batches.clear();
        self.events.clear();
        let found = |at: u8| DiskFound {
            suspect: false,
            replicas: self.found(DiskIx(at)),
        };
        let start = Start {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            entries: self.entries.clone(),
            whole: true,
            disks: (0..disks)
                .map(|at| DiskStart {
                    disk: disk(at),
                    out: self.failed.contains(&DiskIx(at)),
                    found: found(at),
                })
                .collect(),
        };
        self.broker = Broker::new(settings(self.boot, usize::from(DISKS)), start).unwrap();
        self.tell(Input::Start);
    }

    pub(super) fn found(&self, at: DiskIx) -> Vec<ReplicaFound> {
        let there = self.logs.iter().filter(|((disk, _), _)| *disk == at);
        let found = there.map(|((_, id), log)| ReplicaFound {
            id: *id,
            recovered: Recovered {
                log_start: log.log_start,
                end: log.end,
                high_watermark: Offset::ZERO,
                accepted_epoch: log.accepted,
                epochs: log.epochs.clone(),
            },
            windows: {
                let mut bytes = Vec::new();
                model::window::Windows::new(1).encode(model::window::PartIx(0), &mut bytes);
                bytes
            },
            hole: false,
        });
        found.collect()
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(super) fn tell(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.broker.step(self.now, input, &mut out);
        let effects: Vec<Effect> = out.drain().collect();
        for effect in effects {
            self.perform(effect);
        }
    }

    /// Everything on its way becomes durable, and what follows from that as well.
    pub(super) fn flush(&mut self) {
        while let Some(write) = self.queue.pop_front() {
            self.write(write);
        }
    }

    /// So many writes become durable; true if that was all.
    pub(super) fn writes(&mut self, count: usize) -> bool {
        for _ in 0..count {
            match self.queue.pop_front() {
                Some(write) => self.write(write),
                None => return true,
            }
        }
        self.queue.is_empty()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(50);
            self.tell(Input::Tick);
            self.flush();
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Hold {
                replica,
                id,
                disk,
                new,
            } => {
                self.held.insert(replica, (disk, id));
                if new {
                    self.put(replica, Change::New(id, disk));
                }
            }
            Effect::LetGo { replica } => self.put(replica, Change::Gone),
            Effect::Forget { disk, id } => drop(self.logs.remove(&(disk, id))),
            Effect::Batch { ticket, bytes } => drop(self.batches.insert(ticket, bytes)),
            Effect::Partition { replica, effect } => self.replica(replica, effect),
            Effect::SiteLog(sitelog::Effect::HardState(state)) => {
                self.queue.push_back(Write::HardState(state));
            }
            Effect::SiteLog(sitelog::Effect::Append(entry)) => {
                self.queue.push_back(Write::Entry(entry));
            }
            Effect::SiteLog(other) => panic!("a site of one has no peers: {other:?}"),
            Effect::Snapshot { index, term, bytes } => {
                self.queue.push_back(Write::Snapshot(index, term, bytes));
            }
            Effect::Load {
                replica,
                partition,
                epoch,
            } => self.load(replica, partition, epoch),
            Effect::Group { ticket, reply } => drop(self.replies.insert(ticket, reply)),
            Effect::Answer { ticket, answer } => drop(self.answers.insert(ticket, answer)),
            Effect::Pids { first } => self.pids.push(first.0),
            Effect::Event(event) => self.events.push(event),
            Effect::End(end) => self.ends.push(end),
            Effect::Ask { .. } | Effect::Say { .. } => panic!("there is nobody to talk to"),
            Effect::Configure { .. } | Effect::Topic(_) | Effect::TopicGone { .. } => {}
        }
    }

    fn put(&mut self, replica: ReplicaIx, change: Change) {
        self.queue.push_back(Write::Replica(replica, change));
    }

    fn replica(&mut self, at: ReplicaIx, effect: partition::Effect) {
        match effect {
            partition::Effect::Append {
                ticket,
                base_offset,
                leader_epoch,
                ..
            } => {
                let mut bytes = self.batches.remove(&ticket).unwrap();
                model::batch::stamp(&mut bytes, base_offset, leader_epoch);
                let end = Header::read(&bytes).unwrap().next_offset();
                self.put(at, Change::Append(base_offset, bytes, end));
            }
            partition::Effect::Epoch { epoch, start, .. } => {
                self.put(at, Change::Epoch(epoch, start));
            }
            partition::Effect::LogStart { offset } => self.put(at, Change::LogStart(offset)),
            partition::Effect::Reply { ticket, outcome } => {
                assert_eq!(
                    self.outcomes.insert(ticket, outcome),
                    None,
                    "answered twice"
                );
            }
            _ => {}
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::HardState(state) => {
                self.hard_state = state;
                let term = state.term;
                self.tell(Input::SiteLog(sitelog::Input::HardStateDurable { term }));
            }
            Write::Entry(entry) => {
                let index = entry.index;
                self.entries.push(entry);
                self.tell(Input::SiteLog(sitelog::Input::Durable { index }));
            }
            Write::Snapshot(index, term, bytes) => {
                self.entries.retain(|entry| entry.index > index);
                self.snapshot = Some((index, term, bytes));
                self.tell(Input::SiteLog(sitelog::Input::SnapshotDurable { index }));
            }
            Write::Replica(replica, change) => self.change(replica, change),
        }
    }

    fn change(&mut self, replica: ReplicaIx, change: Change) {
        let key = self.held[&replica];
        // Behind a PART_DEL a disk does nothing more for the replica.
        if !matches!(change, Change::New(..) | Change::Gone) && !self.logs.contains_key(&key) {
            return;
        }
        if self.failed.contains(&key.0) {
            // A failed disk's threads say only that.
            if matches!(change, Change::Gone) {
                self.tell(Input::Gone { replica });
            }
            return;
        }
        let input = match change {
            Change::New(id, disk) => {
                self.logs.insert(
                    (disk, id),
                    Log {
                        accepted: LeaderEpoch::NONE,
                        ..Log::default()
                    },
                );
                return;
            }
            Change::Gone => {
                self.logs.remove(&key);
                return self.tell(Input::Gone { replica });
            }
            Change::Append(base, bytes, end) => {
                let log = self.logs.get_mut(&key).unwrap();
                assert_eq!(log.end, base, "an append leaves a gap");
                log.batches.push((base, bytes));
                log.end = end;
                partition::Input::Durable { end }
            }
            Change::Epoch(epoch, start) => {
                let log = self.logs.get_mut(&key).unwrap();
                log.accepted = epoch;
                // A follower learns from the batches where it starts.
                log.epochs
                    .extend(start.map(|start| EpochStart { epoch, start }));
                partition::Input::EpochDurable { epoch }
            }
            Change::LogStart(offset) => {
                self.logs.get_mut(&key).unwrap().log_start = offset;
                partition::Input::LogStartDurable { offset }
            }
        };
        self.tell(Input::Partition { replica, input });
    }

    /// As the shell would, but at once: the test's logs are durable and committed.
    fn load(&mut self, replica: ReplicaIx, partition: u32, epoch: LeaderEpoch) {
        let log = &self.logs[&self.held[&replica]];
        let mut records = Vec::new();
        for (base, bytes) in &log.batches {
            let header = Header::read(bytes).unwrap();
            let body = &bytes[model::batch::HEADER_BYTES..];
            for record in Records::new(body, header.records_count) {
                let record = record.unwrap();
                records.push((
                    base.plus(record.offset_delta.into()),
                    record.key.unwrap().to_vec(),
                    record.value.map(<[u8]>::to_vec),
                ));
            }
        }
        for (offset, key, value) in records {
            self.tell(Input::Record {
                partition,
                epoch,
                offset,
                key,
                value,
            });
        }
        self.tell(Input::Loaded { partition, epoch });
    }

    /// A client appends a batch of one record.
    pub(super) fn produce(&mut self, id: TopicPartition, acks: Acks) -> Ticket {
        let ticket = self.ticket();
        let mut builder = model::record::Builder::default();
        builder.push(5, None, Some(b"value"), std::iter::empty());
        let bytes = builder
            .finish(model::batch::Codec::None, model::record::Producer::NONE)
            .unwrap();
        let input = partition::Input::Produce(Produce {
            ticket,
            origin: Origin::Client,
            acks,
            timeout: Duration::from_secs(1),
            last_offset_delta: 0,
            bytes: u32::try_from(bytes.len()).unwrap(),
            claim: None,
            max_ts: WallMs(5),
            attributes: 0,
        });
        self.batches.insert(ticket, bytes);
        let replica = self.broker.replica_of(id).unwrap();
        self.tell(Input::Partition { replica, input });
        ticket
    }

    pub(super) fn wish(&mut self, wish: Wish) -> Ticket {
        let ticket = self.ticket();
        self.tell(Input::Wish {
            ticket,
            actor: Actor::broker(),
            deadline: self.now + Duration::from_secs(5),
            wish,
        });
        ticket
    }

    pub(super) fn ask_group(&mut self, request: GroupRequest) -> Ticket {
        let ticket = self.ticket();
        let request = Box::new(request);
        self.tell(Input::Group { ticket, request });
        ticket
    }

    /// Every partition that the site log places here, with its epoch if it is led.
    pub(super) fn led(&self) -> BTreeMap<TopicPartition, Option<LeaderEpoch>> {
        let all = self.broker.catalog().partitions();
        all.map(|(id, _)| {
            let machine = self
                .broker
                .replica_of(id)
                .and_then(|at| self.broker.partition(at));
            let led = machine.filter(|it| it.leading_since().is_some());
            (id, led.map(partition::Partition::epoch))
        })
        .collect()
    }
}

pub(super) fn id(topic: u8, partition: u32) -> TopicPartition {
    TopicPartition {
        topic: topic_id(topic),
        partition: PartitionIndex(partition),
    }
}
