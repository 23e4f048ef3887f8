//! A disk under random operations, beside its oracle.

use core::time::Duration;

use bytes::Bytes;
use model::batch::Header;
use model::{
    LeaderEpoch, NodeId, Offset, PartitionIndex, SiteUuid, Term, TopicId, TopicPartition, Uuid,
    WallMs,
};

use super::oracle::{State, TODAY, batch};
use crate::compact::{CompactionSettings, Compactor, KeyMap, Wants};
use crate::format::extent::{DATA_AT, FOOTER_BYTES, Footer, Tail};
use crate::format::journal::GroupHeader;
use crate::format::row::{Row, SlotState};
use crate::io::Name;
use crate::io::mem::Random;
use crate::phase::Phase;
use crate::verify::Event;
use crate::{
    Append, Config, Disk, FormatConfig, MemIo, Op, Outcome, PartIx, PartSettings, Queue, Recovered,
};

/// Ring of the tests: small, so that it wraps often.
pub(super) const RING: u64 = 512 << 10;

pub(super) const FORMAT: FormatConfig = FormatConfig {
    node: NodeId(1),
    incarnation: None,
    site: SiteUuid(Uuid::ZERO),
    meta: true,
    replacement: false,
    journal_bytes: RING,
    journal_apart: false,
};

/// See the module.
pub(super) struct World {
    pub(super) io: MemIo,
    pub(super) config: Config,
    pub(super) random: Random,
    pub(super) disk: Option<Disk<MemIo>>,
    /// As acknowledged.
    pub(super) committed: State,
    /// With all that is queued.
    pub(super) planned: State,
    pub(super) queue: Queue<Op>,
    stuck: u32,
    /// Cuts by what they hit.
    pub(super) cuts: std::collections::BTreeMap<Phase, u64>,
    sequences: std::collections::BTreeMap<(PartIx, i64), i32>,
}

impl World {
    pub(super) fn new(seed: u64, config: Config) -> Self {
        Self::with_format(seed, config, &FORMAT)
    }

    pub(super) fn with_format(seed: u64, config: Config, format: &FormatConfig) -> Self {
        let io = MemIo::new(seed, 1 << 32);
        Disk::format(&io, format).unwrap();
        io.commit_by_itself(!seed);
        let mut world = Self {
            io,
            config,
            random: Random(seed),
            disk: None,
            committed: State::default(),
            planned: State::default(),
            queue: Queue::default(),
            stuck: 0,
            cuts: Default::default(),
            sequences: Default::default(),
        };
        world.open();
        world
    }

    pub(super) fn open(&mut self) -> Recovered {
        self.disk = None;
        let (disk, recovered) = Disk::open(self.io.clone(), self.config).unwrap();
        self.disk = Some(disk);
        recovered
    }

    /// Extents in use, with their rows.
    pub(super) fn open_rows(&self) -> Vec<(u32, Row)> {
        let disk = self.disk.as_ref().expect("open");
        let rows = disk.table.rows.iter().enumerate();
        rows.filter(|(_, row)| matches!(row.state, SlotState::Open | SlotState::Sealed))
            .map(|(slot, row)| (slot as u32, *row))
            .collect()
    }

    /// Headers of all groups in the ring, by sequence.
    pub(super) fn groups(&self) -> Vec<GroupHeader> {
        let ring = self.io.contents(Name::Journal).expect("formatted");
        let pages = ring.chunks(crate::format::PAGE).enumerate();
        let mut groups: Vec<_> = pages
            .filter_map(|(at, page)| GroupHeader::peek(page, at as u64 * 4096, RING))
            .collect();
        groups.sort_by_key(|header| header.seq);
        groups
    }

    pub(super) fn disk(&mut self) -> &mut Disk<MemIo> {
        self.disk.as_mut().expect("open")
    }

    pub(super) fn push(&mut self, op: Op) {
        self.planned.apply(&op);
        self.queue.push(op.clone(), op);
    }

    pub(super) fn part_new(&mut self) -> PartIx {
        let part = PartIx(self.planned.next_part);
        let id = TopicPartition {
            topic: TopicId(Uuid([part.0 as u8 + 1; 16])),
            partition: PartitionIndex(part.0),
        };
        self.push(Op::PartNew { part, id });
        part
    }

