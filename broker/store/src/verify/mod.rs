//! Reads every byte of a stopped disk and says what is wrong with it.
//!
//! The order is that of a recovery: superblock, checkpoint, ring, and then each extent that is in use at the ring's end.
//! Of an extent, what the checkpoint covers must lie in its file; what was appended behind the checkpoint's boundary
//! must lie in the ring, from where a recovery writes it. Nothing is written, nothing in the bytes is believed, and
//! nothing here panics on them.

use std::fmt;

use model::LeaderEpoch;
use model::batch::Header;

use crate::format::journal::{Entry, EntryType, Record};
use crate::format::superblock::Superblock;
use crate::format::{Fault as FormatFault, PAGE};
use crate::io::{Copy, Io, Mode, Name};
use crate::recover::{Note, OpenError, Read, Stopped, UNKNOWN_END, read_superblock};

mod extents;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: Name,
    /// At which byte of it.
    pub at: u64,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            at,
            found,
            expected,
        } = self;
        write!(f, "{file} at {at}: found {found}, expected {expected}")
    }
}

/// What [`verify`] tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes read, and bytes there are to read.
    Progress {
        /// So far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Damage.
    Fault(Fault),
    /// One of two copies is not readable, as after a cut in the middle of its write; the other one counts.
    Spare(Fault),
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the disk is, if a superblock could be read.
    pub superblock: Option<Superblock>,
    /// Faults told.
    pub faults: u64,
    /// Groups of the ring behind the checkpoint.
    pub groups: u64,
    /// Replicas.
    pub replicas: u64,
    /// Extents in use.
    pub extents: u64,
    /// Batches in them, and behind the checkpoint in the ring.
    pub batches: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Reads a stopped disk whole and tells `each` what it finds.
pub fn verify<I: Io>(io: &I, each: &mut dyn FnMut(Event)) -> Report {
    let mut verifier = Verifier {
        io,
        each,
        report: Report::default(),
        done: 0,
        total: 0,
    };
    verifier.disk();
    verifier.report
}

struct Verifier<'a, I: Io> {
    io: &'a I,
    each: &'a mut dyn FnMut(Event),
    report: Report,
    done: u64,
    total: u64,
}