    /// A random replica.
    fn part(&mut self) -> Option<PartIx> {
        let parts: Vec<PartIx> = self.planned.logs.keys().copied().collect();
        let at = self.random.below(parts.len() as u64) as usize;
        parts.get(at).copied()
    }

    /// An append of one batch with a body of `size` bytes.
    pub(super) fn append(&mut self, part: PartIx, size: usize) {
        let fill = self.random.next();
        let batch = batch(
            1 + (fill % 5) as i32,
            size,
            TODAY.0 + (fill % 1000) as i64,
            None,
            fill,
        );
        self.append_bytes(part, batch.into());
    }

    pub(super) fn append_bytes(&mut self, part: PartIx, batch: Bytes) {
        let log = &self.planned.logs[&part];
        let epoch = log.epochs.last().map_or(log.accepted, |last| last.0);
        let append = Append {
            part,
            base_offset: log.end,
            leader_epoch: epoch.max(LeaderEpoch(0)),
            hw: Offset(self.random.below(log.end.0 as u64 + 1) as i64),
            gap: false,
            append_time: (self.random.below(4) == 0).then_some(TODAY),
            batch,
        };
        self.push(Op::Append(append));
    }

    /// Queues one random operation.
    pub(super) fn random_op(&mut self, size_max: u64) {
        let choice = self.random.below(100);
        if choice < 4 || self.planned.logs.is_empty() {
            if self.planned.logs.len() < 6 {
                self.part_new();
            }
            return;
        }
        let part = self.part().expect("one at least");
        let log = &self.planned.logs[&part];
        match choice {
            4 => self.push(Op::PartDel { part }),
            5..8 => {
                let to = log.cuts();
                let to = to[self.random.below(to.len() as u64) as usize];
                self.push(Op::Truncate { part, to });
            }
            8..12 => {
                let upto = log.hw.0.max(log.start.0);
                let offset =
                    log.start.0 + self.random.below((upto - log.start.0) as u64 + 1) as i64;
                self.push(Op::LogStart {
                    part,
                    offset: Offset(offset),
                });
            }
            12..17 => {
                let epoch = log
                    .epochs
                    .last()
                    .map_or(log.accepted, |last| last.0.max(log.accepted));
                let start = Some(log.end);
                self.push(Op::Epoch {
                    part,
                    epoch: epoch.next(),
                    start,
                    unclean: false,
                });
            }
            17..20 => {
                let term = Term(self.planned.hard_state.0.0 + 1);
                self.push(Op::HardState {
                    term,
                    vote: Some(NodeId(1)),
                });
            }
            20..23 => {
                let index = self
                    .planned
                    .entries
                    .keys()
                    .last()
                    .map_or(1, |last| last + 1);
                let bytes = vec![index as u8; self.random.below(3000) as usize];
                self.push(Op::SiteEntry {
                    index,
                    term: self.planned.hard_state.0,
                    bytes: bytes.into(),
                });
            }
            23 => {
                if let Some((index, (term, _))) = self.planned.entries.iter().next_back() {
                    let (index, term) = (*index, *term);
                    self.push(Op::SiteSnapshot {
                        index,
                        term,
                        bytes: vec![7; 100].into(),
                    });
                }
            }
            24 => {
                let settings = PartSettings {
                    quota_bytes: 1 << (20 + self.random.below(10)),
                    ..PartSettings::default()
                };
                self.push(Op::Settings { part, settings });
            }
            _ => {
                let mut bytes = Vec::new();
                for _ in 0..1 + self.random.below(3) {
                    let size = self.random.below(size_max) as usize;
                    let fill = self.random.next();
                    let count = 1 + (fill % 5) as i32;
                    let ts = TODAY.0 + (fill % 100_000) as i64;
                    let producer = (fill.is_multiple_of(3)).then(|| {
                        let pid = (fill >> 8) as i64 % 4;
                        let seq = self.sequences.entry((part, pid)).or_default();
                        let first = *seq;
                        *seq += count;
                        (pid, first)
                    });
                    bytes.extend(batch(count, size, ts, producer, fill));
                }
                self.append_bytes(part, bytes.into());
            }
        }
    }