impl<I: Io> Verifier<'_, I> {
    fn disk(&mut self) {
        for copy in Copy::BOTH {
            self.superblock_copy(copy);
        }
        let superblock = match read_superblock(self.io) {
            Ok((superblock, _)) => superblock,
            Err(error) => {
                return self.fault(Name::Super(Copy::A), 0, error, "a superblock in one of two");
            }
        };
        self.report.superblock = Some(superblock.clone());
        self.total = superblock.journal_bytes;
        let mut stopped = match Stopped::load(self.io, superblock) {
            Ok(stopped) => stopped,
            Err(error) => {
                return self.fault(
                    Name::Checkpoint(Copy::A),
                    0,
                    error,
                    "a checkpoint in one of two",
                );
            }
        };
        let journal = match self.io.open(Name::Journal, Mode::Read) {
            Ok(journal) => journal,
            Err(error) => return self.fault(Name::Journal, 0, error, "the ring"),
        };
        let io = self.io;
        let mut read = match stopped.read(io, &journal) {
            Ok(read) => read,
            Err(error) => return self.unreplayable(error),
        };
        let files = read.replay.table.rows.iter();
        self.total += files
            .filter(|row| row.in_use())
            .map(|row| row.class.bytes())
            .sum::<u64>();
        self.checkpoint(&stopped);
        self.notes(&read);
        self.ring(&journal, stopped.superblock.journal_bytes);
        self.records(&mut read, stopped.boundary);
        self.extents(&stopped, &read.replay);
        self.progress(0);
    }

    /// A copy that can't be read is damage only if both can't.
    fn superblock_copy(&mut self, copy: Copy) {
        let name = Name::Super(copy);
        let mut page = [0; PAGE];
        let read = self
            .io
            .open(name, Mode::Read)
            .and_then(|file| self.io.pread(&file, &mut page, 0));
        let spare = match read.map(|len| Superblock::decode(&page[..len])) {
            Ok(Ok(_)) => return,
            Ok(Err(fault)) => told(name, 0, &fault),
            Err(error) => Fault {
                file: name,
                at: 0,
                found: error.to_string(),
                expected: "a superblock".into(),
            },
        };
        (self.each)(Event::Spare(spare));
    }

    /// The ring does not lead on from the checkpoint.
    fn unreplayable(&mut self, error: OpenError) {
        match error {
            OpenError::Inconsistent { seq, what } => {
                let found = format!("group {seq}: {what}");
                self.fault(Name::Journal, 0, found, "a group that fits those before it");
            }
            error => self.fault(Name::Journal, 0, error, "a ring that can be read"),
        }
    }

    fn notes<'a>(&mut self, read: &Read<'a, I>) {
        for note in &read.notes {
            let (found, expected) = match note {
                Note::Salvaged { seq, next, .. } => (
                    match next {
                        Some(next) => format!("group {next} behind a hole"),
                        None => "nothing that can be read".into(),
                    },
                    format!("group {seq}"),
                ),
                Note::SiteHole(index) => (
                    "a hole in the site log".into(),
                    format!("its entry {index}"),
                ),
                Note::UnknownReplicas(parts) => (
                    format!("records of {parts:?}, which nobody knows"),
                    "their PART_NEW".into(),
                ),
                Note::SyncsEachExtent | Note::JournalUnknown | Note::JournalUnwritten => continue,
            };
            self.fault(Name::Journal, 0, found, expected);
        }
        for (part, it) in &read.replay.parts {
            if let Some((from, to)) = it.hole {
                let found = format!("{part:?} ({}) without them", it.id.topic);
                let expected = match to {
                    UNKNOWN_END => format!("offsets from {} on, if there were any", from.0),
                    to => format!("offsets {} to {}", from.0, to.0 - 1),
                };
                self.fault(Name::Journal, 0, found, expected);
            }
        }
    }

    /// Windows at rest must read, and rows must be of partitions that are there.
    fn checkpoint(&mut self, stopped: &Stopped) {
        let name = Name::Checkpoint(stopped.at);
        for it in stopped.partitions() {
            let mut windows = model::window::Windows::default();
            let part = crate::PartIx(it.row.part);
            if !it.windows.is_empty()
                && let Err(fault) = windows.decode(part, it.row.high_watermark, &it.windows)
            {
                self.fault(name, 0, fault, "producer windows");
            }
            let row = &it.row;
            if row.log_start > row.end || row.high_watermark > row.end {
                let found = format!(
                    "{part:?}: log start {}, high watermark {}, end {}",
                    row.log_start.0, row.high_watermark.0, row.end.0
                );
                self.fault(name, 0, found, "both at or below the end");
            }
            let rising = row
                .epochs
                .windows(2)
                .all(|it| it[0].0 < it[1].0 && it[0].1 < it[1].1);
            if !rising {
                self.fault(name, 0, format!("{:?}", row.epochs), "epochs that rise");
            }
        }
    }

    /// Every block of the ring can be read, whatever it holds.
    fn ring(&mut self, journal: &I::File, bytes: u64) {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < bytes {
            let len = piece.len().min((bytes - at) as usize);
            match self.io.pread(journal, &mut piece[..len], at) {
                Ok(read) if read == len => {}
                Ok(read) => {
                    let found = format!("the file's end behind {} B", at + read as u64);
                    return self.fault(Name::Journal, at, found, format!("{bytes} B"));
                }
                Err(error) => self.fault(Name::Journal, at, error, "readable blocks"),
            }
            at += len as u64;
            self.progress(len as u64);
        }
    }

    /// What the records behind the checkpoint carry.
    fn records<'a>(&mut self, read: &mut Read<'a, I>, boundary: u64) {
        let mut keep = 0;
        let walked = read.records(|record| {
            let header = record.header;
            self.report.groups += 1;
            if header.keep_seq > header.seq || header.keep_seq < keep {
                let found = format!("keep_seq {} in group {}", header.keep_seq, header.seq);
                let expected = format!("between {keep} and {}", header.seq);
                self.fault(Name::Journal, header.ring_pos + 16, found, expected);
            }
            keep = header.keep_seq;
            if header.keep_seq > boundary + 1 {
                let found = format!("group {} keeps from {}", header.seq, header.keep_seq);
                let expected = format!("a checkpoint at {} or later", header.keep_seq - 1);
                self.fault(Name::Journal, header.ring_pos + 16, found, expected);
            }
            for entry in record.entries().flatten() {
                if entry.kind == EntryType::Append {
                    self.payload(&record, &entry);
                }
            }
            Ok(())
        });
        if let Err(error) = walked {
            self.unreplayable(error);
        }
    }

    /// The batches of an APPEND are what its entry says.
    fn payload(&mut self, record: &Record<'_>, entry: &Entry) {
        let bytes = record.payload(entry);
        let place = |at: usize| record.header.ring_pos + u64::from(entry.payload_off) + at as u64;
        let (mut at, mut next) = (0, entry.base);
        let gap = entry.flags & crate::format::journal::GAP != 0;
        let mut last = LeaderEpoch(entry.epoch.0);
        while at < bytes.len() {
            let header = match Header::check_stored(&bytes[at..]) {
                Ok(header) => header,
                Err(fault) => {
                    return self.fault(Name::Journal, place(at), fault, "a whole batch");
                }
            };
            let follows = header.base_offset == next || (gap && header.base_offset > next);
            if !follows || header.leader_epoch != last {
                let found = format!(
                    "a batch at offset {} of epoch {}",
                    header.base_offset.0, header.leader_epoch.0
                );
                let expected = format!("offset {} of epoch {}", next.0, entry.epoch.0);
                self.fault(Name::Journal, place(at), found, expected);
            }
            last = header.leader_epoch;
            next = header.next_offset();
            at += header.bytes;
            self.report.batches += 1;
            self.report.bytes += header.bytes as u64;
        }
        if next != entry.next_offset() {
            let found = format!("batches up to offset {}", next.0);
            let expected = format!("up to {}", entry.next_offset().0);
            self.fault(Name::Journal, place(0), found, expected);
        }
    }

    fn fault(&mut self, file: Name, at: u64, found: impl ToString, expected: impl ToString) {
        self.report.faults += 1;
        (self.each)(Event::Fault(Fault {
            file,
            at,
            found: found.to_string(),
            expected: expected.to_string(),
        }));
    }

    fn format_fault(&mut self, file: Name, at: u64, fault: &FormatFault) {
        self.report.faults += 1;
        (self.each)(Event::Fault(told(file, at, fault)));
    }

    fn progress(&mut self, bytes: u64) {
        self.done += bytes;
        (self.each)(Event::Progress {
            done: self.done,
            total: self.total,
        });
    }
}

/// A decoder's fault, in the words of a place.
fn told(file: Name, at: u64, fault: &FormatFault) -> Fault {
    let (found, expected) = match fault {
        FormatFault::Short { what, have, need } => {
            (format!("{have} B"), format!("{need} B of a {what}"))
        }
        FormatFault::Magic { what, found } => (format!("magic {found:#x}"), format!("a {what}")),
        FormatFault::Crc {
            what,
            claimed,
            found,
        } => (
            format!("{what} with CRC-32C {found:08x}"),
            format!("{claimed:08x}"),
        ),
        FormatFault::Field { what, field, value } => (
            format!("{field} {value}"),
            format!("a {field} that a {what} can have"),
        ),
        fault @ (FormatFault::Newer { .. } | FormatFault::Unknown(_)) => {
            (fault.to_string(), "what this release knows".into())
        }
    };
    Fault {
        file,
        at,
        found,
        expected,
    }
}