    /// Commits all that is queued, with work in between; false once the power is off.
    pub(super) fn commit_all(&mut self) -> Result<(), Box<State>> {
        while !self.queue.is_empty() {
            self.commit_one()?;
        }
        Ok(())
    }

    /// One group; on an error the state that holds if the group made it.
    pub(super) fn commit_one(&mut self) -> Result<(), Box<State>> {
        let trusted = (self.random.below(3) > 0).then_some(TODAY);
        let mut done = Vec::new();
        let disk = self.disk.as_mut().expect("open");
        let result = disk.commit(&mut self.queue, trusted, &mut done);
        let mut next = self.committed.clone();
        for (op, outcome) in &done {
            if !matches!(
                outcome,
                Outcome::Done | Outcome::Truncated { .. } | Outcome::Failed
            ) {
                continue;
            }
            next.apply(op);
            if let (Op::Truncate { part, .. }, Outcome::Truncated { end }) = (op, outcome) {
                assert_eq!(next.logs[part].end, *end);
            }
        }
        let committed = match result {
            Ok(committed) => committed,
            Err(_) => return Err(Box::new(next)),
        };
        self.committed = next;
        let refused: Vec<PartIx> = done
            .iter()
            .filter(|(_, outcome)| *outcome == Outcome::NoRoom)
            .filter_map(|(op, _)| op.part())
            .collect();
        if !refused.is_empty() {
            // The machine begins again from what the disk has.
            for _ in self.queue.drain() {}
            self.planned = self.committed.clone();
            for part in refused {
                self.push(Op::Resume { part });
            }
            self.planned.next_part = self.disk().next_part;
        }
        if committed.held {
            self.stuck += 1;
            assert!(self.stuck < 1000, "held: {:?}", self.disk().stats());
        } else {
            self.stuck = 0;
        }
        if committed.held || self.random.below(3) == 0 {
            self.work_one(true)?;
        }
        Ok(())
    }

    pub(super) fn work_one(&mut self, waiting: bool) -> Result<bool, Box<State>> {
        let disk = self.disk.as_mut().expect("open");
        match disk.work(waiting, Some(TODAY)) {
            Ok(work) => Ok(work.did),
            Err(_) => Err(Box::new(self.committed.clone())),
        }
    }

    /// Work until nothing more is due, with time going by.
    pub(super) fn idle(&mut self) -> Result<(), Box<State>> {
        for _ in 0..40 {
            self.io.advance(Duration::from_secs(5));
            while self.work_one(false)? {}
        }
        Ok(())
    }

    /// Whether the disk holds `want`; tells how not.
    pub(super) fn differs(&mut self, want: &State) -> Option<String> {
        let disk = self.disk.as_ref().expect("open");
        for part in want.logs.keys() {
            if disk.replica(*part).is_none() {
                return Some(format!("{part:?} is missing"));
            }
        }
        for part in disk.parts.keys() {
            let replica = disk.replica(*part).expect("listed");
            if let Some(what) = want.differs(&replica) {
                return Some(what);
            }
            if let Some(what) = self.log_differs(want, *part) {
                return Some(format!("{part:?}: {what}"));
            }
            let (mut found, mut wanted) = (Vec::new(), Vec::new());
            disk.windows.encode(*part, &mut found);
            want.windows.encode(*part, &mut wanted);
            if found != wanted {
                eprintln!(
                    "WIN {replica:?} {:?}\nWANT {:?}",
                    disk.windows, want.windows
                );
                return Some(format!("windows of {part:?}: {found:?}, want {wanted:?}"));
            }
        }
        if (disk.site.log.term, disk.site.log.vote) != want.hard_state {
            return Some("hard state".into());
        }
        let snapshot = disk.site.log.snapshot.as_ref().map_or(0, |it| it.index);
        let wanted: Vec<_> = want.entries.range(snapshot + 1..).collect();
        let found = disk.site.log.entries.iter();
        let found: Vec<_> = found
            .map(|it| (it.index, (it.term, it.bytes.clone())))
            .collect();
        if !wanted
            .iter()
            .copied()
            .eq(found.iter().map(|it| (&it.0, &it.1)))
        {
            return Some("site log".into());
        }
        None
    }

    /// Compares the batches in extents with the oracle's, and what is derived of them.
    fn log_differs(&self, want: &State, part: PartIx) -> Option<String> {
        let disk = self.disk.as_ref().expect("open");
        let log = &want.logs[&part];
        let it = &disk.parts[&part];
        let mut next: Option<Offset> = None;
        for (at, slot) in it.extents.iter().enumerate() {
            let row = disk.table.row(*slot);
            let bytes = self.io.contents(Name::Extent(*slot))?;
            let mut pos = DATA_AT as usize;
            let mut max_ts = WallMs(-1);
            let mut index = Vec::new();
            if next.is_some_and(|next| row.base != next) {
                return Some(format!(
                    "extent {slot} begins at {:?}, not {next:?}",
                    row.base
                ));
            }
            while pos < row.used as usize {
                let header = match Header::check_stored(&bytes[pos..row.used as usize]) {
                    Ok(header) => header,
                    Err(fault) => {
                        let pages: Vec<_> = bytes
                            .chunks(4096)
                            .map(|p| u8::from(p.iter().any(|b| *b != 0)))
                            .take(20)
                            .collect();
                        return Some(format!(
                            "extent {slot} at {pos}: {fault} {row:?} {pages:?} keep {} seq {} freeing {:?}",
                            disk.ring.keep_seq, disk.ring.seq, disk.freeing
                        ));
                    }
                };
                let batch = &bytes[pos..pos + header.bytes];
                if log.batches.get(&header.base_offset.0).map(|it| &it[..]) != Some(batch) {
                    return Some(format!("batch {:?} of extent {slot}", header.base_offset));
                }
                if next.is_some_and(|next| header.base_offset != next) {
                    return Some(format!("batch {:?} after {next:?}", header.base_offset));
                }
                let rel = header.base_offset.since(row.base) as u32;
                crate::parts::feed_index(&mut index, rel, pos as u32, max_ts);
                next = Some(header.next_offset());
                max_ts = max_ts.max(header.max_timestamp);
                pos += header.bytes;
            }
            if pos != row.used as usize || row.max_ts != max_ts || Some(row.last.plus(1)) != next {
                return Some(format!(
                    "row of extent {slot}: {row:?}, {max_ts:?}, {next:?}, {pos}"
                ));
            }
            let last = at + 1 == it.extents.len();
            match (&it.open, row.state) {
                (Some(open), SlotState::Open) if last => {
                    if open.index != index {
                        return Some(format!("index of extent {slot}"));
                    }
                    let tail = row.used as usize % 4096;
                    let page = row.used as usize - tail;
                    if open.tail[..tail] != bytes[page..page + tail] {
                        return Some(format!("tail of extent {slot}"));
                    }
                }
                (_, SlotState::Sealed) => {
                    let footer = &bytes[bytes.len() - FOOTER_BYTES..];
                    let footer = match Footer::decode(row.class, footer) {
                        Ok(footer) => footer,
                        Err(fault) => return Some(format!("extent {slot}: {fault}")),
                    };
                    let tail = &bytes[bytes.len() - footer.tail_bytes as usize..];
                    let crc = crc32c::crc32c(&bytes[DATA_AT as usize..row.used as usize]);
                    match Tail::decode(row.class, tail) {
                        Ok(tail) if tail.index == index && tail.footer.data_crc == crc => {}
                        other => {
                            return Some(format!(
                                "tail of extent {slot}: {other:?}, want {crc} and {index:?}"
                            ));
                        }
                    }
                }
                _ => return Some(format!("extent {slot} is {:?}", row.state)),
            }
        }
        if log.start < log.end && next != Some(log.end) {
            return Some(format!("extents end at {next:?}, the log at {:?}", log.end));
        }
        let first = it.extents.front().map(|slot| disk.table.row(*slot).base);
        if log.start < log.end && first.is_none_or(|first| first > log.start) {
            return Some(format!(
                "extents begin at {first:?}, the log at {:?}",
                log.start
            ));
        }
        None
    }

    fn count_cut(&mut self) {
        if let Some(phase) = self.io.cut_in() {
            *self.cuts.entry(phase).or_default() += 1;
        }
    }

    /// Merges the sealed extents of a replica. The batches here hold no records, so all of them stay as they are.
    pub(super) fn compact(&mut self) -> Result<(), Box<State>> {
        let failed = |world: &Self| Box::new(world.committed.clone());
        let parts = self.disk().parts.iter();
        let fullest = parts.max_by_key(|(_, it)| it.extents.len());
        let Some(part) = fullest.map(|(part, _)| *part) else {
            return Ok(());
        };
        let settings = CompactionSettings {
            dirty_ratio_min: 0.0,
            ..CompactionSettings::default()
        };
        let end = self.committed.logs[&part].end;
        let io = self.io.clone();
        let plan = self
            .disk()
            .compaction(part, end, &settings, Some(TODAY), Some(Offset(0)));
        let Some(plan) = plan else {
            return Ok(());
        };
        let mut compactor = Compactor::new(plan, KeyMap::with_bytes(1000));
        loop {
            match compactor.wants() {
                Wants::Read => {
                    if compactor.read(&io).is_err() {
                        return Err(failed(self));
                    }
                }
                Wants::Write => {
                    if self.disk().compact(&mut compactor).is_err() {
                        return Err(failed(self));
                    }
                }
                Wants::Swap => {
                    let mut queue = Queue::default();
                    queue.push(compactor.swap(), ());
                    let mut done = Vec::new();
                    while !queue.is_empty() {
                        let disk = self.disk();
                        if disk.commit(&mut queue, Some(TODAY), &mut done).is_err() {
                            return Err(failed(self));
                        }
                        self.work_one(true)?;
                    }
                    assert_eq!(done[0].1, Outcome::Done);
                    compactor.swapped(done[0].1);
                }
                Wants::Nothing => return Ok(()),
            }
            if self.random.below(4) == 0 {
                self.work_one(false)?;
            }
        }
    }

    /// The stopped disk reads whole, and reading it changes nothing.
    pub(super) fn verify(&mut self) -> Result<crate::verify::Report, String> {
        self.disk = None;
        let operations = self.io.operations();
        let mut faults = Vec::new();
        let mut last = (0, 0);
        let report = crate::verify::verify(&self.io, &mut |event| match event {
            Event::Fault(fault) => faults.push(fault.to_string()),
            Event::Progress { done, total } => {
                assert!(done >= last.0 && done <= total, "{done} of {total}");
                last = (done, total);
            }
            Event::Spare(_) => {}
        });
        assert_eq!(last.0, last.1, "everything was read");
        assert_eq!(self.io.operations(), operations, "verify wrote");
        match faults.is_empty() {
            true => Ok(report),
            false => Err(format!("verify: {}", faults.join("\n        "))),
        }
    }

    /// After a cut: the disk holds what was committed, or what the group under way would have made of it.
    pub(super) fn settle(&mut self, maybe: State) -> Result<(), String> {
        for _ in self.queue.drain() {}
        self.count_cut();
        self.verify()?;
        // Recovery itself may be cut, again and again.
        while self.random.below(3) == 0 {
            let within = self.random.below(12);
            self.io.cut_after(within);
            let opened = Disk::open(self.io.clone(), self.config).is_ok();
            let seed = self.random.next();
            self.io.power_cut(seed);
            self.count_cut();
            self.verify()?;
            if opened {
                break;
            }
        }
        self.open();
        let committed = self.committed.clone();
        if let Some(without) = self.differs(&committed) {
            if let Some(with) = self.differs(&maybe) {
                return Err(format!(
                    "neither: without the last group: {without}\nwith it: {with}"
                ));
            }
            self.committed = maybe;
        }
        // A replica that came and went in the last group leaves nothing but its number.
        self.committed.next_part = self.disk().next_part;
        self.planned = self.committed.clone();
        Ok(())
    }
}
